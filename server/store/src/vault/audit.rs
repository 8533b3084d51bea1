//! Audit: all references are counted again from stored nodes and snapshots, beside live traffic, and compared with the
//! rows. What changes meanwhile is logged and counted again in a later round, so a difference is never a race.
//!
//! Memory is bounded: objects are counted in slices of their ids, one pass over all nodes each. A count that is too low
//! could cost data and is raised at once; one that is too high costs space and is lowered only when asked.

mod changes;

pub(crate) use changes::ChangeLog;
use changes::Changes;

use super::apply::{NOBODY, Work};
use super::upload::unpack;
use super::{PAGE_ROWS, State, Vault};
use crate::error::StoreError;
use crate::meta::rows::{LEDGER_KEY, Ledger, ObjectRow, PackRow, SnapshotRow, pack_key, pack_of_key};
use crate::meta::{Batch, Table};
use crate::vault::Delivered;
use repo_format::id::{ObjectId, ObjectKind, PackId};
use repo_format::node::NodeView;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Range;
use std::sync::atomic::Ordering;

/// Slices are ranges of the first two bytes of ids.
const SLICES_MAX: u64 = 1 << 16;
/// Rounds over what changed while it was counted.
const ROUNDS_MAX: usize = 3;
/// Lines of a report.
const LINES_MAX: usize = 100;
/// Counts corrected in one batch: an object row and a zero row each.
const CORRECTIONS_PER_BATCH: usize = 1000;

const _: () = assert!(2 * CORRECTIONS_PER_BATCH + 1 < crate::meta::BATCH_ROWS_MAX);

/// What an audit may correct.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AuditRepair {
    /// Counts that are too low: the only ones that could cost data.
    TooLow,
    /// Everything: counts that are too high, byte counts, nodes that nothing refers to and nothing can read.
    Everything,
}

/// What an audit found. All zero but for the first three in a sound vault.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AuditReport {
    /// Objects counted.
    pub objects: u64,
    /// Nodes read.
    pub nodes: u64,
    /// References counted.
    pub references: u64,
    /// Objects whose count was too low; raised.
    pub too_low: u64,
    /// Objects whose count is too high: their space is never given back.
    pub too_high: u64,
    /// Of them, lowered.
    pub lowered: u64,
    /// Objects that something refers to and no row knows; they now have rows as damaged ones and heal when sent again.
    pub missing: u64,
    /// Nodes that cannot be read. What they refer to is not known, so no count is called too high because of them.
    pub unreadable_nodes: u64,
    /// Of them, unreferenced ones that were removed.
    pub unreadable_removed: u64,
    /// Objects that changed in every round: not judged.
    pub unsettled: u64,
    /// Byte counts (ledger, packs, list of unreferenced objects) that differ from the rows they count.
    pub miscounted: u64,
    /// Every difference found, for people; at most a hundred.
    pub lines: Vec<String>,
    /// The audit ran to its end.
    pub complete: bool,
}

impl AuditReport {
    fn line(&mut self, line: impl FnOnce() -> String) {
        if self.lines.len() < LINES_MAX {
            self.lines.push(line());
        }
    }

    /// Nothing differs.
    pub const fn is_clean(&self) -> bool {
        self.too_low == 0 && self.too_high == 0 && self.missing == 0 && self.miscounted == 0
    }
}

/// Which objects a pass counts.
enum Wanted {
    Range(Range<u64>),
    Set(BTreeSet<ObjectId>),
}

impl Wanted {
    fn holds(&self, id: &ObjectId) -> bool {
        match self {
            Wanted::Range(range) => {
                let [a, b, ..] = id.as_bytes();
                range.contains(&(u64::from(*a) << 8 | u64::from(*b)))
            }
            Wanted::Set(ids) => ids.contains(id),
        }
    }
}

/// One object in a pass.
#[derive(Default)]
struct Count {
    counted: u64,
    /// What its row says, if there is one.
    row: Option<u64>,
    is_node: bool,
}

