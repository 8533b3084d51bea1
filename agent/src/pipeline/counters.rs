//! What a run did, counted where it happens. Tests compare these instead of times.

use serde::Serialize;
use std::sync::atomic::{AtomicU64, Ordering};

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// Counters of a run that is going on.
        #[derive(Debug, Default)]
        pub struct Counters {
            $($(#[$doc])* pub $name: AtomicU64,)*
        }

        /// The counters at one moment.
        #[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
        pub struct Counts {
            $($(#[$doc])* pub $name: u64,)*
        }

        impl Counters {
            /// All of them now.
            pub fn counts(&self) -> Counts {
                Counts { $($name: self.$name.load(Ordering::Relaxed),)* }
            }
        }
    };
}

counters! {
    /// Regular files in the snapshot.
    files,
    /// Directories in the snapshot.
    directories,
    /// Links, devices, fifos and sockets in the snapshot.
    others,
    /// Sum of file sizes, bytes.
    logical_bytes,
    /// Files taken over from the base snapshot without opening them.
    files_unchanged,
    /// Of those, found under another name by device and inode.
    files_moved,
    /// Files opened.
    files_opened,
    /// Bytes read from files or standard input.
    bytes_read,
    /// Files read whose content was that of the base snapshot.
    files_same_content,
    /// Unchanged files read only to bundle them again, so that bundles stay full; not among those opened.
    files_rebundled,
    /// Their bytes; not among those read.
    bytes_rebundled,
    /// Warnings.
    warnings,
    /// Chunks the pipeline asked to be stored.
    chunks,
    /// Of those, known to be stored or on their way without asking.
    chunks_repeated,
    /// Chunks the server already had.
    chunks_present,
    /// Chunks sent.
    chunks_sent,
    /// Bytes of chunks sent, compressed.
    chunk_bytes_sent,
    /// Chunks sent again because the server forgot them before they were durable.
    chunks_resent,
    /// Bytes of those, compressed.
    chunk_bytes_resent,
    /// Chunks sent again although they were durable: always zero.
    chunks_resent_durable,
    /// Nodes sent.
    nodes_sent,
    /// Bytes of nodes sent, compressed.
    node_bytes_sent,
    /// Nodes that the base snapshot has: not sent.
    nodes_unchanged,
    /// Rounds made durable.
    rounds,
    /// Times the server forgot what was not durable.
    incarnations_changed,
    /// Damaged objects of the base snapshot that the server has soundly again.
    objects_healed,
    /// Damaged objects of the base snapshot that this run had not the bytes of.
    objects_still_damaged,
    /// Objects new to the vault, as the server says.
    objects_added,
    /// Bytes of those in packs, as the server says.
    bytes_added,
}

/// Adds to a counter.
pub fn add(counter: &AtomicU64, value: u64) {
    counter.fetch_add(value, Ordering::Relaxed);
}
