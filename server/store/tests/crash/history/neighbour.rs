//! A vault beside the first one, that is made, filled and deleted again and again. A deletion that was decided goes on
//! after any crash and leaves nothing; one that was not is no deletion at all.

use super::*;
use crate::ground::{DIRECTORY, master};
use crate::log_meta::{LOG, LogMeta};
use crate::sim_vfs::SimVfs;
use std::io;
use std::path::Path;
use store::world::Vfs;
use store::{KEYRING_FILES, SnapshotInfo};

impl History {
    /// The next step of the vault's life.
    pub(super) fn neighbour(&mut self) -> Outcome {
        match self.model.neighbour.clone() {
            Some(neighbour) if neighbour.stage == Stage::Decided => self.delete_neighbour(&neighbour),
            Some(neighbour) if neighbour.stage == Stage::Standing => {
                if neighbour.tree.is_none() && self.rng.chance(80) {
                    self.fill_neighbour(&neighbour)
                } else if self.rng.chance(40) {
                    self.decide_neighbour(&neighbour)
                } else {
                    self.delete_neighbour(&neighbour)
                }
            }
            _ => self.create_neighbour(),
        }
    }

    fn create_neighbour(&mut self) -> Outcome {
        self.verb = "create vault";
        let mut bytes = [0; VaultId::LEN];
        for piece in bytes.chunks_mut(8) {
            piece.copy_from_slice(&self.rng.next().to_le_bytes());
        }
        let vault = VaultId::from_bytes(bytes);
        self.store.create_vault(vault).map_err(text)?;
        self.change(|model| model.neighbour = Some(Neighbour { vault, tree: None, stage: Stage::Standing }));
        Ok(())
    }

    /// A whole backup in one go.
    fn fill_neighbour(&mut self, neighbour: &Neighbour) -> Outcome {
        self.verb = "fill vault";
        let vault = neighbour.vault;
        let keys = self.store.id_keys(&vault).map_err(text)?;
        let tree = Arc::new(tree(&keys, &mut self.rng, None, &mut self.universe));
        let (session, _) = self.store.begin_upload(&vault, "computer", "series", None).map_err(text)?;
        self.store.put_chunks(&vault, &session, &self.objects(&tree.chunks)).map_err(text)?;
        self.store.put_nodes(&vault, &session, &self.objects(&tree.nodes)).map_err(text)?;
        let input = CommitInput { root: tree.root, summary_json: Vec::new() };
        self.store.commit(&vault, &session, &input).map_err(text)?;
        // Where it cannot be written there is less to be found.
        let _ = self.name_beside_index(&vault);
        self.change(|model| model.neighbour = Some(Neighbour { vault, tree: Some(tree), stage: Stage::Standing }));
        Ok(())
    }

    /// What an interrupted rebuild and the message logs of RocksDB leave: files that name the vault.
    fn name_beside_index(&self, vault: &VaultId) -> io::Result<()> {
        let vfs = SimVfs(self.disk.clone());
        for (folder, name) in [("index.new", "log"), ("index", "LOG.old.1")] {
            let folder = Path::new(DIRECTORY).join(folder);
            vfs.create_dir_all(&folder)?;
            vfs.replace(&folder.join(name), vault.as_bytes())?;
        }
        Ok(())
    }

    fn decide_neighbour(&mut self, neighbour: &Neighbour) -> Outcome {
        self.verb = "decide to delete vault";
        self.store.decide_vault_deletion(&neighbour.vault).map_err(text)?;
        self.change(|model| model.neighbour = Some(Neighbour { stage: Stage::Decided, ..neighbour.clone() }));
        Ok(())
    }

    fn delete_neighbour(&mut self, neighbour: &Neighbour) -> Outcome {
        self.verb = "delete vault";
        match self.finish_deletion(&self.store, &self.disk, neighbour) {
            // The first answer was lost.
            Err(error) if self.options.patient && error.contains("NoSuchVault") => {}
            outcome => outcome?,
        }
        self.change(|model| model.neighbour = Some(Neighbour { stage: Stage::Gone, ..neighbour.clone() }));
        Ok(())
    }

    /// Deletes the vault, or goes on with it, and looks for what may be left.
    pub(super) fn finish_deletion(&self, store: &Store, disk: &Arc<Disk>, neighbour: &Neighbour) -> Outcome {
        let keyrings = KEYRING_FILES.map(|name| Path::new(DIRECTORY).join(name));
        let old: Vec<usize> = keyrings.iter().filter_map(|path| disk.volume().file_number(path)).collect();
        let receipt = store.delete_vault(&neighbour.vault, &master()).map_err(text)?;
        if receipt.vault != neighbour.vault {
            return Err("the receipt names another vault".into());
        }
        // An error leaves the overwriting of old copies undone: what counts is that no name leads to them.
        if !self.options.patient
            && old.iter().any(|number| disk.volume().on_disk(*number).iter().any(|byte| *byte != 0))
        {
            return Err("the old copies of the keyring still hold a deleted vault's key".into());
        }
        check_gone(store, disk, &neighbour.vault)
    }

