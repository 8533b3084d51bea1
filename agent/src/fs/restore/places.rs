//! Where the directories of a snapshot are below the target: found one component at a time, links never followed.

use super::conflict::beside;
use crate::fs::dir::Dir;
use crate::fs::xattr::{ACL_DEFAULT, Object};
use repo_format::entry::PathKey;
use rustix::fs::{Mode, mkdirat};
use rustix::io::Errno;
use std::collections::{HashMap, HashSet};
use std::io;
use std::sync::Arc;

/// Permissions of a directory until everything in it has been written.
const SAFE_DIRECTORY_MODE: Mode = Mode::RWXU;
/// Names tried for an object that is to stand beside another.
pub(super) const BESIDE_MAX: u32 = 10_000;

/// An open directory of the target.
#[derive(Clone, Debug)]
pub(super) struct Place {
    pub dir: Arc<Dir>,
    /// It was there with an ACL that new entries inherit.
    pub inherits: bool,
}

/// Result of looking for a directory.
pub(super) enum Found {
    Place(Place),
    /// A conflict higher up was decided against the snapshot; everything below is left out.
    LeftOut,
    /// It does not exist.
    Missing,
    /// Something that is not a directory stands on the way; the length is that of the prefix of the key that leads
    /// to it.
    Blocked {
        prefix: Vec<u8>,
        name: Vec<u8>,
        parent: Place,
    },
}

enum Redirect {
    To(Vec<u8>),
    LeftOut,
}

struct Step {
    name: Vec<u8>,
    place: Place,
}

/// The directories found last and what is known about diversions.
pub(super) struct Places {
    base: Place,
    chain: Vec<Step>,
    redirects: HashMap<Vec<u8>, Redirect>,
    /// Made on the way to something below; not yet named by an entry of their own.
    made: HashSet<Vec<u8>>,
}

impl Places {
    pub(super) fn new(base: Arc<Dir>) -> Self {
        let inherits = inherits(&base);
        Places {
            base: Place { dir: base, inherits },
            chain: Vec::new(),
            redirects: HashMap::new(),
            made: HashSet::new(),
        }
    }

    /// The directory that holds `key`, made with safe permissions if missing and `make`.
    pub(super) fn parent(&mut self, key: &PathKey, make: bool) -> io::Result<Found> {
        self.find(key.directory().collect(), make)
    }

    /// The directory that `key` names.
    pub(super) fn directory(&mut self, key: &PathKey) -> io::Result<Found> {
        let mut components: Vec<_> = key.directory().collect();
        if !key.is_root() {
            components.push(key.name());
        }
        self.find(components, false)
    }

    fn find(&mut self, components: Vec<&[u8]>, make: bool) -> io::Result<Found> {
        let known = self.chain.iter().zip(&components).take_while(|(step, name)| step.name == **name).count();
        self.chain.truncate(known);
        let mut prefix = Vec::new();
        let needs_prefix = !self.redirects.is_empty();
        for (depth, component) in components.iter().enumerate() {
            prefix.extend_from_slice(component);
            prefix.push(0);
            if depth < known {
                continue;
            }
            let redirect = if needs_prefix { self.redirects.get(&prefix) } else { None };
            let name: &[u8] = match redirect {
                None => component,
                Some(Redirect::To(name)) => name,
                Some(Redirect::LeftOut) => return Ok(Found::LeftOut),
            };
            let parent = self.chain.last().map_or(&self.base, |step| &step.place).clone();
            let opened = match parent.dir.open_child(name, false) {
                Err(error) if error.kind() == io::ErrorKind::NotFound && make => {
                    match mkdirat(&*parent.dir.fd()?, name, SAFE_DIRECTORY_MODE) {
                        Ok(()) | Err(Errno::EXIST) => {}
                        Err(errno) => return Err(errno.into()),
                    }
                    self.made.insert(prefix.clone());
                    parent.dir.open_child(name, false)
                }
                other => other,
            };
            let dir = match opened {
                Ok(dir) => dir,
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Found::Missing),
                Err(error) if error.kind() == io::ErrorKind::NotADirectory => {
                    return Ok(Found::Blocked { prefix, name: name.to_vec(), parent });
                }
                Err(error) => return Err(error),
            };
            let inherits = inherits(&dir);
            self.chain.push(Step { name: component.to_vec(), place: Place { dir, inherits } });
        }
        Ok(Found::Place(self.chain.last().map_or(&self.base, |step| &step.place).clone()))
    }

    /// Everything below the directory `key` is left out from now on.
    pub(super) fn leave_out(&mut self, key: &PathKey) {
        self.redirects.insert(key.subtree_prefix(), Redirect::LeftOut);
    }

    /// Everything below the directory `key` goes into its sibling `name` from now on.
    pub(super) fn redirect(&mut self, key: &PathKey, name: Vec<u8>) {
        self.redirects.insert(key.subtree_prefix(), Redirect::To(name));
    }

    /// Whether the directory was made by this restore on the way to something below; asked once.
    pub(super) fn was_made(&mut self, key: &PathKey) -> bool {
        self.made.remove(&key.subtree_prefix())
    }
}

fn inherits(dir: &Dir) -> bool {
    let ask = || -> io::Result<bool> { Ok(Object::named(&*dir.fd()?, b".").value(ACL_DEFAULT)?.is_some()) };
    ask().unwrap_or(false)
}

/// Makes a directory with safe permissions; an inherited ACL is taken off at once.
pub(super) fn make_directory(parent: &Place, name: &[u8]) -> Result<(), Errno> {
    let error = |error: io::Error| Errno::from_io_error(&error).unwrap_or(Errno::IO);
    let fd = parent.dir.fd().map_err(error)?;
    mkdirat(&*fd, name, SAFE_DIRECTORY_MODE)?;
    if parent.inherits {
        Object::named(&*fd, name).remove(ACL_DEFAULT).map_err(error)?;
    }
    Ok(())
}

/// Calls `make` with names beside `name` until one is free.
pub(super) fn make_beside<T>(
    name: &[u8],
    mut make: impl FnMut(&[u8]) -> Result<T, Errno>,
) -> Result<(T, Vec<u8>), Errno> {
    for number in 1..=BESIDE_MAX {
        let candidate = beside(name, number);
        match make(&candidate) {
            Err(Errno::EXIST) => {}
            other => return other.map(|made| (made, candidate)),
        }
    }
    Err(Errno::EXIST)
}
