//! Deleting a vault for good: a durable intent, then step by step its key, its rows, its files. Every step can be
//! repeated, so that a deletion goes on wherever it was interrupted; only where the intent stands does a missing key
//! lead to dropped packs.

use crate::error::{At, StoreError};
use crate::store::Store;
use crate::sync::Mutex;
use crate::vault::Shared;
use crate::vault::fence::Fence;
use crate::world::World;
use repo_format::deletion::{DELETION_BYTES, DeletionIntent};
use repo_format::id::VaultId;
use repo_format::masterkey::MasterKey;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

const FOLDER: &str = "deletions";

/// Proof of a deletion, for whoever asked for it. Nothing of it is kept: the data folder no longer names the vault.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DeletionReceipt {
    /// The vault that is gone.
    pub vault: VaultId,
    /// When the intent was made durable, nanoseconds since 1970.
    pub decided_ns: i64,
    /// When the last trace was gone, nanoseconds since 1970.
    pub finished_ns: i64,
    /// Packs removed by this run; one that went on after an interruption counts what was left.
    pub packs: u64,
    /// Bytes of those packs.
    pub pack_bytes: u64,
    /// Generation of the key-encryption key in force. Copies of the keyring of older generations still hold the vault's
    /// key, and are opened by the master key of their time.
    pub keyring_generation: u64,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Deletion {
    /// The intent stands.
    Pending(DeletionIntent),
    /// Nothing is left but this memory.
    Done,
}

/// Deletions decided, and those this process has finished.
pub(crate) struct Deletions {
    known: Mutex<BTreeMap<VaultId, Deletion>>,
    /// Held by the one deletion that is carried out.
    running: Mutex<()>,
}

impl Deletions {
    /// Reads the intents. One that cannot be read decides nothing.
    pub(crate) fn open(world: &World, directory: &Path) -> Result<Self, StoreError> {
        let folder = directory.join(FOLDER);
        let mut known = BTreeMap::new();
        let names = world.vfs.list(&folder).at(&folder)?;
        if !names.is_empty() {
            // A killed process may have left a decision in memory alone; no key goes before it is on disk.
            world.vfs.sync_dir(&folder).at(&folder)?;
        }
        for name in names {
            let path = folder.join(&name);
            let Ok(vault) = name.parse::<VaultId>() else {
                // Begun and not decided.
                if name.ends_with(".new") {
                    world.vfs.remove_file(&path).at(&path)?;
                }
                continue;
            };
            let intent = world.vfs.read(&path, DELETION_BYTES as u64).at(&path);
            match intent.and_then(|bytes| DeletionIntent::decode(&bytes).at(&path)) {
                Ok(intent) if intent.vault == vault => drop(known.insert(vault, Deletion::Pending(intent))),
                Ok(_) => {
                    tracing::error!(%vault, path = %path.display(), "an intent to delete names another vault; nothing is deleted for it")
                }
                Err(error) => {
                    tracing::error!(%vault, %error, "an intent to delete cannot be read; nothing is deleted until `holdfastd vault delete` is repeated");
                }
            }
        }
        Ok(Deletions { known: Mutex::new(known), running: Mutex::new(()) })
    }

    pub(crate) fn has(&self, vault: &VaultId) -> bool {
        self.known.lock().contains_key(vault)
    }

    pub(crate) fn is_pending(&self, vault: &VaultId) -> bool {
        matches!(self.known.lock().get(vault), Some(Deletion::Pending(_)))
    }

    /// Refuses everything on a vault that is or was being deleted.
    pub(crate) fn check(&self, vault: &VaultId) -> Result<(), StoreError> {
        if self.has(vault) { Err(StoreError::VaultDeleted(*vault)) } else { Ok(()) }
    }

    fn intent(&self, vault: &VaultId) -> Option<DeletionIntent> {
        match self.known.lock().get(vault) {
            Some(Deletion::Pending(intent)) => Some(*intent),
            _ => None,
        }
    }
}

fn intent_path(directory: &Path, vault: &VaultId) -> PathBuf {
    directory.join(FOLDER).join(vault.to_string())
}

fn write_intent(shared: &Shared, vault: &VaultId) -> Result<DeletionIntent, StoreError> {
    let intent = DeletionIntent { vault: *vault, decided_ns: shared.world.clock.now_ns() };
    let folder = shared.settings.directory.join(FOLDER);
    shared.world.vfs.create_dir_all(&folder).at(&folder)?;
    let path = intent_path(&shared.settings.directory, vault);
    shared.world.vfs.replace(&path, &intent.encode()).at(&path)?;
    Ok(intent)
}

