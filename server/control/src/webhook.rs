//! Webhooks: who wants to be told what by HTTP, and what is on its way to them. Sending and signing is the server's.

use crate::audit_log::record;
use crate::{Actor, Control, ControlError, Deed, DeliveryId, Scope, TenantId, UserId, WebhookId};
use sqlx::any::AnyRow;
use sqlx::{AnyConnection, Row};
use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

const SECOND_NS: i64 = 1_000_000_000;
/// First pause behind a failed try; doubles up to [`PAUSE_MAX_NS`].
const PAUSE_FIRST_NS: i64 = 15 * SECOND_NS;
const PAUSE_MAX_NS: i64 = 2 * 3600 * SECOND_NS;
/// What is older is given up.
const AGE_MAX_NS: i64 = 24 * 3600 * SECOND_NS;
/// Longest URL, bytes.
const URL_BYTES_MAX: usize = 2048;
/// Most webhooks of a tenant.
const WEBHOOKS_MAX: i64 = 50;
/// What is kept of an error.
const ERROR_CHARACTERS_MAX: usize = 500;

/// What somebody can be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum EventKind {
    /// A backup has failed.
    BackupFailed,
    /// A backup did not start.
    BackupMissed,
    /// No backup has succeeded for days.
    BackupStale,
    /// Space runs out.
    Quota,
    /// A service ends soon.
    ServiceExpiring,
    /// A service does not do everything any more.
    ServiceState,
    /// What a notice was about is over.
    Healed,
    /// Somebody tries whether it works.
    Test,
}

impl EventKind {
    /// All of them.
    pub const ALL: [EventKind; 8] = [
        EventKind::BackupFailed,
        EventKind::BackupMissed,
        EventKind::BackupStale,
        EventKind::Quota,
        EventKind::ServiceExpiring,
        EventKind::ServiceState,
        EventKind::Healed,
        EventKind::Test,
    ];

    /// Those that notices are about.
    pub const NOTICES: [EventKind; 6] = [
        EventKind::BackupFailed,
        EventKind::BackupMissed,
        EventKind::BackupStale,
        EventKind::Quota,
        EventKind::ServiceExpiring,
        EventKind::ServiceState,
    ];

    /// As stored and as on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            EventKind::BackupFailed => "backup_failed",
            EventKind::BackupMissed => "backup_missed",
            EventKind::BackupStale => "backup_stale",
            EventKind::Quota => "quota",
            EventKind::ServiceExpiring => "service_expiring",
            EventKind::ServiceState => "service_state",
            EventKind::Healed => "healed",
            EventKind::Test => "test",
        }
    }
}

impl fmt::Display for EventKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for EventKind {
    type Err = ControlError;
    fn from_str(text: &str) -> Result<Self, ControlError> {
        let found = EventKind::ALL.into_iter().find(|kind| kind.as_str() == text);
        found.ok_or(ControlError::Invalid { what: "event", rule: "must be one that the server tells of" })
    }
}

/// A webhook.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Webhook {
    /// Its id.
    pub id: WebhookId,
    /// Whose it is: it tells of this tenant and those below.
    pub tenant: TenantId,
    /// Only what is this user's.
    pub user: Option<UserId>,
    /// Where it goes.
    pub url: String,
    /// What it tells.
    pub events: Vec<EventKind>,
    /// Nothing is sent while it is not.
    pub is_active: bool,
    /// Since when nothing arrives.
    pub failing_since_ns: Option<i64>,
    /// When it was made.
    pub created_ns: i64,
}

/// A webhook to be made.
#[derive(Clone, Debug)]
pub struct NewWebhook<'a> {
    /// Its id; what was sealed may be bound to it.
    pub id: WebhookId,
    /// Whose it is.
    pub tenant: TenantId,
    /// Only what is this user's.
    pub user: Option<UserId>,
    /// Where it goes.
    pub url: &'a str,
    /// What it tells.
    pub events: &'a [EventKind],
    /// The secret that signs what is sent, sealed.
    pub sealed_secret: &'a str,
}

