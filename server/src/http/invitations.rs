//! Invitations, security policies, recovery of accounts: wire types <-> use cases.

use crate::app::AppError;
use crate::app::identity::invitations::{Acceptance, Sent};
use crate::app::identity::security::TenantSecurity;
use crate::http::HttpState;
use crate::http::extract::{Caller, CallerAddress, JsonBody};
use crate::http::identity::{networks, time_and_id};
use crate::http::page;
use crate::http::problem::Refusal;
use api::identity::Secret;
use api::invitations::{
    AcceptInvitation, AcceptedInvitation, AskRecovery, Invitation, InvitationKind, InvitationState, Invite,
    LookAtInvitation, MemberRole, OfferedService, Recovery, Security, SecurityPolicy, SeenInvitation, SentInvitation,
};
use api::page::Page;
use axum::Json;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use control::{GroupId, InvitationId, RecoveryId, ServiceOffer, TenantId, TenantKind, UserId};
use zeroize::Zeroizing;

type Answer<T> = Result<Json<T>, Refusal>;

fn tenant_id(text: &str) -> Result<TenantId, AppError> {
    text.parse().map_err(|_| AppError::NotFound { what: "tenant" })
}

fn invitation_id(text: &str) -> Result<InvitationId, AppError> {
    text.parse().map_err(|_| AppError::NotFound { what: "invitation" })
}

fn recovery_id(text: &str) -> Result<RecoveryId, AppError> {
    text.parse().map_err(|_| AppError::NotFound { what: "recovery" })
}

fn role(role: MemberRole) -> control::MemberRole {
    match role {
        MemberRole::Admin => control::MemberRole::Admin,
        MemberRole::User => control::MemberRole::User,
        MemberRole::Auditor => control::MemberRole::Auditor,
    }
}

fn wire_role(role: control::MemberRole) -> MemberRole {
    match role {
        control::MemberRole::Admin => MemberRole::Admin,
        control::MemberRole::User => MemberRole::User,
        control::MemberRole::Auditor => MemberRole::Auditor,
    }
}

fn offer(offered: OfferedService) -> Result<ServiceOffer, AppError> {
    Ok(ServiceOffer {
        product: offered.product.parse()?,
        licence: offered.licence.parse()?,
        quantity: offered.quantity,
        expires_on: offered.expires_on,
        auto_renew: offered.auto_renew,
    })
}

fn wire_offer(offer: ServiceOffer) -> OfferedService {
    OfferedService {
        product: offer.product.to_string(),
        licence: offer.licence.as_str().into(),
        quantity: offer.quantity,
        expires_on: offer.expires_on,
        auto_renew: offer.auto_renew,
    }
}

/// What is invited to, as the body says it.
fn kind(body: &Invite) -> Result<control::InvitationKind, AppError> {
    let tenant = |kind| {
        let title = body.title.clone().ok_or_else(|| AppError::Invalid("title: is needed".into()))?;
        if body.service.is_some() && kind == TenantKind::Partner {
            return Err(AppError::Invalid("service: only customers have services".into()));
        }
        let service = body.service.clone().map(offer).transpose()?;
        Ok(control::InvitationKind::Tenant { kind, title, service })
    };
    match body.kind {
        InvitationKind::User => {
            let groups: Result<Vec<GroupId>, _> = body.groups.iter().map(|id| id.parse()).collect();
            Ok(control::InvitationKind::User { role: body.role.map(role), groups: groups? })
        }
        InvitationKind::Customer => tenant(TenantKind::Customer),
        InvitationKind::Partner => tenant(TenantKind::Partner),
    }
}

fn wire_kind(kind: &control::InvitationKind) -> InvitationKind {
    match kind {
        control::InvitationKind::User { .. } => InvitationKind::User,
        control::InvitationKind::Tenant { kind: TenantKind::Partner, .. } => InvitationKind::Partner,
        control::InvitationKind::Tenant { .. } => InvitationKind::Customer,
    }
}

