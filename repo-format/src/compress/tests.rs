//! Round trips, the limits of decompression, and what is left uncompressed.

use super::*;
use proptest::prelude::*;

/// Bytes that look random, the same for the same seed.
fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}

fn text(len: usize) -> Vec<u8> {
    (0..).flat_map(|line: u32| format!("line {line} of a file that repeats itself\n").into_bytes()).take(len).collect()
}

#[test]
fn text_shrinks_and_comes_back() {
    let plaintext = text(300_000);
    let (codec, payload) = compress(&plaintext, 3).unwrap();
    assert_eq!(codec, Codec::Zstd);
    assert!(payload.len() < plaintext.len() / 5);
    assert_eq!(decompress(codec, &payload, plaintext.len() as u32).unwrap(), plaintext);
}

#[test]
fn noise_is_stored_as_it_is_without_a_full_pass() {
    let mut compressor = Compressor::new(3).unwrap();
    for len in [0, 1, 31, 32, 33, 1000, PROBE_FROM_BYTES - 1, PROBE_FROM_BYTES, 100_001, CHUNK_BYTES_MAX] {
        let plaintext = noise(len as u64, len);
        assert_eq!(compressor.compress(&plaintext).unwrap(), (Codec::Raw, plaintext.clone()), "{len}");
        assert_eq!(compressor.looks_incompressible(&plaintext), len >= PROBE_FROM_BYTES, "{len}");
        assert_eq!(decompress(Codec::Raw, &plaintext, len as u32).unwrap(), plaintext);
    }
}

#[test]
fn the_probe_sees_text_between_noise() {
    let mut compressor = Compressor::new(3).unwrap();
    // One piece of 32 KiB is text, wherever it stands: worth compressing.
    for at in [0, 100 << 10, 480 << 10] {
        let mut plaintext = noise(1, 512 << 10);
        plaintext[at..at + (32 << 10)].copy_from_slice(&text(32 << 10));
        let (codec, payload) = compressor.compress(&plaintext).unwrap();
        assert_eq!(codec, Codec::Zstd);
        assert!(payload.len() < plaintext.len() - (20 << 10));
    }
    // Uniform bytes in which every kilobyte repeats: only the second look tells them from noise.
    let repeated = noise(2, 1 << 10).repeat(64);
    assert!(squares_of_counts(&repeated[..PROBE_SAMPLE_BYTES]) <= PROBE_SQUARES_MAX);
    assert!(!compressor.looks_incompressible(&repeated));
    assert_eq!(compressor.compress(&repeated).unwrap().0, Codec::Zstd);
}

#[test]
fn saving_less_than_one_part_in_32_is_not_worth_it() {
    // Noise with just enough zeros at the end to save a little less, and a little more, than 1/32.
    let mut compressor = Compressor::new(3).unwrap();
    let len = 16 << 10;
    for (zeros, expected) in [(300, Codec::Raw), (1000, Codec::Zstd)] {
        let mut plaintext = noise(3, len);
        plaintext[len - zeros..].fill(0);
        let (codec, payload) = compressor.compress(&plaintext).unwrap();
        assert_eq!(codec, expected);
        assert!(codec == Codec::Raw || payload.len() <= len - len / 32);
    }
}

#[test]
fn a_bomb_costs_no_memory_and_is_refused() {
    // A legal zstd frame of 1 GiB of zeros, made by a streaming writer that does not declare its length.
    let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), 1).unwrap();
    encoder.include_contentsize(false).unwrap();
    let zeros = vec![0; 1 << 20];
    for _ in 0..1024 {
        std::io::Write::write_all(&mut encoder, &zeros).unwrap();
    }
    let bomb = encoder.finish().unwrap();
    let plain_len = bomb.len() as u32 + 1;
    let mut plaintext = Vec::new();
    let error = Decompressor::new().unwrap().decompress_into(Codec::Zstd, &bomb, plain_len, &mut plaintext);
    assert!(matches!(error, Err(FormatError::Invalid { .. })), "{error:?}");
    assert!(plaintext.is_empty());
    assert!(plaintext.capacity() <= plain_len as usize);
    let error = decompress(Codec::Zstd, &bomb, CHUNK_BYTES_MAX as u32).unwrap_err();
    assert!(matches!(error, FormatError::Invalid { .. }), "{error}");
    // The declared length itself is bounded before anything is allocated.
    for codec in [Codec::Raw, Codec::Zstd] {
        let error = decompress(codec, &bomb, u32::MAX).unwrap_err();
        let limit = CHUNK_BYTES_MAX as u64;
        assert_eq!(error, FormatError::Limit { what: "plaintext bytes", value: u64::from(u32::MAX), limit });
    }
}

#[test]
fn plaintext_above_the_limit_is_refused() {
    let error = compress(&vec![0; CHUNK_BYTES_MAX + 1], 3).unwrap_err();
    assert!(matches!(error, FormatError::Limit { .. }), "{error}");
    let (codec, payload) = compress(&vec![0; CHUNK_BYTES_MAX], 3).unwrap();
    assert_eq!(decompress(codec, &payload, CHUNK_BYTES_MAX as u32).unwrap().len(), CHUNK_BYTES_MAX);
}

