//! The durability window as a state machine: which chunks are kept, how far each has come, and which round each waits
//! in. No threads and no network; [`super::upload`] drives it.
//!
//! A chunk is kept from the moment it is submitted until an answer that is durable covers it. In between it may be
//! asked for, compressed, sent and *settled* (the server says it has it, under one incarnation) any number of times:
//! when the incarnation changes, everything settled is asked for again.

use super::limits::{DURABLE_IDS_MAX, ROUND_PLAIN_BYTES, ROUND_STORED_BYTES, UNACKNOWLEDGED_BYTES_MAX};
use crate::budget::Permit;
use bytes::Bytes;
use repo_format::compress::Codec;
use repo_format::id::{ChunkId, NodeId};
use std::collections::{HashMap, HashSet, VecDeque};
use std::time::Instant;

/// How far a kept chunk has come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Step {
    /// In the queue of questions, or in a question on its way.
    Asking,
    /// Not on the server: in the queue for compression, or being compressed.
    Compressing,
    /// In the queue to be sent.
    ToSend,
    /// In a request on its way.
    Sending,
    /// The server has it.
    Settled,
}

struct Kept {
    round: u64,
    step: Step,
    plain: Option<Bytes>,
    payload: Option<(Codec, Bytes)>,
    plain_len: u32,
    sent: bool,
    /// Counted in `unacknowledged`.
    unacknowledged: u64,
    permit: Permit,
}

/// A node waiting to be sent.
#[derive(Clone)]
pub struct KeptNode {
    /// Its id.
    pub id: NodeId,
    /// How it is compressed.
    pub codec: Codec,
    /// Compressed bytes.
    pub payload: Bytes,
    /// Plaintext bytes.
    pub plain_len: u32,
}

struct Round {
    number: u64,
    chunks: Vec<ChunkId>,
    unsettled: usize,
    nodes: Vec<KeptNode>,
    plain_bytes: u64,
    stored_bytes: u64,
    opened: Instant,
    closed: bool,
    permits: Vec<Permit>,
}

/// A chunk ready to be sent.
#[derive(Clone)]
pub struct ToSend {
    /// Its id.
    pub id: ChunkId,
    /// How it is compressed.
    pub codec: Codec,
    /// Compressed bytes.
    pub payload: Bytes,
    /// Plaintext bytes.
    pub plain_len: u32,
    /// It was sent before.
    pub again: bool,
    /// It was durable before: a defect.
    pub durable: bool,
}

/// What the front round needs next.
pub enum Front {
    /// Nothing to do now.
    Wait,
    /// All its chunks are settled; these nodes make it durable, or a flush if there are none.
    Ready(Vec<KeptNode>),
    /// Nothing is left at all.
    Empty,
}

/// The state machine.
pub struct Window {
    incarnation: u64,
    rounds: VecDeque<Round>,
    next_round: u64,
    chunks: HashMap<ChunkId, Kept>,
    ask: VecDeque<ChunkId>,
    /// Since when something waits to be asked for.
    ask_since: Option<Instant>,
    compress: VecDeque<ChunkId>,
    send: VecDeque<ChunkId>,
    send_bytes: usize,
    send_since: Option<Instant>,
    /// Questions and compressions on their way.
    working: usize,
    unacknowledged: u64,
    durable: [HashSet<ChunkId>; 2],
}

impl Window {
    /// Empty, under the incarnation that `begin` answered.
    pub fn new(incarnation: u64) -> Self {
        Window {
            incarnation,
            rounds: VecDeque::new(),
            next_round: 0,
            chunks: HashMap::new(),
            ask: VecDeque::new(),
            ask_since: None,
            compress: VecDeque::new(),
            send: VecDeque::new(),
            send_bytes: 0,
            send_since: None,
            working: 0,
            unacknowledged: 0,
            durable: [HashSet::new(), HashSet::new()],
        }
    }

