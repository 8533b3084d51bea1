//! Lists of jobs and the search in their logs: wire types <-> use cases.

use crate::app::job_lists::JobListing;
use crate::http::HttpState;
use crate::http::extract::Caller;
use crate::http::jobs::{stored_state, wire_job, wire_line, wire_state};
use crate::http::page::{self, cursor, named_id, next};
use crate::http::problem::Refusal;
use api::jobs::{FoundLog, JobKind, JobSort, JobState, ListedJob};
use api::page::Page;
use axum::Json;
use axum::extract::{Query, State};
use control::{JobCursor, JobFilter, LogCursor};
use serde::Deserialize;
use utoipa::IntoParams;

/// Which jobs; what is absent is all.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct FilterQuery {
    /// In this state.
    #[param(inline)]
    state: Option<JobState>,
    /// Of this tenant, by id.
    tenant: Option<String>,
    /// Of this user, by id.
    user: Option<String>,
    /// On this computer, by id.
    computer: Option<String>,
    /// By this plan, by id.
    plan: Option<String>,
    /// Of this kind.
    #[param(inline)]
    kind: Option<JobKind>,
    /// From this moment on, nanoseconds since 1970: of the end in a list sorted by end, of the start in every other.
    from_ns: Option<i64>,
    /// Before this moment, alike.
    to_ns: Option<i64>,
}

impl FilterQuery {
    fn stored(self) -> Result<JobFilter, Refusal> {
        let FilterQuery { state, tenant, user, computer, plan, kind, from_ns, to_ns } = self;
        Ok(JobFilter {
            state: state.map(stored_state),
            tenant: tenant.map(|id| named_id(&id, "tenant")).transpose()?,
            user: user.map(|id| named_id(&id, "user")).transpose()?,
            computer: computer.map(|id| named_id(&id, "computer")).transpose()?,
            plan: plan.map(|id| named_id(&id, "plan")).transpose()?,
            kind: kind.map(|kind| match kind {
                JobKind::Backup => control::JobKind::Backup,
                JobKind::Restore => control::JobKind::Restore,
            }),
            from_ns,
            to_ns,
        })
    }
}

/// In which order.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct OrderQuery {
    /// By what; by start when absent.
    #[param(inline)]
    sort: Option<JobSort>,
    /// The oldest or best first.
    ascending: Option<bool>,
}

/// What is searched for.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct WordsQuery {
    /// One to eight words, each of which must be in the log.
    words: String,
}

fn wire_listed(listed: control::ListedJob) -> ListedJob {
    ListedJob {
        computer_name: listed.computer,
        plan_name: listed.plan,
        user_name: listed.user,
        tenant: listed.job.tenant.to_string(),
        tenant_title: listed.tenant,
        job: wire_job(listed.job),
    }
}

/// Jobs, the newest first.
#[utoipa::path(get, path = "/jobs", tag = "jobs", params(FilterQuery, OrderQuery,
        ("limit" = Option<u32>, Query, description = "Most entries in the page, 1 to 200; 50 when absent"),
        ("after" = Option<String>, Query, description = "The `next` of the page before")),
    responses((status = 200, body = Page<ListedJob>)))]
pub(crate) async fn list(
    State(state): State<HttpState>,
    Caller(caller): Caller,
    Query(filter): Query<FilterQuery>,
    Query(order): Query<OrderQuery>,
    Query(paged): Query<page::Page>,
) -> Result<Json<Page<ListedJob>>, Refusal> {
    let after = match paged.after::<(JobState, i64, String)>()? {
        None => None,
        Some((state, at_ns, id)) => Some(JobCursor { state: stored_state(state), at_ns, id: named_id(&id, "after")? }),
    };
    let sort = match order.sort.unwrap_or_default() {
        JobSort::Start => control::JobSort::Start,
        JobSort::End => control::JobSort::End,
        JobSort::State => control::JobSort::State,
    };
    let (filter, limit) = (filter.stored()?, paged.limit()?);
    let listing = JobListing { filter, sort, ascending: order.ascending.unwrap_or(false), after, limit };
    let found = state.app.jobs(&caller, &listing).await?;
    let next = next(&found, limit, |listed| {
        let JobCursor { state, at_ns, id } = listed.cursor(sort);
        (wire_state(state), at_ns, id.to_string())
    });
    Ok(Json(Page { items: found.into_iter().map(wire_listed).collect(), next }))
}

/// Jobs whose logs have words, the newest first. A page may be empty and have a next one.
#[utoipa::path(get, path = "/job-logs", tag = "jobs", params(WordsQuery, FilterQuery,
        ("limit" = Option<u32>, Query, description = "Most entries in the page, 1 to 200; 50 when absent"),
        ("after" = Option<String>, Query, description = "The `next` of the page before")),
    responses((status = 200, body = Page<FoundLog>)))]
pub(crate) async fn search(
    State(state): State<HttpState>,
    Caller(caller): Caller,
    Query(asked): Query<WordsQuery>,
    Query(filter): Query<FilterQuery>,
    Query(paged): Query<page::Page>,
) -> Result<Json<Page<FoundLog>>, Refusal> {
    let after = match paged.after::<(i64, String, i64)>()? {
        None => None,
        Some((opened_ns, bucket, number)) => Some(LogCursor { opened_ns, bucket: named_id(&bucket, "after")?, number }),
    };
    let (filter, limit) = (filter.stored()?, paged.limit()?);
    let found = state.app.search_logs(&caller, &asked.words, &filter, after.as_ref(), limit).await?;
    let next = found.next.and_then(|next| cursor(&(next.opened_ns, next.bucket.to_string(), next.number)));
    let wire = |found: control::FoundLog| FoundLog {
        job: wire_listed(found.job),
        lines: found.lines.into_iter().map(wire_line).collect(),
    };
    Ok(Json(Page { items: found.found.into_iter().map(wire).collect(), next }))
}
