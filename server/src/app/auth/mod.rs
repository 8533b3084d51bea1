//! Credential -> principal -> grant: the only place that refuses for want of a right. What persons may do stands in
//! `permissions.csv`; [`App::allow`] and [`App::reach`] are the two doors to it.

mod computer;
mod giving;
mod login;
pub mod matrix;
mod person;
#[cfg(feature = "testing")]
mod planted;

pub use computer::ComputerGrant;
pub(crate) use computer::KnownComputers;
pub(crate) use giving::role_in;
pub use matrix::Verb;
pub use person::{Allowed, Person, Target, Via, server_actor};
#[cfg(feature = "testing")]
pub use planted::FOREIGN_DELAY_VARIABLE;

use crate::app::{App, AppError};
use control::{KnownComputer, Rights, SecretDigest, SecretKind, Token, TokenId, TokenScope, TokenSecret, TokenState};
use parking_lot::Mutex;
use repo_format::id::VaultId;
use std::collections::{HashMap, HashSet};
use std::fmt;
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// What each route asks for; a test holds it to the routes there are.
pub const ROUTES: &str = include_str!("routes.csv");
/// A token is asked for again after this long.
const KNOWN_AGE_MAX: Duration = Duration::from_secs(5);
/// Most tokens kept.
const KNOWN_MAX: usize = 10_000;
const MINUTE_NS: i64 = 60_000_000_000;

/// Who is calling.
#[derive(Clone, Debug)]
pub enum Principal {
    /// A command on the server's own machine, by the credential in the data folder.
    Local,
    /// The holder of a token of one vault, or of the operator's.
    Token(Box<Token>),
    /// Somebody who has logged in, or a token of theirs.
    Person(Box<Person>),
    /// The agent of an enrolled computer.
    Computer(Box<KnownComputer>),
}

impl fmt::Display for Principal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Principal::Local => f.write_str("local"),
            Principal::Token(token) => write!(f, "{}", token.id),
            Principal::Person(person) => write!(f, "{}", person.user),
            Principal::Computer(known) => write!(f, "{}", known.computer.id),
        }
    }
}

/// What a use case needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// Upload into the vault.
    Backup,
    /// Read the vault.
    Restore,
    /// Either of them: what an agent reads of its base snapshot.
    BackupOrRestore,
    /// See snapshots, their states, and how the vault does, but nothing in them.
    Look,
    /// Make losing snapshots harder: set and extend holds, add tags.
    Protect,
    /// Delete snapshots so that they can be brought back, bring them back, take tags away.
    Delete,
    /// Remove snapshots for good, at once or by retention.
    Purge,
    /// Shorten and lift holds.
    Hold,
}

impl Need {
    const fn name(self) -> &'static str {
        match self {
            Need::Backup => "the right `backup`",
            Need::Restore => "the right `restore`",
            Need::BackupOrRestore => "the right `backup` or `restore`",
            Need::Look => "a right on this vault",
            Need::Protect => "the right `backup`, `delete` or `hold`",
            Need::Delete => "the right `delete`",
            Need::Purge => "the right `purge`",
            Need::Hold => "the right `hold`",
        }
    }

    const fn is_met_by(self, rights: Rights) -> bool {
        match self {
            Need::Backup => rights.backup,
            Need::Restore => rights.restore,
            Need::BackupOrRestore => rights.backup || rights.restore,
            Need::Look => true,
            Need::Protect => rights.backup || rights.delete || rights.hold,
            Need::Delete => rights.delete,
            Need::Purge => rights.purge,
            Need::Hold => rights.hold,
        }
    }

    /// An operator looks after every vault, and reads and writes none.
    const fn is_met_by_operator(self) -> bool {
        match self {
            Need::Backup | Need::Restore | Need::BackupOrRestore => false,
            Need::Look | Need::Protect | Need::Delete | Need::Purge | Need::Hold => true,
        }
    }
}

/// A checked right on one vault; only [`Principal::on_vault`] makes one, and every use case on a vault takes one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grant {
    vault: VaultId,
}

