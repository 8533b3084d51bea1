//! Who opens an export over SFTP: public keys with their end and networks, every look at them, and every download.

use crate::audit_log::record;
use crate::database_export::{deed, export_in};
use crate::{
    Actor, Control, ControlError, Export, ExportDownloadId, ExportId, ExportKeyId, ExportState, Network, Scope,
};
use sqlx::any::AnyRow;
use sqlx::{AnyConnection, Row};
use std::net::IpAddr;

/// Most live keys of an export.
const KEYS_MAX: i64 = 20;

/// A public key that opens an export.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExportKey {
    /// Its id.
    pub id: ExportKeyId,
    /// What it opens.
    pub export: ExportId,
    /// SHA-256, as OpenSSH writes it.
    pub fingerprint: String,
    /// The customer's own; otherwise it was made here and shown once.
    pub is_own: bool,
    /// From where it is taken; anywhere when empty.
    pub networks: Vec<Network>,
    /// Who made it, for people.
    pub created_by: String,
    /// When, nanoseconds since 1970.
    pub created_ns: i64,
    /// Until when it is taken.
    pub expires_ns: i64,
    /// Which terms of download were accepted with it.
    pub terms_version: String,
    /// Since when it is not taken any more.
    pub revoked_ns: Option<i64>,
    /// When it was used last.
    pub used_ns: Option<i64>,
    /// From where.
    pub used_address: Option<String>,
}

/// A key to be added. Adding one accepts the terms of download.
#[derive(Clone, Debug)]
pub struct NewExportKey<'a> {
    /// SHA-256, as OpenSSH writes it.
    pub fingerprint: &'a str,
    /// The key as OpenSSH writes it, without a comment.
    pub public_key: &'a str,
    /// The customer's own.
    pub is_own: bool,
    /// From where it is taken; anywhere when empty.
    pub networks: &'a [Network],
    /// Until when; at most until the export expires.
    pub expires_ns: Option<i64>,
    /// Which terms of download are accepted.
    pub terms_version: &'a str,
}

/// Why a log-in was refused. Nobody outside is told which.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ExportRefusal {
    /// There is no such account, or it is not ready any more.
    Account,
    /// It has no such key.
    Key,
    /// The key was revoked or has expired.
    Ended,
    /// The key is not taken from this address.
    Address,
}

/// A download, whole or in part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExportDownload {
    /// Its id.
    pub id: ExportDownloadId,
    /// Of which export.
    pub export: ExportId,
    /// With which key.
    pub key: ExportKeyId,
    /// From where.
    pub address: String,
    /// With which program, as it calls itself.
    pub program: String,
    /// Which file.
    pub path: String,
    /// Bytes sent.
    pub bytes: u64,
    /// Every byte of the file was sent.
    pub is_complete: bool,
    /// From when, nanoseconds since 1970.
    pub began_ns: i64,
    /// To when.
    pub ended_ns: i64,
}

fn key(row: &AnyRow) -> Result<ExportKey, ControlError> {
    let networks: String = row.try_get("networks")?;
    Ok(ExportKey {
        id: ExportKeyId::stored(row.try_get("id")?)?,
        export: ExportId::stored(row.try_get("export_id")?)?,
        fingerprint: row.try_get("fingerprint")?,
        is_own: row.try_get::<i64, _>("is_own")? != 0,
        networks: Network::stored_list(&networks)?,
        created_by: row.try_get("created_by")?,
        created_ns: row.try_get("created_ns")?,
        expires_ns: row.try_get("expires_ns")?,
        terms_version: row.try_get("terms_version")?,
        revoked_ns: row.try_get("revoked_ns")?,
        used_ns: row.try_get("used_ns")?,
        used_address: row.try_get("used_address")?,
    })
}

async fn key_in(
    connection: &mut AnyConnection,
    export: &ExportId,
    id: &ExportKeyId,
) -> Result<ExportKey, ControlError> {
    let row = sqlx::query("SELECT * FROM export_keys WHERE id = $1 AND export_id = $2")
        .bind(id.to_string())
        .bind(export.to_string())
        .fetch_optional(connection)
        .await?;
    key(&row.ok_or_else(|| ControlError::not_found("key", &id.to_string()))?)
}

impl ExportKey {
    /// Whether it is taken at a time from an address.
    fn refuses(&self, address: IpAddr, now_ns: i64) -> Option<ExportRefusal> {
        if self.revoked_ns.is_some() || self.expires_ns <= now_ns {
            return Some(ExportRefusal::Ended);
        }
        let is_outside = !self.networks.is_empty() && !self.networks.iter().any(|network| network.contains(address));
        is_outside.then_some(ExportRefusal::Address)
    }
}

