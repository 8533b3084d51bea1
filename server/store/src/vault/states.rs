//! States of a snapshot after its commit: softly deleted, held, tagged, gone. Every change is journalled first, all that
//! one call changes at once, and then made visible in one small batch: O(1) per snapshot, whatever its size.
//! The journal is the truth, so no answer waits for the index to be synced: what a crash takes from the rows is
//! replayed at the next start.

use super::{State, Vault};
use crate::error::StoreError;
use crate::journal::Journal;
use crate::meta::rows::{DamageRow, LEDGER_KEY, ObjectRow, SnapshotRow, SoftDeleted};
use crate::meta::{BATCH_ROWS_MAX, Batch, Table, Ticket};
use repo_format::id::{ObjectId, ObjectKind, SnapshotId, UploadSessionId};
use repo_format::journal::RecordKind;
use repo_format::record::{
    HoldRecord, SoftDeleteRecord, TOMBSTONE_SNAPSHOTS_MAX, TagRecord, TombstoneRecord, UndeleteRecord,
};
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// Where a snapshot's row is to go: another state, or `None` for away.
pub(super) type Target = (SnapshotId, Option<SnapshotRow>);

/// Snapshots changed in one batch: each changes its own row, its root's, a zero row, a damage row and its session's.
const SNAPSHOTS_PER_BATCH: usize = 800;
const _: () = assert!(5 * SNAPSHOTS_PER_BATCH < BATCH_ROWS_MAX);

impl Vault {
    /// Journals `records`, all or none, then lets `fold` make them visible: it is handed the sequence to enter in
    /// the ledger with its batch. When `fold` fails the rows lack what the journal has, so a new generation, written
    /// from the rows, settles it before the next change.
    pub(super) fn journalled(
        &self,
        journal: &mut Journal,
        records: &[(RecordKind, Vec<u8>)],
        fold: impl FnOnce(&mut State, u64) -> Result<Ticket, StoreError>,
    ) -> Result<Ticket, StoreError> {
        self.shared.make_room();
        // Writing a generation costs as much as there are snapshots, so it is put off with their number.
        let records_max = self.shared.settings.journal_records_min.max(4 * self.ledger().snapshots);
        if journal.wants_generation(records_max) {
            self.begin_generation(journal)?;
        }
        let sequence = journal.append(self.sealing(), records)?;
        let folded = fold(&mut self.state.lock(), sequence);
        if folded.is_err() {
            journal.distrust();
        }
        folded
    }

    /// Writes the whole journal anew from the rows. Whatever a rebuild needs and packs do not say must be in it.
    pub(super) fn begin_generation(&self, journal: &mut Journal) -> Result<(), StoreError> {
        let mut records = Vec::new();
        for row in self.snapshots()? {
            let snapshot = row.snapshot;
            records.push((RecordKind::Commit, row.commit.encode()?));
            if let Some(SoftDeleted { deleted_ns, until_ns, by }) = row.deleted {
                let record = SoftDeleteRecord { snapshot, deleted_ns, until_ns, by };
                records.push((RecordKind::SoftDelete, record.encode()?));
            }
            if row.hold_until_ns.is_some() {
                let record = HoldRecord { snapshot, until_ns: row.hold_until_ns };
                records.push((RecordKind::Hold, record.encode()));
            }
            if let Some(tags) = row.tags {
                records.push((RecordKind::Tag, TagRecord { snapshot, tags }.encode()?));
            }
        }
        records.extend(self.damage_states()?);
        self.repeat_drops(&mut records)?;
        journal.begin_generation(self.sealing(), records)?;
        Ok(())
    }

    /// Softly deletes snapshots: until `until_ns` they can be brought back, their bytes still count. Those deleted
    /// before stay as they are. Refuses all when one is held or does not exist.
    pub(crate) fn delete_snapshots(&self, ids: &[SnapshotId], until_ns: i64, by: &str) -> Result<(), StoreError> {
        let mut journal = self.journal.lock();
        let deleted_ns = self.shared.world.clock.now_ns();
        let (mut records, mut targets) = (Vec::new(), Vec::new());
        for snapshot in BTreeSet::from_iter(ids) {
            let mut row = self.snapshot_row(snapshot)?;
            if row.deleted.is_some() {
                continue;
            }
            self.refuse_held(&row)?;
            let record = SoftDeleteRecord { snapshot: *snapshot, deleted_ns, until_ns, by: by.to_owned() };
            records.push((RecordKind::SoftDelete, record.encode()?));
            row.deleted = Some(SoftDeleted { deleted_ns, until_ns, by: record.by });
            targets.push((*snapshot, Some(row)));
        }
        self.change_states(&mut journal, &records, &targets)
    }

