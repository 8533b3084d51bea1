//! Quotas: what a refusal says, and who may set and see limits.

use std::fmt;
use store::{LimitId, QuotaKind};

/// Why an upload was refused, with every figure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QuotaRefusal {
    /// The limit that refuses.
    pub limit: LimitId,
    /// Which of its bytes.
    pub kind: QuotaKind,
    /// Bytes in the ledgers of its vaults.
    pub used: u64,
    /// Bytes promised to uploads under way.
    pub reserved: u64,
    /// What it allows, bytes.
    pub limit_bytes: u64,
    /// Bytes the request needs beyond what is reserved for it.
    pub requested: u64,
}

impl QuotaRefusal {
    /// What helps.
    pub const fn help(&self) -> &'static str {
        match self.kind {
            QuotaKind::Physical => {
                "delete snapshots that are no longer needed (what was deleted softly counts until it is purged), or ask \
                 for a higher quota"
            }
            QuotaKind::Logical => {
                "delete old snapshots (what was deleted softly counts until it is purged), back up less, or ask for a \
                 higher quota"
            }
        }
    }
}

impl fmt::Display for QuotaRefusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let QuotaRefusal { limit, kind, used, reserved, limit_bytes, requested } = self;
        write!(
            f,
            "the {kind} quota of {limit} is reached: {used} of {limit_bytes} bytes are used and {reserved} reserved by \
             uploads under way, {requested} more are needed; {}. Restoring and deleting still work",
            self.help()
        )
    }
}
