//! Keys and values of the index. The only place that builds a key; every value begins with a version.

mod damage;
mod snapshot;

pub(crate) use damage::DamageRow;
pub use snapshot::{SnapshotRow, SoftDeleted};

use repo_format::FormatError;
use repo_format::codec::{Reader, put_bytes, put_varint};
use repo_format::compress::Codec;
use repo_format::id::{NodeId, ObjectId, ObjectKind, PackId, SnapshotId, UploadSessionId};
use repo_format::pack::PackKind;

const VERSION: u8 = 1;
const TEXT_BYTES_MAX: usize = 64 << 10;

fn versioned() -> Vec<u8> {
    vec![VERSION]
}

fn open<'a>(what: &'static str, bytes: &'a [u8]) -> Result<Reader<'a>, FormatError> {
    let mut reader = Reader::new(what, bytes);
    match reader.u8()? {
        VERSION => Ok(reader),
        version => Err(FormatError::UnsupportedVersion { what, version: version.into() }),
    }
}

/// Where a frame is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, PartialOrd, Ord, Hash)]
pub(crate) struct Place {
    pub(crate) pack: PackId,
    /// Of the frame's header within the pack file.
    pub(crate) offset: u32,
    /// Header and stored bytes.
    pub(crate) frame_len: u32,
}

impl Place {
    pub(crate) const fn end(&self) -> u64 {
        self.offset as u64 + self.frame_len as u64
    }
}

/// Row of an object.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct ObjectRow {
    pub(crate) kind: ObjectKind,
    pub(crate) codec: Codec,
    /// Its frame does not verify: absent for uploads, and a new copy takes its place.
    pub(crate) damaged: bool,
    pub(crate) place: Place,
    pub(crate) plain_len: u32,
    /// Stored nodes that have it as a child, plus snapshots with it as root.
    pub(crate) references: u64,
    /// Bytes of file content below a node; zero for chunks.
    pub(crate) logical_bytes: u64,
}

impl ObjectRow {
    /// An object that something refers to and no pack has: damaged, and it gets a place when it is sent again. None
    /// of its children has a reference from it.
    pub(crate) const fn lost(kind: ObjectKind, logical_bytes: u64) -> Self {
        let place = Place { pack: PackId { epoch: 0, sequence: 0 }, offset: 0, frame_len: 0 };
        ObjectRow { kind, codec: Codec::Raw, damaged: true, place, plain_len: 0, references: 0, logical_bytes }
    }

    /// Whether it is in no pack.
    pub(crate) const fn is_lost(&self) -> bool {
        self.place.frame_len == 0
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = versioned();
        out.push(self.kind.byte());
        out.push(self.codec.byte());
        out.push(u8::from(self.damaged));
        put_pack(&mut out, &self.place.pack);
        put_varint(&mut out, self.place.offset.into());
        put_varint(&mut out, self.place.frame_len.into());
        put_varint(&mut out, self.plain_len.into());
        put_varint(&mut out, self.references);
        put_varint(&mut out, self.logical_bytes);
        out
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        let mut reader = open("object row", bytes)?;
        let row = ObjectRow {
            kind: ObjectKind::from_byte(reader.u8()?)?,
            codec: Codec::from_byte(reader.u8()?)?,
            damaged: reader.u8()? != 0,
            place: Place {
                pack: take_pack(&mut reader)?,
                offset: take_u32(&mut reader)?,
                frame_len: take_u32(&mut reader)?,
            },
            plain_len: take_u32(&mut reader)?,
            references: reader.varint()?,
            logical_bytes: reader.varint()?,
        };
        reader.finish()?;
        Ok(row)
    }
}

fn put_pack(out: &mut Vec<u8>, pack: &PackId) {
    put_varint(out, pack.epoch.into());
    put_varint(out, pack.sequence.into());
}

fn take_pack(reader: &mut Reader<'_>) -> Result<PackId, FormatError> {
    Ok(PackId { epoch: take_u32(reader)?, sequence: take_u32(reader)? })
}

fn take_u32(reader: &mut Reader<'_>) -> Result<u32, FormatError> {
    Ok(reader.varint_max("number", u32::MAX as usize)? as u32)
}

/// Life of a pack, as the index sees it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum PackState {
    /// Being appended to; found like this at start, it is adopted.
    Open = 1,
    /// Complete, with trailer, and every frame has its row (or is dead).
    Sealed = 2,
    /// Nothing in it is needed: the file is on its way out, and the row goes after it.
    Dropped = 3,
}

