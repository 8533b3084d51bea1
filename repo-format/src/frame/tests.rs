//! Round trips, damage of every bit, and resynchronisation.

use super::*;
use crate::crypto::{AwsLc, Portable, default_aead};
use crate::limits::CHUNK_BYTES_MAX;
use proptest::prelude::*;

const VAULT: VaultId = VaultId::from_bytes([7; 16]);
const ID: ObjectId = ObjectId::from_bytes([9; 32]);
const NONCE: [u8; NONCE_BYTES] = [3; NONCE_BYTES];

fn key() -> DataKey {
    DataKey::new(5, [4; 32])
}

fn sealed(payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let len = payload.len() as u32;
    let frame_len =
        seal_frame(&AwsLc, &VAULT, &key(), &NONCE, ObjectKind::Chunk, Codec::Raw, &ID, len, payload, &mut out).unwrap();
    assert_eq!(frame_len, out.len());
    out
}

/// A header with a right CRC, whatever `change` does to it.
fn changed_header(frame: &[u8], change: impl Fn(&mut [u8])) -> Vec<u8> {
    let mut frame = frame.to_vec();
    change(&mut frame);
    let crc = crc32c::crc32c(&frame[..CRC_AT]);
    frame[CRC_AT..FRAME_HEADER_BYTES].copy_from_slice(&crc.to_le_bytes());
    frame
}

#[test]
fn layout_of_the_header() {
    let frame = sealed(b"payload");
    assert_eq!(frame.len(), 96 + 7 + 16);
    assert_eq!(frame[0..8], *b"HFF1\x01\x01\x00\x00");
    assert_eq!(frame[8..20], [7, 0, 0, 0, 23, 0, 0, 0, 5, 0, 0, 0]);
    assert_eq!(frame[20..52], [9; 32]);
    assert_eq!(frame[52..76], [3; 24]);
    assert_eq!(frame[76..92], blake3::hash(&frame[96..]).as_bytes()[..16]);
    assert_eq!(frame[92..96], crc32c::crc32c(&frame[..92]).to_le_bytes());
    // The ciphertext is XAES-256-GCM of the payload, bound to the vault and the header up to the nonce.
    let mut expected = b"payload".to_vec();
    let associated = [&[7; 16], &frame[..76]].concat();
    Portable.seal(&[4; 32], &NONCE, &associated, &mut expected).unwrap();
    assert_eq!(frame[96..], expected);
}

#[test]
fn every_flipped_bit_is_detected_with_and_without_the_key() {
    let frame = sealed(b"some payload of a few bytes");
    for at in 0..frame.len() {
        for bit in 0..8 {
            let mut damaged = frame.clone();
            damaged[at] ^= 1 << bit;
            let keyless = FrameView::parse(&damaged).and_then(|view| view.verify_checksum());
            assert!(keyless.is_err(), "byte {at} bit {bit}");
            let keyed = FrameView::parse(&damaged).and_then(|view| view.open(default_aead(), &VAULT, &key()));
            assert!(keyed.is_err(), "byte {at} bit {bit}");
        }
    }
}

#[test]
fn every_header_field_is_authenticated() {
    let frame = sealed(b"some payload of a few bytes");
    for at in 8..AUTHENTICATED_BYTES {
        let changed = changed_header(&frame, |bytes| bytes[at] ^= 1);
        if let Ok(view) = FrameView::parse(&changed) {
            let mut same_epoch = key();
            same_epoch.epoch = view.header.key_epoch;
            let opened = view.open(default_aead(), &VAULT, &same_epoch);
            assert_eq!(opened, Err(FormatError::Authentication { what: FRAME }), "byte {at}");
        }
    }
    let as_node = changed_header(&frame, |bytes| bytes[5] = 2);
    assert!(FrameView::parse(&as_node).unwrap().open(default_aead(), &VAULT, &key()).is_err());
    let other_vault = VaultId::from_bytes([8; 16]);
    assert!(FrameView::parse(&frame).unwrap().open(default_aead(), &other_vault, &key()).is_err());
    assert!(FrameView::parse(&frame).unwrap().open(default_aead(), &VAULT, &DataKey::new(6, [4; 32])).is_err());
    assert!(FrameView::parse(&frame).unwrap().open(default_aead(), &VAULT, &DataKey::new(5, [5; 32])).is_err());
}

