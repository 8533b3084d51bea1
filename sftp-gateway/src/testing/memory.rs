//! Files in memory, with faults on demand.

use crate::fs::{Answer, Attributes, DigestKind, Entry, ExportFile, ExportFs, FsError, Owner, Space};
use crate::path::ExportPath;
use bytes::Bytes;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::Arc;
use tokio::sync::Semaphore;

/// One file's content and what reading it does.
#[derive(Clone)]
pub struct MemoryFile {
    /// What it holds.
    pub content: Bytes,
    /// Seconds since 1970.
    pub modified: u32,
    /// Reads come in pieces of at most this many bytes, as those of chunks do.
    pub piece_bytes: usize,
    /// A digest that is known, whether it is true or not.
    pub known_sha256: Option<Vec<u8>>,
    /// Each read waits for a permit of this, and uses it up.
    pub gate: Option<Arc<Semaphore>>,
    /// Reads from this offset on panic.
    pub panics_from: Option<u64>,
}

impl MemoryFile {
    /// A file without faults.
    pub fn new(content: impl Into<Bytes>, modified: u32) -> MemoryFile {
        let content = content.into();
        MemoryFile { content, modified, piece_bytes: usize::MAX, known_sha256: None, gate: None, panics_from: None }
    }

    fn attributes(&self) -> Attributes {
        Attributes::file(self.content.len() as u64, self.modified)
    }
}

/// Files by path; folders are what their paths say.
#[derive(Default)]
pub struct MemoryFs {
    files: Mutex<BTreeMap<Vec<u8>, MemoryFile>>,
}

impl MemoryFs {
    /// Nothing.
    pub fn new() -> MemoryFs {
        MemoryFs::default()
    }

    /// Puts a file at an absolute path, in place of what was there. Handles keep what they opened.
    pub fn put(&self, path: impl AsRef<[u8]>, file: MemoryFile) {
        self.files.lock().insert(path.as_ref().to_vec(), file);
    }

    fn is_folder(&self, path: &ExportPath) -> bool {
        let prefix = prefix(path);
        path.is_root()
            || self.files.lock().range(prefix.clone()..).next().is_some_and(|(name, _)| name.starts_with(&prefix))
    }
}

fn prefix(path: &ExportPath) -> Vec<u8> {
    let mut prefix = path.as_bytes().to_vec();
    if !path.is_root() {
        prefix.push(b'/');
    }
    prefix
}

fn answer<T: Send + 'static>(result: Result<T, FsError>) -> Answer<T> {
    Box::pin(std::future::ready(result))
}

impl ExportFs for MemoryFs {
    fn stat(&self, path: &ExportPath) -> Answer<Attributes> {
        let file = self.files.lock().get(path.as_bytes()).map(MemoryFile::attributes);
        answer(match file {
            Some(attributes) => Ok(attributes),
            None if self.is_folder(path) => Ok(Attributes::folder(1_700_000_000)),
            None => Err(FsError::NotFound),
        })
    }

    fn list(&self, path: &ExportPath) -> Answer<Vec<Entry>> {
        if !self.is_folder(path) {
            return answer(Err(FsError::NotFound));
        }
        let prefix = prefix(path);
        let mut entries: BTreeMap<Vec<u8>, Attributes> = BTreeMap::new();
        for (name, file) in self.files.lock().range(prefix.clone()..).take_while(|(name, _)| name.starts_with(&prefix))
        {
            let rest = &name[prefix.len()..];
            match rest.iter().position(|byte| *byte == b'/') {
                Some(end) => entries.insert(rest[..end].to_vec(), Attributes::folder(1_700_000_000)),
                None => entries.insert(rest.to_vec(), file.attributes()),
            };
        }
        answer(Ok(entries.into_iter().map(|(name, attributes)| Entry { name, attributes }).collect()))
    }

    fn open(&self, path: &ExportPath) -> Answer<Arc<dyn ExportFile>> {
        let file = self.files.lock().get(path.as_bytes()).cloned();
        answer(match file {
            Some(file) => Ok(Arc::new(file) as Arc<dyn ExportFile>),
            None if self.is_folder(path) => Err(FsError::Denied),
            None => Err(FsError::NotFound),
        })
    }

    fn space(&self) -> Answer<Space> {
        let files = self.files.lock();
        let total_bytes = files.values().map(|file| file.content.len() as u64).sum();
        answer(Ok(Space { total_bytes, free_bytes: 0, files: files.len() as u64 }))
    }

    fn owner(&self) -> Owner {
        Owner { user: "tenant".into(), group: "export".into() }
    }
}

impl ExportFile for MemoryFile {
    fn attributes(&self) -> Attributes {
        MemoryFile::attributes(self)
    }

    #[allow(clippy::panic)] // what it is for
    fn read(&self, offset: u64, length: u32) -> Answer<Bytes> {
        let size = self.content.len() as u64;
        let start = offset.min(size);
        let end = offset.saturating_add(u64::from(length)).min(size);
        if self.panics_from.is_some_and(|from| end > from) {
            return Box::pin(async { panic!("a read that panics on purpose") });
        }
        let end = end.min(start.saturating_add(self.piece_bytes as u64));
        let piece = self.content.slice(start as usize..end as usize);
        let gate = self.gate.clone();
        Box::pin(async move {
            if let Some(gate) = gate
                && let Ok(permit) = gate.acquire().await
            {
                permit.forget();
            }
            Ok(piece)
        })
    }

    fn digest(&self, kind: DigestKind) -> Option<Vec<u8>> {
        self.known_sha256.clone().filter(|_| kind == DigestKind::Sha256)
    }
}
