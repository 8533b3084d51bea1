//! SFTP version 3 as bytes: frames into requests, replies into frames. No state but the half of a frame that has come.
//! Source: draft-ietf-secsh-filexfer-02, with OpenSSH's PROTOCOL for what it adds.

use crate::fs::Attributes;
use crate::limits::PACKET_BYTES_MAX;
use bytes::{Buf, BufMut, Bytes, BytesMut};

/// The version spoken, whatever the client offers.
pub const VERSION: u32 = 3;

/// What ends an SFTP session: the peer does not speak the protocol, or too much of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// A packet longer than `PACKET_BYTES_MAX`, or an empty one.
    #[error("a packet of {0} bytes")]
    Length(u32),
    /// A packet without the fields that every packet has.
    #[error("a packet that cannot be read")]
    Malformed,
    /// The first packet is not INIT, or a later one is.
    #[error("INIT is missing or comes twice")]
    Order,
    /// More requests wait than memory is given to them.
    #[error("too many requests wait")]
    Flood,
}

/// Codes of SSH_FXP_STATUS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum Status {
    /// Done.
    Ok = 0,
    /// Nothing more.
    Eof = 1,
    /// No such file.
    NoSuchFile = 2,
    /// Permission denied.
    PermissionDenied = 3,
    /// Something else.
    Failure = 4,
    /// The request's fields cannot be read.
    BadMessage = 5,
    /// Not offered.
    Unsupported = 8,
}

impl Status {
    /// What people see.
    pub fn text(self) -> &'static str {
        match self {
            Status::Ok => "Success",
            Status::Eof => "End of file",
            Status::NoSuchFile => "No such file",
            Status::PermissionDenied => "Permission denied",
            Status::Failure => "Failure",
            Status::BadMessage => "Bad message",
            Status::Unsupported => "Operation unsupported",
        }
    }
}

/// A request, by what it does. Paths and names are bytes as sent; fields are those of the draft.
#[allow(missing_docs)]
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request {
    /// OPEN; flags as in the draft.
    Open { path: Bytes, flags: u32, wanted: WantedAttributes },
    /// CLOSE.
    Close { handle: Bytes },
    /// READ.
    Read { handle: Bytes, offset: u64, length: u32 },
    /// WRITE.
    Write { handle: Bytes, offset: u64, data: Bytes },
    /// STAT.
    Stat { path: Bytes },
    /// LSTAT.
    StatLink { path: Bytes },
    /// FSTAT.
    StatHandle { handle: Bytes },
    /// SETSTAT.
    Set { path: Bytes, wanted: WantedAttributes },
    /// FSETSTAT.
    SetHandle { handle: Bytes, wanted: WantedAttributes },
    /// OPENDIR.
    OpenFolder { path: Bytes },
    /// READDIR.
    ReadFolder { handle: Bytes },
    /// REMOVE.
    Remove { path: Bytes },
    /// MKDIR.
    MakeFolder { path: Bytes, wanted: WantedAttributes },
    /// RMDIR.
    RemoveFolder { path: Bytes },
    /// REALPATH.
    RealPath { path: Bytes },
    /// RENAME.
    Rename { from: Bytes, to: Bytes },
    /// READLINK.
    ReadLink { path: Bytes },
    /// SYMLINK in the order that OpenSSH sends: target first.
    Symlink { target: Bytes, link: Bytes },
    /// EXTENDED.
    Extended { name: Bytes, body: Bytes },
    /// A type that version 3 does not know.
    Unknown,
    /// Known, with fields that cannot be read.
    Bad,
}

/// What a client wants attributes to be.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct WantedAttributes {
    /// Bytes.
    pub size: Option<u64>,
    /// Owner and group.
    pub owner: Option<(u32, u32)>,
    /// Mode.
    pub permissions: Option<u32>,
    /// Access and modification, seconds since 1970.
    pub times: Option<(u32, u32)>,
}

/// One packet from a client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Packet {
    /// INIT with the client's version.
    Init(u32),
    /// Everything else.
    Request {
        /// Comes back in the reply.
        id: u32,
        /// What is asked.
        request: Request,
        /// Bytes of the packet, for accounting.
        bytes: usize,
    },
}

const SIZE: u32 = 1;
const OWNER: u32 = 2;
const PERMISSIONS: u32 = 4;
const TIMES: u32 = 8;
const MORE: u32 = 0x8000_0000;

