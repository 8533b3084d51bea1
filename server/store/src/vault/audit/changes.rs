//! What changed while an audit counts: kept by the vault's way to the index, which every change passes.

use crate::error::StoreError;
use crate::meta::rows::ObjectRow;
use crate::meta::{Batch, MetaStore, Table};
use crate::sync::Mutex;
use repo_format::id::{ObjectId, VaultId};
use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};

/// Most changed objects remembered; above, the pass counts for nothing.
const TOUCHED_MAX: usize = 4 << 20;

/// Off but while an audit runs; then changes are noted before they are written.
#[derive(Default)]
pub(crate) struct ChangeLog {
    active: AtomicBool,
    changes: Mutex<Changes>,
}

/// Changes since a pass of an audit began.
#[derive(Default)]
pub(super) struct Changes {
    /// Objects with keys below this have been summed up.
    passed: Vec<u8>,
    /// Rows as they were summed up, of objects that changed behind the pass; `None`: there was none.
    pub(super) behind: HashMap<ObjectId, Option<ObjectRow>>,
    /// Objects whose count changed, came or went.
    pub(super) touched: HashSet<ObjectId>,
    /// More was touched than is remembered.
    pub(super) overflowed: bool,
}

impl ChangeLog {
    /// Begins a pass. Called inside the monitor, so that no change is half under way.
    pub(super) fn begin(&self) {
        *self.changes.lock() = Changes::default();
        self.active.store(true, Ordering::Release);
    }

    /// The pass has summed up all objects with keys below `key`. Called inside the monitor.
    pub(super) fn pass(&self, key: &[u8]) {
        self.changes.lock().passed = key.to_vec();
    }

    /// Ends a pass. Called inside the monitor.
    pub(super) fn end(&self) -> Changes {
        self.active.store(false, Ordering::Release);
        std::mem::take(&mut *self.changes.lock())
    }

    /// Notes what `batch` is about to change. Costs a look at a flag while no audit runs.
    pub(crate) fn note(&self, meta: &dyn MetaStore, vault: &VaultId, batch: &Batch) -> Result<(), StoreError> {
        if !self.active.load(Ordering::Acquire) {
            return Ok(());
        }
        let objects: Vec<(&[u8], Option<&[u8]>)> =
            batch.changes().filter(|(table, ..)| *table == Table::Object).map(|(_, key, value)| (key, value)).collect();
        let keys: Vec<&[u8]> = objects.iter().map(|(key, _)| *key).collect();
        let mut changes = self.changes.lock();
        for ((key, new), old) in objects.iter().zip(meta.multi_get(vault, Table::Object, &keys)?) {
            let id = ObjectId::from_slice(key)?;
            let old = old.map(|bytes| ObjectRow::decode(&bytes)).transpose()?;
            let new = new.map(ObjectRow::decode).transpose()?;
            if *key < changes.passed.as_slice() {
                changes.behind.entry(id).or_insert(old);
            }
            if old.map(|row| row.references) != new.map(|row| row.references) {
                if changes.touched.len() < TOUCHED_MAX {
                    changes.touched.insert(id);
                } else {
                    changes.overflowed = true;
                }
            }
        }
        Ok(())
    }
}
