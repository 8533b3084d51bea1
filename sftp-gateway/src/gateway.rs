//! The listener: takes connections, decides which may stay, and watches over those that do.

use crate::accounts::{Account, Accounts, LogIn, Refusal};
use crate::keys::{HostKeys, KeyError, PublicKey};
use crate::limits;
use crate::line::{GuardedStream, Line};
use crate::observer::{EndReason, Event, Observer, SessionInfo, TurnedAway};
use crate::penalties::{Admission, Offence, Pace, Penalties, Starts};
use crate::ssh::{self, Ended, SshSettings};
use ipnet::IpNet;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, watch};
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};

/// How long the accounts have for an answer.
pub(crate) const LOOK_UP_MAX: Duration = Duration::from_secs(10);
/// How often a gateway that ends looks whether somebody has finished.
const DRAIN_STEP: Duration = Duration::from_millis(250);

/// What a gateway is to do. `GatewayConfig::new` gives the defaults of [`limits`].
pub struct GatewayConfig {
    /// The server's keys.
    pub host_keys: HostKeys,
    /// Whether ChaCha20-Poly1305 is offered. OpenSSH's clients prefer it, at twice the cost of AES-GCM.
    pub chacha20: bool,
    /// Bytes of a direction after which keys are exchanged anew, at most 1 GiB.
    pub rekey_bytes: usize,
    /// From the connection until somebody is logged in.
    pub login_grace: Duration,
    /// Connections that are not logged in, in all.
    pub starts_max: usize,
    /// Connections that are not logged in, per /24 or /56.
    pub starts_per_network_max: usize,
    /// Connections of one key at once.
    pub connections_per_key_max: usize,
    /// How often keys of live connections are looked up again.
    pub recheck_interval: Duration,
    /// A connection on which nothing moves is ended after this.
    pub stall_max: Duration,
    /// The same while more than `memory_bytes_max` is held.
    pub stall_under_pressure: Duration,
    /// How often connections are looked at for stalls.
    pub sweep_interval: Duration,
    /// Memory that replies of all connections may hold before stalled ones are ended early.
    pub memory_bytes_max: usize,
    /// Networks that get no penalties.
    pub penalties_exempt: Vec<IpNet>,
}

impl GatewayConfig {
    /// With everything as [`limits`] has it.
    pub fn new(host_keys: HostKeys) -> GatewayConfig {
        GatewayConfig {
            host_keys,
            chacha20: true,
            rekey_bytes: limits::REKEY_BYTES_MAX,
            login_grace: limits::LOGIN_GRACE,
            starts_max: limits::STARTS_MAX,
            starts_per_network_max: limits::STARTS_PER_NETWORK_MAX,
            connections_per_key_max: limits::CONNECTIONS_PER_KEY_MAX,
            recheck_interval: limits::RECHECK_INTERVAL,
            stall_max: limits::STALL_MAX,
            stall_under_pressure: limits::STALL_UNDER_PRESSURE,
            sweep_interval: limits::SWEEP_INTERVAL,
            memory_bytes_max: 256 << 20,
            penalties_exempt: Vec::new(),
        }
    }
}

/// Counts for metrics, as of now.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct GatewayStatus {
    /// Connections on which somebody is logged in.
    pub logged_in: usize,
    /// Connections on which nobody is yet.
    pub starting: usize,
    /// Sources that have a penalty.
    pub penalised_sources: usize,
    /// Encrypted bytes sent since the start.
    pub bytes_sent: u64,
    /// Memory held by replies that wait, or are being read.
    pub output_bytes: usize,
}

/// SSH for many accounts on any number of listeners.
pub struct Gateway(Arc<Shared>);

/// Somebody who is logged in.
pub(crate) struct LoggedIn {
    pub(crate) info: Arc<SessionInfo>,
    pub(crate) account: Account,
    log_in: LogIn,
}

struct Live {
    line: Arc<Line>,
    logged_in: Option<Arc<LoggedIn>>,
    farewell: Option<ssh::Farewell>,
}

struct State {
    last_id: u64,
    starts: Starts,
    penalties: Penalties,
    pace: Pace,
    live: HashMap<u64, Live>,
    by_key: HashMap<PublicKey, usize>,
}

