//! Login session or API token -> person. Nothing is remembered between two requests: whoever is disabled, loses a role or
//! comes from an address that is no longer trusted is refused at the next one.

use super::{Person, Principal, Verb, Via};
use crate::app::{App, AppError};
use control::{Account, Holding, Place, SecondFactorRule, SecretDigest, TokenState};
use std::net::IpAddr;

const MINUTE_NS: i64 = 60_000_000_000;

impl App {
    pub(super) async fn person_by_login(&self, secret: &SecretDigest, address: IpAddr) -> Result<Principal, AppError> {
        let now_ns = self.clock.now_ns();
        let found = self.control.find_login(secret).await?;
        let (session, account) = found.ok_or(AppError::Unauthorized)?;
        if !account.may_log_in() {
            return Err(AppError::Unauthorized);
        }
        let policy = self.control.effective_policy(&account.path).await?;
        let idle_ns = now_ns.saturating_sub(session.seen_ns);
        if session.ends_ns <= now_ns || idle_ns >= policy.idle_minutes.saturating_mul(MINUTE_NS) {
            return Err(AppError::LoginEnded);
        }
        if !policy.trusts(address) {
            return Err(AppError::UntrustedNetwork);
        }
        let mut holdings = self.control.holdings(&account.user).await?;
        self.drop_untrusted(&account, &mut holdings, address).await?;
        if idle_ns >= MINUTE_NS {
            let control = self.control.clone();
            // In the background: no request waits for the disk because of it.
            tokio::spawn(async move {
                if let Err(error) = control.note_login_use(&session.id, now_ns).await {
                    tracing::warn!(session = %session.id, %error, "the use of a login session could not be noted");
                }
            });
        }
        let second_factor_missing = policy.second_factor == SecondFactorRule::Required && !account.has_second_factor;
        let via = Via::Login { session: session.id, second_factor_missing, step_up_until_ns: session.step_up_until_ns };
        Ok(person(account, holdings, via, address))
    }

    pub(super) async fn person_by_api_token(
        &self,
        secret: &SecretDigest,
        address: IpAddr,
    ) -> Result<Principal, AppError> {
        let now_ns = self.clock.now_ns();
        let token = self.control.find_api_token(secret).await?.ok_or(AppError::Unauthorized)?;
        match token.state(now_ns) {
            TokenState::Revoked => return Err(AppError::Unauthorized),
            TokenState::Expired => return Err(AppError::TokenExpired),
            TokenState::Valid => {}
        }
        let account = self.control.account(&token.user).await?.filter(Account::may_log_in);
        let account = account.ok_or(AppError::Unauthorized)?;
        if !token.networks.is_empty() && !token.networks.iter().any(|network| network.contains(address)) {
            return Err(AppError::UntrustedNetwork);
        }
        let policy = self.control.effective_policy(&account.path).await?;
        if policy.second_factor == SecondFactorRule::Required && !account.has_second_factor {
            return Err(AppError::SecondFactorMissing);
        }
        let holdings = self.control.holdings(&account.user).await?;
        if token.used_ns.is_none_or(|used_ns| now_ns.saturating_sub(used_ns) >= MINUTE_NS) {
            let (control, id) = (self.control.clone(), token.id);
            tokio::spawn(async move {
                if let Err(error) = control.note_api_token_use(&id, now_ns).await {
                    tracing::warn!(token = %id, %error, "the use of an API token could not be noted");
                }
            });
        }
        // A verb that this build does not know gives nothing.
        let verbs = token.verbs.iter().filter_map(|name| Verb::named(name)).collect();
        Ok(person(account, holdings, Via::ApiToken { id: token.id, verbs, below: token.tenant }, address))
    }

    /// What somebody holds by being a member elsewhere counts only from where those tenants let their members come.
    async fn drop_untrusted(
        &self,
        account: &Account,
        holdings: &mut Vec<Holding>,
        address: IpAddr,
    ) -> Result<(), AppError> {
        for (tenant, networks) in self.control.networks_of_memberships(&account.user).await? {
            if !networks.iter().any(|network| network.contains(address)) {
                holdings.retain(|holding| match &holding.place {
                    Place::Subtree(at) | Place::Own { tenant: at, .. } => *at != tenant,
                    Place::CustomersOf(_) | Place::Customers(_) | Place::Service { .. } => true,
                });
            }
        }
        Ok(())
    }
}

fn person(account: Account, holdings: Vec<Holding>, via: Via, address: IpAddr) -> Principal {
    let (user, tenant, name) = (account.user, account.tenant, account.shown_name().to_owned());
    Principal::Person(Box::new(Person { user, name, tenant, holdings, via, address }))
}
