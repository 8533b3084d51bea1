//! Products, services, allocations, contacts: wire types <-> use cases.

use crate::app::services::{AllocationList, Order, ServiceStep};
use crate::http::HttpState;
use crate::http::extract::{Caller, JsonBody};
use crate::http::page::{Page, id, named_id, next};
use crate::http::problem::Refusal;
use api::services::{
    Allocation, AllocationRefusal, Allocations, BuyService, EditProduct, ExportTerms, LicenceKind, OrderService,
    Product, ProductTerms, ProductUnit, Products, Service, ServiceContact, ServiceContacts, ServiceState, Services,
    SetAllocation, SetContact, SetLicence, SetQuantity,
};
use axum::Json;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use control::{ContactKind, LicenceChange, Share, Unit};
use serde::Deserialize;

type Answer<T> = Result<Json<T>, Refusal>;
type Created<T> = Result<(StatusCode, Json<T>), Refusal>;

const fn unit(unit: Unit) -> ProductUnit {
    match unit {
        Unit::Gib => ProductUnit::Gib,
        Unit::Computer => ProductUnit::Computer,
        Unit::User => ProductUnit::User,
    }
}

fn terms(terms: ProductTerms) -> control::ProductTerms {
    control::ProductTerms {
        name: terms.name,
        unit: match terms.unit {
            ProductUnit::Gib => Unit::Gib,
            ProductUnit::Computer => Unit::Computer,
            ProductUnit::User => Unit::User,
        },
        price_minor: terms.price_minor,
        currency: terms.currency,
        trial_users: terms.trial_users,
        trial_days: terms.trial_days,
        term_months: terms.term_months,
        overage_percent: terms.overage_percent,
        kept_days: terms.kept_days,
        exports: control::ExportTerms {
            wait_days: terms.exports.wait_days,
            kept_days: terms.exports.kept_days,
            is_automatic: terms.exports.is_automatic,
        },
        features: terms.features,
    }
}

fn product(product: control::Product) -> Product {
    let control::Product { id, terms, retired_ns, created_ns } = product;
    Product {
        id: id.to_string(),
        terms: ProductTerms {
            name: terms.name,
            unit: unit(terms.unit),
            price_minor: terms.price_minor,
            currency: terms.currency,
            trial_users: terms.trial_users,
            trial_days: terms.trial_days,
            term_months: terms.term_months,
            overage_percent: terms.overage_percent,
            kept_days: terms.kept_days,
            exports: ExportTerms {
                wait_days: terms.exports.wait_days,
                kept_days: terms.exports.kept_days,
                is_automatic: terms.exports.is_automatic,
            },
            features: terms.features,
        },
        retired_ns,
        created_ns,
    }
}

const fn service_state(state: control::ServiceState) -> ServiceState {
    match state {
        control::ServiceState::Ordered => ServiceState::Ordered,
        control::ServiceState::Trial => ServiceState::Trial,
        control::ServiceState::Active => ServiceState::Active,
        control::ServiceState::Restricted => ServiceState::Restricted,
        control::ServiceState::Suspended => ServiceState::Suspended,
        control::ServiceState::Expired => ServiceState::Expired,
        control::ServiceState::Cancelled => ServiceState::Cancelled,
        control::ServiceState::Terminated => ServiceState::Terminated,
    }
}

fn service(of: control::Service) -> Service {
    Service {
        id: of.id.to_string(),
        tenant: of.tenant.to_string(),
        product: of.product.to_string(),
        product_name: of.product_name,
        unit: unit(of.unit),
        licence: match of.licence {
            control::Licence::Paid => LicenceKind::Paid,
            control::Licence::Trial => LicenceKind::Trial,
        },
        quantity: of.quantity,
        first_booked_ns: of.first_booked_ns,
        expires_on: of.expires_on,
        expires_ns: of.expires_ns,
        latest_expires_on: of.latest_expires_on,
        auto_renew: of.auto_renew,
        state: service_state(of.state),
        state_ns: of.state_ns,
        renewal_ordered_ns: of.renewal_ordered_ns,
        takes_backups: of.state.takes_backups(),
        allows_restores: of.state.allows_restores(),
        created_ns: of.created_ns,
    }
}

/// What a user was given, and has stored.
pub(crate) fn given((of, used_bytes): (control::Allocation, u64)) -> Allocation {
    Allocation {
        user: of.user.to_string(),
        user_name: of.user_name,
        title: of.title,
        bytes: of.bytes,
        computers: of.computers,
        used_bytes,
        changed_ns: of.changed_ns,
    }
}

