//! Puts a snapshot's entries below a target directory. Nothing outside the target is ever touched: names come checked
//! from their path keys, directories are opened one component at a time, and no link below the target is followed.

mod apply;
mod conflict;
mod finish;
mod links;
mod owner_map;
mod pending;
mod places;
mod report;
mod writer;

pub use conflict::{Conflict, ConflictPolicy};
pub use owner_map::{OwnerMap, OwnerMapError};
pub use report::{Problem, ProblemKind, RestoreReport};
pub use writer::FileWriter;

use super::dir::Dir;
use super::fd_pool::FdPool;
use super::names::SpillPlace;
use super::owners::Owners;
use super::stat::{FileKind, FileStat};
use super::xattr::RawXattr;
use apply::{Attributes, Problems, apply_named};
use conflict::Decision;
use links::{FirstLink, Links, Role};
use parking_lot::Mutex;
use pending::{PENDING_BYTES_MAX, PendingDirectory, PendingStack};
use places::{Found, Place, Places, make_beside, make_directory};
use repo_format::codec::{put_bytes, put_varint, put_varint_signed};
use repo_format::entry::{Entry, EntryKind, PathKey, XattrValue};
use repo_format::id::ChunkId;
use repo_format::limits::BUNDLED_FILE_BYTES_MAX;
use rustix::fs::{AtFlags, FileType, Mode, chmodat, makedev, mknodat, symlinkat, unlinkat};
use rustix::io::Errno;
use std::collections::HashSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use writer::{Destination, NewFile, create_exclusively, remove_if_same, rename_over};

/// Files up to this size are created under their own name, since they are whole a moment later; larger ones get it
/// when they are whole.
const IN_PLACE_BYTES_MAX: u64 = BUNDLED_FILE_BYTES_MAX as u64;

/// Why an entry, or a whole restore, failed.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// Something is in its place, and the policy is to stop.
    #[error("{0}")]
    Conflict(Conflict),
    /// The system refused. Other entries may still succeed, except when storage is full.
    #[error("{}: {error}", String::from_utf8_lossy(path))]
    Io {
        /// Path of the entry.
        path: Vec<u8>,
        /// Cause.
        error: io::Error,
    },
    /// The target itself cannot be opened or made.
    #[error("restore target {}: {error}", path.display())]
    Target {
        /// As given.
        path: PathBuf,
        /// Cause.
        error: io::Error,
    },
    /// A temporary file of the restore failed; directory metadata or hard links may be missing.
    #[error("temporary file of the restore: {0}")]
    TemporaryFile(io::Error),
}

impl RestoreError {
    fn io(key: &PathKey, error: io::Error) -> Self {
        RestoreError::Io { path: key.to_path(), error }
    }

    /// Whether the target has no space left, so that going on is useless.
    pub fn is_storage_full(&self) -> bool {
        matches!(self, RestoreError::Io { error, .. }
            if matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded))
    }
}

/// How a restore behaves.
#[derive(Clone, Debug, Default)]
pub struct RestoreOptions {
    /// What to do where something is already.
    pub on_conflict: ConflictPolicy,
    /// Who owns what comes back.
    pub owners: OwnerMap,
    /// Folder for temporary files; the system's when `None`.
    pub spill_folder: Option<PathBuf>,
}

/// What became of an entry.
#[derive(Debug)]
pub enum Created {
    /// It is there (a directory gets its metadata at the end).
    Done,
    /// A regular file: write its data (not its holes), then finish it.
    File(Box<FileWriter>),
    /// Another name of an object restored already; linked at the end. Its content is not wanted again.
    LinkedLater,
    /// Left out: because of the conflict policy, or because this user may not make it. Counted in the report.
    LeftOut,
}

/// State shared by the target and the files being written.
#[derive(Debug)]
pub(super) struct Shared {
    options: RestoreOptions,
    owners: Owners,
    files: Arc<FdPool>,
    report: Mutex<RestoreReport>,
    links: Mutex<Links>,
    temporary_number: AtomicU64,
}

impl Shared {
    fn problems(&self, key: &PathKey, problems: Problems) {
        if problems.is_empty() {
            return;
        }
        let mut report = self.report.lock();
        for (kind, cause) in problems {
            report.problem(key.to_path(), kind, cause);
        }
    }

    fn problem(&self, key: &PathKey, kind: ProblemKind, cause: impl Into<String>) {
        self.report.lock().problem(key.to_path(), kind, cause.into());
    }

