//! What time does to accounts: recoveries are carried out, invitations expire.

use super::Worker;
use std::time::Duration;

const LOOK: Duration = Duration::from_secs(60);

pub(super) async fn run(mut worker: Worker) {
    loop {
        if let Err(error) = worker.app.advance_identity().await {
            tracing::error!(%error, "recoveries and invitations could not be looked after");
        }
        if !worker.pause(LOOK).await {
            return;
        }
    }
}
