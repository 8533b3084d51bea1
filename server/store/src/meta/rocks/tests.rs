//! What a loss of power leaves of the write-ahead logs: two that follow each other and are both unsynced.

use super::*;
use std::fs;

const VAULT: VaultId = VaultId::from_bytes([7; 16]);
const MEMORY_BYTES: usize = 2 << 20;
/// Written to the newer log.
const NEWER_BATCHES: u64 = 5;

/// The files of an index whose memory has just been handed to a flush that has not begun: the older log is whole and
/// left, the newer one has some batches. Batch `n` has one row, of key `n`.
struct Left {
    folder: tempfile::TempDir,
    older: PathBuf,
    /// In both logs.
    batches: u64,
    lengths: Lengths,
}

/// How long values are.
type Lengths = fn(u64) -> usize;

fn any_length(number: u64) -> usize {
    200 + (number * 37 % 1500) as usize
}

/// Every batch has 1024 bytes in the log: its blocks end at borders.
fn in_step(_: u64) -> usize {
    976
}

fn value(number: u64, lengths: Lengths) -> Vec<u8> {
    vec![number as u8 | 1; lengths(number)]
}

fn logs(folder: &Path) -> Vec<PathBuf> {
    let paths = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut logs: Vec<_> = paths.filter(|path| path.extension().is_some_and(|end| end == "log")).collect();
    logs.sort();
    logs
}

/// Writes to the index in `directory`, which is new, until it has begun a second log.
fn leave(directory: &Path, lengths: Lengths) -> Left {
    let index = RocksMeta::open(directory, MEMORY_BYTES).unwrap();
    let folder = tempfile::tempdir_in(directory).unwrap();
    let [log] = &logs(directory)[..] else { panic!("{:?}", logs(directory)) };
    // The manifest as it is before the flush; of the log a second name, since the flush removes it.
    for name in fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name()) {
        let (from, to) = (directory.join(&name), folder.path().join(&name));
        if from == *log {
            fs::hard_link(from, to).unwrap();
        } else if from.is_file() && name != "LOCK" {
            fs::copy(from, to).unwrap();
        }
    }
    let older = folder.path().join(log.file_name().unwrap());
    let mut batches = 0;
    let mut write = || {
        let mut batch = Batch::default();
        batch.put(Table::Object, u64::to_be_bytes(batches).to_vec(), value(batches, lengths));
        index.write(&VAULT, batch).unwrap();
        batches += 1;
    };
    let newer = loop {
        write();
        if let Some(newer) = logs(directory).into_iter().find(|path| path != log) {
            break newer;
        }
    };
    for _ in 1..NEWER_BATCHES {
        write();
    }
    fs::copy(&newer, folder.path().join(newer.file_name().unwrap())).unwrap();
    index.close();
    Left { folder, older, batches, lengths }
}

/// Where the batches of a log end, bytes, after RocksDB's description of its format (db/log_format.h).
fn borders(log: &[u8]) -> Vec<usize> {
    const BLOCK_BYTES: usize = 32 << 10;
    const HEADER_BYTES: usize = 7;
    const FULL: u8 = 1;
    const LAST: u8 = 4;
    let (mut at, mut borders) = (0, Vec::new());
    while at + HEADER_BYTES <= log.len() {
        if BLOCK_BYTES - at % BLOCK_BYTES < HEADER_BYTES {
            at = at.next_multiple_of(BLOCK_BYTES);
            continue;
        }
        let kind = log[at + 6];
        at += HEADER_BYTES + usize::from(u16::from_le_bytes([log[at + 4], log[at + 5]]));
        if kind == FULL || kind == LAST {
            borders.push(at);
        }
    }
    borders
}

impl Left {
    /// How many batches there are when only so much of the older log survives: all up to one and none behind it.
    fn found_after(&self, older_bytes: &[u8]) -> u64 {
        self.open_after(older_bytes).unwrap()
    }

