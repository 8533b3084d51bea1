//! Exports: database dumps that are made ready for download over SFTP. A customer asks for one, the operator or the product
//! releases it, the server prepares it, and for some days it is there. Who opens it with which key is in
//! [`crate::export_account`].
//!
//! | from | transition | to |
//! |---|---|---|
//! | - | [`Control::request_export`] | awaiting release; in progress where the product releases by itself |
//! | awaiting release | [`Control::release_export`] | in progress |
//! | awaiting release | [`Control::refuse_export`] | server error: the next may be asked for at once |
//! | in progress | [`Control::publish_export`] | ready |
//! | awaiting release, in progress | [`Control::fail_export`] | server error |
//! | ready | [`Control::expire_exports`] | expired |

use crate::audit_log::record;
use crate::plan::plan_in;
use crate::{Actor, Control, ControlError, Deed, ExportId, JobId, Location, PlanId, Scope, TenantId, UserId};
use repo_format::id::VaultId;
use serde::{Deserialize, Serialize};
use sqlx::any::AnyRow;
use sqlx::{AnyConnection, Row};
use std::fmt;

const DAY_NS: i64 = 24 * 3600 * 1_000_000_000;
/// Where a product says nothing, for people whose vault hangs on no service.
const WAIT_DAYS_DEFAULT: i64 = 28;
const KEPT_DAYS_DEFAULT: i64 = 10;
/// Begins the name of every SFTP account.
const ACCOUNT_PREFIX: &str = "export-";
/// Characters of an account's name behind the prefix.
const ACCOUNT_CHARACTERS: usize = 16;
/// Longest reason, bytes; what is longer is cut.
const ERROR_BYTES_MAX: usize = 1000;

/// Where an export is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ExportState {
    /// Filed; the operator has to let it go on.
    AwaitingRelease,
    /// Being dumped and verified.
    InProgress,
    /// There to be downloaded.
    Ready,
    /// It was there, and its days have passed.
    Expired,
    /// It could not be prepared; another one may be asked for at once.
    ServerError,
    /// Something that this version does not know.
    InvalidValue,
}

impl ExportState {
    /// As stored and as on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            ExportState::AwaitingRelease => "awaiting_release",
            ExportState::InProgress => "in_progress",
            ExportState::Ready => "ready",
            ExportState::Expired => "expired",
            ExportState::ServerError => "server_error",
            ExportState::InvalidValue => "invalid_value",
        }
    }

    /// Never fails: what is unknown is shown as such.
    fn stored(text: &str) -> Self {
        match text {
            "awaiting_release" => ExportState::AwaitingRelease,
            "in_progress" => ExportState::InProgress,
            "ready" => ExportState::Ready,
            "expired" => ExportState::Expired,
            "server_error" => ExportState::ServerError,
            _ => ExportState::InvalidValue,
        }
    }
}

impl fmt::Display for ExportState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A file that is served.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExportFile {
    /// How it is called for those who download it; one directory holds them all.
    pub name: String,
    /// Where it is in the snapshot.
    pub path: String,
    /// Its length.
    pub size_bytes: u64,
    /// Of its content, hexadecimal.
    pub sha256: String,
    /// Of its content, hexadecimal; what older clients ask for.
    pub sha1: String,
    /// Of its content, hexadecimal; what older clients ask for.
    pub md5: String,
}

/// What is served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExportContent {
    /// In which vault.
    pub vault: VaultId,
    /// Of which snapshot: its id.
    pub snapshot: String,
    /// When the database was dumped, nanoseconds since 1970.
    pub dumped_ns: i64,
    /// By name.
    pub files: Vec<ExportFile>,
}

impl ExportContent {
    /// Bytes of all files.
    pub fn size_bytes(&self) -> u64 {
        self.files.iter().map(|file| file.size_bytes).sum()
    }
}

