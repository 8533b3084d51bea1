//! Content lists: the elements of a file too long to stand inside its entry, as a search tree by offset.

use crate::FormatError;
use crate::codec::{Reader, put_varint};
use crate::entry::{Content, Element};
use crate::id::NodeId;
use crate::keys::IdKeys;
use crate::limits::{CHUNK_BYTES_MAX, CONTENT_INLINE_MAX, TREE_DEPTH_MAX};
use crate::node::{BuiltNode, ChildLengths, Children, NodeKind, NodeSource, NodeView};
use crate::tree::{ITEMS_MAX, ITEMS_MIN, IndexItem, IndexLevels, OVERFLOW, begins_node};

const WHAT: &str = "content list";

/// Appends one element: 0 and the length of a hole, or 1 + chunk index, offset and length.
pub(crate) fn put_element(out: &mut Vec<u8>, children: &mut Children, element: &Element) {
    match element {
        Element::Hole { len } => {
            put_varint(out, 0);
            put_varint(out, *len);
        }
        Element::Data { chunk, offset, len } => {
            put_varint(out, children.chunk(*chunk) + 1);
            put_varint(out, u64::from(*offset));
            put_varint(out, u64::from(*len));
        }
    }
}

/// Reads what [`put_element`] wrote.
pub(crate) fn take_element(reader: &mut Reader<'_>, view: &NodeView<'_>) -> Result<Element, FormatError> {
    let element = match reader.varint()? {
        0 => Element::Hole { len: reader.varint()? },
        index => Element::Data {
            chunk: view.chunk(index - 1)?,
            offset: reader.varint_max("offset within a chunk", CHUNK_BYTES_MAX)? as u32,
            len: reader.varint_max("length within a chunk", CHUNK_BYTES_MAX)? as u32,
        },
    };
    if element.is_empty() { Err(FormatError::invalid(WHAT, "an element is empty")) } else { Ok(element) }
}

/// Checks that an element lies within its chunk; its length.
pub(crate) fn checked_len(element: &Element, lengths: &dyn ChildLengths) -> Result<u64, FormatError> {
    if let Element::Data { chunk, offset, len } = element {
        let bytes = lengths.chunk_bytes(chunk).ok_or(FormatError::invalid(WHAT, "length of a chunk is not known"))?;
        if u64::from(*offset) + u64::from(*len) > bytes {
            return Err(FormatError::invalid(WHAT, "a reference lies outside its chunk"));
        }
    }
    Ok(element.len())
}

/// Builds the content of one file from its elements in file order.
pub struct ContentListBuilder {
    pending: Vec<Element>,
    levels: IndexLevels,
    emitted: bool,
}

impl Default for ContentListBuilder {
    fn default() -> Self {
        Self::new()
    }
}

impl ContentListBuilder {
    /// Empty.
    pub fn new() -> Self {
        ContentListBuilder { pending: Vec::new(), levels: IndexLevels::new(NodeKind::ListIndex), emitted: false }
    }

    /// The next element; finished nodes go to `sink`, children before parents.
    pub fn push(
        &mut self,
        keys: &IdKeys,
        element: Element,
        sink: &mut dyn FnMut(BuiltNode),
    ) -> Result<(), FormatError> {
        if element.is_empty() {
            return Err(FormatError::invalid(WHAT, "an element is empty"));
        }
        let cut = match &element {
            Element::Data { chunk, .. } => self.pending.len() >= ITEMS_MIN && begins_node(keys, 0, chunk.as_bytes()),
            Element::Hole { .. } => false,
        };
        if cut || self.pending.len() >= ITEMS_MAX {
            self.emit(keys, sink)?;
        }
        self.pending.push(element);
        Ok(())
    }

    fn emit(&mut self, keys: &IdKeys, sink: &mut dyn FnMut(BuiltNode)) -> Result<(), FormatError> {
        let (mut children, mut body, mut logical_bytes) = (Children::default(), Vec::new(), 0u64);
        put_varint(&mut body, self.pending.len() as u64);
        for element in &self.pending {
            put_element(&mut body, &mut children, element);
            logical_bytes = logical_bytes.checked_add(element.len()).ok_or(OVERFLOW)?;
        }
        let count = self.pending.len() as u64;
        self.pending.clear();
        self.emitted = true;
        let node = children.build(keys, NodeKind::ListLeaf, logical_bytes, &body);
        let item = IndexItem { key: node.id.as_bytes().to_vec(), node: node.id, count, logical_bytes };
        sink(node);
        self.levels.push(keys, 0, item, sink)
    }

    /// The file's content.
    pub fn finish(mut self, keys: &IdKeys, sink: &mut dyn FnMut(BuiltNode)) -> Result<Content, FormatError> {
        if !self.emitted && self.pending.len() <= CONTENT_INLINE_MAX {
            return Ok(Content::Inline(self.pending));
        }
        if !self.pending.is_empty() {
            self.emit(keys, sink)?;
        }
        let root = self.levels.finish(keys, sink)?.ok_or(FormatError::invalid(WHAT, "no root"))?;
        Ok(Content::List(root))
    }
}

