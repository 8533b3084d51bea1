//! Verification of everything stored, within a cycle and at a bounded rate. What was verified longest ago comes first;
//! how far it has come stands in the index and survives restarts.

use super::{Backoff, Worker};
use repo_format::id::VaultId;
use std::collections::HashMap;
use std::time::{Duration, Instant};

/// Bytes of one step: the rate is kept between steps.
const STEP_BYTES: u64 = 4 << 20;
/// A vault without anything due is looked at again after this long.
const LOOK_EVERY: Duration = Duration::from_secs(6 * 3600);
/// Pause between rounds over all vaults.
const ROUND_EVERY: Duration = Duration::from_secs(60);
/// A server that has just started is left to its agents first.
const FIRST_AFTER: Duration = Duration::from_secs(120);

pub(super) async fn run(mut worker: Worker) {
    if worker.settings.scrub_cycle.is_zero() || !worker.pause(FIRST_AFTER).await {
        return;
    }
    let mut backoff = Backoff::default();
    let mut looked: HashMap<VaultId, Instant> = HashMap::new();
    loop {
        let mut due: Vec<VaultId> = worker.app.all_vaults();
        due.retain(|vault| !backoff.is_resting(vault) && looked.get(vault).is_none_or(|at| at.elapsed() >= LOOK_EVERY));
        while !due.is_empty() {
            worker.metrics.job_pending("scrub", due.len() as u64);
            let mut further = Vec::new();
            for vault in due {
                let started = Instant::now();
                let step = worker.app.scrub(vault, worker.settings.scrub_cycle, STEP_BYTES).await;
                let bytes = match step {
                    Ok(step) => {
                        backoff.worked(&vault);
                        worker.metrics.scrubbed(&step);
                        if step.objects_damaged + step.packs_damaged + step.packs_missing > 0 {
                            tracing::error!(
                                %vault, objects = step.objects_damaged, packs = step.packs_damaged,
                                missing_packs = step.packs_missing,
                                "verification found damage; `holdfastd vault damage` names snapshots and files"
                            );
                        }
                        if step.done {
                            looked.insert(vault, Instant::now());
                        } else {
                            further.push(vault);
                        }
                        step.bytes
                    }
                    Err(error) => {
                        worker.metrics.job_failed("scrub");
                        let seconds = backoff.failed(vault).as_secs();
                        tracing::info!(%vault, %error, seconds, "verification of a vault waits");
                        0
                    }
                };
                if !worker.pause(rest(bytes, worker.settings.scrub_bytes_per_second, started.elapsed())).await {
                    return;
                }
            }
            due = further;
        }
        worker.metrics.job_pending("scrub", 0);
        worker.metrics.job_idle("scrub", worker.app.clock_seconds());
        if !worker.pause(ROUND_EVERY).await {
            return;
        }
    }
}

/// What is left of the time that `bytes` may take.
fn rest(bytes: u64, bytes_per_second: u64, elapsed: Duration) -> Duration {
    let seconds = bytes as f64 / bytes_per_second.max(1) as f64;
    Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX).saturating_sub(elapsed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_is_kept_whatever_a_step_takes() {
        assert_eq!(rest(1000, 1000, Duration::from_millis(400)), Duration::from_millis(600));
        assert_eq!(rest(1000, 1000, Duration::from_secs(2)), Duration::ZERO);
        assert_eq!(rest(0, 1000, Duration::ZERO), Duration::ZERO);
        assert!(rest(1, 0, Duration::ZERO) <= Duration::from_secs(1));
    }
}
