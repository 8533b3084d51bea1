//! Extensions of version 3: OpenSSH's that make sense for reading, and check-file. What they are: OpenSSH's PROTOCOL,
//! section 4, and draft-ietf-secsh-filexfer-extensions-00, section 3.

use crate::fs::{DigestKind, ExportFile, ExportFs, FsError, Space};
use crate::limits::{HANDLES_MAX, PACKET_BYTES_MAX, READ_BYTES_MAX};
use crate::path::ExportPath;
use crate::sftp::digest::digest;
use crate::sftp::open::FileReports;
use crate::sftp::wire::{ReplyWriter, long, name, number, string};
use bytes::Bytes;
use std::sync::Arc;

/// Said in VERSION.
pub(super) const OFFERED: &[(&str, &str)] = &[
    ("statvfs@openssh.com", "2"),
    ("fstatvfs@openssh.com", "2"),
    ("limits@openssh.com", "1"),
    ("expand-path@openssh.com", "1"),
    ("home-directory", "1"),
    ("users-groups-by-id@openssh.com", "1"),
    ("check-file", "1"),
    ("check-file-handle", "1"),
    ("check-file-name", "1"),
];

const EXTENDED_REPLY: u8 = 201;
/// Blocks in one check-file reply: 64 KiB of SHA-256.
const BLOCKS_MAX: u64 = 2048;
/// Shortest block that the draft allows.
const BLOCK_BYTES_MIN: u64 = 256;

/// limits@openssh.com.
pub(super) fn limits(id: u32) -> Bytes {
    let mut reply = ReplyWriter::new(EXTENDED_REPLY, id, 32);
    reply
        .long(u64::from(PACKET_BYTES_MAX))
        .long(u64::from(READ_BYTES_MAX))
        .long(u64::from(READ_BYTES_MAX))
        .long(HANDLES_MAX as u64);
    reply.finish(0)
}

/// statvfs@openssh.com. Blocks are of 4 KiB; the flags say read-only and no set-user-id.
pub(super) fn space(id: u32, space: Space, read_only: bool) -> Bytes {
    const BLOCK: u64 = 4096;
    let mut reply = ReplyWriter::new(EXTENDED_REPLY, id, 88);
    let free = space.free_bytes / BLOCK;
    reply.long(BLOCK).long(BLOCK).long(space.total_bytes.div_ceil(BLOCK)).long(free).long(free);
    reply.long(space.files).long(0).long(0).long(0);
    reply.long(if read_only { 3 } else { 2 }).long(255);
    reply.finish(0)
}

/// expand-path@openssh.com: a path that may begin with `~`. Everybody's home is the root.
pub(super) fn expand_path(id: u32, mut body: Bytes) -> Option<Result<Bytes, FsError>> {
    let sent = string(&mut body)?;
    let rest = match sent.split_first() {
        Some((b'~', rest)) => match rest.iter().position(|byte| *byte == b'/') {
            Some(0) => rest,
            None if rest.is_empty() => rest,
            // Somebody else's home is not here.
            _ => return Some(Err(FsError::NotFound)),
        },
        _ => &sent,
    };
    Some(ExportPath::parse(rest).map(|path| name(id, path.as_bytes())).map_err(|_| FsError::NotFound))
}

/// users-groups-by-id@openssh.com: every number has the account's name.
pub(super) fn users_groups(id: u32, fs: &dyn ExportFs, mut body: Bytes) -> Option<Bytes> {
    let (users, groups) = (string(&mut body)?, string(&mut body)?);
    let owner = fs.owner();
    let names = |ids: &[u8], name: &str| {
        let mut names = Vec::new();
        for _ in 0..(ids.len() / 4).min(1024) {
            names.extend_from_slice(&(name.len() as u32).to_be_bytes());
            names.extend_from_slice(name.as_bytes());
        }
        names
    };
    let mut reply = ReplyWriter::new(EXTENDED_REPLY, id, 256);
    reply.string(&names(&users, &owner.user)).string(&names(&groups, &owner.group));
    (reply.len() < PACKET_BYTES_MAX as usize).then(|| reply.finish(0))
}

/// What a check-file request asks for, behind its file.
#[derive(Debug, Clone, Copy)]
pub(super) struct Check {
    kind: DigestKind,
    start: u64,
    length: u64,
    block: u64,
}

/// The fields behind the handle or name; `None` when they cannot be read, an error when we cannot do it.
pub(super) fn check(mut body: Bytes) -> Option<Result<Check, FsError>> {
    let kinds = string(&mut body)?;
    let (start, length, block) = (long(&mut body)?, long(&mut body)?, number(&mut body)?);
    let Some(kind) = DigestKind::choose(&kinds) else { return Some(Err(FsError::Unsupported)) };
    let length = if length == 0 { u64::MAX } else { length };
    let block = u64::from(block);
    let bad_block = block != 0 && block < BLOCK_BYTES_MIN;
    Some(if bad_block { Err(FsError::Unsupported) } else { Ok(Check { kind, start, length, block }) })
}

/// check-file-handle and check-file-name.
pub(super) async fn check_file(
    id: u32,
    file: Arc<dyn ExportFile>,
    check: Check,
    reports: &dyn FileReports,
) -> Result<Bytes, FsError> {
    let Check { kind, start, length, block } = check;
    let end = file.attributes().size.min(start.saturating_add(length));
    let mut reply = ReplyWriter::new(EXTENDED_REPLY, id, 64);
    reply.string(kind.name().as_bytes());
    if block == 0 {
        reply.raw(&digest(&file, kind, start, length, reports).await?);
    } else {
        if end.saturating_sub(start).div_ceil(block) > BLOCKS_MAX {
            return Err(FsError::Unsupported);
        }
        let mut at = start;
        while at < end {
            reply.raw(&digest(&file, kind, at, block.min(end - at), reports).await?);
            at += block;
        }
    }
    Ok(reply.finish(0))
}
