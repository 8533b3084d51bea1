//! Objects for restores: ids in, framed records out.

use crate::app::restore::Pieces;
use crate::app::{AppError, Need};
use crate::http::HttpState;
use crate::http::body::BodyReader;
use crate::http::extract::{Caller, require_media_type};
use crate::http::problem::Refusal;
use crate::http::upload::ids;
use crate::metrics::Metrics;
use api::objects::{CODEC_ABSENT, CODEC_DAMAGED, GET_IDS_MAX, put_end, put_head};
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use bytes::{Bytes, BytesMut};
use futures_util::stream;
use repo_format::id::{ObjectId, ObjectKind};
use std::collections::VecDeque;
use store::Delivered;

/// Records are gathered into pieces of at least this many bytes.
const PIECE_BYTES: usize = 64 << 10;

/// The vault's id keys: 192 bytes.
#[utoipa::path(get, path = "/vaults/{vault}/keys", tag = "upload",
    params(("vault" = String, Path, description = "Vault id")),
    responses((status = 200, content_type = "application/octet-stream", body = Vec<u8>)))]
pub(crate) async fn keys(
    State(state): State<HttpState>,
    Caller(caller): Caller,
    Path(vault): Path<String>,
) -> Result<Response, Refusal> {
    let grant = state.app.on_vault(&caller, &vault, Need::BackupOrRestore).await?;
    let keys = state.app.id_keys(grant).await?;
    let headers = [(header::CONTENT_TYPE, "application/octet-stream"), (header::CACHE_CONTROL, "no-store")];
    Ok((headers, keys.to_vec()).into_response())
}

/// Objects as stored: one record for each distinct id, in the order that is cheapest for the server.
#[utoipa::path(post, path = "/vaults/{vault}/objects", tag = "restore",
    params(("vault" = String, Path, description = "Vault id")),
    request_body(content = Vec<u8>, content_type = "application/vnd.holdfast.objects", description = "At most 4096 ids of 32 bytes"),
    responses((status = 200, content_type = "application/vnd.holdfast.objects", body = Vec<u8>)))]
pub(crate) async fn objects(
    State(state): State<HttpState>,
    Caller(caller): Caller,
    Path(vault): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Refusal> {
    // An agent compares with its base snapshot, so an uploader reads as well.
    let grant = state.app.on_vault(&caller, &vault, Need::BackupOrRestore).await?;
    require_media_type(&headers, api::BINARY)?;
    let ids = ids(&BodyReader::new(body, GET_IDS_MAX * ObjectId::LEN)?.read_all().await?)?;
    let mut pieces = state.app.read_objects(grant, ids);
    // The first outcome decides about the answer's status; later failures cut the body short.
    let first = match pieces.next().await {
        None => None,
        Some(Ok(delivered)) => Some(delivered),
        Some(Err(error)) => return Err(error.into()),
    };
    let encoder = Encoder {
        buffer: BytesMut::new(),
        ready: VecDeque::new(),
        count: 0,
        first,
        pieces: Some(pieces),
        metrics: state.metrics,
    };
    let body = Body::from_stream(stream::unfold(encoder, |mut encoder| async move {
        Some((encoder.next_piece().await.transpose()?, encoder))
    }));
    Ok(([(header::CONTENT_TYPE, api::BINARY)], body).into_response())
}

/// Turns outcomes into a body.
struct Encoder {
    buffer: BytesMut,
    ready: VecDeque<Bytes>,
    count: u32,
    first: Option<Delivered>,
    pieces: Option<Pieces<Delivered>>,
    metrics: Metrics,
}

impl Encoder {
    /// The next piece of the body; `None` behind its end.
    async fn next_piece(&mut self) -> Result<Option<Bytes>, AppError> {
        loop {
            if let Some(piece) = self.ready.pop_front() {
                return Ok(Some(piece));
            }
            let Some(pieces) = self.pieces.as_mut() else { return Ok(None) };
            let delivered = match self.first.take() {
                Some(first) => Some(first),
                None => pieces.next().await.transpose().inspect_err(|error| {
                    tracing::warn!(%error, "an answer with objects is cut short");
                })?,
            };
            match delivered {
                Some(delivered) => self.push(delivered),
                None => {
                    self.pieces = None;
                    put_end(&mut self.buffer, self.count);
                    self.metrics.objects_sent(u64::from(self.count));
                    self.ready.push_back(self.buffer.split().freeze());
                }
            }
        }
    }

    fn push(&mut self, delivered: Delivered) {
        self.count += 1;
        match delivered {
            Delivered::Object(object) => {
                let (codec, payload) = (object.codec.byte(), object.payload);
                put_head(&mut self.buffer, object.kind, codec, object.plain_len, &object.id, payload.len());
                if payload.len() < PIECE_BYTES {
                    self.buffer.extend_from_slice(&payload);
                } else {
                    self.ready.push_back(self.buffer.split().freeze());
                    self.ready.push_back(payload.into());
                }
            }
            Delivered::Absent(id) => put_head(&mut self.buffer, ObjectKind::Chunk, CODEC_ABSENT, 0, &id, 0),
            Delivered::Damaged(id) => put_head(&mut self.buffer, ObjectKind::Chunk, CODEC_DAMAGED, 0, &id, 0),
        }
        if self.buffer.len() >= PIECE_BYTES {
            self.ready.push_back(self.buffer.split().freeze());
        }
    }
}
