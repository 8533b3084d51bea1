//! The index fails, is lost, is damaged; the keyring is old or gone: nothing acknowledged is lost, nothing is dropped
//! for want of a key, and whoever asks is told what to do.

use crate::bed::{Bed, VAULT, begin, download, files, master, settings, tree, upload};
use repo_format::id::VaultId;
use std::path::Path;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use store::meta::{Batch, IndexFailure, IndexFailureKind, MetaStore, RocksMeta, Row, Table, Ticket};
use store::world::World;
use store::{CommitInput, Store, StoreError, VaultState};

/// An index whose writes fail from some moment on, as RocksDB's do after the first failure.
struct Breaking {
    inner: RocksMeta,
    /// Writes and syncs that still work; negative: all.
    left: Arc<AtomicI64>,
    failure: OnceLock<IndexFailure>,
}

impl Breaking {
    fn take(&self) -> Result<(), StoreError> {
        if self.failure.get().is_none() && self.left.fetch_sub(1, Ordering::SeqCst) == 0 {
            let failure = IndexFailure { kind: IndexFailureKind::Other, text: "injected".into() };
            self.failure.set(failure).unwrap();
        }
        self.failure.get().map_or(Ok(()), |failure| Err(StoreError::IndexFailed(failure.text.clone())))
    }
}

impl MetaStore for Breaking {
    fn get(&self, vault: &VaultId, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        self.inner.get(vault, table, key)
    }
    fn multi_get(&self, vault: &VaultId, table: Table, keys: &[&[u8]]) -> Result<Vec<Option<Vec<u8>>>, StoreError> {
        self.inner.multi_get(vault, table, keys)
    }
    fn scan(&self, vault: &VaultId, table: Table, from: &[u8], limit: usize) -> Result<Vec<Row>, StoreError> {
        self.inner.scan(vault, table, from, limit)
    }
    fn write(&self, vault: &VaultId, batch: Batch) -> Result<Ticket, StoreError> {
        self.take()?;
        self.inner.write(vault, batch)
    }
    fn written(&self) -> Ticket {
        self.inner.written()
    }
    fn sync(&self, ticket: Ticket) -> Result<(), StoreError> {
        self.take()?;
        self.inner.sync(ticket)
    }
    fn drop_vault(&self, vault: &VaultId) -> Result<(), StoreError> {
        self.take()?;
        self.inner.drop_vault(vault)
    }
    fn syncs(&self) -> u64 {
        self.inner.syncs()
    }
    fn failure(&self) -> Option<IndexFailure> {
        self.failure.get().cloned()
    }
    fn close(&self) {
        self.inner.close();
    }
}

/// A store whose index fails once `left` reaches zero, and works again when it was opened again.
fn breaking(directory: &Path, left: &Arc<AtomicI64>) -> Store {
    let (index, left) = (directory.join("index"), left.clone());
    std::fs::create_dir_all(&index).unwrap();
    let open = move || {
        let inner = RocksMeta::open(&index, 16 << 20)?;
        Ok(Arc::new(Breaking { inner, left: left.clone(), failure: OnceLock::new() }) as Arc<dyn MetaStore>)
    };
    Store::open_with_index(settings(directory), World::system(), &master(), Box::new(open)).unwrap()
}

#[test]
fn whichever_index_write_fails_the_index_opens_again_and_nothing_is_lost() {
    let (earlier, content) = (files(2, 9, 300), files(1, 23, 700));
    for fails in 0.. {
        let directory = tempfile::tempdir().unwrap();
        let left = Arc::new(AtomicI64::new(-1));
        let store = breaking(directory.path(), &left);
        store.create_vault(VAULT).unwrap();
        let before = upload(&store, &earlier).unwrap();
        let epoch = store.epoch();
        left.store(fails, Ordering::SeqCst);
        let first = upload(&store, &content);
        let failed = store.index_reopened() > 0 || first.is_err();
        let snapshot = match first {
            Ok(snapshot) => snapshot,
            Err(error) => {
                let is_retry = matches!(error, StoreError::IndexFailed(_) | StoreError::Unknown(_));
                assert!(is_retry, "write {fails}: {error}");
                upload(&store, &content).unwrap_or_else(|error| panic!("write {fails}, again: {error}"))
            }
        };
        assert_eq!(store.index_lost(), None);
        assert_eq!(download(&store, &before).unwrap(), earlier, "write {fails}");
        assert_eq!(download(&store, &snapshot).unwrap(), content, "write {fails}");
        assert_eq!(store.recount(&VAULT).unwrap().drift, Vec::<String>::new(), "write {fails}");
        assert_eq!(store.epoch() > epoch, store.index_reopened() > 0, "pack ids never repeat");
        drop(store);
        let store = Store::open(settings(directory.path()), World::system(), &master()).unwrap();
        assert_eq!(download(&store, &before).unwrap(), earlier, "write {fails}");
        assert_eq!(download(&store, &snapshot).unwrap(), content, "write {fails}");
        assert_eq!(store.recount(&VAULT).unwrap().drift, Vec::<String>::new(), "write {fails}");
        if !failed {
            assert!(fails > 4, "the upload had only {fails} index writes");
            break;
        }
    }
}

