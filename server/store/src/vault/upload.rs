//! The upload path: have, put chunks, put nodes, flush. What is answered as durable is on disk in the binding order:
//! frames, then the rows that name them.

use super::apply::{NOBODY, PreparedNode};
use super::{Pending, Vault};
use crate::error::{At, StoreError, Volume};
use crate::meta::Ticket;
use crate::meta::rows::{ObjectRow, Place};
use crate::pack::{Appender, NewFrame};
use crate::quota::Admission;
use crate::sync::Mutex;
use bytes::Bytes;
use repo_format::FormatError;
use repo_format::compress::{Codec, Compressor, Decompressor};
use repo_format::frame::seal_frame;
use repo_format::id::{ObjectId, ObjectKind, PackId, UploadSessionId};
use repo_format::limits::{CHUNK_BYTES_MAX, NODE_BYTES_MAX};
use repo_format::node::NodeView;
use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::sync::atomic::Ordering;

/// zstd level of nodes: they are small and read often.
const NODE_ZSTD_LEVEL: i32 = 3;

/// An object as sent by an agent.
#[derive(Clone, Debug)]
pub struct IncomingObject {
    /// What the sender says it is.
    pub id: ObjectId,
    /// Chunk or node.
    pub kind: ObjectKind,
    /// Codec byte.
    pub codec: u8,
    /// Length uncompressed.
    pub plain_len: u32,
    /// Compressed bytes.
    pub payload: Bytes,
}

/// Answer to chunks: received, not durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Received {
    /// Under which they are held.
    pub incarnation: u64,
    /// New to the vault.
    pub new_objects: u64,
    /// Bytes of their frames.
    pub stored_bytes: u64,
}

/// Answer to nodes and flush: on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Durable {
    /// In force.
    pub incarnation: u64,
    /// Nodes new to the vault.
    pub new_objects: u64,
    /// Bytes of their frames.
    pub stored_bytes: u64,
}

/// A verified and sealed object.
struct Sealed {
    id: ObjectId,
    kind: ObjectKind,
    codec: Codec,
    plain_len: u32,
    logical_bytes: u64,
    frame: std::ops::Range<usize>,
}

thread_local! {
    static DECOMPRESSOR: RefCell<Option<Decompressor>> = const { RefCell::new(None) };
    static COMPRESSOR: RefCell<Option<Compressor>> = const { RefCell::new(None) };
}

/// Unpacks an object with this thread's context.
pub(crate) fn unpack(codec: Codec, payload: &[u8], plain_len: u32, out: &mut Vec<u8>) -> Result<(), FormatError> {
    DECOMPRESSOR.with_borrow_mut(|slot| {
        let context = match slot {
            Some(context) => context,
            None => slot.insert(Decompressor::new()?),
        };
        context.decompress_into(codec, payload, plain_len, out)
    })
}

/// Compresses a node with this thread's context: making one costs more than a small batch.
fn compress_node(plaintext: &[u8]) -> Result<(Codec, Vec<u8>), FormatError> {
    COMPRESSOR.with_borrow_mut(|slot| {
        let context = match slot {
            Some(context) => context,
            None => slot.insert(Compressor::new(NODE_ZSTD_LEVEL)?),
        };
        context.compress(plaintext)
    })
}

impl Vault {
    /// Which of `ids` the vault has, soundly, in rows or received.
    pub(crate) fn have(&self, session: &UploadSessionId, ids: &[ObjectId]) -> Result<(Vec<bool>, u64), StoreError> {
        let (found, incarnation) = self.known(session, ids)?;
        Ok((found.into_iter().map(|known| known == Known::Sound).collect(), incarnation))
    }

    /// Claims `ids` for the session, then looks for them, with the incarnation the answer is true for. In this order:
    /// what the reaper removes later than the claim it does not remove, what it removed before is not found.
    fn known(&self, session: &UploadSessionId, ids: &[ObjectId]) -> Result<(Vec<Known>, u64), StoreError> {
        let now_ns = self.now_ns();
        let (pending, incarnation): (Vec<bool>, u64) = {
            let mut state = self.state.lock();
            state.sessions.claim(session, ids, now_ns)?;
            (ids.iter().map(|id| state.pending.contains_key(id)).collect(), self.incarnation_of(&state))
        };
        let rows = self.object_rows(ids)?;
        let known = rows.into_iter().zip(pending).map(|(row, pending)| match row {
            _ if pending => Known::Sound,
            Some(row) if row.damaged => Known::Damaged,
            Some(_) => Known::Sound,
            None => Known::Absent,
        });
        Ok((known.collect(), incarnation))
    }

