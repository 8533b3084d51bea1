//! Opening a vault: packs found open are adopted and sealed, the journal's tail is replayed. With an empty index the
//! same steps over all packs and the whole journal are the rebuild, so there is one way back to a consistent index.

use super::apply::Work;
use super::damage::DamageMemory;
use super::fence::Gate;
use super::quota::BookedLedger;
use super::replay::Replay;
use super::upload::unpack;
use super::{Shared, State, Vault};
use crate::error::{At, StoreError};
use crate::journal::{Journal, Opened, Sealing, journal_directory};
use crate::meta::rows::{LEDGER_KEY, Ledger, ObjectRow, PackRow, PackState, Place, pack_of_key};
use crate::meta::{BATCH_ROWS_MAX, Batch, Table};
use crate::pack::{
    Appender, FoundFrame, PackFiles, pack_of_name, pack_path, packs_directory, read_frame, scan_pack, seal_adopted,
};
use crate::sync::Mutex;
use repo_format::id::{ObjectId, ObjectKind, PackId, UploadSessionId, VaultId};
use repo_format::keyring::VaultKeys;
use repo_format::keys::IdKeys;
use repo_format::node::NodeView;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::PathBuf;
use std::sync::Arc;

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
        for folder in [packs_directory(&directory), journal_directory(&directory)] {
            shared.world.vfs.create_dir_all(&folder).at(&folder)?;
        }
        let mut batch = Batch::default();
        batch.put(Table::Ledger, LEDGER_KEY, Ledger::default().encode());
        let ticket = shared.meta.write(&id, batch)?;
        shared.meta.sync(ticket)
    }

    /// Opens the vault and brings its index up to what packs and journal say. With `rebuild` an empty index is filled;
    /// without it, an index without rows for the vault is an error.
    pub(crate) fn open(
        shared: Arc<Shared>,
        id: VaultId,
        keys: VaultKeys,
        rebuild: bool,
    ) -> Result<(Self, Recovered), StoreError> {
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
        let Opened { journal, records, damage } = opened;
        let quota = shared.quotas.account(id);
        let vault = Vault {
            id,
            id_keys: IdKeys::derive(&keys.root),
            files: PackFiles::new(shared.world.vfs.clone(), &directory),
            appender: Mutex::new(Appender::new(
                shared.world.clone(),
                id,
                &directory,
                shared.epoch,
                shared.settings.pack_bytes_target,
            )),
            journal: Mutex::new(journal),
            state: Mutex::new(State {
                pending: HashMap::new(),
                ledger: BookedLedger::new(ledger, quota.clone()),
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
        };
        let (whole, sequence) = {
            let journal = vault.journal.lock();
            (covered.saturating_add(1) < journal.generation_start(), journal.sequence())
        };
        let replay = vault.fold(&records, whole)?;
        let mut recovered = vault.adopt_packs(&replay)?;
        recovered.records = vault.replay(replay, sequence)?;
        if rebuild || recovered != Recovered::default() {
            let mut batch = Batch::default();
            batch.put(Table::Ledger, LEDGER_KEY, vault.ledger().encode());
            vault.meta().write(&id, batch)?;
        }
        vault.sync(vault.meta().written())?;
        recovered.journal_damage = damage;
        vault.heal_journal();
        let sessions = vault.reserved_by_sessions()?;
        vault.state.lock().ledger.open(sessions);
        Ok((vault, recovered))
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

    fn pack_rows(&self) -> Result<BTreeMap<PackId, PackRow>, StoreError> {
        let mut packs = BTreeMap::new();
        self.each_row(Table::Pack, &[], |key, value| {
            packs.insert(pack_of_key(&key)?, PackRow::decode(&value)?);
            Ok(())
        })?;
        Ok(packs)
    }

    fn packs_on_disk(&self) -> Result<(PathBuf, BTreeSet<PackId>), StoreError> {
        let directory = packs_directory(&self.directory);
        let names = self.shared.world.vfs.list(&directory).at(&directory)?;
        Ok((directory, names.iter().filter_map(|name| pack_of_name(name)).collect()))
    }

    fn adopt_packs(&self, replay: &Replay) -> Result<Recovered, StoreError> {
        let rows = self.pack_rows()?;
        let (directory, on_disk) = self.packs_on_disk()?;
        for (pack, row) in &rows {
            if row.live_frames > 0 && !on_disk.contains(pack) {
                if replay.dropped.contains(pack) {
                    return Err(StoreError::Unavailable {
                        vault: self.id,
                        reason: "its index is older than its packs; stop the server and run `holdfastd rebuild-index`"
                            .into(),
                    });
                }
                return Err(StoreError::Unavailable {
                    vault: self.id,
                    reason: format!(
                        "pack {pack} is missing from {}; put it back, or run `holdfastd rebuild-index` to go on without what it held",
                        directory.display()
                    ),
                });
            }
        }
        let sealed = |pack: &PackId| rows.get(pack).is_some_and(|row| row.state == PackState::Sealed);
        let mut recovered = Recovered::default();
        let mut waiting: Vec<WaitingNode> = Vec::new();
        for pack in on_disk.iter().filter(|pack| !sealed(pack)) {
            recovered.packs += 1;
            recovered.objects += self.adopt_pack(&directory, pack, &mut waiting)?;
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
        Ok(recovered)
    }

    /// Gives a pack its trailer if it has none, and its frames rows where they have none yet. Nodes wait for their
    /// children.
    fn adopt_pack(
        &self,
        directory: &std::path::Path,
        pack: &PackId,
        waiting: &mut Vec<WaitingNode>,
    ) -> Result<u64, StoreError> {
        let vfs = &*self.shared.world.vfs;
        let path = pack_path(directory, pack);
        let Some(scan) = scan_pack(vfs, directory, &self.id, pack)? else {
            // Created, but not even its header reached the disk: nothing in it was ever acknowledged.
            tracing::info!(vault = %self.id, %pack, "removing a pack without a header");
            vfs.remove_file(&path).at(&path)?;
            vfs.sync_dir(directory).at(directory)?;
            return Ok(0);
        };
        let len = if scan.sealed {
            scan.file_len
        } else {
            let (file, len) = seal_adopted(vfs, directory, pack, &scan)?;
            file.sync_data().at(&path)?;
            vfs.sync_dir(directory).at(directory)?;
            len
        };
        let mut added = 0;
        let mut state = self.state.lock();
        let nobody = UploadSessionId::from_bytes([0; UploadSessionId::LEN]);
        let mut work = Work::new(self, *state.ledger, nobody);
        let ids: Vec<ObjectId> = scan.frames.iter().map(|frame| frame.id).collect();
        work.load(&ids)?;
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
                        work.record(frame.id, row)?;
                    }
                }
                ObjectKind::Node => waiting.push(WaitingNode { pack: *pack, frame: *frame }),
                ObjectKind::Chunk => {
                    let row = object_row(*pack, frame, 0);
                    // Frames of an unsealed pack count only when they are authentic; a trailer was written by us.
                    if !scan.sealed && self.open_frame(&frame.id, &row).is_err() {
                        continue;
                    }
                    work.record(frame.id, row)?;
                    added += 1;
                    work.write_if_above(BATCH_ROWS_MAX / 4)?;
                }
            }
        }
        work.seal_pack(*pack, scan.kind, len)?;
        work.finish(&HashMap::new())?;
        state.ledger.set(work.ledger);
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
        let nobody = UploadSessionId::from_bytes([0; UploadSessionId::LEN]);
        let mut work = Work::new(self, *state.ledger, nobody);
        let mut ids = children.clone();
        ids.push(node.frame.id);
        work.load(&ids)?;
        if work.row(&node.frame.id).is_some_and(|row| !row.is_lost()) {
            return Ok(Adopted::Known);
        }
        if !children.iter().all(|child| work.row(child).is_some()) {
            return Ok(Adopted::NotYet);
        }
        work.record(node.frame.id, row)?;
        for child in &children {
            work.reference(child)?;
        }
        work.finish(&HashMap::new())?;
        state.ledger.set(work.ledger);
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
