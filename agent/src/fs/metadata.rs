//! Everything an entry keeps of an object apart from its content.

use super::content::FileReader;
use super::owners::Owners;
use super::scan::ScanItem;
use super::stat::{FileKind, FileStat};
use super::xattr::{Object, RawXattr};
use repo_format::entry::{Entry, EntryKind, Time, Xattr, XattrValue};
use repo_format::limits::{SYMLINK_TARGET_BYTES_MAX, XATTR_INLINE_BYTES_MAX, XATTRS_MAX};
use rustix::fs::{major, minor, readlinkat};
use std::io;
use std::sync::Arc;

/// Metadata of one object.
#[derive(Clone, Debug)]
pub struct Metadata {
    /// `None` for a regular file, whose kind needs its content; complete for everything else.
    pub kind: Option<EntryKind>,
    /// Permission bits, `07777`.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Owner's name, empty if unknown.
    pub user: Arc<[u8]>,
    /// Group's name, empty if unknown.
    pub group: Arc<[u8]>,
    /// Modification time.
    pub mtime: Time,
    /// Attributes sorted by name, values whole.
    pub xattrs: Vec<RawXattr>,
    /// As in the scan item.
    pub link_group: Option<u64>,
    /// Attributes that could not be read: name (empty for the list itself) and cause.
    pub unreadable_xattrs: Vec<(Vec<u8>, String)>,
}

impl Metadata {
    /// The entry. `kind` is used for regular files only; `store` is called for every attribute value above
    /// `XATTR_INLINE_BYTES_MAX` and says where it went.
    pub fn into_entry<E>(
        self,
        file_kind: Option<EntryKind>,
        mut store: impl FnMut(&[u8]) -> Result<XattrValue, E>,
    ) -> Result<Option<Entry>, E> {
        let Some(kind) = self.kind.or(file_kind) else { return Ok(None) };
        let mut xattrs = Vec::with_capacity(self.xattrs.len());
        for RawXattr { name, value } in self.xattrs {
            let value = if value.len() > XATTR_INLINE_BYTES_MAX { store(&value)? } else { XattrValue::Inline(value) };
            xattrs.push(Xattr { name, value });
        }
        Ok(Some(Entry {
            kind,
            mode: self.mode,
            uid: self.uid,
            gid: self.gid,
            user: self.user.to_vec(),
            group: self.group.to_vec(),
            mtime: self.mtime,
            xattrs,
            link_group: self.link_group,
        }))
    }
}

/// Reads metadata; shared by all threads of a run.
#[derive(Debug, Default)]
pub struct MetadataReader {
    owners: Owners,
}

impl MetadataReader {
    /// For one run: names of owners are asked once.
    pub fn new() -> Self {
        Self::default()
    }

    /// Metadata of a scanned object by its name. Fails only if the object is gone or is a link that cannot be read;
    /// attributes that cannot be read are listed in the result.
    pub fn read(&self, item: &ScanItem) -> io::Result<Metadata> {
        let dir = item.dir.fd()?;
        let kind = match item.stat.kind {
            FileKind::File => None,
            FileKind::Directory => Some(EntryKind::Directory),
            FileKind::Symlink => {
                let target = readlinkat(&*dir, item.name(), Vec::new())?.into_bytes();
                if target.len() > SYMLINK_TARGET_BYTES_MAX {
                    return Err(io::ErrorKind::InvalidFilename.into());
                }
                Some(EntryKind::Symlink { target })
            }
            FileKind::Fifo => Some(EntryKind::Fifo),
            FileKind::Socket => Some(EntryKind::Socket),
            FileKind::CharDevice => {
                Some(EntryKind::CharDevice { major: major(item.stat.rdev), minor: minor(item.stat.rdev) })
            }
            FileKind::BlockDevice => {
                Some(EntryKind::BlockDevice { major: major(item.stat.rdev), minor: minor(item.stat.rdev) })
            }
            FileKind::Unknown => return Err(io::ErrorKind::Unsupported.into()),
        };
        if item.follow {
            // Above the roots a link may have been followed; the attributes wanted are the directory's.
            let directory = item.dir.open_child(item.name(), true)?;
            return Ok(self.assemble(item, &item.stat, kind, &Object::named(&*directory.fd()?, b".")));
        }
        Ok(self.assemble(item, &item.stat, kind, &Object::named(&*dir, item.name())))
    }

    /// Metadata of a regular file that is open for reading: status as it was at opening.
    pub fn read_open(&self, item: &ScanItem, file: &FileReader) -> Metadata {
        self.assemble(item, file.stat(), None, &Object::open(file))
    }

    fn assemble(&self, item: &ScanItem, stat: &FileStat, kind: Option<EntryKind>, object: &Object) -> Metadata {
        let (xattrs, unreadable_xattrs) = read_xattrs(object);
        Metadata {
            kind,
            mode: stat.mode,
            uid: stat.uid,
            gid: stat.gid,
            user: self.owners.user(stat.uid),
            group: self.owners.group(stat.gid),
            mtime: stat.mtime,
            xattrs,
            link_group: item.link_group,
            unreadable_xattrs,
        }
    }
}

type Unreadable = Vec<(Vec<u8>, String)>;

fn read_xattrs(object: &Object) -> (Vec<RawXattr>, Unreadable) {
    let mut unreadable = Vec::new();
    let mut names = match object.names() {
        Ok(names) => names,
        Err(error) => return (Vec::new(), vec![(Vec::new(), error.to_string())]),
    };
    for name in names.drain(names.len().min(XATTRS_MAX)..) {
        unreadable.push((name, format!("more than {XATTRS_MAX} attributes")));
    }
    let mut xattrs = Vec::with_capacity(names.len());
    for name in names {
        match object.value(&name) {
            Ok(Some(value)) => xattrs.push(RawXattr { name, value }),
            Ok(None) => {}
            Err(error) => unreadable.push((name, error.to_string())),
        }
    }
    (xattrs, unreadable)
}
