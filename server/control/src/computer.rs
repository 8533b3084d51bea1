//! Computers: how they come to be (enrolment), the one credential each has, and how they go. Their plans and jobs are
//! elsewhere.

use crate::account::{check_name, vault_id};
use crate::allocation::computers_allowed_in;
use crate::audit_log::record;
use crate::error::exists;
use crate::job::{fail_lost_jobs, withdraw_queued_jobs};
use crate::{
    Actor, ComputerId, Control, ControlError, Deed, EnrolmentId, Location, Scope, SecretDigest, SecretKind, TenantId,
    TokenSecret, UserId, UserName,
};
use repo_format::id::VaultId;
use sqlx::any::AnyRow;
use sqlx::{AnyConnection, Row};

/// Longest text that an agent says about its system, bytes.
const SYSTEM_BYTES_MAX: usize = 200;

/// Whether a computer counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ComputerState {
    /// It does.
    Active,
    /// Its credential is dead; its snapshots stay.
    Retired,
}

impl ComputerState {
    /// As stored and as on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            ComputerState::Active => "active",
            ComputerState::Retired => "retired",
        }
    }

    fn stored(text: &str) -> Result<Self, ControlError> {
        match text {
            "active" => Ok(ComputerState::Active),
            "retired" => Ok(ComputerState::Retired),
            _ => Err(ControlError::Corrupt { what: "state of a computer" }),
        }
    }
}

/// A computer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Computer {
    /// Its id.
    pub id: ComputerId,
    /// Its user's tenant.
    pub tenant: TenantId,
    /// Whose it is.
    pub user: UserId,
    /// Its name in every snapshot it makes.
    pub name: String,
    /// Whether it counts.
    pub state: ComputerState,
    /// Since when, nanoseconds since 1970.
    pub state_ns: i64,
    /// When its credential was made.
    pub credential_ns: i64,
    /// Operating system, as the agent says it.
    pub os: String,
    /// Version of the agent.
    pub agent_version: String,
    /// Last heard of.
    pub seen_ns: Option<i64>,
    /// Rises with every change of its plans.
    pub plans_version: i64,
    /// Creation.
    pub created_ns: i64,
}

/// A computer as it is known by its credential.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KnownComputer {
    /// The computer.
    pub computer: Computer,
    /// Its user's address.
    pub user: UserName,
    /// Its user's vault, unless that was deleted.
    pub vault: Option<VaultId>,
    /// Whether its user is neither disabled nor deleted.
    pub user_is_active: bool,
}

/// An enrolment just made.
#[derive(Clone, Debug)]
pub struct FreshEnrolment {
    /// Its id.
    pub id: EnrolmentId,
    /// Shown this once.
    pub secret: TokenSecret,
    /// Good until then, nanoseconds since 1970.
    pub expires_ns: i64,
}

/// What an agent says about its computer.
#[derive(Clone, Debug, Default)]
pub struct SystemWords<'a> {
    /// Operating system.
    pub os: &'a str,
    /// Version of the agent.
    pub agent_version: &'a str,
}

impl SystemWords<'_> {
    fn check(&self) -> Result<(), ControlError> {
        let fits = |text: &str| text.len() <= SYSTEM_BYTES_MAX && !text.chars().any(char::is_control);
        match fits(self.os) && fits(self.agent_version) {
            true => Ok(()),
            false => Err(ControlError::Invalid {
                what: "os and agent_version",
                rule: "must be at most 200 bytes long and hold no control characters",
            }),
        }
    }
}

fn computer(row: &AnyRow) -> Result<Computer, ControlError> {
    Ok(Computer {
        id: ComputerId::stored(row.try_get("id")?)?,
        tenant: TenantId::stored(row.try_get("tenant_id")?)?,
        user: UserId::stored(row.try_get("user_id")?)?,
        name: row.try_get("name")?,
        state: ComputerState::stored(row.try_get("state")?)?,
        state_ns: row.try_get("state_ns")?,
        credential_ns: row.try_get("credential_ns")?,
        os: row.try_get("os")?,
        agent_version: row.try_get("agent_version")?,
        seen_ns: row.try_get("seen_ns")?,
        plans_version: row.try_get("plans_version")?,
        created_ns: row.try_get("created_ns")?,
    })
}

