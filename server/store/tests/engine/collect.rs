//! Garbage collection: what goes, what stays, and what a session, a restore or a restart keeps.

use crate::bed::{Bed, Files, VAULT, begin, chunk, download, files, tree, upload};
use repo_format::id::ObjectId;
use store::world::{Clock, SystemClock};
use store::{CommitInput, Maintained, Store, StoreError};

pub const MINUTE_NS: i64 = 60 * 1_000_000_000;
const DAY_NS: i64 = 24 * 60 * MINUTE_NS;

pub fn now_ns() -> i64 {
    SystemClock.now_ns()
}

/// Steps of maintenance until there is nothing more to do, summed up.
pub fn run_dry(store: &Store, now_ns: i64) -> Maintained {
    let mut sum = Maintained::default();
    for _ in 0..100_000 {
        let done = store.maintain(&VAULT, now_ns).unwrap();
        sum.expired_uploads += done.expired_uploads;
        sum.expired_restores += done.expired_restores;
        sum.purged_snapshots += done.purged_snapshots;
        sum.reaped_objects += done.reaped_objects;
        sum.reaped_bytes += done.reaped_bytes;
        sum.unreadable_nodes += done.unreadable_nodes;
        sum.sealed_packs += done.sealed_packs;
        sum.dropped_packs += done.dropped_packs;
        sum.dropped_bytes += done.dropped_bytes;
        sum.copied_frames += done.copied_frames;
        sum.copied_bytes += done.copied_bytes;
        if !done.more {
            sum.next_ns = done.next_ns;
            return sum;
        }
    }
    panic!("maintenance never ends: {sum:?}");
}

/// Uploads chunks and nodes of a tree under a new session and leaves it open.
fn half_upload(bed: &Bed, content: &Files) -> (repo_format::id::UploadSessionId, crate::bed::Tree) {
    let tree = tree(&bed.store().id_keys(&VAULT).unwrap(), content);
    let session = begin(bed.store(), None);
    bed.store().put_chunks(&VAULT, &session, &tree.chunks).unwrap();
    bed.store().put_nodes(&VAULT, &session, &tree.nodes).unwrap();
    (session, tree)
}

#[test]
fn with_nothing_expired_nothing_is_removed() {
    let mut bed = Bed::new();
    let content = files(1, 300, 1000);
    let snapshot = upload(bed.store(), &content).unwrap();
    let before = bed.store().recount(&VAULT).unwrap();
    for _ in 0..2 {
        let done = run_dry(bed.store(), now_ns());
        assert_eq!((done.reaped_objects, done.dropped_packs, done.copied_bytes), (0, 0, 0), "{done:?}");
        assert_eq!(bed.store().recount(&VAULT).unwrap(), before);
        bed.crash_and_restart();
    }
    assert!(!bed.store().vaults_to_maintain(now_ns()).is_empty(), "a pack was found open");
    run_dry(bed.store(), now_ns());
    assert!(bed.store().vaults_to_maintain(now_ns()).is_empty());
    assert_eq!(download(bed.store(), &snapshot).unwrap(), content);
}

#[test]
fn an_aborted_upload_leaves_nothing() {
    let bed = Bed::new();
    let content = files(1, 50, 1000);
    let snapshot = upload(bed.store(), &content).unwrap();
    run_dry(bed.store(), now_ns());
    let before = bed.store().recount(&VAULT).unwrap();
    let (session, tree) = half_upload(&bed, &files(2, 700, 500));
    let done = run_dry(bed.store(), now_ns());
    assert_eq!(done.reaped_objects, 0, "the session holds its nodes");
    bed.store().abort_upload(&VAULT, &session).unwrap();
    let done = run_dry(bed.store(), now_ns());
    assert_eq!(done.reaped_objects, (tree.chunks.len() + tree.nodes.len()) as u64);
    assert!(done.sealed_packs > 0, "an idle vault gives the space of its open packs back: {done:?}");
    let after = bed.store().recount(&VAULT).unwrap();
    assert_eq!((after.objects, after.drift), (before.objects, before.drift));
    assert_eq!(after.ledger.physical_bytes, before.ledger.physical_bytes);
    assert_eq!(download(bed.store(), &snapshot).unwrap(), content);
    assert_eq!(run_dry(bed.store(), now_ns()).reaped_objects, 0);
}

