//! The index behind a small trait: ordered rows per vault and table, atomic batches, explicit durability. Knows no packs.

mod log_holes;
mod manifest_mark;
mod memory;
mod rocks;
pub(crate) mod rows;

pub use memory::MemoryMeta;
pub use rocks::RocksMeta;

use crate::error::StoreError;
use repo_format::id::VaultId;

/// Most rows one batch may hold; a batch is split between nodes, never inside one.
pub const BATCH_ROWS_MAX: usize = 4096;

/// What a row is about. Keys and values are built in [`rows`] only.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Table {
    /// Object id -> where it is and who refers to it.
    Object,
    /// Ids of objects with count zero, the work list of the reaper.
    Zero,
    /// Pack id -> state and byte counts.
    Pack,
    /// Snapshot id -> record, a fold of the journal.
    Snapshot,
    /// Upload session id -> header; with a node id appended: the session holds that node.
    Session,
    /// One row: exact byte counts, journal position.
    Ledger,
    /// Object id -> its damaged frame.
    Damage,
}

impl Table {
    /// All tables.
    pub const ALL: [Table; 7] =
        [Table::Object, Table::Zero, Table::Pack, Table::Snapshot, Table::Session, Table::Ledger, Table::Damage];

    /// Stable name on disk.
    pub const fn name(self) -> &'static str {
        match self {
            Table::Object => "object",
            Table::Zero => "zero",
            Table::Pack => "pack",
            Table::Snapshot => "snapshot",
            Table::Session => "session",
            Table::Ledger => "ledger",
            Table::Damage => "damage",
        }
    }
}

/// A key with its value.
pub type Row = (Vec<u8>, Vec<u8>);

/// Changes to one vault's rows that happen together or not at all.
#[derive(Default, Debug)]
pub struct Batch {
    pub(crate) changes: Vec<(Table, Vec<u8>, Option<Vec<u8>>)>,
}

impl Batch {
    /// Sets a row.
    pub fn put(&mut self, table: Table, key: impl Into<Vec<u8>>, value: Vec<u8>) {
        self.changes.push((table, key.into(), Some(value)));
    }
    /// Removes a row.
    pub fn delete(&mut self, table: Table, key: impl Into<Vec<u8>>) {
        self.changes.push((table, key.into(), None));
    }
    /// Every change in order: table, key, and the new value or `None` for a removed row. For implementors of
    /// [`MetaStore`].
    pub fn changes(&self) -> impl Iterator<Item = (Table, &[u8], Option<&[u8]>)> {
        self.changes.iter().map(|(table, key, value)| (*table, key.as_slice(), value.as_deref()))
    }
    /// Rows changed.
    pub fn len(&self) -> usize {
        self.changes.len()
    }
    /// Nothing to change.
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }
}

/// Position in the order of writes; see [`MetaStore::sync`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub struct Ticket(pub u64);

/// Why an index no longer writes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct IndexFailure {
    /// What kind of failure, by what helps.
    pub kind: IndexFailureKind,
    /// What the index said, for people.
    pub text: String,
}

/// What helps against a failure of the index.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum IndexFailureKind {
    /// Its volume has no space: it can be opened again when there is some.
    Full,
    /// Its files are not what was written: it must be rebuilt.
    Damaged,
    /// Anything else: opening it again may help.
    Other,
}

/// An index. No iterator lifetimes, no batch across vaults, at most [`BATCH_ROWS_MAX`] rows each.
pub trait MetaStore: Send + Sync {
    /// One row.
    fn get(&self, vault: &VaultId, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError>;
    /// Many rows, in the order of `keys`.
    fn multi_get(&self, vault: &VaultId, table: Table, keys: &[&[u8]]) -> Result<Vec<Option<Vec<u8>>>, StoreError>;
    /// Rows with keys at or above `from`, ascending, at most `limit`.
    fn scan(&self, vault: &VaultId, table: Table, from: &[u8], limit: usize) -> Result<Vec<Row>, StoreError>;
    /// Applies a batch at once; visible when this returns, durable after [`MetaStore::sync`] of the ticket.
    fn write(&self, vault: &VaultId, batch: Batch) -> Result<Ticket, StoreError>;
    /// The ticket that covers everything written so far.
    fn written(&self) -> Ticket;
    /// Everything written up to `ticket`, of all vaults, is on disk when this returns. Callers share one sync.
    fn sync(&self, ticket: Ticket) -> Result<(), StoreError>;
    /// Removes all rows of a vault.
    fn drop_vault(&self, vault: &VaultId) -> Result<(), StoreError>;
    /// Syncs so far, for metrics and tests.
    fn syncs(&self) -> u64;
    /// Removes all rows of a vault so that no file of the index holds a trace of them on return.
    fn shred_vault(&self, vault: &VaultId) -> Result<(), StoreError> {
        self.drop_vault(vault)
    }
    /// Set by the first write or sync that fails: from then on every write is refused, while reads go on. Whoever wants
    /// to write again closes this index and opens another.
    fn failure(&self) -> Option<IndexFailure> {
        None
    }
    /// Waits for calls under way, then gives the files back. Every later call is refused.
    fn close(&self) {}
}
