//! Every rule, both ends of daylight saving, leap years, and what no policy may ever do.

use super::*;
use jiff::civil;
use proptest::prelude::*;

fn series() -> Series {
    Series { computer: "laptop".into(), name: "/home".into() }
}

fn ns(text: &str) -> i64 {
    text.parse::<Timestamp>().unwrap().as_nanosecond() as i64
}

/// Candidates of one series at these moments; ids count from 1.
fn candidates(times: &[&str]) -> Vec<Candidate> {
    let at = |(index, time): (usize, &&str)| candidate(index as u8 + 1, ns(time));
    times.iter().enumerate().map(at).collect()
}

fn candidate(number: u8, committed_ns: i64) -> Candidate {
    Candidate {
        snapshot: SnapshotId::from_bytes([number; 16]),
        series: series(),
        committed_ns,
        has_warnings: false,
        tags: Vec::new(),
        hold_until_ns: None,
    }
}

fn policies(policy: Policy) -> Policies {
    Policies { default: Some(policy), by_series: BTreeMap::new() }
}

/// The actions of the plan, oldest first, as words.
fn plan(candidates: &[Candidate], policy: Policy, now: &str) -> Vec<String> {
    let plan = Plan::make(candidates, &policies(policy), ns(now)).unwrap();
    let text = plan.to_string();
    let mut lines: Vec<String> = text.lines().skip(1).map(|line| line.trim_start()[54..].to_owned()).collect();
    lines.reverse();
    lines
}

const NEWEST: &str = "keep: newest, newest without warnings";

#[test]
fn a_plan_is_printed_by_series_the_newest_first() {
    let mut all = candidates(&["2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z", "2026-01-03T00:00:00Z"]);
    all[0].hold_until_ns = Some(ns("2027-01-01T00:00:00Z"));
    all.push(Candidate { series: Series { name: "/etc".into(), ..series() }, ..candidate(9, 0) });
    let plan =
        Plan::make(&all, &policies(Policy { last: 1, ..Policy::default() }), ns("2026-02-01T00:00:00Z")).unwrap();
    assert_eq!(
        plan.to_string(),
        "laptop /etc\n  \
           1970-01-01T00:00:00Z 09090909090909090909090909090909 keep: last, newest, newest without warnings\n\
         laptop /home\n  \
           2026-01-03T00:00:00Z 03030303030303030303030303030303 keep: last, newest, newest without warnings\n  \
           2026-01-02T00:00:00Z 02020202020202020202020202020202 expire\n  \
           2026-01-01T00:00:00Z 01010101010101010101010101010101 held until 2027-01-01T00:00:00Z\n"
    );
    assert_eq!(plan.expired(), [SnapshotId::from_bytes([2; 16])]);
}

#[test]
fn last_keeps_the_newest_ones() {
    let all = candidates(&["2026-01-01T00:00:00Z", "2026-01-01T00:00:01Z", "2026-01-01T00:00:02Z"]);
    let kept = plan(&all, Policy { last: 2, ..Policy::default() }, "2026-01-01T00:00:03Z");
    assert_eq!(kept, ["expire", "keep: last", "keep: last, newest, newest without warnings"]);
}

#[test]
fn periods_keep_their_newest_and_empty_periods_do_not_count() {
    let all = candidates(&[
        "2026-01-01T10:00:00Z",
        "2026-01-01T11:00:00Z",
        "2026-01-05T09:00:00Z",
        "2026-01-05T09:59:59Z",
        "2026-01-09T00:00:00Z",
    ]);
    let daily = plan(&all, Policy { daily: 3, ..Policy::default() }, "2026-01-09T00:00:00Z");
    let newest = "keep: daily, newest, newest without warnings";
    assert_eq!(daily, ["expire", "keep: daily", "expire", "keep: daily", newest]);
    let hourly = plan(&all, Policy { hourly: 3, ..Policy::default() }, "2026-01-09T00:00:00Z");
    let newest = "keep: hourly, newest, newest without warnings";
    assert_eq!(hourly, ["expire", "keep: hourly", "expire", "keep: hourly", newest]);
}