fn leaf_elements(view: &NodeView<'_>) -> Result<Vec<Element>, FormatError> {
    let mut reader = Reader::new(WHAT, view.body);
    let count = reader.varint_max("elements of a node", view.body.len())?;
    let mut elements = Vec::with_capacity(count.min(ITEMS_MAX));
    for _ in 0..count {
        elements.push(take_element(&mut reader, view)?);
    }
    reader.finish()?;
    Ok(elements)
}

struct IndexEntry {
    node: NodeId,
    logical_bytes: u64,
}

fn index_entries(view: &NodeView<'_>) -> Result<Vec<IndexEntry>, FormatError> {
    let mut reader = Reader::new(WHAT, view.body);
    let count = reader.varint_max("children of a node", view.body.len())?;
    let mut entries = Vec::with_capacity(count.min(ITEMS_MAX));
    for _ in 0..count {
        let node = view.node(reader.varint()?)?;
        reader.varint()?;
        entries.push(IndexEntry { node, logical_bytes: reader.varint()? });
    }
    reader.finish()?;
    Ok(entries)
}

pub(crate) fn leaf_logical_bytes(view: &NodeView<'_>, lengths: &dyn ChildLengths) -> Result<u64, FormatError> {
    leaf_elements(view)?
        .iter()
        .try_fold(0u64, |sum, element| sum.checked_add(checked_len(element, lengths)?).ok_or(OVERFLOW))
}

pub(crate) fn index_logical_bytes(view: &NodeView<'_>, lengths: &dyn ChildLengths) -> Result<u64, FormatError> {
    index_entries(view)?.iter().try_fold(0u64, |sum, entry| {
        if lengths.node_logical_bytes(&entry.node) != Some(entry.logical_bytes) {
            return Err(FormatError::invalid(WHAT, "a child has another length"));
        }
        sum.checked_add(entry.logical_bytes).ok_or(OVERFLOW)
    })
}

/// Walks a file's elements in order, or from any offset.
pub struct ContentCursor<S: NodeSource> {
    source: S,
    /// Work still to do, last first: (file offset, what).
    stack: Vec<(u64, usize, Step)>,
}

enum Step {
    Node(NodeId),
    Element(Element),
}

impl<S: NodeSource> ContentCursor<S> {
    /// At the start of `content`.
    pub fn new(source: S, content: &Content) -> Self {
        let mut cursor = ContentCursor { source, stack: Vec::new() };
        match content {
            Content::List(root) => cursor.stack.push((0, 0, Step::Node(*root))),
            Content::Inline(elements) => cursor.push_elements(0, 0, elements.iter().copied()),
        }
        cursor
    }

    fn push_elements(&mut self, start: u64, depth: usize, elements: impl Iterator<Item = Element>) {
        let first = self.stack.len();
        let mut offset = start;
        for element in elements {
            self.stack.push((offset, depth, Step::Element(element)));
            offset = offset.saturating_add(element.len());
        }
        self.stack[first..].reverse();
    }

    /// The next (file offset, element), or `None` at the end. With `from`, elements and whole subtrees that end at or
    /// before that offset are passed over without being read.
    pub fn next_from(&mut self, from: u64) -> Result<Option<(u64, Element)>, S::Error> {
        while let Some((offset, depth, step)) = self.stack.pop() {
            match step {
                Step::Element(element) if offset.saturating_add(element.len()) <= from => {}
                Step::Element(element) => return Ok(Some((offset, element))),
                Step::Node(id) => self.open(offset, depth, &id, from)?,
            }
        }
        Ok(None)
    }

    fn open(&mut self, offset: u64, depth: usize, id: &NodeId, from: u64) -> Result<(), S::Error> {
        if depth > TREE_DEPTH_MAX {
            return Err(FormatError::invalid(WHAT, "deeper than the limit").into());
        }
        let bytes = self.source.node(id)?;
        let view = NodeView::parse(&bytes)?;
        match view.kind {
            NodeKind::ListLeaf => self.push_elements(offset, depth, leaf_elements(&view)?.into_iter()),
            NodeKind::ListIndex => {
                let first = self.stack.len();
                let mut at = offset;
                for entry in index_entries(&view)? {
                    let end = at.checked_add(entry.logical_bytes).ok_or(OVERFLOW)?;
                    if end > from {
                        self.stack.push((at, depth + 1, Step::Node(entry.node)));
                    }
                    at = end;
                }
                self.stack[first..].reverse();
            }
            _ => return Err(FormatError::invalid(WHAT, "a child is not part of a content list").into()),
        }
        Ok(())
    }

    /// The next (file offset, element), or `None` at the end.
    #[expect(clippy::should_implement_trait, reason = "fallible, and named as in the path map's cursor")]
    pub fn next(&mut self) -> Result<Option<(u64, Element)>, S::Error> {
        self.next_from(0)
    }
}

#[cfg(test)]
mod tests;
