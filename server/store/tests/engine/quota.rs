//! Quotas through the store: what is refused leaves nothing, what is reserved comes back, and the figures are those of
//! the ledgers after every stop.

use crate::bed::{Bed, VAULT, begin, chunk, download, files, tree, upload};
use repo_format::id::{UploadSessionId, VaultId};
use repo_format::limits::FRAME_OVERHEAD_BYTES;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use store::{CommitInput, IncomingObject, LimitId, Limits, QuotaKind, Store, StoreError};

const OTHER: VaultId = VaultId::from_bytes([0x43; 16]);

fn user() -> LimitId {
    LimitId::new("user")
}

fn limit(store: &Store, limits: Limits) {
    store.set_limit(user(), limits);
    store.set_vault_limits(&VAULT, vec![user()]);
}

fn physical(hard: u64) -> Limits {
    Limits { physical_hard: Some(hard), ..Limits::default() }
}

fn logical(hard: u64) -> Limits {
    Limits { logical_hard: Some(hard), ..Limits::default() }
}

fn frame_bytes(object: &IncomingObject) -> u64 {
    (object.payload.len() + FRAME_OVERHEAD_BYTES) as u64
}

/// Used and reserved are what the ledger and nothing else says.
fn assert_settled(store: &Store) {
    let reading = store.quota(&user());
    let ledger = store.usage(&VAULT).unwrap();
    assert_eq!((reading.used_physical, reading.used_logical), (ledger.physical_bytes, ledger.logical_bytes));
    assert_eq!((reading.reserved_physical, reading.reserved_logical), (0, 0));
}

fn quota_error(error: StoreError) -> (QuotaKind, u64, u64, u64, u64) {
    match error {
        StoreError::QuotaExceeded { kind, used, reserved, limit_bytes, requested, .. } => {
            assert!(used + reserved + requested > limit_bytes);
            (kind, used, reserved, limit_bytes, requested)
        }
        other => panic!("{other}"),
    }
}

#[test]
fn the_last_byte_of_a_quota_is_usable() {
    let bed = Bed::new();
    let store = bed.store();
    let keys = store.id_keys(&VAULT).unwrap();
    let content = files(1, 10, 3000);
    let tree = tree(&keys, &content);
    let exact: u64 = tree.chunks.iter().map(frame_bytes).sum();
    limit(store, physical(exact));
    let session = begin(store, None);
    for object in &tree.chunks {
        let one = std::slice::from_ref(object);
        // A body is told by its own length, which is below what its frames take.
        let (admission, _) = store.admit(&VAULT, &session, object.payload.len() as u64).unwrap();
        store.put_admitted_chunks(&VAULT, &admission, one).unwrap();
    }
    assert_eq!(store.quota(&user()).reserved_physical, exact);
    let error = store.put_nodes(&VAULT, &session, &tree.nodes).unwrap_err();
    let (kind, used, reserved, limit_bytes, requested) = quota_error(error);
    assert_eq!((kind, used, reserved, limit_bytes), (QuotaKind::Physical, 0, exact, exact));
    assert!(requested > 0);
    // Sent again, it needs no room.
    store.put_chunks(&VAULT, &session, &tree.chunks).unwrap();
    assert!(store.admit(&VAULT, &session, 1).is_err());
    store.set_limit(user(), Limits::default());
    store.put_nodes(&VAULT, &session, &tree.nodes).unwrap();
    store.set_limit(user(), physical(1));
    store.commit(&VAULT, &session, &CommitInput { root: tree.root, summary_json: b"{}".to_vec() }).unwrap();
    assert_settled(store);
    bed.assert_no_drift();
}

#[test]
fn a_refused_request_leaves_nothing_and_a_full_quota_still_restores_and_commits() {
    let bed = Bed::new();
    let store = bed.store();
    let content = files(1, 30, 3000);
    let snapshot = upload(store, &content).unwrap();
    let stored = store.usage(&VAULT).unwrap();
    limit(store, physical(stored.physical_bytes));
    assert_settled(store);
    let keys = store.id_keys(&VAULT).unwrap();
    let session = begin(store, Some(&snapshot.snapshot));
    let new = chunk(&keys, b"one more byte than fits");
    quota_error(store.put_chunks(&VAULT, &session, std::slice::from_ref(&new)).unwrap_err());
    quota_error(store.admit(&VAULT, &session, 10).err().unwrap());
    assert_eq!(store.have(&VAULT, &session, &[new.id]).unwrap().0, [false]);
    assert_eq!(download(store, &snapshot).unwrap(), content);
    // An unchanged backup stores nothing, and is let through.
    let tree = tree(&keys, &content);
    store.put_chunks(&VAULT, &session, &tree.chunks).unwrap();
    store.put_nodes(&VAULT, &session, &tree.nodes).unwrap();
    store.commit(&VAULT, &session, &CommitInput { root: tree.root, summary_json: b"{}".to_vec() }).unwrap();
    assert_eq!(store.usage(&VAULT).unwrap().physical_bytes, stored.physical_bytes);
    assert_settled(store);
    // Deleting works, and the room comes back.
    assert_eq!(store.quota_refusals(), 2);
    store.purge_snapshots(&VAULT, &[snapshot.snapshot]).unwrap();
    assert_settled(store);
}