    fn attributes(&self, entry: &Entry, xattrs: Vec<RawXattr>, replaces_xattrs: bool) -> Attributes {
        let (uid, gid) = self.options.owners.owner_of(entry, &self.owners);
        Attributes { mode: entry.mode, uid, gid, mtime: entry.mtime, xattrs, replaces_xattrs }
    }

    /// Calls `make` with temporary names until one is free.
    fn make_temporary<T>(&self, mut make: impl FnMut(&[u8]) -> Result<T, Errno>) -> Result<(T, Vec<u8>), Errno> {
        loop {
            let number = self.temporary_number.fetch_add(1, Ordering::Relaxed);
            let name = format!(".holdfast-{:x}-{number:x}.part", std::process::id()).into_bytes();
            match make(&name) {
                Err(Errno::EXIST) => {}
                other => return other.map(|made| (made, name)),
            }
        }
    }
}

/// Attributes of an entry with their whole values; `fetch` gets those that are chunks (id, length in bytes).
pub fn raw_xattrs<E>(
    entry: &Entry,
    mut fetch: impl FnMut(&ChunkId, u32) -> Result<Vec<u8>, E>,
) -> Result<Vec<RawXattr>, E> {
    let whole = |xattr: &repo_format::entry::Xattr| {
        let value = match &xattr.value {
            XattrValue::Inline(value) => value.clone(),
            XattrValue::Chunk { chunk, len } => fetch(chunk, *len)?,
        };
        Ok(RawXattr { name: xattr.name.clone(), value })
    };
    entry.xattrs.iter().map(whole).collect()
}

/// A directory that a snapshot, or part of one, is being restored into.
///
/// Give directories before what is in them (ascending keys do), from one thread; files may be written by many.
pub struct RestoreTarget {
    shared: Arc<Shared>,
    /// The target is new or empty, so it takes the metadata of the root entry.
    base_is_ours: bool,
    places: Mutex<Places>,
    directories: Mutex<PendingStack>,
    links: Mutex<PendingStack>,
    probe: Mutex<Probe>,
}

#[derive(Default)]
struct Probe {
    missing: Option<Vec<u8>>,
    blocked: HashSet<Vec<u8>>,
}

impl RestoreTarget {
    /// Opens a target, made with its parents if it does not exist. Links in `path` itself are followed: a person
    /// named it.
    pub fn open(path: &Path, options: RestoreOptions) -> Result<Self, RestoreError> {
        let error = |error| RestoreError::Target { path: path.to_owned(), error };
        std::fs::create_dir_all(path).map_err(error)?;
        Self::open_existing(path, options)
    }

    /// Opens a target that must exist; writes nothing. `NotFound` means that nothing can be in conflict.
    pub fn open_existing(path: &Path, options: RestoreOptions) -> Result<Self, RestoreError> {
        let error = |error| RestoreError::Target { path: path.to_owned(), error };
        let base = Dir::base(path, &FdPool::for_process()).map_err(error)?;
        let base_is_ours = std::fs::read_dir(path).map_err(error)?.next().is_none();
        let place = || SpillPlace(options.spill_folder.clone());
        Ok(RestoreTarget {
            base_is_ours,
            places: Mutex::new(Places::new(base)),
            directories: Mutex::new(PendingStack::new(PENDING_BYTES_MAX, place())),
            links: Mutex::new(PendingStack::new(PENDING_BYTES_MAX, place())),
            probe: Mutex::new(Probe::default()),
            shared: Arc::new(Shared {
                options,
                owners: Owners::default(),
                files: FdPool::for_files(),
                report: Mutex::default(),
                links: Mutex::default(),
                temporary_number: AtomicU64::new(0),
            }),
        })
    }

    /// Whether the target held nothing when it was opened: then there can be no conflicts.
    pub fn was_empty(&self) -> bool {
        self.base_is_ours
    }

    /// What has happened so far.
    pub fn report(&self) -> RestoreReport {
        self.shared.report.lock().clone()
    }

