//! Notices: what is wrong now, derived from jobs, quotas and services. There is one notice per cause, from when it is seen
//! until it is healed; people are told when it begins and when it gets worse, never again in between, and not of the end.

mod causes;
mod summary;
mod tell;

pub use causes::{QuotaUse, SpaceKind};

use crate::webhook::{Event, EventKind, queue_event};
use crate::{Control, ControlError, NoticeId, Scope, TenantId, UserId};
use causes::Cause;
use sqlx::any::AnyRow;
use sqlx::{AnyConnection, Row};
use std::collections::{BTreeMap, HashMap};

/// Most notices opened or healed in one transaction, so that others can write in between.
const STEP: usize = 50;

/// What is wrong, as listed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    /// Its id.
    pub id: NoticeId,
    /// Whom it concerns.
    pub tenant: TenantId,
    /// Whom it concerns, besides the tenant.
    pub user: Option<UserId>,
    /// Which kind of thing is wrong.
    pub kind: EventKind,
    /// What it is about, such as `plan 0123…`.
    pub cause: String,
    /// How bad, in the kind's own measure: percent of a quota; 1 to 4 for 30, 14, 7 and 1 days to the end.
    pub level: i64,
    /// Figures and names.
    pub facts: BTreeMap<String, String>,
    /// When it was seen first.
    pub since_ns: i64,
    /// When it was over.
    pub healed_ns: Option<i64>,
}

/// What a look at the state of things has changed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NoticesChanged {
    /// New ones.
    pub opened: u64,
    /// Those that got worse.
    pub worsened: u64,
    /// Those that are over.
    pub healed: u64,
}

struct Known {
    id: NoticeId,
    level: i64,
    worst_level: i64,
}

enum Change {
    Open(Cause),
    Level(NoticeId, Cause, i64),
    Heal(NoticeId),
}

fn notice(row: &AnyRow) -> Result<Notice, ControlError> {
    let user: Option<String> = row.try_get("user_id")?;
    Ok(Notice {
        id: NoticeId::stored(row.try_get("id")?)?,
        tenant: TenantId::stored(row.try_get("tenant_id")?)?,
        user: user.as_deref().map(UserId::stored).transpose()?,
        kind: row.try_get::<&str, _>("kind")?.parse()?,
        cause: row.try_get("cause")?,
        level: row.try_get("level")?,
        facts: serde_json::from_str(row.try_get("facts")?).map_err(|_| ControlError::Corrupt { what: "notice" })?,
        since_ns: row.try_get("since_ns")?,
        healed_ns: row.try_get("healed_ns")?,
    })
}

impl Control {
    /// Looks what is wrong now and makes the notices say so. `quotas` is what the store counts; `server_link` stands in
    /// mails. Whatever is opened or gets worse is told by mail and webhook in the same transaction. One caller at a time.
    pub async fn derive_notices(
        &self,
        quotas: &[QuotaUse],
        server_link: &str,
        now_ns: i64,
    ) -> Result<NoticesChanged, ControlError> {
        let mut known = self.open_notices().await?;
        let mut changes = Vec::new();
        for cause in self.causes(quotas, now_ns).await? {
            match known.remove(&(cause.kind, cause.cause.clone())) {
                None if cause.is_new_worth() => changes.push(Change::Open(cause)),
                None => {}
                Some(notice) if notice.level != cause.level => {
                    changes.push(Change::Level(notice.id, cause, notice.worst_level));
                }
                Some(_) => {}
            }
        }
        changes.extend(known.into_values().map(|notice| Change::Heal(notice.id)));
        let mut changed = NoticesChanged::default();
        let mut changes = changes.into_iter().peekable();
        while changes.peek().is_some() {
            let mut transaction = self.write().await?;
            for change in changes.by_ref().take(STEP) {
                match change {
                    Change::Open(cause) => {
                        open(&mut transaction, &cause, now_ns).await?;
                        tell::tell(&mut transaction, &cause, server_link, now_ns).await?;
                        changed.opened += 1;
                    }
                    Change::Level(id, cause, worst) => {
                        set_level(&mut transaction, &id, &cause).await?;
                        if cause.level > worst {
                            tell::tell(&mut transaction, &cause, server_link, now_ns).await?;
                            changed.worsened += 1;
                        }
                    }
                    Change::Heal(id) => {
                        heal(&mut transaction, &id, now_ns).await?;
                        changed.healed += 1;
                    }
                }
            }
            transaction.commit().await?;
        }
        Ok(changed)
    }

