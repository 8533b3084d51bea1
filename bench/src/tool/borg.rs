//! borg with a local repository, encrypted, zstd level 3 as Holdfast's default.

use super::{PASSWORD, Tool, below, first_line};
use crate::error::{BenchError, Doing};
use crate::measure::{self, Usage};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// borg, local.
pub struct Borg {
    work: PathBuf,
    archives: u32,
}

impl Borg {
    /// With everything it keeps under `work`.
    pub fn new(work: &Path) -> Result<Self, BenchError> {
        fs::create_dir_all(work).doing(work.display().to_string())?;
        Ok(Borg { work: work.to_path_buf(), archives: 0 })
    }

    fn command(&self) -> Command {
        let mut command = Command::new("borg");
        command
            .env("BORG_REPO", self.repository())
            .env("BORG_PASSPHRASE", PASSWORD)
            .env("BORG_BASE_DIR", self.work.join("home"));
        command
    }

    fn run(&self, command: &mut Command) -> Result<Usage, BenchError> {
        measure::run(command, &[0], &self.work.join("log"))
    }
}

impl Tool for Borg {
    fn name(&self) -> &'static str {
        "borg"
    }

    fn version(&self) -> String {
        format!("{}, local, zstd,3", first_line("borg").unwrap_or_default())
    }

    fn start(&mut self) -> Result<(), BenchError> {
        if !self.repository().exists() {
            self.run(self.command().args(["init", "--encryption", "repokey-blake2"]))?;
        }
        Ok(())
    }

    fn server_pid(&self) -> Option<u32> {
        None
    }

    fn stop(&mut self) -> Result<(), BenchError> {
        Ok(())
    }

    fn backup(&mut self, source: &Path) -> Result<Usage, BenchError> {
        self.archives += 1;
        let archive = format!("::{}", self.archives);
        self.run(self.command().args(["create", "--compression", "zstd,3", &archive]).arg(source))
    }

    fn restore(&mut self, source: &Path, target: &Path) -> Result<(Usage, PathBuf), BenchError> {
        let archive = format!("::{}", self.archives);
        let usage = self.run(self.command().args(["extract", &archive]).current_dir(target))?;
        Ok((usage, below(target, source)))
    }

    fn repository(&self) -> PathBuf {
        self.work.join("repository")
    }
}
