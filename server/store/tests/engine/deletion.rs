//! A deleted vault leaves nothing: no key, no id in any file, no file of its own; wherever the deletion is interrupted it
//! goes on; and only a decision deletes.

use crate::bed::{Bed, VAULT, begin, chunk, download, files, master, settings, upload};
use repo_format::id::{SnapshotId, VaultId};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use store::world::{Space, SystemVfs, Vfs, VfsFile, World};
use store::{Store, StoreError, VaultState};

const OTHER: VaultId = VaultId::from_bytes([0x77; 16]);

/// Every file below a folder.
fn all_files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { all_files(&path, found) } else { found.push(path) }
    }
}

/// Where in the files below `folder` one of `needles` stands: names and contents.
fn traces(folder: &Path, needles: &[Vec<u8>]) -> Vec<String> {
    let mut paths = Vec::new();
    all_files(folder, &mut paths);
    let mut found = Vec::new();
    for path in paths {
        let bytes = std::fs::read(&path).unwrap();
        let name = path.to_string_lossy().into_owned().into_bytes();
        for needle in needles {
            let is_in = |haystack: &[u8]| haystack.windows(needle.len()).any(|window| window == needle);
            if is_in(&bytes) || is_in(&name) {
                found.push(format!("{} holds {:02x?}", path.display(), &needle[..4]));
            }
        }
    }
    found
}

/// What must not be found any more: the id raw and as text, and every wrapped key of the vault.
fn needles(folder: &Path, vault: &VaultId) -> Vec<Vec<u8>> {
    const WRAPPED: usize = 24 + 32 + 16;
    let keyring = std::fs::read(folder.join("keyring.a")).unwrap();
    let entry = keyring.windows(16).position(|window| window == vault.as_bytes()).unwrap() + 16;
    let hex = vault.to_string();
    vec![
        vault.as_bytes().to_vec(),
        hex.to_uppercase().into_bytes(),
        hex.into_bytes(),
        keyring[entry..entry + WRAPPED].to_vec(),
        keyring[entry + WRAPPED + 8..entry + WRAPPED + 8 + WRAPPED].to_vec(),
    ]
}

fn upload_to(store: &Store, vault: &VaultId, seed: u64) {
    let keys = store.id_keys(vault).unwrap();
    let (session, _) = store.begin_upload(vault, "computer", "series", None).unwrap();
    let chunks: Vec<_> = files(seed, 50, 500).values().map(|bytes| chunk(&keys, bytes)).collect();
    let (_, incarnation) = store.have(vault, &session, &[]).unwrap();
    store.put_chunks(vault, &session, &chunks).unwrap();
    store.flush(vault, &session, incarnation).unwrap();
}

/// A bed with two vaults whose rows are in the log, in tables and in both; `VAULT` has been open and closed.
fn two_vaults() -> (Bed, SnapshotId) {
    let mut bed = Bed::new();
    bed.store().create_vault(OTHER).unwrap();
    let first = upload(bed.store(), &files(1, 60, 700)).unwrap();
    upload_to(bed.store(), &OTHER, 2);
    bed.crash_and_restart();
    upload(bed.store(), &files(3, 20, 700)).unwrap();
    upload_to(bed.store(), &OTHER, 4);
    bed.store().reopen_index().unwrap();
    upload_to(bed.store(), &OTHER, 5);
    (bed, first.snapshot)
}