    async fn open_notices(&self) -> Result<HashMap<(EventKind, String), Known>, ControlError> {
        let rows = sqlx::query("SELECT id, kind, cause, level, worst_level FROM notices WHERE state = 'open'")
            .fetch_all(&self.readers)
            .await?;
        let mut known = HashMap::new();
        for row in &rows {
            let key = (row.try_get::<&str, _>("kind")?.parse()?, row.try_get("cause")?);
            let id = NoticeId::stored(row.try_get("id")?)?;
            known.insert(key, Known { id, level: row.try_get("level")?, worst_level: row.try_get("worst_level")? });
        }
        Ok(known)
    }

    /// Notices that the scope reaches, newest first; at most `limit` behind `after`.
    pub async fn notices(
        &self,
        scope: &Scope,
        is_open: Option<bool>,
        after: Option<(i64, NoticeId)>,
        limit: u32,
    ) -> Result<Vec<Notice>, ControlError> {
        let state = match is_open {
            None => "",
            Some(true) => "state = 'open' AND ",
            Some(false) => "state = 'healed' AND ",
        };
        let text = format!(
            "SELECT * FROM notices WHERE {state}(since_ns < $1 OR (since_ns = $1 AND id < $2)) AND {} \
             ORDER BY since_ns DESC, id DESC LIMIT $3",
            scope.condition("notices.tenant_id", Some("notices.user_id"))
        );
        let (at_ns, id) = after.map_or((i64::MAX, String::new()), |(at_ns, id)| (at_ns, id.to_string()));
        let rows = sqlx::query(sqlx::AssertSqlSafe(text))
            .bind(at_ns)
            .bind(id)
            .bind(i64::from(limit))
            .fetch_all(&self.readers)
            .await?;
        rows.iter().map(notice).collect()
    }

