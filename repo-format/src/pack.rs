//! A pack: header, frames one after the other, and, once sealed, a trailer that indexes them and a footer that finds
//! the trailer. A pack without a footer is unsealed and read by walking its frames.

use crate::FormatError;
use crate::codec::Reader;
use crate::compress::Codec;
use crate::features::Features;
use crate::frame::{FRAME_HEADER_BYTES, check_lengths, first_16};
use crate::id::{ObjectId, ObjectKind, PackId, VaultId};
use crate::limits::{PACK_FRAMES_MAX, STRIPE_BYTES};
use std::ops::Range;

/// First bytes of every pack.
pub const PACK_MAGIC: [u8; 8] = *b"HFPACK01";
/// Last bytes of every sealed pack.
pub const FOOTER_MAGIC: [u8; 8] = *b"HFPEND01";
/// First bytes of every trailer.
pub const TRAILER_MAGIC: [u8; 8] = *b"HFPTRL01";
/// Version of the pack this build reads and writes.
pub const PACK_VERSION: u16 = 1;
/// Bytes of a pack header; the first frame begins here.
pub const PACK_HEADER_BYTES: usize = 64;
/// Bytes of a footer.
pub const FOOTER_BYTES: usize = 64;
/// Bytes of one trailer entry.
pub const TRAILER_ENTRY_BYTES: usize = 52;
/// Bytes of a trailer before its entries.
const TRAILER_HEADER_BYTES: usize = 16;
/// Bytes of one stripe checksum.
const STRIPE_CHECKSUM_BYTES: usize = 16;
/// Most stripes of a pack: offsets are 32 bits.
const STRIPES_MAX: usize = ((u32::MAX as u64 + 1) / STRIPE_BYTES) as usize;
/// Largest trailer, bytes.
pub const TRAILER_BYTES_MAX: usize =
    TRAILER_HEADER_BYTES + PACK_FRAMES_MAX * TRAILER_ENTRY_BYTES + STRIPES_MAX * STRIPE_CHECKSUM_BYTES;

const HEADER: &str = "pack header";
const TRAILER: &str = "pack trailer";
const FOOTER: &str = "pack footer";

/// What the frames of a pack are; data and nodes lie apart.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum PackKind {
    /// Chunks.
    Data = 1,
    /// Nodes.
    Node = 2,
}

impl PackKind {
    /// From its byte on disk.
    pub fn from_byte(byte: u8) -> Result<Self, FormatError> {
        match byte {
            1 => Ok(PackKind::Data),
            2 => Ok(PackKind::Node),
            _ => Err(FormatError::invalid("pack kind", "unknown")),
        }
    }
    /// The byte on disk.
    pub const fn byte(self) -> u8 {
        self as u8
    }
    /// The pack kind that holds objects of `kind`.
    pub const fn of(kind: ObjectKind) -> Self {
        match kind {
            ObjectKind::Chunk => PackKind::Data,
            ObjectKind::Node => PackKind::Node,
        }
    }
}

/// The start of a pack file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PackHeader {
    /// The vault it belongs to.
    pub vault: VaultId,
    /// Its id, also its file name.
    pub pack: PackId,
    /// What it holds.
    pub kind: PackKind,
}

impl PackHeader {
    /// As stored.
    pub fn encode(&self) -> [u8; PACK_HEADER_BYTES] {
        let mut out = [0; PACK_HEADER_BYTES];
        out[0..8].copy_from_slice(&PACK_MAGIC);
        out[8..10].copy_from_slice(&PACK_VERSION.to_le_bytes());
        out[10] = self.kind.byte();
        out[12..24].copy_from_slice(&Features::default().to_bytes());
        out[24..40].copy_from_slice(self.vault.as_bytes());
        out[40..44].copy_from_slice(&self.pack.epoch.to_le_bytes());
        out[44..48].copy_from_slice(&self.pack.sequence.to_le_bytes());
        let crc = crc32c::crc32c(&out[..60]);
        out[60..].copy_from_slice(&crc.to_le_bytes());
        out
    }

    /// Reads the header from the first 64 bytes of `bytes`.
    pub fn parse(bytes: &[u8]) -> Result<Self, FormatError> {
        Self::parse_with_features(bytes).map(|(header, _)| header)
    }

