//! Stored bytes that are not what they were, and snapshots that no honest agent wrote: named, contained, and nothing
//! else is lost with them.

#![allow(clippy::unwrap_used, clippy::panic)] // a test says what is wrong by failing

use api::problem::Code;
use repo_format::entry::{Entry, EntryKind, PathKey, Time};
use repo_format::frame::{FRAME_HEADER_BYTES, FrameView, find_frame};
use repo_format::id::{ObjectId, ObjectKind};
use repo_format::pathmap::PathMapBuilder;
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use tests::harness::{Scene, Wire, one_record};

/// Offsets within a frame header, as FORMAT.md gives them.
const VERSION_AT: usize = 4;
const CRC_AT: usize = 92;
/// Nodes above an entry in a path map of a few thousand.
const PATH_NODES_MAX: u64 = 4;

#[test]
fn a_frame_of_an_unknown_version_is_damage_of_its_file_only() {
    damage(|frame| {
        frame[VERSION_AT] = 9;
        let crc = crc32c::crc32c(&frame[..CRC_AT]);
        frame[CRC_AT..FRAME_HEADER_BYTES].copy_from_slice(&crc.to_le_bytes());
    });
}

#[test]
fn a_flipped_bit_is_damage_of_its_file_only() {
    damage(|frame| frame[FRAME_HEADER_BYTES + 1000] ^= 0x10);
}

#[test]
fn a_flipped_bit_in_a_header_is_damage_of_its_file_only() {
    damage(|frame| frame[20] ^= 0x01);
}

/// Backs two files up, does something to the stored frame of one of them, and expects the other back, the damage named.
fn damage(change: impl Fn(&mut [u8])) {
    let mut scene = Scene::new().unwrap();
    let source = scene.path("source");
    fs::create_dir(&source).unwrap();
    // Above the size of bundled files and below the smallest cut: exactly one chunk each.
    let mut random = scene.seed.stream("damage");
    let (sound, hurt) = (random.bytes(100_000), random.bytes(100_000));
    fs::write(source.join("sound"), &sound).unwrap();
    fs::write(source.join("hurt"), &hurt).unwrap();
    scene.backup(&source, 0).unwrap();
    let id = ObjectId::from(Wire::connect(&scene.user).unwrap().id_keys().unwrap().chunk_id(&hurt));
    let data = scene.data();
    scene.stop_server().unwrap();
    let (pack, range) = frame_of(&data, &id);
    let mut bytes = fs::read(&pack).unwrap();
    change(&mut bytes[range]);
    fs::write(&pack, &bytes).unwrap();
    scene.start_server(&data).unwrap();
    scene.expected_log.push("a stored object is damaged");

    let target = scene.path("restored");
    let outcome =
        scene.agent.run(["restore".as_ref(), "latest".as_ref(), "--to".as_ref(), target.as_os_str()]).unwrap();
    assert!(matches!(outcome.code, Some(1 | 3)), "{:?} {}", outcome.code, outcome.stderr);
    assert!(outcome.stderr.contains("hurt"), "the damaged file is not named: {}", outcome.stderr);
    assert!(outcome.stderr.contains("damaged"), "{}", outcome.stderr);
    let below = target.join(source.strip_prefix("/").unwrap());
    assert!(fs::read(below.join("sound")).unwrap() == sound, "a sound file was lost as well");
    let came_back = fs::read(below.join("hurt")).unwrap_or_default();
    assert!(came_back.iter().all(|byte| *byte == 0), "damaged bytes were written");
    let check = scene.agent.run(["check", "--read-data"]).unwrap();
    assert!(matches!(check.code, Some(1 | 3)), "{:?} {}{}", check.code, check.text(), check.stderr);
    let log = scene.server().unwrap().log();
    assert!(log.contains("ERROR") && log.contains("a stored object is damaged"), "an operator is not told: {log}");

    // The file has not changed, and the next backup stores it again all the same: every snapshot is whole.
    let healing = scene.backup(&source, 0).unwrap();
    assert_eq!(count(&healing, "objects_healed"), 1, "{healing}");
    assert_eq!(count(&healing, "objects_still_damaged"), 0);
    for snapshot in scene.snapshots().unwrap() {
        let report = scene.restore_and_compare(&snapshot, &source, "healed").unwrap();
        assert!(report.is_equal(), "{report}");
    }
    assert_eq!(scene.agent.run(["check", "--read-data"]).unwrap().code, Some(0));
    assert_eq!(count(&scene.backup(&source, 0).unwrap(), "files_opened"), 0);
}

fn count(summary: &Value, name: &str) -> u64 {
    summary
        .pointer(&format!("/counters/{name}"))
        .and_then(Value::as_u64)
        .unwrap_or_else(|| panic!("no {name} in {summary}"))
}

