//! What agents of computers say: wire types <-> use cases.

use crate::app::agents::{Mail, PlanForAgent, is_end};
use crate::app::{AppError, ComputerGrant};
use crate::http::HttpState;
use crate::http::computers::wire_computer;
use crate::http::extract::{Caller, JsonBody};
use crate::http::jobs::{stored_counts, stored_line, stored_state, wire_job};
use crate::http::plans::wire_body;
use crate::http::problem::Refusal;
use api::agents::{
    AppendLog, BeginJob, ComputerPlan, ComputerPlans, EndJob, Hello, LOG_LINES_MAX, ORDERS_WAIT_SECONDS_MAX, Order,
    OrderKind, Orders, Welcome,
};
use api::jobs::{Job, JobCause, JobCounts};
use axum::Json;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use control::SystemWords;
use serde::Deserialize;
use std::time::Duration;
use utoipa::IntoParams;

fn wire_order(order: control::Order) -> Result<Order, AppError> {
    let broken = |what: &str| AppError::Internal(format!("order {}: {what}", order.id));
    let kind = match order.kind {
        control::OrderKind::Start => {
            let plan = order.plan.ok_or_else(|| broken("its job has no plan"))?;
            OrderKind::Start { plan: plan.to_string() }
        }
        control::OrderKind::Cancel => OrderKind::Cancel,
        control::OrderKind::Restore => {
            let restore = serde_json::from_str(&order.body).map_err(|error| broken(&error.to_string()))?;
            OrderKind::Restore { restore }
        }
    };
    Ok(Order { id: order.id.to_string(), job: order.job.to_string(), kind })
}

fn wire_plan(PlanForAgent { plan, seen_ns }: PlanForAgent) -> Result<ComputerPlan, AppError> {
    Ok(ComputerPlan {
        id: plan.id.to_string(),
        enabled: plan.state == control::PlanState::Enabled,
        revision: plan.revision,
        seen_ns,
        body: wire_body(&plan.body)?,
        name: plan.name,
    })
}

fn welcome(state: &HttpState, grant: &ComputerGrant, computer: control::Computer) -> Result<Welcome, AppError> {
    let vault = grant.known().vault.ok_or(AppError::NotFound { what: "vault" })?;
    Ok(Welcome {
        computer: wire_computer(computer, true),
        vault: vault.to_string(),
        heartbeat_seconds: u32::try_from(state.app.heartbeat().as_secs()).unwrap_or(u32::MAX).max(1),
        now_ns: state.app.now_ns(),
    })
}

/// Said by an agent at its start: what ran before runs no longer.
#[utoipa::path(post, path = "/computer/hello", tag = "agents", request_body = Hello,
    responses((status = 200, body = Welcome)))]
pub(crate) async fn hello(
    State(state): State<HttpState>,
    Caller(caller): Caller,
    JsonBody(body): JsonBody<Hello>,
) -> Result<Json<Welcome>, Refusal> {
    let grant = caller.computer()?;
    let system = SystemWords { os: &body.os, agent_version: &body.agent_version };
    let computer = state.app.greet_agent(&grant, system).await?;
    Ok(Json(welcome(&state, &grant, computer)?))
}

/// The plans of the agent's computer.
#[utoipa::path(get, path = "/computer/plans", tag = "agents", responses((status = 200, body = ComputerPlans)))]
pub(crate) async fn plans(
    State(state): State<HttpState>,
    Caller(caller): Caller,
) -> Result<Json<ComputerPlans>, Refusal> {
    let (version, plans) = state.app.plans_for_agent(&caller.computer()?).await?;
    Ok(Json(ComputerPlans { version, plans: plans.into_iter().map(wire_plan).collect::<Result<_, _>>()? }))
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct OrdersQuery {
    /// How long to wait when there is nothing, seconds; 0 when absent, at most 55.
    wait: Option<u32>,
    /// Version of the plans that the agent has; another one ends the wait.
    plans: Option<i64>,
}

/// What the agent is to do. Waits for it.
#[utoipa::path(get, path = "/computer/orders", tag = "agents", params(OrdersQuery),
    responses((status = 200, body = Orders)))]
