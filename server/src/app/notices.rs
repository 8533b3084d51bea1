//! Notices and summaries: what the store counts goes down to the accounts, which say what is wrong and tell people.

use crate::app::{App, AppError, Principal, Target, Verb};
use control::{Notice, NoticeId, NoticesChanged, QuotaScope, QuotaUse, SpaceKind, TenantId};
use std::collections::BTreeMap;
use store::QuotaKind;

/// Notices that are over are forgotten after this long.
const KEPT_NS: i64 = 400 * 24 * 3600 * 1_000_000_000;
const FORGET_STEP: u32 = 1000;
/// Summaries written between two looks at other things.
const SUMMARIES_STEP: u32 = 50;
/// Logs put into the index in one transaction.
const LOGS_STEP: u32 = 100;

impl App {
    /// Every quota that limits something, as it stands now. One with a soft limit only is measured by that.
    fn quota_uses(&self) -> Vec<QuotaUse> {
        let mut uses = Vec::new();
        for (limit, reading) in self.store.quotas() {
            let Ok(scope) = limit.to_string().parse::<QuotaScope>() else { continue };
            for (of, kind) in [(QuotaKind::Physical, SpaceKind::Physical), (QuotaKind::Logical, SpaceKind::Logical)] {
                if let Some(limit) = reading.limits.hard(of).or(reading.limits.soft(of)) {
                    uses.push(QuotaUse { scope: scope.clone(), kind, used: reading.used(of), limit });
                }
            }
        }
        uses
    }

    /// Looks what is wrong and tells those whom it concerns.
    pub(crate) async fn derive_notices(&self) -> Result<NoticesChanged, AppError> {
        let now_ns = self.clock.now_ns();
        let changed = self.control.derive_notices(&self.quota_uses(), &self.public_url, now_ns).await?;
        self.control.forget_notices(now_ns.saturating_sub(KEPT_NS), FORGET_STEP).await?;
        Ok(changed)
    }

    /// Sends the weekly summaries that are due.
    pub(crate) async fn send_summaries(&self) -> Result<(), AppError> {
        while self.control.send_summaries(&self.public_url, self.clock.now_ns(), SUMMARIES_STEP).await?
            == SUMMARIES_STEP
        {}
        Ok(())
    }

    /// Brings the index of logs up to date.
    pub(crate) async fn index_logs(&self) -> Result<(), AppError> {
        while self.control.index_logs(self.clock.now_ns(), LOGS_STEP).await? == LOGS_STEP {}
        Ok(())
    }

    /// Notices that the caller may see, newest first.
    pub async fn notices(
        &self,
        caller: &Principal,
        is_open: Option<bool>,
        after: Option<(i64, NoticeId)>,
        limit: u32,
    ) -> Result<Vec<Notice>, AppError> {
        let allowed = self.reach(caller, Verb::NOTICE_VIEW).await?;
        Ok(self.control.notices(&allowed.scope, is_open, after, limit).await?)
    }

    /// After how many days without a backup a tenant's people are told.
    pub async fn stale_days(&self, caller: &Principal, tenant: TenantId) -> Result<i64, AppError> {
        let allowed = self.allow(caller, Verb::NOTICE_VIEW, Target::Tenant(tenant)).await?;
        Ok(self.control.stale_days(&allowed.scope, &tenant).await?)
    }

    /// Sets it.
    pub async fn set_stale_days(&self, caller: &Principal, tenant: TenantId, days: i64) -> Result<(), AppError> {
        let allowed = self.allow(caller, Verb::NOTICE_EDIT, Target::Tenant(tenant)).await?;
        let now_ns = self.clock.now_ns();
        Ok(self.control.set_stale_days(&allowed.scope, &allowed.actor, &tenant, days, now_ns).await?)
    }

    /// Switches the caller's own weekly summary on or off.
    pub async fn set_wants_summary(&self, caller: &Principal, wants: bool) -> Result<(), AppError> {
        let allowed = self.allow(caller, Verb::SELF_EDIT, Target::Myself).await?;
        let user = allowed.at.user.ok_or(AppError::Forbidden { needed: "a user of your own" })?;
        Ok(self.control.set_wants_summary(&user, wants).await?)
    }

    /// How many notices are open, by kind, for metrics.
    pub async fn notice_counts(&self) -> Result<BTreeMap<&'static str, i64>, AppError> {
        Ok(self.control.notice_counts().await?)
    }
}
