//! `holdfastd audit`: who did what, through the API of the running server, and whether an exported log is whole.

use crate::cli::accounts::{Output, find, print_json};
use crate::cli::{CommandError, table};
use crate::config::CommonSettings;
use crate::local::LocalServer;
use api::audit::{AuditChain, AuditEntry};
use api::page::Page;
use clap::{Args, Subcommand};
use control::{Actor, AuditEntry as StoredEntry};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use std::io::{self, BufRead, Write};
use std::path::{Path, PathBuf};

/// Entries that are asked for at once.
const EXPORT_STEP: usize = 5000;

#[derive(Subcommand, Debug)]
pub(crate) enum AuditCommand {
    /// List the newest entries.
    #[command(after_help = "Examples:\n  \
        holdfastd audit list\n  \
        holdfastd audit list --verb user.delete --since 2027-01-01\n  \
        holdfastd audit list --actor \"Anna Nowak\" --limit 200\n  \
        holdfastd audit list --object 0123456789abcdef0123456789abcdef")]
    List {
        #[command(flatten)]
        which: Which,
        /// At most so many, up to 200.
        #[arg(long, default_value_t = 50)]
        limit: u32,
        #[command(flatten)]
        output: Output,
    },
    /// Print entries with their hashes, the oldest first, one JSON object in each line.
    #[command(after_help = "Examples:\n  \
        holdfastd audit export > audit.jsonl\n  \
        holdfastd audit export --after 120000 >> audit.jsonl\n  \
        holdfastd audit export --tenant 0123456789abcdef0123456789abcdef > acme.jsonl")]
    Export {
        #[command(flatten)]
        which: Which,
        /// Only entries behind this number.
        #[arg(long, value_name = "NUMBER", default_value_t = 0)]
        after: i64,
    },
    /// Say whether the log is as it was written: the server's own, or an export.
    #[command(after_help = "Examples:\n  \
        holdfastd audit verify\n  \
        holdfastd audit verify audit.jsonl --whole\n  \
        holdfastd audit verify part-of-acme.jsonl\n\n\
        The hash of the last entry, kept elsewhere, shows later that the end of the log was not cut off.")]
    Verify {
        /// An export; `-` for standard input [default: the log of the running server].
        file: Option<PathBuf>,
        /// The export is of the whole log: a gap in it, or a begin in the middle, is an error.
        #[arg(long, requires = "file")]
        whole: bool,
        #[command(flatten)]
        output: Output,
    },
}

#[derive(Args, Debug)]
pub(crate) struct Which {
    /// Not before this date or time, in UTC.
    #[arg(long, value_name = "DATE", value_parser = parse_time)]
    since: Option<i64>,
    /// Before this date or time, in UTC.
    #[arg(long, value_name = "DATE", value_parser = parse_time)]
    until: Option<i64>,
    /// Id or name of who did it.
    #[arg(long)]
    actor: Option<String>,
    /// Id of what it was done to.
    #[arg(long)]
    object: Option<String>,
    /// What was done, such as user.delete.
    #[arg(long)]
    verb: Option<String>,
    /// Only the log of the tenant with this id.
    #[arg(long, value_name = "ID")]
    tenant: Option<String>,
}

impl Which {
    fn query(&self) -> String {
        let mut query = String::new();
        for (name, time) in [("since_ns", self.since), ("until_ns", self.until)] {
            query.extend(time.map(|time| format!("&{name}={time}")));
        }
        let texts = [("actor", &self.actor), ("object", &self.object), ("verb", &self.verb), ("tenant", &self.tenant)];
        for (name, text) in texts {
            query.extend(text.as_ref().map(|text| format!("&{name}={}", utf8_percent_encode(text, NON_ALPHANUMERIC))));
        }
        query
    }
}

/// A day means its begin.
fn parse_time(text: &str) -> Result<i64, String> {
    let bad = || format!("{text:?} is not a date such as 2027-12-31 or 2027-12-31T14:30:00Z");
    let time = match text.parse::<jiff::Timestamp>() {
        Ok(time) => time,
        Err(_) => {
            let day: jiff::civil::Date = text.parse().map_err(|_| bad())?;
            day.to_zoned(jiff::tz::TimeZone::UTC).map_err(|_| bad())?.timestamp()
        }
    };
    i64::try_from(time.as_nanosecond()).map_err(|_| bad())
}

fn print(entries: &[AuditEntry]) -> io::Result<()> {
    let row = |entry: &AuditEntry| {
        vec![
            entry.sequence.to_string(),
            table::time(Some(entry.at_ns)),
            entry.verb.clone(),
            entry.object.clone(),
            entry.actor_name.clone(),
            entry.address.clone(),
            entry.after.clone().or_else(|| entry.before.clone()).unwrap_or_default(),
        ]
    };
    let rows: Vec<_> = entries.iter().map(row).collect();
    table::print(&["NUMBER", "WHEN (UTC)", "WHAT", "TO WHAT", "BY WHOM", "FROM", "DETAIL"], &rows)
}

