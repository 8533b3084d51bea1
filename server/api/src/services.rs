//! What customers buy and give to their users: products, services, allocations, contacts.
//!
//! | call | verb | body | answer |
//! |---|---|---|---|
//! | `GET /products` | `product.view` | - | [`Products`] |
//! | `POST /products` | `product.edit` | [`ProductTerms`] | [`Product`] |
//! | `PUT /products/{product}` | `product.edit` | [`EditProduct`] | [`Product`] |
//! | `GET /services?tenant=&limit=&after=` | `service.view` | - | [`Services`], oldest first |
//! | `POST /tenants/{tenant}/services` | `service.order` | [`OrderService`] | [`Service`], `ordered` |
//! | `POST /tenants/{tenant}/trials` | `licence.manage` | [`OrderService`] | [`Service`], `trial` |
//! | `GET /services/{service}` | `service.view` | - | [`Service`] |
//! | `PUT /services/{service}/quantity` | `service.order` | [`SetQuantity`] | [`Service`] |
//! | `PUT /services/{service}/licence` | `licence.manage` | [`SetLicence`] | [`Service`] |
//! | `POST /services/{service}/order` | `service.order` | [`BuyService`] | [`Service`]: a trial becomes active, an expired one waits for its payment |
//! | `POST /services/{service}/renew` | `service.renew` | - | [`Service`] |
//! | `POST /services/{service}/cancel` | `service.cancel` | - | [`Service`] |
//! | `POST /services/{service}/pay` | `payment.confirm` | - | [`Service`]: a payment has come |
//! | `POST /services/{service}/restrict`, `/suspend` | `licence.manage` | - | [`Service`] |
//! | `POST /services/{service}/terminate` | `service.terminate` | - | [`Service`]; what it stored is destroyed |
//! | `GET /services/{service}/allocations` | `allocation.view` | - | [`Allocations`] |
//! | `PUT /services/{service}/allocations/{user}` | `allocation.set` | [`SetAllocation`] | [`Allocation`] |
//! | `DELETE /services/{service}/allocations/{user}` | `allocation.set` | - | 204 |
//! | `GET /services/{service}/contacts` | `contact.view` | - | [`ServiceContacts`] |
//! | `PUT /services/{service}/contacts/{kind}` | `contact.set` | [`SetContact`] | [`ServiceContacts`] |
//!
//! A change that the state does not allow answers 409 `wrong_state`, one that the licence does not allow 409
//! `licence_exceeded` with its limit, an allocation above what is free 409 `allocation_exceeds_free` with
//! [`AllocationRefusal`].

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// By what a product is sold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ProductUnit {
    /// Space, GiB as stored.
    Gib,
    /// Computers.
    Computer,
    /// Users.
    User,
}

/// What a product is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ProductTerms {
    /// Unique name.
    pub name: String,
    /// By what it is sold.
    pub unit: ProductUnit,
    /// Price of one unit and term, in the currency's smallest unit.
    #[serde(default)]
    pub price_minor: i64,
    /// ISO 4217.
    #[serde(default = "euro")]
    pub currency: String,
    /// Most users that a trial protects.
    #[serde(default = "five")]
    pub trial_users: i64,
    /// How long a trial is good, days.
    #[serde(default = "thirty")]
    pub trial_days: i64,
    /// How long a paid licence is good at most, months behind its booking.
    #[serde(default = "twelve")]
    pub term_months: i64,
    /// Space above the quantity before the hard quota, percent.
    #[serde(default)]
    pub overage_percent: i64,
    /// How long the data of an ended service is kept, days.
    #[serde(default = "sixty")]
    pub kept_days: i64,
    /// Exports of databases.
    #[serde(default)]
    pub exports: ExportTerms,
    /// Names of what belongs to it.
    #[serde(default)]
    pub features: Vec<String>,
}

/// What a product says of exports of databases.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(default)]
pub struct ExportTerms {
    /// Days from one request to the next of the same plan.
    pub wait_days: i64,
    /// Days for which an export is there.
    pub kept_days: i64,
    /// Nobody has to release them.
    pub is_automatic: bool,
}

impl Default for ExportTerms {
    fn default() -> Self {
        ExportTerms { wait_days: 28, kept_days: 10, is_automatic: false }
    }
}

fn euro() -> String {
    "EUR".into()
}
const fn five() -> i64 {
    5
}
const fn thirty() -> i64 {
    30
}
const fn twelve() -> i64 {
    12
}
const fn sixty() -> i64 {
    60
}

/// A product.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Product {
    /// Its id.
    pub id: String,
    /// What it is.
    #[serde(flatten)]
    pub terms: ProductTerms,
    /// Since when it is not sold any more.
    pub retired_ns: Option<i64>,
    /// Creation.
    pub created_ns: i64,
}

/// All products.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Products {
    /// By name.
    pub items: Vec<Product>,
}

/// Changes a product for what is booked from now on.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct EditProduct {
    /// What it is.
    #[serde(flatten)]
    pub terms: ProductTerms,
    /// No longer sold.
    #[serde(default)]
    pub retired: bool,
}

/// How a service was bought.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum LicenceKind {
    /// For money.
    Paid,
    /// To try it.
    Trial,
}

