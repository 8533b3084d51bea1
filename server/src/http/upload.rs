//! Uploads: wire types <-> use cases.

use crate::app::upload::Upload;
use crate::app::{AppError, Grant, Need};
use crate::http::HttpState;
use crate::http::body::BodyReader;
use crate::http::browse::snapshot;
use crate::http::extract::{Caller, JsonBody, require_media_type};
use crate::http::problem::Refusal;
use crate::http::quota::notices;
use crate::limits::{BODIES_WAIT, STREAMED_BODY_BYTES};
use api::browse::Snapshot;
use api::objects::{BodyDecoder, BodyError, Record};
use api::upload::{
    BeginUpload, Commit, Durable, Flush, HAVE_IDS_MAX, INCARNATION_HEADER, Received, UPLOAD_BODY_BYTES_MAX,
    UploadSession,
};
use axum::Json;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, HeaderName, StatusCode, header};
use axum::response::{IntoResponse, Response};
use repo_format::id::{ObjectId, ObjectKind, UploadSessionId};
use store::IncomingObject;
use tokio::sync::OwnedSemaphorePermit;

fn session_id(text: &str) -> Result<UploadSessionId, AppError> {
    text.parse().map_err(|_| AppError::NotFound { what: "upload session" })
}

fn upload_session(state: &HttpState, grant: Grant, upload: Upload) -> UploadSession {
    UploadSession {
        id: upload.session.to_string(),
        incarnation: upload.incarnation,
        base_damaged: upload.base_damaged.iter().map(ObjectId::to_string).collect(),
        notices: notices(&state.app.vault_quotas(grant)),
    }
}

fn incoming(record: Record) -> IncomingObject {
    let Record { kind, codec, plain_len, id, payload } = record;
    IncomingObject { id, kind, codec, plain_len, payload }
}

impl From<BodyError> for Refusal {
    fn from(error: BodyError) -> Self {
        match error {
            BodyError::TooLarge(_) => Refusal::TooLarge(error.to_string()),
            BodyError::Malformed => Refusal::BadRequest(error.to_string()),
            BodyError::WrongEnd | BodyError::Truncated => Refusal::TruncatedBody(error.to_string()),
        }
    }
}

/// Ids as they stand in a body, 32 bytes each.
pub(crate) fn ids(bytes: &[u8]) -> Result<Vec<ObjectId>, Refusal> {
    let (ids, rest) = bytes.as_chunks::<32>();
    if !rest.is_empty() {
        return Err(Refusal::TruncatedBody("the body is not a whole number of ids of 32 bytes".into()));
    }
    Ok(ids.iter().map(|id| ObjectId::from_bytes(*id)).collect())
}

/// Waits for room for `bytes` of bodies.
pub(crate) async fn room(state: &HttpState, bytes: usize) -> Result<OwnedSemaphorePermit, Refusal> {
    let permits = u32::try_from(bytes).unwrap_or(u32::MAX);
    match tokio::time::timeout(BODIES_WAIT, state.bodies.clone().acquire_many_owned(permits)).await {
        Ok(Ok(permit)) => Ok(permit),
        Ok(Err(_)) | Err(_) => Err(AppError::Retry("the server is busy with other uploads; try again".into()).into()),
    }
}

/// Starts an upload session.
#[utoipa::path(post, path = "/vaults/{vault}/uploads", tag = "upload", request_body = BeginUpload,
    params(("vault" = String, Path, description = "Vault id")), responses((status = 201, body = UploadSession)))]
pub(crate) async fn begin(
    State(state): State<HttpState>,
    Caller(caller): Caller,
    Path(vault): Path<String>,
    JsonBody(body): JsonBody<BeginUpload>,
) -> Result<(StatusCode, Json<UploadSession>), Refusal> {
    let grant = state.app.on_vault(&caller, &vault, Need::Backup).await?;
    let base = match body.base_snapshot {
        None => None,
        Some(id) => Some(id.parse().map_err(|_| AppError::NotFound { what: "snapshot" })?),
    };
    let upload = state.app.begin_upload(grant, body.computer, body.series, base).await?;
    Ok((StatusCode::CREATED, Json(upload_session(&state, grant, upload))))
}

/// A live upload session.
#[utoipa::path(get, path = "/vaults/{vault}/uploads/{session}", tag = "upload",
    params(("vault" = String, Path, description = "Vault id"), ("session" = String, Path, description = "Upload session id")),
    responses((status = 200, body = UploadSession)))]
