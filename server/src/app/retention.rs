//! What vaults keep: policies, the plan they make, and carrying it out. The plan is computed by the store's pure rules;
//! here it gets its snapshots, its policies and its time.

use crate::app::engine::on_store;
use crate::app::states::{summary, tags};
use crate::app::{App, AppError, Grant};
use control::{RetentionPolicy, SeriesName, StoredPolicy};
use repo_format::id::{SnapshotId, VaultId};
use repo_format::record::{TAG_BYTES_MAX, TAGS_MAX};
use std::collections::BTreeMap;
use store::retention::{Candidate, Item, Plan, Policies, Policy, Series, check_time_zone};
use store::{SnapshotInfo, Store, StoreError};

/// Snapshots purged in one call of the store.
const PURGED_AT_ONCE: usize = 1024;

/// What a vault keeps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VaultRetention {
    /// The vault's own first.
    pub policies: Vec<StoredPolicy>,
    /// For how many days deleted snapshots can be brought back.
    pub undelete_days: u32,
}

/// Which snapshots are planned, and by what.
#[derive(Clone, Debug, Default)]
pub struct PlanScope {
    /// For every series; `None`: the vault's stored policies.
    pub policy: Option<RetentionPolicy>,
    /// Only of this computer.
    pub computer: Option<String>,
    /// Only of this series.
    pub series: Option<String>,
    /// Only with this tag.
    pub tag: Option<String>,
}

/// What would become of one snapshot.
#[derive(Clone, Debug)]
pub struct Planned {
    /// The decision.
    pub item: Item,
    /// Sum of file sizes, bytes.
    pub logical_bytes: u64,
}

/// A plan and the moment it was made for.
#[derive(Clone, Debug)]
pub struct DatedPlan {
    /// Nanoseconds since 1970.
    pub now_ns: i64,
    /// By series, the newest snapshots first.
    pub items: Vec<Planned>,
}

impl DatedPlan {
    fn expired(&self) -> Vec<SnapshotId> {
        let plan = Plan { items: self.items.iter().map(|planned| planned.item.clone()).collect() };
        plan.expired()
    }
}

/// Refuses what cannot be meant: a policy that keeps nothing on purpose, or in a time zone that does not exist.
pub(crate) fn check(policy: &RetentionPolicy) -> Result<(), AppError> {
    if rules(policy).keeps_everything() {
        return Err(AppError::Invalid(
            "policy: at least one rule must keep something (remove the policy to keep everything)".into(),
        ));
    }
    let tags = &policy.keep_tags;
    if tags.len() > TAGS_MAX || tags.iter().any(|tag| tag.is_empty() || tag.len() > TAG_BYTES_MAX) {
        return Err(AppError::Invalid(format!(
            "keep_tags: at most {TAGS_MAX} tags of 1 to {TAG_BYTES_MAX} bytes are possible"
        )));
    }
    check_time_zone(&policy.time_zone).map_err(|error| AppError::Invalid(format!("time_zone: {error}")))
}

fn rules(policy: &RetentionPolicy) -> Policy {
    Policy {
        last: policy.keep_last,
        hourly: policy.keep_hourly,
        daily: policy.keep_daily,
        weekly: policy.keep_weekly,
        monthly: policy.keep_monthly,
        yearly: policy.keep_yearly,
        within_seconds: policy.keep_within_seconds,
        tags: policy.keep_tags.clone(),
        time_zone: policy.time_zone.clone(),
    }
}

fn policies(stored: Vec<StoredPolicy>) -> Policies {
    let mut policies = Policies { default: None, by_series: BTreeMap::new() };
    for StoredPolicy { series, policy, .. } in stored {
        match series {
            None => policies.default = Some(rules(&policy)),
            Some(SeriesName { computer, series }) => {
                policies.by_series.insert(Series { computer, name: series }, rules(&policy));
            }
        }
    }
    policies
}

fn candidate(snapshot: &SnapshotInfo) -> Candidate {
    Candidate {
        snapshot: snapshot.snapshot,
        series: Series { computer: snapshot.computer.clone(), name: snapshot.series.clone() },
        committed_ns: snapshot.committed_ns,
        // What cannot be read does not count as sound.
        has_warnings: summary(snapshot).is_none_or(|summary| summary.warnings > 0),
        tags: tags(snapshot),
        hold_until_ns: snapshot.hold_until_ns,
    }
}

