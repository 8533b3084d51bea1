//! The index in RocksDB: a column family per table, keys prefixed by the vault. The only file that names `rocksdb`.

use super::log_holes;
use super::manifest_mark::{self, Noted};
use super::{Batch, IndexFailure, IndexFailureKind, MetaStore, Row, Table, Ticket};
use crate::error::StoreError;
use crate::world::{SystemVfs, Vfs};
use parking_lot::{MappedRwLockReadGuard, Mutex, RwLock, RwLockReadGuard};
use repo_format::id::VaultId;
use rocksdb::{
    BlockBasedIndexType, BlockBasedOptions, BottommostLevelCompaction, Cache, ColumnFamily, ColumnFamilyDescriptor,
    CompactOptions, DB, DBCompressionType, DBRecoveryMode, DataBlockIndexType, Direction, FlushOptions, IteratorMode,
    Options, ReadOptions, WriteBatch, WriteOptions,
};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

/// Background errors are asked for at most this often, in syncs.
const SYNCS_PER_LOOK: u64 = 16;

/// RocksDB with group commit: writes go to the log unsynced, [`MetaStore::sync`] makes them durable for everyone.
///
/// The first write or sync that fails is the last: what RocksDB does after one is not relied upon. Reads go on until
/// the index is closed.
pub struct RocksMeta {
    directory: PathBuf,
    memory_bytes: usize,
    /// `None` once closed. Held for reading by every call, for writing by what exchanges the handle.
    db: RwLock<Option<DB>>,
    write_options: WriteOptions,
    written: AtomicU64,
    /// Tickets up to here are durable.
    synced: Mutex<u64>,
    syncs: AtomicU64,
    failure: OnceLock<IndexFailure>,
    /// How long the manifest is.
    manifest: Mutex<Noted>,
}

impl Drop for RocksMeta {
    fn drop(&mut self) {
        if self.db.get_mut().is_some() {
            self.manifest.get_mut().note(&self.directory);
        }
    }
}

fn failed(error: rocksdb::Error) -> StoreError {
    match error.kind() {
        rocksdb::ErrorKind::Corruption => StoreError::IndexDamaged(error.into_string()),
        _ => StoreError::Index(error.into_string()),
    }
}

fn failure_of(error: &rocksdb::Error) -> IndexFailure {
    let text = error.as_ref();
    let kind = match error.kind() {
        rocksdb::ErrorKind::Corruption => IndexFailureKind::Damaged,
        _ if text.contains("No space left on device") || text.contains("quota exceeded") => IndexFailureKind::Full,
        _ => IndexFailureKind::Other,
    };
    IndexFailure { kind, text: text.to_owned() }
}

fn prefixed(vault: &VaultId, key: &[u8]) -> Vec<u8> {
    let mut full = Vec::with_capacity(VaultId::LEN + key.len());
    full.extend_from_slice(vault.as_bytes());
    full.extend_from_slice(key);
    full
}

/// The first key behind all of a vault's, or `None` behind the last vault possible.
fn end_of(vault: &VaultId) -> Option<[u8; VaultId::LEN]> {
    let mut end = *vault.as_bytes();
    for byte in end.iter_mut().rev() {
        match byte.checked_add(1) {
            Some(next) => {
                *byte = next;
                return Some(end);
            }
            None => *byte = 0,
        }
    }
    None
}

impl RocksMeta {
    /// Opens or creates the index in `directory`; `memory_bytes` bounds block cache and write buffers together.
    pub fn open(directory: &Path, memory_bytes: usize) -> Result<Self, StoreError> {
        manifest_mark::check(directory)?;
        log_holes::check(directory)?;
        let db = open_database(directory, memory_bytes).map_err(|error| match error.kind() {
            rocksdb::ErrorKind::Corruption => StoreError::IndexDamaged(error.into_string()),
            // A lost file of the index is an input/output error to RocksDB.
            _ => StoreError::Index(format!(
                "{}: {}; if it does not go away, stop the server and run `holdfastd rebuild-index`",
                directory.display(),
                error.into_string()
            )),
        })?;
        let mut write_options = WriteOptions::default();
        write_options.set_sync(false);
        let mut manifest = Noted::default();
        manifest.note(directory);
        Ok(RocksMeta {
            manifest: Mutex::new(manifest),
            directory: directory.to_owned(),
            memory_bytes,
            db: RwLock::new(Some(db)),
            write_options,
            written: AtomicU64::new(0),
            synced: Mutex::new(0),
            syncs: AtomicU64::new(0),
            failure: OnceLock::new(),
        })
    }

