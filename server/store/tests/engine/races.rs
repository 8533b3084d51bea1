//! Many uploads at once into one vault.

use crate::bed::{Bed, Files, VAULT, begin, download, files, tree, upload};
use crate::collect::{now_ns, run_dry};
use std::collections::BTreeSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use store::{SnapshotInfo, StoreError};

#[test]
fn equal_and_different_trees_at_once() {
    let mut bed = Bed::new();
    let store = bed.store();
    let snapshots: Vec<_> = thread::scope(|scope| {
        let runs: Vec<_> = (0..8)
            .map(|number| {
                scope.spawn(move || {
                    // Half of the uploads are the same tree: they race for every row.
                    let content = files(if number % 2 == 0 { 100 } else { number }, 120, 1500);
                    (upload(store, &content).unwrap(), content)
                })
            })
            .collect();
        runs.into_iter().map(|run| run.join().unwrap()).collect()
    });
    for (snapshot, content) in &snapshots {
        assert_eq!(&download(bed.store(), snapshot).unwrap(), content);
    }
    bed.assert_no_drift();
    let before = bed.store().recount(&VAULT).unwrap();
    assert_eq!(before.ledger.chunks, 5 * 120, "four different trees and one common one");
    bed.crash_and_restart();
    bed.assert_no_drift();
    assert_eq!(bed.store().recount(&VAULT).unwrap(), before);
}

/// Where the threads of a run take their choices from: one seed, one sequence for each.
struct Choices(u64);

impl Choices {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (self.0 >> 33) % bound
    }
}

fn seed() -> u64 {
    let seed = std::env::var("HOLDFAST_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(1);
    println!("HOLDFAST_SEED={seed}");
    seed
}

/// Uploads of trees that share most of their files, purges, aborted uploads and restores, beside a collector that never
/// rests: nobody is refused, nothing needed goes, and at the end nothing else is left. In the middle the store is
/// killed and started again.
#[test]
fn nobody_is_refused_and_nothing_needed_goes_beside_collection() {
    let seed = seed();
    let mut bed = Bed::with(|settings| settings.pack_bytes_target = 128 << 10);
    let mut kept: Vec<(SnapshotInfo, Files)> = Vec::new();
    for half in 0..2_u64 {
        let store = bed.store();
        let stop = AtomicBool::new(false);
        let shared: Mutex<Vec<(SnapshotInfo, Files)>> = Mutex::new(std::mem::take(&mut kept));
        let sum = thread::scope(|scope| {
            let (stop, shared) = (&stop, &shared);
            let collector = scope.spawn(move || {
                let mut copied = 0;
                while !stop.load(Ordering::Relaxed) {
                    copied += store.maintain(&VAULT, now_ns()).unwrap().copied_bytes;
                }
                copied
            });
            let restorer = scope.spawn(move || {
                let mut choices = Choices(seed ^ half ^ 0xABCD);
                while !stop.load(Ordering::Relaxed) {
                    let chosen = {
                        let shared = shared.lock().unwrap();
                        match shared.len() as u64 {
                            0 => continue,
                            len => shared[choices.below(len) as usize].clone(),
                        }
                    };
                    match store.begin_restore(&VAULT, &chosen.0.snapshot) {
                        Err(StoreError::NoSuchSnapshot(_)) => {}
                        restore => {
                            let restore = restore.unwrap();
                            assert_eq!(download(store, &chosen.0).unwrap(), chosen.1);
                            store.end_restore(&VAULT, &restore).unwrap();
                        }
                    }
                }
            });
            let uploaders: Vec<_> = (0..4_u64)
                .map(|number| {
                    scope.spawn(move || {
                        let mut choices = Choices(seed ^ (half << 8) ^ (number << 16));
                        for _ in 0..12 {
                            // Files of few generations: trees share nearly everything, dead objects come back to life.
                            let mut content = Files::new();
                            for part in 0..6 {
                                content.extend(
                                    files(1 + choices.below(5) * 10 + part, 25, 900)
                                        .into_iter()
                                        .map(|(name, bytes)| (format!("{part}-{name}"), bytes)),
                                );
                            }
                            if choices.below(4) == 0 {
                                let tree = tree(&store.id_keys(&VAULT).unwrap(), &content);
                                let session = begin(store, None);
                                store.put_chunks(&VAULT, &session, &tree.chunks).unwrap();
                                store.put_nodes(&VAULT, &session, &tree.nodes).unwrap();
                                store.abort_upload(&VAULT, &session).unwrap();
                                continue;
                            }
                            let snapshot = upload(store, &content).unwrap();
                            let purged = {
                                let mut shared = shared.lock().unwrap();
                                shared.push((snapshot, content));
                                let len = shared.len() as u64;
                                (len > 4).then(|| shared.remove(choices.below(len) as usize))
                            };
                            if let Some((purged, _)) = purged {
                                store.purge_snapshots(&VAULT, &[purged.snapshot]).unwrap();
                            }
                        }
                    })
                })
                .collect();
            let outcomes: Vec<_> = uploaders.into_iter().map(|uploader| uploader.join()).collect();
            // Before any of them is looked at: a failed one must not leave the others running.
            stop.store(true, Ordering::Relaxed);
            for outcome in outcomes {
                outcome.unwrap();
            }
            restorer.join().unwrap();
            collector.join().unwrap()
        });
        println!("copied {sum} bytes");
        kept = shared.into_inner().unwrap();
        bed.assert_no_drift();
        bed.crash_and_restart();
        bed.assert_no_drift();
    }
    run_dry(bed.store(), now_ns());
    for (snapshot, content) in &kept {
        assert_eq!(&download(bed.store(), snapshot).unwrap(), content);
    }
    let recount = bed.store().recount(&VAULT).unwrap();
    assert_eq!(recount.drift, Vec::<String>::new());
    assert_eq!(recount.ledger.pending_bytes, 0);
    let distinct: BTreeSet<&Vec<u8>> = kept.iter().flat_map(|(_, content)| content.values()).collect();
    assert_eq!(recount.ledger.chunks, distinct.len() as u64, "what the snapshots need, and nothing else");
}
