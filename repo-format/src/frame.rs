//! A frame: one sealed object as bytes. The header describes it completely and carries a keyless checksum, so that
//! frames are found again after damage, scrubbed and copied without any key.

use crate::FormatError;
use crate::codec::Reader;
use crate::compress::{Codec, check_payload_len};
use crate::crypto::{Aead, NONCE_BYTES, TAG_BYTES};
use crate::id::{ObjectId, ObjectKind, VaultId};
use crate::keys::DataKey;
use crate::limits::{FRAME_BYTES_MAX, FRAME_OVERHEAD_BYTES, NODE_BYTES_MAX};

/// First bytes of every frame.
pub const FRAME_MAGIC: [u8; 4] = *b"HFF1";
/// Version of the frame this build reads and writes.
pub const FRAME_VERSION: u8 = 1;
/// Bytes of a frame header.
pub const FRAME_HEADER_BYTES: usize = 96;

/// Where the checksum begins: the header up to here is authenticated with the payload.
const AUTHENTICATED_BYTES: usize = 76;
/// Where the CRC begins.
const CRC_AT: usize = FRAME_HEADER_BYTES - 4;
/// Name of the structure in errors.
const FRAME: &str = "frame";
const HEADER: &str = "frame header";

const _: () = assert!(FRAME_OVERHEAD_BYTES == FRAME_HEADER_BYTES + TAG_BYTES);
const _: () = assert!(FRAME_BYTES_MAX < u32::MAX as usize);

/// What a frame says about itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FrameHeader {
    /// Chunk or node.
    pub kind: ObjectKind,
    /// How the payload is compressed.
    pub codec: Codec,
    /// Bytes of the plaintext.
    pub plain_len: u32,
    /// Bytes after the header: ciphertext and tag.
    pub stored_len: u32,
    /// Data epoch of the key that sealed it.
    pub key_epoch: u32,
    /// Id of the object.
    pub id: ObjectId,
    /// Random nonce of the encryption.
    pub nonce: [u8; NONCE_BYTES],
    /// First 16 bytes of the unkeyed BLAKE3 of the stored bytes.
    pub checksum: [u8; 16],
}

impl FrameHeader {
    /// Reads a header from the first 96 bytes of `bytes`. The CRC is checked before anything else, so a damaged
    /// header is [`FormatError::Checksum`], and only a whole one of another version is unsupported.
    pub fn parse(bytes: &[u8]) -> Result<Self, FormatError> {
        let header: &[u8; FRAME_HEADER_BYTES] = bytes.first_chunk().ok_or(FormatError::Truncated { what: HEADER })?;
        let mut reader = Reader::new(HEADER, header);
        if reader.array()? != FRAME_MAGIC {
            return Err(FormatError::BadMagic { what: HEADER });
        }
        if !crc_matches(header) {
            return Err(FormatError::Checksum { what: HEADER });
        }
        let version = reader.u8()?;
        if version != FRAME_VERSION {
            return Err(FormatError::UnsupportedVersion { what: FRAME, version: u32::from(version) });
        }
        let kind = ObjectKind::from_byte(reader.u8()?)?;
        let codec = Codec::from_byte(reader.u8()?)?;
        let flags = reader.u8()?;
        if flags != 0 {
            return Err(FormatError::UnsupportedFeatures { what: FRAME, bits: u32::from(flags) });
        }
        let header = FrameHeader {
            kind,
            codec,
            plain_len: reader.u32()?,
            stored_len: reader.u32()?,
            key_epoch: reader.u32()?,
            id: ObjectId::from_bytes(reader.array()?),
            nonce: reader.array()?,
            checksum: reader.array()?,
        };
        check_lengths(header.kind, header.codec, header.plain_len, header.stored_len)?;
        Ok(header)
    }

