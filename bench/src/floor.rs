//! What every first backup must at least do, with nothing between the steps: read, cut, hash, compress, and the
//! server's part, check and seal. Two threads, no network, no disk writes. The unchanged floor looks at every file.
//! Runs as a process of its own, so that it is measured as the tools are.

use crate::error::{BenchError, Doing};
use repo_format::chunker::{Chunker, closes_bundle};
use repo_format::compress::{Compressor, Decompressor};
use repo_format::crypto::default_aead;
use repo_format::entry::Profile;
use repo_format::frame::seal_frame;
use repo_format::id::{ChunkId, ObjectKind, VaultId};
use repo_format::keys::{DataKey, IdKeys, VaultRootKey};
use repo_format::limits::BUNDLED_FILE_BYTES_MAX;
use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

const THREADS: usize = 2;
/// Compression level of the product.
const LEVEL: i32 = 3;
/// Bytes of neighbouring files that one thread takes at a time.
const SHARE_BYTES: u64 = 32 << 20;

/// Prints the bytes that would be stored as one line on standard output.
pub fn run(path: &Path, unchanged: bool) -> Result<(), BenchError> {
    let mut files = Vec::new();
    list(path, &mut files)?;
    let stored = if unchanged { 0 } else { all(&files)? };
    writeln!(std::io::stdout(), "{stored}").doing("standard output")
}

fn list(path: &Path, files: &mut Vec<(PathBuf, u64)>) -> Result<(), BenchError> {
    let mut entries: Vec<fs::DirEntry> =
        fs::read_dir(path).and_then(Iterator::collect).doing(path.display().to_string())?;
    entries.sort_unstable_by_key(fs::DirEntry::file_name);
    for entry in entries {
        // As a backup would, look at everything, not only at what will be read.
        let path = entry.path();
        let metadata = fs::symlink_metadata(&path).doing(path.display().to_string())?;
        if metadata.is_dir() {
            list(&path, files)?;
        } else if metadata.is_file() {
            files.push((path, metadata.len()));
        }
    }
    Ok(())
}

fn all(files: &[(PathBuf, u64)]) -> Result<u64, BenchError> {
    let mut shares: Vec<&[(PathBuf, u64)]> = Vec::new();
    let mut rest = files;
    while !rest.is_empty() {
        let mut bytes = 0;
        let len = rest.iter().take_while(|(_, len)| (bytes < SHARE_BYTES, bytes += len).0).count();
        let (share, behind) = rest.split_at(len);
        shares.push(share);
        rest = behind;
    }
    let next = AtomicUsize::new(0);
    let known = Mutex::new(HashSet::new());
    std::thread::scope(|scope| {
        let mut threads = Vec::new();
        for _ in 0..THREADS {
            threads.push(scope.spawn(|| {
                let mut worker = Worker::new(&known)?;
                while let Some(share) = shares.get(next.fetch_add(1, Ordering::Relaxed)) {
                    worker.files(share)?;
                }
                Ok(worker.stored_bytes)
            }));
        }
        threads.into_iter().try_fold(0, |sum, thread| {
            let stored: Result<u64, BenchError> =
                thread.join().unwrap_or_else(|_| Err(BenchError::Setup("a thread of the floor died".into())));
            Ok(sum + stored?)
        })
    })
}

struct Worker<'k> {
    keys: IdKeys,
    chunker: Chunker,
    compressor: Compressor,
    decompressor: Decompressor,
    known: &'k Mutex<HashSet<ChunkId>>,
    seal_key: DataKey,
    read: Vec<u8>,
    bundle: Vec<u8>,
    compressed: Vec<u8>,
    frame: Vec<u8>,
    frames: u64,
    stored_bytes: u64,
}