#[test]
fn a_second_failure_of_the_index_is_the_last() {
    let directory = tempfile::tempdir().unwrap();
    let left = Arc::new(AtomicI64::new(-1));
    let store = breaking(directory.path(), &left);
    store.create_vault(VAULT).unwrap();
    let content = files(3, 5, 300);
    let kept = upload(&store, &content).unwrap();
    for _ in 0..2 {
        left.store(0, Ordering::SeqCst);
        assert!(upload(&store, &files(4, 5, 300)).is_err());
        let _ = store.usage(&VAULT);
    }
    assert_eq!(store.index_lost().as_deref(), Some("injected"));
    assert!(matches!(store.snapshots(&VAULT), Err(StoreError::IndexFailed(_))));
    assert!(matches!(store.vault_state(&VAULT), Ok(VaultState::Unavailable { .. })));
    drop(store);
    let store = Store::open(settings(directory.path()), World::system(), &master()).unwrap();
    assert_eq!(download(&store, &kept).unwrap(), content);
}

#[test]
fn what_an_upload_held_before_the_index_opened_again_is_sent_again() {
    let bed = Bed::new();
    let store = bed.store();
    let content = files(5, 12, 4000);
    let tree = tree(&store.id_keys(&VAULT).unwrap(), &content);
    let session = begin(store, None);
    let (_, incarnation) = store.have(&VAULT, &session, &[]).unwrap();
    store.put_chunks(&VAULT, &session, &tree.chunks[..6]).unwrap();
    store.flush(&VAULT, &session, incarnation).unwrap();
    store.put_chunks(&VAULT, &session, &tree.chunks[6..]).unwrap();
    // A call under way keeps the old vault; it changes nothing any more.
    let reader = store.reader(&VAULT).unwrap();
    store.reopen_index().unwrap();
    assert!(matches!(reader.chunk(&tree.chunks[0].id.as_chunk()), Err(StoreError::IndexFailed(_))));
    // The session lives, under another incarnation; what it had only received may or may not be there.
    assert!(matches!(store.flush(&VAULT, &session, incarnation), Err(StoreError::IncarnationChanged { .. })));
    let ids: Vec<_> = tree.chunks.iter().map(|chunk| chunk.id).collect();
    let (have, _) = store.have(&VAULT, &session, &ids).unwrap();
    assert!(have[..6].iter().all(|have| *have), "flushed before");
    store.put_chunks(&VAULT, &session, &tree.chunks).unwrap();
    store.put_nodes(&VAULT, &session, &tree.nodes).unwrap();
    let snapshot = store.commit(&VAULT, &session, &CommitInput { root: tree.root, summary_json: Vec::new() }).unwrap();
    assert_eq!(download(store, &snapshot).unwrap(), content);
    bed.assert_no_drift();
}

#[test]
fn uploads_in_threads_survive_the_index_opening_again() {
    let bed = Bed::new();
    let store = bed.store();
    let done = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for thread in 0..4u64 {
            let (done, store) = (&done, &store);
            scope.spawn(move || {
                for round in 0..4 {
                    let content = files(100 + thread * 10 + round, 15, 2000);
                    let snapshot = loop {
                        match upload(store, &content) {
                            Ok(snapshot) => break snapshot,
                            Err(
                                StoreError::IndexFailed(_)
                                | StoreError::Unknown(_)
                                | StoreError::IncarnationChanged { .. }
                                | StoreError::Missing(_),
                            ) => {}
                            Err(error) => panic!("{error}"),
                        }
                    };
                    done.lock().unwrap().push((snapshot, content));
                }
            });
        }
        scope.spawn(|| {
            for _ in 0..6 {
                std::thread::sleep(std::time::Duration::from_millis(60));
                store.reopen_index().unwrap();
            }
        });
    });
    for (snapshot, content) in done.into_inner().unwrap() {
        assert_eq!(download(store, &snapshot).unwrap(), content);
    }
    bed.assert_no_drift();
}

