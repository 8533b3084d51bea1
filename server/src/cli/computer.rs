//! `holdfastd computer` and `plan`: what is backed up, and when, through the API of the running server.

use crate::cli::accounts::{Output, find, print_json};
use crate::cli::tenant::{find_tenant, find_user, quoted};
use crate::cli::{CommandError, table};
use crate::config::CommonSettings;
use crate::local::LocalServer;
use api::computers::{Computer, ComputerState, Enrolment, NewEnrolment, NewRestore, OnConflict, Started};
use api::jobs::Job;
use api::page::Page;
use api::plans::{NewPlan, Plan, PlanBody, PlanRevisions, PlanState};
use clap::{Args, Subcommand, ValueEnum};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

/// Longest plan that is read from a file, bytes.
const PLAN_BYTES_MAX: u64 = 1 << 20;

#[derive(Subcommand, Debug)]
pub(crate) enum ComputerCommand {
    /// List computers.
    List {
        /// Only those of this user: TENANT/USER, names or ids.
        #[arg(long, value_name = "TENANT/USER")]
        user: Option<String>,
        #[command(flatten)]
        output: Output,
    },
    /// Show a computer.
    Show(One),
    /// Print the line that enrols a computer of a user. It is good for ten minutes, once.
    #[command(after_help = "Examples:\n  \
        holdfastd --token-file anna.token computer enrol acme anna\n  \
        holdfastd --token-file anna.token computer enrol acme anna --replaces COMPUTER")]
    Enrol {
        /// Tenant: name or id.
        tenant: String,
        /// User: name or id.
        user: String,
        /// Id of a computer whose place is taken: its plans and history go on, its old credential dies.
        #[arg(long, value_name = "COMPUTER")]
        replaces: Option<String>,
        #[command(flatten)]
        output: Output,
    },
    /// Retire a computer: its credential is dead at once, its snapshots stay.
    Retire(One),
    /// Start all enabled plans of a computer now.
    Start(One),
    /// Order a restore on a computer, of its own snapshots or another one's of the same user.
    #[command(after_help = "Example:\n  \
        holdfastd --token-file anna.token computer restore COMPUTER SNAPSHOT --target /srv/back --path /home/anna")]
    Restore {
        /// Computer id, from the list.
        computer: String,
        /// Snapshot id.
        snapshot: String,
        /// Absolute path of the directory below which it is written.
        #[arg(long, value_name = "DIR")]
        target: String,
        /// Absolute path in the snapshot; may be repeated [default: everything].
        #[arg(long, value_name = "PATH")]
        path: Vec<String>,
        /// What is done where something is in the way.
        #[arg(long, value_enum, default_value = "stop")]
        on_conflict: ConflictName,
        #[command(flatten)]
        output: Output,
    },
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum ConflictName {
    /// Nothing is written at all.
    Stop,
    /// What is there stays.
    Skip,
    /// It is replaced when it is older.
    Newer,
    /// It is replaced.
    Overwrite,
    /// Both stay.
    KeepBoth,
}

#[derive(Subcommand, Debug)]
pub(crate) enum PlanCommand {
    /// List plans.
    List {
        /// Only those of this computer: its id.
        #[arg(long, value_name = "COMPUTER")]
        computer: Option<String>,
        #[command(flatten)]
        output: Output,
    },
    /// Print a plan as JSON, as `plan edit` takes it.
    Show(One),
    /// Make a plan for a computer from a file, or from standard input.
    #[command(after_help = "Example:\n  \
        echo '{\"source\":{\"kind\":\"folders\",\"paths\":[\"/home\"]},\n  \
               \"schedule\":{\"rule\":{\"every\":\"day\",\"at\":\"02:30\"},\"time_zone\":\"Europe/Berlin\"}}' |\n  \
        holdfastd --token-file anna.token plan add COMPUTER nightly -")]
    Add {
        /// Computer id.
        computer: String,
        /// Name, and the series of its snapshots; it stays.
        name: String,
        /// JSON; - is standard input.
        file: PathBuf,
        #[command(flatten)]
        output: Output,
    },
    /// Replace what a plan says; the one before stays among its revisions.
    Edit {
        /// Plan id.
        plan: String,
        /// JSON; - is standard input.
        file: PathBuf,
        #[command(flatten)]
        output: Output,
    },
    /// List what a plan said before.
    Revisions(One),
    /// Let a plan run only when somebody starts it.
    Pause(One),
    /// Let a paused plan run by its schedule again.
    Resume(One),
    /// Start a plan now.
    Start(One),
    /// Delete a plan; its jobs and snapshots stay.
    Delete(One),
}

#[derive(Args, Debug)]
pub(crate) struct One {
    /// Its id, from the list.
    id: String,
    #[command(flatten)]
    output: Output,
}

/// All pages of a list.
async fn all<T: DeserializeOwned>(server: &LocalServer, path: &str) -> Result<Page<T>, CommandError> {
    let (mut items, mut after) = (Vec::new(), String::new());
    loop {
        let page: Page<T> = server.get(&format!("{path}limit=200{after}")).await?;
        items.extend(page.items);
        match page.next {
            Some(next) => after = format!("&after={}", quoted(&next)),
            None => return Ok(Page { items, next: None }),
        }
    }
}

fn show<T: Serialize>(
    value: &T,
    output: Output,
    row: impl Fn(&T) -> Vec<String>,
    head: &[&str],
) -> Result<(), CommandError> {
    if output.json { print_json(value) } else { Ok(table::print(head, &[row(value)])?) }
}

const COMPUTER_HEAD: [&str; 7] = ["COMPUTER", "NAME", "STATE", "", "SYSTEM", "VERSION", "LAST SEEN (UTC)"];

fn computer_row(computer: &Computer) -> Vec<String> {
    vec![
        computer.id.clone(),
        computer.name.clone(),
        match computer.state {
            ComputerState::Active => "active".into(),
            ComputerState::Retired => "retired".into(),
        },
        if computer.online { "online".into() } else { String::new() },
        computer.os.clone(),
        computer.agent_version.clone(),
        table::time(computer.seen_ns),
    ]
}

const PLAN_HEAD: [&str; 6] = ["PLAN", "NAME", "STATE", "COMPUTER", "REVISION", "NEXT (UTC)"];

fn plan_row(plan: &Plan) -> Vec<String> {
    vec![
        plan.id.clone(),
        plan.name.clone(),
        match plan.state {
            PlanState::Enabled => "enabled".into(),
            PlanState::Paused => "paused".into(),
            PlanState::Deleted => "deleted".into(),
        },
        plan.computer.clone(),
        plan.revision.to_string(),
        table::time(plan.next_ns),
    ]
}

fn say_queued(job: &Job, output: Output) -> Result<(), CommandError> {
    if output.json {
        return print_json(job);
    }
    Ok(writeln!(io::stdout(), "Job {} is queued; see `holdfastd job log {}`.", job.id, job.id)?)
}

pub(crate) async fn computer(settings: &CommonSettings, command: ComputerCommand) -> Result<(), CommandError> {
    let server = find(settings)?;
    match command {
        ComputerCommand::List { user, output } => {
            let filter = match user {
                None => String::new(),
                Some(named) => {
                    let wrong = || CommandError::Refused(format!("{named}: must be written TENANT/USER"));
                    let (tenant, user) = named.split_once('/').ok_or_else(wrong)?;
                    let tenant = find_tenant(&server, tenant).await?.id;
                    format!("user={}&", find_user(&server, &tenant, user).await?.user)
                }
            };
            let page: Page<Computer> = all(&server, &format!("/computers?{filter}")).await?;
            if output.json {
                return print_json(&page);
            }
            Ok(table::print(&COMPUTER_HEAD, &page.items.iter().map(computer_row).collect::<Vec<_>>())?)
        }
        ComputerCommand::Show(One { id, output }) => {
            let found: Computer = server.get(&format!("/computers/{}", quoted(&id))).await?;
            show(&found, output, computer_row, &COMPUTER_HEAD)
        }
        ComputerCommand::Enrol { tenant, user, replaces, output } => {
            let tenant = find_tenant(&server, &tenant).await?.id;
            let user = find_user(&server, &tenant, &user).await?.user;
            let made: Enrolment = server.post(&format!("/users/{user}/enrolments"), &NewEnrolment { replaces }).await?;
            if output.json {
                return print_json(&made);
            }
            let until = table::time(Some(made.expires_ns));
            let (url, token, fingerprint) = (&made.url, &made.token, server.fingerprint());
            writeln!(io::stdout(), "On the computer, until {until} UTC:\n")?;
            Ok(writeln!(io::stdout(), "  holdfast enrol {url} --token {token} --fingerprint {fingerprint}")?)
        }
        ComputerCommand::Retire(One { id, output }) => {
            let retired: Computer = server.delete(&format!("/computers/{}", quoted(&id))).await?;
            show(&retired, output, computer_row, &COMPUTER_HEAD)
        }
        ComputerCommand::Start(One { id, output }) => {
            let started: Started = server.post(&format!("/computers/{}/start", quoted(&id)), &()).await?;
            if output.json {
                return print_json(&started);
            }
            let row = |plan: &api::computers::StartedPlan| {
                let job = plan.job.as_ref().map(|job| format!("job {} is queued", job.id));
                vec![plan.plan.clone(), plan.name.clone(), job.or(plan.skipped.clone()).unwrap_or_default()]
            };
            Ok(table::print(&["PLAN", "NAME", ""], &started.plans.iter().map(row).collect::<Vec<_>>())?)
        }
        ComputerCommand::Restore { computer, snapshot, target, path: paths, on_conflict, output } => {
            let on_conflict = match on_conflict {
                ConflictName::Stop => OnConflict::Stop,
                ConflictName::Skip => OnConflict::Skip,
                ConflictName::Newer => OnConflict::Newer,
                ConflictName::Overwrite => OnConflict::Overwrite,
                ConflictName::KeepBoth => OnConflict::KeepBoth,
            };
            let order = NewRestore { snapshot, paths, target, on_conflict };
            let job: Job = server.post(&format!("/computers/{}/restores", quoted(&computer)), &order).await?;
            say_queued(&job, output)
        }
    }
}

/// What a plan is to say, from a file or standard input.
fn read_body(file: &Path) -> Result<PlanBody, CommandError> {
    let mut text = String::new();
    let shown = file.display();
    let read = match file.as_os_str() == "-" {
        true => io::stdin().take(PLAN_BYTES_MAX).read_to_string(&mut text),
        false => std::fs::File::open(file).and_then(|opened| opened.take(PLAN_BYTES_MAX).read_to_string(&mut text)),
    };
    read.map_err(|error| CommandError::Refused(format!("{shown}: {error}")))?;
    serde_json::from_str(&text).map_err(|error| CommandError::Refused(format!("{shown}: not a plan: {error}")))
}

pub(crate) async fn plan(settings: &CommonSettings, command: PlanCommand) -> Result<(), CommandError> {
    let server = find(settings)?;
    let path = |id: &str, rest: &str| format!("/plans/{}{rest}", quoted(id));
    match command {
        PlanCommand::List { computer, output } => {
            let filter = computer.map_or(String::new(), |id| format!("computer={}&", quoted(&id)));
            let page: Page<Plan> = all(&server, &format!("/plans?{filter}")).await?;
            if output.json {
                return print_json(&page);
            }
            Ok(table::print(&PLAN_HEAD, &page.items.iter().map(plan_row).collect::<Vec<_>>())?)
        }
        PlanCommand::Show(One { id, output }) => {
            let found: Plan = server.get(&path(&id, "")).await?;
            if output.json { print_json(&found) } else { print_json(&found.body) }
        }
        PlanCommand::Add { computer, name, file, output } => {
            let new = NewPlan { name, body: read_body(&file)? };
            let made: Plan = server.post(&format!("/computers/{}/plans", quoted(&computer)), &new).await?;
            show(&made, output, plan_row, &PLAN_HEAD)
        }
        PlanCommand::Edit { plan, file, output } => {
            let edited: Plan = server.put(&path(&plan, ""), &read_body(&file)?).await?;
            show(&edited, output, plan_row, &PLAN_HEAD)
        }
        PlanCommand::Revisions(One { id, output }) => {
            let found: PlanRevisions = server.get(&path(&id, "/revisions")).await?;
            if output.json {
                return print_json(&found);
            }
            let mut rows = Vec::with_capacity(found.revisions.len());
            for revision in &found.revisions {
                let body = serde_json::to_string(&revision.body).map_err(io::Error::from)?;
                let made = table::time(Some(revision.created_ns));
                rows.push(vec![revision.revision.to_string(), made, revision.created_by.clone(), body]);
            }
            Ok(table::print(&["REVISION", "MADE (UTC)", "BY", "WHAT IT SAID"], &rows)?)
        }
        PlanCommand::Pause(One { id, output }) => {
            show(&server.post(&path(&id, "/pause"), &()).await?, output, plan_row, &PLAN_HEAD)
        }
        PlanCommand::Resume(One { id, output }) => {
            show(&server.post(&path(&id, "/resume"), &()).await?, output, plan_row, &PLAN_HEAD)
        }
        PlanCommand::Start(One { id, output }) => say_queued(&server.post(&path(&id, "/start"), &()).await?, output),
        PlanCommand::Delete(One { id, output }) => {
            show(&server.delete(&path(&id, "")).await?, output, plan_row, &PLAN_HEAD)
        }
    }
}
