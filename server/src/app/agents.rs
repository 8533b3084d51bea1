//! What agents of computers ask, and how orders reach them: each agent keeps one request open, and whoever orders something
//! rings at the computer's own bell, so that nothing is polled.

use crate::app::auth::ComputerGrant;
use crate::app::plans::{due_after, timetable};
use crate::app::{App, AppError, server_actor};
use control::{
    BeginJob, Computer, ComputerId, EndJob, Job, JobCounts, JobId, JobState, LogLine, Order, OrderId, Plan, SystemWords,
};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::Instant;

/// Silent for so many heartbeats, a running job is lost.
pub const LOST_HEARTBEATS: u32 = 3;
/// A running job is spoken of at least this often, unless the settings say otherwise.
pub const DEFAULT_HEARTBEAT: Duration = Duration::from_secs(20);
/// Orders given in one answer.
const ORDERS_MAX: u32 = 100;
/// Overdue plans looked at in one step.
const OVERDUE_MAX: u32 = 200;
/// Missed jobs written for one plan in one step: of a longer absence only the last.
const MISSED_MAX: usize = 50;
/// A job that was queued this long ago and did not begin is given up.
const QUEUED_NS_MAX: i64 = 24 * 3600 * 1_000_000_000;

/// Where an agent waits.
#[derive(Default)]
struct Bell {
    notify: Notify,
    /// Requests that wait at it.
    waiting: AtomicUsize,
}

/// The bells, and what is not written down yet of when agents were heard of.
pub(crate) struct Agents {
    bells: Mutex<HashMap<ComputerId, Arc<Bell>>>,
    seen: Mutex<HashMap<ComputerId, i64>>,
    heartbeat_ms: AtomicU64,
}

impl Default for Agents {
    fn default() -> Self {
        let heartbeat_ms = AtomicU64::new(DEFAULT_HEARTBEAT.as_millis() as u64);
        Agents { bells: Mutex::default(), seen: Mutex::default(), heartbeat_ms }
    }
}

impl Agents {
    fn bell(&self, computer: ComputerId) -> Arc<Bell> {
        let mut bells = self.bells.lock();
        // Those at which nobody waits make room now and then.
        if bells.len() >= 1024 && bells.len().is_power_of_two() {
            bells.retain(|_, bell| Arc::strong_count(bell) > 1);
        }
        bells.entry(computer).or_default().clone()
    }

    /// Something waits for this computer's agent.
    pub(crate) fn ring(&self, computer: ComputerId) {
        if let Some(bell) = self.bells.lock().get(&computer) {
            bell.notify.notify_waiters();
        }
    }

    /// Nobody waits any longer.
    pub(crate) fn ring_all(&self) {
        for bell in self.bells.lock().values() {
            bell.notify.notify_waiters();
        }
    }

    /// Whether the computer's agent waits for orders now.
    pub(crate) fn is_online(&self, computer: ComputerId) -> bool {
        self.bells.lock().get(&computer).is_some_and(|bell| bell.waiting.load(Ordering::Relaxed) > 0)
    }

    /// Agents that wait for orders now.
    pub(crate) fn waiting(&self) -> usize {
        self.bells.lock().values().filter(|bell| bell.waiting.load(Ordering::Relaxed) > 0).count()
    }

    fn heartbeat(&self) -> Duration {
        Duration::from_millis(self.heartbeat_ms.load(Ordering::Relaxed))
    }
}

/// One request at a bell.
struct Waiting(Arc<Bell>);

impl Waiting {
    fn at(bell: Arc<Bell>) -> Self {
        bell.waiting.fetch_add(1, Ordering::Relaxed);
        Waiting(bell)
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What waits for an agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mail {
    /// The oldest first.
    pub orders: Vec<Order>,
    /// Version of the computer's plans.
    pub plans_version: i64,
    /// The server is going down.
    pub going_down: bool,
}

/// A plan as its agent gets it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlanForAgent {
    /// The plan.
    pub plan: Plan,
    /// Slots up to this moment are seen to.
    pub seen_ns: i64,
}

impl App {
    /// How often running jobs are to be spoken of.
    pub fn set_heartbeat(&self, heartbeat: Duration) {
        self.agents.heartbeat_ms.store(heartbeat.as_millis() as u64, Ordering::Relaxed);
    }

