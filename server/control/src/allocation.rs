//! The parts of a service that users were given. Never more than there is, however many ask at once: what is free is
//! computed in the transaction that gives it.

use crate::audit_log::record;
use crate::licence_quota::{refresh_customer_quota, refresh_user_quota};
use crate::product::Unit;
use crate::service::{Found, allocated, capacity, find_service};
use crate::service_state::Licence;
use crate::{Actor, Control, ControlError, Deed, Scope, ServiceId, ServiceState, UserId};
use repo_format::id::VaultId;
use sqlx::any::AnyRow;
use sqlx::{AnyConnection, Row};
use std::fmt;

/// Largest allocation, bytes: 4 EiB.
const BYTES_MAX: i64 = 1 << 62;
const COMPUTERS_MAX: i64 = 1_000_000;

/// What one user was given of one service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Allocation {
    /// Of which service.
    pub service: ServiceId,
    /// To whom.
    pub user: UserId,
    /// The user's name within the customer.
    pub user_name: String,
    /// The user's name for people.
    pub title: String,
    /// Space, bytes; zero of a service that is not sold by space.
    pub bytes: i64,
    /// Computers; `None` is as many as wanted.
    pub computers: Option<i64>,
    /// Since when, nanoseconds since 1970.
    pub changed_ns: i64,
}

/// What a user is to be given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share {
    /// Space, bytes; zero of a service that is not sold by space.
    pub bytes: i64,
    /// Computers; `None` is as many as wanted.
    pub computers: Option<i64>,
}

/// A share that a user is to be given.
#[derive(Clone, Copy, Debug)]
pub struct NewAllocation<'a> {
    /// Of which service.
    pub service: &'a ServiceId,
    /// To whom: a user of the customer.
    pub user: &'a UserId,
    /// What.
    pub share: &'a Share,
    /// A vault whose keys exist; it becomes the user's first when there is none.
    pub vault: Option<&'a VaultId>,
}

/// How far a service is given away, in bytes of one that is sold by space, else in its unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AllocationFigures {
    /// In what it is counted.
    pub unit: Unit,
    /// All of it.
    pub capacity: i64,
    /// Given to users.
    pub allocated: i64,
}

impl AllocationFigures {
    /// What can still be given.
    pub const fn free(&self) -> i64 {
        self.capacity.saturating_sub(self.allocated)
    }
}

/// Why somebody was not given something, with every figure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AllocationRefusal {
    /// Of which service.
    pub service: ServiceId,
    /// How far it is given away, without what the user has now.
    pub others: AllocationFigures,
    /// What was asked for.
    pub requested: i64,
    /// What the service's users have stored, bytes; filled in by whoever can count it.
    pub used_bytes: u64,
}

impl fmt::Display for AllocationRefusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let AllocationRefusal { others, requested, used_bytes, .. } = self;
        let unit = match others.unit {
            Unit::Gib => "bytes",
            Unit::Computer => "computers",
            Unit::User => "users",
        };
        write!(
            f,
            "{requested} {unit} were asked for, and {} are free: of {} that were bought, others have {}; {used_bytes} bytes \
             are stored. Give less, take some back from others, or order more",
            others.free(),
            others.capacity,
            others.allocated,
        )
    }
}

fn allocation(row: &AnyRow) -> Result<Allocation, ControlError> {
    Ok(Allocation {
        service: ServiceId::stored(&row.try_get::<String, _>("service_id")?)?,
        user: UserId::stored(&row.try_get::<String, _>("user_id")?)?,
        user_name: row.try_get("user_name")?,
        title: row.try_get("title")?,
        bytes: row.try_get("bytes")?,
        computers: row.try_get("computers")?,
        changed_ns: row.try_get("changed_ns")?,
    })
}

fn check_share(unit: Unit, share: &Share) -> Result<(), ControlError> {
    let wrong = |what, rule| Err(ControlError::Invalid { what, rule });
    match unit {
        Unit::Gib if !(1..=BYTES_MAX).contains(&share.bytes) => wrong("bytes", "must be 1 to 4 EiB"),
        Unit::Computer | Unit::User if share.bytes != 0 => {
            wrong("bytes", "the service is not sold by space: leave it out")
        }
        Unit::Computer if share.computers.is_none_or(|computers| computers < 1) => {
            wrong("computers", "the service is sold by computers: say how many, at least 1")
        }
        _ if share.computers.is_some_and(|computers| !(0..=COMPUTERS_MAX).contains(&computers)) => {
            wrong("computers", "must be 0 to 1000000")
        }
        _ => Ok(()),
    }
}

