//! The outbox: for the operator who looks whether mails go out, and for the job that sends them.

use crate::app::{App, AppError, Principal, Target, Verb};
use control::{ControlError, MailId, MailState, MailTemplate, NewMail, OutboxMail, OutgoingMail};
use std::collections::BTreeMap;

/// Mails forgotten at once.
const FORGET_STEP: u32 = 1000;

fn no_mail(error: ControlError) -> AppError {
    match error {
        ControlError::NotFound { .. } => AppError::NotFound { what: "mail" },
        other => other.into(),
    }
}

impl App {
    /// Mails, newest first.
    pub async fn outbox(
        &self,
        caller: &Principal,
        state: Option<MailState>,
        after: Option<(i64, MailId)>,
        limit: u32,
    ) -> Result<Vec<OutboxMail>, AppError> {
        let allowed = self.reach(caller, Verb::OUTBOX_VIEW).await?;
        Ok(self.control.outbox(&allowed.scope, state, after, limit).await?)
    }

    /// A waiting mail is tried at once.
    pub async fn retry_mail(&self, caller: &Principal, id: &MailId) -> Result<OutboxMail, AppError> {
        let allowed = self.allow(caller, Verb::OUTBOX_EDIT, Target::Platform).await?;
        let retried = self.control.retry_mail(&allowed.scope, &allowed.actor, id, self.clock.now_ns()).await;
        retried.map_err(no_mail)
    }

    /// A waiting mail is taken back.
    pub async fn cancel_mail(&self, caller: &Principal, id: &MailId) -> Result<OutboxMail, AppError> {
        let allowed = self.allow(caller, Verb::OUTBOX_EDIT, Target::Platform).await?;
        let cancelled = self.control.cancel_mail(&allowed.scope, &allowed.actor, id, self.clock.now_ns()).await;
        cancelled.map_err(no_mail)
    }

    /// Queues a mail that says that mail works.
    pub async fn send_test_mail(&self, caller: &Principal, to: &str, locale: &str) -> Result<MailId, AppError> {
        self.allow(caller, Verb::OUTBOX_EDIT, Target::Platform).await?;
        let values = BTreeMap::from([("server_link".to_owned(), self.public_url.clone())]);
        let mail = NewMail { to, template: MailTemplate::Test, locale, values, tenant: None };
        Ok(self.control.queue_mail(&mail, self.clock.now_ns()).await?)
    }

    pub(crate) async fn due_mails(&self, limit: u32) -> Result<Vec<OutgoingMail>, AppError> {
        Ok(self.control.due_mails(self.clock.now_ns(), limit).await?)
    }

    pub(crate) async fn mail_sent(&self, mail: &OutgoingMail) -> Result<(), AppError> {
        Ok(self.control.mail_sent(mail, self.clock.now_ns()).await?)
    }

    pub(crate) async fn mail_refused(&self, mail: &OutgoingMail, reason: &str) -> Result<(), AppError> {
        Ok(self.control.mail_refused(mail, reason, self.clock.now_ns()).await?)
    }

    pub(crate) async fn mail_delayed(&self, mail: &OutgoingMail, reason: &str) -> Result<(), AppError> {
        self.control.mail_delayed(mail, reason, self.clock.now_ns()).await?;
        Ok(())
    }

    /// Forgets mails that ended longer ago than `kept_ns`.
    pub(crate) async fn forget_mails(&self, kept_ns: i64) -> Result<u64, AppError> {
        Ok(self.control.forget_mails(self.clock.now_ns().saturating_sub(kept_ns), FORGET_STEP).await?)
    }

    /// How many mails are in each state, for metrics.
    pub async fn outbox_counts(&self) -> Result<BTreeMap<&'static str, i64>, AppError> {
        Ok(self.control.outbox_counts().await?)
    }
}
