//! Webhooks: making and changing them, and handing over what waits for them. Their secrets are sealed at rest.

use crate::app::{Allowed, App, AppError, Principal, Target, Verb};
use crate::webhook_sender::{NotTaken, Parcel, WebhookSender};
use control::{
    ControlError, Delivery, DeliveryId, EventKind, NewWebhook, OutgoingDelivery, SecretKind, TenantId, TokenSecret,
    UserId, Webhook, WebhookChange, WebhookId,
};

/// Deliveries forgotten at once.
const FORGET_STEP: u32 = 1000;

/// Whose a webhook is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WebhookOwner {
    /// Tells of a tenant and everything below it.
    Tenant(TenantId),
    /// Tells of what is one user's.
    User(UserId),
}

fn no_webhook(error: ControlError) -> AppError {
    match error {
        ControlError::NotFound { .. } => AppError::NotFound { what: "webhook" },
        other => other.into(),
    }
}

/// What binds a sealed secret to its webhook.
fn purpose(id: &WebhookId) -> Vec<u8> {
    format!("webhook {id}").into_bytes()
}

impl App {
    async fn allow_webhook(&self, caller: &Principal, verb: Verb, id: &WebhookId) -> Result<Allowed, AppError> {
        let at = self.control.locate_webhook(id).await?;
        self.allow(caller, verb, Target::Located("webhook", at)).await
    }

    fn seal_webhook_secret(&self, id: &WebhookId, secret: &TokenSecret) -> Result<String, AppError> {
        let sealed = self.identity.sealer.seal(&purpose(id), secret.expose().as_bytes())?;
        Ok(data_encoding::HEXLOWER.encode(&sealed))
    }

    fn check_webhook_url(&self, url: &str) -> Result<(), AppError> {
        self.webhooks.check(url).map_err(|rule| AppError::Invalid(format!("url: {rule}")))
    }

    /// Makes a webhook; the secret that signs what it is sent is in this answer and nowhere else.
    pub async fn create_webhook(
        &self,
        caller: &Principal,
        owner: WebhookOwner,
        url: &str,
        events: &[EventKind],
    ) -> Result<(Webhook, TokenSecret), AppError> {
        let target = match owner {
            WebhookOwner::Tenant(id) => Target::Tenant(id),
            WebhookOwner::User(id) => Target::User(id),
        };
        let allowed = self.allow(caller, Verb::WEBHOOK_EDIT, target).await?;
        self.check_webhook_url(url)?;
        let tenant = allowed.at.tenant().ok_or(AppError::NotFound { what: "tenant" })?;
        let (id, secret) = (WebhookId::generate()?, TokenSecret::generate(SecretKind::Webhook)?);
        let new = NewWebhook {
            id,
            tenant,
            user: allowed.at.user,
            url,
            events,
            sealed_secret: &self.seal_webhook_secret(&id, &secret)?,
        };
        let made = self.control.create_webhook(&allowed.scope, &allowed.actor, &new, self.clock.now_ns()).await?;
        Ok((made, secret))
    }

    /// Webhooks that the caller may see, oldest first.
    pub async fn webhooks(
        &self,
        caller: &Principal,
        after: Option<(i64, WebhookId)>,
        limit: u32,
    ) -> Result<Vec<Webhook>, AppError> {
        let allowed = self.reach(caller, Verb::WEBHOOK_VIEW).await?;
        Ok(self.control.webhooks(&allowed.scope, after, limit).await?)
    }

    /// One webhook.
    pub async fn webhook(&self, caller: &Principal, id: &WebhookId) -> Result<Webhook, AppError> {
        let allowed = self.allow_webhook(caller, Verb::WEBHOOK_VIEW, id).await?;
        self.control.webhook(&allowed.scope, id).await.map_err(no_webhook)
    }

    /// Changes a webhook.
    pub async fn change_webhook(
        &self,
        caller: &Principal,
        id: &WebhookId,
        url: Option<&str>,
        events: Option<&[EventKind]>,
        is_active: Option<bool>,
    ) -> Result<Webhook, AppError> {
        let allowed = self.allow_webhook(caller, Verb::WEBHOOK_EDIT, id).await?;
        if let Some(url) = url {
            self.check_webhook_url(url)?;
        }
        let change = WebhookChange { url, events, is_active, sealed_secret: None };
        let changed = self.control.change_webhook(&allowed.scope, &allowed.actor, id, &change, self.clock.now_ns());
        changed.await.map_err(no_webhook)
    }

