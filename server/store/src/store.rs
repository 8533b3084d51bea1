//! `Store`: the thin verbs over vaults that callers use.

mod quota;
mod states;

use crate::cache::NodeCache;
use crate::error::{At, StoreError};
use crate::guarded_clock::GuardedClock;
use crate::journal::{epoch_of_segment, journal_directory};
use crate::keyring_file::KeyringFile;
use crate::meta::rows::{Ledger, SnapshotRow as SnapshotInfo};
use crate::meta::{MetaStore, RocksMeta};
use crate::pack::{pack_of_name, packs_directory};
use crate::recount::Recount;
use crate::settings::StoreSettings;
use crate::stats::{Stats, StatsReading};
use crate::sync::Mutex;
use crate::vault::{CommitInput, Delivered, Durable, IncomingObject, Received, Recovered, Shared, Vault};
use crate::world::World;
use repo_format::crypto::default_aead;
use repo_format::id::{ChunkId, NodeId, ObjectId, SnapshotId, UploadSessionId, VaultId};
use repo_format::keys::IdKeys;
use repo_format::masterkey::MasterKey;
use repo_format::node::NodeSource;
use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, OnceLock};

/// The file that counts starts.
const EPOCH_FILE: &str = "epoch";

/// A vault's slot: opened, with recovery, by the first who needs it.
type Slot = Arc<Mutex<Option<Arc<Vault>>>>;

/// The store of one server.
pub struct Store {
    shared: Arc<Shared>,
    keyring: Mutex<KeyringFile>,
    vaults: Mutex<HashMap<VaultId, Slot>>,
    closed: OnceLock<()>,
}

/// What a rebuild did, by vault.
pub type RebuildReport = Vec<(VaultId, Recovered, Ledger)>;

/// Reads one vault's decoded objects; a [`NodeSource`] for path maps and content lists.
#[derive(Clone)]
pub struct VaultReader(Arc<Vault>);

impl VaultReader {
    /// One chunk's plaintext.
    pub fn chunk(&self, id: &ChunkId) -> Result<Arc<[u8]>, StoreError> {
        self.0.chunk(id)
    }
}

impl NodeSource for VaultReader {
    type Error = StoreError;
    fn node(&self, id: &NodeId) -> Result<Arc<[u8]>, StoreError> {
        NodeSource::node(&*self.0, id)
    }
}

impl Store {
    /// Opens the store, or makes an empty one. Every start has its own epoch, so pack ids never repeat.
    pub fn open(settings: StoreSettings, world: World, master: &MasterKey) -> Result<Self, StoreError> {
        world.vfs.create_dir_all(&settings.directory).at(&settings.directory)?;
        let index = settings.index_directory();
        world.vfs.create_dir_all(&index).at(&index)?;
        let meta = Arc::new(RocksMeta::open(&index, settings.memory_bytes / 2)?);
        Self::open_with(settings, world, master, meta)
    }

    /// As [`Store::open`], with an index of the caller's.
    pub fn open_with(
        settings: StoreSettings,
        world: World,
        master: &MasterKey,
        meta: Arc<dyn MetaStore>,
    ) -> Result<Self, StoreError> {
        world.vfs.create_dir_all(&settings.directory).at(&settings.directory)?;
        let (epoch, first) = next_epoch(&world, &settings.directory)?;
        let keyring = KeyringFile::open(world.clone(), &settings.directory, master, first)?;
        let nodes = NodeCache::new((settings.memory_bytes / 2) as u64);
        let guarded_clock = GuardedClock::open(world.clone(), &settings.directory)?;
        let shared = Shared {
            world,
            settings,
            meta,
            aead: default_aead(),
            epoch,
            stats: Stats::default(),
            nodes,
            guarded_clock,
            quotas: Arc::default(),
        };
        let store = Store {
            shared: Arc::new(shared),
            keyring: Mutex::new(keyring),
            vaults: Mutex::new(HashMap::new()),
            closed: OnceLock::new(),
        };
        store.count_vaults();
        Ok(store)
    }

    /// Empties the index of a stopped server and fills it again from packs and journals.
    pub fn rebuild_index(
        settings: StoreSettings,
        world: World,
        master: &MasterKey,
        mut progress: impl FnMut(&VaultId, &Recovered),
    ) -> Result<RebuildReport, StoreError> {
        let store = Store::open(settings, world, master)?;
        let vaults = store.keyring.lock().vaults();
        let mut report = Vec::new();
        for id in vaults {
            store.shared.meta.drop_vault(&id)?;
            let keys = store.keyring.lock().keys(&id)?;
            let (vault, recovered) = Vault::open(store.shared.clone(), id, keys, true)?;
            progress(&id, &recovered);
            report.push((id, recovered, vault.ledger()));
            vault.close()?;
        }
        Ok(report)
    }