impl Control {
    /// Adds a key to a ready export, and writes down that the terms were accepted.
    pub async fn add_export_key(
        &self,
        scope: &Scope,
        actor: &Actor,
        id: &ExportId,
        new: &NewExportKey<'_>,
        now_ns: i64,
    ) -> Result<ExportKey, ControlError> {
        let networks = Network::list_to_store(new.networks)?;
        let key_id = ExportKeyId::generate()?;
        let mut transaction = self.write().await?;
        let export = export_in(&mut transaction, scope, id).await?;
        let ready_until = export.expires_ns.filter(|_| export.state == ExportState::Ready);
        let Some(ready_until) = ready_until.filter(|until| *until > now_ns) else {
            let needed = "only a ready one is downloaded";
            return Err(ControlError::wrong_state("export", &id.to_string(), export.state.as_str(), needed));
        };
        let expires_ns = new.expires_ns.unwrap_or(ready_until).min(ready_until);
        if expires_ns <= now_ns {
            return Err(ControlError::Invalid { what: "end of the key", rule: "must lie ahead" });
        }
        let live: i64 =
            sqlx::query_scalar("SELECT COUNT(*) FROM export_keys WHERE export_id = $1 AND revoked_ns IS NULL")
                .bind(id.to_string())
                .fetch_one(&mut *transaction)
                .await?;
        if live >= KEYS_MAX {
            return Err(ControlError::Invalid { what: "keys", rule: "are at most 20 of an export: revoke one first" });
        }
        sqlx::query(
            "INSERT INTO export_keys (id, export_id, fingerprint, public_key, is_own, networks, created_by, created_ns, \
             expires_ns, terms_version, terms_address) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)",
        )
        .bind(key_id.to_string())
        .bind(id.to_string())
        .bind(new.fingerprint)
        .bind(new.public_key)
        .bind(i64::from(new.is_own))
        .bind(networks)
        .bind(&actor.name)
        .bind(now_ns)
        .bind(expires_ns)
        .bind(new.terms_version)
        .bind(&actor.address)
        .execute(&mut *transaction)
        .await
        .map_err(|error| crate::error::exists("key", new.fingerprint, error))?;
        let made = key_in(&mut transaction, id, &key_id).await?;
        let after = serde_json::json!({
            "key": key_id.to_string(), "fingerprint": new.fingerprint, "terms_version": new.terms_version,
        });
        record(&mut transaction, actor, deed(&export, "export.download", after), now_ns).await?;
        transaction.commit().await?;
        Ok(made)
    }

    /// Keys of an export, the oldest first.
    pub async fn export_keys(&self, scope: &Scope, id: &ExportId) -> Result<Vec<ExportKey>, ControlError> {
        let mut connection = self.readers.acquire().await?;
        export_in(&mut connection, scope, id).await?;
        let rows = sqlx::query("SELECT * FROM export_keys WHERE export_id = $1 ORDER BY created_ns, id")
            .bind(id.to_string())
            .fetch_all(&mut *connection)
            .await?;
        rows.iter().map(key).collect()
    }

    /// Takes a key back. The same again changes nothing.
    pub async fn revoke_export_key(
        &self,
        scope: &Scope,
        actor: &Actor,
        id: &ExportId,
        key: &ExportKeyId,
        now_ns: i64,
    ) -> Result<ExportKey, ControlError> {
        let mut transaction = self.write().await?;
        let export = export_in(&mut transaction, scope, id).await?;
        let found = key_in(&mut transaction, id, key).await?;
        if found.revoked_ns.is_some() {
            return Ok(found);
        }
        sqlx::query("UPDATE export_keys SET revoked_ns = $1 WHERE id = $2 AND revoked_ns IS NULL")
            .bind(now_ns)
            .bind(key.to_string())
            .execute(&mut *transaction)
            .await?;
        let after = serde_json::json!({ "key": key.to_string(), "revoked": true });
        record(&mut transaction, actor, deed(&export, "export.download", after), now_ns).await?;
        transaction.commit().await?;
        Ok(ExportKey { revoked_ns: Some(now_ns), ..found })
    }