#[test]
fn the_index_is_rebuilt_from_any_state_of_its_folder() {
    let (first, second) = (files(7, 30, 900), files(8, 10, 90_000));
    let mut bed = Bed::new();
    let (a, b) = (upload(bed.store(), &first).unwrap(), upload(bed.store(), &second).unwrap());
    let other = VaultId::from_bytes([0x43; 16]);
    bed.store().create_vault(other).unwrap();
    let before = bed.store().recount(&VAULT).unwrap();
    let index = bed.directory.path().join("index");
    let named = |part: &'static str| {
        let index = index.clone();
        move || {
            let names = std::fs::read_dir(&index).unwrap().map(|entry| entry.unwrap().path());
            names.filter(|path| path.file_name().unwrap().to_str().unwrap().contains(part)).collect::<Vec<_>>()
        }
    };
    let garble = |path: &Path| {
        let mut bytes = std::fs::read(path).unwrap();
        bytes.iter_mut().for_each(|byte| *byte ^= 0x5a);
        std::fs::write(path, bytes).unwrap();
    };
    type Damage<'d> = (&'d str, Box<dyn Fn() + 'd>);
    let damages: Vec<Damage<'_>> = vec![
        ("whole", Box::new(|| {})),
        ("gone", Box::new(|| std::fs::remove_dir_all(&index).unwrap())),
        ("manifest garbled", Box::new(|| named("MANIFEST")().iter().for_each(|path| garble(path)))),
        ("manifest gone", Box::new(|| named("MANIFEST")().iter().for_each(|path| std::fs::remove_file(path).unwrap()))),
        ("current garbled", Box::new(|| garble(&index.join("CURRENT")))),
        ("tables garbled", Box::new(|| named(".sst")().iter().for_each(|path| garble(path)))),
        ("log gone", Box::new(|| named(".log")().iter().for_each(|path| std::fs::remove_file(path).unwrap()))),
        ("interrupted rebuild", Box::new(|| std::fs::create_dir_all(bed_path(&index, "index.new").join("x")).unwrap())),
        (
            "interrupted exchange",
            Box::new(|| {
                Store::rebuild_index(settings(index.parent().unwrap()), World::system(), &master(), |_, _| {}).unwrap();
                std::fs::rename(&index, bed_path(&index, "index.new")).unwrap();
                std::fs::create_dir(bed_path(&index, "index.old")).unwrap();
            }),
        ),
    ];
    for (what, damage) in damages {
        bed.store = None;
        damage();
        let mut seen = Vec::new();
        let directory = bed.directory.path();
        let report =
            Store::rebuild_index(settings(directory), World::system(), &master(), |vault, _| seen.push(*vault))
                .unwrap_or_else(|error| panic!("{what}: {error}"));
        assert!(report.failed.is_empty(), "{what}: {report:?}");
        assert_eq!(report.rebuilt.len(), 2, "{what}");
        seen.sort_unstable();
        assert_eq!(seen, [VAULT, other], "{what}");
        assert!(!directory.join("index.new").exists() && !directory.join("index.old").exists(), "{what}");
        bed.restart();
        let after = bed.store().recount(&VAULT).unwrap();
        assert_eq!((after.ledger, &after.snapshots), (before.ledger, &before.snapshots), "{what}");
        assert_eq!(after.objects, before.objects, "{what}");
        assert_eq!(after.drift, Vec::<String>::new(), "{what}");
        assert_eq!(download(bed.store(), &a).unwrap(), first, "{what}");
        assert_eq!(download(bed.store(), &b).unwrap(), second, "{what}");
    }
}

fn bed_path(index: &Path, name: &str) -> std::path::PathBuf {
    index.with_file_name(name)
}

#[test]
fn an_index_that_cannot_be_opened_names_the_way_out() {
    let mut bed = Bed::new();
    upload(bed.store(), &files(9, 5, 500)).unwrap();
    bed.store = None;
    let index = bed.directory.path().join("index");
    for entry in std::fs::read_dir(&index).unwrap() {
        let path = entry.unwrap().path();
        if path.file_name().unwrap().to_str().unwrap().starts_with("MANIFEST") {
            std::fs::write(&path, b"nothing of a manifest").unwrap();
        }
    }
    let error = Store::open(settings(bed.directory.path()), World::system(), &master()).err().unwrap().to_string();
    assert!(error.contains("rebuild-index"), "{error}");
}

