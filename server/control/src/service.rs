//! What customers have bought: the rules of a licence, and the states a service goes through. Every change of state is
//! one function here; there is no other way from one to the next.

use crate::audit_log::record;
use crate::calendar::{Term, day_of, end_of_day, latest_day, parse_day};
use crate::contact::first_contacts;
use crate::licence_quota::{refresh_customer_quota, refresh_quotas};
use crate::product::{Product, Unit, find_product};
use crate::service_state::{Licence, ServiceState};
use crate::{Actor, Control, ControlError, Deed, ProductId, Scope, ServiceId, TenantId, UserId};
use sqlx::any::AnyRow;
use sqlx::{AnyConnection, Row};

const DAY_NS: i64 = 24 * 3600 * 1_000_000_000;
/// An order that nobody pays is cancelled after this.
pub const UNPAID_DAYS: i64 = 14;
/// How long before its end a licence can be renewed.
pub const RENEWAL_OPENS_DAYS: i64 = 90;
/// Most units of one service.
const QUANTITY_MAX: i64 = 1_000_000_000;
/// Services that the clock moves in one go.
const CLOCK_STEP: i64 = 200;

/// A service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// Its id.
    pub id: ServiceId,
    /// Whose.
    pub tenant: TenantId,
    /// Of what.
    pub product: ProductId,
    /// The product's name.
    pub product_name: String,
    /// In what it is counted.
    pub unit: Unit,
    /// How it was bought.
    pub licence: Licence,
    /// How much.
    pub quantity: i64,
    /// When the term that runs was booked, nanoseconds since 1970.
    pub first_booked_ns: i64,
    /// When it ends: the end of `expires_on` where the tenant is.
    pub expires_ns: i64,
    /// Its last day, such as `2027-11-21`.
    pub expires_on: String,
    /// The last day it may be good for.
    pub latest_expires_on: String,
    /// Renews itself at its end.
    pub auto_renew: bool,
    /// Where it stands.
    pub state: ServiceState,
    /// Since when, nanoseconds since 1970.
    pub state_ns: i64,
    /// When a new term was ordered that waits for its payment.
    pub renewal_ordered_ns: Option<i64>,
    /// Creation, nanoseconds since 1970.
    pub created_ns: i64,
}

/// A service to be ordered.
#[derive(Clone, Debug)]
pub struct NewService {
    /// For whom: a customer.
    pub tenant: TenantId,
    /// What.
    pub product: ProductId,
    /// For money or as a trial.
    pub licence: Licence,
    /// How much, in the product's unit.
    pub quantity: i64,
    /// Its last day; the latest there may be when absent.
    pub expires_on: Option<String>,
    /// Renews itself at its end.
    pub auto_renew: bool,
}

/// What may be changed of a licence; what is absent stays.
#[derive(Clone, Debug, Default)]
pub struct LicenceChange {
    /// How much.
    pub quantity: Option<i64>,
    /// Its last day.
    pub expires_on: Option<String>,
    /// Renews itself at its end.
    pub auto_renew: Option<bool>,
}

/// A service with what its rules need.
pub(crate) struct Found {
    pub(crate) service: Service,
    pub(crate) product: Product,
    zone: String,
}

const SERVICES: &str = "SELECT services.id AS id, services.tenant_id AS tenant_id, services.product_id AS product_id, \
    services.licence AS licence, services.quantity AS quantity, services.first_booked_ns AS first_booked_ns, \
    services.expires_ns AS expires_ns, services.auto_renew AS auto_renew, services.state AS state, \
    services.state_ns AS state_ns, services.renewal_ordered_ns AS renewal_ordered_ns, \
    services.created_ns AS created_ns, tenants.time_zone AS time_zone, products.name AS product_name, \
    products.unit AS unit, products.trial_days AS trial_days, products.term_months AS term_months FROM services \
    JOIN tenants ON tenants.id = services.tenant_id JOIN products ON products.id = services.product_id";

