//! What the server finds out about agents by itself: jobs that fell silent, runs that never began, orders nobody came
//! for, and when agents were last heard of.

use super::Worker;
use crate::app::AppError;
use crate::app::agents::LOST_HEARTBEATS;
use std::time::{Duration, Instant};

/// Looks at what is silent or overdue this often, or with every heartbeat when those are shorter.
const LOOK: Duration = Duration::from_secs(5);
/// What is less urgent is done this often.
const SELDOM: Duration = Duration::from_secs(30);
/// A wall clock that goes so much faster than real time was moved.
const MOVED_NS: i64 = 10_000_000_000;

pub(super) async fn run(mut worker: Worker) {
    worker.app.set_heartbeat(worker.settings.heartbeat);
    let look = LOOK.min(worker.settings.heartbeat);
    // Behind a start, and behind a jump of the clock, agents get the time to say that they are there.
    let patience = worker.settings.heartbeat * LOST_HEARTBEATS;
    let mut trusted_from = Instant::now() + patience;
    let mut last = (Instant::now(), worker.app.now_ns());
    let mut seldom = Instant::now();
    while worker.pause(look).await {
        let now = (Instant::now(), worker.app.now_ns());
        let real_ns = i64::try_from((now.0 - last.0).as_nanos()).unwrap_or(i64::MAX);
        if (now.1 - last.1).saturating_sub(real_ns).abs() > MOVED_NS {
            trusted_from = now.0 + patience;
        }
        last = now;
        if now.0 >= trusted_from {
            report(worker.app.lose_silent_jobs().await.map(|_| ()), "silent jobs");
        }
        report(worker.app.note_missed_jobs().await.map(|_| ()), "missed jobs");
        if seldom.elapsed() >= SELDOM.min(look * 6) {
            seldom = Instant::now();
            report(worker.app.flush_seen().await, "agents heard of");
            report(worker.app.give_queued_jobs_up().await, "queued jobs");
        }
    }
    report(worker.app.flush_seen().await, "agents heard of");
}

fn report(result: Result<(), AppError>, what: &str) {
    if let Err(error) = result {
        tracing::error!(%error, "{what} could not be seen to; tried again in a moment");
    }
}