/// What a pass adds up.
#[derive(Default)]
struct Pass {
    counts: HashMap<ObjectId, Count>,
    sums: Ledger,
    packs: BTreeMap<PackId, (u64, u64)>,
    unreadable: BTreeSet<ObjectId>,
    /// Unreferenced objects without a zero row.
    unlisted: Vec<ObjectId>,
    nodes: u64,
    references: u64,
}

impl Pass {
    fn sum(&mut self, row: &ObjectRow) {
        self.sums.add(row);
        if row.references > 0 {
            self.sums.referenced(row);
        }
        if !row.is_lost() {
            let pack = self.packs.entry(row.place.pack).or_default();
            *pack = (pack.0 + u64::from(row.place.frame_len), pack.1 + 1);
        }
    }

    fn take_back(&mut self, row: &ObjectRow) {
        let frame_len = u64::from(row.place.frame_len);
        self.sums.physical_bytes = self.sums.physical_bytes.saturating_sub(frame_len);
        if row.references == 0 {
            self.sums.pending_bytes = self.sums.pending_bytes.saturating_sub(frame_len);
        }
        match row.kind {
            ObjectKind::Chunk => self.sums.chunks = self.sums.chunks.saturating_sub(1),
            ObjectKind::Node => self.sums.nodes = self.sums.nodes.saturating_sub(1),
        }
        if let Some(pack) = self.packs.get_mut(&row.place.pack).filter(|_| !row.is_lost()) {
            *pack = (pack.0.saturating_sub(frame_len), pack.1.saturating_sub(1));
        }
    }

    fn count(&mut self, wanted: &Wanted, child: ObjectId, is_node: bool) {
        self.references += 1;
        if wanted.holds(&child) {
            let count = self.counts.entry(child).or_default();
            count.counted += 1;
            count.is_node |= is_node;
        }
    }
}

impl Vault {
    /// Counts everything again and compares. `go_on` is asked after every page of about a thousand objects, for pacing;
    /// `false` ends the audit there. One audit of a vault at a time.
    pub(crate) fn audit(
        &self,
        repair: AuditRepair,
        go_on: &mut dyn FnMut() -> bool,
    ) -> Result<AuditReport, StoreError> {
        let Some(_running) = self.auditing.try_lock() else {
            return Err(StoreError::Unknown("an audit of this vault is running"));
        };
        let mut report = AuditReport::default();
        let ledger = self.ledger();
        let slices = (ledger.chunks + ledger.nodes)
            .div_ceil(self.shared.settings.audit_slice_objects.max(1))
            .clamp(1, SLICES_MAX);
        let mut again = BTreeSet::new();
        for slice in 0..slices {
            let range = slice * SLICES_MAX / slices..(slice + 1) * SLICES_MAX / slices;
            if !self.audit_pass(&Wanted::Range(range), slice == 0, repair, &mut report, &mut again, go_on)? {
                return Ok(report);
            }
        }
        for _ in 0..ROUNDS_MAX {
            if again.is_empty() {
                break;
            }
            let wanted = Wanted::Set(std::mem::take(&mut again));
            if !self.audit_pass(&wanted, false, repair, &mut report, &mut again, go_on)? {
                return Ok(report);
            }
        }
        report.unsettled = again.len() as u64;
        report.complete = true;
        Ok(report)
    }