fn term(licence: Licence, trial_days: i64, term_months: i64) -> Term {
    match licence {
        Licence::Paid => Term::Months(term_months),
        Licence::Trial => Term::Days(trial_days),
    }
}

fn service(row: &AnyRow) -> Result<Service, ControlError> {
    let text = |column: &str| row.try_get::<String, _>(column);
    let (unit, licence) = (text("unit")?, text("licence")?);
    let corrupt = |_| ControlError::Corrupt { what: "licence of a service" };
    let licence: Licence = licence.parse().map_err(corrupt)?;
    let zone = text("time_zone")?;
    let (first_booked_ns, expires_ns) = (row.try_get("first_booked_ns")?, row.try_get::<i64, _>("expires_ns")?);
    let term = term(licence, row.try_get("trial_days")?, row.try_get("term_months")?);
    Ok(Service {
        id: ServiceId::stored(&text("id")?)?,
        tenant: TenantId::stored(&text("tenant_id")?)?,
        product: ProductId::stored(&text("product_id")?)?,
        product_name: text("product_name")?,
        unit: unit.parse().map_err(corrupt)?,
        licence,
        quantity: row.try_get("quantity")?,
        first_booked_ns,
        expires_ns,
        expires_on: day_of(expires_ns - 1, &zone)?.to_string(),
        latest_expires_on: latest_day(first_booked_ns, term, &zone)?.to_string(),
        auto_renew: crate::database::flag(row, "auto_renew")?,
        state: ServiceState::stored(&text("state")?)?,
        state_ns: row.try_get("state_ns")?,
        renewal_ordered_ns: row.try_get("renewal_ordered_ns")?,
        created_ns: row.try_get("created_ns")?,
    })
}

/// The end of `expires_on`, or of the latest day there may be. The error names that day.
fn expiry(expires_on: Option<&str>, booked_ns: i64, term: Term, zone: &str, now_ns: i64) -> Result<i64, ControlError> {
    let latest = latest_day(booked_ns, term, zone)?;
    let Some(wanted) = expires_on else { return end_of_day(latest, zone) };
    let wanted = parse_day(wanted)?;
    if wanted > latest {
        let length = match term {
            Term::Months(12) => "one year".to_owned(),
            Term::Months(months) => format!("{months} months"),
            Term::Days(days) => format!("{days} days"),
        };
        return Err(ControlError::LicenceExceeded(format!(
            "expires_on: {wanted} is too late: the licence was booked on {} and is good for {length} at most; the latest \
             date is {latest}",
            day_of(booked_ns, zone)?
        )));
    }
    let today = day_of(now_ns, zone)?;
    if wanted < today {
        return Err(ControlError::LicenceExceeded(format!(
            "expires_on: {wanted} is over; the earliest date is {today}, the latest is {latest}"
        )));
    }
    end_of_day(wanted, zone)
}

fn check_quantity(quantity: i64) -> Result<(), ControlError> {
    match (1..=QUANTITY_MAX).contains(&quantity) {
        true => Ok(()),
        false => Err(ControlError::Invalid { what: "quantity", rule: "must be 1 to 1000000000" }),
    }
}

/// One service in somebody's transaction. [`ControlError::NotFound`] also when the scope does not reach it.
pub(crate) async fn find_service(
    connection: &mut AnyConnection,
    scope: &Scope,
    id: &ServiceId,
) -> Result<Found, ControlError> {
    let text = format!(
        "{SERVICES} WHERE services.id = $1 AND {}",
        scope.service_condition("services.id", "services.tenant_id")
    );
    let row = sqlx::query(sqlx::AssertSqlSafe(text))
        .bind(id.to_string())
        .fetch_optional(&mut *connection)
        .await?
        .ok_or_else(|| ControlError::not_found("service", &id.to_string()))?;
    let service = service(&row)?;
    let product = find_product(connection, &service.product).await?;
    Ok(Found { service, product, zone: row.try_get("time_zone")? })
}

