//! The export of a tenant's data, as a stream of JSON.

use crate::http::HttpState;
use crate::http::extract::Caller;
use crate::http::page::id;
use crate::http::problem::Refusal;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use control::{ExportPlace, TenantId};
use std::sync::Arc;

/// What is still to be sent.
struct Export {
    app: Arc<crate::app::App>,
    scope: control::Scope,
    tenant: TenantId,
    place: Option<ExportPlace>,
    /// The section that is open.
    open: Option<&'static str>,
}

impl Export {
    /// The next piece of the document; nothing behind its end.
    async fn piece(&mut self) -> Result<Option<Bytes>, crate::app::AppError> {
        let Some(place) = self.place.take() else { return Ok(None) };
        let mut text = String::new();
        let Some((page, next)) = self.app.export_page(&self.scope, &self.tenant, &place).await? else {
            return Ok(Some(Bytes::from_static(b"}\n")));
        };
        let mut first = false;
        if self.open != Some(page.section) {
            text.push_str(match self.open {
                None => "{\"",
                Some(_) => ",\"",
            });
            text.push_str(page.section);
            text.push_str("\":[");
            self.open = Some(page.section);
            first = true;
        }
        for row in &page.rows {
            if !first {
                text.push(',');
            }
            first = false;
            text.push_str(&row.to_string());
        }
        if page.is_last {
            text.push(']');
        }
        self.place = Some(next);
        Ok(Some(text.into()))
    }
}

/// Everything the accounts know of a tenant, never a secret: an object with a list for each kind of thing.
#[utoipa::path(get, path = "/tenants/{tenant}/export", tag = "tenants",
    params(("tenant" = String, Path, description = "Tenant id")),
    responses((status = 200, content_type = "application/json", body = serde_json::Value)))]
pub(crate) async fn export(
    State(state): State<HttpState>,
    Caller(caller): Caller,
    Path(which): Path<String>,
) -> Result<Response, Refusal> {
    let tenant = id(&which, "tenant")?;
    let scope = state.app.begin_export(&caller, tenant).await?;
    let export = Export { app: state.app, scope, tenant, place: Some(ExportPlace::default()), open: None };
    let pieces = futures_util::stream::try_unfold(export, |mut export| async move {
        match export.piece().await {
            Ok(Some(piece)) => Ok(Some((piece, export))),
            Ok(None) => Ok(None),
            // The document ends in the middle: whoever reads it sees that it is not whole.
            Err(error) => Err(std::io::Error::other(error.to_string())),
        }
    });
    let name = format!("attachment; filename=\"tenant-{tenant}.json\"");
    let headers = [(header::CONTENT_TYPE, "application/json".to_owned()), (header::CONTENT_DISPOSITION, name)];
    Ok((headers, Body::from_stream(pieces)).into_response())
}