impl Grant {
    /// The vault.
    pub const fn vault(&self) -> VaultId {
        self.vault
    }
}

/// Proof that the caller may administer the server; only [`Principal::operator`] makes one.
#[derive(Clone, Copy, Debug)]
pub struct OperatorGrant(());

impl Principal {
    /// A right on the vault that the caller names, as text. The right is looked at first, then the name is compared
    /// with the token's vault; nothing is looked up, so that a foreign vault, one that never was, and a text that is
    /// no id at all get the same answer in the same time.
    pub fn on_vault(&self, vault: &str, need: Need) -> Result<Grant, AppError> {
        let not_found = AppError::NotFound { what: "vault" };
        let Some(scope) = self.scope() else { return Err(not_found) };
        match scope {
            TokenScope::Operator if need.is_met_by_operator() => {
                Ok(Grant { vault: vault.parse().map_err(|_| not_found)? })
            }
            TokenScope::Vault { vault: own, rights } if need.is_met_by(rights) => match vault.parse::<VaultId>() {
                Ok(asked) if asked == own => Ok(Grant { vault: own }),
                _ => Err(not_found),
            },
            TokenScope::Operator | TokenScope::Vault { .. } => Err(AppError::Forbidden { needed: need.name() }),
        }
    }

    /// What its token reaches; a person's reach is in the matrix.
    fn scope(&self) -> Option<TokenScope> {
        match self {
            Principal::Local => Some(TokenScope::Operator),
            Principal::Token(token) => Some(token.scope),
            Principal::Person(_) => None,
            // What its user's vault holds, and nothing of what deletes there.
            Principal::Computer(known) => known.vault.map(|vault| TokenScope::Vault {
                vault,
                rights: Rights { backup: true, restore: true, ..Rights::default() },
            }),
        }
    }

    /// Who this is, for people who read later who did something.
    pub fn who(&self) -> String {
        match self {
            Principal::Local => "operator on the server".into(),
            Principal::Token(token) if token.scope == TokenScope::Operator => format!("operator ({})", token.name),
            Principal::Token(token) => token.name.clone(),
            Principal::Person(person) => person.name.clone(),
            Principal::Computer(known) => format!("computer {}", known.computer.name),
        }
    }

    /// The right to administer the server: an operator's token, or an operator in person.
    pub fn operator(&self) -> Result<OperatorGrant, AppError> {
        let may = match self {
            Principal::Local => true,
            Principal::Token(token) => token.scope == TokenScope::Operator,
            Principal::Person(person) => person.may_operate(),
            Principal::Computer(_) => false,
        };
        if may { Ok(OperatorGrant(())) } else { Err(AppError::Forbidden { needed: "the right `operator`" }) }
    }
}

/// Tokens seen a moment ago, so that a busy agent does not cost a query per request. Whoever changes a token calls
/// [`KnownTokens::forget`] behind the change; what is expired is decided anew at every request.
#[derive(Default)]
pub(crate) struct KnownTokens {
    state: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    tokens: HashMap<SecretDigest, (Instant, Token)>,
    /// Rises with every change, so that a query begun before it does not bring back what was.
    generation: u64,
    /// Minute of each token's last use that was noted.
    noted: HashMap<TokenId, i64>,
    /// Good for a vault that this process has deleted.
    orphaned: HashSet<SecretDigest>,
}

impl KnownTokens {
    fn find(&self, secret: &SecretDigest) -> Result<Token, u64> {
        let state = self.state.lock();
        match state.tokens.get(secret) {
            Some((seen, token)) if seen.elapsed() < KNOWN_AGE_MAX => Ok(token.clone()),
            _ => Err(state.generation),
        }
    }

    fn keep(&self, secret: SecretDigest, token: Token, generation: u64) {
        let mut state = self.state.lock();
        if state.generation == generation {
            if state.tokens.len() >= KNOWN_MAX {
                state.tokens.clear();
            }
            state.tokens.insert(secret, (Instant::now(), token));
        }
    }

