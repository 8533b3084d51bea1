//! Snapshots, their folders, and their files.

use crate::app::engine::on_store;
use crate::app::restore::{Pieces, file_bytes};
use crate::app::{App, AppError, Grant};
use crate::limits::ENTRIES_MAX;
use bytes::Bytes;
use repo_format::entry::{Content, Entry, EntryKind, PathKey};
use repo_format::id::{ContentHash, NodeId, SnapshotId};
use repo_format::pathmap::Cursor;
use store::{SnapshotInfo, Store, StoreError, VaultReader};

/// Something in a folder.
#[derive(Debug)]
pub struct InFolder {
    /// Any bytes but zero and slash.
    pub name: Vec<u8>,
    /// `None` for a folder that has no entry of its own, only something below it.
    pub entry: Option<Entry>,
}

/// One page of a folder.
#[derive(Debug)]
pub struct Page {
    /// In name order.
    pub entries: Vec<InFolder>,
    /// Ask again with this name as `after` for the next page.
    pub next: Option<Vec<u8>>,
}

/// A regular file of a snapshot, ready to be read.
pub struct FileInSnapshot {
    /// Bytes.
    pub size: u64,
    /// Hash of the content under the vault's key; equal content, equal hash.
    pub hash: ContentHash,
    content: Content,
    reader: VaultReader,
}

impl FileInSnapshot {
    /// The bytes `start..end`, which must lie within `size`.
    pub fn read(self, start: u64, end: u64) -> Pieces<Bytes> {
        file_bytes(self.reader, self.content, start, end)
    }
}

fn path_key(path: &[u8]) -> Result<PathKey, AppError> {
    PathKey::from_path(path).map_err(|error| AppError::Invalid(error.to_string()))
}

impl App {
    /// All snapshots, oldest first.
    pub async fn snapshots(&self, grant: Grant) -> Result<Vec<SnapshotInfo>, AppError> {
        let vault = grant.vault();
        on_store(&self.store, move |store| store.snapshots(&vault)).await
    }

    /// One snapshot.
    pub async fn snapshot(&self, grant: Grant, id: SnapshotId) -> Result<SnapshotInfo, AppError> {
        let vault = grant.vault();
        on_store(&self.store, move |store| store.snapshot(&vault, &id)).await
    }

    /// A page of the folder at `path`, after the name `after`.
    pub async fn folder(
        &self,
        grant: Grant,
        snapshot: SnapshotId,
        path: &[u8],
        after: Option<Vec<u8>>,
        entries_max: usize,
    ) -> Result<Page, AppError> {
        let vault = grant.vault();
        let folder = path_key(path)?;
        if let Some(after) = &after {
            folder.child(after).map_err(|error| AppError::Invalid(format!("after: {error}")))?;
        }
        let entries_max = entries_max.clamp(1, ENTRIES_MAX);
        let page = move |store: &Store| {
            let root = store.readable_snapshot(&vault, &snapshot)?.root;
            read_folder(&store.reader(&vault)?, root, &folder, after.as_deref(), entries_max)
        };
        on_store(&self.store, page).await?.ok_or(AppError::NotFound { what: "folder in this snapshot" })
    }

    /// The regular file at `path`.
    pub async fn file(&self, grant: Grant, snapshot: SnapshotId, path: &[u8]) -> Result<FileInSnapshot, AppError> {
        let vault = grant.vault();
        let key = path_key(path)?;
        let find = move |store: &Store| {
            let root = store.readable_snapshot(&vault, &snapshot)?.root;
            let reader = store.reader(&vault)?;
            let entry = Cursor::new(&reader, root).lookup(&key)?;
            Ok((entry, reader))
        };
        let (entry, reader) = on_store(&self.store, find).await?;
        match entry.map(|entry| entry.kind) {
            None => Err(AppError::NotFound { what: "file in this snapshot" }),
            Some(EntryKind::File { size, content, hash, .. }) => Ok(FileInSnapshot { size, hash, content, reader }),
            Some(_) => Err(AppError::Invalid("path: is not a regular file".into())),
        }
    }
}

/// Entries of a folder are one range of keys; folders that only have something below them show up in the range of
/// their contents, behind it. `None` when there is nothing at or below the folder.
fn read_folder(
    reader: &VaultReader,
    root: NodeId,
    folder: &PathKey,
    after: Option<&[u8]>,
    entries_max: usize,
) -> Result<Option<Page>, StoreError> {
    let mut cursor = Cursor::new(reader, root);
    let below = folder.subtree_prefix();
    let mut own = below.clone();
    own.push(0);
    let mut from = own.clone();
    if let Some(after) = after {
        from.extend_from_slice(after);
        from.push(0);
    }
    let mut entries = Vec::new();
    cursor.seek(&from)?;
    while let Some((key, _)) = cursor.peek()? {
        if !key.as_bytes().starts_with(&own) {
            break;
        }
        if entries.len() == entries_max {
            let next = entries.last().map(|last: &InFolder| last.name.clone());
            return Ok(Some(Page { entries, next }));
        }
        if let Some((key, entry)) = cursor.next()?
            && !key.is_root()
        {
            entries.push(InFolder { name: key.name().to_vec(), entry: Some(entry) });
        }
    }
    if entries.is_empty() && after.is_none() {
        entries = folders_without_entry(&mut cursor, &below, entries_max)?;
        let is_there = !entries.is_empty() || folder.is_root() || {
            matches!(cursor.lookup(folder)?, Some(Entry { kind: EntryKind::Directory, .. }))
        };
        return Ok(is_there.then_some(Page { entries, next: None }));
    }
    Ok(Some(Page { entries, next: None }))
}

/// The next components that keys below `below` have.
fn folders_without_entry(
    cursor: &mut Cursor<&VaultReader>,
    below: &[u8],
    entries_max: usize,
) -> Result<Vec<InFolder>, StoreError> {
    let mut names = Vec::new();
    // Behind the folder's own entries.
    let mut from = below.to_vec();
    from.push(1);
    cursor.seek(&from)?;
    while names.len() < entries_max {
        let Some((key, _)) = cursor.peek()? else { break };
        let Some(rest) = key.as_bytes().strip_prefix(below) else { break };
        let name: Vec<u8> = rest.iter().copied().take_while(|&byte| byte != 0).collect();
        if name.is_empty() {
            break;
        }
        // Behind everything below that name: components are followed by 0, so 1 is above all of them.
        let mut from = below.to_vec();
        from.extend_from_slice(&name);
        from.push(1);
        names.push(InFolder { name, entry: None });
        cursor.seek(&from)?;
    }
    Ok(names)
}