#[test]
fn no_file_names_a_deleted_vault_and_others_stay_whole() {
    let (mut bed, _) = two_vaults();
    let folder = bed.directory.path().to_owned();
    let gone = needles(&folder, &OTHER);
    assert!(traces(&folder, &gone).len() >= 6, "the scan finds what is there");
    let keyring_before = std::fs::read(folder.join("keyring.a")).unwrap();
    // An upload in flight.
    let (session, incarnation) = bed.store().begin_upload(&OTHER, "c", "s", None).unwrap();
    let reader = bed.store().reader(&OTHER).unwrap();

    let receipt = bed.store().delete_vault(&OTHER, &master()).unwrap();
    assert_eq!((receipt.vault, receipt.keyring_generation), (OTHER, 2));
    assert!(receipt.packs >= 1 && receipt.pack_bytes > 50 * 500, "{receipt:?}");
    assert_eq!(traces(&folder, &gone), Vec::<String>::new());

    for refused in [
        bed.store().flush(&OTHER, &session, incarnation).map(|_| ()),
        bed.store().snapshots(&OTHER).map(|_| ()),
        bed.store().upload_session(&OTHER, &session).map(|_| ()),
        bed.store().create_vault(OTHER),
        bed.store().delete_vault(&OTHER, &master()).map(|_| ()),
        reader.chunk(&repo_format::id::ChunkId::from_bytes([1; 32])).map(|_| ()),
    ] {
        assert!(matches!(refused, Err(StoreError::VaultDeleted(OTHER))), "{refused:?}");
    }
    assert_eq!(bed.store().vaults(), [VAULT]);
    assert_eq!(bed.store().pending_deletions(), []);
    bed.assert_no_drift();
    assert_eq!(bed.store().snapshots(&VAULT).unwrap().len(), 2);
    upload(bed.store(), &files(6, 5, 300)).unwrap();
    assert_eq!(traces(&folder, &gone), Vec::<String>::new());
    bed.store().close().unwrap();
    drop(reader);
    bed.crash_and_restart();
    assert_eq!(traces(&folder, &gone), Vec::<String>::new());
    assert!(matches!(bed.store().snapshots(&OTHER), Err(StoreError::NoSuchVault(OTHER))));
    let kept = bed.store().snapshots(&VAULT).unwrap();
    assert_eq!(download(bed.store(), &kept[0]).unwrap(), files(1, 60, 700));

    // The old keyring opens with the same master key still: it is the copy that the receipt warns of. The new one's
    // key-encryption key opens nothing of the old one.
    let old = repo_format::keyring::Keyring::parse(&keyring_before).unwrap().unlock(&master()).unwrap();
    assert!(old.keys(&OTHER).unwrap().is_some());
}

#[test]
fn a_vault_that_cannot_be_opened_or_has_no_key_is_deleted_by_decision_only() {
    let (mut bed, _) = two_vaults();
    let folder = bed.directory.path().to_owned();
    let gone = needles(&folder, &OTHER);
    // Its packs are missing.
    bed.store = None;
    let packs = folder.join("vaults").join(OTHER.to_string()).join("packs");
    for entry in std::fs::read_dir(&packs).unwrap() {
        std::fs::remove_file(entry.unwrap().path()).unwrap();
    }
    bed.restart();
    assert!(matches!(bed.store().snapshots(&OTHER), Err(StoreError::Unavailable { .. })));
    assert!(matches!(bed.store().vault_state(&OTHER), Ok(VaultState::Unavailable { .. })));
    let receipt = bed.store().delete_vault(&OTHER, &master()).unwrap();
    assert_eq!(receipt.packs, 0);
    assert_eq!(traces(&folder, &gone), Vec::<String>::new());
    assert!(matches!(
        bed.store().delete_vault(&VaultId::from_bytes([9; 16]), &master()),
        Err(StoreError::NoSuchVault(_))
    ));
}

/// Fails every changing operation from the one whose turn it is, as if the process had ended there.
struct Ending(Arc<AtomicI64>);

impl Ending {
    fn take(&self) -> io::Result<()> {
        match self.0.fetch_sub(1, Ordering::SeqCst) {
            left if left > 0 => Ok(()),
            _ => Err(io::Error::other("ended")),
        }
    }
}

struct EndingFile(Ending, Arc<dyn VfsFile>);

