//! Simulated disks where the kernel shows them to everybody: a file system in user space, so that the real RocksDB and
//! the engine over the system's own files lose power as the simulated ones do. Every disk is a folder of its own below
//! the mount point, so that a state after a crash is opened beside the one it comes from.
//!
//! A process that is killed while it waits for its own mount cannot end by itself: a guard in a process of its own ends
//! the connection within half a minute. Where that takes root or a mounted fusectl and there is neither, the mount is
//! only taken out of sight.

use crate::sim_vfs::{Disk, Node};
use fuser::{
    BackgroundSession, Config, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation, INodeNo,
    LockOwner, MountOption, OpenFlags, RenameFlags, ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory, ReplyEmpty,
    ReplyEntry, ReplyOpen, ReplyStatfs, ReplyWrite, Request, TimeOrNow, WriteFlags,
};
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Disks change only through the kernel, which may keep what it knows.
const TTL: Duration = Duration::from_secs(3600);
const BLOCK_BYTES: u32 = 4096;
/// What a volume claims to hold, blocks.
const BLOCKS: u64 = 1 << 28;
/// Bits of a file's number that tell it from others of its disk; the others are the disk's.
const DISK_SHIFT: u32 = 32;

/// Syncs that are answered and not done.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Lie {
    /// Of files whose names start so.
    Starting(&'static str),
    /// Of files whose names end so.
    Ending(&'static str),
    /// Of directories that hold a file whose name starts so.
    DirectoryOf(&'static str),
}

impl Lie {
    fn is_told_of(self, name: &str) -> bool {
        match self {
            Lie::Starting(start) => name.starts_with(start),
            Lie::Ending(end) => name.ends_with(end),
            Lie::DirectoryOf(_) => false,
        }
    }
}

struct Shown {
    disk: Arc<Disk>,
    /// Files the kernel holds open.
    open: usize,
}

#[derive(Default)]
struct Disks {
    last: u64,
    shown: BTreeMap<u64, Shown>,
}

/// A mounted file system; unmounted when dropped.
pub struct Mount {
    disks: Arc<Mutex<Disks>>,
    /// Before the folder, which cannot go while it is mounted on.
    session: Option<BackgroundSession>,
    /// Between: it must see the end of the session, and the folder.
    guard: Option<Guard>,
    folder: tempfile::TempDir,
}

impl Drop for Mount {
    fn drop(&mut self) {
        if let Some(session) = self.session.take() {
            let _ = session.umount_and_join();
        }
        if let Some(guard) = self.guard.take() {
            guard.dismiss();
        }
    }
}

/// Tells mounts of these tests, with the process that serves it behind it.
const NAME: &str = "holdfast-crash:";
const BEAT: Duration = Duration::from_secs(1);
/// Hears a dot with every beat. After half a minute of silence, or when nobody is left to speak, it ends the connection,
/// which answers whatever waits, and takes the mount away. Told that all is over, it goes.
const GUARD: &str = r#"
while said=$(timeout 30 dd bs=1 count=1 2>/dev/null) && [ "$said" = . ]; do :; done
[ "$said" != q ] || exit 0
echo 1 >"/sys/fs/fuse/connections/$2/abort"
umount -f "$1"
umount -l "$1" || fusermount3 -u -z "$1"
rmdir "$1"
"#;

/// Takes the mount away when this process is killed. A thread that is killed while it waits for a file of the mount ends
/// only with the answer, which nobody else can give, and until then the process holds the connection open: it takes
/// another process to end that.
struct Guard {
    process: Child,
    stop: Sender<()>,
    heart: JoinHandle<ChildStdin>,
}

impl Guard {
    fn new(folder: &Path) -> io::Result<Self> {
        // The number of the connection; root needs none, for whom `umount -f` ends it.
        let device = rustix::fs::minor(std::fs::metadata(folder)?.dev());
        let mut process = Command::new("sh")
            .args(["-c", GUARD, "sh"])
            .arg(folder)
            .arg(device.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            // Whoever kills the tests' group does not kill this.
            .process_group(0)
            .spawn()?;
        let mut speaks = process.stdin.take().ok_or(io::ErrorKind::BrokenPipe)?;
        let (stop, stopped) = channel();
        let heart = std::thread::spawn(move || {
            while let Err(RecvTimeoutError::Timeout) = stopped.recv_timeout(BEAT) {
                if speaks.write_all(b".").is_err() {
                    break;
                }
            }
            speaks
        });
        Ok(Guard { process, stop, heart })
    }

    fn dismiss(mut self) {
        drop(self.stop);
        if let Ok(mut speaks) = self.heart.join() {
            let _ = speaks.write_all(b"q");
        }
        let _ = self.process.wait();
    }
}

/// Takes away what processes left that are gone, guard and all.
fn unmount_left() {
    for line in std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default().lines() {
        let Some((place, kind)) = line.split_once(" - ") else { continue };
        let process = kind.split(' ').nth(1).and_then(|source| source.strip_prefix(NAME));
        if let (Some(folder), Some(process)) = (place.split(' ').nth(4), process)
            && !Path::new("/proc").join(process).exists()
        {
            println!("left by process {process}: {folder}");
            let _ = Command::new("umount").args(["-f", "-l", folder]).status();
        }
    }
}

impl Mount {
    /// Mounts; `None` where the system has no FUSE at all. Refuses where it has and mounting fails.
    pub fn new(lie: Option<Lie>) -> Option<Arc<Self>> {
        if !Path::new("/dev/fuse").exists() {
            println!("NOT TESTED: this system has no /dev/fuse");
            return None;
        }
        unmount_left();
        let disks: Arc<Mutex<Disks>> = Arc::default();
        let folder = tempfile::Builder::new().prefix("holdfast-crash-").tempdir().unwrap();
        let mut config = Config::default();
        config.mount_options = vec![MountOption::FSName(format!("{NAME}{}", std::process::id())), MountOption::NoAtime];
        config.n_threads = Some(2);
        match fuser::spawn_mount(Served { disks: disks.clone(), lie }, folder.path(), &config) {
            Ok(session) => {
                let guard = Guard::new(folder.path()).unwrap();
                Some(Arc::new(Mount { disks, session: Some(session), guard: Some(guard), folder }))
            }
            Err(error) if rustix::process::geteuid().is_root() => {
                panic!("/dev/fuse is there, and mounting fails: {error}")
            }
            Err(error) => {
                println!("NOT TESTED: mounting needs root, or the package fuse3: {error}");
                None
            }
        }
    }

    /// The folder in which a disk is seen.
    pub fn show(&self, disk: &Arc<Disk>) -> PathBuf {
        let mut disks = self.disks.lock();
        // What only this list still knows, and nobody has open, is of the past.
        disks.shown.retain(|_, shown| shown.open > 0 || Arc::strong_count(&shown.disk) > 1);
        let known = disks.shown.iter().find(|(_, shown)| Arc::ptr_eq(&shown.disk, disk)).map(|(number, _)| *number);
        let number = known.unwrap_or_else(|| {
            disks.last += 1;
            let number = disks.last;
            disks.shown.insert(number, Shown { disk: disk.clone(), open: 0 });
            number
        });
        self.folder.path().join(number.to_string())
    }
}

struct Served {
    disks: Arc<Mutex<Disks>>,
    lie: Option<Lie>,
}

fn number_of(disk: u64, node: Node) -> INodeNo {
    let (id, bit) = match node {
        Node::Dir(id) => (id, 0),
        Node::File(id) => (id, 1),
    };
    INodeNo((disk << DISK_SHIFT) | (id as u64) << 1 | bit)
}

fn errno(error: io::Error) -> Errno {
    match error.kind() {
        io::ErrorKind::NotFound => Errno::ENOENT,
        io::ErrorKind::AlreadyExists => Errno::EEXIST,
        io::ErrorKind::DirectoryNotEmpty => Errno::ENOTEMPTY,
        io::ErrorKind::InvalidInput => Errno::EINVAL,
        io::ErrorKind::StorageFull => Errno::ENOSPC,
        _ => Errno::EIO,
    }
}

fn attributes(ino: INodeNo, kind: FileType, size: u64) -> FileAttr {
    FileAttr {
        ino,
        size,
        blocks: size.div_ceil(512),
        atime: UNIX_EPOCH,
        mtime: UNIX_EPOCH,
        ctime: UNIX_EPOCH,
        crtime: UNIX_EPOCH,
        kind,
        perm: if kind == FileType::Directory { 0o700 } else { 0o600 },
        nlink: 1,
        uid: rustix::process::geteuid().as_raw(),
        gid: rustix::process::getegid().as_raw(),
        rdev: 0,
        blksize: BLOCK_BYTES,
        flags: 0,
    }
}

fn text(name: &OsStr) -> io::Result<&str> {
    Ok(name.to_str().ok_or(io::ErrorKind::InvalidInput)?)
}

impl Served {
    fn disk(&self, number: u64) -> io::Result<Arc<Disk>> {
        let disks = self.disks.lock();
        Ok(disks.shown.get(&number).ok_or(io::ErrorKind::NotFound)?.disk.clone())
    }

    fn node(&self, ino: INodeNo) -> io::Result<(u64, Arc<Disk>, Node)> {
        let number = ino.0 >> DISK_SHIFT;
        let id = ((ino.0 & ((1 << DISK_SHIFT) - 1)) >> 1) as usize;
        let node = if ino.0 & 1 == 1 { Node::File(id) } else { Node::Dir(id) };
        Ok((number, self.disk(number)?, node))
    }

    fn dir(&self, ino: INodeNo) -> io::Result<(u64, Arc<Disk>, usize)> {
        match self.node(ino)? {
            (number, disk, Node::Dir(id)) => Ok((number, disk, id)),
            _ => Err(io::ErrorKind::NotADirectory.into()),
        }
    }

    fn file(&self, ino: INodeNo) -> io::Result<(Arc<Disk>, usize)> {
        match self.node(ino)? {
            (_, disk, Node::File(id)) => Ok((disk, id)),
            _ => Err(io::ErrorKind::IsADirectory.into()),
        }
    }

    fn attributes(&self, ino: INodeNo) -> io::Result<FileAttr> {
        if ino == INodeNo::ROOT {
            return Ok(attributes(ino, FileType::Directory, 0));
        }
        match self.node(ino)? {
            (_, disk, Node::File(id)) => Ok(attributes(ino, FileType::RegularFile, disk.file_len(id)? as u64)),
            (_, disk, Node::Dir(id)) => disk.names(id).map(|_| attributes(ino, FileType::Directory, 0)),
        }
    }

    fn look_up(&self, parent: INodeNo, name: &OsStr) -> io::Result<FileAttr> {
        let name = text(name)?;
        let ino = if parent == INodeNo::ROOT {
            let number = name.parse().map_err(|_| io::ErrorKind::NotFound)?;
            self.disk(number)?;
            number_of(number, Node::Dir(0))
        } else {
            let (number, disk, dir) = self.dir(parent)?;
            number_of(number, disk.look_up(dir, name)?)
        };
        self.attributes(ino)
    }

    fn make_dir(&self, parent: INodeNo, name: &OsStr) -> io::Result<FileAttr> {
        let (number, disk, dir) = self.dir(parent)?;
        let made = disk.make_dir(dir, text(name)?)?;
        self.attributes(number_of(number, Node::Dir(made)))
    }

    fn create_file(&self, parent: INodeNo, name: &OsStr) -> io::Result<FileAttr> {
        let (number, disk, dir) = self.dir(parent)?;
        let created = disk.create(dir, text(name)?)?;
        self.count_open(number, 1);
        self.attributes(number_of(number, Node::File(created)))
    }

    fn count_open(&self, number: u64, by: isize) {
        if let Some(shown) = self.disks.lock().shown.get_mut(&number) {
            shown.open = shown.open.saturating_add_signed(by);
        }
    }

    fn sync_names(&self, ino: INodeNo) -> io::Result<()> {
        let (_, disk, dir) = self.dir(ino)?;
        if let Some(Lie::DirectoryOf(start)) = self.lie
            && disk.names(dir)?.iter().any(|(name, _)| name.starts_with(start))
        {
            return Ok(());
        }
        disk.sync_names(dir)
    }

    fn rename(&self, from: (INodeNo, &OsStr), to: (INodeNo, &OsStr)) -> io::Result<()> {
        let (_, disk, from_dir) = self.dir(from.0)?;
        let (_, _, to_dir) = self.dir(to.0)?;
        disk.move_name((from_dir, text(from.1)?), (to_dir, text(to.1)?))
    }

    fn remove(&self, parent: INodeNo, name: &OsStr) -> io::Result<()> {
        let (_, disk, dir) = self.dir(parent)?;
        disk.remove(dir, text(name)?)
    }
}

fn answer(outcome: io::Result<()>, reply: ReplyEmpty) {
    match outcome {
        Ok(()) => reply.ok(),
        Err(error) => reply.error(errno(error)),
    }
}

fn answer_entry(outcome: io::Result<FileAttr>, reply: ReplyEntry) {
    match outcome {
        Ok(attributes) => reply.entry(&TTL, &attributes, Generation(0)),
        Err(error) => reply.error(errno(error)),
    }
}

#[allow(clippy::too_many_arguments, reason = "the kernel's questions")]
impl Filesystem for Served {
    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        answer_entry(self.look_up(parent, name), reply);
    }

    fn getattr(&self, _: &Request, ino: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        match self.attributes(ino) {
            Ok(attributes) => reply.attr(&TTL, &attributes),
            Err(error) => reply.error(errno(error)),
        }
    }

    fn setattr(
        &self,
        _: &Request,
        ino: INodeNo,
        _: Option<u32>,
        _: Option<u32>,
        _: Option<u32>,
        size: Option<u64>,
        _: Option<TimeOrNow>,
        _: Option<TimeOrNow>,
        _: Option<SystemTime>,
        _: Option<FileHandle>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<fuser::BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let cut = size.map_or(Ok(()), |size| self.file(ino).and_then(|(disk, id)| disk.cut(id, size as usize)));
        match cut.and_then(|()| self.attributes(ino)) {
            Ok(attributes) => reply.attr(&TTL, &attributes),
            Err(error) => reply.error(errno(error)),
        }
    }

    fn mkdir(&self, _: &Request, parent: INodeNo, name: &OsStr, _: u32, _: u32, reply: ReplyEntry) {
        answer_entry(self.make_dir(parent, name), reply);
    }

    fn unlink(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        answer(self.remove(parent, name), reply);
    }

    fn rmdir(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        answer(self.remove(parent, name), reply);
    }

    fn rename(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        newparent: INodeNo,
        newname: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        if !flags.is_empty() {
            return reply.error(Errno::EINVAL);
        }
        answer(self.rename((parent, name), (newparent, newname)), reply);
    }

    fn open(&self, _: &Request, ino: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        self.count_open(ino.0 >> DISK_SHIFT, 1);
        reply.opened(FileHandle(0), FopenFlags::empty());
    }

    fn create(&self, _: &Request, parent: INodeNo, name: &OsStr, _: u32, _: u32, _: i32, reply: ReplyCreate) {
        match self.create_file(parent, name) {
            Ok(attributes) => {
                reply.created(&TTL, &attributes, Generation(0), FileHandle(0), FopenFlags::empty());
            }
            Err(error) => reply.error(errno(error)),
        }
    }

    fn read(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        match self.file(ino).and_then(|(disk, id)| disk.read(id, offset as usize, size as usize)) {
            Ok(bytes) => reply.data(&bytes),
            Err(error) => reply.error(errno(error)),
        }
    }

    fn write(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        data: &[u8],
        _: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        match self.file(ino).and_then(|(disk, id)| disk.write(id, offset as usize, data)) {
            Ok(()) => reply.written(data.len() as u32),
            Err(error) => reply.error(errno(error)),
        }
    }

    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        reply.ok();
    }

    fn release(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        _: OpenFlags,
        _: Option<LockOwner>,
        _: bool,
        reply: ReplyEmpty,
    ) {
        self.count_open(ino.0 >> DISK_SHIFT, -1);
        reply.ok();
    }

    fn fsync(&self, _: &Request, ino: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        let lies = |name: &str| self.lie.is_some_and(|lie| lie.is_told_of(name));
        answer(self.file(ino).and_then(|(disk, id)| disk.sync_file(id, lies)), reply);
    }

    fn fsyncdir(&self, _: &Request, ino: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        answer(self.sync_names(ino), reply);
    }

    fn readdir(&self, _: &Request, ino: INodeNo, _: FileHandle, offset: u64, mut reply: ReplyDirectory) {
        // Names are in order, and nothing lists a directory while it changes it.
        let (number, names) = match self.dir(ino).and_then(|(number, disk, dir)| Ok((number, disk.names(dir)?))) {
            Ok(found) => found,
            Err(error) => return reply.error(errno(error)),
        };
        for (at, (name, node)) in names.into_iter().enumerate().skip(offset as usize) {
            let kind = if matches!(node, Node::Dir(_)) { FileType::Directory } else { FileType::RegularFile };
            if reply.add(number_of(number, node), at as u64 + 1, kind, name) {
                break;
            }
        }
        reply.ok();
    }

    fn statfs(&self, _: &Request, _: INodeNo, reply: ReplyStatfs) {
        reply.statfs(BLOCKS, BLOCKS, BLOCKS, 1 << 30, 1 << 30, BLOCK_BYTES, 255, BLOCK_BYTES);
    }

    fn fallocate(&self, _: &Request, _: INodeNo, _: FileHandle, _: u64, _: u64, _: i32, reply: ReplyEmpty) {
        reply.error(Errno::EOPNOTSUPP);
    }
}