impl<'k> Worker<'k> {
    fn new(known: &'k Mutex<HashSet<ChunkId>>) -> Result<Self, BenchError> {
        let keys = IdKeys::derive(&VaultRootKey::from_bytes([1; 32]));
        Ok(Worker {
            chunker: Chunker::new(&keys, Profile::Default),
            keys,
            compressor: Compressor::new(LEVEL)?,
            decompressor: Decompressor::new()?,
            known,
            seal_key: DataKey::new(1, [2; 32]),
            read: Vec::new(),
            bundle: Vec::new(),
            compressed: Vec::new(),
            frame: Vec::new(),
            frames: 0,
            stored_bytes: 0,
        })
    }

    fn files(&mut self, share: &[(PathBuf, u64)]) -> Result<(), BenchError> {
        for (path, len) in share {
            let mut file = File::open(path).doing(path.display().to_string())?;
            if *len as usize <= BUNDLED_FILE_BYTES_MAX {
                self.small_file(&mut file)
            } else {
                self.large_file(&mut file)
            }
            .doing(path.display().to_string())??;
        }
        let bundle = std::mem::take(&mut self.bundle);
        if !bundle.is_empty() {
            self.chunk(&bundle)?;
        }
        Ok(())
    }

    fn small_file(&mut self, file: &mut File) -> std::io::Result<Result<(), BenchError>> {
        let start = self.bundle.len();
        file.read_to_end(&mut self.bundle)?;
        let mut hasher = self.keys.content_hasher();
        hasher.data(&self.bundle[start..]);
        if !closes_bundle(self.bundle.len(), &hasher.finish()) {
            return Ok(Ok(()));
        }
        let mut bundle = std::mem::take(&mut self.bundle);
        let outcome = self.chunk(&bundle);
        bundle.clear();
        self.bundle = bundle;
        Ok(outcome)
    }

    fn large_file(&mut self, file: &mut File) -> std::io::Result<Result<(), BenchError>> {
        let mut hasher = self.keys.content_hasher();
        let mut buffer = std::mem::take(&mut self.read);
        buffer.resize(self.chunker.max() * 2, 0);
        let (mut start, mut end, mut ended) = (0, 0, false);
        loop {
            while !ended && end < buffer.len() {
                let got = file.read(&mut buffer[end..])?;
                hasher.data(&buffer[end..end + got]);
                end += got;
                ended = got == 0;
            }
            while let Some(len) = self.chunker.cut(&buffer[start..end], ended) {
                if let Err(error) = self.chunk(&buffer[start..start + len]) {
                    return Ok(Err(error));
                }
                start += len;
            }
            if ended {
                break;
            }
            buffer.copy_within(start..end, 0);
            end -= start;
            start = 0;
        }
        let _ = hasher.finish();
        self.read = buffer;
        Ok(Ok(()))
    }

    /// The client's part of one chunk, then the server's.
    fn chunk(&mut self, plaintext: &[u8]) -> Result<(), BenchError> {
        let id = self.keys.chunk_id(plaintext);
        if !self.known.lock().unwrap_or_else(PoisonError::into_inner).insert(id) {
            return Ok(());
        }
        self.compressed.clear();
        let codec = self.compressor.compress_into(plaintext, &mut self.compressed)?;
        let plain_len = plaintext.len() as u32;

        let received = self.decompressor.decompress(codec, &self.compressed, plain_len)?;
        if self.keys.chunk_id(&received) != id {
            return Err(BenchError::Setup("a chunk changed on its way".into()));
        }
        self.frames += 1;
        let mut nonce = [0; 24];
        nonce[..8].copy_from_slice(&self.frames.to_le_bytes());
        self.frame.clear();
        let vault = VaultId::from_bytes([3; 16]);
        self.stored_bytes += seal_frame(
            default_aead(),
            &vault,
            &self.seal_key,
            &nonce,
            ObjectKind::Chunk,
            codec,
            &id.into(),
            plain_len,
            &self.compressed,
            &mut self.frame,
        )? as u64;
        Ok(())
    }
}
