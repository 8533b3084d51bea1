//! Jobs and their states: queued > running > succeeded, warning, failed or cancelled; or missed, when nothing ran. An
//! agent chooses a job's id, so that asking again is the same job. Lists of jobs are elsewhere, logs too.

use crate::audit_log::record;
use crate::computer::active_computer_in;
use crate::plan::plan_in;
use crate::{
    Actor, ComputerId, Control, ControlError, Deed, JobId, Location, OrderId, OrderKind, Plan, PlanId, Scope, TenantId,
    UserId,
};
use sqlx::any::AnyRow;
use sqlx::{AnyConnection, Row};

/// Error code of a job whose agent fell silent.
pub const LOST: &str = "lost";
/// What a job's end is until it has ended.
pub const NOT_ENDED_NS: i64 = i64::MAX;
pub(crate) const AFTER: &str = "one backup of a plan runs at a time";
pub(crate) const OVER: &str = "nothing more becomes of it";
/// The few that have not ended; this text is the condition of their index.
const OPEN: &str = "state IN ('queued', 'running')";

/// What a job does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum JobKind {
    /// Backs up by a plan.
    Backup,
    /// Brings something back.
    Restore,
}

impl JobKind {
    /// As stored and as on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            JobKind::Backup => "backup",
            JobKind::Restore => "restore",
        }
    }

    fn stored(text: &str) -> Result<Self, ControlError> {
        match text {
            "backup" => Ok(JobKind::Backup),
            "restore" => Ok(JobKind::Restore),
            _ => Err(ControlError::Corrupt { what: "kind of a job" }),
        }
    }
}

/// What made it run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum JobCause {
    /// The plan's schedule, at its time.
    Schedule,
    /// The plan's schedule, later, because the computer slept or was off.
    CatchUp,
    /// Somebody.
    Order,
}

impl JobCause {
    /// As stored and as on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            JobCause::Schedule => "schedule",
            JobCause::CatchUp => "catch_up",
            JobCause::Order => "order",
        }
    }

    fn stored(text: &str) -> Result<Self, ControlError> {
        match text {
            "schedule" => Ok(JobCause::Schedule),
            "catch_up" => Ok(JobCause::CatchUp),
            "order" => Ok(JobCause::Order),
            _ => Err(ControlError::Corrupt { what: "cause of a job" }),
        }
    }
}

/// Where a job is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum JobState {
    /// The agent is told to begin it.
    Queued,
    /// The agent has begun it.
    Running,
    /// Everything was done.
    Succeeded,
    /// Done, but for what its log names.
    Warning,
    /// Not done.
    Failed,
    /// Somebody stopped it.
    Cancelled,
    /// It should have run, and nothing began.
    Missed,
}

impl JobState {
    /// All of them.
    pub const ALL: [JobState; 7] = [
        JobState::Queued,
        JobState::Running,
        JobState::Succeeded,
        JobState::Warning,
        JobState::Failed,
        JobState::Cancelled,
        JobState::Missed,
    ];

    /// As stored and as on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            JobState::Queued => "queued",
            JobState::Running => "running",
            JobState::Succeeded => "succeeded",
            JobState::Warning => "warning",
            JobState::Failed => "failed",
            JobState::Cancelled => "cancelled",
            JobState::Missed => "missed",
        }
    }

    /// Whether nothing more becomes of it.
    pub const fn has_ended(self) -> bool {
        !matches!(self, JobState::Queued | JobState::Running)
    }

    /// From a column.
    pub(crate) fn stored(text: &str) -> Result<Self, ControlError> {
        let found = JobState::ALL.into_iter().find(|state| state.as_str() == text);
        found.ok_or(ControlError::Corrupt { what: "state of a job" })
    }
}

/// What a job has done so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct JobCounts {
    /// Files.
    pub files: i64,
    /// Bytes of files read or written.
    pub bytes_done: i64,
    /// Of how many, when that is known.
    pub bytes_total: Option<i64>,
    /// Bytes that are new on the server.
    pub bytes_added: i64,
    /// Files that could not be read or written.
    pub warnings: i64,
}

