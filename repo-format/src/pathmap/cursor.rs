//! Reading a path map in key order, from any key on.

use super::{IndexChild, index_children, leaf_entries};
use crate::FormatError;
use crate::entry::{Entry, PathKey};
use crate::id::NodeId;
use crate::limits::TREE_DEPTH_MAX;
use crate::node::{NodeKind, NodeSource, NodeView};

struct Index {
    id: NodeId,
    children: Vec<IndexChild>,
    /// The child being read.
    position: usize,
}

struct Leaf {
    id: NodeId,
    entries: std::vec::IntoIter<(PathKey, Entry)>,
    /// Nothing of it has been returned.
    untouched: bool,
}

/// A position between two entries of a path map. Holds one node per level.
pub struct Cursor<S: NodeSource> {
    source: S,
    root: NodeId,
    indexes: Vec<Index>,
    leaf: Option<Leaf>,
    started: bool,
}

impl<S: NodeSource> Cursor<S> {
    /// Before the first entry of the map under `root`.
    pub fn new(source: S, root: NodeId) -> Self {
        Cursor { source, root, indexes: Vec::new(), leaf: None, started: false }
    }

    /// Goes before the first entry whose key is at or above `key` (encoded bytes, not necessarily a whole key).
    pub fn seek(&mut self, key: &[u8]) -> Result<(), S::Error> {
        self.started = true;
        self.leaf = None;
        // Keep the indexes whose range surely holds the key; forward seeks then read few nodes.
        while let Some(index) = self.indexes.pop() {
            let inside = index.children.first().is_some_and(|first| first.first_key.as_slice() <= key)
                && index.children.last().is_some_and(|last| key < last.first_key.as_slice());
            if inside {
                self.indexes.push(index);
                break;
            }
        }
        let start = match self.indexes.last_mut() {
            None => self.root,
            Some(index) => {
                index.position = index.children.partition_point(|child| child.first_key.as_slice() <= key).max(1) - 1;
                match index.children.get(index.position) {
                    Some(child) => child.node,
                    None => return Ok(()),
                }
            }
        };
        self.descend(start, Some(key))?;
        Ok(())
    }

    /// Opens `node` down to its first leaf, or to the leaf that holds `key`.
    fn descend(&mut self, mut node: NodeId, key: Option<&[u8]>) -> Result<(), S::Error> {
        loop {
            if self.indexes.len() > TREE_DEPTH_MAX {
                return Err(FormatError::invalid("path map", "deeper than the limit").into());
            }
            let bytes = self.source.node(&node)?;
            let view = NodeView::parse(&bytes)?;
            if view.kind == NodeKind::PathLeaf {
                let mut entries = leaf_entries(&view)?;
                let skipped = key.map_or(0, |key| entries.partition_point(|(at, _)| at.as_bytes() < key));
                entries.drain(..skipped);
                self.leaf = Some(Leaf { id: node, entries: entries.into_iter(), untouched: skipped == 0 });
                return Ok(());
            }
            let children = index_children(&view)?;
            let position = match key {
                Some(key) => children.partition_point(|child| child.first_key.as_slice() <= key).max(1) - 1,
                None => 0,
            };
            let next = children.get(position).map(|child| child.node);
            self.indexes.push(Index { id: node, children, position });
            match next {
                Some(next) => node = next,
                None => return Err(FormatError::invalid("path map", "an index node is empty").into()),
            }
        }
    }

    /// Makes the current leaf one that has entries left; `false` at the end of the map.
    fn fill(&mut self) -> Result<bool, S::Error> {
        if !self.started {
            self.started = true;
            self.descend(self.root, None)?;
        }
        loop {
            if self.leaf.as_ref().is_some_and(|leaf| !leaf.entries.as_slice().is_empty()) {
                return Ok(true);
            }
            self.leaf = None;
            let Some(index) = self.indexes.last_mut() else { return Ok(false) };
            index.position += 1;
            match index.children.get(index.position).map(|child| child.node) {
                Some(node) => self.descend(node, None)?,
                None => {
                    self.indexes.pop();
                }
            }
        }
    }

    /// The next entry and moves behind it; `None` at the end.
    #[expect(clippy::should_implement_trait, reason = "fallible")]
    pub fn next(&mut self) -> Result<Option<(PathKey, Entry)>, S::Error> {
        if !self.fill()? {
            return Ok(None);
        }
        Ok(self.leaf.as_mut().and_then(|leaf| {
            leaf.untouched = false;
            leaf.entries.next()
        }))
    }

    /// The next entry without moving.
    pub fn peek(&mut self) -> Result<Option<&(PathKey, Entry)>, S::Error> {
        if !self.fill()? {
            return Ok(None);
        }
        Ok(self.leaf.as_ref().and_then(|leaf| leaf.entries.as_slice().first()))
    }

    /// The entry with exactly this key; moves behind it.
    pub fn lookup(&mut self, key: &PathKey) -> Result<Option<Entry>, S::Error> {
        self.seek(key.as_bytes())?;
        match self.peek()? {
            Some((found, _)) if found == key => Ok(self.next()?.map(|(_, entry)| entry)),
            _ => Ok(None),
        }
    }

    /// Nodes that begin exactly at this position, highest first: a reader of two maps passes over those they share.
    pub fn nodes_beginning_here(&mut self) -> Result<Vec<NodeId>, S::Error> {
        if !self.fill()? || !self.leaf.as_ref().is_some_and(|leaf| leaf.untouched) {
            return Ok(Vec::new());
        }
        let beginning = self.indexes.iter().rev().take_while(|index| index.position == 0).count();
        let mut nodes: Vec<NodeId> =
            self.indexes[self.indexes.len() - beginning..].iter().map(|index| index.id).collect();
        nodes.extend(self.leaf.as_ref().map(|leaf| leaf.id));
        Ok(nodes)
    }

    /// Moves behind all entries of `node`, one of [`Cursor::nodes_beginning_here`].
    pub fn skip_node(&mut self, node: &NodeId) {
        if let Some(level) = self.indexes.iter().position(|index| index.id == *node) {
            self.indexes.truncate(level);
        }
        self.leaf = None;
        // The parent's position still names the skipped child; the next `fill` moves on from it.
    }
}
