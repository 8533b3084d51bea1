//! The quota book: one per process, under one mutex, of what every limit has used and reserved. Pure arithmetic: it
//! reads no rows and writes none; usage comes in from the ledgers, limits from the caller.
//!
//! Physical bytes are reserved before a frame is appended and turn into used bytes in the step that counts its row, so
//! at no instant does the sum of both pass a hard limit. A session reserves in steps, so that a running upload is not
//! refused for the sake of one that begins; what of a step nobody needs yet is taken back before anyone is refused.
//! Logical bytes are those of the largest node a session has stored: no snapshot above that node is smaller.

use crate::error::StoreError;
use crate::sync::Mutex;
use repo_format::id::{UploadSessionId, VaultId};
use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::Arc;

/// Largest step, bytes.
const STEP_BYTES_MAX: u64 = 256 << 20;
/// A step takes at most one part in this many of what is left.
const STEP_SHARE: u64 = 16;

/// Names a limit: a user's, a customer's, whoever pays. Opaque to the engine.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct LimitId(Arc<str>);

impl LimitId {
    /// From any text.
    pub fn new(text: &str) -> Self {
        LimitId(text.into())
    }
    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for LimitId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Which bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum QuotaKind {
    /// Frame bytes in packs: deduplicated, compressed, sealed.
    Physical,
    /// File bytes summed over snapshots.
    Logical,
}

impl fmt::Display for QuotaKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            QuotaKind::Physical => "physical",
            QuotaKind::Logical => "logical",
        })
    }
}

/// What a limit allows, bytes; `None` is without bound. Soft ones only give notice.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Limits {
    /// Notice above this many physical bytes.
    pub physical_soft: Option<u64>,
    /// No upload above this many physical bytes.
    pub physical_hard: Option<u64>,
    /// Notice above this many logical bytes.
    pub logical_soft: Option<u64>,
    /// No snapshot above this many logical bytes.
    pub logical_hard: Option<u64>,
}

impl Limits {
    /// The soft limit of a kind.
    pub const fn soft(&self, kind: QuotaKind) -> Option<u64> {
        match kind {
            QuotaKind::Physical => self.physical_soft,
            QuotaKind::Logical => self.logical_soft,
        }
    }

    /// The hard limit of a kind.
    pub const fn hard(&self, kind: QuotaKind) -> Option<u64> {
        match kind {
            QuotaKind::Physical => self.physical_hard,
            QuotaKind::Logical => self.logical_hard,
        }
    }
}

/// A limit and where it stands, bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct QuotaReading {
    /// What it allows.
    pub limits: Limits,
    /// Physical bytes in the ledgers of its vaults.
    pub used_physical: u64,
    /// Physical bytes promised to uploads or appended and not yet in a ledger.
    pub reserved_physical: u64,
    /// Logical bytes in the ledgers of its vaults.
    pub used_logical: u64,
    /// Logical bytes of snapshots under way.
    pub reserved_logical: u64,
    /// More is used than a soft limit.
    pub soft_exceeded: bool,
}

impl QuotaReading {
    /// Bytes of a kind in the ledgers.
    pub const fn used(&self, kind: QuotaKind) -> u64 {
        match kind {
            QuotaKind::Physical => self.used_physical,
            QuotaKind::Logical => self.used_logical,
        }
    }

    /// Whether more of a kind is used than its soft limit.
    pub fn is_soft_exceeded(&self, kind: QuotaKind) -> bool {
        self.limits.soft(kind).is_some_and(|soft| self.used(kind) > soft)
    }
}

/// Bytes of both kinds.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Amounts {
    pub(crate) physical: u64,
    pub(crate) logical: u64,
}

impl Amounts {
    const fn of(&self, kind: QuotaKind) -> u64 {
        match kind {
            QuotaKind::Physical => self.physical,
            QuotaKind::Logical => self.logical,
        }
    }

    fn change(&mut self, from: Amounts, to: Amounts) {
        self.physical = moved(self.physical, from.physical, to.physical);
        self.logical = moved(self.logical, from.logical, to.logical);
    }
}