#[test]
fn several_rules_keep_for_several_reasons() {
    let all = candidates(&["2025-12-31T23:00:00Z", "2026-01-01T01:00:00Z", "2026-01-01T02:00:00Z"]);
    let policy = Policy { hourly: 9, daily: 9, weekly: 9, monthly: 9, yearly: 9, ..Policy::default() };
    let all = plan(&all, policy, "2026-01-01T02:00:00Z");
    // The three lie in one ISO week, which begins in one year and ends in the next.
    assert_eq!(all[0], "keep: hourly, daily, monthly, yearly");
    assert_eq!(all[1], "keep: hourly");
    assert_eq!(all[2], "keep: hourly, daily, weekly, monthly, yearly, newest, newest without warnings");
}

#[test]
fn weeks_are_iso_weeks() {
    // Sunday and Monday; 2026-12-31 and 2027-01-03 are both in week 53 of 2026.
    let all =
        candidates(&["2026-01-04T23:59:59Z", "2026-01-05T00:00:00Z", "2026-12-31T00:00:00Z", "2027-01-03T00:00:00Z"]);
    let kept = plan(&all, Policy { weekly: 9, ..Policy::default() }, "2027-01-03T00:00:00Z");
    assert_eq!(kept[..3], ["keep: weekly", "keep: weekly", "expire"]);
}

#[test]
fn leap_days_are_days_and_leap_years_years() {
    let all = candidates(&[
        "2028-02-28T12:00:00Z",
        "2028-02-29T00:00:00Z",
        "2028-02-29T23:59:59Z",
        "2028-03-01T00:00:00Z",
        "2028-12-31T23:59:59Z",
        "2029-01-01T00:00:00Z",
    ]);
    let now = "2029-01-01T00:00:00Z";
    let daily = plan(&all, Policy { daily: 9, ..Policy::default() }, now);
    assert_eq!(daily[..5], ["keep: daily", "expire", "keep: daily", "keep: daily", "keep: daily"]);
    let monthly = plan(&all, Policy { monthly: 9, ..Policy::default() }, now);
    assert_eq!(monthly[..5], ["expire", "expire", "keep: monthly", "keep: monthly", "keep: monthly"]);
    let yearly = plan(&all, Policy { yearly: 9, ..Policy::default() }, now);
    assert_eq!(yearly[..5], ["expire", "expire", "expire", "expire", "keep: yearly"]);
}

#[test]
fn within_counts_from_now_to_the_nanosecond() {
    let mut all = candidates(&["2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z", "2026-01-05T00:00:00Z"]);
    let policy = Policy { within_seconds: 4 * 24 * 3600, ..Policy::default() };
    assert_eq!(plan(&all, policy.clone(), "2026-01-05T00:00:00Z")[..2], ["keep: within", "keep: within"]);
    all[0].committed_ns -= 1;
    assert_eq!(plan(&all, policy, "2026-01-05T00:00:00Z")[..2], ["expire", "keep: within"]);
    // A snapshot of tomorrow (the clock was set back) is not old.
    let policy = Policy { within_seconds: 1, ..Policy::default() };
    assert_eq!(plan(&all, policy, "2026-01-01T23:59:59Z")[..2], ["expire", "keep: within"]);
}

#[test]
fn tags_keep_and_tell_which() {
    let mut all = candidates(&["2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z", "2026-01-03T00:00:00Z"]);
    all[0].tags = vec!["release".into(), "other".into()];
    all[1].tags = vec!["other".into()];
    let policy = Policy { tags: vec!["release".into(), "legal".into()], ..Policy::default() };
    assert_eq!(plan(&all, policy, "2026-01-03T00:00:00Z"), ["keep: tag release", "expire", NEWEST]);
}

#[test]
fn holds_keep_until_their_date_only() {
    let mut all = candidates(&["2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z", "2026-01-03T00:00:00Z"]);
    let now = "2026-01-04T00:00:00Z";
    all[0].hold_until_ns = Some(ns(now) + 1);
    all[1].hold_until_ns = Some(ns(now));
    let policy = Policy { last: 1, ..Policy::default() };
    let kept = plan(&all, policy.clone(), now);
    assert_eq!(kept, ["held until 2026-01-04T00:00:00Z", "expire", "keep: last, newest, newest without warnings"]);
    // A hold takes no one's place in a rule.
    all[2].hold_until_ns = Some(i64::MAX);
    assert_eq!(plan(&all, policy, now)[2], "keep: last, newest, newest without warnings");
}

