//! Snapshots and what is in them.
//!
//! | call | answer |
//! |---|---|
//! | `GET /vaults/{vault}/snapshots` | [`Snapshots`], oldest first |
//! | `GET /vaults/{vault}/snapshots/{snapshot}` | [`Snapshot`] |
//! | `GET /vaults/{vault}/snapshots/{snapshot}/entries?path=&after=&limit=` | [`Entries`], one folder, paged |
//! | `GET /vaults/{vault}/snapshots/{snapshot}/content?path=` | the file's bytes, `Range` honoured |
//!
//! `path` and names are percent-encoded bytes: names need not be UTF-8.

use crate::upload::RunSummary;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// A committed snapshot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Snapshot {
    /// Snapshot id, hexadecimal.
    pub id: String,
    /// Root node id, hexadecimal.
    pub root: String,
    /// Computer.
    pub computer: String,
    /// Series within the computer.
    pub series: String,
    /// Server's clock at commit, nanoseconds since 1970.
    pub committed_ns: i64,
    /// Sum of file sizes, bytes.
    pub logical_bytes: u64,
    /// What the agent counted.
    pub summary: RunSummary,
    /// Tags now; those of the upload until somebody changed them.
    #[serde(default)]
    pub tags: Vec<String>,
    /// Set while the snapshot is deleted and can be brought back; it is not read or built on meanwhile.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub deleted: Option<Deleted>,
    /// Nobody removes the snapshot before this, nanoseconds since 1970.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub hold_until_ns: Option<i64>,
}

/// A deletion that can be undone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Deleted {
    /// When, nanoseconds since 1970.
    pub deleted_ns: i64,
    /// Until when the snapshot can be brought back.
    pub until_ns: i64,
    /// Who asked, for people.
    pub by: String,
}

/// All snapshots of a vault.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Snapshots {
    /// Oldest first.
    pub snapshots: Vec<Snapshot>,
}

/// One page of a folder.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Entries {
    /// In name order.
    pub entries: Vec<EntryInfo>,
    /// Pass as `after` for the next page; absent on the last.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub next: Option<String>,
}

/// One entry of a folder.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct EntryInfo {
    /// Percent-encoded name.
    pub name: String,
    /// `file`, `directory`, `symlink`, `fifo`, `socket`, `char_device` or `block_device`.
    pub kind: String,
    /// Bytes of a regular file.
    pub size: u64,
    /// Permission bits.
    pub mode: u32,
    /// Modification time, nanoseconds since 1970 as a decimal string (may lie outside 64 bits).
    pub modified_ns: String,
}
