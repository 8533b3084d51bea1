//! The index in RocksDB: a column family per table, keys prefixed by the vault. The only file that names `rocksdb`.

use super::{Batch, MetaStore, Row, Table, Ticket};
use crate::error::StoreError;
use parking_lot::Mutex;
use repo_format::id::VaultId;
use rocksdb::{
    BlockBasedIndexType, BlockBasedOptions, Cache, ColumnFamily, ColumnFamilyDescriptor, DB, DBCompressionType,
    DBRecoveryMode, DataBlockIndexType, Direction, IteratorMode, Options, ReadOptions, WriteBatch, WriteOptions,
};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

/// RocksDB with group commit: writes go to the log unsynced, [`MetaStore::sync`] makes them durable for everyone.
pub struct RocksMeta {
    db: DB,
    write_options: WriteOptions,
    written: AtomicU64,
    /// Tickets up to here are durable.
    synced: Mutex<u64>,
    syncs: AtomicU64,
}

fn failed(error: rocksdb::Error) -> StoreError {
    StoreError::Index(error.into_string())
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
        let cache = Cache::new_lru_cache(memory_bytes / 2);
        let mut options = Options::default();
        options.create_if_missing(true);
        options.create_missing_column_families(true);
        options.set_wal_recovery_mode(DBRecoveryMode::TolerateCorruptedTailRecords);
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
        let descriptors =
            Table::ALL.map(|table| ColumnFamilyDescriptor::new(table.name(), table_options(&cache, memory_bytes)));
        let db = DB::open_cf_descriptors(&options, directory, descriptors).map_err(failed)?;
        let mut write_options = WriteOptions::default();
        write_options.set_sync(false);
        Ok(RocksMeta { db, write_options, written: AtomicU64::new(0), synced: Mutex::new(0), syncs: AtomicU64::new(0) })
    }

    /// Writes memory out and waits until nothing is left to be merged, for measurements.
    pub fn settle(&self) -> Result<(), StoreError> {
        for table in Table::ALL {
            let family = self.table(table)?;
            self.db.flush_cf(family).map_err(failed)?;
            self.db.compact_range_cf(family, None::<&[u8]>, None::<&[u8]>);
        }
        Ok(())
    }

    /// Bytes of filters and index blocks of all tables: what has to stay in memory for an absent key to cost no read.
    pub fn filter_and_index_bytes(&self) -> Result<u64, StoreError> {
        let mut bytes = 0;
        for table in Table::ALL {
            let text = self.db.property_value_cf(self.table(table)?, "rocksdb.aggregated-table-properties");
            let text = text.map_err(failed)?.unwrap_or_default();
            let figures = text.split(';').filter_map(|pair| pair.split_once('='));
            bytes += figures
                .filter(|(name, _)| name.trim().starts_with("index block size") || name.trim() == "filter block size")
                .filter_map(|(_, value)| value.trim().parse::<u64>().ok())
                .sum::<u64>();
        }
        Ok(bytes)
    }

    fn table(&self, table: Table) -> Result<&ColumnFamily, StoreError> {
        self.db.cf_handle(table.name()).ok_or_else(|| StoreError::Index(format!("no table {}", table.name())))
    }
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
        self.db.get_cf(self.table(table)?, prefixed(vault, key)).map_err(failed)
    }

    fn multi_get(&self, vault: &VaultId, table: Table, keys: &[&[u8]]) -> Result<Vec<Option<Vec<u8>>>, StoreError> {
        // Sorted keys share block reads; the answers go back to the order of the question.
        let mut order: Vec<usize> = (0..keys.len()).collect();
        order.sort_unstable_by_key(|&index| keys[index]);
        let sorted: Vec<Vec<u8>> = order.iter().map(|&index| prefixed(vault, keys[index])).collect();
        let found = self.db.batched_multi_get_cf(self.table(table)?, sorted.iter(), true);
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
        for row in self.db.iterator_cf_opt(self.table(table)?, options, mode).take(limit) {
            let (key, value) = row.map_err(failed)?;
            rows.push((key[VaultId::LEN.min(key.len())..].to_vec(), value.into_vec()));
        }
        Ok(rows)
    }

    fn write(&self, vault: &VaultId, batch: Batch) -> Result<Ticket, StoreError> {
        let mut changes = WriteBatch::default();
        for (table, key, value) in batch.changes {
            let family = self.table(table)?;
            match value {
                Some(value) => changes.put_cf(family, prefixed(vault, &key), value),
                None => changes.delete_cf(family, prefixed(vault, &key)),
            }
        }
        self.db.write_opt(changes, &self.write_options).map_err(failed)?;
        // Counted after the write: a sync that reads this number covers it.
        Ok(Ticket(self.written.fetch_add(1, Ordering::AcqRel) + 1))
    }

    fn written(&self) -> Ticket {
        Ticket(self.written.load(Ordering::Acquire))
    }

    fn sync(&self, ticket: Ticket) -> Result<(), StoreError> {
        let mut synced = self.synced.lock();
        if *synced >= ticket.0 {
            return Ok(());
        }
        let covered = self.written.load(Ordering::Acquire);
        self.db.flush_wal(true).map_err(failed)?;
        self.syncs.fetch_add(1, Ordering::Relaxed);
        *synced = covered;
        Ok(())
    }

    fn drop_vault(&self, vault: &VaultId) -> Result<(), StoreError> {
        let end = end_of(vault).ok_or_else(|| StoreError::Index("no key behind this vault".into()))?;
        for table in Table::ALL {
            let family = self.table(table)?;
            self.db.delete_file_in_range_cf(family, vault.as_bytes(), &end).map_err(failed)?;
            self.db.delete_range_cf(family, vault.as_bytes(), &end).map_err(failed)?;
        }
        self.db.flush_wal(true).map_err(failed)
    }

    fn syncs(&self) -> u64 {
        self.syncs.load(Ordering::Relaxed)
    }
}