/// A job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Job {
    /// Its id.
    pub id: JobId,
    /// Its user's tenant.
    pub tenant: TenantId,
    /// Whose it is.
    pub user: UserId,
    /// On which computer.
    pub computer: ComputerId,
    /// By which plan; none for a restore.
    pub plan: Option<PlanId>,
    /// By which revision of it.
    pub plan_revision: Option<i64>,
    /// What it does.
    pub kind: JobKind,
    /// What made it run.
    pub cause: JobCause,
    /// Where it is in its life.
    pub state: JobState,
    /// Why it did not succeed, as a word.
    pub error_code: Option<String>,
    /// The same for people.
    pub message: Option<String>,
    /// The moment of the schedule that it runs for, nanoseconds since 1970.
    pub slot_ns: Option<i64>,
    /// When it was made.
    pub created_ns: i64,
    /// When it began; until then when it was made, and of a missed one when it should have.
    pub started_ns: i64,
    /// When it ended; none while it has not.
    pub ended_ns: Option<i64>,
    /// Last heard of.
    pub heartbeat_ns: Option<i64>,
    /// What it has done.
    pub counts: JobCounts,
    /// What it made: a snapshot's id.
    pub snapshot: Option<String>,
    /// Lines of its log that are kept.
    pub log_kept: i64,
}

/// A job from its row.
pub(crate) fn job(row: &AnyRow) -> Result<Job, ControlError> {
    let plan: Option<String> = row.try_get("plan_id")?;
    let ended_ns: i64 = row.try_get("ended_ns")?;
    Ok(Job {
        id: JobId::stored(row.try_get("id")?)?,
        tenant: TenantId::stored(row.try_get("tenant_id")?)?,
        user: UserId::stored(row.try_get("user_id")?)?,
        computer: ComputerId::stored(row.try_get("computer_id")?)?,
        plan: plan.as_deref().map(PlanId::stored).transpose()?,
        plan_revision: row.try_get("plan_revision")?,
        kind: JobKind::stored(row.try_get("kind")?)?,
        cause: JobCause::stored(row.try_get("cause")?)?,
        state: JobState::stored(row.try_get("state")?)?,
        error_code: row.try_get("error_code")?,
        message: row.try_get("message")?,
        slot_ns: row.try_get("slot_ns")?,
        created_ns: row.try_get("created_ns")?,
        started_ns: row.try_get("started_ns")?,
        ended_ns: (ended_ns != NOT_ENDED_NS).then_some(ended_ns),
        heartbeat_ns: row.try_get("heartbeat_ns")?,
        counts: JobCounts {
            files: row.try_get("files")?,
            bytes_done: row.try_get("bytes_done")?,
            bytes_total: row.try_get("bytes_total")?,
            bytes_added: row.try_get("bytes_added")?,
            warnings: row.try_get("warnings")?,
        },
        snapshot: row.try_get("snapshot_id")?,
        log_kept: row.try_get("log_kept")?,
    })
}

