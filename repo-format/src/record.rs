//! Payloads of the journal records that follow a commit: what happened to a snapshot, to objects, to packs, to the
//! vault. Each begins with a version byte; nothing may follow the last field.

use crate::FormatError;
use crate::codec::{Reader, put_bytes, put_varint, put_varint_signed};
use crate::id::{ObjectId, PackId, SnapshotId};

const VERSION: u8 = 1;
/// Longest name of who asked, bytes.
pub const BY_BYTES_MAX: usize = 1 << 10;
/// Most tags of a snapshot.
pub const TAGS_MAX: usize = 64;
/// Longest tag, bytes.
pub const TAG_BYTES_MAX: usize = 256;
/// Most snapshots in one tombstone.
pub const TOMBSTONE_SNAPSHOTS_MAX: usize = 4096;
/// Most objects in one damage mark.
pub const DAMAGE_OBJECTS_MAX: usize = 4096;
/// Most packs in one drop.
pub const DROP_PACKS_MAX: usize = 4096;

/// Payload of [`RecordKind::SoftDelete`](crate::journal::RecordKind::SoftDelete).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SoftDeleteRecord {
    /// Deleted.
    pub snapshot: SnapshotId,
    /// When, nanoseconds since 1970.
    pub deleted_ns: i64,
    /// Until when it can be brought back.
    pub until_ns: i64,
    /// Who asked, for people.
    pub by: String,
}

/// Payload of [`RecordKind::Undelete`](crate::journal::RecordKind::Undelete).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct UndeleteRecord {
    /// Brought back.
    pub snapshot: SnapshotId,
}

/// Payload of [`RecordKind::Hold`](crate::journal::RecordKind::Hold).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct HoldRecord {
    /// Held.
    pub snapshot: SnapshotId,
    /// Nobody removes it before, nanoseconds since 1970; `None` lifts the hold.
    pub until_ns: Option<i64>,
}

/// Payload of [`RecordKind::Tag`](crate::journal::RecordKind::Tag): all tags of a snapshot from now on.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TagRecord {
    /// Tagged.
    pub snapshot: SnapshotId,
    /// Replaces what was there, the tags of its upload included.
    pub tags: Vec<String>,
}

/// Payload of [`RecordKind::Tombstone`](crate::journal::RecordKind::Tombstone): snapshots gone for good.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TombstoneRecord {
    /// Gone.
    pub snapshots: Vec<SnapshotId>,
}

/// An object whose frame at this place does not verify.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct DamagedFrame {
    /// The object.
    pub id: ObjectId,
    /// The pack that holds the frame.
    pub pack: PackId,
    /// Of the frame in the pack. With a sound frame elsewhere the mark no longer counts.
    pub offset: u32,
}

/// Payload of [`RecordKind::Damage`](crate::journal::RecordKind::Damage).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DamageRecord {
    /// Found damaged.
    pub frames: Vec<DamagedFrame>,
}

/// Payload of [`RecordKind::PackDrop`](crate::journal::RecordKind::PackDrop): nothing in these packs is needed; their
/// files are removed after this record is on disk.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PackDropRecord {
    /// Dropped.
    pub packs: Vec<PackId>,
}

/// Payload of [`RecordKind::VaultDeletion`](crate::journal::RecordKind::VaultDeletion).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct VaultDeletionRecord {
    /// When it was decided, nanoseconds since 1970.
    pub decided_ns: i64,
}

fn open<'a>(what: &'static str, bytes: &'a [u8]) -> Result<Reader<'a>, FormatError> {
    let mut reader = Reader::new(what, bytes);
    match reader.u8()? {
        VERSION => Ok(reader),
        version => Err(FormatError::UnsupportedVersion { what, version: version.into() }),
    }
}

fn check(quantity: &'static str, value: usize, limit: usize) -> Result<(), FormatError> {
    if value > limit {
        return Err(FormatError::Limit { what: quantity, value: value as u64, limit: limit as u64 });
    }
    Ok(())
}

fn take_text(reader: &mut Reader<'_>, quantity: &'static str, limit: usize) -> Result<String, FormatError> {
    let bytes = reader.bytes_max(quantity, limit)?;
    String::from_utf8(bytes.to_vec()).map_err(|_| FormatError::invalid(quantity, "text is not UTF-8"))
}

fn put_pack(out: &mut Vec<u8>, pack: &PackId) {
    out.extend_from_slice(&pack.epoch.to_le_bytes());
    out.extend_from_slice(&pack.sequence.to_le_bytes());
}

fn take_pack(reader: &mut Reader<'_>) -> Result<PackId, FormatError> {
    Ok(PackId { epoch: reader.u32()?, sequence: reader.u32()? })
}