/// Row of a pack.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct PackRow {
    pub(crate) state: PackState,
    pub(crate) kind: PackKind,
    /// Bytes from the start known to be on disk.
    pub(crate) durable_len: u64,
    /// Bytes of frames that rows point to.
    pub(crate) live_bytes: u64,
    pub(crate) live_frames: u64,
    /// When every stripe was last verified, nanoseconds since 1970; zero = never.
    pub(crate) verified_ns: u64,
    /// Bytes of all frames ever written to it, dead ones included; set when it is sealed.
    pub(crate) frame_bytes: u64,
    /// When it was sealed, nanoseconds since 1970.
    pub(crate) sealed_ns: u64,
    /// How often its frames have been copied since they were uploaded.
    pub(crate) generation: u8,
    /// Compaction takes it first, however much of it is alive: something in it beside its frames is damaged.
    pub(crate) rewrite: bool,
}

/// Version 1 of the pack row ended with `verified_ns`.
const PACK_VERSION: u8 = 2;

impl PackRow {
    pub(crate) const fn new(kind: PackKind) -> Self {
        PackRow {
            state: PackState::Open,
            kind,
            durable_len: 0,
            live_bytes: 0,
            live_frames: 0,
            verified_ns: 0,
            frame_bytes: 0,
            sealed_ns: 0,
            generation: 0,
            rewrite: false,
        }
    }

    /// Bytes of frames that no row points to.
    pub(crate) const fn dead_bytes(&self) -> u64 {
        self.frame_bytes.saturating_sub(self.live_bytes)
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = vec![PACK_VERSION];
        out.push(self.state as u8);
        out.push(self.kind as u8);
        for number in
            [self.durable_len, self.live_bytes, self.live_frames, self.verified_ns, self.frame_bytes, self.sealed_ns]
        {
            put_varint(&mut out, number);
        }
        out.push(self.generation);
        out.push(u8::from(self.rewrite));
        out
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        let mut reader = Reader::new("pack row", bytes);
        let version = reader.u8()?;
        if version != VERSION && version != PACK_VERSION {
            return Err(FormatError::UnsupportedVersion { what: "pack row", version: version.into() });
        }
        let state = match reader.u8()? {
            1 => PackState::Open,
            2 => PackState::Sealed,
            3 => PackState::Dropped,
            _ => return Err(FormatError::invalid("pack row", "unknown state")),
        };
        let kind = PackKind::from_byte(reader.u8()?)?;
        let mut row = PackRow {
            state,
            durable_len: reader.varint()?,
            live_bytes: reader.varint()?,
            live_frames: reader.varint()?,
            verified_ns: reader.varint()?,
            ..PackRow::new(kind)
        };
        if version == PACK_VERSION {
            row.frame_bytes = reader.varint()?;
            row.sealed_ns = reader.varint()?;
            row.generation = reader.u8()?;
            row.rewrite = reader.u8()? != 0;
        } else {
            // Trailer and header are counted as dead: compaction settles it.
            row.frame_bytes = row.durable_len;
        }
        reader.finish()?;
        Ok(row)
    }
}

pub(crate) fn pack_key(pack: &PackId) -> [u8; 8] {
    let mut key = [0; 8];
    key[..4].copy_from_slice(&pack.epoch.to_be_bytes());
    key[4..].copy_from_slice(&pack.sequence.to_be_bytes());
    key
}

pub(crate) fn pack_of_key(key: &[u8]) -> Result<PackId, FormatError> {
    let mut reader = Reader::new("pack key", key);
    let pack = PackId { epoch: u32::from_be_bytes(reader.array()?), sequence: u32::from_be_bytes(reader.array()?) };
    reader.finish()?;
    Ok(pack)
}

/// Exact byte counts of a vault, written in the same batch as the rows they count.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Ledger {
    /// Frame bytes (headers included) of all object rows.
    pub physical_bytes: u64,
    /// File bytes summed over all snapshots, softly deleted ones included.
    pub logical_bytes: u64,
    /// The part of `logical_bytes` that is softly deleted: "held after deletion".
    pub deleted_logical_bytes: u64,
    /// Softly deleted snapshots.
    pub deleted_snapshots: u64,
    /// Frame bytes of objects with count zero.
    pub pending_bytes: u64,
    /// Chunk rows.
    pub chunks: u64,
    /// Node rows.
    pub nodes: u64,
    /// Snapshots, softly deleted ones included.
    pub snapshots: u64,
    /// Sequence of the last journal record folded into the rows.
    pub journal_sequence: u64,
}