/// The figures of a refused allocation.
pub(crate) fn refused_allocation(refusal: &control::AllocationRefusal) -> AllocationRefusal {
    AllocationRefusal {
        service: refusal.service.to_string(),
        capacity: refusal.others.capacity,
        allocated: refusal.others.allocated,
        free: refusal.others.free(),
        requested: refusal.requested,
        stored_bytes: refusal.used_bytes,
    }
}

fn contacts(contacts: Vec<control::ServiceContact>) -> ServiceContacts {
    let contact = |of: control::ServiceContact| ServiceContact {
        kind: of.kind.as_str().to_owned(),
        user: of.user.to_string(),
        title: of.title,
        changed_ns: of.changed_ns,
    };
    ServiceContacts { items: contacts.into_iter().map(contact).collect() }
}

fn order(tenant: &str, body: OrderService) -> Result<Order, Refusal> {
    let OrderService { product, quantity, expires_on, auto_renew } = body;
    Ok(Order { tenant: id(tenant, "tenant")?, product, quantity, expires_on, auto_renew })
}

/// `?tenant=`.
#[derive(Debug, Default, Deserialize)]
pub(crate) struct Filter {
    tenant: Option<String>,
}

/// What can be bought.
#[utoipa::path(get, path = "/products", tag = "services", responses((status = 200, body = Products)))]
pub(crate) async fn products(State(state): State<HttpState>, Caller(caller): Caller) -> Answer<Products> {
    let products = state.app.products(&caller).await?;
    Ok(Json(Products { items: products.into_iter().map(product).collect() }))
}

/// Makes a product.
#[utoipa::path(post, path = "/products", tag = "services", request_body = ProductTerms,
    responses((status = 201, body = Product)))]
pub(crate) async fn create_product(
    State(state): State<HttpState>,
    Caller(caller): Caller,
    JsonBody(body): JsonBody<ProductTerms>,
) -> Created<Product> {
    Ok((StatusCode::CREATED, Json(product(state.app.create_product(&caller, &terms(body)).await?))))
}

/// Changes a product for what is booked from now on.
#[utoipa::path(put, path = "/products/{product}", tag = "services", request_body = EditProduct,
    params(("product" = String, Path, description = "Product id")), responses((status = 200, body = Product)))]
pub(crate) async fn edit_product(
    State(state): State<HttpState>,
    Caller(caller): Caller,
    Path(which): Path<String>,
    JsonBody(body): JsonBody<EditProduct>,
) -> Answer<Product> {
    let which = id(&which, "product")?;
    Ok(Json(product(state.app.edit_product(&caller, which, &terms(body.terms), body.retired).await?)))
}

/// Services that the caller sees, oldest first.
#[utoipa::path(get, path = "/services", tag = "services",
    params(("tenant" = Option<String>, Query, description = "Only this customer's"),
        ("limit" = Option<u32>, Query, description = "1 to 200; 50 when absent", minimum = 1, maximum = 200),
        ("after" = Option<String>, Query, description = "`next` of the page before")),
    responses((status = 200, body = Services)))]
pub(crate) async fn list(
    State(state): State<HttpState>,
    Caller(caller): Caller,
    Query(filter): Query<Filter>,
    Query(page): Query<Page>,
) -> Answer<Services> {
    let (limit, after) = (page.limit()?, page.after::<(i64, String)>()?);
    let after = match &after {
        Some((created_ns, service)) => Some((*created_ns, named_id(service, "after")?)),
        None => None,
    };
    let tenant = filter.tenant.as_deref().map(|tenant| named_id(tenant, "tenant")).transpose()?;
    let services = state.app.services(&caller, tenant, after, limit).await?;
    let next = next(&services, limit, |service| (service.created_ns, service.id.to_string()));
    Ok(Json(Services { items: services.into_iter().map(service).collect(), next }))
}

/// Orders a service for money; it waits for its payment.
#[utoipa::path(post, path = "/tenants/{tenant}/services", tag = "services", request_body = OrderService,
    params(("tenant" = String, Path, description = "Id of a customer")), responses((status = 201, body = Service)))]
pub(crate) async fn order_one(
    State(state): State<HttpState>,
    Caller(caller): Caller,
    Path(tenant): Path<String>,
    JsonBody(body): JsonBody<OrderService>,
) -> Created<Service> {
    let made = state.app.order_service(&caller, &order(&tenant, body)?).await?;
    Ok((StatusCode::CREATED, Json(service(made))))
}

/// Begins a trial: some users, some days, once for each customer and product.
#[utoipa::path(post, path = "/tenants/{tenant}/trials", tag = "services", request_body = OrderService,
    params(("tenant" = String, Path, description = "Id of a customer")), responses((status = 201, body = Service)))]
