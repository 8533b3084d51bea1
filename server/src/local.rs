//! Talking to the running server on the same machine: its address, certificate and a credential lie in the data
//! folder. Used by the administration commands, which work only through the API.

use crate::certificate::{self, CertificateError};
use crate::data_folder::DataFolder;
use api::problem::Problem;
use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::{Method, Request, StatusCode, header};
use hyper_util::rt::TokioIo;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpStream;
use zeroize::Zeroizing;

const TIMEOUT: Duration = Duration::from_secs(30);
/// For calls that remove files by the terabyte.
const LEISURE: Duration = Duration::from_secs(24 * 60 * 60);
const ANSWER_BYTES_MAX: usize = 256 << 20;

/// Why a command could not be carried out by the running server.
#[derive(Debug, thiserror::Error)]
pub enum LocalError {
    /// Nothing answers for this data folder.
    #[error(
        "no server is running on the data folder {0}: start it with `holdfastd serve` (or name another with --data)"
    )]
    NotRunning(PathBuf),
    /// The folder cannot be read by this user.
    #[error("{path}: {source}")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The certificate in the data folder cannot be used.
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    /// TLS could not be set up.
    #[error("TLS: {0}")]
    Tls(#[from] rustls::Error),
    /// The connection broke.
    #[error("the server at {address} did not answer: {reason}")]
    Broken {
        /// Where.
        address: String,
        /// Why.
        reason: String,
    },
    /// The server refused.
    #[error("{}: {}", .0.title, .0.detail)]
    Refused(Box<Problem>),
}

/// A way to the running server.
pub struct LocalServer {
    address: String,
    token: Zeroizing<String>,
    certificate: CertificateDer<'static>,
    public_url: String,
}

impl LocalServer {
    /// From the files that the running server keeps, with the credential in `token_file` in place of the operator's.
    /// [`LocalError::NotRunning`] when there are none.
    pub fn find(folder: &DataFolder, token_file: Option<&Path>) -> Result<Self, LocalError> {
        let read = |path: PathBuf| match std::fs::read_to_string(&path) {
            Ok(text) => Ok(text.trim().to_owned()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Err(LocalError::NotRunning(folder.root().to_owned()))
            }
            Err(source) => Err(LocalError::Unreadable { path, source }),
        };
        let address = read(folder.address())?;
        let token = match token_file {
            Some(path) => std::fs::read_to_string(path)
                .map(|text| text.trim().to_owned())
                .map_err(|source| LocalError::Unreadable { path: path.to_owned(), source })?,
            None => read(folder.local_token())?,
        };
        Ok(LocalServer {
            address,
            token: Zeroizing::new(token),
            public_url: read(folder.public_url())?,
            certificate: certificate::read_first(&folder.shown_certificate())?,
        })
    }

    /// The URL for people and agents.
    pub fn public_url(&self) -> &str {
        &self.public_url
    }

    /// What agents pin.
    pub fn fingerprint(&self) -> String {
        certificate::fingerprint(&self.certificate)
    }

    /// `GET`.
    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, LocalError> {
        self.call(Method::GET, path, Bytes::new()).await
    }

    /// As [`LocalServer::get`], for what takes its time.
    pub async fn get_at_leisure<T: DeserializeOwned>(&self, path: &str) -> Result<T, LocalError> {
        let bytes = self.succeed_within(LEISURE, Method::GET, path, Bytes::new()).await?;
        serde_json::from_slice(&bytes).map_err(|error| self.broken(error))
    }

    /// `GET` of lines of text.
    pub async fn get_lines(&self, path: &str) -> Result<String, LocalError> {
        let bytes = self.succeed_within(LEISURE, Method::GET, path, Bytes::new()).await?;
        String::from_utf8(bytes.to_vec()).map_err(|error| self.broken(error))
    }

    /// `DELETE`.
    pub async fn delete<T: DeserializeOwned>(&self, path: &str) -> Result<T, LocalError> {
        self.call(Method::DELETE, path, Bytes::new()).await
    }

    /// `DELETE` of something large: the server answers when it is done.
    pub async fn delete_at_leisure<T: DeserializeOwned>(&self, path: &str) -> Result<T, LocalError> {
        let bytes = self.succeed_within(LEISURE, Method::DELETE, path, Bytes::new()).await?;
        serde_json::from_slice(&bytes).map_err(|error| self.broken(error))
    }

    /// `POST` of a JSON body.
    pub async fn post<T: DeserializeOwned>(&self, path: &str, body: &impl Serialize) -> Result<T, LocalError> {
        let body = serde_json::to_vec(body).map_err(|error| self.broken(error))?;
        self.call(Method::POST, path, body.into()).await
    }

