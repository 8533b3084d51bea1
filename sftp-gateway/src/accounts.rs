//! Who may log in: asked of the caller, at every log-in and again and again while somebody is logged in.

use crate::fs::ExportFs;
use crate::keys::PublicKey;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;

/// Somebody who wants in, or is in and looked up again.
#[derive(Debug, Clone)]
pub struct LogIn {
    /// As sent; any text.
    pub user: String,
    /// The key offered; that it is really theirs is checked by the gateway.
    pub key: PublicKey,
    /// Where from.
    pub peer: SocketAddr,
}

/// Whose files are served to whom.
#[derive(Clone)]
pub struct Account {
    /// Goes into events; the caller's own name or number.
    pub name: String,
    /// Which of the account's keys; goes into events.
    pub key: String,
    /// What is served.
    pub fs: Arc<dyn ExportFs>,
}

/// Why somebody is not let in. Told to the observer only: clients see the same answer, after the same time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Refusal {
    /// No such user, or no such key of this user.
    Unknown,
    /// The key or the account is over, or not yet begun.
    Expired,
    /// The key was taken back.
    Revoked,
    /// Not from this network.
    Network,
    /// Nobody can be asked now. Whoever is logged in stays so.
    Unavailable,
}

/// An answer that may take time.
pub type LookUp = Pin<Box<dyn Future<Output = Result<Account, Refusal>> + Send>>;

/// Implemented by the caller.
pub trait Accounts: Send + Sync + 'static {
    /// One question for user, key and address. It takes as long for users that do not exist as for those that do.
    fn look_up(&self, log_in: LogIn) -> LookUp;
}
