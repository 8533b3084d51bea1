//! The status of every object as the last run saw it, in key order: who has the same status now has not changed.
//!
//! ```text
//! file   = "HFFILES1" | root 32 | started seconds i64 | nanoseconds u32 | block* | end
//! block  = packed_len u32 | plain_len u32 | checksum 8 (BLAKE3 of the packed bytes) | packed bytes (zstd)
//! end    = 0 u32
//! record = shared | rest of the key | dev | ino | size | mtime | ctime      (keys share prefixes within a block)
//! ```
//! A file that is damaged anywhere ends there: what follows counts as unknown.

use crate::config::create_partial;
use crate::error::AgentError;
use crate::fs::FileStat;
use repo_format::FormatError;
use repo_format::codec::{Reader, put_bytes, put_varint, put_varint_signed};
use repo_format::entry::{PathKey, Time};
use repo_format::id::NodeId;
use repo_format::limits::KEY_BYTES_MAX;
use std::collections::HashMap;
use std::fs::File;
use std::io::{BufReader, BufWriter, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

const MAGIC: &[u8; 8] = b"HFFILES1";
const HEADER_BYTES: u64 = 8 + 32 + 12;
const BLOCK_PLAIN_BYTES: usize = 64 << 10;
const BLOCK_BYTES_MAX: usize = BLOCK_PLAIN_BYTES + KEY_BYTES_MAX + 256;
/// Records of the inode index, at eight bytes each; beyond it moved files are simply read again.
const INDEX_RECORDS_MAX: usize = 4 << 20;

/// What is remembered of one object.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Remembered {
    /// Device.
    pub dev: u64,
    /// Inode.
    pub ino: u64,
    /// Bytes.
    pub size: u64,
    /// Modification time.
    pub mtime: Time,
    /// Change time.
    pub ctime: Time,
}

impl Remembered {
    /// Of a status.
    pub fn of(stat: &FileStat) -> Self {
        Remembered { dev: stat.dev, ino: stat.ino, size: stat.size, mtime: stat.mtime, ctime: stat.ctime }
    }
}

/// Writes the records of a run.
pub struct FilesWriter {
    path: PathBuf,
    partial: PathBuf,
    out: BufWriter<File>,
    block: Vec<u8>,
    last_key: Vec<u8>,
}

impl FilesWriter {
    /// Next to `folder/files`; nothing replaces that before [`FilesWriter::finish`].
    pub fn create(folder: &Path) -> Result<Self, AgentError> {
        let path = folder.join("files");
        let (partial, file) = create_partial(&path)?;
        let mut out = BufWriter::new(file);
        out.write_all(&[0; HEADER_BYTES as usize]).map_err(|error| AgentError::file(&partial, error))?;
        Ok(FilesWriter { path, partial, out, block: Vec::new(), last_key: Vec::new() })
    }

    /// The next object, keys ascending.
    pub fn push(&mut self, key: &PathKey, record: &Remembered) -> Result<(), AgentError> {
        let key = key.as_bytes();
        let shared = self.last_key.iter().zip(key).take_while(|(a, b)| a == b).count();
        put_varint(&mut self.block, shared as u64);
        put_bytes(&mut self.block, &key[shared..]);
        put_varint(&mut self.block, record.dev);
        put_varint(&mut self.block, record.ino);
        put_varint(&mut self.block, record.size);
        for time in [record.mtime, record.ctime] {
            put_varint_signed(&mut self.block, time.seconds);
            put_varint(&mut self.block, u64::from(time.nanoseconds));
        }
        self.last_key.clear();
        self.last_key.extend_from_slice(key);
        if self.block.len() >= BLOCK_PLAIN_BYTES { self.end_block() } else { Ok(()) }
    }

    fn end_block(&mut self) -> Result<(), AgentError> {
        if self.block.is_empty() {
            return Ok(());
        }
        let write = || -> std::io::Result<()> {
            let packed = zstd::bulk::compress(&self.block, 1)?;
            self.out.write_all(&(packed.len() as u32).to_le_bytes())?;
            self.out.write_all(&(self.block.len() as u32).to_le_bytes())?;
            self.out.write_all(&blake3::hash(&packed).as_bytes()[..8])?;
            self.out.write_all(&packed)
        };
        let mut write = write;
        write().map_err(|error| AgentError::file(&self.partial, error))?;
        self.block.clear();
        self.last_key.clear();
        Ok(())
    }

    /// Puts the file in place: it belongs to the snapshot under `root`, of a run that began at `started`.
    pub fn finish(mut self, root: &NodeId, started: Time) -> Result<(), AgentError> {
        self.end_block()?;
        let mut write = || -> std::io::Result<()> {
            self.out.write_all(&0u32.to_le_bytes())?;
            self.out.seek(SeekFrom::Start(0))?;
            self.out.write_all(MAGIC)?;
            self.out.write_all(root.as_bytes())?;
            self.out.write_all(&started.seconds.to_le_bytes())?;
            self.out.write_all(&started.nanoseconds.to_le_bytes())?;
            self.out.flush()?;
            std::fs::rename(&self.partial, &self.path)
        };
        write().map_err(|error| AgentError::file(&self.path, error))
    }
}

