//! A server in memory that follows the wire contract, and fails on request: it drops answers, forgets what is not
//! durable, refuses, loses and damages objects. What it counts is what tests compare.

#![allow(dead_code)] // each test program uses a part of it

use agent::client::{Client, Patience};
use agent::config::{Folders, Login};
use agent::connection::Connection;
use agent::report::{Report, Style};
use agent::stop::Stop;
use agent::tls::Trust;
use agent::transport::{Method, Request, Response, ResponseBody, Transport, TransportError};
use api::browse::{Snapshot, Snapshots};
use api::objects::{BodyDecoder, CODEC_ABSENT, CODEC_DAMAGED, Record, put_end, put_head};
use api::problem::{Code, Problem};
use api::states::RestoreHold;
use api::upload::{BeginUpload, Commit, Durable, Flush, Received, UploadSession};
use bytes::{Bytes, BytesMut};
use parking_lot::{Condvar, Mutex};
use repo_format::compress::{Codec, decompress};
use repo_format::id::{ObjectId, ObjectKind};
use repo_format::keys::{IdKeys, VaultRootKey};
use repo_format::node::NodeView;
use std::collections::{HashMap, HashSet};
use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

pub const VAULT: &str = "00112233445566778899aabbccddeeff";

#[derive(Clone)]
struct Stored {
    kind: ObjectKind,
    codec: u8,
    plain_len: u32,
    payload: Bytes,
}

/// What the server has seen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    pub requests: u64,
    pub chunks: u64,
    pub chunk_bytes: u64,
    /// Sent although durable.
    pub durable_again: u64,
    /// Sent although received and not forgotten.
    pub received_again: u64,
    pub nodes: u64,
    pub asked: u64,
    pub objects_read: u64,
    pub barriers: u64,
}

/// A failure to inject into one request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fault {
    /// The connection breaks before the request arrives.
    Refuse,
    /// It is carried out, and the answer is lost.
    LoseAnswer,
    /// What is not durable is forgotten before it is carried out.
    Crash,
    /// 503 with `retry-after: 0`.
    Busy,
    /// 507.
    Full,
    /// 413 for want of a quota.
    OverQuota,
    /// The body of the answer ends early.
    CutAnswer,
    /// It is carried out, and others overtake its answer.
    LateAnswer,
    /// Both [`Fault::Crash`] and [`Fault::LateAnswer`].
    LateCrash,
}

/// A late answer lets so many requests pass, if they come soon.
const OVERTAKEN_BY: u64 = 8;
const OVERTAKEN_WITHIN: Duration = Duration::from_millis(20);

type Faults = Box<dyn FnMut(&str, u64) -> Option<Fault> + Send>;

pub struct State {
    durable: HashMap<ObjectId, Stored>,
    received: HashMap<ObjectId, Stored>,
    pub damaged: HashSet<ObjectId>,
    incarnation: u64,
    sessions: HashMap<String, Session>,
    pub snapshots: Vec<Snapshot>,
    pub seen: Seen,
    faults: Option<Faults>,
    clock_ns: i64,
}

struct Session {
    computer: String,
    series: String,
    committed: Option<Snapshot>,
}

pub struct FakeServer {
    pub state: Mutex<State>,
    /// A request has arrived.
    arrived: Condvar,
    pub keys: IdKeys,
}

impl FakeServer {
    pub fn new() -> Arc<Self> {
        let state = State {
            durable: HashMap::new(),
            received: HashMap::new(),
            damaged: HashSet::new(),
            incarnation: 1,
            sessions: HashMap::new(),
            snapshots: Vec::new(),
            seen: Seen::default(),
            faults: None,
            clock_ns: 1_000_000_000_000_000_000,
        };
        let keys = IdKeys::derive(&VaultRootKey::from_bytes([9; 32]));
        Arc::new(FakeServer { state: Mutex::new(state), arrived: Condvar::new(), keys })
    }

