//! Lists of jobs, a page at a time, however many there are. Each filter with each order reads one range of one index, and
//! which one is written here, not left to what an engine guesses; a test asks for every combination.

use crate::job::job;
use crate::{
    ComputerId, Control, ControlError, Engine, Job, JobId, JobKind, JobState, PlanId, Scope, ScopePart, TenantId,
    UserId,
};
use sqlx::Row;
use std::collections::HashMap;

/// A scope with more entry points than this is read from the general index, where it fills a page soon.
const ENTRIES_MAX: usize = 40;

/// States in the order of [`JobSort::State`]: what somebody should look at first.
pub const JOB_STATE_ORDER: [JobState; 7] = [
    JobState::Failed,
    JobState::Missed,
    JobState::Warning,
    JobState::Running,
    JobState::Queued,
    JobState::Cancelled,
    JobState::Succeeded,
];

/// Which jobs are listed; `None` is all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct JobFilter {
    /// In this state.
    pub state: Option<JobState>,
    /// Of this tenant.
    pub tenant: Option<TenantId>,
    /// Of this user.
    pub user: Option<UserId>,
    /// On this computer.
    pub computer: Option<ComputerId>,
    /// By this plan.
    pub plan: Option<PlanId>,
    /// Of this kind.
    pub kind: Option<JobKind>,
    /// From this moment on: of the end in a list sorted by end, of the start in every other.
    pub from_ns: Option<i64>,
    /// Before this moment, alike.
    pub to_ns: Option<i64>,
}

/// In which order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum JobSort {
    /// By start.
    #[default]
    Start,
    /// By end; what runs counts as ending last.
    End,
    /// By state, as in [`JOB_STATE_ORDER`], then by start.
    State,
}

/// Behind which job a page begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JobCursor {
    /// Its state; used only in lists sorted by state.
    pub state: JobState,
    /// Its start, or its end in lists sorted by end.
    pub at_ns: i64,
    /// Its id.
    pub id: JobId,
}

/// A job with the names that a list shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListedJob {
    /// The job.
    pub job: Job,
    /// Its computer's name.
    pub computer: String,
    /// Its plan's name.
    pub plan: Option<String>,
    /// Its user's name.
    pub user: String,
    /// Its tenant's title.
    pub tenant: String,
}

impl ListedJob {
    /// The cursor behind it.
    pub fn cursor(&self, sort: JobSort) -> JobCursor {
        let at_ns = match sort {
            JobSort::End => self.job.ended_ns.unwrap_or(i64::MAX),
            JobSort::Start | JobSort::State => self.job.started_ns,
        };
        JobCursor { state: self.job.state, at_ns, id: self.job.id }
    }
}

/// Where a range begins: one column that is equal to something, or nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Entry {
    All,
    Tenant(TenantId),
    User(UserId),
    Computer(ComputerId),
    Plan(PlanId),
}

impl Entry {
    const fn name(self) -> &'static str {
        match self {
            Entry::All => "",
            Entry::Tenant(_) => "tenant_",
            Entry::User(_) => "user_",
            Entry::Computer(_) => "computer_",
            Entry::Plan(_) => "plan_",
        }
    }

    fn condition(self) -> Option<String> {
        match self {
            Entry::All => None,
            Entry::Tenant(id) => Some(format!("jobs.tenant_id = '{id}'")),
            Entry::User(id) => Some(format!("jobs.user_id = '{id}'")),
            Entry::Computer(id) => Some(format!("jobs.computer_id = '{id}'")),
            Entry::Plan(id) => Some(format!("jobs.plan_id = '{id}'")),
        }
    }

    /// The index for this entry, and what must stand in the statement so that a partial one may be used.
    fn index(self, filter: &JobFilter, by_end: bool) -> (String, Option<&'static str>) {
        let order = if by_end { "end" } else { "start" };
        let name = self.name();
        // Restores are few: with an entry of their own their state hardly matters, without one it does.
        if filter.kind == Some(JobKind::Restore) {
            let state = if self == Entry::All && filter.state.is_some() { "state_" } else { "" };
            return (format!("jobs_restore_{name}{state}{order}"), None);
        }
        match filter.state {
            None => (format!("jobs_{name}{order}"), None),
            Some(_) if self == Entry::All => (format!("jobs_state_{order}"), None),
            Some(JobState::Succeeded) => (format!("jobs_{name}{order}"), None),
            Some(_) => (format!("jobs_{name}state_{order}"), Some("jobs.state <> 'succeeded'")),
        }
    }
}

/// Where to begin for a list: the narrowest filter, else what the scope is made of.
fn entries_of_filter(filter: &JobFilter) -> Option<Entry> {
    None.or(filter.plan.map(Entry::Plan)).or(filter.computer.map(Entry::Computer)).or(filter.user.map(Entry::User))
}

/// Which part of a list is read.
#[derive(Clone, Copy)]
struct Part {
    by_end: bool,
    ascending: bool,
    /// Time and id of the job behind which it begins.
    behind: Option<(i64, JobId)>,
    limit: u32,
}

