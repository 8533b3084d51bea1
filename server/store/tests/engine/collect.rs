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
    assert_eq!(bed.store().recount(&VAULT).unwrap(), before);
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
