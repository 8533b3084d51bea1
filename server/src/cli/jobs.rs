//! `holdfastd job`: what became of backups and restores, through the API of the running server.

use crate::cli::accounts::{Output, find, print_json};
use crate::cli::tenant::{find_tenant, quoted};
use crate::cli::{CommandError, table};
use crate::config::CommonSettings;
use api::jobs::{FoundLog, Job, ListedJob, LogLine};
use api::page::Page;
use clap::{Args, Subcommand};
use serde::Serialize;
use std::io::{self, Write};

#[derive(Subcommand, Debug)]
pub(crate) enum JobCommand {
    /// List jobs, the newest first.
    #[command(after_help = "Examples:\n  \
        holdfastd job list --state failed\n  \
        holdfastd job list --tenant acme --sort end --limit 20")]
    List {
        #[command(flatten)]
        filter: Filter,
        /// By start, end or state; failed ones first by state.
        #[arg(long, default_value = "start")]
        sort: String,
        #[command(flatten)]
        output: Output,
    },
    /// Find jobs by words of their logs, the newest first.
    #[command(after_help = "Example:\n  holdfastd job search 'permission denied'")]
    Search {
        /// Words, each of which must be in the log.
        words: String,
        #[command(flatten)]
        filter: Filter,
        #[command(flatten)]
        output: Output,
    },
    /// Print a job's log.
    Log {
        /// Its id.
        job: String,
    },
}

#[derive(Args, Debug)]
pub(crate) struct Filter {
    /// Only those in this state: queued, running, succeeded, warning, failed, cancelled or missed.
    #[arg(long, value_name = "STATE")]
    state: Option<String>,
    /// Only backups, or only restores.
    #[arg(long, value_name = "KIND")]
    kind: Option<String>,
    /// Only those of this customer, by name or id.
    #[arg(long, value_name = "TENANT")]
    tenant: Option<String>,
    /// Only those on this computer, by id.
    #[arg(long, value_name = "ID")]
    computer: Option<String>,
    /// Only those by this plan, by id.
    #[arg(long, value_name = "ID")]
    plan: Option<String>,
    /// At most so many, up to 200.
    #[arg(long, default_value_t = 50)]
    limit: u32,
}

/// A word as it stands on the wire.
fn word(value: &impl Serialize) -> String {
    let value = serde_json::to_value(value).ok();
    value.as_ref().and_then(serde_json::Value::as_str).unwrap_or("-").to_owned()
}

fn row(listed: &ListedJob) -> Vec<String> {
    let ListedJob { job, computer_name, plan_name, user_name, tenant_title, .. } = listed;
    vec![
        job.id.clone(),
        word(&job.state),
        word(&job.kind),
        table::time(Some(job.started_ns)),
        table::time(job.ended_ns),
        tenant_title.clone(),
        user_name.clone(),
        computer_name.clone(),
        plan_name.clone().unwrap_or("-".into()),
        job.message.clone().unwrap_or_default(),
    ]
}

const HEAD: [&str; 10] =
    ["ID", "STATE", "KIND", "STARTED (UTC)", "ENDED (UTC)", "TENANT", "USER", "COMPUTER", "PLAN", "MESSAGE"];

pub(crate) async fn job(settings: &CommonSettings, command: JobCommand) -> Result<(), CommandError> {
    let server = find(settings)?;
    let query = async |filter: Filter| -> Result<String, CommandError> {
        let Filter { state, kind, tenant, computer, plan, limit } = filter;
        let tenant = match tenant {
            Some(named) => Some(find_tenant(&server, &named).await?.id),
            None => None,
        };
        let mut query = format!("limit={limit}");
        for (name, value) in
            [("state", state), ("kind", kind), ("tenant", tenant), ("computer", computer), ("plan", plan)]
        {
            if let Some(value) = value {
                query.push_str(&format!("&{name}={}", quoted(&value)));
            }
        }
        Ok(query)
    };
    match command {
        JobCommand::List { filter, sort, output } => {
            let query = query(filter).await?;
            let page: Page<ListedJob> = server.get(&format!("/jobs?{query}&sort={}", quoted(&sort))).await?;
            if output.json {
                return print_json(&page);
            }
            table::print(&HEAD, &page.items.iter().map(row).collect::<Vec<_>>())?;
        }
        JobCommand::Search { words, filter, output } => {
            let query = query(filter).await?;
            let page: Page<FoundLog> = server.get(&format!("/job-logs?{query}&words={}", quoted(&words))).await?;
            if output.json {
                return print_json(&page);
            }
            for found in &page.items {
                table::print(&HEAD, &[row(&found.job)])?;
                print_lines(&found.lines)?;
                writeln!(io::stdout())?;
            }
        }
        JobCommand::Log { job } => {
            let job: Job = server.get(&format!("/jobs/{}", quoted(&job))).await?;
            let mut after = String::new();
            loop {
                let page: Page<LogLine> = server.get(&format!("/jobs/{}/log?limit=200{after}", job.id)).await?;
                print_lines(&page.items)?;
                match page.next {
                    Some(next) => after = format!("&after={}", quoted(&next)),
                    None => return Ok(()),
                }
            }
        }
    }
    Ok(())
}

fn print_lines(lines: &[LogLine]) -> io::Result<()> {
    let rows: Vec<Vec<String>> =
        lines.iter().map(|line| vec![table::time(Some(line.at_ns)), word(&line.level), line.text.clone()]).collect();
    table::print(&["AT (UTC)", "LEVEL", "TEXT"], &rows)
}
