//! Loss of power, simulated: the engine on a disk in memory that keeps any part of what was not synced.
//!
//! | module | what it is |
//! |---|---|
//! | `sim_vfs` | the disk, and what a crash leaves of it |
//! | `log_meta` | an index that lives on that disk |
//! | `content` | tiny trees to back up |
//! | `model` | what has been acknowledged |
//! | `history` | seeded histories, crashed at every operation of the disk |
//! | `sites` | names of the calls that make something durable |
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a failed step of a test is its failure")]

mod content;
mod history;
mod log_meta;
mod model;
mod sim_vfs;
mod sites;

use history::{Figures, History, Options};
use parking_lot::Mutex;
use std::time::Instant;

/// Histories as the long run has them.
fn options(seed: u64) -> Options {
    Options { seed, operations: 120, crash_percent: 30, variants: 3, dry_percent: 10, again_percent: 10, sites: None }
}

/// The seed to start from: given, or new.
fn seed() -> u64 {
    let given = std::env::var("HOLDFAST_SEED").ok().and_then(|text| text.parse().ok());
    let seed = given.unwrap_or_else(|| {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        now.as_nanos() as u64 % 1_000_000_000
    });
    println!("HOLDFAST_SEED={seed}");
    seed
}

/// Explores histories on every core until `enough` says so of their number and the states so far.
fn explore(first: u64, enough: impl Fn(u64, usize) -> bool + Sync, options: impl Fn(u64) -> Options + Sync) -> Figures {
    let total: Mutex<(u64, Figures)> = Mutex::default();
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(2, usize::from) {
            scope.spawn(|| {
                loop {
                    let number = {
                        let mut total = total.lock();
                        if enough(total.0, total.1.states.len()) {
                            return;
                        }
                        total.0 += 1;
                        total.0 - 1
                    };
                    let figures = History::explore(options(first + number)).unwrap_or_else(|error| panic!("{error}"));
                    total.lock().1.add(figures);
                }
            });
        }
    });
    let (histories, figures) = total.into_inner();
    println!("crash states: {} (distinct images) from {histories} histories", figures.states.len());
    println!("{figures}");
    figures
}

/// One history of 300 operations, the same in every run, crashed at every operation of the disk.
#[test]
fn a_fixed_history_crashed_at_every_disk_operation() {
    let started = Instant::now();
    let fixed = Options { operations: 300, crash_percent: 100, variants: 6, again_percent: 5, ..options(3) };
    let figures = explore(3, |histories, _| histories >= 1, |_| fixed.clone());
    println!("{:?}", started.elapsed());
    assert!(figures.operations == 300 && figures.states.len() > 1000, "{}", figures.states.len());
}

/// The history of `HOLDFAST_SEED`, with what the engine logs (`RUST_LOG`) and every call on standard output.
#[test]
#[ignore = "for looking into one history"]
fn one_history() {
    let _ = tracing_subscriber::fmt().with_env_filter(tracing_subscriber::EnvFilter::from_default_env()).try_init();
    explore(seed(), |histories, _| histories >= 1, options);
}

#[test]
fn a_few_new_histories() {
    let figures = explore(seed(), |histories, _| histories >= 20, options);
    assert!(figures.operations >= 2000);
}

/// A hundred thousand states from a thousand histories.
#[test]
#[ignore = "long: minutes"]
fn a_thousand_new_histories() {
    let started = Instant::now();
    let figures = explore(seed(), |histories, states| histories >= 1000 && states >= 100_000, options);
    println!("{:?}", started.elapsed());
    assert!(figures.states.len() >= 100_000);
}
