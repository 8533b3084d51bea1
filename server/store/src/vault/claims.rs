//! What keeps an object of count zero from being collected: claims and holds of the vault's sessions. All of it is in
//! memory, behind the vault's monitor, and read by the reaper inside the monitor step that removes rows.
//!
//! | | taken by | ends with | after a restart |
//! |---|---|---|---|
//! | claim | `have`, `put chunks`, `put nodes`, before rows are read | an acknowledged node that has the object as child; a node batch or a flush turns it into a hold; the session | gone |
//! | hold | an acknowledged node; a node batch or a flush, for what they answer | an acknowledged parent; the session | there: a row each |
//! | root | the base snapshot of a session, the snapshot of a restore | the session | there: in the session's row |
//! | pin | a commit, on its root | the commit; with its outcome unknown, the next journal generation | gone: the journal is replayed first |
//!
//! Claims are a comfort: an object lost without them is asked for again by the refusal of the node that needs it. Holds,
//! roots and pins are promises: what was answered as durable under a live session stays until the session ends.
//! Nothing here depends on time but the end of sessions nobody uses, and ending a session early costs its holder a
//! refusal, never a stored reference.

use super::{State, Vault};
use crate::error::StoreError;
use crate::meta::rows::{SessionKind, SessionRow, hold_key};
use crate::meta::{BATCH_ROWS_MAX, Batch, Table, Ticket};
use repo_format::id::{NodeId, ObjectId, RestoreId, SnapshotId, UploadSessionId};
use std::collections::{HashMap, HashSet};

/// Claims of one session above this number push out the oldest half.
const CLAIMS_PER_GENERATION: usize = 32 << 10;

/// Ids a session was promised or has sent, exact; the oldest go when there are too many.
#[derive(Default)]
pub(crate) struct Claims {
    young: HashSet<ObjectId>,
    old: HashSet<ObjectId>,
}

impl Claims {
    fn insert(&mut self, id: ObjectId) {
        if self.young.len() >= CLAIMS_PER_GENERATION {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(id);
    }

    fn remove(&mut self, id: &ObjectId) {
        self.young.remove(id);
        self.old.remove(id);
    }

    fn contains(&self, id: &ObjectId) -> bool {
        self.young.contains(id) || self.old.contains(id)
    }
}

/// What a session is doing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Phase {
    /// An upload that has neither ended nor been committed.
    Uploading,
    /// Committed: only its answer is kept, for those who ask again.
    Committed,
    /// A restore.
    Restoring,
}

/// One session, mirrored from its rows, with its claims.
pub(crate) struct Session {
    phase: Phase,
    /// Last request, nanoseconds since 1970.
    seen_ns: i64,
    /// Has made a request since the vault was opened.
    attached: bool,
    root: Option<ObjectId>,
    holds: HashSet<ObjectId>,
    claims: Claims,
}

impl Session {
    fn new(phase: Phase, now_ns: i64, root: Option<NodeId>) -> Self {
        Session {
            phase,
            seen_ns: now_ns,
            attached: true,
            root: root.map(ObjectId::from),
            holds: HashSet::new(),
            claims: Claims::default(),
        }
    }

    fn covers(&self, id: &ObjectId) -> bool {
        self.root.as_ref() == Some(id) || self.holds.contains(id) || self.claims.contains(id)
    }
}

/// All sessions of a vault, and the pins of its commits. Keys are session ids of either kind.
#[derive(Default)]
pub(crate) struct Sessions {
    by_id: HashMap<[u8; UploadSessionId::LEN], Session>,
    pins: Vec<ObjectId>,
}

const _: () = assert!(UploadSessionId::LEN == RestoreId::LEN);

