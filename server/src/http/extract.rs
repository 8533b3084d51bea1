//! Request -> principal and typed input. No rules of its own.

use crate::app::AppError;
use crate::app::Principal;
use crate::http::HttpState;
use crate::http::body::BodyReader;
use crate::http::problem::Refusal;
use crate::limits::JSON_BYTES_MAX;
use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::http::request::Parts;
use axum::http::{HeaderMap, header};
use serde::de::DeserializeOwned;
use std::net::{IpAddr, Ipv4Addr};

/// Whoever holds the token of this request.
pub(crate) struct Caller(pub(crate) Principal);

impl FromRequestParts<HttpState> for Caller {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, state: &HttpState) -> Result<Self, Refusal> {
        let header = parts.headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        let bearer = header
            .and_then(|text| text.split_once(' '))
            .and_then(|(scheme, secret)| scheme.eq_ignore_ascii_case("bearer").then_some(secret.trim()));
        let secret = bearer.ok_or(AppError::Unauthorized)?;
        Ok(Caller(state.app.authenticate(secret, address_of(parts)).await?))
    }
}

/// From where a connection comes; the listener notes it with every request.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PeerAddress(pub(crate) IpAddr);

fn address_of(parts: &Parts) -> IpAddr {
    let noted = parts.extensions.get::<PeerAddress>().map(|peer| peer.0);
    // Nobody: in none of the networks that somebody may trust but 0.0.0.0/0.
    noted.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED)).to_canonical()
}

/// From where a request comes.
pub(crate) struct CallerAddress(pub(crate) IpAddr);

impl FromRequestParts<HttpState> for CallerAddress {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, _: &HttpState) -> Result<Self, Refusal> {
        Ok(CallerAddress(address_of(parts)))
    }
}

/// A JSON body.
pub(crate) struct JsonBody<T>(pub(crate) T);

impl<T: DeserializeOwned> FromRequest<HttpState> for JsonBody<T> {
    type Rejection = Refusal;

    async fn from_request(request: Request, _: &HttpState) -> Result<Self, Refusal> {
        require_media_type(request.headers(), "application/json")?;
        let bytes = BodyReader::new(request.into_body(), JSON_BYTES_MAX)?.read_all().await?;
        let value = serde_json::from_slice(&bytes).map_err(|error| {
            if error.is_eof() {
                Refusal::TruncatedBody("the JSON body is cut short".into())
            } else {
                Refusal::BadRequest(format!("the JSON body is not what this call takes: {error}"))
            }
        })?;
        Ok(JsonBody(value))
    }
}

/// Refuses another media type than `wanted`; parameters such as a charset do not matter.
pub(crate) fn require_media_type(headers: &HeaderMap, wanted: &'static str) -> Result<(), Refusal> {
    let given = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let essence = given.split(';').next().unwrap_or_default().trim();
    if essence.eq_ignore_ascii_case(wanted) { Ok(()) } else { Err(Refusal::UnsupportedMediaType(wanted)) }
}
