//! What happens to a snapshot after its commit: deleted and brought back, held, tagged, purged; over restarts, rebuilds
//! and new generations of the journal.

use crate::bed::{Bed, JOURNAL_RECORDS_MIN, VAULT, begin, download, files, master, settings, tree, upload};
use repo_format::id::SnapshotId;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};
use store::world::{Clock, SystemClock, World};
use store::{CommitInput, SnapshotInfo, Store, StoreError};

const HOUR_NS: i64 = 3_600_000_000_000;

fn now_ns(bed: &Bed) -> i64 {
    bed.store().now_ns().unwrap()
}

/// `count` snapshots of one small tree.
fn snapshots(bed: &Bed, count: usize) -> Vec<SnapshotInfo> {
    let first = upload(bed.store(), &files(1, 3, 100)).unwrap();
    let again = (1..count).map(|_| commit_again(bed, &first));
    std::iter::once(first.clone()).chain(again).collect()
}

fn commit_again(bed: &Bed, first: &SnapshotInfo) -> SnapshotInfo {
    let session = begin(bed.store(), None);
    let input = CommitInput { root: first.root, summary_json: b"{}".to_vec() };
    bed.store().commit(&VAULT, &session, &input).unwrap()
}

fn listed(bed: &Bed) -> Vec<SnapshotInfo> {
    bed.store().snapshots(&VAULT).unwrap()
}

/// Files of the journal, in order.
fn journal(bed: &Bed) -> Vec<PathBuf> {
    let folder = std::fs::read_dir(bed.vault_directory().join("journal")).unwrap();
    let mut paths: Vec<PathBuf> = folder.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths
}

fn segments(bed: &Bed) -> usize {
    journal(bed).len()
}

fn journal_bytes(bed: &Bed) -> u64 {
    journal(bed).iter().map(|path| std::fs::metadata(path).unwrap().len()).sum()
}

fn rebuild(bed: &mut Bed) {
    bed.store.take().unwrap().close().unwrap();
    Store::rebuild_index(settings(bed.directory.path()), World::system(), &master(), |_, _| {}).unwrap();
    bed.restart();
}

fn copy_folder(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}

#[test]
fn a_deleted_snapshot_is_listed_not_read_and_can_be_brought_back() {
    let mut bed = Bed::new();
    let content = files(1, 20, 500);
    let kept = upload(bed.store(), &files(2, 20, 500)).unwrap();
    let snapshot = upload(bed.store(), &content).unwrap();
    let usage = bed.store().usage(&VAULT).unwrap();
    let until_ns = now_ns(&bed) + HOUR_NS;
    bed.store().delete_snapshots(&VAULT, &[snapshot.snapshot], until_ns, "someone").unwrap();
    // Again, with another date: the first answer stands.
    bed.store().delete_snapshots(&VAULT, &[snapshot.snapshot], until_ns + 1, "someone else").unwrap();
    for stop in 0..3 {
        let rows = listed(&bed);
        assert_eq!(rows.len(), 2);
        assert_eq!(rows[0], kept);
        let deleted = rows[1].deleted.as_ref().unwrap();
        assert_eq!((deleted.until_ns, deleted.by.as_str()), (until_ns, "someone"));
        assert_eq!(rows[1].commit, snapshot.commit);
        let after = bed.store().usage(&VAULT).unwrap();
        assert_eq!(after.deleted_logical_bytes, snapshot.logical_bytes);
        assert_eq!((after.deleted_snapshots, after.snapshots), (1, 2));
        assert_eq!(after.logical_bytes, usage.logical_bytes);
        assert_eq!(after.pending_bytes, usage.pending_bytes);
        for refused in [
            bed.store().readable_snapshot(&VAULT, &snapshot.snapshot).map(|_| ()),
            bed.store().begin_upload(&VAULT, "c", "s", Some(&snapshot.snapshot)).map(|_| ()),
        ] {
            assert!(matches!(refused, Err(StoreError::SnapshotDeleted { until_ns: until, .. }) if until == until_ns));
        }
        bed.assert_no_drift();
        match stop {
            0 => bed.crash_and_restart(),
            1 => rebuild(&mut bed),
            _ => {}
        }
    }
    for _ in 0..2 {
        let back = bed.store().undelete_snapshot(&VAULT, &snapshot.snapshot).unwrap();
        assert_eq!(back, snapshot);
    }
    assert_eq!(download(bed.store(), &snapshot).unwrap(), content);
    assert_eq!(bed.store().usage(&VAULT).unwrap().deleted_logical_bytes, 0);
    rebuild(&mut bed);
    assert_eq!(listed(&bed), [kept, snapshot]);
    bed.assert_no_drift();
}