    /// Brings a softly deleted snapshot back; one that is not deleted stays as it is.
    pub(crate) fn undelete_snapshot(&self, snapshot: &SnapshotId) -> Result<SnapshotRow, StoreError> {
        let mut journal = self.journal.lock();
        let mut row = self.snapshot_row(snapshot)?;
        if row.deleted.take().is_some() {
            let record = (RecordKind::Undelete, UndeleteRecord { snapshot: *snapshot }.encode());
            self.change_states(&mut journal, &[record], &[(*snapshot, Some(row.clone()))])?;
        }
        Ok(row)
    }

    /// Removes snapshots for good; what only they reached may be collected. Those that are gone already do not count.
    /// Refuses all when one is held. Answers how many went.
    pub(crate) fn purge_snapshots(&self, ids: &[SnapshotId]) -> Result<u64, StoreError> {
        let mut journal = self.journal.lock();
        let mut going = Vec::new();
        for snapshot in BTreeSet::from_iter(ids) {
            match self.snapshot_row(snapshot) {
                Ok(row) => {
                    self.refuse_held(&row)?;
                    going.push(*snapshot);
                }
                Err(StoreError::NoSuchSnapshot(_)) => {}
                Err(error) => return Err(error),
            }
        }
        let tombstone =
            |part: &[SnapshotId]| Ok((RecordKind::Tombstone, TombstoneRecord { snapshots: part.to_vec() }.encode()?));
        let records = going.chunks(TOMBSTONE_SNAPSHOTS_MAX).map(tombstone).collect::<Result<Vec<_>, StoreError>>()?;
        let targets: Vec<Target> = going.iter().map(|snapshot| (*snapshot, None)).collect();
        self.change_states(&mut journal, &records, &targets)?;
        drop(journal);
        self.wake();
        Ok(going.len() as u64)
    }

    /// Holds a snapshot until a date, or lifts the hold. Ending an active hold earlier takes `may_shorten`.
    pub(crate) fn hold_snapshot(
        &self,
        snapshot: &SnapshotId,
        until_ns: Option<i64>,
        may_shorten: bool,
    ) -> Result<SnapshotRow, StoreError> {
        let mut journal = self.journal.lock();
        let mut row = self.snapshot_row(snapshot)?;
        if row.hold_until_ns == until_ns {
            return Ok(row);
        }
        if !may_shorten && until_ns < row.hold_until_ns {
            self.refuse_held(&row)?;
        }
        row.hold_until_ns = until_ns;
        let record = (RecordKind::Hold, HoldRecord { snapshot: *snapshot, until_ns }.encode());
        self.change_states(&mut journal, &[record], &[(*snapshot, Some(row.clone()))])?;
        Ok(row)
    }

    /// Sets all tags of a snapshot, in order and each once; they replace those of its upload.
    pub(crate) fn tag_snapshot(&self, snapshot: &SnapshotId, tags: &[String]) -> Result<SnapshotRow, StoreError> {
        let mut journal = self.journal.lock();
        let mut row = self.snapshot_row(snapshot)?;
        let tags: Vec<String> = BTreeSet::from_iter(tags).into_iter().cloned().collect();
        if row.tags.as_ref() != Some(&tags) {
            let record = TagRecord { snapshot: *snapshot, tags };
            let payload = record.encode()?;
            row.tags = Some(record.tags);
            self.change_states(&mut journal, &[(RecordKind::Tag, payload)], &[(*snapshot, Some(row.clone()))])?;
        }
        Ok(row)
    }

    /// Softly deleted snapshots whose time to be brought back has passed and that no hold keeps.
    pub(crate) fn snapshots_due(&self, now_ns: i64) -> Result<Vec<SnapshotId>, StoreError> {
        if self.ledger().deleted_snapshots == 0 {
            return Ok(Vec::new());
        }
        let mut due = Vec::new();
        self.each_row(Table::Snapshot, &[], |_, value| {
            let row = SnapshotRow::decode(&value)?;
            let passed = row.deleted.as_ref().is_some_and(|deleted| deleted.until_ns <= now_ns);
            if passed && row.hold_until_ns.is_none_or(|until_ns| until_ns <= now_ns) {
                due.push(row.snapshot);
            }
            Ok(())
        })?;
        Ok(due)
    }

    /// Whether a hold has ended is asked of the guarded clock: a clock that jumped ends no hold.
    fn refuse_held(&self, row: &SnapshotRow) -> Result<(), StoreError> {
        let Some(until_ns) = row.hold_until_ns else { return Ok(()) };
        if self.shared.guarded_clock.now_ns()? < until_ns {
            return Err(StoreError::Held { snapshot: row.snapshot, until_ns });
        }
        Ok(())
    }

