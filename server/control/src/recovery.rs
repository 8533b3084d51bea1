//! How operators give an account back to somebody who has lost mail address or second factor: asked for, agreed to by a
//! second operator where there is one, and carried out three days later, so that whoever has the account can object.

use crate::api_token;
use crate::audit_log::record;
use crate::credential::{RECOVERY_RESET_NS, insert_password_reset, mail_time, mail_values, remove_second_factor};
use crate::error::exists;
use crate::login::end_sessions_of;
use crate::mail::{MailTemplate, NewMail, queue_mail};
use crate::{Account, Actor, Control, ControlError, Deed, Email, RecoveryId, Scope, TenantId, UserId};
use sqlx::any::AnyRow;
use sqlx::{AnyConnection, Row};
use std::collections::BTreeMap;

/// Between the agreement and the recovery itself.
pub const RECOVERY_DELAY_NS: i64 = 72 * 3600 * 1_000_000_000;
const REASON_BYTES_MAX: usize = 1000;

/// Where a recovery stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RecoveryState {
    /// A second operator must agree.
    Asked,
    /// Its time is running.
    Waiting,
    /// The account has its new address.
    Done,
    /// Somebody objected.
    Cancelled,
}

impl RecoveryState {
    /// As stored and as on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            RecoveryState::Asked => "asked",
            RecoveryState::Waiting => "waiting",
            RecoveryState::Done => "done",
            RecoveryState::Cancelled => "cancelled",
        }
    }

    fn stored(text: &str) -> Result<Self, ControlError> {
        Ok(match text {
            "asked" => RecoveryState::Asked,
            "waiting" => RecoveryState::Waiting,
            "done" => RecoveryState::Done,
            "cancelled" => RecoveryState::Cancelled,
            _ => return Err(ControlError::Corrupt { what: "state of a recovery" }),
        })
    }
}

/// A recovery.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recovery {
    /// Its id.
    pub id: RecoveryId,
    /// Whose account.
    pub user: UserId,
    /// The address that the account gets.
    pub new_email: String,
    /// What the operator knows of it.
    pub reason: String,
    /// Where it stands.
    pub state: RecoveryState,
    /// Since when, nanoseconds since 1970.
    pub state_ns: i64,
    /// Id of the operator who asked for it.
    pub asked_by: String,
    /// Name of that one.
    pub asked_by_name: String,
    /// Name of the operator who agreed.
    pub approved_by_name: Option<String>,
    /// When it is carried out.
    pub due_ns: Option<i64>,
    /// When it was asked for.
    pub created_ns: i64,
}

fn recovery(row: &AnyRow) -> Result<Recovery, ControlError> {
    Ok(Recovery {
        id: RecoveryId::stored(row.try_get("id")?)?,
        user: UserId::stored(row.try_get("user_id")?)?,
        new_email: row.try_get("new_email")?,
        reason: row.try_get("reason")?,
        state: RecoveryState::stored(row.try_get("state")?)?,
        state_ns: row.try_get("state_ns")?,
        asked_by: row.try_get("asked_by")?,
        asked_by_name: row.try_get("asked_by_name")?,
        approved_by_name: row.try_get("approved_by_name")?,
        due_ns: row.try_get("due_ns")?,
        created_ns: row.try_get("created_ns")?,
    })
}

/// Every address that the account has had a say at.
fn old_addresses(account: &Account) -> Vec<&str> {
    let mut addresses: Vec<&str> =
        [account.email.as_deref(), account.notify_email.as_deref()].into_iter().flatten().collect();
    addresses.dedup();
    addresses
}

async fn tell_old_addresses(
    connection: &mut AnyConnection,
    account: &Account,
    template: MailTemplate,
    values: &BTreeMap<String, String>,
    now_ns: i64,
) -> Result<(), ControlError> {
    for to in old_addresses(account) {
        let mail =
            NewMail { to, template, locale: &account.locale, values: values.clone(), tenant: Some(account.tenant) };
        queue_mail(&mut *connection, &mail, now_ns).await?;
    }
    Ok(())
}