    /// The incarnation everything settled is settled under.
    pub fn incarnation(&self) -> u64 {
        self.incarnation
    }

    /// Whether a chunk is kept or known to be durable.
    pub fn knows(&self, id: &ChunkId) -> bool {
        self.chunks.contains_key(id) || self.is_durable(id)
    }

    fn is_durable(&self, id: &ChunkId) -> bool {
        self.durable.iter().any(|generation| generation.contains(id))
    }

    fn remember_durable(&mut self, id: ChunkId) {
        if self.durable[0].len() >= DURABLE_IDS_MAX / 2 {
            self.durable.swap(0, 1);
            self.durable[0].clear();
        }
        self.durable[0].insert(id);
    }

    fn current(&mut self, now: Instant) -> &mut Round {
        if self.rounds.back().is_none_or(|round| round.closed) {
            self.rounds.push_back(Round {
                number: self.next_round,
                chunks: Vec::new(),
                unsettled: 0,
                nodes: Vec::new(),
                plain_bytes: 0,
                stored_bytes: 0,
                opened: now,
                closed: false,
                permits: Vec::new(),
            });
            self.next_round += 1;
        }
        let last = self.rounds.len() - 1;
        &mut self.rounds[last]
    }

    fn round(&mut self, number: u64) -> Option<&mut Round> {
        let first = self.rounds.front()?.number;
        self.rounds.get_mut(usize::try_from(number.checked_sub(first)?).ok()?)
    }

    /// Keeps a chunk that [`Window::knows`] does not know.
    pub fn submit(&mut self, id: ChunkId, plain: Bytes, permit: Permit, now: Instant) {
        let plain_len = plain.len() as u32;
        let round = self.current(now);
        round.chunks.push(id);
        round.unsettled += 1;
        round.plain_bytes += u64::from(plain_len);
        let number = round.number;
        round.closed = round.plain_bytes >= ROUND_PLAIN_BYTES;
        self.chunks.insert(
            id,
            Kept {
                round: number,
                step: Step::Asking,
                plain: Some(plain),
                payload: None,
                plain_len,
                sent: false,
                unacknowledged: 0,
                permit,
            },
        );
        self.ask.push_back(id);
        self.ask_since.get_or_insert(now);
    }

    /// A node whose children were submitted before.
    pub fn node(&mut self, node: KeptNode, permit: Permit, now: Instant) {
        let round = self.current(now);
        round.stored_bytes += node.payload.len() as u64;
        round.nodes.push(node);
        round.permits.push(permit);
        round.closed = round.stored_bytes >= ROUND_STORED_BYTES;
    }

    /// Closes the current round if it was opened before `opened_before`.
    pub fn close_older(&mut self, opened_before: Instant) {
        if let Some(round) = self.rounds.back_mut()
            && round.opened <= opened_before
        {
            round.closed = true;
        }
    }

    /// Chunks waiting to be asked for, and since when; without a time they must not wait.
    pub fn askable(&self) -> (usize, Option<Instant>) {
        (self.ask.len(), self.ask_since)
    }

    /// Up to `max` chunks to ask for.
    pub fn take_questions(&mut self, max: usize) -> Vec<ChunkId> {
        self.ask_since = None;
        let mut ids = Vec::new();
        while ids.len() < max
            && let Some(id) = self.ask.pop_front()
        {
            if self.chunks.get(&id).is_some_and(|kept| kept.step == Step::Asking) {
                ids.push(id);
            }
        }
        self.working += usize::from(!ids.is_empty());
        ids
    }

    /// An answer to `have`. Returns whether the incarnation changed.
    pub fn answered(&mut self, ids: &[ChunkId], present: &[bool], incarnation: u64) -> bool {
        self.working = self.working.saturating_sub(1);
        let changed = self.note_incarnation(incarnation);
        for (id, present) in ids.iter().zip(present) {
            if *present {
                self.settle(id);
            } else {
                self.must_send(id);
            }
        }
        changed
    }

