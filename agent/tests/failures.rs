//! Runs against a server that fails: away, busy, full, answers lost, everything not durable forgotten. The run goes on,
//! what comes back is right, and what was durable is never sent twice.

#![allow(clippy::unwrap_used, clippy::panic)] // a test says what is wrong by failing

mod support;

use agent::backup::{BackupOptions, BackupResult, Source, StreamInput, backup};
use agent::browse::cat;
use agent::client::{Client, ClientError, Patience};
use agent::connection::Connection;
use agent::error::AgentError;
use agent::pipeline::limits::UNACKNOWLEDGED_BYTES_MAX;
use agent::stop::Stop;
use api::problem::Code;
use repo_format::entry::Profile;
use repo_format::id::ObjectId;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use support::{FakeServer, Fault, Said, VAULT, noise};

fn stream(connection: &Connection, content: &[u8]) -> Result<BackupResult, AgentError> {
    let options =
        BackupOptions { computer: "here".into(), name: None, tags: Vec::new(), profile: Profile::Fine, workers: 2 };
    let input = StreamInput::Reader(Box::new(std::io::Cursor::new(content.to_vec())));
    let source = Source::stream("dump", input);
    backup(connection, source, &options, &Said::default().report())
}

fn assert_comes_back(connection: &Connection, result: &BackupResult, content: &[u8]) {
    let mut out = Vec::new();
    cat(connection, &result.snapshot, b"/dump", &mut out).unwrap();
    assert!(out == content, "what came back differs");
}

/// A generator good enough to spread faults; its seed is printed with every failure.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }
}

fn seed() -> u64 {
    let seed = std::env::var("HOLDFAST_SEED").ok().and_then(|text| text.parse().ok());
    let seed = seed.unwrap_or_else(|| getrandom::u64().unwrap());
    eprintln!("HOLDFAST_SEED={seed}");
    seed
}

#[test]
fn a_server_that_forgets_gets_only_what_was_not_durable_again() {
    let seed = seed();
    let server = FakeServer::new();
    let folder = tempfile::tempdir().unwrap();
    let connection = server.connect(folder.path());
    let content = noise(seed, 150_000_000);
    let crashes = Arc::new(AtomicU64::new(0));
    let mut random = Random(seed);
    server.inject({
        let crashes = crashes.clone();
        move |path, _| {
            let crash = path.contains("/uploads/") && random.below(5) == 0;
            crashes.fetch_add(u64::from(crash), Ordering::Relaxed);
            crash.then_some(Fault::Crash)
        }
    });
    let result = stream(&connection, &content).unwrap();
    server.heal();
    let (seen, counters) = (server.seen(), &result.counters);
    assert!(crashes.load(Ordering::Relaxed) > 3);
    assert!(counters.chunks_resent > 0, "{counters:?}");
    assert_eq!((seen.durable_again, counters.chunks_resent_durable), (0, 0), "{seen:?} {counters:?}");
    assert_eq!(seen.received_again, 0, "sent again without asking: {seen:?}");
    let most = crashes.load(Ordering::Relaxed) * UNACKNOWLEDGED_BYTES_MAX;
    assert!(counters.chunk_bytes_resent <= most, "{counters:?}");
    assert_comes_back(&connection, &result, &content);
}

