//! Quotas that follow from licences: of a user what it was given, of a customer what it has bought. Soft without and hard
//! with the overage of the product; only space is limited, and only where everything that counts is sold by space.

use crate::product::Unit;
use crate::service::capacity;
use crate::{Control, ControlError, QuotaLimits, QuotaScope, TenantId, UserId, UserName};
use sqlx::any::AnyRow;
use sqlx::{AnyConnection, Row};

/// States in which a service counts: its data is there or may come.
const COUNTED: &str = "services.state NOT IN ('cancelled', 'terminated')";

/// Sums up bytes with their overage.
#[derive(Clone, Copy, Default)]
struct Space {
    bytes: i64,
    with_overage: i64,
    /// Something that is not sold by space counts as well.
    unbounded: bool,
}

impl Space {
    fn add(&mut self, unit: Unit, bytes: i64, overage_percent: i64) {
        match unit {
            Unit::Gib => {
                let extra = i128::from(bytes) * i128::from(overage_percent) / 100;
                let extra = i64::try_from(extra).unwrap_or(i64::MAX);
                self.bytes = self.bytes.saturating_add(bytes);
                self.with_overage = self.with_overage.saturating_add(bytes).saturating_add(extra);
            }
            Unit::Computer | Unit::User => self.unbounded = true,
        }
    }

    /// Soft and hard.
    fn limits(self) -> (Option<i64>, Option<i64>) {
        match self.unbounded {
            true => (None, None),
            false => ((self.with_overage > self.bytes).then_some(self.bytes), Some(self.with_overage)),
        }
    }
}

fn unit(row: &AnyRow) -> Result<Unit, ControlError> {
    row.try_get::<String, _>("unit")?.parse().map_err(|_| ControlError::Corrupt { what: "unit of a product" })
}

/// Writes the bounds of stored bytes; others that somebody set stay.
async fn write_quota(
    connection: &mut AnyConnection,
    column: &'static str,
    id: &str,
    (soft, hard): (Option<i64>, Option<i64>),
    now_ns: i64,
) -> Result<(), ControlError> {
    let update = match column {
        "user_id" => "UPDATE quotas SET physical_soft = $1, physical_hard = $2, changed_ns = $3 WHERE user_id = $4",
        _ => "UPDATE quotas SET physical_soft = $1, physical_hard = $2, changed_ns = $3 WHERE customer_id = $4",
    };
    let insert = match column {
        "user_id" => "INSERT INTO quotas (physical_soft, physical_hard, changed_ns, user_id) VALUES ($1, $2, $3, $4)",
        _ => "INSERT INTO quotas (physical_soft, physical_hard, changed_ns, customer_id) VALUES ($1, $2, $3, $4)",
    };
    let updated = sqlx::query(update).bind(soft).bind(hard).bind(now_ns).bind(id).execute(&mut *connection).await?;
    if updated.rows_affected() == 0 && hard.is_some() {
        sqlx::query(insert).bind(soft).bind(hard).bind(now_ns).bind(id).execute(connection).await?;
    }
    Ok(())
}

/// What one user was given, as its quota. Somebody who was given nothing may store nothing.
pub(crate) async fn refresh_user_quota(
    connection: &mut AnyConnection,
    user: &UserId,
    now_ns: i64,
) -> Result<(), ControlError> {
    let text = format!(
        "SELECT allocations.bytes AS bytes, products.unit AS unit, products.overage_percent AS overage \
         FROM allocations JOIN services ON services.id = allocations.service_id \
         JOIN products ON products.id = services.product_id WHERE allocations.user_id = $1 AND {COUNTED}"
    );
    let rows = sqlx::query(sqlx::AssertSqlSafe(text)).bind(user.to_string()).fetch_all(&mut *connection).await?;
    let mut space = Space::default();
    for row in &rows {
        space.add(unit(row)?, row.try_get("bytes")?, row.try_get("overage")?);
    }
    write_quota(connection, "user_id", &user.to_string(), space.limits(), now_ns).await
}

