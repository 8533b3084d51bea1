//! Between which two steps of a use case a test ends the server: SQL, store and files change one after the other, and
//! whatever stands between is what a crash leaves. `tests/tests/kills_between_steps.rs` goes through every point there
//! is. With the feature `testing` only; [`crate::testing_guard`] keeps it out of builds for use.

use rustix::process::{Signal, getpid, kill_process};

/// Names the file that names the point at which the process ends.
pub const KILL_FILE_VARIABLE: &str = "HOLDFAST_TEST_KILL_FILE";

macro_rules! points {
    ($($(#[doc = $doc:literal])* $point:ident,)*) => {
        /// A moment between two steps.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum KillPoint {
            $($(#[doc = $doc])* $point,)*
        }

        impl KillPoint {
            /// Every one.
            pub const ALL: &[KillPoint] = &[$(KillPoint::$point,)*];

            /// Its name in the file.
            pub const fn name(self) -> &'static str {
                match self {
                    $(KillPoint::$point => stringify!($point),)*
                }
            }
        }
    };
}

points! {
    /// First start: the master key is there, and nothing else.
    MasterKeyMade,
    /// First start: the accounts are there too.
    AccountsMade,
    /// First start: the store is there too.
    StoreMade,
    /// First start: secrets can be sealed, nobody has a link yet.
    SealingKeyMade,
    /// First start: the operator's link is made and was not shown.
    OperatorLinkMade,
    /// A new user's vault has its keys; no account names it.
    UserKeysMade,
    /// The user is entered; the store does not have its limits.
    UserEntered,
    /// A further vault has its keys; no account names it.
    VaultKeysMade,
    /// The vault is entered; the store does not have its limits.
    VaultEntered,
    /// A user is given a part of a service: the vault has its keys; no account names it.
    AllocationKeysMade,
    /// Vault and allocation are entered; the store has neither limits nor chain.
    AllocationEntered,
    /// The store has the limits, and does not know that the vault counts under them.
    AllocationLimitsPushed,
    /// A part was taken back; the store does not have the new limits.
    AllocationTakenBack,
    /// A repair makes a vault that was missing: it has its keys; no account names it.
    FirstVaultKeysMade,
    /// It is entered; the store does not have its limits.
    FirstVaultEntered,
    /// A quota is set; the store goes by the old one.
    QuotaWritten,
    /// A customer has a partner; the store counts as before.
    PartnerWritten,
    /// A service has changed; the store goes by the old limits.
    ServiceWritten,
    /// Services were moved on by the clock; the store goes by the old limits.
    ServicesAdvanced,
    /// Somebody has come in with a service; the store does not have its limits.
    InvitationAccepted,
    /// A computer has its credential, of which its agent does not know.
    ComputerEnrolled,
    /// The store has decided that a vault goes; the accounts name it.
    DeletionDecided,
    /// The accounts have forgotten it; its key and its data are there.
    DeletionForgotten,
    /// Nothing is left of it; the proof is not written.
    DeletionCarriedOut,
    /// A user's vaults are deleted for good; the user is there.
    UserVaultsDeleted,
    /// The user is gone; the store has its limit.
    UserForgotten,
    /// It is written down that a vault is going to be destroyed, and nothing has happened to it.
    RemovalNoted,
    /// The vaults of a user whose grace is over are destroyed; the user is there.
    UserVaultsDestroyed,
    /// The user is erased; the store has its limit.
    UserErased,
    /// The users of a tenant whose grace is over are erased; the tenant is there.
    TenantUsersErased,
    /// The tenant is erased; the store has its limits.
    TenantErased,
    /// Change of the master key: the new one waits beside the old one.
    RotationKeyWaiting,
    /// The accounts' secrets can be read under both.
    RotationSecretsWrapped,
    /// The keyring is under the new one, which waits beside the old one.
    RotationKeyringWrapped,
    /// The new one has taken the old one's place, and waits beside it as well.
    RotationKeyReplaced,
}

/// Ends the process as `kill -9` does, when the file names this point.
pub(crate) fn reach(point: KillPoint) {
    let Some(file) = std::env::var_os(KILL_FILE_VARIABLE) else { return };
    if std::fs::read_to_string(file).is_ok_and(|text| text.trim() == point.name()) {
        tracing::info!(point = point.name(), "a test ends the process here");
        let _ = kill_process(getpid(), Signal::KILL);
        // The signal comes before the next step.
        loop {
            std::thread::park();
        }
    }
}
