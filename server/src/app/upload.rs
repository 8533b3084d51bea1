//! Uploads: begin, ask, receive, make durable, commit.

use crate::app::engine::on_store;
use crate::app::{App, AppError, Grant};
use crate::limits::{GROUP_BYTES, GROUP_OBJECTS_MAX};
use parking_lot::Mutex;
use repo_format::id::{NodeId, ObjectId, ObjectKind, SnapshotId, UploadSessionId, VaultId};
use repo_format::journal::{COMPUTER_BYTES_MAX, SERIES_BYTES_MAX};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};
use store::{Admission, CommitInput, Durable, IncomingObject, Received, SnapshotInfo, Store};
use tokio::task::JoinHandle;

/// A session without a request for this long is not waited for when the server stops.
const BUSY_AGE_MAX: Duration = Duration::from_secs(10);
/// A session without a request for this long is not counted as running.
const RUNNING_AGE_MAX: Duration = Duration::from_secs(300);

/// When each upload session had its last request; what is forgotten here still lives in the store.
#[derive(Default)]
pub(crate) struct RunningUploads {
    last: Mutex<HashMap<(VaultId, UploadSessionId), Instant>>,
}

impl RunningUploads {
    fn seen(&self, vault: VaultId, session: UploadSessionId) {
        self.last.lock().insert((vault, session), Instant::now());
    }
    fn ended(&self, vault: VaultId, session: UploadSessionId) {
        self.last.lock().remove(&(vault, session));
    }
    fn younger_than(&self, age: Duration) -> u64 {
        let mut last = self.last.lock();
        last.retain(|_, seen| seen.elapsed() < RUNNING_AGE_MAX);
        last.values().filter(|seen| seen.elapsed() < age).count() as u64
    }
}

/// An upload session as the agent needs to know it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Upload {
    /// Its id.
    pub session: UploadSessionId,
    /// Changes when what was received is forgotten.
    pub incarnation: u64,
    /// Objects of its base snapshot that are damaged now.
    pub base_damaged: Vec<ObjectId>,
}

fn is_name(text: &str, bytes_max: usize) -> bool {
    !text.is_empty() && text.len() <= bytes_max && !text.contains('\0')
}

impl App {
    /// Starts an upload session. Refused while the server is going down.
    pub async fn begin_upload(
        &self,
        grant: Grant,
        computer: String,
        series: String,
        base: Option<SnapshotId>,
    ) -> Result<Upload, AppError> {
        if self.is_draining() {
            return Err(AppError::Retry("the server is going down; try again in a moment".into()));
        }
        if !is_name(&computer, COMPUTER_BYTES_MAX) {
            return Err(AppError::Invalid(format!("computer: must have 1 to {COMPUTER_BYTES_MAX} bytes")));
        }
        if !is_name(&series, SERIES_BYTES_MAX) {
            return Err(AppError::Invalid(format!("series: must have 1 to {SERIES_BYTES_MAX} bytes")));
        }
        let vault = grant.vault();
        self.check_takes_backups(vault).await?;
        self.check_space()?;
        let begin = move |store: &Store| store.begin_upload(&vault, &computer, &series, base.as_ref());
        let (session, incarnation) = on_store(&self.store, begin).await?;
        self.uploads.seen(vault, session);
        let base_damaged = on_store(&self.store, move |store| store.damaged_in_base(&vault, &session)).await?;
        Ok(Upload { session, incarnation, base_damaged })
    }

    /// A live session.
    pub async fn upload_session(&self, grant: Grant, session: UploadSessionId) -> Result<Upload, AppError> {
        let vault = grant.vault();
        let incarnation = self.live_upload(grant, session).await?;
        let base_damaged = on_store(&self.store, move |store| store.damaged_in_base(&vault, &session)).await?;
        Ok(Upload { session, incarnation, base_damaged })
    }

    /// That a session lives; answers the incarnation.
    pub async fn live_upload(&self, grant: Grant, session: UploadSessionId) -> Result<u64, AppError> {
        let vault = grant.vault();
        let incarnation = on_store(&self.store, move |store| store.upload_session(&vault, &session)).await?;
        self.uploads.seen(vault, session);
        Ok(incarnation)
    }

    /// Which objects the vault has, and the incarnation that is true for.
    pub async fn have(
        &self,
        grant: Grant,
        session: UploadSessionId,
        ids: Vec<ObjectId>,
    ) -> Result<(Vec<bool>, u64), AppError> {
        let vault = grant.vault();
        self.uploads.seen(vault, session);
        on_store(&self.store, move |store| store.have(&vault, &session, &ids)).await
    }

