//! Persons, what they ask to do something to, and the two doors through which every use case of theirs goes.

use super::matrix::{Asker, Cell, Decision, decide, holds, reach};
use super::{Grant, Need, Principal, TokenScope, Verb};
use crate::app::{App, AppError};
use control::{
    Actor, ApiTokenId, Holding, Location, LoginSessionId, Place, Role, Scope, ScopePart, ServiceId, TenantId, UserId,
};
use repo_format::id::VaultId;
use std::net::IpAddr;

/// Somebody known by name.
#[derive(Clone, Debug)]
pub struct Person {
    /// Who.
    pub user: UserId,
    /// For logs and lists.
    pub name: String,
    /// Where the person is at home.
    pub tenant: TenantId,
    /// Everything the person holds at this moment.
    pub holdings: Vec<Holding>,
    /// By which credential.
    pub via: Via,
    /// From where.
    pub address: IpAddr,
}

/// How somebody proved to be a person.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Via {
    /// Logged in.
    Login {
        /// Which login session.
        session: LoginSessionId,
        /// The security policy asks for a second factor, and there is none: nothing but setting one up can be done.
        second_factor_missing: bool,
        /// Until when a fresh factor counts, nanoseconds since 1970.
        step_up_until_ns: i64,
    },
    /// A token of the API: never more than its maker may now, and of that only some.
    ApiToken {
        /// Which.
        id: ApiTokenId,
        /// The verbs it was made for.
        verbs: Vec<Verb>,
        /// The tenant it was made for: nothing outside of it.
        below: TenantId,
    },
}

impl Person {
    /// Whether the person is a member of a tenant.
    pub fn is_member_of(&self, tenant: &TenantId) -> bool {
        self.holdings.iter().any(|holding| match &holding.place {
            Place::Subtree(at) | Place::Own { tenant: at, .. } => at == tenant,
            Place::CustomersOf(_) | Place::Customers(_) | Place::Service { .. } => false,
        })
    }
}

/// What something is to be done to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// The platform.
    Platform,
    /// The caller.
    Myself,
    /// A tenant.
    Tenant(TenantId),
    /// A service.
    Service(ServiceId),
    /// A user.
    User(UserId),
    /// A vault.
    Vault(VaultId),
    /// Something whose place is known, and the kind of thing it is.
    Located(&'static str, Option<Location>),
}

impl Target {
    const fn what(&self) -> &'static str {
        match self {
            Target::Platform => "platform",
            Target::Myself => "user",
            Target::Tenant(_) => "tenant",
            Target::Service(_) => "service",
            Target::User(_) => "user",
            Target::Vault(_) => "vault",
            Target::Located(what, _) => what,
        }
    }
}

/// A checked right: what the use case may touch, and whose name stands in the audit log.
#[derive(Clone, Debug)]
pub struct Allowed {
    /// For queries.
    pub scope: Scope,
    /// For the audit log.
    pub actor: Actor,
    /// Where the target is; of a list nowhere.
    pub at: Location,
}

/// The operator's own credentials hold this.
fn operator_holdings() -> Vec<Holding> {
    vec![Holding { role: Role::Operator, place: Place::Subtree(TenantId::PLATFORM), verbs: Vec::new() }]
}

impl Person {
    /// Whether what asks for a fresh factor can be done: a token was made for what it was made for.
    pub(super) fn has_fresh_factor(&self, now_ns: i64) -> bool {
        match &self.via {
            Via::Login { step_up_until_ns, .. } => *step_up_until_ns > now_ns,
            Via::ApiToken { .. } => true,
        }
    }

    /// Whether the person runs the platform, by a credential that is good for it.
    pub(super) fn may_operate(&self) -> bool {
        let operates = |holding: &Holding| Verb::STORAGE_ADMIN.cell(holding.role) == Cell::Yes;
        let is_good = match &self.via {
            Via::Login { second_factor_missing, .. } => !second_factor_missing,
            Via::ApiToken { verbs, below, .. } => verbs.contains(&Verb::STORAGE_ADMIN) && *below == TenantId::PLATFORM,
        };
        is_good && self.holdings.iter().any(operates)
    }
}

impl Principal {
    /// What it holds in the tree: nothing for a token of one vault.
    pub(super) fn holdings(&self) -> Vec<Holding> {
        match self {
            Principal::Person(person) => person.holdings.clone(),
            Principal::Local => operator_holdings(),
            Principal::Token(token) if token.scope == TokenScope::Operator => operator_holdings(),
            Principal::Token(_) | Principal::Computer(_) => Vec::new(),
        }
    }

