//! Which server certificate is trusted: one known by its fingerprint, those of a given authority, or public ones.

use parking_lot::Mutex;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

/// SHA-256 of a certificate's DER bytes; written `sha256:` and 64 hexadecimal digits (colons between them allowed).
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Fingerprint([u8; 32]);

impl Fingerprint {
    /// Of a certificate.
    pub fn of(certificate: &CertificateDer<'_>) -> Self {
        let digest = aws_lc_sha256(certificate.as_ref());
        Fingerprint(digest)
    }
}

fn aws_lc_sha256(bytes: &[u8]) -> [u8; 32] {
    let mut out = [0; 32];
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, bytes);
    out.copy_from_slice(digest.as_ref());
    out
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256:{}", data_encoding::HEXLOWER.encode(&self.0))
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A text that is not a fingerprint.
#[derive(Debug, thiserror::Error)]
#[error("a fingerprint is `sha256:` followed by 64 hexadecimal digits")]
pub struct BadFingerprint;

impl std::str::FromStr for Fingerprint {
    type Err = BadFingerprint;
    fn from_str(text: &str) -> Result<Self, BadFingerprint> {
        let text = text.trim();
        let digits = match text.split_at_checked(7) {
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("sha256:") => rest,
            _ => text,
        };
        let digits: String = digits.chars().filter(|c| *c != ':').collect();
        let bytes = data_encoding::HEXLOWER_PERMISSIVE.decode(digits.as_bytes()).map_err(|_| BadFingerprint)?;
        bytes.try_into().map(Fingerprint).map_err(|_| BadFingerprint)
    }
}

/// What a server must show.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trust {
    /// Exactly the certificate with this fingerprint; names and dates in it do not matter.
    Pinned(Fingerprint),
    /// A certificate for its name, issued by an authority in this PEM file.
    Authority(PathBuf),
    /// A certificate for its name, issued by an authority the system trusts.
    Public,
}

/// Why no connection can be set up at all.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The PEM file of `--ca` cannot be used.
    #[error("{path}: {detail}")]
    Authority {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        detail: String,
    },
    /// The library refuses the settings.
    #[error("TLS cannot be set up: {0}")]
    Setup(String),
}

/// Where a verifier leaves the text of its last refusal: the HTTP library swallows it.
#[derive(Clone, Default, Debug)]
pub struct Refusal(Arc<Mutex<Option<String>>>);

impl Refusal {
    /// The last refusal, once.
    pub fn take(&self) -> Option<String> {
        self.0.lock().take()
    }
}

/// Client settings that accept what `trust` says; refusals are explained in the second value.
pub fn client_config(trust: &Trust) -> Result<(ClientConfig, Refusal), TlsError> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let refusal = Refusal::default();
    let setup = |error: rustls::Error| TlsError::Setup(error.to_string());
    let judge = match trust {
        Trust::Pinned(expected) => Judge::Pinned(*expected),
        Trust::Authority(path) => {
            let bad = |detail: String| TlsError::Authority { path: path.clone(), detail };
            let mut roots = RootCertStore::empty();
            let certificates = CertificateDer::pem_file_iter(path).map_err(|error| bad(error.to_string()))?;
            for certificate in certificates {
                let certificate = certificate.map_err(|error| bad(error.to_string()))?;
                roots.add(certificate).map_err(|error| bad(error.to_string()))?;
            }
            if roots.is_empty() {
                return Err(bad("holds no certificate in PEM form".to_owned()));
            }
            Judge::Issued(issued_by(roots, &provider)?)
        }
        Trust::Public => {
            let mut roots = RootCertStore::empty();
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            if roots.is_empty() {
                return Ok((config_with(Judge::Nothing, &refusal, provider).map_err(setup)?, refusal));
            }
            Judge::Issued(issued_by(roots, &provider)?)
        }
    };
    Ok((config_with(judge, &refusal, provider).map_err(setup)?, refusal))
}

fn issued_by(roots: RootCertStore, provider: &Arc<CryptoProvider>) -> Result<Arc<WebPkiServerVerifier>, TlsError> {
    WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider.clone())
        .build()
        .map_err(|error| TlsError::Setup(error.to_string()))
}

fn config_with(judge: Judge, refusal: &Refusal, provider: Arc<CryptoProvider>) -> Result<ClientConfig, rustls::Error> {
    let verifier = Verifier { judge, refusal: refusal.clone(), provider: provider.clone() };
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    // "Dangerous" is only that a verifier of our own decides; it checks the handshake signature in every case.
    Ok(builder.dangerous().with_custom_certificate_verifier(Arc::new(verifier)).with_no_client_auth())
}

#[derive(Debug)]
enum Judge {
    Pinned(Fingerprint),
    Issued(Arc<WebPkiServerVerifier>),
    Nothing,
}

#[derive(Debug)]
struct Verifier {
    judge: Judge,
    refusal: Refusal,
    provider: Arc<CryptoProvider>,
}

impl Verifier {
    fn refuse(&self, text: String, error: rustls::Error) -> rustls::Error {
        *self.refusal.0.lock() = Some(text);
        error
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let found = Fingerprint::of(end_entity);
        let unverified = rustls::Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure);
        match &self.judge {
            Judge::Pinned(expected) if *expected == found => Ok(ServerCertVerified::assertion()),
            Judge::Pinned(expected) => Err(self.refuse(
                format!(
                    "the server shows another certificate than the pinned one: expected {expected}, found {found}; \
                     if the server's certificate was replaced on purpose, log in again with --fingerprint {found}"
                ),
                unverified,
            )),
            Judge::Nothing => Err(self.refuse(
                format!(
                    "this system knows no certificate authorities; if {found} is your server, log in with --fingerprint"
                ),
                unverified,
            )),
            Judge::Issued(verifier) => verifier
                .verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
                .map_err(|error| {
                    let text = format!(
                        "the server's certificate {found} is not trusted ({error}); if the server itself shows this \
                         fingerprint, use --fingerprint {found}, or --ca FILE with the authority that issued it"
                    );
                    self.refuse(text, error)
                }),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signature, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fingerprints_are_read_as_people_write_them() {
        let certificate = CertificateDer::from(vec![1, 2, 3]);
        let fingerprint = Fingerprint::of(&certificate);
        let text = fingerprint.to_string();
        assert_eq!(text.parse::<Fingerprint>().unwrap(), fingerprint);
        let colons: Vec<String> =
            text.as_bytes()[7..].chunks(2).map(|pair| String::from_utf8_lossy(pair).to_uppercase()).collect();
        assert_eq!(format!("SHA256:{}", colons.join(":")).parse::<Fingerprint>().unwrap(), fingerprint);
        assert!("sha256:00".parse::<Fingerprint>().is_err());
        assert!("".parse::<Fingerprint>().is_err());
    }
}