pub(crate) async fn session(
    State(state): State<HttpState>,
    Caller(caller): Caller,
    Path((vault, session)): Path<(String, String)>,
) -> Result<Json<UploadSession>, Refusal> {
    let grant = state.app.on_vault(&caller, &vault, Need::Backup).await?;
    let upload = state.app.upload_session(grant, session_id(&session)?).await?;
    Ok(Json(upload_session(&state, grant, upload)))
}

/// Ends an upload session without a snapshot.
#[utoipa::path(delete, path = "/vaults/{vault}/uploads/{session}", tag = "upload",
    params(("vault" = String, Path, description = "Vault id"), ("session" = String, Path, description = "Upload session id")),
    responses((status = 204, description = "Ended")))]
pub(crate) async fn abort(
    State(state): State<HttpState>,
    Caller(caller): Caller,
    Path((vault, session)): Path<(String, String)>,
) -> Result<StatusCode, Refusal> {
    let grant = state.app.on_vault(&caller, &vault, Need::Backup).await?;
    state.app.abort_upload(grant, session_id(&session)?).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Which objects the vault has: ids of 32 bytes in, one byte per id out, 1 = present.
#[utoipa::path(post, path = "/vaults/{vault}/uploads/{session}/have", tag = "upload",
    params(("vault" = String, Path, description = "Vault id"), ("session" = String, Path, description = "Upload session id")),
    request_body(content = Vec<u8>, content_type = "application/vnd.holdfast.objects", description = "At most 4096 ids of 32 bytes"),
    responses((status = 200, content_type = "application/vnd.holdfast.objects", body = Vec<u8>,
        headers(("holdfast-incarnation" = u64, description = "The incarnation the answer is true for")))))]
pub(crate) async fn have(
    State(state): State<HttpState>,
    Caller(caller): Caller,
    Path((vault, session)): Path<(String, String)>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Refusal> {
    let grant = state.app.on_vault(&caller, &vault, Need::Backup).await?;
    let session = session_id(&session)?;
    require_media_type(&headers, api::BINARY)?;
    let ids = ids(&BodyReader::new(body, HAVE_IDS_MAX * ObjectId::LEN)?.read_all().await?)?;
    let (present, incarnation) = state.app.have(grant, session, ids).await?;
    let present: Vec<u8> = present.into_iter().map(u8::from).collect();
    let incarnation = (HeaderName::from_static(INCARNATION_HEADER), incarnation.to_string());
    Ok(([(header::CONTENT_TYPE, api::BINARY.to_owned()), incarnation], present).into_response())
}

/// Chunks: received, not durable.
#[utoipa::path(post, path = "/vaults/{vault}/uploads/{session}/chunks", tag = "upload",
    params(("vault" = String, Path, description = "Vault id"), ("session" = String, Path, description = "Upload session id")),
    request_body(content = Vec<u8>, content_type = "application/vnd.holdfast.objects", description = "Records and their end, at most 32 MiB"),
    responses((status = 200, body = Received)))]
pub(crate) async fn chunks(
    State(state): State<HttpState>,
    Caller(caller): Caller,
    Path((vault, session)): Path<(String, String)>,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<Received>, Refusal> {
    let grant = state.app.on_vault(&caller, &vault, Need::Backup).await?;
    let session = session_id(&session)?;
    require_media_type(&headers, api::BINARY)?;
    // A body that does not say how long it is must find room for something at least.
    let declared = hyper::body::Body::size_hint(&body).exact().unwrap_or(1);
    let mut body = BodyReader::new(body, UPLOAD_BODY_BYTES_MAX)?;
    let mut receiver = state.app.receive_chunks(grant, session, declared).await?;
    let _room = room(&state, STREAMED_BODY_BYTES).await?;
    let mut decoder = BodyDecoder::default();
    while let Some(piece) = body.next_piece().await? {
        decoder.push(&piece);
        while let Some(record) = decoder.next_record()? {
            receiver.push(incoming(record)).await?;
        }
    }
    decoder.finish()?;
    let (received, objects) = receiver.finish().await?;
    state.metrics.objects_received(ObjectKind::Chunk, objects, received.new_objects, received.stored_bytes);
    Ok(Json(Received {
        incarnation: received.incarnation,
        new_objects: received.new_objects,
        stored_bytes: received.stored_bytes,
    }))
}

/// Nodes, children before parents: they and everything received before are durable when this answers.
#[utoipa::path(post, path = "/vaults/{vault}/uploads/{session}/nodes", tag = "upload",
    params(("vault" = String, Path, description = "Vault id"), ("session" = String, Path, description = "Upload session id")),
    request_body(content = Vec<u8>, content_type = "application/vnd.holdfast.objects", description = "Records and their end, at most 32 MiB"),
    responses((status = 200, body = Durable)))]
