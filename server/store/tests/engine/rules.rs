//! Binding rules of durability at the very moment between two calls where breaking one of them loses something. Each of
//! these tests was seen to fail with its rule broken by hand (`decisions/2026-11-21-rules-and-their-tests.md`).

use crate::bed::{Bed, Files, VAULT, begin, download, files, master, settings, tree, upload};
use crate::care::{frame_of, rot};
use crate::collect::{MINUTE_NS, now_ns, run_dry};
use crate::hooked::{AfterRead, Call, Hooked, HookedMeta, is_pack};
use repo_format::id::ObjectId;
use std::io;
use std::path::Path;
use std::sync::{Arc, mpsc};
use std::time::Duration;
use store::meta::{MetaStore, RocksMeta};
use store::world::World;
use store::{CommitInput, DamageReport, IncomingObject, Store, StoreError, StoreSettings};

/// A store in a folder, over a file system that loses power.
struct Watched {
    directory: tempfile::TempDir,
    vfs: Hooked,
    store: Arc<Store>,
}

fn small_packs(directory: &Path) -> StoreSettings {
    StoreSettings { pack_bytes_target: 64 << 10, ..settings(directory) }
}

impl Watched {
    fn new() -> Self {
        let (directory, vfs) = (tempfile::tempdir().unwrap(), Hooked::default());
        let store = Self::open(directory.path(), &vfs);
        store.create_vault(VAULT).unwrap();
        Watched { directory, vfs, store }
    }

    fn open(directory: &Path, vfs: &Hooked) -> Arc<Store> {
        let world = World { vfs: Arc::new(vfs.clone()), ..World::system() };
        Arc::new(Store::open(small_packs(directory), world, &master()).unwrap())
    }

    /// The process is killed, then the power goes.
    fn lose_power(self) -> Self {
        let Watched { directory, vfs, store } = self;
        drop(Arc::into_inner(store).unwrap());
        vfs.lose_power();
        let vfs = Hooked::default();
        let store = Self::open(directory.path(), &vfs);
        Watched { directory, vfs, store }
    }

    fn assert_sound(&self) {
        assert_eq!(self.store.recount(&VAULT).unwrap().drift, Vec::<String>::new());
        assert_eq!(self.store.damage(&VAULT, 100).unwrap(), DamageReport::default());
    }

    fn tree(&self, content: &Files) -> crate::bed::Tree {
        tree(&self.store.id_keys(&VAULT).unwrap(), content)
    }
}

fn ids(objects: &[IncomingObject]) -> Vec<ObjectId> {
    objects.iter().map(|object| object.id).collect()
}

fn is_refused_by_incarnation<T>(outcome: Result<T, StoreError>) -> bool {
    matches!(outcome, Err(StoreError::IncarnationChanged { .. }))
}

