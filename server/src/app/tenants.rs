//! Tenants: seeing, making and editing them.

use crate::app::error::or_not_found;
use crate::app::{App, AppError, Principal, Target, Verb};
use control::{Deed, ExportPage, ExportPlace, NewTenant, Scope, Tenant, TenantChange, TenantId, TenantKind};

impl App {
    /// Tenants that the caller sees, by title.
    pub async fn tenants(
        &self,
        caller: &Principal,
        kind: Option<TenantKind>,
        after: Option<(&str, TenantId)>,
        limit: u32,
    ) -> Result<Vec<Tenant>, AppError> {
        let allowed = self.reach(caller, Verb::TENANT_VIEW).await?;
        Ok(self.control.tenants(&allowed.scope, kind, after, limit).await?)
    }

    /// Makes a tenant below another one.
    pub async fn create_tenant(&self, caller: &Principal, new: &NewTenant<'_>) -> Result<Tenant, AppError> {
        let allowed = self.allow(caller, Verb::TENANT_INVITE_CHILD, Target::Tenant(new.parent)).await?;
        Ok(self.control.create_tenant(&allowed.scope, &allowed.actor, new, self.clock.now_ns()).await?)
    }

    /// One tenant.
    pub async fn tenant(&self, caller: &Principal, id: TenantId) -> Result<Tenant, AppError> {
        let allowed = self.allow(caller, Verb::TENANT_VIEW, Target::Tenant(id)).await?;
        self.control.tenant(&allowed.scope, &id).await.map_err(or_not_found)
    }

    /// Changes what is known of a tenant.
    pub async fn edit_tenant(
        &self,
        caller: &Principal,
        id: TenantId,
        change: &TenantChange,
    ) -> Result<Tenant, AppError> {
        let allowed = self.allow(caller, Verb::TENANT_EDIT, Target::Tenant(id)).await?;
        let edited = self.control.edit_tenant(&allowed.scope, &allowed.actor, &id, change, self.clock.now_ns()).await;
        edited.map_err(or_not_found)
    }

    /// Says until when those above may look into the tenant's content; `None`: not at all.
    pub async fn switch_support_access(
        &self,
        caller: &Principal,
        id: TenantId,
        until_ns: Option<i64>,
    ) -> Result<Tenant, AppError> {
        let allowed = self.allow(caller, Verb::SUPPORT_ACCESS_SWITCH, Target::Tenant(id)).await?;
        let until_ns = until_ns.unwrap_or(0);
        if until_ns < 0 {
            return Err(AppError::Invalid("until_ns: must not be negative".into()));
        }
        let (scope, actor) = (&allowed.scope, &allowed.actor);
        self.control.switch_support_access(scope, actor, &id, until_ns, self.clock.now_ns()).await.map_err(or_not_found)
    }

    /// The right to export everything of a tenant, with an entry in its log: the queries that follow go by the scope.
    pub async fn begin_export(&self, caller: &Principal, id: TenantId) -> Result<Scope, AppError> {
        let allowed = self.allow(caller, Verb::TENANT_EXPORT, Target::Tenant(id)).await?;
        let deed = Deed {
            tenant: id,
            user: None,
            verb: Verb::TENANT_EXPORT.as_str(),
            object: format!("tenant {id}"),
            before: None,
            after: None,
        };
        self.control.note_deed(&allowed.actor, deed, self.clock.now_ns()).await?;
        Ok(allowed.scope)
    }

    /// The next page of an export.
    pub async fn export_page(
        &self,
        scope: &Scope,
        tenant: &TenantId,
        place: &ExportPlace,
    ) -> Result<Option<(ExportPage, ExportPlace)>, AppError> {
        self.control.export_page(scope, tenant, place).await.map_err(or_not_found)
    }
}
