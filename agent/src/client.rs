//! What the agent says to the server, typed: one method per call, with retries for everything that time can mend.

use crate::stop::Stop;
use crate::transport::{Method, Request, Response, Transport, TransportError};
use api::accounts::{Info, Me};
use api::browse::{Snapshot, Snapshots};
use api::objects::{BodyDecoder, Record};
use api::problem::{Code, Problem};
use api::retention::{PlanRequest, RetentionPlan};
use api::states::{BeginRestore, RestoreHold, SetHold, SetTags};
use api::upload::{BeginUpload, Commit, Durable, Flush, Received, UploadSession};
use bytes::{Bytes, BytesMut};
use repo_format::id::ObjectId;
use repo_format::keys::IdKeys;
use serde::de::DeserializeOwned;
use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Media type of JSON bodies.
const JSON: &str = "application/json";
/// First pause before a retry; doubles up to [`BACKOFF_MAX`].
const BACKOFF_FIRST: Duration = Duration::from_millis(50);
/// Longest pause between retries.
const BACKOFF_MAX: Duration = Duration::from_secs(4);
/// Longest pause a server may ask for.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(60);
/// Largest answer that is not a body of objects.
const ANSWER_BYTES_MAX: usize = 256 << 20;

/// Why a call failed for good.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The server refused and said why.
    #[error("{detail}")]
    Refused {
        /// HTTP status.
        status: u16,
        /// What the caller must do.
        code: Code,
        /// The server's words.
        detail: String,
        /// With `missing_objects`: what must be sent again.
        missing: Vec<String>,
    },
    /// The server's certificate is not the expected one.
    #[error("{0}")]
    Certificate(String),
    /// The server could not be reached, or not do it, for as long as the agent was told to wait.
    #[error("no success within {waited_s} s: {detail}")]
    Away {
        /// Seconds tried.
        waited_s: u64,
        /// The last reason.
        detail: String,
    },
    /// The answer does not follow the protocol.
    #[error("unexpected answer of the server: {0}")]
    Protocol(String),
    /// The run was stopped while waiting.
    #[error("stopped")]
    Stopped,
}

impl ClientError {
    /// The code, when the server refused.
    pub fn code(&self) -> Option<Code> {
        match self {
            ClientError::Refused { code, .. } => Some(*code),
            _ => None,
        }
    }
}

/// Told before each wait: the reason and the pause.
pub type OnWait = dyn Fn(&str, Duration) + Send + Sync;

/// How long the agent waits for a server that is away, and whom it tells.
#[derive(Clone)]
pub struct Patience {
    /// Longest time a single call is tried.
    pub total: Duration,
    /// Told before each wait: the reason and the pause.
    pub on_wait: Arc<OnWait>,
}

impl Default for Patience {
    fn default() -> Self {
        Patience { total: Duration::from_secs(15 * 60), on_wait: Arc::new(|_, _| {}) }
    }
}

/// Speaks for one token with one server.
#[derive(Clone)]
pub struct Client {
    transport: Arc<dyn Transport>,
    patience: Patience,
    stop: Stop,
    retries: Arc<AtomicU64>,
}

struct Answer {
    incarnation: Option<u64>,
    body: Bytes,
}

/// One failed attempt.
enum Attempt {
    /// Time may mend it.
    Later { detail: String, after: Option<Duration> },
    /// It may not.
    Never(ClientError),
}

impl Client {
    /// Over `transport`; waits end when `stop` is set.
    pub fn new(transport: Arc<dyn Transport>, patience: Patience, stop: Stop) -> Self {
        Client { transport, patience, stop, retries: Arc::default() }
    }

    /// Attempts that had to be repeated so far.
    pub fn retries(&self) -> u64 {
        self.retries.load(Ordering::Relaxed)
    }

    /// The same with another reason to end waits.
    pub fn with_stop(&self, stop: Stop) -> Self {
        Client { stop, ..self.clone() }
    }

    /// The same with other patience.
    pub fn with_patience(&self, patience: Patience) -> Self {
        Client { patience, ..self.clone() }
    }

    /// About the server.
    pub fn info(&self) -> Result<Info, ClientError> {
        self.get("/info")
    }

    /// About the token.
    pub fn me(&self) -> Result<Me, ClientError> {
        self.get("/me")
    }

    /// The id keys of a vault.
    pub fn keys(&self, vault: &str) -> Result<IdKeys, ClientError> {
        let answer = self.call(Method::Get, &format!("/vaults/{vault}/keys"), JSON, Bytes::new())?;
        IdKeys::from_bytes(&answer.body).map_err(|error| ClientError::Protocol(error.to_string()))
    }