    /// As stored.
    pub fn encode(&self) -> [u8; FRAME_HEADER_BYTES] {
        let mut out = [0; FRAME_HEADER_BYTES];
        out[0..4].copy_from_slice(&FRAME_MAGIC);
        out[4] = FRAME_VERSION;
        out[5] = self.kind.byte();
        out[6] = self.codec.byte();
        out[8..12].copy_from_slice(&self.plain_len.to_le_bytes());
        out[12..16].copy_from_slice(&self.stored_len.to_le_bytes());
        out[16..20].copy_from_slice(&self.key_epoch.to_le_bytes());
        out[20..52].copy_from_slice(self.id.as_bytes());
        out[52..76].copy_from_slice(&self.nonce);
        out[76..92].copy_from_slice(&self.checksum);
        let crc = crc32c::crc32c(&out[..CRC_AT]);
        out[CRC_AT..].copy_from_slice(&crc.to_le_bytes());
        out
    }

    /// Bytes of the whole frame.
    pub const fn frame_len(&self) -> usize {
        FRAME_HEADER_BYTES + self.stored_len as usize
    }
}

fn crc_matches(header: &[u8; FRAME_HEADER_BYTES]) -> bool {
    let (covered, crc) = header.split_at(CRC_AT);
    crc32c::crc32c(covered).to_le_bytes() == crc
}

/// The rules on lengths that headers and trailer entries share.
pub(crate) fn check_lengths(
    kind: ObjectKind,
    codec: Codec,
    plain_len: u32,
    stored_len: u32,
) -> Result<(), FormatError> {
    let payload_len =
        stored_len.checked_sub(TAG_BYTES as u32).ok_or(FormatError::invalid(FRAME, "shorter than its tag"))?;
    if kind == ObjectKind::Node && plain_len as usize > NODE_BYTES_MAX {
        let value = u64::from(plain_len);
        return Err(FormatError::Limit { what: "node bytes", value, limit: NODE_BYTES_MAX as u64 });
    }
    check_payload_len(codec, u64::from(payload_len), plain_len)
}

/// The bytes that are authenticated with the payload: the vault, and the header up to and with the nonce. Not the
/// place, so that compaction copies frames as they are.
fn associated_data(vault: &VaultId, header: &[u8; FRAME_HEADER_BYTES]) -> [u8; 16 + AUTHENTICATED_BYTES] {
    let mut out = [0; 16 + AUTHENTICATED_BYTES];
    out[..16].copy_from_slice(vault.as_bytes());
    out[16..].copy_from_slice(&header[..AUTHENTICATED_BYTES]);
    out
}

/// First 16 bytes of the unkeyed BLAKE3 of `bytes`.
pub(crate) fn checksum_128(bytes: &[u8]) -> [u8; 16] {
    first_16(blake3::hash(bytes))
}

/// First 16 bytes of a hash.
pub(crate) fn first_16(hash: blake3::Hash) -> [u8; 16] {
    let mut out = [0; 16];
    for (to, from) in out.iter_mut().zip(hash.as_bytes()) {
        *to = *from;
    }
    out
}

/// Appends the frame of an object to `out` and gives its length. `payload` is compressed already, by `codec`, from
/// `plain_len` bytes that hash to `id`; `nonce` is random and used for nothing else. The payload is copied once and
/// encrypted where it then stands; on an error `out` is as it was.
#[expect(clippy::too_many_arguments, reason = "every one is a field of the header or a key")]
pub fn seal_frame(
    aead: &dyn Aead,
    vault: &VaultId,
    key: &DataKey,
    nonce: &[u8; NONCE_BYTES],
    kind: ObjectKind,
    codec: Codec,
    id: &ObjectId,
    plain_len: u32,
    payload: &[u8],
    out: &mut Vec<u8>,
) -> Result<usize, FormatError> {
    let stored_len = u32::try_from(payload.len() + TAG_BYTES).unwrap_or(u32::MAX);
    check_lengths(kind, codec, plain_len, stored_len)?;
    let header = FrameHeader {
        kind,
        codec,
        plain_len,
        stored_len,
        key_epoch: key.epoch,
        id: *id,
        nonce: *nonce,
        checksum: [0; 16],
    };
    let associated = associated_data(vault, &header.encode());

    let start = out.len();
    out.reserve(header.frame_len());
    out.extend_from_slice(&[0; FRAME_HEADER_BYTES]);
    out.extend_from_slice(payload);
    let payload_at = start + FRAME_HEADER_BYTES;
    let sealed = aead.seal_in_place(key.expose(), nonce, &associated, &mut out[payload_at..]);
    match sealed {
        Ok(tag) => out.extend_from_slice(&tag),
        Err(error) => {
            out.truncate(start);
            return Err(error);
        }
    }
    let checksum = checksum_128(&out[payload_at..]);
    out[start..payload_at].copy_from_slice(&FrameHeader { checksum, ..header }.encode());
    Ok(header.frame_len())
}

