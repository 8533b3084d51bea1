//! Somebody with every right on one vault, and an account of its space that the server has no part in: what the
//! snapshots reach, fetched object by object and added up.

use super::{User, Wire};
use agent::client::{Client, ClientError, Patience};
use agent::stop::Stop;
use agent::tls::Trust;
use agent::transport::{HttpTransport, Method};
use api::objects::{GET_IDS_MAX, Record};
use api::problem::Code;
use api::retention::RetentionRun;
use api::vault::VaultStatus;
use bytes::Bytes;
use repo_format::compress::{Codec, decompress};
use repo_format::crypto::TAG_BYTES;
use repo_format::frame::FRAME_HEADER_BYTES;
use repo_format::id::{ObjectId, ObjectKind};
use repo_format::node::NodeView;
use serde::de::DeserializeOwned;
use std::collections::HashSet;
use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use zeroize::Zeroizing;

/// How long a server that is being restarted is waited for.
const PATIENCE: Duration = Duration::from_secs(120);
/// Pause between two looks at a vault's status.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// Dead space that compaction leaves in a vault, thousandths of its packs.
const DEAD_PER_MILLE_MAX: u64 = 200;
/// Dead space that is not worth a copy whatever its share, bytes: what a vault of a few megabytes is allowed.
const DEAD_BYTES_FREE: u64 = 1 << 20;
/// What packs add to their frames: a few headers, and in the trailers a line for each frame.
const PACK_OVERHEAD_BYTES: u64 = 4096;
const FRAME_OVERHEAD_BYTES: u64 = 128;

/// A vault's keeper: deletes, purges, holds, runs retention, and counts.
pub struct Keeper {
    /// Typed calls, repeated while the server is away.
    pub client: Client,
    /// Vault id, hexadecimal.
    pub vault: String,
    wire: Wire,
}

/// A vault whose space is what its snapshots need.
#[derive(Clone, Copy, Debug)]
pub struct Settled {
    /// What its snapshots reach; the ledger says the same.
    pub reached: Reached,
    /// Bytes of its pack files.
    pub file_bytes: u64,
    /// The part of them that nothing needs and that is not worth a copy.
    pub dead_bytes: u64,
    /// How long it took until ledger and files were so.
    pub elapsed: Duration,
}

/// What some snapshots need: objects, and the bytes their frames take.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reached {
    /// Distinct chunks and nodes.
    pub objects: u64,
    /// Sum of the lengths of their frames, bytes.
    pub frame_bytes: u64,
    /// The part of them in nodes.
    pub node_frame_bytes: u64,
    /// Sum of the lengths of the chunks, uncompressed: what files use, and the parts of bundles that none uses any more.
    pub chunk_bytes: u64,
}

impl Keeper {
    /// With a token of any rights on the user's vault.
    pub fn new(user: &User, token: &str) -> io::Result<Self> {
        let fingerprint = user.fingerprint.parse().map_err(io::Error::other)?;
        let secret = Some(Zeroizing::new(token.to_owned()));
        let transport =
            HttpTransport::new(&user.url, &Trust::Pinned(fingerprint), secret, None).map_err(io::Error::other)?;
        let patience = Patience { total: PATIENCE, on_wait: Arc::new(|_, _| {}) };
        let client = Client::new(Arc::new(transport), patience, Stop::default());
        Ok(Keeper { client, vault: user.vault.clone(), wire: Wire::with_token(user, token)? })
    }

    /// How the vault does.
    pub fn status(&self) -> io::Result<VaultStatus> {
        self.patiently(Method::Get, "")
    }

    /// Runs the vault's retention now.
    pub fn run_retention(&self) -> io::Result<RetentionRun> {
        self.patiently(Method::Post, "/retention/run")
    }

    /// A call that may be repeated, until the server has answered it.
    fn patiently<T: DeserializeOwned>(&self, method: Method, path: &str) -> io::Result<T> {
        let path = format!("/vaults/{}{path}", self.vault);
        let started = Instant::now();
        loop {
            let error = match self.wire.send(method, &path, "application/json", Bytes::new()) {
                Ok(answer) if answer.status == 200 => {
                    return serde_json::from_slice(&answer.body).map_err(io::Error::other);
                }
                Ok(answer) if answer.status != 503 => {
                    let said = String::from_utf8_lossy(&answer.body).into_owned();
                    return Err(io::Error::other(format!("{path} answered {}: {said}", answer.status)));
                }
                Ok(answer) => io::Error::other(format!("{path} answered {}", answer.status)),
                Err(error) => error,
            };
            if started.elapsed() > PATIENCE {
                return Err(error);
            }
            std::thread::sleep(LOOK_EVERY);
        }
    }

