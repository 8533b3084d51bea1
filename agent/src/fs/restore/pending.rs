//! Work that waits for the end of a restore, last in first out, in bounded memory: directories to be given their
//! metadata once nothing is written into them any more, and hard links once their objects are whole.

use super::apply::Attributes;
use crate::fs::names::SpillPlace;
use crate::fs::xattr::RawXattr;
use repo_format::FormatError;
use repo_format::codec::{Reader, put_bytes, put_varint, put_varint_signed};
use repo_format::entry::{PathKey, Time};
use repo_format::limits::{KEY_BYTES_MAX, XATTRS_MAX};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// Memory of one such stack before it spills to a temporary file, bytes.
pub(super) const PENDING_BYTES_MAX: usize = 8 << 20;
/// Most bytes of one attribute value; what Linux allows.
const XATTR_VALUE_BYTES_MAX: usize = 64 << 10;

/// A stack of byte records.
pub(super) struct PendingStack {
    memory: Vec<u8>,
    bytes_max: usize,
    place: SpillPlace,
    file: Option<File>,
    /// Ends of the spilled blocks; each holds whole records.
    ends: Vec<u64>,
}

impl PendingStack {
    pub(super) fn new(bytes_max: usize, place: SpillPlace) -> Self {
        PendingStack { memory: Vec::new(), bytes_max, place, file: None, ends: Vec::new() }
    }

    pub(super) fn push(&mut self, record: &[u8]) -> io::Result<()> {
        let len = u32::try_from(record.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
        self.memory.extend_from_slice(record);
        self.memory.extend_from_slice(&len.to_le_bytes());
        if self.memory.len() <= self.bytes_max {
            return Ok(());
        }
        let start = self.ends.last().copied().unwrap_or(0);
        if self.file.is_none() {
            self.file = Some(self.place.create()?);
        }
        if let Some(file) = &self.file {
            file.write_all_at(&self.memory, start)?;
        }
        self.ends.push(start + self.memory.len() as u64);
        self.memory.clear();
        Ok(())
    }

    pub(super) fn pop(&mut self) -> io::Result<Option<Vec<u8>>> {
        if self.memory.is_empty()
            && let (Some(end), Some(file)) = (self.ends.pop(), &self.file)
        {
            let start = self.ends.last().copied().unwrap_or(0);
            self.memory.resize(usize::try_from(end - start).map_err(|_| io::ErrorKind::InvalidData)?, 0);
            file.read_exact_at(&mut self.memory, start)?;
        }
        let Some((rest, len)) = self.memory.split_last_chunk::<4>() else { return Ok(None) };
        let len = usize::try_from(u32::from_le_bytes(*len)).map_err(|_| io::ErrorKind::InvalidData)?;
        let start = rest.len().checked_sub(len).ok_or(io::ErrorKind::InvalidData)?;
        let record = rest[start..].to_vec();
        self.memory.truncate(start);
        Ok(Some(record))
    }
}

/// A directory that waits for its metadata.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct PendingDirectory {
    pub key: PathKey,
    pub attributes: Attributes,
}

impl PendingDirectory {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(128);
        put_bytes(&mut out, self.key.as_bytes());
        let attributes = &self.attributes;
        for number in [attributes.mode, attributes.uid, attributes.gid, attributes.mtime.nanoseconds] {
            put_varint(&mut out, u64::from(number));
        }
        put_varint_signed(&mut out, attributes.mtime.seconds);
        put_varint(&mut out, u64::from(attributes.replaces_xattrs));
        put_varint(&mut out, attributes.xattrs.len() as u64);
        for xattr in &attributes.xattrs {
            put_bytes(&mut out, &xattr.name);
            put_bytes(&mut out, &xattr.value);
        }
        out
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        let mut reader = Reader::new("pending directory", bytes);
        let key = PathKey::from_encoded(reader.bytes_max("key", KEY_BYTES_MAX)?)?;
        let mut number = || -> Result<u32, FormatError> {
            u32::try_from(reader.varint()?).map_err(|_| FormatError::invalid("pending directory", "number"))
        };
        let (mode, uid, gid, nanoseconds) = (number()?, number()?, number()?, number()?);
        let seconds = reader.varint_signed()?;
        let replaces_xattrs = reader.varint()? != 0;
        let count = reader.varint_max("attributes", XATTRS_MAX)?;
        let mut xattrs = Vec::with_capacity(count);
        for _ in 0..count {
            xattrs.push(RawXattr {
                name: reader.bytes_max("attribute name", XATTR_VALUE_BYTES_MAX)?.to_vec(),
                value: reader.bytes_max("attribute value", XATTR_VALUE_BYTES_MAX)?.to_vec(),
            });
        }
        reader.finish()?;
        let mtime = Time { seconds, nanoseconds };
        Ok(PendingDirectory { key, attributes: Attributes { mode, uid, gid, mtime, xattrs, replaces_xattrs } })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn last_in_first_out_spilled_or_not() {
        for bytes_max in [0, 100, 1 << 20] {
            let mut stack = PendingStack::new(bytes_max, SpillPlace::default());
            let record = |number: usize| vec![number as u8; number % 40];
            for number in 0..500 {
                stack.push(&record(number)).unwrap();
            }
            assert_eq!(stack.file.is_some(), bytes_max < 1000);
            for number in (0..500).rev() {
                assert_eq!(stack.pop().unwrap(), Some(record(number)));
            }
            assert_eq!(stack.pop().unwrap(), None);
        }
    }

    #[test]
    fn a_directory_survives_its_encoding() {
        let pending = PendingDirectory {
            key: PathKey::from_path(b"/a/\xff\n/c").unwrap(),
            attributes: Attributes {
                mode: 0o7777,
                uid: u32::MAX - 1,
                gid: 0,
                mtime: Time { seconds: -5_000_000_000, nanoseconds: 999_999_999 },
                xattrs: vec![RawXattr { name: b"user.x".to_vec(), value: vec![0; 5000] }],
                replaces_xattrs: true,
            },
        };
        assert_eq!(PendingDirectory::decode(&pending.encode()).unwrap(), pending);
        assert!(PendingDirectory::decode(&pending.encode()[..20]).is_err());
    }
}