/// A frame within a buffer. Only its header and lengths have been checked.
#[derive(Clone, Copy, Debug)]
pub struct FrameView<'a> {
    /// What the frame says about itself.
    pub header: FrameHeader,
    /// Ciphertext and tag.
    pub stored: &'a [u8],
    raw_header: &'a [u8; FRAME_HEADER_BYTES],
}

impl<'a> FrameView<'a> {
    /// The frame at the start of `bytes`, which may go on after it. Checks magic, CRC, version and lengths.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, FormatError> {
        let header = FrameHeader::parse(bytes)?;
        let (raw_header, rest) = bytes.split_first_chunk().ok_or(FormatError::Truncated { what: HEADER })?;
        let stored = rest.get(..header.stored_len as usize).ok_or(FormatError::Truncated { what: FRAME })?;
        Ok(FrameView { header, stored, raw_header })
    }

    /// Checks the keyless checksum of the stored bytes. Needs no key; says nothing about who wrote them.
    pub fn verify_checksum(&self) -> Result<(), FormatError> {
        if checksum_128(self.stored) == self.header.checksum {
            Ok(())
        } else {
            Err(FormatError::Checksum { what: FRAME })
        }
    }

    /// The payload, still compressed, after authentication. One allocation of the stored length.
    pub fn open(&self, aead: &dyn Aead, vault: &VaultId, key: &DataKey) -> Result<Vec<u8>, FormatError> {
        let mut payload = Vec::new();
        self.open_into(aead, vault, key, &mut payload)?;
        Ok(payload)
    }

    /// As [`FrameView::open`], replacing the content of `payload`, whose memory is used again.
    pub fn open_into(
        &self,
        aead: &dyn Aead,
        vault: &VaultId,
        key: &DataKey,
        payload: &mut Vec<u8>,
    ) -> Result<(), FormatError> {
        payload.clear();
        if key.epoch != self.header.key_epoch {
            return Err(FormatError::invalid(FRAME, "sealed in another key epoch than the key given"));
        }
        let (ciphertext, tag) =
            self.stored.split_last_chunk::<TAG_BYTES>().ok_or(FormatError::Truncated { what: FRAME })?;
        payload.extend_from_slice(ciphertext);
        let associated = associated_data(vault, self.raw_header);
        aead.open_in_place(key.expose(), &self.header.nonce, &associated, payload, tag).map_err(|_| {
            payload.clear();
            FormatError::Authentication { what: FRAME }
        })
    }

    /// Bytes of the whole frame.
    pub const fn frame_len(&self) -> usize {
        self.header.frame_len()
    }
}

/// The first offset at or after `from` where a frame header with a right CRC begins. The header may still be of
/// another version or break another rule; a scan that stumbles over it goes on one byte later.
pub fn find_frame(bytes: &[u8], from: usize) -> Option<usize> {
    let mut at = from;
    loop {
        let rest = bytes.get(at..)?;
        at += rest.windows(FRAME_MAGIC.len()).position(|window| window == FRAME_MAGIC)?;
        let header: &[u8; FRAME_HEADER_BYTES] = bytes.get(at..)?.first_chunk()?;
        if crc_matches(header) {
            return Some(at);
        }
        at += 1;
    }
}

#[cfg(test)]
mod tests;