#[test]
fn what_one_call_deletes_or_purges_is_written_at_once_and_syncs_no_index() {
    let bed = Bed::new();
    let ids: Vec<SnapshotId> = snapshots(&bed, 20).iter().map(|row| row.snapshot).collect();
    let (before, syncs) = (segments(&bed), bed.store().index_syncs());
    bed.store().delete_snapshots(&VAULT, &ids, i64::MAX, "").unwrap();
    assert_eq!(segments(&bed), before + 1);
    let bytes = journal_bytes(&bed);
    assert_eq!(bed.store().purge_snapshots(&VAULT, &ids).unwrap(), 20);
    assert_eq!(segments(&bed), before + 1, "one tombstone is appended to it");
    assert_eq!(journal_bytes(&bed), bytes + 100 + 2 + 20 * 16);
    assert_eq!(bed.store().purge_snapshots(&VAULT, &ids).unwrap(), 0);
    assert_eq!(journal_bytes(&bed), bytes + 100 + 2 + 20 * 16, "nothing changed, nothing written");
    assert_eq!(bed.store().index_syncs(), syncs, "the journal is the truth");
}

#[test]
fn a_purged_snapshot_is_gone_and_its_objects_wait_for_the_reaper() {
    let mut bed = Bed::new();
    let rows = snapshots(&bed, 3);
    let before = bed.store().usage(&VAULT).unwrap();
    assert_eq!(bed.store().purge_snapshots(&VAULT, &[rows[0].snapshot, rows[1].snapshot]).unwrap(), 2);
    assert_eq!(bed.store().usage(&VAULT).unwrap().pending_bytes, before.pending_bytes, "the third has the same root");
    bed.store().delete_snapshots(&VAULT, &[rows[2].snapshot], 0, "").unwrap();
    assert_eq!(bed.store().purge_snapshots(&VAULT, &[rows[2].snapshot]).unwrap(), 1);
    for stop in 0..3 {
        assert_eq!(listed(&bed), []);
        let usage = bed.store().usage(&VAULT).unwrap();
        assert_eq!((usage.snapshots, usage.logical_bytes), (0, 0));
        assert_eq!((usage.deleted_snapshots, usage.deleted_logical_bytes), (0, 0));
        assert!(usage.pending_bytes > before.pending_bytes, "the root counts nothing any more");
        bed.assert_no_drift();
        for row in &rows {
            let gone = bed.store().snapshot(&VAULT, &row.snapshot);
            assert!(matches!(gone, Err(StoreError::NoSuchSnapshot(_))));
        }
        match stop {
            0 => bed.crash_and_restart(),
            1 => rebuild(&mut bed),
            _ => {}
        }
    }
}

