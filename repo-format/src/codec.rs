//! Bounds-checked little-endian reading and writing over byte slices. No `usize` ever reaches the disk.

use crate::FormatError;

/// Reads a structure named `what` front to back; every shortage is [`FormatError::Truncated`].
#[derive(Clone, Debug)]
pub struct Reader<'a> {
    bytes: &'a [u8],
    what: &'static str,
}

impl<'a> Reader<'a> {
    /// Over `bytes`, naming the structure for errors.
    pub const fn new(what: &'static str, bytes: &'a [u8]) -> Self {
        Reader { bytes, what }
    }
    /// The next `len` bytes.
    pub fn take(&mut self, len: usize) -> Result<&'a [u8], FormatError> {
        let (head, rest) = self.bytes.split_at_checked(len).ok_or(FormatError::Truncated { what: self.what })?;
        self.bytes = rest;
        Ok(head)
    }
    /// The next `N` bytes as an array.
    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], FormatError> {
        let (head, rest) = self.bytes.split_first_chunk::<N>().ok_or(FormatError::Truncated { what: self.what })?;
        self.bytes = rest;
        Ok(*head)
    }
    /// One byte.
    pub fn u8(&mut self) -> Result<u8, FormatError> {
        Ok(self.array::<1>()?[0])
    }
    /// Two bytes.
    pub fn u16(&mut self) -> Result<u16, FormatError> {
        Ok(u16::from_le_bytes(self.array()?))
    }
    /// Four bytes.
    pub fn u32(&mut self) -> Result<u32, FormatError> {
        Ok(u32::from_le_bytes(self.array()?))
    }
    /// Eight bytes.
    pub fn u64(&mut self) -> Result<u64, FormatError> {
        Ok(u64::from_le_bytes(self.array()?))
    }
    /// Unsigned LEB128 of at most 64 bits, shortest form only.
    pub fn varint(&mut self) -> Result<u64, FormatError> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.u8()?;
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 {
                return Err(FormatError::invalid(self.what, "number does not fit 64 bits"));
            }
            value |= bits << shift;
            if byte & 0x80 == 0 {
                if byte == 0 && shift != 0 {
                    return Err(FormatError::invalid(self.what, "number not in shortest form"));
                }
                return Ok(value);
            }
        }
        Err(FormatError::invalid(self.what, "number does not fit 64 bits"))
    }
    /// Zig-zag signed varint.
    pub fn varint_signed(&mut self) -> Result<i64, FormatError> {
        let raw = self.varint()?;
        Ok(((raw >> 1) as i64) ^ -((raw & 1) as i64))
    }
    /// A varint that must be at most `limit`; `quantity` names it in the error.
    pub fn varint_max(&mut self, quantity: &'static str, limit: usize) -> Result<usize, FormatError> {
        let value = self.varint()?;
        if value > limit as u64 {
            return Err(FormatError::Limit { what: quantity, value, limit: limit as u64 });
        }
        Ok(value as usize)
    }
    /// Length-prefixed bytes of at most `limit`.
    pub fn bytes_max(&mut self, quantity: &'static str, limit: usize) -> Result<&'a [u8], FormatError> {
        let len = self.varint_max(quantity, limit)?;
        self.take(len)
    }
    /// Bytes not read yet.
    pub const fn remaining(&self) -> usize {
        self.bytes.len()
    }
    /// The rest, consumed.
    pub fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.bytes)
    }
    /// Nothing may be left.
    pub fn finish(self) -> Result<(), FormatError> {
        if self.bytes.is_empty() { Ok(()) } else { Err(FormatError::invalid(self.what, "bytes left over at the end")) }
    }
}

/// Appends unsigned LEB128.
pub fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push((value as u8) | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Appends a zig-zag signed varint.
pub fn put_varint_signed(out: &mut Vec<u8>, value: i64) {
    put_varint(out, ((value << 1) ^ (value >> 63)) as u64);
}

/// Appends length-prefixed bytes.
pub fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn varints_round_trip(value: u64, signed: i64) {
            let mut out = Vec::new();
            put_varint(&mut out, value);
            put_varint_signed(&mut out, signed);
            let mut reader = Reader::new("test", &out);
            prop_assert_eq!(reader.varint().unwrap(), value);
            prop_assert_eq!(reader.varint_signed().unwrap(), signed);
            reader.finish().unwrap();
        }

        #[test]
        fn only_the_shortest_form_is_read(bytes in proptest::collection::vec(any::<u8>(), 0..12)) {
            let mut reader = Reader::new("test", &bytes);
            if let Ok(value) = reader.varint() {
                let mut out = Vec::new();
                put_varint(&mut out, value);
                prop_assert_eq!(&bytes[..bytes.len() - reader.remaining()], &out[..]);
            }
        }
    }
}
