//! The keyring on disk: two copies, replaced one after the other, so that one is always whole.

use crate::error::{At, StoreError};
use crate::world::World;
use repo_format::FormatError;
use repo_format::id::VaultId;
use repo_format::keyring::{CREATE_RANDOM_BYTES, Keyring, UnlockedKeyring, VAULT_RANDOM_BYTES, VaultKeys};
use repo_format::limits::KEYRING_BYTES_MAX;
use repo_format::masterkey::MasterKey;
use std::path::{Path, PathBuf};

/// File names of the copies; the first is written first.
pub const KEYRING_FILES: [&str; 2] = ["keyring.a", "keyring.b"];

/// The unlocked keyring and where it lives.
pub(crate) struct KeyringFile {
    world: World,
    directory: PathBuf,
    keyring: UnlockedKeyring,
}

impl KeyringFile {
    /// Unlocks the keyring in `directory`, or makes an empty one when there is none and `create` allows it.
    pub(crate) fn open(world: World, directory: &Path, master: &MasterKey, create: bool) -> Result<Self, StoreError> {
        let mut found: Vec<Keyring> = Vec::new();
        let mut broken: Option<StoreError> = None;
        let mut files = 0;
        for name in KEYRING_FILES {
            let path = directory.join(name);
            match world.vfs.read(&path, KEYRING_BYTES_MAX as u64) {
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                bytes => {
                    files += 1;
                    match bytes.at(&path).and_then(|bytes| Keyring::parse(&bytes).at(&path)) {
                        Ok(keyring) => found.push(keyring),
                        Err(error) => {
                            tracing::error!(%error, "a copy of the keyring cannot be read");
                            broken.get_or_insert(error);
                        }
                    }
                }
            }
        }
        // The first copy is written first: where both are whole, it is the newer one.
        let differ = files != KEYRING_FILES.len() || found.len() != files || found.first() != found.last();
        match (found.into_iter().next(), broken) {
            (Some(keyring), _) => {
                let keyring = keyring.unlock(master).at(&directory.join(KEYRING_FILES[0]))?;
                let file = KeyringFile { world, directory: directory.to_owned(), keyring };
                if differ {
                    file.save(&file.keyring)?;
                }
                Ok(file)
            }
            (None, Some(error)) => Err(error),
            (None, None) if create => {
                let random = world.random_bytes::<CREATE_RANDOM_BYTES>().map_err(StoreError::Random)?;
                let keyring = Keyring::create(master, &random)?;
                let file = KeyringFile { world, directory: directory.to_owned(), keyring };
                file.save(&file.keyring)?;
                Ok(file)
            }
            (None, None) => Err(FormatError::Truncated { what: "keyring" }).at(&directory.join(KEYRING_FILES[0])),
        }
    }

    fn save(&self, keyring: &UnlockedKeyring) -> Result<(), StoreError> {
        let bytes = keyring.encode();
        for name in KEYRING_FILES {
            let path = self.directory.join(name);
            self.world.vfs.replace(&path, &bytes).at(&path)?;
        }
        Ok(())
    }

    /// Draws the keys of a new vault. Nobody sees them before both copies hold them: a key that was only in memory would
    /// be lost with the process, and everything sealed under it.
    pub(crate) fn insert_vault(&mut self, vault: VaultId) -> Result<VaultKeys, StoreError> {
        let random = self.world.random_bytes::<VAULT_RANDOM_BYTES>().map_err(StoreError::Random)?;
        let mut changed = self.keyring.clone();
        let keys = changed.insert_vault(vault, &random)?;
        self.save(&changed)?;
        self.keyring = changed;
        Ok(keys)
    }

    pub(crate) fn keys(&self, vault: &VaultId) -> Result<VaultKeys, StoreError> {
        self.keyring.keys(vault)?.ok_or(StoreError::NoSuchVault(*vault))
    }

    pub(crate) fn has(&self, vault: &VaultId) -> bool {
        self.keyring.keyring().has(vault)
    }

    /// Destroys the keys of a vault in both copies, and the key-encryption key under which they were wrapped: every
    /// other key is wrapped anew. Repeated, it makes sure of both copies. Answers the generation in force.
    pub(crate) fn destroy_keys(&mut self, vault: &VaultId, master: &MasterKey) -> Result<u64, StoreError> {
        if self.has(vault) {
            let mut changed = self.keyring.clone();
            changed.remove_vault(vault)?;
            changed.rotate_key_encryption_key(master, &mut |out| {
                self.world.random.fill(out).map_err(StoreError::Random)
            })?;
            self.keyring = changed;
        }
        let bytes = self.keyring.encode();
        for name in KEYRING_FILES {
            let path = self.directory.join(name);
            let old = self.world.vfs.open_write(&path);
            self.world.vfs.replace(&path, &bytes).at(&path)?;
            // The old copy has no name any more; where the file system and the medium write in place, its bytes go too.
            let overwritten = old.and_then(|old| {
                old.write_at(0, &vec![0; old.len()? as usize])?;
                old.sync_data()
            });
            if let Err(error) = overwritten {
                tracing::info!(path = %path.display(), %error, "the bytes of an old keyring copy were not overwritten");
            }
        }
        Ok(self.keyring.keyring().generation())
    }

    pub(crate) fn vaults(&self) -> Vec<VaultId> {
        self.keyring.keyring().vaults().collect()
    }

    pub(crate) fn rotate_master(&mut self, master: &MasterKey) -> Result<(), StoreError> {
        let nonce = self.world.random_bytes().map_err(StoreError::Random)?;
        let mut changed = self.keyring.clone();
        changed.rotate_master(master, &nonce)?;
        self.save(&changed)?;
        self.keyring = changed;
        Ok(())
    }
}
