//! The second stage: workers that read what must be read. Large files are stored here; small ones go on to be bundled
//! in order.

use super::content::{ContentWriter, StoreError, Stored};
use super::counters::add;
use super::walk::{Job, Link, Planned, Task};
use super::{Run, now};
use crate::budget::Permit;
use crate::cache::files::Remembered;
use crate::error::AgentError;
use crate::fs::{FileReader, FileStat, Metadata, MetadataReader, ReadError, ScanItem, SmallRead, read_small};
use bytes::Bytes;
use crossbeam_channel::{Receiver, Sender};
use repo_format::entry::{Content, Entry, EntryKind, PathKey, Profile, Time, XattrValue};
use repo_format::limits::BUNDLED_FILE_BYTES_MAX;

/// A finished job.
pub struct JobResult {
    /// Position in the order of jobs.
    pub number: u64,
    /// In key order.
    pub outcomes: Vec<Outcome>,
    /// Memory they take.
    pub permit: Permit,
}

/// What became of one object.
pub struct Outcome {
    /// Where it stands.
    pub key: PathKey,
    /// Its entry; without content while `body` is not `Ready`.
    pub entry: Box<Entry>,
    /// Where the content is.
    pub body: Body,
    /// To be remembered for the next run.
    pub record: Option<Remembered>,
    /// Its hard links.
    pub link: Link,
}

/// Where the content of an outcome is.
pub enum Body {
    /// The entry is complete.
    Ready,
    /// A small file to be bundled.
    Bundle(Vec<u8>),
    /// That of the first link of its group.
    OfLink,
}

/// Runs one worker until there are no more jobs.
pub fn work(
    run: &Run,
    metadata: &MetadataReader,
    jobs: &Receiver<Job>,
    results: &Sender<JobResult>,
) -> Result<(), AgentError> {
    let content = ContentWriter::new(run, run.profile)?;
    let mut worker = Worker { run, metadata, content };
    for job in jobs {
        run.stop.check()?;
        let mut outcomes = Vec::with_capacity(job.items.len());
        for planned in job.items {
            let path_key = planned.item.key.clone();
            match worker.process(planned) {
                Ok(outcome) => outcomes.push(outcome),
                Err(StoreError::Read(error)) => run.warn(&path_key.to_path(), &error.to_string()),
                Err(StoreError::Run(error)) => return Err(error),
            }
        }
        results
            .send(JobResult { number: job.number, outcomes, permit: job.permit })
            .map_err(|_| AgentError::Stopped)?;
    }
    Ok(())
}

struct Worker<'r> {
    run: &'r Run,
    metadata: &'r MetadataReader,
    content: ContentWriter<'r>,
}

