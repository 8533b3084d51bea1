//! Opening a vault: packs found open are adopted and sealed, the journal's tail is replayed. With an empty index the
//! same steps over all packs and the whole journal are the rebuild, so there is one way back to a consistent index.

use super::apply::{BATCH_ROWS_ENOUGH, NOBODY, Work};
use super::claims::Sessions;
use super::damage::{DamageMemory, MARKS_PER_BATCH};
use super::fence::Gate;
use super::maintain::{Drops, Upkeep};
use super::quota::BookedLedger;
use super::replay::Replay;
use super::upload::unpack;
use super::{Shared, State, Vault};
use crate::error::{At, StoreError};
use crate::journal::{Journal, Opened, Sealing, journal_directory};
use crate::meta::rows::{LEDGER_KEY, Ledger, ObjectRow, PackRow, PackState, Place, pack_of_key};
use crate::meta::{Batch, Table};
use crate::pack::{
    Appender, FoundFrame, PackFiles, PackNumbers, Sealable, TrailerTrust, begin_again, pack_of_name, pack_path,
    packs_directory, read_frame, scan_pack, seal_adopted,
};
use crate::sync::Mutex;
use repo_format::id::{ObjectId, ObjectKind, PackId, VaultId};
use repo_format::keyring::VaultKeys;
use repo_format::keys::IdKeys;
use repo_format::node::NodeView;
use repo_format::pack::PACK_HEADER_BYTES;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

/// In a vault's folder while its rows are being rebuilt: a start that finds it does so again.
const REBUILDING_FILE: &str = "rebuilding";

/// What a recovery or rebuild did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recovered {
    /// Packs read because the index did not know them as sealed.
    pub packs: u64,
    /// Object rows added.
    pub objects: u64,
    /// Nodes left out because a child is nowhere.
    pub orphans: u64,
    /// Journal records applied.
    pub records: u64,
    /// What of the journal is damaged or missing, by file, for people.
    pub journal_damage: Vec<String>,
}

/// A frame of a node pack that is waiting for its children.
pub(super) struct WaitingNode {
    pub(super) pack: PackId,
    pub(super) frame: FoundFrame,
}

/// What became of a node that was tried.
enum Adopted {
    Added,
    /// Another frame of it has the row.
    Known,
    /// A child has no row yet.
    NotYet,
    Unreadable,
}

impl Vault {
    /// Makes the folders and the first row of a new vault. Its keys are in the keyring already.
    pub(crate) fn create(shared: &Shared, id: VaultId) -> Result<(), StoreError> {
        let directory = shared.settings.vault_directory(&id);
        let (packs, journal) = (packs_directory(&directory), journal_directory(&directory));
        // Each by itself: an attempt that ended before may have left its name unsynced.
        for folder in [&shared.settings.vaults_directory(), &directory, &packs, &journal] {
            shared.world.vfs.create_dir_all(folder).at(folder)?;
        }
        // Rows that are missing beside packs or a journal are lost ones: an empty vault must not take their place.
        let used = [packs, journal].into_iter().map(|folder| {
            let names = shared.world.vfs.list(&folder).at(&folder)?;
            Ok::<_, StoreError>(!names.is_empty())
        });
        if shared.meta.get(&id, Table::Ledger, LEDGER_KEY)?.is_none()
            && !used.collect::<Result<Vec<_>, _>>()?.contains(&true)
        {
            let mut batch = Batch::default();
            batch.put(Table::Ledger, LEDGER_KEY, Ledger::default().encode());
            shared.meta.write(&id, batch)?;
        }
        shared.meta.sync(shared.meta.written())
    }

