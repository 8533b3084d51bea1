//! What a vault's journal says about its own end.

use super::Vault;
use crate::error::StoreError;
use repo_format::journal::RecordKind;
use repo_format::record::VaultDeletionRecord;

impl Vault {
    /// Puts the decision to delete the vault into its journal: on disk when this returns.
    pub(crate) fn note_deletion(&self, decided_ns: i64) -> Result<(), StoreError> {
        let mut journal = self.journal.lock();
        let decision = VaultDeletionRecord { decided_ns }.encode();
        journal.append(self.sealing(), &[(RecordKind::VaultDeletion, decision)])?;
        Ok(())
    }
}
