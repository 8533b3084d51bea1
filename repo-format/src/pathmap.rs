//! Path maps: one content-defined search tree of a snapshot's entries, ordered by [`PathKey`]. A folder is a contiguous
//! range of keys and its subtree the range behind it, so a folder of a million files pages, and equal ranges are equal
//! nodes.

use crate::FormatError;
use crate::codec::{Reader, put_bytes, put_varint, put_varint_signed};
use crate::entry::{Content, Entry, EntryKind, PathKey, Profile, Time, Xattr, XattrValue};
use crate::id::{ContentHash, NodeId};
use crate::keys::IdKeys;
use crate::limits::{
    CHUNK_BYTES_MAX, CONTENT_INLINE_MAX, NAME_BYTES_MAX, NODE_BODY_BYTES_MAX, NODE_CHILDREN_MAX,
    SYMLINK_TARGET_BYTES_MAX, XATTR_INLINE_BYTES_MAX, XATTRS_MAX,
};
use crate::node::{BuiltNode, ChildLengths, Children, NodeKind, NodeView};
use crate::tree::{
    BODY_BYTES_SOFT_MAX, ITEMS_MAX, ITEMS_MIN, IndexItem, IndexLevels, OVERFLOW, begins_node, put_shared, take_shared,
};

mod cursor;
mod difference;

pub use crate::node::NodeSource;
pub use cursor::Cursor;
pub use difference::{Difference, differences};

const WHAT: &str = "path map";

const TYPE_FILE: u8 = 1;
const TYPE_DIRECTORY: u8 = 2;
const TYPE_SYMLINK: u8 = 3;
const TYPE_FIFO: u8 = 4;
const TYPE_SOCKET: u8 = 5;
const TYPE_CHAR_DEVICE: u8 = 6;
const TYPE_BLOCK_DEVICE: u8 = 7;

const FLAG_LINK_GROUP: u8 = 1;
const FLAG_XATTRS: u8 = 2;
const FLAG_CONTENT_LIST: u8 = 4;
const FLAGS_KNOWN: u8 = FLAG_LINK_GROUP | FLAG_XATTRS | FLAG_CONTENT_LIST;

/// A leaf under construction.
#[derive(Default)]
struct Leaf {
    children: Children,
    body: Vec<u8>,
    /// Owner and group names in order of first mention; entries refer to them by number.
    names: Vec<Vec<u8>>,
    first_key: Vec<u8>,
    last_key: Vec<u8>,
    count: u64,
    logical_bytes: u64,
}

impl Leaf {
    fn put_name(&mut self, name: &[u8]) {
        if name.is_empty() {
            return put_varint(&mut self.body, 0);
        }
        match self.names.iter().position(|known| known == name) {
            Some(index) => put_varint(&mut self.body, index as u64 + 1),
            None => {
                self.names.push(name.to_vec());
                put_varint(&mut self.body, self.names.len() as u64);
                put_bytes(&mut self.body, name);
            }
        }
    }

