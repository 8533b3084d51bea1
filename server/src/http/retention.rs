//! Retention policies, plans and runs: wire types <-> use cases.

use crate::app::Need;
use crate::app::retention::{DatedPlan, PlanScope, Planned, VaultRetention};
use crate::clock::utc;
use crate::http::HttpState;
use crate::http::extract::{Caller, JsonBody};
use crate::http::problem::Refusal;
use api::retention::{
    Action, PlanItem, PlanRequest, Retention, RetentionPlan, RetentionPolicy, RetentionRun, Series, SetRetention,
    StoredPolicy,
};
use axum::Json;
use axum::extract::{Path, State};
use control::SeriesName;
use store::retention as rules;

pub(crate) fn policy(policy: RetentionPolicy) -> control::RetentionPolicy {
    let RetentionPolicy {
        keep_last,
        keep_hourly,
        keep_daily,
        keep_weekly,
        keep_monthly,
        keep_yearly,
        keep_within_seconds,
        keep_tags,
        time_zone,
    } = policy;
    control::RetentionPolicy {
        keep_last,
        keep_hourly,
        keep_daily,
        keep_weekly,
        keep_monthly,
        keep_yearly,
        keep_within_seconds,
        keep_tags,
        time_zone,
    }
}

fn stored_policy(stored: control::StoredPolicy) -> StoredPolicy {
    let control::StoredPolicy { series, policy, changed_ns } = stored;
    StoredPolicy {
        series: series.map(|SeriesName { computer, series }| Series { computer, series }),
        policy: RetentionPolicy {
            keep_last: policy.keep_last,
            keep_hourly: policy.keep_hourly,
            keep_daily: policy.keep_daily,
            keep_weekly: policy.keep_weekly,
            keep_monthly: policy.keep_monthly,
            keep_yearly: policy.keep_yearly,
            keep_within_seconds: policy.keep_within_seconds,
            keep_tags: policy.keep_tags,
            time_zone: policy.time_zone,
        },
        changed_ns,
    }
}

fn retention(found: VaultRetention) -> Retention {
    let VaultRetention { policies, undelete_days } = found;
    Retention { policies: policies.into_iter().map(stored_policy).collect(), undelete_days }
}

fn plan_item(planned: Planned) -> PlanItem {
    let Planned { item, logical_bytes } = planned;
    let (action, reasons) = match item.action {
        rules::Action::Keep(reasons) => (Action::Keep, reasons.iter().map(ToString::to_string).collect()),
        rules::Action::Held { until_ns } => (Action::Held, vec![format!("held until {}", utc(until_ns))]),
        rules::Action::Expire => (Action::Expire, Vec::new()),
    };
    PlanItem {
        snapshot: item.snapshot.to_string(),
        computer: item.series.computer,
        series: item.series.name,
        committed_ns: item.committed_ns,
        logical_bytes,
        action,
        reasons,
    }
}

fn plan(plan: DatedPlan) -> RetentionPlan {
    RetentionPlan { now_ns: plan.now_ns, items: plan.items.into_iter().map(plan_item).collect() }
}

/// What a vault keeps.
#[utoipa::path(get, path = "/vaults/{vault}/retention", tag = "retention",
    params(("vault" = String, Path, description = "Vault id")), responses((status = 200, body = Retention)))]
pub(crate) async fn show(
    State(state): State<HttpState>,
    Caller(caller): Caller,
    Path(vault): Path<String>,
) -> Result<Json<Retention>, Refusal> {
    Ok(Json(retention(state.app.retention(state.app.on_vault(&caller, &vault, Need::Look).await?).await?)))
}

/// Sets or removes the policy of a series, or of every series without one of its own.
#[utoipa::path(put, path = "/vaults/{vault}/retention", tag = "retention", request_body = SetRetention,
    params(("vault" = String, Path, description = "Vault id")), responses((status = 200, body = Retention)))]
pub(crate) async fn set(
    State(state): State<HttpState>,
    Caller(caller): Caller,
    Path(vault): Path<String>,
    JsonBody(body): JsonBody<SetRetention>,
) -> Result<Json<Retention>, Refusal> {
    // What expires is gone at once, so setting a policy takes the same right as purging.
    let grant = state.app.on_vault(&caller, &vault, Need::Purge).await?;
    let series = body.series.map(|Series { computer, series }| SeriesName { computer, series });
    Ok(Json(retention(state.app.set_retention(grant, series, body.policy.map(policy), caller.who()).await?)))
}

/// What retention would do now, by the stored policies or by one to try. Changes nothing.
#[utoipa::path(post, path = "/vaults/{vault}/retention/plan", tag = "retention", request_body = PlanRequest,
    params(("vault" = String, Path, description = "Vault id")), responses((status = 200, body = RetentionPlan)))]
pub(crate) async fn make_plan(
    State(state): State<HttpState>,
    Caller(caller): Caller,
    Path(vault): Path<String>,
    JsonBody(body): JsonBody<PlanRequest>,
) -> Result<Json<RetentionPlan>, Refusal> {
    let grant = state.app.on_vault(&caller, &vault, Need::Look).await?;
    let PlanRequest { policy: tried, computer, series, tag } = body;
    let scope = PlanScope { policy: tried.map(policy), computer, series, tag };
    Ok(Json(plan(state.app.plan_retention(grant, scope).await?)))
}

/// Carries the stored policies out now; what expires is gone for good. The server does the same every hour.
#[utoipa::path(post, path = "/vaults/{vault}/retention/run", tag = "retention",
    params(("vault" = String, Path, description = "Vault id")), responses((status = 200, body = RetentionRun)))]
pub(crate) async fn run(
    State(state): State<HttpState>,
    Caller(caller): Caller,
    Path(vault): Path<String>,
) -> Result<Json<RetentionRun>, Refusal> {
    let grant = state.app.on_vault(&caller, &vault, Need::Purge).await?;
    let (done, expired) = state.app.run_retention(grant).await?;
    Ok(Json(RetentionRun { plan: plan(done), expired }))
}
