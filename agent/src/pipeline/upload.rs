//! The threads that move what is submitted to the server: questions, compression, sending, and the rounds that make it
//! durable. All decisions are in [`super::window`].

use super::counters::{Counters, add};
use super::limits::{
    ASKERS, BODY_AGE_MS, CHUNK_BODY_BYTES, NODE_BODY_BYTES, QUESTION_AGE_MS, QUESTION_IDS, ROUND_AGE_MS,
    ROUND_ATTEMPTS_MAX, SENDERS, WINDOW_BYTES_MAX,
};
use super::window::{Front, KeptNode, ToSend, Window};
use crate::budget::Budget;
use crate::client::{Client, ClientError};
use crate::error::AgentError;
use crate::stop::{STOP_POLL, Stop};
use api::objects::{put_end, put_head};
use api::problem::Code;
use api::quota::QuotaNotice;
use api::upload::{Commit, HAVE_IDS_MAX, UploadSession};
use bytes::{Bytes, BytesMut};
use parking_lot::{Condvar, Mutex};
use repo_format::compress::{Codec, Compressor};
use repo_format::id::{ChunkId, ObjectId, ObjectKind};
use repo_format::node::BuiltNode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// zstd level of everything sent.
pub const COMPRESSION_LEVEL: i32 = 3;

/// What is submitted goes to the server; clones share one upload.
#[derive(Clone)]
pub struct Uploader(Arc<Shared>);

struct Shared {
    client: Client,
    vault: String,
    session: String,
    stop: Stop,
    counters: Arc<Counters>,
    budget: Budget,
    window: Mutex<Window>,
    /// Questions may be waiting.
    questions: Condvar,
    /// Compressions may be waiting.
    compressions: Condvar,
    /// Chunks may be ready to be sent.
    send: Condvar,
    /// The front round may have come further.
    progress: Condvar,
    finishing: AtomicBool,
    done: AtomicBool,
    /// Of the last durable answer.
    notices: Mutex<Vec<QuotaNotice>>,
}

/// The running threads; [`UploadThreads::finish`] waits for everything to be durable.
pub struct UploadThreads {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

/// Starts the upload of one session.
pub fn start(
    client: &Client,
    vault: &str,
    session: &UploadSession,
    workers: usize,
    counters: Arc<Counters>,
    stop: &Stop,
) -> Result<(Uploader, UploadThreads), AgentError> {
    let shared = Arc::new(Shared {
        client: client.with_stop(stop.clone()),
        vault: vault.to_owned(),
        session: session.id.clone(),
        stop: stop.clone(),
        counters,
        budget: Budget::new(WINDOW_BYTES_MAX, stop.clone()),
        window: Mutex::new(Window::new(session.incarnation)),
        questions: Condvar::new(),
        compressions: Condvar::new(),
        send: Condvar::new(),
        progress: Condvar::new(),
        finishing: AtomicBool::new(false),
        done: AtomicBool::new(false),
        notices: Mutex::new(session.notices.clone()),
    });
    let mut threads = Vec::new();
    let mut spawn = |name: &str, run: fn(&Shared) -> Result<(), AgentError>| {
        let shared = shared.clone();
        let thread = std::thread::Builder::new().name(name.to_owned()).spawn(move || {
            if let Err(error) = run(&shared) {
                shared.stop.fail(error);
            }
            shared.wake_all();
        });
        thread.map(|thread| threads.push(thread)).map_err(|error| AgentError::file("thread", error))
    };
    for _ in 0..ASKERS {
        spawn("ask", Shared::ask)?;
    }
    for _ in 0..workers {
        spawn("compress", Shared::compress)?;
    }
    for _ in 0..SENDERS {
        spawn("send", Shared::send_chunks)?;
    }
    spawn("rounds", Shared::rounds)?;
    Ok((Uploader(shared.clone()), UploadThreads { shared, threads }))
}

impl Uploader {
    /// Stores a chunk unless it is known to be stored. `plain` is called only if it is not; waits while the window is
    /// full.
    pub fn chunk(&self, id: ChunkId, len: usize, plain: impl FnOnce() -> Bytes) -> Result<(), AgentError> {
        let shared = &self.0;
        add(&shared.counters.chunks, 1);
        if shared.window.lock().knows(&id) {
            add(&shared.counters.chunks_repeated, 1);
            return Ok(());
        }
        let permit = shared.budget.take(len as u64)?;
        let plain = plain();
        let mut window = shared.window.lock();
        if window.knows(&id) {
            add(&shared.counters.chunks_repeated, 1);
            return Ok(());
        }
        window.submit(id, plain, permit, Instant::now());
        drop(window);
        shared.questions.notify_one();
        Ok(())
    }

