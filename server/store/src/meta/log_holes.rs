//! Holes in the write-ahead logs that RocksDB passes over without a word. It takes a header of zeros, which a sector that
//! was lost leaves, for the end of a block and goes on with the next one: where a batch begins just there, later batches
//! are read, and those in the hole are gone. Such an index is refused before it is opened. Every other hole either is
//! one to RocksDB as well, or has nothing behind it.
//!
//! The format is RocksDB's (db/log_format.h): blocks of fragments, each with checksum, length and kind in front of it.

use crate::error::StoreError;
use crate::world::{SystemVfs, Vfs};
use std::io;
use std::path::Path;

const BLOCK_BYTES: usize = 32 << 10;
const HEADER_BYTES: usize = 7;
const ZERO: u8 = 0;
const FULL: u8 = 1;
const FIRST: u8 = 2;
const MIDDLE: u8 = 3;
const LAST: u8 = 4;

/// Refuses an index of which RocksDB would make rows of no one moment.
pub(super) fn check(directory: &Path) -> Result<(), StoreError> {
    for name in SystemVfs.list(directory).unwrap_or_default() {
        let path = directory.join(&name);
        // What of this cannot be read RocksDB judges itself.
        if name.ends_with(".log") && matches!(has_hole(&path), Ok(true)) {
            return Err(StoreError::IndexDamaged(format!(
                "{} has batches behind a hole; stop the server and run `holdfastd rebuild-index`",
                path.display()
            )));
        }
    }
    Ok(())
}

fn has_hole(path: &Path) -> io::Result<bool> {
    let file = SystemVfs.open(path)?;
    let len = file.len()?;
    let (mut at, mut block, mut replay) = (0, vec![0; BLOCK_BYTES], Replay::default());
    while at < len {
        let bytes = (len - at).min(BLOCK_BYTES as u64);
        let block = &mut block[..bytes as usize];
        file.read_at(at, block)?;
        match replay.block(block) {
            Step::Next => at += bytes,
            Step::End => return Ok(false),
            Step::Hole => return Ok(true),
        }
    }
    Ok(false)
}

/// What RocksDB does after a block.
enum Step {
    /// It reads the next one.
    Next,
    /// It has found the end of what counts.
    End,
    /// It has read a batch behind a hole.
    Hole,
}

/// RocksDB's reading of a log, as far as it says where that ends.
#[derive(Default)]
struct Replay {
    /// A batch has begun and not ended.
    inside: bool,
    /// The end of a block was passed over.
    skipped: bool,
}

impl Replay {
    fn block(&mut self, mut rest: &[u8]) -> Step {
        while rest.len() >= HEADER_BYTES {
            let (header, behind) = rest.split_at(HEADER_BYTES);
            let kind = header[6];
            let length = usize::from(u16::from_le_bytes([header[4], header[5]]));
            if kind == ZERO && length == 0 && !self.inside {
                self.skipped = true;
                return Step::Next;
            }
            let checksum = u32::from_le_bytes([header[0], header[1], header[2], header[3]]);
            if length > behind.len() || checksum != masked(crc32c::crc32c(&rest[6..HEADER_BYTES + length])) {
                return Step::End;
            }
            match kind {
                FULL | FIRST if self.inside => return Step::End,
                FULL | FIRST if self.skipped => return Step::Hole,
                MIDDLE | LAST if !self.inside => return Step::End,
                FIRST => self.inside = true,
                LAST => self.inside = false,
                // Whole batches, and what RocksDB notes for itself.
                _ => {}
            }
            rest = &behind[length..];
        }
        Step::Next
    }
}

/// RocksDB stores checksums so that they are none of themselves (util/crc32c.h).
fn masked(checksum: u32) -> u32 {
    checksum.rotate_right(15).wrapping_add(0xa282_ead8)
}
