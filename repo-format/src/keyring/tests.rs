//! Round trips, what each key opens, rotation, damage of every bit, and the text form of the master key.

use super::*;
use proptest::prelude::*;

fn master(byte: u8) -> MasterKey {
    MasterKey::from_bytes([byte; KEY_BYTES])
}

fn vault(byte: u8) -> VaultId {
    VaultId::from_bytes([0x80 + byte; 16])
}

/// Different bytes for every seed and position.
fn random<const N: usize>(seed: u8) -> [u8; N] {
    let mut out = [0; N];
    blake3::Hasher::new().update(&[seed]).finalize_xof().fill(&mut out);
    out
}

/// A keyring with the vaults 1 to `vaults`; vault 1 has two data keys.
fn keyring(vaults: u8) -> UnlockedKeyring {
    let mut keyring = Keyring::create(&master(1), &random(0)).unwrap();
    for number in 1..=vaults {
        keyring.insert_vault(vault(number), &random(number)).unwrap();
    }
    if vaults > 0 {
        keyring.add_data_key(&vault(1), &random(100)).unwrap();
    }
    keyring
}

/// All secrets of a vault, as plain values to compare.
fn secrets(keys: &VaultKeys) -> (Vec<u8>, Vec<(u32, Vec<u8>)>) {
    let data = keys.data.iter().map(|key| (key.epoch, key.expose().to_vec())).collect();
    (keys.root.expose().to_vec(), data)
}

fn secrets_in(keyring: &UnlockedKeyring, number: u8) -> (Vec<u8>, Vec<(u32, Vec<u8>)>) {
    secrets(&keyring.keys(&vault(number)).unwrap().unwrap())
}

#[test]
fn keys_come_back_after_a_restart() {
    let keyring = keyring(3);
    let read = Keyring::parse(&keyring.encode()).unwrap();
    assert_eq!(read, *keyring.keyring());
    assert_eq!(read.vaults().collect::<Vec<_>>(), [vault(1), vault(2), vault(3)]);
    let unlocked = read.unlock(&master(1)).unwrap();
    for number in 1..=3 {
        assert_eq!(secrets_in(&unlocked, number), secrets_in(&keyring, number));
    }
    let keys = unlocked.keys(&vault(1)).unwrap().unwrap();
    assert_eq!(keys.data.iter().map(|key| key.epoch).collect::<Vec<_>>(), [1, 2]);
    assert_eq!(keys.data_key(2).unwrap().expose(), &random::<DATA_KEY_RANDOM_BYTES>(100)[..32]);
    assert!(keys.data_key(3).is_none());
    assert_eq!(keys.root.expose(), &random::<VAULT_RANDOM_BYTES>(1)[..32]);
    assert_eq!(keys.data[0].expose(), &random::<VAULT_RANDOM_BYTES>(1)[56..88]);
    assert!(unlocked.keys(&vault(4)).unwrap().is_none());
}

#[test]
fn the_file_shows_no_key() {
    let keyring = keyring(2);
    let file = keyring.encode();
    for secret in [
        master(1).expose().as_slice(),
        &random::<CREATE_RANDOM_BYTES>(0)[..32],
        &random::<VAULT_RANDOM_BYTES>(1)[..32],
        &random::<VAULT_RANDOM_BYTES>(1)[56..88],
        &random::<DATA_KEY_RANDOM_BYTES>(100)[..32],
    ] {
        assert!(!file.windows(8).any(|window| secret.windows(8).any(|part| part == window)));
    }
    let shown = format!("{keyring:?} {:?} {:?}", keyring.keyring(), master(1));
    assert!(shown.len() < 200 && shown.contains(&master(1).fingerprint()), "{shown}");
}

#[test]
fn a_wrong_master_key_is_told_so() {
    let file = keyring(1).encode();
    let error = Keyring::parse(&file).unwrap().unlock(&master(2)).unwrap_err();
    assert_eq!(error, FormatError::Authentication { what: KEYRING });
}

#[test]
fn every_flipped_bit_is_detected() {
    let file = keyring(2).encode();
    for at in 0..file.len() {
        for bit in 0..8 {
            let mut damaged = file.clone();
            damaged[at] ^= 1 << bit;
            assert!(Keyring::parse(&damaged).is_err(), "byte {at} bit {bit}");
        }
    }
    for len in 0..file.len() {
        assert!(Keyring::parse(&file[..len]).is_err());
    }
    assert!(Keyring::parse(&[file.as_slice(), &[0; 4]].concat()).is_err());
}

