//! Groups of a partner's members: some verbs for some customers, or for all of them.

use crate::audit_log::record;
use crate::error::exists;
use crate::holding::path;
use crate::member::find_member;
use crate::{Actor, Control, ControlError, Deed, GroupId, Location, Scope, TenantId, TenantKind, UserId};
use sqlx::any::AnyRow;
use sqlx::{AnyConnection, Row};

const CUSTOMERS_MAX: usize = 10_000;

/// What a group gives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupTerms {
    /// Unique in the tenant.
    pub name: String,
    /// Names of verbs; whoever sets them holds them.
    pub verbs: Vec<String>,
    /// For all customers below the tenant, also those to come.
    pub all_customers: bool,
    /// Otherwise for these.
    pub customers: Vec<TenantId>,
}

/// A group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// Its id.
    pub id: GroupId,
    /// Whose.
    pub tenant: TenantId,
    /// What it gives.
    pub terms: GroupTerms,
    /// To whom.
    pub members: Vec<UserId>,
    /// Creation, nanoseconds since 1970.
    pub created_ns: i64,
}

async fn group(connection: &mut AnyConnection, row: &AnyRow) -> Result<Group, ControlError> {
    let text = |column: &str| row.try_get::<String, _>(column);
    let id = text("id")?;
    let customers: Vec<String> =
        sqlx::query_scalar("SELECT tenant_id FROM group_customers WHERE group_id = $1 ORDER BY tenant_id")
            .bind(&id)
            .fetch_all(&mut *connection)
            .await?;
    let members: Vec<String> =
        sqlx::query_scalar("SELECT user_id FROM group_members WHERE group_id = $1 ORDER BY user_id")
            .bind(&id)
            .fetch_all(connection)
            .await?;
    Ok(Group {
        id: GroupId::stored(&id)?,
        tenant: TenantId::stored(&text("tenant_id")?)?,
        terms: GroupTerms {
            name: text("name")?,
            verbs: serde_json::from_str(&text("verbs")?)
                .map_err(|_| ControlError::Corrupt { what: "verbs of a group" })?,
            all_customers: crate::database::flag(row, "all_customers")?,
            customers: customers.iter().map(|id| TenantId::stored(id)).collect::<Result<_, _>>()?,
        },
        members: members.iter().map(|id| UserId::stored(id)).collect::<Result<_, _>>()?,
        created_ns: row.try_get("created_ns")?,
    })
}

async fn find(connection: &mut AnyConnection, scope: &Scope, id: &GroupId) -> Result<Group, ControlError> {
    let text =
        format!("SELECT * FROM member_groups WHERE id = $1 AND {}", scope.condition("member_groups.tenant_id", None));
    let row = sqlx::query(sqlx::AssertSqlSafe(text)).bind(id.to_string()).fetch_optional(&mut *connection).await?;
    group(connection, &row.ok_or_else(|| ControlError::not_found("group", &id.to_string()))?).await
}

fn as_json(of: &Group) -> serde_json::Value {
    let ids = |ids: &[TenantId]| ids.iter().map(ToString::to_string).collect::<Vec<_>>();
    serde_json::json!({
        "name": of.terms.name, "verbs": of.terms.verbs, "all_customers": of.terms.all_customers,
        "customers": ids(&of.terms.customers),
        "members": of.members.iter().map(ToString::to_string).collect::<Vec<_>>(),
    })
}

fn deed(of: &Group, before: Option<serde_json::Value>, after: Option<serde_json::Value>) -> Deed<'static> {
    Deed { tenant: of.tenant, user: None, verb: "group.manage", object: format!("group {}", of.id), before, after }
}

async fn write_customers(
    connection: &mut AnyConnection,
    tenant: &TenantId,
    id: &GroupId,
    terms: &GroupTerms,
) -> Result<(), ControlError> {
    if terms.customers.len() > CUSTOMERS_MAX || (terms.all_customers && !terms.customers.is_empty()) {
        let rule = "must be at most 10000, and none where all are meant";
        return Err(ControlError::Invalid { what: "customers", rule });
    }
    sqlx::query("DELETE FROM group_customers WHERE group_id = $1")
        .bind(id.to_string())
        .execute(&mut *connection)
        .await?;
    for customer in &terms.customers {
        let inserted = sqlx::query(
            "INSERT INTO group_customers (group_id, tenant_id) SELECT $1, below.id FROM tenants AS below \
             JOIN tenants AS above ON above.id = $3 WHERE below.id = $2 AND below.id <> above.id \
             AND below.path LIKE above.path || '%' ON CONFLICT (group_id, tenant_id) DO NOTHING",
        )
        .bind(id.to_string())
        .bind(customer.to_string())
        .bind(tenant.to_string())
        .execute(&mut *connection)
        .await?;
        if inserted.rows_affected() == 0 {
            return Err(ControlError::not_found("tenant", &customer.to_string()));
        }
    }
    Ok(())
}

impl Control {
    /// Where a group stands.
    pub async fn locate_group(&self, id: &GroupId) -> Result<Option<Location>, ControlError> {
        let row = sqlx::query(
            "SELECT tenants.path AS path FROM member_groups JOIN tenants ON tenants.id = member_groups.tenant_id \
             WHERE member_groups.id = $1",
        )
        .bind(id.to_string())
        .fetch_optional(&self.readers)
        .await?;
        row.map(|row| Ok(Location { path: path(row.try_get("path")?)?, ..Location::default() })).transpose()
    }