    /// True once for each token and minute.
    fn is_first_use_in_minute(&self, token: TokenId, now_ns: i64) -> bool {
        let mut state = self.state.lock();
        if state.noted.len() >= KNOWN_MAX {
            state.noted.clear();
        }
        let minute = now_ns.div_euclid(MINUTE_NS);
        state.noted.insert(token, minute) != Some(minute)
    }

    /// The vault of these tokens was deleted; until the next start their holders hear so.
    pub(crate) fn vault_is_gone(&self, secrets: &[SecretDigest]) {
        self.forget();
        self.state.lock().orphaned.extend(secrets);
    }

    fn unknown(&self, secret: &SecretDigest) -> AppError {
        match self.state.lock().orphaned.contains(secret) {
            true => AppError::VaultDeleted,
            false => AppError::Unauthorized,
        }
    }

    /// A token was changed.
    pub(crate) fn forget(&self) {
        let mut state = self.state.lock();
        state.generation += 1;
        state.tokens.clear();
    }
}

impl App {
    /// As [`Principal::operator`], for what destroys or hands out ways in: from a person who has logged in it takes a
    /// fresh factor.
    pub fn fresh_operator(&self, caller: &Principal) -> Result<OperatorGrant, AppError> {
        let grant = caller.operator()?;
        match caller {
            Principal::Person(person) if !person.has_fresh_factor(self.clock.now_ns()) => {
                Err(AppError::StepUpNeeded { verb: Verb::STORAGE_ADMIN.as_str() })
            }
            _ => Ok(grant),
        }
    }

    /// The caller behind a bearer secret, coming from an address. Unknown, revoked and malformed secrets get one answer.
    pub async fn authenticate(&self, bearer: &str, address: IpAddr) -> Result<Principal, AppError> {
        let address = address.to_canonical();
        if let Some(secret) = TokenSecret::parse(SecretKind::LoginSession, bearer) {
            return self.person_by_login(&secret.digest(), address).await;
        }
        if let Some(secret) = TokenSecret::parse(SecretKind::ApiToken, bearer) {
            return self.person_by_api_token(&secret.digest(), address).await;
        }
        if let Some(credential) = TokenSecret::parse(SecretKind::Computer, bearer) {
            return self.authenticate_computer(credential.digest()).await;
        }
        let secret = TokenSecret::parse(SecretKind::Token, bearer).ok_or(AppError::Unauthorized)?.digest();
        if secret == self.local_secret {
            return Ok(Principal::Local);
        }
        let token = match self.known_tokens.find(&secret) {
            Ok(token) => token,
            Err(generation) => {
                let token = self.control.find_token(&secret).await?;
                let token = token.ok_or_else(|| self.known_tokens.unknown(&secret))?;
                self.known_tokens.keep(secret, token.clone(), generation);
                token
            }
        };
        let now_ns = self.clock.now_ns();
        match token.state(now_ns) {
            TokenState::Revoked => Err(AppError::Unauthorized),
            TokenState::Expired => Err(AppError::TokenExpired),
            TokenState::Valid => {
                if self.known_tokens.is_first_use_in_minute(token.id, now_ns) {
                    self.note_use(token.clone(), now_ns);
                }
                Ok(Principal::Token(Box::new(token)))
            }
        }
    }

