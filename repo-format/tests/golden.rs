//! Bytes written by version 1 stay readable, and the same values are written as the same bytes. A golden file is never
//! changed: a format change adds a new folder beside `v1`. `HOLDFAST_WRITE_GOLDEN=1` writes files that are missing.

#[cfg(test)]
mod samples;

#[cfg(test)]
mod files {
    use super::samples;
    use repo_format::compress::{Codec, decompress};
    use repo_format::crypto::{AwsLc, Portable};
    use repo_format::frame::FrameView;
    use repo_format::id::ObjectId;
    use repo_format::journal::{
        CommitRecord, FIRST_PREVIOUS, JournalRecord, SEGMENT_HEADER_BYTES, SegmentHeader, salvage,
    };
    use repo_format::keyring::{Keyring, MasterKey};
    use repo_format::pack::{FOOTER_BYTES, Footer, PACK_HEADER_BYTES, PackHeader, Trailer};
    use repo_format::record::{
        DamageRecord, HoldRecord, PackDropRecord, SoftDeleteRecord, TagRecord, TombstoneRecord, UndeleteRecord,
        VaultDeletionRecord,
    };
    use std::path::PathBuf;

    type Make = fn() -> Vec<u8>;

    /// Golden files of this test, and how each is made.
    const FILES: [(&str, Make); 7] = [
        ("frame_raw.bin", samples::frame_raw),
        ("frame_zstd.bin", samples::frame_zstd),
        ("journal_segment.bin", samples::journal_segment),
        ("journal_states.bin", samples::journal_states),
        ("keyring.bin", samples::keyring),
        ("master_key.txt", master_key_text),
        ("pack_data.bin", pack_data),
    ];

    /// Golden files that are checked by a test of their own, and where.
    const ELSEWHERE: [(&str, &str); 2] = [("chunker.txt", "src/chunker.rs"), ("tree.bin", "tests/golden_tree.rs")];

    fn master_key_text() -> Vec<u8> {
        MasterKey::from_bytes(samples::MASTER).to_text().unwrap().as_bytes().to_vec()
    }

    /// Around the frames of the other golden files, so that it does not depend on the compressor either.
    fn pack_data() -> Vec<u8> {
        samples::pack_of(&[golden("frame_raw.bin"), golden("frame_zstd.bin")])
    }

    fn folder() -> PathBuf {
        PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden/v1")
    }

    fn golden(name: &str) -> Vec<u8> {
        let path = folder().join(name);
        let make = FILES.iter().find(|(file, _)| *file == name).unwrap().1;
        if !path.exists() && std::env::var_os("HOLDFAST_WRITE_GOLDEN").is_some() {
            std::fs::write(&path, make()).unwrap();
        }
        std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    }

    #[test]
    fn every_golden_file_is_checked_by_a_test() {
        let mut expected: Vec<_> = FILES.iter().map(|(name, _)| *name).collect();
        expected.iter().for_each(|name| drop(golden(name)));
        for (name, source) in ELSEWHERE {
            let source = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(source);
            assert!(std::fs::read_to_string(source).unwrap().contains(name), "{name}");
            expected.push(name);
        }
        expected.sort_unstable();
        let mut found: Vec<_> =
            std::fs::read_dir(folder()).unwrap().map(|file| file.unwrap().file_name().into_string().unwrap()).collect();
        found.sort();
        assert_eq!(found, expected);
    }

    /// Reads a frame through both implementations and seals its payload again to the same bytes.
    fn check_frame(stored: &[u8], number: u8, codec: Codec, plaintext: &[u8]) {
        let view = FrameView::parse(stored).unwrap();
        view.verify_checksum().unwrap();
        assert_eq!(view.frame_len(), stored.len());
        assert_eq!(view.header.id, ObjectId::from(samples::id_keys().chunk_id(plaintext)));
        let payload = view.open(&AwsLc, &samples::VAULT, &samples::data_key()).unwrap();
        assert_eq!(view.open(&Portable, &samples::VAULT, &samples::data_key()).unwrap(), payload);
        assert_eq!(decompress(codec, &payload, view.header.plain_len).unwrap(), plaintext);
        assert_eq!(samples::frame_of(number, codec, plaintext, &payload), stored);
    }

    #[test]
    fn frames() {
        check_frame(&golden("frame_raw.bin"), 1, Codec::Raw, samples::RAW);
        check_frame(&golden("frame_zstd.bin"), 2, Codec::Zstd, &samples::text());
    }

