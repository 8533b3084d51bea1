//! Requests that change files, for foreign suites.

use crate::fs::{Answer, FsError};
use crate::path::ExportPath;
use crate::sftp::engine::{Engine, Outcome, Work, status};
use crate::sftp::open::OpenFile;
use crate::sftp::wire::{Request, Status, name as name_reply, number, string};
use crate::testing::{WantedAttributes, WritableFs, open_flags};
use bytes::Bytes;
use std::sync::Arc;

/// Said in VERSION beside what is offered for reading.
pub(super) const OFFERED: &[(&str, &str)] = &[
    ("posix-rename@openssh.com", "1"),
    ("hardlink@openssh.com", "1"),
    ("fsync@openssh.com", "1"),
    ("lsetstat@openssh.com", "1"),
];

/// As OpenSSH's `sftp-server -P` calls it.
pub(super) fn name(request: &Request) -> &str {
    match request {
        Request::Open { .. } => "open",
        Request::Close { .. } => "close",
        Request::Read { .. } => "read",
        Request::Write { .. } => "write",
        Request::Stat { .. } => "stat",
        Request::StatLink { .. } => "lstat",
        Request::StatHandle { .. } => "fstat",
        Request::Set { .. } => "setstat",
        Request::SetHandle { .. } => "fsetstat",
        Request::OpenFolder { .. } => "opendir",
        Request::ReadFolder { .. } => "readdir",
        Request::Remove { .. } => "remove",
        Request::MakeFolder { .. } => "mkdir",
        Request::RemoveFolder { .. } => "rmdir",
        Request::RealPath { .. } => "realpath",
        Request::Rename { .. } => "rename",
        Request::ReadLink { .. } => "readlink",
        Request::Symlink { .. } => "symlink",
        Request::Extended { name, .. } => {
            let name = std::str::from_utf8(name).unwrap_or("");
            name.split_once('@').map_or(name, |(name, _)| name)
        }
        Request::Unknown | Request::Bad => "",
    }
}

impl Engine {
    /// Whether a request changes something that may be changed, and therefore runs alone.
    pub(super) fn changes(&self, request: &Request) -> bool {
        self.fs.writable().is_some()
            && match request {
                Request::Open { flags, .. } => flags & !1 != 0,
                Request::Write { .. }
                | Request::Set { .. }
                | Request::SetHandle { .. }
                | Request::Remove { .. }
                | Request::MakeFolder { .. }
                | Request::RemoveFolder { .. }
                | Request::Rename { .. }
                | Request::ReadLink { .. }
                | Request::Symlink { .. } => true,
                Request::Extended { name, .. } => OFFERED.iter().any(|(offered, _)| offered.as_bytes() == &name[..]),
                _ => false,
            }
    }