    /// Takes chunks as they arrive, in a body of `body_bytes`. Refuses at once when the session is none, when the disk
    /// is full, or when the body does not fit under a quota: its chunks take more room than its bytes.
    pub async fn receive_chunks(
        &self,
        grant: Grant,
        session: UploadSessionId,
        body_bytes: u64,
    ) -> Result<ChunkReceiver, AppError> {
        self.check_space()?;
        let vault = grant.vault();
        let (admission, incarnation) =
            on_store(&self.store, move |store| store.admit(&vault, &session, body_bytes)).await?;
        self.uploads.seen(vault, session);
        Ok(ChunkReceiver {
            store: self.store.clone(),
            vault,
            admission: Arc::new(admission),
            group: Vec::new(),
            group_bytes: 0,
            in_flight: None,
            objects: 0,
            sum: Received { incarnation, new_objects: 0, stored_bytes: 0 },
        })
    }

    /// Stores nodes, children first, and makes everything received before durable.
    pub async fn put_nodes(
        &self,
        grant: Grant,
        session: UploadSessionId,
        nodes: Vec<IncomingObject>,
    ) -> Result<Durable, AppError> {
        let vault = grant.vault();
        self.uploads.seen(vault, session);
        on_store(&self.store, move |store| store.put_nodes(&vault, &session, &nodes)).await
    }

    /// Makes everything received under `incarnation` durable.
    pub async fn flush(&self, grant: Grant, session: UploadSessionId, incarnation: u64) -> Result<Durable, AppError> {
        let vault = grant.vault();
        self.uploads.seen(vault, session);
        on_store(&self.store, move |store| store.flush(&vault, &session, incarnation)).await
    }

    /// Commits `root` as a snapshot; the same again answers the same.
    pub async fn commit(
        &self,
        grant: Grant,
        session: UploadSessionId,
        root: NodeId,
        summary_json: Vec<u8>,
    ) -> Result<SnapshotInfo, AppError> {
        let vault = grant.vault();
        self.uploads.seen(vault, session);
        let input = CommitInput { root, summary_json };
        let snapshot = on_store(&self.store, move |store| store.commit(&vault, &session, &input)).await?;
        self.uploads.ended(vault, session);
        self.housekeeping.notify_one();
        tracing::info!(%vault, snapshot = %snapshot.snapshot, logical_bytes = snapshot.logical_bytes, "snapshot committed");
        Ok(snapshot)
    }

    /// Ends a session without a snapshot.
    pub async fn abort_upload(&self, grant: Grant, session: UploadSessionId) -> Result<(), AppError> {
        let vault = grant.vault();
        on_store(&self.store, move |store| store.abort_upload(&vault, &session)).await?;
        self.uploads.ended(vault, session);
        self.housekeeping.notify_one();
        Ok(())
    }

    /// Upload sessions with a request in the last minutes.
    pub fn upload_sessions(&self) -> u64 {
        self.uploads.younger_than(RUNNING_AGE_MAX)
    }

    /// Upload sessions in the midst of work: a server that stops waits for them.
    pub fn busy_uploads(&self) -> u64 {
        self.uploads.younger_than(BUSY_AGE_MAX)
    }
}

/// Hands chunks to the store in groups while further ones arrive; at most two groups are in memory.
pub struct ChunkReceiver {
    store: Arc<Store>,
    vault: VaultId,
    admission: Arc<Admission>,
    group: Vec<IncomingObject>,
    group_bytes: usize,
    in_flight: Option<JoinHandle<Result<Received, AppError>>>,
    objects: u64,
    sum: Received,
}

impl ChunkReceiver {
    /// One more chunk; waits while the store is busy with the group before.
    pub async fn push(&mut self, object: IncomingObject) -> Result<(), AppError> {
        if object.kind != ObjectKind::Chunk {
            return Err(AppError::Invalid(format!("object {}: is no chunk", object.id)));
        }
        self.objects += 1;
        self.group_bytes += object.payload.len();
        self.group.push(object);
        if self.group_bytes >= GROUP_BYTES || self.group.len() >= GROUP_OBJECTS_MAX {
            self.send().await?;
        }
        Ok(())
    }

    async fn send(&mut self) -> Result<(), AppError> {
        self.settle().await?;
        let group = std::mem::take(&mut self.group);
        self.group_bytes = 0;
        let (store, vault, admission) = (self.store.clone(), self.vault, self.admission.clone());
        let put = move || Ok(store.put_admitted_chunks(&vault, &admission, &group)?);
        self.in_flight = Some(tokio::task::spawn_blocking(put));
        Ok(())
    }

    async fn settle(&mut self) -> Result<(), AppError> {
        let Some(in_flight) = self.in_flight.take() else { return Ok(()) };
        let received =
            in_flight.await.map_err(|error| AppError::Internal(format!("a call of the store was lost: {error}")))??;
        // A change between two groups must not be hidden by the last answer: an incarnation seen only now says
        // nothing about the groups before.
        if received.incarnation != self.sum.incarnation {
            return Err(AppError::IncarnationChanged);
        }
        self.sum.new_objects += received.new_objects;
        self.sum.stored_bytes += received.stored_bytes;
        Ok(())
    }

    /// The body has ended as it should: everything pushed is received. Answers also how many objects that were.
    pub async fn finish(mut self) -> Result<(Received, u64), AppError> {
        if !self.group.is_empty() {
            self.send().await?;
        }
        self.settle().await?;
        Ok((self.sum, self.objects))
    }
}
