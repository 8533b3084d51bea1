//! Data in, content out: cuts, ids, the whole hash, and the list of elements, storing every chunk on the way.

use super::counters::add;
use super::limits::READ_BUFFER_BYTES;
use super::{NodeWriter, Run};
use crate::error::AgentError;
use crate::fs::{Piece, ReadError};
use bytes::Bytes;
use repo_format::chunker::Chunker;
use repo_format::entry::{Content, Element, Profile};
use repo_format::filelist::ContentListBuilder;
use repo_format::id::ContentHash;

/// Content that is stored, or on its way.
pub struct Stored {
    /// Where it is.
    pub content: Content,
    /// Hash of all of it.
    pub hash: ContentHash,
    /// Bytes, holes included.
    pub size: u64,
}

/// Why content could not be stored.
pub enum StoreError {
    /// It could not be read: a warning.
    Read(ReadError),
    /// The run has failed.
    Run(AgentError),
}

impl From<AgentError> for StoreError {
    fn from(error: AgentError) -> Self {
        StoreError::Run(error)
    }
}

/// Stores content of any length with memory for a few chunks; one per thread.
pub struct ContentWriter<'r> {
    run: &'r Run,
    chunker: Chunker,
    nodes: NodeWriter<'r>,
    buffer: Vec<u8>,
}

impl<'r> ContentWriter<'r> {
    /// For one thread of `run`, cutting by `profile`.
    pub fn new(run: &'r Run, profile: Profile) -> Result<Self, AgentError> {
        let chunker = Chunker::new(&run.keys, profile);
        Ok(ContentWriter { run, chunker, nodes: NodeWriter::new(run)?, buffer: Vec::new() })
    }

    /// Stores what `next` yields until its end.
    pub fn store(&mut self, mut next: impl FnMut(&mut [u8]) -> Result<Piece, ReadError>) -> Result<Stored, StoreError> {
        self.buffer.resize(READ_BUFFER_BYTES, 0);
        let mut buffer = std::mem::take(&mut self.buffer);
        let stored = self.store_with(&mut buffer, &mut next);
        self.buffer = buffer;
        stored
    }

    fn store_with(
        &mut self,
        buffer: &mut [u8],
        next: &mut dyn FnMut(&mut [u8]) -> Result<Piece, ReadError>,
    ) -> Result<Stored, StoreError> {
        let mut hasher = self.run.keys.content_hasher();
        let mut list = ContentListBuilder::new();
        let (mut filled, mut size) = (0usize, 0u64);
        loop {
            self.run.stop.check()?;
            match next(&mut buffer[filled..]).map_err(StoreError::Read)? {
                Piece::Data(len) => {
                    hasher.data(&buffer[filled..filled + len]);
                    add(&self.run.counters.bytes_read, len as u64);
                    filled += len;
                    size += len as u64;
                    let used = self.cut(&buffer[..filled], false, &mut list)?;
                    if used > 0 {
                        buffer.copy_within(used..filled, 0);
                        filled -= used;
                    }
                }
                Piece::Hole { offset, len } => {
                    self.cut(&buffer[..filled], true, &mut list)?;
                    filled = 0;
                    hasher.hole(offset, len);
                    size += len;
                    self.push(&mut list, Element::Hole { len })?;
                }
                Piece::End => break,
            }
        }
        self.cut(&buffer[..filled], true, &mut list)?;
        let mut nodes = Vec::new();
        let content = list.finish(&self.run.keys, &mut |node| nodes.push(node)).map_err(AgentError::from)?;
        self.nodes.store_all(&nodes)?;
        Ok(Stored { content, hash: hasher.finish(), size })
    }

    /// Stores the chunks at the start of `data`; how many bytes they cover.
    fn cut(&mut self, data: &[u8], end: bool, list: &mut ContentListBuilder) -> Result<usize, AgentError> {
        let mut used = 0;
        while let Some(len) = self.chunker.cut(&data[used..], end) {
            let plain = &data[used..used + len];
            let chunk = self.run.keys.chunk_id(plain);
            self.run.uploader.chunk(chunk, len, || Bytes::copy_from_slice(plain))?;
            self.push(list, Element::Data { chunk, offset: 0, len: len as u32 })?;
            used += len;
        }
        Ok(used)
    }

    fn push(&mut self, list: &mut ContentListBuilder, element: Element) -> Result<(), AgentError> {
        let mut nodes = Vec::new();
        list.push(&self.run.keys, element, &mut |node| nodes.push(node))?;
        self.nodes.store_all(&nodes)
    }
}