    /// What stands in the way of an entry; writes nothing. Ask for every entry in key order before the first
    /// [`RestoreTarget::create`] when the policy is to stop, and for a dry run.
    pub fn conflict(&self, key: &PathKey, entry: &Entry) -> Result<Option<Conflict>, RestoreError> {
        let error = |error| RestoreError::io(key, error);
        if key.is_root() {
            return Ok(None);
        }
        let mut probe = self.probe.lock();
        if probe.missing.as_ref().is_some_and(|prefix| key.as_bytes().starts_with(prefix)) {
            return Ok(None);
        }
        let place = match self.places.lock().parent(key, false).map_err(error)? {
            Found::Place(place) => place,
            Found::LeftOut => return Ok(None),
            Found::Missing => {
                // Everything else in this directory and below is missing too.
                let prefix: Vec<u8> = key.directory().flat_map(|part| part.iter().copied().chain([0])).collect();
                probe.missing = Some(prefix);
                return Ok(None);
            }
            Found::Blocked { prefix, name, parent } => {
                // Reported once, unless the directory's own entry was.
                if !probe.blocked.insert(prefix.clone()) {
                    return Ok(None);
                }
                let existing = parent.dir.stat(&name, false).map_err(error)?.kind;
                let mut path = vec![b'/'];
                path.extend(prefix.iter().map(|&byte| if byte == 0 { b'/' } else { byte }));
                path.pop();
                return Ok(Some(Conflict { path, existing }));
            }
        };
        match place.dir.stat(key.name(), false) {
            Ok(existing) if existing.kind == FileKind::Directory && entry.kind == EntryKind::Directory => Ok(None),
            Ok(existing) => {
                if entry.kind == EntryKind::Directory {
                    probe.blocked.insert(key.subtree_prefix());
                }
                Ok(Some(Conflict { path: key.to_path(), existing: existing.kind }))
            }
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(cause) => Err(error(cause)),
        }
    }

    /// Brings an entry back, except for a file's content. The path of `key` is taken below the target; `xattrs` are
    /// the entry's with whole values ([`raw_xattrs`]). An error concerns this entry only.
    pub fn create(&self, key: &PathKey, entry: &Entry, xattrs: Vec<RawXattr>) -> Result<Created, RestoreError> {
        if key.is_root() {
            if self.base_is_ours && entry.kind == EntryKind::Directory {
                self.defer_directory(key, self.shared.attributes(entry, xattrs, false))?;
            }
            return Ok(Created::Done);
        }
        let parent = self.places.lock().parent(key, true).map_err(|error| RestoreError::io(key, error))?;
        let place = match parent {
            Found::Place(place) => place,
            Found::LeftOut => return Ok(self.left_out()),
            Found::Missing => return Err(RestoreError::io(key, io::ErrorKind::NotFound.into())),
            Found::Blocked { name, parent, .. } => return self.blocked(key, entry, &parent, &name),
        };
        if entry.kind == EntryKind::Directory {
            let attributes = self.shared.attributes(entry, xattrs, place.inherits);
            return self.create_directory(key, entry, &place, attributes);
        }
        let role = self.shared.links.lock().role(entry);
        if let Role::Other(group) = role {
            let mut record = Vec::with_capacity(key.as_bytes().len() + 16);
            put_varint(&mut record, group);
            put_varint_signed(&mut record, entry.mtime.seconds);
            put_varint(&mut record, u64::from(entry.mtime.nanoseconds));
            put_bytes(&mut record, key.as_bytes());
            self.links.lock().push(&record).map_err(RestoreError::TemporaryFile)?;
            return Ok(Created::LinkedLater);
        }
        let attributes = self.shared.attributes(entry, xattrs, place.inherits);
        let created = match entry.kind {
            EntryKind::File { size, .. } => self.create_file(key, entry, &place, attributes, role, size),
            _ => self.create_special(key, entry, &place, &attributes, role),
        };
        // A file's writer speaks for itself from here on.
        if !matches!(created, Ok(Created::Done | Created::File(_))) {
            self.shared.links.lock().failed(role);
        }
        created
    }

    /// Forgets which directories are open, as a long restore does.
    #[cfg(test)]
    fn forget_directories_for_test(&self) {
        let _ = self.places.lock().parent(&PathKey::root(), false);
    }

    fn left_out(&self) -> Created {
        self.shared.report.lock().skipped += 1;
        Created::LeftOut
    }

    /// A directory on the way, for which no entry was given, is something else here.
    fn blocked(&self, key: &PathKey, entry: &Entry, parent: &Place, name: &[u8]) -> Result<Created, RestoreError> {
        let existing = parent.dir.stat(name, false).map_err(|error| RestoreError::io(key, error))?;
        if let Decision::Stop = self.shared.options.on_conflict.decide(&existing, entry) {
            return Err(RestoreError::Conflict(Conflict { path: key.to_path(), existing: existing.kind }));
        }
        self.shared.problem(key, ProblemKind::InTheWay, "a directory above it is something else here");
        Ok(self.left_out())
    }

    fn defer_directory(&self, key: &PathKey, attributes: Attributes) -> Result<(), RestoreError> {
        let record = PendingDirectory { key: key.clone(), attributes }.encode();
        self.directories.lock().push(&record).map_err(RestoreError::TemporaryFile)
    }

