//! The file system side of the agent: finding objects, reading them, and putting them back.
//!
//! Knows nothing of chunks, the network or the server. Everything goes through directory descriptors, one component
//! at a time, so that paths of any length work and a link or a rename on the way cannot lead elsewhere.
//!
//! Backing up:
//! ```text
//! for event in Scanner::new(["/etc", "/home"], options)? {      // Iterator + Send, keys strictly ascending
//!     match event {
//!         ScanEvent::Warning(w) => report(w),                   // never fatal; WarningKind::RootIsLink is a remark
//!         ScanEvent::Item(item) => {                            // ScanItem: key, stat, link_group, is_ancestor; Send + Clone
//!             // unchanged?  compare item.stat with what the cache remembers; nothing has been opened so far
//!             // small file: read_small(&item, 64 KiB, &mut buffer)? -> SmallRead::Whole(reader) | Other(reader)
//!             // large file: let mut reader = FileReader::open(&item)?;
//!             //             loop { match reader.next_piece(&mut buffer)? { Data(n) | Hole{offset,len} | End } }
//!             //             let end = reader.finish()?;       // end.size is the entry's size, end.changed is reported
//!             // metadata:   metadata_reader.read(&item)?  or, of an open file,  .read_open(&item, &reader)
//!             //             metadata.into_entry(Some(EntryKind::File{..}), |large_xattr| ..)? -> Entry
//!         }
//!     }
//! }
//! ```
//! Restoring:
//! ```text
//! let target = RestoreTarget::open(path, RestoreOptions { on_conflict, owners, .. })?;
//! if policy is Stop && !target.was_empty() { for (key, entry) in snapshot { conflicts.extend(target.conflict(&key, &entry)?) } }
//! for (key, entry) in snapshot {                                // one thread, key order; keys are relative to the target
//!     match target.create(&key, &entry, raw_xattrs(&entry, fetch_chunk)?)? {      // an error is this entry's only
//!         Created::File(writer) => {                            // Box; Send + Sync; share as Arc::from(writer), last one out does Arc::into_inner(..).finish()
//!             writer.write_at(offset, bytes)?;                  // any order, any thread; holes are simply not written
//!             writer.finish()?;                                 // or drop it: the unfinished file is removed
//!         }
//!         Created::Done | Created::LinkedLater | Created::LeftOut => {}
//!     }
//! }
//! let report = target.finish()?;                                // hard links, then directory metadata; after all writers
//! ```
//! Dry run: `RestoreTarget::open_existing` and only `conflict`.
mod content;
mod dir;
mod exclude;
mod fd_pool;
mod metadata;
mod names;
mod owners;
mod restore;
mod roots;
mod scan;
mod stat;
mod xattr;

pub use content::{FileReader, Piece, ReadEnd, ReadError, SmallRead, read_small};
pub use exclude::{Excludes, PatternError};
pub use metadata::{Metadata, MetadataReader};
pub use names::{LISTING_BYTES_MAX, WAITING_BYTES_MAX};
pub use owners::Owners;
pub use restore::{
    Conflict, ConflictPolicy, Created, FileWriter, OwnerMap, OwnerMapError, Problem, ProblemKind, RestoreError,
    RestoreOptions, RestoreReport, RestoreTarget, raw_xattrs,
};
pub use roots::RootError;
pub use scan::{ScanError, ScanEvent, ScanItem, ScanOptions, ScanWarning, Scanner, WarningKind};
pub use stat::{FileKind, FileStat};
pub use xattr::RawXattr;
