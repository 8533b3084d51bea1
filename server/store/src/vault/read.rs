//! Reading objects: rows, coalesced reads, authentication, and a cache of decoded objects.

use super::Vault;
use super::damage::is_damage;
use super::upload::unpack;
use crate::error::StoreError;
use crate::meta::rows::ObjectRow;
use crate::pack::read_frame;
use repo_format::compress::Codec;
use repo_format::id::{ChunkId, NodeId, ObjectId, ObjectKind};
use repo_format::node::NodeSource;
use std::sync::Arc;

/// An object as stored, opened but still compressed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredObject {
    /// Its id.
    pub id: ObjectId,
    /// Chunk or node.
    pub kind: ObjectKind,
    /// Of `payload`.
    pub codec: Codec,
    /// Length uncompressed.
    pub plain_len: u32,
    /// Compressed bytes, authenticated.
    pub payload: Vec<u8>,
}

/// What came of one id asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Delivered {
    /// Here it is.
    Object(StoredObject),
    /// Not in this vault.
    Absent(ObjectId),
    /// Stored, but damaged on disk.
    Damaged(ObjectId),
}

/// How often an object is looked up whose pack turns out to be gone.
const READ_ATTEMPTS_MAX: u32 = 4;

impl Vault {
    /// Reads objects in the order that is cheapest, each distinct id once, handing every outcome to `each`.
    pub(crate) fn read_objects(
        &self,
        ids: &[ObjectId],
        mut each: impl FnMut(Delivered) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        let mut ids = ids.to_vec();
        ids.sort_unstable();
        ids.dedup();
        // A pack may go while it is read from: its live frames have been copied then, and their rows say where to.
        let mut attempts = 1;
        while !ids.is_empty() {
            ids = self.read_once(&ids, attempts < READ_ATTEMPTS_MAX, &mut each)?;
            attempts += 1;
        }
        Ok(())
    }

    /// Reads what it can and returns the objects whose pack was gone, if `again`.
    fn read_once(
        &self,
        ids: &[ObjectId],
        again: bool,
        each: &mut impl FnMut(Delivered) -> Result<(), StoreError>,
    ) -> Result<Vec<ObjectId>, StoreError> {
        let mut moved = Vec::new();
        let (mut wanted, mut places): (Vec<(ObjectId, ObjectRow)>, _) = (Vec::new(), Vec::new());
        for (id, row) in ids.iter().zip(self.object_rows(ids)?) {
            match row {
                None => each(Delivered::Absent(*id))?,
                Some(row) if row.is_lost() => each(Delivered::Damaged(*id))?,
                Some(row) => {
                    places.push(row.place);
                    wanted.push((*id, row));
                }
            }
        }
        let (mut damaged, mut sound) = (Vec::new(), Vec::new());
        let outcome = self.files.read_frames(&places, |index, bytes| {
            let (id, row) = &wanted[index];
            let opened = match bytes {
                Err(StoreError::PackMissing(_)) if again => {
                    moved.push(*id);
                    return Ok(());
                }
                Ok(bytes) => read_frame(bytes, id, row, self.shared.aead, &self.id, &self.keys).map_err(StoreError::from),
                Err(error) => Err(error),
            };
            match opened {
                Ok(payload) => {
                    if row.damaged {
                        sound.push((*id, row.place));
                    }
                    self.shared.stats.read(payload.len() as u64);
                    each(Delivered::Object(StoredObject {
                        id: *id,
                        kind: row.kind,
                        codec: row.codec,
                        plain_len: row.plain_len,
                        payload,
                    }))
                }
                Err(_) if row.damaged => each(Delivered::Damaged(*id)),
                Err(error) => {
                    // Changed bytes are damage, and marking them says so. What cannot be read now may be readable later.
                    if is_damage(&error) {
                        damaged.push((*id, row.place));
                    } else {
                        tracing::error!(vault = %self.id, object = %id, pack = %row.place.pack, offset = row.place.offset, %error, "a stored object cannot be read");
                    }
                    each(Delivered::Damaged(*id))
                }
            }
        });
        self.mark_damaged(&damaged)?;
        self.lift_marks(&sound)?;
        outcome.map(|()| moved)
    }

    /// One object's plaintext through the cache; several askers share one read.
    pub(crate) fn plaintext(&self, id: ObjectId, kind: ObjectKind) -> Result<Arc<[u8]>, StoreError> {
        self.shared.nodes.get_or_read(self.id, id, || {
            let mut outcome = Delivered::Absent(id);
            self.read_objects(&[id], |delivered| {
                outcome = delivered;
                Ok(())
            })?;
            match outcome {
                Delivered::Object(object) if object.kind == kind => {
                    let mut plaintext = Vec::new();
                    unpack(object.codec, &object.payload, object.plain_len, &mut plaintext)?;
                    Ok(Arc::from(plaintext))
                }
                Delivered::Object(_) | Delivered::Absent(_) => Err(StoreError::NoSuchObject(id)),
                Delivered::Damaged(_) => Err(StoreError::Damaged(id)),
            }
        })
    }

    /// One chunk's plaintext.
    pub(crate) fn chunk(&self, id: &ChunkId) -> Result<Arc<[u8]>, StoreError> {
        self.plaintext(ObjectId::from(*id), ObjectKind::Chunk)
    }
}

impl NodeSource for Vault {
    type Error = StoreError;
    fn node(&self, id: &NodeId) -> Result<Arc<[u8]>, StoreError> {
        self.plaintext(ObjectId::from(*id), ObjectKind::Node)
    }
}
