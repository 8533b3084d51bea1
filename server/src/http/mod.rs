//! The API's doors: routes, and nothing that decides. Handlers turn wire types into use cases and back.

mod accounts;
mod agents;
mod audit;
mod body;
mod browse;
mod care;
mod computers;
mod deletion;
mod envelope;
mod export;
mod exports;
mod extract;
mod health;
mod identity;
mod invitations;
mod job_lists;
mod jobs;
mod members;
mod metrics;
mod notices;
mod objects;
mod openapi;
mod outbox;
mod page;
mod plans;
mod problem;
mod quota;
mod range;
mod removal;
mod restores;
mod retention;
mod services;
mod states;
mod tenants;
mod upload;
mod vault;
mod webhooks;

pub(crate) use crate::http::extract::PeerAddress;

use crate::app::App;
use crate::http::problem::Refusal;
use crate::limits::BODIES_BYTES_MAX;
use crate::metrics::Metrics;
use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::middleware::from_fn_with_state;
use axum::routing::get;
use std::sync::Arc;
use tokio::sync::Semaphore;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

/// What every handler may use.
#[derive(Clone)]
pub struct HttpState {
    pub(crate) app: Arc<App>,
    pub(crate) metrics: Metrics,
    /// Bytes of bodies that may still come into memory.
    pub(crate) bodies: Arc<Semaphore>,
}

impl HttpState {
    /// Over one app.
    pub fn new(app: Arc<App>, metrics: Metrics) -> Self {
        HttpState { app, metrics, bodies: Arc::new(Semaphore::new(BODIES_BYTES_MAX)) }
    }
}

/// Every path under the API's prefix, with its description.
fn api_routes() -> OpenApiRouter<HttpState> {
    OpenApiRouter::new()
        .routes(routes!(accounts::info))
        .routes(routes!(accounts::me))
        .routes(routes!(accounts::use_operator_link))
        .routes(routes!(accounts::create_operator_link))
        .routes(routes!(accounts::customers, accounts::create_customer))
        .routes(routes!(accounts::users, accounts::create_user))
        .routes(routes!(accounts::vaults, accounts::create_vault))
        .routes(routes!(deletion::delete_user))
        .routes(routes!(deletion::delete_vault))
        .routes(routes!(accounts::tokens, accounts::create_token))
        .routes(routes!(accounts::revoke_token))
        .routes(routes!(accounts::master_key))
        .routes(routes!(accounts::confirm_master_key))
        .routes(routes!(identity::log_in, identity::log_out))
        .routes(routes!(identity::step_up))
        .routes(routes!(identity::login_sessions, identity::end_other_logins))
        .routes(routes!(identity::end_login))
        .routes(routes!(identity::profile, identity::edit_profile))
        .routes(routes!(identity::change_password))
        .routes(routes!(identity::begin_second_factor, identity::remove_second_factor))
        .routes(routes!(identity::confirm_second_factor))
        .routes(routes!(identity::renew_recovery_codes))
        .routes(routes!(identity::forgot_password))
        .routes(routes!(identity::reset_password))
        .routes(routes!(identity::api_tokens, identity::create_api_token))
        .routes(routes!(identity::revoke_api_token))
        .routes(routes!(invitations::invitations, invitations::invite))
        .routes(routes!(invitations::resend))
        .routes(routes!(invitations::look))
        .routes(routes!(invitations::accept))
        .routes(routes!(invitations::revoke))
        .routes(routes!(invitations::security, invitations::set_security))
        .routes(routes!(invitations::ask_recovery))
        .routes(routes!(invitations::recoveries))
        .routes(routes!(invitations::approve_recovery))
        .routes(routes!(invitations::cancel_recovery))
        .routes(routes!(quota::all))
        .routes(routes!(quota::one, quota::set))
        .routes(routes!(quota::of_vault))
        .routes(routes!(quota::set_partner))
        .routes(routes!(objects::keys))
        .routes(routes!(upload::begin))
        .routes(routes!(upload::session, upload::abort))
        .routes(routes!(upload::have))
        .routes(routes!(upload::chunks))
        .routes(routes!(upload::nodes))
        .routes(routes!(upload::flush))
        .routes(routes!(upload::commit))
        .routes(routes!(objects::objects))
        .routes(routes!(browse::snapshots))
        .routes(routes!(browse::one_snapshot, states::delete))
        .routes(routes!(states::undelete))
        .routes(routes!(states::purge))
        .routes(routes!(states::hold))
        .routes(routes!(states::tags))
        .routes(routes!(browse::entries))
        .routes(routes!(browse::content))
        .routes(routes!(restores::begin))
        .routes(routes!(restores::touch, restores::end))
        .routes(routes!(retention::show, retention::set))
        .routes(routes!(retention::make_plan))
        .routes(routes!(retention::run))
        .routes(routes!(vault::show))
        .routes(routes!(vault::undelete_days))
        .routes(routes!(care::damage))
        .routes(routes!(care::scrub))
        .routes(routes!(care::audit))
        .routes(routes!(audit::list))
        .routes(routes!(audit::export))
        .routes(routes!(audit::chain))
        .routes(routes!(outbox::list))
        .routes(routes!(outbox::test))
        .routes(routes!(outbox::retry))
        .routes(routes!(outbox::cancel))
        .routes(routes!(notices::list))
        .routes(routes!(notices::settings, notices::set_settings))
        .routes(routes!(notices::set_weekly_summary))
        .routes(routes!(job_lists::list))
        .routes(routes!(job_lists::search))
        .routes(routes!(webhooks::list, webhooks::create))
        .routes(routes!(webhooks::show, webhooks::change, webhooks::remove))
        .routes(routes!(webhooks::renew_secret))
        .routes(routes!(webhooks::test))
        .routes(routes!(webhooks::deliveries))
        .routes(routes!(vault::clock))
        .routes(routes!(vault::confirm_clock))
        .merge(tenant_routes())
        .merge(agent_routes())
}

