//! Notices: wire types <-> use cases.

use crate::http::HttpState;
use crate::http::extract::{Caller, JsonBody};
use crate::http::page;
use crate::http::problem::Refusal;
use crate::http::webhooks::wire_event;
use api::notices::{Notice, NoticeSettings, WeeklySummary};
use api::page::Page;
use axum::Json;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use serde::Deserialize;
use utoipa::IntoParams;

type Answer<T> = Result<Json<T>, Refusal>;

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct NoticesQuery {
    /// Only those that are open, or only those that are over.
    open: Option<bool>,
}

fn wire_notice(notice: control::Notice) -> Notice {
    Notice {
        id: notice.id.to_string(),
        tenant: notice.tenant.to_string(),
        user: notice.user.map(|user| user.to_string()),
        kind: wire_event(notice.kind),
        cause: notice.cause,
        level: notice.level,
        facts: notice.facts,
        since_ns: notice.since_ns,
        healed_ns: notice.healed_ns,
    }
}

/// Notices, newest first.
#[utoipa::path(get, path = "/notices", tag = "messages", params(NoticesQuery,
        ("limit" = Option<u32>, Query, description = "Most entries in the page, 1 to 200; 50 when absent"),
        ("after" = Option<String>, Query, description = "The `next` of the page before")),
    responses((status = 200, body = Page<Notice>)))]
pub(crate) async fn list(
    State(state): State<HttpState>,
    Caller(caller): Caller,
    Query(filter): Query<NoticesQuery>,
    Query(paged): Query<page::Page>,
) -> Answer<Page<Notice>> {
    let after = paged.after::<(i64, String)>()?;
    let after = after.map(|(at_ns, id)| page::named_id(&id, "after").map(|id| (at_ns, id))).transpose()?;
    let limit = paged.limit()?;
    let found = state.app.notices(&caller, filter.open, after, limit).await?;
    let next = page::next(&found, limit, |notice| (notice.since_ns, notice.id.to_string()));
    Ok(Json(Page { items: found.into_iter().map(wire_notice).collect(), next }))
}

/// When a tenant's people are told.
#[utoipa::path(get, path = "/tenants/{tenant}/notice-settings", tag = "messages",
    params(("tenant" = String, Path, description = "Tenant id")), responses((status = 200, body = NoticeSettings)))]
pub(crate) async fn settings(
    State(state): State<HttpState>,
    Caller(caller): Caller,
    Path(tenant): Path<String>,
) -> Answer<NoticeSettings> {
    let stale_days = state.app.stale_days(&caller, page::id(&tenant, "tenant")?).await?;
    Ok(Json(NoticeSettings { stale_days }))
}

/// Sets it.
#[utoipa::path(put, path = "/tenants/{tenant}/notice-settings", tag = "messages", request_body = NoticeSettings,
    params(("tenant" = String, Path, description = "Tenant id")), responses((status = 200, body = NoticeSettings)))]
pub(crate) async fn set_settings(
    State(state): State<HttpState>,
    Caller(caller): Caller,
    Path(tenant): Path<String>,
    JsonBody(body): JsonBody<NoticeSettings>,
) -> Answer<NoticeSettings> {
    state.app.set_stale_days(&caller, page::id(&tenant, "tenant")?, body.stale_days).await?;
    Ok(Json(body))
}

/// Switches the caller's weekly summary on or off.
#[utoipa::path(put, path = "/profile/weekly-summary", tag = "messages", request_body = WeeklySummary,
    responses((status = 204)))]
pub(crate) async fn set_weekly_summary(
    State(state): State<HttpState>,
    Caller(caller): Caller,
    JsonBody(body): JsonBody<WeeklySummary>,
) -> Result<StatusCode, Refusal> {
    state.app.set_wants_summary(&caller, body.wanted).await?;
    Ok(StatusCode::NO_CONTENT)
}
