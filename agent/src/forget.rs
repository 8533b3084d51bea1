//! What a person does to snapshots after they were made: deleting them by name or by rule, bringing them back, holding
//! and tagging them. The server decides what a rule means; this asks, shows and carries out.

use crate::client::{Client, ClientError};
use crate::connection::Connection;
use crate::error::AgentError;
use crate::report::{Report, Style, human_bytes, printable};
use crate::snapshots::{short, show_time};
use api::browse::Snapshot;
use api::problem::Code;
use api::retention::{Action, PlanItem, PlanRequest, RetentionPlan};
use api::states::{SetHold, SetTags};
use serde::Serialize;

/// What becomes of snapshots that are forgotten.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// They can be brought back for the vault's undelete days.
    Delete,
    /// They are gone for good.
    Purge,
    /// Nothing: it is only said what would happen.
    DryRun,
}

/// What `forget` did.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ForgetResult {
    /// `forgot`, or `would_forget` for a dry run.
    pub event: &'static str,
    /// Snapshots deleted: they can be brought back.
    pub deleted: u64,
    /// Snapshots removed for good.
    pub purged: u64,
    /// Dry run: snapshots that would go.
    pub would_go: u64,
    /// Snapshots a rule keeps.
    pub kept: u64,
    /// Snapshots that would have gone, but for a hold.
    pub held: u64,
    /// Until when all that was deleted can be brought back, nanoseconds since 1970.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub undelete_until_ns: Option<i64>,
}

#[derive(Serialize)]
struct PlanEvent<'a> {
    event: &'static str,
    #[serde(flatten)]
    item: &'a PlanItem,
}

#[derive(Serialize)]
struct StateEvent<'a> {
    event: &'static str,
    #[serde(flatten)]
    snapshot: &'a Snapshot,
}

fn line(word: &str, snapshot: &Snapshot, end: &str) -> String {
    format!(
        "{word:<9}  {}  {}  {}  {}{end}",
        short(&snapshot.id),
        show_time(snapshot.committed_ns),
        printable(snapshot.computer.as_bytes()),
        printable(snapshot.series.as_bytes()),
    )
}

/// Deletes the snapshots named.
pub fn forget_named(
    connection: &Connection,
    snapshots: &[Snapshot],
    fate: Fate,
    report: &Report,
) -> Result<ForgetResult, AgentError> {
    let mut result = new_result(fate);
    for snapshot in snapshots {
        carry_out(connection, snapshot, fate, report, &mut result)?;
    }
    Ok(result)
}

/// Deletes what the rule of `request` does not keep among `candidates`, showing the server's plan first.
pub fn forget_by_rule(
    connection: &Connection,
    request: &PlanRequest,
    candidates: &[Snapshot],
    fate: Fate,
    report: &Report,
) -> Result<ForgetResult, AgentError> {
    let plan: RetentionPlan = connection.client.retention_plan(&connection.vault, request)?;
    let mut result = new_result(fate);
    for item in &plan.items {
        show_item(item, report);
        match item.action {
            Action::Keep => result.kept += 1,
            Action::Held => result.held += 1,
            Action::Expire => {}
        }
    }
    for item in plan.items.iter().filter(|item| item.action == Action::Expire) {
        if fate == Fate::DryRun {
            result.would_go += 1;
            continue;
        }
        // What was committed between the list and the plan is nobody's candidate.
        if let Some(snapshot) = candidates.iter().find(|snapshot| snapshot.id == item.snapshot) {
            carry_out(connection, snapshot, fate, report, &mut result)?;
        }
    }
    Ok(result)
}

fn new_result(fate: Fate) -> ForgetResult {
    let event = if fate == Fate::DryRun { "would_forget" } else { "forgot" };
    ForgetResult { event, ..ForgetResult::default() }
}

