//! Garbage collection of one vault, in small steps beside its uploads: sessions end, unreferenced objects lose their
//! rows (`reap`), packs are finished, dropped and compacted.
//!
//! # Why nothing that is needed is ever removed
//!
//! `references(x)` counts the stored nodes that have `x` as a child and the snapshots with root `x`. A zero row exists
//! exactly when it is zero.
//!
//! 1. A reference is taken only in a monitor step that finds the row of the child there, and written in that step. A
//!    row is removed only in a monitor step that finds its count zero and nothing covering it (see `claims`). So the
//!    two cannot interleave: either the reference comes first and the count is not zero, or the removal comes first
//!    and the node is refused with the list of what is missing. No clock, lock order or time window enters into it.
//! 2. Batches are atomic and reach the disk in the order they were written, so after a crash the rows are those of some
//!    moment: whatever a row's removal depended on is there whenever the removal is.
//! 3. A pack is touched only when its row is sealed, which the batch that records its last frame does: no frame of it
//!    awaits a row, and none will ever come. It is dropped only when no row points into it, read again in the monitor
//!    step that marks it dropped; afterwards no row can, because rows are pointed only at packs being written.
//! 4. The order of a drop: the mark and everything before it is synced, then the journal says so, then the file goes,
//!    then its name, then the row. A crash in between leaves a row marked dropped, with which the next start goes on.
//!    An index older than that, put back by someone, finds the file missing and the drop journalled: it is rebuilt.
//! 5. A copy is synced before rows are pointed at it, and they are only if they still point at the frame it was made
//!    of. Until then the old frame counts; afterwards the old pack has lost a live frame, and goes by rule 3.
//! 6. Steps of one vault do not overlap: they hold its maintenance lock. So no pack is dropped while it is copied from.
//!
//! What a crash resurrects is garbage, never a loss: frames of an open pack whose rows had been removed are adopted as
//! objects of count zero, and removed again.

use super::{PAGE_ROWS, Vault};
use crate::error::{At, StoreError};
use crate::meta::rows::{LEDGER_KEY, Ledger, PackRow, PackState, pack_key};
use crate::meta::{Batch, MetaStore, Table};
use crate::pack::{Appender, pack_path, packs_directory};
use crate::store::Store;
use crate::sync::Mutex;
use repo_format::id::{PackId, VaultId};
use repo_format::journal::{JournalRecord, RecordKind};
use repo_format::pack::PackKind;
use repo_format::record::{DROP_PACKS_MAX, PackDropRecord};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};

/// Packs dropped by one step.
const DROPS_PER_STEP: usize = 256;
/// Drops that a new journal generation repeats: an index older than these is not rebuilt by itself.
const DROPS_REMEMBERED: usize = DROP_PACKS_MAX;
/// Softly deleted snapshots are looked through this often, nanoseconds.
const PURGE_INTERVAL_NS: i64 = 60 * 1_000_000_000;
/// Steps that collect for one that copies, where there is always something to collect.
const COLLECTIONS_PER_COPY: u32 = 8;
/// A closed vault with more than one part in this many dead is opened for compaction.
const DEAD_SHARE_WORTH_OPENING: u64 = 5;
const _: () = assert!(DROPS_PER_STEP <= DROP_PACKS_MAX);

/// What one step of maintenance did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Maintained {
    /// There is more to do at once.
    pub more: bool,
    /// Without requests, when there is something to do again, nanoseconds since 1970.
    pub next_ns: Option<i64>,
    /// Upload sessions ended for want of requests.
    pub expired_uploads: u64,
    /// Restores ended for want of requests.
    pub expired_restores: u64,
    /// Softly deleted snapshots whose time had passed.
    pub purged_snapshots: u64,
    /// Objects whose rows went.
    pub reaped_objects: u64,
    /// Bytes of their frames.
    pub reaped_bytes: u64,
    /// Unreferenced nodes that cannot be read, found in this step: they stay, and what they refer to with them.
    pub unreadable_nodes: u64,
    /// Packs finished because nobody writes to them.
    pub sealed_packs: u64,
    /// Packs whose files went.
    pub dropped_packs: u64,
    /// Bytes of their files.
    pub dropped_bytes: u64,
    /// Frames copied out of packs that were mostly dead, or small.
    pub copied_frames: u64,
    /// Their bytes.
    pub copied_bytes: u64,
}

