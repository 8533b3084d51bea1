//! `holdfast run`: the computer's agent as a service. It keeps one request for orders open, runs its plans by their
//! schedules also while the server cannot be asked for them, and speaks of every job while it runs.
//!
//! Three kinds of threads: one waits for orders, one looks at the schedules every second (so that sleep, and changes of the
//! clock, cost at most that), and one for each job.

mod calls;
pub mod listen;
pub mod speaker;
pub mod state;
pub mod unit;
pub mod work;

use crate::client::{Client, ClientError, Patience};
use crate::clock::now_ns;
use crate::config::{Folders, Login};
use crate::error::AgentError;
use crate::report::Report;
use crate::stop::{Stop, jitter};
use crate::transport::HttpTransport;
use api::agents::{BeginJob, ComputerPlan, Hello, Order, OrderKind, Welcome};
use api::jobs::JobCause;
use listen::{Listener, Pauses, greet};
use parking_lot::{Condvar, Mutex};
use schedule::{Due, Timetable};
use state::ServiceState;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};
use work::{Handle, Surroundings, Task, Tried, carry_out};

/// Schedules are looked at this often.
const LOOK: Duration = Duration::from_secs(1);
/// Backups that run at once; further ones wait for their turn.
const BACKUPS_MAX: usize = 2;
/// How long one call beside a job is tried.
const CALL_PATIENCE: Duration = Duration::from_secs(60);
/// A plan whose beginning failed because the server was away is tried again after this.
const AWAY_PAUSE: Duration = Duration::from_secs(30);
/// How long jobs get to end when the service stops.
const STOP_WITHIN: Duration = Duration::from_secs(20);

/// How the service ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// It was told to.
    Stopped,
    /// The computer was retired, or another machine took its place.
    NotEnrolled,
}

struct Job {
    plan: Option<String>,
    handle: Handle,
}

#[derive(Default)]
struct Running {
    state: ServiceState,
    tables: HashMap<String, (i64, Option<Timetable>)>,
    jobs: HashMap<String, Job>,
    backups: usize,
    /// When a plan that found the server away may be tried again.
    away: HashMap<String, Instant>,
    ended: Option<Ended>,
}

struct Service {
    client: Client,
    around: Surroundings,
    report: Arc<Report>,
    running: Mutex<Running>,
    changed: Condvar,
    stop: Stop,
}

/// Runs until it is told to stop (SIGTERM, SIGINT), or its credential is dead.
pub fn run(folders: &Folders, report: &Arc<Report>) -> Result<Ended, AgentError> {
    let login = Login::load(folders)?;
    if login.computer.is_none() {
        return Err(AgentError::Usage(
            "this agent holds a token, not a computer's credential; run `holdfast enrol URL --token hfe_…` first"
                .into(),
        ));
    }
    let stop = Stop::default();
    let transport = HttpTransport::new(&login.url, &login.trust()?, Some(login.token()), None)
        .map_err(|error| AgentError::Usage(error.to_string()))?;
    let patience = Patience { total: CALL_PATIENCE, ..Patience::default() };
    let client = Client::new(Arc::new(transport), patience, stop.clone());
    watch_signals(&stop)?;
    let greeted = greet(&client, &stop, Pauses::USUAL, &|text| report.remark(b"", text))?;
    let Some(welcome) = greeted else { return Ok(Ended::Stopped) };
    let Welcome { computer, heartbeat_seconds, .. } = match welcome {
        Ok(welcome) => welcome,
        Err(ended) => return Ok(ended),
    };
    // Jobs go on for a moment when the service is told to stop: their calls do not end with it.
    let around = Surroundings {
        client: client.with_stop(Stop::default()),
        folders: folders.clone(),
        computer: computer.name.clone(),
        heartbeat: Duration::from_secs(u64::from(heartbeat_seconds.max(1))),
    };
    let running = Running { state: ServiceState::load(folders, &computer.id), ..Running::default() };
    report.result(&Started { event: "running", computer: &computer.name }, &format!("running as {}", computer.name));
    let service = Arc::new(Service {
        client,
        around,
        report: report.clone(),
        running: Mutex::new(running),
        changed: Condvar::new(),
        stop,
    });
    let listener = service.clone();
    let listening = std::thread::Builder::new()
        .name("orders".into())
        .spawn(move || listener.listen())
        .map_err(|error| AgentError::file("thread", error))?;
    service.schedule();
    service.stop.fail(AgentError::Stopped);
    service.end_jobs();
    // It may be in the midst of its long request, which nothing waits for.
    drop(listening);
    Ok(service.running.lock().ended.unwrap_or(Ended::Stopped))
}

