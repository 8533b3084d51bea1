//! What makes somebody's rights: memberships, groups and contacts of services, all compiled to one kind of value.
//! Where an object stands in the tree. What follows from the two is decided elsewhere.

use crate::{Control, ControlError, GroupId, ID_BYTES, ServiceId, TenantId, UserId};
use sqlx::Row;
use sqlx::any::AnyRow;

/// The roles there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Role {
    /// Runs the platform; opens no content.
    Operator,
    /// Administers a partner and its customers.
    PartnerAdmin,
    /// Member of a partner's group.
    PartnerGroup,
    /// Administers a customer.
    CustomerAdmin,
    /// Administrative contact of one service.
    AdminContact,
    /// Technical contact of one service.
    TechnicalContact,
    /// Billing contact of one service.
    BillingContact,
    /// Backs up own computers.
    BackupUser,
    /// Reads, no content.
    Auditor,
}

/// Where a holding counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// A tenant and everything below it.
    Subtree(TenantId),
    /// All customers below a tenant, without the tenant itself.
    CustomersOf(TenantId),
    /// Some customers.
    Customers(Vec<TenantId>),
    /// One service of a tenant.
    Service {
        /// The service.
        service: ServiceId,
        /// Whose it is.
        tenant: TenantId,
    },
    /// What one user of a tenant has.
    Own {
        /// The user.
        user: UserId,
        /// Where.
        tenant: TenantId,
    },
}

/// One role at one place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holding {
    /// The role.
    pub role: Role,
    /// Where it counts.
    pub place: Place,
    /// Of a group: the verbs it gives; nothing otherwise.
    pub verbs: Vec<String>,
}

/// Where an object stands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Location {
    /// Ids from the platform down to the object's tenant.
    pub path: Vec<TenantId>,
    /// The user it belongs to.
    pub user: Option<UserId>,
    /// The services it counts under: the service itself, or those that its user has an allocation of. For a tenant all
    /// of its services.
    pub services: Vec<ServiceId>,
    /// Until when those above the tenant may look into its content, nanoseconds since 1970.
    pub support_access_until_ns: i64,
}

impl Location {
    /// The object's tenant.
    pub fn tenant(&self) -> Option<TenantId> {
        self.path.last().copied()
    }
}

pub(crate) fn path(text: &str) -> Result<Vec<TenantId>, ControlError> {
    text.split_terminator('/').map(TenantId::stored).collect()
}

fn location(row: &AnyRow, services: Vec<ServiceId>) -> Result<Location, ControlError> {
    let user: Option<String> = row.try_get("user_id")?;
    Ok(Location {
        path: path(row.try_get("path")?)?,
        user: user.as_deref().map(UserId::stored).transpose()?,
        services,
        support_access_until_ns: row.try_get("support_access_until_ns")?,
    })
}

impl Control {
    /// Everything a user holds. Nothing for a user that is not active.
    pub async fn holdings(&self, user: &UserId) -> Result<Vec<Holding>, ControlError> {
        let id = user.to_string();
        let mut holdings = Vec::new();
        let rows = sqlx::query(
            "SELECT memberships.role AS role, tenants.id AS tenant_id, tenants.kind AS kind FROM memberships \
             JOIN tenants ON tenants.id = memberships.tenant_id JOIN users ON users.id = memberships.user_id \
             WHERE memberships.user_id = $1 AND users.state = 'active' ORDER BY tenants.path, memberships.role",
        )
        .bind(&id)
        .fetch_all(&self.readers)
        .await?;
        for row in &rows {
            let tenant = TenantId::stored(row.try_get("tenant_id")?)?;
            let (role, place) = match (row.try_get::<&str, _>("role")?, row.try_get::<&str, _>("kind")?) {
                ("admin", "platform") => (Role::Operator, Place::Subtree(tenant)),
                ("admin", "partner") => (Role::PartnerAdmin, Place::Subtree(tenant)),
                ("admin", "customer") => (Role::CustomerAdmin, Place::Subtree(tenant)),
                ("auditor", _) => (Role::Auditor, Place::Subtree(tenant)),
                ("user", _) => (Role::BackupUser, Place::Own { user: *user, tenant }),
                _ => return Err(ControlError::Corrupt { what: "role" }),
            };
            holdings.push(Holding { role, place, verbs: Vec::new() });
        }
        let rows = sqlx::query(
            "SELECT service_contacts.kind AS kind, services.id AS service_id, services.tenant_id AS tenant_id \
             FROM service_contacts JOIN services ON services.id = service_contacts.service_id \
             JOIN users ON users.id = service_contacts.user_id \
             WHERE service_contacts.user_id = $1 AND users.state = 'active' ORDER BY services.id, service_contacts.kind",
        )
        .bind(&id)
        .fetch_all(&self.readers)
        .await?;
        for row in &rows {
            let role = match row.try_get("kind")? {
                "admin" => Role::AdminContact,
                "technical" => Role::TechnicalContact,
                "billing" => Role::BillingContact,
                _ => return Err(ControlError::Corrupt { what: "kind of contact" }),
            };
            let place = Place::Service {
                service: ServiceId::stored(row.try_get("service_id")?)?,
                tenant: TenantId::stored(row.try_get("tenant_id")?)?,
            };
            holdings.push(Holding { role, place, verbs: Vec::new() });
        }
        let rows = sqlx::query(
            "SELECT member_groups.id AS id, member_groups.tenant_id AS tenant_id, member_groups.verbs AS verbs, \
             member_groups.all_customers AS all_customers FROM group_members \
             JOIN member_groups ON member_groups.id = group_members.group_id \
             JOIN users ON users.id = group_members.user_id \
             WHERE group_members.user_id = $1 AND users.state = 'active' ORDER BY member_groups.id",
        )
        .bind(&id)
        .fetch_all(&self.readers)
        .await?;
        for row in &rows {
            let group = GroupId::stored(row.try_get("id")?)?;
            let verbs: String = row.try_get("verbs")?;
            let verbs = serde_json::from_str(&verbs).map_err(|_| ControlError::Corrupt { what: "verbs of a group" })?;
            let place = match row.try_get::<i64, _>("all_customers")? {
                0 => Place::Customers(self.customers_of_group(&group).await?),
                _ => Place::CustomersOf(TenantId::stored(row.try_get("tenant_id")?)?),
            };
            holdings.push(Holding { role: Role::PartnerGroup, place, verbs });
        }
        Ok(holdings)
    }