impl Sessions {
    /// Takes in one row of the session table, at the opening of the vault.
    pub(crate) fn load(&mut self, key: &[u8], value: &[u8], now_ns: i64) -> Result<(), StoreError> {
        let Some((id, held)) = key.split_first_chunk() else {
            return Err(repo_format::FormatError::invalid("session key", "too short").into());
        };
        if held.is_empty() {
            let row = SessionRow::decode(value)?;
            let phase = match (row.kind, row.committed) {
                (SessionKind::Restore, _) => Phase::Restoring,
                (SessionKind::Upload, None) => Phase::Uploading,
                (SessionKind::Upload, Some(_)) => Phase::Committed,
            };
            let mut session = Session::new(phase, now_ns, row.base_root);
            session.attached = false;
            self.by_id.insert(*id, session);
        } else if let Some(session) = self.by_id.get_mut(id).filter(|session| session.phase != Phase::Committed) {
            // Rows are read in key order: the header came first. Holds of a committed session are a crash's leavings: the
            // snapshot holds what they held, and they go with the header.
            session.holds.insert(ObjectId::from_slice(held)?);
        }
        Ok(())
    }

    /// Whether something keeps the object, `recorded_under` being the session its zero row names.
    pub(crate) fn cover(&self, id: &ObjectId, recorded_under: Option<&UploadSessionId>) -> bool {
        let uploading = |session: &UploadSessionId| {
            self.by_id.get(session.as_bytes()).is_some_and(|session| session.phase == Phase::Uploading)
        };
        recorded_under.is_some_and(uploading)
            || self.pins.contains(id)
            || self.by_id.values().any(|session| session.covers(id))
    }

    /// The upload session, which must live; its time begins anew.
    pub(crate) fn enter(&mut self, session: &UploadSessionId, now_ns: i64) -> Result<&mut Session, StoreError> {
        match self.by_id.get_mut(session.as_bytes()) {
            Some(found) if found.phase == Phase::Uploading => {
                found.seen_ns = found.seen_ns.max(now_ns);
                found.attached = true;
                Ok(found)
            }
            _ => Err(StoreError::NoSuchSession(*session)),
        }
    }

    /// Promises the session that these objects, as far as they are there, are not collected.
    pub(crate) fn claim(&mut self, session: &UploadSessionId, ids: &[ObjectId], now_ns: i64) -> Result<(), StoreError> {
        let session = self.enter(session, now_ns)?;
        for id in ids {
            session.claims.insert(*id);
        }
        Ok(())
    }

    /// Whether the session holds the object by a row.
    pub(crate) fn holds(&self, session: &UploadSessionId, id: &ObjectId) -> bool {
        self.by_id.get(session.as_bytes()).is_some_and(|session| session.holds.contains(id))
    }

    /// The rows of these holds have been written or removed.
    pub(crate) fn held(&mut self, session: &UploadSessionId, id: &ObjectId, held: bool) {
        if let Some(session) = self.by_id.get_mut(session.as_bytes()) {
            if held {
                session.holds.insert(*id);
            } else {
                session.holds.remove(id);
            }
        }
    }

    /// A stored node, or a hold, keeps the object from now on.
    pub(crate) fn unclaim(&mut self, session: &UploadSessionId, id: &ObjectId) {
        if let Some(session) = self.by_id.get_mut(session.as_bytes()) {
            session.claims.remove(id);
        }
    }

    /// All its claims are holds.
    fn unclaim_all(&mut self, session: &UploadSessionId) {
        if let Some(session) = self.by_id.get_mut(session.as_bytes()) {
            session.claims = Claims::default();
        }
    }

    /// Every claim of a session that no hold covers.
    pub(crate) fn claimed(&self, session: &UploadSessionId) -> Vec<ObjectId> {
        let Some(session) = self.by_id.get(session.as_bytes()) else { return Vec::new() };
        let claims: HashSet<&ObjectId> = session.claims.young.iter().chain(&session.claims.old).collect();
        claims.into_iter().filter(|id| !session.holds.contains(*id)).copied().collect()
    }

    /// A commit is about to go to the journal: its root stays, whatever comes of it.
    pub(crate) fn pin(&mut self, root: ObjectId) {
        self.pins.push(root);
    }

    /// The commit is in the rows, or was refused before it was written.
    pub(crate) fn unpin(&mut self, root: &ObjectId) {
        if let Some(at) = self.pins.iter().position(|pin| pin == root) {
            self.pins.swap_remove(at);
        }
    }

