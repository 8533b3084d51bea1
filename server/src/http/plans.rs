//! Plans: wire types <-> use cases.

use crate::app::AppError;
use crate::http::HttpState;
use crate::http::extract::{Caller, JsonBody};
use crate::http::jobs::wire_job;
use crate::http::page::{self, next};
use crate::http::problem::Refusal;
use crate::http::retention::policy;
use api::jobs::Job;
use api::page::Page;
use api::plans::{NewPlan, Plan, PlanBody, PlanRevision, PlanRevisions, PlanState};
use axum::Json;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use serde::Deserialize;
use utoipa::IntoParams;

type Answer<T> = Result<Json<T>, Refusal>;

/// What a stored plan says; only what this build writes is stored.
pub(crate) fn wire_body(body: &str) -> Result<PlanBody, AppError> {
    serde_json::from_str(body).map_err(|error| AppError::Internal(format!("a stored plan is not understood: {error}")))
}

fn wire_plan(plan: control::Plan) -> Result<Plan, AppError> {
    Ok(Plan {
        id: plan.id.to_string(),
        computer: plan.computer.to_string(),
        user: plan.user.to_string(),
        name: plan.name,
        state: match plan.state {
            control::PlanState::Enabled => PlanState::Enabled,
            control::PlanState::Paused => PlanState::Paused,
            control::PlanState::Deleted => PlanState::Deleted,
        },
        revision: plan.revision,
        revised_ns: plan.revised_ns,
        body: wire_body(&plan.body)?,
        next_ns: plan.due.map(|due| due.slot_ns),
        created_ns: plan.created_ns,
    })
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct PlansQuery {
    /// Only those of this computer.
    computer: Option<String>,
}

/// Plans, by name.
#[utoipa::path(get, path = "/plans", tag = "plans", params(PlansQuery, ("limit" = Option<u32>, Query, description = "Most entries, 1 to 200; 50 when absent"),
        ("after" = Option<String>, Query, description = "The `next` of the page before")),
    responses((status = 200, body = Page<Plan>)))]
pub(crate) async fn list(
    State(state): State<HttpState>,
    Caller(caller): Caller,
    Query(filter): Query<PlansQuery>,
    Query(page): Query<page::Page>,
) -> Answer<Page<Plan>> {
    let after: Option<(String, String)> = page.after()?;
    let after = match &after {
        None => None,
        Some((name, id)) => {
            let id = id.parse().map_err(|_| Refusal::BadRequest("after: is no `next` of this list".into()))?;
            Some((name.as_str(), id))
        }
    };
    let limit = page.limit()?;
    let found = state.app.plans(&caller, filter.computer.as_deref(), after, limit).await?;
    let next = next(&found, limit, |plan| (plan.name.clone(), plan.id.to_string()));
    Ok(Json(Page { items: found.into_iter().map(wire_plan).collect::<Result<_, _>>()?, next }))
}

/// Makes a plan of a computer.
#[utoipa::path(post, path = "/computers/{computer}/plans", tag = "plans", request_body = NewPlan,
    params(("computer" = String, Path, description = "Computer id")), responses((status = 201, body = Plan)))]
pub(crate) async fn create(
    State(state): State<HttpState>,
    Caller(caller): Caller,
    Path(computer): Path<String>,
    JsonBody(NewPlan { name, body }): JsonBody<NewPlan>,
) -> Result<(StatusCode, Json<Plan>), Refusal> {
    let made = state.app.create_plan(&caller, &computer, &name, &body, body.retention.clone().map(policy)).await?;
    Ok((StatusCode::CREATED, Json(wire_plan(made)?)))
}

/// One plan.
#[utoipa::path(get, path = "/plans/{plan}", tag = "plans", params(("plan" = String, Path, description = "Plan id")),
    responses((status = 200, body = Plan)))]
pub(crate) async fn show(
    State(state): State<HttpState>,
    Caller(caller): Caller,
    Path(plan): Path<String>,
) -> Answer<Plan> {
    Ok(Json(wire_plan(state.app.plan(&caller, &plan).await?)?))
}

/// Gives a plan a new revision.
#[utoipa::path(put, path = "/plans/{plan}", tag = "plans", request_body = PlanBody,
    params(("plan" = String, Path, description = "Plan id")), responses((status = 200, body = Plan)))]
pub(crate) async fn revise(
    State(state): State<HttpState>,
    Caller(caller): Caller,
    Path(plan): Path<String>,
    JsonBody(body): JsonBody<PlanBody>,
) -> Answer<Plan> {
    let made = state.app.revise_plan(&caller, &plan, &body, body.retention.clone().map(policy)).await?;
    Ok(Json(wire_plan(made)?))
}

/// Ends a plan; its jobs and snapshots stay.
#[utoipa::path(delete, path = "/plans/{plan}", tag = "plans", params(("plan" = String, Path, description = "Plan id")),
    responses((status = 200, body = Plan)))]
pub(crate) async fn delete(
    State(state): State<HttpState>,
    Caller(caller): Caller,
    Path(plan): Path<String>,
) -> Answer<Plan> {
    Ok(Json(wire_plan(state.app.delete_plan(&caller, &plan).await?)?))
}

/// Pauses a plan.
#[utoipa::path(post, path = "/plans/{plan}/pause", tag = "plans",
    params(("plan" = String, Path, description = "Plan id")), responses((status = 200, body = Plan)))]
pub(crate) async fn pause(
    State(state): State<HttpState>,
    Caller(caller): Caller,
    Path(plan): Path<String>,
) -> Answer<Plan> {
    Ok(Json(wire_plan(state.app.pause_plan(&caller, &plan).await?)?))
}

/// Lets a paused plan run again.
#[utoipa::path(post, path = "/plans/{plan}/resume", tag = "plans",
    params(("plan" = String, Path, description = "Plan id")), responses((status = 200, body = Plan)))]
pub(crate) async fn resume(
    State(state): State<HttpState>,
    Caller(caller): Caller,
    Path(plan): Path<String>,
) -> Answer<Plan> {
    Ok(Json(wire_plan(state.app.resume_plan(&caller, &plan).await?)?))
}

/// What a plan said before, the newest first.
#[utoipa::path(get, path = "/plans/{plan}/revisions", tag = "plans",
    params(("plan" = String, Path, description = "Plan id")), responses((status = 200, body = PlanRevisions)))]
pub(crate) async fn revisions(
    State(state): State<HttpState>,
    Caller(caller): Caller,
    Path(plan): Path<String>,
) -> Answer<PlanRevisions> {
    let mut revisions = Vec::new();
    for found in state.app.plan_revisions(&caller, &plan).await? {
        revisions.push(PlanRevision {
            revision: found.revision,
            body: wire_body(&found.body)?,
            created_by: found.created_by,
            created_ns: found.created_ns,
        });
    }
    Ok(Json(PlanRevisions { revisions }))
}

/// Starts a backup by a plan now.
#[utoipa::path(post, path = "/plans/{plan}/start", tag = "plans",
    params(("plan" = String, Path, description = "Plan id")), responses((status = 201, body = Job)))]
pub(crate) async fn start(
    State(state): State<HttpState>,
    Caller(caller): Caller,
    Path(plan): Path<String>,
) -> Result<(StatusCode, Json<Job>), Refusal> {
    Ok((StatusCode::CREATED, Json(wire_job(state.app.start_plan(&caller, &plan).await?))))
}
