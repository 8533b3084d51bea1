//! The master key, and the text form in which it stands on the recovery sheet.

use crate::FormatError;
use crate::crypto::KEY_BYTES;
use data_encoding::{Encoding, Specification};
use std::sync::LazyLock;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

/// Contexts of `blake3::derive_key`; part of the format.
const CONTEXT_WRAP: &str = "holdfast 2026-11 master key wrapping key";
const CONTEXT_FINGERPRINT: &str = "holdfast 2026-11 master key fingerprint";
const CONTEXT_CHECK: &str = "holdfast 2026-11 master key text check";

/// Bytes of the check code: with the key, 35 bytes make exactly 56 letters.
const CHECK_BYTES: usize = 3;
/// Letters between two dashes.
const GROUP_LETTERS: usize = 4;
/// Longest text that is looked at, bytes.
const TEXT_BYTES_MAX: usize = 1024;

const MASTER_KEY: &str = "master key";

/// Base32 with the letters of Crockford: no I, L, O or U, so that nothing on paper is read wrong, and what is typed
/// for them anyway is understood.
static LETTERS: LazyLock<Option<Encoding>> = LazyLock::new(|| {
    let mut specification = Specification::new();
    specification.symbols.push_str("0123456789ABCDEFGHJKMNPQRSTVWXYZ");
    specification.translate.from.push_str("abcdefghjkmnpqrstvwxyzoOiIlL");
    specification.translate.to.push_str("ABCDEFGHJKMNPQRSTVWXYZ001111");
    specification.ignore.push_str(" -\t\r\n");
    specification.encoding().ok()
});

fn letters() -> Result<&'static Encoding, FormatError> {
    // The specification is constant; a test shows that it is sound.
    LETTERS.as_ref().ok_or(FormatError::invalid(MASTER_KEY, "its text form is not available"))
}

/// The secret at the top: whoever has it and a keyring can read every vault in it. 32 random bytes.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct MasterKey([u8; KEY_BYTES]);

impl std::fmt::Debug for MasterKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "MasterKey({})", self.fingerprint())
    }
}

impl MasterKey {
    /// From 32 random bytes.
    pub const fn from_bytes(bytes: [u8; KEY_BYTES]) -> Self {
        MasterKey(bytes)
    }

    /// The raw secret.
    pub const fn expose(&self) -> &[u8; KEY_BYTES] {
        &self.0
    }

    /// 14 groups of 4 letters with dashes: the key and a check code of 24 bits. For paper and for the key file.
    pub fn to_text(&self) -> Result<Zeroizing<String>, FormatError> {
        let mut bytes = Zeroizing::new([0; KEY_BYTES + CHECK_BYTES]);
        bytes[..KEY_BYTES].copy_from_slice(&self.0);
        bytes[KEY_BYTES..].copy_from_slice(&self.check());
        let plain = Zeroizing::new(letters()?.encode(bytes.as_slice()));
        let mut text = Zeroizing::new(String::with_capacity(plain.len() + plain.len() / GROUP_LETTERS));
        for (index, letter) in plain.chars().enumerate() {
            if index > 0 && index % GROUP_LETTERS == 0 {
                text.push('-');
            }
            text.push(letter);
        }
        Ok(text)
    }

    /// From the text form. Spaces, dashes, line ends and case do not matter; O is read as 0, I and L as 1. A typing
    /// error is told apart from a wrong length.
    pub fn from_text(text: &str) -> Result<Self, FormatError> {
        if text.len() > TEXT_BYTES_MAX {
            return Err(FormatError::invalid(MASTER_KEY, "not 56 letters"));
        }
        let bytes = Zeroizing::new(letters()?.decode(text.as_bytes()).map_err(|error| match error.kind {
            data_encoding::DecodeKind::Symbol => FormatError::invalid(MASTER_KEY, "it holds a letter that no key has"),
            _ => FormatError::invalid(MASTER_KEY, "not 56 letters"),
        })?);
        let (key, check) =
            bytes.split_first_chunk::<KEY_BYTES>().ok_or(FormatError::invalid(MASTER_KEY, "not 56 letters"))?;
        if check.len() != CHECK_BYTES {
            return Err(FormatError::invalid(MASTER_KEY, "not 56 letters"));
        }
        let key = MasterKey(*key);
        if key.check() != check {
            return Err(FormatError::invalid(MASTER_KEY, "the check code does not match: a letter is wrong"));
        }
        Ok(key)
    }

    fn check(&self) -> [u8; CHECK_BYTES] {
        let [first, second, third, ..] = blake3::derive_key(CONTEXT_CHECK, &self.0);
        [first, second, third]
    }

    /// Tells keys apart without telling anything about them: 16 hexadecimal digits in groups of 4.
    pub fn fingerprint(&self) -> String {
        let hex = data_encoding::HEXLOWER.encode(&self.fingerprint_bytes());
        [&hex[0..4], &hex[4..8], &hex[8..12], &hex[12..16]].join("-")
    }

    pub(crate) fn fingerprint_bytes(&self) -> [u8; 8] {
        let [a, b, c, d, e, f, g, h, ..] = blake3::derive_key(CONTEXT_FINGERPRINT, &self.0);
        [a, b, c, d, e, f, g, h]
    }

    pub(crate) fn wrapping_key(&self) -> Zeroizing<[u8; KEY_BYTES]> {
        Zeroizing::new(blake3::derive_key(CONTEXT_WRAP, &self.0))
    }
}