    /// Whether a commit is under way, or one failed with its outcome unknown.
    pub(crate) fn has_pins(&self) -> bool {
        !self.pins.is_empty()
    }

    /// A new journal generation says what counts; nothing is under way.
    pub(crate) fn unpin_all(&mut self) {
        self.pins.clear();
    }

    /// The snapshot holds everything the session held.
    pub(crate) fn committed(&mut self, session: &UploadSessionId, now_ns: i64) {
        if let Some(session) = self.by_id.get_mut(session.as_bytes()) {
            *session = Session::new(Phase::Committed, now_ns, None);
        }
    }

    /// Live uploads.
    pub(crate) fn uploads(&self) -> u64 {
        self.by_id.values().filter(|session| session.phase == Phase::Uploading).count() as u64
    }

    /// Whether an upload that was open before the vault was opened has not been heard of since.
    pub(crate) fn awaits_uploads(&self) -> bool {
        self.by_id.values().any(|session| session.phase == Phase::Uploading && !session.attached)
    }

    /// When the next session ends for want of requests.
    pub(crate) fn next_expiry_ns(&self, idle_ns: i64) -> Option<i64> {
        self.by_id.values().map(|session| session.seen_ns.saturating_add(idle_ns)).min()
    }

    fn expired(&self, now_ns: i64, idle_ns: i64, max: usize) -> Vec<[u8; UploadSessionId::LEN]> {
        let expired = self.by_id.iter().filter(|(_, session)| session.seen_ns.saturating_add(idle_ns) <= now_ns);
        expired.map(|(id, _)| *id).take(max).collect()
    }
}

/// Sessions ended by one step.
const EXPIRED_PER_STEP: usize = 16;

/// How many sessions a step ended.
#[derive(Clone, Copy, Default, Debug, PartialEq, Eq)]
pub(crate) struct Expired {
    pub(crate) uploads: u64,
    pub(crate) restores: u64,
    /// Headers of committed uploads.
    pub(crate) committed: u64,
}

impl Vault {
    /// Starts an upload session that holds the root of its base snapshot.
    pub(crate) fn begin_upload(
        &self,
        computer: &str,
        series: &str,
        base: Option<&SnapshotId>,
    ) -> Result<UploadSessionId, StoreError> {
        self.quota.check_begin()?;
        let session = UploadSessionId::from_bytes(self.shared.world.random_bytes().map_err(StoreError::Random)?);
        let row = SessionRow {
            kind: SessionKind::Upload,
            created_ns: self.now_ns(),
            computer: computer.to_owned(),
            series: series.to_owned(),
            base_root: None,
            committed: None,
        };
        self.begin_session(*session.as_bytes(), Phase::Uploading, row, base)?;
        Ok(session)
    }

    /// Keeps everything the snapshot reaches until the restore ends, whatever becomes of the snapshot.
    pub(crate) fn begin_restore(&self, snapshot: &SnapshotId) -> Result<RestoreId, StoreError> {
        let restore = RestoreId::from_bytes(self.shared.world.random_bytes().map_err(StoreError::Random)?);
        let row = SessionRow {
            kind: SessionKind::Restore,
            created_ns: self.now_ns(),
            computer: String::new(),
            series: String::new(),
            base_root: None,
            committed: None,
        };
        self.begin_session(*restore.as_bytes(), Phase::Restoring, row, Some(snapshot))?;
        Ok(restore)
    }

    /// The root is read and held in one monitor step: a delete comes before it and is an error, or after it and spares
    /// the root.
    fn begin_session(
        &self,
        id: [u8; UploadSessionId::LEN],
        phase: Phase,
        mut row: SessionRow,
        snapshot: Option<&SnapshotId>,
    ) -> Result<(), StoreError> {
        let ticket = {
            let mut state = self.state.lock();
            row.base_root = match snapshot {
                Some(snapshot) => Some(self.readable_snapshot(snapshot)?.root),
                None => None,
            };
            let mut batch = Batch::default();
            batch.put(Table::Session, id, row.encode());
            let ticket = self.meta().write(&self.id, batch)?;
            state.sessions.by_id.insert(id, Session::new(phase, row.created_ns, row.base_root));
            if phase == Phase::Uploading {
                self.quota.session_begun(&UploadSessionId::from_bytes(id), (row.computer, row.series));
            }
            ticket
        };
        self.sync(ticket)
    }

