//! What recovery does with nodes whose children are nowhere, because a pack is gone or a frame rotten. A node that no
//! snapshot needs was never acknowledged and is left out. One that a snapshot needs gets its row all the same, and every
//! child that no pack has a row that says *lost*: so damage costs the files it hit, never the snapshot.

use super::Vault;
use super::apply::{NOBODY, Work};
use super::recover::WaitingNode;
use crate::error::StoreError;
use crate::meta::rows::ObjectRow;
use repo_format::id::{ObjectId, ObjectKind};
use repo_format::limits::TREE_DEPTH_MAX;
use repo_format::node::NodeView;
use std::collections::{HashMap, HashSet};

/// A path map and, below its leaves, a content list.
const DEPTH_MAX: usize = 2 * TREE_DEPTH_MAX + 2;

impl Vault {
    /// Gives rows to those of `waiting` that `roots` reach. Answers how many, and how many stay without.
    pub(super) fn salvage(&self, roots: &[ObjectId], waiting: Vec<WaitingNode>) -> Result<(u64, u64), StoreError> {
        let mut nodes: HashMap<ObjectId, Vec<WaitingNode>> = HashMap::new();
        for node in waiting {
            nodes.entry(node.frame.id).or_default().push(node);
        }
        let mut added = 0;
        for root in roots {
            self.salvage_below(root, &mut nodes, &mut HashSet::new(), &mut added)?;
        }
        Ok((added, nodes.len() as u64))
    }

    /// Children first; a node is tried once.
    fn salvage_below(
        &self,
        id: &ObjectId,
        nodes: &mut HashMap<ObjectId, Vec<WaitingNode>>,
        above: &mut HashSet<ObjectId>,
        added: &mut u64,
    ) -> Result<(), StoreError> {
        let Some(copies) = nodes.remove(id) else { return Ok(()) };
        let Some((mut row, plaintext)) = copies.iter().find_map(|node| self.read_waiting(node)) else { return Ok(()) };
        let view = NodeView::parse(&plaintext)?;
        row.logical_bytes = view.logical_bytes;
        if above.len() < DEPTH_MAX && above.insert(*id) {
            for child in view.nodes().map(ObjectId::from) {
                self.salvage_below(&child, nodes, above, added)?;
            }
            above.remove(id);
        }
        let children: Vec<(ObjectId, ObjectKind)> = view
            .nodes()
            .map(|id| (ObjectId::from(id), ObjectKind::Node))
            .chain(view.chunks().map(|id| (ObjectId::from(id), ObjectKind::Chunk)))
            .collect();
        let mut ids: Vec<ObjectId> = children.iter().map(|(id, _)| *id).collect();
        ids.push(*id);
        let mut state = self.state.lock();
        let mut work = Work::new(self, *state.ledger, NOBODY);
        work.load(&ids)?;
        if work.row(id).is_some_and(|row| !row.is_lost()) {
            return Ok(());
        }
        for (child, kind) in &children {
            if work.row(child).is_none() {
                tracing::error!(vault = %self.id, object = %child, parent = %id, "an object of a snapshot is in no pack; it counts as damaged");
                work.lose(*child, ObjectRow::lost(*kind, 0));
            }
        }
        work.record(*id, row, NOBODY)?;
        for (child, _) in &children {
            work.reference(child)?;
        }
        work.finish(&HashMap::new())?;
        state.settle(&mut work, 0);
        *added += 1;
        Ok(())
    }
}
