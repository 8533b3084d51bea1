//! The journal on real files: chain, torn tail, generations.

use super::*;
use repo_format::crypto::default_aead;
use repo_format::keys::{DataKey, VaultRootKey};

const VAULT: VaultId = VaultId::from_bytes([1; 16]);

fn keys() -> VaultKeys {
    VaultKeys { root: VaultRootKey::from_bytes([1; 32]), data: vec![DataKey::new(1, [2; 32])] }
}

fn open(directory: &Path, epoch: u32) -> Result<(Journal, Vec<Vec<u8>>), StoreError> {
    open_covered(directory, epoch, 0, false).map(|opened| (opened.journal, payloads(opened.records)))
}

fn open_covered(directory: &Path, epoch: u32, covered: u64, go_on: bool) -> Result<Opened, StoreError> {
    let keys = keys();
    let sealing = Sealing { aead: default_aead(), keys: &keys };
    Journal::open(World::system(), VAULT, directory, epoch, sealing, covered, go_on)
}

fn payloads(records: Vec<JournalRecord>) -> Vec<Vec<u8>> {
    records.into_iter().map(|record| record.payload).collect()
}

fn append(journal: &mut Journal, payload: &[u8]) -> Result<u64, StoreError> {
    let keys = keys();
    journal.append(Sealing { aead: default_aead(), keys: &keys }, &[(RecordKind::Commit, payload.to_vec())])
}

fn begin(journal: &mut Journal, payloads: &[&[u8]]) -> Result<u64, StoreError> {
    let keys = keys();
    let records = payloads.iter().map(|payload| (RecordKind::Commit, payload.to_vec())).collect();
    journal.begin_generation(Sealing { aead: default_aead(), keys: &keys }, records)
}

fn directory() -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    std::fs::create_dir(journal_directory(directory.path())).unwrap();
    directory
}

fn segments(directory: &Path) -> Vec<PathBuf> {
    let mut paths: Vec<PathBuf> =
        std::fs::read_dir(journal_directory(directory)).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths
}

#[test]
fn records_come_back_in_order_over_restarts() {
    let directory = directory();
    for epoch in 1..4u8 {
        let (mut journal, payloads) = open(directory.path(), epoch.into()).unwrap();
        assert_eq!(payloads.len(), 2 * usize::from(epoch - 1));
        append(&mut journal, &[epoch]).unwrap();
        assert_eq!(append(&mut journal, &[epoch + 100]).unwrap(), 2 * u64::from(epoch));
    }
    let (_, payloads) = open(directory.path(), 4).unwrap();
    assert_eq!(payloads, [[1], [101], [2], [102], [3], [103]]);
}

#[test]
fn one_start_appends_to_one_segment_and_several_records_get_their_own() {
    let directory = directory();
    let keys = keys();
    let sealing = Sealing { aead: default_aead(), keys: &keys };
    let (mut journal, _) = open(directory.path(), 1).unwrap();
    append(&mut journal, b"a").unwrap();
    append(&mut journal, b"b").unwrap();
    assert_eq!(segments(directory.path()).len(), 1);
    let several = [b"c", b"d"].map(|payload| (RecordKind::Tag, payload.to_vec()));
    assert_eq!(journal.append(sealing, &several).unwrap(), 4);
    append(&mut journal, b"e").unwrap();
    assert_eq!(segments(directory.path()).len(), 2);
    // A segment found at start is never appended to.
    let (mut journal, payloads) = open(directory.path(), 2).unwrap();
    assert_eq!(payloads, [b"a", b"b", b"c", b"d", b"e"]);
    append(&mut journal, b"f").unwrap();
    assert_eq!(segments(directory.path()).len(), 3);
    assert_eq!(open(directory.path(), 3).unwrap().1, [b"a", b"b", b"c", b"d", b"e", b"f"]);
}

/// Segments of the records a b c, d e and f, by three starts.
fn three_segments() -> (tempfile::TempDir, Vec<PathBuf>) {
    let directory = directory();
    for (epoch, payloads) in [(1, &[b"a", b"b", b"c"][..]), (2, &[b"d", b"e"]), (3, &[b"f"])] {
        let (mut journal, _) = open(directory.path(), epoch).unwrap();
        for payload in payloads {
            append(&mut journal, *payload).unwrap();
        }
    }
    let paths = segments(directory.path());
    assert_eq!(paths.len(), 3);
    (directory, paths)
}

fn damaged_in(directory: &Path) -> Vec<PathBuf> {
    segments(directory).into_iter().filter(|path| path.to_str().unwrap().ends_with(".damaged")).collect()
}

const FIRST_RECORD: usize = 64;
const RECORD_BYTES: usize = 101;

