//! A schedule understood: its slots, and what is to be done now.

use crate::{CRON_BYTES_MAX, Day, JITTER_MINUTES_MAX, Rule, Schedule, ScheduleError, Window};
use croner::Cron;
use croner::parser::{CronParser, Seconds, Year};
use jiff::tz::TimeZone;
use jiff::{Timestamp, Zoned};

/// A run that has not begun this long after it should have is missed, jitter not counted.
pub const OVERDUE_MINUTES: i64 = 15;
/// A run begins at its time when it begins no later than this behind it.
const PUNCTUAL_NS: i64 = 90 * SECOND_NS;
/// Beyond this a window is not waited for.
const WINDOW_HORIZON_NS: i64 = 5 * 366 * 24 * 60 * MINUTE_NS;
/// Slots further back than this are found from behind instead of one by one.
const LOOK_BACK_NS: i64 = 2 * 24 * 60 * MINUTE_NS;
const SECOND_NS: i64 = 1_000_000_000;
const MINUTE_NS: i64 = 60 * SECOND_NS;
/// Most fixed times that one cron expression is taken apart into.
const FIXED_TIMES_MAX: usize = 96;

/// What a plan does at a moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Due {
    /// Nothing by itself.
    Never,
    /// It waits.
    At {
        /// For this slot, nanoseconds since 1970.
        slot_ns: i64,
        /// Until then, or until something changes.
        start_ns: i64,
    },
    /// It runs.
    Now {
        /// For this slot.
        slot_ns: i64,
        /// Late, because nobody was there at its time.
        catch_up: bool,
    },
}

/// Minutes of a day: the first inside, and the first behind.
#[derive(Clone, Copy, Debug)]
struct DayPart {
    from: i32,
    to: i32,
}

impl DayPart {
    fn holds(self, minute: i32) -> bool {
        match self.from <= self.to {
            true => (self.from..self.to).contains(&minute),
            false => minute >= self.from || minute < self.to,
        }
    }
}

/// A schedule that has been checked.
#[derive(Clone, Debug)]
pub struct Timetable {
    crons: Vec<Cron>,
    zone: TimeZone,
    jitter_ns: i64,
    window: Option<DayPart>,
    catch_up: bool,
}

/// Minutes of the day of `HH:MM`.
fn minute_of(text: &str) -> Result<(u8, u8), ScheduleError> {
    let bad = || ScheduleError::Time(text.to_owned());
    let (hour, minute) = text.split_once(':').ok_or_else(bad)?;
    let number = |part: &str, max: u8| {
        let plain = part.len() == 2 && part.bytes().all(|byte| byte.is_ascii_digit());
        plain.then(|| part.parse::<u8>().ok()).flatten().filter(|number| *number <= max)
    };
    Ok((number(hour, 23).ok_or_else(bad)?, number(minute, 59).ok_or_else(bad)?))
}

fn day_part(window: &Window) -> Result<DayPart, ScheduleError> {
    let minute = |text: &str| minute_of(text).map(|(hour, minute)| i32::from(hour) * 60 + i32::from(minute));
    let part = DayPart { from: minute(&window.from)?, to: minute(&window.to)? };
    match part.from == part.to {
        true => Err(ScheduleError::Range { what: "window", rule: "longer than nothing: `from` and `to` differ" }),
        false => Ok(part),
    }
}

/// The expressions of a rule. Fixed times stand alone in theirs: only then the library treats them as such where the
/// clock changes.
fn expressions(rule: &Rule) -> Result<Vec<String>, ScheduleError> {
    Ok(match rule {
        Rule::Never => Vec::new(),
        Rule::Hour { minute } if *minute <= 59 => vec![format!("{minute} * * * *")],
        Rule::Hour { .. } => return Err(ScheduleError::Range { what: "minute", rule: "0 to 59" }),
        Rule::Day { at } => {
            let (hour, minute) = minute_of(at)?;
            vec![format!("{minute} {hour} * * *")]
        }
        Rule::Week { days, at } => {
            let (hour, minute) = minute_of(at)?;
            if days.is_empty() {
                return Err(ScheduleError::Range { what: "days", rule: "at least one day" });
            }
            let days: Vec<String> = days.iter().map(|day| weekday(*day).to_string()).collect();
            vec![format!("{minute} {hour} * * {}", days.join(","))]
        }
        Rule::Month { day, at } => {
            let (hour, minute) = minute_of(at)?;
            match day {
                0 => vec![format!("{minute} {hour} L * *")],
                1..=28 => vec![format!("{minute} {hour} {day} * *")],
                _ => return Err(ScheduleError::Range { what: "day", rule: "1 to 28, or 0 for the last day" }),
            }
        }
        Rule::Cron { expression } => fixed_times(expression)?,
    })
}

