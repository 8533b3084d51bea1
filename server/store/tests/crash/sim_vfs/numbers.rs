//! The disk by number instead of path, as the kernel asks for files: an open file outlives its name.

use super::*;

/// What a number stands for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Node {
    File(usize),
    Dir(usize),
}

impl From<Entry> for Node {
    fn from(entry: Entry) -> Self {
        match entry {
            Entry::File(id) => Node::File(id),
            Entry::Dir(id) => Node::Dir(id),
        }
    }
}

impl Volume {
    fn dir(&self, id: usize) -> io::Result<&Dir> {
        Ok(self.dirs.get(id).ok_or(io::ErrorKind::NotFound)?)
    }

    fn file(&self, id: usize) -> io::Result<&File> {
        Ok(self.files.get(id).ok_or(io::ErrorKind::NotFound)?)
    }

    /// A name that a file has now.
    fn name_of(&self, id: usize) -> Option<Arc<str>> {
        let entries = self.dirs.iter().flat_map(|dir| &dir.live);
        entries.filter(|(_, entry)| **entry == Entry::File(id)).map(|(name, _)| name.clone()).next()
    }
}

/// RocksDB's messages for people: nothing reads them back, and they differ from run to run.
pub fn is_message_log(name: &str) -> bool {
    name.starts_with("LOG")
}

impl Disk {
    pub fn look_up(&self, dir: usize, name: &str) -> io::Result<Node> {
        let running = self.running.lock();
        let found = running.volume.dir(dir)?.live.get(name).copied();
        Ok(found.ok_or(io::ErrorKind::NotFound)?.into())
    }

    pub fn names(&self, dir: usize) -> io::Result<Vec<(String, Node)>> {
        let running = self.running.lock();
        let live = &running.volume.dir(dir)?.live;
        Ok(live.iter().map(|(name, entry)| (name.to_string(), (*entry).into())).collect())
    }

    pub fn file_len(&self, id: usize) -> io::Result<usize> {
        Ok(self.running.lock().volume.file(id)?.live.data.len())
    }

    /// At most `len` bytes from `offset`, fewer at the end.
    pub fn read(&self, id: usize, offset: usize, len: usize) -> io::Result<Vec<u8>> {
        let live = self.running.lock().volume.file(id)?.live.clone();
        let end = (offset + len).min(live.data.len());
        Ok(live.data.get(offset..end).unwrap_or_default().to_vec())
    }

    /// Messages are on disk at once and are nothing to crash at.
    fn change_messages(&self, id: usize, op: FileOp) -> bool {
        let mut running = self.running.lock();
        let is_message = running.volume.name_of(id).is_some_and(|name| is_message_log(&name));
        if is_message {
            running.volume.change_file(id, op);
            running.volume.sync_file(id);
        }
        is_message
    }

    pub fn write(&self, id: usize, offset: usize, bytes: &[u8]) -> io::Result<()> {
        let op = FileOp::Write { offset, bytes: bytes.into() };
        if self.change_messages(id, op.clone()) {
            return Ok(());
        }
        self.change(
            Op::Write,
            bytes.len() as u64,
            |volume| volume.file(id).map(|_| ()),
            |volume, (), _| volume.change_file(id, op),
        )
    }

    pub fn cut(&self, id: usize, len: usize) -> io::Result<()> {
        if self.change_messages(id, FileOp::Truncate { len }) {
            return Ok(());
        }
        self.change(
            Op::Truncate,
            0,
            |volume| volume.file(id).map(|_| ()),
            |volume, (), _| volume.change_file(id, FileOp::Truncate { len }),
        )
    }

    /// Syncs a file, unless `lies` of its name.
    pub fn sync_file(&self, id: usize, lies: impl FnOnce(&str) -> bool) -> io::Result<()> {
        let check = |volume: &Volume| {
            volume.file(id)?;
            Ok(volume.name_of(id).is_some_and(|name| lies(&name)))
        };
        self.change(Op::SyncData, 0, check, |volume, lies, _| {
            if !lies {
                volume.sync_file(id);
            }
        })
    }

    pub fn sync_names(&self, dir: usize) -> io::Result<()> {
        let check = |volume: &Volume| volume.dir(dir).map(|_| ());
        self.change(Op::SyncDir, 0, check, |volume, (), _| volume.sync_names(dir))
    }

    pub fn create(&self, dir: usize, name: &str) -> io::Result<usize> {
        let mut created = 0;
        let check = |volume: &Volume| match volume.dir(dir)?.live.contains_key(name) {
            true => Err(io::ErrorKind::AlreadyExists.into()),
            false => Ok(()),
        };
        self.change(Op::Create, 0, check, |volume, (), _| {
            volume.files.push(Arc::default());
            created = volume.files.len() - 1;
            volume.change_names(dir, vec![(name.into(), Some(Entry::File(created)))]);
        })?;
        Ok(created)
    }

    pub fn make_dir(&self, dir: usize, name: &str) -> io::Result<usize> {
        let mut made = 0;
        let check = |volume: &Volume| match volume.dir(dir)?.live.contains_key(name) {
            true => Err(io::ErrorKind::AlreadyExists.into()),
            false => Ok(()),
        };
        self.change(Op::MakeDir, 0, check, |volume, (), _| {
            volume.dirs.push(Arc::default());
            made = volume.dirs.len() - 1;
            volume.change_names(dir, vec![(name.into(), Some(Entry::Dir(made)))]);
        })?;
        Ok(made)
    }

    /// Removes a name: of a file, or of an empty directory.
    pub fn remove(&self, dir: usize, name: &str) -> io::Result<()> {
        let check = |volume: &Volume| match volume.dir(dir)?.live.get(name) {
            None => Err(io::Error::from(io::ErrorKind::NotFound)),
            Some(Entry::Dir(id)) if !volume.dir(*id)?.live.is_empty() => Err(io::ErrorKind::DirectoryNotEmpty.into()),
            Some(_) => Ok(()),
        };
        self.change(Op::Remove, 0, check, |volume, (), _| volume.change_names(dir, vec![(name.into(), None)]))
    }

    pub fn move_name(&self, from: (usize, &str), to: (usize, &str)) -> io::Result<()> {
        let check = |volume: &Volume| {
            volume.dir(to.0)?;
            Ok(*volume.dir(from.0)?.live.get(from.1).ok_or(io::ErrorKind::NotFound)?)
        };
        self.change(Op::Rename, 0, check, |volume, entry, _| {
            let (old, new) = ((from.1.into(), None), (to.1.into(), Some(entry)));
            if from.0 == to.0 {
                volume.change_names(from.0, vec![old, new]);
            } else {
                volume.change_names(to.0, vec![new]);
                volume.change_names(from.0, vec![old]);
            }
        })
    }
}