#[test]
fn a_purged_snapshot_gives_its_bytes_back_and_no_others() {
    let mut bed = Bed::new();
    let first = files(3, 200, 800);
    let mut second = first.clone();
    second.extend(files(4, 60, 900));
    let a = upload(bed.store(), &first).unwrap();
    let with_first = bed.store().recount(&VAULT).unwrap();
    let b = upload(bed.store(), &second).unwrap();
    bed.store().purge_snapshots(&VAULT, &[b.snapshot]).unwrap();
    let done = run_dry(bed.store(), now_ns());
    assert!(done.reaped_bytes > 60 * 900);
    let after = bed.store().recount(&VAULT).unwrap();
    assert_eq!(after.drift, Vec::<String>::new());
    assert_eq!(after.objects, with_first.objects);
    assert_eq!(after.ledger.physical_bytes, with_first.ledger.physical_bytes);
    assert_eq!(download(bed.store(), &a).unwrap(), first);
    // With the last snapshot everything goes, files included.
    bed.store().purge_snapshots(&VAULT, &[a.snapshot]).unwrap();
    let done = run_dry(bed.store(), now_ns());
    assert!(done.dropped_packs > 0);
    assert_eq!(bed.store().usage(&VAULT).unwrap().physical_bytes, 0);
    assert_eq!(bed.packs(), Vec::<std::path::PathBuf>::new());
    assert_eq!(bed.store().space(&VAULT).unwrap(), store::VaultSpace::default());
    bed.crash_and_restart();
    bed.assert_no_drift();
    assert_eq!(bed.store().usage(&VAULT).unwrap().physical_bytes, 0);
}

#[test]
fn what_have_promised_stays_until_its_session_ends() {
    let bed = Bed::new();
    let (aborted, tree) = half_upload(&bed, &files(5, 40, 600));
    bed.store().abort_upload(&VAULT, &aborted).unwrap();
    let session = begin(bed.store(), None);
    let ids: Vec<ObjectId> = tree.chunks.iter().map(|chunk| chunk.id).collect();
    assert!(bed.store().have(&VAULT, &session, &ids).unwrap().0.iter().all(|have| *have));
    // The nodes of the aborted upload go, its chunks were promised.
    assert_eq!(run_dry(bed.store(), now_ns()).reaped_objects, tree.nodes.len() as u64);
    bed.store().put_nodes(&VAULT, &session, &tree.nodes).unwrap();
    bed.store().commit(&VAULT, &session, &CommitInput { root: tree.root, summary_json: Vec::new() }).unwrap();
    assert_eq!(run_dry(bed.store(), now_ns()).reaped_objects, 0);
    bed.assert_no_drift();
}

#[test]
fn a_flush_keeps_what_was_promised_over_a_restart() {
    let mut bed = Bed::new();
    let (aborted, tree) = half_upload(&bed, &files(6, 30, 700));
    bed.store().abort_upload(&VAULT, &aborted).unwrap();
    let (session, incarnation) = bed.store().begin_upload(&VAULT, "c", "s", None).unwrap();
    let (flushed, sent): (Vec<_>, Vec<_>) = tree.chunks.iter().enumerate().partition(|(index, _)| index % 2 == 0);
    let ids: Vec<ObjectId> = flushed.iter().map(|(_, chunk)| chunk.id).collect();
    assert!(bed.store().have(&VAULT, &session, &ids).unwrap().0.iter().all(|have| *have));
    let sent: Vec<_> = sent.into_iter().map(|(_, chunk)| chunk.clone()).collect();
    bed.store().put_chunks(&VAULT, &session, &sent).unwrap();
    bed.store().flush(&VAULT, &session, incarnation).unwrap();
    bed.crash_and_restart();
    // Long after the time granted for coming back.
    assert_eq!(run_dry(bed.store(), now_ns() + 60 * MINUTE_NS).reaped_objects, tree.nodes.len() as u64);
    bed.store().put_nodes(&VAULT, &session, &tree.nodes).unwrap();
    bed.assert_no_drift();
}

#[test]
fn after_a_restart_uploads_have_a_moment_to_come_back() {
    let mut bed = Bed::new();
    let tree = tree(&bed.store().id_keys(&VAULT).unwrap(), &files(7, 10, 700));
    let session = begin(bed.store(), None);
    bed.store().put_chunks(&VAULT, &session, &tree.chunks).unwrap();
    bed.crash_and_restart();
    let done = run_dry(bed.store(), now_ns());
    assert_eq!(done.reaped_objects, 0);
    assert!(done.next_ns.unwrap() <= now_ns() + MINUTE_NS);
    let ids: Vec<ObjectId> = tree.chunks[..4].iter().map(|chunk| chunk.id).collect();
    assert!(bed.store().have(&VAULT, &session, &ids).unwrap().0.iter().all(|have| *have));
    // It is back: what it did not ask for again goes now.
    assert_eq!(run_dry(bed.store(), now_ns()).reaped_objects, 6);
    bed.assert_no_drift();
}

