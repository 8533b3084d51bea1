//! An index in memory: the reference the real one is compared with, and what tests without disk use.

use super::{Batch, MetaStore, Row, Table, Ticket};
use crate::error::StoreError;
use parking_lot::Mutex;
use repo_format::id::VaultId;
use std::collections::BTreeMap;

type Rows = BTreeMap<(VaultId, Table, Vec<u8>), Vec<u8>>;

/// Rows in a `BTreeMap`.
#[derive(Default)]
pub struct MemoryMeta {
    rows: Mutex<Rows>,
}

impl MetaStore for MemoryMeta {
    fn get(&self, vault: &VaultId, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(self.rows.lock().get(&(*vault, table, key.to_vec())).cloned())
    }
    fn multi_get(&self, vault: &VaultId, table: Table, keys: &[&[u8]]) -> Result<Vec<Option<Vec<u8>>>, StoreError> {
        keys.iter().map(|key| self.get(vault, table, key)).collect()
    }
    fn scan(&self, vault: &VaultId, table: Table, from: &[u8], limit: usize) -> Result<Vec<Row>, StoreError> {
        let rows = self.rows.lock();
        let range = rows.range((*vault, table, from.to_vec())..);
        let inside = range.take_while(|((at, in_table, _), _)| at == vault && *in_table == table);
        Ok(inside.take(limit).map(|((_, _, key), value)| (key.clone(), value.clone())).collect())
    }
    fn write(&self, vault: &VaultId, batch: Batch) -> Result<Ticket, StoreError> {
        let mut rows = self.rows.lock();
        for (table, key, value) in batch.changes {
            match value {
                Some(value) => rows.insert((*vault, table, key), value),
                None => rows.remove(&(*vault, table, key)),
            };
        }
        Ok(Ticket(0))
    }
    fn written(&self) -> Ticket {
        Ticket(0)
    }
    fn sync(&self, _: Ticket) -> Result<(), StoreError> {
        Ok(())
    }
    fn drop_vault(&self, vault: &VaultId) -> Result<(), StoreError> {
        self.rows.lock().retain(|(at, _, _), _| at != vault);
        Ok(())
    }
    fn syncs(&self) -> u64 {
        0
    }
}
