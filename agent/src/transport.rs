//! One HTTP exchange, without knowing what is said: [`Transport`] is the seam at which tests put a server of their own,
//! [`HttpTransport`] the real one (HTTP/1.1 over several kept-alive connections).

use crate::tls::{Refusal, TlsError, Trust, client_config};
use bytes::Bytes;
use parking_lot::Mutex;
use std::error::Error;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::runtime::Runtime;
use zeroize::Zeroizing;

/// Longest wait for a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(15);
/// Longest silence while an answer is awaited or read. Durable answers wait for a disk to sync.
const IDLE_TIMEOUT: Duration = Duration::from_secs(120);
/// A request's body must move at least this fast, bytes per second.
const UPLOAD_RATE_MIN: u64 = 4 << 10;
/// Idle connections kept for the next request.
const IDLE_CONNECTIONS_MAX: usize = 8;
/// Piece in which a rate-limited body is handed over, bytes.
const LIMITED_PIECE_BYTES: usize = 16 << 10;

/// HTTP method.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Method {
    /// Read.
    Get,
    /// Do.
    Post,
    /// Set.
    Put,
    /// End.
    Delete,
}

/// What is asked.
#[derive(Clone, Debug)]
pub struct Request {
    /// Method.
    pub method: Method,
    /// Path with its prefix and query, beginning with a slash.
    pub path: String,
    /// Media type of the body.
    pub content_type: &'static str,
    /// The body; empty for none.
    pub body: Bytes,
}

/// The head of an answer, and its body still to come.
pub struct Response {
    /// HTTP status.
    pub status: u16,
    /// Header `holdfast-incarnation`.
    pub incarnation: Option<u64>,
    /// Header `retry-after`, when given in seconds.
    pub retry_after: Option<Duration>,
    /// The body.
    pub body: Box<dyn ResponseBody>,
}

/// A body that arrives in pieces.
pub trait ResponseBody: Send {
    /// The next piece; `None` after the last.
    fn next_piece(&mut self) -> Result<Option<Bytes>, TransportError>;
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum TransportError {
    /// The server's certificate is not the one expected. Trying again does not help.
    #[error("{0}")]
    Certificate(String),
    /// The connection could not be made, broke, or fell silent. The request may or may not have been carried out.
    #[error("{0}")]
    Broken(String),
    /// The request itself is impossible, e.g. the URL.
    #[error("{0}")]
    Impossible(String),
}

/// Carries a request to the server and brings the answer's head back.
pub trait Transport: Send + Sync {
    /// Blocks until the head of an answer is there.
    fn send(&self, request: &Request) -> Result<Response, TransportError>;
}

/// HTTPS with a bearer token.
pub struct HttpTransport {
    runtime: Arc<Runtime>,
    client: reqwest::Client,
    base: String,
    token: Option<Zeroizing<String>>,
    refusal: Refusal,
    limit: Option<Arc<TokenBucket>>,
}

/// Why an [`HttpTransport`] cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// TLS.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// Threads or the library.
    #[error("the HTTP client cannot be set up: {0}")]
    Client(String),
    /// Not an `https://` URL.
    #[error("{0}: the server's URL must begin with https:// and name a host, nothing more")]
    Url(String),
}