/// `sum` after one of its parts went from `from` to `to`.
fn moved(sum: u64, from: u64, to: u64) -> u64 {
    debug_assert!(sum >= from, "a part is larger than its sum");
    sum.saturating_sub(from).saturating_add(to)
}

/// Tells sessions of the same computer and series from others.
pub(crate) type SeriesKey = (String, String);

/// A live session and the logical bytes of the largest node it has stored.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct LiveSession {
    pub(crate) id: UploadSessionId,
    pub(crate) series: SeriesKey,
    pub(crate) logical: u64,
}

/// What is known of a vault that is not open: its ledger, and what its live sessions and unread packs may add.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct AtRest {
    pub(crate) used: Amounts,
    pub(crate) sessions: Vec<LiveSession>,
    /// Physical bytes that recovery may find beside what the ledger counts.
    pub(crate) unrecovered: u64,
}

#[derive(Default)]
struct Group {
    limits: Limits,
    used: Amounts,
    reserved: Amounts,
    vaults: HashSet<VaultId>,
}

impl Group {
    fn left(&self, kind: QuotaKind) -> Option<u64> {
        let taken = self.used.of(kind).saturating_add(self.reserved.of(kind));
        self.limits.hard(kind).map(|hard| hard.saturating_sub(taken))
    }

    fn is_passed(&self) -> bool {
        let taken = self.used.physical.saturating_add(self.reserved.physical);
        self.limits.physical_hard.is_some_and(|hard| taken > hard)
    }

    fn reading(&self) -> QuotaReading {
        let mut reading = QuotaReading {
            limits: self.limits,
            used_physical: self.used.physical,
            reserved_physical: self.reserved.physical,
            used_logical: self.used.logical,
            reserved_logical: self.reserved.logical,
            soft_exceeded: false,
        };
        reading.soft_exceeded =
            reading.is_soft_exceeded(QuotaKind::Physical) || reading.is_soft_exceeded(QuotaKind::Logical);
        reading
    }
}

#[derive(Clone, Default)]
struct SessionAccount {
    series: SeriesKey,
    /// The part of its steps that no body and no frame has taken; others may take it back.
    idle: u64,
    /// Logical bytes of the largest node it has stored.
    logical: u64,
}

#[derive(Default)]
struct VaultAccount {
    chain: Vec<LimitId>,
    used: Amounts,
    reserved: Amounts,
    sessions: HashMap<UploadSessionId, SessionAccount>,
    /// A part of `reserved` is what its recovery may find; it ends when the vault is opened.
    waits_for_recovery: bool,
    /// Another one whenever the vault is opened: what was reserved before is gone, and its guards give nothing back.
    generation: u64,
}

#[derive(Default)]
struct Book {
    groups: HashMap<LimitId, Group>,
    vaults: HashMap<VaultId, VaultAccount>,
    /// Sessions with an idle part, so that taking it back looks at nothing else.
    idle: HashSet<(VaultId, UploadSessionId)>,
    generation: u64,
    refusals: u64,
}

/// See the module.
#[derive(Default)]
pub(crate) struct QuotaBook {
    book: Mutex<Book>,
}

impl Book {
    fn vault(&mut self, vault: &VaultId) -> &mut VaultAccount {
        self.vaults.entry(*vault).or_default()
    }

    fn change_used(&mut self, vault: &VaultId, to: Amounts) {
        let account = self.vaults.entry(*vault).or_default();
        let from = std::mem::replace(&mut account.used, to);
        for limit in &account.chain {
            if let Some(group) = self.groups.get_mut(limit) {
                group.used.change(from, to);
            }
        }
    }

    fn change_reserved(&mut self, vault: &VaultId, change: impl FnOnce(&mut Amounts)) {
        let account = self.vaults.entry(*vault).or_default();
        let from = account.reserved;
        change(&mut account.reserved);
        for limit in &account.chain {
            if let Some(group) = self.groups.get_mut(limit) {
                group.reserved.change(from, account.reserved);
            }
        }
    }

    /// Frees physical bytes of a reservation.
    fn release(&mut self, vault: &VaultId, bytes: u64) {
        self.change_reserved(vault, |reserved| reserved.physical = moved(reserved.physical, bytes, 0));
    }

