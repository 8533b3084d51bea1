//! Damage, verification and audits: wire types <-> use cases.

use crate::app::Need;
use crate::http::HttpState;
use crate::http::browse::NAME;
use crate::http::extract::{Caller, JsonBody};
use crate::http::problem::Refusal;
use api::care::{AuditRequest, Audited, Damage, DamagedPath, DamagedSnapshot, ScrubRequest, Scrubbed};
use axum::Json;
use axum::extract::{Path, State};
use percent_encoding::{AsciiSet, percent_encode};
use store::PathDamage;

/// What stays as it is in a percent-encoded path: what stays in a name, and slashes.
const PATH: &AsciiSet = &NAME.remove(b'/');

fn words(what: &PathDamage) -> String {
    match what {
        PathDamage::Content => "content".into(),
        PathDamage::Attribute => "an extended attribute".into(),
        PathDamage::Entries { until: Some(until) } => {
            format!("the list of entries from here up to {}", percent_encode(until, PATH))
        }
        PathDamage::Entries { until: None } => "the list of entries from here to the end".into(),
    }
}

/// What is damaged, by snapshot and path. The next backup that has the bytes heals it.
#[utoipa::path(get, path = "/vaults/{vault}/damage", tag = "vault",
    params(("vault" = String, Path, description = "Vault id")), responses((status = 200, body = Damage)))]
pub(crate) async fn damage(
    State(state): State<HttpState>,
    Caller(caller): Caller,
    Path(vault): Path<String>,
) -> Result<Json<Damage>, Refusal> {
    let found = state.app.damage(state.app.on_vault(&caller, &vault, Need::Look).await?).await?;
    let snapshots = found.snapshots.into_iter().map(|damaged| DamagedSnapshot {
        snapshot: damaged.snapshot.to_string(),
        paths: damaged
            .paths
            .iter()
            .map(|at| DamagedPath { path: percent_encode(&at.path, PATH).to_string(), what: words(&at.what) })
            .collect(),
        truncated: damaged.truncated,
    });
    Ok(Json(Damage { objects: found.objects_total, snapshots: snapshots.collect(), truncated: found.truncated }))
}

/// Verifies a part of what is stored; repeated until `done`, all of it.
#[utoipa::path(post, path = "/vaults/{vault}/scrub", tag = "vault", request_body = ScrubRequest,
    params(("vault" = String, Path, description = "Vault id")), responses((status = 200, body = Scrubbed)))]
pub(crate) async fn scrub(
    State(state): State<HttpState>,
    Caller(caller): Caller,
    Path(vault): Path<String>,
    JsonBody(body): JsonBody<ScrubRequest>,
) -> Result<Json<Scrubbed>, Refusal> {
    let step = state.app.scrub_now(caller.operator()?, &vault, body.before_ns).await?;
    state.metrics.scrubbed(&step);
    Ok(Json(Scrubbed {
        bytes: step.bytes,
        packs: step.packs,
        objects_damaged: step.objects_damaged,
        packs_damaged: step.packs_damaged,
        packs_missing: step.packs_missing,
        done: step.done,
    }))
}

/// Counts all references again and compares. Answers when it is finished, for a large vault after minutes.
#[utoipa::path(post, path = "/vaults/{vault}/audit", tag = "vault", request_body = AuditRequest,
    params(("vault" = String, Path, description = "Vault id")), responses((status = 200, body = Audited)))]
pub(crate) async fn audit(
    State(state): State<HttpState>,
    Caller(caller): Caller,
    Path(vault): Path<String>,
    JsonBody(body): JsonBody<AuditRequest>,
) -> Result<Json<Audited>, Refusal> {
    let report = state.app.audit_now(caller.operator()?, &vault, body.repair).await?;
    state.metrics.audited(&report);
    Ok(Json(Audited {
        objects: report.objects,
        nodes: report.nodes,
        references: report.references,
        too_low: report.too_low,
        too_high: report.too_high,
        missing: report.missing,
        unreadable_nodes: report.unreadable_nodes,
        miscounted: report.miscounted,
        lines: report.lines,
    }))
}