impl HttpTransport {
    /// To the server at `url` (`https://host[:port]`). `upload_limit` in bytes per second.
    pub fn new(
        url: &str,
        trust: &Trust,
        token: Option<Zeroizing<String>>,
        upload_limit: Option<u64>,
    ) -> Result<Self, SetupError> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .max_blocking_threads(4)
            .thread_name("network")
            .enable_all()
            .build()
            .map_err(|error| SetupError::Client(error.to_string()))?;
        Self::on(Arc::new(runtime), url, trust, token, upload_limit)
    }

    /// As [`HttpTransport::new`], on threads that it shares with others.
    pub fn on(
        runtime: Arc<Runtime>,
        url: &str,
        trust: &Trust,
        token: Option<Zeroizing<String>>,
        upload_limit: Option<u64>,
    ) -> Result<Self, SetupError> {
        let base = url.trim_end_matches('/').to_owned();
        let parsed = reqwest::Url::parse(&base).map_err(|_| SetupError::Url(base.clone()))?;
        let plain = parsed.username().is_empty() && parsed.password().is_none() && parsed.query().is_none();
        if parsed.scheme() != "https" || !parsed.has_host() || parsed.path() != "/" || !plain {
            return Err(SetupError::Url(base));
        }
        let (tls, refusal) = client_config(trust)?;
        let client = reqwest::Client::builder()
            .tls_backend_preconfigured(tls)
            .http1_only()
            .connect_timeout(CONNECT_TIMEOUT)
            .read_timeout(IDLE_TIMEOUT)
            .tcp_nodelay(true)
            .tcp_keepalive(Duration::from_secs(30))
            .pool_max_idle_per_host(IDLE_CONNECTIONS_MAX)
            .redirect(reqwest::redirect::Policy::none())
            .user_agent(concat!("holdfast/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|error| SetupError::Client(error_chain(&error)))?;
        let limit = upload_limit.map(|rate| Arc::new(TokenBucket::new(rate)));
        Ok(HttpTransport { runtime, client, base, token, refusal, limit })
    }

    fn failed(&self, error: &reqwest::Error) -> TransportError {
        if let Some(refusal) = self.refusal.take() {
            return TransportError::Certificate(refusal);
        }
        match error.is_builder() {
            true => TransportError::Impossible(error_chain(error)),
            false => TransportError::Broken(error_chain(error)),
        }
    }
}

/// The innermost causes say what happened; the outer layers repeat the URL.
fn error_chain(error: &dyn Error) -> String {
    let mut causes = vec![error.to_string()];
    let mut next = error.source();
    while let Some(cause) = next {
        let text = cause.to_string();
        if causes.last() != Some(&text) {
            causes.push(text);
        }
        next = cause.source();
    }
    causes.drain(..causes.len().saturating_sub(2));
    causes.join(": ")
}

impl Transport for HttpTransport {
    fn send(&self, request: &Request) -> Result<Response, TransportError> {
        let url = format!("{}{}", self.base, request.path);
        let mut builder = match request.method {
            Method::Get => self.client.get(url),
            Method::Post => self.client.post(url),
            Method::Put => self.client.put(url),
            Method::Delete => self.client.delete(url),
        };
        builder = builder.header(api::PROTOCOL_HEADER, api::PROTOCOL_VERSION);
        if let Some(token) = &self.token {
            builder = builder.bearer_auth(token.as_str());
        }
        if !request.body.is_empty() {
            builder = builder.header(reqwest::header::CONTENT_TYPE, request.content_type);
            let rate = self.limit.as_ref().map_or(UPLOAD_RATE_MIN, |limit| (limit.rate / 4).clamp(1, UPLOAD_RATE_MIN));
            builder = builder.timeout(IDLE_TIMEOUT * 2 + Duration::from_secs(request.body.len() as u64 / rate));
            builder = match &self.limit {
                None => builder.body(request.body.clone()),
                Some(limit) => builder
                    .header(reqwest::header::CONTENT_LENGTH, request.body.len())
                    .body(limited_body(request.body.clone(), limit.clone())),
            };
        }
        // Sending starts a timer, which must happen inside the runtime.
        let answer = self.runtime.block_on(async { builder.send().await }).map_err(|error| self.failed(&error))?;
        let header = |name: &str| answer.headers().get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
        Ok(Response {
            status: answer.status().as_u16(),
            incarnation: header(api::upload::INCARNATION_HEADER).and_then(|text| text.parse().ok()),
            retry_after: header("retry-after").and_then(|text| text.parse().ok()).map(Duration::from_secs),
            body: Box::new(HttpBody { runtime: self.runtime.clone(), answer }),
        })
    }
}

struct HttpBody {
    runtime: Arc<Runtime>,
    answer: reqwest::Response,
}

impl ResponseBody for HttpBody {
    fn next_piece(&mut self) -> Result<Option<Bytes>, TransportError> {
        self.runtime.block_on(self.answer.chunk()).map_err(|error| TransportError::Broken(error_chain(&error)))
    }
}

/// `--limit-upload`: bytes leave at a steady rate, over all connections together.
struct TokenBucket {
    rate: u64,
    // When the next byte may leave.
    next: Mutex<Instant>,
}

impl TokenBucket {
    fn new(rate: u64) -> Self {
        TokenBucket { rate: rate.max(1), next: Mutex::new(Instant::now()) }
    }

    /// Reserves `bytes` and says how long to wait before sending them.
    fn reserve(&self, bytes: usize, now: Instant) -> Duration {
        let mut next = self.next.lock();
        let start = (*next).max(now);
        *next = start + Duration::from_nanos((bytes as u64).saturating_mul(1_000_000_000) / self.rate);
        start - now
    }
}

fn limited_body(body: Bytes, limit: Arc<TokenBucket>) -> reqwest::Body {
    let pieces = futures_util::stream::unfold((body, limit), |(mut rest, limit)| async move {
        if rest.is_empty() {
            return None;
        }
        let piece = rest.split_to(rest.len().min(LIMITED_PIECE_BYTES));
        tokio::time::sleep(limit.reserve(piece.len(), Instant::now())).await;
        Some((Ok::<Bytes, std::io::Error>(piece), (rest, limit)))
    });
    reqwest::Body::wrap_stream(pieces)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bucket_spreads_bytes_evenly() {
        let bucket = TokenBucket::new(1000);
        let start = Instant::now();
        assert_eq!(bucket.reserve(500, start), Duration::ZERO);
        let wait = bucket.reserve(500, start);
        assert!(wait >= Duration::from_millis(490) && wait <= Duration::from_millis(510), "{wait:?}");
        assert_eq!(bucket.reserve(1, start + Duration::from_secs(10)), Duration::ZERO);
    }

    #[test]
    fn only_plain_https_urls_are_servers() {
        for url in ["http://a", "https://a/path", "https://user@a", "ftp://a", "a", "https://a/?x"] {
            assert!(matches!(HttpTransport::new(url, &Trust::Public, None, None), Err(SetupError::Url(_))), "{url}");
        }
        assert!(HttpTransport::new("https://a:8443/", &Trust::Public, None, None).is_ok());
    }
}