    /// A connection as the commands use it, with configuration and cache below `folder`.
    pub fn connect(self: &Arc<Self>, folder: &Path) -> Connection {
        let patience = Patience { total: Duration::from_secs(60), ..Patience::default() };
        let client = Client::new(self.clone(), patience, Stop::default());
        let login = Login::new("https://fake".into(), &Trust::Public, VAULT.into(), None, "hf_test");
        let folders = Folders { config: folder.join("config"), cache: folder.join("cache") };
        Connection::with_client(client, login, folders).unwrap()
    }

    /// Asks `faults(path, number of the request)` before each request.
    pub fn inject(&self, faults: impl FnMut(&str, u64) -> Option<Fault> + Send + 'static) {
        self.state.lock().faults = Some(Box::new(faults));
    }

    pub fn heal(&self) {
        self.state.lock().faults = None;
    }

    pub fn seen(&self) -> Seen {
        self.state.lock().seen.clone()
    }

    pub fn reset_seen(&self) {
        self.state.lock().seen = Seen::default();
    }

    /// Upload sessions that were neither ended nor committed.
    pub fn live_sessions(&self) -> usize {
        self.state.lock().sessions.values().filter(|session| session.committed.is_none()).count()
    }

    pub fn stored_bytes(&self) -> u64 {
        self.state.lock().durable.values().map(|stored| stored.payload.len() as u64).sum()
    }

    /// Stored bytes of everything a snapshot needs.
    pub fn reached_bytes(&self, root: &str) -> u64 {
        let state = self.state.lock();
        let mut waiting: Vec<ObjectId> = vec![root.parse().unwrap()];
        let (mut seen, mut sum) = (HashSet::new(), 0);
        while let Some(id) = waiting.pop() {
            if !seen.insert(id) {
                continue;
            }
            let stored = state.durable.get(&id).unwrap();
            sum += stored.payload.len() as u64;
            if stored.kind == ObjectKind::Node {
                let codec = Codec::from_byte(stored.codec).unwrap();
                let plain = decompress(codec, &stored.payload, stored.plain_len).unwrap();
                let view = NodeView::parse(&plain).unwrap();
                waiting.extend(view.nodes().map(ObjectId::from).chain(view.chunks().map(ObjectId::from)));
            }
        }
        sum
    }

    pub fn lose(&self, id: &ObjectId) {
        self.state.lock().durable.remove(id);
    }

    pub fn damage(&self, id: &ObjectId) {
        self.state.lock().damaged.insert(*id);
    }

    /// Ids of durable objects of a kind, largest first.
    pub fn objects(&self, kind: ObjectKind) -> Vec<ObjectId> {
        let state = self.state.lock();
        let mut ids: Vec<(u32, ObjectId)> = state
            .durable
            .iter()
            .filter(|(_, stored)| stored.kind == kind)
            .map(|(id, stored)| (stored.plain_len, *id))
            .collect();
        ids.sort_unstable_by(|a, b| b.cmp(a));
        ids.into_iter().map(|(_, id)| id).collect()
    }
}

impl State {
    fn has(&self, id: &ObjectId) -> bool {
        self.received.contains_key(id) || (self.durable.contains_key(id) && !self.damaged.contains(id))
    }

    fn crash(&mut self) {
        self.received.clear();
        self.incarnation += 1;
    }

    fn make_durable(&mut self) {
        self.seen.barriers += 1;
        let received = std::mem::take(&mut self.received);
        for id in received.keys() {
            self.damaged.remove(id);
        }
        self.durable.extend(received);
    }
}

struct Answer {
    status: u16,
    body: Bytes,
    incarnation: Option<u64>,
}

fn json(value: &impl serde::Serialize) -> Answer {
    Answer { status: 200, body: serde_json::to_vec(value).unwrap().into(), incarnation: None }
}

fn problem(status: u16, code: Code, missing: Vec<String>) -> Answer {
    let detail = format!("refused: {code:?}");
    let kind = "urn:holdfast:problem".to_owned();
    let body = Problem {
        kind,
        title: String::new(),
        status,
        detail,
        code,
        instance: None,
        missing,
        next_allowed_ns: None,
        quota: None,
        allocation: None,
    };
    Answer { status, ..json(&body) }
}

