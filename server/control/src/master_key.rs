//! Whether somebody has confirmed that the master key stands on paper. Holds fingerprints, never keys.

use crate::{Control, ControlError};

impl Control {
    /// Notes the fingerprint of the master key in use. True when it was not known before.
    pub async fn note_master_key(&self, fingerprint: &str, now_ns: i64) -> Result<bool, ControlError> {
        let mut transaction = self.write().await?;
        let noted = sqlx::query(
            "INSERT INTO master_keys (fingerprint, first_seen_ns) VALUES ($1, $2) \
             ON CONFLICT (fingerprint) DO NOTHING",
        )
        .bind(fingerprint)
        .bind(now_ns)
        .execute(&mut *transaction)
        .await?;
        transaction.commit().await?;
        Ok(noted.rows_affected() == 1)
    }

    /// When the master key with this fingerprint was confirmed.
    pub async fn master_key_confirmed_ns(&self, fingerprint: &str) -> Result<Option<i64>, ControlError> {
        let confirmed: Option<Option<i64>> =
            sqlx::query_scalar("SELECT confirmed_ns FROM master_keys WHERE fingerprint = $1")
                .bind(fingerprint)
                .fetch_optional(&self.readers)
                .await?;
        Ok(confirmed.flatten())
    }

    /// Marks the master key with this fingerprint as confirmed; the first time counts.
    pub async fn confirm_master_key(&self, fingerprint: &str, now_ns: i64) -> Result<(), ControlError> {
        let mut transaction = self.write().await?;
        let confirmed =
            sqlx::query("UPDATE master_keys SET confirmed_ns = COALESCE(confirmed_ns, $1) WHERE fingerprint = $2")
                .bind(now_ns)
                .bind(fingerprint)
                .execute(&mut *transaction)
                .await?;
        if confirmed.rows_affected() == 0 {
            return Err(ControlError::not_found("master key with fingerprint", fingerprint));
        }
        transaction.commit().await?;
        Ok(())
    }
}
