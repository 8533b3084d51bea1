//! A tree with every oddity a file system allows goes through scan, reading and restore, with memory in place of the
//! server, and must come back the same. The comparison shares no code with the agent.

#![allow(clippy::unwrap_used, clippy::panic)] // a test says what is wrong by failing

use agent::fs::{
    Created, FileReader, MetadataReader, Piece, RestoreOptions, RestoreReport, RestoreTarget, ScanEvent, ScanItem,
    ScanOptions, Scanner, SmallRead, raw_xattrs, read_small,
};
use repo_format::entry::{Content, Entry, EntryKind, PathKey, Profile, XattrValue};
use repo_format::id::{ChunkId, ContentHash};
use rustix::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use rustix::fs::{
    AtFlags, Dir, FileType, Gid, Mode, OFlags, SeekFrom, Stat, Timespec, Timestamps, UTIME_OMIT, Uid, XattrFlags,
    chmodat, chownat, fchmod, ftruncate, lgetxattr, linkat, llistxattr, lsetxattr, makedev, mkdirat, mknodat, openat,
    readlinkat, seek, statat, symlinkat, utimensat,
};
use rustix::io::{Errno, pread, pwrite};
use std::collections::{BTreeSet, HashMap};
use std::convert::Infallible;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

const SMALL_BYTES_MAX: usize = 64 << 10;

/// Data of one file: offset and bytes of each extent.
type Extents = Vec<(u64, Vec<u8>)>;

struct Stored {
    entry: Entry,
    extents: Extents,
}

/// What a vault does, in memory.
#[derive(Default)]
struct Memory {
    entries: Vec<(PathKey, Stored)>,
    chunks: HashMap<ChunkId, Vec<u8>>,
}

fn read_content(item: &ScanItem) -> (FileReader, u64, Extents) {
    let mut buffer = Vec::new();
    let mut reader = match read_small(item, SMALL_BYTES_MAX, &mut buffer).unwrap() {
        SmallRead::Whole(reader) => {
            let size = buffer.len() as u64;
            return (reader, size, if buffer.is_empty() { Vec::new() } else { vec![(0, buffer)] });
        }
        SmallRead::Other(reader) => reader,
    };
    let mut extents: Extents = Vec::new();
    let mut position = 0;
    let mut buffer = vec![0; 300_000];
    loop {
        match reader.next_piece(&mut buffer).unwrap() {
            Piece::Data(len) => {
                extents.push((position, buffer[..len].to_vec()));
                position += len as u64;
            }
            Piece::Hole { offset, len } => {
                assert_eq!(offset, position);
                position += len;
            }
            Piece::End => break,
        }
    }
    (reader, position, extents)
}

fn back_up(root: &Path) -> Memory {
    let mut memory = Memory::default();
    let metadata = MetadataReader::new();
    for event in Scanner::new([root], ScanOptions::default()).unwrap() {
        let item = match event {
            ScanEvent::Item(item) if item.is_ancestor => continue,
            ScanEvent::Item(item) => item,
            ScanEvent::Warning(warning) => panic!("{warning:?}"),
        };
        let (metadata, kind, extents) = if item.kind() == agent::fs::FileKind::File {
            let (reader, size, extents) = read_content(&item);
            let mut hasher = blake3::Hasher::new();
            extents.iter().for_each(|(offset, bytes)| {
                hasher.update(&offset.to_le_bytes());
                hasher.update(bytes);
            });
            let hash = ContentHash::from_bytes(*hasher.finalize().as_bytes());
            let content = Content::Inline(Vec::new());
            let kind = EntryKind::File { size, content, hash, profile: Profile::Bundle };
            let parts = metadata.read_open(&item, &reader);
            assert_eq!(parts.xattrs, metadata.read(&item).unwrap().xattrs);
            let end = reader.finish().unwrap();
            assert!(!end.changed && end.size == size);
            (parts, Some(kind), extents)
        } else {
            (metadata.read(&item).unwrap(), None, Vec::new())
        };
        assert_eq!(metadata.unreadable_xattrs, []);
        let chunks = &mut memory.chunks;
        let store = |value: &[u8]| -> Result<XattrValue, Infallible> {
            let chunk = ChunkId::from_bytes(*blake3::hash(value).as_bytes());
            chunks.insert(chunk, value.to_vec());
            Ok(XattrValue::Chunk { chunk, len: value.len() as u32 })
        };
        let entry = metadata.into_entry(kind, store).unwrap().unwrap();
        let below = item.key.to_path();
        let below = below.strip_prefix(root.as_os_str().as_bytes()).unwrap();
        memory.entries.push((PathKey::from_path(below).unwrap(), Stored { entry, extents }));
    }
    memory
}

