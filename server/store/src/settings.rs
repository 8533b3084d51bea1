//! Settings of the engine and their limits. Values only; reads no files.

use repo_format::id::VaultId;
use repo_format::limits::PACK_BYTES_TARGET;
use std::path::{Path, PathBuf};

/// Memory for index and caches when nothing else is said, bytes.
pub const MEMORY_BYTES_DEFAULT: usize = 128 << 20;
/// Smallest memory setting that works, bytes.
pub const MEMORY_BYTES_MIN: usize = 16 << 20;
/// Objects an audit counts in one pass.
const AUDIT_SLICE_OBJECTS: u64 = 1 << 20;
/// The reserve is this share of the volume...
const RESERVE_SHARE: u64 = 20;
/// ...but at least this much...
pub const RESERVE_BYTES_MIN: u64 = 64 << 20;
/// ...and at most this much, bytes.
pub const RESERVE_BYTES_MAX: u64 = 20 << 30;
/// The ballast of the data volume is this share of it...
const BALLAST_SHARE: u64 = 100;
/// ...but at least this much, of which a quarter lets an index that ran out of space be opened again...
const BALLAST_BYTES_MIN: u64 = 128 << 20;
/// ...and at most this much, bytes.
const BALLAST_BYTES_MAX: u64 = 256 << 20;
/// A session without requests for this long ends, nanoseconds.
pub const SESSION_IDLE_NS_DEFAULT: i64 = 24 * 3600 * 1_000_000_000;
/// An open pack nobody writes to is finished after this long, nanoseconds.
pub const PACK_IDLE_NS_DEFAULT: i64 = 600 * 1_000_000_000;
/// A journal with fewer records than this is not written anew, however few of them still say something.
pub const JOURNAL_RECORDS_MIN: u64 = 1024;
/// After the opening of a vault, collection waits this long for uploads that were open before to be heard of again,
/// nanoseconds: what they had sent without an answer need not be sent again then.
pub const REATTACH_NS_DEFAULT: i64 = 5 * 1_000_000_000;

const _: () = assert!(MEMORY_BYTES_MIN <= MEMORY_BYTES_DEFAULT);
const _: () = assert!(RESERVE_BYTES_MIN < RESERVE_BYTES_MAX);

/// Where the store is and what it may use.
#[derive(Clone, Debug)]
pub struct StoreSettings {
    /// Folder of keyring, index and vaults.
    pub directory: PathBuf,
    /// Memory for the index and the cache of decoded objects together, bytes.
    pub memory_bytes: usize,
    /// Space kept free for deletes and the journal; `None`: 5 % of the volume, at least 64 MiB, at most 20 GiB.
    pub reserve_bytes: Option<u64>,
    /// Space on the data volume that is taken, so that no other program can fill it, and given up for what frees space;
    /// `None`: 1 % of the volume, at least 128 MiB, at most 256 MiB. Made only where it leaves twice the reserve free.
    pub ballast_bytes: Option<u64>,
    /// Folder of the index; `None`: in `directory`. May lie on a volume of its own, which then has a reserve of its own
    /// and a ballast file.
    pub index_directory: Option<PathBuf>,
    /// A pack that would grow beyond this is finished and another begun, bytes; at most `PACK_BYTES_TARGET`. Tests make it
    /// small, so that few objects make many packs.
    pub pack_bytes_target: u64,
    /// Objects an audit counts in one pass over all nodes: about 60 bytes of memory each.
    pub audit_slice_objects: u64,
    /// A vault's journal is written anew when it has at least this many records, and four for each snapshot. Tests make
    /// it small.
    pub journal_records_min: u64,
    /// A session without requests for this long ends, nanoseconds. It costs its holder a new session, nothing else.
    pub session_idle_ns: i64,
    /// An open pack nobody writes to is finished after this long, nanoseconds.
    pub pack_idle_ns: i64,
    /// How long collection waits after the opening of a vault for its uploads to be heard of, nanoseconds.
    pub reattach_ns: i64,
}

impl StoreSettings {
    /// Defaults in `directory`.
    pub fn new(directory: PathBuf) -> Self {
        StoreSettings {
            directory,
            memory_bytes: MEMORY_BYTES_DEFAULT,
            reserve_bytes: None,
            ballast_bytes: None,
            index_directory: None,
            pack_bytes_target: PACK_BYTES_TARGET,
            audit_slice_objects: AUDIT_SLICE_OBJECTS,
            journal_records_min: JOURNAL_RECORDS_MIN,
            session_idle_ns: SESSION_IDLE_NS_DEFAULT,
            pack_idle_ns: PACK_IDLE_NS_DEFAULT,
            reattach_ns: REATTACH_NS_DEFAULT,
        }
    }

    /// Reserve on a volume of `total` bytes.
    pub fn reserve_bytes(&self, total: u64) -> u64 {
        self.reserve_bytes.unwrap_or((total / RESERVE_SHARE).clamp(RESERVE_BYTES_MIN, RESERVE_BYTES_MAX))
    }

    /// Ballast on a data volume of `total` bytes.
    pub fn ballast_bytes(&self, total: u64) -> u64 {
        self.ballast_bytes.unwrap_or((total / BALLAST_SHARE).clamp(BALLAST_BYTES_MIN, BALLAST_BYTES_MAX))
    }

    /// Folder in which the index lies beside its ballast.
    pub(crate) fn index_root(&self) -> &Path {
        self.index_directory.as_deref().unwrap_or(&self.directory)
    }

    pub(crate) fn vault_directory(&self, vault: &VaultId) -> PathBuf {
        self.vaults_directory().join(vault.to_string())
    }

    /// Folder of all vaults' folders.
    pub(crate) fn vaults_directory(&self) -> PathBuf {
        self.directory.join("vaults")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reserve_is_a_share_within_bounds() {
        let settings = StoreSettings::new(PathBuf::new());
        assert_eq!(settings.reserve_bytes(1 << 30), RESERVE_BYTES_MIN);
        assert_eq!(settings.reserve_bytes(100 << 30), 5 << 30);
        assert_eq!(settings.reserve_bytes(100 << 40), RESERVE_BYTES_MAX);
        assert_eq!(StoreSettings { reserve_bytes: Some(7), ..settings }.reserve_bytes(1 << 40), 7);
    }
}