/// Where a service stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ServiceState {
    /// Waits for its payment.
    Ordered,
    /// Is tried.
    Trial,
    /// Paid.
    Active,
    /// An invoice is overdue: no new backups, restores yes.
    Restricted,
    /// An invoice is long overdue: log-in, payment and data export only.
    Suspended,
    /// Its time is over: no new backups, restores yes.
    Expired,
    /// Was never paid.
    Cancelled,
    /// Its data is gone or going.
    Terminated,
}

/// A service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Service {
    /// Its id.
    pub id: String,
    /// Whose.
    pub tenant: String,
    /// Id of the product.
    pub product: String,
    /// Name of the product.
    pub product_name: String,
    /// In what it is counted.
    pub unit: ProductUnit,
    /// How it was bought.
    pub licence: LicenceKind,
    /// How much.
    pub quantity: i64,
    /// When the term that runs was booked.
    pub first_booked_ns: i64,
    /// Its last day, in the tenant's time zone.
    pub expires_on: String,
    /// The end of that day.
    pub expires_ns: i64,
    /// The last day that it may be good for.
    pub latest_expires_on: String,
    /// Renews itself at its end.
    pub auto_renew: bool,
    /// Where it stands.
    pub state: ServiceState,
    /// Since when.
    pub state_ns: i64,
    /// When a new term was ordered that waits for its payment.
    pub renewal_ordered_ns: Option<i64>,
    /// New backups are taken.
    pub takes_backups: bool,
    /// What is stored can be restored.
    pub allows_restores: bool,
    /// Creation.
    pub created_ns: i64,
}

/// Some services.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Services {
    /// Oldest first.
    pub items: Vec<Service>,
    /// To be given as `after`; absent behind the last.
    pub next: Option<String>,
}

/// Orders a service.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct OrderService {
    /// Id or name of the product; `backup` when absent.
    #[serde(default)]
    pub product: Option<String>,
    /// How much, in the product's unit; 100 when absent.
    #[serde(default)]
    pub quantity: Option<i64>,
    /// Its last day, such as `2027-11-21`; the latest there may be when absent.
    #[serde(default)]
    pub expires_on: Option<String>,
    /// Renews itself at its end.
    #[serde(default)]
    pub auto_renew: bool,
}

/// Buys what is tried or was.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, ToSchema)]
pub struct BuyService {
    /// How much, in the product's unit.
    pub quantity: i64,
}

/// Orders more or less; what is absent stays.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize, ToSchema)]
pub struct SetQuantity {
    /// How much, in the product's unit; never less than users were given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quantity: Option<i64>,
    /// Renews itself at its end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub auto_renew: Option<bool>,
}

/// Changes a licence; what is absent stays.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
pub struct SetLicence {
    /// How much, in the product's unit; never less than users were given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quantity: Option<i64>,
    /// Its last day; never behind `latest_expires_on`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_on: Option<String>,
    /// Renews itself at its end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub auto_renew: Option<bool>,
}

/// What one user was given of one service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Allocation {
    /// To whom.
    pub user: String,
    /// The user's name within the customer.
    pub user_name: String,
    /// The user's name for people.
    pub title: String,
    /// Space; zero of a service that is not sold by space.
    pub bytes: i64,
    /// Computers; absent: as many as wanted.
    pub computers: Option<i64>,
    /// What the user has stored, over all services.
    pub used_bytes: u64,
    /// Since when.
    pub changed_ns: i64,
}

/// What users were given of a service, and what is left; in bytes of one that is sold by space, else in its unit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Allocations {
    /// By user name.
    pub items: Vec<Allocation>,
    /// All of it.
    pub capacity: i64,
    /// Given to users.
    pub allocated: i64,
    /// Left.
    pub free: i64,
    /// What the customer has stored, bytes.
    pub used_bytes: u64,
}

/// Gives a user something in place of what it had.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize, ToSchema)]
pub struct SetAllocation {
    /// Space; absent of a service that is not sold by space.
    #[serde(default)]
    pub bytes: i64,
    /// Computers; absent: as many as wanted.
    #[serde(default)]
    pub computers: Option<i64>,
}

/// The figures of `allocation_exceeds_free`, beside the other members of its problem document: bytes of a service that
/// is sold by space, else in its unit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AllocationRefusal {
    /// The service.
    pub service: String,
    /// All of it.
    pub capacity: i64,
    /// Given to others.
    pub allocated: i64,
    /// Left for this user.
    pub free: i64,
    /// Asked for.
    pub requested: i64,
    /// What the customer has stored, bytes. No field may be named as one of [`crate::quota::QuotaFigures`]: both stand
    /// in one problem document.
    pub stored_bytes: u64,
}

/// A contact of a service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ServiceContact {
    /// `admin`, `technical` or `billing`.
    pub kind: String,
    /// Who.
    pub user: String,
    /// The person's name for people.
    pub title: String,
    /// Since when.
    pub changed_ns: i64,
}

/// The contacts of a service: one of each kind, or none before the customer has its first administrator.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ServiceContacts {
    /// By kind.
    pub items: Vec<ServiceContact>,
}

/// Makes somebody a contact in another one's place.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct SetContact {
    /// Id of a user of the customer, or of a tenant above it.
    pub user: String,
}
