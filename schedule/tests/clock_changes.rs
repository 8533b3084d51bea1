//! Slots on the days on which clocks change, against the wall clock; and what a plan does late.
#![allow(clippy::unwrap_used, reason = "a failure here is the failure of the test")]

use jiff::tz::TimeZone;
use jiff::{Timestamp, Zoned};
use schedule::{Day, Due, Rule, Schedule, ScheduleError, Timetable, Window};

const MINUTE_NS: i64 = 60_000_000_000;
const ZONES: [&str; 7] = [
    "UTC",
    "Europe/Berlin",
    "America/New_York",
    "Australia/Lord_Howe", // half an hour
    "Africa/Cairo",        // at midnight
    "Asia/Kathmandu",      // 05:45, never changed
    "America/Santiago",    // southern, at midnight
];

fn ns(text: &str) -> i64 {
    text.parse::<Timestamp>().unwrap().as_nanosecond() as i64
}

fn table(rule: Rule, zone: &str) -> Timetable {
    Schedule { rule, time_zone: zone.into(), ..Schedule::default() }.timetable(ns("2026-01-01T00:00:00Z")).unwrap()
}

fn cron(expression: &str, zone: &str) -> Timetable {
    table(Rule::Cron { expression: expression.into() }, zone)
}

fn day(at: &str) -> Rule {
    Rule::Day { at: at.into() }
}

/// Slots in a range, as UTC.
fn slots(table: &Timetable, from: &str, to: &str) -> Vec<String> {
    let (found, _) = table.between(ns(from) - 1, ns(to) - 1, 10_000);
    found.into_iter().map(|slot| Timestamp::from_nanosecond(i128::from(slot)).unwrap().to_string()).collect()
}

#[test]
fn a_time_that_is_skipped_runs_behind_the_gap_and_one_that_comes_twice_runs_once() {
    let berlin = table(day("02:30"), "Europe/Berlin");
    // 02:00 CET becomes 03:00 CEST at 01:00 UTC.
    assert_eq!(
        slots(&berlin, "2026-03-28T00:00:00Z", "2026-03-31T00:00:00Z"),
        ["2026-03-28T01:30:00Z", "2026-03-29T01:00:00Z", "2026-03-30T00:30:00Z"]
    );
    // 03:00 CEST becomes 02:00 CET at 01:00 UTC: 02:30 is at 00:30 and again at 01:30.
    assert_eq!(
        slots(&berlin, "2026-10-24T00:00:00Z", "2026-10-27T00:00:00Z"),
        ["2026-10-24T00:30:00Z", "2026-10-25T00:30:00Z", "2026-10-26T01:30:00Z"]
    );
    // Several fixed times in one expression are as many fixed times.
    let several = cron("30 1,2,3 * * *", "Europe/Berlin");
    assert_eq!(
        slots(&several, "2026-03-29T00:00:00Z", "2026-03-29T12:00:00Z"),
        ["2026-03-29T00:30:00Z", "2026-03-29T01:00:00Z", "2026-03-29T01:30:00Z"]
    );
    assert_eq!(
        slots(&several, "2026-10-24T22:00:00Z", "2026-10-25T12:00:00Z"),
        ["2026-10-24T23:30:00Z", "2026-10-25T00:30:00Z", "2026-10-25T02:30:00Z"]
    );
}

#[test]
fn an_hour_with_a_change_of_the_clock_fires_exactly_as_expected() {
    let every = cron("*/10 * * * *", "Europe/Berlin");
    let (spring, _) = every.between(ns("2026-03-29T00:29:00Z"), ns("2026-03-29T01:31:00Z"), 100);
    let expected: Vec<i64> = (0..=6).map(|step| ns("2026-03-29T00:30:00Z") + step * 10 * MINUTE_NS).collect();
    assert_eq!(spring, expected, "every ten minutes of real time, the hour that is not there left out");
    let hourly = table(Rule::Hour { minute: 30 }, "Europe/Berlin");
    assert_eq!(
        slots(&hourly, "2026-10-24T23:00:00Z", "2026-10-25T03:00:00Z"),
        ["2026-10-24T23:30:00Z", "2026-10-25T00:30:00Z", "2026-10-25T01:30:00Z", "2026-10-25T02:30:00Z"]
    );
    assert_eq!(
        slots(&hourly, "2026-03-29T00:00:00Z", "2026-03-29T03:00:00Z"),
        ["2026-03-29T00:30:00Z", "2026-03-29T01:30:00Z", "2026-03-29T02:30:00Z"]
    );
}

