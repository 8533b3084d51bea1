//! Notices: what is wrong now, or was.
//!
//! | call | right | body | answer |
//! |---|---|---|---|
//! | `GET /notices?open=` | `notice.view` | - | page of [`Notice`], newest first |
//! | `GET /tenants/{tenant}/notice-settings` | `notice.view` | - | [`NoticeSettings`] |
//! | `PUT /tenants/{tenant}/notice-settings` | `notice.edit` | [`NoticeSettings`] | [`NoticeSettings`] |
//! | `PUT /profile/weekly-summary` | `self.edit` | [`WeeklySummary`] | - |

use crate::webhook::EventKind;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use utoipa::ToSchema;

/// Something that is wrong, or was: one per cause, from when it was seen until it was over.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Notice {
    /// Its id.
    pub id: String,
    /// Whom it concerns.
    pub tenant: String,
    /// Whom it concerns, besides the tenant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// Which kind of thing is wrong.
    pub kind: EventKind,
    /// What it is about, such as `plan 0123…`.
    pub cause: String,
    /// How bad, in the kind's own measure: percent of a quota; 1 to 4 for 30, 14, 7 and 1 days to the end of a service.
    pub level: i64,
    /// Figures and names, times as nanoseconds since 1970.
    pub facts: BTreeMap<String, String>,
    /// When it was seen first, nanoseconds since 1970.
    pub since_ns: i64,
    /// When it was over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub healed_ns: Option<i64>,
}

/// When a tenant's people are told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct NoticeSettings {
    /// After so many days without a backup where there should have been one, 1 to 365.
    pub stale_days: i64,
}

/// Whether somebody wants a mail on Mondays that sums up the week.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct WeeklySummary {
    /// Yes or no.
    pub wanted: bool,
}
