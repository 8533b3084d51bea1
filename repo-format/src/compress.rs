//! Compression of one object's plaintext: zstd or nothing, with cheap detection of data that will not shrink, and
//! decompression that can never produce more than the length it was promised.

use crate::FormatError;
use crate::limits::CHUNK_BYTES_MAX;
use std::io::Cursor;

/// How a payload is compressed.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Codec {
    /// Stored as it is.
    Raw = 0,
    /// Exactly one zstd frame without a dictionary, always shorter than the plaintext.
    Zstd = 1,
}

impl Codec {
    /// From its byte on disk or wire.
    pub fn from_byte(byte: u8) -> Result<Self, FormatError> {
        match byte {
            0 => Ok(Codec::Raw),
            1 => Ok(Codec::Zstd),
            _ => Err(FormatError::invalid("codec", "unknown")),
        }
    }
    /// The byte on disk and wire.
    pub const fn byte(self) -> u8 {
        self as u8
    }
}

/// Plaintext shorter than this is compressed without looking at samples first, bytes.
const PROBE_FROM_BYTES: usize = 32 << 10;
/// One sample is taken from every so many bytes of the plaintext.
const PROBE_STRIDE_BYTES: usize = 16 << 10;
/// Bytes of one sample.
const PROBE_SAMPLE_BYTES: usize = 1 << 10;
/// The squares of the 256 byte counts of a sample add up to 5,116 on average if the bytes are uniformly random, with a
/// standard deviation of 90; to 16,384 for base64 and to more than 50,000 for text.
const PROBE_SQUARES_MAX: u32 = 5_700;

const _: () = assert!(PROBE_STRIDE_BYTES <= PROBE_FROM_BYTES && PROBE_SAMPLE_BYTES <= PROBE_STRIDE_BYTES);

/// A reusable compression context, one per thread.
pub struct Compressor {
    context: zstd::bulk::Compressor<'static>,
    probe: zstd::bulk::Compressor<'static>,
    sample: Vec<u8>,
    scratch: Vec<u8>,
}

impl Compressor {
    /// A context for zstd `level` (1 to 22; 3 is the default of the product). Fails only for want of memory.
    pub fn new(level: i32) -> Result<Self, FormatError> {
        let context = |level| {
            zstd::bulk::Compressor::new(level)
                .map_err(|_| FormatError::invalid("compressor", "the compression context cannot be created"))
        };
        Ok(Compressor { context: context(level)?, probe: context(1)?, sample: Vec::new(), scratch: Vec::new() })
    }

    /// The payload of `plaintext` in a buffer of exactly its size: zstd where that saves at least one part in 32,
    /// the plaintext itself otherwise. Plaintext above `CHUNK_BYTES_MAX` is refused.
    pub fn compress(&mut self, plaintext: &[u8]) -> Result<(Codec, Vec<u8>), FormatError> {
        let mut scratch = std::mem::take(&mut self.scratch);
        scratch.clear();
        let codec = self.shrink(plaintext, &mut scratch);
        let payload = match &codec {
            Ok(Codec::Zstd) => scratch.clone(),
            _ => plaintext.to_vec(),
        };
        self.scratch = scratch;
        Ok((codec?, payload))
    }

    /// As [`Compressor::compress`], appending the payload to `out`.
    pub fn compress_into(&mut self, plaintext: &[u8], out: &mut Vec<u8>) -> Result<Codec, FormatError> {
        let codec = self.shrink(plaintext, out)?;
        if codec == Codec::Raw {
            out.extend_from_slice(plaintext);
        }
        Ok(codec)
    }

    /// Appends the zstd frame to `out` if it is short enough; otherwise leaves `out` as it was and answers `Raw`.
    fn shrink(&mut self, plaintext: &[u8], out: &mut Vec<u8>) -> Result<Codec, FormatError> {
        check_plain_len(plaintext.len() as u64)?;
        let start = out.len();
        let longest = plaintext.len() - plaintext.len().div_ceil(32);
        if longest == 0 || self.looks_incompressible(plaintext) {
            return Ok(Codec::Raw);
        }
        out.reserve(longest);
        let mut cursor = Cursor::new(&mut *out);
        cursor.set_position(start as u64);
        // The only failure for valid input is an output that does not fit: not worth storing compressed.
        let written = self.context.compress_to_buffer(plaintext, &mut cursor).unwrap_or(usize::MAX);
        if written > longest {
            out.truncate(start);
            return Ok(Codec::Raw);
        }
        Ok(Codec::Zstd)
    }

    /// Looks at one sixteenth of the plaintext. If the bytes of no sample are worse than uniform, and the fastest level
    /// finds nothing that repeats between samples either, the full pass is not worth its time. Each sample is judged
    /// alone, so that a little text in much noise is seen; what repeats only over a long distance may be missed.
    fn looks_incompressible(&mut self, plaintext: &[u8]) -> bool {
        if plaintext.len() < PROBE_FROM_BYTES {
            return false;
        }
        self.sample.clear();
        for stride in plaintext.chunks_exact(PROBE_STRIDE_BYTES) {
            let sample = &stride[..PROBE_SAMPLE_BYTES];
            if squares_of_counts(sample) > PROBE_SQUARES_MAX {
                return false;
            }
            self.sample.extend_from_slice(sample);
        }
        self.scratch.clear();
        let longest = self.sample.len() - self.sample.len() / 128;
        self.scratch.reserve(longest);
        self.probe.compress_to_buffer(&self.sample, &mut self.scratch).unwrap_or(usize::MAX) > longest
    }
}