/// What of a webhook is changed; `None` stays.
#[derive(Clone, Debug, Default)]
pub struct WebhookChange<'a> {
    /// Where it goes.
    pub url: Option<&'a str>,
    /// What it tells.
    pub events: Option<&'a [EventKind]>,
    /// Whether anything is sent.
    pub is_active: Option<bool>,
    /// A new secret, sealed.
    pub sealed_secret: Option<&'a str>,
}

/// Where a delivery is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DeliveryState {
    /// Waiting, perhaps for another try.
    Queued,
    /// The other side has taken it.
    Delivered,
    /// Given up.
    Failed,
}

impl DeliveryState {
    /// As stored and as on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            DeliveryState::Queued => "queued",
            DeliveryState::Delivered => "delivered",
            DeliveryState::Failed => "failed",
        }
    }

    fn stored(text: &str) -> Result<Self, ControlError> {
        match text {
            "queued" => Ok(DeliveryState::Queued),
            "delivered" => Ok(DeliveryState::Delivered),
            "failed" => Ok(DeliveryState::Failed),
            _ => Err(ControlError::Corrupt { what: "state of a delivery" }),
        }
    }
}

/// Something sent, or to be sent, to a webhook.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delivery {
    /// Its id; the same at every try, so that the other side sees it once.
    pub id: DeliveryId,
    /// What is told.
    pub event: String,
    /// JSON, as sent.
    pub body: String,
    /// Where it is.
    pub state: DeliveryState,
    /// How often it was tried.
    pub tries: i64,
    /// When it is tried next; of a queued one.
    pub next_try_ns: Option<i64>,
    /// HTTP status answered last.
    pub last_status: Option<i64>,
    /// Why there was none.
    pub last_error: Option<String>,
    /// When it was written.
    pub created_ns: i64,
    /// When it was delivered or given up.
    pub done_ns: Option<i64>,
}

/// A delivery to be sent now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutgoingDelivery {
    /// Its id.
    pub id: DeliveryId,
    /// Its webhook.
    pub webhook: WebhookId,
    /// Where to.
    pub url: String,
    /// What is told.
    pub event: String,
    /// JSON.
    pub body: String,
    /// The secret that signs it, sealed.
    pub sealed_secret: String,
}

fn events(text: &str) -> Result<Vec<EventKind>, ControlError> {
    let corrupt = || ControlError::Corrupt { what: "events of a webhook" };
    let names: Vec<String> = serde_json::from_str(text).map_err(|_| corrupt())?;
    names.iter().map(|name| name.parse().map_err(|_| corrupt())).collect()
}

fn stored_events(events: &[EventKind]) -> Result<String, ControlError> {
    if events.is_empty() {
        return Err(ControlError::Invalid { what: "events", rule: "must be at least one" });
    }
    let mut names: Vec<&str> = events.iter().map(|event| event.as_str()).collect();
    names.sort_unstable();
    names.dedup();
    Ok(serde_json::json!(names).to_string())
}

fn webhook(row: &AnyRow) -> Result<Webhook, ControlError> {
    let user: Option<String> = row.try_get("user_id")?;
    Ok(Webhook {
        id: WebhookId::stored(row.try_get("id")?)?,
        tenant: TenantId::stored(row.try_get("tenant_id")?)?,
        user: user.as_deref().map(UserId::stored).transpose()?,
        url: row.try_get("url")?,
        events: events(row.try_get("events")?)?,
        is_active: row.try_get::<&str, _>("state")? == "active",
        failing_since_ns: row.try_get("failing_since_ns")?,
        created_ns: row.try_get("created_ns")?,
    })
}

