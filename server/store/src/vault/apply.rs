//! The one place where objects become durable rows: composes the batches for everything a barrier covers, and for nodes
//! whose children all exist at that moment. Runs inside the vault's monitor and never yields.

use super::claims::Sessions;
use super::{State, Vault};
use crate::error::StoreError;
use crate::meta::rows::{DamageRow, LEDGER_KEY, Ledger, ObjectRow, PackRow, PackState, Place, hold_key, pack_key};
use crate::meta::{BATCH_ROWS_MAX, Batch, Table, Ticket};
use crate::pack::{Appender, Sealable};
use crate::sync::Mutex;
use repo_format::id::{ChunkId, NodeId, ObjectId, ObjectKind, PackId, UploadSessionId};
use repo_format::limits::NODE_CHILDREN_MAX;
use repo_format::node::{ChildLengths, NodeView, verify};
use repo_format::pack::PackKind;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

/// A node that has its id and whose header is sound.
pub(crate) struct PreparedNode {
    pub(crate) id: ObjectId,
    pub(crate) plaintext: Vec<u8>,
    pub(crate) node_children: Vec<ObjectId>,
    pub(crate) chunk_children: Vec<ObjectId>,
    pub(crate) logical_bytes: u64,
}

impl PreparedNode {
    fn children(&self) -> impl Iterator<Item = &ObjectId> {
        self.node_children.iter().chain(&self.chunk_children)
    }
}

/// A batch with more rows than this is written before the next node.
pub(crate) const BATCH_ROWS_ENOUGH: usize = BATCH_ROWS_MAX / 8;

// One node more changes its row, its children's rows and zero rows, its holds, packs and the ledger.
const _: () = assert!(BATCH_ROWS_ENOUGH + 3 * NODE_CHILDREN_MAX + 64 < BATCH_ROWS_MAX);

/// An object being changed.
struct Object {
    row: ObjectRow,
    /// A zero row exists in the index.
    zero_stored: bool,
    /// What a zero row names.
    session: UploadSessionId,
    changed: bool,
}

/// Lengths for the logical check: rows of children, and nodes of the same request.
struct Lengths<'a> {
    rows: &'a HashMap<ObjectId, ObjectRow>,
    request: &'a HashMap<ObjectId, u64>,
}

impl ChildLengths for Lengths<'_> {
    fn chunk_bytes(&self, id: &ChunkId) -> Option<u64> {
        let row = self.rows.get(&ObjectId::from(*id)).filter(|row| row.kind == ObjectKind::Chunk)?;
        Some(row.plain_len.into())
    }
    fn node_logical_bytes(&self, id: &NodeId) -> Option<u64> {
        let id = ObjectId::from(*id);
        let stored = self.rows.get(&id).filter(|row| row.kind == ObjectKind::Node).map(|row| row.logical_bytes);
        stored.or_else(|| self.request.get(&id).copied())
    }
}

impl Vault {
    /// Checks, outside the monitor, that all children are there now and that every node's figures are true. What is
    /// missing is found again inside; this keeps most refusals from writing anything.
    pub(crate) fn check_children(&self, nodes: &[PreparedNode]) -> Result<(), StoreError> {
        let mut request: HashMap<ObjectId, u64> = HashMap::new();
        let mut wanted: Vec<ObjectId> = nodes.iter().flat_map(PreparedNode::children).copied().collect();
        wanted.sort_unstable();
        wanted.dedup();
        let mut rows: HashMap<ObjectId, ObjectRow> = HashMap::new();
        {
            let state = self.state.lock();
            rows.extend(wanted.iter().filter_map(|id| Some((*id, state.pending.get(id)?.row))));
        }
        for (id, row) in wanted.iter().zip(self.object_rows(&wanted)?) {
            if let Some(row) = row.filter(|row| !row.damaged) {
                rows.insert(*id, row);
            }
        }
        let mut missing = Vec::new();
        for node in nodes {
            let absent = |id: &&ObjectId| !rows.contains_key(id) && !request.contains_key(id);
            missing.extend(node.children().filter(absent).copied());
            request.insert(node.id, node.logical_bytes);
        }
        if !missing.is_empty() {
            missing.sort_unstable();
            missing.dedup();
            return Err(StoreError::Missing(missing));
        }
        let lengths = Lengths { rows: &rows, request: &request };
        for node in nodes {
            let view = NodeView::parse(&node.plaintext)?;
            verify(&view, &lengths).map_err(|source| StoreError::BadNode { id: node.id, source })?;
        }
        Ok(())
    }

