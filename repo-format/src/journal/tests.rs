//! Round trips, the chain, what is found around torn tails and damage, and records of a later version.

use super::*;
use crate::crypto::default_aead;
use proptest::prelude::*;

const VAULT: VaultId = VaultId::from_bytes([7; 16]);
const NONCE: [u8; NONCE_BYTES] = [3; NONCE_BYTES];

fn key() -> DataKey {
    DataKey::new(2, [4; 32])
}

fn record(sequence: u64, previous: [u8; 32], payload: &[u8]) -> JournalRecord {
    JournalRecord { kind: RecordKind::Tag, epoch: 6, sequence, previous, payload: payload.to_vec() }
}

/// A segment of chained records from sequence 10 on, and where each record begins; the last start is the end.
fn segment(payloads: &[&[u8]]) -> (Vec<u8>, Vec<usize>) {
    let mut bytes = SegmentHeader { vault: VAULT, generation: 1 }.encode().to_vec();
    let mut starts = vec![bytes.len()];
    let mut previous = FIRST_PREVIOUS;
    for (sequence, payload) in (10..).zip(payloads) {
        let stored = record(sequence, previous, payload).seal(default_aead(), &VAULT, &key(), &NONCE).unwrap();
        previous = record_hash(&stored);
        bytes.extend_from_slice(&stored);
        starts.push(bytes.len());
    }
    (bytes, starts)
}

/// Payloads of the whole records, the end of the last one, and whether they cover the segment up to there.
type Read = (Vec<Vec<u8>>, usize, bool);

fn read(bytes: &[u8]) -> Read {
    let (mut payloads, mut end, mut gapless) = (Vec::new(), SEGMENT_HEADER_BYTES, true);
    for found in salvage(bytes, 10) {
        gapless &= found.offset == end;
        end = found.end;
        let sealed = found.record.unwrap().unwrap();
        assert_eq!((sealed.sequence, sealed.previous), (found.sequence, found.previous));
        assert_eq!(record_hash(&bytes[found.offset..found.end]), found.hash);
        payloads.push(sealed.open(default_aead(), &VAULT, &key()).unwrap().payload);
    }
    (payloads, end, gapless)
}

/// With a right CRC, whatever `change` does to a record.
fn changed(stored: &[u8], change: impl Fn(&mut [u8])) -> Vec<u8> {
    let mut stored = stored.to_vec();
    change(&mut stored);
    let end = stored.len() - 4;
    let crc = crc32c::crc32c(&stored[..end]);
    stored[end..].copy_from_slice(&crc.to_le_bytes());
    stored
}

