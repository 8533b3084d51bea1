//! The wire without an agent's good manners: any body to any path, and exactly what the server answers.

use super::User;
use agent::tls::Trust;
use agent::transport::{HttpTransport, Method, Request, Transport};
use api::PREFIX;
use api::objects::{put_end, put_head};
use api::problem::{Code, Problem};
use api::upload::{BeginUpload, UploadSession};
use bytes::{Bytes, BytesMut};
use repo_format::id::{ObjectId, ObjectKind};
use repo_format::keys::IdKeys;
use std::io;
use zeroize::Zeroizing;

/// A connection with a user's token.
pub struct Wire {
    transport: HttpTransport,
    /// The user's vault, hexadecimal.
    pub vault: String,
}

/// Status and whole body.
#[derive(Clone, Debug)]
pub struct Answer {
    /// HTTP status.
    pub status: u16,
    /// The body.
    pub body: Bytes,
}

impl Answer {
    /// The code of a problem document; `None` for a success or another body.
    pub fn code(&self) -> Option<Code> {
        serde_json::from_slice::<Problem>(&self.body).ok().map(|problem| problem.code)
    }
}

impl Wire {
    /// With the user's token.
    pub fn connect(user: &User) -> io::Result<Self> {
        Self::with_token(user, &user.token)
    }

    /// With any token.
    pub fn with_token(user: &User, token: &str) -> io::Result<Self> {
        let fingerprint = user.fingerprint.parse().map_err(io::Error::other)?;
        let token = Some(Zeroizing::new(token.to_owned()));
        let transport =
            HttpTransport::new(&user.url, &Trust::Pinned(fingerprint), token, None).map_err(io::Error::other)?;
        Ok(Wire { transport, vault: user.vault.clone() })
    }

    /// `GET` of a path below the API's prefix.
    pub fn get(&self, path: &str) -> io::Result<Answer> {
        self.send(Method::Get, path, "", Bytes::new())
    }

    /// `POST` of a JSON body.
    pub fn post_json(&self, path: &str, body: &serde_json::Value) -> io::Result<Answer> {
        self.send(Method::Post, path, "application/json", Bytes::from(body.to_string()))
    }

    /// `POST` of a framed binary body, or of bytes that pretend to be one.
    pub fn post_binary(&self, path: &str, body: impl Into<Bytes>) -> io::Result<Answer> {
        self.send(Method::Post, path, api::BINARY, body.into())
    }

    /// Any request.
    pub fn send(&self, method: Method, path: &str, content_type: &'static str, body: Bytes) -> io::Result<Answer> {
        let request = Request { method, path: format!("{PREFIX}{path}"), content_type, body };
        let mut response = self.transport.send(&request).map_err(io::Error::other)?;
        let mut body = BytesMut::new();
        while let Some(piece) = response.body.next_piece().map_err(io::Error::other)? {
            body.extend_from_slice(&piece);
        }
        Ok(Answer { status: response.status, body: body.freeze() })
    }

    /// The vault's id keys.
    pub fn id_keys(&self) -> io::Result<IdKeys> {
        let answer = self.get(&format!("/vaults/{}/keys", self.vault))?;
        IdKeys::from_bytes(&answer.body).map_err(io::Error::other)
    }

    /// Begins an upload session and gives its path.
    pub fn begin(&self) -> io::Result<String> {
        let begin = BeginUpload { computer: "wire".into(), series: "wire".into(), base_snapshot: None };
        let body = serde_json::to_vec(&begin).map_err(io::Error::other)?;
        let path = format!("/vaults/{}/uploads", self.vault);
        let answer = self.send(Method::Post, &path, "application/json", Bytes::from(body))?;
        let session: UploadSession = serde_json::from_slice(&answer.body)
            .map_err(|error| io::Error::other(format!("{}: {error}", answer.status)))?;
        Ok(format!("{path}/{}", session.id))
    }

    /// Which of the chunks the vault has, within an upload session.
    pub fn have(&self, session: &str, ids: &[ObjectId]) -> io::Result<Vec<bool>> {
        let body: Vec<u8> = ids.iter().flat_map(|id| *id.as_bytes()).collect();
        let answer = self.post_binary(&format!("{session}/have"), body)?;
        Ok(answer.body.iter().map(|byte| *byte == 1).collect())
    }
}

/// A body of one record, whatever is wrong with it.
pub fn one_record(kind: ObjectKind, codec: u8, plain_len: u32, id: &ObjectId, payload: &[u8]) -> Bytes {
    let mut out = BytesMut::new();
    put_head(&mut out, kind, codec, plain_len, id, payload.len());
    out.extend_from_slice(payload);
    put_end(&mut out, 1);
    out.freeze()
}
