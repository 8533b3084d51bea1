//! One backup from beginning to end: the upload session, the base snapshot, the run, the commit, the cache.

mod preview;
mod progress;
mod stream;

pub use preview::{BackupPreview, preview, preview_text};

use crate::cache::files::{FilesReader, FilesWriter};
use crate::cache::nodes::{BaseNodes, NodesWriter};
use crate::cache::series_folder;
use crate::client::ClientError;
use crate::config::{private_folder, remove_partials};
use crate::connection::{Connection, root_of};
use crate::error::AgentError;
use crate::fs::{ReadError, ScanOptions, Scanner};
use crate::pipeline::assemble::{Assembler, CacheWriters};
use crate::pipeline::content::{ContentWriter, StoreError};
use crate::pipeline::counters::{Counters, Counts, add};
use crate::pipeline::limits::READERS_MAX;
use crate::pipeline::read::{Body, Outcome};
use crate::pipeline::rebundle::{BundlePlan, BundleUse};
use crate::pipeline::upload::{self, UploadThreads};
use crate::pipeline::walk::{BaseView, Link, is_damage, is_sound};
use crate::pipeline::{Run, now, run_scan};
use crate::program::Program;
use crate::report::{Report, human_bytes};
use api::browse::Snapshot;
use api::problem::Code;
use api::quota::{QuotaKind, QuotaNotice};
use api::upload::{BeginUpload, Commit, RunSummary, UploadSession};
use progress::{Estimate, Ticker};
use repo_format::entry::{Entry, EntryKind, PathKey, Profile, Time};
use repo_format::id::{NodeId, ObjectId};
use repo_format::pathmap::Cursor;
use serde::Serialize;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;
use stream::OpenInput;

/// Most paths named that stay damaged in the last snapshot.
const DAMAGED_PATHS_MAX: usize = 100;
const CONTENT_STAYS_DAMAGED: &str =
    "is damaged in the last snapshot and in older ones that share it, and has changed or gone since";
const ENTRIES_STAY_DAMAGED: &str =
    "what follows this path is unreadable in the last snapshot and in older ones that share it; the new one is whole";

/// What is backed up.
pub enum Source {
    /// Trees below absolute paths.
    Paths {
        /// The paths.
        roots: Vec<PathBuf>,
        /// What to leave out.
        options: Box<ScanOptions>,
    },
    /// Files whose bytes come once, each with a name of its own.
    Streams {
        /// The series unless another is named.
        series: String,
        /// The files.
        streams: Vec<Stream>,
        /// What is missing from them, as warnings of the run.
        warnings: Vec<String>,
    },
}

impl Source {
    /// One stream, which gives the series its name.
    pub fn stream(name: &str, input: StreamInput) -> Self {
        let streams = vec![Stream { name: name.to_owned(), input }];
        Source::Streams { series: name.to_owned(), streams, warnings: Vec::new() }
    }
}

/// A file whose bytes come once.
pub struct Stream {
    /// Its name in the snapshot.
    pub name: String,
    /// Where the bytes come from.
    pub input: StreamInput,
}

/// Where a stream comes from.
pub enum StreamInput {
    /// Anything readable.
    Reader(Box<dyn Read + Send>),
    /// The standard output of a program, which is started when its turn comes and must end well.
    Command(Box<Program>),
}

/// How one backup is made.
pub struct BackupOptions {
    /// Name of this computer.
    pub computer: String,
    /// Series; derived from the source when `None`.
    pub name: Option<String>,
    /// Tags of the snapshot.
    pub tags: Vec<String>,
    /// How large files are cut.
    pub profile: Profile,
    /// Reading and compressing threads.
    pub workers: usize,
}

/// What a backup made.
#[derive(Clone, Debug, Serialize)]
pub struct BackupResult {
    /// `summary`.
    pub event: &'static str,
    /// The snapshot.
    pub snapshot: Snapshot,
    /// What the run did.
    pub counters: Counts,
    /// Wall clock, milliseconds.
    pub duration_ms: u64,
    /// Requests repeated because the server was away or busy.
    pub retries: u64,
    /// Soft limits that are passed.
    pub quota_notices: Vec<QuotaNotice>,
}

/// The series of some paths: the sorted absolute paths, without a slash at their end.
pub fn series_of_paths(roots: &[PathBuf]) -> String {
    use std::os::unix::ffi::OsStrExt;
    let clean = |path: &[u8]| match path.strip_suffix(b"/") {
        Some(rest) if !rest.is_empty() => crate::report::printable(rest),
        _ => crate::report::printable(path),
    };
    let mut names: Vec<String> = roots.iter().map(|root| clean(root.as_os_str().as_bytes())).collect();
    names.sort();
    names.dedup();
    names.join(":")
}