    #[test]
    fn pack() {
        let file = golden("pack_data.bin");
        assert_eq!(file, pack_data());
        assert_eq!(PackHeader::parse(&file).unwrap(), samples::PACK);
        let (body, footer) = file.split_last_chunk::<FOOTER_BYTES>().unwrap();
        let footer = Footer::parse(footer).unwrap();
        assert_eq!(footer.file_len(), file.len() as u64);
        let trailer = Trailer::parse(&body[footer.trailer_offset as usize..], &footer).unwrap();
        trailer.verify_stripe(0, &body[..footer.trailer_offset as usize]).unwrap();
        assert_eq!(trailer.stripes.len(), 1);
        let names = ["frame_raw.bin", "frame_zstd.bin"];
        assert_eq!(trailer.entries.len(), names.len());
        let mut offset = PACK_HEADER_BYTES;
        for (entry, name) in trailer.entries.iter().zip(names) {
            assert_eq!(entry.offset as usize, offset);
            assert_eq!(body[offset..offset + entry.frame_len()], golden(name));
            offset += entry.frame_len();
        }
    }

    /// Reads a journal segment and compares every record with what it was made from; answers their payloads.
    fn check_journal(file: &[u8], generation: u64, records: Vec<JournalRecord>) -> Vec<Vec<u8>> {
        assert_eq!(SegmentHeader::parse(file).unwrap(), SegmentHeader { vault: samples::VAULT, generation });
        let mut found = salvage(file, 1);
        let (mut previous, mut end) = (FIRST_PREVIOUS, SEGMENT_HEADER_BYTES);
        let mut payloads = Vec::new();
        for expected in records {
            let next = found.next().unwrap();
            assert_eq!(next.offset, end);
            let sealed = next.record.unwrap().unwrap();
            let record = sealed.open(&Portable, &samples::VAULT, &samples::data_key()).unwrap();
            assert_eq!(sealed.open(&AwsLc, &samples::VAULT, &samples::data_key()).unwrap(), record);
            assert_eq!(record, JournalRecord { previous, ..expected });
            (previous, end) = (next.hash, next.end);
            payloads.push(record.payload);
        }
        assert!(found.next().is_none());
        assert_eq!(end, file.len());
        payloads
    }

    #[test]
    fn journal() {
        let file = golden("journal_segment.bin");
        assert_eq!(file, samples::journal_segment());
        let payloads = check_journal(&file, 1, samples::journal_records());
        assert_eq!(CommitRecord::decode(&payloads[0]).unwrap(), samples::commit_record());
    }

    /// Every record that may follow a commit, one of each in every form it has.
    #[test]
    fn journal_of_states() {
        let file = golden("journal_states.bin");
        assert_eq!(file, samples::journal_states());
        let payloads = check_journal(&file, 2, samples::state_records());
        let [soft_delete, undelete, hold, lift, tag, tombstone, damage, drop, deletion] = payloads.as_slice() else {
            panic!("not nine records")
        };
        assert_eq!(SoftDeleteRecord::decode(soft_delete).unwrap(), samples::soft_delete_record());
        assert_eq!(UndeleteRecord::decode(undelete).unwrap(), UndeleteRecord { snapshot: samples::SNAPSHOT });
        for (payload, until_ns) in [(hold, Some(samples::UNTIL_NS)), (lift, None)] {
            assert_eq!(HoldRecord::decode(payload).unwrap(), HoldRecord { snapshot: samples::SNAPSHOT, until_ns });
        }
        assert_eq!(TagRecord::decode(tag).unwrap(), samples::tag_record());
        assert_eq!(TombstoneRecord::decode(tombstone).unwrap(), samples::tombstone_record());
        assert_eq!(DamageRecord::decode(damage).unwrap(), samples::damage_record());
        assert_eq!(PackDropRecord::decode(drop).unwrap(), samples::pack_drop_record());
        assert_eq!(VaultDeletionRecord::decode(deletion).unwrap(), samples::vault_deletion_record());
    }

    #[test]
    fn keyring() {
        let file = golden("keyring.bin");
        assert_eq!(file, samples::keyring());
        let master = MasterKey::from_text(std::str::from_utf8(&golden("master_key.txt")).unwrap()).unwrap();
        assert_eq!(master.expose(), &samples::MASTER);
        assert_eq!(golden("master_key.txt"), master_key_text());
        let keyring = Keyring::parse(&file).unwrap().unlock(&master).unwrap();
        assert_eq!(keyring.encode(), file);
        for (vault, label, epochs) in [(samples::VAULT, "vault 1", 2), (samples::OTHER_VAULT, "vault 2", 1)] {
            let keys = keyring.keys(&vault).unwrap().unwrap();
            let random: [u8; 112] = samples::random(label);
            assert_eq!(keys.root.expose(), &random[..32]);
            assert_eq!(keys.data_key(1).unwrap().expose(), &random[56..88]);
            assert_eq!(keys.data.len(), epochs);
        }
        let keys = keyring.keys(&samples::VAULT).unwrap().unwrap();
        assert_eq!(keys.data_key(2).unwrap().expose(), &samples::random::<56>("data key 2")[..32]);
    }
}
