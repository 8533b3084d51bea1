//! The journal of a vault: segments of chained, sealed records that carry every acknowledged change of a snapshot's
//! state. Each record names the hash of the one before it, so nothing can be dropped from the middle unseen.

use crate::FormatError;
use crate::codec::{Reader, put_bytes};
use crate::crypto::{Aead, NONCE_BYTES, TAG_BYTES};
use crate::features::Features;
use crate::id::{NodeId, SnapshotId, UploadSessionId, VaultId};
use crate::keys::DataKey;
use crate::limits::JOURNAL_RECORD_BYTES_MAX;

/// First bytes of every segment.
pub const SEGMENT_MAGIC: [u8; 8] = *b"HFJRNL01";
/// Version of the journal this build reads and writes.
pub const JOURNAL_VERSION: u16 = 1;
/// Bytes of a segment header; the first record begins here.
pub const SEGMENT_HEADER_BYTES: usize = 64;
/// Bytes of a record before its sealed payload.
const RECORD_HEADER_BYTES: usize = 80;
/// Bytes a record adds to its payload: header, tag, CRC.
pub const RECORD_OVERHEAD_BYTES: usize = RECORD_HEADER_BYTES + TAG_BYTES + 4;
/// `previous` of the first record of a journal.
pub const FIRST_PREVIOUS: [u8; 32] = [0; 32];
/// Longest computer name in a commit record, bytes.
pub const COMPUTER_BYTES_MAX: usize = 1 << 10;
/// Longest series name in a commit record, bytes.
pub const SERIES_BYTES_MAX: usize = 128 << 10;
/// Longest summary in a commit record, bytes.
pub const SUMMARY_BYTES_MAX: usize = 512 << 10;

/// Flag: a build that does not know the kind may skip the record.
const FLAG_MAY_SKIP: u8 = 1;
/// How far ahead of the last good record a later one is looked for after damage.
const SEQUENCE_AHEAD_MAX: u64 = 1 << 20;

const SEGMENT: &str = "journal segment";
const RECORD: &str = "journal record";
const COMMIT: &str = "commit record";

const _: () = assert!(
    COMPUTER_BYTES_MAX + SERIES_BYTES_MAX + SUMMARY_BYTES_MAX + 1024 + RECORD_OVERHEAD_BYTES < JOURNAL_RECORD_BYTES_MAX
);

/// What a record says.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum RecordKind {
    /// A snapshot was committed; the payload is a [`CommitRecord`].
    Commit = 1,
    /// A snapshot was deleted but can still be brought back.
    SoftDelete = 2,
    /// A soft delete was taken back.
    Undelete = 3,
    /// A hold was set or lifted.
    Hold = 4,
    /// Tags were changed.
    Tag = 5,
    /// A snapshot is gone for good.
    Tombstone = 6,
    /// An object was found damaged.
    Damage = 7,
    /// The vault is going to be deleted.
    VaultDeletion = 8,
    /// The generation is complete; without this mark it does not count.
    GenerationEnd = 9,
    /// Packs nothing needs are about to be removed.
    PackDrop = 10,
}

impl RecordKind {
    /// From its byte on disk.
    pub fn from_byte(byte: u8) -> Result<Self, FormatError> {
        Ok(match byte {
            1 => RecordKind::Commit,
            2 => RecordKind::SoftDelete,
            3 => RecordKind::Undelete,
            4 => RecordKind::Hold,
            5 => RecordKind::Tag,
            6 => RecordKind::Tombstone,
            7 => RecordKind::Damage,
            8 => RecordKind::VaultDeletion,
            9 => RecordKind::GenerationEnd,
            10 => RecordKind::PackDrop,
            _ => {
                return Err(FormatError::invalid(
                    RECORD,
                    "unknown kind that must not be skipped; use a newer Holdfast",
                ));
            }
        })
    }
    /// The byte on disk.
    pub const fn byte(self) -> u8 {
        self as u8
    }
}

/// The start of a segment file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SegmentHeader {
    /// The vault it belongs to.
    pub vault: VaultId,
    /// Generation of the journal; a new one repeats every state and replaces the old one once it is complete.
    pub generation: u64,
}

impl SegmentHeader {
    /// As stored.
    pub fn encode(&self) -> [u8; SEGMENT_HEADER_BYTES] {
        let mut out = [0; SEGMENT_HEADER_BYTES];
        out[0..8].copy_from_slice(&SEGMENT_MAGIC);
        out[8..10].copy_from_slice(&JOURNAL_VERSION.to_le_bytes());
        out[12..24].copy_from_slice(&Features::default().to_bytes());
        out[24..40].copy_from_slice(self.vault.as_bytes());
        out[40..48].copy_from_slice(&self.generation.to_le_bytes());
        let crc = crc32c::crc32c(&out[..60]);
        out[60..].copy_from_slice(&crc.to_le_bytes());
        out
    }