    /// `POST` without a body and without an answer but success.
    pub async fn post_nothing(&self, path: &str) -> Result<(), LocalError> {
        self.succeed(Method::POST, path, Bytes::new()).await.map(|_| ())
    }

    /// As [`LocalServer::post`], for work that takes its time.
    pub async fn post_and_wait<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
        timeout: Duration,
    ) -> Result<T, LocalError> {
        let body = serde_json::to_vec(body).map_err(|error| self.broken(error))?;
        let bytes = self.succeed_within(timeout, Method::POST, path, body.into()).await?;
        serde_json::from_slice(&bytes).map_err(|error| self.broken(error))
    }

    /// `PUT` of a JSON body.
    pub async fn put<T: DeserializeOwned>(&self, path: &str, body: &impl Serialize) -> Result<T, LocalError> {
        let body = serde_json::to_vec(body).map_err(|error| self.broken(error))?;
        self.call(Method::PUT, path, body.into()).await
    }

    /// `PATCH` of a JSON body.
    pub async fn patch<T: DeserializeOwned>(&self, path: &str, body: &impl Serialize) -> Result<T, LocalError> {
        let body = serde_json::to_vec(body).map_err(|error| self.broken(error))?;
        self.call(Method::PATCH, path, body.into()).await
    }

    /// `DELETE` without an answer but success.
    pub async fn delete_nothing(&self, path: &str) -> Result<(), LocalError> {
        self.succeed(Method::DELETE, path, Bytes::new()).await.map(|_| ())
    }

    fn broken(&self, reason: impl std::fmt::Display) -> LocalError {
        LocalError::Broken { address: self.address.clone(), reason: reason.to_string() }
    }

    async fn call<T: DeserializeOwned>(&self, method: Method, path: &str, body: Bytes) -> Result<T, LocalError> {
        let bytes = self.succeed(method, path, body).await?;
        serde_json::from_slice(&bytes).map_err(|error| self.broken(error))
    }

    /// The body of an answer that must be a success.
    async fn succeed(&self, method: Method, path: &str, body: Bytes) -> Result<Bytes, LocalError> {
        self.succeed_within(TIMEOUT, method, path, body).await
    }

    async fn succeed_within(
        &self,
        limit: Duration,
        method: Method,
        path: &str,
        body: Bytes,
    ) -> Result<Bytes, LocalError> {
        let exchange = self.exchange(method, path, body);
        let (status, bytes) =
            tokio::time::timeout(limit, exchange).await.map_err(|_| self.broken("it took too long"))??;
        if status.is_success() {
            return Ok(bytes);
        }
        match serde_json::from_slice(&bytes) {
            Ok(problem) => Err(LocalError::Refused(Box::new(problem))),
            Err(_) => Err(self.broken(format!("it answered {status}"))),
        }
    }

    async fn exchange(&self, method: Method, path: &str, body: Bytes) -> Result<(StatusCode, Bytes), LocalError> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let verifier = Arc::new(ExactCertificate { certificate: self.certificate.clone(), provider: provider.clone() });
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .dangerous()
            .with_custom_certificate_verifier(verifier)
            .with_no_client_auth();
        // The files of a server that was killed stay behind; then nothing listens.
        let stream = TcpStream::connect(&self.address).await.map_err(|error| match error.kind() {
            io::ErrorKind::ConnectionRefused => {
                self.broken("nothing listens there; start the server with `holdfastd serve`")
            }
            _ => self.broken(error),
        })?;
        let name = ServerName::IpAddress(std::net::Ipv4Addr::LOCALHOST.into());
        let stream = tokio_rustls::TlsConnector::from(Arc::new(config))
            .connect(name, stream)
            .await
            .map_err(|error| self.broken(error))?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|error| self.broken(error))?;
        let connection = tokio::spawn(connection);
        let request = Request::builder()
            .method(method)
            .uri(format!("{}{path}", api::PREFIX))
            .header(header::HOST, "localhost")
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::AUTHORIZATION, format!("Bearer {}", self.token.as_str()))
            .header(api::PROTOCOL_HEADER, api::PROTOCOL_VERSION)
            .body(Full::new(body))
            .map_err(|error| self.broken(error))?;
        let response = sender.send_request(request).await.map_err(|error| self.broken(error))?;
        let status = response.status();
        let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX);
        let bytes = body.collect().await.map_err(|error| self.broken(error))?.to_bytes();
        connection.abort();
        Ok((status, bytes))
    }
}

/// Trusts the very certificate that lies in the data folder, whatever names and dates it has.
#[derive(Debug)]
struct ExactCertificate {
    certificate: CertificateDer<'static>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for ExactCertificate {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        if *end_entity == self.certificate {
            Ok(ServerCertVerified::assertion())
        } else {
            Err(rustls::CertificateError::ApplicationVerificationFailure.into())
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
