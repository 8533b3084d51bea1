//! From arguments to commands, from results to exit codes.

pub mod arguments;
mod login;
mod service;
mod states;

use crate::around::{OnFailure, SideCommand, SideCommands};
use crate::backup::{self, BackupOptions, Source, StreamInput};
use crate::browse::{self, FindPattern};
use crate::check;
use crate::client::Patience;
use crate::config::{Folders, Login};
use crate::connection::{Connection, computer_name};
use crate::databases::{DatabaseLogin, DatabaseSource};
use crate::error::{AgentError, EXIT_COMPLETE, EXIT_FAILED, EXIT_WARNINGS};
use crate::fs::{Excludes, OwnerMap, Owners, RestoreOptions, ScanOptions};
use crate::program::Program;
use crate::report::{Report, Style};
use crate::restore::{self, RestoreRequest};
use crate::snapshots::{Filter, parse_date, pick};
use arguments::{
    Arguments, BackupArguments, CheckArguments, Command, FailureArgument, FilterArguments, LsArguments,
    ProfileArgument, RestoreArguments,
};
use clap::Parser;
use parking_lot::Mutex;
use repo_format::entry::Profile;
use rustix::process::{Resource, getrlimit, setrlimit};
use serde::Serialize;
use std::ffi::{OsStr, OsString};
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How often a person is told that the server is away.
const WAITING_NOTE_PERIOD: Duration = Duration::from_secs(15);

/// Runs the command that the process was started with; its exit code.
pub fn main() -> u8 {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            error.print().ok();
            return if error.use_stderr() { EXIT_FAILED } else { EXIT_COMPLETE };
        }
    };
    let style = match (arguments.json, arguments.quiet) {
        (true, _) => Style::Json,
        (false, true) => Style::Quiet,
        (false, false) => Style::Text,
    };
    let report = Arc::new(Report::new(style));
    raise_open_files_limit();
    match run(arguments, &report) {
        Ok(code) => code,
        Err(error) => {
            report.end_progress();
            report.failure(&error);
            EXIT_FAILED
        }
    }
}

/// As many open files as the system lets a process ask for, within reason; without it a restore only opens some files
/// twice.
fn raise_open_files_limit() {
    const OPEN_FILES_WANTED: u64 = 65_536;
    let mut limit = getrlimit(Resource::Nofile);
    let wanted = limit.maximum.map_or(OPEN_FILES_WANTED, |maximum| maximum.min(OPEN_FILES_WANTED));
    if limit.current.is_some_and(|current| current < wanted) {
        limit.current = Some(wanted);
        setrlimit(Resource::Nofile, limit).ok();
    }
}

fn run(arguments: Arguments, report: &Arc<Report>) -> Result<u8, AgentError> {
    let folders = Folders::from_environment()?;
    let patience = patience(arguments.patience, report);
    let open = |limit: Option<u64>| Connection::open(folders.clone(), patience.clone(), limit);
    match arguments.command {
        Command::Login(login) => login::login(&login, &folders, report),
        Command::Logout => {
            let text = if Login::remove(&folders)? { "logged out" } else { "was not logged in" };
            report.result(&Done { event: "logged_out" }, text);
            Ok(EXIT_COMPLETE)
        }
        Command::Backup(arguments) => run_backup(*arguments, open, report),
        Command::Snapshots(filter) => {
            browse::list_snapshots(&open(None)?, &to_filter(filter)?, report)?;
            Ok(EXIT_COMPLETE)
        }
        Command::Forget(arguments) => states::forget(&open(None)?, arguments, report),
        Command::Undelete(arguments) => states::undelete(&open(None)?, &arguments, report),
        Command::Tag(arguments) => states::tag(&open(None)?, arguments, report),
        Command::Hold(arguments) => states::hold(&open(None)?, &arguments, report),
        Command::Ls(arguments) => list(&open(None)?, arguments, report),
        Command::Find(arguments) => {
            let pattern = FindPattern::new(&arguments.pattern)?;
            browse::find(&open(None)?, &pattern, &to_filter(arguments.filter)?, report)?;
            Ok(EXIT_COMPLETE)
        }
        Command::Diff(arguments) => {
            let connection = open(None)?;
            let snapshots = connection.snapshots()?;
            let first = pick(&snapshots, &arguments.first, &Filter::default())?;
            let second = pick(&snapshots, &arguments.second, &Filter::default())?;
            browse::diff(&connection, &first, &second, report)?;
            Ok(EXIT_COMPLETE)
        }
        Command::Restore(arguments) => run_restore(&open(None)?, arguments, report),
        Command::Cat(arguments) => {
            let connection = open(None)?;
            let snapshot = pick(&connection.snapshots()?, &arguments.snapshot, &to_filter(arguments.filter)?)?;
            let out = std::io::stdout();
            browse::cat(&connection, &snapshot, arguments.path.as_bytes(), &mut out.lock())?;
            Ok(EXIT_COMPLETE)
        }
        Command::Enrol(enrol) => login::enrol(&enrol, &folders, report),
        Command::Run(arguments) => service::run(&arguments, &folders, report),
        Command::Check(arguments) => run_check(&open(None)?, arguments, report),
    }
}