async fn export(server: &LocalServer, which: &Which, mut after: i64) -> Result<(), CommandError> {
    let query = which.query();
    loop {
        let lines = server.get_lines(&format!("/audit/export?after={after}&limit={EXPORT_STEP}{query}")).await?;
        let mut out = io::stdout().lock();
        out.write_all(lines.as_bytes())?;
        let Some(last) = lines.lines().last() else { return Ok(()) };
        after = serde_json::from_str::<AuditEntry>(last).map_err(io::Error::from)?.sequence;
    }
}

/// An entry as it was hashed; `None` when an id in it is none.
fn stored(entry: &AuditEntry) -> Option<StoredEntry> {
    let behalf = entry.behalf_tenant.as_deref().map(str::parse).transpose().ok()?;
    let (id, name, address) = (entry.actor.clone(), entry.actor_name.clone(), entry.address.clone());
    Some(StoredEntry {
        sequence: entry.sequence,
        at_ns: entry.at_ns,
        actor: Actor { id, name, behalf, address },
        tenant: entry.tenant.parse().ok()?,
        user: entry.user.as_deref().map(str::parse).transpose().ok()?,
        verb: entry.verb.clone(),
        object: entry.object.clone(),
        before: entry.before.clone(),
        after: entry.after.clone(),
        previous_hash: entry.previous_hash.clone(),
        hash: entry.hash.clone(),
    })
}

/// What an export is worth.
#[derive(Debug, Default, PartialEq, Eq, serde::Serialize)]
struct Checked {
    /// Entries that are as they were written.
    entries: u64,
    /// Neighbours among them that fit each other.
    links: u64,
    /// Hash of the last one.
    last_hash: Option<String>,
}

/// Every entry is as it was hashed, and fits the one before it where that is in the file. An export of a part of the log
/// has gaps, where nothing can be said.
fn check(lines: impl Iterator<Item = io::Result<String>>, whole: bool) -> Result<Checked, CommandError> {
    let mut checked = Checked::default();
    let mut before: Option<AuditEntry> = None;
    for (number, line) in lines.enumerate() {
        let line = line?;
        if line.trim().is_empty() {
            continue;
        }
        let broken = |what: &str| CommandError::Refused(format!("line {}: {what}", number + 1));
        let entry: AuditEntry = serde_json::from_str(&line).map_err(|error| broken(&error.to_string()))?;
        if !stored(&entry).is_some_and(|stored| stored.is_intact()) {
            return Err(broken(&format!("entry {} was changed", entry.sequence)));
        }
        let expected = before.as_ref().map_or(1, |before| before.sequence + 1);
        if whole && entry.sequence != expected {
            return Err(broken(&format!("entry {expected} is missing")));
        }
        if let Some(before) = &before {
            if entry.sequence <= before.sequence {
                return Err(broken(&format!("entry {} stands behind entry {}", entry.sequence, before.sequence)));
            }
            if entry.sequence == before.sequence + 1 {
                if entry.previous_hash != before.hash {
                    return Err(broken(&format!("entry {} does not fit the one before it", entry.sequence)));
                }
                checked.links += 1;
            }
        }
        checked.entries += 1;
        checked.last_hash = Some(entry.hash.clone());
        before = Some(entry);
    }
    Ok(checked)
}

fn verify_file(file: &Path, whole: bool, output: &Output) -> Result<(), CommandError> {
    let checked = match file.to_str() {
        Some("-") => check(io::stdin().lock().lines(), whole)?,
        _ => {
            let open = std::fs::File::open(file);
            let open = open.map_err(|error| CommandError::Refused(format!("{}: {error}", file.display())))?;
            check(io::BufReader::new(open).lines(), whole)?
        }
    };
    if output.json {
        return print_json(&checked);
    }
    let Checked { entries, links, last_hash } = checked;
    writeln!(io::stdout(), "{entries} entries are as they were written; {links} fit the one before them.")?;
    if let Some(hash) = last_hash {
        writeln!(io::stdout(), "Last hash: {hash}")?;
    }
    Ok(())
}

pub(crate) async fn audit(settings: &CommonSettings, command: AuditCommand) -> Result<(), CommandError> {
    match command {
        AuditCommand::List { which, limit, output } => {
            let path = format!("/audit?limit={limit}{}", which.query());
            let page: Page<AuditEntry> = find(settings)?.get(&path).await?;
            if output.json {
                return print_json(&page);
            }
            print(&page.items)?;
        }
        AuditCommand::Export { which, after } => export(&find(settings)?, &which, after).await?,
        AuditCommand::Verify { file: Some(file), whole, output } => verify_file(&file, whole, &output)?,
        AuditCommand::Verify { file: None, output, .. } => {
            let chain: AuditChain = find(settings)?.get_at_leisure("/audit/chain").await?;
            if output.json {
                print_json(&chain)?;
            }
            if let Some(sequence) = chain.broken_at {
                let text = format!("entry {sequence} was changed, or one before it is missing");
                return Err(CommandError::Refused(text));
            }
            if !output.json {
                writeln!(io::stdout(), "All {} entries are as they were written.", chain.entries)?;
                if let Some(hash) = chain.last_hash {
                    writeln!(io::stdout(), "Last hash: {hash}")?;
                }
            }
        }
    }
    Ok(())
}