impl Store {
    /// A vault's journal says that it is to be deleted, and the intent is lost: it is written again.
    pub(crate) fn adopt_deletion(&self, shared: &Shared, vault: &VaultId) -> Result<(), StoreError> {
        let intent = write_intent(shared, vault)?;
        self.deletions.known.lock().insert(*vault, Deletion::Pending(intent));
        tracing::warn!(%vault, "the vault's journal says that it is to be deleted: its deletion goes on");
        Ok(())
    }

    /// Vaults whose deletion is decided and not finished: [`Store::delete_vault`] goes on with each.
    pub fn pending_deletions(&self) -> Vec<VaultId> {
        let known = self.deletions.known.lock();
        known.iter().filter(|(_, deletion)| **deletion != Deletion::Done).map(|(vault, _)| *vault).collect()
    }

    /// Decides that the vault goes: on disk when this returns, and not to be taken back. From now on every call on the
    /// vault, also one under way, is refused with [`StoreError::VaultDeleted`].
    pub fn decide_vault_deletion(&self, vault: &VaultId) -> Result<(), StoreError> {
        let shared = self.shared();
        if !self.deletions.is_pending(vault) {
            // A vault without a key can be deleted as well, but only by a decision like this one.
            let is_known = self.keyring.lock().has(vault);
            if !is_known && !self.folders_without_keys()?.contains(vault) {
                return Err(self.deletions.check(vault).err().unwrap_or(StoreError::NoSuchVault(*vault)));
            }
            let intent = write_intent(&shared, vault)?;
            // The journal says so as well, should the intent be lost with the index. Best effort: the vault may be the
            // very one that cannot be opened.
            if let Err(error) = self.vault(vault).and_then(|open| open.note_deletion(intent.decided_ns)) {
                tracing::info!(%vault, %error, "the decision to delete is not in the vault's journal");
            }
            self.deletions.known.lock().insert(*vault, Deletion::Pending(intent));
            tracing::info!(%vault, "a vault is going to be deleted");
        }
        // Whoever opens a vault asks again with its slot locked: behind this nobody has it.
        let open = self.slot(vault).lock().take();
        if let Some(open) = open {
            open.fence(Fence::Deleted);
        }
        Ok(())
    }

    /// Deletes a vault, or goes on with its deletion: its key in both copies of the keyring, its rows and every trace of
    /// them in the index, its packs and journal. `master` wraps the new key-encryption key.
    pub fn delete_vault(&self, vault: &VaultId, master: &MasterKey) -> Result<DeletionReceipt, StoreError> {
        self.shared().make_room();
        self.decide_vault_deletion(vault)?;
        let _one_at_a_time = self.deletions.running.lock();
        let Some(intent) = self.deletions.intent(vault) else { return Err(StoreError::VaultDeleted(*vault)) };
        let shared = self.working()?;
        let (vfs, directory) = (&*shared.world.vfs, shared.settings.vault_directory(vault));

        let keyring_generation = self.keyring.lock().destroy_keys(vault, master)?;
        shared.nodes.forget_vault(vault);
        shared.quotas.remove(vault);

        let packs_folder = crate::pack::packs_directory(&directory);
        let (mut packs, mut pack_bytes) = (0, 0);
        for name in vfs.list(&packs_folder).at(&packs_folder)? {
            let path = packs_folder.join(&name);
            packs += u64::from(crate::pack::pack_of_name(&name).is_some());
            pack_bytes += vfs.open(&path).and_then(|file| file.len()).at(&path)?;
        }
        vfs.remove_dir_all(&directory).at(&directory)?;
        let vaults = shared.settings.vaults_directory();
        vfs.sync_dir(&vaults).at(&vaults)?;

        // After the files, which free the space that a full volume needs for this.
        shared.meta.shred_vault(vault)?;
        shared.index_volume.forget_remains()?;

        let path = intent_path(&shared.settings.directory, vault);
        match vfs.remove_file(&path) {
            // An attempt that failed at the sync below has removed it already.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            removed => removed.at(&path)?,
        }
        let folder = shared.settings.directory.join(FOLDER);
        vfs.sync_dir(&folder).at(&folder)?;
        self.deletions.known.lock().insert(*vault, Deletion::Done);
        self.troubles.lock().remove(vault);
        tracing::info!(%vault, packs, pack_bytes, "a vault has been deleted");
        Ok(DeletionReceipt {
            vault: *vault,
            decided_ns: intent.decided_ns,
            finished_ns: shared.world.clock.now_ns(),
            packs,
            pack_bytes,
            keyring_generation,
        })
    }
}
