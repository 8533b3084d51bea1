//! Which vaults are open, by the state of services, users and customers: new backups are refused where the licence has
//! run out, restores only where an invoice is long overdue or the user or customer is disabled. The operator, who looks
//! after vaults and reads none, is not held up.

use crate::app::{App, AppError, Need, Principal};
use control::{Gate, TokenScope};
use parking_lot::Mutex;
use repo_format::id::VaultId;
use std::collections::HashMap;
use std::time::{Duration, Instant};

/// A gate is asked for again after this long.
const KNOWN_AGE_MAX: Duration = Duration::from_secs(5);
/// Most gates kept.
const KNOWN_MAX: usize = 10_000;

/// Gates seen a moment ago, so that a request costs no query. Whoever changes a service, a user or a tenant calls
/// [`KnownGates::forget`] behind the change.
#[derive(Default)]
pub(crate) struct KnownGates {
    state: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    gates: HashMap<VaultId, (Instant, Gate)>,
    /// Rises with every change, so that a query begun before it does not bring back what was.
    generation: u64,
}

impl KnownGates {
    /// Something changed.
    pub(crate) fn forget(&self) {
        let mut state = self.state.lock();
        state.generation += 1;
        state.gates.clear();
    }

    fn find(&self, vault: &VaultId) -> Result<Gate, u64> {
        let state = self.state.lock();
        match state.gates.get(vault) {
            Some((seen, gate)) if seen.elapsed() < KNOWN_AGE_MAX => Ok(*gate),
            _ => Err(state.generation),
        }
    }

    fn keep(&self, vault: VaultId, gate: Gate, generation: u64) {
        let mut state = self.state.lock();
        if state.generation == generation {
            if state.gates.len() >= KNOWN_MAX {
                state.gates.clear();
            }
            state.gates.insert(vault, (Instant::now(), gate));
        }
    }
}

pub(crate) fn refusal(gate: Gate) -> AppError {
    AppError::ServiceRestricted(match gate {
        Gate::Open => "nothing is in the way".into(),
        Gate::Service(state) => format!("the service is {}: {}", state.as_str(), state.way_out()),
        Gate::NothingGiven => {
            "nothing of what was bought is allocated to this user: an administrator of the customer can do that; restoring \
             still works"
                .into()
        }
        Gate::UserDisabled => {
            "the user is disabled: an administrator of the customer can enable the user again, until its data is destroyed"
                .into()
        }
        Gate::TenantDisconnected => {
            "the customer is disconnected: its partner or the operator can connect it again, until its data is destroyed"
                .into()
        }
    })
}

impl App {
    /// How far a vault is open, at most some seconds old.
    pub async fn gate(&self, vault: VaultId) -> Result<Gate, AppError> {
        match self.gates.find(&vault) {
            Ok(gate) => Ok(gate),
            Err(generation) => {
                let gate = self.control.vault_gate(&vault).await?;
                self.gates.keep(vault, gate, generation);
                Ok(gate)
            }
        }
    }

    /// Refuses what the state of the vault's owner and services closes. A running upload goes on: only its begin asks
    /// for [`App::check_takes_backups`].
    pub async fn check_gate(&self, caller: &Principal, vault: VaultId, need: Need) -> Result<(), AppError> {
        match caller {
            Principal::Local => return Ok(()),
            Principal::Token(token) if token.scope == TokenScope::Operator => return Ok(()),
            _ => {}
        }
        let gate = self.gate(vault).await?;
        let is_open = match need {
            Need::Restore | Need::BackupOrRestore => gate.allows_restores() || gate.takes_backups(),
            Need::Backup => !matches!(gate, Gate::UserDisabled | Gate::TenantDisconnected),
            Need::Look | Need::Protect | Need::Delete | Need::Purge | Need::Hold => true,
        };
        if is_open { Ok(()) } else { Err(refusal(gate)) }
    }

    /// Refuses a new backup where the licence has run out.
    pub(crate) async fn check_takes_backups(&self, vault: VaultId) -> Result<(), AppError> {
        let gate = self.gate(vault).await?;
        if gate.takes_backups() { Ok(()) } else { Err(refusal(gate)) }
    }
}
