//! Many uploads at once into one vault.

use crate::bed::{Bed, VAULT, download, files, upload};
use std::thread;

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
