//! What a person sees while a backup runs: how far it is, and how much there is in all.

use crate::fs::{FileKind, ScanEvent, ScanOptions, Scanner};
use crate::pipeline::counters::{Counters, Counts};
use crate::report::{Report, human_bytes};
use serde::Serialize;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// How often progress is shown and reported.
const PROGRESS_PERIOD: Duration = Duration::from_millis(500);

/// Shows progress until it is dropped.
pub(super) struct Ticker {
    end: Option<crossbeam_channel::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

#[derive(Serialize)]
struct ProgressEvent {
    event: &'static str,
    elapsed_ms: u64,
    counters: Counts,
}

impl Ticker {
    pub(super) fn start(report: Arc<Report>, counters: Arc<Counters>) -> Self {
        let (end, ended) = crossbeam_channel::bounded::<()>(0);
        let clock = Instant::now();
        let thread = std::thread::Builder::new().name("progress".into()).spawn(move || {
            let mut reported = Instant::now();
            while ended.recv_timeout(PROGRESS_PERIOD) == Err(crossbeam_channel::RecvTimeoutError::Timeout) {
                let counts = counters.counts();
                report.counts(&counts);
                report.progress(counts.logical_bytes.max(counts.bytes_read), || {
                    let (files, sent) = (counts.files, human_bytes(counts.chunk_bytes_sent));
                    format!("{files} files, {} unchanged, {sent} sent", counts.files_unchanged)
                });
                if reported.elapsed() >= 2 * PROGRESS_PERIOD {
                    reported = Instant::now();
                    let elapsed_ms = clock.elapsed().as_millis() as u64;
                    report.json(&ProgressEvent { event: "progress", elapsed_ms, counters: counts });
                }
            }
            // A run that fails is seen to have come as far as it has.
            report.counts(&counters.counts());
        });
        Ticker { end: Some(end), thread: thread.ok() }
    }
}

impl Drop for Ticker {
    fn drop(&mut self) {
        self.end.take();
        if let Some(thread) = self.thread.take() {
            thread.join().ok();
        }
    }
}

/// Without an earlier snapshot nobody knows how much there is: counted meanwhile, for the time left.
pub(super) struct Estimate {
    ended: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Estimate {
    pub(super) fn start(report: Arc<Report>, roots: Vec<PathBuf>, options: ScanOptions) -> Self {
        let ended = Arc::new(AtomicBool::new(false));
        let thread = std::thread::Builder::new().name("estimate".into()).spawn({
            let ended = ended.clone();
            move || {
                let Ok(scan) = Scanner::new(&roots, options) else { return };
                let mut total = 0u64;
                for event in scan {
                    if ended.load(Ordering::Relaxed) {
                        return;
                    }
                    if let ScanEvent::Item(item) = event
                        && item.kind() == FileKind::File
                    {
                        total = total.saturating_add(item.stat.size);
                    }
                }
                report.set_total(total);
            }
        });
        Estimate { ended, thread: thread.ok() }
    }
}

impl Drop for Estimate {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.join().ok();
        }
    }
}