const fn weekday(day: Day) -> u8 {
    match day {
        Day::Sunday => 0,
        Day::Monday => 1,
        Day::Tuesday => 2,
        Day::Wednesday => 3,
        Day::Thursday => 4,
        Day::Friday => 5,
        Day::Saturday => 6,
    }
}

/// An expression whose minutes and hours are plain numbers is as many fixed times; any other stays whole.
fn fixed_times(expression: &str) -> Result<Vec<String>, ScheduleError> {
    let bad = |reason: &str| ScheduleError::Cron { expression: expression.to_owned(), reason: reason.to_owned() };
    if expression.len() > CRON_BYTES_MAX {
        return Err(bad("is longer than 100 bytes"));
    }
    let fields: Vec<&str> = expression.split_whitespace().collect();
    let [minutes, hours, rest @ ..] = fields.as_slice() else { return Ok(vec![expression.to_owned()]) };
    let numbers = |field: &str| -> Option<Vec<u8>> {
        field
            .split(',')
            .map(|part| part.parse().ok().filter(|_| part.bytes().all(|byte| byte.is_ascii_digit())))
            .collect()
    };
    match (rest.len(), numbers(minutes), numbers(hours)) {
        (3, Some(minutes), Some(hours)) if minutes.len() * hours.len() <= FIXED_TIMES_MAX => {
            let rest = rest.join(" ");
            let times = hours.iter().flat_map(|hour| minutes.iter().map(move |minute| (hour, minute)));
            Ok(times.map(|(hour, minute)| format!("{minute} {hour} {rest}")).collect())
        }
        _ => Ok(vec![expression.to_owned()]),
    }
}

impl Schedule {
    /// Understands the schedule. `now_ns` is asked for a slot: a schedule that never has one is refused.
    pub fn timetable(&self, now_ns: i64) -> Result<Timetable, ScheduleError> {
        let zone = TimeZone::get(&self.time_zone).map_err(|_| ScheduleError::Zone(self.time_zone.clone()))?;
        if self.jitter_minutes > JITTER_MINUTES_MAX {
            return Err(ScheduleError::Range { what: "jitter_minutes", rule: "0 to 720" });
        }
        let parser = CronParser::builder().seconds(Seconds::Disallowed).year(Year::Disallowed).build();
        let parse = |text: String| {
            parser.parse(&text).map_err(|error| ScheduleError::Cron {
                expression: match &self.rule {
                    Rule::Cron { expression } => expression.clone(),
                    _ => text,
                },
                reason: error.to_string(),
            })
        };
        let timetable = Timetable {
            crons: expressions(&self.rule)?.into_iter().map(parse).collect::<Result<_, _>>()?,
            zone,
            jitter_ns: i64::from(self.jitter_minutes) * MINUTE_NS,
            window: self.window.as_ref().map(day_part).transpose()?,
            catch_up: self.catch_up,
        };
        match timetable.crons.is_empty() || timetable.next_after(now_ns).is_some() {
            true => Ok(timetable),
            false => Err(ScheduleError::Empty),
        }
    }
}

impl Timetable {
    fn at(&self, ns: i64) -> Option<Zoned> {
        let timestamp = Timestamp::from_nanosecond(i128::from(ns)).ok()?;
        Some(timestamp.to_zoned(self.zone.clone()))
    }

    fn is_in_window(&self, time: &Zoned) -> bool {
        self.window.is_none_or(|window| window.holds(i32::from(time.hour()) * 60 + i32::from(time.minute())))
    }