    fn put(&mut self, key: &PathKey, entry: &Entry) -> Result<(), FormatError> {
        put_shared(&mut self.body, &self.last_key, key.as_bytes());
        let kind = match &entry.kind {
            EntryKind::File { .. } => TYPE_FILE,
            EntryKind::Directory => TYPE_DIRECTORY,
            EntryKind::Symlink { .. } => TYPE_SYMLINK,
            EntryKind::Fifo => TYPE_FIFO,
            EntryKind::Socket => TYPE_SOCKET,
            EntryKind::CharDevice { .. } => TYPE_CHAR_DEVICE,
            EntryKind::BlockDevice { .. } => TYPE_BLOCK_DEVICE,
        };
        let listed = matches!(&entry.kind, EntryKind::File { content: Content::List(_), .. });
        let flags = if entry.link_group.is_some() { FLAG_LINK_GROUP } else { 0 }
            | if entry.xattrs.is_empty() { 0 } else { FLAG_XATTRS }
            | if listed { FLAG_CONTENT_LIST } else { 0 };
        self.body.push(kind);
        self.body.push(flags);
        put_varint(&mut self.body, u64::from(entry.mode));
        put_varint(&mut self.body, u64::from(entry.uid));
        put_varint(&mut self.body, u64::from(entry.gid));
        self.put_name(&entry.user);
        self.put_name(&entry.group);
        put_varint_signed(&mut self.body, entry.mtime.seconds);
        put_varint(&mut self.body, u64::from(entry.mtime.nanoseconds));
        if let Some(group) = entry.link_group {
            put_varint(&mut self.body, group);
        }
        if !entry.xattrs.is_empty() {
            put_varint(&mut self.body, entry.xattrs.len() as u64);
            for xattr in &entry.xattrs {
                put_bytes(&mut self.body, &xattr.name);
                match &xattr.value {
                    XattrValue::Inline(bytes) => {
                        put_varint(&mut self.body, 0);
                        put_bytes(&mut self.body, bytes);
                    }
                    XattrValue::Chunk { chunk, len } => {
                        put_varint(&mut self.body, self.children.chunk(*chunk) + 1);
                        put_varint(&mut self.body, u64::from(*len));
                    }
                }
            }
        }
        match &entry.kind {
            EntryKind::File { size, content, hash, profile } => {
                put_varint(&mut self.body, *size);
                self.body.push(*profile as u8);
                self.body.extend_from_slice(hash.as_bytes());
                match content {
                    Content::List(root) => put_varint(&mut self.body, self.children.node(*root)),
                    Content::Inline(elements) => {
                        put_varint(&mut self.body, elements.len() as u64);
                        for element in elements {
                            crate::filelist::put_element(&mut self.body, &mut self.children, element);
                        }
                    }
                }
            }
            EntryKind::Symlink { target } => put_bytes(&mut self.body, target),
            EntryKind::CharDevice { major, minor } | EntryKind::BlockDevice { major, minor } => {
                put_varint(&mut self.body, u64::from(*major));
                put_varint(&mut self.body, u64::from(*minor));
            }
            EntryKind::Directory | EntryKind::Fifo | EntryKind::Socket => {}
        }
        if self.count == 0 {
            self.first_key = key.as_bytes().to_vec();
        }
        self.last_key = key.as_bytes().to_vec();
        self.count += 1;
        self.logical_bytes = self.logical_bytes.checked_add(entry.size()).ok_or(OVERFLOW)?;
        Ok(())
    }
}

fn check_entry(entry: &Entry) -> Result<(), FormatError> {
    let limit = |what, value: usize, limit: usize| {
        if value > limit { Err(FormatError::Limit { what, value: value as u64, limit: limit as u64 }) } else { Ok(()) }
    };
    if entry.mode > 0o7777 {
        return Err(FormatError::invalid(WHAT, "mode has more than permission bits"));
    }
    if entry.mtime.nanoseconds >= 1_000_000_000 {
        return Err(FormatError::invalid(WHAT, "nanoseconds of a time are not below a second"));
    }
    limit("owner name", entry.user.len(), NAME_BYTES_MAX)?;
    limit("group name", entry.group.len(), NAME_BYTES_MAX)?;
    limit("extended attributes", entry.xattrs.len(), XATTRS_MAX)?;
    for xattr in &entry.xattrs {
        limit("extended attribute name", xattr.name.len(), NAME_BYTES_MAX)?;
        match &xattr.value {
            XattrValue::Inline(bytes) => limit("extended attribute", bytes.len(), XATTR_INLINE_BYTES_MAX)?,
            XattrValue::Chunk { len, .. } => limit("extended attribute", *len as usize, CHUNK_BYTES_MAX)?,
        }
    }
    match &entry.kind {
        EntryKind::Symlink { target } => {
            limit("symbolic link", target.len(), SYMLINK_TARGET_BYTES_MAX)?;
            if target.is_empty() || target.contains(&0) {
                return Err(FormatError::invalid(WHAT, "a symbolic link is empty or holds a zero byte"));
            }
        }
        EntryKind::File { content: Content::Inline(elements), size, .. } => {
            limit("elements inside an entry", elements.len(), CONTENT_INLINE_MAX)?;
            let sum = elements.iter().try_fold(0u64, |sum, element| sum.checked_add(element.len()));
            if sum != Some(*size) || elements.iter().any(|element| element.is_empty()) {
                return Err(FormatError::invalid(WHAT, "a file's size is not the sum of its elements"));
            }
        }
        _ => {}
    }
    Ok(())
}

