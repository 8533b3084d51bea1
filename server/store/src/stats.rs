//! What the engine has done since start, as plain counts for metrics and tests.

use crate::vault::{Durable, Received};
use std::sync::atomic::{AtomicU64, Ordering};

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident),* $(,)?) => {
        /// Running counters.
        #[derive(Default)]
        pub(crate) struct Stats { $($name: AtomicU64),* }

        /// A reading of the counters.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct StatsReading { $($(#[$doc])* pub $name: u64),* }

        impl Stats {
            pub(crate) fn read_all(&self) -> StatsReading {
                StatsReading { $($name: self.$name.load(Ordering::Relaxed)),* }
            }
        }
    };
}

counters! {
    /// Chunks stored.
    chunks_stored,
    /// Nodes stored.
    nodes_stored,
    /// Frame bytes appended.
    bytes_stored,
    /// Barriers run.
    barriers,
    /// Snapshots committed.
    commits,
    /// Objects read from packs.
    objects_read,
    /// Their payload bytes.
    bytes_read,
    /// Objects found damaged.
    objects_damaged,
    /// Unreferenced objects whose rows were removed.
    objects_reaped,
    /// Bytes of their frames.
    bytes_reaped,
    /// Packs whose files were removed.
    packs_dropped,
    /// Bytes of frames copied by compaction.
    bytes_copied,
}

impl Stats {
    pub(crate) fn received(&self, received: &Received) {
        self.chunks_stored.fetch_add(received.new_objects, Ordering::Relaxed);
        self.bytes_stored.fetch_add(received.stored_bytes, Ordering::Relaxed);
    }
    pub(crate) fn durable(&self, durable: &Durable) {
        self.nodes_stored.fetch_add(durable.new_objects, Ordering::Relaxed);
        self.bytes_stored.fetch_add(durable.stored_bytes, Ordering::Relaxed);
    }
    pub(crate) fn barrier(&self) {
        self.barriers.fetch_add(1, Ordering::Relaxed);
    }
    pub(crate) fn committed(&self) {
        self.commits.fetch_add(1, Ordering::Relaxed);
    }
    pub(crate) fn read(&self, bytes: u64) {
        self.objects_read.fetch_add(1, Ordering::Relaxed);
        self.bytes_read.fetch_add(bytes, Ordering::Relaxed);
    }
    pub(crate) fn reaped(&self, objects: u64, bytes: u64) {
        self.objects_reaped.fetch_add(objects, Ordering::Relaxed);
        self.bytes_reaped.fetch_add(bytes, Ordering::Relaxed);
    }
    pub(crate) fn copied(&self, bytes: u64) {
        self.bytes_copied.fetch_add(bytes, Ordering::Relaxed);
    }
    pub(crate) fn dropped(&self, packs: u64) {
        self.packs_dropped.fetch_add(packs, Ordering::Relaxed);
    }
    pub(crate) fn damaged(&self) {
        self.objects_damaged.fetch_add(1, Ordering::Relaxed);
    }
}