    /// Whether a run may begin at this moment.
    pub fn may_begin_at(&self, ns: i64) -> bool {
        self.at(ns).is_some_and(|time| self.is_in_window(&time))
    }

    /// The first slot behind `after_ns`; `None` when there is none.
    pub fn next_after(&self, after_ns: i64) -> Option<i64> {
        let horizon = after_ns.saturating_add(WINDOW_HORIZON_NS);
        let mut from = self.at(after_ns)?;
        loop {
            // An expression whose search ends without a find has no slot.
            let next = self.crons.iter().filter_map(|cron| cron.find_next_occurrence(&from, false).ok()).min()?;
            let next_ns = i64::try_from(next.timestamp().as_nanosecond()).ok()?;
            if self.is_in_window(&next) {
                return Some(next_ns);
            }
            if next_ns > horizon {
                return None;
            }
            from = next;
        }
    }

    /// The last slot behind `after_ns` and not behind `now_ns`.
    fn latest(&self, after_ns: i64, now_ns: i64) -> Option<i64> {
        let mut latest = self.next_after(after_ns).filter(|slot| *slot <= now_ns)?;
        let near = now_ns.saturating_sub(LOOK_BACK_NS);
        if latest < near
            && let Some(nearer) = self.next_after(near).filter(|slot| *slot <= now_ns)
        {
            latest = nearer;
        }
        while let Some(next) = self.next_after(latest).filter(|slot| *slot <= now_ns) {
            latest = next;
        }
        Some(latest)
    }

    /// When the run for a slot begins: put off by a part of the jitter that `seed` (of the plan) and the slot decide.
    pub fn start_of(&self, slot_ns: i64, seed: u64) -> i64 {
        if self.jitter_ns == 0 {
            return slot_ns;
        }
        // splitmix64: well spread, and the same on every machine.
        let mut mixed = seed ^ (slot_ns as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^= mixed >> 31;
        let part = (i128::from(mixed) * i128::from(self.jitter_ns)) >> 64;
        slot_ns.saturating_add(i64::try_from(part).unwrap_or(0))
    }

    /// From when on the run for a slot is missed.
    pub fn overdue_of(&self, slot_ns: i64) -> i64 {
        slot_ns.saturating_add(self.jitter_ns).saturating_add(OVERDUE_MINUTES * MINUTE_NS)
    }

    /// What is to be done at `now_ns`, when everything up to `seen_ns` is seen to.
    pub fn due(&self, seen_ns: i64, now_ns: i64, seed: u64) -> Due {
        let next = |after_ns: i64| match self.next_after(after_ns) {
            Some(slot_ns) => Due::At { slot_ns, start_ns: self.start_of(slot_ns, seed) },
            None => Due::Never,
        };
        let Some(slot_ns) = self.latest(seen_ns, now_ns) else { return next(seen_ns.max(now_ns)) };
        let start_ns = self.start_of(slot_ns, seed);
        if now_ns < start_ns {
            return Due::At { slot_ns, start_ns };
        }
        if now_ns - start_ns <= PUNCTUAL_NS {
            return Due::Now { slot_ns, catch_up: false };
        }
        if !self.catch_up {
            return next(now_ns);
        }
        match self.may_begin_at(now_ns) {
            true => Due::Now { slot_ns, catch_up: true },
            // Asked again every minute until the window opens.
            false => Due::At { slot_ns, start_ns: now_ns.saturating_add(MINUTE_NS) },
        }
    }

    /// Slots behind `after_ns` and not behind `until_ns`, the last `max` of them, and the first one behind.
    pub fn between(&self, after_ns: i64, until_ns: i64, max: usize) -> (Vec<i64>, Option<i64>) {
        let mut slots = std::collections::VecDeque::new();
        let mut from = after_ns;
        loop {
            match self.next_after(from) {
                Some(slot) if slot <= until_ns => {
                    if slots.len() == max {
                        slots.pop_front();
                    }
                    slots.push_back(slot);
                    from = slot;
                }
                next => return (slots.into(), next),
            }
        }
    }
}
