//! Exports: asking for a database's dump, releasing and preparing it, and the keys that open it over SFTP.

mod files;
mod gateway;
mod prepare;

pub(crate) use files::FileOfExport;
pub(crate) use gateway::{ExportAccounts, ExportObserver};

use crate::app::{Allowed, App, AppError, Principal, Target, Verb, server_actor};
use control::{
    ControlError, Export, ExportDownload, ExportId, ExportKey, ExportKeyId, Network, NewExport, PlanId, TenantId,
};
use sftp_gateway::keys::{CustomerKey, PublicKey};
use sftp_gateway::{Gateway, keys};
use std::sync::{Arc, OnceLock};

/// Version of [`TERMS`]; changes with every word of it.
pub const TERMS_VERSION: &str = "2026-11";
/// What everybody accepts who takes a key.
pub const TERMS: &str = "The export holds all data of the database, also personal data. Whoever downloads it answers for \
keeping it safe from then on: keep the private key and the file where only those who need them can read them, and remove \
both when they are no longer needed. The download is logged with its address, its key and its size.";
/// Downloads that are shown.
const DOWNLOADS_SHOWN: u32 = 200;

/// Where exports are served, once the gateway listens.
#[derive(Clone)]
pub struct SftpDoor {
    /// Host name for people.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// The server's public keys.
    pub host_keys: Vec<PublicKey>,
    /// Told at once when a key is taken back.
    pub gateway: Arc<Gateway>,
}

impl SftpDoor {
    /// Lines for `known_hosts`.
    pub fn known_hosts(&self) -> Vec<String> {
        self.host_keys.iter().map(|key| keys::known_hosts_line(&self.host, self.port, key)).collect()
    }
}

/// Set once, when the gateway has begun to listen.
pub(crate) type KnownDoor = OnceLock<SftpDoor>;

/// How an export is downloaded.
pub struct ExportAccess {
    /// The key, as it is kept.
    pub key: ExportKey,
    /// Name of the account.
    pub account: String,
    /// Where.
    pub door: SftpDoor,
    /// The private key, where it was made here.
    pub made: Option<CustomerKey>,
}

fn no_export(error: ControlError) -> AppError {
    match error {
        ControlError::NotFound { what: "export", .. } => AppError::NotFound { what: "export" },
        ControlError::NotFound { what: "key", .. } => AppError::NotFound { what: "key" },
        other => other.into(),
    }
}

impl App {
    /// Notes where exports are served.
    pub fn set_sftp_door(&self, door: SftpDoor) {
        let _ = self.sftp_door.set(door);
    }

    /// Where exports are served; an error that says so where they are not.
    pub fn sftp_door(&self) -> Result<&SftpDoor, AppError> {
        let off = "this server does not listen for SFTP: its operator can set `sftp_listen`";
        self.sftp_door.get().ok_or_else(|| AppError::WrongState(off.into()))
    }

    async fn at_export(&self, caller: &Principal, verb: Verb, id: &ExportId) -> Result<Allowed, AppError> {
        let at = self.control.locate_export(id).await?;
        self.allow(caller, verb, Target::Located("export", at)).await
    }

    /// Exports that the caller sees, the newest first.
    pub async fn exports(
        &self,
        caller: &Principal,
        tenant: Option<&TenantId>,
        after: Option<(i64, ExportId)>,
        limit: u32,
    ) -> Result<Vec<Export>, AppError> {
        let allowed = self.reach(caller, Verb::EXPORT_VIEW).await?;
        Ok(self.control.exports(&allowed.scope, tenant, after, limit).await?)
    }

    /// One export.
    pub async fn export(&self, caller: &Principal, id: &ExportId) -> Result<Export, AppError> {
        let allowed = self.at_export(caller, Verb::EXPORT_VIEW, id).await?;
        self.control.export(&allowed.scope, id).await.map_err(no_export)
    }

    /// Asks for an export of what a plan dumps.
    pub async fn request_export(
        &self,
        caller: &Principal,
        plan: &PlanId,
        newest_will_do: bool,
    ) -> Result<Export, AppError> {
        let at = self.control.locate_plan(plan).await?;
        let allowed = self.allow(caller, Verb::EXPORT_REQUEST, Target::Located("plan", at)).await?;
        let found = self.control.plan(&allowed.scope, plan).await?;
        if !prepare::is_dump(&found.body) {
            let text = format!("the plan {} backs folders up; an export is of a database or a command", found.name);
            return Err(AppError::Invalid(text));
        }
        let new = NewExport { plan: *plan, newest_will_do };
        let asked = self.control.request_export(&allowed.scope, &allowed.actor, &new, self.clock.now_ns()).await?;
        self.exports_wanted.notify_one();
        Ok(asked)
    }

