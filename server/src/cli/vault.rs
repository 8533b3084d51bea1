//! `holdfastd vault` and `holdfastd clock`: all through the API of the running server.

use crate::cli::accounts::{Output, find, print_json};
use crate::cli::deletion::{DeleteVault, delete_vault};
use crate::cli::{CommandError, care, table};
use crate::clock::utc;
use crate::config::CommonSettings;
use crate::local::LocalServer;
use api::accounts::{CreateVault, Vault, Vaults};
use api::browse::{Snapshot, Snapshots};
use api::retention::{
    Action, PlanRequest, Retention, RetentionPlan, RetentionPolicy, RetentionRun, Series, SetRetention,
};
use api::states::{SetHold, SetTags};
use api::vault::{ClockStatus, SetUndeleteDays, VaultState, VaultStatus};
use clap::{ArgGroup, Args, Subcommand};
use serde::Serialize;
use std::io::{self, Write};

#[derive(Subcommand, Debug)]
pub(crate) enum VaultCommand {
    /// Create a further vault for a user.
    Add(AddVault),
    /// List vaults and what they hold.
    List(Output),
    /// Show how a vault does: what it holds, what waits to be freed, what is wrong with it.
    Status(OneVault),
    /// List a vault's snapshots, oldest first; deleted and held ones are marked.
    Snapshots(OneVault),
    /// Delete snapshots; they can be brought back for the vault's undelete days.
    Forget(Forget),
    /// Bring deleted snapshots back.
    Undelete(SomeSnapshots),
    /// Hold snapshots until a date, or lift their holds.
    Hold(Hold),
    /// Replace the tags of snapshots.
    Tag(Tag),
    /// Show, set, try or run what a vault keeps. What expires is gone for good.
    Retention(RetentionArguments),
    /// Set for how many days deleted snapshots can be brought back.
    UndeleteDays(UndeleteDays),
    /// Show what is damaged, by snapshot and file. The next backup of those files heals it.
    Damage(OneVault),
    /// Verify everything stored in a vault now, instead of waiting for its turn.
    Scrub(OneVault),
    /// Count all references again and compare; counts that could cost data are corrected.
    Audit(care::Audit),
    /// Delete a vault for good: its key, its snapshots, its tokens. Prints a receipt.
    Delete(DeleteVault),
}

#[derive(Args, Debug)]
pub(crate) struct AddVault {
    /// Name, unique within the user.
    name: String,
    /// The user: USER, or CUSTOMER/USER.
    #[arg(long, value_name = "USER")]
    user: String,
    #[command(flatten)]
    output: Output,
}

/// A vault, as people name it.
#[derive(Args, Debug)]
pub(crate) struct OneVault {
    /// The vault: its id, USER or CUSTOMER/USER for a user's first one, CUSTOMER/USER/NAME for a further one.
    pub(crate) vault: String,
    #[command(flatten)]
    pub(crate) output: Output,
}

#[derive(Args, Debug)]
pub(crate) struct SomeSnapshots {
    #[command(flatten)]
    vault: OneVault,
    /// Snapshots: ids or beginnings of ids, from `vault snapshots`.
    #[arg(value_name = "SNAPSHOT", required = true)]
    snapshots: Vec<String>,
}

#[derive(Args, Debug)]
#[command(after_help = "Examples:
  holdfastd vault forget alice 4f2a9c
  holdfastd vault forget alice 4f2a9c --purge")]
pub(crate) struct Forget {
    #[command(flatten)]
    which: SomeSnapshots,
    /// Remove for good: nothing brings it back.
    #[arg(long)]
    purge: bool,
}

#[derive(Args, Debug)]
#[command(group = ArgGroup::new("end").required(true))]
#[command(after_help = "Examples:
  holdfastd vault hold alice 4f2a9c --until 2027-12-31
  holdfastd vault hold alice 4f2a9c --lift")]
pub(crate) struct Hold {
    #[command(flatten)]
    which: SomeSnapshots,
    /// Nobody removes them before the end of this day (UTC), or before this time (RFC 3339).
    #[arg(long, value_name = "DATE", group = "end", value_parser = parse_date)]
    until: Option<i64>,
    /// End the hold now.
    #[arg(long, group = "end")]
    lift: bool,
}

