//! A vault's journal on disk: segment files, each written by one start of the server. A segment comes up whole, with its
//! first records, under a temporary name that is synced and renamed; later records are appended to it one at a time,
//! each on disk before it counts. So only the last record of a segment can be torn, by a crash; all else that does not
//! read is damage.
//!
//! A file is named `GENERATION-EPOCH-SEQUENCE.journal` after its first record. A generation counts only when it is the
//! first one or has an end mark; the newest such generation is the journal.

mod reading;

use crate::error::{At, StoreError};
use crate::world::{VfsFile, World};
use reading::Reading;
use repo_format::FormatError;
use repo_format::crypto::Aead;
use repo_format::id::VaultId;
use repo_format::journal::{FIRST_PREVIOUS, JournalRecord, RecordKind, SegmentHeader, record_hash};
use repo_format::keyring::VaultKeys;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A journal with so many segments is rewritten as a new generation.
const SEGMENTS_MAX: usize = 512;
/// A segment longer than this is not appended to, bytes.
const TAIL_BYTES_MAX: u64 = 1 << 20;

/// One vault's journal, open for appending.
pub(crate) struct Journal {
    world: World,
    vault: VaultId,
    directory: PathBuf,
    epoch: u32,
    generation: u64,
    /// Sequence of the generation's first record.
    generation_start: u64,
    /// Highest generation that any file carries, counted or not: a new one lies above it.
    generation_max: u64,
    sequence: u64,
    previous: [u8; 32],
    segments: usize,
    /// Records of the generation.
    records: u64,
    /// A write failed, or a segment is damaged: the next change starts a new generation.
    broken: bool,
    /// Another object owns the files now.
    closed: bool,
    /// The segment this process appends to.
    tail: Option<Tail>,
    /// Damaged files, to be set aside once a new generation replaces them.
    damaged: Vec<PathBuf>,
}

/// A segment that this process made, with all that is in it on disk.
struct Tail {
    file: Arc<dyn VfsFile>,
    path: PathBuf,
    len: u64,
}

/// A journal that was opened, and what it says.
pub(crate) struct Opened {
    pub(crate) journal: Journal,
    /// Records that the rows do not contain yet, oldest first.
    pub(crate) records: Vec<JournalRecord>,
    /// All that tell of dropped packs, whether the rows contain them or not.
    pub(crate) drops: Vec<JournalRecord>,
    /// What is damaged or missing, for people, by file.
    pub(crate) damage: Vec<String>,
}

/// Everything sealed and opened with.
#[derive(Clone, Copy)]
pub(crate) struct Sealing<'a> {
    pub(crate) aead: &'a dyn Aead,
    pub(crate) keys: &'a VaultKeys,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct SegmentName {
    generation: u64,
    sequence: u64,
    epoch: u32,
}

impl SegmentName {
    fn parse(name: &str) -> Option<Self> {
        let mut parts = name.strip_suffix(".journal")?.split('-');
        let generation = u64::from_str_radix(parts.next()?, 16).ok()?;
        let epoch = u32::from_str_radix(parts.next()?, 16).ok()?;
        let sequence = u64::from_str_radix(parts.next()?, 16).ok()?;
        parts.next().is_none().then_some(SegmentName { generation, sequence, epoch })
    }
    fn path(&self, directory: &Path) -> PathBuf {
        directory.join(format!("{:08x}-{:08x}-{:016x}.journal", self.generation, self.epoch, self.sequence))
    }
}

/// The epoch in a segment's file name, or `None` for a file that is not a segment.
pub(crate) fn epoch_of_segment(name: &str) -> Option<u32> {
    SegmentName::parse(name).map(|name| name.epoch)
}

/// Folder of a vault's journal.
pub(crate) fn journal_directory(vault_directory: &Path) -> PathBuf {
    vault_directory.join("journal")
}