/// Cuts a stream of bytes into packets.
#[derive(Debug, Default)]
pub struct FrameReader {
    waiting: BytesMut,
    begun: bool,
}

impl FrameReader {
    /// Takes bytes in, however they were cut.
    pub fn receive(&mut self, bytes: &[u8]) {
        self.waiting.extend_from_slice(bytes);
    }

    /// The next complete packet. An error ends the session: what follows cannot be read any more.
    pub fn next_packet(&mut self) -> Result<Option<Packet>, WireError> {
        let Some(length) = self.waiting.first_chunk::<4>().map(|length| u32::from_be_bytes(*length)) else {
            return Ok(None);
        };
        if length == 0 || length > PACKET_BYTES_MAX {
            return Err(WireError::Length(length));
        }
        if self.waiting.len() < 4 + length as usize {
            return Ok(None);
        }
        let mut body = self.waiting.split_to(4 + length as usize);
        body.advance(4);
        let packet = packet(body.freeze())?;
        let first = !std::mem::replace(&mut self.begun, true);
        if matches!(packet, Packet::Init(_)) != first {
            return Err(WireError::Order);
        }
        Ok(Some(packet))
    }
}

fn packet(mut body: Bytes) -> Result<Packet, WireError> {
    let bytes = body.len() + 4;
    let kind = body.try_get_u8().map_err(|_| WireError::Malformed)?;
    let id = body.try_get_u32().map_err(|_| WireError::Malformed)?;
    if kind == 1 {
        return Ok(Packet::Init(id));
    }
    Ok(Packet::Request { id, request: request(kind, body).unwrap_or(Request::Bad), bytes })
}

/// `None` when a field is missing. What follows the last field is not looked at, as OpenSSH's server does.
fn request(kind: u8, mut body: Bytes) -> Option<Request> {
    let body = &mut body;
    Some(match kind {
        3 => Request::Open { path: string(body)?, flags: number(body)?, wanted: wanted(body).unwrap_or_default() },
        4 => Request::Close { handle: string(body)? },
        5 => Request::Read { handle: string(body)?, offset: long(body)?, length: number(body)? },
        6 => Request::Write { handle: string(body)?, offset: long(body)?, data: string(body)? },
        7 => Request::StatLink { path: string(body)? },
        8 => Request::StatHandle { handle: string(body)? },
        9 => Request::Set { path: string(body)?, wanted: wanted(body)? },
        10 => Request::SetHandle { handle: string(body)?, wanted: wanted(body)? },
        11 => Request::OpenFolder { path: string(body)? },
        12 => Request::ReadFolder { handle: string(body)? },
        13 => Request::Remove { path: string(body)? },
        14 => Request::MakeFolder { path: string(body)?, wanted: wanted(body).unwrap_or_default() },
        15 => Request::RemoveFolder { path: string(body)? },
        16 => Request::RealPath { path: string(body)? },
        17 => Request::Stat { path: string(body)? },
        18 => Request::Rename { from: string(body)?, to: string(body)? },
        19 => Request::ReadLink { path: string(body)? },
        20 => Request::Symlink { target: string(body)?, link: string(body)? },
        200 => Request::Extended { name: string(body)?, body: std::mem::take(body) },
        _ => Request::Unknown,
    })
}

/// A length and as many bytes.
pub fn string(body: &mut Bytes) -> Option<Bytes> {
    let length = number(body)? as usize;
    (length <= body.len()).then(|| body.split_to(length))
}

/// 32 bits.
pub fn number(body: &mut Bytes) -> Option<u32> {
    body.try_get_u32().ok()
}

/// 64 bits.
pub fn long(body: &mut Bytes) -> Option<u64> {
    body.try_get_u64().ok()
}

fn wanted(body: &mut Bytes) -> Option<WantedAttributes> {
    let flags = number(body)?;
    Some(WantedAttributes {
        size: if flags & SIZE != 0 { Some(long(body)?) } else { None },
        owner: if flags & OWNER != 0 { Some((number(body)?, number(body)?)) } else { None },
        permissions: if flags & PERMISSIONS != 0 { Some(number(body)?) } else { None },
        times: if flags & TIMES != 0 { Some((number(body)?, number(body)?)) } else { None },
    })
    .filter(|_| flags & MORE == 0 || number(body).is_some())
}

