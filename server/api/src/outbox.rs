//! The outbox: what became of mails. Never what they say, for links in them are secrets.
//!
//! | call | verb | body | answer |
//! |---|---|---|---|
//! | `GET /outbox?state=` | outbox.view | - | page of [`OutboxMail`], newest first |
//! | `POST /outbox/{mail}/retry` | outbox.edit | - | [`OutboxMail`]: tried at once |
//! | `POST /outbox/{mail}/cancel` | outbox.edit | - | [`OutboxMail`]: taken back |
//! | `POST /outbox/test` | outbox.edit | [`TestMail`] | [`QueuedMail`] |

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Where a mail is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum MailState {
    /// Waiting, perhaps for another try.
    Queued,
    /// A mail server has taken it.
    Sent,
    /// Refused for good, or too old.
    Failed,
    /// An operator took it back.
    Cancelled,
}

/// A mail.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct OutboxMail {
    /// Its id, also the first part of its message id.
    pub id: String,
    /// The tenant whose matter it is; absent: the platform's own.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub tenant: Option<String>,
    /// To whom.
    pub address: String,
    /// What it says, by name.
    pub template: String,
    /// Language.
    pub locale: String,
    /// Where it is.
    pub state: MailState,
    /// How often it was tried.
    pub tries: i64,
    /// When it is tried next, of a queued one.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub next_try_ns: Option<i64>,
    /// What the mail server said last.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub last_error: Option<String>,
    /// When it was written.
    pub created_ns: i64,
    /// When it was sent, given up or cancelled.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub done_ns: Option<i64>,
}

/// Asks for a mail that says that mail works.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct TestMail {
    /// To whom.
    pub to: String,
    /// Language tag; English when absent.
    #[serde(default)]
    pub locale: Option<String>,
}

/// A mail that waits now.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct QueuedMail {
    /// Its id.
    pub id: String,
}
