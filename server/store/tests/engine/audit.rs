//! Audits: what they find, what they correct, and that live traffic is never taken for drift.

use crate::bed::{Bed, VAULT, begin, download, files, master, settings, tree, upload};
use repo_format::codec::{Reader, put_varint};
use repo_format::id::ObjectId;
use std::sync::atomic::{AtomicBool, Ordering};
use store::meta::{Batch, MetaStore, RocksMeta, Table};
use store::world::World;
use store::{AuditRepair, AuditReport, CommitInput, Store};

/// Changes the reference count of an object in the index of a closed store.
fn tamper(bed: &mut Bed, id: &ObjectId, change: i64) {
    bed.store().close().unwrap();
    bed.store = None;
    {
        let meta = RocksMeta::open(&bed.directory.path().join("index"), 32 << 20).unwrap();
        let row = meta.get(&VAULT, Table::Object, id.as_bytes()).unwrap().unwrap();
        let mut reader = Reader::new("object row", &row);
        let mut out = reader.take(4).unwrap().to_vec();
        for field in 0..7 {
            let number = reader.varint().unwrap();
            put_varint(&mut out, if field == 5 { number.checked_add_signed(change).unwrap() } else { number });
        }
        let mut batch = Batch::default();
        batch.put(Table::Object, *id.as_bytes(), out);
        let ticket = meta.write(&VAULT, batch).unwrap();
        meta.sync(ticket).unwrap();
    }
    bed.restart();
}

fn audit(bed: &Bed, repair: AuditRepair) -> AuditReport {
    bed.store().audit(&VAULT, repair, || true).unwrap()
}

#[test]
fn a_sound_vault_has_nothing_to_report() {
    let bed = Bed::with(|settings| settings.audit_slice_objects = 100);
    upload(bed.store(), &files(30, 900, 200)).unwrap();
    upload(bed.store(), &files(31, 90, 2000)).unwrap();
    let report = audit(&bed, AuditRepair::Everything);
    assert!(report.is_clean() && report.complete && report.lines.is_empty(), "{report:?}");
    let recount = bed.store().recount(&VAULT).unwrap();
    assert_eq!(report.objects, recount.objects.len() as u64);
    assert_eq!(report.references, recount.objects.values().sum::<u64>());
    let stopped = bed.store().audit(&VAULT, AuditRepair::TooLow, || false).unwrap();
    assert!(!stopped.complete);
}

#[test]
fn low_counts_are_raised_at_once_and_high_ones_only_when_asked() {
    let mut bed = Bed::with(|settings| settings.audit_slice_objects = 20);
    let content = files(32, 50, 2000);
    let snapshot = upload(bed.store(), &content).unwrap();
    let keys = bed.store().id_keys(&VAULT).unwrap();
    let all = tree(&keys, &content);
    tamper(&mut bed, &all.chunks[3].id, -1);
    tamper(&mut bed, &all.chunks[4].id, 1);
    let report = audit(&bed, AuditRepair::TooLow);
    assert_eq!((report.too_low, report.too_high, report.lowered), (1, 1, 0), "{report:?}");
    let report = audit(&bed, AuditRepair::Everything);
    assert_eq!((report.too_low, report.too_high, report.lowered), (0, 1, 1), "{report:?}");
    assert!(audit(&bed, AuditRepair::Everything).is_clean());
    bed.assert_no_drift();
    assert_eq!(download(bed.store(), &snapshot).unwrap(), content);
}

#[test]
fn a_node_that_cannot_be_read_excuses_counts_and_is_settled_when_nothing_needs_it() {
    let mut bed = Bed::new();
    let (content, other) = (files(33, 300, 300), files(34, 12, 300));
    let snapshot = upload(bed.store(), &content).unwrap();
    let keys = bed.store().id_keys(&VAULT).unwrap();
    // A tree nobody commits: its root has no reference.
    let loose = tree(&keys, &other);
    let session = begin(bed.store(), None);
    bed.store().put_chunks(&VAULT, &session, &loose.chunks).unwrap();
    bed.store().put_nodes(&VAULT, &session, &loose.nodes).unwrap();
    bed.store().close().unwrap();
    bed.crash_and_restart();
    crate::care::rot_object(&bed, &ObjectId::from(loose.root));
    let report = audit(&bed, AuditRepair::TooLow);
    assert_eq!((report.unreadable_nodes, report.unreadable_removed), (1, 0), "{report:?}");
    assert!(report.is_clean(), "{report:?}");
    bed.assert_no_drift();
    // What an upload session holds stays.
    assert_eq!(audit(&bed, AuditRepair::Everything).unreadable_removed, 0);
    bed.store().abort_upload(&VAULT, &session).unwrap();
    let report = audit(&bed, AuditRepair::Everything);
    assert_eq!((report.unreadable_removed, report.lowered), (1, 12), "{report:?}");
    bed.assert_no_drift();
    assert!(audit(&bed, AuditRepair::Everything).is_clean());
    assert_eq!(download(bed.store(), &snapshot).unwrap(), content);
}

