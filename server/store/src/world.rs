//! The outside world as the engine sees it: files, time and randomness, each behind a small trait with a contract per
//! verb. The only place in this crate that touches `std::fs`.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Wall-clock time. Everything that depends on time takes it from here, so that tests can move it.
pub trait Clock: Send + Sync {
    /// Nanoseconds since 1970 UTC.
    fn now_ns(&self) -> i64;
    /// Nanoseconds since some moment before this process; goes on while the machine sleeps, and nobody sets it. A clock
    /// that has no such hand shows its time twice: then no step of it is one.
    fn monotonic_ns(&self) -> i64 {
        self.now_ns()
    }
}

/// The system's clock.
#[derive(Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now_ns(&self) -> i64 {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        i64::try_from(now.as_nanos()).unwrap_or(i64::MAX)
    }
    fn monotonic_ns(&self) -> i64 {
        let since_boot = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
        since_boot.tv_sec.saturating_mul(1_000_000_000).saturating_add(since_boot.tv_nsec)
    }
}

/// Random bytes for ids, keys and nonces.
pub trait Random: Send + Sync {
    /// Fills `out` with unpredictable bytes.
    fn fill(&self, out: &mut [u8]) -> io::Result<()>;
}

/// The system's source of randomness.
#[derive(Debug, Default)]
pub struct SystemRandom;

impl Random for SystemRandom {
    fn fill(&self, out: &mut [u8]) -> io::Result<()> {
        getrandom::fill(out).map_err(|error| io::Error::other(error.to_string()))
    }
}

/// An open file. Offsets and lengths are bytes.
pub trait VfsFile: Send + Sync {
    /// Writes all of `bytes` at `offset`. Not durable until [`VfsFile::sync_data`] has returned.
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()>;
    /// Fills `out` from `offset`; `UnexpectedEof` when the file ends before.
    fn read_at(&self, offset: u64, out: &mut [u8]) -> io::Result<()>;
    /// Everything written before the call is on disk when this returns. After an error nothing is known: the file must
    /// not be written or synced again.
    fn sync_data(&self) -> io::Result<()>;
    /// Current length.
    fn len(&self) -> io::Result<u64>;
    /// Whether the file holds no bytes.
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }
    /// Cuts the file. Durable with the next `sync_data`.
    fn truncate(&self, len: u64) -> io::Result<()>;
}

/// Space on the volume that holds a path, bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Space {
    /// Available to this process.
    pub free: u64,
    /// Size of the volume.
    pub total: u64,
}

/// A file system. A created, renamed or removed name is durable only after [`Vfs::sync_dir`] of its directory.
pub trait Vfs: Send + Sync {
    /// Creates a file for reading and writing, mode 0600; `AlreadyExists` when the name is taken.
    fn create_new(&self, path: &Path) -> io::Result<Arc<dyn VfsFile>>;
    /// Opens a file for reading.
    fn open(&self, path: &Path) -> io::Result<Arc<dyn VfsFile>>;
    /// Opens an existing file for reading and writing.
    fn open_write(&self, path: &Path) -> io::Result<Arc<dyn VfsFile>>;
    /// Makes the names in `directory` durable.
    fn sync_dir(&self, directory: &Path) -> io::Result<()>;
    /// Replaces `to` by `from` in one step.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Removes a file.
    fn remove_file(&self, path: &Path) -> io::Result<()>;
    /// Creates a directory and its parents, mode 0700. The names of those it creates are durable on return, and so is the
    /// name of `path`, also where it was there before: an attempt that failed or was killed may have left it in memory.
    fn create_dir_all(&self, path: &Path) -> io::Result<()>;
    /// File names in a directory, unordered; empty when it does not exist.
    fn list(&self, directory: &Path) -> io::Result<Vec<String>>;
    /// Space on the volume.
    fn space(&self, path: &Path) -> io::Result<Space>;
    /// Removes an empty directory. A file system whose directories are only parts of names has nothing to do.
    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        let _ = path;
        Ok(())
    }
    /// Whether two existing directories are on one volume, so that they fill up together.
    fn is_one_volume(&self, one: &Path, other: &Path) -> io::Result<bool> {
        let _ = (one, other);
        Ok(true)
    }
    /// From now on the file is read from the disk. After a failed write or sync memory may hold, and show, bytes that are
    /// not there; what a process that was killed had written is synced first.
    fn read_from_disk(&self, path: &Path) -> io::Result<()> {
        let _ = path;
        Ok(())
    }
    /// Creates a file for which `len` bytes are taken from the volume. Length and contents are undefined.
    fn create_reserved(&self, path: &Path, len: u64) -> io::Result<()> {
        static PIECE: [u8; 64 << 10] = [0; 64 << 10];
        let file = self.create_new(path)?;
        let mut offset = 0;
        while offset < len {
            let piece = PIECE.len().min((len - offset) as usize);
            file.write_at(offset, &PIECE[..piece])?;
            offset += piece as u64;
        }
        file.sync_data()
    }

    /// Removes a directory with the files in it, which may itself hold directories of files.
    fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        for name in self.list(path)? {
            let inside = path.join(name);
            match self.remove_file(&inside) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                // Linux says so of a directory, POSIX otherwise.
                Err(error) if is_directory(&error) => self.remove_dir_all(&inside)?,
                removed => removed?,
            }
        }
        match self.remove_dir(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// The whole file.
    fn read(&self, path: &Path, bytes_max: u64) -> io::Result<Vec<u8>> {
        let file = self.open(path)?;
        let len = file.len()?;
        if len > bytes_max {
            return Err(io::Error::new(io::ErrorKind::InvalidData, format!("{} is too large", path.display())));
        }
        let mut bytes = vec![0; len as usize];
        file.read_at(0, &mut bytes)?;
        Ok(bytes)
    }

    /// Replaces a small file so that after a crash it is either the old or the new one; durable on return.
    fn replace(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        let directory = path.parent().unwrap_or(Path::new("."));
        let mut temporary = path.as_os_str().to_owned();
        temporary.push(".new");
        let temporary = PathBuf::from(temporary);
        match self.remove_file(&temporary) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let file = self.create_new(&temporary)?;
        file.write_at(0, bytes)?;
        file.sync_data()?;
        self.rename(&temporary, path)?;
        self.sync_dir(directory)
    }
}

