//! Authenticated encryption: XAES-256-GCM of C2SP (<https://c2sp.org/XAES-256-GCM>), AES-256-GCM under a key derived
//! from the first half of a 192-bit random nonce, so that nonces need no state. Two implementations behind one trait.

use crate::FormatError;
use aes::cipher::{BlockCipherEncrypt, KeyInit};
use aes_gcm::aead::AeadInOut;
use zeroize::{Zeroize, Zeroizing};

/// Bytes of a key.
pub const KEY_BYTES: usize = 32;
/// Bytes of a nonce; drawn at random for every message.
pub const NONCE_BYTES: usize = 24;
/// Bytes of an authentication tag.
pub const TAG_BYTES: usize = 16;

/// XAES-256-GCM. Implementations agree byte for byte.
pub trait Aead: Send + Sync {
    /// Encrypts `in_out` where it stands and gives the tag over it and `aad`. A nonce may be used once per key.
    /// Fails only above 64 GiB.
    fn seal_in_place(
        &self,
        key: &[u8; KEY_BYTES],
        nonce: &[u8; NONCE_BYTES],
        aad: &[u8],
        in_out: &mut [u8],
    ) -> Result<[u8; TAG_BYTES], FormatError>;

    /// Decrypts `in_out` where it stands if `tag` is right for it and `aad`. After an error its content is undefined
    /// and must not be used.
    fn open_in_place(
        &self,
        key: &[u8; KEY_BYTES],
        nonce: &[u8; NONCE_BYTES],
        aad: &[u8],
        in_out: &mut [u8],
        tag: &[u8; TAG_BYTES],
    ) -> Result<(), FormatError>;

    /// Encrypts `in_out` and appends the tag.
    fn seal(
        &self,
        key: &[u8; KEY_BYTES],
        nonce: &[u8; NONCE_BYTES],
        aad: &[u8],
        in_out: &mut Vec<u8>,
    ) -> Result<(), FormatError> {
        let tag = self.seal_in_place(key, nonce, aad, in_out)?;
        in_out.extend_from_slice(&tag);
        Ok(())
    }

    /// Checks and removes the tag at the end of `in_out` and decrypts the rest. After an error `in_out` is empty.
    fn open(
        &self,
        key: &[u8; KEY_BYTES],
        nonce: &[u8; NONCE_BYTES],
        aad: &[u8],
        in_out: &mut Vec<u8>,
    ) -> Result<(), FormatError> {
        let opened = match in_out.split_last_chunk_mut::<TAG_BYTES>() {
            Some((ciphertext, tag)) => self.open_in_place(key, nonce, aad, ciphertext, tag),
            None => Err(FormatError::Truncated { what: SEALED }),
        };
        let len = if opened.is_ok() { in_out.len() - TAG_BYTES } else { 0 };
        in_out.truncate(len);
        opened
    }
}

/// Name of the structure in errors.
const SEALED: &str = "sealed bytes";

const TOO_LONG: FormatError = FormatError::Invalid { what: SEALED, rule: "too long to seal" };
const WRONG: FormatError = FormatError::Authentication { what: SEALED };

/// The implementation of the hot path: AES-GCM of aws-lc-rs.
#[derive(Clone, Copy, Debug, Default)]
pub struct AwsLc;

/// The portable implementation, pure Rust: fallback, and oracle of the other one.
#[derive(Clone, Copy, Debug, Default)]
pub struct Portable;

/// The implementation to use where nothing asks for another one.
pub fn default_aead() -> &'static dyn Aead {
    &AwsLc
}

/// Key and nonce of the AES-256-GCM underneath one message.
struct Derived {
    key: Zeroizing<[u8; KEY_BYTES]>,
    nonce: [u8; 12],
}

