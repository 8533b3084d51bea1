//! Bringing a snapshot, or part of one, back as files.

pub mod fetch;
pub mod hold;
pub mod selection;

use crate::connection::{Connection, root_of};
use crate::error::AgentError;
use crate::fs::{ConflictPolicy, Created, RestoreError, RestoreOptions, RestoreReport, RestoreTarget, raw_xattrs};
use crate::nodes::ServerNodes;
use crate::report::{Report, human_bytes, printable};
use api::browse::Snapshot;
use fetch::{Planner, Restore, Written};
use hold::HeldSnapshot;
use repo_format::entry::{Element, Entry, EntryKind, PathKey};
use repo_format::filelist::ContentCursor;
use selection::{Selected, Selection};
use serde::Serialize;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

/// Conflicts listed by name; the rest is counted.
const CONFLICTS_LISTED: u64 = 100;

/// What to bring back, and where.
pub struct RestoreRequest {
    /// Absolute paths within the snapshot; everything when empty.
    pub paths: Vec<Vec<u8>>,
    /// Below which directory the snapshot's paths are made.
    pub target: PathBuf,
    /// Conflicts, owners.
    pub options: RestoreOptions,
    /// Only say what would be done.
    pub dry_run: bool,
    /// Threads that unpack and write.
    pub workers: usize,
}

/// What a restore did.
#[derive(Clone, Debug, Default, Serialize)]
pub struct RestoreResult {
    /// `restored`, or `would_restore` for a dry run.
    pub event: &'static str,
    /// Snapshot id.
    pub snapshot: String,
    /// Entries in the selection.
    pub entries: u64,
    /// Regular files completed (dry run: in the selection).
    pub files: u64,
    /// Bytes of content written, holes not counted (dry run: sum of file sizes).
    pub bytes: u64,
    /// Bytes received, compressed.
    pub received_bytes: u64,
    /// Paths that could not be restored.
    pub failures: u64,
    /// Parts of metadata that could not be set.
    pub problems: u64,
    /// Left alone because something was there.
    pub skipped: u64,
    /// Replaced something.
    pub replaced: u64,
    /// Put beside something.
    pub kept_both: u64,
    /// Dry run: entries in whose place something is.
    pub conflicts: u64,
    /// Wall clock, milliseconds.
    pub duration_ms: u64,
}

impl RestoreResult {
    /// Whether everything came back.
    pub fn is_complete(&self) -> bool {
        self.failures == 0 && self.problems == 0
    }
}

/// Brings back what `request` names of `snapshot`.
pub fn restore(
    connection: &Connection,
    snapshot: &Snapshot,
    request: RestoreRequest,
    report: &Arc<Report>,
) -> Result<RestoreResult, AgentError> {
    let clock = Instant::now();
    let nodes = connection.nodes();
    let root = root_of(snapshot)?;
    let mut result = RestoreResult { snapshot: snapshot.id.clone(), ..RestoreResult::default() };
    let _held = HeldSnapshot::begin(connection, snapshot, report)?;
    check_paths(&nodes, snapshot, &request.paths)?;
    if request.dry_run {
        result.event = "would_restore";
        let target = match RestoreTarget::open_existing(&request.target, request.options.clone()) {
            Ok(target) => Some(target),
            Err(RestoreError::Target { error, .. }) if error.kind() == std::io::ErrorKind::NotFound => None,
            Err(error) => return Err(restore_error(error)),
        };
        preview(&nodes, snapshot, &request, target.as_ref(), report, &mut result, true)?;
        result.duration_ms = clock.elapsed().as_millis() as u64;
        return Ok(result);
    }
    result.event = "restored";
    let stops = request.options.on_conflict == ConflictPolicy::Stop;
    let target = RestoreTarget::open(&request.target, request.options.clone()).map_err(restore_error)?;
    if stops && !target.was_empty() {
        let mut found = RestoreResult::default();
        preview(&nodes, snapshot, &request, Some(&target), report, &mut found, false)?;
        if found.conflicts > 0 {
            return Err(AgentError::Usage(format!(
                "{} things are in the way in {}; nothing was written. Choose --on-conflict skip, newer, overwrite or \
                 keep-both, or another --to",
                found.conflicts,
                request.target.display()
            )));
        }
    }
    let work = Restore {
        client: connection.client.clone(),
        vault: connection.vault.clone(),
        keys: connection.keys.clone(),
        stop: connection.cancel.stop(),
        report: report.clone(),
        written: Written::default(),
    };
    let work = Restore { client: work.client.with_stop(work.stop.clone()), ..work };
    report.start_progress(Some(snapshot.logical_bytes).filter(|_| request.paths.is_empty()));
    let mut selection = Selection::new(&nodes, root, &request.paths)?;
    let entries = &mut result.entries;
    let outcome =
        fetch::run(&work, request.workers, |planner| plan(&work, &nodes, &mut selection, &target, planner, entries));
    report.end_progress();
    outcome?;
    let summary = target.finish().map_err(restore_error)?;
    take_counts(&mut result, &work.written, &summary);
    for problem in &summary.problems {
        report.warning(&problem.path, &format!("{}: {}", problem.kind, problem.cause));
    }
    result.duration_ms = clock.elapsed().as_millis() as u64;
    Ok(result)
}

