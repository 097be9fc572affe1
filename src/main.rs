//! Arguments → cli → exit code.

use std::process::ExitCode;

fn main() -> ExitCode {
    sagad::cli::main(std::env::args_os())
}
