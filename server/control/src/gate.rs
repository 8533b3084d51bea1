//! Whether a vault is open: what the states of its owner, of the owner's tenant and of the services it was given say
//! together. What is refused because of it is decided elsewhere.

use crate::{Control, ControlError, ServiceState};
use repo_format::id::VaultId;
use sqlx::Row;

/// How far a vault is open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gate {
    /// Backups and restores.
    Open,
    /// What the best of the services its owner has a part of allows.
    Service(ServiceState),
    /// The customer has bought something, and its owner was given nothing of it.
    NothingGiven,
    /// Its owner is disabled, or deleted.
    UserDisabled,
    /// The customer is disconnected, or being deleted.
    TenantDisconnected,
}

impl Gate {
    /// Whether new backups are taken.
    pub const fn takes_backups(self) -> bool {
        match self {
            Gate::Open => true,
            Gate::Service(state) => state.takes_backups(),
            Gate::NothingGiven | Gate::UserDisabled | Gate::TenantDisconnected => false,
        }
    }

    /// Whether what is stored can be restored.
    pub const fn allows_restores(self) -> bool {
        match self {
            Gate::Open | Gate::NothingGiven => true,
            Gate::Service(state) => state.allows_restores(),
            Gate::UserDisabled | Gate::TenantDisconnected => false,
        }
    }

    /// A word for the state.
    pub const fn as_str(self) -> &'static str {
        match self {
            Gate::Open => "open",
            Gate::Service(state) => state.as_str(),
            Gate::NothingGiven => "not_given",
            Gate::UserDisabled => "disabled",
            Gate::TenantDisconnected => "disconnected",
        }
    }
}

/// The best service first.
const fn rank(state: ServiceState) -> u8 {
    match state {
        ServiceState::Active => 0,
        ServiceState::Trial => 1,
        ServiceState::Restricted => 2,
        ServiceState::Expired => 3,
        ServiceState::Ordered => 4,
        ServiceState::Suspended => 5,
        ServiceState::Cancelled => 6,
        ServiceState::Terminated => 7,
    }
}

impl Control {
    /// How far a vault is open; [`Gate::Open`] also for one that is not there, which is refused for that elsewhere. The
    /// vault of a user whose customer never bought anything is nobody's business: the operator gave it away.
    pub async fn vault_gate(&self, vault: &VaultId) -> Result<Gate, ControlError> {
        let Some(row) = sqlx::query(
            "SELECT users.id AS user_id, users.state AS user_state, tenants.state AS tenant_state, \
             (SELECT COUNT(*) FROM services WHERE services.tenant_id = tenants.id) AS bought FROM vaults \
             JOIN users ON users.id = vaults.user_id JOIN tenants ON tenants.id = users.tenant_id WHERE vaults.id = $1",
        )
        .bind(vault.to_string())
        .fetch_optional(&self.readers)
        .await?
        else {
            return Ok(Gate::Open);
        };
        let text = |column: &str| row.try_get::<String, _>(column);
        if text("tenant_state")? != "active" {
            return Ok(Gate::TenantDisconnected);
        }
        // An invited one has stored nothing yet and has no computer.
        if !matches!(text("user_state")?.as_str(), "active" | "invited") {
            return Ok(Gate::UserDisabled);
        }
        let given: Vec<String> = sqlx::query_scalar(
            "SELECT services.state FROM allocations JOIN services ON services.id = allocations.service_id \
             WHERE allocations.user_id = $1",
        )
        .bind(text("user_id")?)
        .fetch_all(&self.readers)
        .await?;
        let states = given.iter().map(|state| ServiceState::stored(state)).collect::<Result<Vec<_>, _>>()?;
        Ok(match states.into_iter().min_by_key(|state| rank(*state)) {
            Some(state) => Gate::Service(state),
            None if row.try_get::<i64, _>("bought")? == 0 => Gate::Open,
            None => Gate::NothingGiven,
        })
    }
}