/// Rule 2: the reaper is about to remove chunks that nothing holds, and goes on as soon as the step that takes references
/// to them has read their rows: it waits for the end of that step.
#[test]
fn rows_do_not_change_between_the_check_of_children_and_the_batch() {
    /// Only waited for while the rule holds: the reaper cannot come to its end then.
    const REAPER_TAKES_AT_MOST: Duration = Duration::from_millis(300);
    let (directory, vfs, after_read) = (tempfile::tempdir().unwrap(), Hooked::default(), AfterRead::default());
    let world = World { vfs: Arc::new(vfs.clone()), ..World::system() };
    let index = directory.path().join("index");
    std::fs::create_dir(&index).unwrap();
    let open = {
        let after_read = after_read.clone();
        move || {
            let inner = RocksMeta::open(&index, 16 << 20)?;
            Ok(Arc::new(HookedMeta { inner, after_read: after_read.clone() }) as Arc<dyn MetaStore>)
        }
    };
    let store = Store::open_with_index(small_packs(directory.path()), world, &master(), Box::new(open)).unwrap();
    let bed = Watched { directory, vfs, store: Arc::new(store) };
    bed.store.create_vault(VAULT).unwrap();
    let content = files(89, 20, 900);
    let tree = bed.tree(&content);
    // Chunks without a node, and a node for the reaper to read.
    let (aborted, other) = (begin(&bed.store, None), bed.tree(&files(90, 5, 900)));
    bed.store.put_chunks(&VAULT, &aborted, &tree.chunks).unwrap();
    bed.store.put_chunks(&VAULT, &aborted, &other.chunks).unwrap();
    bed.store.put_nodes(&VAULT, &aborted, &other.nodes).unwrap();
    bed.store.abort_upload(&VAULT, &aborted).unwrap();
    let session = begin(&bed.store, None);
    let (read, is_read) = mpsc::channel();
    let (reaped, is_reaped) = mpsc::channel::<()>();
    // The first rows that are read after the barrier are those of the step.
    let waits = move || {
        read.send(()).unwrap();
        let _ = is_reaped.recv_timeout(REAPER_TAKES_AT_MOST);
    };
    bed.vfs.before(
        |call, path| call == Call::Sync && is_pack(path),
        move |_| {
            *after_read.lock().unwrap() = Some(Box::new(waits));
            Ok(())
        },
    );
    let (stored, is_stored) = mpsc::channel();
    bed.vfs.before(|call, path| call == Call::Read && is_pack(path), {
        let (store, nodes) = (bed.store.clone(), tree.nodes);
        move |_| {
            std::thread::spawn(move || stored.send(store.put_nodes(&VAULT, &session, &nodes)).unwrap());
            is_read.recv().unwrap();
            Ok(())
        }
    });
    let done = bed.store.maintain(&VAULT, now_ns()).unwrap();
    let _ = reaped.send(());
    is_stored.recv().unwrap().unwrap();
    assert!(bed.vfs.all_ran());
    assert_eq!(done.reaped_objects, other.nodes.len() as u64);
    bed.assert_sound();
    let input = CommitInput { root: tree.root, summary_json: Vec::new() };
    let snapshot = bed.store.commit(&VAULT, &session, &input).unwrap();
    run_dry(&bed.store, now_ns());
    assert_eq!(download(&bed.store, &snapshot).unwrap(), content);
    bed.assert_sound();
}

/// Rule 3: another upload appends to a pack between the length a barrier has noted and the batch that follows.
#[test]
fn a_frame_appended_while_a_barrier_syncs_gets_no_row_from_it() {
    let bed = Watched::new();
    let tree = bed.tree(&files(80, 20, 900));
    let (first, second) = tree.chunks.split_at(10);
    let (ours, theirs) = (begin(&bed.store, None), begin(&bed.store, None));
    let received = bed.store.put_chunks(&VAULT, &ours, first).unwrap();
    bed.vfs.before(|call, path| call == Call::Sync && is_pack(path), {
        let (store, second) = (bed.store.clone(), second.to_vec());
        move |_| {
            store.put_chunks(&VAULT, &theirs, &second).unwrap();
            Ok(())
        }
    });
    bed.store.flush(&VAULT, &ours, received.incarnation).unwrap();
    assert!(bed.vfs.all_ran());
    let bed = bed.lose_power();
    assert_eq!(bed.store.have(&VAULT, &ours, &ids(first)).unwrap().0, [true; 10]);
    assert_eq!(bed.store.have(&VAULT, &theirs, &ids(second)).unwrap().0, [false; 10]);
    bed.assert_sound();
}

