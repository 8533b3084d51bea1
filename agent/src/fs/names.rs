//! The names of one directory, sorted, in bounded memory: an arena, and sorted runs in an unlinked temporary file once
//! the arena is full. Also the queue of subdirectories still to be visited, kept the same way.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

/// Memory that the names of one directory may take before they spill, bytes (each name costs 8 on top of itself).
pub const LISTING_BYTES_MAX: usize = 32 << 20;
/// Memory that all waiting subdirectories of a scan may take before they spill, bytes.
pub const WAITING_BYTES_MAX: usize = 16 << 20;
/// Read-ahead of one run, bytes.
const RUN_BUFFER_BYTES: usize = 64 << 10;
const NAME_OVERHEAD_BYTES: usize = size_of::<(u32, u16)>();

/// Where temporary files go.
#[derive(Clone, Debug, Default)]
pub(super) struct SpillPlace(pub Option<PathBuf>);

impl SpillPlace {
    pub(super) fn create(&self) -> io::Result<File> {
        match &self.0 {
            Some(folder) => tempfile::tempfile_in(folder),
            None => tempfile::tempfile(),
        }
    }
}

/// Collects names in any order.
pub(super) struct NameSorter {
    arena: Vec<u8>,
    index: Vec<(u32, u16)>,
    bytes_max: usize,
    place: SpillPlace,
    spilled: Option<(File, u64, Vec<Range<u64>>)>,
}

impl NameSorter {
    pub(super) fn new(bytes_max: usize, place: SpillPlace) -> Self {
        // Offsets into the arena are 32 bits.
        let bytes_max = bytes_max.min(u32::MAX as usize);
        NameSorter { arena: Vec::new(), index: Vec::new(), bytes_max, place, spilled: None }
    }

    pub(super) fn push(&mut self, name: &[u8]) -> io::Result<()> {
        let len = u16::try_from(name.len()).map_err(|_| io::ErrorKind::InvalidFilename)?;
        let held = self.arena.len() + self.index.len() * NAME_OVERHEAD_BYTES;
        if !self.index.is_empty() && held + name.len() + NAME_OVERHEAD_BYTES > self.bytes_max {
            self.spill()?;
        }
        let start = u32::try_from(self.arena.len()).map_err(|_| io::ErrorKind::OutOfMemory)?;
        self.arena.extend_from_slice(name);
        self.index.push((start, len));
        Ok(())
    }

    fn sort(&mut self) {
        let arena = &self.arena;
        let name = |&(start, len): &(u32, u16)| &arena[start as usize..start as usize + usize::from(len)];
        self.index.sort_unstable_by(|a, b| name(a).cmp(name(b)));
    }

    fn spill(&mut self) -> io::Result<()> {
        self.sort();
        if self.spilled.is_none() {
            self.spilled = Some((self.place.create()?, 0, Vec::new()));
        }
        let Some((file, end, runs)) = &mut self.spilled else { return Ok(()) };
        let start = *end;
        let mut buffer = Vec::with_capacity(RUN_BUFFER_BYTES * 2);
        for &(offset, len) in &self.index {
            put_name(&mut buffer, len, &self.arena[offset as usize..offset as usize + usize::from(len)]);
            if buffer.len() >= RUN_BUFFER_BYTES {
                file.write_all_at(&buffer, *end)?;
                *end += buffer.len() as u64;
                buffer.clear();
            }
        }
        file.write_all_at(&buffer, *end)?;
        *end += buffer.len() as u64;
        runs.push(start..*end);
        self.arena.clear();
        self.index.clear();
        Ok(())
    }

    /// The names in ascending order of their bytes.
    pub(super) fn finish(mut self) -> io::Result<SortedNames> {
        if self.spilled.is_some() && !self.index.is_empty() {
            self.spill()?;
        }
        let Some((file, _, runs)) = self.spilled.take() else {
            self.sort();
            return Ok(SortedNames::Memory { arena: self.arena, index: self.index, next: 0 });
        };
        let mut heap = BinaryHeap::with_capacity(runs.len());
        let mut readers = Vec::with_capacity(runs.len());
        for (number, range) in runs.into_iter().enumerate() {
            let mut reader = RunReader::new(range);
            let mut name = Vec::new();
            if reader.next(&file, &mut name)? {
                heap.push(Reverse((name, number)));
            }
            readers.push(reader);
        }
        Ok(SortedNames::Runs { file, readers, heap })
    }
}

fn put_name(out: &mut Vec<u8>, len: u16, name: &[u8]) {
    out.extend_from_slice(&len.to_le_bytes());
    out.extend_from_slice(name);
}

/// The names of one directory in ascending order.
pub(super) enum SortedNames {
    Memory { arena: Vec<u8>, index: Vec<(u32, u16)>, next: usize },
    Runs { file: File, readers: Vec<RunReader>, heap: BinaryHeap<Reverse<(Vec<u8>, usize)>> },
}

