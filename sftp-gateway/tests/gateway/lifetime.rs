//! How connections end: in time, by revocation, stalled, by a panic, when the gateway ends; and who never gets in.

use crate::attempts::{Trusting, connect, log_in, logged_in};
use crate::served::{PATIENCE, Served, TestAccounts, USER, key, noise};
use russh::Channel;
use russh::client::{Handle, Msg};
use russh::keys::HashAlg;
use sftp_gateway::keys::{CustomerKey, HostKeys};
use sftp_gateway::testing::MemoryFile;
use sftp_gateway::{EndReason, Event, Gateway, GatewayConfig, Listener, Refusal, TurnedAway};
use std::io::{self, Read};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::Semaphore;

fn ended(served: &Served, reason: EndReason) -> bool {
    served.events.wait(&format!("ended: {reason:?}"), |event| match event {
        Event::Ended { reason: found, session, .. } if *found == reason => Some(session.is_some()),
        _ => None,
    })
}

/// Until the other side closes.
fn closed(mut stream: std::net::TcpStream) {
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut rest = Vec::new();
    if let Err(error) = stream.read_to_end(&mut rest) {
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    }
}

#[test]
fn whoever_does_not_log_in_is_gone_after_the_grace() {
    let served = Served::with(|config| config.login_grace = Duration::from_millis(300));
    let silent = std::net::TcpStream::connect(("127.0.0.1", served.port)).unwrap();
    let mut slow = std::net::TcpStream::connect(("127.0.0.1", served.port)).unwrap();
    io::Write::write_all(&mut slow, b"SSH-2.0-slow\r\n").unwrap();
    closed(silent);
    closed(slow);
    assert!(!ended(&served, EndReason::LoginGrace));
}

/// A connection from this address of the loopback.
fn from(address: &str, port: u16) -> impl Future<Output = io::Result<TcpStream>> {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(SocketAddr::new(address.parse().unwrap(), 0)).unwrap();
    socket.connect(SocketAddr::from(([127, 0, 0, 1], port)))
}

#[test]
fn silent_connections_take_places_from_their_own_network_only() {
    let served = Served::with(|config| (config.starts_max, config.starts_per_network_max) = (12, 4));
    served.block_on(async {
        let mut silent = Vec::new();
        for network in 1..4 {
            for _ in 0..4 {
                silent.push(from(&format!("127.0.{network}.1"), served.port).await.unwrap());
            }
        }
        silent.push(from("127.0.1.2", served.port).await.unwrap());
        // All places are taken, and yet somebody from elsewhere gets in.
        drop(logged_in(&served).await);
    });
    assert!(!ended(&served, EndReason::Displaced));
    served.events.wait("one too many of a network", |event| match event {
        Event::TurnedAway { reason: TurnedAway::Starts, .. } => Some(()),
        _ => None,
    });
}

#[test]
fn sources_that_fail_again_and_again_have_to_wait() {
    let served = Served::with(|config| config.penalties_exempt = vec!["127.0.0.1/32".parse().unwrap()]);
    let other = CustomerKey::generate("").unwrap();
    let turned_away = || {
        let penalty = |event: &Event| matches!(event, Event::TurnedAway { reason: TurnedAway::Penalty, .. });
        served.events.any(penalty)
    };
    // Each connection that fails costs five seconds, and from fifteen on nobody is let in.
    let deadline = Instant::now() + PATIENCE;
    let mut failed = 0;
    while !turned_away() {
        assert!(Instant::now() < deadline);
        served.block_on(async {
            let Ok(stream) = from("127.0.9.1", served.port).await else { return };
            let Ok(mut handle) = russh::client::connect_stream(Arc::default(), stream, Trusting).await else { return };
            // Several wrong keys in one connection count once.
            for _ in 0..2 {
                failed += usize::from(!log_in(&mut handle, USER, &other, Some(HashAlg::Sha256)).await.success());
            }
        });
    }
    assert!(failed >= 6, "{failed}");
    assert_eq!(served.gateway.status().penalised_sources, 1);
    // Nobody else is held up.
    drop(served.block_on(logged_in(&served)));
}

