//! Choosing a snapshot: by id, abbreviated id, `latest`, date, computer and series.

use crate::error::AgentError;
use api::browse::Snapshot;
use jiff::Timestamp;
use jiff::civil::{Date, DateTime};
use jiff::tz::TimeZone;

/// Which snapshots are meant.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// Only of this computer.
    pub computer: Option<String>,
    /// Only of this series.
    pub series: Option<String>,
    /// Only with this tag.
    pub tag: Option<String>,
    /// Only committed at or before this, nanoseconds since 1970.
    pub at_ns: Option<i64>,
}

impl Filter {
    /// Whether a snapshot is one of them.
    pub fn matches(&self, snapshot: &Snapshot) -> bool {
        self.computer.as_ref().is_none_or(|computer| *computer == snapshot.computer)
            && self.series.as_ref().is_none_or(|series| *series == snapshot.series)
            && self.tag.as_ref().is_none_or(|tag| snapshot.tags.contains(tag))
            && self.at_ns.is_none_or(|at| snapshot.committed_ns <= at)
    }
}

/// The beginning of an id that is shown to people.
pub fn short(id: &str) -> &str {
    id.get(..12).unwrap_or(id)
}

/// The snapshot that `text` names, which must be readable: a deleted one is an error that says how to bring it back.
pub fn pick(snapshots: &[Snapshot], text: &str, filter: &Filter) -> Result<Snapshot, AgentError> {
    let snapshot = pick_any(snapshots, text, filter)?;
    match &snapshot.deleted {
        None => Ok(snapshot),
        Some(deleted) => Err(AgentError::Usage(format!(
            "snapshot {id} is deleted; until {} `holdfast undelete {id}` brings it back",
            show_time(deleted.until_ns),
            id = short(&snapshot.id),
        ))),
    }
}

/// The snapshot that `text` names, deleted or not: `latest` (of those not deleted), an id, or the beginning of one that
/// is unique.
pub fn pick_any(snapshots: &[Snapshot], text: &str, filter: &Filter) -> Result<Snapshot, AgentError> {
    let matching = snapshots.iter().filter(|snapshot| filter.matches(snapshot));
    if text == "latest" {
        let latest = matching
            .filter(|snapshot| snapshot.deleted.is_none())
            .max_by_key(|snapshot| snapshot.committed_ns)
            .cloned();
        return latest.ok_or_else(|| AgentError::Usage("no snapshot matches".into()));
    }
    let text = text.to_ascii_lowercase();
    let found: Vec<&Snapshot> = matching.filter(|snapshot| snapshot.id.starts_with(&text)).collect();
    match found.as_slice() {
        [one] => Ok((*one).clone()),
        [] => Err(AgentError::Usage(format!("no snapshot {text:?}; `holdfast snapshots` lists them"))),
        several => Err(AgentError::Usage(format!("{text:?} is the beginning of {} snapshots", several.len()))),
    }
}

/// Nanoseconds since 1970 of a date as people write it: `2026-11-21`, `2026-11-21 14:30`, or RFC 3339. A date alone
/// means its end; without an offset the time zone of this computer counts.
pub fn parse_date(text: &str) -> Result<i64, AgentError> {
    let text = text.trim();
    let bad = || AgentError::Usage(format!("{text:?} is not a date such as 2026-11-21 or 2026-11-21T14:30:00Z"));
    let nanoseconds = |timestamp: Timestamp| i64::try_from(timestamp.as_nanosecond()).map_err(|_| bad());
    if let Ok(timestamp) = text.parse::<Timestamp>() {
        return nanoseconds(timestamp);
    }
    let zone = TimeZone::system();
    // A date alone has nothing behind its day; the parser would pass over a time.
    if !text.contains([' ', 'T', 't'])
        && let Ok(date) = text.parse::<Date>()
    {
        let next = date.tomorrow().map_err(|_| bad())?.to_zoned(zone).map_err(|_| bad())?;
        return Ok(nanoseconds(next.timestamp())? - 1);
    }
    let civil: DateTime = text.parse().map_err(|_| bad())?;
    nanoseconds(civil.to_zoned(zone).map_err(|_| bad())?.timestamp())
}

/// A time for people, in the time zone of this computer.
pub fn show_time(nanoseconds: i64) -> String {
    match Timestamp::from_nanosecond(i128::from(nanoseconds)) {
        Ok(timestamp) => timestamp.to_zoned(TimeZone::system()).strftime("%Y-%m-%d %H:%M:%S").to_string(),
        Err(_) => nanoseconds.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use api::browse::Deleted;

    fn snapshot(id: &str, computer: &str, committed_ns: i64) -> Snapshot {
        Snapshot {
            id: id.into(),
            root: String::new(),
            computer: computer.into(),
            series: "/".into(),
            committed_ns,
            logical_bytes: 0,
            summary: Default::default(),
            tags: Vec::new(),
            deleted: None,
            hold_until_ns: None,
        }
    }

    #[test]
    fn ids_may_be_abbreviated_while_unique() {
        let all = [snapshot("abc1", "a", 10), snapshot("abd2", "b", 20), snapshot("ffff", "a", 30)];
        let filter = Filter::default();
        assert_eq!(pick(&all, "abc", &filter).unwrap().id, "abc1");
        assert_eq!(pick(&all, "latest", &filter).unwrap().id, "ffff");
        assert!(pick(&all, "ab", &filter).is_err());
        assert!(pick(&all, "0", &filter).is_err());
        let of_b = Filter { computer: Some("b".into()), ..Filter::default() };
        assert_eq!(pick(&all, "latest", &of_b).unwrap().id, "abd2");
        assert_eq!(pick(&all, "ab", &of_b).unwrap().id, "abd2");
        let mut all = all;
        all[2].deleted = Some(Deleted { deleted_ns: 31, until_ns: 40, by: "a person".into() });
        assert_eq!(pick(&all, "latest", &filter).unwrap().id, "abd2");
        assert!(pick(&all, "ffff", &filter).unwrap_err().to_string().contains("holdfast undelete ffff"));
        assert_eq!(pick_any(&all, "ffff", &filter).unwrap().id, "ffff");
        let early = Filter { at_ns: Some(20), ..Filter::default() };
        assert_eq!(pick(&all, "latest", &early).unwrap().id, "abd2");
    }

    #[test]
    fn dates_are_read() {
        assert_eq!(parse_date("1970-01-01T00:00:01Z").unwrap(), 1_000_000_000);
        let day = parse_date("2026-11-21").unwrap();
        assert!(day > parse_date("2026-11-21 23:59:59").unwrap());
        assert!(day < parse_date("2026-11-22 00:00").unwrap());
        assert!(parse_date("yesterday").is_err());
    }
}
