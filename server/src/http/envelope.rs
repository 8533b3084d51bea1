//! What happens around every request: its id, its line in the log, its counts, caught panics, and the last step of
//! every refusal, so that no answer leaves as anything but what the API promises.

use crate::http::HttpState;
use crate::http::body::CountedBody;
use crate::http::problem::{Draft, Refusal};
use axum::body::Body;
use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderName, HeaderValue, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use futures_util::FutureExt;
use std::fmt;
use std::panic::AssertUnwindSafe;
use std::time::Instant;
use tracing::Instrument;

const REQUEST_ID: HeaderName = HeaderName::from_static("request-id");
const UNMATCHED: &str = "unmatched";

/// Finds a request in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestId(u64);

impl RequestId {
    fn generate() -> Self {
        // An id without randomness would still be an id; it secures nothing.
        RequestId(getrandom::u64().unwrap_or_default())
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// Wraps every route, and the paths that are none.
pub(crate) async fn envelope(State(state): State<HttpState>, request: Request, next: Next) -> Response {
    let started = Instant::now();
    let id = RequestId::generate();
    let method = request.method().clone();
    let route = request.extensions().get::<MatchedPath>().map_or(UNMATCHED.to_owned(), |path| path.as_str().to_owned());
    let received = state.metrics.received_bytes();
    let request = request.map(|body| Body::new(CountedBody::received(body, received)));
    // The pattern of the route, never the path itself: a path may hold a secret.
    let span = tracing::info_span!("request", id = %id, %method, route);

    let response = match protocol_refusal(&request) {
        Some(refusal) => refusal.into_response(),
        None => match AssertUnwindSafe(next.run(request)).catch_unwind().instrument(span.clone()).await {
            Ok(response) => response,
            Err(panic) => {
                let mut response = hyper::StatusCode::INTERNAL_SERVER_ERROR.into_response();
                response.extensions_mut().insert(Draft::of_panic(panic_message(panic.as_ref())));
                response
            }
        },
    };
    let mut response = span.in_scope(|| finish(response, &id));
    let status = response.status();
    state.metrics.request(&route, method.as_str(), status.as_u16(), started.elapsed());
    span.in_scope(|| {
        tracing::debug!(status = status.as_u16(), milliseconds = started.elapsed().as_millis() as u64, "answered");
    });
    let headers = response.headers_mut();
    headers.extend(HeaderValue::from_str(&id.to_string()).ok().map(|id| (REQUEST_ID, id)));
    // A backed-up file must never be taken for a page of this server.
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    let sent = state.metrics.sent_bytes();
    response.map(|body| Body::new(CountedBody::sent(body, sent)))
}

/// An agent that names its protocol version must name ours.
fn protocol_refusal(request: &Request) -> Option<Refusal> {
    let named = request.headers().get(api::PROTOCOL_HEADER)?;
    let named = named.to_str().unwrap_or("?");
    let server = api::PROTOCOL_VERSION;
    (named != server.to_string()).then(|| Refusal::UpgradeRequired { server, agent: named.to_owned() })
}

fn panic_message(panic: &(dyn std::any::Any + Send)) -> String {
    panic
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("without a message")
        .to_owned()
}

/// Turns refusals, and whatever a layer refused on its own, into problem documents.
fn finish(mut response: Response, id: &RequestId) -> Response {
    let draft = match response.extensions_mut().remove::<Draft>() {
        Some(draft) => draft,
        None if !response.status().is_client_error() && !response.status().is_server_error() => return response,
        None if response.headers().get(header::CONTENT_TYPE).is_some_and(|kind| kind == api::PROBLEM) => {
            return response;
        }
        None if response.extensions().get::<OwnBody>().is_some() => return response,
        None => Draft::of_status(response.status()),
    };
    let allowed = response.headers_mut().remove(header::ALLOW);
    let mut problem = draft.finish(id);
    problem.headers_mut().extend(allowed.map(|allowed| (header::ALLOW, allowed)));
    problem
}

/// Marks an answer with an error status whose body is not a problem document (readiness).
#[derive(Clone, Copy, Debug)]
pub(crate) struct OwnBody;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::{App, AppParts};
    use crate::clock::SystemClock;
    use crate::metrics::Metrics;
    use api::problem::{Code, Problem};
    use axum::Router;
    use axum::middleware::from_fn_with_state;
    use axum::routing::{get, post};
    use control::{Control, SecretKind, TokenSecret};
    use http_body_util::BodyExt;
    use hyper::StatusCode;
    use std::sync::Arc;
    use store::world::World;
    use store::{Store, StoreSettings};
    use tower::ServiceExt;

    async fn state(folder: &std::path::Path) -> HttpState {
        let master = repo_format::keyring::MasterKey::from_bytes([1; 32]);
        let store = Store::open(StoreSettings::new(folder.join("store")), World::system(), &master).unwrap();
        let parts = AppParts {
            control: Control::open(&folder.join("accounts.sqlite")).await.unwrap(),
            store: Arc::new(store),
            clock: Arc::new(SystemClock),
            local_secret: TokenSecret::generate(SecretKind::Token).unwrap(),
            master_fingerprint: master.fingerprint(),
            public_url: "https://localhost".into(),
            sealer: Arc::new(crate::sealing::SealingKey::from_bytes([2; 32])),
            load_master_key: Arc::new(move || Ok(master.clone())),
            webhooks: crate::webhook_sender::WebhookSender::new(Vec::new()).unwrap(),
        };
        HttpState::new(Arc::new(App::new(parts).await.unwrap()), Metrics::new().unwrap())
    }

    async fn problem(router: &Router, request: Request) -> (StatusCode, Problem) {
        let response = router.clone().oneshot(request).await.unwrap();
        let (status, id) = (response.status(), response.headers()[&REQUEST_ID].to_str().unwrap().to_owned());
        let bytes = response.into_body().collect().await.unwrap().to_bytes();
        let problem: Problem = serde_json::from_slice(&bytes).unwrap();
        assert_eq!(problem.instance, Some(id));
        (status, problem)
    }

    #[tokio::test]
    async fn panics_and_answers_of_layers_become_problems_without_internals() {
        let folder = tempfile::tempdir().unwrap();
        let state = state(folder.path()).await;
        async fn panics() -> &'static str {
            panic!("the secret of the house")
        }
        let router = Router::new()
            .route("/panics", get(panics))
            .route("/teapot", get(|| async { (StatusCode::IM_A_TEAPOT, "short and stout") }))
            .route("/unread", post(|| async { "fine" }))
            .layer(from_fn_with_state(state.clone(), envelope));
        let get = |path: &str| Request::builder().uri(path).body(Body::empty()).unwrap();
        let (status, panicked) = problem(&router, get("/panics")).await;
        assert_eq!((status, panicked.code), (StatusCode::INTERNAL_SERVER_ERROR, Code::Internal));
        assert!(!panicked.detail.contains("secret"), "{}", panicked.detail);
        let (_, teapot) = problem(&router, get("/teapot")).await;
        assert_eq!(teapot.code, Code::BadRequest);
        assert!(!teapot.detail.contains("stout"), "{}", teapot.detail);
        let text = String::from_utf8(state.metrics.text().unwrap()).unwrap();
        assert!(text.contains("route=\"/panics\",status=\"500\"} 1"), "{text}");
    }
}
