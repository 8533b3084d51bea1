//! Jobs as they run: what their agents say of them, and what the server finds out when agents say nothing.

use crate::audit_log::record;
use crate::computer::computer_actor;
use crate::job::{AFTER, OVER, deed, end_open, insert, job, new_job, open_job, open_jobs, server};
use crate::plan::plan_in;
use crate::{
    Computer, ComputerId, Control, ControlError, Due, Job, JobCause, JobCounts, JobId, JobState, LOST, NOT_ENDED_NS,
    Plan, PlanId, Scope,
};
use sqlx::AnyConnection;

/// Longest error code, bytes.
const CODE_BYTES_MAX: usize = 64;
/// Longest message of a job, bytes; what is longer is cut.
const MESSAGE_BYTES_MAX: usize = 2000;

/// A job as its agent begins it.
#[derive(Clone, Debug)]
pub struct BeginJob {
    /// Chosen by the agent, or that of an order.
    pub id: JobId,
    /// By which plan; of an ordered job it is known already.
    pub plan: Option<PlanId>,
    /// By which revision of it.
    pub revision: Option<i64>,
    /// Why.
    pub cause: JobCause,
    /// The moment of the schedule.
    pub slot_ns: Option<i64>,
    /// When the plan is to run after that.
    pub next: Option<Due>,
}

/// How a job ended, as its agent says.
#[derive(Clone, Debug)]
pub struct EndJob {
    /// Succeeded, warning, failed or cancelled.
    pub state: JobState,
    /// Why it did not succeed, as a word.
    pub error_code: Option<String>,
    /// The same for people.
    pub message: Option<String>,
    /// What it made.
    pub snapshot: Option<String>,
    /// What it did.
    pub counts: JobCounts,
}

/// At most so many bytes of a text, cut between characters.
fn cut(text: Option<String>, bytes_max: usize) -> Option<String> {
    text.map(|mut text| {
        let mut end = text.len().min(bytes_max);
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        text.truncate(end);
        text
    })
}

/// One job of a computer, in a transaction.
async fn own_job(
    connection: &mut AnyConnection,
    computer: &ComputerId,
    id: &JobId,
) -> Result<Option<Job>, ControlError> {
    let row = sqlx::query("SELECT * FROM jobs WHERE id = $1").bind(id.to_string()).fetch_optional(connection).await?;
    let Some(found) = row.as_ref().map(job).transpose()? else { return Ok(None) };
    match found.computer == *computer {
        true => Ok(Some(found)),
        false => Err(ControlError::not_found("job", &id.to_string())),
    }
}

impl Control {
    /// An agent begins a job: one that was queued for it, or one of a plan by its schedule. The same again answers the
    /// same. [`ControlError::WrongState`] when the job has ended, when the plan has another one running, and when something
    /// became of this moment of the schedule before, but for a miss: then the job stands beside it, as a catch-up.
    pub async fn begin_job(
        &self,
        scope: &Scope,
        computer: &Computer,
        begin: &BeginJob,
        address: &str,
        now_ns: i64,
    ) -> Result<Job, ControlError> {
        let actor = computer_actor(computer, address);
        let mut transaction = self.write().await?;
        if let Some(found) = own_job(&mut transaction, &computer.id, &begin.id).await? {
            let job = match found.state {
                JobState::Running => return Ok(found),
                JobState::Queued => {
                    sqlx::query(
                        "UPDATE jobs SET state = 'running', started_ns = $1, heartbeat_ns = $1 \
                         WHERE id = $2 AND state = 'queued'",
                    )
                    .bind(now_ns)
                    .bind(begin.id.to_string())
                    .execute(&mut *transaction)
                    .await?;
                    sqlx::query(
                        "UPDATE orders SET state = 'done', state_ns = $1 WHERE job_id = $2 AND kind <> 'cancel'",
                    )
                    .bind(now_ns)
                    .bind(begin.id.to_string())
                    .execute(&mut *transaction)
                    .await?;
                    Job { state: JobState::Running, started_ns: now_ns, heartbeat_ns: Some(now_ns), ..found }
                }
                ended => return Err(ControlError::wrong_state("job", &begin.id.to_string(), ended.as_str(), OVER)),
            };
            record(&mut transaction, &actor, deed(&job, "job.begin", Some(JobState::Queued), job.state), now_ns)
                .await?;
            transaction.commit().await?;
            return Ok(job);
        }
        let unknown = || ControlError::not_found("plan", &begin.plan.map(|id| id.to_string()).unwrap_or_default());
        let plan = plan_in(&mut transaction, scope, &begin.plan.ok_or_else(unknown)?).await?;
        if plan.computer != computer.id {
            return Err(unknown());
        }
        if let Some(state) = open_job(&mut transaction, &computer.id, &plan.id).await? {
            return Err(ControlError::wrong_state("plan", &plan.name, &format!("{state} already"), AFTER));
        }
        let revision = begin.revision.filter(|revision| (1..=plan.revision).contains(revision));
        let revision = revision.ok_or(ControlError::Invalid { what: "revision", rule: "must be one of the plan" })?;
        let (mut cause, mut slot_ns) = (begin.cause, begin.slot_ns);
        if let Some(slot) = slot_ns {
            let became: Option<String> =
                sqlx::query_scalar("SELECT state FROM jobs WHERE plan_id = $1 AND slot_ns = $2")
                    .bind(plan.id.to_string())
                    .bind(slot)
                    .fetch_optional(&mut *transaction)
                    .await?;
            match became.as_deref() {
                None => {}
                Some("missed") => (cause, slot_ns) = (JobCause::CatchUp, None),
                Some(state) => {
                    return Err(ControlError::wrong_state(
                        "plan",
                        &plan.name,
                        &format!("{state} for this time"),
                        "it runs again at the next",
                    ));
                }
            }
            // What was due up to this moment is seen to.
            sqlx::query("UPDATE plans SET due_ns = $1, overdue_ns = $2 WHERE id = $3 AND due_ns <= $4")
                .bind(begin.next.map(|due| due.slot_ns))
                .bind(begin.next.map(|due| due.overdue_ns))
                .bind(plan.id.to_string())
                .bind(slot)
                .execute(&mut *transaction)
                .await?;
        }
        let begun = Job {
            plan_revision: Some(revision),
            slot_ns,
            heartbeat_ns: Some(now_ns),
            ..new_job(begin.id, &plan, (cause, JobState::Running), now_ns)
        };
        insert(&mut transaction, &begun).await?;
        record(&mut transaction, &actor, deed(&begun, "job.begin", None, JobState::Running), now_ns).await?;
        transaction.commit().await?;
        Ok(begun)
    }

