//! What happens, told to the caller for its audit log and metrics.

use crate::accounts::Refusal;
use crate::path::ExportPath;
use crate::sftp::FileClosed;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

/// Somebody who is logged in. Text from clients is printable: one line, without control characters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionInfo {
    /// Unique within this process.
    pub id: u64,
    /// Where from.
    pub peer: SocketAddr,
    /// `Account::name`.
    pub account: String,
    /// `Account::key`.
    pub key: String,
    /// `SHA256:...` of the key used.
    pub fingerprint: String,
    /// The client's version line.
    pub client: String,
}

/// Why a connection was not taken, before a byte was exchanged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TurnedAway {
    /// The source failed too often lately.
    Penalty,
    /// Too many connections that are not logged in, from its network or in all.
    Starts,
    /// The gateway is ending.
    Draining,
}

/// Why a log-in was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LoginRefused {
    /// By the accounts.
    Account(Refusal),
    /// SHA-1, or a key that is too short or of a kind that is not taken.
    Algorithm,
    /// Something else than a public key.
    Method,
    /// The key has as many connections as it may.
    Connections,
}

/// How a connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum EndReason {
    /// The client left.
    Client,
    /// Nobody logged in within the time given.
    LoginGrace,
    /// It left without having logged in.
    NotLoggedIn,
    /// Nothing moved for too long.
    Stalled,
    /// Nothing moved, and memory was short.
    Pressure,
    /// The key or account is no longer good.
    Revoked,
    /// The gateway ended.
    Draining,
    /// It made room for connections of others before anybody was logged in.
    Displaced,
    /// The peer broke the protocol.
    Protocol,
    /// A defect of ours; other connections go on.
    Crash,
}

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A connection was not taken.
    TurnedAway {
        /// Where from.
        peer: SocketAddr,
        /// Why.
        reason: TurnedAway,
    },
    /// A log-in was refused. Clients with several keys cause several of these before they are let in.
    LoginRefused {
        /// Where from.
        peer: SocketAddr,
        /// The user name sent, printable.
        user: String,
        /// The key offered, if any.
        fingerprint: Option<String>,
        /// Why.
        reason: LoginRefused,
    },
    /// Somebody is logged in.
    LoggedIn(Arc<SessionInfo>),
    /// A file was opened.
    Opened {
        /// By whom.
        session: Arc<SessionInfo>,
        /// Which.
        path: ExportPath,
        /// Bytes.
        size: u64,
    },
    /// A file was closed, by the client or by the end of its connection.
    Closed {
        /// By whom.
        session: Arc<SessionInfo>,
        /// What was read.
        file: FileClosed,
    },
    /// A command was run.
    Command {
        /// By whom.
        session: Arc<SessionInfo>,
        /// The command line, printable.
        command: String,
        /// Whether we have such a command.
        known: bool,
    },
    /// A connection ended.
    Ended {
        /// Where from.
        peer: SocketAddr,
        /// Who; `None` when nobody was logged in.
        session: Option<Arc<SessionInfo>>,
        /// Why.
        reason: EndReason,
        /// Bytes from the client, encrypted.
        bytes_received: u64,
        /// Bytes to the client, encrypted.
        bytes_sent: u64,
        /// How long.
        connected_for: Duration,
    },
}

/// Implemented by the caller. Called on the tasks that speak with clients: it must not wait.
pub trait Observer: Send + Sync + 'static {
    /// Something happened.
    fn event(&self, event: &Event);
}

/// For those who do not want to know.
impl Observer for () {
    fn event(&self, _: &Event) {}
}