/// How the bytes in a vault's packs are used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct VaultSpace {
    /// Frame bytes in all packs.
    pub stored_bytes: u64,
    /// Those that no object needs, waiting for compaction: the operator's cost, in nobody's quota.
    pub dead_bytes: u64,
    /// Frame bytes of objects that nothing refers to: they go, or a live session still means to use them.
    pub pending_bytes: u64,
}

/// What wakes maintenance, readable without its lock.
#[derive(Default)]
pub(crate) struct Upkeep {
    /// Objects may have lost what kept them.
    pub(crate) reap_wanted: AtomicBool,
    /// Packs have changed since the last look at all of them.
    pub(crate) plan_wanted: AtomicBool,
    /// Nothing to do before, nanoseconds since 1970.
    next_ns: AtomicI64,
    /// Rises with every call of [`Vault::wake`], so that one during a step is not lost.
    wakes: AtomicU64,
    /// Last write to a pack, nanoseconds since 1970.
    pub(crate) written_ns: AtomicI64,
    /// When the vault was opened, nanoseconds since 1970.
    pub(crate) opened_ns: AtomicI64,
}

/// What maintenance remembers from step to step. Losing it costs nothing but looking again.
#[derive(Default)]
pub(crate) struct Maintenance {
    reaper: super::reap::Reaper,
    compaction: super::compact::Compaction,
    /// Marked dropped in the index, their files not removed yet.
    dropping: BTreeSet<PackId>,
    /// When softly deleted snapshots are looked through again, nanoseconds since 1970.
    purge_from_ns: i64,
    /// Steps that only collected, in a row.
    steps_without_copies: u32,
}

/// Packs whose drop the journal tells of, newest last.
#[derive(Default)]
pub(crate) struct Drops {
    packs: VecDeque<PackId>,
}

impl Maintenance {
    /// Garbage goes before it is looked for what to copy: it costs nothing and makes packs cheaper. But a vault that
    /// always has garbage is compacted as well.
    fn may_compact(&mut self, more_garbage: bool) -> bool {
        self.steps_without_copies += 1;
        let may = !more_garbage || self.steps_without_copies >= COLLECTIONS_PER_COPY;
        if may {
            self.steps_without_copies = 0;
        }
        may
    }
}

impl Drops {
    /// What these journal records tell of.
    pub(crate) fn of(records: &[JournalRecord]) -> Result<Self, StoreError> {
        let mut drops = Drops::default();
        for record in records {
            drops.extend(&PackDropRecord::decode(&record.payload)?.packs);
        }
        Ok(drops)
    }

    fn extend(&mut self, packs: &[PackId]) {
        self.packs.extend(packs);
        let surplus = self.packs.len().saturating_sub(DROPS_REMEMBERED);
        self.packs.drain(..surplus);
    }

    /// Oldest first.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &PackId> {
        self.packs.iter()
    }

    pub(crate) fn contains(&self, pack: &PackId) -> bool {
        self.packs.contains(pack)
    }

    /// Packs on disk whose drop was not finished and that no row goes on with, each once: a drop that is gone on with is
    /// journalled again.
    pub(crate) fn unfinished(&self, on_disk: &BTreeSet<PackId>, rows: &BTreeMap<PackId, PackRow>) -> BTreeSet<PackId> {
        self.iter().filter(|pack| on_disk.contains(pack) && !rows.contains_key(pack)).copied().collect()
    }
}

