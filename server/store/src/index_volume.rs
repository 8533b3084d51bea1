//! The volume of the index: where its folder is, what an interrupted exchange of it left, and the space that must stay
//! free there. On a volume of its own a ballast file goes first when space ends, and comes back when there is plenty.

use crate::data_volume::DataVolume;
use crate::error::{At, StoreError, Volume};
use crate::settings::StoreSettings;
use crate::sync::Mutex;
use crate::world::World;
use std::io;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// The ballast is this share of the volume...
const BALLAST_SHARE: u64 = 100;
/// ...but at most this much, bytes.
const BALLAST_BYTES_MAX: u64 = 2 << 30;
/// The ballast goes when this share of the reserve is left.
const BALLAST_GOES_SHARE: u64 = 4;
/// An index that ran out of space is opened again with at least this much free: memory tables are written then, bytes.
const REOPEN_BYTES: u64 = 32 << 20;
/// Whether the ballast can come back is looked at this often.
const BALLAST_LOOK: Duration = Duration::from_secs(30);

const INDEX: &str = "index";
const NEXT: &str = "index.new";
const LAST: &str = "index.old";
const BALLAST: &str = "ballast";
const OLD_LOG: &str = "LOG.old";

/// The index's folder and the volume it is on.
pub(crate) struct IndexVolume {
    world: World,
    settings: StoreSettings,
    /// The index does not share its volume with packs and journals.
    is_own: bool,
    data: DataVolume,
    /// Whether the ballast is there, and when it was last looked whether it can come back.
    ballast: Mutex<(bool, Option<Instant>)>,
}

impl IndexVolume {
    /// Finds the folder, and finishes or takes back an exchange of the index that was interrupted.
    pub(crate) fn open(world: World, settings: StoreSettings) -> Result<Self, StoreError> {
        let root = settings.index_root().to_owned();
        world.vfs.create_dir_all(&settings.directory).at(&settings.directory)?;
        if root != settings.directory {
            world.vfs.create_dir_all(&root).at(&root)?;
        }
        let is_own = !world.vfs.is_one_volume(&settings.directory, &root).at(&root)?;
        let data = DataVolume::open(world.clone(), settings.clone())?;
        let volume = IndexVolume { world, settings, is_own, data, ballast: Mutex::new((false, None)) };
        let names = volume.world.vfs.list(&root).at(&root)?;
        let has = |name: &str| names.iter().any(|found| found == name);
        // The old index is moved away only when the new one is complete.
        if has(LAST) && has(NEXT) && !has(INDEX) {
            volume.rename(NEXT, INDEX)?;
        } else if has(LAST) {
            // Whoever was killed may have left the exchange in memory alone: the old one must not go before it counts.
            volume.world.vfs.sync_dir(&root).at(&root)?;
        }
        volume.remove_folder(LAST)?;
        volume.ballast.lock().0 = has(BALLAST);
        if is_own {
            volume.settle_ballast()?;
        } else if has(BALLAST) {
            volume.drop_ballast()?;
        }
        Ok(volume)
    }

    /// The index's own folder.
    pub(crate) fn directory(&self) -> PathBuf {
        self.settings.index_root().join(INDEX)
    }

    /// An empty folder beside the index, for one that will take its place.
    pub(crate) fn next_directory(&self) -> Result<PathBuf, StoreError> {
        self.remove_folder(NEXT)?;
        let path = self.settings.index_root().join(NEXT);
        self.world.vfs.create_dir_all(&path).at(&path)?;
        Ok(path)
    }

    /// Puts the index from [`IndexVolume::next_directory`], complete and closed, in place of the present one.
    pub(crate) fn exchange(&self) -> Result<(), StoreError> {
        let root = self.settings.index_root();
        match self.world.vfs.rename(&root.join(INDEX), &root.join(LAST)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            moved => moved.at(root)?,
        }
        // One sync for both names: with either alone, the next start finds the way.
        self.rename(NEXT, INDEX)?;
        self.remove_folder(LAST)
    }