    /// Reads the header from the first 64 bytes of `bytes`.
    pub fn parse(bytes: &[u8]) -> Result<Self, FormatError> {
        Self::parse_with_features(bytes).map(|(header, _)| header)
    }

    /// As [`SegmentHeader::parse`], with the feature bits, for those who want to continue the journal.
    pub fn parse_with_features(bytes: &[u8]) -> Result<(Self, Features), FormatError> {
        let bytes: &[u8; SEGMENT_HEADER_BYTES] = bytes.first_chunk().ok_or(FormatError::Truncated { what: SEGMENT })?;
        let mut reader = Reader::new(SEGMENT, bytes);
        if reader.array()? != SEGMENT_MAGIC {
            return Err(FormatError::BadMagic { what: SEGMENT });
        }
        if crc32c::crc32c(&bytes[..60]).to_le_bytes() != bytes[60..] {
            return Err(FormatError::Checksum { what: SEGMENT });
        }
        let version = reader.u16()?;
        if version != JOURNAL_VERSION {
            return Err(FormatError::UnsupportedVersion { what: SEGMENT, version: u32::from(version) });
        }
        let _reserved = reader.u16()?;
        let features = Features::read(&mut reader, SEGMENT)?;
        let header = SegmentHeader { vault: VaultId::from_bytes(reader.array()?), generation: reader.u64()? };
        Ok((header, features))
    }
}

/// A record as plaintext.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct JournalRecord {
    /// What it says.
    pub kind: RecordKind,
    /// Start of the server that wrote it.
    pub epoch: u32,
    /// Running number over the whole journal of the vault.
    pub sequence: u64,
    /// Hash of the record before it; [`FIRST_PREVIOUS`] for the very first.
    pub previous: [u8; 32],
    /// Plaintext, by kind.
    pub payload: Vec<u8>,
}

impl JournalRecord {
    /// The record as stored. Its hash, for the next one, is [`record_hash`] of these bytes. `nonce` is random and
    /// used for nothing else.
    pub fn seal(
        &self,
        aead: &dyn Aead,
        vault: &VaultId,
        key: &DataKey,
        nonce: &[u8; NONCE_BYTES],
    ) -> Result<Vec<u8>, FormatError> {
        seal_record(aead, vault, key, nonce, (self.kind.byte(), 0), self)
    }
}

/// Kind and flags are given apart, so that tests can write what a later version may write.
fn seal_record(
    aead: &dyn Aead,
    vault: &VaultId,
    key: &DataKey,
    nonce: &[u8; NONCE_BYTES],
    (kind, flags): (u8, u8),
    record: &JournalRecord,
) -> Result<Vec<u8>, FormatError> {
    let len = record.payload.len().saturating_add(RECORD_OVERHEAD_BYTES);
    if len > JOURNAL_RECORD_BYTES_MAX {
        return Err(record_too_long(len as u64));
    }
    let mut out = Vec::with_capacity(len);
    out.extend_from_slice(&(len as u32).to_le_bytes());
    out.extend_from_slice(&[kind, flags, 0, 0]);
    out.extend_from_slice(&record.epoch.to_le_bytes());
    out.extend_from_slice(&record.sequence.to_le_bytes());
    out.extend_from_slice(&record.previous);
    out.extend_from_slice(&key.epoch.to_le_bytes());
    out.extend_from_slice(nonce);
    let associated = associated_data(vault, &out);
    out.extend_from_slice(&record.payload);
    let tag = aead.seal_in_place(key.expose(), nonce, &associated, &mut out[RECORD_HEADER_BYTES..])?;
    out.extend_from_slice(&tag);
    let crc = crc32c::crc32c(&out);
    out.extend_from_slice(&crc.to_le_bytes());
    Ok(out)
}

fn record_too_long(value: u64) -> FormatError {
    FormatError::Limit { what: "journal record bytes", value, limit: JOURNAL_RECORD_BYTES_MAX as u64 }
}

/// What is authenticated with a payload: the vault and the whole record header.
fn associated_data(vault: &VaultId, header: &[u8]) -> Vec<u8> {
    [vault.as_bytes(), header].concat()
}

/// Hash of a stored record, which the next one carries.
pub fn record_hash(bytes: &[u8]) -> [u8; 32] {
    *blake3::hash(bytes).as_bytes()
}

/// A stored record of a known kind. Its CRC and lengths have been checked, its payload is still sealed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SealedRecord<'a> {
    /// What it says.
    pub kind: RecordKind,
    /// Start of the server that wrote it.
    pub epoch: u32,
    /// Running number over the whole journal of the vault.
    pub sequence: u64,
    /// Hash of the record before it.
    pub previous: [u8; 32],
    /// Data epoch of the key that sealed it.
    pub key_epoch: u32,
    nonce: [u8; NONCE_BYTES],
    bytes: &'a [u8],
}

