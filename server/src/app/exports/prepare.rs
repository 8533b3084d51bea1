//! Preparing exports: a fresh dump by the agent, or the newest where that was chosen and the agent is away; every chunk of
//! it read and verified; its snapshot held; then it is published. Each look goes on where the one before, or the server
//! before, has come to.

use crate::app::engine::on_store;
use crate::app::exports::FileOfExport;
use crate::app::{App, AppError, server_actor};
use control::{ControlError, Export, ExportContent, ExportFile, ExportState, Job, JobState, Plan};
use repo_format::entry::{EntryKind, PathKey};
use repo_format::id::{SnapshotId, VaultId};
use repo_format::pathmap::Cursor;
use sftp_gateway::sftp::RunningDigests;
use std::sync::Arc;
use store::{SnapshotInfo, Store, StoreError};
use tokio::runtime::Handle;

/// For so long it is waited for an agent that is away.
const AGENT_AWAY_MAX_NS: i64 = 3 * 24 * 3600 * 1_000_000_000;
/// A snapshot is held for so long while its dump is verified.
const HELD_WHILE_VERIFIED_NS: i64 = 2 * 24 * 3600 * 1_000_000_000;
/// Most files of an export.
const FILES_MAX: usize = 1000;
/// Bytes read at once.
const STEP_BYTES: u32 = 4 << 20;
/// Progress is written down every so many bytes.
const PROGRESS_BYTES: u64 = 256 << 20;

/// What an export waits for, or serves.
enum Found {
    /// The next look goes on.
    Later,
    /// It cannot be prepared.
    Failed(String),
    /// This snapshot holds the dump.
    Dump(SnapshotId),
}

/// Whether a plan dumps something.
pub(super) fn is_dump(body: &str) -> bool {
    let kind = serde_json::from_str::<serde_json::Value>(body).ok();
    let kind = kind.as_ref().and_then(|body| body.pointer("/source/kind")).and_then(serde_json::Value::as_str);
    matches!(kind, Some("postgresql" | "mariadb" | "sqlite" | "command"))
}