/// In every zone, for every quarter of an hour of the day, over the years: one slot on each day, in order, and at its
/// wall clock time wherever that exists.
#[test]
fn a_daily_rule_has_one_slot_on_each_day_whatever_clocks_do() {
    for zone in ZONES {
        let time_zone = TimeZone::get(zone).unwrap();
        for (hour, minute) in (0..24).flat_map(|hour| [(hour, 0), (hour, 15), (hour, 45)]) {
            let table = table(day(&format!("{hour:02}:{minute:02}")), zone);
            let (found, _) = table.between(ns("2025-12-31T23:59:00Z"), ns("2028-01-01T00:00:00Z"), 1000);
            let mut last: Option<Zoned> = None;
            for slot in found {
                let at = Timestamp::from_nanosecond(i128::from(slot)).unwrap().to_zoned(time_zone.clone());
                if let Some(last) = &last {
                    assert_eq!(last.date().tomorrow().unwrap(), at.date(), "{zone} {hour}:{minute} behind {last}");
                }
                let wall = at.date().at(hour, minute, 0, 0);
                match time_zone.to_ambiguous_zoned(wall).is_ambiguous() {
                    false => assert_eq!(at.datetime(), wall, "{zone}"),
                    true => {
                        let earliest = time_zone.to_ambiguous_zoned(wall).earlier().unwrap();
                        let later = time_zone.to_ambiguous_zoned(wall).later().unwrap();
                        assert!(at <= later && (at >= earliest), "{zone} {at} for {wall}");
                    }
                }
                last = Some(at);
            }
            assert!(last.is_some());
        }
    }
}

#[test]
fn presets_say_what_they_mean() {
    let weekly = Rule::Week { days: vec![Day::Saturday, Day::Sunday], at: "23:05".into() };
    assert_eq!(
        slots(&table(weekly, "UTC"), "2026-11-16T00:00:00Z", "2026-11-30T00:00:00Z"),
        ["2026-11-21T23:05:00Z", "2026-11-22T23:05:00Z", "2026-11-28T23:05:00Z", "2026-11-29T23:05:00Z"]
    );
    let last = Rule::Month { day: 0, at: "12:00".into() };
    assert_eq!(
        slots(&table(last, "UTC"), "2028-01-01T00:00:00Z", "2028-04-01T00:00:00Z"),
        ["2028-01-31T12:00:00Z", "2028-02-29T12:00:00Z", "2028-03-31T12:00:00Z"]
    );
    assert_eq!(table(Rule::Never, "UTC").next_after(0), None);
    assert_eq!(table(Rule::Never, "UTC").due(0, ns("2026-01-01T00:00:00Z"), 1), Due::Never);
    let windowed = Schedule {
        rule: Rule::Hour { minute: 0 },
        window: Some(Window { from: "22:00".into(), to: "01:00".into() }),
        ..Schedule::default()
    };
    assert_eq!(
        slots(&windowed.timetable(0).unwrap(), "2026-11-21T12:00:00Z", "2026-11-22T12:00:00Z"),
        ["2026-11-21T22:00:00Z", "2026-11-21T23:00:00Z", "2026-11-22T00:00:00Z"]
    );
}

