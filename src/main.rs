//! The `fedmill` command.

use std::process::ExitCode;

fn main() -> ExitCode {
    fedmill::cli::run()
}
