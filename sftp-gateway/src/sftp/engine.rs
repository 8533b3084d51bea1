//! The engine: takes requests from an inbox, works on many at once, and gives replies in the order they were asked for.
//!
//! Why in order, and never short: OpenSSH's client refuses to resume a download whose replies came out of order, and
//! asks for less and less after a short one.

use crate::fs::{Attributes, ExportFile, ExportFs, FsError};
use crate::limits::{HANDLES_MAX, OUTPUT_BYTES_MAX, PACKET_BYTES_MAX, READ_BYTES_MAX, REQUESTS_AT_ONCE};
use crate::path::ExportPath;
use crate::sftp::extensions;
use crate::sftp::inbox::{Inbox, Next};
use crate::sftp::open::{FileReports, OpenFile, OpenFolder};
use crate::sftp::wire::{self, Request, Status, WantedAttributes};
use bytes::{Bytes, BytesMut};
use futures_util::stream::{FuturesOrdered, StreamExt};
use std::collections::{HashMap, VecDeque};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// The side that sends replies.
pub trait Sink: Send + Sync {
    /// Sends bytes behind those sent before; waits until there is room for them.
    fn send(&self, bytes: Bytes) -> impl Future<Output = Result<(), SinkClosed>> + Send;

    /// Sends text for people, beside the replies; where there is no such place, nowhere.
    fn send_error(&self, text: Bytes) -> impl Future<Output = Result<(), SinkClosed>> + Send {
        let _ = text;
        std::future::ready(Ok(()))
    }
}

/// Nobody takes replies any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("nobody takes replies any more")]
pub struct SinkClosed;

/// Says whether a request may be made.
#[cfg(feature = "testing")]
pub type Permits = Arc<dyn Fn(&str) -> bool + Send + Sync>;

/// How an engine behaves.
#[derive(Clone, Default)]
pub struct EngineOptions {
    /// Whether a request of this name (as OpenSSH's `sftp-server -P` calls it) is answered; all are when `None`.
    #[cfg(feature = "testing")]
    pub permits: Option<Permits>,
    /// Memory held by replies, for whoever watches over many sessions.
    pub output_bytes: Arc<AtomicUsize>,
}

impl EngineOptions {
    /// Everything is answered, and `output_bytes` is kept.
    pub fn new(output_bytes: Arc<AtomicUsize>) -> EngineOptions {
        EngineOptions {
            #[cfg(feature = "testing")]
            permits: None,
            output_bytes,
        }
    }
}

/// What came of a request.
pub(super) enum Outcome {
    Reply(Bytes),
    Status(u32, Status),
    Data { id: u32, file: Arc<OpenFile>, offset: u64, asked: usize, read: Result<Bytes, FsError> },
    File { id: u32, open: Result<OpenFile, FsError> },
    Folder { id: u32, open: Result<OpenFolder, FsError> },
}

pub(super) type Work = Pin<Box<dyn Future<Output = Outcome> + Send>>;

pub(super) enum Open {
    File(Arc<OpenFile>),
    Folder(OpenFolder),
}

/// One SFTP session.
pub struct Engine {
    pub(super) fs: Arc<dyn ExportFs>,
    pub(super) reports: Arc<dyn FileReports>,
    inbox: Arc<Inbox>,
    #[cfg_attr(not(feature = "testing"), allow(dead_code))]
    options: EngineOptions,
    open: HashMap<u32, Open>,
    /// Opens that are under way count as open.
    opening: usize,
    last_handle: u32,
    at_work: FuturesOrdered<Work>,
    /// Bytes that what is at work may come to.
    at_work_bytes: usize,
    ready: VecDeque<Bytes>,
    ready_bytes: usize,
    /// What was counted in `options.output_bytes`.
    counted_bytes: usize,
    /// A request that changes something: nothing runs beside it.
    #[cfg(feature = "testing")]
    alone: Option<(u32, Request)>,
    ended: bool,
}

impl Engine {
    /// An engine for what arrives in `inbox`.
    pub fn new(
        fs: Arc<dyn ExportFs>,
        inbox: Arc<Inbox>,
        reports: Arc<dyn FileReports>,
        options: EngineOptions,
    ) -> Engine {
        Engine {
            fs,
            reports,
            inbox,
            options,
            open: HashMap::new(),
            opening: 0,
            last_handle: 0,
            at_work: FuturesOrdered::new(),
            at_work_bytes: 0,
            ready: VecDeque::new(),
            ready_bytes: 0,
            counted_bytes: 0,
            #[cfg(feature = "testing")]
            alone: None,
            ended: false,
        }
    }

