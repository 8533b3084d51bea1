//! One small, complete specimen of every structure, made with fixed keys and nonces: golden files are written from
//! them, and fuzzing starts from them.
#![allow(dead_code, reason = "each test uses its own part of the samples")]

use repo_format::compress::{Codec, compress};
use repo_format::crypto::{NONCE_BYTES, default_aead};
use repo_format::entry::{Content, Element, Entry, EntryKind, PathKey, Profile, Time};
use repo_format::filelist::ContentListBuilder;
use repo_format::frame::{FrameView, seal_frame};
use repo_format::id::{ContentHash, NodeId, ObjectId, ObjectKind, PackId, SnapshotId, UploadSessionId, VaultId};
use repo_format::journal::{CommitRecord, FIRST_PREVIOUS, JournalRecord, RecordKind, SegmentHeader, record_hash};
use repo_format::keyring::{Keyring, MasterKey};
use repo_format::keys::{DataKey, IdKeys, VaultRootKey};
use repo_format::node::BuiltNode;
use repo_format::pack::{PackHeader, PackKind, TrailerBuilder, TrailerEntry};
use repo_format::pathmap::PathMapBuilder;
use repo_format::record::{
    DamageRecord, DamagedFrame, HoldRecord, PackDropRecord, SoftDeleteRecord, TagRecord, TombstoneRecord,
    UndeleteRecord, VaultDeletionRecord,
};

/// The vault of every sample.
pub const VAULT: VaultId = VaultId::from_bytes(*b"golden vault 001");
/// A second vault, with keys of its own.
pub const OTHER_VAULT: VaultId = VaultId::from_bytes(*b"golden vault 002");
/// The master key of the keyring.
pub const MASTER: [u8; 32] = *b"golden master key, not a secret!";

/// What the samples are sealed with.
pub fn data_key() -> DataKey {
    DataKey::new(1, *b"golden data key, not a secret at")
}

/// What gives the samples their ids.
pub fn id_keys() -> IdKeys {
    IdKeys::derive(&VaultRootKey::from_bytes(*b"golden root key, not a secret at"))
}

/// A nonce of its own for each sample.
pub const fn nonce(number: u8) -> [u8; NONCE_BYTES] {
    [number; NONCE_BYTES]
}

/// Plaintext that stays raw.
pub const RAW: &[u8] = b"A chunk of Holdfast, stored raw.";

/// Plaintext that compresses.
pub fn text() -> Vec<u8> {
    (0..100).flat_map(|line| format!("line {line}: the same words again and again\n").into_bytes()).collect()
}

/// A frame around a payload that is compressed already.
pub fn frame_of(number: u8, codec: Codec, plaintext: &[u8], payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let id = ObjectId::from(id_keys().chunk_id(plaintext));
    let (kind, plain_len) = (ObjectKind::Chunk, plaintext.len() as u32);
    let (key, nonce) = (data_key(), nonce(number));
    seal_frame(default_aead(), &VAULT, &key, &nonce, kind, codec, &id, plain_len, payload, &mut out).unwrap();
    out
}

pub fn frame_raw() -> Vec<u8> {
    frame_of(1, Codec::Raw, RAW, RAW)
}

pub fn frame_zstd() -> Vec<u8> {
    let (codec, payload) = compress(&text(), 3).unwrap();
    assert_eq!(codec, Codec::Zstd);
    frame_of(2, codec, &text(), &payload)
}

/// The header of [`pack`].
pub const PACK: PackHeader = PackHeader { vault: VAULT, pack: PackId { epoch: 1, sequence: 2 }, kind: PackKind::Data };

/// A sealed pack around `frames`.
pub fn pack_of(frames: &[Vec<u8>]) -> Vec<u8> {
    let mut file = PACK.encode().to_vec();
    let mut builder = TrailerBuilder::new();
    for frame in frames {
        let header = FrameView::parse(frame).unwrap().header;
        builder.frame(TrailerEntry {
            id: header.id,
            kind: header.kind,
            codec: header.codec,
            offset: file.len() as u32,
            stored_len: header.stored_len,
            plain_len: header.plain_len,
            key_epoch: header.key_epoch,
        });
        file.extend_from_slice(frame);
    }
    builder.feed(&file);
    file.extend_from_slice(&builder.finish().unwrap());
    file
}

/// The record of the journal's one snapshot.
pub fn commit_record() -> CommitRecord {
    CommitRecord {
        snapshot: SnapshotId::from_bytes(*b"golden snapshot1"),
        session: UploadSessionId::from_bytes(*b"golden session 1"),
        root: NodeId::from_bytes([0x17; 32]),
        committed_ns: 1_700_000_000_123_456_789,
        logical_bytes: 4_321,
        computer: "rechner-büro".into(),
        series: "/etc\n/home".into(),
        summary_json: br#"{"files":3}"#.to_vec(),
    }
}