    /// The vault is what was acknowledged of it, or what the call under way makes of it. Answers what it is.
    pub(super) fn check_neighbour(
        &self,
        store: &Store,
        disk: &Arc<Disk>,
        expected: &Expected,
    ) -> Result<Option<Neighbour>, String> {
        let (before, after) = (&expected.before.neighbour, &expected.after.neighbour);
        let Some(after) = after else { return Ok(None) };
        let vault = after.vault;
        let Some(before) = before.as_ref().filter(|before| before.vault == vault) else {
            // The call that makes it is under way: asked again, it is made.
            if let Some(before) = before {
                check_gone(store, disk, &before.vault)?;
            }
            store.create_vault(vault).map_err(|error| format!("creation of a vault: {}", text(error)))?;
            let listed = store.snapshots(&vault).map_err(|error| format!("a new vault: {}", text(error)))?;
            let is_empty = listed.is_empty();
            return if is_empty { Ok(Some(after.clone())) } else { Err("a new vault holds snapshots".into()) };
        };
        let pending = store.pending_deletions().contains(&vault);
        let stage = match (store.vaults().contains(&vault), pending) {
            (_, true) => Stage::Decided,
            (true, false) => Stage::Standing,
            (false, false) => Stage::Gone,
        };
        if !(before.stage..=after.stage).contains(&stage) {
            return Err(format!("a vault's deletion was {:?} to {:?}, and is {stage:?}", before.stage, after.stage));
        }
        let tree = match stage {
            Stage::Gone => {
                check_gone(store, disk, &vault)?;
                None
            }
            Stage::Decided => match store.snapshots(&vault) {
                Err(StoreError::VaultDeleted(_)) => None,
                other => return Err(format!("a vault that is being deleted answers {other:?}")),
            },
            Stage::Standing => self.check_whole(store, before, after)?,
        };
        Ok(Some(Neighbour { vault, tree, stage }))
    }

    /// Everything acknowledged is there. Answers the tree, if it was committed.
    fn check_whole(&self, store: &Store, before: &Neighbour, after: &Neighbour) -> Result<Option<Arc<Tree>>, String> {
        let named = |error: StoreError| format!("a vault that was not deleted: {}", text(error));
        let vault = &after.vault;
        let listed: Vec<SnapshotInfo> = store.snapshots(vault).map_err(named)?;
        let tree = after.tree.as_ref().or(before.tree.as_ref());
        if listed.is_empty() {
            let lost = before.tree.is_some() && after.tree.is_some();
            return if lost { Err("a vault that was not deleted lost its snapshot".into()) } else { Ok(None) };
        }
        let Some(tree) = tree.filter(|tree| listed.iter().all(|info| info.root == tree.root)) else {
            return Err(format!("a vault that was not deleted lists {listed:?}"));
        };
        let mut required = HashSet::new();
        self.universe.reach([tree.root.into()], &mut required);
        self.read_all(store, vault, &required, |_| vec![format!("vault {vault}, which was not deleted")])?;
        let recount = store.recount(vault).map_err(named)?;
        match recount.drift.first() {
            Some(drift) => Err(format!("drift in a vault that was not deleted: {drift}")),
            None => Ok(Some(tree.clone())),
        }
    }
}

/// No key, no row, no pack and no name of the vault is left.
pub fn check_gone(store: &Store, disk: &Arc<Disk>, vault: &VaultId) -> Outcome {
    if store.vaults().contains(vault) || store.folders_without_keys().map_err(text)?.contains(vault) {
        return Err("a deleted vault is listed".into());
    }
    if !matches!(store.snapshots(vault), Err(StoreError::VaultDeleted(_) | StoreError::NoSuchVault(_))) {
        return Err("a deleted vault answers".into());
    }
    let index = Path::new(DIRECTORY).join("index");
    let log = index.join("log");
    let volume = disk.volume();
    let mut left = Vec::new();
    let (id, name) = (vault.as_bytes(), vault.to_string());
    volume.each_file(|path, bytes| {
        // The simulated index is a log, which goes on naming what it has removed.
        if path.contains(&name) || (Path::new(path) != log && bytes.windows(id.len()).any(|window| window == id)) {
            left.push(path.to_owned());
        }
    });
    if !left.is_empty() {
        return Err(format!("a deleted vault is still named by {left:?}"));
    }
    if volume.file_number(&index.join(LOG)).is_none() {
        // RocksDB's files are searched where shredding is tested: a crash may bring obsolete ones back for a while.
        return Ok(());
    }
    // On a copy: to look must not change the disk.
    let rows = LogMeta::open(&SimVfs(Disk::new(volume)), &index).map_err(text)?;
    if rows.holds(vault) { Err("rows of a deleted vault are left".into()) } else { Ok(()) }
}
