//! Exports: wire types <-> use cases.

use crate::app::exports::{ExportAccess, SftpDoor, TERMS, TERMS_VERSION};
use crate::http::HttpState;
use crate::http::extract::{Caller, JsonBody};
use crate::http::page;
use crate::http::problem::Refusal;
use api::exports::{
    Export, ExportDownload, ExportDownloads, ExportFile, ExportKey, ExportKeys, ExportState, ExportTermsText,
    NewExportKey, RefuseExport, RequestExport,
};
use api::page::Page;
use axum::Json;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderName, StatusCode, header};
use control::{ExportId, Network};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::fmt::Write as _;

type Answer<T> = Result<Json<T>, Refusal>;

fn export(export: control::Export) -> Export {
    let (dumped_ns, files) = match export.content {
        None => (None, Vec::new()),
        Some(content) => {
            let file = |file: control::ExportFile| ExportFile {
                name: file.name,
                size_bytes: file.size_bytes,
                sha256: file.sha256,
            };
            (Some(content.dumped_ns), content.files.into_iter().map(file).collect())
        }
    };
    Export {
        id: export.id.to_string(),
        tenant: export.tenant.to_string(),
        user: export.user.to_string(),
        plan: export.plan.to_string(),
        asked_by: export.asked_by_name,
        newest_will_do: export.newest_will_do,
        state: match export.state {
            control::ExportState::AwaitingRelease => ExportState::AwaitingRelease,
            control::ExportState::InProgress => ExportState::InProgress,
            control::ExportState::Ready => ExportState::Ready,
            control::ExportState::Expired => ExportState::Expired,
            control::ExportState::ServerError => ExportState::ServerError,
            control::ExportState::InvalidValue => ExportState::InvalidValue,
        },
        state_ns: export.state_ns,
        requested_ns: export.requested_ns,
        next_allowed_ns: export.next_allowed_ns,
        job: export.job.map(|job| job.to_string()),
        bytes_done: export.bytes_done,
        bytes_total: export.bytes_total,
        files,
        dumped_ns,
        ready_ns: export.ready_ns,
        expires_ns: export.expires_ns,
        error: export.error,
        reference: export.reference,
    }
}

fn key(key: control::ExportKey) -> ExportKey {
    ExportKey {
        id: key.id.to_string(),
        fingerprint: key.fingerprint,
        is_own: key.is_own,
        networks: key.networks.iter().map(ToString::to_string).collect(),
        created_by: key.created_by,
        created_ns: key.created_ns,
        expires_ns: key.expires_ns,
        terms_version: key.terms_version,
        revoked_ns: key.revoked_ns,
        used_ns: key.used_ns,
        used_address: key.used_address,
    }
}

fn download(download: control::ExportDownload) -> ExportDownload {
    ExportDownload {
        id: download.id.to_string(),
        key: download.key.to_string(),
        address: download.address,
        program: download.program,
        path: download.path,
        bytes: download.bytes,
        is_complete: download.is_complete,
        began_ns: download.began_ns,
        ended_ns: download.ended_ns,
    }
}

/// Commands that download everything, as they are typed.
fn commands(door: &SftpDoor, user: &str) -> BTreeMap<String, String> {
    let SftpDoor { host, port, .. } = door;
    let fingerprint = door.host_keys.first().map(|key| key.fingerprint()).unwrap_or_default();
    let lines = [
        ("sftp", format!("sftp -i export.pem -o IdentitiesOnly=yes -P {port} {user}@{host}")),
        ("scp", format!("scp -i export.pem -o IdentitiesOnly=yes -P {port} \"{user}@{host}:/*\" .")),
        (
            "rclone",
            format!("rclone copy :sftp,host={host},port={port},user={user},key_file=export.pem,shell_type=none:/ ."),
        ),
        (
            "winscp",
            format!(
                "winscp.com /command \"open sftp://{user}@{host}:{port}/ -privatekey=export.ppk -hostkey=*\" \"get /*\" exit (host key {fingerprint})"
            ),
        ),
        (
            "filezilla",
            format!(
                "Site Manager: protocol SFTP, host {host}, port {port}, log-on type Key file, user {user}, key file export.ppk"
            ),
        ),
    ];
    lines.into_iter().map(|(program, line)| (program.to_owned(), line)).collect()
}