/// Version 1 of the ledger row counted nothing that is softly deleted.
const LEDGER_VERSION: u8 = 2;

impl Ledger {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = vec![LEDGER_VERSION];
        for number in [
            self.physical_bytes,
            self.logical_bytes,
            self.pending_bytes,
            self.chunks,
            self.nodes,
            self.snapshots,
            self.journal_sequence,
            self.deleted_logical_bytes,
            self.deleted_snapshots,
        ] {
            put_varint(&mut out, number);
        }
        out
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        let mut reader = Reader::new("ledger row", bytes);
        let version = reader.u8()?;
        if version != VERSION && version != LEDGER_VERSION {
            return Err(FormatError::UnsupportedVersion { what: "ledger row", version: version.into() });
        }
        let ledger = Ledger {
            physical_bytes: reader.varint()?,
            logical_bytes: reader.varint()?,
            pending_bytes: reader.varint()?,
            chunks: reader.varint()?,
            nodes: reader.varint()?,
            snapshots: reader.varint()?,
            journal_sequence: reader.varint()?,
            deleted_logical_bytes: if version == VERSION { 0 } else { reader.varint()? },
            deleted_snapshots: if version == VERSION { 0 } else { reader.varint()? },
        };
        reader.finish()?;
        Ok(ledger)
    }

    /// A new object row with no references.
    pub(crate) fn add(&mut self, row: &ObjectRow) {
        self.physical_bytes += u64::from(row.place.frame_len);
        self.pending_bytes += u64::from(row.place.frame_len);
        match row.kind {
            ObjectKind::Chunk => self.chunks += 1,
            ObjectKind::Node => self.nodes += 1,
        }
    }

    /// A damaged frame's place is taken by another frame of the same object.
    pub(crate) fn replace(&mut self, old: &ObjectRow, new: &ObjectRow) {
        let (was, is) = (u64::from(old.place.frame_len), u64::from(new.place.frame_len));
        self.physical_bytes = (self.physical_bytes + is).saturating_sub(was);
        if old.references == 0 {
            self.pending_bytes = (self.pending_bytes + is).saturating_sub(was);
        }
    }

    /// Its row goes; it has no references.
    pub(crate) fn remove(&mut self, row: &ObjectRow) {
        let bytes = u64::from(row.place.frame_len);
        self.physical_bytes = self.physical_bytes.saturating_sub(bytes);
        self.pending_bytes = self.pending_bytes.saturating_sub(bytes);
        let count = match row.kind {
            ObjectKind::Chunk => &mut self.chunks,
            ObjectKind::Node => &mut self.nodes,
        };
        *count = count.saturating_sub(1);
    }

    /// Its first reference.
    pub(crate) fn referenced(&mut self, row: &ObjectRow) {
        self.pending_bytes = self.pending_bytes.saturating_sub(row.place.frame_len.into());
    }

    /// Its last reference is gone.
    pub(crate) fn unreferenced(&mut self, row: &ObjectRow) {
        self.pending_bytes += u64::from(row.place.frame_len);
    }

    /// A snapshot row comes up.
    pub(crate) fn snapshot_added(&mut self, row: &SnapshotRow) {
        self.snapshots += 1;
        self.logical_bytes += row.logical_bytes;
        if row.deleted.is_some() {
            self.deleted_snapshots += 1;
            self.deleted_logical_bytes += row.logical_bytes;
        }
    }

    /// A snapshot row goes.
    pub(crate) fn snapshot_gone(&mut self, row: &SnapshotRow) {
        self.snapshots = self.snapshots.saturating_sub(1);
        self.logical_bytes = self.logical_bytes.saturating_sub(row.logical_bytes);
        if row.deleted.is_some() {
            self.deleted_snapshots = self.deleted_snapshots.saturating_sub(1);
            self.deleted_logical_bytes = self.deleted_logical_bytes.saturating_sub(row.logical_bytes);
        }
    }
}

/// Key of the one ledger row.
pub(crate) const LEDGER_KEY: &[u8] = b"";

/// What a session row stands for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum SessionKind {
    /// An upload session.
    Upload = 0,
    /// A restore that holds the root it reads.
    Restore = 1,
}

/// Row of an upload session, or of a restore.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct SessionRow {
    pub(crate) kind: SessionKind,
    pub(crate) created_ns: i64,
    pub(crate) computer: String,
    pub(crate) series: String,
    /// Root of the base snapshot, or of the one being restored: held as long as the session lives.
    pub(crate) base_root: Option<NodeId>,
    /// What it was committed as.
    pub(crate) committed: Option<SnapshotId>,
}

