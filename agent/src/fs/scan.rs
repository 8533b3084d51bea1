//! The scan: every object below some paths, in ascending order of path keys, one directory's names at a time.

use super::dir::{Dir, open_without_access_time};
use super::exclude::Excludes;
use super::fd_pool::FdPool;
use super::names::{
    LISTING_BYTES_MAX, NameSorter, SortedNames, SpillPlace, WAITING_BYTES_MAX, WaitingNames, WaitingStack,
};
use super::roots::{Node, RootError, Roots};
use super::stat::{FileKind, FileStat};
use repo_format::entry::PathKey;
use rustix::fs::{OFlags, RawDir};
use rustix::io::Errno;
use std::io;
use std::mem::MaybeUninit;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// One read of directory entries, bytes.
const DIRECTORY_BUFFER_BYTES: usize = 128 << 10;
/// Name and first bytes of the file that marks a directory as a cache (bford.info/cachedir).
const CACHE_TAG_NAME: &[u8] = b"CACHEDIR.TAG";
const CACHE_TAG_SIGNATURE: &[u8] = b"Signature: 8a477f597d28d172789f06886806bc55";

/// What a scan leaves out and where it may spill.
#[derive(Clone, Debug, Default)]
pub struct ScanOptions {
    /// Patterns left out.
    pub excludes: Excludes,
    /// Do not enter directories on another device than the root they are under; the mount point itself is kept.
    pub one_file_system: bool,
    /// Of a directory that holds a valid `CACHEDIR.TAG` keep only itself and that file.
    pub exclude_caches: bool,
    /// Directories left out wherever they appear, e.g. the agent's own state; recognised by device and inode.
    pub own_directories: Vec<PathBuf>,
    /// Folder for temporary files; the system's when `None`.
    pub spill_folder: Option<PathBuf>,
}

/// One object found.
#[derive(Clone, Debug)]
pub struct ScanItem {
    /// Where it stands.
    pub key: PathKey,
    /// Its status when it was found. What is read later is compared with this.
    pub stat: FileStat,
    /// Group of hard links, for anything but directories with more than one link. The number is a hash of the inode
    /// and of the first directory of this scan on the same device, so it is known at the first link, needs no table,
    /// and stays as long as the inode does, also when device numbers change with a reboot.
    pub link_group: Option<u64>,
    /// A directory above a root: here for its metadata only, its other contents are not part of the scan.
    pub is_ancestor: bool,
    pub(super) dir: Arc<Dir>,
    pub(super) follow: bool,
}

impl ScanItem {
    /// Its name in the directory it was found in (`.` for the root of the file system).
    pub(super) fn name(&self) -> &[u8] {
        match self.key.name() {
            [] => b".",
            name => name,
        }
    }

    /// What it is.
    pub fn kind(&self) -> FileKind {
        self.stat.kind
    }
}

/// Why something is missing from a scan.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum WarningKind {
    /// It was there when its directory was listed and no more when it was looked at.
    Vanished,
    /// It could not be looked at, listed or read.
    Unreadable,
    /// Its path is too long for the repository format, or its kind unknown.
    Unsupported,
    /// Nothing is missing, but the person may have meant something else: a root is a symbolic link to a directory,
    /// and only the link is kept. A slash at the end of the root means the directory.
    RootIsLink,
}

/// Something the scan could not give.
#[derive(Debug)]
pub struct ScanWarning {
    /// Absolute path.
    pub path: Vec<u8>,
    /// Its kind.
    pub kind: WarningKind,
    /// The cause in words.
    pub error: io::Error,
}

/// What the scan yields.
#[derive(Debug)]
pub enum ScanEvent {
    /// An object; keys are strictly ascending over the whole scan.
    Item(ScanItem),
    /// Something left out against its will.
    Warning(ScanWarning),
}

