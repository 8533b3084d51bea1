//! An index whose only durable part is a log of batches on the simulated disk, so that one disk and one crash cover
//! packs, journals and index alike. Written unsynced, synced on demand; after a crash the longest sound prefix counts,
//! as RocksDB does it.

use parking_lot::Mutex;
use repo_format::id::VaultId;
use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use store::StoreError;
use store::meta::{Batch, IndexFailure, IndexFailureKind, MetaStore, Row, Table, Ticket};
use store::world::{Vfs, VfsFile};

/// Its file.
pub const LOG: &str = "log";
/// Length and checksum in front of every record.
const HEAD_BYTES: usize = 12;

struct State {
    rows: BTreeMap<Vec<u8>, Vec<u8>>,
    len: u64,
    written: u64,
    /// A write or sync failed: nothing more is taken, as in RocksDB.
    failed: Option<IndexFailureKind>,
}

/// The index.
pub struct LogMeta {
    file: Arc<dyn VfsFile>,
    state: Mutex<State>,
    synced: Mutex<u64>,
    syncs: AtomicU64,
}

fn failed(error: io::Error) -> StoreError {
    StoreError::Index(error.to_string())
}

fn kind_of(error: &io::Error) -> IndexFailureKind {
    if error.kind() == io::ErrorKind::StorageFull { IndexFailureKind::Full } else { IndexFailureKind::Other }
}

fn key_of(vault: &VaultId, table: Table, key: &[u8]) -> Vec<u8> {
    let mut full = Vec::with_capacity(VaultId::LEN + 1 + key.len());
    full.extend_from_slice(vault.as_bytes());
    full.push(table as u8);
    full.extend_from_slice(key);
    full
}

fn put(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend_from_slice(&(bytes.len() as u32).to_le_bytes());
    out.extend_from_slice(bytes);
}

fn checksum(payload: &[u8]) -> [u8; 8] {
    let mut sum = [0; 8];
    sum.copy_from_slice(&blake3::hash(payload).as_bytes()[..8]);
    sum
}

fn take<'a>(bytes: &mut &'a [u8]) -> Option<&'a [u8]> {
    let (len, rest) = bytes.split_first_chunk::<4>()?;
    let (taken, rest) = rest.split_at_checked(u32::from_le_bytes(*len) as usize)?;
    *bytes = rest;
    Some(taken)
}

/// One record's changes: key, and the value or nothing; a key alone of a vault's length drops the vault.
fn replay(payload: &[u8], rows: &mut BTreeMap<Vec<u8>, Vec<u8>>) {
    let mut rest = payload;
    while let Some((kind, after)) = rest.split_first() {
        rest = after;
        let Some(key) = take(&mut rest) else { return };
        match kind {
            1 => {
                let Some(value) = take(&mut rest) else { return };
                rows.insert(key.to_vec(), value.to_vec());
            }
            0 => {
                rows.remove(key);
            }
            _ => {
                let doomed: Vec<Vec<u8>> = rows
                    .range(key.to_vec()..)
                    .take_while(|(at, _)| at.starts_with(key))
                    .map(|(at, _)| at.clone())
                    .collect();
                for at in doomed {
                    rows.remove(&at);
                }
            }
        }
    }
}