fn take_counts(result: &mut RestoreResult, written: &Written, summary: &RestoreReport) {
    result.files = written.files.load(Ordering::Relaxed);
    result.bytes = written.bytes.load(Ordering::Relaxed);
    result.received_bytes = written.received_bytes.load(Ordering::Relaxed);
    result.failures = written.failures.load(Ordering::Relaxed);
    result.problems = summary.problem_counts().map(|(_, count)| count).sum();
    result.skipped = summary.skipped;
    result.replaced = summary.replaced;
    result.kept_both = summary.kept_both;
}

fn restore_error(error: RestoreError) -> AgentError {
    AgentError::Usage(error.to_string())
}

/// Every path asked for must be in the snapshot.
fn check_paths(nodes: &ServerNodes, snapshot: &Snapshot, paths: &[Vec<u8>]) -> Result<(), AgentError> {
    let mut cursor = repo_format::pathmap::Cursor::new(nodes, root_of(snapshot)?);
    for path in paths {
        let missing = || AgentError::Usage(format!("{} is not in snapshot {}", printable(path), snapshot.id));
        let key = PathKey::from_path(path).map_err(|_| missing())?;
        if !key.is_root() && cursor.lookup(&key)?.is_none() {
            return Err(missing());
        }
    }
    Ok(())
}

/// Goes over the selection without writing: counts, and lists what is in the way.
fn preview(
    nodes: &ServerNodes,
    snapshot: &Snapshot,
    request: &RestoreRequest,
    target: Option<&RestoreTarget>,
    report: &Report,
    result: &mut RestoreResult,
    listed: bool,
) -> Result<(), AgentError> {
    #[derive(Serialize)]
    struct WouldRestore<'a> {
        event: &'static str,
        path: &'a str,
        size: u64,
        conflict: bool,
    }
    let mut selection = Selection::new(nodes, root_of(snapshot)?, &request.paths)?;
    loop {
        let (key, entry) = match selection.advance()? {
            Selected::End => return Ok(()),
            Selected::Gap(error) => {
                result.failures += 1;
                report.warning(b"", &format!("some entries cannot be read: {error}"));
                continue;
            }
            Selected::Entry(key, entry) => (key, entry),
        };
        result.entries += 1;
        result.files += u64::from(matches!(entry.kind, EntryKind::File { .. }));
        result.bytes += entry.size();
        let conflict = match target {
            Some(target) => target.conflict(&key, &entry).map_err(restore_error)?,
            None => None,
        };
        if let Some(conflict) = &conflict {
            result.conflicts += 1;
            if result.conflicts <= CONFLICTS_LISTED {
                report.warning(&conflict.path, "something is there already");
            }
        }
        if listed {
            let path = printable(&key.to_path());
            let event = WouldRestore {
                event: "would_restore_entry",
                path: &path,
                size: entry.size(),
                conflict: conflict.is_some(),
            };
            report.result(&event, &path);
        }
    }
}

