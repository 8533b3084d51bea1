//! Nodes: stored objects that list their children in clear and carry a small body. The store reads the header and the
//! child ids only; bodies belong to [`crate::pathmap`] and [`crate::filelist`].

use crate::FormatError;
use crate::codec::Reader;
use crate::id::{ChunkId, NodeId};
use crate::keys::IdKeys;
use crate::limits::{NODE_BODY_BYTES_MAX, NODE_CHILDREN_MAX};
use std::collections::HashMap;

const WHAT: &str = "node";
const MAGIC: [u8; 4] = *b"HFN1";
const VERSION: u8 = 1;
/// Bytes before the child ids.
pub const NODE_HEADER_BYTES: usize = 24;

/// What a node's body holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum NodeKind {
    /// Entries of a path map.
    PathLeaf = 1,
    /// Children of a path map with their first keys.
    PathIndex = 2,
    /// Elements of a large file.
    ListLeaf = 3,
    /// Children of a content list with their lengths.
    ListIndex = 4,
}

impl NodeKind {
    fn from_byte(byte: u8) -> Result<Self, FormatError> {
        match byte {
            1 => Ok(NodeKind::PathLeaf),
            2 => Ok(NodeKind::PathIndex),
            3 => Ok(NodeKind::ListLeaf),
            4 => Ok(NodeKind::ListIndex),
            _ => Err(FormatError::invalid(WHAT, "unknown kind")),
        }
    }
}

/// A finished node: its plaintext and its id.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BuiltNode {
    /// Keyed BLAKE3 of `bytes`.
    pub id: NodeId,
    /// The plaintext.
    pub bytes: Vec<u8>,
    /// Bytes of file content below it.
    pub logical_bytes: u64,
}

/// Distinct children in order of first mention; bodies refer to them by index.
#[derive(Default)]
pub(crate) struct Children {
    nodes: Vec<NodeId>,
    chunks: Vec<ChunkId>,
    node_index: HashMap<NodeId, u64>,
    chunk_index: HashMap<ChunkId, u64>,
}

impl Children {
    pub(crate) fn node(&mut self, id: NodeId) -> u64 {
        let next = self.nodes.len() as u64;
        *self.node_index.entry(id).or_insert_with(|| {
            self.nodes.push(id);
            next
        })
    }

    pub(crate) fn chunk(&mut self, id: ChunkId) -> u64 {
        let next = self.chunks.len() as u64;
        *self.chunk_index.entry(id).or_insert_with(|| {
            self.chunks.push(id);
            next
        })
    }

    pub(crate) fn len(&self) -> usize {
        self.nodes.len() + self.chunks.len()
    }

    /// Forgets children mentioned after the first `nodes` and `chunks`.
    pub(crate) fn truncate(&mut self, nodes: usize, chunks: usize) {
        for id in self.nodes.drain(nodes..) {
            self.node_index.remove(&id);
        }
        for id in self.chunks.drain(chunks..) {
            self.chunk_index.remove(&id);
        }
    }

    pub(crate) fn counts(&self) -> (usize, usize) {
        (self.nodes.len(), self.chunks.len())
    }

    /// The node, leaving `self` empty. The caller keeps the limits.
    pub(crate) fn build(&mut self, keys: &IdKeys, kind: NodeKind, logical_bytes: u64, body: &[u8]) -> BuiltNode {
        let mut bytes = Vec::with_capacity(NODE_HEADER_BYTES + self.len() * 32 + body.len());
        bytes.extend_from_slice(&MAGIC);
        bytes.push(VERSION);
        bytes.push(kind as u8);
        bytes.extend_from_slice(&0u16.to_le_bytes());
        bytes.extend_from_slice(&(self.nodes.len() as u16).to_le_bytes());
        bytes.extend_from_slice(&(self.chunks.len() as u16).to_le_bytes());
        bytes.extend_from_slice(&(body.len() as u32).to_le_bytes());
        bytes.extend_from_slice(&logical_bytes.to_le_bytes());
        for id in &self.nodes {
            bytes.extend_from_slice(id.as_bytes());
        }
        for id in &self.chunks {
            bytes.extend_from_slice(id.as_bytes());
        }
        bytes.extend_from_slice(body);
        *self = Children::default();
        BuiltNode { id: keys.node_id(&bytes), bytes, logical_bytes }
    }
}

/// A parsed node header over borrowed plaintext.
#[derive(Clone, Copy, Debug)]
pub struct NodeView<'a> {
    /// What the body holds.
    pub kind: NodeKind,
    /// Bytes of file content below it, as declared.
    pub logical_bytes: u64,
    nodes: &'a [[u8; 32]],
    chunks: &'a [[u8; 32]],
    /// The body.
    pub body: &'a [u8],
}

