//! The accept loop: TLS with a deadline and a cap on handshakes, a cap on connections, HTTP/1.1 and HTTP/2 with timers
//! and bounded windows, and an orderly end. Knows nothing of what is served.

use crate::http::PeerAddress;
use crate::limits::{CONNECTIONS_MAX, HANDSHAKE_TIMEOUT, HANDSHAKES_MAX, IDLE_TIMEOUT, TLS_BUFFER_BYTES};
use crate::metrics::Metrics;
use axum::Router;
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use hyper_util::service::TowerToHyperService;
use rustls::ServerConfig;
use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio_rustls::TlsAcceptor;

const BACKLOG: i32 = 4096;
/// An unanswered connection is given up after this long.
const PEER_TIMEOUT: Duration = Duration::from_secs(60);
const H2_STREAM_WINDOW_BYTES: u32 = 4 << 20;
const H2_CONNECTION_WINDOW_BYTES: u32 = 16 << 20;
const H2_FRAME_BYTES: u32 = 128 << 10;
const H2_SEND_BUFFER_BYTES: usize = 1 << 20;
const H2_STREAMS_MAX: u32 = 100;
const H2_KEEP_ALIVE: Duration = Duration::from_secs(20);
/// After a failed accept (mostly: no file descriptors left) the loop waits this long.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// What connections that are idle or nearly done get at the very end.
const LAST_ANSWERS: Duration = Duration::from_secs(5);

/// Opens a listening socket; the unspecified IPv6 address takes IPv4 as well, and falls back to IPv4 alone on a
/// machine without IPv6.
pub fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let open = |address: SocketAddr| -> io::Result<TcpListener> {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
        if address.is_ipv6() {
            socket.set_only_v6(!address.ip().is_unspecified())?;
        }
        socket.set_reuse_address(true)?;
        socket.set_nonblocking(true)?;
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
        TcpListener::from_std(socket.into())
    };
    match open(address) {
        Err(error)
            if address.ip() == IpAddr::V6(Ipv6Addr::UNSPECIFIED)
                && !matches!(error.kind(), io::ErrorKind::AddrInUse | io::ErrorKind::PermissionDenied) =>
        {
            open(SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), address.port()))
        }
        result => result,
    }
}

/// One door: a router behind listening sockets.
pub struct Door {
    /// Sockets.
    pub listeners: Vec<TcpListener>,
    /// TLS, or none for a door on the machine itself.
    pub tls: Option<Arc<ServerConfig>>,
    /// What is served.
    pub router: Router,
    /// Counts.
    pub metrics: Metrics,
}

#[derive(Clone)]
struct Shared {
    tls: Option<TlsAcceptor>,
    service: TowerToHyperService<Router>,
    metrics: Metrics,
    connections: Arc<Semaphore>,
    handshakes: Arc<Semaphore>,
}

/// Serves until `stop` turns true, then lets running requests finish until a short deadline.
pub async fn serve(door: Door, stop: watch::Receiver<bool>) {
    let shared = Shared {
        tls: door.tls.map(TlsAcceptor::from),
        service: TowerToHyperService::new(door.router),
        metrics: door.metrics,
        connections: Arc::new(Semaphore::new(CONNECTIONS_MAX)),
        handshakes: Arc::new(Semaphore::new(HANDSHAKES_MAX)),
    };
    let graceful = Arc::new(GracefulShutdown::new());
    let loops: Vec<_> = door
        .listeners
        .into_iter()
        .map(|listener| tokio::spawn(accept_loop(listener, shared.clone(), graceful.clone(), stop.clone())))
        .collect();
    for running in loops {
        if running.await.is_err() {
            tracing::error!("an accept loop ended by a defect");
        }
    }
    // The loops are over, so this is the only holder.
    let Some(graceful) = Arc::into_inner(graceful) else { return };
    if tokio::time::timeout(LAST_ANSWERS, graceful.shutdown()).await.is_err() {
        tracing::warn!("connections were still busy at the deadline and are cut");
    }
}