    /// Verifies, seals and appends chunks. Nothing of the request is kept when one of its records is wrong. Their
    /// frames take room that was admitted for the body, if any, before they reserve more.
    pub(crate) fn put_chunks(
        &self,
        session: &UploadSessionId,
        objects: &[IncomingObject],
        admission: Option<&Admission>,
    ) -> Result<Received, StoreError> {
        self.upload_session(session)?;
        self.check_writable()?;
        let mut codecs = Vec::with_capacity(objects.len());
        for object in objects {
            let rule = match object.kind {
                ObjectKind::Node => Some("a node was sent where chunks are expected"),
                ObjectKind::Chunk if object.plain_len == 0 => Some("a chunk is empty"),
                ObjectKind::Chunk if object.plain_len as usize > CHUNK_BYTES_MAX => Some("a chunk is above 4 MiB"),
                ObjectKind::Chunk => None,
            };
            codecs.push(check_record(object, rule)?);
        }
        let ids: Vec<ObjectId> = objects.iter().map(|object| object.id).collect();
        let (known, _) = self.known(session, &ids)?;
        let mut plaintext = Vec::new();
        let mut frames = Vec::new();
        let mut sealed: Vec<Sealed> = Vec::new();
        let mut seen = HashSet::new();
        for ((object, codec), known) in objects.iter().zip(codecs).zip(known) {
            unpack(codec, &object.payload, object.plain_len, &mut plaintext)
                .map_err(|source| StoreError::BadCompression { id: object.id, source })?;
            if ObjectId::from(self.id_keys.chunk_id(&plaintext)) != object.id {
                return Err(StoreError::IdMismatch(object.id));
            }
            // Verified even when known: the answer may not tell a wrong chunk with a stored id from a right one.
            if known == Known::Sound || !seen.insert(object.id) {
                continue;
            }
            sealed.push(self.seal(object, codec, &object.payload, 0, &mut frames)?);
        }
        let mut appending = self.quota.append(session, admission, frames.len() as u64)?;
        let places = self.append(&sealed, &frames)?;
        let mut state = self.state.lock();
        // Rows appear only under this lock: asked again here, an object can never be pending beside a sound row.
        let ids: Vec<ObjectId> = sealed.iter().map(|object| object.id).collect();
        let rows = self.object_rows(&ids)?;
        let mut appender = self.appender.lock();
        let mut received = Received { incarnation: 0, new_objects: 0, stored_bytes: 0 };
        for ((object, place), row) in sealed.iter().zip(&places).zip(rows) {
            if !appender.tracks(&place.pack) {
                // The pack was given up in between: the sender learns it from the incarnation.
                return Err(StoreError::IncarnationChanged { incarnation: self.incarnation_of(&state) });
            }
            if state.pending.contains_key(&object.id) || row.is_some_and(|row| !row.damaged) {
                appender.recorded(&place.pack, 1);
                continue;
            }
            let pending = Pending { row: object.row(*place), heals: row.is_some(), session: *session };
            state.pending.insert(object.id, pending);
            appending.hand_over(place.frame_len.into());
            received.new_objects += 1;
            received.stored_bytes += u64::from(place.frame_len);
        }
        received.incarnation = self.incarnation_of(&state);
        self.shared.stats.received(&received);
        Ok(received)
    }

    fn seal(
        &self,
        object: &IncomingObject,
        codec: Codec,
        payload: &[u8],
        logical_bytes: u64,
        frames: &mut Vec<u8>,
    ) -> Result<Sealed, StoreError> {
        let nonce = self.shared.world.random_bytes().map_err(StoreError::Random)?;
        let start = frames.len();
        seal_frame(
            self.shared.aead,
            &self.id,
            self.data_key()?,
            &nonce,
            object.kind,
            codec,
            &object.id,
            object.plain_len,
            payload,
            frames,
        )?;
        Ok(Sealed {
            id: object.id,
            kind: object.kind,
            codec,
            plain_len: object.plain_len,
            logical_bytes,
            frame: start..frames.len(),
        })
    }

