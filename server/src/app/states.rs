//! What people and agents do to committed snapshots: delete, bring back, purge, hold, tag.

use crate::app::auth::Need;
use crate::app::engine::on_store;
use crate::app::{App, AppError, Grant, Principal};
use repo_format::id::{SnapshotId, VaultId};
use repo_format::record::{TAG_BYTES_MAX, TAGS_MAX};
use std::collections::BTreeSet;
use store::{SnapshotInfo, Store};

const DAY_NS: i64 = 24 * 3600 * 1_000_000_000;

/// The tags in force: those set later, or those of the upload.
pub(crate) fn tags(snapshot: &SnapshotInfo) -> Vec<String> {
    match &snapshot.tags {
        Some(tags) => tags.clone(),
        None => summary(snapshot).map(|summary| summary.tags).unwrap_or_default(),
    }
}

/// What the agent said about the run; `None` when it is not what agents of this protocol send.
pub(crate) fn summary(snapshot: &SnapshotInfo) -> Option<api::upload::RunSummary> {
    serde_json::from_slice(&snapshot.summary_json).ok()
}

fn check_tags(tags: &[String]) -> Result<(), AppError> {
    if tags.len() > TAGS_MAX {
        return Err(AppError::Invalid(format!("tags: a snapshot has at most {TAGS_MAX}")));
    }
    match tags.iter().find(|tag| tag.is_empty() || tag.len() > TAG_BYTES_MAX || tag.contains(char::is_control)) {
        None => Ok(()),
        Some(_) => {
            Err(AppError::Invalid(format!("tags: each must have 1 to {TAG_BYTES_MAX} bytes and no control characters")))
        }
    }
}

impl App {
    /// Deletes a snapshot; until the vault's undelete days are over it can be brought back, and its bytes count. One
    /// that is deleted already stays as it is.
    pub async fn delete_snapshot(
        &self,
        grant: Grant,
        snapshot: SnapshotId,
        by: String,
    ) -> Result<SnapshotInfo, AppError> {
        let vault = grant.vault();
        let days = self.undelete_days_of(vault).await?;
        let delete = move |store: &Store| {
            let until_ns = store.now_ns()?.saturating_add(i64::from(days) * DAY_NS);
            store.delete_snapshots(&vault, &[snapshot], until_ns, &by)?;
            let deleted = store.snapshot(&vault, &snapshot)?;
            tracing::info!(%vault, %snapshot, by, "snapshot deleted; it can be brought back");
            Ok(deleted)
        };
        let deleted = on_store(&self.store, delete).await?;
        self.housekeeping.notify_one();
        Ok(deleted)
    }

    /// Brings a deleted snapshot back.
    pub async fn undelete_snapshot(
        &self,
        grant: Grant,
        snapshot: SnapshotId,
        by: String,
    ) -> Result<SnapshotInfo, AppError> {
        let vault = grant.vault();
        let undeleted = on_store(&self.store, move |store| store.undelete_snapshot(&vault, &snapshot)).await?;
        tracing::info!(%vault, %snapshot, by, "snapshot undeleted");
        Ok(undeleted)
    }

    /// Removes a snapshot for good. One that is gone already is no error.
    pub async fn purge_snapshot(&self, grant: Grant, snapshot: SnapshotId, by: String) -> Result<(), AppError> {
        let vault = grant.vault();
        let purged = on_store(&self.store, move |store| store.purge_snapshots(&vault, &[snapshot])).await?;
        if purged > 0 {
            tracing::info!(%vault, %snapshot, by, "snapshot purged");
            self.housekeeping.notify_one();
        }
        Ok(())
    }

    /// Holds a snapshot until a time, or lifts the hold. Whoever may protect snapshots sets and extends holds; ending
    /// one earlier takes the right `hold`.
    pub async fn hold_snapshot(
        &self,
        caller: &Principal,
        vault: &str,
        snapshot: SnapshotId,
        until_ns: Option<i64>,
    ) -> Result<SnapshotInfo, AppError> {
        let may_shorten = self.on_vault(caller, vault, Need::Hold).await.is_ok();
        let vault = self.on_vault(caller, vault, if may_shorten { Need::Hold } else { Need::Protect }).await?.vault();
        let hold = move |store: &Store| store.hold_snapshot(&vault, &snapshot, until_ns, may_shorten);
        let held = on_store(&self.store, hold).await?;
        tracing::info!(%vault, %snapshot, by = caller.who(), until_ns, "hold of a snapshot changed");
        self.housekeeping.notify_one();
        Ok(held)
    }

    /// Sets all tags of a snapshot. Taking one away takes the right `delete`: retention may keep the snapshot for it.
    pub async fn tag_snapshot(
        &self,
        caller: &Principal,
        vault: &str,
        snapshot: SnapshotId,
        wanted: Vec<String>,
    ) -> Result<SnapshotInfo, AppError> {
        let own = self.on_vault(caller, vault, Need::Protect).await?.vault();
        check_tags(&wanted)?;
        let now = tags(&on_store(&self.store, move |store| store.snapshot(&own, &snapshot)).await?);
        let wanted_set: BTreeSet<&String> = wanted.iter().collect();
        if now.iter().any(|tag| !wanted_set.contains(tag)) {
            self.on_vault(caller, vault, Need::Delete).await?;
        }
        on_store(&self.store, move |store| store.tag_snapshot(&own, &snapshot, &wanted)).await
    }

    pub(crate) async fn undelete_days_of(&self, vault: VaultId) -> Result<u32, AppError> {
        self.control.undelete_days(&vault).await.map_err(|error| match error {
            control::ControlError::NotFound { .. } => AppError::NotFound { what: "vault" },
            other => other.into(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_have_bounds() {
        let of = |count: usize, len: usize| vec!["t".repeat(len); count];
        check_tags(&of(TAGS_MAX, TAG_BYTES_MAX)).unwrap();
        check_tags(&[]).unwrap();
        for bad in [of(TAGS_MAX + 1, 1), of(1, TAG_BYTES_MAX + 1), of(1, 0), vec!["a\nb".into()]] {
            assert!(matches!(check_tags(&bad), Err(AppError::Invalid(_))));
        }
    }
}
