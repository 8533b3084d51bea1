//! The pools and the migrations, on SQLite or PostgreSQL. One connection writes, several read: SQLite has one writer at
//! a time, waiting in our own queue is fairer than its busy handler, and on PostgreSQL the same order saves every
//! statement from having to expect a conflict. Statements are one text for both engines: `$1` parameters, ids as
//! text, times and counts as BIGINT, truth values as BIGINT 0 and 1, sums cast to BIGINT.

use crate::scope::AuthorityPlace;
use crate::{Authority, ControlError};
use sqlx::any::{AnyPoolOptions, install_default_drivers};
use sqlx::migrate::{Migration, MigrationType, Migrator};
use sqlx::{Any, AnyPool, Executor, Row, SqlSafeStr, Transaction};
use std::path::Path;
use std::sync::Arc;

const READERS_MAX: u32 = 4;

/// Forward only: one file per change, never edited after a release.
const MIGRATIONS: &[(i64, &str, &str)] = &[
    (1, "accounts", include_str!("../migrations/0001_accounts.sql")),
    (2, "states", include_str!("../migrations/0002_states.sql")),
    (3, "quotas", include_str!("../migrations/0003_quotas.sql")),
    (4, "audits", include_str!("../migrations/0004_audits.sql")),
    (5, "portable", include_str!("../migrations/0005_portable.sql")),
    (6, "tenants", include_str!("../migrations/0006_tenants.sql")),
    (7, "identity", include_str!("../migrations/0007_identity.sql")),
    (8, "agents", include_str!("../migrations/0008_agents.sql")),
    (9, "messages", include_str!("../migrations/0009_messages.sql")),
    (10, "business", include_str!("../migrations/0010_business.sql")),
    (11, "lists", include_str!("../migrations/0011_lists.sql")),
    (12, "remains", include_str!("../migrations/0012_remains.sql")),
    (13, "exports", include_str!("../migrations/0013_exports.sql")),
];

/// What each SQLite connection is told. Every committed change is on disk when its call returns, and what is deleted is
/// overwritten, so that a deleted vault leaves nothing in the file.
const SQLITE_SETTINGS: &str = "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON; \
    PRAGMA secure_delete = ON; PRAGMA busy_timeout = 10000";

/// Held as long as a server uses a PostgreSQL database, so that a second one is refused: `holdfast`.
const POSTGRES_LOCK: i64 = 0x686f_6c64_6661_7374;

/// The engine behind the pools.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Engine {
    /// A file beside the data.
    Sqlite,
    /// A server, by URL.
    Postgres,
}

/// The accounts database.
#[derive(Clone, Debug)]
pub struct Control {
    pub(crate) readers: AnyPool,
    writer: AnyPool,
    engine: Engine,
    authority: Arc<AuthorityPlace>,
}

impl Control {
    /// Opens or creates the SQLite database at `path` and brings it to this build's version. A database of a newer build
    /// is refused.
    pub async fn open(path: &Path) -> Result<Control, ControlError> {
        let path = path.to_str().ok_or(ControlError::Invalid { what: "database path", rule: "must be UTF-8" })?;
        let path = percent_encoding::utf8_percent_encode(path, PATH_ESCAPED);
        Control::connect(Engine::Sqlite, &format!("sqlite://{path}?mode=rwc"), &format!("sqlite://{path}?mode=ro"))
            .await
    }

    /// Opens the PostgreSQL database behind `url` (`postgres://USER:PASSWORD@HOST/DATABASE`) alike. It must exist, and no
    /// other server may be using it.
    pub async fn open_url(url: &str) -> Result<Control, ControlError> {
        if !url.starts_with("postgres://") && !url.starts_with("postgresql://") {
            return Err(ControlError::Invalid { what: "database URL", rule: "must begin with postgres://" });
        }
        Control::connect(Engine::Postgres, url, url).await
    }

    async fn connect(engine: Engine, write_url: &str, read_url: &str) -> Result<Control, ControlError> {
        install_default_drivers();
        let options = |connections: u32| {
            let options = AnyPoolOptions::new().max_connections(connections);
            match engine {
                Engine::Sqlite => options.after_connect(|connection, _| {
                    Box::pin(async move { connection.execute(SQLITE_SETTINGS).await.map(|_| ()) })
                }),
                Engine::Postgres => options,
            }
        };
        // The one writing connection stays: the lock of a PostgreSQL database lives in it.
        let writer = options(1).idle_timeout(None).max_lifetime(None).connect(write_url).await?;
        if engine == Engine::Postgres {
            let row = sqlx::query("SELECT CASE WHEN pg_try_advisory_lock($1) THEN 1 ELSE 0 END")
                .bind(POSTGRES_LOCK)
                .fetch_one(&writer)
                .await?;
            if row.try_get::<i64, _>(0)? == 0 {
                return Err(ControlError::InUse);
            }
        }
        let migrations = MIGRATIONS
            .iter()
            .map(|&(version, name, text)| {
                Migration::new(version, name.into(), MigrationType::Simple, text.into_sql_str(), false)
            })
            .collect();
        Migrator::with_migrations(migrations).run(&writer).await?;
        let readers = options(READERS_MAX).connect(read_url).await?;
        Ok(Control { readers, writer, engine, authority: Arc::default() })
    }

    /// What makes scopes; `None` for every caller but the first.
    pub fn take_authority(&self) -> Option<Authority> {
        self.authority.take()
    }

    /// Which engine this is.
    pub fn engine(&self) -> Engine {
        self.engine
    }

    /// Waits for running statements and closes the connections.
    pub async fn close(&self) {
        self.readers.close().await;
        self.writer.close().await;
    }

    /// One writing transaction; it waits for the one before, so it cannot fail half-way for want of a lock.
    pub(crate) async fn write(&self) -> Result<Transaction<'static, Any>, ControlError> {
        Ok(match self.engine {
            Engine::Sqlite => self.writer.begin_with("BEGIN IMMEDIATE").await?,
            Engine::Postgres => self.writer.begin().await?,
        })
    }

    /// Writes the database anew without its free pages.
    pub(crate) async fn compact(&self) -> Result<(), ControlError> {
        sqlx::query("VACUUM").execute(&self.writer).await?;
        Ok(())
    }

    /// Moves SQLite's log into the database and empties it. `false` when a reader still needs an old state. PostgreSQL
    /// keeps its log for as long as its administrator says; it never holds a key.
    pub(crate) async fn truncate_log(&self) -> Result<bool, ControlError> {
        if self.engine == Engine::Postgres {
            return Ok(true);
        }
        let row = sqlx::query("PRAGMA wal_checkpoint(TRUNCATE)").fetch_one(&self.writer).await?;
        let busy: i64 = row.try_get(0)?;
        Ok(busy == 0)
    }
}

/// What would end a path in a URL, or begin an escape.
const PATH_ESCAPED: &percent_encoding::AsciiSet = &percent_encoding::CONTROLS.add(b'%').add(b'?').add(b'#').add(b' ');

/// A truth value as stored.
pub(crate) fn flag(row: &sqlx::any::AnyRow, column: &str) -> Result<bool, ControlError> {
    Ok(row.try_get::<i64, _>(column)? != 0)
}
