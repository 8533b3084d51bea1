//! One fuzz target per parser: any bytes go in, nothing may panic, and what is read must be written again as it was.
//! Shared by the seeded runs in `fuzz_corpus.rs` and by the libFuzzer harness in `fuzz/`.
//!
//! Checksums keep random changes out of everything behind them, so each target also mends the checksums of its input
//! and reads it again.
#![allow(dead_code, reason = "each harness uses its own part of the table")]

use repo_format::compress::{Codec, decompress};
use repo_format::crypto::default_aead;
use repo_format::entry::PathKey;
use repo_format::frame::{FRAME_HEADER_BYTES, FrameHeader, FrameView, find_frame};
use repo_format::id::{ChunkId, NodeId, ObjectId, PackId, VaultId};
use repo_format::journal::{
    CommitRecord, JOURNAL_VERSION, RecordKind, SEGMENT_HEADER_BYTES, SEGMENT_MAGIC, SegmentHeader, salvage,
};
use repo_format::keyring::{Keyring, MasterKey};
use repo_format::keys::DataKey;
use repo_format::limits::{CHUNK_BYTES_MAX, STRIPE_BYTES};
use repo_format::node::{ChildLengths, NodeView, verify};
use repo_format::pack::{FOOTER_BYTES, FOOTER_MAGIC, Footer, PackHeader, Trailer};
use repo_format::pathmap::{index_children, leaf_entries};
use repo_format::record::{
    DamageRecord, HoldRecord, PackDropRecord, SoftDeleteRecord, TagRecord, TombstoneRecord, UndeleteRecord,
    VaultDeletionRecord,
};

/// A parser under test.
pub struct Target {
    /// Name of its folder in `corpus/` and of its binary in `fuzz/`.
    pub name: &'static str,
    /// Runs it over one input.
    pub run: fn(&[u8]),
}

/// Every parser of the crate.
pub const TARGETS: &[Target] = &[
    Target { name: "compressed_payload", run: compressed_payload },
    Target { name: "frame", run: frame },
    Target { name: "pack_header", run: pack_header },
    Target { name: "pack_trailer", run: pack_trailer },
    Target { name: "journal_segment", run: journal_segment },
    Target { name: "commit_record", run: commit_record },
    Target { name: "state_record", run: state_record },
    Target { name: "keyring", run: keyring },
    Target { name: "master_key", run: master_key },
    Target { name: "node", run: node },
    Target { name: "path_key", run: path_key },
    Target { name: "id_text", run: id_text },
];

const VAULT: VaultId = VaultId::from_bytes([7; 16]);

fn key(epoch: u32) -> DataKey {
    DataKey::new(epoch, [4; 32])
}

/// `bytes` with the CRC at `at` mended to cover everything before it; `None` if they are too short.
fn with_crc(bytes: &[u8], at: usize) -> Option<Vec<u8>> {
    let mut mended = bytes.to_vec();
    let crc = crc32c::crc32c(bytes.get(..at)?);
    mended.get_mut(at..at + 4)?.copy_from_slice(&crc.to_le_bytes());
    Some(mended)
}

/// Declared length in the first four bytes, then the payload.
pub fn compressed_payload(bytes: &[u8]) {
    let Some((len, payload)) = bytes.split_first_chunk() else { return };
    let len = u32::from_le_bytes(*len);
    for codec in [Codec::Raw, Codec::Zstd] {
        if let Ok(plaintext) = decompress(codec, payload, len) {
            assert!(plaintext.len() == len as usize && plaintext.len() <= CHUNK_BYTES_MAX);
        }
    }
}

pub fn frame(bytes: &[u8]) {
    let mended = with_crc(bytes, FRAME_HEADER_BYTES - 4);
    for bytes in [Some(bytes), mended.as_deref()].into_iter().flatten() {
        if let Ok(view) = FrameView::parse(bytes) {
            assert_eq!(bytes[..FRAME_HEADER_BYTES], view.header.encode());
            assert_eq!(view.frame_len(), FRAME_HEADER_BYTES + view.stored.len());
            let _ = view.verify_checksum();
            assert!(view.open(default_aead(), &VAULT, &key(view.header.key_epoch)).is_err());
        }
        let mut from = 0;
        while let Some(at) = find_frame(bytes, from) {
            assert!(at >= from);
            let _ = FrameHeader::parse(&bytes[at..]);
            from = at + 1;
        }
    }
}