#[test]
fn a_damaged_index_table_takes_no_changes_and_reads_nothing_wrong() {
    let mut bed = Bed::new();
    let content = files(10, 400, 300);
    let snapshot = upload(bed.store(), &content).unwrap();
    // Closed and opened twice, all rows lie in table files.
    for _ in 0..2 {
        bed.store().reopen_index().unwrap();
        bed.store().usage(&VAULT).unwrap();
    }
    bed.store().close().unwrap();
    bed.store = None;
    let index = bed.directory.path().join("index");
    let mut tables = 0;
    for entry in std::fs::read_dir(&index).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "sst") {
            let mut bytes = std::fs::read(&path).unwrap();
            // Data blocks are at the front; only large tables have objects in them.
            if bytes.len() > 20_000 {
                bytes[4000] ^= 1;
                tables += 1;
            }
            std::fs::write(&path, bytes).unwrap();
        }
    }
    assert!(tables > 0);
    bed.restart();
    let read = download(bed.store(), &snapshot);
    assert!(
        matches!(&read, Err(StoreError::Unavailable { reason, .. }) if reason.contains("rebuild-index")),
        "{read:?}"
    );
    let state = bed.store().vault_state(&VAULT).unwrap();
    assert!(matches!(&state, VaultState::ReadOnly { reason } if reason.contains("rebuild-index")), "{state:?}");
    assert!(upload(bed.store(), &files(11, 3, 300)).is_err());
    bed.store = None;
    Store::rebuild_index(settings(bed.directory.path()), World::system(), &master(), |_, _| {}).unwrap();
    bed.restart();
    assert_eq!(download(bed.store(), &snapshot).unwrap(), content);
    assert_eq!(bed.store().vault_state(&VAULT).unwrap(), VaultState::Ready);
    bed.assert_no_drift();
}

#[test]
fn an_old_or_missing_keyring_never_drops_a_pack() {
    let mut bed = Bed::new();
    let kept = files(12, 20, 900);
    let snapshot = upload(bed.store(), &kept).unwrap();
    let keyring = |bed: &Bed, name: &str| bed.directory.path().join(name);
    // A keyring of the time before the vault.
    let empty = tempfile::tempdir().unwrap();
    drop(Store::open(settings(empty.path()), World::system(), &master()).unwrap());
    bed.store = None;
    let new: Vec<Vec<u8>> =
        ["keyring.a", "keyring.b"].iter().map(|name| std::fs::read(keyring(&bed, name)).unwrap()).collect();
    for name in ["keyring.a", "keyring.b"] {
        std::fs::copy(empty.path().join(name), keyring(&bed, name)).unwrap();
    }
    let packs = bed.packs();
    bed.restart();
    assert_eq!(bed.store().folders_without_keys().unwrap(), [VAULT]);
    let state = bed.store().vault_state(&VAULT).unwrap();
    assert!(matches!(&state, VaultState::Unavailable { reason } if reason.contains("keyring")), "{state:?}");
    assert_eq!(bed.store().vault_states().unwrap().get(&VAULT), Some(&state));
    assert!(matches!(bed.store().snapshots(&VAULT), Err(StoreError::Unavailable { .. })));
    // Not even made again under its id, which would give it another key.
    assert!(matches!(bed.store().create_vault(VAULT), Err(StoreError::Unavailable { .. })));
    bed.store = None;
    let report = Store::rebuild_index(settings(bed.directory.path()), World::system(), &master(), |_, _| {}).unwrap();
    assert!(report.rebuilt.is_empty());
    assert_eq!(bed.packs(), packs);
    // Without any keyring nothing opens, and nothing is made in its place.
    for name in ["keyring.a", "keyring.b"] {
        std::fs::remove_file(keyring(&bed, name)).unwrap();
    }
    assert!(Store::open(settings(bed.directory.path()), World::system(), &master()).is_err());
    assert_eq!(bed.packs(), packs);
    // The right keyring comes back: one copy is enough.
    std::fs::write(keyring(&bed, "keyring.b"), &new[1]).unwrap();
    Store::rebuild_index(settings(bed.directory.path()), World::system(), &master(), |_, _| {}).unwrap();
    bed.restart();
    assert_eq!(download(bed.store(), &snapshot).unwrap(), kept);
    assert_eq!(std::fs::read(keyring(&bed, "keyring.a")).unwrap(), new[0]);
}
