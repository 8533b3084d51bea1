//! A disk in memory that loses power. Every file has what is on disk and the operations since its last sync, every
//! directory likewise; a crash keeps any part of those operations: whole, torn at sectors, as zeros, or not at all.
//! Names, renames and data survive independently of each other, which is more than any one file system does wrong.

mod numbers;

pub use numbers::Node;

use crate::sites::Sites;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::io;
use std::path::{Component, Path};
use std::sync::{Arc, OnceLock};
use store::world::{Space, Vfs, VfsFile};

/// Bytes of a file with their hash, computed once.
#[derive(Default)]
pub struct Bytes {
    data: Vec<u8>,
    hash: OnceLock<[u8; 32]>,
}

impl Bytes {
    fn new(data: Vec<u8>) -> Arc<Self> {
        Arc::new(Bytes { data, hash: OnceLock::new() })
    }
    fn hash(&self) -> &[u8; 32] {
        self.hash.get_or_init(|| *blake3::hash(&self.data).as_bytes())
    }
}

impl Clone for Bytes {
    fn clone(&self) -> Self {
        Bytes { data: self.data.clone(), hash: OnceLock::new() }
    }
}

#[derive(Clone)]
enum FileOp {
    Write { offset: usize, bytes: Arc<[u8]> },
    Truncate { len: usize },
}

/// A file: what is on disk, what is seen, and how the one becomes the other.
#[derive(Clone, Default)]
struct File {
    durable: Arc<Bytes>,
    live: Arc<Bytes>,
    pending: Vec<(u64, FileOp)>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Entry {
    File(usize),
    Dir(usize),
}

/// Changes of names that happen together.
type DirOp = Vec<(Arc<str>, Option<Entry>)>;

#[derive(Clone, Default)]
struct Dir {
    durable: BTreeMap<Arc<str>, Entry>,
    live: BTreeMap<Arc<str>, Entry>,
    pending: Vec<(u64, DirOp)>,
}

/// The state of a disk at one moment; cheap to copy.
#[derive(Clone)]
pub struct Volume {
    files: Vec<Arc<File>>,
    /// The first is the root.
    dirs: Vec<Arc<Dir>>,
    sequence: u64,
}

impl Default for Volume {
    fn default() -> Self {
        Volume { files: Vec::new(), dirs: vec![Arc::default()], sequence: 0 }
    }
}

/// What a crash leaves of the operations that were not synced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Survival {
    /// Nothing.
    Nothing,
    /// Everything.
    Everything,
    /// Changes of names, but no data.
    Names,
    /// Data, but no changes of names.
    Data,
    /// The oldest operations, the last of them torn.
    Prefix {
        /// Chooses how many.
        seed: u64,
    },
    /// Any part of anything.
    Any {
        /// Chooses which.
        seed: u64,
        /// Bytes that survive or not together.
        sector: usize,
    },
    /// Any part of the data, and changes of names up to some moment, as file systems with a journal do it.
    Ordered {
        /// Chooses which, and the moment.
        seed: u64,
        /// Bytes that survive or not together.
        sector: usize,
    },
}

/// A small generator of equal choices from equal seeds.
#[derive(Clone)]
pub struct Rng(u64);

impl Rng {
    pub fn new(seed: u64) -> Self {
        Rng(seed ^ 0x9E37_79B9_7F4A_7C15)
    }
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }
    /// Below `bound`; zero for a bound of zero.
    pub fn below(&mut self, bound: usize) -> usize {
        if bound == 0 { 0 } else { (self.next() % bound as u64) as usize }
    }
    pub fn chance(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }
    pub fn pick<'a, T>(&mut self, of: &'a [T]) -> Option<&'a T> {
        of.get(self.below(of.len()))
    }
}

impl Volume {
    /// Whether anything is not on disk yet, so that crashes can differ.
    pub fn has_pending(&self) -> bool {
        self.files.iter().any(|file| !file.pending.is_empty()) || self.dirs.iter().any(|dir| !dir.pending.is_empty())
    }

