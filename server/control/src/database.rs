//! The pools and the migrations. One connection writes, several read: SQLite has one writer at a time, and waiting in
//! our own queue is fairer than its busy handler.

use crate::ControlError;
use sqlx::migrate::{Migration, MigrationType, Migrator};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{Row, SqlSafeStr, Sqlite, Transaction};
use std::path::Path;
use std::time::Duration;

const READERS_MAX: u32 = 4;
const BUSY_TIMEOUT: Duration = Duration::from_secs(10);

/// Forward only: one file per change, never edited after a release.
const MIGRATIONS: &[(i64, &str, &str)] = &[
    (1, "accounts", include_str!("../migrations/0001_accounts.sql")),
    (2, "states", include_str!("../migrations/0002_states.sql")),
    (3, "quotas", include_str!("../migrations/0003_quotas.sql")),
    (4, "audits", include_str!("../migrations/0004_audits.sql")),
];

/// The accounts database.
#[derive(Clone, Debug)]
pub struct Control {
    pub(crate) readers: SqlitePool,
    writer: SqlitePool,
}

impl Control {
    /// Opens or creates the SQLite database at `path` and brings it to this build's version. Every committed change is
    /// on disk when its call returns. A database of a newer build is refused.
    pub async fn open(path: &Path) -> Result<Control, ControlError> {
        let options = SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .foreign_keys(true)
            // What is deleted is overwritten: a deleted vault leaves nothing in the file.
            .pragma("secure_delete", "ON")
            .busy_timeout(BUSY_TIMEOUT);
        let writer = SqlitePoolOptions::new().max_connections(1).connect_with(options.clone()).await?;
        let migrations = MIGRATIONS
            .iter()
            .map(|&(version, name, text)| {
                Migration::new(version, name.into(), MigrationType::Simple, text.into_sql_str(), false)
            })
            .collect();
        Migrator::with_migrations(migrations).run(&writer).await?;
        let readers =
            SqlitePoolOptions::new().max_connections(READERS_MAX).connect_with(options.read_only(true)).await?;
        Ok(Control { readers, writer })
    }

    /// Waits for running statements and closes the files.
    pub async fn close(&self) {
        self.readers.close().await;
        self.writer.close().await;
    }

    /// One writing transaction; it takes the write lock at once, so it cannot fail half-way for want of it.
    pub(crate) async fn write(&self) -> Result<Transaction<'static, Sqlite>, ControlError> {
        Ok(self.writer.begin_with("BEGIN IMMEDIATE").await?)
    }

    /// Writes the database anew without its free pages.
    pub(crate) async fn compact(&self) -> Result<(), ControlError> {
        sqlx::query("VACUUM").execute(&self.writer).await?;
        Ok(())
    }

    /// Moves the log into the database and empties it. `false` when a reader still needs an old state.
    pub(crate) async fn truncate_log(&self) -> Result<bool, ControlError> {
        let row = sqlx::query("PRAGMA wal_checkpoint(TRUNCATE)").fetch_one(&self.writer).await?;
        let busy: i64 = row.try_get(0)?;
        Ok(busy == 0)
    }
}
