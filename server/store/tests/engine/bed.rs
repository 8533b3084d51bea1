//! A store in a temporary folder, and an uploader that does what an agent does.

use bytes::Bytes;
use repo_format::compress::compress;
use repo_format::entry::{Content, Element, Entry, EntryKind, PathKey, Profile, Time};
use repo_format::id::{NodeId, ObjectId, ObjectKind, SnapshotId, UploadSessionId, VaultId};
use repo_format::keys::IdKeys;
use repo_format::masterkey::MasterKey;
use repo_format::node::BuiltNode;
use repo_format::pathmap::{Cursor, PathMapBuilder};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use store::world::World;
use store::{CommitInput, IncomingObject, SnapshotInfo, Store, StoreError, StoreSettings};

pub const VAULT: VaultId = VaultId::from_bytes([0x42; 16]);

pub fn master() -> MasterKey {
    MasterKey::from_bytes([7; 32])
}

/// So few that most histories see a new generation.
pub const JOURNAL_RECORDS_MIN: u64 = 64;

pub fn settings(directory: &Path) -> StoreSettings {
    StoreSettings {
        memory_bytes: 32 << 20,
        reserve_bytes: Some(0),
        ballast_bytes: Some(0),
        journal_records_min: JOURNAL_RECORDS_MIN,
        ..StoreSettings::new(directory.to_owned())
    }
}

/// A folder with a store in it; `store` is taken away to simulate a stop.
pub struct Bed {
    pub directory: tempfile::TempDir,
    pub store: Option<Store>,
    change: fn(&mut StoreSettings),
}

impl Bed {
    pub fn new() -> Self {
        Self::with(|_| {})
    }

    /// With other settings than usual, at every start.
    pub fn with(change: fn(&mut StoreSettings)) -> Self {
        let mut bed = Bed { directory: tempfile::tempdir().unwrap(), store: None, change };
        bed.restart();
        bed.store().create_vault(VAULT).unwrap();
        bed
    }

    pub fn settings(&self) -> StoreSettings {
        let mut settings = settings(self.directory.path());
        (self.change)(&mut settings);
        settings
    }

    pub fn store(&self) -> &Store {
        self.store.as_ref().unwrap()
    }

    /// Ends the store without closing it, as a killed process does (what it wrote stays in the page cache), and
    /// starts another.
    pub fn crash_and_restart(&mut self) {
        self.store = None;
        self.restart();
    }

    pub fn restart(&mut self) {
        self.store = Some(Store::open(self.settings(), World::system(), &master()).unwrap());
    }

    pub fn vault_directory(&self) -> PathBuf {
        self.directory.path().join("vaults").join(VAULT.to_string())
    }

    pub fn packs(&self) -> Vec<PathBuf> {
        let mut packs: Vec<PathBuf> = std::fs::read_dir(self.vault_directory().join("packs"))
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .collect();
        packs.sort();
        packs
    }

    pub fn assert_no_drift(&self) {
        let recount = self.store().recount(&VAULT).unwrap();
        assert_eq!(recount.drift, Vec::<String>::new());
    }
}

pub type Files = BTreeMap<String, Vec<u8>>;

/// `count` files of noise that does not compress, different for every `seed`.
pub fn files(seed: u64, count: usize, len: usize) -> Files {
    (0..count)
        .map(|number| {
            let mut bytes = vec![0; len];
            let mut hasher = blake3_like(seed, number as u64);
            for byte in &mut bytes {
                hasher = hasher.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                *byte = (hasher >> 56) as u8;
            }
            (format!("file-{number:05}"), bytes)
        })
        .collect()
}

fn blake3_like(seed: u64, number: u64) -> u64 {
    seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ number.wrapping_mul(0xD1B5_4A32_D192_ED03) ^ 0x2545_F491_4F6C_DD1D
}

