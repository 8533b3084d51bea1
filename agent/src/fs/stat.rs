//! What the file system says about one object, in our own types.

use repo_format::entry::Time;
use rustix::fs::{FileType, Stat};

/// Kind of a file system object.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum FileKind {
    /// Regular file.
    File,
    /// Directory.
    Directory,
    /// Symbolic link.
    Symlink,
    /// Named pipe.
    Fifo,
    /// Socket.
    Socket,
    /// Character device.
    CharDevice,
    /// Block device.
    BlockDevice,
    /// Something this system knows and we do not; reported and left out.
    Unknown,
}

impl FileKind {
    fn from_raw(raw: FileType) -> Self {
        match raw {
            FileType::RegularFile => FileKind::File,
            FileType::Directory => FileKind::Directory,
            FileType::Symlink => FileKind::Symlink,
            FileType::Fifo => FileKind::Fifo,
            FileType::Socket => FileKind::Socket,
            FileType::CharacterDevice => FileKind::CharDevice,
            FileType::BlockDevice => FileKind::BlockDevice,
            FileType::Unknown => FileKind::Unknown,
        }
    }
}

/// The status of an object at one moment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FileStat {
    /// What it is.
    pub kind: FileKind,
    /// Device it lives on.
    pub dev: u64,
    /// Inode number on that device.
    pub ino: u64,
    /// Number of hard links.
    pub nlink: u64,
    /// Bytes.
    pub size: u64,
    /// Bytes allocated; below `size` when there are holes (or the file system compresses).
    pub allocated: u64,
    /// Permission bits, `07777`.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Modification time.
    pub mtime: Time,
    /// Status change time: moves with every change of content or metadata, and nobody can set it.
    pub ctime: Time,
    /// Device number of a device node, else zero.
    pub rdev: u64,
}

impl FileStat {
    /// The widths of the raw fields differ between systems.
    #[allow(clippy::unnecessary_cast)]
    pub(super) fn from_raw(raw: &Stat) -> Self {
        let time = |seconds: i64, nanoseconds: u32| Time { seconds, nanoseconds };
        FileStat {
            kind: FileKind::from_raw(FileType::from_raw_mode(raw.st_mode as _)),
            dev: raw.st_dev as u64,
            ino: raw.st_ino as u64,
            nlink: raw.st_nlink as u64,
            size: u64::try_from(raw.st_size as i64).unwrap_or(0),
            allocated: (raw.st_blocks as u64).saturating_mul(512),
            mode: raw.st_mode as u32 & 0o7777,
            uid: raw.st_uid,
            gid: raw.st_gid,
            mtime: time(raw.st_mtime as i64, raw.st_mtime_nsec as u32),
            ctime: time(raw.st_ctime as i64, raw.st_ctime_nsec as u32),
            rdev: raw.st_rdev as u64,
        }
    }

    /// Same object, wherever its name is now.
    pub fn same_object(&self, other: &FileStat) -> bool {
        (self.dev, self.ino, self.kind) == (other.dev, other.ino, other.kind)
    }

    /// Same object with the same content and metadata, as far as a status tells.
    pub fn unchanged(&self, other: &FileStat) -> bool {
        self.same_object(other) && (self.size, self.mtime, self.ctime) == (other.size, other.mtime, other.ctime)
    }
}