#[test]
fn a_held_snapshot_is_neither_deleted_nor_purged_and_nobody_shortens_the_hold_without_the_right() {
    let mut bed = Bed::new();
    let ids: Vec<SnapshotId> = snapshots(&bed, 2).iter().map(|row| row.snapshot).collect();
    let until_ns = now_ns(&bed) + HOUR_NS;
    let hold = |bed: &Bed, until_ns, may_shorten| bed.store().hold_snapshot(&VAULT, &ids[0], until_ns, may_shorten);
    assert_eq!(hold(&bed, Some(until_ns), false).unwrap().hold_until_ns, Some(until_ns));
    assert_eq!(hold(&bed, Some(until_ns), false).unwrap().hold_until_ns, Some(until_ns));
    for _ in 0..2 {
        for refused in [
            bed.store().delete_snapshots(&VAULT, &ids, i64::MAX, ""),
            bed.store().purge_snapshots(&VAULT, &ids).map(|_| ()),
            hold(&bed, Some(until_ns - 1), false).map(|_| ()),
            hold(&bed, None, false).map(|_| ()),
        ] {
            match refused {
                Err(StoreError::Held { snapshot, until_ns: until }) => {
                    assert_eq!((snapshot, until), (ids[0], until_ns))
                }
                other => panic!("{other:?}"),
            }
        }
        assert!(listed(&bed).iter().all(|row| row.deleted.is_none()), "refused for one, done for none");
        rebuild(&mut bed);
    }
    let later_ns = until_ns + HOUR_NS;
    assert_eq!(hold(&bed, Some(later_ns), false).unwrap().hold_until_ns, Some(later_ns), "longer is always allowed");
    assert_eq!(hold(&bed, Some(until_ns), true).unwrap().hold_until_ns, Some(until_ns));
    assert_eq!(hold(&bed, None, true).unwrap().hold_until_ns, None);
    assert_eq!(bed.store().purge_snapshots(&VAULT, &ids).unwrap(), 2);
}

#[test]
fn a_hold_that_has_ended_binds_nobody() {
    let bed = Bed::new();
    let id = snapshots(&bed, 1)[0].snapshot;
    bed.store().hold_snapshot(&VAULT, &id, Some(now_ns(&bed) - 1), false).unwrap();
    bed.store().hold_snapshot(&VAULT, &id, None, false).unwrap();
    bed.store().hold_snapshot(&VAULT, &id, Some(now_ns(&bed) - 1), false).unwrap();
    assert_eq!(bed.store().purge_snapshots(&VAULT, &[id]).unwrap(), 1);
}

#[test]
fn a_deleted_snapshot_is_due_when_its_time_is_over_and_no_hold_keeps_it() {
    let bed = Bed::new();
    let ids: Vec<SnapshotId> = snapshots(&bed, 3).iter().map(|row| row.snapshot).collect();
    assert_eq!(bed.store().snapshots_due(&VAULT, i64::MAX).unwrap(), []);
    bed.store().delete_snapshots(&VAULT, &ids[..2], 1000, "").unwrap();
    bed.store().hold_snapshot(&VAULT, &ids[1], Some(2000), false).unwrap();
    let due = |now_ns| {
        let mut due = bed.store().snapshots_due(&VAULT, now_ns).unwrap();
        due.sort_by_key(|id| ids.iter().position(|other| other == id));
        due
    };
    assert_eq!(due(999), []);
    assert_eq!(due(1000), ids[..1]);
    assert_eq!(due(1999), ids[..1]);
    assert_eq!(due(2000), ids[..2]);
}

#[test]
fn tags_are_a_set_and_survive() {
    let mut bed = Bed::new();
    let id = snapshots(&bed, 1)[0].snapshot;
    let tags = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
    let row = bed.store().tag_snapshot(&VAULT, &id, &tags(&["b", "a", "b"])).unwrap();
    assert_eq!(row.tags, Some(tags(&["a", "b"])));
    let before = journal_bytes(&bed);
    bed.store().tag_snapshot(&VAULT, &id, &tags(&["a", "b"])).unwrap();
    assert_eq!(journal_bytes(&bed), before);
    rebuild(&mut bed);
    assert_eq!(listed(&bed)[0].tags, Some(tags(&["a", "b"])));
    bed.store().tag_snapshot(&VAULT, &id, &[]).unwrap();
    bed.crash_and_restart();
    assert_eq!(listed(&bed)[0].tags, Some(Vec::new()));
    let too_long = bed.store().tag_snapshot(&VAULT, &id, &["t".repeat(257)]);
    assert!(matches!(too_long, Err(StoreError::Format(_))));
}

