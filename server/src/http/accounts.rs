//! Who am I, and administration: wire types <-> use cases.

use crate::app::AppError;
use crate::app::accounts::VaultWithUsage;
use crate::http::HttpState;
use crate::http::extract::{Caller, JsonBody};
use crate::http::problem::Refusal;
use crate::http::vault::state_words;
use api::accounts::{
    ConfirmMasterKey, CreateCustomer, CreateToken, CreateUser, CreateVault, Customer, Customers, Info, MasterKeyState,
    Me, NewToken, OperatorLink, Right, TokenInfo, Tokens, User, Users, Vault, Vaults,
};
use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use control::{DEFAULT_CUSTOMER, FreshToken, Rights, Token, TokenScope, UserName};

type Answer<T> = Result<Json<T>, Refusal>;
type Created<T> = Result<(StatusCode, Json<T>), Refusal>;

fn created<T>(value: T) -> Created<T> {
    Ok((StatusCode::CREATED, Json(value)))
}

fn rights(scope: TokenScope) -> (Vec<Right>, Option<String>) {
    match scope {
        TokenScope::Operator => (vec![Right::Operator], None),
        TokenScope::Vault { vault, rights } => {
            let mut list = Vec::new();
            list.extend(rights.backup.then_some(Right::Backup));
            list.extend(rights.restore.then_some(Right::Restore));
            list.extend(rights.delete.then_some(Right::Delete));
            list.extend(rights.purge.then_some(Right::Purge));
            list.extend(rights.hold.then_some(Right::Hold));
            (list, Some(vault.to_string()))
        }
    }
}

fn scope(rights: &[Right], vault: Option<&str>) -> Result<TokenScope, AppError> {
    match (rights.contains(&Right::Operator), vault) {
        (true, None) if rights.len() == 1 => Ok(TokenScope::Operator),
        (false, Some(vault)) => Ok(TokenScope::Vault {
            vault: vault.parse().map_err(|_| AppError::Invalid("vault: is not a vault id".into()))?,
            rights: Rights {
                backup: rights.contains(&Right::Backup),
                restore: rights.contains(&Right::Restore),
                delete: rights.contains(&Right::Delete),
                purge: rights.contains(&Right::Purge),
                hold: rights.contains(&Right::Hold),
            },
        }),
        _ => Err(AppError::Invalid(
            "rights: either `operator` alone and no vault, or any of `backup`, `restore`, `delete`, `purge` and `hold` on \
             one vault".into(),
        )),
    }
}

fn new_token(fresh: &FreshToken) -> NewToken {
    let (rights, vault) = rights(fresh.token.scope);
    NewToken {
        id: fresh.token.id.to_string(),
        secret: fresh.secret.expose().to_owned(),
        rights,
        vault,
        expires_ns: fresh.token.expires_ns,
    }
}

fn token_info(token: Token) -> TokenInfo {
    let (rights, vault) = rights(token.scope);
    TokenInfo {
        id: token.id.to_string(),
        name: token.name,
        rights,
        vault,
        created_ns: token.created_ns,
        expires_ns: token.expires_ns,
        revoked_ns: token.revoked_ns,
        used_ns: token.used_ns,
    }
}

fn user(user: control::User) -> User {
    User {
        name: user.name.user,
        customer: user.name.customer,
        vault: user.vault.map(|vault| vault.to_string()),
        created_ns: user.created_ns,
    }
}

fn vault(VaultWithUsage { vault, usage, state }: VaultWithUsage) -> Vault {
    let (state, reason) = state_words(&state);
    Vault {
        id: vault.id.to_string(),
        name: vault.name,
        user: vault.user.to_string(),
        created_ns: vault.created_ns,
        state,
        reason,
        physical_bytes: usage.physical_bytes,
        logical_bytes: usage.logical_bytes,
        pending_bytes: usage.pending_bytes,
        snapshots: usage.snapshots,
    }
}

/// About the server.
#[utoipa::path(get, path = "/info", tag = "server", security(()), responses((status = 200, body = Info)))]
pub(crate) async fn info() -> Json<Info> {
    Json(Info {
        product: "holdfast".into(),
        version: env!("CARGO_PKG_VERSION").into(),
        protocol: api::PROTOCOL_VERSION,
    })
}

