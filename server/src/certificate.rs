//! The server's certificate: a self-signed one made at the first start, or files of the operator's.

use crate::config::CertificateSource;
use crate::data_folder::{DataFolder, DataFolderError, write_private};
use rcgen::{CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, KeyPair, KeyUsagePurpose};
use rustls::ServerConfig;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Why the server has no certificate to show.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// A PEM file cannot be read or holds nothing of the kind.
    #[error("{path}: {reason}")]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// Certificate and key do not fit, or TLS refuses them.
    #[error("the certificate cannot be used: {0}")]
    Tls(#[from] rustls::Error),
    /// The certificate could not be made.
    #[error("no self-signed certificate could be made: {0}")]
    Make(#[from] rcgen::Error),
    /// It could not be stored.
    #[error(transparent)]
    Folder(#[from] DataFolderError),
}

/// A certificate chain with its key.
pub struct Certificate {
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
}

/// SHA-256 of a certificate, as agents pin it: `sha256:` and 64 hexadecimal digits.
pub fn fingerprint(certificate: &CertificateDer<'_>) -> String {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, certificate);
    format!("sha256:{}", data_encoding::HEXLOWER.encode(digest.as_ref()))
}

/// Reads the first certificate of a PEM file.
pub fn read_first(path: &Path) -> Result<CertificateDer<'static>, CertificateError> {
    CertificateDer::from_pem_file(path)
        .map_err(|error| CertificateError::File { path: path.to_owned(), reason: error.to_string() })
}

impl Certificate {
    /// From where the settings say; a self-signed one is made for `names` when there is none yet.
    pub fn load_or_create(
        source: &CertificateSource,
        folder: &DataFolder,
        names: Vec<String>,
    ) -> Result<Self, CertificateError> {
        match source {
            CertificateSource::Files { certificate, private_key } => Self::read(certificate, private_key),
            CertificateSource::SelfSigned => {
                // The key is written first: a certificate without its key would never be replaced.
                if !folder.certificate().exists() {
                    Self::make(folder, names)?;
                }
                Self::read(&folder.certificate(), &folder.private_key())
            }
        }
    }

    fn make(folder: &DataFolder, names: Vec<String>) -> Result<(), CertificateError> {
        // ECDSA P-256: signing is what a handshake costs the server.
        let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256)?;
        let mut parameters = CertificateParams::new(names)?;
        let mut subject = DistinguishedName::new();
        subject.push(DnType::CommonName, "Holdfast server");
        parameters.distinguished_name = subject;
        parameters.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        parameters.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        // Agents pin its fingerprint; its dates decide nothing.
        parameters.not_before = rcgen::date_time_ymd(2020, 1, 1);
        parameters.not_after = rcgen::date_time_ymd(2120, 1, 1);
        let certificate = parameters.self_signed(&key)?;
        write_private(&folder.private_key(), key.serialize_pem().as_bytes())?;
        write_private(&folder.certificate(), certificate.pem().as_bytes())?;
        Ok(())
    }

    fn read(certificate: &Path, private_key: &Path) -> Result<Self, CertificateError> {
        let at = |path: &Path| {
            let path = path.to_owned();
            move |error: rustls_pki_types::pem::Error| CertificateError::File { path, reason: error.to_string() }
        };
        let chain: Vec<_> = CertificateDer::pem_file_iter(certificate)
            .map_err(at(certificate))?
            .collect::<Result<_, _>>()
            .map_err(at(certificate))?;
        if chain.is_empty() {
            let reason = "holds no certificate".into();
            return Err(CertificateError::File { path: certificate.to_owned(), reason });
        }
        let key = PrivateKeyDer::from_pem_file(private_key).map_err(at(private_key))?;
        Ok(Certificate { chain, key })
    }

    /// SHA-256 of the server's own certificate.
    pub fn fingerprint(&self) -> String {
        self.chain.first().map(fingerprint).unwrap_or_default()
    }

    /// The server's own certificate as PEM.
    pub fn to_pem(&self) -> String {
        let bytes = self.chain.first().map(CertificateDer::as_ref).unwrap_or_default();
        let base64 = data_encoding::BASE64.encode(bytes);
        let mut pem = String::from("-----BEGIN CERTIFICATE-----\n");
        for line in base64.as_bytes().chunks(64) {
            pem.push_str(&String::from_utf8_lossy(line));
            pem.push('\n');
        }
        pem.push_str("-----END CERTIFICATE-----\n");
        pem
    }

    /// TLS 1.2 and 1.3 with aws-lc-rs, offering HTTP/2 and HTTP/1.1.
    pub fn server_config(self) -> Result<Arc<ServerConfig>, CertificateError> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(self.chain, self.key)?;
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Arc::new(config))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_is_made_once() {
        let parent = tempfile::tempdir().unwrap();
        let folder = DataFolder::new(parent.path().join("data"));
        folder.create().unwrap();
        let make =
            || Certificate::load_or_create(&CertificateSource::SelfSigned, &folder, vec!["localhost".into()]).unwrap();
        let first = make();
        assert_eq!(first.fingerprint(), make().fingerprint());
        std::fs::write(folder.shown_certificate(), first.to_pem()).unwrap();
        let shown = read_first(&folder.shown_certificate()).unwrap();
        assert_eq!(fingerprint(&shown), first.fingerprint());
        first.server_config().unwrap();
    }
}
