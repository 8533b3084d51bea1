//! Why a run has no result.

use repo_format::FormatError;
use std::io;
use std::path::PathBuf;

/// Why a run has no result.
#[derive(Debug, thiserror::Error)]
pub enum BenchError {
    /// A file or process could not be used.
    #[error("{what}: {source}")]
    Io {
        /// What was tried.
        what: String,
        /// Why not.
        source: io::Error,
    },
    /// A tool failed; what it said is in the log.
    #[error("{tool} failed ({status}); it said:\n{output}")]
    Tool {
        /// Which command.
        tool: String,
        /// Exit code or signal.
        status: String,
        /// End of its output.
        output: String,
    },
    /// A server ended or said something unexpected before it was ready.
    #[error("{0} did not start")]
    NotReady(String),
    /// What was restored is not what was backed up.
    #[error("{tool}: the restored tree differs: {report}")]
    Unequal {
        /// Which tool.
        tool: &'static str,
        /// How.
        report: String,
    },
    /// The format refused something the floor made.
    #[error("floor: {0}")]
    Format(#[from] FormatError),
    /// Results could not be written.
    #[error("{path}: {source}")]
    Json {
        /// Where to.
        path: PathBuf,
        /// Why not.
        source: serde_json::Error,
    },
    /// The store or the format refused something synthetic.
    #[error("store: {0}")]
    Store(String),
    /// Anything else that makes the run meaningless.
    #[error("{0}")]
    Setup(String),
}

/// Adds what was tried to an I/O error.
pub trait Doing<T> {
    /// `what` is a short phrase such as a path or a command.
    fn doing(self, what: impl Into<String>) -> Result<T, BenchError>;
}

impl<T> Doing<T> for io::Result<T> {
    fn doing(self, what: impl Into<String>) -> Result<T, BenchError> {
        self.map_err(|source| BenchError::Io { what: what.into(), source })
    }
}