#[test]
fn unknown_snapshots_are_refused_but_by_purge() {
    let bed = Bed::new();
    let known = snapshots(&bed, 1)[0].snapshot;
    let unknown = SnapshotId::from_bytes([9; 16]);
    for refused in [
        bed.store().delete_snapshots(&VAULT, &[known, unknown], i64::MAX, ""),
        bed.store().undelete_snapshot(&VAULT, &unknown).map(|_| ()),
        bed.store().hold_snapshot(&VAULT, &unknown, Some(1), true).map(|_| ()),
        bed.store().tag_snapshot(&VAULT, &unknown, &[]).map(|_| ()),
    ] {
        assert!(matches!(refused, Err(StoreError::NoSuchSnapshot(id)) if id == unknown));
    }
    assert!(listed(&bed)[0].deleted.is_none());
    assert_eq!(bed.store().purge_snapshots(&VAULT, &[unknown]).unwrap(), 0);
}

/// Changes enough that the journal is written anew, and leaves one snapshot of every state.
fn every_state_in_a_new_generation(bed: &Bed) -> Vec<SnapshotInfo> {
    let rows = snapshots(bed, 5);
    let id = |index: usize| rows[index].snapshot;
    bed.store().delete_snapshots(&VAULT, &[id(1), id(2)], i64::MAX, "someone").unwrap();
    bed.store().hold_snapshot(&VAULT, &id(2), Some(i64::MAX), false).unwrap();
    bed.store().purge_snapshots(&VAULT, &[id(3)]).unwrap();
    for number in 0..JOURNAL_RECORDS_MIN {
        bed.store().tag_snapshot(&VAULT, &id(4), &[number.to_string()]).unwrap();
    }
    let first = journal(bed).remove(0);
    assert!(first.file_name().unwrap().to_str().unwrap().starts_with("00000002-"), "{first:?}");
    listed(bed)
}

#[test]
fn a_new_generation_carries_every_state() {
    let mut bed = Bed::new();
    let before = every_state_in_a_new_generation(&bed);
    assert_eq!(before.len(), 4);
    rebuild(&mut bed);
    assert_eq!(listed(&bed), before);
    bed.assert_no_drift();
}

#[test]
fn an_index_older_than_the_generation_does_not_bring_purged_snapshots_back() {
    let mut bed = Bed::new();
    // An index that knows six snapshots, one deleted, comes back after a generation that knows neither.
    let old = snapshots(&bed, 6);
    bed.store().delete_snapshots(&VAULT, &[old[5].snapshot], i64::MAX, "").unwrap();
    bed.store.take().unwrap().close().unwrap();
    let (index, aside) = (bed.directory.path().join("index"), bed.directory.path().join("aside"));
    copy_folder(&index, &aside);
    bed.restart();
    let ids: Vec<SnapshotId> = old[..5].iter().map(|row| row.snapshot).collect();
    bed.store().purge_snapshots(&VAULT, &ids).unwrap();
    bed.store().undelete_snapshot(&VAULT, &old[5].snapshot).unwrap();
    let now = every_state_in_a_new_generation(&bed);
    bed.store.take().unwrap().close().unwrap();
    std::fs::remove_dir_all(&index).unwrap();
    std::fs::rename(&aside, &index).unwrap();
    bed.restart();
    assert_eq!(listed(&bed), now);
    bed.assert_no_drift();
}

fn flip(path: &Path, at: usize) {
    let mut bytes = std::fs::read(path).unwrap();
    bytes[at] ^= 0x20;
    std::fs::write(path, bytes).unwrap();
}