impl SoftDeleteRecord {
    /// As stored.
    pub fn encode(&self) -> Result<Vec<u8>, FormatError> {
        check("name of who asked", self.by.len(), BY_BYTES_MAX)?;
        let mut out = vec![VERSION];
        out.extend_from_slice(self.snapshot.as_bytes());
        put_varint_signed(&mut out, self.deleted_ns);
        put_varint_signed(&mut out, self.until_ns);
        put_bytes(&mut out, self.by.as_bytes());
        Ok(out)
    }
    /// From what was stored.
    pub fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        let mut reader = open("soft delete record", bytes)?;
        let record = SoftDeleteRecord {
            snapshot: SnapshotId::from_bytes(reader.array()?),
            deleted_ns: reader.varint_signed()?,
            until_ns: reader.varint_signed()?,
            by: take_text(&mut reader, "name of who asked", BY_BYTES_MAX)?,
        };
        reader.finish()?;
        Ok(record)
    }
}

impl UndeleteRecord {
    /// As stored.
    pub fn encode(&self) -> Vec<u8> {
        [&[VERSION], self.snapshot.as_bytes().as_slice()].concat()
    }
    /// From what was stored.
    pub fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        let mut reader = open("undelete record", bytes)?;
        let record = UndeleteRecord { snapshot: SnapshotId::from_bytes(reader.array()?) };
        reader.finish()?;
        Ok(record)
    }
}

impl HoldRecord {
    /// As stored.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = [&[VERSION], self.snapshot.as_bytes().as_slice()].concat();
        out.push(u8::from(self.until_ns.is_some()));
        if let Some(until_ns) = self.until_ns {
            put_varint_signed(&mut out, until_ns);
        }
        out
    }
    /// From what was stored.
    pub fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        let mut reader = open("hold record", bytes)?;
        let snapshot = SnapshotId::from_bytes(reader.array()?);
        let until_ns = match reader.u8()? {
            0 => None,
            1 => Some(reader.varint_signed()?),
            _ => return Err(FormatError::invalid("hold record", "neither set nor lifted")),
        };
        reader.finish()?;
        Ok(HoldRecord { snapshot, until_ns })
    }
}

impl TagRecord {
    /// As stored.
    pub fn encode(&self) -> Result<Vec<u8>, FormatError> {
        check("tags of a snapshot", self.tags.len(), TAGS_MAX)?;
        let mut out = [&[VERSION], self.snapshot.as_bytes().as_slice()].concat();
        put_varint(&mut out, self.tags.len() as u64);
        for tag in &self.tags {
            check("tag bytes", tag.len(), TAG_BYTES_MAX)?;
            put_bytes(&mut out, tag.as_bytes());
        }
        Ok(out)
    }
    /// From what was stored.
    pub fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        let mut reader = open("tag record", bytes)?;
        let snapshot = SnapshotId::from_bytes(reader.array()?);
        let count = reader.varint_max("tags of a snapshot", TAGS_MAX)?;
        let tags = (0..count).map(|_| take_text(&mut reader, "tag bytes", TAG_BYTES_MAX)).collect::<Result<_, _>>()?;
        reader.finish()?;
        Ok(TagRecord { snapshot, tags })
    }
}

impl TombstoneRecord {
    /// As stored.
    pub fn encode(&self) -> Result<Vec<u8>, FormatError> {
        check("snapshots of a tombstone", self.snapshots.len(), TOMBSTONE_SNAPSHOTS_MAX)?;
        let mut out = vec![VERSION];
        put_varint(&mut out, self.snapshots.len() as u64);
        for snapshot in &self.snapshots {
            out.extend_from_slice(snapshot.as_bytes());
        }
        Ok(out)
    }
    /// From what was stored.
    pub fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        let mut reader = open("tombstone record", bytes)?;
        let count = reader.varint_max("snapshots of a tombstone", TOMBSTONE_SNAPSHOTS_MAX)?;
        let snapshots =
            (0..count).map(|_| Ok(SnapshotId::from_bytes(reader.array()?))).collect::<Result<_, FormatError>>()?;
        reader.finish()?;
        Ok(TombstoneRecord { snapshots })
    }
}

impl DamageRecord {
    /// As stored.
    pub fn encode(&self) -> Result<Vec<u8>, FormatError> {
        check("objects of a damage mark", self.frames.len(), DAMAGE_OBJECTS_MAX)?;
        let mut out = vec![VERSION];
        put_varint(&mut out, self.frames.len() as u64);
        for frame in &self.frames {
            out.extend_from_slice(frame.id.as_bytes());
            put_pack(&mut out, &frame.pack);
            out.extend_from_slice(&frame.offset.to_le_bytes());
        }
        Ok(out)
    }
    /// From what was stored.
    pub fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        let mut reader = open("damage record", bytes)?;
        let count = reader.varint_max("objects of a damage mark", DAMAGE_OBJECTS_MAX)?;
        let frames = (0..count)
            .map(|_| {
                let id = ObjectId::from_bytes(reader.array()?);
                Ok(DamagedFrame { id, pack: take_pack(&mut reader)?, offset: reader.u32()? })
            })
            .collect::<Result<_, FormatError>>()?;
        reader.finish()?;
        Ok(DamageRecord { frames })
    }
}

