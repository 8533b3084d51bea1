//! rustic (crate `rustic-rs`) with a local repository.

use super::{PASSWORD, Tool, first_line};
use crate::error::{BenchError, Doing};
use crate::measure::{self, Usage};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// rustic, local.
pub struct Rustic {
    work: PathBuf,
}

impl Rustic {
    /// With everything it keeps under `work`.
    pub fn new(work: &Path) -> Result<Self, BenchError> {
        fs::create_dir_all(work).doing(work.display().to_string())?;
        Ok(Rustic { work: work.to_path_buf() })
    }

    fn command(&self) -> Command {
        let mut command = Command::new("rustic");
        command
            .env("RUSTIC_REPOSITORY", self.repository())
            .env("RUSTIC_PASSWORD", PASSWORD)
            .env("RUSTIC_CACHE_DIR", self.work.join("cache"))
            .env("RUSTIC_NO_PROGRESS", "true")
            .env("HOME", &self.work)
            .env("XDG_CONFIG_HOME", self.work.join("config"));
        command
    }

    fn run(&self, command: &mut Command) -> Result<Usage, BenchError> {
        measure::run(command, &[0], &self.work.join("log"))
    }
}

impl Tool for Rustic {
    fn name(&self) -> &'static str {
        "rustic"
    }

    fn version(&self) -> String {
        format!("{}, local", first_line("rustic").unwrap_or_default())
    }

    fn start(&mut self) -> Result<(), BenchError> {
        if !self.repository().join("config").exists() {
            self.run(self.command().arg("init"))?;
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
        self.run(self.command().arg("backup").arg(source))
    }

    fn restore(&mut self, source: &Path, target: &Path) -> Result<(Usage, PathBuf), BenchError> {
        let snapshot = format!("latest:{}", source.display());
        let usage = self.run(self.command().args(["restore", &snapshot]).arg(target))?;
        Ok((usage, target.to_path_buf()))
    }

    fn repository(&self) -> PathBuf {
        self.work.join("repository")
    }
}
