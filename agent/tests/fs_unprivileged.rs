//! Scan and restore by somebody who is not root: what may not be read is reported, what may not be set is listed in
//! the report, and everything else comes back. When the tests run as root, this one runs itself again as `nobody`.

#![allow(clippy::unwrap_used, clippy::panic)] // a test says what is wrong by failing

use agent::fs::{
    ConflictPolicy, Created, FileReader, ProblemKind, RawXattr, ReadError, RestoreOptions, RestoreTarget, ScanEvent,
    ScanOptions, Scanner, WarningKind,
};
use repo_format::entry::{Content, Entry, EntryKind, PathKey, Profile, Time};
use repo_format::id::ContentHash;
use std::fs::{self, Permissions};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

const NOBODY: u32 = 65_534;
const INNER: &str = "HOLDFAST_TEST_UNPRIVILEGED";

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

#[test]
fn without_privilege() {
    if !rustix::process::geteuid().is_root() {
        let folder = std::env::var_os(INNER).map_or_else(std::env::temp_dir, Into::into);
        let folder = tempfile::tempdir_in(folder).unwrap();
        scan_reports_what_may_not_be_read(&folder.path().join("scan"));
        restore_lists_what_may_not_be_set(&folder.path().join("restore"));
        overwriting_opens_a_closed_directory(&folder.path().join("closed"));
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    set_mode(folder.path(), 0o755);
    let program = folder.path().join("test");
    fs::copy(std::env::current_exe().unwrap(), &program).unwrap();
    set_mode(&program, 0o755);
    let work = folder.path().join("work");
    fs::create_dir(&work).unwrap();
    chown(&work, Some(NOBODY), Some(NOBODY)).unwrap();
    let inner = Command::new(&program)
        .args(["--exact", "without_privilege", "--nocapture"])
        .env(INNER, &work)
        .env("TMPDIR", &work)
        .current_dir("/")
        .uid(NOBODY)
        .gid(NOBODY)
        .output()
        .unwrap();
    let output = String::from_utf8_lossy(&inner.stdout).into_owned() + &String::from_utf8_lossy(&inner.stderr);
    assert!(inner.status.success() && output.contains("1 passed"), "{output}");
}

fn scan_reports_what_may_not_be_read(root: &Path) {
    fs::create_dir(root).unwrap();
    for name in ["closed", "search-only", "open"] {
        fs::create_dir(root.join(name)).unwrap();
        fs::create_dir(root.join(name).join("inner")).unwrap();
        fs::write(root.join(name).join("inner/file"), "x").unwrap();
    }
    fs::write(root.join("secret"), "x").unwrap();
    set_mode(&root.join("secret"), 0);
    set_mode(&root.join("closed"), 0);
    set_mode(&root.join("search-only"), 0o100);
    let scan = |path: &Path| {
        let (mut items, mut warnings) = (Vec::new(), Vec::new());
        for event in Scanner::new([path], ScanOptions::default()).unwrap() {
            match event {
                ScanEvent::Item(item) => items.push(item),
                ScanEvent::Warning(warning) => warnings.push((warning.path, warning.kind)),
            }
        }
        (items, warnings)
    };
    let (items, warnings) = scan(root);
    let path = |name: &str| root.join(name).as_os_str().as_bytes().to_vec();
    let expected = ["closed", "search-only"].map(|name| (path(name), WarningKind::Unreadable));
    assert_eq!(warnings, expected);
    let below: Vec<_> = items.iter().map(|item| item.key.to_path()).filter(|p| p.starts_with(&path(""))).collect();
    let expected = ["closed", "open", "search-only", "secret", "open/inner", "open/inner/file"].map(path);
    assert_eq!(below, expected);
    let secret = items.iter().find(|item| item.key.name() == b"secret").unwrap();
    let refused = FileReader::open(secret);
    assert!(
        matches!(&refused, Err(ReadError::Io(e)) if e.kind() == std::io::ErrorKind::PermissionDenied),
        "{refused:?}"
    );
    // What lies below a directory that can only be searched is found if it is named.
    let (items, warnings) = scan(&root.join("search-only/inner"));
    assert_eq!(warnings, []);
    let file = items.last().unwrap();
    assert_eq!(file.key.to_path(), path("search-only/inner/file"));
    FileReader::open(file).unwrap();
    set_mode(&root.join("closed"), 0o700);
    set_mode(&root.join("search-only"), 0o700);
}

fn entry(kind: EntryKind, mode: u32, uid: u32) -> Entry {
    let mtime = Time { seconds: 5, nanoseconds: 6 };
    let gid = if uid == 0 { 0 } else { rustix::process::getegid().as_raw() };
    Entry { kind, mode, uid, gid, user: vec![], group: vec![], mtime, xattrs: vec![], link_group: None }
}

fn file(mode: u32, uid: u32) -> Entry {
    let content = Content::Inline(Vec::new());
    let hash = ContentHash::from_bytes([1; 32]);
    entry(EntryKind::File { size: 4, content, hash, profile: Profile::Bundle }, mode, uid)
}

fn put(target: &RestoreTarget, path: &str, entry: &Entry, xattrs: Vec<RawXattr>) -> Created {
    let created = target.create(&PathKey::from_path(path.as_bytes()).unwrap(), entry, xattrs).unwrap();
    match created {
        Created::File(writer) => {
            writer.write_at(0, b"text").unwrap();
            writer.finish().unwrap();
            Created::Done
        }
        other => other,
    }
}

fn restore_lists_what_may_not_be_set(root: &Path) {
    let me = rustix::process::geteuid().as_raw();
    let target = RestoreTarget::open(root, RestoreOptions::default()).unwrap();
    let directory = |mode, uid| entry(EntryKind::Directory, mode, uid);
    put(&target, "/closed", &directory(0, me), Vec::new());
    put(&target, "/device", &entry(EntryKind::CharDevice { major: 1, minor: 3 }, 0o666, 0), Vec::new());
    put(&target, "/link", &entry(EntryKind::Symlink { target: b"x".to_vec() }, 0o777, me), Vec::new());
    put(&target, "/mine", &file(0o4711, me), Vec::new());
    let trusted = vec![RawXattr { name: b"trusted.x".to_vec(), value: b"y".to_vec() }];
    put(&target, "/read-only", &file(0o444, me), trusted);
    put(&target, "/roots", &file(0o6755, 0), Vec::new());
    put(&target, "/closed/inner", &directory(0o500, me), Vec::new());
    put(&target, "/closed/inner/file", &file(0, me), Vec::new());
    let report = target.finish().unwrap();
    let counts: Vec<_> = report.problem_counts().collect();
    let expected = [(ProblemKind::Owner, 1), (ProblemKind::Mode, 1), (ProblemKind::Xattr, 1), (ProblemKind::Device, 1)];
    assert_eq!(counts, expected, "{:?}", report.problems);
    assert!(!report.is_complete());
    let mode = |name: &str| fs::symlink_metadata(root.join(name)).unwrap().mode() & 0o7777;
    assert_eq!([mode("closed"), mode("mine"), mode("read-only"), mode("roots")], [0, 0o4711, 0o444, 0o755]);
    set_mode(&root.join("closed"), 0o700);
    assert_eq!([mode("closed/inner"), mode("closed/inner/file")], [0o500, 0]);
    let inner = fs::metadata(root.join("closed/inner")).unwrap();
    assert_eq!((inner.mtime(), inner.mtime_nsec()), (5, 6));
    set_mode(&root.join("closed/inner"), 0o700);
}

fn overwriting_opens_a_closed_directory(root: &Path) {
    let me = rustix::process::geteuid().as_raw();
    fs::create_dir_all(root.join("d")).unwrap();
    fs::write(root.join("d/old"), "old").unwrap();
    set_mode(&root.join("d"), 0o555);
    let options = RestoreOptions { on_conflict: ConflictPolicy::Overwrite, ..RestoreOptions::default() };
    let target = RestoreTarget::open(root, options).unwrap();
    put(&target, "/d", &entry(EntryKind::Directory, 0o555, me), Vec::new());
    put(&target, "/d/old", &file(0o600, me), Vec::new());
    put(&target, "/d/new", &file(0o600, me), Vec::new());
    assert!(target.finish().unwrap().is_complete());
    assert_eq!(fs::metadata(root.join("d")).unwrap().mode() & 0o7777, 0o555);
    for name in ["old", "new"] {
        assert_eq!(fs::read(root.join("d").join(name)).unwrap(), b"text");
    }
    set_mode(&root.join("d"), 0o700);
}
