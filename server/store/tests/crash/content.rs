//! Tiny trees to back up: files of a few chunks, some inline and some as content lists of two levels, so that few bytes
//! make every shape of reference. Chunks come from a small pool more often than not: what was purged comes again.

use crate::sim_vfs::Rng;
use bytes::Bytes;
use repo_format::codec::put_varint;
use repo_format::compress::Codec;
use repo_format::entry::{Content, Element, Entry, EntryKind, PathKey, Profile, Time};
use repo_format::id::{ChunkId, NodeId, ObjectId, ObjectKind};
use repo_format::keys::IdKeys;
use repo_format::pathmap::PathMapBuilder;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use store::IncomingObject;

/// An object as an agent knows it.
pub struct Object {
    pub incoming: IncomingObject,
    pub children: Vec<ObjectId>,
}

/// Every object a history has made, and what it refers to.
#[derive(Default, Clone)]
pub struct Universe {
    pub objects: HashMap<ObjectId, Arc<Object>>,
}

impl Universe {
    /// `from` and everything below it.
    pub fn reach(&self, from: impl IntoIterator<Item = ObjectId>, into: &mut HashSet<ObjectId>) {
        let mut stack: Vec<ObjectId> = from.into_iter().collect();
        while let Some(id) = stack.pop() {
            if into.insert(id) {
                stack.extend(self.objects[&id].children.iter().copied());
            }
        }
    }
}

type Chunk = Vec<u8>;
/// Leaves of a content list; a file of one leaf stands inline.
type File = Vec<Vec<Chunk>>;

/// A tree: what it holds, and its objects, children first.
pub struct Tree {
    files: BTreeMap<String, File>,
    pub chunks: Vec<ObjectId>,
    pub nodes: Vec<ObjectId>,
    pub root: NodeId,
    pub logical_bytes: u64,
}

/// Chunks that come again and again.
const POOL: usize = 48;

fn chunk(rng: &mut Rng) -> Chunk {
    let pooled = rng.chance(60);
    let mut own = if pooled { Rng::new(rng.below(POOL) as u64) } else { Rng::new(rng.next()) };
    let len = 16 + own.below(120);
    (0..len).map(|_| own.next() as u8).collect()
}

fn file(rng: &mut Rng) -> File {
    let leaves = if rng.chance(40) { 2 + rng.below(3) } else { 1 };
    (0..leaves).map(|_| (0..1 + rng.below(3)).map(|_| chunk(rng)).collect()).collect()
}

fn node(
    keys: &IdKeys,
    kind: u8,
    nodes: &[NodeId],
    chunks: &[ChunkId],
    logical_bytes: u64,
    body: &[u8],
) -> (NodeId, Vec<u8>) {
    let mut bytes = b"HFN1".to_vec();
    bytes.extend_from_slice(&[1, kind, 0, 0]);
    bytes.extend_from_slice(&(nodes.len() as u16).to_le_bytes());
    bytes.extend_from_slice(&(chunks.len() as u16).to_le_bytes());
    bytes.extend_from_slice(&(body.len() as u32).to_le_bytes());
    bytes.extend_from_slice(&logical_bytes.to_le_bytes());
    for id in nodes {
        bytes.extend_from_slice(id.as_bytes());
    }
    for id in chunks {
        bytes.extend_from_slice(id.as_bytes());
    }
    bytes.extend_from_slice(body);
    (keys.node_id(&bytes), bytes)
}

struct Builder<'a> {
    keys: &'a IdKeys,
    universe: &'a mut Universe,
    chunks: Vec<ObjectId>,
    nodes: Vec<ObjectId>,
    seen: HashSet<ObjectId>,
}

