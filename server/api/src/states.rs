//! What happens to a snapshot after its commit, and what keeps it while it is read.
//!
//! | call | right | body | answer |
//! |---|---|---|---|
//! | `DELETE /vaults/{vault}/snapshots/{snapshot}` | delete | - | [`Snapshot`]; it can be brought back for the vault's undelete days |
//! | `POST /vaults/{vault}/snapshots/{snapshot}/undelete` | delete | - | [`Snapshot`] |
//! | `POST /vaults/{vault}/snapshots/{snapshot}/purge` | purge | - | 204: gone for good, its space comes back soon |
//! | `PUT /vaults/{vault}/snapshots/{snapshot}/hold` | backup, delete or hold to set and extend; hold to shorten and lift | [`SetHold`] | [`Snapshot`] |
//! | `PUT /vaults/{vault}/snapshots/{snapshot}/tags` | backup, delete or hold to add; delete to take away | [`SetTags`] | [`Snapshot`] |
//! | `POST /vaults/{vault}/restores` | restore | [`BeginRestore`] | [`RestoreHold`] |
//! | `PUT /vaults/{vault}/restores/{restore}` | restore | - | 204: the restore goes on |
//! | `DELETE /vaults/{vault}/restores/{restore}` | restore | - | 204: it is over |
//!
//! Operators may do everything in this table but restore. All calls may be repeated.
//!
//! [`Snapshot`]: crate::browse::Snapshot

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Sets, moves or lifts a snapshot's hold.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, ToSchema)]
pub struct SetHold {
    /// Nobody removes the snapshot before this, nanoseconds since 1970; null lifts the hold.
    pub until_ns: Option<i64>,
}

/// Replaces a snapshot's tags.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct SetTags {
    /// All of them, at most 64 of 1 to 256 bytes.
    pub tags: Vec<String>,
}

/// Keeps everything in a snapshot while it is read, whatever is deleted meanwhile.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct BeginRestore {
    /// Snapshot id, hexadecimal.
    pub snapshot: String,
}

/// A restore that keeps what it reads. It ends by itself after a day without a sign of life.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct RestoreHold {
    /// Restore id, hexadecimal.
    pub id: String,
}