/// Builds a path map from entries in strictly ascending key order, with memory for one node per level.
pub struct PathMapBuilder<'k> {
    keys: &'k IdKeys,
    leaf: Leaf,
    levels: IndexLevels,
    last_key: Vec<u8>,
    emitted: bool,
}

impl<'k> PathMapBuilder<'k> {
    /// Empty.
    pub fn new(keys: &'k IdKeys) -> Self {
        let levels = IndexLevels::new(NodeKind::PathIndex);
        PathMapBuilder { keys, leaf: Leaf::default(), levels, last_key: Vec::new(), emitted: false }
    }

    /// The next entry; finished nodes go to `sink`, children before parents.
    pub fn push(&mut self, key: &PathKey, entry: &Entry, sink: &mut dyn FnMut(BuiltNode)) -> Result<(), FormatError> {
        check_entry(entry)?;
        if key.as_bytes() <= self.last_key.as_slice() {
            return Err(FormatError::invalid(WHAT, "keys do not ascend"));
        }
        self.last_key.clear();
        self.last_key.extend_from_slice(key.as_bytes());
        let count = self.leaf.count as usize;
        if count >= ITEMS_MAX || (count >= ITEMS_MIN && begins_node(self.keys, 0, key.as_bytes())) {
            self.emit(sink)?;
        }
        // Encoded in place; taken back when it makes the node too large, and then it begins the next one.
        let (body_len, names, counts) = (self.leaf.body.len(), self.leaf.names.len(), self.leaf.children.counts());
        let (last_key, logical_bytes) = (self.leaf.last_key.clone(), self.leaf.logical_bytes);
        self.leaf.put(key, entry)?;
        let too_large = self.leaf.body.len() > BODY_BYTES_SOFT_MAX || self.leaf.children.len() > NODE_CHILDREN_MAX;
        if too_large && self.leaf.count > 1 {
            self.leaf.body.truncate(body_len);
            self.leaf.names.truncate(names);
            self.leaf.children.truncate(counts.0, counts.1);
            self.leaf.last_key = last_key;
            self.leaf.logical_bytes = logical_bytes;
            self.leaf.count -= 1;
            self.emit(sink)?;
            self.leaf.put(key, entry)?;
        }
        if self.leaf.body.len() + 16 > NODE_BODY_BYTES_MAX || self.leaf.children.len() > NODE_CHILDREN_MAX {
            return Err(FormatError::invalid(WHAT, "one entry does not fit a node"));
        }
        Ok(())
    }

    fn emit(&mut self, sink: &mut dyn FnMut(BuiltNode)) -> Result<(), FormatError> {
        let mut leaf = std::mem::take(&mut self.leaf);
        self.emitted = true;
        let mut body = Vec::with_capacity(leaf.body.len() + 4);
        put_varint(&mut body, leaf.count);
        body.extend_from_slice(&leaf.body);
        let node = leaf.children.build(self.keys, NodeKind::PathLeaf, leaf.logical_bytes, &body);
        let item =
            IndexItem { key: leaf.first_key, node: node.id, count: leaf.count, logical_bytes: leaf.logical_bytes };
        sink(node);
        self.levels.push(self.keys, 0, item, sink)
    }

    /// The root.
    pub fn finish(mut self, sink: &mut dyn FnMut(BuiltNode)) -> Result<NodeId, FormatError> {
        if self.leaf.count > 0 || !self.emitted {
            self.emit(sink)?;
        }
        self.levels.finish(self.keys, sink)?.ok_or(FormatError::invalid(WHAT, "no root"))
    }
}