    /// Writes the rows of all pending objects that are on disk, then `nodes` with the references they take, held by
    /// `session`, which must live. `rows` has the new places of nodes that are not stored yet. The caller syncs the
    /// ticket before it answers.
    pub(crate) fn apply(
        &self,
        state: &mut State,
        session: &UploadSessionId,
        nodes: &[PreparedNode],
        rows: &HashMap<ObjectId, ObjectRow>,
    ) -> Result<Ticket, StoreError> {
        if !nodes.is_empty() {
            state.sessions.enter(session, self.now_ns())?;
        }
        let durable = self.appender.lock().durable();
        let on_disk = |row: &ObjectRow| durable.get(&row.place.pack).is_some_and(|len| row.place.end() <= *len);
        let mut work = Work::new(self, *state.ledger, *session);

        // What is already in the index of all objects this call touches.
        let mut ids: Vec<ObjectId> = nodes.iter().flat_map(|node| node.children().chain([&node.id])).copied().collect();
        ids.extend(state.pending.iter().filter(|(_, pending)| pending.heals).map(|(id, _)| *id));
        ids.sort_unstable();
        ids.dedup();
        work.load(&ids)?;

        let recorded: Vec<ObjectId> =
            state.pending.iter().filter(|(_, pending)| on_disk(&pending.row)).map(|(id, _)| *id).collect();

        // First the check, so that a refusal leaves nothing half done.
        let ready: HashSet<&ObjectId> = recorded.iter().collect();
        let mut accepted: HashSet<ObjectId> = HashSet::new();
        let mut missing = Vec::new();
        for node in nodes {
            let present = |id: &ObjectId| {
                ready.contains(id)
                    || accepted.contains(id)
                    || work.objects.get(id).is_some_and(|object| !object.row.damaged)
            };
            missing.extend(node.children().filter(|id| !present(id)).copied());
            let stored = work.objects.get(&node.id).is_some_and(|object| !object.row.damaged);
            if !stored && !rows.get(&node.id).is_some_and(on_disk) {
                missing.push(node.id);
            }
            accepted.insert(node.id);
        }
        if !missing.is_empty() {
            missing.sort_unstable();
            missing.dedup();
            return Err(StoreError::Missing(missing));
        }

        for id in &recorded {
            if let Some(pending) = state.pending.get(id) {
                work.record(*id, pending.row, pending.session)?;
                work.write_if_above(BATCH_ROWS_ENOUGH)?;
            }
        }
        for node in nodes {
            let stored = work.objects.get(&node.id).is_some_and(|object| !object.row.damaged);
            if stored {
                // Another session stored it in between: what this call appended is dead.
                if let Some(row) = rows.get(&node.id) {
                    work.give_up(row.place.pack);
                }
            } else if let Some(row) = rows.get(&node.id) {
                // A damaged node's children have its references already; a lost one's do not.
                let counted = work.row(&node.id).is_some_and(|row| !row.is_lost());
                work.record(node.id, *row, *session)?;
                if !counted {
                    for child in node.children() {
                        work.reference(child)?;
                    }
                }
            }
            work.hold(node, &state.sessions);
            work.write_if_above(BATCH_ROWS_ENOUGH)?;
        }
        let ticket = work.finish(&durable)?;
        let mut settled: u64 = rows.values().map(|row| u64::from(row.place.frame_len)).sum();
        for node in nodes {
            // Every child has a stored parent now, and the session holds the node itself.
            for child in node.children() {
                state.sessions.unclaim(session, child);
                state.sessions.held(session, child, false);
            }
            state.sessions.unclaim(session, &node.id);
            state.sessions.held(session, &node.id, true);
        }
        for id in &recorded {
            settled += state.pending.remove(id).map_or(0, |pending| u64::from(pending.row.place.frame_len));
        }
        state.settle(&mut work, settled);
        Ok(ticket)
    }
}

impl State {
    /// Takes over what finished work has changed; `appended` bytes of frames now have their rows, or never will.
    pub(crate) fn settle(&mut self, work: &mut Work<'_>, appended: u64) {
        self.ledger.record(work.ledger, appended);
        self.emptied.append(&mut work.emptied);
        self.sealed_bytes += std::mem::take(&mut work.sealed_bytes);
    }
}