#[test]
fn a_key_that_is_taken_back_ends_its_connections() {
    let served = Served::with(|config| config.recheck_interval = Duration::from_millis(200));
    served.put("/x", 10);
    let (first, second) = served.block_on(async { (logged_in(&served).await, logged_in(&served).await) });
    served.accounts.set(&key().public, Err(Refusal::Unavailable));
    // Whoever cannot be asked takes nothing away.
    served.block_on(async {
        tokio::time::sleep(Duration::from_millis(600)).await;
        first.channel_open_session().await.unwrap();
    });
    served.accounts.set(&key().public, Err(Refusal::Revoked));
    assert!(ended(&served, EndReason::Revoked));
    served.block_on(async {
        while !first.is_closed() || !second.is_closed() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    });
    let at_once = Served::new();
    let handle = at_once.block_on(logged_in(&at_once));
    at_once.accounts.set(&key().public, Err(Refusal::Expired));
    while !handle.is_closed() {
        at_once.gateway.recheck();
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(ended(&at_once, EndReason::Revoked));
}

#[test]
fn a_panic_ends_one_connection_and_leaves_the_others() {
    let served = Served::new();
    let dump = served.put("/good", 3_000_000);
    let content = noise(1, 3_000_000);
    served.fs.put("/bad", MemoryFile { panics_from: Some(1_000_000), ..MemoryFile::new(content, 1) });
    let other = served.block_on(logged_in(&served));
    assert!(!served.sftp(&[], "get bad\n").status.success());
    assert!(ended(&served, EndReason::Crash));
    served.block_on(other.channel_open_session()).unwrap();
    crate::served::succeed(&served.sftp(&[], "get good\n"));
    assert!(std::fs::read(served.path("good")).unwrap() == dump);
    let (size, complete) = served.events.wait("the bad one closed", |event| match event {
        Event::Closed { file, .. } if file.path.as_bytes() == b"/bad" => Some((file.bytes_covered, file.complete)),
        _ => None,
    });
    assert!(size <= 1_000_000 && !complete);
}

/// An sftp that downloads `/x`, and is not waited for.
fn downloading(served: &Served) -> Child {
    std::fs::write(served.path("batch"), "get x\n").unwrap();
    let mut command = Command::new("sftp");
    command.args(served.ssh_options()).args(["-o", &format!("Port={}", served.port)]);
    command.args(["-b", &served.text("batch"), &served.host()]).current_dir(served.folder.path());
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

#[test]
fn a_gateway_that_ends_lets_transfers_finish_and_sends_the_idle_home() {
    let served = Served::new();
    let gate = Arc::new(Semaphore::new(1));
    let content = noise(7, 2_000_000);
    served.fs.put("/x", MemoryFile { gate: Some(gate.clone()), ..MemoryFile::new(content.clone(), 1) });
    let idle = served.block_on(logged_in(&served));
    let mut transfer = downloading(&served);
    served.events.wait("the transfer", |event| matches!(event, Event::Opened { .. }).then_some(()));
    let gateway = served.gateway.clone();
    let draining = served.runtime.as_ref().unwrap().spawn(async move { gateway.drain(PATIENCE).await });
    assert!(ended(&served, EndReason::Draining));
    served.block_on(async {
        while !idle.is_closed() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    });
    assert!(std::net::TcpStream::connect(("127.0.0.1", served.port)).is_err(), "nobody is taken any more");
    gate.add_permits(1000);
    assert!(transfer.wait().unwrap().success());
    assert!(std::fs::read(served.path("x")).unwrap() == content);
    served.block_on(draining).unwrap();
    assert_eq!(served.gateway.status().logged_in, 0);
}

#[test]
fn a_deadline_ends_transfers_too() {
    let served = Served::new();
    let gate = Arc::new(Semaphore::new(0));
    served.fs.put("/x", MemoryFile { gate: Some(gate), ..MemoryFile::new(noise(7, 100), 1) });
    let mut transfer = downloading(&served);
    served.events.wait("the transfer", |event| matches!(event, Event::Opened { .. }).then_some(()));
    served.block_on(served.gateway.drain(Duration::ZERO));
    assert!(!transfer.wait().unwrap().success());
}

/// A download of `/x` of which nothing but the handle is read.
async fn unread(served: &Served) -> (Handle<Trusting>, Channel<Msg>) {
    let handle = logged_in(served).await;
    let mut channel = handle.channel_open_session().await.unwrap();
    channel.request_subsystem(true, "sftp").await.unwrap();
    let open =
        [&b"\0\0\0\x05\x01\0\0\0\x03\0\0\0\x13\x03\0\0\0\x01\0\0\0\x02/x"[..], &[0, 0, 0, 1, 0, 0, 0, 0]].concat();
    channel.data(&open[..]).await.unwrap();
    let mut said = Vec::new();
    // HANDLE is the last of it: type 102, id 1, and four bytes.
    while !said.ends_with(b"\x66\0\0\0\x01\0\0\0\x04\0\0\0\x01") {
        if let russh::ChannelMsg::Data { data } = channel.wait().await.unwrap() {
            said.extend_from_slice(&data);
        }
    }
    let mut reads = Vec::new();
    for piece in 0..256u64 {
        reads.extend_from_slice(b"\0\0\0\x19\x05\0\0\0\x02\0\0\0\x04\0\0\0\x01");
        reads.extend_from_slice(&(piece * 261_120).to_be_bytes());
        reads.extend_from_slice(&261_120u32.to_be_bytes());
    }
    channel.data(&reads[..]).await.unwrap();
    (handle, channel)
}

#[test]
fn peers_that_do_not_read_are_cut_under_pressure_and_after_a_while_anyway() {
    for reason in [EndReason::Pressure, EndReason::Stalled] {
        let served = Served::with(|config| {
            config.sweep_interval = Duration::from_millis(100);
            if reason == EndReason::Pressure {
                (config.memory_bytes_max, config.stall_under_pressure) = (1 << 20, Duration::from_secs(1));
            } else {
                // Longer than a stall of the machine while the peer is still talking.
                config.stall_max = Duration::from_secs(10);
            }
        });
        served.fs.put("/x", MemoryFile::new(noise(3, 64 << 20), 1));
        let peer = served.block_on(unread(&served));
        assert!(ended(&served, reason), "{:?}", served.gateway.status());
        drop(peer);
        assert_eq!(served.gateway.status().output_bytes, 0);
    }
}

#[test]
fn what_is_not_read_takes_little_memory() {
    let served = Served::new();
    served.fs.put("/x", MemoryFile::new(noise(3, 64 << 20), 1));
    let peers: Vec<_> = (0..10).map(|_| served.block_on(unread(&served))).collect();
    let deadline = Instant::now() + PATIENCE;
    while served.gateway.status().output_bytes < peers.len() * (6 << 20) && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(10));
    }
    let held = served.gateway.status().output_bytes;
    assert!((peers.len() * (6 << 20)..=peers.len() * (8 << 20)).contains(&held), "{held}");
}

