//! Prepares exports that were released, holds what is there to be downloaded, and ends it when its days have passed.

use super::Worker;
use std::time::Duration;

/// How often it is looked whether something is due: dumps end, and days pass.
const LOOK: Duration = Duration::from_secs(2);
/// Behind a failure of the database.
const REST: Duration = Duration::from_secs(10);

pub(super) async fn run(mut worker: Worker) {
    // Before anything expires by itself: the server may have ended between a publication and its hold.
    if let Err(error) = worker.app.hold_ready_exports().await {
        worker.metrics.job_failed("exports");
        tracing::error!(%error, "snapshots of exports could not be held");
    }
    loop {
        let looked = async {
            worker.app.expire_exports().await?;
            worker.app.prepare_exports().await
        };
        let pause = match looked.await {
            Ok(_) => {
                worker.metrics.job_idle("exports", worker.app.clock_seconds());
                LOOK
            }
            Err(error) => {
                worker.metrics.job_failed("exports");
                tracing::warn!(%error, "exports could not be looked after and are tried again");
                REST
            }
        };
        // Somebody waits for the first step.
        let app = worker.app.clone();
        tokio::select! {
            goes_on = worker.pause(pause) => if !goes_on { return },
            () = app.exports_wanted.notified() => {}
        }
    }
}
