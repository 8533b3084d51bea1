//! The restore writer against real directories.

use super::*;
use repo_format::entry::{Content, Profile, Time};
use repo_format::id::ContentHash;
use rustix::fd::OwnedFd;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

fn key(path: &str) -> PathKey {
    PathKey::from_path(path.as_bytes()).unwrap()
}

fn entry(kind: EntryKind) -> Entry {
    Entry {
        kind,
        mode: 0o755,
        uid: rustix::process::geteuid().as_raw(),
        gid: rustix::process::getegid().as_raw(),
        user: Vec::new(),
        group: Vec::new(),
        mtime: Time { seconds: 1_000_000_000, nanoseconds: 7 },
        xattrs: Vec::new(),
        link_group: None,
    }
}

fn file(content: &[u8]) -> Entry {
    entry(EntryKind::File {
        size: content.len() as u64,
        content: Content::Inline(Vec::new()),
        hash: ContentHash::from_bytes(*blake3::hash(content).as_bytes()),
        profile: Profile::Bundle,
    })
}

fn link_to(target: &str) -> Entry {
    entry(EntryKind::Symlink { target: target.as_bytes().to_vec() })
}

fn directory() -> Entry {
    entry(EntryKind::Directory)
}

fn open(path: &Path, on_conflict: ConflictPolicy) -> RestoreTarget {
    RestoreTarget::open(path, RestoreOptions { on_conflict, ..RestoreOptions::default() }).unwrap()
}

/// Restores one file; true if it was written.
fn put(target: &RestoreTarget, path: &str, content: &[u8]) -> Result<bool, RestoreError> {
    match target.create(&key(path), &file(content), Vec::new())? {
        Created::File(writer) => {
            writer.write_at(0, content)?;
            writer.finish()?;
            Ok(true)
        }
        other => Ok(matches!(other, Created::Done)),
    }
}

fn put_directory(target: &RestoreTarget, path: &str) -> Result<Created, RestoreError> {
    target.create(&key(path), &directory(), Vec::new())
}

