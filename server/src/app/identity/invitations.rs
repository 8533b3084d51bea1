//! Inviting people, and coming in. Nobody gives more than is held at that moment, and again when it is accepted.

use crate::app::auth::{Target, Verb, role_in};
use crate::app::error::or_not_found;
use crate::app::{App, AppError, Principal};
use control::{
    Accepted, Email, Invitation, InvitationId, InvitationKind, MemberRole, NewInvitation, Newcomer, Password,
    SecretDigest, SecretKind, TenantId, TenantKind, TokenSecret,
};
use std::net::IpAddr;
use zeroize::Zeroizing;

/// Page under the public URL that takes the secret of an invitation behind the `#`, which no log ever sees.
pub const INVITATION_LINK: &str = "/invitation#";
const GONE: AppError = AppError::NotFound { what: "invitation (its link works once, for seven days)" };

/// An invitation just sent.
#[derive(Clone, Debug)]
pub struct Sent {
    /// As listed.
    pub invitation: Invitation,
    /// The link, for the operator on the server's own machine only: for everybody else the mail proves the address.
    pub link: Option<Zeroizing<String>>,
}

/// An invitation as whoever holds its link may see it.
#[derive(Clone, Debug)]
pub struct SeenInvitation {
    /// The invitation.
    pub invitation: Invitation,
    /// Title of the tenant: the one invited to, or the one to be made.
    pub tenant_title: String,
    /// The mail address has an account already: its password is asked for.
    pub has_account: bool,
}

/// What somebody sends to come in.
#[derive(Debug)]
pub struct Acceptance {
    /// Secret of the link.
    pub secret: Zeroizing<String>,
    /// Name for people, of somebody new.
    pub title: String,
    /// The password to set, or the one that the account has.
    pub password: Zeroizing<String>,
    /// Code of the second factor of an account that has one.
    pub code: Option<Zeroizing<String>>,
    /// Name in the IANA database, of somebody new.
    pub time_zone: String,
}

impl App {
    fn invitation_verb(kind: &InvitationKind) -> Verb {
        match kind {
            InvitationKind::User { .. } => Verb::USER_INVITE,
            InvitationKind::Tenant { .. } => Verb::TENANT_INVITE_CHILD,
        }
    }

    /// Sends an invitation.
    pub async fn invite(
        &self,
        caller: &Principal,
        tenant: TenantId,
        kind: InvitationKind,
        email: &str,
        locale: &str,
    ) -> Result<Sent, AppError> {
        let allowed = self.allow(caller, Self::invitation_verb(&kind), Target::Tenant(tenant)).await?;
        let into = self.control.tenant(&allowed.scope, &tenant).await?;
        match &kind {
            InvitationKind::User { role, groups } => {
                if role.is_none() && groups.is_empty() {
                    return Err(AppError::Invalid("role: a role or a group is needed".into()));
                }
                if *role == Some(MemberRole::User) && into.kind != TenantKind::Customer {
                    return Err(AppError::Invalid("role: only customers have backup users".into()));
                }
                if !groups.is_empty() {
                    self.allow(caller, Verb::GROUP_MANAGE, Target::Tenant(tenant)).await?;
                }
                if let Some(role) = role {
                    self.check_may_give(caller, role_in(*role, into.kind), &allowed.at)?;
                }
            }
            InvitationKind::Tenant { service: Some(_), .. } => {
                self.allow(caller, Verb::SERVICE_ORDER, Target::Tenant(tenant)).await?;
            }
            InvitationKind::Tenant { service: None, .. } => {}
        }
        let inviter = match caller {
            Principal::Person(person) => Some(person.user),
            _ => None,
        };
        let new = NewInvitation { tenant, kind, email: Email::parse(email)?, locale: locale.to_owned(), inviter };
        let (base, now_ns) = (self.invitation_base(), self.clock.now_ns());
        let (invitation, secret) = self.control.create_invitation(&allowed.actor, &new, &base, now_ns).await?;
        Ok(self.sent(caller, invitation, &secret))
    }

    fn invitation_base(&self) -> String {
        format!("{}{INVITATION_LINK}", self.public_url)
    }

    fn sent(&self, caller: &Principal, invitation: Invitation, secret: &TokenSecret) -> Sent {
        let link = matches!(caller, Principal::Local)
            .then(|| Zeroizing::new(format!("{}{}", self.invitation_base(), secret.expose())));
        Sent { invitation, link }
    }

    /// An invitation that the caller may manage.
    async fn managed_invitation(
        &self,
        caller: &Principal,
        id: &InvitationId,
    ) -> Result<(Invitation, crate::app::Allowed), AppError> {
        let invitation = self.control.invitation(id).await?;
        // An invitation that is not there takes as long as one that is somebody else's.
        let (verb, tenant) = match &invitation {
            Some(invitation) => (Self::invitation_verb(&invitation.kind), invitation.tenant),
            None => (Verb::USER_INVITE, TenantId::PLATFORM),
        };
        let at = self.control.locate_tenant(&tenant).await?.filter(|_| invitation.is_some());
        let allowed = self.allow(caller, verb, Target::Located("invitation", at)).await?;
        Ok((invitation.ok_or(AppError::NotFound { what: "invitation" })?, allowed))
    }

