//! Streams as they are read: anything readable, or the output of a program.

use super::StreamInput;
use crate::error::AgentError;
use crate::fs::{Piece, ReadError};
use crate::program::Running;
use std::io::Read;

/// A stream being read.
pub(super) enum OpenInput {
    Reader(Box<dyn Read + Send>),
    Program(Box<Running>),
}

impl OpenInput {
    pub(super) fn new(input: StreamInput) -> Result<Self, AgentError> {
        match input {
            StreamInput::Reader(reader) => Ok(OpenInput::Reader(reader)),
            StreamInput::Command(program) => Ok(OpenInput::Program(Box::new(program.start()?))),
        }
    }

    pub(super) fn read(&mut self, buffer: &mut [u8]) -> Result<Piece, ReadError> {
        loop {
            let read = match self {
                OpenInput::Reader(reader) => reader.read(buffer),
                OpenInput::Program(running) => running.read(buffer),
            };
            match read {
                Ok(0) => return Ok(Piece::End),
                Ok(len) => return Ok(Piece::Data(len)),
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// The stream has ended; a program must have succeeded. What it said nevertheless, line by line.
    pub(super) fn finish(self) -> Result<Vec<String>, AgentError> {
        match self {
            OpenInput::Reader(_) => Ok(Vec::new()),
            OpenInput::Program(running) => running.finish(),
        }
    }
}
