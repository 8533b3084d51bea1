//! Keys made for customers: RSA of 3072 bits, for it is what people mean by "a .pem", and every client reads it.

use crate::keys::encoding::{base64_lines, mpint, openssh, pem, string};
use crate::keys::{KeyError, PublicKey, der};
use aws_lc_rs::encoding::AsDer;
use aws_lc_rs::hmac;
use aws_lc_rs::rsa::{KeyPair, KeySize};
use data_encoding::HEXLOWER;
use zeroize::Zeroizing;

/// A key pair, shown once. The private texts are overwritten in memory when it is dropped.
pub struct CustomerKey {
    /// `BEGIN RSA PRIVATE KEY`: PKCS#1, line feeds, no passphrase.
    pub pem: Zeroizing<String>,
    /// `BEGIN OPENSSH PRIVATE KEY`, no passphrase.
    pub openssh: Zeroizing<String>,
    /// PuTTY's format, version 3, no passphrase.
    pub ppk: Zeroizing<String>,
    /// The public half, which is all that is kept.
    pub public: PublicKey,
}

impl CustomerKey {
    /// Makes one. It takes the processor for up to a second: call it on a thread for such work. `comment` goes into the
    /// OpenSSH and PuTTY formats; control characters in it become spaces.
    pub fn generate(comment: &str) -> Result<CustomerKey, KeyError> {
        let pair = KeyPair::generate(KeySize::Rsa3072).map_err(|_| KeyError::Generate)?;
        let pkcs8: aws_lc_rs::encoding::Pkcs8V1Der<'_> = pair.as_der().map_err(|_| KeyError::Generate)?;
        let mut check = [0; 4];
        getrandom::fill(&mut check).map_err(|_| KeyError::Generate)?;
        let pkcs1 = der::pkcs1_of_pkcs8(pkcs8.as_ref()).ok_or(KeyError::Generate)?;
        CustomerKey::from_pkcs1(pkcs1, comment, u32::from_be_bytes(check)).ok_or(KeyError::Generate)
    }

    /// All formats of one key in PKCS#1. `check` is any number; OpenSSH's format wants one.
    pub fn from_pkcs1(pkcs1: &[u8], comment: &str, check: u32) -> Option<CustomerKey> {
        let comment: String = comment.chars().map(|letter| if letter.is_control() { ' ' } else { letter }).collect();
        let numbers = der::rsa_numbers(pkcs1)?;
        let mut public = Vec::with_capacity(512);
        string(&mut public, b"ssh-rsa");
        mpint(&mut public, numbers.e);
        mpint(&mut public, numbers.n);

        let mut fields = Zeroizing::new(Vec::with_capacity(2048));
        string(&mut fields, b"ssh-rsa");
        for number in [numbers.n, numbers.e, numbers.d, numbers.q_inverse, numbers.p, numbers.q] {
            mpint(&mut fields, number);
        }

        let mut private = Zeroizing::new(Vec::with_capacity(2048));
        for number in [numbers.d, numbers.p, numbers.q, numbers.q_inverse] {
            mpint(&mut private, number);
        }

        Some(CustomerKey {
            pem: Zeroizing::new(pem("RSA PRIVATE KEY", pkcs1, 64)),
            openssh: Zeroizing::new(openssh(&public, &fields, &comment, check)),
            ppk: Zeroizing::new(ppk("ssh-rsa", &comment, &public, &private)),
            public: PublicKey::from_blob(&public).ok()?,
        })
    }
}

/// PuTTY's format, version 3, unencrypted: its MAC is HMAC-SHA-256 under the empty key (PuTTY manual, appendix C).
fn ppk(algorithm: &str, comment: &str, public: &[u8], private: &[u8]) -> String {
    let mut sealed = Zeroizing::new(Vec::with_capacity(4096));
    for field in [algorithm.as_bytes(), b"none", comment.as_bytes(), public, private] {
        string(&mut sealed, field);
    }
    let mac = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &[]), &sealed);
    let (public, private) = (base64_lines(public, 64), Zeroizing::new(base64_lines(private, 64)));
    format!(
        "PuTTY-User-Key-File-3: {algorithm}\nEncryption: none\nComment: {comment}\nPublic-Lines: {}\n{public}\
         Private-Lines: {}\n{}Private-MAC: {}\n",
        public.lines().count(),
        private.lines().count(),
        *private,
        HEXLOWER.encode(mac.as_ref()),
    )
}
