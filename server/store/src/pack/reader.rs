//! Reading frames from packs: a bounded set of open files, and reads that lie close together in one call.

use super::{pack_path, packs_directory};
use crate::error::{At, StoreError};
use crate::meta::rows::{ObjectRow, Place};
use crate::sync::Mutex;
use crate::world::{Vfs, VfsFile};
use repo_format::FormatError;
use repo_format::crypto::Aead;
use repo_format::frame::FrameView;
use repo_format::id::{ObjectId, PackId, VaultId};
use repo_format::keyring::VaultKeys;
use std::collections::{HashMap, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Most pack files of one vault kept open for reading.
const OPEN_FILES_MAX: usize = 64;
/// Dropped packs remembered.
const DROPPED_MAX: usize = 64;
/// Gap between two frames that is read along rather than skipped, bytes.
const GAP_BYTES_MAX: u64 = 256 << 10;
/// Longest single read, bytes; one frame alone may be longer.
const READ_BYTES_MAX: u64 = 4 << 20;

/// Open files of one vault's packs.
pub(crate) struct PackFiles {
    vfs: Arc<dyn Vfs>,
    directory: PathBuf,
    open: Mutex<OpenFiles>,
}

#[derive(Default)]
struct OpenFiles {
    files: HashMap<PackId, Arc<dyn VfsFile>>,
    /// Packs dropped lately: a reader that opened one before its file went may not keep it open.
    dropped: VecDeque<PackId>,
}

impl PackFiles {
    pub(crate) fn new(vfs: Arc<dyn Vfs>, vault_directory: &Path) -> Self {
        PackFiles { vfs, directory: packs_directory(vault_directory), open: Mutex::default() }
    }

    fn file(&self, pack: &PackId) -> Result<Arc<dyn VfsFile>, StoreError> {
        if let Some(file) = self.open.lock().files.get(pack) {
            return Ok(file.clone());
        }
        let path = pack_path(&self.directory, pack);
        let file = match self.vfs.open(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Err(StoreError::PackMissing(*pack)),
            file => file.at(&path)?,
        };
        let mut open = self.open.lock();
        if open.dropped.contains(pack) {
            return Ok(file);
        }
        if open.files.len() >= OPEN_FILES_MAX {
            // Any victim will do: packs are read in runs, and opening one again is cheap.
            if let Some(victim) = open.files.keys().next().copied() {
                open.files.remove(&victim);
            }
        }
        open.files.insert(*pack, file.clone());
        Ok(file)
    }

    /// Closes a pack whose file is gone, so that its space comes back.
    pub(crate) fn forget(&self, pack: &PackId) {
        let mut open = self.open.lock();
        open.files.remove(pack);
        if open.dropped.len() >= DROPPED_MAX {
            open.dropped.pop_front();
        }
        open.dropped.push_back(*pack);
    }

    /// Reads the frames of `wanted` in the order of their places, joining reads that lie close together, and hands
    /// every frame's bytes to `each` with its index in `wanted`. A frame that cannot be read is handed over as the
    /// error; `each` decides whether to go on.
    pub(crate) fn read_frames(
        &self,
        wanted: &[Place],
        mut each: impl FnMut(usize, Result<&[u8], StoreError>) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        let mut order: Vec<usize> = (0..wanted.len()).collect();
        order.sort_unstable_by_key(|&index| wanted[index]);
        let mut buffer = Vec::new();
        let mut rest = order.as_slice();
        while let Some(&first) = rest.first() {
            let start = u64::from(wanted[first].offset);
            let mut end = wanted[first].end();
            let run = rest
                .iter()
                .skip(1)
                .take_while(|&&index| {
                    let next = &wanted[index];
                    let joins = next.pack == wanted[first].pack
                        && u64::from(next.offset) <= end + GAP_BYTES_MAX
                        && next.end().max(end) - start <= READ_BYTES_MAX;
                    if joins {
                        end = end.max(next.end());
                    }
                    joins
                })
                .count();
            let (group, after) = rest.split_at(run + 1);
            rest = after;
            self.read_group(wanted, group, start, end, &mut buffer, &mut each)?;
        }
        Ok(())
    }

    fn read_group(
        &self,
        wanted: &[Place],
        group: &[usize],
        start: u64,
        end: u64,
        buffer: &mut Vec<u8>,
        each: &mut impl FnMut(usize, Result<&[u8], StoreError>) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        let Some(&first) = group.first() else { return Ok(()) };
        let pack = wanted[first].pack;
        let path = pack_path(&self.directory, &pack);
        buffer.resize((end - start) as usize, 0);
        let read = self.file(&pack).and_then(|file| file.read_at(start, buffer).at(&path));
        if let Err(error) = read {
            if group.len() > 1 {
                // One bad sector must not hide its neighbours: each frame on its own.
                for &index in group {
                    let place = &wanted[index];
                    self.read_group(wanted, &[index], place.offset.into(), place.end(), buffer, each)?;
                }
                return Ok(());
            }
            return each(first, Err(error));
        }
        for &index in group {
            let place = &wanted[index];
            let at = (u64::from(place.offset) - start) as usize;
            each(index, Ok(&buffer[at..at + place.frame_len as usize]))?;
        }
        Ok(())
    }
}

/// Opens a frame that a row points to: it must be the object the row says, and authentic.
pub(crate) fn read_frame(
    bytes: &[u8],
    id: &ObjectId,
    row: &ObjectRow,
    aead: &dyn Aead,
    vault: &VaultId,
    keys: &VaultKeys,
) -> Result<Vec<u8>, FormatError> {
    let frame = FrameView::parse(bytes)?;
    let header = &frame.header;
    if header.id != *id || header.kind != row.kind || header.plain_len != row.plain_len || header.codec != row.codec {
        return Err(FormatError::invalid("frame", "another object than the index says"));
    }
    let key = keys.data_key(header.key_epoch).ok_or(FormatError::Authentication { what: "frame" })?;
    frame.open(aead, vault, key)
}
