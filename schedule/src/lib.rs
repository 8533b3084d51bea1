//! When a backup plan runs: a rule in a time zone ([`Schedule`], as it travels and is stored), and what follows from it
//! ([`Timetable`]). Reads no clock and draws no randomness: the time is an argument, so that agent and server, who both
//! reckon with it, come to the same moments.
//!
//! A *slot* is a moment at which the rule says that the plan runs. On days on which clocks change:
//!
//! - A fixed time that the clock skips (02:30 when 02:00 becomes 03:00) is run for at the first moment behind the gap.
//! - A fixed time that comes twice is run for once, the first time.
//! - `hourly`, and cron fields with `*`, ranges or steps, follow the clock: what is skipped is skipped, what comes twice
//!   runs twice, so that between two runs there is never more than there should be.
#![forbid(unsafe_code)]

mod timetable;

pub use timetable::{Due, OVERDUE_MINUTES, Timetable};

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Most minutes by which a start is spread.
pub const JITTER_MINUTES_MAX: u16 = 720;
/// Longest cron expression, bytes.
pub const CRON_BYTES_MAX: usize = 100;

/// A day of the week.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Day {
    /// Monday.
    Monday,
    /// Tuesday.
    Tuesday,
    /// Wednesday.
    Wednesday,
    /// Thursday.
    Thursday,
    /// Friday.
    Friday,
    /// Saturday.
    Saturday,
    /// Sunday.
    Sunday,
}

/// How often.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "every", rename_all = "snake_case")]
pub enum Rule {
    /// Only when somebody starts it.
    #[default]
    Never,
    /// At a minute of every hour.
    Hour {
        /// 0 to 59.
        minute: u8,
    },
    /// Once a day.
    Day {
        /// `HH:MM`.
        at: String,
    },
    /// On some days of the week.
    Week {
        /// At least one.
        days: Vec<Day>,
        /// `HH:MM`.
        at: String,
    },
    /// On a day of every month.
    Month {
        /// 1 to 28; 0 means the last day.
        day: u8,
        /// `HH:MM`.
        at: String,
    },
    /// By a cron expression: minute, hour, day of month, month, day of week.
    Cron {
        /// Five fields, or a word such as `@daily`.
        expression: String,
    },
}

/// A part of each day.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Window {
    /// `HH:MM`: its first minute.
    pub from: String,
    /// `HH:MM`: the first minute behind it; before `from` it is one of the next day.
    pub to: String,
}

/// When a plan runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Schedule {
    /// How often.
    pub rule: Rule,
    /// In which the rule's times are told: a name of the IANA database.
    #[serde(default = "utc")]
    pub time_zone: String,
    /// A start is put off by a part of this, another one for each slot, so that many computers do not come at once.
    #[serde(default)]
    pub jitter_minutes: u16,
    /// Runs begin inside it only: slots outside do not count, and what is made up for waits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub window: Option<Window>,
    /// Whether a run that the computer slept through is made up for as soon as it wakes; of several only the last.
    #[serde(default = "yes")]
    pub catch_up: bool,
}

impl Default for Schedule {
    fn default() -> Self {
        Schedule { rule: Rule::default(), time_zone: utc(), jitter_minutes: 0, window: None, catch_up: true }
    }
}

fn utc() -> String {
    "UTC".into()
}

const fn yes() -> bool {
    true
}

/// What is wrong with a schedule; for the person who wrote it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ScheduleError {
    /// Not a time of day.
    #[error("{0:?} is no time of day such as 02:30")]
    Time(String),
    /// A number outside its range.
    #[error("{what} must be {rule}")]
    Range {
        /// Which.
        what: &'static str,
        /// Its range.
        rule: &'static str,
    },
    /// No such zone.
    #[error("there is no time zone {0:?}")]
    Zone(String),
    /// Not a cron expression.
    #[error("cron expression {expression:?}: {reason}")]
    Cron {
        /// As written.
        expression: String,
        /// Why not.
        reason: String,
    },
    /// There is no moment that meets it.
    #[error("the schedule has no moment inside its window, or none at all")]
    Empty,
}
