//! What a vault keeps and what expires, with the plan before the deed.
//!
//! | call | right | body | answer |
//! |---|---|---|---|
//! | `GET /vaults/{vault}/retention` | any on the vault, operator | - | [`Retention`] |
//! | `PUT /vaults/{vault}/retention` | purge, operator | [`SetRetention`] | [`Retention`] |
//! | `POST /vaults/{vault}/retention/plan` | any on the vault, operator | [`PlanRequest`] | [`RetentionPlan`]; nothing is changed |
//! | `POST /vaults/{vault}/retention/run` | purge, operator | - | [`RetentionRun`]; what expires is gone for good |
//!
//! The newest complete snapshot of a series, and the newest one complete without warnings, never expire.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// How many snapshots of each series stay. A snapshot stays when any rule keeps it; a policy in which every rule is
/// zero or empty is refused.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RetentionPolicy {
    /// The newest ones.
    #[serde(default)]
    pub keep_last: u32,
    /// The newest of each of so many hours that have one.
    #[serde(default)]
    pub keep_hourly: u32,
    /// The same by days.
    #[serde(default)]
    pub keep_daily: u32,
    /// The same by ISO weeks, which begin on Monday.
    #[serde(default)]
    pub keep_weekly: u32,
    /// The same by months.
    #[serde(default)]
    pub keep_monthly: u32,
    /// The same by years.
    #[serde(default)]
    pub keep_yearly: u32,
    /// Everything not older than this, seconds.
    #[serde(default)]
    pub keep_within_seconds: u64,
    /// Everything with one of these tags.
    #[serde(default)]
    pub keep_tags: Vec<String>,
    /// In which hours, days, weeks, months and years are told: a name of the IANA database; `UTC` when absent.
    #[serde(default = "utc")]
    pub time_zone: String,
}

fn utc() -> String {
    "UTC".into()
}

/// Snapshots of one computer under one name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Series {
    /// Computer.
    pub computer: String,
    /// Series within the computer.
    pub series: String,
}

/// A policy and what it is for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct StoredPolicy {
    /// Absent: every series of the vault that has no policy of its own.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub series: Option<Series>,
    /// The policy.
    pub policy: RetentionPolicy,
    /// When it was set, nanoseconds since 1970.
    pub changed_ns: i64,
}

/// What a vault keeps.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Retention {
    /// The vault's own first. A series without any keeps everything.
    pub policies: Vec<StoredPolicy>,
    /// For how many days deleted snapshots can be brought back. Retention does not delete: what expires is gone.
    pub undelete_days: u32,
}

/// Sets or removes one policy.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SetRetention {
    /// Absent: for every series without a policy of its own.
    #[serde(default)]
    pub series: Option<Series>,
    /// Null removes the policy.
    pub policy: Option<RetentionPolicy>,
}

/// Asks what would expire now.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PlanRequest {
    /// A policy to try on every series; absent: the vault's stored ones.
    #[serde(default)]
    pub policy: Option<RetentionPolicy>,
    /// Only snapshots of this computer.
    #[serde(default)]
    pub computer: Option<String>,
    /// Only snapshots of this series.
    #[serde(default)]
    pub series: Option<String>,
    /// Only snapshots with this tag.
    #[serde(default)]
    pub tag: Option<String>,
}

/// What becomes of a snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// It stays.
    Keep,
    /// It goes.
    Expire,
    /// It would go, but a hold keeps it.
    Held,
}

/// One snapshot in a plan.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PlanItem {
    /// Snapshot id, hexadecimal.
    pub snapshot: String,
    /// Computer.
    pub computer: String,
    /// Series within the computer.
    pub series: String,
    /// Server's clock at commit, nanoseconds since 1970.
    pub committed_ns: i64,
    /// Sum of file sizes, bytes.
    pub logical_bytes: u64,
    /// What becomes of it.
    pub action: Action,
    /// Why it stays, in words.
    pub reasons: Vec<String>,
}

/// What retention would do now, series by series, newest snapshots first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RetentionPlan {
    /// The moment it was made for, nanoseconds since 1970.
    pub now_ns: i64,
    /// Every snapshot but deleted ones; without a policy for its series a snapshot stays.
    pub items: Vec<PlanItem>,
}

/// What a run did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RetentionRun {
    /// What was planned.
    pub plan: RetentionPlan,
    /// Snapshots that are gone.
    pub expired: u64,
}