    /// The person; nobody for tokens of vaults and the operator's own credentials.
    pub fn user(&self) -> Option<UserId> {
        match self {
            Principal::Person(person) => Some(person.user),
            Principal::Local | Principal::Token(_) | Principal::Computer(_) => None,
        }
    }

    /// A token of the API may less than its maker, and what asks for a fresh factor needs one, unless a token was made for
    /// exactly that.
    fn check_credential(&self, verb: Verb, at: Option<&Location>, now_ns: i64) -> Result<(), AppError> {
        let Principal::Person(person) = self else { return Ok(()) };
        match &person.via {
            Via::Login { second_factor_missing: true, .. } if !verb.is_about_oneself() => {
                Err(AppError::SecondFactorMissing)
            }
            Via::Login { .. } => match verb.needs_step_up() && !person.has_fresh_factor(now_ns) {
                true => Err(AppError::StepUpNeeded { verb: verb.as_str() }),
                false => Ok(()),
            },
            Via::ApiToken { verbs, below, .. } => {
                let inside = at.is_none_or(|at| at.path.contains(below));
                match verbs.contains(&verb) && inside {
                    true => Ok(()),
                    false => Err(AppError::Forbidden { needed: verb.as_str() }),
                }
            }
        }
    }

    /// For the audit log. `at`: where it is done, so that help from above says on whose behalf.
    fn actor(&self, at: Option<&Location>) -> Actor {
        match self {
            Principal::Person(person) => Actor {
                id: person.user.to_string(),
                name: person.name.clone(),
                behalf: at.and_then(Location::tenant).filter(|tenant| *tenant != person.tenant),
                address: person.address.to_string(),
            },
            Principal::Local | Principal::Token(_) | Principal::Computer(_) => {
                Actor { id: self.to_string(), name: self.who(), behalf: None, address: "local".into() }
            }
        }
    }
}

impl App {
    /// May the caller do this to that? An object that the caller does not see answers like one that is not there.
    pub async fn allow(&self, caller: &Principal, verb: Verb, target: Target) -> Result<Allowed, AppError> {
        let unseen = match target {
            // That there is a platform, and the caller, is no secret.
            Target::Platform | Target::Myself => AppError::Forbidden { needed: verb.as_str() },
            _ => AppError::NotFound { what: target.what() },
        };
        let is_own = target == Target::Myself && caller.user().is_some() && verb.is_everybodys();
        let at = match target {
            Target::Platform => self.control.locate_tenant(&TenantId::PLATFORM).await?,
            Target::Myself => match caller.user() {
                Some(user) => self.control.locate_user(&user).await?,
                None => self.control.locate_tenant(&TenantId::PLATFORM).await?,
            },
            Target::Tenant(id) => self.control.locate_tenant(&id).await?,
            Target::Service(id) => self.control.locate_service(&id).await?,
            Target::User(id) => self.control.locate_user(&id).await?,
            Target::Vault(id) => self.control.locate_vault(&id).await?,
            Target::Located(_, at) => at,
        };
        let Some(at) = at else { return Err(unseen) };
        let now_ns = self.clock.now_ns();
        let holdings = caller.holdings();
        let asker = Asker { holdings: &holdings, user: caller.user(), now_ns };
        // What everybody may do with the own person does not hang on where somebody holds something.
        let decision = if is_own { Decision::Allowed } else { decide(asker, verb, &at) };
        match decision {
            Decision::Unseen => {
                #[cfg(feature = "testing")]
                super::planted::delay();
                return Err(unseen);
            }
            Decision::Forbidden => return Err(AppError::Forbidden { needed: verb.as_str() }),
            Decision::Allowed => caller.check_credential(verb, Some(&at), now_ns)?,
        }
        // Queries behind this door are about the object that was asked for, and nothing beside it.
        let part = match (at.user, at.tenant()) {
            (Some(user), _) => ScopePart::User(user),
            (None, Some(tenant)) => ScopePart::Subtree(tenant),
            (None, None) => return Err(unseen),
        };
        Ok(Allowed { scope: Scope::new(&self.authority, vec![part]), actor: caller.actor(Some(&at)), at })
    }