impl Vault {
    /// Something has happened that maintenance may have to follow up.
    pub(crate) fn wake(&self) {
        self.upkeep.reap_wanted.store(true, Ordering::Release);
        self.upkeep.wakes.fetch_add(1, Ordering::AcqRel);
        self.upkeep.next_ns.store(0, Ordering::Release);
    }

    /// Whether a step may have something to do.
    pub(crate) fn wants_maintenance(&self, now_ns: i64) -> bool {
        self.upkeep.next_ns.load(Ordering::Acquire) <= now_ns
    }

    /// Fills what is kept in memory from the rows. The last step of opening.
    pub(super) fn load_upkeep(&self) -> Result<(), StoreError> {
        let now_ns = self.now_ns();
        self.upkeep.opened_ns.store(now_ns, Ordering::Release);
        self.upkeep.written_ns.store(now_ns, Ordering::Release);
        let mut state = self.state.lock();
        self.each_row(Table::Session, &[], |key, value| state.sessions.load(&key, &value, now_ns))?;
        state.emptied.clear();
        state.sealed_bytes = 0;
        let mut maintenance = self.maintenance.lock();
        for (pack, row) in self.pack_rows()? {
            match row.state {
                PackState::Open => {}
                PackState::Sealed => {
                    state.sealed_bytes += row.frame_bytes;
                    if row.live_frames == 0 {
                        state.emptied.insert(pack);
                    }
                }
                PackState::Dropped => {
                    maintenance.dropping.insert(pack);
                }
            }
        }
        drop((state, maintenance));
        self.upkeep.plan_wanted.store(true, Ordering::Release);
        self.wake();
        Ok(())
    }

    /// How the bytes in the packs are used.
    pub(crate) fn space(&self) -> VaultSpace {
        let state = self.state.lock();
        let written = self.appender.lock().frame_bytes() + self.compactor.lock().frame_bytes();
        let received: u64 = state.pending.values().map(|pending| u64::from(pending.row.place.frame_len)).sum();
        let stored_bytes = state.sealed_bytes + written;
        VaultSpace {
            stored_bytes,
            dead_bytes: stored_bytes.saturating_sub(state.ledger.physical_bytes + received),
            pending_bytes: state.ledger.pending_bytes,
        }
    }

    /// One small step of everything that is due at `now_ns`: ends sessions without requests, removes unreferenced
    /// objects, finishes, drops and compacts packs. Uploads and restores go on beside it.
    pub(crate) fn maintain(&self, now_ns: i64) -> Result<Maintained, StoreError> {
        let mut maintenance = self.maintenance.lock();
        let wakes = self.upkeep.wakes.load(Ordering::Acquire);
        let mut done = Maintained::default();
        if self.upkeep.reap_wanted.load(Ordering::Acquire) {
            self.shared.make_room();
        }
        self.settle_journal()?;
        let expired = self.expire_sessions(now_ns)?;
        done.expired_uploads = expired.uploads;
        done.expired_restores = expired.restores;
        self.purge_due(&mut maintenance, now_ns, &mut done)?;
        done.more |= self.reap_step(&mut maintenance.reaper, now_ns, &mut done)?;
        if !done.more && !maintenance.compaction.is_running() {
            done.more |= self.finish_idle_packs(now_ns, &mut done)?;
        }
        done.more |= self.drop_step(&mut maintenance, &mut done)?;
        if maintenance.may_compact(done.more) {
            done.more |= self.compact_step(&mut maintenance.compaction, &mut done)?;
        }
        done.next_ns = self.next_maintenance_ns(now_ns);
        let next_ns = if done.more { 0 } else { done.next_ns.unwrap_or(i64::MAX) };
        self.upkeep.next_ns.store(next_ns, Ordering::Release);
        if self.upkeep.wakes.load(Ordering::Acquire) != wakes {
            self.upkeep.next_ns.store(0, Ordering::Release);
            done.more = true;
        }
        Ok(done)
    }