fn delivery(row: &AnyRow) -> Result<Delivery, ControlError> {
    let state = DeliveryState::stored(row.try_get("state")?)?;
    let next_try_ns: i64 = row.try_get("next_try_ns")?;
    Ok(Delivery {
        id: DeliveryId::stored(row.try_get("id")?)?,
        event: row.try_get("event")?,
        body: row.try_get("body")?,
        state,
        tries: row.try_get("tries")?,
        next_try_ns: (state == DeliveryState::Queued).then_some(next_try_ns),
        last_status: row.try_get("last_status")?,
        last_error: row.try_get("last_error")?,
        created_ns: row.try_get("created_ns")?,
        done_ns: row.try_get("done_ns")?,
    })
}

fn check_url(url: &str) -> Result<(), ControlError> {
    let (scheme, rest) = url.split_once("://").unwrap_or_default();
    let host = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let rule = if !matches!(scheme, "https" | "http") || host.is_empty() {
        "must be an https:// URL"
    } else if host.contains('@') {
        "must hold no name or password"
    } else if url.len() > URL_BYTES_MAX || url.chars().any(|character| character.is_control() || character == ' ') {
        "must be at most 2048 bytes without blanks"
    } else {
        return Ok(());
    };
    Err(ControlError::Invalid { what: "URL", rule })
}

/// Something to be told.
#[derive(Clone, Debug)]
pub(crate) struct Event<'a> {
    pub(crate) kind: EventKind,
    pub(crate) tenant: TenantId,
    pub(crate) user: Option<UserId>,
    pub(crate) facts: &'a BTreeMap<String, String>,
}

/// Puts an event on its way to every webhook that wants it, in the transaction of what it tells of.
pub(crate) async fn queue_event(
    connection: &mut AnyConnection,
    event: &Event<'_>,
    now_ns: i64,
) -> Result<(), ControlError> {
    let rows = sqlx::query(
        "SELECT webhooks.id AS id, webhooks.events AS events FROM tenants AS concerned \
         JOIN tenants AS above ON concerned.path LIKE above.path || '%' \
         JOIN webhooks ON webhooks.tenant_id = above.id \
         WHERE concerned.id = $1 AND webhooks.state = 'active' AND (webhooks.user_id IS NULL OR webhooks.user_id = $2)",
    )
    .bind(event.tenant.to_string())
    .bind(event.user.map(|user| user.to_string()))
    .fetch_all(&mut *connection)
    .await?;
    for row in &rows {
        if events(row.try_get("events")?)?.contains(&event.kind) {
            let webhook = WebhookId::stored(row.try_get("id")?)?;
            queue_delivery(&mut *connection, &webhook, event, now_ns).await?;
        }
    }
    Ok(())
}

async fn queue_delivery(
    connection: &mut AnyConnection,
    webhook: &WebhookId,
    event: &Event<'_>,
    now_ns: i64,
) -> Result<DeliveryId, ControlError> {
    let id = DeliveryId::generate()?;
    let body = serde_json::json!({
        "id": id.to_string(),
        "event": event.kind.as_str(),
        "at_ns": now_ns,
        "tenant": event.tenant.to_string(),
        "user": event.user.map(|user| user.to_string()),
        "facts": event.facts,
    });
    sqlx::query(
        "INSERT INTO webhook_deliveries (id, webhook_id, event, body, state, next_try_ns, created_ns) \
         VALUES ($1, $2, $3, $4, 'queued', $5, $5)",
    )
    .bind(id.to_string())
    .bind(webhook.to_string())
    .bind(event.kind.as_str())
    .bind(body.to_string())
    .bind(now_ns)
    .execute(connection)
    .await?;
    Ok(id)
}

fn pause_ns(tries: i64, id: &DeliveryId) -> i64 {
    let doubled = PAUSE_FIRST_NS.saturating_mul(1 << tries.clamp(1, 20).saturating_sub(1)).min(PAUSE_MAX_NS);
    doubled + doubled / 4 * i64::from(id.first_byte()) / 255
}

