//! Which snapshots stay. Pure: snapshots, policies and a time go in, a printable plan comes out, and what a dry run
//! shows is what is done. Each series is planned by itself. Periods are told in the policy's time zone: an hour that
//! happens twice when daylight saving ends is two hours, one that does not happen has no snapshot.
//!
//! Whatever a policy says, the newest snapshot of a series stays, and so does the newest one without warnings.

use jiff::Timestamp;
use jiff::tz::{TimeZone, TimeZoneDatabase};
use repo_format::id::SnapshotId;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// Snapshots of one computer under one name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Series {
    /// Name of the computer.
    pub computer: String,
    /// Name of the series.
    pub name: String,
}

/// How many snapshots of a series stay. A snapshot stays that any rule keeps; zero keeps none by that rule, and a
/// policy without rules keeps everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    /// The newest ones.
    pub last: u32,
    /// The newest of each of so many hours that have one, the newest hours first.
    pub hourly: u32,
    /// The same by days.
    pub daily: u32,
    /// The same by ISO weeks.
    pub weekly: u32,
    /// The same by months.
    pub monthly: u32,
    /// The same by years.
    pub yearly: u32,
    /// Everything not older than this, seconds.
    pub within_seconds: u64,
    /// Everything with one of these tags.
    pub tags: Vec<String>,
    /// IANA name of the time zone that periods are told in; empty is UTC.
    pub time_zone: String,
}

impl Policy {
    /// Whether nothing is ever expired by it.
    pub fn keeps_everything(&self) -> bool {
        let counts = [self.last, self.hourly, self.daily, self.weekly, self.monthly, self.yearly];
        counts.iter().all(|count| *count == 0) && self.within_seconds == 0 && self.tags.is_empty()
    }
}

/// Policies of a vault.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Policies {
    /// For series without one of their own; `None` keeps all of them.
    pub default: Option<Policy>,
    /// For single series.
    pub by_series: BTreeMap<Series, Policy>,
}

impl Policies {
    /// The policy of a series.
    pub fn of(&self, series: &Series) -> Option<&Policy> {
        self.by_series.get(series).or(self.default.as_ref())
    }
}

/// A snapshot as the rules see it. Softly deleted ones are no candidates: their own date ends them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// The snapshot.
    pub snapshot: SnapshotId,
    /// Where it belongs.
    pub series: Series,
    /// When it was committed, nanoseconds since 1970.
    pub committed_ns: i64,
    /// Something could not be read.
    pub has_warnings: bool,
    /// Its tags now.
    pub tags: Vec<String>,
    /// Nobody removes it before, nanoseconds since 1970.
    pub hold_until_ns: Option<i64>,
}

/// Why a snapshot stays.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reason {
    /// Its series has no policy, or one without rules.
    NoPolicy,
    /// The newest of its series, which always stays.
    Newest,
    /// The newest of its series without warnings, which always stays.
    NewestWithoutWarnings,
    /// One of the newest.
    Last,
    /// The newest of its hour.
    Hourly,
    /// The newest of its day.
    Daily,
    /// The newest of its ISO week.
    Weekly,
    /// The newest of its month.
    Monthly,
    /// The newest of its year.
    Yearly,
    /// Not old enough.
    Within,
    /// It has this tag.
    Tag(String),
}

/// What is to happen to a snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Stays, for at least one reason.
    Keep(Vec<Reason>),
    /// No rule keeps it, but it is held until then, nanoseconds since 1970.
    Held {
        /// End of the hold.
        until_ns: i64,
    },
    /// Goes.
    Expire,
}

/// One snapshot of a plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item {
    /// The snapshot.
    pub snapshot: SnapshotId,
    /// Where it belongs.
    pub series: Series,
    /// When it was committed, nanoseconds since 1970.
    pub committed_ns: i64,
    /// What is to happen to it.
    pub action: Action,
}

/// What retention does with a vault: every snapshot once, by series, the newest first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// In order.
    pub items: Vec<Item>,
}

