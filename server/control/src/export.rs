//! Everything that the accounts know of a tenant, as JSON for whoever has the right to it: section by section, row by
//! row, in pages, so that no export is ever in memory as a whole. Never a secret, not even as a hash.

use crate::{Control, ControlError, Scope, TenantId};
use sqlx::any::{AnyRow, AnyTypeInfoKind};
use sqlx::{Column, Row, ValueRef};

/// Rows in a page.
const PAGE: i64 = 500;

/// One section: its name, and a statement with the tenant as `$1`, the key behind which to go on as `$2`, and how many
/// as `$3`. The first column is the key; it is not part of the export.
const SECTIONS: &[(&str, &str)] = &[
    (
        "tenant",
        "SELECT id AS export_key, id, kind, parent_id, name, title, state, state_ns, delete_after_ns, legal_data, \
         contact_data, locale, time_zone, support_access_until_ns, idle_minutes, second_factor, trusted_networks, \
         stale_days, created_ns FROM tenants WHERE id = $1 AND id > $2 ORDER BY id LIMIT $3",
    ),
    (
        "users",
        "SELECT id AS export_key, id, name, title, email, notify_email, customer_code, locale, time_zone, state, state_ns, \
         delete_after_ns, last_login_ns, mail_bounced_ns, wants_summary, created_ns FROM users WHERE tenant_id = $1 AND id > $2 ORDER BY id LIMIT $3",
    ),
    (
        "memberships",
        "SELECT user_id || role AS export_key, user_id, role, owner, created_ns FROM memberships \
         WHERE tenant_id = $1 AND user_id || role > $2 ORDER BY user_id || role LIMIT $3",
    ),
    (
        "groups",
        "SELECT id AS export_key, id, name, verbs, all_customers, created_ns FROM member_groups \
         WHERE tenant_id = $1 AND id > $2 ORDER BY id LIMIT $3",
    ),
    (
        "group_members",
        "SELECT group_id || group_members.user_id AS export_key, group_id, group_members.user_id AS user_id \
         FROM group_members JOIN member_groups ON member_groups.id = group_members.group_id \
         WHERE member_groups.tenant_id = $1 AND group_id || group_members.user_id > $2 \
         ORDER BY group_id || group_members.user_id LIMIT $3",
    ),
    (
        "group_customers",
        "SELECT group_id || group_customers.tenant_id AS export_key, group_id, group_customers.tenant_id AS tenant_id \
         FROM group_customers JOIN member_groups ON member_groups.id = group_customers.group_id \
         WHERE member_groups.tenant_id = $1 AND group_id || group_customers.tenant_id > $2 \
         ORDER BY group_id || group_customers.tenant_id LIMIT $3",
    ),
    (
        "owner_offers",
        "SELECT tenant_id AS export_key, user_id, offered_ns, expires_ns FROM owner_offers \
         WHERE tenant_id = $1 AND tenant_id > $2 ORDER BY tenant_id LIMIT $3",
    ),
    (
        "invitations",
        "SELECT id AS export_key, id, kind, email, role, member_groups, title, service, locale, inviter_id, inviter_name, \
         state, state_ns, expires_ns, created_ns, accepted_user_id FROM invitations \
         WHERE tenant_id = $1 AND id > $2 ORDER BY id LIMIT $3",
    ),
    (
        "passwords",
        "SELECT user_id AS export_key, user_id, changed_ns FROM passwords \
         JOIN users ON users.id = passwords.user_id \
         WHERE users.tenant_id = $1 AND user_id > $2 ORDER BY user_id LIMIT $3",
    ),
    (
        "second_factors",
        "SELECT user_id AS export_key, user_id, confirmed_ns, second_factors.created_ns AS created_ns FROM second_factors \
         JOIN users ON users.id = second_factors.user_id \
         WHERE users.tenant_id = $1 AND user_id > $2 ORDER BY user_id LIMIT $3",
    ),
    (
        "login_sessions",
        "SELECT login_sessions.id AS export_key, login_sessions.id AS id, user_id, login_sessions.created_ns AS created_ns, \
         seen_ns, ends_ns, step_up_until_ns, address, program FROM login_sessions \
         JOIN users ON users.id = login_sessions.user_id \
         WHERE users.tenant_id = $1 AND login_sessions.id > $2 ORDER BY login_sessions.id LIMIT $3",
    ),
    (
        "api_tokens",
        "SELECT api_tokens.id AS export_key, api_tokens.id AS id, user_id, api_tokens.tenant_id AS tenant_id, \
         api_tokens.name AS name, verbs, networks, api_tokens.created_ns AS created_ns, expires_ns, revoked_ns, used_ns \
         FROM api_tokens JOIN users ON users.id = api_tokens.user_id \
         WHERE users.tenant_id = $1 AND api_tokens.id > $2 ORDER BY api_tokens.id LIMIT $3",
    ),
    (
        "account_recoveries",
        "SELECT account_recoveries.id AS export_key, account_recoveries.id AS id, user_id, new_email, reason, \
         account_recoveries.state AS state, account_recoveries.state_ns AS state_ns, asked_by_name, approved_by_name, \
         due_ns, account_recoveries.created_ns AS created_ns FROM account_recoveries \
         JOIN users ON users.id = account_recoveries.user_id \
         WHERE users.tenant_id = $1 AND account_recoveries.id > $2 ORDER BY account_recoveries.id LIMIT $3",
    ),
    (
        "services",
        "SELECT services.id AS export_key, services.id AS id, products.name AS product, licence, quantity, \
         first_booked_ns, expires_ns, auto_renew, state, state_ns, renewal_ordered_ns, services.created_ns AS created_ns \
         FROM services JOIN products ON products.id = services.product_id \
         WHERE tenant_id = $1 AND services.id > $2 ORDER BY services.id LIMIT $3",
    ),
    (
        "allocations",
        "SELECT service_id || user_id AS export_key, service_id, user_id, bytes, computers, changed_ns FROM allocations \
         JOIN services ON services.id = allocations.service_id \
         WHERE services.tenant_id = $1 AND service_id || user_id > $2 ORDER BY service_id || user_id LIMIT $3",
    ),
    (
        "service_contacts",
        "SELECT service_id || service_contacts.kind AS export_key, service_id, service_contacts.kind AS kind, user_id, \
         changed_ns FROM service_contacts JOIN services ON services.id = service_contacts.service_id \
         WHERE services.tenant_id = $1 AND service_id || service_contacts.kind > $2 \
         ORDER BY service_id || service_contacts.kind LIMIT $3",
    ),
    (
        "vaults",
        "SELECT vaults.id AS export_key, vaults.id AS id, vaults.user_id AS user_id, vaults.name AS name, undelete_days, \
         vaults.created_ns AS created_ns FROM vaults JOIN users ON users.id = vaults.user_id \
         WHERE users.tenant_id = $1 AND vaults.id > $2 ORDER BY vaults.id LIMIT $3",
    ),
    (
        "tokens",
        "SELECT tokens.id AS export_key, tokens.id AS id, tokens.name AS name, may_backup, may_restore, may_delete, \
         may_purge, may_hold, vault_id, tokens.created_ns AS created_ns, expires_ns, revoked_ns, used_ns FROM tokens \
         JOIN vaults ON vaults.id = tokens.vault_id JOIN users ON users.id = vaults.user_id \
         WHERE users.tenant_id = $1 AND tokens.id > $2 ORDER BY tokens.id LIMIT $3",
    ),
    (
        "retention_policies",
        "SELECT vault_id || CAST(1000 + LENGTH(computer) AS TEXT) || computer || series AS export_key, vault_id, computer, \
         series, keep_last, keep_hourly, keep_daily, keep_weekly, keep_monthly, keep_yearly, keep_within_seconds, \
         keep_tags, retention_policies.time_zone AS time_zone, retention_policies.changed_ns AS changed_ns \
         FROM retention_policies JOIN vaults ON vaults.id = retention_policies.vault_id \
         JOIN users ON users.id = vaults.user_id WHERE users.tenant_id = $1 \
         AND vault_id || CAST(1000 + LENGTH(computer) AS TEXT) || computer || series > $2 \
         ORDER BY vault_id || CAST(1000 + LENGTH(computer) AS TEXT) || computer || series LIMIT $3",
    ),
    (
        "quotas",
        "SELECT COALESCE(quotas.vault_id, quotas.user_id, quotas.customer_id) AS export_key, quotas.vault_id AS vault_id, \
         quotas.user_id AS user_id, quotas.customer_id AS tenant_id, physical_soft, physical_hard, logical_soft, \
         logical_hard, quotas.changed_ns AS changed_ns FROM quotas LEFT JOIN vaults ON vaults.id = quotas.vault_id \
         LEFT JOIN users ON users.id = COALESCE(quotas.user_id, vaults.user_id) \
         WHERE COALESCE(quotas.customer_id, users.tenant_id) = $1 \
         AND COALESCE(quotas.vault_id, quotas.user_id, quotas.customer_id) > $2 \
         ORDER BY COALESCE(quotas.vault_id, quotas.user_id, quotas.customer_id) LIMIT $3",
    ),
    (
        "computers",
        "SELECT id AS export_key, id, user_id, name, state, state_ns, credential_ns, os, agent_version, seen_ns, \
         created_ns FROM computers WHERE tenant_id = $1 AND id > $2 ORDER BY id LIMIT $3",
    ),
    (
        "enrolments",
        "SELECT id AS export_key, id, user_id, replaces_id, created_ns, expires_ns, used_ns FROM enrolments \
         WHERE tenant_id = $1 AND id > $2 ORDER BY id LIMIT $3",
    ),
    (
        "plans",
        "SELECT id AS export_key, id, user_id, computer_id, name, state, state_ns, revision, due_ns, created_ns FROM plans \
         WHERE tenant_id = $1 AND id > $2 ORDER BY id LIMIT $3",
    ),
    (
        // Numbers as texts of equal length, so that they are in order.
        "plan_revisions",
        "SELECT plan_id || CAST(1000000000 + plan_revisions.revision AS TEXT) AS export_key, plan_id, \
         plan_revisions.revision AS revision, body, created_by, plan_revisions.created_ns AS created_ns FROM plan_revisions \
         WHERE EXISTS (SELECT 1 FROM plans WHERE plans.id = plan_id AND plans.tenant_id = $1) \
         AND plan_id >= substr($2, 1, 32) AND plan_id || CAST(1000000000 + plan_revisions.revision AS TEXT) > $2 \
         ORDER BY plan_id, plan_revisions.revision LIMIT $3",
    ),
    (
        "jobs",
        "SELECT id AS export_key, id, user_id, computer_id, plan_id, plan_revision, kind, cause, state, error_code, \
         message, slot_ns, created_ns, started_ns, \
         CASE WHEN ended_ns = 9223372036854775807 THEN NULL ELSE ended_ns END AS ended_ns, files, bytes_done, bytes_total, bytes_added, warnings, \
         snapshot_id, log_lines FROM jobs WHERE tenant_id = $1 AND id > $2 ORDER BY id LIMIT $3",
    ),
    (
        "job_log",
        "SELECT job_id || CAST(1000000000 + line AS TEXT) AS export_key, job_id, line, at_ns, level, text FROM job_log \
         WHERE EXISTS (SELECT 1 FROM jobs WHERE jobs.id = job_id AND jobs.tenant_id = $1) \
         AND job_id >= substr($2, 1, 32) AND job_id || CAST(1000000000 + line AS TEXT) > $2 \
         ORDER BY job_id, line LIMIT $3",
    ),
    (
        "orders",
        "SELECT orders.id AS export_key, orders.id AS id, orders.computer_id AS computer_id, orders.kind AS kind, job_id, \
         body, orders.state AS state, created_by, orders.created_ns AS created_ns, orders.state_ns AS state_ns FROM orders \
         JOIN jobs ON jobs.id = orders.job_id WHERE jobs.tenant_id = $1 AND orders.id > $2 ORDER BY orders.id LIMIT $3",
    ),
    (
        "exports",
        "SELECT id AS export_key, id, user_id, plan_id, asked_by, asked_by_name, newest_will_do, state, state_ns, \
         requested_ns, next_allowed_ns, job_id, vault_id, snapshot_id, dumped_ns, files, size_bytes, ready_ns, expires_ns, \
         account, error, reference FROM exports WHERE tenant_id = $1 AND id > $2 ORDER BY id LIMIT $3",
    ),
    (
        "export_keys",
        "SELECT export_keys.id AS export_key, export_keys.id AS id, export_id, fingerprint, public_key, is_own, networks, \
         created_by, created_ns, export_keys.expires_ns AS expires_ns, terms_version, terms_address, revoked_ns, used_ns, \
         used_address FROM export_keys JOIN exports ON exports.id = export_keys.export_id \
         WHERE exports.tenant_id = $1 AND export_keys.id > $2 ORDER BY export_keys.id LIMIT $3",
    ),
    (
        "export_downloads",
        "SELECT export_downloads.id AS export_key, export_downloads.id AS id, export_id, key_id, address, program, path, \
         bytes, is_complete, began_ns, ended_ns FROM export_downloads \
         JOIN exports ON exports.id = export_downloads.export_id \
         WHERE exports.tenant_id = $1 AND export_downloads.id > $2 ORDER BY export_downloads.id LIMIT $3",
    ),
    (
        // Not what they say: links in mails are secrets.
        "outbox_mails",
        "SELECT id AS export_key, id, address, template, locale, state, tries, last_error, created_ns, done_ns \
         FROM outbox_mails WHERE tenant_id = $1 AND id > $2 ORDER BY id LIMIT $3",
    ),
    (
        "webhooks",
        "SELECT id AS export_key, id, user_id, url, events, state, state_ns, failing_since_ns, created_ns FROM webhooks \
         WHERE tenant_id = $1 AND id > $2 ORDER BY id LIMIT $3",
    ),
    (
        "webhook_deliveries",
        "SELECT webhook_deliveries.id AS export_key, webhook_deliveries.id AS id, webhook_id, event, body, \
         webhook_deliveries.state AS state, tries, last_status, last_error, webhook_deliveries.created_ns AS created_ns, \
         done_ns FROM webhook_deliveries JOIN webhooks ON webhooks.id = webhook_deliveries.webhook_id \
         WHERE webhooks.tenant_id = $1 AND webhook_deliveries.id > $2 ORDER BY webhook_deliveries.id LIMIT $3",
    ),
    (
        "notices",
        "SELECT id AS export_key, id, user_id, kind, cause, level, worst_level, facts, state, since_ns, healed_ns \
         FROM notices WHERE tenant_id = $1 AND id > $2 ORDER BY id LIMIT $3",
    ),
    (
        "removal_receipts",
        "SELECT vault_id AS export_key, vault_id, user_id, cause, decided_ns, finished_ns, packs, pack_bytes, \
         keyring_generation FROM removal_receipts WHERE tenant_id = $1 AND vault_id > $2 ORDER BY vault_id LIMIT $3",
    ),
    (
        "audit_log",
        "SELECT hash AS export_key, sequence, at_ns, actor, actor_name, behalf_tenant_id, user_id, verb, object, \
         before_json, after_json, address, previous_hash, hash FROM audit_entries \
         WHERE tenant_id = $1 AND hash > $2 ORDER BY hash LIMIT $3",
    ),
];

