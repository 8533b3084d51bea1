//! Scrub, damage marks, what damage reaches, and healing.

use crate::bed::{Bed, Files, VAULT, begin, download, files, master, settings, tree, upload};
use repo_format::id::{ObjectId, ObjectKind};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::Path;
use store::world::World;
use store::{CommitInput, DamageReport, PathDamage, ScrubStep, Store, StoreError};

const FOREVER: i64 = i64::MAX;

/// Changes `count` bytes of a file at `offset`.
pub fn rot(path: &Path, offset: u64, count: usize) {
    let mut file = std::fs::OpenOptions::new().read(true).write(true).open(path).unwrap();
    let mut bytes = vec![0; count];
    file.seek(SeekFrom::Start(offset)).unwrap();
    file.read_exact(&mut bytes).unwrap();
    for byte in &mut bytes {
        *byte ^= 0x55;
    }
    file.seek(SeekFrom::Start(offset)).unwrap();
    file.write_all(&bytes).unwrap();
}

/// Where an object's frame begins: its id stands 20 bytes into the frame's header.
pub fn frame_of(pack: &Path, id: &ObjectId) -> Option<u64> {
    let bytes = std::fs::read(pack).unwrap();
    bytes.windows(32).position(|window| window == id.as_bytes()).map(|at| at as u64 - 20)
}

pub fn rot_object(bed: &Bed, id: &ObjectId) {
    let hit = bed.packs().into_iter().find_map(|pack| frame_of(&pack, id).map(|at| (pack, at))).unwrap();
    rot(&hit.0, hit.1 + 100, 3);
}

fn scrub_all(store: &Store) -> ScrubStep {
    let mut sum = ScrubStep::default();
    let before = World::system().clock.now_ns();
    for _ in 0..10_000 {
        let step = store.scrub_step(&VAULT, before, 300_000).unwrap();
        sum.bytes += step.bytes;
        sum.packs += step.packs;
        sum.objects_damaged += step.objects_damaged;
        sum.packs_damaged += step.packs_damaged;
        sum.packs_missing += step.packs_missing;
        if step.done {
            return ScrubStep { done: true, ..sum };
        }
    }
    panic!("a scrub does not end");
}

fn paths(report: &DamageReport) -> Vec<(String, PathDamage)> {
    let all = report.snapshots.iter().flat_map(|snapshot| &snapshot.paths);
    all.map(|path| (String::from_utf8(path.path.clone()).unwrap(), path.what.clone())).collect()
}

/// A closed store with one snapshot, so that every pack is sealed; open again.
fn sealed(content: &Files) -> (Bed, store::SnapshotInfo) {
    let mut bed = Bed::new();
    let snapshot = upload(bed.store(), content).unwrap();
    bed.store().close().unwrap();
    bed.crash_and_restart();
    (bed, snapshot)
}

#[test]
fn a_scrub_reads_every_sealed_pack_once_and_its_progress_survives_a_restart() {
    let (mut bed, _) = sealed(&files(20, 200, 9000));
    let size: u64 = bed.packs().iter().map(|pack| std::fs::metadata(pack).unwrap().len()).sum();
    let before = bed.store().scrub_progress(&VAULT, 1).unwrap();
    assert_eq!((before.packs, before.packs_verified, before.oldest_verified_ns), (2, 0, None));
    assert_eq!(before.bytes, size);
    let started = World::system().clock.now_ns();
    let first = bed.store().scrub_step(&VAULT, started, 300_000).unwrap();
    assert!(!first.done && first.bytes >= 300_000 && first.bytes < 700_000, "{first:?}");
    let rest = scrub_all(bed.store());
    assert_eq!((first.packs + rest.packs, rest.objects_damaged, rest.packs_damaged), (2, 0, 0));
    bed.store().close().unwrap();
    bed.crash_and_restart();
    let after = bed.store().scrub_progress(&VAULT, started).unwrap();
    assert_eq!((after.packs_verified, after.bytes_verified), (after.packs, after.bytes));
    assert!(after.oldest_verified_ns.is_some_and(|at| at >= started));
    let again = bed.store().scrub_step(&VAULT, started, u64::MAX).unwrap();
    assert_eq!(again, ScrubStep { done: true, ..ScrubStep::default() });
    assert_eq!(bed.store().scrub_step(&VAULT, FOREVER, 1).unwrap().packs, 0);
}