/// The records of [`journal_segment`], in order.
pub fn journal_records() -> Vec<JournalRecord> {
    let record =
        |kind, sequence, payload| JournalRecord { kind, epoch: 9, sequence, previous: FIRST_PREVIOUS, payload };
    vec![
        record(RecordKind::Commit, 1, commit_record().encode().unwrap()),
        record(RecordKind::GenerationEnd, 2, Vec::new()),
    ]
}

/// A generation with one snapshot and its end mark.
pub fn journal_segment() -> Vec<u8> {
    segment_of(1, 10, journal_records())
}

/// A segment of `records`, chained, the first with nonce number `first_nonce`.
fn segment_of(generation: u64, first_nonce: u8, records: Vec<JournalRecord>) -> Vec<u8> {
    let mut out = SegmentHeader { vault: VAULT, generation }.encode().to_vec();
    let mut previous = FIRST_PREVIOUS;
    for (number, record) in (first_nonce..).zip(records) {
        let stored = JournalRecord { previous, ..record }.seal(default_aead(), &VAULT, &data_key(), &nonce(number));
        let stored = stored.unwrap();
        previous = record_hash(&stored);
        out.extend_from_slice(&stored);
    }
    out
}

/// The snapshot whose states change in [`journal_states`].
pub const SNAPSHOT: SnapshotId = SnapshotId::from_bytes(*b"golden snapshot1");
/// Until when it is held, or can be brought back.
pub const UNTIL_NS: i64 = 1_700_086_400_123_456_789;

pub fn soft_delete_record() -> SoftDeleteRecord {
    let (deleted_ns, by) = (UNTIL_NS - 86_400_000_000_000, "anna müller".into());
    SoftDeleteRecord { snapshot: SNAPSHOT, deleted_ns, until_ns: UNTIL_NS, by }
}

pub fn tag_record() -> TagRecord {
    TagRecord { snapshot: SNAPSHOT, tags: vec!["before-upgrade".into(), "büro".into()] }
}

pub fn tombstone_record() -> TombstoneRecord {
    TombstoneRecord { snapshots: vec![SNAPSHOT, SnapshotId::from_bytes(*b"golden snapshot2")] }
}

pub fn damage_record() -> DamageRecord {
    let id = ObjectId::from(id_keys().chunk_id(RAW));
    DamageRecord { frames: vec![DamagedFrame { id, pack: PACK.pack, offset: 64 }] }
}

pub fn pack_drop_record() -> PackDropRecord {
    PackDropRecord { packs: vec![PACK.pack, PackId { epoch: u32::MAX, sequence: 0 }] }
}

pub fn vault_deletion_record() -> VaultDeletionRecord {
    VaultDeletionRecord { decided_ns: UNTIL_NS }
}

/// The records of [`journal_states`], in order.
pub fn state_records() -> Vec<JournalRecord> {
    let hold = |until_ns| HoldRecord { snapshot: SNAPSHOT, until_ns }.encode();
    let records = [
        (RecordKind::SoftDelete, soft_delete_record().encode().unwrap()),
        (RecordKind::Undelete, UndeleteRecord { snapshot: SNAPSHOT }.encode()),
        (RecordKind::Hold, hold(Some(UNTIL_NS))),
        (RecordKind::Hold, hold(None)),
        (RecordKind::Tag, tag_record().encode().unwrap()),
        (RecordKind::Tombstone, tombstone_record().encode().unwrap()),
        (RecordKind::Damage, damage_record().encode().unwrap()),
        (RecordKind::PackDrop, pack_drop_record().encode().unwrap()),
        (RecordKind::VaultDeletion, vault_deletion_record().encode()),
    ];
    let record =
        |(sequence, (kind, payload))| JournalRecord { kind, epoch: 9, sequence, previous: FIRST_PREVIOUS, payload };
    (3..).zip(records).map(record).collect()
}

/// Everything that may happen after a commit.
pub fn journal_states() -> Vec<u8> {
    segment_of(2, 20, state_records())
}

/// "Random" bytes of the keyring.
pub fn random<const N: usize>(label: &str) -> [u8; N] {
    let mut out = [0; N];
    blake3::Hasher::new().update(label.as_bytes()).finalize_xof().fill(&mut out);
    out
}

/// Two vaults, the first with two data keys.
pub fn keyring() -> Vec<u8> {
    let mut keyring = Keyring::create(&MasterKey::from_bytes(MASTER), &random("create")).unwrap();
    keyring.insert_vault(VAULT, &random("vault 1")).unwrap();
    keyring.insert_vault(OTHER_VAULT, &random("vault 2")).unwrap();
    keyring.add_data_key(&VAULT, &random("data key 2")).unwrap();
    keyring.encode()
}

