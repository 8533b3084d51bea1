//! How users and tenants go, and whether accounts and store agree: wire types <-> use cases.

use crate::app::accounts_check::Difference;
use crate::http::HttpState;
use crate::http::extract::Caller;
use crate::http::page::id;
use crate::http::problem::Refusal;
use crate::http::tenants::tenant;
use api::removal::{AccountsCheck, AccountsDifference, RemovalReceipt, RemovalReceipts, UserState};
use api::tenants::Tenant;
use axum::Json;
use axum::extract::{Path, State};
use control::{TenantStep, UserStep};

type Answer<T> = Result<Json<T>, Refusal>;

fn checked(differences: Vec<Difference>) -> AccountsCheck {
    let difference = |of: Difference| AccountsDifference {
        kind: of.kind.to_owned(),
        object: of.object,
        detail: of.detail,
        repaired: of.repaired,
    };
    AccountsCheck { items: differences.into_iter().map(difference).collect() }
}

fn receipt(of: control::RemovalReceipt) -> RemovalReceipt {
    RemovalReceipt {
        vault: of.vault.to_string(),
        user: of.user.to_string(),
        tenant: of.tenant.to_string(),
        cause: of.cause,
        decided_ns: of.decided_ns,
        finished_ns: of.finished_ns,
        packs: of.packs,
        pack_bytes: of.pack_bytes,
        keyring_generation: of.keyring_generation,
    }
}

/// Whether accounts and store agree.
#[utoipa::path(get, path = "/accounts/check", tag = "removal", responses((status = 200, body = AccountsCheck)))]
pub(crate) async fn check(State(state): State<HttpState>, Caller(caller): Caller) -> Answer<AccountsCheck> {
    Ok(Json(checked(state.app.check_accounts(caller.operator()?, false).await?)))
}

/// Puts right what a crash left half done. What holds data stays.
#[utoipa::path(post, path = "/accounts/repair", tag = "removal", responses((status = 200, body = AccountsCheck)))]
pub(crate) async fn repair(State(state): State<HttpState>, Caller(caller): Caller) -> Answer<AccountsCheck> {
    Ok(Json(checked(state.app.check_accounts(caller.operator()?, true).await?)))
}

/// Proofs of what was destroyed, as far as the caller sees the audit log.
#[utoipa::path(get, path = "/removal-receipts", tag = "removal", responses((status = 200, body = RemovalReceipts)))]
pub(crate) async fn receipts(State(state): State<HttpState>, Caller(caller): Caller) -> Answer<RemovalReceipts> {
    let receipts = state.app.removal_receipts(&caller).await?;
    Ok(Json(RemovalReceipts { items: receipts.into_iter().map(receipt).collect() }))
}

/// Disables a user: no log-in, no backups, no restores.
#[utoipa::path(post, path = "/users/{user}/disable", tag = "removal",
    params(("user" = String, Path, description = "User id")), responses((status = 200, body = UserState)))]
pub(crate) async fn disable_user(
    State(state): State<HttpState>,
    Caller(caller): Caller,
    Path(user): Path<String>,
) -> Answer<UserState> {
    Ok(Json(UserState { state: state.app.step_user(&caller, id(&user, "user")?, UserStep::Disable).await? }))
}

/// Enables a disabled user again.
#[utoipa::path(post, path = "/users/{user}/enable", tag = "removal",
    params(("user" = String, Path, description = "User id")), responses((status = 200, body = UserState)))]
pub(crate) async fn enable_user(
    State(state): State<HttpState>,
    Caller(caller): Caller,
    Path(user): Path<String>,
) -> Answer<UserState> {
    Ok(Json(UserState { state: state.app.step_user(&caller, id(&user, "user")?, UserStep::Enable).await? }))
}

/// Deletes a disabled user: until 30 days later it can be brought back, then its vaults are destroyed.
#[utoipa::path(delete, path = "/users/{user}", tag = "removal",
    params(("user" = String, Path, description = "User id")), responses((status = 200, body = UserState)))]
pub(crate) async fn delete_user(
    State(state): State<HttpState>,
    Caller(caller): Caller,
    Path(user): Path<String>,
) -> Answer<UserState> {
    Ok(Json(UserState { state: state.app.step_user(&caller, id(&user, "user")?, UserStep::Delete).await? }))
}

/// Brings a deleted user back, disabled.
#[utoipa::path(post, path = "/users/{user}/undelete", tag = "removal",
    params(("user" = String, Path, description = "User id")), responses((status = 200, body = UserState)))]
pub(crate) async fn undelete_user(
    State(state): State<HttpState>,
    Caller(caller): Caller,
    Path(user): Path<String>,
) -> Answer<UserState> {
    Ok(Json(UserState { state: state.app.step_user(&caller, id(&user, "user")?, UserStep::Undelete).await? }))
}

/// Disconnects a tenant: no backups, no restores. Its data stays.
#[utoipa::path(post, path = "/tenants/{tenant}/disconnect", tag = "removal",
    params(("tenant" = String, Path, description = "Tenant id")), responses((status = 200, body = Tenant)))]
pub(crate) async fn disconnect(
    State(state): State<HttpState>,
    Caller(caller): Caller,
    Path(which): Path<String>,
) -> Answer<Tenant> {
    Ok(Json(tenant(state.app.step_tenant(&caller, id(&which, "tenant")?, TenantStep::Disconnect).await?)))
}

/// Connects a tenant again; a deletion that was asked for is taken back.
#[utoipa::path(post, path = "/tenants/{tenant}/connect", tag = "removal",
    params(("tenant" = String, Path, description = "Tenant id")), responses((status = 200, body = Tenant)))]
pub(crate) async fn connect(
    State(state): State<HttpState>,
    Caller(caller): Caller,
    Path(which): Path<String>,
) -> Answer<Tenant> {
    Ok(Json(tenant(state.app.step_tenant(&caller, id(&which, "tenant")?, TenantStep::Connect).await?)))
}

/// Deletes a disconnected tenant: until 30 days later it can be connected again, then everything of it is destroyed.
#[utoipa::path(delete, path = "/tenants/{tenant}", tag = "removal",
    params(("tenant" = String, Path, description = "Tenant id")), responses((status = 200, body = Tenant)))]
pub(crate) async fn delete_tenant(
    State(state): State<HttpState>,
    Caller(caller): Caller,
    Path(which): Path<String>,
) -> Answer<Tenant> {
    Ok(Json(tenant(state.app.step_tenant(&caller, id(&which, "tenant")?, TenantStep::Delete).await?)))
}
