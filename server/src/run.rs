//! The composition root: data folder, keys, certificate, accounts, store, app, doors, in this order; stopped in
//! reverse. Also what the commands do on a stopped server's data folder.

use crate::app::deletion::MasterKeyLoader;
use crate::app::{App, AppError, AppParts};
use crate::certificate::{Certificate, CertificateError};
use crate::clock::{self, Clock};
use crate::config::{CommonSettings, Settings};
use crate::data_folder::{DataFolder, DataFolderError, DataFolderLock, write_private};
use crate::http::{HttpState, metrics_router, router};
use crate::jobs::Jobs;
use crate::listener::{self, Door};
use crate::mailer::{Mailer, MailerError};
use crate::master_key::{self, MasterKeyError};
use crate::metrics::Metrics;
use crate::recovery_sheet::recovery_sheet;
use crate::sealing::SealingKey;
use crate::sftp::{SftpError, SftpServer};
use crate::webhook_sender::{SenderError, WebhookSender};
use control::{Control, ControlError, SecretKind, TokenSecret};
use repo_format::FormatError;
use repo_format::keyring::{Keyring, MasterKey};
use std::io::{self, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};
use store::world::World;
use store::{KEYRING_FILES, Store, StoreError, StoreSettings};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;
use zeroize::Zeroizing;

/// While the server goes down it looks this often whether uploads are done.
const DRAIN_LOOK: Duration = Duration::from_millis(100);

/// How often it is looked whether the index still works.
const STORE_LOOK: Duration = Duration::from_secs(1);
/// Deletions that were interrupted are gone on with at every so many looks.
const DELETIONS_LOOK: u32 = 30;