    /// The limit of the vault's chain with the least left, and how much that is; `None` without any hard limit.
    fn tightest(&self, vault: &VaultId, kind: QuotaKind) -> Option<(LimitId, u64)> {
        let chain = self.vaults.get(vault).map(|account| account.chain.as_slice()).unwrap_or_default();
        let left = |limit: &LimitId| Some((limit.clone(), self.groups.get(limit)?.left(kind)?));
        chain.iter().filter_map(left).min_by_key(|(_, left)| *left)
    }

    fn refusal(&mut self, limit: &LimitId, kind: QuotaKind, requested: u64) -> StoreError {
        self.refusals += 1;
        let (used, reserved, limit_bytes) = self.groups.get(limit).map_or((0, 0, 0), |group| {
            (group.used.of(kind), group.reserved.of(kind), group.limits.hard(kind).unwrap_or_default())
        });
        StoreError::QuotaExceeded { limit: limit.clone(), kind, used, reserved, limit_bytes, requested }
    }

    /// Frees the idle parts of all sessions that count under `limit`, but for `spare`'s.
    fn take_back(&mut self, limit: &LimitId, spare: Option<(VaultId, UploadSessionId)>) {
        let Some(group) = self.groups.get(limit) else { return };
        let counts = |key: &&(VaultId, UploadSessionId)| Some(**key) != spare && group.vaults.contains(&key.0);
        let taken: Vec<_> = self.idle.iter().filter(counts).copied().collect();
        for (vault, session) in taken {
            let idle = self.set_idle(&vault, &session, 0);
            self.release(&vault, idle);
        }
    }

    /// A limit that was lowered, or passed by a recovery, leaves nobody a step to go on with.
    fn take_back_where_passed(&mut self, vault: &VaultId) {
        let chain = self.vaults.get(vault).map(|account| account.chain.as_slice()).unwrap_or_default();
        let is_passed = |limit: &&LimitId| self.groups.get(*limit).is_some_and(|group| group.is_passed());
        let passed: Vec<LimitId> = chain.iter().filter(is_passed).cloned().collect();
        for limit in passed {
            self.take_back(&limit, None);
        }
    }

    /// Sets the idle part of a session, not what is reserved; answers what it was.
    fn set_idle(&mut self, vault: &VaultId, session: &UploadSessionId, idle: u64) -> u64 {
        let account = self.vaults.get_mut(vault).and_then(|account| account.sessions.get_mut(session));
        let before = account.map_or(0, |account| std::mem::replace(&mut account.idle, idle));
        if idle == 0 {
            self.idle.remove(&(*vault, *session));
        } else {
            self.idle.insert((*vault, *session));
        }
        before
    }

    /// How much a session that needs `needed` bytes may reserve now, in every limit of the chain or in none.
    fn step(&mut self, vault: &VaultId, session: &UploadSessionId, needed: u64) -> Result<u64, StoreError> {
        loop {
            let Some((limit, left)) = self.tightest(vault, QuotaKind::Physical) else { return Ok(needed) };
            if needed <= left {
                return Ok(needed.max(STEP_BYTES_MAX.min(left / STEP_SHARE)));
            }
            self.take_back(&limit, Some((*vault, *session)));
            let left = self.groups.get(&limit).and_then(|group| group.left(QuotaKind::Physical));
            if left.is_some_and(|left| left < needed) {
                return Err(self.refusal(&limit, QuotaKind::Physical, needed));
            }
        }
    }

    /// Reserves `bytes` for a body or frames of the session: out of its idle part, which grows by a step if need be.
    fn take(&mut self, vault: &VaultId, session: &UploadSessionId, bytes: u64) -> Result<(), StoreError> {
        self.take_back_where_passed(vault);
        // A session that has ended meanwhile gets what it needs and keeps nothing.
        let idle = self.vaults.get(vault).and_then(|account| account.sessions.get(session)).map(|account| account.idle);
        let needed = bytes.saturating_sub(idle.unwrap_or(0));
        if needed == 0 {
            self.set_idle(vault, session, idle.unwrap_or(0).saturating_sub(bytes));
            return Ok(());
        }
        let step = self.step(vault, session, needed)?;
        let reserved = if idle.is_some() { step } else { needed };
        self.set_idle(vault, session, reserved - needed);
        self.change_reserved(vault, |sum| sum.physical = sum.physical.saturating_add(reserved));
        Ok(())
    }