    fn create_directory(
        &self,
        key: &PathKey,
        entry: &Entry,
        place: &Place,
        mut attributes: Attributes,
    ) -> Result<Created, RestoreError> {
        let error = |errno: Errno| RestoreError::io(key, errno.into());
        match make_directory(place, key.name()) {
            Ok(()) => {
                self.shared.report.lock().created += 1;
                self.defer_directory(key, attributes)?;
                return Ok(Created::Done);
            }
            Err(Errno::EXIST) => {}
            Err(errno) => return Err(error(errno)),
        }
        let existing = place.dir.stat(key.name(), false).map_err(|error| RestoreError::io(key, error))?;
        let policy = self.shared.options.on_conflict;
        if existing.kind == FileKind::Directory {
            let made = self.places.lock().was_made(key);
            let takes_metadata = made
                || policy == ConflictPolicy::Overwrite
                || (policy == ConflictPolicy::Newer && entry.mtime > existing.mtime);
            if takes_metadata {
                attributes.replaces_xattrs = true;
                self.open_for_owner(key, place, &existing)?;
                self.shared.report.lock().created += u64::from(made);
                self.defer_directory(key, attributes)?;
            }
            return Ok(Created::Done);
        }
        match policy.decide(&existing, entry) {
            Decision::Stop => {
                self.places.lock().leave_out(key);
                Err(RestoreError::Conflict(Conflict { path: key.to_path(), existing: existing.kind }))
            }
            Decision::Leave | Decision::InTheWay => {
                self.places.lock().leave_out(key);
                Ok(self.left_out())
            }
            Decision::Replace => {
                let dir = place.dir.fd().map_err(|error| RestoreError::io(key, error))?;
                unlinkat(&*dir, key.name(), AtFlags::empty()).map_err(error)?;
                make_directory(place, key.name()).map_err(error)?;
                self.count(true, false);
                self.defer_directory(key, attributes)?;
                Ok(Created::Done)
            }
            Decision::Beside => {
                let ((), name) = make_beside(key.name(), |name| make_directory(place, name)).map_err(error)?;
                self.places.lock().redirect(key, name);
                self.count(false, true);
                self.defer_directory(key, attributes)?;
                Ok(Created::Done)
            }
        }
    }

    /// A reused directory that its owner may not write gets its final permissions at the end anyway; until then it
    /// must be open to us.
    fn open_for_owner(&self, key: &PathKey, place: &Place, existing: &FileStat) -> Result<(), RestoreError> {
        if existing.mode & 0o700 == 0o700 || rustix::process::geteuid().is_root() {
            return Ok(());
        }
        let child = place.dir.open_child(key.name(), false).map_err(|error| RestoreError::io(key, error))?;
        let fd = child.fd().map_err(|error| RestoreError::io(key, error))?;
        // If it is not ours this fails, and what is in it will say so.
        let _ = chmodat(&*fd, ".", Mode::from_raw_mode((existing.mode | 0o700) as _), AtFlags::empty());
        Ok(())
    }

    fn count(&self, replaced: bool, kept_both: bool) {
        let mut report = self.shared.report.lock();
        report.created += 1;
        report.replaced += u64::from(replaced);
        report.kept_both += u64::from(kept_both);
    }

    fn create_file(
        &self,
        key: &PathKey,
        entry: &Entry,
        place: &Place,
        attributes: Attributes,
        role: Role,
        size: u64,
    ) -> Result<Created, RestoreError> {
        let error = |errno: Errno| RestoreError::io(key, errno.into());
        let open = |name: &[u8]| create_exclusively(place, name);
        let temporary = || self.shared.make_temporary(open);
        let name = key.name();
        let in_place = size <= IN_PLACE_BYTES_MAX;
        let first = if in_place {
            open(name)
        } else {
            match place.dir.stat(name, false) {
                Ok(_) => Err(Errno::EXIST),
                Err(cause) if cause.kind() == io::ErrorKind::NotFound => Err(Errno::NOENT),
                Err(cause) => return Err(RestoreError::io(key, cause)),
            }
        };
        let (fd, at, destination) = match first {
            Ok(fd) => (fd, name.to_vec(), Destination::InPlace),
            Err(Errno::NOENT) if !in_place => {
                let (fd, at) = temporary().map_err(error)?;
                (fd, at, Destination::Free(name.to_vec()))
            }
            Err(Errno::EXIST) => match self.decide(key, entry, place)? {
                Decision::Leave | Decision::InTheWay | Decision::Stop => return Ok(self.left_out()),
                Decision::Replace => {
                    let (fd, at) = temporary().map_err(error)?;
                    (fd, at, Destination::Over(name.to_vec()))
                }
                Decision::Beside => {
                    let (fd, at) = make_beside(name, open).map_err(error)?;
                    self.shared.report.lock().kept_both += 1;
                    (fd, at, Destination::InPlace)
                }
            },
            Err(errno) => return Err(error(errno)),
        };
        let new = NewFile { key: key.clone(), place: place.clone(), name: at, destination, attributes, role, size };
        let writer = FileWriter::new(self.shared.clone(), fd, new)?;
        if size == 0 {
            writer.finish()?;
            return Ok(Created::Done);
        }
        Ok(Created::File(Box::new(writer)))
    }