pub(crate) struct Shared {
    pub(crate) settings: SshSettings,
    pub(crate) accounts: Arc<dyn Accounts>,
    pub(crate) observer: Arc<dyn Observer>,
    config: GatewayConfig,
    state: Mutex<State>,
    bytes_sent: Arc<AtomicU64>,
    draining: watch::Sender<bool>,
    recheck: Notify,
    gone: Notify,
}

/// Where connections come from: a `TcpListener`, or what a test has in its place.
pub trait Listener: Send {
    /// The next connection.
    fn accept(&self) -> impl Future<Output = io::Result<(TcpStream, SocketAddr)>> + Send;
}

impl Listener for TcpListener {
    async fn accept(&self) -> io::Result<(TcpStream, SocketAddr)> {
        TcpListener::accept(self).await
    }
}

impl Gateway {
    /// A gateway that listens nowhere yet.
    pub fn new(
        config: GatewayConfig,
        accounts: Arc<dyn Accounts>,
        observer: Arc<dyn Observer>,
    ) -> Result<Gateway, KeyError> {
        let settings = SshSettings::new(&config)?;
        let state = State {
            last_id: 0,
            starts: Starts::new(config.starts_max, config.starts_per_network_max),
            penalties: Penalties::default(),
            pace: Pace::default(),
            live: HashMap::new(),
            by_key: HashMap::new(),
        };
        Ok(Gateway(Arc::new(Shared {
            settings,
            accounts,
            observer,
            config,
            state: Mutex::new(state),
            bytes_sent: Arc::default(),
            draining: watch::Sender::new(false),
            recheck: Notify::new(),
            gone: Notify::new(),
        })))
    }

    /// Takes connections until [`Gateway::drain`] is called. Errors of accepting, such as too many open files, are waited
    /// out.
    pub async fn serve(&self, listener: impl Listener) {
        let shared = &self.0;
        let mut draining = shared.draining.subscribe();
        let mut sweep = interval(shared.config.sweep_interval);
        sweep.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut pause = Duration::ZERO;
        loop {
            let accepted = async {
                sleep(pause).await;
                listener.accept().await
            };
            tokio::select! {
                _ = draining.wait_for(|draining| *draining) => return,
                _ = sweep.tick() => shared.sweep(),
                accepted = accepted => match accepted {
                    Ok((stream, peer)) => {
                        pause = Duration::ZERO;
                        shared.begin(stream, peer);
                    }
                    Err(error) => {
                        if pause.is_zero() {
                            tracing::warn!(%error, "connections cannot be accepted; tried again");
                        }
                        pause = (pause * 2).clamp(Duration::from_millis(50), Duration::from_secs(1));
                    }
                },
            }
        }
    }

    /// Ends: no new connections, those that are idle are told to go, transfers have until `within`.
    pub async fn drain(&self, within: Duration) {
        let shared = &self.0;
        shared.draining.send_replace(true);
        let deadline = Instant::now() + within;
        loop {
            let late = Instant::now() >= deadline;
            let mut ending = Vec::new();
            for live in shared.state.lock().live.values() {
                let idle = live.line.busy.load(Ordering::Relaxed) == 0 && live.line.still_for() >= DRAIN_STEP;
                if (late || idle || live.logged_in.is_none()) && live.line.reason().is_none() {
                    live.line.because(EndReason::Draining);
                    ending.push((live.line.clone(), live.farewell.clone()));
                }
            }
            for (line, farewell) in ending {
                tokio::spawn(async move {
                    if let Some(farewell) = farewell {
                        farewell.say("the server is ending; please come back").await;
                    }
                    line.cut(EndReason::Draining);
                });
            }
            if shared.state.lock().live.is_empty() {
                return;
            }
            let _ = timeout(DRAIN_STEP, shared.gone.notified()).await;
        }
    }

    /// Looks all live connections up again now, for example because a key was taken back.
    pub fn recheck(&self) {
        self.0.recheck.notify_waiters();
    }

    /// Counts, as of now.
    pub fn status(&self) -> GatewayStatus {
        let state = self.0.state.lock();
        GatewayStatus {
            logged_in: state.live.values().filter(|live| live.logged_in.is_some()).count(),
            starting: state.starts.count(),
            penalised_sources: state.penalties.sources(),
            bytes_sent: self.0.bytes_sent.load(Ordering::Relaxed),
            output_bytes: state.live.values().map(|live| live.line.output_bytes.load(Ordering::Relaxed)).sum(),
        }
    }
}