impl VfsFile for EndingFile {
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.0.take()?;
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

impl Vfs for Ending {
    fn create_new(&self, path: &Path) -> io::Result<Arc<dyn VfsFile>> {
        self.take()?;
        Ok(Arc::new(EndingFile(Ending(self.0.clone()), SystemVfs.create_new(path)?)))
    }
    fn open(&self, path: &Path) -> io::Result<Arc<dyn VfsFile>> {
        SystemVfs.open(path)
    }
    fn open_write(&self, path: &Path) -> io::Result<Arc<dyn VfsFile>> {
        Ok(Arc::new(EndingFile(Ending(self.0.clone()), SystemVfs.open_write(path)?)))
    }
    fn sync_dir(&self, directory: &Path) -> io::Result<()> {
        self.take()?;
        SystemVfs.sync_dir(directory)
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.take()?;
        SystemVfs.rename(from, to)
    }
    fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.take()?;
        SystemVfs.remove_file(path)
    }
    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        self.take()?;
        SystemVfs.remove_dir(path)
    }
    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        self.take()?;
        SystemVfs.create_dir_all(path)
    }
    fn list(&self, directory: &Path) -> io::Result<Vec<String>> {
        SystemVfs.list(directory)
    }
    fn space(&self, path: &Path) -> io::Result<Space> {
        SystemVfs.space(path)
    }
}

#[test]
fn a_deletion_goes_on_wherever_it_was_interrupted() {
    for ends in 0.. {
        let mut bed = Bed::new();
        bed.store().create_vault(OTHER).unwrap();
        let kept = upload(bed.store(), &files(1, 9, 700)).unwrap();
        upload_to(bed.store(), &OTHER, 2);
        let folder = bed.directory.path().to_owned();
        let gone = needles(&folder, &OTHER);
        bed.store = None;
        let left = Arc::new(AtomicI64::new(i64::MAX));
        let world = World { vfs: Arc::new(Ending(left.clone())), ..World::system() };
        let store = Store::open(settings(&folder), world, &master()).unwrap();
        left.store(ends, Ordering::SeqCst);
        let deleted = store.delete_vault(&OTHER, &master());
        let decided = !store.pending_deletions().is_empty();
        drop(store);
        bed.restart();
        if deleted.is_ok() {
            assert!(ends > 12, "the deletion had only {ends} operations");
            assert_eq!(traces(&folder, &gone), Vec::<String>::new());
            break;
        }
        // Undecided, the vault is as it was; decided, it is closed to everyone and goes on.
        match bed.store().pending_deletions().as_slice() {
            // Interrupted behind the very last step.
            [] if decided => {
                assert_eq!(traces(&folder, &gone), Vec::<String>::new(), "operation {ends}: a decision was lost");
                continue;
            }
            [] => drop(bed.store().recount(&OTHER).unwrap()),
            pending => {
                assert_eq!(pending, [OTHER]);
                assert_eq!(bed.store().vault_state(&OTHER).unwrap(), VaultState::Deleting);
                assert!(matches!(bed.store().snapshots(&OTHER), Err(StoreError::VaultDeleted(_))));
            }
        }
        bed.store().delete_vault(&OTHER, &master()).unwrap();
        assert_eq!(traces(&folder, &gone), Vec::<String>::new(), "operation {ends}");
        assert_eq!(download(bed.store(), &kept).unwrap(), files(1, 9, 700), "operation {ends}");
        bed.assert_no_drift();
    }
}

#[test]
fn a_decision_that_only_the_journal_remembers_is_kept() {
    let (mut bed, _) = two_vaults();
    let folder = bed.directory.path().to_owned();
    bed.store().decide_vault_deletion(&OTHER).unwrap();
    bed.store = None;
    std::fs::remove_dir_all(folder.join("deletions")).unwrap();
    bed.restart();
    assert_eq!(bed.store().pending_deletions(), []);
    assert!(matches!(bed.store().snapshots(&OTHER), Err(StoreError::VaultDeleted(OTHER))));
    assert_eq!(bed.store().pending_deletions(), [OTHER]);
    // An intent that is not one decides nothing.
    bed.store = None;
    std::fs::write(folder.join("deletions").join(VAULT.to_string()), b"delete it").unwrap();
    bed.restart();
    assert_eq!(bed.store().pending_deletions(), [OTHER]);
    assert_eq!(bed.store().snapshots(&VAULT).unwrap().len(), 2);
    begin(bed.store(), None);
}
