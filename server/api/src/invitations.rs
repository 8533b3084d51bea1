//! Invitations, security policies of tenants, recovery of accounts.
//!
//! | call | verb | body | answer |
//! |---|---|---|---|
//! | `GET, POST /tenants/{tenant}/invitations` | `user.invite` or `tenant.invite_child` | [`Invite`] | page of [`Invitation`]; [`SentInvitation`] |
//! | `POST /invitations/{invitation}/resend` | the same | - | [`SentInvitation`] |
//! | `DELETE /invitations/{invitation}` | the same | - | [`Invitation`] |
//! | `POST /invitations/look` | the link | [`LookAtInvitation`] | [`SeenInvitation`] |
//! | `POST /invitations/accept` | the link | [`AcceptInvitation`] | [`AcceptedInvitation`] |
//! | `GET, PUT /tenants/{tenant}/security` | `security.view`, `security.edit` | [`SecurityPolicy`] | [`Security`] |
//! | `POST /users/{user}/recovery` | `user.recover` | [`AskRecovery`] | [`Recovery`] |
//! | `GET /recoveries` | `user.recover` | - | page of [`Recovery`] |
//! | `POST /recoveries/{recovery}/approve` | `user.recover` | - | [`Recovery`] |
//! | `DELETE /recoveries/{recovery}` | `user.recover` | - | [`Recovery`] |

use crate::identity::Secret;
pub use crate::members::MemberRole;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// What somebody is invited to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum InvitationKind {
    /// To become a member of the tenant.
    #[default]
    User,
    /// To become the owner of a new customer below the tenant.
    Customer,
    /// To become the owner of a new partner below the tenant.
    Partner,
}

/// Where an invitation stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum InvitationState {
    /// Its link works.
    Sent,
    /// Somebody has come in by it.
    Accepted,
    /// Its time is over.
    Expired,
    /// Taken back.
    Revoked,
}

/// What a new customer gets at once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct OfferedService {
    /// Product id.
    pub product: String,
    /// `paid` or `trial`.
    pub licence: String,
    /// In the product's unit.
    pub quantity: i64,
    /// Last day, such as `2027-11-20`; the latest there may be when absent.
    #[serde(default)]
    pub expires_on: Option<String>,
    /// Renews itself at its end.
    #[serde(default)]
    pub auto_renew: bool,
}

/// Invites somebody.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Invite {
    /// To what.
    #[serde(default)]
    pub kind: InvitationKind,
    /// Mail address.
    pub email: String,
    /// Of a user: as what.
    #[serde(default)]
    pub role: Option<MemberRole>,
    /// Of a user: ids of groups of the tenant.
    #[serde(default)]
    pub groups: Vec<String>,
    /// Of a customer or partner: its title.
    #[serde(default)]
    pub title: Option<String>,
    /// Of a customer: what it gets at once.
    #[serde(default)]
    pub service: Option<OfferedService>,
    /// Language of the mail and of who comes in; English when absent.
    #[serde(default)]
    pub locale: Option<String>,
}

/// An invitation.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Invitation {
    /// Its id.
    pub id: String,
    /// Into which tenant, or below which.
    pub tenant: String,
    /// To what.
    pub kind: InvitationKind,
    /// To whom.
    pub email: String,
    /// As what.
    pub role: Option<MemberRole>,
    /// Ids of groups.
    pub groups: Vec<String>,
    /// Title of the tenant to be made.
    pub title: Option<String>,
    /// What it gets at once.
    pub service: Option<OfferedService>,
    /// Name of who sent it.
    pub inviter: String,
    /// Where it stands.
    pub state: InvitationState,
    /// Since when, nanoseconds since 1970.
    pub state_ns: i64,
    /// When its link stops working.
    pub expires_ns: i64,
    /// When it was made.
    pub created_ns: i64,
    /// User id of who came in by it.
    pub accepted_user: Option<String>,
}

/// An invitation just sent.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct SentInvitation {
    /// The invitation.
    pub invitation: Invitation,
    /// The link, for commands on the server's own machine only; everybody else's is in the mail, which proves the
    /// address.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub link: Option<Secret>,
}

/// Asks what a link is to.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct LookAtInvitation {
    /// `hfi_…`, from the link.
    pub secret: Secret,
}

/// What a link is to.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct SeenInvitation {
    /// To what.
    pub kind: InvitationKind,
    /// Title of the tenant: the one invited to, or the one to be made.
    pub tenant_title: String,
    /// To whom.
    pub email: String,
    /// As what.
    pub role: Option<MemberRole>,
    /// Name of who sent it.
    pub inviter: String,
    /// When the link stops working.
    pub expires_ns: i64,
    /// The mail address has an account: accepting asks for its password.
    pub has_account: bool,
}

/// Comes in by a link.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct AcceptInvitation {
    /// `hfi_…`, from the link.
    pub secret: Secret,
    /// Name for people, of somebody new.
    #[serde(default)]
    pub name: String,
    /// The password to set; of somebody with an account, the one it has.
    pub password: Secret,
    /// Code of the second factor, of an account that has one.
    #[serde(default)]
    pub code: Option<Secret>,
    /// Name in the IANA database, of somebody new; UTC when absent.
    #[serde(default)]
    pub time_zone: String,
}

/// Somebody has come in.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct AcceptedInvitation {
    /// User id.
    pub user: String,
    /// Id of the tenant: the one invited to, or the new one.
    pub tenant: String,
    /// The person's code, `aa123456-hf`.
    pub customer_code: String,
}

/// What a tenant asks of its people.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SecurityPolicy {
    /// Minutes without a request after which a login session ends, 5 to 480.
    pub idle_minutes: i64,
    /// `off`, `optional` or `required`.
    pub second_factor: String,
    /// From where those who belong to the tenant may come; empty = from anywhere.
    #[serde(default)]
    pub trusted_networks: Vec<String>,
}

/// A tenant's policy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Security {
    /// Its own.
    pub own: SecurityPolicy,
    /// With what the tenants above ask for.
    pub effective: SecurityPolicy,
}

/// Asks for the recovery of an account.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct AskRecovery {
    /// Mail address that the account gets.
    pub new_email: String,
    /// What is known of it, for the second operator and the audit log.
    pub reason: String,
}

/// A recovery.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Recovery {
    /// Its id.
    pub id: String,
    /// User id.
    pub user: String,
    /// Mail address that the account gets.
    pub new_email: String,
    /// What is known of it.
    pub reason: String,
    /// `asked` (a second operator must agree), `waiting`, `done` or `cancelled`.
    pub state: String,
    /// Since when, nanoseconds since 1970.
    pub state_ns: i64,
    /// Who asked for it.
    pub asked_by: String,
    /// Who agreed.
    pub approved_by: Option<String>,
    /// When it is carried out.
    pub due_ns: Option<i64>,
    /// When it was asked for.
    pub created_ns: i64,
}
