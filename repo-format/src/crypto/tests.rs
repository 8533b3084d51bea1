//! The published vectors of XAES-256-GCM, and the two implementations against each other.

use super::*;
use data_encoding::HEXLOWER;
use proptest::prelude::*;
use shake::Shake128;
use shake::digest::{ExtendableOutput, Update, XofReader};

const IMPLEMENTATIONS: [(&str, &dyn Aead); 2] = [("aws-lc-rs", &AwsLc), ("portable", &Portable)];

fn hex(text: &str) -> Vec<u8> {
    HEXLOWER.decode(text.as_bytes()).unwrap()
}

struct Vector {
    key: u8,
    derived_key: &'static str,
    aad: &'static [u8],
    sealed: &'static str,
}

/// The two vectors of the specification: the first block of AES begins with a zero bit in one, a one bit in the other.
const VECTORS: [Vector; 2] = [
    Vector {
        key: 1,
        derived_key: "c8612c9ed53fe43e8e005b828a1631a0bbcb6ab2f46514ec4f439fcfd0fa969b",
        aad: b"",
        sealed: "ce546ef63c9cc60765923609b33a9a1974e96e52daf2fcf7075e2271",
    },
    Vector {
        key: 3,
        derived_key: "e9c621d4cdd9b11b00a6427ad7e559aeedd66b3857646677748f8ca796cb3fd8",
        aad: b"c2sp.org/XAES-256-GCM",
        sealed: "986ec1832593df5443a179437fd083bf3fdb41abd740a21f71eb769d",
    },
];

#[test]
fn published_vectors() {
    let nonce = b"ABCDEFGHIJKLMNOPQRSTUVWX";
    for vector in &VECTORS {
        let key = [vector.key; KEY_BYTES];
        let derived = derive(&key, nonce);
        assert_eq!(derived.key.as_slice(), hex(vector.derived_key));
        assert_eq!(derived.nonce, *b"MNOPQRSTUVWX");
        for (name, aead) in IMPLEMENTATIONS {
            let mut bytes = b"XAES-256-GCM".to_vec();
            aead.seal(&key, nonce, vector.aad, &mut bytes).unwrap();
            assert_eq!(bytes, hex(vector.sealed), "{name}");
            aead.open(&key, nonce, vector.aad, &mut bytes).unwrap();
            assert_eq!(bytes, b"XAES-256-GCM", "{name}");
        }
    }
}

/// The accumulated vectors: messages drawn from one SHAKE-128, ciphertexts hashed by another.
fn accumulated(aead: &dyn Aead, iterations: u32) -> String {
    let mut source = Shake128::default().finalize_xof();
    let mut hash = Shake128::default();
    let draw = |source: &mut dyn FnMut(&mut [u8])| {
        let mut len = [0u8; 1];
        source(&mut len);
        let mut bytes = vec![0; usize::from(len[0])];
        source(&mut bytes);
        bytes
    };
    for _ in 0..iterations {
        let (mut key, mut nonce) = ([0; KEY_BYTES], [0; NONCE_BYTES]);
        source.read(&mut key);
        source.read(&mut nonce);
        let mut read = |bytes: &mut [u8]| source.read(bytes);
        let plaintext = draw(&mut read);
        let aad = draw(&mut read);
        let mut bytes = plaintext;
        aead.seal(&key, &nonce, &aad, &mut bytes).unwrap();
        hash.update(&bytes);
    }
    let mut out = [0; 32];
    hash.finalize_xof().read(&mut out);
    HEXLOWER.encode(&out)
}

#[test]
fn accumulated_vectors_ten_thousand() {
    for (name, aead) in IMPLEMENTATIONS {
        let expected = "e6b9edf2df6cec60c8cbd864e2211b597fb69a529160cd040d56c0c210081939";
        assert_eq!(accumulated(aead, 10_000), expected, "{name}");
    }
}

#[test]
fn accumulated_vectors_one_million() {
    let expected = "2163ae1445985a30b60585ee67daa55674df06901b890593e824b8a7c885ab15";
    assert_eq!(accumulated(default_aead(), 1_000_000), expected);
}

#[test]
fn what_is_shorter_than_a_tag_is_truncated() {
    for (name, aead) in IMPLEMENTATIONS {
        for len in 0..TAG_BYTES {
            let mut bytes = vec![7; len];
            let error = aead.open(&[1; KEY_BYTES], &[2; NONCE_BYTES], b"", &mut bytes).unwrap_err();
            assert_eq!(error, FormatError::Truncated { what: SEALED }, "{name}");
            assert!(bytes.is_empty());
        }
    }
}

proptest! {
    #[test]
    fn implementations_agree_and_open_each_other(
        key: [u8; KEY_BYTES],
        nonce: [u8; NONCE_BYTES],
        aad in proptest::collection::vec(any::<u8>(), 0..200),
        plaintext in proptest::collection::vec(any::<u8>(), 0..5000),
    ) {
        let mut one = plaintext.clone();
        AwsLc.seal(&key, &nonce, &aad, &mut one).unwrap();
        let mut other = plaintext.clone();
        Portable.seal(&key, &nonce, &aad, &mut other).unwrap();
        prop_assert_eq!(&one, &other);
        AwsLc.open(&key, &nonce, &aad, &mut other).unwrap();
        Portable.open(&key, &nonce, &aad, &mut one).unwrap();
        prop_assert_eq!(&one, &plaintext);
        prop_assert_eq!(&other, &plaintext);
    }

    #[test]
    fn any_changed_bit_fails(
        plaintext in proptest::collection::vec(any::<u8>(), 0..100),
        aad in proptest::collection::vec(any::<u8>(), 1..40),
        place: prop::sample::Index,
        bit in 0u32..8,
    ) {
        let (key, nonce) = ([1; KEY_BYTES], [2; NONCE_BYTES]);
        let mut sealed = plaintext;
        AwsLc.seal(&key, &nonce, &aad, &mut sealed).unwrap();
        // One bit anywhere in key, nonce, associated data or sealed bytes.
        let mut all = [key.as_slice(), nonce.as_slice(), &aad, &sealed].concat();
        let at = place.index(all.len());
        all[at] ^= 1 << bit;
        let (changed_key, rest) = all.split_first_chunk().unwrap();
        let (changed_nonce, rest) = rest.split_first_chunk().unwrap();
        let (changed_aad, changed) = rest.split_at(aad.len());
        for (_, aead) in IMPLEMENTATIONS {
            let mut bytes = changed.to_vec();
            let result = aead.open(changed_key, changed_nonce, changed_aad, &mut bytes);
            prop_assert_eq!(result, Err(FormatError::Authentication { what: SEALED }));
            prop_assert!(bytes.is_empty());
        }
    }
}
