//! `bench main-job`: every tool backs the same tree up three times and restores it, in one run. All tools make their
//! first and unchanged backups, then the tree is changed once, then all make the changed backup and restore.

use crate::error::{BenchError, Doing};
use crate::measure::{self, ServerWatch, Usage};
use crate::report::{Row, Scenario, table, write_json};
use crate::tool::{Tool, borg::Borg, holdfast::Holdfast, restic, restic::Restic, rustic::Rustic};
use crate::{binaries, tool};
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::Command;
use tests::compare::{Options as CompareOptions, compare};
use tests::seed::Seed;
use tests::{change, directory, trees};

/// Arguments of `bench main-job`.
#[derive(clap::Args)]
pub struct Options {
    /// Write one array of rows here
    #[arg(long)]
    json: Option<PathBuf>,
    /// Tools to measure; those that are not installed are left out
    #[arg(long, value_delimiter = ',', default_value = "holdfast,restic,borg,rustic")]
    tools: Vec<String>,
    /// Folder for repositories, a copy of the tree and restored trees (about four times the tree); temporary by default
    #[arg(long)]
    work: Option<PathBuf>,
    /// Seed of the 1 % change
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Tree to back up
    path: PathBuf,
}

/// Files changed, in thousandths.
const CHANGED_PER_MILLE: u64 = 10;

/// Runs everything and prints the table.
pub fn run(options: &Options) -> Result<(), BenchError> {
    directory::raise_open_file_limit();
    let work = match &options.work {
        Some(folder) => {
            fs::create_dir_all(folder).doing(folder.display().to_string())?;
            tempfile::tempdir_in(folder)
        }
        None => tempfile::tempdir(),
    }
    .doing("work folder")?;
    let work = fs::canonicalize(work.path()).map(|path| (work, path)).doing("work folder")?;
    let (_guard, work) = (work.0, work.1);

    let source = work.join("tree");
    say(&format!("copying {} to change it later", options.path.display()))?;
    let copied = Command::new("cp").args(["-a", "--reflink=auto", "--"]).arg(&options.path).arg(&source).status();
    if !copied.doing("cp -a")?.success() {
        return Err(BenchError::Setup(format!("{} cannot be copied", options.path.display())));
    }
    let totals = trees::totals(&source).doing("tree")?;
    say(&format!(
        "{} files, {} bytes; {} processors; seed {}",
        totals.files,
        totals.bytes,
        std::thread::available_parallelism().map_or(0, usize::from),
        options.seed
    ))?;

    let mut rows = Vec::new();
    warm(&source)?;
    for (scenario, argument) in [(Scenario::First, None), (Scenario::Unchanged, Some("--unchanged"))] {
        rows.push(floor(&source, &work, scenario, argument)?);
    }
    let mut tools = installed(options, &work)?;
    for tool in &mut tools {
        say(&format!("{}: {}", tool.name(), tool.version()))?;
        warm(&source)?;
        for scenario in [Scenario::First, Scenario::Unchanged] {
            rows.push(backup(tool.as_mut(), scenario, &source)?);
        }
    }
    let changes = change::apply(&source, CHANGED_PER_MILLE, &mut Seed(options.seed).stream("bench change"))
        .doing("changing the tree")?;
    say(&format!("changed {} files, {} bytes written", changes.len(), changes.bytes_written))?;
    for tool in &mut tools {
        warm(&source)?;
        rows.push(backup(tool.as_mut(), Scenario::Changed, &source)?);
        rows.push(restore(tool.as_mut(), &source, &work.join("restored"))?);
    }
    if let Some(path) = &options.json {
        write_json(&rows, path)?;
    }
    write!(io::stdout(), "{}", table(&rows)).doing("standard output")?;
    drop(tools);
    directory::remove_tree(&work).doing("work folder")
}

fn say(line: &str) -> Result<(), BenchError> {
    writeln!(io::stderr(), "bench: {line}").doing("standard error")
}