/// What is given away of a service, in its unit (bytes of one that is sold by space).
pub(crate) async fn allocated(
    connection: &mut AnyConnection,
    service: &ServiceId,
    unit: Unit,
    except: Option<&UserId>,
) -> Result<i64, ControlError> {
    let sum = match unit {
        Unit::Gib => "SELECT CAST(COALESCE(SUM(bytes), 0) AS BIGINT) FROM allocations",
        Unit::Computer => "SELECT CAST(COALESCE(SUM(computers), 0) AS BIGINT) FROM allocations",
        Unit::User => "SELECT CAST(COUNT(*) AS BIGINT) FROM allocations",
    };
    let text = format!("{sum} WHERE service_id = $1 AND user_id <> $2");
    Ok(sqlx::query_scalar(sqlx::AssertSqlSafe(text))
        .bind(service.to_string())
        .bind(except.map(ToString::to_string).unwrap_or_default())
        .fetch_one(connection)
        .await?)
}

/// A quantity in the unit in which it is given away: bytes of a service sold by space.
pub(crate) fn capacity(unit: Unit, quantity: i64) -> i64 {
    match unit {
        Unit::Gib => quantity.saturating_mul(1 << 30),
        Unit::Computer | Unit::User => quantity,
    }
}

fn wrong_state(service: &Service, needed: &'static str) -> ControlError {
    ControlError::WrongState {
        what: "service",
        name: service.id.to_string(),
        state: service.state.as_str().to_owned(),
        needed,
    }
}

fn as_json(service: &Service) -> serde_json::Value {
    serde_json::json!({
        "state": service.state.as_str(), "licence": service.licence.as_str(), "quantity": service.quantity,
        "expires_on": service.expires_on, "auto_renew": service.auto_renew,
        "renewal_ordered_ns": service.renewal_ordered_ns,
    })
}

/// A new service in somebody's transaction: ordered, or begun as a trial. Its contacts are whoever ordered it, or the
/// customer's owner when it was ordered from above.
pub(crate) async fn insert_service(
    connection: &mut AnyConnection,
    actor: &Actor,
    new: &NewService,
    orderer: Option<&UserId>,
    now_ns: i64,
) -> Result<ServiceId, ControlError> {
    check_quantity(new.quantity)?;
    let row = sqlx::query("SELECT kind, state, time_zone FROM tenants WHERE id = $1")
        .bind(new.tenant.to_string())
        .fetch_optional(&mut *connection)
        .await?
        .ok_or_else(|| ControlError::not_found("tenant", &new.tenant.to_string()))?;
    let (kind, state): (String, String) = (row.try_get("kind")?, row.try_get("state")?);
    let zone: String = row.try_get("time_zone")?;
    if kind != "customer" {
        return Err(ControlError::Invalid { what: "tenant", rule: "must be a customer to have services" });
    }
    if state != "active" {
        let (name, needed) = (new.tenant.to_string(), "it must be active to order anything");
        return Err(ControlError::WrongState { what: "tenant", name, state, needed });
    }
    let product = find_product(&mut *connection, &new.product).await?;
    if product.retired_ns.is_some() {
        return Err(ControlError::Invalid { what: "product", rule: "is not sold any more" });
    }
    if new.licence == Licence::Trial {
        let tried: Option<String> = sqlx::query_scalar(
            "SELECT id FROM services WHERE tenant_id = $1 AND product_id = $2 AND licence = 'trial' \
             AND state <> 'cancelled'",
        )
        .bind(new.tenant.to_string())
        .bind(new.product.to_string())
        .fetch_optional(&mut *connection)
        .await?;
        if let Some(tried) = tried {
            return Err(ControlError::LicenceExceeded(format!(
                "licence: {} can be tried once by a customer, and service {tried} is that trial",
                product.terms.name
            )));
        }
    }
    let term = term(new.licence, product.terms.trial_days, product.terms.term_months);
    let expires_ns = expiry(new.expires_on.as_deref(), now_ns, term, &zone, now_ns)?;
    let id = ServiceId::generate()?;
    let state = match new.licence {
        Licence::Paid => ServiceState::Ordered,
        Licence::Trial => ServiceState::Trial,
    };
    sqlx::query(
        "INSERT INTO services (id, tenant_id, product_id, licence, quantity, first_booked_ns, expires_ns, auto_renew, \
         state, state_ns, created_ns) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $6, $6)",
    )
    .bind(id.to_string())
    .bind(new.tenant.to_string())
    .bind(new.product.to_string())
    .bind(new.licence.as_str())
    .bind(new.quantity)
    .bind(now_ns)
    .bind(expires_ns)
    .bind(i64::from(new.auto_renew && new.licence == Licence::Paid))
    .bind(state.as_str())
    .execute(&mut *connection)
    .await?;
    first_contacts(&mut *connection, &new.tenant, &id, orderer, now_ns).await?;
    refresh_customer_quota(&mut *connection, &new.tenant, now_ns).await?;
    let deed = Deed {
        tenant: new.tenant,
        user: None,
        verb: "service.order",
        object: format!("service {id}"),
        before: None,
        after: Some(serde_json::json!({
            "product": product.terms.name, "licence": new.licence.as_str(), "quantity": new.quantity,
            "state": state.as_str(),
        })),
    };
    record(connection, actor, deed, now_ns).await?;
    Ok(id)
}