impl Journal {
    /// Opens the journal. `covered` is the sequence up to which the rows contain it: damage below costs nothing, and
    /// the next change writes a new generation from the rows; damage beyond makes the vault unavailable, unless
    /// `go_on`, which leaves out what cannot be read. A file that is missing is no damage: it may be put back.
    pub(crate) fn open(
        world: World,
        vault: VaultId,
        vault_directory: &Path,
        epoch: u32,
        sealing: Sealing<'_>,
        covered: u64,
        go_on: bool,
    ) -> Result<Opened, StoreError> {
        let directory = journal_directory(vault_directory);
        let mut generations: BTreeMap<u64, Vec<SegmentName>> = BTreeMap::new();
        for name in world.vfs.list(&directory).at(&directory)? {
            if let Some(name) = SegmentName::parse(&name) {
                generations.entry(name.generation).or_default().push(name);
            }
        }
        let mut journal = Journal {
            world,
            vault,
            directory,
            epoch,
            generation: 1,
            generation_start: 1,
            generation_max: generations.keys().next_back().copied().unwrap_or(1),
            sequence: 0,
            previous: FIRST_PREVIOUS,
            segments: 0,
            records: 0,
            broken: false,
            closed: false,
            tail: None,
            damaged: Vec::new(),
        };
        let oldest = generations.keys().next().copied();
        // The newest generation that is whole; what it replaced, and what was begun after it, no longer counts.
        let (mut in_force, mut in_force_names) = (Reading::default(), Vec::new());
        for (generation, mut names) in generations.into_iter().rev() {
            names.sort_unstable();
            let reading = journal.read_generation(generation, &names, sealing, covered)?;
            if generation == 1 || reading.is_complete(oldest == Some(generation)) {
                journal.generation = generation;
                (in_force, in_force_names) = (reading, names);
                break;
            }
        }
        let opened = journal.take_over(in_force, covered, go_on)?;
        if !opened.records.is_empty() {
            opened.journal.sync_found(&in_force_names, covered)?;
        }
        Ok(opened)
    }

    /// Makes segments with records behind `covered` durable before the rows follow them: a killed process may have
    /// left their ends and their names in memory alone.
    fn sync_found(&self, names: &[SegmentName], covered: u64) -> Result<(), StoreError> {
        for (index, name) in names.iter().enumerate() {
            if names.get(index + 1).is_none_or(|next| next.sequence > covered + 1) {
                let path = name.path(&self.directory);
                self.world.vfs.open_write(&path).and_then(|file| file.sync_data()).at(&path)?;
            }
        }
        self.world.vfs.sync_dir(&self.directory).at(&self.directory)
    }

    /// Sequence of the first record of this generation, which repeats every state of the time it was written.
    pub(crate) const fn generation_start(&self) -> u64 {
        self.generation_start
    }

    /// Sequence of the last record.
    pub(crate) const fn sequence(&self) -> u64 {
        self.sequence
    }

    /// Nothing is written from now on.
    pub(crate) fn close(&mut self) {
        self.closed = true;
    }

    fn check_open(&self) -> Result<(), StoreError> {
        if self.closed { Err(StoreError::Unknown("the vault was closed meanwhile")) } else { Ok(()) }
    }

    /// Whether a new generation must be written before the next record: because only that puts the journal right, or
    /// because it has so many records.
    pub(crate) const fn wants_generation(&self, records_max: u64) -> bool {
        self.broken || self.segments >= SEGMENTS_MAX || self.records >= records_max
    }

    /// Whether a new generation would put something right: damage that was found, or a write that failed.
    pub(crate) const fn wants_healing(&self) -> bool {
        self.broken
    }

    /// The rows lack something that was appended: a new generation, written from them, comes before the next record.
    pub(crate) const fn distrust(&mut self) {
        self.broken = true;
    }

    /// Appends records: on disk when this returns, all or none. Answers the sequence of the last. After an error it is
    /// not known whether they count: a new generation settles it.
    pub(crate) fn append(
        &mut self,
        sealing: Sealing<'_>,
        records: &[(RecordKind, Vec<u8>)],
    ) -> Result<u64, StoreError> {
        self.check_open()?;
        if self.broken {
            return Err(StoreError::Unknown("the journal awaits a new generation"));
        }
        // Several records are all there or none only in a segment of their own.
        let tail = self.tail.take_if(|tail| records.len() == 1 && tail.len < TAIL_BYTES_MAX);
        let written = match tail {
            Some(tail) => self.extend(sealing, tail, records),
            None => self.write_segment(sealing, self.generation, records),
        };
        match written {
            Ok(tail) => {
                self.tail = tail;
                Ok(self.sequence)
            }
            Err(error) => {
                self.broken = true;
                tracing::error!(vault = %self.vault, %error, "a journal write failed; a new generation will settle it");
                Err(StoreError::Unknown("the journal could not be written"))
            }
        }
    }

