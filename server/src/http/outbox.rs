//! The outbox: wire types <-> use cases.

use crate::http::HttpState;
use crate::http::extract::{Caller, JsonBody};
use crate::http::page;
use crate::http::problem::Refusal;
use api::outbox::{MailState, OutboxMail, QueuedMail, TestMail};
use api::page::Page;
use axum::Json;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use control::MailId;
use serde::Deserialize;
use utoipa::IntoParams;

type Answer<T> = Result<Json<T>, Refusal>;

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct OutboxQuery {
    /// Only mails in this state.
    #[param(inline)]
    state: Option<MailState>,
}

const fn wire_state(state: control::MailState) -> MailState {
    match state {
        control::MailState::Queued => MailState::Queued,
        control::MailState::Sent => MailState::Sent,
        control::MailState::Failed => MailState::Failed,
        control::MailState::Cancelled => MailState::Cancelled,
    }
}

const fn stored_state(state: MailState) -> control::MailState {
    match state {
        MailState::Queued => control::MailState::Queued,
        MailState::Sent => control::MailState::Sent,
        MailState::Failed => control::MailState::Failed,
        MailState::Cancelled => control::MailState::Cancelled,
    }
}

fn outbox_mail(mail: control::OutboxMail) -> OutboxMail {
    OutboxMail {
        id: mail.id.to_string(),
        tenant: mail.tenant.map(|tenant| tenant.to_string()),
        address: mail.address,
        template: mail.template,
        locale: mail.locale,
        state: wire_state(mail.state),
        tries: mail.tries,
        next_try_ns: mail.next_try_ns,
        last_error: mail.last_error,
        created_ns: mail.created_ns,
        done_ns: mail.done_ns,
    }
}

fn mail_id(text: &str) -> Result<MailId, Refusal> {
    page::id(text, "mail")
}

/// Mails, newest first.
#[utoipa::path(get, path = "/outbox", tag = "messages", params(OutboxQuery,
        ("limit" = Option<u32>, Query, description = "Most entries in the page, 1 to 200; 50 when absent"),
        ("after" = Option<String>, Query, description = "The `next` of the page before")),
    responses((status = 200, body = Page<OutboxMail>)))]
pub(crate) async fn list(
    State(state): State<HttpState>,
    Caller(caller): Caller,
    Query(filter): Query<OutboxQuery>,
    Query(paged): Query<page::Page>,
) -> Answer<Page<OutboxMail>> {
    let after = paged.after::<(i64, String)>()?;
    let after = after.map(|(at_ns, id)| page::named_id(&id, "after").map(|id| (at_ns, id))).transpose()?;
    let limit = paged.limit()?;
    let mails = state.app.outbox(&caller, filter.state.map(stored_state), after, limit).await?;
    let next = page::next(&mails, limit, |mail| (mail.created_ns, mail.id.to_string()));
    Ok(Json(Page { items: mails.into_iter().map(outbox_mail).collect(), next }))
}

/// Tries a waiting mail at once.
#[utoipa::path(post, path = "/outbox/{mail}/retry", tag = "messages",
    params(("mail" = String, Path, description = "Mail id")), responses((status = 200, body = OutboxMail)))]
pub(crate) async fn retry(
    State(state): State<HttpState>,
    Caller(caller): Caller,
    Path(mail): Path<String>,
) -> Answer<OutboxMail> {
    Ok(Json(outbox_mail(state.app.retry_mail(&caller, &mail_id(&mail)?).await?)))
}

/// Takes a waiting mail back.
#[utoipa::path(post, path = "/outbox/{mail}/cancel", tag = "messages",
    params(("mail" = String, Path, description = "Mail id")), responses((status = 200, body = OutboxMail)))]
pub(crate) async fn cancel(
    State(state): State<HttpState>,
    Caller(caller): Caller,
    Path(mail): Path<String>,
) -> Answer<OutboxMail> {
    Ok(Json(outbox_mail(state.app.cancel_mail(&caller, &mail_id(&mail)?).await?)))
}

/// Queues a mail that says that mail works.
#[utoipa::path(post, path = "/outbox/test", tag = "messages", request_body = TestMail,
    responses((status = 201, body = QueuedMail)))]
pub(crate) async fn test(
    State(state): State<HttpState>,
    Caller(caller): Caller,
    JsonBody(body): JsonBody<TestMail>,
) -> Result<(StatusCode, Json<QueuedMail>), Refusal> {
    let id = state.app.send_test_mail(&caller, &body.to, body.locale.as_deref().unwrap_or("en")).await?;
    Ok((StatusCode::CREATED, Json(QueuedMail { id: id.to_string() })))
}