fn names(path: &Path) -> Vec<String> {
    let mut names: Vec<_> =
        fs::read_dir(path).unwrap().map(|e| e.unwrap().file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

const BIG: usize = 200_000;

#[test]
fn a_link_below_the_target_is_never_followed() {
    for policy in [
        ConflictPolicy::Stop,
        ConflictPolicy::Skip,
        ConflictPolicy::Newer,
        ConflictPolicy::Overwrite,
        ConflictPolicy::KeepBoth,
    ] {
        for with_directory_entry in [false, true] {
            let folder = tempfile::tempdir().unwrap();
            let (outside, inside) = (folder.path().join("outside"), folder.path().join("inside"));
            fs::create_dir(&outside).unwrap();
            fs::create_dir(&inside).unwrap();
            fs::write(outside.join("victim"), "safe").unwrap();
            symlink("../outside", inside.join("d")).unwrap();
            symlink("../outside/victim", inside.join("f")).unwrap();
            symlink("../outside/new", inside.join("g")).unwrap();
            let before = fs::metadata(outside.join("victim")).unwrap();
            let target = open(&inside, policy);
            if with_directory_entry {
                let _ = put_directory(&target, "/d");
            }
            let _ = put(&target, "/f", b"evil");
            let _ = put(&target, "/g", &[1; BIG]);
            let _ = put(&target, "/d/victim", b"evil");
            let _ = put(&target, "/d/new", &[1; BIG]);
            let _ = put_directory(&target, "/d/deep/er");
            let _ = target.create(&key("/d/link"), &link_to("x"), Vec::new());
            target.finish().unwrap();
            let after = fs::metadata(outside.join("victim")).unwrap();
            assert_eq!(names(&outside), ["victim"], "{policy:?}");
            assert_eq!(fs::read(outside.join("victim")).unwrap(), b"safe");
            assert_eq!((before.mode(), before.ctime_nsec()), (after.mode(), after.ctime_nsec()), "{policy:?}");
        }
    }
}

#[test]
fn a_hard_link_in_the_way_is_replaced_not_written_through() {
    let folder = tempfile::tempdir().unwrap();
    let inside = folder.path().join("inside");
    fs::create_dir(&inside).unwrap();
    fs::write(folder.path().join("victim"), "safe").unwrap();
    fs::hard_link(folder.path().join("victim"), inside.join("f")).unwrap();
    let target = open(&inside, ConflictPolicy::Overwrite);
    assert!(put(&target, "/f", b"new").unwrap());
    target.finish().unwrap();
    assert_eq!(fs::read(folder.path().join("victim")).unwrap(), b"safe");
    assert_eq!(fs::read(inside.join("f")).unwrap(), b"new");
}

#[test]
fn a_directory_swapped_for_a_link_while_writing_is_not_followed() {
    let folder = tempfile::tempdir().unwrap();
    let (outside, inside) = (folder.path().join("outside"), folder.path().join("inside"));
    fs::create_dir(&outside).unwrap();
    let target = open(&inside, ConflictPolicy::Stop);
    put_directory(&target, "/d").unwrap();
    let Created::File(writer) = target.create(&key("/d/f"), &file(&[1; BIG]), Vec::new()).unwrap() else { panic!() };
    // Nothing is held open: everything has to be found again.
    writer.close_for_test();
    fs::rename(inside.join("d"), inside.join("moved")).unwrap();
    symlink("../outside", inside.join("d")).unwrap();
    fs::write(outside.join("f"), "safe").unwrap();
    let _ = writer.write_at(0, &[1; BIG]);
    let _ = writer.finish();
    target.forget_directories_for_test();
    assert!(put(&target, "/d/g", b"evil").is_err());
    let report = target.finish().unwrap();
    assert_eq!(names(&outside), ["f"]);
    assert_eq!(fs::read(outside.join("f")).unwrap(), b"safe");
    assert_eq!(fs::metadata(&outside).unwrap().permissions().mode() & 0o777, 0o755);
    assert!(!report.is_complete());
}

#[test]
fn stop_lists_conflicts_and_writes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    fs::create_dir_all(path.join("d/sub")).unwrap();
    fs::write(path.join("d/f"), "old").unwrap();
    fs::write(path.join("x"), "old").unwrap();
    symlink("d", path.join("l")).unwrap();
    let target = open(path, ConflictPolicy::Stop);
    assert!(!target.was_empty());
    let mut found = Vec::new();
    let plan: [(&str, Entry); 12] = [
        ("/d", directory()),
        ("/l", directory()),
        ("/new", directory()),
        ("/x", directory()),
        ("/d/f", file(b"1")),
        ("/d/g", file(b"1")),
        ("/d/sub", directory()),
        ("/l/f", file(b"1")),
        ("/new/a", file(b"1")),
        ("/new/b", directory()),
        ("/x/y", file(b"1")),
        ("/new/b/c", file(b"1")),
    ];
    for (at, entry) in &plan {
        found.extend(target.conflict(&key(at), entry).unwrap().map(|conflict| conflict.to_string()));
    }
    assert_eq!(
        found,
        ["/l: a symbolic link is already there", "/x: a file is already there", "/d/f: a file is already there"]
    );
    assert_eq!(names(path), ["d", "l", "x"]);
    assert!(matches!(put(&target, "/d/f", b"1"), Err(RestoreError::Conflict(_))));
    assert!(matches!(put(&target, "/d/f", &[1; BIG]), Err(RestoreError::Conflict(_))));
    assert!(matches!(put_directory(&target, "/x"), Err(RestoreError::Conflict(_))));
    target.finish().unwrap();
    assert_eq!(fs::read(path.join("d/f")).unwrap(), b"old");
    assert_eq!(names(&path.join("d")), ["f", "sub"]);
}

/// What is at `f` (old content) and `d` (a file where the snapshot has a directory) after a restore of both.
fn restored_over(policy: ConflictPolicy, existing_seconds: i64, content: &[u8]) -> (Vec<String>, RestoreReport) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    fs::create_dir(path.join("keep")).unwrap();
    fs::write(path.join("keep/mine"), "mine").unwrap();
    for name in ["f", "d", "l"] {
        fs::write(path.join(name), "old").unwrap();
        let time = std::time::UNIX_EPOCH + std::time::Duration::from_secs(existing_seconds as u64);
        fs::File::options().write(true).open(path.join(name)).unwrap().set_modified(time).unwrap();
    }
    let target = open(path, policy);
    put_directory(&target, "/d").unwrap();
    put(&target, "/f", content).unwrap();
    put_directory(&target, "/keep").unwrap();
    target.create(&key("/l"), &link_to("t"), Vec::new()).unwrap();
    put(&target, "/d/in", content).unwrap();
    // A file where a directory is: the directory and what it holds stay whatever the policy.
    let _ = put(&target, "/keep", content);
    let report = target.finish().unwrap();
    assert_eq!(fs::read(path.join("keep/mine")).unwrap(), b"mine");
    let mut state = Vec::new();
    for name in names(path) {
        let metadata = fs::symlink_metadata(path.join(&name)).unwrap();
        let what = match () {
            () if metadata.is_dir() => names(&path.join(&name)).join(","),
            () if metadata.is_symlink() => "link".to_owned(),
            () if fs::read(path.join(&name)).unwrap() == content => "new".to_owned(),
            () => "old".to_owned(),
        };
        state.push(format!("{name}={what}"));
    }
    (state, report)
}