    /// One pass over all rows and nodes; `false` when it was ended early. What it could not judge goes to `again`.
    fn audit_pass(
        &self,
        wanted: &Wanted,
        first: bool,
        repair: AuditRepair,
        report: &mut AuditReport,
        again: &mut BTreeSet<ObjectId>,
        go_on: &mut dyn FnMut() -> bool,
    ) -> Result<bool, StoreError> {
        {
            let _state = self.state.lock();
            self.gate.changes().begin();
        }
        let outcome = self.count_pass(wanted, go_on);
        let mut state = self.state.lock();
        let changes = self.gate.changes().end();
        let Some(mut pass) = outcome? else { return Ok(false) };
        if first {
            report.nodes = pass.nodes;
            report.references = pass.references;
            report.objects = pass.sums.chunks + pass.sums.nodes;
            report.unreadable_nodes = pass.unreadable.len() as u64;
            let mut work = Corrections::new(&state);
            self.compare_sums(&mut pass, &changes, repair, report, &mut work)?;
            work.write(self, &mut state)?;
            if repair == AuditRepair::Everything {
                report.unreadable_removed = self.remove_unreadable(&mut state, &mut pass, &changes)?;
            }
        }
        if changes.overflowed {
            // Too much changed to tell what did: nothing of this pass is judged.
            report.unsettled += pass.counts.len() as u64;
        } else {
            let mut work = Corrections::new(&state);
            self.judge(&pass, &changes, repair, report, again, &mut work)?;
            work.write(self, &mut state)?;
        }
        drop(state);
        self.lose_missing(&pass, &changes, report)?;
        Ok(true)
    }

    fn count_pass(&self, wanted: &Wanted, go_on: &mut dyn FnMut() -> bool) -> Result<Option<Pass>, StoreError> {
        let mut pass = Pass::default();
        self.each_row(Table::Snapshot, &[], |_, value| {
            pass.count(wanted, ObjectId::from(SnapshotRow::decode(&value)?.root), true);
            Ok(())
        })?;
        let mut from = Vec::new();
        loop {
            let nodes = match self.count_page(wanted, &mut from, &mut pass)? {
                Some(nodes) => nodes,
                None => return Ok(Some(pass)),
            };
            let mut plaintext = Vec::new();
            self.read_objects(&nodes, |delivered| {
                match delivered {
                    Delivered::Object(node) => {
                        unpack(node.codec, &node.payload, node.plain_len, &mut plaintext)?;
                        let view = NodeView::parse(&plaintext)?;
                        pass.nodes += 1;
                        view.nodes().for_each(|id| pass.count(wanted, id.into(), true));
                        view.chunks().for_each(|id| pass.count(wanted, id.into(), false));
                    }
                    // Gone since its row was read: what it referred to was touched.
                    Delivered::Absent(_) => {}
                    Delivered::Damaged(id) => {
                        pass.unreadable.insert(id);
                    }
                }
                Ok(())
            })?;
            if !go_on() {
                return Ok(None);
            }
        }
    }

    /// A page of rows, added up inside the monitor; its nodes are to be read. `None` behind the last row.
    fn count_page(
        &self,
        wanted: &Wanted,
        from: &mut Vec<u8>,
        pass: &mut Pass,
    ) -> Result<Option<Vec<ObjectId>>, StoreError> {
        let state = self.state.lock();
        let rows = self.meta().scan(&self.id, Table::Object, from, PAGE_ROWS)?;
        let Some((last, _)) = rows.last() else {
            self.gate.changes().pass(&[0xff; 33]);
            return Ok(None);
        };
        from.clone_from(last);
        from.push(0);
        let (mut nodes, mut unreferenced) = (Vec::new(), Vec::new());
        for (key, value) in &rows {
            let (id, row) = (ObjectId::from_slice(key)?, ObjectRow::decode(value)?);
            pass.sum(&row);
            if row.kind == ObjectKind::Node && !row.is_lost() {
                nodes.push(id);
            }
            if wanted.holds(&id) {
                pass.counts.entry(id).or_default().row = Some(row.references);
            }
            if row.references == 0 {
                unreferenced.push(id);
            }
        }
        let keys: Vec<&[u8]> = unreferenced.iter().map(|id| id.as_bytes().as_slice()).collect();
        let listed = self.meta().multi_get(&self.id, Table::Zero, &keys)?;
        pass.unlisted.extend(unreferenced.iter().zip(listed).filter(|(_, zero)| zero.is_none()).map(|(id, _)| *id));
        self.gate.changes().pass(from);
        drop(state);
        Ok(Some(nodes))
    }