    fn vault(&self, id: &VaultId) -> Result<Arc<Vault>, StoreError> {
        let slot = self.vaults.lock().entry(*id).or_default().clone();
        let mut slot = slot.lock();
        if let Some(vault) = &*slot {
            return Ok(vault.clone());
        }
        if self.closed.get().is_some() {
            return Err(StoreError::Unavailable { vault: *id, reason: "the server is stopping".into() });
        }
        let keys = self.keyring.lock().keys(id)?;
        let (vault, recovered) = Vault::open(self.shared.clone(), *id, keys, false)?;
        if recovered != Recovered::default() {
            tracing::info!(
                vault = %id, packs = recovered.packs, objects = recovered.objects, records = recovered.records,
                "recovered after an unclean stop"
            );
        }
        let vault = Arc::new(vault);
        *slot = Some(vault.clone());
        Ok(vault)
    }

    /// Makes an empty vault with fresh keys.
    pub fn create_vault(&self, id: VaultId) -> Result<(), StoreError> {
        self.keyring.lock().insert_vault(id)?;
        Vault::create(&self.shared, id)
    }

    /// All vaults with keys.
    pub fn vaults(&self) -> Vec<VaultId> {
        self.keyring.lock().vaults()
    }

    /// Wraps the keyring with another master key.
    pub fn rotate_master(&self, master: &MasterKey) -> Result<(), StoreError> {
        self.keyring.lock().rotate_master(master)
    }

    /// Keys of ids and cuts, for the vault's agents.
    pub fn id_keys(&self, vault: &VaultId) -> Result<IdKeys, StoreError> {
        Ok(self.vault(vault)?.id_keys().clone())
    }

    /// Starts an upload session; objects of the base snapshot stay as long as it lives. Answers its incarnation too.
    pub fn begin_upload(
        &self,
        vault: &VaultId,
        computer: &str,
        series: &str,
        base: Option<&SnapshotId>,
    ) -> Result<(UploadSessionId, u64), StoreError> {
        let vault = self.vault(vault)?;
        Ok((vault.begin_upload(computer, series, base)?, vault.incarnation()))
    }

    /// Whether an upload session lives; answers the incarnation.
    pub fn upload_session(&self, vault: &VaultId, session: &UploadSessionId) -> Result<u64, StoreError> {
        let vault = self.vault(vault)?;
        vault.upload_session(session)?;
        Ok(vault.incarnation())
    }

    /// Ends an upload session without a snapshot.
    pub fn abort_upload(&self, vault: &VaultId, session: &UploadSessionId) -> Result<(), StoreError> {
        self.vault(vault)?.abort_upload(session)
    }

    /// Upload sessions of a vault that have not ended.
    pub fn live_sessions(&self, vault: &VaultId) -> Result<u64, StoreError> {
        self.vault(vault)?.live_sessions()
    }

    /// Which objects the vault has, by id, and the incarnation that is true for.
    pub fn have(
        &self,
        vault: &VaultId,
        session: &UploadSessionId,
        ids: &[ObjectId],
    ) -> Result<(Vec<bool>, u64), StoreError> {
        self.vault(vault)?.have(session, ids)
    }

    /// Verifies and appends chunks: received, not durable.
    pub fn put_chunks(
        &self,
        vault: &VaultId,
        session: &UploadSessionId,
        objects: &[IncomingObject],
    ) -> Result<Received, StoreError> {
        self.vault(vault)?.put_chunks(session, objects, None)
    }

    /// Stores nodes, children first, with everything received before: durable.
    pub fn put_nodes(
        &self,
        vault: &VaultId,
        session: &UploadSessionId,
        objects: &[IncomingObject],
    ) -> Result<Durable, StoreError> {
        self.vault(vault)?.put_nodes(session, objects)
    }

    /// Makes everything received under `incarnation` durable.
    pub fn flush(&self, vault: &VaultId, session: &UploadSessionId, incarnation: u64) -> Result<Durable, StoreError> {
        self.vault(vault)?.flush(session, incarnation)
    }

    /// Commits a root as a snapshot; idempotent by session.
    pub fn commit(
        &self,
        vault: &VaultId,
        session: &UploadSessionId,
        input: &CommitInput,
    ) -> Result<SnapshotInfo, StoreError> {
        self.vault(vault)?.commit(session, input)
    }