/// Answers of an incarnation that is over, also refusals, arrive after those of the next one: they are no reason to send
/// what others have brought meanwhile, nor to let go of it.
#[test]
fn answers_that_others_overtake_send_nothing_twice_and_lose_nothing() {
    let seed = seed();
    let server = FakeServer::new();
    let folder = tempfile::tempdir().unwrap();
    let connection = server.connect(folder.path());
    let content = noise(seed, 100_000_000);
    let (mut random, mut barriers) = (Random(seed), 0);
    server.inject(move |path, _| {
        if !path.contains("/uploads/") {
            return None;
        }
        // Chunks go right before the nodes that need them, and the refusal is late.
        let barrier = path.ends_with("/nodes") || path.ends_with("/flush");
        barriers += u64::from(barrier);
        match random.below(if barrier { 3 } else { 30 }) {
            _ if barrier && barriers == 1 => Some(Fault::LateCrash),
            0 if barrier => Some(Fault::LateCrash),
            0 => Some(Fault::Crash),
            1..=3 => Some(Fault::LateAnswer),
            _ => None,
        }
    });
    let result = stream(&connection, &content).unwrap();
    server.heal();
    let (seen, counters) = (server.seen(), &result.counters);
    assert!(counters.chunks_resent > 0, "{counters:?}");
    assert_eq!((seen.durable_again, counters.chunks_resent_durable), (0, 0), "{seen:?} {counters:?}");
    assert_eq!(seen.received_again, 0, "sent again without asking: {seen:?}");
    assert_comes_back(&connection, &result, &content);
}

#[test]
fn every_kind_of_failure_at_random_places_is_survived() {
    let seed = seed();
    let server = FakeServer::new();
    let folder = tempfile::tempdir().unwrap();
    let connection = server.connect(folder.path());
    let content = noise(seed, 60_000_000);
    let mut random = Random(seed);
    server.inject(move |_, _| match random.below(28) {
        0 => Some(Fault::Refuse),
        1 => Some(Fault::LoseAnswer),
        2 => Some(Fault::Crash),
        3 => Some(Fault::Busy),
        4 => Some(Fault::CutAnswer),
        5 => Some(Fault::Full),
        6 => Some(Fault::LateAnswer),
        7 => Some(Fault::LateCrash),
        _ => None,
    });
    let result = stream(&connection, &content).unwrap();
    assert_eq!(result.counters.chunks_resent_durable, 0);
    // Reading survives them as well.
    assert_comes_back(&connection, &result, &content);
    assert_eq!(server.state.lock().snapshots.len(), 1);
}

#[test]
fn an_interrupted_run_is_continued() {
    let server = FakeServer::new();
    let folder = tempfile::tempdir().unwrap();
    let content = noise(1, 80_000_000);
    let patience = Patience { total: Duration::from_millis(300), ..Patience::default() };
    let impatient = Client::new(server.clone(), patience, Stop::default());
    let login = server.connect(folder.path()).login.clone();
    let folders = server.connect(folder.path()).folders.clone();
    server.inject(|path, _| {
        static BODIES: AtomicU64 = AtomicU64::new(0);
        let away = path.ends_with("/chunks") && BODIES.fetch_add(1, Ordering::Relaxed) >= 12;
        away.then_some(Fault::Refuse)
    });
    let connection = Connection::with_client(impatient, login, folders).unwrap();
    let error = stream(&connection, &content).unwrap_err();
    assert!(matches!(error, AgentError::Server(ClientError::Away { .. })), "{error}");
    server.heal();
    let sent = server.seen().chunk_bytes;
    assert!(sent > 0);
    let connection = server.connect(folder.path());
    let result = stream(&connection, &content).unwrap();
    assert!(result.counters.chunk_bytes_sent + sent <= 80_100_000 + UNACKNOWLEDGED_BYTES_MAX, "{:?}", result.counters);
    assert!(result.counters.chunks_present > 0);
    assert_comes_back(&connection, &result, &content);
}

#[test]
fn refusals_are_not_repeated() {
    let server = FakeServer::new();
    let client = Client::new(server.clone(), Patience::default(), Stop::default());
    let error = client.have(VAULT, "no such session", &[ObjectId::from_bytes([0; 32])]).unwrap_err();
    assert_eq!(error.code(), Some(Code::NotFound));
    assert_eq!(server.seen().requests, 1);
    assert_eq!(client.retries(), 0);
}

