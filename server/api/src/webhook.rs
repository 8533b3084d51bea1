//! Webhooks: being told by HTTP. Every delivery is a POST of JSON ([`Told`]) with the headers `holdfast-event`,
//! `holdfast-delivery` (the same at every try) and `holdfast-signature`: `t=SECONDS,v1=HEX`, where HEX is the
//! HMAC-SHA-256 of `SECONDS.BODY` under the webhook's secret. Any answer 2xx takes it; every other one, and none within
//! ten seconds, is tried again for a day.
//!
//! | call | verb | body | answer |
//! |---|---|---|---|
//! | `GET /webhooks` | webhook.view | - | page of [`Webhook`] |
//! | `POST /webhooks` | webhook.edit | [`CreateWebhook`] | [`NewWebhook`] with its secret, once |
//! | `GET /webhooks/{webhook}` | webhook.view | - | [`Webhook`] |
//! | `PUT /webhooks/{webhook}` | webhook.edit | [`ChangeWebhook`] | [`Webhook`] |
//! | `DELETE /webhooks/{webhook}` | webhook.edit | - | [`Webhook`] |
//! | `POST /webhooks/{webhook}/secret` | webhook.edit | - | [`NewWebhook`] with a new secret |
//! | `POST /webhooks/{webhook}/test` | webhook.edit | - | [`QueuedDelivery`] |
//! | `GET /webhooks/{webhook}/deliveries` | webhook.view | - | page of [`Delivery`], newest first |

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use utoipa::ToSchema;

/// What somebody can be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum EventKind {
    /// A backup has failed.
    BackupFailed,
    /// A backup did not start.
    BackupMissed,
    /// No backup has succeeded for days.
    BackupStale,
    /// Space runs out: at 80, 95 and 100 %.
    Quota,
    /// A service ends in 30, 14, 7 or 1 days.
    ServiceExpiring,
    /// A service does not do everything any more.
    ServiceState,
    /// What an earlier event was about is over.
    Healed,
    /// Somebody tries whether it works.
    Test,
}

/// A webhook.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Webhook {
    /// Its id.
    pub id: String,
    /// It tells of this tenant and those below it.
    pub tenant: String,
    /// Only of what is this user's.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub user: Option<String>,
    /// Where it goes.
    pub url: String,
    /// What it tells.
    pub events: Vec<EventKind>,
    /// Nothing is sent while it is not.
    pub active: bool,
    /// Since when nothing arrives.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub failing_since_ns: Option<i64>,
    /// When it was made.
    pub created_ns: i64,
}

/// Asks for a webhook, of a tenant or of a user.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct CreateWebhook {
    /// Of this tenant and those below it.
    #[serde(default)]
    pub tenant: Option<String>,
    /// Of what is this user's.
    #[serde(default)]
    pub user: Option<String>,
    /// Where it goes: https.
    pub url: String,
    /// What it tells, at least one.
    pub events: Vec<EventKind>,
}

/// Changes a webhook; what is absent stays.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
pub struct ChangeWebhook {
    /// Where it goes.
    #[serde(default)]
    pub url: Option<String>,
    /// What it tells.
    #[serde(default)]
    pub events: Option<Vec<EventKind>>,
    /// Whether anything is sent. What waited when it was paused is not sent later.
    #[serde(default)]
    pub active: Option<bool>,
}

/// A webhook and its secret, which is shown here and nowhere else.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct NewWebhook {
    /// The webhook.
    pub webhook: Webhook,
    /// What signs deliveries from now on.
    pub secret: String,
}

/// The body of a delivery.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Told {
    /// The delivery's id.
    pub id: String,
    /// What is told.
    pub event: EventKind,
    /// When it was seen.
    pub at_ns: i64,
    /// Whom it concerns.
    pub tenant: String,
    /// Whom it concerns, besides the tenant.
    pub user: Option<String>,
    /// Figures and names, times as nanoseconds.
    pub facts: BTreeMap<String, String>,
}

/// A delivery that waits now.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct QueuedDelivery {
    /// Its id.
    pub id: String,
}

/// Where a delivery is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum DeliveryState {
    /// Waiting, perhaps for another try.
    Queued,
    /// The other side has taken it.
    Delivered,
    /// Given up.
    Failed,
}

/// Something sent, or to be sent, to a webhook.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Delivery {
    /// Its id.
    pub id: String,
    /// What is told, by name.
    pub event: String,
    /// JSON, as sent.
    pub body: String,
    /// Where it is.
    pub state: DeliveryState,
    /// How often it was tried.
    pub tries: i64,
    /// When it is tried next, of a queued one.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub next_try_ns: Option<i64>,
    /// HTTP status answered last.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub last_status: Option<i64>,
    /// What went wrong last.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub last_error: Option<String>,
    /// When it was written.
    pub created_ns: i64,
    /// When it was delivered or given up.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub done_ns: Option<i64>,
}
