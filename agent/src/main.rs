//! The `holdfast` command.

use std::process::ExitCode;

fn main() -> ExitCode {
    ExitCode::from(agent::cli::main())
}