fn take_time(reader: &mut Reader<'_>) -> Result<Time, FormatError> {
    let seconds = reader.varint_signed()?;
    let nanoseconds = reader.varint_max("nanoseconds", 999_999_999)? as u32;
    Ok(Time { seconds, nanoseconds })
}

fn take_u32(reader: &mut Reader<'_>, what: &'static str) -> Result<u32, FormatError> {
    Ok(reader.varint_max(what, u32::MAX as usize)? as u32)
}

fn take_name(reader: &mut Reader<'_>, names: &mut Vec<Vec<u8>>) -> Result<Vec<u8>, FormatError> {
    let index = reader.varint_max("owner names", names.len() + 1)?;
    if index == 0 {
        return Ok(Vec::new());
    }
    if index > names.len() {
        names.push(reader.bytes_max("owner name", NAME_BYTES_MAX)?.to_vec());
    }
    Ok(names[index - 1].clone())
}

fn take_entry(reader: &mut Reader<'_>, view: &NodeView<'_>, names: &mut Vec<Vec<u8>>) -> Result<Entry, FormatError> {
    let kind = reader.u8()?;
    let flags = reader.u8()?;
    if flags & !FLAGS_KNOWN != 0 {
        return Err(FormatError::UnsupportedFeatures { what: WHAT, bits: (flags & !FLAGS_KNOWN).into() });
    }
    let mode = reader.varint_max("mode", 0o7777)? as u32;
    let uid = take_u32(reader, "owner")?;
    let gid = take_u32(reader, "group")?;
    let user = take_name(reader, names)?;
    let group = take_name(reader, names)?;
    let mtime = take_time(reader)?;
    let link_group = if flags & FLAG_LINK_GROUP != 0 { Some(reader.varint()?) } else { None };
    let mut xattrs = Vec::new();
    if flags & FLAG_XATTRS != 0 {
        for _ in 0..reader.varint_max("extended attributes", XATTRS_MAX)? {
            let name = reader.bytes_max("extended attribute name", NAME_BYTES_MAX)?.to_vec();
            let value = match reader.varint()? {
                0 => XattrValue::Inline(reader.bytes_max("extended attribute", XATTR_INLINE_BYTES_MAX)?.to_vec()),
                index => XattrValue::Chunk {
                    chunk: view.chunk(index - 1)?,
                    len: reader.varint_max("extended attribute", CHUNK_BYTES_MAX)? as u32,
                },
            };
            xattrs.push(Xattr { name, value });
        }
    }
    let kind = match kind {
        TYPE_FILE => {
            let size = reader.varint()?;
            let profile = Profile::from_byte(reader.u8()?)?;
            let hash = ContentHash::from_bytes(reader.array()?);
            let content = if flags & FLAG_CONTENT_LIST != 0 {
                Content::List(view.node(reader.varint()?)?)
            } else {
                let count = reader.varint_max("elements inside an entry", CONTENT_INLINE_MAX)?;
                let mut elements = Vec::with_capacity(count);
                for _ in 0..count {
                    elements.push(crate::filelist::take_element(reader, view)?);
                }
                Content::Inline(elements)
            };
            EntryKind::File { size, content, hash, profile }
        }
        TYPE_DIRECTORY => EntryKind::Directory,
        TYPE_SYMLINK => {
            EntryKind::Symlink { target: reader.bytes_max("symbolic link", SYMLINK_TARGET_BYTES_MAX)?.to_vec() }
        }
        TYPE_FIFO => EntryKind::Fifo,
        TYPE_SOCKET => EntryKind::Socket,
        TYPE_CHAR_DEVICE => {
            EntryKind::CharDevice { major: take_u32(reader, "device")?, minor: take_u32(reader, "device")? }
        }
        TYPE_BLOCK_DEVICE => {
            EntryKind::BlockDevice { major: take_u32(reader, "device")?, minor: take_u32(reader, "device")? }
        }
        _ => return Err(FormatError::invalid(WHAT, "unknown entry type")),
    };
    let entry = Entry { kind, mode, uid, gid, user, group, mtime, xattrs, link_group };
    check_entry(&entry)?;
    Ok(entry)
}

