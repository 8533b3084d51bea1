//! What the journal says and the rows do not contain yet. Records are folded in memory first and only their net effect
//! is written: a snapshot that was committed and purged since has objects that may be gone, so it must never come up.

use super::Vault;
use super::states::Target;
use crate::error::StoreError;
use crate::meta::rows::{SnapshotRow, SoftDeleted};
use repo_format::id::{ObjectId, SnapshotId};
use repo_format::journal::{CommitRecord, JournalRecord, RecordKind};
use repo_format::record::{
    DamageRecord, DamagedFrame, HoldRecord, SoftDeleteRecord, TagRecord, TombstoneRecord, UndeleteRecord,
    VaultDeletionRecord,
};
use std::collections::BTreeMap;

/// The fold of journal records that are newer than the rows.
#[derive(Default)]
pub(super) struct Replay {
    /// Where every snapshot that was touched ends.
    snapshots: BTreeMap<SnapshotId, Option<SnapshotRow>>,
    /// Frames found damaged.
    pub(super) damaged: Vec<DamagedFrame>,
    /// The vault is to be deleted.
    pub(super) deletion: Option<VaultDeletionRecord>,
    records: u64,
}

impl Replay {
    /// Roots of the snapshots that stay.
    pub(super) fn roots(&self) -> Vec<ObjectId> {
        self.snapshots.values().flatten().map(|row| ObjectId::from(row.root)).collect()
    }
}

impl Vault {
    /// Folds `records`, oldest first. With `whole` they are a generation of which the rows have seen nothing: a
    /// snapshot it does not name was purged before it was written, and states it does not name were taken back.
    pub(super) fn fold(&self, records: &[JournalRecord], whole: bool) -> Result<Replay, StoreError> {
        let mut replay = Replay { records: records.len() as u64, ..Replay::default() };
        if whole {
            replay.snapshots.extend(self.snapshots()?.into_iter().map(|row| (row.snapshot, None)));
        }
        for record in records {
            self.fold_record(&mut replay, record)?;
        }
        Ok(replay)
    }

    fn fold_record(&self, replay: &mut Replay, record: &JournalRecord) -> Result<(), StoreError> {
        let payload = &record.payload;
        match record.kind {
            RecordKind::Commit => {
                let commit = CommitRecord::decode(payload)?;
                replay.snapshots.insert(commit.snapshot, Some(SnapshotRow::new(commit)));
            }
            RecordKind::SoftDelete => {
                let SoftDeleteRecord { snapshot, deleted_ns, until_ns, by } = SoftDeleteRecord::decode(payload)?;
                let deleted = SoftDeleted { deleted_ns, until_ns, by };
                self.fold_state(replay, snapshot, |row| row.deleted = Some(deleted))?;
            }
            RecordKind::Undelete => {
                let UndeleteRecord { snapshot } = UndeleteRecord::decode(payload)?;
                self.fold_state(replay, snapshot, |row| row.deleted = None)?;
            }
            RecordKind::Hold => {
                let HoldRecord { snapshot, until_ns } = HoldRecord::decode(payload)?;
                self.fold_state(replay, snapshot, |row| row.hold_until_ns = until_ns)?;
            }
            RecordKind::Tag => {
                let TagRecord { snapshot, tags } = TagRecord::decode(payload)?;
                self.fold_state(replay, snapshot, |row| row.tags = Some(tags))?;
            }
            RecordKind::Tombstone => {
                let gone = TombstoneRecord::decode(payload)?.snapshots;
                replay.snapshots.extend(gone.into_iter().map(|snapshot| (snapshot, None)));
            }
            RecordKind::Damage => replay.damaged.extend(DamageRecord::decode(payload)?.frames),
            RecordKind::VaultDeletion => replay.deletion = Some(VaultDeletionRecord::decode(payload)?),
            // Drops are taken in with the whole journal, before the packs are compared with their rows.
            RecordKind::PackDrop | RecordKind::GenerationEnd => {}
        }
        Ok(())
    }

    fn fold_state(
        &self,
        replay: &mut Replay,
        snapshot: SnapshotId,
        change: impl FnOnce(&mut SnapshotRow),
    ) -> Result<(), StoreError> {
        use std::collections::btree_map::Entry;
        let row = match replay.snapshots.entry(snapshot) {
            Entry::Occupied(entry) => entry.into_mut(),
            Entry::Vacant(entry) => entry.insert(match self.snapshot_row(&snapshot) {
                Ok(row) => Some(row),
                Err(StoreError::NoSuchSnapshot(_)) => None,
                Err(error) => return Err(error),
            }),
        };
        match row {
            Some(row) => change(row),
            None => {
                tracing::error!(vault = %self.id, %snapshot, "the journal changes a snapshot whose commit it does not have; the change is left out");
            }
        }
        Ok(())
    }

    /// Brings the rows up to `replay`; `sequence` is the journal's last. Answers the number of records.
    pub(super) fn replay(&self, replay: Replay, sequence: u64) -> Result<u64, StoreError> {
        if replay.deletion.is_some() {
            // Decided, whatever else was lost: the caller goes on with it.
            return Err(StoreError::VaultDeleted(self.id));
        }
        if replay.records > 0 {
            self.replay_damage(&replay.damaged)?;
            let targets: Vec<Target> = replay.snapshots.into_iter().collect();
            self.move_snapshots(&mut self.state.lock(), &targets, sequence)?;
        }
        Ok(replay.records)
    }
}
