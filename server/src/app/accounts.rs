//! Administration: customers, users, vaults, tokens, the operator link.

use crate::app::{App, AppError, OperatorGrant, Principal, Target, Verb};
use control::{
    ComputerId, Customer, FreshToken, SecretKind, Token, TokenId, TokenScope, TokenSecret, User, UserName, Vault,
};
use repo_format::id::VaultId;
use store::VaultState;

/// Path of the operator link under the API's prefix, before the secret.
pub const OPERATOR_LINK_PATH: &str = "/operator-link/";

/// The holder of a token, as it may see itself.
#[derive(Clone, Debug)]
pub struct Me {
    /// The token; `None` for the local credential and for computers.
    pub token: Option<Token>,
    /// The computer that its agent speaks for.
    pub computer: Option<ComputerId>,
    /// Its vault.
    pub vault: Option<Vault>,
}

/// A vault with what it holds.
#[derive(Clone, Debug)]
pub struct VaultWithUsage {
    /// As the accounts know it.
    pub vault: Vault,
    /// As the store counts it; zeros while it cannot.
    pub usage: VaultUsage,
    /// What can be done with it.
    pub state: VaultState,
}

/// Exact counts of one vault.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct VaultUsage {
    /// Bytes in packs of all objects.
    pub physical_bytes: u64,
    /// Sum of file sizes over all snapshots.
    pub logical_bytes: u64,
    /// The part of `logical_bytes` in deleted snapshots that can be brought back.
    pub deleted_logical_bytes: u64,
    /// Bytes of objects nothing refers to.
    pub pending_bytes: u64,
    /// Bytes in packs of what is gone.
    pub dead_bytes: u64,
    /// Objects found damaged and not yet healed.
    pub damaged_objects: u64,
    /// Objects stored.
    pub objects: u64,
    /// Snapshots.
    pub snapshots: u64,
}

impl App {
    /// About the caller.
    pub async fn me(&self, principal: &Principal) -> Result<Me, AppError> {
        if let Principal::Computer(known) = principal {
            let vault = match &known.vault {
                Some(vault) => Some(self.control.vault(vault).await?),
                None => None,
            };
            return Ok(Me { token: None, computer: Some(known.computer.id), vault });
        }
        let Principal::Token(token) = principal else { return Ok(Me { token: None, computer: None, vault: None }) };
        let vault = match token.scope {
            TokenScope::Operator => None,
            TokenScope::Vault { vault, .. } => Some(self.control.vault(&vault).await?),
        };
        Ok(Me { token: Some(token.as_ref().clone()), computer: None, vault })
    }

    /// Creates a customer.
    pub async fn create_customer(&self, _: OperatorGrant, name: &str) -> Result<Customer, AppError> {
        Ok(self.control.create_customer(name, self.clock.now_ns()).await?)
    }

    /// All customers.
    pub async fn customers(&self, _: OperatorGrant) -> Result<Vec<Customer>, AppError> {
        Ok(self.control.customers().await?)
    }

    /// Creates a user with a vault. The vault's keys are durable before the user can be seen.
    pub async fn create_user(&self, _: OperatorGrant, name: &UserName) -> Result<User, AppError> {
        let _one_at_a_time = self.creation.lock().await;
        self.control.check_user_is_new(name).await?;
        let vault = self.make_vault().await?;
        kill_point!(UserKeysMade);
        let user = self.control.create_user(name, vault, self.clock.now_ns()).await?;
        kill_point!(UserEntered);
        self.push_quota_chain(&vault).await?;
        Ok(user)
    }

    /// All users.
    pub async fn users(&self, _: OperatorGrant) -> Result<Vec<User>, AppError> {
        Ok(self.control.users().await?)
    }

    /// Creates a further vault for a user.
    pub async fn create_vault(&self, _: OperatorGrant, name: &str, owner: &UserName) -> Result<Vault, AppError> {
        let _one_at_a_time = self.creation.lock().await;
        self.control.check_vault_is_new(name, owner).await?;
        let vault = self.make_vault().await?;
        kill_point!(VaultKeysMade);
        let made = self.control.create_vault(vault, name, owner, self.clock.now_ns()).await?;
        kill_point!(VaultEntered);
        self.push_quota_chain(&vault).await?;
        Ok(made)
    }