/// Asks for one page's ids.
fn statement(engine: Engine, entries: &[Entry], filter: &JobFilter, scope: &str, part: Part) -> String {
    let Part { by_end, ascending, behind: cursor, limit } = part;
    let column = if by_end { "jobs.ended_ns" } else { "jobs.started_ns" };
    let (direction, behind) = if ascending { ("ASC", ">") } else { ("DESC", "<") };
    let mut conditions = vec![scope.to_owned()];
    conditions.extend(filter.state.map(|state| format!("jobs.state = '{}'", state.as_str())));
    conditions.extend(filter.kind.map(|kind| format!("jobs.kind = '{}'", kind.as_str())));
    conditions.extend(filter.tenant.map(|id| format!("jobs.tenant_id = '{id}'")));
    conditions.extend(filter.user.map(|id| format!("jobs.user_id = '{id}'")));
    conditions.extend(filter.computer.map(|id| format!("jobs.computer_id = '{id}'")));
    conditions.extend(filter.plan.map(|id| format!("jobs.plan_id = '{id}'")));
    conditions.extend(filter.from_ns.map(|at_ns| format!("{column} >= {at_ns}")));
    conditions.extend(filter.to_ns.map(|at_ns| format!("{column} < {at_ns}")));
    if let Some((at_ns, id)) = cursor {
        conditions
            .push(format!("{column} {behind}= {at_ns} AND ({column} {behind} {at_ns} OR jobs.id {behind} '{id}')"));
    }
    let branch = |entry: &Entry| {
        let (index, needed) = entry.index(filter, by_end);
        let mut conditions = conditions.clone();
        conditions.extend(entry.condition());
        conditions.extend(needed.map(ToOwned::to_owned));
        // PostgreSQL has statistics and no such words.
        let hint = match engine {
            Engine::Sqlite => format!(" INDEXED BY {index}"),
            Engine::Postgres => String::new(),
        };
        format!(
            "SELECT jobs.id AS id, {column} AS at_ns FROM jobs{hint} WHERE {} ORDER BY {column} {direction}, \
             jobs.id {direction} LIMIT {limit}",
            conditions.join(" AND ")
        )
    };
    match entries {
        [entry] => branch(entry),
        // What lies in two parts of a scope is listed once.
        _ => {
            let branches: Vec<String> =
                entries.iter().map(|entry| format!("SELECT * FROM ({}) AS part", branch(entry))).collect();
            format!("{} ORDER BY 2 {direction}, 1 {direction} LIMIT {limit}", branches.join(" UNION "))
        }
    }
}

impl Control {
    /// Jobs that the scope reaches, at most `limit` behind `after`, newest first unless `ascending`.
    pub async fn jobs(
        &self,
        scope: &Scope,
        filter: &JobFilter,
        sort: JobSort,
        ascending: bool,
        after: Option<&JobCursor>,
        limit: u32,
    ) -> Result<Vec<ListedJob>, ControlError> {
        if !self.reaches_filter(scope, filter).await? {
            return Ok(Vec::new());
        }
        let entries = self.job_entries(scope, filter).await?;
        let condition = scope.condition("jobs.tenant_id", Some("jobs.user_id"));
        let behind = after.map(|cursor| (cursor.at_ns, cursor.id));
        let mut ids = Vec::new();
        if sort != JobSort::State || filter.state.is_some() {
            let part = Part { by_end: sort == JobSort::End, ascending, behind, limit };
            let found = statement(self.engine(), &entries, filter, &condition, part);
            ids = self.job_ids(found).await?;
        } else {
            // One list by start after the other.
            let mut states = JOB_STATE_ORDER.to_vec();
            if ascending {
                states.reverse();
            }
            let reached = after.and_then(|cursor| states.iter().position(|state| *state == cursor.state)).unwrap_or(0);
            for (at, state) in states.into_iter().enumerate().skip(reached) {
                let left = limit.saturating_sub(ids.len() as u32);
                if left == 0 {
                    break;
                }
                let filter = JobFilter { state: Some(state), ..filter.clone() };
                let behind = behind.filter(|_| at == reached);
                let part = Part { by_end: false, ascending, behind, limit: left };
                let found = statement(self.engine(), &entries, &filter, &condition, part);
                ids.extend(self.job_ids(found).await?);
            }
        }
        self.listed_jobs(&ids).await
    }

    /// Whether everything that a filter names is in the scope. Jobs of what is not are never looked at: how many there are
    /// would show in the time of the answer.
    pub(crate) async fn reaches_filter(&self, scope: &Scope, filter: &JobFilter) -> Result<bool, ControlError> {
        let named = [
            (filter.tenant.map(|id| id.to_string()), "tenants", scope.condition("tenants.id", None)),
            (filter.user.map(|id| id.to_string()), "users", scope.condition("users.tenant_id", Some("users.id"))),
            (
                filter.computer.map(|id| id.to_string()),
                "computers",
                scope.condition("computers.tenant_id", Some("computers.user_id")),
            ),
            (filter.plan.map(|id| id.to_string()), "plans", scope.condition("plans.tenant_id", Some("plans.user_id"))),
        ];
        for (id, table, condition) in named {
            let Some(id) = id else { continue };
            let text = format!("SELECT id FROM {table} WHERE id = $1 AND {condition}");
            let row = sqlx::query(sqlx::AssertSqlSafe(text)).bind(id).fetch_optional(&self.readers).await?;
            if row.is_none() {
                return Ok(false);
            }
        }
        Ok(true)
    }

