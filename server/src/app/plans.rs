//! Plans: what they say is checked here, and reckoned into when they are due.

use crate::app::agents::job_id;
use crate::app::{App, AppError, Principal, Target, Verb};
use api::plans::{
    COMMAND_SECONDS_MAX, DatabaseLogin, PLAN_LIST_MAX, PLAN_TEXT_BYTES_MAX, PlanBody, PlanCommand, PlanSource,
};
use control::{
    ComputerId, ControlError, Due, Job, LogLine, NewRevision, Plan, PlanId, PlanRevision, RetentionPolicy, Scope,
};
use schedule::Timetable;

/// The schedule of a stored plan.
pub(crate) fn timetable(body: &str, now_ns: i64) -> Result<Timetable, AppError> {
    let body: PlanBody =
        serde_json::from_str(body).map_err(|error| AppError::Internal(format!("a plan is not understood: {error}")))?;
    body.schedule.timetable(now_ns).map_err(|error| AppError::Invalid(format!("schedule: {error}")))
}

/// When a plan is due behind a moment.
pub(crate) fn due_after(table: &Timetable, after_ns: i64) -> Option<Due> {
    table.next_after(after_ns).map(|slot_ns| Due { slot_ns, overdue_ns: table.overdue_of(slot_ns) })
}

fn check_text(what: &str, text: &str) -> Result<(), AppError> {
    if text.is_empty() || text.len() > PLAN_TEXT_BYTES_MAX || text.contains('\0') {
        return Err(AppError::Invalid(format!(
            "{what}: must have 1 to {PLAN_TEXT_BYTES_MAX} bytes, none of them zero"
        )));
    }
    Ok(())
}

fn check_list(what: &str, list: &[String], min: usize) -> Result<(), AppError> {
    if list.len() < min || list.len() > PLAN_LIST_MAX {
        return Err(AppError::Invalid(format!("{what}: must have {min} to {PLAN_LIST_MAX} entries")));
    }
    list.iter().try_for_each(|text| check_text(what, text))
}

pub(crate) fn check_absolute(what: &str, path: &str) -> Result<(), AppError> {
    check_text(what, path)?;
    match path.starts_with('/') {
        true => Ok(()),
        false => Err(AppError::Invalid(format!("{what}: {path:?} is no absolute path"))),
    }
}

fn check_commands(what: &str, commands: &[PlanCommand]) -> Result<(), AppError> {
    if commands.len() > PLAN_LIST_MAX {
        return Err(AppError::Invalid(format!("{what}: must have at most {PLAN_LIST_MAX} entries")));
    }
    for command in commands {
        check_list(what, &command.command, 1)?;
        if !(1..=COMMAND_SECONDS_MAX).contains(&command.timeout_seconds) {
            return Err(AppError::Invalid(format!("{what}: timeout_seconds must be 1 to {COMMAND_SECONDS_MAX}")));
        }
    }
    Ok(())
}

fn check_login(login: &DatabaseLogin) -> Result<(), AppError> {
    check_text("database", &login.database)?;
    for (what, text) in [("host", &login.host), ("user", &login.user), ("account", &login.account)] {
        text.as_deref().map_or(Ok(()), |text| check_text(what, text))?;
    }
    login.password_file.as_deref().map_or(Ok(()), |path| check_absolute("password_file", path))
}

/// Refuses what an agent could not carry out.
fn check(body: &PlanBody, now_ns: i64) -> Result<Timetable, AppError> {
    match &body.source {
        PlanSource::Folders { paths, excludes, .. } => {
            check_list("paths", paths, 1)?;
            paths.iter().try_for_each(|path| check_absolute("paths", path))?;
            check_list("excludes", excludes, 0)?;
        }
        PlanSource::Command { command, file_name } => {
            check_list("command", command, 1)?;
            check_text("file_name", file_name)?;
            if file_name.contains('/') || file_name == "." || file_name == ".." {
                return Err(AppError::Invalid("file_name: is no name of a file".into()));
            }
        }
        PlanSource::Postgresql { database } | PlanSource::Mariadb { database } => check_login(database)?,
        PlanSource::Sqlite { path } => check_absolute("path", path)?,
    }
    check_commands("before", &body.before)?;
    check_commands("after", &body.after)?;
    if body.upload_bytes_per_second == Some(0) {
        return Err(AppError::Invalid("upload_bytes_per_second: must be more than 0".into()));
    }
    body.schedule.timetable(now_ns).map_err(|error| AppError::Invalid(format!("schedule: {error}")))
}

