//! What a person or a script sees: JSON lines with stable names on standard output, or text; warnings and remarks on
//! standard error; progress only on a terminal.

use crate::error::AgentError;
use crate::pipeline::counters::Counts;
use indicatif::{ProgressBar, ProgressStyle};
use parking_lot::Mutex;
use serde::Serialize;
use std::io::{IsTerminal, Write};
use std::sync::Arc;
use std::time::Duration;

/// The progress line when the total is known.
const WITH_TOTAL: &str = "{bar:24} {bytes}/{total_bytes} {binary_bytes_per_sec} eta {eta} {wide_msg}";

/// How much is said, and how.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Style {
    /// Text, progress on a terminal.
    #[default]
    Text,
    /// One JSON object per line.
    Json,
    /// Results and warnings only.
    Quiet,
}

/// Hears what a run says, beside whoever reads it.
pub trait Observer: Send + Sync {
    /// A warning, a remark or an error: `event` says which. `path` is printable, or empty.
    fn note(&self, event: &'static str, path: &str, message: &str);
    /// How many bytes there are in all, when that is known.
    fn total(&self, bytes: u64);
    /// What a backup has done so far.
    fn counts(&self, counts: &Counts);
    /// How many bytes a restore has written so far.
    fn bytes(&self, bytes: u64);
}

/// Speaks for one command. Shared by all its threads.
pub struct Report {
    style: Style,
    observer: Option<Arc<dyn Observer>>,
    bar: Mutex<Option<ProgressBar>>,
    out: Mutex<Box<dyn Write + Send>>,
}

#[derive(Serialize)]
struct Note<'a> {
    event: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    path: Option<&'a str>,
    message: &'a str,
}

impl Report {
    /// To standard output and standard error.
    pub fn new(style: Style) -> Self {
        Self::to(style, Box::new(std::io::stdout()))
    }

    /// With another place for results.
    pub fn to(style: Style, out: Box<dyn Write + Send>) -> Self {
        Report { style, observer: None, bar: Mutex::new(None), out: Mutex::new(out) }
    }

    /// For a run of the service: what there is to say goes to `observer` alone.
    pub fn observed(observer: Arc<dyn Observer>) -> Self {
        let nowhere = Box::new(std::io::sink());
        Report { observer: Some(observer), ..Self::to(Style::Quiet, nowhere) }
    }

    /// What a backup has done so far.
    pub fn counts(&self, counts: &Counts) {
        if let Some(observer) = &self.observer {
            observer.counts(counts);
        }
    }

    /// The style asked for.
    pub fn style(&self) -> Style {
        self.style
    }

    /// A result: `event` as one JSON line, or `text`. Errors of standard output (a closed pipe) end nothing.
    pub fn result(&self, event: &impl Serialize, text: &str) {
        match self.style {
            Style::Json => self.json(event),
            Style::Text | Style::Quiet => self.line(text),
        }
    }

    /// Only for scripts.
    pub fn json(&self, event: &impl Serialize) {
        if self.style == Style::Json
            && let Ok(line) = serde_json::to_string(event)
        {
            self.line(&line);
        }
    }

    fn line(&self, text: &str) {
        self.around_bar(|| {
            let mut out = self.out.lock();
            writeln!(out, "{text}").and_then(|()| out.flush()).ok();
        });
    }

    fn around_bar(&self, print: impl FnOnce()) {
        match &*self.bar.lock() {
            Some(bar) => bar.suspend(print),
            None => print(),
        }
    }

    /// A path that could not be handled.
    pub fn warning(&self, path: &[u8], message: &str) {
        self.note("warning", path, message);
    }

    /// Something worth knowing that changes nothing.
    pub fn remark(&self, path: &[u8], message: &str) {
        if self.style != Style::Quiet || self.observer.is_some() {
            self.note("remark", path, message);
        }
    }

