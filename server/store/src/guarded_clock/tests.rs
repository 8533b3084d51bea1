//! Steps of the clock, in a process and over a restart.

use super::*;
use crate::world::{Clock, SystemRandom, SystemVfs};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

const HOUR_NS: i64 = 3600 * SECOND_NS;

/// Wall and monotonic time that the test sets.
#[derive(Default)]
struct Hands {
    wall_ns: AtomicI64,
    monotonic_ns: AtomicI64,
}

impl Hands {
    fn pass(&self, ns: i64) {
        self.step(ns);
        self.monotonic_ns.fetch_add(ns, Ordering::Relaxed);
    }
    fn step(&self, ns: i64) {
        self.wall_ns.fetch_add(ns, Ordering::Relaxed);
    }
}

impl Clock for Hands {
    fn now_ns(&self) -> i64 {
        self.wall_ns.load(Ordering::Relaxed)
    }
    fn monotonic_ns(&self) -> i64 {
        self.monotonic_ns.load(Ordering::Relaxed)
    }
}

struct Bed {
    hands: Arc<Hands>,
    directory: tempfile::TempDir,
}

impl Bed {
    fn new() -> Self {
        let hands = Arc::new(Hands::default());
        hands.step(1_800_000_000 * SECOND_NS);
        Bed { hands, directory: tempfile::tempdir().unwrap() }
    }
    fn open(&self) -> GuardedClock {
        let world = World { vfs: Arc::new(SystemVfs), clock: self.hands.clone(), random: Arc::new(SystemRandom) };
        GuardedClock::open(world, self.directory.path()).unwrap()
    }
    fn file(&self) -> Vec<u8> {
        std::fs::read(self.directory.path().join(CLOCK_FILE)).unwrap()
    }
}

fn refused(clock: &GuardedClock) -> bool {
    match clock.now_ns() {
        Ok(_) => false,
        Err(StoreError::ClockJumped { .. }) => true,
        Err(error) => panic!("{error}"),
    }
}

#[test]
fn time_that_passes_is_believed_however_long() {
    let bed = Bed::new();
    let clock = bed.open();
    for hours in [0, 1, 47, 49, 24 * 400] {
        bed.hands.pass(hours * HOUR_NS);
        assert_eq!(clock.now_ns().unwrap(), bed.hands.now_ns());
    }
}

#[test]
fn a_step_back_of_more_than_a_minute_is_refused_until_it_is_confirmed_or_undone() {
    let bed = Bed::new();
    let clock = bed.open();
    assert!(!refused(&clock));
    bed.hands.step(-60 * SECOND_NS);
    assert!(!refused(&clock));
    bed.hands.step(-1);
    assert!(refused(&clock));
    bed.hands.pass(1000 * HOUR_NS);
    assert!(refused(&clock), "waiting does not make it right");
    bed.hands.step(60 * SECOND_NS);
    assert!(!refused(&clock));
    bed.hands.step(-3 * HOUR_NS);
    assert!(refused(&clock));
    clock.confirm().unwrap();
    assert!(!refused(&clock));
}

#[test]
fn a_step_ahead_of_more_than_48_hours_is_refused_also_in_small_steps() {
    let bed = Bed::new();
    let clock = bed.open();
    assert!(!refused(&clock));
    bed.hands.step(48 * HOUR_NS);
    assert!(!refused(&clock));
    bed.hands.step(-48 * HOUR_NS);
    for _ in 0..48 {
        bed.hands.step(HOUR_NS);
        bed.hands.pass(SECOND_NS);
        assert!(!refused(&clock));
    }
    bed.hands.step(HOUR_NS);
    match clock.now_ns() {
        Err(StoreError::ClockJumped { last_ns, now_ns }) => {
            assert_eq!(now_ns, bed.hands.now_ns());
            assert_eq!(now_ns - last_ns, HOUR_NS);
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(clock.confirm().unwrap(), bed.hands.now_ns());
    assert!(!refused(&clock));
}

#[test]
fn a_restart_goes_on_from_the_file() {
    let bed = Bed::new();
    assert!(!refused(&bed.open()));
    for (step, jumped) in [(48 * HOUR_NS, false), (48 * HOUR_NS + 1, true), (-60 * SECOND_NS - 1, true)] {
        bed.open().confirm().unwrap();
        bed.hands.step(step);
        let clock = bed.open();
        assert_eq!(refused(&clock), jumped, "{step}");
        assert_eq!(refused(&bed.open()), jumped, "still so after another restart");
        clock.confirm().unwrap();
        assert!(!refused(&clock));
        assert!(!refused(&bed.open()), "the confirmation is on disk");
    }
}

#[test]
fn the_file_is_written_at_most_once_a_minute_and_only_with_times_that_are_believed() {
    let bed = Bed::new();
    let clock = bed.open();
    clock.now_ns().unwrap();
    let first = bed.file();
    bed.hands.pass(59 * SECOND_NS);
    clock.now_ns().unwrap();
    assert_eq!(bed.file(), first);
    bed.hands.pass(SECOND_NS);
    clock.now_ns().unwrap();
    let second = bed.file();
    assert_ne!(second, first);
    bed.hands.step(100 * HOUR_NS);
    bed.hands.pass(HOUR_NS);
    assert!(refused(&clock));
    assert_eq!(bed.file(), second);
}

#[test]
fn a_stop_is_written_down_and_the_next_start_counts_from_it() {
    let bed = Bed::new();
    let clock = bed.open();
    clock.now_ns().unwrap();
    // Nobody asks for three days, then the server stops in order and is off for two.
    bed.hands.pass(72 * HOUR_NS);
    clock.stop();
    bed.hands.step(48 * HOUR_NS);
    assert!(!refused(&bed.open()));
    // A time that is not believed is not written down.
    let clock = bed.open();
    clock.now_ns().unwrap();
    let file = bed.file();
    bed.hands.step(49 * HOUR_NS);
    clock.stop();
    assert_eq!(bed.file(), file);
}

#[test]
fn a_damaged_file_refuses_until_it_is_confirmed() {
    let bed = Bed::new();
    assert!(!refused(&bed.open()));
    let good = bed.file();
    for at in 0..good.len() {
        let mut bad = good.clone();
        bad[at] ^= 1;
        assert_ne!(decode(&bad), decode(&good), "byte {at}");
    }
    std::fs::write(bed.directory.path().join(CLOCK_FILE), b"holdfast-clock-1 12").unwrap();
    let clock = bed.open();
    assert!(refused(&clock));
    clock.confirm().unwrap();
    assert!(!refused(&bed.open()));
}
