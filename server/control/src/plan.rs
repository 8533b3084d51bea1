//! Backup plans: what a computer backs up, when, and for how long it is kept. What stands in a plan's body is not looked
//! at here; every change of it is a revision of its own, so that a job says by which one it ran.

use crate::account::{check_name, vault_id};
use crate::audit_log::record;
use crate::computer::active_computer_in;
use crate::error::exists;
use crate::job::withdraw_plan_jobs;
use crate::retention::set_policy;
use crate::{
    Actor, ComputerId, Control, ControlError, Deed, Location, PlanId, RetentionPolicy, Scope, SeriesName, TenantId,
    UserId,
};
use repo_format::id::VaultId;
use sqlx::any::AnyRow;
use sqlx::{AnyConnection, Row};

/// Whether a plan runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PlanState {
    /// By its schedule.
    Enabled,
    /// Only when somebody starts it.
    Paused,
    /// No more; its jobs and snapshots stay.
    Deleted,
}

impl PlanState {
    /// As stored and as on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            PlanState::Enabled => "enabled",
            PlanState::Paused => "paused",
            PlanState::Deleted => "deleted",
        }
    }

    fn stored(text: &str) -> Result<Self, ControlError> {
        match text {
            "enabled" => Ok(PlanState::Enabled),
            "paused" => Ok(PlanState::Paused),
            "deleted" => Ok(PlanState::Deleted),
            _ => Err(ControlError::Corrupt { what: "state of a plan" }),
        }
    }
}

/// A plan with its current revision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Its id.
    pub id: PlanId,
    /// Its user's tenant.
    pub tenant: TenantId,
    /// Whose it is.
    pub user: UserId,
    /// On which computer.
    pub computer: ComputerId,
    /// Name, and the series of its snapshots.
    pub name: String,
    /// Whether it runs.
    pub state: PlanState,
    /// Since when, nanoseconds since 1970.
    pub state_ns: i64,
    /// Number of the current revision, from 1.
    pub revision: i64,
    /// The revision: JSON.
    pub body: String,
    /// When that was made.
    pub revised_ns: i64,
    /// When it is to run next.
    pub due: Option<Due>,
    /// Creation.
    pub created_ns: i64,
}

/// A moment at which a plan is to run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Due {
    /// The moment of the schedule, nanoseconds since 1970.
    pub slot_ns: i64,
    /// From then on it is missed.
    pub overdue_ns: i64,
}

/// A revision of a plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlanRevision {
    /// Number, from 1.
    pub revision: i64,
    /// JSON.
    pub body: String,
    /// Who made it, for people.
    pub created_by: String,
    /// When.
    pub created_ns: i64,
}

/// What a plan is to say from now on.
#[derive(Clone, Debug)]
pub struct NewRevision<'a> {
    /// JSON.
    pub body: &'a str,
    /// When it is to run next.
    pub due: Option<Due>,
    /// How long the snapshots of its series are kept; for ever when there is none.
    pub retention: Option<&'a RetentionPolicy>,
}

const SELECT: &str = "SELECT plans.*, plan_revisions.body AS body, plan_revisions.created_ns AS revised_ns FROM plans \
     JOIN plan_revisions ON plan_revisions.plan_id = plans.id AND plan_revisions.revision = plans.revision";

fn plan(row: &AnyRow) -> Result<Plan, ControlError> {
    let (slot_ns, overdue_ns): (Option<i64>, Option<i64>) = (row.try_get("due_ns")?, row.try_get("overdue_ns")?);
    Ok(Plan {
        id: PlanId::stored(row.try_get("id")?)?,
        tenant: TenantId::stored(row.try_get("tenant_id")?)?,
        user: UserId::stored(row.try_get("user_id")?)?,
        computer: ComputerId::stored(row.try_get("computer_id")?)?,
        name: row.try_get("name")?,
        state: PlanState::stored(row.try_get("state")?)?,
        state_ns: row.try_get("state_ns")?,
        revision: row.try_get("revision")?,
        body: row.try_get("body")?,
        revised_ns: row.try_get("revised_ns")?,
        due: slot_ns.zip(overdue_ns).map(|(slot_ns, overdue_ns)| Due { slot_ns, overdue_ns }),
        created_ns: row.try_get("created_ns")?,
    })
}

