//! Commands before and after a backup: what stops a service or makes a dump, and what undoes that. Each has a time-out;
//! whether its failure fails the backup is said with it. Those after run whatever happened before them.

use crate::backup::BackupResult;
use crate::error::AgentError;
use crate::report::{Report, printable};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process_group, pidfd_open};
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;
use std::io::{BufRead, BufReader, PipeReader, Read};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

/// How long a command may go on after it was asked to end.
const END_WITHIN: Duration = Duration::from_secs(5);
/// How long its output is listened to after it has ended: something it started may hold on to it for ever.
const LISTEN_WITHIN: Duration = Duration::from_secs(1);
/// Longest line of its output that is reported, bytes.
const LINE_BYTES_MAX: u64 = 1024;
/// Most lines of its output that stand in the message of a failure.
const LINES_MAX: usize = 5;
/// Tells a command after the backup how it went: `complete`, `warnings` or `failed`.
pub const RESULT_VARIABLE: &str = "HOLDFAST_RESULT";
/// Tells a command after the backup the snapshot's id, if there is one.
pub const SNAPSHOT_VARIABLE: &str = "HOLDFAST_SNAPSHOT";

/// What a failure of a command means.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnFailure {
    /// The backup fails; one that has not begun does not begin.
    #[default]
    Fail,
    /// A warning.
    Warn,
}

/// A command before or after a backup. As JSON: `{"command": ["systemctl", "stop", "app"], "timeout_seconds": 60,
/// "on_failure": "warn"}`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SideCommand {
    /// The program and its arguments; no shell is between.
    pub command: Vec<String>,
    /// It is ended after this long, with everything it started; that is a failure.
    #[serde(default = "ten_minutes")]
    pub timeout_seconds: u32,
    /// What a failure means.
    #[serde(default)]
    pub on_failure: OnFailure,
}

const fn ten_minutes() -> u32 {
    600
}

/// What runs around a backup.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SideCommands {
    /// Before it, in their order; the first failure that counts is the last command that runs.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub before: Vec<SideCommand>,
    /// After it, in their order, all of them, also when the backup or a command before it failed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub after: Vec<SideCommand>,
}

impl SideCommands {
    /// Runs `backup` between its commands. Failures that only warn are counted among the warnings of the result.
    ///
    /// # Errors
    ///
    /// `CommandBefore` when the backup did not begin, what `backup` says, or `CommandAfter` when it stands but a command
    /// behind it failed.
    pub fn around(
        &self,
        report: &Arc<Report>,
        backup: impl FnOnce() -> Result<BackupResult, AgentError>,
    ) -> Result<BackupResult, AgentError> {
        let mut warnings = 0;
        let mut result = self.run_before(report, &mut warnings).and_then(|()| backup());
        let (outcome, snapshot) = match &result {
            Ok(made) if warnings + made.counters.warnings > 0 => ("warnings", made.snapshot.id.as_str()),
            Ok(made) => ("complete", made.snapshot.id.as_str()),
            Err(_) => ("failed", ""),
        };
        let mut failed = None;
        for side in &self.after {
            match (side.run(report, &[(RESULT_VARIABLE, outcome), (SNAPSHOT_VARIABLE, snapshot)]), side.on_failure) {
                (Ok(()), _) => {}
                (Err(why), OnFailure::Fail) if failed.is_none() && result.is_ok() => failed = Some(why),
                (Err(why), _) => {
                    report.warning(b"", &format!("a command after the backup failed: {why}"));
                    warnings += 1;
                }
            }
        }
        if let Ok(made) = &mut result {
            made.counters.warnings += warnings;
        }
        match failed {
            Some(why) => Err(AgentError::CommandAfter(why)),
            None => result,
        }
    }

    fn run_before(&self, report: &Arc<Report>, warnings: &mut u64) -> Result<(), AgentError> {
        for side in &self.before {
            match (side.run(report, &[]), side.on_failure) {
                (Ok(()), _) => {}
                (Err(why), OnFailure::Fail) => return Err(AgentError::CommandBefore(why)),
                (Err(why), OnFailure::Warn) => {
                    report.warning(b"", &format!("a command before the backup failed: {why}"));
                    *warnings += 1;
                }
            }
        }
        Ok(())
    }
}

impl SideCommand {
    /// Runs it to its end; a failure in words.
    fn run(&self, report: &Arc<Report>, environment: &[(&str, &str)]) -> Result<(), String> {
        let Some((program, arguments)) = self.command.split_first() else { return Err("an empty command".into()) };
        let name = printable(program.as_bytes());
        let failed = |error: std::io::Error| format!("{name}: {error}");
        let (reader, writer) = std::io::pipe().map_err(failed)?;
        let mut command = Command::new(program);
        command.args(arguments).envs(environment.iter().copied()).process_group(0).stdin(Stdio::null());
        command.stdout(writer.try_clone().map_err(failed)?).stderr(writer);
        let started = command.spawn();
        // Holds the other end of the pipe.
        drop(command);
        let mut child = started.map_err(failed)?;
        let (said, heard) = crossbeam_channel::bounded(1);
        let listener = report.clone();
        let label = name.clone();
        std::thread::spawn(move || said.send(tell(reader, &listener, &label)).ok());
        let ended = wait_at_most(&mut child, Duration::from_secs(self.timeout_seconds.into())).map_err(failed)?;
        let lines: VecDeque<String> = heard.recv_timeout(LISTEN_WITHIN).unwrap_or_default();
        let reason = match ended {
            Some(status) if status.success() => return Ok(()),
            Some(status) => status.to_string(),
            None => format!("ended after {} s, its time-out", self.timeout_seconds),
        };
        let lines: Vec<String> = lines.into();
        Err(match lines.as_slice() {
            [] => format!("{name}: {reason}"),
            lines => format!("{name}: {reason}: {}", lines.join(" | ")),
        })
    }
}