fn restore(memory: &Memory, to: &Path, options: RestoreOptions) -> RestoreReport {
    let target = RestoreTarget::open(to, options).unwrap();
    let mut waiting = Vec::new();
    for (key, Stored { entry, extents }) in &memory.entries {
        let xattrs = raw_xattrs(entry, |chunk, len| {
            let value = memory.chunks[chunk].clone();
            assert_eq!(value.len(), len as usize);
            Ok::<_, Infallible>(value)
        });
        if let Created::File(writer) = target.create(key, entry, xattrs.unwrap()).unwrap() {
            // The last part first, in pieces; then left open for a while.
            for (offset, bytes) in extents.iter().rev() {
                for (index, piece) in bytes.chunks(100_000).enumerate().rev() {
                    writer.write_at(offset + index as u64 * 100_000, piece).unwrap();
                }
            }
            waiting.push(writer);
            if waiting.len() > 700 {
                waiting.drain(..).rev().for_each(|writer| writer.finish().unwrap());
            }
        }
    }
    waiting.into_iter().for_each(|writer| writer.finish().unwrap());
    target.finish().unwrap()
}

// The tree.

fn open_dir(parent: impl AsFd, name: &[u8]) -> OwnedFd {
    openat(parent, name, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW, Mode::empty()).unwrap()
}

fn make_dir(parent: impl AsFd, name: &[u8]) -> OwnedFd {
    mkdirat(&parent, name, Mode::RWXU).unwrap();
    open_dir(parent, name)
}

fn make_file(dir: impl AsFd, name: &[u8], content: &[u8]) -> OwnedFd {
    let fd = openat(dir, name, OFlags::RDWR | OFlags::CREATE | OFlags::EXCL, Mode::from_raw_mode(0o644)).unwrap();
    assert_eq!(pwrite(&fd, content, 0).unwrap(), content.len());
    fd
}

fn set_mtime(dir: impl AsFd, name: &[u8], seconds: i64, nanoseconds: u32) {
    let times = Timestamps {
        last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT as _ },
        last_modification: Timespec { tv_sec: seconds, tv_nsec: i64::from(nanoseconds) },
    };
    utimensat(dir, name, &times, AtFlags::SYMLINK_NOFOLLOW).unwrap();
}

fn proc_path(dir: BorrowedFd, name: &[u8]) -> Vec<u8> {
    [format!("/proc/self/fd/{}/", dir.as_raw_fd()).as_bytes(), name].concat()
}

fn set_xattr(dir: BorrowedFd, name: &[u8], attribute: &str, value: &[u8]) {
    lsetxattr(proc_path(dir, name).as_slice(), attribute, value, XattrFlags::empty()).unwrap();
}

fn acl(users: &[(u32, u16)]) -> Vec<u8> {
    let mut bytes = vec![2, 0, 0, 0];
    let mut put = |tag: u16, permissions: u16, id: u32| {
        bytes.extend_from_slice(&tag.to_le_bytes());
        bytes.extend_from_slice(&permissions.to_le_bytes());
        bytes.extend_from_slice(&id.to_le_bytes());
    };
    put(1, 7, u32::MAX);
    users.iter().for_each(|&(uid, permissions)| put(2, permissions, uid));
    put(4, 5, u32::MAX);
    put(0x10, 5, u32::MAX);
    put(0x20, 0, u32::MAX);
    bytes
}