    /// Does what `changes` said yes to.
    pub(super) fn change(&mut self, id: u32, request: Request) -> Work {
        let Some(fs) = self.fs.writable() else { return now(id, Status::PermissionDenied) };
        let parse = |path: &[u8]| ExportPath::parse(path).map_err(|_| FsError::NotFound);
        let done = match request {
            Request::Open { path, flags, wanted } => {
                let Ok(path) = parse(&path) else { return now(id, Status::NoSuchFile) };
                return self.open_writable(id, path, flags, wanted, &*fs);
            }
            Request::Write { handle, offset, data } => {
                let Some(file) = self.file(&handle) else { return now(id, Status::Failure) };
                let Some(writable) = &file.writable else { return now(id, Status::PermissionDenied) };
                Ok(writable.write(offset, data))
            }
            Request::SetHandle { handle, wanted } => {
                let Some(file) = self.file(&handle) else { return now(id, Status::Failure) };
                match &file.writable {
                    Some(writable) => Ok(writable.set(wanted)),
                    None => Ok(fs.set(&file.path, wanted, false)),
                }
            }
            Request::Set { path, wanted } => parse(&path).map(|path| fs.set(&path, wanted, false)),
            Request::Remove { path } => parse(&path).map(|path| fs.remove(&path)),
            Request::MakeFolder { path, wanted } => parse(&path).map(|path| fs.make_folder(&path, wanted)),
            Request::RemoveFolder { path } => parse(&path).map(|path| fs.remove_folder(&path)),
            Request::Rename { from, to } => parse(&from).and_then(|from| Ok(fs.rename(&from, &parse(&to)?, false))),
            Request::ReadLink { path } => {
                let Ok(path) = parse(&path) else { return now(id, Status::NoSuchFile) };
                let target = fs.read_link(&path);
                return Box::pin(async move {
                    match target.await {
                        Ok(target) => Outcome::Reply(name_reply(id, &target)),
                        Err(error) => Outcome::Status(id, status(&error)),
                    }
                });
            }
            Request::Symlink { target, link } => parse(&link).map(|link| fs.symlink(&target, &link)),
            Request::Extended { name, body } => match self.change_extended(&name, body, &*fs) {
                Some(done) => done,
                None => return now(id, Status::BadMessage),
            },
            _ => return now(id, Status::Unsupported),
        };
        match done {
            Ok(done) => Box::pin(async move {
                match done.await {
                    Ok(()) => Outcome::Status(id, Status::Ok),
                    Err(error) => Outcome::Status(id, status(&error)),
                }
            }),
            Err(error) => now(id, status(&error)),
        }
    }

    fn change_extended(
        &self,
        name: &[u8],
        mut body: Bytes,
        fs: &dyn WritableFs,
    ) -> Option<Result<Answer<()>, FsError>> {
        let body = &mut body;
        let first = string(body)?;
        let parse = |path: &[u8]| ExportPath::parse(path).map_err(|_| FsError::NotFound);
        Some(match name {
            b"posix-rename@openssh.com" => {
                let to = string(body)?;
                parse(&first).and_then(|from| Ok(fs.rename(&from, &parse(&to)?, true)))
            }
            b"hardlink@openssh.com" => {
                let to = string(body)?;
                parse(&first).and_then(|from| Ok(fs.hard_link(&from, &parse(&to)?)))
            }
            b"lsetstat@openssh.com" => {
                let flags = number(body)?;
                let mut wanted = WantedAttributes::default();
                if flags & 1 != 0 {
                    wanted.size = Some(crate::sftp::wire::long(body)?);
                }
                if flags & 2 != 0 {
                    wanted.owner = Some((number(body)?, number(body)?));
                }
                if flags & 4 != 0 {
                    wanted.permissions = Some(number(body)?);
                }
                if flags & 8 != 0 {
                    wanted.times = Some((number(body)?, number(body)?));
                }
                parse(&first).map(|path| fs.set(&path, wanted, true))
            }
            _ => match self.file(&first).and_then(|file| file.writable.clone()) {
                Some(file) => Ok(file.sync()),
                None => Err(FsError::Failed("fsync of what is not open for writing".into())),
            },
        })
    }

    fn open_writable(
        &mut self,
        id: u32,
        path: ExportPath,
        flags: u32,
        wanted: WantedAttributes,
        fs: &dyn WritableFs,
    ) -> Work {
        if !self.reserve_handle() {
            return now(id, Status::Failure);
        }
        // OpenSSH's server opens for writing when asked to append, too.
        let flags = if flags & open_flags::APPEND != 0 { flags | open_flags::WRITE } else { flags };
        let (opening, reports) = (fs.open(&path, flags, wanted), self.reports.clone());
        Box::pin(async move {
            let open = opening.await.map(|writable| {
                let mut open = OpenFile::new(path, Arc::clone(&writable).reading(), reports);
                open.writable = Some(writable);
                open
            });
            Outcome::File { id, open }
        })
    }
}

fn now(id: u32, status: Status) -> Work {
    Box::pin(std::future::ready(Outcome::Status(id, status)))
}
