//! Reading a whole pack without the index: by its trailer when it is sealed, frame by frame otherwise, past damage.

use super::pack_path;
use crate::error::{At, StoreError};
use crate::world::{Vfs, VfsFile};
use repo_format::FormatError;
use repo_format::compress::Codec;
use repo_format::frame::{FRAME_HEADER_BYTES, FrameView, find_frame};
use repo_format::id::{ObjectId, ObjectKind, PackId, VaultId};
use repo_format::limits::STRIPE_BYTES;
use repo_format::pack::{
    FOOTER_BYTES, Footer, PACK_HEADER_BYTES, PackHeader, PackKind, Trailer, TrailerBuilder, TrailerEntry,
};
use std::path::Path;
use std::sync::Arc;

/// A frame of a pack, found by trailer or scan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FoundFrame {
    pub(crate) id: ObjectId,
    pub(crate) kind: ObjectKind,
    pub(crate) codec: Codec,
    pub(crate) plain_len: u32,
    pub(crate) key_epoch: u32,
    pub(crate) offset: u32,
    pub(crate) frame_len: u32,
}

impl FoundFrame {
    /// First byte after the frame.
    pub(crate) const fn end(&self) -> u64 {
        self.offset as u64 + self.frame_len as u64
    }
}

impl From<&TrailerEntry> for FoundFrame {
    fn from(entry: &TrailerEntry) -> Self {
        FoundFrame {
            id: entry.id,
            kind: entry.kind,
            codec: entry.codec,
            plain_len: entry.plain_len,
            key_epoch: entry.key_epoch,
            offset: entry.offset,
            frame_len: entry.frame_len() as u32,
        }
    }
}

/// Whether a whole trailer says enough of the frames before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TrailerTrust {
    /// The frames were on disk, or looked at, after it was written.
    Trusted,
    /// Power may have gone before the pack was synced: a trailer survives where frames before it do not.
    Checked,
}

/// A pack as found on disk.
pub(crate) struct PackScan {
    pub(crate) kind: PackKind,
    /// Has a valid trailer.
    pub(crate) sealed: bool,
    /// Length of the file.
    pub(crate) file_len: u64,
    /// End of the last valid frame (or of the header).
    pub(crate) frames_end: u64,
    pub(crate) frames: Vec<FoundFrame>,
}

/// Reads what a pack holds. Without a valid trailer every frame whose keyless checksum matches is found, whatever lies
/// between. `None` when the file is not a pack of this vault with this id (a torn creation: no header).
pub(crate) fn scan_pack(
    vfs: &dyn Vfs,
    directory: &Path,
    vault: &VaultId,
    pack: &PackId,
    trust: TrailerTrust,
) -> Result<Option<PackScan>, StoreError> {
    let path = pack_path(directory, pack);
    let file = vfs.open(&path).at(&path)?;
    let file_len = file.len().at(&path)?;
    if file_len < PACK_HEADER_BYTES as u64 {
        return Ok(None);
    }
    let mut start = [0; PACK_HEADER_BYTES];
    file.read_at(0, &mut start).at(&path)?;
    let header = match PackHeader::parse(&start) {
        Ok(header) if header.vault == *vault && header.pack == *pack => Some(header),
        Ok(_) => return Err(FormatError::invalid("pack", "belongs to another vault or has another name")).at(&path),
        Err(FormatError::BadMagic { .. } | FormatError::Checksum { .. }) => None,
        Err(error) => return Err(error).at(&path),
    };
    let listed: Option<Vec<FoundFrame>> =
        read_trailer(&*file, file_len).at(&path)?.map(|trailer| trailer.entries.iter().map(FoundFrame::from).collect());
    let (sealed, frames) = match (listed, trust) {
        (Some(listed), TrailerTrust::Trusted) => (true, listed),
        (listed, _) => {
            let found = scan_frames(&read_readable(&*file, file_len));
            (listed.is_some_and(|listed| listed == found), found)
        }
    };
    // A header that is not there in front of frames that are is damage, not a torn creation.
    let kind = match (header, frames.first()) {
        (Some(header), _) => header.kind,
        (None, Some(frame)) => {
            tracing::error!(%vault, %pack, "the header of a pack is damaged; its frames are read all the same");
            PackKind::of(frame.kind)
        }
        (None, None) => return Ok(None),
    };
    let frames_end = frames.last().map_or(PACK_HEADER_BYTES as u64, |frame: &FoundFrame| frame.end());
    Ok(Some(PackScan { kind, sealed, file_len, frames_end, frames }))
}

