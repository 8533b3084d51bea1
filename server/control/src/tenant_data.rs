//! Changing what is known of a tenant: its title, language and zone, the two sets of data, and who may look inside.

use crate::audit_log::record;
use crate::calendar::check_zone;
use crate::tenant::{check_title, tenant};
use crate::{Actor, Control, ControlError, Deed, Scope, Tenant, TenantId};
use sqlx::{AnyConnection, Row};
use std::collections::BTreeMap;

/// Languages there are texts in.
const LOCALES: [&str; 4] = ["en", "pl", "de", "pt"];
/// Longest value of a field, bytes.
const FIELD_BYTES_MAX: usize = 512;

/// What stands on invoices.
pub const LEGAL_FIELDS: [&str; 10] =
    ["name", "street", "postal_code", "city", "region", "country", "vat_id", "registration_number", "court", "email"];
/// How to reach a tenant.
pub const CONTACT_FIELDS: [&str; 8] = ["name", "email", "phone", "street", "postal_code", "city", "region", "country"];

/// What may be changed of a tenant; what is absent stays.
#[derive(Clone, Debug, Default)]
pub struct TenantChange {
    /// For people.
    pub title: Option<String>,
    /// One of the languages there are.
    pub locale: Option<String>,
    /// Name in the IANA database.
    pub time_zone: Option<String>,
    /// What stands on invoices, as a whole: fields of [`LEGAL_FIELDS`].
    pub legal_data: Option<BTreeMap<String, String>>,
    /// How to reach it, as a whole: fields of [`CONTACT_FIELDS`].
    pub contact_data: Option<BTreeMap<String, String>>,
}

fn check_fields(what: &'static str, data: &BTreeMap<String, String>, known: &[&str]) -> Result<String, ControlError> {
    for (field, value) in data {
        if !known.contains(&field.as_str()) {
            return Err(ControlError::Invalid { what, rule: "holds a field that there is not" });
        }
        if value.len() > FIELD_BYTES_MAX || value.chars().any(char::is_control) {
            let rule = "a field must have at most 512 bytes and no control characters";
            return Err(ControlError::Invalid { what, rule });
        }
        if field == "country" && !(value.len() == 2 && value.bytes().all(|byte| byte.is_ascii_uppercase())) {
            return Err(ControlError::Invalid { what, rule: "country must be two capital letters, such as DE" });
        }
    }
    Ok(serde_json::json!(data).to_string())
}

async fn find(connection: &mut AnyConnection, scope: &Scope, id: &TenantId) -> Result<Tenant, ControlError> {
    let text = format!("SELECT * FROM tenants WHERE id = $1 AND {}", scope.condition("tenants.id", None));
    let row = sqlx::query(sqlx::AssertSqlSafe(text)).bind(id.to_string()).fetch_optional(connection).await?;
    tenant(&row.ok_or_else(|| ControlError::not_found("tenant", &id.to_string()))?)
}

fn parsed(text: &str) -> serde_json::Value {
    serde_json::from_str(text).unwrap_or_default()
}

fn as_json(of: &Tenant) -> serde_json::Value {
    serde_json::json!({
        "title": of.title, "locale": of.locale, "time_zone": of.time_zone, "legal": parsed(&of.legal_data),
        "contact": parsed(&of.contact_data),
    })
}

impl Control {
    /// Changes what is known of a tenant. Changed legal data counts for invoices made from now on.
    pub async fn edit_tenant(
        &self,
        scope: &Scope,
        actor: &Actor,
        id: &TenantId,
        change: &TenantChange,
        now_ns: i64,
    ) -> Result<Tenant, ControlError> {
        if let Some(title) = &change.title {
            check_title("title", title)?;
        }
        if let Some(locale) = &change.locale
            && !LOCALES.contains(&locale.as_str())
        {
            return Err(ControlError::Invalid { what: "locale", rule: "must be en, pl, de or pt" });
        }
        if let Some(zone) = &change.time_zone {
            check_zone(zone)?;
        }
        let legal = change.legal_data.as_ref().map(|data| check_fields("legal", data, &LEGAL_FIELDS)).transpose()?;
        let contact =
            change.contact_data.as_ref().map(|data| check_fields("contact", data, &CONTACT_FIELDS)).transpose()?;
        let mut transaction = self.write().await?;
        let before = find(&mut transaction, scope, id).await?;
        sqlx::query(
            "UPDATE tenants SET title = $1, locale = $2, time_zone = $3, legal_data = $4, contact_data = $5 WHERE id = $6",
        )
        .bind(change.title.as_ref().unwrap_or(&before.title))
        .bind(change.locale.as_ref().unwrap_or(&before.locale))
        .bind(change.time_zone.as_ref().unwrap_or(&before.time_zone))
        .bind(legal.as_ref().unwrap_or(&before.legal_data))
        .bind(contact.as_ref().unwrap_or(&before.contact_data))
        .bind(id.to_string())
        .execute(&mut *transaction)
        .await?;
        let after = find(&mut transaction, scope, id).await?;
        let deed = Deed {
            tenant: *id,
            user: None,
            verb: "tenant.edit",
            object: format!("tenant {id}"),
            before: Some(as_json(&before)),
            after: Some(as_json(&after)),
        };
        record(&mut transaction, actor, deed, now_ns).await?;
        transaction.commit().await?;
        Ok(after)
    }

    /// Says until when those above may look into the tenant's content: 0 not at all, `i64::MAX` for good.
    pub async fn switch_support_access(
        &self,
        scope: &Scope,
        actor: &Actor,
        id: &TenantId,
        until_ns: i64,
        now_ns: i64,
    ) -> Result<Tenant, ControlError> {
        let mut transaction = self.write().await?;
        let before = find(&mut transaction, scope, id).await?.support_access_until_ns;
        sqlx::query("UPDATE tenants SET support_access_until_ns = $1 WHERE id = $2")
            .bind(until_ns)
            .bind(id.to_string())
            .execute(&mut *transaction)
            .await?;
        let after = find(&mut transaction, scope, id).await?;
        let deed = Deed {
            tenant: *id,
            user: None,
            verb: "support_access.switch",
            object: format!("tenant {id}"),
            before: Some(serde_json::json!({ "until_ns": before })),
            after: Some(serde_json::json!({ "until_ns": until_ns })),
        };
        record(&mut transaction, actor, deed, now_ns).await?;
        transaction.commit().await?;
        Ok(after)
    }

    /// The time zone of a tenant.
    pub async fn time_zone_of(&self, id: &TenantId) -> Result<String, ControlError> {
        let row = sqlx::query("SELECT time_zone FROM tenants WHERE id = $1")
            .bind(id.to_string())
            .fetch_optional(&self.readers)
            .await?
            .ok_or_else(|| ControlError::not_found("tenant", &id.to_string()))?;
        Ok(row.try_get("time_zone")?)
    }
}