#[test]
fn what_was_slept_through_is_made_up_for_once() {
    let hourly = Schedule { rule: Rule::Hour { minute: 0 }, ..Schedule::default() };
    let table = hourly.timetable(0).unwrap();
    let (before, now) = (ns("2026-11-21T10:00:00Z"), ns("2026-11-21T15:20:00Z"));
    assert_eq!(table.due(before, now, 1), Due::Now { slot_ns: ns("2026-11-21T15:00:00Z"), catch_up: true });
    // Seen to: the next one is waited for.
    let next = ns("2026-11-21T16:00:00Z");
    assert_eq!(table.due(ns("2026-11-21T15:00:00Z"), now, 1), Due::At { slot_ns: next, start_ns: next });
    assert_eq!(
        table.due(before, before + 60 * MINUTE_NS, 1),
        Due::Now { slot_ns: before + 60 * MINUTE_NS, catch_up: false }
    );
    // A long absence is one run, not hundreds.
    assert_eq!(
        table.due(before, before + 400 * 24 * 60 * MINUTE_NS + 5 * MINUTE_NS, 1),
        Due::Now { slot_ns: before + 400 * 24 * 60 * MINUTE_NS, catch_up: true }
    );
    let strict = Schedule { catch_up: false, ..hourly.clone() }.timetable(0).unwrap();
    assert_eq!(strict.due(before, now, 1), Due::At { slot_ns: next, start_ns: next });
    // Outside its window it waits for the window.
    let window = Some(Window { from: "20:00".into(), to: "22:00".into() });
    let nightly = Schedule { window, ..hourly }.timetable(0).unwrap();
    let yesterday = ns("2026-11-20T19:00:00Z");
    assert!(matches!(nightly.due(yesterday, now, 1), Due::At { slot_ns, .. } if slot_ns == ns("2026-11-20T21:00:00Z")));
    let evening = ns("2026-11-21T20:30:00Z");
    let due = Due::Now { slot_ns: ns("2026-11-21T20:00:00Z"), catch_up: true };
    assert_eq!(nightly.due(yesterday, evening, 1), due);
}

#[test]
fn jitter_spreads_starts_and_stays_within_its_bound() {
    let schedule = Schedule { rule: day("02:00"), jitter_minutes: 60, ..Schedule::default() };
    let table = schedule.timetable(0).unwrap();
    let slot = ns("2026-11-21T02:00:00Z");
    let mut tenths = [0u32; 10];
    for seed in 0..1000 {
        let start = table.start_of(slot, seed);
        assert_eq!(start, table.start_of(slot, seed));
        assert!((slot..slot + 60 * MINUTE_NS).contains(&start));
        tenths[((start - slot) / (6 * MINUTE_NS)) as usize] += 1;
        assert_eq!(table.due(slot - 1, start - 1, seed), Due::At { slot_ns: slot, start_ns: start });
        assert_eq!(table.due(slot - 1, start, seed), Due::Now { slot_ns: slot, catch_up: false });
    }
    assert!(tenths.iter().all(|count| (50..200).contains(count)), "{tenths:?}");
}

#[test]
fn what_cannot_be_meant_is_refused_with_its_reason() {
    let refused = |rule: Rule| Schedule { rule, ..Schedule::default() }.timetable(0).unwrap_err();
    assert!(matches!(refused(day("24:00")), ScheduleError::Time(_)));
    assert!(matches!(refused(day("2:30")), ScheduleError::Time(_)));
    assert!(matches!(refused(Rule::Hour { minute: 60 }), ScheduleError::Range { what: "minute", .. }));
    assert!(matches!(refused(Rule::Month { day: 29, at: "01:00".into() }), ScheduleError::Range { .. }));
    assert!(matches!(refused(Rule::Week { days: vec![], at: "01:00".into() }), ScheduleError::Range { .. }));
    for expression in ["", "* * * *", "* * * * * *", "61 * * * *", "a b c d e", "* * * * * * *"] {
        let error = refused(Rule::Cron { expression: expression.into() });
        assert!(matches!(&error, ScheduleError::Cron { .. }), "{expression}: {error}");
    }
    assert_eq!(refused(Rule::Cron { expression: "0 0 30 2 *".into() }), ScheduleError::Empty);
    let mars = Schedule { time_zone: "Mars/Base".into(), ..Schedule::default() };
    assert_eq!(mars.timetable(0).unwrap_err(), ScheduleError::Zone("Mars/Base".into()));
    let never = Schedule {
        rule: day("12:00"),
        window: Some(Window { from: "22:00".into(), to: "06:00".into() }),
        ..Schedule::default()
    };
    assert_eq!(never.timetable(0).unwrap_err(), ScheduleError::Empty);
}

#[test]
fn a_schedule_reads_back_as_it_was_written() {
    let text = r#"{"rule":{"every":"week","days":["monday"],"at":"02:30"},"time_zone":"Europe/Berlin","jitter_minutes":5,"catch_up":false}"#;
    let schedule: Schedule = serde_json::from_str(text).unwrap();
    assert_eq!(serde_json::to_string(&schedule).unwrap(), text);
    let short: Schedule = serde_json::from_str(r#"{"rule":{"every":"cron","expression":"@daily"}}"#).unwrap();
    assert!(short.catch_up && short.time_zone == "UTC");
    assert!(short.timetable(0).is_ok());
}