/// Batches under construction.
pub(crate) struct Work<'v> {
    vault: &'v Vault,
    /// Whose packs are recorded and sealed.
    writer: &'v Mutex<Appender>,
    session: UploadSessionId,
    pub(crate) ledger: Ledger,
    objects: HashMap<ObjectId, Object>,
    changed: Vec<ObjectId>,
    removed: Vec<ObjectId>,
    packs: BTreeMap<PackId, PackRow>,
    /// Frames whose rows this call has composed, by pack.
    recorded: BTreeMap<PackId, u64>,
    holds: BTreeMap<ObjectId, bool>,
    /// Objects that lose their damage row.
    healed: Vec<ObjectId>,
    /// Objects that get one.
    lost: Vec<ObjectId>,
    /// Sealed packs that have lost their last live frame.
    emptied: BTreeSet<PackId>,
    /// Frame bytes of packs sealed.
    sealed_bytes: u64,
    ticket: Ticket,
}

/// What zero rows name that no upload recorded.
pub(crate) const NOBODY: UploadSessionId = UploadSessionId::from_bytes([0; UploadSessionId::LEN]);

impl<'v> Work<'v> {
    pub(crate) fn new(vault: &'v Vault, ledger: Ledger, session: UploadSessionId) -> Self {
        Self::with_writer(vault, ledger, session, &vault.appender)
    }

    /// Work that records frames of another writer than the vault's uploads.
    pub(crate) fn with_writer(
        vault: &'v Vault,
        ledger: Ledger,
        session: UploadSessionId,
        writer: &'v Mutex<Appender>,
    ) -> Self {
        Work {
            vault,
            writer,
            session,
            ledger,
            objects: HashMap::new(),
            changed: Vec::new(),
            removed: Vec::new(),
            packs: BTreeMap::new(),
            recorded: BTreeMap::new(),
            holds: BTreeMap::new(),
            healed: Vec::new(),
            lost: Vec::new(),
            emptied: BTreeSet::new(),
            sealed_bytes: 0,
            ticket: Ticket::default(),
        }
    }

    fn pack(&mut self, pack: PackId, kind: PackKind) -> Result<&mut PackRow, StoreError> {
        use std::collections::btree_map::Entry;
        match self.packs.entry(pack) {
            Entry::Occupied(entry) => Ok(entry.into_mut()),
            Entry::Vacant(entry) => {
                let stored = self.vault.meta().get(&self.vault.id, Table::Pack, &pack_key(&pack))?;
                Ok(entry.insert(stored.map_or(Ok(PackRow::new(kind)), |bytes| PackRow::decode(&bytes))?))
            }
        }
    }

    /// A row for a new object, or a new place for a damaged one. The zero row of a new one names `session`.
    pub(crate) fn record(&mut self, id: ObjectId, new: ObjectRow, session: UploadSessionId) -> Result<(), StoreError> {
        let pack = self.pack(new.place.pack, PackKind::of(new.kind))?;
        pack.live_bytes += u64::from(new.place.frame_len);
        pack.live_frames += 1;
        *self.recorded.entry(new.place.pack).or_default() += 1;
        match self.objects.get(&id).map(|object| object.row) {
            None => {
                self.ledger.add(&new);
                self.objects.insert(id, Object { row: new, zero_stored: false, session, changed: false });
            }
            Some(old) => {
                let healed = ObjectRow { references: old.references, ..new };
                if !old.is_lost() {
                    let was = self.pack(old.place.pack, PackKind::of(old.kind))?;
                    was.live_bytes = was.live_bytes.saturating_sub(old.place.frame_len.into());
                    was.live_frames = was.live_frames.saturating_sub(1);
                }
                if old.damaged {
                    self.healed.push(id);
                }
                self.ledger.replace(&old, &healed);
                if let Some(object) = self.objects.get_mut(&id) {
                    object.row = healed;
                }
            }
        }
        self.touch(&id);
        Ok(())
    }

    /// A row for an object that something refers to and no pack has.
    pub(crate) fn lose(&mut self, id: ObjectId, row: ObjectRow) {
        self.ledger.add(&row);
        self.objects.insert(id, Object { row, zero_stored: false, session: NOBODY, changed: false });
        self.lost.push(id);
        self.touch(&id);
    }

