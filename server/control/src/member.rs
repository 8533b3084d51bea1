//! Who belongs to a tenant, with which roles, and who owns it. A tenant that has an administrator keeps one, and nobody
//! changes what is their own.

use crate::audit_log::record;
use crate::contact::{Leaving, fill_contacts, hand_contacts_on};
use crate::{Actor, Control, ControlError, Deed, Scope, TenantId, UserId};
use sqlx::any::AnyRow;
use sqlx::{AnyConnection, Row};
use std::str::FromStr;

/// An offer to become the owner is good for this long: 7 days.
const OFFER_NS: i64 = 7 * 24 * 3600 * 1_000_000_000;

/// What a membership makes of somebody.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum MemberRole {
    /// Administers the tenant: operator, partner's or customer's administrator by its kind.
    Admin,
    /// Backs up own computers.
    User,
    /// Reads, no content.
    Auditor,
}

impl MemberRole {
    /// All of them.
    pub const ALL: [MemberRole; 3] = [MemberRole::Admin, MemberRole::User, MemberRole::Auditor];

    /// As stored and as on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            MemberRole::Admin => "admin",
            MemberRole::User => "user",
            MemberRole::Auditor => "auditor",
        }
    }
}

impl FromStr for MemberRole {
    type Err = ControlError;
    fn from_str(text: &str) -> Result<Self, ControlError> {
        let found = Self::ALL.into_iter().find(|role| role.as_str() == text);
        found.ok_or(ControlError::Invalid { what: "role", rule: "must be admin, user or auditor" })
    }
}

/// Somebody who belongs to a tenant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Who.
    pub user: UserId,
    /// Where the person is at home.
    pub home: TenantId,
    /// Name within the home.
    pub name: String,
    /// Name for people.
    pub title: String,
    /// How the person logs in.
    pub email: Option<String>,
    /// `invited`, `active`, `disabled`, `deleted` or `erased`.
    pub state: String,
    /// When the data of a deleted one goes.
    pub delete_after_ns: Option<i64>,
    /// In the tenant.
    pub roles: Vec<MemberRole>,
    /// Whether the tenant is the person's.
    pub owner: bool,
    /// Nanoseconds since 1970.
    pub last_login_ns: Option<i64>,
    /// Creation of the user, nanoseconds since 1970.
    pub created_ns: i64,
}

const MEMBERS: &str = "SELECT users.id AS id, users.tenant_id AS tenant_id, users.name AS name, users.title AS title, \
    users.email AS email, users.state AS state, users.delete_after_ns AS delete_after_ns, \
    users.last_login_ns AS last_login_ns, users.created_ns AS created_ns, \
    (SELECT COUNT(*) FROM memberships AS theirs WHERE theirs.user_id = users.id AND theirs.tenant_id = $1 \
        AND theirs.role = 'admin') AS is_admin, \
    (SELECT COUNT(*) FROM memberships AS theirs WHERE theirs.user_id = users.id AND theirs.tenant_id = $1 \
        AND theirs.role = 'user') AS is_user, \
    (SELECT COUNT(*) FROM memberships AS theirs WHERE theirs.user_id = users.id AND theirs.tenant_id = $1 \
        AND theirs.role = 'auditor') AS is_auditor, \
    (SELECT COUNT(*) FROM memberships AS theirs WHERE theirs.user_id = users.id AND theirs.tenant_id = $1 \
        AND theirs.owner = 1) AS is_owner \
    FROM users WHERE EXISTS (SELECT 1 FROM memberships AS any_role WHERE any_role.user_id = users.id \
        AND any_role.tenant_id = $1)";

fn member(row: &AnyRow) -> Result<Member, ControlError> {
    let is = |column: &str| crate::database::flag(row, column);
    let mut roles = Vec::new();
    for (column, role) in
        [("is_admin", MemberRole::Admin), ("is_user", MemberRole::User), ("is_auditor", MemberRole::Auditor)]
    {
        roles.extend(is(column)?.then_some(role));
    }
    Ok(Member {
        user: UserId::stored(&row.try_get::<String, _>("id")?)?,
        home: TenantId::stored(&row.try_get::<String, _>("tenant_id")?)?,
        name: row.try_get("name")?,
        title: row.try_get("title")?,
        email: row.try_get("email")?,
        state: row.try_get("state")?,
        delete_after_ns: row.try_get("delete_after_ns")?,
        roles,
        owner: is("is_owner")?,
        last_login_ns: row.try_get("last_login_ns")?,
        created_ns: row.try_get("created_ns")?,
    })
}

