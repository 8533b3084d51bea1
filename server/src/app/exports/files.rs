//! The files of an export as the SFTP gateway serves them: read from deduplicated chunks, with no copy on disk.

use bytes::{Bytes, BytesMut};
use control::{ExportContent, ExportFile};
use repo_format::entry::{Content, Element, EntryKind, PathKey};
use repo_format::filelist::ContentCursor;
use repo_format::id::{ChunkId, SnapshotId, VaultId};
use repo_format::pathmap::Cursor;
use sftp_gateway::{Answer, Attributes, DigestKind, Entry, ExportFs, ExportPath, FsError, Owner, Space};
use std::sync::{Arc, OnceLock};
use store::{Store, StoreError};

/// Ranges of a file that hold data; where none is, there are zeros.
struct Piece {
    start: u64,
    len: u32,
    /// Which chunk, and from where in it.
    chunk: Option<(ChunkId, u32)>,
}

/// An open file. Its snapshot is held as long as the export is there.
pub(crate) struct FileOfExport {
    store: Arc<Store>,
    vault: VaultId,
    size: u64,
    content: Content,
    /// In order, read with the first read.
    pieces: OnceLock<Vec<Piece>>,
}

impl FileOfExport {
    /// The regular file at `path` of a snapshot. Blocks.
    pub(crate) fn open(
        store: &Arc<Store>,
        vault: VaultId,
        snapshot: &SnapshotId,
        path: &[u8],
    ) -> Result<Option<FileOfExport>, StoreError> {
        let root = store.readable_snapshot(&vault, snapshot)?.root;
        let reader = store.reader(&vault)?;
        let Ok(key) = PathKey::from_path(path) else { return Ok(None) };
        let entry = Cursor::new(&reader, root).lookup(&key)?;
        let Some(EntryKind::File { size, content, .. }) = entry.map(|entry| entry.kind) else { return Ok(None) };
        Ok(Some(FileOfExport { store: store.clone(), vault, size, content, pieces: OnceLock::new() }))
    }

    /// Bytes.
    pub(crate) fn size(&self) -> u64 {
        self.size
    }

    fn pieces(&self) -> Result<&[Piece], StoreError> {
        if let Some(pieces) = self.pieces.get() {
            return Ok(pieces);
        }
        let reader = self.store.reader(&self.vault)?;
        let mut cursor = ContentCursor::new(&reader, &self.content);
        let mut pieces = Vec::new();
        while let Some((start, element)) = cursor.next_from(0)? {
            match element {
                Element::Data { chunk, offset, len } => pieces.push(Piece { start, len, chunk: Some((chunk, offset)) }),
                Element::Hole { len } => {
                    let (mut start, mut left) = (start, len);
                    while left > 0 {
                        let len = left.min(u64::from(u32::MAX)) as u32;
                        pieces.push(Piece { start, len, chunk: None });
                        start += u64::from(len);
                        left -= u64::from(len);
                    }
                }
            }
        }
        Ok(self.pieces.get_or_init(|| pieces))
    }

    /// `length` bytes from `offset`, fewer only at the end. Blocks.
    pub(crate) fn read(&self, offset: u64, length: u32) -> Result<Bytes, StoreError> {
        let end = offset.saturating_add(u64::from(length)).min(self.size);
        if offset >= end {
            return Ok(Bytes::new());
        }
        let pieces = self.pieces()?;
        let reader = self.store.reader(&self.vault)?;
        let first = pieces.partition_point(|piece| piece.start + u64::from(piece.len) <= offset);
        let mut bytes = BytesMut::with_capacity((end - offset) as usize);
        let mut at = offset;
        for piece in &pieces[first..] {
            if at >= end {
                break;
            }
            let skipped = (at - piece.start) as usize;
            let len = (piece.start + u64::from(piece.len)).min(end) - at;
            match &piece.chunk {
                None => bytes.resize(bytes.len() + len as usize, 0),
                Some((chunk, from)) => {
                    let plain = reader.chunk(chunk)?;
                    let from = *from as usize + skipped;
                    let part = plain.get(from..from + len as usize);
                    let beyond = || repo_format::FormatError::invalid("content list", "reaches behind a chunk");
                    bytes.extend_from_slice(part.ok_or_else(beyond)?);
                }
            }
            at += len;
        }
        if at < end {
            return Err(repo_format::FormatError::invalid("content list", "ends before the file does").into());
        }
        Ok(bytes.freeze())
    }
}