fn plan(
    work: &Restore,
    nodes: &ServerNodes,
    selection: &mut Selection<'_>,
    target: &RestoreTarget,
    planner: &mut Planner<'_>,
    entries: &mut u64,
) -> Result<(), AgentError> {
    loop {
        work.stop.check()?;
        match selection.advance()? {
            Selected::End => return Ok(()),
            Selected::Gap(error) => work.failed(b"", &format!("some entries cannot be read: {error}")),
            Selected::Entry(key, entry) => {
                *entries += 1;
                place(work, nodes, target, planner, &key, &entry)?;
                if entries.is_multiple_of(256) {
                    let bytes = work.written.bytes.load(Ordering::Relaxed);
                    work.report.progress(bytes, || {
                        let files = work.written.files.load(Ordering::Relaxed);
                        format!(
                            "{files} files, {} received",
                            human_bytes(work.written.received_bytes.load(Ordering::Relaxed))
                        )
                    });
                }
            }
        }
    }
}

/// Makes one entry, and adds its content to the plan.
fn place(
    work: &Restore,
    nodes: &ServerNodes,
    target: &RestoreTarget,
    planner: &mut Planner<'_>,
    key: &PathKey,
    entry: &Entry,
) -> Result<(), AgentError> {
    let xattrs = raw_xattrs(entry, |chunk, _| {
        work.chunk(chunk).or_else(|error| match error {
            AgentError::ObjectUnavailable { .. } | AgentError::Format(_) => {
                work.failed(&key.to_path(), &format!("extended attribute: {error}"));
                Ok(Vec::new())
            }
            other => Err(other),
        })
    })?;
    let writer = match target.create(key, entry, xattrs) {
        Ok(Created::File(writer)) => writer,
        Ok(Created::Done | Created::LinkedLater | Created::LeftOut) => {
            if matches!(&entry.kind, EntryKind::File { size: 0, .. }) {
                work.written.files.fetch_add(1, Ordering::Relaxed);
            }
            return Ok(());
        }
        Err(error) if error.is_storage_full() => return Err(restore_error(error)),
        Err(error @ RestoreError::TemporaryFile(_)) => return Err(restore_error(error)),
        Err(error) => {
            work.failed(&key.to_path(), &error.to_string());
            return Ok(());
        }
    };
    let file = planner.open(*writer);
    let EntryKind::File { content, .. } = &entry.kind else { return work.release(file) };
    let mut elements = ContentCursor::new(nodes, content);
    loop {
        match elements.next() {
            Ok(None) => return work.release(file),
            Ok(Some((_, Element::Hole { .. }))) => {}
            Ok(Some((offset, Element::Data { chunk, offset: chunk_offset, len }))) => {
                planner.add(&file, offset, chunk, chunk_offset, len)?;
            }
            Err(error @ (AgentError::ObjectUnavailable { .. } | AgentError::Format(_))) => {
                return planner.abandon(file, &error.to_string());
            }
            Err(error) => return Err(error),
        }
    }
}

/// Text of a finished restore for people.
pub fn summary_text(result: &RestoreResult, target: &Path) -> String {
    let seconds = result.duration_ms as f64 / 1000.0;
    let rate = human_bytes((result.bytes as f64 / seconds.max(0.001)) as u64);
    let mut text = match result.event {
        "would_restore" => {
            format!("would restore {} entries, {} files, {}", result.entries, result.files, human_bytes(result.bytes))
        }
        _ => format!(
            "restored {} entries, {} files, {} to {} in {seconds:.1} s ({rate}/s)",
            result.entries,
            result.files,
            human_bytes(result.bytes),
            target.display()
        ),
    };
    for (count, words) in [
        (result.conflicts, "in conflict"),
        (result.skipped, "skipped"),
        (result.replaced, "replaced"),
        (result.kept_both, "kept beside"),
        (result.problems, "problems with metadata"),
        (result.failures, "failed"),
    ] {
        if count > 0 {
            text.push_str(&format!("; {count} {words}"));
        }
    }
    text
}
