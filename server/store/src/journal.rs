//! A vault's journal on disk: immutable segment files, each written under a temporary name, synced, renamed and never
//! touched again. So a segment is there whole or not at all, and one that does not read is damage, not a torn write.
//!
//! A file is named `GENERATION-EPOCH-SEQUENCE.journal` after its first record. A generation counts only when it is the
//! first one or has an end mark; the newest such generation is the journal.

use crate::error::{At, StoreError};
use crate::world::World;
use repo_format::FormatError;
use repo_format::crypto::Aead;
use repo_format::id::VaultId;
use repo_format::journal::{FIRST_PREVIOUS, JournalRecord, RecordKind, Segment, SegmentHeader, record_hash};
use repo_format::keyring::VaultKeys;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// A journal with fewer segments than this is not rewritten as a new generation.
const SEGMENTS_MIN: u64 = 512;
/// Largest segment read, bytes.
const SEGMENT_BYTES_MAX: u64 = 4 << 30;

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
    /// A write failed: the next change starts a new generation.
    broken: bool,
    /// Another object owns the files now.
    closed: bool,
}

/// Everything sealed and opened with.
#[derive(Clone, Copy)]
pub(crate) struct Sealing<'a> {
    pub(crate) aead: &'a dyn Aead,
    pub(crate) keys: &'a VaultKeys,
}

/// What the segments of one generation hold.
struct Generation {
    records: Vec<JournalRecord>,
    /// Sequence and hash of the last record, skipped ones included.
    tip: Option<(u64, [u8; 32])>,
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
    /// Opens the journal and hands every record, oldest first, to `each`.
    pub(crate) fn open(
        world: World,
        vault: VaultId,
        vault_directory: &Path,
        epoch: u32,
        sealing: Sealing<'_>,
        mut each: impl FnMut(JournalRecord) -> Result<(), StoreError>,
    ) -> Result<Self, StoreError> {
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
            broken: false,
            closed: false,
        };
        // The newest generation that is whole; what it replaced, and what was begun after it, no longer counts.
        for (generation, mut names) in generations.into_iter().rev() {
            names.sort_unstable();
            let read = journal.read_generation(&names, sealing)?;
            let ended = read.records.iter().any(|record| record.kind == RecordKind::GenerationEnd);
            if generation != 1 && !ended {
                continue;
            }
            journal.generation = generation;
            journal.generation_start = names.first().map_or(1, |name| name.sequence);
            journal.segments = names.len();
            if let Some((sequence, hash)) = read.tip {
                journal.sequence = sequence;
                journal.previous = hash;
            }
            for record in read.records {
                if record.kind != RecordKind::GenerationEnd {
                    each(record)?;
                }
            }
            break;
        }
        Ok(journal)
    }

    fn read_generation(&self, names: &[SegmentName], sealing: Sealing<'_>) -> Result<Generation, StoreError> {
        let mut read = Generation { records: Vec::new(), tip: None };
        for name in names {
            let path = name.path(&self.directory);
            let bytes = self.world.vfs.read(&path, SEGMENT_BYTES_MAX).at(&path)?;
            let segment = Segment::parse(&bytes).at(&path)?;
            if segment.header != (SegmentHeader { vault: self.vault, generation: name.generation }) {
                return Err(FormatError::invalid("journal", "a segment belongs to another vault or generation"))
                    .at(&path);
            }
            let mut first = true;
            let mut records = segment.records();
            for record in records.by_ref() {
                let record = record.at(&path)?;
                // Within a segment the chain is checked by its reader; here, from one segment to the next. A first
                // record that is skipped leaves the name, which carries its sequence, to be compared.
                let continues = match read.tip {
                    Some((sequence, hash)) if first && record.sequence == name.sequence => {
                        record.previous == hash && record.sequence == sequence + 1
                    }
                    Some((sequence, _)) if first => name.sequence == sequence + 1,
                    _ => true,
                };
                if !continues {
                    return Err(FormatError::invalid("journal", "a record does not continue the one before")).at(&path);
                }
                first = false;
                let key =
                    sealing.keys.data_key(record.key_epoch).ok_or(FormatError::Authentication { what: "journal" });
                read.records.push(record.open(sealing.aead, &self.vault, key.at(&path)?).at(&path)?);
            }
            match (records.tip(), read.tip) {
                (Some(tip), _) => read.tip = Some(tip),
                (None, _) => return Err(FormatError::invalid("journal", "a segment is empty")).at(&path),
            }
        }
        Ok(read)
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

    /// Whether a new generation must be written before the next record. Writing one costs as much as there are
    /// `snapshots`, so it is put off with their number.
    pub(crate) fn wants_generation(&self, snapshots: u64) -> bool {
        self.broken || self.segments as u64 >= SEGMENTS_MIN.max(snapshots / 4)
    }

    /// The rows lack something that was appended: a new generation, written from them, comes before the next record.
    pub(crate) const fn distrust(&mut self) {
        self.broken = true;
    }

    /// Appends records as one segment: on disk when this returns, all or none. Answers the sequence of the last. After
    /// an error it is not known whether they count: a new generation settles it.
    pub(crate) fn append(
        &mut self,
        sealing: Sealing<'_>,
        records: &[(RecordKind, Vec<u8>)],
    ) -> Result<u64, StoreError> {
        self.check_open()?;
        if self.broken {
            return Err(StoreError::Unknown("the journal awaits a new generation"));
        }
        let written = self.write_segment(sealing, self.generation, records);
        match written {
            Ok(()) => {
                self.segments += 1;
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
        let start = self.sequence + 1;
        self.write_segment(sealing, generation, &records)?;
        self.generation_start = start;
        self.broken = false;
        self.segments = 1;
        for name in self.world.vfs.list(&self.directory).at(&self.directory)? {
            if let Some(old) = SegmentName::parse(&name).filter(|name| name.generation < generation) {
                let path = old.path(&self.directory);
                self.world.vfs.remove_file(&path).at(&path)?;
            }
        }
        self.world.vfs.sync_dir(&self.directory).at(&self.directory)?;
        Ok(self.sequence)
    }

    fn write_segment(
        &mut self,
        sealing: Sealing<'_>,
        generation: u64,
        records: &[(RecordKind, Vec<u8>)],
    ) -> Result<(), StoreError> {
        let name = SegmentName { generation, epoch: self.epoch, sequence: self.sequence + 1 };
        let path = name.path(&self.directory);
        let key = sealing.keys.data.last().ok_or(FormatError::Authentication { what: "journal" })?;
        let mut bytes = SegmentHeader { vault: self.vault, generation }.encode().to_vec();
        let (mut sequence, mut previous) = (self.sequence, self.previous);
        for (kind, payload) in records {
            sequence += 1;
            let record = JournalRecord { kind: *kind, epoch: self.epoch, sequence, previous, payload: payload.clone() };
            let nonce = self.world.random_bytes().map_err(StoreError::Random)?;
            let sealed = record.seal(sealing.aead, &self.vault, key, &nonce)?;
            previous = record_hash(&sealed);
            bytes.extend_from_slice(&sealed);
        }
        self.world.vfs.replace(&path, &bytes).at(&path)?;
        self.sequence = sequence;
        self.previous = previous;
        Ok(())
    }
}

#[cfg(test)]
mod tests;