/// One step of the state machine. `false` when the service has left the state meanwhile.
async fn step(
    connection: &mut AnyConnection,
    service: &Service,
    to: ServiceState,
    now_ns: i64,
) -> Result<bool, ControlError> {
    let moved = sqlx::query(
        "UPDATE services SET state = $1, state_ns = $2, renewal_ordered_ns = $3 WHERE id = $4 AND state = $5",
    )
    .bind(to.as_str())
    .bind(now_ns)
    .bind(None::<i64>)
    .bind(service.id.to_string())
    .bind(service.state.as_str())
    .execute(connection)
    .await?;
    Ok(moved.rows_affected() == 1)
}

/// A new term from `booked_ns` on, as a paid licence.
async fn begin_term(connection: &mut AnyConnection, found: &Found, booked_ns: i64) -> Result<(), ControlError> {
    let latest = latest_day(booked_ns, Term::Months(found.product.terms.term_months), &found.zone)?;
    sqlx::query("UPDATE services SET licence = 'paid', first_booked_ns = $1, expires_ns = $2 WHERE id = $3")
        .bind(booked_ns)
        .bind(end_of_day(latest, &found.zone)?)
        .bind(found.service.id.to_string())
        .execute(connection)
        .await?;
    Ok(())
}

/// A named change of a service.
enum Change<'a> {
    Cancel,
    Pay,
    Restrict,
    Suspend,
    Buy { quantity: i64 },
    Renew,
    Licence(&'a LicenceChange),
    Terminate,
    Clock { may_destroy: bool },
}

/// Why a change was not made: what its state would have to be.
type Obstacle = Option<&'static str>;

async fn cancel(connection: &mut AnyConnection, found: &Found, now_ns: i64) -> Result<Obstacle, ControlError> {
    let allowed = found.service.state == ServiceState::Ordered;
    let done = allowed && step(connection, &found.service, ServiceState::Cancelled, now_ns).await?;
    Ok((!done).then_some("only an order that is not paid can be cancelled; switch auto_renew off instead"))
}

async fn pay(connection: &mut AnyConnection, found: &Found, now_ns: i64) -> Result<Obstacle, ControlError> {
    let service = &found.service;
    match service.state {
        ServiceState::Ordered | ServiceState::Restricted | ServiceState::Suspended => {}
        ServiceState::Expired if service.renewal_ordered_ns.is_some() => begin_term(connection, found, now_ns).await?,
        ServiceState::Expired => return Ok(Some("renew or order it first, then mark that as paid")),
        _ => return Ok(Some("nothing of it waits for a payment")),
    }
    let done = step(connection, service, ServiceState::Active, now_ns).await?;
    Ok((!done).then_some("nothing of it waits for a payment"))
}

