//! The window alone: no threads, no network.

use super::super::limits::{ROUND_PLAIN_BYTES, UNACKNOWLEDGED_BYTES_MAX};
use super::{Front, KeptNode, Window};
use crate::budget::Budget;
use crate::stop::Stop;
use bytes::Bytes;
use repo_format::compress::Codec;
use repo_format::id::{ChunkId, NodeId};
use std::time::Instant;

const CHUNK_BYTES: usize = 1 << 20;

struct Bench {
    window: Window,
    budget: Budget,
    now: Instant,
}

fn id(number: u32) -> ChunkId {
    let mut bytes = [0; 32];
    bytes[..4].copy_from_slice(&number.to_le_bytes());
    ChunkId::from_bytes(bytes)
}

impl Bench {
    fn new() -> Self {
        Bench { window: Window::new(1), budget: Budget::new(u64::MAX, Stop::default()), now: Instant::now() }
    }

    fn submit(&mut self, number: u32) {
        let plain = Bytes::from(vec![number as u8; CHUNK_BYTES]);
        let permit = self.budget.take(CHUNK_BYTES as u64).unwrap();
        self.window.submit(id(number), plain, permit, self.now);
    }

    fn node(&mut self) {
        let payload = Bytes::from_static(b"node");
        let permit = self.budget.take(payload.len() as u64).unwrap();
        let node = KeptNode { id: NodeId::from_bytes([1; 32]), codec: Codec::Raw, payload, plain_len: 4 };
        self.window.node(node, permit, self.now);
    }

    /// Asks for everything; `present` says what the server has.
    fn ask(&mut self, incarnation: u64, present: impl Fn(&ChunkId) -> bool) -> usize {
        let ids = self.window.take_questions(usize::MAX);
        let present: Vec<bool> = ids.iter().map(present).collect();
        self.window.answered(&ids, &present, incarnation);
        ids.len()
    }

    fn compress(&mut self) {
        while let Some((id, plain)) = self.window.take_compression() {
            self.window.compressed(id, Codec::Raw, plain, self.now);
        }
    }

    /// Sends one body; ids.
    fn send(&mut self, incarnation: u64) -> Vec<ChunkId> {
        let ids: Vec<ChunkId> = self.window.take_sends(4 << 20, self.now).iter().map(|chunk| chunk.id).collect();
        self.window.received(ids.iter().copied(), incarnation);
        ids
    }

    fn close(&mut self) {
        self.window.close_older(self.now);
    }

    fn is_ready(&self) -> bool {
        matches!(self.window.front(), Front::Ready(_))
    }
}

#[test]
fn a_round_is_ready_when_its_chunks_are_settled_and_then_its_memory_is_free() {
    let mut bench = Bench::new();
    for number in 0..3 {
        bench.submit(number);
    }
    bench.node();
    bench.close();
    assert!(!bench.is_ready());
    assert_eq!(bench.ask(1, |asked| *asked == id(1)), 3);
    bench.compress();
    assert!(!bench.is_ready());
    assert_eq!(bench.send(1).len(), 2);
    let Front::Ready(nodes) = bench.window.front() else { panic!("not ready") };
    assert_eq!(nodes.len(), 1);
    assert_eq!(bench.window.acknowledged(1, 1), (Some(3), false));
    assert!(matches!(bench.window.front(), Front::Empty));
    assert_eq!((bench.window.kept(), bench.budget.used()), (0, 0));
    assert!((0..3).all(|number| bench.window.knows(&id(number))));
}

#[test]
fn another_incarnation_asks_for_everything_settled_again() {
    let mut bench = Bench::new();
    for number in 0..4 {
        bench.submit(number);
    }
    bench.close();
    bench.ask(1, |asked| *asked == id(0));
    bench.compress();
    bench.send(1);
    assert!(bench.is_ready());
    // The flush's answer comes from a server that has forgotten all but chunk 2.
    assert_eq!(bench.window.acknowledged(1, 2), (None, true));
    assert!(!bench.is_ready());
    assert_eq!(bench.ask(2, |asked| *asked == id(2)), 4);
    bench.compress();
    let sends = bench.window.take_sends(usize::MAX, bench.now);
    let again: Vec<(ChunkId, bool)> = sends.iter().map(|chunk| (chunk.id, chunk.again)).collect();
    // What was kept compressed goes at once; chunk 0 was never sent before.
    assert_eq!(again.len(), 3);
    assert!(again.iter().all(|(chunk, again)| *again == (*chunk != id(0))), "{again:?}");
    assert!(sends.iter().all(|chunk| !chunk.durable));
    bench.window.received(sends.iter().map(|chunk| chunk.id), 2);
    assert_eq!(bench.window.acknowledged(2, 2), (Some(4), false));
}