#[derive(serde::Serialize)]
struct Started<'a> {
    event: &'static str,
    computer: &'a str,
}

/// Stops when the process is asked to end.
fn watch_signals(stop: &Stop) -> Result<(), AgentError> {
    use tokio::signal::unix::{SignalKind, signal};
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| AgentError::file("signals", error))?;
    let streams = runtime.block_on(async { Ok((signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?)) });
    let (mut terminate, mut interrupt) = streams.map_err(|error: std::io::Error| AgentError::file("signals", error))?;
    let stop = stop.clone();
    let watch = move || {
        runtime.block_on(async {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
        });
        stop.fail(AgentError::Stopped);
    };
    let thread = std::thread::Builder::new().name("signals".into()).spawn(watch);
    thread.map(drop).map_err(|error| AgentError::file("signals", error))
}

/// What the system calls itself.
fn system() -> String {
    let release = std::fs::read_to_string("/etc/os-release").unwrap_or_default();
    let pretty = release.lines().find_map(|line| line.strip_prefix("PRETTY_NAME="));
    let name = pretty.map_or("Linux", |name| name.trim_matches('"'));
    name.chars().filter(|character| !character.is_control()).take(100).collect()
}

/// About this agent.
pub fn hello() -> Hello {
    Hello { os: system(), agent_version: env!("CARGO_PKG_VERSION").to_owned() }
}

impl Service {
    /// Waits for orders and new plans until the service ends.
    fn listen(self: Arc<Self>) {
        if listen::listen(&self.client, &self.stop, Pauses::USUAL, &self) == Ended::NotEnrolled {
            self.end(Ended::NotEnrolled);
        }
    }

    fn end(&self, ended: Ended) {
        self.running.lock().ended.get_or_insert(ended);
        self.stop.fail(AgentError::Stopped);
        self.changed.notify_all();
    }

    fn keep(&self, state: &ServiceState) {
        if let Err(error) = state.save(&self.around.folders) {
            self.report.warning(b"", &format!("plans cannot be kept for times without the server: {error}"));
        }
    }

    /// Carries a job out in a thread of its own.
    fn begin(self: &Arc<Self>, begin: BeginJob, task: Task) {
        let handle = Handle::default();
        let (job, plan) = (begin.id.clone(), begin.plan.clone());
        self.running.lock().jobs.insert(job.clone(), Job { plan: plan.clone(), handle: handle.clone() });
        let service = self.clone();
        let work = move || {
            let is_backup = matches!(task, Task::Backup(_));
            let tried = match !is_backup || service.take_turn(&handle) {
                true => service.try_out(&begin, &task, &handle),
                false => Tried::Away,
            };
            let mut running = service.running.lock();
            if is_backup {
                running.backups = running.backups.saturating_sub(1);
            }
            running.jobs.remove(&begin.id);
            if let Some(plan) = begin.plan {
                match (tried, begin.slot_ns) {
                    (Tried::Away, _) => {
                        running.away.insert(plan, Instant::now() + AWAY_PAUSE);
                    }
                    (Tried::Ran | Tried::Refused, Some(slot_ns)) => {
                        let seen_ns = running.state.seen_ns.entry(plan).or_insert(slot_ns);
                        *seen_ns = slot_ns.max(*seen_ns);
                        service.keep(&running.state);
                    }
                    (Tried::Ran | Tried::Refused, None) => {}
                }
            }
            drop(running);
            service.changed.notify_all();
        };
        if std::thread::Builder::new().name("job".into()).spawn(work).is_err() {
            self.running.lock().jobs.remove(&job);
            if let Some(plan) = plan {
                self.running.lock().away.insert(plan, Instant::now() + AWAY_PAUSE);
            }
        }
    }

    /// What was ordered is tried until the server can be told that it begins; what a schedule wants comes again by itself.
    fn try_out(&self, begin: &BeginJob, task: &Task, handle: &Handle) -> Tried {
        loop {
            let tried = carry_out(&self.around, begin, task, handle);
            let is_over = tried != Tried::Away || begin.cause != JobCause::Order || handle.cancel.is_cancelled();
            if is_over || self.stop.sleep(jitter(Pauses::USUAL.retry_within)).is_err() {
                return tried;
            }
        }
    }

