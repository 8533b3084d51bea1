//! How one vault does, and the clock: wire types <-> use cases.

use crate::app::Need;
use crate::app::vaults::{ClockStatus, VaultStatus};
use crate::http::HttpState;
use crate::http::extract::{Caller, JsonBody};
use crate::http::problem::Refusal;
use api::vault::{ClockStatus as ClockAnswer, ScrubStatus, SetUndeleteDays, VaultState, VaultStatus as StatusAnswer};
use axum::Json;
use axum::extract::{Path, State};

/// A vault's state on the wire.
pub(crate) fn state_words(state: &store::VaultState) -> (VaultState, Option<String>) {
    let word = match state {
        store::VaultState::Ready => VaultState::Ready,
        store::VaultState::ReadOnly { .. } => VaultState::ReadOnly,
        store::VaultState::Unavailable { .. } => VaultState::Unavailable,
        store::VaultState::Deleting => VaultState::Deleting,
    };
    (word, state.reason().map(str::to_owned))
}

fn status(found: VaultStatus) -> StatusAnswer {
    let VaultStatus { vault, undelete_days, state, stored } = found;
    let (state, reason) = state_words(&state);
    let scrub = stored.as_ref().ok().map(|stored| ScrubStatus {
        packs_verified: stored.scrub.packs_verified,
        packs: stored.scrub.packs,
        bytes_verified: stored.scrub.bytes_verified,
        bytes: stored.scrub.bytes,
        oldest_verified_ns: stored.scrub.oldest_verified_ns,
    });
    let (state, reason, stored) = match stored {
        Ok(stored) => (state, reason, stored),
        Err(refused) => (VaultState::Unavailable, reason.or(Some(refused)), Default::default()),
    };
    let ledger = stored.ledger;
    StatusAnswer {
        id: vault.id.to_string(),
        name: vault.name,
        user: vault.user.to_string(),
        state,
        reason,
        snapshots: ledger.snapshots,
        deleted_snapshots: stored.deleted_snapshots,
        held_snapshots: stored.held_snapshots,
        logical_bytes: ledger.logical_bytes,
        deleted_logical_bytes: ledger.deleted_logical_bytes,
        physical_bytes: ledger.physical_bytes,
        pending_bytes: ledger.pending_bytes,
        dead_bytes: stored.dead_bytes,
        undelete_days,
        damaged_objects: stored.damaged_objects,
        scrub,
    }
}

fn clock_answer(found: ClockStatus) -> ClockAnswer {
    ClockAnswer { now_ns: found.now_ns, jumped_from_ns: found.jumped_from_ns }
}

/// How a vault does: what it holds, what waits to be freed, what is wrong with it.
#[utoipa::path(get, path = "/vaults/{vault}", tag = "vault",
    params(("vault" = String, Path, description = "Vault id")), responses((status = 200, body = StatusAnswer)))]
pub(crate) async fn show(
    State(state): State<HttpState>,
    Caller(caller): Caller,
    Path(vault): Path<String>,
) -> Result<Json<StatusAnswer>, Refusal> {
    Ok(Json(status(state.app.vault_status(state.app.on_vault(&caller, &vault, Need::Look).await?).await?)))
}

/// Sets for how many days deleted snapshots can be brought back, 0 to 999.
#[utoipa::path(put, path = "/vaults/{vault}/undelete-days", tag = "vault", request_body = SetUndeleteDays,
    params(("vault" = String, Path, description = "Vault id")), responses((status = 200, body = StatusAnswer)))]
pub(crate) async fn undelete_days(
    State(state): State<HttpState>,
    Caller(caller): Caller,
    Path(vault): Path<String>,
    JsonBody(body): JsonBody<SetUndeleteDays>,
) -> Result<Json<StatusAnswer>, Refusal> {
    let grant = state.app.on_vault(&caller, &vault, Need::Purge).await?;
    state.app.set_undelete_days(grant, body.days, caller.who()).await?;
    Ok(Json(status(state.app.vault_status(grant).await?)))
}

/// The clock that retention, holds and deletions go by.
#[utoipa::path(get, path = "/clock", tag = "server", responses((status = 200, body = ClockAnswer)))]
pub(crate) async fn clock(
    State(state): State<HttpState>,
    Caller(caller): Caller,
) -> Result<Json<ClockAnswer>, Refusal> {
    Ok(Json(clock_answer(state.app.clock_status(caller.operator()?).await?)))
}

/// Says that the server's clock is right after a jump; retention goes on.
#[utoipa::path(post, path = "/clock/confirm", tag = "server", responses((status = 200, body = ClockAnswer)))]
pub(crate) async fn confirm_clock(
    State(state): State<HttpState>,
    Caller(caller): Caller,
) -> Result<Json<ClockAnswer>, Refusal> {
    Ok(Json(clock_answer(state.app.confirm_clock(caller.operator()?, caller.who()).await?)))
}