/// An export.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Export {
    /// Its id.
    pub id: ExportId,
    /// Whose database it is.
    pub tenant: TenantId,
    /// In whose vault.
    pub user: UserId,
    /// By which plan it is dumped.
    pub plan: PlanId,
    /// Who asked for it: id.
    pub asked_by: String,
    /// The same for people.
    pub asked_by_name: String,
    /// The newest complete dump will do while the agent is away.
    pub newest_will_do: bool,
    /// Where it is.
    pub state: ExportState,
    /// Since when, nanoseconds since 1970.
    pub state_ns: i64,
    /// When it was asked for.
    pub requested_ns: i64,
    /// When the next one may be asked for.
    pub next_allowed_ns: i64,
    /// The backup that makes the dump.
    pub job: Option<JobId>,
    /// Bytes verified so far.
    pub bytes_done: u64,
    /// Of how many, once that is known.
    pub bytes_total: Option<u64>,
    /// What is served, from when it is ready.
    pub content: Option<ExportContent>,
    /// When it became ready.
    pub ready_ns: Option<i64>,
    /// Until when it is there.
    pub expires_ns: Option<i64>,
    /// Name of its SFTP account.
    pub account: Option<String>,
    /// Why it failed.
    pub error: Option<String>,
    /// What to name to the operator.
    pub reference: Option<String>,
}

/// What somebody asks for.
#[derive(Clone, Debug)]
pub struct NewExport {
    /// The plan whose database is wanted.
    pub plan: PlanId,
    /// The newest complete dump will do while the agent is away.
    pub newest_will_do: bool,
}

/// What a row serves, once it serves something.
fn content(row: &AnyRow) -> Result<Option<ExportContent>, ControlError> {
    let vault: Option<String> = row.try_get("vault_id")?;
    let Some(vault) = vault else { return Ok(None) };
    let corrupt = || ControlError::Corrupt { what: "files of an export" };
    let files: Option<String> = row.try_get("files")?;
    Ok(Some(ExportContent {
        vault: vault.parse().map_err(|_| corrupt())?,
        snapshot: row.try_get::<Option<String>, _>("snapshot_id")?.ok_or_else(corrupt)?,
        dumped_ns: row.try_get::<Option<i64>, _>("dumped_ns")?.ok_or_else(corrupt)?,
        files: serde_json::from_str(&files.ok_or_else(corrupt)?).map_err(|_| corrupt())?,
    }))
}

fn export(row: &AnyRow) -> Result<Export, ControlError> {
    let bytes = |column: &str| -> Result<Option<u64>, ControlError> {
        let stored: Option<i64> = row.try_get(column)?;
        stored.map(|n| n.try_into().map_err(|_| ControlError::Corrupt { what: "bytes of an export" })).transpose()
    };
    let job: Option<String> = row.try_get("job_id")?;
    Ok(Export {
        id: ExportId::stored(row.try_get("id")?)?,
        tenant: TenantId::stored(row.try_get("tenant_id")?)?,
        user: UserId::stored(row.try_get("user_id")?)?,
        plan: PlanId::stored(row.try_get("plan_id")?)?,
        asked_by: row.try_get("asked_by")?,
        asked_by_name: row.try_get("asked_by_name")?,
        newest_will_do: row.try_get::<i64, _>("newest_will_do")? != 0,
        state: ExportState::stored(row.try_get("state")?),
        state_ns: row.try_get("state_ns")?,
        requested_ns: row.try_get("requested_ns")?,
        next_allowed_ns: row.try_get("next_allowed_ns")?,
        job: job.as_deref().map(JobId::stored).transpose()?,
        bytes_done: bytes("bytes_done")?.unwrap_or(0),
        bytes_total: bytes("bytes_total")?,
        content: content(row)?,
        ready_ns: row.try_get("ready_ns")?,
        expires_ns: row.try_get("expires_ns")?,
        account: row.try_get("account")?,
        error: row.try_get("error")?,
        reference: row.try_get("reference")?,
    })
}