    /// How many notices are open, by kind.
    pub async fn notice_counts(&self) -> Result<BTreeMap<&'static str, i64>, ControlError> {
        let mut counts: BTreeMap<&'static str, i64> =
            EventKind::NOTICES.iter().map(|kind| (kind.as_str(), 0)).collect();
        let rows = sqlx::query("SELECT kind, COUNT(*) AS notices FROM notices WHERE state = 'open' GROUP BY kind")
            .fetch_all(&self.readers)
            .await?;
        for row in &rows {
            let kind: EventKind = row.try_get::<&str, _>("kind")?.parse()?;
            counts.insert(kind.as_str(), row.try_get("notices")?);
        }
        Ok(counts)
    }

    /// Removes notices that were over before `before_ns`, at most `limit`. Answers how many.
    pub async fn forget_notices(&self, before_ns: i64, limit: u32) -> Result<u64, ControlError> {
        let mut transaction = self.write().await?;
        let gone = sqlx::query(
            "DELETE FROM notices WHERE id IN (SELECT id FROM notices WHERE state = 'healed' AND since_ns < $1 \
             AND healed_ns < $1 ORDER BY since_ns LIMIT $2)",
        )
        .bind(before_ns)
        .bind(i64::from(limit))
        .execute(&mut *transaction)
        .await?;
        transaction.commit().await?;
        Ok(gone.rows_affected())
    }

    /// After how many days without a backup a tenant's people are told.
    pub async fn stale_days(&self, scope: &Scope, tenant: &TenantId) -> Result<i64, ControlError> {
        let text = format!("SELECT stale_days FROM tenants WHERE id = $1 AND {}", scope.condition("tenants.id", None));
        let days = sqlx::query_scalar(sqlx::AssertSqlSafe(text)).bind(tenant.to_string());
        let days: Option<i64> = days.fetch_optional(&self.readers).await?;
        days.ok_or_else(|| ControlError::not_found("tenant", &tenant.to_string()))
    }

    /// Sets after how many days without a backup a tenant's people are told, 1 to 365.
    pub async fn set_stale_days(
        &self,
        scope: &Scope,
        actor: &crate::Actor,
        tenant: &TenantId,
        days: i64,
        now_ns: i64,
    ) -> Result<(), ControlError> {
        if !(1..=365).contains(&days) {
            return Err(ControlError::Invalid { what: "days", rule: "must be 1 to 365" });
        }
        let before = self.stale_days(scope, tenant).await?;
        let mut transaction = self.write().await?;
        sqlx::query("UPDATE tenants SET stale_days = $1 WHERE id = $2")
            .bind(days)
            .bind(tenant.to_string())
            .execute(&mut *transaction)
            .await?;
        let deed = crate::Deed {
            tenant: *tenant,
            user: None,
            verb: "notice.edit",
            object: format!("tenant {tenant}"),
            before: Some(serde_json::json!({ "stale_days": before })),
            after: Some(serde_json::json!({ "stale_days": days })),
        };
        crate::audit_log::record(&mut transaction, actor, deed, now_ns).await?;
        transaction.commit().await?;
        Ok(())
    }
}

async fn open(connection: &mut AnyConnection, cause: &Cause, now_ns: i64) -> Result<(), ControlError> {
    sqlx::query(
        "INSERT INTO notices (id, tenant_id, user_id, kind, cause, level, worst_level, facts, state, since_ns) \
         VALUES ($1, $2, $3, $4, $5, $6, $6, $7, 'open', $8)",
    )
    .bind(NoticeId::generate()?.to_string())
    .bind(cause.tenant.to_string())
    .bind(cause.user.map(|user| user.to_string()))
    .bind(cause.kind.as_str())
    .bind(&cause.cause)
    .bind(cause.level)
    .bind(serde_json::json!(cause.facts).to_string())
    .bind(now_ns)
    .execute(connection)
    .await?;
    Ok(())
}

async fn set_level(connection: &mut AnyConnection, id: &NoticeId, cause: &Cause) -> Result<(), ControlError> {
    sqlx::query(
        "UPDATE notices SET level = $1, worst_level = CASE WHEN worst_level < $1 THEN $1 ELSE worst_level END, facts = $2 \
         WHERE id = $3 AND state = 'open'",
    )
    .bind(cause.level)
    .bind(serde_json::json!(cause.facts).to_string())
    .bind(id.to_string())
    .execute(connection)
    .await?;
    Ok(())
}

async fn heal(connection: &mut AnyConnection, id: &NoticeId, now_ns: i64) -> Result<(), ControlError> {
    let changed = sqlx::query("UPDATE notices SET state = 'healed', healed_ns = $1 WHERE id = $2 AND state = 'open'")
        .bind(now_ns)
        .bind(id.to_string())
        .execute(&mut *connection)
        .await?;
    if changed.rows_affected() == 0 {
        return Ok(());
    }
    let row =
        sqlx::query("SELECT * FROM notices WHERE id = $1").bind(id.to_string()).fetch_one(&mut *connection).await?;
    let healed = notice(&row)?;
    let mut facts = healed.facts;
    facts.insert("notice".into(), healed.kind.as_str().into());
    facts.insert("cause".into(), healed.cause);
    let event = Event { kind: EventKind::Healed, tenant: healed.tenant, user: healed.user, facts: &facts };
    queue_event(connection, &event, now_ns).await
}