    /// Stores a node whose children were submitted before, or are held by the base snapshot.
    pub fn node(&self, node: &BuiltNode, codec: Codec, payload: Bytes) -> Result<(), AgentError> {
        let permit = self.0.budget.take(payload.len() as u64)?;
        let kept = KeptNode { id: node.id, codec, payload, plain_len: node.bytes.len() as u32 };
        self.0.window.lock().node(kept, permit, Instant::now());
        Ok(())
    }
}

impl UploadThreads {
    /// Waits until everything submitted is durable, and commits what `commit` says then. Answers also which soft limits
    /// were passed at the end.
    pub fn finish(
        mut self,
        commit: impl FnOnce() -> Commit,
    ) -> Result<(api::browse::Snapshot, Vec<QuotaNotice>), AgentError> {
        self.shared.finishing.store(true, Ordering::SeqCst);
        self.shared.wake_all();
        self.join();
        self.shared.stop.check()?;
        let snapshot = self.shared.client.commit(&self.shared.vault, &self.shared.session, &commit())?;
        let notices = std::mem::take(&mut *self.shared.notices.lock());
        Ok((snapshot, notices))
    }

    fn join(&mut self) {
        for thread in self.threads.drain(..) {
            // A panic in a thread would be a defect of ours; it must not look like success.
            if thread.join().is_err() {
                self.shared.stop.fail(AgentError::Stopped);
            }
        }
    }
}

impl Drop for UploadThreads {
    /// Without [`UploadThreads::finish`] the run has failed: the threads end.
    fn drop(&mut self) {
        if !self.threads.is_empty() {
            self.shared.stop.fail(AgentError::Stopped);
            self.shared.wake_all();
            self.join();
        }
    }
}

impl Shared {
    fn wake_all(&self) {
        self.questions.notify_all();
        self.compressions.notify_all();
        self.send.notify_all();
        self.progress.notify_all();
    }

    fn ended(&self) -> Result<bool, AgentError> {
        self.stop.check()?;
        Ok(self.done.load(Ordering::SeqCst))
    }

    fn incarnation_changed(&self, changed: bool) {
        if changed {
            add(&self.counters.incarnations_changed, 1);
            self.questions.notify_all();
        }
    }

    fn ask(&self) -> Result<(), AgentError> {
        let age = Duration::from_millis(QUESTION_AGE_MS);
        let mut window = self.window.lock();
        while !self.ended()? {
            // A request costs more than the few milliseconds in which more chunks come to share it.
            if let (waiting, Some(since)) = window.askable()
                && waiting < QUESTION_IDS
                && !self.finishing.load(Ordering::SeqCst)
                && Instant::now() < since + age
            {
                self.questions.wait_until(&mut window, since + age);
                continue;
            }
            let ids = window.take_questions(HAVE_IDS_MAX);
            if ids.is_empty() {
                self.questions.wait_for(&mut window, STOP_POLL);
                continue;
            }
            drop(window);
            let objects: Vec<ObjectId> = ids.iter().map(|id| ObjectId::from(*id)).collect();
            let (present, incarnation) = self.client.have(&self.vault, &self.session, &objects)?;
            add(&self.counters.chunks_present, present.iter().filter(|present| **present).count() as u64);
            window = self.window.lock();
            let changed = window.answered(&ids, &present, incarnation);
            self.incarnation_changed(changed);
            self.compressions.notify_all();
            self.send.notify_all();
            self.progress.notify_all();
        }
        Ok(())
    }