impl Drop for FilesWriter {
    fn drop(&mut self) {
        // After `finish` the name is gone; an unfinished one is of no use to anybody.
        std::fs::remove_file(&self.partial).ok();
    }
}

/// Reads the records of the last run in order, and finds single ones by inode.
pub struct FilesReader {
    path: PathBuf,
    started: Time,
    input: BufReader<File>,
    block: std::vec::IntoIter<(PathKey, Remembered)>,
    head: Option<(PathKey, Remembered)>,
    index: Option<InodeIndex>,
}

/// Sorted (hash of device and inode, block number) pairs, and the block read last.
struct InodeIndex {
    file: File,
    blocks: Vec<u64>,
    pairs: Vec<(u32, u32)>,
    open: Option<(u32, ByInode)>,
}

/// The records of a block by device and inode.
type ByInode = HashMap<(u64, u64), (PathKey, Remembered)>;

impl FilesReader {
    /// Opens `folder/files` if it belongs to the snapshot under `root`.
    pub fn open(folder: &Path, root: &NodeId) -> Option<Self> {
        let path = folder.join("files");
        let mut input = BufReader::new(File::open(&path).ok()?);
        let mut header = [0; HEADER_BYTES as usize];
        input.read_exact(&mut header).ok()?;
        let mut reader = Reader::new("file cache", &header);
        let matches = reader.array::<8>().ok()? == *MAGIC && reader.array::<32>().ok()? == *root.as_bytes();
        let seconds = i64::from_le_bytes(reader.array().ok()?);
        let started = Time { seconds, nanoseconds: reader.u32().ok()? };
        matches.then(|| FilesReader { path, started, input, block: Vec::new().into_iter(), head: None, index: None })
    }

    /// What is remembered under `key`. Keys must be asked for in ascending order.
    pub fn find(&mut self, key: &PathKey) -> Option<Remembered> {
        loop {
            if self.head.is_none() {
                self.head = match self.block.next() {
                    Some(record) => Some(record),
                    None => {
                        self.block = read_block(&mut self.input)?.into_iter();
                        continue;
                    }
                };
            }
            let (found, record) = self.head.as_ref()?;
            match found.cmp(key) {
                std::cmp::Ordering::Less => self.head = None,
                std::cmp::Ordering::Equal => return Some(*record),
                std::cmp::Ordering::Greater => return None,
            }
        }
    }

    /// Where an object with exactly this status was in the last run. Asked only for files not found under their own
    /// key. A file made since then has a later change time, so it costs nothing.
    pub fn find_moved(&mut self, wanted: &Remembered) -> Option<PathKey> {
        if wanted.ctime >= self.started {
            return None;
        }
        if self.index.is_none() {
            self.index = InodeIndex::build(&self.path);
        }
        self.index.as_mut()?.find(wanted)
    }
}

fn inode_hash(dev: u64, ino: u64) -> u32 {
    let mixed = (dev.rotate_left(32) ^ ino).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    (mixed >> 32) as u32
}

impl InodeIndex {
    fn build(path: &Path) -> Option<Self> {
        let mut input = BufReader::new(File::open(path).ok()?);
        input.seek(SeekFrom::Start(HEADER_BYTES)).ok()?;
        let (mut blocks, mut pairs) = (Vec::new(), Vec::new());
        loop {
            let start = input.stream_position().ok()?;
            let Some(records) = read_block(&mut input) else { break };
            let number = u32::try_from(blocks.len()).ok()?;
            blocks.push(start);
            if pairs.len() + records.len() > INDEX_RECORDS_MAX {
                break;
            }
            pairs.extend(records.iter().map(|(_, record)| (inode_hash(record.dev, record.ino), number)));
        }
        pairs.sort_unstable();
        pairs.dedup();
        Some(InodeIndex { file: input.into_inner(), blocks, pairs, open: None })
    }

    fn find(&mut self, wanted: &Remembered) -> Option<PathKey> {
        let hash = inode_hash(wanted.dev, wanted.ino);
        let first = self.pairs.partition_point(|pair| pair.0 < hash);
        let candidates: Vec<u32> =
            self.pairs.iter().skip(first).take_while(|pair| pair.0 == hash).map(|pair| pair.1).collect();
        for number in candidates {
            if self.open.as_ref().is_none_or(|(open, _)| *open != number) {
                let start = *self.blocks.get(usize::try_from(number).ok()?)?;
                self.file.seek(SeekFrom::Start(start)).ok()?;
                let records = read_block(&mut self.file)?.into_iter();
                let by_inode =
                    records.map(|(key, record)| ((record.dev, record.ino), (key, record))).collect::<ByInode>();
                self.open = Some((number, by_inode));
            }
            let found = self.open.as_ref().and_then(|(_, records)| records.get(&(wanted.dev, wanted.ino)));
            if let Some((key, record)) = found
                && record == wanted
            {
                return Some(key.clone());
            }
        }
        None
    }
}

