//! Holds of restores: wire types <-> use cases.

use crate::app::{AppError, Need};
use crate::http::HttpState;
use crate::http::browse::snapshot_id;
use crate::http::extract::{Caller, JsonBody};
use crate::http::problem::Refusal;
use api::states::{BeginRestore, RestoreHold};
use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use repo_format::id::RestoreId;

fn restore_id(text: &str) -> Result<RestoreId, AppError> {
    text.parse().map_err(|_| AppError::NotFound { what: "restore" })
}

/// Keeps everything in a snapshot while it is read, whatever is deleted meanwhile.
#[utoipa::path(post, path = "/vaults/{vault}/restores", tag = "restore", request_body = BeginRestore,
    params(("vault" = String, Path, description = "Vault id")), responses((status = 201, body = RestoreHold)))]
pub(crate) async fn begin(
    State(state): State<HttpState>,
    Caller(caller): Caller,
    Path(vault): Path<String>,
    JsonBody(body): JsonBody<BeginRestore>,
) -> Result<(StatusCode, Json<RestoreHold>), Refusal> {
    let grant = state.app.on_vault(&caller, &vault, Need::Restore).await?;
    let id = state.app.begin_restore(grant, snapshot_id(&body.snapshot)?).await?;
    Ok((StatusCode::CREATED, Json(RestoreHold { id: id.to_string() })))
}

/// Says that a restore goes on; without a sign of life it ends after a day.
#[utoipa::path(put, path = "/vaults/{vault}/restores/{restore}", tag = "restore",
    params(("vault" = String, Path, description = "Vault id"), ("restore" = String, Path, description = "Restore id")),
    responses((status = 204, description = "Noted")))]
pub(crate) async fn touch(
    State(state): State<HttpState>,
    Caller(caller): Caller,
    Path((vault, restore)): Path<(String, String)>,
) -> Result<StatusCode, Refusal> {
    let grant = state.app.on_vault(&caller, &vault, Need::Restore).await?;
    state.app.touch_restore(grant, restore_id(&restore)?).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Ends a restore; what only it kept may be collected.
#[utoipa::path(delete, path = "/vaults/{vault}/restores/{restore}", tag = "restore",
    params(("vault" = String, Path, description = "Vault id"), ("restore" = String, Path, description = "Restore id")),
    responses((status = 204, description = "Ended")))]
pub(crate) async fn end(
    State(state): State<HttpState>,
    Caller(caller): Caller,
    Path((vault, restore)): Path<(String, String)>,
) -> Result<StatusCode, Refusal> {
    let grant = state.app.on_vault(&caller, &vault, Need::Restore).await?;
    state.app.end_restore(grant, restore_id(&restore)?).await?;
    Ok(StatusCode::NO_CONTENT)
}