fn is_directory(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::IsADirectory | io::ErrorKind::PermissionDenied)
}

/// The real file system.
#[derive(Debug, Default)]
pub struct SystemVfs;

struct SystemFile(std::fs::File);

impl VfsFile for SystemFile {
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        std::os::unix::fs::FileExt::write_all_at(&self.0, bytes, offset)
    }
    fn read_at(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        std::os::unix::fs::FileExt::read_exact_at(&self.0, out, offset)
    }
    fn sync_data(&self) -> io::Result<()> {
        self.0.sync_data()
    }
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }
    fn truncate(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }
}

impl Vfs for SystemVfs {
    fn create_new(&self, path: &Path) -> io::Result<Arc<dyn VfsFile>> {
        use std::os::unix::fs::OpenOptionsExt;
        let file = std::fs::OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(path)?;
        Ok(Arc::new(SystemFile(file)))
    }
    fn open(&self, path: &Path) -> io::Result<Arc<dyn VfsFile>> {
        Ok(Arc::new(SystemFile(std::fs::File::open(path)?)))
    }
    fn open_write(&self, path: &Path) -> io::Result<Arc<dyn VfsFile>> {
        Ok(Arc::new(SystemFile(std::fs::OpenOptions::new().read(true).write(true).open(path)?)))
    }
    fn sync_dir(&self, directory: &Path) -> io::Result<()> {
        std::fs::File::open(directory)?.sync_all()
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        std::fs::rename(from, to)
    }
    fn remove_file(&self, path: &Path) -> io::Result<()> {
        std::fs::remove_file(path)
    }
    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        use std::os::unix::fs::DirBuilderExt;
        let Some(parent) = path.parent() else { return Ok(()) };
        let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
        if path.is_dir() {
            return match self.sync_dir(parent) {
                // Made by someone else, in a directory that is none of ours.
                Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Ok(()),
                synced => synced,
            };
        }
        if !parent.is_dir() {
            self.create_dir_all(parent)?;
        }
        match std::fs::DirBuilder::new().mode(0o700).create(path) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        self.sync_dir(parent)
    }
    fn list(&self, directory: &Path) -> io::Result<Vec<String>> {
        let entries = match std::fs::read_dir(directory) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries?,
        };
        let mut names = Vec::new();
        for entry in entries {
            // Names that are not UTF-8 are not ours.
            if let Ok(name) = entry?.file_name().into_string() {
                names.push(name);
            }
        }
        Ok(names)
    }
    fn space(&self, path: &Path) -> io::Result<Space> {
        let volume = rustix::fs::statvfs(path)?;
        Ok(Space { free: volume.f_bavail * volume.f_frsize, total: volume.f_blocks * volume.f_frsize })
    }
    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        std::fs::remove_dir(path)
    }
    fn is_one_volume(&self, one: &Path, other: &Path) -> io::Result<bool> {
        use std::os::unix::fs::MetadataExt;
        Ok(std::fs::metadata(one)?.dev() == std::fs::metadata(other)?.dev())
    }
    fn read_from_disk(&self, path: &Path) -> io::Result<()> {
        let file = std::fs::OpenOptions::new().read(true).write(true).open(path)?;
        file.sync_data()?;
        Ok(rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed)?)
    }
    fn create_reserved(&self, path: &Path, len: u64) -> io::Result<()> {
        use std::os::unix::fs::OpenOptionsExt;
        let file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
        rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::KEEP_SIZE, 0, len)?;
        file.sync_all()
    }
}

/// Everything outside, handed to the engine at once.
#[derive(Clone)]
pub struct World {
    /// Files.
    pub vfs: Arc<dyn Vfs>,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Randomness.
    pub random: Arc<dyn Random>,
}

impl World {
    /// The real one.
    pub fn system() -> Self {
        World { vfs: Arc::new(SystemVfs), clock: Arc::new(SystemClock), random: Arc::new(SystemRandom) }
    }

    /// `N` random bytes.
    pub fn random_bytes<const N: usize>(&self) -> io::Result<[u8; N]> {
        let mut bytes = [0; N];
        self.random.fill(&mut bytes)?;
        Ok(bytes)
    }
}