pub(crate) async fn nodes(
    State(state): State<HttpState>,
    Caller(caller): Caller,
    Path((vault, session)): Path<(String, String)>,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<Durable>, Refusal> {
    let grant = state.app.on_vault(&caller, &vault, Need::Backup).await?;
    let session = session_id(&session)?;
    require_media_type(&headers, api::BINARY)?;
    let declared = hyper::body::Body::size_hint(&body).upper().unwrap_or(u64::MAX);
    let mut body = BodyReader::new(body, UPLOAD_BODY_BYTES_MAX)?;
    state.app.check_space()?;
    state.app.live_upload(grant, session).await?;
    let _room = room(&state, declared.min(UPLOAD_BODY_BYTES_MAX as u64) as usize).await?;
    let mut decoder = BodyDecoder::default();
    let mut nodes = Vec::new();
    while let Some(piece) = body.next_piece().await? {
        decoder.push(&piece);
        while let Some(record) = decoder.next_record()? {
            if record.kind != ObjectKind::Node {
                return Err(AppError::Invalid(format!("object {}: is no node", record.id)).into());
            }
            nodes.push(incoming(record));
        }
    }
    decoder.finish()?;
    let objects = nodes.len() as u64;
    let durable = state.app.put_nodes(grant, session, nodes).await?;
    state.metrics.objects_received(ObjectKind::Node, objects, durable.new_objects, durable.stored_bytes);
    Ok(Json(durable_answer(&state, grant, durable)))
}

fn durable_answer(state: &HttpState, grant: Grant, durable: store::Durable) -> Durable {
    let store::Durable { incarnation, new_objects, stored_bytes } = durable;
    Durable { incarnation, new_objects, stored_bytes, notices: notices(&state.app.vault_quotas(grant)) }
}

/// Makes everything received under an incarnation durable.
#[utoipa::path(post, path = "/vaults/{vault}/uploads/{session}/flush", tag = "upload", request_body = Flush,
    params(("vault" = String, Path, description = "Vault id"), ("session" = String, Path, description = "Upload session id")),
    responses((status = 200, body = Durable)))]
pub(crate) async fn flush(
    State(state): State<HttpState>,
    Caller(caller): Caller,
    Path((vault, session)): Path<(String, String)>,
    JsonBody(body): JsonBody<Flush>,
) -> Result<Json<Durable>, Refusal> {
    let grant = state.app.on_vault(&caller, &vault, Need::Backup).await?;
    let durable = state.app.flush(grant, session_id(&session)?, body.incarnation).await?;
    Ok(Json(durable_answer(&state, grant, durable)))
}

/// Commits a root as a snapshot; the same root again answers the same snapshot.
#[utoipa::path(post, path = "/vaults/{vault}/uploads/{session}/commit", tag = "upload", request_body = Commit,
    params(("vault" = String, Path, description = "Vault id"), ("session" = String, Path, description = "Upload session id")),
    responses((status = 200, body = Snapshot)))]
pub(crate) async fn commit(
    State(state): State<HttpState>,
    Caller(caller): Caller,
    Path((vault, session)): Path<(String, String)>,
    JsonBody(body): JsonBody<Commit>,
) -> Result<Json<Snapshot>, Refusal> {
    let grant = state.app.on_vault(&caller, &vault, Need::Backup).await?;
    let session = session_id(&session)?;
    let root = body.root.parse().map_err(|_| Refusal::BadRequest("root: is not a node id".into()))?;
    let summary =
        serde_json::to_vec(&body.summary).map_err(|error| Refusal::BadRequest(format!("summary: {error}")))?;
    if summary.len() > repo_format::journal::SUMMARY_BYTES_MAX {
        return Err(Refusal::TooLarge(format!(
            "summary: is larger than {} bytes",
            repo_format::journal::SUMMARY_BYTES_MAX
        )));
    }
    Ok(Json(snapshot(state.app.commit(grant, session, root, summary).await?)?))
}
