//! Restarts without closing, torn packs, a lost index, damaged frames.

use crate::bed::{Bed, VAULT, begin, download, files, master, settings, tree, upload};
use repo_format::id::ObjectId;
use std::io::{Seek, SeekFrom, Write};
use store::world::World;
use store::{CommitInput, Delivered, Store, StoreError};

#[test]
fn what_was_received_is_found_again_and_what_was_acknowledged_stays() {
    let mut bed = Bed::new();
    let first = files(1, 50, 2000);
    let snapshot = upload(bed.store(), &first).unwrap();
    let keys = bed.store().id_keys(&VAULT).unwrap();
    let later = tree(&keys, &files(2, 50, 2000));
    let session = begin(bed.store(), Some(&snapshot.snapshot));
    bed.store().put_chunks(&VAULT, &session, &later.chunks).unwrap();
    bed.crash_and_restart();
    assert_eq!(download(bed.store(), &snapshot).unwrap(), first);
    // The killed process had written the frames: adoption finds them, so nothing need be sent again.
    let ids: Vec<ObjectId> = later.chunks.iter().map(|chunk| chunk.id).collect();
    let (have, _) = bed.store().have(&VAULT, &session, &ids).unwrap();
    assert!(have.iter().all(|have| *have));
    bed.assert_no_drift();
    bed.store().put_nodes(&VAULT, &session, &later.nodes).unwrap();
    bed.store().commit(&VAULT, &session, &CommitInput { root: later.root, summary_json: Vec::new() }).unwrap();
    bed.assert_no_drift();
}

#[test]
fn a_torn_tail_is_cut_and_frames_behind_damage_are_found() {
    let mut bed = Bed::new();
    let keys = bed.store().id_keys(&VAULT).unwrap();
    let later = tree(&keys, &files(3, 20, 3000));
    let session = begin(bed.store(), None);
    bed.store().put_chunks(&VAULT, &session, &later.chunks).unwrap();
    bed.store = None;
    let pack = &bed.packs()[0];
    let len = std::fs::metadata(pack).unwrap().len();
    let mut file = std::fs::OpenOptions::new().write(true).open(pack).unwrap();
    // Damage in the middle of the second frame, and the last frame torn.
    file.seek(SeekFrom::Start(64 + 3112 + 500)).unwrap();
    file.write_all(b"rot").unwrap();
    file.set_len(len - 10).unwrap();
    bed.restart();
    let ids: Vec<ObjectId> = later.chunks.iter().map(|chunk| chunk.id).collect();
    let (have, _) = bed.store().have(&VAULT, &session, &ids).unwrap();
    let lost: Vec<usize> = (0..have.len()).filter(|&index| !have[index]).collect();
    assert_eq!(lost, [1, 19]);
    bed.assert_no_drift();
    let again: Vec<_> = lost.iter().map(|&index| later.chunks[index].clone()).collect();
    bed.store().put_chunks(&VAULT, &session, &again).unwrap();
    bed.store().put_nodes(&VAULT, &session, &later.nodes).unwrap();
    bed.assert_no_drift();
}

#[test]
fn a_rebuilt_index_equals_the_lost_one() {
    let mut bed = Bed::new();
    let (first, second) = (files(4, 700, 900), files(5, 60, 40_000));
    let a = upload(bed.store(), &first).unwrap();
    let b = upload(bed.store(), &second).unwrap();
    // Objects nothing refers to belong to the index as well.
    let keys = bed.store().id_keys(&VAULT).unwrap();
    let session = begin(bed.store(), None);
    let loose = tree(&keys, &files(6, 9, 100));
    bed.store().put_chunks(&VAULT, &session, &loose.chunks).unwrap();
    bed.store().put_nodes(&VAULT, &session, &loose.nodes).unwrap();
    let before = bed.store().recount(&VAULT).unwrap();
    for close in [true, false] {
        if close {
            bed.store().close().unwrap();
        }
        bed.store = None;
        std::fs::remove_dir_all(bed.directory.path().join("index")).unwrap();
        bed.restart();
        let refused = bed.store().snapshots(&VAULT);
        assert!(
            matches!(&refused, Err(StoreError::Unavailable { reason, .. }) if reason.contains("rebuild-index")),
            "{refused:?}"
        );
        bed.store = None;
        let report =
            Store::rebuild_index(settings(bed.directory.path()), World::system(), &master(), |_, _| {}).unwrap();
        assert_eq!(report.rebuilt[0].1.orphans, 0);
        bed.restart();
        let after = bed.store().recount(&VAULT).unwrap();
        assert_eq!(after, before);
        assert_eq!(download(bed.store(), &a).unwrap(), first);
        assert_eq!(download(bed.store(), &b).unwrap(), second);
    }
}