    /// Every snapshot of a vault, oldest first.
    pub fn snapshots(&self, vault: &str) -> Result<Vec<Snapshot>, ClientError> {
        Ok(self.get::<Snapshots>(&format!("/vaults/{vault}/snapshots"))?.snapshots)
    }

    /// Deletes a snapshot so that it can be brought back.
    pub fn delete_snapshot(&self, vault: &str, snapshot: &str) -> Result<Snapshot, ClientError> {
        let path = format!("/vaults/{vault}/snapshots/{snapshot}");
        from_json(&self.call(Method::Delete, &path, JSON, Bytes::new())?.body)
    }

    /// Brings a deleted snapshot back.
    pub fn undelete_snapshot(&self, vault: &str, snapshot: &str) -> Result<Snapshot, ClientError> {
        let path = format!("/vaults/{vault}/snapshots/{snapshot}/undelete");
        from_json(&self.call(Method::Post, &path, JSON, Bytes::new())?.body)
    }

    /// Removes a snapshot for good.
    pub fn purge_snapshot(&self, vault: &str, snapshot: &str) -> Result<(), ClientError> {
        let path = format!("/vaults/{vault}/snapshots/{snapshot}/purge");
        self.call(Method::Post, &path, JSON, Bytes::new()).map(|_| ())
    }

    /// Sets, moves or lifts a snapshot's hold.
    pub fn hold_snapshot(&self, vault: &str, snapshot: &str, hold: &SetHold) -> Result<Snapshot, ClientError> {
        self.put_json(&format!("/vaults/{vault}/snapshots/{snapshot}/hold"), hold)
    }

    /// Replaces a snapshot's tags.
    pub fn tag_snapshot(&self, vault: &str, snapshot: &str, tags: &SetTags) -> Result<Snapshot, ClientError> {
        self.put_json(&format!("/vaults/{vault}/snapshots/{snapshot}/tags"), tags)
    }

    /// What would expire now.
    pub fn retention_plan(&self, vault: &str, request: &PlanRequest) -> Result<RetentionPlan, ClientError> {
        self.post_json(&format!("/vaults/{vault}/retention/plan"), request)
    }

    /// Keeps everything in a snapshot while it is read.
    pub fn begin_restore(&self, vault: &str, snapshot: &str) -> Result<RestoreHold, ClientError> {
        self.post_json(&format!("/vaults/{vault}/restores"), &BeginRestore { snapshot: snapshot.to_owned() })
    }

    /// Says that a restore goes on.
    pub fn touch_restore(&self, vault: &str, restore: &str) -> Result<(), ClientError> {
        self.call(Method::Put, &format!("/vaults/{vault}/restores/{restore}"), JSON, Bytes::new()).map(|_| ())
    }

    /// Ends a restore.
    pub fn end_restore(&self, vault: &str, restore: &str) -> Result<(), ClientError> {
        self.call(Method::Delete, &format!("/vaults/{vault}/restores/{restore}"), JSON, Bytes::new()).map(|_| ())
    }

    /// Starts an upload session.
    pub fn begin(&self, vault: &str, begin: &BeginUpload) -> Result<UploadSession, ClientError> {
        self.post_json(&format!("/vaults/{vault}/uploads"), begin)
    }

    /// The state of an upload session.
    pub fn session(&self, vault: &str, session: &str) -> Result<UploadSession, ClientError> {
        self.get(&format!("/vaults/{vault}/uploads/{session}"))
    }

    /// Which of `ids` (at most `HAVE_IDS_MAX`) the vault has, and under which incarnation.
    pub fn have(&self, vault: &str, session: &str, ids: &[ObjectId]) -> Result<(Vec<bool>, u64), ClientError> {
        let path = format!("/vaults/{vault}/uploads/{session}/have");
        let answer = self.call(Method::Post, &path, api::BINARY, id_bytes(ids))?;
        if answer.body.len() != ids.len() || answer.body.iter().any(|byte| *byte > 1) {
            return Err(ClientError::Protocol(format!(
                "`have` of {} ids answered {} bytes",
                ids.len(),
                answer.body.len()
            )));
        }
        let incarnation =
            answer.incarnation.ok_or_else(|| ClientError::Protocol("`have` names no incarnation".into()))?;
        Ok((answer.body.iter().map(|byte| *byte == 1).collect(), incarnation))
    }

    /// Sends chunks; they are received, not durable.
    pub fn chunks(&self, vault: &str, session: &str, body: Bytes) -> Result<Received, ClientError> {
        self.post_binary(&format!("/vaults/{vault}/uploads/{session}/chunks"), body)
    }