    /// What the caller reaches with a verb, for lists. Refused only when that is nothing anywhere.
    pub async fn reach(&self, caller: &Principal, verb: Verb) -> Result<Allowed, AppError> {
        let now_ns = self.clock.now_ns();
        let holdings = caller.holdings();
        let mut parts = reach(Asker { holdings: &holdings, user: caller.user(), now_ns }, verb);
        if parts.is_empty() {
            return Err(AppError::Forbidden { needed: verb.as_str() });
        }
        caller.check_credential(verb, None, now_ns)?;
        if let Principal::Person(person) = caller
            && let Via::ApiToken { below, .. } = &person.via
        {
            parts = vec![ScopePart::Both(parts, *below)];
        }
        Ok(Allowed { scope: Scope::new(&self.authority, parts), actor: caller.actor(None), at: Location::default() })
    }

    /// A right on a vault: of a token by what it was made for, of a person by the matrix.
    pub async fn on_vault(&self, caller: &Principal, vault: &str, need: Need) -> Result<Grant, AppError> {
        let grant = match caller {
            Principal::Person(_) => {
                let id: VaultId = vault.parse().map_err(|_| AppError::NotFound { what: "vault" })?;
                self.allow(caller, need.verb(), Target::Vault(id)).await?;
                Grant { vault: id }
            }
            _ => caller.on_vault(vault, need)?,
        };
        self.check_gate(caller, grant.vault(), need).await?;
        Ok(grant)
    }

    /// Refuses to hand on a verb that the caller does not hold there.
    pub fn check_holds(&self, caller: &Principal, verb: Verb, at: &Location) -> Result<(), AppError> {
        let holdings = caller.holdings();
        let asker = Asker { holdings: &holdings, user: caller.user(), now_ns: self.clock.now_ns() };
        let by_credential = match caller {
            Principal::Person(person) => match &person.via {
                Via::ApiToken { verbs, below, .. } => verbs.contains(&verb) && at.path.contains(below),
                Via::Login { .. } => true,
            },
            _ => true,
        };
        // What everybody may do with the own person is held where the person is at home.
        let is_home = matches!(caller, Principal::Person(person) if at.tenant() == Some(person.tenant));
        let is_held = (verb.is_everybodys() && is_home) || holds(asker, verb, at);
        match by_credential && is_held {
            true => Ok(()),
            false => Err(AppError::Forbidden { needed: verb.as_str() }),
        }
    }

    /// Refuses to give a role that is more than the caller's own. Administrators give any role in their tenants and
    /// those below; members of groups only that of a user; a token none whose verbs it does not have, as far as they
    /// reach what is somebody else's.
    pub fn check_may_give(&self, caller: &Principal, role: Role, at: &Location) -> Result<(), AppError> {
        let Principal::Person(person) = caller else { return Ok(()) };
        let administers = person.holdings.iter().any(|holding| {
            matches!(holding.role, Role::Operator | Role::PartnerAdmin | Role::CustomerAdmin)
                && matches!(&holding.place, Place::Subtree(tenant) if at.path.contains(tenant))
        });
        if role != Role::BackupUser && !administers {
            return Err(AppError::Forbidden { needed: "the role of an administrator" });
        }
        if let Via::ApiToken { verbs, .. } = &person.via {
            let reaches_others = |verb: &Verb| {
                !matches!(verb.cell(role), Cell::No | Cell::Own) && !verb.is_everybodys() && !verbs.contains(verb)
            };
            let lacking = Verb::all().into_iter().find(reaches_others);
            if let Some(verb) = lacking {
                return Err(AppError::Forbidden { needed: verb.as_str() });
            }
        }
        Ok(())
    }

    /// The server itself, for what it does without being asked.
    pub fn own_scope(&self) -> Scope {
        Scope::new(&self.authority, vec![ScopePart::Subtree(TenantId::PLATFORM)])
    }
}

/// The server's name in the audit log.
pub fn server_actor() -> Actor {
    Actor { id: "server".into(), name: "the server by itself".into(), behalf: None, address: "local".into() }
}

impl Need {
    /// The verb of the matrix that meets it.
    const fn verb(self) -> Verb {
        match self {
            Need::Backup => Verb::BACKUP_START,
            Need::Restore | Need::BackupOrRestore => Verb::CONTENT_RESTORE,
            Need::Look => Verb::SNAPSHOT_LIST,
            Need::Protect => Verb::SNAPSHOT_HOLD,
            Need::Delete => Verb::SNAPSHOT_DELETE,
            Need::Purge => Verb::SNAPSHOT_PURGE,
            Need::Hold => Verb::SNAPSHOT_RELEASE,
        }
    }
}
