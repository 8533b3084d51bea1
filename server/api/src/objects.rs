//! The framed binary body in which chunks and nodes travel, both ways.
//!
//! ```text
//! body   = record* end
//! record = length u32 (of what follows, 40..) | kind u8 | codec u8 | reserved u16 = 0 | plain_len u32 | id 32 | payload
//! end    = 0xFFFF_FFFF u32 | count u32 (records before it)
//! ```
//! Little-endian. `payload` is the object compressed by `codec`, `plain_len` its length uncompressed. A body without
//! its end is truncated, whatever the connection says. A record asked for that cannot be delivered has length 40,
//! codec [`CODEC_ABSENT`] or [`CODEC_DAMAGED`], and no payload.
//!
//! `POST /vaults/{vault}/objects`, body: ids (32 bytes each, at most [`GET_IDS_MAX`]), answers such a body; the records
//! come in the order that is cheapest for the server, one for each distinct id.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use repo_format::id::{ObjectId, ObjectKind};
use repo_format::limits::CHUNK_BYTES_MAX;

/// Most ids in one request for objects.
pub const GET_IDS_MAX: usize = 4096;
/// Codec byte of an object that is not in the vault.
pub const CODEC_ABSENT: u8 = 0xFE;
/// Codec byte of an object that is stored but damaged.
pub const CODEC_DAMAGED: u8 = 0xFF;
/// Bytes of a record before its payload, without the length itself.
pub const RECORD_HEAD_BYTES: usize = 44 - 4;
const END: u32 = u32::MAX;

const _: () = assert!(RECORD_HEAD_BYTES == 1 + 1 + 2 + 4 + 32);

/// One object on the wire.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// What it is.
    pub kind: ObjectKind,
    /// `repo_format::compress::Codec` byte, or one of the two above.
    pub codec: u8,
    /// Length uncompressed, bytes.
    pub plain_len: u32,
    /// Its id.
    pub id: ObjectId,
    /// Compressed bytes.
    pub payload: Bytes,
}

/// Why a body cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BodyError {
    /// A record is longer than any object can be.
    #[error("a record of {0} bytes is above the limit")]
    TooLarge(u64),
    /// A record is too short, has a reserved bit set or an unknown kind.
    #[error("malformed record")]
    Malformed,
    /// The end record counts another number of records, or bytes follow it.
    #[error("the body's end does not match its records")]
    WrongEnd,
    /// The body stops before its end record.
    #[error("the body is cut short")]
    Truncated,
}

/// Appends the head of a record whose payload of `payload_len` bytes follows.
pub fn put_head(out: &mut BytesMut, kind: ObjectKind, codec: u8, plain_len: u32, id: &ObjectId, payload_len: usize) {
    out.put_u32_le((RECORD_HEAD_BYTES + payload_len) as u32);
    out.put_u8(kind.byte());
    out.put_u8(codec);
    out.put_u16_le(0);
    out.put_u32_le(plain_len);
    out.put_slice(id.as_bytes());
}

/// Appends the end record.
pub fn put_end(out: &mut BytesMut, count: u32) {
    out.put_u32_le(END);
    out.put_u32_le(count);
}

/// Cuts records out of a body that arrives in pieces.
#[derive(Debug, Default)]
pub struct BodyDecoder {
    buffer: BytesMut,
    count: u32,
    ended: bool,
}

impl BodyDecoder {
    /// More bytes of the body.
    pub fn push(&mut self, piece: &[u8]) {
        self.buffer.extend_from_slice(piece);
    }

    /// The next whole record, or `None` until more bytes come. After the end record always `None`.
    pub fn next_record(&mut self) -> Result<Option<Record>, BodyError> {
        if self.ended {
            return if self.buffer.is_empty() { Ok(None) } else { Err(BodyError::WrongEnd) };
        }
        let Some((length, _)) = self.buffer.split_first_chunk::<4>() else { return Ok(None) };
        let length = u32::from_le_bytes(*length);
        if length == END {
            if self.buffer.len() < 8 {
                return Ok(None);
            }
            self.buffer.advance(4);
            if self.buffer.get_u32_le() != self.count || !self.buffer.is_empty() {
                return Err(BodyError::WrongEnd);
            }
            self.ended = true;
            return Ok(None);
        }
        let length = length as usize;
        if length < RECORD_HEAD_BYTES {
            return Err(BodyError::Malformed);
        }
        if length > RECORD_HEAD_BYTES + CHUNK_BYTES_MAX {
            return Err(BodyError::TooLarge(length as u64));
        }
        if self.buffer.len() < 4 + length {
            self.buffer.reserve(4 + length - self.buffer.len());
            return Ok(None);
        }
        self.buffer.advance(4);
        let mut record = self.buffer.split_to(length).freeze();
        let kind = ObjectKind::from_byte(record.get_u8()).map_err(|_| BodyError::Malformed)?;
        let codec = record.get_u8();
        if record.get_u16_le() != 0 {
            return Err(BodyError::Malformed);
        }
        let plain_len = record.get_u32_le();
        let id = ObjectId::from_slice(&record.split_to(32)).map_err(|_| BodyError::Malformed)?;
        self.count += 1;
        Ok(Some(Record { kind, codec, plain_len, id, payload: record }))
    }

    /// Call when the body has ended: it must have ended with its end record.
    pub fn finish(&self) -> Result<(), BodyError> {
        if self.ended && self.buffer.is_empty() { Ok(()) } else { Err(BodyError::Truncated) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn body(payloads: &[Vec<u8>]) -> BytesMut {
        let mut out = BytesMut::new();
        for payload in payloads {
            let id = ObjectId::from_bytes([7; 32]);
            put_head(&mut out, ObjectKind::Chunk, 0, payload.len() as u32, &id, payload.len());
            out.extend_from_slice(payload);
        }
        put_end(&mut out, payloads.len() as u32);
        out
    }

    proptest! {
        #[test]
        fn bodies_round_trip_in_any_pieces(
            payloads in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..300), 0..8),
            piece in 1usize..64,
        ) {
            let body = body(&payloads);
            let mut decoder = BodyDecoder::default();
            let mut got = Vec::new();
            for part in body.chunks(piece) {
                decoder.push(part);
                while let Some(record) = decoder.next_record().unwrap() {
                    got.push(record.payload.to_vec());
                }
            }
            decoder.finish().unwrap();
            prop_assert_eq!(got, payloads);
        }

        #[test]
        fn a_shortened_body_never_finishes(cut in 1usize..60) {
            let body = body(&[vec![1; 20]]);
            let mut decoder = BodyDecoder::default();
            decoder.push(&body[..body.len() - cut]);
            while let Ok(Some(_)) = decoder.next_record() {}
            prop_assert!(decoder.finish().is_err());
        }

        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let mut decoder = BodyDecoder::default();
            decoder.push(&bytes);
            while let Ok(Some(_)) = decoder.next_record() {}
        }
    }
}