    /// Replaces the journal by a new generation holding exactly `records`, then removes the old files.
    pub(crate) fn begin_generation(
        &mut self,
        sealing: Sealing<'_>,
        mut records: Vec<(RecordKind, Vec<u8>)>,
    ) -> Result<u64, StoreError> {
        self.check_open()?;
        records.push((RecordKind::GenerationEnd, Vec::new()));
        // Whatever became of a failed attempt's file, its number is never used again.
        let generation = self.generation_max.saturating_add(1);
        self.generation_max = generation;
        self.generation = generation;
        self.broken = true;
        self.previous = FIRST_PREVIOUS;
        self.tail = None;
        let start = self.sequence + 1;
        (self.segments, self.records) = (0, 0);
        self.write_segment(sealing, generation, &records)?;
        self.generation_start = start;
        self.broken = false;
        for path in std::mem::take(&mut self.damaged) {
            let mut aside = path.clone().into_os_string();
            aside.push(".damaged");
            self.world.vfs.rename(&path, Path::new(&aside)).at(&path)?;
        }
        for name in self.world.vfs.list(&self.directory).at(&self.directory)? {
            // Also what a crash left of a segment that never came up.
            let whole = name.strip_suffix(".new").unwrap_or(&name);
            if SegmentName::parse(whole).is_some_and(|name| name.generation < generation) {
                let path = self.directory.join(name);
                self.world.vfs.remove_file(&path).at(&path)?;
            }
        }
        self.world.vfs.sync_dir(&self.directory).at(&self.directory)?;
        Ok(self.sequence)
    }

    /// Makes a segment that comes up whole or not at all. Answers it to be appended to, if it can be.
    fn write_segment(
        &mut self,
        sealing: Sealing<'_>,
        generation: u64,
        records: &[(RecordKind, Vec<u8>)],
    ) -> Result<Option<Tail>, StoreError> {
        let name = SegmentName { generation, epoch: self.epoch, sequence: self.sequence + 1 };
        let path = name.path(&self.directory);
        let mut bytes = SegmentHeader { vault: self.vault, generation }.encode().to_vec();
        let tip = self.seal(sealing, records, &mut bytes)?;
        self.world.vfs.replace(&path, &bytes).at(&path)?;
        self.segments += 1;
        self.advance(tip, records);
        // The records are on disk: without a handle the next ones get a segment of their own.
        let file = self.world.vfs.open_write(&path).ok();
        Ok(file.map(|file| Tail { file, path, len: bytes.len() as u64 }))
    }

    /// Appends to a segment of this process: one write, one sync.
    fn extend(
        &mut self,
        sealing: Sealing<'_>,
        tail: Tail,
        records: &[(RecordKind, Vec<u8>)],
    ) -> Result<Option<Tail>, StoreError> {
        let mut bytes = Vec::new();
        let tip = self.seal(sealing, records, &mut bytes)?;
        tail.file.write_at(tail.len, &bytes).at(&tail.path)?;
        tail.file.sync_data().at(&tail.path)?;
        self.advance(tip, records);
        Ok(Some(Tail { len: tail.len + bytes.len() as u64, ..tail }))
    }

    /// Appends the sealed records to `bytes`; answers sequence and hash of the last.
    fn seal(
        &self,
        sealing: Sealing<'_>,
        records: &[(RecordKind, Vec<u8>)],
        bytes: &mut Vec<u8>,
    ) -> Result<(u64, [u8; 32]), StoreError> {
        let key = sealing.keys.data.last().ok_or(FormatError::Authentication { what: "journal" })?;
        let (mut sequence, mut previous) = (self.sequence, self.previous);
        for (kind, payload) in records {
            sequence += 1;
            let record = JournalRecord { kind: *kind, epoch: self.epoch, sequence, previous, payload: payload.clone() };
            let nonce = self.world.random_bytes().map_err(StoreError::Random)?;
            let sealed = record.seal(sealing.aead, &self.vault, key, &nonce)?;
            previous = record_hash(&sealed);
            bytes.extend_from_slice(&sealed);
        }
        Ok((sequence, previous))
    }

    fn advance(&mut self, (sequence, previous): (u64, [u8; 32]), records: &[(RecordKind, Vec<u8>)]) {
        self.sequence = sequence;
        self.previous = previous;
        self.records += records.len() as u64;
    }
}

#[cfg(test)]
mod tests;