pub fn pack_header(bytes: &[u8]) {
    let mended = with_crc(bytes, 60);
    for bytes in [Some(bytes), mended.as_deref()].into_iter().flatten() {
        if let Ok(header) = PackHeader::parse(bytes) {
            assert_eq!(PackHeader::parse(&header.encode()), Ok(header));
        }
    }
}

/// A trailer and the footer behind it.
pub fn pack_trailer(bytes: &[u8]) {
    let Some((trailer, footer)) = bytes.split_last_chunk::<FOOTER_BYTES>() else { return };
    let mut mended = *footer;
    mended[8..12].copy_from_slice(&(trailer.len() as u32).to_le_bytes());
    mended[12..44].copy_from_slice(blake3::hash(trailer).as_bytes());
    mended[56..].copy_from_slice(&FOOTER_MAGIC);
    let mended = with_crc(&mended, 52);
    for footer in [Some(footer.as_slice()), mended.as_deref()].into_iter().flatten() {
        let Ok(footer) = Footer::parse(footer) else { continue };
        assert!(footer.file_len() > footer.trailer_offset);
        let Ok(trailer) = Trailer::parse(trailer, &footer) else { continue };
        let mut end = 0;
        for entry in &trailer.entries {
            assert!(u64::from(entry.offset) >= end && entry.end() <= footer.trailer_offset);
            end = entry.end();
        }
        let ranges: Vec<_> = (0..trailer.stripes.len()).filter_map(|index| trailer.stripe_range(index)).collect();
        assert_eq!(ranges.len(), trailer.stripes.len());
        assert_eq!(ranges.last().map_or(0, |range| range.end), footer.trailer_offset);
        assert!(ranges.iter().all(|range| !range.is_empty() && range.end - range.start <= STRIPE_BYTES));
        assert!(trailer.verify_stripe(trailer.stripes.len(), &[]).is_err());
    }
}

pub fn journal_segment(bytes: &[u8]) {
    let mut mended = bytes.to_vec();
    if let Some(start) = mended.first_chunk_mut::<SEGMENT_HEADER_BYTES>() {
        start[..8].copy_from_slice(&SEGMENT_MAGIC);
        start[8..10].copy_from_slice(&JOURNAL_VERSION.to_le_bytes());
        start[20..24].fill(0);
    }
    if let Some(header) = with_crc(&mended, SEGMENT_HEADER_BYTES - 4) {
        mended = header;
    }
    // Every record whose length still leads to an end within the segment gets its CRC and its predecessor.
    let (mut at, mut previous): (usize, Option<[u8; 32]>) = (SEGMENT_HEADER_BYTES, None);
    while let Some(len) = mended.get(at..).and_then(|rest| rest.first_chunk()) {
        let end = at.saturating_add(u32::from_le_bytes(*len) as usize);
        let Some(record) = mended.get_mut(at..end).filter(|record| record.len() >= 100) else { break };
        if let Some(hash) = previous {
            record[20..52].copy_from_slice(&hash);
        }
        let covered = record.len() - 4;
        let crc = crc32c::crc32c(&record[..covered]);
        record[covered..].copy_from_slice(&crc.to_le_bytes());
        previous = Some(*blake3::hash(record).as_bytes());
        at = end;
    }
    for bytes in [bytes, &mended] {
        let _ = SegmentHeader::parse(bytes);
        let mut end = SEGMENT_HEADER_BYTES;
        for found in salvage(bytes, 0) {
            assert!(end <= found.offset && found.offset < found.end && found.end <= bytes.len());
            end = found.end;
            if let Ok(Some(record)) = found.record {
                assert_eq!(record.bytes(), &bytes[found.offset..found.end]);
                assert!(record.open(default_aead(), &VAULT, &key(record.key_epoch)).is_err());
            }
        }
    }
}