#[derive(Serialize)]
struct Done {
    event: &'static str,
}

/// Tells a person at most every few seconds that the agent waits, and why.
fn patience(seconds: u64, report: &Arc<Report>) -> Patience {
    let (report, told) = (report.clone(), Mutex::new(None::<Instant>));
    Patience {
        total: Duration::from_secs(seconds),
        on_wait: Arc::new(move |reason, pause| {
            report.waiting(reason, pause);
            let mut told = told.lock();
            if told.is_none_or(|last| last.elapsed() >= WAITING_NOTE_PERIOD) {
                *told = Some(Instant::now());
                report.remark(b"", &format!("waiting for the server: {reason}"));
            }
        }),
    }
}

fn to_filter(arguments: FilterArguments) -> Result<Filter, AgentError> {
    let FilterArguments { computer, series, tag, at } = arguments;
    let at_ns = at.as_deref().map(parse_date).transpose()?;
    Ok(Filter { computer, series, tag, at_ns })
}

fn run_backup(
    arguments: BackupArguments,
    open: impl FnOnce(Option<u64>) -> Result<Connection, AgentError>,
    report: &Arc<Report>,
) -> Result<u8, AgentError> {
    let workers = worker_count();
    let chosen = choose_source(&arguments)?;
    let commands = side_commands(&arguments);
    let profile = match (arguments.profile, &chosen) {
        (Some(ProfileArgument::Default), _) | (None, Chosen::Source(Source::Paths { .. })) => Profile::Default,
        (Some(ProfileArgument::Fine), _) | (None, Chosen::Source(Source::Streams { .. }) | Chosen::Database(_)) => {
            Profile::Fine
        }
        (Some(ProfileArgument::Image), _) => Profile::Image,
    };
    let mut options = BackupOptions {
        computer: arguments.computer.clone().unwrap_or_default(),
        name: arguments.name,
        tags: arguments.tag,
        profile,
        workers,
    };
    let connection = open(arguments.limit_upload)?;
    if options.computer.is_empty() {
        options.computer = connection.login.computer.clone().unwrap_or_else(computer_name);
    }
    let chosen = match chosen {
        Chosen::Source(Source::Paths { roots, options: scan }) if arguments.dry_run => {
            let preview = backup::preview(&connection, &roots, *scan, &options, report)?;
            report.result(&preview, &backup::preview_text(&preview));
            return Ok(if preview.warnings > 0 { EXIT_WARNINGS } else { EXIT_COMPLETE });
        }
        chosen => chosen,
    };
    // Other programs are started only when the server is known to answer.
    if matches!(chosen, Chosen::Database(_)) || commands != SideCommands::default() {
        connection.readable_snapshots()?;
    }
    let result = commands.around(report, || {
        let source = match chosen {
            Chosen::Source(source) => source,
            Chosen::Database(database) => {
                database.open(&connection, &options.computer, options.name.as_deref(), None)?
            }
        };
        backup::backup(&connection, source, &options, report)
    })?;
    report.result(&result, &backup::summary_text(&result));
    Ok(if result.counters.warnings > 0 { EXIT_WARNINGS } else { EXIT_COMPLETE })
}