    /// Lets an export go on.
    pub async fn release_export(&self, caller: &Principal, id: &ExportId) -> Result<Export, AppError> {
        let allowed = self.at_export(caller, Verb::EXPORT_RELEASE, id).await?;
        let released = self.control.release_export(&allowed.scope, &allowed.actor, id, self.clock.now_ns()).await;
        self.exports_wanted.notify_one();
        released.map_err(no_export)
    }

    /// Refuses an export that waits.
    pub async fn refuse_export(&self, caller: &Principal, id: &ExportId, reason: &str) -> Result<Export, AppError> {
        let allowed = self.at_export(caller, Verb::EXPORT_RELEASE, id).await?;
        let refused = self.control.refuse_export(&allowed.scope, &allowed.actor, id, reason, self.clock.now_ns()).await;
        refused.map_err(no_export)
    }

    /// Adds a key, the caller's own or a new one, which is in this answer and nowhere else.
    pub async fn add_export_key(
        &self,
        caller: &Principal,
        id: &ExportId,
        own: Option<&str>,
        networks: &[Network],
        expires_ns: Option<i64>,
        terms_version: &str,
    ) -> Result<ExportAccess, AppError> {
        let allowed = self.at_export(caller, Verb::EXPORT_DOWNLOAD, id).await?;
        if terms_version != TERMS_VERSION {
            let text = "terms_version: must be that of the present terms; read them again with GET /export-terms";
            return Err(AppError::Invalid(text.into()));
        }
        let door = self.sftp_door()?.clone();
        let export = self.control.export(&allowed.scope, id).await.map_err(no_export)?;
        let made = match own {
            Some(_) => None,
            None => {
                let comment = format!("holdfast export {id}");
                // A key of 3072 bits takes a while.
                let made = tokio::task::spawn_blocking(move || CustomerKey::generate(&comment)).await;
                let made = made.map_err(|error| AppError::Internal(error.to_string()))?;
                Some(made.map_err(|error| AppError::Internal(error.to_string()))?)
            }
        };
        let public = match (own, &made) {
            (Some(text), _) => {
                PublicKey::parse(text).map_err(|error| AppError::Invalid(format!("public_key: {error}")))?
            }
            (None, Some(made)) => made.public.clone(),
            (None, None) => return Err(AppError::Internal("no key was made".into())),
        };
        let new = control::NewExportKey {
            fingerprint: &public.fingerprint(),
            public_key: &public.line(),
            is_own: own.is_some(),
            networks,
            expires_ns,
            terms_version,
        };
        let added = self.control.add_export_key(&allowed.scope, &allowed.actor, id, &new, self.clock.now_ns()).await;
        let key = added.map_err(no_export)?;
        let account = export.account.ok_or_else(|| AppError::WrongState("the export is not ready".into()))?;
        Ok(ExportAccess { key, account, door, made })
    }

    /// Keys of an export, the oldest first.
    pub async fn export_keys(&self, caller: &Principal, id: &ExportId) -> Result<Vec<ExportKey>, AppError> {
        let allowed = self.at_export(caller, Verb::EXPORT_VIEW, id).await?;
        self.control.export_keys(&allowed.scope, id).await.map_err(no_export)
    }

    /// Takes a key back; connections with it end.
    pub async fn revoke_export_key(
        &self,
        caller: &Principal,
        id: &ExportId,
        key: &ExportKeyId,
    ) -> Result<ExportKey, AppError> {
        let allowed = self.at_export(caller, Verb::EXPORT_DOWNLOAD, id).await?;
        let now_ns = self.clock.now_ns();
        let revoked = self.control.revoke_export_key(&allowed.scope, &allowed.actor, id, key, now_ns).await;
        let revoked = revoked.map_err(no_export)?;
        if let Some(door) = self.sftp_door.get() {
            door.gateway.recheck();
        }
        Ok(revoked)
    }

    /// Downloads of an export, the newest first.
    pub async fn export_downloads(&self, caller: &Principal, id: &ExportId) -> Result<Vec<ExportDownload>, AppError> {
        let allowed = self.at_export(caller, Verb::EXPORT_VIEW, id).await?;
        self.control.export_downloads(&allowed.scope, id, DOWNLOADS_SHOWN).await.map_err(no_export)
    }

    /// Ends what has been there for its days.
    pub(crate) async fn expire_exports(&self) -> Result<usize, AppError> {
        let ended = self.control.expire_exports(&self.own_scope(), &server_actor(), self.clock.now_ns()).await?;
        if let Some(door) = self.sftp_door.get().filter(|_| !ended.is_empty()) {
            door.gateway.recheck();
        }
        Ok(ended.len())
    }
}
