//! Reading objects back, as they are stored, and files as they were.

use crate::app::engine::on_store;
use crate::app::{App, AppError, Grant};
use crate::limits::{ANSWER_IDLE_TIMEOUT, ANSWER_PIECE_BYTES, ANSWER_PIECES_MAX};
use bytes::Bytes;
use repo_format::entry::{Content, Element};
use repo_format::filelist::ContentCursor;
use repo_format::id::{ObjectId, RestoreId, SnapshotId};
use store::{Delivered, StoreError, VaultReader};
use tokio::runtime::Handle;
use tokio::sync::mpsc;

/// An answer made by a blocking thread, taken by the client at its own speed. Dropping it stops the thread.
pub struct Pieces<T> {
    receiver: mpsc::Receiver<Result<T, AppError>>,
}

impl<T> Pieces<T> {
    /// The next piece; `None` at the end. After an error nothing follows.
    pub async fn next(&mut self) -> Option<Result<T, AppError>> {
        self.receiver.recv().await
    }
}

/// The blocking thread's end.
struct Outlet<T> {
    sender: mpsc::Sender<Result<T, AppError>>,
    runtime: Handle,
}

impl<T> Outlet<T> {
    /// Waits for the client; an error when it is gone or asleep.
    fn send(&self, piece: Result<T, AppError>) -> Result<(), StoreError> {
        let sent =
            self.runtime.block_on(async { tokio::time::timeout(ANSWER_IDLE_TIMEOUT, self.sender.send(piece)).await });
        match sent {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) | Err(_) => Err(StoreError::Unknown("the client went away")),
        }
    }
}

/// Runs `work` on a blocking thread; its error becomes the last piece.
fn produce<T: Send + 'static>(work: impl FnOnce(&Outlet<T>) -> Result<(), StoreError> + Send + 'static) -> Pieces<T> {
    let (sender, receiver) = mpsc::channel(ANSWER_PIECES_MAX);
    let outlet = Outlet { sender, runtime: Handle::current() };
    tokio::task::spawn_blocking(move || {
        if let Err(error) = work(&outlet) {
            // A client that is gone does not hear of it.
            let _ = outlet.send(Err(error.into()));
        }
    });
    Pieces { receiver }
}

impl App {
    /// Objects as stored, in the store's order, one outcome for each distinct id.
    pub fn read_objects(&self, grant: Grant, ids: Vec<ObjectId>) -> Pieces<Delivered> {
        let (store, vault) = (self.store.clone(), grant.vault());
        produce(move |outlet| store.read_objects(&vault, &ids, |delivered| outlet.send(Ok(delivered))))
    }

    /// Keeps everything in a snapshot until the restore ends, whatever is deleted meanwhile.
    pub async fn begin_restore(&self, grant: Grant, snapshot: SnapshotId) -> Result<RestoreId, AppError> {
        let vault = grant.vault();
        on_store(&self.store, move |store| store.begin_restore(&vault, &snapshot)).await
    }

    /// A restore goes on.
    pub async fn touch_restore(&self, grant: Grant, restore: RestoreId) -> Result<(), AppError> {
        let vault = grant.vault();
        on_store(&self.store, move |store| store.touch_restore(&vault, &restore)).await
    }

    /// A restore is over; one that has ended already is no error.
    pub async fn end_restore(&self, grant: Grant, restore: RestoreId) -> Result<(), AppError> {
        let vault = grant.vault();
        on_store(&self.store, move |store| store.end_restore(&vault, &restore)).await?;
        self.housekeeping.notify_one();
        Ok(())
    }

    /// A vault's id keys, for its agents.
    pub async fn id_keys(&self, grant: Grant) -> Result<[u8; repo_format::keys::IdKeys::LEN], AppError> {
        let vault = grant.vault();
        Ok(on_store(&self.store, move |store| store.id_keys(&vault)).await?.to_bytes())
    }
}

/// The bytes `start..end` of a file, in pieces. `end` must not be behind the file's end.
pub(crate) fn file_bytes(reader: VaultReader, content: Content, start: u64, end: u64) -> Pieces<Bytes> {
    produce(move |outlet| {
        let zeros = Bytes::from(vec![0; ANSWER_PIECE_BYTES]);
        let mut cursor = ContentCursor::new(&reader, &content);
        let mut at = start;
        while at < end {
            let Some((first, element)) = cursor.next_from(at)? else {
                return Err(repo_format::FormatError::invalid("content list", "ends before the file does").into());
            };
            let skipped = at.saturating_sub(first);
            let len = element.len().saturating_sub(skipped).min(end - at);
            match element {
                Element::Hole { .. } => {
                    let mut left = len;
                    while left > 0 {
                        let piece = left.min(zeros.len() as u64);
                        outlet.send(Ok(zeros.slice(..piece as usize)))?;
                        left -= piece;
                    }
                }
                Element::Data { chunk, offset, .. } => {
                    let bytes = Bytes::from_owner(reader.chunk(&chunk)?);
                    let from = u64::from(offset) + skipped;
                    if from + len > bytes.len() as u64 {
                        return Err(repo_format::FormatError::invalid("content list", "reaches behind a chunk").into());
                    }
                    let mut rest = bytes.slice(from as usize..(from + len) as usize);
                    while !rest.is_empty() {
                        outlet.send(Ok(rest.split_to(rest.len().min(ANSWER_PIECE_BYTES))))?;
                    }
                }
            }
            at += len;
        }
        Ok(())
    })
}
