//! For tests alone: files in memory, folders of this machine served for reading and writing, and SFTP on standard input
//! and output, so that foreign suites can be pointed at the engine. Compiled only with the feature `testing`.

mod folder;
mod memory;
mod stdio;

pub use folder::FolderFs;
pub use memory::{MemoryFile, MemoryFs};

use crate::fs::{Answer, ExportFile};
use crate::path::ExportPath;
pub use crate::sftp::wire::WantedAttributes;
use bytes::Bytes;
use std::sync::Arc;
pub use stdio::{StdioOptions, serve_stdio};

/// Flags of OPEN.
pub mod open_flags {
    /// Bytes are written.
    pub const WRITE: u32 = 2;
    /// Every write goes to the end.
    pub const APPEND: u32 = 4;
    /// The file is made when it is not there.
    pub const CREATE: u32 = 8;
    /// The file is emptied.
    pub const TRUNCATE: u32 = 16;
    /// The file must not be there.
    pub const EXCLUSIVE: u32 = 32;
}

/// The part of a file system that changes it.
pub trait WritableFs: Send + Sync + 'static {
    /// Opens with the flags of SFTP.
    fn open(&self, path: &ExportPath, flags: u32, wanted: WantedAttributes) -> Answer<Arc<dyn WritableFile>>;
    /// Sets attributes; of a link itself when `link`.
    fn set(&self, path: &ExportPath, wanted: WantedAttributes, link: bool) -> Answer<()>;
    /// Removes a file.
    fn remove(&self, path: &ExportPath) -> Answer<()>;
    /// Makes a folder.
    fn make_folder(&self, path: &ExportPath, wanted: WantedAttributes) -> Answer<()>;
    /// Removes an empty folder.
    fn remove_folder(&self, path: &ExportPath) -> Answer<()>;
    /// Renames; over what is there only when `replace`.
    fn rename(&self, from: &ExportPath, to: &ExportPath, replace: bool) -> Answer<()>;
    /// What a link points to.
    fn read_link(&self, path: &ExportPath) -> Answer<Vec<u8>>;
    /// Makes a link.
    fn symlink(&self, target: &[u8], link: &ExportPath) -> Answer<()>;
    /// Makes a second name.
    fn hard_link(&self, from: &ExportPath, to: &ExportPath) -> Answer<()>;
}

/// A file open for writing.
pub trait WritableFile: ExportFile {
    /// The same file for reading.
    fn reading(self: Arc<Self>) -> Arc<dyn ExportFile>;
    /// Writes all of `data`.
    fn write(&self, offset: u64, data: Bytes) -> Answer<()>;
    /// Sets attributes.
    fn set(&self, wanted: WantedAttributes) -> Answer<()>;
    /// To the disk.
    fn sync(&self) -> Answer<()>;
}