#[derive(Args, Debug)]
pub(crate) struct Tag {
    #[command(flatten)]
    which: SomeSnapshots,
    /// All tags from now on, with commas; none when absent.
    #[arg(long, value_name = "TAGS", value_delimiter = ',')]
    set: Vec<String>,
}

#[derive(Args, Debug)]
#[command(group = ArgGroup::new("rule").multiple(true).conflicts_with_all(["remove", "run"]))]
#[command(after_help = "Examples:
  holdfastd vault retention alice                                              shows it
  holdfastd vault retention alice --keep-daily 7 --keep-monthly 12 --dry-run   tries it
  holdfastd vault retention alice --keep-daily 7 --keep-monthly 12             sets it
  holdfastd vault retention alice --keep-last 3 --series laptop /home          for one series
  holdfastd vault retention alice --dry-run                                    what the next run does
  holdfastd vault retention alice --run                                        runs it now
  holdfastd vault retention alice --remove                                     keeps everything again

The server runs retention every hour. The newest complete snapshot of a series never expires, nor a held one.")]
pub(crate) struct RetentionArguments {
    #[command(flatten)]
    vault: OneVault,
    /// Keep the newest N snapshots of each series.
    #[arg(long, value_name = "N", group = "rule")]
    keep_last: Option<u32>,
    /// Keep the newest snapshot of each of the last N hours that have one.
    #[arg(long, value_name = "N", group = "rule")]
    keep_hourly: Option<u32>,
    /// The same by days.
    #[arg(long, value_name = "N", group = "rule")]
    keep_daily: Option<u32>,
    /// The same by weeks, which begin on Monday.
    #[arg(long, value_name = "N", group = "rule")]
    keep_weekly: Option<u32>,
    /// The same by months.
    #[arg(long, value_name = "N", group = "rule")]
    keep_monthly: Option<u32>,
    /// The same by years.
    #[arg(long, value_name = "N", group = "rule")]
    keep_yearly: Option<u32>,
    /// Keep everything made within so many days.
    #[arg(long, value_name = "DAYS", group = "rule")]
    keep_within_days: Option<u32>,
    /// Keep everything with this tag; may be repeated.
    #[arg(long, value_name = "TAG", group = "rule")]
    keep_tag: Vec<String>,
    /// Time zone in which hours, days, weeks, months and years are told, such as Europe/Warsaw [default: UTC].
    #[arg(long, value_name = "NAME", requires = "rule")]
    time_zone: Option<String>,
    /// Only for this series.
    #[arg(long, num_args = 2, value_names = ["COMPUTER", "SERIES"])]
    series: Option<Vec<String>>,
    /// Only say what would expire.
    #[arg(long, short = 'n', conflicts_with_all = ["remove", "run"])]
    dry_run: bool,
    /// Remove the policy.
    #[arg(long, conflicts_with = "run")]
    remove: bool,
    /// Run the stored policies now.
    #[arg(long, conflicts_with = "series")]
    run: bool,
}

#[derive(Args, Debug)]
pub(crate) struct UndeleteDays {
    #[command(flatten)]
    vault: OneVault,
    /// 0 to 999. Snapshots that are deleted already keep their date.
    days: u32,
}

#[derive(Subcommand, Debug)]
pub(crate) enum ClockCommand {
    /// Show the time that retention, holds and deletions go by, and whether it is believed.
    Status(Output),
    /// Say that this server's clock is right after a jump; retention goes on.
    Confirm(Output),
}

/// What commands on several snapshots print as JSON.
#[derive(Serialize)]
struct Changed {
    snapshots: Vec<Snapshot>,
}

const NS_PER_SECOND: i64 = 1_000_000_000;

/// A day means its end, in UTC as everything that this program prints.
fn parse_date(text: &str) -> Result<i64, String> {
    let bad = || format!("{text:?} is not a date such as 2027-12-31 or 2027-12-31T14:30:00Z");
    let timestamp = match text.parse::<jiff::Timestamp>() {
        Ok(timestamp) => timestamp,
        Err(_) => {
            let day: jiff::civil::Date = text.parse().map_err(|_| bad())?;
            let next = day.tomorrow().and_then(|next| next.to_zoned(jiff::tz::TimeZone::UTC)).map_err(|_| bad())?;
            let end = i64::try_from(next.timestamp().as_nanosecond()).map_err(|_| bad())?;
            return Ok(end - NS_PER_SECOND);
        }
    };
    i64::try_from(timestamp.as_nanosecond()).map_err(|_| bad())
}

