//! Host keys: Ed25519 and ECDSA P-256, which serve all current clients. No RSA: there is no implementation without doubt.

use crate::keys::encoding::{mpint, openssh, read_pem, string, take_string};
use crate::keys::{KeyError, PublicKey};
use aws_lc_rs::encoding::{AsBigEndian, EcPrivateKeyBin};
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair};
use zeroize::Zeroizing;

const LABEL: &str = "OPENSSH PRIVATE KEY";

/// The server's own keys. Text: both as OpenSSH writes private keys, one after the other, to be kept secret and shared by
/// all machines that serve under one name.
pub struct HostKeys {
    text: Zeroizing<String>,
    public: Vec<PublicKey>,
}

impl HostKeys {
    /// Makes new ones.
    pub fn generate() -> Result<HostKeys, KeyError> {
        let mut random = [0; 8];
        getrandom::fill(&mut random).map_err(|_| KeyError::Generate)?;
        let check = u32::from_be_bytes([random[0], random[1], random[2], random[3]]);

        let pair = Ed25519KeyPair::generate().map_err(|_| KeyError::Generate)?;
        let seed = pair.seed().map_err(|_| KeyError::Generate)?;
        let seed: aws_lc_rs::encoding::Curve25519SeedBin<'_> = seed.as_be_bytes().map_err(|_| KeyError::Generate)?;
        let point = pair.public_key().as_ref();
        let (mut public, mut fields) = (Vec::new(), Zeroizing::new(Vec::with_capacity(256)));
        for out in [&mut public, &mut *fields] {
            string(out, b"ssh-ed25519");
            string(out, point);
        }
        string(&mut fields, &Zeroizing::new([seed.as_ref(), point].concat()));
        let mut text = Zeroizing::new(String::with_capacity(2048));
        text.push_str(&Zeroizing::new(openssh(&public, &fields, "holdfast", check)));

        let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).map_err(|_| KeyError::Generate)?;
        let scalar: EcPrivateKeyBin<'_> = pair.private_key().as_be_bytes().map_err(|_| KeyError::Generate)?;
        let (mut public, mut fields) = (Vec::new(), Zeroizing::new(Vec::with_capacity(256)));
        for out in [&mut public, &mut *fields] {
            string(out, b"ecdsa-sha2-nistp256");
            string(out, b"nistp256");
            string(out, pair.public_key().as_ref());
        }
        mpint(&mut fields, scalar.as_ref());
        text.push_str(&Zeroizing::new(openssh(&public, &fields, "holdfast", check.rotate_left(13))));
        HostKeys::from_text(&text)
    }

    /// Reads what `text` gave: one key or more, also others that `ssh-keygen` made without a passphrase.
    pub fn from_text(text: &str) -> Result<HostKeys, KeyError> {
        let mut public = Vec::new();
        let mut rest = text;
        while let Some((body, after)) = read_pem(rest, LABEL) {
            let body = Zeroizing::new(body);
            public.push(public_of(&body)?);
            rest = after;
        }
        if public.is_empty() {
            return Err(KeyError::Host("there is none".into()));
        }
        let keys = HostKeys { text: Zeroizing::new(text.to_owned()), public };
        crate::ssh::check_host_keys(&keys)?;
        Ok(keys)
    }

    /// To be kept, and kept secret.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The public halves, to be published.
    pub fn public(&self) -> &[PublicKey] {
        &self.public
    }

    /// Each private key as a text of its own.
    pub(crate) fn each(&self) -> impl Iterator<Item = &str> {
        self.text.split_inclusive("-----END OPENSSH PRIVATE KEY-----").filter(|text| text.contains(LABEL))
    }
}

fn public_of(body: &[u8]) -> Result<PublicKey, KeyError> {
    let fields = || {
        let fields = &mut body.strip_prefix(b"openssh-key-v1\0")?;
        for _ in 0..3 {
            take_string(fields)?;
        }
        *fields = fields.get(4..)?;
        take_string(fields)
    };
    let blob = fields().ok_or_else(|| KeyError::Host("one is not in OpenSSH's format".into()))?;
    PublicKey::from_blob(blob)
}
