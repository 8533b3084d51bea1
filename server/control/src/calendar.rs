//! Days of licences: a licence is good to the end of a day of the tenant's time zone.

use crate::ControlError;
use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{Span, Timestamp};

/// How long a licence may run from its booking.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Term {
    /// Calendar months: the same day again, or the last one of a shorter month.
    Months(i64),
    /// Days.
    Days(i64),
}

fn zone(name: &str) -> Result<TimeZone, ControlError> {
    TimeZone::get(name)
        .map_err(|_| ControlError::Invalid { what: "time zone", rule: "must be a name of the IANA database" })
}

/// [`ControlError::Invalid`] unless `name` is a time zone.
pub(crate) fn check_zone(name: &str) -> Result<(), ControlError> {
    zone(name).map(|_| ())
}

const OUT_OF_RANGE: ControlError = ControlError::Invalid { what: "time", rule: "is out of range" };

fn nanoseconds(time: Timestamp) -> Result<i64, ControlError> {
    i64::try_from(time.as_nanosecond()).map_err(|_| OUT_OF_RANGE)
}

/// The day on which a moment falls.
pub(crate) fn day_of(time_ns: i64, zone_name: &str) -> Result<Date, ControlError> {
    let time = Timestamp::from_nanosecond(i128::from(time_ns)).map_err(|_| OUT_OF_RANGE)?;
    Ok(time.to_zoned(zone(zone_name)?).date())
}

/// The moment at which a day is over.
pub(crate) fn end_of_day(day: Date, zone_name: &str) -> Result<i64, ControlError> {
    let next = day.tomorrow().map_err(|_| OUT_OF_RANGE)?;
    let start = next.to_zoned(zone(zone_name)?).map_err(|_| OUT_OF_RANGE)?;
    nanoseconds(start.timestamp())
}

/// The last day that a licence booked at `booked_ns` may be good for.
pub(crate) fn latest_day(booked_ns: i64, term: Term, zone_name: &str) -> Result<Date, ControlError> {
    let booked = day_of(booked_ns, zone_name)?;
    let span = match term {
        Term::Months(months) => Span::new().try_months(months),
        Term::Days(days) => Span::new().try_days(days),
    };
    span.and_then(|span| booked.checked_add(span)).map_err(|_| OUT_OF_RANGE)
}

/// A day as `2027-11-21`.
pub(crate) fn parse_day(text: &str) -> Result<Date, ControlError> {
    text.parse().map_err(|_| ControlError::Invalid { what: "day", rule: "must be written like 2027-11-21" })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> i64 {
        nanoseconds(text.parse().unwrap()).unwrap()
    }

    #[test]
    fn a_year_later_is_the_same_day_where_the_tenant_is() {
        // Half past midnight in Warsaw is the day before in London.
        let booked = at("2026-11-20T23:30:00Z");
        let warsaw = latest_day(booked, Term::Months(12), "Europe/Warsaw").unwrap();
        assert_eq!(warsaw.to_string(), "2027-11-21");
        assert_eq!(latest_day(booked, Term::Months(12), "Europe/London").unwrap().to_string(), "2027-11-20");
        assert_eq!(end_of_day(warsaw, "Europe/Warsaw").unwrap(), at("2027-11-21T23:00:00Z"));
        assert_eq!(day_of(at("2027-11-21T23:00:00Z") - 1, "Europe/Warsaw").unwrap(), warsaw);
    }

    #[test]
    fn a_leap_day_ends_on_the_last_of_february() {
        let booked = at("2028-02-29T12:00:00Z");
        assert_eq!(latest_day(booked, Term::Months(12), "UTC").unwrap().to_string(), "2029-02-28");
        assert_eq!(latest_day(booked, Term::Days(30), "UTC").unwrap().to_string(), "2028-03-30");
    }

    #[test]
    fn a_day_of_changing_clocks_ends_when_it_ends() {
        let day = parse_day("2027-10-31").unwrap();
        assert_eq!(end_of_day(day, "Europe/Warsaw").unwrap(), at("2027-10-31T23:00:00Z"));
        assert_eq!(end_of_day(parse_day("2027-10-30").unwrap(), "Europe/Warsaw").unwrap(), at("2027-10-30T22:00:00Z"));
        for bad in ["", "2027", "31.10.2027", "2027-02-30"] {
            assert!(parse_day(bad).is_err(), "{bad}");
        }
        assert!(check_zone("Mars/Olympus").is_err());
    }
}