    /// Removes the row of an object that nothing refers to and nothing holds. Its references are the caller's to give
    /// back.
    pub(crate) fn remove(&mut self, id: &ObjectId) -> Result<(), StoreError> {
        let Some(object) = self.objects.remove(id) else { return Ok(()) };
        self.ledger.remove(&object.row);
        if !object.row.is_lost() {
            let pack = self.pack(object.row.place.pack, PackKind::of(object.row.kind))?;
            pack.live_bytes = pack.live_bytes.saturating_sub(object.row.place.frame_len.into());
            pack.live_frames = pack.live_frames.saturating_sub(1);
        }
        if object.row.damaged {
            self.healed.push(*id);
        }
        self.removed.push(*id);
        Ok(())
    }

    /// A copy of the object's frame takes the place of the frame.
    pub(crate) fn replace(&mut self, id: &ObjectId, place: Place) -> Result<(), StoreError> {
        let Some(object) = self.objects.get_mut(id) else { return Ok(()) };
        let old = std::mem::replace(&mut object.row.place, place);
        let kind = PackKind::of(object.row.kind);
        self.touch(id);
        let was = self.pack(old.pack, kind)?;
        was.live_bytes = was.live_bytes.saturating_sub(old.frame_len.into());
        was.live_frames = was.live_frames.saturating_sub(1);
        let generation = was.generation.saturating_add(1);
        let is = self.pack(place.pack, kind)?;
        is.live_bytes += u64::from(place.frame_len);
        is.live_frames += 1;
        is.generation = is.generation.max(generation);
        *self.recorded.entry(place.pack).or_default() += 1;
        Ok(())
    }

    /// A frame of the pack will never have a row.
    pub(crate) fn give_up(&mut self, pack: PackId) {
        *self.recorded.entry(pack).or_default() += 1;
    }

    /// The batch being composed leaves the pack complete.
    pub(crate) fn seal_pack(&mut self, sealed: &Sealable) -> Result<(), StoreError> {
        let now_ns = self.vault.now_ns().max(0) as u64;
        let row = self.pack(sealed.pack, sealed.kind)?;
        row.state = PackState::Sealed;
        row.durable_len = sealed.len;
        row.frame_bytes = sealed.frame_bytes;
        row.sealed_ns = now_ns;
        self.sealed_bytes += sealed.frame_bytes;
        Ok(())
    }

    /// Loads rows of objects this work is going to touch.
    pub(crate) fn load(&mut self, ids: &[ObjectId]) -> Result<(), StoreError> {
        for (id, row) in ids.iter().zip(self.vault.object_rows(ids)?) {
            if let Some(row) = row {
                let loaded = Object { row, zero_stored: row.references == 0, session: NOBODY, changed: false };
                self.objects.entry(*id).or_insert(loaded);
            }
        }
        Ok(())
    }

    /// The row of an object that was loaded or recorded.
    pub(crate) fn row(&self, id: &ObjectId) -> Option<&ObjectRow> {
        self.objects.get(id).map(|object| &object.row)
    }

    fn touch(&mut self, id: &ObjectId) {
        if let Some(object) = self.objects.get_mut(id).filter(|object| !object.changed) {
            object.changed = true;
            self.changed.push(*id);
        }
    }

    /// A stored node has it as a child.
    pub(crate) fn reference(&mut self, id: &ObjectId) -> Result<(), StoreError> {
        let Some(object) = self.objects.get_mut(id) else { return Err(StoreError::Missing(vec![*id])) };
        if object.row.references == 0 {
            self.ledger.referenced(&object.row);
        }
        object.row.references += 1;
        self.touch(id);
        Ok(())
    }

    /// A stored node that had it as a child is gone.
    pub(crate) fn unreference(&mut self, id: &ObjectId) {
        let vault = self.vault.id;
        let Some(object) = self.objects.get_mut(id) else {
            tracing::error!(%vault, object = %id, "a collected node referred to an object without a row");
            return;
        };
        if object.row.references == 0 {
            tracing::error!(%vault, object = %id, "the references of an object were counted too low");
            return;
        }
        object.row.references -= 1;
        if object.row.references == 0 {
            self.ledger.unreferenced(&object.row);
            object.session = NOBODY;
        }
        self.touch(id);
    }