    /// Removes what may still name rows that are gone: unfinished rebuilds and old message logs of the index.
    pub(crate) fn forget_remains(&self) -> Result<(), StoreError> {
        self.remove_folder(NEXT)?;
        self.remove_folder(LAST)?;
        let root = self.settings.index_root();
        self.world.vfs.sync_dir(root).at(root)?;
        let directory = self.directory();
        for name in self.world.vfs.list(&directory).at(&directory)? {
            if name.starts_with(OLD_LOG) {
                let path = directory.join(name);
                self.world.vfs.remove_file(&path).at(&path)?;
            }
        }
        self.world.vfs.sync_dir(&directory).at(&directory)
    }

    /// The volume of packs and journals, which may be the same.
    pub(crate) const fn data(&self) -> &DataVolume {
        &self.data
    }

    fn rename(&self, from: &str, to: &str) -> Result<(), StoreError> {
        let root = self.settings.index_root();
        let from = root.join(from);
        self.world.vfs.rename(&from, &root.join(to)).at(&from)?;
        self.world.vfs.sync_dir(root).at(root)
    }

    fn remove_folder(&self, name: &str) -> Result<(), StoreError> {
        let path = self.settings.index_root().join(name);
        self.world.vfs.remove_dir_all(&path).at(&path)
    }

    fn free_and_reserve(&self) -> Result<(u64, u64, u64), StoreError> {
        let root = self.settings.index_root();
        let space = self.world.vfs.space(root).at(root)?;
        Ok((space.free, self.settings.reserve_bytes(space.total), space.total))
    }

    /// Which volume the index fills.
    pub(crate) const fn volume(&self) -> Volume {
        if self.is_own { Volume::Index } else { Volume::Data }
    }

    /// Refuses when the index has a volume of its own and that is down to its reserve.
    pub(crate) fn check_space(&self) -> Result<(), StoreError> {
        if !self.is_own {
            return Ok(());
        }
        let (free, reserve, _) = self.free_and_reserve()?;
        if free <= reserve / BALLAST_GOES_SHARE {
            self.drop_ballast()?;
        } else if self.ballast_is_due() {
            self.settle_ballast()?;
        }
        if free <= reserve { Err(StoreError::DiskFull { volume: Volume::Index, free, reserve }) } else { Ok(()) }
    }

    /// Whether an index that ran out of space can be opened again; gives the ballast up for it.
    pub(crate) fn has_space_to_reopen(&self) -> bool {
        if !self.is_own {
            self.data.make_room(REOPEN_BYTES);
        } else if let Err(error) = self.drop_ballast() {
            tracing::warn!(%error, "the ballast of the index volume cannot be removed");
        }
        self.free_and_reserve().is_ok_and(|(free, ..)| free >= REOPEN_BYTES)
    }

    /// The refusal while the index waits for space.
    pub(crate) fn full(&self) -> StoreError {
        let (free, reserve, _) = self.free_and_reserve().unwrap_or_default();
        StoreError::DiskFull { volume: self.volume(), free, reserve: reserve.max(REOPEN_BYTES) }
    }

    fn ballast_is_due(&self) -> bool {
        let mut ballast = self.ballast.lock();
        let due = !ballast.0 && ballast.1.is_none_or(|looked| looked.elapsed() >= BALLAST_LOOK);
        if due {
            ballast.1 = Some(Instant::now());
        }
        due
    }

    fn settle_ballast(&self) -> Result<(), StoreError> {
        let (free, reserve, total) = self.free_and_reserve()?;
        let bytes = (total / BALLAST_SHARE).min(BALLAST_BYTES_MAX);
        let mut ballast = self.ballast.lock();
        if ballast.0 || free < 2 * reserve + bytes {
            return Ok(());
        }
        let path = self.settings.index_root().join(BALLAST);
        match self.world.vfs.create_reserved(&path, bytes) {
            Ok(()) => ballast.0 = true,
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "the ballast of the index volume cannot be made");
                let _ = self.world.vfs.remove_file(&path);
            }
        }
        Ok(())
    }

    fn drop_ballast(&self) -> Result<(), StoreError> {
        let mut ballast = self.ballast.lock();
        if !ballast.0 {
            return Ok(());
        }
        let path = self.settings.index_root().join(BALLAST);
        match self.world.vfs.remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error).at(&path),
            _ => {}
        }
        *ballast = (false, Some(Instant::now()));
        tracing::warn!(path = %path.display(), "the index volume runs out of space: its ballast is given up");
        Ok(())
    }
}
