//! API tokens of people. A token gets verbs that its maker holds at that moment; what the maker no longer may, the token
//! may not either, because every request asks anew.

use crate::app::auth::{Target, Verb};
use crate::app::error::or_not_found;
use crate::app::{App, AppError, Principal};
use control::{ApiToken, ApiTokenId, Location, Network, NewApiToken, TenantId, TokenSecret};

/// A token to be made.
#[derive(Clone, Debug)]
pub struct ApiTokenRequest {
    /// Label.
    pub name: String,
    /// Names of verbs.
    pub verbs: Vec<String>,
    /// Nothing outside of this tenant's subtree; the maker's own when absent.
    pub tenant: Option<TenantId>,
    /// From where it works; empty = from anywhere.
    pub networks: Vec<Network>,
    /// Seconds until it expires; until it is revoked when absent.
    pub valid_seconds: Option<u64>,
}

impl App {
    /// Makes a token of the caller.
    pub async fn create_api_token(
        &self,
        caller: &Principal,
        request: ApiTokenRequest,
    ) -> Result<(ApiToken, TokenSecret), AppError> {
        self.allow(caller, Verb::SELF_SECURE, Target::Myself).await?;
        // A token that made tokens would outlive its expiry and leave its networks by them.
        let (person, _) = self.logged_in(caller)?;
        let tenant = request.tenant.unwrap_or(person.tenant);
        let at = self.control.locate_tenant(&tenant).await?;
        let (mut verbs, nowhere) = (Vec::new(), Location::default());
        for name in &request.verbs {
            let verb = Verb::named(name).ok_or_else(|| AppError::Invalid(format!("verbs: there is no verb {name}")))?;
            // Without a place nothing is held: a tenant that is not there answers like a foreign one.
            self.check_holds(caller, verb, at.as_ref().unwrap_or(&nowhere))?;
            verbs.push(verb.as_str().to_owned());
        }
        at.ok_or(AppError::NotFound { what: "tenant" })?;
        verbs.sort();
        verbs.dedup();
        let now_ns = self.clock.now_ns();
        let expires_ns = request.valid_seconds.map(|seconds| {
            let ns = i64::try_from(seconds).unwrap_or(i64::MAX).saturating_mul(1_000_000_000);
            now_ns.saturating_add(ns)
        });
        let account = self.own_account(person).await?;
        let new = NewApiToken { tenant, name: &request.name, verbs, networks: &request.networks, expires_ns };
        Ok(self.control.create_api_token(&account, &new, &person.address.to_string(), now_ns).await?)
    }

    /// The caller's tokens.
    pub async fn api_tokens(
        &self,
        caller: &Principal,
        after: Option<(i64, ApiTokenId)>,
        limit: u32,
    ) -> Result<Vec<ApiToken>, AppError> {
        self.allow(caller, Verb::SELF_VIEW, Target::Myself).await?;
        Ok(self.control.api_tokens(&self.person(caller)?.user, after, limit).await?)
    }

    /// Revokes one of the caller's tokens.
    pub async fn revoke_api_token(&self, caller: &Principal, id: &ApiTokenId) -> Result<ApiToken, AppError> {
        self.allow(caller, Verb::SELF_EDIT, Target::Myself).await?;
        let person = self.person(caller)?;
        let account = self.own_account(person).await?;
        let address = person.address.to_string();
        let revoked = self.control.revoke_api_token(&account, id, &address, self.clock.now_ns()).await;
        revoked.map_err(or_not_found)
    }
}