/// Makes one backup.
pub fn backup(
    connection: &Connection,
    source: Source,
    options: &BackupOptions,
    report: &Arc<Report>,
) -> Result<BackupResult, AgentError> {
    let (clock, started) = (Instant::now(), now());
    let (paths, default_series) = match &source {
        Source::Paths { roots, .. } => {
            (roots.iter().map(|root| root.to_string_lossy().into_owned()).collect(), series_of_paths(roots))
        }
        Source::Streams { series, streams, .. } => {
            (streams.iter().map(|stream| stream.name.clone()).collect(), series.clone())
        }
    };
    let series = options.name.clone().unwrap_or(default_series);
    let snapshots = connection.readable_snapshots()?;
    let base = snapshots.into_iter().rfind(|old| old.computer == options.computer && old.series == series);
    let (session, base) = begin(connection, &options.computer, &series, base)?;
    report.start_progress(base.as_ref().map(|base| base.logical_bytes));

    let stop = connection.cancel.stop();
    let counters = Arc::new(Counters::default());
    let upload =
        upload::start(&connection.client, &connection.vault, &session, options.workers, counters.clone(), &stop)?;
    let (uploader, threads) = upload;
    let run = Run {
        keys: connection.keys.clone(),
        uploader,
        counters: counters.clone(),
        report: report.clone(),
        stop: stop.clone(),
        profile: options.profile,
        workers: options.workers.min(READERS_MAX),
    };
    let folder = series_folder(&connection.folders, &connection.login, &options.computer, &series);
    let attempt = Attempt { connection, run: &run, session: &session, base: base.as_ref(), folder: &folder, started };
    let ticker = Ticker::start(report.clone(), counters.clone());
    let estimate = match (&source, attempt.base) {
        (Source::Paths { roots, options }, None) if report.shows_progress() => {
            Some(Estimate::start(report.clone(), roots.clone(), options.as_ref().clone()))
        }
        _ => None,
    };
    let outcome = stop.explain(attempt.make(source, threads, |root| Commit {
        root: root.to_string(),
        summary: summary(&counters.counts(), paths, options, started),
    }));
    drop((ticker, estimate));
    report.end_progress();
    let Made { snapshot, notices, root, cache } = match outcome {
        Ok(made) => made,
        Err(error) => {
            // What was received stays available to the next run for a while. A command's own failure says that nothing of
            // it is wanted, and where a quota is reached it must not take the room of what is.
            if matches!(error, AgentError::CommandFailed(_)) || error.code() == Some(Code::QuotaExceeded) {
                connection.client.abandon(&connection.vault, &session.id).ok();
            }
            return Err(error);
        }
    };
    if let Some(CacheWriters { files, nodes, bundles }) = cache
        && let Err(error) = nodes
            .finish(&root)
            .and_then(|()| files.finish(&root, started))
            .and_then(|()| crate::cache::bundles::save(&folder, &root, &bundles.plan()))
    {
        report.remark(b"", &format!("the cache could not be written, the next backup takes longer: {error}"));
    }
    for notice in &notices {
        report.remark(b"", &notice_text(notice));
    }
    Ok(BackupResult {
        event: "summary",
        snapshot,
        counters: counters.counts(),
        duration_ms: clock.elapsed().as_millis() as u64,
        retries: connection.client.retries(),
        quota_notices: notices,
    })
}

/// Begins the session on `base`, or without one if that is gone meanwhile.
fn begin(
    connection: &Connection,
    computer: &str,
    series: &str,
    base: Option<Snapshot>,
) -> Result<(UploadSession, Option<Snapshot>), AgentError> {
    let mut request = BeginUpload {
        computer: computer.to_owned(),
        series: series.to_owned(),
        base_snapshot: base.as_ref().map(|base| base.id.clone()),
    };
    match connection.client.begin(&connection.vault, &request) {
        Ok(session) => Ok((session, base)),
        Err(error) if base.is_some() && matches!(error.code(), Some(Code::NotFound | Code::SnapshotDeleted)) => {
            request.base_snapshot = None;
            Ok((connection.client.begin(&connection.vault, &request)?, None))
        }
        Err(error) => Err(error.into()),
    }
}

fn summary(counts: &Counts, paths: Vec<String>, options: &BackupOptions, started: Time) -> RunSummary {
    let started_ns = started.seconds.saturating_mul(1_000_000_000).saturating_add(i64::from(started.nanoseconds));
    RunSummary {
        paths,
        tags: options.tags.clone(),
        started_ns,
        files: counts.files,
        directories: counts.directories,
        others: counts.others,
        files_read: counts.files_opened,
        bytes_read: counts.bytes_read,
        bytes_added: counts.bytes_added,
        warnings: counts.warnings,
    }
}