impl Control {
    /// Makes a webhook. The scope must reach its tenant or user.
    pub async fn create_webhook(
        &self,
        scope: &Scope,
        actor: &Actor,
        new: &NewWebhook<'_>,
        now_ns: i64,
    ) -> Result<Webhook, ControlError> {
        check_url(new.url)?;
        let events = stored_events(new.events)?;
        let mut transaction = self.write().await?;
        let place = match new.user {
            Some(user) => {
                let text = format!(
                    "SELECT COUNT(*) FROM users WHERE id = $1 AND tenant_id = $2 AND {}",
                    scope.condition("users.tenant_id", Some("users.id"))
                );
                sqlx::query_scalar::<_, i64>(sqlx::AssertSqlSafe(text)).bind(user.to_string())
            }
            None => {
                let text = format!(
                    "SELECT COUNT(*) FROM tenants WHERE id = $1 AND id = $2 AND {}",
                    scope.condition("tenants.id", None)
                );
                sqlx::query_scalar::<_, i64>(sqlx::AssertSqlSafe(text)).bind(new.tenant.to_string())
            }
        };
        if place.bind(new.tenant.to_string()).fetch_one(&mut *transaction).await? == 0 {
            return Err(ControlError::not_found("tenant", &new.tenant.to_string()));
        }
        let count: i64 = sqlx::query_scalar("SELECT COUNT(*) FROM webhooks WHERE tenant_id = $1")
            .bind(new.tenant.to_string())
            .fetch_one(&mut *transaction)
            .await?;
        if count >= WEBHOOKS_MAX {
            return Err(ControlError::Invalid { what: "webhooks", rule: "a tenant has at most 50" });
        }
        sqlx::query(
            "INSERT INTO webhooks (id, tenant_id, user_id, url, events, sealed_secret, state, state_ns, created_ns) \
             VALUES ($1, $2, $3, $4, $5, $6, 'active', $7, $7)",
        )
        .bind(new.id.to_string())
        .bind(new.tenant.to_string())
        .bind(new.user.map(|user| user.to_string()))
        .bind(new.url)
        .bind(events)
        .bind(new.sealed_secret)
        .bind(now_ns)
        .execute(&mut *transaction)
        .await?;
        let row = sqlx::query("SELECT * FROM webhooks WHERE id = $1")
            .bind(new.id.to_string())
            .fetch_one(&mut *transaction)
            .await?;
        let made = webhook(&row)?;
        record(&mut transaction, actor, deed(&made, None, Some(&made)), now_ns).await?;
        transaction.commit().await?;
        Ok(made)
    }

    /// One webhook. [`ControlError::NotFound`] also when the scope does not reach it.
    pub async fn webhook(&self, scope: &Scope, id: &WebhookId) -> Result<Webhook, ControlError> {
        let mut connection = self.readers.acquire().await?;
        find(&mut connection, scope, id).await
    }

    /// Webhooks that the scope reaches, oldest first; at most `limit` behind `after`.
    pub async fn webhooks(
        &self,
        scope: &Scope,
        after: Option<(i64, WebhookId)>,
        limit: u32,
    ) -> Result<Vec<Webhook>, ControlError> {
        let text = format!(
            "SELECT * FROM webhooks WHERE (created_ns > $1 OR (created_ns = $1 AND id > $2)) AND {} \
             ORDER BY created_ns, id LIMIT $3",
            scope.condition("webhooks.tenant_id", Some("webhooks.user_id"))
        );
        let (at_ns, id) = after.map_or((i64::MIN, String::new()), |(at_ns, id)| (at_ns, id.to_string()));
        let rows = sqlx::query(sqlx::AssertSqlSafe(text))
            .bind(at_ns)
            .bind(id)
            .bind(i64::from(limit))
            .fetch_all(&self.readers)
            .await?;
        rows.iter().map(webhook).collect()
    }