impl LogMeta {
    /// Opens or creates the index in `directory`.
    pub fn open(vfs: &dyn Vfs, directory: &Path) -> Result<Self, StoreError> {
        vfs.create_dir_all(directory).map_err(failed)?;
        let path = directory.join(LOG);
        let mut rows = BTreeMap::new();
        let mut len = 0;
        let file = match vfs.open_write(&path) {
            Ok(file) => {
                let mut bytes = vec![0; file.len().map_err(failed)? as usize];
                file.read_at(0, &mut bytes).map_err(failed)?;
                let mut at = 0;
                while let Some(head) = bytes.get(at..at + HEAD_BYTES) {
                    let size = u32::from_le_bytes([head[0], head[1], head[2], head[3]]) as usize;
                    let Some(payload) = bytes.get(at + HEAD_BYTES..at + HEAD_BYTES + size) else { break };
                    if size == 0 || checksum(payload) != head[4..HEAD_BYTES] {
                        break;
                    }
                    replay(payload, &mut rows);
                    at += HEAD_BYTES + size;
                }
                len = at as u64;
                if at < bytes.len() {
                    file.truncate(len).map_err(failed)?;
                }
                // What a killed process left in memory is read, so it must be on disk: RocksDB writes it to a table.
                file.sync_data().map_err(failed)?;
                file
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => vfs.create_new(&path).map_err(failed)?,
            Err(error) => return Err(failed(error)),
        };
        // Also where it was there: a killed process may have left the name in memory alone.
        vfs.sync_dir(directory).map_err(failed)?;
        Ok(LogMeta {
            file,
            state: Mutex::new(State { rows, len, written: 0, failed: None }),
            synced: Mutex::new(0),
            syncs: AtomicU64::new(0),
        })
    }

    /// Whether any row is of this vault.
    pub fn holds(&self, vault: &VaultId) -> bool {
        self.state.lock().rows.keys().any(|key| key.starts_with(vault.as_bytes()))
    }

    fn append(&self, payload: &[u8]) -> Result<Ticket, StoreError> {
        let mut state = self.state.lock();
        if state.failed.is_some() {
            return Err(StoreError::IndexFailed("a write failed before".into()));
        }
        let mut record = Vec::with_capacity(HEAD_BYTES + payload.len());
        record.extend_from_slice(&(payload.len() as u32).to_le_bytes());
        record.extend_from_slice(&checksum(payload));
        record.extend_from_slice(payload);
        if let Err(error) = self.file.write_at(state.len, &record) {
            state.failed = Some(kind_of(&error));
            return Err(failed(error));
        }
        state.len += record.len() as u64;
        replay(payload, &mut state.rows);
        state.written += 1;
        Ok(Ticket(state.written))
    }
}

impl MetaStore for LogMeta {
    fn get(&self, vault: &VaultId, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(self.state.lock().rows.get(&key_of(vault, table, key)).cloned())
    }
    fn multi_get(&self, vault: &VaultId, table: Table, keys: &[&[u8]]) -> Result<Vec<Option<Vec<u8>>>, StoreError> {
        keys.iter().map(|key| self.get(vault, table, key)).collect()
    }
    fn scan(&self, vault: &VaultId, table: Table, from: &[u8], limit: usize) -> Result<Vec<Row>, StoreError> {
        let prefix = key_of(vault, table, &[]);
        let state = self.state.lock();
        let rows = state.rows.range(key_of(vault, table, from)..).take_while(|(key, _)| key.starts_with(&prefix));
        Ok(rows.take(limit).map(|(key, value)| (key[prefix.len()..].to_vec(), value.clone())).collect())
    }
    fn write(&self, vault: &VaultId, batch: Batch) -> Result<Ticket, StoreError> {
        let mut payload = Vec::new();
        for (table, key, value) in batch.changes() {
            payload.push(u8::from(value.is_some()));
            put(&mut payload, &key_of(vault, table, key));
            if let Some(value) = value {
                put(&mut payload, value);
            }
        }
        if payload.is_empty() { Ok(self.written()) } else { self.append(&payload) }
    }
    fn written(&self) -> Ticket {
        Ticket(self.state.lock().written)
    }
    fn sync(&self, ticket: Ticket) -> Result<(), StoreError> {
        let mut synced = self.synced.lock();
        if *synced >= ticket.0 {
            return Ok(());
        }
        let covered = self.state.lock().written;
        if let Err(error) = self.file.sync_data() {
            self.state.lock().failed = Some(kind_of(&error));
            return Err(failed(error));
        }
        self.syncs.fetch_add(1, Ordering::Relaxed);
        *synced = covered;
        Ok(())
    }
    fn drop_vault(&self, vault: &VaultId) -> Result<(), StoreError> {
        let mut payload = vec![2];
        put(&mut payload, vault.as_bytes());
        let ticket = self.append(&payload)?;
        self.sync(ticket)
    }
    fn failure(&self) -> Option<IndexFailure> {
        let state = self.state.lock();
        state.failed.map(|kind| IndexFailure { kind, text: "a write of the log failed".into() })
    }
    fn close(&self) {
        self.state.lock().failed.get_or_insert(IndexFailureKind::Other);
    }
    fn syncs(&self) -> u64 {
        self.syncs.load(Ordering::Relaxed)
    }
}
