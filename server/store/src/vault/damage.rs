//! Damage marks of the journal.

use super::Vault;
use crate::error::StoreError;
use crate::meta::rows::ObjectRow;
use crate::meta::{Batch, Table};
use repo_format::id::ObjectId;
use repo_format::record::DamagedFrame;

/// Marks applied in one batch.
const MARKS_PER_BATCH: usize = 1024;

impl Vault {
    /// Marks objects damaged whose row still points to a frame that was found damaged; one with a sound frame
    /// elsewhere is healed.
    pub(super) fn replay_damage(&self, frames: &[DamagedFrame]) -> Result<(), StoreError> {
        for part in frames.chunks(MARKS_PER_BATCH) {
            let ids: Vec<ObjectId> = part.iter().map(|frame| frame.id).collect();
            let mut batch = Batch::default();
            for (frame, row) in part.iter().zip(self.object_rows(&ids)?) {
                let there = |row: &ObjectRow| (row.place.pack, row.place.offset) == (frame.pack, frame.offset);
                if let Some(row) = row.filter(there) {
                    batch.put(Table::Object, *frame.id.as_bytes(), ObjectRow { damaged: true, ..row }.encode());
                }
            }
            self.meta().write(&self.id, batch)?;
        }
        Ok(())
    }
}
