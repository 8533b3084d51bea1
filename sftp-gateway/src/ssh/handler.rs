//! What russh calls for one connection: log-in, channels, and what runs in them. Nothing here waits for a channel's data.

use crate::accounts::{Account, LogIn, Refusal};
use crate::exec::{self, Command};
use crate::gateway::{LOOK_UP_MAX, LoggedIn, Shared};
use crate::keys::PublicKey;
use crate::limits::{CHANNELS_MAX, COMMAND_BYTES_MAX};
use crate::line::Line;
use crate::observer::{EndReason, Event, LoginRefused, SessionInfo};
use crate::path::printable;
use crate::penalties::Offence;
use crate::sftp::{Engine, EngineOptions, Inbox, Sink, SinkClosed};
use bytes::Bytes;
use russh::keys::Algorithm;
use russh::server::{
    Auth, ChannelOpenHandle, Handle, Handler, Msg, PublicKeyOffer, Session as Wire, VerifiedPublicKey,
};
use russh::{Channel, ChannelId, ChannelOpenFailure};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use tokio::task::AbortHandle;

/// One connection.
pub(crate) struct Session {
    shared: Arc<Shared>,
    id: u64,
    line: Arc<Line>,
    peer: SocketAddr,
    user: Option<(LogIn, Account)>,
    logged_in: Option<Arc<LoggedIn>>,
    channels: HashMap<ChannelId, Open>,
    /// A log-in was tried.
    tried: bool,
    /// One was refused for good reason.
    failed: bool,
}

/// What runs in a channel.
enum Open {
    /// Nothing yet.
    Nothing,
    /// Something that takes bytes.
    Running(Running),
}

struct Running {
    input: Input,
    task: AbortHandle,
}

/// Where the bytes of a channel go.
enum Input {
    Sftp(Arc<Inbox>),
    Command(Arc<exec::Input>),
}

impl Drop for Running {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Session {
    pub(crate) fn new(shared: Arc<Shared>, id: u64, line: Arc<Line>, peer: SocketAddr) -> Session {
        Session {
            shared,
            id,
            line,
            peer,
            user: None,
            logged_in: None,
            channels: HashMap::new(),
            tried: false,
            failed: false,
        }
    }

    fn refused(&mut self, user: &str, key: Option<&PublicKey>, reason: LoginRefused) -> Auth {
        self.shared.observer.event(&Event::LoginRefused {
            peer: self.peer,
            user: printable(user.as_bytes().get(..256.min(user.len())).unwrap_or_default()),
            fingerprint: key.map(PublicKey::fingerprint),
            reason,
        });
        self.tried = true;
        // Neither is anybody's guess.
        self.failed |= !matches!(reason, LoginRefused::Account(Refusal::Unavailable) | LoginRefused::Connections);
        Auth::reject()
    }

    /// Asks the accounts; the same questions in the same order for everybody.
    async fn look_up(
        &mut self,
        user: &str,
        key: &russh::keys::PublicKey,
        algorithm: &Algorithm,
    ) -> Result<Account, Auth> {
        let key = key.to_bytes().ok().and_then(|blob| PublicKey::from_blob(&blob).ok());
        let sound = !matches!(algorithm, Algorithm::Rsa { hash: None } | Algorithm::Dsa);
        let Some(key) = key.filter(|_| sound) else {
            return Err(self.refused(user, None, LoginRefused::Algorithm));
        };
        let log_in = LogIn { user: user.to_owned(), key: key.clone(), peer: self.peer };
        let look_up = tokio::time::timeout(LOOK_UP_MAX, self.shared.accounts.look_up(log_in.clone()));
        match look_up.await.unwrap_or(Err(Refusal::Unavailable)) {
            Ok(account) => {
                self.user = Some((log_in, account.clone()));
                Ok(account)
            }
            Err(refusal) => Err(self.refused(user, Some(&key), LoginRefused::Account(refusal))),
        }
    }

