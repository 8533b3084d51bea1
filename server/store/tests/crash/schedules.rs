//! Uploads, deletion and collection of one vault under a scheduler that chooses at every lock who goes on: nobody is
//! refused, nothing needed goes, and the counts are right, whichever way they take turns. Runs with the feature
//! `shuttle` only, in which the engine's locks belong to that scheduler:
//!
//! ```text
//! cargo nextest run -p store --features shuttle --test crash -E 'test(schedules::)'
//! ```
//!
//! A failure prints the schedule, which `shuttle::replay` takes, and the seed of its trees.

use crate::content::{Tree, Universe, tree};
use crate::ground::{Ground, VAULT};
use crate::seed;
use crate::sim_vfs::{Disk, Rng, Volume};
use repo_format::id::{ChunkId, NodeId, ObjectId, ObjectKind};
use repo_format::node::NodeSource;
use shuttle::scheduler::{PctScheduler, RandomScheduler, Scheduler};
use shuttle::{Config, MaxSteps, Runner, thread};
use std::sync::Arc;
use store::{CommitInput, SnapshotInfo, Store};

const NOW_NS: i64 = 1_800_000_000_000_000_000;
/// Bytes of a pack: a tree fills several.
const PACK_BYTES: u64 = 1000;
/// Different trees, and schedules of each.
const TREES: u64 = 40;
const SCHEDULES: usize = 100;
/// The engine parses and hashes on the stack of its caller.
const STACK_BYTES: usize = 1 << 20;
/// How many times a schedule of priorities changes them.
const PRIORITY_CHANGES: usize = 6;
/// Steps of maintenance taken beside the uploads.
const STEPS: usize = 12;

#[test]
fn random_turns_lose_nothing() {
    explore(|seed| RandomScheduler::new_from_seed(seed, SCHEDULES));
}

/// Few changes of who goes first: what takes a long sleep at one bad moment is found this way.
#[test]
fn turns_by_priority_lose_nothing() {
    explore(|seed| PctScheduler::new_from_seed(seed, PRIORITY_CHANGES, SCHEDULES));
}

fn explore<S: Scheduler + 'static>(scheduler: impl Fn(u64) -> S) {
    let first = seed();
    for number in first..first + TREES {
        let mut config = Config::new();
        config.stack_size = STACK_BYTES;
        config.max_steps = MaxSteps::None;
        Runner::new(scheduler(number), config).run(move || turns(number));
    }
}

/// One vault: a tree that is purged and collected while two that share most of it are uploaded.
fn turns(seed: u64) {
    let disk = Disk::new(Volume::default());
    let open = |seed| Ground::Simulated.open(&disk, seed, NOW_NS, PACK_BYTES).unwrap().0;
    let store = Arc::new(open(seed));
    store.create_vault(VAULT).unwrap();
    let keys = store.id_keys(&VAULT).unwrap();
    let (mut universe, mut rng) = (Universe::default(), Rng::new(seed));
    let old = tree(&keys, &mut rng, None, &mut universe);
    let trees = [0, 1].map(|_| Arc::new(tree(&keys, &mut rng, Some(&old), &mut universe)));
    let universe = Arc::new(universe);
    let purged = upload(&store, &universe, &old, "old");

    let purger = {
        let store = store.clone();
        thread::spawn(move || store.purge_snapshots(&VAULT, &[purged.snapshot]).map(drop).unwrap())
    };
    let collector = {
        let store = store.clone();
        thread::spawn(move || {
            for _ in 0..STEPS {
                store.maintain(&VAULT, NOW_NS).unwrap();
            }
        })
    };
    let uploads = [0, 1].map(|number| {
        let (store, universe, tree) = (store.clone(), universe.clone(), trees[number].clone());
        thread::spawn(move || upload(&store, &universe, &tree, ["left", "right"][number]))
    });
    purger.join().unwrap();
    collector.join().unwrap();
    uploads.into_iter().for_each(|upload| drop(upload.join().unwrap()));

    check(&store, &universe, &trees);
    while store.maintain(&VAULT, NOW_NS).unwrap().more {}
    check(&store, &universe, &trees);
    drop(store);
    check(&open(seed + 1), &universe, &trees);
}

/// As an agent does: asks, sends what is absent, nodes, commit.
fn upload(store: &Store, universe: &Universe, tree: &Tree, series: &str) -> SnapshotInfo {
    let (session, _) = store.begin_upload(&VAULT, "computer", series, None).unwrap();
    let incoming = |id: &ObjectId| universe.objects[id].incoming.clone();
    for ids in tree.chunks.chunks(3) {
        let (have, _) = store.have(&VAULT, &session, ids).unwrap();
        let wanted: Vec<_> = ids.iter().zip(have).filter(|(_, have)| !have).map(|(id, _)| incoming(id)).collect();
        store.put_chunks(&VAULT, &session, &wanted).unwrap();
    }
    for ids in tree.nodes.chunks(2) {
        let nodes: Vec<_> = ids.iter().map(incoming).collect();
        store.put_nodes(&VAULT, &session, &nodes).unwrap();
    }
    let input = CommitInput { root: tree.root, summary_json: Vec::new() };
    store.commit(&VAULT, &session, &input).unwrap()
}

fn check(store: &Store, universe: &Universe, trees: &[Arc<Tree>]) {
    assert_eq!(store.recount(&VAULT).unwrap().drift, Vec::<String>::new());
    let reader = store.reader(&VAULT).unwrap();
    for id in trees.iter().flat_map(|tree| tree.chunks.iter().chain(&tree.nodes)) {
        let sent = &universe.objects[id].incoming;
        match sent.kind {
            ObjectKind::Chunk => {
                assert_eq!(reader.chunk(&ChunkId::from_bytes(*id.as_bytes())).unwrap()[..], sent.payload[..]);
            }
            ObjectKind::Node => {
                assert_eq!(reader.node(&NodeId::from_bytes(*id.as_bytes())).unwrap()[..], sent.payload[..]);
            }
        }
    }
}