    /// Answers until the inbox ends and everything in it is answered, or until nobody takes the replies.
    pub async fn run(mut self, sink: &impl Sink) -> Result<(), SinkClosed> {
        loop {
            self.begin_work();
            self.count_output();
            if let Some(bytes) = self.ready.pop_front() {
                self.ready_bytes -= bytes.len();
                // Reads go on while a reply waits for room.
                let sending = sink.send(bytes);
                tokio::pin!(sending);
                loop {
                    let more = !self.at_work.is_empty() && self.ready_bytes < OUTPUT_BYTES_MAX;
                    tokio::select! {
                        biased;
                        sent = &mut sending => {
                            sent?;
                            break;
                        }
                        Some(outcome) = self.at_work.next(), if more => self.finish_work(outcome),
                    }
                }
            } else if !self.at_work.is_empty() {
                let inbox = self.inbox.clone();
                let may_begin = self.may_begin();
                tokio::select! {
                    biased;
                    Some(outcome) = self.at_work.next() => self.finish_work(outcome),
                    () = inbox.changed(), if may_begin => {}
                }
            } else if self.ended {
                return Ok(());
            } else {
                self.inbox.changed().await;
            }
        }
    }

    fn may_begin(&self) -> bool {
        #[cfg(feature = "testing")]
        if self.alone.is_some() {
            return false;
        }
        !self.ended
            && self.at_work.len() < REQUESTS_AT_ONCE
            && self.at_work_bytes + self.ready_bytes + READ_BYTES_MAX as usize <= OUTPUT_BYTES_MAX
    }

    fn begin_work(&mut self) {
        #[cfg(feature = "testing")]
        if self.at_work.is_empty()
            && let Some((id, request)) = self.alone.take()
        {
            let work = self.change(id, request);
            self.at_work.push_back(work);
            return;
        }
        while self.may_begin() {
            match self.inbox.next() {
                Next::Init => self.answer_now(Outcome::Reply(self.version())),
                Next::Request(id, request) => {
                    #[cfg(feature = "testing")]
                    if let Some(permits) = &self.options.permits
                        && !permits(super::writing::name(&request))
                    {
                        self.answer_now(Outcome::Status(id, Status::PermissionDenied));
                        continue;
                    }
                    #[cfg(feature = "testing")]
                    if self.changes(&request) {
                        self.alone = Some((id, request));
                        if self.at_work.is_empty() {
                            self.begin_work();
                        }
                        return;
                    }
                    self.begin(id, request);
                }
                Next::Nothing => return,
                Next::End => self.ended = true,
            }
        }
    }

    fn version(&self) -> Bytes {
        #[cfg(feature = "testing")]
        if self.fs.writable().is_some() {
            return wire::version(&[extensions::OFFERED, super::writing::OFFERED].concat());
        }
        wire::version(extensions::OFFERED)
    }

    /// Puts an answer that is there already behind those that are under way.
    fn answer_now(&mut self, outcome: Outcome) {
        self.at_work.push_back(Box::pin(std::future::ready(outcome)));
    }

