//! Retention of every vault with a policy, at fixed intervals, on the clock that does not believe in jumps.

use super::Worker;
use crate::app::AppError;
use std::time::Duration;

/// A server that has just started is left to its agents first.
const FIRST_AFTER: Duration = Duration::from_secs(60);

pub(super) async fn run(mut worker: Worker) {
    let mut jump_told = false;
    let mut pause = FIRST_AFTER.min(worker.settings.retention_every);
    while worker.pause(pause).await {
        pause = worker.settings.retention_every;
        let vaults = match worker.app.vaults_with_retention().await {
            Ok(vaults) => vaults,
            Err(error) => {
                worker.metrics.job_failed("retention");
                tracing::warn!(%error, "retention could not read its policies and is tried again");
                continue;
            }
        };
        worker.metrics.job_pending("retention", vaults.len() as u64);
        let (mut failed, mut jumped) = (0u64, false);
        for (at, vault) in vaults.iter().enumerate() {
            match worker.app.expire(*vault).await {
                Ok((_, expired)) => worker.metrics.expired(expired),
                Err(error @ AppError::ClockJumped(_)) => {
                    worker.metrics.job_failed("retention");
                    jumped = true;
                    if !jump_told {
                        tracing::error!(%error, "retention stands still");
                    }
                    break;
                }
                // Deleted since they were listed.
                Err(AppError::VaultDeleted | AppError::NotFound { .. }) => {}
                Err(error) => {
                    failed += 1;
                    worker.metrics.job_failed("retention");
                    tracing::warn!(%vault, %error, "retention of a vault failed and is tried again");
                }
            }
            worker.metrics.job_pending("retention", (vaults.len() - at - 1) as u64);
            if worker.is_stopped() {
                return;
            }
        }
        jump_told = jumped;
        if failed == 0 && !jumped {
            worker.metrics.job_idle("retention", worker.app.clock_seconds());
        }
    }
}