/// One computer, in a transaction.
pub(crate) async fn computer_in(
    connection: &mut AnyConnection,
    scope: &Scope,
    id: &ComputerId,
) -> Result<Computer, ControlError> {
    let text = format!(
        "SELECT * FROM computers WHERE id = $1 AND {}",
        scope.condition("computers.tenant_id", Some("computers.user_id"))
    );
    let row = sqlx::query(sqlx::AssertSqlSafe(text)).bind(id.to_string()).fetch_optional(connection).await?;
    computer(&row.ok_or_else(|| ControlError::not_found("computer", &id.to_string()))?)
}

/// The same, which must be active.
pub(crate) async fn active_computer_in(
    connection: &mut AnyConnection,
    scope: &Scope,
    id: &ComputerId,
) -> Result<Computer, ControlError> {
    let found = computer_in(connection, scope, id).await?;
    match found.state {
        ComputerState::Active => Ok(found),
        ComputerState::Retired => Err(ControlError::wrong_state("computer", &found.name, "retired", ENROL)),
    }
}

/// The actor that a computer is.
pub(crate) fn computer_actor(computer: &Computer, address: &str) -> Actor {
    Actor { id: computer.id.to_string(), name: computer.name.clone(), behalf: None, address: address.to_owned() }
}

fn deed(computer: &Computer, verb: &'static str) -> Deed<'static> {
    Deed {
        tenant: computer.tenant,
        user: Some(computer.user),
        verb,
        object: format!("computer {}", computer.id),
        before: None,
        after: None,
    }
}

impl Control {
    /// Where a computer stands: with its user.
    pub async fn locate_computer(&self, id: &ComputerId) -> Result<Option<Location>, ControlError> {
        let user: Option<String> = sqlx::query_scalar("SELECT user_id FROM computers WHERE id = $1")
            .bind(id.to_string())
            .fetch_optional(&self.readers)
            .await?;
        self.locate_owned(user).await
    }

    /// Makes an enrolment for a user's new computer, or for one that takes the place of `replaces`, which must be an
    /// active computer of the same user. [`ControlError::WrongState`] for a user without a vault.
    pub async fn create_enrolment(
        &self,
        scope: &Scope,
        actor: &Actor,
        user: &UserId,
        replaces: Option<&ComputerId>,
        expires_ns: i64,
        now_ns: i64,
    ) -> Result<FreshEnrolment, ControlError> {
        let secret = TokenSecret::generate(SecretKind::Enrolment)?;
        let id = EnrolmentId::generate()?;
        let mut transaction = self.write().await?;
        let text = format!(
            "SELECT users.name AS name, (SELECT COUNT(*) FROM vaults WHERE vaults.user_id = users.id \
             AND vaults.name = 'default') AS vaults FROM users WHERE users.id = $1 AND {}",
            scope.condition("users.tenant_id", Some("users.id"))
        );
        let row = sqlx::query(sqlx::AssertSqlSafe(text))
            .bind(user.to_string())
            .fetch_optional(&mut *transaction)
            .await?
            .ok_or_else(|| ControlError::not_found("user", &user.to_string()))?;
        if row.try_get::<i64, _>("vaults")? == 0 {
            let (name, needed) = (row.try_get::<String, _>("name")?, "allocate a part of a service to the user first");
            return Err(ControlError::wrong_state("user", &name, "without a vault", needed));
        }
        if let Some(replaces) = replaces {
            let old = active_computer_in(&mut transaction, scope, replaces).await?;
            if old.user != *user {
                return Err(ControlError::not_found("computer", &replaces.to_string()));
            }
        }
        let text = format!(
            "INSERT INTO enrolments (id, tenant_id, user_id, secret_hash, replaces_id, created_ns, expires_ns) \
             SELECT $1, users.tenant_id, users.id, $2, $3, $4, $5 FROM users WHERE users.id = $6 \
             AND users.state = 'active' AND {} RETURNING tenant_id",
            scope.condition("users.tenant_id", Some("users.id"))
        );
        let row = sqlx::query(sqlx::AssertSqlSafe(text))
            .bind(id.to_string())
            .bind(secret.digest().to_hexadecimal())
            .bind(replaces.map(ComputerId::to_string))
            .bind(now_ns)
            .bind(expires_ns)
            .bind(user.to_string())
            .fetch_optional(&mut *transaction)
            .await?
            .ok_or_else(|| ControlError::not_found("user", &user.to_string()))?;
        let verb = if replaces.is_some() { "computer.replace" } else { "computer.add" };
        let deed = Deed {
            tenant: TenantId::stored(row.try_get("tenant_id")?)?,
            user: Some(*user),
            verb,
            object: format!("enrolment {id}"),
            before: None,
            after: replaces.map(|replaces| serde_json::json!({ "replaces": replaces.to_string() })),
        };
        record(&mut transaction, actor, deed, now_ns).await?;
        // Those of long ago say nothing that the audit log does not.
        sqlx::query("DELETE FROM enrolments WHERE expires_ns < $1")
            .bind(now_ns.saturating_sub(ENROLMENTS_KEPT_NS))
            .execute(&mut *transaction)
            .await?;
        transaction.commit().await?;
        Ok(FreshEnrolment { id, secret, expires_ns })
    }

    /// Uses an enrolment up: makes a computer called `name`, or gives the one that is replaced a new credential (its
    /// name stays). [`ControlError::NotFound`] for a secret that is unknown, used or too old; [`ControlError::Exists`]
    /// when the user has a computer of this name. `replaces` names the computer whose place is taken, so that nobody takes
    /// one unaware; what does not fit the enrolment is refused. The enrolment stays good when anything is refused.
    pub async fn enrol(
        &self,
        enrolment: &SecretDigest,
        name: &str,
        replaces: Option<&str>,
        system: SystemWords<'_>,
        address: &str,
        now_ns: i64,
    ) -> Result<(Computer, TokenSecret), ControlError> {
        check_name("computer name", name)?;
        system.check()?;
        let secret = TokenSecret::generate(SecretKind::Computer)?;
        let hash = secret.digest().to_hexadecimal();
        let mut transaction = self.write().await?;
        let used = sqlx::query(
            "UPDATE enrolments SET used_ns = $1 WHERE secret_hash = $2 AND used_ns IS NULL AND expires_ns > $1 \
             AND EXISTS (SELECT 1 FROM users JOIN vaults ON vaults.user_id = users.id \
                 WHERE users.id = enrolments.user_id AND users.state = 'active' AND vaults.name = 'default') \
             RETURNING tenant_id, user_id, replaces_id",
        )
        .bind(now_ns)
        .bind(enrolment.to_hexadecimal())
        .fetch_optional(&mut *transaction)
        .await?
        .ok_or_else(|| ControlError::not_found("enrolment", ""))?;
        let (tenant, user): (String, String) = (used.try_get("tenant_id")?, used.try_get("user_id")?);
        let place: Option<String> = used.try_get("replaces_id")?;
        check_place(&mut transaction, place.as_deref(), replaces).await?;
        let row = match &place {
            Some(old) => sqlx::query(
                "UPDATE computers SET secret_hash = $1, credential_ns = $2, os = $3, agent_version = $4, seen_ns = $2, \
                 plans_version = plans_version + 1 WHERE id = $5 AND state = 'active' RETURNING *",
            )
            .bind(&hash)
            .bind(now_ns)
            .bind(system.os)
            .bind(system.agent_version)
            .bind(old)
            .fetch_optional(&mut *transaction)
            .await?
            .ok_or_else(|| ControlError::wrong_state("computer", old, "retired", ENROL))?,
            None => {
                check_room(&mut transaction, &UserId::stored(&user)?).await?;
                sqlx::query(
                    "INSERT INTO computers (id, tenant_id, user_id, name, state, state_ns, secret_hash, credential_ns, \
                     os, agent_version, seen_ns, created_ns) \
                     VALUES ($1, $2, $3, $4, 'active', $5, $6, $5, $7, $8, $5, $5) RETURNING *",
                )
                .bind(ComputerId::generate()?.to_string())
                .bind(&tenant)
                .bind(&user)
                .bind(name)
                .bind(now_ns)
                .bind(&hash)
                .bind(system.os)
                .bind(system.agent_version)
                .fetch_one(&mut *transaction)
                .await
                .map_err(|error| exists("computer", name, error))?
            }
        };
        let made = computer(&row)?;
        if place.is_some() {
            // What the old machine was doing, it does no longer.
            fail_lost_jobs(&mut transaction, &made.id, "another machine took the place of this one", now_ns).await?;
        }
        let verb = if place.is_some() { "computer.replaced" } else { "computer.enrolled" };
        let after = Some(serde_json::json!({ "name": made.name, "os": made.os }));
        let actor = computer_actor(&made, address);
        record(&mut transaction, &actor, Deed { after, ..deed(&made, verb) }, now_ns).await?;
        transaction.commit().await?;
        Ok((made, secret))
    }

    /// The computer with this credential; `None` when there is none, or it is retired.
    pub async fn find_computer(&self, secret: &SecretDigest) -> Result<Option<KnownComputer>, ControlError> {
        let row = sqlx::query(
            "SELECT computers.*, tenants.name AS customer, users.name AS user_name, users.state AS user_state, \
             vaults.id AS vault_id \
             FROM computers JOIN users ON users.id = computers.user_id JOIN tenants ON tenants.id = users.tenant_id \
             LEFT JOIN vaults ON vaults.user_id = users.id AND vaults.name = 'default' \
             WHERE computers.secret_hash = $1 AND computers.state = 'active'",
        )
        .bind(secret.to_hexadecimal())
        .fetch_optional(&self.readers)
        .await?;
        let Some(row) = row else { return Ok(None) };
        let has_vault = row.try_get::<Option<String>, _>("vault_id")?.is_some();
        Ok(Some(KnownComputer {
            computer: computer(&row)?,
            user: UserName { customer: row.try_get("customer")?, user: row.try_get("user_name")? },
            vault: if has_vault { Some(vault_id(&row, "vault_id")?) } else { None },
            user_is_active: row.try_get::<String, _>("user_state")? == "active",
        }))
    }

    /// One computer. [`ControlError::NotFound`] also when the scope does not reach it.
    pub async fn computer(&self, scope: &Scope, id: &ComputerId) -> Result<Computer, ControlError> {
        let mut connection = self.readers.acquire().await?;
        computer_in(&mut connection, scope, id).await
    }

    /// Computers that the scope reaches, by name; at most `limit` behind `after` (name and id of the last one before).
    pub async fn computers(
        &self,
        scope: &Scope,
        user: Option<&UserId>,
        after: Option<(&str, ComputerId)>,
        limit: u32,
    ) -> Result<Vec<Computer>, ControlError> {
        let text = format!(
            "SELECT * FROM computers WHERE (name > $1 OR (name = $1 AND id > $2)) AND ($3 = '' OR user_id = $3) \
             AND {} ORDER BY name, id LIMIT $4",
            scope.condition("computers.tenant_id", Some("computers.user_id"))
        );
        let (name, id) = after.map_or((String::new(), String::new()), |(name, id)| (name.into(), id.to_string()));
        let rows = sqlx::query(sqlx::AssertSqlSafe(text))
            .bind(name)
            .bind(id)
            .bind(user.map_or(String::new(), UserId::to_string))
            .bind(i64::from(limit))
            .fetch_all(&self.readers)
            .await?;
        rows.iter().map(computer).collect()
    }

    /// Takes a computer's credential away for good; what it has stored stays. Its plans go, and what it was still to do is
    /// cancelled.
    pub async fn retire_computer(
        &self,
        scope: &Scope,
        actor: &Actor,
        id: &ComputerId,
        now_ns: i64,
    ) -> Result<Computer, ControlError> {
        let mut transaction = self.write().await?;
        active_computer_in(&mut transaction, scope, id).await?;
        let row = sqlx::query(
            "UPDATE computers SET state = 'retired', state_ns = $1, secret_hash = NULL, \
             plans_version = plans_version + 1 WHERE id = $2 AND state = 'active' RETURNING *",
        )
        .bind(now_ns)
        .bind(id.to_string())
        .fetch_one(&mut *transaction)
        .await?;
        let retired = computer(&row)?;
        sqlx::query(
            "UPDATE plans SET state = 'deleted', state_ns = $1, due_ns = NULL, overdue_ns = NULL \
             WHERE computer_id = $2 AND state <> 'deleted'",
        )
        .bind(now_ns)
        .bind(id.to_string())
        .execute(&mut *transaction)
        .await?;
        withdraw_queued_jobs(&mut transaction, id, "the computer was retired", now_ns).await?;
        record(&mut transaction, actor, deed(&retired, "computer.retire"), now_ns).await?;
        transaction.commit().await?;
        Ok(retired)
    }

    /// An agent has started: what ran before on this computer runs no longer, and orders it had received and not begun
    /// are given to it again. Answers the computer as it is now.
    pub async fn greet_computer(
        &self,
        id: &ComputerId,
        system: SystemWords<'_>,
        now_ns: i64,
    ) -> Result<Computer, ControlError> {
        system.check()?;
        let mut transaction = self.write().await?;
        let row = sqlx::query(
            "UPDATE computers SET os = $1, agent_version = $2, seen_ns = $3 WHERE id = $4 AND state = 'active' RETURNING *",
        )
        .bind(system.os)
        .bind(system.agent_version)
        .bind(now_ns)
        .bind(id.to_string())
        .fetch_optional(&mut *transaction)
        .await?
        .ok_or_else(|| ControlError::not_found("computer", &id.to_string()))?;
        let found = computer(&row)?;
        fail_lost_jobs(&mut transaction, id, "the agent was started anew", now_ns).await?;
        sqlx::query(
            "UPDATE orders SET state = 'waiting', state_ns = $1 WHERE computer_id = $2 AND state = 'delivered' \
             AND job_id IN (SELECT jobs.id FROM jobs WHERE jobs.state = 'queued')",
        )
        .bind(now_ns)
        .bind(id.to_string())
        .execute(&mut *transaction)
        .await?;
        transaction.commit().await?;
        Ok(found)
    }

    /// A user's vault; `None` when it was deleted.
    pub async fn vault_of_user(&self, user: &UserId) -> Result<Option<VaultId>, ControlError> {
        let row = sqlx::query("SELECT id FROM vaults WHERE user_id = $1 AND name = 'default'")
            .bind(user.to_string())
            .fetch_optional(&self.readers)
            .await?;
        row.map(|row| vault_id(&row, "id")).transpose()
    }

    /// Notes when computers were last heard of.
    pub async fn note_seen(&self, seen: &[(ComputerId, i64)]) -> Result<(), ControlError> {
        if seen.is_empty() {
            return Ok(());
        }
        let mut transaction = self.write().await?;
        for (id, at_ns) in seen {
            sqlx::query("UPDATE computers SET seen_ns = $1 WHERE id = $2 AND (seen_ns IS NULL OR seen_ns < $1)")
                .bind(at_ns)
                .bind(id.to_string())
                .execute(&mut *transaction)
                .await?;
        }
        transaction.commit().await?;
        Ok(())
    }
}

/// The way out for a retired computer.
const ENROL: &str = "enrol it again as a new one";
/// Used and expired enrolments stay for a day.
const ENROLMENTS_KEPT_NS: i64 = 86_400_000_000_000;

/// Whether the computer that an agent names is the one whose place its enrolment takes.
async fn check_place(
    connection: &mut AnyConnection,
    place: Option<&str>,
    named: Option<&str>,
) -> Result<(), ControlError> {
    let refused = |rule: &'static str| Err(ControlError::Invalid { what: "replaces", rule });
    match (place, named) {
        (None, None) => Ok(()),
        (None, Some(_)) => refused("this enrolment makes a new computer, and takes no other one's place"),
        (Some(_), None) => refused("this enrolment takes the place of a computer: name it (--replace COMPUTER)"),
        (Some(id), Some(named)) => {
            let name: Option<String> = sqlx::query_scalar("SELECT name FROM computers WHERE id = $1")
                .bind(id)
                .fetch_optional(connection)
                .await?;
            match id == named || name.as_deref() == Some(named) {
                true => Ok(()),
                false => refused("this enrolment takes the place of another computer than the one named"),
            }
        }
    }
}

/// A user has no more computers than its allocations give.
async fn check_room(connection: &mut AnyConnection, user: &UserId) -> Result<(), ControlError> {
    let Some(room) = computers_allowed_in(&mut *connection, user).await? else { return Ok(()) };
    let used: i64 = sqlx::query_scalar("SELECT COUNT(*) FROM computers WHERE user_id = $1 AND state = 'active'")
        .bind(user.to_string())
        .fetch_one(connection)
        .await?;
    match used < room {
        true => Ok(()),
        false => Err(ControlError::wrong_state(
            "allocation",
            "of this user",
            &format!("used up: it gives {room} computers, and {used} are enrolled"),
            "retire one, or have more allocated",
        )),
    }
}