    /// The disk as found after a crash: all of it durable.
    pub fn crash(&self, survival: Survival) -> Volume {
        let mut rng = match survival {
            Survival::Prefix { seed } | Survival::Any { seed, .. } | Survival::Ordered { seed, .. } => Rng::new(seed),
            _ => Rng::new(0),
        };
        let mut numbers: Vec<u64> = Vec::new();
        if let Survival::Ordered { .. } = survival {
            numbers.push(0);
        }
        if let Survival::Prefix { .. } = survival {
            numbers.extend(self.files.iter().flat_map(|file| file.pending.iter().map(|(number, _)| *number)));
        }
        if let Survival::Prefix { .. } | Survival::Ordered { .. } = survival {
            numbers.extend(self.dirs.iter().flat_map(|dir| dir.pending.iter().map(|(number, _)| *number)));
            numbers.sort_unstable();
        }
        let torn_at = numbers.get(rng.below(numbers.len())).copied().unwrap_or(0);
        let mut after = Volume { files: Vec::new(), dirs: vec![Arc::default()], sequence: 0 };
        self.crash_dir(0, 0, &mut after, survival, torn_at, &mut rng, &mut BTreeMap::new());
        after
    }

    #[allow(clippy::too_many_arguments, reason = "a walk with its state")]
    fn crash_dir(
        &self,
        from: usize,
        to: usize,
        after: &mut Volume,
        survival: Survival,
        torn_at: u64,
        rng: &mut Rng,
        moved: &mut BTreeMap<usize, usize>,
    ) {
        let dir = &self.dirs[from];
        let mut names = dir.durable.clone();
        for (number, op) in &dir.pending {
            let keeps = match survival {
                Survival::Nothing | Survival::Data => false,
                Survival::Everything | Survival::Names => true,
                Survival::Prefix { .. } | Survival::Ordered { .. } => *number <= torn_at,
                Survival::Any { .. } => rng.chance(50),
            };
            if keeps {
                for (name, entry) in op {
                    match entry {
                        Some(entry) => names.insert(name.clone(), *entry),
                        None => names.remove(name),
                    };
                }
            }
        }
        let mut found = BTreeMap::new();
        for (name, entry) in names {
            let entry = match entry {
                Entry::File(id) => Entry::File(*moved.entry(id).or_insert_with(|| {
                    let bytes = self.files[id].crash(survival, torn_at, rng);
                    after.files.push(Arc::new(File { durable: bytes.clone(), live: bytes, pending: Vec::new() }));
                    after.files.len() - 1
                })),
                Entry::Dir(id) => {
                    after.dirs.push(Arc::default());
                    let to = after.dirs.len() - 1;
                    self.crash_dir(id, to, after, survival, torn_at, rng, moved);
                    Entry::Dir(to)
                }
            };
            found.insert(name, entry);
        }
        after.dirs[to] = Arc::new(Dir { durable: found.clone(), live: found, pending: Vec::new() });
    }

    /// Hash over names and contents as seen.
    pub fn hash(&self) -> [u8; 32] {
        fn feed(volume: &Volume, dir: usize, hasher: &mut blake3::Hasher) {
            for (name, entry) in volume.dirs[dir].live.iter().filter(|(name, _)| !numbers::is_message_log(name)) {
                hasher.update(&(name.len() as u64).to_le_bytes());
                hasher.update(name.as_bytes());
                match entry {
                    Entry::File(id) => {
                        hasher.update(b"f");
                        hasher.update(volume.files[*id].live.hash());
                    }
                    Entry::Dir(id) => {
                        hasher.update(b"d");
                        feed(volume, *id, hasher);
                        hasher.update(b"e");
                    }
                }
            }
        }
        let mut hasher = blake3::Hasher::new();
        feed(self, 0, &mut hasher);
        *hasher.finalize().as_bytes()
    }

    /// Every file as seen, with its length; for people.
    pub fn listing(&self) -> Vec<String> {
        fn walk(volume: &Volume, dir: usize, path: &str, out: &mut Vec<String>) {
            for (name, entry) in &volume.dirs[dir].live {
                match entry {
                    Entry::File(id) => {
                        let file = &volume.files[*id];
                        let durable =
                            if volume.dirs[dir].durable.get(name) == Some(entry) { "" } else { ", name not synced" };
                        out.push(format!(
                            "{path}/{name}: {} bytes, {} on disk{durable}",
                            file.live.data.len(),
                            file.durable.data.len()
                        ));
                    }
                    Entry::Dir(id) => walk(volume, *id, &format!("{path}/{name}"), out),
                }
            }
        }
        let mut out = Vec::new();
        walk(self, 0, "", &mut out);
        out
    }