pub fn commit_record(bytes: &[u8]) {
    if let Ok(record) = CommitRecord::decode(bytes) {
        assert_eq!(record.encode().as_deref(), Ok(bytes));
    }
}

/// The kind of a journal record, then its payload.
pub fn state_record(bytes: &[u8]) {
    let Some((kind, payload)) = bytes.split_first() else { return };
    let Ok(kind) = RecordKind::from_byte(*kind) else { return };
    let again = match kind {
        RecordKind::Commit | RecordKind::GenerationEnd => return,
        RecordKind::SoftDelete => SoftDeleteRecord::decode(payload).and_then(|record| record.encode()),
        RecordKind::Undelete => UndeleteRecord::decode(payload).map(|record| record.encode()),
        RecordKind::Hold => HoldRecord::decode(payload).map(|record| record.encode()),
        RecordKind::Tag => TagRecord::decode(payload).and_then(|record| record.encode()),
        RecordKind::Tombstone => TombstoneRecord::decode(payload).and_then(|record| record.encode()),
        RecordKind::Damage => DamageRecord::decode(payload).and_then(|record| record.encode()),
        RecordKind::VaultDeletion => VaultDeletionRecord::decode(payload).map(|record| record.encode()),
        RecordKind::PackDrop => PackDropRecord::decode(payload).and_then(|record| record.encode()),
    };
    if let Ok(again) = again {
        assert_eq!(again, payload);
    }
}

pub fn keyring(bytes: &[u8]) {
    let mut mended = bytes.to_vec();
    if let Some((covered, checksum)) = mended.split_last_chunk_mut::<32>() {
        *checksum = *blake3::hash(covered).as_bytes();
    }
    for bytes in [bytes, &mended] {
        let Ok(keyring) = Keyring::parse(bytes) else { continue };
        let written = keyring.encode();
        assert_eq!(written.len(), bytes.len());
        assert_eq!(Keyring::parse(&written).as_ref(), Ok(&keyring));
        assert!(keyring.unlock(&MasterKey::from_bytes([4; 32])).is_err());
    }
}

pub fn master_key(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Ok(key) = MasterKey::from_text(text) {
        let again = key.to_text().and_then(|text| MasterKey::from_text(&text));
        assert!(again.is_ok_and(|again| again.expose() == key.expose()));
    }
}

/// Lengths of children that nobody knows better.
struct EveryChild;

impl ChildLengths for EveryChild {
    fn chunk_bytes(&self, _: &ChunkId) -> Option<u64> {
        Some(u64::from(u32::MAX))
    }
    fn node_logical_bytes(&self, _: &NodeId) -> Option<u64> {
        Some(u64::MAX / 2)
    }
}

pub fn node(bytes: &[u8]) {
    let Ok(view) = NodeView::parse(bytes) else { return };
    assert_eq!(view.nodes().chain(view.chunks().map(|id| ObjectId::from(id).as_node())).count() * 32, {
        bytes.len() - view.body.len() - (bytes.len() - view.body.len()) % 32
    });
    let _ = leaf_entries(&view);
    let _ = index_children(&view);
    let _ = verify(&view, &EveryChild);
}

pub fn path_key(bytes: &[u8]) {
    if let Ok(key) = PathKey::from_encoded(bytes) {
        assert_eq!(key.as_bytes(), bytes);
        assert!(key.directory().chain([key.name()]).all(|part| part != b".." && !part.contains(&b'/')));
        assert_eq!(PathKey::from_path(&key.to_path()).as_ref(), Ok(&key));
    }
    if let Ok(key) = PathKey::from_path(bytes) {
        assert_eq!(PathKey::from_encoded(key.as_bytes()).as_ref(), Ok(&key));
    }
}

pub fn id_text(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Ok(id) = text.parse::<ObjectId>() {
        assert_eq!(id.to_string().parse(), Ok(id));
    }
    if let Ok(id) = text.parse::<PackId>() {
        assert_eq!(id.to_string().parse(), Ok(id));
    }
}
