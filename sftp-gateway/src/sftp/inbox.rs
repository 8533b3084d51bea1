//! Where a client's bytes arrive. Putting them in never waits, for it happens on the task that also has to read the
//! window adjustments which let replies out.

use crate::sftp::queue::RequestQueue;
use crate::sftp::wire::{FrameReader, Packet, Request, WireError};
use parking_lot::Mutex;
use tokio::sync::Notify;

/// Requests that wait for an engine. Shared between whoever receives bytes and the engine.
#[derive(Debug, Default)]
pub struct Inbox {
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct State {
    frames: FrameReader,
    queue: RequestQueue,
    init: Option<u32>,
    ended: bool,
}

/// What the engine finds.
pub(super) enum Next {
    Init,
    Request(u32, Request),
    /// Nothing yet.
    Nothing,
    /// Nothing any more.
    End,
}

impl Inbox {
    /// Takes bytes in. After an error the session is over: nothing more is taken, and the engine ends.
    pub fn receive(&self, bytes: &[u8]) -> Result<(), WireError> {
        let mut state = self.state.lock();
        if state.ended {
            return Ok(());
        }
        state.frames.receive(bytes);
        let outcome = loop {
            match state.frames.next_packet() {
                Ok(Some(Packet::Init(version))) => state.init = Some(version),
                Ok(Some(Packet::Request { id, request, bytes })) => {
                    if let Err(flood) = state.queue.push(id, request, bytes) {
                        break Err(flood);
                    }
                }
                Ok(None) => break Ok(()),
                Err(error) => break Err(error),
            }
        };
        if outcome.is_err() {
            state.ended = true;
            state.queue = RequestQueue::default();
        }
        drop(state);
        self.changed.notify_one();
        outcome
    }

    /// Nothing more comes. What waits is still answered.
    pub fn end(&self) {
        self.state.lock().ended = true;
        self.changed.notify_one();
    }

    /// Memory that waiting requests take.
    pub fn bytes(&self) -> usize {
        self.state.lock().queue.bytes()
    }

    pub(super) fn next(&self) -> Next {
        let mut state = self.state.lock();
        if state.init.take().is_some() {
            return Next::Init;
        }
        match state.queue.pop() {
            Some((id, request)) => Next::Request(id, request),
            None if state.ended => Next::End,
            None => Next::Nothing,
        }
    }

    pub(super) async fn changed(&self) {
        self.changed.notified().await;
    }
}