/// What a customer has bought, as its quota. Nothing happens to one that never bought anything.
pub(crate) async fn refresh_customer_quota(
    connection: &mut AnyConnection,
    tenant: &TenantId,
    now_ns: i64,
) -> Result<(), ControlError> {
    let bought: i64 = sqlx::query_scalar("SELECT COUNT(*) FROM services WHERE tenant_id = $1")
        .bind(tenant.to_string())
        .fetch_one(&mut *connection)
        .await?;
    if bought == 0 {
        return Ok(());
    }
    let text = format!(
        "SELECT services.quantity AS quantity, products.unit AS unit, products.overage_percent AS overage \
         FROM services JOIN products ON products.id = services.product_id WHERE services.tenant_id = $1 AND {COUNTED}"
    );
    let rows = sqlx::query(sqlx::AssertSqlSafe(text)).bind(tenant.to_string()).fetch_all(&mut *connection).await?;
    let mut space = Space::default();
    for row in &rows {
        let unit = unit(row)?;
        space.add(unit, capacity(unit, row.try_get("quantity")?), row.try_get("overage")?);
    }
    write_quota(connection, "customer_id", &tenant.to_string(), space.limits(), now_ns).await
}

/// Both, for a tenant and everybody in it who was ever given something.
pub(crate) async fn refresh_quotas(
    connection: &mut AnyConnection,
    tenant: &TenantId,
    now_ns: i64,
) -> Result<(), ControlError> {
    refresh_customer_quota(&mut *connection, tenant, now_ns).await?;
    let users: Vec<String> = sqlx::query_scalar(
        "SELECT DISTINCT allocations.user_id FROM allocations JOIN services ON services.id = allocations.service_id \
         WHERE services.tenant_id = $1 ORDER BY 1",
    )
    .bind(tenant.to_string())
    .fetch_all(&mut *connection)
    .await?;
    for user in users {
        refresh_user_quota(&mut *connection, &UserId::stored(&user)?, now_ns).await?;
    }
    Ok(())
}

impl Control {
    /// The limits of a customer and of its users (of one of them when given), as they are set now.
    pub async fn licence_quotas(
        &self,
        tenant: &TenantId,
        user: Option<&UserId>,
    ) -> Result<Vec<(QuotaScope, QuotaLimits)>, ControlError> {
        let limits = |row: &AnyRow| -> Result<QuotaLimits, ControlError> {
            let bytes = |column: &str| -> Result<Option<u64>, ControlError> {
                let stored: Option<i64> = row.try_get(column)?;
                stored.map(u64::try_from).transpose().map_err(|_| ControlError::Corrupt { what: "quota" })
            };
            Ok(QuotaLimits {
                physical_soft: bytes("physical_soft")?,
                physical_hard: bytes("physical_hard")?,
                logical_soft: bytes("logical_soft")?,
                logical_hard: bytes("logical_hard")?,
            })
        };
        let rows = sqlx::query(
            "SELECT tenants.name AS customer, quotas.physical_soft AS physical_soft, \
             quotas.physical_hard AS physical_hard, quotas.logical_soft AS logical_soft, \
             quotas.logical_hard AS logical_hard FROM tenants LEFT JOIN quotas ON quotas.customer_id = tenants.id \
             WHERE tenants.id = $1 AND tenants.kind = 'customer'",
        )
        .bind(tenant.to_string())
        .fetch_all(&self.readers)
        .await?;
        let mut all = Vec::new();
        for row in &rows {
            all.push((QuotaScope::Customer(row.try_get("customer")?), limits(row)?));
        }
        let rows = sqlx::query(
            "SELECT tenants.name AS customer, users.name AS user_name, quotas.physical_soft AS physical_soft, \
             quotas.physical_hard AS physical_hard, quotas.logical_soft AS logical_soft, \
             quotas.logical_hard AS logical_hard FROM users JOIN tenants ON tenants.id = users.tenant_id \
             LEFT JOIN quotas ON quotas.user_id = users.id \
             WHERE users.tenant_id = $1 AND ($2 = '' OR users.id = $2) ORDER BY users.id",
        )
        .bind(tenant.to_string())
        .bind(user.map(ToString::to_string).unwrap_or_default())
        .fetch_all(&self.readers)
        .await?;
        for row in &rows {
            let name = UserName { customer: row.try_get("customer")?, user: row.try_get("user_name")? };
            all.push((QuotaScope::User(name), limits(row)?));
        }
        Ok(all)
    }
}
