//! Everything of russh, which changes its face several times a year: no other module names it.
//!
//! How it is driven, and why:
//! - `Channel` values are dropped as soon as they are accepted. One that is kept and not read blocks the whole connection.
//! - Input is taken in `Handler::data`, which never waits; output goes through `Handle::data`. The two ways russh has for
//!   output are not mixed.
//! - The connection comes from our own accept loop, with Nagle's algorithm off and a buffer for reading.

mod handler;
mod running;

use crate::gateway::GatewayConfig;
use crate::keys::{HostKeys, KeyError};
use crate::limits::REKEY_BYTES_MAX;
use russh::keys::ssh_key;
use russh::keys::{Algorithm, EcdsaCurve, HashAlg, PrivateKey};
use russh::server::Config;
use russh::{MethodKind, MethodSet, Preferred, SshId, cipher, compression, kex, mac};
use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

pub(crate) use running::{Connection, Ended, Farewell, connect};

/// Key exchanges, in the order we like them. The last four are none, but announce strict key exchange and extensions:
/// without them russh turns these off and says nothing.
const EXCHANGES: &[kex::Name] = &[
    kex::MLKEM768X25519_SHA256,
    kex::CURVE25519,
    kex::CURVE25519_PRE_RFC_8731,
    // For clients in FIPS mode, which have no Curve25519.
    kex::DH_G16_SHA512,
    kex::DH_GEX_SHA256,
    kex::DH_G14_SHA256,
    kex::EXTENSION_SUPPORT_AS_CLIENT,
    kex::EXTENSION_SUPPORT_AS_SERVER,
    kex::EXTENSION_OPENSSH_STRICT_KEX_AS_CLIENT,
    kex::EXTENSION_OPENSSH_STRICT_KEX_AS_SERVER,
];

/// Whether our implementation can verify signatures of this key.
pub(crate) fn check_public_key(blob: &[u8]) -> Result<(), KeyError> {
    ssh_key::PublicKey::from_bytes(blob).map(drop).map_err(|_| KeyError::NotAPublicKey)
}

/// Whether our implementation can sign with these keys.
pub(crate) fn check_host_keys(keys: &HostKeys) -> Result<(), KeyError> {
    private_keys(keys).map(drop)
}

fn private_keys(keys: &HostKeys) -> Result<Vec<PrivateKey>, KeyError> {
    keys.each()
        .map(|text| PrivateKey::from_openssh(text.trim()).map_err(|error| KeyError::Host(error.to_string())))
        .collect()
}

/// What the listener is given to know of SSH, ready for russh.
#[derive(Clone)]
pub(crate) struct SshSettings(Arc<Config>);

impl SshSettings {
    /// What of a gateway's configuration concerns SSH.
    pub(crate) fn new(config: &GatewayConfig) -> Result<SshSettings, KeyError> {
        let rekey_bytes = config.rekey_bytes.min(REKEY_BYTES_MAX);
        let mut ciphers = vec![cipher::AES_128_GCM, cipher::AES_256_GCM];
        if config.chacha20 {
            ciphers.push(cipher::CHACHA20_POLY1305);
        }
        ciphers.extend([cipher::AES_256_CTR, cipher::AES_128_CTR]);
        let mut methods = MethodSet::empty();
        methods.push(MethodKind::PublicKey);
        let preferred = Preferred {
            kex: Cow::Borrowed(EXCHANGES),
            // Not ssh-rsa: the same list says which signatures of clients are taken.
            key: Cow::Borrowed(&[
                Algorithm::Ed25519,
                Algorithm::Ecdsa { curve: EcdsaCurve::NistP256 },
                Algorithm::Ecdsa { curve: EcdsaCurve::NistP384 },
                Algorithm::Rsa { hash: Some(HashAlg::Sha512) },
                Algorithm::Rsa { hash: Some(HashAlg::Sha256) },
            ]),
            cipher: Cow::Owned(ciphers),
            // The last for libssh2 before 1.11.
            mac: Cow::Borrowed(&[mac::HMAC_SHA256_ETM, mac::HMAC_SHA512_ETM, mac::HMAC_SHA256]),
            compression: Cow::Borrowed(&[compression::NONE]),
            ..Preferred::DEFAULT
        };
        Ok(SshSettings(Arc::new(Config {
            // No "OpenSSH" in it: clients would assume its peculiarities.
            server_id: SshId::Standard(Cow::Borrowed("SSH-2.0-Holdfast")),
            methods,
            auth_rejection_time: Duration::from_millis(500),
            auth_rejection_time_initial: Some(Duration::ZERO),
            max_auth_attempts: 6,
            keys: private_keys(&config.host_keys)?,
            limits: russh::Limits::new(rekey_bytes, rekey_bytes, Duration::from_secs(3600)),
            window_size: 2 << 20,
            maximum_packet_size: 32768,
            event_buffer_size: 8,
            channel_buffer_size: 1,
            preferred,
            inactivity_timeout: Some(config.stall_max.max(config.login_grace)),
            keepalive_interval: Some(Duration::from_secs(60)),
            keepalive_max: 3,
            ..Config::default()
        })))
    }
}