impl Shared {
    pub(crate) fn offence(&self, address: IpAddr, offence: Offence) {
        let address = address.to_canonical();
        if !self.config.penalties_exempt.iter().any(|network| network.contains(&address)) {
            self.state.lock().penalties.add(address, offence, Instant::now());
        }
    }

    /// Whether a key may have one more connection.
    pub(crate) fn may_connect(&self, key: &PublicKey) -> bool {
        self.state.lock().by_key.get(key).is_none_or(|count| *count < self.config.connections_per_key_max)
    }

    /// Enters somebody; `None` when the connection is over, or is one too many after all.
    pub(crate) fn logged_in(
        &self,
        id: u64,
        info: Arc<SessionInfo>,
        log_in: LogIn,
        account: Account,
    ) -> Option<Arc<LoggedIn>> {
        let session = Arc::new(LoggedIn { info: info.clone(), account, log_in });
        {
            let mut state = self.state.lock();
            if state.by_key.get(&session.log_in.key).is_some_and(|count| *count >= self.config.connections_per_key_max)
            {
                return None;
            }
            state.live.get_mut(&id)?.logged_in = Some(session.clone());
            *state.by_key.entry(session.log_in.key.clone()).or_default() += 1;
            state.starts.end(id);
        }
        self.observer.event(&Event::LoggedIn(info));
        Some(session)
    }

    fn begin(self: &Arc<Self>, stream: TcpStream, peer: SocketAddr) {
        let line = Line::new();
        let now = Instant::now();
        let admitted = {
            let mut state = self.state.lock();
            if !state.penalties.allows(peer.ip(), now) {
                Err(TurnedAway::Penalty)
            } else {
                state.last_id += 1;
                let id = state.last_id;
                match state.starts.begin(id, peer.ip()) {
                    Admission::Refuse => Err(TurnedAway::Starts),
                    admission => {
                        if let Admission::Displace(oldest) = admission
                            && let Some(oldest) = state.live.get(&oldest)
                        {
                            oldest.line.cut(EndReason::Displaced);
                        }
                        state.live.insert(id, Live { line: line.clone(), logged_in: None, farewell: None });
                        Ok((id, state.pace.wait(peer.ip(), now)))
                    }
                }
            }
        };
        match admitted {
            Ok((id, wait)) => {
                set_options(&stream);
                let place = Place { shared: self.clone(), id, line, peer, ended: None };
                tokio::spawn(place.run(stream, wait));
            }
            Err(reason) => self.observer.event(&Event::TurnedAway { peer, reason }),
        }
    }

    /// Ends connections on which nothing moves; under memory pressure sooner, the longest-stalled first.
    fn sweep(&self) {
        let state = self.state.lock();
        let mut held = 0;
        let mut stalled = Vec::new();
        for live in state.live.values() {
            let (still, bytes) = (live.line.still_for(), live.line.output_bytes.load(Ordering::Relaxed));
            held += bytes;
            if live.logged_in.is_none() {
                // Its time runs by another clock.
            } else if still >= self.config.stall_max {
                live.line.cut(EndReason::Stalled);
            } else if still >= self.config.stall_under_pressure && bytes > 0 {
                stalled.push((still, bytes, live.line.clone()));
            }
        }
        drop(state);
        stalled.sort_by_key(|(still, ..)| std::cmp::Reverse(*still));
        for (_, bytes, line) in stalled {
            if held <= self.config.memory_bytes_max {
                break;
            }
            line.cut(EndReason::Pressure);
            held = held.saturating_sub(bytes);
        }
    }
}

/// Replies go out as they are: Nagle's algorithm would cost clients that wait for each 40 ms.
fn set_options(stream: &TcpStream) {
    let _ = stream.set_nodelay(true);
    let _ = socket2::SockRef::from(stream).set_keepalive(true);
}

/// A connection's place in the books. Dropping it, however that comes, takes it out of them.
struct Place {
    shared: Arc<Shared>,
    id: u64,
    line: Arc<Line>,
    peer: SocketAddr,
    ended: Option<Ended>,
}

