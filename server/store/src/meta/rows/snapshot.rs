//! Row of a snapshot: its state as the fold of the journal's records about it.

use super::{VERSION, take_text};
use repo_format::FormatError;
use repo_format::codec::{Reader, put_bytes, put_varint, put_varint_signed};
use repo_format::journal::CommitRecord;
use repo_format::limits::JOURNAL_RECORD_BYTES_MAX;
use repo_format::record::{BY_BYTES_MAX, TAG_BYTES_MAX, TAGS_MAX};
use std::ops::Deref;

const WHAT: &str = "snapshot row";
/// Version 1 was the commit record alone, which begins with a version byte of its own that is 1 as well.
const VERSION_STATES: u8 = 2;

/// Deleted, but it can be brought back.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SoftDeleted {
    /// When it was deleted, nanoseconds since 1970.
    pub deleted_ns: i64,
    /// Until when it can be brought back, nanoseconds since 1970; after that it is purged.
    pub until_ns: i64,
    /// Who asked, for people.
    pub by: String,
}

/// A snapshot and its state. Reads as its [`CommitRecord`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SnapshotRow {
    /// As committed; never changes.
    pub commit: CommitRecord,
    /// Set while it is softly deleted: no restore reads it and no upload builds on it.
    pub deleted: Option<SoftDeleted>,
    /// Nobody purges it before, nanoseconds since 1970.
    pub hold_until_ns: Option<i64>,
    /// Tags set after the upload; they replace those of the upload. `None`: never set.
    pub tags: Option<Vec<String>>,
}

impl Deref for SnapshotRow {
    type Target = CommitRecord;
    fn deref(&self) -> &CommitRecord {
        &self.commit
    }
}

impl SnapshotRow {
    /// A snapshot as its commit leaves it.
    pub(crate) const fn new(commit: CommitRecord) -> Self {
        SnapshotRow { commit, deleted: None, hold_until_ns: None, tags: None }
    }

    pub(crate) fn encode(&self) -> Result<Vec<u8>, FormatError> {
        let mut out = vec![VERSION_STATES];
        put_bytes(&mut out, &self.commit.encode()?);
        out.push(u8::from(self.deleted.is_some()));
        if let Some(deleted) = &self.deleted {
            put_varint_signed(&mut out, deleted.deleted_ns);
            put_varint_signed(&mut out, deleted.until_ns);
            put_bytes(&mut out, deleted.by.as_bytes());
        }
        out.push(u8::from(self.hold_until_ns.is_some()));
        if let Some(until_ns) = self.hold_until_ns {
            put_varint_signed(&mut out, until_ns);
        }
        out.push(u8::from(self.tags.is_some()));
        if let Some(tags) = &self.tags {
            put_varint(&mut out, tags.len() as u64);
            for tag in tags {
                put_bytes(&mut out, tag.as_bytes());
            }
        }
        Ok(out)
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        let mut reader = Reader::new(WHAT, bytes);
        match reader.u8()? {
            VERSION => return Ok(SnapshotRow::new(CommitRecord::decode(bytes)?)),
            VERSION_STATES => {}
            version => return Err(FormatError::UnsupportedVersion { what: WHAT, version: version.into() }),
        }
        let commit = CommitRecord::decode(reader.bytes_max("commit record bytes", JOURNAL_RECORD_BYTES_MAX)?)?;
        let deleted = match take_flag(&mut reader)? {
            true => Some(SoftDeleted {
                deleted_ns: reader.varint_signed()?,
                until_ns: reader.varint_signed()?,
                by: take_text(&mut reader, WHAT, BY_BYTES_MAX)?,
            }),
            false => None,
        };
        let hold_until_ns = if take_flag(&mut reader)? { Some(reader.varint_signed()?) } else { None };
        let tags = match take_flag(&mut reader)? {
            true => {
                let count = reader.varint_max("tags of a snapshot", TAGS_MAX)?;
                Some((0..count).map(|_| take_text(&mut reader, WHAT, TAG_BYTES_MAX)).collect::<Result<_, _>>()?)
            }
            false => None,
        };
        reader.finish()?;
        Ok(SnapshotRow { commit, deleted, hold_until_ns, tags })
    }
}

fn take_flag(reader: &mut Reader<'_>) -> Result<bool, FormatError> {
    match reader.u8()? {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(FormatError::invalid(WHAT, "neither set nor unset")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use repo_format::id::{NodeId, SnapshotId, UploadSessionId};

    fn commit() -> CommitRecord {
        CommitRecord {
            snapshot: SnapshotId::from_bytes([1; 16]),
            session: UploadSessionId::from_bytes([2; 16]),
            root: NodeId::from_bytes([3; 32]),
            committed_ns: 4,
            logical_bytes: 5,
            computer: "laptop".into(),
            series: "/home".into(),
            summary_json: b"{}".to_vec(),
        }
    }

    #[test]
    fn every_state_round_trips() {
        let deleted = SoftDeleted { deleted_ns: -7, until_ns: 8, by: "someone".into() };
        for deleted in [None, Some(deleted)] {
            for hold_until_ns in [None, Some(i64::MAX)] {
                for tags in [None, Some(vec![]), Some(vec!["a".to_owned(), "b".to_owned()])] {
                    let row = SnapshotRow { commit: commit(), deleted: deleted.clone(), hold_until_ns, tags };
                    let bytes = row.encode().unwrap();
                    assert_eq!(SnapshotRow::decode(&bytes).unwrap(), row);
                    for len in 0..bytes.len() {
                        assert!(SnapshotRow::decode(&bytes[..len]).is_err());
                    }
                }
            }
        }
    }

    #[test]
    fn rows_written_before_there_were_states_are_read() {
        assert_eq!(SnapshotRow::decode(&commit().encode().unwrap()).unwrap(), SnapshotRow::new(commit()));
    }
}
