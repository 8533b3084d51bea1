//! Quotas of the store: limits come in as values, readings and refusals go out.

use super::Store;
use crate::error::StoreError;
use crate::quota::{Admission, LimitId, Limits, QuotaReading};
use crate::vault::quota::at_rest;
use crate::vault::{IncomingObject, Received, Vault};
use repo_format::id::{UploadSessionId, VaultId};

impl Store {
    /// Sets what a limit allows; [`Limits::default`] lifts it. Set below what is used already, it stops uploads and
    /// takes nothing away.
    pub fn set_limit(&self, limit: LimitId, limits: Limits) {
        self.shared().quotas.set_limit(limit, limits);
    }

    /// Under which limits a vault counts, all at once; the vault need not be open, nor exist yet.
    pub fn set_vault_limits(&self, vault: &VaultId, chain: Vec<LimitId>) {
        self.shared().quotas.set_chain(vault, chain);
    }

    /// Where a limit stands.
    pub fn quota(&self, limit: &LimitId) -> QuotaReading {
        self.shared().quotas.reading(limit)
    }

    /// Where every limit stands, by name.
    pub fn quotas(&self) -> Vec<(LimitId, QuotaReading)> {
        self.shared().quotas.readings()
    }

    /// Where the limits of one vault stand, in the order of its chain.
    pub fn vault_quotas(&self, vault: &VaultId) -> Vec<(LimitId, QuotaReading)> {
        self.shared().quotas.readings_of(vault)
    }

    /// Uploads refused by a quota since start.
    pub fn quota_refusals(&self) -> u64 {
        self.shared().quotas.refusals()
    }

    /// Reserves room for a body of `body_bytes` before it is read: [`StoreError::QuotaExceeded`] when it cannot fit.
    /// Dropping the admission frees what its frames did not take.
    pub fn admit(
        &self,
        vault: &VaultId,
        session: &UploadSessionId,
        body_bytes: u64,
    ) -> Result<(Admission, u64), StoreError> {
        self.past_recovery(vault, |vault| Ok((vault.admit(session, body_bytes)?, vault.incarnation())))
    }

    /// As [`Store::put_chunks`], within room that was admitted for the session's body.
    pub fn put_admitted_chunks(
        &self,
        vault: &VaultId,
        admission: &Admission,
        objects: &[IncomingObject],
    ) -> Result<Received, StoreError> {
        self.past_recovery(vault, |vault| vault.put_chunks(admission.session(), objects, Some(admission)))
    }

    /// Before a quota refuses for what the recovery of other vaults may find after a crash, these are recovered.
    pub(super) fn past_recovery<T>(
        &self,
        vault: &VaultId,
        attempt: impl Fn(&Vault) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let open = self.vault(vault)?;
        match attempt(&open) {
            Err(refused @ StoreError::QuotaExceeded { .. }) => {
                let beside = self.shared().quotas.unrecovered_beside(vault);
                if beside.is_empty() {
                    return Err(refused);
                }
                for vault in beside {
                    if let Err(error) = self.vault(&vault) {
                        tracing::warn!(%vault, %error, "a vault cannot be opened; what it may hold stays reserved");
                    }
                }
                attempt(&open)
            }
            outcome => outcome,
        }
    }

    /// Counts every vault as the index has it, without opening any.
    pub(super) fn count_vaults(&self) {
        for vault in self.vaults() {
            match at_rest(&self.shared(), &vault) {
                Ok(at_rest) => self.shared().quotas.note(&vault, at_rest),
                // One vault whose rows cannot be read must not keep the others from starting.
                Err(error) => {
                    tracing::error!(%vault, %error, "a vault cannot be counted; its quota takes it for empty until it is opened");
                }
            }
        }
    }
}
