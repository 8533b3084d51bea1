//! What background jobs ask of the store.

use crate::app::engine::on_store;
use crate::app::{App, AppError};
use repo_format::id::VaultId;
use std::time::Duration;
use store::{Maintained, ScrubStep};

impl App {
    /// Vaults where garbage collection may have something to do.
    pub(crate) async fn vaults_to_maintain(&self) -> Result<Vec<VaultId>, AppError> {
        let now_ns = self.clock.now_ns();
        on_store(&self.store, move |store| Ok(store.vaults_to_maintain(now_ns))).await
    }

    /// One small step of garbage collection in a vault.
    pub(crate) async fn maintain(&self, vault: VaultId) -> Result<Maintained, AppError> {
        let now_ns = self.clock.now_ns();
        let done = on_store(&self.store, move |store| store.maintain(&vault, now_ns)).await?;
        if done.purged_snapshots > 0 {
            tracing::info!(%vault, snapshots = done.purged_snapshots, "deleted snapshots are gone for good");
        }
        if done.expired_uploads > 0 {
            tracing::info!(%vault, uploads = done.expired_uploads, "upload sessions without requests have ended");
        }
        Ok(done)
    }

    /// Vaults with a retention policy.
    pub(crate) async fn vaults_with_retention(&self) -> Result<Vec<VaultId>, AppError> {
        Ok(self.control.vaults_with_retention().await?)
    }

    /// All vaults with keys.
    pub(crate) fn all_vaults(&self) -> Vec<VaultId> {
        self.store.vaults()
    }

    /// One step of verification of what was last verified longer than `cycle` ago.
    pub(crate) async fn scrub(&self, vault: VaultId, cycle: Duration, bytes: u64) -> Result<ScrubStep, AppError> {
        let cycle_ns = i64::try_from(cycle.as_nanos()).unwrap_or(i64::MAX);
        let before_ns = self.clock.now_ns().saturating_sub(cycle_ns);
        on_store(&self.store, move |store| store.scrub_step(&vault, before_ns, bytes)).await
    }

    /// Seconds since 1970, for metrics.
    pub(crate) fn clock_seconds(&self) -> i64 {
        self.clock.now_ns().div_euclid(1_000_000_000)
    }
}
