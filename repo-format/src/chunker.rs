//! Where data is cut into chunks. The cut points are part of the format: golden vectors pin them, so that a new version
//! of the `fastcdc` crate that moves one fails a test instead of storing everything again.

use crate::entry::Profile;
use crate::id::ContentHash;
use crate::keys::IdKeys;
use crate::limits::{BUNDLE_BYTES_MIN, BUNDLE_BYTES_SOFT_MAX};
use fastcdc::v2020::{Normalization, cut_gear, select_masks};

/// Chunk size of the `image` profile, bytes.
pub const IMAGE_CHUNK_BYTES: usize = 1 << 20;

/// Smallest, average and largest chunk of a content-defined profile, bytes. The last chunk of a file may be smaller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Sizes {
    min: usize,
    average: usize,
    max: usize,
}

const DEFAULT: Sizes = Sizes { min: 128 << 10, average: 512 << 10, max: 4 << 20 };
const FINE: Sizes = Sizes { min: 16 << 10, average: 64 << 10, max: 256 << 10 };

const _: () = assert!(DEFAULT.max == crate::limits::CHUNK_BYTES_MAX);
const _: () = assert!(IMAGE_CHUNK_BYTES <= crate::limits::CHUNK_BYTES_MAX);

enum Rule {
    Fixed,
    ContentDefined {
        sizes: Sizes,
        mask_small: u64,
        mask_large: u64,
        gear: Box<[u64; 256]>,
        gear_shifted: Box<[u64; 256]>,
    },
}

/// Finds cut points for one profile under one vault's gear table.
pub struct Chunker {
    rule: Rule,
}

impl Chunker {
    /// For `profile`; [`Profile::Bundle`] is cut at file ends by [`closes_bundle`] and behaves as `Default` here.
    pub fn new(keys: &IdKeys, profile: Profile) -> Self {
        let sizes = match profile {
            Profile::Image => return Chunker { rule: Rule::Fixed },
            Profile::Fine => FINE,
            Profile::Default | Profile::Bundle => DEFAULT,
        };
        let gear = gear_table(keys);
        let gear_shifted = Box::new(gear.map(|value| value << 1));
        let (mask_small, mask_large) = select_masks(sizes.average, Normalization::Level2);
        Chunker { rule: Rule::ContentDefined { sizes, mask_small, mask_large, gear, gear_shifted } }
    }

    /// Largest chunk, bytes: a buffer of this many bytes always yields a cut.
    pub const fn max(&self) -> usize {
        match &self.rule {
            Rule::Fixed => IMAGE_CHUNK_BYTES,
            Rule::ContentDefined { sizes, .. } => sizes.max,
        }
    }

    /// Length of the first chunk of `buffer`, or `None` when more bytes must come first (`buffer` is shorter than
    /// [`Chunker::max`] and the data has not ended) or none are left.
    pub fn cut(&self, buffer: &[u8], end_of_data: bool) -> Option<usize> {
        if buffer.is_empty() || (buffer.len() < self.max() && !end_of_data) {
            return None;
        }
        match &self.rule {
            Rule::Fixed => Some(buffer.len().min(IMAGE_CHUNK_BYTES)),
            Rule::ContentDefined { sizes, mask_small, mask_large, gear, gear_shifted } => {
                let (_, length) = cut_gear(
                    buffer,
                    sizes.min,
                    sizes.average,
                    sizes.max,
                    *mask_small,
                    *mask_large,
                    mask_small << 1,
                    mask_large << 1,
                    gear.as_slice(),
                    gear_shifted.as_slice(),
                );
                Some(length)
            }
        }
    }
}

/// 256 random words from the vault's gear key by BLAKE3's extendable output, little-endian.
fn gear_table(keys: &IdKeys) -> Box<[u64; 256]> {
    let mut bytes = [0u8; 256 * 8];
    blake3::Hasher::new_keyed(keys.gear()).finalize_xof().fill(&mut bytes);
    let mut table = Box::new([0u64; 256]);
    for (word, raw) in table.iter_mut().zip(bytes.as_chunks::<8>().0) {
        *word = u64::from_le_bytes(*raw);
    }
    table
}

