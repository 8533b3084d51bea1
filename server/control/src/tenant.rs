//! The tree of tenants: platform > partner > customer. Their names, data and policies; nothing of what they have bought.

use crate::account::check_name;
use crate::audit_log::record;
use crate::error::exists;
use crate::{Actor, Control, ControlError, Deed, Scope, TenantId};
use sqlx::any::AnyRow;
use sqlx::{AnyConnection, Row};
use std::str::FromStr;

/// Deepest path: platform, partner, a reseller below it, customer.
pub const TENANT_DEPTH_MAX: usize = 4;
/// Longest title, bytes.
pub(crate) const TITLE_BYTES_MAX: usize = 256;

/// What a tenant is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TenantKind {
    /// The one at the root.
    Platform,
    /// Sells to customers.
    Partner,
    /// Has users.
    Customer,
}

impl TenantKind {
    /// As stored and as on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            TenantKind::Platform => "platform",
            TenantKind::Partner => "partner",
            TenantKind::Customer => "customer",
        }
    }
}

impl FromStr for TenantKind {
    type Err = ControlError;
    fn from_str(text: &str) -> Result<Self, ControlError> {
        match text {
            "platform" => Ok(TenantKind::Platform),
            "partner" => Ok(TenantKind::Partner),
            "customer" => Ok(TenantKind::Customer),
            _ => Err(ControlError::Invalid { what: "kind of tenant", rule: "must be platform, partner or customer" }),
        }
    }
}

/// Whether a tenant is in business.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TenantState {
    /// It is.
    Active,
    /// Billing has stopped; its data stays until the grace time is over.
    Disconnected,
    /// Its data is going.
    Deleting,
}

impl TenantState {
    /// As stored and as on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            TenantState::Active => "active",
            TenantState::Disconnected => "disconnected",
            TenantState::Deleting => "deleting",
        }
    }

    pub(crate) fn stored(text: &str) -> Result<Self, ControlError> {
        match text {
            "active" => Ok(TenantState::Active),
            "disconnected" => Ok(TenantState::Disconnected),
            "deleting" => Ok(TenantState::Deleting),
            _ => Err(ControlError::Corrupt { what: "state of a tenant" }),
        }
    }
}

/// A tenant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tenant {
    /// Its id.
    pub id: TenantId,
    /// What it is.
    pub kind: TenantKind,
    /// The one above; the platform has none.
    pub parent: Option<TenantId>,
    /// For addresses such as CUSTOMER/USER; unique on the server.
    pub name: String,
    /// For people.
    pub title: String,
    /// Whether it is in business.
    pub state: TenantState,
    /// Since when, nanoseconds since 1970.
    pub state_ns: i64,
    /// When the data of a disconnected one goes.
    pub delete_after_ns: Option<i64>,
    /// What stands on invoices: a JSON object of texts.
    pub legal_data: String,
    /// How to reach it: a JSON object of texts.
    pub contact_data: String,
    /// Language tag.
    pub locale: String,
    /// Name in the IANA database.
    pub time_zone: String,
    /// Until when those above may look into its content.
    pub support_access_until_ns: i64,
    /// Creation, nanoseconds since 1970.
    pub created_ns: i64,
}

/// A tenant to be made.
#[derive(Clone, Debug)]
pub struct NewTenant<'a> {
    /// The one above.
    pub parent: TenantId,
    /// Partner or customer.
    pub kind: TenantKind,
    /// For addresses; derived from the id when absent.
    pub name: Option<&'a str>,
    /// For people.
    pub title: &'a str,
}

pub(crate) fn tenant(row: &AnyRow) -> Result<Tenant, ControlError> {
    let parent: Option<String> = row.try_get("parent_id")?;
    Ok(Tenant {
        id: TenantId::stored(row.try_get("id")?)?,
        kind: row.try_get::<&str, _>("kind")?.parse()?,
        parent: parent.as_deref().map(TenantId::stored).transpose()?,
        name: row.try_get("name")?,
        title: row.try_get("title")?,
        state: TenantState::stored(row.try_get("state")?)?,
        state_ns: row.try_get("state_ns")?,
        delete_after_ns: row.try_get("delete_after_ns")?,
        legal_data: row.try_get("legal_data")?,
        contact_data: row.try_get("contact_data")?,
        locale: row.try_get("locale")?,
        time_zone: row.try_get("time_zone")?,
        support_access_until_ns: row.try_get("support_access_until_ns")?,
        created_ns: row.try_get("created_ns")?,
    })
}

pub(crate) fn check_title(what: &'static str, title: &str) -> Result<(), ControlError> {
    let rule = if title.trim().is_empty() {
        "must not be empty"
    } else if title.len() > TITLE_BYTES_MAX {
        "must be at most 256 bytes long"
    } else if title.chars().any(char::is_control) {
        "must hold no control characters"
    } else {
        return Ok(());
    };
    Err(ControlError::Invalid { what, rule })
}

