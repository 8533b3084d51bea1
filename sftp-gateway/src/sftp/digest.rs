//! Digests of files: known ones at once, others by reading.

use crate::fs::{DigestKind, ExportFile, FsError};
use crate::limits::READ_BYTES_MAX;
use crate::sftp::open::FileReports;
use aws_lc_rs::digest::{Context, SHA1_FOR_LEGACY_USE_ONLY, SHA256};
use md5::Digest as _;
use std::sync::Arc;

impl DigestKind {
    /// The first of a comma-separated list of names that we have.
    pub(crate) fn choose(names: &[u8]) -> Option<DigestKind> {
        names.split(|byte| *byte == b',').find_map(|name| match name {
            b"md5" => Some(DigestKind::Md5),
            b"sha1" => Some(DigestKind::Sha1),
            b"sha256" => Some(DigestKind::Sha256),
            _ => None,
        })
    }

    /// As clients call it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            DigestKind::Md5 => "md5",
            DigestKind::Sha1 => "sha1",
            DigestKind::Sha256 => "sha256",
        }
    }
}

enum Running {
    Md5(Box<md5::Md5>),
    Sha(Context),
}

impl Running {
    fn new(kind: DigestKind) -> Running {
        match kind {
            DigestKind::Md5 => Running::Md5(Box::default()),
            DigestKind::Sha1 => Running::Sha(Context::new(&SHA1_FOR_LEGACY_USE_ONLY)),
            DigestKind::Sha256 => Running::Sha(Context::new(&SHA256)),
        }
    }

    fn update(&mut self, bytes: &[u8]) {
        match self {
            Running::Md5(running) => running.update(bytes),
            Running::Sha(running) => running.update(bytes),
        }
    }

    fn finish(self) -> Vec<u8> {
        match self {
            Running::Md5(running) => running.finalize().to_vec(),
            Running::Sha(running) => running.finish().as_ref().to_vec(),
        }
    }
}

/// All digests that clients ask for, of one file.
pub struct RunningDigests([Running; 3]);

impl Default for RunningDigests {
    fn default() -> Self {
        RunningDigests([DigestKind::Md5, DigestKind::Sha1, DigestKind::Sha256].map(Running::new))
    }
}

impl RunningDigests {
    /// The next bytes of the file.
    pub fn update(&mut self, bytes: &[u8]) {
        for running in &mut self.0 {
            running.update(bytes);
        }
    }

    /// MD5, SHA-1 and SHA-256, as lower-case hexadecimal.
    pub fn finish(self) -> [String; 3] {
        self.0.map(|running| data_encoding::HEXLOWER.encode(&running.finish()))
    }
}

/// The digest of `length` bytes from `start`, or of what there is of them.
pub(crate) async fn digest(
    file: &Arc<dyn ExportFile>,
    kind: DigestKind,
    start: u64,
    length: u64,
    reports: &dyn FileReports,
) -> Result<Vec<u8>, FsError> {
    let size = file.attributes().size;
    if start == 0
        && length >= size
        && let Some(known) = file.digest(kind)
    {
        return Ok(known);
    }
    let end = size.min(start.saturating_add(length));
    let (mut at, mut running) = (start, Running::new(kind));
    while at < end {
        let piece = file.read(at, READ_BYTES_MAX.min((end - at).min(u64::from(u32::MAX)) as u32)).await?;
        if piece.is_empty() {
            return Err(FsError::Failed("a file ends before its size".into()));
        }
        running.update(&piece);
        at += piece.len() as u64;
        reports.working();
        // Hashing takes the processor; others on this thread come in between.
        tokio::task::yield_now().await;
    }
    Ok(running.finish())
}

/// The digest of bytes.
pub(crate) fn digest_of(kind: DigestKind, bytes: &[u8]) -> Vec<u8> {
    let mut running = Running::new(kind);
    running.update(bytes);
    running.finish()
}
