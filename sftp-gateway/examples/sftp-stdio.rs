//! SFTP on standard input and output, for foreign suites: takes OpenSSH's `sftp-server` options, and `--root`.
//!
//!     sftp -D 'sftp-stdio --root /some/folder --read-only'

use clap::Parser;
use sftp_gateway::testing::{StdioOptions, serve_stdio};
use std::path::PathBuf;

/// Serves a folder of this machine over SFTP on standard input and output.
#[derive(Parser)]
struct Arguments {
    /// The folder that is served as `/`.
    #[arg(long, default_value = "/")]
    root: PathBuf,
    /// Refuses every change.
    #[arg(long, short = 'R')]
    read_only: bool,
    /// Only these requests, separated by commas.
    #[arg(short = 'p', value_delimiter = ',')]
    permitted: Option<Vec<String>>,
    /// Not these requests, separated by commas.
    #[arg(short = 'P', value_delimiter = ',')]
    denied: Vec<String>,
    /// Taken, without effect: log to the error output.
    #[arg(short = 'e')]
    errors: bool,
    /// Taken, without effect: the level of the log.
    #[arg(short = 'l')]
    level: Option<String>,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> std::io::Result<()> {
    let arguments = Arguments::parse();
    let served = serve_stdio(StdioOptions {
        root: arguments.root,
        read_only: arguments.read_only,
        permitted: arguments.permitted.map(|names| names.into_iter().collect()),
        denied: arguments.denied.into_iter().collect(),
    });
    let served = served.await;
    // The runtime would wait for a read of the input that nobody ends.
    std::process::exit(i32::from(served.is_err()));
}