    /// Writes memory out and waits until nothing is left to be merged, for measurements.
    pub fn settle(&self) -> Result<(), StoreError> {
        let db = self.db()?;
        for table in Table::ALL {
            let family = table_of(&db, table)?;
            db.flush_cf(family).map_err(failed)?;
            db.compact_range_cf(family, None::<&[u8]>, None::<&[u8]>);
        }
        Ok(())
    }

    /// Bytes of filters and index blocks of all tables: what has to stay in memory for an absent key to cost no read.
    pub fn filter_and_index_bytes(&self) -> Result<u64, StoreError> {
        let db = self.db()?;
        let mut bytes = 0;
        for table in Table::ALL {
            let text = db.property_value_cf(table_of(&db, table)?, "rocksdb.aggregated-table-properties");
            let text = text.map_err(failed)?.unwrap_or_default();
            let figures = text.split(';').filter_map(|pair| pair.split_once('='));
            bytes += figures
                .filter(|(name, _)| name.trim().starts_with("index block size") || name.trim() == "filter block size")
                .filter_map(|(_, value)| value.trim().parse::<u64>().ok())
                .sum::<u64>();
        }
        Ok(bytes)
    }

    fn db(&self) -> Result<MappedRwLockReadGuard<'_, DB>, StoreError> {
        RwLockReadGuard::try_map(self.db.read(), Option::as_ref).map_err(|_| closed())
    }

    fn check_writable(&self) -> Result<(), StoreError> {
        self.failure.get().map_or(Ok(()), |failure| Err(StoreError::IndexFailed(failure.text.clone())))
    }

    /// Notes a failed write: nothing is written from now on.
    fn fail(&self, error: &rocksdb::Error) -> StoreError {
        let failure = failure_of(error);
        if self.failure.set(failure.clone()).is_ok() {
            tracing::error!(reason = %failure.text, "the index could not be written");
        }
        StoreError::IndexFailed(failure.text)
    }

    /// Memory tables, obsolete logs and range tombstones keep what was deleted: flushed, compacted away, and the logs
    /// and the manifest begun anew by opening the files again. Callers of other vaults wait meanwhile.
    fn forget(&self, from: &[u8], end: &[u8]) -> Result<(), StoreError> {
        let mut handle = self.db.write();
        let Some(db) = &*handle else { return Err(closed()) };
        let families = Table::ALL.map(|table| table_of(db, table));
        let families = families.into_iter().collect::<Result<Vec<_>, _>>()?;
        db.flush_wal(true).map_err(|error| self.fail(&error))?;
        let mut flush = FlushOptions::default();
        flush.set_wait(true);
        db.flush_cfs_opt(&families, &flush).map_err(|error| self.fail(&error))?;
        let mut compact = CompactOptions::default();
        compact.set_exclusive_manual_compaction(true);
        compact.set_bottommost_level_compaction(BottommostLevelCompaction::Force);
        for family in families {
            db.compact_range_cf_opt(family, Some(from), Some(end), &compact);
        }
        let live = db.live_files().map_err(failed)?;
        let is_inside = |key: &Option<Vec<u8>>| key.as_ref().is_some_and(|key| key.starts_with(from));
        if let Some(file) = live.iter().find(|file| is_inside(&file.start_key) || is_inside(&file.end_key)) {
            return Err(StoreError::Index(format!("{} still names a deleted vault; try again", file.name)));
        }
        *self.synced.lock() = self.written.load(Ordering::Acquire);
        // Closed before it is opened: two handles of one directory exclude each other.
        *handle = None;
        let opened = open_database(&self.directory, self.memory_bytes).map_err(|error| self.fail(&error))?;
        *handle = Some(opened);
        self.manifest.lock().note(&self.directory);
        Ok(())
    }
}

fn closed() -> StoreError {
    StoreError::IndexFailed("it has been closed".into())
}

fn table_of(db: &DB, table: Table) -> Result<&ColumnFamily, StoreError> {
    db.cf_handle(table.name()).ok_or_else(|| StoreError::Index(format!("no table {}", table.name())))
}

fn open_database(directory: &Path, memory_bytes: usize) -> Result<DB, rocksdb::Error> {
    if is_cut_short(directory) {
        drop(open_checked(directory, memory_bytes, Logs::Any)?);
    }
    open_checked(directory, memory_bytes, Logs::FollowEachOther)
}

