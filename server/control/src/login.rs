//! Accounts as log-in sees them, and login sessions. Decides nothing: what is compared here was decided by the caller.

use crate::audit_log::record;
use crate::holding::path;
use crate::password::PasswordHash;
use crate::recovery::cancel_by_login;
use crate::{
    Actor, Control, ControlError, Deed, LoginSessionId, SecretDigest, SecretKind, TenantId, TenantState, TokenSecret,
    UserId,
};
use sqlx::any::AnyRow;
use sqlx::{AnyConnection, Row};

/// A login session ends after this long, whatever happens in it.
pub const LOGIN_SESSION_NS: i64 = 12 * 3600 * 1_000_000_000;
/// A fresh factor counts for this long.
pub const STEP_UP_NS: i64 = 10 * 60 * 1_000_000_000;
/// Most login sessions of one person; the one that was used longest ago ends.
pub const LOGIN_SESSIONS_MAX: i64 = 50;
const PROGRAM_BYTES_MAX: usize = 200;

/// Whether somebody may log in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UserState {
    /// Invited, never logged in.
    Invited,
    /// Yes.
    Active,
    /// Not at the moment.
    Disabled,
    /// Deleted, but can be brought back.
    Deleted,
    /// Gone.
    Erased,
}

impl UserState {
    /// As stored and as on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            UserState::Invited => "invited",
            UserState::Active => "active",
            UserState::Disabled => "disabled",
            UserState::Deleted => "deleted",
            UserState::Erased => "erased",
        }
    }

    pub(crate) fn stored(text: &str) -> Result<Self, ControlError> {
        Ok(match text {
            "invited" => UserState::Invited,
            "active" => UserState::Active,
            "disabled" => UserState::Disabled,
            "deleted" => UserState::Deleted,
            "erased" => UserState::Erased,
            _ => return Err(ControlError::Corrupt { what: "state of a user" }),
        })
    }
}

/// A person, as far as it concerns who that is.
#[derive(Clone, Debug)]
pub struct Account {
    /// Who.
    pub user: UserId,
    /// At home where.
    pub tenant: TenantId,
    /// From the platform down to that tenant.
    pub path: Vec<TenantId>,
    /// Name within the tenant.
    pub name: String,
    /// For people; may be empty.
    pub title: String,
    /// Title of the tenant.
    pub tenant_title: String,
    /// How the person logs in.
    pub email: Option<String>,
    /// Where notices go; the log-in address when absent.
    pub notify_email: Option<String>,
    /// `aa123456-hf`.
    pub customer_code: Option<String>,
    /// Language tag.
    pub locale: String,
    /// Name in the IANA database.
    pub time_zone: String,
    /// Whether the person may log in.
    pub state: UserState,
    /// Whether the tenant is in business.
    pub tenant_state: TenantState,
    /// What the password must match.
    pub password: Option<PasswordHash>,
    /// Whether codes are asked for.
    pub has_second_factor: bool,
    /// Last log-in, nanoseconds since 1970.
    pub last_login_ns: Option<i64>,
}

impl Account {
    /// For logs and lists.
    pub fn shown_name(&self) -> &str {
        if self.title.is_empty() { &self.name } else { &self.title }
    }

    /// Whether somebody with the right password may come in.
    pub fn may_log_in(&self) -> bool {
        self.state == UserState::Active && self.tenant_state != TenantState::Deleting
    }

    /// What a password may not be made of.
    pub fn names(&self) -> Vec<&str> {
        let email = self.email.as_deref();
        [Some(self.name.as_str()), Some(self.title.as_str()), Some(self.tenant_title.as_str()), email]
            .into_iter()
            .flatten()
            .collect()
    }
}

/// Columns of an [`Account`], from users, tenants, passwords and second_factors.
const ACCOUNT: &str = "users.id AS user_id, users.tenant_id AS tenant_id, users.name AS user_name, \
    users.title AS user_title, users.email AS email, users.notify_email AS notify_email, \
    users.customer_code AS customer_code, users.locale AS locale, users.time_zone AS time_zone, \
    users.state AS user_state, users.last_login_ns AS last_login_ns, tenants.path AS path, \
    tenants.title AS tenant_title, tenants.state AS tenant_state, passwords.hash AS password_hash, \
    second_factors.confirmed_ns AS second_factor_ns";