/// A policy that cannot be applied.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RetentionError {
    /// Not in the time zone database.
    #[error("there is no time zone {0:?}; use a name like Europe/Warsaw")]
    UnknownTimeZone(String),
}

/// The time zone of that IANA name; empty is UTC. From the database that is built in, so that every server plans
/// alike.
fn time_zone(name: &str) -> Result<TimeZone, RetentionError> {
    if name.is_empty() {
        return Ok(TimeZone::UTC);
    }
    TimeZoneDatabase::bundled().get(name).map_err(|_| RetentionError::UnknownTimeZone(name.to_owned()))
}

/// Refuses a name that is in no time zone database.
pub fn check_time_zone(name: &str) -> Result<(), RetentionError> {
    time_zone(name).map(|_| ())
}

impl Plan {
    /// Applies `policies` at `now_ns` (nanoseconds since 1970).
    pub fn make(candidates: &[Candidate], policies: &Policies, now_ns: i64) -> Result<Plan, RetentionError> {
        let mut by_series: BTreeMap<&Series, Vec<&Candidate>> = BTreeMap::new();
        for candidate in candidates {
            by_series.entry(&candidate.series).or_default().push(candidate);
        }
        let mut items = Vec::with_capacity(candidates.len());
        for (series, mut snapshots) in by_series {
            snapshots.sort_by_key(|candidate| std::cmp::Reverse((candidate.committed_ns, candidate.snapshot)));
            let mut reasons = match policies.of(series).filter(|policy| !policy.keeps_everything()) {
                Some(policy) => apply(policy, &snapshots, now_ns)?,
                None => vec![vec![Reason::NoPolicy]; snapshots.len()],
            };
            if let Some(newest) = reasons.first_mut() {
                newest.push(Reason::Newest);
            }
            let sound = snapshots.iter().position(|candidate| !candidate.has_warnings);
            if let Some(newest) = sound.and_then(|index| reasons.get_mut(index)) {
                newest.push(Reason::NewestWithoutWarnings);
            }
            items.extend(
                snapshots.into_iter().zip(reasons).map(|(candidate, reasons)| item(candidate, reasons, now_ns)),
            );
        }
        Ok(Plan { items })
    }

    /// Snapshots that go.
    pub fn expired(&self) -> Vec<SnapshotId> {
        let expired = self.items.iter().filter(|item| item.action == Action::Expire);
        expired.map(|item| item.snapshot).collect()
    }
}

fn item(candidate: &Candidate, reasons: Vec<Reason>, now_ns: i64) -> Item {
    let action = match candidate.hold_until_ns.filter(|until_ns| *until_ns > now_ns) {
        _ if !reasons.is_empty() => Action::Keep(reasons),
        Some(until_ns) => Action::Held { until_ns },
        None => Action::Expire,
    };
    Item {
        snapshot: candidate.snapshot,
        series: candidate.series.clone(),
        committed_ns: candidate.committed_ns,
        action,
    }
}

/// A rule that keeps the newest snapshot of each period.
struct PeriodRule {
    count: usize,
    reason: Reason,
    period: fn(&LocalTime) -> Period,
    seen: BTreeSet<Period>,
}

/// Names a period; equal for times within the same one.
type Period = [i32; 5];

/// A moment as clocks on the wall show it.
struct LocalTime {
    time: jiff::civil::DateTime,
    offset_seconds: i32,
}