/// All entries of a leaf, in key order. Keys are checked: none can name `..` or hold a slash.
pub fn leaf_entries(view: &NodeView<'_>) -> Result<Vec<(PathKey, Entry)>, FormatError> {
    if view.kind != NodeKind::PathLeaf {
        return Err(FormatError::invalid(WHAT, "not a leaf"));
    }
    let mut reader = Reader::new(WHAT, view.body);
    let count = reader.varint_max("entries of a node", view.body.len())?;
    let mut entries: Vec<(PathKey, Entry)> = Vec::with_capacity(count.min(ITEMS_MAX));
    let mut names = Vec::new();
    for _ in 0..count {
        let previous = entries.last().map(|(key, _)| key.as_bytes());
        let key = PathKey::from_encoded(&take_shared(&mut reader, previous)?)?;
        let entry = take_entry(&mut reader, view, &mut names)?;
        entries.push((key, entry));
    }
    reader.finish()?;
    Ok(entries)
}

/// A child of an index node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IndexChild {
    /// First key below it.
    pub first_key: Vec<u8>,
    /// The child.
    pub node: NodeId,
    /// Entries below it.
    pub entries: u64,
    /// Bytes of file content below it.
    pub logical_bytes: u64,
}

/// All children of an index node, in key order.
pub fn index_children(view: &NodeView<'_>) -> Result<Vec<IndexChild>, FormatError> {
    if view.kind != NodeKind::PathIndex {
        return Err(FormatError::invalid(WHAT, "not an index node"));
    }
    let mut reader = Reader::new(WHAT, view.body);
    let count = reader.varint_max("children of a node", view.body.len())?;
    let mut children: Vec<IndexChild> = Vec::with_capacity(count.min(ITEMS_MAX));
    for _ in 0..count {
        let node = view.node(reader.varint()?)?;
        let entries = reader.varint()?;
        let logical_bytes = reader.varint()?;
        let previous = children.last().map(|child| child.first_key.as_slice());
        let first_key = take_shared(&mut reader, previous)?;
        children.push(IndexChild { first_key, node, entries, logical_bytes });
    }
    reader.finish()?;
    Ok(children)
}

pub(crate) fn leaf_logical_bytes(view: &NodeView<'_>, lengths: &dyn ChildLengths) -> Result<u64, FormatError> {
    let mut total = 0u64;
    for (_, entry) in leaf_entries(view)? {
        for xattr in &entry.xattrs {
            if let XattrValue::Chunk { chunk, len } = &xattr.value
                && lengths.chunk_bytes(chunk) != Some(u64::from(*len))
            {
                return Err(FormatError::invalid(WHAT, "an extended attribute is not its whole chunk"));
            }
        }
        if let EntryKind::File { size, content, .. } = &entry.kind {
            match content {
                Content::Inline(elements) => {
                    for element in elements {
                        crate::filelist::checked_len(element, lengths)?;
                    }
                }
                Content::List(root) if lengths.node_logical_bytes(root) == Some(*size) => {}
                Content::List(_) => return Err(FormatError::invalid(WHAT, "a content list has another length")),
            }
        }
        total = total.checked_add(entry.size()).ok_or(OVERFLOW)?;
    }
    Ok(total)
}

pub(crate) fn index_logical_bytes(view: &NodeView<'_>, lengths: &dyn ChildLengths) -> Result<u64, FormatError> {
    index_children(view)?.iter().try_fold(0u64, |sum, child| {
        if lengths.node_logical_bytes(&child.node) != Some(child.logical_bytes) {
            return Err(FormatError::invalid(WHAT, "a child has another length"));
        }
        sum.checked_add(child.logical_bytes).ok_or(OVERFLOW)
    })
}

#[cfg(test)]
mod tests;