    /// Changes a webhook. One that was paused and is no longer starts without what happened meanwhile.
    pub async fn change_webhook(
        &self,
        scope: &Scope,
        actor: &Actor,
        id: &WebhookId,
        change: &WebhookChange<'_>,
        now_ns: i64,
    ) -> Result<Webhook, ControlError> {
        if let Some(url) = change.url {
            check_url(url)?;
        }
        let events = change.events.map(stored_events).transpose()?;
        let mut transaction = self.write().await?;
        let before = find(&mut transaction, scope, id).await?;
        let is_active = change.is_active.unwrap_or(before.is_active);
        sqlx::query(
            "UPDATE webhooks SET url = COALESCE($1, url), events = COALESCE($2, events), \
             sealed_secret = COALESCE($3, sealed_secret), state = $4, \
             state_ns = CASE WHEN state = $4 THEN state_ns ELSE $5 END, \
             failing_since_ns = CASE WHEN state = $4 THEN failing_since_ns END WHERE id = $6",
        )
        .bind(change.url.map(ToOwned::to_owned))
        .bind(events)
        .bind(change.sealed_secret.map(ToOwned::to_owned))
        .bind(if is_active { "active" } else { "paused" })
        .bind(now_ns)
        .bind(id.to_string())
        .execute(&mut *transaction)
        .await?;
        if !is_active {
            sqlx::query(
                "UPDATE webhook_deliveries SET state = 'failed', done_ns = $1, last_error = 'the webhook was paused' \
                 WHERE webhook_id = $2 AND state = 'queued'",
            )
            .bind(now_ns)
            .bind(id.to_string())
            .execute(&mut *transaction)
            .await?;
        }
        let after = find(&mut transaction, scope, id).await?;
        record(&mut transaction, actor, deed(&after, Some(&before), Some(&after)), now_ns).await?;
        transaction.commit().await?;
        Ok(after)
    }

    /// Removes a webhook and what is on its way.
    pub async fn delete_webhook(
        &self,
        scope: &Scope,
        actor: &Actor,
        id: &WebhookId,
        now_ns: i64,
    ) -> Result<Webhook, ControlError> {
        let mut transaction = self.write().await?;
        let gone = find(&mut transaction, scope, id).await?;
        sqlx::query("DELETE FROM webhooks WHERE id = $1").bind(id.to_string()).execute(&mut *transaction).await?;
        record(&mut transaction, actor, deed(&gone, Some(&gone), None), now_ns).await?;
        transaction.commit().await?;
        Ok(gone)
    }

    /// Sends a test event to one webhook.
    pub async fn test_webhook(&self, scope: &Scope, id: &WebhookId, now_ns: i64) -> Result<DeliveryId, ControlError> {
        let mut transaction = self.write().await?;
        let found = find(&mut transaction, scope, id).await?;
        if !found.is_active {
            return Err(ControlError::WrongState {
                what: "webhook",
                name: id.to_string(),
                state: "paused".into(),
                needed: "make it active first",
            });
        }
        let facts = BTreeMap::new();
        let event = Event { kind: EventKind::Test, tenant: found.tenant, user: found.user, facts: &facts };
        let delivery = queue_delivery(&mut transaction, id, &event, now_ns).await?;
        transaction.commit().await?;
        Ok(delivery)
    }

    /// What was sent to a webhook, newest first; at most `limit` behind `after`.
    pub async fn deliveries(
        &self,
        scope: &Scope,
        webhook: &WebhookId,
        after: Option<(i64, DeliveryId)>,
        limit: u32,
    ) -> Result<Vec<Delivery>, ControlError> {
        self.webhook(scope, webhook).await?;
        let (at_ns, id) = after.map_or((i64::MAX, String::new()), |(at_ns, id)| (at_ns, id.to_string()));
        let rows = sqlx::query(
            "SELECT * FROM webhook_deliveries WHERE webhook_id = $1 AND \
             (created_ns < $2 OR (created_ns = $2 AND id < $3)) ORDER BY created_ns DESC, id DESC LIMIT $4",
        )
        .bind(webhook.to_string())
        .bind(at_ns)
        .bind(id)
        .bind(i64::from(limit))
        .fetch_all(&self.readers)
        .await?;
        rows.iter().map(delivery).collect()
    }