/// One export, in a transaction.
pub(crate) async fn export_in(
    connection: &mut AnyConnection,
    scope: &Scope,
    id: &ExportId,
) -> Result<Export, ControlError> {
    let text = format!(
        "SELECT * FROM exports WHERE id = $1 AND {}",
        scope.condition("exports.tenant_id", Some("exports.user_id"))
    );
    let row = sqlx::query(sqlx::AssertSqlSafe(text)).bind(id.to_string()).fetch_optional(connection).await?;
    export(&row.ok_or_else(|| ControlError::not_found("export", &id.to_string()))?)
}

pub(crate) fn deed(export: &Export, verb: &'static str, after: serde_json::Value) -> Deed<'static> {
    Deed {
        tenant: export.tenant,
        user: Some(export.user),
        verb,
        object: format!("export {}", export.id),
        before: None,
        after: Some(after),
    }
}

/// What the product of a user's service says of exports: days between requests, days of availability, whether it releases
/// them by itself. The kindest of several.
async fn terms(connection: &mut AnyConnection, user: &UserId) -> Result<(i64, i64, bool), ControlError> {
    let row = sqlx::query(
        "SELECT MIN(products.export_wait_days) AS wait, MAX(products.export_kept_days) AS kept, \
         MIN(products.export_release) AS release FROM allocations \
         JOIN services ON services.id = allocations.service_id \
         JOIN products ON products.id = services.product_id WHERE allocations.user_id = $1",
    )
    .bind(user.to_string())
    .fetch_one(connection)
    .await?;
    let release: Option<String> = row.try_get("release")?;
    Ok((
        row.try_get::<Option<i64>, _>("wait")?.unwrap_or(WAIT_DAYS_DEFAULT),
        row.try_get::<Option<i64>, _>("kept")?.unwrap_or(KEPT_DAYS_DEFAULT),
        // By the alphabet `automatic` comes before `operator`.
        release.as_deref() == Some("automatic"),
    ))
}

/// When the next export of a plan may be asked for; `None`: now.
async fn next_allowed(connection: &mut AnyConnection, plan: &PlanId, now_ns: i64) -> Result<Option<i64>, ControlError> {
    // A server error lifts the wait of its own request, and of no other.
    let latest: Option<i64> =
        sqlx::query_scalar("SELECT MAX(next_allowed_ns) FROM exports WHERE plan_id = $1 AND state <> 'server_error'")
            .bind(plan.to_string())
            .fetch_one(connection)
            .await?;
    Ok(latest.filter(|next_ns| *next_ns > now_ns))
}

fn too_early(next_ns: i64) -> ControlError {
    ControlError::TooEarly { what: "export", next_ns }
}

/// A name that cannot be guessed, in letters and digits that nobody mistakes.
fn account_name() -> Result<String, ControlError> {
    const ALPHABET: &[u8; 32] = b"abcdefghijkmnpqrstuvwxyz23456789";
    let mut random = [0; ACCOUNT_CHARACTERS];
    getrandom::fill(&mut random).map_err(|_| ControlError::Random)?;
    let characters = random.iter().map(|byte| char::from(ALPHABET[usize::from(byte % 32)]));
    Ok(ACCOUNT_PREFIX.chars().chain(characters).collect())
}

impl Control {
    /// Where an export stands: with its user.
    pub async fn locate_export(&self, id: &ExportId) -> Result<Option<Location>, ControlError> {
        let user: Option<String> = sqlx::query_scalar("SELECT user_id FROM exports WHERE id = $1")
            .bind(id.to_string())
            .fetch_optional(&self.readers)
            .await?;
        self.locate_owned(user).await
    }

    /// One export.
    pub async fn export(&self, scope: &Scope, id: &ExportId) -> Result<Export, ControlError> {
        export_in(&mut *self.readers.acquire().await?, scope, id).await
    }

    /// Exports of a scope, the newest first: at most `limit`, behind `after`, a time of request and an id.
    pub async fn exports(
        &self,
        scope: &Scope,
        tenant: Option<&TenantId>,
        after: Option<(i64, ExportId)>,
        limit: u32,
    ) -> Result<Vec<Export>, ControlError> {
        let (after_ns, after_id) = after.map_or((i64::MAX, String::new()), |(ns, id)| (ns, id.to_string()));
        let of_tenant = tenant.map_or(String::new(), |tenant| format!("AND exports.tenant_id = '{tenant}' "));
        let text = format!(
            "SELECT * FROM exports WHERE {} {of_tenant}AND (requested_ns < $1 OR (requested_ns = $1 AND id > $2)) \
             ORDER BY requested_ns DESC, id LIMIT $3",
            scope.condition("exports.tenant_id", Some("exports.user_id"))
        );
        let rows = sqlx::query(sqlx::AssertSqlSafe(text))
            .bind(after_ns)
            .bind(after_id)
            .bind(i64::from(limit))
            .fetch_all(&self.readers)
            .await?;
        rows.iter().map(export).collect()
    }

    /// When the next export of a plan may be asked for; `None`: now.
    pub async fn next_export_ns(&self, plan: &PlanId, now_ns: i64) -> Result<Option<i64>, ControlError> {
        next_allowed(&mut *self.readers.acquire().await?, plan, now_ns).await
    }

    /// Asks for an export of what a plan dumps. [`ControlError::TooEarly`] within the days that must lie between two, unless
    /// the one before failed.
    pub async fn request_export(
        &self,
        scope: &Scope,
        actor: &Actor,
        new: &NewExport,
        now_ns: i64,
    ) -> Result<Export, ControlError> {
        let id = ExportId::generate()?;
        let mut transaction = self.write().await?;
        let plan = plan_in(&mut transaction, scope, &new.plan).await?;
        if let Some(next_ns) = next_allowed(&mut transaction, &plan.id, now_ns).await? {
            return Err(too_early(next_ns));
        }
        let (wait_days, _, by_itself) = terms(&mut transaction, &plan.user).await?;
        let state = if by_itself { ExportState::InProgress } else { ExportState::AwaitingRelease };
        sqlx::query(
            "INSERT INTO exports (id, tenant_id, user_id, plan_id, asked_by, asked_by_name, newest_will_do, state, \
             state_ns, requested_ns, next_allowed_ns) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $9, $10)",
        )
        .bind(id.to_string())
        .bind(plan.tenant.to_string())
        .bind(plan.user.to_string())
        .bind(plan.id.to_string())
        .bind(&actor.id)
        .bind(&actor.name)
        .bind(i64::from(new.newest_will_do))
        .bind(state.as_str())
        .bind(now_ns)
        .bind(now_ns.saturating_add(wait_days * DAY_NS))
        .execute(&mut *transaction)
        .await?;
        let made = export_in(&mut transaction, scope, &id).await?;
        let after = serde_json::json!({ "state": state.as_str(), "plan": plan.id.to_string() });
        record(&mut transaction, actor, deed(&made, "export.request", after), now_ns).await?;
        transaction.commit().await?;
        Ok(made)
    }

    /// Lets an export that waits for it go on.
    pub async fn release_export(
        &self,
        scope: &Scope,
        actor: &Actor,
        id: &ExportId,
        now_ns: i64,
    ) -> Result<Export, ControlError> {
        let from = &[ExportState::AwaitingRelease];
        self.move_export(scope, actor, id, "export.release", (from, ExportState::InProgress), "", now_ns).await
    }

    /// Refuses an export that waits to be released; another one may be asked for at once.
    pub async fn refuse_export(
        &self,
        scope: &Scope,
        actor: &Actor,
        id: &ExportId,
        reason: &str,
        now_ns: i64,
    ) -> Result<Export, ControlError> {
        let from = &[ExportState::AwaitingRelease];
        self.move_export(scope, actor, id, "export.release", (from, ExportState::ServerError), reason, now_ns).await
    }

    /// It cannot be prepared; another one may be asked for at once.
    pub async fn fail_export(
        &self,
        scope: &Scope,
        actor: &Actor,
        id: &ExportId,
        reason: &str,
        now_ns: i64,
    ) -> Result<Export, ControlError> {
        let from = &[ExportState::AwaitingRelease, ExportState::InProgress];
        self.move_export(scope, actor, id, "export.fail", (from, ExportState::ServerError), reason, now_ns).await
    }

    #[allow(clippy::too_many_arguments, reason = "the parts of one transition, named where it is called")]
    async fn move_export(
        &self,
        scope: &Scope,
        actor: &Actor,
        id: &ExportId,
        verb: &'static str,
        (from, to): (&[ExportState], ExportState),
        reason: &str,
        now_ns: i64,
    ) -> Result<Export, ControlError> {
        let mut transaction = self.write().await?;
        let was = export_in(&mut transaction, scope, id).await?;
        if !from.contains(&was.state) {
            let needed = "it must be awaiting release, or in progress to fail";
            return Err(ControlError::wrong_state("export", &id.to_string(), was.state.as_str(), needed));
        }
        let mut end = reason.len().min(ERROR_BYTES_MAX);
        while !reason.is_char_boundary(end) {
            end -= 1;
        }
        let is_failed = to == ExportState::ServerError;
        let reference = is_failed.then(|| id.to_string()[..8].to_owned());
        sqlx::query(
            "UPDATE exports SET state = $1, state_ns = $2, error = $3, reference = $4 WHERE id = $5 AND state = $6",
        )
        .bind(to.as_str())
        .bind(now_ns)
        .bind(is_failed.then(|| reason[..end].to_owned()))
        .bind(reference)
        .bind(id.to_string())
        .bind(was.state.as_str())
        .execute(&mut *transaction)
        .await?;
        let moved = export_in(&mut transaction, scope, id).await?;
        let after = serde_json::json!({ "state": to.as_str(), "reason": moved.error });
        record(&mut transaction, actor, deed(&moved, verb, after), now_ns).await?;
        transaction.commit().await?;
        Ok(moved)
    }

    /// Exports that are being prepared, the oldest first.
    pub async fn exports_in_progress(&self, scope: &Scope) -> Result<Vec<Export>, ControlError> {
        let text = format!(
            "SELECT * FROM exports WHERE state = 'in_progress' AND {} ORDER BY state_ns, id",
            scope.condition("exports.tenant_id", Some("exports.user_id"))
        );
        let rows = sqlx::query(sqlx::AssertSqlSafe(text)).fetch_all(&self.readers).await?;
        rows.iter().map(export).collect()
    }

    /// Exports whose state this version does not know: the operator must hear of them.
    pub async fn exports_of_unknown_state(&self, scope: &Scope) -> Result<u64, ControlError> {
        let text = format!(
            "SELECT COUNT(*) FROM exports WHERE state NOT IN ('awaiting_release', 'in_progress', 'ready', 'expired', \
             'server_error') AND {}",
            scope.condition("exports.tenant_id", Some("exports.user_id"))
        );
        let count: i64 = sqlx::query_scalar(sqlx::AssertSqlSafe(text)).fetch_one(&self.readers).await?;
        Ok(count.try_into().unwrap_or(0))
    }

    /// Notes the backup that makes the dump. Nothing happens to one that is not in progress any more.
    pub async fn export_job(&self, id: &ExportId, job: &JobId) -> Result<(), ControlError> {
        let mut transaction = self.write().await?;
        sqlx::query("UPDATE exports SET job_id = $1 WHERE id = $2 AND state = 'in_progress'")
            .bind(job.to_string())
            .bind(id.to_string())
            .execute(&mut *transaction)
            .await?;
        transaction.commit().await?;
        Ok(())
    }

    /// Notes how much of it is verified.
    pub async fn export_progress(&self, id: &ExportId, done: u64, total: u64) -> Result<(), ControlError> {
        let mut transaction = self.write().await?;
        sqlx::query("UPDATE exports SET bytes_done = $1, bytes_total = $2 WHERE id = $3 AND state = 'in_progress'")
            .bind(i64::try_from(done).unwrap_or(i64::MAX))
            .bind(i64::try_from(total).unwrap_or(i64::MAX))
            .bind(id.to_string())
            .execute(&mut *transaction)
            .await?;
        transaction.commit().await?;
        Ok(())
    }

    /// A verified dump becomes ready, for the days of its product, under a new SFTP account.
    pub async fn publish_export(
        &self,
        scope: &Scope,
        actor: &Actor,
        id: &ExportId,
        content: &ExportContent,
        now_ns: i64,
    ) -> Result<Export, ControlError> {
        let size = i64::try_from(content.size_bytes());
        let size = size.map_err(|_| ControlError::Invalid { what: "export", rule: "must be below 8 EiB" })?;
        let files = serde_json::json!(content.files).to_string();
        let account = account_name()?;
        let mut transaction = self.write().await?;
        let was = export_in(&mut transaction, scope, id).await?;
        if was.state != ExportState::InProgress {
            let needed = "only one in progress becomes ready";
            return Err(ControlError::wrong_state("export", &id.to_string(), was.state.as_str(), needed));
        }
        let (_, kept_days, _) = terms(&mut transaction, &was.user).await?;
        sqlx::query(
            "UPDATE exports SET state = 'ready', state_ns = $1, ready_ns = $1, expires_ns = $2, account = $3, \
             vault_id = $4, snapshot_id = $5, dumped_ns = $6, files = $7, size_bytes = $8, bytes_done = $8, \
             bytes_total = $8 WHERE id = $9 AND state = 'in_progress'",
        )
        .bind(now_ns)
        .bind(now_ns.saturating_add(kept_days * DAY_NS))
        .bind(account)
        .bind(content.vault.to_string())
        .bind(&content.snapshot)
        .bind(content.dumped_ns)
        .bind(files)
        .bind(size)
        .bind(id.to_string())
        .execute(&mut *transaction)
        .await?;
        let ready = export_in(&mut transaction, scope, id).await?;
        let after = serde_json::json!({ "state": "ready", "snapshot": content.snapshot, "files": content.files });
        record(&mut transaction, actor, deed(&ready, "export.publish", after), now_ns).await?;
        transaction.commit().await?;
        Ok(ready)
    }

    /// Ends what was there for its days: keys die with it. Gives those that ended, so that their snapshots are let go.
    pub async fn expire_exports(&self, scope: &Scope, actor: &Actor, now_ns: i64) -> Result<Vec<Export>, ControlError> {
        let mut transaction = self.write().await?;
        let text = format!(
            "SELECT * FROM exports WHERE state = 'ready' AND expires_ns <= $1 AND {} ORDER BY expires_ns, id",
            scope.condition("exports.tenant_id", Some("exports.user_id"))
        );
        let rows = sqlx::query(sqlx::AssertSqlSafe(text)).bind(now_ns).fetch_all(&mut *transaction).await?;
        let due: Vec<Export> = rows.iter().map(export).collect::<Result<_, _>>()?;
        for export in &due {
            sqlx::query("UPDATE exports SET state = 'expired', state_ns = $1 WHERE id = $2 AND state = 'ready'")
                .bind(now_ns)
                .bind(export.id.to_string())
                .execute(&mut *transaction)
                .await?;
            sqlx::query("UPDATE export_keys SET revoked_ns = $1 WHERE export_id = $2 AND revoked_ns IS NULL")
                .bind(now_ns)
                .bind(export.id.to_string())
                .execute(&mut *transaction)
                .await?;
            let after = serde_json::json!({ "state": "expired" });
            record(&mut transaction, actor, deed(export, "export.expire", after), now_ns).await?;
        }
        transaction.commit().await?;
        Ok(due)
    }
}

#[cfg(test)]
mod tests {
    use super::ExportState;

    #[test]
    fn a_state_of_a_later_version_is_shown_as_such() {
        for state in [ExportState::AwaitingRelease, ExportState::InProgress, ExportState::Ready] {
            assert_eq!(ExportState::stored(state.as_str()), state);
        }
        for state in [ExportState::Expired, ExportState::ServerError, ExportState::InvalidValue] {
            assert_eq!(ExportState::stored(state.as_str()), state);
        }
        assert_eq!(ExportState::stored("quarantined"), ExportState::InvalidValue);
    }
}