/// Too many open files, three times, then connections.
struct Exhausted {
    failures: AtomicUsize,
    inner: TcpListener,
}

impl Listener for Exhausted {
    async fn accept(&self) -> io::Result<(TcpStream, SocketAddr)> {
        const TOO_MANY_OPEN_FILES: i32 = 24;
        if self.failures.fetch_add(1, Ordering::Relaxed) < 3 {
            return Err(io::Error::from_raw_os_error(TOO_MANY_OPEN_FILES));
        }
        self.inner.accept().await
    }
}

#[test]
fn too_many_open_files_do_not_end_the_listener() {
    let served = Served::new();
    let accounts = Arc::new(TestAccounts::default());
    accounts.set(&key().public, Ok(served.fs.clone()));
    let gateway =
        Gateway::new(GatewayConfig::new(HostKeys::generate().unwrap()), accounts, served.events.clone()).unwrap();
    served.block_on(async {
        let inner = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = inner.local_addr().unwrap().port();
        tokio::spawn(async move { gateway.serve(Exhausted { failures: AtomicUsize::new(0), inner }).await });
        let mut handle = russh::client::connect(Arc::default(), ("127.0.0.1", port), Trusting).await.unwrap();
        assert!(log_in(&mut handle, USER, key(), Some(HashAlg::Sha256)).await.success());
        drop(connect(&served).await);
    });
}
