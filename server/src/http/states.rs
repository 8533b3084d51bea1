//! Deleting, bringing back, purging, holding and tagging snapshots: wire types <-> use cases.

use crate::app::{AppError, Need};
use crate::http::HttpState;
use crate::http::browse::{snapshot, snapshot_id};
use crate::http::extract::{Caller, JsonBody};
use crate::http::problem::Refusal;
use api::browse::Snapshot;
use api::states::{SetHold, SetTags};
use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;

/// Deletes a snapshot; for the vault's undelete days it can be brought back, and its bytes count as stored.
#[utoipa::path(delete, path = "/vaults/{vault}/snapshots/{snapshot}", tag = "states",
    params(("vault" = String, Path, description = "Vault id"), ("snapshot" = String, Path, description = "Snapshot id")),
    responses((status = 200, body = Snapshot)))]
pub(crate) async fn delete(
    State(state): State<HttpState>,
    Caller(caller): Caller,
    Path((vault, id)): Path<(String, String)>,
) -> Result<Json<Snapshot>, Refusal> {
    let grant = state.app.on_vault(&caller, &vault, Need::Delete).await?;
    Ok(Json(snapshot(state.app.delete_snapshot(grant, snapshot_id(&id)?, caller.who()).await?)?))
}

/// Brings a deleted snapshot back.
#[utoipa::path(post, path = "/vaults/{vault}/snapshots/{snapshot}/undelete", tag = "states",
    params(("vault" = String, Path, description = "Vault id"), ("snapshot" = String, Path, description = "Snapshot id")),
    responses((status = 200, body = Snapshot)))]
pub(crate) async fn undelete(
    State(state): State<HttpState>,
    Caller(caller): Caller,
    Path((vault, id)): Path<(String, String)>,
) -> Result<Json<Snapshot>, Refusal> {
    let grant = state.app.on_vault(&caller, &vault, Need::Delete).await?;
    Ok(Json(snapshot(state.app.undelete_snapshot(grant, snapshot_id(&id)?, caller.who()).await?)?))
}

/// Removes a snapshot for good, deleted before or not. Refused while a hold keeps it.
#[utoipa::path(post, path = "/vaults/{vault}/snapshots/{snapshot}/purge", tag = "states",
    params(("vault" = String, Path, description = "Vault id"), ("snapshot" = String, Path, description = "Snapshot id")),
    responses((status = 204, description = "Gone; its space comes back soon")))]
pub(crate) async fn purge(
    State(state): State<HttpState>,
    Caller(caller): Caller,
    Path((vault, id)): Path<(String, String)>,
) -> Result<StatusCode, Refusal> {
    let grant = state.app.on_vault(&caller, &vault, Need::Purge).await?;
    state.app.purge_snapshot(grant, snapshot_id(&id)?, caller.who()).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Sets, moves or lifts a hold. Only the right `hold` shortens or lifts one.
#[utoipa::path(put, path = "/vaults/{vault}/snapshots/{snapshot}/hold", tag = "states", request_body = SetHold,
    params(("vault" = String, Path, description = "Vault id"), ("snapshot" = String, Path, description = "Snapshot id")),
    responses((status = 200, body = Snapshot)))]
pub(crate) async fn hold(
    State(state): State<HttpState>,
    Caller(caller): Caller,
    Path((vault, id)): Path<(String, String)>,
    JsonBody(body): JsonBody<SetHold>,
) -> Result<Json<Snapshot>, Refusal> {
    let id = snapshot_id(&id);
    // The right is looked at before the snapshot's name.
    state.app.on_vault(&caller, &vault, Need::Protect).await?;
    Ok(Json(snapshot(state.app.hold_snapshot(&caller, &vault, id?, body.until_ns).await?)?))
}

/// Replaces a snapshot's tags. Taking one away needs the right `delete`.
#[utoipa::path(put, path = "/vaults/{vault}/snapshots/{snapshot}/tags", tag = "states", request_body = SetTags,
    params(("vault" = String, Path, description = "Vault id"), ("snapshot" = String, Path, description = "Snapshot id")),
    responses((status = 200, body = Snapshot)))]
pub(crate) async fn tags(
    State(state): State<HttpState>,
    Caller(caller): Caller,
    Path((vault, id)): Path<(String, String)>,
    JsonBody(body): JsonBody<SetTags>,
) -> Result<Json<Snapshot>, Refusal> {
    let id: Result<_, AppError> = snapshot_id(&id);
    state.app.on_vault(&caller, &vault, Need::Protect).await?;
    Ok(Json(snapshot(state.app.tag_snapshot(&caller, &vault, id?, body.tags).await?)?))
}
