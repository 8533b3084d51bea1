//! One `holdfastd` over one data folder.

use super::{Binaries, Hand, Keeper};
use crate::process;
use rustix::process::Signal;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

/// Longest start that is waited for, also after a crash.
const READY_WITHIN: Duration = Duration::from_secs(30);

/// Smallest reserve that a server takes by itself.
const RESERVE_BYTES: &str = "67108864";

/// A running server. Killed when dropped, so that a failed test leaves nothing behind.
#[derive(Debug)]
pub struct Server {
    child: Option<Child>,
    data: PathBuf,
    address: SocketAddr,
}

/// What an agent needs to log in.
#[derive(Clone, Debug)]
pub struct User {
    /// `https://127.0.0.1:PORT`.
    pub url: String,
    /// Of the server's certificate, as printed.
    pub fingerprint: String,
    /// The secret.
    pub token: String,
    /// Vault id, hexadecimal.
    pub vault: String,
}

impl Server {
    /// Starts a server over `data` on a free loopback port and waits until it is ready.
    pub fn start(binaries: &Binaries, data: &Path) -> io::Result<Self> {
        Self::start_at(binaries, data, SocketAddr::from(([127, 0, 0, 1], 0)), &[])
    }

    /// As [`Server::start`], on a given address (port 0 for a free one) and with further arguments. Its output is
    /// appended to `server.log` beside the data folder.
    pub fn start_at(binaries: &Binaries, data: &Path, listen: SocketAddr, arguments: &[&str]) -> io::Result<Self> {
        Self::start_with(binaries, data, listen, arguments, &[])
    }

    /// As [`Server::start_at`], with environment variables.
    pub fn start_with(
        binaries: &Binaries,
        data: &Path,
        listen: SocketAddr,
        arguments: &[&str],
        variables: &[(&str, &OsStr)],
    ) -> io::Result<Self> {
        if let Some(parent) = data.parent() {
            fs::create_dir_all(parent)?;
        }
        // Written once the server answers; an old one is from a server that was killed.
        let address_file = data.join("run/address");
        match fs::remove_file(&address_file) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let log = File::options().create(true).append(true).open(log_of(data))?;
        let mut command = Command::new(&binaries.server);
        // Whether uploads are taken must not depend on how full the developer's disk is.
        command.env("HOLDFAST_DISK_RESERVE_BYTES", RESERVE_BYTES);
        command.arg("serve").arg("--data").arg(data).arg("--listen").arg(listen.to_string());
        command.args(["--metrics-listen", "127.0.0.1:0"]);
        command.envs(variables.iter().copied());
        command.args(arguments).stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let mut server = Server { child: Some(command.spawn()?), data: data.to_path_buf(), address: listen };
        server.address = server.wait_ready(&address_file)?;
        Ok(server)
    }

