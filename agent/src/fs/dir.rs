//! Directory handles. A handle knows its parent's handle and its own name, so it can be closed and opened again at any
//! depth; it remembers device and inode, so whatever stands under its name later is never mistaken for it.

use super::fd_pool::{FdPool, Slot};
use super::stat::FileStat;
use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{AtFlags, Mode, OFlags, fstat, open, openat, statat};
use rustix::io::Errno;
use std::io;
use std::path::Path;
use std::sync::Arc;

const OPEN_FLAGS: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC).union(OFlags::NONBLOCK);

/// One directory, open or ready to be opened again.
#[derive(Debug)]
pub struct Dir {
    parent: Option<Arc<Dir>>,
    name: Box<[u8]>,
    follow: bool,
    dev: u64,
    ino: u64,
    slot: Arc<Slot>,
    /// The base directory stays open: everything else is found from it.
    pinned: Option<Arc<OwnedFd>>,
    pool: Arc<FdPool>,
}

impl Dir {
    /// The directory everything below is opened from. `path` is followed like any path a person gives.
    pub fn base(path: &Path, pool: &Arc<FdPool>) -> io::Result<Arc<Self>> {
        let fd = open(path, OPEN_FLAGS, Mode::empty()).or_else(|errno| match errno {
            Errno::ACCESS => open(path, OPEN_FLAGS.difference(OFlags::NONBLOCK) | OFlags::PATH, Mode::empty()),
            other => Err(other),
        })?;
        let stat = FileStat::from_raw(&fstat(&fd)?);
        Ok(Arc::new(Dir {
            parent: None,
            name: Box::default(),
            follow: true,
            dev: stat.dev,
            ino: stat.ino,
            slot: pool.slot(),
            pinned: Some(Arc::new(fd)),
            pool: pool.clone(),
        }))
    }

    /// Opens `name` in this directory. A symbolic link is an error (`NotADirectory`) unless `follow`, which is for
    /// the ancestors of a path that a person named.
    pub fn open_child(self: &Arc<Self>, name: &[u8], follow: bool) -> io::Result<Arc<Self>> {
        let fd = open_directory(&*self.fd()?, name, follow)?;
        let stat = FileStat::from_raw(&fstat(&fd)?);
        let slot = self.pool.slot();
        slot.put(fd);
        Ok(Arc::new(Dir {
            parent: Some(self.clone()),
            name: name.into(),
            follow,
            dev: stat.dev,
            ino: stat.ino,
            slot,
            pinned: None,
            pool: self.pool.clone(),
        }))
    }

    /// Its descriptor; opened again from the nearest open ancestor if the pool closed it. Fails with `NotFound` when
    /// another directory has taken the place of one on the way.
    pub fn fd(&self) -> io::Result<Arc<OwnedFd>> {
        let mut closed: Vec<&Dir> = Vec::new();
        let mut place = self;
        let mut fd = loop {
            if let Some(fd) = place.pinned.clone().or_else(|| place.slot.get()) {
                break fd;
            }
            closed.push(place);
            match &place.parent {
                Some(parent) => place = parent,
                None => return Err(io::ErrorKind::NotFound.into()),
            }
        };
        for dir in closed.into_iter().rev() {
            let opened = open_directory(&*fd, &dir.name, dir.follow)?;
            let stat = FileStat::from_raw(&fstat(&opened)?);
            if (stat.dev, stat.ino) != (dir.dev, dir.ino) {
                return Err(io::Error::new(io::ErrorKind::NotFound, "the directory was replaced by another one"));
            }
            fd = dir.slot.put(opened);
        }
        Ok(fd)
    }

    /// Status of `name` in it; a symbolic link's own unless `follow`.
    pub fn stat(&self, name: &[u8], follow: bool) -> io::Result<FileStat> {
        let flags = if follow { AtFlags::empty() } else { AtFlags::SYMLINK_NOFOLLOW };
        #[cfg(target_os = "linux")]
        let flags = flags | AtFlags::NO_AUTOMOUNT;
        Ok(FileStat::from_raw(&statat(&*self.fd()?, name, flags)?))
    }

    /// Its device and inode.
    pub fn identity(&self) -> (u64, u64) {
        (self.dev, self.ino)
    }
}

impl Drop for Dir {
    /// One by one, since a chain of handles may be tens of thousands long.
    fn drop(&mut self) {
        let mut next = self.parent.take();
        while let Some(parent) = next {
            next = Arc::into_inner(parent).and_then(|mut parent| parent.parent.take());
        }
    }
}

fn open_directory(parent: impl AsFd, name: &[u8], follow: bool) -> io::Result<OwnedFd> {
    let flags = if follow { OPEN_FLAGS } else { OPEN_FLAGS | OFlags::NOFOLLOW };
    let opened = open_without_access_time(&parent, name, flags);
    // A directory that may be searched but not listed still leads to the ones below it.
    let opened = match opened {
        Err(Errno::ACCESS) => openat(&parent, name, flags.difference(OFlags::NONBLOCK) | OFlags::PATH, Mode::empty()),
        other => other,
    };
    match opened {
        Ok(fd) => Ok(fd),
        // What O_NOFOLLOW says of a link, depending on the system.
        Err(Errno::LOOP) => Err(io::ErrorKind::NotADirectory.into()),
        Err(errno) => Err(errno.into()),
    }
}

/// Opens for reading without moving the access time where the system lets us (owner or privileged).
pub(super) fn open_without_access_time(parent: impl AsFd, name: &[u8], flags: OFlags) -> Result<OwnedFd, Errno> {
    #[cfg(target_os = "linux")]
    match openat(&parent, name, flags | OFlags::NOATIME, Mode::empty()) {
        Err(Errno::PERM) => {}
        other => return other,
    }
    openat(&parent, name, flags, Mode::empty())
}