    /// What the policy says about the object in the place of an entry that is not a directory. `Stop` becomes an
    /// error here, a directory in the way a problem.
    fn decide(&self, key: &PathKey, entry: &Entry, place: &Place) -> Result<Decision, RestoreError> {
        let existing = place.dir.stat(key.name(), false).map_err(|error| RestoreError::io(key, error))?;
        let decision = self.shared.options.on_conflict.decide(&existing, entry);
        match decision {
            Decision::Stop => {
                return Err(RestoreError::Conflict(Conflict { path: key.to_path(), existing: existing.kind }));
            }
            Decision::InTheWay => self.shared.problem(key, ProblemKind::InTheWay, "it is not replaced"),
            _ => {}
        }
        Ok(decision)
    }

    fn create_special(
        &self,
        key: &PathKey,
        entry: &Entry,
        place: &Place,
        attributes: &Attributes,
        role: Role,
    ) -> Result<Created, RestoreError> {
        let error = |errno: Errno| RestoreError::io(key, errno.into());
        let make = |name: &[u8]| make_special(place, name, &entry.kind);
        let name = key.name();
        let (at, over) = match make(name) {
            Ok(()) => (name.to_vec(), false),
            Err(errno @ (Errno::PERM | Errno::ACCESS))
                if matches!(entry.kind, EntryKind::CharDevice { .. } | EntryKind::BlockDevice { .. }) =>
            {
                self.shared.problem(key, ProblemKind::Device, errno.to_string());
                return Ok(self.left_out());
            }
            Err(Errno::EXIST) => match self.decide(key, entry, place)? {
                Decision::Leave | Decision::InTheWay | Decision::Stop => return Ok(self.left_out()),
                Decision::Replace => (self.shared.make_temporary(make).map_err(error)?.1, true),
                Decision::Beside => {
                    let (_, at) = make_beside(name, make).map_err(error)?;
                    self.shared.report.lock().kept_both += 1;
                    (at, false)
                }
            },
            Err(errno) => return Err(error(errno)),
        };
        let failed = |error| RestoreError::io(key, error);
        let stat = place.dir.stat(&at, false).map_err(failed)?;
        let dir = place.dir.fd().map_err(failed)?;
        let problems = apply_named(rustix::fd::AsFd::as_fd(&*dir), &at, attributes).map_err(failed)?;
        self.shared.problems(key, problems);
        let mut at = at;
        if over {
            if let Err(cause) = rename_over(place, &at, name) {
                remove_if_same(place, &at, &stat);
                return Err(failed(cause));
            }
            at = name.to_vec();
        }
        let first = FirstLink { key: key.clone(), name: at, identity: (stat.dev, stat.ino) };
        self.shared.links.lock().whole(role, first);
        self.count(over, false);
        Ok(Created::Done)
    }
}

fn make_special(place: &Place, name: &[u8], kind: &EntryKind) -> Result<(), Errno> {
    let dir = place.dir.fd().map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))?;
    let node = |kind, device| mknodat(&*dir, name, kind, Mode::RUSR | Mode::WUSR, device);
    match kind {
        EntryKind::Symlink { target } => symlinkat(target.as_slice(), &*dir, name),
        EntryKind::Fifo => node(FileType::Fifo, 0),
        EntryKind::Socket => node(FileType::Socket, 0),
        EntryKind::CharDevice { major, minor } => node(FileType::CharacterDevice, makedev(*major, *minor)),
        EntryKind::BlockDevice { major, minor } => node(FileType::BlockDevice, makedev(*major, *minor)),
        EntryKind::File { .. } | EntryKind::Directory => Err(Errno::INVAL),
    }
}

#[cfg(test)]
mod tests;