fn installed(options: &Options, work: &Path) -> Result<Vec<Box<dyn Tool>>, BenchError> {
    let mut tools: Vec<Box<dyn Tool>> = Vec::new();
    for name in &options.tools {
        let work = work.join(name);
        match name.as_str() {
            "holdfast" => tools.push(Box::new(Holdfast::new(&work, &binaries::folder()?)?)),
            "restic" if restic::is_installed() => tools.push(Box::new(Restic::new(&work)?)),
            "borg" if tool::is_installed("borg") => tools.push(Box::new(Borg::new(&work)?)),
            "rustic" if tool::is_installed("rustic") => tools.push(Box::new(Rustic::new(&work)?)),
            "restic" | "borg" | "rustic" => say(&format!("{name}: not installed, left out"))?,
            _ => return Err(BenchError::Setup(format!("{name} is not a tool this bench knows"))),
        }
    }
    Ok(tools)
}

fn backup(tool: &mut dyn Tool, scenario: Scenario, source: &Path) -> Result<Row, BenchError> {
    let (client, server) = served(tool, |tool| tool.backup(source))?;
    let row = Row::new(tool.name(), scenario, client, server, measure::apparent_bytes(&tool.repository())?);
    say(&format!("{} {scenario:?}: {:.2} s", tool.name(), row.seconds))?;
    Ok(row)
}

fn restore(tool: &mut dyn Tool, source: &Path, target: &Path) -> Result<Row, BenchError> {
    fs::create_dir_all(target).doing(target.display().to_string())?;
    let ((client, restored), server) = served(tool, |tool| tool.restore(source, target))?;
    let report = compare(source, &restored, CompareOptions::default()).doing("comparing the restored tree")?;
    // A peer's losses are its own; ours end the run.
    match (report.is_equal(), tool.name()) {
        (false, "holdfast") => return Err(BenchError::Unequal { tool: "holdfast", report: report.to_string() }),
        _ => say(&format!("{} Restore: {:.2} s; {report}", tool.name(), client.seconds))?,
    }
    directory::remove_tree(target).doing(target.display().to_string())?;
    Ok(Row::new(tool.name(), Scenario::Restore, client, server, measure::apparent_bytes(&tool.repository())?))
}

/// Starts the server, runs one measured thing, stops the server cleanly.
fn served<T>(
    tool: &mut dyn Tool,
    run: impl FnOnce(&mut dyn Tool) -> Result<T, BenchError>,
) -> Result<(T, (f64, u64)), BenchError> {
    tool.start()?;
    let watch = tool.server_pid().map(ServerWatch::begin).transpose()?;
    let result = run(tool)?;
    let server = watch.map(ServerWatch::end).transpose()?.unwrap_or_default();
    tool.stop()?;
    Ok((result, server))
}

fn floor(source: &Path, work: &Path, scenario: Scenario, argument: Option<&str>) -> Result<Row, BenchError> {
    let own = std::env::current_exe().doing("own binary")?;
    let log = work.join("floor.log");
    let client: Usage = measure::run(Command::new(own).arg("floor").args(argument).arg(source), &[0], &log)?;
    let stored = measure::end_of(&log).trim().parse().unwrap_or(0);
    say(&format!("floor {scenario:?}: {:.2} s", client.seconds))?;
    Ok(Row::new("floor", scenario, client, (0.0, 0), stored))
}

/// Reads every file once, so that no tool pays for a cold cache.
fn warm(path: &Path) -> Result<(), BenchError> {
    for entry in fs::read_dir(path).doing(path.display().to_string())? {
        let entry = entry.doing(path.display().to_string())?;
        let kind = entry.file_type().doing("file type")?;
        if kind.is_dir() {
            warm(&entry.path())?;
        } else if kind.is_file() {
            let mut file = File::open(entry.path()).doing(entry.path().display().to_string())?;
            io::copy(&mut file, &mut io::sink()).doing(entry.path().display().to_string())?;
        }
    }
    Ok(())
}