/// About the holder of the token.
#[utoipa::path(get, path = "/me", tag = "accounts", responses((status = 200, body = Me)))]
pub(crate) async fn me(State(state): State<HttpState>, Caller(caller): Caller) -> Answer<Me> {
    let me = state.app.me(&caller).await?;
    let (rights, _) = match (&me.token, me.computer) {
        (Some(token), _) => rights(token.scope),
        (None, Some(_)) => (vec![Right::Backup, Right::Restore], None),
        (None, None) if caller.operator().is_ok() => (vec![Right::Operator], None),
        (None, None) => (Vec::new(), None),
    };
    let person = caller.user().map_or("local".into(), |user| user.to_string());
    let computer = me.computer.map_or(person, |computer| computer.to_string());
    Ok(Json(Me {
        token: me.token.as_ref().map_or(computer, |token| token.id.to_string()),
        user: me.vault.as_ref().map(|vault| vault.user.to_string()),
        vault: me.vault.as_ref().map(|vault| vault.id.to_string()),
        vault_name: me.vault.map(|vault| vault.name),
        rights,
        expires_ns: me.token.and_then(|token| token.expires_ns),
    }))
}

/// Exchanges an operator link for an operator's token. Answers once.
#[utoipa::path(post, path = "/operator-link/{secret}", tag = "accounts", security(()),
    params(("secret" = String, Path, description = "The secret of the link")),
    responses((status = 201, body = NewToken)))]
pub(crate) async fn use_operator_link(State(state): State<HttpState>, Path(secret): Path<String>) -> Created<NewToken> {
    created(new_token(&state.app.use_operator_link(&secret).await?))
}

/// Makes a single-use operator link; links not yet used stop working.
#[utoipa::path(post, path = "/operator-link", tag = "accounts", responses((status = 201, body = OperatorLink)))]
pub(crate) async fn create_operator_link(
    State(state): State<HttpState>,
    Caller(caller): Caller,
) -> Created<OperatorLink> {
    created(OperatorLink { url: state.app.create_operator_link(state.app.fresh_operator(&caller)?).await? })
}

/// All customers.
#[utoipa::path(get, path = "/customers", tag = "accounts", responses((status = 200, body = Customers)))]
pub(crate) async fn customers(State(state): State<HttpState>, Caller(caller): Caller) -> Answer<Customers> {
    let customers = state.app.customers(caller.operator()?).await?;
    let customers =
        customers.into_iter().map(|control::Customer { name, created_ns }| Customer { name, created_ns }).collect();
    Ok(Json(Customers { customers }))
}

/// Creates a customer.
#[utoipa::path(post, path = "/customers", tag = "accounts", request_body = CreateCustomer,
    responses((status = 201, body = Customer)))]
pub(crate) async fn create_customer(
    State(state): State<HttpState>,
    Caller(caller): Caller,
    JsonBody(body): JsonBody<CreateCustomer>,
) -> Created<Customer> {
    let control::Customer { name, created_ns } = state.app.create_customer(caller.operator()?, &body.name).await?;
    created(Customer { name, created_ns })
}

/// All users.
#[utoipa::path(get, path = "/users", tag = "accounts", responses((status = 200, body = Users)))]
pub(crate) async fn users(State(state): State<HttpState>, Caller(caller): Caller) -> Answer<Users> {
    let users = state.app.users(caller.operator()?).await?.into_iter().map(user).collect();
    Ok(Json(Users { users }))
}

/// Creates a user with a vault of its own.
#[utoipa::path(post, path = "/users", tag = "accounts", request_body = CreateUser,
    responses((status = 201, body = User)))]
pub(crate) async fn create_user(
    State(state): State<HttpState>,
    Caller(caller): Caller,
    JsonBody(body): JsonBody<CreateUser>,
) -> Created<User> {
    let operator = caller.operator()?;
    let customer = body.customer.as_deref().unwrap_or(DEFAULT_CUSTOMER);
    let name = UserName::new(customer, &body.name).map_err(AppError::from)?;
    created(user(state.app.create_user(operator, &name).await?))
}