/// One plan, in a transaction.
pub(crate) async fn plan_in(connection: &mut AnyConnection, scope: &Scope, id: &PlanId) -> Result<Plan, ControlError> {
    let text = format!(
        "{SELECT} WHERE plans.id = $1 AND plans.state <> 'deleted' AND {}",
        scope.condition("plans.tenant_id", Some("plans.user_id"))
    );
    let row = sqlx::query(sqlx::AssertSqlSafe(text)).bind(id.to_string()).fetch_optional(connection).await?;
    plan(&row.ok_or_else(|| ControlError::not_found("plan", &id.to_string()))?)
}

/// The computer's agent must ask for its plans again.
async fn changed(connection: &mut AnyConnection, computer: &ComputerId) -> Result<(), ControlError> {
    sqlx::query("UPDATE computers SET plans_version = plans_version + 1 WHERE id = $1")
        .bind(computer.to_string())
        .execute(connection)
        .await?;
    Ok(())
}

/// Writes a plan's current revision down, and its retention for its series.
async fn insert_revision(
    connection: &mut AnyConnection,
    plan: &PlanId,
    number: i64,
    new: &NewRevision<'_>,
    actor: &Actor,
    now_ns: i64,
) -> Result<(), ControlError> {
    let row = sqlx::query(
        "SELECT plans.name AS name, computers.name AS computer, vaults.id AS vault_id FROM plans \
         JOIN computers ON computers.id = plans.computer_id \
         JOIN vaults ON vaults.user_id = plans.user_id AND vaults.name = 'default' WHERE plans.id = $1",
    )
    .bind(plan.to_string())
    .fetch_optional(&mut *connection)
    .await?;
    if let Some(row) = row {
        let vault: VaultId = vault_id(&row, "vault_id")?;
        let series = SeriesName { computer: row.try_get("computer")?, series: row.try_get("name")? };
        set_policy(connection, &vault, Some(&series), new.retention, now_ns).await?;
    }
    sqlx::query(
        "INSERT INTO plan_revisions (plan_id, revision, body, created_by, created_ns) VALUES ($1, $2, $3, $4, $5)",
    )
    .bind(plan.to_string())
    .bind(number)
    .bind(new.body)
    .bind(&actor.name)
    .bind(now_ns)
    .execute(connection)
    .await?;
    Ok(())
}

fn deed(plan: &Plan, before: Option<serde_json::Value>, after: Option<serde_json::Value>) -> Deed<'static> {
    Deed {
        tenant: plan.tenant,
        user: Some(plan.user),
        verb: "plan.edit",
        object: format!("plan {}", plan.id),
        before,
        after,
    }
}

impl Control {
    /// Where a plan stands: with its user.
    pub async fn locate_plan(&self, id: &PlanId) -> Result<Option<Location>, ControlError> {
        let user: Option<String> = sqlx::query_scalar("SELECT user_id FROM plans WHERE id = $1 AND state <> 'deleted'")
            .bind(id.to_string())
            .fetch_optional(&self.readers)
            .await?;
        self.locate_owned(user).await
    }

    /// Makes a plan of an active computer, enabled. [`ControlError::Exists`] when the computer has one of this name.
    pub async fn create_plan(
        &self,
        scope: &Scope,
        actor: &Actor,
        computer: &ComputerId,
        name: &str,
        new: &NewRevision<'_>,
        now_ns: i64,
    ) -> Result<Plan, ControlError> {
        check_name("plan name", name)?;
        let id = PlanId::generate()?;
        let mut transaction = self.write().await?;
        let computer = active_computer_in(&mut transaction, scope, computer).await?;
        sqlx::query(
            "INSERT INTO plans (id, tenant_id, user_id, computer_id, name, state, state_ns, revision, due_ns, \
             overdue_ns, created_ns) VALUES ($1, $2, $3, $4, $5, 'enabled', $6, 1, $7, $8, $6)",
        )
        .bind(id.to_string())
        .bind(computer.tenant.to_string())
        .bind(computer.user.to_string())
        .bind(computer.id.to_string())
        .bind(name)
        .bind(now_ns)
        .bind(new.due.map(|due| due.slot_ns))
        .bind(new.due.map(|due| due.overdue_ns))
        .execute(&mut *transaction)
        .await
        .map_err(|error| exists("plan", name, error))?;
        insert_revision(&mut transaction, &id, 1, new, actor, now_ns).await?;
        changed(&mut transaction, &computer.id).await?;
        let made = plan_in(&mut transaction, scope, &id).await?;
        let after = serde_json::json!({ "name": name, "computer": computer.id.to_string(), "revision": 1 });
        record(&mut transaction, actor, deed(&made, None, Some(after)), now_ns).await?;
        transaction.commit().await?;
        Ok(made)
    }