const ACCOUNT_FROM: &str = "users JOIN tenants ON tenants.id = users.tenant_id \
    LEFT JOIN passwords ON passwords.user_id = users.id LEFT JOIN second_factors ON second_factors.user_id = users.id";

fn account(row: &AnyRow) -> Result<Account, ControlError> {
    let password: Option<String> = row.try_get("password_hash")?;
    Ok(Account {
        user: UserId::stored(row.try_get("user_id")?)?,
        tenant: TenantId::stored(row.try_get("tenant_id")?)?,
        path: path(row.try_get("path")?)?,
        name: row.try_get("user_name")?,
        title: row.try_get("user_title")?,
        tenant_title: row.try_get("tenant_title")?,
        email: row.try_get("email")?,
        notify_email: row.try_get("notify_email")?,
        customer_code: row.try_get("customer_code")?,
        locale: row.try_get("locale")?,
        time_zone: row.try_get("time_zone")?,
        state: UserState::stored(row.try_get("user_state")?)?,
        tenant_state: TenantState::stored(row.try_get("tenant_state")?)?,
        password: password.map(PasswordHash::stored),
        has_second_factor: row.try_get::<Option<i64>, _>("second_factor_ns")?.is_some(),
        last_login_ns: row.try_get("last_login_ns")?,
    })
}

/// A login session.
#[derive(Clone, Debug)]
pub struct LoginSession {
    /// Its id.
    pub id: LoginSessionId,
    /// Beginning, nanoseconds since 1970.
    pub created_ns: i64,
    /// Last use, or up to a minute before it.
    pub seen_ns: i64,
    /// When it ends by itself at the latest.
    pub ends_ns: i64,
    /// Until when a fresh factor counts.
    pub step_up_until_ns: i64,
    /// From where it began.
    pub address: String,
    /// What the caller said it is.
    pub program: String,
}

/// A login session just begun, with its secret.
#[derive(Clone, Debug)]
pub struct FreshLogin {
    /// As it will be listed.
    pub session: LoginSession,
    /// Shown this once.
    pub secret: TokenSecret,
}

fn session(row: &AnyRow) -> Result<LoginSession, ControlError> {
    Ok(LoginSession {
        id: LoginSessionId::stored(row.try_get("session_id")?)?,
        created_ns: row.try_get("session_created_ns")?,
        seen_ns: row.try_get("seen_ns")?,
        ends_ns: row.try_get("ends_ns")?,
        step_up_until_ns: row.try_get("step_up_until_ns")?,
        address: row.try_get("address")?,
        program: row.try_get("program")?,
    })
}

const SESSION: &str = "login_sessions.id AS session_id, login_sessions.created_ns AS session_created_ns, \
    login_sessions.seen_ns AS seen_ns, login_sessions.ends_ns AS ends_ns, \
    login_sessions.step_up_until_ns AS step_up_until_ns, login_sessions.address AS address, \
    login_sessions.program AS program";

/// A person acting on an own account, for the audit log.
pub(crate) fn own_actor(account: &Account, address: &str) -> Actor {
    Actor {
        id: account.user.to_string(),
        name: account.shown_name().to_owned(),
        behalf: None,
        address: address.to_owned(),
    }
}