#[test]
fn logical_bytes_are_refused_at_the_nodes_and_at_the_beginning_never_at_the_commit() {
    let mut bed = Bed::new();
    let store = bed.store();
    let keys = store.id_keys(&VAULT).unwrap();
    let tree_bytes = 20 * 3000;
    limit(store, logical(2 * tree_bytes + 1));
    let trees: Vec<_> = (0..3).map(|seed| tree(&keys, &files(seed, 20, 3000))).collect();
    let sessions: Vec<UploadSessionId> = (0..3)
        .map(|number| store.begin_upload(&VAULT, "computer", &format!("series {number}"), None).unwrap().0)
        .collect();
    for (session, tree) in sessions.iter().zip(&trees) {
        store.put_chunks(&VAULT, session, &tree.chunks).unwrap();
    }
    for (session, tree) in sessions.iter().zip(&trees).take(2) {
        store.put_nodes(&VAULT, session, &tree.nodes).unwrap();
    }
    assert_eq!(store.quota(&user()).reserved_logical, 2 * tree_bytes);
    let (kind, used, reserved, ..) = quota_error(store.put_nodes(&VAULT, &sessions[2], &trees[2].nodes).unwrap_err());
    assert_eq!((kind, used, reserved), (QuotaKind::Logical, 0, 2 * tree_bytes));
    // A restart forgets nothing of it: what a session holds is what it has reserved.
    bed.crash_and_restart();
    let store = bed.store();
    limit(store, logical(2 * tree_bytes));
    assert_eq!(store.quota(&user()).reserved_logical, 2 * tree_bytes, "before the vault is opened");
    for (session, tree) in sessions.iter().zip(&trees).take(2) {
        store.commit(&VAULT, session, &CommitInput { root: tree.root, summary_json: b"{}".to_vec() }).unwrap();
    }
    assert_settled(store);
    let refused = store.begin_upload(&VAULT, "computer", "series", None).unwrap_err();
    assert_eq!(quota_error_at_begin(refused), (QuotaKind::Logical, 2 * tree_bytes, 0));
    // A root that this session never sent needs room at its commit.
    let input = CommitInput { root: trees[0].root, summary_json: b"{}".to_vec() };
    assert!(matches!(store.commit(&VAULT, &sessions[2], &input), Err(StoreError::QuotaExceeded { .. })));
    store.set_limit(user(), logical(3 * tree_bytes));
    store.commit(&VAULT, &sessions[2], &input).unwrap();
    assert_settled(store);
}

fn quota_error_at_begin(error: StoreError) -> (QuotaKind, u64, u64) {
    match error {
        StoreError::QuotaExceeded { kind, used, requested, .. } => (kind, used, requested),
        other => panic!("{other}"),
    }
}

#[test]
fn a_store_that_starts_counts_every_vault_before_it_is_opened() {
    let mut bed = Bed::new();
    bed.store().create_vault(OTHER).unwrap();
    upload(bed.store(), &files(1, 20, 2000)).unwrap();
    let usage = bed.store().usage(&VAULT).unwrap();
    for clean in [true, false] {
        if clean {
            bed.store().close().unwrap();
            bed.store = None;
            bed.restart();
        } else {
            bed.crash_and_restart();
        }
        let store = bed.store();
        for vault in [VAULT, OTHER] {
            store.set_vault_limits(&vault, vec![user()]);
        }
        assert_eq!(store.quota(&user()).used_physical, usage.physical_bytes);
        // The other vault is refused for what the first one holds.
        store.set_limit(user(), physical(usage.physical_bytes + 5));
        let session = store.begin_upload(&OTHER, "computer", "series", None).unwrap().0;
        quota_error(store.admit(&OTHER, &session, 6).err().unwrap());
        drop(store.admit(&OTHER, &session, 5).unwrap());
        store.abort_upload(&OTHER, &session).unwrap();
        assert_settled(store);
    }
}

