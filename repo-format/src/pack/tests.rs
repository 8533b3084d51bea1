//! Round trips, damage of every bit of a whole pack, and trailers that break a rule.

use super::*;
use crate::crypto::default_aead;
use crate::frame::{FrameView, seal_frame};
use crate::keys::DataKey;
use proptest::prelude::*;

const VAULT: VaultId = VaultId::from_bytes([7; 16]);

const HEADER_VALUE: PackHeader =
    PackHeader { vault: VAULT, pack: PackId { epoch: 3, sequence: 0x0102_0304 }, kind: PackKind::Data };

/// A whole pack with frames of these payload lengths, fed in pieces of `piece` bytes.
fn pack(payloads: &[usize], piece: usize) -> Vec<u8> {
    let mut file = HEADER_VALUE.encode().to_vec();
    let mut builder = TrailerBuilder::new();
    let key = DataKey::new(1, [4; 32]);
    for (number, &len) in payloads.iter().enumerate() {
        let payload = vec![number as u8; len];
        let id = ObjectId::from_bytes([number as u8; 32]);
        let offset = file.len() as u32;
        let nonce = [number as u8; 24];
        let (kind, codec) = (ObjectKind::Chunk, Codec::Raw);
        let plain_len = len as u32;
        seal_frame(default_aead(), &VAULT, &key, &nonce, kind, codec, &id, plain_len, &payload, &mut file).unwrap();
        let header = FrameView::parse(&file[offset as usize..]).unwrap().header;
        let (stored_len, key_epoch) = (header.stored_len, header.key_epoch);
        builder.frame(TrailerEntry { id, kind, codec, offset, stored_len, plain_len, key_epoch });
    }
    for piece in file.chunks(piece) {
        builder.feed(piece);
    }
    assert_eq!(builder.fed(), file.len() as u64);
    assert_eq!(builder.frames(), payloads.len());
    file.extend_from_slice(&builder.finish().unwrap());
    file
}

/// Reads everything that a pack says without a key and checks every byte of it.
fn verify(file: &[u8]) -> Result<Trailer, FormatError> {
    PackHeader::parse(file)?;
    let (body, footer) = file.split_last_chunk::<FOOTER_BYTES>().ok_or(FormatError::Truncated { what: "test" })?;
    let footer = Footer::parse(footer)?;
    if footer.file_len() != file.len() as u64 {
        return Err(FormatError::invalid("test", "file length"));
    }
    let trailer = Trailer::parse(&body[footer.trailer_offset as usize..], &footer)?;
    for index in 0..trailer.stripes.len() {
        let range = trailer.stripe_range(index).unwrap();
        trailer.verify_stripe(index, &body[range.start as usize..range.end as usize])?;
    }
    Ok(trailer)
}

/// A footer that fits `trailer`.
fn footer_for(trailer: &[u8], trailer_offset: u64) -> Footer {
    Footer { trailer_offset, trailer_len: trailer.len() as u32, trailer_hash: *blake3::hash(trailer).as_bytes() }
}

#[test]
fn layout() {
    let header = HEADER_VALUE.encode();
    assert_eq!(header[0..12], *b"HFPACK01\x01\x00\x01\x00");
    assert_eq!(header[12..24], [0; 12]);
    assert_eq!(header[24..40], [7; 16]);
    assert_eq!(header[40..48], [3, 0, 0, 0, 4, 3, 2, 1]);
    let file = pack(&[10], 7);
    let (trailer, footer) = file[64 + 96 + 26..].split_last_chunk::<64>().unwrap();
    assert_eq!(trailer.len(), 16 + 52 + 16);
    assert_eq!(trailer[0..16], *b"HFPTRL01\x01\0\0\0\x01\0\0\0");
    assert_eq!(trailer[16..48], [0; 32]);
    assert_eq!(trailer[48..68], [64, 0, 0, 0, 26, 0, 0, 0, 10, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0]);
    assert_eq!(trailer[68..84], blake3::hash(&file[..186]).as_bytes()[..16]);
    assert_eq!(footer[0..12], [186, 0, 0, 0, 0, 0, 0, 0, 84, 0, 0, 0]);
    assert_eq!(footer[12..44], *blake3::hash(trailer).as_bytes());
    assert_eq!(footer[44..46], [1, 0]);
    assert_eq!(footer[56..], *b"HFPEND01");
}

