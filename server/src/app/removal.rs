//! How users and tenants go, and what the clock does to services: asked for by people, carried out by the server when its
//! time has come. Every step can be interrupted anywhere; the next run goes on from what the accounts and the store say.

use crate::app::auth::server_actor;
use crate::app::engine::on_store;
use crate::app::error::or_not_found;
use crate::app::members::role_of;
use crate::app::{App, AppError, Principal, Target, Verb};
use control::{ControlError, DoomedVault, RemovalReceipt, Service, Tenant, TenantId, TenantStep, UserId, UserStep};
use std::sync::Arc;
use store::StoreError;

/// What a run of the clock has done.
#[derive(Clone, Debug, Default)]
pub struct Advanced {
    /// Services that changed.
    pub services: Vec<Service>,
    /// Vaults that were destroyed.
    pub vaults: u64,
    /// Users that are gone.
    pub users: u64,
    /// Tenants that are gone.
    pub tenants: u64,
}

impl App {
    /// Disables, enables, deletes a user, or brings one back. Gives the new state.
    pub async fn step_user(&self, caller: &Principal, user: UserId, step: UserStep) -> Result<String, AppError> {
        let verb = match step {
            UserStep::Disable | UserStep::Enable => Verb::USER_DISABLE,
            UserStep::Delete | UserStep::Undelete => Verb::USER_DELETE,
        };
        let allowed = self.allow(caller, verb, Target::User(user)).await?;
        // Whoever could not make somebody an administrator does not remove one.
        if let Some(home) = allowed.at.tenant() {
            let roles = match self.control.member(&home, &user).await {
                Ok(member) => member.roles,
                Err(ControlError::NotFound { .. }) => Vec::new(),
                Err(error) => return Err(error.into()),
            };
            let kind = self.control.tenant(&self.own_scope(), &home).await.map_err(or_not_found)?.kind;
            for role in roles {
                self.check_may_give(caller, role_of(kind, role), &allowed.at)?;
            }
        }
        let moved = self.control.step_user(&allowed.actor, &user, step, self.clock.now_ns()).await;
        self.gates.forget();
        self.known_computers.forget();
        moved.map_err(or_not_found)
    }

    /// Disconnects, connects or deletes a tenant.
    pub async fn step_tenant(&self, caller: &Principal, id: TenantId, step: TenantStep) -> Result<Tenant, AppError> {
        let verb = match step {
            TenantStep::Disconnect | TenantStep::Connect => Verb::TENANT_DISCONNECT,
            TenantStep::Delete => Verb::TENANT_DELETE,
        };
        let allowed = self.allow(caller, verb, Target::Tenant(id)).await?;
        let (scope, actor) = (&allowed.scope, &allowed.actor);
        let moved = self.control.step_tenant(scope, actor, &id, step, self.clock.now_ns()).await;
        self.gates.forget();
        self.known_computers.forget();
        moved.map_err(or_not_found)
    }

    /// Proofs of what was destroyed, as far as the caller sees the log.
    pub async fn removal_receipts(&self, caller: &Principal) -> Result<Vec<RemovalReceipt>, AppError> {
        let allowed = self.reach(caller, Verb::AUDIT_VIEW).await?;
        Ok(self.control.removal_receipts(&allowed.scope).await?)
    }

    /// What has come due: services expire, are cancelled, renew themselves; what was deleted long enough ago is
    /// destroyed. Nothing is destroyed while the clock is not believed.
    pub async fn advance_business(self: &Arc<Self>) -> Result<Advanced, AppError> {
        let guarded = on_store(&self.store, |store| match store.now_ns() {
            Ok(now_ns) => Ok(Some(now_ns)),
            Err(StoreError::ClockJumped { .. }) => Ok(None),
            Err(error) => Err(error),
        })
        .await?;
        let now_ns = guarded.unwrap_or_else(|| self.clock.now_ns());
        let mut advanced = Advanced::default();
        {
            let _one_at_a_time = self.creation.lock().await;
            let (scope, actor) = (self.own_scope(), server_actor());
            advanced.services = self.control.advance_services(&scope, &actor, guarded.is_some(), now_ns).await?;
            for service in &advanced.services {
                kill_point!(ServicesAdvanced);
                self.gates.forget();
                self.push_licence_quotas(&service.tenant, None).await?;
                tracing::info!(service = %service.id, state = service.state.as_str(), "a service went on by the clock");
            }
        }
        if guarded.is_some() {
            self.destroy_due(now_ns, &mut advanced).await?;
        }
        Ok(advanced)
    }

    async fn destroy_due(self: &Arc<Self>, now_ns: i64, advanced: &mut Advanced) -> Result<(), AppError> {
        for tenant in self.control.tenants_to_destroy(&server_actor(), now_ns).await? {
            let limits = self.control.licence_quotas(&tenant, None).await?;
            for user in self.control.users_of_tenant(&tenant).await? {
                self.destroy_user(&user, "customer deleted", advanced).await?;
            }
            kill_point!(TenantUsersErased);
            self.control.erase_tenant(&server_actor(), &tenant, self.clock.now_ns()).await?;
            kill_point!(TenantErased);
            for (scope, _) in limits {
                self.lift_quota(&scope);
            }
            advanced.tenants += 1;
            tracing::info!(%tenant, "a deleted tenant is gone");
        }
        for user in self.control.users_to_destroy(now_ns).await? {
            self.destroy_user(&user, "user deleted", advanced).await?;
        }
        for doomed in self.control.vaults_of_terminated_services().await? {
            self.destroy_vault(&doomed, "service terminated").await?;
            advanced.vaults += 1;
        }
        Ok(())
    }

    async fn destroy_user(
        self: &Arc<Self>,
        user: &UserId,
        cause: &str,
        advanced: &mut Advanced,
    ) -> Result<(), AppError> {
        let doomed = self.control.vaults_of_user(user).await?;
        for vault in &doomed {
            self.destroy_vault(vault, cause).await?;
            advanced.vaults += 1;
        }
        let home = self.control.locate_user(user).await?.and_then(|at| at.tenant());
        let limits = match home {
            Some(home) => self.control.licence_quotas(&home, Some(user)).await?,
            None => Vec::new(),
        };
        kill_point!(UserVaultsDestroyed);
        self.control.erase_user(&server_actor(), user, self.clock.now_ns()).await?;
        kill_point!(UserErased);
        self.known_computers.forget();
        for (scope, _) in limits {
            if matches!(scope, control::QuotaScope::User(_)) {
                self.lift_quota(&scope);
            }
        }
        advanced.users += 1;
        tracing::info!(%user, "a deleted user is gone");
        Ok(())
    }

    async fn destroy_vault(self: &Arc<Self>, doomed: &DoomedVault, cause: &str) -> Result<(), AppError> {
        let now_ns = self.clock.now_ns();
        self.control.begin_receipt(&server_actor(), doomed, cause, now_ns).await?;
        kill_point!(RemovalNoted);
        match self.carry_out_deletion(doomed.vault, doomed.vault.to_string()).await {
            Ok(_) => Ok(()),
            // The store had nothing of it, or nothing any more.
            Err(AppError::NotFound { .. } | AppError::VaultDeleted) => {
                Ok(self.control.finish_receipt(&server_actor(), &doomed.vault, None, now_ns).await?)
            }
            Err(error) => Err(error),
        }
    }
}
