//! Whether the process lives, and whether it should get traffic.

use crate::http::HttpState;
use crate::http::envelope::OwnBody;
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

/// Readiness, with what an operator should look at.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Readiness {
    /// `ready` or `draining`.
    status: &'static str,
    /// What keeps working but needs someone; empty when all is well.
    warnings: Vec<&'static str>,
}

const UNCONFIRMED: &str =
    "master key not confirmed: write the recovery sheet down, then run `holdfastd master-key confirm`";
const DISK_FULL: &str = "the server's disk is at its reserve: uploads are refused until space is freed";

/// Alive: the process answers.
pub(crate) async fn healthz() -> &'static str {
    "ok\n"
}

/// Ready: 200, or 503 while the server goes down.
pub(crate) async fn readyz(State(state): State<HttpState>) -> Response {
    let mut warnings = Vec::new();
    warnings.extend((!state.app.is_master_key_confirmed()).then_some(UNCONFIRMED));
    warnings.extend(state.app.is_disk_full().then_some(DISK_FULL));
    if state.app.is_draining() {
        let body = Json(Readiness { status: "draining", warnings });
        let mut response = (StatusCode::SERVICE_UNAVAILABLE, body).into_response();
        response.extensions_mut().insert(OwnBody);
        return response;
    }
    Json(Readiness { status: "ready", warnings }).into_response()
}
