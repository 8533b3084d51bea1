//! Other programs that a backup runs: one whose output is backed up, one whose output is read at once. What they say on
//! standard error is kept, bounded, for the message of a failure. One that is not waited for is killed.

use crate::error::AgentError;
use crate::report::printable;
use parking_lot::Mutex;
use rustix::process::{Pid, Signal, kill_process_group};
use std::collections::VecDeque;
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStderr, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::thread::JoinHandle;

/// Most lines of standard error that are kept: the last ones say why a program ended.
const LINES_MAX: usize = 20;
/// Most bytes of one such line.
const LINE_BYTES_MAX: u64 = 1024;

/// A process group that can be ended as long as its leader was not waited for.
#[derive(Clone, Default)]
pub struct Group(Arc<Mutex<Leader>>);

#[derive(Default)]
struct Leader {
    pid: Option<Pid>,
    /// Whoever leads it from now on is ended at once.
    killed: bool,
}

impl Group {
    /// The leader has started.
    pub fn is_led_by(&self, child: &Child) {
        let mut leader = self.0.lock();
        leader.pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
        if leader.killed {
            leader.kill();
        }
    }

    /// Ends everything in it at once, also what is started in it later.
    pub fn kill(&self) {
        let mut leader = self.0.lock();
        leader.killed = true;
        leader.kill();
    }

    /// Its leader is about to be waited for: its number may soon be another process.
    pub fn release(&self) {
        self.0.lock().pid = None;
    }
}

impl Leader {
    fn kill(&self) {
        if let Some(pid) = self.pid {
            kill_process_group(pid, Signal::KILL).ok();
        }
    }
}

/// A program that is not running yet.
pub struct Program {
    command: Command,
    name: String,
    keeps_errors: bool,
    // What its arguments or environment point to, for as long as it runs.
    secret: Option<File>,
    group: Option<Group>,
}

impl Program {
    /// With its words as they are; no shell is between.
    pub fn new(command: Command) -> Self {
        let name = printable(command.get_program().as_encoded_bytes());
        Program { command, name, keeps_errors: true, secret: None, group: None }
    }

    /// What it says on standard error goes where this program's own errors go.
    #[must_use]
    pub fn with_shared_errors(mut self) -> Self {
        self.keeps_errors = false;
        self
    }

    /// Keeps a file open until the program has ended.
    #[must_use]
    pub fn with_secret(mut self, secret: Option<File>) -> Self {
        self.secret = secret;
        self
    }

    /// Makes it a process group of its own, which `group` can end.
    #[must_use]
    pub fn in_group(mut self, group: &Group) -> Self {
        self.group = Some(group.clone());
        self
    }

    /// Starts it, with nothing on its standard input.
    pub fn start(mut self) -> Result<Running, AgentError> {
        self.command.stdin(Stdio::null()).stdout(Stdio::piped());
        if self.keeps_errors {
            self.command.stderr(Stdio::piped());
        }
        let failed = |error: std::io::Error| AgentError::CommandFailed(format!("{}: {error}", self.name));
        if self.group.is_some() {
            self.command.process_group(0);
        }
        let mut child = self.command.spawn().map_err(failed)?;
        if let Some(group) = &self.group {
            group.is_led_by(&child);
        }
        let group = self.group.unwrap_or_default();
        let errors = child.stderr.take().map(|errors| std::thread::spawn(move || last_lines(errors)));
        let output = child.stdout.take();
        Ok(Running { child, output, errors, name: self.name, ended: false, group, _secret: self.secret })
    }

    /// Runs it to its end: what it wrote, `bytes_max` at most.
    pub fn output(self, bytes_max: u64) -> Result<Vec<u8>, AgentError> {
        let mut running = self.start()?;
        let mut output = Vec::new();
        let limited = running.output.as_mut().map(|pipe| pipe.take(bytes_max + 1).read_to_end(&mut output));
        if let Some(Err(error)) = limited {
            return Err(running.failure(&error.to_string()));
        }
        if output.len() as u64 > bytes_max {
            return Err(running.failure("its output is too long"));
        }
        running.finish()?;
        Ok(output)
    }
}