    /// A chunk to compress, with its plaintext.
    pub fn take_compression(&mut self) -> Option<(ChunkId, Bytes)> {
        while let Some(id) = self.compress.pop_front() {
            if let Some(Kept { step: Step::Compressing, plain: Some(plain), .. }) = self.chunks.get(&id) {
                self.working += 1;
                return Some((id, plain.clone()));
            }
        }
        None
    }

    /// The outcome of a compression.
    pub fn compressed(&mut self, id: ChunkId, codec: Codec, payload: Bytes, now: Instant) {
        self.working = self.working.saturating_sub(1);
        let Some(kept) = self.chunks.get_mut(&id) else { return };
        let bytes = payload.len();
        kept.plain = None;
        kept.payload = Some((codec, payload));
        kept.permit.shrink(bytes as u64);
        let number = kept.round;
        if let Some(round) = self.round(number) {
            round.stored_bytes += bytes as u64;
            round.closed = round.closed || round.stored_bytes >= ROUND_STORED_BYTES;
        }
        self.queue_send(id, bytes, now);
    }

    fn queue_send(&mut self, id: ChunkId, bytes: usize, now: Instant) {
        if let Some(kept) = self.chunks.get_mut(&id) {
            kept.step = Step::ToSend;
            self.send.push_back(id);
            self.send_bytes += bytes;
            self.send_since.get_or_insert(now);
        }
    }

    /// Bytes waiting to be sent, since when, and whether more is being prepared.
    pub fn sendable(&self) -> (usize, Option<Instant>, bool) {
        let preparing = self.working > 0 || !self.ask.is_empty() || !self.compress.is_empty();
        (self.send_bytes, self.send_since, preparing)
    }

    /// Chunks for one body of about `bytes_max`: those of the front round always, later ones only while what is sent
    /// and not durable stays within its bound.
    pub fn take_sends(&mut self, bytes_max: usize, now: Instant) -> Vec<ToSend> {
        let front = self.rounds.front().map(|round| round.number);
        let (mut taken, mut bytes, mut passed) = (Vec::new(), 0usize, VecDeque::new());
        while bytes < bytes_max
            && let Some(id) = self.send.pop_front()
        {
            let durable = self.is_durable(&id);
            let Some(kept) = self.chunks.get_mut(&id) else { continue };
            let (Step::ToSend, Some((codec, payload))) = (kept.step, &kept.payload) else { continue };
            let len = payload.len();
            if Some(kept.round) != front && self.unacknowledged + len as u64 > UNACKNOWLEDGED_BYTES_MAX {
                passed.push_back(id);
                continue;
            }
            taken.push(ToSend {
                id,
                codec: *codec,
                payload: payload.clone(),
                plain_len: kept.plain_len,
                again: kept.sent,
                durable,
            });
            kept.step = Step::Sending;
            kept.sent = true;
            if kept.unacknowledged == 0 {
                kept.unacknowledged = len as u64;
                self.unacknowledged += len as u64;
            }
            bytes += len;
            self.send_bytes = self.send_bytes.saturating_sub(len);
        }
        passed.append(&mut self.send);
        self.send = passed;
        self.send_since = if self.send.is_empty() { None } else { Some(now) };
        taken
    }

    /// An answer to `chunks`: received under `incarnation`. Returns whether the incarnation changed.
    pub fn received(&mut self, ids: impl Iterator<Item = ChunkId>, incarnation: u64) -> bool {
        let changed = self.note_incarnation(incarnation);
        for id in ids {
            self.settle(&id);
        }
        changed
    }

    /// Chunks whose request failed without being received: asked for again.
    pub fn ask_again(&mut self, ids: impl Iterator<Item = ChunkId>) {
        for id in ids {
            if let Some(kept) = self.chunks.get_mut(&id)
                && kept.step == Step::Sending
            {
                kept.step = Step::Asking;
                self.ask.push_back(id);
            }
        }
    }

