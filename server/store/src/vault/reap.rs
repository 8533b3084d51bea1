//! The reaper: removes objects whose count is zero and that nothing covers, and gives back the references of removed
//! nodes, so that what only they kept follows in a later step. Nodes are read outside the monitor; everything that
//! decides is read again inside.

use super::apply::{BATCH_ROWS_ENOUGH, NOBODY, Work};
use super::maintain::Maintained;
use super::upload::unpack;
use super::{Delivered, Vault};
use crate::error::StoreError;
use crate::meta::Table;
use repo_format::id::{ObjectId, ObjectKind, UploadSessionId};
use repo_format::node::NodeView;
use std::collections::{HashMap, VecDeque};
use std::sync::atomic::Ordering;

/// Objects removed in one step.
const OBJECTS_PER_STEP: usize = 256;
/// References given back in one step; one node alone may pass it.
const EDGES_PER_STEP: usize = 4096;
/// Nodes read ahead of their removal.
const NODES_PER_READ: usize = 64;

/// How far the reaper has come through the zero rows.
#[derive(Default)]
pub(crate) struct Reaper {
    /// Where the pass under way goes on; `None` between passes.
    from: Option<Vec<u8>>,
    /// Something was removed in this pass: its children may have got zero rows behind us.
    removed: bool,
    /// Read and ready to go, if they still may. A node's children follow from its id, so they cannot become untrue.
    doomed: VecDeque<Doomed>,
}

struct Doomed {
    id: ObjectId,
    children: Vec<ObjectId>,
}

impl Vault {
    /// Collection begins here after the vault was opened, nanoseconds since 1970, unless all its uploads are back.
    pub(super) fn reap_from_ns(&self) -> i64 {
        self.upkeep.opened_ns.load(Ordering::Acquire).saturating_add(self.shared.settings.reattach_ns)
    }

    /// Removes up to a step's worth of objects. `true`: there may be more.
    pub(super) fn reap_step(
        &self,
        reaper: &mut Reaper,
        now_ns: i64,
        done: &mut Maintained,
    ) -> Result<bool, StoreError> {
        if reaper.doomed.is_empty() {
            if now_ns < self.reap_from_ns() && self.state.lock().sessions.awaits_uploads() {
                return Ok(false);
            }
            if reaper.from.is_none() {
                if !self.upkeep.reap_wanted.swap(false, Ordering::AcqRel) {
                    return Ok(false);
                }
                reaper.from = Some(Vec::new());
                reaper.removed = false;
            }
            if let Err(error) = self.read_doomed(reaper, done) {
                self.upkeep.reap_wanted.store(true, Ordering::Release);
                return Err(error);
            }
        }
        let removed = self.remove_doomed(reaper, done)?;
        reaper.removed |= removed;
        if removed {
            self.upkeep.plan_wanted.store(true, Ordering::Release);
        }
        if reaper.from.is_none() && reaper.doomed.is_empty() && reaper.removed {
            // The pass is over; the next one takes what this one has set free.
            self.upkeep.reap_wanted.store(true, Ordering::Release);
            reaper.removed = false;
        }
        Ok(reaper.from.is_some() || !reaper.doomed.is_empty() || self.upkeep.reap_wanted.load(Ordering::Acquire))
    }

