//! Whether the master key is known to stand on paper.

use crate::app::{App, AppError, OperatorGrant};

/// Whether the master key in use is confirmed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MasterKeyState {
    /// Fingerprint of the key in use.
    pub fingerprint: String,
    /// When somebody confirmed it, nanoseconds since 1970.
    pub confirmed_ns: Option<i64>,
}

impl App {
    /// The state now.
    pub async fn master_key_state(&self, _: OperatorGrant) -> Result<MasterKeyState, AppError> {
        let confirmed_ns = self.control.master_key_confirmed_ns(&self.master_fingerprint).await?;
        Ok(MasterKeyState { fingerprint: self.master_fingerprint.clone(), confirmed_ns })
    }

    /// Notes that somebody has read the key with this fingerprint from its sheet.
    pub async fn confirm_master_key(
        &self,
        operator: OperatorGrant,
        fingerprint: &str,
    ) -> Result<MasterKeyState, AppError> {
        if fingerprint != self.master_fingerprint {
            return Err(AppError::Conflict(format!(
                "the key that was read has the fingerprint {fingerprint}, but the key in use has {}",
                self.master_fingerprint
            )));
        }
        self.control.confirm_master_key(fingerprint, self.clock.now_ns()).await?;
        self.set_master_key_confirmed();
        self.master_key_state(operator).await
    }
}
