//! Secrets handed to people and agents: `hf_<43 characters>_<6 characters>`. The first part is 32 random bytes in
//! base 62, the second the CRC-32C of everything before it, so that a mistyped secret is found without asking the
//! database. Only a hash is ever stored: the secret is too random to be guessed from it.

use crate::ControlError;
use std::fmt;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

const ALPHABET: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
const RANDOM_BYTES: usize = 32;
const BODY_CHARACTERS: usize = 43;
const CHECK_CHARACTERS: usize = 6;

/// What a secret is for; part of its text, so that one is never taken for the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SecretKind {
    /// Bearer token of the API: `hf_`.
    Token,
    /// Single-use operator link: `hfo_`.
    OperatorLink,
    /// Login session of a person: `hfs_`.
    LoginSession,
    /// API token of a person: `hfa_`.
    ApiToken,
    /// Single-use link of an invitation: `hfi_`.
    Invitation,
    /// Single-use link to set a forgotten password: `hfp_`.
    PasswordReset,
    /// Single-use enrolment of a computer: `hfe_`.
    Enrolment,
    /// A computer's own credential: `hfc_`.
    Computer,
    /// Signs what is sent to a webhook: `hfw_`.
    Webhook,
}

impl SecretKind {
    const fn prefix(self) -> &'static str {
        match self {
            SecretKind::Token => "hf_",
            SecretKind::OperatorLink => "hfo_",
            SecretKind::LoginSession => "hfs_",
            SecretKind::ApiToken => "hfa_",
            SecretKind::Invitation => "hfi_",
            SecretKind::PasswordReset => "hfp_",
            SecretKind::Enrolment => "hfe_",
            SecretKind::Computer => "hfc_",
            SecretKind::Webhook => "hfw_",
        }
    }
}

/// A secret in the clear. Its `Debug` form shows nothing of it.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct TokenSecret {
    text: String,
}

impl TokenSecret {
    /// A new secret from the operating system's random source.
    pub fn generate(kind: SecretKind) -> Result<Self, ControlError> {
        let mut random = Zeroizing::new([0u8; RANDOM_BYTES]);
        getrandom::fill(random.as_mut_slice()).map_err(|_| ControlError::Random)?;
        let mut text = String::from(kind.prefix());
        push_base62(&mut text, random.as_slice(), BODY_CHARACTERS);
        let check = crc32c::crc32c(text.as_bytes());
        text.push('_');
        push_base62(&mut text, &check.to_be_bytes(), CHECK_CHARACTERS);
        Ok(TokenSecret { text })
    }

    /// From what a caller sent; `None` when it cannot be a secret of this kind.
    pub fn parse(kind: SecretKind, text: &str) -> Option<Self> {
        let (head, check) = text.rsplit_once('_')?;
        let body = head.strip_prefix(kind.prefix())?;
        if body.len() != BODY_CHARACTERS || !body.bytes().all(|byte| ALPHABET.contains(&byte)) {
            return None;
        }
        let mut expected = String::new();
        push_base62(&mut expected, &crc32c::crc32c(head.as_bytes()).to_be_bytes(), CHECK_CHARACTERS);
        (check == expected).then(|| TokenSecret { text: text.to_owned() })
    }

    /// The text to hand over, once.
    pub fn expose(&self) -> &str {
        &self.text
    }

    /// What is stored and searched for. Looking it up leaks by time at most how a digest of the caller's own choosing
    /// sorts among digests, never a part of a secret.
    pub fn digest(&self) -> SecretDigest {
        SecretDigest(blake3::derive_key("holdfast 2026-11 stored hash of a bearer secret", self.text.as_bytes()))
    }
}

/// Stands for a secret without giving it away.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct SecretDigest([u8; 32]);

impl SecretDigest {
    /// From what is stored; `None` when it is no digest.
    pub(crate) fn from_hexadecimal(text: &str) -> Option<Self> {
        let bytes = data_encoding::HEXLOWER.decode(text.as_bytes()).ok()?;
        bytes.try_into().ok().map(SecretDigest)
    }

    /// As stored.
    pub(crate) fn to_hexadecimal(self) -> String {
        data_encoding::HEXLOWER.encode(&self.0)
    }
}

impl fmt::Debug for SecretDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretDigest(..)")
    }
}

impl fmt::Debug for TokenSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenSecret(..)")
    }
}

/// Appends a big-endian number in base 62 with exactly `characters` digits.
fn push_base62(out: &mut String, number: &[u8], characters: usize) {
    let mut number = Zeroizing::new(number.to_vec());
    let mut digits = Zeroizing::new(vec![0u8; characters]);
    for digit in digits.iter_mut().rev() {
        let mut remainder = 0u32;
        for byte in number.iter_mut() {
            let value = remainder << 8 | u32::from(*byte);
            *byte = (value / 62) as u8;
            remainder = value % 62;
        }
        *digit = ALPHABET[remainder as usize];
    }
    out.extend(digits.iter().map(|&digit| char::from(digit)));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_reads_back_and_one_wrong_character_is_found() {
        let secret = TokenSecret::generate(SecretKind::Token).unwrap();
        let text = secret.expose().to_owned();
        assert_eq!(text.len(), 3 + BODY_CHARACTERS + 1 + CHECK_CHARACTERS);
        assert_eq!(TokenSecret::parse(SecretKind::Token, &text).unwrap().digest(), secret.digest());
        assert!(TokenSecret::parse(SecretKind::OperatorLink, &text).is_none());
        for position in 0..text.len() {
            let mut wrong = text.clone().into_bytes();
            wrong[position] = if wrong[position] == b'7' { b'8' } else { b'7' };
            assert!(TokenSecret::parse(SecretKind::Token, std::str::from_utf8(&wrong).unwrap()).is_none());
        }
    }

    #[test]
    fn all_256_bits_fit_the_digits() {
        let mut out = String::new();
        push_base62(&mut out, &[0xff; 32], BODY_CHARACTERS);
        let mut back = [0u8; 33];
        for character in out.bytes() {
            let mut carry = ALPHABET.iter().position(|&digit| digit == character).unwrap() as u32;
            for byte in back.iter_mut().rev() {
                carry += u32::from(*byte) * 62;
                *byte = carry as u8;
                carry >>= 8;
            }
        }
        assert_eq!(back[0], 0);
        assert_eq!(back[1..], [0xff; 32]);
    }

    #[test]
    fn nothing_of_a_secret_is_printed() {
        let secret = TokenSecret::generate(SecretKind::Token).unwrap();
        assert_eq!(format!("{secret:?}"), "TokenSecret(..)");
    }
}