    fn compress(&self) -> Result<(), AgentError> {
        let mut compressor = Compressor::new(COMPRESSION_LEVEL)?;
        let mut window = self.window.lock();
        while !self.ended()? {
            let Some((id, plain)) = window.take_compression() else {
                self.compressions.wait_for(&mut window, STOP_POLL);
                continue;
            };
            drop(window);
            let (codec, payload) = compressor.compress(&plain)?;
            let payload = match codec {
                Codec::Raw => plain,
                Codec::Zstd => Bytes::from(payload),
            };
            window = self.window.lock();
            window.compressed(id, codec, payload, Instant::now());
            self.send.notify_one();
        }
        Ok(())
    }

    fn send_chunks(&self) -> Result<(), AgentError> {
        let age = Duration::from_millis(BODY_AGE_MS);
        let mut window = self.window.lock();
        while !self.ended()? {
            let (bytes, since, preparing) = window.sendable();
            let Some(since) = since else {
                self.send.wait_for(&mut window, STOP_POLL);
                continue;
            };
            let now = Instant::now();
            if bytes < CHUNK_BODY_BYTES && preparing && now < since + age {
                self.send.wait_until(&mut window, since + age);
                continue;
            }
            let chunks = window.take_sends(CHUNK_BODY_BYTES, now);
            if chunks.is_empty() {
                // The bound on what is not durable: the next round's end frees it.
                self.send.wait_for(&mut window, age);
                continue;
            }
            drop(window);
            let ids = chunks.iter().map(|chunk| chunk.id);
            self.count_sent(&chunks);
            let answer = self.client.chunks(&self.vault, &self.session, chunk_body(&chunks));
            window = self.window.lock();
            match answer {
                Ok(received) => {
                    add(&self.counters.objects_added, received.new_objects);
                    add(&self.counters.bytes_added, received.stored_bytes);
                    let changed = window.received(ids, received.incarnation);
                    self.incarnation_changed(changed);
                }
                Err(error) if error.code() == Some(Code::IncarnationChanged) => window.ask_again(ids),
                // What another upload or a lost answer of our own has stored meanwhile needs no room: asked for again,
                // only what is still absent is sent a second time, and then the refusal stands.
                Err(error) if error.code() == Some(Code::QuotaExceeded) && chunks.iter().all(|chunk| !chunk.again) => {
                    window.ask_again(ids);
                }
                Err(error) => return Err(error.into()),
            }
            self.questions.notify_all();
            self.progress.notify_all();
        }
        Ok(())
    }

    fn count_sent(&self, chunks: &[ToSend]) {
        for chunk in chunks {
            let bytes = chunk.payload.len() as u64;
            add(&self.counters.chunks_sent, 1);
            add(&self.counters.chunk_bytes_sent, bytes);
            if chunk.again {
                add(&self.counters.chunks_resent, 1);
                add(&self.counters.chunk_bytes_resent, bytes);
            }
            if chunk.durable {
                add(&self.counters.chunks_resent_durable, 1);
            }
        }
    }

    /// Takes the rounds in order: waits until the chunks of the oldest are settled, then makes it durable.
    fn rounds(&self) -> Result<(), AgentError> {
        let mut refused = 0;
        let mut window = self.window.lock();
        loop {
            self.stop.check()?;
            let now = Instant::now();
            if self.finishing.load(Ordering::SeqCst) {
                window.close_older(now);
            } else if let Some(old) = now.checked_sub(Duration::from_millis(ROUND_AGE_MS)) {
                window.close_older(old);
            }
            let nodes = match window.front() {
                Front::Empty if self.finishing.load(Ordering::SeqCst) => {
                    self.done.store(true, Ordering::SeqCst);
                    drop(window);
                    self.wake_all();
                    return Ok(());
                }
                Front::Empty | Front::Wait => {
                    self.progress.wait_for(&mut window, STOP_POLL / 2);
                    continue;
                }
                Front::Ready(nodes) => nodes,
            };
            let incarnation = window.incarnation();
            drop(window);
            let outcome = self.make_durable(&nodes, incarnation);
            window = self.window.lock();
            match outcome {
                Ok(answered) => {
                    let (durable, changed) = window.acknowledged(incarnation, answered);
                    self.incarnation_changed(changed);
                    if durable.is_some() {
                        refused = 0;
                        add(&self.counters.rounds, 1);
                        self.send.notify_all();
                    }
                }
                Err(error) => {
                    refused += 1;
                    if refused > ROUND_ATTEMPTS_MAX {
                        return Err(error.into());
                    }
                    self.refused(&mut window, error)?;
                }
            }
        }
    }

