//! The tools of the other tests: seeded trees repeat exactly, and the comparer sees every single thing it promises to.
#![allow(clippy::unwrap_used, clippy::panic)] // a test says what is wrong by failing

use std::ffi::CStr;
use std::fs;
use std::os::unix::fs::{FileExt, PermissionsExt, symlink};
use std::path::Path;
use tests::change;
use tests::compare::{Options, Report, compare};
use tests::directory::{Directory, remove_tree};
use tests::seed::Seed;
use tests::trees::{Totals, life_like, many_small_files, sparse_file, totals};
use tests::{oddity, trees};

fn compared(left: &Path, right: &Path) -> Report {
    compare(left, right, Options::default()).unwrap()
}

#[test]
fn the_oddity_tree_repeats_from_its_seed() {
    let seed = Seed::announce();
    let folder = tempfile::tempdir().unwrap();
    let (one, two) = (folder.path().join("one"), folder.path().join("two"));
    for path in [&one, &two] {
        fs::create_dir(path).unwrap();
        let built = oddity::build(path, &mut seed.stream("oddity tree")).unwrap();
        eprintln!("{} entries, refused: {:?}", built.entries, built.refused);
        assert!(built.entries > 13_000);
    }
    let report = compared(&one, &two);
    // Times nobody set are those of creation.
    let unset: Vec<_> = report.differences.iter().filter(|found| !found.what.starts_with("modified ")).collect();
    assert!(unset.is_empty(), "{unset:?}");
    assert!(report.entries > 13_000);
    remove_tree(&one).unwrap();
    remove_tree(&two).unwrap();
    assert!(!one.exists());
}

#[test]
fn life_like_trees_meet_their_goal_and_repeat() {
    let seed = Seed::announce();
    let folder = tempfile::tempdir().unwrap();
    let goal = Totals { files: 2000, bytes: 60 << 20 };
    let (one, two) = (folder.path().join("one"), folder.path().join("two"));
    let built = life_like(&one, goal, seed).unwrap();
    assert_eq!(built, totals(&one).unwrap());
    assert!(built.bytes.abs_diff(goal.bytes) < goal.bytes / 20, "{built:?}");
    assert!(built.files.abs_diff(goal.files) < 50);
    life_like(&two, goal, seed).unwrap();
    let report = compare(&one, &two, Options { holes: false, ..Options::default() }).unwrap();
    let unequal: Vec<_> = report
        .differences
        .iter()
        .filter(|found| !found.what.starts_with("modified ") && !found.what.starts_with("target "))
        .collect();
    assert!(unequal.is_empty(), "{unequal:?}");

    let changes = change::apply(&one, 10, &mut seed.stream("change")).unwrap();
    assert_eq!(change::apply(&two, 10, &mut seed.stream("change")).unwrap().len(), changes.len());
    assert!(changes.len() >= 20 && changes.len() < 24, "{}", changes.len());
    // Most changes are to files that stay; of twenty, chance decides whether it shows.
    assert!(!changes.modified.is_empty());
}

#[test]
fn a_top_up_adds_only_what_is_missing() {
    let seed = Seed::announce();
    let folder = tempfile::tempdir().unwrap();
    let goal = Totals { files: 100, bytes: 1 << 20 };
    let none = trees::top_up(&folder.path().join("none"), goal, goal, seed).unwrap();
    assert_eq!(none, Totals::default());
    let some = trees::top_up(&folder.path().join("some"), Totals { files: 40, bytes: 0 }, goal, seed).unwrap();
    assert!(some.files >= 60 && some.bytes > 1_000_000, "{some:?}");
}

#[test]
fn huge_directories_and_sparse_files_are_as_asked() {
    let seed = Seed::announce();
    let folder = tempfile::tempdir().unwrap();
    let flat = folder.path().join("flat");
    many_small_files(&flat, 3000, seed).unwrap();
    assert_eq!(Directory::open(&flat).unwrap().names().unwrap().len(), 3000);
    assert_eq!(trees::many_folders(&folder.path().join("wide"), 30, 20, seed).unwrap().files, 600);
    let sparse = folder.path().join("sparse");
    sparse_file(&sparse, 500 << 20, 100 << 20, seed).unwrap();
    let meta = fs::metadata(&sparse).unwrap();
    let allocated = std::os::unix::fs::MetadataExt::blocks(&meta) * 512;
    assert_eq!(meta.len(), 500 << 20);
    assert!((100 << 20..130 << 20).contains(&allocated), "{allocated}");
}

#[test]
fn a_later_dump_differs_a_little() {
    let seed = Seed::announce();
    let (mut one, mut two) = (Vec::new(), Vec::new());
    trees::dump(&mut one, 8 << 20, 0, seed).unwrap();
    trees::dump(&mut two, 8 << 20, 1, seed).unwrap();
    let lines = |bytes: &[u8]| bytes.split(|&byte| byte == b'\n').map(<[u8]>::to_vec).collect::<Vec<_>>();
    let (one, two) = (lines(&one), lines(&two));
    let differing = one.iter().zip(&two).filter(|(one, two)| one != two).count();
    assert!(differing > 2 && differing < one.len() / 1000, "{differing} of {}", one.len());
}

