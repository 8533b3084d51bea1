//! Garbage collection: one small step of one vault after the other, so that no vault waits for another one's backlog.

use super::{Backoff, Worker};
use crate::app::AppError;
use repo_format::id::VaultId;
use std::time::{Duration, Instant};

/// Without a sign of work it is looked for this often: vaults say so themselves, and sessions end by time.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// While uploads are busy, a step is followed by a pause as long as the step, and at most this long.
const YIELD_MAX: Duration = Duration::from_millis(250);

pub(super) async fn run(mut worker: Worker) {
    let mut backoff = Backoff::default();
    while !worker.is_stopped() {
        let mut due: Vec<VaultId> = match worker.app.vaults_to_maintain().await {
            Ok(vaults) => vaults.into_iter().filter(|vault| !backoff.is_resting(vault)).collect(),
            Err(error) => {
                tracing::warn!(%error, "the work of garbage collection cannot be looked up");
                Vec::new()
            }
        };
        worker.metrics.job_pending("housekeeping", due.len() as u64);
        if due.is_empty() {
            worker.metrics.job_idle("housekeeping", worker.app.clock_seconds());
            let app = worker.app.clone();
            tokio::select! {
                () = app.housekeeping.notified() => {}
                alive = worker.pause(LOOK_EVERY) => if !alive { return },
            }
            continue;
        }
        while !due.is_empty() {
            let mut further = Vec::new();
            for vault in due {
                let started = Instant::now();
                match worker.app.maintain(vault).await {
                    Ok(done) => {
                        backoff.worked(&vault);
                        worker.metrics.maintained(&done);
                        if done.more {
                            further.push(vault);
                        }
                    }
                    Err(error) => {
                        worker.metrics.job_failed("housekeeping");
                        let pause = backoff.failed(vault);
                        report(&vault, &error, pause);
                    }
                }
                let is_pressed = worker.app.busy_uploads() > 0 && !worker.app.is_disk_full();
                let pause = if is_pressed { started.elapsed().min(YIELD_MAX) } else { Duration::ZERO };
                if worker.is_stopped() || (!pause.is_zero() && !worker.pause(pause).await) {
                    return;
                }
            }
            due = further;
        }
    }
}

/// A vault that cannot be used, and a full disk, have been reported already.
fn report(vault: &VaultId, error: &AppError, pause: Duration) {
    let seconds = pause.as_secs();
    match error {
        AppError::VaultUnavailable(_)
        | AppError::VaultDeleted
        | AppError::NotFound { .. }
        | AppError::Retry(_)
        | AppError::DiskFull(_) => {
            tracing::info!(%vault, %error, seconds, "garbage collection of a vault waits");
        }
        _ => tracing::warn!(%vault, %error, seconds, "garbage collection of a vault failed and is tried again"),
    }
}