    /// Ledger and packs: what was summed up, moved to this moment by what changed behind the pass.
    fn compare_sums(
        &self,
        pass: &mut Pass,
        changes: &Changes,
        repair: AuditRepair,
        report: &mut AuditReport,
        work: &mut Corrections,
    ) -> Result<(), StoreError> {
        let ids: Vec<ObjectId> = changes.behind.keys().copied().collect();
        for ids in ids.chunks(PAGE_ROWS) {
            for (id, now) in ids.iter().zip(self.object_rows(ids)?) {
                if let Some(Some(then)) = changes.behind.get(id) {
                    pass.take_back(then);
                }
                if let Some(now) = now {
                    pass.sum(&now);
                }
            }
        }
        let mut computed = work.ledger;
        let snapshots = self.snapshots()?;
        (computed.physical_bytes, computed.pending_bytes) = (pass.sums.physical_bytes, pass.sums.pending_bytes);
        (computed.chunks, computed.nodes) = (pass.sums.chunks, pass.sums.nodes);
        computed.snapshots = snapshots.len() as u64;
        computed.logical_bytes = snapshots.iter().map(|row| row.logical_bytes).sum();
        if computed != work.ledger {
            report.miscounted += 1;
            report.line(|| format!("the ledger says {:?}, the rows add up to {computed:?}", work.ledger));
            if repair == AuditRepair::Everything {
                work.ledger = computed;
                work.batch.put(Table::Ledger, LEDGER_KEY, computed.encode());
            }
        }
        let packs = &mut pass.packs;
        let mut corrected = Vec::new();
        self.each_row(Table::Pack, &[], |key, value| {
            let (pack, row) = (pack_of_key(&key)?, PackRow::decode(&value)?);
            let (live_bytes, live_frames) = packs.remove(&pack).unwrap_or_default();
            if (live_bytes, live_frames) != (row.live_bytes, row.live_frames) {
                report.miscounted += 1;
                report.line(|| format!("pack {pack} has {live_frames} live frames, its row says {}", row.live_frames));
                corrected.push((pack, PackRow { live_bytes, live_frames, ..row }));
            }
            Ok(())
        })?;
        if repair == AuditRepair::Everything {
            for (pack, row) in corrected.into_iter().take(CORRECTIONS_PER_BATCH) {
                work.batch.put(Table::Pack, pack_key(&pack), row.encode());
            }
        }
        for id in pass.unlisted.iter().take(CORRECTIONS_PER_BATCH).filter(|id| !changes.touched.contains(id)) {
            report.miscounted += 1;
            report.line(|| format!("object {id} is unreferenced and not listed for collection"));
            if repair == AuditRepair::Everything {
                work.list_for_collection(id);
            }
        }
        Ok(())
    }

    /// Nodes that nothing refers to and nothing can read: what they referred to is settled by the counts themselves.
    fn remove_unreadable(&self, state: &mut State, pass: &mut Pass, changes: &Changes) -> Result<u64, StoreError> {
        let ids: Vec<ObjectId> = pass.unreadable.iter().copied().take(CORRECTIONS_PER_BATCH / 4).collect();
        let mut work = Work::new(self, *state.ledger, NOBODY);
        work.load(&ids)?;
        let mut removed = 0;
        for id in &ids {
            let unneeded = work.row(id).is_some_and(|row| row.references == 0 && row.damaged)
                && !changes.touched.contains(id)
                && !state.sessions.cover(id, None)
                && pass.counts.get(id).is_none_or(|count| count.counted == 0);
            if unneeded {
                work.remove(id)?;
                pass.unreadable.remove(id);
                pass.counts.remove(id);
                removed += 1;
            }
        }
        work.finish(&HashMap::new())?;
        state.settle(&mut work, 0);
        Ok(removed)
    }

