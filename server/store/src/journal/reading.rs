//! Reading a journal that may be damaged: every whole record counts, whatever lies around it, and what is not there is
//! told by the gaps in the sequence.

use super::{Journal, Opened, Sealing, SegmentName};
use crate::error::{At, StoreError};
use repo_format::FormatError;
use repo_format::journal::{JournalRecord, RecordKind, SEGMENT_HEADER_BYTES, SegmentHeader, salvage};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

/// Largest segment read, bytes.
const SEGMENT_BYTES_MAX: u64 = 4 << 30;
/// What the system says when the medium cannot be read.
const EIO: i32 = 5;

/// A file of the journal that is not as it was written.
struct Damage {
    path: PathBuf,
    reason: String,
    /// Records that are nowhere.
    lost: Vec<RangeInclusive<u64>>,
}

/// What the segments of one generation hold.
#[derive(Default)]
pub(super) struct Reading {
    /// Those the rows do not contain, and those that tell of dropped packs.
    records: Vec<JournalRecord>,
    /// Sequence of the first.
    start: u64,
    /// Sequence and hash of the last record, skipped ones included.
    tip: Option<(u64, [u8; 32])>,
    count: u64,
    segments: usize,
    ended: bool,
    damaged: Vec<Damage>,
    /// Records that no file of the folder may have held.
    missing: Vec<RangeInclusive<u64>>,
    /// The last segment, if bytes at its end are no record and nothing says that they were one.
    torn: Option<PathBuf>,
}

/// A record, opened if the rows do not contain it, or if it tells of dropped packs.
struct Found {
    sequence: u64,
    previous: [u8; 32],
    hash: [u8; 32],
    kind: Option<RecordKind>,
    record: Option<JournalRecord>,
}

/// One file.
struct SegmentReading {
    name: SegmentName,
    path: PathBuf,
    found: Vec<Found>,
    /// What is wrong with it, whatever else the journal says.
    flaw: Option<String>,
    /// It ends with bytes that are no record: torn by a crash, or damaged.
    torn: bool,
    lost: Vec<RangeInclusive<u64>>,
}

impl SegmentReading {
    fn find_fault(&mut self, flaw: impl Into<String>) {
        self.flaw.get_or_insert(flaw.into());
    }
    /// Whether records may have been where now none can be read.
    const fn may_have_lost(&self) -> bool {
        self.flaw.is_some() || self.torn
    }
}

impl Reading {
    /// Whether the generation counts: its end mark is there, or is damaged for sure, because its predecessors are
    /// removed once it counts and nothing is appended before.
    pub(super) const fn is_complete(&self, is_oldest: bool) -> bool {
        self.ended || is_oldest || self.segments > 1
    }

    /// Says so when the end mark of a generation that counts is not there.
    fn miss_end_mark(&mut self, first: &SegmentName, directory: &Path) {
        if self.ended || !self.damaged.is_empty() {
            return;
        }
        self.torn = None;
        let mark = self.tip.map_or(first.sequence, |(tip, _)| tip + 1);
        self.damaged.push(Damage {
            path: first.path(directory),
            reason: "the end mark of its generation cannot be read".to_owned(),
            lost: vec![mark..=mark],
        });
    }
}

impl Journal {
    pub(super) fn read_generation(
        &self,
        generation: u64,
        names: &[SegmentName],
        sealing: Sealing<'_>,
        covered: u64,
    ) -> Result<Reading, StoreError> {
        let start = if generation == 1 { 1 } else { names.first().map_or(1, |name| name.sequence) };
        let mut reading = Reading { start, segments: names.len(), ..Reading::default() };
        let mut next = start;
        let mut before: Option<SegmentReading> = None;
        for name in names {
            let mut segment = self.read_segment(name, sealing, covered)?;
            for found in std::mem::take(&mut segment.found) {
                if found.sequence < next {
                    segment.find_fault("it repeats records");
                    continue;
                }
                if found.sequence > next {
                    let lost = next..=found.sequence - 1;
                    match before.as_mut().filter(|before| before.may_have_lost() && next < name.sequence) {
                        Some(before) => before.lost.push(lost),
                        None if segment.flaw.is_some() && next >= name.sequence => segment.lost.push(lost),
                        None => reading.missing.push(lost),
                    }
                }
                if reading.tip.is_some_and(|(tip, hash)| tip + 1 == found.sequence && hash != found.previous) {
                    segment.find_fault("a record does not continue the one before");
                    segment.lost.push(found.sequence..=found.sequence);
                }
                next = found.sequence + 1;
                reading.tip = Some((found.sequence, found.hash));
                reading.count += 1;
                reading.ended |= found.kind == Some(RecordKind::GenerationEnd);
                reading.records.extend(found.record);
            }
            if let Some(before) = before.replace(segment) {
                reading.take(before, false);
            }
        }
        if let Some(mut last) = before {
            // A segment comes up with a record in it, so one of which nothing is left has lost at least that.
            let named = if next <= last.name.sequence { last.name.sequence } else { 0 };
            let end = named.max(covered);
            if next <= end && last.may_have_lost() {
                last.lost.push(next..=end);
                next = end + 1;
            }
            reading.take(last, true);
        }
        if next <= covered {
            reading.missing.push(next..=covered);
        }
        if let Some(first) = names.first().filter(|_| generation != 1) {
            reading.miss_end_mark(first, &self.directory);
        }
        Ok(reading)
    }