/// The id of the vault that a person means.
pub(crate) async fn vault_id(server: &LocalServer, text: &str) -> Result<String, CommandError> {
    Ok(find_vault(server, text).await?.id)
}

/// The vault that a person means.
pub(crate) async fn find_vault(server: &LocalServer, text: &str) -> Result<Vault, CommandError> {
    let vaults: Vaults = server.get("/vaults").await?;
    let names = |vault: &Vault| {
        let first = vault.name == "default" && (vault.user == text || vault.user == format!("default/{text}"));
        first || vault.id.eq_ignore_ascii_case(text) || format!("{}/{}", vault.user, vault.name) == text
    };
    match vaults.vaults.into_iter().find(names) {
        Some(vault) => Ok(vault),
        None => Err(CommandError::Refused(format!(
            "there is no vault {text}; `holdfastd vault list` shows them (name one by its id, USER, CUSTOMER/USER or \
             CUSTOMER/USER/NAME)"
        ))),
    }
}

/// Paths of the snapshots that a person means, each once.
async fn snapshot_paths(
    server: &LocalServer,
    vault: &str,
    names: &[String],
) -> Result<Vec<(String, Snapshot)>, CommandError> {
    let all: Snapshots = server.get(&format!("/vaults/{vault}/snapshots")).await?;
    let mut found: Vec<(String, Snapshot)> = Vec::new();
    for name in names {
        let name = name.to_ascii_lowercase();
        let matching: Vec<&Snapshot> = all.snapshots.iter().filter(|snapshot| snapshot.id.starts_with(&name)).collect();
        let [snapshot] = matching.as_slice() else {
            let problem = match matching.len() {
                0 => format!("there is no snapshot {name}; `holdfastd vault snapshots` lists them"),
                count => format!("{name} is the beginning of {count} snapshots; give more of the id"),
            };
            return Err(CommandError::Refused(problem));
        };
        let path = format!("/vaults/{vault}/snapshots/{}", snapshot.id);
        if found.iter().all(|(other, _)| *other != path) {
            found.push((path, (*snapshot).clone()));
        }
    }
    Ok(found)
}

pub(crate) fn short(id: &str) -> &str {
    id.get(..12).unwrap_or(id)
}

/// What is special about a snapshot, in words.
fn marks(snapshot: &Snapshot) -> String {
    let mut marks = Vec::new();
    if let Some(deleted) = &snapshot.deleted {
        marks.push(format!("deleted by {}, undelete until {}", deleted.by, utc(deleted.until_ns)));
    }
    if let Some(until_ns) = snapshot.hold_until_ns {
        marks.push(format!("held until {}", utc(until_ns)));
    }
    if snapshot.summary.warnings > 0 {
        marks.push(format!("{} warnings", snapshot.summary.warnings));
    }
    marks.join("; ")
}

fn print_snapshots(snapshots: &[Snapshot]) -> Result<(), CommandError> {
    let row = |snapshot: &Snapshot| {
        vec![
            short(&snapshot.id).to_owned(),
            table::time(Some(snapshot.committed_ns)),
            snapshot.computer.clone(),
            snapshot.series.clone(),
            snapshot.logical_bytes.to_string(),
            snapshot.tags.join(","),
            marks(snapshot),
        ]
    };
    let head = ["SNAPSHOT", "COMMITTED (UTC)", "COMPUTER", "SERIES", "BYTES", "TAGS", "STATE"];
    Ok(table::print(&head, &snapshots.iter().map(row).collect::<Vec<_>>())?)
}

fn print_changed(snapshots: Vec<Snapshot>, output: Output) -> Result<(), CommandError> {
    if output.json { print_json(&Changed { snapshots }) } else { print_snapshots(&snapshots) }
}

