//! One failing file operation after another: whichever write, sync, creation or rename of an upload fails, an agent
//! that asks again gets through or hears a clear error, and nothing acknowledged is lost.

use crate::bed::{Files, VAULT, begin, download, files, master, settings, tree};
use crate::collect::{now_ns, run_dry};
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use store::world::{Space, SystemVfs, Vfs, VfsFile, World};
use store::{CommitInput, LimitId, SnapshotInfo, Store, StoreError, StoreSettings};

/// Counts operations that change something, and fails the one whose turn it is.
#[derive(Default)]
struct Turn {
    next: AtomicU64,
    fails: AtomicU64,
    failed: AtomicU64,
}

impl Turn {
    fn take(&self) -> io::Result<()> {
        if self.next.fetch_add(1, Ordering::SeqCst) == self.fails.load(Ordering::SeqCst) {
            self.failed.fetch_add(1, Ordering::SeqCst);
            return Err(io::Error::other("injected"));
        }
        Ok(())
    }
}

struct Failing(Arc<Turn>);

struct FailingFile(Arc<Turn>, Arc<dyn VfsFile>);

impl VfsFile for FailingFile {
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        if let Err(error) = self.0.take() {
            // Half of it reaches the file: a torn write.
            self.1.write_at(offset, &bytes[..bytes.len() / 2])?;
            return Err(error);
        }
        self.1.write_at(offset, bytes)
    }
    fn read_at(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.1.read_at(offset, out)
    }
    fn sync_data(&self) -> io::Result<()> {
        self.0.take()?;
        self.1.sync_data()
    }
    fn len(&self) -> io::Result<u64> {
        self.1.len()
    }
    fn truncate(&self, len: u64) -> io::Result<()> {
        self.0.take()?;
        self.1.truncate(len)
    }
}

impl Vfs for Failing {
    fn create_new(&self, path: &Path) -> io::Result<Arc<dyn VfsFile>> {
        self.0.take()?;
        Ok(Arc::new(FailingFile(self.0.clone(), SystemVfs.create_new(path)?)))
    }
    fn open(&self, path: &Path) -> io::Result<Arc<dyn VfsFile>> {
        SystemVfs.open(path)
    }
    fn open_write(&self, path: &Path) -> io::Result<Arc<dyn VfsFile>> {
        Ok(Arc::new(FailingFile(self.0.clone(), SystemVfs.open_write(path)?)))
    }
    fn sync_dir(&self, directory: &Path) -> io::Result<()> {
        self.0.take()?;
        SystemVfs.sync_dir(directory)
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.0.take()?;
        SystemVfs.rename(from, to)
    }
    fn remove_file(&self, path: &Path) -> io::Result<()> {
        SystemVfs.remove_file(path)
    }
    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        SystemVfs.create_dir_all(path)
    }
    fn list(&self, directory: &Path) -> io::Result<Vec<String>> {
        SystemVfs.list(directory)
    }
    fn space(&self, path: &Path) -> io::Result<Space> {
        SystemVfs.space(path)
    }
}

/// Uploads as an agent does: everything that is not durable yet is asked for and sent again after a refusal.
fn upload_patiently(store: &Store, content: &Files) -> Result<SnapshotInfo, StoreError> {
    let keys = store.id_keys(&VAULT)?;
    let tree = tree(&keys, content);
    let session = begin(store, None);
    let mut last = None;
    for _ in 0..4 {
        let outcome = (|| {
            for part in tree.chunks.chunks(5) {
                let ids: Vec<_> = part.iter().map(|chunk| chunk.id).collect();
                let (have, incarnation) = store.have(&VAULT, &session, &ids)?;
                let wanted: Vec<_> =
                    part.iter().zip(have).filter(|(_, have)| !have).map(|(chunk, _)| chunk.clone()).collect();
                store.put_chunks(&VAULT, &session, &wanted)?;
                store.flush(&VAULT, &session, incarnation)?;
            }
            store.put_nodes(&VAULT, &session, &tree.nodes)?;
            store.commit(&VAULT, &session, &CommitInput { root: tree.root, summary_json: Vec::new() })
        })();
        match outcome {
            Ok(snapshot) => return Ok(snapshot),
            Err(error) => last = Some(error),
        }
    }
    Err(last.unwrap_or(StoreError::Unknown("never tried")))
}