fn access(access: ExportAccess) -> api::exports::ExportAccess {
    let ExportAccess { key: made_key, account, door, made } = access;
    let text = |text: &str| Some(text.to_owned());
    let [pem, openssh, ppk] = match &made {
        Some(made) => [text(&made.pem), text(&made.openssh), text(&made.ppk)],
        None => [None, None, None],
    };
    api::exports::ExportAccess {
        key: key(made_key),
        known_hosts: door.known_hosts(),
        commands: commands(&door, &account),
        host: door.host,
        port: door.port,
        user: account,
        pem,
        openssh,
        ppk,
    }
}

fn export_id(text: &str) -> Result<ExportId, Refusal> {
    page::id(text, "export")
}

#[derive(Debug, Default, Deserialize)]
pub(crate) struct Filter {
    tenant: Option<String>,
}

/// Exports, the newest first.
#[utoipa::path(get, path = "/exports", tag = "exports", params(
        ("tenant" = Option<String>, Query, description = "Only those of this tenant: its id"),
        ("limit" = Option<u32>, Query, description = "Most entries in the page, 1 to 200; 50 when absent"),
        ("after" = Option<String>, Query, description = "The `next` of the page before")),
    responses((status = 200, body = Page<Export>)))]
pub(crate) async fn list(
    State(state): State<HttpState>,
    Caller(caller): Caller,
    Query(filter): Query<Filter>,
    Query(paged): Query<page::Page>,
) -> Answer<Page<Export>> {
    let tenant = filter.tenant.as_deref().map(|tenant| page::named_id(tenant, "tenant")).transpose()?;
    let after = paged.after::<(i64, String)>()?;
    let after = after.map(|(at_ns, id)| page::named_id(&id, "after").map(|id| (at_ns, id))).transpose()?;
    let limit = paged.limit()?;
    let found = state.app.exports(&caller, tenant.as_ref(), after, limit).await?;
    let next = page::next(&found, limit, |export| (export.requested_ns, export.id.to_string()));
    Ok(Json(Page { items: found.into_iter().map(export).collect(), next }))
}

/// Asks for an export of what a plan dumps.
#[utoipa::path(post, path = "/exports", tag = "exports", request_body = RequestExport,
    responses((status = 201, body = Export)))]
pub(crate) async fn request(
    State(state): State<HttpState>,
    Caller(caller): Caller,
    JsonBody(body): JsonBody<RequestExport>,
) -> Result<(StatusCode, Json<Export>), Refusal> {
    let plan = page::id(&body.plan, "plan")?;
    let asked = state.app.request_export(&caller, &plan, body.newest_will_do).await?;
    Ok((StatusCode::CREATED, Json(export(asked))))
}

/// One export.
#[utoipa::path(get, path = "/exports/{export}", tag = "exports",
    params(("export" = String, Path, description = "Export id")), responses((status = 200, body = Export)))]
pub(crate) async fn show(
    State(state): State<HttpState>,
    Caller(caller): Caller,
    Path(id): Path<String>,
) -> Answer<Export> {
    Ok(Json(export(state.app.export(&caller, &export_id(&id)?).await?)))
}

/// Lets an export that waits for it go on.
#[utoipa::path(post, path = "/exports/{export}/release", tag = "exports",
    params(("export" = String, Path, description = "Export id")), responses((status = 200, body = Export)))]
pub(crate) async fn release(
    State(state): State<HttpState>,
    Caller(caller): Caller,
    Path(id): Path<String>,
) -> Answer<Export> {
    Ok(Json(export(state.app.release_export(&caller, &export_id(&id)?).await?)))
}

/// Refuses an export that waits; another one may be asked for at once.
#[utoipa::path(post, path = "/exports/{export}/refuse", tag = "exports", request_body = RefuseExport,
    params(("export" = String, Path, description = "Export id")), responses((status = 200, body = Export)))]
pub(crate) async fn refuse(
    State(state): State<HttpState>,
    Caller(caller): Caller,
    Path(id): Path<String>,
    JsonBody(body): JsonBody<RefuseExport>,
) -> Answer<Export> {
    Ok(Json(export(state.app.refuse_export(&caller, &export_id(&id)?, &body.reason).await?)))
}