    fn judge(
        &self,
        pass: &Pass,
        changes: &Changes,
        repair: AuditRepair,
        report: &mut AuditReport,
        again: &mut BTreeSet<ObjectId>,
        work: &mut Corrections,
    ) -> Result<(), StoreError> {
        let unreadable = pass.unreadable.len() as u64;
        let differing = pass.counts.iter().filter(|(_, count)| count.row.is_none_or(|row| row != count.counted));
        for (id, count) in differing {
            if changes.touched.contains(id) {
                again.insert(*id);
                continue;
            }
            let Some(said) = count.row else { continue };
            let counted = count.counted;
            if said > counted && said <= counted + unreadable {
                // A node that cannot be read may refer to it.
                continue;
            }
            if said < counted {
                report.too_low += 1;
            } else {
                report.too_high += 1;
            }
            report.line(|| format!("object {id} has {counted} references, its row says {said}"));
            tracing::error!(vault = %self.id, object = %id, counted, said, "a reference count differs from a recount");
            let lower = repair == AuditRepair::Everything && unreadable == 0;
            if (said > counted && !lower) || work.batch.len() >= 2 * CORRECTIONS_PER_BATCH {
                continue;
            }
            let Some(row) = self.object_rows(&[*id])?.into_iter().next().flatten() else { continue };
            work.set_references(id, row, counted);
            report.lowered += u64::from(said > counted);
        }
        Ok(())
    }

    /// Rows for objects that something refers to and that have none.
    fn lose_missing(&self, pass: &Pass, changes: &Changes, report: &mut AuditReport) -> Result<(), StoreError> {
        if changes.overflowed {
            return Ok(());
        }
        let missing: Vec<(ObjectId, u64, bool)> = pass
            .counts
            .iter()
            .filter(|(id, count)| count.row.is_none() && count.counted > 0 && !changes.touched.contains(id))
            .map(|(id, count)| (*id, count.counted, count.is_node))
            .collect();
        for missing in missing.chunks(CORRECTIONS_PER_BATCH / 2) {
            let mut state = self.state.lock();
            let mut work = Work::new(self, *state.ledger, NOBODY);
            work.load(&missing.iter().map(|(id, ..)| *id).collect::<Vec<_>>())?;
            for (id, counted, is_node) in missing {
                if work.row(id).is_some() {
                    continue;
                }
                report.missing += 1;
                report.line(|| format!("object {id} has {counted} references and no row"));
                tracing::error!(vault = %self.id, object = %id, "an object that something refers to has no row; it counts as damaged");
                work.lose(*id, ObjectRow::lost(if *is_node { ObjectKind::Node } else { ObjectKind::Chunk }, 0));
                for _ in 0..*counted {
                    work.reference(id)?;
                }
            }
            work.finish(&HashMap::new())?;
            state.settle(&mut work, 0);
        }
        Ok(())
    }
}

/// Rows an audit changes, with the ledger that counts them.
struct Corrections {
    batch: Batch,
    ledger: Ledger,
    /// Something has no reference any more.
    unreferenced: bool,
}

impl Corrections {
    fn new(state: &State) -> Self {
        Corrections { batch: Batch::default(), ledger: *state.ledger, unreferenced: false }
    }

    fn set_references(&mut self, id: &ObjectId, row: ObjectRow, references: u64) {
        match (row.references, references) {
            (0, 1..) => {
                self.ledger.referenced(&row);
                self.batch.delete(Table::Zero, *id.as_bytes());
            }
            (1.., 0) => {
                self.ledger.unreferenced(&row);
                self.list_for_collection(id);
            }
            _ => {}
        }
        self.batch.put(Table::Object, *id.as_bytes(), ObjectRow { references, ..row }.encode());
    }

    fn list_for_collection(&mut self, id: &ObjectId) {
        self.batch.put(Table::Zero, *id.as_bytes(), NOBODY.as_bytes().to_vec());
        self.unreferenced = true;
    }

    fn write(mut self, vault: &Vault, state: &mut State) -> Result<(), StoreError> {
        if self.batch.is_empty() {
            return Ok(());
        }
        self.batch.put(Table::Ledger, LEDGER_KEY, self.ledger.encode());
        vault.meta().write(&vault.id, self.batch)?;
        state.ledger.set(self.ledger);
        if self.unreferenced {
            vault.upkeep.reap_wanted.store(true, Ordering::Release);
        }
        Ok(())
    }
}