pub fn chunk(keys: &IdKeys, plaintext: &[u8]) -> IncomingObject {
    let (codec, payload) = compress(plaintext, 3).unwrap();
    IncomingObject {
        id: keys.chunk_id(plaintext).into(),
        kind: ObjectKind::Chunk,
        codec: codec.byte(),
        plain_len: plaintext.len() as u32,
        payload: Bytes::from(payload),
    }
}

pub fn node(built: &BuiltNode) -> IncomingObject {
    let (codec, payload) = compress(&built.bytes, 3).unwrap();
    IncomingObject {
        id: built.id.into(),
        kind: ObjectKind::Node,
        codec: codec.byte(),
        plain_len: built.bytes.len() as u32,
        payload: Bytes::from(payload),
    }
}

/// Chunks and nodes of a tree whose every file is one chunk.
pub struct Tree {
    pub chunks: Vec<IncomingObject>,
    pub nodes: Vec<IncomingObject>,
    pub root: NodeId,
}

pub fn tree(keys: &IdKeys, files: &Files) -> Tree {
    let mut chunks = Vec::new();
    let mut nodes = Vec::new();
    let mut builder = PathMapBuilder::new(keys);
    for (name, bytes) in files {
        chunks.push(chunk(keys, bytes));
        let mut hasher = keys.content_hasher();
        hasher.data(bytes);
        let element = Element::Data { chunk: keys.chunk_id(bytes), offset: 0, len: bytes.len() as u32 };
        let entry = Entry {
            kind: EntryKind::File {
                size: bytes.len() as u64,
                content: Content::Inline(vec![element]),
                hash: hasher.finish(),
                profile: Profile::Default,
            },
            mode: 0o644,
            uid: 0,
            gid: 0,
            user: Vec::new(),
            group: Vec::new(),
            mtime: Time::default(),
            xattrs: Vec::new(),
            link_group: None,
        };
        let key = PathKey::from_path(name.as_bytes()).unwrap();
        builder.push(&key, &entry, &mut |built| nodes.push(node(&built))).unwrap();
    }
    let root = builder.finish(&mut |built| nodes.push(node(&built))).unwrap();
    Tree { chunks, nodes, root }
}

pub fn begin(store: &Store, base: Option<&SnapshotId>) -> UploadSessionId {
    store.begin_upload(&VAULT, "computer", "series", base).unwrap().0
}

/// Uploads and commits a tree as an agent does.
pub fn upload(store: &Store, files: &Files) -> Result<SnapshotInfo, StoreError> {
    let keys = store.id_keys(&VAULT)?;
    let tree = tree(&keys, files);
    let (session, _) = store.begin_upload(&VAULT, "computer", "series", None)?;
    for part in tree.chunks.chunks(7) {
        let ids: Vec<ObjectId> = part.iter().map(|chunk| chunk.id).collect();
        let (have, _) = store.have(&VAULT, &session, &ids)?;
        let wanted: Vec<IncomingObject> =
            part.iter().zip(have).filter(|(_, have)| !have).map(|(chunk, _)| chunk.clone()).collect();
        store.put_chunks(&VAULT, &session, &wanted)?;
    }
    store.put_nodes(&VAULT, &session, &tree.nodes)?;
    store.commit(&VAULT, &session, &CommitInput { root: tree.root, summary_json: b"{}".to_vec() })
}

/// Reads a snapshot back through path map and chunks.
pub fn download(store: &Store, snapshot: &SnapshotInfo) -> Result<Files, StoreError> {
    let reader = store.reader(&VAULT)?;
    let mut cursor = Cursor::new(&reader, snapshot.root);
    let mut files = Files::new();
    while let Some((key, entry)) = cursor.next()? {
        let EntryKind::File { content: Content::Inline(elements), .. } = entry.kind else { panic!("not a small file") };
        let mut bytes = Vec::new();
        for element in elements {
            let Element::Data { chunk, offset, len } = element else { panic!("a hole") };
            bytes.extend_from_slice(&reader.chunk(&chunk)?[offset as usize..(offset + len) as usize]);
        }
        files.insert(String::from_utf8(key.name().to_vec()).unwrap(), bytes);
    }
    Ok(files)
}
