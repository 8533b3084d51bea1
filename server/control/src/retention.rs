//! What a vault keeps: its retention policies and for how long deleted snapshots can be brought back. Values only;
//! what they mean for snapshots is computed elsewhere.

use crate::account::vault_id;
use crate::{Control, ControlError};
use repo_format::id::VaultId;
use sqlx::any::AnyRow;
use sqlx::{AnyConnection, Row};

/// Days for which a deleted snapshot can be brought back, when nothing else is said.
pub const UNDELETE_DAYS_DEFAULT: u32 = 14;
/// Most of them.
pub const UNDELETE_DAYS_MAX: u32 = 999;

/// Snapshots of one computer under one name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SeriesName {
    /// Computer, not empty.
    pub computer: String,
    /// Series within the computer, not empty.
    pub series: String,
}

/// How many snapshots of a series stay. Zero keeps none by that rule.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RetentionPolicy {
    /// The newest ones.
    pub keep_last: u32,
    /// The newest of each of so many hours that have one.
    pub keep_hourly: u32,
    /// The same by days.
    pub keep_daily: u32,
    /// The same by ISO weeks.
    pub keep_weekly: u32,
    /// The same by months.
    pub keep_monthly: u32,
    /// The same by years.
    pub keep_yearly: u32,
    /// Everything not older than this, seconds.
    pub keep_within_seconds: u64,
    /// Everything with one of these tags.
    pub keep_tags: Vec<String>,
    /// Name of the time zone in which hours, days, weeks, months and years are told.
    pub time_zone: String,
}

/// A policy and what it is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredPolicy {
    /// `None`: every series of the vault that has no policy of its own.
    pub series: Option<SeriesName>,
    /// The policy.
    pub policy: RetentionPolicy,
    /// When it was set, nanoseconds since 1970.
    pub changed_ns: i64,
}

fn names(series: Option<&SeriesName>) -> Result<(&str, &str), ControlError> {
    match series {
        None => Ok(("", "")),
        Some(series) if series.computer.is_empty() || series.series.is_empty() => {
            Err(ControlError::Invalid { what: "series", rule: "computer and series must both be named" })
        }
        Some(series) => Ok((&series.computer, &series.series)),
    }
}

fn policy(row: &AnyRow) -> Result<StoredPolicy, ControlError> {
    let corrupt = |_| ControlError::Corrupt { what: "retention policy" };
    let count = |column: &str| -> Result<u32, ControlError> {
        u32::try_from(row.try_get::<i64, _>(column)?).map_err(|_| ControlError::Corrupt { what: "retention policy" })
    };
    let tags: String = row.try_get("keep_tags")?;
    let (computer, series): (String, String) = (row.try_get("computer")?, row.try_get("series")?);
    Ok(StoredPolicy {
        series: (!computer.is_empty()).then_some(SeriesName { computer, series }),
        policy: RetentionPolicy {
            keep_last: count("keep_last")?,
            keep_hourly: count("keep_hourly")?,
            keep_daily: count("keep_daily")?,
            keep_weekly: count("keep_weekly")?,
            keep_monthly: count("keep_monthly")?,
            keep_yearly: count("keep_yearly")?,
            keep_within_seconds: u64::try_from(row.try_get::<i64, _>("keep_within_seconds")?)
                .map_err(|_| ControlError::Corrupt { what: "retention policy" })?,
            keep_tags: serde_json::from_str(&tags).map_err(corrupt)?,
            time_zone: row.try_get("time_zone")?,
        },
        changed_ns: row.try_get("changed_ns")?,
    })
}