    async fn job_ids(&self, statement: String) -> Result<Vec<String>, ControlError> {
        let rows = sqlx::query(sqlx::AssertSqlSafe(statement)).fetch_all(&self.readers).await?;
        Ok(rows.iter().map(|row| row.try_get("id")).collect::<Result<_, _>>()?)
    }

    /// Jobs with their names, in the order of the ids.
    pub(crate) async fn listed_jobs(&self, ids: &[String]) -> Result<Vec<ListedJob>, ControlError> {
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        let quoted: Vec<String> = ids.iter().map(|id| format!("'{id}'")).collect();
        let text = format!(
            "SELECT jobs.*, computers.name AS computer_name, plans.name AS plan_name, users.name AS user_name, \
             tenants.title AS tenant_title FROM jobs JOIN computers ON computers.id = jobs.computer_id \
             LEFT JOIN plans ON plans.id = jobs.plan_id JOIN users ON users.id = jobs.user_id \
             JOIN tenants ON tenants.id = jobs.tenant_id WHERE jobs.id IN ({})",
            quoted.join(", ")
        );
        let rows = sqlx::query(sqlx::AssertSqlSafe(text)).fetch_all(&self.readers).await?;
        let mut found = HashMap::new();
        for row in &rows {
            let listed = ListedJob {
                job: job(row)?,
                computer: row.try_get("computer_name")?,
                plan: row.try_get("plan_name")?,
                user: row.try_get("user_name")?,
                tenant: row.try_get("tenant_title")?,
            };
            found.insert(listed.job.id.to_string(), listed);
        }
        // One that has gone since is left out.
        Ok(ids.iter().filter_map(|id| found.remove(id)).collect())
    }

    /// Where a list is read from. The scope's condition stands in every statement besides.
    async fn job_entries(&self, scope: &Scope, filter: &JobFilter) -> Result<Vec<Entry>, ControlError> {
        if let Some(entry) = entries_of_filter(filter) {
            return Ok(vec![entry]);
        }
        let mut entries = Vec::new();
        for part in scope.parts() {
            if !self.entries_of_part(part, &mut entries).await? {
                entries = vec![Entry::All];
                break;
            }
        }
        if let Some(tenant) = filter.tenant {
            // Own jobs within a tenant are fewer than the tenant's.
            let users_alone = !entries.is_empty() && entries.iter().all(|entry| matches!(entry, Entry::User(_)));
            if !users_alone || entries.len() > ENTRIES_MAX {
                return Ok(vec![Entry::Tenant(tenant)]);
            }
        }
        if entries.is_empty() || entries.len() > ENTRIES_MAX {
            entries = vec![Entry::All];
        }
        Ok(entries)
    }

    /// `false` when the part is everything, or more than can be named.
    async fn entries_of_part(&self, part: &ScopePart, entries: &mut Vec<Entry>) -> Result<bool, ControlError> {
        let more = i64::try_from(ENTRIES_MAX + 1).unwrap_or(i64::MAX);
        let (text, id) = match part {
            ScopePart::Both(parts, _) => {
                for part in parts {
                    if !Box::pin(self.entries_of_part(part, entries)).await? {
                        return Ok(false);
                    }
                }
                return Ok(true);
            }
            ScopePart::User(id) => {
                entries.push(Entry::User(*id));
                return Ok(true);
            }
            ScopePart::Tenant(id) => {
                entries.push(Entry::Tenant(*id));
                return Ok(true);
            }
            ScopePart::Subtree(id) | ScopePart::Below(id) if *id == TenantId::PLATFORM => return Ok(false),
            ScopePart::Subtree(id) | ScopePart::Below(id) => (
                "SELECT below.id AS id FROM tenants AS above JOIN tenants AS below ON below.path LIKE above.path || '%' \
                 WHERE above.id = $1 LIMIT $2",
                id.to_string(),
            ),
            ScopePart::Service(id) => {
                ("SELECT user_id AS id FROM allocations WHERE service_id = $1 LIMIT $2", id.to_string())
            }
        };
        let rows = sqlx::query(text).bind(id).bind(more).fetch_all(&self.readers).await?;
        for row in &rows {
            let id: &str = row.try_get("id")?;
            entries.push(match part {
                ScopePart::Service(_) => Entry::User(UserId::stored(id)?),
                _ => Entry::Tenant(TenantId::stored(id)?),
            });
        }
        Ok(rows.len() <= ENTRIES_MAX)
    }
}

#[cfg(test)]
mod tests;
