//! `holdfast` with a configuration and a cache of its own, logged in to one server.

use super::{Binaries, User};
use std::ffi::OsStr;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// A logged-in agent.
#[derive(Clone, Debug)]
pub struct Login {
    binaries: Binaries,
    folder: PathBuf,
}

/// How a command of the agent ended.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Exit code; `None` when a signal ended it.
    pub code: Option<i32>,
    /// Standard output.
    pub stdout: Vec<u8>,
    /// Standard error.
    pub stderr: String,
}

impl Outcome {
    /// Standard output as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }
}

impl Login {
    /// Logs in with what an operator handed over; configuration and cache are kept below `folder`.
    pub fn create(binaries: &Binaries, user: &User, folder: &Path) -> io::Result<Self> {
        let login = Self::without_login(binaries, folder);
        let outcome = login.log_in(user)?;
        match outcome.code {
            Some(0) => Ok(login),
            code => Err(io::Error::other(format!("holdfast login ended with {code:?}: {}", outcome.stderr))),
        }
    }

    /// An agent that has not logged in.
    pub fn without_login(binaries: &Binaries, folder: &Path) -> Self {
        Login { binaries: binaries.clone(), folder: folder.to_path_buf() }
    }

    /// Runs `holdfast login`.
    pub fn log_in(&self, user: &User) -> io::Result<Outcome> {
        let mut command = self.command(["login", &user.url, "--fingerprint", &user.fingerprint, "--token-stdin"]);
        run(&mut command, format!("{}\n", user.token).as_bytes())
    }

    /// A command with this agent's folders set.
    pub fn command<A: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = A>) -> Command {
        let mut command = Command::new(&self.binaries.agent);
        command
            .env("HOLDFAST_CONFIG_DIR", self.folder.join("config"))
            .env("HOLDFAST_CACHE_DIR", self.cache())
            .args(arguments);
        command
    }

    /// Where the cache is: everything in it may be lost.
    pub fn cache(&self) -> PathBuf {
        self.folder.join("cache")
    }

    /// Runs a command to its end.
    pub fn run<A: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = A>) -> io::Result<Outcome> {
        run(&mut self.command(arguments), b"")
    }

    /// Runs commands of instructions that are in a snapshot, as they stand, by a shell that finds this agent as
    /// `holdfast`: of each of `parts` the first one that has it. Fails with what the first one said that failed.
    pub fn follow(&self, instructions: &str, parts: &[&str], environment: &[(&str, &Path)]) -> io::Result<()> {
        let commands: Vec<&str> = instructions.lines().filter_map(|line| line.strip_prefix("   ")).collect();
        let folder = self.binaries.agent.parent().unwrap_or(Path::new("/"));
        let others = std::env::var_os("PATH").unwrap_or_default();
        let path = std::env::join_paths([folder.to_path_buf()].into_iter().chain(std::env::split_paths(&others)));
        let path = path.map_err(io::Error::other)?;
        let own = self.command(["--version"]);
        for part in parts {
            let command = commands.iter().find(|command| command.contains(part));
            let command = command.ok_or_else(|| io::Error::other(format!("no {part} in {instructions}")))?;
            let mut shell = Command::new("bash");
            shell.args(["-o", "pipefail", "-c", command]).env("PATH", &path);
            shell.envs(own.get_envs().filter_map(|(name, value)| Some((name, value?))));
            let done = shell.envs(environment.iter().copied()).output()?;
            if !done.status.success() {
                return Err(io::Error::other(format!("{command}: {}", String::from_utf8_lossy(&done.stderr))));
            }
        }
        Ok(())
    }

    /// Runs a command to its end with `input` on its standard input.
    pub fn run_with_input<A: AsRef<OsStr>>(
        &self,
        arguments: impl IntoIterator<Item = A>,
        input: &[u8],
    ) -> io::Result<Outcome> {
        run(&mut self.command(arguments), input)
    }
}

pub(super) fn run(command: &mut Command, input: &[u8]) -> io::Result<Outcome> {
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    let mut pipe = child.stdin.take();
    std::thread::scope(|scope| {
        // A command that ends without reading its input closes the pipe: its own message says why.
        scope.spawn(move || pipe.take().map(|mut pipe| pipe.write_all(input)));
        let output = child.wait_with_output()?;
        Ok(Outcome {
            code: output.status.code(),
            stdout: output.stdout,
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        })
    })
}
