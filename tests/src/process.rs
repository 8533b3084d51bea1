//! Processes that a test started, and how they end: always by their own id, always waited for.

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open};
use std::io;
use std::process::{Child, ExitStatus};
use std::time::Duration;

/// How long a process may take to end after it was asked to.
pub const END_WITHIN: Duration = Duration::from_secs(60);

/// Asks a process to end (SIGTERM) and waits for it. One that does not end in [`END_WITHIN`] is killed, and an error,
/// as is one that does not report success. `None` does nothing.
pub fn end(child: Option<Child>) -> io::Result<()> {
    let Some(mut child) = child else { return Ok(()) };
    signal(&child, Signal::TERM)?;
    match wait_at_most(&mut child, END_WITHIN)? {
        Some(status) if status.success() || ended_by(&status, Signal::TERM) => Ok(()),
        Some(status) => Err(io::Error::other(format!("ended with {status}"))),
        None => {
            kill(child)?;
            Err(io::Error::other("did not end when asked to, and was killed"))
        }
    }
}

/// Kills a process at once (SIGKILL) and waits for it.
pub fn kill(mut child: Child) -> io::Result<()> {
    child.kill()?;
    child.wait().map(|_| ())
}

/// Sends a signal to a process that has not been waited for yet.
pub fn signal(child: &Child, signal: Signal) -> io::Result<()> {
    Ok(kill_process(pid_of(child)?, signal)?)
}

/// Waits for a process to end by itself; `None` when it has not after `limit`.
pub fn wait_at_most(child: &mut Child, limit: Duration) -> io::Result<Option<ExitStatus>> {
    let handle = pidfd_open(pid_of(child)?, PidfdFlags::empty())?;
    let limit = Timespec { tv_sec: limit.as_secs() as i64, tv_nsec: i64::from(limit.subsec_nanos()) };
    match poll(&mut [PollFd::new(&handle, PollFlags::IN)], Some(&limit))? {
        0 => Ok(None),
        _ => child.wait().map(Some),
    }
}

fn pid_of(child: &Child) -> io::Result<Pid> {
    i32::try_from(child.id()).ok().and_then(Pid::from_raw).ok_or_else(|| io::Error::other("not a process id"))
}

fn ended_by(status: &ExitStatus, signal: Signal) -> bool {
    std::os::unix::process::ExitStatusExt::signal(status) == Some(signal.as_raw())
}

/// Resident memory of a process now and at its peak, bytes; zeros when it is gone.
pub fn memory(pid: u32) -> (u64, u64) {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok()
    };
    (field("VmRSS:").unwrap_or(0) << 10, field("VmHWM:").unwrap_or(0) << 10)
}

/// Waits for a process to end and gives the peak of its resident memory, bytes, as last seen 10 ms before or less.
pub fn wait_watching_memory(child: &mut Child) -> io::Result<(ExitStatus, u64)> {
    let mut peak = 0;
    loop {
        peak = memory(child.id()).1.max(peak);
        if let Some(status) = wait_at_most(child, Duration::from_millis(10))? {
            return Ok((status, peak));
        }
    }
}
