//! Loss of power, simulated: the engine on a disk in memory that keeps any part of what was not synced.
//!
//! | module | what it is |
//! |---|---|
//! | `sim_vfs` | the disk, and what a crash leaves of it |
//! | `log_meta` | an index that lives on that disk |
//! | `ground` | what the engine stands on: that disk, or the disk mounted |
//! | `mounted` | the disk mounted in user space, for the real index and the system's own files |
//! | `composite` | histories over that |
//! | `content` | tiny trees to back up |
//! | `model` | what has been acknowledged |
//! | `history` | seeded histories, crashed at every operation of the disk |
//! | `schedules` | turns that threads take, chosen by a scheduler (feature `shuttle`) |
//! | `mutations` | every call that makes something durable, left out in turn |
//! | `sites` | names of the calls that make something durable |
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a failed step of a test is its failure")]

mod composite;
mod content;
mod ground;
mod history;
mod log_meta;
mod model;
mod mounted;
mod mutations;
#[cfg(feature = "shuttle")]
mod schedules;
mod sim_vfs;
mod sites;

use ground::Ground;
use history::{Figures, History, Options};
use parking_lot::Mutex;
use repo_format::id::{ObjectId, VaultId};
use sim_vfs::{Disk, Fault, Rng, Survival, Volume};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;
use store::CommitInput;

/// Histories as the long run has them.
fn options(seed: u64) -> Options {
    Options {
        seed,
        operations: 120,
        crash_percent: 30,
        variants: 3,
        dry_percent: 10,
        again_percent: 10,
        lose_percent: 3,
        sites: None,
        patient: false,
        ground: Ground::Simulated,
        names_in_order: false,
    }
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

/// The history of `HOLDFAST_SEED`, harsh with `HOLDFAST_HARSH`, without the call
/// `HOLDFAST_LEFT_OUT`, with what the engine logs (`RUST_LOG`) and every call on standard output.
#[test]
#[ignore = "for looking into one history"]
fn one_history() {
    let _ = tracing_subscriber::fmt().with_env_filter(tracing_subscriber::EnvFilter::from_default_env()).try_init();
    let options = if std::env::var("HOLDFAST_HARSH").is_ok() { harsh } else { options };
    let left_out = std::env::var("HOLDFAST_LEFT_OUT").ok();
    let sites = left_out.map(|site| Arc::new(sites::Sites::new(Some(site))));
    explore(seed(), |histories, _| histories >= 1, |seed| Options { sites: sites.clone(), ..options(seed) });
}

/// Histories that lose power often, also while they recover: `HOLDFAST_HARSH` repeats one.
fn harsh(seed: u64) -> Options {
    Options { variants: 6, again_percent: 30, lose_percent: 15, ..options(seed) }
}

#[test]
#[ignore = "long: minutes"]
fn a_hundred_harsh_histories() {
    explore(seed(), |histories, _| histories >= 100, harsh);
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

fn quiet(seed: u64, operations: usize) -> Options {
    Options { crash_percent: 0, operations, patient: true, again_percent: 0, dry_percent: 0, ..options(seed) }
}

/// One history, with an error at one operation of the disk after another: whatever was acknowledged is there, calls
/// made again get through, and nothing is left behind.
fn faults(seed: u64, operations: usize, every: u64) {
    let quiet = quiet(seed, operations);
    let kinds = [(io::ErrorKind::Other, false), (io::ErrorKind::StorageFull, false), (io::ErrorKind::Other, true)];
    let (mut runs, mut struck_at_all) = (0, 0);
    for (kind, half) in kinds {
        for times in [1, 2] {
            let mut at = seed % every;
            loop {
                let fault = Fault { at, times, kind, half };
                let (struck, operations) =
                    History::with_fault(quiet.clone(), fault).unwrap_or_else(|error| panic!("{error}"));
                runs += 1;
                struck_at_all += struck;
                if at >= operations {
                    break;
                }
                at += every;
            }
        }
    }
    println!("faults: {runs} runs, {struck_at_all} operations failed");
    assert!(struck_at_all > 0);
}

#[test]
fn an_error_at_some_disk_operations_loses_nothing() {
    faults(seed(), 60, 7);
}

#[test]
#[ignore = "long: minutes"]
fn an_error_at_any_disk_operation_loses_nothing() {
    let first = seed();
    let next = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(2, usize::from) {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= 4 {
                        return;
                    }
                    faults(first + number, 120, 1);
                }
            });
        }
    });
}