    /// An agent is at work on a job. One that was taken for lost runs again. Answers the job as it is; one that does not
    /// run any more stays as it is.
    pub async fn job_heartbeat(
        &self,
        computer: &Computer,
        id: &JobId,
        counts: &JobCounts,
        now_ns: i64,
    ) -> Result<Job, ControlError> {
        let mut transaction = self.write().await?;
        let found = own_job(&mut transaction, &computer.id, id).await?;
        let found = found.ok_or_else(|| ControlError::not_found("job", &id.to_string()))?;
        let was_lost = found.state == JobState::Failed && found.error_code.as_deref() == Some(LOST);
        if found.state != JobState::Running && !was_lost {
            return Ok(found);
        }
        sqlx::query(
            "UPDATE jobs SET state = 'running', error_code = NULL, message = NULL, ended_ns = $1, heartbeat_ns = $2, \
             files = $3, bytes_done = $4, bytes_total = $5, bytes_added = $6, warnings = $7 WHERE id = $8 AND state = $9",
        )
        .bind(NOT_ENDED_NS)
        .bind(now_ns)
        .bind(counts.files)
        .bind(counts.bytes_done)
        .bind(counts.bytes_total)
        .bind(counts.bytes_added)
        .bind(counts.warnings)
        .bind(id.to_string())
        .bind(found.state.as_str())
        .execute(&mut *transaction)
        .await?;
        let was = found.state;
        let job = Job {
            state: JobState::Running,
            error_code: None,
            message: None,
            ended_ns: None,
            heartbeat_ns: Some(now_ns),
            counts: *counts,
            ..found
        };
        if was_lost {
            let actor = computer_actor(computer, "agent");
            record(&mut transaction, &actor, deed(&job, "job.found", Some(was), JobState::Running), now_ns).await?;
        }
        transaction.commit().await?;
        Ok(job)
    }

    /// A job has ended, as its agent says. The same again answers the same; one that ended otherwise is
    /// [`ControlError::WrongState`], but for one that was taken for lost.
    pub async fn end_job(
        &self,
        computer: &Computer,
        id: &JobId,
        end: EndJob,
        address: &str,
        now_ns: i64,
    ) -> Result<Job, ControlError> {
        if !end.state.has_ended() || end.state == JobState::Missed {
            return Err(ControlError::Invalid {
                what: "state",
                rule: "a job ends as succeeded, warning, failed or cancelled",
            });
        }
        let mut transaction = self.write().await?;
        let found = own_job(&mut transaction, &computer.id, id).await?;
        let found = found.ok_or_else(|| ControlError::not_found("job", &id.to_string()))?;
        let was_lost = found.state == JobState::Failed && found.error_code.as_deref() == Some(LOST);
        if found.state == end.state && !was_lost {
            return Ok(found);
        }
        if found.state != JobState::Running && !was_lost {
            return Err(ControlError::wrong_state("job", &id.to_string(), found.state.as_str(), OVER));
        }
        let was = found.state;
        let job = Job {
            state: end.state,
            error_code: cut(end.error_code, CODE_BYTES_MAX),
            message: cut(end.message, MESSAGE_BYTES_MAX),
            ended_ns: Some(now_ns),
            snapshot: end.snapshot,
            counts: end.counts,
            ..found
        };
        sqlx::query(
            "UPDATE jobs SET state = $1, error_code = $2, message = $3, ended_ns = $4, snapshot_id = $5, files = $6, \
             bytes_done = $7, bytes_total = $8, bytes_added = $9, warnings = $10 WHERE id = $11 AND state = $12",
        )
        .bind(job.state.as_str())
        .bind(&job.error_code)
        .bind(&job.message)
        .bind(now_ns)
        .bind(&job.snapshot)
        .bind(job.counts.files)
        .bind(job.counts.bytes_done)
        .bind(job.counts.bytes_total)
        .bind(job.counts.bytes_added)
        .bind(job.counts.warnings)
        .bind(id.to_string())
        .bind(was.as_str())
        .execute(&mut *transaction)
        .await?;
        // What was ordered for it has no object any more.
        sqlx::query(
            "UPDATE orders SET state = 'done', state_ns = $1 WHERE job_id = $2 AND state IN ('waiting', 'delivered')",
        )
        .bind(now_ns)
        .bind(id.to_string())
        .execute(&mut *transaction)
        .await?;
        let actor = computer_actor(computer, address);
        record(&mut transaction, &actor, deed(&job, "job.end", Some(was), job.state), now_ns).await?;
        transaction.commit().await?;
        Ok(job)
    }

