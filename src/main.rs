//! Arguments → cli → exit code.

fn main() {}