    /// Gives a plan a new revision. A job that runs ends by the old one.
    pub async fn revise_plan(
        &self,
        scope: &Scope,
        actor: &Actor,
        id: &PlanId,
        new: &NewRevision<'_>,
        now_ns: i64,
    ) -> Result<Plan, ControlError> {
        let mut transaction = self.write().await?;
        let old = plan_in(&mut transaction, scope, id).await?;
        let due = new.due.filter(|_| old.state == PlanState::Enabled);
        sqlx::query("UPDATE plans SET revision = $1, due_ns = $2, overdue_ns = $3 WHERE id = $4 AND revision = $5")
            .bind(old.revision + 1)
            .bind(due.map(|due| due.slot_ns))
            .bind(due.map(|due| due.overdue_ns))
            .bind(id.to_string())
            .bind(old.revision)
            .execute(&mut *transaction)
            .await?;
        insert_revision(&mut transaction, id, old.revision + 1, new, actor, now_ns).await?;
        changed(&mut transaction, &old.computer).await?;
        let made = plan_in(&mut transaction, scope, id).await?;
        let revision = |plan: &Plan| Some(serde_json::json!({ "revision": plan.revision }));
        record(&mut transaction, actor, deed(&made, revision(&old), revision(&made)), now_ns).await?;
        transaction.commit().await?;
        Ok(made)
    }

    /// Pauses an enabled plan.
    pub async fn pause_plan(
        &self,
        scope: &Scope,
        actor: &Actor,
        id: &PlanId,
        now_ns: i64,
    ) -> Result<Plan, ControlError> {
        self.move_plan(scope, actor, id, (&[PlanState::Enabled], PlanState::Paused), None, now_ns).await
    }

    /// Lets a paused plan run again.
    pub async fn resume_plan(
        &self,
        scope: &Scope,
        actor: &Actor,
        id: &PlanId,
        due: Option<Due>,
        now_ns: i64,
    ) -> Result<Plan, ControlError> {
        self.move_plan(scope, actor, id, (&[PlanState::Paused], PlanState::Enabled), due, now_ns).await
    }

    /// Ends a plan; its jobs and snapshots stay, what it was still to do is cancelled.
    pub async fn delete_plan(
        &self,
        scope: &Scope,
        actor: &Actor,
        id: &PlanId,
        now_ns: i64,
    ) -> Result<Plan, ControlError> {
        let from = &[PlanState::Enabled, PlanState::Paused];
        self.move_plan(scope, actor, id, (from, PlanState::Deleted), None, now_ns).await
    }

    async fn move_plan(
        &self,
        scope: &Scope,
        actor: &Actor,
        id: &PlanId,
        (from, to): (&[PlanState], PlanState),
        due: Option<Due>,
        now_ns: i64,
    ) -> Result<Plan, ControlError> {
        let mut transaction = self.write().await?;
        let mut plan = plan_in(&mut transaction, scope, id).await?;
        let was = plan.state;
        if !from.contains(&was) {
            return Err(ControlError::wrong_state(
                "plan",
                &plan.name,
                was.as_str(),
                "an enabled one is paused, a paused one resumed",
            ));
        }
        let moved = sqlx::query(
            "UPDATE plans SET state = $1, state_ns = $2, due_ns = $3, overdue_ns = $4 WHERE id = $5 AND state = $6",
        )
        .bind(to.as_str())
        .bind(now_ns)
        .bind(due.map(|due| due.slot_ns))
        .bind(due.map(|due| due.overdue_ns))
        .bind(id.to_string())
        .bind(was.as_str())
        .execute(&mut *transaction)
        .await?;
        if moved.rows_affected() != 1 {
            return Err(ControlError::wrong_state("plan", &plan.name, "changing at this moment", "try again"));
        }
        if to == PlanState::Deleted {
            withdraw_plan_jobs(&mut transaction, id, "the plan was deleted", now_ns).await?;
        }
        changed(&mut transaction, &plan.computer).await?;
        let state = |state: PlanState| Some(serde_json::json!({ "state": state.as_str() }));
        record(&mut transaction, actor, deed(&plan, state(was), state(to)), now_ns).await?;
        transaction.commit().await?;
        (plan.state, plan.state_ns, plan.due) = (to, now_ns, due);
        Ok(plan)
    }