#[test]
fn an_object_without_a_row_becomes_a_damaged_one_and_heals() {
    let mut bed = Bed::new();
    let content = files(35, 40, 1000);
    let snapshot = upload(bed.store(), &content).unwrap();
    let keys = bed.store().id_keys(&VAULT).unwrap();
    let all = tree(&keys, &content);
    bed.store().close().unwrap();
    bed.store = None;
    {
        let meta = RocksMeta::open(&bed.directory.path().join("index"), 32 << 20).unwrap();
        let mut batch = Batch::default();
        batch.delete(Table::Object, *all.chunks[7].id.as_bytes());
        meta.sync(meta.write(&VAULT, batch).unwrap()).unwrap();
    }
    bed.restart();
    let report = audit(&bed, AuditRepair::Everything);
    assert_eq!(report.missing, 1, "{report:?}");
    bed.assert_no_drift();
    assert_eq!(bed.store().damage(&VAULT, 9).unwrap().snapshots[0].paths.len(), 1);
    upload(bed.store(), &content).unwrap();
    assert_eq!(bed.store().damage(&VAULT, 9).unwrap().objects_total, 0);
    assert_eq!(download(bed.store(), &snapshot).unwrap(), content);
    bed.assert_no_drift();
}

#[test]
fn uploads_and_purges_beside_an_audit_are_no_drift() {
    let bed = Bed::with(|settings| settings.audit_slice_objects = 2500);
    upload(bed.store(), &files(36, 3000, 50)).unwrap();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let store: &Store = bed.store();
        scope.spawn(|| {
            let mut number = 0;
            while !done.load(Ordering::Relaxed) {
                // Two trees with most content in common, so that counts go up and down on shared objects.
                let mut content = files(36, 200 + number % 7, 50);
                content.extend(
                    files(1000 + number as u64, 20, 50).into_iter().map(|(name, bytes)| (format!("x{name}"), bytes)),
                );
                let snapshot = upload(store, &content).unwrap();
                if number % 2 == 0 {
                    store.purge_snapshots(&VAULT, &[snapshot.snapshot]).unwrap();
                }
                number += 1;
            }
        });
        for _ in 0..6 {
            let report = store.audit(&VAULT, AuditRepair::Everything, || {
                std::thread::sleep(std::time::Duration::from_millis(1));
                true
            });
            let report = report.unwrap();
            assert!(report.is_clean() && report.complete, "{report:?}");
        }
        done.store(true, Ordering::Relaxed);
    });
    bed.assert_no_drift();
    let report = audit(&bed, AuditRepair::TooLow);
    assert_eq!((report.is_clean(), report.unsettled), (true, 0));
}

#[test]
fn a_rebuild_without_a_pack_costs_its_files_only() {
    let mut bed = Bed::new();
    let (first, second) = (files(37, 60, 3000), files(38, 60, 3000));
    let a = upload(bed.store(), &first).unwrap();
    bed.store().close().unwrap();
    bed.crash_and_restart();
    let b = upload(bed.store(), &second).unwrap();
    bed.store().close().unwrap();
    bed.store = None;
    // The data pack of the first snapshot is gone.
    let packs = bed.packs();
    std::fs::remove_file(&packs[0]).unwrap();
    std::fs::remove_dir_all(bed.directory.path().join("index")).unwrap();
    Store::rebuild_index(settings(bed.directory.path()), World::system(), &master(), |_, _| {}).unwrap();
    bed.restart();
    bed.assert_no_drift();
    assert_eq!(download(bed.store(), &b).unwrap(), second);
    let report = bed.store().damage(&VAULT, 1000).unwrap();
    assert_eq!((report.objects_total, report.snapshots.len()), (60, 1));
    assert_eq!(report.snapshots[0].snapshot, a.snapshot);
    assert_eq!(report.snapshots[0].paths.len(), 60);
    assert!(audit(&bed, AuditRepair::Everything).is_clean());
    // The next backup that has the files brings the snapshot back.
    let keys = bed.store().id_keys(&VAULT).unwrap();
    let all = tree(&keys, &first);
    let session = begin(bed.store(), Some(&a.snapshot));
    assert_eq!(bed.store().damaged_in_base(&VAULT, &session).unwrap().len(), 60);
    bed.store().put_chunks(&VAULT, &session, &all.chunks).unwrap();
    bed.store().put_nodes(&VAULT, &session, &all.nodes).unwrap();
    bed.store().commit(&VAULT, &session, &CommitInput { root: all.root, summary_json: Vec::new() }).unwrap();
    assert_eq!(download(bed.store(), &a).unwrap(), first);
    bed.assert_no_drift();
}
