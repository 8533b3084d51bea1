//! Quotas as they are set: whose, and how much. Values only; what is used and reserved is counted elsewhere.

use crate::account::{check_name, vault_id};
use crate::tenant::find_or_insert_partner;
use crate::{Control, ControlError, TenantId, UserName};
use repo_format::id::VaultId;
use sqlx::any::AnyRow;
use sqlx::{AnyConnection, Row};
use std::fmt;
use std::str::FromStr;

/// Whose bytes are limited. As text `vault:ID`, `user:CUSTOMER/USER` (or `user:USER` of the default customer),
/// `customer:NAME`, `partner:NAME`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum QuotaScope {
    /// One vault.
    Vault(VaultId),
    /// All vaults of a user.
    User(UserName),
    /// All vaults of a customer's users.
    Customer(String),
    /// All vaults of all customers that a partner brought.
    Partner(String),
}

impl fmt::Display for QuotaScope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            QuotaScope::Vault(id) => write!(f, "vault:{id}"),
            QuotaScope::User(name) => write!(f, "user:{name}"),
            QuotaScope::Customer(name) => write!(f, "customer:{name}"),
            QuotaScope::Partner(name) => write!(f, "partner:{name}"),
        }
    }
}

impl FromStr for QuotaScope {
    type Err = ControlError;
    fn from_str(text: &str) -> Result<Self, ControlError> {
        let rule = "must be vault:ID, user:CUSTOMER/USER, customer:NAME or partner:NAME";
        let invalid = ControlError::Invalid { what: "quota", rule };
        let Some((kind, name)) = text.split_once(':') else { return Err(invalid) };
        match kind {
            "vault" => name.parse().map(QuotaScope::Vault).map_err(|_| invalid),
            "user" => UserName::parse(name).map(QuotaScope::User),
            "customer" => check_name("customer name", name).map(|()| QuotaScope::Customer(name.to_owned())),
            "partner" => check_name("partner name", name).map(|()| QuotaScope::Partner(name.to_owned())),
            _ => Err(invalid),
        }
    }
}

/// How much, bytes; `None` is without bound. Soft ones only give notice.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QuotaLimits {
    /// Notice above this much stored.
    pub physical_soft: Option<u64>,
    /// Most stored: deduplicated, compressed.
    pub physical_hard: Option<u64>,
    /// Notice above this many bytes of files.
    pub logical_soft: Option<u64>,
    /// Most bytes of files, summed over snapshots.
    pub logical_hard: Option<u64>,
}

/// A quota as it was set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Quota {
    /// Whose.
    pub scope: QuotaScope,
    /// How much.
    pub limits: QuotaLimits,
    /// When it was set, nanoseconds since 1970.
    pub changed_ns: i64,
}

const QUOTAS: &str = "SELECT quotas.vault_id AS vault_id, users.name AS user_name, owners.name AS user_customer, \
    CASE WHEN tenants.kind = 'customer' THEN tenants.name END AS customer, \
    CASE WHEN tenants.kind = 'partner' THEN tenants.name END AS partner, physical_soft, physical_hard, logical_soft, logical_hard, \
    changed_ns FROM quotas \
    LEFT JOIN users ON users.id = quotas.user_id LEFT JOIN tenants AS owners ON owners.id = users.tenant_id \
    LEFT JOIN tenants ON tenants.id = quotas.customer_id";

const CHAINS: &str = "SELECT vaults.id AS vault_id, users.name AS user_name, tenants.name AS customer, \
    above.name AS partner FROM vaults JOIN users ON users.id = vaults.user_id \
    JOIN tenants ON tenants.id = users.tenant_id \
    LEFT JOIN tenants AS above ON above.id = tenants.parent_id AND above.kind = 'partner'";