    /// Whether the session lives; its time begins anew.
    pub(crate) fn upload_session(&self, session: &UploadSessionId) -> Result<(), StoreError> {
        let now_ns = self.now_ns();
        self.state.lock().sessions.enter(session, now_ns).map(|_| ())
    }

    /// The restore is still running.
    pub(crate) fn touch_restore(&self, restore: &RestoreId) -> Result<(), StoreError> {
        let now_ns = self.now_ns();
        match self.state.lock().sessions.by_id.get_mut(restore.as_bytes()) {
            Some(found) if found.phase == Phase::Restoring => {
                found.seen_ns = found.seen_ns.max(now_ns);
                Ok(())
            }
            _ => Err(StoreError::NoSuchRestore(*restore)),
        }
    }

    /// Ends a session; what only it held may be collected.
    pub(crate) fn abort_upload(&self, session: &UploadSessionId) -> Result<(), StoreError> {
        let ticket = {
            let mut state = self.state.lock();
            state.sessions.enter(session, i64::MIN)?;
            self.remove_session(&mut state, session.as_bytes())?
        };
        self.wake();
        self.sync(ticket)
    }

    /// Ends a restore; one that has ended already is no error. Not synced: one that a crash brings back ends by itself.
    pub(crate) fn end_restore(&self, restore: &RestoreId) -> Result<(), StoreError> {
        {
            let mut state = self.state.lock();
            match state.sessions.by_id.get(restore.as_bytes()) {
                Some(session) if session.phase == Phase::Restoring => {}
                _ => return Ok(()),
            }
            self.remove_session(&mut state, restore.as_bytes())?;
        }
        self.wake();
        Ok(())
    }

    /// Upload sessions that have not ended.
    pub(crate) fn live_sessions(&self) -> u64 {
        self.state.lock().sessions.uploads()
    }

    /// Ends sessions that made no request for the time set. A loss of liveness for their holders, nothing else.
    pub(crate) fn expire_sessions(&self, now_ns: i64) -> Result<Expired, StoreError> {
        let mut expired = Expired::default();
        let mut state = self.state.lock();
        for id in state.sessions.expired(now_ns, self.shared.settings.session_idle_ns, EXPIRED_PER_STEP) {
            match state.sessions.by_id.get(&id).map(|session| session.phase) {
                Some(Phase::Uploading) => expired.uploads += 1,
                Some(Phase::Restoring) => expired.restores += 1,
                _ => expired.committed += 1,
            }
            self.remove_session(&mut state, &id)?;
        }
        if expired != Expired::default() {
            drop(state);
            self.wake();
        }
        // That the answer of a commit is no longer kept is nothing to tell.
        if expired.uploads + expired.restores > 0 {
            tracing::info!(
                vault = %self.id, uploads = expired.uploads, restores = expired.restores,
                "ended sessions without requests"
            );
        }
        Ok(expired)
    }

    /// Makes every claim of the session a hold. The caller syncs what it writes afterwards.
    pub(crate) fn hold_claims(&self, state: &mut State, session: &UploadSessionId) -> Result<(), StoreError> {
        state.sessions.enter(session, self.now_ns())?;
        let claimed = state.sessions.claimed(session);
        for ids in claimed.chunks(BATCH_ROWS_MAX / 2) {
            let mut batch = Batch::default();
            for id in ids {
                batch.put(Table::Session, hold_key(session, id), Vec::new());
            }
            self.meta().write(&self.id, batch)?;
            for id in ids {
                state.sessions.held(session, id, true);
            }
        }
        state.sessions.unclaim_all(session);
        Ok(())
    }

