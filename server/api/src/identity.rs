//! Who somebody is: log-in, login sessions, the own profile, passwords, second factors, API tokens.
//!
//! | call | who | body | answer |
//! |---|---|---|---|
//! | `POST /login` | anyone | [`LogIn`] | [`LoggedIn`] |
//! | `DELETE /login` | a login session | - | - |
//! | `POST /login/step-up` | a login session | [`StepUp`] | [`SteppedUp`] |
//! | `GET, DELETE /login-sessions` | oneself | - | [`LoginSessions`]; [`EndedLogins`] |
//! | `DELETE /login-sessions/{session}` | oneself | - | - |
//! | `GET, PUT /profile` | oneself | [`EditProfile`] | [`Profile`] |
//! | `PUT /profile/password` | a login session | [`ChangePassword`] | - |
//! | `POST, DELETE /profile/second-factor` | oneself, stepped up | - | [`NewSecondFactor`]; - |
//! | `POST /profile/second-factor/confirm` | oneself, stepped up | [`ConfirmSecondFactor`] | [`RecoveryCodes`] |
//! | `POST /profile/recovery-codes` | oneself, stepped up | - | [`RecoveryCodes`] |
//! | `POST /password/forgotten` | anyone | [`ForgotPassword`] | - |
//! | `POST /password/reset` | the link | [`ResetPassword`] | - |
//! | `GET, POST /api-tokens` | oneself; stepped up | [`CreateApiToken`] | page of [`ApiToken`]; [`NewApiToken`] |
//! | `DELETE /api-tokens/{token}` | oneself | - | [`ApiToken`] |

use serde::{Deserialize, Serialize};
use std::fmt;
use utoipa::ToSchema;

/// A text that must not be logged.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(transparent)]
pub struct Secret(pub String);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// Logs somebody in.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct LogIn {
    /// Mail address or customer code.
    pub login: String,
    /// Password.
    pub password: Secret,
    /// Code of the second factor, or a recovery code; asked for with `second_factor_needed`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub code: Option<Secret>,
    /// What the caller is, for the list of login sessions.
    #[serde(default)]
    pub program: String,
}

/// Somebody who has logged in. The secret is shown this once.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct LoggedIn {
    /// Id of the login session.
    pub id: String,
    /// `hfs_…`, to send as bearer token.
    pub secret: Secret,
    /// User id.
    pub user: String,
    /// Id of the tenant where the person is at home.
    pub tenant: String,
    /// When the login session ends at the latest, nanoseconds since 1970.
    pub ends_ns: i64,
    /// Minutes without a request after which it ends.
    pub idle_minutes: i64,
    /// The security policy asks for a second factor: set one up, nothing else can be done before.
    pub second_factor_missing: bool,
    /// How many recovery codes are left, of somebody with a second factor.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub recovery_codes_left: Option<i64>,
}

/// Shows a fresh factor: exactly one of them.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct StepUp {
    /// Password.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub password: Option<Secret>,
    /// Code of the second factor, or a recovery code.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub code: Option<Secret>,
}

/// A fresh factor was shown.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct SteppedUp {
    /// Until when it counts, nanoseconds since 1970.
    pub until_ns: i64,
}

/// A login session.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct LoginSession {
    /// Its id.
    pub id: String,
    /// It is the one that asks.
    pub is_own: bool,
    /// Beginning, nanoseconds since 1970.
    pub created_ns: i64,
    /// Last use, or up to a minute before it.
    pub seen_ns: i64,
    /// When it ends at the latest.
    pub ends_ns: i64,
    /// From where it began.
    pub address: String,
    /// What the caller said it is.
    pub program: String,
}

/// The caller's login sessions.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct LoginSessions {
    /// The one used last first.
    pub items: Vec<LoginSession>,
}

/// Login sessions that were ended.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct EndedLogins {
    /// How many.
    pub ended: u64,
}

/// One role at one place.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct HeldRole {
    /// `operator`, `partner_admin`, `partner_group`, `customer_admin`, `admin_contact`, `technical_contact`,
    /// `billing_contact`, `backup_user` or `auditor`.
    pub role: String,
    /// Ids of the tenants where it counts.
    pub tenants: Vec<String>,
    /// Id of the service, of a contact.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub service: Option<String>,
    /// What a group gives.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub verbs: Vec<String>,
}