/// Computers, their plans and jobs, and what their agents say.
fn agent_routes() -> OpenApiRouter<HttpState> {
    OpenApiRouter::new()
        .routes(routes!(computers::create_enrolment))
        .routes(routes!(computers::enrol))
        .routes(routes!(computers::list))
        .routes(routes!(computers::show, computers::retire))
        .routes(routes!(computers::start))
        .routes(routes!(computers::restore))
        .routes(routes!(plans::list))
        .routes(routes!(plans::create))
        .routes(routes!(plans::show, plans::revise, plans::delete))
        .routes(routes!(plans::pause))
        .routes(routes!(plans::resume))
        .routes(routes!(plans::revisions))
        .routes(routes!(plans::start))
        .routes(routes!(jobs::show))
        .routes(routes!(jobs::log))
        .routes(routes!(jobs::cancel))
        .routes(routes!(agents::hello))
        .routes(routes!(agents::plans))
        .routes(routes!(agents::orders))
        .routes(routes!(agents::received))
        .routes(routes!(agents::begin))
        .routes(routes!(agents::heartbeat))
        .routes(routes!(agents::append_log))
        .routes(routes!(agents::end))
}

/// Who buys what, and gives it to whom.
fn tenant_routes() -> OpenApiRouter<HttpState> {
    OpenApiRouter::new()
        .routes(routes!(exports::list, exports::request))
        .routes(routes!(exports::show))
        .routes(routes!(exports::release))
        .routes(routes!(exports::refuse))
        .routes(routes!(exports::terms))
        .routes(routes!(exports::keys, exports::add_key))
        .routes(routes!(exports::revoke_key))
        .routes(routes!(exports::downloads))
        .routes(routes!(exports::host_keys))
        .routes(routes!(tenants::list, tenants::create))
        .routes(routes!(tenants::show, tenants::edit, removal::delete_tenant))
        .routes(routes!(export::export))
        .routes(routes!(removal::disconnect))
        .routes(routes!(removal::connect))
        .routes(routes!(removal::delete_user))
        .routes(routes!(removal::disable_user))
        .routes(routes!(removal::enable_user))
        .routes(routes!(removal::undelete_user))
        .routes(routes!(removal::receipts))
        .routes(routes!(removal::check))
        .routes(routes!(removal::repair))
        .routes(routes!(tenants::support_access))
        .routes(routes!(members::list))
        .routes(routes!(members::set_roles, members::remove))
        .routes(routes!(members::offer_owner))
        .routes(routes!(members::accept_owner))
        .routes(routes!(members::back_up_mine))
        .routes(routes!(members::groups, members::create_group))
        .routes(routes!(members::show_group, members::edit_group, members::delete_group))
        .routes(routes!(members::add_to_group, members::take_from_group))
        .routes(routes!(services::products, services::create_product))
        .routes(routes!(services::edit_product))
        .routes(routes!(services::list))
        .routes(routes!(services::order_one))
        .routes(routes!(services::begin_trial))
        .routes(routes!(services::show))
        .routes(routes!(services::set_quantity))
        .routes(routes!(services::set_licence))
        .routes(routes!(services::buy))
        .routes(routes!(services::renew))
        .routes(routes!(services::cancel))
        .routes(routes!(services::pay))
        .routes(routes!(services::restrict))
        .routes(routes!(services::suspend))
        .routes(routes!(services::terminate))
        .routes(routes!(services::allocations))
        .routes(routes!(services::set_allocation, services::remove_allocation))
        .routes(routes!(services::show_contacts))
        .routes(routes!(services::set_contact))
}

/// The description of the API, OpenAPI 3.1, as pretty JSON with a line end.
pub fn openapi_document() -> Result<String, serde_json::Error> {
    let (_, description) =
        OpenApiRouter::with_openapi(openapi::base()).nest(api::PREFIX, api_routes()).split_for_parts();
    openapi::document(description)
}

/// The public door.
pub fn router(state: HttpState) -> Result<Router, serde_json::Error> {
    let document = openapi_document()?;
    let (routes, _) = OpenApiRouter::new().nest(api::PREFIX, api_routes()).split_for_parts();
    Ok(routes
        .route(&format!("{}/openapi.json", api::PREFIX), get(move || openapi::answer(document.clone())))
        .route("/healthz", get(health::healthz))
        .route("/readyz", get(health::readyz))
        .fallback(|| async { Refusal::NoSuchPath })
        .method_not_allowed_fallback(|| async { Refusal::MethodNotAllowed })
        .layer(DefaultBodyLimit::disable())
        .layer(from_fn_with_state(state.clone(), envelope::envelope))
        .with_state(state))
}

/// The operator's door: metrics and health, on a listener of its own.
pub fn metrics_router(state: HttpState) -> Router {
    Router::new()
        .route("/metrics", get(metrics::metrics))
        .route("/healthz", get(health::healthz))
        .route("/readyz", get(health::readyz))
        .fallback(|| async { Refusal::NoSuchPath })
        .method_not_allowed_fallback(|| async { Refusal::MethodNotAllowed })
        .layer(from_fn_with_state(state.clone(), envelope::envelope))
        .with_state(state)
}