/// The file with `change` applied and a right checksum.
fn changed(file: &[u8], change: impl Fn(&mut Vec<u8>)) -> Vec<u8> {
    let mut file = file[..file.len() - CHECKSUM_BYTES].to_vec();
    change(&mut file);
    let checksum = blake3::hash(&file);
    [file.as_slice(), checksum.as_bytes()].concat()
}

#[test]
fn wrapped_keys_cannot_change_places() {
    let file = keyring(2).encode();
    let (first, second) = (HEADER_BYTES, HEADER_BYTES + ENTRY_BYTES + 2 * DATA_KEY_BYTES);
    let root = |entry: usize| entry + 16..entry + 16 + WRAPPED_BYTES;
    let data = |entry: usize, index: usize| {
        let start = entry + ENTRY_BYTES + index * DATA_KEY_BYTES + 4;
        start..start + WRAPPED_BYTES
    };
    for (from, to) in [
        (root(first), root(second)),
        (data(first, 0), data(second, 0)),
        (data(first, 1), data(first, 0)),
        (root(second), data(second, 0)),
        (data(second, 0), root(second)),
    ] {
        let swapped = changed(&file, |bytes| bytes.copy_within(from.clone(), to.start));
        let unlocked = Keyring::parse(&swapped).unwrap().unlock(&master(1)).unwrap();
        let results = [unlocked.keys(&vault(1)).is_err(), unlocked.keys(&vault(2)).is_err()];
        // Only the vault with the wrong key fails; the other one stays usable.
        assert_eq!(results, [to.start < second, to.start >= second]);
    }
    let other_generation = changed(&file, |bytes| bytes[24] = 2);
    assert!(Keyring::parse(&other_generation).unwrap().unlock(&master(1)).is_err());
}

#[test]
fn files_that_break_a_rule_are_refused() {
    let file = keyring(2).encode();
    let error = |change: &dyn Fn(&mut Vec<u8>)| Keyring::parse(&changed(&file, change)).unwrap_err();
    assert_eq!(error(&|bytes| bytes[0] = 0), FormatError::BadMagic { what: KEYRING });
    assert_eq!(error(&|bytes| bytes[8] = 2), FormatError::UnsupportedVersion { what: KEYRING, version: 2 });
    assert_eq!(error(&|bytes| bytes[20] = 2), FormatError::UnsupportedFeatures { what: KEYRING, bits: 2 });
    assert!(matches!(error(&|bytes| bytes.push(0)), FormatError::Invalid { .. }));
    let count_at = HEADER_BYTES - 4;
    assert_eq!(error(&|bytes| bytes[count_at..count_at + 4].fill(0xff)), FormatError::Truncated { what: KEYRING });
    assert!(matches!(error(&|bytes| bytes[count_at] = 1), FormatError::Invalid { .. }));
    assert!(matches!(error(&|bytes| bytes[HEADER_BYTES] = 0xff), FormatError::Invalid { .. }), "vaults out of order");
    let second = HEADER_BYTES + ENTRY_BYTES + 2 * DATA_KEY_BYTES;
    let twice = |bytes: &mut Vec<u8>| bytes.copy_within(HEADER_BYTES..HEADER_BYTES + VaultId::LEN, second);
    assert_eq!(error(&twice), FormatError::invalid(KEYRING, "vaults are not in order"), "a vault twice");
    let same_epoch = |bytes: &mut Vec<u8>| bytes[HEADER_BYTES + ENTRY_BYTES + DATA_KEY_BYTES] = 1;
    assert_eq!(error(&same_epoch), FormatError::invalid(KEYRING, "data keys are not in order"), "an epoch twice");
    let data_count_at = HEADER_BYTES + ENTRY_BYTES - 4;
    assert!(matches!(error(&|bytes| bytes[data_count_at] = 0), FormatError::Limit { .. }));
    assert!(matches!(error(&|bytes| bytes[data_count_at + 2] = 1), FormatError::Limit { .. }));
    assert!(matches!(error(&|bytes| bytes[data_count_at + 4] = 9), FormatError::Invalid { .. }), "epochs out of order");
    // A later version's read-only bit: keys are served, nothing is changed, and the bit survives a copy.
    let read_only = changed(&file, |bytes| bytes[16] = 1);
    let mut unlocked = Keyring::parse(&read_only).unwrap().unlock(&master(1)).unwrap();
    assert!(unlocked.keys(&vault(1)).unwrap().is_some());
    let refused = Err(FormatError::UnsupportedFeatures { what: KEYRING, bits: 1 });
    assert_eq!(unlocked.insert_vault(vault(9), &random(9)).map(|_| ()), refused);
    assert_eq!(unlocked.remove_vault(&vault(1)).map(|_| ()), refused);
    assert_eq!(unlocked.add_data_key(&vault(1), &random(9)).map(|_| ()), refused);
    assert_eq!(unlocked.rotate_master(&master(2), &random(9)), refused);
    assert_eq!(unlocked.rotate_key_encryption_key(&master(1), &mut |_| Ok(())), refused);
    assert_eq!(unlocked.encode(), read_only);
}