#[test]
fn a_damaged_object_is_reported_counts_as_absent_and_heals() {
    let mut bed = Bed::new();
    let content = files(7, 10, 5000);
    let snapshot = upload(bed.store(), &content).unwrap();
    bed.store().close().unwrap();
    bed.store = None;
    let pack = bed.packs()[0].clone();
    let mut file = std::fs::OpenOptions::new().write(true).open(pack).unwrap();
    file.seek(SeekFrom::Start(64 + 200)).unwrap();
    file.write_all(b"rot").unwrap();
    bed.restart();
    let keys = bed.store().id_keys(&VAULT).unwrap();
    let tree = tree(&keys, &content);
    let damaged = tree.chunks[0].id;
    let ids: Vec<ObjectId> = tree.chunks.iter().map(|chunk| chunk.id).collect();
    let mut found = Vec::new();
    bed.store()
        .read_objects(&VAULT, &ids, |delivered| {
            if let Delivered::Damaged(id) = delivered {
                found.push(id);
            }
            Ok(())
        })
        .unwrap();
    assert_eq!(found, [damaged]);
    assert!(matches!(download(bed.store(), &snapshot), Err(StoreError::Damaged(_))));
    // The next upload that has the bytes heals the snapshot.
    assert_eq!(upload(bed.store(), &content).unwrap().root, snapshot.root);
    assert_eq!(download(bed.store(), &snapshot).unwrap(), content);
    bed.assert_no_drift();
}

#[test]
fn a_missing_pack_makes_only_its_vault_unavailable() {
    let mut bed = Bed::new();
    upload(bed.store(), &files(8, 10, 500)).unwrap();
    let other = repo_format::id::VaultId::from_bytes([0x44; 16]);
    bed.store().create_vault(other).unwrap();
    bed.store().close().unwrap();
    bed.store = None;
    std::fs::remove_file(&bed.packs()[0]).unwrap();
    bed.restart();
    assert!(matches!(bed.store().snapshots(&VAULT), Err(StoreError::Unavailable { .. })));
    bed.store().snapshots(&other).unwrap();
}

#[test]
fn another_master_key_is_refused_with_a_clear_error() {
    let mut bed = Bed::new();
    bed.store = None;
    let wrong = repo_format::masterkey::MasterKey::from_bytes([8; 32]);
    let refused = Store::open(settings(bed.directory.path()), World::system(), &wrong).err().unwrap();
    assert!(refused.to_string().contains("keyring"), "{refused}");
    // One copy of the keyring is enough, and the other one comes back.
    std::fs::write(bed.directory.path().join("keyring.a"), b"rot").unwrap();
    bed.restart();
    bed.store().snapshots(&VAULT).unwrap();
    let [a, b] = store::KEYRING_FILES.map(|name| std::fs::read(bed.directory.path().join(name)).unwrap());
    assert_eq!(a, b);
}

#[test]
fn no_file_of_the_store_is_readable_by_others() {
    use std::os::unix::fs::PermissionsExt;
    let bed = Bed::new();
    upload(bed.store(), &files(9, 3, 100)).unwrap();
    for path in bed.packs().into_iter().chain(store::KEYRING_FILES.map(|name| bed.directory.path().join(name))) {
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600, "{}", path.display());
    }
}

#[test]
fn a_lost_start_counter_never_repeats_a_pack() {
    let mut bed = Bed::new();
    upload(bed.store(), &files(10, 5, 100)).unwrap();
    bed.crash_and_restart();
    upload(bed.store(), &files(11, 5, 100)).unwrap();
    let epoch = bed.store().epoch();
    bed.store().close().unwrap();
    bed.store = None;
    std::fs::remove_file(bed.directory.path().join("epoch")).unwrap();
    bed.restart();
    assert!(bed.store().epoch() > epoch);
    upload(bed.store(), &files(12, 5, 100)).unwrap();
    bed.assert_no_drift();
}