impl PackDropRecord {
    /// As stored.
    pub fn encode(&self) -> Result<Vec<u8>, FormatError> {
        check("packs of a drop", self.packs.len(), DROP_PACKS_MAX)?;
        let mut out = vec![VERSION];
        put_varint(&mut out, self.packs.len() as u64);
        for pack in &self.packs {
            put_pack(&mut out, pack);
        }
        Ok(out)
    }
    /// From what was stored.
    pub fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        let mut reader = open("pack drop record", bytes)?;
        let count = reader.varint_max("packs of a drop", DROP_PACKS_MAX)?;
        let packs = (0..count).map(|_| take_pack(&mut reader)).collect::<Result<_, _>>()?;
        reader.finish()?;
        Ok(PackDropRecord { packs })
    }
}

impl VaultDeletionRecord {
    /// As stored.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = vec![VERSION];
        put_varint_signed(&mut out, self.decided_ns);
        out
    }
    /// From what was stored.
    pub fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        let mut reader = open("vault deletion record", bytes)?;
        let decided_ns = reader.varint_signed()?;
        reader.finish()?;
        Ok(VaultDeletionRecord { decided_ns })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn records_round_trip(
            ids in proptest::collection::vec((any::<[u8; 32]>(), any::<u32>(), any::<u32>(), any::<u32>()), 0..20),
            snapshot in any::<[u8; 16]>(),
            times in (any::<i64>(), any::<i64>()),
            texts in proptest::collection::vec("\\PC{0,20}", 0..5),
        ) {
            let snapshot = SnapshotId::from_bytes(snapshot);
            let by = texts.first().cloned().unwrap_or_default();
            let deleted = SoftDeleteRecord { snapshot, deleted_ns: times.0, until_ns: times.1, by };
            prop_assert_eq!(SoftDeleteRecord::decode(&deleted.encode().unwrap()).unwrap(), deleted);
            let undelete = UndeleteRecord { snapshot };
            prop_assert_eq!(UndeleteRecord::decode(&undelete.encode()).unwrap(), undelete);
            for until_ns in [None, Some(times.0)] {
                let hold = HoldRecord { snapshot, until_ns };
                prop_assert_eq!(HoldRecord::decode(&hold.encode()).unwrap(), hold);
            }
            let tags = TagRecord { snapshot, tags: texts };
            prop_assert_eq!(TagRecord::decode(&tags.encode().unwrap()).unwrap(), tags);
            let gone = TombstoneRecord { snapshots: vec![snapshot; ids.len()] };
            prop_assert_eq!(TombstoneRecord::decode(&gone.encode().unwrap()).unwrap(), gone);
            let pack = |epoch: u32, sequence: u32| PackId { epoch, sequence };
            let frames = ids.iter().map(|(id, epoch, sequence, offset)| DamagedFrame {
                id: ObjectId::from_bytes(*id), pack: pack(*epoch, *sequence), offset: *offset,
            });
            let damage = DamageRecord { frames: frames.collect() };
            prop_assert_eq!(DamageRecord::decode(&damage.encode().unwrap()).unwrap(), damage);
            let drop = PackDropRecord { packs: ids.iter().map(|id| pack(id.1, id.2)).collect() };
            prop_assert_eq!(PackDropRecord::decode(&drop.encode().unwrap()).unwrap(), drop);
            let deletion = VaultDeletionRecord { decided_ns: times.0 };
            prop_assert_eq!(VaultDeletionRecord::decode(&deletion.encode()).unwrap(), deletion);
        }

        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..120)) {
            let _ = SoftDeleteRecord::decode(&bytes);
            let _ = UndeleteRecord::decode(&bytes);
            let _ = HoldRecord::decode(&bytes);
            let _ = TagRecord::decode(&bytes);
            let _ = TombstoneRecord::decode(&bytes);
            let _ = DamageRecord::decode(&bytes);
            let _ = PackDropRecord::decode(&bytes);
            let _ = VaultDeletionRecord::decode(&bytes);
        }
    }

    #[test]
    fn limits_hold_at_their_edge() {
        let snapshot = SnapshotId::from_bytes([1; 16]);
        let tags = |count: usize, len: usize| TagRecord { snapshot, tags: vec!["t".repeat(len); count] };
        assert!(tags(TAGS_MAX, TAG_BYTES_MAX).encode().is_ok());
        assert!(tags(TAGS_MAX + 1, 1).encode().is_err());
        assert!(tags(1, TAG_BYTES_MAX + 1).encode().is_err());
        assert!(TombstoneRecord { snapshots: vec![snapshot; TOMBSTONE_SNAPSHOTS_MAX] }.encode().is_ok());
        assert!(TombstoneRecord { snapshots: vec![snapshot; TOMBSTONE_SNAPSHOTS_MAX + 1] }.encode().is_err());
    }
}
