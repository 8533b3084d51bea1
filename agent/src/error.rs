//! Why a command fails, chosen by what the person must do about it, and which exit code that is.

use crate::client::ClientError;
use api::problem::Code;
use repo_format::FormatError;
use std::path::{Path, PathBuf};

/// Exit code of a command that did everything.
pub const EXIT_COMPLETE: u8 = 0;
/// Exit code of a command that could not do any of it.
pub const EXIT_FAILED: u8 = 1;
/// Exit code of the service when its computer's credential is dead: starting it again does not help.
pub const EXIT_NOT_ENROLLED: u8 = 4;
/// Exit code of a run that finished, but for files it names as warnings.
pub const EXIT_WARNINGS: u8 = 3;

/// The error of a whole command. Single unreadable files are warnings, never this.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// The call must be changed; the text says how.
    #[error("{0}")]
    Usage(String),
    /// Nobody is logged in.
    #[error("not logged in (no {0}); run `holdfast login URL` first")]
    NotLoggedIn(PathBuf),
    /// A local file or directory could not be used.
    #[error("{path}: {source}")]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A local file of ours holds something else than it should.
    #[error("{path}: {detail}")]
    BadFile {
        /// Which.
        path: PathBuf,
        /// What is wrong with it.
        detail: String,
    },
    /// The server refused, is away, or answers something else than the protocol.
    #[error(transparent)]
    Server(ClientError),
    /// Bytes from the server or the disk break the format.
    #[error(transparent)]
    Format(#[from] FormatError),
    /// An object that a snapshot needs cannot be delivered.
    #[error("{kind} {id} is {state} on the server")]
    ObjectUnavailable {
        /// `node` or `chunk`.
        kind: &'static str,
        /// Its id.
        id: String,
        /// `missing` or `damaged`.
        state: &'static str,
    },
    /// The server lost what it had confirmed; the run must start again.
    #[error("the server no longer has {count} objects it had confirmed (first: {first}); run the backup again")]
    LostObjects {
        /// How many.
        count: usize,
        /// The first of them.
        first: String,
    },
    /// A command whose output was to be backed up failed: nothing was committed.
    #[error("the command failed ({0}); nothing was committed")]
    CommandFailed(String),
    /// A command before the backup failed: it did not begin.
    #[error("a command before the backup failed ({0}); nothing was backed up")]
    CommandBefore(String),
    /// A command after the backup failed: the backup itself is complete.
    #[error("a command after the backup failed ({0}); the backup itself is complete")]
    CommandAfter(String),
    /// Another part of the same run failed first, or the person stopped it.
    #[error("stopped")]
    Stopped,
}

impl From<ClientError> for AgentError {
    fn from(error: ClientError) -> Self {
        match error {
            ClientError::Stopped => AgentError::Stopped,
            other => AgentError::Server(other),
        }
    }
}

impl AgentError {
    /// The server's code, when it refused.
    pub fn code(&self) -> Option<Code> {
        match self {
            AgentError::Server(error) => error.code(),
            _ => None,
        }
    }

    /// A failure of `path`.
    pub fn file(path: impl AsRef<Path>, source: std::io::Error) -> Self {
        AgentError::File { path: path.as_ref().to_path_buf(), source }
    }
}
