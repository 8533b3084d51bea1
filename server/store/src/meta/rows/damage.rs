//! Rows of what was found damaged.

use super::{Place, open, put_pack, take_pack, take_u32, versioned};
use repo_format::FormatError;
use repo_format::codec::{put_varint, put_varint_signed};

/// Row of an object whose frame does not verify.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct DamageRow {
    /// Of the frame.
    pub(crate) place: Place,
    /// When it was found, nanoseconds since 1970.
    pub(crate) found_ns: i64,
}

impl DamageRow {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = versioned();
        put_pack(&mut out, &self.place.pack);
        put_varint(&mut out, self.place.offset.into());
        put_varint(&mut out, self.place.frame_len.into());
        put_varint_signed(&mut out, self.found_ns);
        out
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        let mut reader = open("damage row", bytes)?;
        let place =
            Place { pack: take_pack(&mut reader)?, offset: take_u32(&mut reader)?, frame_len: take_u32(&mut reader)? };
        let row = DamageRow { place, found_ns: reader.varint_signed()? };
        reader.finish()?;
        Ok(row)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use repo_format::id::PackId;

    #[test]
    fn damage_rows_round_trip() {
        let place = Place { pack: PackId { epoch: 3, sequence: 9 }, offset: 64, frame_len: 4096 };
        let row = DamageRow { place, found_ns: 1_700_000_000_000_000_000 };
        assert_eq!(DamageRow::decode(&row.encode()).unwrap(), row);
        assert!(DamageRow::decode(&row.encode()[1..]).is_err());
    }
}