fn quota(row: &AnyRow) -> Result<Quota, ControlError> {
    let bytes = |column: &str| -> Result<Option<u64>, ControlError> {
        let stored: Option<i64> = row.try_get(column)?;
        stored.map(|bytes| u64::try_from(bytes).map_err(|_| ControlError::Corrupt { what: "quota" })).transpose()
    };
    let text = |column: &str| row.try_get::<Option<String>, _>(column);
    let scope = if text("vault_id")?.is_some() {
        QuotaScope::Vault(vault_id(row, "vault_id")?)
    } else if let (Some(user), Some(customer)) = (text("user_name")?, text("user_customer")?) {
        QuotaScope::User(UserName { customer, user })
    } else if let Some(customer) = text("customer")? {
        QuotaScope::Customer(customer)
    } else if let Some(partner) = text("partner")? {
        QuotaScope::Partner(partner)
    } else {
        return Err(ControlError::Corrupt { what: "quota" });
    };
    let limits = QuotaLimits {
        physical_soft: bytes("physical_soft")?,
        physical_hard: bytes("physical_hard")?,
        logical_soft: bytes("logical_soft")?,
        logical_hard: bytes("logical_hard")?,
    };
    Ok(Quota { scope, limits, changed_ns: row.try_get("changed_ns")? })
}

fn chain(row: &AnyRow) -> Result<(VaultId, Vec<QuotaScope>), ControlError> {
    let vault = vault_id(row, "vault_id")?;
    let (user, customer): (String, String) = (row.try_get("user_name")?, row.try_get("customer")?);
    let mut scopes = vec![
        QuotaScope::Vault(vault),
        QuotaScope::User(UserName { customer: customer.clone(), user }),
        QuotaScope::Customer(customer),
    ];
    scopes.extend(row.try_get::<Option<String>, _>("partner")?.map(QuotaScope::Partner));
    Ok((vault, scopes))
}

fn stored(bytes: Option<u64>) -> Result<Option<i64>, ControlError> {
    let too_large = |_| ControlError::Invalid { what: "quota", rule: "must be below 8 EiB" };
    bytes.map(|bytes| i64::try_from(bytes).map_err(too_large)).transpose()
}

/// Id of what a scope names, and its column.
async fn subject(connection: &mut AnyConnection, scope: &QuotaScope) -> Result<(&'static str, String), ControlError> {
    let (column, query) = match scope {
        QuotaScope::Vault(id) => {
            ("vault_id", sqlx::query_scalar("SELECT id FROM vaults WHERE id = $1").bind(id.to_string()))
        }
        QuotaScope::User(UserName { customer, user }) => {
            let text = "SELECT users.id FROM users JOIN tenants ON tenants.id = users.tenant_id \
                        WHERE tenants.name = $1 AND users.name = $2";
            ("user_id", sqlx::query_scalar(text).bind(customer.clone()).bind(user.clone()))
        }
        QuotaScope::Customer(name) | QuotaScope::Partner(name) => {
            let kind = if matches!(scope, QuotaScope::Partner(_)) { "partner" } else { "customer" };
            let text = "SELECT id FROM tenants WHERE name = $1 AND kind = $2";
            ("customer_id", sqlx::query_scalar(text).bind(name.clone()).bind(kind))
        }
    };
    let found: Option<String> = query.fetch_optional(connection).await?;
    let (what, name) = match scope {
        QuotaScope::Vault(id) => ("vault", id.to_string()),
        QuotaScope::User(name) => ("user", name.to_string()),
        QuotaScope::Customer(name) => ("customer", name.clone()),
        QuotaScope::Partner(name) => ("partner", name.clone()),
    };
    found.map(|id| (column, id)).ok_or_else(|| ControlError::not_found(what, &name))
}

impl Control {
    /// All quotas that are set.
    pub async fn quotas(&self) -> Result<Vec<Quota>, ControlError> {
        let rows = sqlx::query(QUOTAS).fetch_all(&self.readers).await?;
        let mut quotas = rows.iter().map(quota).collect::<Result<Vec<_>, _>>()?;
        quotas.sort_by(|a, b| a.scope.cmp(&b.scope));
        Ok(quotas)
    }