    /// The command failed.
    pub fn failure(&self, error: &AgentError) {
        self.note("error", b"", &error.to_string());
        if self.style == Style::Json {
            // A person may be looking as well.
            writeln!(std::io::stderr(), "holdfast: error: {error}").ok();
        }
    }

    fn note(&self, event: &'static str, path: &[u8], message: &str) {
        let shown = printable(path);
        let path = (!path.is_empty()).then_some(shown.as_str());
        if let Some(observer) = &self.observer {
            observer.note(event, path.unwrap_or_default(), message);
            return;
        }
        if self.style == Style::Json {
            self.json(&Note { event, path, message });
            return;
        }
        self.around_bar(|| {
            let place = path.map(|path| format!("{path}: ")).unwrap_or_default();
            writeln!(std::io::stderr(), "holdfast: {event}: {place}{message}").ok();
        });
    }

    /// Shows progress if standard error is a terminal: `total` bytes when known.
    pub fn start_progress(&self, total: Option<u64>) {
        if let (Some(observer), Some(total)) = (&self.observer, total) {
            observer.total(total);
        }
        if self.style != Style::Text || !std::io::stderr().is_terminal() {
            return;
        }
        let (bar, template) = match total {
            Some(total) => (ProgressBar::new(total), WITH_TOTAL),
            None => (ProgressBar::new_spinner(), "{spinner} {bytes} {binary_bytes_per_sec} {elapsed} {wide_msg}"),
        };
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        bar.enable_steady_tick(Duration::from_millis(250));
        *self.bar.lock() = Some(bar);
    }

    /// Whether a progress line is shown.
    pub fn shows_progress(&self) -> bool {
        self.bar.lock().is_some()
    }

    /// How much there is in all, once known.
    pub fn set_total(&self, total: u64) {
        if let Some(bar) = &*self.bar.lock()
            && let Ok(style) = ProgressStyle::with_template(WITH_TOTAL)
        {
            bar.set_length(total);
            bar.set_style(style);
        }
    }

    /// How far it is: bytes done and a few words.
    pub fn progress(&self, bytes: u64, message: impl FnOnce() -> String) {
        if let Some(observer) = &self.observer {
            observer.bytes(bytes);
        }
        if let Some(bar) = &*self.bar.lock() {
            if bar.length().is_some_and(|length| bytes > length) {
                bar.set_length(bytes);
            }
            bar.set_position(bytes);
            bar.set_message(message());
        }
    }

    /// The server is away; shown until the next progress.
    pub fn waiting(&self, reason: &str, pause: Duration) {
        #[derive(Serialize)]
        struct Waiting<'a> {
            event: &'static str,
            message: &'a str,
            pause_ms: u64,
        }
        self.json(&Waiting { event: "waiting", message: reason, pause_ms: pause.as_millis() as u64 });
        if let Some(bar) = &*self.bar.lock() {
            bar.set_message(format!("waiting for the server: {reason}"));
        }
    }

    /// Removes the progress line.
    pub fn end_progress(&self) {
        if let Some(bar) = self.bar.lock().take() {
            bar.finish_and_clear();
        }
    }
}

/// A path for people: UTF-8 as it is, control characters and other bytes escaped, so that it stays on one line and
/// never drives a terminal.
pub fn printable(path: &[u8]) -> String {
    let mut text = String::with_capacity(path.len());
    for part in path.utf8_chunks() {
        for character in part.valid().chars() {
            if character.is_control() {
                text.extend(character.escape_default());
            } else {
                text.push(character);
            }
        }
        for byte in part.invalid() {
            text.push_str(&format!("\\x{byte:02x}"));
        }
    }
    text
}

/// Bytes for people, in binary units.
pub fn human_bytes(bytes: u64) -> String {
    indicatif::BinaryBytes(bytes).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_cannot_drive_a_terminal() {
        assert_eq!(printable("/a b/ü".as_bytes()), "/a b/ü");
        assert_eq!(printable(b"/a\nb\x1b[1m\xff"), "/a\\nb\\u{1b}[1m\\xff");
    }
}