/// What is asked of the write-ahead logs.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Logs {
    /// There is one at least, and each begins where the one before it says that it ended.
    FollowEachOther,
    Any,
}

/// Whether the power went while an index was made: it has a manifest and no log yet, which RocksDB would take for a
/// lost one. No row can be in there: the log comes before the first, and tables are made from logs.
fn is_cut_short(directory: &Path) -> bool {
    let names = SystemVfs.list(directory).unwrap_or_default();
    names.iter().any(|name| name == "CURRENT")
        && !names.iter().any(|name| name.ends_with(".log") || name.ends_with(".sst"))
}

fn open_checked(directory: &Path, memory_bytes: usize, logs: Logs) -> Result<DB, rocksdb::Error> {
    let cache = Cache::new_lru_cache(memory_bytes / 2);
    let mut options = Options::default();
    options.create_if_missing(true);
    options.create_missing_column_families(true);
    // After a loss of power the log's unsynced end has holes and torn records: everything before the first counts.
    options.set_wal_recovery_mode(DBRecoveryMode::PointInTime);
    options.set_track_and_verify_wals_in_manifest(true);
    options.set_paranoid_checks(true);
    options.set_max_background_jobs(2);
    options.set_bytes_per_sync(1 << 20);
    options.set_wal_bytes_per_sync(1 << 20);
    options.set_max_total_wal_size((memory_bytes as u64).max(64 << 20));
    options.set_db_write_buffer_size(memory_bytes / 2);
    options.set_keep_log_file_num(4);
    options.set_max_log_file_size(4 << 20);
    options.set_max_open_files(512);
    // Two logs in a row may be unsynced: the older may have lost its end at a record's border, which reads like an end,
    // while the newer survives. So each says where the one before it ended. Only to be set by text.
    let verify = format!("track_and_verify_wals={}", logs == Logs::FollowEachOther);
    let options = options.get_options_from_string(verify)?;
    let descriptors =
        Table::ALL.map(|table| ColumnFamilyDescriptor::new(table.name(), table_options(&cache, memory_bytes)));
    DB::open_cf_descriptors(&options, directory, descriptors)
}

fn table_options(cache: &Cache, memory_bytes: usize) -> Options {
    let mut blocks = BlockBasedOptions::default();
    blocks.set_block_cache(cache);
    blocks.set_block_size(4 << 10);
    blocks.set_format_version(6);
    blocks.set_hybrid_ribbon_filter(12.0, 2);
    blocks.set_whole_key_filtering(true);
    blocks.set_optimize_filters_for_memory(true);
    blocks.set_index_type(BlockBasedIndexType::TwoLevelIndexSearch);
    blocks.set_partition_filters(true);
    blocks.set_metadata_block_size(16 << 10);
    // Neighbouring keys share their vault: told once for sixteen of them.
    blocks.set_index_block_restart_interval(16);
    blocks.set_cache_index_and_filter_blocks(true);
    blocks.set_pin_top_level_index_and_filter(true);
    blocks.set_data_block_index_type(DataBlockIndexType::BinaryAndHash);
    blocks.set_data_block_hash_ratio(0.75);
    let mut options = Options::default();
    options.set_block_based_table_factory(&blocks);
    // Keys are random: nothing to compress.
    options.set_compression_type(DBCompressionType::None);
    options.set_level_compaction_dynamic_level_bytes(true);
    options.set_write_buffer_size((memory_bytes / 4).clamp(4 << 20, 64 << 20));
    options
}

impl MetaStore for RocksMeta {
    fn get(&self, vault: &VaultId, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        let db = self.db()?;
        db.get_cf(table_of(&db, table)?, prefixed(vault, key)).map_err(failed)
    }

    fn multi_get(&self, vault: &VaultId, table: Table, keys: &[&[u8]]) -> Result<Vec<Option<Vec<u8>>>, StoreError> {
        // Sorted keys share block reads; the answers go back to the order of the question.
        let mut order: Vec<usize> = (0..keys.len()).collect();
        order.sort_unstable_by_key(|&index| keys[index]);
        let sorted: Vec<Vec<u8>> = order.iter().map(|&index| prefixed(vault, keys[index])).collect();
        let db = self.db()?;
        let found = db.batched_multi_get_cf(table_of(&db, table)?, sorted.iter(), true);
        let mut answers = vec![None; keys.len()];
        for (index, row) in order.into_iter().zip(found) {
            answers[index] = row.map_err(failed)?.map(|value| value.to_vec());
        }
        Ok(answers)
    }

