//! Who somebody is: log-in, login sessions, step-up, passwords, second factors. What somebody may is `auth`'s.
//! An unknown account, a wrong password and a person who may not log in have one answer, behind the same work.

pub mod api_tokens;
pub mod invitations;
pub(crate) mod limits;
pub mod passwords;
pub mod profile;
pub mod recoveries;
pub mod security;
pub(crate) mod totp;

use crate::app::auth::{Person, Target, Verb, Via};
use crate::app::error::or_not_found;
use crate::app::identity::limits::{Guess, GuessLimits};
use crate::app::{App, AppError, Principal};
use control::{
    Account, FreshLogin, LoginSession, LoginSessionId, Password, PasswordHash, RecoveryCode, SecondFactorRule,
};
use std::net::IpAddr;
use std::sync::Arc;
use tokio::sync::Semaphore;
use zeroize::Zeroizing;

/// Passwords that are hashed at once: each takes a core and 19 MiB.
const HASHES_MAX: usize = 2;
/// Hashes that may wait; beyond, callers are told to try again.
const HASHES_WAITING_MAX: usize = 64;

/// Seals secrets that must be read again. The key is the composition root's.
pub trait Sealer: Send + Sync {
    /// Seals for a purpose, which must be named again to open.
    fn seal(&self, purpose: &[u8], plaintext: &[u8]) -> Result<Vec<u8>, AppError>;
    /// Opens what was sealed for this purpose.
    fn open(&self, purpose: &[u8], sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, AppError>;
}

/// What identity works with.
pub(crate) struct Identity {
    pub(crate) limits: GuessLimits,
    pub(crate) sealer: Arc<dyn Sealer>,
    hashing: Arc<Semaphore>,
    waiting: Semaphore,
}

impl Identity {
    pub(crate) fn new(sealer: Arc<dyn Sealer>) -> Self {
        Identity {
            limits: GuessLimits::default(),
            sealer,
            hashing: Arc::new(Semaphore::new(HASHES_MAX)),
            waiting: Semaphore::new(HASHES_WAITING_MAX),
        }
    }

    /// Runs something with a password on a thread of its own, a few at a time.
    async fn hashing<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, control::ControlError> + Send + 'static,
    ) -> Result<T, AppError> {
        let busy = || AppError::Retry("too many people are logging in at the moment; try again".into());
        let _waiting = self.waiting.try_acquire().map_err(|_| busy())?;
        let permit = self.hashing.clone().acquire_owned().await.map_err(|_| busy())?;
        let done = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            work()
        });
        Ok(done.await.map_err(|error| AppError::Internal(error.to_string()))??)
    }

    /// Hashes a password that somebody has chosen.
    pub(crate) async fn hash(&self, password: Password) -> Result<PasswordHash, AppError> {
        self.hashing(move || password.hash()).await
    }

    /// Whether it is the password of an account; as much work for nobody's.
    async fn matches(&self, account: Option<&Account>, password: Password) -> Result<bool, AppError> {
        let stored = account.and_then(|account| account.password.clone());
        let is_somebody = stored.is_some();
        let stored = stored.unwrap_or_else(PasswordHash::of_nobody);
        let matches = self.hashing(move || stored.matches(&password)).await?;
        Ok(matches && is_somebody)
    }
}

/// What somebody sends to log in.
#[derive(Debug)]
pub struct LoginRequest {
    /// Mail address or customer code.
    pub login: String,
    /// Password.
    pub password: Zeroizing<String>,
    /// Code of the second factor, or a recovery code.
    pub code: Option<Zeroizing<String>>,
    /// What the caller says it is.
    pub program: String,
}

/// Somebody who has logged in.
#[derive(Clone, Debug)]
pub struct LoggedIn {
    /// The session and its secret.
    pub fresh: FreshLogin,
    /// Who.
    pub account: Account,
    /// Idle time of the session, minutes.
    pub idle_minutes: i64,
    /// A second factor must be set up before anything else.
    pub second_factor_missing: bool,
    /// How many recovery codes are left, of somebody with a second factor.
    pub recovery_codes_left: Option<i64>,
}