    /// Purges snapshots that were softly deleted and not brought back in time.
    fn purge_due(&self, maintenance: &mut Maintenance, now_ns: i64, done: &mut Maintained) -> Result<(), StoreError> {
        if now_ns < maintenance.purge_from_ns || self.ledger().deleted_snapshots == 0 {
            return Ok(());
        }
        // Asked before anything is due by `now_ns`: a clock that jumped ahead ends no time to bring something back.
        let believed = self.shared.guarded_clock.now_ns();
        match believed.and_then(|_| self.purge_snapshots(&self.snapshots_due(now_ns)?)) {
            Ok(purged) => done.purged_snapshots = purged,
            // A clock nobody trusts removes nothing; everything else goes on.
            Err(error @ (StoreError::ClockJumped { .. } | StoreError::Held { .. })) => {
                tracing::warn!(vault = %self.id, %error, "deleted snapshots stay for now");
            }
            Err(error) => return Err(error),
        }
        maintenance.purge_from_ns = now_ns.saturating_add(PURGE_INTERVAL_NS);
        Ok(())
    }

    fn next_maintenance_ns(&self, now_ns: i64) -> Option<i64> {
        let settings = &self.shared.settings;
        let expiry = self.state.lock().sessions.next_expiry_ns(settings.session_idle_ns);
        let open = !self.appender.lock().open_packs().is_empty() || !self.compactor.lock().open_packs().is_empty();
        let idle = open.then(|| self.upkeep.written_ns.load(Ordering::Acquire).saturating_add(settings.pack_idle_ns));
        let awaited = self.upkeep.reap_wanted.load(Ordering::Acquire).then(|| self.reap_from_ns());
        let purge = (self.ledger().deleted_snapshots > 0).then(|| now_ns.saturating_add(PURGE_INTERVAL_NS));
        [expiry, idle, awaited, purge].into_iter().flatten().min().map(|next_ns| next_ns.max(now_ns.saturating_add(1)))
    }

    /// A commit whose journal write failed may count or not; before anything it needs is removed, a new generation says
    /// which.
    fn settle_journal(&self) -> Result<(), StoreError> {
        if !self.state.lock().sessions.has_pins() {
            return Ok(());
        }
        // No commit is under way while the journal is locked, so what is still pinned belongs to one that failed.
        let mut journal = self.journal.lock();
        if journal.wants_healing() {
            self.begin_generation(&mut journal)?;
        }
        self.state.lock().sessions.unpin_all();
        Ok(())
    }

    /// Finishes open packs nobody writes to: at once when no upload is live and dead bytes can come back that way,
    /// otherwise after some time.
    fn finish_idle_packs(&self, now_ns: i64, done: &mut Maintained) -> Result<bool, StoreError> {
        let (uploads, received) = {
            let state = self.state.lock();
            (state.sessions.uploads(), !state.pending.is_empty())
        };
        if uploads > 0 {
            return Ok(false);
        }
        if received {
            // Received under sessions that have ended: with rows, the reaper finds it.
            self.make_durable(None)?;
            self.wake();
            return Ok(true);
        }
        let idle_ns = self.upkeep.written_ns.load(Ordering::Acquire).saturating_add(self.shared.settings.pack_idle_ns);
        let mut finished = 0;
        for writer in [&self.appender, &self.compactor] {
            let open = writer.lock().open_packs();
            for (pack, kind, frame_bytes) in open {
                let live_bytes = self.pack_row(&pack)?.map_or(0, |row| row.live_bytes);
                if live_bytes < frame_bytes || idle_ns <= now_ns {
                    self.finish_pack(writer, kind)?;
                    finished += 1;
                }
            }
        }
        if finished > 0 {
            self.make_durable(None)?;
            self.settle_copies()?;
            done.sealed_packs += finished;
            self.upkeep.plan_wanted.store(true, Ordering::Release);
        }
        Ok(finished > 0)
    }