impl Builder<'_> {
    fn add(&mut self, id: ObjectId, kind: ObjectKind, plaintext: Vec<u8>, children: Vec<ObjectId>) {
        if self.seen.insert(id) {
            let order = if kind == ObjectKind::Chunk { &mut self.chunks } else { &mut self.nodes };
            order.push(id);
        }
        self.universe.objects.entry(id).or_insert_with(|| {
            let incoming = IncomingObject {
                id,
                kind,
                codec: Codec::Raw.byte(),
                plain_len: plaintext.len() as u32,
                payload: Bytes::from(plaintext),
            };
            Arc::new(Object { incoming, children })
        });
    }

    fn chunk(&mut self, bytes: &[u8]) -> ChunkId {
        let id = self.keys.chunk_id(bytes);
        self.add(id.into(), ObjectKind::Chunk, bytes.to_vec(), Vec::new());
        id
    }

    fn leaf(&mut self, leaf: &[Chunk]) -> (NodeId, u64) {
        let (mut distinct, mut body): (Vec<ChunkId>, Vec<u8>) = (Vec::new(), Vec::new());
        put_varint(&mut body, leaf.len() as u64);
        for bytes in leaf {
            let id = self.chunk(bytes);
            let index = distinct.iter().position(|other| *other == id).unwrap_or_else(|| {
                distinct.push(id);
                distinct.len() - 1
            });
            for number in [index as u64 + 1, 0, bytes.len() as u64] {
                put_varint(&mut body, number);
            }
        }
        let logical_bytes = leaf.iter().map(|bytes| bytes.len() as u64).sum();
        let (id, bytes) = node(self.keys, 3, &[], &distinct, logical_bytes, &body);
        self.add(id.into(), ObjectKind::Node, bytes, distinct.into_iter().map(ObjectId::from).collect());
        (id, logical_bytes)
    }

    fn content(&mut self, file: &File) -> Content {
        if let [leaf] = file.as_slice() {
            let elements = leaf.iter().map(|bytes| {
                let chunk = self.keys.chunk_id(bytes);
                Element::Data { chunk, offset: 0, len: bytes.len() as u32 }
            });
            let elements = elements.collect();
            for bytes in leaf {
                self.chunk(bytes);
            }
            return Content::Inline(elements);
        }
        let leaves: Vec<(NodeId, u64, usize)> = file
            .iter()
            .map(|leaf| (self.leaf(leaf), leaf.len()))
            .map(|((id, bytes), count)| (id, bytes, count))
            .collect();
        let (mut distinct, mut body): (Vec<NodeId>, Vec<u8>) = (Vec::new(), Vec::new());
        put_varint(&mut body, leaves.len() as u64);
        for (id, bytes, count) in &leaves {
            let index = distinct.iter().position(|other| other == id).unwrap_or_else(|| {
                distinct.push(*id);
                distinct.len() - 1
            });
            for number in [index as u64, *count as u64, *bytes] {
                put_varint(&mut body, number);
            }
        }
        let logical_bytes = leaves.iter().map(|(_, bytes, _)| bytes).sum();
        let (id, bytes) = node(self.keys, 4, &distinct, &[], logical_bytes, &body);
        self.add(id.into(), ObjectKind::Node, bytes, distinct.into_iter().map(ObjectId::from).collect());
        Content::List(id)
    }
}

/// A tree that differs from `base` in a few places, or a new one.
pub fn tree(keys: &IdKeys, rng: &mut Rng, base: Option<&Tree>, universe: &mut Universe) -> Tree {
    let mut files = base.map(|base| base.files.clone()).unwrap_or_default();
    if files.is_empty() {
        for number in 0..1 + rng.below(4) {
            files.insert(format!("{number}"), file(rng));
        }
    }
    for _ in 0..1 + rng.below(3) {
        let names: Vec<String> = files.keys().cloned().collect();
        match (rng.below(5), rng.pick(&names)) {
            (0, _) if files.len() < 6 => {
                files.insert(format!("{}", rng.below(12)), file(rng));
            }
            (1, Some(name)) if files.len() > 1 => {
                files.remove(name);
            }
            (_, Some(name)) => {
                if let Some(file) = files.get_mut(name) {
                    let leaf = rng.below(file.len());
                    let at = rng.below(file[leaf].len());
                    file[leaf][at] = chunk(rng);
                }
            }
            _ => {}
        }
    }
    let mut builder = Builder { keys, universe, chunks: Vec::new(), nodes: Vec::new(), seen: HashSet::new() };
    let mut map = PathMapBuilder::new(keys);
    let mut built = Vec::new();
    let mut logical_bytes = 0;
    for (name, file) in &files {
        let content = builder.content(file);
        let mut hasher = keys.content_hasher();
        let bytes = file.concat().concat();
        hasher.data(&bytes);
        logical_bytes += bytes.len() as u64;
        let entry = Entry {
            kind: EntryKind::File {
                size: bytes.len() as u64,
                content,
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
        map.push(&PathKey::from_path(name.as_bytes()).unwrap(), &entry, &mut |node| built.push(node)).unwrap();
    }
    let root = map.finish(&mut |node| built.push(node)).unwrap();
    for node in built {
        let view = repo_format::node::NodeView::parse(&node.bytes).unwrap();
        let children = view.nodes().map(ObjectId::from).chain(view.chunks().map(ObjectId::from)).collect();
        builder.add(node.id.into(), ObjectKind::Node, node.bytes.clone(), children);
    }
    Tree { chunks: builder.chunks, nodes: builder.nodes, root, logical_bytes, files }
}