    /// Makes a hold of every claim of the session whose object has a row. An acknowledged node batch answers for all
    /// that was sent or reported present before it, and the agent lets go of them, though their parents may come later.
    /// `None`: nothing was written.
    pub(crate) fn hold_stored(
        &self,
        state: &mut State,
        session: &UploadSessionId,
    ) -> Result<Option<Ticket>, StoreError> {
        let mut ticket = None;
        for ids in state.sessions.claimed(session).chunks(BATCH_ROWS_MAX / 2) {
            let rows = self.object_rows(ids)?;
            let stored: Vec<&ObjectId> =
                ids.iter().zip(rows).filter(|(_, row)| row.is_some()).map(|(id, _)| id).collect();
            if stored.is_empty() {
                continue;
            }
            let mut batch = Batch::default();
            for id in &stored {
                batch.put(Table::Session, hold_key(session, id), Vec::new());
            }
            ticket = Some(self.meta().write(&self.id, batch)?);
            for id in stored {
                state.sessions.held(session, id, true);
                state.sessions.unclaim(session, id);
            }
        }
        Ok(ticket)
    }

    fn remove_session(&self, state: &mut State, id: &[u8; UploadSessionId::LEN]) -> Result<Ticket, StoreError> {
        let mut keys: Vec<Vec<u8>> = Vec::new();
        self.each_row(Table::Session, id, |key, _| {
            keys.push(key);
            Ok(())
        })?;
        let mut ticket = Ticket::default();
        // The header goes last: with it gone nobody would look for the rest.
        for keys in keys.rchunks(BATCH_ROWS_MAX / 2) {
            let mut batch = Batch::default();
            for key in keys {
                batch.delete(Table::Session, key.clone());
            }
            ticket = self.meta().write(&self.id, batch)?;
        }
        if state.sessions.by_id.remove(id).is_some_and(|session| session.phase == Phase::Uploading) {
            self.quota.session_ended(&UploadSessionId::from_bytes(*id));
        }
        Ok(ticket)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(number: u32) -> ObjectId {
        let mut bytes = [0; 32];
        bytes[..4].copy_from_slice(&number.to_le_bytes());
        ObjectId::from_bytes(bytes)
    }

    #[test]
    fn the_oldest_claims_go_first_and_memory_is_bounded() {
        let mut claims = Claims::default();
        for number in 0..100_000 {
            claims.insert(id(number));
            assert!(claims.young.len() + claims.old.len() <= 2 * CLAIMS_PER_GENERATION);
        }
        assert!(!claims.contains(&id(0)));
        assert!((100_000 - CLAIMS_PER_GENERATION as u32..100_000).all(|number| claims.contains(&id(number))));
        claims.remove(&id(99_999));
        assert!(!claims.contains(&id(99_999)));
    }

    #[test]
    fn a_zero_row_is_covered_by_a_live_upload_only() {
        let upload = UploadSessionId::from_bytes([1; 16]);
        let mut sessions = Sessions::default();
        assert!(!sessions.cover(&id(1), Some(&upload)));
        sessions.by_id.insert(*upload.as_bytes(), Session::new(Phase::Uploading, 0, None));
        assert!(sessions.cover(&id(1), Some(&upload)));
        assert!(!sessions.cover(&id(1), None));
        sessions.claim(&upload, &[id(1)], 5).unwrap();
        assert!(sessions.cover(&id(1), None));
        assert_eq!(sessions.next_expiry_ns(10), Some(15));
        sessions.committed(&upload, 6);
        assert!(!sessions.cover(&id(1), Some(&upload)));
        assert!(matches!(sessions.enter(&upload, 7), Err(StoreError::NoSuchSession(_))));
        sessions.pin(id(1));
        sessions.pin(id(1));
        sessions.unpin(&id(1));
        assert!(sessions.cover(&id(1), None), "another commit of the same root is under way");
        sessions.unpin_all();
        assert!(!sessions.cover(&id(1), None));
    }
}