fn wire(state: &HttpState, invitation: control::Invitation) -> Invitation {
    let now = invitation.state_at(state.app.now_ns());
    let kind = wire_kind(&invitation.kind);
    let (role, groups, title, service) = match invitation.kind {
        control::InvitationKind::User { role, groups } => (role, groups, None, None),
        control::InvitationKind::Tenant { title, service, .. } => (None, Vec::new(), Some(title), service),
    };
    Invitation {
        id: invitation.id.to_string(),
        tenant: invitation.tenant.to_string(),
        kind,
        email: invitation.email,
        role: role.map(wire_role),
        groups: groups.iter().map(ToString::to_string).collect(),
        title,
        service: service.map(wire_offer),
        inviter: invitation.inviter_name,
        state: match now {
            control::InvitationState::Sent => InvitationState::Sent,
            control::InvitationState::Accepted => InvitationState::Accepted,
            control::InvitationState::Expired => InvitationState::Expired,
            control::InvitationState::Revoked => InvitationState::Revoked,
        },
        state_ns: invitation.state_ns,
        expires_ns: invitation.expires_ns,
        created_ns: invitation.created_ns,
        accepted_user: invitation.accepted_user.map(|user| user.to_string()),
    }
}

fn sent(state: &HttpState, Sent { invitation, link }: Sent) -> SentInvitation {
    SentInvitation { invitation: wire(state, invitation), link: link.map(|link| Secret(link.to_string())) }
}

/// A tenant's invitations, newest first.
#[utoipa::path(get, path = "/tenants/{tenant}/invitations", tag = "invitations",
    params(("tenant" = String, Path, description = "Tenant id"),
        ("limit" = Option<u32>, Query, description = "Most entries in the page, 1 to 200; 50 when absent"),
        ("after" = Option<String>, Query, description = "The `next` of the page before")),
    responses((status = 200, body = Page<Invitation>)))]
pub(crate) async fn invitations(
    State(state): State<HttpState>,
    Caller(caller): Caller,
    Path(tenant): Path<String>,
    Query(paged): Query<page::Page>,
) -> Answer<Page<Invitation>> {
    let limit = paged.limit()?;
    let after: Option<(i64, InvitationId)> = time_and_id(&paged)?;
    let found = state.app.invitations(&caller, tenant_id(&tenant)?, after, limit).await?;
    let key = |invitation: &control::Invitation| (invitation.created_ns, invitation.id.to_string());
    let next = page::next(&found, limit, key);
    Ok(Json(Page { items: found.into_iter().map(|invitation| wire(&state, invitation)).collect(), next }))
}

/// Invites somebody into a tenant, or a new tenant below it, by mail.
#[utoipa::path(post, path = "/tenants/{tenant}/invitations", tag = "invitations", request_body = Invite,
    params(("tenant" = String, Path, description = "Tenant id")), responses((status = 201, body = SentInvitation)))]
pub(crate) async fn invite(
    State(state): State<HttpState>,
    Caller(caller): Caller,
    Path(tenant): Path<String>,
    JsonBody(body): JsonBody<Invite>,
) -> Result<(StatusCode, Json<SentInvitation>), Refusal> {
    let kind = kind(&body)?;
    let locale = body.locale.as_deref().unwrap_or("en");
    let done = state.app.invite(&caller, tenant_id(&tenant)?, kind, &body.email, locale).await?;
    Ok((StatusCode::CREATED, Json(sent(&state, done))))
}

/// Sends an invitation again, with a new link and a new time.
#[utoipa::path(post, path = "/invitations/{invitation}/resend", tag = "invitations",
    params(("invitation" = String, Path, description = "Invitation id")),
    responses((status = 200, body = SentInvitation)))]
pub(crate) async fn resend(
    State(state): State<HttpState>,
    Caller(caller): Caller,
    Path(invitation): Path<String>,
) -> Answer<SentInvitation> {
    let done = state.app.resend_invitation(&caller, &invitation_id(&invitation)?).await?;
    Ok(Json(sent(&state, done)))
}

