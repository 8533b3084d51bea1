//! How one vault does, and the clock that retention runs on.

use crate::app::engine::on_store;
use crate::app::{App, AppError, Grant, OperatorGrant};
use control::Vault;
use repo_format::id::VaultId;
use store::{Ledger, ScrubProgress, Store, StoreError, VaultState};

/// Progress of verification is shown over the last so many nanoseconds: 30 days.
const SCRUB_SHOWN_NS: i64 = 30 * 24 * 3600 * 1_000_000_000;

/// How a vault does.
#[derive(Clone, Debug)]
pub struct VaultStatus {
    /// As the accounts know it.
    pub vault: Vault,
    /// For how many days deleted snapshots can be brought back.
    pub undelete_days: u32,
    /// What can be done with it.
    pub state: VaultState,
    /// What the store says; or why it says nothing.
    pub stored: Result<StoredStatus, String>,
}

/// What the store says about a vault.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StoredStatus {
    /// Exact counts.
    pub ledger: Ledger,
    /// Deleted snapshots that can be brought back.
    pub deleted_snapshots: u64,
    /// Snapshots under a hold that has not ended.
    pub held_snapshots: u64,
    /// Bytes in packs of what is gone.
    pub dead_bytes: u64,
    /// Objects found damaged and not yet healed.
    pub damaged_objects: u64,
    /// How far this cycle of verification has come.
    pub scrub: ScrubProgress,
}

/// What the server takes for now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClockStatus {
    /// Nanoseconds since 1970.
    pub now_ns: i64,
    /// Set while the clock is not believed: what it should be by all that is known.
    pub jumped_from_ns: Option<i64>,
}

fn status(store: &Store, vault: &VaultId, now_ns: i64) -> Result<StoredStatus, StoreError> {
    let mut status = StoredStatus {
        ledger: store.usage(vault)?,
        dead_bytes: store.space(vault)?.dead_bytes,
        damaged_objects: store.damaged_objects(vault)?,
        scrub: store.scrub_progress(vault, now_ns.saturating_sub(SCRUB_SHOWN_NS))?,
        ..StoredStatus::default()
    };
    for snapshot in store.snapshots(vault)? {
        status.deleted_snapshots += u64::from(snapshot.deleted.is_some());
        status.held_snapshots += u64::from(snapshot.hold_until_ns.is_some_and(|until_ns| until_ns > now_ns));
    }
    Ok(status)
}

impl App {
    /// How a vault does. A vault that cannot be used has a status all the same.
    pub async fn vault_status(&self, grant: Grant) -> Result<VaultStatus, AppError> {
        let id = grant.vault();
        let undelete_days = self.undelete_days_of(id).await?;
        let vault = self.control.vault(&id).await?;
        let now_ns = self.clock.now_ns();
        let stored = match on_store(&self.store, move |store| status(store, &id, now_ns)).await {
            Ok(status) => Ok(status),
            Err(AppError::VaultUnavailable(reason)) => Err(reason),
            Err(error) => return Err(error),
        };
        // Asked behind the attempt to open it, which finds out what is wrong.
        let state = self.vault_state(id).await?;
        Ok(VaultStatus { vault, undelete_days, state, stored })
    }

    /// The clock that retention runs on.
    pub async fn clock_status(&self, _: OperatorGrant) -> Result<ClockStatus, AppError> {
        on_store(&self.store, |store| match store.now_ns() {
            Ok(now_ns) => Ok(ClockStatus { now_ns, jumped_from_ns: None }),
            Err(StoreError::ClockJumped { last_ns, now_ns }) => {
                Ok(ClockStatus { now_ns, jumped_from_ns: Some(last_ns) })
            }
            Err(error) => Err(error),
        })
        .await
    }

    /// Somebody has looked at the server's clock and says that it is right.
    pub async fn confirm_clock(&self, _: OperatorGrant, by: String) -> Result<ClockStatus, AppError> {
        let now_ns = on_store(&self.store, |store| store.confirm_clock()).await?;
        tracing::info!(by, "the clock was confirmed");
        self.housekeeping.notify_one();
        Ok(ClockStatus { now_ns, jumped_from_ns: None })
    }
}