#[test]
fn headers_that_break_a_rule_have_their_own_errors() {
    let frame = sealed(b"payload");
    let error = |change: &dyn Fn(&mut [u8])| FrameHeader::parse(&changed_header(&frame, change)).unwrap_err();
    assert_eq!(error(&|bytes| bytes[0] = b'X'), FormatError::BadMagic { what: HEADER });
    assert_eq!(error(&|bytes| bytes[4] = 2), FormatError::UnsupportedVersion { what: FRAME, version: 2 });
    assert_eq!(error(&|bytes| bytes[5] = 3), FormatError::invalid("object kind", "unknown"));
    assert_eq!(error(&|bytes| bytes[6] = 2), FormatError::invalid("codec", "unknown"));
    assert_eq!(error(&|bytes| bytes[7] = 4), FormatError::UnsupportedFeatures { what: FRAME, bits: 4 });
    assert!(matches!(error(&|bytes| bytes[8] = 8), FormatError::Invalid { .. }), "raw of another length");
    assert!(matches!(error(&|bytes| bytes[12] = 15), FormatError::Invalid { .. }), "shorter than a tag");
    assert!(matches!(error(&|bytes| bytes[8..16].fill(0xff)), FormatError::Limit { .. }), "above the limit");
    assert!(matches!(error(&|bytes| bytes[6] = 1), FormatError::Invalid { .. }), "zstd that saves nothing");
    let node = |bytes: &mut [u8]| {
        bytes[5] = 2;
        bytes[8..12].copy_from_slice(&(NODE_BYTES_MAX as u32 + 1).to_le_bytes());
        bytes[12..16].copy_from_slice(&(NODE_BYTES_MAX as u32 + 17).to_le_bytes());
    };
    assert!(matches!(error(&node), FormatError::Limit { what: "node bytes", .. }));
    // A damaged version byte is damage, not a newer Holdfast.
    let mut damaged = frame.clone();
    damaged[4] = 2;
    assert_eq!(FrameHeader::parse(&damaged).unwrap_err(), FormatError::Checksum { what: HEADER });
}

#[test]
fn sealing_refuses_what_could_not_be_read_and_leaves_the_buffer_alone() {
    let mut out = b"before".to_vec();
    let mut refused = |kind, codec, plain_len: usize, payload: &[u8]| {
        let result = seal_frame(&AwsLc, &VAULT, &key(), &NONCE, kind, codec, &ID, plain_len as u32, payload, &mut out);
        assert!(result.is_err());
        assert_eq!(out, b"before");
    };
    refused(ObjectKind::Chunk, Codec::Raw, 3, b"four");
    refused(ObjectKind::Chunk, Codec::Zstd, 4, b"four");
    refused(ObjectKind::Chunk, Codec::Zstd, CHUNK_BYTES_MAX + 1, b"four");
    refused(ObjectKind::Chunk, Codec::Raw, CHUNK_BYTES_MAX + 1, &vec![0; CHUNK_BYTES_MAX + 1]);
    refused(ObjectKind::Node, Codec::Raw, NODE_BYTES_MAX + 1, &vec![0; NODE_BYTES_MAX + 1]);
    let largest = sealed(&vec![1; CHUNK_BYTES_MAX]);
    assert_eq!(largest.len(), FRAME_BYTES_MAX);
    assert!(FrameView::parse(&largest).is_ok());
}

