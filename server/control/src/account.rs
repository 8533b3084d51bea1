//! Customers, their users, and the users' vaults. Holds no credentials.

use crate::error::exists;
use crate::tenant::{NewTenant, TenantKind, find_or_insert_customer, insert_tenant};
use crate::{Control, ControlError, TenantId, UserId};
use repo_format::id::VaultId;
use sqlx::any::AnyRow;
use sqlx::{FromRow, Row};
use std::fmt;

/// The customer that owns users created without one.
pub const DEFAULT_CUSTOMER: &str = "default";
/// Longest name of a customer, user, vault or token, bytes.
const NAME_BYTES_MAX: usize = 128;

/// A customer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Customer {
    /// Unique name.
    pub name: String,
    /// Creation, nanoseconds since 1970.
    pub created_ns: i64,
}

/// A user, addressed as `CUSTOMER/USER`, or `USER` in the default customer.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UserName {
    /// Customer's name.
    pub customer: String,
    /// Name within the customer.
    pub user: String,
}

impl UserName {
    /// From `CUSTOMER/USER` or `USER`.
    pub fn parse(text: &str) -> Result<Self, ControlError> {
        let (customer, user) = text.split_once('/').unwrap_or((DEFAULT_CUSTOMER, text));
        Self::new(customer, user)
    }

    /// From its parts.
    pub fn new(customer: &str, user: &str) -> Result<Self, ControlError> {
        check_name("customer name", customer)?;
        check_name("user name", user)?;
        Ok(UserName { customer: customer.to_owned(), user: user.to_owned() })
    }
}

impl fmt::Display for UserName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.customer, self.user)
    }
}

/// A user and the vault made with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// Customer and name.
    pub name: UserName,
    /// The user's first vault, unless it was deleted.
    pub vault: Option<VaultId>,
    /// Creation, nanoseconds since 1970.
    pub created_ns: i64,
}

/// A vault as the accounts know it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Vault {
    /// Id, also in every frame.
    pub id: VaultId,
    /// Name within the user.
    pub name: String,
    /// Owner.
    pub user: UserName,
    /// Creation, nanoseconds since 1970.
    pub created_ns: i64,
}

impl<'r> FromRow<'r, AnyRow> for Customer {
    fn from_row(row: &'r AnyRow) -> Result<Self, sqlx::Error> {
        Ok(Customer { name: row.try_get("name")?, created_ns: row.try_get("created_ns")? })
    }
}

fn user_name(row: &AnyRow) -> Result<UserName, ControlError> {
    Ok(UserName { customer: row.try_get("customer")?, user: row.try_get("user_name")? })
}

pub(crate) fn vault_id(row: &AnyRow, column: &str) -> Result<VaultId, ControlError> {
    let text: String = row.try_get(column)?;
    text.parse().map_err(|_| ControlError::Corrupt { what: "vault id" })
}

fn vault(row: &AnyRow) -> Result<Vault, ControlError> {
    Ok(Vault {
        id: vault_id(row, "id")?,
        name: row.try_get("name")?,
        user: user_name(row)?,
        created_ns: row.try_get("created_ns")?,
    })
}

fn user(row: &AnyRow) -> Result<User, ControlError> {
    let text: Option<String> = row.try_get("vault_id")?;
    let vault = text.map(|text| text.parse().map_err(|_| ControlError::Corrupt { what: "vault id" })).transpose()?;
    Ok(User { name: user_name(row)?, vault, created_ns: row.try_get("created_ns")? })
}

pub(crate) fn check_name(what: &'static str, name: &str) -> Result<(), ControlError> {
    let rule = if name.is_empty() || name.trim() != name {
        "must not be empty or begin or end with a blank"
    } else if name.len() > NAME_BYTES_MAX {
        "must be at most 128 bytes long"
    } else if name.chars().any(|character| character.is_control() || character == '/') {
        "must hold neither a slash nor control characters"
    } else {
        return Ok(());
    };
    Err(ControlError::Invalid { what, rule })
}

pub(crate) fn random_id<const N: usize>() -> Result<[u8; N], ControlError> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|_| ControlError::Random)?;
    Ok(bytes)
}

impl Control {
    /// Creates a customer. [`ControlError::Exists`] when the name is taken.
    pub async fn create_customer(&self, name: &str, now_ns: i64) -> Result<Customer, ControlError> {
        check_name("customer name", name)?;
        let mut transaction = self.write().await?;
        let new = NewTenant { parent: TenantId::PLATFORM, kind: TenantKind::Customer, name: Some(name), title: name };
        insert_tenant(&mut transaction, &new, now_ns).await?;
        transaction.commit().await?;
        Ok(Customer { name: name.to_owned(), created_ns: now_ns })
    }

    /// All customers by name.
    pub async fn customers(&self) -> Result<Vec<Customer>, ControlError> {
        Ok(sqlx::query_as("SELECT name, created_ns FROM tenants WHERE kind = 'customer' ORDER BY name")
            .fetch_all(&self.readers)
            .await?)
    }

    /// [`ControlError::Exists`] when the user exists, before anything is made for it.
    pub async fn check_user_is_new(&self, name: &UserName) -> Result<(), ControlError> {
        match self.user_id(name).await? {
            None => Ok(()),
            Some(_) => Err(ControlError::Exists { what: "user", name: name.to_string() }),
        }
    }