/// Rule 3: the pack a node's children were in is given up after they have been looked for, and they are sent again into
/// another one, behind the lengths that the node's barrier has noted.
#[test]
fn a_node_is_refused_while_its_children_are_not_on_disk() {
    let bed = Watched::new();
    let content = files(81, 20, 900);
    let tree = Arc::new(bed.tree(&content));
    let (ours, theirs) = (begin(&bed.store, None), begin(&bed.store, None));
    let received = bed.store.put_chunks(&VAULT, &theirs, &tree.chunks).unwrap();
    bed.vfs.before(|call, path| call == Call::Sync && is_pack(path), {
        let (store, vfs, tree) = (bed.store.clone(), bed.vfs.clone(), tree.clone());
        move |data: &Path| {
            let data = data.to_owned();
            vfs.before(move |call, path| call == Call::Sync && path == data, |_| Err(io::Error::other("injected")));
            assert!(is_refused_by_incarnation(store.flush(&VAULT, &theirs, received.incarnation)));
            store.put_chunks(&VAULT, &theirs, &tree.chunks).unwrap();
            Ok(())
        }
    });
    let mut refusals = 0;
    while let Err(error) = bed.store.put_nodes(&VAULT, &ours, &tree.nodes) {
        assert!(matches!(error, StoreError::Missing(_)), "{error}");
        refusals += 1;
        assert!(refusals < 3);
    }
    assert!(bed.vfs.all_ran());
    assert_eq!(refusals, 1);
    let input = CommitInput { root: tree.root, summary_json: Vec::new() };
    let snapshot = bed.store.commit(&VAULT, &ours, &input).unwrap();
    let bed = bed.lose_power();
    assert_eq!(download(&bed.store, &snapshot).unwrap(), content);
    bed.assert_sound();
}

/// Rule 4: the reaper has read a root that nobody needs; a session that never sent it commits it, and the reaper goes on
/// while the journal is being written.
#[test]
fn the_root_of_a_commit_under_way_is_not_collected() {
    let bed = Watched::new();
    let content = files(82, 40, 600);
    let tree = bed.tree(&content);
    let aborted = begin(&bed.store, None);
    bed.store.put_chunks(&VAULT, &aborted, &tree.chunks).unwrap();
    bed.store.put_nodes(&VAULT, &aborted, &tree.nodes).unwrap();
    bed.store.abort_upload(&VAULT, &aborted).unwrap();
    let session = begin(&bed.store, None);
    let input = CommitInput { root: tree.root, summary_json: Vec::new() };
    let (at_journal, is_at_journal) = mpsc::channel();
    let (reaped, is_reaped) = mpsc::channel::<()>();
    let in_journal =
        |call, path: &Path| call == Call::Write && path.components().any(|part| part.as_os_str() == "journal");
    bed.vfs.before(in_journal, move |_| {
        at_journal.send(()).unwrap();
        is_reaped.recv().unwrap();
        Ok(())
    });
    let (committed, is_committed) = mpsc::channel();
    bed.vfs.before(|call, path| call == Call::Read && is_pack(path), {
        let store = bed.store.clone();
        move |_| {
            std::thread::spawn(move || committed.send(store.commit(&VAULT, &session, &input)).unwrap());
            is_at_journal.recv().unwrap();
            Ok(())
        }
    });
    let done = bed.store.maintain(&VAULT, now_ns()).unwrap();
    assert!(bed.vfs.all_ran());
    reaped.send(()).unwrap();
    let snapshot = is_committed.recv().unwrap().unwrap();
    assert_eq!(done.reaped_objects, 0);
    assert_eq!(run_dry(&bed.store, now_ns()).reaped_objects, 0);
    assert_eq!(download(&bed.store, &snapshot).unwrap(), content);
    bed.assert_sound();
}