    fn is_current(&self, vault: &VaultId, generation: u64) -> bool {
        self.vaults.get(vault).is_some_and(|account| account.generation == generation)
    }

    /// Replaces everything known of a vault but its chain.
    fn restate(&mut self, vault: &VaultId, at_rest: AtRest) {
        let AtRest { used, sessions, unrecovered } = at_rest;
        let account = self.vault(vault);
        account.waits_for_recovery = unrecovered > 0;
        let logical = sessions.iter().map(|session| session.logical).fold(0, u64::saturating_add);
        let accounts = sessions
            .into_iter()
            .map(|LiveSession { id, series, logical }| (id, SessionAccount { series, idle: 0, logical }));
        account.sessions = accounts.collect();
        self.idle.retain(|(of, _)| of != vault);
        self.change_used(vault, used);
        self.change_reserved(vault, |reserved| *reserved = Amounts { physical: unrecovered, logical });
    }

    fn drop_if_empty(&mut self, limit: &LimitId) {
        if self.groups.get(limit).is_some_and(|group| group.vaults.is_empty() && group.limits == Limits::default()) {
            self.groups.remove(limit);
        }
    }

    fn set_chain(&mut self, vault: &VaultId, chain: Vec<LimitId>) {
        let account = self.vaults.entry(*vault).or_default();
        let (used, reserved) = (account.used, account.reserved);
        let old = std::mem::take(&mut account.chain);
        for limit in &old {
            if let Some(group) = self.groups.get_mut(limit) {
                group.vaults.remove(vault);
                group.used.change(used, Amounts::default());
                group.reserved.change(reserved, Amounts::default());
            }
        }
        let mut new: Vec<LimitId> = Vec::new();
        for limit in chain {
            let group = self.groups.entry(limit.clone()).or_default();
            // Named twice, it still counts once.
            if group.vaults.insert(*vault) {
                group.used.change(Amounts::default(), used);
                group.reserved.change(Amounts::default(), reserved);
                new.push(limit);
            }
        }
        self.vault(vault).chain = new;
        for limit in &old {
            self.drop_if_empty(limit);
        }
    }
}

impl QuotaBook {
    /// Sets what a limit allows. Below what is used already, it stops uploads and takes nothing away.
    pub(crate) fn set_limit(&self, id: LimitId, limits: Limits) {
        let mut book = self.book.lock();
        book.groups.entry(id.clone()).or_default().limits = limits;
        book.drop_if_empty(&id);
    }

    /// Under which limits a vault counts.
    pub(crate) fn set_chain(&self, vault: &VaultId, chain: Vec<LimitId>) {
        self.book.lock().set_chain(vault, chain);
    }

    /// Where a limit stands; all zero for one that nobody set and no vault names.
    pub(crate) fn reading(&self, limit: &LimitId) -> QuotaReading {
        self.book.lock().groups.get(limit).map(Group::reading).unwrap_or_default()
    }

    /// All limits, by name.
    pub(crate) fn readings(&self) -> Vec<(LimitId, QuotaReading)> {
        let mut readings: Vec<_> =
            self.book.lock().groups.iter().map(|(limit, group)| (limit.clone(), group.reading())).collect();
        readings.sort_by(|a, b| a.0.cmp(&b.0));
        readings
    }

    /// The limits of a vault, in the order of its chain.
    pub(crate) fn readings_of(&self, vault: &VaultId) -> Vec<(LimitId, QuotaReading)> {
        let book = self.book.lock();
        let chain = book.vaults.get(vault).map(|account| account.chain.as_slice()).unwrap_or_default();
        chain.iter().filter_map(|limit| Some((limit.clone(), book.groups.get(limit)?.reading()))).collect()
    }