    /// [`ControlError::NotFound`] when there is no such user, [`ControlError::Exists`] when it has a vault `name`.
    pub async fn check_vault_is_new(&self, name: &str, owner: &UserName) -> Result<(), ControlError> {
        check_name("vault name", name)?;
        let user_id = self.user_id(owner).await?.ok_or_else(|| ControlError::not_found("user", &owner.to_string()))?;
        let taken: Option<String> = sqlx::query_scalar("SELECT id FROM vaults WHERE user_id = $1 AND name = $2")
            .bind(user_id)
            .bind(name)
            .fetch_optional(&self.readers)
            .await?;
        match taken {
            None => Ok(()),
            Some(_) => Err(ControlError::Exists { what: "vault", name: name.to_owned() }),
        }
    }

    async fn user_id(&self, name: &UserName) -> Result<Option<String>, ControlError> {
        Ok(sqlx::query_scalar(
            "SELECT users.id FROM users JOIN tenants ON tenants.id = users.tenant_id \
             WHERE tenants.name = $1 AND users.name = $2",
        )
        .bind(&name.customer)
        .bind(&name.user)
        .fetch_optional(&self.readers)
        .await?)
    }

    /// Creates a user whose first vault (named `default`) is `vault`, and its customer when that is new. The vault's
    /// keys must exist already, so that a vault listed here is never one without keys.
    /// [`ControlError::Exists`] when the user exists; nothing is changed then.
    pub async fn create_user(&self, name: &UserName, vault: VaultId, now_ns: i64) -> Result<User, ControlError> {
        check_name("customer name", &name.customer)?;
        check_name("user name", &name.user)?;
        let user_id = UserId::generate()?.to_string();
        let mut transaction = self.write().await?;
        let tenant = find_or_insert_customer(&mut transaction, &name.customer, now_ns).await?;
        sqlx::query(
            "INSERT INTO users (id, tenant_id, name, title, state_ns, created_ns) VALUES ($1, $2, $3, $3, $4, $4)",
        )
        .bind(&user_id)
        .bind(tenant.to_string())
        .bind(&name.user)
        .bind(now_ns)
        .execute(&mut *transaction)
        .await
        .map_err(|error| exists("user", &name.to_string(), error))?;
        sqlx::query("INSERT INTO memberships (user_id, tenant_id, role, created_ns) VALUES ($1, $2, 'user', $3)")
            .bind(&user_id)
            .bind(tenant.to_string())
            .bind(now_ns)
            .execute(&mut *transaction)
            .await?;
        sqlx::query("INSERT INTO vaults (id, user_id, name, created_ns) VALUES ($1, $2, 'default', $3)")
            .bind(vault.to_string())
            .bind(&user_id)
            .bind(now_ns)
            .execute(&mut *transaction)
            .await?;
        transaction.commit().await?;
        Ok(User { name: name.clone(), vault: Some(vault), created_ns: now_ns })
    }

    /// All users by customer and name, each with its first vault.
    pub async fn users(&self) -> Result<Vec<User>, ControlError> {
        let rows = sqlx::query(
            "SELECT tenants.name AS customer, users.name AS user_name, users.created_ns AS created_ns, \
             vaults.id AS vault_id FROM users JOIN tenants ON tenants.id = users.tenant_id \
             LEFT JOIN vaults ON vaults.user_id = users.id AND vaults.name = 'default' \
             ORDER BY tenants.name, users.name",
        )
        .fetch_all(&self.readers)
        .await?;
        rows.iter().map(user).collect()
    }

    /// Creates a further vault, whose keys must exist already. [`ControlError::NotFound`] when there is no such user.
    pub async fn create_vault(
        &self,
        id: VaultId,
        name: &str,
        owner: &UserName,
        now_ns: i64,
    ) -> Result<Vault, ControlError> {
        check_name("vault name", name)?;
        let mut transaction = self.write().await?;
        let created = sqlx::query(
            "INSERT INTO vaults (id, user_id, name, created_ns) SELECT $1, users.id, $2, $3 FROM users \
             JOIN tenants ON tenants.id = users.tenant_id WHERE tenants.name = $4 AND users.name = $5",
        )
        .bind(id.to_string())
        .bind(name)
        .bind(now_ns)
        .bind(&owner.customer)
        .bind(&owner.user)
        .execute(&mut *transaction)
        .await
        .map_err(|error| exists("vault", name, error))?;
        if created.rows_affected() == 0 {
            return Err(ControlError::not_found("user", &owner.to_string()));
        }
        transaction.commit().await?;
        Ok(Vault { id, name: name.to_owned(), user: owner.clone(), created_ns: now_ns })
    }

    /// All vaults by owner and name.
    pub async fn vaults(&self) -> Result<Vec<Vault>, ControlError> {
        let rows = sqlx::query(
            "SELECT vaults.id AS id, vaults.name AS name, vaults.created_ns AS created_ns, \
             tenants.name AS customer, users.name AS user_name FROM vaults \
             JOIN users ON users.id = vaults.user_id JOIN tenants ON tenants.id = users.tenant_id \
             ORDER BY tenants.name, users.name, vaults.name",
        )
        .fetch_all(&self.readers)
        .await?;
        rows.iter().map(vault).collect()
    }

    /// One vault.
    pub async fn vault(&self, id: &VaultId) -> Result<Vault, ControlError> {
        let row = sqlx::query(
            "SELECT vaults.id AS id, vaults.name AS name, vaults.created_ns AS created_ns, \
             tenants.name AS customer, users.name AS user_name FROM vaults \
             JOIN users ON users.id = vaults.user_id JOIN tenants ON tenants.id = users.tenant_id \
             WHERE vaults.id = $1",
        )
        .bind(id.to_string())
        .fetch_optional(&self.readers)
        .await?
        .ok_or_else(|| ControlError::not_found("vault", &id.to_string()))?;
        vault(&row)
    }
}