/// Version of session rows that say what they stand for; those before are upload sessions.
const SESSION_VERSION: u8 = 2;

impl SessionRow {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = vec![SESSION_VERSION, self.kind as u8];
        repo_format::codec::put_varint_signed(&mut out, self.created_ns);
        put_bytes(&mut out, self.computer.as_bytes());
        put_bytes(&mut out, self.series.as_bytes());
        put_bytes(&mut out, self.base_root.as_ref().map_or(&[], |root| root.as_bytes()));
        put_bytes(&mut out, self.committed.as_ref().map_or(&[], |snapshot| snapshot.as_bytes()));
        out
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        let mut reader = Reader::new("session row", bytes);
        let kind = match reader.u8()? {
            VERSION => SessionKind::Upload,
            SESSION_VERSION => match reader.u8()? {
                0 => SessionKind::Upload,
                1 => SessionKind::Restore,
                _ => return Err(FormatError::invalid("session row", "unknown kind")),
            },
            version => return Err(FormatError::UnsupportedVersion { what: "session row", version: version.into() }),
        };
        let created_ns = reader.varint_signed()?;
        let computer = take_text(&mut reader, "session row", TEXT_BYTES_MAX)?;
        let series = take_text(&mut reader, "session row", TEXT_BYTES_MAX)?;
        let base_root = match reader.bytes_max("node id", 32)? {
            [] => None,
            id => Some(NodeId::from_slice(id)?),
        };
        let committed = match reader.bytes_max("snapshot id", 32)? {
            [] => None,
            id => Some(SnapshotId::from_slice(id)?),
        };
        reader.finish()?;
        Ok(SessionRow { kind, created_ns, computer, series, base_root, committed })
    }
}

fn take_text(reader: &mut Reader<'_>, what: &'static str, bytes_max: usize) -> Result<String, FormatError> {
    let bytes = reader.bytes_max("text", bytes_max)?;
    String::from_utf8(bytes.to_vec()).map_err(|_| FormatError::invalid(what, "text is not UTF-8"))
}

/// Key under which a session holds a node.
pub(crate) fn hold_key(session: &UploadSessionId, node: &ObjectId) -> Vec<u8> {
    let mut key = session.as_bytes().to_vec();
    key.extend_from_slice(node.as_bytes());
    key
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_round_trip() {
        let object = ObjectRow {
            kind: ObjectKind::Node,
            codec: Codec::Zstd,
            damaged: true,
            place: Place { pack: PackId { epoch: 7, sequence: u32::MAX }, offset: 64, frame_len: 1 << 22 },
            plain_len: 99,
            references: 1 << 40,
            logical_bytes: u64::MAX,
        };
        assert_eq!(ObjectRow::decode(&object.encode()).unwrap(), object);
        let mut pack = PackRow::new(PackKind::Node);
        pack.state = PackState::Sealed;
        pack.live_bytes = 5;
        (pack.frame_bytes, pack.sealed_ns, pack.generation, pack.rewrite) = (8, 1 << 60, 3, true);
        assert_eq!(PackRow::decode(&pack.encode()).unwrap(), pack);
        let ledger = Ledger {
            physical_bytes: 1,
            logical_bytes: 2,
            pending_bytes: 3,
            chunks: 4,
            nodes: 5,
            snapshots: 6,
            journal_sequence: 7,
            deleted_logical_bytes: 8,
            deleted_snapshots: 9,
        };
        assert_eq!(Ledger::decode(&ledger.encode()).unwrap(), ledger);
        let before_soft_deletes = [1, 1, 2, 3, 4, 5, 6, 7];
        let read = Ledger::decode(&before_soft_deletes).unwrap();
        assert_eq!(read, Ledger { deleted_logical_bytes: 0, deleted_snapshots: 0, ..ledger });
        let session = SessionRow {
            kind: SessionKind::Restore,
            created_ns: -1,
            computer: "laptop".into(),
            series: "/home".into(),
            base_root: Some(NodeId::from_bytes([3; 32])),
            committed: None,
        };
        assert_eq!(SessionRow::decode(&session.encode()).unwrap(), session);
        let pack = PackId { epoch: 1, sequence: 2 };
        assert_eq!(pack_of_key(&pack_key(&pack)).unwrap(), pack);
    }

    #[test]
    fn unknown_versions_are_refused() {
        assert!(matches!(Ledger::decode(&[9, 0, 0]), Err(FormatError::UnsupportedVersion { .. })));
    }
}
