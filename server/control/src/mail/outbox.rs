//! The outbox: mails wait in SQL, written in the transaction of what they tell of, until a mail server has taken them.
//! Trying again takes longer and longer; what a server refuses for good is not tried again and is noted at the user.

use super::template::{MailTemplate, RenderedMail, locale};
use crate::audit_log::record;
use crate::{Actor, Control, ControlError, Deed, MailId, Scope, TenantId, UserId};
use sqlx::any::AnyRow;
use sqlx::{AnyConnection, Row};
use std::collections::BTreeMap;
use std::str::FromStr;

const SECOND_NS: i64 = 1_000_000_000;
/// First pause behind a failed try; doubles up to [`PAUSE_MAX_NS`].
const PAUSE_FIRST_NS: i64 = 60 * SECOND_NS;
const PAUSE_MAX_NS: i64 = 4 * 3600 * SECOND_NS;
/// A mail that is older is given up.
const AGE_MAX_NS: i64 = 3 * 24 * 3600 * SECOND_NS;
/// Longest address, as mail servers take it.
const ADDRESS_BYTES_MAX: usize = 254;
/// What is kept of an answer of a mail server.
const ERROR_CHARACTERS_MAX: usize = 500;

/// A mail to be queued.
#[derive(Clone, Debug)]
pub struct NewMail<'a> {
    /// Address.
    pub to: &'a str,
    /// What it says.
    pub template: MailTemplate,
    /// Language tag; one without texts gets English.
    pub locale: &'a str,
    /// Exactly the values that the template needs.
    pub values: BTreeMap<String, String>,
    /// Whose matter it is; `None`: the platform's own.
    pub tenant: Option<TenantId>,
}

/// Where a mail is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MailState {
    /// Waiting, perhaps for another try.
    Queued,
    /// A mail server has taken it.
    Sent,
    /// Refused for good, or too old.
    Failed,
    /// An operator took it back.
    Cancelled,
}

impl MailState {
    /// All of them.
    pub const ALL: [MailState; 4] = [MailState::Queued, MailState::Sent, MailState::Failed, MailState::Cancelled];

    /// As stored and as on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            MailState::Queued => "queued",
            MailState::Sent => "sent",
            MailState::Failed => "failed",
            MailState::Cancelled => "cancelled",
        }
    }
}

impl FromStr for MailState {
    type Err = ControlError;
    fn from_str(text: &str) -> Result<Self, ControlError> {
        let found = MailState::ALL.into_iter().find(|state| state.as_str() == text);
        found
            .ok_or(ControlError::Invalid { what: "state of a mail", rule: "must be queued, sent, failed or cancelled" })
    }
}

/// A mail as listed: never what it says, for that may be a secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutboxMail {
    /// Its id.
    pub id: MailId,
    /// Whose matter it is.
    pub tenant: Option<TenantId>,
    /// To whom.
    pub address: String,
    /// What it says.
    pub template: String,
    /// Language.
    pub locale: String,
    /// Where it is.
    pub state: MailState,
    /// How often it was tried.
    pub tries: i64,
    /// When it is tried next, nanoseconds since 1970; of a queued one.
    pub next_try_ns: Option<i64>,
    /// What the mail server said last.
    pub last_error: Option<String>,
    /// When it was written.
    pub created_ns: i64,
    /// When it was sent, given up or cancelled.
    pub done_ns: Option<i64>,
}

/// A mail to be sent now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutgoingMail {
    /// Its id, also its message id, so that a mail sent twice is shown once.
    pub id: MailId,
    /// To whom.
    pub address: String,
    /// What it says.
    pub text: RenderedMail,
}