/// Why the server does not run. The text names the file or setting.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// Data folder.
    #[error(transparent)]
    Folder(#[from] DataFolderError),
    /// Master key.
    #[error(transparent)]
    MasterKey(#[from] MasterKeyError),
    /// Certificate.
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    /// Webhooks.
    #[error(transparent)]
    Webhooks(#[from] SenderError),
    /// Mail server.
    #[error(transparent)]
    Mailer(#[from] MailerError),
    /// Accounts.
    #[error(transparent)]
    Control(#[from] ControlError),
    /// Store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The keyring does not open.
    #[error("{path}: {source}")]
    Keyring {
        /// The file.
        path: PathBuf,
        /// Why.
        source: FormatError,
    },
    /// A use case at start failed.
    #[error(transparent)]
    App(#[from] AppError),
    /// The SFTP server cannot begin.
    #[error("SFTP: {0}")]
    Sftp(#[from] SftpError),
    /// An address cannot be listened on.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// Something in the process itself.
    #[error("{0}")]
    Process(String),
    /// The index failed twice: a new process opens it, or says why it cannot.
    #[error("the index failed and could not be used any more by this process ({0}); start the server again")]
    IndexLost(String),
    /// Standard output.
    #[error("standard output: {0}")]
    Output(#[from] io::Error),
}

fn store_settings(common: &CommonSettings, reserve_bytes: Option<u64>, cache_bytes: Option<u64>) -> StoreSettings {
    let mut settings = StoreSettings::new(DataFolder::new(common.data.clone()).store());
    settings.index_directory = common.index.clone();
    settings.reserve_bytes = reserve_bytes;
    if let Some(bytes) = cache_bytes {
        settings.memory_bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
    }
    settings
}

/// Reads the master key again where it came from; one that was exchanged meanwhile is no good.
fn master_key_loader(common: &CommonSettings, opened_with: &MasterKey) -> MasterKeyLoader {
    let (source, fingerprint) = (common.master_key.clone(), opened_with.fingerprint());
    Arc::new(move || {
        let key = master_key::load(&source).map_err(|error| AppError::Retry(error.to_string()))?;
        match key.fingerprint() == fingerprint {
            true => Ok(key),
            false => Err(AppError::Retry("the master key is another one than at the server's start".into())),
        }
    })
}

/// The store's world, on this process's clock.
fn world(clock: Arc<dyn Clock>) -> World {
    World { clock, ..World::system() }
}

fn host_name() -> String {
    let name = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let is_usable = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-".contains(&byte));
    if is_usable { name } else { "localhost".into() }
}

/// An address of this machine under which a socket bound to `address` is reached.
fn reachable(address: SocketAddr) -> SocketAddr {
    match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => SocketAddr::new(Ipv4Addr::LOCALHOST.into(), address.port()),
        // A dual-stack socket answers on IPv4 as well, which also works where IPv6 has no loopback.
        IpAddr::V6(ip) if ip.is_unspecified() => SocketAddr::new(Ipv4Addr::LOCALHOST.into(), address.port()),
        _ => address,
    }
}

struct Bound {
    listeners: Vec<tokio::net::TcpListener>,
    address: SocketAddr,
}

fn bind(addresses: &[SocketAddr]) -> Result<Bound, RunError> {
    let mut listeners = Vec::new();
    let mut first = None;
    for &address in addresses {
        let listener = listener::bind(address).map_err(|source| RunError::Listen { address, source })?;
        first.get_or_insert(listener.local_addr().map_err(|source| RunError::Listen { address, source })?);
        listeners.push(listener);
    }
    let address = first.ok_or_else(|| RunError::Process("there is no address to listen on".into()))?;
    Ok(Bound { listeners, address: reachable(address) })
}

fn public_url(settings: &Settings, bound: SocketAddr) -> String {
    settings.public_url.clone().unwrap_or_else(|| {
        // A server that listens on one address only is reached there; else by its name.
        let host = match settings.listen.first().map(SocketAddr::ip) {
            Some(ip) if !ip.is_unspecified() => match ip {
                IpAddr::V4(ip) => ip.to_string(),
                IpAddr::V6(ip) => format!("[{ip}]"),
            },
            _ => host_name(),
        };
        format!("https://{host}:{}", bound.port())
    })
}

fn certificate_names(settings: &Settings) -> Vec<String> {
    let mut names =
        vec!["localhost".into(), host_name(), Ipv4Addr::LOCALHOST.to_string(), Ipv6Addr::LOCALHOST.to_string()];
    let addresses = settings.listen.iter().map(SocketAddr::ip).filter(|ip| !ip.is_unspecified());
    names.extend(addresses.map(|ip| ip.to_string()));
    if let Some(url) = &settings.public_url {
        let host = url.trim_start_matches("https://").split('/').next().unwrap_or_default();
        let host = match host.strip_prefix('[') {
            Some(bracketed) => bracketed.split(']').next().unwrap_or_default(),
            None => host.split(':').next().unwrap_or_default(),
        };
        names.push(host.to_owned());
    }
    names.sort();
    names.dedup();
    names
}

/// Everything that stands before the doors open.
struct Started {
    app: Arc<App>,
    store: Arc<Store>,
    control: Control,
    folder: DataFolder,
    _lock: DataFolderLock,
}

/// What a person needs to know after a start.
struct Welcome {
    sheet: Option<Zeroizing<String>>,
    operator_link: Option<String>,
    url: String,
    fingerprint: String,
    metrics: SocketAddr,
}

impl Welcome {
    fn print(&self, folder: &DataFolder) -> io::Result<()> {
        let Welcome { sheet, operator_link, url, fingerprint, metrics } = self;
        let mut out = io::stdout().lock();
        if let Some(sheet) = sheet {
            writeln!(out, "{}", sheet.as_str())?;
        }
        writeln!(out, "Holdfast {} is ready.\n", env!("CARGO_PKG_VERSION"))?;
        writeln!(out, "  URL           {url}")?;
        writeln!(out, "  certificate   {fingerprint}")?;
        writeln!(out, "  data folder   {}", folder.root().display())?;
        writeln!(out, "  metrics       http://{metrics}/metrics")?;
        if let Some(link) = operator_link {
            writeln!(out, "\nOperator link (answers one POST with an operator's API token, only once):\n\n  {link}")?;
        }
        let data = folder.root().display();
        writeln!(
            out,
            "\nTo connect an agent, run on this machine:\n\n  holdfastd --data {data} user add NAME\n\n\
             It prints a token and the `holdfast login` line for the agent's machine.\n"
        )?;
        out.flush()
    }
}

/// The accounts: in the data folder, or in the PostgreSQL database that the settings name.
async fn open_accounts(settings: &CommonSettings, folder: &DataFolder) -> Result<Control, RunError> {
    Ok(match &settings.accounts_url {
        Some(url) => Control::open_url(url).await?,
        None => Control::open(&folder.accounts()).await?,
    })
}

/// Runs the server until it is told to stop.
pub async fn serve(settings: Settings) -> Result<(), RunError> {
    let folder = DataFolder::new(settings.common.data.clone());
    folder.create()?;
    let lock = folder.lock()?;
    folder.clear_run();
    master_key::settle_rotation(&settings.common.master_key, &folder)?;
    let (master, made) = master_key::load_or_create(&settings.common.master_key, &folder)?;
    kill_point!(MasterKeyMade);
    let certificate = Certificate::load_or_create(&settings.certificate, &folder, certificate_names(&settings))?;
    let control = open_accounts(&settings.common, &folder).await?;
    kill_point!(AccountsMade);
    match control.forget_interrupted().await {
        Ok(false) => {}
        Ok(true) => {
            tracing::info!("traces of what was deleted from the accounts are overwritten, as was interrupted before")
        }
        Err(error) => tracing::warn!(%error, "traces of what was deleted from the accounts are still in their files"),
    }
    let clock = clock::from_environment();
    let mailer = settings.mail.as_ref().map(Mailer::new).transpose()?;
    if mailer.is_none() {
        tracing::info!("no mail server is set (smtp_server): mails wait in the outbox");
    }

    let every = [Settings::EVERY_ADDRESS];
    let door = bind(if settings.listen.is_empty() { &every } else { &settings.listen })?;
    let metrics_door = bind(&[settings.metrics_listen])?;
    let sftp_door = settings.sftp_listen.map(|address| bind(&[address])).transpose()?;
    let url = public_url(&settings, door.address);

    let opened = {
        let session_idle = settings.session_idle;
        let (mut settings, world) =
            (store_settings(&settings.common, settings.disk_reserve_bytes, settings.cache_bytes), world(clock.clone()));
        if let Some(idle) = session_idle {
            settings.session_idle_ns = i64::try_from(idle.as_nanos()).unwrap_or(i64::MAX);
        }
        let master = master.clone();
        tokio::task::spawn_blocking(move || Store::open(settings, world, &master)).await
    };
    let store = Arc::new(opened.map_err(|error| RunError::Process(error.to_string()))??);

    kill_point!(StoreMade);
    let local_secret = TokenSecret::generate(SecretKind::Token)?;
    let sealer = SealingKey::load_or_create(&control, &master, clock.now_ns()).await?;
    kill_point!(SealingKeyMade);
    let app = Arc::new(
        App::new(AppParts {
            control: control.clone(),
            store: store.clone(),
            clock,
            local_secret: local_secret.clone(),
            master_fingerprint: master.fingerprint(),
            public_url: url.clone(),
            sealer: Arc::new(sealer),
            load_master_key: master_key_loader(&settings.common, &master),
            webhooks: WebhookSender::new(settings.webhook_networks.clone())?,
        })
        .await?,
    );
    let fingerprint = certificate.fingerprint();
    let certificate_pem = certificate.to_pem();
    let tls = certificate.server_config()?;

    let first_start = made || control.tokens().await?.is_empty() && control.users().await?.is_empty();
    let operator_link = if first_start { Some(app.fresh_operator_link().await?) } else { None };
    kill_point!(OperatorLinkMade);
    let sheet = if made { Some(sheet(&master, &settings.common, &folder)?) } else { None };
    drop(master);
    let started = Started { app: app.clone(), store, control, folder, _lock: lock };

    let metrics = Metrics::new().map_err(|error| RunError::Process(error.to_string()))?;
    let jobs_metrics = metrics.clone();
    let state = HttpState::new(app.clone(), metrics.clone());
    let public = router(state.clone()).map_err(|error| RunError::Process(error.to_string()))?;
    let (stop, stopped) = watch::channel(false);
    let doors = [
        Door { listeners: door.listeners, tls: Some(tls), router: public, metrics: metrics.clone() },
        Door { listeners: metrics_door.listeners, tls: None, router: metrics_router(state), metrics },
    ];
    let mut signals = StopSignals::new()?;
    let serving: Vec<_> = doors.into_iter().map(|door| tokio::spawn(listener::serve(door, stopped.clone()))).collect();

    // The address comes last: whoever finds it finds everything else.
    let folder = &started.folder;
    let mut sftp = None;
    if let Some(Bound { listeners, address }) = sftp_door {
        for listener in listeners {
            let named = settings.sftp_public.as_deref();
            sftp = Some(SftpServer::start(&app, jobs_metrics.clone(), folder, (listener, address), named)?);
        }
        write_private(&folder.sftp_address(), format!("{address}\n").as_bytes())?;
        tracing::info!(%address, "serving exports over SFTP");
    }
    write_private(&folder.shown_certificate(), certificate_pem.as_bytes())?;
    write_private(&folder.public_url(), format!("{url}\n").as_bytes())?;
    write_private(&folder.local_token(), format!("{}\n", local_secret.expose()).as_bytes())?;
    write_private(&folder.metrics_address(), format!("{}\n", metrics_door.address).as_bytes())?;
    let welcome = Welcome { sheet, operator_link, url, fingerprint, metrics: metrics_door.address };
    if let Err(error) = welcome.print(folder) {
        tracing::warn!(%error, "nothing could be printed; `holdfastd master-key show-sheet` and `operator-link` say it again");
    }
    write_private(&folder.address(), format!("{}\n", door.address).as_bytes())?;
    if !app.is_master_key_confirmed() {
        tracing::warn!(
            "the master key is not confirmed: write the recovery sheet down, then run `holdfastd master-key confirm`"
        );
    }
    tracing::info!(address = %door.address, "serving");

    let (stop_jobs, jobs_stopped) = watch::channel(false);
    let jobs = Jobs::start(app.clone(), jobs_metrics, settings.jobs, mailer, jobs_stopped);

    let lost = tokio::select! {
        () = signals.next() => None,
        reason = watch_store(app.clone(), started.store.clone()) => Some(reason),
    };
    // Jobs end at their next step while uploads finish.
    let _ = stop_jobs.send(true);
    if lost.is_none() {
        drain(&app, settings.drain, &mut signals).await;
    }
    if let Some(sftp) = sftp {
        sftp.end(settings.drain).await;
    }
    jobs.finish().await;
    folder.clear_run();
    // Nobody listens only when all doors are closed already.
    let _ = stop.send(true);
    for door in serving {
        if door.await.is_err() {
            tracing::error!("a door ended by a defect");
        }
    }
    match lost {
        None => close(started).await,
        // What is not written down now is found by the next start.
        Some(reason) => Err(RunError::IndexLost(reason)),
    }
}

/// Goes on with deletions that were interrupted, and ends with the reason when the index is lost to this process.
async fn watch_store(app: Arc<App>, store: Arc<Store>) -> String {
    let mut looks: u32 = 0;
    loop {
        if let Some(reason) = store.index_lost() {
            return reason;
        }
        if looks.is_multiple_of(DELETIONS_LOOK) {
            app.resume_deletions().await;
        }
        looks = looks.wrapping_add(1);
        tokio::time::sleep(STORE_LOOK).await;
    }
}

fn sheet(master: &MasterKey, common: &CommonSettings, folder: &DataFolder) -> Result<Zeroizing<String>, RunError> {
    recovery_sheet(master, &common.master_key, folder).map_err(|error| RunError::Process(error.to_string()))
}

/// Lets running uploads finish; a second signal or the deadline ends the waiting.
async fn drain(app: &App, limit: Duration, signals: &mut StopSignals) {
    app.drain();
    let deadline = Instant::now() + limit;
    let busy = app.busy_uploads();
    tracing::info!(uploads = busy, "stopping; running uploads may finish");
    while app.busy_uploads() > 0 && Instant::now() < deadline {
        tokio::select! {
            () = signals.next() => {
                tracing::warn!("told to stop again: running uploads are cut");
                return;
            }
            () = tokio::time::sleep(DRAIN_LOOK) => {}
        }
    }
}

async fn close(started: Started) -> Result<(), RunError> {
    let Started { app, store, control, .. } = started;
    drop(app);
    tokio::task::spawn_blocking(move || store.close())
        .await
        .map_err(|error| RunError::Process(error.to_string()))??;
    control.close().await;
    tracing::info!("stopped");
    Ok(())
}

struct StopSignals {
    terminate: Signal,
    interrupt: Signal,
}

impl StopSignals {
    fn new() -> io::Result<Self> {
        Ok(StopSignals { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// `rebuild-index`: on a stopped server's data folder.
pub fn rebuild_index(settings: &CommonSettings) -> Result<(), RunError> {
    let folder = DataFolder::new(settings.data.clone());
    let _lock = folder.lock()?;
    master_key::settle_rotation(&settings.master_key, &folder)?;
    let master = master_key::load(&settings.master_key)?;
    let world = world(clock::from_environment());
    let mut out = io::stdout().lock();
    let report = Store::rebuild_index(store_settings(settings, None, None), world, &master, |vault, _| {
        tracing::info!(%vault, "vault rebuilt");
    })?;
    for (vault, recovered, ledger) in &report.rebuilt {
        for damage in &recovered.journal_damage {
            writeln!(out, "vault {vault}: {damage}")?;
        }
        writeln!(
            out,
            "vault {vault}: {} snapshots, {} chunks, {} nodes, {} bytes in packs",
            ledger.snapshots, ledger.chunks, ledger.nodes, ledger.physical_bytes
        )?;
    }
    writeln!(out, "The index of {} vaults is rebuilt.", report.rebuilt.len())?;
    for (vault, error) in &report.failed {
        writeln!(out, "vault {vault} cannot be used: {error}")?;
    }
    if report.failed.is_empty() {
        return Ok(());
    }
    Err(RunError::Process(format!("{} vaults could not be rebuilt; the others can be used", report.failed.len())))
}

/// `master-key confirm` on a stopped server's data folder.
pub async fn confirm_offline(settings: &CommonSettings, fingerprint: &str) -> Result<(), RunError> {
    let folder = DataFolder::new(settings.data.clone());
    let _lock = folder.lock()?;
    let control = open_accounts(settings, &folder).await?;
    let now_ns = clock::from_environment().now_ns();
    control.note_master_key(fingerprint, now_ns).await?;
    control.confirm_master_key(fingerprint, now_ns).await?;
    control.close().await;
    Ok(())
}

/// Whether a key opens the keyring in the data folder; answers for how many vaults it has keys.
pub fn check_keyring(folder: &DataFolder, key: &MasterKey) -> Result<usize, RunError> {
    let mut failure = None;
    for name in KEYRING_FILES {
        let path = folder.store().join(name);
        let opened = std::fs::read(&path)
            .map_err(|source| DataFolderError::Io { path: path.clone(), source }.into())
            .and_then(|bytes| {
                let keyring =
                    Keyring::parse(&bytes).map_err(|source| RunError::Keyring { path: path.clone(), source })?;
                let vaults = keyring.vaults().count();
                match keyring.unlock(key) {
                    Ok(_) => Ok(vaults),
                    Err(source) => Err(RunError::Keyring { path, source }),
                }
            });
        match opened {
            Ok(vaults) => return Ok(vaults),
            Err(error) => {
                failure.get_or_insert(error);
            }
        }
    }
    Err(failure.unwrap_or_else(|| RunError::Process("there is no keyring".into())))
}

/// `master-key rotate`: a new key for a stopped server's keyring. The new key is on disk beside the old one before
/// the keyring changes, so that at no moment the key that opens it is missing.
pub async fn rotate_master_key(settings: &CommonSettings, path: &Path) -> Result<MasterKey, RunError> {
    let folder = DataFolder::new(settings.data.clone());
    let _lock = folder.lock()?;
    master_key::settle_rotation(&settings.master_key, &folder)?;
    let old = master_key::load(&settings.master_key)?;
    let new = master_key::generate()?;
    master_key::store(&master_key::next_path(path), &new)?;
    kill_point!(RotationKeyWaiting);
    let (control, now_ns) = (open_accounts(settings, &folder).await?, clock::from_environment().now_ns());
    SealingKey::prepare_rotation(&control, &old, &new, now_ns).await?;
    control.close().await;
    kill_point!(RotationSecretsWrapped);
    let store = Store::open(store_settings(settings, None, None), world(clock::from_environment()), &old)?;
    store.rotate_master(&new)?;
    kill_point!(RotationKeyringWrapped);
    store.close()?;
    master_key::settle_rotation(&settings.master_key, &folder)?;
    Ok(new)
}
