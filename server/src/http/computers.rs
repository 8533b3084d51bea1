//! Computers: wire types <-> use cases.

use crate::http::HttpState;
use crate::http::extract::{Caller, JsonBody};
use crate::http::jobs::wire_job;
use crate::http::page::{self, next};
use crate::http::problem::Refusal;
use api::computers::{
    Computer, ComputerState, Enrol, Enrolled, Enrolment, NewEnrolment, NewRestore, Started, StartedPlan,
};
use api::jobs::Job;
use api::page::Page;
use axum::Json;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use control::SystemWords;
use serde::Deserialize;
use utoipa::IntoParams;

/// A computer and whether its agent waits for orders.
pub(crate) fn wire_computer(computer: control::Computer, online: bool) -> Computer {
    Computer {
        id: computer.id.to_string(),
        user: computer.user.to_string(),
        name: computer.name,
        state: match computer.state {
            control::ComputerState::Active => ComputerState::Active,
            control::ComputerState::Retired => ComputerState::Retired,
        },
        os: computer.os,
        agent_version: computer.agent_version,
        credential_ns: computer.credential_ns,
        seen_ns: computer.seen_ns,
        online,
        created_ns: computer.created_ns,
    }
}

/// Makes an enrolment for a further computer of a user, or for one that takes the place of another.
#[utoipa::path(post, path = "/users/{user}/enrolments", tag = "computers", request_body = NewEnrolment,
    params(("user" = String, Path, description = "User id")), responses((status = 201, body = Enrolment)))]
pub(crate) async fn create_enrolment(
    State(state): State<HttpState>,
    Caller(caller): Caller,
    Path(user): Path<String>,
    JsonBody(body): JsonBody<NewEnrolment>,
) -> Result<(StatusCode, Json<Enrolment>), Refusal> {
    let made = state.app.create_enrolment(&caller, &user, body.replaces.as_deref()).await?;
    let enrolment = Enrolment {
        id: made.id.to_string(),
        token: made.secret.expose().to_owned(),
        expires_ns: made.expires_ns,
        url: state.app.public_url().to_owned(),
    };
    Ok((StatusCode::CREATED, Json(enrolment)))
}

/// Makes a computer of whoever holds an enrolment. Answers once.
#[utoipa::path(post, path = "/enrol", tag = "computers", security(()), request_body = Enrol,
    responses((status = 201, body = Enrolled)))]
pub(crate) async fn enrol(
    State(state): State<HttpState>,
    JsonBody(body): JsonBody<Enrol>,
) -> Result<(StatusCode, Json<Enrolled>), Refusal> {
    let system = SystemWords { os: &body.os, agent_version: &body.agent_version };
    let made = state.app.enrol(&body.token, &body.name, body.replaces.as_deref(), system).await?;
    let enrolled = Enrolled {
        computer: wire_computer(made.computer, false),
        credential: made.secret.expose().to_owned(),
        user: made.user.to_string(),
        vault: made.vault.to_string(),
    };
    Ok((StatusCode::CREATED, Json(enrolled)))
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct ComputersQuery {
    /// Only those of this user.
    user: Option<String>,
}

/// Computers, by name.
#[utoipa::path(get, path = "/computers", tag = "computers", params(ComputersQuery, ("limit" = Option<u32>, Query, description = "Most entries, 1 to 200; 50 when absent"),
        ("after" = Option<String>, Query, description = "The `next` of the page before")),
    responses((status = 200, body = Page<Computer>)))]
pub(crate) async fn list(
    State(state): State<HttpState>,
    Caller(caller): Caller,
    Query(filter): Query<ComputersQuery>,
    Query(page): Query<page::Page>,
) -> Result<Json<Page<Computer>>, Refusal> {
    let after: Option<(String, String)> = page.after()?;
    let after = match &after {
        None => None,
        Some((name, id)) => {
            let id = id.parse().map_err(|_| Refusal::BadRequest("after: is no `next` of this list".into()))?;
            Some((name.as_str(), id))
        }
    };
    let limit = page.limit()?;
    let found = state.app.computers(&caller, filter.user.as_deref(), after, limit).await?;
    let next = next(&found, limit, |computer| (computer.name.clone(), computer.id.to_string()));
    let wire = |computer: control::Computer| {
        let online = state.app.is_online(computer.id);
        wire_computer(computer, online)
    };
    Ok(Json(Page { items: found.into_iter().map(wire).collect(), next }))
}

/// One computer.
#[utoipa::path(get, path = "/computers/{computer}", tag = "computers",
    params(("computer" = String, Path, description = "Computer id")), responses((status = 200, body = Computer)))]
pub(crate) async fn show(
    State(state): State<HttpState>,
    Caller(caller): Caller,
    Path(computer): Path<String>,
) -> Result<Json<Computer>, Refusal> {
    let (computer, online) = state.app.computer(&caller, &computer).await?;
    Ok(Json(wire_computer(computer, online)))
}

/// Takes a computer's credential away for good; what it has stored stays.
#[utoipa::path(delete, path = "/computers/{computer}", tag = "computers",
    params(("computer" = String, Path, description = "Computer id")), responses((status = 200, body = Computer)))]
pub(crate) async fn retire(
    State(state): State<HttpState>,
    Caller(caller): Caller,
    Path(computer): Path<String>,
) -> Result<Json<Computer>, Refusal> {
    Ok(Json(wire_computer(state.app.retire_computer(&caller, &computer).await?, false)))
}

/// Starts a backup by every enabled plan of a computer.
#[utoipa::path(post, path = "/computers/{computer}/start", tag = "computers",
    params(("computer" = String, Path, description = "Computer id")), responses((status = 200, body = Started)))]
pub(crate) async fn start(
    State(state): State<HttpState>,
    Caller(caller): Caller,
    Path(computer): Path<String>,
) -> Result<Json<Started>, Refusal> {
    let started = state.app.start_computer(&caller, &computer).await?;
    let plans = started.into_iter().map(|(plan, queued)| {
        let (job, skipped) = match queued {
            Ok(job) => (Some(wire_job(job)), None),
            Err(reason) => (None, Some(reason)),
        };
        StartedPlan { plan: plan.id.to_string(), name: plan.name, job, skipped }
    });
    Ok(Json(Started { plans: plans.collect() }))
}

/// Restores onto a computer, from its user's vault.
#[utoipa::path(post, path = "/computers/{computer}/restores", tag = "computers", request_body = NewRestore,
    params(("computer" = String, Path, description = "Computer id")), responses((status = 201, body = Job)))]
pub(crate) async fn restore(
    State(state): State<HttpState>,
    Caller(caller): Caller,
    Path(computer): Path<String>,
    JsonBody(body): JsonBody<NewRestore>,
) -> Result<(StatusCode, Json<Job>), Refusal> {
    let job = state.app.order_restore(&caller, &computer, &body).await?;
    Ok((StatusCode::CREATED, Json(wire_job(job))))
}
