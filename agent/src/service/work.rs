//! One job from its beginning to its end: a backup by a plan, or a restore that was ordered.

use super::speaker::{JobVoice, Speaker};
use crate::around::{OnFailure, SideCommand, SideCommands};
use crate::backup::{self, BackupOptions, BackupResult, Source, StreamInput};
use crate::client::{Client, ClientError, Patience};
use crate::config::Folders;
use crate::connection::Connection;
use crate::databases::DatabaseSource;
use crate::error::AgentError;
use crate::fs::{Excludes, OwnerMap, RestoreOptions, ScanOptions};
use crate::program::{Group, Program};
use crate::report::{Report, human_bytes};
use crate::restore::{self, RestoreRequest};
use crate::snapshots::{Filter, pick};
use crate::stop::Cancel;
use api::agents::{BeginJob, ComputerPlan, EndJob};
use api::computers::{NewRestore, OnConflict};
use api::jobs::{JobState, LogLevel};
use api::plans::{PlanBody, PlanCommand, PlanSource};
use api::problem::Code;
use repo_format::entry::Profile;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

/// How long a job goes on trying while the server is away.
const PATIENCE: Duration = Duration::from_secs(3600);
/// How long the beginning of a job is tried; it is tried again later.
const BEGIN_PATIENCE: Duration = Duration::from_secs(60);

/// What a job is to do.
#[derive(Clone, Debug)]
pub enum Task {
    /// A backup by this plan, as it was when the job began.
    Backup(Box<ComputerPlan>),
    /// A restore.
    Restore(Box<NewRestore>),
}

/// What jobs need to know.
#[derive(Clone)]
pub struct Surroundings {
    /// For signs of life and logs.
    pub client: Client,
    /// Configuration and cache.
    pub folders: Folders,
    /// This computer's name in its snapshots.
    pub computer: String,
    /// Signs of life at least this often.
    pub heartbeat: Duration,
}

/// What came of trying.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tried {
    /// It ran, well or not.
    Ran,
    /// The server says that it is not to run: done, cancelled or unknown.
    Refused,
    /// The server was away: nothing began.
    Away,
}

/// A job that runs can be ended from outside.
#[derive(Clone, Default)]
pub struct Handle {
    /// Ends the run.
    pub cancel: Cancel,
    /// Of the command whose output is backed up.
    group: Group,
    reason: Arc<parking_lot::Mutex<Option<&'static str>>>,
}

impl Handle {
    /// Ends the job: `None` because somebody cancelled it, else why it fails.
    pub fn end(&self, reason: Option<&'static str>) {
        *self.reason.lock() = reason;
        self.cancel.cancel();
        self.group.kill();
    }
}

/// Begins a job with the server and carries it out.
pub fn carry_out(around: &Surroundings, begin: &BeginJob, task: &Task, handle: &Handle) -> Tried {
    let hurried = around.client.with_patience(Patience { total: BEGIN_PATIENCE, ..Patience::default() });
    match hurried.begin_job(begin) {
        Ok(_) => {}
        Err(ClientError::Refused { .. }) => return Tried::Refused,
        Err(_) => return Tried::Away,
    }
    let voice = Arc::new(JobVoice::new());
    let speaker = Speaker::start(&around.client, &begin.id, voice.clone(), around.heartbeat, &handle.cancel);
    let outcome = match task {
        Task::Backup(plan) => back_up(around, plan, &voice, handle),
        Task::Restore(order) => bring_back(around, order, &voice, handle),
    };
    let end = ending(outcome, &voice, handle);
    match speaker {
        Ok(speaker) => speaker.end(end),
        // Without a thread of its own the job was silent, and ends all the same.
        Err(_) => drop(around.client.end_job(&begin.id, &end)),
    }
    Tried::Ran
}

