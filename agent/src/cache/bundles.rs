//! How long the bundles of the last snapshot are, and which of them the next run bundles again. An entry says only
//! which part of its bundle it uses, so the parts that nobody uses are known from here alone. Its loss costs space,
//! and only until the bundles it told of are replaced.
//!
//! ```text
//! file   = "HFBUNDL1" | root 32 | files u64 | bytes u64 | count u32 | record* | checksum 32 (BLAKE3 of all before)
//! record = chunk id 32 | length u32 | flags u8 (1: its files are bundled again)
//! ```
//! `files` and `bytes` bound what the next run may read again.

use crate::config::create_partial;
use crate::error::AgentError;
use crate::pipeline::rebundle::{BundlePlan, Rebundling};
use repo_format::FormatError;
use repo_format::codec::Reader;
use repo_format::id::{ChunkId, NodeId};
use std::io::{Read, Write};
use std::path::Path;

const MAGIC: &[u8; 8] = b"HFBUNDL1";
const CHECKSUM_BYTES: usize = 32;
const AGAIN: u8 = 1;
const FILE_BYTES_MAX: u64 = 32 << 20;

/// Puts `folder/bundles` in place: it belongs to the snapshot under `root`.
pub fn save(folder: &Path, root: &NodeId, plan: &BundlePlan) -> Result<(), AgentError> {
    let path = folder.join("bundles");
    let (partial, mut file) = create_partial(&path)?;
    let mut bytes = MAGIC.to_vec();
    bytes.extend_from_slice(root.as_bytes());
    bytes.extend_from_slice(&plan.again.files_left.to_le_bytes());
    bytes.extend_from_slice(&plan.again.bytes_left.to_le_bytes());
    bytes.extend_from_slice(&(plan.lengths.len() as u32).to_le_bytes());
    for (chunk, len) in &plan.lengths {
        bytes.extend_from_slice(chunk.as_bytes());
        bytes.extend_from_slice(&len.to_le_bytes());
        bytes.push(if plan.again.chunks.contains(chunk) { AGAIN } else { 0 });
    }
    let checksum = blake3::hash(&bytes);
    bytes.extend_from_slice(checksum.as_bytes());
    let written = file.write_all(&bytes).and_then(|()| std::fs::rename(&partial, &path));
    written.map_err(|error| {
        std::fs::remove_file(&partial).ok();
        AgentError::file(&path, error)
    })
}

/// Opens `folder/bundles` if it belongs to the snapshot under `root`; without it nothing is known.
pub fn load(folder: &Path, root: &NodeId) -> BundlePlan {
    let mut bytes = Vec::new();
    let read =
        std::fs::File::open(folder.join("bundles")).and_then(|file| file.take(FILE_BYTES_MAX).read_to_end(&mut bytes));
    let Some(at) = bytes.len().checked_sub(CHECKSUM_BYTES).filter(|_| read.is_ok()) else {
        return BundlePlan::default();
    };
    let (content, checksum) = bytes.split_at(at);
    if blake3::hash(content).as_bytes() != checksum {
        return BundlePlan::default();
    }
    parse(content, root).ok().flatten().unwrap_or_default()
}

fn parse(content: &[u8], root: &NodeId) -> Result<Option<BundlePlan>, FormatError> {
    let mut reader = Reader::new("bundle cache", content);
    if reader.array::<8>()? != *MAGIC || reader.array::<32>()? != *root.as_bytes() {
        return Ok(None);
    }
    let (files_left, bytes_left) = (u64::from_le_bytes(reader.array()?), u64::from_le_bytes(reader.array()?));
    let mut plan =
        BundlePlan { again: Rebundling { files_left, bytes_left, ..Default::default() }, ..Default::default() };
    for _ in 0..reader.u32()? {
        let (chunk, len, flags) = (ChunkId::from_bytes(reader.array()?), reader.u32()?, reader.u8()?);
        plan.lengths.push((chunk, len));
        if flags & AGAIN != 0 {
            plan.again.chunks.insert(chunk);
        }
    }
    reader.finish()?;
    Ok(Some(plan))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_comes_back_for_its_own_snapshot_only_and_damage_forgets() {
        let folder = tempfile::tempdir().unwrap();
        let root = NodeId::from_bytes([1; 32]);
        let lengths: Vec<(ChunkId, u32)> = (0..10).map(|n| (ChunkId::from_bytes([n; 32]), u32::from(n) * 7)).collect();
        let chunks = [lengths[3].0, lengths[9].0].into();
        let plan = BundlePlan { lengths, again: Rebundling { chunks, files_left: 12, bytes_left: 1 << 40 } };
        assert_eq!(load(folder.path(), &root), BundlePlan::default());
        save(folder.path(), &root, &plan).unwrap();
        assert_eq!(load(folder.path(), &root), plan);
        assert_eq!(load(folder.path(), &NodeId::from_bytes([2; 32])), BundlePlan::default());
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
        let path = folder.path().join("bundles");
        let whole = std::fs::read(&path).unwrap();
        for position in 0..whole.len() {
            let mut bytes = whole.clone();
            bytes[position] ^= 1;
            std::fs::write(&path, &bytes).unwrap();
            assert_eq!(load(folder.path(), &root), BundlePlan::default(), "{position}");
            std::fs::write(&path, &whole[..position]).unwrap();
            assert_eq!(load(folder.path(), &root), BundlePlan::default(), "{position}");
        }
    }
}