#[test]
fn waiting_for_a_server_ends_when_patience_does_and_says_why() {
    let server = FakeServer::new();
    server.inject(|_, _| Some(Fault::Full));
    let said = Arc::new(parking_lot::Mutex::new(Vec::new()));
    let on_wait = {
        let said = said.clone();
        Arc::new(move |reason: &str, _: Duration| said.lock().push(reason.to_owned()))
    };
    let patience = Patience { total: Duration::from_millis(120), on_wait };
    let error = Client::new(server, patience, Stop::default()).snapshots(VAULT).unwrap_err();
    assert!(matches!(&error, ClientError::Away { detail, .. } if detail.contains("ServerDiskFull")), "{error}");
    assert!(said.lock().iter().all(|reason| reason.contains("ServerDiskFull")) && !said.lock().is_empty());
}

#[test]
fn an_object_the_server_confirmed_and_lost_ends_the_run() {
    let server = FakeServer::new();
    let folder = tempfile::tempdir().unwrap();
    let connection = server.connect(folder.path());
    let content = noise(3, 90_000_000);
    let losing = server.clone();
    let first = Arc::new(AtomicU64::new(0));
    // After the first barrier one durable chunk goes, unseen by anyone, before the root that needs it is sent.
    server.inject({
        let first = first.clone();
        move |path, _| {
            if path.ends_with("/flush") || path.ends_with("/nodes") {
                first.fetch_add(1, Ordering::Relaxed);
            }
            None
        }
    });
    let watcher = std::thread::spawn({
        let first = first.clone();
        move || {
            while first.load(Ordering::Relaxed) < 2 {
                std::thread::yield_now();
            }
            let chunks = losing.objects(repo_format::id::ObjectKind::Chunk);
            chunks.iter().for_each(|chunk| losing.lose(chunk));
        }
    });
    let outcome = stream(&connection, &content);
    watcher.join().unwrap();
    match outcome {
        Err(AgentError::LostObjects { count, .. }) => assert!(count > 0),
        other => panic!("{:?}", other.map(|result| result.counters)),
    }
    assert!(server.state.lock().snapshots.is_empty());
}

#[test]
fn what_a_quota_refused_is_asked_for_again_before_the_run_fails() {
    let server = FakeServer::new();
    let folder = tempfile::tempdir().unwrap();
    let connection = server.connect(folder.path());
    let content = noise(3, 30_000_000);
    // The answer to a body is lost; what it brought fills the quota, so that the body sent again is refused.
    let mut bodies = 0;
    server.inject(move |path, _| {
        bodies += u64::from(path.ends_with("/chunks"));
        match (path.ends_with("/chunks"), bodies) {
            (true, 1) => Some(Fault::LoseAnswer),
            (true, 2) => Some(Fault::OverQuota),
            _ => None,
        }
    });
    let result = stream(&connection, &content).unwrap();
    assert_comes_back(&connection, &result, &content);
}

#[test]
fn a_quota_that_is_reached_ends_the_run_and_leaves_no_session() {
    let server = FakeServer::new();
    let folder = tempfile::tempdir().unwrap();
    let connection = server.connect(folder.path());
    let refused = Arc::new(AtomicU64::new(0));
    server.inject({
        let refused = refused.clone();
        move |path, _| {
            let refuse = path.ends_with("/chunks");
            refused.fetch_add(u64::from(refuse), Ordering::Relaxed);
            refuse.then_some(Fault::OverQuota)
        }
    });
    match stream(&connection, &noise(4, 200_000_000)) {
        Err(error) => assert_eq!(error.code(), Some(Code::QuotaExceeded), "{error}"),
        Ok(_) => panic!("nothing was stored, and the run says that it was"),
    }
    // Every chunk is refused at most twice, and only what was under way is refused at all.
    assert!(refused.load(Ordering::Relaxed) < 30, "{refused:?}");
    assert_eq!((server.live_sessions(), server.state.lock().snapshots.len()), (0, 0));
}
