//! Giving an account back to its owner: asked for by an operator, agreed to by a second one, carried out by the server
//! when the time is over.

use crate::app::auth::{Allowed, Target, Verb, server_actor};
use crate::app::error::or_not_found;
use crate::app::identity::passwords::PASSWORD_LINK;
use crate::app::{App, AppError, Principal};
use control::{Account, Email, Recovery, RecoveryId, UserId};

impl App {
    /// Asks for the recovery of an account.
    pub async fn ask_recovery(
        &self,
        caller: &Principal,
        user: UserId,
        new_email: &str,
        reason: &str,
    ) -> Result<Recovery, AppError> {
        let allowed = self.allow(caller, Verb::USER_RECOVER, Target::User(user)).await?;
        let account = self.control.account(&user).await?.ok_or(AppError::NotFound { what: "user" })?;
        if allowed.actor.id == user.to_string() {
            return Err(AppError::Forbidden { needed: "another operator: nobody recovers the own account" });
        }
        let email = Email::parse(new_email)?;
        Ok(self.control.ask_recovery(&allowed.actor, &account, &email, reason, self.clock.now_ns()).await?)
    }

    async fn of_recovery(&self, caller: &Principal, id: &RecoveryId) -> Result<(Recovery, Account, Allowed), AppError> {
        const ABSENT: AppError = AppError::NotFound { what: "recovery" };
        let found = self.control.recovery(id).await?;
        let at = match &found {
            Some(found) => self.control.locate_user(&found.user).await?,
            None => None,
        };
        let allowed = self.allow(caller, Verb::USER_RECOVER, Target::Located("recovery", at)).await?;
        let found = found.ok_or(ABSENT)?;
        let account = self.control.account(&found.user).await?.ok_or(ABSENT)?;
        Ok((found, account, allowed))
    }

    /// Agrees, as a second operator.
    pub async fn approve_recovery(&self, caller: &Principal, id: &RecoveryId) -> Result<Recovery, AppError> {
        let (_, account, allowed) = self.of_recovery(caller, id).await?;
        if allowed.actor.id == account.user.to_string() {
            return Err(AppError::Forbidden { needed: "another operator: nobody recovers the own account" });
        }
        let approved = self.control.approve_recovery(&allowed.actor, &account, id, self.clock.now_ns()).await;
        approved.map_err(or_not_found)
    }

    /// Ends a recovery.
    pub async fn cancel_recovery(&self, caller: &Principal, id: &RecoveryId) -> Result<Recovery, AppError> {
        let (_, account, allowed) = self.of_recovery(caller, id).await?;
        let cancelled = self.control.cancel_recovery(&allowed.actor, &account, id, self.clock.now_ns()).await;
        cancelled.map_err(or_not_found)
    }

    /// Recoveries, newest first.
    pub async fn recoveries(
        &self,
        caller: &Principal,
        after: Option<(i64, RecoveryId)>,
        limit: u32,
    ) -> Result<Vec<Recovery>, AppError> {
        let allowed = self.reach(caller, Verb::USER_RECOVER).await?;
        Ok(self.control.recoveries(&allowed.scope, after, limit).await?)
    }

    /// What becomes due with time: recoveries are carried out, invitations expire. Answers how many recoveries.
    pub async fn advance_identity(&self) -> Result<usize, AppError> {
        let (now_ns, actor) = (self.clock.now_ns(), server_actor());
        self.control.expire_invitations(&actor, now_ns).await?;
        let due = self.control.due_recoveries(now_ns).await?;
        let base = format!("{}{PASSWORD_LINK}", self.public_url);
        let mut done = 0;
        for recovery in &due {
            let Some(account) = self.control.account(&recovery.user).await? else { continue };
            match self.control.finish_recovery(&actor, &account, &recovery.id, &base, now_ns).await {
                Ok(()) => done += 1,
                // Somebody else has taken the address meanwhile, or the recovery was cancelled just now.
                Err(error) => tracing::warn!(recovery = %recovery.id, %error, "a recovery could not be carried out"),
            }
        }
        Ok(done)
    }
}