fn show_item(item: &PlanItem, report: &Report) {
    if report.style() == Style::Quiet {
        return;
    }
    let word = match item.action {
        Action::Keep => "keep",
        Action::Expire => "forget",
        Action::Held => "held",
    };
    let reasons = if item.reasons.is_empty() { String::new() } else { format!("  ({})", item.reasons.join(", ")) };
    let text = format!(
        "{word:<9}  {}  {}  {}  {}  {}{reasons}",
        short(&item.snapshot),
        show_time(item.committed_ns),
        printable(item.computer.as_bytes()),
        printable(item.series.as_bytes()),
        human_bytes(item.logical_bytes),
    );
    report.result(&PlanEvent { event: "plan", item }, &text);
}

fn carry_out(
    connection: &Connection,
    snapshot: &Snapshot,
    fate: Fate,
    report: &Report,
    result: &mut ForgetResult,
) -> Result<(), AgentError> {
    let (client, vault) = (&connection.client, &connection.vault);
    let id = &snapshot.id;
    let show = |event: &'static str, word: &str, snapshot: &Snapshot, end: &str| {
        if report.style() != Style::Quiet {
            report.result(&StateEvent { event, snapshot }, &line(word, snapshot, end));
        }
    };
    match fate {
        Fate::DryRun => {
            show("would_forget_snapshot", "forget", snapshot, "");
            result.would_go += 1;
        }
        Fate::Purge => {
            gone_is_fine(client.purge_snapshot(vault, id))?;
            show("purged", "purged", snapshot, "");
            result.purged += 1;
        }
        Fate::Delete => {
            // Already gone for good is more than was asked for, and no failure.
            if let Some(now) = gone_is_fine(client.delete_snapshot(vault, id))? {
                let until_ns = now.deleted.as_ref().map(|deleted| deleted.until_ns);
                result.undelete_until_ns = match (result.undelete_until_ns, until_ns) {
                    (Some(first), Some(next)) => Some(first.min(next)),
                    (first, next) => first.or(next),
                };
                show("deleted", "deleted", &now, "");
            }
            result.deleted += 1;
        }
    }
    Ok(())
}

/// The snapshot was in the list a moment ago: somebody else, or an answer that was lost, has removed it meanwhile.
fn gone_is_fine<T>(result: Result<T, ClientError>) -> Result<Option<T>, AgentError> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.code() == Some(Code::NotFound) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Text of what `forget` did, for people.
pub fn summary_text(result: &ForgetResult) -> String {
    let mut text = match (result.event, result.purged) {
        ("would_forget", _) => format!("would forget {}; nothing was changed", snapshots(result.would_go)),
        (_, 0) => match result.undelete_until_ns {
            Some(until_ns) if result.deleted > 0 => format!(
                "deleted {}; until {} `holdfast undelete` brings back what was deleted",
                snapshots(result.deleted),
                show_time(until_ns)
            ),
            _ => format!("deleted {}", snapshots(result.deleted)),
        },
        (_, purged) => format!("removed {} for good; the space comes back within minutes", snapshots(purged)),
    };
    if result.kept > 0 {
        text.push_str(&format!("; {} kept", result.kept));
    }
    if result.held > 0 {
        text.push_str(&format!("; {} kept by a hold", result.held));
    }
    text
}

fn snapshots(count: u64) -> String {
    if count == 1 { "1 snapshot".into() } else { format!("{count} snapshots") }
}

/// Does `change` to every snapshot and shows each as it is then.
fn each(
    connection: &Connection,
    snapshots: &[Snapshot],
    report: &Report,
    event: &'static str,
    change: impl Fn(&Client, &str, &Snapshot) -> Result<Snapshot, ClientError>,
    end: impl Fn(&Snapshot) -> String,
) -> Result<(), AgentError> {
    for snapshot in snapshots {
        let now = change(&connection.client, &connection.vault, snapshot)?;
        report.result(&StateEvent { event, snapshot: &now }, &line(event, &now, &end(&now)));
    }
    Ok(())
}

