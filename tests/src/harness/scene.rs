//! A server with one user and one agent, in a folder that goes away: where most system tests begin.

use super::{Binaries, Login, Outcome, Server, User};
use crate::compare::{Options, Report, compare};
use crate::directory::remove_tree;
use crate::seed::Seed;
use serde_json::Value;
use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// A server, a user, an agent, and a folder for everything.
pub struct Scene {
    /// Of this run.
    pub seed: Seed,
    /// The programs.
    pub binaries: Binaries,
    /// What the agent logged in with.
    pub user: User,
    /// The agent.
    pub agent: Login,
    /// `None` between a stop and a start.
    pub server: Option<Server>,
    /// Parts of WARN and ERROR lines of the server's log that this scene expects. Any other such line fails the test
    /// when the scene ends.
    pub expected_log: Vec<&'static str>,
    /// Further arguments of `holdfastd serve`, at every start.
    arguments: Vec<String>,
    listen: SocketAddr,
    folder: TempDir,
}

impl Scene {
    /// In a temporary folder.
    pub fn new() -> io::Result<Self> {
        Self::over(TempDir::with_prefix("holdfast-test-")?, None, &[])
    }

    /// With the server's data folder elsewhere, or with further arguments of `holdfastd serve`.
    pub fn with_server(data: Option<&Path>, arguments: &[&str]) -> io::Result<Self> {
        Self::over(TempDir::with_prefix("holdfast-test-")?, data, arguments)
    }

    fn over(folder: TempDir, data: Option<&Path>, arguments: &[&str]) -> io::Result<Self> {
        let binaries = Binaries::of_this_build()?;
        let data = data.map_or_else(|| folder.path().join("data"), Path::to_path_buf);
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let server = Server::start_at(&binaries, &data, any, arguments)?;
        let user = server.add_user(&binaries, "tester")?;
        let agent = Login::create(&binaries, &user, &folder.path().join("agent"))?;
        let listen = server.address();
        let expected_log = vec!["the master key is not confirmed"];
        let arguments = arguments.iter().map(|argument| (*argument).to_owned()).collect();
        let seed = Seed::announce();
        Ok(Scene { seed, binaries, user, agent, server: Some(server), expected_log, arguments, listen, folder })
    }

    /// A path in the scene's folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The running server.
    pub fn server(&self) -> io::Result<&Server> {
        self.server.as_ref().ok_or_else(|| io::Error::other("the server is not running"))
    }

    /// The server's data folder.
    pub fn data(&self) -> PathBuf {
        self.server.as_ref().map_or_else(|| self.path("data"), |server| server.data().to_path_buf())
    }

    /// Kills the server where it stands.
    pub fn kill_server(&mut self) -> io::Result<()> {
        self.server.take().map_or(Ok(()), Server::kill)
    }

    /// Ends the server as an operator would.
    pub fn stop_server(&mut self) -> io::Result<()> {
        self.server.take().map_or(Ok(()), Server::stop)
    }

    /// Starts the server again where the agent knows it.
    pub fn start_server(&mut self, data: &Path) -> io::Result<()> {
        let arguments: Vec<&str> = self.arguments.iter().map(String::as_str).collect();
        self.server = Some(Server::start_at(&self.binaries, data, self.listen, &arguments)?);
        Ok(())
    }

    /// `holdfast backup --json PATH`, which must end with `code`; gives the summary.
    pub fn backup(&self, path: &Path, code: i32) -> io::Result<Value> {
        let outcome = self.agent.run(["backup".as_ref(), "--json".as_ref(), path.as_os_str()])?;
        summary(&outcome, code)
    }

    /// `holdfast restore SNAPSHOT --to` into a new folder; gives where `source` then stands.
    pub fn restore(&self, snapshot: &str, source: &Path, target: &str) -> io::Result<PathBuf> {
        let target = self.path(target);
        fs::create_dir_all(&target)?;
        let outcome = self.agent.run(["restore".as_ref(), snapshot.as_ref(), "--to".as_ref(), target.as_os_str()])?;
        match outcome.code {
            Some(0) => Ok(target.join(source.strip_prefix("/").map_err(io::Error::other)?)),
            code => Err(io::Error::other(format!("restore ended with {code:?}: {}", outcome.stderr))),
        }
    }

    /// Restores and compares with `source`.
    pub fn restore_and_compare(&self, snapshot: &str, source: &Path, target: &str) -> io::Result<Report> {
        let restored = self.restore(snapshot, source, target)?;
        let report = compare(source, &restored, Options::default())?;
        remove_tree(&self.path(target))?;
        Ok(report)
    }

    /// Ids of all snapshots, oldest first.
    pub fn snapshots(&self) -> io::Result<Vec<String>> {
        Ok(self.snapshot_records()?.iter().filter_map(|record| Some(record.get("id")?.as_str()?.to_owned())).collect())
    }

    /// All snapshots as the API describes them, oldest first.
    pub fn snapshot_records(&self) -> io::Result<Vec<Value>> {
        let outcome = self.agent.run(["snapshots", "--json"])?;
        json_lines(&outcome.text())
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        let log = self.server.take().map(|server| server.log()).unwrap_or_default();
        // Trees of these tests may be deeper than what the temporary folder can remove by itself.
        let _ = remove_tree(self.folder.path());
        if !std::thread::panicking() {
            let unexpected = unexpected_lines(&log, &self.expected_log);
            assert!(unexpected.is_empty(), "unexpected lines in the server's log:\n{}", unexpected.join("\n"));
        }
    }
}

/// What a machine that stands still for seconds makes the database's library say. True, and no fault of the server.
const SLOW_MACHINE: [&str; 2] =
    ["WARN sqlx::query: slow statement", "WARN sqlx::pool::acquire: acquired connection, but"];

/// ERROR means that someone must act, WARN that someone should know: neither happens in a test that does not expect it.
pub(super) fn unexpected_lines<'l>(log: &'l str, expected: &[&str]) -> Vec<&'l str> {
    log.lines()
        .filter(|line| line.contains(" WARN ") || line.contains(" ERROR "))
        .filter(|line| !expected.iter().chain(&SLOW_MACHINE).any(|part| line.contains(part)))
        .collect()
}

/// The last line of `--json` output, from a command that must have ended with `code`.
pub fn summary(outcome: &Outcome, code: i32) -> io::Result<Value> {
    if outcome.code != Some(code) {
        let said = format!("ended with {:?} instead of {code}: {}{}", outcome.code, outcome.text(), outcome.stderr);
        return Err(io::Error::other(said));
    }
    json_lines(&outcome.text())?.pop().ok_or_else(|| io::Error::other("no JSON on standard output"))
}

fn json_lines(text: &str) -> io::Result<Vec<Value>> {
    text.lines().map(|line| serde_json::from_str(line).map_err(io::Error::other)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_log_gate_lets_only_expected_lines_through() {
        let log = "t  INFO a: b\nt  WARN a: the disk is full\nt ERROR a: broken\n";
        assert_eq!(unexpected_lines(log, &["disk is full"]), ["t ERROR a: broken"]);
        assert_eq!(unexpected_lines(log, &[]).len(), 2);
        assert!(unexpected_lines(log, &["disk", "broken"]).is_empty());
    }
}
