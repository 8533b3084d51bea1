//! Numbers, and nothing else: Holdfast and its peers on the same data, in one run, on one machine. `bench main-job`
//! backs a tree up three ways and restores it; `bench scale` fills an index. A result that is not equal to its source is a failure, not a number.
#![forbid(unsafe_code)]

mod binaries;
mod error;
mod floor;
mod main_job;
mod measure;
mod report;
mod scale;
mod tool;

use crate::error::Doing;
use clap::{Parser, Subcommand};
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use tests::seed::Seed;
use tests::trees::Totals;

#[derive(Parser)]
#[command(about = "Measures Holdfast beside other tools")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// First, unchanged and changed backup of a tree, and its restore, by every tool that is installed
    MainJob(main_job::Options),
    /// Index of very many chunks: bytes, memory, `have`, start after a crash, rebuild
    Scale(scale::Options),
    /// Builds a seeded life-like tree, to top up one that is too small for a fair comparison
    Tree {
        /// Regular files
        #[arg(long, default_value_t = 100_000)]
        files: u64,
        /// Bytes in them
        #[arg(long, default_value_t = 5_000_000_000)]
        bytes: u64,
        /// The same seed gives the same tree
        #[arg(long, default_value_t = 1)]
        seed: u64,
        /// Folder to build in; created when missing
        path: PathBuf,
    },
    /// The floor alone, in this process: what every first backup must at least do
    #[command(hide = true)]
    Floor {
        /// Only look at every file
        #[arg(long)]
        unchanged: bool,
        path: PathBuf,
    },
}

fn main() -> ExitCode {
    let outcome = match Arguments::parse().command {
        Command::MainJob(options) => main_job::run(&options),
        Command::Scale(options) => scale::run(&options),
        Command::Tree { files, bytes, seed, path } => {
            tests::trees::life_like(&path, Totals { files, bytes }, Seed(seed))
                .map(drop)
                .doing(path.display().to_string())
        }
        Command::Floor { unchanged, path } => floor::run(&path, unchanged),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "bench: {error}");
            ExitCode::FAILURE
        }
    }
}