    /// In the background: no request waits for the disk because of it.
    fn note_use(&self, token: Token, now_ns: i64) {
        let control = self.control.clone();
        tokio::spawn(async move {
            if let Err(error) = control.note_use(&token, now_ns).await {
                tracing::warn!(token = %token.id, %error, "the use of a token could not be noted");
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn holder(scope: TokenScope) -> Principal {
        let id = "0123456789abcdef".parse().unwrap();
        let token =
            Token { id, name: "t".into(), scope, created_ns: 0, expires_ns: None, revoked_ns: None, used_ns: None };
        Principal::Token(Box::new(token))
    }

    #[test]
    fn what_was_known_before_a_change_is_not_known_behind_it() {
        let known = KnownTokens::default();
        let secret = TokenSecret::generate(SecretKind::Token).unwrap().digest();
        let Principal::Token(token) = holder(TokenScope::Operator) else { panic!("a token") };
        let generation = known.find(&secret).unwrap_err();
        known.keep(secret, *token.clone(), generation);
        assert_eq!(known.find(&secret).unwrap(), *token);
        known.forget();
        let current = known.find(&secret).unwrap_err();
        // The answer of a query that began before the change.
        known.keep(secret, *token.clone(), generation);
        assert!(known.find(&secret).is_err());
        known.keep(secret, *token.clone(), current);
        assert!(known.find(&secret).is_ok());

        assert!(known.is_first_use_in_minute(token.id, 61 * 1_000_000_000));
        assert!(!known.is_first_use_in_minute(token.id, 119 * 1_000_000_000));
        assert!(known.is_first_use_in_minute(token.id, 120 * 1_000_000_000));
    }

    #[test]
    fn rights_and_vaults_are_told_apart_only_by_the_holder_of_the_right() {
        let own = VaultId::from_bytes([1; 16]);
        let foreign = VaultId::from_bytes([2; 16]).to_string();
        let reader = holder(TokenScope::Vault { vault: own, rights: Rights { restore: true, ..Rights::default() } });
        assert_eq!(reader.on_vault(&own.to_string(), Need::Restore).unwrap().vault(), own);
        reader.on_vault(&own.to_string(), Need::BackupOrRestore).unwrap();
        for vault in [own.to_string(), foreign.clone(), "nonsense".into()] {
            for need in [Need::Backup, Need::Protect, Need::Delete, Need::Purge, Need::Hold] {
                assert!(matches!(reader.on_vault(&vault, need), Err(AppError::Forbidden { .. })), "{need:?}");
            }
        }
        reader.on_vault(&own.to_string(), Need::Look).unwrap();
        for vault in [foreign, "nonsense".into(), String::new()] {
            assert!(matches!(reader.on_vault(&vault, Need::Restore), Err(AppError::NotFound { what: "vault" })));
        }
        assert!(matches!(reader.operator(), Err(AppError::Forbidden { .. })));
        let operator = holder(TokenScope::Operator);
        operator.operator().unwrap();
        Principal::Local.operator().unwrap();
        for need in [Need::Backup, Need::Restore, Need::BackupOrRestore] {
            assert!(matches!(operator.on_vault(&own.to_string(), need), Err(AppError::Forbidden { .. })), "{need:?}");
        }
        for need in [Need::Look, Need::Protect, Need::Delete, Need::Purge, Need::Hold] {
            assert_eq!(operator.on_vault(&own.to_string(), need).unwrap().vault(), own, "{need:?}");
        }
        assert!(matches!(operator.on_vault("nonsense", Need::Look), Err(AppError::NotFound { .. })));
    }

    #[test]
    fn each_right_meets_its_own_needs_only() {
        let own = VaultId::from_bytes([1; 16]);
        let none = Rights::default();
        let met = |rights: Rights| -> Vec<Need> {
            let needs = [Need::Backup, Need::Restore, Need::Look, Need::Protect, Need::Delete, Need::Purge, Need::Hold];
            let holder = holder(TokenScope::Vault { vault: own, rights });
            needs.into_iter().filter(|need| holder.on_vault(&own.to_string(), *need).is_ok()).collect()
        };
        assert_eq!(met(Rights { backup: true, ..none }), [Need::Backup, Need::Look, Need::Protect]);
        assert_eq!(met(Rights { restore: true, ..none }), [Need::Restore, Need::Look]);
        assert_eq!(met(Rights { delete: true, ..none }), [Need::Look, Need::Protect, Need::Delete]);
        assert_eq!(met(Rights { purge: true, ..none }), [Need::Look, Need::Purge]);
        assert_eq!(met(Rights { hold: true, ..none }), [Need::Look, Need::Protect, Need::Hold]);
    }
}