fn side_commands(arguments: &BackupArguments) -> SideCommands {
    let on_failure = match arguments.command_failure {
        FailureArgument::Fail => OnFailure::Fail,
        FailureArgument::Warn => OnFailure::Warn,
    };
    let commands = |texts: &[String]| {
        let command = |text: &String| vec!["sh".to_owned(), "-c".to_owned(), text.clone()];
        let side =
            |text| SideCommand { command: command(text), timeout_seconds: arguments.command_timeout, on_failure };
        texts.iter().map(side).collect()
    };
    SideCommands { before: commands(&arguments.before), after: commands(&arguments.after) }
}

/// What a backup is of, before the server is asked for anything.
enum Chosen {
    Source(Source),
    Database(DatabaseSource),
}

fn choose_source(arguments: &BackupArguments) -> Result<Chosen, AgentError> {
    if let Some(database) = database(arguments)? {
        return Ok(Chosen::Database(database));
    }
    if let Some(name) = &arguments.stdin {
        let input = match (arguments.stdin_from_command, arguments.paths.is_empty()) {
            (true, _) => StreamInput::Command(Box::new(command(&arguments.paths)?)),
            (false, true) => StreamInput::Reader(Box::new(std::io::stdin())),
            (false, false) => return Err(AgentError::Usage("--stdin and paths exclude each other".into())),
        };
        return Ok(Chosen::Source(Source::stream(name, input)));
    }
    if arguments.paths.is_empty() {
        return Err(AgentError::Usage("name a path or a database, or use --stdin NAME".into()));
    }
    let roots = arguments.paths.iter().map(absolute).collect::<Result<Vec<_>, _>>()?;
    let mut patterns = arguments.exclude.clone();
    for file in &arguments.exclude_file {
        let text = std::fs::read_to_string(file).map_err(|error| AgentError::file(file, error))?;
        let lines = text.lines().map(str::trim_end);
        patterns.extend(lines.filter(|line| !line.is_empty() && !line.starts_with('#')).map(str::to_owned));
    }
    let excludes = Excludes::new(&patterns).map_err(|error| AgentError::Usage(error.to_string()))?;
    let options = ScanOptions {
        excludes,
        one_file_system: arguments.one_file_system,
        exclude_caches: arguments.exclude_caches,
        ..ScanOptions::default()
    };
    Ok(Chosen::Source(Source::Paths { roots, options: Box::new(options) }))
}

fn database(arguments: &BackupArguments) -> Result<Option<DatabaseSource>, AgentError> {
    let login = |name: &String| DatabaseLogin {
        database: name.clone(),
        host: arguments.database_host.clone(),
        port: arguments.database_port,
        user: arguments.database_user.clone(),
        password_file: arguments.database_password_file.clone(),
        account: arguments.database_account.clone(),
    };
    Ok(match (&arguments.postgresql, &arguments.mariadb, &arguments.sqlite) {
        (Some(name), _, _) => Some(DatabaseSource::Postgresql(login(name))),
        (None, Some(name), _) => Some(DatabaseSource::Mariadb(login(name))),
        (None, None, Some(path)) => Some(DatabaseSource::Sqlite { path: absolute(&path.into())? }),
        (None, None, None) => None,
    })
}

fn command(words: &[OsString]) -> Result<Program, AgentError> {
    let Some((program, rest)) = words.split_first() else {
        return Err(AgentError::Usage("--stdin-from-command needs a command after --".into()));
    };
    let mut command = std::process::Command::new(program);
    command.args(rest);
    Ok(Program::new(command).with_shared_errors())
}