    /// Waits until one more backup may run; false when it was cancelled meanwhile. Counted either way.
    fn take_turn(&self, handle: &Handle) -> bool {
        let mut running = self.running.lock();
        while running.backups >= BACKUPS_MAX && !handle.cancel.is_cancelled() && !self.stop.is_stopped() {
            self.changed.wait_for(&mut running, LOOK);
        }
        running.backups += 1;
        !handle.cancel.is_cancelled() && !self.stop.is_stopped()
    }

    /// Looks at the schedules until the service ends.
    fn schedule(self: &Arc<Self>) {
        while !self.stop.is_stopped() {
            for (begin, plan) in self.due(now_ns()) {
                self.begin(begin, Task::Backup(Box::new(plan)));
            }
            let mut running = self.running.lock();
            if !self.stop.is_stopped() {
                self.changed.wait_for(&mut running, LOOK);
            }
        }
    }

    /// Plans that are to run now.
    fn due(&self, now_ns: i64) -> Vec<(BeginJob, ComputerPlan)> {
        let mut running = self.running.lock();
        let Running { state, tables, jobs, away, .. } = &mut *running;
        let busy: HashSet<&str> = jobs.values().filter_map(|job| job.plan.as_deref()).collect();
        let mut due = Vec::new();
        for plan in state.plans.plans.iter().filter(|plan| plan.enabled) {
            if busy.contains(plan.id.as_str()) || away.get(&plan.id).is_some_and(|until| Instant::now() < *until) {
                continue;
            }
            let known = tables
                .entry(plan.id.clone())
                .or_insert_with(|| (plan.revision, plan.body.schedule.timetable(now_ns).ok()));
            let Some(table) = &known.1 else { continue };
            let seen_ns = state.seen_ns.get(&plan.id).copied().unwrap_or(plan.seen_ns);
            if let Due::Now { slot_ns, catch_up } = table.due(seen_ns, now_ns, seed(&plan.id))
                && let Some(id) = new_id()
            {
                let begin = BeginJob {
                    id,
                    plan: Some(plan.id.clone()),
                    revision: Some(plan.revision),
                    cause: if catch_up { JobCause::CatchUp } else { JobCause::Schedule },
                    slot_ns: Some(slot_ns),
                };
                due.push((begin, plan.clone()));
            }
        }
        due
    }

    /// Ends what runs and waits for it a moment.
    fn end_jobs(&self) {
        let deadline = Instant::now() + STOP_WITHIN;
        let mut running = self.running.lock();
        for job in running.jobs.values() {
            job.handle.end(Some("the agent was stopped"));
        }
        while !running.jobs.is_empty() {
            if self.changed.wait_until(&mut running, deadline).timed_out() {
                return;
            }
        }
    }
}

impl Listener for Arc<Service> {
    fn fetch_plans(&self) -> Result<i64, ClientError> {
        let plans = self.client.computer_plans()?;
        let version = plans.version;
        let mut running = self.running.lock();
        running.state.take(plans);
        running.tables.clear();
        running.away.clear();
        self.keep(&running.state);
        self.changed.notify_all();
        Ok(version)
    }

    fn obey(&self, order: Order) {
        // An order that is not taken is given again.
        if self.client.order_received(&order.id).is_err() {
            return;
        }
        let begin = |plan: Option<String>| BeginJob {
            id: order.job.clone(),
            plan,
            revision: None,
            cause: JobCause::Order,
            slot_ns: None,
        };
        match order.kind {
            OrderKind::Cancel => {
                if let Some(job) = self.running.lock().jobs.get(&order.job) {
                    job.handle.end(None);
                }
            }
            OrderKind::Restore { restore } => self.begin(begin(None), Task::Restore(Box::new(restore))),
            OrderKind::Start { plan } => {
                let known = |service: &Service| -> Option<ComputerPlan> {
                    service.running.lock().state.plans.plans.iter().find(|known| known.id == plan).cloned()
                };
                let found = known(self).or_else(|| self.fetch_plans().ok().and_then(|_| known(self)));
                if let Some(found) = found {
                    self.begin(begin(Some(plan)), Task::Backup(Box::new(found)));
                }
            }
        }
    }

    fn remark(&self, text: &str) {
        self.report.remark(b"", text);
    }
}

/// A job's id.
fn new_id() -> Option<String> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).ok()?;
    Some(data_encoding::HEXLOWER.encode(&bytes))
}

/// What spreads a plan's starts: from its id.
fn seed(plan: &str) -> u64 {
    let hash = blake3::hash(plan.as_bytes());
    let (first, _) = hash.as_bytes().split_first_chunk::<8>().unwrap_or((&[0; 8], &[]));
    u64::from_le_bytes(*first)
}