    /// Opens the vault and brings its index up to what packs and journal say. With `rebuild` an empty index is filled;
    /// without it, an index without rows for the vault is an error.
    ///
    /// An index older than the disk, which points into packs that the journal says were dropped, is emptied and filled
    /// anew.
    pub(crate) fn open(
        shared: Arc<Shared>,
        id: VaultId,
        keys: VaultKeys,
        rebuild: bool,
    ) -> Result<(Self, Recovered), StoreError> {
        let directory = shared.settings.vault_directory(&id);
        let marker = directory.join(REBUILDING_FILE);
        let vfs = shared.world.vfs.clone();
        let interrupted = match vfs.open(&marker) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => false,
            found => found.map(|_| true).at(&marker)?,
        };
        if !interrupted && let Some(opened) = Self::open_as_is(shared.clone(), id, keys.clone(), rebuild)? {
            return Ok(opened);
        }
        tracing::warn!(vault = %id, "the index is older than the packs; it is rebuilt from packs and journal");
        // Without rows and without this file nobody would know that the rows are only on their way.
        vfs.replace(&marker, &[]).at(&marker)?;
        shared.meta.drop_vault(&id)?;
        let outdated = StoreError::Unavailable { vault: id, reason: "its rebuilt index is outdated again".into() };
        let opened = Self::open_as_is(shared, id, keys, true)?.ok_or(outdated)?;
        // An index beside the present one does not count yet: with it, the file stays until the vault is opened there.
        if !rebuild {
            vfs.remove_file(&marker).at(&marker)?;
            vfs.sync_dir(&directory).at(&directory)?;
        }
        Ok(opened)
    }

    /// `None`: the index points into packs that were dropped.
    fn open_as_is(
        shared: Arc<Shared>,
        id: VaultId,
        keys: VaultKeys,
        rebuild: bool,
    ) -> Result<Option<(Self, Recovered)>, StoreError> {
        let directory = shared.settings.vault_directory(&id);
        let ledger = match shared.meta.get(&id, Table::Ledger, LEDGER_KEY)? {
            Some(bytes) => Ledger::decode(&bytes)?,
            None if rebuild => Ledger::default(),
            None => {
                return Err(StoreError::Unavailable {
                    vault: id,
                    reason: "the index has no rows for it; stop the server and run `holdfastd rebuild-index`".into(),
                });
            }
        };
        let sealing = Sealing { aead: shared.aead, keys: &keys };
        let covered = ledger.journal_sequence;
        let opened = Journal::open(shared.world.clone(), id, &directory, shared.epoch, sealing, covered, rebuild)?;
        let Opened { journal, records, drops, damage } = opened;
        let drops = Drops::of(&drops)?;
        let quota = shared.quotas.account(id);
        let numbers = PackNumbers::default();
        let appender = || {
            let (world, numbers) = (shared.world.clone(), numbers.clone());
            Appender::new(world, id, &directory, shared.epoch, numbers, shared.settings.pack_bytes_target)
        };
        let vault = Vault {
            id,
            id_keys: IdKeys::derive(&keys.root),
            files: PackFiles::new(shared.world.vfs.clone(), &directory),
            appender: Mutex::new(appender()),
            compactor: Mutex::new(appender()),
            maintenance: Mutex::default(),
            upkeep: Upkeep::default(),
            drops: Mutex::new(drops),
            journal: Mutex::new(journal),
            state: Mutex::new(State {
                pending: HashMap::new(),
                ledger: BookedLedger::new(ledger, quota.clone()),
                sessions: Sessions::default(),
                emptied: BTreeSet::new(),
                sealed_bytes: 0,
                generation: 0,
                poisoned: 0,
            }),
            quota,
            directory,
            gate: Gate::new(id, shared.meta.clone(), shared.index_volume.clone()),
            shared,
            keys,
            damage_memory: DamageMemory::default(),
            scrub: Mutex::default(),
            auditing: parking_lot::Mutex::new(()),
        };
        let (whole, sequence) = {
            let journal = vault.journal.lock();
            (covered.saturating_add(1) < journal.generation_start(), journal.sequence())
        };
        let replay = vault.fold(&records, whole)?;
        let rows = vault.pack_rows()?;
        let Some(on_disk) = vault.packs_for(&rows)? else { return Ok(None) };
        let mut recovered = vault.adopt_packs(&rows, &on_disk, &replay)?;
        recovered.records = vault.replay(replay, sequence)?;
        if rebuild || recovered != Recovered::default() {
            let mut batch = Batch::default();
            batch.put(Table::Ledger, LEDGER_KEY, vault.ledger().encode());
            vault.meta().write(&id, batch)?;
        }
        vault.load_upkeep()?;
        vault.sync(vault.meta().written())?;
        recovered.journal_damage = damage;
        vault.heal_journal();
        let sessions = vault.reserved_by_sessions()?;
        vault.state.lock().ledger.open(sessions);
        Ok(Some((vault, recovered)))
    }

    /// Replaces a damaged journal by a new generation, written from rows that are up to date now.
    fn heal_journal(&self) {
        let mut journal = self.journal.lock();
        if journal.wants_healing()
            && let Err(error) = self.begin_generation(&mut journal)
        {
            // The next change tries again.
            tracing::error!(vault = %self.id, %error, "a new generation of the damaged journal could not be written");
        }
    }

    pub(super) fn pack_rows(&self) -> Result<BTreeMap<PackId, PackRow>, StoreError> {
        let mut packs = BTreeMap::new();
        self.each_row(Table::Pack, &[], |key, value| {
            packs.insert(pack_of_key(&key)?, PackRow::decode(&value)?);
            Ok(())
        })?;
        Ok(packs)
    }

    /// The packs on disk, which must be all that rows point into: asked before anything is removed, copied or written.
    /// `None`: one is missing that was dropped later than the index knows.
    fn packs_for(&self, rows: &BTreeMap<PackId, PackRow>) -> Result<Option<BTreeSet<PackId>>, StoreError> {
        let directory = packs_directory(&self.directory);
        let names = self.shared.world.vfs.list(&directory).at(&directory)?;
        let mut on_disk: BTreeSet<PackId> = names.iter().filter_map(|name| pack_of_name(name)).collect();
        let drops = self.drops.lock();
        // A drop that was journalled but not finished, and that no row goes on with: nothing in these packs is needed. A
        // name that comes back after a loss of power is removed again.
        for pack in &drops.unfinished(&on_disk, rows) {
            let path = pack_path(&directory, pack);
            self.shared.world.vfs.remove_file(&path).at(&path)?;
            on_disk.remove(pack);
        }
        let mut outdated = false;
        for (pack, row) in rows {
            let needed = row.state != PackState::Dropped && row.live_frames > 0;
            if needed && drops.contains(pack) {
                outdated = true;
            } else if needed && !on_disk.contains(pack) {
                return Err(StoreError::Unavailable {
                    vault: self.id,
                    reason: format!(
                        "pack {pack} is missing from {}; put it back, or run `holdfastd rebuild-index` to go on without what it held",
                        directory.display()
                    ),
                });
            }
        }
        Ok(if outdated { None } else { Some(on_disk) })
    }

    fn adopt_packs(
        &self,
        rows: &BTreeMap<PackId, PackRow>,
        on_disk: &BTreeSet<PackId>,
        replay: &Replay,
    ) -> Result<Recovered, StoreError> {
        let directory = packs_directory(&self.directory);
        let settled = |pack: &PackId| rows.get(pack).is_some_and(|row| row.state != PackState::Open);
        let mut recovered = Recovered::default();
        let mut waiting: Vec<WaitingNode> = Vec::new();
        let mut adopted: Vec<Sealable> = Vec::new();
        // Whoever opened the vault under a later number looked at all packs of earlier ones before making any.
        let newest = on_disk.last().map_or(0, |pack| pack.epoch);
        for pack in on_disk.iter().filter(|pack| !settled(pack)) {
            let trust = if pack.epoch < newest { TrailerTrust::Trusted } else { TrailerTrust::Checked };
            recovered.packs += 1;
            recovered.objects +=
                self.adopt_pack(&directory, pack, rows.get(pack), &mut waiting, &mut adopted, trust)?;
        }
        // Children were stored before their parents, so pack order nearly always settles all nodes in one pass.
        loop {
            let before = waiting.len();
            let mut still = Vec::new();
            for node in waiting {
                match self.adopt_node(&node)? {
                    Adopted::Added => recovered.objects += 1,
                    Adopted::NotYet => still.push(node),
                    Adopted::Known | Adopted::Unreadable => {}
                }
            }
            waiting = still;
            if waiting.is_empty() || waiting.len() == before {
                break;
            }
        }
        let (salvaged, orphans) = self.salvage(&replay.roots(), waiting)?;
        recovered.objects += salvaged;
        recovered.orphans = orphans;
        // Sealed only now that every frame that can have a row has one: a stop before this adopts them again.
        let mut state = self.state.lock();
        let mut work = Work::new(self, *state.ledger, NOBODY);
        for pack in &adopted {
            work.seal_pack(pack)?;
            work.write_packs_if_above(BATCH_ROWS_ENOUGH)?;
        }
        if !adopted.is_empty() {
            work.finish(&HashMap::new())?;
            state.settle(&mut work, 0);
        }
        drop(state);
        Ok(recovered)
    }

    /// Gives a pack its trailer if it has none, and its frames rows where they have none yet. Nodes wait for their
    /// children.
    fn adopt_pack(
        &self,
        directory: &std::path::Path,
        pack: &PackId,
        known: Option<&PackRow>,
        waiting: &mut Vec<WaitingNode>,
        adopted: &mut Vec<Sealable>,
        trust: TrailerTrust,
    ) -> Result<u64, StoreError> {
        let vfs = &*self.shared.world.vfs;
        let path = pack_path(directory, pack);
        // Rows may only follow what is on the disk.
        vfs.read_from_disk(&path).at(&path)?;
        let live = known.filter(|row| row.live_frames > 0);
        let scan = match (scan_pack(vfs, directory, &self.id, pack, trust)?, live) {
            (Some(scan), _) => Some(scan),
            (None, Some(row)) => Some(begin_again(vfs, directory, &self.id, pack, row.kind)?),
            (None, None) => None,
        };
        let Some(scan) = scan else {
            // Created, but not even its header reached the disk: nothing in it was ever acknowledged.
            tracing::info!(vault = %self.id, %pack, "removing a pack without a header");
            vfs.remove_file(&path).at(&path)?;
            return Ok(0);
        };
        // Synced also when the trailer is there already: a killed process leaves it, and the name, in memory alone.
        let (file, len) = if scan.sealed {
            (vfs.open_write(&path).at(&path)?, scan.file_len)
        } else {
            seal_adopted(vfs, directory, pack, &scan)?
        };
        file.sync_data().at(&path)?;
        vfs.sync_dir(directory).at(directory)?;
        let mut added = 0;
        let mut state = self.state.lock();
        let mut work = Work::new(self, *state.ledger, NOBODY);
        let ids: Vec<ObjectId> = scan.frames.iter().map(|frame| frame.id).collect();
        work.load(&ids)?;
        if let Some(row) = live {
            let place = |frame: &FoundFrame| Place { pack: *pack, offset: frame.offset, frame_len: frame.frame_len };
            let found: HashSet<(ObjectId, Place)> = scan.frames.iter().map(|frame| (frame.id, place(frame))).collect();
            let there = found.iter().filter(|(id, place)| work.row(id).is_some_and(|row| row.place == *place)).count();
            if (there as u64) < row.live_frames {
                // Acknowledged and on disk once: not torn, but lost since.
                let mut gone = self.objects_of(pack)?;
                gone.retain(|object| !found.contains(object));
                for gone in gone.chunks(MARKS_PER_BATCH) {
                    self.write_marks(&mut state, gone, None)?;
                }
                work = Work::new(self, *state.ledger, NOBODY);
                work.load(&ids)?;
            }
        }
        for frame in &scan.frames {
            let known = work.row(&frame.id).copied();
            match frame.kind {
                _ if known.is_some_and(|row| !row.is_lost()) => {
                    // Of two frames of one object the one that verifies counts.
                    let Some(known) =
                        known.filter(|known| (known.place.pack, known.place.offset) != (*pack, frame.offset))
                    else {
                        continue;
                    };
                    let row = object_row(*pack, frame, known.logical_bytes);
                    if self.open_frame(&frame.id, &known).is_err() && self.open_frame(&frame.id, &row).is_ok() {
                        work.record(frame.id, row, NOBODY)?;
                    }
                }
                ObjectKind::Node => waiting.push(WaitingNode { pack: *pack, frame: *frame }),
                ObjectKind::Chunk => {
                    let row = object_row(*pack, frame, 0);
                    // Frames of an unsealed pack count only when they are authentic; a trailer was written by us.
                    if !scan.sealed && self.open_frame(&frame.id, &row).is_err() {
                        continue;
                    }
                    work.record(frame.id, row, NOBODY)?;
                    added += 1;
                    work.write_if_above(BATCH_ROWS_ENOUGH)?;
                }
            }
        }
        let frame_bytes = scan.frames_end.saturating_sub(PACK_HEADER_BYTES as u64);
        adopted.push(Sealable { pack: *pack, kind: scan.kind, len, frame_bytes });
        work.finish(&HashMap::new())?;
        state.settle(&mut work, 0);
        Ok(added)
    }

    pub(super) fn open_frame(&self, id: &ObjectId, row: &ObjectRow) -> Result<Vec<u8>, StoreError> {
        let mut payload = Err(StoreError::Damaged(*id));
        self.files.read_frames(&[row.place], |_, bytes| {
            payload = bytes.and_then(|bytes| {
                read_frame(bytes, id, row, self.shared.aead, &self.id, &self.keys).map_err(StoreError::from)
            });
            Ok(())
        })?;
        payload
    }

    /// Row and plaintext of a node that waits, or `None` when its frame does not verify.
    pub(super) fn read_waiting(&self, node: &WaitingNode) -> Option<(ObjectRow, Vec<u8>)> {
        let row = object_row(node.pack, &node.frame, 0);
        let mut plaintext = Vec::new();
        let opened = self
            .open_frame(&node.frame.id, &row)
            .and_then(|payload| Ok(unpack(row.codec, &payload, row.plain_len, &mut plaintext)?));
        match opened {
            Ok(()) => Some((row, plaintext)),
            Err(error) => {
                tracing::error!(vault = %self.id, node = %node.frame.id, pack = %node.pack, %error, "a node cannot be read");
                None
            }
        }
    }

    /// Gives a node its row and takes its references, if all its children have rows.
    fn adopt_node(&self, node: &WaitingNode) -> Result<Adopted, StoreError> {
        let Some((mut row, plaintext)) = self.read_waiting(node) else { return Ok(Adopted::Unreadable) };
        let view = NodeView::parse(&plaintext)?;
        row.logical_bytes = view.logical_bytes;
        let children: Vec<ObjectId> =
            view.nodes().map(ObjectId::from).chain(view.chunks().map(ObjectId::from)).collect();
        let mut state = self.state.lock();
        let mut work = Work::new(self, *state.ledger, NOBODY);
        let mut ids = children.clone();
        ids.push(node.frame.id);
        work.load(&ids)?;
        if work.row(&node.frame.id).is_some_and(|row| !row.is_lost()) {
            return Ok(Adopted::Known);
        }
        if !children.iter().all(|child| work.row(child).is_some()) {
            return Ok(Adopted::NotYet);
        }
        work.record(node.frame.id, row, NOBODY)?;
        for child in &children {
            work.reference(child)?;
        }
        work.finish(&HashMap::new())?;
        state.settle(&mut work, 0);
        Ok(Adopted::Added)
    }
}

const fn object_row(pack: PackId, frame: &FoundFrame, logical_bytes: u64) -> ObjectRow {
    ObjectRow {
        kind: frame.kind,
        codec: frame.codec,
        damaged: false,
        place: Place { pack, offset: frame.offset, frame_len: frame.frame_len },
        plain_len: frame.plain_len,
        references: 0,
        logical_bytes,
    }
}