impl<'a> SealedRecord<'a> {
    /// The whole record as stored.
    pub const fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// The record after authentication.
    pub fn open(&self, aead: &dyn Aead, vault: &VaultId, key: &DataKey) -> Result<JournalRecord, FormatError> {
        if key.epoch != self.key_epoch {
            return Err(FormatError::invalid(RECORD, "sealed in another key epoch than the key given"));
        }
        let cut = FormatError::Truncated { what: RECORD };
        let (header, rest) = self.bytes.split_at_checked(RECORD_HEADER_BYTES).ok_or(cut.clone())?;
        let (sealed, _crc) = rest.split_last_chunk::<4>().ok_or(cut)?;
        let mut payload = sealed.to_vec();
        aead.open(key.expose(), &self.nonce, &associated_data(vault, header), &mut payload)
            .map_err(|_| FormatError::Authentication { what: RECORD })?;
        Ok(JournalRecord {
            kind: self.kind,
            epoch: self.epoch,
            sequence: self.sequence,
            previous: self.previous,
            payload,
        })
    }
}

/// The fixed part of a record whose length and CRC are right.
struct RawRecord<'a> {
    kind: u8,
    flags: u8,
    epoch: u32,
    sequence: u64,
    previous: [u8; 32],
    key_epoch: u32,
    nonce: [u8; NONCE_BYTES],
    bytes: &'a [u8],
}

impl<'a> RawRecord<'a> {
    /// The record at the start of `bytes`, which may go on after it.
    fn parse(bytes: &'a [u8]) -> Result<Self, FormatError> {
        let mut reader = Reader::new(RECORD, bytes);
        let len = reader.u32()? as usize;
        if len > JOURNAL_RECORD_BYTES_MAX {
            return Err(record_too_long(len as u64));
        }
        if len < RECORD_OVERHEAD_BYTES {
            return Err(FormatError::invalid(RECORD, "shorter than its own header"));
        }
        let bytes = bytes.get(..len).ok_or(FormatError::Truncated { what: RECORD })?;
        let (covered, crc) = bytes.split_last_chunk::<4>().ok_or(FormatError::Truncated { what: RECORD })?;
        if crc32c::crc32c(covered).to_le_bytes() != *crc {
            return Err(FormatError::Checksum { what: RECORD });
        }
        let [kind, flags, _, _] = reader.array()?;
        Ok(RawRecord {
            kind,
            flags,
            epoch: reader.u32()?,
            sequence: reader.u64()?,
            previous: reader.array()?,
            key_epoch: reader.u32()?,
            nonce: reader.array()?,
            bytes,
        })
    }

    /// `None` for an unknown kind that may be skipped.
    fn known(self) -> Result<Option<SealedRecord<'a>>, FormatError> {
        let unknown_flags = self.flags & !FLAG_MAY_SKIP;
        if unknown_flags != 0 {
            return Err(FormatError::UnsupportedFeatures { what: RECORD, bits: u32::from(unknown_flags) });
        }
        let kind = match RecordKind::from_byte(self.kind) {
            Ok(kind) => kind,
            Err(_) if self.flags & FLAG_MAY_SKIP != 0 => return Ok(None),
            Err(error) => return Err(error),
        };
        let RawRecord { epoch, sequence, previous, key_epoch, nonce, bytes, .. } = self;
        Ok(Some(SealedRecord { kind, epoch, sequence, previous, key_epoch, nonce, bytes }))
    }
}

/// A whole record found by [`salvage`]: its CRC is right, whatever lies around it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FoundRecord<'a> {
    /// Where it begins, bytes from the start of the file.
    pub offset: usize,
    /// Where it ends.
    pub end: usize,
    /// Running number over the whole journal of the vault.
    pub sequence: u64,
    /// Hash of the record before it.
    pub previous: [u8; 32],
    /// Its own hash, which the next one carries.
    pub hash: [u8; 32],
    /// The record; `None` if its kind is unknown and may be skipped, an error if it must not be.
    pub record: Result<Option<SealedRecord<'a>>, FormatError>,
}

/// Every whole record in the bytes of a segment file, in order. The segment's header is not looked at, and behind
/// damage the next record is looked for byte by byte. Sequences below `first`, or far ahead of it, are no records of
/// this segment.
///
/// An undamaged segment is covered without gaps from [`SEGMENT_HEADER_BYTES`] to its end, each record one sequence
/// behind the one before and naming its hash. Bytes behind the last record are a torn tail, as a crash leaves it, or a
/// damaged record: only what else is known of the journal tells which.
pub fn salvage(bytes: &[u8], first: u64) -> Salvaged<'_> {
    Salvaged { bytes, offset: SEGMENT_HEADER_BYTES, plausible: first..=first.saturating_add(SEQUENCE_AHEAD_MAX) }
}