/// Where an export has come to.
#[derive(Clone, Debug, Default)]
pub struct ExportPlace {
    section: usize,
    key: String,
}

/// A piece of an export.
#[derive(Clone, Debug, PartialEq)]
pub struct ExportPage {
    /// Name of the section.
    pub section: &'static str,
    /// Rows, each a JSON object.
    pub rows: Vec<serde_json::Value>,
    /// Whether the section is complete with them.
    pub is_last: bool,
}

fn value(row: &AnyRow, at: usize) -> Result<serde_json::Value, ControlError> {
    let raw = row.try_get_raw(at)?;
    if raw.is_null() {
        return Ok(serde_json::Value::Null);
    }
    let number = matches!(
        raw.type_info().kind(),
        AnyTypeInfoKind::BigInt | AnyTypeInfoKind::Integer | AnyTypeInfoKind::SmallInt
    );
    Ok(match number {
        true => serde_json::json!(row.try_get::<i64, _>(at)?),
        false => serde_json::json!(row.try_get::<String, _>(at)?),
    })
}

impl Control {
    /// The next page of an export, and where it goes on; `None` behind the last one. The scope must reach the tenant.
    pub async fn export_page(
        &self,
        scope: &Scope,
        tenant: &TenantId,
        place: &ExportPlace,
    ) -> Result<Option<(ExportPage, ExportPlace)>, ControlError> {
        self.tenant(scope, tenant).await?;
        let Some((section, statement)) = SECTIONS.get(place.section) else { return Ok(None) };
        let rows = sqlx::query(*statement)
            .bind(tenant.to_string())
            .bind(&place.key)
            .bind(PAGE)
            .fetch_all(&self.readers)
            .await?;
        let mut page = ExportPage { section, rows: Vec::new(), is_last: rows.len() < PAGE as usize };
        let mut key = String::new();
        for row in &rows {
            key = row.try_get(0)?;
            let mut object = serde_json::Map::new();
            for (at, column) in row.columns().iter().enumerate().skip(1) {
                object.insert(column.name().to_owned(), value(row, at)?);
            }
            page.rows.push(serde_json::Value::Object(object));
        }
        let next = match page.is_last {
            true => ExportPlace { section: place.section + 1, key: String::new() },
            false => ExportPlace { section: place.section, key },
        };
        Ok(Some((page, next)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Tables that say nothing about a tenant or nothing that others do not say, and those whose rows are nothing but
    /// secrets.
    const LEFT_OUT: [&str; 13] = [
        "_sqlx_migrations",
        "customer_codes",
        "log_bucket_jobs",
        "log_buckets",
        "log_words",
        "master_keys",
        "operator_links",
        "password_resets",
        "products",
        "recovery_codes",
        "remains",
        "sealing_keys",
        "sqlite_sequence",
    ];

    #[tokio::test]
    async fn every_table_is_exported_or_left_out_for_a_reason() {
        let folder = tempfile::tempdir().unwrap();
        let control = Control::open(&folder.path().join("accounts.sqlite")).await.unwrap();
        let tables: Vec<String> =
            sqlx::query_scalar("SELECT name FROM sqlite_schema WHERE type = 'table' ORDER BY name")
                .fetch_all(&control.readers)
                .await
                .unwrap();
        assert!(tables.len() > 30, "{tables:?}");
        for table in tables.iter().filter(|table| !LEFT_OUT.contains(&table.as_str())) {
            let from = format!("FROM {table} ");
            assert!(SECTIONS.iter().any(|(_, statement)| statement.contains(&from)), "{table} is not exported");
        }
    }

    #[test]
    fn no_secret_is_read() {
        for (section, statement) in SECTIONS {
            for word in ["secret", "sealed", "_hash AS", "template_values", "passwords.hash"] {
                assert!(!statement.contains(word), "{section}: {word}");
            }
            assert!(*section == "audit_log" || !statement.contains("hash"), "{section}");
        }
    }
}
