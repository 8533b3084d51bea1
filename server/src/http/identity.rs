//! Log-in, login sessions, the own profile, API tokens: wire types <-> use cases.

use crate::app::AppError;
use crate::app::identity::api_tokens::ApiTokenRequest;
use crate::app::identity::{LoginRequest, profile};
use crate::http::HttpState;
use crate::http::extract::{Caller, CallerAddress, JsonBody};
use crate::http::page;
use crate::http::problem::Refusal;
use api::identity::{
    ApiToken, ChangePassword, ConfirmSecondFactor, CreateApiToken, EditProfile, EndedLogins, ForgotPassword, HeldRole,
    LogIn, LoggedIn, LoginSession, LoginSessions, NewApiToken, NewSecondFactor, Profile, RecoveryCodes, ResetPassword,
    Secret, StepUp, SteppedUp,
};
use api::page::Page;
use axum::Json;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use control::{ApiTokenId, Holding, Network, Place, ProfileChange, Role};
use zeroize::Zeroizing;

type Answer<T> = Result<Json<T>, Refusal>;

fn hidden(secret: Secret) -> Zeroizing<String> {
    Zeroizing::new(secret.0)
}

/// Texts of networks in a body.
pub(super) fn networks(texts: &[String]) -> Result<Vec<Network>, AppError> {
    Ok(texts.iter().map(|text| text.parse()).collect::<Result<_, _>>()?)
}

/// A cursor of time and id.
pub(super) fn time_and_id<T: std::str::FromStr>(paged: &page::Page) -> Result<Option<(i64, T)>, Refusal> {
    let after: Option<(i64, String)> = paged.after()?;
    let wrong = |_| Refusal::BadRequest("after: must be the `next` of a page of the same list".into());
    after.map(|(ns, id)| Ok((ns, id.parse().map_err(wrong)?))).transpose()
}

/// Logs somebody in. Unknown names, wrong passwords and wrong codes have one answer.
#[utoipa::path(post, path = "/login", tag = "identity", security(()), request_body = LogIn,
    responses((status = 201, body = LoggedIn)))]
pub(crate) async fn log_in(
    State(state): State<HttpState>,
    CallerAddress(address): CallerAddress,
    JsonBody(body): JsonBody<LogIn>,
) -> Result<(StatusCode, Json<LoggedIn>), Refusal> {
    let LogIn { login, password, code, program } = body;
    let request = LoginRequest { login, password: hidden(password), code: code.map(hidden), program };
    let done = state.app.log_in(address, request).await?;
    let answer = LoggedIn {
        id: done.fresh.session.id.to_string(),
        secret: Secret(done.fresh.secret.expose().to_owned()),
        user: done.account.user.to_string(),
        tenant: done.account.tenant.to_string(),
        ends_ns: done.fresh.session.ends_ns,
        idle_minutes: done.idle_minutes,
        second_factor_missing: done.second_factor_missing,
        recovery_codes_left: done.recovery_codes_left,
    };
    Ok((StatusCode::CREATED, Json(answer)))
}

/// Ends the login session that asks.
#[utoipa::path(delete, path = "/login", tag = "identity", responses((status = 204)))]
pub(crate) async fn log_out(State(state): State<HttpState>, Caller(caller): Caller) -> Result<StatusCode, Refusal> {
    state.app.log_out(&caller).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Shows a fresh factor; what destroys or reveals asks for one.
#[utoipa::path(post, path = "/login/step-up", tag = "identity", request_body = StepUp,
    responses((status = 200, body = SteppedUp)))]
pub(crate) async fn step_up(
    State(state): State<HttpState>,
    Caller(caller): Caller,
    JsonBody(body): JsonBody<StepUp>,
) -> Answer<SteppedUp> {
    let until_ns = state.app.step_up(&caller, body.password.map(hidden), body.code.map(hidden)).await?;
    Ok(Json(SteppedUp { until_ns }))
}

/// The caller's login sessions.
#[utoipa::path(get, path = "/login-sessions", tag = "identity", responses((status = 200, body = LoginSessions)))]
pub(crate) async fn login_sessions(State(state): State<HttpState>, Caller(caller): Caller) -> Answer<LoginSessions> {
    let (sessions, own) = state.app.login_sessions(&caller).await?;
    let items = sessions.into_iter().map(|session| LoginSession {
        id: session.id.to_string(),
        is_own: own == Some(session.id),
        created_ns: session.created_ns,
        seen_ns: session.seen_ns,
        ends_ns: session.ends_ns,
        address: session.address,
        program: session.program,
    });
    Ok(Json(LoginSessions { items: items.collect() }))
}

/// Ends all login sessions of the caller but the one that asks.
#[utoipa::path(delete, path = "/login-sessions", tag = "identity", responses((status = 200, body = EndedLogins)))]
pub(crate) async fn end_other_logins(State(state): State<HttpState>, Caller(caller): Caller) -> Answer<EndedLogins> {
    Ok(Json(EndedLogins { ended: state.app.end_other_logins(&caller).await? }))
}