fn plan_id(text: &str) -> Result<PlanId, AppError> {
    text.parse().map_err(|_| AppError::NotFound { what: "plan" })
}

fn unseen(error: ControlError) -> AppError {
    match error {
        ControlError::NotFound { what, .. } => AppError::NotFound { what },
        other => other.into(),
    }
}

/// A new revision as it is stored.
struct Revision {
    body: String,
    due: Option<Due>,
    retention: Option<RetentionPolicy>,
}

impl Revision {
    fn new(body: &PlanBody, retention: Option<RetentionPolicy>, now_ns: i64) -> Result<Self, AppError> {
        let due = due_after(&check(body, now_ns)?, now_ns);
        if let Some(policy) = &retention {
            crate::app::retention::check(policy)?;
        }
        let body = serde_json::to_string(body).map_err(|error| AppError::Internal(error.to_string()))?;
        Ok(Revision { body, due, retention })
    }

    fn stored(&self) -> NewRevision<'_> {
        NewRevision { body: &self.body, due: self.due, retention: self.retention.as_ref() }
    }
}

impl App {
    async fn at_plan(&self, caller: &Principal, verb: Verb, plan: &str) -> Result<(PlanId, super::Allowed), AppError> {
        // A text that is no id is located nowhere, like an id that is nobody's.
        let id = plan_id(plan).ok();
        let at = match &id {
            Some(id) => self.control.locate_plan(id).await?,
            None => None,
        };
        let allowed = self.allow(caller, verb, Target::Located("plan", at)).await?;
        Ok((id.ok_or(AppError::NotFound { what: "plan" })?, allowed))
    }

    /// Makes a plan of a computer. `retention` is that of the body, as it is stored.
    pub async fn create_plan(
        &self,
        caller: &Principal,
        computer: &str,
        name: &str,
        body: &PlanBody,
        retention: Option<RetentionPolicy>,
    ) -> Result<Plan, AppError> {
        let (computer, allowed) = self.at_computer(caller, Verb::PLAN_EDIT, computer).await?;
        let now_ns = self.clock.now_ns();
        let new = Revision::new(body, retention, now_ns)?;
        let made =
            self.control.create_plan(&allowed.scope, &allowed.actor, &computer, name, &new.stored(), now_ns).await;
        let made = made.map_err(unseen)?;
        self.agents.ring(made.computer);
        Ok(made)
    }

    /// Gives a plan a new revision.
    pub async fn revise_plan(
        &self,
        caller: &Principal,
        plan: &str,
        body: &PlanBody,
        retention: Option<RetentionPolicy>,
    ) -> Result<Plan, AppError> {
        let (id, allowed) = self.at_plan(caller, Verb::PLAN_EDIT, plan).await?;
        let now_ns = self.clock.now_ns();
        let new = Revision::new(body, retention, now_ns)?;
        let made = self.control.revise_plan(&allowed.scope, &allowed.actor, &id, &new.stored(), now_ns).await;
        let made = made.map_err(unseen)?;
        self.agents.ring(made.computer);
        Ok(made)
    }

    /// Pauses a plan.
    pub async fn pause_plan(&self, caller: &Principal, plan: &str) -> Result<Plan, AppError> {
        let (id, allowed) = self.at_plan(caller, Verb::PLAN_EDIT, plan).await?;
        let now_ns = self.clock.now_ns();
        let moved = self.control.pause_plan(&allowed.scope, &allowed.actor, &id, now_ns).await.map_err(unseen)?;
        self.agents.ring(moved.computer);
        Ok(moved)
    }

    /// Lets a paused plan run again.
    pub async fn resume_plan(&self, caller: &Principal, plan: &str) -> Result<Plan, AppError> {
        let (id, allowed) = self.at_plan(caller, Verb::PLAN_EDIT, plan).await?;
        let now_ns = self.clock.now_ns();
        let found = self.control.plan(&allowed.scope, &id).await.map_err(unseen)?;
        let due = due_after(&timetable(&found.body, now_ns)?, now_ns);
        let moved = self.control.resume_plan(&allowed.scope, &allowed.actor, &id, due, now_ns).await.map_err(unseen)?;
        self.agents.ring(moved.computer);
        Ok(moved)
    }