#[test]
fn layout() {
    let header = SegmentHeader { vault: VAULT, generation: 0x0102 }.encode();
    assert_eq!(header[0..12], *b"HFJRNL01\x01\0\0\0");
    assert_eq!(header[24..48], [[7; 16].as_slice(), &[2, 1, 0, 0, 0, 0, 0, 0]].concat());
    let stored = record(11, [9; 32], b"payload").seal(default_aead(), &VAULT, &key(), &NONCE).unwrap();
    assert_eq!(stored.len(), 107);
    assert_eq!(stored[0..8], [107, 0, 0, 0, 5, 0, 0, 0]);
    assert_eq!(stored[8..20], [6, 0, 0, 0, 11, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(stored[20..52], [9; 32]);
    assert_eq!(stored[52..56], [2, 0, 0, 0]);
    assert_eq!(stored[56..80], NONCE);
    let mut expected = b"payload".to_vec();
    default_aead().seal(&[4; 32], &NONCE, &[&[7; 16], &stored[..80]].concat(), &mut expected).unwrap();
    assert_eq!(stored[80..103], expected);
    assert_eq!(stored[103..], crc32c::crc32c(&stored[..103]).to_le_bytes());
}

#[test]
fn every_flipped_bit_costs_its_own_record_only() {
    let (bytes, starts) = segment(&[b"one", b"two", b"three"]);
    let whole = vec![b"one".to_vec(), b"two".to_vec(), b"three".to_vec()];
    assert_eq!(read(&bytes), (whole.clone(), starts[3], true));
    for at in 0..bytes.len() {
        for bit in 0..8 {
            let mut damaged = bytes.clone();
            damaged[at] ^= 1 << bit;
            if at < SEGMENT_HEADER_BYTES {
                assert!(SegmentHeader::parse(&damaged).is_err());
                assert_eq!(read(&damaged), (whole.clone(), starts[3], true));
                continue;
            }
            let index = starts.iter().rposition(|start| *start <= at).unwrap();
            let mut others = whole.clone();
            others.remove(index);
            let end = if index == 2 { starts[2] } else { starts[3] };
            assert_eq!(read(&damaged), (others, end, index == 2), "byte {at} bit {bit}");
        }
    }
}

#[test]
fn a_torn_tail_costs_the_torn_record_at_every_length() {
    let (bytes, starts) = segment(&[b"one", b"two"]);
    for len in SEGMENT_HEADER_BYTES..=bytes.len() {
        let whole = starts.iter().rposition(|start| *start <= len).unwrap();
        let (payloads, end, gapless) = read(&bytes[..len]);
        assert_eq!((payloads.len(), end, gapless), (whole, starts[whole], true));
        // What a file system may leave instead of the data: zeros up to the right length, or something else.
        for filler in [0u8, 0xff] {
            let mut filled = bytes[..len].to_vec();
            filled.resize(bytes.len() + 500, filler);
            let (payloads, end, gapless) = read(&filled);
            assert_eq!((payloads.len(), end, gapless), (whole, starts[whole], true));
        }
    }
    for len in 0..SEGMENT_HEADER_BYTES {
        assert_eq!(SegmentHeader::parse(&bytes[..len]), Err(FormatError::Truncated { what: SEGMENT }));
        assert_eq!(salvage(&bytes[..len], 0).count(), 0);
    }
}

#[test]
fn records_name_the_one_before() {
    let (bytes, starts) = segment(&[b"one", b"two", b"three"]);
    let found: Vec<FoundRecord<'_>> = salvage(&bytes, 10).collect();
    assert_eq!(found[0].previous, FIRST_PREVIOUS);
    for (index, pair) in found.windows(2).enumerate() {
        assert_eq!(pair[0].hash, pair[1].previous);
        assert_eq!(pair[0].sequence + 1, pair[1].sequence);
        assert_eq!((pair[0].offset, pair[0].end), (starts[index], starts[index + 1]));
    }
}

#[test]
fn what_is_numbered_below_the_segment_or_far_above_it_is_no_record_of_it() {
    let (bytes, _) = segment(&[b"ten", b"eleven"]);
    let sequences = |first: u64| salvage(&bytes, first).map(|found| found.sequence).collect::<Vec<_>>();
    assert_eq!(sequences(10), [10, 11]);
    assert_eq!(sequences(0), [10, 11]);
    assert_eq!(sequences(11), [11]);
    assert_eq!(sequences(12), []);
    let far = record(11 + SEQUENCE_AHEAD_MAX, FIRST_PREVIOUS, b"far");
    let far = [&bytes[..64], &far.seal(default_aead(), &VAULT, &key(), &NONCE).unwrap()].concat();
    assert_eq!(salvage(&far, 10).count(), 0);
    assert_eq!(salvage(&far, 11).count(), 1);
}

#[test]
fn every_header_field_of_a_record_is_authenticated() {
    let stored = record(10, FIRST_PREVIOUS, b"payload").seal(default_aead(), &VAULT, &key(), &NONCE).unwrap();
    for at in 4..RECORD_HEADER_BYTES {
        let other = changed(&stored, |bytes| bytes[at] ^= 1);
        let Some(sealed) = RawRecord::parse(&other).and_then(RawRecord::known).unwrap_or(None) else { continue };
        let same_epoch = DataKey::new(sealed.key_epoch, [4; 32]);
        let opened = sealed.open(default_aead(), &VAULT, &same_epoch);
        assert_eq!(opened, Err(FormatError::Authentication { what: RECORD }), "byte {at}");
    }
    let sealed = RawRecord::parse(&stored).unwrap().known().unwrap().unwrap();
    assert_eq!(sealed.bytes(), stored);
    assert!(sealed.open(default_aead(), &VaultId::from_bytes([8; 16]), &key()).is_err());
    assert!(sealed.open(default_aead(), &VAULT, &DataKey::new(3, [4; 32])).is_err());
}

#[test]
fn an_unknown_kind_is_skipped_only_if_it_says_so() {
    let header = SegmentHeader { vault: VAULT, generation: 1 }.encode();
    for (flags, skipped) in [(0, false), (FLAG_MAY_SKIP, true), (2, false), (FLAG_MAY_SKIP | 2, false)] {
        let unknown = record(10, FIRST_PREVIOUS, b"?");
        let unknown = seal_record(default_aead(), &VAULT, &key(), &NONCE, (200, flags), &unknown).unwrap();
        let known = record(11, record_hash(&unknown), b"known");
        let known = known.seal(default_aead(), &VAULT, &key(), &NONCE).unwrap();
        let bytes = [header.as_slice(), &unknown, &known].concat();
        let found: Vec<FoundRecord<'_>> = salvage(&bytes, 10).collect();
        // Either way it is a whole record, which the next one continues: no damage.
        assert_eq!(found.len(), 2);
        assert_eq!(found[0].hash, found[1].previous);
        assert_eq!(found[0].record == Ok(None), skipped);
        assert_eq!(found[0].record.is_err(), !skipped);
    }
    // A known kind may carry the flag too.
    let flagged = seal_record(default_aead(), &VAULT, &key(), &NONCE, (5, 1), &record(10, [0; 32], b"x")).unwrap();
    assert_eq!(read(&[header.as_slice(), &flagged].concat()).0.len(), 1);
}

#[test]
fn segment_headers_of_another_time_have_their_own_errors() {
    let changed = |change: &dyn Fn(&mut [u8])| {
        let mut bytes = SegmentHeader { vault: VAULT, generation: 3 }.encode();
        change(&mut bytes);
        let crc = crc32c::crc32c(&bytes[..60]);
        bytes[60..].copy_from_slice(&crc.to_le_bytes());
        SegmentHeader::parse_with_features(&bytes)
    };
    assert_eq!(changed(&|bytes| bytes[8] = 2), Err(FormatError::UnsupportedVersion { what: SEGMENT, version: 2 }));
    assert_eq!(changed(&|bytes| bytes[20] = 8), Err(FormatError::UnsupportedFeatures { what: SEGMENT, bits: 8 }));
    assert_eq!(changed(&|bytes| bytes[0] = 8), Err(FormatError::BadMagic { what: SEGMENT }));
    let (header, features) = changed(&|bytes| bytes[16] = 1).unwrap();
    assert_eq!((header.generation, features.may_write()), (3, false));
}

#[test]
fn the_largest_record_is_read_and_a_larger_one_never_written() {
    let payload = vec![5; JOURNAL_RECORD_BYTES_MAX - RECORD_OVERHEAD_BYTES];
    let (bytes, _) = segment(&[&payload, b"next"]);
    assert_eq!(read(&bytes).0, vec![payload.clone(), b"next".to_vec()]);
    let too_long = record(1, FIRST_PREVIOUS, &[payload.as_slice(), b"x"].concat());
    let error = too_long.seal(default_aead(), &VAULT, &key(), &NONCE).unwrap_err();
    assert!(matches!(error, FormatError::Limit { what: "journal record bytes", .. }));
    // The same claim in damaged bytes is not believed.
    let mut long = bytes;
    long[SEGMENT_HEADER_BYTES..SEGMENT_HEADER_BYTES + 4].copy_from_slice(&u32::MAX.to_le_bytes());
    assert_eq!(read(&long).0, vec![b"next".to_vec()]);
}

fn commit() -> CommitRecord {
    CommitRecord {
        snapshot: SnapshotId::from_bytes([1; 16]),
        session: UploadSessionId::from_bytes([2; 16]),
        root: NodeId::from_bytes([3; 32]),
        committed_ns: -4,
        logical_bytes: 5,
        computer: "büro".into(),
        series: "/home".into(),
        summary_json: b"{}".to_vec(),
    }
}

#[test]
fn the_largest_commit_record_fits_a_journal_record() {
    let largest = CommitRecord {
        computer: "c".repeat(COMPUTER_BYTES_MAX),
        series: "s".repeat(SERIES_BYTES_MAX),
        summary_json: vec![b' '; SUMMARY_BYTES_MAX],
        ..commit()
    };
    let payload = largest.encode().unwrap();
    assert_eq!(CommitRecord::decode(&payload).unwrap(), largest);
    record(1, FIRST_PREVIOUS, &payload).seal(default_aead(), &VAULT, &key(), &NONCE).unwrap();
    for larger in [
        CommitRecord { computer: "c".repeat(COMPUTER_BYTES_MAX + 1), ..commit() },
        CommitRecord { series: "s".repeat(SERIES_BYTES_MAX + 1), ..commit() },
        CommitRecord { summary_json: vec![b' '; SUMMARY_BYTES_MAX + 1], ..commit() },
    ] {
        assert!(matches!(larger.encode(), Err(FormatError::Limit { .. })));
    }
}

#[test]
fn a_commit_record_is_read_whole_or_not_at_all() {
    let bytes = commit().encode().unwrap();
    assert_eq!(CommitRecord::decode(&bytes).unwrap(), commit());
    for len in 0..bytes.len() {
        assert!(matches!(CommitRecord::decode(&bytes[..len]), Err(FormatError::Truncated { .. })));
    }
    assert!(CommitRecord::decode(&[bytes.as_slice(), b"x"].concat()).is_err());
    let version = [b"\x02".as_slice(), &bytes[1..]].concat();
    let error = CommitRecord::decode(&version).unwrap_err();
    assert_eq!(error, FormatError::UnsupportedVersion { what: COMMIT, version: 2 });
    let mut not_text = bytes;
    let at = not_text.iter().position(|byte| *byte == b'b').unwrap();
    not_text[at] = 0xff;
    assert_eq!(CommitRecord::decode(&not_text), Err(FormatError::invalid(COMMIT, "a name is not UTF-8")));
}

proptest! {
    #[test]
    fn commit_records_round_trip(
        ids: ([u8; 16], [u8; 16], [u8; 32]), committed_ns: i64, logical_bytes: u64,
        computer in "\\PC{0,40}", series in "\\PC{0,40}", summary in proptest::collection::vec(any::<u8>(), 0..300),
    ) {
        let record = CommitRecord {
            snapshot: SnapshotId::from_bytes(ids.0),
            session: UploadSessionId::from_bytes(ids.1),
            root: NodeId::from_bytes(ids.2),
            committed_ns, logical_bytes, computer, series,
            summary_json: summary,
        };
        prop_assert_eq!(CommitRecord::decode(&record.encode().unwrap()).unwrap(), record);
    }

    #[test]
    fn segments_round_trip(payloads in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..200), 0..10)) {
        let slices: Vec<&[u8]> = payloads.iter().map(Vec::as_slice).collect();
        let (bytes, starts) = segment(&slices);
        prop_assert_eq!(read(&bytes), (payloads, *starts.last().unwrap(), true));
    }

    #[test]
    fn no_input_panics(bytes in proptest::collection::vec(any::<u8>(), 0..300), len in 90u32..300) {
        let header = SegmentHeader { vault: VAULT, generation: 1 }.encode();
        let _ = SegmentHeader::parse(&bytes);
        let _ = salvage(&bytes, 0).count();
        let mut record = [&len.to_le_bytes(), bytes.as_slice()].concat();
        for _ in 0..2 {
            let segment = [header.as_slice(), &record].concat();
            for found in salvage(&segment, 0) {
                let _ = found.record.map(|sealed| sealed.map(|sealed| sealed.open(default_aead(), &VAULT, &key())));
            }
            // Once more with a right CRC where the length says.
            let end = (len as usize).min(record.len());
            if end > 8 {
                let crc = crc32c::crc32c(&record[..end - 4]);
                record[end - 4..end].copy_from_slice(&crc.to_le_bytes());
            }
        }
        let _ = CommitRecord::decode(&bytes);
        let _ = CommitRecord::decode(&[b"\x01".as_slice(), &bytes].concat());
    }
}