    /// Sends nodes, children first; the answer is durable.
    pub fn nodes(&self, vault: &str, session: &str, body: Bytes) -> Result<Durable, ClientError> {
        self.post_binary(&format!("/vaults/{vault}/uploads/{session}/nodes"), body)
    }

    /// Makes what was received under `incarnation` durable.
    pub fn flush(&self, vault: &str, session: &str, incarnation: u64) -> Result<Durable, ClientError> {
        self.post_json(&format!("/vaults/{vault}/uploads/{session}/flush"), &Flush { incarnation })
    }

    /// Commits a root; repeating it answers the same snapshot.
    pub fn commit(&self, vault: &str, session: &str, commit: &Commit) -> Result<Snapshot, ClientError> {
        self.post_json(&format!("/vaults/{vault}/uploads/{session}/commit"), commit)
    }

    /// Ends an upload session without a snapshot.
    pub fn abandon(&self, vault: &str, session: &str) -> Result<(), ClientError> {
        self.call(Method::Delete, &format!("/vaults/{vault}/uploads/{session}"), JSON, Bytes::new()).map(|_| ())
    }

    /// Fetches `ids` (distinct, at most `GET_IDS_MAX`) and hands each record to `take` once, in the order of the server.
    /// A connection that breaks is asked only for what has not come yet. `take` answers `false` to end early.
    pub fn objects(
        &self,
        vault: &str,
        ids: &[ObjectId],
        take: &mut dyn FnMut(Record) -> bool,
    ) -> Result<(), ClientError> {
        let path = format!("{}/vaults/{vault}/objects", api::PREFIX);
        let mut wanted: HashSet<ObjectId> = ids.iter().copied().collect();
        let mut started = Instant::now();
        let mut failures = 0;
        while !wanted.is_empty() {
            let rest: Vec<ObjectId> = ids.iter().filter(|id| wanted.contains(id)).copied().collect();
            let request =
                Request { method: Method::Post, path: path.clone(), content_type: api::BINARY, body: id_bytes(&rest) };
            let before = wanted.len();
            match self.read_objects(&request, &mut wanted, take) {
                Ok(true) if wanted.is_empty() => break,
                Ok(true) => return Err(ClientError::Protocol(format!("{} objects were left out", wanted.len()))),
                Ok(false) => return Ok(()),
                Err(Attempt::Never(error)) => return Err(error),
                Err(Attempt::Later { detail, after }) => {
                    if wanted.len() < before {
                        (started, failures) = (Instant::now(), 0);
                    }
                    self.pause(started, failures, detail, after)?;
                    failures += 1;
                }
            }
        }
        Ok(())
    }

    fn read_objects(
        &self,
        request: &Request,
        wanted: &mut HashSet<ObjectId>,
        take: &mut dyn FnMut(Record) -> bool,
    ) -> Result<bool, Attempt> {
        let mut response = self.attempt(request)?;
        let mut decoder = BodyDecoder::default();
        let malformed = |error: api::objects::BodyError| Attempt::Never(ClientError::Protocol(error.to_string()));
        loop {
            let piece = response.body.next_piece().map_err(later)?;
            let Some(piece) = piece else {
                decoder.finish().map_err(|error| Attempt::Later { detail: error.to_string(), after: None })?;
                return Ok(true);
            };
            decoder.push(&piece);
            while let Some(record) = decoder.next_record().map_err(malformed)? {
                if !wanted.remove(&record.id) {
                    let text = format!("object {} was not asked for", record.id);
                    return Err(Attempt::Never(ClientError::Protocol(text)));
                }
                if !take(record) {
                    return Ok(false);
                }
            }
        }
    }

