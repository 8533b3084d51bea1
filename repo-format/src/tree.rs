//! What path maps and content lists share: where a search tree's nodes are cut, and its upper levels.

use crate::FormatError;
use crate::codec::put_varint;
use crate::id::NodeId;
use crate::keys::IdKeys;
use crate::limits::{NODE_BODY_BYTES_MAX, TREE_DEPTH_MAX};
use crate::node::{BuiltNode, Children, NodeKind};

/// One item in `FAN_OUT` ends a node, on average.
pub(crate) const FAN_OUT: u32 = 64;
/// No node but the last of its level has fewer items.
pub(crate) const ITEMS_MIN: usize = 16;
/// A node ends here whatever the hashes say.
pub(crate) const ITEMS_MAX: usize = 256;
/// A node with items ends before its body passes this, bytes; one item alone may be larger.
pub(crate) const BODY_BYTES_SOFT_MAX: usize = 64 << 10;

const _: () = assert!(BODY_BYTES_SOFT_MAX < NODE_BODY_BYTES_MAX);
const _: () = assert!(ITEMS_MAX <= crate::limits::NODE_CHILDREN_MAX);

/// Salted hash of an item's key at a level: whether a node may begin with it.
pub(crate) fn begins_node(keys: &IdKeys, level: u8, key: &[u8]) -> bool {
    let mut hasher = blake3::Hasher::new_keyed(keys.cut());
    hasher.update(&[level]);
    hasher.update(key);
    let hash = hasher.finalize();
    let [a, b, c, d, ..] = hash.as_bytes();
    u32::from_le_bytes([*a, *b, *c, *d]) % FAN_OUT == 0
}

/// A child of an index node.
pub(crate) struct IndexItem {
    /// What the cut hashes and, in a path map, what the index stores: the first key below.
    pub(crate) key: Vec<u8>,
    pub(crate) node: NodeId,
    pub(crate) count: u64,
    pub(crate) logical_bytes: u64,
}

struct Level {
    items: Vec<IndexItem>,
    body_bytes: usize,
    emitted: bool,
}

/// The index levels above the leaves of one tree.
pub(crate) struct IndexLevels {
    kind: NodeKind,
    levels: Vec<Level>,
}

impl IndexLevels {
    pub(crate) fn new(kind: NodeKind) -> Self {
        IndexLevels { kind, levels: Vec::new() }
    }

    /// A finished node of `level` (0 = leaf) is to be indexed.
    pub(crate) fn push(
        &mut self,
        keys: &IdKeys,
        level: usize,
        item: IndexItem,
        sink: &mut dyn FnMut(BuiltNode),
    ) -> Result<(), FormatError> {
        if level + 2 > TREE_DEPTH_MAX {
            return Err(FormatError::invalid("tree", "deeper than the limit"));
        }
        if self.levels.len() <= level {
            self.levels.push(Level { items: Vec::new(), body_bytes: 0, emitted: false });
        }
        let item_bytes = item.key.len() + 32;
        let current = &self.levels[level];
        let full = current.items.len() >= ITEMS_MAX || current.body_bytes + item_bytes > BODY_BYTES_SOFT_MAX;
        let cut = current.items.len() >= ITEMS_MIN && begins_node(keys, level as u8 + 1, &item.key);
        if !current.items.is_empty() && (full || cut) {
            self.emit(keys, level, sink)?;
        }
        let current = &mut self.levels[level];
        current.items.push(item);
        current.body_bytes += item_bytes;
        Ok(())
    }

    fn emit(&mut self, keys: &IdKeys, level: usize, sink: &mut dyn FnMut(BuiltNode)) -> Result<(), FormatError> {
        let current = &mut self.levels[level];
        let items = std::mem::take(&mut current.items);
        current.body_bytes = 0;
        current.emitted = true;
        let (mut children, mut body) = (Children::default(), Vec::new());
        let (mut count, mut logical_bytes) = (0u64, 0u64);
        let mut previous: &[u8] = &[];
        put_varint(&mut body, items.len() as u64);
        for item in &items {
            put_varint(&mut body, children.node(item.node));
            put_varint(&mut body, item.count);
            put_varint(&mut body, item.logical_bytes);
            if self.kind == NodeKind::PathIndex {
                put_shared(&mut body, previous, &item.key);
                previous = &item.key;
            }
            count = count.checked_add(item.count).ok_or(OVERFLOW)?;
            logical_bytes = logical_bytes.checked_add(item.logical_bytes).ok_or(OVERFLOW)?;
        }
        let node = children.build(keys, self.kind, logical_bytes, &body);
        let key = items.into_iter().next().map(|item| item.key).unwrap_or_default();
        let above = IndexItem { key, node: node.id, count, logical_bytes };
        sink(node);
        self.push(keys, level + 1, above, sink)
    }

    /// Closes every level; the root of the whole tree, or `None` when nothing was pushed.
    pub(crate) fn finish(
        mut self,
        keys: &IdKeys,
        sink: &mut dyn FnMut(BuiltNode),
    ) -> Result<Option<NodeId>, FormatError> {
        let mut level = 0;
        while level < self.levels.len() {
            let current = &self.levels[level];
            let top = level + 1 == self.levels.len();
            if top && !current.emitted && current.items.len() == 1 {
                return Ok(current.items.first().map(|item| item.node));
            }
            if !current.items.is_empty() {
                self.emit(keys, level, sink)?;
            }
            level += 1;
        }
        Ok(None)
    }
}

/// A sum of lengths does not fit 64 bits.
pub(crate) const OVERFLOW: FormatError = FormatError::invalid("tree", "lengths do not fit 64 bits");

/// Appends `key` as (bytes shared with `previous`, the rest).
pub(crate) fn put_shared(out: &mut Vec<u8>, previous: &[u8], key: &[u8]) {
    let shared = previous.iter().zip(key).take_while(|(a, b)| a == b).count();
    put_varint(out, shared as u64);
    crate::codec::put_bytes(out, &key[shared..]);
}

/// Reads what [`put_shared`] wrote; keys must ascend strictly.
pub(crate) fn take_shared(
    reader: &mut crate::codec::Reader<'_>,
    previous: Option<&[u8]>,
) -> Result<Vec<u8>, FormatError> {
    let limit = crate::limits::KEY_BYTES_MAX;
    let before = previous.unwrap_or_default();
    let shared = reader.varint_max("shared prefix of a key", before.len())?;
    let rest = reader.bytes_max("path", limit - shared.min(limit))?;
    let mut key = Vec::with_capacity(shared + rest.len());
    key.extend_from_slice(&before[..shared]);
    key.extend_from_slice(rest);
    if previous.is_some_and(|previous| key.as_slice() <= previous) {
        return Err(FormatError::invalid("path map", "keys do not ascend"));
    }
    Ok(key)
}