#[test]
fn the_newest_and_the_newest_without_warnings_always_stay() {
    let mut all = candidates(&["2000-01-01T00:00:00Z", "2000-01-02T00:00:00Z", "2000-01-03T00:00:00Z"]);
    let policy = Policy { within_seconds: 1, ..Policy::default() };
    assert_eq!(plan(&all, policy.clone(), "2026-01-01T00:00:00Z"), ["expire", "expire", NEWEST]);
    all[2].has_warnings = true;
    let kept = plan(&all, policy.clone(), "2026-01-01T00:00:00Z");
    assert_eq!(kept, ["expire", "keep: newest without warnings", "keep: newest"]);
    all[0].has_warnings = true;
    all[1].has_warnings = true;
    assert_eq!(plan(&all, policy, "2026-01-01T00:00:00Z"), ["expire", "expire", "keep: newest"]);
}

#[test]
fn each_series_has_its_own_policy_and_counts_for_itself() {
    let other = Series { computer: "server".into(), name: "/home".into() };
    let third = Series { computer: "laptop".into(), name: "/etc".into() };
    let mut all = Vec::new();
    for (number, series) in [&series(), &other, &third].into_iter().enumerate() {
        for age in 0..3u8 {
            all.push(Candidate {
                series: series.clone(),
                ..candidate(number as u8 * 10 + age, -i64::from(age) * 1_000_000_000)
            });
        }
    }
    let two = Policy { last: 2, ..Policy::default() };
    let with_default = Policies {
        default: Some(Policy { last: 1, ..Policy::default() }),
        by_series: BTreeMap::from([(other, two), (third, Policy::default())]),
    };
    let plan = Plan::make(&all, &with_default, 0).unwrap();
    let expired: Vec<u8> = plan.expired().iter().map(|id| id.as_bytes()[0]).collect();
    // No rules keep everything; two of the server; one of the rest.
    assert_eq!(expired, [1, 2, 12]);
    let without_default = Policies { default: None, ..with_default };
    assert_eq!(Plan::make(&all, &without_default, 0).unwrap().expired().len(), 1);
}

#[test]
fn when_clocks_go_back_the_same_hour_comes_twice() {
    // Warsaw, 2026-10-25: 02:30 happens at 00:30Z (+02) and at 01:30Z (+01).
    let all =
        candidates(&["2026-10-25T00:10:00Z", "2026-10-25T00:30:00Z", "2026-10-25T01:30:00Z", "2026-10-25T02:30:00Z"]);
    let policy = Policy { hourly: 9, time_zone: "Europe/Warsaw".into(), ..Policy::default() };
    let kept = plan(&all, policy, "2026-10-25T03:00:00Z");
    assert_eq!(kept[..3], ["expire", "keep: hourly", "keep: hourly"]);
    // The day has 25 hours and is one day: 22:00Z of the 24th to 23:00Z of the 25th.
    let all =
        candidates(&["2026-10-24T21:59:59Z", "2026-10-24T22:00:00Z", "2026-10-25T22:59:59Z", "2026-10-25T23:00:00Z"]);
    let policy = Policy { daily: 9, time_zone: "Europe/Warsaw".into(), ..Policy::default() };
    let kept = plan(&all, policy, "2026-10-26T00:00:00Z");
    assert_eq!(kept[..3], ["keep: daily", "expire", "keep: daily"]);
}

#[test]
fn when_clocks_go_forward_a_day_has_23_hours() {
    // Warsaw, 2026-03-29: 01:59:59 is followed by 03:00. The day is 23:00Z of the 28th to 22:00Z of the 29th.
    let all =
        candidates(&["2026-03-28T22:59:59Z", "2026-03-28T23:00:00Z", "2026-03-29T21:59:59Z", "2026-03-29T22:00:00Z"]);
    let policy = Policy { daily: 9, time_zone: "Europe/Warsaw".into(), ..Policy::default() };
    let kept = plan(&all, policy, "2026-03-30T00:00:00Z");
    assert_eq!(kept[..3], ["keep: daily", "expire", "keep: daily"]);
    // 00:59:59Z and 01:00Z are neighbours in different hours, 01 and 03.
    let all = candidates(&["2026-03-29T00:59:59Z", "2026-03-29T01:00:00Z", "2026-03-29T01:59:59Z"]);
    let policy = Policy { hourly: 9, time_zone: "Europe/Warsaw".into(), ..Policy::default() };
    let kept = plan(&all, policy, "2026-03-30T00:00:00Z");
    assert_eq!(kept[..2], ["keep: hourly", "expire"]);
}

