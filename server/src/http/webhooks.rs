//! Webhooks: wire types <-> use cases.

use crate::app::AppError;
use crate::app::webhooks::WebhookOwner;
use crate::http::HttpState;
use crate::http::extract::{Caller, JsonBody};
use crate::http::page;
use crate::http::problem::Refusal;
use api::page::Page;
use api::webhook::{
    ChangeWebhook, CreateWebhook, Delivery, DeliveryState, EventKind, NewWebhook, QueuedDelivery, Webhook,
};
use axum::Json;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use control::WebhookId;

type Answer<T> = Result<Json<T>, Refusal>;

pub(crate) const fn wire_event(event: control::EventKind) -> EventKind {
    match event {
        control::EventKind::BackupFailed => EventKind::BackupFailed,
        control::EventKind::BackupMissed => EventKind::BackupMissed,
        control::EventKind::BackupStale => EventKind::BackupStale,
        control::EventKind::Quota => EventKind::Quota,
        control::EventKind::ServiceExpiring => EventKind::ServiceExpiring,
        control::EventKind::ServiceState => EventKind::ServiceState,
        control::EventKind::Healed => EventKind::Healed,
        control::EventKind::Test => EventKind::Test,
    }
}

const fn stored_event(event: EventKind) -> control::EventKind {
    match event {
        EventKind::BackupFailed => control::EventKind::BackupFailed,
        EventKind::BackupMissed => control::EventKind::BackupMissed,
        EventKind::BackupStale => control::EventKind::BackupStale,
        EventKind::Quota => control::EventKind::Quota,
        EventKind::ServiceExpiring => control::EventKind::ServiceExpiring,
        EventKind::ServiceState => control::EventKind::ServiceState,
        EventKind::Healed => control::EventKind::Healed,
        EventKind::Test => control::EventKind::Test,
    }
}

fn webhook(webhook: control::Webhook) -> Webhook {
    Webhook {
        id: webhook.id.to_string(),
        tenant: webhook.tenant.to_string(),
        user: webhook.user.map(|user| user.to_string()),
        url: webhook.url,
        events: webhook.events.into_iter().map(wire_event).collect(),
        active: webhook.is_active,
        failing_since_ns: webhook.failing_since_ns,
        created_ns: webhook.created_ns,
    }
}

fn delivery(delivery: control::Delivery) -> Delivery {
    Delivery {
        id: delivery.id.to_string(),
        event: delivery.event,
        body: delivery.body,
        state: match delivery.state {
            control::DeliveryState::Queued => DeliveryState::Queued,
            control::DeliveryState::Delivered => DeliveryState::Delivered,
            control::DeliveryState::Failed => DeliveryState::Failed,
        },
        tries: delivery.tries,
        next_try_ns: delivery.next_try_ns,
        last_status: delivery.last_status,
        last_error: delivery.last_error,
        created_ns: delivery.created_ns,
        done_ns: delivery.done_ns,
    }
}

fn webhook_id(text: &str) -> Result<WebhookId, Refusal> {
    page::id(text, "webhook")
}

/// Webhooks, oldest first.
#[utoipa::path(get, path = "/webhooks", tag = "messages", params(
        ("limit" = Option<u32>, Query, description = "Most entries in the page, 1 to 200; 50 when absent"),
        ("after" = Option<String>, Query, description = "The `next` of the page before")),
    responses((status = 200, body = Page<Webhook>)))]
pub(crate) async fn list(
    State(state): State<HttpState>,
    Caller(caller): Caller,
    Query(paged): Query<page::Page>,
) -> Answer<Page<Webhook>> {
    let after = paged.after::<(i64, String)>()?;
    let after = after.map(|(at_ns, id)| page::named_id(&id, "after").map(|id| (at_ns, id))).transpose()?;
    let limit = paged.limit()?;
    let found = state.app.webhooks(&caller, after, limit).await?;
    let next = page::next(&found, limit, |webhook| (webhook.created_ns, webhook.id.to_string()));
    Ok(Json(Page { items: found.into_iter().map(webhook).collect(), next }))
}

/// Makes a webhook; its secret is in this answer and nowhere else.
#[utoipa::path(post, path = "/webhooks", tag = "messages", request_body = CreateWebhook,
    responses((status = 201, body = NewWebhook)))]
pub(crate) async fn create(
    State(state): State<HttpState>,
    Caller(caller): Caller,
    JsonBody(body): JsonBody<CreateWebhook>,
) -> Result<(StatusCode, Json<NewWebhook>), Refusal> {
    let owner = match (&body.tenant, &body.user) {
        (Some(tenant), None) => WebhookOwner::Tenant(page::named_id(tenant, "tenant")?),
        (None, Some(user)) => WebhookOwner::User(page::named_id(user, "user")?),
        _ => return Err(AppError::Invalid("name either a tenant or a user".into()).into()),
    };
    let events: Vec<_> = body.events.into_iter().map(stored_event).collect();
    let (made, secret) = state.app.create_webhook(&caller, owner, &body.url, &events).await?;
    Ok((StatusCode::CREATED, Json(NewWebhook { webhook: webhook(made), secret: secret.expose().to_owned() })))
}

