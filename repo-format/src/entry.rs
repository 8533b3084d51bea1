//! One entry of a path map: what a file system object is, apart from where it stands. Values only; the bytes are in
//! [`crate::pathmap`].

use crate::FormatError;
use crate::id::{ChunkId, ContentHash, NodeId};
use crate::limits::{KEY_BYTES_MAX, NAME_BYTES_MAX};
use std::fmt;

/// Where an entry stands: its directory's components and its name, in one byte string that sorts by (directory, name),
/// directories component by component, so that a folder's entries are one range and its subtree the range after it.
///
/// Encoding: every directory component followed by `00`, then one more `00`, then the name. Components are non-empty
/// and hold neither `00` nor `/`; the name may be empty only for the root directory itself (no components).
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PathKey(Vec<u8>);

impl PathKey {
    /// The root directory's own entry.
    pub fn root() -> Self {
        PathKey(vec![0])
    }

    /// Entry `name` in the directory `components`.
    pub fn new<'a>(components: impl IntoIterator<Item = &'a [u8]>, name: &[u8]) -> Result<Self, FormatError> {
        let mut bytes = Vec::new();
        for component in components {
            check_component(component)?;
            bytes.extend_from_slice(component);
            bytes.push(0);
        }
        check_component(name)?;
        bytes.push(0);
        bytes.extend_from_slice(name);
        Self::checked(bytes)
    }

    /// From an absolute path such as `/usr/share` (`/` is the root entry). `.` and `..` components are refused.
    pub fn from_path(path: &[u8]) -> Result<Self, FormatError> {
        let mut components: Vec<&[u8]> = path.split(|&byte| byte == b'/').filter(|part| !part.is_empty()).collect();
        match components.pop() {
            None => Ok(Self::root()),
            Some(name) => Self::new(components, name),
        }
    }

    /// From stored bytes; every rule is checked, so a key can never name `..` or hold a slash.
    pub fn from_encoded(bytes: &[u8]) -> Result<Self, FormatError> {
        let rule = FormatError::invalid("path key", "not directory components, 00, name");
        if bytes.first() == Some(&0) && bytes.len() == 1 {
            return Ok(Self::root());
        }
        let mut rest = bytes;
        loop {
            let end = rest.iter().position(|&byte| byte == 0).ok_or(rule.clone())?;
            let (component, after) = rest.split_at(end);
            rest = after.get(1..).ok_or(rule.clone())?;
            if component.is_empty() {
                break;
            }
            check_component(component)?;
        }
        check_component(rest)?;
        Self::checked(bytes.to_vec())
    }

    fn checked(bytes: Vec<u8>) -> Result<Self, FormatError> {
        if bytes.len() > KEY_BYTES_MAX {
            return Err(FormatError::Limit { what: "path", value: bytes.len() as u64, limit: KEY_BYTES_MAX as u64 });
        }
        Ok(PathKey(bytes))
    }

    /// As stored.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    fn split(&self) -> (&[u8], &[u8]) {
        // The separator is the first 00 that stands where a component would begin.
        let mut start = 0;
        while let Some(&first) = self.0.get(start) {
            if first == 0 {
                return (&self.0[..start], &self.0[start + 1..]);
            }
            start += self.0[start..].iter().position(|&byte| byte == 0).unwrap_or(self.0.len() - start) + 1;
        }
        (&[], &[])
    }

    /// Directory components, outermost first.
    pub fn directory(&self) -> impl Iterator<Item = &[u8]> {
        self.split().0.split(|&byte| byte == 0).filter(|part| !part.is_empty())
    }

    /// The last component; empty only for the root.
    pub fn name(&self) -> &[u8] {
        self.split().1
    }

    /// True for the root directory's own entry.
    pub fn is_root(&self) -> bool {
        self.0.len() == 1
    }

    /// Absolute path with slashes, as bytes.
    pub fn to_path(&self) -> Vec<u8> {
        let (directory, name) = self.split();
        let mut path = vec![b'/'];
        path.extend(directory.iter().map(|&byte| if byte == 0 { b'/' } else { byte }));
        path.extend_from_slice(name);
        path
    }

    /// The components of this entry as a directory, each followed by `00`: the prefix of every key in its subtree.
    pub fn subtree_prefix(&self) -> Vec<u8> {
        let (directory, name) = self.split();
        let mut prefix = directory.to_vec();
        if !name.is_empty() {
            prefix.extend_from_slice(name);
            prefix.push(0);
        }
        prefix
    }

    /// Key of `name` inside this entry taken as a directory.
    pub fn child(&self, name: &[u8]) -> Result<Self, FormatError> {
        check_component(name)?;
        let mut bytes = self.subtree_prefix();
        bytes.push(0);
        bytes.extend_from_slice(name);
        Self::checked(bytes)
    }
}

