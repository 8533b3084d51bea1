//! The weekly summary: on Monday morning in the reader's own time zone, what became of the backups of the week before.

use super::tell::{local_day, local_time, zoned};
use crate::mail::{MailTemplate, NewMail, queue_mail, word};
use crate::{Control, ControlError, UserId};
use jiff::civil::{Time, Weekday};
use sqlx::Row;
use std::collections::BTreeMap;

const WEEK_NS: i64 = 7 * 24 * 3600 * 1_000_000_000;
/// When it is sent.
const AT: Time = Time::constant(7, 0, 0, 0);
/// Plans named at most; the figures count all.
const LINES_MAX: usize = 100;

/// The first Monday, seven in the morning, behind a moment.
fn next_due_ns(now_ns: i64, time_zone: &str) -> i64 {
    let next = || {
        let now = zoned(now_ns, time_zone)?;
        let today = now.date();
        // The first strictly behind today.
        let next = today.nth_weekday(1, Weekday::Monday);
        let candidates = [Some(today).filter(|day| day.weekday() == Weekday::Monday), next.ok()];
        candidates
            .into_iter()
            .flatten()
            .filter_map(|day| day.to_datetime(AT).to_zoned(now.time_zone().clone()).ok())
            .map(|at| at.timestamp().as_nanosecond())
            .find(|at_ns| *at_ns > i128::from(now_ns))
            .and_then(|at_ns| i64::try_from(at_ns).ok())
    };
    next().unwrap_or_else(|| now_ns.saturating_add(WEEK_NS))
}

struct Reader {
    id: UserId,
    tenant: String,
    address: Option<String>,
    locale: String,
    time_zone: String,
    due_ns: i64,
    administers: bool,
}

#[derive(Default)]
struct Week {
    computers: std::collections::BTreeSet<String>,
    succeeded: i64,
    warning: i64,
    failed: i64,
    missed: i64,
    lines: Vec<String>,
}

impl Control {
    /// Sends the summaries that are due, at most `limit`. Answers how many readers were looked at; fewer than `limit`:
    /// nothing is left.
    pub async fn send_summaries(&self, server_link: &str, now_ns: i64, limit: u32) -> Result<u32, ControlError> {
        let rows = sqlx::query(
            "SELECT users.id AS id, users.tenant_id AS tenant_id, COALESCE(users.notify_email, users.email) AS address, \
             users.locale AS locale, users.time_zone AS time_zone, users.summary_due_ns AS due_ns, \
             (SELECT COUNT(*) FROM memberships WHERE memberships.user_id = users.id AND memberships.role = 'admin' \
                 AND memberships.tenant_id = users.tenant_id) AS administers \
             FROM users WHERE users.wants_summary = 1 AND users.summary_due_ns <= $1 AND users.state = 'active' \
             ORDER BY users.summary_due_ns, users.id LIMIT $2",
        )
        .bind(now_ns)
        .bind(i64::from(limit))
        .fetch_all(&self.readers)
        .await?;
        for row in &rows {
            let reader = Reader {
                id: UserId::stored(row.try_get("id")?)?,
                tenant: row.try_get("tenant_id")?,
                address: row.try_get("address")?,
                locale: row.try_get("locale")?,
                time_zone: row.try_get("time_zone")?,
                due_ns: row.try_get("due_ns")?,
                administers: row.try_get::<i64, _>("administers")? > 0,
            };
            self.send_summary(&reader, server_link, now_ns).await?;
        }
        Ok(rows.len() as u32)
    }

