//! Who belongs to a tenant, who owns it, and groups of a partner's members.
//!
//! | call | verb | body | answer |
//! |---|---|---|---|
//! | `GET /tenants/{tenant}/members?limit=&after=` | `user.view` | - | [`Members`], by name |
//! | `PUT /tenants/{tenant}/members/{user}` | `user.invite` | [`SetRoles`] | [`Member`] |
//! | `DELETE /tenants/{tenant}/members/{user}` | `user.delete` | - | 204; only where the person is not at home |
//! | `POST /tenants/{tenant}/owner` | `owner.change` | [`OfferOwner`] | [`OwnerOffer`] |
//! | `POST /tenants/{tenant}/owner/accept` | `self.edit` | - | [`Member`]: the caller, now the owner |
//! | `POST /tenants/{tenant}/back-up-mine` | `allocation.set` | [`BackUpMine`] | [`crate::services::Allocation`] |
//! | `GET, POST /tenants/{tenant}/groups` | `group.view`, `group.manage` | [`GroupTerms`] | [`Groups`]; [`Group`] |
//! | `GET, PUT, DELETE /groups/{group}` | `group.view`, `group.manage` | [`GroupTerms`] | [`Group`]; 204 |
//! | `PUT, DELETE /groups/{group}/members/{user}` | `group.manage` | - | [`Group`] |

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// What a membership makes of somebody.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum MemberRole {
    /// Administers the tenant.
    Admin,
    /// Backs up own computers; at a partner: a plain member.
    User,
    /// Reads, no content.
    Auditor,
}

/// Somebody who belongs to a tenant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Member {
    /// User id.
    pub user: String,
    /// Id of the tenant where the person is at home.
    pub home: String,
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
    /// When the person last logged in.
    pub last_login_ns: Option<i64>,
    /// Creation.
    pub created_ns: i64,
}

/// Some members.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Members {
    /// By name.
    pub items: Vec<Member>,
    /// To be given as `after`; absent behind the last.
    pub next: Option<String>,
}

/// The roles of a member, as a whole.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct SetRoles {
    /// At least one.
    pub roles: Vec<MemberRole>,
}

/// Offers a tenant to one of its administrators.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct OfferOwner {
    /// User id.
    pub user: String,
}

/// An offer that waits to be accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct OwnerOffer {
    /// Until when.
    pub expires_ns: i64,
}

/// "I will back up my own computers".
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct BackUpMine {
    /// Service id.
    pub service: String,
    /// Space; absent of a service that is not sold by space.
    #[serde(default)]
    pub bytes: i64,
    /// Computers; absent: as many as wanted.
    #[serde(default)]
    pub computers: Option<i64>,
}

/// What a group gives.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct GroupTerms {
    /// Unique in the tenant.
    pub name: String,
    /// Names of verbs, such as `job.view`; only such as the caller holds.
    pub verbs: Vec<String>,
    /// For all customers of the partner, also those to come.
    #[serde(default)]
    pub all_customers: bool,
    /// Otherwise for these: ids.
    #[serde(default)]
    pub customers: Vec<String>,
}

/// A group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Group {
    /// Its id.
    pub id: String,
    /// Whose.
    pub tenant: String,
    /// What it gives.
    #[serde(flatten)]
    pub terms: GroupTerms,
    /// To whom: user ids.
    pub members: Vec<String>,
    /// Creation.
    pub created_ns: i64,
}

/// The groups of a partner.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Groups {
    /// By name.
    pub items: Vec<Group>,
}