fn outbox_mail(row: &AnyRow) -> Result<OutboxMail, ControlError> {
    let tenant: Option<String> = row.try_get("tenant_id")?;
    let state: MailState =
        row.try_get::<&str, _>("state")?.parse().map_err(|_| ControlError::Corrupt { what: "state of a mail" })?;
    let next_try_ns: i64 = row.try_get("next_try_ns")?;
    Ok(OutboxMail {
        id: MailId::stored(row.try_get("id")?)?,
        tenant: tenant.as_deref().map(TenantId::stored).transpose()?,
        address: row.try_get("address")?,
        template: row.try_get("template")?,
        locale: row.try_get("locale")?,
        state,
        tries: row.try_get("tries")?,
        next_try_ns: (state == MailState::Queued).then_some(next_try_ns),
        last_error: row.try_get("last_error")?,
        created_ns: row.try_get("created_ns")?,
        done_ns: row.try_get("done_ns")?,
    })
}

fn check_address(address: &str) -> Result<(), ControlError> {
    let rule = "must be NAME@DOMAIN";
    let well_formed = address.len() <= ADDRESS_BYTES_MAX
        && !address
            .chars()
            .any(|character| character.is_control() || character.is_whitespace() || "<>,;\"".contains(character))
        && address.rsplit_once('@').is_some_and(|(name, domain)| !name.is_empty() && !domain.is_empty());
    if well_formed { Ok(()) } else { Err(ControlError::Invalid { what: "e-mail address", rule }) }
}

/// Puts a mail into the outbox, in the transaction of what it tells of.
pub(crate) async fn queue_mail(
    connection: &mut AnyConnection,
    mail: &NewMail<'_>,
    now_ns: i64,
) -> Result<MailId, ControlError> {
    check_address(mail.to)?;
    mail.template.check(&mail.values)?;
    let id = MailId::generate()?;
    let values = serde_json::json!(mail.values).to_string();
    sqlx::query(
        "INSERT INTO outbox_mails (id, tenant_id, address, template, locale, template_values, state, next_try_ns, \
         created_ns) VALUES ($1, $2, $3, $4, $5, $6, 'queued', $7, $7)",
    )
    .bind(id.to_string())
    .bind(mail.tenant.map(|tenant| tenant.to_string()))
    .bind(mail.to)
    .bind(mail.template.as_str())
    .bind(locale(mail.locale))
    .bind(values)
    .bind(now_ns)
    .execute(connection)
    .await?;
    Ok(id)
}

/// Puts a mail to a user into the outbox, to the address and in the language that the user wants. `false` for a user
/// without any address.
pub(crate) async fn queue_mail_to_user(
    connection: &mut AnyConnection,
    user: &UserId,
    template: MailTemplate,
    values: BTreeMap<String, String>,
    now_ns: i64,
) -> Result<bool, ControlError> {
    let row =
        sqlx::query("SELECT COALESCE(notify_email, email) AS address, locale, tenant_id FROM users WHERE id = $1")
            .bind(user.to_string())
            .fetch_optional(&mut *connection)
            .await?
            .ok_or_else(|| ControlError::not_found("user", &user.to_string()))?;
    let Some(address) = row.try_get::<Option<String>, _>("address")? else { return Ok(false) };
    let locale: String = row.try_get("locale")?;
    let tenant = Some(TenantId::stored(row.try_get("tenant_id")?)?);
    let mail = NewMail { to: &address, template, locale: &locale, values, tenant };
    queue_mail(connection, &mail, now_ns).await?;
    Ok(true)
}

/// How long a mail rests behind its so many-th failed try, plus up to a quarter by its id, so that what failed together
/// does not come back together.
fn pause_ns(tries: i64, id: &MailId) -> i64 {
    let doubled = PAUSE_FIRST_NS.saturating_mul(1 << tries.clamp(1, 20).saturating_sub(1)).min(PAUSE_MAX_NS);
    doubled + doubled / 4 * i64::from(id.first_byte()) / 255
}

fn shortened(error: &str) -> String {
    let line: String = error.chars().map(|character| if character.is_control() { ' ' } else { character }).collect();
    line.chars().take(ERROR_CHARACTERS_MAX).collect()
}