    /// As [`PackHeader::parse`], with the feature bits, for those who want to write what builds on the pack.
    pub fn parse_with_features(bytes: &[u8]) -> Result<(Self, Features), FormatError> {
        let bytes: &[u8; PACK_HEADER_BYTES] = bytes.first_chunk().ok_or(FormatError::Truncated { what: HEADER })?;
        let mut reader = Reader::new(HEADER, bytes);
        if reader.array()? != PACK_MAGIC {
            return Err(FormatError::BadMagic { what: HEADER });
        }
        if crc32c::crc32c(&bytes[..60]).to_le_bytes() != bytes[60..] {
            return Err(FormatError::Checksum { what: HEADER });
        }
        let version = reader.u16()?;
        if version != PACK_VERSION {
            return Err(FormatError::UnsupportedVersion { what: "pack", version: u32::from(version) });
        }
        let kind = reader.u8()?;
        let _reserved = reader.u8()?;
        let features = Features::read(&mut reader, "pack")?;
        let header = PackHeader {
            vault: VaultId::from_bytes(reader.array()?),
            pack: PackId { epoch: reader.u32()?, sequence: reader.u32()? },
            kind: PackKind::from_byte(kind)?,
        };
        Ok((header, features))
    }
}

/// One frame of a pack, as its trailer lists it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TrailerEntry {
    /// Id of the object.
    pub id: ObjectId,
    /// Chunk or node.
    pub kind: ObjectKind,
    /// How the payload is compressed.
    pub codec: Codec,
    /// Where the frame's header begins, bytes from the start of the file.
    pub offset: u32,
    /// Bytes after the frame's header: ciphertext and tag.
    pub stored_len: u32,
    /// Bytes of the plaintext.
    pub plain_len: u32,
    /// Data epoch of the key that sealed it.
    pub key_epoch: u32,
}

impl TrailerEntry {
    /// Bytes of the whole frame.
    pub const fn frame_len(&self) -> usize {
        FRAME_HEADER_BYTES + self.stored_len as usize
    }

    /// First byte after the frame.
    pub const fn end(&self) -> u64 {
        self.offset as u64 + FRAME_HEADER_BYTES as u64 + self.stored_len as u64
    }

    fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.id.as_bytes());
        for word in [self.offset, self.stored_len, self.plain_len, self.key_epoch] {
            out.extend_from_slice(&word.to_le_bytes());
        }
        out.extend_from_slice(&[self.kind.byte(), self.codec.byte(), 0, 0]);
    }

    fn parse(reader: &mut Reader<'_>) -> Result<Self, FormatError> {
        let id = ObjectId::from_bytes(reader.array()?);
        let [offset, stored_len, plain_len, key_epoch] = [reader.u32()?, reader.u32()?, reader.u32()?, reader.u32()?];
        let [kind, codec, _, _] = reader.array()?;
        let (kind, codec) = (ObjectKind::from_byte(kind)?, Codec::from_byte(codec)?);
        check_lengths(kind, codec, plain_len, stored_len)?;
        Ok(TrailerEntry { id, kind, codec, offset, stored_len, plain_len, key_epoch })
    }
}

/// The rules between entries: ascending, apart from each other, between the pack's header and its trailer.
#[derive(Clone, Copy)]
struct Layout {
    end_of_last: u64,
    trailer_offset: u64,
}

impl Layout {
    fn new(trailer_offset: u64) -> Self {
        Layout { end_of_last: PACK_HEADER_BYTES as u64, trailer_offset }
    }

    fn place(&mut self, entry: &TrailerEntry) -> Result<(), FormatError> {
        if u64::from(entry.offset) < self.end_of_last || entry.end() > self.trailer_offset {
            return Err(FormatError::invalid(TRAILER, "frames overlap or are not in order"));
        }
        self.end_of_last = entry.end();
        Ok(())
    }
}

/// Collects what the trailer needs while a pack is written.
#[derive(Default)]
pub struct TrailerBuilder {
    entries: Vec<TrailerEntry>,
    stripes: Vec<[u8; STRIPE_CHECKSUM_BYTES]>,
    stripe: blake3::Hasher,
    /// Bytes fed.
    fed: u64,
}

impl TrailerBuilder {
    /// Before the first byte of the file.
    pub fn new() -> Self {
        Self::default()
    }

    /// Lists a frame; frames come in the order of their offsets. [`TrailerBuilder::finish`] checks the rules.
    pub fn frame(&mut self, entry: TrailerEntry) {
        self.entries.push(entry);
    }

    /// Frames listed.
    pub const fn frames(&self) -> usize {
        self.entries.len()
    }

    /// Bytes fed so far.
    pub const fn fed(&self) -> u64 {
        self.fed
    }

