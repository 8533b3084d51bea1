//! Quotas: wire types <-> use cases.

use crate::app::AppError;
use crate::app::Need;
use crate::app::quota::{QuotaRefusal, QuotaState};
use crate::http::HttpState;
use crate::http::extract::{Caller, JsonBody};
use crate::http::problem::Refusal;
use api::quota::{Quota, QuotaFigures, QuotaKind, QuotaLimits, QuotaNotice, Quotas, SetPartner};
use axum::Json;
use axum::extract::{Path, State};
use control::QuotaScope;

type Answer<T> = Result<Json<T>, Refusal>;

const fn kind(kind: store::QuotaKind) -> QuotaKind {
    match kind {
        store::QuotaKind::Physical => QuotaKind::Physical,
        store::QuotaKind::Logical => QuotaKind::Logical,
    }
}

fn quota((limit, reading): QuotaState) -> Quota {
    Quota {
        limit: limit.to_string(),
        limits: QuotaLimits {
            physical_soft_bytes: reading.limits.physical_soft,
            physical_hard_bytes: reading.limits.physical_hard,
            logical_soft_bytes: reading.limits.logical_soft,
            logical_hard_bytes: reading.limits.logical_hard,
        },
        used_physical_bytes: reading.used_physical,
        reserved_physical_bytes: reading.reserved_physical,
        used_logical_bytes: reading.used_logical,
        reserved_logical_bytes: reading.reserved_logical,
        soft_exceeded: reading.soft_exceeded,
    }
}

/// A refusal's figures.
pub(crate) fn figures(refusal: &QuotaRefusal) -> QuotaFigures {
    QuotaFigures {
        limit: refusal.limit.to_string(),
        kind: kind(refusal.kind),
        limit_bytes: refusal.limit_bytes,
        used_bytes: refusal.used,
        reserved_bytes: refusal.reserved,
        requested_bytes: refusal.requested,
        help: refusal.help().to_owned(),
    }
}

/// Soft limits that are passed.
pub(crate) fn notices(quotas: &[QuotaState]) -> Vec<QuotaNotice> {
    let mut notices = Vec::new();
    for (limit, reading) in quotas {
        for of in [store::QuotaKind::Physical, store::QuotaKind::Logical] {
            let Some(soft_bytes) = reading.limits.soft(of).filter(|_| reading.is_soft_exceeded(of)) else { continue };
            notices.push(QuotaNotice {
                limit: limit.to_string(),
                kind: kind(of),
                used_bytes: reading.used(of),
                soft_bytes,
                hard_bytes: reading.limits.hard(of),
            });
        }
    }
    notices
}

fn scope(text: &str) -> Result<QuotaScope, AppError> {
    Ok(text.parse()?)
}

/// Every limit that is set.
#[utoipa::path(get, path = "/quotas", tag = "quotas", responses((status = 200, body = Quotas)))]
pub(crate) async fn all(State(state): State<HttpState>, Caller(caller): Caller) -> Answer<Quotas> {
    let quotas = state.app.quotas(caller.operator()?).into_iter().map(quota).collect();
    Ok(Json(Quotas { quotas }))
}

/// One limit and where it stands, set or not.
#[utoipa::path(get, path = "/quotas/{limit}", tag = "quotas",
    params(("limit" = String, Path, description = "vault:ID, user:CUSTOMER/USER, customer:NAME or partner:NAME")),
    responses((status = 200, body = Quota)))]
pub(crate) async fn one(
    State(state): State<HttpState>,
    Caller(caller): Caller,
    Path(limit): Path<String>,
) -> Answer<Quota> {
    Ok(Json(quota(state.app.quota(caller.operator()?, &scope(&limit)?).await?)))
}

/// Sets a limit as a whole; without any bound it is lifted. In force when this answers; what is stored already stays.
#[utoipa::path(put, path = "/quotas/{limit}", tag = "quotas", request_body = QuotaLimits,
    params(("limit" = String, Path, description = "vault:ID, user:CUSTOMER/USER, customer:NAME or partner:NAME")),
    responses((status = 200, body = Quota)))]
pub(crate) async fn set(
    State(state): State<HttpState>,
    Caller(caller): Caller,
    Path(limit): Path<String>,
    JsonBody(body): JsonBody<QuotaLimits>,
) -> Answer<Quota> {
    let operator = caller.operator()?;
    let limits = control::QuotaLimits {
        physical_soft: body.physical_soft_bytes,
        physical_hard: body.physical_hard_bytes,
        logical_soft: body.logical_soft_bytes,
        logical_hard: body.logical_hard_bytes,
    };
    Ok(Json(quota(state.app.set_quota(operator, &scope(&limit)?, limits).await?)))
}

/// The limits under which a vault counts, from the vault itself outwards.
#[utoipa::path(get, path = "/vaults/{vault}/quotas", tag = "quotas",
    params(("vault" = String, Path, description = "Vault id")), responses((status = 200, body = Quotas)))]
pub(crate) async fn of_vault(
    State(state): State<HttpState>,
    Caller(caller): Caller,
    Path(vault): Path<String>,
) -> Answer<Quotas> {
    let grant = state.app.on_vault(&caller, &vault, Need::BackupOrRestore).await?;
    Ok(Json(Quotas { quotas: state.app.vault_quotas(grant).into_iter().map(quota).collect() }))
}

/// Says which partner brought a customer.
#[utoipa::path(put, path = "/customers/{customer}/partner", tag = "quotas", request_body = SetPartner,
    params(("customer" = String, Path, description = "Name of the customer")),
    responses((status = 200, body = SetPartner)))]
pub(crate) async fn set_partner(
    State(state): State<HttpState>,
    Caller(caller): Caller,
    Path(customer): Path<String>,
    JsonBody(body): JsonBody<SetPartner>,
) -> Answer<SetPartner> {
    state.app.set_partner(caller.operator()?, &customer, body.partner.as_deref()).await?;
    Ok(Json(body))
}