#[test]
fn a_session_holds_its_base_and_a_restore_its_snapshot() {
    let mut bed = Bed::new();
    let content = files(8, 120, 700);
    let snapshot = upload(bed.store(), &content).unwrap();
    let restore = bed.store().begin_restore(&VAULT, &snapshot.snapshot).unwrap();
    let session = begin(bed.store(), Some(&snapshot.snapshot));
    bed.store().purge_snapshots(&VAULT, &[snapshot.snapshot]).unwrap();
    for _ in 0..2 {
        assert_eq!(run_dry(bed.store(), now_ns()).reaped_objects, 0);
        assert_eq!(download(bed.store(), &snapshot).unwrap(), content);
        bed.store().touch_restore(&VAULT, &restore).unwrap();
        // Both are rows: a restart changes nothing.
        bed.crash_and_restart();
    }
    bed.store().end_restore(&VAULT, &restore).unwrap();
    bed.store().end_restore(&VAULT, &restore).unwrap();
    assert!(matches!(bed.store().touch_restore(&VAULT, &restore), Err(StoreError::NoSuchRestore(_))));
    bed.store().upload_session(&VAULT, &session).unwrap();
    assert_eq!(run_dry(bed.store(), now_ns()).reaped_objects, 0);
    // The base alone is enough to commit it again.
    let input = CommitInput { root: snapshot.root, summary_json: Vec::new() };
    let again = bed.store().commit(&VAULT, &session, &input).unwrap();
    assert_eq!(download(bed.store(), &again).unwrap(), content);
    bed.store().purge_snapshots(&VAULT, &[again.snapshot]).unwrap();
    run_dry(bed.store(), now_ns());
    assert_eq!(bed.store().usage(&VAULT).unwrap().physical_bytes, 0);
    assert!(matches!(bed.store().begin_restore(&VAULT, &again.snapshot), Err(StoreError::NoSuchSnapshot(_))));
    bed.assert_no_drift();
}

#[test]
fn sessions_without_requests_end() {
    let mut bed = Bed::new();
    let snapshot = upload(bed.store(), &files(9, 5, 300)).unwrap();
    let (session, _) = half_upload(&bed, &files(10, 50, 300));
    let restore = bed.store().begin_restore(&VAULT, &snapshot.snapshot).unwrap();
    let done = run_dry(bed.store(), now_ns() + DAY_NS - MINUTE_NS);
    assert_eq!((done.expired_uploads, done.expired_restores, done.reaped_objects), (0, 0, 0));
    bed.crash_and_restart();
    assert_eq!(bed.store().vaults_to_maintain(now_ns()), [VAULT]);
    // A restart grants them their time anew.
    bed.store().live_sessions(&VAULT).unwrap();
    let done = run_dry(bed.store(), now_ns() + DAY_NS);
    assert_eq!((done.expired_uploads, done.expired_restores), (1, 1));
    assert!(done.reaped_objects > 50);
    assert!(matches!(bed.store().upload_session(&VAULT, &session), Err(StoreError::NoSuchSession(_))));
    assert!(matches!(bed.store().touch_restore(&VAULT, &restore), Err(StoreError::NoSuchRestore(_))));
    let late = chunk(&bed.store().id_keys(&VAULT).unwrap(), b"late");
    assert!(matches!(bed.store().put_chunks(&VAULT, &session, &[late]), Err(StoreError::NoSuchSession(_))));
    assert_eq!(bed.store().live_sessions(&VAULT).unwrap(), 0);
    bed.assert_no_drift();
}

#[test]
fn softly_deleted_snapshots_go_when_their_time_has_passed() {
    let bed = Bed::new();
    let content = files(11, 40, 500);
    let snapshot = upload(bed.store(), &content).unwrap();
    let until_ns = now_ns() + 2 * MINUTE_NS;
    bed.store().delete_snapshots(&VAULT, &[snapshot.snapshot], until_ns, "test").unwrap();
    assert_eq!(run_dry(bed.store(), now_ns()).reaped_objects, 0);
    bed.store().undelete_snapshot(&VAULT, &snapshot.snapshot).unwrap();
    bed.store().delete_snapshots(&VAULT, &[snapshot.snapshot], until_ns, "test").unwrap();
    let done = run_dry(bed.store(), until_ns);
    assert_eq!(done.purged_snapshots, 1);
    assert_eq!(bed.store().usage(&VAULT).unwrap().physical_bytes, 0);
    bed.assert_no_drift();
}

