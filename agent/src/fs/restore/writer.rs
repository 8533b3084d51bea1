//! Writes one file: ranges in any order, holes by leaving gaps, its metadata when the content is whole.

use super::apply::{Attributes, apply_open};
use super::links::{FirstLink, Role};
use super::places::Place;
use super::{RestoreError, Shared};
use crate::fs::fd_pool::Slot;
use crate::fs::stat::FileStat;
use repo_format::entry::PathKey;
use rustix::fd::OwnedFd;
use rustix::fs::{
    AtFlags, FallocateFlags, Mode, OFlags, RenameFlags, fallocate, fstat, ftruncate, openat, renameat, renameat_with,
    statat, unlinkat,
};
use rustix::io::{Errno, pwrite};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Permissions of a file until it is whole.
const SAFE_FILE_MODE: Mode = Mode::RUSR.union(Mode::WUSR);
const CREATE_FLAGS: OFlags =
    OFlags::WRONLY.union(OFlags::CREATE).union(OFlags::EXCL).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);
const REOPEN_FLAGS: OFlags = OFlags::WRONLY.union(OFlags::NOFOLLOW).union(OFlags::NONBLOCK).union(OFlags::CLOEXEC);

/// Creates a file that must not exist yet.
pub(super) fn create_exclusively(place: &Place, name: &[u8]) -> Result<OwnedFd, Errno> {
    let dir = place.dir.fd().map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))?;
    openat(&*dir, name, CREATE_FLAGS, SAFE_FILE_MODE)
}

/// Where a file goes when it is whole.
#[derive(Debug)]
pub(super) enum Destination {
    /// It has its name already.
    InPlace,
    /// To this name, which must be free.
    Free(Vec<u8>),
    /// To this name, replacing what is there.
    Over(Vec<u8>),
}

/// A file being restored. Its descriptor may be closed while nobody writes and is opened again when needed, so there
/// may be thousands of these. Dropped before [`FileWriter::finish`], it takes its unfinished file away.
///
/// Shared between threads as `Arc<FileWriter>`; the one for whom `Arc::into_inner` gives the writer finishes it.
#[derive(Debug)]
pub struct FileWriter {
    shared: Arc<Shared>,
    key: PathKey,
    place: Place,
    name: Vec<u8>,
    destination: Destination,
    slot: Arc<Slot>,
    stat: FileStat,
    attributes: Attributes,
    role: Role,
    size: u64,
    written_end: AtomicU64,
    done: bool,
}

pub(super) struct NewFile {
    pub key: PathKey,
    pub place: Place,
    pub name: Vec<u8>,
    pub destination: Destination,
    pub attributes: Attributes,
    pub role: Role,
    pub size: u64,
}

impl FileWriter {
    /// For a file just created and open as `fd`.
    pub(super) fn new(shared: Arc<Shared>, fd: OwnedFd, new: NewFile) -> Result<Self, RestoreError> {
        let stat = fstat(&fd).map_err(|errno| RestoreError::io(&new.key, errno.into()))?;
        let slot = shared.files.slot();
        slot.put(fd);
        let NewFile { key, place, name, destination, attributes, role, size } = new;
        Ok(FileWriter {
            shared,
            key,
            place,
            name,
            destination,
            slot,
            stat: FileStat::from_raw(&stat),
            attributes,
            role,
            size,
            written_end: AtomicU64::new(0),
            done: false,
        })
    }

    /// The entry's key.
    pub fn key(&self) -> &PathKey {
        &self.key
    }

    /// Bytes the file will have, holes included.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Closes the descriptor, as the pool does when others need theirs.
    #[cfg(test)]
    pub(super) fn close_for_test(&self) {
        self.slot.close();
    }

    fn fd(&self) -> io::Result<Arc<OwnedFd>> {
        self.slot.get_or_open(|| {
            let fd = openat(&*self.place.dir.fd()?, self.name.as_slice(), REOPEN_FLAGS, Mode::empty())?;
            let stat = FileStat::from_raw(&fstat(&fd)?);
            if stat.same_object(&self.stat) {
                Ok(fd)
            } else {
                Err(io::Error::new(io::ErrorKind::NotFound, "the file being restored was replaced"))
            }
        })
    }

