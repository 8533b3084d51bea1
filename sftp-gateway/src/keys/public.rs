//! Public keys: customers' own, those that clients offer, and the server's.

use crate::keys::KeyError;
use crate::keys::encoding::take_string;
use aws_lc_rs::digest::{SHA256, digest};
use data_encoding::{BASE64, BASE64_NOPAD};
use std::sync::Arc;

const RSA_BITS: std::ops::RangeInclusive<usize> = 2048..=16384;

/// Kinds that are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyKind {
    /// With so many bits.
    Rsa(usize),
    /// Ed25519.
    Ed25519,
    /// ECDSA over P-256.
    EcdsaP256,
    /// ECDSA over P-384.
    EcdsaP384,
}

/// A public key of a kind that is taken. Equal keys are equal bytes.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct PublicKey {
    blob: Arc<[u8]>,
}

impl PublicKey {
    /// From the bytes that SSH sends (RFC 4253, section 6.6).
    pub fn from_blob(blob: &[u8]) -> Result<PublicKey, KeyError> {
        kind(blob)?;
        crate::ssh::check_public_key(blob)?;
        Ok(PublicKey { blob: blob.into() })
    }

    /// From what people have: a line of OpenSSH's (`ssh-ed25519 AAAA... comment`), or RFC 4716's format, which PuTTYgen
    /// writes. Options before the algorithm are not taken.
    pub fn parse(text: &str) -> Result<PublicKey, KeyError> {
        let text = text.trim().trim_start_matches('\u{feff}');
        if text.contains("PRIVATE KEY-----") || text.starts_with("PuTTY-User-Key-File") {
            return Err(KeyError::Private);
        }
        let encoded: String = if text.starts_with("---- BEGIN SSH2 PUBLIC KEY ----") {
            let mut continued = false;
            let body = text.lines().filter(|line| {
                let header = continued || line.contains(':') || line.starts_with("----");
                continued = header && line.ends_with('\\');
                !header
            });
            body.map(str::trim).collect()
        } else {
            let mut lines = text.lines().filter(|line| !line.trim().is_empty());
            let (Some(line), None) = (lines.next(), lines.next()) else { return Err(KeyError::NotAPublicKey) };
            line.split_ascii_whitespace().nth(1).unwrap_or_default().to_owned()
        };
        let blob = BASE64.decode(encoded.as_bytes()).map_err(|_| KeyError::NotAPublicKey)?;
        PublicKey::from_blob(&blob)
    }

    /// As SSH sends it.
    pub fn blob(&self) -> &[u8] {
        &self.blob
    }

    /// Which kind.
    pub fn kind(&self) -> KeyKind {
        // It was looked at when it was made.
        kind(&self.blob).unwrap_or(KeyKind::Ed25519)
    }

    /// `ssh-rsa`, `ssh-ed25519`, ...
    pub fn algorithm(&self) -> &'static str {
        match self.kind() {
            KeyKind::Rsa(_) => "ssh-rsa",
            KeyKind::Ed25519 => "ssh-ed25519",
            KeyKind::EcdsaP256 => "ecdsa-sha2-nistp256",
            KeyKind::EcdsaP384 => "ecdsa-sha2-nistp384",
        }
    }

    /// `SHA256:` and 43 characters, as OpenSSH and PuTTY show it.
    pub fn fingerprint(&self) -> String {
        format!("SHA256:{}", BASE64_NOPAD.encode(digest(&SHA256, &self.blob).as_ref()))
    }

    /// `ssh-ed25519 AAAA...`, without a comment.
    pub fn line(&self) -> String {
        format!("{} {}", self.algorithm(), BASE64.encode(&self.blob))
    }
}

impl std::fmt::Debug for PublicKey {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "PublicKey({})", self.fingerprint())
    }
}

/// A line for `known_hosts`.
pub fn known_hosts_line(host: &str, port: u16, key: &PublicKey) -> String {
    if port == 22 { format!("{host} {}", key.line()) } else { format!("[{host}]:{port} {}", key.line()) }
}

fn kind(mut blob: &[u8]) -> Result<KeyKind, KeyError> {
    let fields = &mut blob;
    let name = take_string(fields).ok_or(KeyError::NotAPublicKey)?;
    let kind = match name {
        b"ssh-rsa" => {
            take_string(fields).ok_or(KeyError::NotAPublicKey)?;
            let modulus = take_string(fields).ok_or(KeyError::NotAPublicKey)?;
            let start = modulus.iter().position(|byte| *byte != 0).unwrap_or(modulus.len());
            let zeros = modulus.get(start).map_or(0, |byte| byte.leading_zeros() as usize);
            let bits = (modulus.len() - start) * 8 - zeros;
            if !RSA_BITS.contains(&bits) {
                return Err(KeyError::RsaBits(bits));
            }
            KeyKind::Rsa(bits)
        }
        b"ssh-ed25519" => {
            take_string(fields).filter(|key| key.len() == 32).ok_or(KeyError::NotAPublicKey)?;
            KeyKind::Ed25519
        }
        b"ecdsa-sha2-nistp256" | b"ecdsa-sha2-nistp384" => {
            take_string(fields).filter(|curve| name.ends_with(curve)).ok_or(KeyError::NotAPublicKey)?;
            take_string(fields).ok_or(KeyError::NotAPublicKey)?;
            if name.ends_with(b"256") { KeyKind::EcdsaP256 } else { KeyKind::EcdsaP384 }
        }
        other if other.len() <= 64 && other.is_ascii() && other.iter().all(u8::is_ascii_graphic) => {
            return Err(KeyError::Kind(String::from_utf8_lossy(other).into_owned()));
        }
        _ => return Err(KeyError::NotAPublicKey),
    };
    if fields.is_empty() { Ok(kind) } else { Err(KeyError::NotAPublicKey) }
}