/// A program that runs.
pub struct Running {
    child: Child,
    output: Option<ChildStdout>,
    errors: Option<JoinHandle<Vec<String>>>,
    name: String,
    ended: bool,
    group: Group,
    _secret: Option<File>,
}

impl Running {
    /// What it said on standard error, once it has ended.
    fn said(&mut self) -> Vec<String> {
        self.errors.take().and_then(|thread| thread.join().ok()).unwrap_or_default()
    }

    fn failure(&self, reason: &str) -> AgentError {
        AgentError::CommandFailed(format!("{}: {reason}", self.name))
    }

    /// Waits for its end, which must be a good one. What it said nevertheless, line by line.
    pub fn finish(mut self) -> Result<Vec<String>, AgentError> {
        self.group.release();
        let status = self.child.wait().map_err(|error| self.failure(&error.to_string()))?;
        self.ended = true;
        let said = self.said();
        if status.success() {
            return Ok(said);
        }
        Err(self.failure(&described(status, &said)))
    }
}

impl Read for Running {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        self.output.as_mut().map_or(Ok(0), |output| output.read(buffer))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if !self.ended {
            self.group.kill();
            self.group.release();
            self.child.kill().ok();
            self.child.wait().ok();
        }
    }
}

fn described(status: ExitStatus, said: &[String]) -> String {
    match said {
        [] => status.to_string(),
        lines => format!("{status}: {}", lines.join(" | ")),
    }
}

/// The last lines of a stream, which is read to its end, so that its writer never waits.
fn last_lines(errors: ChildStderr) -> Vec<String> {
    let mut reader = BufReader::new(errors);
    let mut lines = VecDeque::new();
    let mut line = Vec::new();
    loop {
        line.clear();
        match reader.by_ref().take(LINE_BYTES_MAX).read_until(b'\n', &mut line) {
            Ok(0) | Err(_) => return lines.into(),
            Ok(_) => {}
        }
        let text = printable(line.trim_ascii_end());
        if text.is_empty() {
            continue;
        }
        if lines.len() == LINES_MAX {
            lines.pop_front();
        }
        lines.push_back(text);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Program {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        Program::new(command)
    }

    #[test]
    fn a_failure_says_how_it_ended_and_what_was_said_last() {
        let error = shell("echo one; echo two >&2; exit 7").output(100).unwrap_err().to_string();
        assert!(error.contains("sh: exit status: 7: two"), "{error}");
        let error = shell("kill -9 $$").output(100).unwrap_err().to_string();
        assert!(error.contains("signal: 9"), "{error}");
        let error =
            shell("i=0; while [ $i -lt 50 ]; do echo line$i >&2; i=$((i+1)); done; exit 1").output(1).unwrap_err();
        let error = error.to_string();
        assert!(error.contains("line49") && error.contains("line30") && !error.contains("line29"), "{error}");
        let error = Program::new(Command::new("/no/such/program")).output(1).unwrap_err().to_string();
        assert!(error.contains("/no/such/program"), "{error}");
    }

    #[test]
    fn output_is_bounded() {
        assert_eq!(shell("printf 12345").output(5).unwrap(), b"12345");
        assert!(shell("yes").output(5).unwrap_err().to_string().contains("too long"));
    }

    #[test]
    fn a_program_that_nobody_waits_for_is_killed() {
        let mut running = shell("echo $$; exec sleep 1000").start().unwrap();
        let mut pid = Vec::new();
        while !pid.ends_with(b"\n") {
            let mut byte = [0];
            assert_eq!(running.read(&mut byte).unwrap(), 1);
            pid.push(byte[0]);
        }
        let folder = format!("/proc/{}", String::from_utf8(pid).unwrap().trim());
        assert!(std::path::Path::new(&folder).exists());
        drop(running);
        assert!(!std::path::Path::new(&folder).exists());
    }
}