    /// A durable answer was refused: what is missing is sent again, if that can help.
    fn refused(&self, window: &mut Window, error: ClientError) -> Result<(), AgentError> {
        match error {
            ClientError::Refused { code: Code::IncarnationChanged, .. } => {
                window.forget_settled();
                add(&self.counters.incarnations_changed, 1);
            }
            ClientError::Refused { code: Code::MissingObjects, missing, detail, status } => {
                let ids: Result<Vec<ObjectId>, _> = missing.iter().map(|text| text.parse()).collect();
                let ids = ids?;
                let lost = window.missing(ids.iter().map(|id| id.as_chunk()));
                if let Some(first) = lost.first() {
                    return Err(AgentError::LostObjects { count: lost.len(), first: first.to_string() });
                }
                if ids.is_empty() {
                    let code = Code::MissingObjects;
                    return Err(ClientError::Refused { code, missing, detail, status }.into());
                }
            }
            other => return Err(other.into()),
        }
        self.wake_all();
        Ok(())
    }

    /// Sends nodes in as few bodies as fit, or flushes; the incarnation of the last answer.
    fn make_durable(&self, nodes: &[KeptNode], incarnation: u64) -> Result<u64, ClientError> {
        if nodes.is_empty() {
            let answer = self.client.flush(&self.vault, &self.session, incarnation)?;
            *self.notices.lock() = answer.notices;
            return Ok(answer.incarnation);
        }
        let mut last = incarnation;
        let mut rest = nodes;
        while !rest.is_empty() {
            let mut bytes = 0;
            let count = rest
                .iter()
                .take_while(|node| {
                    bytes += node.payload.len();
                    bytes <= NODE_BODY_BYTES
                })
                .count()
                .max(1);
            let (now, later) = rest.split_at(count);
            let answer = self.client.nodes(&self.vault, &self.session, node_body(now))?;
            add(&self.counters.nodes_sent, now.len() as u64);
            add(&self.counters.node_bytes_sent, now.iter().map(|node| node.payload.len() as u64).sum());
            add(&self.counters.objects_added, answer.new_objects);
            add(&self.counters.bytes_added, answer.stored_bytes);
            last = answer.incarnation;
            *self.notices.lock() = answer.notices;
            rest = later;
        }
        Ok(last)
    }
}

fn chunk_body(chunks: &[ToSend]) -> Bytes {
    let bytes: usize = chunks.iter().map(|chunk| 44 + chunk.payload.len()).sum();
    let mut body = BytesMut::with_capacity(bytes + 8);
    for chunk in chunks {
        let (codec, len) = (chunk.codec.byte(), chunk.payload.len());
        put_head(&mut body, ObjectKind::Chunk, codec, chunk.plain_len, &chunk.id.into(), len);
        body.extend_from_slice(&chunk.payload);
    }
    put_end(&mut body, chunks.len() as u32);
    body.freeze()
}

fn node_body(nodes: &[KeptNode]) -> Bytes {
    let bytes: usize = nodes.iter().map(|node| 44 + node.payload.len()).sum();
    let mut body = BytesMut::with_capacity(bytes + 8);
    for node in nodes {
        let (codec, len) = (node.codec.byte(), node.payload.len());
        put_head(&mut body, ObjectKind::Node, codec, node.plain_len, &node.id.into(), len);
        body.extend_from_slice(&node.payload);
    }
    put_end(&mut body, nodes.len() as u32);
    body.freeze()
}