    /// Appends sealed frames in order. A failed write gives its pack up.
    fn append(&self, sealed: &[Sealed], frames: &[u8]) -> Result<Vec<Place>, StoreError> {
        let key_epoch = self.data_key()?.epoch;
        let mut places: Vec<Place> = Vec::with_capacity(sealed.len());
        let mut failed: Option<(Option<PackId>, StoreError)> = None;
        {
            let mut appender = self.appender.lock();
            for object in sealed {
                let frame = NewFrame {
                    id: object.id,
                    kind: object.kind,
                    codec: object.codec,
                    plain_len: object.plain_len,
                    key_epoch,
                    bytes: &frames[object.frame.clone()],
                };
                match appender.append(&frame) {
                    Ok(place) => places.push(place),
                    Err(error) => {
                        for place in &places {
                            appender.recorded(&place.pack, 1);
                        }
                        failed = Some(error);
                        break;
                    }
                }
            }
        }
        if !places.is_empty() {
            self.upkeep.written_ns.store(self.now_ns(), Ordering::Release);
        }
        match failed {
            None => Ok(places),
            Some((pack, error)) => {
                if let Some(pack) = pack {
                    self.poison(&pack);
                }
                Err(self.explain(error))
            }
        }
    }

    /// A full disk is the disk's error, not an unknown one.
    fn explain(&self, error: StoreError) -> StoreError {
        match &error {
            StoreError::Io { source, .. } if source.kind() == std::io::ErrorKind::StorageFull => self
                .shared
                .check_space()
                .err()
                .unwrap_or(StoreError::DiskFull { volume: Volume::Data, free: 0, reserve: 0 }),
            _ => error,
        }
    }

    /// Makes everything received so far durable, and the session's claims holds: the sender lets go of what it was
    /// told is there, so that has to stay over a restart as well.
    pub(crate) fn flush(&self, session: &UploadSessionId, incarnation: u64) -> Result<Durable, StoreError> {
        self.upload_session(session)?;
        let (in_force, _) = self.make_durable(Some((session, incarnation)))?;
        Ok(Durable { incarnation: in_force, new_objects: 0, stored_bytes: 0 })
    }

    /// Verifies, appends and records nodes, children first, with everything received before; durable on return.
    pub(crate) fn put_nodes(
        &self,
        session: &UploadSessionId,
        objects: &[IncomingObject],
    ) -> Result<Durable, StoreError> {
        self.upload_session(session)?;
        self.check_writable()?;
        let mut nodes = Vec::with_capacity(objects.len());
        for object in objects {
            nodes.push(self.verify_node(object)?);
        }
        self.check_children(&nodes)?;
        let logical_bytes = nodes.iter().map(|node| node.logical_bytes).max().unwrap_or(0);
        self.quota.reserve_logical(session, logical_bytes)?;
        // Only nodes that are not stored yet are sealed and appended.
        let ids: Vec<ObjectId> = nodes.iter().map(|node| node.id).collect();
        let (known, _) = self.known(session, &ids)?;
        let (mut frames, mut sealed, mut seen) = (Vec::new(), Vec::new(), HashSet::new());
        for ((object, node), known) in objects.iter().zip(&nodes).zip(known) {
            if known == Known::Sound || !seen.insert(node.id) {
                continue;
            }
            let (codec, payload) = compress_node(&node.plaintext)?;
            sealed.push(self.seal(object, codec, &payload, node.logical_bytes, &mut frames)?);
        }
        let mut appending = self.quota.append(session, None, frames.len() as u64)?;
        let places = self.append(&sealed, &frames)?;
        let rows: HashMap<ObjectId, ObjectRow> =
            sealed.iter().zip(&places).map(|(object, place)| (object.id, object.row(*place))).collect();
        let outcome = self.barrier().and_then(|()| {
            let mut state = self.state.lock();
            let incarnation = self.incarnation_of(&state);
            let ticket = self.apply(&mut state, session, &nodes, &rows)?;
            // Its failure is not the nodes': they have their rows, and what was reserved for them is counted.
            let held = self.hold_stored(&mut state, session);
            Ok((ticket, held, incarnation))
        });
        if outcome.is_err() {
            let mut appender = self.appender.lock();
            for place in &places {
                appender.recorded(&place.pack, 1);
            }
        }
        let (ticket, held, incarnation) = outcome?;
        appending.hand_over_all();
        let ticket = held?.unwrap_or(ticket);
        self.sync(ticket)?;
        let durable = Durable {
            incarnation,
            new_objects: sealed.len() as u64,
            stored_bytes: places.iter().map(|place| u64::from(place.frame_len)).sum(),
        };
        self.shared.stats.durable(&durable);
        Ok(durable)
    }