/// One member in somebody's transaction.
pub(crate) async fn find_member(
    connection: &mut AnyConnection,
    tenant: &TenantId,
    user: &UserId,
) -> Result<Member, ControlError> {
    let row = sqlx::query(sqlx::AssertSqlSafe(format!("{MEMBERS} AND users.id = $2")))
        .bind(tenant.to_string())
        .bind(user.to_string())
        .fetch_optional(connection)
        .await?;
    member(&row.ok_or_else(|| ControlError::not_found("user", &user.to_string()))?)
}

/// Makes somebody a member in somebody's transaction; of what the person is already nothing changes. The first
/// administrator of a customer gets the contacts of its services that nobody has yet.
pub(crate) async fn insert_membership(
    connection: &mut AnyConnection,
    tenant: &TenantId,
    user: &UserId,
    role: MemberRole,
    owner: bool,
    now_ns: i64,
) -> Result<(), ControlError> {
    sqlx::query(
        "INSERT INTO memberships (user_id, tenant_id, role, owner, created_ns) VALUES ($1, $2, $3, $4, $5) \
         ON CONFLICT (user_id, tenant_id, role) DO NOTHING",
    )
    .bind(user.to_string())
    .bind(tenant.to_string())
    .bind(role.as_str())
    .bind(i64::from(owner))
    .bind(now_ns)
    .execute(&mut *connection)
    .await?;
    if role == MemberRole::Admin {
        fill_contacts(connection, tenant, user, now_ns).await?;
    }
    Ok(())
}

/// Refused when nobody else administers the tenant.
pub(crate) async fn check_not_last_admin(
    connection: &mut AnyConnection,
    tenant: &TenantId,
    user: &UserId,
) -> Result<(), ControlError> {
    let others: i64 = sqlx::query_scalar(
        "SELECT COUNT(*) FROM memberships JOIN users ON users.id = memberships.user_id \
         WHERE memberships.tenant_id = $1 AND memberships.role = 'admin' AND memberships.user_id <> $2 \
         AND users.state = 'active'",
    )
    .bind(tenant.to_string())
    .bind(user.to_string())
    .fetch_one(connection)
    .await?;
    match others {
        0 => Err(ControlError::MustStay("this is the last administrator: make somebody else one first")),
        _ => Ok(()),
    }
}

fn role_words(member: &Member) -> serde_json::Value {
    let roles: Vec<&str> = member.roles.iter().map(|role| role.as_str()).collect();
    serde_json::json!({ "roles": roles, "owner": member.owner })
}

fn check_not_self(actor: &Actor, user: &UserId) -> Result<(), ControlError> {
    match actor.id == user.to_string() {
        true => Err(ControlError::MustStay("nobody changes this of themselves: ask another administrator")),
        false => Ok(()),
    }
}

impl Control {
    /// Members that the scope reaches, by name, at most `limit` behind `after` (name and id of the last one before).
    pub async fn members(
        &self,
        scope: &Scope,
        tenant: &TenantId,
        after: Option<(&str, UserId)>,
        limit: u32,
    ) -> Result<Vec<Member>, ControlError> {
        let text = format!(
            "{MEMBERS} AND (users.name > $2 OR (users.name = $2 AND users.id > $3)) AND {} \
             ORDER BY users.name, users.id LIMIT $4",
            // Of the tenant that is asked about, also somebody who is at home elsewhere.
            scope.condition(&format!("'{tenant}'"), Some("users.id"))
        );
        let (name, id) = after.map_or((String::new(), String::new()), |(name, id)| (name.into(), id.to_string()));
        let rows = sqlx::query(sqlx::AssertSqlSafe(text))
            .bind(tenant.to_string())
            .bind(name)
            .bind(id)
            .bind(i64::from(limit))
            .fetch_all(&self.readers)
            .await?;
        rows.iter().map(member).collect()
    }

    /// One member of a tenant. The caller has checked that the tenant may be seen.
    pub async fn member(&self, tenant: &TenantId, user: &UserId) -> Result<Member, ControlError> {
        let mut connection = self.readers.acquire().await?;
        find_member(&mut connection, tenant, user).await
    }