impl SortedNames {
    /// A few names that are sorted already.
    pub(super) fn of<'n>(names: impl Iterator<Item = &'n [u8]>) -> io::Result<Self> {
        let mut sorter = NameSorter::new(usize::MAX, SpillPlace::default());
        for name in names {
            sorter.push(name)?;
        }
        sorter.finish()
    }

    /// Replaces `name` by the next one; false at the end.
    pub(super) fn next(&mut self, name: &mut Vec<u8>) -> io::Result<bool> {
        match self {
            SortedNames::Memory { arena, index, next } => {
                let Some(&(start, len)) = index.get(*next) else { return Ok(false) };
                *next += 1;
                name.clear();
                name.extend_from_slice(&arena[start as usize..start as usize + usize::from(len)]);
                Ok(true)
            }
            SortedNames::Runs { file, readers, heap } => {
                let Some(Reverse((mut smallest, number))) = heap.pop() else { return Ok(false) };
                std::mem::swap(name, &mut smallest);
                if let Some(reader) = readers.get_mut(number)
                    && reader.next(file, &mut smallest)?
                {
                    heap.push(Reverse((smallest, number)));
                }
                Ok(true)
            }
        }
    }

    /// Whether `name` is among them; only sure while they are in memory, which is all that its one use needs.
    pub(super) fn contains(&self, wanted: &[u8]) -> bool {
        match self {
            SortedNames::Memory { arena, index, .. } => index
                .binary_search_by(|&(start, len)| arena[start as usize..start as usize + usize::from(len)].cmp(wanted))
                .is_ok(),
            SortedNames::Runs { .. } => true,
        }
    }
}

/// Reads one run of length-prefixed names.
pub(super) struct RunReader {
    rest: Range<u64>,
    buffer: Vec<u8>,
    position: usize,
}

impl RunReader {
    fn new(rest: Range<u64>) -> Self {
        RunReader { rest, buffer: Vec::new(), position: 0 }
    }

    fn next(&mut self, file: &File, name: &mut Vec<u8>) -> io::Result<bool> {
        name.clear();
        let mut len = [0; 2];
        if self.position == self.buffer.len() && self.rest.is_empty() {
            return Ok(false);
        }
        self.take(file, &mut len)?;
        name.resize(usize::from(u16::from_le_bytes(len)), 0);
        self.take(file, name)?;
        Ok(true)
    }

    fn take(&mut self, file: &File, mut out: &mut [u8]) -> io::Result<()> {
        while !out.is_empty() {
            if self.position == self.buffer.len() {
                let len = (self.rest.end - self.rest.start).min(RUN_BUFFER_BYTES as u64);
                if len == 0 {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
                self.buffer.resize(usize::try_from(len).unwrap_or(0), 0);
                file.read_exact_at(&mut self.buffer, self.rest.start)?;
                self.rest.start += len;
                self.position = 0;
            }
            let len = out.len().min(self.buffer.len() - self.position);
            let (now, later) = out.split_at_mut(len);
            now.copy_from_slice(&self.buffer[self.position..self.position + len]);
            self.position += len;
            out = later;
        }
        Ok(())
    }
}

/// The temporary file that waiting names of all levels share. Only the deepest level grows, and it is used up before
/// the one above it goes on, so the file is a stack.
pub(super) struct WaitingStack {
    bytes_max: usize,
    held: usize,
    place: SpillPlace,
    file: Option<File>,
    end: u64,
}

impl WaitingStack {
    pub(super) fn new(bytes_max: usize, place: SpillPlace) -> Self {
        WaitingStack { bytes_max, held: 0, place, file: None, end: 0 }
    }
}

/// Names to come back to, first in first out: the spilled ones first, then those in memory.
#[derive(Default)]
pub(super) struct WaitingNames {
    spilled: Option<(u64, RunReader)>,
    memory: Vec<u8>,
    position: usize,
}

impl WaitingNames {
    pub(super) fn push(&mut self, stack: &mut WaitingStack, name: &[u8]) -> io::Result<()> {
        let len = u16::try_from(name.len()).map_err(|_| io::ErrorKind::InvalidFilename)?;
        put_name(&mut self.memory, len, name);
        stack.held += name.len() + size_of::<u16>();
        if stack.held <= stack.bytes_max {
            return Ok(());
        }
        if stack.file.is_none() {
            stack.file = Some(stack.place.create()?);
        }
        if let Some(file) = &stack.file {
            file.write_all_at(&self.memory, stack.end)?;
        }
        let start = stack.end;
        stack.end += self.memory.len() as u64;
        stack.held -= self.memory.len();
        self.memory = Vec::new();
        match &mut self.spilled {
            Some((_, reader)) => reader.rest.end = stack.end,
            None => self.spilled = Some((start, RunReader::new(start..stack.end))),
        }
        Ok(())
    }

    /// Replaces `name` by the next one; false at the end, when the stack has been given its space back.
    pub(super) fn next(&mut self, stack: &mut WaitingStack, name: &mut Vec<u8>) -> io::Result<bool> {
        if let (Some((start, reader)), Some(file)) = (&mut self.spilled, &stack.file) {
            if reader.next(file, name)? {
                return Ok(true);
            }
            stack.end = *start;
            file.set_len(stack.end)?;
            self.spilled = None;
        }
        let Some(rest) = self.memory.get(self.position..).filter(|rest| !rest.is_empty()) else {
            stack.held -= self.memory.len();
            self.memory = Vec::new();
            self.position = 0;
            return Ok(false);
        };
        let (len, rest) = rest.split_first_chunk::<2>().ok_or(io::ErrorKind::UnexpectedEof)?;
        let len = usize::from(u16::from_le_bytes(*len));
        name.clear();
        name.extend_from_slice(rest.get(..len).ok_or(io::ErrorKind::UnexpectedEof)?);
        self.position += 2 + len;
        Ok(true)
    }
}

#[cfg(test)]
mod tests;
