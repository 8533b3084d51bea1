//! What the server does by itself: collecting garbage, expiring snapshots, verifying what is stored. Each job is one
//! task that works in small steps, pauses for uploads, tells metrics what it does, and ends when the server stops.

mod agents;
mod audit;
mod business;
mod exports;
mod housekeeping;
mod identity;
mod mail;
mod notices;
mod retention;
mod scrub;
mod webhooks;

use crate::app::App;
use crate::mailer::Mailer;
use crate::metrics::Metrics;
use repo_format::id::VaultId;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// When and how fast jobs work.
#[derive(Clone, Copy, Debug)]
pub struct JobSettings {
    /// Retention runs this often.
    pub retention_every: Duration,
    /// Everything stored is verified once within this time; zero: never.
    pub scrub_cycle: Duration,
    /// Bytes verified in a second, over all vaults.
    pub scrub_bytes_per_second: u64,
    /// Agents speak of a running job at least this often.
    pub heartbeat: Duration,
    /// It is looked this often whether something is wrong that people should hear of.
    pub notices_every: Duration,
}

/// First pause of a vault whose job failed; doubles up to [`BACKOFF_MAX`].
const BACKOFF_FIRST: Duration = Duration::from_secs(30);
/// Longest pause of a vault whose job failed.
const BACKOFF_MAX: Duration = Duration::from_secs(900);

/// The running jobs.
pub struct Jobs {
    tasks: Vec<JoinHandle<()>>,
}

/// What every job works with.
#[derive(Clone)]
struct Worker {
    app: Arc<App>,
    metrics: Metrics,
    settings: JobSettings,
    stopped: watch::Receiver<bool>,
}

impl Jobs {
    /// Starts all of them; they end after `stopped` has become true.
    pub fn start(
        app: Arc<App>,
        metrics: Metrics,
        settings: JobSettings,
        mailer: Option<Mailer>,
        stopped: watch::Receiver<bool>,
    ) -> Self {
        let sender = app.webhooks.clone();
        let worker = Worker { app, metrics, settings, stopped };
        Jobs {
            tasks: vec![
                tokio::spawn(agents::run(worker.clone())),
                tokio::spawn(audit::run(worker.clone())),
                tokio::spawn(business::run(worker.clone())),
                tokio::spawn(exports::run(worker.clone())),
                tokio::spawn(housekeeping::run(worker.clone())),
                tokio::spawn(mail::run(worker.clone(), mailer)),
                tokio::spawn(identity::run(worker.clone())),
                tokio::spawn(notices::run(worker.clone())),
                tokio::spawn(retention::run(worker.clone())),
                tokio::spawn(scrub::run(worker.clone())),
                tokio::spawn(webhooks::run(worker, sender)),
            ],
        }
    }

    /// Waits until the step at hand of every job is done.
    pub async fn finish(self) {
        for task in self.tasks {
            if task.await.is_err() {
                tracing::error!("a background job ended by a defect");
            }
        }
    }
}

impl Worker {
    /// Sleeps; `false` when the server stops meanwhile.
    async fn pause(&mut self, pause: Duration) -> bool {
        // An error means that nobody is left who could stop it but the end of the process.
        tokio::time::timeout(pause, self.stopped.wait_for(|stopped| *stopped)).await.is_err()
    }

    fn is_stopped(&self) -> bool {
        *self.stopped.borrow()
    }
}

/// Vaults that a job leaves alone for a while because it failed there.
#[derive(Default)]
struct Backoff {
    vaults: HashMap<VaultId, (Instant, Duration)>,
}

impl Backoff {
    fn is_resting(&self, vault: &VaultId) -> bool {
        self.vaults.get(vault).is_some_and(|(until, _)| Instant::now() < *until)
    }

    /// It failed again; how long the vault is left alone.
    fn failed(&mut self, vault: VaultId) -> Duration {
        let pause = match self.vaults.get(&vault) {
            Some((_, pause)) => pause.saturating_mul(2).min(BACKOFF_MAX),
            None => BACKOFF_FIRST,
        };
        self.vaults.insert(vault, (Instant::now() + pause, pause));
        pause
    }

    fn worked(&mut self, vault: &VaultId) {
        self.vaults.remove(vault);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_vault_that_fails_is_left_alone_for_longer_and_longer() {
        let (mut backoff, vault) = (Backoff::default(), VaultId::from_bytes([1; 16]));
        assert!(!backoff.is_resting(&vault));
        assert_eq!(backoff.failed(vault), BACKOFF_FIRST);
        assert!(backoff.is_resting(&vault));
        assert_eq!(backoff.failed(vault), BACKOFF_FIRST * 2);
        for _ in 0..10 {
            backoff.failed(vault);
        }
        assert_eq!(backoff.failed(vault), BACKOFF_MAX);
        backoff.worked(&vault);
        assert!(!backoff.is_resting(&vault));
        assert_eq!(backoff.failed(vault), BACKOFF_FIRST);
    }
}