async fn restrict(connection: &mut AnyConnection, found: &Found, now_ns: i64) -> Result<Obstacle, ControlError> {
    let allowed = found.service.state == ServiceState::Active;
    let done = allowed && step(connection, &found.service, ServiceState::Restricted, now_ns).await?;
    Ok((!done).then_some("only an active one can be restricted"))
}

async fn suspend(connection: &mut AnyConnection, found: &Found, now_ns: i64) -> Result<Obstacle, ControlError> {
    let allowed = found.service.state == ServiceState::Restricted;
    let done = allowed && step(connection, &found.service, ServiceState::Suspended, now_ns).await?;
    Ok((!done).then_some("only a restricted one can be suspended"))
}

async fn buy(
    connection: &mut AnyConnection,
    found: &Found,
    quantity: i64,
    now_ns: i64,
) -> Result<Obstacle, ControlError> {
    check_covers_allocations(connection, &found.service, quantity).await?;
    let done = match found.service.state {
        ServiceState::Trial => {
            begin_term(connection, found, now_ns).await?;
            step(connection, &found.service, ServiceState::Active, now_ns).await?
        }
        ServiceState::Expired => order_renewal(connection, &found.service, now_ns).await?,
        _ => false,
    };
    if done {
        set_quantity(connection, &found.service.id, quantity).await?;
    }
    Ok((!done).then_some("a trial and an expired one can be ordered"))
}

async fn renew(connection: &mut AnyConnection, found: &Found, now_ns: i64) -> Result<Obstacle, ControlError> {
    let service = &found.service;
    match service.state {
        ServiceState::Active => {
            let opens_ns = service.expires_ns.saturating_sub(RENEWAL_OPENS_DAYS * DAY_NS);
            if now_ns < opens_ns {
                return Err(ControlError::LicenceExceeded(format!(
                    "the licence runs until {} and can be renewed from {} on",
                    service.expires_on,
                    day_of(opens_ns, &found.zone)?
                )));
            }
            begin_term(connection, found, service.expires_ns - 1).await?;
            Ok(None)
        }
        ServiceState::Expired => {
            let done = order_renewal(connection, service, now_ns).await?;
            Ok((!done).then_some("it has changed meanwhile"))
        }
        ServiceState::Trial => Ok(Some("a trial is ordered, not renewed")),
        _ => Ok(Some("an active and an expired one can be renewed")),
    }
}

async fn licence(
    connection: &mut AnyConnection,
    found: &Found,
    change: &LicenceChange,
    now_ns: i64,
) -> Result<Obstacle, ControlError> {
    let service = &found.service;
    if !service.state.is_given() {
        return Ok(Some("its licence can be changed while it is ordered, tried, active or restricted"));
    }
    if let Some(quantity) = change.quantity {
        check_covers_allocations(connection, service, quantity).await?;
        set_quantity(connection, &service.id, quantity).await?;
    }
    if let Some(day) = &change.expires_on {
        let terms = &found.product.terms;
        let term = term(service.licence, terms.trial_days, terms.term_months);
        let expires_ns = expiry(Some(day), service.first_booked_ns, term, &found.zone, now_ns)?;
        sqlx::query("UPDATE services SET expires_ns = $1 WHERE id = $2")
            .bind(expires_ns)
            .bind(service.id.to_string())
            .execute(&mut *connection)
            .await?;
    }
    if let Some(auto_renew) = change.auto_renew {
        if auto_renew && service.licence == Licence::Trial {
            return Err(ControlError::LicenceExceeded("auto_renew: a trial is ordered, not renewed".into()));
        }
        sqlx::query("UPDATE services SET auto_renew = $1 WHERE id = $2")
            .bind(i64::from(auto_renew))
            .bind(service.id.to_string())
            .execute(connection)
            .await?;
    }
    Ok(None)
}