    /// The same.
    pub fn heartbeat(&self) -> Duration {
        self.agents.heartbeat()
    }

    /// Agents that wait for orders at this moment.
    pub fn waiting_agents(&self) -> usize {
        self.agents.waiting()
    }

    fn seen(&self, grant: &ComputerGrant) -> i64 {
        let now_ns = self.clock.now_ns();
        self.agents.seen.lock().insert(grant.id(), now_ns);
        now_ns
    }

    /// An agent has started.
    pub async fn greet_agent(&self, grant: &ComputerGrant, system: SystemWords<'_>) -> Result<Computer, AppError> {
        let computer = self.control.greet_computer(&grant.id(), system, self.seen(grant)).await;
        computer.map_err(gone)
    }

    /// A computer's plans and their version.
    pub async fn plans_for_agent(&self, grant: &ComputerGrant) -> Result<(i64, Vec<PlanForAgent>), AppError> {
        self.seen(grant);
        let (version, plans) = self.control.plans_of_computer(&grant.id()).await.map_err(gone)?;
        let mut known = Vec::with_capacity(plans.len());
        for plan in plans {
            let last = self.control.last_slot(&plan.id).await?.unwrap_or(0);
            // What a plan said before is not made up for.
            let seen_ns = last.max(plan.revised_ns).max(plan.state_ns);
            known.push(PlanForAgent { plan, seen_ns });
        }
        Ok((version, known))
    }

    /// Waits until there is an order, the plans have another version than `plans`, the server goes down, or `wait` is over.
    pub async fn wait_for_orders(
        &self,
        grant: &ComputerGrant,
        wait: Duration,
        plans: Option<i64>,
    ) -> Result<Mail, AppError> {
        let bell = self.agents.bell(grant.id());
        let _waiting = Waiting::at(bell.clone());
        let deadline = Instant::now() + wait;
        loop {
            // Listening begins before looking, so that nothing rings in between unheard.
            let rung = bell.notify.notified();
            tokio::pin!(rung);
            rung.as_mut().enable();
            self.seen(grant);
            let (plans_version, orders) = self.control.waiting_orders(&grant.id(), ORDERS_MAX).await.map_err(gone)?;
            let going_down = self.is_draining();
            let is_news = !orders.is_empty() || going_down || plans.is_some_and(|known| known != plans_version);
            if is_news || tokio::time::timeout_at(deadline, rung).await.is_err() {
                return Ok(Mail { orders, plans_version, going_down });
            }
        }
    }

    /// The agent has an order.
    pub async fn order_received(&self, grant: &ComputerGrant, order: &str) -> Result<(), AppError> {
        let order: OrderId = order.parse().map_err(|_| AppError::NotFound { what: "order" })?;
        let now_ns = self.seen(grant);
        self.control.deliver_order(&grant.id(), &order, now_ns).await.map_err(|error| of(error, "order"))
    }

    /// The agent begins a job.
    pub async fn begin_job(&self, grant: &ComputerGrant, mut begin: BeginJob) -> Result<Job, AppError> {
        let now_ns = self.seen(grant);
        let scope = self.own_scope();
        if let (Some(plan), Some(slot_ns)) = (begin.plan, begin.slot_ns) {
            let plan = self.control.plan(&scope, &plan).await.map_err(|error| of(error, "plan"))?;
            // What the agent says about its schedule is only believed as far as it fits.
            if slot_ns > now_ns {
                return Err(AppError::Invalid("slot_ns: is in the future of the server's clock".into()));
            }
            begin.next = timetable(&plan.body, now_ns).ok().and_then(|table| due_after(&table, slot_ns.max(now_ns)));
        }
        let begun = self.control.begin_job(&scope, grant.computer(), &begin, "agent", now_ns).await;
        begun.map_err(|error| of(error, "plan"))
    }

    /// The agent is at work on a job.
    pub async fn job_heartbeat(&self, grant: &ComputerGrant, job: &str, counts: JobCounts) -> Result<Job, AppError> {
        let now_ns = self.seen(grant);
        let beat = self.control.job_heartbeat(grant.computer(), &job_id(job)?, &counts, now_ns).await;
        beat.map_err(|error| of(error, "job"))
    }

    /// Lines for a job's log.
    pub async fn append_job_log(&self, grant: &ComputerGrant, job: &str, lines: Vec<LogLine>) -> Result<(), AppError> {
        let appended = self.control.append_job_log(grant.computer(), &job_id(job)?, &lines).await;
        appended.map_err(|error| of(error, "job"))
    }

