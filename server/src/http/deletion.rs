//! Deleting vaults and users: wire types <-> use cases.

use crate::app::AppError;
use crate::app::deletion::DeletedVault;
use crate::http::HttpState;
use crate::http::extract::Caller;
use crate::http::problem::Refusal;
use api::deletion;
use axum::Json;
use axum::extract::{Path, Query, State};
use control::UserName;
use serde::Deserialize;

/// `?confirm=NAME`.
#[derive(Deserialize)]
pub(crate) struct Confirm {
    #[serde(default)]
    confirm: String,
}

fn deleted(DeletedVault { name, tokens, receipt }: DeletedVault) -> deletion::DeletedVault {
    deletion::DeletedVault {
        vault: receipt.vault.to_string(),
        name,
        decided_ns: receipt.decided_ns,
        finished_ns: receipt.finished_ns,
        packs: receipt.packs,
        pack_bytes: receipt.pack_bytes,
        tokens,
        keyring_generation: receipt.keyring_generation,
    }
}

/// Deletes a vault for good: key, rows, packs, tokens. Answers when nothing is left, and goes on when nobody waits.
#[utoipa::path(delete, path = "/vaults/{vault}", tag = "accounts",
    params(("vault" = String, Path, description = "Vault id"),
        ("confirm" = String, Query, description = "The vault's full name, CUSTOMER/USER/VAULT")),
    responses((status = 200, body = deletion::DeletedVault)))]
pub(crate) async fn delete_vault(
    State(state): State<HttpState>,
    Caller(caller): Caller,
    Path(vault): Path<String>,
    Query(Confirm { confirm }): Query<Confirm>,
) -> Result<Json<deletion::DeletedVault>, Refusal> {
    let operator = state.app.fresh_operator(&caller)?;
    let vault = vault.parse().map_err(|_| AppError::NotFound { what: "vault" })?;
    Ok(Json(deleted(state.app.delete_vault(operator, vault, &confirm).await?)))
}

/// Deletes a user with all vaults.
#[utoipa::path(delete, path = "/users/{user}/{name}", tag = "accounts",
    params(("user" = String, Path, description = "Customer"), ("name" = String, Path, description = "User"),
        ("confirm" = String, Query, description = "The user's full name, CUSTOMER/USER")),
    responses((status = 200, body = deletion::DeletedUser)))]
pub(crate) async fn delete_user(
    State(state): State<HttpState>,
    Caller(caller): Caller,
    Path((customer, user)): Path<(String, String)>,
    Query(Confirm { confirm }): Query<Confirm>,
) -> Result<Json<deletion::DeletedUser>, Refusal> {
    let operator = state.app.fresh_operator(&caller)?;
    let user = UserName::new(&customer, &user).map_err(AppError::from)?;
    let vaults = state.app.delete_user(operator, &user, &confirm).await?;
    Ok(Json(deletion::DeletedUser { user: user.to_string(), vaults: vaults.into_iter().map(deleted).collect() }))
}
