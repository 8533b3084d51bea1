//! The Holdfast repository format: everything that must be readable in ten years without our server.
//!
//! Bytes in, bytes or values out: no I/O, no clock, no randomness, no async. `FORMAT.md` beside this crate gives every
//! byte and is changed in the same commit as the code. Modules in reading order:
#![forbid(unsafe_code)]

pub mod limits;
pub mod error;
pub mod id;
pub mod codec;
pub mod keys;
pub mod entry;
pub mod features;
pub mod compress;
pub mod crypto;
pub mod frame;
pub mod pack;
pub mod journal;
pub mod masterkey;
pub mod keyring;
pub mod chunker;
pub mod node;
mod tree;
pub mod filelist;
pub mod pathmap;

pub use error::FormatError;