async fn terminate(connection: &mut AnyConnection, found: &Found, now_ns: i64) -> Result<Obstacle, ControlError> {
    let allowed = matches!(found.service.state, ServiceState::Expired | ServiceState::Suspended);
    let done = allowed && step(connection, &found.service, ServiceState::Terminated, now_ns).await?;
    Ok((!done).then_some("only an expired or suspended one can be terminated"))
}

/// What time does to a service.
async fn clock(
    connection: &mut AnyConnection,
    found: &Found,
    may_destroy: bool,
    now_ns: i64,
) -> Result<Obstacle, ControlError> {
    let service = &found.service;
    let to = match service.state {
        ServiceState::Ordered => ServiceState::Cancelled,
        ServiceState::Active if service.auto_renew => {
            // Long behind (the server was off): the new term begins now.
            begin_term(connection, found, service.expires_ns.max(now_ns - DAY_NS) - 1).await?;
            return Ok(None);
        }
        ServiceState::Active | ServiceState::Trial => ServiceState::Expired,
        ServiceState::Expired | ServiceState::Suspended if may_destroy => ServiceState::Terminated,
        _ => return Ok(Some("it has changed meanwhile")),
    };
    let done = step(connection, service, to, now_ns).await?;
    Ok((!done).then_some("it has changed meanwhile"))
}

impl Control {
    /// Orders a service. The scope must reach the customer.
    pub async fn order_service(
        &self,
        scope: &Scope,
        actor: &Actor,
        new: &NewService,
        orderer: Option<&UserId>,
        now_ns: i64,
    ) -> Result<Service, ControlError> {
        self.tenant(scope, &new.tenant).await?;
        let mut transaction = self.write().await?;
        let id = insert_service(&mut transaction, actor, new, orderer, now_ns).await?;
        let made = find_service(&mut transaction, scope, &id).await?.service;
        transaction.commit().await?;
        Ok(made)
    }

    /// One service.
    pub async fn service(&self, scope: &Scope, id: &ServiceId) -> Result<Service, ControlError> {
        let mut connection = self.readers.acquire().await?;
        Ok(find_service(&mut connection, scope, id).await?.service)
    }

    /// Services that the scope reaches, oldest first, of one customer when given, at most `limit` behind `after`.
    pub async fn services(
        &self,
        scope: &Scope,
        tenant: Option<&TenantId>,
        after: Option<(i64, ServiceId)>,
        limit: u32,
    ) -> Result<Vec<Service>, ControlError> {
        let text = format!(
            "{SERVICES} WHERE (services.created_ns > $1 OR (services.created_ns = $1 AND services.id > $2)) \
             AND ($3 = '' OR services.tenant_id = $3) AND {} ORDER BY services.created_ns, services.id LIMIT $4",
            scope.service_condition("services.id", "services.tenant_id")
        );
        let (created_ns, id) = after.map_or((i64::MIN, String::new()), |(created_ns, id)| (created_ns, id.to_string()));
        let rows = sqlx::query(sqlx::AssertSqlSafe(text))
            .bind(created_ns)
            .bind(id)
            .bind(tenant.map(ToString::to_string).unwrap_or_default())
            .bind(i64::from(limit))
            .fetch_all(&self.readers)
            .await?;
        rows.iter().map(service).collect()
    }

