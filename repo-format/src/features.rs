//! The three words of feature bits that every durable file carries, and what an unknown bit in each of them forbids.

use crate::FormatError;
use crate::codec::Reader;

/// Feature bits of a file. This build knows none yet, so every set bit is an unknown one.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Features {
    /// Unknown bits here may be ignored.
    pub compatible: u32,
    /// With unknown bits here the file may be read but nothing may be written that builds on it.
    pub read_only_compatible: u32,
    /// With unknown bits here the file may not be read.
    pub incompatible: u32,
}

impl Features {
    /// Bytes of the three words.
    pub const BYTES: usize = 12;

    /// Reads the three words; unknown incompatible bits are an error naming `what`.
    pub(crate) fn read(reader: &mut Reader<'_>, what: &'static str) -> Result<Self, FormatError> {
        let features =
            Features { compatible: reader.u32()?, read_only_compatible: reader.u32()?, incompatible: reader.u32()? };
        if features.incompatible != 0 {
            return Err(FormatError::UnsupportedFeatures { what, bits: features.incompatible });
        }
        Ok(features)
    }

    /// The three words as stored.
    pub(crate) fn to_bytes(self) -> [u8; Self::BYTES] {
        let mut out = [0; Self::BYTES];
        let words = [self.compatible, self.read_only_compatible, self.incompatible];
        for (slot, word) in out.chunks_exact_mut(4).zip(words) {
            slot.copy_from_slice(&word.to_le_bytes());
        }
        out
    }

    /// True when this build may write what builds on the file.
    pub const fn may_write(&self) -> bool {
        self.read_only_compatible == 0
    }
}
