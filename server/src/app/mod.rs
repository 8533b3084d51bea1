//! Use cases: `(app, grant, input) -> output`. Knows store and control, no HTTP. Calls of the store are synchronous
//! and run on the blocking threads.

pub mod accounts;
pub mod accounts_check;
pub mod agents;
pub mod audit;
pub mod auth;
pub mod browse;
pub mod care;
pub mod computers;
pub mod deletion;
mod engine;
mod error;
pub mod exports;
pub mod gate;
mod housekeeping;
pub mod identity;
pub mod job_lists;
mod master_key;
pub mod members;
pub mod notices;
pub mod outbox;
pub mod plans;
pub mod quota;
pub mod removal;
pub mod restore;
pub mod retention;
pub mod services;
pub mod states;
pub mod tenants;
pub mod upload;
pub mod vaults;
pub mod webhooks;

pub use auth::{Allowed, ComputerGrant, Grant, Need, OperatorGrant, Person, Principal, Target, Verb, server_actor};
pub use error::AppError;

use crate::app::agents::Agents;
use crate::app::auth::{KnownComputers, KnownTokens};
use crate::app::deletion::MasterKeyLoader;
use crate::app::engine::TakenTotals;
use crate::app::gate::KnownGates;
use crate::app::identity::{Identity, Sealer};
use crate::app::upload::RunningUploads;
use crate::clock::Clock;
use crate::webhook_sender::WebhookSender;
use control::{Authority, Control, SecretDigest, TokenSecret};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use store::Store;
use tokio::sync::Notify;

/// Everything use cases work on; one per process.
pub struct App {
    pub(crate) control: Control,
    /// Makes scopes; used in `auth` alone.
    authority: Authority,
    pub(crate) store: Arc<Store>,
    pub(crate) clock: Arc<dyn Clock>,
    /// The credential of commands on this machine; made at every start.
    pub(crate) local_secret: SecretDigest,
    pub(crate) known_tokens: KnownTokens,
    pub(crate) identity: Identity,
    pub(crate) known_computers: KnownComputers,
    /// Where agents wait.
    pub(crate) agents: Agents,
    /// Fingerprint of the master key in use.
    pub(crate) master_fingerprint: String,
    /// How people and agents reach this server, without a slash at the end.
    pub(crate) public_url: String,
    /// Makes [check the name, make keys, enter it] one step.
    pub(crate) creation: tokio::sync::Mutex<()>,
    pub(crate) uploads: RunningUploads,
    /// Rung or dropped whenever a service, a user or a tenant changes.
    pub(crate) gates: KnownGates,
    pub(crate) load_master_key: MasterKeyLoader,
    /// Knows which URLs may be right.
    pub(crate) webhooks: WebhookSender,
    pub(crate) totals: tokio::sync::Mutex<TakenTotals>,
    /// Rung when there may be something to collect.
    pub(crate) housekeeping: Notify,
    /// Rung when there may be an export to prepare.
    pub(crate) exports_wanted: Notify,
    pub(crate) sftp_door: exports::KnownDoor,
    draining: AtomicBool,
    master_confirmed: AtomicBool,
}

/// What an [`App`] is made of.
pub struct AppParts {
    /// Accounts.
    pub control: Control,
    /// Bytes.
    pub store: Arc<Store>,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// The credential of commands on this machine.
    pub local_secret: TokenSecret,
    /// Fingerprint of the master key in use.
    pub master_fingerprint: String,
    /// How people and agents reach this server.
    pub public_url: String,
    /// Seals secrets of accounts.
    pub sealer: Arc<dyn Sealer>,
    /// Gives the master key again.
    pub load_master_key: MasterKeyLoader,
    /// Sends to webhooks.
    pub webhooks: WebhookSender,
}

impl App {
    /// Puts the parts together and notes the master key in use.
    pub async fn new(parts: AppParts) -> Result<App, AppError> {
        let AppParts {
            control,
            store,
            clock,
            local_secret,
            master_fingerprint,
            public_url,
            sealer,
            load_master_key,
            webhooks,
        } = parts;
        control.note_master_key(&master_fingerprint, clock.now_ns()).await?;
        let authority = control.take_authority();
        let authority = authority.ok_or_else(|| AppError::Internal("the authority of the accounts is taken".into()))?;
        let confirmed = control.master_key_confirmed_ns(&master_fingerprint).await?.is_some();
        let app = App {
            control,
            authority,
            store,
            clock,
            local_secret: local_secret.digest(),
            known_tokens: KnownTokens::default(),
            identity: Identity::new(sealer),
            known_computers: KnownComputers::default(),
            agents: Agents::default(),
            master_fingerprint,
            public_url,
            load_master_key,
            webhooks,
            creation: tokio::sync::Mutex::new(()),
            uploads: RunningUploads::default(),
            gates: KnownGates::default(),
            totals: tokio::sync::Mutex::new(None),
            housekeeping: Notify::new(),
            exports_wanted: Notify::new(),
            sftp_door: exports::KnownDoor::new(),
            draining: AtomicBool::new(false),
            master_confirmed: AtomicBool::new(confirmed),
        };
        app.push_quotas().await?;
        Ok(app)
    }

    /// The server's time, nanoseconds since 1970.
    pub(crate) fn now_ns(&self) -> i64 {
        self.clock.now_ns()
    }

    /// From now on no upload begins, no agent waits, and readiness is off.
    pub fn drain(&self) {
        self.draining.store(true, Ordering::Relaxed);
        self.agents.ring_all();
    }

    /// Whether the server is on its way down.
    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }

    /// Whether somebody has confirmed the master key in use.
    pub fn is_master_key_confirmed(&self) -> bool {
        self.master_confirmed.load(Ordering::Relaxed)
    }

    pub(crate) fn set_master_key_confirmed(&self) {
        self.master_confirmed.store(true, Ordering::Relaxed);
    }
}