    async fn customers_of_group(&self, group: &GroupId) -> Result<Vec<TenantId>, ControlError> {
        // A customer that has left the partner since is no longer the group's.
        let rows = sqlx::query(
            "SELECT tenants.id AS id FROM group_customers JOIN tenants ON tenants.id = group_customers.tenant_id \
             JOIN member_groups ON member_groups.id = group_customers.group_id \
             WHERE group_customers.group_id = $1 AND tenants.path LIKE '%' || member_groups.tenant_id || '/%' \
             ORDER BY tenants.id",
        )
        .bind(group.to_string())
        .fetch_all(&self.readers)
        .await?;
        rows.iter().map(|row| TenantId::stored(row.try_get("id")?)).collect()
    }

    /// Where a tenant stands; `None` when there is none.
    pub async fn locate_tenant(&self, tenant: &TenantId) -> Result<Option<Location>, ControlError> {
        let services =
            self.ids("SELECT id FROM services WHERE tenant_id = $1 ORDER BY id", &tenant.to_string()).await?;
        self.locate(
            "SELECT path, NULL AS user_id, support_access_until_ns FROM tenants WHERE id = $1",
            &tenant.to_string(),
            services,
        )
        .await
    }

    /// Where a service stands.
    pub async fn locate_service(&self, service: &ServiceId) -> Result<Option<Location>, ControlError> {
        self.locate(
            "SELECT tenants.path AS path, NULL AS user_id, tenants.support_access_until_ns AS support_access_until_ns \
             FROM services JOIN tenants ON tenants.id = services.tenant_id WHERE services.id = $1",
            &service.to_string(),
            vec![*service],
        )
        .await
    }

    /// Where a user stands.
    pub async fn locate_user(&self, user: &UserId) -> Result<Option<Location>, ControlError> {
        let services = self
            .ids("SELECT service_id AS id FROM allocations WHERE user_id = $1 ORDER BY service_id", &user.to_string())
            .await?;
        self.locate(
            "SELECT tenants.path AS path, users.id AS user_id, tenants.support_access_until_ns AS support_access_until_ns \
             FROM users JOIN tenants ON tenants.id = users.tenant_id WHERE users.id = $1",
            &user.to_string(),
            services,
        )
        .await
    }

    /// Whose vault this is.
    pub async fn locate_vault(&self, vault: &repo_format::id::VaultId) -> Result<Option<Location>, ControlError> {
        let user: Option<String> = sqlx::query_scalar("SELECT user_id FROM vaults WHERE id = $1")
            .bind(vault.to_string())
            .fetch_optional(&self.readers)
            .await?;
        self.locate_owned(user).await
    }

    /// Where something stands by its owner, as a row says it. Without an owner, for there is no such thing, the same is
    /// asked as with one, so that the time of an answer does not tell one from the other.
    pub(crate) async fn locate_owned(&self, owner: Option<String>) -> Result<Option<Location>, ControlError> {
        let owner = owner.as_deref().map(UserId::stored).transpose()?;
        let at = self.locate_user(&owner.unwrap_or(UserId::from_bytes([0; ID_BYTES]))).await?;
        Ok(at.filter(|_| owner.is_some()))
    }

    async fn ids(&self, query: &'static str, id: &str) -> Result<Vec<ServiceId>, ControlError> {
        let rows = sqlx::query(query).bind(id).fetch_all(&self.readers).await?;
        rows.iter().map(|row| ServiceId::stored(row.try_get("id")?)).collect()
    }

    async fn locate(
        &self,
        query: &'static str,
        id: &str,
        services: Vec<ServiceId>,
    ) -> Result<Option<Location>, ControlError> {
        let row = sqlx::query(query).bind(id).fetch_optional(&self.readers).await?;
        row.map(|row| location(&row, services)).transpose()
    }
}
