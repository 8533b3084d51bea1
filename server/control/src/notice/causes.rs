//! What is wrong now, read off jobs, services and quotas.

use crate::webhook::EventKind;
use crate::{Control, ControlError, QuotaScope, TenantId, UserId};
use sqlx::Row;
use sqlx::any::AnyRow;
use std::collections::BTreeMap;

const DAY_NS: i64 = 24 * 3600 * 1_000_000_000;
/// Percent of a quota at which people are told.
const QUOTA_LEVELS: [i64; 3] = [80, 95, 100];
/// A quota notice is over when less than this is used: not at each file around a level.
const QUOTA_HEALED_BELOW: i64 = 75;
/// Days before the end of a service at which people are told, and the level of each.
const EXPIRY_LEVELS: [(i64, i64); 4] = [(1, 4), (7, 3), (14, 2), (30, 1)];
/// Lines of a job's log that are shown.
const LOG_LINES: i64 = 12;

/// Which bytes a quota counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SpaceKind {
    /// As stored.
    Physical,
    /// File sizes.
    Logical,
}

/// A quota and what is used of it, as the store counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QuotaUse {
    /// Whose.
    pub scope: QuotaScope,
    /// Which bytes.
    pub kind: SpaceKind,
    /// Bytes used.
    pub used: u64,
    /// Bytes allowed.
    pub limit: u64,
}

impl QuotaUse {
    fn percent(&self) -> i64 {
        match self.limit {
            0 => 100,
            limit => i64::try_from(u128::from(self.used) * 100 / u128::from(limit)).unwrap_or(i64::MAX),
        }
    }

    fn level(&self) -> i64 {
        let percent = self.percent();
        QUOTA_LEVELS.into_iter().filter(|level| percent >= *level).max().unwrap_or(0)
    }
}

/// Something that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Cause {
    pub(super) kind: EventKind,
    pub(super) tenant: TenantId,
    pub(super) user: Option<UserId>,
    pub(super) cause: String,
    /// 0: not bad enough to begin a notice, too bad to end one.
    pub(super) level: i64,
    /// Figures and names, times as nanoseconds.
    pub(super) facts: BTreeMap<String, String>,
    /// Whose contacts hear of it besides the tenant's administrators.
    pub(super) service: Option<String>,
}

impl Cause {
    pub(super) const fn is_new_worth(&self) -> bool {
        self.level > 0
    }
}

/// Of every plan that should run: when it last did what.
const PLANS: &str = "SELECT plans.id AS plan_id, plans.name AS plan, plans.tenant_id AS tenant_id, \
    plans.user_id AS user_id, plans.state_ns AS enabled_ns, plans.due_ns AS due_ns, computers.id AS computer_id, \
    computers.name AS computer, tenants.stale_days AS stale_days, \
    (SELECT j.ended_ns FROM jobs AS j WHERE j.plan_id = plans.id AND j.state = 'succeeded' AND j.kind = 'backup' \
        ORDER BY j.ended_ns DESC LIMIT 1) AS succeeded_ns, \
    (SELECT j.ended_ns FROM jobs AS j WHERE j.plan_id = plans.id AND j.state = 'warning' AND j.kind = 'backup' \
        ORDER BY j.ended_ns DESC LIMIT 1) AS warning_ns, \
    (SELECT j.ended_ns FROM jobs AS j WHERE j.plan_id = plans.id AND j.state = 'failed' AND j.kind = 'backup' \
        ORDER BY j.ended_ns DESC LIMIT 1) AS failed_ns, \
    (SELECT j.ended_ns FROM jobs AS j WHERE j.plan_id = plans.id AND j.state = 'missed' AND j.kind = 'backup' \
        ORDER BY j.ended_ns DESC LIMIT 1) AS missed_ns, \
    (SELECT j.ended_ns FROM jobs AS j WHERE j.plan_id = plans.id AND j.state = 'cancelled' AND j.kind = 'backup' \
        ORDER BY j.ended_ns DESC LIMIT 1) AS cancelled_ns \
    FROM plans JOIN computers ON computers.id = plans.computer_id JOIN users ON users.id = plans.user_id \
    JOIN tenants ON tenants.id = plans.tenant_id \
    WHERE plans.state = 'enabled' AND computers.state = 'active' AND users.state = 'active' AND tenants.state = 'active'";

