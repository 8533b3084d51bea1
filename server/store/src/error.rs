//! What can go wrong in the engine, chosen by what the caller must do about it. No HTTP status here.

use crate::quota::{LimitId, QuotaKind};
use repo_format::FormatError;
use repo_format::id::{ObjectId, PackId, RestoreId, SnapshotId, UploadSessionId, VaultId};
use std::io;
use std::path::PathBuf;

/// An error of the engine.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The vault does not exist (or its keys are gone).
    #[error("vault {0} does not exist")]
    NoSuchVault(VaultId),
    /// The snapshot does not exist in this vault.
    #[error("snapshot {0} does not exist")]
    NoSuchSnapshot(SnapshotId),
    /// The snapshot is deleted: it can be brought back, but not be read or built on meanwhile.
    #[error("snapshot {snapshot} is deleted; undelete it to use it")]
    SnapshotDeleted {
        /// The snapshot.
        snapshot: SnapshotId,
        /// Until when it can be brought back, nanoseconds since 1970.
        until_ns: i64,
    },
    /// The snapshot is held: nobody removes it before the hold ends, or is lifted by someone with that right.
    #[error("snapshot {snapshot} is held")]
    Held {
        /// The snapshot.
        snapshot: SnapshotId,
        /// End of the hold, nanoseconds since 1970.
        until_ns: i64,
    },
    /// The server's clock has jumped: nothing expires and no hold ends until it is right again or confirmed.
    #[error(
        "the server's clock has jumped ({now_ns} ns where about {last_ns} ns was expected); set it right, or confirm it"
    )]
    ClockJumped {
        /// Where it should be, nanoseconds since 1970.
        last_ns: i64,
        /// Where it is.
        now_ns: i64,
    },
    /// The upload session does not exist, has ended or has expired: begin a new one.
    #[error("upload session {0} does not exist or has ended")]
    NoSuchSession(UploadSessionId),
    /// The restore does not exist, has ended or has expired: begin a new one.
    #[error("restore {0} does not exist or has ended")]
    NoSuchRestore(RestoreId),
    /// The object is not in this vault.
    #[error("object {0} is not in this vault")]
    NoSuchObject(ObjectId),
    /// Children are not stored: send them again, then the nodes.
    #[error("{} referenced objects are not stored", .0.len())]
    Missing(Vec<ObjectId>),
    /// What was received under another incarnation is forgotten: ask what is there and send the rest again.
    #[error("what was received before is no longer held; ask `have` and send it again")]
    IncarnationChanged {
        /// The one now in force.
        incarnation: u64,
    },
    /// The content does not have the id it was sent with; nothing was stored.
    #[error("object {0} was sent with content that has another id; nothing of it was stored")]
    IdMismatch(ObjectId),
    /// Compressed data does not unpack to the declared length.
    #[error("object {id}: {source}")]
    BadCompression {
        /// As sent.
        id: ObjectId,
        /// What the decompressor found.
        source: FormatError,
    },
    /// A node breaks a rule of the format.
    #[error("node {id}: {source}")]
    BadNode {
        /// As sent.
        id: ObjectId,
        /// The rule.
        source: FormatError,
    },
    /// A record's kind, codec or length cannot be.
    #[error("object {id}: {rule}")]
    BadRecord {
        /// As sent.
        id: ObjectId,
        /// The rule.
        rule: &'static str,
    },
    /// Committed before with another root.
    #[error("upload session {0} was committed with another root")]
    Conflict(UploadSessionId),
    /// The vault has been deleted, or is being deleted: nothing of it comes back.
    #[error("vault {0} has been deleted")]
    VaultDeleted(VaultId),
    /// The server's own disk is at its reserve: free space on the server, then go on.
    #[error(
        "the server's {volume} is full ({free} bytes free, {reserve} kept in reserve); free space on the server and try again"
    )]
    DiskFull {
        /// Which one.
        volume: Volume,
        /// Bytes free.
        free: u64,
        /// Bytes kept for deletes and the journal.
        reserve: u64,
    },
    /// A quota is reached: nothing of the request was stored. Free space, or have the limit raised.
    #[error(
        "the {kind} quota of {limit} is reached: {used} of {limit_bytes} bytes are used, {reserved} reserved, {requested} more are needed"
    )]
    QuotaExceeded {
        /// The limit that refuses.
        limit: LimitId,
        /// Which of its bytes.
        kind: QuotaKind,
        /// Bytes in the ledgers of its vaults.
        used: u64,
        /// Bytes promised to uploads under way, this one included.
        reserved: u64,
        /// What it allows, bytes.
        limit_bytes: u64,
        /// Bytes this request needs beyond what is reserved for it already.
        requested: u64,
    },
    /// A stored object is damaged.
    #[error("object {0} is damaged on the server's disk")]
    Damaged(ObjectId),
    /// Whether it happened is not known: ask again.
    #[error("it is not known whether this was stored ({0}); try again")]
    Unknown(&'static str),
    /// The vault cannot be used until someone acts.
    #[error("vault {vault} cannot be used: {reason}")]
    Unavailable {
        /// The vault.
        vault: VaultId,
        /// Why, and the way out.
        reason: String,
    },
    /// Files of the store contradict each other or cannot be read as what they are.
    #[error("{path}: {source}")]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: FormatError,
    },
    /// A pack named by the index is not on disk.
    #[error("pack {0} is missing")]
    PackMissing(PackId),
    /// The index could not be read or opened.
    #[error("index: {0}")]
    Index(String),
    /// The index holds bytes that are not what was written there.
    #[error("the index is damaged ({0}); stop the server and run `holdfastd rebuild-index`")]
    IndexDamaged(String),
    /// The index could not be written and is being opened again: ask again.
    #[error("the index failed and is opened again ({0}); try again")]
    IndexFailed(String),
    /// A file operation failed.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A structure the engine itself wrote cannot be read or written.
    #[error(transparent)]
    Format(#[from] FormatError),
    /// The system gave no randomness.
    #[error("no randomness: {0}")]
    Random(io::Error),
}

/// A volume of the server that can be full.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Volume {
    /// That of packs and journals; mostly of everything.
    Data,
    /// That of the index, where it has one of its own.
    Index,
}

impl std::fmt::Display for Volume {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Volume::Data => "disk",
            Volume::Index => "index disk",
        })
    }
}

/// Names the file of an I/O error.
pub(crate) trait At<T> {
    fn at(self, path: &std::path::Path) -> Result<T, StoreError>;
}

impl<T> At<T> for io::Result<T> {
    fn at(self, path: &std::path::Path) -> Result<T, StoreError> {
        self.map_err(|source| StoreError::Io { path: path.to_owned(), source })
    }
}

impl<T> At<T> for Result<T, FormatError> {
    fn at(self, path: &std::path::Path) -> Result<T, StoreError> {
        self.map_err(|source| StoreError::Corrupt { path: path.to_owned(), source })
    }
}