    /// The frame of every change: find, change, compute quotas anew, write the audit entry, commit.
    async fn change_service(
        &self,
        scope: &Scope,
        actor: &Actor,
        id: &ServiceId,
        verb: &'static str,
        change: Change<'_>,
        now_ns: i64,
    ) -> Result<Service, ControlError> {
        let mut transaction = self.write().await?;
        let found = find_service(&mut transaction, scope, id).await?;
        let connection: &mut AnyConnection = &mut transaction;
        let obstacle = match change {
            Change::Cancel => cancel(connection, &found, now_ns).await?,
            Change::Pay => pay(connection, &found, now_ns).await?,
            Change::Restrict => restrict(connection, &found, now_ns).await?,
            Change::Suspend => suspend(connection, &found, now_ns).await?,
            Change::Buy { quantity } => buy(connection, &found, quantity, now_ns).await?,
            Change::Renew => renew(connection, &found, now_ns).await?,
            Change::Licence(change) => licence(connection, &found, change, now_ns).await?,
            Change::Terminate => terminate(connection, &found, now_ns).await?,
            Change::Clock { may_destroy } => clock(connection, &found, may_destroy, now_ns).await?,
        };
        if let Some(needed) = obstacle {
            return Err(wrong_state(&found.service, needed));
        }
        let after = find_service(&mut transaction, scope, id).await?.service;
        refresh_quotas(&mut transaction, &after.tenant, now_ns).await?;
        let deed = Deed {
            tenant: after.tenant,
            user: None,
            verb,
            object: format!("service {id}"),
            before: Some(as_json(&found.service)),
            after: Some(as_json(&after)),
        };
        record(&mut transaction, actor, deed, now_ns).await?;
        transaction.commit().await?;
        Ok(after)
    }

    /// `ordered` to `cancelled`.
    pub async fn cancel_service(
        &self,
        scope: &Scope,
        actor: &Actor,
        id: &ServiceId,
        now_ns: i64,
    ) -> Result<Service, ControlError> {
        self.change_service(scope, actor, id, "service.cancel", Change::Cancel, now_ns).await
    }

    /// A payment has come: `ordered`, `restricted`, `suspended`, and `expired` with a new term ordered, to `active`.
    pub async fn pay_service(
        &self,
        scope: &Scope,
        actor: &Actor,
        id: &ServiceId,
        now_ns: i64,
    ) -> Result<Service, ControlError> {
        self.change_service(scope, actor, id, "payment.confirm", Change::Pay, now_ns).await
    }

    /// `active` to `restricted`: an invoice is overdue.
    pub async fn restrict_service(
        &self,
        scope: &Scope,
        actor: &Actor,
        id: &ServiceId,
        now_ns: i64,
    ) -> Result<Service, ControlError> {
        self.change_service(scope, actor, id, "licence.manage", Change::Restrict, now_ns).await
    }

    /// `restricted` to `suspended`: an invoice is long overdue.
    pub async fn suspend_service(
        &self,
        scope: &Scope,
        actor: &Actor,
        id: &ServiceId,
        now_ns: i64,
    ) -> Result<Service, ControlError> {
        self.change_service(scope, actor, id, "licence.manage", Change::Suspend, now_ns).await
    }

    /// Buys what is tried or was: `trial` to `active`; an `expired` one waits for its payment.
    pub async fn buy_service(
        &self,
        scope: &Scope,
        actor: &Actor,
        id: &ServiceId,
        quantity: i64,
        now_ns: i64,
    ) -> Result<Service, ControlError> {
        check_quantity(quantity)?;
        self.change_service(scope, actor, id, "service.order", Change::Buy { quantity }, now_ns).await
    }

    /// A further term: begun at once behind the one that runs, ordered when that is over.
    pub async fn renew_service(
        &self,
        scope: &Scope,
        actor: &Actor,
        id: &ServiceId,
        now_ns: i64,
    ) -> Result<Service, ControlError> {
        self.change_service(scope, actor, id, "service.renew", Change::Renew, now_ns).await
    }

    /// Changes what the licence says. `verb`: on whose right.
    pub async fn change_licence(
        &self,
        scope: &Scope,
        actor: &Actor,
        id: &ServiceId,
        verb: &'static str,
        change: &LicenceChange,
        now_ns: i64,
    ) -> Result<Service, ControlError> {
        if let Some(quantity) = change.quantity {
            check_quantity(quantity)?;
        }
        self.change_service(scope, actor, id, verb, Change::Licence(change), now_ns).await
    }