#[test]
fn every_policy_does_what_it_says() {
    for content in [b"new".to_vec(), vec![7; BIG]] {
        let over = ["d=in", "f=new", "keep=mine", "l=link"];
        let left = ["d=old", "f=old", "keep=mine", "l=old"];
        let (state, report) = restored_over(ConflictPolicy::Overwrite, 2_000_000_000, &content);
        assert_eq!(state, over);
        assert_eq!((report.created, report.replaced), (4, 3));
        assert_eq!(report.problem_counts().collect::<Vec<_>>(), [(ProblemKind::InTheWay, 1)]);
        assert_eq!(restored_over(ConflictPolicy::Newer, 999_999_999, &content).0, over);
        assert_eq!(restored_over(ConflictPolicy::Newer, 1_000_000_001, &content).0, left);
        let (state, report) = restored_over(ConflictPolicy::Skip, 5, &content);
        assert_eq!(state, left);
        assert_eq!((report.created, report.skipped), (0, 5));
        let (state, report) = restored_over(ConflictPolicy::KeepBoth, 5, &content);
        assert_eq!(
            state,
            [
                "d=old",
                "d.restored=in",
                "f=old",
                "f.restored=new",
                "keep=mine",
                "keep.restored=new",
                "l=old",
                "l.restored=link"
            ]
        );
        assert_eq!((report.created, report.kept_both), (5, 4));
    }
}

#[test]
fn an_unfinished_file_leaves_nothing_behind() {
    let folder = tempfile::tempdir().unwrap();
    let target = open(folder.path(), ConflictPolicy::Stop);
    for content in [vec![1; 10], vec![1; BIG]] {
        let created = target.create(&key("/f"), &file(&content), Vec::new()).unwrap();
        let Created::File(writer) = created else { panic!("{created:?}") };
        writer.write_at(3, &content[3..]).unwrap();
        assert!(writer.write_at(3, &content).is_err(), "beyond the end");
        drop(writer);
        assert_eq!(names(folder.path()), Vec::<String>::new());
    }
}

#[test]
fn thousands_of_open_files_need_few_descriptors() {
    let folder = tempfile::tempdir().unwrap();
    let target = open(folder.path(), ConflictPolicy::Stop);
    let mut writers = Vec::new();
    for number in 0..6000 {
        let content = [number as u8; 100];
        let created = target.create(&key(&format!("/f{number}")), &file(&content), Vec::new()).unwrap();
        let Created::File(writer) = created else { panic!() };
        writer.write_at(50, &content[50..]).unwrap();
        writers.push((writer, content));
    }
    assert!(target.shared.files.open_count() <= crate::fs::fd_pool::POOLED_FILES_MAX);
    for (number, (writer, content)) in writers.into_iter().enumerate() {
        writer.write_at(0, &content[..50]).unwrap();
        writer.finish().unwrap();
        assert_eq!(fs::read(folder.path().join(format!("f{number}"))).unwrap(), content);
    }
    assert!(target.finish().unwrap().is_complete());
}