impl LocalTime {
    fn at(ns: i64, zone: &TimeZone) -> Self {
        // Every `i64` of nanoseconds lies within the range of timestamps.
        let moment = Timestamp::from_nanosecond(ns.into()).unwrap_or_default();
        let offset = zone.to_offset(moment);
        LocalTime { time: offset.to_datetime(moment), offset_seconds: offset.seconds() }
    }
    fn hour(&self) -> Period {
        let [year, month, day, ..] = self.day();
        // The offset tells the two hours apart that have the same name when clocks are set back.
        [year, month, day, self.time.hour().into(), self.offset_seconds]
    }
    fn day(&self) -> Period {
        [self.time.year().into(), self.time.month().into(), self.time.day().into(), 0, 0]
    }
    fn week(&self) -> Period {
        let week = self.time.date().iso_week_date();
        [week.year().into(), week.week().into(), 0, 0, 0]
    }
    fn month(&self) -> Period {
        [self.time.year().into(), self.time.month().into(), 0, 0, 0]
    }
    fn year(&self) -> Period {
        [self.time.year().into(), 0, 0, 0, 0]
    }
}

/// Reasons of every snapshot, the newest first.
fn apply(policy: &Policy, snapshots: &[&Candidate], now_ns: i64) -> Result<Vec<Vec<Reason>>, RetentionError> {
    let zone = time_zone(&policy.time_zone)?;
    let rule = |count: u32, reason, period| PeriodRule { count: count as usize, reason, period, seen: BTreeSet::new() };
    let mut rules = [
        rule(policy.hourly, Reason::Hourly, LocalTime::hour as fn(&LocalTime) -> Period),
        rule(policy.daily, Reason::Daily, LocalTime::day),
        rule(policy.weekly, Reason::Weekly, LocalTime::week),
        rule(policy.monthly, Reason::Monthly, LocalTime::month),
        rule(policy.yearly, Reason::Yearly, LocalTime::year),
    ];
    let within_ns = policy.within_seconds.saturating_mul(1_000_000_000);
    let mut all = Vec::with_capacity(snapshots.len());
    for (index, candidate) in snapshots.iter().enumerate() {
        let mut reasons = Vec::new();
        if index < policy.last as usize {
            reasons.push(Reason::Last);
        }
        let time = LocalTime::at(candidate.committed_ns, &zone);
        for rule in &mut rules {
            if rule.seen.len() < rule.count && rule.seen.insert((rule.period)(&time)) {
                reasons.push(rule.reason.clone());
            }
        }
        let age_ns = now_ns.saturating_sub(candidate.committed_ns).max(0).unsigned_abs();
        if within_ns > 0 && age_ns <= within_ns {
            reasons.push(Reason::Within);
        }
        let tagged = policy.tags.iter().filter(|tag| candidate.tags.contains(tag));
        reasons.extend(tagged.cloned().map(Reason::Tag));
        all.push(reasons);
    }
    Ok(all)
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Reason::NoPolicy => "no policy",
            Reason::Newest => "newest",
            Reason::NewestWithoutWarnings => "newest without warnings",
            Reason::Last => "last",
            Reason::Hourly => "hourly",
            Reason::Daily => "daily",
            Reason::Weekly => "weekly",
            Reason::Monthly => "monthly",
            Reason::Yearly => "yearly",
            Reason::Within => "within",
            Reason::Tag(tag) => return write!(f, "tag {tag}"),
        })
    }
}

impl fmt::Display for Item {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} ", utc(self.committed_ns), self.snapshot)?;
        match &self.action {
            Action::Keep(reasons) => {
                let reasons: Vec<String> = reasons.iter().map(Reason::to_string).collect();
                write!(f, "keep: {}", reasons.join(", "))
            }
            Action::Held { until_ns } => write!(f, "held until {}", utc(*until_ns)),
            Action::Expire => f.write_str("expire"),
        }
    }
}

impl fmt::Display for Plan {
    /// A line for each series, then one for each of its snapshots.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut series = None;
        for item in &self.items {
            if series != Some(&item.series) {
                writeln!(f, "{} {}", item.series.computer, item.series.name)?;
                series = Some(&item.series);
            }
            writeln!(f, "  {item}")?;
        }
        Ok(())
    }
}

fn utc(ns: i64) -> String {
    let moment = Timestamp::from_nanosecond(ns.into()).unwrap_or_default();
    moment.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

#[cfg(test)]
mod tests;