fn records(body: &[u8]) -> Option<Vec<Record>> {
    let mut decoder = BodyDecoder::default();
    decoder.push(body);
    let mut records = Vec::new();
    while let Some(record) = decoder.next_record().ok()? {
        records.push(record);
    }
    decoder.finish().ok()?;
    Some(records)
}

fn ids(body: &[u8]) -> Vec<ObjectId> {
    body.chunks(32).map(|id| ObjectId::from_slice(id).unwrap()).collect()
}

impl FakeServer {
    fn answer(&self, request: &Request) -> Answer {
        let path = request.path.strip_prefix(api::PREFIX).unwrap();
        let parts: Vec<&str> = path.trim_start_matches('/').split('/').collect();
        let mut state = self.state.lock();
        match (request.method, parts.as_slice()) {
            (Method::Get, ["vaults", VAULT, "keys"]) => {
                Answer { status: 200, body: self.keys.to_bytes().to_vec().into(), incarnation: None }
            }
            (Method::Get, ["vaults", VAULT, "snapshots"]) => json(&Snapshots { snapshots: state.snapshots.clone() }),
            (Method::Post, ["vaults", VAULT, "uploads"]) => {
                let begin: BeginUpload = serde_json::from_slice(&request.body).unwrap();
                if let Some(base) = &begin.base_snapshot
                    && !state.snapshots.iter().any(|snapshot| snapshot.id == *base)
                {
                    return problem(404, Code::NotFound, Vec::new());
                }
                let id = format!("{:032x}", state.sessions.len() + 1);
                let base_damaged = state.damaged.iter().map(ObjectId::to_string).collect();
                let session = Session { computer: begin.computer, series: begin.series, committed: None };
                state.sessions.insert(id.clone(), session);
                json(&UploadSession { id, incarnation: state.incarnation, base_damaged, notices: Vec::new() })
            }
            (Method::Get, ["vaults", VAULT, "uploads", id]) => {
                let base_damaged = state.damaged.iter().map(ObjectId::to_string).collect();
                json(&UploadSession {
                    id: (*id).to_owned(),
                    incarnation: state.incarnation,
                    base_damaged,
                    notices: Vec::new(),
                })
            }
            (Method::Delete, ["vaults", VAULT, "uploads", id]) => {
                state.sessions.remove(*id);
                Answer { status: 204, body: Bytes::new(), incarnation: None }
            }
            (Method::Post, ["vaults", VAULT, "uploads", id, call]) => {
                if !state.sessions.contains_key(*id) {
                    return problem(404, Code::NotFound, Vec::new());
                }
                self.upload(&mut state, id, call, &request.body)
            }
            (Method::Post, ["vaults", VAULT, "restores"]) => json(&RestoreHold { id: "01".into() }),
            (Method::Delete, ["vaults", VAULT, "restores", _]) => {
                Answer { status: 204, body: Bytes::new(), incarnation: None }
            }
            (Method::Post, ["vaults", VAULT, "objects"]) => self.read(&mut state, &request.body),
            _ => problem(404, Code::NotFound, Vec::new()),
        }
    }

