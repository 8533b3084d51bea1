//! Sends what waits for webhooks, several at a time: one that does not answer holds up no other.

use super::Worker;
use crate::app::AppError;
use crate::webhook_sender::WebhookSender;
use std::time::Duration;
use tokio::task::JoinSet;

/// How often it is looked whether something is due.
const LOOK: Duration = Duration::from_secs(1);
/// Behind a failure of the database.
const REST: Duration = Duration::from_secs(10);
/// Sent at the same time.
const BATCH: u32 = 32;
/// Deliveries that have ended are forgotten after this long.
const KEPT_NS: i64 = 30 * 24 * 3600 * 1_000_000_000;
/// How often that is done.
const FORGET_LOOKS: u32 = 600;

pub(super) async fn run(mut worker: Worker, sender: WebhookSender) {
    let (mut looks, mut pause): (u32, Duration) = (0, LOOK);
    while worker.pause(pause).await {
        pause = LOOK;
        let sent = send_due(&worker, &sender).await;
        let tidied = match looks.is_multiple_of(FORGET_LOOKS) {
            true => worker.app.forget_deliveries(KEPT_NS).await.map(|_| ()),
            false => Ok(()),
        };
        looks = looks.wrapping_add(1);
        match sent.and(tidied) {
            Ok(()) => worker.metrics.job_idle("webhooks", worker.app.clock_seconds()),
            Err(error) => {
                worker.metrics.job_failed("webhooks");
                tracing::warn!(%error, "deliveries to webhooks could not be read or written and are tried again");
                pause = REST;
            }
        }
    }
}

async fn send_due(worker: &Worker, sender: &WebhookSender) -> Result<(), AppError> {
    while !worker.is_stopped() {
        let due = worker.app.due_deliveries(BATCH).await?;
        if due.is_empty() {
            break;
        }
        let mut tasks = JoinSet::new();
        for delivery in due {
            let (app, metrics, sender) = (worker.app.clone(), worker.metrics.clone(), sender.clone());
            tasks.spawn(async move {
                let taken = app.deliver(&sender, &delivery).await?;
                metrics.webhook(if taken { "delivered" } else { "failed" });
                Ok::<(), AppError>(())
            });
        }
        while let Some(done) = tasks.join_next().await {
            done.map_err(|error| AppError::Internal(error.to_string()))??;
        }
    }
    Ok(())
}
