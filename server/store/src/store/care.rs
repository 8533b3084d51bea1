//! Verbs on what disks do to stored bytes: scrub, damage, what of it a backup can heal.

use super::Store;
use crate::error::StoreError;
use crate::vault::{AuditRepair, AuditReport, DamageReport, ScrubProgress, ScrubStep};
use repo_format::id::{ObjectId, UploadSessionId, VaultId};

impl Store {
    /// Verifies about `bytes_max` bytes of the packs that were last verified before `before_ns` (nanoseconds since 1970),
    /// oldest first, going on where the last step stopped; what is found damaged is marked. The caller paces the steps.
    pub fn scrub_step(&self, vault: &VaultId, before_ns: i64, bytes_max: u64) -> Result<ScrubStep, StoreError> {
        self.vault(vault)?.scrub_step(before_ns, bytes_max)
    }

    /// How much of a vault was verified at or after `since_ns`. Survives restarts.
    pub fn scrub_progress(&self, vault: &VaultId, since_ns: i64) -> Result<ScrubProgress, StoreError> {
        self.vault(vault)?.scrub_progress(since_ns)
    }

    /// Damaged objects, and the snapshots and paths they reach, at most `paths_max` of them.
    pub fn damage(&self, vault: &VaultId, paths_max: usize) -> Result<DamageReport, StoreError> {
        self.vault(vault)?.damage(paths_max)
    }

    /// Number of objects marked damaged: cheap, for metrics and status.
    pub fn damaged_objects(&self, vault: &VaultId) -> Result<u64, StoreError> {
        Ok(self.vault(vault)?.damaged_objects()?.len() as u64)
    }

    /// Objects of an upload session's base snapshot that are damaged now: it may send them although nothing changed.
    pub fn damaged_in_base(&self, vault: &VaultId, session: &UploadSessionId) -> Result<Vec<ObjectId>, StoreError> {
        self.vault(vault)?.damaged_in_base(session)
    }

    /// Counts all references of a vault again beside live traffic, and compares. Counts that are too low are raised at
    /// once; more is corrected only where `repair` says so. `go_on` is asked after every thousand objects, for pacing;
    /// `false` ends the audit there. Blocks until done, a vault of ten million chunks for minutes.
    pub fn audit(
        &self,
        vault: &VaultId,
        repair: AuditRepair,
        mut go_on: impl FnMut() -> bool,
    ) -> Result<AuditReport, StoreError> {
        self.vault(vault)?.audit(repair, &mut go_on)
    }
}