impl Worker<'_> {
    fn process(&mut self, planned: Planned) -> Result<Outcome, StoreError> {
        let Planned { item, task, link } = planned;
        let seen_at = now();
        match task {
            Task::Reuse(entry) => Ok(self.reuse(item, entry, link)),
            Task::Rebundle(entry) => Ok(self.rebundle(item, entry, link)),
            Task::Metadata => {
                let record = record(&item.stat, seen_at);
                let metadata = self.read_metadata(&item)?;
                let entry = self.entry(&item, metadata, None)?;
                Ok(Outcome { key: item.key, entry, body: Body::Ready, record, link })
            }
            Task::SameAsLink => {
                let record = record(&item.stat, seen_at);
                let metadata = self.read_metadata(&item)?;
                let empty = no_content(&self.run.keys);
                let entry = self.entry(&item, metadata, Some(empty))?;
                Ok(Outcome { key: item.key, entry, body: Body::OfLink, record, link })
            }
            Task::Read(before) => self.read(item, before, link, seen_at),
        }
    }

    fn reuse(&self, item: ScanItem, entry: Box<Entry>, link: Link) -> Outcome {
        if matches!(entry.kind, EntryKind::File { .. }) {
            add(&self.run.counters.files_unchanged, 1);
        }
        let record = Some(Remembered::of(&item.stat));
        Outcome { key: item.key, entry, body: Body::Ready, record, link }
    }

    /// Reads an unchanged small file for a fresh bundle. What cannot be read, or is no longer what its status said,
    /// stays in the old one: the base snapshot has it, and the next run sees what has changed.
    fn rebundle(&self, item: ScanItem, entry: Box<Entry>, link: Link) -> Outcome {
        let EntryKind::File { hash, .. } = entry.kind else { return self.reuse(item, entry, link) };
        let mut data = Vec::new();
        let read = read_small(&item, BUNDLED_FILE_BYTES_MAX, &mut data);
        add(&self.run.counters.files_rebundled, 1);
        add(&self.run.counters.bytes_rebundled, data.len() as u64);
        let mut hasher = self.run.keys.content_hasher();
        hasher.data(&data);
        if !matches!(read, Ok(SmallRead::Whole(_))) || hasher.finish() != hash {
            return self.reuse(item, entry, link);
        }
        let record = Some(Remembered::of(&item.stat));
        Outcome { key: item.key, entry, body: Body::Bundle(data), record, link }
    }

    fn read_metadata(&self, item: &ScanItem) -> Result<Metadata, StoreError> {
        self.metadata.read(item).map_err(|error| {
            StoreError::Read(match error.kind() {
                std::io::ErrorKind::NotFound => ReadError::Vanished,
                _ => ReadError::Io(error),
            })
        })
    }

    fn read(
        &mut self,
        item: ScanItem,
        before: Option<Box<Entry>>,
        link: Link,
        seen_at: Time,
    ) -> Result<Outcome, StoreError> {
        add(&self.run.counters.files_opened, 1);
        let mut data = Vec::new();
        let reader = if item.stat.size <= BUNDLED_FILE_BYTES_MAX as u64 {
            match read_small(&item, BUNDLED_FILE_BYTES_MAX, &mut data).map_err(StoreError::Read)? {
                SmallRead::Whole(reader) => {
                    let metadata = self.metadata.read_open(&item, &reader);
                    let record = record(reader.stat(), seen_at);
                    return Ok(self.small(item, before, link, data, metadata, record)?);
                }
                SmallRead::Other(reader) => reader,
            }
        } else {
            FileReader::open(&item).map_err(StoreError::Read)?
        };
        self.large(item, before, link, reader, seen_at)
    }

    fn small(
        &mut self,
        item: ScanItem,
        before: Option<Box<Entry>>,
        link: Link,
        data: Vec<u8>,
        metadata: Metadata,
        record: Option<Remembered>,
    ) -> Result<Outcome, AgentError> {
        add(&self.run.counters.bytes_read, data.len() as u64);
        let mut hasher = self.run.keys.content_hasher();
        hasher.data(&data);
        let (size, hash, profile) = (data.len() as u64, hasher.finish(), Profile::Bundle);
        let fresh = EntryKind::File { size, content: Content::Inline(Vec::new()), hash, profile };
        let (kind, body) = match self.same_content(&before, &fresh) {
            Some(kind) => (kind, Body::Ready),
            None if data.is_empty() => (fresh, Body::Ready),
            None => (fresh, Body::Bundle(data)),
        };
        let entry = self.entry(&item, metadata, Some(kind))?;
        Ok(Outcome { key: item.key, entry, body, record, link })
    }

    fn large(
        &mut self,
        item: ScanItem,
        before: Option<Box<Entry>>,
        link: Link,
        mut reader: FileReader,
        seen_at: Time,
    ) -> Result<Outcome, StoreError> {
        let stored = self.content.store(|buffer| reader.next_piece(buffer))?;
        let metadata = self.metadata.read_open(&item, &reader);
        let stat = *reader.stat();
        let end = reader.finish().map_err(StoreError::Read)?;
        if end.changed {
            self.run.warn(&item.key.to_path(), "it changed while it was read");
        }
        let record = if end.changed { None } else { record(&stat, seen_at) };
        let Stored { content, hash, size } = stored;
        let fresh = EntryKind::File { size, content, hash, profile: self.run.profile };
        let kind = self.same_content(&before, &fresh).unwrap_or(fresh);
        let entry = self.entry(&item, metadata, Some(kind))?;
        Ok(Outcome { key: item.key, entry, body: Body::Ready, record, link })
    }

    /// The base entry's content, if it is the same: a lost cache costs time, never space.
    fn same_content(&self, before: &Option<Box<Entry>>, fresh: &EntryKind) -> Option<EntryKind> {
        let EntryKind::File { size, hash, .. } = fresh else { return None };
        match &before.as_ref()?.kind {
            EntryKind::File { size: old_size, hash: old_hash, content, profile }
                if (old_size, old_hash) == (size, hash) =>
            {
                add(&self.run.counters.files_same_content, 1);
                Some(EntryKind::File { size: *size, content: content.clone(), hash: *hash, profile: *profile })
            }
            _ => None,
        }
    }

    fn entry(&self, item: &ScanItem, metadata: Metadata, kind: Option<EntryKind>) -> Result<Box<Entry>, AgentError> {
        for (name, cause) in &metadata.unreadable_xattrs {
            let name = String::from_utf8_lossy(name);
            self.run.warn(&item.key.to_path(), &format!("extended attribute {name:?}: {cause}"));
        }
        let entry = metadata.into_entry(kind, |value| -> Result<XattrValue, AgentError> {
            let chunk = self.run.keys.chunk_id(value);
            self.run.uploader.chunk(chunk, value.len(), || Bytes::copy_from_slice(value))?;
            Ok(XattrValue::Chunk { chunk, len: value.len() as u32 })
        })?;
        entry.map(Box::new).ok_or(AgentError::Stopped)
    }
}

fn no_content(keys: &repo_format::keys::IdKeys) -> EntryKind {
    let hash = keys.content_hasher().finish();
    EntryKind::File { size: 0, content: Content::Inline(Vec::new()), hash, profile: Profile::Bundle }
}

/// What may be remembered of an object seen at `seen_at`. One that changed only just before could change again within
/// the same tick of the file system's clock; it is read again next time.
fn record(stat: &FileStat, seen_at: Time) -> Option<Remembered> {
    /// Clock ticks of file systems that keep nanoseconds, and of those that keep seconds only.
    const TICK_NS: i128 = 20_000_000;
    const COARSE_TICK_NS: i128 = 2_000_000_000;
    let nanoseconds = |time: Time| i128::from(time.seconds) * 1_000_000_000 + i128::from(time.nanoseconds);
    let tick = if stat.ctime.nanoseconds == 0 { COARSE_TICK_NS } else { TICK_NS };
    (nanoseconds(stat.ctime) + tick < nanoseconds(seen_at)).then(|| Remembered::of(stat))
}
