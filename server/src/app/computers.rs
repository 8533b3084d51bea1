//! Computers: enrolling them, what is known of them, restores on them, and taking their credentials away.

use crate::app::plans::check_absolute;
use crate::app::{App, AppError, Need, Principal, Target, Verb};
use api::computers::NewRestore;
use control::{
    Computer, ComputerId, ControlError, FreshEnrolment, Job, SecretKind, SystemWords, TokenSecret, UserId, UserName,
};
use repo_format::id::{SnapshotId, VaultId};

/// An enrolment is good for ten minutes.
const ENROLMENT_NS: i64 = 600 * 1_000_000_000;
/// Unknown, used, too old and malformed ones get one answer.
const NO_ENROLMENT: AppError = AppError::NotFound { what: "enrolment token (it is good once, for ten minutes)" };
/// Most paths in one restore.
const RESTORE_PATHS_MAX: usize = 1000;

/// A computer just enrolled.
#[derive(Clone, Debug)]
pub struct EnrolledComputer {
    /// The computer.
    pub computer: Computer,
    /// Shown this once.
    pub secret: TokenSecret,
    /// Its user's address.
    pub user: UserName,
    /// Its user's vault.
    pub vault: VaultId,
}

fn unseen(error: ControlError) -> AppError {
    match error {
        ControlError::NotFound { what, .. } => AppError::NotFound { what },
        other => other.into(),
    }
}

impl App {
    pub(crate) async fn at_computer(
        &self,
        caller: &Principal,
        verb: Verb,
        computer: &str,
    ) -> Result<(ComputerId, super::Allowed), AppError> {
        let id = computer.parse::<ComputerId>().ok();
        let at = match &id {
            Some(id) => self.control.locate_computer(id).await?,
            None => None,
        };
        let allowed = self.allow(caller, verb, Target::Located("computer", at)).await?;
        Ok((id.ok_or(AppError::NotFound { what: "computer" })?, allowed))
    }

    /// Makes an enrolment: for a further computer of a user, or for one that takes the place of `replaces`.
    pub async fn create_enrolment(
        &self,
        caller: &Principal,
        user: &str,
        replaces: Option<&str>,
    ) -> Result<FreshEnrolment, AppError> {
        let verb = if replaces.is_some() { Verb::COMPUTER_REPLACE } else { Verb::COMPUTER_ADD };
        let user: UserId = user.parse().map_err(|_| AppError::NotFound { what: "user" })?;
        let allowed = self.allow(caller, verb, Target::User(user)).await?;
        let replaces = match replaces {
            None => None,
            Some(text) => Some(text.parse::<ComputerId>().map_err(|_| AppError::NotFound { what: "computer" })?),
        };
        if let Some(vault) = self.control.vault_of_user(&user).await? {
            self.check_gate(caller, vault, Need::Backup).await?;
        }
        let now_ns = self.clock.now_ns();
        let expires_ns = now_ns.saturating_add(ENROLMENT_NS);
        let (scope, actor) = (&allowed.scope, &allowed.actor);
        let made = self.control.create_enrolment(scope, actor, &user, replaces.as_ref(), expires_ns, now_ns).await;
        made.map_err(unseen)
    }

    /// Where agents find this server.
    pub fn public_url(&self) -> &str {
        &self.public_url
    }

    /// Uses an enrolment up. Whoever calls has nothing but its token.
    pub async fn enrol(
        &self,
        token: &str,
        name: &str,
        replaces: Option<&str>,
        system: SystemWords<'_>,
    ) -> Result<EnrolledComputer, AppError> {
        let token = TokenSecret::parse(SecretKind::Enrolment, token).ok_or(NO_ENROLMENT)?;
        let now_ns = self.clock.now_ns();
        let enrolled = self.control.enrol(&token.digest(), name, replaces, system, "agent", now_ns).await;
        let (computer, secret) = enrolled.map_err(|error| match error {
            ControlError::NotFound { .. } => NO_ENROLMENT,
            other => other.into(),
        })?;
        kill_point!(ComputerEnrolled);
        self.known_computers.forget();
        self.agents.ring(computer.id);
        let known = self.control.find_computer(&secret.digest()).await?;
        let known = known.ok_or_else(|| AppError::Internal("a computer was gone when it was enrolled".into()))?;
        let vault = known.vault.ok_or(AppError::NotFound { what: "vault" })?;
        tracing::info!(computer = %computer.id, name = computer.name, user = %known.user, "computer enrolled");
        Ok(EnrolledComputer { computer, secret, user: known.user, vault })
    }