    /// Sets a quota as a whole; one without any bound is removed. [`ControlError::NotFound`] when there is no such
    /// vault, user or customer; a partner is whoever is named so.
    pub async fn set_quota(&self, scope: &QuotaScope, limits: QuotaLimits, now_ns: i64) -> Result<(), ControlError> {
        let bounds = [limits.physical_soft, limits.physical_hard, limits.logical_soft, limits.logical_hard];
        let mut bytes = [None; 4];
        for (bytes, bound) in bytes.iter_mut().zip(bounds) {
            *bytes = stored(bound)?;
        }
        let mut transaction = self.write().await?;
        if let QuotaScope::Partner(name) = scope {
            // A partner's quota may be set before it has its first customer.
            find_or_insert_partner(&mut transaction, name, now_ns).await?;
        }
        let (column, id) = subject(&mut transaction, scope).await?;
        let of = |wanted: &str| (column == wanted).then(|| id.clone());
        sqlx::query("DELETE FROM quotas WHERE vault_id = $1 OR user_id = $2 OR customer_id = $3")
            .bind(of("vault_id"))
            .bind(of("user_id"))
            .bind(of("customer_id"))
            .execute(&mut *transaction)
            .await?;
        if limits != QuotaLimits::default() {
            sqlx::query(
                "INSERT INTO quotas (vault_id, user_id, customer_id, physical_soft, physical_hard, \
                 logical_soft, logical_hard, changed_ns) VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
            )
            .bind(of("vault_id"))
            .bind(of("user_id"))
            .bind(of("customer_id"))
            .bind(bytes[0])
            .bind(bytes[1])
            .bind(bytes[2])
            .bind(bytes[3])
            .bind(now_ns)
            .execute(&mut *transaction)
            .await?;
        }
        transaction.commit().await?;
        Ok(())
    }

    /// [`ControlError::NotFound`] when there is no such vault, user or customer.
    pub async fn check_quota_scope(&self, scope: &QuotaScope) -> Result<(), ControlError> {
        let mut connection = self.readers.acquire().await?;
        subject(&mut connection, scope).await.map(|_| ())
    }

    /// Under whose quotas every vault counts, from the vault itself outwards.
    pub async fn quota_chains(&self) -> Result<Vec<(VaultId, Vec<QuotaScope>)>, ControlError> {
        sqlx::query(CHAINS).fetch_all(&self.readers).await?.iter().map(chain).collect()
    }

    /// As [`Control::quota_chains`], of one vault.
    pub async fn quota_chain(&self, vault: &VaultId) -> Result<Vec<QuotaScope>, ControlError> {
        let row = sqlx::query(sqlx::AssertSqlSafe(format!("{CHAINS} WHERE vaults.id = $1")))
            .bind(vault.to_string())
            .fetch_optional(&self.readers)
            .await?
            .ok_or_else(|| ControlError::not_found("vault", &vault.to_string()))?;
        Ok(chain(&row)?.1)
    }

    /// Says which partner brought a customer; `None`: nobody.
    pub async fn set_partner(&self, customer: &str, partner: Option<&str>, now_ns: i64) -> Result<(), ControlError> {
        if let Some(partner) = partner {
            check_name("partner name", partner)?;
        }
        let mut transaction = self.write().await?;
        let above = match partner {
            None => TenantId::PLATFORM,
            Some(partner) => find_or_insert_partner(&mut transaction, partner, now_ns).await?,
        };
        let changed = sqlx::query(
            "UPDATE tenants SET parent_id = $1, \
             path = (SELECT above.path FROM tenants AS above WHERE above.id = $1) || id || '/' \
             WHERE name = $2 AND kind = 'customer'",
        )
        .bind(above.to_string())
        .bind(customer)
        .execute(&mut *transaction)
        .await?;
        if changed.rows_affected() == 0 {
            return Err(ControlError::not_found("customer", customer));
        }
        transaction.commit().await?;
        Ok(())
    }
}