    fn scan(&self, vault: &VaultId, table: Table, from: &[u8], limit: usize) -> Result<Vec<Row>, StoreError> {
        let mut options = ReadOptions::default();
        if let Some(end) = end_of(vault) {
            options.set_iterate_upper_bound(end.to_vec());
        }
        let start = prefixed(vault, from);
        let mode = IteratorMode::From(&start, Direction::Forward);
        let mut rows = Vec::new();
        let db = self.db()?;
        for row in db.iterator_cf_opt(table_of(&db, table)?, options, mode).take(limit) {
            let (key, value) = row.map_err(failed)?;
            rows.push((key[VaultId::LEN.min(key.len())..].to_vec(), value.into_vec()));
        }
        Ok(rows)
    }

    fn write(&self, vault: &VaultId, batch: Batch) -> Result<Ticket, StoreError> {
        let db = self.db()?;
        self.check_writable()?;
        let mut changes = WriteBatch::default();
        for (table, key, value) in batch.changes {
            let family = table_of(&db, table)?;
            match value {
                Some(value) => changes.put_cf(family, prefixed(vault, &key), value),
                None => changes.delete_cf(family, prefixed(vault, &key)),
            }
        }
        db.write_opt(changes, &self.write_options).map_err(|error| self.fail(&error))?;
        // Counted after the write: a sync that reads this number covers it.
        Ok(Ticket(self.written.fetch_add(1, Ordering::AcqRel) + 1))
    }

    fn written(&self) -> Ticket {
        Ticket(self.written.load(Ordering::Acquire))
    }

    fn sync(&self, ticket: Ticket) -> Result<(), StoreError> {
        let db = self.db()?;
        let mut synced = self.synced.lock();
        if *synced >= ticket.0 {
            return Ok(());
        }
        self.check_writable()?;
        let covered = self.written.load(Ordering::Acquire);
        db.flush_wal(true).map_err(|error| self.fail(&error))?;
        if self.syncs.fetch_add(1, Ordering::Relaxed).is_multiple_of(SYNCS_PER_LOOK) {
            self.look_for_background_errors(&db)?;
        }
        self.manifest.lock().note_if_changed(&self.directory);
        *synced = covered;
        Ok(())
    }

    fn drop_vault(&self, vault: &VaultId) -> Result<(), StoreError> {
        let end = end_of(vault).ok_or_else(|| StoreError::Index("no key behind this vault".into()))?;
        let db = self.db()?;
        self.check_writable()?;
        for table in Table::ALL {
            let family = table_of(&db, table)?;
            db.delete_file_in_range_cf(family, vault.as_bytes(), &end).map_err(|error| self.fail(&error))?;
            db.delete_range_cf(family, vault.as_bytes(), &end).map_err(|error| self.fail(&error))?;
        }
        db.flush_wal(true).map_err(|error| self.fail(&error))
    }

    fn shred_vault(&self, vault: &VaultId) -> Result<(), StoreError> {
        self.drop_vault(vault)?;
        let end = end_of(vault).ok_or_else(|| StoreError::Index("no key behind this vault".into()))?;
        self.forget(vault.as_bytes(), &end)
    }

    fn syncs(&self) -> u64 {
        self.syncs.load(Ordering::Relaxed)
    }

    fn failure(&self) -> Option<IndexFailure> {
        self.failure.get().cloned()
    }

    fn close(&self) {
        let mut handle = self.db.write();
        if handle.is_some() {
            self.manifest.lock().note(&self.directory);
        }
        *handle = None;
    }
}

impl RocksMeta {
    /// A flush or compaction that failed in the background is a failed write that nobody was told of.
    fn look_for_background_errors(&self, db: &DB) -> Result<(), StoreError> {
        match db.property_int_value(rocksdb::properties::BACKGROUND_ERRORS) {
            Ok(Some(0) | None) => Ok(()),
            Ok(Some(errors)) => {
                let text = format!("{errors} failed writes in the background; its LOG file has the reason");
                let failure = IndexFailure { kind: IndexFailureKind::Other, text: text.clone() };
                if self.failure.set(failure).is_ok() {
                    tracing::error!(reason = %text, "the index could not be written");
                }
                Err(StoreError::IndexFailed(text))
            }
            Err(error) => Err(self.fail(&error)),
        }
    }
}

#[cfg(test)]
mod tests;
