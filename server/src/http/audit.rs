//! The audit log: wire types <-> use cases.

use crate::app::{App, AppError};
use crate::http::HttpState;
use crate::http::extract::Caller;
use crate::http::page::{self, named_id};
use crate::http::problem::Refusal;
use api::audit::{AuditChain, AuditEntry, JSON_LINES};
use api::page::Page;
use axum::Json;
use axum::body::Body;
use axum::extract::{Query, State};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use control::{AuditFilter, AuditPlace, Scope};
use serde::Deserialize;
use std::sync::Arc;
use utoipa::IntoParams;

/// Entries that are read at once for an export.
const EXPORT_STEP: u32 = 500;

#[derive(Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct AuditQuery {
    /// Not before, nanoseconds since 1970.
    since_ns: Option<i64>,
    /// Before, nanoseconds since 1970.
    until_ns: Option<i64>,
    /// Id or name of who did it.
    actor: Option<String>,
    /// Kind and id of what it was done to, or its id alone.
    object: Option<String>,
    /// What was done: a verb.
    verb: Option<String>,
    /// Only the log of this tenant.
    tenant: Option<String>,
}

impl AuditQuery {
    fn filter(self) -> Result<AuditFilter, Refusal> {
        let AuditQuery { since_ns, until_ns, actor, object, verb, tenant } = self;
        let tenant = tenant.map(|tenant| named_id(&tenant, "tenant")).transpose()?;
        let texts = [("actor", &actor), ("object", &object), ("verb", &verb)];
        for (field, text) in texts {
            if text.as_ref().is_some_and(|text| text.contains('\0')) {
                return Err(Refusal::BadRequest(format!("{field}: must not hold a zero byte")));
            }
        }
        Ok(AuditFilter { since_ns, until_ns, actor, object, verb, tenant })
    }
}

#[derive(Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct ExportQuery {
    /// Sequence number behind which it begins; from the begin when absent.
    after: Option<i64>,
    /// At most so many entries; all when absent.
    limit: Option<u64>,
}

fn wire(entry: control::AuditEntry) -> AuditEntry {
    AuditEntry {
        sequence: entry.sequence,
        at_ns: entry.at_ns,
        actor: entry.actor.id,
        actor_name: entry.actor.name,
        behalf_tenant: entry.actor.behalf.map(|tenant| tenant.to_string()),
        address: entry.actor.address,
        tenant: entry.tenant.to_string(),
        user: entry.user.map(|user| user.to_string()),
        verb: entry.verb,
        object: entry.object,
        before: entry.before,
        after: entry.after,
        previous_hash: entry.previous_hash,
        hash: entry.hash,
    }
}

/// Entries of the audit log that the caller sees, newest first.
#[utoipa::path(get, path = "/audit", tag = "audit", params(AuditQuery,
        ("limit" = Option<u32>, Query, description = "Most entries in the page, 1 to 200; 50 when absent"),
        ("after" = Option<String>, Query, description = "The `next` of the page before")),
    responses((status = 200, body = Page<AuditEntry>)))]
pub(crate) async fn list(
    State(state): State<HttpState>,
    Caller(caller): Caller,
    Query(query): Query<AuditQuery>,
    Query(paged): Query<page::Page>,
) -> Result<Json<Page<AuditEntry>>, Refusal> {
    let (limit, before) = (paged.limit()?, paged.after::<i64>()?);
    let found = state.app.audit_entries(&caller, &query.filter()?, AuditPlace::Before(before), limit).await?;
    let next = page::next(&found, limit, |entry| entry.sequence);
    Ok(Json(Page { items: found.into_iter().map(wire).collect(), next }))
}

/// What is still to be sent.
struct Export {
    app: Arc<App>,
    scope: Scope,
    filter: AuditFilter,
    after: i64,
    left: u64,
}

impl Export {
    /// The next lines; nothing behind the end.
    async fn piece(&mut self) -> Result<Option<Bytes>, AppError> {
        let step = u32::try_from(self.left).unwrap_or(u32::MAX).min(EXPORT_STEP);
        if step == 0 {
            return Ok(None);
        }
        let entries = self.app.audit_page(&self.scope, &self.filter, AuditPlace::After(self.after), step).await?;
        let Some(last) = entries.last() else { return Ok(None) };
        self.after = last.sequence;
        self.left = if entries.len() < step as usize { 0 } else { self.left - u64::from(step) };
        let mut lines = Vec::new();
        for entry in entries {
            serde_json::to_writer(&mut lines, &wire(entry)).map_err(|error| AppError::Internal(error.to_string()))?;
            lines.push(b'\n');
        }
        Ok(Some(lines.into()))
    }
}

/// Entries of the audit log that the caller sees, oldest first, one JSON object in each line, with their hashes.
#[utoipa::path(get, path = "/audit/export", tag = "audit", params(AuditQuery, ExportQuery),
    responses((status = 200, content_type = "application/x-ndjson", body = AuditEntry)))]
pub(crate) async fn export(
    State(state): State<HttpState>,
    Caller(caller): Caller,
    Query(query): Query<AuditQuery>,
    Query(ExportQuery { after, limit }): Query<ExportQuery>,
) -> Result<Response, Refusal> {
    let filter = query.filter()?;
    let scope = state.app.audit_scope(&caller).await?;
    let (after, left) = (after.unwrap_or(0), limit.unwrap_or(u64::MAX));
    let export = Export { app: state.app, scope, filter, after, left };
    let pieces = futures_util::stream::try_unfold(export, |mut export| async move {
        match export.piece().await {
            Ok(Some(piece)) => Ok(Some((piece, export))),
            Ok(None) => Ok(None),
            // The connection breaks: whoever reads sees that the export is not whole.
            Err(error) => Err(std::io::Error::other(error.to_string())),
        }
    });
    Ok(([(header::CONTENT_TYPE, JSON_LINES)], Body::from_stream(pieces)).into_response())
}

/// Hashes the whole log again. Says at which entry it does not fit, if somebody changed it.
#[utoipa::path(get, path = "/audit/chain", tag = "audit", responses((status = 200, body = AuditChain)))]
pub(crate) async fn chain(State(state): State<HttpState>, Caller(caller): Caller) -> Result<Json<AuditChain>, Refusal> {
    let chain = state.app.audit_chain(caller.operator()?).await?;
    Ok(Json(AuditChain { entries: chain.entries, last_hash: chain.last_hash, broken_at: chain.broken_at }))
}
