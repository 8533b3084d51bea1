//! Requests of the API, one after the other, as whoever holds a secret.

use agent::tls::Trust;
use agent::transport::{HttpTransport, Method, Request, Transport};
use bytes::Bytes;
use serde_json::Value;
use std::io;

/// Somebody who asks.
pub struct Hand(HttpTransport);

impl Hand {
    /// At the server at `url`, which shows the certificate with this fingerprint; nobody in particular without a secret.
    pub fn new(url: &str, fingerprint: &str, secret: Option<&str>) -> io::Result<Self> {
        let trust = Trust::Pinned(fingerprint.parse().map_err(io::Error::other)?);
        let secret = secret.map(|secret| secret.to_owned().into());
        HttpTransport::new(url, &trust, secret, None).map(Self::over).map_err(io::Error::other)
    }

    /// Over a connection that is set up.
    pub fn over(transport: HttpTransport) -> Self {
        Hand(transport)
    }

    /// Status and body; `null` stands for none, also where the body is not JSON. Paths are those below the prefix.
    pub fn ask(&self, method: Method, path: &str, body: &Value) -> io::Result<(u16, Value)> {
        let body = if body.is_null() { Bytes::new() } else { Bytes::from(body.to_string()) };
        let path = format!("{}{path}", api::PREFIX);
        let request = Request { method, path, content_type: "application/json", body };
        let mut answer = self.0.send(&request).map_err(io::Error::other)?;
        let mut bytes = Vec::new();
        while let Some(piece) = answer.body.next_piece().map_err(io::Error::other)? {
            bytes.extend_from_slice(&piece);
        }
        Ok((answer.status, serde_json::from_slice(&bytes).unwrap_or(Value::Null)))
    }

    /// The body of a success; anything else is an error.
    pub fn done(&self, method: Method, path: &str, body: &Value) -> io::Result<Value> {
        match self.ask(method, path, body)? {
            (200..300, answer) => Ok(answer),
            (status, answer) => Err(io::Error::other(format!("{path}: {status} {answer}"))),
        }
    }
}
