//! Jobs, and their logs.
//!
//! | call | right | body | answer |
//! |---|---|---|---|
//! | `GET /jobs?state=&tenant=&user=&computer=&plan=&kind=&from_ns=&to_ns=&sort=&ascending=` | `job.view` | - | a page of [`ListedJob`] |
//! | `GET /job-logs?words=` and the filters of a list | `job.view` | - | a page of [`FoundLog`] |
//! | `GET /jobs/{job}` | `job.view` | - | [`Job`] |
//! | `GET /jobs/{job}/log?after=&limit=` | `job.view` | - | a page of [`LogLine`] |
//! | `POST /jobs/{job}/cancel` | `job.cancel` | - | [`Job`]: cancelled, or running until its agent has stopped it |

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// What a job does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum JobKind {
    /// Backs up by a plan.
    Backup,
    /// Brings something back.
    Restore,
}

/// What made it run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum JobCause {
    /// The plan's schedule, at its time.
    Schedule,
    /// The plan's schedule, later, because the computer slept or was off.
    CatchUp,
    /// Somebody.
    Order,
}

/// Where a job is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
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

/// What a job has done so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct JobCounts {
    /// Files.
    #[serde(default)]
    pub files: u64,
    /// Bytes of files looked at or written.
    #[serde(default)]
    pub bytes_done: u64,
    /// Of how many, when that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes_total: Option<u64>,
    /// Bytes that are new on the server.
    #[serde(default)]
    pub bytes_added: u64,
    /// Files that could not be read or written.
    #[serde(default)]
    pub warnings: u64,
}

/// A job.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Job {
    /// Id.
    pub id: String,
    /// Id of its computer.
    pub computer: String,
    /// Id of its user.
    pub user: String,
    /// Id of its plan; absent for a restore.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plan: Option<String>,
    /// By which revision of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plan_revision: Option<i64>,
    /// What it does.
    pub kind: JobKind,
    /// What made it run.
    pub cause: JobCause,
    /// Where it is in its life.
    pub state: JobState,
    /// Why it did not succeed, as a word: `lost` when its agent fell silent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error_code: Option<String>,
    /// The same for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// The moment of the schedule that it runs for, nanoseconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slot_ns: Option<i64>,
    /// When it was made.
    pub created_ns: i64,
    /// When it began; until then when it was made, and of a missed one when it should have.
    pub started_ns: i64,
    /// When it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended_ns: Option<i64>,
    /// When its agent last spoke of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub heartbeat_ns: Option<i64>,
    /// What it has done.
    pub counts: JobCounts,
    /// The snapshot that it made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snapshot: Option<String>,
    /// Lines of its log that are kept.
    pub log_lines: i64,
}

/// How much a line matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum LogLevel {
    /// It tells what happens.
    Info,
    /// Something is left out.
    Warning,
    /// The job fails because of it.
    Error,
}

/// A line of a job's log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LogLine {
    /// Its number within the job, from 0.
    pub line: i64,
    /// The agent's clock, nanoseconds since 1970.
    pub at_ns: i64,
    /// How much it matters.
    pub level: LogLevel,
    /// The text, at most 2,000 bytes.
    pub text: String,
}

/// In which order jobs are listed; the newest or worst first, unless it is asked for otherwise.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum JobSort {
    /// By start.
    #[default]
    Start,
    /// By end; what runs counts as ending last.
    End,
    /// By state (failed, missed, warning, running, queued, cancelled, succeeded), then by start.
    State,
}

/// A job with the names that a list shows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ListedJob {
    /// The job.
    #[serde(flatten)]
    pub job: Job,
    /// Its computer's name.
    pub computer_name: String,
    /// Its plan's name; absent for a restore.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plan_name: Option<String>,
    /// Its user's name.
    pub user_name: String,
    /// Id of its tenant.
    pub tenant: String,
    /// Title of its tenant.
    pub tenant_title: String,
}

/// A job whose log has the words that were searched for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct FoundLog {
    /// The job.
    pub job: ListedJob,
    /// The first lines of its log with any of the words.
    pub lines: Vec<LogLine>,
}
