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
         created_ns FROM tenants WHERE id = $1 AND id > $2 ORDER BY id LIMIT $3",
    ),
    (
        "users",
        "SELECT id AS export_key, id, name, title, email, notify_email, customer_code, locale, time_zone, state, state_ns, \
         delete_after_ns, last_login_ns, created_ns FROM users WHERE tenant_id = $1 AND id > $2 ORDER BY id LIMIT $3",
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