fn facts<const N: usize>(pairs: [(&str, String); N]) -> BTreeMap<String, String> {
    pairs.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

/// What is wrong with one plan's backups.
fn of_plan(row: &AnyRow, now_ns: i64) -> Result<Vec<Cause>, ControlError> {
    let time = |column: &str| row.try_get::<Option<i64>, _>(column);
    let (failed, missed, cancelled) = (time("failed_ns")?, time("missed_ns")?, time("cancelled_ns")?);
    let good = time("succeeded_ns")?.max(time("warning_ns")?);
    let since_good = |at: Option<i64>| at.is_some() && at > good;
    let (plan_id, computer_id): (String, String) = (row.try_get("plan_id")?, row.try_get("computer_id")?);
    let base = facts([
        ("plan", row.try_get("plan")?),
        ("plan_id", plan_id.clone()),
        ("computer", row.try_get("computer")?),
        ("computer_id", computer_id),
    ]);
    let (tenant, user) = (TenantId::stored(row.try_get("tenant_id")?)?, UserId::stored(row.try_get("user_id")?)?);
    let cause = |kind: EventKind, more: BTreeMap<String, String>| {
        let mut facts = base.clone();
        facts.extend(more);
        Cause { kind, tenant, user: Some(user), cause: format!("plan {plan_id}"), level: 1, facts, service: None }
    };
    let mut causes = Vec::new();
    if since_good(failed) {
        causes.push(cause(EventKind::BackupFailed, facts([("at_ns", failed.unwrap_or_default().to_string())])));
    }
    if since_good(missed) {
        causes.push(cause(EventKind::BackupMissed, facts([("at_ns", missed.unwrap_or_default().to_string())])));
    }
    // A plan that has nothing to do for a while is not late.
    let should_have_run = since_good(failed)
        || since_good(missed)
        || since_good(cancelled)
        || time("due_ns")?.is_some_and(|due_ns| due_ns < now_ns);
    let stale_days: i64 = row.try_get("stale_days")?;
    let since = good.unwrap_or(i64::MIN).max(row.try_get("enabled_ns")?);
    let days = now_ns.saturating_sub(since) / DAY_NS;
    if should_have_run && days >= stale_days {
        let mut more = facts([("days", days.to_string())]);
        more.extend(good.map(|good| ("last_success_ns".to_owned(), good.to_string())));
        causes.push(cause(EventKind::BackupStale, more));
    }
    Ok(causes)
}

impl Control {
    pub(super) async fn causes(&self, quotas: &[QuotaUse], now_ns: i64) -> Result<Vec<Cause>, ControlError> {
        let mut causes = Vec::new();
        for row in sqlx::query(PLANS).fetch_all(&self.readers).await? {
            causes.extend(of_plan(&row, now_ns)?);
        }
        self.service_causes(now_ns, &mut causes).await?;
        for quota in quotas {
            if quota.percent() >= QUOTA_HEALED_BELOW {
                causes.extend(self.quota_cause(quota).await?);
            }
        }
        Ok(causes)
    }

    async fn service_causes(&self, now_ns: i64, causes: &mut Vec<Cause>) -> Result<(), ControlError> {
        let rows = sqlx::query(
            "SELECT services.id AS id, services.tenant_id AS tenant_id, services.state AS state, \
             services.expires_ns AS expires_ns, services.auto_renew AS auto_renew, products.name AS service, \
             tenants.title AS tenant FROM services JOIN products ON products.id = services.product_id \
             JOIN tenants ON tenants.id = services.tenant_id WHERE tenants.state = 'active' \
             AND (services.state IN ('restricted', 'suspended', 'expired') \
                  OR (services.state IN ('trial', 'active') AND services.expires_ns < $1))",
        )
        .bind(now_ns.saturating_add(31 * DAY_NS))
        .fetch_all(&self.readers)
        .await?;
        for row in &rows {
            let (id, state): (String, String) = (row.try_get("id")?, row.try_get("state")?);
            let expires_ns: i64 = row.try_get("expires_ns")?;
            let mut cause = Cause {
                kind: EventKind::ServiceState,
                tenant: TenantId::stored(row.try_get("tenant_id")?)?,
                user: None,
                cause: format!("service {id} {state}"),
                level: 1,
                facts: facts([
                    ("service", row.try_get("service")?),
                    ("service_id", id.clone()),
                    ("tenant", row.try_get("tenant")?),
                    ("state", state.clone()),
                    ("expires_ns", expires_ns.to_string()),
                ]),
                service: Some(id.clone()),
            };
            if matches!(state.as_str(), "trial" | "active") {
                if row.try_get::<i64, _>("auto_renew")? == 1 {
                    continue;
                }
                // Whole days that are left, the day begun counted: what ends in 23 hours ends in a day.
                let days = expires_ns.saturating_sub(now_ns).max(0).saturating_add(DAY_NS - 1) / DAY_NS;
                let Some((_, level)) = EXPIRY_LEVELS.into_iter().find(|(limit, _)| days <= *limit) else { continue };
                cause.kind = EventKind::ServiceExpiring;
                cause.cause = format!("service {id}");
                cause.level = level;
                cause.facts.insert("days".into(), days.to_string());
            }
            causes.push(cause);
        }
        Ok(())
    }

    async fn quota_cause(&self, quota: &QuotaUse) -> Result<Option<Cause>, ControlError> {
        let query = match &quota.scope {
            QuotaScope::Vault(id) => sqlx::query(
                "SELECT users.tenant_id AS tenant_id, users.id AS user_id FROM vaults \
                 JOIN users ON users.id = vaults.user_id WHERE vaults.id = $1",
            )
            .bind(id.to_string()),
            QuotaScope::User(name) => sqlx::query(
                "SELECT users.tenant_id AS tenant_id, users.id AS user_id FROM users \
                 JOIN tenants ON tenants.id = users.tenant_id WHERE tenants.name = $1 AND users.name = $2",
            )
            .bind(name.customer.clone())
            .bind(name.user.clone()),
            QuotaScope::Customer(name) => sqlx::query(
                "SELECT id AS tenant_id, NULL AS user_id FROM tenants WHERE name = $1 AND kind = 'customer'",
            )
            .bind(name.clone()),
            QuotaScope::Partner(name) => {
                sqlx::query("SELECT id AS tenant_id, NULL AS user_id FROM tenants WHERE name = $1 AND kind = 'partner'")
                    .bind(name.clone())
            }
        };
        // Deleted since it was counted.
        let Some(row) = query.fetch_optional(&self.readers).await? else { return Ok(None) };
        let user: Option<String> = row.try_get("user_id")?;
        let kind = match quota.kind {
            SpaceKind::Physical => "physical",
            SpaceKind::Logical => "logical",
        };
        let what = quota.scope.to_string();
        let (_, name) = what.split_once(':').unwrap_or(("", &what));
        Ok(Some(Cause {
            kind: EventKind::Quota,
            tenant: TenantId::stored(row.try_get("tenant_id")?)?,
            user: user.as_deref().map(UserId::stored).transpose()?,
            cause: format!("quota {what} {kind}"),
            level: quota.level(),
            facts: facts([
                ("what", name.to_owned()),
                ("limit", what.clone()),
                ("kind", kind.to_owned()),
                ("percent", quota.percent().to_string()),
                ("used_bytes", quota.used.to_string()),
                ("limit_bytes", quota.limit.to_string()),
            ]),
            service: None,
        }))
    }
}

/// Why the last failed backup of a plan failed: its job, its reason, the last lines of its log.
pub(super) struct Failure {
    pub(super) job: String,
    pub(super) reason: String,
    pub(super) log: String,
}

/// Of the failure that is meant by `at_ns`.
pub(super) async fn failure(
    connection: &mut sqlx::AnyConnection,
    plan: &str,
    at_ns: i64,
) -> Result<Option<Failure>, ControlError> {
    let row = sqlx::query(
        "SELECT id, error_code, message FROM jobs WHERE plan_id = $1 AND state = 'failed' AND ended_ns = $2 \
         AND kind = 'backup' ORDER BY id LIMIT 1",
    )
    .bind(plan)
    .bind(at_ns)
    .fetch_optional(&mut *connection)
    .await?;
    let Some(row) = row else { return Ok(None) };
    let (job, code, message): (String, Option<String>, Option<String>) =
        (row.try_get("id")?, row.try_get("error_code")?, row.try_get("message")?);
    let lines = sqlx::query("SELECT text FROM job_log WHERE job_id = $1 ORDER BY line DESC LIMIT $2")
        .bind(&job)
        .bind(LOG_LINES)
        .fetch_all(connection)
        .await?;
    let mut texts = lines.iter().map(|line| line.try_get("text")).collect::<Result<Vec<String>, _>>()?;
    texts.reverse();
    let reason = match (message, code) {
        (Some(message), _) if !message.is_empty() => message,
        (_, Some(code)) => code,
        _ => "-".into(),
    };
    Ok(Some(Failure { job, reason, log: if texts.is_empty() { "-".into() } else { texts.join("\n") } }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quota_has_three_levels() {
        let level = |used, limit| {
            QuotaUse { scope: QuotaScope::Customer("a".into()), kind: SpaceKind::Physical, used, limit }.level()
        };
        assert_eq!([0, 79, 80, 94, 95, 99, 100, 200].map(|used| level(used, 100)), [0, 0, 80, 80, 95, 95, 100, 100]);
        assert_eq!(level(0, 0), 100);
        assert_eq!(level(u64::MAX, u64::MAX), 100);
    }
}
