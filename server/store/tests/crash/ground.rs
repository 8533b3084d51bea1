//! What the engine stands on in a history: the simulated disk itself, or that disk as the kernel shows it.

use crate::log_meta::LogMeta;
use crate::mounted::Mount;
use crate::sim_vfs::{Disk, Rng, SimVfs};
use parking_lot::Mutex;
use repo_format::id::VaultId;
use repo_format::masterkey::MasterKey;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use store::meta::MetaStore;
use store::world::{Clock, Random, SystemVfs, Vfs, World};
use store::{Store, StoreError, StoreSettings};

pub const VAULT: VaultId = VaultId::from_bytes([0x42; 16]);
pub const DIRECTORY: &str = "/d";
/// After which sessions without a request end.
pub const IDLE_NS: i64 = 24 * 3_600_000_000_000;

pub struct SimClock(pub AtomicI64);

impl Clock for SimClock {
    fn now_ns(&self) -> i64 {
        self.0.load(Ordering::Relaxed)
    }
}

struct SimRandom(Mutex<Rng>);

impl Random for SimRandom {
    fn fill(&self, out: &mut [u8]) -> io::Result<()> {
        let mut rng = self.0.lock();
        for piece in out.chunks_mut(8) {
            piece.copy_from_slice(&rng.next().to_le_bytes()[..piece.len()]);
        }
        Ok(())
    }
}

fn world(vfs: Arc<dyn Vfs>, seed: u64, now_ns: i64) -> (World, Arc<SimClock>) {
    let clock = Arc::new(SimClock(AtomicI64::new(now_ns)));
    let random = Arc::new(SimRandom(Mutex::new(Rng::new(seed))));
    (World { vfs, clock: clock.clone(), random }, clock)
}

fn settings(directory: PathBuf, pack_bytes_target: u64) -> StoreSettings {
    StoreSettings {
        memory_bytes: 1 << 20,
        reserve_bytes: Some(0),
        ballast_bytes: Some(0),
        pack_bytes_target,
        session_idle_ns: IDLE_NS,
        reattach_ns: 0,
        ..StoreSettings::new(directory)
    }
}

/// What the engine stands on.
#[derive(Clone, Default)]
pub enum Ground {
    /// The simulated disk itself, with an index of a few lines.
    #[default]
    Simulated,
    /// The system's files on the disk where it is mounted, with RocksDB.
    Mounted(Arc<Mount>),
}

impl Ground {
    fn directory(mount: &Mount, disk: &Arc<Disk>) -> PathBuf {
        mount.show(disk).join(Path::new(DIRECTORY).strip_prefix("/").unwrap())
    }

    pub fn open(
        &self,
        disk: &Arc<Disk>,
        seed: u64,
        now_ns: i64,
        pack_bytes_target: u64,
    ) -> Result<(Store, Arc<SimClock>), StoreError> {
        let store = match self {
            Ground::Simulated => {
                let vfs = SimVfs(disk.clone());
                let (world, clock) = world(Arc::new(vfs.clone()), seed, now_ns);
                let index = Path::new(DIRECTORY).join("index");
                let open_index = Box::new(move || Ok(Arc::new(LogMeta::open(&vfs, &index)?) as Arc<dyn MetaStore>));
                let settings = settings(PathBuf::from(DIRECTORY), pack_bytes_target);
                (Store::open_with_index(settings, world, &master(), open_index)?, clock)
            }
            Ground::Mounted(mount) => {
                let (world, clock) = world(Arc::new(SystemVfs), seed, now_ns);
                let settings = settings(Self::directory(mount, disk), pack_bytes_target);
                (Store::open(settings, world, &master())?, clock)
            }
        };
        Ok(store)
    }

    /// Rebuilds the index of a stopped store from packs and journals.
    pub fn rebuild(&self, disk: &Arc<Disk>, seed: u64, now_ns: i64, pack_bytes_target: u64) -> Result<(), StoreError> {
        let report = match self {
            Ground::Simulated => {
                let vfs = SimVfs(disk.clone());
                let (world, _) = world(Arc::new(vfs.clone()), seed, now_ns);
                let open_index = move |index: &Path| Ok(Arc::new(LogMeta::open(&vfs, index)?) as Arc<dyn MetaStore>);
                let settings = settings(PathBuf::from(DIRECTORY), pack_bytes_target);
                Store::rebuild_index_with(settings, world, &master(), open_index, |_, _| {})?
            }
            Ground::Mounted(mount) => {
                let (world, _) = world(Arc::new(SystemVfs), seed, now_ns);
                let settings = settings(Self::directory(mount, disk), pack_bytes_target);
                Store::rebuild_index(settings, world, &master(), |_, _| {})?
            }
        };
        report.failed.into_iter().next().map_or(Ok(()), |(_, error)| Err(error))
    }
}

pub fn master() -> MasterKey {
    MasterKey::from_bytes([7; 32])
}