    /// The session holds the node, and no longer its children: the node does.
    fn hold(&mut self, node: &PreparedNode, sessions: &Sessions) {
        for child in node.children() {
            if self.holds.contains_key(child) || sessions.holds(&self.session, child) {
                self.holds.insert(*child, false);
            }
        }
        self.hold_object(node.id);
    }

    /// The session holds the object by a row.
    pub(crate) fn hold_object(&mut self, id: ObjectId) {
        self.holds.insert(id, true);
    }

    fn rows(&self) -> usize {
        2 * (self.changed.len() + self.removed.len())
            + self.healed.len()
            + self.lost.len()
            + self.holds.len()
            + self.packs.len()
            + 1
    }

    pub(crate) fn write_if_above(&mut self, rows: usize) -> Result<(), StoreError> {
        if self.rows() > rows { self.write(None) } else { Ok(()) }
    }

    /// As [`Work::write_if_above`] for work that changes pack rows only: they are let go of once written.
    pub(crate) fn write_packs_if_above(&mut self, rows: usize) -> Result<(), StoreError> {
        if self.packs.len() > rows {
            self.write(None)?;
            self.packs.clear();
        }
        Ok(())
    }

    fn write(&mut self, durable: Option<&HashMap<PackId, u64>>) -> Result<(), StoreError> {
        let mut batch = Batch::default();
        for id in std::mem::take(&mut self.changed) {
            let Some(object) = self.objects.get_mut(&id) else { continue };
            object.changed = false;
            batch.put(Table::Object, *id.as_bytes(), object.row.encode());
            let zero = object.row.references == 0;
            if zero && !object.zero_stored {
                batch.put(Table::Zero, *id.as_bytes(), object.session.as_bytes().to_vec());
            } else if !zero && object.zero_stored {
                batch.delete(Table::Zero, *id.as_bytes());
            }
            object.zero_stored = zero;
        }
        for id in std::mem::take(&mut self.healed) {
            batch.delete(Table::Damage, *id.as_bytes());
        }
        for id in std::mem::take(&mut self.lost) {
            let Some(place) = self.objects.get(&id).map(|object| object.row.place) else { continue };
            let found_ns = self.vault.now_ns();
            batch.put(Table::Damage, *id.as_bytes(), DamageRow { place, found_ns }.encode());
        }
        for id in std::mem::take(&mut self.removed) {
            batch.delete(Table::Object, *id.as_bytes());
            batch.delete(Table::Zero, *id.as_bytes());
        }
        for (node, held) in std::mem::take(&mut self.holds) {
            let key = hold_key(&self.session, &node);
            if held { batch.put(Table::Session, key, Vec::new()) } else { batch.delete(Table::Session, key) }
        }
        if let Some(durable) = durable {
            for (pack, len) in durable {
                if let Some(row) = self.packs.get_mut(pack) {
                    row.durable_len = row.durable_len.max(*len);
                }
            }
        }
        for (pack, row) in &self.packs {
            if row.state == PackState::Sealed && row.live_frames == 0 {
                self.emptied.insert(*pack);
            }
            batch.put(Table::Pack, pack_key(pack), row.encode());
        }
        batch.put(Table::Ledger, LEDGER_KEY, self.ledger.encode());
        self.ticket = self.vault.meta().write(&self.vault.id, batch)?;
        Ok(())
    }

    /// The last batch: it also marks packs sealed whose every frame has its row now.
    pub(crate) fn finish(&mut self, durable: &HashMap<PackId, u64>) -> Result<Ticket, StoreError> {
        let writer = self.writer;
        let mut appender = writer.lock();
        for (pack, frames) in std::mem::take(&mut self.recorded) {
            appender.recorded(&pack, frames);
        }
        let sealable = appender.sealable();
        for sealed in &sealable {
            self.seal_pack(sealed)?;
        }
        let unchanged = self.rows() == 1 && self.ticket == Ticket::default();
        if unchanged {
            // Another call may have written our rows and not synced them yet: the answer waits for its sync as well.
            self.ticket = self.vault.meta().written();
        } else {
            self.write(Some(durable))?;
        }
        for sealed in &sealable {
            appender.sealed(&sealed.pack);
        }
        Ok(self.ticket)
    }
}