/// Whatever fails while a vault is made: made at the next attempt, it and what it took in are there after a loss of
/// power: its key, and the names of its folders.
#[test]
fn a_vault_made_at_the_second_attempt_is_on_disk() {
    let vault = VaultId::from_bytes([0x43; 16]);
    let now_ns = 1_800_000_000_000_000_000;
    let mut universe = content::Universe::default();
    let mut at = 0;
    loop {
        let disk = Disk::new(Volume::default());
        let (store, _) = Ground::Simulated.open(&disk, 1, now_ns, 1000).unwrap();
        disk.set_fault(Some(Fault { at, times: 1, kind: io::ErrorKind::Other, half: false }));
        let attempts = (0..3).take_while(|_| store.create_vault(vault).is_err()).count();
        let struck = disk.faults_struck();
        assert!(attempts <= struck as usize, "{attempts} attempts failed after one error at operation {at}");
        disk.set_fault(None);
        let tree = content::tree(&store.id_keys(&vault).unwrap(), &mut Rng::new(at), None, &mut universe);
        let objects = |ids: &[ObjectId]| ids.iter().map(|id| universe.objects[id].incoming.clone()).collect::<Vec<_>>();
        let (session, _) = store.begin_upload(&vault, "computer", "series", None).unwrap();
        store.put_chunks(&vault, &session, &objects(&tree.chunks)).unwrap();
        store.put_nodes(&vault, &session, &objects(&tree.nodes)).unwrap();
        store.commit(&vault, &session, &CommitInput { root: tree.root, summary_json: Vec::new() }).unwrap();
        let (store, _) =
            Ground::Simulated.open(&Disk::new(disk.volume().crash(Survival::Nothing)), 2, now_ns, 1000).unwrap();
        let listed = store.snapshots(&vault).unwrap_or_else(|error| panic!("operation {at}: {error}"));
        assert_eq!(listed.len(), 1, "operation {at}");
        if struck == 0 {
            break;
        }
        at += 1;
    }
    assert!(at > 10, "{at} operations");
}

/// Whatever fails while a vault is deleted: the next attempt in the same process finishes it.
#[test]
fn a_deletion_that_failed_is_finished_by_the_next_attempt() {
    let vault = VaultId::from_bytes([0x43; 16]);
    let now_ns = 1_800_000_000_000_000_000;
    let mut at = 0;
    loop {
        let disk = Disk::new(Volume::default());
        let (store, _) = Ground::Simulated.open(&disk, 1, now_ns, 1000).unwrap();
        store.create_vault(vault).unwrap();
        store.begin_upload(&vault, "computer", "series", None).unwrap();
        disk.set_fault(Some(Fault { at, times: 1, kind: io::ErrorKind::Other, half: false }));
        let attempts = (0..3).take_while(|_| store.delete_vault(&vault, &ground::master()).is_err()).count();
        let struck = disk.faults_struck();
        assert!(attempts <= struck as usize, "{attempts} attempts failed after one error at operation {at}");
        history::check_gone(&store, &disk, &vault).unwrap_or_else(|error| panic!("operation {at}: {error}"));
        if struck == 0 {
            break;
        }
        at += 1;
    }
    assert!(at > 10, "{at} operations");
}

/// With any single sync, directory sync or atomic rename left out, the histories fail.
#[test]
#[ignore = "long: minutes"]
fn every_mutation_is_noticed() {
    let first = seed();
    mutations::unmutated(harsh, first, 5).unwrap_or_else(|error| panic!("{error}"));
    let mutations = mutations::run(harsh, first, 20, 80);
    println!("{}", mutations::table(&mutations));
    let missed: Vec<&str> = mutations
        .iter()
        .filter(|mutation| mutation.noticed.is_none() && mutations::redundant(&mutation.site).is_none())
        .map(|mutation| mutation.site.as_str())
        .collect();
    let noticed = mutations.iter().filter(|mutation| mutation.noticed.is_some()).count();
    println!("mutations: {}, noticed: {noticed}, missed: {}, the others redundant", mutations.len(), missed.len());
    assert_eq!(missed, Vec::<&str>::new());
}

/// One fault of the history of `HOLDFAST_SEED`, as a failure prints it: `HOLDFAST_FAULT=at,times,full,half`, the last two 0 or 1.
#[test]
#[ignore = "for looking into one history"]
fn one_fault() {
    let _ = tracing_subscriber::fmt().with_env_filter(tracing_subscriber::EnvFilter::from_default_env()).try_init();
    let Ok(fault) = std::env::var("HOLDFAST_FAULT") else { return };
    let parts: Vec<u64> = fault.split(',').filter_map(|part| part.parse().ok()).collect();
    let [at, times, full, half] = parts[..] else { return };
    let kind = if full == 1 { io::ErrorKind::StorageFull } else { io::ErrorKind::Other };
    let operations = std::env::var("HOLDFAST_OPERATIONS").ok().and_then(|text| text.parse().ok()).unwrap_or(60);
    let quiet = quiet(seed(), operations);
    History::with_fault(quiet, Fault { at, times, kind, half: half == 1 }).unwrap_or_else(|error| panic!("{error}"));
}