    /// A job has ended.
    pub async fn end_job(&self, grant: &ComputerGrant, job: &str, end: EndJob) -> Result<Job, AppError> {
        let now_ns = self.seen(grant);
        let ended = self.control.end_job(grant.computer(), &job_id(job)?, end, "agent", now_ns).await;
        let ended = ended.map_err(|error| of(error, "job"))?;
        tracing::info!(job = %ended.id, computer = %ended.computer, state = ended.state.as_str(), "job ended");
        Ok(ended)
    }

    /// Writes down when agents were last heard of.
    pub(crate) async fn flush_seen(&self) -> Result<(), AppError> {
        let seen: Vec<(ComputerId, i64)> = std::mem::take(&mut *self.agents.seen.lock()).into_iter().collect();
        Ok(self.control.note_seen(&seen).await?)
    }

    /// Running jobs whose agents fell silent have failed.
    pub(crate) async fn lose_silent_jobs(&self) -> Result<usize, AppError> {
        let now_ns = self.clock.now_ns();
        let silence = self.heartbeat() * LOST_HEARTBEATS;
        let since_ns = now_ns.saturating_sub(i64::try_from(silence.as_nanos()).unwrap_or(i64::MAX));
        let lost = self.control.lose_silent_jobs(since_ns, now_ns).await?;
        for job in &lost {
            tracing::info!(job = %job.id, computer = %job.computer, "job lost: its agent fell silent");
        }
        Ok(lost.len())
    }

    /// Runs that should have begun and did not are written down as missed. Answers how many.
    pub(crate) async fn note_missed_jobs(&self) -> Result<usize, AppError> {
        let now_ns = self.clock.now_ns();
        let mut missed = 0;
        loop {
            let overdue = self.control.overdue_plans(now_ns, OVERDUE_MAX).await?;
            for plan in &overdue {
                let Some(due) = plan.due else { continue };
                let (slots, next) = match timetable(&plan.body, now_ns) {
                    Ok(table) => {
                        let grace_ns = due.overdue_ns - due.slot_ns;
                        let (slots, _) = table.between(due.slot_ns - 1, now_ns.saturating_sub(grace_ns), MISSED_MAX);
                        let next = due_after(&table, slots.last().copied().unwrap_or(due.slot_ns));
                        (slots, next)
                    }
                    Err(error) => {
                        tracing::warn!(plan = %plan.id, %error, "the schedule of a plan is not understood any more");
                        (Vec::new(), None)
                    }
                };
                let jobs = self.control.miss_slots(plan, &slots, next, now_ns).await?;
                for job in &jobs {
                    tracing::info!(job = %job.id, plan = %plan.id, computer = %plan.computer, "job missed");
                }
                missed += jobs.len();
            }
            if overdue.len() < OVERDUE_MAX as usize {
                return Ok(missed);
            }
        }
    }

    /// Jobs that no agent came for are given up.
    pub(crate) async fn give_queued_jobs_up(&self) -> Result<(), AppError> {
        let now_ns = self.clock.now_ns();
        for job in self.control.give_queued_jobs_up(now_ns.saturating_sub(QUEUED_NS_MAX), now_ns).await? {
            tracing::info!(job = %job.id, computer = %job.computer, by = server_actor().name, "queued job given up");
        }
        Ok(())
    }
}

/// A credential is good a few seconds longer than its computer.
fn gone(error: control::ControlError) -> AppError {
    match error {
        control::ControlError::NotFound { .. } => AppError::Unauthorized,
        other => other.into(),
    }
}

/// What is another computer's is not there.
fn of(error: control::ControlError, what: &'static str) -> AppError {
    match error {
        control::ControlError::NotFound { .. } => AppError::NotFound { what },
        other => other.into(),
    }
}

pub(crate) fn job_id(text: &str) -> Result<JobId, AppError> {
    text.parse().map_err(|_| AppError::NotFound { what: "job" })
}

/// Whether an agent may name this as a job's end.
pub(crate) const fn is_end(state: JobState) -> bool {
    matches!(state, JobState::Succeeded | JobState::Warning | JobState::Failed | JobState::Cancelled)
}

#[cfg(test)]
mod tests;
