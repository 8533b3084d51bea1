//! Whom a notice concerns, and telling them: a mail in each one's language and time zone, and webhooks.

use super::causes::{Cause, failure};
use crate::mail::{MailTemplate, NewMail, queue_mail, word};
use crate::webhook::{Event, EventKind, queue_event};
use crate::{ControlError, TenantId};
use sqlx::{AnyConnection, Row};
use std::collections::{BTreeMap, BTreeSet};

/// Somebody with an address.
pub(super) struct Recipient {
    pub(super) address: String,
    pub(super) locale: String,
    pub(super) time_zone: String,
}

/// A time for a person.
pub(super) fn local_time(at_ns: i64, time_zone: &str) -> String {
    zoned(at_ns, time_zone).map_or_else(|| "-".into(), |time| time.strftime("%Y-%m-%d %H:%M %Z").to_string())
}

/// A day for a person.
pub(super) fn local_day(at_ns: i64, time_zone: &str) -> String {
    zoned(at_ns, time_zone).map_or_else(|| "-".into(), |time| time.strftime("%Y-%m-%d").to_string())
}

/// A time in a zone of the IANA database; UTC where that knows no such zone.
pub(super) fn zoned(at_ns: i64, time_zone: &str) -> Option<jiff::Zoned> {
    let time = jiff::Timestamp::from_nanosecond(i128::from(at_ns)).ok()?;
    Some(time.in_tz(time_zone).unwrap_or_else(|_| time.to_zoned(jiff::tz::TimeZone::UTC)))
}

/// Bytes for a person: three digits and a binary unit.
pub(super) fn size(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let (mut whole, mut at) = (bytes as f64 / 1024.0, 0);
    while whole >= 1000.0 && at + 1 < UNITS.len() {
        whole /= 1024.0;
        at += 1;
    }
    let digits = if whole < 10.0 { 2 } else { usize::from(whole < 100.0) };
    format!("{whole:.digits$} {}", UNITS[at])
}

/// The user, the tenant's administrators, and the contacts of the service: the one it is about, or those of whose
/// allocations the user lives.
const RECIPIENTS: &str = "SELECT DISTINCT COALESCE(users.notify_email, users.email) AS address, users.locale AS locale, \
    users.time_zone AS time_zone FROM users WHERE users.state = 'active' \
    AND COALESCE(users.notify_email, users.email) IS NOT NULL AND ( \
        users.id = $1 \
        OR users.id IN (SELECT memberships.user_id FROM memberships WHERE memberships.tenant_id = $2 AND memberships.role = 'admin') \
        OR users.id IN (SELECT service_contacts.user_id FROM service_contacts WHERE \
            (service_contacts.service_id = $3 AND service_contacts.kind IN ('admin', 'billing')) \
            OR (service_contacts.kind = 'technical' AND service_contacts.service_id IN \
                (SELECT allocations.service_id FROM allocations WHERE allocations.user_id = $1))))";

pub(super) async fn recipients(connection: &mut AnyConnection, cause: &Cause) -> Result<Vec<Recipient>, ControlError> {
    let rows = sqlx::query(RECIPIENTS)
        .bind(cause.user.map(|user| user.to_string()))
        .bind(cause.tenant.to_string())
        .bind(cause.service.clone())
        .fetch_all(&mut *connection)
        .await?;
    let (mut seen, mut found) = (BTreeSet::new(), Vec::new());
    for row in &rows {
        let address: String = row.try_get("address")?;
        if seen.insert(address.to_lowercase()) {
            found.push(Recipient { address, locale: row.try_get("locale")?, time_zone: row.try_get("time_zone")? });
        }
    }
    if found.is_empty() {
        found.extend(contact_address(connection, &cause.tenant).await?);
    }
    Ok(found)
}

/// A tenant whose people have no addresses has perhaps one of its own.
async fn contact_address(connection: &mut AnyConnection, tenant: &TenantId) -> Result<Option<Recipient>, ControlError> {
    let row = sqlx::query("SELECT contact_data, locale, time_zone FROM tenants WHERE id = $1")
        .bind(tenant.to_string())
        .fetch_optional(connection)
        .await?;
    let Some(row) = row else { return Ok(None) };
    let data: BTreeMap<String, serde_json::Value> =
        serde_json::from_str(row.try_get("contact_data")?).unwrap_or_default();
    let Some(address) = data.get("email").and_then(serde_json::Value::as_str) else { return Ok(None) };
    Ok(Some(Recipient {
        address: address.to_owned(),
        locale: row.try_get("locale")?,
        time_zone: row.try_get("time_zone")?,
    }))
}