/// Purpose under which the secret of a second factor is sealed.
pub(crate) fn factor_purpose(account: &Account) -> Vec<u8> {
    format!("second factor of user {}", account.user).into_bytes()
}

impl App {
    /// Logs somebody in.
    pub async fn log_in(&self, address: IpAddr, request: LoginRequest) -> Result<LoggedIn, AppError> {
        let LoginRequest { login, password, code, program } = request;
        let account = self.prove(&login, password, code.as_ref().map(|code| code.as_str()), address).await?;
        let policy = self.control.effective_policy(&account.path).await?;
        if !policy.trusts(address) {
            return Err(AppError::UntrustedNetwork);
        }
        let now_ns = self.clock.now_ns();
        let begun = self.control.begin_login(&account, &address.to_canonical().to_string(), &program, now_ns).await;
        let fresh = begun.map_err(|error| match error {
            control::ControlError::NotFound { .. } => AppError::WrongCredentials,
            other => other.into(),
        })?;
        let recovery_codes_left = match account.has_second_factor {
            true => Some(self.control.recovery_codes_left(&account.user).await?),
            false => None,
        };
        let second_factor_missing = policy.second_factor == SecondFactorRule::Required && !account.has_second_factor;
        Ok(LoggedIn { fresh, account, idle_minutes: policy.idle_minutes, second_factor_missing, recovery_codes_left })
    }

    /// Whose password this is, and the code when there is a second factor. Each try counts as a guess until it is right.
    pub(crate) async fn prove(
        &self,
        login: &str,
        password: Zeroizing<String>,
        code: Option<&str>,
        address: IpAddr,
    ) -> Result<Account, AppError> {
        let now_ns = self.clock.now_ns();
        let attempt = self.identity.limits.begin(Guess::Login, login, address, now_ns);
        let attempt = attempt.map_err(|retry_after_s| AppError::TooManyAttempts { retry_after_s })?;
        let password = Password::typed(password).ok_or(AppError::WrongCredentials)?;
        let account = self.control.account_by_login(login).await?.filter(Account::may_log_in);
        let is_right = self.identity.matches(account.as_ref(), password).await?;
        let Some(account) = account.filter(|_| is_right) else { return Err(AppError::WrongCredentials) };
        if account.has_second_factor {
            let Some(code) = code else {
                attempt.does_not_count();
                return Err(AppError::SecondFactorNeeded);
            };
            if !self.take_code(&account, code, address).await? {
                return Err(AppError::WrongCredentials);
            }
        }
        attempt.was_right();
        Ok(account)
    }

    /// Takes a code of the second factor, or a recovery code, once.
    async fn take_code(&self, account: &Account, code: &str, address: IpAddr) -> Result<bool, AppError> {
        let code = code.trim();
        let now_ns = self.clock.now_ns();
        if let Some(code) = RecoveryCode::typed(code) {
            let address = address.to_canonical().to_string();
            return Ok(self.control.use_recovery_code(account, &code, &address, now_ns).await?);
        }
        let code: String = code.chars().filter(|c| !c.is_whitespace()).collect();
        if !totp::is_code(&code) {
            return Ok(false);
        }
        let Some(factor) = self.control.second_factor(&account.user).await? else { return Ok(false) };
        if factor.confirmed_ns.is_none() {
            return Ok(false);
        }
        let secret = match self.identity.sealer.open(&factor_purpose(account), &factor.sealed_secret) {
            Ok(secret) => secret,
            Err(error) => {
                tracing::error!(user = %account.user, %error, "the second factor of a user cannot be opened");
                return Ok(false);
            }
        };
        match totp::step_of(&secret, &code, now_ns) {
            Some(step) => Ok(self.control.use_step(&account.user, step).await?),
            None => Ok(false),
        }
    }