#[test]
fn hard_links_join_only_equal_content_and_survive_a_failed_first() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    let target = open(path, ConflictPolicy::Stop);
    let linked = |content: &[u8]| Entry { link_group: Some(5), ..file(content) };
    let create = |at: &str, content: &[u8]| target.create(&key(at), &linked(content), Vec::new()).unwrap();
    // The first is given up: the next takes its place.
    drop(create("/a", b"same"));
    let Created::File(writer) = create("/b", b"same") else { panic!() };
    assert!(matches!(create("/c", b"same"), Created::LinkedLater));
    let Created::File(other) = create("/d", b"diff") else { panic!() };
    for (writer, content) in [(writer, b"same"), (other, b"diff")] {
        writer.write_at(0, content).unwrap();
        writer.finish().unwrap();
    }
    assert!(matches!(create("/sub/e", b"same"), Created::LinkedLater));
    let report = target.finish().unwrap();
    assert!(report.is_complete(), "{report:?}");
    let inode = |name: &str| fs::metadata(path.join(name)).unwrap().ino();
    assert_eq!(names(path), ["b", "c", "d", "sub"]);
    assert_eq!((inode("b"), inode("b")), (inode("c"), inode("sub/e")));
    assert_ne!(inode("b"), inode("d"));
}

#[test]
fn a_link_whose_object_never_came_is_a_problem() {
    let folder = tempfile::tempdir().unwrap();
    let target = open(folder.path(), ConflictPolicy::Stop);
    let linked = Entry { link_group: Some(5), ..file(b"x") };
    let first = target.create(&key("/a"), &linked, Vec::new()).unwrap();
    assert!(matches!(target.create(&key("/b"), &linked, Vec::new()).unwrap(), Created::LinkedLater));
    drop(first);
    let report = target.finish().unwrap();
    assert_eq!(report.problem_counts().collect::<Vec<_>>(), [(ProblemKind::Link, 1)]);
}

#[test]
fn the_targets_own_metadata_changes_only_if_it_was_empty() {
    let folder = tempfile::tempdir().unwrap();
    let root = Entry { mode: 0o751, ..directory() };
    let full = folder.path().join("full");
    fs::create_dir(&full).unwrap();
    fs::write(full.join("x"), "").unwrap();
    let before = fs::metadata(&full).unwrap();
    for (path, takes) in [(folder.path().join("new"), true), (full.clone(), false)] {
        let target = open(&path, ConflictPolicy::Overwrite);
        target.create(&PathKey::root(), &root, Vec::new()).unwrap();
        target.finish().unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777 == 0o751, takes);
    }
    assert_eq!(fs::metadata(&full).unwrap().modified().unwrap(), before.modified().unwrap());
}

#[test]
fn an_inherited_acl_does_not_stay_on_what_comes_back() {
    // Version 2; owner rwx, user 1234 rwx, group r-x, mask rwx, others r-x.
    let mut acl = vec![2, 0, 0, 0];
    for (tag, permissions, id) in
        [(1u16, 7u16, u32::MAX), (2, 7, 1234), (4, 5, u32::MAX), (0x10, 7, u32::MAX), (0x20, 5, u32::MAX)]
    {
        acl.extend_from_slice(&tag.to_le_bytes());
        acl.extend_from_slice(&permissions.to_le_bytes());
        acl.extend_from_slice(&id.to_le_bytes());
    }
    let folder = tempfile::tempdir().unwrap();
    let fd: OwnedFd = fs::File::open(folder.path()).unwrap().into();
    let object = super::super::xattr::Object::named(&fd, b".");
    object.set(super::super::xattr::ACL_DEFAULT, &acl).unwrap();
    let target = open(folder.path(), ConflictPolicy::Stop);
    put_directory(&target, "/d").unwrap();
    put(&target, "/f", b"x").unwrap();
    put(&target, "/d/g", b"x").unwrap();
    let report = target.finish().unwrap();
    assert!(report.is_complete(), "{report:?}");
    for name in ["d", "f", "d/g"] {
        let object = super::super::xattr::Object::named(&fd, name.as_bytes());
        assert_eq!(object.names().unwrap(), Vec::<Vec<u8>>::new(), "{name}");
        let path = folder.path().join(name);
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o755, "{}", path.as_os_str().as_bytes().len());
    }
}