#[test]
fn a_vault_keeps_its_keys_until_they_are_removed() {
    let mut keyring = keyring(2);
    let before = secrets_in(&keyring, 2);
    assert!(keyring.insert_vault(vault(2), &random(50)).is_err());
    assert_eq!(secrets_in(&keyring, 2), before);
    assert!(keyring.remove_vault(&vault(2)).unwrap());
    assert!(!keyring.remove_vault(&vault(2)).unwrap());
    assert!(keyring.keys(&vault(2)).unwrap().is_none());
    assert!(keyring.add_data_key(&vault(2), &random(51)).is_err());
    let file = keyring.encode();
    assert!(!file.windows(16).any(|window| window == vault(2).as_bytes()));
    assert_eq!(secrets_in(&Keyring::parse(&file).unwrap().unlock(&master(1)).unwrap(), 1), secrets_in(&keyring, 1));
}

#[test]
fn the_number_of_data_keys_is_bounded() {
    let mut keyring = keyring(1);
    for _ in 2..DATA_KEYS_MAX {
        keyring.add_data_key(&vault(1), &random(1)).unwrap();
    }
    assert!(matches!(keyring.add_data_key(&vault(1), &random(1)), Err(FormatError::Limit { .. })));
    let unlocked = Keyring::parse(&keyring.encode()).unwrap().unlock(&master(1)).unwrap();
    assert_eq!(unlocked.keys(&vault(1)).unwrap().unwrap().data.len(), DATA_KEYS_MAX);
}

#[test]
fn rotating_the_master_key_keeps_the_rest() {
    let mut keyring = keyring(2);
    let before = keyring.encode();
    keyring.rotate_master(&master(2), &random(60)).unwrap();
    let after = keyring.encode();
    // Only fingerprint, wrapped key-encryption key and checksum differ.
    assert_eq!(before[HEADER_BYTES..before.len() - 32], after[HEADER_BYTES..after.len() - 32]);
    assert!(Keyring::parse(&after).unwrap().unlock(&master(1)).is_err());
    let unlocked = Keyring::parse(&after).unwrap().unlock(&master(2)).unwrap();
    assert_eq!(secrets_in(&unlocked, 1), secrets_in(&keyring, 1));
    assert_eq!(unlocked.keyring().generation(), 1);
}

#[test]
fn rotating_the_key_encryption_key_wraps_every_key_again() {
    let mut keyring = keyring(3);
    let before = keyring.encode();
    let mut calls = 0u8;
    let mut source = |bytes: &mut [u8]| {
        calls += 1;
        blake3::Hasher::new().update(&[200, calls]).finalize_xof().fill(bytes);
        Ok::<(), FormatError>(())
    };
    assert!(keyring.rotate_key_encryption_key(&master(2), &mut source).is_err());
    assert_eq!(keyring.encode(), before);
    keyring.rotate_key_encryption_key(&master(1), &mut source).unwrap();
    let after = keyring.encode();
    let unlocked = Keyring::parse(&after).unwrap().unlock(&master(1)).unwrap();
    assert_eq!(unlocked.keyring().generation(), 2);
    for number in 1..=3 {
        assert_eq!(secrets_in(&unlocked, number), secrets_in(&keyring_of(&before), number));
    }
    // Every nonce of the file is new and used once.
    let mut nonces = std::collections::BTreeSet::new();
    for file in [&before, &after] {
        let keyring = Keyring::parse(file).unwrap();
        let entries = keyring.vaults.values().flat_map(|entry| std::iter::once(&entry.root).chain(entry.data.values()));
        for wrapped in entries.chain([&keyring.kek]) {
            assert!(nonces.insert(wrapped[..NONCE_BYTES].to_vec()));
        }
    }
    assert_eq!(nonces.len(), 16);
}