/// Something a person does to the own account.
pub(crate) fn own_deed(account: &Account, verb: &'static str, object: String) -> Deed<'static> {
    Deed { tenant: account.tenant, user: Some(account.user), verb, object, before: None, after: None }
}

pub(crate) async fn end_sessions_of(
    connection: &mut AnyConnection,
    user: &UserId,
    but: Option<LoginSessionId>,
) -> Result<u64, ControlError> {
    let ended = sqlx::query("DELETE FROM login_sessions WHERE user_id = $1 AND id <> $2")
        .bind(user.to_string())
        .bind(but.map_or_else(String::new, |id| id.to_string()))
        .execute(connection)
        .await?;
    Ok(ended.rows_affected())
}

impl Control {
    /// The person who logs in under this name: a mail address or a customer code.
    pub async fn account_by_login(&self, login: &str) -> Result<Option<Account>, ControlError> {
        let folded = login.trim().to_lowercase();
        let text =
            format!("SELECT {ACCOUNT} FROM {ACCOUNT_FROM} WHERE users.email_folded = $1 OR users.customer_code = $1");
        let row = sqlx::query(sqlx::AssertSqlSafe(text)).bind(folded).fetch_optional(&self.readers).await?;
        row.as_ref().map(account).transpose()
    }

    /// A person.
    pub async fn account(&self, user: &UserId) -> Result<Option<Account>, ControlError> {
        let text = format!("SELECT {ACCOUNT} FROM {ACCOUNT_FROM} WHERE users.id = $1");
        let row = sqlx::query(sqlx::AssertSqlSafe(text)).bind(user.to_string()).fetch_optional(&self.readers).await?;
        row.as_ref().map(account).transpose()
    }

    /// Begins a login session of somebody who has proven to be this person.
    pub async fn begin_login(
        &self,
        account: &Account,
        address: &str,
        program: &str,
        now_ns: i64,
    ) -> Result<FreshLogin, ControlError> {
        let secret = TokenSecret::generate(SecretKind::LoginSession)?;
        let program: String = program.chars().filter(|c| !c.is_control()).take(PROGRAM_BYTES_MAX / 4).collect();
        let session = LoginSession {
            id: LoginSessionId::generate()?,
            created_ns: now_ns,
            seen_ns: now_ns,
            ends_ns: now_ns.saturating_add(LOGIN_SESSION_NS),
            step_up_until_ns: 0,
            address: address.to_owned(),
            program,
        };
        let user = account.user.to_string();
        let mut transaction = self.write().await?;
        // What was true when the password was looked at may have changed since.
        let active = sqlx::query("UPDATE users SET last_login_ns = $1 WHERE id = $2 AND state = 'active'")
            .bind(now_ns)
            .bind(&user)
            .execute(&mut *transaction)
            .await?;
        if active.rows_affected() != 1 {
            return Err(ControlError::not_found("user", &user));
        }
        sqlx::query("DELETE FROM login_sessions WHERE ends_ns <= $1").bind(now_ns).execute(&mut *transaction).await?;
        sqlx::query(
            "DELETE FROM login_sessions WHERE user_id = $1 AND id NOT IN \
             (SELECT id FROM login_sessions WHERE user_id = $1 ORDER BY seen_ns DESC, id LIMIT $2)",
        )
        .bind(&user)
        .bind(LOGIN_SESSIONS_MAX - 1)
        .execute(&mut *transaction)
        .await?;
        sqlx::query(
            "INSERT INTO login_sessions (id, secret_hash, user_id, created_ns, seen_ns, ends_ns, step_up_until_ns, \
             address, program) VALUES ($1, $2, $3, $4, $4, $5, 0, $6, $7)",
        )
        .bind(session.id.to_string())
        .bind(secret.digest().to_hexadecimal())
        .bind(&user)
        .bind(now_ns)
        .bind(session.ends_ns)
        .bind(&session.address)
        .bind(&session.program)
        .execute(&mut *transaction)
        .await?;
        let actor = own_actor(account, address);
        cancel_by_login(&mut transaction, account, &actor, now_ns).await?;
        let deed = own_deed(account, "login", format!("login session {}", session.id));
        record(&mut transaction, &actor, deed, now_ns).await?;
        transaction.commit().await?;
        Ok(FreshLogin { session, secret })
    }

    /// The login session with this secret, and whose it is; whether it still counts is for the caller to say.
    pub async fn find_login(&self, secret: &SecretDigest) -> Result<Option<(LoginSession, Account)>, ControlError> {
        let text = format!(
            "SELECT {SESSION}, {ACCOUNT} FROM {ACCOUNT_FROM} JOIN login_sessions ON login_sessions.user_id = users.id \
             WHERE login_sessions.secret_hash = $1"
        );
        let row =
            sqlx::query(sqlx::AssertSqlSafe(text)).bind(secret.to_hexadecimal()).fetch_optional(&self.readers).await?;
        row.map(|row| Ok((session(&row)?, account(&row)?))).transpose()
    }

    /// Notes that a login session is in use. Callers do so once a minute at most.
    pub async fn note_login_use(&self, id: &LoginSessionId, now_ns: i64) -> Result<(), ControlError> {
        let mut transaction = self.write().await?;
        sqlx::query("UPDATE login_sessions SET seen_ns = $1 WHERE id = $2 AND seen_ns < $1")
            .bind(now_ns)
            .bind(id.to_string())
            .execute(&mut *transaction)
            .await?;
        transaction.commit().await?;
        Ok(())
    }

    /// A fresh factor was shown in a login session. Answers until when it counts.
    pub async fn step_up(
        &self,
        account: &Account,
        id: &LoginSessionId,
        address: &str,
        now_ns: i64,
    ) -> Result<i64, ControlError> {
        let until_ns = now_ns.saturating_add(STEP_UP_NS);
        let mut transaction = self.write().await?;
        let raised = sqlx::query("UPDATE login_sessions SET step_up_until_ns = $1 WHERE id = $2 AND user_id = $3")
            .bind(until_ns)
            .bind(id.to_string())
            .bind(account.user.to_string())
            .execute(&mut *transaction)
            .await?;
        if raised.rows_affected() != 1 {
            return Err(ControlError::not_found("login session", &id.to_string()));
        }
        let deed = own_deed(account, "login.step_up", format!("login session {id}"));
        record(&mut transaction, &own_actor(account, address), deed, now_ns).await?;
        transaction.commit().await?;
        Ok(until_ns)
    }

    /// A person's login sessions that have not reached their end, the one used last first.
    pub async fn login_sessions(&self, user: &UserId, now_ns: i64) -> Result<Vec<LoginSession>, ControlError> {
        let text = format!(
            "SELECT {SESSION} FROM login_sessions WHERE user_id = $1 AND ends_ns > $2 ORDER BY seen_ns DESC, id"
        );
        let rows =
            sqlx::query(sqlx::AssertSqlSafe(text)).bind(user.to_string()).bind(now_ns).fetch_all(&self.readers).await?;
        rows.iter().map(session).collect()
    }

    /// Ends one of a person's login sessions at once.
    pub async fn end_login(
        &self,
        account: &Account,
        id: &LoginSessionId,
        address: &str,
        now_ns: i64,
    ) -> Result<(), ControlError> {
        let mut transaction = self.write().await?;
        let ended = sqlx::query("DELETE FROM login_sessions WHERE id = $1 AND user_id = $2")
            .bind(id.to_string())
            .bind(account.user.to_string())
            .execute(&mut *transaction)
            .await?;
        if ended.rows_affected() != 1 {
            return Err(ControlError::not_found("login session", &id.to_string()));
        }
        let deed = own_deed(account, "login.end", format!("login session {id}"));
        record(&mut transaction, &own_actor(account, address), deed, now_ns).await?;
        transaction.commit().await?;
        Ok(())
    }

    /// Ends all of a person's login sessions, but for one perhaps. Answers how many.
    pub async fn end_logins(
        &self,
        account: &Account,
        but: Option<LoginSessionId>,
        address: &str,
        now_ns: i64,
    ) -> Result<u64, ControlError> {
        let mut transaction = self.write().await?;
        let ended = end_sessions_of(&mut transaction, &account.user, but).await?;
        let mut deed = own_deed(account, "login.end_all", format!("user {}", account.user));
        deed.after = Some(serde_json::json!({ "ended": ended }));
        record(&mut transaction, &own_actor(account, address), deed, now_ns).await?;
        transaction.commit().await?;
        Ok(ended)
    }
}