/// Whether the user can be given the share, with everything that is there now.
async fn check(
    connection: &mut AnyConnection,
    found: &Found,
    user: &UserId,
    share: &Share,
) -> Result<(), ControlError> {
    let service = &found.service;
    check_share(service.unit, share)?;
    if !service.state.is_given() {
        return Err(ControlError::WrongState {
            what: "service",
            name: service.id.to_string(),
            state: service.state.as_str().to_owned(),
            needed: "it must be ordered, tried, active or restricted to be given to users",
        });
    }
    let state: Option<String> = sqlx::query_scalar("SELECT state FROM users WHERE id = $1 AND tenant_id = $2")
        .bind(user.to_string())
        .bind(service.tenant.to_string())
        .fetch_optional(&mut *connection)
        .await?;
    match state {
        None => return Err(ControlError::not_found("user", &user.to_string())),
        Some(state) if !matches!(state.as_str(), "invited" | "active") => {
            let (name, needed) = (user.to_string(), "it must be invited or active to be given anything");
            return Err(ControlError::WrongState { what: "user", name, state, needed });
        }
        Some(_) => {}
    }
    let others = AllocationFigures {
        unit: service.unit,
        capacity: capacity(service.unit, service.quantity),
        allocated: allocated(&mut *connection, &service.id, service.unit, Some(user)).await?,
    };
    let requested = match service.unit {
        Unit::Gib => share.bytes,
        Unit::Computer => share.computers.unwrap_or_default(),
        Unit::User => 1,
    };
    if requested > others.free() {
        let refusal = AllocationRefusal { service: service.id, others, requested, used_bytes: 0 };
        return Err(ControlError::AllocationExceedsFree(Box::new(refusal)));
    }
    if service.licence == Licence::Trial {
        let protected = allocated(connection, &service.id, Unit::User, Some(user)).await?;
        let most = found.product.terms.trial_users;
        if protected >= most {
            return Err(ControlError::LicenceExceeded(format!(
                "a trial of {} protects at most {most} users, and {protected} others have a part of it: order the service, or \
                 take back somebody's part",
                service.product_name
            )));
        }
    }
    Ok(())
}

async fn share_of(
    connection: &mut AnyConnection,
    service: &ServiceId,
    user: &UserId,
) -> Result<Option<serde_json::Value>, ControlError> {
    let row = sqlx::query("SELECT bytes, computers FROM allocations WHERE service_id = $1 AND user_id = $2")
        .bind(service.to_string())
        .bind(user.to_string())
        .fetch_optional(connection)
        .await?;
    row.map(|row| {
        let (bytes, computers): (i64, Option<i64>) = (row.try_get("bytes")?, row.try_get("computers")?);
        Ok(serde_json::json!({ "bytes": bytes, "computers": computers }))
    })
    .transpose()
}

/// Gives somebody a share of `found`, in somebody's transaction.
pub(crate) async fn insert_allocation(
    connection: &mut AnyConnection,
    actor: &Actor,
    found: &Found,
    new: &NewAllocation<'_>,
    now_ns: i64,
) -> Result<(), ControlError> {
    let NewAllocation { user, share, vault, .. } = *new;
    check(&mut *connection, found, user, share).await?;
    let service = &found.service;
    let before = share_of(&mut *connection, &service.id, user).await?;
    sqlx::query(
        "INSERT INTO allocations (service_id, user_id, bytes, computers, changed_ns) VALUES ($1, $2, $3, $4, $5) \
         ON CONFLICT (service_id, user_id) DO UPDATE SET bytes = excluded.bytes, computers = excluded.computers, \
         changed_ns = excluded.changed_ns",
    )
    .bind(service.id.to_string())
    .bind(user.to_string())
    .bind(share.bytes)
    .bind(share.computers)
    .bind(now_ns)
    .execute(&mut *connection)
    .await?;
    if let Some(vault) = vault {
        sqlx::query(
            "INSERT INTO vaults (id, user_id, name, created_ns) SELECT $1, $2, 'default', $3 \
             WHERE NOT EXISTS (SELECT 1 FROM vaults AS taken WHERE taken.user_id = $2)",
        )
        .bind(vault.to_string())
        .bind(user.to_string())
        .bind(now_ns)
        .execute(&mut *connection)
        .await?;
    }
    refresh_user_quota(&mut *connection, user, now_ns).await?;
    refresh_customer_quota(&mut *connection, &service.tenant, now_ns).await?;
    let deed = Deed {
        tenant: service.tenant,
        user: Some(*user),
        verb: "allocation.set",
        object: format!("service {}", service.id),
        before,
        after: Some(serde_json::json!({ "bytes": share.bytes, "computers": share.computers })),
    };
    record(connection, actor, deed, now_ns).await
}

impl Control {
    /// Whether [`Control::set_allocation`] would go through now, and whether the user has a vault already.
    pub async fn check_allocation(
        &self,
        scope: &Scope,
        service: &ServiceId,
        user: &UserId,
        share: &Share,
    ) -> Result<bool, ControlError> {
        let mut connection = self.readers.acquire().await?;
        let found = find_service(&mut connection, scope, service).await?;
        check(&mut connection, &found, user, share).await?;
        let vaults: i64 = sqlx::query_scalar("SELECT COUNT(*) FROM vaults WHERE user_id = $1")
            .bind(user.to_string())
            .fetch_one(&mut *connection)
            .await?;
        Ok(vaults > 0)
    }

