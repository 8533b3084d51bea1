//! Counting all references again, one vault after the other, each once a month.

use super::Worker;
use repo_format::id::VaultId;
use std::time::Duration;
use store::AuditRepair;

/// A vault is audited this often.
const AUDIT_EVERY: Duration = Duration::from_secs(30 * 24 * 3600);
/// Pause between looks for a vault that is due.
const LOOK_EVERY: Duration = Duration::from_secs(3600);

pub(super) async fn run(mut worker: Worker) {
    while worker.pause(LOOK_EVERY).await {
        // Vaults that failed in this round wait for the next one.
        let mut failed: Vec<VaultId> = Vec::new();
        loop {
            let vault = match worker.app.next_audit(AUDIT_EVERY, &failed).await {
                Ok(Some(vault)) => vault,
                Ok(None) => break,
                Err(error) => {
                    worker.metrics.job_failed("audit");
                    tracing::warn!(%error, "the next audit cannot be looked up");
                    break;
                }
            };
            let stopped = worker.stopped.clone();
            let audited = worker.app.audit(vault, AuditRepair::TooLow, move || *stopped.borrow()).await;
            match audited {
                Ok(report) => worker.metrics.audited(&report),
                Err(error) => {
                    worker.metrics.job_failed("audit");
                    tracing::info!(%vault, %error, "the audit of a vault waits");
                    failed.push(vault);
                }
            }
            if worker.is_stopped() {
                return;
            }
        }
        worker.metrics.job_pending("audit", failed.len() as u64);
        if failed.is_empty() {
            worker.metrics.job_idle("audit", worker.app.clock_seconds());
        }
    }
}
