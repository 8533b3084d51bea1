//! The path-map nodes of the last snapshot, so that the next run compares without downloading them.
//!
//! ```text
//! file   = "HFNODES1" | root 32 | record* | 0 u32
//! record = payload_len u32 | codec u8 | plain_len u32 | id 32 | payload
//! ```
//! Every node is checked against its id when it is read.

use crate::config::create_partial;
use crate::error::AgentError;
use crate::nodes::ServerNodes;
use parking_lot::Mutex;
use repo_format::compress::{Codec, Decompressor};
use repo_format::id::{NodeId, ObjectId};
use repo_format::limits::NODE_BYTES_MAX;
use repo_format::node::{BuiltNode, NodeSource};
use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::{BufReader, BufWriter, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

const MAGIC: &[u8; 8] = b"HFNODES1";
const HEADER_BYTES: u64 = 40;
const RECORD_HEAD_BYTES: usize = 4 + 1 + 4 + 32;

/// Writes the nodes of a run.
pub struct NodesWriter {
    path: PathBuf,
    partial: PathBuf,
    out: BufWriter<File>,
}

impl NodesWriter {
    /// Next to `folder/nodes`; nothing replaces that before [`NodesWriter::finish`].
    pub fn create(folder: &Path) -> Result<Self, AgentError> {
        let path = folder.join("nodes");
        let (partial, file) = create_partial(&path)?;
        let mut out = BufWriter::new(file);
        out.write_all(&[0; HEADER_BYTES as usize]).map_err(|error| AgentError::file(&partial, error))?;
        Ok(NodesWriter { path, partial, out })
    }

    /// The next node.
    pub fn push(&mut self, node: &BuiltNode, codec: Codec, payload: &[u8]) -> Result<(), AgentError> {
        let mut write = || -> std::io::Result<()> {
            self.out.write_all(&(payload.len() as u32).to_le_bytes())?;
            self.out.write_all(&[codec.byte()])?;
            self.out.write_all(&(node.bytes.len() as u32).to_le_bytes())?;
            self.out.write_all(node.id.as_bytes())?;
            self.out.write_all(payload)
        };
        write().map_err(|error| AgentError::file(&self.partial, error))
    }

    /// Puts the file in place: it belongs to the snapshot under `root`.
    pub fn finish(mut self, root: &NodeId) -> Result<(), AgentError> {
        let mut write = || -> std::io::Result<()> {
            self.out.write_all(&0u32.to_le_bytes())?;
            self.out.seek(SeekFrom::Start(0))?;
            self.out.write_all(MAGIC)?;
            self.out.write_all(root.as_bytes())?;
            self.out.flush()?;
            std::fs::rename(&self.partial, &self.path)
        };
        write().map_err(|error| AgentError::file(&self.path, error))
    }
}

impl Drop for NodesWriter {
    fn drop(&mut self) {
        std::fs::remove_file(&self.partial).ok();
    }
}

#[derive(Clone, Copy)]
struct Place {
    offset: u64,
    payload_len: u32,
    codec: Codec,
    plain_len: u32,
}

/// The base snapshot's nodes: from the local file where it has them, else from the server. Remembers every id read, so
/// that the run knows which of its own nodes the base has already.
pub struct BaseNodes {
    server: ServerNodes,
    local: Option<(File, HashMap<NodeId, Place>)>,
    decompressor: Mutex<Decompressor>,
    seen: Mutex<HashSet<NodeId>>,
    damaged: HashSet<ObjectId>,
}

impl BaseNodes {
    /// Nodes of the snapshot under `root`, of whose objects the server knows `damaged`.
    pub fn open(
        folder: &Path,
        root: &NodeId,
        server: ServerNodes,
        damaged: HashSet<ObjectId>,
    ) -> Result<Self, AgentError> {
        let local = open_local(&folder.join("nodes"), root);
        let decompressor = Mutex::new(Decompressor::new()?);
        Ok(BaseNodes { server, local, decompressor, seen: Mutex::default(), damaged })
    }

    /// Whether a sound node of the base has this id, among those read so far.
    pub fn has(&self, id: &NodeId) -> bool {
        !self.damaged.contains(&ObjectId::from(*id)) && self.seen.lock().contains(id)
    }

    /// Objects of the base that the server knows to be damaged.
    pub fn damaged(&self) -> &HashSet<ObjectId> {
        &self.damaged
    }

    fn local(&self, id: &NodeId) -> Option<Arc<[u8]>> {
        let (file, places) = self.local.as_ref()?;
        let place = places.get(id)?;
        let mut payload = vec![0; place.payload_len as usize];
        file.read_exact_at(&mut payload, place.offset).ok()?;
        let plain = self.decompressor.lock().decompress_owned(place.codec, payload, place.plain_len).ok()?;
        (self.server.keys().node_id(&plain) == *id).then(|| plain.into())
    }
}

impl NodeSource for BaseNodes {
    type Error = AgentError;

    fn node(&self, id: &NodeId) -> Result<Arc<[u8]>, AgentError> {
        let bytes = match self.local(id) {
            Some(bytes) => bytes,
            None => self.server.node(id)?,
        };
        self.seen.lock().insert(*id);
        Ok(bytes)
    }
}

fn open_local(path: &Path, root: &NodeId) -> Option<(File, HashMap<NodeId, Place>)> {
    let mut input = BufReader::with_capacity(64 << 10, File::open(path).ok()?);
    let mut header = [0; HEADER_BYTES as usize];
    input.read_exact(&mut header).ok()?;
    if header[..8] != *MAGIC || header[8..] != *root.as_bytes() {
        return None;
    }
    let mut places = HashMap::new();
    let mut offset = HEADER_BYTES;
    loop {
        let mut head = [0; RECORD_HEAD_BYTES];
        input.read_exact(&mut head[..4]).ok()?;
        let mut reader = repo_format::codec::Reader::new("node cache", &head);
        let payload_len = reader.u32().ok()?;
        if payload_len == 0 {
            return Some((input.into_inner(), places));
        }
        if payload_len as usize > NODE_BYTES_MAX {
            return None;
        }
        input.read_exact(&mut head[4..]).ok()?;
        let mut reader = repo_format::codec::Reader::new("node cache", &head[4..]);
        let codec = Codec::from_byte(reader.u8().ok()?).ok()?;
        let plain_len = reader.u32().ok()?;
        let id = NodeId::from_bytes(reader.array().ok()?);
        offset += RECORD_HEAD_BYTES as u64;
        places.insert(id, Place { offset, payload_len, codec, plain_len });
        offset += u64::from(payload_len);
        input.seek_relative(i64::from(payload_len)).ok()?;
    }
}