#[test]
fn a_scrub_finds_a_damaged_chunk_names_its_file_and_an_upload_heals_it() {
    let content = files(21, 300, 4000);
    let (mut bed, snapshot) = sealed(&content);
    let keys = bed.store().id_keys(&VAULT).unwrap();
    let all = tree(&keys, &content);
    let damaged = all.chunks[77].id;
    rot_object(&bed, &damaged);
    let step = scrub_all(bed.store());
    assert_eq!((step.objects_damaged, step.packs_damaged), (1, 0));
    assert_eq!(scrub_all(bed.store()).objects_damaged, 0);
    let check = |bed: &Bed| {
        let report = bed.store().damage(&VAULT, 100).unwrap();
        assert_eq!(report.objects_total, 1);
        assert_eq!(report.objects[0].id, damaged);
        assert_eq!(report.snapshots[0].snapshot, snapshot.snapshot);
        assert_eq!(paths(&report), [("/file-00077".into(), PathDamage::Content)]);
        bed.assert_no_drift();
    };
    check(&bed);
    // The mark is journalled: it outlives the index.
    bed.store().close().unwrap();
    bed.store = None;
    std::fs::remove_dir_all(bed.directory.path().join("index")).unwrap();
    Store::rebuild_index(settings(bed.directory.path()), World::system(), &master(), |_, _| {}).unwrap();
    bed.restart();
    check(&bed);
    let session = begin(bed.store(), Some(&snapshot.snapshot));
    assert_eq!(bed.store().damaged_in_base(&VAULT, &session).unwrap(), [damaged]);
    let (have, _) = bed.store().have(&VAULT, &session, &[damaged]).unwrap();
    assert_eq!(have, [false]);
    bed.store().put_chunks(&VAULT, &session, &[all.chunks[77].clone()]).unwrap();
    let (_, incarnation) = bed.store().have(&VAULT, &session, &[]).unwrap();
    bed.store().flush(&VAULT, &session, incarnation).unwrap();
    assert_eq!(bed.store().damaged_in_base(&VAULT, &session).unwrap(), []);
    assert_eq!(bed.store().damage(&VAULT, 100).unwrap(), DamageReport::default());
    assert_eq!(download(bed.store(), &snapshot).unwrap(), content);
    bed.assert_no_drift();
    // And after another rebuild the sound copy is the one that counts, whatever its pack's number.
    bed.store().close().unwrap();
    bed.store = None;
    std::fs::remove_dir_all(bed.directory.path().join("index")).unwrap();
    Store::rebuild_index(settings(bed.directory.path()), World::system(), &master(), |_, _| {}).unwrap();
    bed.restart();
    assert_eq!(download(bed.store(), &snapshot).unwrap(), content);
    assert_eq!(bed.store().damage(&VAULT, 100).unwrap(), DamageReport::default());
    bed.assert_no_drift();
}

#[test]
fn a_damaged_node_gives_the_range_of_paths_that_is_unreadable() {
    let content = files(22, 2000, 300);
    let (bed, snapshot) = sealed(&content);
    let keys = bed.store().id_keys(&VAULT).unwrap();
    let all = tree(&keys, &content);
    // The third leaf; the root comes last.
    let node = all.nodes[2].id;
    rot_object(&bed, &node);
    assert_eq!(scrub_all(bed.store()).objects_damaged, 1);
    let report = bed.store().damage(&VAULT, 100).unwrap();
    let found = paths(&report);
    assert_eq!(found.len(), 1, "{found:?}");
    let (from, PathDamage::Entries { until: Some(until) }) = &found[0] else { panic!("{found:?}") };
    let until = String::from_utf8(until.clone()).unwrap();
    let lost = content.keys().filter(|name| format!("/{name}") >= *from && format!("/{name}") < until).count();
    assert!((1..400).contains(&lost), "{lost} of {found:?}");
    let session = begin(bed.store(), Some(&snapshot.snapshot));
    assert_eq!(bed.store().damaged_in_base(&VAULT, &session).unwrap(), [node]);
    // Sent again, the node heals with its references as they were.
    bed.store().put_nodes(&VAULT, &session, &[all.nodes[2].clone()]).unwrap();
    assert_eq!(bed.store().damage(&VAULT, 100).unwrap(), DamageReport::default());
    assert_eq!(download(bed.store(), &snapshot).unwrap(), content);
    bed.assert_no_drift();
}