/// One directory with the files of an export.
pub(crate) struct ExportDirectory {
    store: Arc<Store>,
    content: ExportContent,
    snapshot: SnapshotId,
    owner: String,
}

impl ExportDirectory {
    /// `None` when the content names no snapshot.
    pub(crate) fn new(store: Arc<Store>, content: ExportContent, owner: String) -> Option<Arc<ExportDirectory>> {
        let snapshot = content.snapshot.parse().ok()?;
        Some(Arc::new(ExportDirectory { store, content, snapshot, owner }))
    }

    fn seconds(&self) -> u32 {
        u32::try_from(self.content.dumped_ns / 1_000_000_000).unwrap_or(0)
    }

    fn find(&self, path: &ExportPath) -> Option<&ExportFile> {
        let name = path.as_bytes().strip_prefix(b"/")?;
        self.content.files.iter().find(|file| file.name.as_bytes() == name)
    }
}

fn now<T: Send + 'static>(answer: Result<T, FsError>) -> Answer<T> {
    Box::pin(std::future::ready(answer))
}

impl ExportFs for ExportDirectory {
    fn stat(&self, path: &ExportPath) -> Answer<Attributes> {
        now(match (path.is_root(), self.find(path)) {
            (true, _) => Ok(Attributes::folder(self.seconds())),
            (false, Some(file)) => Ok(Attributes::file(file.size_bytes, self.seconds())),
            (false, None) => Err(FsError::NotFound),
        })
    }

    fn list(&self, path: &ExportPath) -> Answer<Vec<Entry>> {
        if !path.is_root() {
            return now(Err(FsError::NotFound));
        }
        let entry = |file: &ExportFile| Entry {
            name: file.name.clone().into_bytes(),
            attributes: Attributes::file(file.size_bytes, self.seconds()),
        };
        now(Ok(self.content.files.iter().map(entry).collect()))
    }

    fn open(&self, path: &ExportPath) -> Answer<Arc<dyn sftp_gateway::ExportFile>> {
        let Some(found) = self.find(path).cloned() else { return now(Err(FsError::NotFound)) };
        let (store, vault, snapshot) = (self.store.clone(), self.content.vault, self.snapshot);
        let seconds = self.seconds();
        Box::pin(async move {
            let opened = tokio::task::spawn_blocking(move || {
                FileOfExport::open(&store, vault, &snapshot, found.path.as_bytes()).map(|file| (file, found))
            });
            let opened = opened.await.map_err(|error| FsError::Failed(error.to_string()))?;
            let (file, found) = opened.map_err(|error| FsError::Failed(error.to_string()))?;
            let file = Arc::new(file.ok_or(FsError::NotFound)?);
            if file.size() != found.size_bytes {
                return Err(FsError::Failed("the file is not as long as it was published".into()));
            }
            let opened: Arc<dyn sftp_gateway::ExportFile> =
                Arc::new(OpenFile { file, found, attributes: Attributes::file(0, seconds) });
            Ok(opened)
        })
    }

    fn space(&self) -> Answer<Space> {
        let total_bytes = self.content.size_bytes();
        now(Ok(Space { total_bytes, free_bytes: 0, files: self.content.files.len() as u64 }))
    }

    fn owner(&self) -> Owner {
        Owner { user: self.owner.clone(), group: "export".into() }
    }
}

struct OpenFile {
    file: Arc<FileOfExport>,
    found: ExportFile,
    attributes: Attributes,
}

impl sftp_gateway::ExportFile for OpenFile {
    fn attributes(&self) -> Attributes {
        Attributes { size: self.found.size_bytes, ..self.attributes.clone() }
    }

    fn read(&self, offset: u64, length: u32) -> Answer<Bytes> {
        let file = self.file.clone();
        Box::pin(async move {
            let read = tokio::task::spawn_blocking(move || file.read(offset, length)).await;
            read.map_err(|error| FsError::Failed(error.to_string()))?
                .map_err(|error| FsError::Failed(error.to_string()))
        })
    }

    fn digest(&self, kind: DigestKind) -> Option<Vec<u8>> {
        let text = match kind {
            DigestKind::Md5 => &self.found.md5,
            DigestKind::Sha1 => &self.found.sha1,
            DigestKind::Sha256 => &self.found.sha256,
        };
        data_encoding::HEXLOWER.decode(text.as_bytes()).ok()
    }
}