    /// Sets the roles of a member as a whole. Refused for oneself, for the owner, and for the last administrator.
    pub async fn set_roles(
        &self,
        scope: &Scope,
        actor: &Actor,
        tenant: &TenantId,
        user: &UserId,
        roles: &[MemberRole],
        now_ns: i64,
    ) -> Result<Member, ControlError> {
        check_not_self(actor, user)?;
        self.tenant(scope, tenant).await?;
        if roles.is_empty() {
            return Err(ControlError::Invalid { what: "roles", rule: "must name at least one; or remove the member" });
        }
        let mut transaction = self.write().await?;
        let before = find_member(&mut transaction, tenant, user).await?;
        if before.roles.contains(&MemberRole::Admin) && !roles.contains(&MemberRole::Admin) {
            if before.owner {
                return Err(ControlError::MustStay("the owner stays an administrator: change the owner first"));
            }
            check_not_last_admin(&mut transaction, tenant, user).await?;
        }
        for role in MemberRole::ALL {
            if roles.contains(&role) {
                insert_membership(&mut transaction, tenant, user, role, false, now_ns).await?;
            } else {
                sqlx::query("DELETE FROM memberships WHERE user_id = $1 AND tenant_id = $2 AND role = $3")
                    .bind(user.to_string())
                    .bind(tenant.to_string())
                    .bind(role.as_str())
                    .execute(&mut *transaction)
                    .await?;
            }
        }
        let after = find_member(&mut transaction, tenant, user).await?;
        let deed = Deed {
            tenant: *tenant,
            user: Some(*user),
            verb: "user.invite",
            object: format!("user {user}"),
            before: Some(role_words(&before)),
            after: Some(role_words(&after)),
        };
        record(&mut transaction, actor, deed, now_ns).await?;
        transaction.commit().await?;
        Ok(after)
    }

    /// Takes a member out of a tenant where the person is not at home.
    pub async fn remove_member(
        &self,
        scope: &Scope,
        actor: &Actor,
        tenant: &TenantId,
        user: &UserId,
        now_ns: i64,
    ) -> Result<(), ControlError> {
        check_not_self(actor, user)?;
        self.tenant(scope, tenant).await?;
        let mut transaction = self.write().await?;
        let before = find_member(&mut transaction, tenant, user).await?;
        if before.home == *tenant {
            return Err(ControlError::MustStay("the user is at home here: disable and delete the user instead"));
        }
        if before.owner {
            return Err(ControlError::MustStay("this is the owner: change the owner first"));
        }
        if before.roles.contains(&MemberRole::Admin) {
            check_not_last_admin(&mut transaction, tenant, user).await?;
        }
        // What the person held by being a member goes with it.
        for text in [
            "DELETE FROM memberships WHERE user_id = $1 AND tenant_id = $2",
            "DELETE FROM group_members WHERE user_id = $1 \
             AND group_id IN (SELECT id FROM member_groups WHERE tenant_id = $2)",
            "DELETE FROM owner_offers WHERE user_id = $1 AND tenant_id = $2",
        ] {
            sqlx::query(text).bind(user.to_string()).bind(tenant.to_string()).execute(&mut *transaction).await?;
        }
        hand_contacts_on(&mut transaction, user, Leaving::WhereNoMember, now_ns).await?;
        let deed = Deed {
            tenant: *tenant,
            user: Some(*user),
            verb: "user.delete",
            object: format!("member {user}"),
            before: Some(role_words(&before)),
            after: None,
        };
        record(&mut transaction, actor, deed, now_ns).await?;
        transaction.commit().await?;
        Ok(())
    }