    /// Every file as seen, with its path.
    pub fn each_file(&self, mut each: impl FnMut(&str, &[u8])) {
        fn walk(volume: &Volume, dir: usize, path: &str, each: &mut dyn FnMut(&str, &[u8])) {
            for (name, entry) in &volume.dirs[dir].live {
                let path = format!("{path}/{name}");
                match entry {
                    Entry::File(id) => each(&path, &volume.files[*id].live.data),
                    Entry::Dir(id) => walk(volume, *id, &path, each),
                }
            }
        }
        walk(self, 0, "", &mut each);
    }

    /// The file that has this name now; the number stays when the name goes.
    pub fn file_number(&self, path: &Path) -> Option<usize> {
        self.file_of(path).ok()
    }

    /// Bytes on disk of a file that may have no name any more.
    pub fn on_disk(&self, number: usize) -> &[u8] {
        self.files.get(number).map_or(&[], |file| &file.durable.data)
    }

    /// Bytes of all files as seen, for ENOSPC and for figures.
    pub fn live_bytes(&self) -> u64 {
        fn sum(volume: &Volume, dir: usize) -> u64 {
            let of = |entry: &Entry| match entry {
                Entry::File(id) => volume.files[*id].live.data.len() as u64,
                Entry::Dir(id) => sum(volume, *id),
            };
            volume.dirs[dir].live.values().map(of).sum()
        }
        sum(self, 0)
    }

    fn dir_of(&self, path: &Path) -> io::Result<usize> {
        let mut at = 0;
        for part in path.components() {
            if let Component::Normal(name) = part {
                let name = name.to_str().ok_or(io::ErrorKind::InvalidInput)?;
                match self.dirs[at].live.get(name) {
                    Some(Entry::Dir(id)) => at = *id,
                    Some(Entry::File(_)) => return Err(io::ErrorKind::NotADirectory.into()),
                    None => return Err(io::ErrorKind::NotFound.into()),
                }
            }
        }
        Ok(at)
    }

    fn parent_and_name(&self, path: &Path) -> io::Result<(usize, Arc<str>)> {
        let name = path.file_name().and_then(|name| name.to_str()).ok_or(io::ErrorKind::InvalidInput)?;
        Ok((self.dir_of(path.parent().unwrap_or(Path::new("")))?, name.into()))
    }

