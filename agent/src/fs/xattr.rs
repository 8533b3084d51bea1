//! Extended attributes by descriptor or by directory and name, links never followed.
//!
//! Linux has no `getxattrat` before 6.13; until then the kernel's own `/proc/self/fd/N/name` is the way to an
//! attribute relative to a directory descriptor, for objects that cannot be opened as well (links, sockets, devices).

use rustix::fd::{AsFd, AsRawFd, BorrowedFd};
use rustix::fs::{
    XattrFlags, fgetxattr, flistxattr, fremovexattr, fsetxattr, lgetxattr, llistxattr, lremovexattr, lsetxattr,
};
use rustix::io::Errno;
use std::io;
use std::io::Write;

/// First guess at the size of a list of names or a value, bytes.
const FIRST_BUFFER_BYTES: usize = 1024;
/// Most bytes of a name list or a value that Linux allows.
const BYTES_MAX: usize = 64 << 10;

/// The access ACL of POSIX.
pub(super) const ACL_ACCESS: &[u8] = b"system.posix_acl_access";
/// The ACL that new entries of a directory inherit.
pub(super) const ACL_DEFAULT: &[u8] = b"system.posix_acl_default";

/// One attribute with its whole value.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RawXattr {
    /// Full name with its namespace.
    pub name: Vec<u8>,
    /// Value.
    pub value: Vec<u8>,
}

/// What attributes are read from or set on.
pub(super) enum Object<'a> {
    /// Something open for reading or writing.
    Open(BorrowedFd<'a>),
    /// A name in a directory.
    Named { proc_path: Vec<u8> },
}

impl<'a> Object<'a> {
    pub(super) fn open(fd: &'a impl AsFd) -> Self {
        Object::Open(fd.as_fd())
    }

    /// `name` in the open directory `dir`, which must stay open as long as this lives.
    pub(super) fn named(dir: &impl AsRawFd, name: &[u8]) -> Self {
        let mut proc_path = Vec::with_capacity(32 + name.len());
        // Writing to a vector cannot fail.
        let _ = write!(proc_path, "/proc/self/fd/{}/", dir.as_raw_fd());
        proc_path.extend_from_slice(name);
        Object::Named { proc_path }
    }

    fn list(&self, buffer: &mut [u8]) -> Result<usize, Errno> {
        match self {
            Object::Open(fd) => flistxattr(fd, buffer),
            Object::Named { proc_path } => llistxattr(proc_path.as_slice(), buffer),
        }
    }

    fn get(&self, name: &[u8], buffer: &mut [u8]) -> Result<usize, Errno> {
        match self {
            Object::Open(fd) => fgetxattr(fd, name, buffer),
            Object::Named { proc_path } => lgetxattr(proc_path.as_slice(), name, buffer),
        }
    }

    /// Sets one attribute, new or not.
    pub(super) fn set(&self, name: &[u8], value: &[u8]) -> io::Result<()> {
        Ok(match self {
            Object::Open(fd) => fsetxattr(fd, name, value, XattrFlags::empty()),
            Object::Named { proc_path } => lsetxattr(proc_path.as_slice(), name, value, XattrFlags::empty()),
        }?)
    }

    /// Removes one attribute; fine if it is not there.
    pub(super) fn remove(&self, name: &[u8]) -> io::Result<()> {
        let result = match self {
            Object::Open(fd) => fremovexattr(fd, name),
            Object::Named { proc_path } => lremovexattr(proc_path.as_slice(), name),
        };
        match result {
            Ok(()) | Err(Errno::NODATA | Errno::OPNOTSUPP) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Names, sorted; none where the file system has no attributes.
    pub(super) fn names(&self) -> io::Result<Vec<Vec<u8>>> {
        let mut first = [0; FIRST_BUFFER_BYTES];
        let bytes = match self.list(&mut first) {
            Ok(0) | Err(Errno::OPNOTSUPP) => return Ok(Vec::new()),
            Ok(len) => first.get(..len).unwrap_or_default().to_vec(),
            Err(Errno::RANGE) => {
                let mut all = vec![0; BYTES_MAX];
                let len = self.list(&mut all)?;
                all.truncate(len);
                all
            }
            Err(errno) => return Err(errno.into()),
        };
        let mut names: Vec<_> = bytes.split(|&b| b == 0).filter(|name| !name.is_empty()).map(<[u8]>::to_vec).collect();
        names.sort_unstable();
        names.dedup();
        Ok(names)
    }

    /// One value; `None` if it went away.
    pub(super) fn value(&self, name: &[u8]) -> io::Result<Option<Vec<u8>>> {
        let mut first = [0; FIRST_BUFFER_BYTES];
        match self.get(name, &mut first) {
            Ok(len) => Ok(Some(first.get(..len).unwrap_or_default().to_vec())),
            Err(Errno::NODATA) => Ok(None),
            Err(Errno::RANGE) => {
                let mut all = vec![0; BYTES_MAX];
                let len = self.get(name, &mut all)?;
                all.truncate(len);
                Ok(Some(all))
            }
            Err(errno) => Err(errno.into()),
        }
    }
}