    /// Nothing began at these moments of a plan's schedule, which were due by `plan.due`: a missed job for each, unless
    /// something became of it, or another job of the plan was running then. `next` is due from now on. Answers the missed
    /// jobs; none when the plan has changed meanwhile.
    pub async fn miss_slots(
        &self,
        plan: &Plan,
        slots_ns: &[i64],
        next: Option<Due>,
        now_ns: i64,
    ) -> Result<Vec<Job>, ControlError> {
        let Some(due) = plan.due else { return Ok(Vec::new()) };
        let mut transaction = self.write().await?;
        let moved = sqlx::query(
            "UPDATE plans SET due_ns = $1, overdue_ns = $2 WHERE id = $3 AND due_ns = $4 AND state = 'enabled'",
        )
        .bind(next.map(|due| due.slot_ns))
        .bind(next.map(|due| due.overdue_ns))
        .bind(plan.id.to_string())
        .bind(due.slot_ns)
        .execute(&mut *transaction)
        .await?;
        if moved.rows_affected() == 0 {
            return Ok(Vec::new());
        }
        let mut missed = Vec::new();
        for slot_ns in slots_ns {
            let busy: i64 = sqlx::query_scalar(
                "SELECT COUNT(*) FROM jobs WHERE plan_id = $1 \
                 AND (slot_ns = $2 OR (started_ns <= $2 AND ended_ns > $2 AND state <> 'missed'))",
            )
            .bind(plan.id.to_string())
            .bind(slot_ns)
            .fetch_one(&mut *transaction)
            .await?;
            if busy > 0 {
                continue;
            }
            let job = Job {
                slot_ns: Some(*slot_ns),
                started_ns: *slot_ns,
                ended_ns: Some(now_ns),
                error_code: Some("missed".into()),
                message: Some("the backup did not begin: the computer was off, asleep or away from the server".into()),
                ..new_job(JobId::generate()?, plan, (JobCause::Schedule, JobState::Missed), now_ns)
            };
            insert(&mut transaction, &job).await?;
            record(&mut transaction, &server(), deed(&job, "job.missed", None, JobState::Missed), now_ns).await?;
            missed.push(job);
        }
        transaction.commit().await?;
        Ok(missed)
    }

    /// Running jobs that were not heard of since `silent_since_ns` have failed: lost. Answers them.
    pub async fn lose_silent_jobs(&self, silent_since_ns: i64, now_ns: i64) -> Result<Vec<Job>, ControlError> {
        let condition = "state = 'running' AND heartbeat_ns < CAST($1 AS BIGINT)";
        let silent = open_jobs(&mut *self.readers.acquire().await?, condition, silent_since_ns.to_string()).await?;
        if silent.is_empty() {
            return Ok(silent);
        }
        let mut transaction = self.write().await?;
        // Heard of since they were read: left alone.
        let still = open_jobs(&mut transaction, condition, silent_since_ns.to_string()).await?;
        let message = "the agent fell silent: the computer was switched off, or lost its connection";
        let lost = end_open(&mut transaction, still, JobState::Failed, (Some(LOST), message), now_ns).await?;
        transaction.commit().await?;
        Ok(lost)
    }

    /// Jobs that were queued before `queued_before_ns` and never begun are cancelled. Answers them.
    pub async fn give_queued_jobs_up(&self, queued_before_ns: i64, now_ns: i64) -> Result<Vec<Job>, ControlError> {
        let condition = "state = 'queued' AND created_ns < CAST($1 AS BIGINT)";
        let old = open_jobs(&mut *self.readers.acquire().await?, condition, queued_before_ns.to_string()).await?;
        if old.is_empty() {
            return Ok(old);
        }
        let mut transaction = self.write().await?;
        let still = open_jobs(&mut transaction, condition, queued_before_ns.to_string()).await?;
        let message = "the computer was not heard of for a day";
        let ended = end_open(&mut transaction, still, JobState::Cancelled, (None, message), now_ns).await?;
        transaction.commit().await?;
        Ok(ended)
    }
}