impl<'a> NodeView<'a> {
    /// Reads the header of `plaintext`; children must be distinct, everything within limits, nothing left over.
    pub fn parse(plaintext: &'a [u8]) -> Result<Self, FormatError> {
        let mut reader = Reader::new(WHAT, plaintext);
        if reader.array::<4>()? != MAGIC {
            return Err(FormatError::BadMagic { what: WHAT });
        }
        let version = reader.u8()?;
        if version != VERSION {
            return Err(FormatError::UnsupportedVersion { what: WHAT, version: version.into() });
        }
        let kind = NodeKind::from_byte(reader.u8()?)?;
        // Low byte: compatible features (ignored when unknown). High byte: incompatible ones.
        let incompatible = reader.u16()? >> 8;
        if incompatible != 0 {
            return Err(FormatError::UnsupportedFeatures { what: WHAT, bits: incompatible.into() });
        }
        let (nodes, chunks) = (usize::from(reader.u16()?), usize::from(reader.u16()?));
        if nodes + chunks > NODE_CHILDREN_MAX {
            let value = (nodes + chunks) as u64;
            return Err(FormatError::Limit { what: "children of a node", value, limit: NODE_CHILDREN_MAX as u64 });
        }
        let body_len = reader.u32()? as usize;
        if body_len > NODE_BODY_BYTES_MAX {
            let value = body_len as u64;
            return Err(FormatError::Limit { what: "body of a node", value, limit: NODE_BODY_BYTES_MAX as u64 });
        }
        let logical_bytes = reader.u64()?;
        let nodes = reader.take(nodes * 32)?.as_chunks::<32>().0;
        let chunks = reader.take(chunks * 32)?.as_chunks::<32>().0;
        let body = reader.take(body_len)?;
        reader.finish()?;
        let mut sorted: Vec<&[u8; 32]> = nodes.iter().chain(chunks).collect();
        sorted.sort_unstable();
        if sorted.windows(2).any(|pair| pair[0] == pair[1]) {
            return Err(FormatError::invalid(WHAT, "a child is listed twice"));
        }
        Ok(NodeView { kind, logical_bytes, nodes, chunks, body })
    }

    /// Child nodes in index order.
    pub fn nodes(&self) -> impl ExactSizeIterator<Item = NodeId> + 'a {
        self.nodes.iter().map(|id| NodeId::from_bytes(*id))
    }

    /// Child chunks in index order.
    pub fn chunks(&self) -> impl ExactSizeIterator<Item = ChunkId> + 'a {
        self.chunks.iter().map(|id| ChunkId::from_bytes(*id))
    }

    pub(crate) fn node(&self, index: u64) -> Result<NodeId, FormatError> {
        let id = usize::try_from(index).ok().and_then(|index| self.nodes.get(index));
        id.map(|id| NodeId::from_bytes(*id)).ok_or(FormatError::invalid(WHAT, "no such child node"))
    }

    pub(crate) fn chunk(&self, index: u64) -> Result<ChunkId, FormatError> {
        let id = usize::try_from(index).ok().and_then(|index| self.chunks.get(index));
        id.map(|id| ChunkId::from_bytes(*id)).ok_or(FormatError::invalid(WHAT, "no such child chunk"))
    }
}

/// Lengths of a node's children, as the store knows them from its own rows.
pub trait ChildLengths {
    /// Plaintext bytes of a chunk child.
    fn chunk_bytes(&self, id: &ChunkId) -> Option<u64>;
    /// Declared logical bytes of a node child.
    fn node_logical_bytes(&self, id: &NodeId) -> Option<u64>;
}

/// Checks a whole node, body included: that every child is used, every reference lies within its chunk, every size is
/// the sum of its parts, and the declared logical total is true.
pub fn verify(view: &NodeView<'_>, lengths: &dyn ChildLengths) -> Result<(), FormatError> {
    let total = match view.kind {
        NodeKind::PathLeaf => crate::pathmap::leaf_logical_bytes(view, lengths)?,
        NodeKind::PathIndex => crate::pathmap::index_logical_bytes(view, lengths)?,
        NodeKind::ListLeaf => crate::filelist::leaf_logical_bytes(view, lengths)?,
        NodeKind::ListIndex => crate::filelist::index_logical_bytes(view, lengths)?,
    };
    if total == view.logical_bytes { Ok(()) } else { Err(FormatError::invalid(WHAT, "wrong logical total")) }
}

/// Where a reader gets nodes from.
pub trait NodeSource {
    /// Its errors; format errors become one of them.
    type Error: From<FormatError>;
    /// Plaintext of a node.
    fn node(&self, id: &NodeId) -> Result<std::sync::Arc<[u8]>, Self::Error>;
}

impl<S: NodeSource + ?Sized> NodeSource for &S {
    type Error = S::Error;
    fn node(&self, id: &NodeId) -> Result<std::sync::Arc<[u8]>, Self::Error> {
        (**self).node(id)
    }
}