#[test]
fn damage_that_the_rows_contain_costs_nothing_and_a_new_generation_sets_the_file_aside() {
    let (directory, paths) = three_segments();
    for path in &paths {
        let whole = std::fs::read(path).unwrap();
        let flips = (0..whole.len()).step_by(7).map(|at| {
            let mut flipped = whole.clone();
            flipped[at] ^= 1;
            flipped
        });
        let cuts = (0..whole.len()).step_by(13).map(|len| whole[..len].to_vec());
        for bad in flips.chain(cuts).chain([vec![0; whole.len()]]) {
            std::fs::write(path, &bad).unwrap();
            match open_covered(directory.path(), 4, 6, false) {
                Ok(opened) => {
                    assert!(opened.journal.wants_healing());
                    assert_eq!(opened.journal.sequence(), 6);
                    assert!(opened.damage[0].contains(path.to_str().unwrap()), "{:?}", opened.damage);
                }
                // Cut between two records it looks as if the rest were missing.
                Err(StoreError::Unavailable { reason, .. }) => {
                    assert_eq!((bad.len() - FIRST_RECORD) % RECORD_BYTES, 0);
                    assert!(reason.contains("missing"), "{reason}");
                }
                Err(error) => panic!("{error}"),
            }
        }
        std::fs::write(path, whole).unwrap();
    }
    std::fs::write(&paths[1], b"rot").unwrap();
    let mut journal = open_covered(directory.path(), 4, 6, false).unwrap().journal;
    assert!(matches!(append(&mut journal, b"g"), Err(StoreError::Unknown(_))));
    assert_eq!(begin(&mut journal, &[b"all", b"states"]).unwrap(), 9);
    assert!(!journal.wants_healing());
    let aside = damaged_in(directory.path());
    assert_eq!(aside.len(), 1);
    assert_eq!(std::fs::read(&aside[0]).unwrap(), b"rot");
    assert_eq!(segments(directory.path()).len(), 2);
    assert_eq!(open(directory.path(), 5).unwrap().1, [&b"all"[..], b"states"]);
}

#[test]
fn damage_beyond_the_rows_stops_but_for_a_rebuild_which_keeps_every_other_record() {
    let (directory, paths) = three_segments();
    let lost = |number: usize| -> Vec<Vec<u8>> {
        b"abcdef".iter().enumerate().filter(|(index, _)| *index != number).map(|(_, byte)| vec![*byte]).collect()
    };
    for (number, (path, record)) in [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (2, 0)].into_iter().enumerate() {
        let path = &paths[path];
        let whole = std::fs::read(path).unwrap();
        let mut flipped = whole.clone();
        flipped[FIRST_RECORD + record * RECORD_BYTES + 85] ^= 0x10;
        std::fs::write(path, &flipped).unwrap();
        match open_covered(directory.path(), 4, number as u64, false) {
            Err(StoreError::Unavailable { reason, .. }) => {
                assert!(reason.contains(path.to_str().unwrap()) && reason.contains("rebuild-index"), "{reason}");
            }
            other => panic!("{:?}", other.err()),
        }
        let opened = open_covered(directory.path(), 4, 0, true).unwrap();
        assert!(opened.journal.wants_healing());
        assert!(opened.damage[0].contains(path.to_str().unwrap()), "{:?}", opened.damage);
        assert!(opened.damage[0].contains(&format!("records {0} to {0} are lost", number + 1)), "{:?}", opened.damage);
        assert_eq!(payloads(opened.records), lost(number));
        std::fs::write(path, whole).unwrap();
    }
}

#[test]
fn a_damaged_header_costs_no_record() {
    let (directory, paths) = three_segments();
    let mut bytes = std::fs::read(&paths[1]).unwrap();
    bytes[3] ^= 1;
    std::fs::write(&paths[1], bytes).unwrap();
    let opened = open_covered(directory.path(), 4, 2, false).unwrap();
    assert!(opened.journal.wants_healing());
    assert_eq!(payloads(opened.records), [b"c", b"d", b"e", b"f"]);
}

