//! Calls of the store: moved off the async threads, its errors sorted by what the caller must do.

use crate::app::accounts::VaultUsage;
use crate::app::quota::QuotaRefusal;
use crate::app::{App, AppError};
use crate::clock::utc;
use crate::metrics::Totals;
use repo_format::id::VaultId;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};
use store::{Store, StoreError, VaultState};

/// Totals over all vaults are at most this old.
const TOTALS_AGE_MAX: Duration = Duration::from_secs(10);

/// Totals and when they were taken.
pub(crate) type TakenTotals = Option<(Instant, Totals)>;

impl From<StoreError> for AppError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::NoSuchVault(_) => AppError::NotFound { what: "vault" },
            StoreError::NoSuchSnapshot(_) => AppError::NotFound { what: "snapshot" },
            StoreError::NoSuchSession(_) => {
                AppError::NotFound { what: "upload session (it may have ended: begin a new one)" }
            }
            StoreError::NoSuchRestore(_) => AppError::NotFound { what: "restore" },
            StoreError::NoSuchObject(_) => AppError::NotFound { what: "object" },
            StoreError::Missing(ids) => AppError::Missing(ids),
            StoreError::IncarnationChanged { .. } => AppError::IncarnationChanged,
            StoreError::IdMismatch(id) => AppError::IdMismatch(id),
            StoreError::BadCompression { .. } => AppError::BadCompression(error.to_string()),
            StoreError::BadNode { .. } => AppError::BadNode(error.to_string()),
            StoreError::BadRecord { .. } => AppError::Invalid(error.to_string()),
            StoreError::Conflict(_) => AppError::Conflict(error.to_string()),
            StoreError::SnapshotDeleted { snapshot, until_ns } => AppError::SnapshotDeleted(format!(
                "snapshot {snapshot} is deleted; until {} it can be brought back with `holdfast undelete {snapshot}`",
                utc(until_ns)
            )),
            StoreError::Held { snapshot, until_ns } => AppError::SnapshotHeld(format!(
                "snapshot {snapshot} is held until {}: until then nobody removes it, and only a token with the right \
                 `hold` or an operator can end the hold earlier",
                utc(until_ns)
            )),
            StoreError::ClockJumped { last_ns, now_ns } => AppError::ClockJumped(format!(
                "the server's clock says {}, but by all that is known it should be about {}: nothing expires and no hold \
                 ends until an operator has set the clock right or confirmed it with `holdfastd clock confirm`",
                utc(now_ns),
                utc(last_ns)
            )),
            StoreError::DiskFull { .. } => AppError::DiskFull(error.to_string()),
            StoreError::QuotaExceeded { limit, kind, used, reserved, limit_bytes, requested } => {
                AppError::QuotaExceeded(Box::new(QuotaRefusal { limit, kind, used, reserved, limit_bytes, requested }))
            }
            StoreError::Damaged(_) => AppError::Damaged(error.to_string()),
            StoreError::VaultDeleted(_) => AppError::VaultDeleted,
            StoreError::Unknown(_) | StoreError::IndexFailed(_) => AppError::Retry(error.to_string()),
            StoreError::Unavailable { .. } => AppError::VaultUnavailable(error.to_string()),
            StoreError::Corrupt { .. }
            | StoreError::PackMissing(_)
            | StoreError::Index(_)
            | StoreError::IndexDamaged(_)
            | StoreError::Io { .. }
            | StoreError::Format(_)
            | StoreError::Random(_) => AppError::Internal(error.to_string()),
        }
    }
}

/// Runs a call of the store on a blocking thread. A panic there is a defect, answered as such.
pub(crate) async fn on_store<T: Send + 'static>(
    store: &Arc<Store>,
    call: impl FnOnce(&Store) -> Result<T, StoreError> + Send + 'static,
) -> Result<T, AppError> {
    let store = store.clone();
    match tokio::task::spawn_blocking(move || call(&store)).await {
        Ok(result) => Ok(result?),
        Err(error) => Err(AppError::Internal(format!("a call of the store was lost: {error}"))),
    }
}

