//! The verbs on snapshots after their commit, and the clock they go by.

use super::Store;
use crate::error::StoreError;
use crate::meta::rows::SnapshotRow as SnapshotInfo;
use repo_format::id::{SnapshotId, VaultId};

impl Store {
    /// Softly deletes snapshots: no restore reads them, no upload builds on them, and until `until_ns` (nanoseconds
    /// since 1970) they can be brought back; their bytes count as long. Those deleted before stay as they are.
    /// Refuses all with [`StoreError::Held`] or [`StoreError::NoSuchSnapshot`] when that is true of one.
    pub fn delete_snapshots(
        &self,
        vault: &VaultId,
        snapshots: &[SnapshotId],
        until_ns: i64,
        by: &str,
    ) -> Result<(), StoreError> {
        self.vault(vault)?.delete_snapshots(snapshots, until_ns, by)
    }

    /// Brings a softly deleted snapshot back; one that is not deleted stays as it is.
    pub fn undelete_snapshot(&self, vault: &VaultId, snapshot: &SnapshotId) -> Result<SnapshotInfo, StoreError> {
        self.vault(vault)?.undelete_snapshot(snapshot)
    }

    /// Removes snapshots for good, deleted before or not; those that are gone already do not count. Refuses all with
    /// [`StoreError::Held`] when one is held. Answers how many went.
    pub fn purge_snapshots(&self, vault: &VaultId, snapshots: &[SnapshotId]) -> Result<u64, StoreError> {
        self.vault(vault)?.purge_snapshots(snapshots)
    }

    /// Holds a snapshot until a date (nanoseconds since 1970): until then nobody deletes or purges it. `None` lifts
    /// the hold. To end an active hold earlier takes `may_shorten`; without it, [`StoreError::Held`].
    pub fn hold_snapshot(
        &self,
        vault: &VaultId,
        snapshot: &SnapshotId,
        until_ns: Option<i64>,
        may_shorten: bool,
    ) -> Result<SnapshotInfo, StoreError> {
        self.vault(vault)?.hold_snapshot(snapshot, until_ns, may_shorten)
    }

    /// Sets all tags of a snapshot; they replace those of its upload. At most 64 of at most 256 bytes.
    pub fn tag_snapshot(
        &self,
        vault: &VaultId,
        snapshot: &SnapshotId,
        tags: &[String],
    ) -> Result<SnapshotInfo, StoreError> {
        self.vault(vault)?.tag_snapshot(snapshot, tags)
    }

    /// Softly deleted snapshots that can no longer be asked back at `now_ns` and are not held: to be purged.
    pub fn snapshots_due(&self, vault: &VaultId, now_ns: i64) -> Result<Vec<SnapshotId>, StoreError> {
        self.vault(vault)?.snapshots_due(now_ns)
    }

    /// The time by which snapshots expire and holds end, nanoseconds since 1970; [`StoreError::ClockJumped`] while
    /// the server's clock cannot be believed.
    pub fn now_ns(&self) -> Result<i64, StoreError> {
        self.shared().guarded_clock.now_ns()
    }

    /// Someone has looked at the server's clock and says that it is right. Answers its time.
    pub fn confirm_clock(&self) -> Result<i64, StoreError> {
        self.shared().guarded_clock.confirm()
    }
}
