//! Reading files: data and holes in order, and whether the file stood still meanwhile.

use super::dir::open_without_access_time;
use super::scan::ScanItem;
use super::stat::{FileKind, FileStat};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{OFlags, SeekFrom, fstat, seek};
use rustix::io::{Errno, pread};
use std::io;

const OPEN_FLAGS: OFlags = OFlags::RDONLY.union(OFlags::NOFOLLOW).union(OFlags::NONBLOCK).union(OFlags::CLOEXEC);
/// Files below this size are asked for holes only if they occupy less than their size: a hole in the shadow of
/// preallocated space is not worth two more calls per small file.
const SMALL_BYTES: u64 = 64 << 10;

/// Why a file could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// Gone, or something else stands under its name.
    #[error("it vanished or was replaced while the backup ran")]
    Vanished,
    /// Any other error of the system.
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl From<Errno> for ReadError {
    fn from(errno: Errno) -> Self {
        match errno {
            Errno::NOENT | Errno::LOOP => ReadError::Vanished,
            other => ReadError::Io(other.into()),
        }
    }
}

/// The next part of a file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Piece {
    /// This many bytes of data were put at the start of the buffer; never zero.
    Data(usize),
    /// A hole. Adjacent holes come as one.
    Hole {
        /// Where it starts.
        offset: u64,
        /// Bytes; never zero.
        len: u64,
    },
    /// Everything has been given.
    End,
}

/// How reading ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ReadEnd {
    /// Bytes given, holes included: the size the entry must have.
    pub size: u64,
    /// The file changed while it was read (size, modification or change time moved): what was given may be no state
    /// it ever had. To be reported, and read again if wanted.
    pub changed: bool,
}

/// One regular file open for reading from front to back.
#[derive(Debug)]
pub struct FileReader {
    fd: OwnedFd,
    stat: FileStat,
    position: u64,
    /// End of the data extent that `position` is in; equal to `position` when unknown.
    data_end: u64,
    /// Whether holes are looked for.
    seeks: bool,
}

fn open_file(item: &ScanItem) -> Result<OwnedFd, ReadError> {
    let dir = item.dir.fd().map_err(|error| match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => ReadError::Vanished,
        _ => ReadError::Io(error),
    })?;
    Ok(open_without_access_time(&*dir, item.name(), OPEN_FLAGS)?)
}

impl FileReader {
    /// Opens a scanned file; links are not followed, and it must still be the object that was scanned.
    pub fn open(item: &ScanItem) -> Result<Self, ReadError> {
        let fd = open_file(item)?;
        Self::from_fd(fd, item)
    }

    fn from_fd(fd: OwnedFd, item: &ScanItem) -> Result<Self, ReadError> {
        let stat = FileStat::from_raw(&fstat(&fd)?);
        if !stat.same_object(&item.stat) || stat.kind != FileKind::File {
            return Err(ReadError::Vanished);
        }
        let seeks = stat.size >= SMALL_BYTES || stat.allocated < stat.size;
        Ok(FileReader { fd, stat, position: 0, data_end: 0, seeks })
    }

    /// Status at opening. Its size bounds what is read, so a file that grows for ever ends.
    pub fn stat(&self) -> &FileStat {
        &self.stat
    }

    /// The next part of the file. `buffer` must not be empty; data fills as much of it as the extent has.
    pub fn next_piece(&mut self, buffer: &mut [u8]) -> Result<Piece, ReadError> {
        if self.position >= self.stat.size {
            return Ok(Piece::End);
        }
        if self.position == self.data_end
            && let Some(piece) = self.find_extent()?
        {
            return Ok(piece);
        }
        let want = usize::try_from(self.data_end - self.position).unwrap_or(usize::MAX).min(buffer.len());
        let buffer = buffer.get_mut(..want).unwrap_or_default();
        let mut filled = 0;
        while filled < buffer.len() {
            match pread(&self.fd, &mut buffer[filled..], self.position + filled as u64) {
                Ok(0) => {
                    // The file has become shorter: what was there is all there is.
                    self.stat.size = self.position + filled as u64;
                    break;
                }
                Ok(len) => filled += len,
                Err(Errno::INTR) => {}
                Err(errno) => return Err(ReadError::Io(errno.into())),
            }
        }
        self.position += filled as u64;
        self.data_end = self.data_end.min(self.stat.size);
        Ok(if filled == 0 { Piece::End } else { Piece::Data(filled) })
    }

