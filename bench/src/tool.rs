//! One backup tool: how to start its server, back up, restore and stop. Tools are only run as other processes.

pub mod borg;
pub mod holdfast;
pub mod restic;
pub mod rustic;

use crate::error::BenchError;
use crate::measure::Usage;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// A backup tool with an empty repository of its own.
pub trait Tool {
    /// As in the results.
    fn name(&self) -> &'static str;

    /// What runs, for people.
    fn version(&self) -> String;

    /// Starts the server; nothing for a local tool. The repository exists when this returns.
    fn start(&mut self) -> Result<(), BenchError>;

    /// Process id of the server while it runs.
    fn server_pid(&self) -> Option<u32>;

    /// Ends the server cleanly.
    fn stop(&mut self) -> Result<(), BenchError>;

    /// Backs `source` up.
    fn backup(&mut self, source: &Path) -> Result<Usage, BenchError>;

    /// Restores the newest snapshot into the empty folder `target`; gives where `source` then stands below it.
    fn restore(&mut self, source: &Path, target: &Path) -> Result<(Usage, PathBuf), BenchError>;

    /// The data folder or repository.
    fn repository(&self) -> PathBuf;
}

/// True when the program answers to `--version` or `version`.
pub fn is_installed(program: &str) -> bool {
    first_line(program).is_some()
}

/// First line of what a program says about its version.
pub fn first_line(program: &str) -> Option<String> {
    for argument in ["--version", "version"] {
        let run = Command::new(program).arg(argument).stdin(Stdio::null()).stderr(Stdio::null()).output();
        if let Ok(output) = run
            && output.status.success()
        {
            return Some(String::from_utf8_lossy(&output.stdout).lines().next().unwrap_or_default().to_owned());
        }
    }
    None
}

/// Where an absolute path stands below a folder it was restored into.
pub fn below(target: &Path, source: &Path) -> PathBuf {
    target.join(source.strip_prefix("/").unwrap_or(source))
}

/// Not a secret: the repositories of a bench live for minutes.
const PASSWORD: &str = "bench";