    fn settle(&mut self, id: &ChunkId) {
        if let Some(kept) = self.chunks.get_mut(id)
            && kept.step != Step::Settled
        {
            kept.step = Step::Settled;
            let number = kept.round;
            if let Some(round) = self.round(number) {
                round.unsettled = round.unsettled.saturating_sub(1);
            }
        }
    }

    /// The server lacks a chunk that was asked for.
    fn must_send(&mut self, id: &ChunkId) {
        let Some(kept) = self.chunks.get_mut(id).filter(|kept| kept.step == Step::Asking) else { return };
        let ready = kept.payload.as_ref().map(|(_, payload)| payload.len());
        match ready {
            Some(bytes) => self.queue_send(*id, bytes, Instant::now()),
            None => {
                kept.step = Step::Compressing;
                self.compress.push_back(*id);
            }
        }
    }

    /// The server answered under `incarnation`; if it is another one, everything settled is asked for again.
    pub fn note_incarnation(&mut self, incarnation: u64) -> bool {
        if incarnation == self.incarnation {
            return false;
        }
        self.incarnation = incarnation;
        self.forget_settled();
        true
    }

    /// Everything settled is asked for again.
    pub fn forget_settled(&mut self) {
        for round in &mut self.rounds {
            for id in &round.chunks {
                if let Some(kept) = self.chunks.get_mut(id)
                    && kept.step == Step::Settled
                {
                    kept.step = Step::Asking;
                    round.unsettled += 1;
                    self.ask.push_back(*id);
                }
            }
        }
    }

    /// What the oldest round needs.
    pub fn front(&self) -> Front {
        match self.rounds.front() {
            None => Front::Empty,
            Some(round) if round.closed && round.unsettled == 0 => Front::Ready(round.nodes.clone()),
            Some(_) => Front::Wait,
        }
    }

    /// The front round's nodes are durable, under `incarnation`. Its chunks too, if that is also what the window was
    /// under when it was asked for (`asked_under`), all of them settled: what was brought since then, perhaps after a
    /// crash before the barrier, is not covered. Returns the chunks that are now durable, `None` while the round must
    /// go on, and whether the incarnation changed.
    pub fn acknowledged(&mut self, asked_under: u64, incarnation: u64) -> (Option<usize>, bool) {
        let changed = self.note_incarnation(incarnation);
        let Some(round) = self.rounds.front_mut() else { return (Some(0), changed) };
        round.nodes.clear();
        round.permits.clear();
        if asked_under != incarnation || round.unsettled > 0 {
            return (None, changed);
        }
        let chunks = self.rounds.pop_front().map(|round| round.chunks).unwrap_or_default();
        let count = chunks.len();
        for id in chunks {
            if let Some(kept) = self.chunks.remove(&id) {
                self.unacknowledged = self.unacknowledged.saturating_sub(kept.unacknowledged);
            }
            self.remember_durable(id);
        }
        (Some(count), changed)
    }

    /// The server refused nodes because these are missing. Those that are kept are asked for again, not sent: the
    /// refusal may be older than what other requests have brought meanwhile, and the question is cheap. Returns those
    /// that are not kept any more.
    pub fn missing(&mut self, ids: impl Iterator<Item = ChunkId>) -> Vec<ChunkId> {
        let mut lost = Vec::new();
        for id in ids {
            match self.chunks.get_mut(&id) {
                None => lost.push(id),
                Some(kept) if kept.step == Step::Settled => {
                    kept.step = Step::Asking;
                    let number = kept.round;
                    self.ask.push_back(id);
                    if let Some(round) = self.round(number) {
                        round.unsettled += 1;
                    }
                }
                // On its way already.
                Some(_) => {}
            }
        }
        lost
    }

    /// Chunks kept now.
    pub fn kept(&self) -> usize {
        self.chunks.len()
    }
}

#[cfg(test)]
mod tests;
