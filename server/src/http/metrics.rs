//! `GET /metrics`.

use crate::app::AppError;
use crate::http::HttpState;
use crate::http::problem::Refusal;
use axum::extract::State;
use axum::http::{HeaderName, header};

/// The text format, with gauges read off the server now.
pub(crate) async fn metrics(
    State(state): State<HttpState>,
) -> Result<([(HeaderName, &'static str); 1], Vec<u8>), Refusal> {
    let app = &state.app;
    let totals = app.totals().await?;
    state.metrics.set_gauges(
        &totals,
        app.upload_sessions(),
        !app.is_master_key_confirmed(),
        app.is_draining(),
        app.is_disk_full(),
    );
    state.metrics.set_agents_waiting(app.waiting_agents());
    let (readings, refusals) = app.quota_figures();
    state.metrics.set_quotas(&readings, refusals);
    state.metrics.set_store_gauges(&app.vault_states().await?, app.index_reopened());
    state.metrics.set_notices(&app.notice_counts().await?);
    state.metrics.set_mails(&app.outbox_counts().await?);
    let text = state.metrics.text().map_err(|error| AppError::Internal(format!("metrics: {error}")))?;
    Ok(([(header::CONTENT_TYPE, prometheus::TEXT_FORMAT)], text))
}