/// Brings deleted snapshots back.
pub fn undelete(connection: &Connection, snapshots: &[Snapshot], report: &Report) -> Result<(), AgentError> {
    let change = |client: &Client, vault: &str, snapshot: &Snapshot| client.undelete_snapshot(vault, &snapshot.id);
    each(connection, snapshots, report, "undeleted", change, |_| String::new())
}

/// Sets or moves a hold, or lifts it with `None`.
pub fn hold(
    connection: &Connection,
    snapshots: &[Snapshot],
    until_ns: Option<i64>,
    report: &Report,
) -> Result<(), AgentError> {
    let event = if until_ns.is_some() { "held" } else { "released" };
    let change = |client: &Client, vault: &str, snapshot: &Snapshot| {
        client.hold_snapshot(vault, &snapshot.id, &SetHold { until_ns })
    };
    let end = |now: &Snapshot| now.hold_until_ns.map(|at| format!("  until {}", show_time(at))).unwrap_or_default();
    each(connection, snapshots, report, event, change, end)
}

/// How tags change.
#[derive(Clone, Debug, Default)]
pub struct TagChange {
    /// Replaces all tags, before the others are looked at.
    pub set: Option<Vec<String>>,
    /// Tags to add.
    pub add: Vec<String>,
    /// Tags to take away.
    pub remove: Vec<String>,
}

impl TagChange {
    /// `tags` changed, without doubles, in their order.
    pub fn apply(&self, tags: &[String]) -> Vec<String> {
        let mut now: Vec<String> = Vec::new();
        for tag in self.set.as_deref().unwrap_or(tags).iter().chain(&self.add) {
            if !self.remove.contains(tag) && !now.contains(tag) {
                now.push(tag.clone());
            }
        }
        now
    }
}

/// Changes tags.
pub fn tag(
    connection: &Connection,
    snapshots: &[Snapshot],
    tags: &TagChange,
    report: &Report,
) -> Result<(), AgentError> {
    let change = |client: &Client, vault: &str, snapshot: &Snapshot| {
        client.tag_snapshot(vault, &snapshot.id, &SetTags { tags: tags.apply(&snapshot.tags) })
    };
    let end = |now: &Snapshot| format!("  [{}]", printable(now.tags.join(", ").as_bytes()));
    each(connection, snapshots, report, "tagged", change, end)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(of: &[&str]) -> Vec<String> {
        of.iter().map(|text| (*text).to_owned()).collect()
    }

    #[test]
    fn tags_change_without_doubles() {
        let tags = texts(&["a", "b"]);
        let add = TagChange { add: texts(&["c", "a"]), ..TagChange::default() };
        assert_eq!(add.apply(&tags), texts(&["a", "b", "c"]));
        let remove = TagChange { remove: texts(&["a", "x"]), ..TagChange::default() };
        assert_eq!(remove.apply(&tags), texts(&["b"]));
        let set = TagChange { set: Some(texts(&["z"])), add: texts(&["y"]), ..TagChange::default() };
        assert_eq!(set.apply(&tags), texts(&["z", "y"]));
        let clear = TagChange { set: Some(Vec::new()), ..TagChange::default() };
        assert!(clear.apply(&tags).is_empty());
    }

    #[test]
    fn a_summary_says_how_to_go_back() {
        let deleted = ForgetResult { event: "forgot", deleted: 2, undelete_until_ns: Some(0), ..Default::default() };
        assert!(summary_text(&deleted).contains("`holdfast undelete` brings back"));
        let purged = ForgetResult { event: "forgot", purged: 1, held: 1, ..Default::default() };
        assert!(summary_text(&purged).starts_with("removed 1 snapshot for good"), "{}", summary_text(&purged));
        assert!(summary_text(&purged).ends_with("1 kept by a hold"));
        let dry = ForgetResult { event: "would_forget", would_go: 0, kept: 5, ..Default::default() };
        assert_eq!(summary_text(&dry), "would forget 0 snapshots; nothing was changed; 5 kept");
    }
}