#[test]
fn a_late_answer_of_an_older_incarnation_only_asks_once_more() {
    let mut bench = Bench::new();
    bench.submit(0);
    bench.submit(1);
    bench.close();
    bench.ask(1, |_| false);
    bench.compress();
    let flying: Vec<ChunkId> = bench.window.take_sends(1, bench.now).iter().map(|chunk| chunk.id).collect();
    assert_eq!(flying.len(), 1);
    bench.send(2);
    bench.window.received(flying.into_iter(), 1);
    assert!(!bench.is_ready());
    assert_eq!(bench.ask(2, |_| true), 1);
    assert_eq!(bench.ask(2, |_| true), 1);
    assert!(bench.is_ready());
}

#[test]
fn rounds_close_by_size_and_stay_in_order() {
    let mut bench = Bench::new();
    let per_round = (ROUND_PLAIN_BYTES / CHUNK_BYTES as u64) as u32;
    for number in 0..per_round + 1 {
        bench.submit(number);
    }
    // The last chunk opened the second round: that one is whole first, and has to wait.
    bench.close();
    assert_eq!(bench.ask(1, |asked| *asked == id(per_round)), per_round as usize + 1);
    assert!(!bench.is_ready());
    bench.compress();
    while !bench.send(1).is_empty() {}
    assert_eq!(bench.window.acknowledged(1, 1).0, Some(per_round as usize));
    assert!(bench.is_ready());
}

#[test]
fn what_is_sent_and_not_durable_is_bounded() {
    let mut bench = Bench::new();
    let count = 3 * (UNACKNOWLEDGED_BYTES_MAX / CHUNK_BYTES as u64) as u32;
    for number in 0..count {
        bench.submit(number);
    }
    bench.close();
    bench.ask(1, |_| false);
    bench.compress();
    let mut sent = 0;
    loop {
        let now = bench.send(1).len();
        if now == 0 {
            break;
        }
        sent += now;
    }
    assert_eq!(sent as u64 * CHUNK_BYTES as u64, UNACKNOWLEDGED_BYTES_MAX);
    let (durable, _) = bench.window.acknowledged(1, 1);
    assert!(durable.is_some());
    assert!(!bench.send(1).is_empty(), "a durable round lets the next chunks go");
}

#[test]
fn missing_chunks_are_asked_for_and_sent_again_and_lost_ones_named() {
    let mut bench = Bench::new();
    bench.submit(0);
    bench.close();
    bench.ask(1, |_| true);
    assert!(bench.is_ready());
    assert_eq!(bench.window.missing([id(0), id(7)].into_iter()), [id(7)]);
    assert!(!bench.is_ready());
    assert_eq!(bench.ask(1, |_| false), 1);
    bench.compress();
    assert_eq!(bench.send(1), [id(0)]);
    assert!(bench.is_ready());
}

/// A node batch is refused because the server has started anew; by the time its answer is read, another answer has
/// told of the new incarnation, and the chunk has been sent again.
#[test]
fn a_refusal_that_others_have_overtaken_sends_nothing_twice() {
    let mut bench = Bench::new();
    for number in 0..3 {
        bench.submit(number);
    }
    bench.close();
    bench.ask(1, |_| false);
    bench.compress();
    bench.send(1);
    assert!(bench.is_ready());
    bench.window.note_incarnation(2);
    assert_eq!(bench.ask(2, |_| false), 3);
    assert_eq!(bench.send(2).len(), 3);
    assert!(bench.window.missing([id(0), id(1), id(2)].into_iter()).is_empty());
    assert!(bench.send(2).is_empty(), "nothing is sent on the word of an old refusal");
    assert_eq!(bench.ask(2, |_| true), 3);
    assert!(bench.is_ready());
    // The same while the question is on its way: its answer alone decides.
    bench.window.note_incarnation(3);
    let asked = bench.window.take_questions(usize::MAX);
    assert!(bench.window.missing(asked.iter().copied()).is_empty());
    assert!(bench.send(3).is_empty());
    assert!(bench.window.take_questions(usize::MAX).is_empty());
    bench.window.answered(&asked, &[false; 3], 3);
    assert_eq!(bench.send(3).len(), 3);
    assert!(bench.is_ready());
}

/// The server starts anew before a barrier that needs none of the round's chunks. Before that answer is read, others have
/// told of the new incarnation and the chunks have been sent again, after the barrier: it does not cover them.
#[test]
fn an_answer_of_a_barrier_covers_only_what_was_settled_when_it_was_asked_for() {
    let mut bench = Bench::new();
    bench.submit(0);
    bench.close();
    bench.ask(1, |_| false);
    bench.compress();
    bench.send(1);
    assert!(bench.is_ready());
    bench.window.note_incarnation(2);
    bench.ask(2, |_| false);
    assert_eq!(bench.send(2), [id(0)]);
    assert_eq!(bench.window.acknowledged(1, 2), (None, false));
    assert_eq!(bench.window.kept(), 1, "it may still be lost");
    assert!(bench.is_ready());
    assert_eq!(bench.window.acknowledged(2, 2), (Some(1), false));
}
