//! Streams as they are read: standard input, or the output of a command.

use super::StreamInput;
use crate::error::AgentError;
use crate::fs::{Piece, ReadError};
use std::io::Read;
use std::process::{Child, ChildStdout};

/// A stream being read; a command that is not waited for is killed.
pub(super) enum OpenInput {
    Reader(Box<dyn Read + Send>),
    Command { child: Child, output: ChildStdout, ended: bool },
}

impl OpenInput {
    pub(super) fn new(input: StreamInput) -> Result<Self, AgentError> {
        match input {
            StreamInput::Reader(reader) => Ok(OpenInput::Reader(reader)),
            StreamInput::Command(mut child) => match child.stdout.take() {
                Some(output) => Ok(OpenInput::Command { child, output, ended: false }),
                None => Err(AgentError::CommandFailed("its output is not connected".into())),
            },
        }
    }

    pub(super) fn read(&mut self, buffer: &mut [u8]) -> Result<Piece, ReadError> {
        loop {
            let read = match self {
                OpenInput::Reader(reader) => reader.read(buffer),
                OpenInput::Command { output, .. } => output.read(buffer),
            };
            match read {
                Ok(0) => return Ok(Piece::End),
                Ok(len) => return Ok(Piece::Data(len)),
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// The stream has ended; a command must have succeeded.
    pub(super) fn finish(mut self) -> Result<(), AgentError> {
        let OpenInput::Command { child, ended, .. } = &mut self else { return Ok(()) };
        let status = child.wait().map_err(|error| AgentError::CommandFailed(error.to_string()))?;
        *ended = true;
        if status.success() { Ok(()) } else { Err(AgentError::CommandFailed(status.to_string())) }
    }
}

impl Drop for OpenInput {
    fn drop(&mut self) {
        if let OpenInput::Command { child, ended: false, .. } = self {
            child.kill().ok();
            child.wait().ok();
        }
    }
}