    /// The groups of a tenant, by name.
    pub async fn groups(&self, scope: &Scope, tenant: &TenantId) -> Result<Vec<Group>, ControlError> {
        let text = format!(
            "SELECT * FROM member_groups WHERE tenant_id = $1 AND {} ORDER BY name, id",
            scope.condition("member_groups.tenant_id", None)
        );
        let mut connection = self.readers.acquire().await?;
        let rows = sqlx::query(sqlx::AssertSqlSafe(text)).bind(tenant.to_string()).fetch_all(&mut *connection).await?;
        let mut groups = Vec::new();
        for row in &rows {
            groups.push(group(&mut connection, row).await?);
        }
        Ok(groups)
    }

    /// One group.
    pub async fn group(&self, scope: &Scope, id: &GroupId) -> Result<Group, ControlError> {
        let mut connection = self.readers.acquire().await?;
        find(&mut connection, scope, id).await
    }

    /// Makes a group. The caller has checked that it holds the verbs.
    pub async fn create_group(
        &self,
        scope: &Scope,
        actor: &Actor,
        tenant: &TenantId,
        terms: &GroupTerms,
        now_ns: i64,
    ) -> Result<Group, ControlError> {
        crate::account::check_name("group name", &terms.name)?;
        if self.tenant(scope, tenant).await?.kind == TenantKind::Customer {
            return Err(ControlError::Invalid {
                what: "tenant",
                rule: "groups look after customers: a partner has them",
            });
        }
        let id = GroupId::generate()?;
        let mut transaction = self.write().await?;
        sqlx::query(
            "INSERT INTO member_groups (id, tenant_id, name, verbs, all_customers, created_ns) \
             VALUES ($1, $2, $3, $4, $5, $6)",
        )
        .bind(id.to_string())
        .bind(tenant.to_string())
        .bind(&terms.name)
        .bind(serde_json::json!(terms.verbs).to_string())
        .bind(i64::from(terms.all_customers))
        .bind(now_ns)
        .execute(&mut *transaction)
        .await
        .map_err(|error| exists("group", &terms.name, error))?;
        write_customers(&mut transaction, tenant, &id, terms).await?;
        let made = find(&mut transaction, scope, &id).await?;
        record(&mut transaction, actor, deed(&made, None, Some(as_json(&made))), now_ns).await?;
        transaction.commit().await?;
        Ok(made)
    }

    /// Changes what a group gives, as a whole. The caller has checked that it holds the verbs.
    pub async fn edit_group(
        &self,
        scope: &Scope,
        actor: &Actor,
        id: &GroupId,
        terms: &GroupTerms,
        now_ns: i64,
    ) -> Result<Group, ControlError> {
        crate::account::check_name("group name", &terms.name)?;
        let mut transaction = self.write().await?;
        let before = find(&mut transaction, scope, id).await?;
        sqlx::query("UPDATE member_groups SET name = $1, verbs = $2, all_customers = $3 WHERE id = $4")
            .bind(&terms.name)
            .bind(serde_json::json!(terms.verbs).to_string())
            .bind(i64::from(terms.all_customers))
            .bind(id.to_string())
            .execute(&mut *transaction)
            .await
            .map_err(|error| exists("group", &terms.name, error))?;
        write_customers(&mut transaction, &before.tenant, id, terms).await?;
        let after = find(&mut transaction, scope, id).await?;
        record(&mut transaction, actor, deed(&after, Some(as_json(&before)), Some(as_json(&after))), now_ns).await?;
        transaction.commit().await?;
        Ok(after)
    }

    /// Removes a group; what it gave is gone at once.
    pub async fn delete_group(
        &self,
        scope: &Scope,
        actor: &Actor,
        id: &GroupId,
        now_ns: i64,
    ) -> Result<(), ControlError> {
        let mut transaction = self.write().await?;
        let before = find(&mut transaction, scope, id).await?;
        sqlx::query("DELETE FROM member_groups WHERE id = $1").bind(id.to_string()).execute(&mut *transaction).await?;
        record(&mut transaction, actor, deed(&before, Some(as_json(&before)), None), now_ns).await?;
        transaction.commit().await?;
        Ok(())
    }

    /// Puts a member of the tenant into a group, or takes it out. The caller has checked that it holds the verbs of the
    /// group.
    pub async fn set_group_member(
        &self,
        scope: &Scope,
        actor: &Actor,
        id: &GroupId,
        user: &UserId,
        is_member: bool,
        now_ns: i64,
    ) -> Result<Group, ControlError> {
        let mut transaction = self.write().await?;
        let before = find(&mut transaction, scope, id).await?;
        if is_member {
            find_member(&mut transaction, &before.tenant, user).await?;
            sqlx::query("INSERT INTO group_members (group_id, user_id) VALUES ($1, $2) ON CONFLICT DO NOTHING")
                .bind(id.to_string())
                .bind(user.to_string())
                .execute(&mut *transaction)
                .await?;
        } else {
            let removed = sqlx::query("DELETE FROM group_members WHERE group_id = $1 AND user_id = $2")
                .bind(id.to_string())
                .bind(user.to_string())
                .execute(&mut *transaction)
                .await?;
            if removed.rows_affected() == 0 {
                return Err(ControlError::not_found("user", &user.to_string()));
            }
        }
        let after = find(&mut transaction, scope, id).await?;
        let mut deed = deed(&after, Some(as_json(&before)), Some(as_json(&after)));
        deed.user = Some(*user);
        record(&mut transaction, actor, deed, now_ns).await?;
        transaction.commit().await?;
        Ok(after)
    }
}