/// Why a scan cannot start.
#[derive(Debug, thiserror::Error)]
pub enum ScanError {
    /// A root cannot be scanned.
    #[error(transparent)]
    Root(#[from] RootError),
    /// The file system's root directory cannot be opened.
    #[error("cannot open /: {0}")]
    FileSystemRoot(#[source] io::Error),
}

/// A directory on the way down.
struct Frame {
    dir: Arc<Dir>,
    /// Length of the path prefix that names it.
    prefix_len: usize,
    names: Option<SortedNames>,
    waiting: WaitingNames,
    /// `Some` for a directory above the roots: only these are taken.
    only: Option<Node>,
    /// Device of the scan root it is under; `None` above the roots.
    device: Option<u64>,
    /// Only the cache tag is kept.
    is_cache: bool,
}

/// The scan; an iterator of [`ScanEvent`].
pub struct Scanner {
    options: ScanOptions,
    own: Vec<(u64, u64)>,
    base: Arc<Dir>,
    /// Still to be started from.
    start: Option<Node>,
    stack: Vec<Frame>,
    /// Components of the directory being listed or left, each followed by 00.
    prefix: Vec<u8>,
    /// Key of the directory on top of the stack.
    key: PathKey,
    waiting: WaitingStack,
    warnings: Vec<ScanWarning>,
    name: Vec<u8>,
    buffer: Vec<u8>,
    listing_bytes_max: usize,
    devices: Vec<(u64, blake3::Hash)>,
    directories_listed: u64,
}

impl Scanner {
    /// A scan of absolute `roots`; those inside another root are covered by it. A root that does not exist is an
    /// error here, not a warning later.
    ///
    /// Symbolic links in the directories above a root are followed and those directories kept as directories. A root
    /// that is itself a link is kept as a link, unless it ends in a slash.
    pub fn new<P: AsRef<Path>>(roots: impl IntoIterator<Item = P>, options: ScanOptions) -> Result<Self, ScanError> {
        let roots = Roots::new(roots)?;
        let pool = FdPool::for_process();
        let base = Dir::base(Path::new("/"), &pool).map_err(ScanError::FileSystemRoot)?;
        let identity = |path: &PathBuf| {
            let stat = rustix::fs::stat(path.as_path()).ok()?;
            let stat = FileStat::from_raw(&stat);
            Some((stat.dev, stat.ino))
        };
        let own = options.own_directories.iter().filter_map(identity).collect();
        let place = SpillPlace(options.spill_folder.clone());
        let warnings = roots.links_to_directories.into_iter().map(|path| ScanWarning {
            path,
            kind: WarningKind::RootIsLink,
            error: io::Error::other("a symbolic link: only the link is kept; end it with a slash for the directory"),
        });
        Ok(Scanner {
            own,
            base,
            start: Some(roots.tree),
            stack: Vec::new(),
            prefix: Vec::new(),
            key: PathKey::root(),
            waiting: WaitingStack::new(WAITING_BYTES_MAX, place),
            warnings: warnings.collect(),
            name: Vec::new(),
            buffer: Vec::new(),
            listing_bytes_max: LISTING_BYTES_MAX,
            devices: Vec::new(),
            directories_listed: 0,
            options,
        })
    }

    /// Directories listed so far.
    pub fn directories_listed(&self) -> u64 {
        self.directories_listed
    }

    fn warn(&mut self, path: Vec<u8>, error: io::Error) {
        let kind = match error.kind() {
            io::ErrorKind::NotFound => WarningKind::Vanished,
            io::ErrorKind::InvalidFilename => WarningKind::Unsupported,
            _ => WarningKind::Unreadable,
        };
        self.warnings.push(ScanWarning { path, kind, error });
    }

    /// Path of the directory on top, or of `name` in it.
    fn path(&self, name: Option<&[u8]>) -> Vec<u8> {
        let mut path = vec![b'/'];
        path.extend(self.prefix.iter().map(|&byte| if byte == 0 { b'/' } else { byte }));
        match name {
            Some(name) => path.extend_from_slice(name),
            None if path.len() > 1 => {
                path.pop();
            }
            None => {}
        }
        path
    }

    /// Number of the hard-link group of an object first seen in the directory on top.
    fn link_group(&mut self, stat: &FileStat) -> Option<u64> {
        if stat.nlink < 2 || stat.kind == FileKind::Directory {
            return None;
        }
        let label = self.device_label(stat.dev);
        let mut hasher = blake3::Hasher::new();
        hasher.update(label.as_bytes());
        hasher.update(&stat.ino.to_le_bytes());
        let (number, _) = hasher.finalize().as_bytes().split_first_chunk::<8>().map(|(first, rest)| (*first, rest))?;
        Some(u64::from_le_bytes(number))
    }

    fn device_label(&mut self, dev: u64) -> blake3::Hash {
        if let Some((_, label)) = self.devices.iter().find(|(known, _)| *known == dev) {
            return *label;
        }
        let label = blake3::hash(&self.prefix);
        self.devices.push((dev, label));
        label
    }

    /// The root directory's own entry, and the first frame.
    fn begin(&mut self, node: Node) -> Option<ScanEvent> {
        let stat = match self.base.stat(b".", true) {
            Ok(stat) => stat,
            Err(error) => {
                self.warn(b"/".to_vec(), error);
                return None;
            }
        };
        let is_ancestor = !node.is_root;
        self.device_label(stat.dev);
        let dir = self.base.clone();
        self.push_frame(dir.clone(), node, None);
        Some(ScanEvent::Item(ScanItem { key: PathKey::root(), stat, link_group: None, is_ancestor, dir, follow: true }))
    }

    /// Lists a directory and puts it on the stack. `self.prefix` names it already.
    fn push_frame(&mut self, dir: Arc<Dir>, node: Node, device: Option<u64>) {
        let mut frame = Frame {
            prefix_len: self.prefix.len(),
            names: None,
            waiting: WaitingNames::default(),
            only: None,
            device,
            is_cache: false,
            dir,
        };
        self.device_label(frame.dir.identity().0);
        if node.is_root {
            frame.device = Some(device.unwrap_or(frame.dir.identity().0));
            self.directories_listed += 1;
            match self.list(&frame.dir) {
                Ok(names) => {
                    frame.is_cache =
                        self.options.exclude_caches && names.contains(CACHE_TAG_NAME) && is_cache_tag(&frame.dir);
                    frame.names = Some(names);
                }
                Err(error) => self.warn(self.path(None), error),
            }
        } else {
            match SortedNames::of(node.children.keys().map(Vec::as_slice)) {
                Ok(names) => frame.names = Some(names),
                Err(error) => self.warn(self.path(None), error),
            }
            frame.only = Some(node);
        }
        self.stack.push(frame);
    }

    fn list(&mut self, dir: &Dir) -> io::Result<SortedNames> {
        let mut sorter = NameSorter::new(self.listing_bytes_max, SpillPlace(self.options.spill_folder.clone()));
        // A directory is listed once, right after it was opened, so its descriptor stands at the beginning.
        let fd = dir.fd()?;
        self.buffer.reserve_exact(DIRECTORY_BUFFER_BYTES);
        let spare: &mut [MaybeUninit<u8>] = self.buffer.spare_capacity_mut();
        let mut entries = RawDir::new(&*fd, spare);
        let mut failed = None;
        while let Some(entry) = entries.next() {
            match entry {
                Ok(entry) => match entry.file_name().to_bytes() {
                    b"." | b".." => {}
                    name => sorter.push(name)?,
                },
                Err(Errno::INTR) => {}
                // Opened for searching only, because listing is not allowed.
                Err(Errno::BADF) => return Err(io::ErrorKind::PermissionDenied.into()),
                Err(errno) => {
                    failed = Some(errno);
                    break;
                }
            }
        }
        if let Some(errno) = failed {
            // What was listed before the error is kept.
            self.warn(self.path(None), errno.into());
        }
        sorter.finish()
    }

    /// The next object of the directory on top; `None` when its names are used up.
    fn next_in_listing(&mut self) -> Option<ScanEvent> {
        loop {
            let frame = self.stack.last_mut()?;
            let names = frame.names.as_mut()?;
            let mut name = std::mem::take(&mut self.name);
            let more = names.next(&mut name);
            let result = match more {
                Ok(true) => self.take(&name),
                Ok(false) => {
                    if let Some(frame) = self.stack.last_mut() {
                        frame.names = None;
                    }
                    self.name = name;
                    return None;
                }
                Err(error) => {
                    if let Some(frame) = self.stack.last_mut() {
                        frame.names = None;
                    }
                    self.warn(self.path(None), error);
                    None
                }
            };
            self.name = name;
            if result.is_some() {
                return result;
            }
            if !self.warnings.is_empty() {
                return self.warnings.pop().map(ScanEvent::Warning);
            }
        }
    }

    /// Looks at `name` of the directory on top.
    fn take(&mut self, name: &[u8]) -> Option<ScanEvent> {
        let frame = self.stack.last()?;
        let dir = frame.dir.clone();
        let child = frame.only.as_ref().and_then(|only| only.children.get(name));
        let is_ancestor = child.is_some_and(|child| !child.is_root);
        let follow = child.is_some_and(|child| child.follow || !child.is_root);
        let is_named = child.is_some();
        let device = frame.device;
        if frame.is_cache && name != CACHE_TAG_NAME {
            return None;
        }
        let stat = match dir.stat(name, follow) {
            Ok(stat) => stat,
            Err(error) => {
                self.warn(self.path(Some(name)), error);
                return None;
            }
        };
        let is_directory = stat.kind == FileKind::Directory;
        // What a person named outright is not excluded by a pattern.
        if !is_named && !self.options.excludes.is_empty() {
            let path = self.path(Some(name));
            if self.options.excludes.excludes(&path, is_directory) {
                return None;
            }
        }
        if is_directory && self.own.contains(&(stat.dev, stat.ino)) {
            return None;
        }
        let key = match self.key.child(name) {
            Ok(key) => key,
            Err(error) => {
                self.warn(self.path(Some(name)), io::Error::new(io::ErrorKind::InvalidFilename, error.to_string()));
                return None;
            }
        };
        if stat.kind == FileKind::Unknown {
            let error = io::Error::new(io::ErrorKind::InvalidFilename, "an unknown kind of object");
            self.warn(self.path(Some(name)), error);
            return None;
        }
        let stays = !self.options.one_file_system || device.is_none_or(|device| device == stat.dev);
        if is_directory
            && stays
            && let Some(frame) = self.stack.last_mut()
            && let Err(error) = frame.waiting.push(&mut self.waiting, name)
        {
            self.warn(self.path(Some(name)), error);
        }
        let link_group = self.link_group(&stat);
        Some(ScanEvent::Item(ScanItem { key, stat, link_group, is_ancestor, dir, follow }))
    }

    /// Enters the next waiting subdirectory of the directory on top, or leaves it.
    fn descend(&mut self) {
        let Some(frame) = self.stack.last_mut() else { return };
        self.prefix.truncate(frame.prefix_len);
        let mut name = std::mem::take(&mut self.name);
        let more = frame.waiting.next(&mut self.waiting, &mut name);
        match more {
            Ok(true) => self.enter(&name),
            Ok(false) => {
                self.stack.pop();
            }
            Err(error) => {
                self.warn(self.path(None), error);
                self.stack.pop();
            }
        }
        self.name = name;
    }

    fn enter(&mut self, name: &[u8]) {
        let Some(frame) = self.stack.last_mut() else { return };
        let (node, device) = match frame.only.as_mut().and_then(|only| only.children.remove(name)) {
            Some(node) => (node, None),
            None => (Node::root(), frame.device),
        };
        let dir = frame.dir.open_child(name, node.follow || !node.is_root);
        let left = self.options.one_file_system
            && device.is_some_and(|device| {
                // Something was mounted here since it was looked at.
                dir.as_ref().is_ok_and(|dir| dir.identity().0 != device)
            });
        let key = self.key_of_top().and_then(|top| {
            top.child(name).map_err(|error| io::Error::new(io::ErrorKind::InvalidFilename, error.to_string()))
        });
        match (dir, key) {
            (Ok(dir), Ok(key)) if !left => {
                self.prefix.extend_from_slice(name);
                self.prefix.push(0);
                self.key = key;
                self.push_frame(dir, node, device);
            }
            (Ok(_), Ok(_)) => {}
            (Err(error), _) | (_, Err(error)) => self.warn(self.path(Some(name)), error),
        }
    }

    /// Key of the directory that `self.prefix` names.
    fn key_of_top(&self) -> io::Result<PathKey> {
        PathKey::from_path(&self.path(None))
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidFilename, error.to_string()))
    }
}

impl Iterator for Scanner {
    type Item = ScanEvent;

    fn next(&mut self) -> Option<ScanEvent> {
        loop {
            if let Some(warning) = self.warnings.pop() {
                return Some(ScanEvent::Warning(warning));
            }
            if let Some(node) = self.start.take() {
                if let Some(event) = self.begin(node) {
                    return Some(event);
                }
                continue;
            }
            let frame = self.stack.last()?;
            if frame.names.is_some() {
                if let Some(event) = self.next_in_listing() {
                    return Some(event);
                }
            } else {
                self.descend();
            }
        }
    }
}

fn is_cache_tag(dir: &Dir) -> bool {
    let read = || -> io::Result<bool> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let fd = open_without_access_time(&*dir.fd()?, CACHE_TAG_NAME, flags)?;
        let mut start = [0; CACHE_TAG_SIGNATURE.len()];
        let len = rustix::io::pread(&fd, &mut start, 0)?;
        Ok(start.get(..len) == Some(CACHE_TAG_SIGNATURE))
    };
    read().unwrap_or(false)
}

#[cfg(test)]
mod tests;
