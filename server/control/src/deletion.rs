//! What the accounts know of a vault goes with it: its row, its tokens, its policies, and what the database file still
//! held of them.

use crate::account::vault_id;
use crate::{Control, ControlError, SecretDigest, UserName};
use repo_format::id::VaultId;
use sqlx::{AnyConnection, Row};

/// Readers that keep an old state of the database are waited for so often, each time as long as the database waits.
const CHECKPOINTS_MAX: u32 = 3;

/// Part of a deletion: its traces are to be overwritten in the files.
pub(crate) async fn note_remains(connection: &mut AnyConnection) -> Result<(), ControlError> {
    sqlx::query("INSERT INTO remains (number) SELECT COALESCE(MAX(number), 0) + 1 FROM remains")
        .execute(connection)
        .await?;
    Ok(())
}

/// What was removed.
#[derive(Clone, Debug, Default)]
pub struct RemovedVault {
    /// Digests of the tokens that were good for it.
    pub tokens: Vec<SecretDigest>,
}

impl Control {
    /// Removes a vault with everything that belongs to it; on disk when this returns, and nothing of it is left in the
    /// files of the database. One that is gone already is no error: the files are seen to again.
    pub async fn delete_vault(&self, vault: &VaultId) -> Result<RemovedVault, ControlError> {
        let id = vault.to_string();
        let mut transaction = self.write().await?;
        let rows = sqlx::query("DELETE FROM tokens WHERE vault_id = $1 RETURNING secret_hash")
            .bind(&id)
            .fetch_all(&mut *transaction)
            .await?;
        // What else refers to a vault goes by the rule of its own table.
        sqlx::query("DELETE FROM vaults WHERE id = $1").bind(&id).execute(&mut *transaction).await?;
        note_remains(&mut transaction).await?;
        transaction.commit().await?;
        self.forget_remains().await?;
        let digests = rows.iter().map(|row| {
            let text: String = row.try_get("secret_hash")?;
            SecretDigest::from_hexadecimal(&text).ok_or(ControlError::Corrupt { what: "token hash" })
        });
        Ok(RemovedVault { tokens: digests.collect::<Result<_, _>>()? })
    }

    /// Removes a user that has no vault any more, and its customer stays. [`ControlError::NotFound`] when there is no
    /// such user, [`ControlError::Exists`] when it has a vault.
    pub async fn delete_user(&self, name: &UserName) -> Result<(), ControlError> {
        let mut transaction = self.write().await?;
        let user: Option<String> = sqlx::query_scalar(
            "SELECT users.id FROM users JOIN tenants ON tenants.id = users.tenant_id \
             WHERE tenants.name = $1 AND users.name = $2",
        )
        .bind(&name.customer)
        .bind(&name.user)
        .fetch_optional(&mut *transaction)
        .await?;
        let user = user.ok_or_else(|| ControlError::not_found("user", &name.to_string()))?;
        let vaults: i64 = sqlx::query_scalar("SELECT COUNT(*) FROM vaults WHERE user_id = $1")
            .bind(&user)
            .fetch_one(&mut *transaction)
            .await?;
        if vaults > 0 {
            return Err(ControlError::Exists { what: "vault of the user", name: name.to_string() });
        }
        sqlx::query("DELETE FROM users WHERE id = $1").bind(&user).execute(&mut *transaction).await?;
        note_remains(&mut transaction).await?;
        transaction.commit().await?;
        self.forget_remains().await
    }

    /// Vaults of one user, by name.
    pub async fn vaults_of(&self, name: &UserName) -> Result<Vec<VaultId>, ControlError> {
        let rows = sqlx::query(
            "SELECT vaults.id AS id FROM vaults JOIN users ON users.id = vaults.user_id \
             JOIN tenants ON tenants.id = users.tenant_id \
             WHERE tenants.name = $1 AND users.name = $2 ORDER BY vaults.name",
        )
        .bind(&name.customer)
        .bind(&name.user)
        .fetch_all(&self.readers)
        .await?;
        rows.iter().map(|row| vault_id(row, "id")).collect()
    }

    /// Deleted rows are overwritten as they go; what free pages, moved rows and the log still hold goes here.
    pub(crate) async fn forget_remains(&self) -> Result<(), ControlError> {
        // Deletions that come meanwhile are seen to by their own call.
        let last: Option<i64> = sqlx::query_scalar("SELECT MAX(number) FROM remains").fetch_one(&self.readers).await?;
        self.compact().await?;
        for _ in 0..CHECKPOINTS_MAX {
            if self.truncate_log().await? {
                let mut transaction = self.write().await?;
                sqlx::query("DELETE FROM remains WHERE number <= $1")
                    .bind(last.unwrap_or(0))
                    .execute(&mut *transaction)
                    .await?;
                transaction.commit().await?;
                return Ok(());
            }
        }
        Err(ControlError::Busy)
    }

    /// Sees to the files behind a deletion that was interrupted, or could not be seen to then. `false` when there was
    /// none.
    pub async fn forget_interrupted(&self) -> Result<bool, ControlError> {
        let open: i64 = sqlx::query_scalar("SELECT COUNT(*) FROM remains").fetch_one(&self.readers).await?;
        if open > 0 {
            self.forget_remains().await?;
        }
        Ok(open > 0)
    }
}
