//! The audit log: who did what to what, each entry bound to the one before by its hash.
//!
//! | call | right | answer |
//! |---|---|---|
//! | `GET /audit?since_ns=&until_ns=&actor=&object=&verb=&tenant=` | audit.view | page of [`AuditEntry`], newest first |
//! | `GET /audit/export?` the same, `after=&limit=` | audit.view | [`AuditEntry`] as JSON lines, oldest first |
//! | `GET /audit/chain` | operator | [`AuditChain`]: the whole log, hashed again |
//!
//! A hash is BLAKE3 in its mode for deriving keys, under the context `holdfast 2026-11 audit entry`, over the fields
//! `previous_hash`, `sequence`, `at_ns` (both as 8 bytes, little-endian), `actor`, `actor_name`, `address`, `verb`,
//! `object`, `tenant`, each with its length in bytes in front (8 bytes, little-endian), then `behalf_tenant`, `user`,
//! `before`, `after`, each as a field of one byte that says whether it is there and a field with its text.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Media type of an export: one JSON object in each line.
pub const JSON_LINES: &str = "application/x-ndjson";

/// An entry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AuditEntry {
    /// Its number in the log of the server, from 1, without gaps. Who sees a part of the log sees gaps.
    pub sequence: i64,
    /// When, nanoseconds since 1970.
    pub at_ns: i64,
    /// Id of the person or computer, or a word such as `local` or `server`.
    pub actor: String,
    /// Its name at that time.
    pub actor_name: String,
    /// The tenant on whose behalf somebody from above acted.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub behalf_tenant: Option<String>,
    /// From where: a network address, or `local`.
    pub address: String,
    /// Whose log it belongs into.
    pub tenant: String,
    /// The user it concerns.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub user: Option<String>,
    /// A verb of the permission matrix, or a name of what the server did by itself.
    pub verb: String,
    /// Kind and id of what it was done to.
    pub object: String,
    /// What it was: JSON as text, exactly as hashed.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub before: Option<String>,
    /// What it became: JSON as text, exactly as hashed.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub after: Option<String>,
    /// Hash of the entry before, hexadecimal.
    pub previous_hash: String,
    /// Hash over this entry and the one before, hexadecimal.
    pub hash: String,
}

/// What came of hashing the whole log again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AuditChain {
    /// Entries that fit, from the first on.
    pub entries: i64,
    /// Hash of the last entry there is. Kept elsewhere, it shows that the end of the log was not cut off.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub last_hash: Option<String>,
    /// The first entry that does not fit, when there is one.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub broken_at: Option<i64>,
}