#[test]
fn only_exactly_one_frame_of_exactly_the_length_is_read() {
    let plaintext = text(50_000);
    let (codec, payload) = compress(&plaintext, 3).unwrap();
    assert_eq!(codec, Codec::Zstd);
    let refused = |payload: &[u8], plain_len: usize, why: &str| {
        let result = decompress(Codec::Zstd, payload, plain_len as u32);
        assert!(matches!(result, Err(FormatError::Invalid { .. })), "{why}: {result:?}");
    };
    refused(&payload, plaintext.len() - 1, "longer than declared");
    refused(&payload, plaintext.len() + 1, "shorter than declared");
    refused(&payload[..payload.len() - 1], plaintext.len(), "cut");
    refused(&[payload.as_slice(), b"x"].concat(), plaintext.len(), "a byte after the frame");
    refused(&payload.repeat(2), 2 * plaintext.len(), "two frames");
    let skippable = [0x50, 0x2a, 0x4d, 0x18, 4, 0, 0, 0, 1, 2, 3, 4];
    refused(&[skippable.as_slice(), &payload].concat(), plaintext.len(), "a skippable frame before");
    refused(&[payload.as_slice(), &skippable].concat(), plaintext.len(), "a skippable frame after");
    refused(&skippable, 100, "only a skippable frame");
    refused(b"", 1, "empty");
    refused(&text(100), 1000, "not zstd");
    // A frame that does not declare its length is read, and must still be of exactly the length.
    let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), 3).unwrap();
    encoder.include_contentsize(false).unwrap();
    std::io::Write::write_all(&mut encoder, &plaintext).unwrap();
    let undeclared = encoder.finish().unwrap();
    assert_eq!(decompress(Codec::Zstd, &undeclared, plaintext.len() as u32).unwrap(), plaintext);
    refused(&undeclared, plaintext.len() - 1, "undeclared, longer");
    refused(&undeclared, plaintext.len() + 1, "undeclared, shorter");
    // A zstd frame that is not shorter than its plaintext is never written, so it is not read either.
    let mut grown = Vec::with_capacity(200);
    zstd::bulk::Compressor::new(3).unwrap().compress_to_buffer(&noise(9, 100), &mut grown).unwrap();
    refused(&grown, 100, "not shorter");
    let raw = decompress(Codec::Raw, &plaintext, plaintext.len() as u32 - 1);
    assert!(matches!(raw, Err(FormatError::Invalid { .. })));
}

#[test]
fn contexts_carry_nothing_from_one_object_to_the_next() {
    let mut compressor = Compressor::new(3).unwrap();
    let mut decompressor = Decompressor::new().unwrap();
    let mut buffer = Vec::new();
    for len in [500_000, 10, 40_000, 0, 500_000] {
        let plaintext = text(len);
        let (codec, payload) = compressor.compress(&plaintext).unwrap();
        assert_eq!(compress(&plaintext, 3).unwrap(), (codec, payload.clone()));
        decompressor.decompress_into(codec, &payload, len as u32, &mut buffer).unwrap();
        assert_eq!(buffer, plaintext);
        // A failure in between leaves the context usable.
        assert!(decompressor.decompress(Codec::Zstd, &payload[..payload.len() / 2], len as u32 + 1).is_err());
        assert_eq!(decompressor.decompress_owned(codec, payload, len as u32).unwrap(), plaintext);
    }
}

proptest! {
    #[test]
    fn everything_comes_back(
        pieces in proptest::collection::vec((any::<u8>(), 1usize..4000, any::<bool>()), 0..20),
        level in 1i32..6,
        before in proptest::collection::vec(any::<u8>(), 0..50),
    ) {
        let plaintext: Vec<u8> = pieces
            .iter()
            .flat_map(|&(byte, len, random)| if random { noise(u64::from(byte), len) } else { vec![byte; len] })
            .collect();
        let mut compressor = Compressor::new(level).unwrap();
        let (codec, payload) = compressor.compress(&plaintext).unwrap();
        prop_assert!(payload.len() <= plaintext.len());
        prop_assert_eq!(codec == Codec::Raw, payload.len() == plaintext.len());
        prop_assert_eq!(&decompress(codec, &payload, plaintext.len() as u32).unwrap(), &plaintext);
        let mut out = before.clone();
        prop_assert_eq!(compressor.compress_into(&plaintext, &mut out).unwrap(), codec);
        prop_assert_eq!(out, [before, payload].concat());
    }

    #[test]
    fn no_payload_panics(payload in proptest::collection::vec(any::<u8>(), 0..300), plain_len in 0u32..2000) {
        let mut payload = payload;
        for magic in [false, true] {
            if magic {
                payload.splice(..payload.len().min(4), [0x28, 0xb5, 0x2f, 0xfd]);
            }
            if let Ok(plaintext) = decompress(Codec::Zstd, &payload, plain_len) {
                prop_assert_eq!(plaintext.len(), plain_len as usize);
            }
        }
    }
}
