//! What can go wrong in a use case, chosen by what the caller must do. `http/problem.rs` turns it into an answer.

use crate::app::quota::QuotaRefusal;
use control::ControlError;
use repo_format::id::ObjectId;

/// Why a use case failed. Texts go to the caller: they name the object and the way out, and hold no secret and
/// nothing of another tenant.
#[derive(Debug, thiserror::Error)]
pub enum AppError {
    /// No token, or none this server knows.
    #[error("a valid token is needed: send `Authorization: Bearer hf_…`")]
    Unauthorized,
    /// The token's time is over.
    #[error("the token has expired; ask the operator for a new one")]
    TokenExpired,
    /// The token lacks the right.
    #[error("this token may not do that: {needed} is needed")]
    Forbidden {
        /// Which right.
        needed: &'static str,
    },
    /// The right is there, but asks for a fresh factor.
    #[error("{verb} asks for a fresh log-in factor: confirm your password or code, then try again")]
    StepUpNeeded {
        /// Which verb.
        verb: &'static str,
    },
    /// Name, password or code is wrong, or there is no such account: which of them is not told.
    #[error("the log-in name, the password or the code is wrong")]
    WrongCredentials,
    /// The password is right; a code must come with it.
    #[error("a code of your second factor is needed as well: send it, or a recovery code, as `code`")]
    SecondFactorNeeded,
    /// The security policy asks for a second factor, and the caller has none.
    #[error("the security policy asks for a second factor: set one up (POST /profile/second-factor) to go on")]
    SecondFactorMissing,
    /// The login session was idle for too long, or has reached its end.
    #[error("the login session has ended; log in again")]
    LoginEnded,
    /// The caller comes from an address that the tenant does not trust.
    #[error("you may not come from this address: it is in none of the trusted networks of your tenant")]
    UntrustedNetwork,
    /// Too many wrong attempts.
    #[error("too many attempts; try again in {retry_after_s} seconds")]
    TooManyAttempts {
        /// When there may be another one, seconds.
        retry_after_s: u64,
    },
    /// No such thing, or not the caller's.
    #[error("there is no such {what}, or it is not yours")]
    NotFound {
        /// Kind of thing.
        what: &'static str,
    },
    /// The input breaks a rule.
    #[error("{0}")]
    Invalid(String),
    /// The thing is in a state that does not allow this.
    #[error("{0}")]
    WrongState(String),
    /// Days must pass before that may be asked for again.
    #[error("{text}")]
    TooEarly {
        /// For people.
        text: String,
        /// From when on, nanoseconds since 1970.
        next_allowed_ns: i64,
    },
    /// A name is taken, or the session was committed with another root.
    #[error("{0}")]
    Conflict(String),
    /// The licence does not go so far.
    #[error("{0}")]
    LicenceExceeded(String),
    /// More was to be given to a user than is free.
    #[error("{0}")]
    AllocationExceedsFree(Box<control::AllocationRefusal>),
    /// The state of a service, a user or a customer closes the vault; the way out.
    #[error("{0}")]
    ServiceRestricted(String),
    /// The snapshot is deleted, but can be brought back.
    #[error("{0}")]
    SnapshotDeleted(String),
    /// A hold keeps the snapshot.
    #[error("{0}")]
    SnapshotHeld(String),
    /// The clock has jumped: nothing expires until it is confirmed.
    #[error("{0}")]
    ClockJumped(String),
    /// Send these again, then the nodes.
    #[error("{} objects are not stored; send them again, then the nodes that refer to them", .0.len())]
    Missing(Vec<ObjectId>),
    /// What was received is forgotten.
    #[error("what was received before is no longer held; ask `have` and send it again")]
    IncarnationChanged,
    /// Content does not have its id.
    #[error("object {0} was sent with content that has another id; nothing of it was stored")]
    IdMismatch(ObjectId),
    /// Compressed data does not unpack to its declared length.
    #[error("{0}")]
    BadCompression(String),
    /// A node breaks a rule.
    #[error("{0}")]
    BadNode(String),
    /// The server's own disk is full.
    #[error("{0}")]
    DiskFull(String),
    /// A quota is reached.
    #[error("{0}")]
    QuotaExceeded(Box<QuotaRefusal>),
    /// A stored object is damaged.
    #[error("{0}")]
    Damaged(String),
    /// Unknown whether it happened, or busy, or shutting down.
    #[error("{0}")]
    Retry(String),
    /// The vault is deleted, or is being deleted.
    #[error("the vault has been deleted; ask the operator for another one")]
    VaultDeleted,
    /// The vault cannot be used until someone acts.
    #[error("{0}")]
    VaultUnavailable(String),
    /// A defect of the server or its surroundings; the text is for the log only.
    #[error("{0}")]
    Internal(String),
}

impl From<ControlError> for AppError {
    fn from(error: ControlError) -> Self {
        match error {
            ControlError::NotFound { .. } | ControlError::Invalid { .. } => AppError::Invalid(error.to_string()),
            ControlError::Exists { .. } | ControlError::MustStay(_) => AppError::Conflict(error.to_string()),
            ControlError::WrongState { .. } => AppError::WrongState(error.to_string()),
            ControlError::TooEarly { next_ns, .. } => {
                AppError::TooEarly { text: error.to_string(), next_allowed_ns: next_ns }
            }
            ControlError::LicenceExceeded(text) => AppError::LicenceExceeded(text),
            ControlError::AllocationExceedsFree(refusal) => AppError::AllocationExceedsFree(refusal),
            ControlError::Busy => AppError::Retry(error.to_string()),
            ControlError::Database(_)
            | ControlError::Migration(_)
            | ControlError::Corrupt { .. }
            | ControlError::InUse
            | ControlError::AuditBroken { .. }
            | ControlError::Random => AppError::Internal(error.to_string()),
        }
    }
}

/// As above, where the thing that is not there is the one that was asked for.
pub(crate) fn or_not_found(error: ControlError) -> AppError {
    match error {
        ControlError::NotFound { what, .. } => AppError::NotFound { what },
        other => other.into(),
    }
}