/// Takes an invitation back.
#[utoipa::path(delete, path = "/invitations/{invitation}", tag = "invitations",
    params(("invitation" = String, Path, description = "Invitation id")),
    responses((status = 200, body = Invitation)))]
pub(crate) async fn revoke(
    State(state): State<HttpState>,
    Caller(caller): Caller,
    Path(invitation): Path<String>,
) -> Answer<Invitation> {
    let revoked = state.app.revoke_invitation(&caller, &invitation_id(&invitation)?).await?;
    Ok(Json(wire(&state, revoked)))
}

/// What a link is to.
#[utoipa::path(post, path = "/invitations/look", tag = "invitations", security(()), request_body = LookAtInvitation,
    responses((status = 200, body = SeenInvitation)))]
pub(crate) async fn look(
    State(state): State<HttpState>,
    JsonBody(body): JsonBody<LookAtInvitation>,
) -> Answer<SeenInvitation> {
    let seen = state.app.look_at_invitation(&Zeroizing::new(body.secret.0)).await?;
    let role = match &seen.invitation.kind {
        control::InvitationKind::User { role, .. } => role.map(wire_role),
        control::InvitationKind::Tenant { .. } => Some(MemberRole::Admin),
    };
    Ok(Json(SeenInvitation {
        kind: wire_kind(&seen.invitation.kind),
        tenant_title: seen.tenant_title,
        email: seen.invitation.email,
        role,
        inviter: seen.invitation.inviter_name,
        expires_ns: seen.invitation.expires_ns,
        has_account: seen.has_account,
    }))
}

/// Comes in by a link, once.
#[utoipa::path(post, path = "/invitations/accept", tag = "invitations", security(()), request_body = AcceptInvitation,
    responses((status = 201, body = AcceptedInvitation)))]
pub(crate) async fn accept(
    State(state): State<HttpState>,
    CallerAddress(address): CallerAddress,
    JsonBody(body): JsonBody<AcceptInvitation>,
) -> Result<(StatusCode, Json<AcceptedInvitation>), Refusal> {
    let acceptance = Acceptance {
        secret: Zeroizing::new(body.secret.0),
        title: body.name,
        password: Zeroizing::new(body.password.0),
        code: body.code.map(|code| Zeroizing::new(code.0)),
        time_zone: body.time_zone,
    };
    let done = state.app.accept_invitation(acceptance, address).await?;
    let answer = AcceptedInvitation {
        user: done.user.to_string(),
        tenant: done.tenant.to_string(),
        customer_code: done.customer_code,
    };
    Ok((StatusCode::CREATED, Json(answer)))
}

fn wire_policy(policy: &control::SecurityPolicy) -> SecurityPolicy {
    SecurityPolicy {
        idle_minutes: policy.idle_minutes,
        second_factor: policy.second_factor.as_str().into(),
        trusted_networks: policy.trusted_networks.iter().map(ToString::to_string).collect(),
    }
}

fn wire_security(TenantSecurity { own, effective }: &TenantSecurity) -> Security {
    Security { own: wire_policy(own), effective: wire_policy(effective) }
}

/// What a tenant asks of its people.
#[utoipa::path(get, path = "/tenants/{tenant}/security", tag = "security",
    params(("tenant" = String, Path, description = "Tenant id")), responses((status = 200, body = Security)))]
pub(crate) async fn security(
    State(state): State<HttpState>,
    Caller(caller): Caller,
    Path(tenant): Path<String>,
) -> Answer<Security> {
    Ok(Json(wire_security(&state.app.security(&caller, tenant_id(&tenant)?).await?)))
}

/// Sets what a tenant asks of its people. Refused when it would lock out the address it comes from.
#[utoipa::path(put, path = "/tenants/{tenant}/security", tag = "security", request_body = SecurityPolicy,
    params(("tenant" = String, Path, description = "Tenant id")), responses((status = 200, body = Security)))]