/// What a crash took from memory is still on disk and comes back as rows: it keeps its room until it is counted.
#[test]
fn frames_that_recovery_may_find_keep_their_room() {
    let mut bed = Bed::new();
    bed.store().create_vault(OTHER).unwrap();
    let keys = bed.store().id_keys(&VAULT).unwrap();
    let tree = tree(&keys, &files(1, 100, 3000));
    let session = begin(bed.store(), None);
    bed.store().put_chunks(&VAULT, &session, &tree.chunks).unwrap();
    let received: u64 = tree.chunks.iter().map(frame_bytes).sum();
    for _ in 0..2 {
        bed.crash_and_restart();
        let store = bed.store();
        for vault in [VAULT, OTHER] {
            store.set_vault_limits(&vault, vec![user()]);
        }
        let hard = received + 10_000;
        store.set_limit(user(), physical(hard));
        let reading = store.quota(&user());
        assert!(reading.used_physical + reading.reserved_physical >= received, "{reading:?}");
        let other = store.begin_upload(&OTHER, "computer", "series", None).unwrap().0;
        // Not a byte too much is refused: what may be there is counted before that.
        quota_error(store.admit(&OTHER, &other, 10_001).err().unwrap());
        let (admission, _) = store.admit(&OTHER, &other, 10_000).unwrap();
        let reading = store.quota(&user());
        assert_eq!((reading.used_physical, reading.reserved_physical), (received, 10_000));
        drop(admission);
        store.abort_upload(&OTHER, &other).unwrap();
        assert_settled(store);
    }
}

#[test]
fn what_an_aborted_upload_had_reserved_is_free_again() {
    let bed = Bed::new();
    let store = bed.store();
    limit(store, Limits { logical_hard: Some(1 << 30), ..physical(1 << 30) });
    let keys = store.id_keys(&VAULT).unwrap();
    let tree = tree(&keys, &files(1, 20, 2000));
    let session = begin(store, None);
    let (admission, _) = store.admit(&VAULT, &session, 1 << 20).unwrap();
    store.put_admitted_chunks(&VAULT, &admission, &tree.chunks).unwrap();
    store.put_nodes(&VAULT, &session, &tree.nodes).unwrap();
    let reading = store.quota(&user());
    assert!(reading.reserved_physical >= 1 << 20 && reading.reserved_logical == 20 * 2000);
    store.abort_upload(&VAULT, &session).unwrap();
    drop(admission);
    assert_settled(store);
}

/// Sixteen uploads at once into what is left, with different chunks, some of them the same: the sum never passes the
/// limit at any moment that somebody looks, every refusal has true figures, and the room is used but for less than the
/// smallest chunk that was refused.
#[test]
fn sixteen_uploads_share_the_last_bytes_of_two_vaults() {
    const HARD: u64 = 3_000_000;
    let bed = Bed::new();
    let store = bed.store();
    store.create_vault(OTHER).unwrap();
    let partner = LimitId::new("partner");
    store.set_limit(partner.clone(), physical(HARD));
    for vault in [VAULT, OTHER] {
        store.set_vault_limits(&vault, vec![LimitId::new("user"), partner.clone()]);
    }
    let (done, largest) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        let watch = scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                let reading = store.quota(&partner);
                assert!(reading.used_physical + reading.reserved_physical <= HARD, "{reading:?}");
                let sum = [VAULT, OTHER].map(|vault| store.usage(&vault).unwrap().physical_bytes).iter().sum();
                assert!(sum <= HARD);
                largest.fetch_max(sum, Ordering::Relaxed);
            }
        });
        let uploads: Vec<_> = (0..16u64)
            .map(|number| {
                scope.spawn(move || {
                    let vault = if number % 2 == 0 { VAULT } else { OTHER };
                    let keys = store.id_keys(&vault).unwrap();
                    let series = format!("series {number}");
                    let (session, mut incarnation) = store.begin_upload(&vault, "computer", &series, None).unwrap();
                    // Threads 0 to 3 of a vault send the same chunks as 4 to 7.
                    for (_, bytes) in files(number % 8, 400, 3000) {
                        let object = [chunk(&keys, &bytes)];
                        let sent = store.admit(&vault, &session, object[0].payload.len() as u64);
                        let sent =
                            sent.and_then(|(admission, _)| store.put_admitted_chunks(&vault, &admission, &object));
                        match sent {
                            Ok(received) => incarnation = received.incarnation,
                            Err(error) => {
                                quota_error(error);
                                break;
                            }
                        }
                    }
                    store.flush(&vault, &session, incarnation).unwrap();
                })
            })
            .collect();
        uploads.into_iter().for_each(|upload| upload.join().unwrap());
        done.store(true, Ordering::Relaxed);
        watch.join().unwrap();
    });
    let sum: u64 = [VAULT, OTHER].map(|vault| store.usage(&vault).unwrap().physical_bytes).iter().sum();
    assert!(sum <= HARD && sum + 3000 + FRAME_OVERHEAD_BYTES as u64 > HARD, "{sum} of {HARD}");
    assert_eq!(store.quota(&partner).used_physical, sum);
    bed.assert_no_drift();
}
