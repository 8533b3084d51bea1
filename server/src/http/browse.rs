//! Snapshots, folders and files: wire types <-> use cases.

use crate::app::{AppError, Need};
use crate::http::HttpState;
use crate::http::extract::Caller;
use crate::http::problem::Refusal;
use crate::http::range::{Wanted, wanted};
use crate::limits::ENTRIES_MAX;
use api::browse::{Deleted, Entries, EntryInfo, Snapshot, Snapshots};
use api::upload::RunSummary;
use axum::Json;
use axum::body::Body;
use axum::extract::{Path, RawQuery, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, percent_encode};
use repo_format::entry::{Entry, EntryKind};
use repo_format::id::SnapshotId;
use store::{SnapshotInfo, SoftDeleted};

/// What stays as it is in a percent-encoded name: letters, digits and the unreserved marks.
pub(crate) const NAME: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');
const NANOSECONDS: i128 = 1_000_000_000;

pub(crate) fn snapshot(info: SnapshotInfo) -> Result<Snapshot, AppError> {
    let SnapshotInfo { commit: info, deleted, hold_until_ns, tags } = info;
    let summary: RunSummary = serde_json::from_slice(&info.summary_json)
        .map_err(|error| AppError::Internal(format!("summary of snapshot {}: {error}", info.snapshot)))?;
    Ok(Snapshot {
        id: info.snapshot.to_string(),
        root: info.root.to_string(),
        computer: info.computer,
        series: info.series,
        committed_ns: info.committed_ns,
        logical_bytes: info.logical_bytes,
        tags: tags.unwrap_or_else(|| summary.tags.clone()),
        deleted: deleted.map(|SoftDeleted { deleted_ns, until_ns, by }| Deleted { deleted_ns, until_ns, by }),
        hold_until_ns,
        summary,
    })
}

pub(crate) fn snapshot_id(text: &str) -> Result<SnapshotId, AppError> {
    text.parse().map_err(|_| AppError::NotFound { what: "snapshot" })
}

/// A parameter of the query as bytes; names need not be UTF-8.
fn parameter(query: Option<&str>, name: &str) -> Option<Vec<u8>> {
    let pairs = query.unwrap_or_default().split('&');
    let value = pairs.filter_map(|pair| pair.split_once('=')).find(|(key, _)| *key == name)?.1;
    // As forms encode it: a plus sign is a space.
    Some(percent_decode_str(&value.replace('+', " ")).collect())
}

fn entry_info(name: &[u8], entry: Option<&Entry>) -> EntryInfo {
    let kind = match entry.map(|entry| &entry.kind) {
        None | Some(EntryKind::Directory) => "directory",
        Some(EntryKind::File { .. }) => "file",
        Some(EntryKind::Symlink { .. }) => "symlink",
        Some(EntryKind::Fifo) => "fifo",
        Some(EntryKind::Socket) => "socket",
        Some(EntryKind::CharDevice { .. }) => "char_device",
        Some(EntryKind::BlockDevice { .. }) => "block_device",
    };
    let time = entry.map(|entry| entry.mtime).unwrap_or_default();
    EntryInfo {
        name: percent_encode(name, NAME).to_string(),
        kind: kind.into(),
        size: entry.map_or(0, Entry::size),
        mode: entry.map_or(0, |entry| entry.mode),
        modified_ns: (i128::from(time.seconds) * NANOSECONDS + i128::from(time.nanoseconds)).to_string(),
    }
}

/// All snapshots, oldest first.
#[utoipa::path(get, path = "/vaults/{vault}/snapshots", tag = "restore",
    params(("vault" = String, Path, description = "Vault id")), responses((status = 200, body = Snapshots)))]
pub(crate) async fn snapshots(
    State(state): State<HttpState>,
    Caller(caller): Caller,
    Path(vault): Path<String>,
) -> Result<Json<Snapshots>, Refusal> {
    // An agent looks for its base snapshot, and whoever may delete or hold must see what there is.
    let grant = state.app.on_vault(&caller, &vault, Need::Look).await?;
    let snapshots = state.app.snapshots(grant).await?.into_iter().map(snapshot).collect::<Result<_, _>>()?;
    Ok(Json(Snapshots { snapshots }))
}

/// One snapshot.
#[utoipa::path(get, path = "/vaults/{vault}/snapshots/{snapshot}", tag = "restore",
    params(("vault" = String, Path, description = "Vault id"), ("snapshot" = String, Path, description = "Snapshot id")),
    responses((status = 200, body = Snapshot)))]
pub(crate) async fn one_snapshot(
    State(state): State<HttpState>,
    Caller(caller): Caller,
    Path((vault, id)): Path<(String, String)>,
) -> Result<Json<Snapshot>, Refusal> {
    let grant = state.app.on_vault(&caller, &vault, Need::Look).await?;
    Ok(Json(snapshot(state.app.snapshot(grant, snapshot_id(&id)?).await?)?))
}

