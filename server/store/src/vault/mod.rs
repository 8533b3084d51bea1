//! One vault: the monitor that serialises its index changes, and what it works with. Cryptography, compression, pack
//! writes and `fdatasync` happen outside the lock; inside it, checking children and applying the batch never yields.
//!
//! Lock order: `maintenance`, then `journal`, then `state`, then `appender` or `compactor`. Nothing is held across a
//! sync but `maintenance` and `journal`.

mod apply;
mod audit;
mod claims;
mod commit;
mod compact;
mod compaction_policy;
mod damage;
mod deletion;
pub(crate) mod fence;
mod maintain;
pub(crate) mod quota;
mod read;
mod reap;
mod recover;
mod replay;
mod salvage;
mod scrub;
mod states;
mod upload;

pub use audit::{AuditRepair, AuditReport};
pub use commit::CommitInput;
pub use damage::{DamageReport, DamagedObject, DamagedPath, DamagedSnapshot, PathDamage};
pub use maintain::{Maintained, VaultSpace};
pub use read::{Delivered, StoredObject};
pub use recover::Recovered;
pub use scrub::{ScrubProgress, ScrubStep};
pub use upload::{Durable, IncomingObject, Received};

use crate::cache::NodeCache;
use crate::data_volume::CHANGE_BYTES;
use crate::error::StoreError;
use crate::guarded_clock::GuardedClock;
use crate::index_volume::IndexVolume;
use crate::journal::Journal;
use crate::meta::rows::{Ledger, ObjectRow, SessionRow};
use crate::meta::{IndexFailureKind, MetaStore, Table, Ticket};
use crate::pack::{Appender, PackFiles};
use crate::quota::{Account, QuotaBook};
use crate::settings::StoreSettings;
use crate::stats::Stats;
use crate::sync::Mutex;
use crate::vault::quota::BookedLedger;
use crate::world::World;
use claims::Sessions;
use maintain::{Drops, Maintenance, Upkeep};
use repo_format::crypto::Aead;
use repo_format::id::{ObjectId, PackId, UploadSessionId, VaultId};
use repo_format::keyring::VaultKeys;
use repo_format::keys::{DataKey, IdKeys};
use std::collections::{BTreeSet, HashMap};
use std::path::PathBuf;
use std::sync::Arc;

use damage::DamageMemory;
use scrub::Scrub;
/// Packs given up after which a vault takes nothing more until the server is started again.
const POISONED_MAX: u32 = 2;
const TWO_WRITES_FAILED: &str =
    "two writes to its packs have failed, so it is read-only; check the server's disk, then restart the server";

/// Rows read from the index at once.
const PAGE_ROWS: usize = 1024;

/// What every vault shares.
pub(crate) struct Shared {
    pub(crate) world: World,
    pub(crate) settings: StoreSettings,
    pub(crate) meta: Arc<dyn MetaStore>,
    pub(crate) aead: &'static dyn Aead,
    pub(crate) epoch: u32,
    pub(crate) stats: Arc<Stats>,
    pub(crate) nodes: Arc<NodeCache>,
    pub(crate) index_volume: Arc<IndexVolume>,
    /// By which holds and soft deletes end.
    pub(crate) guarded_clock: Arc<GuardedClock>,
    pub(crate) quotas: Arc<QuotaBook>,
}

/// One vault, recovered and open.
pub(crate) struct Vault {
    pub(crate) id: VaultId,
    directory: PathBuf,
    shared: Arc<Shared>,
    /// The only way to the rows.
    gate: fence::Gate,
    keys: VaultKeys,
    id_keys: IdKeys,
    files: PackFiles,
    journal: Mutex<Journal>,
    state: Mutex<State>,
    appender: Mutex<Appender>,
    quota: Account,
    damage_memory: DamageMemory,
    scrub: Mutex<Scrub>,
    /// Writes copies only, into packs of its own.
    compactor: Mutex<Appender>,
    maintenance: Mutex<Maintenance>,
    upkeep: Upkeep,
    /// Packs that the journal says were dropped.
    drops: Mutex<Drops>,
    /// Held while an audit runs.
    auditing: parking_lot::Mutex<()>,
}

/// What the monitor guards.
pub(crate) struct State {
    /// Objects appended to packs whose rows are not written: received, not durable.
    pending: HashMap<ObjectId, Pending>,
    ledger: BookedLedger,
    sessions: Sessions,
    /// Sealed packs without a live frame: they can go.
    emptied: BTreeSet<PackId>,
    /// Frame bytes of all sealed packs.
    sealed_bytes: u64,
    /// Rises when pending objects are given up.
    generation: u32,
    /// Packs given up since start; the second one makes the vault read-only.
    poisoned: u32,
}

/// An appended object without a row. Its row will have no references.
#[derive(Clone, Copy)]
pub(crate) struct Pending {
    row: ObjectRow,
    /// A damaged row exists; this place replaces it.
    heals: bool,
    /// Who sent it: the zero row names the session, so that it is spared as long as that lives.
    session: UploadSessionId,
}

impl Vault {
    /// Number that changes whenever received objects have been given up: a restart, or a poisoned pack.
    pub(crate) fn incarnation(&self) -> u64 {
        self.incarnation_of(&self.state.lock())
    }