pub(crate) fn deed(job: &Job, verb: &'static str, before: Option<JobState>, after: JobState) -> Deed<'static> {
    let state = |state: JobState| serde_json::json!({ "state": state.as_str(), "error": job.error_code });
    Deed {
        tenant: job.tenant,
        user: Some(job.user),
        verb,
        object: format!("job {}", job.id),
        before: before.map(|before| serde_json::json!({ "state": before.as_str() })),
        after: Some(state(after)),
    }
}

pub(crate) fn server() -> Actor {
    Actor { id: "server".into(), name: "the server by itself".into(), behalf: None, address: "local".into() }
}

/// One job that a scope reaches, in a transaction.
pub(crate) async fn job_in(connection: &mut AnyConnection, scope: &Scope, id: &JobId) -> Result<Job, ControlError> {
    let text =
        format!("SELECT * FROM jobs WHERE id = $1 AND {}", scope.condition("jobs.tenant_id", Some("jobs.user_id")));
    let row = sqlx::query(sqlx::AssertSqlSafe(text)).bind(id.to_string()).fetch_optional(connection).await?;
    job(&row.ok_or_else(|| ControlError::not_found("job", &id.to_string()))?)
}

/// Whether a plan has a job that has not ended; its state then.
pub(crate) async fn open_job(
    connection: &mut AnyConnection,
    computer: &ComputerId,
    plan: &PlanId,
) -> Result<Option<String>, ControlError> {
    let text = format!("SELECT state FROM jobs WHERE computer_id = $1 AND {OPEN} AND plan_id = $2 LIMIT 1");
    Ok(sqlx::query_scalar(sqlx::AssertSqlSafe(text))
        .bind(computer.to_string())
        .bind(plan.to_string())
        .fetch_optional(connection)
        .await?)
}

pub(crate) async fn insert(connection: &mut AnyConnection, new: &Job) -> Result<(), ControlError> {
    sqlx::query(
        "INSERT INTO jobs (id, tenant_id, user_id, computer_id, plan_id, plan_revision, kind, cause, state, error_code, \
         message, slot_ns, created_ns, started_ns, ended_ns, heartbeat_ns) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16)",
    )
    .bind(new.id.to_string())
    .bind(new.tenant.to_string())
    .bind(new.user.to_string())
    .bind(new.computer.to_string())
    .bind(new.plan.map(|plan| plan.to_string()))
    .bind(new.plan_revision)
    .bind(new.kind.as_str())
    .bind(new.cause.as_str())
    .bind(new.state.as_str())
    .bind(&new.error_code)
    .bind(&new.message)
    .bind(new.slot_ns)
    .bind(new.created_ns)
    .bind(new.started_ns)
    .bind(new.ended_ns.unwrap_or(NOT_ENDED_NS))
    .bind(new.heartbeat_ns)
    .execute(connection)
    .await?;
    Ok(())
}

/// Ends jobs that have not, one transition and one entry in the audit log each.
pub(crate) async fn end_open(
    connection: &mut AnyConnection,
    jobs: Vec<Job>,
    to: JobState,
    (code, message): (Option<&str>, &str),
    now_ns: i64,
) -> Result<Vec<Job>, ControlError> {
    let mut ended = Vec::new();
    for mut job in jobs {
        let was = job.state;
        let moved = sqlx::query(
            "UPDATE jobs SET state = $1, error_code = $2, message = $3, ended_ns = $4 WHERE id = $5 AND state = $6",
        )
        .bind(to.as_str())
        .bind(code)
        .bind(message)
        .bind(now_ns)
        .bind(job.id.to_string())
        .bind(was.as_str())
        .execute(&mut *connection)
        .await?;
        if moved.rows_affected() == 0 {
            continue;
        }
        sqlx::query(
            "UPDATE orders SET state = 'withdrawn', state_ns = $1 WHERE job_id = $2 AND state IN ('waiting', 'delivered')",
        )
        .bind(now_ns)
        .bind(job.id.to_string())
        .execute(&mut *connection)
        .await?;
        (job.state, job.ended_ns) = (to, Some(now_ns));
        (job.error_code, job.message) = (code.map(str::to_owned), Some(message.to_owned()));
        let verb = match (to, code) {
            (JobState::Failed, Some(LOST)) => "job.lost",
            (JobState::Cancelled, _) => "job.cancel",
            _ => "job.end",
        };
        record(connection, &server(), deed(&job, verb, Some(was), to), now_ns).await?;
        ended.push(job);
    }
    Ok(ended)
}

pub(crate) async fn open_jobs(
    connection: &mut AnyConnection,
    condition: &str,
    argument: String,
) -> Result<Vec<Job>, ControlError> {
    let text = format!("SELECT * FROM jobs WHERE {OPEN} AND {condition} ORDER BY created_ns, id");
    let rows = sqlx::query(sqlx::AssertSqlSafe(text)).bind(argument).fetch_all(connection).await?;
    rows.iter().map(job).collect()
}

/// A computer's running jobs run no longer.
pub(crate) async fn fail_lost_jobs(
    connection: &mut AnyConnection,
    computer: &ComputerId,
    message: &str,
    now_ns: i64,
) -> Result<(), ControlError> {
    let lost = open_jobs(connection, "state = 'running' AND computer_id = $1", computer.to_string()).await?;
    end_open(connection, lost, JobState::Failed, (Some(LOST), message), now_ns).await?;
    Ok(())
}

/// A computer's queued jobs are not begun any more.
pub(crate) async fn withdraw_queued_jobs(
    connection: &mut AnyConnection,
    computer: &ComputerId,
    message: &str,
    now_ns: i64,
) -> Result<(), ControlError> {
    let queued = open_jobs(connection, "state = 'queued' AND computer_id = $1", computer.to_string()).await?;
    end_open(connection, queued, JobState::Cancelled, (None, message), now_ns).await?;
    Ok(())
}

/// A plan's queued jobs are not begun any more.
pub(crate) async fn withdraw_plan_jobs(
    connection: &mut AnyConnection,
    plan: &PlanId,
    message: &str,
    now_ns: i64,
) -> Result<(), ControlError> {
    let queued = open_jobs(connection, "state = 'queued' AND plan_id = $1", plan.to_string()).await?;
    end_open(connection, queued, JobState::Cancelled, (None, message), now_ns).await?;
    Ok(())
}

async fn insert_order(
    connection: &mut AnyConnection,
    job: &Job,
    kind: OrderKind,
    body: &str,
    actor: &Actor,
    now_ns: i64,
) -> Result<(), ControlError> {
    sqlx::query(
        "INSERT INTO orders (id, computer_id, kind, job_id, body, state, created_by, created_ns, state_ns) \
         VALUES ($1, $2, $3, $4, $5, 'waiting', $6, $7, $7)",
    )
    .bind(OrderId::generate()?.to_string())
    .bind(job.computer.to_string())
    .bind(kind.as_str())
    .bind(job.id.to_string())
    .bind(body)
    .bind(&actor.name)
    .bind(now_ns)
    .execute(connection)
    .await?;
    Ok(())
}

impl Control {
    /// Where a job stands: with its user.
    pub async fn locate_job(&self, id: &JobId) -> Result<Option<Location>, ControlError> {
        let user: Option<String> = sqlx::query_scalar("SELECT user_id FROM jobs WHERE id = $1")
            .bind(id.to_string())
            .fetch_optional(&self.readers)
            .await?;
        self.locate_owned(user).await
    }

    /// One job. [`ControlError::NotFound`] also when the scope does not reach it.
    pub async fn job(&self, scope: &Scope, id: &JobId) -> Result<Job, ControlError> {
        let mut connection = self.readers.acquire().await?;
        job_in(&mut connection, scope, id).await
    }

    /// Queues a backup by a plan, for its agent to begin at once. [`ControlError::WrongState`] while a job of the plan is
    /// queued or running.
    pub async fn order_backup(
        &self,
        scope: &Scope,
        actor: &Actor,
        plan: &PlanId,
        now_ns: i64,
    ) -> Result<Job, ControlError> {
        let mut transaction = self.write().await?;
        let plan = plan_in(&mut transaction, scope, plan).await?;
        active_computer_in(&mut transaction, scope, &plan.computer).await?;
        if let Some(state) = open_job(&mut transaction, &plan.computer, &plan.id).await? {
            return Err(ControlError::wrong_state("plan", &plan.name, &format!("{state} already"), AFTER));
        }
        let queued = new_job(JobId::generate()?, &plan, (JobCause::Order, JobState::Queued), now_ns);
        insert(&mut transaction, &queued).await?;
        insert_order(&mut transaction, &queued, OrderKind::Start, "{}", actor, now_ns).await?;
        record(&mut transaction, actor, deed(&queued, "backup.start", None, JobState::Queued), now_ns).await?;
        transaction.commit().await?;
        Ok(queued)
    }

    /// Queues a restore on an active computer, for its agent to begin at once. `body` says what and where to.
    pub async fn order_restore(
        &self,
        scope: &Scope,
        actor: &Actor,
        computer: &ComputerId,
        body: &str,
        now_ns: i64,
    ) -> Result<Job, ControlError> {
        let mut transaction = self.write().await?;
        let computer = active_computer_in(&mut transaction, scope, computer).await?;
        let queued = Job {
            id: JobId::generate()?,
            tenant: computer.tenant,
            user: computer.user,
            computer: computer.id,
            plan: None,
            plan_revision: None,
            kind: JobKind::Restore,
            cause: JobCause::Order,
            state: JobState::Queued,
            error_code: None,
            message: None,
            slot_ns: None,
            created_ns: now_ns,
            started_ns: now_ns,
            ended_ns: None,
            heartbeat_ns: None,
            counts: JobCounts::default(),
            snapshot: None,
            log_kept: 0,
        };
        insert(&mut transaction, &queued).await?;
        insert_order(&mut transaction, &queued, OrderKind::Restore, body, actor, now_ns).await?;
        record(&mut transaction, actor, deed(&queued, "content.restore", None, JobState::Queued), now_ns).await?;
        transaction.commit().await?;
        Ok(queued)
    }

    /// Cancels a job: a queued one at once, a running one by an order to its agent. [`ControlError::WrongState`] when it
    /// has ended.
    pub async fn cancel_job(&self, scope: &Scope, actor: &Actor, id: &JobId, now_ns: i64) -> Result<Job, ControlError> {
        let mut transaction = self.write().await?;
        let found = job_in(&mut transaction, scope, id).await?;
        let found = match found.state {
            JobState::Queued => {
                let by = format!("cancelled by {}", actor.name);
                let moved = sqlx::query(
                    "UPDATE jobs SET state = 'cancelled', message = $1, ended_ns = $2 WHERE id = $3 AND state = 'queued'",
                )
                .bind(&by)
                .bind(now_ns)
                .bind(id.to_string())
                .execute(&mut *transaction)
                .await?;
                if moved.rows_affected() != 1 {
                    return Err(ControlError::wrong_state(
                        "job",
                        &id.to_string(),
                        "changing at this moment",
                        "try again",
                    ));
                }
                sqlx::query(
                    "UPDATE orders SET state = 'withdrawn', state_ns = $1 WHERE job_id = $2 \
                     AND state IN ('waiting', 'delivered')",
                )
                .bind(now_ns)
                .bind(id.to_string())
                .execute(&mut *transaction)
                .await?;
                Job { state: JobState::Cancelled, message: Some(by), ended_ns: Some(now_ns), ..found }
            }
            JobState::Running => {
                let asked: i64 = sqlx::query_scalar(
                    "SELECT COUNT(*) FROM orders WHERE computer_id = $1 AND job_id = $2 AND kind = 'cancel' \
                     AND state IN ('waiting', 'delivered')",
                )
                .bind(found.computer.to_string())
                .bind(id.to_string())
                .fetch_one(&mut *transaction)
                .await?;
                if asked == 0 {
                    insert_order(&mut transaction, &found, OrderKind::Cancel, "{}", actor, now_ns).await?;
                }
                found
            }
            ended => return Err(ControlError::wrong_state("job", &id.to_string(), ended.as_str(), OVER)),
        };
        record(&mut transaction, actor, deed(&found, "job.cancel", None, found.state), now_ns).await?;
        transaction.commit().await?;
        Ok(found)
    }
}

/// A backup by a plan, as of now.
pub(crate) fn new_job(id: JobId, plan: &Plan, (cause, state): (JobCause, JobState), now_ns: i64) -> Job {
    Job {
        id,
        tenant: plan.tenant,
        user: plan.user,
        computer: plan.computer,
        plan: Some(plan.id),
        plan_revision: Some(plan.revision),
        kind: JobKind::Backup,
        cause,
        state,
        error_code: None,
        message: None,
        slot_ns: None,
        created_ns: now_ns,
        started_ns: now_ns,
        ended_ns: None,
        heartbeat_ns: None,
        counts: JobCounts::default(),
        snapshot: None,
        log_kept: 0,
    }
}
