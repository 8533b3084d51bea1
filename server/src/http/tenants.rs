//! Tenants: wire types <-> use cases.

use crate::http::HttpState;
use crate::http::extract::{Caller, JsonBody};
use crate::http::page::{Page, id, named_id, next};
use crate::http::problem::Refusal;
use api::tenants::{CreateTenant, EditTenant, SupportAccess, Tenant, TenantKind, TenantState, Tenants};
use axum::Json;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use control::{NewTenant, TenantChange, TenantId};
use serde::Deserialize;

type Answer<T> = Result<Json<T>, Refusal>;

pub(crate) const fn kind(kind: control::TenantKind) -> TenantKind {
    match kind {
        control::TenantKind::Platform => TenantKind::Platform,
        control::TenantKind::Partner => TenantKind::Partner,
        control::TenantKind::Customer => TenantKind::Customer,
    }
}

const fn kind_of(kind: TenantKind) -> control::TenantKind {
    match kind {
        TenantKind::Platform => control::TenantKind::Platform,
        TenantKind::Partner => control::TenantKind::Partner,
        TenantKind::Customer => control::TenantKind::Customer,
    }
}

pub(crate) fn tenant(of: control::Tenant) -> Tenant {
    Tenant {
        id: of.id.to_string(),
        kind: kind(of.kind),
        parent: of.parent.map(|parent| parent.to_string()),
        name: of.name,
        title: of.title,
        state: match of.state {
            control::TenantState::Active => TenantState::Active,
            control::TenantState::Disconnected => TenantState::Disconnected,
            control::TenantState::Deleting => TenantState::Deleting,
        },
        state_ns: of.state_ns,
        delete_after_ns: of.delete_after_ns,
        legal: serde_json::from_str(&of.legal_data).unwrap_or_default(),
        contact: serde_json::from_str(&of.contact_data).unwrap_or_default(),
        locale: of.locale,
        time_zone: of.time_zone,
        support_access_until_ns: of.support_access_until_ns,
        created_ns: of.created_ns,
    }
}

/// `?kind=`.
#[derive(Debug, Default, Deserialize)]
pub(crate) struct Filter {
    kind: Option<TenantKind>,
}

/// Tenants that the caller sees, by title.
#[utoipa::path(get, path = "/tenants", tag = "tenants",
    params(("kind" = Option<TenantKind>, Query, description = "Only these"),
        ("limit" = Option<u32>, Query, description = "1 to 200; 50 when absent", minimum = 1, maximum = 200),
        ("after" = Option<String>, Query, description = "`next` of the page before")),
    responses((status = 200, body = Tenants)))]
pub(crate) async fn list(
    State(state): State<HttpState>,
    Caller(caller): Caller,
    Query(filter): Query<Filter>,
    Query(page): Query<Page>,
) -> Answer<Tenants> {
    let (limit, after) = (page.limit()?, page.after::<(String, String)>()?);
    let after = match &after {
        Some((title, tenant)) => Some((title.as_str(), named_id::<TenantId>(tenant, "after")?)),
        None => None,
    };
    let tenants = state.app.tenants(&caller, filter.kind.map(kind_of), after, limit).await?;
    let next = next(&tenants, limit, |tenant| (tenant.title.clone(), tenant.id.to_string()));
    Ok(Json(Tenants { items: tenants.into_iter().map(tenant).collect(), next }))
}

/// Makes a tenant below the platform or a partner.
#[utoipa::path(post, path = "/tenants", tag = "tenants", request_body = CreateTenant,
    responses((status = 201, body = Tenant)))]
pub(crate) async fn create(
    State(state): State<HttpState>,
    Caller(caller): Caller,
    JsonBody(body): JsonBody<CreateTenant>,
) -> Result<(StatusCode, Json<Tenant>), Refusal> {
    let parent = match &body.parent {
        Some(parent) => named_id(parent, "parent")?,
        None => TenantId::PLATFORM,
    };
    let new = NewTenant { parent, kind: kind_of(body.kind), name: body.name.as_deref(), title: &body.title };
    Ok((StatusCode::CREATED, Json(tenant(state.app.create_tenant(&caller, &new).await?))))
}

/// One tenant.
#[utoipa::path(get, path = "/tenants/{tenant}", tag = "tenants",
    params(("tenant" = String, Path, description = "Tenant id")), responses((status = 200, body = Tenant)))]
pub(crate) async fn show(
    State(state): State<HttpState>,
    Caller(caller): Caller,
    Path(which): Path<String>,
) -> Answer<Tenant> {
    Ok(Json(tenant(state.app.tenant(&caller, id(&which, "tenant")?).await?)))
}

/// Changes what is known of a tenant; what is absent stays.
#[utoipa::path(patch, path = "/tenants/{tenant}", tag = "tenants", request_body = EditTenant,
    params(("tenant" = String, Path, description = "Tenant id")), responses((status = 200, body = Tenant)))]
pub(crate) async fn edit(
    State(state): State<HttpState>,
    Caller(caller): Caller,
    Path(which): Path<String>,
    JsonBody(body): JsonBody<EditTenant>,
) -> Answer<Tenant> {
    let EditTenant { title, locale, time_zone, legal, contact } = body;
    let change = TenantChange { title, locale, time_zone, legal_data: legal, contact_data: contact };
    Ok(Json(tenant(state.app.edit_tenant(&caller, id(&which, "tenant")?, &change).await?)))
}

/// Says until when those above may look into the tenant's content.
#[utoipa::path(put, path = "/tenants/{tenant}/support-access", tag = "tenants", request_body = SupportAccess,
    params(("tenant" = String, Path, description = "Tenant id")), responses((status = 200, body = Tenant)))]
pub(crate) async fn support_access(
    State(state): State<HttpState>,
    Caller(caller): Caller,
    Path(which): Path<String>,
    JsonBody(body): JsonBody<SupportAccess>,
) -> Answer<Tenant> {
    let switched = state.app.switch_support_access(&caller, id(&which, "tenant")?, body.until_ns).await?;
    Ok(Json(tenant(switched)))
}
