//! Quotas: what a refusal says; setting and seeing limits. The accounts hold what is set, the store counts: every change
//! is written to the accounts first and then pushed into the store, and a start pushes everything.

use crate::app::{App, AppError, Grant, OperatorGrant};
use control::{QuotaLimits, QuotaScope, TenantId, UserId};
use repo_format::id::VaultId;
use std::fmt;
use store::{LimitId, Limits, QuotaKind, QuotaReading};

/// A limit and where it stands.
pub type QuotaState = (LimitId, QuotaReading);

/// Why an upload was refused, with every figure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QuotaRefusal {
    /// The limit that refuses.
    pub limit: LimitId,
    /// Which of its bytes.
    pub kind: QuotaKind,
    /// Bytes in the ledgers of its vaults.
    pub used: u64,
    /// Bytes promised to uploads under way.
    pub reserved: u64,
    /// What it allows, bytes.
    pub limit_bytes: u64,
    /// Bytes the request needs beyond what is reserved for it.
    pub requested: u64,
}

impl QuotaRefusal {
    /// What helps.
    pub const fn help(&self) -> &'static str {
        match self.kind {
            QuotaKind::Physical => {
                "delete snapshots that are no longer needed (what was deleted softly counts until it is purged), or ask \
                 for a higher quota"
            }
            QuotaKind::Logical => {
                "delete old snapshots (what was deleted softly counts until it is purged), back up less, or ask for a \
                 higher quota"
            }
        }
    }
}

impl fmt::Display for QuotaRefusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let QuotaRefusal { limit, kind, used, reserved, limit_bytes, requested } = self;
        write!(
            f,
            "the {kind} quota of {limit} is reached: {used} of {limit_bytes} bytes are used and {reserved} reserved by \
             uploads under way"
        )?;
        if *requested > 0 {
            write!(f, ", {requested} more are needed")?;
        }
        write!(f, "; {}. Restoring and deleting still work", self.help())
    }
}

pub(crate) fn limit_id(scope: &QuotaScope) -> LimitId {
    LimitId::new(&scope.to_string())
}

pub(crate) const fn limits(of: &QuotaLimits) -> Limits {
    Limits {
        physical_soft: of.physical_soft,
        physical_hard: of.physical_hard,
        logical_soft: of.logical_soft,
        logical_hard: of.logical_hard,
    }
}

impl App {
    /// Pushes every limit and every vault's chain into the store.
    pub(crate) async fn push_quotas(&self) -> Result<(), AppError> {
        for quota in self.control.quotas().await? {
            self.store.set_limit(limit_id(&quota.scope), limits(&quota.limits));
        }
        self.push_quota_chains().await
    }

    async fn push_quota_chains(&self) -> Result<(), AppError> {
        for (vault, chain) in self.control.quota_chains().await? {
            self.store.set_vault_limits(&vault, chain.iter().map(limit_id).collect());
        }
        Ok(())
    }

    /// Puts a new vault under its limits, before anyone can have a token for it.
    pub(crate) async fn push_quota_chain(&self, vault: &VaultId) -> Result<(), AppError> {
        let chain = self.control.quota_chain(vault).await?;
        self.store.set_vault_limits(vault, chain.iter().map(limit_id).collect());
        Ok(())
    }

    /// Pushes the limits of a customer and its users (or one of them), which follow from what was bought and given.
    pub(crate) async fn push_licence_quotas(&self, tenant: &TenantId, user: Option<&UserId>) -> Result<(), AppError> {
        for (scope, set) in self.control.licence_quotas(tenant, user).await? {
            self.store.set_limit(limit_id(&scope), limits(&set));
        }
        Ok(())
    }

    /// Every limit that is set, by name.
    pub fn quotas(&self, _: OperatorGrant) -> Vec<QuotaState> {
        let is_set = |(_, reading): &QuotaState| reading.limits != Limits::default();
        self.store.quotas().into_iter().filter(is_set).collect()
    }

    /// One limit, set or not.
    pub async fn quota(&self, _: OperatorGrant, scope: &QuotaScope) -> Result<QuotaState, AppError> {
        self.control.check_quota_scope(scope).await?;
        let limit = limit_id(scope);
        let reading = self.store.quota(&limit);
        Ok((limit, reading))
    }

    /// Sets a limit as a whole; it is in force when this answers.
    pub async fn set_quota(
        &self,
        operator: OperatorGrant,
        scope: &QuotaScope,
        wanted: QuotaLimits,
    ) -> Result<QuotaState, AppError> {
        let _one_at_a_time = self.creation.lock().await;
        self.control.set_quota(scope, wanted, self.clock.now_ns()).await?;
        kill_point!(QuotaWritten);
        self.store.set_limit(limit_id(scope), limits(&wanted));
        tracing::info!(limit = %scope, ?wanted, "quota set");
        self.quota(operator, scope).await
    }

    /// Whose limit it was is gone, and its row in the accounts with it.
    pub(crate) fn lift_quota(&self, scope: &QuotaScope) {
        self.store.set_limit(limit_id(scope), Limits::default());
    }

    /// Says which partner brought a customer; its vaults count under the partner's limit from now on.
    pub async fn set_partner(&self, _: OperatorGrant, customer: &str, partner: Option<&str>) -> Result<(), AppError> {
        let _one_at_a_time = self.creation.lock().await;
        self.control.set_partner(customer, partner, self.clock.now_ns()).await?;
        kill_point!(PartnerWritten);
        self.push_quota_chains().await
    }

    /// Where all limits stand, without their names, and how many uploads they refused: for metrics.
    pub fn quota_figures(&self) -> (Vec<QuotaReading>, u64) {
        let readings = self.store.quotas().into_iter().map(|(_, reading)| reading).collect();
        (readings, self.store.quota_refusals())
    }

    /// The limits under which a vault counts, from the vault itself outwards.
    pub fn vault_quotas(&self, grant: Grant) -> Vec<QuotaState> {
        self.store.vault_quotas(&grant.vault())
    }
}
