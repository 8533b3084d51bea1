//! Requests that wait, bounded by the memory they take.
//!
//! Some clients (paramiko) ask for a whole file at once, 32,768 requests per GiB. Reads that follow each other take the
//! room of one.

use crate::limits::REQUEST_QUEUE_BYTES_MAX;
use crate::sftp::wire::{Request, WireError};
use bytes::Bytes;
use std::collections::VecDeque;

/// What one waiting request costs beside its own bytes.
const ENTRY_BYTES: usize = 128;

#[derive(Debug)]
enum Waiting {
    One(u32, Request, usize),
    /// `count` READs whose ids and offsets follow each other.
    Reads {
        id: u32,
        handle: Bytes,
        offset: u64,
        length: u32,
        count: u32,
    },
}

/// First in, first out.
#[derive(Debug, Default)]
pub struct RequestQueue {
    waiting: VecDeque<Waiting>,
    bytes: usize,
}

impl RequestQueue {
    /// Adds a request that took `bytes` on the wire.
    pub fn push(&mut self, id: u32, request: Request, bytes: usize) -> Result<(), WireError> {
        if let Request::Read { handle, offset, length } = &request {
            if let Some(Waiting::Reads { id: first, handle: same, offset: from, length: each, count }) =
                self.waiting.back_mut()
                && same == handle
                && each == length
                && first.wrapping_add(*count) == id
                && from.checked_add(u64::from(*count) * u64::from(*each)) == Some(*offset)
                && *count < u32::MAX
            {
                *count += 1;
                return Ok(());
            }
            // A copy: the handle would keep the whole buffer that the packet came in.
            let (handle, offset, length) = (Bytes::copy_from_slice(handle), *offset, *length);
            self.waiting.push_back(Waiting::Reads { id, handle, offset, length, count: 1 });
            self.bytes += ENTRY_BYTES;
        } else {
            self.waiting.push_back(Waiting::One(id, request, bytes));
            self.bytes += ENTRY_BYTES + bytes;
        }
        if self.bytes > REQUEST_QUEUE_BYTES_MAX { Err(WireError::Flood) } else { Ok(()) }
    }

    /// The oldest request, with its id.
    pub fn pop(&mut self) -> Option<(u32, Request)> {
        if let Some(Waiting::Reads { id, handle, offset, length, count }) = self.waiting.front_mut()
            && *count > 1
        {
            let read = (*id, Request::Read { handle: handle.clone(), offset: *offset, length: *length });
            *id = id.wrapping_add(1);
            *offset = offset.saturating_add(u64::from(*length));
            *count -= 1;
            return Some(read);
        }
        let (request, bytes) = match self.waiting.pop_front()? {
            Waiting::One(id, request, bytes) => ((id, request), bytes),
            Waiting::Reads { id, handle, offset, length, .. } => ((id, Request::Read { handle, offset, length }), 0),
        };
        self.bytes -= ENTRY_BYTES + bytes;
        Some(request)
    }

    /// Memory taken.
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::RequestQueue;
    use crate::sftp::wire::{Request, WireError};
    use bytes::Bytes;

    fn read(offset: u64, length: u32) -> Request {
        Request::Read { handle: Bytes::from_static(&[0, 0, 0, 1]), offset, length }
    }

    #[test]
    fn a_terabyte_of_reads_takes_the_room_of_one_and_comes_out_as_it_went_in() {
        let mut queue = RequestQueue::default();
        let sent: Vec<_> = (0..300_000u32).map(|n| (n.wrapping_sub(7), read(u64::from(n) * 32768, 32768))).collect();
        for (id, request) in sent.clone() {
            queue.push(id, request, 29).unwrap();
        }
        assert!(queue.bytes() < 1024);
        queue.push(5, read(0, 10), 29).unwrap();
        queue.push(5, Request::Unknown, 9).unwrap();
        queue.push(6, read(10, 10), 29).unwrap();
        for expected in sent {
            assert_eq!(queue.pop(), Some(expected));
        }
        assert_eq!(queue.pop(), Some((5, read(0, 10))));
        assert_eq!(queue.pop(), Some((5, Request::Unknown)));
        assert_eq!(queue.pop(), Some((6, read(10, 10))));
        assert_eq!((queue.pop(), queue.bytes()), (None, 0));
    }

    #[test]
    fn too_many_requests_are_a_flood() {
        let mut queue = RequestQueue::default();
        let flood = (0..1_000_000).find_map(|n| queue.push(n, read(u64::from(n) * 77_777_777, 1), 29).err());
        assert_eq!(flood, Some(WireError::Flood));
        assert!(queue.bytes() < (9 << 20));
    }
}