/// How the job ends.
fn ending(outcome: Result<Option<String>, AgentError>, voice: &JobVoice, handle: &Handle) -> EndJob {
    let end = |state, error_code: Option<String>, message: Option<String>, snapshot| EndJob {
        state,
        error_code,
        message,
        snapshot,
        counts: voice.counts(),
    };
    match outcome {
        Ok(snapshot) if voice.counts().warnings > 0 => end(JobState::Warning, None, None, snapshot),
        Ok(snapshot) => end(JobState::Succeeded, None, None, snapshot),
        Err(_) if handle.cancel.is_cancelled() => match *handle.reason.lock() {
            None => {
                voice.say(LogLevel::Info, "cancelled");
                end(JobState::Cancelled, None, Some("cancelled".into()), None)
            }
            Some(reason) => {
                voice.say(LogLevel::Error, reason);
                end(JobState::Failed, Some("agent_stopped".into()), Some(reason.into()), None)
            }
        },
        Err(error) => {
            let text = error.to_string();
            voice.say(LogLevel::Error, &text);
            end(JobState::Failed, Some(code_of(&error)), Some(text), None)
        }
    }
}

/// An error as a word.
fn code_of(error: &AgentError) -> String {
    let word = match error {
        AgentError::CommandFailed(_) => "command_failed",
        AgentError::CommandBefore(_) => "command_before_failed",
        AgentError::CommandAfter(_) => "command_after_failed",
        AgentError::File { .. } | AgentError::BadFile { .. } => "local_file",
        AgentError::Usage(_) | AgentError::NotLoggedIn(_) => "plan",
        AgentError::ObjectUnavailable { .. } | AgentError::LostObjects { .. } | AgentError::Format(_) => "damaged",
        AgentError::Stopped => "stopped",
        AgentError::Server(ClientError::Away { .. }) => "server_away",
        AgentError::Server(ClientError::Certificate(_)) => "certificate",
        AgentError::Server(error) => return error.code().map_or("server".into(), code_word),
    };
    word.to_owned()
}

/// A code as it stands on the wire.
fn code_word(code: Code) -> String {
    let value = serde_json::to_value(code).ok();
    value.as_ref().and_then(serde_json::Value::as_str).unwrap_or("server").to_owned()
}

fn connect(around: &Surroundings, limit: Option<u64>, handle: &Handle) -> Result<Connection, AgentError> {
    let patience = Patience { total: PATIENCE, ..Patience::default() };
    let mut connection = Connection::open(around.folders.clone(), patience, limit)?;
    connection.cancel = handle.cancel.clone();
    Ok(connection)
}

fn back_up(
    around: &Surroundings,
    plan: &ComputerPlan,
    voice: &Arc<JobVoice>,
    handle: &Handle,
) -> Result<Option<String>, AgentError> {
    voice.say(LogLevel::Info, &format!("plan {}, revision {}", plan.name, plan.revision));
    let report = Arc::new(Report::observed(voice.clone()));
    let commands = SideCommands { before: side(&plan.body.before), after: side(&plan.body.after) };
    let made = commands.around(&report, || match handle.cancel.is_cancelled() {
        true => Err(AgentError::Stopped),
        false => back_source_up(around, plan, &report, handle),
    })?;
    voice.set(|counts| {
        counts.files = made.counters.files;
        counts.bytes_done = made.snapshot.logical_bytes;
        counts.bytes_total = Some(made.snapshot.logical_bytes);
        counts.bytes_added = made.counters.bytes_added;
        counts.warnings = counts.warnings.max(made.counters.warnings);
    });
    let (size, added) = (human_bytes(made.snapshot.logical_bytes), human_bytes(made.counters.bytes_added));
    let (snapshot, files) = (&made.snapshot.id, made.counters.files);
    voice.say(LogLevel::Info, &format!("snapshot {snapshot}: {files} files, {size}, {added} new"));
    Ok(Some(made.snapshot.id))
}

/// Commands of a plan as they are run.
fn side(commands: &[PlanCommand]) -> Vec<SideCommand> {
    let side = |command: &PlanCommand| SideCommand {
        command: command.command.clone(),
        timeout_seconds: command.timeout_seconds,
        on_failure: match command.on_failure {
            api::plans::OnFailure::Fail => OnFailure::Fail,
            api::plans::OnFailure::Warn => OnFailure::Warn,
        },
    };
    commands.iter().map(side).collect()
}