    fn begin(&mut self, id: u32, request: Request) {
        match request {
            Request::Read { handle, offset, length } => match self.file(&handle) {
                Some(file) => {
                    let asked = length.min(READ_BYTES_MAX) as usize;
                    self.at_work_bytes += asked;
                    self.at_work.push_back(Box::pin(async move {
                        let read = read_fully(&file.file, offset, asked).await;
                        Outcome::Data { id, file, offset, asked, read }
                    }));
                }
                None => self.answer_now(Outcome::Status(id, Status::Failure)),
            },
            Request::Open { path, flags, wanted } => self.begin_open(id, &path, flags, wanted),
            Request::OpenFolder { path } => self.begin_open_folder(id, &path),
            Request::ReadFolder { handle } => {
                let (owner, now) = (self.fs.owner(), now());
                let outcome = match self.open_entry(&handle) {
                    Some(Open::Folder(folder)) => match folder.next_reply(id, &owner, now) {
                        Some(reply) => Outcome::Reply(reply),
                        None => Outcome::Status(id, Status::Eof),
                    },
                    _ => Outcome::Status(id, Status::Failure),
                };
                self.answer_now(outcome);
            }
            Request::Close { handle } => {
                let closed = key(&handle).and_then(|key| self.open.remove(&key)).is_some();
                self.answer_now(Outcome::Status(id, if closed { Status::Ok } else { Status::Failure }));
            }
            Request::Stat { path } => self.begin_path(id, &path, |fs, path| fs.stat(path), wire::attributes),
            Request::StatLink { path } => self.begin_path(id, &path, |fs, path| fs.stat_link(path), wire::attributes),
            Request::StatHandle { handle } => {
                let outcome = match self.file(&handle) {
                    Some(open) => Outcome::Reply(wire::attributes(id, &open.file.attributes())),
                    None => Outcome::Status(id, Status::Failure),
                };
                self.answer_now(outcome);
            }
            Request::RealPath { path } => {
                let outcome = match ExportPath::parse(&path) {
                    Ok(path) => Outcome::Reply(wire::name(id, path.as_bytes())),
                    Err(_) => Outcome::Status(id, Status::NoSuchFile),
                };
                self.answer_now(outcome);
            }
            Request::Extended { name, body } => self.begin_extended(id, &name, body),
            Request::Write { .. }
            | Request::Set { .. }
            | Request::SetHandle { .. }
            | Request::Remove { .. }
            | Request::MakeFolder { .. }
            | Request::RemoveFolder { .. }
            | Request::Rename { .. }
            | Request::Symlink { .. } => self.answer_now(Outcome::Status(id, Status::PermissionDenied)),
            // Nothing that is served is a link.
            Request::ReadLink { .. } => self.answer_now(Outcome::Status(id, Status::NoSuchFile)),
            Request::Unknown => self.answer_now(Outcome::Status(id, Status::Unsupported)),
            Request::Bad => self.answer_now(Outcome::Status(id, Status::BadMessage)),
        }
    }

    fn begin_open(&mut self, id: u32, path: &[u8], flags: u32, _wanted: WantedAttributes) {
        const READ_ONLY: u32 = 1;
        if flags & !READ_ONLY != 0 {
            return self.answer_now(Outcome::Status(id, Status::PermissionDenied));
        }
        if self.open.len() + self.opening >= HANDLES_MAX {
            return self.answer_now(Outcome::Status(id, Status::Failure));
        }
        let Ok(path) = ExportPath::parse(path) else {
            return self.answer_now(Outcome::Status(id, Status::NoSuchFile));
        };
        self.opening += 1;
        let (opening, reports) = (self.fs.open(&path), self.reports.clone());
        self.at_work.push_back(Box::pin(async move {
            let open = opening.await.map(|file| OpenFile::new(path, file, reports));
            Outcome::File { id, open }
        }));
    }

    fn begin_open_folder(&mut self, id: u32, path: &[u8]) {
        if self.open.len() + self.opening >= HANDLES_MAX {
            return self.answer_now(Outcome::Status(id, Status::Failure));
        }
        let Ok(path) = ExportPath::parse(path) else {
            return self.answer_now(Outcome::Status(id, Status::NoSuchFile));
        };
        self.opening += 1;
        let (attributes, entries) = (self.fs.stat(&path), self.fs.list(&path));
        self.at_work.push_back(Box::pin(async move {
            let open = async { Ok(OpenFolder::new(&attributes.await?, entries.await?)) }.await;
            Outcome::Folder { id, open }
        }));
    }

