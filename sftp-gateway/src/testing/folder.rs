//! A folder of this machine, served as it is: for foreign suites, which bring their own files.
//!
//! Paths are absolute paths below the folder, joined as text, and links are followed wherever they lead: this is for a
//! tester's own machine and nobody else.

use super::{WantedAttributes, WritableFile, WritableFs, open_flags};
use crate::fs::{Answer, Attributes, Entry, ExportFile, ExportFs, FsError, Kind, Owner, Space};
use crate::path::ExportPath;
use bytes::Bytes;
use std::ffi::OsStr;
use std::fs::{File, FileTimes, Metadata, OpenOptions, Permissions};
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{DirBuilderExt, FileExt, FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

/// The folder.
#[derive(Debug, Clone)]
pub struct FolderFs {
    root: PathBuf,
    read_only: bool,
}

struct FolderFile {
    file: File,
    appends: bool,
}

impl FolderFs {
    /// Serves `root`.
    pub fn new(root: PathBuf, read_only: bool) -> FolderFs {
        FolderFs { root, read_only }
    }

    fn place(&self, path: &ExportPath) -> PathBuf {
        self.root.join(OsStr::from_bytes(path.as_bytes().strip_prefix(b"/").unwrap_or_default()))
    }
}

fn error(error: io::Error) -> FsError {
    match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => FsError::NotFound,
        io::ErrorKind::PermissionDenied => FsError::Denied,
        _ => FsError::Failed(error.to_string()),
    }
}

/// Files of a tester are near: nothing is gained by threads.
fn answer<T: Send + 'static>(result: io::Result<T>) -> Answer<T> {
    Box::pin(std::future::ready(result.map_err(error)))
}

fn attributes(metadata: &Metadata) -> Attributes {
    let kind = metadata.file_type();
    let seconds = |time: i64| u32::try_from(time).unwrap_or(0);
    Attributes {
        kind: match () {
            () if kind.is_dir() => Kind::Folder,
            () if kind.is_symlink() => Kind::Link,
            () if kind.is_fifo() || kind.is_socket() || kind.is_block_device() || kind.is_char_device() => Kind::Other,
            () => Kind::File,
        },
        size: metadata.len(),
        permissions: metadata.mode() & 0o7777,
        modified: seconds(metadata.mtime()),
        accessed: seconds(metadata.atime()),
        uid: metadata.uid(),
        gid: metadata.gid(),
        links: u32::try_from(metadata.nlink()).unwrap_or(u32::MAX),
    }
}

fn set(file: &File, wanted: WantedAttributes) -> io::Result<()> {
    if let Some(size) = wanted.size {
        file.set_len(size)?;
    }
    if let Some(permissions) = wanted.permissions {
        file.set_permissions(Permissions::from_mode(permissions & 0o7777))?;
    }
    if let Some((accessed, modified)) = wanted.times {
        let time = |seconds: u32| SystemTime::UNIX_EPOCH + Duration::from_secs(u64::from(seconds));
        file.set_times(FileTimes::new().set_accessed(time(accessed)).set_modified(time(modified)))?;
    }
    if let Some((uid, gid)) = wanted.owner {
        std::os::unix::fs::fchown(file, Some(uid), Some(gid))?;
    }
    Ok(())
}

impl ExportFs for FolderFs {
    fn stat(&self, path: &ExportPath) -> Answer<Attributes> {
        answer(self.place(path).metadata().map(|metadata| attributes(&metadata)))
    }

    fn stat_link(&self, path: &ExportPath) -> Answer<Attributes> {
        answer(self.place(path).symlink_metadata().map(|metadata| attributes(&metadata)))
    }

    fn list(&self, path: &ExportPath) -> Answer<Vec<Entry>> {
        answer(self.place(path).read_dir().map(|entries| {
            let entry = |entry: io::Result<std::fs::DirEntry>| {
                let entry = entry.ok()?;
                let attributes = attributes(&entry.metadata().ok()?);
                Some(Entry { name: entry.file_name().into_vec(), attributes })
            };
            entries.filter_map(entry).collect()
        }))
    }

    fn open(&self, path: &ExportPath) -> Answer<Arc<dyn ExportFile>> {
        let file = File::open(self.place(path)).map(|file| Arc::new(FolderFile { file, appends: false }));
        answer(file.map(|file| file as Arc<dyn ExportFile>))
    }

