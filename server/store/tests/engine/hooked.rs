//! A file system that lets a test act just before a call of the engine, or fail that call, and that loses what packs have
//! not been told to keep; and an index that lets it act after rows were read.

use repo_format::id::VaultId;
use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use store::StoreError;
use store::meta::{Batch, IndexFailure, MetaStore, RocksMeta, Row, Table, Ticket};
use store::world::{Space, SystemVfs, Vfs, VfsFile};

/// Calls a hook can stand in front of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Call {
    Read,
    Write,
    Sync,
}

type Waits = Box<dyn Fn(Call, &Path) -> bool + Send>;
type Hook = Box<dyn FnOnce(&Path) -> io::Result<()> + Send>;

#[derive(Default)]
struct Seen {
    hooks: Vec<(Waits, Hook)>,
    /// Files created, with the bytes that are on disk, and whether their name is.
    created: HashMap<PathBuf, (u64, bool)>,
}

/// The real file system, watched.
#[derive(Clone, Default)]
pub struct Hooked(Arc<Mutex<Seen>>);

/// Whether the path is that of a pack.
pub fn is_pack(path: &Path) -> bool {
    path.extension().is_some_and(|end| end == "pack")
}

impl Hooked {
    /// Runs `hook` once, before the first call that `waits` knows. Its error is the outcome of the call, which is then
    /// not made.
    pub fn before(
        &self,
        waits: impl Fn(Call, &Path) -> bool + Send + 'static,
        hook: impl FnOnce(&Path) -> io::Result<()> + Send + 'static,
    ) {
        self.0.lock().unwrap().hooks.push((Box::new(waits), Box::new(hook)));
    }

    /// Whether every hook has run.
    pub fn all_ran(&self) -> bool {
        self.0.lock().unwrap().hooks.is_empty()
    }

    fn reach(&self, call: Call, path: &Path) -> io::Result<()> {
        let hook = {
            let mut seen = self.0.lock().unwrap();
            let at = seen.hooks.iter().position(|(waits, _)| waits(call, path));
            at.map(|at| seen.hooks.remove(at).1)
        };
        hook.map_or(Ok(()), |hook| hook(path))
    }

    /// What a loss of power does to the packs at worst: no byte and no name stays that was not synced.
    pub fn lose_power(&self) {
        for (path, (synced, named)) in self.0.lock().unwrap().created.iter().filter(|(path, _)| is_pack(path)) {
            let file = match std::fs::OpenOptions::new().write(true).open(path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                file => file.unwrap(),
            };
            match named {
                true => file.set_len(*synced).unwrap(),
                false => std::fs::remove_file(path).unwrap(),
            }
        }
    }
}

struct HookedFile {
    vfs: Hooked,
    path: PathBuf,
    file: Arc<dyn VfsFile>,
}

impl VfsFile for HookedFile {
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.vfs.reach(Call::Write, &self.path)?;
        self.file.write_at(offset, bytes)
    }
    fn read_at(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.vfs.reach(Call::Read, &self.path)?;
        self.file.read_at(offset, out)
    }
    fn sync_data(&self) -> io::Result<()> {
        // What is appended from now on need not be covered.
        let len = self.file.len()?;
        self.vfs.reach(Call::Sync, &self.path)?;
        self.file.sync_data()?;
        if let Some((synced, _)) = self.vfs.0.lock().unwrap().created.get_mut(&self.path) {
            *synced = (*synced).max(len);
        }
        Ok(())
    }
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }
    fn truncate(&self, len: u64) -> io::Result<()> {
        self.file.truncate(len)
    }
}

impl Hooked {
    fn watched(&self, path: &Path, file: Arc<dyn VfsFile>) -> Arc<dyn VfsFile> {
        Arc::new(HookedFile { vfs: self.clone(), path: path.to_owned(), file })
    }
}

impl Vfs for Hooked {
    fn create_new(&self, path: &Path) -> io::Result<Arc<dyn VfsFile>> {
        let file = SystemVfs.create_new(path)?;
        self.0.lock().unwrap().created.insert(path.to_owned(), (0, false));
        Ok(self.watched(path, file))
    }
    fn open(&self, path: &Path) -> io::Result<Arc<dyn VfsFile>> {
        Ok(self.watched(path, SystemVfs.open(path)?))
    }
    fn open_write(&self, path: &Path) -> io::Result<Arc<dyn VfsFile>> {
        Ok(self.watched(path, SystemVfs.open_write(path)?))
    }
    fn sync_dir(&self, directory: &Path) -> io::Result<()> {
        SystemVfs.sync_dir(directory)?;
        for (path, (_, named)) in &mut self.0.lock().unwrap().created {
            *named |= path.parent() == Some(directory);
        }
        Ok(())
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        SystemVfs.rename(from, to)
    }
    fn remove_file(&self, path: &Path) -> io::Result<()> {
        SystemVfs.remove_file(path)
    }
    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        SystemVfs.create_dir_all(path)
    }
    fn list(&self, directory: &Path) -> io::Result<Vec<String>> {
        SystemVfs.list(directory)
    }
    fn space(&self, path: &Path) -> io::Result<Space> {
        SystemVfs.space(path)
    }
}

/// Runs once, after rows of many objects were read and before they are answered.
pub type AfterRead = Arc<Mutex<Option<Box<dyn FnOnce() + Send>>>>;

/// The real index, watched.
pub struct HookedMeta {
    pub inner: RocksMeta,
    pub after_read: AfterRead,
}

impl MetaStore for HookedMeta {
    fn get(&self, vault: &VaultId, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        self.inner.get(vault, table, key)
    }
    fn multi_get(&self, vault: &VaultId, table: Table, keys: &[&[u8]]) -> Result<Vec<Option<Vec<u8>>>, StoreError> {
        let rows = self.inner.multi_get(vault, table, keys);
        let hook = if table == Table::Object { self.after_read.lock().unwrap().take() } else { None };
        if let Some(hook) = hook {
            hook();
        }
        rows
    }
    fn scan(&self, vault: &VaultId, table: Table, from: &[u8], limit: usize) -> Result<Vec<Row>, StoreError> {
        self.inner.scan(vault, table, from, limit)
    }
    fn write(&self, vault: &VaultId, batch: Batch) -> Result<Ticket, StoreError> {
        self.inner.write(vault, batch)
    }
    fn written(&self) -> Ticket {
        self.inner.written()
    }
    fn sync(&self, ticket: Ticket) -> Result<(), StoreError> {
        self.inner.sync(ticket)
    }
    fn drop_vault(&self, vault: &VaultId) -> Result<(), StoreError> {
        self.inner.drop_vault(vault)
    }
    fn syncs(&self) -> u64 {
        self.inner.syncs()
    }
    fn failure(&self) -> Option<IndexFailure> {
        self.inner.failure()
    }
    fn close(&self) {
        self.inner.close();
    }
}