/// The next block; `None` at the end or at damage.
fn read_block(input: &mut impl Read) -> Option<Vec<(PathKey, Remembered)>> {
    let mut word = [0; 4];
    input.read_exact(&mut word).ok()?;
    let packed_len = u32::from_le_bytes(word) as usize;
    if packed_len == 0 || packed_len > 2 * BLOCK_BYTES_MAX {
        return None;
    }
    input.read_exact(&mut word).ok()?;
    let plain_len = u32::from_le_bytes(word) as usize;
    let mut checksum = [0; 8];
    input.read_exact(&mut checksum).ok()?;
    let mut packed = vec![0; packed_len];
    input.read_exact(&mut packed).ok()?;
    if plain_len > BLOCK_BYTES_MAX || blake3::hash(&packed).as_bytes()[..8] != checksum {
        return None;
    }
    let plain = zstd::bulk::decompress(&packed, plain_len).ok()?;
    parse_block(&plain).ok()
}

fn parse_block(plain: &[u8]) -> Result<Vec<(PathKey, Remembered)>, FormatError> {
    let mut reader = Reader::new("file cache", plain);
    let mut records: Vec<(PathKey, Remembered)> = Vec::new();
    while reader.remaining() > 0 {
        let last = records.last().map(|(key, _)| key.as_bytes()).unwrap_or_default();
        let shared = reader.varint_max("shared prefix", last.len())?;
        let mut key = last[..shared].to_vec();
        key.extend_from_slice(reader.bytes_max("key", KEY_BYTES_MAX)?);
        let key = PathKey::from_encoded(&key)?;
        let (dev, ino, size) = (reader.varint()?, reader.varint()?, reader.varint()?);
        let mut time = || -> Result<Time, FormatError> {
            let seconds = reader.varint_signed()?;
            Ok(Time { seconds, nanoseconds: reader.varint_max("nanoseconds", 999_999_999)? as u32 })
        };
        let (mtime, ctime) = (time()?, time()?);
        records.push((key, Remembered { dev, ino, size, mtime, ctime }));
    }
    Ok(records)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(number: u64) -> Remembered {
        let time = Time { seconds: -(number as i64), nanoseconds: 5 };
        Remembered { dev: 1, ino: number, size: number * 3, mtime: time, ctime: time }
    }

    fn key(number: u64) -> PathKey {
        PathKey::from_path(format!("/folder/{number:06}").as_bytes()).unwrap()
    }

    #[test]
    fn records_come_back_in_order_and_by_inode() {
        let folder = tempfile::tempdir().unwrap();
        let root = NodeId::from_bytes([1; 32]);
        let mut writer = FilesWriter::create(folder.path()).unwrap();
        for number in (0..20_000).step_by(2) {
            writer.push(&key(number), &record(number)).unwrap();
        }
        writer.finish(&root, Time { seconds: 100, nanoseconds: 0 }).unwrap();
        assert!(FilesReader::open(folder.path(), &NodeId::from_bytes([2; 32])).is_none());
        let mut reader = FilesReader::open(folder.path(), &root).unwrap();
        for number in 0..20_000 {
            assert_eq!(reader.find(&key(number)), (number % 2 == 0).then(|| record(number)), "{number}");
        }
        for number in [19_998, 0, 77, 10_000] {
            assert_eq!(reader.find_moved(&record(number)), (number % 2 == 0).then(|| key(number)));
        }
        let newer = Remembered { ctime: Time { seconds: 100, nanoseconds: 0 }, ..record(4) };
        assert_eq!(reader.find_moved(&newer), None);
        let other = Remembered { size: 1, ..record(4) };
        assert_eq!(reader.find_moved(&other), None);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn damage_only_forgets() {
        let folder = tempfile::tempdir().unwrap();
        let root = NodeId::from_bytes([1; 32]);
        let mut writer = FilesWriter::create(folder.path()).unwrap();
        for number in 0..20_000 {
            writer.push(&key(number), &record(number)).unwrap();
        }
        writer.finish(&root, Time::default()).unwrap();
        let path = folder.path().join("files");
        let mut bytes = std::fs::read(&path).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        std::fs::write(&path, bytes).unwrap();
        let mut reader = FilesReader::open(folder.path(), &root).unwrap();
        let found = (0..20_000).filter(|number| reader.find(&key(*number)).is_some()).count();
        assert!(found > 1000 && found < 19_000, "{found}");
    }
}