#[test]
fn scans_find_the_next_frame_after_damage() {
    let frames = [sealed(b"first"), sealed(b"the second HFF1HFF1 one"), sealed(b"third")];
    let mut bytes = frames.concat();
    let starts = [0, frames[0].len(), frames[0].len() + frames[1].len()];
    assert_eq!(find_frame(&bytes, 0), Some(0));
    assert_eq!(find_frame(&bytes, 1), Some(starts[1]));
    bytes[starts[1] + 10] ^= 1;
    assert_eq!(find_frame(&bytes, 1), Some(starts[2]));
    assert_eq!(find_frame(&bytes, starts[2] + 1), None);
    assert_eq!(find_frame(&bytes, bytes.len() + 5), None);
    assert_eq!(find_frame(b"HFF1", 0), None);
    // A magic number right before a frame, overlapping it as far as it can.
    let tricky = [b"HFF1HFHFF".as_slice(), &frames[0]].concat();
    assert_eq!(find_frame(&tricky, 0), Some(9));
}

proptest! {
    #[test]
    fn round_trip(
        payload in proptest::collection::vec(any::<u8>(), 0..3000),
        before in proptest::collection::vec(any::<u8>(), 0..100),
        vault: [u8; 16], secret: [u8; 32], nonce: [u8; 24], id: [u8; 32], epoch: u32,
        node: bool, zstd: bool, after in proptest::collection::vec(any::<u8>(), 0..100),
    ) {
        let (vault, key) = (VaultId::from_bytes(vault), DataKey::new(epoch, secret));
        let kind = if node { ObjectKind::Node } else { ObjectKind::Chunk };
        let codec = if zstd { Codec::Zstd } else { Codec::Raw };
        let plain_len = payload.len() as u32 + u32::from(zstd);
        let id = ObjectId::from_bytes(id);
        let mut out = before.clone();
        let len = seal_frame(&Portable, &vault, &key, &nonce, kind, codec, &id, plain_len, &payload, &mut out).unwrap();
        prop_assert_eq!(&out[..before.len()], &before[..]);
        prop_assert_eq!(out.len(), before.len() + len);
        prop_assert_eq!(len, FRAME_OVERHEAD_BYTES + payload.len());
        out.extend_from_slice(&after);
        let view = FrameView::parse(&out[before.len()..]).unwrap();
        prop_assert_eq!(view.frame_len(), len);
        let header = view.header;
        prop_assert_eq!((header.kind, header.codec, header.plain_len), (kind, codec, plain_len));
        prop_assert_eq!((header.key_epoch, header.id, header.nonce), (epoch, id, nonce));
        prop_assert_eq!(&header.encode()[..], &out[before.len()..before.len() + FRAME_HEADER_BYTES]);
        view.verify_checksum().unwrap();
        let mut reused = vec![1; 50];
        view.open_into(&AwsLc, &vault, &key, &mut reused).unwrap();
        prop_assert_eq!(&reused, &payload);
        prop_assert_eq!(view.open(&AwsLc, &vault, &key).unwrap(), payload);
        for cut in [0, FRAME_HEADER_BYTES - 1, FRAME_HEADER_BYTES, len - 1] {
            let cut = FrameView::parse(&out[before.len()..before.len() + cut]);
            let truncated = matches!(cut, Err(FormatError::Truncated { .. }));
            prop_assert!(truncated);
        }
    }

    #[test]
    fn no_input_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200), header: [u8; 88], from: usize) {
        let _ = FrameView::parse(&bytes);
        let _ = find_frame(&bytes, from);
        let whole = [b"HFF1".as_slice(), &header].concat();
        let whole = [whole.as_slice(), &crc32c::crc32c(&whole).to_le_bytes(), &bytes].concat();
        if let Ok(view) = FrameView::parse(&whole) {
            let _ = view.verify_checksum();
            let _ = view.open(default_aead(), &VAULT, &key());
        }
        prop_assert_eq!(find_frame(&whole, 0), Some(0));
    }
}
