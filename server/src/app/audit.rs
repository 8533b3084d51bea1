//! The audit log, for those who may see it.

use crate::app::{App, AppError, OperatorGrant, Principal, Verb};
use control::{AuditEntry, AuditFilter, AuditPlace, ControlError, Scope};

/// What came of hashing the whole log again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditChain {
    /// Entries that fit, from the first on.
    pub entries: i64,
    /// Of the last entry there is.
    pub last_hash: Option<String>,
    /// The first entry that does not fit.
    pub broken_at: Option<i64>,
}

impl App {
    /// Entries that the caller sees.
    pub async fn audit_entries(
        &self,
        caller: &Principal,
        filter: &AuditFilter,
        place: AuditPlace,
        limit: u32,
    ) -> Result<Vec<AuditEntry>, AppError> {
        let scope = self.audit_scope(caller).await?;
        self.audit_page(&scope, filter, place, limit).await
    }

    /// What the caller sees of the log.
    pub async fn audit_scope(&self, caller: &Principal) -> Result<Scope, AppError> {
        Ok(self.reach(caller, Verb::AUDIT_VIEW).await?.scope)
    }

    /// Entries in a scope.
    pub async fn audit_page(
        &self,
        scope: &Scope,
        filter: &AuditFilter,
        place: AuditPlace,
        limit: u32,
    ) -> Result<Vec<AuditEntry>, AppError> {
        Ok(self.control.find_audit_entries(scope, filter, place, limit).await?)
    }

    /// Hashes the whole log again.
    pub async fn audit_chain(&self, _: OperatorGrant) -> Result<AuditChain, AppError> {
        let last = self.control.audit_entries(&self.own_scope(), None, 1).await?;
        let last_hash = last.into_iter().next().map(|entry| entry.hash);
        match self.control.verify_audit_log().await {
            Ok(entries) => Ok(AuditChain { entries, last_hash, broken_at: None }),
            Err(ControlError::AuditBroken { sequence }) => {
                tracing::error!(sequence, "the audit log was changed: an entry does not fit the one before it");
                Ok(AuditChain { entries: sequence - 1, last_hash, broken_at: Some(sequence) })
            }
            Err(error) => Err(error.into()),
        }
    }
}
