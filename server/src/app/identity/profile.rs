//! What people say and change about themselves: name, language, where notices go, the second factor.

use crate::app::auth::{Person, Target, Verb};
use crate::app::error::or_not_found;
use crate::app::identity::{factor_purpose, totp};
use crate::app::{App, AppError, Principal};
use control::{Account, Holding, ProfileChange, RecoveryCode, SecondFactorRule, SecurityPolicy};
use zeroize::Zeroizing;

/// A person as that person sees it.
#[derive(Clone, Debug)]
pub struct Profile {
    /// Who.
    pub account: Account,
    /// Everything the person holds.
    pub holdings: Vec<Holding>,
    /// What the tenants ask for.
    pub policy: SecurityPolicy,
    /// How many recovery codes are left, of somebody with a second factor.
    pub recovery_codes_left: Option<i64>,
}

/// A second factor that waits for its first code.
pub struct NewFactor {
    /// To type into an app, base 32.
    pub secret: Zeroizing<String>,
    /// To show to an app.
    pub url: Zeroizing<String>,
}

impl App {
    /// The caller.
    pub async fn profile(&self, caller: &Principal) -> Result<Profile, AppError> {
        self.allow(caller, Verb::SELF_VIEW, Target::Myself).await?;
        let person = self.person(caller)?;
        let account = self.own_account(person).await?;
        let policy = self.control.effective_policy(&account.path).await?;
        let recovery_codes_left = match account.has_second_factor {
            true => Some(self.control.recovery_codes_left(&account.user).await?),
            false => None,
        };
        Ok(Profile { account, holdings: person.holdings.clone(), policy, recovery_codes_left })
    }

    /// Changes what stands in the caller's profile.
    pub async fn edit_profile(&self, caller: &Principal, change: &ProfileChange) -> Result<Profile, AppError> {
        self.allow(caller, Verb::SELF_EDIT, Target::Myself).await?;
        let person = self.person(caller)?;
        let account = self.own_account(person).await?;
        let address = person.address.to_string();
        self.control.edit_profile(&account, change, &address, self.clock.now_ns()).await?;
        self.profile(caller).await
    }

    async fn for_second_factor<'a>(&self, caller: &'a Principal) -> Result<(&'a Person, Account), AppError> {
        self.allow(caller, Verb::SELF_SECURE, Target::Myself).await?;
        // A stolen token neither takes nor gives ways to log in.
        let (person, _) = self.logged_in(caller)?;
        let account = self.own_account(person).await?;
        Ok((person, account))
    }

    /// Begins a second factor; it counts once a code of it was shown.
    pub async fn begin_second_factor(&self, caller: &Principal) -> Result<NewFactor, AppError> {
        let (_, account) = self.for_second_factor(caller).await?;
        let policy = self.control.effective_policy(&account.path).await?;
        if policy.second_factor == SecondFactorRule::Off {
            return Err(AppError::WrongState("second factors are switched off by the security policy".into()));
        }
        let mut secret = Zeroizing::new([0; totp::SECRET_BYTES]);
        getrandom::fill(secret.as_mut_slice()).map_err(|error| AppError::Internal(error.to_string()))?;
        let sealed = self.identity.sealer.seal(&factor_purpose(&account), secret.as_slice())?;
        self.control.begin_second_factor(&account, &sealed, self.clock.now_ns()).await?;
        let shown = account.email.clone().unwrap_or_else(|| account.name.clone());
        Ok(NewFactor {
            secret: Zeroizing::new(data_encoding::BASE32_NOPAD.encode(secret.as_slice())),
            url: totp::provisioning_url(secret.as_slice(), &shown),
        })
    }

    /// Shows the first code. Answers the recovery codes, once.
    pub async fn confirm_second_factor(&self, caller: &Principal, code: &str) -> Result<Vec<RecoveryCode>, AppError> {
        let (person, account) = self.for_second_factor(caller).await?;
        let not_begun = || AppError::WrongState("no second factor waits for its first code; begin one".into());
        let factor = self.control.second_factor(&account.user).await?.ok_or_else(not_begun)?;
        let secret = self.identity.sealer.open(&factor_purpose(&account), &factor.sealed_secret)?;
        let now_ns = self.clock.now_ns();
        let code: String = code.chars().filter(|c| !c.is_whitespace()).collect();
        let step = totp::step_of(&secret, &code, now_ns).ok_or_else(|| {
            AppError::Invalid("code: is not the one that counts now; is the clock of your phone right?".into())
        })?;
        let address = person.address.to_string();
        Ok(self.control.confirm_second_factor(&account, step, &address, now_ns).await?)
    }

    /// Makes a fresh set of recovery codes.
    pub async fn renew_recovery_codes(&self, caller: &Principal) -> Result<Vec<RecoveryCode>, AppError> {
        let (person, account) = self.for_second_factor(caller).await?;
        let address = person.address.to_string();
        Ok(self.control.renew_recovery_codes(&account, &address, self.clock.now_ns()).await?)
    }

    /// Takes the second factor away, unless the policy asks for one.
    pub async fn remove_second_factor(&self, caller: &Principal) -> Result<(), AppError> {
        let (person, account) = self.for_second_factor(caller).await?;
        let policy = self.control.effective_policy(&account.path).await?;
        if policy.second_factor == SecondFactorRule::Required {
            return Err(AppError::WrongState("the security policy asks for a second factor".into()));
        }
        let address = person.address.to_string();
        let removed = self.control.remove_second_factor(&account, &address, self.clock.now_ns());
        removed.await.map_err(or_not_found)
    }
}
