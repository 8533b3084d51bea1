//! Looks what is wrong, so that people hear of it; sends weekly summaries; puts the words of logs into their index.

use super::Worker;
use crate::app::AppError;
use std::time::{Duration, Instant};

/// How often the index of logs is brought up to date.
const INDEX_LOOK: Duration = Duration::from_secs(2);
/// Behind a failure.
const REST: Duration = Duration::from_secs(30);

pub(super) async fn run(mut worker: Worker) {
    let mut looked: Option<Instant> = None;
    let mut pause = INDEX_LOOK.min(worker.settings.notices_every);
    while worker.pause(pause).await {
        pause = INDEX_LOOK.min(worker.settings.notices_every);
        let is_due = looked.is_none_or(|at| at.elapsed() >= worker.settings.notices_every);
        match step(&worker, is_due).await {
            Ok(()) => worker.metrics.job_idle("notices", worker.app.clock_seconds()),
            Err(error) => {
                worker.metrics.job_failed("notices");
                tracing::warn!(%error, "notices could not be brought up to date and are tried again");
                pause = REST;
            }
        }
        if is_due {
            looked = Some(Instant::now());
        }
    }
}

async fn step(worker: &Worker, is_due: bool) -> Result<(), AppError> {
    worker.app.index_logs().await?;
    if is_due {
        let changed = worker.app.derive_notices().await?;
        if changed.opened + changed.worsened + changed.healed > 0 {
            tracing::info!(
                opened = changed.opened,
                worsened = changed.worsened,
                healed = changed.healed,
                "notices changed"
            );
        }
        worker.app.send_summaries().await?;
    }
    Ok(())
}