    pub(super) fn finish_pack(&self, writer: &Mutex<Appender>, kind: PackKind) -> Result<(), StoreError> {
        let finished = writer.lock().finish(kind);
        finished.map_err(|(pack, error)| {
            if let Some(pack) = pack {
                self.poison(&pack);
            }
            error
        })
    }

    /// Row of one pack.
    pub(super) fn pack_row(&self, pack: &PackId) -> Result<Option<PackRow>, StoreError> {
        let row = self.meta().get(&self.id, Table::Pack, &pack_key(pack))?;
        row.map(|bytes| Ok(PackRow::decode(&bytes)?)).transpose()
    }

    /// Removes sealed packs without a live frame, in the order the module's description gives. `true`: there are more.
    fn drop_step(&self, maintenance: &mut Maintenance, done: &mut Maintained) -> Result<bool, StoreError> {
        let ticket = {
            let mut state = self.state.lock();
            let candidates: Vec<PackId> = state.emptied.iter().take(DROPS_PER_STEP).copied().collect();
            let mut batch = Batch::default();
            for pack in &candidates {
                if let Some(row) = self.pack_row(pack)?
                    && row.state == PackState::Sealed
                    && row.live_frames == 0
                {
                    batch.put(Table::Pack, pack_key(pack), PackRow { state: PackState::Dropped, ..row }.encode());
                    state.sealed_bytes = state.sealed_bytes.saturating_sub(row.frame_bytes);
                    maintenance.dropping.insert(*pack);
                }
            }
            if !batch.is_empty() {
                self.meta().write(&self.id, batch)?;
            }
            for pack in &candidates {
                state.emptied.remove(pack);
            }
            self.meta().written()
        };
        if maintenance.dropping.is_empty() {
            return Ok(false);
        }
        // With the mark, every batch before it: those that took the last rows away among them.
        self.sync(ticket)?;
        let packs: Vec<PackId> = maintenance.dropping.iter().take(DROPS_PER_STEP).copied().collect();
        self.journal_drops(&packs)?;
        let directory = packs_directory(&self.directory);
        for pack in &packs {
            let path = pack_path(&directory, pack);
            match self.shared.world.vfs.remove_file(&path) {
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                removed => removed.at(&path)?,
            }
            self.files.forget(pack);
        }
        self.shared.world.vfs.sync_dir(&directory).at(&directory)?;
        let _state = self.state.lock();
        let mut batch = Batch::default();
        for pack in &packs {
            done.dropped_bytes += self.pack_row(pack)?.map_or(0, |row| row.durable_len);
            done.dropped_packs += 1;
            batch.delete(Table::Pack, pack_key(pack));
            maintenance.dropping.remove(pack);
        }
        self.meta().write(&self.id, batch)?;
        self.shared.stats.dropped(packs.len() as u64);
        Ok(!maintenance.dropping.is_empty() || !_state.emptied.is_empty())
    }

    fn journal_drops(&self, packs: &[PackId]) -> Result<(), StoreError> {
        let payload = PackDropRecord { packs: packs.to_vec() }.encode()?;
        let mut journal = self.journal.lock();
        // A drop changes no row but the ledger's: the pack rows say themselves how far it has come.
        self.journalled(&mut journal, &[(RecordKind::PackDrop, payload)], |state, sequence| {
            let mut ledger = *state.ledger;
            ledger.journal_sequence = sequence;
            let mut batch = Batch::default();
            batch.put(Table::Ledger, LEDGER_KEY, ledger.encode());
            let ticket = self.meta().write(&self.id, batch)?;
            state.ledger.set(ledger);
            self.drops.lock().extend(packs);
            Ok(ticket)
        })?;
        Ok(())
    }

