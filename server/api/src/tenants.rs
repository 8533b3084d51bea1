//! Tenants: platform > partner > customer.
//!
//! | call | verb | body | answer |
//! |---|---|---|---|
//! | `GET /tenants?kind=&limit=&after=` | `tenant.view` | - | [`Tenants`], by title |
//! | `POST /tenants` | `tenant.invite_child` on the parent | [`CreateTenant`] | [`Tenant`] |
//! | `GET /tenants/{tenant}` | `tenant.view` | - | [`Tenant`] |
//! | `PATCH /tenants/{tenant}` | `tenant.edit` | [`EditTenant`] | [`Tenant`] |
//! | `GET /tenants/{tenant}/export` | `tenant.export` | - | an object with a list for each kind of thing |
//! | `PUT /tenants/{tenant}/support-access` | `support_access.switch` | [`SupportAccess`] | [`Tenant`] |

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use utoipa::ToSchema;

/// What a tenant is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum TenantKind {
    /// The one at the root.
    Platform,
    /// Sells to customers.
    Partner,
    /// Has users.
    Customer,
}

/// Whether a tenant is in business.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum TenantState {
    /// It is.
    Active,
    /// Backups and restores are closed; its data stays until `delete_after_ns`, or for good without that.
    Disconnected,
    /// Its data is going, or is gone.
    Deleting,
}

/// A tenant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Tenant {
    /// Its id.
    pub id: String,
    /// What it is.
    pub kind: TenantKind,
    /// The one above; the platform has none.
    pub parent: Option<String>,
    /// For addresses such as CUSTOMER/USER; unique on the server.
    pub name: String,
    /// For people.
    pub title: String,
    /// Whether it is in business.
    pub state: TenantState,
    /// Since when.
    pub state_ns: i64,
    /// When the data of a disconnected one goes, unless it comes back before.
    pub delete_after_ns: Option<i64>,
    /// What stands on invoices.
    pub legal: BTreeMap<String, String>,
    /// How to reach it.
    pub contact: BTreeMap<String, String>,
    /// Language: `en`, `pl`, `de` or `pt`.
    pub locale: String,
    /// Name in the IANA database of time zones.
    pub time_zone: String,
    /// Until when those above may look into its content; 0: not at all.
    pub support_access_until_ns: i64,
    /// Creation.
    pub created_ns: i64,
}

/// Some tenants.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Tenants {
    /// By title.
    pub items: Vec<Tenant>,
    /// To be given as `after`; absent behind the last.
    pub next: Option<String>,
}

/// Makes a tenant.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct CreateTenant {
    /// Id of the one above; the platform when absent.
    #[serde(default)]
    pub parent: Option<String>,
    /// `partner` or `customer`.
    pub kind: TenantKind,
    /// For addresses such as CUSTOMER/USER; the id when absent.
    #[serde(default)]
    pub name: Option<String>,
    /// For people.
    pub title: String,
}

/// Changes what is known of a tenant; what is absent stays.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
pub struct EditTenant {
    /// For people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
    /// Language: `en`, `pl`, `de` or `pt`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub locale: Option<String>,
    /// Name in the IANA database of time zones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time_zone: Option<String>,
    /// What stands on invoices, as a whole: `name`, `street`, `postal_code`, `city`, `region`, `country`, `vat_id`,
    /// `registration_number`, `court`, `email`. Counts for invoices made from now on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub legal: Option<BTreeMap<String, String>>,
    /// How to reach it, as a whole: `name`, `email`, `phone`, `street`, `postal_code`, `city`, `region`, `country`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub contact: Option<BTreeMap<String, String>>,
}

/// Until when those above may look into the tenant's content.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SupportAccess {
    /// Nanoseconds since 1970; absent: not at all. The largest number is for good.
    #[serde(default)]
    pub until_ns: Option<i64>,
}
