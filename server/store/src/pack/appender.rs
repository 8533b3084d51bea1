//! The packs a vault is writing: one open per kind, each with one ordered writer, so that what is written has no gaps.

use super::{pack_path, packs_directory};
use crate::error::{At, StoreError};
use crate::meta::rows::Place;
use crate::world::{VfsFile, World};
use repo_format::compress::Codec;
use repo_format::id::{ObjectId, ObjectKind, PackId, VaultId};
use repo_format::limits::PACK_FRAMES_MAX;
use repo_format::pack::{PackHeader, PackKind, TrailerBuilder, TrailerEntry};
use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

/// A sealed frame about to be appended.
pub(crate) struct NewFrame<'a> {
    pub(crate) id: ObjectId,
    pub(crate) kind: ObjectKind,
    pub(crate) codec: Codec,
    pub(crate) plain_len: u32,
    pub(crate) key_epoch: u32,
    /// Header, ciphertext and tag.
    pub(crate) bytes: &'a [u8],
}

/// A pack written by this process whose index row is not sealed yet.
struct Tracked {
    kind: PackKind,
    file: Arc<dyn VfsFile>,
    /// Bytes written without gaps.
    len: u64,
    /// Bytes known to be on disk.
    synced: u64,
    /// The directory entry is on disk.
    named: bool,
    /// Frames written whose row is neither written nor given up.
    unrecorded: u64,
    /// Bytes of all frames.
    frame_bytes: u64,
    /// The trailer is written: nothing more is appended.
    finished: bool,
}

/// A pack whose row may be marked sealed.
pub(crate) struct Sealable {
    pub(crate) pack: PackId,
    pub(crate) kind: PackKind,
    /// Length of the file.
    pub(crate) len: u64,
    /// Bytes of all its frames.
    pub(crate) frame_bytes: u64,
}

/// Running numbers of a vault's packs within one epoch, shared by all who create packs.
#[derive(Clone, Default)]
pub(crate) struct PackNumbers(Arc<AtomicU32>);

impl PackNumbers {
    fn next(&self) -> Option<u32> {
        self.0.fetch_add(1, Ordering::Relaxed).checked_add(1)
    }
}

struct Open {
    pack: PackId,
    trailer: TrailerBuilder,
}

/// What a barrier has to sync: read under the lock, synced outside it.
pub(crate) struct Dirty {
    pub(crate) pack: PackId,
    pub(crate) file: Arc<dyn VfsFile>,
    pub(crate) len: u64,
    pub(crate) named: bool,
}

/// Durable length by pack, for the packs of this process.
pub(crate) type Durable = HashMap<PackId, u64>;

/// Appends frames to a vault's open packs.
pub(crate) struct Appender {
    world: World,
    vault: VaultId,
    directory: PathBuf,
    bytes_target: u64,
    epoch: u32,
    numbers: PackNumbers,
    open: HashMap<PackKind, Open>,
    tracked: BTreeMap<PackId, Tracked>,
    closed: bool,
}

impl Appender {
    /// Packs get the epoch and the next of `numbers`, and are sealed at `bytes_target`.
    pub(crate) fn new(
        world: World,
        vault: VaultId,
        vault_directory: &Path,
        epoch: u32,
        numbers: PackNumbers,
        bytes_target: u64,
    ) -> Self {
        Appender {
            world,
            vault,
            directory: packs_directory(vault_directory),
            bytes_target,
            epoch,
            numbers,
            open: HashMap::new(),
            tracked: BTreeMap::new(),
            closed: false,
        }
    }

    fn open_pack(&mut self, kind: PackKind) -> Result<(), StoreError> {
        let spent = StoreError::Unknown("no pack numbers are left; restart the server");
        let pack = PackId { epoch: self.epoch, sequence: self.numbers.next().ok_or(spent)? };
        let path = pack_path(&self.directory, &pack);
        let file = self.world.vfs.create_new(&path).at(&path)?;
        let header = PackHeader { vault: self.vault, pack, kind }.encode();
        file.write_at(0, &header).at(&path)?;
        let mut trailer = TrailerBuilder::new();
        trailer.feed(&header);
        let len = header.len() as u64;
        let tracked =
            Tracked { kind, file, len, synced: 0, named: false, unrecorded: 0, frame_bytes: 0, finished: false };
        self.tracked.insert(pack, tracked);
        self.open.insert(kind, Open { pack, trailer });
        Ok(())
    }

