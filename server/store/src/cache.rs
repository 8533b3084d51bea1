//! Decoded objects in memory: bounded by bytes, and several askers of one object share one read.

use crate::error::StoreError;
use quick_cache::sync::{Cache, DefaultLifecycle};
use quick_cache::{DefaultHashBuilder, Weighter};
use repo_format::id::{ObjectId, VaultId};
use std::sync::Arc;

#[derive(Clone)]
struct Bytes;

impl Weighter<(VaultId, ObjectId), Arc<[u8]>> for Bytes {
    fn weight(&self, _: &(VaultId, ObjectId), value: &Arc<[u8]>) -> u64 {
        value.len() as u64 + 128
    }
}

/// Plaintext of recently read objects of all vaults; an entry is found only under its own vault.
pub(crate) struct NodeCache {
    cache: Cache<(VaultId, ObjectId), Arc<[u8]>, Bytes>,
}

impl NodeCache {
    pub(crate) fn new(bytes_max: u64) -> Self {
        let items = (bytes_max / (64 << 10)).max(16) as usize;
        let cache = Cache::with(items, bytes_max, Bytes, DefaultHashBuilder::default(), DefaultLifecycle::default());
        NodeCache { cache }
    }

    /// Plaintext of the vault is in memory no longer.
    pub(crate) fn forget_vault(&self, vault: &VaultId) {
        self.cache.retain(|(of, _), _| of != vault);
    }

    pub(crate) fn get_or_read(
        &self,
        vault: VaultId,
        id: ObjectId,
        read: impl FnOnce() -> Result<Arc<[u8]>, StoreError>,
    ) -> Result<Arc<[u8]>, StoreError> {
        self.cache.get_or_insert_with(&(vault, id), read)
    }
}
