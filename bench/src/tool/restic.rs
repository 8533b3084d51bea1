//! restic over HTTPS, with `rclone serve restic` as its server.

use super::{PASSWORD, Tool, below, first_line};
use crate::error::{BenchError, Doing};
use crate::measure::{self, Usage};
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, Stdio};

/// restic over HTTPS.
pub struct Restic {
    work: PathBuf,
    server: Option<Child>,
    url: String,
}

impl Restic {
    /// With everything it keeps under `work`.
    pub fn new(work: &Path) -> Result<Self, BenchError> {
        let folder = work.join("repository");
        fs::create_dir_all(&folder).doing(folder.display().to_string())?;
        let made = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()])
            .map_err(|error| BenchError::Setup(format!("certificate: {error}")))?;
        fs::write(work.join("certificate.pem"), made.cert.pem()).doing("certificate.pem")?;
        fs::write(work.join("key.pem"), made.signing_key.serialize_pem()).doing("key.pem")?;
        Ok(Restic { work: work.to_path_buf(), server: None, url: String::new() })
    }

    fn command(&self) -> Command {
        let mut command = Command::new("restic");
        command
            .env("RESTIC_REPOSITORY", format!("rest:{}", self.url))
            .env("RESTIC_PASSWORD", PASSWORD)
            .env("RESTIC_CACHE_DIR", self.work.join("cache"))
            .arg("--cacert")
            .arg(self.work.join("certificate.pem"))
            .arg("--quiet");
        command
    }

    fn run(&self, command: &mut Command) -> Result<Usage, BenchError> {
        measure::run(command, &[0], &self.work.join("log"))
    }
}

impl Tool for Restic {
    fn name(&self) -> &'static str {
        "restic"
    }

    fn version(&self) -> String {
        let (client, server) = (first_line("restic"), first_line("rclone"));
        format!("{}, server {}", client.unwrap_or_default(), server.unwrap_or_default())
    }

    fn start(&mut self) -> Result<(), BenchError> {
        let mut command = Command::new("rclone");
        command
            .args(["serve", "restic", "--addr", "127.0.0.1:0", "--cert"])
            .arg(self.work.join("certificate.pem"))
            .arg("--key")
            .arg(self.work.join("key.pem"))
            .arg(self.repository())
            .env("RCLONE_CONFIG", self.work.join("rclone.conf"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        let mut server = command.spawn().doing("rclone")?;
        let said = server.stderr.take();
        self.server = Some(server);
        self.url = said
            .and_then(|said| serving_address(BufReader::new(said)))
            .ok_or_else(|| BenchError::NotReady("rclone serve restic".into()))?;
        if !self.repository().join("config").exists() {
            self.run(self.command().arg("init"))?;
        }
        Ok(())
    }

    fn server_pid(&self) -> Option<u32> {
        self.server.as_ref().map(Child::id)
    }

    fn stop(&mut self) -> Result<(), BenchError> {
        tests::process::end(self.server.take()).doing("rclone")
    }

    fn backup(&mut self, source: &Path) -> Result<Usage, BenchError> {
        self.run(self.command().arg("backup").arg(source))
    }

    fn restore(&mut self, source: &Path, target: &Path) -> Result<(Usage, PathBuf), BenchError> {
        let usage = self.run(self.command().args(["restore", "latest", "--target"]).arg(target))?;
        Ok((usage, below(target, source)))
    }

    fn repository(&self) -> PathBuf {
        self.work.join("repository")
    }
}

impl Drop for Restic {
    fn drop(&mut self) {
        let _ = self.stop();
    }
}

/// Reads what the server says until it names its address; goes on reading behind, so that it never waits for us.
fn serving_address(mut said: BufReader<ChildStderr>) -> Option<String> {
    let mut line = String::new();
    while said.read_line(&mut line).ok()? > 0 {
        if let Some((_, address)) = line.trim_end().split_once("Serving restic REST API on ") {
            let address = address.trim_matches(['[', ']']).to_owned();
            std::thread::spawn(move || {
                let _ = std::io::copy(&mut said.by_ref(), &mut std::io::sink());
            });
            return Some(address);
        }
        line.clear();
    }
    None
}

/// Both programs are needed.
pub fn is_installed() -> bool {
    super::is_installed("restic") && super::is_installed("rclone")
}