#[test]
fn whichever_operation_fails_the_upload_gets_through_and_nothing_is_lost() {
    let content = files(1, 23, 700);
    let earlier = files(2, 9, 300);
    for fails in 0.. {
        let directory = tempfile::tempdir().unwrap();
        let turn = Arc::new(Turn { fails: AtomicU64::new(u64::MAX), ..Turn::default() });
        let world = World { vfs: Arc::new(Failing(turn.clone())), ..World::system() };
        let store = Store::open(settings(directory.path()), world, &master()).unwrap();
        store.create_vault(VAULT).unwrap();
        let limit = LimitId::new("user");
        store.set_vault_limits(&VAULT, vec![limit.clone()]);
        let before = upload_patiently(&store, &earlier).unwrap();
        turn.next.store(0, Ordering::SeqCst);
        turn.fails.store(fails, Ordering::SeqCst);
        let snapshot = upload_patiently(&store, &content).unwrap_or_else(|error| panic!("operation {fails}: {error}"));
        let failed = turn.failed.load(Ordering::SeqCst) > 0;
        assert_eq!(download(&store, &snapshot).unwrap(), content, "operation {fails}");
        assert_eq!(store.recount(&VAULT).unwrap().drift, Vec::<String>::new(), "operation {fails}");
        // Whatever was given up on the way has given its reservation back.
        let (quota, ledger) = (store.quota(&limit), store.usage(&VAULT).unwrap());
        assert_eq!((quota.used_physical, quota.reserved_physical), (ledger.physical_bytes, 0), "operation {fails}");
        assert_eq!((quota.used_logical, quota.reserved_logical), (ledger.logical_bytes, 0), "operation {fails}");
        // And again after a stop without closing.
        drop(store);
        let store = Store::open(settings(directory.path()), World::system(), &master()).unwrap();
        let listed = store.snapshots(&VAULT).unwrap();
        assert_eq!(
            listed.iter().map(|record| record.snapshot).collect::<Vec<_>>(),
            [before.snapshot, snapshot.snapshot]
        );
        assert_eq!(download(&store, &before).unwrap(), earlier, "operation {fails}");
        assert_eq!(download(&store, &snapshot).unwrap(), content, "operation {fails}");
        assert_eq!(store.recount(&VAULT).unwrap().drift, Vec::<String>::new(), "operation {fails}");
        if !failed {
            assert!(fails > 30, "the upload had only {fails} operations");
            break;
        }
    }
}

/// An aborted upload and a purged snapshot are collected and compacted while one operation fails.
#[test]
fn whichever_operation_fails_collection_goes_on_and_nothing_is_lost() {
    let content = files(3, 40, 900);
    let kept: Files = content.iter().step_by(2).map(|(name, bytes)| (name.clone(), bytes.clone())).collect();
    for fails in 0.. {
        let directory = tempfile::tempdir().unwrap();
        let turn = Arc::new(Turn { fails: AtomicU64::new(u64::MAX), ..Turn::default() });
        let world = World { vfs: Arc::new(Failing(turn.clone())), ..World::system() };
        let small = StoreSettings { pack_bytes_target: 8 << 10, ..settings(directory.path()) };
        let store = Store::open(small.clone(), world, &master()).unwrap();
        store.create_vault(VAULT).unwrap();
        let all = upload_patiently(&store, &content).unwrap();
        let snapshot = upload_patiently(&store, &kept).unwrap();
        let aborted = tree(&store.id_keys(&VAULT).unwrap(), &files(4, 20, 900));
        let session = begin(&store, None);
        store.put_chunks(&VAULT, &session, &aborted.chunks).unwrap();
        store.put_nodes(&VAULT, &session, &aborted.nodes).unwrap();
        store.abort_upload(&VAULT, &session).unwrap();
        store.purge_snapshots(&VAULT, &[all.snapshot]).unwrap();
        turn.next.store(0, Ordering::SeqCst);
        turn.fails.store(fails, Ordering::SeqCst);
        let mut copied = 0;
        let mut errors = 0;
        for _ in 0..1000 {
            match store.maintain(&VAULT, now_ns()) {
                Ok(done) => {
                    copied += done.copied_bytes;
                    if !done.more {
                        break;
                    }
                }
                Err(_) => errors += 1,
            }
        }
        assert!(errors <= 1, "operation {fails}: one failure, {errors} errors");
        let failed = turn.failed.load(Ordering::SeqCst) > 0;
        let check = |store: &Store| {
            assert_eq!(download(store, &snapshot).unwrap(), kept, "operation {fails}");
            assert_eq!(store.recount(&VAULT).unwrap().drift, Vec::<String>::new(), "operation {fails}");
        };
        check(&store);
        drop(store);
        let store = Store::open(small, World::system(), &master()).unwrap();
        check(&store);
        run_dry(&store, now_ns());
        check(&store);
        let usage = store.usage(&VAULT).unwrap();
        assert_eq!((usage.chunks, usage.pending_bytes), (kept.len() as u64, 0), "operation {fails}");
        if !failed {
            assert!(fails > 30 && copied > 0, "only {fails} operations, {copied} bytes copied");
            break;
        }
    }
}