#[test]
fn damaged_nodes_heal_and_what_has_changed_since_is_named() {
    let mut scene = Scene::new().unwrap();
    let source = scene.path("source");
    fs::create_dir(&source).unwrap();
    let mut random = scene.seed.stream("damaged nodes");
    for number in 0..3000 {
        fs::write(source.join(format!("{number:04}")), random.bytes(100)).unwrap();
    }
    let (kept, gone) = (random.bytes(900_000), random.bytes(100_000));
    fs::write(source.join("kept"), &kept).unwrap();
    fs::write(source.join("gone"), &gone).unwrap();
    scene.backup(&source, 0).unwrap();
    let id = ObjectId::from(Wire::connect(&scene.user).unwrap().id_keys().unwrap().chunk_id(&gone));
    let data = scene.data();
    scene.stop_server().unwrap();
    let (pack, range) = frame_of(&data, &id);
    let mut bytes = fs::read(&pack).unwrap();
    bytes[range.start + 200] ^= 1;
    fs::write(&pack, &bytes).unwrap();
    // Every other node, but not the last, the root: without it nobody gets to see the others.
    let packs = files_below(&data).into_iter().filter(|path| path.extension().is_some_and(|end| end == "pack"));
    let (mut nodes, mut hit) = (0, 0);
    for path in packs {
        let mut bytes = fs::read(&path).unwrap();
        let (mut at, mut ends) = (0, Vec::new());
        while let Some(found) = find_frame(&bytes, at) {
            at = found + 1;
            let Ok(frame) = FrameView::parse(&bytes[found..]) else { continue };
            at = found + frame.frame_len();
            if frame.header.kind == ObjectKind::Node {
                ends.push(at);
            }
        }
        nodes += ends.len();
        for end in ends.into_iter().rev().skip(1).step_by(2) {
            bytes[end - 1] ^= 1;
            hit += 1;
        }
        fs::write(&path, &bytes).unwrap();
    }
    assert!(nodes > 20, "{nodes} nodes");
    scene.start_server(&data).unwrap();
    scene.expected_log.extend(["a stored object is damaged", "does not hold what was written"]);
    let administer = |arguments: &[&str]| scene.server().unwrap().administer(&scene.binaries, arguments).unwrap();
    let damaged = || {
        let said: Value = serde_json::from_str(&administer(&["vault", "damage", "tester", "--json"])).unwrap();
        said.pointer("/objects").and_then(Value::as_u64).unwrap()
    };
    // Nothing has been read yet, so nothing is known. A reader does not come by what a damaged node hides; a scrub does.
    assert_eq!(damaged(), 0);
    administer(&["vault", "scrub", "tester"]);
    assert_eq!(damaged(), hit + 1);
    fs::remove_file(source.join("gone")).unwrap();
    let healing = scene.backup(&source, 0).unwrap();
    assert!(count(&healing, "objects_healed") > hit / 2, "{healing}");
    assert!(count(&healing, "objects_still_damaged") > 0, "{healing}");
    // Only the chunk that is gone, and nodes on the way to it, which no later snapshot has.
    assert!((1..=PATH_NODES_MAX + 1).contains(&damaged()), "{} of {hit} are left", damaged());
    let second = scene.snapshots().unwrap().pop().unwrap();
    let report = scene.restore_and_compare(&second, &source, "second").unwrap();
    assert!(report.is_equal(), "{report}");
}

/// The pack that holds an object, and where in it.
fn frame_of(folder: &Path, id: &ObjectId) -> (PathBuf, std::ops::Range<usize>) {
    for path in files_below(folder) {
        let bytes = fs::read(&path).unwrap();
        let mut at = 0;
        while let Some(found) = find_frame(&bytes, at) {
            if let Ok(frame) = FrameView::parse(&bytes[found..])
                && frame.header.id == *id
            {
                return (path, found..found + frame.frame_len());
            }
            at = found + 1;
        }
    }
    panic!("no frame of {id} below {}", folder.display());
}

fn files_below(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files_below(&path));
        } else if path.is_file() {
            found.push(path);
        }
    }
    found
}

#[test]
fn a_node_with_names_that_leave_their_folder_is_refused() {
    let scene = Scene::new().unwrap();
    let wire = Wire::connect(&scene.user).unwrap();
    let keys = wire.id_keys().unwrap();
    let session = wire.begin().unwrap();
    let entry = Entry {
        kind: EntryKind::Symlink { target: b"planted".to_vec() },
        mode: 0o777,
        uid: 0,
        gid: 0,
        user: Vec::new(),
        group: Vec::new(),
        mtime: Time::default(),
        xattrs: Vec::new(),
        link_group: None,
    };
    let post = |plaintext: &[u8]| {
        let id = keys.node_id(plaintext);
        let record = one_record(ObjectKind::Node, 0, plaintext.len() as u32, &id.into(), plaintext);
        wire.post_binary(&format!("{session}/nodes"), record).unwrap()
    };
    let hostile: [(&[u8], &[u8]); 5] =
        [(b"Q", b"."), (b"QQ", b".."), (b"QQQQ", b"../x"), (b"QQQQ", b"/etc"), (b"QQQ", b"a\0b")];
    for (honest, hostile) in hostile {
        let mut nodes = Vec::new();
        let mut sink = |node| nodes.push(node);
        let mut builder = PathMapBuilder::new(&keys);
        builder.push(&PathKey::new([], honest).unwrap(), &entry, &mut sink).unwrap();
        builder.finish(&mut sink).unwrap();
        let [node] = nodes.as_slice() else { panic!("{} nodes", nodes.len()) };
        let at = node.bytes.windows(honest.len()).position(|window| window == honest).unwrap();
        let mut plaintext = node.bytes.clone();
        plaintext[at..at + hostile.len()].copy_from_slice(hostile);
        let answer = post(&plaintext);
        let said = String::from_utf8_lossy(&answer.body);
        assert_eq!((answer.status, answer.code()), (422, Some(Code::BadNode)), "{}: {said}", hostile.escape_ascii());
        // The same node with the honest name is fine: it was the name.
        assert_eq!(post(&node.bytes).status, 200);
    }
    assert!(scene.snapshots().unwrap().is_empty());
}