    fn file_of(&self, path: &Path) -> io::Result<usize> {
        let (dir, name) = self.parent_and_name(path)?;
        match self.dirs[dir].live.get(&name) {
            Some(Entry::File(id)) => Ok(*id),
            Some(Entry::Dir(_)) => Err(io::ErrorKind::IsADirectory.into()),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    fn change_names(&mut self, dir: usize, op: DirOp) {
        self.sequence += 1;
        let sequence = self.sequence;
        let dir = Arc::make_mut(&mut self.dirs[dir]);
        for (name, entry) in &op {
            match entry {
                Some(entry) => dir.live.insert(name.clone(), *entry),
                None => dir.live.remove(name),
            };
        }
        dir.pending.push((sequence, op));
    }

    fn change_file(&mut self, id: usize, op: FileOp) {
        self.sequence += 1;
        let sequence = self.sequence;
        let file = Arc::make_mut(&mut self.files[id]);
        let live = Arc::make_mut(&mut file.live);
        live.hash = OnceLock::new();
        apply(&mut live.data, &op);
        file.pending.push((sequence, op));
    }

    fn sync_file(&mut self, id: usize) {
        let file = Arc::make_mut(&mut self.files[id]);
        file.durable = file.live.clone();
        file.pending.clear();
    }

    fn sync_names(&mut self, dir: usize) {
        let dir = Arc::make_mut(&mut self.dirs[dir]);
        dir.durable = dir.live.clone();
        dir.pending.clear();
    }
}

fn apply(data: &mut Vec<u8>, op: &FileOp) {
    match op {
        FileOp::Write { offset, bytes } => {
            let end = offset + bytes.len();
            if data.len() < end {
                data.resize(end, 0);
            }
            data[*offset..end].copy_from_slice(bytes);
        }
        FileOp::Truncate { len } => data.resize(*len, 0),
    }
}

impl File {
    fn crash(&self, survival: Survival, torn_at: u64, rng: &mut Rng) -> Arc<Bytes> {
        let kill = matches!(survival, Survival::Everything | Survival::Data);
        if self.pending.is_empty() || kill {
            return if kill { self.live.clone() } else { self.durable.clone() };
        }
        let mut data = self.durable.data.clone();
        for (number, op) in &self.pending {
            match survival {
                Survival::Prefix { .. } if *number < torn_at => apply(&mut data, op),
                Survival::Prefix { .. } if *number == torn_at => tear(&mut data, op, 512, rng),
                // Most operations survive or vanish as a whole; some leave sectors, some only the file's new length.
                Survival::Any { sector, .. } | Survival::Ordered { sector, .. } => match rng.below(8) {
                    0..=2 => {}
                    3..=4 => apply(&mut data, op),
                    5..=6 => tear(&mut data, op, sector, rng),
                    _ => {
                        if let FileOp::Write { offset, bytes } = op
                            && data.len() < offset + bytes.len()
                        {
                            data.resize(offset + bytes.len(), 0);
                        }
                    }
                },
                _ => {}
            }
        }
        Bytes::new(data)
    }
}

/// Keeps any sectors of a write; a cut stays whole.
fn tear(data: &mut Vec<u8>, op: &FileOp, sector: usize, rng: &mut Rng) {
    let FileOp::Write { offset, bytes } = op else {
        if rng.chance(50) {
            apply(data, op);
        }
        return;
    };
    let (mut at, end) = (*offset, offset + bytes.len());
    while at < end {
        let piece_end = ((at / sector + 1) * sector).min(end);
        if rng.chance(50) {
            let piece: Arc<[u8]> = bytes[at - offset..piece_end - offset].into();
            apply(data, &FileOp::Write { offset: at, bytes: piece });
        }
        at = piece_end;
    }
}

/// Kinds of operations that change a disk or make changes durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Op {
    Create,
    Write,
    Truncate,
    SyncData,
    SyncDir,
    Rename,
    Remove,
    MakeDir,
}

/// What becomes of an operation.
enum Verdict {
    Go,
    /// Answered as done, and not done: what a removed call is.
    Skip,
    /// A rename that is two steps, the old name of the target gone first.
    Torn,
    Fail(io::Error),
    /// Half of a write, then the error.
    Half(io::Error),
}

/// An error that strikes at one operation.
#[derive(Clone, Copy, Debug)]
pub struct Fault {
    /// Number of the operation, counted from when the fault was set.
    pub at: u64,
    /// How many operations fail, from that one on.
    pub times: u64,
    pub kind: io::ErrorKind,
    /// A write leaves half of its bytes.
    pub half: bool,
}

struct Running {
    volume: Volume,
    operations: u64,
    fault: Option<(u64, Fault)>,
    faults_struck: u64,
    /// The state after every operation, while someone watches.
    captured: Option<Vec<(Op, Volume)>>,
    space_total: u64,
}

/// A disk in use.
pub struct Disk {
    running: Mutex<Running>,
    sites: Option<Arc<Sites>>,
    /// Told before every operation, reads included: where a schedule may switch.
    pub pause: Option<Box<dyn Fn() + Send + Sync>>,
}

/// What the volume claims to hold in all, bytes.
const SPACE_TOTAL: u64 = 1 << 40;

impl Disk {
    pub fn new(volume: Volume) -> Arc<Self> {
        Arc::new(Self::bare(volume, None))
    }

    /// With calls watched, and one of them left out.
    pub fn with_sites(volume: Volume, sites: Option<Arc<Sites>>) -> Arc<Self> {
        Arc::new(Self::bare(volume, sites))
    }

    pub fn bare(volume: Volume, sites: Option<Arc<Sites>>) -> Self {
        let running =
            Running { volume, operations: 0, fault: None, faults_struck: 0, captured: None, space_total: SPACE_TOTAL };
        Disk { running: Mutex::new(running), sites, pause: None }
    }

    pub fn volume(&self) -> Volume {
        self.running.lock().volume.clone()
    }

    /// Starts to keep the state after every operation.
    pub fn watch(&self) {
        self.running.lock().captured = Some(Vec::new());
    }

    /// What was kept since the last call.
    pub fn captured(&self) -> Vec<(Op, Volume)> {
        self.running.lock().captured.as_mut().map(std::mem::take).unwrap_or_default()
    }