    fn start(&mut self, channel: ChannelId, wire: &Wire, command: Option<Command>) -> bool {
        let (Some(Open::Nothing), Some(session)) = (self.channels.get(&channel), &self.logged_in) else { return false };
        let sink = ChannelSink { handle: wire.handle(), channel, line: self.line.clone() };
        let reports =
            Arc::new(Reports { shared: self.shared.clone(), session: session.clone(), line: self.line.clone() });
        let fs = session.account.fs.clone();
        let (input, task) = match command {
            None => {
                let inbox = Arc::new(Inbox::default());
                let options = EngineOptions::new(self.line.output_bytes.clone());
                let engine = Engine::new(fs, inbox.clone(), reports, options);
                let task = tokio::spawn(async move {
                    if engine.run(&sink).await.is_ok() {
                        sink.finish(0).await;
                    }
                });
                (Input::Sftp(inbox), task)
            }
            Some(command) => {
                let input = Arc::new(exec::Input::default());
                let running = input.clone();
                let task = tokio::spawn(async move {
                    if let Ok(status) = exec::run(command, fs, &running, reports, &sink).await {
                        sink.finish(status).await;
                    }
                });
                (Input::Command(input), task)
            }
        };
        let abort = task.abort_handle();
        // A panic of one session ends that session, and is heard of.
        let line = self.line.clone();
        tokio::spawn(async move {
            if task.await.is_err_and(|error| error.is_panic()) {
                line.cut(EndReason::Crash);
            }
        });
        self.channels.insert(channel, Open::Running(Running { input, task: abort }));
        true
    }

    fn input(&self, channel: ChannelId) -> Option<&Input> {
        match self.channels.get(&channel)? {
            Open::Running(running) => Some(&running.input),
            Open::Nothing => None,
        }
    }
}

/// Penalties are per connection: people with many keys in their agent try several of them before the right one.
impl Drop for Session {
    fn drop(&mut self) {
        if self.logged_in.is_none() && self.failed {
            self.shared.offence(self.peer.ip(), Offence::LoginRefused);
        } else if self.logged_in.is_none() && !self.tried && self.line.reason().is_none() {
            self.shared.offence(self.peer.ip(), Offence::NoLogin);
        }
    }
}

impl Handler for Session {
    type Error = russh::Error;

    async fn auth_none(&mut self, _: &str) -> Result<Auth, Self::Error> {
        Ok(Auth::reject())
    }

    async fn auth_password(&mut self, user: &str, _: &str) -> Result<Auth, Self::Error> {
        Ok(self.refused(user, None, LoginRefused::Method))
    }

    async fn auth_publickey_offered(&mut self, user: &str, offer: PublicKeyOffer<'_>) -> Result<Auth, Self::Error> {
        Ok(match self.look_up(user, offer.public_key, offer.algorithm).await {
            Ok(_) => Auth::Accept,
            Err(reject) => reject,
        })
    }

    async fn auth_publickey(&mut self, user: &str, key: VerifiedPublicKey<'_>) -> Result<Auth, Self::Error> {
        let account = match self.look_up(user, key.public_key, key.algorithm).await {
            Ok(account) => account,
            Err(reject) => return Ok(reject),
        };
        let Some((log_in, _)) = self.user.take() else { return Ok(Auth::reject()) };
        if self.shared.may_connect(&log_in.key) {
            self.user = Some((log_in, account));
            return Ok(Auth::Accept);
        }
        Ok(self.refused(user, Some(&log_in.key), LoginRefused::Connections))
    }

    async fn auth_succeeded(&mut self, wire: &mut Wire) -> Result<(), Self::Error> {
        let Some((log_in, account)) = self.user.take() else { return Err(russh::Error::Inconsistent) };
        let info = Arc::new(SessionInfo {
            id: self.id,
            peer: self.peer,
            account: account.name.clone(),
            key: account.key.clone(),
            fingerprint: log_in.key.fingerprint(),
            client: printable(wire.remote_sshid()),
        });
        match self.shared.logged_in(self.id, info, log_in, account) {
            Some(session) => {
                self.logged_in = Some(session);
                Ok(())
            }
            None => Err(russh::Error::Disconnect),
        }
    }

    async fn channel_open_session(
        &mut self,
        channel: Channel<Msg>,
        reply: ChannelOpenHandle,
        _: &mut Wire,
    ) -> Result<(), Self::Error> {
        // russh does not tell of the client's answer to a close of ours.
        self.channels.retain(|_, open| !matches!(open, Open::Running(running) if running.task.is_finished()));
        if self.channels.len() >= CHANNELS_MAX || self.logged_in.is_none() {
            reply.reject(ChannelOpenFailure::ResourceShortage).await;
            return Ok(());
        }
        self.channels.insert(channel.id(), Open::Nothing);
        reply.accept().await;
        // `channel` is dropped here, on purpose: see the head of the module.
        Ok(())
    }

    async fn subsystem_request(&mut self, channel: ChannelId, name: &str, wire: &mut Wire) -> Result<(), Self::Error> {
        if name == "sftp" && self.start(channel, wire, None) {
            wire.channel_success(channel)
        } else {
            wire.channel_failure(channel)
        }
    }