    /// Root nodes of all snapshots there are, deleted ones included.
    pub fn roots(&self) -> io::Result<Vec<ObjectId>> {
        let snapshots = self.client.snapshots(&self.vault).map_err(io::Error::other)?;
        snapshots.iter().map(|snapshot| snapshot.root.parse().map_err(io::Error::other)).collect()
    }

    /// Everything that `roots` reach, fetched and added up. Damaged and absent objects are errors.
    pub fn reach(&self, roots: &[ObjectId]) -> io::Result<Reached> {
        let mut seen: HashSet<ObjectId> = roots.iter().copied().collect();
        let mut next: Vec<ObjectId> = seen.iter().copied().collect();
        let mut sum = Reached::default();
        while !next.is_empty() {
            let asked: Vec<ObjectId> = next.split_off(next.len().saturating_sub(GET_IDS_MAX));
            let mut records: Vec<(ObjectId, io::Result<Vec<ObjectId>>)> = Vec::new();
            self.client
                .objects(&self.vault, &asked, &mut |record| {
                    sum.objects += 1;
                    let frame_bytes = (FRAME_HEADER_BYTES + record.payload.len() + TAG_BYTES) as u64;
                    sum.frame_bytes += frame_bytes;
                    match record.kind {
                        ObjectKind::Node => sum.node_frame_bytes += frame_bytes,
                        ObjectKind::Chunk => sum.chunk_bytes += u64::from(record.plain_len),
                    }
                    records.push((record.id, children(&record)));
                    true
                })
                .map_err(io::Error::other)?;
            for (id, children) in records {
                let children =
                    children.map_err(|error| io::Error::other(format!("object {id} cannot be read: {error}")))?;
                next.extend(children.into_iter().filter(|child| seen.insert(*child)));
            }
        }
        Ok(sum)
    }

    /// Waits until the vault's ledger says exactly what its snapshots reach, nothing waits to be freed any more, and the
    /// pack files below the data folder `data` take little more. An error after `limit`, with what differed.
    pub fn settled(&self, data: &Path, limit: Duration) -> io::Result<Settled> {
        let started = Instant::now();
        let (mut roots, mut reached) = self.reached_now()?;
        loop {
            let least = reached.frame_bytes + PACK_OVERHEAD_BYTES + FRAME_OVERHEAD_BYTES * reached.objects;
            let most = least * 1000 / (1000 - DEAD_PER_MILLE_MAX) + DEAD_BYTES_FREE;
            let status = self.status()?;
            let file_bytes = pack_file_bytes(data, &self.vault)?;
            let elapsed = started.elapsed();
            let exact = status.physical_bytes == reached.frame_bytes && status.pending_bytes == 0;
            if exact && file_bytes <= most {
                return Ok(Settled { reached, file_bytes, dead_bytes: status.dead_bytes, elapsed });
            }
            if elapsed > limit {
                let said = format!(
                    "after {elapsed:?} the snapshots reach {reached:?}, pack files take {file_bytes} bytes of at most \
                     {most}, and the vault says {status:?}"
                );
                return Err(io::Error::other(said));
            }
            std::thread::sleep(LOOK_EVERY);
            if self.roots()? != roots {
                (roots, reached) = self.reached_now()?;
            }
        }
    }

    /// Roots of the snapshots there are, and what they reach. A snapshot that the server removes while its objects are
    /// fetched is no error: then it is the others that count.
    fn reached_now(&self) -> io::Result<(Vec<ObjectId>, Reached)> {
        loop {
            let roots = self.roots()?;
            match self.reach(&roots) {
                Ok(reached) => return Ok((roots, reached)),
                Err(error) if self.roots()? == roots => return Err(error),
                Err(_) => {}
            }
        }
    }
}

/// Bytes of a vault's pack files below a data folder.
fn pack_file_bytes(data: &Path, vault: &str) -> io::Result<u64> {
    let mut sum = 0;
    for entry in fs::read_dir(data.join("store/vaults").join(vault).join("packs"))? {
        // One that is dropped between the listing and the look is no bytes.
        sum += entry?.metadata().map_or(0, |metadata| metadata.len());
    }
    Ok(sum)
}

/// Children of a node; none of a chunk.
fn children(record: &Record) -> io::Result<Vec<ObjectId>> {
    let codec = Codec::from_byte(record.codec).map_err(|_| io::Error::other("it is absent or damaged"))?;
    if record.kind == ObjectKind::Chunk {
        return Ok(Vec::new());
    }
    let plaintext = decompress(codec, &record.payload, record.plain_len).map_err(io::Error::other)?;
    let view = NodeView::parse(&plaintext).map_err(io::Error::other)?;
    Ok(view.nodes().map(ObjectId::from).chain(view.chunks().map(ObjectId::from)).collect())
}

/// `None` when what was asked about is gone.
pub(super) fn unless_gone<T>(result: Result<T, ClientError>) -> io::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.code() == Some(Code::NotFound) => Ok(None),
        Err(error) => Err(io::Error::other(error)),
    }
}