    fn open_after(&self, older_bytes: &[u8]) -> Result<u64, StoreError> {
        let state = tempfile::tempdir().unwrap();
        for entry in fs::read_dir(self.folder.path()).unwrap() {
            let path = entry.unwrap().path();
            fs::copy(&path, state.path().join(path.file_name().unwrap())).unwrap();
        }
        fs::write(state.path().join(self.older.file_name().unwrap()), older_bytes).unwrap();
        let index = RocksMeta::open(state.path(), MEMORY_BYTES)?;
        let rows = index.scan(&VAULT, Table::Object, &[], usize::MAX).unwrap();
        for (number, (key, found)) in (0..).zip(&rows) {
            assert_eq!(*key, u64::to_be_bytes(number), "behind a hole, of {} bytes", older_bytes.len());
            assert_eq!(*found, value(number, self.lengths));
        }
        Ok(rows.len() as u64)
    }

    fn check(&self) {
        let older = fs::read(&self.older).unwrap();
        let borders = borders(&older);
        assert_eq!(borders.len() as u64, self.batches - NEWER_BATCHES);
        assert_eq!(self.found_after(&older), self.batches);
        for whole in (borders.len() - 8..borders.len()).chain([1, 2, borders.len() / 2]) {
            let end = borders[whole - 1];
            if whole < borders.len() {
                assert_eq!(self.found_after(&older[..end]), whole as u64, "cut at a border");
            }
            assert_eq!(self.found_after(&older[..end - 1]), whole as u64 - 1, "cut inside");
        }
        // A sector in the middle never reached the disk.
        let lost = older.len() / 2 / 512 * 512;
        let mut torn = older.clone();
        torn[lost..lost + 512].fill(0);
        assert_eq!(self.found_after(&torn), borders.iter().filter(|border| **border <= lost).count() as u64);
    }
}

#[test]
fn a_log_that_lost_its_end_at_a_batchs_border_ends_the_index_there() {
    let directory = tempfile::tempdir().unwrap();
    leave(directory.path(), any_length).check();
}

/// It opens, and its logs are as good as any other's.
#[test]
fn an_index_that_was_cut_short_while_it_was_made_is_as_good_as_new() {
    let made = tempfile::tempdir().unwrap();
    RocksMeta::open(made.path(), MEMORY_BYTES).unwrap().close();
    let directory = tempfile::tempdir().unwrap();
    for entry in fs::read_dir(made.path()).unwrap() {
        let path = entry.unwrap().path();
        if path.is_file() && path.extension().is_none_or(|end| end != "log") {
            fs::copy(&path, directory.path().join(path.file_name().unwrap())).unwrap();
        }
    }
    assert!(is_cut_short(directory.path()));
    leave(directory.path(), any_length).check();
}

/// RocksDB takes a header of zeros for the end of its block, not of the log, and would read on where a batch begins with
/// the next block.
#[test]
fn batches_behind_a_block_that_lost_its_end_are_not_read() {
    let directory = tempfile::tempdir().unwrap();
    let left = leave(directory.path(), in_step);
    let older = fs::read(&left.older).unwrap();
    assert!(borders(&older).iter().all(|border| border % 1024 == 0));
    let without = |lost: &[std::ops::Range<usize>]| {
        let mut torn = older.clone();
        lost.iter().for_each(|range| torn[range.clone()].fill(0));
        left.open_after(&torn)
    };
    let rest_of_block = 101 << 10..128 << 10;
    for lost in [rest_of_block.clone(), 0..32 << 10, 101 << 10..(128 << 10) + 512] {
        let refused = without(&[lost]);
        assert!(matches!(refused, Err(StoreError::IndexDamaged(_))), "{refused:?}");
    }
    // No whole batch begins behind these, or RocksDB ends there as well.
    let torn_behind = (128 << 10) + 512..129 << 10;
    assert_eq!(without(&[rest_of_block, torn_behind]).unwrap(), 101);
    assert_eq!(without(std::slice::from_ref(&((100 << 10) + 512..128 << 10))).unwrap(), 100);
    assert_eq!(without(std::slice::from_ref(&(101 << 10..older.len()))).unwrap(), 101);
    assert_eq!(without(&[]).unwrap(), left.batches);
}