impl Control {
    /// Queues a mail that belongs to no other change.
    pub async fn queue_mail(&self, mail: &NewMail<'_>, now_ns: i64) -> Result<MailId, ControlError> {
        let mut transaction = self.write().await?;
        let id = queue_mail(&mut transaction, mail, now_ns).await?;
        transaction.commit().await?;
        Ok(id)
    }

    /// Queues a mail to a user that belongs to no other change. `false` for a user without any address.
    pub async fn queue_mail_to_user(
        &self,
        user: &UserId,
        template: MailTemplate,
        values: BTreeMap<String, String>,
        now_ns: i64,
    ) -> Result<bool, ControlError> {
        let mut transaction = self.write().await?;
        let queued = queue_mail_to_user(&mut transaction, user, template, values, now_ns).await?;
        transaction.commit().await?;
        Ok(queued)
    }

    /// Mails whose time has come, at most `limit`, the longest waiting first. One that cannot be written is given up.
    pub async fn due_mails(&self, now_ns: i64, limit: u32) -> Result<Vec<OutgoingMail>, ControlError> {
        let rows = sqlx::query(
            "SELECT id, address, template, locale, template_values FROM outbox_mails \
             WHERE state = 'queued' AND next_try_ns <= $1 ORDER BY next_try_ns, id LIMIT $2",
        )
        .bind(now_ns)
        .bind(i64::from(limit))
        .fetch_all(&self.readers)
        .await?;
        let mut due = Vec::new();
        for row in &rows {
            let id = MailId::stored(row.try_get("id")?)?;
            let rendered = (|| {
                let corrupt = |_| ControlError::Corrupt { what: "values of a mail" };
                let values: BTreeMap<String, String> =
                    serde_json::from_str(row.try_get("template_values")?).map_err(corrupt)?;
                row.try_get::<&str, _>("template")?.parse::<MailTemplate>()?.render(row.try_get("locale")?, &values)
            })();
            match rendered {
                Ok(text) => due.push(OutgoingMail { id, address: row.try_get("address")?, text }),
                Err(error) => {
                    self.end_mail(&id, MailState::Failed, Some(&error.to_string()), now_ns).await.map(|_| ())?
                }
            }
        }
        Ok(due)
    }

    /// When the next mail is due; `None` while nothing waits.
    pub async fn next_mail_ns(&self) -> Result<Option<i64>, ControlError> {
        let next = sqlx::query_scalar(
            "SELECT next_try_ns FROM outbox_mails WHERE state = 'queued' ORDER BY next_try_ns LIMIT 1",
        );
        Ok(next.fetch_optional(&self.readers).await?)
    }

    /// The mail server has taken it.
    pub async fn mail_sent(&self, mail: &OutgoingMail, now_ns: i64) -> Result<(), ControlError> {
        if self.end_mail(&mail.id, MailState::Sent, None, now_ns).await? {
            self.note_bounce(&mail.address, None).await?;
        }
        Ok(())
    }

    /// The mail server refused it for good.
    pub async fn mail_refused(&self, mail: &OutgoingMail, error: &str, now_ns: i64) -> Result<(), ControlError> {
        if self.end_mail(&mail.id, MailState::Failed, Some(error), now_ns).await? {
            self.note_bounce(&mail.address, Some(now_ns)).await?;
        }
        Ok(())
    }

    /// It could not be sent now. Answers when it is tried again; `None` when it was given up for its age.
    pub async fn mail_delayed(
        &self,
        mail: &OutgoingMail,
        error: &str,
        now_ns: i64,
    ) -> Result<Option<i64>, ControlError> {
        let mut transaction = self.write().await?;
        let row = sqlx::query("SELECT tries, created_ns FROM outbox_mails WHERE id = $1 AND state = 'queued'")
            .bind(mail.id.to_string())
            .fetch_optional(&mut *transaction)
            .await?;
        let Some(row) = row else { return Ok(None) };
        let (tries, created_ns): (i64, i64) = (row.try_get("tries")?, row.try_get("created_ns")?);
        if now_ns.saturating_sub(created_ns) > AGE_MAX_NS {
            drop(transaction);
            self.end_mail(&mail.id, MailState::Failed, Some(error), now_ns).await?;
            return Ok(None);
        }
        let next_ns = now_ns.saturating_add(pause_ns(tries + 1, &mail.id));
        sqlx::query("UPDATE outbox_mails SET tries = $1, next_try_ns = $2, last_error = $3 WHERE id = $4")
            .bind(tries + 1)
            .bind(next_ns)
            .bind(shortened(error))
            .bind(mail.id.to_string())
            .execute(&mut *transaction)
            .await?;
        transaction.commit().await?;
        Ok(Some(next_ns))
    }

