//! A directory held open, and what can be done to names inside it without ever spelling a whole path, so that trees
//! deeper than PATH_MAX can be built and read. Knows nothing about what a tree should contain.

use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, Stat, Timespec, Timestamps, UTIME_OMIT, XattrFlags};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::ffi::{CStr, CString, OsStr};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// A directory held open.
#[derive(Debug)]
pub struct Directory(OwnedFd);

/// Modification time to set: seconds since 1970 and nanoseconds after them.
pub type ModifiedAt = (i64, u32);

/// Lets this process hold as many files open as it is allowed to: one descriptor per level of a tree is in use.
pub fn raise_open_file_limit() {
    let limit = getrlimit(Resource::Nofile);
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
}

fn name_of(name: &[u8]) -> &OsStr {
    OsStr::from_bytes(name)
}

impl Directory {
    /// Opens an existing directory by path; a symbolic link is followed.
    pub fn open(path: &Path) -> io::Result<Self> {
        Ok(Directory(rustix::fs::openat(CWD, path, READ_DIRECTORY, Mode::empty())?))
    }

    /// Opens the directory `name` inside; a symbolic link is an error.
    pub fn enter(&self, name: &[u8]) -> io::Result<Self> {
        let flags = READ_DIRECTORY | OFlags::NOFOLLOW;
        Ok(Directory(rustix::fs::openat(&self.0, name_of(name), flags, Mode::empty())?))
    }

    /// Creates the directory `name` inside and opens it.
    pub fn create_directory(&self, name: &[u8]) -> io::Result<Self> {
        rustix::fs::mkdirat(&self.0, name_of(name), Mode::from_raw_mode(0o755))?;
        self.enter(name)
    }

    /// Creates the new regular file `name`, open for reading and writing.
    pub fn create_file(&self, name: &[u8]) -> io::Result<File> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        Ok(File::from(rustix::fs::openat(&self.0, name_of(name), flags, Mode::from_raw_mode(0o644))?))
    }

    /// Opens the regular file `name` for reading; a symbolic link is an error, a fifo does not block.
    pub fn open_file(&self, name: &[u8]) -> io::Result<File> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        Ok(File::from(rustix::fs::openat(&self.0, name_of(name), flags, Mode::empty())?))
    }

    /// Creates a symbolic link.
    pub fn create_symlink(&self, name: &[u8], target: &[u8]) -> io::Result<()> {
        Ok(rustix::fs::symlinkat(name_of(target), &self.0, name_of(name))?)
    }

    /// Creates a fifo, socket or device.
    pub fn create_node(&self, name: &[u8], kind: FileType, major: u32, minor: u32) -> io::Result<()> {
        let device = rustix::fs::makedev(major, minor);
        Ok(rustix::fs::mknodat(&self.0, name_of(name), kind, Mode::from_raw_mode(0o644), device)?)
    }

    /// Gives the object `from` in this directory the further name `to` in `other`; a symbolic link itself is linked.
    pub fn link(&self, from: &[u8], other: &Directory, to: &[u8]) -> io::Result<()> {
        Ok(rustix::fs::linkat(&self.0, name_of(from), &other.0, name_of(to), AtFlags::empty())?)
    }

    /// What `name` is, without following a symbolic link.
    pub fn stat(&self, name: &[u8]) -> io::Result<Stat> {
        Ok(rustix::fs::statat(&self.0, name_of(name), AtFlags::SYMLINK_NOFOLLOW)?)
    }

    /// What this directory is.
    pub fn stat_self(&self) -> io::Result<Stat> {
        Ok(rustix::fs::fstat(&self.0)?)
    }

    /// Target of the symbolic link `name`.
    pub fn read_link(&self, name: &[u8]) -> io::Result<Vec<u8>> {
        Ok(rustix::fs::readlinkat(&self.0, name_of(name), Vec::new())?.into_bytes())
    }

    /// Sets permission bits of something that is not a symbolic link.
    pub fn set_mode(&self, name: &[u8], mode: u32) -> io::Result<()> {
        Ok(rustix::fs::chmodat(&self.0, name_of(name), Mode::from_raw_mode(mode), AtFlags::empty())?)
    }

    /// Sets owner and group without following a symbolic link.
    pub fn set_owner(&self, name: &[u8], uid: u32, gid: u32) -> io::Result<()> {
        let (uid, gid) = (rustix::fs::Uid::from_raw(uid), rustix::fs::Gid::from_raw(gid));
        Ok(rustix::fs::chownat(&self.0, name_of(name), Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?)
    }

    /// Sets the modification time without following a symbolic link.
    pub fn set_modified(&self, name: &[u8], at: ModifiedAt) -> io::Result<()> {
        Ok(rustix::fs::utimensat(&self.0, name_of(name), &timestamps(at), AtFlags::SYMLINK_NOFOLLOW)?)
    }

    /// Sets this directory's own modification time.
    pub fn set_modified_self(&self, at: ModifiedAt) -> io::Result<()> {
        Ok(rustix::fs::futimens(&self.0, &timestamps(at))?)
    }

    /// Sets an extended attribute of `name` without following a symbolic link.
    pub fn set_attribute(&self, name: &[u8], attribute: &CStr, value: &[u8]) -> io::Result<()> {
        Ok(rustix::fs::lsetxattr(self.through_proc(name), attribute, value, XattrFlags::empty())?)
    }

    /// All extended attributes of `name` that this process may see, sorted by name.
    pub fn attributes(&self, name: &[u8]) -> io::Result<Vec<(CString, Vec<u8>)>> {
        read_attributes(&self.through_proc(name))
    }

    /// All extended attributes of this directory, sorted by name.
    pub fn attributes_self(&self) -> io::Result<Vec<(CString, Vec<u8>)>> {
        read_attributes(&self.through_proc(b"."))
    }

    /// Names inside but `.` and `..`, sorted by their bytes.
    pub fn names(&self) -> io::Result<Vec<Vec<u8>>> {
        let mut names = Vec::new();
        for entry in Dir::read_from(&self.0)? {
            let entry = entry?;
            let name = entry.file_name().to_bytes();
            if name != b"." && name != b".." {
                names.push(name.to_vec());
            }
        }
        names.sort_unstable();
        Ok(names)
    }

    /// Removes a file, link or node.
    pub fn remove_file(&self, name: &[u8]) -> io::Result<()> {
        Ok(rustix::fs::unlinkat(&self.0, name_of(name), AtFlags::empty())?)
    }

    /// Removes an empty directory.
    pub fn remove_directory(&self, name: &[u8]) -> io::Result<()> {
        Ok(rustix::fs::unlinkat(&self.0, name_of(name), AtFlags::REMOVEDIR)?)
    }

    /// A path of bounded length to `name`, for calls that take no directory descriptor.
    fn through_proc(&self, name: &[u8]) -> PathBuf {
        let mut path = PathBuf::from(format!("/proc/self/fd/{}", self.0.as_raw_fd()));
        path.push(name_of(name));
        path
    }
}