#[test]
fn every_flipped_bit_of_a_pack_is_detected() {
    let file = pack(&[3, 40], 1000);
    verify(&file).unwrap();
    for at in 0..file.len() {
        for bit in 0..8 {
            let mut damaged = file.clone();
            damaged[at] ^= 1 << bit;
            assert!(verify(&damaged).is_err(), "byte {at} bit {bit}");
        }
    }
}

#[test]
fn stripes_point_at_the_damage() {
    let file = pack(&[700_000, 300_000], 100_000);
    let trailer = verify(&file).unwrap();
    assert_eq!(trailer.stripes.len(), 4);
    assert_eq!(trailer.stripe_range(3), Some(786_432..1_000_288));
    assert_eq!(trailer.stripe_range(4), None);
    for at in [0, 262_143, 262_144, 999_999] {
        let mut damaged = file.clone();
        damaged[at] ^= 1;
        for index in 0..4 {
            let range = trailer.stripe_range(index).unwrap();
            let bytes = &damaged[range.start as usize..range.end as usize];
            let expected =
                if range.contains(&(at as u64)) { Err(FormatError::Checksum { what: "pack stripe" }) } else { Ok(()) };
            assert_eq!(trailer.verify_stripe(index, bytes), expected);
        }
    }
    assert!(trailer.verify_stripe(0, &file[..1000]).is_err());
    assert!(trailer.verify_stripe(4, &[]).is_err());
}

#[test]
fn a_stripe_ends_exactly_at_the_trailer() {
    let overhead = PACK_HEADER_BYTES + FRAME_HEADER_BYTES + 16;
    for (extra, stripes) in [(0, 1), (1, 2)] {
        let file = pack(&[STRIPE_BYTES as usize - overhead + extra], 4096);
        assert_eq!(verify(&file).unwrap().stripes.len(), stripes);
    }
    assert_eq!(verify(&pack(&[], 64)).unwrap().entries.len(), 0);
}

#[test]
fn a_trailer_that_breaks_a_rule_is_refused_on_both_sides() {
    let id = ObjectId::from_bytes([1; 32]);
    let (kind, codec) = (ObjectKind::Chunk, Codec::Raw);
    let entry =
        |offset, len: u32| TrailerEntry { id, kind, codec, offset, stored_len: len + 16, plain_len: len, key_epoch: 1 };
    let build = |fed: usize, entries: &[TrailerEntry]| {
        let mut builder = TrailerBuilder::new();
        builder.feed(&vec![0; fed]);
        entries.iter().for_each(|entry| builder.frame(*entry));
        builder.finish()
    };
    // A gap between frames is allowed: damage found by adoption.
    assert!(build(1000, &[entry(64, 10), entry(300, 10)]).is_ok());
    for (fed, entries) in [
        (1000, vec![entry(63, 10)]),
        (1000, vec![entry(64, 10), entry(100, 10)]),
        (1000, vec![entry(300, 10), entry(64, 10)]),
        (185, vec![entry(64, 10)]),
        (1000, vec![TrailerEntry { plain_len: 9, ..entry(64, 10) }]),
        (63, vec![]),
        (0, vec![]),
    ] {
        assert!(build(fed, &entries).is_err(), "{fed} {entries:?}");
        // The same as bytes, with a hash that is right.
        let stripes = (fed as u64).div_ceil(STRIPE_BYTES) as usize;
        let mut bytes = TRAILER_MAGIC.to_vec();
        bytes.extend_from_slice(&(entries.len() as u32).to_le_bytes());
        bytes.extend_from_slice(&(stripes as u32).to_le_bytes());
        entries.iter().for_each(|entry| entry.encode(&mut bytes));
        bytes.resize(bytes.len() + stripes * 16, 0);
        assert!(Trailer::parse(&bytes, &footer_for(&bytes, fed as u64)).is_err(), "{fed} {entries:?}");
    }
    let too_many: Vec<_> = (0..=PACK_FRAMES_MAX as u32).map(|number| entry(64 + number * 112, 0)).collect();
    let error = build(64 + too_many.len() * 112, &too_many).unwrap_err();
    assert!(matches!(error, FormatError::Limit { what: "frames of a pack", .. }));
    assert!(
        build(
            64 + (too_many.len() - 1) * 112,
            &too_many[1..]
                .iter()
                .map(|entry| TrailerEntry { offset: entry.offset - 112, ..*entry })
                .collect::<Vec<_>>()
        )
        .is_ok()
    );
}