    /// `expired` or `suspended` to `terminated`: what it stored is to be destroyed.
    pub async fn terminate_service(
        &self,
        scope: &Scope,
        actor: &Actor,
        id: &ServiceId,
        now_ns: i64,
    ) -> Result<Service, ControlError> {
        self.change_service(scope, actor, id, "service.terminate", Change::Terminate, now_ns).await
    }

    /// What time does to services by itself: orders that nobody paid are cancelled, licences that renew themselves do,
    /// the others expire, and what has ended long enough ago is terminated (with `may_destroy` only: the caller trusts
    /// the clock). Gives those that changed.
    pub async fn advance_services(
        &self,
        scope: &Scope,
        actor: &Actor,
        may_destroy: bool,
        now_ns: i64,
    ) -> Result<Vec<Service>, ControlError> {
        let mut moved = Vec::new();
        for id in self.services_due(may_destroy, now_ns).await? {
            let change = Change::Clock { may_destroy };
            let advanced = self.change_service(scope, actor, &id, "service.clock", change, now_ns).await;
            match advanced {
                Ok(service) => moved.push(service),
                Err(ControlError::WrongState { .. } | ControlError::NotFound { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(moved)
    }

    async fn services_due(&self, may_destroy: bool, now_ns: i64) -> Result<Vec<ServiceId>, ControlError> {
        let rows = sqlx::query(
            "SELECT services.id AS id FROM services JOIN products ON products.id = services.product_id \
             WHERE (services.state = 'ordered' AND services.state_ns <= $1) \
             OR (services.state IN ('active', 'trial') AND services.expires_ns <= $2) \
             OR ($3 = 1 AND services.state IN ('expired', 'suspended') AND services.renewal_ordered_ns IS NULL \
                 AND services.state_ns <= $2 - products.kept_days * $4) \
             ORDER BY services.id LIMIT $5",
        )
        .bind(now_ns.saturating_sub(UNPAID_DAYS * DAY_NS))
        .bind(now_ns)
        .bind(i64::from(may_destroy))
        .bind(DAY_NS)
        .bind(CLOCK_STEP)
        .fetch_all(&self.readers)
        .await?;
        rows.iter().map(|row| ServiceId::stored(&row.try_get::<String, _>("id")?)).collect()
    }
}

async fn order_renewal(connection: &mut AnyConnection, service: &Service, now_ns: i64) -> Result<bool, ControlError> {
    let ordered = sqlx::query("UPDATE services SET renewal_ordered_ns = $1 WHERE id = $2 AND state = 'expired'")
        .bind(now_ns)
        .bind(service.id.to_string())
        .execute(connection)
        .await?;
    Ok(ordered.rows_affected() == 1)
}

async fn set_quantity(connection: &mut AnyConnection, id: &ServiceId, quantity: i64) -> Result<(), ControlError> {
    sqlx::query("UPDATE services SET quantity = $1 WHERE id = $2")
        .bind(quantity)
        .bind(id.to_string())
        .execute(connection)
        .await?;
    Ok(())
}

/// A service never becomes smaller than what was given away of it.
async fn check_covers_allocations(
    connection: &mut AnyConnection,
    service: &Service,
    quantity: i64,
) -> Result<(), ControlError> {
    let given = allocated(connection, &service.id, service.unit, None).await?;
    if given <= capacity(service.unit, quantity) {
        return Ok(());
    }
    let least = match service.unit {
        Unit::Gib => (given + ((1 << 30) - 1)) >> 30,
        Unit::Computer | Unit::User => given,
    };
    Err(ControlError::LicenceExceeded(format!(
        "quantity: {quantity} {unit} is less than what users were given; the least is {least} {unit}, or take some back \
         first",
        unit = service.unit.as_str()
    )))
}