    fn change_states(
        &self,
        journal: &mut Journal,
        records: &[(RecordKind, Vec<u8>)],
        targets: &[Target],
    ) -> Result<(), StoreError> {
        if !records.is_empty() {
            self.journalled(journal, records, |state, sequence| self.move_snapshots(state, targets, sequence))?;
        }
        Ok(())
    }

    /// Moves snapshot rows to where the journal says they are now, with the references of their roots, the zero rows
    /// and the ledger. `sequence` enters the ledger with the last batch, so that an earlier stop repeats everything;
    /// every step finds out by itself whether it was done already.
    pub(super) fn move_snapshots(
        &self,
        state: &mut State,
        targets: &[Target],
        sequence: u64,
    ) -> Result<Ticket, StoreError> {
        let mut last = targets;
        while let Some((part, rest)) = last.split_at_checked(SNAPSHOTS_PER_BATCH).filter(|(_, rest)| !rest.is_empty()) {
            self.move_some_snapshots(state, part, state.ledger.journal_sequence)?;
            last = rest;
        }
        self.move_some_snapshots(state, last, sequence)
    }

    fn move_some_snapshots(&self, state: &mut State, part: &[Target], sequence: u64) -> Result<Ticket, StoreError> {
        let mut ledger = *state.ledger;
        ledger.journal_sequence = sequence;
        let mut batch = Batch::default();
        let mut committed: Vec<UploadSessionId> = Vec::new();
        // Several snapshots may share a root: what each changes is summed up.
        let mut roots: BTreeMap<ObjectId, (i64, u64)> = BTreeMap::new();
        for (snapshot, target) in part {
            let row = match self.snapshot_row(snapshot) {
                Ok(row) => Some(row),
                Err(StoreError::NoSuchSnapshot(_)) => None,
                Err(error) => return Err(error),
            };
            if row == *target {
                continue;
            }
            if let Some(row) = &row {
                ledger.snapshot_gone(row);
                roots.entry(ObjectId::from(row.root)).or_default().0 -= 1;
            }
            match target {
                Some(target) => {
                    ledger.snapshot_added(target);
                    let root = roots.entry(ObjectId::from(target.root)).or_default();
                    *root = (root.0 + 1, target.logical_bytes);
                    batch.put(Table::Snapshot, *snapshot.as_bytes(), target.encode()?);
                    if row.is_none() {
                        self.session_committed(target, &mut batch)?;
                        committed.push(target.session);
                    }
                }
                None => batch.delete(Table::Snapshot, *snapshot.as_bytes()),
            }
        }
        roots.retain(|_, (change, _)| *change != 0);
        let ids: Vec<ObjectId> = roots.keys().copied().collect();
        let rows: HashMap<ObjectId, Option<ObjectRow>> = ids.iter().copied().zip(self.object_rows(&ids)?).collect();
        let nobody = UploadSessionId::from_bytes([0; UploadSessionId::LEN]);
        for (id, (change, logical_bytes)) in roots {
            let stored = rows.get(&id).copied().flatten();
            let was = stored.map_or(0, |row| row.references);
            let is = was.saturating_add_signed(change);
            let Some(mut row) = stored.or_else(|| (is > 0).then(|| ObjectRow::lost(ObjectKind::Node, logical_bytes)))
            else {
                tracing::error!(vault = %self.id, root = %id, "the root of a purged snapshot has no row");
                continue;
            };
            if stored.is_none() {
                tracing::error!(vault = %self.id, root = %id, "the root of a snapshot is in no pack; it counts as damaged");
                ledger.add(&row);
                let found_ns = self.shared.world.clock.now_ns();
                batch.put(Table::Damage, *id.as_bytes(), DamageRow { place: row.place, found_ns }.encode());
            }
            match (was, is) {
                (0, 1..) => {
                    ledger.referenced(&row);
                    batch.delete(Table::Zero, *id.as_bytes());
                }
                (1.., 0) => {
                    ledger.unreferenced(&row);
                    batch.put(Table::Zero, *id.as_bytes(), nobody.as_bytes().to_vec());
                }
                _ => {}
            }
            row.references = is;
            batch.put(Table::Object, *id.as_bytes(), row.encode());
        }
        batch.put(Table::Ledger, LEDGER_KEY, ledger.encode());
        let ticket = self.meta().write(&self.id, batch)?;
        state.ledger.commit(ledger, &committed);
        Ok(ticket)
    }

    /// The session of a commit answers again with its snapshot, and holds its base no longer.
    fn session_committed(&self, row: &SnapshotRow, batch: &mut Batch) -> Result<(), StoreError> {
        match self.session_row(&row.session) {
            Ok(mut session) => {
                session.committed = Some(row.snapshot);
                session.base_root = None;
                batch.put(Table::Session, *row.session.as_bytes(), session.encode());
                Ok(())
            }
            Err(StoreError::NoSuchSession(_)) => Ok(()),
            Err(error) => Err(error),
        }
    }
}
