//! The gate between a vault and its index rows. Once fenced, a vault changes nothing any more, neither rows nor files:
//! what is opened, rebuilt or deleted in its place has the vault to itself, however many calls still hold the old one.

use super::audit::ChangeLog;
use super::{Shared, Vault};
use crate::error::StoreError;
use crate::index_volume::IndexVolume;
use crate::meta::{Batch, IndexFailureKind, MetaStore, Row, Table, Ticket};
use parking_lot::RwLock;
use repo_format::id::VaultId;
use std::sync::{Arc, OnceLock};

/// Why a vault was fenced.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Fence {
    /// The index was opened again, and the vault with it.
    Reopened,
    /// The vault is being deleted.
    Deleted,
}

impl Fence {
    pub(crate) fn error(self, vault: VaultId) -> StoreError {
        match self {
            Fence::Reopened => StoreError::IndexFailed("the vault was opened again meanwhile".into()),
            Fence::Deleted => StoreError::VaultDeleted(vault),
        }
    }
}

/// One vault's way to the index.
pub(crate) struct Gate {
    vault: VaultId,
    meta: Arc<dyn MetaStore>,
    index_volume: Arc<IndexVolume>,
    /// Held for reading by every call, so that none is under way once the fence stands.
    fence: RwLock<Option<Fence>>,
    /// The first damage that was found in the index.
    damage: OnceLock<String>,
    /// What changes while an audit counts.
    changes: ChangeLog,
}

impl Gate {
    pub(crate) fn new(vault: VaultId, meta: Arc<dyn MetaStore>, index_volume: Arc<IndexVolume>) -> Self {
        Gate {
            vault,
            meta,
            index_volume,
            fence: RwLock::new(None),
            damage: OnceLock::new(),
            changes: ChangeLog::default(),
        }
    }

    /// What was found damaged in the index rows of this vault.
    pub(crate) fn damage(&self) -> Option<&str> {
        self.damage.get().map(String::as_str)
    }

    pub(crate) const fn changes(&self) -> &ChangeLog {
        &self.changes
    }

    fn pass<T>(&self, call: impl FnOnce(&dyn MetaStore) -> Result<T, StoreError>) -> Result<T, StoreError> {
        let fence = self.fence.read();
        if let Some(fence) = *fence {
            return Err(fence.error(self.vault));
        }
        call(&*self.meta).map_err(|error| match error {
            StoreError::IndexDamaged(text) => {
                if self.damage.set(text.clone()).is_ok() {
                    tracing::error!(vault = %self.vault, reason = %text, "the index is damaged: the vault takes no changes until `holdfastd rebuild-index` has run");
                }
                unavailable(self.vault, &text)
            }
            StoreError::IndexFailed(text) => match self.meta.failure() {
                Some(failure) if failure.kind == IndexFailureKind::Full => self.index_volume.full(),
                _ => StoreError::IndexFailed(text),
            },
            other => other,
        })
    }

    /// Decisions taken on rows that cannot all be read would be wrong: with damage, nothing is written.
    fn pass_write<T>(&self, call: impl FnOnce(&dyn MetaStore) -> Result<T, StoreError>) -> Result<T, StoreError> {
        match self.damage.get() {
            Some(text) => Err(unavailable(self.vault, text)),
            None => self.pass(call),
        }
    }
}

fn unavailable(vault: VaultId, text: &str) -> StoreError {
    StoreError::Unavailable {
        vault,
        reason: format!("its index rows are damaged ({text}); stop the server and run `holdfastd rebuild-index`"),
    }
}

impl MetaStore for Gate {
    fn get(&self, vault: &VaultId, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        self.pass(|meta| meta.get(vault, table, key))
    }
    fn multi_get(&self, vault: &VaultId, table: Table, keys: &[&[u8]]) -> Result<Vec<Option<Vec<u8>>>, StoreError> {
        self.pass(|meta| meta.multi_get(vault, table, keys))
    }
    fn scan(&self, vault: &VaultId, table: Table, from: &[u8], limit: usize) -> Result<Vec<Row>, StoreError> {
        self.pass(|meta| meta.scan(vault, table, from, limit))
    }
    fn write(&self, vault: &VaultId, batch: Batch) -> Result<Ticket, StoreError> {
        self.pass_write(|meta| {
            self.changes.note(meta, vault, &batch)?;
            meta.write(vault, batch)
        })
    }
    fn written(&self) -> Ticket {
        self.meta.written()
    }
    fn sync(&self, ticket: Ticket) -> Result<(), StoreError> {
        self.pass(|meta| meta.sync(ticket))
    }
    fn drop_vault(&self, vault: &VaultId) -> Result<(), StoreError> {
        self.pass(|meta| meta.drop_vault(vault))
    }
    fn syncs(&self) -> u64 {
        self.meta.syncs()
    }
}

impl Vault {
    /// Ends this object's life: waits for changes under way, then lets none through. Its files stay as they are.
    pub(crate) fn fence(&self, fence: Fence) {
        *self.gate.fence.write() = Some(fence);
        // Each lock waits for the write to a file that may be under way below it.
        let step = self.maintenance.lock();
        self.journal.lock().close();
        self.appender.lock().close();
        self.compactor.lock().close();
        drop(step);
    }

    /// Whether it works on this opening of the index.
    pub(crate) fn is_of(&self, shared: &Arc<Shared>) -> bool {
        Arc::ptr_eq(&self.shared, shared)
    }

    /// What keeps the vault from taking changes though it is open.
    pub(crate) fn read_only_reason(&self) -> Option<String> {
        if let Some(text) = self.gate.damage() {
            return Some(format!(
                "its index rows are damaged ({text}); stop the server and run `holdfastd rebuild-index`"
            ));
        }
        (self.state.lock().poisoned >= super::POISONED_MAX).then(|| super::TWO_WRITES_FAILED.to_owned())
    }
}