/// Sets or removes one policy, in a transaction.
pub(crate) async fn set_policy(
    connection: &mut AnyConnection,
    vault: &VaultId,
    series: Option<&SeriesName>,
    policy: Option<&RetentionPolicy>,
    now_ns: i64,
) -> Result<(), ControlError> {
    let (computer, name) = names(series)?;
    sqlx::query("DELETE FROM retention_policies WHERE vault_id = $1 AND computer = $2 AND series = $3")
        .bind(vault.to_string())
        .bind(computer)
        .bind(name)
        .execute(&mut *connection)
        .await?;
    if let Some(policy) = policy {
        let tags = serde_json::to_string(&policy.keep_tags)
            .map_err(|_| ControlError::Invalid { what: "keep_tags", rule: "must be texts" })?;
        let within = i64::try_from(policy.keep_within_seconds)
            .map_err(|_| ControlError::Invalid { what: "keep_within", rule: "is too long" })?;
        sqlx::query(
            "INSERT INTO retention_policies (vault_id, computer, series, keep_last, keep_hourly, keep_daily, \
             keep_weekly, keep_monthly, keep_yearly, keep_within_seconds, keep_tags, time_zone, changed_ns) \
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)",
        )
        .bind(vault.to_string())
        .bind(computer)
        .bind(name)
        .bind(i64::from(policy.keep_last))
        .bind(i64::from(policy.keep_hourly))
        .bind(i64::from(policy.keep_daily))
        .bind(i64::from(policy.keep_weekly))
        .bind(i64::from(policy.keep_monthly))
        .bind(i64::from(policy.keep_yearly))
        .bind(within)
        .bind(tags)
        .bind(&policy.time_zone)
        .bind(now_ns)
        .execute(&mut *connection)
        .await
        .map_err(|error| match &error {
            sqlx::Error::Database(database) if database.is_foreign_key_violation() => {
                ControlError::not_found("vault", &vault.to_string())
            }
            _ => ControlError::Database(error),
        })?;
    }
    Ok(())
}

impl Control {
    /// All policies of a vault, the vault's own first, then by computer and series.
    pub async fn retention_policies(&self, vault: &VaultId) -> Result<Vec<StoredPolicy>, ControlError> {
        let rows = sqlx::query("SELECT * FROM retention_policies WHERE vault_id = $1 ORDER BY computer, series")
            .bind(vault.to_string())
            .fetch_all(&self.readers)
            .await?;
        rows.iter().map(policy).collect()
    }

    /// Vaults with at least one policy, by id.
    pub async fn vaults_with_retention(&self) -> Result<Vec<VaultId>, ControlError> {
        let rows = sqlx::query("SELECT DISTINCT vault_id FROM retention_policies ORDER BY vault_id")
            .fetch_all(&self.readers)
            .await?;
        rows.iter().map(|row| vault_id(row, "vault_id")).collect()
    }

    /// Sets the policy of one series, or with `None` of every series without one of its own. `None` as policy removes
    /// it. [`ControlError::NotFound`] when there is no such vault.
    pub async fn set_retention_policy(
        &self,
        vault: &VaultId,
        series: Option<&SeriesName>,
        policy: Option<&RetentionPolicy>,
        now_ns: i64,
    ) -> Result<(), ControlError> {
        let mut transaction = self.write().await?;
        set_policy(&mut transaction, vault, series, policy, now_ns).await?;
        transaction.commit().await?;
        Ok(())
    }

    /// For how many days deleted snapshots of a vault can be brought back.
    pub async fn undelete_days(&self, vault: &VaultId) -> Result<u32, ControlError> {
        let days: Option<i64> = sqlx::query_scalar("SELECT undelete_days FROM vaults WHERE id = $1")
            .bind(vault.to_string())
            .fetch_optional(&self.readers)
            .await?;
        let days = days.ok_or_else(|| ControlError::not_found("vault", &vault.to_string()))?;
        u32::try_from(days).map_err(|_| ControlError::Corrupt { what: "number of undelete days" })
    }

    /// Sets it, 0 to [`UNDELETE_DAYS_MAX`]. Snapshots that are deleted already keep their date.
    pub async fn set_undelete_days(&self, vault: &VaultId, days: u32) -> Result<(), ControlError> {
        if days > UNDELETE_DAYS_MAX {
            return Err(ControlError::Invalid { what: "undelete days", rule: "must be between 0 and 999" });
        }
        let mut transaction = self.write().await?;
        let changed = sqlx::query("UPDATE vaults SET undelete_days = $1 WHERE id = $2")
            .bind(i64::from(days))
            .bind(vault.to_string())
            .execute(&mut *transaction)
            .await?;
        if changed.rows_affected() == 0 {
            return Err(ControlError::not_found("vault", &vault.to_string()));
        }
        transaction.commit().await?;
        Ok(())
    }
}
