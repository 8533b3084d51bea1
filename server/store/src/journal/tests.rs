//! The journal on real files: chain, torn tail, generations.

use super::*;
use repo_format::crypto::default_aead;
use repo_format::keys::{DataKey, VaultRootKey};

const VAULT: VaultId = VaultId::from_bytes([1; 16]);

fn keys() -> VaultKeys {
    VaultKeys { root: VaultRootKey::from_bytes([1; 32]), data: vec![DataKey::new(1, [2; 32])] }
}

fn open(directory: &Path, epoch: u32) -> Result<(Journal, Vec<Vec<u8>>), StoreError> {
    let keys = keys();
    let mut payloads = Vec::new();
    let sealing = Sealing { aead: default_aead(), keys: &keys };
    let journal = Journal::open(World::system(), VAULT, directory, epoch, sealing, |record| {
        payloads.push(record.payload);
        Ok(())
    })?;
    Ok((journal, payloads))
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
fn a_damaged_segment_is_an_error_that_names_the_file() {
    let directory = directory();
    let (mut journal, _) = open(directory.path(), 1).unwrap();
    for payload in [b"a", b"b", b"c"] {
        append(&mut journal, payload).unwrap();
    }
    for path in segments(directory.path()) {
        let whole = std::fs::read(&path).unwrap();
        let mut flipped = whole.clone();
        flipped[90] ^= 1;
        for bad in [&whole[..whole.len() - 5], &whole[..20], b"", &vec![0; whole.len()], &flipped] {
            std::fs::write(&path, bad).unwrap();
            let error = open(directory.path(), 2).err().unwrap().to_string();
            assert!(error.contains(path.file_name().unwrap().to_str().unwrap()), "{error}");
        }
        std::fs::write(&path, whole).unwrap();
    }
    // What a crash leaves is the temporary file, which does not count and is replaced.
    let mut left = segments(directory.path()).pop().unwrap().into_os_string();
    left.push(".new");
    std::fs::write(left, b"half").unwrap();
    assert_eq!(open(directory.path(), 2).unwrap().1, [b"a", b"b", b"c"]);
}

#[test]
fn a_removed_record_breaks_the_chain() {
    let directory = directory();
    let (mut journal, _) = open(directory.path(), 1).unwrap();
    for payload in [b"a", b"b", b"c"] {
        append(&mut journal, payload).unwrap();
    }
    std::fs::remove_file(&segments(directory.path())[1]).unwrap();
    assert!(open(directory.path(), 2).is_err());
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