fn back_source_up(
    around: &Surroundings,
    plan: &ComputerPlan,
    report: &Arc<Report>,
    handle: &Handle,
) -> Result<BackupResult, AgentError> {
    let PlanBody { source, upload_bytes_per_second, .. } = &plan.body;
    let connection = connect(around, *upload_bytes_per_second, handle)?;
    let profile = match source {
        PlanSource::Folders { .. } => Profile::Default,
        PlanSource::Command { .. }
        | PlanSource::Postgresql { .. }
        | PlanSource::Mariadb { .. }
        | PlanSource::Sqlite { .. } => Profile::Fine,
    };
    let source = open(source, &around.computer, &plan.name, &connection, &handle.group)?;
    let options = BackupOptions {
        computer: around.computer.clone(),
        name: Some(plan.name.clone()),
        tags: Vec::new(),
        profile,
        workers: workers(),
    };
    backup::backup(&connection, source, &options, report)
}

fn open(
    source: &PlanSource,
    computer: &str,
    name: &str,
    connection: &Connection,
    group: &Group,
) -> Result<Source, AgentError> {
    match source {
        PlanSource::Folders { paths, excludes, one_file_system, exclude_caches } => {
            let options = ScanOptions {
                excludes: Excludes::new(excludes).map_err(|error| AgentError::Usage(error.to_string()))?,
                one_file_system: *one_file_system,
                exclude_caches: *exclude_caches,
                ..ScanOptions::default()
            };
            let roots = paths.iter().map(PathBuf::from).collect();
            Ok(Source::Paths { roots, options: Box::new(options) })
        }
        PlanSource::Command { command, file_name } => {
            let Some((program, rest)) = command.split_first() else {
                return Err(AgentError::Usage("the plan names no command".into()));
            };
            let mut command = Command::new(program);
            command.args(rest);
            let program = Program::new(command).in_group(group);
            Ok(Source::stream(file_name, StreamInput::Command(Box::new(program))))
        }
        PlanSource::Postgresql { .. } | PlanSource::Mariadb { .. } | PlanSource::Sqlite { .. } => {
            // Both are written alike: what the plan says is what the dump is told.
            let said = serde_json::to_value(source).and_then(serde_json::from_value::<DatabaseSource>);
            let database = said.map_err(|error| AgentError::Usage(format!("the plan's database: {error}")))?;
            database.open(connection, computer, Some(name), Some(group))
        }
    }
}

fn bring_back(
    around: &Surroundings,
    order: &NewRestore,
    voice: &Arc<JobVoice>,
    handle: &Handle,
) -> Result<Option<String>, AgentError> {
    voice.say(LogLevel::Info, &format!("restore of snapshot {} to {}", order.snapshot, order.target));
    let connection = connect(around, None, handle)?;
    let snapshot = pick(&connection.snapshots()?, &order.snapshot, &Filter::default())?;
    let word = match order.on_conflict {
        OnConflict::Stop => "stop",
        OnConflict::Skip => "skip",
        OnConflict::Newer => "newer",
        OnConflict::Overwrite => "overwrite",
        OnConflict::KeepBoth => "keep-both",
    };
    let on_conflict = word.parse().map_err(|error| AgentError::Usage(format!("on_conflict: {error}")))?;
    let request = RestoreRequest {
        paths: order.paths.iter().map(|path| path.as_bytes().to_vec()).collect(),
        target: PathBuf::from(&order.target),
        options: RestoreOptions { on_conflict, owners: OwnerMap::default(), ..RestoreOptions::default() },
        dry_run: false,
        workers: workers(),
    };
    let report = Arc::new(Report::observed(voice.clone()));
    let done = restore::restore(&connection, &snapshot, request, &report)?;
    voice.set(|counts| {
        counts.files = done.files;
        counts.bytes_done = done.bytes;
        counts.warnings = counts.warnings.max(done.failures + done.problems);
    });
    let size = human_bytes(done.bytes);
    voice.say(LogLevel::Info, &format!("restored {} files, {size}; {} were left alone", done.files, done.skipped));
    Ok(None)
}

fn workers() -> usize {
    std::thread::available_parallelism().map_or(2, std::num::NonZero::get).clamp(1, 16)
}
