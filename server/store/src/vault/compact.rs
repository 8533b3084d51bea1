//! Compaction: copies the live frames of packs that are mostly dead into packs of its own, as they are, without keys.

use super::Vault;
use super::apply::{NOBODY, Work};
use crate::error::StoreError;

impl Vault {
    /// Syncs what was copied and marks the packs sealed that are complete.
    pub(super) fn settle_copies(&self) -> Result<(), StoreError> {
        self.sync_writer(&self.compactor)?;
        let durable = self.compactor.lock().durable();
        let ticket = {
            let mut state = self.state.lock();
            let mut work = Work::with_writer(self, *state.ledger, NOBODY, &self.compactor);
            let ticket = work.finish(&durable)?;
            state.settle(&mut work, 0);
            ticket
        };
        self.sync(ticket)
    }
}