    /// Deliveries whose time has come, at most `limit`, the longest waiting first: of each webhook the first, so that one
    /// that does not answer holds up no other, and what one is told comes in the order in which it happened.
    pub async fn due_deliveries(&self, now_ns: i64, limit: u32) -> Result<Vec<OutgoingDelivery>, ControlError> {
        let rows = sqlx::query(
            "SELECT due.id AS id, due.webhook_id AS webhook_id, due.event AS event, due.body AS body, \
             webhooks.url AS url, webhooks.sealed_secret AS sealed_secret FROM webhook_deliveries AS due \
             JOIN webhooks ON webhooks.id = due.webhook_id \
             WHERE due.state = 'queued' AND due.next_try_ns <= $1 AND NOT EXISTS (\
                SELECT 1 FROM webhook_deliveries AS earlier WHERE earlier.webhook_id = due.webhook_id \
                AND earlier.state = 'queued' AND (earlier.next_try_ns < due.next_try_ns \
                    OR (earlier.next_try_ns = due.next_try_ns AND earlier.id < due.id))) \
             ORDER BY due.next_try_ns, due.id LIMIT $2",
        )
        .bind(now_ns)
        .bind(i64::from(limit))
        .fetch_all(&self.readers)
        .await?;
        let outgoing = |row: &AnyRow| {
            Ok(OutgoingDelivery {
                id: DeliveryId::stored(row.try_get("id")?)?,
                webhook: WebhookId::stored(row.try_get("webhook_id")?)?,
                url: row.try_get("url")?,
                event: row.try_get("event")?,
                body: row.try_get("body")?,
                sealed_secret: row.try_get("sealed_secret")?,
            })
        };
        rows.iter().map(outgoing).collect()
    }

    /// The other side has taken it.
    pub async fn delivered(&self, sent: &OutgoingDelivery, status: u16, now_ns: i64) -> Result<(), ControlError> {
        let mut transaction = self.write().await?;
        sqlx::query(
            "UPDATE webhook_deliveries SET state = 'delivered', tries = tries + 1, last_status = $1, last_error = NULL, \
             done_ns = $2 WHERE id = $3 AND state = 'queued'",
        )
        .bind(i64::from(status))
        .bind(now_ns)
        .bind(sent.id.to_string())
        .execute(&mut *transaction)
        .await?;
        sqlx::query("UPDATE webhooks SET failing_since_ns = NULL WHERE id = $1 AND failing_since_ns IS NOT NULL")
            .bind(sent.webhook.to_string())
            .execute(&mut *transaction)
            .await?;
        transaction.commit().await?;
        Ok(())
    }

