//! Security policies of tenants. Nobody locks out the address that the change comes from; the operator on the server's
//! own machine is bound by no network and can undo any of it.

use crate::app::auth::{Target, Verb};
use crate::app::{App, AppError, Principal};
use control::{SecurityPolicy, TenantId};

/// A tenant's own policy, and what holds there.
#[derive(Clone, Debug)]
pub struct TenantSecurity {
    /// Its own.
    pub own: SecurityPolicy,
    /// With what the tenants above ask for.
    pub effective: SecurityPolicy,
}

impl App {
    /// A tenant's policy.
    pub async fn security(&self, caller: &Principal, tenant: TenantId) -> Result<TenantSecurity, AppError> {
        let allowed = self.allow(caller, Verb::SECURITY_VIEW, Target::Tenant(tenant)).await?;
        let own = self.control.security_policy(&allowed.scope, &tenant).await?;
        let effective = self.control.effective_policy(&allowed.at.path).await?;
        Ok(TenantSecurity { own, effective })
    }

    /// Sets a tenant's policy.
    pub async fn set_security(
        &self,
        caller: &Principal,
        tenant: TenantId,
        new: &SecurityPolicy,
    ) -> Result<TenantSecurity, AppError> {
        let allowed = self.allow(caller, Verb::SECURITY_EDIT, Target::Tenant(tenant)).await?;
        if let Principal::Person(person) = caller {
            let belongs = person.tenant == tenant || person.is_member_of(&tenant);
            if belongs && !new.trusts(person.address) {
                return Err(AppError::Conflict(format!(
                    "trusted_networks: this would lock out the address you come from, {}; add a network with it",
                    person.address
                )));
            }
        }
        let now_ns = self.clock.now_ns();
        self.control.set_security_policy(&allowed.scope, &allowed.actor, &allowed.at.path, new, now_ns).await?;
        self.security(caller, tenant).await
    }
}
