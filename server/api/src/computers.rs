//! Computers, and how they are enrolled.
//!
//! | call | right | body | answer |
//! |---|---|---|---|
//! | `POST /users/{user}/enrolments` | `computer.add`; to take a place `computer.replace`, with step-up | [`NewEnrolment`] | [`Enrolment`], good for ten minutes, once |
//! | `POST /enrol` | the enrolment | [`Enrol`] | [`Enrolled`]: the computer's own credential |
//! | `GET /computers?user=` | `computer.view` | - | a page of [`Computer`] |
//! | `GET /computers/{computer}` | `computer.view` | - | [`Computer`] |
//! | `DELETE /computers/{computer}` | `computer.retire` | - | [`Computer`]; its credential is dead, its snapshots stay |
//! | `POST /computers/{computer}/start` | `backup.start` | - | [`Started`]: all enabled plans, now |
//! | `POST /computers/{computer}/restores` | `content.restore` | [`NewRestore`] | [`crate::jobs::Job`], queued |
//!
//! A computer's credential backs up to and restores from its user's vault, and speaks for its own plans, jobs and orders
//! ([`crate::agents`]); it may nothing else.

use crate::jobs::Job;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Asks for an enrolment.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
pub struct NewEnrolment {
    /// Id of a computer whose place is taken: its name, plans and history go on, its old credential dies.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replaces: Option<String>,
}

/// Makes one computer.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Enrolment {
    /// Id.
    pub id: String,
    /// The token `hfe_…`; it is in this answer and nowhere else.
    pub token: String,
    /// Good until then, nanoseconds since 1970.
    pub expires_ns: i64,
    /// Where the agent finds the server.
    pub url: String,
}

/// An agent that wants to be a computer.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Enrol {
    /// The enrolment's token.
    pub token: String,
    /// The computer's name among its user's; not used when a place is taken.
    pub name: String,
    /// Id or name of the computer whose place is taken; must be the one that the enrolment was made for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replaces: Option<String>,
    /// Operating system, for people.
    #[serde(default)]
    pub os: String,
    /// Version of the agent.
    #[serde(default)]
    pub agent_version: String,
}

/// A computer with the credential that speaks for it.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Enrolled {
    /// The computer.
    pub computer: Computer,
    /// The credential `hfc_…`; it is in this answer and nowhere else.
    pub credential: String,
    /// Its user, `CUSTOMER/USER`.
    pub user: String,
    /// Its user's vault, hexadecimal.
    pub vault: String,
}

/// Whether a computer counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ComputerState {
    /// It does.
    Active,
    /// Its credential is dead; its snapshots stay.
    Retired,
}

/// A computer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Computer {
    /// Id.
    pub id: String,
    /// Id of its user.
    pub user: String,
    /// Its name, also in its snapshots.
    pub name: String,
    /// Whether it counts.
    pub state: ComputerState,
    /// Operating system, as its agent says.
    pub os: String,
    /// Version of its agent.
    pub agent_version: String,
    /// When its credential was made, nanoseconds since 1970.
    pub credential_ns: i64,
    /// When its agent was last heard of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seen_ns: Option<i64>,
    /// Whether its agent waits for orders at this moment.
    pub online: bool,
    /// When it was enrolled.
    pub created_ns: i64,
}

/// What is done where something is in the way of a restore.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum OnConflict {
    /// Nothing is written at all.
    #[default]
    Stop,
    /// What is there stays.
    Skip,
    /// It is replaced when it is older.
    Newer,
    /// It is replaced.
    Overwrite,
    /// Both stay.
    KeepBoth,
}

/// Orders a restore on a computer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct NewRestore {
    /// Snapshot id, of the same user; it may be of another computer.
    pub snapshot: String,
    /// Absolute paths in the snapshot; everything when empty.
    #[serde(default)]
    pub paths: Vec<String>,
    /// Absolute path of the directory below which it is written.
    pub target: String,
    /// What is done where something is in the way.
    #[serde(default)]
    pub on_conflict: OnConflict,
}

/// What became of a plan that was to be started.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct StartedPlan {
    /// Plan id.
    pub plan: String,
    /// Its name.
    pub name: String,
    /// The job that was queued.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job: Option<Job>,
    /// Why none was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub skipped: Option<String>,
}

/// What became of each enabled plan.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Started {
    /// By name.
    pub plans: Vec<StartedPlan>,
}