/// One page of a folder. Names are percent-encoded bytes, in the query and in the answer.
#[utoipa::path(get, path = "/vaults/{vault}/snapshots/{snapshot}/entries", tag = "restore",
    params(("vault" = String, Path, description = "Vault id"), ("snapshot" = String, Path, description = "Snapshot id"),
        ("path" = Option<String>, Query, description = "Absolute path of the folder; / when absent"),
        ("after" = Option<String>, Query, description = "Name after which the page begins"),
        ("limit" = Option<u32>, Query, description = "Most entries in the page")),
    responses((status = 200, body = Entries)))]
pub(crate) async fn entries(
    State(state): State<HttpState>,
    Caller(caller): Caller,
    Path((vault, id)): Path<(String, String)>,
    RawQuery(query): RawQuery,
) -> Result<Json<Entries>, Refusal> {
    let grant = state.app.on_vault(&caller, &vault, Need::Restore).await?;
    let path = parameter(query.as_deref(), "path").unwrap_or_else(|| b"/".to_vec());
    let after = parameter(query.as_deref(), "after");
    let limit = match parameter(query.as_deref(), "limit") {
        None => ENTRIES_MAX,
        Some(text) => std::str::from_utf8(&text)
            .ok()
            .and_then(|text| text.parse().ok())
            .ok_or_else(|| Refusal::BadRequest("limit: is not a number".into()))?,
    };
    let page = state.app.folder(grant, snapshot_id(&id)?, &path, after, limit).await?;
    Ok(Json(Entries {
        entries: page.entries.iter().map(|found| entry_info(&found.name, found.entry.as_ref())).collect(),
        next: page.next.map(|name| percent_encode(&name, NAME).to_string()),
    }))
}

/// A file's bytes. One range is honoured, several are answered whole.
#[utoipa::path(get, path = "/vaults/{vault}/snapshots/{snapshot}/content", tag = "restore",
    params(("vault" = String, Path, description = "Vault id"), ("snapshot" = String, Path, description = "Snapshot id"),
        ("path" = String, Query, description = "Absolute path of the file, percent-encoded bytes")),
    responses((status = 200, content_type = "application/octet-stream", body = Vec<u8>),
        (status = 206, content_type = "application/octet-stream", body = Vec<u8>)))]
pub(crate) async fn content(
    State(state): State<HttpState>,
    Caller(caller): Caller,
    Path((vault, id)): Path<(String, String)>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    let grant = state.app.on_vault(&caller, &vault, Need::Restore).await?;
    let path = parameter(query.as_deref(), "path").ok_or_else(|| Refusal::BadRequest("path: is needed".into()))?;
    let file = state.app.file(grant, snapshot_id(&id)?, &path).await?;
    let size = file.size;
    let etag = format!("\"{}\"", file.hash);
    let common = [
        (header::CONTENT_TYPE, "application/octet-stream".to_owned()),
        (header::ACCEPT_RANGES, "bytes".to_owned()),
        (header::CACHE_CONTROL, "private, no-store".to_owned()),
        (header::ETAG, etag.clone()),
    ];
    let (status, start, end) = match wanted(&headers, &etag, size) {
        Wanted::Whole => (StatusCode::OK, 0, size),
        Wanted::Part { start, end } => (StatusCode::PARTIAL_CONTENT, start, end),
        Wanted::Outside => return Err(Refusal::RangeNotSatisfiable(size)),
    };
    let mut answer = (status, common, Body::empty()).into_response();
    answer.headers_mut().insert(header::CONTENT_LENGTH, (end - start).into());
    if status == StatusCode::PARTIAL_CONTENT
        && let Ok(range) = format!("bytes {start}-{}/{size}", end - 1).parse()
    {
        answer.headers_mut().insert(header::CONTENT_RANGE, range);
    }
    if start < end {
        let mut pieces = file.read(start, end);
        // The first piece decides about the answer's status; later failures cut the body short.
        let first = pieces.next().await.transpose()?;
        *answer.body_mut() = Body::from_stream(stream::unfold((first, pieces), |(first, mut pieces)| async move {
            let piece = match first {
                Some(first) => Ok(first),
                None => pieces.next().await?.inspect_err(|error| {
                    tracing::warn!(%error, "an answer with a file is cut short");
                }),
            };
            Some((piece, (None, pieces)))
        }));
    }
    Ok(answer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_are_not_text_travel() {
        let name = b"a b%\xff\n+";
        let encoded = entry_info(name, None).name;
        assert!(encoded.is_ascii());
        assert_eq!(parameter(Some(&format!("limit=3&after={encoded}")), "after").unwrap(), name);
        assert_eq!(parameter(Some("path=a+b"), "path").unwrap(), b"a b");
        assert_eq!(parameter(None, "path"), None);
    }
}