    pub fn operations(&self) -> u64 {
        self.running.lock().operations
    }

    pub fn set_fault(&self, fault: Option<Fault>) {
        let mut running = self.running.lock();
        running.fault = fault.map(|fault| (running.operations, fault));
        running.faults_struck = 0;
    }

    pub fn faults_struck(&self) -> u64 {
        self.running.lock().faults_struck
    }

    fn pause(&self) {
        if let Some(pause) = &self.pause {
            pause();
        }
    }

    fn verdict(&self, running: &mut Running, op: Op, grows: u64) -> Verdict {
        running.operations += 1;
        if let Some((since, fault)) = running.fault {
            let number = running.operations - since - 1;
            if (fault.at..fault.at.saturating_add(fault.times)).contains(&number) {
                running.faults_struck += 1;
                let error = io::Error::new(fault.kind, "injected");
                return if fault.half { Verdict::Half(error) } else { Verdict::Fail(error) };
            }
        }
        if grows > 0 && running.space_total < SPACE_TOTAL && running.volume.live_bytes() + grows > running.space_total {
            return Verdict::Fail(io::ErrorKind::StorageFull.into());
        }
        match &self.sites {
            Some(sites) if matches!(op, Op::SyncData | Op::SyncDir | Op::Rename) && sites.leaves_out(op) => {
                if op == Op::Rename { Verdict::Torn } else { Verdict::Skip }
            }
            _ => Verdict::Go,
        }
    }

    fn change<T>(
        &self,
        op: Op,
        grows: u64,
        check: impl FnOnce(&Volume) -> io::Result<T>,
        change: impl FnOnce(&mut Volume, T, bool),
    ) -> io::Result<()> {
        self.pause();
        let mut running = self.running.lock();
        let checked = check(&running.volume)?;
        let verdict = self.verdict(&mut running, op, grows);
        let outcome = match verdict {
            Verdict::Go => {
                change(&mut running.volume, checked, false);
                Ok(())
            }
            Verdict::Skip => Ok(()),
            Verdict::Torn => {
                change(&mut running.volume, checked, true);
                Ok(())
            }
            Verdict::Fail(error) => Err(error),
            Verdict::Half(error) => {
                if op == Op::Write {
                    change(&mut running.volume, checked, true);
                }
                Err(error)
            }
        };
        let running = &mut *running;
        tracing::trace!(?op, "disk");
        if let Some(captured) = &mut running.captured {
            captured.push((op, running.volume.clone()));
        }
        outcome
    }
}

/// The disk as the engine sees it.
#[derive(Clone)]
pub struct SimVfs(pub Arc<Disk>);

struct SimFile {
    disk: Arc<Disk>,
    id: usize,
}

impl VfsFile for SimFile {
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let (id, offset) = (self.id, offset as usize);
        let grow = bytes.len() as u64;
        self.disk.change(
            Op::Write,
            grow,
            |_| Ok(()),
            |volume, (), half| {
                let bytes = if half { &bytes[..bytes.len() / 2] } else { bytes };
                volume.change_file(id, FileOp::Write { offset, bytes: bytes.into() });
            },
        )
    }
    fn read_at(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.disk.pause();
        let live = self.disk.running.lock().volume.files[self.id].live.clone();
        let offset = offset as usize;
        match live.data.get(offset..offset + out.len()) {
            Some(bytes) => out.copy_from_slice(bytes),
            None => return Err(io::ErrorKind::UnexpectedEof.into()),
        }
        Ok(())
    }
    fn sync_data(&self) -> io::Result<()> {
        let id = self.id;
        self.disk.change(Op::SyncData, 0, |_| Ok(()), |volume, (), _| volume.sync_file(id))
    }
    fn len(&self) -> io::Result<u64> {
        Ok(self.disk.running.lock().volume.files[self.id].live.data.len() as u64)
    }
    fn truncate(&self, len: u64) -> io::Result<()> {
        let id = self.id;
        self.disk.change(
            Op::Truncate,
            0,
            |_| Ok(()),
            |volume, (), _| {
                volume.change_file(id, FileOp::Truncate { len: len as usize });
            },
        )
    }
}