    /// Offers the tenant to one of its administrators, who becomes the owner by accepting; an offer before is replaced.
    /// Gives when the offer ends.
    pub async fn offer_owner(
        &self,
        scope: &Scope,
        actor: &Actor,
        tenant: &TenantId,
        user: &UserId,
        now_ns: i64,
    ) -> Result<i64, ControlError> {
        self.tenant(scope, tenant).await?;
        let mut transaction = self.write().await?;
        let to = find_member(&mut transaction, tenant, user).await?;
        if to.state != "active" || !to.roles.contains(&MemberRole::Admin) {
            return Err(ControlError::WrongState {
                what: "user",
                name: user.to_string(),
                state: format!(
                    "{} and {}",
                    to.state,
                    if to.roles.contains(&MemberRole::Admin) { "an administrator" } else { "no administrator" }
                ),
                needed: "only an active administrator can become the owner",
            });
        }
        if to.owner {
            return Err(ControlError::MustStay("this is the owner already"));
        }
        let expires_ns = now_ns.saturating_add(OFFER_NS);
        sqlx::query(
            "INSERT INTO owner_offers (tenant_id, user_id, offered_ns, expires_ns) VALUES ($1, $2, $3, $4) \
             ON CONFLICT (tenant_id) DO UPDATE SET user_id = excluded.user_id, offered_ns = excluded.offered_ns, \
             expires_ns = excluded.expires_ns",
        )
        .bind(tenant.to_string())
        .bind(user.to_string())
        .bind(now_ns)
        .bind(expires_ns)
        .execute(&mut *transaction)
        .await?;
        let deed = Deed {
            tenant: *tenant,
            user: Some(*user),
            verb: "owner.change",
            object: format!("tenant {tenant}"),
            before: None,
            after: Some(serde_json::json!({ "offered_to": user.to_string() })),
        };
        record(&mut transaction, actor, deed, now_ns).await?;
        transaction.commit().await?;
        Ok(expires_ns)
    }

    /// The person to whom the tenant was offered takes it. [`ControlError::NotFound`] without an offer that is good.
    pub async fn accept_owner(
        &self,
        actor: &Actor,
        tenant: &TenantId,
        user: &UserId,
        now_ns: i64,
    ) -> Result<Member, ControlError> {
        let mut transaction = self.write().await?;
        let offered = sqlx::query("DELETE FROM owner_offers WHERE tenant_id = $1 AND user_id = $2 AND expires_ns > $3")
            .bind(tenant.to_string())
            .bind(user.to_string())
            .bind(now_ns)
            .execute(&mut *transaction)
            .await?;
        if offered.rows_affected() == 0 {
            return Err(ControlError::not_found("offer", &tenant.to_string()));
        }
        let before: Option<String> =
            sqlx::query_scalar("SELECT user_id FROM memberships WHERE tenant_id = $1 AND owner = 1")
                .bind(tenant.to_string())
                .fetch_optional(&mut *transaction)
                .await?;
        sqlx::query("UPDATE memberships SET owner = 0 WHERE tenant_id = $1 AND owner = 1")
            .bind(tenant.to_string())
            .execute(&mut *transaction)
            .await?;
        let made =
            sqlx::query("UPDATE memberships SET owner = 1 WHERE tenant_id = $1 AND user_id = $2 AND role = 'admin'")
                .bind(tenant.to_string())
                .bind(user.to_string())
                .execute(&mut *transaction)
                .await?;
        if made.rows_affected() != 1 {
            return Err(ControlError::MustStay("you are no administrator of the tenant any more"));
        }
        let after = find_member(&mut transaction, tenant, user).await?;
        let deed = Deed {
            tenant: *tenant,
            user: Some(*user),
            verb: "owner.change",
            object: format!("tenant {tenant}"),
            before: before.map(|owner| serde_json::json!({ "owner": owner })),
            after: Some(serde_json::json!({ "owner": user.to_string() })),
        };
        record(&mut transaction, actor, deed, now_ns).await?;
        transaction.commit().await?;
        Ok(after)
    }

    /// An administrator who backs up own computers as well: the role of a user, beside what the person is already.
    pub async fn add_user_role(
        &self,
        actor: &Actor,
        tenant: &TenantId,
        user: &UserId,
        now_ns: i64,
    ) -> Result<(), ControlError> {
        let mut transaction = self.write().await?;
        let before = find_member(&mut transaction, tenant, user).await?;
        if before.roles.contains(&MemberRole::User) {
            return Ok(());
        }
        insert_membership(&mut transaction, tenant, user, MemberRole::User, false, now_ns).await?;
        let after = find_member(&mut transaction, tenant, user).await?;
        let deed = Deed {
            tenant: *tenant,
            user: Some(*user),
            verb: "allocation.set",
            object: format!("user {user}"),
            before: Some(role_words(&before)),
            after: Some(role_words(&after)),
        };
        record(&mut transaction, actor, deed, now_ns).await?;
        transaction.commit().await?;
        Ok(())
    }
}
