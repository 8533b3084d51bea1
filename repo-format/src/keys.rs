//! Key types and what is derived from a vault's root key. Keys are wiped when dropped and never printed.

use crate::FormatError;
use crate::id::{ChunkId, ContentHash, NodeId};
use zeroize::{Zeroize, ZeroizeOnDrop};

/// Context strings of `blake3::derive_key`; part of the format.
const CONTEXT_CHUNK: &str = "holdfast 2026-11 vault chunk id key";
const CONTEXT_NODE: &str = "holdfast 2026-11 vault node id key";
const CONTEXT_CONTENT: &str = "holdfast 2026-11 vault content hash key";
const CONTEXT_SPARSE: &str = "holdfast 2026-11 vault sparse content hash key";
const CONTEXT_GEAR: &str = "holdfast 2026-11 vault gear table key";
const CONTEXT_CUT: &str = "holdfast 2026-11 vault tree cut key";

/// The random secret of a vault from which its id keys derive. Lives as long as the vault; never rotates.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct VaultRootKey([u8; 32]);

impl VaultRootKey {
    /// From 32 random bytes.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        VaultRootKey(bytes)
    }
    /// The raw secret, for wrapping.
    pub const fn expose(&self) -> &[u8; 32] {
        &self.0
    }
}

/// The key that seals frames and journal records of one vault in one data epoch.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct DataKey {
    /// The data epoch; recorded in every frame.
    pub epoch: u32,
    key: [u8; 32],
}

impl DataKey {
    /// From 32 random bytes.
    pub const fn new(epoch: u32, key: [u8; 32]) -> Self {
        DataKey { epoch, key }
    }
    /// The raw secret, for sealing and wrapping.
    pub const fn expose(&self) -> &[u8; 32] {
        &self.key
    }
}

/// The keys that give content its ids and its cuts. An agent of the vault holds them; they decrypt nothing.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct IdKeys {
    chunk: [u8; 32],
    node: [u8; 32],
    content: [u8; 32],
    sparse: [u8; 32],
    gear: [u8; 32],
    cut: [u8; 32],
}

impl IdKeys {
    /// Length of [`IdKeys::to_bytes`].
    pub const LEN: usize = 192;

    /// Derived from the vault's root key.
    pub fn derive(root: &VaultRootKey) -> Self {
        let derive = |context| blake3::derive_key(context, root.expose());
        IdKeys {
            chunk: derive(CONTEXT_CHUNK),
            node: derive(CONTEXT_NODE),
            content: derive(CONTEXT_CONTENT),
            sparse: derive(CONTEXT_SPARSE),
            gear: derive(CONTEXT_GEAR),
            cut: derive(CONTEXT_CUT),
        }
    }

    /// As sent to an agent of the vault.
    pub fn to_bytes(&self) -> [u8; Self::LEN] {
        let mut out = [0; Self::LEN];
        let parts = [&self.chunk, &self.node, &self.content, &self.sparse, &self.gear, &self.cut];
        for (slot, part) in out.chunks_exact_mut(32).zip(parts) {
            slot.copy_from_slice(part);
        }
        out
    }

    /// As received from the server.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, FormatError> {
        let mut reader = crate::codec::Reader::new("id keys", bytes);
        let keys = IdKeys {
            chunk: reader.array()?,
            node: reader.array()?,
            content: reader.array()?,
            sparse: reader.array()?,
            gear: reader.array()?,
            cut: reader.array()?,
        };
        reader.finish()?;
        Ok(keys)
    }

    /// Id of a chunk's plaintext.
    pub fn chunk_id(&self, plaintext: &[u8]) -> ChunkId {
        ChunkId::from_bytes(*blake3::keyed_hash(&self.chunk, plaintext).as_bytes())
    }

    /// Id of a node's plaintext.
    pub fn node_id(&self, plaintext: &[u8]) -> NodeId {
        NodeId::from_bytes(*blake3::keyed_hash(&self.node, plaintext).as_bytes())
    }

    /// Starts the hash of a whole file.
    pub fn content_hasher(&self) -> ContentHasher {
        ContentHasher { hasher: blake3::Hasher::new_keyed(&self.content), sparse_key: self.sparse, holes: Vec::new() }
    }

    /// Secret of the gear table.
    pub(crate) const fn gear(&self) -> &[u8; 32] {
        &self.gear
    }

    /// Secret of the tree cuts.
    pub(crate) const fn cut(&self) -> &[u8; 32] {
        &self.cut
    }
}

/// Hash of a file's data in order. A file without holes hashes to the keyed BLAKE3 of its bytes; with holes, the
/// digest of the data alone is hashed again with the list of holes, so a hole of a terabyte costs nothing.
pub struct ContentHasher {
    hasher: blake3::Hasher,
    sparse_key: [u8; 32],
    holes: Vec<u8>,
}

impl ContentHasher {
    /// More data.
    pub fn data(&mut self, bytes: &[u8]) {
        self.hasher.update(bytes);
    }
    /// A hole of `len` bytes at `offset` of the file. Adjacent holes must be given as one.
    pub fn hole(&mut self, offset: u64, len: u64) {
        self.holes.extend_from_slice(&offset.to_le_bytes());
        self.holes.extend_from_slice(&len.to_le_bytes());
    }
    /// The hash.
    pub fn finish(self) -> ContentHash {
        let data = self.hasher.finalize();
        if self.holes.is_empty() {
            return ContentHash::from_bytes(*data.as_bytes());
        }
        let mut outer = blake3::Hasher::new_keyed(&self.sparse_key);
        outer.update(data.as_bytes());
        outer.update(&self.holes);
        ContentHash::from_bytes(*outer.finalize().as_bytes())
    }
}

impl Drop for ContentHasher {
    fn drop(&mut self) {
        self.sparse_key.zeroize();
    }
}
