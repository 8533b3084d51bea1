//! One connection under russh, from the outside: begun, waited for, told to go.

use crate::gateway::Shared;
use crate::line::{GuardedStream, Line};
use crate::ssh::handler::Session;
use russh::Disconnect;
use russh::server::{Handle, RunningSession};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

/// How long a peer has for taking a farewell.
const FAREWELL: Duration = Duration::from_secs(2);

/// A connection whose versions have been exchanged.
pub(crate) struct Connection(RunningSession<Session>);

/// How it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ended {
    /// In order, or the network was lost.
    Gone,
    /// The peer broke the protocol.
    Protocol,
    /// A panic of ours.
    Crash,
}

/// Exchanges version lines and lets russh go on in a task of its own.
pub(crate) async fn connect(
    shared: Arc<Shared>,
    id: u64,
    stream: GuardedStream,
    line: Arc<Line>,
    peer: SocketAddr,
) -> Result<Connection, Ended> {
    let settings = shared.settings.0.clone();
    let session = Session::new(shared, id, line, peer);
    russh::server::run_stream(settings, stream, session).await.map(Connection).map_err(|error| ended(&error))
}

impl Connection {
    /// For saying farewell while the connection is waited for.
    pub(crate) fn farewell(&self) -> Farewell {
        Farewell(self.0.handle())
    }

    /// Until it is over.
    pub(crate) async fn ended(&mut self) -> Ended {
        match (&mut self.0).await {
            Ok(()) => Ended::Gone,
            Err(error) => ended(&error),
        }
    }
}

/// A way to tell a client why its connection ends.
#[derive(Clone)]
pub(crate) struct Farewell(Handle);

impl Farewell {
    /// Tells it, if it listens.
    pub(crate) async fn say(&self, why: &str) {
        let said = self.0.disconnect(Disconnect::ByApplication, why.to_owned(), String::new());
        let _ = tokio::time::timeout(FAREWELL, said).await;
        tokio::time::sleep(FAREWELL / 4).await;
    }
}

fn ended(error: &russh::Error) -> Ended {
    match error {
        russh::Error::Join(_) => Ended::Crash,
        russh::Error::IO(_)
        | russh::Error::Disconnect
        | russh::Error::HUP
        | russh::Error::KeepaliveTimeout
        | russh::Error::InactivityTimeout
        | russh::Error::SendError
        | russh::Error::NoCommonAlgo { .. } => Ended::Gone,
        _ => Ended::Protocol,
    }
}