pub(crate) async fn vault(settings: &CommonSettings, command: VaultCommand) -> Result<(), CommandError> {
    let server = find(settings)?;
    match command {
        VaultCommand::Delete(arguments) => delete_vault(settings, arguments).await,
        VaultCommand::Add(arguments) => add(&server, arguments).await,
        VaultCommand::List(output) => list(&server, output).await,
        VaultCommand::Status(OneVault { vault, output }) => {
            let path = format!("/vaults/{}", vault_id(&server, &vault).await?);
            print_status(&server.get(&path).await?, output)
        }
        VaultCommand::Snapshots(OneVault { vault, output }) => {
            let path = format!("/vaults/{}/snapshots", vault_id(&server, &vault).await?);
            let found: Snapshots = server.get(&path).await?;
            if output.json { print_json(&found) } else { print_snapshots(&found.snapshots) }
        }
        VaultCommand::Forget(arguments) => forget(&server, arguments).await,
        VaultCommand::Undelete(SomeSnapshots { vault: OneVault { vault, output }, snapshots }) => {
            let vault = vault_id(&server, &vault).await?;
            let mut changed = Vec::new();
            for (path, _) in snapshot_paths(&server, &vault, &snapshots).await? {
                changed.push(server.post(&format!("{path}/undelete"), &()).await?);
            }
            print_changed(changed, output)
        }
        VaultCommand::Hold(Hold { which, until, lift: _ }) => {
            let SomeSnapshots { vault: OneVault { vault, output }, snapshots } = which;
            let vault = vault_id(&server, &vault).await?;
            let mut changed = Vec::new();
            for (path, _) in snapshot_paths(&server, &vault, &snapshots).await? {
                changed.push(server.put(&format!("{path}/hold"), &SetHold { until_ns: until }).await?);
            }
            print_changed(changed, output)
        }
        VaultCommand::Tag(Tag { which, set }) => {
            let SomeSnapshots { vault: OneVault { vault, output }, snapshots } = which;
            let vault = vault_id(&server, &vault).await?;
            let mut changed = Vec::new();
            for (path, _) in snapshot_paths(&server, &vault, &snapshots).await? {
                changed.push(server.put(&format!("{path}/tags"), &SetTags { tags: set.clone() }).await?);
            }
            print_changed(changed, output)
        }
        VaultCommand::Retention(arguments) => retention(&server, arguments).await,
        VaultCommand::UndeleteDays(UndeleteDays { vault: OneVault { vault, output }, days }) => {
            let path = format!("/vaults/{}/undelete-days", vault_id(&server, &vault).await?);
            print_status(&server.put(&path, &SetUndeleteDays { days }).await?, output)
        }
        VaultCommand::Damage(arguments) => care::damage(&server, arguments).await,
        VaultCommand::Scrub(arguments) => care::scrub(&server, arguments).await,
        VaultCommand::Audit(arguments) => care::audit(&server, arguments).await,
    }
}

async fn add(server: &LocalServer, AddVault { name, user, output }: AddVault) -> Result<(), CommandError> {
    let vault: Vault = server.post("/vaults", &CreateVault { name, user }).await?;
    if output.json {
        return print_json(&vault);
    }
    let mut out = io::stdout().lock();
    writeln!(out, "Vault {} of {}: {}", vault.name, vault.user, vault.id)?;
    writeln!(out, "A token for it:\n\n    holdfastd token add LABEL --vault {}\n", vault.id)?;
    Ok(())
}

async fn list(server: &LocalServer, output: Output) -> Result<(), CommandError> {
    let vaults: Vaults = server.get("/vaults").await?;
    if output.json {
        return print_json(&vaults);
    }
    let row = |vault: &Vault| {
        vec![
            vault.user.clone(),
            vault.name.clone(),
            vault.id.clone(),
            vault.snapshots.to_string(),
            vault.logical_bytes.to_string(),
            vault.physical_bytes.to_string(),
            vault.pending_bytes.to_string(),
        ]
    };
    let head = ["USER", "NAME", "VAULT", "SNAPSHOTS", "LOGICAL BYTES", "PHYSICAL BYTES", "PENDING BYTES"];
    Ok(table::print(&head, &vaults.vaults.iter().map(row).collect::<Vec<_>>())?)
}

