//! From entries to bytes on disk: chunks are fetched in batches with several in flight, each once per batch however
//! many files use it, unpacked and verified by workers, and written in place.

use crate::budget::{Budget, Permit};
use crate::client::Client;
use crate::error::AgentError;
use crate::fs::FileWriter;
use crate::nodes::open_record;
use crate::report::Report;
use crate::stop::Stop;
use api::objects::{GET_IDS_MAX, Record};
use crossbeam_channel::{Receiver, Sender};
use parking_lot::Mutex;
use repo_format::FormatError;
use repo_format::compress::Decompressor;
use repo_format::id::{ChunkId, ObjectId, ObjectKind};
use repo_format::keys::IdKeys;
use std::collections::HashMap;
use std::collections::hash_map::Entry as MapEntry;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// File bytes asked for in one request.
const BATCH_BYTES: u64 = 16 << 20;
/// Places in files that one request may serve. Each may be a small file that is open meanwhile.
const BATCH_USES_MAX: usize = 512;
/// Batches waiting to be asked for.
const BATCHES_WAITING: usize = 1;
/// Requests in flight.
const FETCHERS: usize = 4;
/// Compressed bytes received and not yet written.
const RECEIVED_BYTES_MAX: u64 = 32 << 20;

/// A file being written by several threads. The last user completes it.
pub struct OpenFile {
    writer: FileWriter,
    failed: AtomicBool,
}

/// A run of bytes of a chunk, and where it goes.
struct Use {
    file: Arc<OpenFile>,
    file_offset: u64,
    chunk_offset: u32,
    len: u32,
}

#[derive(Default)]
struct Batch {
    ids: Vec<ObjectId>,
    uses: HashMap<ChunkId, Vec<Use>>,
    use_count: usize,
    bytes: u64,
}

struct Received {
    record: Record,
    uses: Vec<Use>,
    permit: Permit,
}

/// What was written.
#[derive(Default)]
pub struct Written {
    /// Files completed.
    pub files: AtomicU64,
    /// Bytes of file content written.
    pub bytes: AtomicU64,
    /// Bytes received from the server, compressed.
    pub received_bytes: AtomicU64,
    /// Files and attributes that could not be restored.
    pub failures: AtomicU64,
    /// The first failures by path, so that each file is named once.
    first: Mutex<()>,
}

/// What all threads of a restore share.
pub struct Restore {
    /// Speaks to the server.
    pub client: Client,
    /// Vault id.
    pub vault: String,
    /// Verify what comes.
    pub keys: Arc<IdKeys>,
    /// Ends all waits.
    pub stop: Stop,
    /// Tells people.
    pub report: Arc<Report>,
    /// Counts.
    pub written: Written,
}

impl Restore {
    /// A path that could not be restored; the rest goes on.
    pub fn failed(&self, path: &[u8], cause: &str) {
        let _order = self.written.first.lock();
        self.written.failures.fetch_add(1, Ordering::Relaxed);
        self.report.warning(path, cause);
    }

    fn file_failed(&self, file: &OpenFile, cause: &str) {
        if !file.failed.swap(true, Ordering::Relaxed) {
            self.failed(&file.writer.key().to_path(), cause);
        }
    }

    /// One user of a file is done with it; the last one completes it.
    pub fn release(&self, file: Arc<OpenFile>) -> Result<(), AgentError> {
        let Some(file) = Arc::into_inner(file) else { return Ok(()) };
        if file.failed.load(Ordering::Relaxed) {
            return Ok(());
        }
        let path = file.writer.key().to_path();
        match file.writer.finish() {
            Ok(()) => {
                self.written.files.fetch_add(1, Ordering::Relaxed);
                Ok(())
            }
            Err(error) if error.is_storage_full() => Err(AgentError::Usage(error.to_string())),
            Err(error) => {
                self.failed(&path, &error.to_string());
                Ok(())
            }
        }
    }

    /// Fetches one chunk now, e.g. an attribute's value.
    pub fn chunk(&self, id: &ChunkId) -> Result<Vec<u8>, AgentError> {
        let mut result = Err(crate::nodes::unavailable("chunk", &(*id).into(), "missing"));
        let mut decompressor = Decompressor::new()?;
        self.client.objects(&self.vault, &[(*id).into()], &mut |record| {
            result = open_chunk(&mut decompressor, &self.keys, &record);
            true
        })?;
        result
    }
}

/// Plaintext of a record that must be the chunk of its id.
pub fn open_chunk(decompressor: &mut Decompressor, keys: &IdKeys, record: &Record) -> Result<Vec<u8>, AgentError> {
    let plain = open_record(decompressor, record, ObjectKind::Chunk)?;
    if ObjectId::from(keys.chunk_id(&plain)) != record.id {
        return Err(FormatError::IdMismatch { what: "chunk" }.into());
    }
    Ok(plain)
}

/// Collects what is to be written, and passes it on batch by batch.
pub struct Planner<'r> {
    restore: &'r Restore,
    batch: Batch,
    batches: Sender<Batch>,
}

