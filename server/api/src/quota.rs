//! Quotas: how much may be stored, how much is.
//!
//! | call | right | body | answer |
//! |---|---|---|---|
//! | `GET /quotas` | operator | - | [`Quotas`]: every limit that is set |
//! | `GET /quotas/{limit}` | operator | - | [`Quota`] |
//! | `PUT /quotas/{limit}` | operator | [`QuotaLimits`] | [`Quota`] |
//! | `GET /vaults/{vault}/quotas` | backup or restore | - | [`Quotas`]: the limits under which the vault counts |
//! | `PUT /customers/{customer}/partner` | operator | [`SetPartner`] | [`SetPartner`] |
//!
//! A limit is named `vault:ID`, `user:CUSTOMER/USER`, `customer:NAME` or `partner:NAME`; in a path the slash is written
//! `%2F`. An upload that a quota refuses gets 413 `quota_exceeded` with [`QuotaFigures`], before its body is read where
//! the declared length alone says that it cannot fit.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Which bytes a limit counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum QuotaKind {
    /// As stored: deduplicated, compressed, sealed.
    Physical,
    /// File sizes summed over all snapshots.
    Logical,
}

/// What a limit allows; absent is without bound. Soft limits only give notice. A body sets all four at once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct QuotaLimits {
    /// Notice above this many stored bytes.
    #[serde(default)]
    pub physical_soft_bytes: Option<u64>,
    /// Most stored bytes.
    #[serde(default)]
    pub physical_hard_bytes: Option<u64>,
    /// Notice above this many bytes of files.
    #[serde(default)]
    pub logical_soft_bytes: Option<u64>,
    /// Most bytes of files.
    #[serde(default)]
    pub logical_hard_bytes: Option<u64>,
}

/// A limit and where it stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Quota {
    /// Name of the limit.
    pub limit: String,
    /// What it allows.
    pub limits: QuotaLimits,
    /// Stored bytes of all its vaults.
    pub used_physical_bytes: u64,
    /// Stored bytes promised to uploads under way.
    pub reserved_physical_bytes: u64,
    /// Bytes of files over all snapshots of all its vaults.
    pub used_logical_bytes: u64,
    /// Bytes of files of snapshots under way.
    pub reserved_logical_bytes: u64,
    /// More is used than a soft limit.
    pub soft_exceeded: bool,
}

/// Several limits.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Quotas {
    /// Every limit, in the order of the call.
    pub quotas: Vec<Quota>,
}

/// Names the partner that brought a customer.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SetPartner {
    /// Absent: nobody.
    #[serde(default)]
    pub partner: Option<String>,
}

/// A soft limit that is passed: the upload went on, someone should know.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct QuotaNotice {
    /// Name of the limit.
    pub limit: String,
    /// Which of its bytes.
    pub kind: QuotaKind,
    /// Bytes used.
    pub used_bytes: u64,
    /// Above which notice is given.
    pub soft_bytes: u64,
    /// Above which uploads are refused; absent: never.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub hard_bytes: Option<u64>,
}

/// The figures of a refusal, beside the other members of its problem document.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct QuotaFigures {
    /// Name of the limit that refuses.
    pub limit: String,
    /// Which of its bytes.
    pub kind: QuotaKind,
    /// What it allows.
    pub limit_bytes: u64,
    /// Bytes used.
    pub used_bytes: u64,
    /// Bytes promised to uploads under way, this one included.
    pub reserved_bytes: u64,
    /// Bytes the request needs beyond that; zero for an upload that may not begin.
    pub requested_bytes: u64,
    /// What helps.
    pub help: String,
}
