//! Damage, verification on request, and counting again.

use crate::app::engine::on_store;
use crate::app::{App, AppError, Grant, OperatorGrant};
use repo_format::id::VaultId;
use std::sync::Arc;
use std::time::Duration;
use store::{AuditRepair, AuditReport, DamageReport, ScrubStep};

/// Paths named in one report.
const PATHS_MAX: usize = 10_000;
/// Bytes verified in one call on request.
const SCRUB_BYTES: u64 = 64 << 20;
/// An audit rests this long after every thousand objects while uploads are busy.
const AUDIT_REST: Duration = Duration::from_millis(20);

fn vault_of(vault: &str) -> Result<VaultId, AppError> {
    vault.parse().map_err(|_| AppError::NotFound { what: "vault" })
}

impl App {
    /// What is damaged, and the snapshots and paths it reaches.
    pub async fn damage(&self, grant: Grant) -> Result<DamageReport, AppError> {
        let vault = grant.vault();
        on_store(&self.store, move |store| store.damage(&vault, PATHS_MAX)).await
    }

    /// Verifies a part of what was last verified before `before_ns`.
    pub async fn scrub_now(&self, _: OperatorGrant, vault: &str, before_ns: i64) -> Result<ScrubStep, AppError> {
        let vault = vault_of(vault)?;
        on_store(&self.store, move |store| store.scrub_step(&vault, before_ns, SCRUB_BYTES)).await
    }

    /// Counts a vault again, to the end.
    pub async fn audit_now(
        self: &Arc<Self>,
        _: OperatorGrant,
        vault: &str,
        repair: bool,
    ) -> Result<AuditReport, AppError> {
        let repair = if repair { AuditRepair::Everything } else { AuditRepair::TooLow };
        let report = self.audit(vault_of(vault)?, repair, || false).await?;
        if report.complete { Ok(report) } else { Err(AppError::Retry("the server is going down".into())) }
    }

    /// Counts a vault again until `is_stopped` or the end; a complete audit is noted.
    pub(crate) async fn audit(
        self: &Arc<Self>,
        vault: VaultId,
        repair: AuditRepair,
        is_stopped: impl Fn() -> bool + Send + 'static,
    ) -> Result<AuditReport, AppError> {
        let app = self.clone();
        let audit = move |store: &store::Store| {
            store.audit(&vault, repair, || {
                if app.busy_uploads() > 0 {
                    std::thread::sleep(AUDIT_REST);
                }
                !is_stopped() && !app.is_draining()
            })
        };
        let report = on_store(&self.store, audit).await?;
        for line in &report.lines {
            tracing::error!(%vault, difference = %line, "an audit found a difference");
        }
        if report.complete {
            self.control.note_audit(&vault, self.clock.now_ns()).await?;
            tracing::info!(%vault, objects = report.objects, clean = report.is_clean(), "vault audited");
        }
        Ok(report)
    }

    /// The vault whose audit is due, but for `without`.
    pub(crate) async fn next_audit(&self, every: Duration, without: &[VaultId]) -> Result<Option<VaultId>, AppError> {
        let every_ns = i64::try_from(every.as_nanos()).unwrap_or(i64::MAX);
        Ok(self.control.next_audit(self.clock.now_ns().saturating_sub(every_ns), without).await?)
    }
}
