//! Nodes from the server, each verified by its id: a bounded memory of recent ones, and read-ahead along index nodes,
//! so that walking a tree costs few requests.

use crate::client::Client;
use crate::error::AgentError;
use api::objects::{CODEC_ABSENT, CODEC_DAMAGED, Record};
use parking_lot::Mutex;
use repo_format::FormatError;
use repo_format::compress::{Codec, Decompressor};
use repo_format::id::{NodeId, ObjectId, ObjectKind};
use repo_format::keys::IdKeys;
use repo_format::limits::NODE_BYTES_MAX;
use repo_format::node::{NodeKind, NodeSource, NodeView};
use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;

/// Nodes kept in memory, bytes.
const MEMORY_BYTES_MAX: usize = 24 << 20;
/// Nodes asked for at once when walking along.
const READ_AHEAD: usize = 48;
/// Index nodes whose children are remembered for read-ahead.
const INDEXES_MAX: usize = 16;

/// The vault's nodes.
pub struct ServerNodes {
    client: Client,
    vault: String,
    keys: Arc<IdKeys>,
    memory: Mutex<Memory>,
}

#[derive(Default)]
struct Memory {
    nodes: HashMap<NodeId, Arc<[u8]>>,
    order: VecDeque<NodeId>,
    bytes: usize,
    indexes: VecDeque<Vec<NodeId>>,
}

impl Memory {
    fn insert(&mut self, id: NodeId, bytes: Arc<[u8]>) {
        if self.nodes.contains_key(&id) {
            return;
        }
        if let Ok(view) = NodeView::parse(&bytes)
            && matches!(view.kind, NodeKind::PathIndex | NodeKind::ListIndex)
        {
            if self.indexes.len() == INDEXES_MAX {
                self.indexes.pop_front();
            }
            self.indexes.push_back(view.nodes().collect());
        }
        self.bytes += bytes.len();
        self.order.push_back(id);
        self.nodes.insert(id, bytes);
        while self.bytes > MEMORY_BYTES_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.bytes -= self.nodes.remove(&oldest).map_or(0, |bytes| bytes.len());
        }
    }

    /// `id` and those that follow it in its index and are not here yet.
    fn ahead(&self, id: &NodeId) -> Vec<NodeId> {
        let mut wanted = vec![*id];
        let siblings = self.indexes.iter().rev().find_map(|children| {
            children.iter().position(|child| child == id).and_then(|position| children.get(position + 1..))
        });
        let rest = siblings.unwrap_or_default().iter().filter(|sibling| !self.nodes.contains_key(sibling));
        wanted.extend(rest.take(READ_AHEAD - 1));
        wanted
    }
}

impl ServerNodes {
    /// Nodes of `vault`.
    pub fn new(client: Client, vault: String, keys: Arc<IdKeys>) -> Self {
        ServerNodes { client, vault, keys, memory: Mutex::default() }
    }

    /// The vault's id keys.
    pub fn keys(&self) -> &Arc<IdKeys> {
        &self.keys
    }

    /// Fetches those of `ids` that are not in memory, in one request. Ones that cannot be had are left out; asking for
    /// them singly gives the error.
    pub fn prefetch(&self, ids: impl IntoIterator<Item = NodeId>) -> Result<(), AgentError> {
        let memory = self.memory.lock();
        let distinct: HashSet<NodeId> = ids.into_iter().filter(|id| !memory.nodes.contains_key(id)).collect();
        drop(memory);
        let ids: Vec<NodeId> = distinct.into_iter().collect();
        for part in ids.chunks(READ_AHEAD) {
            self.fetch(part, None)?;
        }
        Ok(())
    }

    fn fetch(&self, ids: &[NodeId], needed: Option<&NodeId>) -> Result<Option<Arc<[u8]>>, AgentError> {
        let objects: Vec<ObjectId> = ids.iter().map(|id| ObjectId::from(*id)).collect();
        let mut decompressor = Decompressor::new()?;
        let (mut found, mut failure) = (None, None);
        self.client.objects(&self.vault, &objects, &mut |record| {
            let id = record.id.as_node();
            match open_node(&mut decompressor, &self.keys, &record) {
                Ok(bytes) => {
                    if needed == Some(&id) {
                        found = Some(bytes.clone());
                    }
                    self.memory.lock().insert(id, bytes);
                }
                Err(error) if needed == Some(&id) => failure = Some(error),
                Err(_) => {}
            }
            true
        })?;
        failure.map_or(Ok(found), Err)
    }
}

impl NodeSource for ServerNodes {
    type Error = AgentError;

    fn node(&self, id: &NodeId) -> Result<Arc<[u8]>, AgentError> {
        let memory = self.memory.lock();
        if let Some(bytes) = memory.nodes.get(id) {
            return Ok(bytes.clone());
        }
        let wanted = memory.ahead(id);
        drop(memory);
        self.fetch(&wanted, Some(id))?.ok_or_else(|| unavailable("node", &(*id).into(), "missing"))
    }
}

/// An object that cannot be had.
pub fn unavailable(kind: &'static str, id: &ObjectId, state: &'static str) -> AgentError {
    AgentError::ObjectUnavailable { kind, id: id.to_string(), state }
}

/// Plaintext of a record that must be the node of its id.
fn open_node(decompressor: &mut Decompressor, keys: &IdKeys, record: &Record) -> Result<Arc<[u8]>, AgentError> {
    let plain = open_record(decompressor, record, ObjectKind::Node)?;
    if plain.len() > NODE_BYTES_MAX || ObjectId::from(keys.node_id(&plain)) != record.id {
        return Err(FormatError::IdMismatch { what: "node" }.into());
    }
    Ok(plain.into())
}

/// Plaintext of a record of `kind`, unpacked within its declared length. The caller checks the id.
pub fn open_record(decompressor: &mut Decompressor, record: &Record, kind: ObjectKind) -> Result<Vec<u8>, AgentError> {
    let word = if kind == ObjectKind::Node { "node" } else { "chunk" };
    match record.codec {
        CODEC_ABSENT => Err(unavailable(word, &record.id, "missing")),
        CODEC_DAMAGED => Err(unavailable(word, &record.id, "damaged")),
        _ if record.kind != kind => Err(FormatError::IdMismatch { what: word }.into()),
        byte => Ok(decompressor.decompress(Codec::from_byte(byte)?, &record.payload, record.plain_len)?),
    }
}
