//! What the agent of an enrolled computer says, with the computer's own credential. It keeps one request for orders open;
//! everything else it asks when it has a reason to.
//!
//! | call | body | answer |
//! |---|---|---|
//! | `POST /computer/hello` | [`Hello`] | [`Welcome`]: said at every start; what ran before runs no longer |
//! | `GET /computer/plans` | - | [`ComputerPlans`] |
//! | `GET /computer/orders?wait=&plans=` | - | [`Orders`]: at once when there are any or the plans have another version, else after at most `wait` seconds |
//! | `POST /computer/orders/{order}/received` | - | 204: the order is not given again |
//! | `POST /computer/jobs` | [`BeginJob`] | [`crate::jobs::Job`]; the same again answers the same |
//! | `PUT /computer/jobs/{job}` | [`crate::jobs::JobCounts`] | [`crate::jobs::Job`]: when it does not run any more, the agent stops |
//! | `POST /computer/jobs/{job}/log` | [`AppendLog`] | 204 |
//! | `POST /computer/jobs/{job}/end` | [`EndJob`] | [`crate::jobs::Job`] |

use crate::computers::{Computer, NewRestore};
use crate::jobs::{JobCause, JobCounts, JobState, LogLine};
use crate::plans::PlanBody;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Longest wait for orders, seconds.
pub const ORDERS_WAIT_SECONDS_MAX: u32 = 55;
/// Most lines of a log in one request.
pub const LOG_LINES_MAX: usize = 500;

/// Said at the agent's start.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
pub struct Hello {
    /// Operating system, for people.
    #[serde(default)]
    pub os: String,
    /// Version of the agent.
    #[serde(default)]
    pub agent_version: String,
}

/// Answered to it.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Welcome {
    /// The computer that the agent speaks for.
    pub computer: Computer,
    /// Its user's vault, hexadecimal.
    pub vault: String,
    /// A running job is spoken of at least this often; silent for three times as long it is lost.
    pub heartbeat_seconds: u32,
    /// The server's clock.
    pub now_ns: i64,
}

/// A plan as its agent needs to know it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ComputerPlan {
    /// Id.
    pub id: String,
    /// Name, and the series of its snapshots.
    pub name: String,
    /// Whether it runs by its schedule.
    pub enabled: bool,
    /// Number of this revision.
    pub revision: i64,
    /// Slots up to this moment are seen to, nanoseconds since 1970.
    pub seen_ns: i64,
    /// What it says.
    pub body: PlanBody,
}

/// A computer's own plans.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ComputerPlans {
    /// Rises with every change.
    pub version: i64,
    /// By name.
    pub plans: Vec<ComputerPlan>,
}

/// What to do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum OrderKind {
    /// Begin the backup that is queued.
    Start {
        /// Plan id.
        plan: String,
    },
    /// Stop the job that runs.
    Cancel,
    /// Begin the restore that is queued.
    Restore {
        /// What, and where to.
        restore: NewRestore,
    },
}

/// One thing to do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Order {
    /// Id.
    pub id: String,
    /// The job that is to be begun, or stopped.
    pub job: String,
    /// What to do.
    #[serde(flatten)]
    pub kind: OrderKind,
}

/// What waits for an agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Orders {
    /// The oldest first.
    pub orders: Vec<Order>,
    /// Version of the computer's plans.
    pub plans_version: i64,
    /// The server is going down: come back a little later, not all at once.
    #[serde(default)]
    pub going_down: bool,
}

/// Begins a job.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct BeginJob {
    /// Id: that of an order, or 32 random hexadecimal digits.
    pub id: String,
    /// Plan id, unless it was ordered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plan: Option<String>,
    /// Revision of the plan that the agent has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<i64>,
    /// What made it run.
    pub cause: JobCause,
    /// The moment of the schedule, nanoseconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slot_ns: Option<i64>,
}

/// Ends a job.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct EndJob {
    /// Succeeded, warning, failed or cancelled.
    pub state: JobState,
    /// Why it did not succeed, as a word.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error_code: Option<String>,
    /// The same for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// The snapshot that it made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snapshot: Option<String>,
    /// What it did.
    #[serde(default)]
    pub counts: JobCounts,
}

/// Appends to a job's log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AppendLog {
    /// At most 500; those that are there already change nothing.
    pub lines: Vec<LogLine>,
}