    fn begin_path<T: Send + 'static>(
        &mut self,
        id: u32,
        path: &[u8],
        ask: impl FnOnce(&dyn ExportFs, &ExportPath) -> crate::fs::Answer<T>,
        reply: impl FnOnce(u32, &T) -> Bytes + Send + 'static,
    ) {
        match ExportPath::parse(path) {
            Ok(path) => {
                let answer = ask(&*self.fs, &path);
                self.at_work.push_back(Box::pin(async move {
                    match answer.await {
                        Ok(answer) => Outcome::Reply(reply(id, &answer)),
                        Err(error) => failure(id, &path, &error),
                    }
                }));
            }
            Err(_) => self.answer_now(Outcome::Status(id, Status::NoSuchFile)),
        }
    }

    fn begin_extended(&mut self, id: u32, name: &[u8], mut body: Bytes) {
        let bad = Outcome::Status(id, Status::BadMessage);
        let read_only = self.read_only();
        match name {
            b"limits@openssh.com" => self.answer_now(Outcome::Reply(extensions::limits(id))),
            b"statvfs@openssh.com" => {
                let Some(path) = wire::string(&mut body) else { return self.answer_now(bad) };
                let Ok(path) = ExportPath::parse(&path) else {
                    return self.answer_now(Outcome::Status(id, Status::NoSuchFile));
                };
                let (there, space) = (self.fs.stat(&path), self.fs.space());
                self.at_work.push_back(Box::pin(async move {
                    match async { there.await.map(drop).and(space.await) }.await {
                        Ok(space) => Outcome::Reply(extensions::space(id, space, read_only)),
                        Err(error) => failure(id, &path, &error),
                    }
                }));
            }
            b"fstatvfs@openssh.com" => {
                let Some(handle) = wire::string(&mut body) else { return self.answer_now(bad) };
                if self.open_entry(&handle).is_none() {
                    return self.answer_now(Outcome::Status(id, Status::Failure));
                }
                let reply = move |id, space: &crate::fs::Space| extensions::space(id, *space, read_only);
                self.begin_path(id, b"/", |fs, _| fs.space(), reply);
            }
            b"expand-path@openssh.com" => {
                let outcome = match extensions::expand_path(id, body) {
                    Some(Ok(reply)) => Outcome::Reply(reply),
                    Some(Err(_)) => Outcome::Status(id, Status::NoSuchFile),
                    None => bad,
                };
                self.answer_now(outcome);
            }
            b"home-directory" => self.answer_now(Outcome::Reply(wire::name(id, b"/"))),
            b"users-groups-by-id@openssh.com" => {
                let reply = extensions::users_groups(id, &*self.fs, body);
                self.answer_now(reply.map_or(bad, Outcome::Reply));
            }
            b"check-file" | b"check-file-handle" | b"check-file-name" => self.begin_check(id, name, body),
            b"posix-rename@openssh.com"
            | b"hardlink@openssh.com"
            | b"fsync@openssh.com"
            | b"lsetstat@openssh.com"
            | b"copy-data" => self.answer_now(Outcome::Status(id, Status::PermissionDenied)),
            _ => self.answer_now(Outcome::Status(id, Status::Unsupported)),
        }
    }

    fn begin_check(&mut self, id: u32, name: &[u8], mut body: Bytes) {
        let Some(target) = wire::string(&mut body) else {
            return self.answer_now(Outcome::Status(id, Status::BadMessage));
        };
        let check = match extensions::check(body) {
            Some(Ok(check)) => check,
            Some(Err(_)) => return self.answer_now(Outcome::Status(id, Status::Unsupported)),
            None => return self.answer_now(Outcome::Status(id, Status::BadMessage)),
        };
        let (path, opening) = if name == b"check-file-name" {
            let Ok(path) = ExportPath::parse(&target) else {
                return self.answer_now(Outcome::Status(id, Status::NoSuchFile));
            };
            (path.clone(), self.fs.open(&path))
        } else {
            let Some(open) = self.file(&target) else {
                return self.answer_now(Outcome::Status(id, Status::Failure));
            };
            let file = open.file.clone();
            (open.path.clone(), Box::pin(std::future::ready(Ok(file))) as crate::fs::Answer<_>)
        };
        let reports = self.reports.clone();
        self.at_work.push_back(Box::pin(async move {
            match async { extensions::check_file(id, opening.await?, check, &*reports).await }.await {
                Ok(reply) => Outcome::Reply(reply),
                Err(error) => failure(id, &path, &error),
            }
        }));
    }

    fn read_only(&self) -> bool {
        #[cfg(feature = "testing")]
        if self.fs.writable().is_some() {
            return false;
        }
        true
    }

    fn finish_work(&mut self, outcome: Outcome) {
        match outcome {
            Outcome::Reply(reply) => self.reply(reply),
            Outcome::Status(id, status) => self.reply(wire::status(id, status)),
            Outcome::Data { id, file, offset, asked, read } => {
                self.at_work_bytes -= asked;
                match read {
                    // An empty DATA for bytes that were asked for would be the end of OpenSSH's client.
                    Ok(bytes) if bytes.is_empty() && asked > 0 => self.reply(wire::status(id, Status::Eof)),
                    Ok(bytes) => {
                        file.answered(offset, bytes.len() as u64);
                        let (first, rest) = wire::data(id, bytes);
                        self.reply(first);
                        if let Some(rest) = rest {
                            self.reply(rest);
                        }
                    }
                    Err(error) => match failure(id, &file.path, &error) {
                        Outcome::Status(id, status) => self.reply(wire::status(id, status)),
                        _ => self.reply(wire::status(id, Status::Failure)),
                    },
                }
            }
            Outcome::File { id, open } => {
                self.opening = self.opening.saturating_sub(1);
                self.opened(id, open.map(|file| Open::File(Arc::new(file))));
            }
            Outcome::Folder { id, open } => {
                self.opening = self.opening.saturating_sub(1);
                self.opened(id, open.map(Open::Folder));
            }
        }
    }

    fn opened(&mut self, id: u32, open: Result<Open, FsError>) {
        match open {
            Ok(open) => {
                // Handles are not used twice, so that a late CLOSE cannot hit another file.
                self.last_handle = self.last_handle.wrapping_add(1);
                self.open.insert(self.last_handle, open);
                self.reply(wire::handle(id, self.last_handle));
            }
            Err(error) => self.reply(wire::status(id, status(&error))),
        }
    }

    fn reply(&mut self, bytes: Bytes) {
        self.ready_bytes += bytes.len();
        self.ready.push_back(bytes);
    }

    /// Tells whoever watches over many sessions how much this one holds.
    fn count_output(&mut self) {
        let held = self.ready_bytes + self.at_work_bytes;
        if held > self.counted_bytes {
            self.options.output_bytes.fetch_add(held - self.counted_bytes, Ordering::Relaxed);
        } else {
            self.options.output_bytes.fetch_sub(self.counted_bytes - held, Ordering::Relaxed);
        }
        self.counted_bytes = held;
    }

    pub(super) fn file(&self, handle: &[u8]) -> Option<Arc<OpenFile>> {
        match self.open.get(&key(handle)?)? {
            Open::File(file) => Some(file.clone()),
            Open::Folder(_) => None,
        }
    }

    fn open_entry(&mut self, handle: &[u8]) -> Option<&mut Open> {
        self.open.get_mut(&key(handle)?)
    }

    #[cfg(feature = "testing")]
    pub(super) fn reserve_handle(&mut self) -> bool {
        let free = self.open.len() + self.opening < HANDLES_MAX;
        self.opening += usize::from(free);
        free
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.options.output_bytes.fetch_sub(self.counted_bytes, Ordering::Relaxed);
    }
}