    /// From queued to an end. `false` when it was no longer queued.
    async fn end_mail(
        &self,
        id: &MailId,
        state: MailState,
        error: Option<&str>,
        now_ns: i64,
    ) -> Result<bool, ControlError> {
        let mut transaction = self.write().await?;
        let ended = sqlx::query(
            "UPDATE outbox_mails SET state = $1, last_error = $2, done_ns = $3, tries = tries + 1, template_values = '{}' \
             WHERE id = $4 AND state = 'queued'",
        )
        .bind(state.as_str())
        .bind(error.map(shortened))
        .bind(now_ns)
        .bind(id.to_string())
        .execute(&mut *transaction)
        .await?;
        transaction.commit().await?;
        Ok(ended.rows_affected() == 1)
    }

    async fn note_bounce(&self, address: &str, at_ns: Option<i64>) -> Result<(), ControlError> {
        let folded = address.to_lowercase();
        let is_noted = "SELECT COUNT(*) FROM users WHERE (email_folded = $1 OR notify_email = $2) \
                        AND (mail_bounced_ns IS NULL) = ($3 = 1)";
        let changes: i64 = sqlx::query_scalar(is_noted)
            .bind(&folded)
            .bind(address)
            .bind(i64::from(at_ns.is_some()))
            .fetch_one(&self.readers)
            .await?;
        if changes > 0 {
            let mut transaction = self.write().await?;
            sqlx::query("UPDATE users SET mail_bounced_ns = $1 WHERE email_folded = $2 OR notify_email = $3")
                .bind(at_ns)
                .bind(&folded)
                .bind(address)
                .execute(&mut *transaction)
                .await?;
            transaction.commit().await?;
        }
        Ok(())
    }

    /// Since when mails to a user are refused; `None` when they arrive, as far as is known.
    pub async fn mail_bounced_ns(&self, user: &UserId) -> Result<Option<i64>, ControlError> {
        let found: Option<Option<i64>> = sqlx::query_scalar("SELECT mail_bounced_ns FROM users WHERE id = $1")
            .bind(user.to_string())
            .fetch_optional(&self.readers)
            .await?;
        Ok(found.flatten())
    }

    /// Mails that the scope reaches, newest first; at most `limit` behind `after` (time and id of the last one before).
    pub async fn outbox(
        &self,
        scope: &Scope,
        state: Option<MailState>,
        after: Option<(i64, MailId)>,
        limit: u32,
    ) -> Result<Vec<OutboxMail>, ControlError> {
        let of_state = state.map(|state| format!("state = '{}' AND ", state.as_str())).unwrap_or_default();
        let text = format!(
            "SELECT * FROM outbox_mails WHERE {of_state}(created_ns < $1 OR (created_ns = $1 AND id < $2)) AND {} \
             ORDER BY created_ns DESC, id DESC LIMIT $3",
            scope.condition("COALESCE(outbox_mails.tenant_id, '00000000000000000000000000000000')", None)
        );
        let (at_ns, id) = after.map_or((i64::MAX, String::new()), |(at_ns, id)| (at_ns, id.to_string()));
        let rows = sqlx::query(sqlx::AssertSqlSafe(text))
            .bind(at_ns)
            .bind(id)
            .bind(i64::from(limit))
            .fetch_all(&self.readers)
            .await?;
        rows.iter().map(outbox_mail).collect()
    }