    /// All snapshots with their states, softly deleted ones included, oldest first.
    pub fn snapshots(&self, vault: &VaultId) -> Result<Vec<SnapshotInfo>, StoreError> {
        self.vault(vault)?.snapshots()
    }

    /// One snapshot with its state, also a softly deleted one.
    pub fn snapshot(&self, vault: &VaultId, snapshot: &SnapshotId) -> Result<SnapshotInfo, StoreError> {
        self.vault(vault)?.snapshot_row(snapshot)
    }

    /// A snapshot to be read from; refuses a softly deleted one with [`StoreError::SnapshotDeleted`].
    pub fn readable_snapshot(&self, vault: &VaultId, snapshot: &SnapshotId) -> Result<SnapshotInfo, StoreError> {
        self.vault(vault)?.readable_snapshot(snapshot)
    }

    /// Reads objects in the cheapest order, each distinct id once.
    pub fn read_objects(
        &self,
        vault: &VaultId,
        ids: &[ObjectId],
        each: impl FnMut(Delivered) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        self.vault(vault)?.read_objects(ids, each)
    }

    /// A reader of decoded objects, through the shared cache.
    pub fn reader(&self, vault: &VaultId) -> Result<VaultReader, StoreError> {
        Ok(VaultReader(self.vault(vault)?))
    }

    /// A vault's exact byte counts.
    pub fn usage(&self, vault: &VaultId) -> Result<Ledger, StoreError> {
        Ok(self.vault(vault)?.ledger())
    }

    /// Counts a vault again from snapshots and nodes, and compares.
    pub fn recount(&self, vault: &VaultId) -> Result<Recount, StoreError> {
        self.vault(vault)?.recount()
    }

    /// Refuses when the volume is down to its reserve: asked before a body is read.
    pub fn check_space(&self) -> Result<(), StoreError> {
        self.shared.check_space()
    }

    /// Counters since start.
    pub fn stats(&self) -> StatsReading {
        self.shared.stats.read_all()
    }

    /// Index syncs since start.
    pub fn index_syncs(&self) -> u64 {
        self.shared.meta.syncs()
    }

    /// Number of this start.
    pub fn epoch(&self) -> u32 {
        self.shared.epoch
    }

    /// Seals what is open. New calls are refused; those under way finish first.
    pub fn close(&self) -> Result<(), StoreError> {
        let _ = self.closed.set(());
        let slots: Vec<Slot> = self.vaults.lock().values().cloned().collect();
        for slot in slots {
            if let Some(vault) = slot.lock().take() {
                vault.close()?;
            }
        }
        Ok(())
    }
}

/// Raises the start counter durably before anything is written; `true` on the very first start. A lost counter goes on
/// behind the highest number that packs and journals carry, so that no id is ever used twice.
fn next_epoch(world: &World, directory: &Path) -> Result<(u32, bool), StoreError> {
    let path = directory.join(EPOCH_FILE);
    let (last, first) = match world.vfs.read(&path, 64) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let last = highest_epoch_used(world, directory)?;
            (last, last == 0)
        }
        bytes => {
            let text = String::from_utf8(bytes.at(&path)?).ok();
            let number = text.and_then(|text| text.trim().parse::<u32>().ok());
            let broken = repo_format::FormatError::invalid("epoch file", "not a number; remove it and start again");
            (number.ok_or(broken).at(&path)?, false)
        }
    };
    let spent = repo_format::FormatError::invalid("epoch file", "no numbers are left");
    let next = last.checked_add(1).ok_or(spent).at(&path)?;
    world.vfs.replace(&path, format!("{next}\n").as_bytes()).at(&path)?;
    Ok((next, first))
}

fn highest_epoch_used(world: &World, directory: &Path) -> Result<u32, StoreError> {
    let vaults = directory.join("vaults");
    let mut highest = 0;
    for vault in world.vfs.list(&vaults).at(&vaults)? {
        let vault = vaults.join(vault);
        for (folder, epoch_of) in [
            (packs_directory(&vault), (|name| pack_of_name(name).map(|pack| pack.epoch)) as fn(&str) -> Option<u32>),
            (journal_directory(&vault), epoch_of_segment),
        ] {
            let names = world.vfs.list(&folder).at(&folder)?;
            highest = names.iter().filter_map(|name| epoch_of(name)).fold(highest, u32::max);
        }
    }
    Ok(highest)
}
