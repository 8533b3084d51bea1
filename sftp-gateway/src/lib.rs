//! Files for people with SFTP clients: an SSH listener, our own SFTP engine, and the keys that are handed out.
//!
//! It knows nothing of where files come from or who may have them: the caller implements [`ExportFs`] and [`Accounts`],
//! and is told through [`Observer`] what happens.
//!
//! - [`sftp`] is the engine: bytes in, replies out, no SSH.
//! - `ssh` is the only module that names russh.
//! - [`keys`] makes host keys and customers' keys, and reads customers' own.

mod accounts;
mod exec;
pub mod fs;
mod gateway;
pub mod keys;
pub mod limits;
mod line;
mod observer;
pub mod path;
mod penalties;
pub mod sftp;
mod ssh;
#[cfg(feature = "testing")]
pub mod testing;

pub use accounts::{Account, Accounts, LogIn, LookUp, Refusal};
pub use fs::{Answer, Attributes, DigestKind, Entry, ExportFile, ExportFs, FsError, Kind, Owner, Space};
pub use gateway::{Gateway, GatewayConfig, GatewayStatus, Listener};
pub use observer::{EndReason, Event, LoginRefused, Observer, SessionInfo, TurnedAway};
pub use path::{ExportPath, PathError, printable};

#[cfg(all(feature = "testing", not(debug_assertions), not(test)))]
compile_error!("the feature `testing` serves folders for writing: it is for builds with debug assertions only");

#[cfg(panic = "abort")]
compile_error!("a panic in one connection must not end all of them: build with panic = \"unwind\"");