fn deed(recovery: &Recovery, tenant: TenantId, verb: &'static str) -> Deed<'static> {
    Deed {
        tenant,
        user: Some(recovery.user),
        verb,
        object: format!("recovery {}", recovery.id),
        before: None,
        after: Some(serde_json::json!({ "new_email": recovery.new_email, "state": recovery.state.as_str() })),
    }
}

fn started_values(now_ns: i64, due_ns: i64) -> BTreeMap<String, String> {
    mail_values([("time", mail_time(now_ns)), ("effective", mail_time(due_ns))])
}

/// The person is there and logs in: no recovery is needed any more.
pub(crate) async fn cancel_by_login(
    connection: &mut AnyConnection,
    account: &Account,
    actor: &Actor,
    now_ns: i64,
) -> Result<(), ControlError> {
    let rows = sqlx::query(
        "UPDATE account_recoveries SET state = 'cancelled', state_ns = $1 WHERE user_id = $2 \
         AND state IN ('asked', 'waiting') RETURNING *",
    )
    .bind(now_ns)
    .bind(account.user.to_string())
    .fetch_all(&mut *connection)
    .await?;
    for row in &rows {
        record(&mut *connection, actor, deed(&recovery(row)?, account.tenant, "recovery.cancel"), now_ns).await?;
    }
    Ok(())
}

impl Control {
    /// Asks for the recovery of an account. It waits for a second operator when there is one besides `actor` and the
    /// account's own person; its time runs at once otherwise.
    pub async fn ask_recovery(
        &self,
        actor: &Actor,
        account: &Account,
        new_email: &Email,
        reason: &str,
        now_ns: i64,
    ) -> Result<Recovery, ControlError> {
        if reason.trim().is_empty() || reason.len() > REASON_BYTES_MAX {
            return Err(ControlError::Invalid { what: "reason", rule: "must be between 1 and 1000 bytes long" });
        }
        let mut transaction = self.write().await?;
        let running =
            sqlx::query("SELECT id FROM account_recoveries WHERE user_id = $1 AND state IN ('asked', 'waiting')")
                .bind(account.user.to_string())
                .fetch_optional(&mut *transaction)
                .await?;
        if running.is_some() {
            return Err(ControlError::Exists { what: "recovery of", name: account.user.to_string() });
        }
        let taken = sqlx::query("SELECT id FROM users WHERE email_folded = $1 AND id <> $2")
            .bind(new_email.folded())
            .bind(account.user.to_string())
            .fetch_optional(&mut *transaction)
            .await?;
        if taken.is_some() {
            return Err(ControlError::Exists { what: "account of", name: new_email.as_str().to_owned() });
        }
        let others: i64 = sqlx::query_scalar(
            "SELECT COUNT(*) FROM memberships JOIN users ON users.id = memberships.user_id \
             JOIN tenants ON tenants.id = memberships.tenant_id \
             WHERE tenants.kind = 'platform' AND memberships.role = 'admin' AND users.state = 'active' \
             AND users.id <> $1 AND users.id <> $2",
        )
        .bind(&actor.id)
        .bind(account.user.to_string())
        .fetch_one(&mut *transaction)
        .await?;
        let due_ns = now_ns.saturating_add(RECOVERY_DELAY_NS);
        let state = if others > 0 { RecoveryState::Asked } else { RecoveryState::Waiting };
        let row = sqlx::query(
            "INSERT INTO account_recoveries (id, user_id, new_email, reason, state, state_ns, asked_by, asked_by_name, \
             due_ns, created_ns) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $6) RETURNING *",
        )
        .bind(RecoveryId::generate()?.to_string())
        .bind(account.user.to_string())
        .bind(new_email.as_str())
        .bind(reason)
        .bind(state.as_str())
        .bind(now_ns)
        .bind(&actor.id)
        .bind(&actor.name)
        .bind((state == RecoveryState::Waiting).then_some(due_ns))
        .fetch_one(&mut *transaction)
        .await?;
        let asked = recovery(&row)?;
        let values = started_values(now_ns, due_ns);
        tell_old_addresses(&mut transaction, account, MailTemplate::RecoveryStarted, &values, now_ns).await?;
        record(&mut transaction, actor, deed(&asked, account.tenant, "user.recover"), now_ns).await?;
        transaction.commit().await?;
        Ok(asked)
    }

    /// A second operator agrees: the time runs.
    pub async fn approve_recovery(
        &self,
        actor: &Actor,
        account: &Account,
        id: &RecoveryId,
        now_ns: i64,
    ) -> Result<Recovery, ControlError> {
        let due_ns = now_ns.saturating_add(RECOVERY_DELAY_NS);
        let mut transaction = self.write().await?;
        let row = sqlx::query(
            "UPDATE account_recoveries SET state = 'waiting', state_ns = $1, approved_by = $2, approved_by_name = $3, \
             due_ns = $4 WHERE id = $5 AND state = 'asked' AND asked_by <> $2 RETURNING *",
        )
        .bind(now_ns)
        .bind(&actor.id)
        .bind(&actor.name)
        .bind(due_ns)
        .bind(id.to_string())
        .fetch_optional(&mut *transaction)
        .await?;
        let Some(row) = row else {
            let found = find(&mut transaction, id).await?;
            return Err(match found.state {
                RecoveryState::Asked => {
                    let needed = "you asked for it, so another operator must agree";
                    ControlError::wrong_state("recovery", &id.to_string(), "asked", needed)
                }
                state => wrong_state(id, state),
            });
        };
        let approved = recovery(&row)?;
        let values = started_values(now_ns, due_ns);
        tell_old_addresses(&mut transaction, account, MailTemplate::RecoveryStarted, &values, now_ns).await?;
        record(&mut transaction, actor, deed(&approved, account.tenant, "recovery.approve"), now_ns).await?;
        transaction.commit().await?;
        Ok(approved)
    }

    /// Somebody objects.
    pub async fn cancel_recovery(
        &self,
        actor: &Actor,
        account: &Account,
        id: &RecoveryId,
        now_ns: i64,
    ) -> Result<Recovery, ControlError> {
        let mut transaction = self.write().await?;
        let row = sqlx::query(
            "UPDATE account_recoveries SET state = 'cancelled', state_ns = $1 WHERE id = $2 \
             AND state IN ('asked', 'waiting') RETURNING *",
        )
        .bind(now_ns)
        .bind(id.to_string())
        .fetch_optional(&mut *transaction)
        .await?;
        let Some(row) = row else {
            let state = find(&mut transaction, id).await?.state;
            return Err(wrong_state(id, state));
        };
        let cancelled = recovery(&row)?;
        record(&mut transaction, actor, deed(&cancelled, account.tenant, "recovery.cancel"), now_ns).await?;
        transaction.commit().await?;
        Ok(cancelled)
    }

    /// A recovery.
    pub async fn recovery(&self, id: &RecoveryId) -> Result<Option<Recovery>, ControlError> {
        let row = sqlx::query("SELECT * FROM account_recoveries WHERE id = $1")
            .bind(id.to_string())
            .fetch_optional(&self.readers)
            .await?;
        row.as_ref().map(recovery).transpose()
    }

    /// Recoveries of accounts that the scope reaches, newest first; at most `limit` behind `after`.
    pub async fn recoveries(
        &self,
        scope: &Scope,
        after: Option<(i64, RecoveryId)>,
        limit: u32,
    ) -> Result<Vec<Recovery>, ControlError> {
        let text = format!(
            "SELECT account_recoveries.* FROM account_recoveries JOIN users ON users.id = account_recoveries.user_id \
             WHERE (account_recoveries.created_ns < $1 OR (account_recoveries.created_ns = $1 \
             AND account_recoveries.id > $2)) AND {} ORDER BY account_recoveries.created_ns DESC, account_recoveries.id \
             LIMIT $3",
            scope.condition("users.tenant_id", Some("users.id"))
        );
        let (after_ns, after_id) = after.map_or((i64::MAX, String::new()), |(ns, id)| (ns, id.to_string()));
        let rows = sqlx::query(sqlx::AssertSqlSafe(text))
            .bind(after_ns)
            .bind(after_id)
            .bind(i64::from(limit))
            .fetch_all(&self.readers)
            .await?;
        rows.iter().map(recovery).collect()
    }

    /// Recoveries whose time has come.
    pub async fn due_recoveries(&self, now_ns: i64) -> Result<Vec<Recovery>, ControlError> {
        let rows = sqlx::query(
            "SELECT * FROM account_recoveries WHERE state = 'waiting' AND due_ns <= $1 ORDER BY due_ns, id",
        )
        .bind(now_ns)
        .fetch_all(&self.readers)
        .await?;
        rows.iter().map(recovery).collect()
    }

    /// Carries a recovery out: the account gets its new address, everything that proved somebody to be its owner stops
    /// working, and the new address gets a link to set a password.
    pub async fn finish_recovery(
        &self,
        actor: &Actor,
        account: &Account,
        id: &RecoveryId,
        link_base: &str,
        now_ns: i64,
    ) -> Result<(), ControlError> {
        let mut transaction = self.write().await?;
        let row = sqlx::query(
            "UPDATE account_recoveries SET state = 'done', state_ns = $1 WHERE id = $2 AND state = 'waiting' \
             AND due_ns <= $1 RETURNING *",
        )
        .bind(now_ns)
        .bind(id.to_string())
        .fetch_optional(&mut *transaction)
        .await?;
        let Some(row) = row else {
            let state = find(&mut transaction, id).await?.state;
            return Err(wrong_state(id, state));
        };
        let done = recovery(&row)?;
        let user = account.user.to_string();
        let email = Email::parse(&done.new_email)?;
        let values = mail_values([("time", mail_time(now_ns)), ("address", actor.address.clone())]);
        tell_old_addresses(&mut transaction, account, MailTemplate::EmailChanged, &values, now_ns).await?;
        sqlx::query("UPDATE users SET email = $1, email_folded = $2, notify_email = NULL WHERE id = $3")
            .bind(email.as_str())
            .bind(email.folded())
            .bind(&user)
            .execute(&mut *transaction)
            .await
            .map_err(|error| exists("account of", email.as_str(), error))?;
        sqlx::query("DELETE FROM passwords WHERE user_id = $1").bind(&user).execute(&mut *transaction).await?;
        remove_second_factor(&mut transaction, &account.user).await?;
        end_sessions_of(&mut transaction, &account.user, None).await?;
        api_token::revoke_all(&mut transaction, &account.user, now_ns).await?;
        let secret = insert_password_reset(&mut transaction, &account.user, RECOVERY_RESET_NS, now_ns).await?;
        let values = mail_values([
            ("hours", (RECOVERY_RESET_NS / 3_600_000_000_000).to_string()),
            ("reset_link", format!("{link_base}{}", secret.expose())),
        ]);
        let mail = NewMail {
            to: email.as_str(),
            template: MailTemplate::RecoveryReady,
            locale: &account.locale,
            values,
            tenant: Some(account.tenant),
        };
        queue_mail(&mut transaction, &mail, now_ns).await?;
        record(&mut transaction, actor, deed(&done, account.tenant, "recovery.finish"), now_ns).await?;
        transaction.commit().await?;
        Ok(())
    }
}

fn wrong_state(id: &RecoveryId, state: RecoveryState) -> ControlError {
    let needed = "it can be agreed to while it is asked, carried out when its waiting is over, and ended before that";
    ControlError::wrong_state("recovery", &id.to_string(), state.as_str(), needed)
}

async fn find(connection: &mut AnyConnection, id: &RecoveryId) -> Result<Recovery, ControlError> {
    let row = sqlx::query("SELECT * FROM account_recoveries WHERE id = $1")
        .bind(id.to_string())
        .fetch_optional(connection)
        .await?;
    recovery(&row.ok_or_else(|| ControlError::not_found("recovery", &id.to_string()))?)
}