async fn accept_loop(
    listener: TcpListener,
    shared: Shared,
    graceful: Arc<GracefulShutdown>,
    mut stop: watch::Receiver<bool>,
) {
    loop {
        let accepted = async {
            // Neither fails while this function holds the semaphore.
            let permit = shared.connections.clone().acquire_owned().await.ok();
            (permit, listener.accept().await)
        };
        let (permit, accepted) = tokio::select! {
            _ = stop.wait_for(|stop| *stop) => return,
            accepted = accepted => accepted,
        };
        match (permit, accepted) {
            (Some(permit), Ok((stream, peer))) => {
                let shared = shared.clone();
                // The watcher is made here, so that a connection in its handshake is waited for too.
                let watcher = graceful.watcher();
                let stop = stop.clone();
                tokio::spawn(async move {
                    shared.metrics.connections().inc();
                    connection(stream, peer, &shared, watcher, stop).await;
                    shared.metrics.connections().dec();
                    drop::<OwnedSemaphorePermit>(permit);
                });
            }
            (_, Err(error)) => {
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
            (None, Ok(_)) => return,
        }
    }
}

async fn connection(
    stream: TcpStream,
    peer: SocketAddr,
    shared: &Shared,
    watcher: Watcher,
    mut stop: watch::Receiver<bool>,
) {
    let socket = SockRef::from(&stream);
    // Without these a connection is slower or stays open longer, but works.
    let _ = socket.set_tcp_nodelay(true);
    let _ = socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(PEER_TIMEOUT));
    let _ = socket.set_tcp_user_timeout(Some(PEER_TIMEOUT));
    let Some(tls) = &shared.tls else {
        return serve_connection(stream, false, shared, watcher, peer).await;
    };
    let started = Instant::now();
    let handshake = async {
        let _permit = shared.handshakes.acquire().await;
        let accept = tls.accept_with(stream, |connection| connection.set_buffer_limit(Some(TLS_BUFFER_BYTES)));
        tokio::time::timeout(HANDSHAKE_TIMEOUT, accept).await
    };
    let handshake = tokio::select! {
        _ = stop.wait_for(|stop| *stop) => return,
        handshake = handshake => handshake,
    };
    match handshake {
        Ok(Ok(stream)) => {
            shared.metrics.handshake_done(started.elapsed());
            let is_h2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
            serve_connection(stream, is_h2, shared, watcher, peer).await;
        }
        Ok(Err(error)) => {
            shared.metrics.handshake_failed();
            tracing::debug!(%peer, %error, "handshake failed");
        }
        Err(_) => {
            shared.metrics.handshake_failed();
            tracing::debug!(%peer, "handshake took too long");
        }
    }
}

async fn serve_connection(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    is_h2: bool,
    shared: &Shared,
    watcher: Watcher,
    peer: SocketAddr,
) {
    let stream = TokioIo::new(stream);
    let inner = shared.service.clone();
    let service = service_fn(move |mut request: hyper::Request<Incoming>| {
        request.extensions_mut().insert(PeerAddress(peer.ip()));
        inner.call(request)
    });
    let ended = if is_h2 {
        let mut builder = http2::Builder::new(TokioExecutor::new());
        builder
            .timer(TokioTimer::new())
            .initial_stream_window_size(H2_STREAM_WINDOW_BYTES)
            .initial_connection_window_size(H2_CONNECTION_WINDOW_BYTES)
            .max_frame_size(H2_FRAME_BYTES)
            .max_send_buf_size(H2_SEND_BUFFER_BYTES)
            .max_concurrent_streams(H2_STREAMS_MAX)
            .keep_alive_interval(H2_KEEP_ALIVE)
            .keep_alive_timeout(H2_KEEP_ALIVE);
        watcher.watch(builder.serve_connection(stream, service)).await
    } else {
        let mut builder = http1::Builder::new();
        builder.timer(TokioTimer::new()).header_read_timeout(IDLE_TIMEOUT);
        watcher.watch(builder.serve_connection(stream, service)).await
    };
    if let Err(error) = ended {
        tracing::debug!(%peer, %error, "connection ended");
    }
}