/// A bed whose packs are so small that a few files fill many.
fn small_packs() -> Bed {
    Bed::with(|settings| settings.pack_bytes_target = 64 << 10)
}

/// Uploads days of a slowly changing tree, with everything before the last `kept` days purged.
fn days(bed: &Bed, count: u64, kept: usize) -> Vec<(store::SnapshotInfo, Files)> {
    let mut content = files(100, 200, 3000);
    let mut snapshots = Vec::new();
    for day in 0..count {
        let changed: Vec<String> = content
            .keys()
            .enumerate()
            .filter(|(index, _)| (*index as u64 * 7 + day).is_multiple_of(11))
            .map(|(_, name)| name.clone())
            .collect();
        for (name, bytes) in changed.into_iter().zip(files(200 + day, 200, 3000).into_values()) {
            content.insert(name, bytes);
        }
        snapshots.push((upload(bed.store(), &content).unwrap(), content.clone()));
        if snapshots.len() > kept {
            let (old, _) = snapshots.remove(0);
            bed.store().purge_snapshots(&VAULT, &[old.snapshot]).unwrap();
        }
    }
    snapshots
}

#[test]
fn compaction_keeps_dead_bytes_few_and_every_snapshot_whole() {
    let mut bed = small_packs();
    let mut copied = 0;
    let snapshots = days(&bed, 12, 3);
    copied += run_dry(bed.store(), now_ns()).copied_bytes;
    assert!(copied > 0, "scattered change leaves packs half dead");
    let space = bed.store().space(&VAULT).unwrap();
    assert!(space.dead_bytes * 100 <= space.stored_bytes * 20, "{space:?}");
    let on_disk: u64 = bed.packs().iter().map(|pack| std::fs::metadata(pack).unwrap().len()).sum();
    assert!(on_disk < space.stored_bytes + space.stored_bytes / 5 + 64 * bed.packs().len() as u64);
    for restart in [false, true] {
        if restart {
            bed.crash_and_restart();
        }
        for (snapshot, content) in &snapshots {
            assert_eq!(&download(bed.store(), snapshot).unwrap(), content);
        }
        bed.assert_no_drift();
    }
    // Nothing has changed: nothing more to do, also after the adoption of what was open.
    run_dry(bed.store(), now_ns());
    assert_eq!(run_dry(bed.store(), now_ns()).copied_bytes, 0);
}

/// The copies' pack is open while a plan is under way, and the end of the plan must not leave it so.
#[test]
fn nothing_stays_of_copies_whose_objects_go_while_others_are_copied() {
    for copied_before in 1..6 {
        let bed = small_packs();
        let snapshots = days(&bed, 12, 3);
        let mut copied = 0;
        while copied < copied_before {
            let done = bed.store().maintain(&VAULT, now_ns()).unwrap();
            assert!(done.more, "the plan ended after {copied} packs: nothing was under way");
            copied += usize::from(done.copied_bytes > 0);
        }
        let ids: Vec<_> = snapshots.iter().map(|(snapshot, _)| snapshot.snapshot).collect();
        bed.store().purge_snapshots(&VAULT, &ids).unwrap();
        run_dry(bed.store(), now_ns());
        assert_eq!(bed.store().space(&VAULT).unwrap(), store::VaultSpace::default(), "{copied_before}");
        assert_eq!(bed.packs(), Vec::<std::path::PathBuf>::new(), "{copied_before}");
        bed.assert_no_drift();
    }
}