    fn upload(&self, state: &mut State, session: &str, call: &str, body: &Bytes) -> Answer {
        match call {
            "have" => {
                let ids = ids(body);
                state.seen.asked += ids.len() as u64;
                let present: Vec<u8> = ids.iter().map(|id| u8::from(state.has(id))).collect();
                Answer { status: 200, body: present.into(), incarnation: Some(state.incarnation) }
            }
            "chunks" => {
                let Some(records) = records(body) else { return problem(400, Code::TruncatedBody, Vec::new()) };
                let (mut new_objects, mut stored_bytes) = (0, 0);
                for record in records {
                    let codec = Codec::from_byte(record.codec).unwrap();
                    let plain = decompress(codec, &record.payload, record.plain_len).unwrap();
                    if ObjectId::from(self.keys.chunk_id(&plain)) != record.id {
                        return problem(422, Code::IdMismatch, Vec::new());
                    }
                    state.seen.chunks += 1;
                    state.seen.chunk_bytes += record.payload.len() as u64;
                    if !state.damaged.contains(&record.id) {
                        state.seen.durable_again += u64::from(state.durable.contains_key(&record.id));
                    }
                    state.seen.received_again += u64::from(state.received.contains_key(&record.id));
                    new_objects += u64::from(!state.has(&record.id));
                    stored_bytes += record.payload.len() as u64;
                    let stored = Stored {
                        kind: ObjectKind::Chunk,
                        codec: record.codec,
                        plain_len: record.plain_len,
                        payload: Bytes::copy_from_slice(&record.payload),
                    };
                    state.received.insert(record.id, stored);
                }
                json(&Received { incarnation: state.incarnation, new_objects, stored_bytes })
            }
            "nodes" => {
                let Some(records) = records(body) else { return problem(400, Code::TruncatedBody, Vec::new()) };
                let mut missing = Vec::new();
                let mut new = HashMap::new();
                for record in records {
                    let codec = Codec::from_byte(record.codec).unwrap();
                    let plain = decompress(codec, &record.payload, record.plain_len).unwrap();
                    if ObjectId::from(self.keys.node_id(&plain)) != record.id {
                        return problem(422, Code::IdMismatch, Vec::new());
                    }
                    let view = NodeView::parse(&plain).unwrap();
                    let children =
                        view.nodes().map(ObjectId::from).chain(view.chunks().map(ObjectId::from)).collect::<Vec<_>>();
                    missing.extend(
                        children.iter().filter(|id| !state.has(id) && !new.contains_key(*id)).map(|id| id.to_string()),
                    );
                    let stored = Stored {
                        kind: ObjectKind::Node,
                        codec: record.codec,
                        plain_len: record.plain_len,
                        payload: Bytes::copy_from_slice(&record.payload),
                    };
                    new.insert(record.id, stored);
                }
                if !missing.is_empty() {
                    return problem(409, Code::MissingObjects, missing);
                }
                state.seen.nodes += new.len() as u64;
                let new_objects = new.len() as u64;
                let stored_bytes = new.values().map(|stored| stored.payload.len() as u64).sum();
                state.received.extend(new);
                state.make_durable();
                json(&Durable { incarnation: state.incarnation, new_objects, stored_bytes, notices: Vec::new() })
            }
            "flush" => {
                let flush: Flush = serde_json::from_slice(body).unwrap();
                if flush.incarnation != state.incarnation {
                    return problem(409, Code::IncarnationChanged, Vec::new());
                }
                state.make_durable();
                json(&Durable { incarnation: state.incarnation, new_objects: 0, stored_bytes: 0, notices: Vec::new() })
            }
            "commit" => {
                let commit: Commit = serde_json::from_slice(body).unwrap();
                let root: ObjectId = commit.root.parse().unwrap();
                let Some(Stored { codec, payload, plain_len, .. }) = state.durable.get(&root).cloned() else {
                    return problem(409, Code::MissingObjects, vec![commit.root]);
                };
                let plain = decompress(Codec::from_byte(codec).unwrap(), &payload, plain_len).unwrap();
                let logical_bytes = NodeView::parse(&plain).unwrap().logical_bytes;
                state.clock_ns += 1_000_000_000;
                let (committed_ns, number) = (state.clock_ns, state.snapshots.len() + 1);
                let held = state.sessions.get_mut(session).unwrap();
                let snapshot = held.committed.clone().unwrap_or_else(|| Snapshot {
                    id: format!("{:032x}", (number as u128) << 100),
                    root: commit.root,
                    computer: held.computer.clone(),
                    series: held.series.clone(),
                    committed_ns,
                    logical_bytes,
                    tags: commit.summary.tags.clone(),
                    deleted: None,
                    hold_until_ns: None,
                    summary: commit.summary,
                });
                if held.committed.is_none() {
                    held.committed = Some(snapshot.clone());
                    state.snapshots.push(snapshot.clone());
                }
                json(&snapshot)
            }
            _ => problem(404, Code::NotFound, Vec::new()),
        }
    }

