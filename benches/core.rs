//! Cost of the pure core alone: one turn of an instance, templates and guards included.

fn main() {
    divan::main();
}