/// The nodes of a small path map, children before parents.
pub fn nodes() -> Vec<BuiltNode> {
    let keys = id_keys();
    let mut builder = PathMapBuilder::new(&keys);
    let mut nodes = Vec::new();
    let mut push = |path: String, kind| {
        let entry = Entry {
            kind,
            mode: 0o644,
            uid: 1000,
            gid: 1000,
            user: b"anna".to_vec(),
            group: Vec::new(),
            mtime: Time { seconds: -5, nanoseconds: 7 },
            xattrs: Vec::new(),
            link_group: None,
        };
        let key = PathKey::from_path(path.as_bytes()).unwrap();
        builder.push(&key, &entry, &mut |node| nodes.push(node)).unwrap();
    };
    push("/".into(), EntryKind::Directory);
    for number in 100..400u32 {
        let chunk = id_keys().chunk_id(&(number / 9).to_le_bytes());
        let kind = EntryKind::File {
            size: 10,
            content: Content::Inline(vec![Element::Data { chunk, offset: number % 9 * 10, len: 10 }]),
            hash: ContentHash::from_bytes([number as u8; 32]),
            profile: Profile::Bundle,
        };
        push(format!("/file-{number}"), kind);
    }
    push("/link".into(), EntryKind::Symlink { target: b"../there".to_vec() });
    builder.finish(&mut |node| nodes.push(node)).unwrap();
    nodes
}

/// The nodes of one large file's content list with holes, children before parents.
pub fn list_nodes() -> Vec<BuiltNode> {
    let keys = id_keys();
    let mut builder = ContentListBuilder::new();
    let mut nodes = Vec::new();
    for number in 0..1_000u32 {
        let chunk = keys.chunk_id(&number.to_le_bytes());
        let element = if number % 50 == 7 {
            Element::Hole { len: 1 << 40 }
        } else {
            Element::Data { chunk, offset: 0, len: 1 << 19 }
        };
        builder.push(&keys, element, &mut |node| nodes.push(node)).unwrap();
    }
    builder.finish(&keys, &mut |node| nodes.push(node)).unwrap();
    nodes
}

/// Bytes that the fuzz target `name` starts from: a name for each, and the bytes.
pub fn seeds(name: &str) -> Vec<(String, Vec<u8>)> {
    let one = |bytes: Vec<u8>| vec![("valid".to_owned(), bytes)];
    match name {
        "compressed_payload" => {
            let payload = compress(&text(), 3).unwrap().1;
            one([(text().len() as u32).to_le_bytes().as_slice(), &payload].concat())
        }
        "frame" => vec![("raw".into(), frame_raw()), ("zstd".into(), frame_zstd())],
        "pack_header" => one(PACK.encode().to_vec()),
        "pack_trailer" => {
            let frames = [frame_raw(), frame_zstd()];
            let body: usize = 64 + frames.iter().map(Vec::len).sum::<usize>();
            one(pack_of(&frames)[body..].to_vec())
        }
        "journal_segment" => vec![("valid".into(), journal_segment()), ("states".into(), journal_states())],
        "state_record" => {
            // The first byte says which record the rest is.
            let seed = |record: JournalRecord| {
                let bytes = [&[record.kind.byte()], record.payload.as_slice()].concat();
                (format!("{:02}_{:?}", record.sequence, record.kind).to_lowercase(), bytes)
            };
            state_records().into_iter().map(seed).collect()
        }
        "commit_record" => one(commit_record().encode().unwrap()),
        "keyring" => one(keyring()),
        "master_key" => one(MasterKey::from_bytes(MASTER).to_text().unwrap().as_bytes().to_vec()),
        "node" => {
            let mut seeds = Vec::new();
            for (kind, nodes) in [("path", nodes()), ("list", list_nodes())] {
                let smallest =
                    nodes.iter().filter(|node| node.id != nodes.last().unwrap().id).min_by_key(|node| node.bytes.len());
                seeds.push((format!("{kind}_leaf"), smallest.unwrap().bytes.clone()));
                seeds.push((format!("{kind}_root"), nodes.last().unwrap().bytes.clone()));
            }
            seeds
        }
        "path_key" => one(PathKey::from_path(b"/home/anna/letter.txt").unwrap().as_bytes().to_vec()),
        "id_text" => vec![
            ("object".into(), id_keys().chunk_id(RAW).to_string().into_bytes()),
            ("pack".into(), PACK.pack.to_string().into_bytes()),
        ],
        _ => Vec::new(),
    }
}