    /// Gives a user of the customer a share in place of what it had. [`ControlError::AllocationExceedsFree`] when that
    /// is more than is free, [`ControlError::LicenceExceeded`] when a trial protects no more users.
    pub async fn set_allocation(
        &self,
        scope: &Scope,
        actor: &Actor,
        new: &NewAllocation<'_>,
        now_ns: i64,
    ) -> Result<Allocation, ControlError> {
        let mut transaction = self.write().await?;
        let found = find_service(&mut transaction, scope, new.service).await?;
        insert_allocation(&mut transaction, actor, &found, new, now_ns).await?;
        transaction.commit().await?;
        let made = self.allocations_where(new.service, &format!("allocations.user_id = '{}'", new.user)).await?.pop();
        made.ok_or_else(|| ControlError::not_found("allocation", &new.user.to_string()))
    }

    /// Takes back what a user was given. What it stored stays; nothing more fits until it is given something again.
    pub async fn remove_allocation(
        &self,
        scope: &Scope,
        actor: &Actor,
        service: &ServiceId,
        user: &UserId,
        now_ns: i64,
    ) -> Result<(), ControlError> {
        let mut transaction = self.write().await?;
        let found = find_service(&mut transaction, scope, service).await?.service;
        let before = share_of(&mut transaction, service, user).await?;
        let removed = sqlx::query("DELETE FROM allocations WHERE service_id = $1 AND user_id = $2")
            .bind(service.to_string())
            .bind(user.to_string())
            .execute(&mut *transaction)
            .await?;
        if removed.rows_affected() == 0 {
            return Err(ControlError::not_found("allocation", &user.to_string()));
        }
        refresh_user_quota(&mut transaction, user, now_ns).await?;
        let deed = Deed {
            tenant: found.tenant,
            user: Some(*user),
            verb: "allocation.set",
            object: format!("service {service}"),
            before,
            after: None,
        };
        record(&mut transaction, actor, deed, now_ns).await?;
        transaction.commit().await?;
        Ok(())
    }

    /// Who was given what of a service, by user name, and how far it is given away.
    pub async fn allocations(
        &self,
        scope: &Scope,
        service: &ServiceId,
    ) -> Result<(Vec<Allocation>, AllocationFigures), ControlError> {
        self.allocations_of(scope, scope, service).await
    }

    /// As [`Control::allocations`], of the users in another scope than the service's.
    pub async fn allocations_of(
        &self,
        scope: &Scope,
        users: &Scope,
        service: &ServiceId,
    ) -> Result<(Vec<Allocation>, AllocationFigures), ControlError> {
        let mut connection = self.readers.acquire().await?;
        let found = find_service(&mut connection, scope, service).await?.service;
        let figures = AllocationFigures {
            unit: found.unit,
            capacity: capacity(found.unit, found.quantity),
            allocated: allocated(&mut connection, service, found.unit, None).await?,
        };
        drop(connection);
        let condition = users.condition("services.tenant_id", Some("allocations.user_id"));
        Ok((self.allocations_where(service, &condition).await?, figures))
    }

    async fn allocations_where(&self, service: &ServiceId, condition: &str) -> Result<Vec<Allocation>, ControlError> {
        let text = format!(
            "SELECT allocations.service_id AS service_id, allocations.user_id AS user_id, users.name AS user_name, \
             users.title AS title, allocations.bytes AS bytes, allocations.computers AS computers, \
             allocations.changed_ns AS changed_ns FROM allocations JOIN users ON users.id = allocations.user_id \
             JOIN services ON services.id = allocations.service_id \
             WHERE allocations.service_id = $1 AND {condition} ORDER BY users.name, users.id"
        );
        let rows = sqlx::query(sqlx::AssertSqlSafe(text)).bind(service.to_string()).fetch_all(&self.readers).await?;
        rows.iter().map(allocation).collect()
    }

    /// How many computers a user may have: `None` is as many as wanted. Only services that take backups or will count.
    pub async fn computers_allowed(&self, user: &UserId) -> Result<Option<i64>, ControlError> {
        computers_allowed_in(&mut *self.readers.acquire().await?, user).await
    }
}

/// The same, in a transaction.
pub(crate) async fn computers_allowed_in(
    connection: &mut AnyConnection,
    user: &UserId,
) -> Result<Option<i64>, ControlError> {
    let rows = sqlx::query(
        "SELECT allocations.computers AS computers, services.state AS state FROM allocations \
         JOIN services ON services.id = allocations.service_id WHERE allocations.user_id = $1",
    )
    .bind(user.to_string())
    .fetch_all(connection)
    .await?;
    let (mut sum, mut counted) = (0i64, false);
    for row in &rows {
        if !ServiceState::stored(&row.try_get::<String, _>("state")?)?.is_given() {
            continue;
        }
        counted = true;
        match row.try_get::<Option<i64>, _>("computers")? {
            None => return Ok(None),
            Some(computers) => sum = sum.saturating_add(computers),
        }
    }
    Ok(counted.then_some(sum))
}
