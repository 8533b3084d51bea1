//! What can go wrong, chosen by what the caller must do about it.

/// Why a control operation failed. Never carries a secret.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// There is no such thing.
    #[error("there is no {what} {name}")]
    NotFound {
        /// Kind of thing.
        what: &'static str,
        /// As asked for.
        name: String,
    },
    /// The name is taken.
    #[error("the {what} {name} exists already")]
    Exists {
        /// Kind of thing.
        what: &'static str,
        /// As asked for.
        name: String,
    },
    /// The input breaks a rule.
    #[error("{what}: {rule}")]
    Invalid {
        /// Kind of input.
        what: &'static str,
        /// The rule.
        rule: &'static str,
    },
    /// The thing is in a state that does not allow this.
    #[error("the {what} {name} is {state}; {needed}")]
    WrongState {
        /// Kind of thing.
        what: &'static str,
        /// Which.
        name: String,
        /// What it is.
        state: String,
        /// What it must be for this, and the way there.
        needed: &'static str,
    },
    /// Days must pass before that may be asked for again.
    #[error("another {what} may be asked for from {} UTC on", day(*.next_ns))]
    TooEarly {
        /// Kind of thing.
        what: &'static str,
        /// From when on, nanoseconds since 1970.
        next_ns: i64,
    },
    /// The licence does not go so far; the text names its limit.
    #[error("{0}")]
    LicenceExceeded(String),
    /// More was to be given away than is free.
    #[error("{0}")]
    AllocationExceedsFree(Box<crate::allocation::AllocationRefusal>),
    /// What must stay would be lost, such as the last administrator.
    #[error("{0}")]
    MustStay(&'static str),
    /// The database cannot be used; someone must act.
    #[error("the accounts database failed: {0}")]
    Database(#[from] sqlx::Error),
    /// The database was made by another build, or a migration failed.
    #[error("the accounts database cannot be brought to this build's version: {0}")]
    Migration(#[from] sqlx::migrate::MigrateError),
    /// A stored value is not what this crate writes.
    #[error("the accounts database holds an unreadable {what}")]
    Corrupt {
        /// Kind of value.
        what: &'static str,
    },
    /// Somebody reads for too long: try again.
    #[error("the accounts database is in use by another server; stop that one first")]
    InUse,
    /// The audit log was changed by something else.
    #[error("the audit log does not fit together at entry {sequence}: an entry was changed or removed")]
    AuditBroken {
        /// The first entry that does not fit.
        sequence: i64,
    },
    /// Readers would not let go of an old state.
    #[error("the accounts database is busy; try again")]
    Busy,
    /// The operating system gave no random bytes.
    #[error("no random bytes from the operating system")]
    Random,
}

/// A moment as people read it.
fn day(time_ns: i64) -> String {
    let time = jiff::Timestamp::from_nanosecond(i128::from(time_ns));
    time.map_or_else(|_| "?".to_owned(), |time| time.strftime("%Y-%m-%d %H:%M:%S").to_string())
}

impl ControlError {
    pub(crate) fn not_found(what: &'static str, name: &str) -> Self {
        ControlError::NotFound { what, name: name.to_owned() }
    }

    pub(crate) fn wrong_state(what: &'static str, name: &str, state: &str, needed: &'static str) -> Self {
        ControlError::WrongState { what, name: name.to_owned(), state: state.to_owned(), needed }
    }
}

/// A unique index refused an insertion: the name is taken.
pub(crate) fn exists(what: &'static str, name: &str, error: sqlx::Error) -> ControlError {
    match &error {
        sqlx::Error::Database(database) if database.is_unique_violation() => {
            ControlError::Exists { what, name: name.to_owned() }
        }
        _ => ControlError::Database(error),
    }
}
