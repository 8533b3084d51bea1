//! `forget`, `undelete`, `tag` and `hold`: from arguments to what is done to which snapshots.

use super::arguments::{ForgetArguments, HoldArguments, TagArguments, UndeleteArguments};
use crate::connection::{Connection, computer_name};
use crate::error::{AgentError, EXIT_COMPLETE};
use crate::forget::{self, Fate, TagChange};
use crate::report::Report;
use crate::snapshots::{Filter, parse_date, pick_any, short};
use api::browse::Snapshot;
use api::retention::{PlanRequest, RetentionPolicy};
use jiff::tz::TimeZone;

/// Every snapshot that is named, each once.
fn named(snapshots: &[Snapshot], names: &[String]) -> Result<Vec<Snapshot>, AgentError> {
    let mut found: Vec<Snapshot> = Vec::new();
    for name in names {
        let snapshot = pick_any(snapshots, name, &Filter::default())?;
        if found.iter().all(|other| other.id != snapshot.id) {
            found.push(snapshot);
        }
    }
    Ok(found)
}

pub(super) fn forget(connection: &Connection, arguments: ForgetArguments, report: &Report) -> Result<u8, AgentError> {
    let fate = match (arguments.dry_run, arguments.purge) {
        (true, _) => Fate::DryRun,
        (false, true) => Fate::Purge,
        (false, false) => Fate::Delete,
    };
    let snapshots = connection.snapshots()?;
    let result = if arguments.snapshots.is_empty() {
        let request = plan_request(arguments)?;
        forget::forget_by_rule(connection, &request, &snapshots, fate, report)?
    } else {
        forget::forget_named(connection, &named(&snapshots, &arguments.snapshots)?, fate, report)?
    };
    report.result(&result, &forget::summary_text(&result));
    Ok(EXIT_COMPLETE)
}

fn plan_request(arguments: ForgetArguments) -> Result<PlanRequest, AgentError> {
    let policy = RetentionPolicy {
        keep_last: arguments.keep_last.unwrap_or(0),
        keep_hourly: arguments.keep_hourly.unwrap_or(0),
        keep_daily: arguments.keep_daily.unwrap_or(0),
        keep_weekly: arguments.keep_weekly.unwrap_or(0),
        keep_monthly: arguments.keep_monthly.unwrap_or(0),
        keep_yearly: arguments.keep_yearly.unwrap_or(0),
        keep_within_seconds: arguments.keep_within.unwrap_or(0),
        keep_tags: arguments.keep_tag,
        time_zone: arguments.time_zone.unwrap_or_else(own_time_zone),
    };
    let nothing = RetentionPolicy { time_zone: policy.time_zone.clone(), ..RetentionPolicy::default() };
    if policy == nothing {
        return Err(AgentError::Usage(
            "name the snapshots to forget, or say with --keep-last, --keep-daily and so on what to keep".into(),
        ));
    }
    let computer = (!arguments.all_computers).then(|| arguments.computer.unwrap_or_else(computer_name));
    Ok(PlanRequest { policy: Some(policy), computer, series: arguments.series, tag: arguments.tag })
}

/// The time zone of this computer, or UTC when it has no name.
fn own_time_zone() -> String {
    TimeZone::system().iana_name().unwrap_or("UTC").to_owned()
}

pub(super) fn undelete(
    connection: &Connection,
    arguments: &UndeleteArguments,
    report: &Report,
) -> Result<u8, AgentError> {
    let snapshots = named(&connection.snapshots()?, &arguments.snapshots)?;
    if let Some(snapshot) = snapshots.iter().find(|snapshot| snapshot.deleted.is_none()) {
        report.remark(b"", &format!("snapshot {} is not deleted", short(&snapshot.id)));
    }
    forget::undelete(connection, &snapshots, report)?;
    Ok(EXIT_COMPLETE)
}

pub(super) fn tag(connection: &Connection, arguments: TagArguments, report: &Report) -> Result<u8, AgentError> {
    let TagArguments { snapshots, add, remove, clear } = arguments;
    let change = TagChange { set: clear.then(Vec::new), add, remove };
    forget::tag(connection, &named(&connection.snapshots()?, &snapshots)?, &change, report)?;
    Ok(EXIT_COMPLETE)
}

pub(super) fn hold(connection: &Connection, arguments: &HoldArguments, report: &Report) -> Result<u8, AgentError> {
    let until_ns = arguments.until.as_deref().map(parse_date).transpose()?;
    forget::hold(connection, &named(&connection.snapshots()?, &arguments.snapshots)?, until_ns, report)?;
    Ok(EXIT_COMPLETE)
}