    /// The next bytes of the file, from offset 0, header included, in order and without gaps, in pieces of any size.
    pub fn feed(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let room = STRIPE_BYTES - self.fed % STRIPE_BYTES;
            let (piece, rest) = bytes.split_at(usize::try_from(room).map_or(bytes.len(), |room| room.min(bytes.len())));
            self.stripe.update(piece);
            self.fed += piece.len() as u64;
            if self.fed.is_multiple_of(STRIPE_BYTES) {
                self.close_stripe();
            }
            bytes = rest;
        }
    }

    fn close_stripe(&mut self) {
        self.stripes.push(first_16(self.stripe.finalize()));
        self.stripe.reset();
    }

    /// Trailer and footer, to be written right after the last byte fed. An error means that frames were listed that
    /// do not lie within the bytes fed, in order, or too many of them.
    pub fn finish(mut self) -> Result<Vec<u8>, FormatError> {
        if !self.fed.is_multiple_of(STRIPE_BYTES) {
            self.close_stripe();
        }
        check_counts(self.fed, self.entries.len() as u64, self.stripes.len() as u64)?;
        let trailer_len = trailer_len(self.entries.len(), self.stripes.len());
        let mut out = Vec::with_capacity(trailer_len + FOOTER_BYTES);
        out.extend_from_slice(&TRAILER_MAGIC);
        out.extend_from_slice(&(self.entries.len() as u32).to_le_bytes());
        out.extend_from_slice(&(self.stripes.len() as u32).to_le_bytes());
        let mut layout = Layout::new(self.fed);
        for entry in &self.entries {
            check_lengths(entry.kind, entry.codec, entry.plain_len, entry.stored_len)?;
            layout.place(entry)?;
            entry.encode(&mut out);
        }
        for stripe in &self.stripes {
            out.extend_from_slice(stripe);
        }
        let footer = Footer {
            trailer_offset: self.fed,
            trailer_len: trailer_len as u32,
            trailer_hash: *blake3::hash(&out).as_bytes(),
        };
        out.extend_from_slice(&footer.encode());
        Ok(out)
    }
}

const fn trailer_len(entries: usize, stripes: usize) -> usize {
    TRAILER_HEADER_BYTES + entries * TRAILER_ENTRY_BYTES + stripes * STRIPE_CHECKSUM_BYTES
}

fn check_counts(trailer_offset: u64, entries: u64, stripes: u64) -> Result<(), FormatError> {
    if trailer_offset > u64::from(u32::MAX) {
        return Err(FormatError::Limit { what: "pack bytes", value: trailer_offset, limit: u64::from(u32::MAX) });
    }
    if trailer_offset < PACK_HEADER_BYTES as u64 {
        return Err(FormatError::invalid(TRAILER, "begins before the end of the pack header"));
    }
    if entries > PACK_FRAMES_MAX as u64 {
        return Err(FormatError::Limit { what: "frames of a pack", value: entries, limit: PACK_FRAMES_MAX as u64 });
    }
    if stripes != trailer_offset.div_ceil(STRIPE_BYTES) {
        return Err(FormatError::invalid(TRAILER, "the number of stripes does not fit the length of the pack"));
    }
    Ok(())
}

/// The last 64 bytes of a sealed pack.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Footer {
    /// Where the trailer begins; every byte before it is covered by a stripe.
    pub trailer_offset: u64,
    /// Bytes of the trailer; the footer follows it.
    pub trailer_len: u32,
    /// BLAKE3 of the trailer.
    pub trailer_hash: [u8; 32],
}

impl Footer {
    fn encode(&self) -> [u8; FOOTER_BYTES] {
        let mut out = [0; FOOTER_BYTES];
        out[0..8].copy_from_slice(&self.trailer_offset.to_le_bytes());
        out[8..12].copy_from_slice(&self.trailer_len.to_le_bytes());
        out[12..44].copy_from_slice(&self.trailer_hash);
        out[44..46].copy_from_slice(&PACK_VERSION.to_le_bytes());
        let crc = crc32c::crc32c(&out[..52]);
        out[52..56].copy_from_slice(&crc.to_le_bytes());
        out[56..].copy_from_slice(&FOOTER_MAGIC);
        out
    }