impl Planner<'_> {
    /// A file whose ranges are added next.
    pub fn open(&self, writer: FileWriter) -> Arc<OpenFile> {
        Arc::new(OpenFile { writer, failed: AtomicBool::new(false) })
    }

    /// Writes `len` bytes of `chunk` from `chunk_offset` on to `file_offset` of a file.
    pub fn add(
        &mut self,
        file: &Arc<OpenFile>,
        file_offset: u64,
        chunk: ChunkId,
        chunk_offset: u32,
        len: u32,
    ) -> Result<(), AgentError> {
        let place = Use { file: file.clone(), file_offset, chunk_offset, len };
        match self.batch.uses.entry(chunk) {
            MapEntry::Occupied(mut uses) => uses.get_mut().push(place),
            MapEntry::Vacant(uses) => {
                uses.insert(vec![place]);
                self.batch.ids.push(chunk.into());
            }
        }
        self.batch.bytes += u64::from(len);
        self.batch.use_count += 1;
        let full = self.batch.bytes >= BATCH_BYTES
            || self.batch.use_count >= BATCH_USES_MAX
            || self.batch.ids.len() >= GET_IDS_MAX;
        if full { self.send() } else { Ok(()) }
    }

    fn send(&mut self) -> Result<(), AgentError> {
        let batch = std::mem::take(&mut self.batch);
        if batch.ids.is_empty() {
            return Ok(());
        }
        self.batches.send(batch).map_err(|_| AgentError::Stopped)
    }

    /// A file that cannot be planned further.
    pub fn abandon(&self, file: Arc<OpenFile>, cause: &str) -> Result<(), AgentError> {
        self.restore.file_failed(&file, cause);
        self.restore.release(file)
    }
}

/// Runs `plan` while fetchers and workers carry out what it adds; returns when everything is written.
pub fn run(
    restore: &Restore,
    workers: usize,
    plan: impl FnOnce(&mut Planner<'_>) -> Result<(), AgentError>,
) -> Result<(), AgentError> {
    let (batch_sender, batch_receiver) = crossbeam_channel::bounded(BATCHES_WAITING);
    let (record_sender, record_receiver) = crossbeam_channel::unbounded();
    let budget = Budget::new(RECEIVED_BYTES_MAX, restore.stop.clone());
    let stopping = |result: Result<(), AgentError>| {
        if let Err(error) = result {
            restore.stop.fail(error);
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..FETCHERS {
            let (batches, records, budget) = (batch_receiver.clone(), record_sender.clone(), budget.clone());
            scope.spawn(move || stopping(fetch(restore, &batches, &records, &budget)));
        }
        for _ in 0..workers {
            let records = record_receiver.clone();
            scope.spawn(move || stopping(write(restore, &records)));
        }
        drop((batch_receiver, record_sender, record_receiver));
        let mut planner = Planner { restore, batch: Batch::default(), batches: batch_sender };
        stopping(plan(&mut planner).and_then(|()| planner.send()));
    });
    restore.stop.explain(Ok(()))
}

fn fetch(
    restore: &Restore,
    batches: &Receiver<Batch>,
    records: &Sender<Received>,
    budget: &Budget,
) -> Result<(), AgentError> {
    for mut batch in batches {
        restore.stop.check()?;
        let mut failure = None;
        restore.client.objects(&restore.vault, &batch.ids, &mut |record| {
            let uses = batch.uses.remove(&record.id.as_chunk()).unwrap_or_default();
            restore.written.received_bytes.fetch_add(record.payload.len() as u64, Ordering::Relaxed);
            let sent = budget
                .take(record.payload.len() as u64)
                .and_then(|permit| records.send(Received { record, uses, permit }).map_err(|_| AgentError::Stopped));
            match sent {
                Ok(()) => true,
                Err(error) => {
                    failure = Some(error);
                    false
                }
            }
        })?;
        if let Some(error) = failure {
            return Err(error);
        }
    }
    Ok(())
}

fn write(restore: &Restore, records: &Receiver<Received>) -> Result<(), AgentError> {
    let mut decompressor = Decompressor::new()?;
    for Received { record, uses, permit } in records {
        restore.stop.check()?;
        match open_chunk(&mut decompressor, &restore.keys, &record) {
            Ok(plain) => {
                drop((record, permit));
                for place in uses {
                    write_use(restore, &plain, place)?;
                }
            }
            Err(error) => {
                let cause = error.to_string();
                for place in uses {
                    restore.file_failed(&place.file, &cause);
                    restore.release(place.file)?;
                }
            }
        }
    }
    Ok(())
}

fn write_use(restore: &Restore, plain: &[u8], place: Use) -> Result<(), AgentError> {
    let Use { file, file_offset, chunk_offset, len } = place;
    let start = chunk_offset as usize;
    match start.checked_add(len as usize).and_then(|end| plain.get(start..end)) {
        None => restore.file_failed(&file, "its snapshot refers to bytes outside a chunk"),
        Some(bytes) => match file.writer.write_at(file_offset, bytes) {
            Ok(()) => {
                restore.written.bytes.fetch_add(bytes.len() as u64, Ordering::Relaxed);
            }
            Err(error) if error.is_storage_full() => return Err(AgentError::Usage(error.to_string())),
            Err(error) => restore.file_failed(&file, &error.to_string()),
        },
    }
    restore.release(file)
}
