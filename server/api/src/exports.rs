//! Exports: database dumps made ready for download over SFTP.
//!
//! | call | right | body | answer |
//! |---|---|---|---|
//! | `GET /exports?tenant=` | `export.view` | - | a page of [`Export`], the newest first |
//! | `POST /exports` | `export.request`, with step-up | [`RequestExport`] | [`Export`]; 409 `too_early` with the date within the days between two |
//! | `GET /exports/{export}` | `export.view` | - | [`Export`] |
//! | `POST /exports/{export}/release` | `export.release` | - | [`Export`], in progress |
//! | `POST /exports/{export}/refuse` | `export.release` | [`RefuseExport`] | [`Export`]; another one may be asked for at once |
//! | `GET /export-terms` | - | - | [`ExportTermsText`]: what is accepted with a key |
//! | `GET /exports/{export}/keys` | `export.view` | - | [`ExportKeys`] |
//! | `POST /exports/{export}/keys` | `export.download`, with step-up | [`NewExportKey`] | [`ExportAccess`]: host, user and key; the private key is in this answer and nowhere else |
//! | `DELETE /exports/{export}/keys/{key}` | `export.download`, with step-up | - | [`ExportKey`]; connections with it end within a minute |
//! | `GET /exports/{export}/downloads` | `export.view` | - | [`ExportDownloads`] |
//! | `GET /ssh-host-keys` | - | - | plain text: fingerprints, and lines for `known_hosts` |

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Where an export is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ExportState {
    /// Filed; the operator has to release it.
    AwaitingRelease,
    /// Being dumped and verified.
    InProgress,
    /// There to be downloaded.
    Ready,
    /// It was there, and its days have passed.
    Expired,
    /// It could not be prepared; another one may be asked for at once.
    ServerError,
    /// Something that this version does not know.
    InvalidValue,
}

/// Asks for an export.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct RequestExport {
    /// Id of the plan that dumps the database.
    pub plan: String,
    /// Take the newest complete dump while the agent is away, rather than wait for it.
    #[serde(default)]
    pub newest_will_do: bool,
}

/// Refuses one that waits to be released.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct RefuseExport {
    /// Why, for the customer.
    pub reason: String,
}

/// A file of an export.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ExportFile {
    /// Its name in the account's directory.
    pub name: String,
    /// Its length.
    pub size_bytes: u64,
    /// Of its content, hexadecimal.
    pub sha256: String,
}

/// An export.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Export {
    /// Id.
    pub id: String,
    /// Whose database: tenant id.
    pub tenant: String,
    /// In whose vault: user id.
    pub user: String,
    /// By which plan.
    pub plan: String,
    /// Who asked for it, for people.
    pub asked_by: String,
    /// The newest complete dump will do while the agent is away.
    pub newest_will_do: bool,
    /// Where it is.
    pub state: ExportState,
    /// Since when, nanoseconds since 1970.
    pub state_ns: i64,
    /// When it was asked for.
    pub requested_ns: i64,
    /// When the next one of this plan may be asked for.
    pub next_allowed_ns: i64,
    /// Id of the backup that makes the dump.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job: Option<String>,
    /// Bytes verified so far.
    pub bytes_done: u64,
    /// Of how many, once that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes_total: Option<u64>,
    /// What is there, from when it is ready.
    pub files: Vec<ExportFile>,
    /// When the database was dumped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dumped_ns: Option<i64>,
    /// When it became ready.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ready_ns: Option<i64>,
    /// Until when it is there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_ns: Option<i64>,
    /// Why it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// What to name to the operator.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reference: Option<String>,
}

/// The terms of download.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ExportTermsText {
    /// To be sent with a new key: the terms are accepted with it.
    pub version: String,
    /// What they say.
    pub text: String,
}

/// Wants a key.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct NewExportKey {
    /// The version of the terms that are accepted.
    pub terms_version: String,
    /// The customer's own public key, as OpenSSH writes it; absent: one is made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub public_key: Option<String>,
    /// Networks from which it is taken; anywhere when empty.
    #[serde(default)]
    pub networks: Vec<String>,
    /// Until when; at most, and when absent, until the export expires.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_ns: Option<i64>,
}

/// A key of an export.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ExportKey {
    /// Id.
    pub id: String,
    /// SHA-256, as OpenSSH writes it.
    pub fingerprint: String,
    /// The customer's own; otherwise it was made here and shown once.
    pub is_own: bool,
    /// Networks from which it is taken; anywhere when empty.
    pub networks: Vec<String>,
    /// Who made it, for people.
    pub created_by: String,
    /// When.
    pub created_ns: i64,
    /// Until when it is taken.
    pub expires_ns: i64,
    /// Which terms were accepted with it.
    pub terms_version: String,
    /// Since when it is not taken any more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revoked_ns: Option<i64>,
    /// When it was used last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub used_ns: Option<i64>,
    /// From where.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub used_address: Option<String>,
}

/// The keys of an export.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ExportKeys {
    /// The oldest first.
    pub items: Vec<ExportKey>,
}

/// How an export is downloaded.
#[derive(Clone, Serialize, Deserialize, ToSchema)]
pub struct ExportAccess {
    /// The key.
    pub key: ExportKey,
    /// Host name.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// User name.
    pub user: String,
    /// The private key as `.pem` (PKCS#1), where it was made here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pem: Option<String>,
    /// The same key as OpenSSH writes it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub openssh: Option<String>,
    /// The same key for PuTTY, WinSCP and FileZilla.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ppk: Option<String>,
    /// Lines for `known_hosts`.
    pub known_hosts: Vec<String>,
    /// Commands ready to copy, by program.
    pub commands: std::collections::BTreeMap<String, String>,
}

/// A download, whole or in part.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ExportDownload {
    /// Id.
    pub id: String,
    /// With which key: its id.
    pub key: String,
    /// From where.
    pub address: String,
    /// With which program, as it calls itself.
    pub program: String,
    /// Which file.
    pub path: String,
    /// Bytes sent.
    pub bytes: u64,
    /// Every byte of the file was sent.
    pub is_complete: bool,
    /// From when.
    pub began_ns: i64,
    /// To when.
    pub ended_ns: i64,
}

/// Downloads of an export.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ExportDownloads {
    /// The newest first, at most 200.
    pub items: Vec<ExportDownload>,
}