pub(crate) async fn begin_trial(
    State(state): State<HttpState>,
    Caller(caller): Caller,
    Path(tenant): Path<String>,
    JsonBody(body): JsonBody<OrderService>,
) -> Created<Service> {
    let made = state.app.begin_trial(&caller, &order(&tenant, body)?).await?;
    Ok((StatusCode::CREATED, Json(service(made))))
}

/// One service.
#[utoipa::path(get, path = "/services/{service}", tag = "services",
    params(("service" = String, Path, description = "Service id")), responses((status = 200, body = Service)))]
pub(crate) async fn show(
    State(state): State<HttpState>,
    Caller(caller): Caller,
    Path(which): Path<String>,
) -> Answer<Service> {
    Ok(Json(service(state.app.service(&caller, id(&which, "service")?).await?)))
}

/// Orders more or less; what is absent stays.
#[utoipa::path(put, path = "/services/{service}/quantity", tag = "services", request_body = SetQuantity,
    params(("service" = String, Path, description = "Service id")), responses((status = 200, body = Service)))]
pub(crate) async fn set_quantity(
    State(state): State<HttpState>,
    Caller(caller): Caller,
    Path(which): Path<String>,
    JsonBody(body): JsonBody<SetQuantity>,
) -> Answer<Service> {
    let which = id(&which, "service")?;
    Ok(Json(service(state.app.set_service_quantity(&caller, which, body.quantity, body.auto_renew).await?)))
}

/// Changes a licence; what is absent stays.
#[utoipa::path(put, path = "/services/{service}/licence", tag = "services", request_body = SetLicence,
    params(("service" = String, Path, description = "Service id")), responses((status = 200, body = Service)))]
pub(crate) async fn set_licence(
    State(state): State<HttpState>,
    Caller(caller): Caller,
    Path(which): Path<String>,
    JsonBody(body): JsonBody<SetLicence>,
) -> Answer<Service> {
    let SetLicence { quantity, expires_on, auto_renew } = body;
    let change = LicenceChange { quantity, expires_on, auto_renew };
    Ok(Json(service(state.app.set_licence(&caller, id(&which, "service")?, &change).await?)))
}

/// Buys what is tried or was: a trial becomes active, an expired service waits for its payment.
#[utoipa::path(post, path = "/services/{service}/order", tag = "services", request_body = BuyService,
    params(("service" = String, Path, description = "Service id")), responses((status = 200, body = Service)))]
pub(crate) async fn buy(
    State(state): State<HttpState>,
    Caller(caller): Caller,
    Path(which): Path<String>,
    JsonBody(body): JsonBody<BuyService>,
) -> Answer<Service> {
    Ok(Json(service(state.app.buy_service(&caller, id(&which, "service")?, body.quantity).await?)))
}

/// A further term: begun at once behind the one that runs, ordered when that is over.
#[utoipa::path(post, path = "/services/{service}/renew", tag = "services",
    params(("service" = String, Path, description = "Service id")), responses((status = 200, body = Service)))]
pub(crate) async fn renew(
    State(state): State<HttpState>,
    Caller(caller): Caller,
    Path(which): Path<String>,
) -> Answer<Service> {
    Ok(Json(service(state.app.step_service(&caller, id(&which, "service")?, ServiceStep::Renew).await?)))
}

/// Takes an order back that is not paid.
#[utoipa::path(post, path = "/services/{service}/cancel", tag = "services",
    params(("service" = String, Path, description = "Service id")), responses((status = 200, body = Service)))]
pub(crate) async fn cancel(
    State(state): State<HttpState>,
    Caller(caller): Caller,
    Path(which): Path<String>,
) -> Answer<Service> {
    Ok(Json(service(state.app.step_service(&caller, id(&which, "service")?, ServiceStep::Cancel).await?)))
}

/// A payment has come: what waits for it becomes active.
#[utoipa::path(post, path = "/services/{service}/pay", tag = "services",
    params(("service" = String, Path, description = "Service id")), responses((status = 200, body = Service)))]
pub(crate) async fn pay(
    State(state): State<HttpState>,
    Caller(caller): Caller,
    Path(which): Path<String>,
) -> Answer<Service> {
    Ok(Json(service(state.app.step_service(&caller, id(&which, "service")?, ServiceStep::Pay).await?)))
}

/// An invoice is overdue: no new backups, restores yes.
#[utoipa::path(post, path = "/services/{service}/restrict", tag = "services",
    params(("service" = String, Path, description = "Service id")), responses((status = 200, body = Service)))]
pub(crate) async fn restrict(
    State(state): State<HttpState>,
    Caller(caller): Caller,
    Path(which): Path<String>,
) -> Answer<Service> {
    Ok(Json(service(state.app.step_service(&caller, id(&which, "service")?, ServiceStep::Restrict).await?)))
}

