//! When vaults were audited last.

use crate::account::vault_id;
use crate::{Control, ControlError};
use repo_format::id::VaultId;

impl Control {
    /// The vault that was audited, or else made, longest ago, if that was before `before_ns` (nanoseconds since 1970).
    pub async fn next_audit(&self, before_ns: i64, without: &[VaultId]) -> Result<Option<VaultId>, ControlError> {
        let rows = sqlx::query(
            "SELECT id FROM vaults WHERE COALESCE(audited_ns, created_ns) < $1 \
             ORDER BY COALESCE(audited_ns, created_ns), id",
        )
        .bind(before_ns)
        .fetch_all(&self.readers)
        .await?;
        for row in &rows {
            let vault = vault_id(row, "id")?;
            if !without.contains(&vault) {
                return Ok(Some(vault));
            }
        }
        Ok(None)
    }

    /// Notes that a vault was audited.
    pub async fn note_audit(&self, vault: &VaultId, now_ns: i64) -> Result<(), ControlError> {
        let mut transaction = self.write().await?;
        sqlx::query("UPDATE vaults SET audited_ns = $1 WHERE id = $2")
            .bind(now_ns)
            .bind(vault.to_string())
            .execute(&mut *transaction)
            .await?;
        transaction.commit().await?;
        Ok(())
    }
}
