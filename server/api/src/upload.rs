//! Upload sessions: begin, have, chunks, nodes, flush, commit.
//!
//! | call | body | answer |
//! |---|---|---|
//! | `POST /vaults/{vault}/uploads` | [`BeginUpload`] | [`UploadSession`] |
//! | `GET  /vaults/{vault}/uploads/{session}` | - | [`UploadSession`] |
//! | `POST /vaults/{vault}/uploads/{session}/have` | binary: ids, 32 bytes each, at most [`HAVE_IDS_MAX`] | binary: one byte per id, 1 = present; header [`INCARNATION_HEADER`] |
//! | `POST /vaults/{vault}/uploads/{session}/chunks` | binary: records ([`crate::objects`]) | [`Received`] |
//! | `POST /vaults/{vault}/uploads/{session}/nodes` | binary: records, children before parents | [`Durable`]; 409 `missing_objects` |
//! | `POST /vaults/{vault}/uploads/{session}/flush` | [`Flush`] | [`Durable`]; 409 `incarnation_changed` |
//! | `POST /vaults/{vault}/uploads/{session}/commit` | [`Commit`] | [`crate::browse::Snapshot`] |
//! | `DELETE /vaults/{vault}/uploads/{session}` | - | 204 |

use crate::quota::QuotaNotice;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Most ids in one `have`.
pub const HAVE_IDS_MAX: usize = 4096;
/// Largest body of `chunks` and `nodes`, bytes.
pub const UPLOAD_BODY_BYTES_MAX: usize = 32 << 20;
/// Carries [`Received::incarnation`] in answers to `have`.
pub const INCARNATION_HEADER: &str = "holdfast-incarnation";

/// Starts an upload session.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct BeginUpload {
    /// Name of the computer.
    pub computer: String,
    /// Series within the computer: `--name`, or the sorted absolute paths, or the stdin name.
    pub series: String,
    /// Snapshot whose objects stay available while the session lives.
    #[serde(default)]
    pub base_snapshot: Option<String>,
}

/// A live upload session.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct UploadSession {
    /// Upload session id, hexadecimal.
    pub id: String,
    /// Opaque; changes whenever what was received but not yet durable has been forgotten.
    pub incarnation: u64,
    /// Damaged objects reachable from the base snapshot, as ids; empty in a sound vault.
    #[serde(default)]
    pub base_damaged: Vec<String>,
    /// Soft limits that are passed.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub notices: Vec<QuotaNotice>,
}

/// Answer to `chunks`: received, not durable.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Received {
    /// See [`UploadSession::incarnation`].
    pub incarnation: u64,
    /// Chunks new to the vault.
    pub new_objects: u64,
    /// Bytes they take in packs.
    pub stored_bytes: u64,
}

/// Makes everything received under `incarnation` durable.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Flush {
    /// Under which the caller's chunks were received.
    pub incarnation: u64,
}

/// Answer to `nodes` and `flush`: everything received by this vault before is on disk.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Durable {
    /// See [`UploadSession::incarnation`].
    pub incarnation: u64,
    /// Nodes new to the vault.
    pub new_objects: u64,
    /// Bytes they take in packs.
    pub stored_bytes: u64,
    /// Soft limits that are passed.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub notices: Vec<QuotaNotice>,
}

/// Commits a root as a snapshot. Idempotent by session: the same root again answers the same snapshot.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Commit {
    /// Root node id, hexadecimal.
    pub root: String,
    /// What the agent says about the run; the server adds times and sizes of its own.
    pub summary: RunSummary,
}

/// What a run did, as the agent counted it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RunSummary {
    /// Absolute paths or the stdin name, as given (lossy UTF-8 for people; the path map has the bytes).
    pub paths: Vec<String>,
    /// Tags.
    #[serde(default)]
    pub tags: Vec<String>,
    /// Agent's clock when the run began, nanoseconds since 1970.
    pub started_ns: i64,
    /// Regular files.
    pub files: u64,
    /// Directories.
    pub directories: u64,
    /// Everything else (links, devices, fifos, sockets).
    pub others: u64,
    /// Files read in this run.
    pub files_read: u64,
    /// Bytes read in this run.
    pub bytes_read: u64,
    /// Bytes of new objects as stored by this run.
    pub bytes_added: u64,
    /// Paths that could not be read or changed while read; above zero the snapshot is complete with warnings.
    pub warnings: u64,
}
