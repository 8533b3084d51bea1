//! Contacts of a service: one administrative, one technical, one billing, each with rights on that service alone.

use crate::audit_log::record;
use crate::service::find_service;
use crate::{Actor, Control, ControlError, Deed, Scope, ServiceId, TenantId, UserId};
use sqlx::{AnyConnection, Row};
use std::str::FromStr;

/// What somebody is a contact for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ContactKind {
    /// Orders, renews, decides.
    Admin,
    /// Looks after computers and plans.
    Technical,
    /// Pays.
    Billing,
}

impl ContactKind {
    /// All of them.
    pub const ALL: [ContactKind; 3] = [ContactKind::Admin, ContactKind::Technical, ContactKind::Billing];

    /// As stored and as on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            ContactKind::Admin => "admin",
            ContactKind::Technical => "technical",
            ContactKind::Billing => "billing",
        }
    }
}

impl FromStr for ContactKind {
    type Err = ControlError;
    fn from_str(text: &str) -> Result<Self, ControlError> {
        let found = Self::ALL.into_iter().find(|kind| kind.as_str() == text);
        found.ok_or(ControlError::Invalid { what: "kind of contact", rule: "must be admin, technical or billing" })
    }
}

/// A contact.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceContact {
    /// For what.
    pub kind: ContactKind,
    /// Who.
    pub user: UserId,
    /// The person's name for people.
    pub title: String,
    /// Since when, nanoseconds since 1970.
    pub changed_ns: i64,
}

async fn set_all(connection: &mut AnyConnection, service: &str, user: &str, now_ns: i64) -> Result<(), ControlError> {
    for kind in ContactKind::ALL {
        sqlx::query(
            "INSERT INTO service_contacts (service_id, kind, user_id, changed_ns) VALUES ($1, $2, $3, $4) \
             ON CONFLICT (service_id, kind) DO NOTHING",
        )
        .bind(service)
        .bind(kind.as_str())
        .bind(user)
        .bind(now_ns)
        .execute(&mut *connection)
        .await?;
    }
    Ok(())
}

/// Whoever orders becomes all three; of an order from above the customer's owner does, or an administrator. A customer
/// that has nobody yet gets its contacts with its first administrator.
pub(crate) async fn first_contacts(
    connection: &mut AnyConnection,
    tenant: &TenantId,
    service: &ServiceId,
    orderer: Option<&UserId>,
    now_ns: i64,
) -> Result<(), ControlError> {
    let user: Option<String> = sqlx::query_scalar(
        "SELECT memberships.user_id FROM memberships JOIN users ON users.id = memberships.user_id \
         WHERE memberships.tenant_id = $1 AND users.state IN ('invited', 'active') \
         AND (memberships.user_id = $2 OR memberships.role = 'admin') \
         ORDER BY CASE WHEN memberships.user_id = $2 THEN 0 ELSE 1 END, memberships.owner DESC, memberships.created_ns, \
         memberships.user_id LIMIT 1",
    )
    .bind(tenant.to_string())
    .bind(orderer.map(ToString::to_string).unwrap_or_default())
    .fetch_optional(&mut *connection)
    .await?;
    match user {
        Some(user) => set_all(connection, &service.to_string(), &user, now_ns).await,
        None => Ok(()),
    }
}

/// Somebody became an administrator of the tenant: services that have no contacts yet get this person as all three.
pub(crate) async fn fill_contacts(
    connection: &mut AnyConnection,
    tenant: &TenantId,
    user: &UserId,
    now_ns: i64,
) -> Result<(), ControlError> {
    let services: Vec<String> = sqlx::query_scalar("SELECT id FROM services WHERE tenant_id = $1")
        .bind(tenant.to_string())
        .fetch_all(&mut *connection)
        .await?;
    for service in services {
        set_all(&mut *connection, &service, &user.to_string(), now_ns).await?;
    }
    Ok(())
}

/// Which contacts somebody is no longer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Leaving {
    /// All of them: the user goes for good.
    ForGood,
    /// Those of customers to which the user belongs neither directly nor from above.
    WhereNoMember,
}