    /// Appends one frame; received, not durable. On an error the pack named must be given up with
    /// [`Appender::poison`].
    pub(crate) fn append(&mut self, frame: &NewFrame<'_>) -> Result<Place, (Option<PackId>, StoreError)> {
        if self.closed {
            return Err((None, StoreError::Unknown("the vault was closed meanwhile")));
        }
        let kind = PackKind::of(frame.kind);
        let full = self.open.get(&kind).is_some_and(|open| {
            let len = self.tracked.get(&open.pack).map_or(0, |tracked| tracked.len);
            len + frame.bytes.len() as u64 > self.bytes_target || open.trailer.frames() >= PACK_FRAMES_MAX
        });
        if full {
            self.finish(kind)?;
        }
        if !self.open.contains_key(&kind) {
            self.open_pack(kind).map_err(|error| (None, error))?;
        }
        let gone = || (None, StoreError::Unknown("no pack is open"));
        let open = self.open.get_mut(&kind).ok_or_else(gone)?;
        let tracked = self.tracked.get_mut(&open.pack).ok_or_else(gone)?;
        let offset = tracked.len as u32;
        let path = pack_path(&self.directory, &open.pack);
        tracked.file.write_at(tracked.len, frame.bytes).at(&path).map_err(|error| (Some(open.pack), error))?;
        open.trailer.feed(frame.bytes);
        open.trailer.frame(TrailerEntry {
            id: frame.id,
            kind: frame.kind,
            codec: frame.codec,
            offset,
            stored_len: (frame.bytes.len() - repo_format::frame::FRAME_HEADER_BYTES) as u32,
            plain_len: frame.plain_len,
            key_epoch: frame.key_epoch,
        });
        tracked.len += frame.bytes.len() as u64;
        tracked.frame_bytes += frame.bytes.len() as u64;
        tracked.unrecorded += 1;
        Ok(Place { pack: open.pack, offset, frame_len: frame.bytes.len() as u32 })
    }

    /// Writes the trailer of the open pack of `kind`; the next frame opens another.
    pub(crate) fn finish(&mut self, kind: PackKind) -> Result<(), (Option<PackId>, StoreError)> {
        let Some(open) = self.open.remove(&kind) else { return Ok(()) };
        let path = pack_path(&self.directory, &open.pack);
        let Some(tracked) = self.tracked.get_mut(&open.pack) else { return Ok(()) };
        let failed = |error| (Some(open.pack), error);
        let trailer = open.trailer.finish().at(&path).map_err(failed)?;
        tracked.file.write_at(tracked.len, &trailer).at(&path).map_err(failed)?;
        tracked.len += trailer.len() as u64;
        tracked.finished = true;
        Ok(())
    }

    /// Finishes every open pack, for a clean shutdown.
    pub(crate) fn finish_all(&mut self) -> Result<(), (Option<PackId>, StoreError)> {
        for kind in [PackKind::Data, PackKind::Node] {
            self.finish(kind)?;
        }
        Ok(())
    }

    /// Packs with bytes that are not on disk, with the gap-free length to sync.
    pub(crate) fn dirty(&self) -> Vec<Dirty> {
        let dirty = self.tracked.iter().filter(|(_, tracked)| tracked.synced < tracked.len || !tracked.named);
        dirty
            .map(|(pack, tracked)| Dirty {
                pack: *pack,
                file: tracked.file.clone(),
                len: tracked.len,
                named: tracked.named,
            })
            .collect()
    }

    /// `len` bytes of `pack` and its name are on disk.
    pub(crate) fn synced(&mut self, pack: &PackId, len: u64) {
        if let Some(tracked) = self.tracked.get_mut(pack) {
            tracked.synced = tracked.synced.max(len);
            tracked.named = true;
        }
    }

    /// What is durable now.
    pub(crate) fn durable(&self) -> Durable {
        self.tracked
            .iter()
            .filter(|(_, tracked)| tracked.named)
            .map(|(pack, tracked)| (*pack, tracked.synced))
            .collect()
    }

    /// Whether the pack is still being tracked, that is, was not given up.
    pub(crate) fn tracks(&self, pack: &PackId) -> bool {
        self.tracked.contains_key(pack)
    }

    /// Rows of `frames` frames of `pack` have been composed, or the frames have been given up as duplicates.
    pub(crate) fn recorded(&mut self, pack: &PackId, frames: u64) {
        if let Some(tracked) = self.tracked.get_mut(pack) {
            tracked.unrecorded = tracked.unrecorded.saturating_sub(frames);
        }
    }

    /// Packs that are complete, on disk and fully recorded: the batch that is being composed may mark them sealed.
    pub(crate) fn sealable(&self) -> Vec<Sealable> {
        let done = self.tracked.iter().filter(|(_, tracked)| {
            tracked.finished && tracked.named && tracked.synced == tracked.len && tracked.unrecorded == 0
        });
        done.map(|(pack, tracked)| Sealable {
            pack: *pack,
            kind: tracked.kind,
            len: tracked.len,
            frame_bytes: tracked.frame_bytes,
        })
        .collect()
    }

    /// Packs that take frames, with the bytes of their frames so far.
    pub(crate) fn open_packs(&self) -> Vec<(PackId, PackKind, u64)> {
        let open = self.open.iter();
        open.map(|(kind, open)| (open.pack, *kind, self.tracked.get(&open.pack).map_or(0, |pack| pack.frame_bytes)))
            .collect()
    }

    /// Bytes of all frames in packs whose rows are not sealed.
    pub(crate) fn frame_bytes(&self) -> u64 {
        self.tracked.values().map(|tracked| tracked.frame_bytes).sum()
    }

    /// Its row is sealed: nothing more to track.
    pub(crate) fn sealed(&mut self, pack: &PackId) {
        self.tracked.remove(pack);
    }

    /// Nothing is written from now on; what is open stays as it is.
    pub(crate) fn close(&mut self) {
        self.closed = true;
        self.open.clear();
        self.tracked.clear();
    }

    /// Gives a pack up after a failed write or sync: it is never written or synced again.
    pub(crate) fn poison(&mut self, pack: &PackId) {
        self.tracked.remove(pack);
        self.open.retain(|_, open| open.pack != *pack);
    }
}