#[test]
fn a_damaged_journal_that_the_index_contains_is_written_anew() {
    let mut bed = Bed::new();
    let rows = snapshots(&bed, 4);
    bed.store().delete_snapshots(&VAULT, &[rows[1].snapshot], i64::MAX, "someone").unwrap();
    bed.store().hold_snapshot(&VAULT, &rows[2].snapshot, Some(i64::MAX), false).unwrap();
    bed.store().purge_snapshots(&VAULT, &[rows[3].snapshot]).unwrap();
    let before = listed(&bed);
    for at in [10, 150, 700] {
        bed.store.take().unwrap().close().unwrap();
        let file = journal(&bed).into_iter().find(|path| path.extension().unwrap() == "journal").unwrap();
        flip(&file, at);
        bed.restart();
        assert_eq!(listed(&bed), before);
        assert!(!file.exists());
        assert!(journal(&bed).iter().any(|path| path.to_str().unwrap().starts_with(file.to_str().unwrap())));
        rebuild(&mut bed);
        assert_eq!(listed(&bed), before, "the new generation says all");
        bed.assert_no_drift();
    }
}

#[test]
fn a_journal_damaged_beyond_the_index_stops_the_vault_and_a_rebuild_goes_on_past_it() {
    let mut bed = Bed::new();
    let rows = snapshots(&bed, 5);
    let before = listed(&bed);
    bed.store.take().unwrap().close().unwrap();
    let file = journal(&bed).remove(0);
    // The third of five commits of equal length.
    let record = (std::fs::metadata(&file).unwrap().len() as usize - 64) / 5;
    flip(&file, 64 + 2 * record + 90);
    let report = Store::rebuild_index(settings(bed.directory.path()), World::system(), &master(), |_, _| {}).unwrap();
    let named = &report.rebuilt[0].1.journal_damage;
    assert_eq!(named.len(), 1);
    assert!(named[0].contains(file.to_str().unwrap()) && named[0].contains("records 3 to 3"), "{named:?}");
    bed.restart();
    let left: Vec<SnapshotInfo> = before.into_iter().filter(|row| row.snapshot != rows[2].snapshot).collect();
    assert_eq!(listed(&bed), left);
    bed.assert_no_drift();
    // With an index that has not seen the damaged part, a start says what to do and touches nothing.
    let mut bed = Bed::new();
    bed.store.take().unwrap().close().unwrap();
    let (index, aside) = (bed.directory.path().join("index"), bed.directory.path().join("aside"));
    copy_folder(&index, &aside);
    bed.restart();
    let rows = snapshots(&bed, 3);
    bed.store.take().unwrap().close().unwrap();
    std::fs::remove_dir_all(&index).unwrap();
    std::fs::rename(&aside, &index).unwrap();
    let file = journal(&bed).remove(0);
    flip(&file, 64 + 90);
    bed.restart();
    for _ in 0..2 {
        match bed.store().snapshots(&VAULT) {
            Err(StoreError::Unavailable { reason, .. }) => {
                assert!(reason.contains("rebuild-index") && reason.contains(file.to_str().unwrap()), "{reason}");
            }
            other => panic!("{other:?}"),
        }
    }
    flip(&file, 64 + 90);
    let listed: Vec<_> = listed(&bed).into_iter().map(|row| row.snapshot).collect();
    assert!(rows.iter().all(|row| listed.contains(&row.snapshot)));
}

#[test]
fn a_snapshot_whose_packs_are_gone_stays_listed_and_the_next_backup_heals_it() {
    let mut bed = Bed::new();
    let content = files(5, 30, 700);
    let snapshot = upload(bed.store(), &content).unwrap();
    bed.store.take().unwrap().close().unwrap();
    for pack in bed.packs() {
        std::fs::remove_file(pack).unwrap();
    }
    Store::rebuild_index(settings(bed.directory.path()), World::system(), &master(), |_, _| {}).unwrap();
    bed.restart();
    assert_eq!(listed(&bed), std::slice::from_ref(&snapshot));
    assert!(download(bed.store(), &snapshot).is_err());
    bed.assert_no_drift();
    let keys = bed.store().id_keys(&VAULT).unwrap();
    let same = tree(&keys, &content);
    let session = begin(bed.store(), None);
    bed.store().put_chunks(&VAULT, &session, &same.chunks).unwrap();
    bed.store().put_nodes(&VAULT, &session, &same.nodes).unwrap();
    assert_eq!(download(bed.store(), &snapshot).unwrap(), content);
    bed.assert_no_drift();
    assert_eq!(bed.store().purge_snapshots(&VAULT, &[snapshot.snapshot]).unwrap(), 1);
    bed.assert_no_drift();
}