/// Sum of the squares of how often each byte value occurs: small when all occur equally often.
fn squares_of_counts(sample: &[u8]) -> u32 {
    let mut counts = [0u32; 256];
    for &byte in sample {
        counts[usize::from(byte)] += 1;
    }
    counts.iter().map(|count| count * count).sum()
}

/// A reusable decompression context, one per thread.
pub struct Decompressor {
    context: zstd::bulk::Decompressor<'static>,
}

impl Decompressor {
    /// A context. Fails only for want of memory.
    pub fn new() -> Result<Self, FormatError> {
        zstd::bulk::Decompressor::new()
            .map(|context| Decompressor { context })
            .map_err(|_| FormatError::invalid("decompressor", "the decompression context cannot be created"))
    }

    /// The plaintext of `payload`, which must be exactly `plain_len` bytes. Allocates `plain_len` bytes and never
    /// more than `CHUNK_BYTES_MAX`, whatever the payload claims to hold.
    pub fn decompress(&mut self, codec: Codec, payload: &[u8], plain_len: u32) -> Result<Vec<u8>, FormatError> {
        let mut plaintext = Vec::new();
        self.decompress_into(codec, payload, plain_len, &mut plaintext)?;
        Ok(plaintext)
    }

    /// As [`Decompressor::decompress`], giving a raw payload back without copying it.
    pub fn decompress_owned(&mut self, codec: Codec, payload: Vec<u8>, plain_len: u32) -> Result<Vec<u8>, FormatError> {
        match codec {
            Codec::Raw => check_payload(codec, &payload, plain_len).map(|()| payload),
            Codec::Zstd => self.decompress(codec, &payload, plain_len),
        }
    }

    /// As [`Decompressor::decompress`], replacing the content of `plaintext`, whose memory is used again.
    pub fn decompress_into(
        &mut self,
        codec: Codec,
        payload: &[u8],
        plain_len: u32,
        plaintext: &mut Vec<u8>,
    ) -> Result<(), FormatError> {
        plaintext.clear();
        check_payload(codec, payload, plain_len)?;
        plaintext.reserve_exact(plain_len as usize);
        if codec == Codec::Raw {
            plaintext.extend_from_slice(payload);
            return Ok(());
        }
        match self.context.decompress_to_buffer(payload, plaintext) {
            Ok(written) if written == plain_len as usize => Ok(()),
            Ok(_) => {
                plaintext.clear();
                Err(FormatError::invalid(PAYLOAD, "it decompresses to another length than declared"))
            }
            Err(_) => {
                plaintext.clear();
                Err(FormatError::invalid(PAYLOAD, "it does not decompress to the declared length"))
            }
        }
    }
}

/// Name of the structure in errors.
const PAYLOAD: &str = "compressed payload";

fn check_plain_len(plain_len: u64) -> Result<(), FormatError> {
    if plain_len > CHUNK_BYTES_MAX as u64 {
        return Err(FormatError::Limit { what: "plaintext bytes", value: plain_len, limit: CHUNK_BYTES_MAX as u64 });
    }
    Ok(())
}

/// The rules on lengths that hold for every payload, compressed or not, before a byte of it is decoded: a raw payload
/// is as long as its plaintext, a zstd payload shorter, and neither above the limit.
pub(crate) fn check_payload_len(codec: Codec, payload_len: u64, plain_len: u32) -> Result<(), FormatError> {
    check_plain_len(u64::from(plain_len))?;
    match codec {
        Codec::Raw if payload_len != u64::from(plain_len) => {
            Err(FormatError::invalid("raw payload", "its length is not the declared one"))
        }
        Codec::Zstd if payload_len >= u64::from(plain_len) => {
            Err(FormatError::invalid(PAYLOAD, "it is not shorter than its plaintext"))
        }
        _ => Ok(()),
    }
}

fn check_payload(codec: Codec, payload: &[u8], plain_len: u32) -> Result<(), FormatError> {
    check_payload_len(codec, payload.len() as u64, plain_len)?;
    // The length of what comes out is checked when it is out; zstd itself checks a content size that the frame declares.
    if codec == Codec::Zstd && zstd::zstd_safe::find_frame_compressed_size(payload) != Ok(payload.len()) {
        return Err(FormatError::invalid(PAYLOAD, "not exactly one zstd frame"));
    }
    Ok(())
}

/// [`Compressor::compress`] with a context of its own; loops keep a [`Compressor`].
pub fn compress(plaintext: &[u8], level: i32) -> Result<(Codec, Vec<u8>), FormatError> {
    Compressor::new(level)?.compress(plaintext)
}

/// [`Decompressor::decompress`] with a context of its own; loops keep a [`Decompressor`].
pub fn decompress(codec: Codec, payload: &[u8], plain_len: u32) -> Result<Vec<u8>, FormatError> {
    Decompressor::new()?.decompress(codec, payload, plain_len)
}

#[cfg(test)]
mod tests;