fn odd_names(top: &OwnedFd) {
    let names = make_dir(top, b"names");
    for byte in 1..=255u8 {
        if byte != b'/' && byte != b'.' {
            make_file(&names, &[byte], &[byte]);
        }
    }
    let many: [&[u8]; 9] =
        [b"...", b"-rf", b"  ", b"a\nb\n", b"\xff\xfe\xc3(", b"tab\t", "ünïcode".as_bytes(), b"\\\\", b"*?[x]"];
    for name in many {
        make_file(&names, name, name);
        make_dir(&names, &[name, b".d"].concat());
    }
    make_file(&names, &[0xe9; 255], b"longest");
    make_dir(&names, &[b'D'; 255]);
}

fn modes(top: &OwnedFd, is_root: bool) {
    let (files, directories) = (make_dir(top, b"file modes"), make_dir(top, b"directory modes"));
    for mode in 0..=0o7777u32 {
        // Without privilege what may not be read cannot be backed up.
        if !is_root && mode & 0o700 < 0o500 {
            continue;
        }
        let name = format!("{mode:04o}").into_bytes();
        fchmod(make_file(&files, &name, &name), Mode::from_raw_mode(mode)).unwrap();
        let inside = make_dir(&directories, &name);
        make_file(&inside, b"inside", b"");
        set_mtime(&inside, b"inside", i64::from(mode), 0);
        fchmod(&inside, Mode::from_raw_mode(mode)).unwrap();
        set_mtime(&directories, &name, i64::from(mode), 999_999_999);
    }
    if is_root {
        for (number, owner) in [1, 1000, 65_534, 4_294_967_294].into_iter().enumerate() {
            let name = format!("set-id {number}").into_bytes();
            make_file(&files, &name, b"");
            let (uid, gid) = (Uid::from_raw(owner), Gid::from_raw(owner - 1));
            chownat(&files, name.as_slice(), Some(uid), Some(gid), AtFlags::empty()).unwrap();
            // CAP_NET_BIND_SERVICE, which any change of owner or content takes away.
            let mut capability = vec![1, 0, 0, 2, 0, 4, 0, 0];
            capability.resize(20, 0);
            set_xattr(files.as_fd(), &name, "security.capability", &capability);
            chmodat(&files, name.as_slice(), Mode::from_raw_mode(0o6755), AtFlags::empty()).unwrap();
        }
    }
}

fn times_and_holes(top: &OwnedFd) {
    let times = make_dir(top, b"times");
    let seconds = [-2_000_000_000, -1, 0, 1, 1_700_000_000, (1 << 31) - 1, 1 << 31, 1 << 32, 15_000_000_000];
    for seconds in seconds {
        for nanoseconds in [0, 1, 999_999_999] {
            let name = format!("{seconds}.{nanoseconds}").into_bytes();
            make_file(&times, &name, b"");
            set_mtime(&times, &name, seconds, nanoseconds);
            let name = [&name[..], b".d"].concat();
            make_dir(&times, &name);
            set_mtime(&times, &name, seconds, nanoseconds);
            let name = [&name[..], b".l"].concat();
            symlinkat("nowhere", &times, name.as_slice()).unwrap();
            set_mtime(&times, &name, seconds, nanoseconds);
        }
    }
    let holes = make_dir(top, b"holes");
    const BLOCK: u64 = 128 << 10;
    let cases: [(&[u64], u64); 8] = [
        (&[1], 2 * BLOCK),
        (&[0], 2 * BLOCK),
        (&[0, 2], 3 * BLOCK),
        (&[1, 3], 5 * BLOCK + 1),
        (&[], BLOCK),
        (&[], 1),
        (&[], 1 << 40),
        (&[0, 1, 2, 1000], 2000 * BLOCK),
    ];
    for (number, (blocks, size)) in cases.into_iter().enumerate() {
        let fd = make_file(&holes, number.to_string().as_bytes(), b"");
        for block in blocks {
            pwrite(&fd, &vec![number as u8 + 1; BLOCK as usize], block * BLOCK).unwrap();
        }
        ftruncate(&fd, size).unwrap();
    }
    // Zeros that are written are not a hole.
    make_file(&holes, b"zeros", &vec![0; 300_000]);
    make_file(&holes, b"small zeros", &[0; 4096]);
    make_file(&holes, b"large", &(0..3_000_000u32).map(|n| (n >> 7) as u8).collect::<Vec<_>>());
}