    /// Writes `bytes` at `offset`. Ranges may come in any order and from several threads; what is never written
    /// stays a hole. Writing beyond the entry's size is an error.
    pub fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<(), RestoreError> {
        let error = |error| RestoreError::io(&self.key, error);
        let end = offset.checked_add(bytes.len() as u64).filter(|end| *end <= self.size);
        let Some(end) = end else {
            return Err(error(io::Error::new(io::ErrorKind::InvalidInput, "content beyond the end of the file")));
        };
        let fd = self.fd().map_err(error)?;
        let (mut rest, mut position) = (bytes, offset);
        while !rest.is_empty() {
            match pwrite(&*fd, rest, position) {
                Ok(0) => return Err(error(io::ErrorKind::WriteZero.into())),
                Ok(len) => {
                    rest = rest.get(len..).unwrap_or_default();
                    position += len as u64;
                }
                Err(Errno::INTR) => {}
                Err(errno) => return Err(error(errno.into())),
            }
        }
        self.written_end.fetch_max(end, Ordering::Relaxed);
        Ok(())
    }

    /// Reserves the whole file's space, so that a full disk shows at once and out-of-order writing does not scatter
    /// it. Only for a file without holes. Where the file system cannot, nothing happens.
    pub fn preallocate(&self) -> Result<(), RestoreError> {
        let error = |error| RestoreError::io(&self.key, error);
        if self.size == 0 {
            return Ok(());
        }
        match fallocate(&*self.fd().map_err(error)?, FallocateFlags::KEEP_SIZE, 0, self.size) {
            Err(errno @ (Errno::NOSPC | Errno::DQUOT)) => Err(error(errno.into())),
            _ => Ok(()),
        }
    }

    /// All content is written: gives the file its length, metadata and name.
    pub fn finish(mut self) -> Result<(), RestoreError> {
        let result = self.complete();
        let key = &self.key;
        match result {
            Ok(()) => {
                self.done = true;
                let name = match &self.destination {
                    Destination::InPlace => self.name.clone(),
                    Destination::Free(name) | Destination::Over(name) => name.clone(),
                };
                let identity = (self.stat.dev, self.stat.ino);
                self.shared.links.lock().whole(self.role, FirstLink { key: key.clone(), name, identity });
                let mut report = self.shared.report.lock();
                report.created += 1;
                report.replaced += u64::from(matches!(self.destination, Destination::Over(_)));
                Ok(())
            }
            Err(error) => Err(RestoreError::io(key, error)),
        }
    }

    fn complete(&self) -> io::Result<()> {
        let fd = self.fd()?;
        if self.written_end.load(Ordering::Relaxed) < self.size {
            ftruncate(&*fd, self.size)?;
        }
        // Its owner may have been inherited, nothing else can have changed since creation.
        let problems = apply_open(&fd, Some(self.stat), &self.attributes)?;
        self.shared.problems(&self.key, problems);
        match &self.destination {
            Destination::InPlace => Ok(()),
            Destination::Free(name) => rename_to_free(&self.place, &self.name, name),
            Destination::Over(name) => rename_over(&self.place, &self.name, name),
        }
    }
}

impl Drop for FileWriter {
    fn drop(&mut self) {
        if self.done {
            return;
        }
        self.shared.links.lock().failed(self.role);
        remove_if_same(&self.place, &self.name, &self.stat);
    }
}

/// Removes `name` if it is still the object that this restore made.
pub(super) fn remove_if_same(place: &Place, name: &[u8], made: &FileStat) {
    let Ok(dir) = place.dir.fd() else { return };
    let still = statat(&*dir, name, AtFlags::SYMLINK_NOFOLLOW).is_ok_and(|s| FileStat::from_raw(&s).same_object(made));
    if still {
        // What cannot be removed stays under its temporary name; the error that led here is reported.
        let _ = unlinkat(&*dir, name, AtFlags::empty());
    }
}

/// Renames to a name that must be free.
pub(super) fn rename_to_free(place: &Place, from: &[u8], to: &[u8]) -> io::Result<()> {
    let dir = place.dir.fd()?;
    match renameat_with(&*dir, from, &*dir, to, RenameFlags::NOREPLACE) {
        Ok(()) => Ok(()),
        // A file system that cannot promise it.
        Err(Errno::INVAL | Errno::NOSYS) => match statat(&*dir, to, AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOENT) => Ok(renameat(&*dir, from, &*dir, to)?),
            Ok(_) => Err(io::ErrorKind::AlreadyExists.into()),
            Err(errno) => Err(errno.into()),
        },
        Err(errno) => Err(errno.into()),
    }
}

/// Renames over whatever is there (never a directory: the system refuses).
pub(super) fn rename_over(place: &Place, from: &[u8], to: &[u8]) -> io::Result<()> {
    let dir = place.dir.fd()?;
    renameat(&*dir, from, &*dir, to)?;
    // Two names of one object: then the system renames nothing and says nothing.
    match unlinkat(&*dir, from, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}