fn print_status(status: &VaultStatus, output: Output) -> Result<(), CommandError> {
    if output.json {
        return print_json(status);
    }
    let state = match (status.state, &status.reason) {
        (VaultState::Ready, _) => "ready".to_owned(),
        (VaultState::Deleting, _) => "being deleted".to_owned(),
        (VaultState::ReadOnly, reason) => format!("read-only: {}", reason.as_deref().unwrap_or("no reason is known")),
        (VaultState::Unavailable, reason) => {
            format!("unavailable: {}", reason.as_deref().unwrap_or("no reason is known"))
        }
    };
    let scrub = match &status.scrub {
        None => "not begun".to_owned(),
        Some(scrub) => {
            let oldest = scrub.oldest_verified_ns.map(|at| format!("; oldest verification {}", utc(at)));
            format!(
                "{} of {} packs, {} of {} bytes in the last 30 days{}",
                scrub.packs_verified,
                scrub.packs,
                scrub.bytes_verified,
                scrub.bytes,
                oldest.unwrap_or_default()
            )
        }
    };
    let rows = [
        ("vault", format!("{} ({} of {})", status.id, status.name, status.user)),
        ("state", state),
        (
            "snapshots",
            format!("{} ({} deleted, {} held)", status.snapshots, status.deleted_snapshots, status.held_snapshots),
        ),
        ("logical bytes", status.logical_bytes.to_string()),
        ("held after deletion", status.deleted_logical_bytes.to_string()),
        ("physical bytes", status.physical_bytes.to_string()),
        ("being reclaimed", status.pending_bytes.to_string()),
        ("dead in packs", status.dead_bytes.to_string()),
        ("undelete days", status.undelete_days.to_string()),
        ("damaged objects", status.damaged_objects.to_string()),
        ("verified", scrub),
    ];
    let mut out = io::stdout().lock();
    for (name, value) in rows {
        writeln!(out, "{name:<20}  {value}")?;
    }
    Ok(())
}

async fn forget(server: &LocalServer, Forget { which, purge }: Forget) -> Result<(), CommandError> {
    let SomeSnapshots { vault: OneVault { vault, output }, snapshots } = which;
    let vault = vault_id(server, &vault).await?;
    let mut changed = Vec::new();
    for (path, snapshot) in snapshot_paths(server, &vault, &snapshots).await? {
        if purge {
            server.post_nothing(&format!("{path}/purge")).await?;
            changed.push(snapshot);
        } else {
            changed.push(server.delete(&path).await?);
        }
    }
    if output.json {
        return print_json(&Changed { snapshots: changed });
    }
    if purge {
        let ids: Vec<&str> = changed.iter().map(|snapshot| short(&snapshot.id)).collect();
        writeln!(io::stdout(), "Removed for good: {}. The space comes back within minutes.", ids.join(", "))?;
        return Ok(());
    }
    print_snapshots(&changed)
}

/// The policy that the arguments describe, if they describe one.
fn policy(arguments: &RetentionArguments) -> Option<RetentionPolicy> {
    let policy = RetentionPolicy {
        keep_last: arguments.keep_last.unwrap_or(0),
        keep_hourly: arguments.keep_hourly.unwrap_or(0),
        keep_daily: arguments.keep_daily.unwrap_or(0),
        keep_weekly: arguments.keep_weekly.unwrap_or(0),
        keep_monthly: arguments.keep_monthly.unwrap_or(0),
        keep_yearly: arguments.keep_yearly.unwrap_or(0),
        keep_within_seconds: u64::from(arguments.keep_within_days.unwrap_or(0)) * 24 * 3600,
        keep_tags: arguments.keep_tag.clone(),
        time_zone: String::new(),
    };
    let says_something = policy != RetentionPolicy::default();
    let time_zone = arguments.time_zone.clone().unwrap_or("UTC".into());
    says_something.then_some(RetentionPolicy { time_zone, ..policy })
}