pub(crate) async fn orders(
    State(state): State<HttpState>,
    Caller(caller): Caller,
    Query(query): Query<OrdersQuery>,
) -> Result<Json<Orders>, Refusal> {
    let wait = Duration::from_secs(query.wait.unwrap_or(0).min(ORDERS_WAIT_SECONDS_MAX).into());
    let Mail { orders, plans_version, going_down } =
        state.app.wait_for_orders(&caller.computer()?, wait, query.plans).await?;
    let orders = orders.into_iter().map(wire_order).collect::<Result<_, _>>()?;
    Ok(Json(Orders { orders, plans_version, going_down }))
}

/// The agent has an order; it is not given again.
#[utoipa::path(post, path = "/computer/orders/{order}/received", tag = "agents",
    params(("order" = String, Path, description = "Order id")), responses((status = 204)))]
pub(crate) async fn received(
    State(state): State<HttpState>,
    Caller(caller): Caller,
    Path(order): Path<String>,
) -> Result<StatusCode, Refusal> {
    state.app.order_received(&caller.computer()?, &order).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Begins a job.
#[utoipa::path(post, path = "/computer/jobs", tag = "agents", request_body = BeginJob,
    responses((status = 201, body = Job)))]
pub(crate) async fn begin(
    State(state): State<HttpState>,
    Caller(caller): Caller,
    JsonBody(body): JsonBody<BeginJob>,
) -> Result<(StatusCode, Json<Job>), Refusal> {
    let grant = caller.computer()?;
    let plan = match &body.plan {
        None => None,
        Some(text) => Some(text.parse().map_err(|_| AppError::NotFound { what: "plan" })?),
    };
    let begin = control::BeginJob {
        id: body.id.parse().map_err(AppError::from)?,
        plan,
        revision: body.revision,
        cause: match body.cause {
            JobCause::Schedule => control::JobCause::Schedule,
            JobCause::CatchUp => control::JobCause::CatchUp,
            JobCause::Order => control::JobCause::Order,
        },
        slot_ns: body.slot_ns,
        next: None,
    };
    Ok((StatusCode::CREATED, Json(wire_job(state.app.begin_job(&grant, begin).await?))))
}

/// The agent is at work on a job.
#[utoipa::path(put, path = "/computer/jobs/{job}", tag = "agents", request_body = JobCounts,
    params(("job" = String, Path, description = "Job id")), responses((status = 200, body = Job)))]
pub(crate) async fn heartbeat(
    State(state): State<HttpState>,
    Caller(caller): Caller,
    Path(job): Path<String>,
    JsonBody(body): JsonBody<JobCounts>,
) -> Result<Json<Job>, Refusal> {
    let grant = caller.computer()?;
    Ok(Json(wire_job(state.app.job_heartbeat(&grant, &job, stored_counts(&body)).await?)))
}

/// Appends to a job's log.
#[utoipa::path(post, path = "/computer/jobs/{job}/log", tag = "agents", request_body = AppendLog,
    params(("job" = String, Path, description = "Job id")), responses((status = 204)))]
pub(crate) async fn append_log(
    State(state): State<HttpState>,
    Caller(caller): Caller,
    Path(job): Path<String>,
    JsonBody(body): JsonBody<AppendLog>,
) -> Result<StatusCode, Refusal> {
    let grant = caller.computer()?;
    if body.lines.len() > LOG_LINES_MAX {
        return Err(Refusal::TooLarge(format!("lines: at most {LOG_LINES_MAX} are taken at once")));
    }
    state.app.append_job_log(&grant, &job, body.lines.into_iter().map(stored_line).collect()).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Ends a job.
#[utoipa::path(post, path = "/computer/jobs/{job}/end", tag = "agents", request_body = EndJob,
    params(("job" = String, Path, description = "Job id")), responses((status = 200, body = Job)))]
pub(crate) async fn end(
    State(state): State<HttpState>,
    Caller(caller): Caller,
    Path(job): Path<String>,
    JsonBody(body): JsonBody<EndJob>,
) -> Result<Json<Job>, Refusal> {
    let grant = caller.computer()?;
    let end = control::EndJob {
        state: stored_state(body.state),
        error_code: body.error_code,
        message: body.message,
        snapshot: body.snapshot,
        counts: stored_counts(&body.counts),
    };
    if !is_end(end.state) {
        return Err(Refusal::BadRequest("state: a job ends as succeeded, warning, failed or cancelled".into()));
    }
    Ok(Json(wire_job(state.app.end_job(&grant, &job, end).await?)))
}
