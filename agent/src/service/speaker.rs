//! Speaks of one job to the server while it runs: signs of life with its counts, and its log. What cannot be said now is
//! said later; what was said twice counts once.

use crate::client::{Client, ClientError, Patience};
use crate::clock::now_ns;
use crate::pipeline::counters::Counts;
use crate::report::Observer;
use crate::stop::Cancel;
use api::agents::{AppendLog, EndJob, LOG_LINES_MAX};
use api::jobs::{JobCounts, JobState, LogLevel, LogLine};
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};
use parking_lot::Mutex;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

/// Longest text of a line, bytes.
const LINE_BYTES_MAX: usize = 2000;
/// Lines of one job that are sent; of further ones only the number is told.
const LINES_MAX: i64 = 10_000;
/// Log and counts are told this often, or with every sign of life when those are more frequent.
const SPEAK: Duration = Duration::from_secs(5);
/// How long an ended job goes on trying to say so.
const LAST_WORDS: Duration = Duration::from_secs(3600);

/// What a job says, collected until it is sent.
pub struct JobVoice {
    state: Mutex<Voice>,
}

#[derive(Default)]
struct Voice {
    unsent: Vec<LogLine>,
    next_line: i64,
    counts: JobCounts,
}

impl JobVoice {
    /// Silent so far.
    pub fn new() -> Self {
        JobVoice { state: Mutex::default() }
    }

    /// A line of the log.
    pub fn say(&self, level: LogLevel, text: &str) {
        let mut state = self.state.lock();
        let line = state.next_line;
        state.next_line += 1;
        if level == LogLevel::Warning {
            state.counts.warnings += 1;
        }
        let text = match line {
            line if line < LINES_MAX - 1 => cut(text),
            line if line == LINES_MAX - 1 => "there was more to say than a log takes; the rest is left out",
            _ => return,
        };
        state.unsent.push(LogLine { line, at_ns: now_ns(), level, text: text.to_owned() });
    }

    /// What was done so far.
    pub fn counts(&self) -> JobCounts {
        self.state.lock().counts
    }

    /// Changes what was done so far.
    pub fn set(&self, change: impl FnOnce(&mut JobCounts)) {
        change(&mut self.state.lock().counts);
    }

    /// Sends what there is to say; what could not be sent stays.
    fn send_log(&self, client: &Client, job: &str) -> Result<(), ClientError> {
        loop {
            let lines: Vec<LogLine> = {
                let state = self.state.lock();
                state.unsent.iter().take(LOG_LINES_MAX).cloned().collect()
            };
            if lines.is_empty() {
                return Ok(());
            }
            let sent = lines.len();
            client.append_job_log(job, &AppendLog { lines })?;
            self.state.lock().unsent.drain(..sent);
        }
    }
}

impl Default for JobVoice {
    fn default() -> Self {
        Self::new()
    }
}

/// The beginning of a text that is not too long.
fn cut(text: &str) -> &str {
    let mut end = text.len().min(LINE_BYTES_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

impl Observer for JobVoice {
    fn note(&self, event: &'static str, path: &str, message: &str) {
        let level = match event {
            "warning" => LogLevel::Warning,
            "error" => LogLevel::Error,
            _ => LogLevel::Info,
        };
        let message = message.replace('\0', "\\0");
        match path {
            "" => self.say(level, &message),
            path => self.say(level, &format!("{path}: {message}")),
        }
    }

    fn total(&self, bytes: u64) {
        self.set(|counts| counts.bytes_total = Some(bytes));
    }

    fn counts(&self, run: &Counts) {
        self.set(|counts| {
            counts.files = run.files;
            counts.bytes_done = run.logical_bytes.max(run.bytes_read);
            counts.bytes_added = run.bytes_added;
        });
    }

    fn bytes(&self, bytes: u64) {
        self.set(|counts| counts.bytes_done = counts.bytes_done.max(bytes));
    }
}

/// Speaks until it is told how the job ended.
pub struct Speaker {
    end: Option<Sender<EndJob>>,
    thread: Option<JoinHandle<()>>,
}

impl Speaker {
    /// For a job that has begun. A job that the server says does not run any more is cancelled.
    pub fn start(
        client: &Client,
        job: &str,
        voice: Arc<JobVoice>,
        heartbeat: Duration,
        cancel: &Cancel,
    ) -> std::io::Result<Self> {
        let (end, ended) = bounded(1);
        let (client, job, cancel) = (client.clone(), job.to_owned(), cancel.clone());
        let speak = move || speak(&client, &job, &voice, heartbeat, &cancel, &ended);
        let thread = std::thread::Builder::new().name("speaker".into()).spawn(speak)?;
        Ok(Speaker { end: Some(end), thread: Some(thread) })
    }

    /// The job has ended; returns when the server knows, or cannot be told.
    pub fn end(mut self, end: EndJob) {
        if let Some(sender) = self.end.take() {
            sender.send(end).ok();
        }
        if let Some(thread) = self.thread.take() {
            thread.join().ok();
        }
    }
}

fn speak(client: &Client, job: &str, voice: &JobVoice, heartbeat: Duration, cancel: &Cancel, ended: &Receiver<EndJob>) {
    let hurried = client.with_patience(Patience { total: heartbeat, ..Patience::default() });
    let pause = SPEAK.min(heartbeat);
    let end = loop {
        match ended.recv_timeout(pause) {
            Ok(end) => break end,
            Err(RecvTimeoutError::Disconnected) => return,
            Err(RecvTimeoutError::Timeout) => {}
        }
        // A server that is away now is told the next time.
        if let Ok(answer) = hurried.job_heartbeat(job, &voice.counts())
            && answer.state != JobState::Running
        {
            cancel.cancel();
        }
        voice.send_log(&hurried, job).ok();
    };
    let patient = client.with_patience(Patience { total: LAST_WORDS, ..Patience::default() });
    voice.send_log(&patient, job).ok();
    patient.end_job(job, &end).ok();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_numbered_cut_and_bounded() {
        let voice = JobVoice::new();
        voice.say(LogLevel::Info, &"ü".repeat(2000));
        Observer::note(&voice, "warning", "/etc/shadow", "permission denied");
        for number in 0..LINES_MAX {
            voice.say(LogLevel::Info, &number.to_string());
        }
        let state = voice.state.lock();
        assert_eq!(state.unsent.len() as i64, LINES_MAX);
        assert!(state.unsent.iter().enumerate().all(|(number, line)| line.line == number as i64));
        assert_eq!(state.unsent[0].text.len(), LINE_BYTES_MAX);
        assert_eq!(
            (state.unsent[1].level, state.unsent[1].text.as_str()),
            (LogLevel::Warning, "/etc/shadow: permission denied")
        );
        assert!(state.unsent.last().unwrap().text.contains("left out"));
        assert_eq!(state.counts.warnings, 1);
    }
}