/// The key derivation of the specification: two blocks of AES-CMAC in counter mode over the first half of the nonce.
/// One key schedule and three blocks, next to nothing beside a frame's payload.
fn derive(key: &[u8; KEY_BYTES], nonce: &[u8; NONCE_BYTES]) -> Derived {
    let cipher = aes::Aes256::new(key.into());

    // The CMAC subkey K1: AES of the zero block, doubled in GF(2^128).
    let mut zero = aes::Block::default();
    cipher.encrypt_block(&mut zero);
    let l = u128::from_be_bytes(zero.into());
    let k1 = ((l << 1) ^ ((l >> 127) * 0b1000_0111)).to_be_bytes();

    let mut derived = Derived { key: Zeroizing::new([0; KEY_BYTES]), nonce: [0; 12] };
    for (counter, half) in (1u8..).zip(derived.key.chunks_exact_mut(16)) {
        let mut message = [0u8; 16];
        message[1] = counter;
        message[2] = b'X';
        message[4..].copy_from_slice(&nonce[..12]);
        let mut block: aes::Block = std::array::from_fn(|index| message[index] ^ k1[index]).into();
        cipher.encrypt_block(&mut block);
        half.copy_from_slice(&block);
        block.zeroize();
    }
    derived.nonce.copy_from_slice(&nonce[12..]);
    derived
}

impl AwsLc {
    fn message_key(derived: &Derived) -> Result<aws_lc_rs::aead::LessSafeKey, FormatError> {
        // The key has the length of the algorithm, so this fails only for want of memory.
        aws_lc_rs::aead::UnboundKey::new(&aws_lc_rs::aead::AES_256_GCM, derived.key.as_slice())
            .map(aws_lc_rs::aead::LessSafeKey::new)
            .map_err(|_| FormatError::invalid(SEALED, "the key cannot be set up"))
    }
}

impl Aead for AwsLc {
    fn seal_in_place(
        &self,
        key: &[u8; KEY_BYTES],
        nonce: &[u8; NONCE_BYTES],
        aad: &[u8],
        in_out: &mut [u8],
    ) -> Result<[u8; TAG_BYTES], FormatError> {
        let derived = derive(key, nonce);
        let tag = Self::message_key(&derived)?
            .seal_in_place_separate_tag(
                aws_lc_rs::aead::Nonce::assume_unique_for_key(derived.nonce),
                aws_lc_rs::aead::Aad::from(aad),
                in_out,
            )
            .map_err(|_| TOO_LONG)?;
        tag.as_ref().try_into().map_err(|_| TOO_LONG)
    }

    fn open_in_place(
        &self,
        key: &[u8; KEY_BYTES],
        nonce: &[u8; NONCE_BYTES],
        aad: &[u8],
        in_out: &mut [u8],
        tag: &[u8; TAG_BYTES],
    ) -> Result<(), FormatError> {
        let derived = derive(key, nonce);
        Self::message_key(&derived)?
            .open_in_place_separate_tag(
                aws_lc_rs::aead::Nonce::assume_unique_for_key(derived.nonce),
                aws_lc_rs::aead::Aad::from(aad),
                tag,
                in_out,
            )
            .map(|_| ())
            .map_err(|_| WRONG)
    }
}

impl Aead for Portable {
    fn seal_in_place(
        &self,
        key: &[u8; KEY_BYTES],
        nonce: &[u8; NONCE_BYTES],
        aad: &[u8],
        in_out: &mut [u8],
    ) -> Result<[u8; TAG_BYTES], FormatError> {
        let derived = derive(key, nonce);
        aes_gcm::Aes256Gcm::new((&*derived.key).into())
            .encrypt_inout_detached((&derived.nonce).into(), aad, in_out.into())
            .map(Into::into)
            .map_err(|_| TOO_LONG)
    }

    fn open_in_place(
        &self,
        key: &[u8; KEY_BYTES],
        nonce: &[u8; NONCE_BYTES],
        aad: &[u8],
        in_out: &mut [u8],
        tag: &[u8; TAG_BYTES],
    ) -> Result<(), FormatError> {
        let derived = derive(key, nonce);
        aes_gcm::Aes256Gcm::new((&*derived.key).into())
            .decrypt_inout_detached((&derived.nonce).into(), aad, in_out.into(), tag.into())
            .map_err(|_| WRONG)
    }
}

#[cfg(test)]
mod tests;
