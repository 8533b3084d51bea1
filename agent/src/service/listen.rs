//! Waiting for orders: one request is kept open. Behind an answer it is asked again at once; behind a failure after a
//! random while, so that a server that comes back is not met by all its agents in one moment.

use super::{Ended, hello};
use crate::client::{Client, ClientError, Patience};
use crate::error::AgentError;
use crate::stop::{Stop, jitter};
use api::agents::{ORDERS_WAIT_SECONDS_MAX, Order, Welcome};
use api::problem::Code;
use std::time::Duration;

/// How long agents stay away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pauses {
    /// Behind a connection that broke, agents come back spread over this.
    pub return_within: Duration,
    /// Behind further failures, over this.
    pub retry_within: Duration,
}

impl Pauses {
    /// What agents do.
    pub const USUAL: Pauses = Pauses { return_within: Duration::from_secs(15), retry_within: Duration::from_secs(30) };
}

/// Who listens.
pub trait Listener {
    /// Asks for the plans and keeps them; answers their version.
    fn fetch_plans(&self) -> Result<i64, ClientError>;
    /// Takes an order and says so to the server; one that is not taken is given again.
    fn obey(&self, order: Order);
    /// Told when the server goes away.
    fn remark(&self, text: &str);
    /// Told before each pause.
    fn pausing(&self, _pause: Duration) {}
}

/// Whether the server no longer knows the credential.
fn is_dead(error: &ClientError) -> bool {
    matches!(error.code(), Some(Code::Unauthorized | Code::TokenExpired))
}

/// Tells the server that the agent is there, for as long as that takes, also while its user is disabled; `None` when told
/// to stop meanwhile.
pub fn greet(
    client: &Client,
    stop: &Stop,
    pauses: Pauses,
    remark: &dyn Fn(&str),
) -> Result<Option<Result<Welcome, Ended>>, AgentError> {
    loop {
        match client.hello(&hello()) {
            Ok(welcome) => return Ok(Some(Ok(welcome))),
            Err(ClientError::Stopped) => return Ok(None),
            Err(error) if is_dead(&error) => return Ok(Some(Err(Ended::NotEnrolled))),
            Err(error) if error.code() == Some(Code::ServiceRestricted) => remark(&error.to_string()),
            Err(error @ (ClientError::Certificate(_) | ClientError::Refused { .. })) => return Err(error.into()),
            Err(error) => remark(&format!("the server is away: {error}")),
        }
        if stop.sleep(jitter(pauses.retry_within)).is_err() {
            return Ok(None);
        }
    }
}

/// Waits for orders and new plans until told to stop, or until the credential is dead.
pub fn listen(client: &Client, stop: &Stop, pauses: Pauses, listener: &impl Listener) -> Ended {
    let single = client.with_patience(Patience { total: Duration::ZERO, ..Patience::default() });
    let mut failures = 0u32;
    let mut version = -1;
    while !stop.is_stopped() {
        let answer = match version {
            // Plans are fetched at the start, whatever is kept of them.
            -1 => listener.fetch_plans().map(|fetched| {
                version = fetched;
                None
            }),
            known => single.orders(ORDERS_WAIT_SECONDS_MAX - 5, known).map(Some),
        };
        let pause = match answer {
            Ok(None) => Duration::ZERO,
            Ok(Some(answer)) => {
                failures = 0;
                for order in answer.orders {
                    listener.obey(order);
                }
                if answer.plans_version != version {
                    version = -1;
                }
                if answer.going_down { jitter(pauses.return_within) } else { Duration::ZERO }
            }
            Err(ClientError::Stopped) => return Ended::Stopped,
            Err(error) if is_dead(&error) => return Ended::NotEnrolled,
            Err(error) => {
                failures = failures.saturating_add(1);
                if failures == 1 {
                    listener.remark(&format!("the server is away: {error}"));
                }
                jitter(if failures == 1 { pauses.return_within } else { pauses.retry_within })
            }
        };
        if !pause.is_zero() {
            listener.pausing(pause);
            if stop.sleep(pause).is_err() {
                return Ended::Stopped;
            }
        }
    }
    Ended::Stopped
}
