//! The path from chunk to snapshot and back, and every refusal.

use crate::bed::{Bed, VAULT, begin, chunk, download, files, tree, upload};
use bytes::Bytes;
use repo_format::id::{ObjectId, ObjectKind, UploadSessionId, VaultId};
use store::{CommitInput, Delivered, IncomingObject, StoreError};

#[test]
fn two_versions_come_back_and_share_what_is_equal() {
    let bed = Bed::new();
    let first = files(1, 300, 3000);
    let mut second = first.clone();
    second.insert("file-00007".into(), b"changed".to_vec());
    second.remove("file-00100");
    let a = upload(bed.store(), &first).unwrap();
    let after_first = bed.store().usage(&VAULT).unwrap();
    let b = upload(bed.store(), &second).unwrap();
    let after_second = bed.store().usage(&VAULT).unwrap();
    assert_eq!(download(bed.store(), &a).unwrap(), first);
    assert_eq!(download(bed.store(), &b).unwrap(), second);
    assert_eq!(after_second.chunks, after_first.chunks + 1);
    assert!(after_second.nodes - after_first.nodes <= 4, "two changed leaves and their parents");
    assert_eq!(after_first.logical_bytes, first.values().map(|bytes| bytes.len() as u64).sum::<u64>());
    assert_eq!(bed.store().snapshots(&VAULT).unwrap().len(), 2);
    assert_eq!(after_second.pending_bytes, 0);
    bed.assert_no_drift();
}

#[test]
fn a_commit_is_idempotent_by_its_session() {
    let bed = Bed::new();
    let keys = bed.store().id_keys(&VAULT).unwrap();
    let tree = tree(&keys, &files(2, 3, 100));
    let session = begin(bed.store(), None);
    bed.store().put_chunks(&VAULT, &session, &tree.chunks).unwrap();
    bed.store().put_nodes(&VAULT, &session, &tree.nodes).unwrap();
    let input = CommitInput { root: tree.root, summary_json: b"{}".to_vec() };
    let first = bed.store().commit(&VAULT, &session, &input).unwrap();
    assert_eq!(bed.store().commit(&VAULT, &session, &input).unwrap(), first);
    let other = CommitInput { root: repo_format::id::NodeId::from_bytes([1; 32]), ..input };
    assert!(matches!(bed.store().commit(&VAULT, &session, &other), Err(StoreError::Conflict(_))));
    assert_eq!(bed.store().snapshots(&VAULT).unwrap().len(), 1);
    // The session has ended: nothing more goes into it.
    assert!(matches!(bed.store().put_chunks(&VAULT, &session, &tree.chunks), Err(StoreError::NoSuchSession(_))));
}

#[test]
fn nodes_with_missing_children_are_refused_with_the_list() {
    let bed = Bed::new();
    let keys = bed.store().id_keys(&VAULT).unwrap();
    let tree = tree(&keys, &files(3, 40, 500));
    let session = begin(bed.store(), None);
    bed.store().put_chunks(&VAULT, &session, &tree.chunks[2..]).unwrap();
    let before = bed.store().usage(&VAULT).unwrap();
    let mut expected: Vec<ObjectId> = tree.chunks[..2].iter().map(|chunk| chunk.id).collect();
    expected.sort();
    match bed.store().put_nodes(&VAULT, &session, &tree.nodes) {
        Err(StoreError::Missing(missing)) => assert_eq!(missing, expected),
        other => panic!("{other:?}"),
    }
    assert_eq!(bed.store().usage(&VAULT).unwrap().nodes, before.nodes);
    let commit = CommitInput { root: tree.root, summary_json: Vec::new() };
    assert!(matches!(bed.store().commit(&VAULT, &session, &commit), Err(StoreError::Missing(_))));
    bed.store().put_chunks(&VAULT, &session, &tree.chunks[..2]).unwrap();
    bed.store().put_nodes(&VAULT, &session, &tree.nodes).unwrap();
    bed.store().commit(&VAULT, &session, &commit).unwrap();
    bed.assert_no_drift();
}