/// Ends one login session of the caller.
#[utoipa::path(delete, path = "/login-sessions/{session}", tag = "identity",
    params(("session" = String, Path, description = "Login session id")), responses((status = 204)))]
pub(crate) async fn end_login(
    State(state): State<HttpState>,
    Caller(caller): Caller,
    Path(session): Path<String>,
) -> Result<StatusCode, Refusal> {
    let id = session.parse().map_err(|_| AppError::NotFound { what: "login session" })?;
    state.app.end_login(&caller, &id).await?;
    Ok(StatusCode::NO_CONTENT)
}

const fn role_name(role: Role) -> &'static str {
    match role {
        Role::Operator => "operator",
        Role::PartnerAdmin => "partner_admin",
        Role::PartnerGroup => "partner_group",
        Role::CustomerAdmin => "customer_admin",
        Role::AdminContact => "admin_contact",
        Role::TechnicalContact => "technical_contact",
        Role::BillingContact => "billing_contact",
        Role::BackupUser => "backup_user",
        Role::Auditor => "auditor",
    }
}

fn held(holding: Holding) -> HeldRole {
    let (tenants, service) = match &holding.place {
        Place::Subtree(tenant) | Place::CustomersOf(tenant) | Place::Own { tenant, .. } => (vec![*tenant], None),
        Place::Customers(tenants) => (tenants.clone(), None),
        Place::Service { service, tenant } => (vec![*tenant], Some(service.to_string())),
    };
    let tenants = tenants.iter().map(ToString::to_string).collect();
    HeldRole { role: role_name(holding.role).into(), tenants, service, verbs: holding.verbs }
}

fn wire_profile(profile::Profile { account, holdings, policy, recovery_codes_left }: profile::Profile) -> Profile {
    Profile {
        id: account.user.to_string(),
        name: account.name,
        title: account.title,
        tenant: account.tenant.to_string(),
        tenant_title: account.tenant_title,
        email: account.email,
        notify_email: account.notify_email,
        customer_code: account.customer_code,
        locale: account.locale,
        time_zone: account.time_zone,
        has_second_factor: account.has_second_factor,
        recovery_codes_left,
        second_factor: policy.second_factor.as_str().into(),
        roles: holdings.into_iter().map(held).collect(),
        last_login_ns: account.last_login_ns,
    }
}

/// The caller.
#[utoipa::path(get, path = "/profile", tag = "identity", responses((status = 200, body = Profile)))]
pub(crate) async fn profile(State(state): State<HttpState>, Caller(caller): Caller) -> Answer<Profile> {
    Ok(Json(wire_profile(state.app.profile(&caller).await?)))
}

/// Changes the caller's profile.
#[utoipa::path(put, path = "/profile", tag = "identity", request_body = EditProfile,
    responses((status = 200, body = Profile)))]
pub(crate) async fn edit_profile(
    State(state): State<HttpState>,
    Caller(caller): Caller,
    JsonBody(body): JsonBody<EditProfile>,
) -> Answer<Profile> {
    let EditProfile { title, locale, time_zone, notify_email } = body;
    let change = ProfileChange { title, locale, time_zone, notify_email };
    Ok(Json(wire_profile(state.app.edit_profile(&caller, &change).await?)))
}

/// Changes the caller's password. Every other login session of the caller ends.
#[utoipa::path(put, path = "/profile/password", tag = "identity", request_body = ChangePassword,
    responses((status = 204)))]
pub(crate) async fn change_password(
    State(state): State<HttpState>,
    Caller(caller): Caller,
    JsonBody(body): JsonBody<ChangePassword>,
) -> Result<StatusCode, Refusal> {
    state.app.change_password(&caller, hidden(body.current), hidden(body.new)).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Mails a link to set a forgotten password. The answer is the same whether there is such an account or not.
#[utoipa::path(post, path = "/password/forgotten", tag = "identity", security(()), request_body = ForgotPassword,
    responses((status = 202)))]
pub(crate) async fn forgot_password(
    State(state): State<HttpState>,
    CallerAddress(address): CallerAddress,
    JsonBody(body): JsonBody<ForgotPassword>,
) -> StatusCode {
    state.app.forgot_password(body.login, address);
    StatusCode::ACCEPTED
}

/// Sets a password by a link, once. All login sessions of the person end.
#[utoipa::path(post, path = "/password/reset", tag = "identity", security(()), request_body = ResetPassword,
    responses((status = 204)))]
pub(crate) async fn reset_password(
    State(state): State<HttpState>,
    CallerAddress(address): CallerAddress,
    JsonBody(body): JsonBody<ResetPassword>,
) -> Result<StatusCode, Refusal> {
    state.app.reset_password(&hidden(body.secret), hidden(body.password), address).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Begins a second factor; it counts once a code of it was shown.
#[utoipa::path(post, path = "/profile/second-factor", tag = "identity",
    responses((status = 201, body = NewSecondFactor)))]
