//! What the SFTP gateway asks of the accounts, and what is written down of what it tells.

use crate::app::App;
use crate::app::exports::files::ExportDirectory;
use crate::metrics::Metrics;
use control::{ExportDownload, ExportDownloadId, ExportId, ExportKeyId, ExportRefusal};
use sftp_gateway::{Account, Accounts, Event, LogIn, LookUp, Observer, Refusal, SessionInfo, printable};
use std::sync::{Arc, Weak};
use tokio::sync::mpsc;

/// Downloads that wait to be written down; more than that are not, and said so.
const DOWNLOADS_WAITING_MAX: usize = 10_000;

/// The accounts of ready exports.
pub(crate) struct ExportAccounts(pub(crate) Weak<App>);

impl Accounts for ExportAccounts {
    fn look_up(&self, log_in: LogIn) -> LookUp {
        let app = self.0.upgrade();
        Box::pin(async move {
            let app = app.ok_or(Refusal::Unavailable)?;
            let (scope, now_ns) = (app.own_scope(), app.clock.now_ns());
            let (fingerprint, address) = (log_in.key.fingerprint(), log_in.peer.ip());
            let known = app.control.export_login(&scope, &log_in.user, &fingerprint, address, now_ns).await;
            let (export, key) = match known {
                Ok(Ok(found)) => found,
                Ok(Err(ExportRefusal::Account | ExportRefusal::Key)) => return Err(Refusal::Unknown),
                Ok(Err(ExportRefusal::Ended)) => return Err(Refusal::Expired),
                Ok(Err(ExportRefusal::Address)) => return Err(Refusal::Network),
                Err(error) => {
                    tracing::error!(%error, "an SFTP log-in could not be looked up");
                    return Err(Refusal::Unavailable);
                }
            };
            let content = export.content.ok_or(Refusal::Unknown)?;
            let fs = ExportDirectory::new(app.store.clone(), content, log_in.user).ok_or(Refusal::Unknown)?;
            Ok(Account { name: export.id.to_string(), key: key.id.to_string(), fs })
        })
    }
}

/// Writes down who downloaded what, and counts.
pub(crate) struct ExportObserver {
    metrics: Metrics,
    downloads: mpsc::Sender<(ExportDownload, String)>,
    clock: Arc<dyn crate::clock::Clock>,
}

impl ExportObserver {
    /// Writes with `app` for as long as it is there.
    pub(crate) fn start(app: &Arc<App>, metrics: Metrics) -> ExportObserver {
        let (downloads, mut waiting) = mpsc::channel::<(ExportDownload, String)>(DOWNLOADS_WAITING_MAX);
        let weak = Arc::downgrade(app);
        tokio::spawn(async move {
            while let Some((download, fingerprint)) = waiting.recv().await {
                let Some(app) = weak.upgrade() else { return };
                let written = app.control.record_download(&app.own_scope(), &download, &fingerprint).await;
                let used = app.control.export_key_used(&download.key, &download.address, download.began_ns).await;
                if let Err(error) = written.and(used) {
                    tracing::error!(export = %download.export, address = %download.address, bytes = download.bytes, %error, "a download could not be written down");
                }
            }
        });
        ExportObserver { metrics, downloads, clock: app.clock.clone() }
    }

    fn closed(&self, session: &SessionInfo, file: &sftp_gateway::sftp::FileClosed) {
        let ids = session.account.parse::<ExportId>().ok().zip(session.key.parse::<ExportKeyId>().ok());
        let (Some((export, key)), Ok(id)) = (ids, ExportDownloadId::generate()) else { return };
        let ended_ns = self.clock.now_ns();
        let open_ns = i64::try_from(file.open_for.as_nanos()).unwrap_or(i64::MAX);
        let path = printable(file.path.as_bytes());
        tracing::info!(
            %export, key = %session.fingerprint, address = %session.peer.ip(), client = %session.client, path = %path,
            bytes = file.bytes_read, complete = file.complete, "close \"{path}\" bytes read {} written 0", file.bytes_read
        );
        self.metrics.sftp_bytes(file.bytes_read);
        let download = ExportDownload {
            id,
            export,
            key,
            address: session.peer.ip().to_canonical().to_string(),
            program: session.client.clone(),
            path,
            bytes: file.bytes_read,
            is_complete: file.complete,
            began_ns: ended_ns.saturating_sub(open_ns),
            ended_ns,
        };
        if self.downloads.try_send((download, session.fingerprint.clone())).is_err() {
            tracing::error!(%export, "too many downloads wait to be written down; this one is in the log alone");
        }
    }
}

impl Observer for ExportObserver {
    fn event(&self, event: &Event) {
        match event {
            Event::TurnedAway { reason, .. } => self.metrics.sftp_refused(&format!("{reason:?}")),
            Event::LoginRefused { peer, user, fingerprint, reason } => {
                tracing::info!(address = %peer.ip(), user, key = fingerprint.as_deref(), ?reason, "SFTP log-in refused");
                self.metrics.sftp_refused(&format!("{reason:?}"));
            }
            Event::LoggedIn(session) => {
                tracing::info!(export = %session.account, key = %session.fingerprint, address = %session.peer.ip(), client = %session.client, "SFTP log-in");
            }
            Event::Opened { .. } => {}
            Event::Closed { session, file } => self.closed(session, file),
            Event::Command { session, command, known } => {
                tracing::info!(export = %session.account, command, known, "SFTP account asked for a command");
            }
            Event::Ended { session, reason, bytes_sent, connected_for, .. } => {
                if let Some(session) = session {
                    tracing::info!(export = %session.account, ?reason, bytes_sent, seconds = connected_for.as_secs(), "SFTP log-out");
                }
            }
        }
    }
}