impl Vfs for SimVfs {
    fn create_new(&self, path: &Path) -> io::Result<Arc<dyn VfsFile>> {
        let mut created = 0;
        let check = |volume: &Volume| {
            let (dir, name) = volume.parent_and_name(path)?;
            if volume.dirs[dir].live.contains_key(&name) {
                return Err(io::ErrorKind::AlreadyExists.into());
            }
            Ok((dir, name))
        };
        self.0.change(Op::Create, 0, check, |volume, (dir, name), _| {
            volume.files.push(Arc::default());
            created = volume.files.len() - 1;
            volume.change_names(dir, vec![(name, Some(Entry::File(created)))]);
        })?;
        Ok(Arc::new(SimFile { disk: self.0.clone(), id: created }))
    }
    fn open(&self, path: &Path) -> io::Result<Arc<dyn VfsFile>> {
        self.0.pause();
        let id = self.0.running.lock().volume.file_of(path)?;
        Ok(Arc::new(SimFile { disk: self.0.clone(), id }))
    }
    fn open_write(&self, path: &Path) -> io::Result<Arc<dyn VfsFile>> {
        self.open(path)
    }
    fn sync_dir(&self, directory: &Path) -> io::Result<()> {
        self.0.change(Op::SyncDir, 0, |volume| volume.dir_of(directory), |volume, dir, _| volume.sync_names(dir))
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let check = |volume: &Volume| {
            let (from_dir, from_name) = volume.parent_and_name(from)?;
            let (to_dir, to_name) = volume.parent_and_name(to)?;
            let entry = *volume.dirs[from_dir].live.get(&from_name).ok_or(io::ErrorKind::NotFound)?;
            Ok((from_dir, from_name, to_dir, to_name, entry))
        };
        self.0.change(Op::Rename, 0, check, |volume, (from_dir, from_name, to_dir, to_name, entry), torn| {
            if torn || from_dir != to_dir {
                volume.change_names(to_dir, vec![(to_name.clone(), None)]);
                volume.change_names(from_dir, vec![(from_name, None)]);
                volume.change_names(to_dir, vec![(to_name, Some(entry))]);
            } else {
                volume.change_names(from_dir, vec![(from_name, None), (to_name, Some(entry))]);
            }
        })
    }
    fn remove_file(&self, path: &Path) -> io::Result<()> {
        let check = |volume: &Volume| {
            volume.file_of(path)?;
            volume.parent_and_name(path)
        };
        self.0.change(Op::Remove, 0, check, |volume, (dir, name), _| volume.change_names(dir, vec![(name, None)]))
    }
    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        let mut so_far = std::path::PathBuf::new();
        for part in path.components() {
            so_far.push(part);
            if !matches!(part, Component::Normal(_)) {
                continue;
            }
            let parent = so_far.parent().unwrap_or(Path::new("")).to_owned();
            let is_new = self.0.volume().dir_of(&so_far).is_err();
            if is_new {
                self.0.change(
                    Op::MakeDir,
                    0,
                    |volume| volume.parent_and_name(&so_far),
                    |volume, (dir, name), _| {
                        volume.dirs.push(Arc::default());
                        let made = volume.dirs.len() - 1;
                        volume.change_names(dir, vec![(name, Some(Entry::Dir(made)))]);
                    },
                )?;
            }
            if is_new || so_far == path {
                self.sync_dir(&parent)?;
            }
        }
        Ok(())
    }
    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        let check = |volume: &Volume| {
            let dir = volume.dir_of(path)?;
            if !volume.dirs[dir].live.is_empty() {
                return Err(io::ErrorKind::DirectoryNotEmpty.into());
            }
            volume.parent_and_name(path)
        };
        self.0.change(Op::Remove, 0, check, |volume, (dir, name), _| volume.change_names(dir, vec![(name, None)]))
    }
    fn list(&self, directory: &Path) -> io::Result<Vec<String>> {
        self.0.pause();
        let running = self.0.running.lock();
        match running.volume.dir_of(directory) {
            Ok(dir) => Ok(running.volume.dirs[dir].live.keys().map(|name| name.to_string()).collect()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            Err(error) => Err(error),
        }
    }
    fn space(&self, _: &Path) -> io::Result<Space> {
        let running = self.0.running.lock();
        let used = if running.space_total < SPACE_TOTAL { running.volume.live_bytes() } else { 0 };
        Ok(Space { free: running.space_total.saturating_sub(used), total: running.space_total })
    }
}