/// One change to the second of two equal trees must be the one difference found.
#[test]
fn the_comparer_sees_every_kind_of_difference() {
    type Change = fn(&Path);
    let changes: [(&str, Change); 16] = [
        ("contents differ at byte 5", |top| {
            let file = fs::OpenOptions::new().write(true).open(top.join("file")).unwrap();
            file.write_all_at(b"!", 5).unwrap();
            file.set_modified(std::time::UNIX_EPOCH).unwrap();
        }),
        ("length 12 against 13", |top| {
            let file = fs::OpenOptions::new().write(true).open(top.join("file")).unwrap();
            file.set_len(13).unwrap();
            file.set_modified(std::time::UNIX_EPOCH).unwrap();
        }),
        ("mode 0644 against 0600", |top| {
            fs::set_permissions(top.join("file"), fs::Permissions::from_mode(0o600)).unwrap();
        }),
        ("mode 0755 against 1755", |top| {
            fs::set_permissions(top.join("inner"), fs::Permissions::from_mode(0o1755)).unwrap();
        }),
        ("modified 0.000000000 against -1.999999999", |top| {
            Directory::open(top).unwrap().set_modified(b"file", (-1, 999_999_999)).unwrap();
        }),
        ("modified 0.000000000 against 0.000000001", |top| {
            Directory::open(top).unwrap().set_modified(b"link", (0, 1)).unwrap();
        }),
        ("attributes [] against [\"user.x\" (0 bytes)]", |top| set(top, b"file", c"user.x", b"")),
        ("attributes [] against [\"user.x\" (2 bytes)]", |top| set(top, b"inner", c"user.x", b"\0\xff")),
        ("only in the first tree", |top| remove(top, b"second name")),
        ("only in the second tree", |top| {
            fs::write(top.join("more"), b"").unwrap();
            settle(top);
        }),
        ("target nowhere against elsewhere", |top| {
            remove(top, b"link");
            symlink("elsewhere", top.join("link")).unwrap();
            settle(top);
        }),
        ("type Symlink against RegularFile", |top| {
            remove(top, b"link");
            fs::write(top.join("link"), b"").unwrap();
            settle(top);
        }),
        ("type Fifo against Socket", |top| {
            remove(top, b"fifo");
            Directory::open(top).unwrap().create_node(b"fifo", rustix::fs::FileType::Socket, 0, 0).unwrap();
            settle(top);
        }),
        ("hard link to /first name against /second name", |top| {
            remove(top, b"second name");
            fs::copy(top.join("first name"), top.join("second name")).unwrap();
            settle(top);
        }),
        ("data at [1048576..1052672] against [0..1052672]", |top| {
            let file = fs::OpenOptions::new().write(true).open(top.join("inner/holes")).unwrap();
            file.write_all_at(&vec![0; 1 << 20], 0).unwrap();
            file.set_modified(std::time::UNIX_EPOCH).unwrap();
        }),
        ("modified 0.000000000 against 7.000000000", |top| {
            Directory::open(top).unwrap().set_modified_self((7, 0)).unwrap();
        }),
    ];
    for (expected, change) in changes {
        let folder = tempfile::tempdir().unwrap();
        let (one, two) = (folder.path().join("one"), folder.path().join("two"));
        small_tree(&one);
        small_tree(&two);
        let report = compared(&one, &two);
        assert!(report.is_equal(), "{report}");
        assert_eq!((report.entries, report.files), (7, 4));
        change(&two);
        let report = compared(&one, &two);
        assert_eq!(report.differences_count, 1, "{expected}: {report}");
        assert_eq!(report.differences[0].what, expected);
    }
}

#[test]
fn the_comparer_sees_owners_and_devices() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: foreign owners and devices need root");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let (one, two) = (folder.path().join("one"), folder.path().join("two"));
    for (path, minor, uid) in [(&one, 3, 5), (&two, 5, 6)] {
        small_tree(path);
        let directory = Directory::open(path).unwrap();
        directory.create_node(b"device", rustix::fs::FileType::CharacterDevice, 1, minor).unwrap();
        directory.set_owner(b"link", uid, 7).unwrap();
        settle(path);
    }
    let report = compared(&one, &two);
    let found: Vec<&str> = report.differences.iter().map(|found| found.what.as_str()).collect();
    assert_eq!(found, ["device 0x103 against 0x105", "owner 5:7 against 6:7"]);
    let report = compare(&one, &two, Options { owners: false, ..Options::default() }).unwrap();
    assert_eq!(report.differences_count, 1);
}

fn small_tree(top: &Path) {
    fs::create_dir_all(top.join("inner")).unwrap();
    fs::write(top.join("file"), b"some content").unwrap();
    fs::write(top.join("first name"), b"linked").unwrap();
    fs::hard_link(top.join("first name"), top.join("second name")).unwrap();
    symlink("nowhere", top.join("link")).unwrap();
    let directory = Directory::open(top).unwrap();
    directory.create_node(b"fifo", rustix::fs::FileType::Fifo, 0, 0).unwrap();
    let holes = fs::File::create(top.join("inner/holes")).unwrap();
    holes.write_all_at(&[1; 4096], 1 << 20).unwrap();
    settle(top);
}

/// Sets every time that the caller did not mean to change.
fn settle(top: &Path) {
    for directory in [top.join("inner"), top.to_path_buf()] {
        let directory = Directory::open(&directory).unwrap();
        for name in directory.names().unwrap() {
            directory.set_modified(&name, (0, 0)).unwrap();
        }
        directory.set_modified_self((0, 0)).unwrap();
    }
}

fn set(top: &Path, name: &[u8], attribute: &CStr, value: &[u8]) {
    Directory::open(top).unwrap().set_attribute(name, attribute, value).unwrap();
}

fn remove(top: &Path, name: &[u8]) {
    Directory::open(top).unwrap().remove_file(name).unwrap();
    settle(top);
}