/// The whole file, with zeros where the disk gives nothing.
pub(crate) fn read_readable(file: &dyn VfsFile, len: u64) -> Vec<u8> {
    let mut bytes = vec![0; usize::try_from(len).unwrap_or(0)];
    for (index, piece) in bytes.chunks_mut(STRIPE_BYTES as usize).enumerate() {
        if file.read_at(index as u64 * STRIPE_BYTES, piece).is_err() {
            piece.fill(0);
        }
    }
    bytes
}

/// The trailer, or `None` when the pack has none that is whole.
pub(crate) fn read_trailer(file: &dyn VfsFile, file_len: u64) -> Result<Option<Trailer>, FormatError> {
    let Some(footer_at) = file_len.checked_sub(FOOTER_BYTES as u64) else { return Ok(None) };
    let mut end = [0; FOOTER_BYTES];
    if file.read_at(footer_at, &mut end).is_err() {
        return Ok(None);
    }
    let footer = match Footer::parse(&end) {
        Ok(footer) if footer.file_len() == file_len => footer,
        Err(error @ FormatError::UnsupportedVersion { .. }) => return Err(error),
        _ => return Ok(None),
    };
    let mut bytes = vec![0; footer.trailer_len as usize];
    if file.read_at(footer.trailer_offset, &mut bytes).is_err() {
        return Ok(None);
    }
    match Trailer::parse(&bytes, &footer) {
        Ok(trailer) => Ok(Some(trailer)),
        Err(error @ (FormatError::UnsupportedVersion { .. } | FormatError::UnsupportedFeatures { .. })) => Err(error),
        Err(_) => Ok(None),
    }
}

/// Frames of a whole pack file whose keyless checksum matches.
pub(crate) fn scan_frames(bytes: &[u8]) -> Vec<FoundFrame> {
    let mut frames = Vec::new();
    let mut at = PACK_HEADER_BYTES;
    while let Some(offset) = find_frame(bytes, at) {
        let whole = FrameView::parse(&bytes[offset..]).and_then(|frame| frame.verify_checksum().map(|()| frame));
        match whole {
            Ok(frame) => {
                let header = &frame.header;
                frames.push(FoundFrame {
                    id: header.id,
                    kind: header.kind,
                    codec: header.codec,
                    plain_len: header.plain_len,
                    key_epoch: header.key_epoch,
                    offset: offset as u32,
                    frame_len: frame.frame_len() as u32,
                });
                at = offset + frame.frame_len();
            }
            Err(_) => at = offset + 1,
        }
    }
    frames
}

/// Makes a pack of which nothing can be read any more one without frames, so that it can be sealed. The caller syncs.
pub(crate) fn begin_again(
    vfs: &dyn Vfs,
    directory: &Path,
    vault: &VaultId,
    pack: &PackId,
    kind: PackKind,
) -> Result<PackScan, StoreError> {
    let path = pack_path(directory, pack);
    tracing::error!(%vault, %pack, "nothing in a pack can be read any more; its objects count as damaged");
    let file = vfs.open_write(&path).at(&path)?;
    let header = PackHeader { vault: *vault, pack: *pack, kind }.encode();
    file.truncate(0).at(&path)?;
    file.write_at(0, &header).at(&path)?;
    let len = header.len() as u64;
    Ok(PackScan { kind, sealed: false, file_len: len, frames_end: len, frames: Vec::new() })
}

/// Gives an adopted pack its trailer: cuts what follows the last valid frame and writes trailer and footer. The caller
/// syncs. Returns the file and its final length.
pub(crate) fn seal_adopted(
    vfs: &dyn Vfs,
    directory: &Path,
    pack: &PackId,
    scan: &PackScan,
) -> Result<(Arc<dyn VfsFile>, u64), StoreError> {
    let path = pack_path(directory, pack);
    let file = vfs.open_write(&path).at(&path)?;
    let mut bytes = vec![0; scan.frames_end as usize];
    file.read_at(0, &mut bytes).at(&path)?;
    let mut trailer = TrailerBuilder::new();
    trailer.feed(&bytes);
    for frame in &scan.frames {
        trailer.frame(TrailerEntry {
            id: frame.id,
            kind: frame.kind,
            codec: frame.codec,
            offset: frame.offset,
            stored_len: frame.frame_len - FRAME_HEADER_BYTES as u32,
            plain_len: frame.plain_len,
            key_epoch: frame.key_epoch,
        });
    }
    let trailer = trailer.finish().at(&path)?;
    file.truncate(scan.frames_end).at(&path)?;
    file.write_at(scan.frames_end, &trailer).at(&path)?;
    Ok((file, scan.frames_end + trailer.len() as u64))
}