/// The system's clock, set ahead by the test; its monotonic hand goes on as it does.
#[derive(Default)]
struct SetAhead(AtomicI64);

impl Clock for SetAhead {
    fn now_ns(&self) -> i64 {
        SystemClock.now_ns() + self.0.load(Ordering::Relaxed)
    }
    fn monotonic_ns(&self) -> i64 {
        SystemClock.monotonic_ns()
    }
}

#[test]
fn a_clock_set_ahead_purges_nothing_and_ends_no_hold_until_it_is_confirmed() {
    let mut bed = Bed::new();
    bed.store.take().unwrap().close().unwrap();
    let clock = Arc::new(SetAhead::default());
    let world = World { clock: clock.clone(), ..World::system() };
    bed.store = Some(Store::open(settings(bed.directory.path()), world, &master()).unwrap());
    let ids: Vec<SnapshotId> = snapshots(&bed, 3).iter().map(|row| row.snapshot).collect();
    let store = bed.store();
    let until_ns = now_ns(&bed) + HOUR_NS;
    store.delete_snapshots(&VAULT, &ids[..1], until_ns, "").unwrap();
    store.hold_snapshot(&VAULT, &ids[1], Some(until_ns), false).unwrap();
    let maintained = |now_ns| store.maintain(&VAULT, now_ns).unwrap().purged_snapshots;
    clock.0.store(1000 * HOUR_NS, Ordering::Relaxed);
    assert!(matches!(store.now_ns(), Err(StoreError::ClockJumped { .. })));
    assert_eq!(maintained(clock.now_ns()), 0);
    assert!(matches!(store.purge_snapshots(&VAULT, &ids[1..2]), Err(StoreError::ClockJumped { .. })));
    // What no clock decides is done as ever: uploads, deletes, and a person's purge of what is not held.
    store.delete_snapshots(&VAULT, &ids[2..], i64::MAX, "").unwrap();
    assert_eq!(store.purge_snapshots(&VAULT, &ids[2..]).unwrap(), 1);
    assert_eq!(store.snapshots(&VAULT).unwrap().len(), 2);
    store.confirm_clock().unwrap();
    // Looked through again a minute later.
    assert_eq!(maintained(clock.now_ns() + HOUR_NS), 1);
    assert_eq!(store.purge_snapshots(&VAULT, &ids[1..2]).unwrap(), 1);
}

/// A figure more than a limit: one write and one sync each, on whatever disk this is.
#[test]
#[ignore = "long: ./check --long"]
fn deletes_and_purges_one_by_one_take_less_than_5_ms_in_the_median() {
    let bed = Bed::new();
    let ids: Vec<SnapshotId> = snapshots(&bed, 1000).iter().map(|row| row.snapshot).collect();
    let median = |what: &str, verb: &dyn Fn(&SnapshotId)| {
        let mut times: Vec<Duration> = ids
            .iter()
            .map(|id| {
                let start = Instant::now();
                verb(id);
                start.elapsed()
            })
            .collect();
        times.sort_unstable();
        println!(
            "{what}: median {:?}, slowest {:?} of {}",
            times[times.len() / 2],
            times[times.len() - 1],
            times.len()
        );
        assert!(times[times.len() / 2] < Duration::from_millis(5), "{what}");
    };
    let store = bed.store();
    median("delete", &|id| store.delete_snapshots(&VAULT, &[*id], 1, "").unwrap());
    median("undelete", &|id| drop(store.undelete_snapshot(&VAULT, id).unwrap()));
    median("purge", &|id| assert_eq!(store.purge_snapshots(&VAULT, &[*id]).unwrap(), 1));
}
