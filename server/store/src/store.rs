//! `Store`: the thin verbs over vaults that callers use.

mod care;
mod quota;
mod states;

use crate::cache::NodeCache;
use crate::error::{At, StoreError};
use crate::guarded_clock::GuardedClock;
use crate::index_volume::IndexVolume;
use crate::journal::{epoch_of_segment, journal_directory};
use crate::keyring_file::KeyringFile;
use crate::meta::rows::{Ledger, SnapshotRow as SnapshotInfo};
use crate::meta::{IndexFailureKind, MetaStore, RocksMeta};
use crate::pack::{pack_of_name, packs_directory};
use crate::recount::Recount;
use crate::settings::StoreSettings;
use crate::stats::StatsReading;
use crate::sync::Mutex;
use crate::vault::fence::Fence;
use crate::vault::{CommitInput, Delivered, Durable, IncomingObject, Received, Recovered, Shared, Vault};
use crate::vault_deletion::Deletions;
use crate::vault_state::without_key;
use crate::world::World;
use parking_lot::RwLock;
use repo_format::crypto::default_aead;
use repo_format::id::{ChunkId, NodeId, ObjectId, RestoreId, SnapshotId, UploadSessionId, VaultId};
use repo_format::keys::IdKeys;
use repo_format::masterkey::MasterKey;
use repo_format::node::NodeSource;
use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

/// The file that counts starts.
const EPOCH_FILE: &str = "epoch";

/// A vault's slot: opened, with recovery, by the first who needs it.
pub(crate) type Slot = Arc<Mutex<Option<Arc<Vault>>>>;

/// Vaults rebuilt at the same time, at most.
const REBUILDS_MAX: usize = 4;

/// What a rebuild did, by vault.
#[derive(Debug, Default)]
pub struct RebuildReport {
    /// Vaults whose index is complete again, with what was read for it and what they hold.
    pub rebuilt: Vec<(VaultId, Recovered, Ledger)>,
    /// Vaults that stay unavailable, and why.
    pub failed: Vec<(VaultId, StoreError)>,
}

/// Opens the index, at start and again after it failed.
pub type OpenIndex = Box<dyn Fn() -> Result<Arc<dyn MetaStore>, StoreError> + Send + Sync>;