impl App {
    /// One look at all exports that are being prepared. Gives how many are ready now.
    pub(crate) async fn prepare_exports(self: &Arc<Self>) -> Result<usize, AppError> {
        let scope = self.own_scope();
        let mut ready = 0;
        for export in self.control.exports_in_progress(&scope).await? {
            let found = match self.dump_of(&export).await {
                Ok(found) => found,
                Err(error) => {
                    tracing::warn!(export = %export.id, %error, "an export cannot be prepared now; tried again");
                    continue;
                }
            };
            let failed = match found {
                Found::Later => continue,
                Found::Failed(reason) => reason,
                Found::Dump(snapshot) => match self.publish(&export, snapshot).await {
                    Ok(()) => {
                        ready += 1;
                        continue;
                    }
                    Err(AppError::Retry(reason)) => {
                        tracing::warn!(export = %export.id, reason, "an export cannot be prepared now; tried again");
                        continue;
                    }
                    Err(error) => error.to_string(),
                },
            };
            let now_ns = self.clock.now_ns();
            let ended = self.control.fail_export(&scope, &server_actor(), &export.id, &failed, now_ns).await;
            match ended {
                Ok(ended) => {
                    tracing::error!(export = %export.id, reference = ended.reference.as_deref(), reason = failed, "an export failed");
                }
                // Somebody was faster.
                Err(ControlError::WrongState { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
        let unknown = self.control.exports_of_unknown_state(&scope).await?;
        if unknown > 0 {
            tracing::error!(
                exports = unknown,
                "exports are in a state that this version does not know: which version wrote it?"
            );
        }
        Ok(ready)
    }

    /// Holds the snapshots of ready exports, also of one that became ready right before the server ended.
    pub(crate) async fn hold_ready_exports(&self) -> Result<(), AppError> {
        let (scope, mut after) = (self.own_scope(), None);
        loop {
            let page = self.control.exports(&scope, None, after, 200).await?;
            let Some(last) = page.last() else { return Ok(()) };
            after = Some((last.requested_ns, last.id));
            for export in page.iter().filter(|export| export.state == ExportState::Ready) {
                let snapshot = export.content.as_ref().and_then(|content| content.snapshot.parse().ok());
                if let (Some(content), Some(snapshot), Some(until_ns)) = (&export.content, snapshot, export.expires_ns)
                {
                    self.hold(content.vault, snapshot, until_ns).await?;
                }
            }
        }
    }

    /// Until a moment at least.
    async fn hold(&self, vault: VaultId, snapshot: SnapshotId, until_ns: i64) -> Result<(), AppError> {
        on_store(&self.store, move |store| {
            let held = store.snapshot(&vault, &snapshot)?.hold_until_ns;
            if held.is_none_or(|held_ns| held_ns < until_ns) {
                store.hold_snapshot(&vault, &snapshot, Some(until_ns), false)?;
            }
            Ok(())
        })
        .await
    }

    /// Orders a dump, waits for it, or finds it.
    async fn dump_of(&self, export: &Export) -> Result<Found, AppError> {
        let (scope, now_ns) = (self.own_scope(), self.clock.now_ns());
        let plan = match self.control.plan(&scope, &export.plan).await {
            Ok(plan) => plan,
            Err(ControlError::NotFound { .. }) => return Ok(Found::Failed("its plan was deleted".into())),
            Err(error) => return Err(error.into()),
        };
        if let Some(id) = &export.job {
            let job = self.control.job(&scope, id).await?;
            return Ok(of_job(&job));
        }
        if !self.agents.is_online(plan.computer) {
            if export.newest_will_do
                && let Some(newest) = self.newest_dump(&plan).await?
            {
                return Ok(Found::Dump(newest));
            }
            return Ok(match now_ns.saturating_sub(export.state_ns) > AGENT_AWAY_MAX_NS {
                true => Found::Failed("the computer with the database has not been heard of for three days".into()),
                false => Found::Later,
            });
        }
        match self.control.order_backup(&scope, &server_actor(), &plan.id, now_ns).await {
            Ok(job) => {
                self.control.export_job(&export.id, &job.id).await?;
                self.agents.ring(job.computer);
                Ok(Found::Later)
            }
            // One that began before this request is no fresh dump: the next look orders another.
            Err(ControlError::WrongState { .. }) => Ok(Found::Later),
            Err(error) => Err(error.into()),
        }
    }

    /// The newest complete snapshot that a plan has made.
    async fn newest_dump(&self, plan: &Plan) -> Result<Option<SnapshotId>, AppError> {
        let computer = self.control.computer(&self.own_scope(), &plan.computer).await?.name;
        let Some(vault) = self.control.vault_of_user(&plan.user).await? else { return Ok(None) };
        let series = plan.name.clone();
        on_store(&self.store, move |store| {
            let snapshots = store.snapshots(&vault)?;
            let is_of_plan =
                |found: &&SnapshotInfo| found.deleted.is_none() && found.computer == computer && found.series == series;
            Ok(snapshots.iter().filter(is_of_plan).max_by_key(|found| found.committed_ns).map(|found| found.snapshot))
        })
        .await
    }

    /// Verifies what the snapshot holds, and makes the export ready.
    async fn publish(self: &Arc<Self>, export: &Export, snapshot: SnapshotId) -> Result<(), AppError> {
        let vault = self.control.vault_of_user(&export.user).await?;
        let vault = vault.ok_or_else(|| AppError::WrongState("the user has no vault any more".into()))?;
        self.hold(vault, snapshot, self.clock.now_ns().saturating_add(HELD_WHILE_VERIFIED_NS)).await?;
        let (app, id) = (self.clone(), export.id);
        let runtime = Handle::current();
        let progress = move |done, total| {
            // What is not written down now is with the next step.
            let _ = runtime.block_on(app.control.export_progress(&id, done, total));
        };
        let store = self.store.clone();
        let content = tokio::task::spawn_blocking(move || verify(&store, vault, snapshot, progress)).await;
        let content = content.map_err(|error| AppError::Internal(error.to_string()))??;
        if content.files.is_empty() {
            return Err(AppError::WrongState("the snapshot holds no file".into()));
        }
        let (scope, now_ns) = (self.own_scope(), self.clock.now_ns());
        let ready = self.control.publish_export(&scope, &server_actor(), &export.id, &content, now_ns).await?;
        if let Some(until_ns) = ready.expires_ns {
            self.hold(vault, snapshot, until_ns).await?;
        }
        tracing::info!(export = %export.id, files = content.files.len(), bytes = content.size_bytes(), "an export is ready");
        Ok(())
    }
}

fn of_job(job: &Job) -> Found {
    match job.state {
        JobState::Queued | JobState::Running => Found::Later,
        JobState::Succeeded | JobState::Warning => match job.snapshot.as_deref().map(str::parse) {
            Some(Ok(snapshot)) => Found::Dump(snapshot),
            _ => Found::Failed("the backup ended without a snapshot".into()),
        },
        JobState::Failed | JobState::Cancelled | JobState::Missed => {
            let reason = job.message.clone().unwrap_or_else(|| job.state.as_str().to_owned());
            Found::Failed(format!("the dump did not succeed: {reason}"))
        }
    }
}

/// Reads every byte of every file of a snapshot. Blocks for as long as that takes.
fn verify(
    store: &Arc<Store>,
    vault: VaultId,
    snapshot: SnapshotId,
    progress: impl Fn(u64, u64),
) -> Result<ExportContent, StoreError> {
    let found = store.readable_snapshot(&vault, &snapshot)?;
    let reader = store.reader(&vault)?;
    let mut cursor = Cursor::new(&reader, found.root);
    let mut paths = Vec::new();
    let mut total: u64 = 0;
    while let Some((key, entry)) = cursor.next()? {
        if let EntryKind::File { size, .. } = entry.kind {
            total = total.saturating_add(size);
            paths.push(key);
        }
        if paths.len() > FILES_MAX {
            return Err(StoreError::Unknown("the snapshot holds more files than an export may"));
        }
    }
    let (mut done, mut told) = (0, 0);
    let mut files: Vec<ExportFile> = Vec::with_capacity(paths.len());
    for key in paths {
        let path = text_path(&key);
        let Some(file) = FileOfExport::open(store, vault, &snapshot, path.as_bytes())? else { continue };
        let mut digests = RunningDigests::default();
        let mut at = 0;
        while at < file.size() {
            let bytes = file.read(at, STEP_BYTES)?;
            digests.update(&bytes);
            at += bytes.len() as u64;
            done += bytes.len() as u64;
            if done - told >= PROGRESS_BYTES {
                told = done;
                progress(done, total);
            }
        }
        let [md5, sha1, sha256] = digests.finish();
        let name = String::from_utf8_lossy(key.name()).into_owned();
        let is_taken = files.iter().any(|file| file.name == name);
        let name = if is_taken { path.trim_start_matches('/').replace('/', "_") } else { name };
        files.push(ExportFile { name, path, size_bytes: file.size(), sha256, sha1, md5 });
    }
    files.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(ExportContent { vault, snapshot: snapshot.to_string(), dumped_ns: found.committed_ns, files })
}

/// Names of dumps are text: the agent makes them.
fn text_path(key: &PathKey) -> String {
    String::from_utf8_lossy(&key.to_path()).into_owned()
}