    /// Reads the next zero rows and the nodes among them.
    fn read_doomed(&self, reaper: &mut Reaper, done: &mut Maintained) -> Result<(), StoreError> {
        let from = reaper.from.take().unwrap_or_default();
        let page = self.meta().scan(&self.id, Table::Zero, &from, OBJECTS_PER_STEP)?;
        let mut ids = Vec::with_capacity(page.len());
        {
            let state = self.state.lock();
            for (key, value) in &page {
                let id = ObjectId::from_slice(key)?;
                if !state.sessions.cover(&id, Some(&UploadSessionId::from_slice(value)?)) {
                    ids.push(id);
                }
            }
        }
        let rows = self.object_rows(&ids)?;
        let (mut nodes, mut chunks) = (Vec::new(), Vec::new());
        let mut cut = None;
        for (id, row) in ids.iter().zip(rows) {
            match row {
                // Its children were never counted, since nobody knows them.
                Some(row) if row.is_lost() => chunks.push(Doomed { id: *id, children: Vec::new() }),
                Some(row) if row.kind == ObjectKind::Node && nodes.len() == NODES_PER_READ => {
                    cut = Some(*id);
                    break;
                }
                Some(row) if row.kind == ObjectKind::Node && row.damaged => done.unreadable_nodes += 1,
                Some(row) if row.kind == ObjectKind::Node => nodes.push(*id),
                Some(_) => chunks.push(Doomed { id: *id, children: Vec::new() }),
                None => {}
            }
        }
        let mut read = Vec::with_capacity(nodes.len());
        let mut plaintext = Vec::new();
        self.read_objects(&nodes, |delivered| {
            match delivered {
                Delivered::Object(object) => {
                    unpack(object.codec, &object.payload, object.plain_len, &mut plaintext)?;
                    let view = NodeView::parse(&plaintext)?;
                    let children = view.nodes().map(ObjectId::from).chain(view.chunks().map(ObjectId::from)).collect();
                    read.push(Doomed { id: object.id, children });
                }
                Delivered::Damaged(_) => done.unreadable_nodes += 1,
                Delivered::Absent(_) => {}
            }
            Ok(())
        })?;
        reaper.doomed.extend(chunks);
        reaper.doomed.extend(read);
        reaper.from = match (cut, page.last()) {
            (Some(id), _) => Some(id.as_bytes().to_vec()),
            (None, Some((last, _))) if page.len() == OBJECTS_PER_STEP => {
                let mut next = last.clone();
                next.push(0);
                Some(next)
            }
            _ => None,
        };
        Ok(())
    }

    /// Removes what was read, as far as it is still of count zero and uncovered.
    fn remove_doomed(&self, reaper: &mut Reaper, done: &mut Maintained) -> Result<bool, StoreError> {
        let (mut objects, mut edges) = (0, 0);
        for doomed in &reaper.doomed {
            if objects == OBJECTS_PER_STEP || (objects > 0 && edges + doomed.children.len() > EDGES_PER_STEP) {
                break;
            }
            objects += 1;
            edges += doomed.children.len();
        }
        if objects == 0 {
            return Ok(false);
        }
        let doomed: Vec<Doomed> = reaper.doomed.drain(..objects).collect();
        let mut ids: Vec<ObjectId> =
            doomed.iter().flat_map(|doomed| doomed.children.iter().chain([&doomed.id])).copied().collect();
        ids.sort_unstable();
        ids.dedup();
        // What has to come from the disk comes now, so that the monitor finds it in memory.
        self.object_rows(&ids)?;
        let keys: Vec<&[u8]> = doomed.iter().map(|doomed| doomed.id.as_bytes().as_slice()).collect();

        let mut state = self.state.lock();
        let before = state.ledger.physical_bytes;
        let zero_rows = self.meta().multi_get(&self.id, Table::Zero, &keys)?;
        let mut work = Work::new(self, *state.ledger, NOBODY);
        work.load(&ids)?;
        let mut removed = 0;
        for (doomed, zero_row) in doomed.iter().zip(zero_rows) {
            let Some(session) = zero_row else { continue };
            if state.sessions.cover(&doomed.id, Some(&UploadSessionId::from_slice(&session)?))
                || work.row(&doomed.id).is_none_or(|row| row.references > 0)
            {
                continue;
            }
            work.remove(&doomed.id)?;
            for child in &doomed.children {
                work.unreference(child);
            }
            removed += 1;
            work.write_if_above(BATCH_ROWS_ENOUGH)?;
        }
        if removed == 0 {
            return Ok(false);
        }
        work.finish(&HashMap::new())?;
        state.settle(&mut work, 0);
        let bytes = before.saturating_sub(state.ledger.physical_bytes);
        done.reaped_objects += removed;
        done.reaped_bytes += bytes;
        self.shared.stats.reaped(removed, bytes);
        Ok(true)
    }
}