    /// Somebody shows a fresh factor: what asks for one can be done until the time answered.
    pub async fn step_up(
        &self,
        caller: &Principal,
        password: Option<Zeroizing<String>>,
        code: Option<Zeroizing<String>>,
    ) -> Result<i64, AppError> {
        let (person, session) = self.logged_in(caller)?;
        let account = self.own_account(person).await?;
        let now_ns = self.clock.now_ns();
        let login = account.email.clone().unwrap_or_else(|| account.user.to_string());
        let attempt = self.identity.limits.begin(Guess::Login, &login, person.address, now_ns);
        let attempt = attempt.map_err(|retry_after_s| AppError::TooManyAttempts { retry_after_s })?;
        let is_right = match (code, password) {
            (Some(code), None) if account.has_second_factor => self.take_code(&account, &code, person.address).await?,
            (None, Some(password)) => {
                let password = Password::typed(password).ok_or(AppError::WrongCredentials)?;
                self.identity.matches(Some(&account), password).await?
            }
            _ => {
                attempt.does_not_count();
                return Err(AppError::Invalid("either the password or a code of the second factor is needed".into()));
            }
        };
        if !is_right {
            return Err(AppError::WrongCredentials);
        }
        attempt.was_right();
        let address = person.address.to_string();
        self.control.step_up(&account, &session, &address, now_ns).await.map_err(or_not_found)
    }

    /// Ends the login session of the caller.
    pub async fn log_out(&self, caller: &Principal) -> Result<(), AppError> {
        self.allow(caller, Verb::SELF_EDIT, Target::Myself).await?;
        let (person, session) = self.logged_in(caller)?;
        let account = self.own_account(person).await?;
        let address = person.address.to_string();
        let ended = self.control.end_login(&account, &session, &address, self.clock.now_ns()).await;
        ended.map_err(or_not_found)
    }

    /// The caller's login sessions, and which of them is the caller's own.
    pub async fn login_sessions(
        &self,
        caller: &Principal,
    ) -> Result<(Vec<LoginSession>, Option<LoginSessionId>), AppError> {
        self.allow(caller, Verb::SELF_VIEW, Target::Myself).await?;
        let person = self.person(caller)?;
        let own = match &person.via {
            Via::Login { session, .. } => Some(*session),
            Via::ApiToken { .. } => None,
        };
        Ok((self.control.login_sessions(&person.user, self.clock.now_ns()).await?, own))
    }

    /// Ends one of the caller's login sessions.
    pub async fn end_login(&self, caller: &Principal, session: &LoginSessionId) -> Result<(), AppError> {
        self.allow(caller, Verb::SELF_EDIT, Target::Myself).await?;
        let person = self.person(caller)?;
        let account = self.own_account(person).await?;
        let address = person.address.to_string();
        let ended = self.control.end_login(&account, session, &address, self.clock.now_ns()).await;
        ended.map_err(or_not_found)
    }

    /// Ends all login sessions of the caller but the one that asks. Answers how many.
    pub async fn end_other_logins(&self, caller: &Principal) -> Result<u64, AppError> {
        self.allow(caller, Verb::SELF_EDIT, Target::Myself).await?;
        let person = self.person(caller)?;
        let account = self.own_account(person).await?;
        let own = match &person.via {
            Via::Login { session, .. } => Some(*session),
            Via::ApiToken { .. } => None,
        };
        Ok(self.control.end_logins(&account, own, &person.address.to_string(), self.clock.now_ns()).await?)
    }

    /// The person behind a caller; tokens of vaults and of the operator have none.
    pub(crate) fn person<'a>(&self, caller: &'a Principal) -> Result<&'a Person, AppError> {
        match caller {
            Principal::Person(person) => Ok(person),
            _ => Err(AppError::Forbidden { needed: "an account of a person" }),
        }
    }

    /// The person behind a caller who has logged in, and the login session.
    pub(crate) fn logged_in<'a>(&self, caller: &'a Principal) -> Result<(&'a Person, LoginSessionId), AppError> {
        match caller {
            Principal::Person(person) => match &person.via {
                Via::Login { session, .. } => Ok((person, *session)),
                Via::ApiToken { .. } => Err(AppError::Forbidden { needed: "a login session" }),
            },
            _ => Err(AppError::Forbidden { needed: "a login session" }),
        }
    }

    pub(crate) async fn own_account(&self, person: &Person) -> Result<Account, AppError> {
        self.control.account(&person.user).await?.ok_or(AppError::Unauthorized)
    }
}