/// Rule 9: what was received into a pack that is given up is absent at once, for every session; whoever relies on it
/// learns so by the incarnation; and after the second such pack the vault takes nothing more.
#[test]
fn a_given_up_pack_is_forgotten_whole_and_counted() {
    let bed = Watched::new();
    let content = files(83, 30, 900);
    let before = upload(&bed.store, &content).unwrap();
    let tree = bed.tree(&files(84, 30, 900));
    let (first, rest) = tree.chunks.split_at(10);
    let (ours, theirs) = (begin(&bed.store, None), begin(&bed.store, None));
    let fail = || {
        let is_data = |call, path: &Path| call == Call::Sync && is_pack(path);
        bed.vfs.before(is_data, |_| Err(io::Error::other("injected")));
    };
    let received = bed.store.put_chunks(&VAULT, &ours, first).unwrap();
    bed.store.put_chunks(&VAULT, &theirs, &rest[..5]).unwrap();
    fail();
    assert!(is_refused_by_incarnation(bed.store.flush(&VAULT, &theirs, received.incarnation)));
    let (have, incarnation) = bed.store.have(&VAULT, &ours, &ids(first)).unwrap();
    assert_eq!(have, [false; 10]);
    assert_ne!(incarnation, received.incarnation);
    assert!(is_refused_by_incarnation(bed.store.flush(&VAULT, &ours, received.incarnation)));
    // Sent again, it gets through: one failure is no reason to stop.
    let again = bed.store.put_chunks(&VAULT, &ours, first).unwrap();
    assert_eq!(again.new_objects, 10);
    bed.store.flush(&VAULT, &ours, again.incarnation).unwrap();
    bed.store.put_chunks(&VAULT, &ours, rest).unwrap();
    fail();
    assert!(is_refused_by_incarnation(bed.store.flush(&VAULT, &ours, again.incarnation)));
    let is_read_only = |outcome: Result<(), StoreError>| matches!(outcome, Err(StoreError::Unavailable { .. }));
    assert!(is_read_only(bed.store.put_chunks(&VAULT, &ours, rest).map(drop)));
    assert!(is_read_only(bed.store.put_nodes(&VAULT, &ours, &tree.nodes).map(drop)));
    assert_eq!(download(&bed.store, &before).unwrap(), content);
    let bed = bed.lose_power();
    assert_eq!(bed.store.have(&VAULT, &ours, &ids(first)).unwrap().0, [true; 10]);
    assert_eq!(bed.store.put_chunks(&VAULT, &ours, rest).unwrap().new_objects, 20);
    assert_eq!(download(&bed.store, &before).unwrap(), content);
    bed.assert_sound();
}

/// Every other file of a tree, so that its chunks' packs are half dead once the whole is purged.
fn half(content: &Files) -> Files {
    content.iter().step_by(2).map(|(name, bytes)| (name.clone(), bytes.clone())).collect()
}

/// Rule 6: a pack whose every row is gone is not dropped while frames in it wait for theirs.
#[test]
fn a_pack_with_frames_that_wait_for_rows_is_not_dropped() {
    let mut bed = Bed::new();
    let all = upload(bed.store(), &files(85, 50, 3000)).unwrap();
    let content = files(86, 20, 3000);
    let tree = tree(&bed.store().id_keys(&VAULT).unwrap(), &content);
    let session = begin(bed.store(), None);
    bed.store().put_chunks(&VAULT, &session, &tree.chunks).unwrap();
    bed.store().purge_snapshots(&VAULT, &[all.snapshot]).unwrap();
    let packs = bed.packs();
    let done = run_dry(bed.store(), now_ns());
    assert!(done.reaped_objects > 50, "{done:?}");
    assert_eq!(bed.store().usage(&VAULT).unwrap().physical_bytes, 0);
    assert_eq!((done.dropped_packs, bed.packs()), (0, packs));
    bed.store().put_nodes(&VAULT, &session, &tree.nodes).unwrap();
    let input = CommitInput { root: tree.root, summary_json: Vec::new() };
    let snapshot = bed.store().commit(&VAULT, &session, &input).unwrap();
    run_dry(bed.store(), now_ns());
    bed.crash_and_restart();
    assert_eq!(download(bed.store(), &snapshot).unwrap(), content);
    bed.assert_no_drift();
}

