//! Jobs and their logs: wire types <-> use cases.

use crate::http::HttpState;
use crate::http::extract::Caller;
use crate::http::page::{self, next};
use crate::http::problem::Refusal;
use api::jobs::{Job, JobCause, JobCounts, JobKind, JobState, LogLevel, LogLine};
use api::page::Page;
use axum::Json;
use axum::extract::{Path, Query, State};

pub(crate) const fn wire_state(state: control::JobState) -> JobState {
    match state {
        control::JobState::Queued => JobState::Queued,
        control::JobState::Running => JobState::Running,
        control::JobState::Succeeded => JobState::Succeeded,
        control::JobState::Warning => JobState::Warning,
        control::JobState::Failed => JobState::Failed,
        control::JobState::Cancelled => JobState::Cancelled,
        control::JobState::Missed => JobState::Missed,
    }
}

pub(crate) const fn stored_state(state: JobState) -> control::JobState {
    match state {
        JobState::Queued => control::JobState::Queued,
        JobState::Running => control::JobState::Running,
        JobState::Succeeded => control::JobState::Succeeded,
        JobState::Warning => control::JobState::Warning,
        JobState::Failed => control::JobState::Failed,
        JobState::Cancelled => control::JobState::Cancelled,
        JobState::Missed => control::JobState::Missed,
    }
}

fn count(number: i64) -> u64 {
    u64::try_from(number).unwrap_or_default()
}

fn stored(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

pub(crate) fn stored_counts(counts: &JobCounts) -> control::JobCounts {
    control::JobCounts {
        files: stored(counts.files),
        bytes_done: stored(counts.bytes_done),
        bytes_total: counts.bytes_total.map(stored),
        bytes_added: stored(counts.bytes_added),
        warnings: stored(counts.warnings),
    }
}

/// A job as it travels.
pub(crate) fn wire_job(job: control::Job) -> Job {
    Job {
        id: job.id.to_string(),
        computer: job.computer.to_string(),
        user: job.user.to_string(),
        plan: job.plan.map(|plan| plan.to_string()),
        plan_revision: job.plan_revision,
        kind: match job.kind {
            control::JobKind::Backup => JobKind::Backup,
            control::JobKind::Restore => JobKind::Restore,
        },
        cause: match job.cause {
            control::JobCause::Schedule => JobCause::Schedule,
            control::JobCause::CatchUp => JobCause::CatchUp,
            control::JobCause::Order => JobCause::Order,
        },
        state: wire_state(job.state),
        error_code: job.error_code,
        message: job.message,
        slot_ns: job.slot_ns,
        created_ns: job.created_ns,
        started_ns: job.started_ns,
        ended_ns: job.ended_ns,
        heartbeat_ns: job.heartbeat_ns,
        counts: JobCounts {
            files: count(job.counts.files),
            bytes_done: count(job.counts.bytes_done),
            bytes_total: job.counts.bytes_total.map(count),
            bytes_added: count(job.counts.bytes_added),
            warnings: count(job.counts.warnings),
        },
        snapshot: job.snapshot,
        log_lines: job.log_kept,
    }
}

pub(crate) fn wire_line(line: control::LogLine) -> LogLine {
    LogLine {
        line: line.line,
        at_ns: line.at_ns,
        level: match line.level {
            control::LogLevel::Info => LogLevel::Info,
            control::LogLevel::Warning => LogLevel::Warning,
            control::LogLevel::Error => LogLevel::Error,
        },
        text: line.text,
    }
}

pub(crate) fn stored_line(line: LogLine) -> control::LogLine {
    control::LogLine {
        line: line.line,
        at_ns: line.at_ns,
        level: match line.level {
            LogLevel::Info => control::LogLevel::Info,
            LogLevel::Warning => control::LogLevel::Warning,
            LogLevel::Error => control::LogLevel::Error,
        },
        text: line.text,
    }
}

/// One job.
#[utoipa::path(get, path = "/jobs/{job}", tag = "jobs", params(("job" = String, Path, description = "Job id")),
    responses((status = 200, body = Job)))]
pub(crate) async fn show(
    State(state): State<HttpState>,
    Caller(caller): Caller,
    Path(job): Path<String>,
) -> Result<Json<Job>, Refusal> {
    Ok(Json(wire_job(state.app.job(&caller, &job).await?)))
}

/// Lines of a job's log, in their order.
#[utoipa::path(get, path = "/jobs/{job}/log", tag = "jobs",
    params(("job" = String, Path, description = "Job id"),
        ("limit" = Option<u32>, Query, description = "Most entries, 1 to 200; 50 when absent"),
        ("after" = Option<String>, Query, description = "The `next` of the page before")), responses((status = 200, body = Page<LogLine>)))]
pub(crate) async fn log(
    State(state): State<HttpState>,
    Caller(caller): Caller,
    Path(job): Path<String>,
    Query(page): Query<page::Page>,
) -> Result<Json<Page<LogLine>>, Refusal> {
    let limit = page.limit()?;
    let lines = state.app.job_log(&caller, &job, page.after()?, limit).await?;
    let next = next(&lines, limit, |line| line.line);
    Ok(Json(Page { items: lines.into_iter().map(wire_line).collect(), next }))
}

/// Cancels a job: a queued one at once, a running one as soon as its agent hears of it.
#[utoipa::path(post, path = "/jobs/{job}/cancel", tag = "jobs", params(("job" = String, Path, description = "Job id")),
    responses((status = 200, body = Job)))]
pub(crate) async fn cancel(
    State(state): State<HttpState>,
    Caller(caller): Caller,
    Path(job): Path<String>,
) -> Result<Json<Job>, Refusal> {
    Ok(Json(wire_job(state.app.cancel_job(&caller, &job).await?)))
}