fn special(top: &OwnedFd, is_root: bool) {
    let special = make_dir(top, b"special");
    for (name, kind) in [("fifo", FileType::Fifo), ("socket", FileType::Socket)] {
        mknodat(&special, name, kind, Mode::from_raw_mode(0o604), 0).unwrap();
        set_mtime(&special, name.as_bytes(), -5, 5);
    }
    for (name, kind) in [("char", FileType::CharacterDevice), ("block", FileType::BlockDevice)] {
        match mknodat(&special, name, kind, Mode::from_raw_mode(0o620), makedev(300, 70_000)) {
            Ok(()) => set_mtime(&special, name.as_bytes(), 5, 5),
            Err(errno) => assert!(errno == Errno::PERM, "{errno}"),
        }
    }
    let targets: [&[u8]; 6] = [b"..", b"/nowhere/at all", b"\xff\n", b"fifo", &[b't'; 4095], b"../special/../special"];
    for (number, target) in targets.into_iter().enumerate() {
        let name = format!("link {number}").into_bytes();
        symlinkat(target, &special, name.as_slice()).unwrap();
        if is_root {
            let (uid, gid) = (Uid::from_raw(77), Gid::from_raw(78));
            chownat(&special, name.as_slice(), Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW).unwrap();
            set_xattr(special.as_fd(), &name, "trusted.holdfast", target.get(..20).unwrap_or(target));
        }
    }
    let links = make_dir(top, b"links");
    let (a, b) = (make_dir(&links, b"a"), make_dir(&links, b"b"));
    make_file(&b, b"first", b"linked");
    make_file(&b, b"large", &vec![5; 200_000]);
    make_file(&links, b"alike", b"linked");
    symlinkat("x", &b, "sym").unwrap();
    mknodat(&b, "fifo", FileType::Fifo, Mode::from_raw_mode(0o600), 0).unwrap();
    for name in ["first", "large", "sym", "fifo"] {
        for number in 0..3 {
            linkat(&b, name, &a, format!("{name}{number}"), AtFlags::empty()).unwrap();
            linkat(&b, name, top, format!("{name}{number}"), AtFlags::empty()).unwrap();
        }
    }
}

fn attributes(top: &OwnedFd, is_root: bool) {
    let dir = make_dir(top, b"attributes");
    make_file(&dir, b"plain", b"x");
    make_dir(&dir, b"dir");
    for name in [b"plain".as_slice(), b"dir"] {
        set_xattr(dir.as_fd(), name, "user.empty", b"");
        set_xattr(dir.as_fd(), name, "user.bytes", b"\0\xff\n");
        set_xattr(dir.as_fd(), name, "user.above what is kept inline", &[7; 3000]);
        set_xattr(dir.as_fd(), name, "system.posix_acl_access", &acl(&[(1234, 5), (1235, 7)]));
        if is_root {
            set_xattr(dir.as_fd(), name, "trusted.x", b"y");
        }
    }
    set_xattr(dir.as_fd(), b"dir", "system.posix_acl_default", &acl(&[(99, 1)]));
    let inside = open_dir(&dir, b"dir");
    make_file(&inside, b"inherits", b"");
    fchmod(make_file(&dir, b"read-only", b"x"), Mode::from_raw_mode(0o444)).unwrap();
    let many = make_dir(&dir, b"many");
    make_file(&many, b"f", b"");
    for number in 0..40 {
        set_xattr(many.as_fd(), b"f", &format!("user.{number}"), &[number; 9]);
    }
}

fn deep_and_wide(top: &OwnedFd) {
    let mut fd = make_dir(top, b"deep");
    for depth in 0..120u8 {
        let name = [[depth % 26 + b'a'; 200].as_slice(), b"\n"].concat();
        make_file(&fd, b"here", &[depth]);
        fd = make_dir(&fd, &name);
    }
    symlinkat("end", &fd, "link").unwrap();
    set_mtime(&fd, b"link", -7, 7);
    let wide = make_dir(top, b"wide");
    for number in 0..20_000u32 {
        let name = format!("{:08x}\n", number.wrapping_mul(2_654_435_761)).into_bytes();
        make_file(&wide, &name, &number.to_le_bytes());
    }
    make_dir(top, b"empty");
}