/// Whether a bundle of small files ends after the file with hash `last_file`, holding `bytes` by then. Bundles are cut
/// at file ends only, by the files' own hashes: a changed file moves at most the cuts next to it.
pub fn closes_bundle(bytes: usize, last_file: &ContentHash) -> bool {
    // Files are about 10 KiB; one end in 32 gives about 320 KiB behind the minimum.
    const ONE_IN: u8 = 32;
    bytes >= BUNDLE_BYTES_SOFT_MAX || (bytes >= BUNDLE_BYTES_MIN && last_file.as_bytes()[0].is_multiple_of(ONE_IN))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys::VaultRootKey;

    fn keys(byte: u8) -> IdKeys {
        IdKeys::derive(&VaultRootKey::from_bytes([byte; 32]))
    }

    fn noise(len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        blake3::Hasher::new().update(b"holdfast chunker vectors").finalize_xof().fill(&mut bytes);
        bytes
    }

    fn cuts(chunker: &Chunker, data: &[u8]) -> Vec<usize> {
        let mut rest = data;
        let mut lengths = Vec::new();
        while let Some(length) = chunker.cut(rest, true) {
            lengths.push(length);
            rest = &rest[length..];
        }
        lengths
    }

    /// Golden vectors: these lengths may never change, or every backup would be stored again.
    #[test]
    fn cuts_are_frozen() {
        let data = noise(6 << 20);
        let vectors = include_str!("../tests/golden/v1/chunker.txt");
        let mut shown = String::new();
        for (name, profile) in [("default", Profile::Default), ("fine", Profile::Fine), ("image", Profile::Image)] {
            let lengths: Vec<String> =
                cuts(&Chunker::new(&keys(1), profile), &data).iter().map(usize::to_string).collect();
            shown += &format!("{name} {}\n", lengths.join(" "));
        }
        assert_eq!(shown, vectors, "cut points moved");
    }

    #[test]
    fn sizes_keep_their_bounds_and_cover_everything() {
        let data = noise(24 << 20);
        for (profile, min, max) in [(Profile::Default, DEFAULT.min, DEFAULT.max), (Profile::Fine, FINE.min, FINE.max)] {
            let lengths = cuts(&Chunker::new(&keys(2), profile), &data);
            assert_eq!(lengths.iter().sum::<usize>(), data.len());
            let (_, all_but_last) = lengths.split_last().unwrap();
            assert!(all_but_last.iter().all(|length| (min..=max).contains(length)));
        }
    }

    #[test]
    fn another_key_cuts_elsewhere() {
        let data = noise(8 << 20);
        assert_ne!(
            cuts(&Chunker::new(&keys(1), Profile::Fine), &data),
            cuts(&Chunker::new(&keys(2), Profile::Fine), &data)
        );
    }

    #[test]
    fn cuts_come_back_after_an_insertion() {
        let data = noise(8 << 20);
        let mut changed = data.clone();
        changed.splice(1 << 20..1 << 20, [1, 2, 3]);
        let chunker = Chunker::new(&keys(1), Profile::Fine);
        let ends = |lengths: Vec<usize>, total: usize| -> std::collections::HashSet<usize> {
            let mut at = 0;
            lengths
                .into_iter()
                .map(|length| {
                    at += length;
                    total - at
                })
                .collect()
        };
        let before = ends(cuts(&chunker, &data), data.len());
        let after = ends(cuts(&chunker, &changed), changed.len());
        assert!(before.intersection(&after).count() * 10 > before.len() * 8);
    }

    #[test]
    fn the_same_cuts_whatever_the_buffer() {
        let data = noise(9 << 20);
        let chunker = Chunker::new(&keys(3), Profile::Default);
        let whole = cuts(&chunker, &data);
        let (mut at, mut lengths) = (0, Vec::new());
        while at < data.len() {
            let end = (at + chunker.max()).min(data.len());
            let length = chunker.cut(&data[at..end], end == data.len()).unwrap();
            lengths.push(length);
            at += length;
        }
        assert_eq!(whole, lengths);
        assert_eq!(chunker.cut(&data[..chunker.max() - 1], false), None);
        assert_eq!(chunker.cut(&[], true), None);
    }
}