#[test]
fn a_mark_is_lifted_when_the_bytes_are_right_again() {
    let content = files(23, 10, 4000);
    let (bed, snapshot) = sealed(&content);
    let keys = bed.store().id_keys(&VAULT).unwrap();
    let id = tree(&keys, &content).chunks[3].id;
    rot_object(&bed, &id);
    assert!(matches!(download(bed.store(), &snapshot), Err(StoreError::Damaged(_))));
    assert_eq!(bed.store().damage(&VAULT, 9).unwrap().objects_total, 1);
    rot_object(&bed, &id);
    assert_eq!(download(bed.store(), &snapshot).unwrap(), content);
    assert_eq!(bed.store().damage(&VAULT, 9).unwrap(), DamageReport::default());
    bed.assert_no_drift();
}

#[test]
fn damaged_trailers_and_headers_are_found_and_truncation_costs_what_it_cut_off() {
    let content = files(24, 40, 20_000);
    for what in ["footer", "trailer", "header", "cut"] {
        let (bed, snapshot) = sealed(&content);
        let pack = bed.packs()[0].clone();
        let len = std::fs::metadata(&pack).unwrap().len();
        match what {
            "footer" => rot(&pack, len - 30, 1),
            "trailer" => rot(&pack, len - 300, 1),
            "header" => rot(&pack, 30, 1),
            _ => std::fs::OpenOptions::new().write(true).open(&pack).unwrap().set_len(len / 2).unwrap(),
        }
        let step = scrub_all(bed.store());
        let report = bed.store().damage(&VAULT, 100).unwrap();
        assert_eq!(step.packs_damaged, 1, "{what}: {step:?}");
        assert_eq!(report.packs.len(), 1, "{what}");
        if what == "cut" {
            assert!((18..25).contains(&report.objects_total), "{report:?}");
            assert_eq!(report.snapshots[0].paths.len() as u64, report.objects_total);
            upload(bed.store(), &content).unwrap();
            assert_eq!(bed.store().damage(&VAULT, 100).unwrap().objects_total, 0);
        } else {
            assert_eq!(report.objects_total, 0, "{what}");
        }
        assert_eq!(download(bed.store(), &snapshot).unwrap(), content, "{what}");
        bed.assert_no_drift();
        // The compactor copies what the pack holds into a sound one.
        let now = World::system().clock.now_ns();
        for step in 0.. {
            if !bed.store().maintain(&VAULT, now).unwrap().more {
                break;
            }
            assert!(step < 1000, "{what}: maintenance does not end");
        }
        if what != "cut" {
            assert_eq!(bed.store().damage(&VAULT, 1).unwrap().packs, [], "{what}");
            assert!(!pack.exists(), "{what}");
        }
        assert_eq!(scrub_all(bed.store()).packs_damaged, 0, "{what}");
        assert_eq!(download(bed.store(), &snapshot).unwrap(), content, "{what}");
        bed.assert_no_drift();
    }
}

#[test]
fn a_report_is_bounded_and_says_so() {
    let content = files(25, 30, 4000);
    let (bed, _) = sealed(&content);
    let keys = bed.store().id_keys(&VAULT).unwrap();
    for chunk in &tree(&keys, &content).chunks[..10] {
        rot_object(&bed, &chunk.id);
    }
    scrub_all(bed.store());
    let report = bed.store().damage(&VAULT, 4).unwrap();
    assert_eq!((report.objects_total, report.snapshots[0].paths.len(), report.truncated), (10, 4, true));
    assert!(report.snapshots[0].truncated);
    assert!(report.objects.iter().all(|object| object.place.is_some() && object.found_ns > 0));
}

#[test]
fn a_snapshot_of_a_healed_tree_commits_on_top_of_the_damaged_one() {
    let content = files(26, 50, 4000);
    let (bed, snapshot) = sealed(&content);
    let keys = bed.store().id_keys(&VAULT).unwrap();
    let all = tree(&keys, &content);
    rot_object(&bed, &ObjectId::from(all.root));
    scrub_all(bed.store());
    let session = begin(bed.store(), Some(&snapshot.snapshot));
    let input = CommitInput { root: all.root, summary_json: Vec::new() };
    assert!(matches!(bed.store().commit(&VAULT, &session, &input), Err(StoreError::Missing(_))));
    let nodes: Vec<_> = all.nodes.iter().filter(|node| node.kind == ObjectKind::Node).cloned().collect();
    bed.store().put_nodes(&VAULT, &session, &nodes).unwrap();
    bed.store().commit(&VAULT, &session, &input).unwrap();
    assert_eq!(download(bed.store(), &snapshot).unwrap(), content);
    bed.assert_no_drift();
}