    async fn exec_request(&mut self, channel: ChannelId, line: &[u8], wire: &mut Wire) -> Result<(), Self::Error> {
        let command = if line.len() <= COMMAND_BYTES_MAX { Command::parse(line) } else { None };
        if let Some(session) = &self.logged_in {
            let shown = line.get(..COMMAND_BYTES_MAX.min(line.len())).unwrap_or_default();
            let event =
                Event::Command { session: session.info.clone(), command: printable(shown), known: command.is_some() };
            self.shared.observer.event(&event);
        }
        if command.is_some() && self.start(channel, wire, command) {
            wire.channel_success(channel)
        } else {
            wire.channel_failure(channel)
        }
    }

    async fn data(&mut self, channel: ChannelId, data: &[u8], wire: &mut Wire) -> Result<(), Self::Error> {
        self.line.moved();
        let taken = match self.input(channel) {
            Some(Input::Sftp(inbox)) => inbox.receive(data).map_err(|error| error.to_string()),
            Some(Input::Command(input)) => input.receive(data).map_err(|error| error.to_string()),
            None => Ok(()),
        };
        if let Err(reason) = taken {
            tracing::debug!(peer = %self.peer, reason, "a channel is closed");
            self.channels.insert(channel, Open::Nothing);
            wire.exit_status_request(channel, 255)?;
            wire.eof(channel)?;
            wire.close(channel)?;
            self.channels.remove(&channel);
        }
        Ok(())
    }

    async fn channel_eof(&mut self, channel: ChannelId, _: &mut Wire) -> Result<(), Self::Error> {
        match self.input(channel) {
            Some(Input::Sftp(inbox)) => inbox.end(),
            Some(Input::Command(input)) => input.end(),
            None => {}
        }
        Ok(())
    }

    async fn channel_close(&mut self, channel: ChannelId, _: &mut Wire) -> Result<(), Self::Error> {
        self.channels.remove(&channel);
        Ok(())
    }

    async fn shell_request(&mut self, channel: ChannelId, wire: &mut Wire) -> Result<(), Self::Error> {
        wire.channel_failure(channel)
    }

    async fn env_request(&mut self, channel: ChannelId, _: &str, _: &str, wire: &mut Wire) -> Result<(), Self::Error> {
        wire.channel_failure(channel)
    }

    async fn pty_request(
        &mut self,
        channel: ChannelId,
        _: &str,
        _: u32,
        _: u32,
        _: u32,
        _: u32,
        _: &[(russh::Pty, u32)],
        wire: &mut Wire,
    ) -> Result<(), Self::Error> {
        wire.channel_failure(channel)
    }

    async fn x11_request(
        &mut self,
        channel: ChannelId,
        _: bool,
        _: &str,
        _: &str,
        _: u32,
        wire: &mut Wire,
    ) -> Result<(), Self::Error> {
        wire.channel_failure(channel)
    }
}

/// Sends a channel's bytes.
struct ChannelSink {
    handle: Handle,
    channel: ChannelId,
    line: Arc<Line>,
}

impl ChannelSink {
    /// Exit status before the end: without it OpenSSH's clients call a good transfer a failure.
    async fn finish(&self, status: u32) {
        let _ = self.handle.exit_status_request(self.channel, status).await;
        let _ = self.handle.eof(self.channel).await;
        let _ = self.handle.close(self.channel).await;
    }
}

impl Sink for ChannelSink {
    async fn send(&self, bytes: Bytes) -> Result<(), SinkClosed> {
        self.handle.data(self.channel, bytes).await.map_err(|_| SinkClosed)?;
        self.line.moved();
        Ok(())
    }

    async fn send_error(&self, text: Bytes) -> Result<(), SinkClosed> {
        self.handle.extended_data(self.channel, 1, text).await.map_err(|_| SinkClosed)
    }
}

/// Tells the observer of files.
struct Reports {
    shared: Arc<Shared>,
    session: Arc<LoggedIn>,
    line: Arc<Line>,
}

impl crate::sftp::FileReports for Reports {
    fn working(&self) {
        self.line.moved();
    }

    fn opened(&self, path: &crate::ExportPath, size: u64) {
        self.line.busy.fetch_add(1, Ordering::Relaxed);
        self.shared.observer.event(&Event::Opened { session: self.session.info.clone(), path: path.clone(), size });
    }

    fn closed(&self, closed: &crate::sftp::FileClosed) {
        self.line.busy.fetch_sub(1, Ordering::Relaxed);
        self.shared.observer.event(&Event::Closed { session: self.session.info.clone(), file: closed.clone() });
    }
}