    /// Reads the footer from exactly the last 64 bytes of a file. [`FormatError::BadMagic`] means an unsealed pack.
    pub fn parse(bytes: &[u8]) -> Result<Self, FormatError> {
        let bytes: &[u8; FOOTER_BYTES] = bytes.try_into().map_err(|_| FormatError::Truncated { what: FOOTER })?;
        if bytes[56..] != FOOTER_MAGIC {
            return Err(FormatError::BadMagic { what: FOOTER });
        }
        if crc32c::crc32c(&bytes[..52]).to_le_bytes() != bytes[52..56] {
            return Err(FormatError::Checksum { what: FOOTER });
        }
        let mut reader = Reader::new(FOOTER, bytes);
        let footer =
            Footer { trailer_offset: reader.u64()?, trailer_len: reader.u32()?, trailer_hash: reader.array()? };
        let version = reader.u16()?;
        if version != PACK_VERSION {
            return Err(FormatError::UnsupportedVersion { what: FOOTER, version: u32::from(version) });
        }
        if footer.trailer_len as usize > TRAILER_BYTES_MAX {
            let (value, limit) = (u64::from(footer.trailer_len), TRAILER_BYTES_MAX as u64);
            return Err(FormatError::Limit { what: "trailer bytes", value, limit });
        }
        if footer.trailer_offset > u64::from(u32::MAX) {
            let (value, limit) = (footer.trailer_offset, u64::from(u32::MAX));
            return Err(FormatError::Limit { what: "pack bytes", value, limit });
        }
        Ok(footer)
    }

    /// Bytes of the whole file; another length on disk means that the footer is not this file's.
    pub const fn file_len(&self) -> u64 {
        self.trailer_offset + self.trailer_len as u64 + FOOTER_BYTES as u64
    }
}

/// The index of a sealed pack.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Trailer {
    /// Its frames by offset. They may leave gaps: damage that was found when the pack was adopted.
    pub entries: Vec<TrailerEntry>,
    /// First 16 bytes of the unkeyed BLAKE3 of every stripe.
    pub stripes: Vec<[u8; 16]>,
    trailer_offset: u64,
}

impl Trailer {
    /// Reads the trailer from exactly the bytes that `footer` names.
    pub fn parse(bytes: &[u8], footer: &Footer) -> Result<Self, FormatError> {
        if bytes.len() != footer.trailer_len as usize {
            return Err(FormatError::Truncated { what: TRAILER });
        }
        if *blake3::hash(bytes).as_bytes() != footer.trailer_hash {
            return Err(FormatError::Checksum { what: TRAILER });
        }
        let mut reader = Reader::new(TRAILER, bytes);
        if reader.array()? != TRAILER_MAGIC {
            return Err(FormatError::BadMagic { what: TRAILER });
        }
        let (entry_count, stripe_count) = (reader.u32()?, reader.u32()?);
        check_counts(footer.trailer_offset, u64::from(entry_count), u64::from(stripe_count))?;
        if bytes.len() != trailer_len(entry_count as usize, stripe_count as usize) {
            return Err(FormatError::invalid(TRAILER, "its length does not fit its counts"));
        }
        let mut layout = Layout::new(footer.trailer_offset);
        let mut entries = Vec::with_capacity(entry_count as usize);
        for _ in 0..entry_count {
            let entry = TrailerEntry::parse(&mut reader)?;
            layout.place(&entry)?;
            entries.push(entry);
        }
        let mut stripes = Vec::with_capacity(stripe_count as usize);
        for _ in 0..stripe_count {
            stripes.push(reader.array()?);
        }
        reader.finish()?;
        Ok(Trailer { entries, stripes, trailer_offset: footer.trailer_offset })
    }

    /// The bytes of the file that stripe `index` covers; `None` past the last.
    pub fn stripe_range(&self, index: usize) -> Option<Range<u64>> {
        self.stripes.get(index)?;
        let start = index as u64 * STRIPE_BYTES;
        Some(start..(start + STRIPE_BYTES).min(self.trailer_offset))
    }

    /// Checks `bytes`, which must be exactly the bytes of [`Trailer::stripe_range`], against the stripe's checksum.
    pub fn verify_stripe(&self, index: usize, bytes: &[u8]) -> Result<(), FormatError> {
        let range = self.stripe_range(index).ok_or(FormatError::invalid("pack stripe", "no such stripe"))?;
        if bytes.len() as u64 != range.end - range.start {
            return Err(FormatError::Truncated { what: "pack stripe" });
        }
        match self.stripes.get(index) {
            Some(expected) if first_16(blake3::hash(bytes)) == *expected => Ok(()),
            _ => Err(FormatError::Checksum { what: "pack stripe" }),
        }
    }
}

#[cfg(test)]
mod tests;
