//! The intent to delete a vault: a small file that stands from the decision until nothing of the vault is left. It is
//! readable without the vault's key, which is destroyed on the way.

use crate::FormatError;
use crate::codec::Reader;
use crate::id::VaultId;

/// First bytes of every intent.
pub const DELETION_MAGIC: [u8; 8] = *b"HFVDEL01";
/// Length of the file, bytes.
pub const DELETION_BYTES: usize = 8 + 2 + VaultId::LEN + 8 + CHECKSUM_BYTES;

const VERSION: u16 = 1;
const CHECKSUM_BYTES: usize = 32;
const INTENT: &str = "deletion intent";

/// A vault is to be deleted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DeletionIntent {
    /// The vault.
    pub vault: VaultId,
    /// When it was decided, nanoseconds since 1970.
    pub decided_ns: i64,
}

impl DeletionIntent {
    /// The whole file.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = DELETION_MAGIC.to_vec();
        out.extend_from_slice(&VERSION.to_le_bytes());
        out.extend_from_slice(self.vault.as_bytes());
        out.extend_from_slice(&self.decided_ns.to_le_bytes());
        let checksum = blake3::hash(&out);
        out.extend_from_slice(checksum.as_bytes());
        out
    }

    /// From the whole file.
    pub fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        if !bytes.starts_with(&DELETION_MAGIC) {
            return Err(FormatError::BadMagic { what: INTENT });
        }
        let (covered, checksum) =
            bytes.split_last_chunk::<CHECKSUM_BYTES>().ok_or(FormatError::Truncated { what: INTENT })?;
        if blake3::hash(covered).as_bytes() != checksum {
            return Err(FormatError::Checksum { what: INTENT });
        }
        let mut reader = Reader::new(INTENT, covered);
        let _magic: [u8; 8] = reader.array()?;
        let version = reader.u16()?;
        if version != VERSION {
            return Err(FormatError::UnsupportedVersion { what: INTENT, version: version.into() });
        }
        let intent = DeletionIntent {
            vault: VaultId::from_bytes(reader.array()?),
            decided_ns: i64::from_le_bytes(reader.array()?),
        };
        reader.finish()?;
        Ok(intent)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_whole_intent_counts() {
        let intent = DeletionIntent { vault: VaultId::from_bytes([9; 16]), decided_ns: -5 };
        let file = intent.encode();
        assert_eq!(file.len(), DELETION_BYTES);
        assert_eq!(DeletionIntent::decode(&file).unwrap(), intent);
        for at in 0..file.len() {
            let mut changed = file.clone();
            changed[at] ^= 1;
            assert!(DeletionIntent::decode(&changed).is_err(), "byte {at}");
            assert!(DeletionIntent::decode(&file[..at]).is_err(), "cut at {at}");
        }
    }
}