/// The store of one server.
pub struct Store {
    /// Exchanged as a whole when the index is opened again.
    pub(crate) shared: RwLock<Arc<Shared>>,
    open_index: OpenIndex,
    /// How often the index was opened again; whoever does it holds the lock.
    reopened: Mutex<u64>,
    /// Why the index is lost to this process.
    lost: OnceLock<String>,
    pub(crate) keyring: Mutex<KeyringFile>,
    vaults: Mutex<HashMap<VaultId, Slot>>,
    /// Vaults that could not be opened, and why.
    pub(crate) troubles: Mutex<BTreeMap<VaultId, String>>,
    /// Vaults that are being deleted; kept after the end, so that late callers hear what happened.
    pub(crate) deletions: Deletions,
    /// When vaults that have not been opened have something to do, nanoseconds since 1970; `None`: never by themselves.
    pub(crate) unopened: Mutex<HashMap<VaultId, Option<i64>>>,
    closed: OnceLock<()>,
}

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
        let volume = Arc::new(IndexVolume::open(world.clone(), settings.clone())?);
        let (directory, memory_bytes) = (volume.directory(), settings.memory_bytes / 2);
        world.vfs.create_dir_all(&directory).at(&directory)?;
        let open = move || Ok(Arc::new(RocksMeta::open(&directory, memory_bytes)?) as Arc<dyn MetaStore>);
        Self::assemble(settings, world, master, volume, Box::new(open))
    }

    /// As [`Store::open`], with an index of the caller's, which cannot be opened again.
    pub fn open_with(
        settings: StoreSettings,
        world: World,
        master: &MasterKey,
        meta: Arc<dyn MetaStore>,
    ) -> Result<Self, StoreError> {
        let once = Mutex::new(Some(meta));
        let gone = || StoreError::Index("this index cannot be opened again".into());
        Self::open_with_index(settings, world, master, Box::new(move || once.lock().take().ok_or_else(gone)))
    }

    /// As [`Store::open`], with an index that the caller opens.
    pub fn open_with_index(
        settings: StoreSettings,
        world: World,
        master: &MasterKey,
        open_index: OpenIndex,
    ) -> Result<Self, StoreError> {
        let volume = Arc::new(IndexVolume::open(world.clone(), settings.clone())?);
        Self::assemble(settings, world, master, volume, open_index)
    }

    fn assemble(
        settings: StoreSettings,
        world: World,
        master: &MasterKey,
        index_volume: Arc<IndexVolume>,
        open_index: OpenIndex,
    ) -> Result<Self, StoreError> {
        let meta = open_index()?;
        let (epoch, first) = next_epoch(&world, &settings.directory)?;
        // Without a vault's folder there is nothing a new keyring could lock out: a first start may have been cut short.
        let folders = settings.directory.join("vaults");
        let empty = first || world.vfs.list(&folders).at(&folders)?.is_empty();
        let keyring = KeyringFile::open(world.clone(), &settings.directory, master, empty)?;
        let deletions = Deletions::open(&world, &settings.directory)?;
        let nodes = Arc::new(NodeCache::new((settings.memory_bytes / 2) as u64));
        let stats = Arc::default();
        let guarded_clock = Arc::new(GuardedClock::open(world.clone(), &settings.directory)?);
        let shared = Shared {
            world,
            settings,
            meta,
            aead: default_aead(),
            epoch,
            stats,
            nodes,
            index_volume,
            guarded_clock,
            quotas: Arc::default(),
        };
        let store = Store {
            shared: RwLock::new(Arc::new(shared)),
            open_index,
            reopened: Mutex::new(0),
            lost: OnceLock::new(),
            keyring: Mutex::new(keyring),
            vaults: Mutex::new(HashMap::new()),
            troubles: Mutex::default(),
            deletions,
            unopened: Mutex::default(),
            closed: OnceLock::new(),
        };
        store.report_folders_without_keys()?;
        store.count_vaults();
        Ok(store)
    }

    /// Fills an empty index beside the present one from packs and journals, then puts it in its place: whatever state
    /// the present one is in, and whenever this is interrupted, nothing is lost. For a stopped server.
    pub fn rebuild_index(
        settings: StoreSettings,
        world: World,
        master: &MasterKey,
        progress: impl FnMut(&VaultId, &Recovered),
    ) -> Result<RebuildReport, StoreError> {
        let memory_bytes = settings.memory_bytes / 2;
        let open =
            move |directory: &Path| Ok(Arc::new(RocksMeta::open(directory, memory_bytes)?) as Arc<dyn MetaStore>);
        Self::rebuild_index_with(settings, world, master, open, progress)
    }

    /// As [`Store::rebuild_index`], with an index that the caller opens in the folder it is handed.
    pub fn rebuild_index_with(
        settings: StoreSettings,
        world: World,
        master: &MasterKey,
        open: impl Fn(&Path) -> Result<Arc<dyn MetaStore>, StoreError> + Send + Sync + 'static,
        progress: impl FnMut(&VaultId, &Recovered),
    ) -> Result<RebuildReport, StoreError> {
        let volume = Arc::new(IndexVolume::open(world.clone(), settings.clone())?);
        let directory = volume.next_directory()?;
        let store = Self::assemble(settings, world, master, volume.clone(), Box::new(move || open(&directory)))?;
        let report = store.rebuild_all(progress)?;
        // All rows are on disk, and the files closed, before the folder counts.
        let shared = store.shared();
        shared.meta.sync(shared.meta.written())?;
        shared.meta.close();
        volume.exchange()?;
        Ok(report)
    }

    /// Every vault with keys, some at a time. A vault that cannot be rebuilt leaves no rows and does not stop others.
    fn rebuild_all(&self, mut progress: impl FnMut(&VaultId, &Recovered)) -> Result<RebuildReport, StoreError> {
        let vaults = self.vaults();
        let next = AtomicUsize::new(0);
        let threads = std::thread::available_parallelism().map_or(1, usize::from).clamp(1, REBUILDS_MAX);
        let (sender, receiver) = std::sync::mpsc::channel();
        let mut report = RebuildReport::default();
        std::thread::scope(|scope| {
            for _ in 0..threads {
                let (sender, next, vaults) = (sender.clone(), &next, &vaults);
                scope.spawn(move || {
                    while let Some(vault) = vaults.get(next.fetch_add(1, Ordering::Relaxed)) {
                        if sender.send((*vault, self.rebuild(vault))).is_err() {
                            return;
                        }
                    }
                });
            }
            drop(sender);
            for (vault, rebuilt) in receiver {
                match rebuilt {
                    Ok((recovered, ledger)) => {
                        progress(&vault, &recovered);
                        report.rebuilt.push((vault, recovered, ledger));
                    }
                    Err(error) => {
                        tracing::error!(%vault, %error, "the vault cannot be rebuilt; the others can be used");
                        report.failed.push((vault, error));
                    }
                }
            }
        });
        for (vault, _) in &report.failed {
            self.shared().meta.drop_vault(vault)?;
        }
        report.rebuilt.sort_unstable_by_key(|(vault, ..)| *vault);
        report.failed.sort_unstable_by_key(|(vault, _)| *vault);
        Ok(report)
    }

    fn rebuild(&self, id: &VaultId) -> Result<(Recovered, Ledger), StoreError> {
        let keys = self.keyring.lock().keys(id)?;
        let (vault, recovered) = Vault::open(self.shared(), *id, keys, true)?;
        let ledger = vault.ledger();
        vault.close()?;
        Ok((recovered, ledger))
    }

    /// What all vaults share now.
    pub(crate) fn shared(&self) -> Arc<Shared> {
        self.shared.read().clone()
    }

    /// As [`Store::shared`], with an index that has failed opened again first.
    pub(crate) fn working(&self) -> Result<Arc<Shared>, StoreError> {
        let shared = self.shared();
        match shared.meta.failure() {
            None => Ok(shared),
            // Reads go on beside a full volume; what writes is refused until there is space.
            Some(failure) if failure.kind == IndexFailureKind::Full && !shared.index_volume.has_space_to_reopen() => {
                Ok(shared)
            }
            Some(_) => self.reopen_failed(),
        }
    }

    /// Closes the index and opens it again, in this process. Every vault starts again as after a crash; calls under way
    /// hear [`StoreError::IndexFailed`] and ask again.
    pub fn reopen_index(&self) -> Result<(), StoreError> {
        let mut reopened = self.reopened.lock();
        self.reopen(&mut reopened).map(|_| ())
    }

    fn reopen_failed(&self) -> Result<Arc<Shared>, StoreError> {
        let mut reopened = self.reopened.lock();
        let shared = self.shared();
        let Some(failure) = shared.meta.failure() else { return Ok(shared) };
        if let Some(reason) = self.lost.get() {
            return Err(StoreError::IndexFailed(reason.clone()));
        }
        let is_full = failure.kind == IndexFailureKind::Full;
        // Want of space comes and goes; any other failure after the first is not going to pass by itself.
        if !is_full && *reopened > 0 {
            return Err(self.lose(failure.text));
        }
        match self.reopen(&mut reopened) {
            Err(_) if is_full => Err(shared.index_volume.full()),
            Err(error) => Err(self.lose(error.to_string())),
            opened => opened,
        }
    }

    fn lose(&self, reason: String) -> StoreError {
        let reason = self.lost.get_or_init(|| {
            tracing::error!(%reason, "the index failed again: the server must be started again");
            reason
        });
        StoreError::IndexFailed(reason.clone())
    }

    fn reopen(&self, reopened: &mut u64) -> Result<Arc<Shared>, StoreError> {
        let old = self.shared();
        old.meta.close();
        // Behind this nothing of the old vaults reaches rows or files, so what is opened now has them to itself.
        let slots: Vec<Slot> = self.vaults.lock().values().cloned().collect();
        for slot in slots {
            if let Some(vault) = slot.lock().take() {
                vault.fence(Fence::Reopened);
            }
        }
        let meta = (self.open_index)()?;
        let (epoch, _) = next_epoch(&old.world, &old.settings.directory)?;
        let shared = Arc::new(old.with_index(meta, epoch));
        *self.shared.write() = shared.clone();
        *reopened += 1;
        tracing::warn!(epoch, "the index was opened again; every vault starts as after a crash");
        Ok(shared)
    }

    /// Why the index cannot be used any more by this process, which should end and be started again; `None` while it
    /// can.
    pub fn index_lost(&self) -> Option<String> {
        self.lost.get().cloned()
    }

    /// How often the index was opened again since the start.
    pub fn index_reopened(&self) -> u64 {
        *self.reopened.lock()
    }

    pub(crate) fn slot(&self, id: &VaultId) -> Slot {
        self.vaults.lock().entry(*id).or_default().clone()
    }

    /// The vault, if it is open over the present index.
    pub(crate) fn opened(&self, id: &VaultId) -> Option<Arc<Vault>> {
        let slot = self.vaults.lock().get(id)?.clone();
        // A slot that is locked is being opened: not yet there.
        let vault = slot.try_lock()?.clone()?;
        vault.is_of(&self.shared()).then_some(vault)
    }

    pub(crate) fn vault(&self, id: &VaultId) -> Result<Arc<Vault>, StoreError> {
        let shared = self.working()?;
        let slot = self.slot(id);
        let mut slot = slot.lock();
        // Asked inside: whoever deletes the vault empties its slot behind entering it here.
        self.deletions.check(id)?;
        match slot.take() {
            Some(vault) if vault.is_of(&shared) => {
                *slot = Some(vault.clone());
                return Ok(vault);
            }
            Some(older) => older.fence(Fence::Reopened),
            None => {}
        }
        if self.closed.get().is_some() {
            return Err(StoreError::Unavailable { vault: *id, reason: "the server is stopping".into() });
        }
        let keys = self.keyring.lock().keys(id);
        let keys = keys.map_err(|error| self.explain_missing_keys(&shared, id, error))?;
        let opened = Vault::open(shared.clone(), *id, keys, false);
        if matches!(opened, Err(StoreError::VaultDeleted(_))) {
            self.adopt_deletion(&shared, id)?;
        }
        let (vault, recovered) = self.note_trouble(id, opened)?;
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

    /// Makes an empty vault with fresh keys. Asked again, it finishes what a crash interrupted.
    pub fn create_vault(&self, id: VaultId) -> Result<(), StoreError> {
        let shared = self.working()?;
        self.deletions.check(&id)?;
        // Files without keys belong to a keyring that is missing here: they stay as they are.
        let directory = shared.settings.vault_directory(&id);
        let mut keyring = self.keyring.lock();
        if !keyring.has(&id) {
            if !shared.world.vfs.list(&directory).at(&directory)?.is_empty() {
                return Err(without_key(id));
            }
            keyring.insert_vault(id)?;
        }
        Vault::create(&shared, id)
    }

    /// All vaults with keys, but for those whose deletion is decided.
    pub fn vaults(&self) -> Vec<VaultId> {
        let mut vaults = self.keyring.lock().vaults();
        vaults.retain(|vault| !self.deletions.has(vault));
        vaults
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
        Ok(self.vault(vault)?.live_sessions())
    }

    /// Begins a restore: everything the snapshot reaches stays until [`Store::end_restore`], or until no
    /// [`Store::touch_restore`] has come for a day, whatever becomes of the snapshot.
    pub fn begin_restore(&self, vault: &VaultId, snapshot: &SnapshotId) -> Result<RestoreId, StoreError> {
        self.vault(vault)?.begin_restore(snapshot)
    }

    /// The restore goes on. [`StoreError::NoSuchRestore`] when it has ended.
    pub fn touch_restore(&self, vault: &VaultId, restore: &RestoreId) -> Result<(), StoreError> {
        self.vault(vault)?.touch_restore(restore)
    }

    /// Ends a restore; one that has ended already is no error.
    pub fn end_restore(&self, vault: &VaultId, restore: &RestoreId) -> Result<(), StoreError> {
        self.vault(vault)?.end_restore(restore)
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
        self.past_recovery(vault, |vault| vault.put_chunks(session, objects, None))
    }

    /// Stores nodes, children first, with everything received before: durable.
    pub fn put_nodes(
        &self,
        vault: &VaultId,
        session: &UploadSessionId,
        objects: &[IncomingObject],
    ) -> Result<Durable, StoreError> {
        self.past_recovery(vault, |vault| vault.put_nodes(session, objects))
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
        self.shared().check_space()
    }

    /// Counters since start.
    pub fn stats(&self) -> StatsReading {
        self.shared().stats.read_all()
    }

    /// Index syncs since start.
    pub fn index_syncs(&self) -> u64 {
        self.shared().meta.syncs()
    }

    /// Number of this start.
    pub fn epoch(&self) -> u32 {
        self.shared().epoch
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
        self.shared().guarded_clock.stop();
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
