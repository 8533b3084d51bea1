//! What is served: the trait that the caller implements, and the words it uses.
//!
//! Futures are `'static`, so that many reads of one file run at once: implementations clone what they need. Work that
//! takes the processor for long (decryption, decompression) belongs on threads of its own, for these futures are polled
//! on the tasks that speak with clients.

use crate::path::ExportPath;
use bytes::Bytes;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

/// An answer that may take time.
pub type Answer<T> = Pin<Box<dyn Future<Output = Result<T, FsError>> + Send>>;

/// Why a request on files failed, chosen by what the client is told.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FsError {
    /// There is no such file, or none that this account may know of.
    #[error("no such file")]
    NotFound,
    /// It is there, and this cannot be done with it.
    #[error("permission denied")]
    Denied,
    /// This is not offered at all.
    #[error("not supported")]
    Unsupported,
    /// Something broke. The text goes to the log, not to the client.
    #[error("{0}")]
    Failed(String),
}

/// What an entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A regular file.
    File,
    /// A folder.
    Folder,
    /// A symbolic link.
    Link,
    /// Device, socket, pipe.
    Other,
}

impl Kind {
    /// The `S_IFMT` bits of a mode.
    pub fn mode_bits(self) -> u32 {
        match self {
            Kind::File => 0o100_000,
            Kind::Folder => 0o040_000,
            Kind::Link => 0o120_000,
            Kind::Other => 0o010_000,
        }
    }
}

/// What clients see of an entry: the same in STAT, LSTAT, FSTAT and listings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attributes {
    /// What it is.
    pub kind: Kind,
    /// Bytes; exact before the first read, and unchanged while the file is published.
    pub size: u64,
    /// Permission bits, without those of the kind.
    pub permissions: u32,
    /// Seconds since 1970.
    pub modified: u32,
    /// Seconds since 1970.
    pub accessed: u32,
    /// Number of the owner.
    pub uid: u32,
    /// Number of the group.
    pub gid: u32,
    /// Hard links.
    pub links: u32,
}

impl Attributes {
    /// A file that is only read.
    pub fn file(size: u64, modified: u32) -> Attributes {
        Attributes {
            kind: Kind::File,
            size,
            permissions: 0o444,
            modified,
            accessed: modified,
            uid: 0,
            gid: 0,
            links: 1,
        }
    }

    /// A folder that is only read.
    pub fn folder(modified: u32) -> Attributes {
        Attributes { kind: Kind::Folder, size: 4096, permissions: 0o555, ..Attributes::file(0, modified) }
    }

    /// Kind and permissions, as `st_mode`.
    pub fn mode(&self) -> u32 {
        self.kind.mode_bits() | (self.permissions & 0o7777)
    }
}

/// One entry of a folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// One path component; bytes, not necessarily UTF-8.
    pub name: Vec<u8>,
    /// As `stat` gives them.
    pub attributes: Attributes,
}

/// Digests that clients ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DigestKind {
    /// 16 bytes.
    Md5,
    /// 20 bytes.
    Sha1,
    /// 32 bytes.
    Sha256,
}

/// Room in what is served, for `df`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Space {
    /// Bytes there are.
    pub total_bytes: u64,
    /// Bytes that are free.
    pub free_bytes: u64,
    /// Files there are.
    pub files: u64,
}

/// Names of owner and group in listings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owner {
    /// One word.
    pub user: String,
    /// One word.
    pub group: String,
}

/// The files of one account. What is not this account's answers as if it did not exist.
pub trait ExportFs: Send + Sync + 'static {
    /// Attributes of an entry, following links.
    fn stat(&self, path: &ExportPath) -> Answer<Attributes>;

    /// Attributes of an entry itself.
    fn stat_link(&self, path: &ExportPath) -> Answer<Attributes> {
        self.stat(path)
    }

    /// Entries of a folder, without `.` and `..`, in any order.
    fn list(&self, path: &ExportPath) -> Answer<Vec<Entry>>;

    /// Opens a file for reading. What it holds and how long it is does not change until the last `Arc` is dropped.
    fn open(&self, path: &ExportPath) -> Answer<Arc<dyn ExportFile>>;

    /// Room, for `df`.
    fn space(&self) -> Answer<Space>;

    /// Names of owner and group.
    fn owner(&self) -> Owner;

    /// The part that changes files; only foreign test suites have one.
    #[cfg(feature = "testing")]
    fn writable(&self) -> Option<Arc<dyn crate::testing::WritableFs>> {
        None
    }
}

/// An open file.
pub trait ExportFile: Send + Sync + 'static {
    /// Attributes as of when it was opened.
    fn attributes(&self) -> Attributes;

    /// `length` bytes from `offset`, fewer only where the file ends, none from there on.
    fn read(&self, offset: u64, length: u32) -> Answer<Bytes>;

    /// A digest of the whole file that is known without reading it.
    fn digest(&self, kind: DigestKind) -> Option<Vec<u8>> {
        let _ = kind;
        None
    }
}
