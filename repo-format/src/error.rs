//! What can be wrong with bytes of the format, chosen by what the caller must do about it.

/// Why bytes could not be read as the structure they claim to be. Never carries plaintext or keys.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FormatError {
    /// The bytes end before the structure does.
    #[error("{what}: truncated")]
    Truncated {
        /// The structure being read.
        what: &'static str,
    },
    /// The magic number is another one: these bytes are not this structure at all.
    #[error("{what}: not recognised (wrong magic number)")]
    BadMagic {
        /// The structure being read.
        what: &'static str,
    },
    /// A version this build does not know; a newer Holdfast wrote it.
    #[error("{what}: version {version} is not supported by this build; use a newer Holdfast")]
    UnsupportedVersion {
        /// The structure being read.
        what: &'static str,
        /// The version found.
        version: u32,
    },
    /// Feature bits this build must not ignore.
    #[error("{what}: unknown incompatible features {bits:#x}; use a newer Holdfast")]
    UnsupportedFeatures {
        /// The structure being read.
        what: &'static str,
        /// The unknown bits.
        bits: u32,
    },
    /// A checksum does not match: the bytes are damaged.
    #[error("{what}: checksum does not match, the bytes are damaged")]
    Checksum {
        /// The structure being read.
        what: &'static str,
    },
    /// Authentication failed: wrong key, or changed bytes.
    #[error("{what}: authentication failed (wrong key, or the bytes were changed)")]
    Authentication {
        /// The structure being read.
        what: &'static str,
    },
    /// A length or count is above its limit.
    #[error("{what}: {value} is above the limit of {limit}")]
    Limit {
        /// The quantity.
        what: &'static str,
        /// What was found.
        value: u64,
        /// The largest allowed.
        limit: u64,
    },
    /// A rule of the structure is broken.
    #[error("{what}: {rule}")]
    Invalid {
        /// The structure being read.
        what: &'static str,
        /// The rule.
        rule: &'static str,
    },
    /// The content does not have the id it was given.
    #[error("{what}: the content does not match its id")]
    IdMismatch {
        /// The kind of object.
        what: &'static str,
    },
}

impl FormatError {
    /// A broken rule of `what`.
    pub const fn invalid(what: &'static str, rule: &'static str) -> Self {
        FormatError::Invalid { what, rule }
    }
}
