//! The end of a restore: hard links once their objects are whole, then directories' metadata, deepest first.

use super::apply::{Problems, apply_open};
use super::conflict::{ConflictPolicy, Decision};
use super::pending::PendingDirectory;
use super::places::{Found, make_beside};
use super::report::{ProblemKind, RestoreReport};
use super::writer::{remove_if_same, rename_over};
use super::{Attributes, RestoreError, RestoreTarget};
use crate::fs::stat::FileKind;
use repo_format::FormatError;
use repo_format::codec::Reader;
use repo_format::entry::{PathKey, Time};
use repo_format::limits::KEY_BYTES_MAX;
use rustix::fd::OwnedFd;
use rustix::fs::{AtFlags, linkat};
use rustix::io::Errno;
use std::io;
use std::sync::Arc;

impl RestoreTarget {
    /// The end: makes the hard links, then gives directories their metadata, deepest first. Every file must have been
    /// finished or dropped.
    pub fn finish(self) -> Result<RestoreReport, RestoreError> {
        let damaged =
            |error: FormatError| RestoreError::TemporaryFile(io::Error::new(io::ErrorKind::InvalidData, error));
        while let Some(record) = self.links.lock().pop().map_err(RestoreError::TemporaryFile)? {
            let (group, mtime, key) = parse_link(&record).map_err(damaged)?;
            if let Err(error) = self.link(group, mtime, &key) {
                self.shared.problem(&key, ProblemKind::Link, error.to_string());
            }
        }
        while let Some(record) = self.directories.lock().pop().map_err(RestoreError::TemporaryFile)? {
            let PendingDirectory { key, attributes } = PendingDirectory::decode(&record).map_err(damaged)?;
            let problems = self.finish_directory(&key, &attributes);
            let problems = problems.unwrap_or_else(|error| vec![(ProblemKind::Mode, error.to_string())]);
            self.shared.problems(&key, problems);
        }
        Ok(self.report())
    }

    fn finish_directory(&self, key: &PathKey, attributes: &Attributes) -> io::Result<Problems> {
        match self.places.lock().directory(key)? {
            Found::Place(place) => {
                let fd: Arc<OwnedFd> = place.dir.fd()?;
                apply_open(&fd, None, attributes)
            }
            _ => Err(io::Error::new(io::ErrorKind::NotFound, "it was replaced while the restore ran")),
        }
    }

    fn link(&self, group: u64, mtime: Time, key: &PathKey) -> io::Result<()> {
        let first = self.shared.links.lock().first(group).cloned();
        let first = first.ok_or_else(|| io::Error::other("the object it links to was not restored"))?;
        let source = match self.places.lock().parent(&first.key, false)? {
            Found::Place(place) => place,
            _ => return Err(io::ErrorKind::NotFound.into()),
        };
        let place = match self.places.lock().parent(key, true)? {
            Found::Place(place) => place,
            Found::LeftOut => {
                self.left_out();
                return Ok(());
            }
            _ => return Err(io::ErrorKind::NotADirectory.into()),
        };
        let make = |name: &[u8]| -> Result<(), Errno> {
            let error = |error: io::Error| Errno::from_io_error(&error).unwrap_or(Errno::IO);
            let (from, to) = (source.dir.fd().map_err(error)?, place.dir.fd().map_err(error)?);
            linkat(&*from, first.name.as_slice(), &*to, name, AtFlags::empty())?;
            let made = place.dir.stat(name, false).map_err(error)?;
            if (made.dev, made.ino) != first.identity {
                // Somebody put another object under the first name; it is not ours to multiply.
                remove_if_same(&place, name, &made);
                return Err(Errno::STALE);
            }
            Ok(())
        };
        match make(key.name()) {
            Ok(()) => {
                self.count(false, false);
                return Ok(());
            }
            Err(Errno::EXIST) => {}
            Err(errno) => return Err(errno.into()),
        }
        let existing = place.dir.stat(key.name(), false)?;
        // The policy looks at the entry's kind and time only.
        let decision = match self.shared.options.on_conflict {
            ConflictPolicy::Stop => return Err(io::ErrorKind::AlreadyExists.into()),
            ConflictPolicy::Skip => Decision::Leave,
            ConflictPolicy::Newer if mtime <= existing.mtime => Decision::Leave,
            ConflictPolicy::KeepBoth => Decision::Beside,
            _ if existing.kind == FileKind::Directory => {
                self.shared.problem(key, ProblemKind::InTheWay, "it is not replaced");
                Decision::Leave
            }
            _ => Decision::Replace,
        };
        match decision {
            Decision::Replace => {
                let ((), at) = self.shared.make_temporary(make)?;
                rename_over(&place, &at, key.name())?;
                self.count(true, false);
            }
            Decision::Beside => {
                make_beside(key.name(), make)?;
                self.count(false, true);
            }
            _ => {
                self.left_out();
            }
        }
        Ok(())
    }
}

fn parse_link(record: &[u8]) -> Result<(u64, Time, PathKey), FormatError> {
    let mut reader = Reader::new("pending link", record);
    let group = reader.varint()?;
    let seconds = reader.varint_signed()?;
    let nanoseconds =
        u32::try_from(reader.varint()?).map_err(|_| FormatError::invalid("pending link", "nanoseconds"))?;
    let key = PathKey::from_encoded(reader.bytes_max("key", KEY_BYTES_MAX)?)?;
    reader.finish()?;
    Ok((group, Time { seconds, nanoseconds }, key))
}