/// Rule 6: one small pack more would be enough to merge them, but that one is still being written.
#[test]
fn a_pack_being_written_is_not_merged_with_others() {
    const SMALL_PACKS: u64 = 31;
    let mut bed = Bed::new();
    for number in 0..SMALL_PACKS {
        upload(bed.store(), &files(200 + number, 1, 500)).unwrap();
        bed.store().close().unwrap();
        bed.crash_and_restart();
    }
    upload(bed.store(), &files(300, 1, 500)).unwrap();
    // As long as somebody uploads, open packs stay open.
    let session = begin(bed.store(), None);
    let done = run_dry(bed.store(), now_ns());
    assert_eq!((done.sealed_packs, done.copied_frames), (0, 0), "{done:?}");
    bed.store().abort_upload(&VAULT, &session).unwrap();
    // Nobody writes to it any more.
    let done = run_dry(bed.store(), now_ns() + 365 * 24 * 60 * MINUTE_NS);
    assert!(done.sealed_packs > 0 && done.copied_frames > SMALL_PACKS, "{done:?}");
    bed.assert_no_drift();
}

/// Rule 10: a frame that is not what was written is marked where it is, and not copied.
#[test]
fn a_rotten_frame_is_marked_and_not_copied() {
    let bed = Watched::new();
    let content = files(87, 60, 3000);
    let kept = half(&content);
    let all = upload(&bed.store, &content).unwrap();
    let snapshot = upload(&bed.store, &kept).unwrap();
    let packs = bed.directory.path().join("vaults").join(VAULT.to_string()).join("packs");
    let list = || std::fs::read_dir(&packs).unwrap().map(|entry| entry.unwrap().path()).collect::<Vec<_>>();
    let old = list();
    let rotten = ObjectId::from(bed.store.id_keys(&VAULT).unwrap().chunk_id(kept.values().next().unwrap()));
    let (pack, at) = old.iter().find_map(|pack| Some((pack, frame_of(pack, &rotten)?))).unwrap();
    rot(pack, at + 100, 3);
    bed.store.purge_snapshots(&VAULT, &[all.snapshot]).unwrap();
    let done = run_dry(&bed.store, now_ns());
    assert!(done.copied_frames >= kept.len() as u64 - 1, "{done:?}");
    assert!(list().contains(pack), "the bytes that are left stay for whoever wants to look at them");
    let copies: Vec<_> = list().into_iter().filter(|pack| !old.contains(pack)).collect();
    assert!(!copies.is_empty() && copies.iter().all(|pack| frame_of(pack, &rotten).is_none()));
    let report = bed.store.damage(&VAULT, 100).unwrap();
    assert_eq!(report.objects.iter().map(|object| object.id).collect::<Vec<_>>(), [rotten]);
    // The next upload heals it, and everything is there.
    assert_eq!(upload(&bed.store, &kept).unwrap().root, snapshot.root);
    run_dry(&bed.store, now_ns());
    assert_eq!(download(&bed.store, &snapshot).unwrap(), kept);
    assert!(!list().contains(pack));
    bed.assert_sound();
}

/// Rule 10: rows are pointed at copies that are on disk, and only then does the old pack go.
#[test]
fn copies_are_on_disk_before_rows_point_at_them() {
    let bed = Watched::new();
    let content = files(88, 60, 3000);
    let kept = half(&content);
    let all = upload(&bed.store, &content).unwrap();
    let snapshot = upload(&bed.store, &kept).unwrap();
    bed.store.purge_snapshots(&VAULT, &[all.snapshot]).unwrap();
    let now_ns = now_ns();
    let mut copied = 0;
    // Step by step, up to the first that drops what it has copied.
    loop {
        let done = bed.store.maintain(&VAULT, now_ns).unwrap();
        copied += done.copied_frames;
        if copied > 0 && done.dropped_packs > 0 {
            break;
        }
        assert!(done.more, "{copied} frames copied and nothing dropped");
    }
    let bed = bed.lose_power();
    assert_eq!(download(&bed.store, &snapshot).unwrap(), kept);
    bed.assert_sound();
    run_dry(&bed.store, now_ns);
    assert_eq!(download(&bed.store, &snapshot).unwrap(), kept);
    bed.assert_sound();
}