fn make_tree(path: &Path, is_root: bool) {
    let top = make_dir(rustix::fs::CWD, path.as_os_str().as_bytes());
    odd_names(&top);
    modes(&top, is_root);
    times_and_holes(&top);
    special(&top, is_root);
    attributes(&top, is_root);
    deep_and_wide(&top);
    fchmod(&top, Mode::from_raw_mode(0o2711)).unwrap();
    set_mtime(rustix::fs::CWD, path.as_os_str().as_bytes(), 1_234_567_890, 987_654_321);
}

// The comparison.

fn names(fd: &OwnedFd) -> BTreeSet<Vec<u8>> {
    let entries = Dir::read_from(fd).unwrap().map(|entry| entry.unwrap().file_name().to_bytes().to_vec());
    entries.filter(|name| name != b"." && name != b"..").collect()
}

fn xattrs(dir: &OwnedFd, name: &[u8]) -> Vec<(Vec<u8>, Vec<u8>)> {
    let path = proc_path(dir.as_fd(), name);
    let mut list = vec![0; 65_536];
    let len = llistxattr(path.as_slice(), list.as_mut_slice()).unwrap();
    let mut all = Vec::new();
    for name in list[..len].split(|&byte| byte == 0).filter(|name| !name.is_empty()) {
        let mut value = vec![0; 65_536];
        let len = lgetxattr(path.as_slice(), name, value.as_mut_slice()).unwrap();
        all.push((name.to_vec(), value[..len].to_vec()));
    }
    all.sort();
    all
}

/// Data extents of an open file.
fn layout(fd: &OwnedFd, size: u64) -> Vec<(u64, u64)> {
    let mut extents = Vec::new();
    let mut position = 0;
    while position < size {
        let Ok(start) = seek(fd, SeekFrom::Data(position)) else { break };
        position = seek(fd, SeekFrom::Hole(start)).unwrap();
        extents.push((start, position));
    }
    extents
}

#[derive(Default)]
struct Comparison {
    objects: u64,
    inodes: HashMap<u64, u64>,
    differences: Vec<String>,
}

impl Comparison {
    fn directories(&mut self, a: &OwnedFd, b: &OwnedFd, path: &str) {
        let (in_a, in_b) = (names(a), names(b));
        if in_a != in_b {
            let lost = in_a.difference(&in_b).chain(in_b.difference(&in_a)).next();
            self.differences.push(format!("{path}: names differ, e.g. {lost:?}"));
        }
        for name in in_a.intersection(&in_b) {
            self.objects(a, b, name, &format!("{}/{}", &path[path.len().saturating_sub(300)..], name.escape_ascii()));
        }
    }

    fn objects(&mut self, a: &OwnedFd, b: &OwnedFd, name: &[u8], path: &str) {
        self.objects += 1;
        let stat = |dir| statat(dir, name, AtFlags::SYMLINK_NOFOLLOW).unwrap();
        let (in_a, in_b): (Stat, Stat) = (stat(a), stat(b));
        let facts = |s: &Stat| {
            let size = if FileType::from_raw_mode(s.st_mode).is_dir() { 0 } else { s.st_size };
            (s.st_mode, s.st_uid, s.st_gid, size, s.st_mtime, s.st_mtime_nsec, s.st_rdev, s.st_nlink)
        };
        if facts(&in_a) != facts(&in_b) {
            self.differences.push(format!("{path}: {:?} {:?}", facts(&in_a), facts(&in_b)));
        }
        if *self.inodes.entry(in_a.st_ino).or_insert(in_b.st_ino) != in_b.st_ino {
            self.differences.push(format!("{path}: linked otherwise"));
        }
        if xattrs(a, name) != xattrs(b, name) {
            self.differences.push(format!("{path}: attributes {:?} {:?}", xattrs(a, name), xattrs(b, name)));
        }
        match FileType::from_raw_mode(in_a.st_mode) {
            FileType::Directory => self.directories(&open_dir(a, name), &open_dir(b, name), path),
            FileType::Symlink => {
                let target = |dir| readlinkat(dir, name, Vec::new()).unwrap();
                if target(a) != target(b) {
                    self.differences.push(format!("{path}: other target"));
                }
            }
            FileType::RegularFile => {
                let open = |dir| openat(dir, name, OFlags::RDONLY, Mode::empty()).unwrap();
                let (fd_a, fd_b) = (open(a), open(b));
                let size = in_a.st_size as u64;
                if layout(&fd_a, size) != layout(&fd_b, size) {
                    let layouts = (layout(&fd_a, size), layout(&fd_b, size));
                    self.differences.push(format!("{path}: holes {layouts:?}"));
                }
                for (start, end) in layout(&fd_a, size) {
                    let read = |fd: &OwnedFd| {
                        let mut bytes = vec![0; (end - start) as usize];
                        let len = pread(fd, bytes.as_mut_slice(), start).unwrap();
                        bytes.truncate(len);
                        bytes
                    };
                    if read(&fd_a) != read(&fd_b) {
                        self.differences.push(format!("{path}: other bytes"));
                    }
                }
            }
            _ => {}
        }
    }
}