fn plan(store: &Store, vault: &VaultId, policies: &Policies, scope: &PlanScope) -> Result<DatedPlan, StoreError> {
    let now_ns = store.now_ns()?;
    let snapshots = store.snapshots(vault)?;
    let mut logical_bytes = BTreeMap::new();
    let mut candidates = Vec::with_capacity(snapshots.len());
    for snapshot in snapshots.iter().filter(|snapshot| snapshot.deleted.is_none()) {
        let candidate = candidate(snapshot);
        let is_wanted = scope.computer.as_ref().is_none_or(|computer| *computer == candidate.series.computer)
            && scope.series.as_ref().is_none_or(|series| *series == candidate.series.name)
            && scope.tag.as_ref().is_none_or(|tag| candidate.tags.contains(tag));
        if is_wanted {
            logical_bytes.insert(candidate.snapshot, snapshot.logical_bytes);
            candidates.push(candidate);
        }
    }
    // A stored policy was checked when it was set; one that this build no longer understands expires nothing.
    let plan = Plan::make(&candidates, policies, now_ns)
        .map_err(|error| StoreError::Unavailable { vault: *vault, reason: format!("its retention policy: {error}") })?;
    let items = plan.items.into_iter().map(|item| {
        let logical_bytes = logical_bytes.get(&item.snapshot).copied().unwrap_or_default();
        Planned { item, logical_bytes }
    });
    Ok(DatedPlan { now_ns, items: items.collect() })
}

impl App {
    /// A vault's policies and undelete days.
    pub async fn retention(&self, grant: Grant) -> Result<VaultRetention, AppError> {
        let undelete_days = self.undelete_days_of(grant.vault()).await?;
        Ok(VaultRetention { policies: self.control.retention_policies(&grant.vault()).await?, undelete_days })
    }

    /// Sets the policy of a series, or with `None` of every series without one of its own; `None` as policy removes it.
    pub async fn set_retention(
        &self,
        grant: Grant,
        series: Option<SeriesName>,
        policy: Option<RetentionPolicy>,
        by: String,
    ) -> Result<VaultRetention, AppError> {
        if let Some(policy) = &policy {
            check(policy)?;
        }
        let (vault, now_ns) = (grant.vault(), self.clock.now_ns());
        self.control.set_retention_policy(&vault, series.as_ref(), policy.as_ref(), now_ns).await.map_err(|error| {
            match error {
                control::ControlError::NotFound { .. } => AppError::NotFound { what: "vault" },
                other => other.into(),
            }
        })?;
        tracing::info!(%vault, by, ?series, ?policy, "retention policy changed");
        self.retention(grant).await
    }

    /// Sets for how many days deleted snapshots can be brought back.
    pub async fn set_undelete_days(&self, grant: Grant, days: u32, by: String) -> Result<(), AppError> {
        let vault = grant.vault();
        self.control.set_undelete_days(&vault, days).await.map_err(|error| match error {
            control::ControlError::NotFound { .. } => AppError::NotFound { what: "vault" },
            other => other.into(),
        })?;
        tracing::info!(%vault, by, days, "undelete days changed");
        Ok(())
    }

    /// What retention would do now. Changes nothing.
    pub async fn plan_retention(&self, grant: Grant, scope: PlanScope) -> Result<DatedPlan, AppError> {
        let vault = grant.vault();
        let policies = match &scope.policy {
            Some(policy) => {
                check(policy)?;
                Policies { default: Some(rules(policy)), by_series: BTreeMap::new() }
            }
            None => policies(self.control.retention_policies(&vault).await?),
        };
        on_store(&self.store, move |store| plan(store, &vault, &policies, &scope)).await
    }

    /// Carries the vault's stored policies out: what expires is gone for good. Answers the plan and how many went.
    pub async fn run_retention(&self, grant: Grant) -> Result<(DatedPlan, u64), AppError> {
        self.expire(grant.vault()).await
    }

    /// As [`App::run_retention`], for the server itself.
    pub(crate) async fn expire(&self, vault: VaultId) -> Result<(DatedPlan, u64), AppError> {
        let policies = policies(self.control.retention_policies(&vault).await?);
        let run = move |store: &Store| {
            let plan = plan(store, &vault, &policies, &PlanScope::default())?;
            let mut gone = 0;
            for part in plan.expired().chunks(PURGED_AT_ONCE) {
                gone += store.purge_snapshots(&vault, part)?;
            }
            Ok((plan, gone))
        };
        let (plan, gone) = on_store(&self.store, run).await?;
        if gone > 0 {
            tracing::info!(%vault, snapshots = gone, "snapshots expired");
            self.housekeeping.notify_one();
        }
        Ok((plan, gone))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_policy_must_keep_something_in_a_zone_that_exists() {
        let utc = RetentionPolicy { time_zone: "UTC".into(), ..RetentionPolicy::default() };
        let text = check(&utc).unwrap_err().to_string();
        assert!(text.contains("at least one rule"), "{text}");
        check(&RetentionPolicy { keep_daily: 7, ..utc.clone() }).unwrap();
        check(&RetentionPolicy { keep_tags: vec!["a".into()], ..utc.clone() }).unwrap();
        let text = check(&RetentionPolicy { keep_last: 1, time_zone: "Mars/Base".into(), ..utc.clone() });
        assert!(text.unwrap_err().to_string().contains("Mars/Base"));
        assert!(check(&RetentionPolicy { keep_tags: vec![String::new()], ..utc }).is_err());
    }
}