/// A tenant below its parent, in somebody's transaction.
pub(crate) async fn insert_tenant(
    connection: &mut AnyConnection,
    new: &NewTenant<'_>,
    now_ns: i64,
) -> Result<TenantId, ControlError> {
    check_title("title", new.title)?;
    let id = TenantId::generate()?;
    let name = new.name.map_or_else(|| id.to_string(), ToOwned::to_owned);
    check_name("tenant name", &name)?;
    let parent = sqlx::query("SELECT path, kind FROM tenants WHERE id = $1 AND state = 'active'")
        .bind(new.parent.to_string())
        .fetch_optional(&mut *connection)
        .await?
        .ok_or_else(|| ControlError::not_found("tenant", &new.parent.to_string()))?;
    let (path, kind): (String, String) = (parent.try_get("path")?, parent.try_get("kind")?);
    let below: TenantKind = kind.parse()?;
    let fits = matches!(
        (below, new.kind),
        (TenantKind::Platform | TenantKind::Partner, TenantKind::Partner | TenantKind::Customer)
    );
    // A partner must leave room for a customer below it.
    let depth = path.split_terminator('/').count() + 1 + usize::from(new.kind == TenantKind::Partner);
    if !fits || depth > TENANT_DEPTH_MAX {
        return Err(ControlError::Invalid {
            what: "parent",
            rule: "a tenant stands below the platform or a partner, at most four levels deep",
        });
    }
    sqlx::query(
        "INSERT INTO tenants (id, kind, parent_id, path, name, title, state_ns, created_ns) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $7)",
    )
    .bind(id.to_string())
    .bind(new.kind.as_str())
    .bind(new.parent.to_string())
    .bind(format!("{path}{id}/"))
    .bind(&name)
    .bind(new.title)
    .bind(now_ns)
    .execute(connection)
    .await
    .map_err(|error| exists("tenant", &name, error))?;
    Ok(id)
}

/// The customer of this name, made below the platform when it is new.
pub(crate) async fn find_or_insert_customer(
    connection: &mut AnyConnection,
    name: &str,
    now_ns: i64,
) -> Result<TenantId, ControlError> {
    find_or_insert(connection, TenantKind::Customer, name, now_ns).await
}

/// The partner of this name, made below the platform when it is new.
pub(crate) async fn find_or_insert_partner(
    connection: &mut AnyConnection,
    name: &str,
    now_ns: i64,
) -> Result<TenantId, ControlError> {
    find_or_insert(connection, TenantKind::Partner, name, now_ns).await
}

async fn find_or_insert(
    connection: &mut AnyConnection,
    kind: TenantKind,
    name: &str,
    now_ns: i64,
) -> Result<TenantId, ControlError> {
    let found: Option<String> = sqlx::query_scalar("SELECT id FROM tenants WHERE name = $1 AND kind = $2")
        .bind(name)
        .bind(kind.as_str())
        .fetch_optional(&mut *connection)
        .await?;
    match found {
        Some(id) => TenantId::stored(&id),
        None => {
            let new = NewTenant { parent: TenantId::PLATFORM, kind, name: Some(name), title: name };
            insert_tenant(connection, &new, now_ns).await
        }
    }
}

impl Control {
    /// Makes a tenant. The scope must reach its parent, or there is none.
    pub async fn create_tenant(
        &self,
        scope: &Scope,
        actor: &Actor,
        new: &NewTenant<'_>,
        now_ns: i64,
    ) -> Result<Tenant, ControlError> {
        self.tenant(scope, &new.parent).await?;
        let mut transaction = self.write().await?;
        let id = insert_tenant(&mut transaction, new, now_ns).await?;
        let deed = Deed {
            tenant: id,
            user: None,
            verb: "tenant.invite_child",
            object: format!("tenant {id}"),
            before: None,
            after: Some(
                serde_json::json!({ "kind": new.kind.as_str(), "title": new.title, "parent": new.parent.to_string() }),
            ),
        };
        record(&mut transaction, actor, deed, now_ns).await?;
        let row = sqlx::query("SELECT * FROM tenants WHERE id = $1")
            .bind(id.to_string())
            .fetch_one(&mut *transaction)
            .await?;
        let made = tenant(&row)?;
        transaction.commit().await?;
        Ok(made)
    }

    /// One tenant. [`ControlError::NotFound`] also when the scope does not reach it.
    pub async fn tenant(&self, scope: &Scope, id: &TenantId) -> Result<Tenant, ControlError> {
        let text = format!("SELECT * FROM tenants WHERE id = $1 AND {}", scope.condition("tenants.id", None));
        let row = sqlx::query(sqlx::AssertSqlSafe(text)).bind(id.to_string()).fetch_optional(&self.readers).await?;
        tenant(&row.ok_or_else(|| ControlError::not_found("tenant", &id.to_string()))?)
    }

    /// Tenants that the scope reaches, by title; at most `limit` behind `after` (title and id of the last one before).
    pub async fn tenants(
        &self,
        scope: &Scope,
        kind: Option<TenantKind>,
        after: Option<(&str, TenantId)>,
        limit: u32,
    ) -> Result<Vec<Tenant>, ControlError> {
        let text = format!(
            "SELECT * FROM tenants WHERE (title > $1 OR (title = $1 AND id > $2)) AND ($3 = '' OR kind = $3) AND {} \
             ORDER BY title, id LIMIT $4",
            scope.condition("tenants.id", None)
        );
        let (title, id) = after.map_or((String::new(), String::new()), |(title, id)| (title.into(), id.to_string()));
        let rows = sqlx::query(sqlx::AssertSqlSafe(text))
            .bind(title)
            .bind(id)
            .bind(kind.map_or("", TenantKind::as_str))
            .bind(i64::from(limit))
            .fetch_all(&self.readers)
            .await?;
        rows.iter().map(tenant).collect()
    }
}