    /// Whom an SFTP log-in lets in, asked with one query whatever is wrong. `scope` must be the whole platform's.
    pub async fn export_login(
        &self,
        scope: &Scope,
        account: &str,
        fingerprint: &str,
        address: IpAddr,
        now_ns: i64,
    ) -> Result<Result<(Export, ExportKey), ExportRefusal>, ControlError> {
        let row = sqlx::query(
            "SELECT exports.id AS found_id, export_keys.* FROM exports \
             LEFT JOIN export_keys ON export_keys.export_id = exports.id AND export_keys.fingerprint = $2 \
             WHERE exports.account = $1 AND exports.state = 'ready' AND exports.expires_ns > $3",
        )
        .bind(account)
        .bind(fingerprint)
        .bind(now_ns)
        .fetch_optional(&self.readers)
        .await?;
        let Some(row) = row else { return Ok(Err(ExportRefusal::Account)) };
        if row.try_get::<Option<String>, _>("export_id")?.is_none() {
            return Ok(Err(ExportRefusal::Key));
        }
        let key = key(&row)?;
        if let Some(refusal) = key.refuses(address, now_ns) {
            return Ok(Err(refusal));
        }
        let export = self.export(scope, &ExportId::stored(row.try_get("found_id")?)?).await?;
        Ok(Ok((export, key)))
    }

    /// Notes that a key was used.
    pub async fn export_key_used(&self, key: &ExportKeyId, address: &str, now_ns: i64) -> Result<(), ControlError> {
        let mut transaction = self.write().await?;
        sqlx::query("UPDATE export_keys SET used_ns = $1, used_address = $2 WHERE id = $3")
            .bind(now_ns)
            .bind(address)
            .bind(key.to_string())
            .execute(&mut *transaction)
            .await?;
        transaction.commit().await?;
        Ok(())
    }

    /// Writes a download down, also in the audit log.
    pub async fn record_download(
        &self,
        scope: &Scope,
        download: &ExportDownload,
        fingerprint: &str,
    ) -> Result<(), ControlError> {
        let mut transaction = self.write().await?;
        let export = export_in(&mut transaction, scope, &download.export).await?;
        sqlx::query(
            "INSERT INTO export_downloads (id, export_id, key_id, address, program, path, bytes, is_complete, began_ns, \
             ended_ns) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)",
        )
        .bind(download.id.to_string())
        .bind(download.export.to_string())
        .bind(download.key.to_string())
        .bind(&download.address)
        .bind(&download.program)
        .bind(&download.path)
        .bind(i64::try_from(download.bytes).unwrap_or(i64::MAX))
        .bind(i64::from(download.is_complete))
        .bind(download.began_ns)
        .bind(download.ended_ns)
        .execute(&mut *transaction)
        .await?;
        let actor = Actor {
            id: download.key.to_string(),
            name: format!("key {fingerprint}"),
            behalf: None,
            address: download.address.clone(),
        };
        let after = serde_json::json!({
            "path": download.path, "bytes": download.bytes, "complete": download.is_complete,
            "program": download.program,
        });
        record(&mut transaction, &actor, deed(&export, "export.fetch", after), download.ended_ns).await?;
        transaction.commit().await?;
        Ok(())
    }

    /// Downloads of an export, the newest first, at most `limit`.
    pub async fn export_downloads(
        &self,
        scope: &Scope,
        id: &ExportId,
        limit: u32,
    ) -> Result<Vec<ExportDownload>, ControlError> {
        let mut connection = self.readers.acquire().await?;
        export_in(&mut connection, scope, id).await?;
        let rows =
            sqlx::query("SELECT * FROM export_downloads WHERE export_id = $1 ORDER BY began_ns DESC, id LIMIT $2")
                .bind(id.to_string())
                .bind(i64::from(limit))
                .fetch_all(&mut *connection)
                .await?;
        rows.iter()
            .map(|row| {
                Ok(ExportDownload {
                    id: ExportDownloadId::stored(row.try_get("id")?)?,
                    export: ExportId::stored(row.try_get("export_id")?)?,
                    key: ExportKeyId::stored(row.try_get("key_id")?)?,
                    address: row.try_get("address")?,
                    program: row.try_get("program")?,
                    path: row.try_get("path")?,
                    bytes: row.try_get::<i64, _>("bytes")?.try_into().unwrap_or(0),
                    is_complete: row.try_get::<i64, _>("is_complete")? != 0,
                    began_ns: row.try_get("began_ns")?,
                    ended_ns: row.try_get("ended_ns")?,
                })
            })
            .collect()
    }
}