/// One webhook.
#[utoipa::path(get, path = "/webhooks/{webhook}", tag = "messages",
    params(("webhook" = String, Path, description = "Webhook id")), responses((status = 200, body = Webhook)))]
pub(crate) async fn show(
    State(state): State<HttpState>,
    Caller(caller): Caller,
    Path(id): Path<String>,
) -> Answer<Webhook> {
    Ok(Json(webhook(state.app.webhook(&caller, &webhook_id(&id)?).await?)))
}

/// Changes a webhook; what is absent stays.
#[utoipa::path(put, path = "/webhooks/{webhook}", tag = "messages", request_body = ChangeWebhook,
    params(("webhook" = String, Path, description = "Webhook id")), responses((status = 200, body = Webhook)))]
pub(crate) async fn change(
    State(state): State<HttpState>,
    Caller(caller): Caller,
    Path(id): Path<String>,
    JsonBody(body): JsonBody<ChangeWebhook>,
) -> Answer<Webhook> {
    let events: Option<Vec<_>> = body.events.map(|events| events.into_iter().map(stored_event).collect());
    let changed = state
        .app
        .change_webhook(&caller, &webhook_id(&id)?, body.url.as_deref(), events.as_deref(), body.active)
        .await?;
    Ok(Json(webhook(changed)))
}

/// Removes a webhook and what is on its way to it.
#[utoipa::path(delete, path = "/webhooks/{webhook}", tag = "messages",
    params(("webhook" = String, Path, description = "Webhook id")), responses((status = 200, body = Webhook)))]
pub(crate) async fn remove(
    State(state): State<HttpState>,
    Caller(caller): Caller,
    Path(id): Path<String>,
) -> Answer<Webhook> {
    Ok(Json(webhook(state.app.delete_webhook(&caller, &webhook_id(&id)?).await?)))
}

/// Gives a webhook a new secret; the old one signs nothing any more.
#[utoipa::path(post, path = "/webhooks/{webhook}/secret", tag = "messages",
    params(("webhook" = String, Path, description = "Webhook id")), responses((status = 200, body = NewWebhook)))]
pub(crate) async fn renew_secret(
    State(state): State<HttpState>,
    Caller(caller): Caller,
    Path(id): Path<String>,
) -> Answer<NewWebhook> {
    let (changed, secret) = state.app.renew_webhook_secret(&caller, &webhook_id(&id)?).await?;
    Ok(Json(NewWebhook { webhook: webhook(changed), secret: secret.expose().to_owned() }))
}

/// Sends a test event.
#[utoipa::path(post, path = "/webhooks/{webhook}/test", tag = "messages",
    params(("webhook" = String, Path, description = "Webhook id")),
    responses((status = 201, body = QueuedDelivery)))]
pub(crate) async fn test(
    State(state): State<HttpState>,
    Caller(caller): Caller,
    Path(id): Path<String>,
) -> Result<(StatusCode, Json<QueuedDelivery>), Refusal> {
    let queued = state.app.test_webhook(&caller, &webhook_id(&id)?).await?;
    Ok((StatusCode::CREATED, Json(QueuedDelivery { id: queued.to_string() })))
}

/// What was sent to a webhook, newest first.
#[utoipa::path(get, path = "/webhooks/{webhook}/deliveries", tag = "messages", params(
        ("webhook" = String, Path, description = "Webhook id"),
        ("limit" = Option<u32>, Query, description = "Most entries in the page, 1 to 200; 50 when absent"),
        ("after" = Option<String>, Query, description = "The `next` of the page before")),
    responses((status = 200, body = Page<Delivery>)))]
pub(crate) async fn deliveries(
    State(state): State<HttpState>,
    Caller(caller): Caller,
    Path(id): Path<String>,
    Query(paged): Query<page::Page>,
) -> Answer<Page<Delivery>> {
    let after = paged.after::<(i64, String)>()?;
    let after = after.map(|(at_ns, id)| page::named_id(&id, "after").map(|id| (at_ns, id))).transpose()?;
    let limit = paged.limit()?;
    let found = state.app.deliveries(&caller, &webhook_id(&id)?, after, limit).await?;
    let next = page::next(&found, limit, |delivery| (delivery.created_ns, delivery.id.to_string()));
    Ok(Json(Page { items: found.into_iter().map(delivery).collect(), next }))
}