    /// Sends an invitation again, with a new link.
    pub async fn resend_invitation(&self, caller: &Principal, id: &InvitationId) -> Result<Sent, AppError> {
        let (_, allowed) = self.managed_invitation(caller, id).await?;
        let base = self.invitation_base();
        let again = self.control.resend_invitation(&allowed.actor, id, &base, self.clock.now_ns()).await;
        let (invitation, secret) = again.map_err(or_not_found)?;
        Ok(self.sent(caller, invitation, &secret))
    }

    /// Takes an invitation back.
    pub async fn revoke_invitation(&self, caller: &Principal, id: &InvitationId) -> Result<Invitation, AppError> {
        let (_, allowed) = self.managed_invitation(caller, id).await?;
        let revoked = self.control.revoke_invitation(&allowed.actor, id, self.clock.now_ns()).await;
        revoked.map_err(or_not_found)
    }

    /// A tenant's invitations.
    pub async fn invitations(
        &self,
        caller: &Principal,
        tenant: TenantId,
        after: Option<(i64, InvitationId)>,
        limit: u32,
    ) -> Result<Vec<Invitation>, AppError> {
        let allowed = self.allow(caller, Verb::USER_INVITE, Target::Tenant(tenant)).await?;
        Ok(self.control.invitations(&allowed.scope, &tenant, after, limit).await?)
    }

    /// The invitation behind a link that works, if whoever sent it could still send it.
    async fn good_invitation(&self, secret: &str) -> Result<(Invitation, SecretDigest), AppError> {
        let digest = TokenSecret::parse(SecretKind::Invitation, secret).ok_or(GONE)?.digest();
        let found = self.control.find_invitation(&digest, self.clock.now_ns()).await?.ok_or(GONE)?;
        if let Some(inviter) = found.inviter {
            let at = self.control.locate_tenant(&found.tenant).await?.ok_or(GONE)?;
            let into = self.control.tenant(&self.own_scope(), &found.tenant).await?.kind;
            let role = match &found.kind {
                InvitationKind::User { role, .. } => role.map(|role| role_in(role, into)),
                InvitationKind::Tenant { .. } => None,
            };
            let verb = Self::invitation_verb(&found.kind);
            match self.check_could_give(inviter, verb, found.tenant, role, &at).await {
                Err(AppError::NotFound { .. } | AppError::Forbidden { .. }) => return Err(GONE),
                other => other?,
            }
        }
        Ok((found, digest))
    }

    /// What a link is to.
    pub async fn look_at_invitation(&self, secret: &str) -> Result<SeenInvitation, AppError> {
        let (invitation, _) = self.good_invitation(secret).await?;
        let tenant_title = match &invitation.kind {
            InvitationKind::User { .. } => self.control.tenant(&self.own_scope(), &invitation.tenant).await?.title,
            InvitationKind::Tenant { title, .. } => title.clone(),
        };
        let has_account = self.control.account_by_login(&invitation.email).await?.is_some();
        Ok(SeenInvitation { invitation, tenant_title, has_account })
    }

    /// Comes in by a link.
    pub async fn accept_invitation(&self, acceptance: Acceptance, address: IpAddr) -> Result<Accepted, AppError> {
        let Acceptance { secret, title, password, code, time_zone } = acceptance;
        let (invitation, digest) = self.good_invitation(&secret).await?;
        let known = self.control.account_by_login(&invitation.email).await?;
        let shown_address = address.to_canonical().to_string();
        let hash;
        let newcomer = match known {
            Some(_) => {
                let code = code.as_ref().map(|code| code.as_str());
                Newcomer::Known(self.prove(&invitation.email, password, code, address).await?.user)
            }
            None => {
                let time_zone = if time_zone.is_empty() { "UTC" } else { time_zone.as_str() };
                if jiff::tz::TimeZone::get(time_zone).is_err() {
                    return Err(AppError::Invalid("time_zone: must be a name such as Europe/Warsaw".into()));
                }
                let into = self.control.tenant(&self.own_scope(), &invitation.tenant).await?.title;
                let password = Password::chosen(password, &[&title, &invitation.email, &into])?;
                hash = self.identity.hash(password).await?;
                Newcomer::New { title: &title, password: &hash, time_zone }
            }
        };
        // No check of the accounts comes between them and the limits that follow from them.
        let _one_at_a_time = self.creation.lock().await;
        let accepted = self
            .control
            .accept_invitation(&digest, &newcomer, &shown_address, &self.public_url, self.clock.now_ns())
            .await;
        let accepted = accepted.map_err(|error| match error {
            control::ControlError::NotFound { what: "invitation", .. } => GONE,
            other => AppError::from(other),
        })?;
        if matches!(invitation.kind, InvitationKind::Tenant { service: Some(_), .. }) {
            kill_point!(InvitationAccepted);
            self.gates.forget();
            self.push_licence_quotas(&accepted.tenant, None).await?;
        }
        Ok(accepted)
    }
}
