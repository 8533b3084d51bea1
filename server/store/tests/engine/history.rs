//! Random histories against a model: whatever was committed comes back, whatever happened in between.

use crate::bed::{Bed, Files, VAULT, begin, download, files, master, settings, tree, upload};
use proptest::prelude::*;
use std::collections::BTreeMap;
use store::world::World;
use store::{SnapshotInfo, Store};

#[derive(Clone, Debug)]
enum Step {
    /// Upload and commit a tree.
    Snapshot { seed: u64, files: usize },
    /// Take the newest tree, change some files, commit.
    Change { seed: u64, files: usize },
    /// Begin an upload and stop half way.
    Half { seed: u64, chunks: usize, nodes: bool },
    /// Stop without closing.
    Crash,
    /// Stop in order.
    Close,
    /// Lose the index and rebuild it.
    Rebuild,
}

fn any_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => (any::<u64>(), 0usize..200).prop_map(|(seed, files)| Step::Snapshot { seed, files }),
        3 => (any::<u64>(), 1usize..20).prop_map(|(seed, files)| Step::Change { seed, files }),
        2 => (any::<u64>(), 0usize..40, any::<bool>()).prop_map(|(seed, chunks, nodes)| Step::Half { seed, chunks, nodes }),
        2 => Just(Step::Crash),
        1 => Just(Step::Close),
        1 => Just(Step::Rebuild),
    ]
}

#[derive(Default)]
struct Model {
    snapshots: Vec<(SnapshotInfo, Files)>,
}

impl Model {
    fn take(&mut self, bed: &Bed, content: Files) {
        let snapshot = upload(bed.store(), &content).unwrap();
        self.snapshots.push((snapshot, content));
    }

    fn check(&self, bed: &Bed) {
        let listed: BTreeMap<_, _> =
            bed.store().snapshots(&VAULT).unwrap().into_iter().map(|record| (record.snapshot, record)).collect();
        assert_eq!(listed.len(), self.snapshots.len());
        for (snapshot, content) in &self.snapshots {
            assert_eq!(listed.get(&snapshot.snapshot), Some(snapshot));
            assert_eq!(&download(bed.store(), snapshot).unwrap(), content);
        }
        let logical: u64 =
            self.snapshots.iter().flat_map(|(_, content)| content.values()).map(|bytes| bytes.len() as u64).sum();
        assert_eq!(bed.store().usage(&VAULT).unwrap().logical_bytes, logical);
        bed.assert_no_drift();
    }
}

fn step(bed: &mut Bed, model: &mut Model, step: Step) {
    match step {
        Step::Snapshot { seed, files: count } => model.take(bed, files(seed, count, 300)),
        Step::Change { seed, files: count } => {
            let mut content = model.snapshots.last().map(|(_, content)| content.clone()).unwrap_or_default();
            content.extend(files(seed, count, 200));
            model.take(bed, content);
        }
        Step::Half { seed, chunks, nodes } => {
            let keys = bed.store().id_keys(&VAULT).unwrap();
            let tree = tree(&keys, &files(seed, 40, 250));
            let base = model.snapshots.last().map(|(snapshot, _)| snapshot.snapshot);
            let session = begin(bed.store(), base.as_ref());
            bed.store().put_chunks(&VAULT, &session, &tree.chunks[..chunks]).unwrap();
            let stored = bed.store().put_nodes(&VAULT, &session, &tree.nodes);
            assert!(nodes || stored.is_ok() || chunks < 40);
        }
        Step::Crash => bed.crash_and_restart(),
        Step::Close => {
            bed.store().close().unwrap();
            bed.crash_and_restart();
        }
        Step::Rebuild => {
            // What was received becomes rows when the store closes.
            bed.store().close().unwrap();
            bed.crash_and_restart();
            let before = bed.store().recount(&VAULT).unwrap();
            bed.store = None;
            std::fs::remove_dir_all(bed.directory.path().join("index")).unwrap();
            Store::rebuild_index(settings(bed.directory.path()), World::system(), &master(), |_, _| {}).unwrap();
            bed.restart();
            let after = bed.store().recount(&VAULT).unwrap();
            assert_eq!((after.ledger, after.snapshots), (before.ledger, before.snapshots));
            assert_eq!(after.objects, before.objects);
        }
    }
}

proptest! {
    // Proptest prints the failing history and the seed that repeats it.
    #![proptest_config(ProptestConfig { cases: 12, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn committed_snapshots_survive_every_history(steps in proptest::collection::vec(any_step(), 1..14)) {
        let mut bed = Bed::new();
        let mut model = Model::default();
        for next in steps {
            step(&mut bed, &mut model, next);
        }
        model.check(&bed);
    }
}