    /// What a new journal generation repeats of the drops.
    pub(super) fn repeat_drops(&self, records: &mut Vec<(RecordKind, Vec<u8>)>) -> Result<(), StoreError> {
        let packs: Vec<PackId> = self.drops.lock().packs.iter().copied().collect();
        if !packs.is_empty() {
            records.push((RecordKind::PackDrop, PackDropRecord { packs }.encode()?));
        }
        Ok(())
    }
}

/// When a vault that is not open has something to do, as far as its rows tell: 0 for at once.
fn work_shown_by_rows(meta: &dyn MetaStore, vault: &VaultId) -> Result<Option<i64>, StoreError> {
    for table in [Table::Zero, Table::Session] {
        if !meta.scan(vault, table, &[], 1)?.is_empty() {
            return Ok(Some(0));
        }
    }
    let (mut from, mut frame_bytes, mut dead_bytes) = (Vec::new(), 0, 0);
    if let Some(bytes) = meta.get(vault, Table::Ledger, LEDGER_KEY)?
        && Ledger::decode(&bytes)?.deleted_snapshots > 0
    {
        return Ok(Some(0));
    }
    loop {
        let page = meta.scan(vault, Table::Pack, &from, PAGE_ROWS)?;
        for (key, value) in &page {
            let row = PackRow::decode(value)?;
            if row.state != PackState::Sealed || row.live_frames == 0 {
                return Ok(Some(0));
            }
            frame_bytes += row.frame_bytes;
            dead_bytes += row.dead_bytes();
            from.clone_from(key);
        }
        if page.len() < PAGE_ROWS {
            break;
        }
        from.push(0);
    }
    Ok((dead_bytes > frame_bytes / DEAD_SHARE_WORTH_OPENING).then_some(0))
}

impl Store {
    /// One small step of everything due in a vault at `now_ns`, nanoseconds since 1970: ends sessions without
    /// requests, removes what nothing refers to, drops and compacts packs. Call again while it says `more`; uploads
    /// and restores go on beside it. An error leaves everything as safe as before, and the next call goes on.
    pub fn maintain(&self, vault: &VaultId, now_ns: i64) -> Result<Maintained, StoreError> {
        self.vault(vault)?.maintain(now_ns)
    }

    /// Vaults where [`Store::maintain`] may have something to do at `now_ns`, in no order. A vault that has not been
    /// opened since start is opened only if its rows show work.
    pub fn vaults_to_maintain(&self, now_ns: i64) -> Vec<VaultId> {
        let mut due = Vec::new();
        for id in self.vaults() {
            match self.opened(&id) {
                Some(vault) => {
                    if vault.wants_maintenance(now_ns) {
                        due.push(id);
                    }
                }
                None => {
                    let next_ns = *self.unopened.lock().entry(id).or_insert_with(|| {
                        work_shown_by_rows(&*self.shared().meta, &id).unwrap_or_else(|error| {
                            // Opening it will say what is wrong to someone who can be told.
                            tracing::warn!(vault = %id, %error, "the vault's rows cannot be read");
                            Some(0)
                        })
                    });
                    if next_ns.is_some_and(|next_ns| next_ns <= now_ns) {
                        due.push(id);
                    }
                }
            }
        }
        due
    }

    /// How the bytes in a vault's packs are used.
    pub fn space(&self, vault: &VaultId) -> Result<VaultSpace, StoreError> {
        Ok(self.vault(vault)?.space())
    }
}

#[cfg(test)]
mod tests {
    use super::{BTreeMap, BTreeSet, Drops, PackId};

    #[test]
    fn a_pack_whose_drop_is_journalled_twice_is_removed_once() {
        let [gone, back, other] = [1, 2, 3].map(|sequence| PackId { epoch: 1, sequence });
        let mut drops = Drops::default();
        drops.extend(&[gone, back]);
        drops.extend(&[back]);
        let unfinished: Vec<PackId> =
            drops.unfinished(&BTreeSet::from([back, other]), &BTreeMap::new()).into_iter().collect();
        assert_eq!(unfinished, [back]);
    }
}