/// An invoice is long overdue: log-in, payment and data export only.
#[utoipa::path(post, path = "/services/{service}/suspend", tag = "services",
    params(("service" = String, Path, description = "Service id")), responses((status = 200, body = Service)))]
pub(crate) async fn suspend(
    State(state): State<HttpState>,
    Caller(caller): Caller,
    Path(which): Path<String>,
) -> Answer<Service> {
    Ok(Json(service(state.app.step_service(&caller, id(&which, "service")?, ServiceStep::Suspend).await?)))
}

/// Ends a service that is expired or suspended for good: what it stored is destroyed.
#[utoipa::path(post, path = "/services/{service}/terminate", tag = "services",
    params(("service" = String, Path, description = "Service id")), responses((status = 200, body = Service)))]
pub(crate) async fn terminate(
    State(state): State<HttpState>,
    Caller(caller): Caller,
    Path(which): Path<String>,
) -> Answer<Service> {
    Ok(Json(service(state.app.step_service(&caller, id(&which, "service")?, ServiceStep::Terminate).await?)))
}

/// What users were given of a service, and what is left.
#[utoipa::path(get, path = "/services/{service}/allocations", tag = "services",
    params(("service" = String, Path, description = "Service id")), responses((status = 200, body = Allocations)))]
pub(crate) async fn allocations(
    State(state): State<HttpState>,
    Caller(caller): Caller,
    Path(which): Path<String>,
) -> Answer<Allocations> {
    let AllocationList { items, figures, used_bytes } = state.app.allocations(&caller, id(&which, "service")?).await?;
    Ok(Json(Allocations {
        items: items.into_iter().map(given).collect(),
        capacity: figures.capacity,
        allocated: figures.allocated,
        free: figures.free(),
        used_bytes,
    }))
}

/// Gives a user something in place of what it had; its vault is made with the first.
#[utoipa::path(put, path = "/services/{service}/allocations/{user}", tag = "services", request_body = SetAllocation,
    params(("service" = String, Path, description = "Service id"), ("user" = String, Path, description = "User id")),
    responses((status = 200, body = Allocation)))]
pub(crate) async fn set_allocation(
    State(state): State<HttpState>,
    Caller(caller): Caller,
    Path((which, user)): Path<(String, String)>,
    JsonBody(body): JsonBody<SetAllocation>,
) -> Answer<Allocation> {
    let (which, user) = (id(&which, "service")?, id(&user, "user")?);
    let share = Share { bytes: body.bytes, computers: body.computers };
    Ok(Json(given(state.app.set_allocation(&caller, which, user, &share).await?)))
}

/// Takes back what a user was given. What it stored stays.
#[utoipa::path(delete, path = "/services/{service}/allocations/{user}", tag = "services",
    params(("service" = String, Path, description = "Service id"), ("user" = String, Path, description = "User id")),
    responses((status = 204, description = "Taken back")))]
pub(crate) async fn remove_allocation(
    State(state): State<HttpState>,
    Caller(caller): Caller,
    Path((which, user)): Path<(String, String)>,
) -> Result<StatusCode, Refusal> {
    state.app.remove_allocation(&caller, id(&which, "service")?, id(&user, "user")?).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// The contacts of a service.
#[utoipa::path(get, path = "/services/{service}/contacts", tag = "services",
    params(("service" = String, Path, description = "Service id")), responses((status = 200, body = ServiceContacts)))]
pub(crate) async fn show_contacts(
    State(state): State<HttpState>,
    Caller(caller): Caller,
    Path(which): Path<String>,
) -> Answer<ServiceContacts> {
    Ok(Json(contacts(state.app.service_contacts(&caller, id(&which, "service")?).await?)))
}

/// Makes somebody a contact in another one's place.
#[utoipa::path(put, path = "/services/{service}/contacts/{kind}", tag = "services", request_body = SetContact,
    params(("service" = String, Path, description = "Service id"),
        ("kind" = String, Path, description = "admin, technical or billing")),
    responses((status = 200, body = ServiceContacts)))]
pub(crate) async fn set_contact(
    State(state): State<HttpState>,
    Caller(caller): Caller,
    Path((which, kind)): Path<(String, String)>,
    JsonBody(body): JsonBody<SetContact>,
) -> Answer<ServiceContacts> {
    let kind: ContactKind = id(&kind, "kind of contact")?;
    let user = named_id(&body.user, "user")?;
    Ok(Json(contacts(state.app.set_service_contact(&caller, id(&which, "service")?, kind, user).await?)))
}