    /// One computer, and whether its agent waits for orders.
    pub async fn computer(&self, caller: &Principal, computer: &str) -> Result<(Computer, bool), AppError> {
        let (id, allowed) = self.at_computer(caller, Verb::COMPUTER_VIEW, computer).await?;
        let found = self.control.computer(&allowed.scope, &id).await.map_err(unseen)?;
        Ok((found, self.agents.is_online(id)))
    }

    /// Whether a computer's agent waits for orders.
    pub fn is_online(&self, computer: ComputerId) -> bool {
        self.agents.is_online(computer)
    }

    /// Computers that the caller sees, by name.
    pub async fn computers(
        &self,
        caller: &Principal,
        user: Option<&str>,
        after: Option<(&str, ComputerId)>,
        limit: u32,
    ) -> Result<Vec<Computer>, AppError> {
        let allowed = self.reach(caller, Verb::COMPUTER_VIEW).await?;
        let user = match user {
            None => None,
            // A filter that names nothing finds nothing.
            Some(text) => match text.parse::<UserId>() {
                Ok(id) => Some(id),
                Err(_) => return Ok(Vec::new()),
            },
        };
        Ok(self.control.computers(&allowed.scope, user.as_ref(), after, limit).await?)
    }

    /// Takes a computer's credential away; what it has stored stays.
    pub async fn retire_computer(&self, caller: &Principal, computer: &str) -> Result<Computer, AppError> {
        let (id, allowed) = self.at_computer(caller, Verb::COMPUTER_RETIRE, computer).await?;
        let now_ns = self.clock.now_ns();
        let retired = self.control.retire_computer(&allowed.scope, &allowed.actor, &id, now_ns).await;
        self.known_computers.forget();
        self.agents.ring(id);
        retired.map_err(unseen)
    }

    /// Orders a restore on a computer, of a snapshot in its user's vault.
    pub async fn order_restore(
        &self,
        caller: &Principal,
        computer: &str,
        restore: &NewRestore,
    ) -> Result<Job, AppError> {
        let (id, allowed) = self.at_computer(caller, Verb::CONTENT_RESTORE, computer).await?;
        check_absolute("target", &restore.target)?;
        if restore.paths.len() > RESTORE_PATHS_MAX {
            return Err(AppError::Invalid(format!("paths: at most {RESTORE_PATHS_MAX} are possible")));
        }
        restore.paths.iter().try_for_each(|path| check_absolute("paths", path))?;
        let no_snapshot = AppError::NotFound { what: "snapshot" };
        let Ok(snapshot) = restore.snapshot.parse::<SnapshotId>() else { return Err(no_snapshot) };
        let user = allowed.at.user.ok_or(AppError::NotFound { what: "user" })?;
        let vault = self.control.vault_of_user(&user).await?.ok_or(AppError::NotFound { what: "vault" })?;
        // The server tells now what the agent would only find out.
        let grant = self.on_vault(caller, &vault.to_string(), Need::Restore).await?;
        self.snapshot(grant, snapshot).await?;
        let body = serde_json::to_string(restore).map_err(|error| AppError::Internal(error.to_string()))?;
        let now_ns = self.clock.now_ns();
        let queued = self.control.order_restore(&allowed.scope, &allowed.actor, &id, &body, now_ns).await;
        let queued = queued.map_err(unseen)?;
        self.agents.ring(id);
        Ok(queued)
    }
}