    /// It did not arrive. Answers when it is tried again; `None` when it was given up for its age.
    pub async fn not_delivered(
        &self,
        sent: &OutgoingDelivery,
        status: Option<u16>,
        error: &str,
        now_ns: i64,
    ) -> Result<Option<i64>, ControlError> {
        let mut transaction = self.write().await?;
        let row = sqlx::query("SELECT tries, created_ns FROM webhook_deliveries WHERE id = $1 AND state = 'queued'")
            .bind(sent.id.to_string())
            .fetch_optional(&mut *transaction)
            .await?;
        let Some(row) = row else { return Ok(None) };
        let (tries, created_ns): (i64, i64) = (row.try_get("tries")?, row.try_get("created_ns")?);
        let is_over = now_ns.saturating_sub(created_ns) > AGE_MAX_NS;
        let next_ns = now_ns.saturating_add(pause_ns(tries + 1, &sent.id));
        let error: String =
            error.chars().filter(|character| !character.is_control()).take(ERROR_CHARACTERS_MAX).collect();
        sqlx::query(
            "UPDATE webhook_deliveries SET state = $1, tries = tries + 1, next_try_ns = $2, last_status = $3, \
             last_error = $4, done_ns = $5 WHERE id = $6 AND state = 'queued'",
        )
        .bind(if is_over { DeliveryState::Failed } else { DeliveryState::Queued }.as_str())
        .bind(next_ns)
        .bind(status.map(i64::from))
        .bind(error)
        .bind(is_over.then_some(now_ns))
        .bind(sent.id.to_string())
        .execute(&mut *transaction)
        .await?;
        sqlx::query("UPDATE webhooks SET failing_since_ns = $1 WHERE id = $2 AND failing_since_ns IS NULL")
            .bind(now_ns)
            .bind(sent.webhook.to_string())
            .execute(&mut *transaction)
            .await?;
        transaction.commit().await?;
        Ok((!is_over).then_some(next_ns))
    }

    /// Removes deliveries that ended before `before_ns`, at most `limit`. Answers how many.
    pub async fn forget_deliveries(&self, before_ns: i64, limit: u32) -> Result<u64, ControlError> {
        let mut transaction = self.write().await?;
        let gone = sqlx::query(
            "DELETE FROM webhook_deliveries WHERE id IN (SELECT id FROM webhook_deliveries \
             WHERE created_ns < $1 AND state <> 'queued' AND done_ns < $1 ORDER BY created_ns LIMIT $2)",
        )
        .bind(before_ns)
        .bind(i64::from(limit))
        .execute(&mut *transaction)
        .await?;
        transaction.commit().await?;
        Ok(gone.rows_affected())
    }

    /// Where a webhook stands in the tree; `None` when there is none.
    pub async fn locate_webhook(&self, id: &WebhookId) -> Result<Option<crate::Location>, ControlError> {
        let row = sqlx::query("SELECT tenant_id, user_id FROM webhooks WHERE id = $1")
            .bind(id.to_string())
            .fetch_optional(&self.readers)
            .await?;
        let (user, tenant) = match &row {
            Some(row) => (row.try_get("user_id")?, Some(TenantId::stored(row.try_get("tenant_id")?)?)),
            None => (None, None),
        };
        // The same is asked whoever owns it, and when there is none: the time of an answer tells nothing.
        let of_user = self.locate_owned(user).await?;
        let of_tenant = self.locate_tenant(&tenant.unwrap_or(TenantId::from_bytes([0xff; crate::ID_BYTES]))).await?;
        Ok(of_user.or(of_tenant))
    }
}

async fn find(connection: &mut AnyConnection, scope: &Scope, id: &WebhookId) -> Result<Webhook, ControlError> {
    let text = format!(
        "SELECT * FROM webhooks WHERE id = $1 AND {}",
        scope.condition("webhooks.tenant_id", Some("webhooks.user_id"))
    );
    let row = sqlx::query(sqlx::AssertSqlSafe(text)).bind(id.to_string()).fetch_optional(connection).await?;
    webhook(&row.ok_or_else(|| ControlError::not_found("webhook", &id.to_string()))?)
}

fn deed<'a>(of: &Webhook, before: Option<&Webhook>, after: Option<&Webhook>) -> Deed<'a> {
    let shown = |webhook: &Webhook| {
        let events: Vec<&str> = webhook.events.iter().map(|event| event.as_str()).collect();
        serde_json::json!({ "url": webhook.url, "events": events, "active": webhook.is_active })
    };
    Deed {
        tenant: of.tenant,
        user: of.user,
        verb: "webhook.edit",
        object: format!("webhook {}", of.id),
        before: before.map(shown),
        after: after.map(shown),
    }
}