/// All vaults with their ledgers.
#[utoipa::path(get, path = "/vaults", tag = "accounts", responses((status = 200, body = Vaults)))]
pub(crate) async fn vaults(State(state): State<HttpState>, Caller(caller): Caller) -> Answer<Vaults> {
    let vaults = state.app.vaults(caller.operator()?).await?.into_iter().map(vault).collect();
    Ok(Json(Vaults { vaults }))
}

/// Creates a further vault for a user.
#[utoipa::path(post, path = "/vaults", tag = "accounts", request_body = CreateVault,
    responses((status = 201, body = Vault)))]
pub(crate) async fn create_vault(
    State(state): State<HttpState>,
    Caller(caller): Caller,
    JsonBody(body): JsonBody<CreateVault>,
) -> Created<Vault> {
    let operator = caller.operator()?;
    let owner = UserName::parse(&body.user).map_err(AppError::from)?;
    let made = state.app.create_vault(operator, &body.name, &owner).await?;
    created(vault(VaultWithUsage { vault: made, usage: Default::default(), state: store::VaultState::Ready }))
}

/// All tokens, without their secrets.
#[utoipa::path(get, path = "/tokens", tag = "accounts", responses((status = 200, body = Tokens)))]
pub(crate) async fn tokens(State(state): State<HttpState>, Caller(caller): Caller) -> Answer<Tokens> {
    let tokens = state.app.tokens(caller.operator()?).await?.into_iter().map(token_info).collect();
    Ok(Json(Tokens { tokens }))
}

/// Creates a token; its secret is in this answer and nowhere else.
#[utoipa::path(post, path = "/tokens", tag = "accounts", request_body = CreateToken,
    responses((status = 201, body = NewToken)))]
pub(crate) async fn create_token(
    State(state): State<HttpState>,
    Caller(caller): Caller,
    JsonBody(body): JsonBody<CreateToken>,
) -> Created<NewToken> {
    let operator = state.app.fresh_operator(&caller)?;
    let scope = scope(&body.rights, body.vault.as_deref())?;
    state.app.check_may_make(&caller, scope).await?;
    created(new_token(&state.app.create_token(operator, &body.name, scope, body.valid_seconds).await?))
}

/// Revokes a token at once.
#[utoipa::path(delete, path = "/tokens/{token}", tag = "accounts",
    params(("token" = String, Path, description = "Token id")), responses((status = 200, body = TokenInfo)))]
pub(crate) async fn revoke_token(
    State(state): State<HttpState>,
    Caller(caller): Caller,
    Path(token): Path<String>,
) -> Answer<TokenInfo> {
    let operator = caller.operator()?;
    let id = token.parse().map_err(|_| AppError::NotFound { what: "token" })?;
    Ok(Json(token_info(state.app.revoke_token(operator, id).await?)))
}

/// Whether the master key is known to stand on paper.
#[utoipa::path(get, path = "/master-key", tag = "server", responses((status = 200, body = MasterKeyState)))]
pub(crate) async fn master_key(State(state): State<HttpState>, Caller(caller): Caller) -> Answer<MasterKeyState> {
    let found = state.app.master_key_state(caller.operator()?).await?;
    Ok(Json(MasterKeyState { fingerprint: found.fingerprint, confirmed_ns: found.confirmed_ns }))
}

/// Confirms that the master key has been read from its recovery sheet.
#[utoipa::path(post, path = "/master-key/confirm", tag = "server", request_body = ConfirmMasterKey,
    responses((status = 200, body = MasterKeyState)))]
pub(crate) async fn confirm_master_key(
    State(state): State<HttpState>,
    Caller(caller): Caller,
    JsonBody(body): JsonBody<ConfirmMasterKey>,
) -> Answer<MasterKeyState> {
    let found = state.app.confirm_master_key(caller.operator()?, &body.fingerprint).await?;
    Ok(Json(MasterKeyState { fingerprint: found.fingerprint, confirmed_ns: found.confirmed_ns }))
}