    fn space(&self) -> Answer<Space> {
        answer(Ok(Space { total_bytes: 1 << 40, free_bytes: 1 << 39, files: 1 << 20 }))
    }

    fn owner(&self) -> Owner {
        Owner { user: "tester".into(), group: "tester".into() }
    }

    fn writable(&self) -> Option<Arc<dyn WritableFs>> {
        (!self.read_only).then(|| Arc::new(self.clone()) as Arc<dyn WritableFs>)
    }
}

impl WritableFs for FolderFs {
    fn open(&self, path: &ExportPath, flags: u32, wanted: WantedAttributes) -> Answer<Arc<dyn WritableFile>> {
        let has = |flag| flags & flag != 0;
        let mut options = OpenOptions::new();
        options.read(has(1)).write(has(open_flags::WRITE)).truncate(has(open_flags::TRUNCATE));
        options.create(has(open_flags::CREATE)).create_new(has(open_flags::CREATE) && has(open_flags::EXCLUSIVE));
        options.mode(wanted.permissions.unwrap_or(0o666) & 0o7777);
        let file = options.open(self.place(path));
        answer(
            file.map(|file| Arc::new(FolderFile { file, appends: has(open_flags::APPEND) }) as Arc<dyn WritableFile>),
        )
    }

    fn set(&self, path: &ExportPath, wanted: WantedAttributes, link: bool) -> Answer<()> {
        let place = self.place(path);
        if link && place.is_symlink() {
            let owner = wanted.owner.map(|(uid, gid)| std::os::unix::fs::lchown(&place, Some(uid), Some(gid)));
            return answer(owner.unwrap_or(Ok(())));
        }
        answer(match wanted.size {
            Some(_) => OpenOptions::new().write(true).open(&place).and_then(|file| set(&file, wanted)),
            None => File::open(&place).and_then(|file| set(&file, wanted)),
        })
    }

    fn remove(&self, path: &ExportPath) -> Answer<()> {
        answer(std::fs::remove_file(self.place(path)))
    }

    fn make_folder(&self, path: &ExportPath, wanted: WantedAttributes) -> Answer<()> {
        let mode = wanted.permissions.unwrap_or(0o777) & 0o7777;
        answer(std::fs::DirBuilder::new().mode(mode).create(self.place(path)))
    }

    fn remove_folder(&self, path: &ExportPath) -> Answer<()> {
        answer(std::fs::remove_dir(self.place(path)))
    }

    fn rename(&self, from: &ExportPath, to: &ExportPath, replace: bool) -> Answer<()> {
        let (from, to) = (self.place(from), self.place(to));
        if !replace && to.symlink_metadata().is_ok() {
            return Box::pin(std::future::ready(Err(FsError::Failed("the new name is taken".into()))));
        }
        answer(std::fs::rename(from, to))
    }

    fn read_link(&self, path: &ExportPath) -> Answer<Vec<u8>> {
        answer(self.place(path).read_link().map(|target| target.into_os_string().into_vec()))
    }

    fn symlink(&self, target: &[u8], link: &ExportPath) -> Answer<()> {
        answer(std::os::unix::fs::symlink(OsStr::from_bytes(target), self.place(link)))
    }

    fn hard_link(&self, from: &ExportPath, to: &ExportPath) -> Answer<()> {
        answer(std::fs::hard_link(self.place(from), self.place(to)))
    }
}

impl ExportFile for FolderFile {
    fn attributes(&self) -> Attributes {
        self.file.metadata().map_or_else(|_| Attributes::file(0, 0), |metadata| attributes(&metadata))
    }

    fn read(&self, offset: u64, length: u32) -> Answer<Bytes> {
        let mut bytes = vec![0; length as usize];
        let read = self.file.read_at(&mut bytes, offset);
        answer(read.map(|read| {
            bytes.truncate(read);
            Bytes::from(bytes)
        }))
    }
}

impl WritableFile for FolderFile {
    fn reading(self: Arc<Self>) -> Arc<dyn ExportFile> {
        self
    }

    fn write(&self, offset: u64, data: Bytes) -> Answer<()> {
        let offset = if self.appends { self.attributes().size } else { offset };
        answer(self.file.write_all_at(&data, offset))
    }

    fn set(&self, wanted: WantedAttributes) -> Answer<()> {
        answer(set(&self.file, wanted))
    }

    fn sync(&self) -> Answer<()> {
        answer(self.file.sync_all())
    }
}
