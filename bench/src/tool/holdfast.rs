//! Holdfast over HTTPS: its own server, with a user, a token and a pinned certificate, as a person would set it up.

use super::{Tool, below, first_line};
use crate::error::{BenchError, Doing};
use crate::measure::{self, Usage};
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use tests::harness::{Binaries, Login, Server};

/// Holdfast over HTTPS.
pub struct Holdfast {
    work: PathBuf,
    binaries: Binaries,
    server: Option<Server>,
    /// The first start takes a free port; later ones must answer where the agent has logged in.
    listen: SocketAddr,
    login: Option<Login>,
}

impl Holdfast {
    /// With everything it keeps under `work`, by the binaries in `folder`.
    pub fn new(work: &Path, folder: &Path) -> Result<Self, BenchError> {
        fs::create_dir_all(work).doing(work.display().to_string())?;
        let listen = SocketAddr::from(([127, 0, 0, 1], 0));
        let binaries = Binaries::in_folder(folder);
        Ok(Holdfast { work: work.to_path_buf(), binaries, server: None, listen, login: None })
    }

    fn run(&self, arguments: &[&std::ffi::OsStr]) -> Result<Usage, BenchError> {
        let login = self.login.as_ref().ok_or_else(|| BenchError::NotReady("holdfastd".into()))?;
        measure::run(&mut login.command(arguments), &[0], &self.work.join("log"))
    }
}

impl Tool for Holdfast {
    fn name(&self) -> &'static str {
        "holdfast"
    }

    fn version(&self) -> String {
        first_line(&self.binaries.agent.to_string_lossy()).unwrap_or_default()
    }

    fn start(&mut self) -> Result<(), BenchError> {
        let server = Server::start_at(&self.binaries, &self.repository(), self.listen, &[]).doing("holdfastd")?;
        self.listen = server.address();
        if self.login.is_none() {
            let user = server.add_user(&self.binaries, "bench").doing("holdfastd user add")?;
            self.login = Some(Login::create(&self.binaries, &user, &self.work.join("agent")).doing("holdfast login")?);
        }
        self.server = Some(server);
        Ok(())
    }

    fn server_pid(&self) -> Option<u32> {
        self.server.as_ref().map(Server::pid)
    }

    fn stop(&mut self) -> Result<(), BenchError> {
        self.server.take().map_or(Ok(()), Server::stop).doing("holdfastd")
    }

    fn backup(&mut self, source: &Path) -> Result<Usage, BenchError> {
        self.run(&["backup".as_ref(), source.as_os_str()])
    }

    fn restore(&mut self, source: &Path, target: &Path) -> Result<(Usage, PathBuf), BenchError> {
        let usage = self.run(&["restore".as_ref(), "latest".as_ref(), "--to".as_ref(), target.as_os_str()])?;
        Ok((usage, below(target, source)))
    }

    fn repository(&self) -> PathBuf {
        self.work.join("data")
    }
}
