//! Errors on the wire: RFC 9457 problem documents with stable codes.

use crate::quota::QuotaFigures;
use crate::services::AllocationRefusal;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// What went wrong, by what the caller must do. The `type` of a problem is `urn:holdfast:problem:<code>`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Code {
    /// 400: the request does not follow the protocol.
    BadRequest,
    /// 400: body ended early or a record has a wrong length.
    TruncatedBody,
    /// 401: no token, or one the server does not know.
    Unauthorized,
    /// 401: the token has expired.
    TokenExpired,
    /// 403: the token lacks the right.
    Forbidden,
    /// 403: the action asks for a fresh log-in factor.
    StepUpNeeded,
    /// 403: the state of the service, the user or the customer does not allow it; the detail names the way out.
    ServiceRestricted,
    /// 401: log-in name, password or code is wrong, or there is no such account.
    WrongCredentials,
    /// 401: the password is right; send a code of the second factor with it.
    SecondFactorNeeded,
    /// 403: the security policy asks for a second factor; set one up first.
    SecondFactorMissing,
    /// 401: the login session has ended; log in again.
    LoginEnded,
    /// 403: the tenant does not trust the address that the request comes from.
    UntrustedNetwork,
    /// 429: too many wrong attempts; `Retry-After` says when to try again.
    TooManyAttempts,
    /// 404: no such thing, or not yours.
    NotFound,
    /// 405: the path exists, not with this method.
    MethodNotAllowed,
    /// 409: children of a node are not stored; `missing` lists what to send again.
    MissingObjects,
    /// 409: what was received before is gone (server restarted); ask `have` and send again.
    IncarnationChanged,
    /// 409: another commit of this session has another root, or a name is taken.
    Conflict,
    /// 409: days must pass before that may be asked for again; `next_allowed_ns` says when.
    TooEarly,
    /// 409: the thing is in a state that does not allow this; the detail names both.
    WrongState,
    /// 409: the licence does not go so far; the detail names its limit.
    LicenceExceeded,
    /// 409: more was to be given to a user than is free.
    AllocationExceedsFree,
    /// 409: the snapshot is deleted; undelete it to use it.
    SnapshotDeleted,
    /// 409: a hold keeps the snapshot; it ends by itself, or is lifted by someone with the right `hold`.
    SnapshotHeld,
    /// 409: the server's clock has jumped; nothing expires until an operator has confirmed it.
    ClockJumped,
    /// 410: the vault has been deleted, or is being deleted.
    VaultDeleted,
    /// 413: the body or a record is larger than allowed.
    TooLarge,
    /// 413: a quota is reached.
    QuotaExceeded,
    /// 415: wrong media type.
    UnsupportedMediaType,
    /// 416: the range lies outside the content.
    RangeNotSatisfiable,
    /// 422: a chunk or node does not have the id it was sent with.
    IdMismatch,
    /// 422: compressed data does not unpack to its declared length.
    BadCompression,
    /// 422: a node breaks a rule of the format.
    BadNode,
    /// 426: protocol versions differ.
    UpgradeRequired,
    /// 500: a defect of the server; the id in `instance` finds it in its log.
    Internal,
    /// 503: unknown whether it happened, or shutting down; try again.
    Retry,
    /// 503: the vault cannot be used now; the detail says why.
    VaultUnavailable,
    /// 507: the server's own disk is full.
    ServerDiskFull,
    /// 500: a stored object is damaged.
    Damaged,
}

/// A problem document.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Problem {
    /// `urn:holdfast:problem:<code>`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Short text of the kind.
    pub title: String,
    /// HTTP status.
    pub status: u16,
    /// What happened here, naming the object and the way out.
    pub detail: String,
    /// Machine-readable kind.
    pub code: Code,
    /// Request id, also in the server's log.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub instance: Option<String>,
    /// With `missing_objects`: ids of what must be sent again.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub missing: Vec<String>,
    /// With `too_early`: from when on it may be asked for, nanoseconds since 1970.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub next_allowed_ns: Option<i64>,
    /// With `quota_exceeded`: its figures.
    #[serde(flatten)]
    pub quota: Option<QuotaFigures>,
    /// With `allocation_exceeds_free`: its figures.
    #[serde(flatten)]
    pub allocation: Option<AllocationRefusal>,
}