    /// Vaults under the limits of `vault` whose recovery may free reserved bytes. Each is named once: what cannot be
    /// recovered is not tried again for every refusal.
    pub(crate) fn unrecovered_beside(&self, vault: &VaultId) -> Vec<VaultId> {
        let mut book = self.book.lock();
        let chain = book.vaults.get(vault).map(|account| account.chain.as_slice()).unwrap_or_default();
        let groups = chain.iter().filter_map(|limit| book.groups.get(limit));
        let beside: HashSet<VaultId> = groups.flat_map(|group| group.vaults.iter().copied()).collect();
        let mut waiting = |id: &VaultId| {
            book.vaults.get_mut(id).is_some_and(|account| std::mem::take(&mut account.waits_for_recovery))
        };
        beside.into_iter().filter(|id| waiting(id)).collect()
    }

    /// Requests refused since start.
    pub(crate) fn refusals(&self) -> u64 {
        self.book.lock().refusals
    }

    /// Notes a vault that is not open.
    pub(crate) fn note(&self, vault: &VaultId, at_rest: AtRest) {
        self.book.lock().restate(vault, at_rest);
    }

    /// A vault is being opened: from now on only the account made here changes its line.
    pub(crate) fn account(self: &Arc<Self>, vault: VaultId) -> Account {
        let mut book = self.book.lock();
        book.generation += 1;
        let generation = book.generation;
        book.vault(&vault).generation = generation;
        Account { book: self.clone(), vault, generation }
    }

    /// A vault is no more.
    pub(crate) fn remove(&self, vault: &VaultId) {
        let mut book = self.book.lock();
        book.restate(vault, AtRest::default());
        book.set_chain(vault, Vec::new());
        book.vaults.remove(vault);
    }
}

/// An open vault's line in the book. Outdated by the next opening; then it changes nothing.
#[derive(Clone)]
pub(crate) struct Account {
    book: Arc<QuotaBook>,
    vault: VaultId,
    generation: u64,
}

impl Account {
    /// `None`: the vault has been opened again.
    fn with<T>(&self, change: impl FnOnce(&mut Book) -> T) -> Option<T> {
        let mut book = self.book.book.lock();
        book.is_current(&self.vault, self.generation).then(|| change(&mut book))
    }

    /// The vault has been opened: `used` is what it holds, and nothing is reserved but by its live sessions, of which
    /// each has stored a node of so many logical bytes.
    pub(crate) fn opened(&self, used: Amounts, sessions: Vec<LiveSession>) {
        self.with(|book| book.restate(&self.vault, AtRest { used, sessions, unrecovered: 0 }));
    }

    /// A session begins. A run of the same series that did not end leaves it the room of its snapshot: it reserves
    /// again if it should go on after all.
    pub(crate) fn session_begun(&self, session: &UploadSessionId, series: SeriesKey) {
        self.with(|book| {
            let account = book.vault(&self.vault);
            let mut freed: u64 = 0;
            for before in account.sessions.values_mut().filter(|before| before.series == series) {
                freed = freed.saturating_add(std::mem::take(&mut before.logical));
            }
            account.sessions.insert(*session, SessionAccount { series, ..SessionAccount::default() });
            book.change_reserved(&self.vault, |reserved| reserved.logical = moved(reserved.logical, freed, 0));
        });
    }

    /// Refuses an upload that could not end in a snapshot: a logical limit is reached already.
    pub(crate) fn check_begin(&self) -> Result<(), StoreError> {
        let check = |book: &mut Book| match book.tightest(&self.vault, QuotaKind::Logical) {
            Some((limit, 0)) => Err(book.refusal(&limit, QuotaKind::Logical, 0)),
            _ => Ok(()),
        };
        self.with(check).unwrap_or(Ok(()))
    }

    /// Reserves `bytes` for a request that is about to be read.
    pub(crate) fn admit(&self, session: &UploadSessionId, bytes: u64) -> Result<Admission, StoreError> {
        let left = self.with(|book| book.take(&self.vault, session, bytes).map(|()| bytes)).unwrap_or(Ok(0))?;
        Ok(Admission { account: self.clone(), session: *session, left: Mutex::new(left) })
    }

