//! How one vault does: what it holds, what waits to be freed, what is wrong with it.
//!
//! | call | right | body | answer |
//! |---|---|---|---|
//! | `GET /vaults/{vault}` | any on the vault, operator | - | [`VaultStatus`] |
//! | `PUT /vaults/{vault}/undelete-days` | purge, operator | [`SetUndeleteDays`] | [`VaultStatus`] |
//! | `GET /clock` | operator | - | [`ClockStatus`] |
//! | `POST /clock/confirm` | operator | - | [`ClockStatus`]; retention goes on |

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// What can be done with a vault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum VaultState {
    /// Everything.
    Ready,
    /// Restores work, backups do not; `reason` says why and what to do.
    ReadOnly,
    /// Nothing; `reason` says why and what to do.
    Unavailable,
    /// Nothing: it is being deleted.
    Deleting,
}

/// How a vault does. Bytes and counts are exact at the moment of the answer.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct VaultStatus {
    /// Vault id, hexadecimal.
    pub id: String,
    /// Name.
    pub name: String,
    /// User as `CUSTOMER/USER`.
    pub user: String,
    /// What can be done with it.
    pub state: VaultState,
    /// Why it is not ready, and the way out.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub reason: Option<String>,
    /// Snapshots, deleted ones included.
    pub snapshots: u64,
    /// Of them: deleted, but not yet gone.
    pub deleted_snapshots: u64,
    /// Of them: under a hold that has not ended.
    pub held_snapshots: u64,
    /// Sum of file sizes over all snapshots, deleted ones included.
    pub logical_bytes: u64,
    /// The part of `logical_bytes` in deleted snapshots: held after deletion.
    pub deleted_logical_bytes: u64,
    /// Bytes in packs of all objects.
    pub physical_bytes: u64,
    /// The part of `physical_bytes` that nothing refers to any more: it is being reclaimed.
    pub pending_bytes: u64,
    /// Bytes of packs that hold nothing any more; compaction frees them.
    pub dead_bytes: u64,
    /// For how many days deleted snapshots can be brought back.
    pub undelete_days: u32,
    /// Objects found damaged and not yet healed.
    pub damaged_objects: u64,
    /// How far the verification of everything stored has come.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub scrub: Option<ScrubStatus>,
}

/// How far a cycle of verification has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ScrubStatus {
    /// Packs verified in the last 30 days.
    pub packs_verified: u64,
    /// Packs there are.
    pub packs: u64,
    /// Bytes verified in the last 30 days.
    pub bytes_verified: u64,
    /// Bytes there are.
    pub bytes: u64,
    /// When the pack was verified that was verified longest ago, nanoseconds since 1970; absent while one never was.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub oldest_verified_ns: Option<i64>,
}

/// For how many days deleted snapshots can be brought back.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, ToSchema)]
pub struct SetUndeleteDays {
    /// 0 to 999. Snapshots deleted before keep their date.
    pub days: u32,
}

/// The clock that retention runs on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ClockStatus {
    /// What the server takes for now, nanoseconds since 1970.
    pub now_ns: i64,
    /// Set after a jump that nothing explains: retention stands still until the clock is confirmed. The last time
    /// that was known to be right, nanoseconds since 1970.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub jumped_from_ns: Option<i64>,
}