    /// One plan. [`ControlError::NotFound`] also when the scope does not reach it, and for a deleted one.
    pub async fn plan(&self, scope: &Scope, id: &PlanId) -> Result<Plan, ControlError> {
        let mut connection = self.readers.acquire().await?;
        plan_in(&mut connection, scope, id).await
    }

    /// Plans that the scope reaches, by name, deleted ones left out; at most `limit` behind `after` (name and id of the
    /// last one before).
    pub async fn plans(
        &self,
        scope: &Scope,
        computer: Option<&ComputerId>,
        after: Option<(&str, PlanId)>,
        limit: u32,
    ) -> Result<Vec<Plan>, ControlError> {
        let text = format!(
            "{SELECT} WHERE (plans.name > $1 OR (plans.name = $1 AND plans.id > $2)) AND plans.state <> 'deleted' \
             AND ($3 = '' OR plans.computer_id = $3) AND {} ORDER BY plans.name, plans.id LIMIT $4",
            scope.condition("plans.tenant_id", Some("plans.user_id"))
        );
        let (name, id) = after.map_or((String::new(), String::new()), |(name, id)| (name.into(), id.to_string()));
        let rows = sqlx::query(sqlx::AssertSqlSafe(text))
            .bind(name)
            .bind(id)
            .bind(computer.map_or(String::new(), ComputerId::to_string))
            .bind(i64::from(limit))
            .fetch_all(&self.readers)
            .await?;
        rows.iter().map(plan).collect()
    }

    /// A computer's own plans with their version, for its agent: one state of both.
    pub async fn plans_of_computer(&self, computer: &ComputerId) -> Result<(i64, Vec<Plan>), ControlError> {
        let mut transaction = self.readers.begin().await?;
        let version: Option<i64> = sqlx::query_scalar("SELECT plans_version FROM computers WHERE id = $1")
            .bind(computer.to_string())
            .fetch_optional(&mut *transaction)
            .await?;
        let version = version.ok_or_else(|| ControlError::not_found("computer", &computer.to_string()))?;
        let text = format!("{SELECT} WHERE plans.computer_id = $1 AND plans.state <> 'deleted' ORDER BY plans.name");
        let rows =
            sqlx::query(sqlx::AssertSqlSafe(text)).bind(computer.to_string()).fetch_all(&mut *transaction).await?;
        Ok((version, rows.iter().map(plan).collect::<Result<_, _>>()?))
    }

    /// Up to which moment a plan's schedule has been run for. A miss does not count: it may still be made up for.
    pub async fn last_slot(&self, id: &PlanId) -> Result<Option<i64>, ControlError> {
        Ok(sqlx::query_scalar(
            "SELECT MAX(CASE WHEN cause = 'catch_up' THEN started_ns ELSE slot_ns END) FROM jobs \
             WHERE plan_id = $1 AND state <> 'missed'",
        )
        .bind(id.to_string())
        .fetch_one(&self.readers)
        .await?)
    }

    /// Every revision of a plan, the newest first.
    pub async fn plan_revisions(&self, scope: &Scope, id: &PlanId) -> Result<Vec<PlanRevision>, ControlError> {
        self.plan(scope, id).await?;
        let rows = sqlx::query("SELECT * FROM plan_revisions WHERE plan_id = $1 ORDER BY revision DESC")
            .bind(id.to_string())
            .fetch_all(&self.readers)
            .await?;
        let revision = |row: &AnyRow| {
            Ok(PlanRevision {
                revision: row.try_get("revision")?,
                body: row.try_get("body")?,
                created_by: row.try_get("created_by")?,
                created_ns: row.try_get("created_ns")?,
            })
        };
        rows.iter().map(revision).collect()
    }

    /// Enabled plans that were due and have not begun in time, the longest overdue first.
    pub async fn overdue_plans(&self, now_ns: i64, limit: u32) -> Result<Vec<Plan>, ControlError> {
        let text = format!(
            "{SELECT} WHERE plans.state = 'enabled' AND plans.overdue_ns <= $1 ORDER BY plans.overdue_ns LIMIT $2"
        );
        let rows =
            sqlx::query(sqlx::AssertSqlSafe(text)).bind(now_ns).bind(i64::from(limit)).fetch_all(&self.readers).await?;
        rows.iter().map(plan).collect()
    }
}