    fn wait_ready(&mut self, address_file: &Path) -> io::Result<SocketAddr> {
        let started = Instant::now();
        while started.elapsed() < READY_WITHIN {
            if let Ok(text) = fs::read_to_string(address_file)
                && let Ok(address) = text.trim().parse()
            {
                return Ok(address);
            }
            // Wakes at once when the server ends instead.
            if let Some(child) = &mut self.child
                && let Some(status) = process::wait_at_most(child, Duration::from_millis(10))?
            {
                self.child = None;
                return Err(io::Error::other(format!("ended with {status} before it was ready: {}", self.log())));
            }
        }
        Err(io::Error::other(format!("was not ready within {READY_WITHIN:?}: {}", self.log())))
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.as_ref().map_or(0, Child::id)
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its base URL.
    pub fn url(&self) -> String {
        format!("https://{}", self.address)
    }

    /// Everything it has said so far, over all its starts.
    pub fn log(&self) -> String {
        fs::read_to_string(log_of(&self.data)).unwrap_or_default()
    }

    /// Fingerprint of its certificate, as it said at its start.
    pub fn fingerprint(&self) -> io::Result<String> {
        let log = self.log();
        let found = log.lines().find_map(|line| line.trim().strip_prefix("certificate "));
        found.map(|text| text.trim().to_owned()).ok_or_else(|| io::Error::other("it has not said its fingerprint"))
    }

    /// The operator on the server's own machine.
    pub fn local(&self) -> io::Result<Hand> {
        let secret = fs::read_to_string(self.data.join("run/local-token"))?;
        Hand::new(&self.url(), &self.fingerprint()?, Some(secret.trim()))
    }

    /// Waits until it has ended by itself; `None` when it has not within `limit`.
    pub fn ended_within(&mut self, limit: Duration) -> io::Result<Option<std::process::ExitStatus>> {
        let Some(child) = &mut self.child else { return Ok(None) };
        let status = process::wait_at_most(child, limit)?;
        if status.is_some() {
            self.child = None;
        }
        Ok(status)
    }

    /// Its data folder.
    pub fn data(&self) -> &Path {
        &self.data
    }

    /// Asks it to end, as an operator would, and waits.
    pub fn stop(mut self) -> io::Result<()> {
        process::end(self.child.take())
    }

    /// Kills it without warning. The data folder stays as it is.
    pub fn kill(mut self) -> io::Result<()> {
        self.child.take().map_or(Ok(()), process::kill)
    }

    /// Stops it from running for a while (SIGSTOP), or lets it go on (SIGCONT).
    pub fn pause(&self, pause: bool) -> io::Result<()> {
        let signal = if pause { Signal::STOP } else { Signal::CONT };
        self.child.as_ref().map_or(Ok(()), |child| process::signal(child, signal))
    }

    /// Creates a user with a vault and gives what its agent needs.
    pub fn add_user(&self, binaries: &Binaries, name: &str) -> io::Result<User> {
        let said = self.administer(binaries, &["user", "add", name, "--json"])?;
        let added: serde_json::Value = serde_json::from_str(&said).map_err(io::Error::other)?;
        let text = |pointer: &str| {
            let found = added.pointer(pointer).and_then(serde_json::Value::as_str).map(str::to_owned);
            found.ok_or_else(|| io::Error::other(format!("no {pointer} in the answer to user add")))
        };
        Ok(User {
            url: self.url(),
            fingerprint: text("/fingerprint")?,
            token: text("/token/secret")?,
            vault: text("/user/vault")?,
        })
    }

    /// Somebody with every right on the user's vault.
    pub fn keeper(&self, binaries: &Binaries, user: &User) -> io::Result<Keeper> {
        let rights = "backup,restore,delete,purge,hold";
        let said = self
            .administer(binaries, &["token", "add", "keeper", "--vault", &user.vault, "--rights", rights, "--json"])?;
        let added: serde_json::Value = serde_json::from_str(&said).map_err(io::Error::other)?;
        let secret = added.pointer("/secret").and_then(serde_json::Value::as_str);
        Keeper::new(user, secret.ok_or_else(|| io::Error::other(format!("no secret in {said}")))?)
    }

    /// Runs `holdfastd ARGUMENTS --data ...` beside the server and gives its standard output.
    pub fn administer(&self, binaries: &Binaries, arguments: &[&str]) -> io::Result<String> {
        administer(binaries, &self.data, arguments)
    }
}

/// Runs an administration command over a data folder and gives its standard output; other codes than 0 are errors.
pub fn administer(binaries: &Binaries, data: &Path, arguments: &[&str]) -> io::Result<String> {
    let output: Output =
        Command::new(&binaries.server).args(arguments).arg("--data").arg(data).stdin(Stdio::null()).output()?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    if output.status.success() {
        return Ok(said);
    }
    let error = String::from_utf8_lossy(&output.stderr);
    Err(io::Error::other(format!("holdfastd {} ended with {}: {said}{error}", arguments.join(" "), output.status)))
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(child) = self.child.take() {
            let _ = process::kill(child);
            if std::thread::panicking() {
                let log = self.log();
                // What every request did helps nobody to see what went wrong.
                let said: Vec<&str> = log.lines().filter(|line| !line.contains(" DEBUG ")).collect();
                let _ = writeln!(io::stderr(), "--- server log\n{}", said.join("\n"));
            }
        }
    }
}

fn log_of(data: &Path) -> PathBuf {
    data.with_extension("log")
}