    fn verify_node(&self, object: &IncomingObject) -> Result<PreparedNode, StoreError> {
        let rule = match object.kind {
            ObjectKind::Chunk => Some("a chunk was sent where nodes are expected"),
            ObjectKind::Node if object.plain_len as usize > NODE_BYTES_MAX => Some("a node is above its limit"),
            ObjectKind::Node => None,
        };
        let codec = check_record(object, rule)?;
        let mut plaintext = Vec::new();
        unpack(codec, &object.payload, object.plain_len, &mut plaintext)
            .map_err(|source| StoreError::BadCompression { id: object.id, source })?;
        if ObjectId::from(self.id_keys.node_id(&plaintext)) != object.id {
            return Err(StoreError::IdMismatch(object.id));
        }
        let bad = |source| StoreError::BadNode { id: object.id, source };
        let view = NodeView::parse(&plaintext).map_err(bad)?;
        let node_children: Vec<ObjectId> = view.nodes().map(ObjectId::from).collect();
        let chunk_children: Vec<ObjectId> = view.chunks().map(ObjectId::from).collect();
        let logical_bytes = view.logical_bytes;
        Ok(PreparedNode { id: object.id, plaintext, node_children, chunk_children, logical_bytes })
    }

    /// Syncs the packs written so far: bytes, then names.
    pub(crate) fn barrier(&self) -> Result<(), StoreError> {
        self.sync_writer(&self.appender)?;
        self.shared.stats.barrier();
        Ok(())
    }

    /// Syncs the packs of one writer: bytes, then names.
    pub(super) fn sync_writer(&self, writer: &Mutex<Appender>) -> Result<(), StoreError> {
        let dirty = writer.lock().dirty();
        let directory = crate::pack::packs_directory(&self.directory);
        let mut directory_synced = false;
        for pack in dirty {
            let synced = pack.file.sync_data().and_then(|()| {
                if !pack.named && !directory_synced {
                    self.shared.world.vfs.sync_dir(&directory)?;
                    directory_synced = true;
                }
                Ok(())
            });
            if let Err(error) = synced.at(&crate::pack::pack_path(&directory, &pack.pack)) {
                self.poison(&pack.pack);
                tracing::error!(vault = %self.id, pack = %pack.pack, %error, "sync failed");
                return Err(StoreError::IncarnationChanged { incarnation: self.incarnation() });
            }
            writer.lock().synced(&pack.pack, pack.len);
        }
        Ok(())
    }

    /// A barrier and the rows of everything it covers.
    pub(crate) fn make_durable(&self, expected: Option<(&UploadSessionId, u64)>) -> Result<(u64, Ticket), StoreError> {
        self.barrier()?;
        let (incarnation, ticket) = {
            let mut state = self.state.lock();
            let incarnation = self.incarnation_of(&state);
            match expected {
                Some((_, expected)) if expected != incarnation => {
                    return Err(StoreError::IncarnationChanged { incarnation });
                }
                Some((session, _)) => self.hold_claims(&mut state, session)?,
                None => {}
            }
            (incarnation, self.apply(&mut state, &NOBODY, &[], &HashMap::new())?)
        };
        self.sync(ticket)?;
        Ok((incarnation, ticket))
    }
}

impl Sealed {
    const fn row(&self, place: Place) -> ObjectRow {
        ObjectRow {
            kind: self.kind,
            codec: self.codec,
            damaged: false,
            place,
            plain_len: self.plain_len,
            references: 0,
            logical_bytes: self.logical_bytes,
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Known {
    Absent,
    /// A row exists, its frame is damaged: counts as absent, and a new copy heals it.
    Damaged,
    Sound,
}

fn check_record(object: &IncomingObject, broken: Option<&'static str>) -> Result<Codec, StoreError> {
    match (broken, Codec::from_byte(object.codec)) {
        (Some(rule), _) => Err(StoreError::BadRecord { id: object.id, rule }),
        (None, Ok(codec)) => Ok(codec),
        (None, Err(_)) => Err(StoreError::BadRecord { id: object.id, rule: "unknown codec; use a newer server" }),
    }
}