    fn read_segment(
        &self,
        name: &SegmentName,
        sealing: Sealing<'_>,
        covered: u64,
    ) -> Result<SegmentReading, StoreError> {
        let path = name.path(&self.directory);
        let mut segment =
            SegmentReading { name: *name, path, found: Vec::new(), flaw: None, torn: false, lost: Vec::new() };
        let bytes = match self.world.vfs.read(&segment.path, SEGMENT_BYTES_MAX) {
            Ok(bytes) => bytes,
            Err(error) if error.raw_os_error() == Some(EIO) => {
                segment.find_fault(error.to_string());
                return Ok(segment);
            }
            Err(error) => return Err(error).at(&segment.path),
        };
        match SegmentHeader::parse(&bytes) {
            Ok(header) if header == (SegmentHeader { vault: self.vault, generation: name.generation }) => {}
            Ok(_) => {
                segment.find_fault("it belongs to another vault or generation");
                return Ok(segment);
            }
            Err(error @ (FormatError::UnsupportedVersion { .. } | FormatError::UnsupportedFeatures { .. })) => {
                return Err(error).at(&segment.path);
            }
            Err(error) => segment.find_fault(error.to_string()),
        }
        let mut end = SEGMENT_HEADER_BYTES;
        for found in salvage(&bytes, name.sequence) {
            if found.offset != end {
                segment.find_fault("bytes between its records are none");
            }
            end = found.end;
            // A kind or flag of a later version is no damage: the CRC is right.
            let sealed = found.record.at(&segment.path)?;
            let mut record = None;
            if let Some(sealed) =
                sealed.filter(|sealed| sealed.sequence > covered || sealed.kind == RecordKind::PackDrop)
            {
                let key = sealing.keys.data_key(sealed.key_epoch);
                let key = key.ok_or(FormatError::Authentication { what: "journal record" });
                match key.and_then(|key| sealed.open(sealing.aead, &self.vault, key)) {
                    Ok(opened) => record = Some(opened),
                    Err(error) => {
                        segment.find_fault(error.to_string());
                        continue;
                    }
                }
            }
            segment.found.push(Found {
                sequence: found.sequence,
                previous: found.previous,
                hash: found.hash,
                kind: sealed.map(|sealed| sealed.kind),
                record,
            });
        }
        if segment.found.is_empty() {
            segment.find_fault("it holds no record that can be read");
        }
        segment.torn = end < bytes.len();
        Ok(segment)
    }

    /// Goes on from what was read, if it can be gone on from.
    pub(super) fn take_over(mut self, reading: Reading, covered: u64, go_on: bool) -> Result<Opened, StoreError> {
        let mut reading = reading;
        if reading.tip.is_none() && reading.damaged.is_empty() && covered > 0 && reading.missing.is_empty() {
            reading.missing.push(1..=covered);
        }
        let (directory, vault) = (self.directory.display(), self.vault);
        let mut report = Vec::new();
        for missing in &reading.missing {
            let (first, last) = (missing.start(), missing.end());
            report.push(format!("{directory}: records {first} to {last} are missing"));
        }
        let mut beyond = false;
        for Damage { path, reason, lost } in &reading.damaged {
            let lost_beyond = lost.iter().find(|lost| *lost.end() > covered);
            beyond |= lost_beyond.is_some();
            let costs = match lost_beyond {
                Some(lost) => format!("records {} to {} are lost", lost.start().max(&(covered + 1)), lost.end()),
                None => "nothing is lost".to_owned(),
            };
            report.push(format!("{} is damaged: {reason}; {costs}", path.display()));
        }
        if !go_on && !reading.missing.is_empty() {
            let reason = format!(
                "its journal is shorter than the index remembers ({}); restore the missing journal files",
                report.join("; ")
            );
            return Err(StoreError::Unavailable { vault, reason });
        }
        if !go_on && beyond {
            let reason = format!(
                "its journal is damaged beyond what the index remembers ({}); put a good copy of the file back, or stop the server and run `holdfastd rebuild-index` to go on without what is lost",
                report.join("; ")
            );
            return Err(StoreError::Unavailable { vault, reason });
        }
        if let Some(path) = &reading.torn {
            let torn = format!(
                "{} ends with bytes that are no record: one that was being written when the server stopped, or a damaged one",
                path.display()
            );
            tracing::warn!(vault = %self.vault, "{torn}");
            if go_on {
                report.push(torn);
            }
        }
        for line in &report {
            tracing::error!(vault = %self.vault, "{line}");
        }
        self.generation_start = reading.start;
        self.segments = reading.segments;
        self.records = reading.count;
        if let Some((sequence, hash)) = reading.tip {
            (self.sequence, self.previous) = (sequence, hash);
        }
        self.damaged = reading.damaged.into_iter().map(|damage| damage.path).collect();
        if !self.damaged.is_empty() || !reading.missing.is_empty() {
            // What was appended after the last readable record must not be numbered again.
            self.sequence = self.sequence.max(covered);
            self.broken = true;
        }
        reading.records.retain(|record| record.kind != RecordKind::GenerationEnd);
        let is_drop = |record: &&JournalRecord| record.kind == RecordKind::PackDrop;
        let drops = reading.records.iter().filter(is_drop).cloned().collect();
        reading.records.retain(|record| record.sequence > covered);
        Ok(Opened { journal: self, records: reading.records, drops, damage: report })
    }
}

impl Reading {
    fn take(&mut self, segment: SegmentReading, is_last: bool) {
        let SegmentReading { path, flaw, torn, lost, .. } = segment;
        match flaw {
            Some(reason) => self.damaged.push(Damage { path, reason, lost }),
            None if !lost.is_empty() => {
                self.damaged.push(Damage { path, reason: "its end is no record".to_owned(), lost });
            }
            None if torn && is_last => self.torn = Some(path),
            None => {}
        }
    }
}