async fn retention(server: &LocalServer, arguments: RetentionArguments) -> Result<(), CommandError> {
    let output = arguments.vault.output;
    let path = format!("/vaults/{}/retention", vault_id(server, &arguments.vault.vault).await?);
    let policy = policy(&arguments);
    let series = match arguments.series.as_deref() {
        Some([computer, series]) => Some(Series { computer: computer.clone(), series: series.clone() }),
        _ => None,
    };
    if arguments.dry_run {
        let (computer, series) = series.map(|named| (named.computer, named.series)).unzip();
        let request = PlanRequest { policy, computer, series, tag: None };
        let plan: RetentionPlan = server.post(&format!("{path}/plan"), &request).await?;
        return if output.json { print_json(&plan) } else { print_plan(&plan, "would expire; nothing was changed") };
    }
    if arguments.run {
        let run: RetentionRun = server.post(&format!("{path}/run"), &()).await?;
        return if output.json { print_json(&run) } else { print_plan(&run.plan, "expired and are gone") };
    }
    let now: Retention = match (policy, arguments.remove) {
        (None, false) => server.get(&path).await?,
        (policy, _) => server.put(&path, &SetRetention { series, policy }).await?,
    };
    if output.json { print_json(&now) } else { print_retention(&now) }
}

fn print_plan(plan: &RetentionPlan, end: &str) -> Result<(), CommandError> {
    let row = |item: &api::retention::PlanItem| {
        let action = match item.action {
            Action::Keep => "keep",
            Action::Expire => "expire",
            Action::Held => "held",
        };
        vec![
            action.to_owned(),
            short(&item.snapshot).to_owned(),
            table::time(Some(item.committed_ns)),
            item.computer.clone(),
            item.series.clone(),
            item.reasons.join(", "),
        ]
    };
    let head = ["PLAN", "SNAPSHOT", "COMMITTED (UTC)", "COMPUTER", "SERIES", "WHY"];
    table::print(&head, &plan.items.iter().map(row).collect::<Vec<_>>())?;
    let expired = plan.items.iter().filter(|item| item.action == Action::Expire).count();
    writeln!(io::stdout(), "\n{expired} of {} snapshots {end}.", plan.items.len())?;
    Ok(())
}

fn print_retention(retention: &Retention) -> Result<(), CommandError> {
    let mut out = io::stdout().lock();
    if retention.policies.is_empty() {
        writeln!(out, "No policy: everything is kept.")?;
    }
    for stored in &retention.policies {
        let what = match &stored.series {
            None => "every series without a policy of its own".to_owned(),
            Some(series) => format!("{} {}", series.computer, series.series),
        };
        let policy = &stored.policy;
        let counts = [
            ("last", policy.keep_last),
            ("hourly", policy.keep_hourly),
            ("daily", policy.keep_daily),
            ("weekly", policy.keep_weekly),
            ("monthly", policy.keep_monthly),
            ("yearly", policy.keep_yearly),
        ];
        let mut rules: Vec<String> =
            counts.iter().filter(|(_, count)| *count > 0).map(|(name, count)| format!("{name} {count}")).collect();
        if policy.keep_within_seconds > 0 {
            rules.push(format!("within {} hours", policy.keep_within_seconds / 3600));
        }
        rules.extend(policy.keep_tags.iter().map(|tag| format!("tag {tag}")));
        writeln!(out, "{what}: keep {} (time zone {})", rules.join(", "), policy.time_zone)?;
    }
    writeln!(out, "Deleted snapshots can be brought back for {} days.", retention.undelete_days)?;
    Ok(())
}

pub(crate) async fn clock(settings: &CommonSettings, command: ClockCommand) -> Result<(), CommandError> {
    let server = find(settings)?;
    let (status, output): (ClockStatus, Output) = match command {
        ClockCommand::Status(output) => (server.get("/clock").await?, output),
        ClockCommand::Confirm(output) => (server.post("/clock/confirm", &()).await?, output),
    };
    if output.json {
        return print_json(&status);
    }
    let text = match status.jumped_from_ns {
        None => format!("The server's clock says {}, and it is believed.", utc(status.now_ns)),
        Some(expected_ns) => format!(
            "The server's clock says {}, but by all that is known it should be about {}.\nNothing expires and no hold \
             ends until it is set right, or confirmed with `holdfastd clock confirm`.",
            utc(status.now_ns),
            utc(expected_ns)
        ),
    };
    writeln!(io::stdout(), "{text}")?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_day_means_its_end() {
        assert_eq!(parse_date("1970-01-01"), Ok((24 * 3600 - 1) * NS_PER_SECOND));
        assert_eq!(parse_date("1970-01-01T00:00:01Z"), Ok(NS_PER_SECOND));
        assert!(parse_date("soon").is_err());
    }
}