/// An absolute path without `.` and `..`; a slash at the end is kept, since it means the directory behind a link.
fn absolute(path: &OsString) -> Result<PathBuf, AgentError> {
    let absolute = std::path::absolute(path).map_err(|error| AgentError::file(path, error))?;
    let mut clean = PathBuf::from("/");
    for component in absolute.components() {
        match component {
            Component::Normal(name) => clean.push(name),
            Component::ParentDir => {
                // Behind a link, `..` is not what the text says.
                return std::fs::canonicalize(path).map_err(|error| AgentError::file(path, error));
            }
            Component::CurDir | Component::RootDir | Component::Prefix(_) => {}
        }
    }
    if path.as_bytes().ends_with(b"/") {
        clean.push("");
    }
    Ok(clean)
}

fn list(connection: &Connection, arguments: LsArguments, report: &Report) -> Result<u8, AgentError> {
    let place = arguments.place.as_bytes();
    let (snapshot, path) = match place.iter().position(|byte| *byte == b':') {
        Some(colon) => (&place[..colon], &place[colon + 1..]),
        None => (place, &b"/"[..]),
    };
    let snapshot = String::from_utf8_lossy(snapshot);
    let snapshot = pick(&connection.snapshots()?, &snapshot, &to_filter(arguments.filter)?)?;
    browse::list(connection, &snapshot, path, arguments.recursive, report)?;
    Ok(EXIT_COMPLETE)
}

fn run_restore(connection: &Connection, arguments: RestoreArguments, report: &Arc<Report>) -> Result<u8, AgentError> {
    let snapshot = pick(&connection.snapshots()?, &arguments.snapshot, &to_filter(arguments.filter)?)?;
    let on_conflict =
        arguments.on_conflict.parse().map_err(|error| AgentError::Usage(format!("--on-conflict: {error}")))?;
    let mut owners = OwnerMap::default();
    if arguments.owners_by_name {
        owners = owners.by_name();
    }
    for text in &arguments.owner_map {
        owners.add(text, &Owners::default()).map_err(|error| AgentError::Usage(error.to_string()))?;
    }
    let request = RestoreRequest {
        paths: arguments.path.iter().map(|path| path.as_bytes().to_vec()).collect(),
        target: arguments.to.clone(),
        options: RestoreOptions { on_conflict, owners, ..RestoreOptions::default() },
        dry_run: arguments.dry_run,
        workers: worker_count(),
    };
    let result = restore::restore(connection, &snapshot, request, report)?;
    report.result(&result, &restore::summary_text(&result, Path::new(&arguments.to)));
    Ok(if result.is_complete() { EXIT_COMPLETE } else { EXIT_WARNINGS })
}

fn run_check(connection: &Connection, arguments: CheckArguments, report: &Report) -> Result<u8, AgentError> {
    let filter = to_filter(arguments.filter)?;
    let mut snapshots = connection.snapshots()?;
    match &arguments.snapshot {
        Some(text) => snapshots = vec![pick(&snapshots, text, &filter)?],
        None => snapshots.retain(|snapshot| snapshot.deleted.is_none() && filter.matches(snapshot)),
    }
    let result = check::check(connection, &snapshots, arguments.read_data, report)?;
    report.result(&result, &check::summary_text(&result));
    Ok(if result.bad_objects == 0 { EXIT_COMPLETE } else { EXIT_WARNINGS })
}

fn worker_count() -> usize {
    std::thread::available_parallelism().map_or(2, std::num::NonZero::get).clamp(1, 16)
}

/// Reads a secret of one line.
fn secret_line(mut input: impl std::io::Read, what: &OsStr) -> Result<zeroize::Zeroizing<String>, AgentError> {
    let mut text = zeroize::Zeroizing::new(String::new());
    input.read_to_string(&mut text).map_err(|error| AgentError::file(what, error))?;
    Ok(zeroize::Zeroizing::new(text.trim().to_owned()))
}

/// Writes to standard error without failing when it is closed.
fn complain(text: &str) {
    writeln!(std::io::stderr(), "holdfast: {text}").ok();
}