    /// Gives a webhook a new secret; the old one signs nothing any more.
    pub async fn renew_webhook_secret(
        &self,
        caller: &Principal,
        id: &WebhookId,
    ) -> Result<(Webhook, TokenSecret), AppError> {
        let allowed = self.allow_webhook(caller, Verb::WEBHOOK_EDIT, id).await?;
        let secret = TokenSecret::generate(SecretKind::Webhook)?;
        let sealed = self.seal_webhook_secret(id, &secret)?;
        let change = WebhookChange { sealed_secret: Some(&sealed), ..WebhookChange::default() };
        let changed = self.control.change_webhook(&allowed.scope, &allowed.actor, id, &change, self.clock.now_ns());
        Ok((changed.await.map_err(no_webhook)?, secret))
    }

    /// Removes a webhook and what is on its way to it.
    pub async fn delete_webhook(&self, caller: &Principal, id: &WebhookId) -> Result<Webhook, AppError> {
        let allowed = self.allow_webhook(caller, Verb::WEBHOOK_EDIT, id).await?;
        let gone = self.control.delete_webhook(&allowed.scope, &allowed.actor, id, self.clock.now_ns()).await;
        gone.map_err(no_webhook)
    }

    /// Sends a test event.
    pub async fn test_webhook(&self, caller: &Principal, id: &WebhookId) -> Result<DeliveryId, AppError> {
        let allowed = self.allow_webhook(caller, Verb::WEBHOOK_EDIT, id).await?;
        self.control.test_webhook(&allowed.scope, id, self.clock.now_ns()).await.map_err(no_webhook)
    }

    /// What was sent to a webhook, newest first.
    pub async fn deliveries(
        &self,
        caller: &Principal,
        id: &WebhookId,
        after: Option<(i64, DeliveryId)>,
        limit: u32,
    ) -> Result<Vec<Delivery>, AppError> {
        let allowed = self.allow_webhook(caller, Verb::WEBHOOK_VIEW, id).await?;
        self.control.deliveries(&allowed.scope, id, after, limit).await.map_err(no_webhook)
    }

    pub(crate) async fn due_deliveries(&self, limit: u32) -> Result<Vec<OutgoingDelivery>, AppError> {
        Ok(self.control.due_deliveries(self.clock.now_ns(), limit).await?)
    }

    /// Sends one delivery and notes what came of it. Answers whether it was taken.
    pub(crate) async fn deliver(&self, sender: &WebhookSender, due: &OutgoingDelivery) -> Result<bool, AppError> {
        let opened = data_encoding::HEXLOWER
            .decode(due.sealed_secret.as_bytes())
            .map_err(|error| AppError::Internal(error.to_string()))
            .and_then(|sealed| self.identity.sealer.open(&purpose(&due.webhook), &sealed));
        let sent = match opened {
            Err(_) => Err(NotTaken {
                status: None,
                reason: "the server cannot read the webhook's secret any more: give it a new one".into(),
            }),
            Ok(secret) => {
                let parcel = Parcel {
                    url: &due.url,
                    delivery: &due.id.to_string(),
                    event: &due.event,
                    body: &due.body,
                    secret: &secret,
                    now_ns: self.clock.now_ns(),
                };
                sender.send(parcel).await
            }
        };
        match sent {
            Ok(status) => self.control.delivered(due, status, self.clock.now_ns()).await?,
            Err(NotTaken { status, ref reason }) => {
                self.control.not_delivered(due, status, reason, self.clock.now_ns()).await?;
            }
        }
        Ok(sent.is_ok())
    }

    pub(crate) async fn forget_deliveries(&self, kept_ns: i64) -> Result<u64, AppError> {
        Ok(self.control.forget_deliveries(self.clock.now_ns().saturating_sub(kept_ns), FORGET_STEP).await?)
    }
}