    /// How many mails are in each state.
    pub async fn outbox_counts(&self) -> Result<BTreeMap<&'static str, i64>, ControlError> {
        let mut counts: BTreeMap<&'static str, i64> = MailState::ALL.iter().map(|state| (state.as_str(), 0)).collect();
        let rows = sqlx::query("SELECT state, COUNT(*) AS mails FROM outbox_mails GROUP BY state")
            .fetch_all(&self.readers)
            .await?;
        for row in &rows {
            let state: MailState = row.try_get::<&str, _>("state")?.parse()?;
            counts.insert(state.as_str(), row.try_get("mails")?);
        }
        Ok(counts)
    }

    /// A queued mail is tried at once.
    pub async fn retry_mail(
        &self,
        scope: &Scope,
        actor: &Actor,
        id: &MailId,
        now_ns: i64,
    ) -> Result<OutboxMail, ControlError> {
        let text = "UPDATE outbox_mails SET next_try_ns = $1 WHERE id = $2 AND state = 'queued'";
        self.change_mail(scope, actor, id, text, "outbox.retry", now_ns).await
    }

    /// A queued mail is taken back.
    pub async fn cancel_mail(
        &self,
        scope: &Scope,
        actor: &Actor,
        id: &MailId,
        now_ns: i64,
    ) -> Result<OutboxMail, ControlError> {
        let text = "UPDATE outbox_mails SET state = 'cancelled', done_ns = $1, template_values = '{}' \
                    WHERE id = $2 AND state = 'queued'";
        self.change_mail(scope, actor, id, text, "outbox.cancel", now_ns).await
    }

    async fn change_mail(
        &self,
        scope: &Scope,
        actor: &Actor,
        id: &MailId,
        change: &'static str,
        verb: &'static str,
        now_ns: i64,
    ) -> Result<OutboxMail, ControlError> {
        let mut transaction = self.write().await?;
        let text = format!(
            "SELECT * FROM outbox_mails WHERE id = $1 AND {}",
            scope.condition("COALESCE(outbox_mails.tenant_id, '00000000000000000000000000000000')", None)
        );
        let found = sqlx::query(sqlx::AssertSqlSafe(text.clone()))
            .bind(id.to_string())
            .fetch_optional(&mut *transaction)
            .await?
            .ok_or_else(|| ControlError::not_found("mail", &id.to_string()))?;
        let before = outbox_mail(&found)?;
        let changed = sqlx::query(change).bind(now_ns).bind(id.to_string()).execute(&mut *transaction).await?;
        if changed.rows_affected() == 0 {
            return Err(ControlError::WrongState {
                what: "mail",
                name: id.to_string(),
                state: before.state.as_str().to_owned(),
                needed: "only one that waits can be tried again or taken back",
            });
        }
        let deed = Deed {
            tenant: before.tenant.unwrap_or(TenantId::PLATFORM),
            user: None,
            verb,
            object: format!("mail {id}"),
            before: None,
            after: None,
        };
        record(&mut transaction, actor, deed, now_ns).await?;
        let row = sqlx::query(sqlx::AssertSqlSafe(text)).bind(id.to_string()).fetch_one(&mut *transaction).await?;
        let changed = outbox_mail(&row)?;
        transaction.commit().await?;
        Ok(changed)
    }

    /// Removes mails that ended before `before_ns`, at most `limit`. Answers how many.
    pub async fn forget_mails(&self, before_ns: i64, limit: u32) -> Result<u64, ControlError> {
        let mut transaction = self.write().await?;
        let gone = sqlx::query(
            "DELETE FROM outbox_mails WHERE id IN (SELECT id FROM outbox_mails WHERE state <> 'queued' \
             AND created_ns < $1 AND done_ns < $1 ORDER BY created_ns LIMIT $2)",
        )
        .bind(before_ns)
        .bind(i64::from(limit))
        .execute(&mut *transaction)
        .await?;
        transaction.commit().await?;
        Ok(gone.rows_affected())
    }
}
