//! What a session has open, and what is told of it when it is closed.

use crate::fs::{Attributes, Entry, ExportFile};
use crate::limits::{LISTING_BYTES_MAX, LISTING_ENTRIES_MAX, NAME_BYTES_MAX};
use crate::path::ExportPath;
use crate::sftp::covered::Covered;
use crate::sftp::longname::longname;
use crate::sftp::wire::ReplyWriter;
use bytes::Bytes;
use parking_lot::Mutex;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Told of files as they are opened and closed.
pub trait FileReports: Send + Sync + 'static {
    /// A file was opened.
    fn opened(&self, path: &ExportPath, size: u64);
    /// A file is being read for a digest, and nothing is sent meanwhile.
    fn working(&self) {}
    /// It is closed, by the client or because the session ended.
    fn closed(&self, closed: &FileClosed);
}

/// What was read of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileClosed {
    /// Which file.
    pub path: ExportPath,
    /// Its size in bytes when it was opened.
    pub size: u64,
    /// Bytes answered, counting each as often as it was asked for.
    pub bytes_read: u64,
    /// Different bytes answered.
    pub bytes_covered: u64,
    /// Whether every byte was answered at least once.
    pub complete: bool,
    /// How long it was open.
    pub open_for: Duration,
}

/// An open file. Its `Drop` is what reports it as closed, so that every way out does.
pub(crate) struct OpenFile {
    pub(crate) path: ExportPath,
    pub(crate) file: Arc<dyn ExportFile>,
    #[cfg(feature = "testing")]
    pub(crate) writable: Option<Arc<dyn crate::testing::WritableFile>>,
    size: u64,
    since: Instant,
    read: Mutex<(u64, Covered)>,
    reports: Arc<dyn FileReports>,
}

impl OpenFile {
    pub(crate) fn new(path: ExportPath, file: Arc<dyn ExportFile>, reports: Arc<dyn FileReports>) -> OpenFile {
        let size = file.attributes().size;
        reports.opened(&path, size);
        OpenFile {
            path,
            file,
            #[cfg(feature = "testing")]
            writable: None,
            size,
            since: Instant::now(),
            read: Mutex::default(),
            reports,
        }
    }

    /// Bytes that were handed to the client.
    pub(crate) fn answered(&self, offset: u64, length: u64) {
        let mut read = self.read.lock();
        read.0 = read.0.saturating_add(length);
        read.1.add(offset, length);
    }
}

impl Drop for OpenFile {
    fn drop(&mut self) {
        let read = self.read.get_mut();
        let closed = FileClosed {
            path: self.path.clone(),
            size: self.size,
            bytes_read: read.0,
            bytes_covered: read.1.bytes(),
            complete: read.1.all_of(self.size),
            open_for: self.since.elapsed(),
        };
        self.reports.closed(&closed);
    }
}

/// An open folder: its entries as of when it was opened.
pub(crate) struct OpenFolder {
    entries: std::vec::IntoIter<Entry>,
    waiting: Option<Entry>,
}

impl OpenFolder {
    /// `.` and `..` with the folder's own attributes, then the entries by name.
    pub(crate) fn new(attributes: &Attributes, mut entries: Vec<Entry>) -> OpenFolder {
        entries.retain(|entry| {
            !entry.name.is_empty() && entry.name.len() <= NAME_BYTES_MAX && !entry.name.contains(&b'/')
        });
        entries.sort_by(|a, b| a.name.cmp(&b.name));
        let dots = [&b"."[..], b".."].map(|name| Entry { name: name.to_vec(), attributes: attributes.clone() });
        entries.splice(0..0, dots);
        OpenFolder { entries: entries.into_iter(), waiting: None }
    }

    /// The next NAME reply, or `None` at the end.
    pub(crate) fn next_reply(&mut self, id: u32, owner: &crate::fs::Owner, now: i64) -> Option<Bytes> {
        let mut reply = ReplyWriter::new(104, id, 16 * 1024);
        reply.number(0);
        let mut count = 0;
        while count < LISTING_ENTRIES_MAX
            && let Some(entry) = self.waiting.take().or_else(|| self.entries.next())
        {
            let line = longname(&entry.name, &entry.attributes, owner, now);
            if reply.len() + entry.name.len() + line.len() + 64 > LISTING_BYTES_MAX {
                self.waiting = Some(entry);
                break;
            }
            reply.string(&entry.name).string(&line).attributes(&entry.attributes);
            count += 1;
        }
        reply.patch(0, count as u32);
        (count > 0).then(|| reply.finish(0))
    }
}