pub(crate) async fn begin_second_factor(
    State(state): State<HttpState>,
    Caller(caller): Caller,
) -> Result<(StatusCode, Json<NewSecondFactor>), Refusal> {
    let factor = state.app.begin_second_factor(&caller).await?;
    let answer = NewSecondFactor { secret: Secret(factor.secret.to_string()), url: Secret(factor.url.to_string()) };
    Ok((StatusCode::CREATED, Json(answer)))
}

fn shown_codes(codes: &[control::RecoveryCode]) -> Json<RecoveryCodes> {
    Json(RecoveryCodes { codes: codes.iter().map(|code| Secret(code.expose().to_owned())).collect() })
}

/// Shows the first code of a second factor. Answers recovery codes, once.
#[utoipa::path(post, path = "/profile/second-factor/confirm", tag = "identity", request_body = ConfirmSecondFactor,
    responses((status = 200, body = RecoveryCodes)))]
pub(crate) async fn confirm_second_factor(
    State(state): State<HttpState>,
    Caller(caller): Caller,
    JsonBody(body): JsonBody<ConfirmSecondFactor>,
) -> Answer<RecoveryCodes> {
    Ok(shown_codes(&state.app.confirm_second_factor(&caller, &hidden(body.code)).await?))
}

/// Takes the second factor of the caller away.
#[utoipa::path(delete, path = "/profile/second-factor", tag = "identity", responses((status = 204)))]
pub(crate) async fn remove_second_factor(
    State(state): State<HttpState>,
    Caller(caller): Caller,
) -> Result<StatusCode, Refusal> {
    state.app.remove_second_factor(&caller).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Makes fresh recovery codes; those before stop working.
#[utoipa::path(post, path = "/profile/recovery-codes", tag = "identity",
    responses((status = 200, body = RecoveryCodes)))]
pub(crate) async fn renew_recovery_codes(
    State(state): State<HttpState>,
    Caller(caller): Caller,
) -> Answer<RecoveryCodes> {
    Ok(shown_codes(&state.app.renew_recovery_codes(&caller).await?))
}

fn api_token(token: control::ApiToken) -> ApiToken {
    ApiToken {
        id: token.id.to_string(),
        name: token.name,
        verbs: token.verbs,
        tenant: token.tenant.to_string(),
        networks: token.networks.iter().map(ToString::to_string).collect(),
        created_ns: token.created_ns,
        expires_ns: token.expires_ns,
        revoked_ns: token.revoked_ns,
        used_ns: token.used_ns,
    }
}

/// The caller's API tokens, oldest first.
#[utoipa::path(get, path = "/api-tokens", tag = "identity", params(
        ("limit" = Option<u32>, Query, description = "Most entries in the page, 1 to 200; 50 when absent"),
        ("after" = Option<String>, Query, description = "The `next` of the page before")),
    responses((status = 200, body = Page<ApiToken>)))]
pub(crate) async fn api_tokens(
    State(state): State<HttpState>,
    Caller(caller): Caller,
    Query(paged): Query<page::Page>,
) -> Answer<Page<ApiToken>> {
    let limit = paged.limit()?;
    let after: Option<(i64, ApiTokenId)> = time_and_id(&paged)?;
    let found = state.app.api_tokens(&caller, after, limit).await?;
    let next = page::next(&found, limit, |token| (token.created_ns, token.id.to_string()));
    Ok(Json(Page { items: found.into_iter().map(api_token).collect(), next }))
}

/// Creates an API token of the caller; its secret is in this answer and nowhere else.
#[utoipa::path(post, path = "/api-tokens", tag = "identity", request_body = CreateApiToken,
    responses((status = 201, body = NewApiToken)))]
pub(crate) async fn create_api_token(
    State(state): State<HttpState>,
    Caller(caller): Caller,
    JsonBody(body): JsonBody<CreateApiToken>,
) -> Result<(StatusCode, Json<NewApiToken>), Refusal> {
    let tenant = body.tenant.as_deref().map(|id| id.parse()).transpose();
    let request = ApiTokenRequest {
        name: body.name,
        verbs: body.verbs,
        tenant: tenant.map_err(|_| AppError::NotFound { what: "tenant" })?,
        networks: networks(&body.networks)?,
        valid_seconds: body.valid_seconds,
    };
    let (token, secret) = state.app.create_api_token(&caller, request).await?;
    let answer = NewApiToken { token: api_token(token), secret: Secret(secret.expose().to_owned()) };
    Ok((StatusCode::CREATED, Json(answer)))
}

/// Revokes an API token of the caller at once.
#[utoipa::path(delete, path = "/api-tokens/{token}", tag = "identity",
    params(("token" = String, Path, description = "API token id")), responses((status = 200, body = ApiToken)))]
pub(crate) async fn revoke_api_token(
    State(state): State<HttpState>,
    Caller(caller): Caller,
    Path(token): Path<String>,
) -> Answer<ApiToken> {
    let id = token.parse().map_err(|_| AppError::NotFound { what: "API token" })?;
    Ok(Json(api_token(state.app.revoke_api_token(&caller, &id).await?)))
}