    async fn send_summary(&self, reader: &Reader, server_link: &str, now_ns: i64) -> Result<(), ControlError> {
        // A new user's first week ends at the next Monday. A server that was away for weeks tells of the last one.
        let due_ns = reader.due_ns;
        let is_first = due_ns == 0;
        let next_ns = next_due_ns(now_ns, &reader.time_zone);
        let to_ns = next_ns.saturating_sub(WEEK_NS);
        let from_ns = to_ns.saturating_sub(WEEK_NS);
        let week = match is_first || reader.address.is_none() {
            true => Week::default(),
            false => self.week(reader, from_ns, to_ns).await?,
        };
        let mut transaction = self.write().await?;
        let moved = sqlx::query("UPDATE users SET summary_due_ns = $1 WHERE id = $2 AND summary_due_ns = $3")
            .bind(next_ns)
            .bind(reader.id.to_string())
            .bind(due_ns)
            .execute(&mut *transaction)
            .await?;
        if let Some(address) = &reader.address
            && !week.computers.is_empty()
            && moved.rows_affected() == 1
        {
            let values = [
                ("from", local_day(from_ns, &reader.time_zone)),
                ("to", local_day(to_ns, &reader.time_zone)),
                ("computers", week.computers.len().to_string()),
                ("succeeded", week.succeeded.to_string()),
                ("warning", week.warning.to_string()),
                ("failed", week.failed.to_string()),
                ("missed", week.missed.to_string()),
                ("lines", week.lines.join("\n")),
                ("server_link", server_link.to_owned()),
            ];
            let values: BTreeMap<String, String> =
                values.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
            let tenant = Some(crate::TenantId::stored(&reader.tenant)?);
            let template = MailTemplate::WeeklySummary;
            let mail = NewMail { to: address, template, locale: &reader.locale, values, tenant };
            match queue_mail(&mut transaction, &mail, now_ns).await {
                Ok(_) | Err(ControlError::Invalid { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        transaction.commit().await?;
        Ok(())
    }

    /// What became of the backups of the reader's own plans, or of all of the tenant's when the reader administers it.
    async fn week(&self, reader: &Reader, from_ns: i64, to_ns: i64) -> Result<Week, ControlError> {
        let (column, id) = match reader.administers {
            true => ("plans.tenant_id", reader.tenant.clone()),
            false => ("plans.user_id", reader.id.to_string()),
        };
        let count = |state: &str| {
            format!(
                "(SELECT COUNT(*) FROM jobs AS j WHERE j.plan_id = plans.id AND j.state = '{state}' \
                 AND j.ended_ns >= $2 AND j.ended_ns < $3) AS {state}"
            )
        };
        let last = |state: &str| {
            format!(
                "(SELECT j.ended_ns FROM jobs AS j WHERE j.plan_id = plans.id AND j.state = '{state}' AND j.ended_ns < $3 \
                 ORDER BY j.ended_ns DESC LIMIT 1) AS last_{state}"
            )
        };
        let text = format!(
            "SELECT plans.name AS plan, computers.id AS computer_id, computers.name AS computer, {}, {}, {}, {}, {}, {} \
             FROM plans JOIN computers ON computers.id = plans.computer_id \
             WHERE {column} = $1 AND plans.state = 'enabled' AND computers.state = 'active' \
             ORDER BY computers.name, plans.name, plans.id",
            count("succeeded"),
            count("warning"),
            count("failed"),
            count("missed"),
            last("succeeded"),
            last("warning")
        );
        let rows =
            sqlx::query(sqlx::AssertSqlSafe(text)).bind(id).bind(from_ns).bind(to_ns).fetch_all(&self.readers).await?;
        let mut week = Week::default();
        for row in &rows {
            let counts = ["succeeded", "warning", "failed", "missed"].map(|state| row.try_get::<i64, _>(state));
            let [succeeded, warning, failed, missed] = counts;
            let (succeeded, warning, failed, missed) = (succeeded?, warning?, failed?, missed?);
            week.computers.insert(row.try_get("computer_id")?);
            week.succeeded += succeeded;
            week.warning += warning;
            week.failed += failed;
            week.missed += missed;
            if week.lines.len() < LINES_MAX {
                let last = row
                    .try_get::<Option<i64>, _>("last_succeeded")?
                    .max(row.try_get::<Option<i64>, _>("last_warning")?)
                    .map_or_else(
                        || word(&reader.locale, "never").to_owned(),
                        |at_ns| local_time(at_ns, &reader.time_zone),
                    );
                let said = |name: &str| word(&reader.locale, name).to_owned();
                week.lines.push(format!(
                    "{} / {}: {} {last}; {} {succeeded}, {} {warning}, {} {failed}, {} {missed}",
                    row.try_get::<&str, _>("computer")?,
                    row.try_get::<&str, _>("plan")?,
                    said("last_success"),
                    said("succeeded"),
                    said("warning"),
                    said("failed"),
                    said("missed"),
                ));
            }
        }
        Ok(week)
    }

    /// Whether a user wants the weekly summary.
    pub async fn set_wants_summary(&self, user: &UserId, wants: bool) -> Result<(), ControlError> {
        let mut transaction = self.write().await?;
        sqlx::query("UPDATE users SET wants_summary = $1, summary_due_ns = 0 WHERE id = $2 AND wants_summary <> $1")
            .bind(i64::from(wants))
            .bind(user.to_string())
            .execute(&mut *transaction)
            .await?;
        transaction.commit().await?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_due_on_monday_at_seven_where_the_reader_lives() {
        let at = |text: &str| -> i64 { text.parse::<jiff::Timestamp>().unwrap().as_nanosecond().try_into().unwrap() };
        // Saturday.
        assert_eq!(next_due_ns(at("2026-11-21T15:00:00Z"), "Europe/Warsaw"), at("2026-11-23T06:00:00Z"));
        assert_eq!(next_due_ns(at("2026-11-23T05:59:59Z"), "Europe/Warsaw"), at("2026-11-23T06:00:00Z"));
        assert_eq!(next_due_ns(at("2026-11-23T06:00:00Z"), "Europe/Warsaw"), at("2026-11-30T06:00:00Z"));
        // Over the end of summer time, and where it is already Monday.
        assert_eq!(next_due_ns(at("2026-10-24T12:00:00Z"), "Europe/Berlin"), at("2026-10-26T06:00:00Z"));
        assert_eq!(next_due_ns(at("2026-11-22T15:00:00Z"), "Pacific/Auckland"), at("2026-11-22T18:00:00Z"));
        assert_eq!(next_due_ns(at("2026-11-21T15:00:00Z"), "No/Such"), at("2026-11-23T07:00:00Z"));
    }
}