fn compare(a: &Path, b: &Path) -> Comparison {
    let parent = |path: &Path| open_dir(rustix::fs::CWD, path.parent().unwrap().as_os_str().as_bytes());
    let mut comparison = Comparison::default();
    let (name_a, name_b) = (a.file_name().unwrap().as_bytes(), b.file_name().unwrap().as_bytes());
    assert_eq!(name_a, name_b);
    comparison.objects(&parent(a), &parent(b), name_a, "");
    comparison
}

fn assert_same(a: &Path, b: &Path) -> u64 {
    let comparison = compare(a, b);
    let shown: Vec<_> = comparison.differences.iter().take(20).collect();
    assert!(shown.is_empty(), "{} differences: {shown:#?}", comparison.differences.len());
    comparison.objects
}

/// A tree that deep is beyond what the standard library removes by path.
fn remove_deep(folder: tempfile::TempDir) {
    assert!(std::process::Command::new("rm").arg("-rf").arg(folder.keep()).status().unwrap().success());
}

fn entries_without_link_numbers(memory: &Memory) -> Vec<(PathKey, Entry)> {
    let plain = |(key, stored): &(PathKey, Stored)| {
        (key.clone(), Entry { link_group: stored.entry.link_group.map(|_| 0), ..stored.entry.clone() })
    };
    memory.entries.iter().map(plain).collect()
}

#[test]
fn every_oddity_comes_back() {
    let is_root = rustix::process::geteuid().is_root();
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("a")).unwrap();
    std::fs::create_dir(folder.path().join("b")).unwrap();
    let (source, copy) = (folder.path().join("a/tree"), folder.path().join("b/tree"));
    make_tree(&source, is_root);
    let memory = back_up(&source);
    let report = restore(&memory, &copy, RestoreOptions::default());
    assert!(report.is_complete(), "{:?}", report.problems);
    let objects = assert_same(&source, &copy);
    assert!(objects > 20_000, "{objects}");
    assert_eq!(objects, memory.entries.len() as u64);
    // And the copy is, to a backup, the same tree.
    assert_eq!(entries_without_link_numbers(&back_up(&copy)), entries_without_link_numbers(&memory));
    // The comparison itself sees the smallest changes, one at a time.
    let top = open_dir(rustix::fs::CWD, copy.as_os_str().as_bytes());
    let holes = open_dir(&top, b"holes");
    let file = openat(&holes, "5", OFlags::RDWR, Mode::empty()).unwrap();
    pwrite(&file, &[0], 0).unwrap();
    set_mtime(&top, b"empty", 0, 1);
    set_xattr(top.as_fd(), b"wide", "user.new", b"");
    let seen = compare(&source, &copy).differences.join("; ");
    for part in ["holes/5: holes", "empty: (", "wide: attributes"] {
        assert!(seen.contains(part), "{part} in {seen}");
    }
    // A second scan of the same tree gives identical entries, link numbers included.
    let again: Vec<_> = back_up(&source).entries.into_iter().map(|(key, stored)| (key, stored.entry)).collect();
    assert!(again.iter().map(|(k, e)| (k, e)).eq(memory.entries.iter().map(|(k, s)| (k, &s.entry))));
    remove_deep(folder);
}