pub(crate) async fn set_security(
    State(state): State<HttpState>,
    Caller(caller): Caller,
    Path(tenant): Path<String>,
    JsonBody(body): JsonBody<SecurityPolicy>,
) -> Answer<Security> {
    let policy = control::SecurityPolicy {
        idle_minutes: body.idle_minutes,
        second_factor: body.second_factor.parse().map_err(AppError::from)?,
        trusted_networks: networks(&body.trusted_networks)?,
    };
    Ok(Json(wire_security(&state.app.set_security(&caller, tenant_id(&tenant)?, &policy).await?)))
}

fn wire_recovery(recovery: control::Recovery) -> Recovery {
    Recovery {
        id: recovery.id.to_string(),
        user: recovery.user.to_string(),
        new_email: recovery.new_email,
        reason: recovery.reason,
        state: recovery.state.as_str().into(),
        state_ns: recovery.state_ns,
        asked_by: recovery.asked_by_name,
        approved_by: recovery.approved_by_name,
        due_ns: recovery.due_ns,
        created_ns: recovery.created_ns,
    }
}

/// Asks for the recovery of an account whose owner has lost mail address or second factor.
#[utoipa::path(post, path = "/users/{user}/recovery", tag = "recovery", request_body = AskRecovery,
    params(("user" = String, Path, description = "User id")), responses((status = 201, body = Recovery)))]
pub(crate) async fn ask_recovery(
    State(state): State<HttpState>,
    Caller(caller): Caller,
    Path(user): Path<String>,
    JsonBody(body): JsonBody<AskRecovery>,
) -> Result<(StatusCode, Json<Recovery>), Refusal> {
    let user: UserId = user.parse().map_err(|_| AppError::NotFound { what: "user" })?;
    let asked = state.app.ask_recovery(&caller, user, &body.new_email, &body.reason).await?;
    Ok((StatusCode::CREATED, Json(wire_recovery(asked))))
}

/// Recoveries of accounts, newest first.
#[utoipa::path(get, path = "/recoveries", tag = "recovery", params(
        ("limit" = Option<u32>, Query, description = "Most entries in the page, 1 to 200; 50 when absent"),
        ("after" = Option<String>, Query, description = "The `next` of the page before")),
    responses((status = 200, body = Page<Recovery>)))]
pub(crate) async fn recoveries(
    State(state): State<HttpState>,
    Caller(caller): Caller,
    Query(paged): Query<page::Page>,
) -> Answer<Page<Recovery>> {
    let limit = paged.limit()?;
    let after: Option<(i64, RecoveryId)> = time_and_id(&paged)?;
    let found = state.app.recoveries(&caller, after, limit).await?;
    let key = |recovery: &control::Recovery| (recovery.created_ns, recovery.id.to_string());
    let next = page::next(&found, limit, key);
    Ok(Json(Page { items: found.into_iter().map(wire_recovery).collect(), next }))
}

/// Agrees to a recovery, as a second operator.
#[utoipa::path(post, path = "/recoveries/{recovery}/approve", tag = "recovery",
    params(("recovery" = String, Path, description = "Recovery id")), responses((status = 200, body = Recovery)))]
pub(crate) async fn approve_recovery(
    State(state): State<HttpState>,
    Caller(caller): Caller,
    Path(recovery): Path<String>,
) -> Answer<Recovery> {
    Ok(Json(wire_recovery(state.app.approve_recovery(&caller, &recovery_id(&recovery)?).await?)))
}

/// Ends a recovery.
#[utoipa::path(delete, path = "/recoveries/{recovery}", tag = "recovery",
    params(("recovery" = String, Path, description = "Recovery id")), responses((status = 200, body = Recovery)))]
pub(crate) async fn cancel_recovery(
    State(state): State<HttpState>,
    Caller(caller): Caller,
    Path(recovery): Path<String>,
) -> Answer<Recovery> {
    Ok(Json(wire_recovery(state.app.cancel_recovery(&caller, &recovery_id(&recovery)?).await?)))
}
