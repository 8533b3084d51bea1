//! The sending side of the old scp protocol, `scp -f`: what clients before OpenSSH 9 speak, and `scp -O`.

use crate::exec::{Input, complaint};
use crate::fs::{Attributes, ExportFs, FsError, Kind};
use crate::limits::READ_BYTES_MAX;
use crate::path::ExportPath;
use crate::sftp::{FileReports, OpenFile, Sink, SinkClosed};
use bytes::Bytes;
use futures_util::StreamExt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

/// Reads under way at once.
const READS_AT_ONCE: usize = 8;
/// Folders in folders.
const DEPTH_MAX: usize = 64;

pub(super) struct Source<'a, S: Sink> {
    pub(super) fs: Arc<dyn ExportFs>,
    pub(super) input: &'a Input,
    pub(super) reports: Arc<dyn FileReports>,
    pub(super) sink: &'a S,
    pub(super) recursive: bool,
    pub(super) times: bool,
    pub(super) failed: bool,
}

/// The transfer is over before its end.
enum Stop {
    /// The client is gone, or does not want to go on, or a file broke off: what was promised cannot be sent.
    Broken,
    Sink(SinkClosed),
}

impl From<SinkClosed> for Stop {
    fn from(closed: SinkClosed) -> Stop {
        Stop::Sink(closed)
    }
}

/// What the client says to what was sent.
#[derive(PartialEq, Eq)]
enum Told {
    GoOn,
    Skip,
}

impl<S: Sink> Source<'_, S> {
    /// Sends all paths; gives the exit status.
    pub(super) async fn run(mut self, paths: Vec<Vec<u8>>) -> Result<u32, SinkClosed> {
        match self.send_all(paths).await {
            Ok(()) => Ok(u32::from(self.failed)),
            Err(Stop::Broken) => Ok(1),
            Err(Stop::Sink(closed)) => Err(closed),
        }
    }

    async fn send_all(&mut self, paths: Vec<Vec<u8>>) -> Result<(), Stop> {
        self.told().await?;
        for sent in paths {
            let attributes = match ExportPath::parse(&sent) {
                Ok(path) => self.fs.stat(&path).await.map(|attributes| (path, attributes)),
                Err(_) => Err(FsError::NotFound),
            };
            match attributes {
                Ok((path, attributes)) => self.send(path, attributes, 0).await?,
                Err(error) => self.complain(&sent, &error).await?,
            }
        }
        Ok(())
    }

    fn send(
        &mut self,
        path: ExportPath,
        attributes: Attributes,
        depth: usize,
    ) -> Pin<Box<dyn Future<Output = Result<(), Stop>> + Send + '_>> {
        Box::pin(async move {
            match attributes.kind {
                // A line feed in a name would be read as the end of it.
                _ if path.name().contains(&b'\n') => self.complain(path.as_bytes(), &FsError::Unsupported).await,
                Kind::File => self.send_file(path).await,
                Kind::Folder if self.recursive && depth < DEPTH_MAX => self.send_folder(path, &attributes, depth).await,
                _ => {
                    self.failed = true;
                    let text = format!("\x01scp: {path}: not a regular file\n");
                    Ok(self.sink.send(Bytes::from(text)).await?)
                }
            }
        })
    }

    async fn send_file(&mut self, path: ExportPath) -> Result<(), Stop> {
        let open = match self.fs.open(&path).await {
            Ok(file) => OpenFile::new(path.clone(), file, self.reports.clone()),
            Err(error) => return self.complain(path.as_bytes(), &error).await,
        };
        let attributes = open.file.attributes();
        if self.header(b'C', &path, &attributes).await? == Told::Skip {
            return Ok(());
        }
        let (size, step) = (attributes.size, u64::from(READ_BYTES_MAX));
        let pieces = (0..size.div_ceil(step)).map(|piece| {
            let offset = piece * step;
            let length = step.min(size - offset) as u32;
            let file = open.file.clone();
            async move {
                let mut pieces = Vec::new();
                let mut at = 0;
                while at < length {
                    let piece = file.read(offset + u64::from(at), length - at).await?;
                    if piece.is_empty() {
                        return Err(FsError::Failed("a file ends before its size".into()));
                    }
                    at += piece.len() as u32;
                    pieces.push(piece);
                }
                Ok((offset, length, pieces))
            }
        });
        let mut pieces = futures_util::stream::iter(pieces).buffered(READS_AT_ONCE);
        while let Some(read) = pieces.next().await {
            let (offset, length, read) = read.map_err(|error| {
                tracing::warn!(%path, %error, "a file that is served cannot be read");
                Stop::Broken
            })?;
            for piece in read {
                self.sink.send(piece).await?;
            }
            open.answered(offset, u64::from(length));
        }
        self.sink.send(Bytes::from_static(&[0])).await?;
        self.told().await.map(drop)
    }

    async fn send_folder(&mut self, path: ExportPath, attributes: &Attributes, depth: usize) -> Result<(), Stop> {
        let entries = match self.fs.list(&path).await {
            Ok(entries) => entries,
            Err(error) => return self.complain(path.as_bytes(), &error).await,
        };
        if self.header(b'D', &path, attributes).await? == Told::Skip {
            return Ok(());
        }
        for entry in entries {
            self.send(path.join(&entry.name), entry.attributes, depth + 1).await?;
        }
        self.sink.send(Bytes::from_static(b"E\n")).await?;
        self.told().await.map(drop)
    }

    async fn header(&mut self, letter: u8, path: &ExportPath, attributes: &Attributes) -> Result<Told, Stop> {
        if self.times {
            let times = format!("T{} 0 {} 0\n", attributes.modified, attributes.accessed);
            self.sink.send(Bytes::from(times)).await?;
            if self.told().await? == Told::Skip {
                return Ok(Told::Skip);
            }
        }
        let size = if letter == b'D' { 0 } else { attributes.size };
        let mut line = format!("{}{:04o} {size} ", char::from(letter), attributes.permissions & 0o7777).into_bytes();
        // The root has no name; clients take what they asked for.
        line.extend_from_slice(if path.is_root() { b"." } else { path.name() });
        line.push(b'\n');
        self.sink.send(Bytes::from(line)).await?;
        self.told().await
    }

    /// Waits for the client's word: 0 goes on, 1 with a line leaves this one out, everything else ends.
    async fn told(&mut self) -> Result<Told, Stop> {
        match self.input.byte().await {
            Some(0) => Ok(Told::GoOn),
            Some(1) => {
                self.failed = true;
                while self.input.byte().await.ok_or(Stop::Broken)? != b'\n' {}
                Ok(Told::Skip)
            }
            _ => Err(Stop::Broken),
        }
    }

    async fn complain(&mut self, name: &[u8], error: &FsError) -> Result<(), Stop> {
        self.failed = true;
        let mut line = vec![1];
        line.extend_from_slice(&complaint("scp", name, error));
        Ok(self.sink.send(Bytes::from(line)).await?)
    }
}