    /// Reserves `bytes` of frames about to be appended, first out of what was admitted.
    pub(crate) fn append(
        &self,
        session: &UploadSessionId,
        admission: Option<&Admission>,
        bytes: u64,
    ) -> Result<Appending, StoreError> {
        let mut admitted = admission.map(|admission| admission.left.lock());
        let from_admission = admitted.as_ref().map_or(0, |left| (**left).min(bytes));
        let take = |book: &mut Book| {
            let taken = book.take(&self.vault, session, bytes - from_admission).map(|()| bytes);
            // The request ends here. Of many that were admitted and cannot all be stored, none may be refused for the
            // room of one that was refused before it.
            if let (Err(_), Some(left)) = (&taken, admitted.as_mut()) {
                book.release(&self.vault, std::mem::take(&mut **left));
            }
            taken
        };
        let bytes = self.with(take).unwrap_or(Ok(0))?;
        if let Some(left) = admitted.as_mut() {
            **left -= from_admission;
        }
        Ok(Appending { account: self.clone(), bytes })
    }

    /// Frames counted as appended will have no row.
    pub(crate) fn given_up(&self, bytes: u64) {
        if bytes > 0 {
            self.with(|book| book.release(&self.vault, bytes));
        }
    }

    /// The session's snapshot will have at least `bytes` logical bytes.
    pub(crate) fn reserve_logical(&self, session: &UploadSessionId, bytes: u64) -> Result<(), StoreError> {
        let reserve = |book: &mut Book| {
            let reserved = book.vault(&self.vault).sessions.get(session).map_or(0, |account| account.logical);
            let Some(more) = bytes.checked_sub(reserved).filter(|more| *more > 0) else { return Ok(()) };
            match book.tightest(&self.vault, QuotaKind::Logical) {
                Some((limit, left)) if left < more => return Err(book.refusal(&limit, QuotaKind::Logical, more)),
                _ => {}
            }
            match book.vault(&self.vault).sessions.get_mut(session) {
                Some(account) => account.logical = bytes,
                None => return Ok(()),
            }
            book.change_reserved(&self.vault, |reserved| reserved.logical += more);
            Ok(())
        };
        self.with(reserve).unwrap_or(Ok(()))
    }

    /// The session holds nothing any more.
    pub(crate) fn session_ended(&self, session: &UploadSessionId) {
        self.with(|book| end_session(book, &self.vault, session));
    }

    /// The ledger has changed, and with it `appended` bytes of frames have rows now or will never have.
    pub(crate) fn recorded(&self, used: Amounts, appended: u64) {
        self.with(|book| {
            book.release(&self.vault, appended);
            book.change_used(&self.vault, used);
        });
    }

    /// The ledger has changed by the snapshots of `sessions`, which end.
    pub(crate) fn committed(&self, used: Amounts, sessions: &[UploadSessionId]) {
        self.with(|book| {
            for session in sessions {
                end_session(book, &self.vault, session);
            }
            book.change_used(&self.vault, used);
        });
    }
}

fn end_session(book: &mut Book, vault: &VaultId, session: &UploadSessionId) {
    let idle = book.set_idle(vault, session, 0);
    let ended = book.vault(vault).sessions.remove(session).unwrap_or_default();
    book.release(vault, idle);
    book.change_reserved(vault, |reserved| reserved.logical = moved(reserved.logical, ended.logical, 0));
}

/// Room for one request's frames; what they did not take is free again when this is dropped.
pub struct Admission {
    account: Account,
    session: UploadSessionId,
    left: Mutex<u64>,
}

impl Admission {
    /// Whose request it is.
    pub(crate) const fn session(&self) -> &UploadSessionId {
        &self.session
    }
}

impl Drop for Admission {
    fn drop(&mut self) {
        let left = std::mem::take(self.left.get_mut());
        self.account.given_up(left);
    }
}

/// Frames being appended: whatever is not handed over to rows in waiting is given up when this is dropped.
pub(crate) struct Appending {
    account: Account,
    bytes: u64,
}

impl Appending {
    /// `bytes` of the frames are now counted by somebody else.
    pub(crate) fn hand_over(&mut self, bytes: u64) {
        self.bytes = self.bytes.saturating_sub(bytes);
    }

    /// All of them are.
    pub(crate) fn hand_over_all(&mut self) {
        self.bytes = 0;
    }
}

impl Drop for Appending {
    fn drop(&mut self) {
        self.account.given_up(self.bytes);
    }
}

#[cfg(test)]
mod tests;