    /// Ends a plan.
    pub async fn delete_plan(&self, caller: &Principal, plan: &str) -> Result<Plan, AppError> {
        let (id, allowed) = self.at_plan(caller, Verb::PLAN_EDIT, plan).await?;
        let now_ns = self.clock.now_ns();
        let moved = self.control.delete_plan(&allowed.scope, &allowed.actor, &id, now_ns).await.map_err(unseen)?;
        self.agents.ring(moved.computer);
        Ok(moved)
    }

    /// One plan.
    pub async fn plan(&self, caller: &Principal, plan: &str) -> Result<Plan, AppError> {
        let (id, allowed) = self.at_plan(caller, Verb::PLAN_VIEW, plan).await?;
        self.control.plan(&allowed.scope, &id).await.map_err(unseen)
    }

    /// Its revisions, the newest first.
    pub async fn plan_revisions(&self, caller: &Principal, plan: &str) -> Result<Vec<PlanRevision>, AppError> {
        let (id, allowed) = self.at_plan(caller, Verb::PLAN_VIEW, plan).await?;
        self.control.plan_revisions(&allowed.scope, &id).await.map_err(unseen)
    }

    /// Plans that the caller sees, by name.
    pub async fn plans(
        &self,
        caller: &Principal,
        computer: Option<&str>,
        after: Option<(&str, PlanId)>,
        limit: u32,
    ) -> Result<Vec<Plan>, AppError> {
        let allowed = self.reach(caller, Verb::PLAN_VIEW).await?;
        let computer = match computer {
            None => None,
            // A filter that names nothing finds nothing.
            Some(text) => match text.parse::<ComputerId>() {
                Ok(id) => Some(id),
                Err(_) => return Ok(Vec::new()),
            },
        };
        Ok(self.control.plans(&allowed.scope, computer.as_ref(), after, limit).await?)
    }

    /// Starts a backup by a plan now.
    pub async fn start_plan(&self, caller: &Principal, plan: &str) -> Result<Job, AppError> {
        let (id, allowed) = self.at_plan(caller, Verb::BACKUP_START, plan).await?;
        self.check_may_start(&allowed).await?;
        let queued = self.control.order_backup(&allowed.scope, &allowed.actor, &id, self.clock.now_ns()).await;
        let queued = queued.map_err(unseen)?;
        self.agents.ring(queued.computer);
        Ok(queued)
    }

    /// The server tells now what the agent would only find out: a vault that is closed takes no backup.
    async fn check_may_start(&self, allowed: &super::Allowed) -> Result<(), AppError> {
        let Some(user) = allowed.at.user else { return Ok(()) };
        match self.control.vault_of_user(&user).await? {
            Some(vault) => self.check_takes_backups(vault).await,
            None => Ok(()),
        }
    }

    /// Starts every enabled plan of a computer now: each with its job, or why there is none.
    pub async fn start_computer(
        &self,
        caller: &Principal,
        computer: &str,
    ) -> Result<Vec<(Plan, Result<Job, String>)>, AppError> {
        let (computer, allowed) = self.at_computer(caller, Verb::BACKUP_START, computer).await?;
        self.check_may_start(&allowed).await?;
        let mut started = Vec::new();
        for plan in self.all_plans(&allowed.scope, &computer).await? {
            if plan.state != control::PlanState::Enabled {
                continue;
            }
            let queued = self.control.order_backup(&allowed.scope, &allowed.actor, &plan.id, self.clock.now_ns()).await;
            let queued = match queued {
                Ok(job) => Ok(job),
                Err(error @ (ControlError::WrongState { .. } | ControlError::NotFound { .. })) => {
                    Err(error.to_string())
                }
                Err(error) => return Err(error.into()),
            };
            started.push((plan, queued));
        }
        self.agents.ring(computer);
        Ok(started)
    }

    async fn all_plans(&self, scope: &Scope, computer: &ComputerId) -> Result<Vec<Plan>, AppError> {
        let mut all: Vec<Plan> = Vec::new();
        loop {
            let after = all.last().map(|plan| (plan.name.clone(), plan.id));
            let after = after.as_ref().map(|(name, id)| (name.as_str(), *id));
            let page = self.control.plans(scope, Some(computer), after, 200).await?;
            let is_last = page.len() < 200;
            all.extend(page);
            if is_last {
                return Ok(all);
            }
        }
    }