#[test]
fn a_shift_of_half_an_hour_and_a_day_that_never_was_are_told_right() {
    // Lord Howe sets clocks back by half an hour, at 02:00 (+11) to 01:30 (+10:30), 2026-04-04T15:00Z.
    let all = candidates(&["2026-04-04T14:45:00Z", "2026-04-04T15:15:00Z", "2026-04-04T15:45:00Z"]);
    let policy = Policy { hourly: 9, time_zone: "Australia/Lord_Howe".into(), ..Policy::default() };
    assert_eq!(plan(&all, policy, "2026-04-05T00:00:00Z")[..2], ["keep: hourly", "keep: hourly"]);
    // Samoa had no 30 December 2011: the 29th ends at 10:00Z of the 30th, and the 31st begins.
    let all = candidates(&["2011-12-30T09:59:59Z", "2011-12-30T10:00:00Z", "2011-12-31T09:59:59Z"]);
    let policy = Policy { daily: 9, time_zone: "Pacific/Apia".into(), ..Policy::default() };
    assert_eq!(plan(&all, policy, "2012-01-01T00:00:00Z")[..2], ["keep: daily", "expire"]);
}

#[test]
fn midnight_is_the_zones_midnight() {
    let all = candidates(&["2026-06-01T06:59:59Z", "2026-06-01T07:00:00Z", "2026-06-02T06:59:59Z"]);
    let policy = |zone: &str| Policy { daily: 9, time_zone: zone.into(), ..Policy::default() };
    let now = "2026-06-03T00:00:00Z";
    assert_eq!(plan(&all, policy("America/Los_Angeles"), now)[..2], ["keep: daily", "expire"]);
    assert_eq!(plan(&all, policy("UTC"), now)[..2], ["expire", "keep: daily"]);
    assert_eq!(plan(&all, policy(""), now)[..2], ["expire", "keep: daily"]);
}

#[test]
fn an_unknown_time_zone_is_refused_before_anything_is_planned() {
    assert_eq!(check_time_zone("Europe/Atlantis"), Err(RetentionError::UnknownTimeZone("Europe/Atlantis".into())));
    assert_eq!(check_time_zone("Europe/Warsaw"), Ok(()));
    let policy = Policy { daily: 1, time_zone: "x".into(), ..Policy::default() };
    assert!(Plan::make(&candidates(&["2026-01-01T00:00:00Z"]), &policies(policy), 0).is_err());
}

/// Seven daily, four weekly, twelve monthly over a year and a half of daily snapshots: what stays is countable by hand.
#[test]
fn a_year_of_daily_snapshots_leaves_what_one_would_count() {
    let mut all = Vec::new();
    let mut day = civil::date(2025, 1, 1);
    while day <= civil::date(2026, 6, 30) {
        let at = day.at(1, 0, 0, 0).to_zoned(TimeZone::UTC).unwrap().timestamp().as_nanosecond() as i64;
        let mut id = [0; 16];
        id[..8].copy_from_slice(&at.to_le_bytes());
        all.push(Candidate { snapshot: SnapshotId::from_bytes(id), ..candidate(0, at) });
        day = day.tomorrow().unwrap();
    }
    let policy = Policy { daily: 7, weekly: 4, monthly: 12, ..Policy::default() };
    let plan = Plan::make(&all, &policies(policy), ns("2026-06-30T12:00:00Z")).unwrap();
    let kept: Vec<String> = plan
        .items
        .iter()
        .filter(|item| matches!(item.action, Action::Keep(_)))
        .map(|item| utc(item.committed_ns)[..10].to_owned())
        .collect();
    let expected = [
        "2026-06-30",
        "2026-06-29",
        "2026-06-28",
        "2026-06-27",
        "2026-06-26",
        "2026-06-25",
        "2026-06-24",
        "2026-06-21",
        "2026-06-14",
        "2026-05-31",
        "2026-04-30",
        "2026-03-31",
        "2026-02-28",
        "2026-01-31",
        "2025-12-31",
        "2025-11-30",
        "2025-10-31",
        "2025-09-30",
        "2025-08-31",
        "2025-07-31",
    ];
    assert_eq!(kept, expected);
}