/// A person as that person sees it.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Profile {
    /// User id.
    pub id: String,
    /// Name within the tenant.
    pub name: String,
    /// Name for people.
    pub title: String,
    /// Id of the tenant where the person is at home.
    pub tenant: String,
    /// Title of that tenant.
    pub tenant_title: String,
    /// How the person logs in.
    pub email: Option<String>,
    /// Where notices go; the log-in address when absent.
    pub notify_email: Option<String>,
    /// Personal code, `aa123456-hf`.
    pub customer_code: Option<String>,
    /// Language tag.
    pub locale: String,
    /// Name in the IANA database.
    pub time_zone: String,
    /// Whether a second factor is set up.
    pub has_second_factor: bool,
    /// How many recovery codes are left.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub recovery_codes_left: Option<i64>,
    /// `off`, `optional` or `required`.
    pub second_factor: String,
    /// What the person holds.
    pub roles: Vec<HeldRole>,
    /// Last log-in, nanoseconds since 1970.
    pub last_login_ns: Option<i64>,
}

/// Changes a profile; what is absent stays.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
pub struct EditProfile {
    /// Name for people.
    #[serde(default)]
    pub title: Option<String>,
    /// Language tag.
    #[serde(default)]
    pub locale: Option<String>,
    /// Name in the IANA database.
    #[serde(default)]
    pub time_zone: Option<String>,
    /// Where notices go; an empty text: to the log-in address.
    #[serde(default)]
    pub notify_email: Option<String>,
}

/// Changes the password.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct ChangePassword {
    /// The present one.
    pub current: Secret,
    /// The new one: 12 characters or more, and none that is tried first.
    pub new: Secret,
}

/// Somebody has forgotten the password.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct ForgotPassword {
    /// Mail address or customer code.
    pub login: String,
}

/// Sets a password by the link in a mail.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct ResetPassword {
    /// `hfp_…`, from the link.
    pub secret: Secret,
    /// The new password.
    pub password: Secret,
}

/// A second factor that waits for its first code.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct NewSecondFactor {
    /// To type into an authenticator app, base 32.
    pub secret: Secret,
    /// The same as `otpauth://` URL, to be shown as a QR code.
    pub url: Secret,
}

/// The first code of a second factor.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct ConfirmSecondFactor {
    /// Six digits.
    pub code: Secret,
}

/// Codes that stand in for the second factor, each once. Shown this once.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct RecoveryCodes {
    /// Ten of them.
    pub codes: Vec<Secret>,
}

/// Creates an API token of the caller.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct CreateApiToken {
    /// Label for lists.
    pub name: String,
    /// Verbs of the permission matrix that the caller holds, such as `job.view`.
    pub verbs: Vec<String>,
    /// Nothing outside of this tenant and what is below it; the caller's own tenant when absent.
    #[serde(default)]
    pub tenant: Option<String>,
    /// Networks from which it works, such as `192.0.2.0/24`; empty = from anywhere.
    #[serde(default)]
    pub networks: Vec<String>,
    /// Seconds until it expires; absent = until revoked.
    #[serde(default)]
    pub valid_seconds: Option<u64>,
}

/// An API token.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct ApiToken {
    /// Its id.
    pub id: String,
    /// Label.
    pub name: String,
    /// Verbs.
    pub verbs: Vec<String>,
    /// Tenant id.
    pub tenant: String,
    /// Networks from which it works.
    pub networks: Vec<String>,
    /// Creation, nanoseconds since 1970.
    pub created_ns: i64,
    /// When it expires.
    pub expires_ns: Option<i64>,
    /// When it was revoked.
    pub revoked_ns: Option<i64>,
    /// Last use, to the minute.
    pub used_ns: Option<i64>,
}

/// A fresh API token; the secret is shown this once.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct NewApiToken {
    /// The token.
    pub token: ApiToken,
    /// `hfa_…`
    pub secret: Secret,
}
