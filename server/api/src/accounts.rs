//! Who am I, and administration until the panels exist.
//!
//! | call | right | body | answer |
//! |---|---|---|---|
//! | `GET /info` | none | - | [`Info`] |
//! | `GET /me` | any token | - | [`Me`] |
//! | `GET /vaults/{vault}/keys` | backup or restore | - | 192 bytes: id keys |
//! | `POST /operator-link/{secret}` | the link | - | [`NewToken`], once |
//! | `POST /operator-link` | operator | - | [`OperatorLink`]; links not yet used stop working |
//! | `GET, POST /customers` | operator | [`CreateCustomer`] | [`Customers`]; [`Customer`] |
//! | `GET, POST /users` | operator | [`CreateUser`] | [`Users`]; [`User`] |
//! | `GET, POST /vaults` | operator | [`CreateVault`] | [`Vaults`]; [`Vault`] |
//! | `GET, POST /tokens` | operator | [`CreateToken`] | [`Tokens`]; [`NewToken`] |
//! | `DELETE /tokens/{token}` | operator | - | [`TokenInfo`] |
//! | `GET /master-key` | operator | - | [`MasterKeyState`] |
//! | `POST /master-key/confirm` | operator | [`ConfirmMasterKey`] | [`MasterKeyState`] |

use crate::vault::VaultState;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// About the server, for anyone.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Info {
    /// `holdfast`.
    pub product: String,
    /// Version of the server.
    pub version: String,
    /// Protocol version.
    pub protocol: u32,
}

/// What a token may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Right {
    /// Administration of the whole server.
    Operator,
    /// Upload into the token's vault.
    Backup,
    /// Read the token's vault.
    Restore,
    /// Delete snapshots of the token's vault so that they can be brought back, and bring them back.
    Delete,
    /// Remove snapshots of the token's vault for good, at once or by retention.
    Purge,
    /// Shorten and lift holds in the token's vault.
    Hold,
}

/// The holder of a token.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Me {
    /// Token id; the computer's id when its agent asks.
    pub token: String,
    /// User name; absent for operator tokens.
    pub user: Option<String>,
    /// Vault id, hexadecimal; absent for operator tokens.
    pub vault: Option<String>,
    /// Vault name.
    pub vault_name: Option<String>,
    /// Rights.
    pub rights: Vec<Right>,
    /// When the token expires, nanoseconds since 1970.
    pub expires_ns: Option<i64>,
}

/// Creates a customer.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct CreateCustomer {
    /// Unique name.
    pub name: String,
}

/// A customer.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Customer {
    /// Unique name.
    pub name: String,
    /// Creation, nanoseconds since 1970.
    pub created_ns: i64,
}

/// Creates a user with a vault of its own.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct CreateUser {
    /// Unique name within the customer.
    pub name: String,
    /// Customer; `default` when absent, created when new.
    #[serde(default)]
    pub customer: Option<String>,
}

/// A user.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct User {
    /// Name.
    pub name: String,
    /// Customer.
    pub customer: String,
    /// Id of the first vault, hexadecimal, unless it was deleted.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub vault: Option<String>,
    /// Creation, nanoseconds since 1970.
    pub created_ns: i64,
}

/// Creates a further vault for a user.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct CreateVault {
    /// Unique name within the user.
    pub name: String,
    /// User (`CUSTOMER/USER` or `USER` of the default customer).
    pub user: String,
}

/// A vault and its ledger.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Vault {
    /// Vault id, hexadecimal.
    pub id: String,
    /// Name.
    pub name: String,
    /// User as `CUSTOMER/USER`.
    pub user: String,
    /// Creation, nanoseconds since 1970.
    pub created_ns: i64,
    /// What can be done with it.
    pub state: VaultState,
    /// Why it is not ready, and the way out.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub reason: Option<String>,
    /// Bytes in packs of all objects.
    pub physical_bytes: u64,
    /// Sum of file sizes over all snapshots.
    pub logical_bytes: u64,
    /// Bytes of objects nothing refers to yet.
    pub pending_bytes: u64,
    /// Snapshots.
    pub snapshots: u64,
}

/// Creates a token.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct CreateToken {
    /// Label for lists.
    pub name: String,
    /// Vault id; absent for `operator`.
    #[serde(default)]
    pub vault: Option<String>,
    /// Rights.
    pub rights: Vec<Right>,
    /// Seconds until it expires; absent = until revoked.
    #[serde(default)]
    pub valid_seconds: Option<u64>,
}

/// A fresh token; the secret is shown this once.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct NewToken {
    /// Token id, for lists and revocation.
    pub id: String,
    /// `hf_…`
    pub secret: String,
    /// Rights.
    pub rights: Vec<Right>,
    /// Vault.
    pub vault: Option<String>,
    /// When it expires, nanoseconds since 1970.
    pub expires_ns: Option<i64>,
}

/// A token in a list.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct TokenInfo {
    /// Token id.
    pub id: String,
    /// Label.
    pub name: String,
    /// Rights.
    pub rights: Vec<Right>,
    /// Vault.
    pub vault: Option<String>,
    /// Creation, nanoseconds since 1970.
    pub created_ns: i64,
    /// When it expires.
    pub expires_ns: Option<i64>,
    /// When it was revoked.
    pub revoked_ns: Option<i64>,
    /// Last use, to the minute.
    pub used_ns: Option<i64>,
}

/// All customers.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Customers {
    /// By name.
    pub customers: Vec<Customer>,
}

/// All users.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Users {
    /// By customer and name.
    pub users: Vec<User>,
}

/// All vaults.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Vaults {
    /// By user and name.
    pub vaults: Vec<Vault>,
}

/// All tokens.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Tokens {
    /// Oldest first.
    pub tokens: Vec<TokenInfo>,
}

/// A fresh operator link.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct OperatorLink {
    /// `POST` to it once; it answers [`NewToken`].
    pub url: String,
}

/// Whether the master key is known to stand on paper.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct MasterKeyState {
    /// Fingerprint of the key in use.
    pub fingerprint: String,
    /// When somebody confirmed it, nanoseconds since 1970.
    pub confirmed_ns: Option<i64>,
}

/// Confirms that the caller has read the master key from its recovery sheet.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct ConfirmMasterKey {
    /// Fingerprint of the key that was read.
    pub fingerprint: String,
}
