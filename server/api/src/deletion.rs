//! Deleting vaults, and users with all their vaults, for good.
//!
//! | call | right | body | answer |
//! |---|---|---|---|
//! | `DELETE /vaults/{vault}?confirm=CUSTOMER/USER/VAULT` | operator | - | [`DeletedVault`] |
//! | `DELETE /users/{customer}/{user}?confirm=CUSTOMER/USER` | operator | - | [`DeletedUser`] |

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// What a deletion did: the only record of it, as the server keeps nothing that names the vault.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct DeletedVault {
    /// Vault id, hexadecimal.
    pub vault: String,
    /// As it was called: `CUSTOMER/USER/VAULT`, or the id when the accounts had forgotten it before.
    pub name: String,
    /// When it was decided, nanoseconds since 1970.
    pub decided_ns: i64,
    /// When the last trace was gone, nanoseconds since 1970.
    pub finished_ns: i64,
    /// Packs removed.
    pub packs: u64,
    /// Bytes of those packs.
    pub pack_bytes: u64,
    /// Tokens that stopped working.
    pub tokens: u64,
    /// Generation of the key-encryption key now in force: every copy of the keyring made before, in whatever backup of
    /// the server, still holds the vault's key, sealed by the master key.
    pub keyring_generation: u64,
}

/// A user is gone, with all vaults.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct DeletedUser {
    /// As `CUSTOMER/USER`.
    pub user: String,
    /// One receipt for every vault.
    pub vaults: Vec<DeletedVault>,
}