    /// Finds the extent at `position`: sets `data_end`, or steps over a hole and returns it, or finds the end.
    fn find_extent(&mut self) -> Result<Option<Piece>, ReadError> {
        let size = self.stat.size;
        if !self.seeks {
            self.data_end = size;
            return Ok(None);
        }
        let offset = self.position;
        let data = match seek(&self.fd, SeekFrom::Data(offset)) {
            Ok(data) => data.min(size),
            // No data from here to the end, wherever that is now.
            Err(Errno::NXIO) => {
                let now = FileStat::from_raw(&fstat(&self.fd)?).size;
                self.stat.size = size.min(now.max(offset));
                if self.stat.size == offset {
                    return Ok(Some(Piece::End));
                }
                self.stat.size
            }
            // Not a file system that knows holes.
            Err(Errno::INVAL | Errno::OPNOTSUPP | Errno::NOSYS) => {
                self.seeks = false;
                self.data_end = size;
                return Ok(None);
            }
            Err(errno) => return Err(ReadError::Io(errno.into())),
        };
        if data > offset {
            self.position = data;
            self.data_end = data;
            return Ok(Some(Piece::Hole { offset, len: data - offset }));
        }
        self.data_end = match seek(&self.fd, SeekFrom::Hole(offset)) {
            Ok(hole) if hole > offset => hole.min(size),
            // A hole was made here just now, or the end moved; read on as data, the change is seen at the end.
            _ => size,
        };
        Ok(None)
    }

    /// Looks once more whether the file stood still. `scanned` is the status of the scan item, so that a change
    /// between scan and opening is noticed too by comparing with [`FileReader::stat`] (it is not counted here).
    pub fn finish(self) -> Result<ReadEnd, ReadError> {
        let after = FileStat::from_raw(&fstat(&self.fd)?);
        let whole = self.position == after.size;
        let changed = !whole || (after.mtime, after.ctime) != (self.stat.mtime, self.stat.ctime);
        Ok(ReadEnd { size: self.position, changed })
    }
}

impl AsFd for FileReader {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Result of [`read_small`].
#[derive(Debug)]
pub enum SmallRead {
    /// The buffer holds the whole file, and it is as the scan saw it, before and after.
    Whole(FileReader),
    /// It is larger than the buffer's bound, has holes, or has changed since the scan: read it with this.
    Other(FileReader),
}

/// Reads a file of at most `bytes_max` bytes into `buffer` (cleared first) with one open, one read and one status
/// call. The reader returned serves [`super::MetadataReader::read_open`].
pub fn read_small(item: &ScanItem, bytes_max: usize, buffer: &mut Vec<u8>) -> Result<SmallRead, ReadError> {
    buffer.clear();
    let fd = open_file(item)?;
    let size = usize::try_from(item.stat.size).unwrap_or(usize::MAX);
    if size > bytes_max || item.stat.allocated < item.stat.size || item.stat.kind != FileKind::File {
        return FileReader::from_fd(fd, item).map(SmallRead::Other);
    }
    // One byte more than expected shows growth without another call.
    buffer.resize(size + 1, 0);
    let len = loop {
        match pread(&fd, buffer.as_mut_slice(), 0) {
            Err(Errno::INTR) => {}
            other => break other,
        }
    };
    let mut reader = FileReader::from_fd(fd, item)?;
    let whole = len == Ok(size) && reader.stat.unchanged(&item.stat);
    buffer.truncate(if whole { size } else { 0 });
    if whole {
        reader.position = reader.stat.size;
        return Ok(SmallRead::Whole(reader));
    }
    match len {
        Err(errno) => Err(ReadError::Io(errno.into())),
        Ok(_) => Ok(SmallRead::Other(reader)),
    }
}

#[cfg(test)]
mod tests;
