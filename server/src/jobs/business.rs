//! What the clock does to services and to what was deleted: looked for once a minute.

use super::Worker;
use std::time::Duration;

const EVERY: Duration = Duration::from_secs(60);

pub(super) async fn run(mut worker: Worker) {
    while worker.pause(EVERY).await {
        match worker.app.advance_business().await {
            Ok(_) => worker.metrics.job_idle("business", worker.app.clock_seconds()),
            Err(error) => {
                worker.metrics.job_failed("business");
                tracing::warn!(%error, "services and removals could not be looked after, and are tried again");
            }
        }
    }
}
