//! Commits and snapshot records. A commit is a journal record and one small batch, whatever the snapshot's size, and
//! idempotent by its upload session.

use super::Vault;
use crate::error::StoreError;
use crate::journal::Sealing;
use crate::meta::rows::{ObjectRow, SnapshotRow};
use crate::meta::{Batch, Table};
use repo_format::id::{NodeId, ObjectId, ObjectKind, SnapshotId, UploadSessionId};
use repo_format::journal::{CommitRecord, RecordKind};

/// Hold rows removed in one batch after a commit.
const HOLDS_PER_BATCH: usize = 2048;

/// What the caller says about a commit.
#[derive(Clone, Debug)]
pub struct CommitInput {
    /// Root node; must be stored.
    pub root: NodeId,
    /// The agent's summary as JSON; stored, not interpreted.
    pub summary_json: Vec<u8>,
}

impl Vault {
    pub(super) fn sealing(&self) -> Sealing<'_> {
        Sealing { aead: self.shared.aead, keys: &self.keys }
    }

    /// One snapshot with its state.
    pub(crate) fn snapshot_row(&self, snapshot: &SnapshotId) -> Result<SnapshotRow, StoreError> {
        match self.meta().get(&self.id, Table::Snapshot, snapshot.as_bytes())? {
            Some(bytes) => Ok(SnapshotRow::decode(&bytes)?),
            None => Err(StoreError::NoSuchSnapshot(*snapshot)),
        }
    }

    /// A snapshot that can be read and built on: one that is not softly deleted.
    pub(crate) fn readable_snapshot(&self, snapshot: &SnapshotId) -> Result<SnapshotRow, StoreError> {
        let row = self.snapshot_row(snapshot)?;
        match &row.deleted {
            Some(deleted) => Err(StoreError::SnapshotDeleted { snapshot: *snapshot, until_ns: deleted.until_ns }),
            None => Ok(row),
        }
    }

    /// All snapshots with their states, oldest first.
    pub(crate) fn snapshots(&self) -> Result<Vec<SnapshotRow>, StoreError> {
        let mut rows = Vec::new();
        self.each_row(Table::Snapshot, &[], |_, value| {
            rows.push(SnapshotRow::decode(&value)?);
            Ok(())
        })?;
        rows.sort_by_key(|row| (row.committed_ns, row.snapshot));
        Ok(rows)
    }

    /// Commits `input.root` as a snapshot.
    pub(crate) fn commit(&self, session: &UploadSessionId, input: &CommitInput) -> Result<SnapshotRow, StoreError> {
        let mut journal = self.journal.lock();
        let row = self.session_row(session)?;
        if let Some(snapshot) = row.committed {
            let record = self.snapshot_row(&snapshot)?;
            // The first answer may have been lost before its sync: this one is durable as well.
            self.sync(self.meta().written())?;
            return if record.root == input.root { Ok(record) } else { Err(StoreError::Conflict(*session)) };
        }
        let root = ObjectId::from(input.root);
        let root_row = {
            // Pinned in the step that finds it: a journalled commit whose root is collected could not be replayed.
            let mut state = self.state.lock();
            state.sessions.enter(session, self.now_ns())?;
            let row = self.root_row(&root)?;
            // Reserved already by the answer to the root's node batch, and after a restart by the hold on it; a session
            // that commits what it never sent needs room now.
            self.quota.reserve_logical(session, row.logical_bytes)?;
            state.sessions.pin(root);
            row
        };
        let record = CommitRecord {
            snapshot: SnapshotId::from_bytes(self.shared.world.random_bytes().map_err(StoreError::Random)?),
            session: *session,
            root: input.root,
            committed_ns: self.shared.world.clock.now_ns(),
            logical_bytes: root_row.logical_bytes,
            computer: row.computer.clone(),
            series: row.series.clone(),
            summary_json: input.summary_json.clone(),
        };
        let payload = record.encode()?;
        let snapshot = SnapshotRow::new(record);
        let target = [(snapshot.snapshot, Some(snapshot.clone()))];
        let ticket = self.journalled(&mut journal, &[(RecordKind::Commit, payload)], |state, sequence| {
            let ticket = self.move_snapshots(state, &target, sequence)?;
            state.sessions.unpin(&root);
            state.sessions.committed(session, self.now_ns());
            Ok(ticket)
        })?;
        drop(journal);
        self.sync(ticket)?;
        self.drop_holds(session)?;
        self.wake();
        self.shared.stats.committed();
        Ok(snapshot)
    }

    fn root_row(&self, root: &ObjectId) -> Result<ObjectRow, StoreError> {
        let row = self.object_rows(&[*root])?.into_iter().next().flatten();
        row.filter(|row| row.kind == ObjectKind::Node && !row.damaged).ok_or(StoreError::Missing(vec![*root]))
    }

    /// Removes what a committed session held node by node; the snapshot holds it now.
    fn drop_holds(&self, session: &UploadSessionId) -> Result<(), StoreError> {
        let _state = self.state.lock();
        let holds: Vec<Vec<u8>> =
            self.session_keys(session)?.into_iter().filter(|key| key.len() > UploadSessionId::LEN).collect();
        for keys in holds.chunks(HOLDS_PER_BATCH) {
            let mut batch = Batch::default();
            for key in keys {
                batch.delete(Table::Session, key.clone());
            }
            self.meta().write(&self.id, batch)?;
        }
        Ok(())
    }
}
