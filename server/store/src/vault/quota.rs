//! What ties a vault to the quota book: its ledger, which cannot change without the book, and what a vault that is not
//! open uses and holds reserved.

use super::{Shared, Vault};
use crate::error::{At, StoreError};
use crate::meta::rows::{LEDGER_KEY, Ledger, ObjectRow, PackRow, PackState, SessionKind, SessionRow, pack_key};
use crate::meta::{MetaStore, Table};
use crate::pack::{pack_of_name, pack_path, packs_directory};
use crate::quota::{Account, Admission, Amounts, AtRest, LiveSession};
use repo_format::id::{PackId, UploadSessionId, VaultId};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Deref;

/// Rows read from the index at once.
const PAGE_ROWS: usize = 1024;

impl From<&Ledger> for Amounts {
    fn from(ledger: &Ledger) -> Self {
        Amounts { physical: ledger.physical_bytes, logical: ledger.logical_bytes }
    }
}

/// A vault's ledger in memory. Every change goes to the book in the same call, so that what is reserved and what is
/// used never miss a byte between them, and never count it twice.
pub(crate) struct BookedLedger {
    ledger: Ledger,
    account: Account,
    /// The book counts the vault as the index had it until recovery is done.
    is_open: bool,
}

impl Deref for BookedLedger {
    type Target = Ledger;
    fn deref(&self) -> &Ledger {
        &self.ledger
    }
}

impl BookedLedger {
    /// Of a vault that is being recovered.
    pub(crate) const fn new(ledger: Ledger, account: Account) -> Self {
        BookedLedger { ledger, account, is_open: false }
    }

    /// Recovery is done.
    pub(crate) fn open(&mut self, sessions: Vec<LiveSession>) {
        self.is_open = true;
        self.account.opened(Amounts::from(&self.ledger), sessions);
    }

    /// The ledger of a batch that was written.
    pub(crate) fn set(&mut self, ledger: Ledger) {
        self.record(ledger, 0);
    }

    /// As [`BookedLedger::set`]; `appended` bytes of frames now have their rows, or never will.
    pub(crate) fn record(&mut self, ledger: Ledger, appended: u64) {
        self.ledger = ledger;
        if self.is_open {
            self.account.recorded(Amounts::from(&ledger), appended);
        }
    }

    /// As [`BookedLedger::set`], for a batch that committed the snapshots of `sessions`.
    pub(crate) fn commit(&mut self, ledger: Ledger, sessions: &[UploadSessionId]) {
        self.ledger = ledger;
        if self.is_open {
            self.account.committed(Amounts::from(&ledger), sessions);
        }
    }
}

impl Vault {
    /// Reserves room for a body before it is read.
    pub(crate) fn admit(&self, session: &UploadSessionId, body_bytes: u64) -> Result<Admission, StoreError> {
        self.upload_session(session)?;
        self.quota.admit(session, body_bytes)
    }

    /// Live sessions, each with the logical bytes of the largest node it holds.
    pub(super) fn reserved_by_sessions(&self) -> Result<Vec<LiveSession>, StoreError> {
        reserved_by_sessions(self.meta(), &self.id)
    }
}

/// What the index says of a vault that is not open.
pub(crate) fn at_rest(shared: &Shared, vault: &VaultId) -> Result<AtRest, StoreError> {
    let Some(bytes) = shared.meta.get(vault, Table::Ledger, LEDGER_KEY)? else { return Ok(AtRest::default()) };
    let ledger = Ledger::decode(&bytes)?;
    let sessions = reserved_by_sessions(&*shared.meta, vault)?;
    // Frames without rows are of live sessions: a commit records all of its session's, and those of an aborted one are
    // recorded as soon as the vault is idle.
    let unrecovered = if sessions.is_empty() { 0 } else { unrecovered_bytes(shared, vault)? };
    Ok(AtRest { used: Amounts::from(&ledger), sessions, unrecovered })
}

/// What the recovery of a vault may add to its ledger: the bytes of packs that are not sealed, beyond what rows point
/// to. Only packs of the vault's last epoch can be like that, since every opening seals what it finds.
fn unrecovered_bytes(shared: &Shared, vault: &VaultId) -> Result<u64, StoreError> {
    let directory = packs_directory(&shared.settings.vault_directory(vault));
    let names = shared.world.vfs.list(&directory).at(&directory)?;
    let packs: BTreeSet<PackId> = names.iter().filter_map(|name| pack_of_name(name)).collect();
    let Some(epoch) = packs.last().map(|pack| pack.epoch) else { return Ok(0) };
    let mut bytes: u64 = 0;
    for pack in packs.range(PackId { epoch, sequence: 0 }..) {
        let row = shared.meta.get(vault, Table::Pack, &pack_key(pack))?;
        let row = row.map(|bytes| PackRow::decode(&bytes)).transpose()?;
        let known = match row {
            Some(row) if row.state != PackState::Open => continue,
            Some(row) => row.live_bytes,
            None => 0,
        };
        let path = pack_path(&directory, pack);
        let len = shared.world.vfs.open(&path).and_then(|file| file.len()).at(&path)?;
        bytes = bytes.saturating_add(len.saturating_sub(known));
    }
    Ok(bytes)
}

fn reserved_by_sessions(meta: &dyn MetaStore, vault: &VaultId) -> Result<Vec<LiveSession>, StoreError> {
    let mut live: BTreeMap<UploadSessionId, (i64, LiveSession)> = BTreeMap::new();
    let mut from = Vec::new();
    loop {
        let rows = meta.scan(vault, Table::Session, &from, PAGE_ROWS)?;
        let last_page = rows.len() < PAGE_ROWS;
        // A header comes before what its session holds.
        let mut held: Vec<(UploadSessionId, Vec<u8>)> = Vec::new();
        for (key, value) in rows {
            from.clone_from(&key);
            let Some((session, node)) = key.split_at_checked(UploadSessionId::LEN) else { continue };
            let session = UploadSessionId::from_slice(session)?;
            if !node.is_empty() {
                if live.contains_key(&session) {
                    held.push((session, node.to_vec()));
                }
            } else {
                let row = SessionRow::decode(&value)?;
                if row.kind == SessionKind::Upload && row.committed.is_none() {
                    let series = (row.computer, row.series);
                    live.insert(session, (row.created_ns, LiveSession { id: session, series, logical: 0 }));
                }
            }
        }
        let nodes: Vec<&[u8]> = held.iter().map(|(_, node)| node.as_slice()).collect();
        for ((session, _), row) in held.iter().zip(meta.multi_get(vault, Table::Object, &nodes)?) {
            if let (Some(row), Some((_, reserved))) = (row, live.get_mut(session)) {
                reserved.logical = ObjectRow::decode(&row)?.logical_bytes.max(reserved.logical);
            }
        }
        if last_page {
            return Ok(newest_of_series(live.into_values().collect()));
        }
        from.push(0);
    }
}

/// Only the newest session of a series has the room of its snapshot reserved.
fn newest_of_series(mut sessions: Vec<(i64, LiveSession)>) -> Vec<LiveSession> {
    sessions.sort_by(|(a_ns, a), (b_ns, b)| (&a.series, b_ns).cmp(&(&b.series, a_ns)));
    let mut live: Vec<LiveSession> = Vec::with_capacity(sessions.len());
    for (_, mut session) in sessions {
        if live.last().is_some_and(|newer| newer.series == session.series) {
            session.logical = 0;
        }
        live.push(session);
    }
    live
}