fn keyring_of(file: &[u8]) -> UnlockedKeyring {
    Keyring::parse(file).unwrap().unlock(&master(1)).unwrap()
}

#[test]
fn the_text_form_is_for_people() {
    let text = MasterKey::from_bytes(random(70)).to_text().unwrap();
    assert_eq!(text.len(), 14 * 4 + 13);
    assert!(text.split('-').all(|group| group.len() == 4));
    let expected = random::<32>(70);
    for form in [
        text.to_string(),
        text.to_lowercase(),
        text.replace('-', " "),
        text.replace('-', ""),
        format!("\r\n {}\n", text.replace("-", "\n")),
        text.replace('0', "O").replace('1', "l"),
        text.replace('0', "o").replace('1', "I"),
    ] {
        assert_eq!(MasterKey::from_text(&form).unwrap().expose(), &expected, "{form}");
    }
    let rule = |text: &str| match MasterKey::from_text(text) {
        Err(FormatError::Invalid { rule, .. }) => rule,
        other => panic!("{other:?}"),
    };
    assert_eq!(rule(&text.replacen(&text[5..6], "U", 1)), "it holds a letter that no key has");
    assert_eq!(rule(&text[..text.len() - 1]), "not 56 letters");
    assert_eq!(rule(&text[..text.len() - 5]), "not 56 letters");
    assert_eq!(rule(&format!("{}-AAAA", *text)), "not 56 letters");
    assert_eq!(rule(&"A".repeat(100_000)), "not 56 letters");
    assert_eq!(rule(""), "not 56 letters");
}

#[test]
fn every_wrong_letter_and_every_swap_is_found() {
    let text = MasterKey::from_bytes(random(71)).to_text().unwrap();
    let letters: Vec<char> = text.chars().filter(|letter| *letter != '-').collect();
    let refused = |letters: &[char]| MasterKey::from_text(&letters.iter().collect::<String>()).is_err();
    assert!(!refused(&letters));
    for at in 0..letters.len() {
        for other in "0123456789ABCDEFGHJKMNPQRSTVWXYZ".chars().filter(|other| *other != letters[at]) {
            let mut wrong = letters.clone();
            wrong[at] = other;
            assert!(refused(&wrong), "{at} {other}");
        }
        let mut swapped = letters.clone();
        if at > 0 && letters[at] != letters[at - 1] {
            swapped.swap(at, at - 1);
            assert!(refused(&swapped), "{at}");
        }
    }
}

#[test]
fn a_fingerprint_names_a_key() {
    assert_eq!(master(1).fingerprint().len(), 19);
    assert_ne!(master(1).fingerprint(), master(2).fingerprint());
    assert_eq!(
        master(1).fingerprint().replace('-', ""),
        data_encoding::HEXLOWER.encode(&master(1).fingerprint_bytes())
    );
}

proptest! {
    #[test]
    fn master_keys_round_trip(bytes: [u8; 32]) {
        let text = MasterKey::from_bytes(bytes).to_text().unwrap();
        let read = MasterKey::from_text(&text).unwrap();
        prop_assert_eq!(read.expose(), &bytes);
    }

    #[test]
    fn no_text_panics(text in "\\PC{0,80}") {
        let _ = MasterKey::from_text(&text);
    }

    #[test]
    fn no_file_panics(body in proptest::collection::vec(any::<u8>(), 0..600), counts: (u8, u8)) {
        let _ = Keyring::parse(&body);
        let mut file = [KEYRING_MAGIC.as_slice(), &[1, 0], &[0; 14], &body].concat();
        for (at, count) in [(HEADER_BYTES - 4, counts.0), (HEADER_BYTES + ENTRY_BYTES - 4, counts.1)] {
            if let Some(slot) = file.get_mut(at..at + 4) {
                slot.copy_from_slice(&u32::from(count % 4).to_le_bytes());
            }
        }
        let file = changed(&[file.as_slice(), &[0; 32]].concat(), |_| {});
        if let Ok(keyring) = Keyring::parse(&file) {
            prop_assert_eq!(keyring.encode().len(), file.len());
            let _ = keyring.unlock(&master(1));
        }
    }
}