fn check_component(component: &[u8]) -> Result<(), FormatError> {
    if component.is_empty() || component == b"." || component == b".." {
        return Err(FormatError::invalid("path", "a component is empty, . or .."));
    }
    if component.iter().any(|&byte| byte == 0 || byte == b'/') {
        return Err(FormatError::invalid("path", "a component holds a slash or a zero byte"));
    }
    if component.len() > NAME_BYTES_MAX {
        let value = component.len() as u64;
        return Err(FormatError::Limit { what: "name", value, limit: NAME_BYTES_MAX as u64 });
    }
    Ok(())
}

impl fmt::Debug for PathKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PathKey({})", String::from_utf8_lossy(&self.to_path()))
    }
}

/// Seconds and nanoseconds since 1970; seconds may be negative, nanoseconds always count forward (0 to 999,999,999).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default, Hash)]
pub struct Time {
    /// Whole seconds since 1970, rounded down.
    pub seconds: i64,
    /// Nanoseconds after them.
    pub nanoseconds: u32,
}

/// How a file's content was cut.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Profile {
    /// Inside a bundle of small files.
    Bundle = 0,
    /// 128 KiB / 512 KiB / 4 MiB.
    Default = 1,
    /// 16 / 64 / 256 KiB, for database dumps.
    Fine = 2,
    /// Fixed 1 MiB, for disk images.
    Image = 3,
}

impl Profile {
    /// From its byte on disk.
    pub fn from_byte(byte: u8) -> Result<Self, FormatError> {
        match byte {
            0 => Ok(Profile::Bundle),
            1 => Ok(Profile::Default),
            2 => Ok(Profile::Fine),
            3 => Ok(Profile::Image),
            _ => Err(FormatError::invalid("chunker profile", "unknown")),
        }
    }
}

/// A run of a file's bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Element {
    /// `len` bytes of a chunk from `offset` on.
    Data {
        /// The chunk.
        chunk: ChunkId,
        /// First byte within the chunk's plaintext.
        offset: u32,
        /// Bytes; never zero.
        len: u32,
    },
    /// `len` bytes that read as zero and are not allocated.
    Hole {
        /// Bytes; never zero.
        len: u64,
    },
}

impl Element {
    /// Bytes of the file it covers.
    pub const fn len(&self) -> u64 {
        match self {
            Element::Data { len, .. } => *len as u64,
            Element::Hole { len } => *len,
        }
    }
    /// Never true for stored elements.
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Where a file's bytes are.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Content {
    /// At most `CONTENT_INLINE_MAX` elements, in file order.
    Inline(Vec<Element>),
    /// Root of a content list ([`crate::filelist`]).
    List(NodeId),
}

/// An extended attribute. POSIX ACLs are `system.posix_acl_access` and `system.posix_acl_default`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Xattr {
    /// Full name with its namespace, e.g. `user.comment`.
    pub name: Vec<u8>,
    /// Value.
    pub value: XattrValue,
}

/// Value of an extended attribute.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum XattrValue {
    /// At most `XATTR_INLINE_BYTES_MAX` bytes.
    Inline(Vec<u8>),
    /// One chunk holding the whole value.
    Chunk {
        /// The chunk.
        chunk: ChunkId,
        /// Bytes.
        len: u32,
    },
}

/// What an entry is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum EntryKind {
    /// Regular file.
    File {
        /// Bytes.
        size: u64,
        /// Where they are.
        content: Content,
        /// Hash of the whole content.
        hash: ContentHash,
        /// How it was cut.
        profile: Profile,
    },
    /// Directory.
    Directory,
    /// Symbolic link.
    Symlink {
        /// Its target, any bytes but 00.
        target: Vec<u8>,
    },
    /// Named pipe.
    Fifo,
    /// Socket.
    Socket,
    /// Character device.
    CharDevice {
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
    },
    /// Block device.
    BlockDevice {
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
    },
}

/// Everything about an entry but its key. Access times are not stored.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Entry {
    /// What it is.
    pub kind: EntryKind,
    /// Permission bits, `07777`.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Owner's name where known; empty otherwise.
    pub user: Vec<u8>,
    /// Group's name where known; empty otherwise.
    pub group: Vec<u8>,
    /// Modification time.
    pub mtime: Time,
    /// Extended attributes, sorted by name.
    pub xattrs: Vec<Xattr>,
    /// Entries of one snapshot with the same number are hard links to one object; each carries the full content.
    pub link_group: Option<u64>,
}

impl Entry {
    /// Bytes of a regular file, zero for everything else.
    pub const fn size(&self) -> u64 {
        match &self.kind {
            EntryKind::File { size, .. } => *size,
            _ => 0,
        }
    }
}