    async fn at_job(
        &self,
        caller: &Principal,
        verb: Verb,
        job: &str,
    ) -> Result<(control::JobId, super::Allowed), AppError> {
        let id = job_id(job).ok();
        let at = match &id {
            Some(id) => self.control.locate_job(id).await?,
            None => None,
        };
        let allowed = self.allow(caller, verb, Target::Located("job", at)).await?;
        Ok((id.ok_or(AppError::NotFound { what: "job" })?, allowed))
    }

    /// One job.
    pub async fn job(&self, caller: &Principal, job: &str) -> Result<Job, AppError> {
        let (id, allowed) = self.at_job(caller, Verb::JOB_VIEW, job).await?;
        self.control.job(&allowed.scope, &id).await.map_err(unseen)
    }

    /// Lines of a job's log behind a line.
    pub async fn job_log(
        &self,
        caller: &Principal,
        job: &str,
        after: Option<i64>,
        limit: u32,
    ) -> Result<Vec<LogLine>, AppError> {
        let (id, allowed) = self.at_job(caller, Verb::JOB_VIEW, job).await?;
        self.control.job_log(&allowed.scope, &id, after, limit).await.map_err(unseen)
    }

    /// Cancels a job.
    pub async fn cancel_job(&self, caller: &Principal, job: &str) -> Result<Job, AppError> {
        let (id, allowed) = self.at_job(caller, Verb::JOB_CANCEL, job).await?;
        let now_ns = self.clock.now_ns();
        let job = self.control.cancel_job(&allowed.scope, &allowed.actor, &id, now_ns).await.map_err(unseen)?;
        self.agents.ring(job.computer);
        Ok(job)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use schedule::{Rule, Schedule};

    fn body(source: PlanSource) -> PlanBody {
        PlanBody {
            source,
            schedule: Schedule { rule: Rule::Day { at: "02:00".into() }, ..Schedule::default() },
            retention: None,
            upload_bytes_per_second: None,
            before: Vec::new(),
            after: Vec::new(),
        }
    }

    fn folders(paths: &[&str]) -> PlanSource {
        PlanSource::Folders {
            paths: paths.iter().map(|path| (*path).to_owned()).collect(),
            excludes: Vec::new(),
            one_file_system: false,
            exclude_caches: true,
        }
    }

    #[test]
    fn what_an_agent_could_not_carry_out_is_refused() {
        let refused = |body: PlanBody| check(&body, 0).unwrap_err().to_string();
        check(&body(folders(&["/etc", "/home"])), 0).unwrap();
        assert!(refused(body(folders(&[]))).contains("paths"));
        assert!(refused(body(folders(&["etc"]))).contains("no absolute path"));
        assert!(refused(body(folders(&["/a\0b"]))).contains("zero"));
        let command = |words: &[&str], name: &str| PlanSource::Command {
            command: words.iter().map(|word| (*word).to_owned()).collect(),
            file_name: name.into(),
        };
        check(&body(command(&["pg_dump", "shop"], "shop.sql")), 0).unwrap();
        assert!(refused(body(command(&[], "a"))).contains("command"));
        assert!(refused(body(command(&["a"], "a/b"))).contains("file_name"));
        let hook = PlanCommand { command: vec!["a".into()], timeout_seconds: 0, on_failure: Default::default() };
        assert!(refused(PlanBody { before: vec![hook], ..body(folders(&["/"])) }).contains("timeout_seconds"));
        let never = Schedule { rule: Rule::Cron { expression: "0 0 30 2 *".into() }, ..Schedule::default() };
        assert!(refused(PlanBody { schedule: never, ..body(folders(&["/"])) }).contains("schedule"));
    }

    #[test]
    fn a_plan_is_stored_as_it_travels() {
        let text = r#"{"source":{"kind":"postgresql","database":"shop","user":"backup"},"schedule":{"rule":{"every":"hour","minute":5},"time_zone":"UTC","jitter_minutes":0,"catch_up":true}}"#;
        let body: PlanBody = serde_json::from_str(text).unwrap();
        assert_eq!(serde_json::to_string(&body).unwrap(), text);
        let hour = 3600 * 1_000_000_000;
        let due = due_after(&timetable(text, 0).unwrap(), 0).unwrap();
        assert_eq!((due.slot_ns, due.overdue_ns), (hour / 12, hour / 12 + hour / 4));
    }
}
