//! Sends what waits in the outbox. Without a mail server everything waits.

use super::Worker;
use crate::mailer::{Mailer, NotSent};
use std::time::Duration;

/// How often it is looked whether a mail is due: one read of an index.
const LOOK: Duration = Duration::from_secs(1);
/// Behind a failure of the database.
const REST: Duration = Duration::from_secs(10);
/// Mails taken at once.
const BATCH: u32 = 50;
/// Mails that have ended are forgotten after this long.
const KEPT_NS: i64 = 90 * 24 * 3600 * 1_000_000_000;
/// How often that is done.
const FORGET_LOOKS: u32 = 600;

pub(super) async fn run(mut worker: Worker, mailer: Option<Mailer>) {
    let mut looks: u32 = 0;
    let mut pause = LOOK;
    while worker.pause(pause).await {
        pause = LOOK;
        let worked = match &mailer {
            Some(mailer) => send_due(&worker, mailer).await,
            None => Ok(()),
        };
        let tidied = match looks.is_multiple_of(FORGET_LOOKS) {
            true => worker.app.forget_mails(KEPT_NS).await.map(|_| ()),
            false => Ok(()),
        };
        looks = looks.wrapping_add(1);
        match worked.and(tidied) {
            Ok(()) => worker.metrics.job_idle("mail", worker.app.clock_seconds()),
            Err(error) => {
                worker.metrics.job_failed("mail");
                tracing::warn!(%error, "the outbox could not be read or written and is tried again");
                pause = REST;
            }
        }
    }
}

async fn send_due(worker: &Worker, mailer: &Mailer) -> Result<(), crate::app::AppError> {
    loop {
        let due = worker.app.due_mails(BATCH).await?;
        for mail in &due {
            if worker.is_stopped() {
                return Ok(());
            }
            match mailer.send(mail, worker.app.now_ns()).await {
                Ok(()) => {
                    worker.app.mail_sent(mail).await?;
                    worker.metrics.mail("sent");
                }
                Err(NotSent::Refused(reason)) => {
                    worker.app.mail_refused(mail, &reason).await?;
                    worker.metrics.mail("refused");
                    tracing::info!(mail = %mail.id, %reason, "a mail was refused for good");
                }
                Err(NotSent::Delayed(reason)) => {
                    worker.app.mail_delayed(mail, &reason).await?;
                    worker.metrics.mail("delayed");
                    worker.metrics.job_failed("mail");
                    tracing::info!(mail = %mail.id, %reason, "a mail could not be sent and is tried again");
                }
            }
        }
        if due.len() < BATCH as usize {
            return Ok(());
        }
    }
}