struct Attempt<'a> {
    connection: &'a Connection,
    run: &'a Run,
    session: &'a UploadSession,
    base: Option<&'a Snapshot>,
    folder: &'a Path,
    started: Time,
}

struct Made {
    snapshot: Snapshot,
    notices: Vec<QuotaNotice>,
    root: NodeId,
    cache: Option<CacheWriters>,
}

impl Attempt<'_> {
    fn make(
        &self,
        source: Source,
        threads: UploadThreads,
        commit: impl FnOnce(&NodeId) -> Commit,
    ) -> Result<Made, AgentError> {
        let (root, cache) = match source {
            Source::Paths { roots, options } => self.scan(&roots, *options)?,
            Source::Streams { streams, warnings, .. } => (self.streams(streams, &warnings)?, None),
        };
        let (snapshot, notices) = threads.finish(|| {
            self.tell_damage();
            commit(&root)
        })?;
        Ok(Made { snapshot, notices, root, cache })
    }

    fn scan(&self, roots: &[PathBuf], mut options: ScanOptions) -> Result<(NodeId, Option<CacheWriters>), AgentError> {
        options.own_directories.push(self.connection.folders.cache.clone());
        let scan = Scanner::new(roots, options).map_err(|error| AgentError::Usage(error.to_string()))?;
        let cache = self.cache_writers();
        let Some(base) = self.base else { return run_scan(self.run, scan, None, cache) };
        let root = root_of(base)?;
        let damaged: Result<_, _> = self.session.base_damaged.iter().map(|id| id.parse::<ObjectId>()).collect();
        let nodes = BaseNodes::open(self.folder, &root, self.connection.nodes(), damaged?)?;
        let files = FilesReader::open(self.folder, &root);
        let BundlePlan { lengths, again } = crate::cache::bundles::load(self.folder, &root);
        let cache = cache.map(|cache| CacheWriters { bundles: BundleUse::new(lengths), ..cache });
        run_scan(self.run, scan, Some(BaseView { nodes: &nodes, root, files, again }), cache)
    }

    /// Says what became of damaged objects of the base snapshot, once everything of this run is durable. A server that
    /// does not answer costs the line, not the backup.
    fn tell_damage(&self) {
        let before = self.session.base_damaged.len() as u64;
        if before == 0 {
            return;
        }
        let Ok(session) = self.connection.client.session(&self.connection.vault, &self.session.id) else { return };
        let left = session.base_damaged.len() as u64;
        add(&self.run.counters.objects_healed, before.saturating_sub(left));
        add(&self.run.counters.objects_still_damaged, left);
        if left == 0 {
            return;
        }
        for (path, what) in self.damaged_paths(&session).unwrap_or_default() {
            self.run.report.remark(&path, what);
        }
    }

    /// What stays damaged of the base snapshot, the first paths of it.
    fn damaged_paths(&self, session: &UploadSession) -> Result<Vec<(Vec<u8>, &'static str)>, AgentError> {
        let Some(base) = self.base else { return Ok(Vec::new()) };
        let root = root_of(base)?;
        let damaged: Result<_, _> = session.base_damaged.iter().map(|id| id.parse::<ObjectId>()).collect();
        let nodes = BaseNodes::open(self.folder, &root, self.connection.nodes(), damaged?)?;
        let mut cursor = Cursor::new(&nodes, root);
        let (mut paths, mut last) = (Vec::new(), PathKey::root());
        while paths.len() < DAMAGED_PATHS_MAX {
            match cursor.next() {
                Ok(None) => break,
                Ok(Some((key, entry))) => {
                    if !is_sound(&nodes, &entry)? {
                        paths.push((key.to_path(), CONTENT_STAYS_DAMAGED));
                    }
                    last = key;
                }
                // The cursor goes on behind the node.
                Err(error) if is_damage(&error) => paths.push((last.to_path(), ENTRIES_STAY_DAMAGED)),
                Err(error) => return Err(error),
            }
        }
        Ok(paths)
    }

    fn cache_writers(&self) -> Option<CacheWriters> {
        let create = || {
            private_folder(self.folder)?;
            remove_partials(self.folder);
            let files = FilesWriter::create(self.folder)?;
            Ok(CacheWriters { files, nodes: NodesWriter::create(self.folder)?, bundles: BundleUse::default() })
        };
        match create() {
            Ok(writers) => Some(writers),
            Err::<_, AgentError>(error) => {
                self.run.report.remark(b"", &format!("no cache, the next backup takes longer: {error}"));
                None
            }
        }
    }

    fn streams(&self, streams: Vec<Stream>, warnings: &[String]) -> Result<NodeId, AgentError> {
        for warning in warnings {
            self.run.report.warning(b"", warning);
            add(&self.run.counters.warnings, 1);
        }
        let mut keyed = Vec::with_capacity(streams.len());
        for stream in streams {
            let key = PathKey::new(std::iter::empty(), stream.name.as_bytes())
                .map_err(|_| AgentError::Usage(format!("{:?} cannot be the name of a file", stream.name)))?;
            keyed.push((key, stream));
        }
        keyed.sort_by(|one, other| one.0.cmp(&other.0));
        if !keyed.is_sorted_by(|one, other| one.0 < other.0) {
            return Err(AgentError::Usage("two streams have the same name".into()));
        }
        let mut assembler = Assembler::new(self.run, None, None)?;
        for (key, stream) in keyed {
            let entry = Box::new(self.stream(&stream.name, stream.input)?);
            assembler.take(Outcome { key, entry, body: Body::Ready, record: None, link: Link::None })?;
        }
        Ok(assembler.finish()?.0)
    }

    fn stream(&self, name: &str, input: StreamInput) -> Result<Entry, AgentError> {
        let mut input = OpenInput::new(input)?;
        add(&self.run.counters.files_opened, 1);
        let mut content = ContentWriter::new(self.run, self.run.profile)?;
        let stored = content.store(|buffer| input.read(buffer)).map_err(|error| match error {
            StoreError::Run(error) => error,
            StoreError::Read(ReadError::Io(error)) => AgentError::file(name, error),
            StoreError::Read(ReadError::Vanished) => AgentError::file(name, std::io::ErrorKind::NotFound.into()),
        })?;
        for line in input.finish()? {
            self.run.report.remark(name.as_bytes(), &line);
        }
        let kind = EntryKind::File {
            size: stored.size,
            content: stored.content,
            hash: stored.hash,
            profile: self.run.profile,
        };
        Ok(Entry {
            kind,
            mode: 0o600,
            uid: rustix::process::getuid().as_raw(),
            gid: rustix::process::getgid().as_raw(),
            user: Vec::new(),
            group: Vec::new(),
            mtime: self.started,
            xattrs: Vec::new(),
            link_group: None,
        })
    }
}

