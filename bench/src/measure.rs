//! Time, processor time and memory of processes, read from /proc. Knows nothing about tools.

use crate::error::{BenchError, Doing};
use std::collections::HashSet;
use std::fs::{self, File};
use std::io::Read;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tests::process::memory;

/// What one run of a command took.
#[derive(Clone, Copy, Debug, Default)]
pub struct Usage {
    /// Wall clock.
    pub seconds: f64,
    /// User and system time of the process and everything it started.
    pub cpu_seconds: f64,
    /// Most memory resident at one time, of the whole process tree, bytes.
    pub rss_bytes_max: u64,
}

/// Clock ticks per second in /proc; fixed by the kernel's interface to programs.
const TICKS_PER_SECOND: f64 = 100.0;
/// Kilobytes of output kept to explain a failure.
const OUTPUT_BYTES_KEPT: usize = 4000;
const SAMPLE_EVERY: Duration = Duration::from_millis(10);

/// Runs a command to its end and measures it. Its output goes to `log`; other exit codes than those in `accepted` are
/// errors.
pub fn run(command: &mut Command, accepted: &[i32], log: &Path) -> Result<Usage, BenchError> {
    let name = name_of(command);
    let output = File::create(log).doing(log.display().to_string())?;
    let errors = output.try_clone().doing("log")?;
    command.stdin(Stdio::null()).stdout(output).stderr(errors);
    let cpu_before = children_cpu_seconds()?;
    let started = Instant::now();
    let mut child = command.spawn().doing(name.clone())?;
    let pid = child.id();
    let ended = AtomicBool::new(false);
    let (status, rss_bytes_max) = std::thread::scope(|scope| {
        let sampler = scope.spawn(|| sample_memory(pid, &ended));
        let status = child.wait();
        ended.store(true, Ordering::Relaxed);
        (status, sampler.join().unwrap_or(0))
    });
    let seconds = started.elapsed().as_secs_f64();
    let status = status.doing(name.clone())?;
    if !status.code().is_some_and(|code| accepted.contains(&code)) {
        return Err(BenchError::Tool { tool: name, status: status.to_string(), output: end_of(log) });
    }
    Ok(Usage { seconds, cpu_seconds: children_cpu_seconds()? - cpu_before, rss_bytes_max })
}

/// The command as a person would type it, without its environment.
pub fn name_of(command: &Command) -> String {
    let mut words = vec![command.get_program().to_string_lossy().into_owned()];
    words.extend(command.get_args().map(|argument| argument.to_string_lossy().into_owned()));
    words.join(" ")
}

/// The end of a log, for error messages.
pub fn end_of(log: &Path) -> String {
    let mut bytes = Vec::new();
    let _ = File::open(log).and_then(|mut file| file.read_to_end(&mut bytes));
    String::from_utf8_lossy(&bytes[bytes.len().saturating_sub(OUTPUT_BYTES_KEPT)..]).into_owned()
}

/// The largest of: the sum of resident memory over the tree at any sample, and the peak of any one process.
fn sample_memory(root: u32, ended: &AtomicBool) -> u64 {
    let mut largest = 0;
    while !ended.load(Ordering::Relaxed) {
        let mut sum = 0;
        for pid in process_tree(root) {
            let (now, peak) = memory(pid);
            sum += now;
            largest = largest.max(peak);
        }
        largest = largest.max(sum);
        std::thread::sleep(SAMPLE_EVERY);
    }
    largest
}

/// The process and everything below it that still lives.
fn process_tree(root: u32) -> Vec<u32> {
    let mut found = vec![root];
    let mut seen = HashSet::from([root]);
    let mut next = 0;
    while let Some(&pid) = found.get(next) {
        next += 1;
        let Ok(threads) = fs::read_dir(format!("/proc/{pid}/task")) else { continue };
        for thread in threads.flatten() {
            let children = fs::read_to_string(thread.path().join("children")).unwrap_or_default();
            found.extend(
                children.split_whitespace().filter_map(|word| word.parse().ok()).filter(|pid| seen.insert(*pid)),
            );
        }
    }
    found
}

/// Fields of /proc/PID/stat behind the command name, which may itself hold spaces and parentheses.
fn stat_fields(pid: &str) -> Result<Vec<u64>, BenchError> {
    let path = format!("/proc/{pid}/stat");
    let text = fs::read_to_string(&path).doing(path)?;
    let behind = text.rsplit_once(')').map_or("", |(_, behind)| behind);
    Ok(behind.split_whitespace().map(|word| word.parse().unwrap_or(0)).collect())
}

// Numbers of proc(5) minus 3, because the list starts behind the command name.
const UTIME: usize = 11;
const CHILDREN_UTIME: usize = 13;

fn children_cpu_seconds() -> Result<f64, BenchError> {
    let fields = stat_fields("self")?;
    Ok(fields.iter().skip(CHILDREN_UTIME).take(2).sum::<u64>() as f64 / TICKS_PER_SECOND)
}

/// Watches a server during one scenario.
pub struct ServerWatch {
    pid: u32,
    cpu_before: f64,
}

impl ServerWatch {
    /// From now on; the kernel forgets the process's earlier memory peak.
    pub fn begin(pid: u32) -> Result<Self, BenchError> {
        let path = format!("/proc/{pid}/clear_refs");
        fs::write(&path, "5").doing(path)?;
        Ok(ServerWatch { pid, cpu_before: Self::cpu(pid)? })
    }

    /// Processor seconds and peak resident bytes since the beginning.
    pub fn end(self) -> Result<(f64, u64), BenchError> {
        Ok((Self::cpu(self.pid)? - self.cpu_before, memory(self.pid).1))
    }

    fn cpu(pid: u32) -> Result<f64, BenchError> {
        let fields = stat_fields(&pid.to_string())?;
        Ok(fields.iter().skip(UTIME).take(4).sum::<u64>() as f64 / TICKS_PER_SECOND)
    }
}

/// Bytes of all files and folders below `path`, each object once, as `du -sb` counts them.
pub fn apparent_bytes(path: &Path) -> Result<u64, BenchError> {
    let output = Command::new("du").arg("-sb").arg(path).output().doing("du -sb")?;
    let text = String::from_utf8_lossy(&output.stdout);
    text.split_whitespace()
        .next()
        .and_then(|word| word.parse().ok())
        .ok_or_else(|| BenchError::Setup(format!("du -sb {} gave no number", path.display())))
}