#[test]
fn counts_are_bounded_before_anything_is_allocated() {
    for (entries, stripes) in [(u32::MAX, 1u32), (1, u32::MAX), (u32::MAX, u32::MAX), (0, 0), (0, 2)] {
        let mut bytes = TRAILER_MAGIC.to_vec();
        bytes.extend_from_slice(&entries.to_le_bytes());
        bytes.extend_from_slice(&stripes.to_le_bytes());
        assert!(Trailer::parse(&bytes, &footer_for(&bytes, 1000)).is_err());
    }
    let footer = |trailer_offset: u64, trailer_len: u32| {
        Footer::parse(&Footer { trailer_offset, trailer_len, trailer_hash: [0; 32] }.encode())
    };
    assert!(matches!(footer(u64::MAX, 100), Err(FormatError::Limit { .. })));
    assert!(matches!(footer(1000, u32::MAX), Err(FormatError::Limit { .. })));
    assert!(footer(u64::from(u32::MAX), TRAILER_BYTES_MAX as u32).is_ok());
}

#[test]
fn headers_of_another_time_have_their_own_errors() {
    let changed = |change: &dyn Fn(&mut [u8])| {
        let mut bytes = HEADER_VALUE.encode();
        change(&mut bytes);
        let crc = crc32c::crc32c(&bytes[..60]);
        bytes[60..].copy_from_slice(&crc.to_le_bytes());
        PackHeader::parse_with_features(&bytes)
    };
    let error = |change: &dyn Fn(&mut [u8])| changed(change).unwrap_err();
    assert_eq!(error(&|bytes| bytes[8] = 2), FormatError::UnsupportedVersion { what: "pack", version: 2 });
    assert_eq!(error(&|bytes| bytes[20] = 1), FormatError::UnsupportedFeatures { what: "pack", bits: 1 });
    assert_eq!(error(&|bytes| bytes[10] = 3), FormatError::invalid("pack kind", "unknown"));
    assert_eq!(error(&|bytes| bytes[0] = 0), FormatError::BadMagic { what: HEADER });
    // Compatible bits and reserved bytes of a later version do not stop a reader; read-only bits stop a writer.
    let (header, features) = changed(&|bytes| bytes[12..20].fill(1)).unwrap();
    assert_eq!(header, HEADER_VALUE);
    assert!(!features.may_write());
    let (header, features) = changed(&|bytes| (bytes[11], bytes[50], bytes[12]) = (9, 9, 9)).unwrap();
    assert_eq!(header, HEADER_VALUE);
    assert!(features.may_write());
    assert_eq!(PackHeader::parse(&HEADER_VALUE.encode()[..63]), Err(FormatError::Truncated { what: HEADER }));
    assert!(matches!(Footer::parse(&[0; 64]), Err(FormatError::BadMagic { .. })));
    assert!(matches!(Footer::parse(&[0; 63]), Err(FormatError::Truncated { .. })));
}

proptest! {
    #[test]
    fn round_trip(payloads in proptest::collection::vec(0usize..200_000, 0..6), piece in 1000usize..400_000) {
        let file = pack(&payloads, piece);
        let trailer = verify(&file).unwrap();
        prop_assert_eq!(trailer.entries.len(), payloads.len());
        for (entry, len) in trailer.entries.iter().zip(payloads) {
            let frame = FrameView::parse(&file[entry.offset as usize..]).unwrap();
            frame.verify_checksum().unwrap();
            prop_assert_eq!((frame.header.id, frame.header.plain_len as usize), (entry.id, len));
            prop_assert_eq!(entry.end(), u64::from(entry.offset) + frame.frame_len() as u64);
            prop_assert_eq!(entry.frame_len(), frame.frame_len());
        }
    }

    #[test]
    fn no_input_panics(
        header: [u8; 60],
        trailer in proptest::collection::vec(any::<u8>(), 0..400),
        trailer_offset: u64,
        counts: (u8, u8),
    ) {
        let _ = PackHeader::parse(&[header.as_slice(), &crc32c::crc32c(&header).to_le_bytes()].concat());
        let footer = [&header[..52], &crc32c::crc32c(&header[..52]).to_le_bytes(), &FOOTER_MAGIC].concat();
        let _ = Footer::parse(&footer).map(|footer| footer.file_len());
        let start = [TRAILER_MAGIC.as_slice(), &[counts.0, 0, 0, 0, counts.1, 0, 0, 0]].concat();
        for bytes in [trailer.clone(), [start, trailer].concat()] {
            let _ = Trailer::parse(&bytes, &footer_for(&bytes, trailer_offset));
            let _ = Trailer::parse(&bytes, &footer_for(&bytes, trailer_offset % 10_000_000));
        }
    }
}
