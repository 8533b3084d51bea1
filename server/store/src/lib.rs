//! The engine: bytes on disk. Packs and journals are the truth; RocksDB is an index that can be rebuilt from them.
//! Synchronous: callers run it off their async threads. Knows no HTTP, no SQL, no people; limits come in as values.
#![forbid(unsafe_code)]

mod cache;
mod data_volume;
mod error;
mod guarded_clock;
mod index_volume;
mod journal;
mod keyring_file;
pub mod meta;
mod pack;
mod quota;
mod recount;
pub mod retention;
pub mod settings;
mod stats;
mod store;
mod sync;
mod vault;
mod vault_deletion;
mod vault_state;
pub mod world;

pub use error::{StoreError, Volume};
pub use keyring_file::KEYRING_FILES;
pub use meta::rows::{Ledger, SnapshotRow as SnapshotInfo, SoftDeleted};
pub use quota::{Admission, LimitId, Limits, QuotaKind, QuotaReading};
pub use recount::Recount;
pub use settings::StoreSettings;
pub use stats::StatsReading;
pub use store::{OpenIndex, RebuildReport, Store, VaultReader};
pub use vault::{
    AuditRepair, AuditReport, CommitInput, DamageReport, DamagedObject, DamagedPath, DamagedSnapshot, Delivered,
    Durable, IncomingObject, Maintained, PathDamage, Received, Recovered, ScrubProgress, ScrubStep, StoredObject,
    VaultSpace,
};
pub use vault_deletion::DeletionReceipt;
pub use vault_state::VaultState;
