//! Backup plans.
//!
//! | call | right | body | answer |
//! |---|---|---|---|
//! | `GET /plans?computer=` | `plan.view` | - | a page of [`Plan`] |
//! | `POST /computers/{computer}/plans` | `plan.edit` | [`NewPlan`] | [`Plan`] |
//! | `GET /plans/{plan}` | `plan.view` | - | [`Plan`] |
//! | `PUT /plans/{plan}` | `plan.edit` | [`PlanBody`] | [`Plan`]: a new revision; a job that runs ends by the old one |
//! | `DELETE /plans/{plan}` | `plan.edit` | - | [`Plan`]; its jobs and snapshots stay |
//! | `POST /plans/{plan}/pause`, `/resume` | `plan.edit` | - | [`Plan`] |
//! | `GET /plans/{plan}/revisions` | `plan.view` | - | [`PlanRevisions`] |
//! | `POST /plans/{plan}/start` | `backup.start` | - | [`crate::jobs::Job`], queued |

use crate::retention::RetentionPolicy;
use schedule::Schedule;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Longest list of paths, patterns or words of a command.
pub const PLAN_LIST_MAX: usize = 256;
/// Longest text in a plan, bytes.
pub const PLAN_TEXT_BYTES_MAX: usize = 4096;
/// Longest time for a command before or after, seconds.
pub const COMMAND_SECONDS_MAX: u32 = 24 * 3600;

/// What a plan backs up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum PlanSource {
    /// Directories and files.
    Folders {
        /// Absolute paths.
        paths: Vec<String>,
        /// Patterns of what is left out.
        #[serde(default)]
        excludes: Vec<String>,
        /// Stay on the file systems of the paths.
        #[serde(default)]
        one_file_system: bool,
        /// Leave directories marked as caches (CACHEDIR.TAG) out.
        #[serde(default = "yes")]
        exclude_caches: bool,
    },
    /// What a command writes to its standard output. It must end well, or nothing is kept.
    Command {
        /// The program and its arguments; no shell is between.
        command: Vec<String>,
        /// Name of the file in the snapshot.
        file_name: String,
    },
    /// A PostgreSQL database, with the cluster's roles and settings beside it.
    Postgresql {
        /// The database.
        #[serde(flatten)]
        database: DatabaseLogin,
    },
    /// A MariaDB or MySQL database.
    Mariadb {
        /// The database.
        #[serde(flatten)]
        database: DatabaseLogin,
    },
    /// An SQLite database, as one consistent state.
    Sqlite {
        /// Absolute path of its file.
        path: String,
    },
}

const fn yes() -> bool {
    true
}

/// How the agent reaches a database. A password never stands here: it is read on the computer from a file that only its
/// owner may read.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DatabaseLogin {
    /// Its name.
    pub database: String,
    /// Host, or the directory of a socket; the program's own default when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// Port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// User of the database server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// Absolute path, on the computer, of a file that holds the password.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password_file: Option<String>,
    /// System account of the computer under which the dump runs; not together with a password file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub account: Option<String>,
}

/// What a failure of a command means for the backup.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum OnFailure {
    /// The job fails; a backup that has not begun does not begin.
    #[default]
    Fail,
    /// The job goes on, with a warning.
    Warn,
}

/// A command before or after the backup.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PlanCommand {
    /// The program and its arguments; no shell is between.
    pub command: Vec<String>,
    /// It is ended after this long, which is a failure.
    #[serde(default = "ten_minutes")]
    pub timeout_seconds: u32,
    /// What a failure means.
    #[serde(default)]
    pub on_failure: OnFailure,
}

const fn ten_minutes() -> u32 {
    600
}

/// What a plan says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PlanBody {
    /// What is backed up.
    pub source: PlanSource,
    /// When.
    pub schedule: Schedule,
    /// How long its snapshots are kept, by the server; for ever when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retention: Option<RetentionPolicy>,
    /// Bytes per second that it sends at most.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub upload_bytes_per_second: Option<u64>,
    /// Run before it; in their order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub before: Vec<PlanCommand>,
    /// Run after it, also after a backup that failed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub after: Vec<PlanCommand>,
}

/// Makes a plan.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct NewPlan {
    /// Name, and the series of its snapshots; it stays.
    pub name: String,
    /// What it says.
    #[serde(flatten)]
    pub body: PlanBody,
}

/// Whether a plan runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum PlanState {
    /// By its schedule.
    Enabled,
    /// Only when somebody starts it.
    Paused,
    /// No more.
    Deleted,
}

/// A plan.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Plan {
    /// Id.
    pub id: String,
    /// Id of its computer.
    pub computer: String,
    /// Id of its user.
    pub user: String,
    /// Name, and the series of its snapshots.
    pub name: String,
    /// Whether it runs.
    pub state: PlanState,
    /// Number of the current revision, from 1.
    pub revision: i64,
    /// When that was made, nanoseconds since 1970.
    pub revised_ns: i64,
    /// What it says.
    pub body: PlanBody,
    /// When it is to run next.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_ns: Option<i64>,
    /// When it was made.
    pub created_ns: i64,
}

/// One of them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PlanRevision {
    /// Number, from 1.
    pub revision: i64,
    /// What it said.
    pub body: PlanBody,
    /// Who made it.
    pub created_by: String,
    /// When, nanoseconds since 1970.
    pub created_ns: i64,
}

/// All revisions of a plan.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PlanRevisions {
    /// The newest first.
    pub revisions: Vec<PlanRevision>,
}
