//! Deleting vaults and users for good. The decision is durable in the store first; then the accounts forget, then the
//! store destroys keys, rows and packs. Whatever interrupts it, the next start or the next minute goes on.

use crate::app::auth::server_actor;
use crate::app::engine::on_store;
use crate::app::{App, AppError, OperatorGrant};
use control::{ControlError, QuotaScope, UserName};
use repo_format::id::VaultId;
use repo_format::keyring::MasterKey;
use std::sync::Arc;
use store::{DeletionReceipt, StoreError};

/// Gives the master key when it is needed: the server does not keep it.
pub type MasterKeyLoader = Arc<dyn Fn() -> Result<MasterKey, AppError> + Send + Sync>;

/// A vault that is gone.
#[derive(Clone, Debug)]
pub struct DeletedVault {
    /// `CUSTOMER/USER/VAULT`, or the id when the accounts had forgotten it before.
    pub name: String,
    /// Tokens that stopped working.
    pub tokens: u64,
    /// What the store removed.
    pub receipt: DeletionReceipt,
}

impl App {
    /// Deletes a vault. `confirm` is its full name, so that no mistyped id is enough. Goes on when the caller does not
    /// wait for the end.
    pub async fn delete_vault(
        self: &Arc<Self>,
        _: OperatorGrant,
        vault: VaultId,
        confirm: &str,
    ) -> Result<DeletedVault, AppError> {
        let name = match self.control.vault(&vault).await {
            Ok(found) => format!("{}/{}", found.user, found.name),
            Err(ControlError::NotFound { .. }) => vault.to_string(),
            Err(error) => return Err(error.into()),
        };
        if confirm != name {
            return Err(AppError::Invalid(format!("confirm: must be the vault's full name, {name}")));
        }
        self.carry_out_deletion(vault, name).await
    }

    /// Deletes a user with all vaults. `confirm` is `CUSTOMER/USER`.
    pub async fn delete_user(
        self: &Arc<Self>,
        _: OperatorGrant,
        user: &UserName,
        confirm: &str,
    ) -> Result<Vec<DeletedVault>, AppError> {
        if confirm != user.to_string() {
            return Err(AppError::Invalid(format!("confirm: must be the user's full name, {user}")));
        }
        // None is made for the user meanwhile.
        let _one_at_a_time = self.creation.lock().await;
        let mut deleted = Vec::new();
        for vault in self.control.vaults_of(user).await? {
            let found = self.control.vault(&vault).await?;
            deleted.push(self.carry_out_deletion(vault, format!("{}/{}", found.user, found.name)).await?);
        }
        kill_point!(UserVaultsDeleted);
        self.control.delete_user(user).await.map_err(|error| match error {
            ControlError::NotFound { .. } => AppError::NotFound { what: "user" },
            other => other.into(),
        })?;
        kill_point!(UserForgotten);
        self.lift_quota(&QuotaScope::User(user.clone()));
        Ok(deleted)
    }

    /// Goes on with what was decided and not finished.
    pub async fn resume_deletions(self: &Arc<Self>) {
        for vault in self.store.pending_deletions() {
            match self.carry_out_deletion(vault, vault.to_string()).await {
                Ok(deleted) => tracing::info!(
                    %vault, packs = deleted.receipt.packs, keyring_generation = deleted.receipt.keyring_generation,
                    "a deletion that was interrupted is finished"
                ),
                // Another call was faster.
                Err(AppError::VaultDeleted) => {}
                Err(error) => tracing::error!(%vault, %error, "a deletion cannot be finished; it is tried again"),
            }
        }
    }

    pub(crate) async fn carry_out_deletion(
        self: &Arc<Self>,
        vault: VaultId,
        name: String,
    ) -> Result<DeletedVault, AppError> {
        let app = self.clone();
        // A task of its own: whoever asked may be gone before the end.
        match tokio::spawn(async move { app.delete_everywhere(vault, name).await }).await {
            Ok(deleted) => deleted,
            Err(error) => Err(AppError::Internal(format!("a deletion was lost: {error}"))),
        }
    }

    async fn delete_everywhere(&self, vault: VaultId, name: String) -> Result<DeletedVault, AppError> {
        // The key first: without it nothing can be decided.
        let load = self.load_master_key.clone();
        let loaded = tokio::task::spawn_blocking(move || load()).await;
        let master = loaded.map_err(|error| AppError::Internal(error.to_string()))??;
        let decided = on_store(&self.store, move |store| match store.decide_vault_deletion(&vault) {
            // Nothing of it in the store: the accounts may know it all the same.
            Err(StoreError::NoSuchVault(_)) => Ok(false),
            decided => decided.map(|()| true),
        })
        .await?;
        kill_point!(DeletionDecided);
        let removed = self.control.delete_vault(&vault).await?;
        kill_point!(DeletionForgotten);
        self.known_tokens.vault_is_gone(&removed.tokens);
        self.lift_quota(&QuotaScope::Vault(vault));
        if !decided {
            return Err(AppError::NotFound { what: "vault" });
        }
        let receipt = on_store(&self.store, move |store| store.delete_vault(&vault, &master)).await?;
        kill_point!(DeletionCarriedOut);
        // The proof, where the vault went because its user, customer or service did.
        let number = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
        let counted = Some((number(receipt.packs), number(receipt.pack_bytes), number(receipt.keyring_generation)));
        self.control.finish_receipt(&server_actor(), &vault, counted, receipt.finished_ns).await?;
        *self.totals.lock().await = None;
        Ok(DeletedVault { name, tokens: removed.tokens.len() as u64, receipt })
    }
}
