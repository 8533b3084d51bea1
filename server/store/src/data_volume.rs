//! The volume of packs and journals: the space that uploads leave free, and a ballast for when others leave none. The
//! ballast lies in pieces; what frees space gives one up after the other, so that whoever fills the volume to the last
//! byte again and again still cannot keep deletes from working. It comes back when there is plenty.

use crate::error::{At, StoreError, Volume};
use crate::settings::StoreSettings;
use crate::sync::Mutex;
use crate::world::{Space, World};
use std::path::PathBuf;
use std::time::{Duration, Instant};

const PIECES: [&str; 4] = ["ballast.1", "ballast.2", "ballast.3", "ballast.4"];
/// What a change of a snapshot's state or a step of collection may need, bytes: a journal generation, the index's log
/// and what its file system adds.
pub(crate) const CHANGE_BYTES: u64 = 8 << 20;
/// Whether the ballast can come back is looked at this often.
const LOOK: Duration = Duration::from_secs(30);

/// Where packs and journals lie.
pub(crate) struct DataVolume {
    world: World,
    settings: StoreSettings,
    ballast: Mutex<Ballast>,
}

/// Which pieces are there, and when it was last looked whether the others can come back.
#[derive(Default)]
struct Ballast {
    there: [bool; PIECES.len()],
    looked: Option<Instant>,
}

impl DataVolume {
    /// Of a folder that exists.
    pub(crate) fn open(world: World, settings: StoreSettings) -> Result<Self, StoreError> {
        let directory = &settings.directory;
        let names = world.vfs.list(directory).at(directory)?;
        let there = PIECES.map(|piece| names.iter().any(|name| name == piece));
        let ballast = Mutex::new(Ballast { there, looked: None });
        let volume = DataVolume { world, settings, ballast };
        let space = volume.space()?;
        volume.settle(&space);
        Ok(volume)
    }

    fn space(&self) -> Result<Space, StoreError> {
        let directory = &self.settings.directory;
        self.world.vfs.space(directory).at(directory)
    }

    fn piece(&self, number: usize) -> PathBuf {
        self.settings.directory.join(PIECES[number])
    }

    /// Refuses new data when the volume is down to its reserve.
    pub(crate) fn check_space(&self) -> Result<(), StoreError> {
        let space = self.space()?;
        let reserve = self.settings.reserve_bytes(space.total);
        if space.free <= reserve {
            return Err(StoreError::DiskFull { volume: Volume::Data, free: space.free, reserve });
        }
        self.settle(&space);
        Ok(())
    }

    /// Gives up ballast until `bytes` are free, or nothing is left of it. Whoever comes next fails or gets through by
    /// what is free then: this never fails.
    pub(crate) fn make_room(&self, bytes: u64) {
        let has_room = || !self.space().is_ok_and(|space| space.free < bytes);
        if has_room() {
            return;
        }
        let mut ballast = self.ballast.lock();
        for number in (0..PIECES.len()).rev() {
            // Others may have made room, or taken what the last piece gave.
            if has_room() {
                return;
            }
            if !std::mem::take(&mut ballast.there[number]) {
                continue;
            }
            ballast.looked = Some(Instant::now());
            let path = self.piece(number);
            match self.world.vfs.remove_file(&path) {
                Ok(()) => {
                    let path = path.display();
                    tracing::warn!(%path, "the data volume has no space left: a part of its ballast is given up");
                }
                Err(error) => {
                    tracing::warn!(path = %path.display(), %error, "a part of the ballast cannot be removed");
                }
            }
        }
    }

    /// Makes the pieces that are not there, when they and twice the reserve fit.
    fn settle(&self, space: &Space) {
        let mut ballast = self.ballast.lock();
        let missing = ballast.there.iter().filter(|there| !**there).count() as u64;
        if missing == 0 || ballast.looked.is_some_and(|looked| looked.elapsed() < LOOK) {
            return;
        }
        ballast.looked = Some(Instant::now());
        let bytes = self.settings.ballast_bytes(space.total) / PIECES.len() as u64;
        let reserve = self.settings.reserve_bytes(space.total);
        if bytes == 0 || space.free < reserve.saturating_mul(2).saturating_add(missing.saturating_mul(bytes)) {
            return;
        }
        for number in 0..PIECES.len() {
            if ballast.there[number] {
                continue;
            }
            let path = self.piece(number);
            if let Err(error) = self.world.vfs.create_reserved(&path, bytes) {
                tracing::warn!(path = %path.display(), %error, "the ballast of the data volume cannot be made");
                let _ = self.world.vfs.remove_file(&path);
                return;
            }
            ballast.there[number] = true;
        }
    }
}