    fn read(&self, state: &mut State, body: &Bytes) -> Answer {
        let mut out = BytesMut::new();
        let ids = ids(body);
        // The cheapest order of a real server is not that of the question.
        for id in ids.iter().rev() {
            state.seen.objects_read += 1;
            match state.durable.get(id) {
                _ if state.damaged.contains(id) => put_head(&mut out, ObjectKind::Chunk, CODEC_DAMAGED, 0, id, 0),
                None => put_head(&mut out, ObjectKind::Chunk, CODEC_ABSENT, 0, id, 0),
                Some(stored) => {
                    put_head(&mut out, stored.kind, stored.codec, stored.plain_len, id, stored.payload.len());
                    out.extend_from_slice(&stored.payload);
                }
            }
        }
        put_end(&mut out, ids.len() as u32);
        Answer { status: 200, body: out.freeze(), incarnation: None }
    }
}

impl Transport for FakeServer {
    fn send(&self, request: &Request) -> Result<Response, TransportError> {
        let fault = {
            let mut state = self.state.lock();
            state.seen.requests += 1;
            self.arrived.notify_all();
            let number = state.seen.requests;
            let mut faults = state.faults.take();
            let fault = faults.as_mut().and_then(|faults| faults(&request.path, number));
            state.faults = faults;
            if matches!(fault, Some(Fault::Crash | Fault::LateCrash)) {
                state.crash();
            }
            fault
        };
        let answer = match fault {
            Some(Fault::Refuse) => return Err(TransportError::Broken("connection refused".into())),
            Some(Fault::Busy) => problem(503, Code::Retry, Vec::new()),
            Some(Fault::OverQuota) => problem(413, Code::QuotaExceeded, Vec::new()),
            Some(Fault::Full) => problem(507, Code::ServerDiskFull, Vec::new()),
            _ => self.answer(request),
        };
        if matches!(fault, Some(Fault::LateAnswer | Fault::LateCrash)) {
            let mut state = self.state.lock();
            let until = state.seen.requests + OVERTAKEN_BY;
            while state.seen.requests < until && !self.arrived.wait_for(&mut state, OVERTAKEN_WITHIN).timed_out() {}
        }
        if fault == Some(Fault::LoseAnswer) {
            return Err(TransportError::Broken("connection reset".into()));
        }
        let mut body = answer.body;
        let cut = fault == Some(Fault::CutAnswer);
        if cut {
            body.truncate(body.len() / 2);
        }
        Ok(Response {
            status: answer.status,
            incarnation: answer.incarnation,
            retry_after: (answer.status == 503).then_some(Duration::ZERO),
            body: Box::new(Pieces { rest: body, cut }),
        })
    }
}

struct Pieces {
    rest: Bytes,
    cut: bool,
}

impl ResponseBody for Pieces {
    fn next_piece(&mut self) -> Result<Option<Bytes>, TransportError> {
        if self.rest.is_empty() {
            return match self.cut {
                true => Err(TransportError::Broken("connection reset".into())),
                false => Ok(None),
            };
        }
        let len = self.rest.len().min(100_000);
        Ok(Some(self.rest.split_to(len)))
    }
}

/// Standard output of a report, kept.
#[derive(Clone, Default)]
pub struct Said(Arc<Mutex<Vec<u8>>>);

impl Said {
    pub fn report(&self) -> Arc<Report> {
        Arc::new(Report::to(Style::Json, Box::new(self.clone())))
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.lock()).into_owned()
    }
}

impl Write for Said {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Bytes that no compressor shortens, from a seed.
pub fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    let mut hasher = blake3::Hasher::new();
    hasher.update(&seed.to_le_bytes());
    hasher.finalize_xof().fill(&mut bytes);
    bytes
}