/// Reports what a command says, line by line; gives the last lines.
fn tell(output: PipeReader, report: &Report, name: &str) -> VecDeque<String> {
    let mut reader = BufReader::new(output);
    let mut last = VecDeque::new();
    let mut line = Vec::new();
    loop {
        line.clear();
        match reader.by_ref().take(LINE_BYTES_MAX).read_until(b'\n', &mut line) {
            Ok(0) | Err(_) => return last,
            Ok(_) => {}
        }
        let text = printable(line.trim_ascii_end());
        if text.is_empty() {
            continue;
        }
        report.remark(name.as_bytes(), &text);
        if last.len() == LINES_MAX {
            last.pop_front();
        }
        last.push_back(text);
    }
}

/// Waits for a command; one that takes longer than `limit` is ended with its whole group, and gives `None`.
fn wait_at_most(child: &mut Child, limit: Duration) -> std::io::Result<Option<ExitStatus>> {
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    let pid = pid.ok_or_else(|| std::io::Error::other("not a process id"))?;
    let handle = pidfd_open(pid, PidfdFlags::empty())?;
    let ended = |limit: Duration| -> std::io::Result<bool> {
        let limit = Timespec { tv_sec: limit.as_secs() as i64, tv_nsec: i64::from(limit.subsec_nanos()) };
        let ready = || poll(&mut [PollFd::new(&handle, PollFlags::IN)], Some(&limit));
        Ok(rustix::io::retry_on_intr(ready)? > 0)
    };
    if ended(limit)? {
        return child.wait().map(Some);
    }
    kill_process_group(pid, Signal::TERM).ok();
    ended(END_WITHIN)?;
    kill_process_group(pid, Signal::KILL).ok();
    child.wait()?;
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::Style;
    use std::time::Instant;

    fn shell(script: &str) -> SideCommand {
        let command = ["sh", "-c", script].map(str::to_owned).to_vec();
        SideCommand { command, timeout_seconds: 60, on_failure: OnFailure::Fail }
    }

    fn report() -> Arc<Report> {
        Arc::new(Report::to(Style::Quiet, Box::new(std::io::sink())))
    }

    #[test]
    fn what_fails_says_why() {
        assert_eq!(shell("exit 0").run(&report(), &[]), Ok(()));
        assert_eq!(shell("echo no; exit 3").run(&report(), &[]), Err("sh: exit status: 3: no".into()));
        assert_eq!(shell("test \"$A\" = b").run(&report(), &[("A", "b")]), Ok(()));
        assert!(SideCommand { command: Vec::new(), ..shell("") }.run(&report(), &[]).is_err());
    }

    /// Waits for what has no event.
    fn soon(mut is_so: impl FnMut() -> bool) {
        let started = Instant::now();
        while !is_so() {
            assert!(started.elapsed() < Duration::from_secs(60), "not in time");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    #[test]
    fn a_time_out_ends_everything_it_started() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("ids");
        let script = format!("trap '' TERM; sleep 1000 & echo $! > {0}; echo $$ >> {0}; wait", file.display());
        let mut child = Command::new("sh").args(["-c", &script]).process_group(0).spawn().unwrap();
        let started = Instant::now();
        let mut ids = String::new();
        soon(|| {
            ids = std::fs::read_to_string(&file).unwrap_or_default();
            ids.lines().count() == 2
        });
        assert!(wait_at_most(&mut child, Duration::from_millis(1)).unwrap().is_none());
        assert!(started.elapsed() >= END_WITHIN, "it was not given time to end");
        // What was killed dies soon, and is nobody's child here whose end could be waited for.
        for id in ids.lines() {
            soon(|| {
                let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
                stat.is_empty() || stat.contains(") Z ")
            });
        }
    }

    #[test]
    fn a_time_out_is_a_failure_that_says_so() {
        let side = SideCommand { timeout_seconds: 1, ..shell("exec sleep 1000") };
        assert_eq!(side.run(&report(), &[]), Err("sh: ended after 1 s, its time-out".into()));
    }

    #[test]
    fn what_it_leaves_running_is_not_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("id");
        let script = format!("sleep 1000 & echo $! > {}", file.display());
        assert_eq!(shell(&script).run(&report(), &[]), Ok(()));
        let id: i32 = std::fs::read_to_string(&file).unwrap().trim().parse().unwrap();
        rustix::process::kill_process(Pid::from_raw(id).unwrap(), Signal::KILL).unwrap();
    }

    #[test]
    fn they_are_written_as_plans_write_them() {
        let side: SideCommand = serde_json::from_str(r#"{"command":["true"]}"#).unwrap();
        assert_eq!((side.timeout_seconds, side.on_failure), (600, OnFailure::Fail));
        let side: SideCommand = serde_json::from_str(r#"{"command":["true"],"on_failure":"warn"}"#).unwrap();
        assert_eq!(side.on_failure, OnFailure::Warn);
    }
}