#[test]
fn a_rotten_frame_is_marked_and_not_copied() {
    let mut bed = small_packs();
    let content = files(20, 60, 3000);
    let keep: Files = content.iter().take(30).map(|(name, bytes)| (name.clone(), bytes.clone())).collect();
    let all = upload(bed.store(), &content).unwrap();
    let snapshot = upload(bed.store(), &keep).unwrap();
    bed.store().close().unwrap();
    bed.store = None;
    // The first frame of the first data pack is a file that is kept.
    let pack = bed.packs()[0].clone();
    let mut bytes = std::fs::read(&pack).unwrap();
    bytes[64 + 96 + 500] ^= 1;
    std::fs::write(&pack, bytes).unwrap();
    bed.restart();
    bed.store().purge_snapshots(&VAULT, &[all.snapshot]).unwrap();
    let done = run_dry(bed.store(), now_ns());
    assert!(done.dropped_packs > 0 && done.reaped_objects > 0, "{done:?}");
    if done.copied_bytes > 0 {
        bed.assert_no_drift();
    }
    match download(bed.store(), &snapshot) {
        Err(StoreError::Damaged(_)) => {}
        other => panic!("{:?}", other.map(|files| files.len())),
    }
    // The bytes come again: the snapshot heals, and the pack of the rotten frame can go.
    upload(bed.store(), &keep).unwrap();
    assert_eq!(download(bed.store(), &snapshot).unwrap(), keep);
    run_dry(bed.store(), now_ns());
    bed.assert_no_drift();
}

#[test]
fn an_index_older_than_the_disk_is_rebuilt() {
    let mut bed = small_packs();
    let old = upload(bed.store(), &files(30, 100, 3000)).unwrap();
    let content = files(31, 100, 3000);
    bed.store().close().unwrap();
    bed.store = None;
    let index = bed.directory.path().join("index");
    let saved = bed.directory.path().join("saved");
    let copy = |from: &std::path::Path, to: &std::path::Path| {
        std::fs::create_dir_all(to).unwrap();
        for entry in std::fs::read_dir(from).unwrap() {
            let entry = entry.unwrap();
            std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
        }
    };
    copy(&index, &saved);
    bed.restart();
    let snapshot = upload(bed.store(), &content).unwrap();
    bed.store().purge_snapshots(&VAULT, &[old.snapshot]).unwrap();
    assert!(run_dry(bed.store(), now_ns()).dropped_packs > 0);
    let before = bed.store().recount(&VAULT).unwrap();
    bed.store().close().unwrap();
    bed.store = None;
    std::fs::remove_dir_all(&index).unwrap();
    copy(&saved, &index);
    bed.restart();
    assert_eq!(download(bed.store(), &snapshot).unwrap(), content);
    let listed: Vec<_> = bed.store().snapshots(&VAULT).unwrap().into_iter().map(|row| row.snapshot).collect();
    assert_eq!(listed, [snapshot.snapshot]);
    run_dry(bed.store(), now_ns());
    let after = bed.store().recount(&VAULT).unwrap();
    assert_eq!((after.objects, after.drift), (before.objects, Vec::new()));
    assert_eq!(after.ledger.physical_bytes, before.ledger.physical_bytes);
}

#[test]
fn a_rebuild_after_collection_is_equal_once_the_reaper_has_run_dry() {
    let mut bed = small_packs();
    let snapshots = days(&bed, 8, 3);
    run_dry(bed.store(), now_ns());
    let deleted = snapshots[0].0.snapshot;
    bed.store().delete_snapshots(&VAULT, &[deleted], now_ns() + DAY_NS, "test").unwrap();
    bed.store().hold_snapshot(&VAULT, &snapshots[1].0.snapshot, Some(now_ns() + DAY_NS), false).unwrap();
    let before = bed.store().recount(&VAULT).unwrap();
    let states = bed.store().snapshots(&VAULT).unwrap();
    bed.store().close().unwrap();
    bed.store = None;
    std::fs::remove_dir_all(bed.directory.path().join("index")).unwrap();
    Store::rebuild_index(bed.settings(), store::world::World::system(), &crate::bed::master(), |_, _| {}).unwrap();
    bed.restart();
    assert_eq!(bed.store().snapshots(&VAULT).unwrap(), states);
    let rebuilt = bed.store().usage(&VAULT).unwrap();
    assert_eq!(rebuilt.logical_bytes, before.ledger.logical_bytes);
    assert_eq!(rebuilt.deleted_logical_bytes, before.ledger.deleted_logical_bytes);
    run_dry(bed.store(), now_ns());
    let after = bed.store().recount(&VAULT).unwrap();
    assert_eq!((after.objects, after.drift), (before.objects, Vec::new()));
    assert_eq!(after.ledger.physical_bytes, before.ledger.physical_bytes);
    for (snapshot, content) in snapshots.iter().skip(1) {
        assert_eq!(&download(bed.store(), snapshot).unwrap(), content);
    }
}
