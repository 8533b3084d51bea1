//! How users and tenants go, and whether accounts and store agree.
//!
//! | call | verb | body | answer |
//! |---|---|---|---|
//! | `POST /users/{user}/disable`, `/enable` | `user.disable` | - | [`UserState`] |
//! | `DELETE /users/{user}` | `user.delete` | - | [`UserState`]; destroyed 30 days later |
//! | `POST /users/{user}/undelete` | `user.delete` | - | [`UserState`] |
//! | `POST /tenants/{tenant}/disconnect`, `/connect` | `tenant.disconnect` | - | [`crate::tenants::Tenant`] |
//! | `DELETE /tenants/{tenant}` | `tenant.delete` | - | [`crate::tenants::Tenant`]; destroyed 30 days later |
//! | `GET /removal-receipts` | `audit.view` | - | [`RemovalReceipts`] |
//! | `GET /accounts/check` | operator | - | [`AccountsCheck`] |
//! | `POST /accounts/repair` | operator | - | [`AccountsCheck`] |

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// What a step has made of a user.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct UserState {
    /// `active`, `disabled` or `deleted`.
    pub state: String,
}

/// Proof that a vault was destroyed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RemovalReceipt {
    /// Vault id.
    pub vault: String,
    /// Id of the user whose it was.
    pub user: String,
    /// Id of the user's tenant.
    pub tenant: String,
    /// What it was destroyed for.
    pub cause: String,
    /// When that was decided.
    pub decided_ns: i64,
    /// When nothing was left; absent while it is under way.
    pub finished_ns: Option<i64>,
    /// Packs removed, when the run that finished it counted them.
    pub packs: Option<i64>,
    /// Their bytes.
    pub pack_bytes: Option<i64>,
    /// Copies of the keyring of older generations, in backups of the data folder, still hold the vault's key.
    pub keyring_generation: Option<i64>,
}

/// Proofs of what was destroyed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RemovalReceipts {
    /// Oldest first.
    pub items: Vec<RemovalReceipt>,
}

/// A difference between accounts and store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AccountsDifference {
    /// `half_done_deletion`, `keys_without_vault`, `data_without_account`, `vault_without_keys`, `open_receipt`,
    /// `allocation_without_vault`, `quota_differs` or `removal_due`.
    pub kind: String,
    /// Kind and id of what it is about.
    pub object: String,
    /// What it is, and the way out.
    pub detail: String,
    /// Whether it was put right just now.
    pub repaired: bool,
}

/// Whether accounts and store agree.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AccountsCheck {
    /// Nothing: they do.
    pub items: Vec<AccountsDifference>,
}