/// Text of a finished backup for people.
pub fn summary_text(result: &BackupResult) -> String {
    let counts = &result.counters;
    let seconds = result.duration_ms as f64 / 1000.0;
    format!(
        "snapshot {} of {}: {} files, {} directories, {} others, {}\n\
         read {} files ({}), {} unchanged; sent {} chunks, added {} in {seconds:.1} s{}",
        &result.snapshot.id,
        result.snapshot.series,
        counts.files,
        counts.directories,
        counts.others,
        human_bytes(counts.logical_bytes),
        counts.files_opened,
        human_bytes(counts.bytes_read),
        counts.files_unchanged,
        counts.chunks_sent,
        human_bytes(counts.bytes_added),
        if counts.warnings > 0 { format!("; {} warnings", counts.warnings) } else { String::new() },
    ) + &healing_text(counts)
}

/// What became of damage on the server, if there was any.
fn healing_text(counts: &Counts) -> String {
    match (counts.objects_healed, counts.objects_still_damaged) {
        (0, 0) => String::new(),
        (healed, 0) => format!("\n{healed} damaged objects of the last snapshot stored again, it is whole"),
        (healed, left) => format!(
            "\n{healed} damaged objects of the last snapshot stored again, {left} stay damaged in it: what they held has changed or gone"
        ),
    }
}

/// Text of a soft limit that is passed.
fn notice_text(notice: &QuotaNotice) -> String {
    let kind = match notice.kind {
        QuotaKind::Physical => "physical",
        QuotaKind::Logical => "logical",
    };
    let end = notice.hard_bytes.map(|hard| format!("; backups are refused above {}", human_bytes(hard)));
    format!(
        "the {kind} quota of {} is above its soft limit: {} of {} are used{}",
        notice.limit,
        human_bytes(notice.used_bytes),
        human_bytes(notice.soft_bytes),
        end.unwrap_or_default(),
    )
}

/// Whether a failure leaves something that the next run continues from.
pub fn resumable(error: &AgentError) -> bool {
    matches!(error, AgentError::Server(ClientError::Away { .. }) | AgentError::LostObjects { .. })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_series_does_not_depend_on_how_its_paths_were_typed() {
        let series = |paths: &[&str]| series_of_paths(&paths.iter().map(PathBuf::from).collect::<Vec<_>>());
        assert_eq!(series(&["/b/", "/a"]), "/a:/b");
        assert_eq!(series(&["/a", "/b", "/a/"]), "/a:/b");
        assert_eq!(series(&["/"]), "/");
    }
}