#[test]
fn what_is_wrong_is_refused_and_leaves_nothing() {
    let bed = Bed::new();
    let keys = bed.store().id_keys(&VAULT).unwrap();
    let session = begin(bed.store(), None);
    let good = chunk(&keys, &[5; 4000]);
    let put = |object: IncomingObject| bed.store().put_chunks(&VAULT, &session, &[good.clone(), object]);
    let wrong_id = IncomingObject { id: ObjectId::from_bytes([9; 32]), ..good.clone() };
    assert!(matches!(put(wrong_id), Err(StoreError::IdMismatch(_))));
    // A bomb: unpacks to more than it declares.
    let bomb = chunk(&keys, &vec![0; 4 << 20]);
    assert!(matches!(put(IncomingObject { plain_len: 1000, ..bomb.clone() }), Err(StoreError::BadCompression { .. })));
    assert!(matches!(put(IncomingObject { plain_len: u32::MAX, ..bomb.clone() }), Err(StoreError::BadRecord { .. })));
    assert!(matches!(put(IncomingObject { plain_len: 0, ..bomb.clone() }), Err(StoreError::BadRecord { .. })));
    assert!(matches!(put(IncomingObject { codec: 77, ..bomb.clone() }), Err(StoreError::BadRecord { .. })));
    let garbage = IncomingObject { payload: Bytes::from_static(b"not zstd"), ..bomb.clone() };
    assert!(matches!(put(garbage), Err(StoreError::BadCompression { .. })));
    // A chunk's bytes can never pass as a node, nor the other way round.
    assert!(matches!(put(IncomingObject { kind: ObjectKind::Node, ..bomb }), Err(StoreError::BadRecord { .. })));
    let as_node = IncomingObject { kind: ObjectKind::Node, ..good.clone() };
    assert!(matches!(bed.store().put_nodes(&VAULT, &session, &[as_node]), Err(StoreError::IdMismatch(_))));
    // Nothing of all these requests was kept, not even the good chunk beside the bad one.
    assert_eq!(bed.store().have(&VAULT, &session, &[good.id]).unwrap().0, [false]);
    assert_eq!(bed.store().usage(&VAULT).unwrap().physical_bytes, 0);
    // A wrong chunk under a stored id is refused like any other.
    bed.store().put_chunks(&VAULT, &session, std::slice::from_ref(&good)).unwrap();
    let other = chunk(&keys, &[6; 4000]);
    assert!(matches!(put(IncomingObject { id: good.id, ..other }), Err(StoreError::IdMismatch(_))));
}

#[test]
fn vaults_know_nothing_of_each_other() {
    let bed = Bed::new();
    let other = VaultId::from_bytes([0x43; 16]);
    bed.store().create_vault(other).unwrap();
    let snapshot = upload(bed.store(), &files(4, 5, 200)).unwrap();
    let root = ObjectId::from(snapshot.root);
    let mut outcome = None;
    bed.store()
        .read_objects(&other, &[root], |delivered| {
            outcome = Some(delivered);
            Ok(())
        })
        .unwrap();
    assert_eq!(outcome, Some(Delivered::Absent(root)));
    let (session, _) = bed.store().begin_upload(&other, "c", "s", None).unwrap();
    assert_eq!(bed.store().have(&other, &session, &[root]).unwrap().0, [false]);
    assert!(matches!(bed.store().snapshot(&other, &snapshot.snapshot), Err(StoreError::NoSuchSnapshot(_))));
    assert!(matches!(bed.store().have(&VAULT, &session, &[root]), Err(StoreError::NoSuchSession(_))));
    let keys = |vault| bed.store().id_keys(vault).unwrap().chunk_id(b"same bytes");
    assert_ne!(keys(&VAULT), keys(&other));
    let unknown = VaultId::from_bytes([9; 16]);
    assert!(matches!(bed.store().usage(&unknown), Err(StoreError::NoSuchVault(_))));
}

#[test]
fn a_flush_of_another_incarnation_is_refused() {
    let mut bed = Bed::new();
    let (session, incarnation) = bed.store().begin_upload(&VAULT, "c", "s", None).unwrap();
    bed.store().flush(&VAULT, &session, incarnation).unwrap();
    bed.crash_and_restart();
    assert!(matches!(
        bed.store().flush(&VAULT, &session, incarnation),
        Err(StoreError::IncarnationChanged { incarnation: now }) if now != incarnation
    ));
    let nobody = UploadSessionId::from_bytes([1; 16]);
    assert!(matches!(bed.store().flush(&VAULT, &nobody, incarnation), Err(StoreError::NoSuchSession(_))));
}

#[test]
fn an_upload_session_ends_without_a_trace() {
    let bed = Bed::new();
    let keys = bed.store().id_keys(&VAULT).unwrap();
    let tree = tree(&keys, &files(5, 30, 100));
    let session = begin(bed.store(), None);
    bed.store().put_chunks(&VAULT, &session, &tree.chunks).unwrap();
    bed.store().put_nodes(&VAULT, &session, &tree.nodes).unwrap();
    assert_eq!(bed.store().live_sessions(&VAULT).unwrap(), 1);
    bed.store().abort_upload(&VAULT, &session).unwrap();
    assert_eq!(bed.store().live_sessions(&VAULT).unwrap(), 0);
    assert!(matches!(bed.store().upload_session(&VAULT, &session), Err(StoreError::NoSuchSession(_))));
    bed.assert_no_drift();
}

#[test]
fn rows_are_read_over_many_pages() {
    let bed = Bed::new();
    let content = files(6, 2500, 20);
    let snapshot = upload(bed.store(), &content).unwrap();
    let recount = bed.store().recount(&VAULT).unwrap();
    assert_eq!(recount.drift, Vec::<String>::new());
    assert_eq!(recount.ledger.chunks, 2500);
    assert_eq!(recount.objects.len() as u64, recount.ledger.chunks + recount.ledger.nodes);
    assert_eq!(download(bed.store(), &snapshot).unwrap(), content);
}