fn key(handle: &[u8]) -> Option<u32> {
    handle.try_into().ok().map(u32::from_be_bytes)
}

fn now() -> i64 {
    jiff::Timestamp::now().as_second()
}

/// The one table of what clients are told.
pub(super) fn status(error: &FsError) -> Status {
    match error {
        FsError::NotFound => Status::NoSuchFile,
        FsError::Denied => Status::PermissionDenied,
        FsError::Unsupported => Status::Unsupported,
        FsError::Failed(_) => Status::Failure,
    }
}

pub(super) fn failure(id: u32, path: &ExportPath, error: &FsError) -> Outcome {
    if let FsError::Failed(reason) = error {
        tracing::warn!(%path, reason, "a file that is served cannot be read");
    }
    Outcome::Status(id, status(error))
}

/// `wanted` bytes, however short the pieces are that the file gives; fewer only at its end.
async fn read_fully(file: &Arc<dyn ExportFile>, offset: u64, wanted: usize) -> Result<Bytes, FsError> {
    let Attributes { size, .. } = file.attributes();
    let mut first = Bytes::new();
    let mut joined = BytesMut::new();
    loop {
        let have = first.len().max(joined.len());
        let at = offset.saturating_add(have as u64);
        if have >= wanted || (have > 0 && at >= size) {
            break;
        }
        let mut piece = file.read(at, (wanted - have).min(PACKET_BYTES_MAX as usize) as u32).await?;
        if piece.is_empty() {
            break;
        }
        piece.truncate(wanted - have);
        if have == 0 {
            first = piece;
        } else {
            if joined.is_empty() {
                joined.reserve(wanted);
                joined.extend_from_slice(&first);
                first = Bytes::new();
            }
            joined.extend_from_slice(&piece);
        }
    }
    Ok(if joined.is_empty() { first } else { joined.freeze() })
}
