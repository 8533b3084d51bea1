//! The Holdfast repository format: everything that must be readable in ten years without our server.
//!
//! Bytes in, bytes or values out: no I/O, no clock, no randomness, no async. `FORMAT.md` beside this crate gives every
//! byte and is changed in the same commit as the code. Modules in reading order:
#![forbid(unsafe_code)]

pub mod chunker;
pub mod codec;
pub mod compress;
pub mod crypto;
pub mod deletion;
pub mod entry;
pub mod error;
pub mod features;
pub mod filelist;
pub mod frame;
pub mod id;
pub mod journal;
pub mod keyring;
pub mod keys;
pub mod limits;
pub mod masterkey;
pub mod node;
pub mod pack;
pub mod pathmap;
pub mod record;
mod tree;

pub use error::FormatError;
