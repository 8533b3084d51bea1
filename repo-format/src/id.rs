//! Identifiers as types: parse, print, order. Nothing here hashes or reads.

use crate::FormatError;
use std::fmt;

macro_rules! byte_id {
    ($(#[$doc:meta])* $name:ident, $len:expr, $what:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name([u8; $len]);

        impl $name {
            /// Length in bytes.
            pub const LEN: usize = $len;
            /// From raw bytes.
            pub const fn from_bytes(bytes: [u8; $len]) -> Self {
                $name(bytes)
            }
            /// From a slice of exactly `LEN` bytes.
            pub fn from_slice(bytes: &[u8]) -> Result<Self, FormatError> {
                bytes.try_into().map($name).map_err(|_| FormatError::invalid($what, "wrong length"))
            }
            /// The raw bytes.
            pub const fn as_bytes(&self) -> &[u8; $len] {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&data_encoding::HEXLOWER.encode(&self.0))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self)
            }
        }

        impl std::str::FromStr for $name {
            type Err = FormatError;
            /// Lower- or upper-case hexadecimal of the full length.
            fn from_str(text: &str) -> Result<Self, FormatError> {
                let bytes = data_encoding::HEXLOWER_PERMISSIVE
                    .decode(text.as_bytes())
                    .map_err(|_| FormatError::invalid($what, "not hexadecimal"))?;
                Self::from_slice(&bytes)
            }
        }
    };
}

byte_id!(/// Id of a stored object, chunk or node: 32 bytes. Chunks and nodes are hashed under different keys, so ids never meet.
    ObjectId, 32, "object id");
byte_id!(/// Keyed BLAKE3 of a chunk's plaintext.
    ChunkId, 32, "chunk id");
byte_id!(/// Keyed BLAKE3 of a node's plaintext (header, child ids, body).
    NodeId, 32, "node id");
byte_id!(/// Keyed BLAKE3 of a whole file's content.
    ContentHash, 32, "content hash");
byte_id!(/// The deduplication domain.
    VaultId, 16, "vault id");
byte_id!(/// One committed snapshot.
    SnapshotId, 16, "snapshot id");
byte_id!(/// One upload session.
    UploadSessionId, 16, "upload session id");
byte_id!(/// One restore that holds the snapshot it reads.
    RestoreId, 16, "restore id");

impl From<ChunkId> for ObjectId {
    fn from(id: ChunkId) -> Self {
        ObjectId(id.0)
    }
}

impl From<NodeId> for ObjectId {
    fn from(id: NodeId) -> Self {
        ObjectId(id.0)
    }
}

impl ObjectId {
    /// The same bytes as a node id; the caller knows the kind.
    pub const fn as_node(self) -> NodeId {
        NodeId(self.0)
    }
    /// The same bytes as a chunk id; the caller knows the kind.
    pub const fn as_chunk(self) -> ChunkId {
        ChunkId(self.0)
    }
}

/// What an object is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, PartialOrd, Ord, Hash)]
pub enum ObjectKind {
    /// A piece of data.
    Chunk = 1,
    /// A list of children with a small body.
    Node = 2,
}

impl ObjectKind {
    /// From its byte on disk or wire.
    pub fn from_byte(byte: u8) -> Result<Self, FormatError> {
        match byte {
            1 => Ok(ObjectKind::Chunk),
            2 => Ok(ObjectKind::Node),
            _ => Err(FormatError::invalid("object kind", "unknown")),
        }
    }
    /// The byte on disk and wire.
    pub const fn byte(self) -> u8 {
        self as u8
    }
}

/// A pack of one vault: (epoch, sequence). The epoch rises at every start of the server, so ids are never reused.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct PackId {
    /// Start of the server that created the pack.
    pub epoch: u32,
    /// Running number within the epoch and vault.
    pub sequence: u32,
}

impl fmt::Display for PackId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}-{:08x}", self.epoch, self.sequence)
    }
}

impl std::str::FromStr for PackId {
    type Err = FormatError;
    fn from_str(text: &str) -> Result<Self, FormatError> {
        let bad = FormatError::invalid("pack id", "not EPOCH-SEQUENCE in hexadecimal");
        let (epoch, sequence) = text.split_once('-').ok_or(bad.clone())?;
        if epoch.len() != 8 || sequence.len() != 8 {
            return Err(bad);
        }
        Ok(PackId {
            epoch: u32::from_str_radix(epoch, 16).map_err(|_| bad.clone())?,
            sequence: u32::from_str_radix(sequence, 16).map_err(|_| bad)?,
        })
    }
}