fn any_policy() -> impl Strategy<Value = Policy> {
    let zones = prop_oneof![Just("UTC"), Just("Europe/Warsaw"), Just("Australia/Lord_Howe"), Just("America/Havana")];
    let few = || prop_oneof![3 => Just(0u32), 2 => 1..5u32, 1 => Just(u32::MAX)];
    let within = prop_oneof![Just(0u64), 1..100_000_000u64, Just(u64::MAX)];
    let tags = proptest::collection::vec("[ab]", 0..2);
    (few(), few(), few(), few(), few(), few(), within, tags, zones).prop_map(
        |(last, hourly, daily, weekly, monthly, yearly, within_seconds, tags, zone)| Policy {
            last,
            hourly,
            daily,
            weekly,
            monthly,
            yearly,
            within_seconds,
            tags,
            time_zone: zone.to_owned(),
        },
    )
}

fn any_candidates() -> impl Strategy<Value = Vec<Candidate>> {
    let years = 80 * 365 * 24 * 3600 * 1_000_000_000i64;
    let time = prop_oneof![9 => 0..years, 1 => any::<i64>()];
    let one =
        (any::<[u8; 16]>(), 0..3u8, time, any::<bool>(), proptest::collection::vec("[ab]", 0..2), any::<Option<i64>>());
    proptest::collection::vec(one, 0..60).prop_map(|all| {
        let candidate =
            |(id, series, committed_ns, has_warnings, tags, hold_until_ns): (_, u8, _, _, _, _)| Candidate {
                snapshot: SnapshotId::from_bytes(id),
                series: Series { computer: series.to_string(), name: String::new() },
                committed_ns,
                has_warnings,
                tags,
                hold_until_ns,
            };
        all.into_iter().map(candidate).collect()
    })
}

proptest! {
    #[test]
    fn no_policy_expires_the_newest_of_a_series_or_what_is_held(
        all in any_candidates(), policy in any_policy(), now_ns in any::<i64>(),
    ) {
        let plan = Plan::make(&all, &policies(policy), now_ns).unwrap();
        prop_assert_eq!(plan.items.len(), all.len());
        let expired: BTreeSet<SnapshotId> = plan.expired().into_iter().collect();
        for series in all.iter().map(|candidate| &candidate.series).collect::<BTreeSet<_>>() {
            let of_series = || all.iter().filter(|candidate| candidate.series == *series);
            let newest = |candidates: &mut dyn Iterator<Item = &Candidate>| {
                candidates.max_by_key(|candidate| (candidate.committed_ns, candidate.snapshot)).map(|one| one.snapshot)
            };
            let always = [newest(&mut of_series()), newest(&mut of_series().filter(|one| !one.has_warnings))];
            for snapshot in always.into_iter().flatten() {
                prop_assert!(!expired.contains(&snapshot));
            }
        }
        for candidate in &all {
            let held = candidate.hold_until_ns.is_some_and(|until_ns| until_ns > now_ns);
            prop_assert!(!held || !expired.contains(&candidate.snapshot));
        }
    }

    /// Done again a moment later, a plan expires nothing more: what goes does not make others go.
    #[test]
    fn a_plan_is_done_when_it_is_done(all in any_candidates(), policy in any_policy(), now_ns in any::<i64>()) {
        let policies = policies(policy);
        let expired = Plan::make(&all, &policies, now_ns).unwrap().expired();
        let rest: Vec<Candidate> = all.into_iter().filter(|one| !expired.contains(&one.snapshot)).collect();
        prop_assert_eq!(Plan::make(&rest, &policies, now_ns).unwrap().expired(), []);
    }

    /// The order in which snapshots are listed does not matter.
    #[test]
    fn a_plan_depends_on_no_order(mut all in any_candidates(), policy in any_policy(), now_ns in any::<i64>()) {
        let policies = policies(policy);
        let plan = Plan::make(&all, &policies, now_ns).unwrap();
        all.reverse();
        prop_assert_eq!(Plan::make(&all, &policies, now_ns).unwrap(), plan);
    }
}