    /// All vaults with what they hold.
    pub async fn vaults(&self, _: OperatorGrant) -> Result<Vec<VaultWithUsage>, AppError> {
        let mut vaults = Vec::new();
        for vault in self.control.vaults().await? {
            // One vault that cannot be used must not hide the others.
            let usage = self.vault_usage(vault.id).await.unwrap_or_default();
            let state = self.vault_state(vault.id).await?;
            vaults.push(VaultWithUsage { vault, usage, state });
        }
        Ok(vaults)
    }

    /// Refuses a token that reads or writes content to whoever only looks after vaults: no operator opens content by a
    /// detour. The server's own machine, where the master key is, makes the first one of a user.
    pub async fn check_may_make(&self, caller: &Principal, scope: TokenScope) -> Result<(), AppError> {
        match (caller, scope) {
            (Principal::Local, _) => Ok(()),
            (_, TokenScope::Vault { vault, rights }) if rights.backup || rights.restore => {
                self.allow(caller, Verb::CONTENT_RESTORE, Target::Vault(vault)).await?;
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// Makes a token, valid for `valid_seconds` or until it is revoked.
    pub async fn create_token(
        &self,
        _: OperatorGrant,
        name: &str,
        scope: TokenScope,
        valid_seconds: Option<u64>,
    ) -> Result<FreshToken, AppError> {
        let now_ns = self.clock.now_ns();
        let expires_ns = match valid_seconds {
            None => None,
            Some(seconds) => {
                let valid_ns = i64::try_from(seconds).ok().and_then(|seconds| seconds.checked_mul(1_000_000_000));
                let end_ns = valid_ns.and_then(|valid_ns| valid_ns.checked_add(now_ns));
                Some(end_ns.ok_or_else(|| AppError::Invalid("valid_seconds: is too far in the future".into()))?)
            }
        };
        Ok(self.control.create_token(name, scope, expires_ns, now_ns).await?)
    }

    /// All tokens.
    pub async fn tokens(&self, _: OperatorGrant) -> Result<Vec<Token>, AppError> {
        Ok(self.control.tokens().await?)
    }

    /// Revokes a token at once.
    pub async fn revoke_token(&self, _: OperatorGrant, id: TokenId) -> Result<Token, AppError> {
        let revoked = self.control.revoke_token(id, self.clock.now_ns()).await;
        self.known_tokens.forget();
        revoked.map_err(|error| match error {
            control::ControlError::NotFound { .. } => AppError::NotFound { what: "token" },
            other => other.into(),
        })
    }

    /// Makes a single-use operator link, as a URL. Links not yet used stop working.
    pub async fn create_operator_link(&self, _: OperatorGrant) -> Result<String, AppError> {
        self.fresh_operator_link().await
    }

    /// The link of a first start, when nobody can hold a grant yet.
    pub(crate) async fn fresh_operator_link(&self) -> Result<String, AppError> {
        let secret = self.control.create_operator_link(self.clock.now_ns()).await?;
        Ok(format!("{}{}{OPERATOR_LINK_PATH}{}", self.public_url, api::PREFIX, secret.expose()))
    }

    /// Exchanges an operator link for an operator's token, once.
    pub async fn use_operator_link(&self, secret: &str) -> Result<FreshToken, AppError> {
        let not_found = AppError::NotFound { what: "operator link (it answers only once)" };
        let Some(link) = TokenSecret::parse(SecretKind::OperatorLink, secret) else { return Err(not_found) };
        self.control.use_operator_link(&link, self.clock.now_ns()).await.map_err(|error| match error {
            control::ControlError::NotFound { .. } => not_found,
            other => other.into(),
        })
    }

    /// Keys of a new vault, that nothing refers to yet.
    pub(crate) async fn make_vault(&self) -> Result<VaultId, AppError> {
        let mut bytes = [0; VaultId::LEN];
        getrandom::fill(&mut bytes).map_err(|error| AppError::Internal(format!("no random bytes: {error}")))?;
        let vault = VaultId::from_bytes(bytes);
        self.make_vault_keys(vault).await?;
        Ok(vault)
    }
}