impl App {
    pub(crate) async fn make_vault_keys(&self, vault: VaultId) -> Result<(), AppError> {
        on_store(&self.store, move |store| store.create_vault(vault)).await
    }

    pub(crate) async fn vault_usage(&self, vault: VaultId) -> Result<VaultUsage, AppError> {
        let read = move |store: &Store| {
            Ok((store.usage(&vault)?, store.space(&vault)?.dead_bytes, store.damaged_objects(&vault)?))
        };
        let (ledger, dead_bytes, damaged_objects) = on_store(&self.store, read).await?;
        Ok(VaultUsage {
            physical_bytes: ledger.physical_bytes,
            logical_bytes: ledger.logical_bytes,
            deleted_logical_bytes: ledger.deleted_logical_bytes,
            pending_bytes: ledger.pending_bytes,
            dead_bytes,
            damaged_objects,
            objects: ledger.chunks + ledger.nodes,
            snapshots: ledger.snapshots,
        })
    }

    /// What can be done with a vault. One of which the store knows nothing is unavailable.
    pub(crate) async fn vault_state(&self, vault: VaultId) -> Result<VaultState, AppError> {
        on_store(&self.store, move |store| match store.vault_state(&vault) {
            Err(StoreError::NoSuchVault(_)) => Ok(VaultState::Unavailable {
                reason: "the store has neither its key nor its files; restore them from a backup, or delete it".into(),
            }),
            Err(StoreError::VaultDeleted(_)) => Ok(VaultState::Deleting),
            state => state,
        })
        .await
    }

    /// How many vaults are in which state, folders without a key included.
    pub async fn vault_states(&self) -> Result<BTreeMap<&'static str, u64>, AppError> {
        let states = on_store(&self.store, |store| store.vault_states()).await?;
        let mut counts = BTreeMap::new();
        for state in states.values() {
            *counts.entry(state.name()).or_default() += 1;
        }
        Ok(counts)
    }

    /// How often the index was opened again since the start.
    pub fn index_reopened(&self) -> u64 {
        self.store.index_reopened()
    }

    /// What all vaults hold together, at most some seconds old.
    pub async fn totals(&self) -> Result<Totals, AppError> {
        let mut taken = self.totals.lock().await;
        if let Some((when, totals)) = *taken
            && when.elapsed() < TOTALS_AGE_MAX
        {
            return Ok(totals);
        }
        let mut totals = Totals::default();
        for vault in self.control.vaults().await? {
            totals.vaults += 1;
            // One vault that cannot be used must not hide the others.
            match self.vault_usage(vault.id).await {
                Ok(usage) => {
                    totals.objects += usage.objects;
                    totals.physical_bytes += usage.physical_bytes;
                    totals.logical_bytes += usage.logical_bytes;
                    totals.deleted_logical_bytes += usage.deleted_logical_bytes;
                    totals.pending_bytes += usage.pending_bytes;
                    totals.dead_bytes += usage.dead_bytes;
                    totals.damaged_objects += usage.damaged_objects;
                    totals.snapshots += usage.snapshots;
                }
                Err(AppError::VaultDeleted) => {}
                Err(error) => tracing::warn!(vault = %vault.id, %error, "a vault cannot be counted"),
            }
        }
        let jumped = on_store(&self.store, |store| Ok(matches!(store.now_ns(), Err(StoreError::ClockJumped { .. }))));
        totals.has_clock_jumped = jumped.await?;
        *taken = Some((Instant::now(), totals));
        Ok(totals)
    }

    /// Whether uploads are refused for want of disk space.
    pub fn is_disk_full(&self) -> bool {
        matches!(self.store.check_space(), Err(StoreError::DiskFull { .. }))
    }

    /// Refuses an upload while the disk is at its reserve: asked before a body is read.
    pub fn check_space(&self) -> Result<(), AppError> {
        Ok(self.store.check_space()?)
    }
}
