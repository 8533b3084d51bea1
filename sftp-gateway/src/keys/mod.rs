//! Keys: those handed out to customers in the formats that their programs read, customers' own public keys, and the
//! server's host keys. Our own writers, compared with `ssh-keygen` and `puttygen` in tests.

mod customer;
mod der;
mod encoding;
mod host;
mod public;

pub use customer::CustomerKey;
pub use host::HostKeys;
pub use public::{KeyKind, PublicKey, known_hosts_line};

/// What is wrong with a key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// Not a public key in OpenSSH's or RFC 4716's text format.
    #[error("this is not an SSH public key")]
    NotAPublicKey,
    /// A private key was given where a public one is wanted. It should be made anew: it has been shown.
    #[error("this is a private key; send the public one, and make a new pair, for this one has been shown")]
    Private,
    /// A kind that is not taken.
    #[error("keys of kind {0} are not taken; RSA of 2048 bits or more, Ed25519, and ECDSA over P-256 or P-384 are")]
    Kind(String),
    /// RSA with fewer than 2048 bits, or more than 16384.
    #[error("an RSA key of {0} bits is not taken; from 2048 to 16384 are")]
    RsaBits(usize),
    /// Host keys that are kept cannot be read.
    #[error("the host keys cannot be read: {0}")]
    Host(String),
    /// The system cannot make one.
    #[error("a key cannot be made")]
    Generate,
}