/// What is accepted with a key.
#[utoipa::path(get, path = "/export-terms", tag = "exports", security(()),
    responses((status = 200, body = ExportTermsText)))]
pub(crate) async fn terms() -> Json<ExportTermsText> {
    Json(ExportTermsText { version: TERMS_VERSION.to_owned(), text: TERMS.to_owned() })
}

/// Keys of an export.
#[utoipa::path(get, path = "/exports/{export}/keys", tag = "exports",
    params(("export" = String, Path, description = "Export id")), responses((status = 200, body = ExportKeys)))]
pub(crate) async fn keys(
    State(state): State<HttpState>,
    Caller(caller): Caller,
    Path(id): Path<String>,
) -> Answer<ExportKeys> {
    let found = state.app.export_keys(&caller, &export_id(&id)?).await?;
    Ok(Json(ExportKeys { items: found.into_iter().map(key).collect() }))
}

/// Adds a key. A private key that is made for it is in this answer and nowhere else.
#[utoipa::path(post, path = "/exports/{export}/keys", tag = "exports", request_body = NewExportKey,
    params(("export" = String, Path, description = "Export id")),
    responses((status = 201, body = api::exports::ExportAccess)))]
pub(crate) async fn add_key(
    State(state): State<HttpState>,
    Caller(caller): Caller,
    Path(id): Path<String>,
    JsonBody(body): JsonBody<NewExportKey>,
) -> Result<(StatusCode, [(HeaderName, &'static str); 1], Json<api::exports::ExportAccess>), Refusal> {
    let networks: Result<Vec<Network>, _> = body.networks.iter().map(|text| text.parse()).collect();
    let networks = networks.map_err(|_| Refusal::BadRequest("networks: must be such as 192.0.2.0/24".into()))?;
    let own = body.public_key.as_deref();
    let id = export_id(&id)?;
    let made = state.app.add_export_key(&caller, &id, own, &networks, body.expires_ns, &body.terms_version).await?;
    Ok((StatusCode::CREATED, [(header::CACHE_CONTROL, "no-store")], Json(access(made))))
}

/// Takes a key back; connections with it end within a minute.
#[utoipa::path(delete, path = "/exports/{export}/keys/{key}", tag = "exports",
    params(("export" = String, Path, description = "Export id"), ("key" = String, Path, description = "Key id")),
    responses((status = 200, body = ExportKey)))]
pub(crate) async fn revoke_key(
    State(state): State<HttpState>,
    Caller(caller): Caller,
    Path((id, revoked)): Path<(String, String)>,
) -> Answer<ExportKey> {
    let revoked = state.app.revoke_export_key(&caller, &export_id(&id)?, &page::id(&revoked, "key")?).await?;
    Ok(Json(key(revoked)))
}

/// Downloads of an export, the newest first.
#[utoipa::path(get, path = "/exports/{export}/downloads", tag = "exports",
    params(("export" = String, Path, description = "Export id")), responses((status = 200, body = ExportDownloads)))]
pub(crate) async fn downloads(
    State(state): State<HttpState>,
    Caller(caller): Caller,
    Path(id): Path<String>,
) -> Answer<ExportDownloads> {
    let found = state.app.export_downloads(&caller, &export_id(&id)?).await?;
    Ok(Json(ExportDownloads { items: found.into_iter().map(download).collect() }))
}

/// The keys by which the SFTP server is known: fingerprints, and lines for `known_hosts`.
#[utoipa::path(get, path = "/ssh-host-keys", tag = "exports", security(()),
    responses((status = 200, body = String, content_type = "text/plain")))]
pub(crate) async fn host_keys(State(state): State<HttpState>) -> Result<String, Refusal> {
    let door = state.app.sftp_door()?;
    let mut text = String::new();
    for key in &door.host_keys {
        let _ = writeln!(text, "# {} {}", key.algorithm(), key.fingerprint());
    }
    for line in door.known_hosts() {
        let _ = writeln!(text, "{line}");
    }
    Ok(text)
}
