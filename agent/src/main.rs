//! The `holdfast` command.

use std::process::ExitCode;

/// Buffers of many sizes come and go in many threads: the system's allocator keeps half as much again.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    ExitCode::from(agent::cli::main())
}