/// The template of a kind, and its values for a person.
fn mail(
    cause: &Cause,
    more: &BTreeMap<String, String>,
    to: &Recipient,
    server_link: &str,
) -> Option<(MailTemplate, BTreeMap<String, String>)> {
    let fact = |name: &str| cause.facts.get(name).or_else(|| more.get(name)).cloned().unwrap_or_default();
    let at = |name: &str| fact(name).parse::<i64>().ok();
    let time = |name: &str| at(name).map_or("-".into(), |at_ns| local_time(at_ns, &to.time_zone));
    let bytes = |name: &str| fact(name).parse::<u64>().map_or("-".into(), size);
    let (template, pairs): (_, Vec<(&str, String)>) = match cause.kind {
        EventKind::BackupFailed => (
            MailTemplate::BackupFailed,
            vec![
                ("computer", fact("computer")),
                ("plan", fact("plan")),
                ("time", time("at_ns")),
                ("reason", fact("reason")),
                ("log", fact("log")),
            ],
        ),
        EventKind::BackupMissed => (
            MailTemplate::BackupMissed,
            vec![("computer", fact("computer")), ("plan", fact("plan")), ("time", time("at_ns"))],
        ),
        EventKind::BackupStale => (
            MailTemplate::BackupStale,
            vec![
                ("computer", fact("computer")),
                ("plan", fact("plan")),
                ("days", fact("days")),
                (
                    "last",
                    match at("last_success_ns") {
                        Some(at_ns) => local_time(at_ns, &to.time_zone),
                        None => word(&to.locale, "never").to_owned(),
                    },
                ),
            ],
        ),
        EventKind::Quota => (
            MailTemplate::Quota,
            vec![
                ("what", fact("what")),
                ("percent", fact("percent")),
                ("used", bytes("used_bytes")),
                ("limit", bytes("limit_bytes")),
            ],
        ),
        EventKind::ServiceExpiring => (
            MailTemplate::ServiceExpiring,
            vec![
                ("tenant", fact("tenant")),
                ("service", fact("service")),
                ("days", fact("days")),
                ("date", at("expires_ns").map_or("-".into(), |at_ns| local_day(at_ns, &to.time_zone))),
            ],
        ),
        EventKind::ServiceState => {
            let state = fact("state");
            (
                MailTemplate::ServiceState,
                vec![
                    ("tenant", fact("tenant")),
                    ("service", fact("service")),
                    ("state", word(&to.locale, &state).to_owned()),
                ],
            )
        }
        EventKind::Healed | EventKind::Test => return None,
    };
    let mut values: BTreeMap<String, String> =
        pairs.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
    values.insert("server_link".into(), server_link.to_owned());
    Some((template, values))
}

/// Queues a mail to everybody whom it concerns, and an event to every webhook.
pub(super) async fn tell(
    connection: &mut AnyConnection,
    cause: &Cause,
    server_link: &str,
    now_ns: i64,
) -> Result<(), ControlError> {
    let mut more = BTreeMap::new();
    if cause.kind == EventKind::BackupFailed
        && let Some(plan) = cause.facts.get("plan_id")
        && let Some(at_ns) = cause.facts.get("at_ns").and_then(|at_ns| at_ns.parse().ok())
        && let Some(failure) = failure(&mut *connection, plan, at_ns).await?
    {
        more.insert("job_id".to_owned(), failure.job);
        more.insert("reason".to_owned(), failure.reason);
        more.insert("log".to_owned(), failure.log);
    }
    for recipient in recipients(&mut *connection, cause).await? {
        let Some((template, values)) = mail(cause, &more, &recipient, server_link) else { continue };
        let new =
            NewMail { to: &recipient.address, template, locale: &recipient.locale, values, tenant: Some(cause.tenant) };
        match queue_mail(&mut *connection, &new, now_ns).await {
            // One address that is none must not keep the others from hearing.
            Ok(_) | Err(ControlError::Invalid { .. }) => {}
            Err(error) => return Err(error),
        }
    }
    let mut facts = cause.facts.clone();
    facts.extend(more);
    facts.insert("cause".into(), cause.cause.clone());
    let event = Event { kind: cause.kind, tenant: cause.tenant, user: cause.user, facts: &facts };
    queue_event(connection, &event, now_ns).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_sizes_are_written_for_people() {
        let summer = 1_782_900_000_000_000_000;
        assert_eq!(local_time(summer, "Europe/Warsaw"), "2026-07-01 12:00 CEST");
        assert_eq!(local_time(summer, "No/Such"), "2026-07-01 10:00 UTC");
        assert_eq!(local_day(summer, "Pacific/Auckland"), "2026-07-01");
        assert_eq!(
            [0, 1023, 1024, 1_500_000, 20 << 30, u64::MAX].map(size),
            ["0 B", "1023 B", "1.00 KiB", "1.43 MiB", "20.0 GiB", "16.0 EiB"]
        );
    }
}
