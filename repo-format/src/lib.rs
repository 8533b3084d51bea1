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

pub use error::FormatError;