    pub(crate) fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        from_json(&self.call(Method::Get, path, JSON, Bytes::new())?.body)
    }

    pub(crate) fn post_json<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl serde::Serialize,
    ) -> Result<T, ClientError> {
        let body = serde_json::to_vec(body).map_err(|error| ClientError::Protocol(error.to_string()))?;
        from_json(&self.call(Method::Post, path, JSON, body.into())?.body)
    }

    /// For calls whose answer has no body.
    pub(crate) fn post_nothing(&self, path: &str, body: &impl serde::Serialize) -> Result<(), ClientError> {
        let body = serde_json::to_vec(body).map_err(|error| ClientError::Protocol(error.to_string()))?;
        self.call(Method::Post, path, JSON, body.into()).map(|_| ())
    }

    pub(crate) fn put_json<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl serde::Serialize,
    ) -> Result<T, ClientError> {
        let body = serde_json::to_vec(body).map_err(|error| ClientError::Protocol(error.to_string()))?;
        from_json(&self.call(Method::Put, path, JSON, body.into())?.body)
    }

    fn post_binary<T: DeserializeOwned>(&self, path: &str, body: Bytes) -> Result<T, ClientError> {
        from_json(&self.call(Method::Post, path, api::BINARY, body)?.body)
    }

    /// Tries until it succeeds, is refused, or patience ends.
    fn call(&self, method: Method, path: &str, content_type: &'static str, body: Bytes) -> Result<Answer, ClientError> {
        let request = Request { method, path: format!("{}{path}", api::PREFIX), content_type, body };
        let started = Instant::now();
        let mut failures = 0;
        loop {
            let attempt = self.attempt(&request).and_then(|mut response| {
                let body = read_all(&mut response).map_err(later)?;
                Ok(Answer { incarnation: response.incarnation, body })
            });
            match attempt {
                Ok(answer) => return Ok(answer),
                Err(Attempt::Never(error)) => return Err(error),
                Err(Attempt::Later { detail, after }) => self.pause(started, failures, detail, after)?,
            }
            failures += 1;
        }
    }

    /// One exchange; anything but 2xx is an error.
    fn attempt(&self, request: &Request) -> Result<Response, Attempt> {
        if self.stop.is_stopped() {
            return Err(Attempt::Never(ClientError::Stopped));
        }
        let mut response = self.transport.send(request).map_err(later)?;
        let status = response.status;
        if (200..300).contains(&status) {
            return Ok(response);
        }
        let after = response.retry_after;
        let body = read_all(&mut response).map_err(later)?;
        let Ok(problem) = serde_json::from_slice::<Problem>(&body) else {
            // Something between agent and server answers, e.g. a proxy.
            let detail = format!("HTTP status {status}");
            return Err(match status {
                429 | 502 | 503 | 504 => Attempt::Later { detail, after },
                _ => Attempt::Never(ClientError::Protocol(detail)),
            });
        };
        let mends = matches!(status, 429 | 502 | 503 | 504) || problem.code == Code::ServerDiskFull;
        if mends {
            return Err(Attempt::Later { detail: problem.detail, after });
        }
        Err(Attempt::Never(ClientError::Refused {
            status,
            code: problem.code,
            detail: problem.detail,
            missing: problem.missing,
        }))
    }

    fn pause(
        &self,
        started: Instant,
        failures: u32,
        detail: String,
        after: Option<Duration>,
    ) -> Result<(), ClientError> {
        self.retries.fetch_add(1, Ordering::Relaxed);
        let waited = started.elapsed();
        if waited >= self.patience.total {
            return Err(ClientError::Away { waited_s: waited.as_secs(), detail });
        }
        let pause = match after {
            Some(after) => after.min(RETRY_AFTER_MAX),
            None => jittered(BACKOFF_FIRST.saturating_mul(1 << failures.min(10)).min(BACKOFF_MAX)),
        };
        (self.patience.on_wait)(&detail, pause);
        self.stop.sleep(pause).map_err(|_| ClientError::Stopped)
    }
}

fn later(error: TransportError) -> Attempt {
    match error {
        TransportError::Certificate(text) => Attempt::Never(ClientError::Certificate(text)),
        TransportError::Impossible(text) => Attempt::Never(ClientError::Protocol(text)),
        TransportError::Broken(detail) => Attempt::Later { detail, after: None },
    }
}

/// Between half of `pause` and all of it, so that many agents do not come back at the same moment.
fn jittered(pause: Duration) -> Duration {
    let random = getrandom::u32().unwrap_or(u32::MAX);
    pause / 2 + (pause / 2).mul_f64(f64::from(random) / f64::from(u32::MAX))
}

fn id_bytes(ids: &[ObjectId]) -> Bytes {
    let mut out = BytesMut::with_capacity(ids.len() * ObjectId::LEN);
    for id in ids {
        out.extend_from_slice(id.as_bytes());
    }
    out.freeze()
}

fn read_all(response: &mut Response) -> Result<Bytes, TransportError> {
    let mut all = BytesMut::new();
    while let Some(piece) = response.body.next_piece()? {
        if all.len() + piece.len() > ANSWER_BYTES_MAX {
            return Err(TransportError::Impossible("the answer is too large".into()));
        }
        all.extend_from_slice(&piece);
    }
    Ok(all.freeze())
}

fn from_json<T: DeserializeOwned>(body: &[u8]) -> Result<T, ClientError> {
    serde_json::from_slice(body).map_err(|error| ClientError::Protocol(error.to_string()))
}