/// Services never lose a contact: the customer's owner or another administrator takes the place.
pub(crate) async fn hand_contacts_on(
    connection: &mut AnyConnection,
    user: &UserId,
    leaving: Leaving,
    now_ns: i64,
) -> Result<(), ControlError> {
    let which = match leaving {
        Leaving::ForGood => "1 = 1",
        Leaving::WhereNoMember => {
            "NOT EXISTS (SELECT 1 FROM memberships AS kept JOIN tenants AS theirs ON theirs.id = kept.tenant_id \
             JOIN services AS served ON served.id = service_contacts.service_id \
             JOIN tenants AS bought ON bought.id = served.tenant_id AND bought.path LIKE theirs.path || '%' \
             WHERE kept.user_id = $1)"
        }
    };
    let successor = "FROM memberships JOIN services ON services.tenant_id = memberships.tenant_id \
         JOIN users ON users.id = memberships.user_id AND users.state = 'active' \
         WHERE services.id = service_contacts.service_id AND memberships.role = 'admin' AND memberships.user_id <> $1";
    let hand_on = format!(
        "UPDATE service_contacts SET changed_ns = $2, user_id = (SELECT memberships.user_id {successor} \
         ORDER BY memberships.owner DESC, memberships.created_ns, memberships.user_id LIMIT 1) \
         WHERE user_id = $1 AND {which} AND EXISTS (SELECT 1 {successor})"
    );
    sqlx::query(sqlx::AssertSqlSafe(hand_on)).bind(user.to_string()).bind(now_ns).execute(&mut *connection).await?;
    // Where nobody is left, the next administrator takes the place.
    let drop = format!("DELETE FROM service_contacts WHERE user_id = $1 AND {which}");
    sqlx::query(sqlx::AssertSqlSafe(drop)).bind(user.to_string()).execute(connection).await?;
    Ok(())
}

impl Control {
    /// The contacts of a service; all three, or none before the customer has its first administrator.
    pub async fn service_contacts(&self, scope: &Scope, id: &ServiceId) -> Result<Vec<ServiceContact>, ControlError> {
        self.service(scope, id).await?;
        let rows = sqlx::query(
            "SELECT service_contacts.kind AS kind, service_contacts.user_id AS user_id, users.title AS title, \
             service_contacts.changed_ns AS changed_ns FROM service_contacts \
             JOIN users ON users.id = service_contacts.user_id WHERE service_contacts.service_id = $1 \
             ORDER BY service_contacts.kind",
        )
        .bind(id.to_string())
        .fetch_all(&self.readers)
        .await?;
        rows.iter()
            .map(|row| {
                Ok(ServiceContact {
                    kind: row.try_get::<String, _>("kind")?.parse()?,
                    user: UserId::stored(&row.try_get::<String, _>("user_id")?)?,
                    title: row.try_get("title")?,
                    changed_ns: row.try_get("changed_ns")?,
                })
            })
            .collect()
    }

    /// Makes somebody a contact in another one's place: somebody who belongs to the customer, or to a tenant above it.
    /// [`ControlError::NotFound`] for everybody else.
    pub async fn set_service_contact(
        &self,
        scope: &Scope,
        actor: &Actor,
        id: &ServiceId,
        kind: ContactKind,
        user: &UserId,
        now_ns: i64,
    ) -> Result<(), ControlError> {
        let mut transaction = self.write().await?;
        let service = find_service(&mut transaction, scope, id).await?.service;
        let belongs: Option<String> = sqlx::query_scalar(
            "SELECT users.id FROM users JOIN memberships ON memberships.user_id = users.id \
             JOIN tenants AS theirs ON theirs.id = memberships.tenant_id \
             JOIN tenants AS bought ON bought.id = $2 AND bought.path LIKE theirs.path || '%' \
             WHERE users.id = $1 AND users.state = 'active' LIMIT 1",
        )
        .bind(user.to_string())
        .bind(service.tenant.to_string())
        .fetch_optional(&mut *transaction)
        .await?;
        if belongs.is_none() {
            return Err(ControlError::not_found("user", &user.to_string()));
        }
        let before: Option<String> =
            sqlx::query_scalar("SELECT user_id FROM service_contacts WHERE service_id = $1 AND kind = $2")
                .bind(id.to_string())
                .bind(kind.as_str())
                .fetch_optional(&mut *transaction)
                .await?;
        sqlx::query(
            "INSERT INTO service_contacts (service_id, kind, user_id, changed_ns) VALUES ($1, $2, $3, $4) \
             ON CONFLICT (service_id, kind) DO UPDATE SET user_id = excluded.user_id, changed_ns = excluded.changed_ns",
        )
        .bind(id.to_string())
        .bind(kind.as_str())
        .bind(user.to_string())
        .bind(now_ns)
        .execute(&mut *transaction)
        .await?;
        // Exactly one of each kind: the first contact of a service that had none is all three.
        set_all(&mut transaction, &id.to_string(), &user.to_string(), now_ns).await?;
        let deed = Deed {
            tenant: service.tenant,
            user: Some(*user),
            verb: "contact.set",
            object: format!("service {id}"),
            before: before.map(|user| serde_json::json!({ "kind": kind.as_str(), "user": user })),
            after: Some(serde_json::json!({ "kind": kind.as_str(), "user": user.to_string() })),
        };
        record(&mut transaction, actor, deed, now_ns).await?;
        transaction.commit().await?;
        Ok(())
    }
}