impl Place {
    async fn run(mut self, stream: TcpStream, wait: Duration) {
        let shared = self.shared.clone();
        let stream = GuardedStream::new(stream, self.line.clone(), shared.bytes_sent.clone());
        let grace = sleep(shared.config.login_grace);
        tokio::pin!(grace);
        let connecting = async {
            sleep(wait).await;
            ssh::connect(shared.clone(), self.id, stream, self.line.clone(), self.peer).await
        };
        let mut connection = tokio::select! {
            connected = connecting => match connected {
                Ok(connection) => connection,
                Err(ended) => {
                    self.ended = Some(ended);
                    return;
                }
            },
            () = &mut grace => {
                self.line.cut(EndReason::LoginGrace);
                return;
            }
        };
        if let Some(live) = shared.state.lock().live.get_mut(&self.id) {
            live.farewell = Some(connection.farewell());
        }
        let mut recheck = interval(shared.config.recheck_interval);
        recheck.set_missed_tick_behavior(MissedTickBehavior::Delay);
        recheck.reset();
        let mut in_grace = true;
        loop {
            tokio::select! {
                ended = connection.ended() => {
                    self.ended = Some(ended);
                    return;
                }
                () = &mut grace, if in_grace => {
                    in_grace = false;
                    if self.session().is_none() {
                        self.line.cut(EndReason::LoginGrace);
                    }
                }
                _ = recheck.tick() => self.recheck(&connection).await,
                () = shared.recheck.notified() => self.recheck(&connection).await,
            }
        }
    }

    fn session(&self) -> Option<Arc<LoggedIn>> {
        self.shared.state.lock().live.get(&self.id)?.logged_in.clone()
    }

    /// Ends the connection of a key that is no longer good.
    async fn recheck(&self, connection: &ssh::Connection) {
        let Some(session) = self.session() else { return };
        let look_up = self.shared.accounts.look_up(session.log_in.clone());
        let refused = match timeout(LOOK_UP_MAX, look_up).await {
            Ok(Ok(account)) => account.name != session.account.name,
            // Who cannot be asked takes nothing away.
            Ok(Err(Refusal::Unavailable)) | Err(_) => false,
            Ok(Err(_)) => true,
        };
        if refused {
            self.line.because(EndReason::Revoked);
            connection.farewell().say("this key is no longer good").await;
            self.line.cut(EndReason::Revoked);
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let logged_in = {
            let mut state = self.shared.state.lock();
            state.starts.end(self.id);
            let logged_in = state.live.remove(&self.id).and_then(|live| live.logged_in);
            if let Some(session) = &logged_in
                && let Some(count) = state.by_key.get_mut(&session.log_in.key)
            {
                *count -= 1;
                if *count == 0 {
                    state.by_key.remove(&session.log_in.key);
                }
            }
            logged_in
        };
        let reason = self.line.reason().unwrap_or(match self.ended {
            Some(Ended::Gone) if logged_in.is_some() => EndReason::Client,
            Some(Ended::Gone) => EndReason::NotLoggedIn,
            Some(Ended::Protocol) => EndReason::Protocol,
            // Also when this very task panics.
            Some(Ended::Crash) | None => EndReason::Crash,
        });
        match reason {
            EndReason::LoginGrace => self.shared.offence(self.peer.ip(), Offence::LoginGrace),
            EndReason::Protocol => self.shared.offence(self.peer.ip(), Offence::Protocol),
            EndReason::Crash => self.shared.offence(self.peer.ip(), Offence::Crash),
            _ => {}
        }
        if reason == EndReason::Crash {
            tracing::error!(peer = %self.peer, "a connection ended by a defect; others go on");
        }
        self.shared.observer.event(&Event::Ended {
            peer: self.peer,
            session: logged_in.map(|session| session.info.clone()),
            reason,
            bytes_received: self.line.received(),
            bytes_sent: self.line.sent(),
            connected_for: self.line.age(),
        });
        self.shared.gone.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::{TcpListener, TcpStream};

    #[tokio::test]
    async fn nothing_waits_for_more_to_send() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        assert!(!stream.nodelay().unwrap());
        super::set_options(&stream);
        assert!(stream.nodelay().unwrap());
    }
}
