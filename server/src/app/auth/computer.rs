//! Agents of enrolled computers: by their own credential, for their own plans, jobs and orders.

use super::Principal;
use crate::app::gate::refusal;
use crate::app::{App, AppError};
use control::{Computer, ComputerId, Gate, KnownComputer, SecretDigest};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::time::{Duration, Instant};

/// A credential is asked for again after this long.
const KNOWN_AGE_MAX: Duration = Duration::from_secs(5);
/// Most credentials kept.
const KNOWN_MAX: usize = 20_000;

/// Proof that the caller is the agent of a computer; only [`Principal::computer`] makes one.
#[derive(Clone, Debug)]
pub struct ComputerGrant {
    known: KnownComputer,
}

impl ComputerGrant {
    /// The computer.
    pub const fn computer(&self) -> &Computer {
        &self.known.computer
    }

    /// Its id.
    pub const fn id(&self) -> ComputerId {
        self.known.computer.id
    }

    /// The computer with its user and vault.
    pub const fn known(&self) -> &KnownComputer {
        &self.known
    }
}

impl Principal {
    /// The right of an agent to speak for its computer.
    pub fn computer(&self) -> Result<ComputerGrant, AppError> {
        match self {
            Principal::Computer(known) => Ok(ComputerGrant { known: known.as_ref().clone() }),
            Principal::Local | Principal::Token(_) | Principal::Person(_) => {
                Err(AppError::Forbidden { needed: "the credential of a computer" })
            }
        }
    }
}

/// Credentials seen a moment ago. Whoever changes a computer calls [`KnownComputers::forget`] behind the change.
#[derive(Default)]
pub(crate) struct KnownComputers {
    state: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    computers: HashMap<SecretDigest, (Instant, KnownComputer)>,
    /// Rises with every change.
    generation: u64,
}

impl KnownComputers {
    fn find(&self, secret: &SecretDigest) -> Result<KnownComputer, u64> {
        let state = self.state.lock();
        match state.computers.get(secret) {
            Some((seen, known)) if seen.elapsed() < KNOWN_AGE_MAX => Ok(known.clone()),
            _ => Err(state.generation),
        }
    }

    /// Keeps what a query found that began at `generation`, unless something changed since.
    fn keep(&self, secret: SecretDigest, known: KnownComputer, generation: u64) {
        let mut state = self.state.lock();
        if state.generation == generation {
            if state.computers.len() >= KNOWN_MAX {
                state.computers.clear();
            }
            state.computers.insert(secret, (Instant::now(), known));
        }
    }

    /// A computer was changed.
    pub(crate) fn forget(&self) {
        let mut state = self.state.lock();
        state.computers.clear();
        state.generation += 1;
    }
}

impl App {
    /// The computer behind a credential. That of a disabled user is told so: its agent waits until the user is enabled
    /// again, and does not take its credential for dead.
    pub(super) async fn authenticate_computer(&self, secret: SecretDigest) -> Result<Principal, AppError> {
        let known = match self.known_computers.find(&secret) {
            Ok(known) => known,
            Err(generation) => {
                let known = self.control.find_computer(&secret).await?.ok_or(AppError::Unauthorized)?;
                self.known_computers.keep(secret, known.clone(), generation);
                known
            }
        };
        match known.user_is_active {
            true => Ok(Principal::Computer(Box::new(known))),
            false => Err(refusal(Gate::UserDisabled)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::Need;
    use control::{ComputerState, TenantId, UserId, UserName};
    use repo_format::id::VaultId;

    fn known(vault: Option<VaultId>) -> KnownComputer {
        let computer = Computer {
            id: ComputerId::from_bytes([1; 16]),
            tenant: TenantId::from_bytes([2; 16]),
            user: UserId::from_bytes([3; 16]),
            name: "laptop".into(),
            state: ComputerState::Active,
            state_ns: 0,
            credential_ns: 0,
            os: String::new(),
            agent_version: String::new(),
            seen_ns: None,
            plans_version: 0,
            created_ns: 0,
        };
        KnownComputer { computer, user: UserName::parse("acme/anna").unwrap(), vault, user_is_active: true }
    }

    #[test]
    fn a_computer_backs_up_and_restores_and_may_nothing_else() {
        let own = VaultId::from_bytes([7; 16]);
        let agent = Principal::Computer(Box::new(known(Some(own))));
        for need in [Need::Backup, Need::Restore, Need::BackupOrRestore, Need::Look] {
            assert_eq!(agent.on_vault(&own.to_string(), need).unwrap().vault(), own, "{need:?}");
        }
        for need in [Need::Delete, Need::Purge, Need::Hold] {
            assert!(matches!(agent.on_vault(&own.to_string(), need), Err(AppError::Forbidden { .. })), "{need:?}");
        }
        let foreign = VaultId::from_bytes([8; 16]).to_string();
        assert!(matches!(agent.on_vault(&foreign, Need::Restore), Err(AppError::NotFound { .. })));
        assert!(agent.operator().is_err());
        assert_eq!(agent.computer().unwrap().id(), ComputerId::from_bytes([1; 16]));
        assert!(matches!(Principal::Local.computer(), Err(AppError::Forbidden { .. })));
        let without = Principal::Computer(Box::new(known(None)));
        assert!(matches!(without.on_vault(&own.to_string(), Need::Restore), Err(AppError::NotFound { .. })));
    }

    #[test]
    fn what_was_known_before_a_change_is_not_known_behind_it() {
        let store = KnownComputers::default();
        let secret = control::TokenSecret::generate(control::SecretKind::Computer).unwrap().digest();
        let generation = store.find(&secret).unwrap_err();
        store.keep(secret, known(None), generation);
        assert!(store.find(&secret).is_ok());
        store.forget();
        store.keep(secret, known(None), generation);
        assert!(store.find(&secret).is_err());
    }
}
