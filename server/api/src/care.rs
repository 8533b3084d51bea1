//! What disks do to stored bytes: what is damaged, verification on request, counting again.
//!
//! | call | right | body | answer |
//! |---|---|---|---|
//! | `GET /vaults/{vault}/damage` | any on the vault, operator | - | [`Damage`] |
//! | `POST /vaults/{vault}/scrub` | operator | [`ScrubRequest`] | [`Scrubbed`]; repeated until `done` |
//! | `POST /vaults/{vault}/audit` | operator | [`AuditRequest`] | [`Audited`], when it is finished |

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Damaged objects, and what they reach.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Damage {
    /// How many objects are damaged.
    pub objects: u64,
    /// Snapshots that cannot be restored whole, oldest first.
    pub snapshots: Vec<DamagedSnapshot>,
    /// Something was left out.
    pub truncated: bool,
}

/// What is damaged of one snapshot.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct DamagedSnapshot {
    /// Snapshot id, hexadecimal.
    pub snapshot: String,
    /// In path order.
    pub paths: Vec<DamagedPath>,
    /// There are more.
    pub truncated: bool,
}

/// A path and what is damaged there.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct DamagedPath {
    /// Percent-encoded path.
    pub path: String,
    /// In words.
    pub what: String,
}

/// Verifies a part of what was last verified before a time.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, ToSchema)]
pub struct ScrubRequest {
    /// Nanoseconds since 1970.
    pub before_ns: i64,
}

/// What one part of a verification found.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, ToSchema)]
pub struct Scrubbed {
    /// Bytes read.
    pub bytes: u64,
    /// Packs verified to their end.
    pub packs: u64,
    /// Objects newly found damaged.
    pub objects_damaged: u64,
    /// Packs whose own index is damaged; they are rewritten by themselves.
    pub packs_damaged: u64,
    /// Packs that are not on the disk.
    pub packs_missing: u64,
    /// Nothing is left that was last verified before the time asked for.
    pub done: bool,
}

/// Counts again.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, ToSchema)]
pub struct AuditRequest {
    /// Correct everything; without it only counts that are too low, which alone could cost data.
    #[serde(default)]
    pub repair: bool,
}

/// What an audit found. All but the first three are zero in a sound vault.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Audited {
    /// Objects counted.
    pub objects: u64,
    /// Nodes read.
    pub nodes: u64,
    /// References counted.
    pub references: u64,
    /// Objects whose count was too low: corrected.
    pub too_low: u64,
    /// Objects whose count is too high: their space does not come back until they are corrected.
    pub too_high: u64,
    /// Objects that something refers to and that are gone: shown as damaged, healed by the next backup that has them.
    pub missing: u64,
    /// Nodes that cannot be read.
    pub unreadable_nodes: u64,
    /// Byte counts that differ from what they count.
    pub miscounted: u64,
    /// Differences in words, at most a hundred.
    pub lines: Vec<String>,
}