/// Writes one reply; the length is filled in by [`ReplyWriter::finish`].
pub struct ReplyWriter(BytesMut);

impl ReplyWriter {
    /// A reply of this type to request `id`, with room for `capacity` bytes of fields.
    pub fn new(kind: u8, id: u32, capacity: usize) -> ReplyWriter {
        let mut bytes = BytesMut::with_capacity(9 + capacity);
        bytes.put_u32(0);
        bytes.put_u8(kind);
        bytes.put_u32(id);
        ReplyWriter(bytes)
    }

    /// 32 bits.
    pub fn number(&mut self, value: u32) -> &mut ReplyWriter {
        self.0.put_u32(value);
        self
    }

    /// 64 bits.
    pub fn long(&mut self, value: u64) -> &mut ReplyWriter {
        self.0.put_u64(value);
        self
    }

    /// A length and as many bytes.
    pub fn string(&mut self, value: &[u8]) -> &mut ReplyWriter {
        self.0.put_u32(value.len() as u32);
        self.0.put_slice(value);
        self
    }

    /// Bytes as they are.
    pub fn raw(&mut self, value: &[u8]) -> &mut ReplyWriter {
        self.0.put_slice(value);
        self
    }

    /// All attributes of version 3.
    pub fn attributes(&mut self, attributes: &Attributes) -> &mut ReplyWriter {
        self.number(SIZE | OWNER | PERMISSIONS | TIMES)
            .long(attributes.size)
            .number(attributes.uid)
            .number(attributes.gid)
            .number(attributes.mode())
            .number(attributes.accessed)
            .number(attributes.modified)
    }

    /// Overwrites 32 bits written before, `at` bytes after the id.
    pub fn patch(&mut self, at: usize, value: u32) {
        if let Some(place) = self.0.get_mut(9 + at..13 + at) {
            place.copy_from_slice(&value.to_be_bytes());
        }
    }

    /// Bytes written, header included.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// The frame, with `more` bytes that follow it outside of this buffer.
    pub fn finish(mut self, more: usize) -> Bytes {
        let length = (self.0.len() - 4 + more) as u32;
        if let Some(place) = self.0.get_mut(..4) {
            place.copy_from_slice(&length.to_be_bytes());
        }
        self.0.freeze()
    }
}

/// VERSION with its extensions.
pub fn version(extensions: &[(&str, &str)]) -> Bytes {
    let mut reply = ReplyWriter::new(2, VERSION, 512);
    for (name, data) in extensions {
        reply.string(name.as_bytes()).string(data.as_bytes());
    }
    reply.finish(0)
}

/// STATUS.
pub fn status(id: u32, status: Status) -> Bytes {
    let mut reply = ReplyWriter::new(101, id, 48);
    reply.number(status as u32).string(status.text().as_bytes()).string(b"");
    reply.finish(0)
}

/// HANDLE.
pub fn handle(id: u32, handle: u32) -> Bytes {
    let mut reply = ReplyWriter::new(102, id, 8);
    reply.string(&handle.to_be_bytes());
    reply.finish(0)
}

/// ATTRS.
pub fn attributes(id: u32, attributes: &Attributes) -> Bytes {
    let mut reply = ReplyWriter::new(105, id, 32);
    reply.attributes(attributes);
    reply.finish(0)
}

/// NAME with one name and no attributes, as REALPATH and READLINK answer.
pub fn name(id: u32, name: &[u8]) -> Bytes {
    let mut reply = ReplyWriter::new(104, id, 16 + 2 * name.len());
    reply.number(1).string(name).string(name).number(0);
    reply.finish(0)
}

/// DATA in one or two pieces: the second is a slice of `data`, so that long answers are not copied. The first piece
/// fills one SSH packet of the usual size.
pub fn data(id: u32, mut data: Bytes) -> (Bytes, Option<Bytes>) {
    const FIRST_PIECE: usize = 32 * 1024;
    let total = data.len();
    let copied = total.min(FIRST_PIECE - 13);
    let mut reply = ReplyWriter::new(103, id, 4 + copied);
    reply.number(total as u32).raw(&data.split_to(copied));
    (reply.finish(total - copied), (!data.is_empty()).then_some(data))
}