#[test]
fn a_torn_tail_is_no_record_and_the_journal_goes_on_behind_it() {
    let (directory, paths) = three_segments();
    let whole = std::fs::read(&paths[1]).unwrap();
    std::fs::remove_file(&paths[2]).unwrap();
    for len in FIRST_RECORD + RECORD_BYTES + 1..whole.len() {
        let mut torn = whole[..len].to_vec();
        std::fs::write(&paths[1], &torn).unwrap();
        assert_eq!(open(directory.path(), 4).unwrap().1, [b"a", b"b", b"c", b"d"]);
        torn.resize(whole.len(), 0);
        if torn == whole {
            // What is sealed ends in a zero once in 256 times: zeros in its place tear nothing.
            continue;
        }
        std::fs::write(&paths[1], &torn).unwrap();
        let (mut journal, payloads) = open(directory.path(), 4).unwrap();
        assert_eq!(payloads, [b"a", b"b", b"c", b"d"]);
        assert!(!journal.wants_healing());
        append(&mut journal, b"g").unwrap();
        // What follows says that nothing acknowledged was torn.
        let opened = open_covered(directory.path(), 5, 0, true).unwrap();
        assert_eq!(opened.damage, Vec::<String>::new());
        assert_eq!(super::tests::payloads(opened.records), [b"a", b"b", b"c", b"d", b"g"]);
        std::fs::remove_file(segments(directory.path()).pop().unwrap()).unwrap();
        // The same bytes are damage when the rows contain the record, and a rebuild says what it cannot know.
        assert!(open_covered(directory.path(), 5, 5, false).unwrap().journal.wants_healing());
        assert_eq!(open_covered(directory.path(), 5, 0, true).unwrap().damage.len(), 1);
    }
}

#[test]
fn missing_segments_are_not_gone_on_without_but_by_a_rebuild() {
    for gone in 0..3 {
        let (directory, paths) = three_segments();
        std::fs::remove_file(&paths[gone]).unwrap();
        match open_covered(directory.path(), 4, 6, false) {
            Err(StoreError::Unavailable { reason, .. }) => {
                assert!(reason.contains("restore the missing journal files"))
            }
            other => panic!("{:?}", other.err()),
        }
        if gone == 2 {
            continue;
        }
        let opened = open_covered(directory.path(), 4, 0, true).unwrap();
        assert!(opened.journal.wants_healing());
        assert_eq!(opened.records.len(), [3, 4][gone]);
    }
}

#[test]
fn what_a_crash_leaves_of_a_segment_that_never_came_up_is_removed_with_the_generation() {
    let (directory, paths) = three_segments();
    let mut left = paths[0].clone().into_os_string();
    left.push(".new");
    std::fs::write(&left, b"half").unwrap();
    let (mut journal, payloads) = open(directory.path(), 4).unwrap();
    assert_eq!(payloads.len(), 6);
    begin(&mut journal, &[b"all"]).unwrap();
    assert_eq!(segments(directory.path()).len(), 1);
}

#[test]
fn a_damaged_generation_is_still_the_journal_when_the_one_before_is_gone() {
    let directory = directory();
    let (mut journal, _) = open(directory.path(), 1).unwrap();
    append(&mut journal, b"old").unwrap();
    let old = segments(directory.path()).remove(0);
    let old_bytes = std::fs::read(&old).unwrap();
    begin(&mut journal, &[b"kept", b"also kept"]).unwrap();
    let new = segments(directory.path()).remove(0);
    // The end mark is its last record.
    let mut bytes = std::fs::read(&new).unwrap();
    let at = bytes.len() - 10;
    bytes[at] ^= 1;
    std::fs::write(&new, &bytes).unwrap();
    let opened = open_covered(directory.path(), 2, 0, true).unwrap();
    assert_eq!(payloads(opened.records), [&b"kept"[..], b"also kept"]);
    // With its predecessor beside it, it had not replaced it yet.
    std::fs::write(&old, old_bytes).unwrap();
    assert_eq!(payloads(open_covered(directory.path(), 2, 0, true).unwrap().records), [b"old"]);
}

#[test]
fn a_generation_counts_only_with_its_end_mark() {
    let directory = directory();
    let (mut journal, _) = open(directory.path(), 1).unwrap();
    append(&mut journal, b"old").unwrap();
    let old = segments(directory.path());
    let old_bytes = std::fs::read(&old[0]).unwrap();
    begin(&mut journal, &[b"kept", b"also kept"]).unwrap();
    append(&mut journal, b"later").unwrap();
    assert_eq!(open(directory.path(), 2).unwrap().1, [&b"kept"[..], b"also kept", b"later"]);
    assert!(!old[0].exists());
    // Crash before the old generation was removed: the new one still is the journal.
    std::fs::write(&old[0], &old_bytes).unwrap();
    assert_eq!(open(directory.path(), 3).unwrap().1, [&b"kept"[..], b"also kept", b"later"]);
    // A generation without its end mark does not count, and its number is not used again.
    let keys = keys();
    let (mut journal, _) = open(directory.path(), 4).unwrap();
    let sealing = Sealing { aead: default_aead(), keys: &keys };
    journal.write_segment(sealing, 9, &[(RecordKind::Commit, b"half".to_vec())]).unwrap();
    let (mut journal, payloads) = open(directory.path(), 5).unwrap();
    assert_eq!(payloads, [&b"kept"[..], b"also kept", b"later"]);
    begin(&mut journal, &[b"newest"]).unwrap();
    assert_eq!(journal.generation, 10);
    assert_eq!(open(directory.path(), 6).unwrap().1, [b"newest"]);
}