/// See [`salvage`].
#[derive(Clone, Debug)]
pub struct Salvaged<'a> {
    bytes: &'a [u8],
    offset: usize,
    plausible: std::ops::RangeInclusive<u64>,
}

impl<'a> Iterator for Salvaged<'a> {
    type Item = FoundRecord<'a>;

    fn next(&mut self) -> Option<Self::Item> {
        while let Some(rest) = self.bytes.get(self.offset..).filter(|rest| rest.len() >= RECORD_OVERHEAD_BYTES) {
            let offset = self.offset;
            // Sequence and length are looked at before the CRC, so the search stays close to linear.
            let sequence =
                rest.get(12..20).and_then(|bytes| bytes.first_chunk()).map(|bytes| u64::from_le_bytes(*bytes));
            if sequence.is_some_and(|sequence| self.plausible.contains(&sequence))
                && let Ok(raw) = RawRecord::parse(rest)
            {
                self.offset += raw.bytes.len();
                return Some(FoundRecord {
                    offset,
                    end: self.offset,
                    sequence: raw.sequence,
                    previous: raw.previous,
                    hash: record_hash(raw.bytes),
                    record: raw.known(),
                });
            }
            self.offset += 1;
        }
        None
    }
}

/// Payload of [`RecordKind::Commit`]: everything about a snapshot that is not in its tree.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CommitRecord {
    /// The snapshot.
    pub snapshot: SnapshotId,
    /// The upload session that made it; a commit is idempotent by it.
    pub session: UploadSessionId,
    /// Root of its path map.
    pub root: NodeId,
    /// When the server committed it, nanoseconds since 1970.
    pub committed_ns: i64,
    /// Bytes of all its files.
    pub logical_bytes: u64,
    /// Name of the computer, at most `COMPUTER_BYTES_MAX` bytes.
    pub computer: String,
    /// Name of the series, at most `SERIES_BYTES_MAX` bytes.
    pub series: String,
    /// What the agent says about the run, as JSON, at most `SUMMARY_BYTES_MAX` bytes; not interpreted here.
    pub summary_json: Vec<u8>,
}

impl CommitRecord {
    const VERSION: u8 = 1;

    /// As a record's payload.
    pub fn encode(&self) -> Result<Vec<u8>, FormatError> {
        for (what, len, limit) in [
            ("computer name bytes", self.computer.len(), COMPUTER_BYTES_MAX),
            ("series name bytes", self.series.len(), SERIES_BYTES_MAX),
            ("summary bytes", self.summary_json.len(), SUMMARY_BYTES_MAX),
        ] {
            if len > limit {
                return Err(FormatError::Limit { what, value: len as u64, limit: limit as u64 });
            }
        }
        let mut out = vec![Self::VERSION];
        out.extend_from_slice(self.snapshot.as_bytes());
        out.extend_from_slice(self.session.as_bytes());
        out.extend_from_slice(self.root.as_bytes());
        out.extend_from_slice(&self.committed_ns.to_le_bytes());
        out.extend_from_slice(&self.logical_bytes.to_le_bytes());
        put_bytes(&mut out, self.computer.as_bytes());
        put_bytes(&mut out, self.series.as_bytes());
        put_bytes(&mut out, &self.summary_json);
        Ok(out)
    }

    /// From a record's payload.
    pub fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        let mut reader = Reader::new(COMMIT, bytes);
        let version = reader.u8()?;
        if version != Self::VERSION {
            return Err(FormatError::UnsupportedVersion { what: COMMIT, version: u32::from(version) });
        }
        let text = |bytes: &[u8]| {
            std::str::from_utf8(bytes)
                .map(str::to_owned)
                .map_err(|_| FormatError::invalid(COMMIT, "a name is not UTF-8"))
        };
        let record = CommitRecord {
            snapshot: SnapshotId::from_bytes(reader.array()?),
            session: UploadSessionId::from_bytes(reader.array()?),
            root: NodeId::from_bytes(reader.array()?),
            committed_ns: i64::from_le_bytes(reader.array()?),
            logical_bytes: reader.u64()?,
            computer: text(reader.bytes_max("computer name bytes", COMPUTER_BYTES_MAX)?)?,
            series: text(reader.bytes_max("series name bytes", SERIES_BYTES_MAX)?)?,
            summary_json: reader.bytes_max("summary bytes", SUMMARY_BYTES_MAX)?.to_vec(),
        };
        reader.finish()?;
        Ok(record)
    }
}

#[cfg(test)]
mod tests;
