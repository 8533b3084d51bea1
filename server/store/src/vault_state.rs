//! What a vault can be used for now, and why not for more: for operators, holders and metrics.

use crate::error::{At, StoreError};
use crate::store::Store;
use crate::vault::Shared;
use repo_format::id::VaultId;
use std::collections::BTreeMap;

/// What a vault can be used for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum VaultState {
    /// Everything.
    Ready,
    /// Reading, and what frees space. The reason says how to get on.
    ReadOnly {
        /// For people.
        reason: String,
    },
    /// Nothing, until someone acts. Its files are left alone.
    Unavailable {
        /// For people.
        reason: String,
    },
    /// Nothing: it is being deleted.
    Deleting,
}

impl VaultState {
    /// The word for it in the API and in metrics.
    pub const fn name(&self) -> &'static str {
        match self {
            VaultState::Ready => "ready",
            VaultState::ReadOnly { .. } => "read_only",
            VaultState::Unavailable { .. } => "unavailable",
            VaultState::Deleting => "deleting",
        }
    }

    /// Why it is not ready.
    pub fn reason(&self) -> Option<&str> {
        match self {
            VaultState::ReadOnly { reason } | VaultState::Unavailable { reason } => Some(reason),
            VaultState::Ready | VaultState::Deleting => None,
        }
    }
}

const WITHOUT_KEY: &str = "the keyring has no key for it; stop the server and restore keyring.a or keyring.b from a backup that has (its files are left alone meanwhile)";

/// Files of a vault are there, its key is not.
pub(crate) fn without_key(vault: VaultId) -> StoreError {
    StoreError::Unavailable { vault, reason: WITHOUT_KEY.into() }
}

impl Store {
    /// What the vault can be used for, without opening it. [`StoreError::NoSuchVault`] when there are neither keys nor
    /// files.
    pub fn vault_state(&self, vault: &VaultId) -> Result<VaultState, StoreError> {
        if self.deletions.is_pending(vault) {
            return Ok(VaultState::Deleting);
        }
        self.deletions.check(vault)?;
        let shared = self.shared();
        if !self.keyring.lock().has(vault) {
            return match self.explain_missing_keys(&shared, vault, StoreError::NoSuchVault(*vault)) {
                StoreError::Unavailable { reason, .. } => Ok(VaultState::Unavailable { reason }),
                error => Err(error),
            };
        }
        if let Some(reason) = self.index_lost() {
            return Ok(VaultState::Unavailable { reason });
        }
        if let Some(reason) = self.troubles.lock().get(vault) {
            return Ok(VaultState::Unavailable { reason: reason.clone() });
        }
        // A slot that is taken is being opened: nothing is known against it yet.
        let open = self.slot(vault).try_lock().and_then(|slot| slot.clone());
        if let Some(reason) = open.and_then(|open| open.read_only_reason()) {
            return Ok(VaultState::ReadOnly { reason });
        }
        match shared.check_space() {
            Err(error) => Ok(VaultState::ReadOnly { reason: error.to_string() }),
            Ok(()) => Ok(VaultState::Ready),
        }
    }

    /// [`Store::vault_state`] of all vaults: those with keys, those being deleted, and folders without a key.
    pub fn vault_states(&self) -> Result<BTreeMap<VaultId, VaultState>, StoreError> {
        let mut ids = self.vaults();
        ids.extend(self.pending_deletions());
        ids.extend(self.folders_without_keys()?);
        let mut states = BTreeMap::new();
        for id in ids {
            match self.vault_state(&id) {
                Ok(state) => drop(states.insert(id, state)),
                // Deleted between the two questions.
                Err(StoreError::NoSuchVault(_) | StoreError::VaultDeleted(_)) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(states)
    }

    /// Vaults whose files are here without a key to read them.
    pub fn folders_without_keys(&self) -> Result<Vec<VaultId>, StoreError> {
        let shared = self.shared();
        let folder = shared.settings.vaults_directory();
        let names = shared.world.vfs.list(&folder).at(&folder)?;
        let ids = names.iter().filter_map(|name| name.parse::<VaultId>().ok());
        let keyring = self.keyring.lock();
        Ok(ids.filter(|id| !keyring.has(id) && !self.deletions.has(id)).collect())
    }

    pub(crate) fn report_folders_without_keys(&self) -> Result<(), StoreError> {
        for vault in self.folders_without_keys()? {
            tracing::error!(%vault, "a vault cannot be used: {WITHOUT_KEY}");
        }
        Ok(())
    }

    /// A vault that is there, but for its key, is not one that never was.
    pub(crate) fn explain_missing_keys(&self, shared: &Shared, vault: &VaultId, error: StoreError) -> StoreError {
        let directory = shared.settings.vault_directory(vault);
        match (&error, shared.world.vfs.list(&directory)) {
            (StoreError::NoSuchVault(_), Ok(names)) if !names.is_empty() => without_key(*vault),
            _ => error,
        }
    }

    /// Remembers why a vault could not be opened, in the words of the way out; forgets it when it could.
    pub(crate) fn note_trouble<T>(&self, vault: &VaultId, opened: Result<T, StoreError>) -> Result<T, StoreError> {
        let opened = opened.map_err(|error| unavailable(*vault, error));
        let mut troubles = self.troubles.lock();
        match &opened {
            Err(StoreError::Unavailable { reason, .. }) => {
                let known = troubles.insert(*vault, reason.clone());
                if known.as_ref() != Some(reason) {
                    tracing::error!(%vault, %reason, "a vault cannot be used");
                }
            }
            Ok(_) => drop(troubles.remove(vault)),
            // Passes by itself.
            Err(_) => {}
        }
        opened
    }
}

/// What damage of a vault's files means for the vault.
fn unavailable(vault: VaultId, error: StoreError) -> StoreError {
    let way_out = match &error {
        StoreError::IndexDamaged(_) => String::new(),
        StoreError::Format(_) => "; stop the server and run `holdfastd rebuild-index`".into(),
        StoreError::Corrupt { .. } | StoreError::PackMissing(_) => {
            "; restore the file, or stop the server and run `holdfastd rebuild-index` to go on without it".into()
        }
        _ => return error,
    };
    StoreError::Unavailable { vault, reason: format!("{error}{way_out}") }
}
