//! Our SFTP version 3 engine. It knows nothing of SSH: bytes go in through an [`Inbox`], replies come out of an [`Engine`]
//! in the order of the requests, while their reads run side by side.

pub(crate) mod covered;
pub(crate) mod digest;
mod engine;
mod extensions;
mod inbox;
pub(crate) mod longname;
mod open;
mod queue;
pub(crate) mod wire;
#[cfg(feature = "testing")]
mod writing;

pub use digest::RunningDigests;
pub use engine::{Engine, EngineOptions, Sink, SinkClosed};
pub use inbox::Inbox;
pub(crate) use open::OpenFile;
pub use open::{FileClosed, FileReports};
pub use wire::WireError;

/// The parsers, for fuzzing: everything that is made of bytes from a client.
#[cfg(feature = "testing")]
pub mod parsers {
    pub use super::queue::RequestQueue;
    pub use super::wire::{FrameReader, Packet, Request};

    /// Whether there is a command for this command line.
    pub fn is_command(line: &[u8]) -> bool {
        crate::exec::Command::parse(line).is_some()
    }
}