impl AsFd for Directory {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Removes a tree of any depth, whatever modes its directories have.
pub fn remove_tree(path: &Path) -> io::Result<()> {
    raise_open_file_limit();
    let Ok(directory) = Directory::open(path) else {
        return match std::fs::symlink_metadata(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            _ => std::fs::remove_file(path),
        };
    };
    empty(&directory)?;
    std::fs::remove_dir(path)
}

fn empty(directory: &Directory) -> io::Result<()> {
    let _ = rustix::fs::fchmod(directory, Mode::from_raw_mode(0o700));
    for name in directory.names()? {
        if FileType::from_raw_mode(directory.stat(&name)?.st_mode) == FileType::Directory {
            let _ = directory.set_mode(&name, 0o700);
            empty(&directory.enter(&name)?)?;
            directory.remove_directory(&name)?;
        } else {
            directory.remove_file(&name)?;
        }
    }
    Ok(())
}

const READ_DIRECTORY: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

fn timestamps((seconds, nanoseconds): ModifiedAt) -> Timestamps {
    Timestamps {
        last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
        last_modification: Timespec { tv_sec: seconds, tv_nsec: i64::from(nanoseconds) },
    }
}

fn read_attributes(path: &Path) -> io::Result<Vec<(CString, Vec<u8>)>> {
    let listed = match rustix::fs::llistxattr_query(path) {
        Ok(0) => return Ok(Vec::new()),
        Ok(len) => len,
        Err(error) if error == rustix::io::Errno::NOTSUP => return Ok(Vec::new()),
        Err(error) => return Err(error.into()),
    };
    let mut list = vec![0u8; listed];
    let used = rustix::fs::llistxattr(path, &mut list[..])?;
    let mut found = Vec::new();
    for name in list[..used].split(|&byte| byte == 0).filter(|name| !name.is_empty()) {
        let name = CString::new(name).map_err(io::Error::other)?;
        let mut value = vec![0u8; rustix::fs::lgetxattr_query(path, &name)?];
        let len = if value.is_empty() { 0 } else { rustix::fs::lgetxattr(path, &name, &mut value[..])? };
        value.truncate(len);
        found.push((name, value));
    }
    found.sort_unstable();
    Ok(found)
}