    fn incarnation_of(&self, state: &State) -> u64 {
        u64::from(self.shared.epoch) << 32 | u64::from(state.generation)
    }

    /// Keys of ids and cuts, for the vault's agents.
    pub(crate) const fn id_keys(&self) -> &IdKeys {
        &self.id_keys
    }

    /// Exact byte counts.
    pub(crate) fn ledger(&self) -> Ledger {
        *self.state.lock().ledger
    }

    fn data_key(&self) -> Result<&DataKey, StoreError> {
        self.keys.data.last().ok_or(StoreError::NoSuchVault(self.id))
    }

    pub(crate) fn meta(&self) -> &dyn MetaStore {
        &self.gate
    }

    fn sync(&self, ticket: Ticket) -> Result<(), StoreError> {
        self.meta().sync(ticket)
    }

    /// Rows of many objects; absent ones are `None`.
    fn object_rows(&self, ids: &[ObjectId]) -> Result<Vec<Option<ObjectRow>>, StoreError> {
        let keys: Vec<&[u8]> = ids.iter().map(|id| id.as_bytes().as_slice()).collect();
        let rows = self.meta().multi_get(&self.id, Table::Object, &keys)?;
        rows.into_iter().map(|row| row.map(|bytes| Ok(ObjectRow::decode(&bytes)?)).transpose()).collect()
    }

    fn session_row(&self, session: &UploadSessionId) -> Result<SessionRow, StoreError> {
        match self.meta().get(&self.id, Table::Session, session.as_bytes())? {
            Some(bytes) => Ok(SessionRow::decode(&bytes)?),
            None => Err(StoreError::NoSuchSession(*session)),
        }
    }

    /// All keys of a session's rows, header first.
    fn session_keys(&self, session: &UploadSessionId) -> Result<Vec<Vec<u8>>, StoreError> {
        let mut keys: Vec<Vec<u8>> = Vec::new();
        self.each_row(Table::Session, session.as_bytes(), |key, _| {
            keys.push(key);
            Ok(())
        })?;
        Ok(keys)
    }

    /// Hands every row of a table whose key starts with `prefix` to `each`, in key order, a page at a time.
    pub(crate) fn each_row(
        &self,
        table: Table,
        prefix: &[u8],
        mut each: impl FnMut(Vec<u8>, Vec<u8>) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        let mut from = prefix.to_vec();
        loop {
            let rows = self.meta().scan(&self.id, table, &from, PAGE_ROWS)?;
            let last_page = rows.len() < PAGE_ROWS;
            for (key, value) in rows {
                if !key.starts_with(prefix) {
                    return Ok(());
                }
                from.clone_from(&key);
                each(key, value)?;
            }
            if last_page {
                return Ok(());
            }
            from.push(0);
        }
    }

    /// Gives up a pack after a failed write or sync: its pending objects are forgotten, and sessions learn by the
    /// incarnation that they must send them again.
    fn poison(&self, pack: &PackId) {
        let mut state = self.state.lock();
        self.appender.lock().poison(pack);
        self.compactor.lock().poison(pack);
        let mut given_up = 0;
        state.pending.retain(|_, pending| {
            let stays = pending.row.place.pack != *pack;
            given_up += if stays { 0 } else { u64::from(pending.row.place.frame_len) };
            stays
        });
        self.quota.given_up(given_up);
        state.generation = state.generation.wrapping_add(1);
        state.poisoned += 1;
        tracing::error!(vault = %self.id, %pack, "a write or sync failed; the pack is given up, its unacknowledged objects will be sent again");
    }

    fn check_writable(&self) -> Result<(), StoreError> {
        if self.state.lock().poisoned >= POISONED_MAX {
            return Err(StoreError::Unavailable { vault: self.id, reason: TWO_WRITES_FAILED.into() });
        }
        self.shared.check_space()
    }

    /// Writes trailers and seals what is open, so that nothing has to be adopted at the next start.
    pub(crate) fn close(&self) -> Result<(), StoreError> {
        for writer in [&self.appender, &self.compactor] {
            let finished = writer.lock().finish_all();
            if let Err((pack, error)) = finished {
                if let Some(pack) = pack {
                    self.poison(&pack);
                }
                return Err(error);
            }
        }
        self.settle_copies()?;
        self.make_durable(None).map(|_| ())
    }
}

impl Shared {
    /// The same over another opening of the index.
    pub(crate) fn with_index(&self, meta: Arc<dyn MetaStore>, epoch: u32) -> Self {
        Shared {
            world: self.world.clone(),
            settings: self.settings.clone(),
            meta,
            aead: self.aead,
            epoch,
            stats: self.stats.clone(),
            nodes: self.nodes.clone(),
            index_volume: self.index_volume.clone(),
            guarded_clock: self.guarded_clock.clone(),
            quotas: self.quotas.clone(),
        }
    }

    /// Before something that frees space, or must not fail for want of it.
    pub(crate) fn make_room(&self) {
        self.index_volume.data().make_room(CHANGE_BYTES);
    }

    /// Refuses new data when a volume is down to its reserve.
    pub(crate) fn check_space(&self) -> Result<(), StoreError> {
        self.index_volume.data().check_space()?;
        if self.meta.failure().is_some_and(|failure| failure.kind == IndexFailureKind::Full) {
            return Err(self.index_volume.full());
        }
        self.index_volume.check_space()
    }
}
