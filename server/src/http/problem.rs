//! The one map from errors to HTTP answers: code, status, title. Internals stay in the log.

use crate::app::AppError;
use crate::http::envelope::RequestId;
use crate::http::quota::figures;
use crate::http::services::refused_allocation;
use api::problem::{Code, Problem};
use api::quota::QuotaFigures;
use api::services::AllocationRefusal;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};

/// Why a request gets no answer of its own.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// A use case failed.
    #[error(transparent)]
    App(#[from] AppError),
    /// The request does not follow the protocol.
    #[error("{0}")]
    BadRequest(String),
    /// The body ended early, came too slowly, or holds a record with a wrong length.
    #[error("{0}")]
    TruncatedBody(String),
    /// The body or a record is larger than allowed.
    #[error("{0}")]
    TooLarge(String),
    /// Another media type is needed.
    #[error("the body must be {0}")]
    UnsupportedMediaType(&'static str),
    /// No such path.
    #[error("there is nothing at this path")]
    NoSuchPath,
    /// The path exists, not with this method.
    #[error("this path does not answer this method")]
    MethodNotAllowed,
    /// Protocol versions differ.
    #[error(
        "this server speaks protocol version {server}, the agent version {agent}: use an agent of the same release"
    )]
    UpgradeRequired {
        /// This server's.
        server: u32,
        /// As the agent names it.
        agent: String,
    },
    /// The range lies outside the content.
    #[error("the range lies outside the content of {0} bytes")]
    RangeNotSatisfiable(u64),
}

impl Refusal {
    const fn code(&self) -> Code {
        match self {
            Refusal::App(error) => match error {
                AppError::Unauthorized => Code::Unauthorized,
                AppError::TokenExpired => Code::TokenExpired,
                AppError::Forbidden { .. } => Code::Forbidden,
                AppError::StepUpNeeded { .. } => Code::StepUpNeeded,
                AppError::WrongCredentials => Code::WrongCredentials,
                AppError::SecondFactorNeeded => Code::SecondFactorNeeded,
                AppError::SecondFactorMissing => Code::SecondFactorMissing,
                AppError::LoginEnded => Code::LoginEnded,
                AppError::UntrustedNetwork => Code::UntrustedNetwork,
                AppError::TooManyAttempts { .. } => Code::TooManyAttempts,
                AppError::NotFound { .. } => Code::NotFound,
                AppError::Invalid(_) => Code::BadRequest,
                AppError::Conflict(_) => Code::Conflict,
                AppError::WrongState(_) => Code::WrongState,
                AppError::TooEarly { .. } => Code::TooEarly,
                AppError::LicenceExceeded(_) => Code::LicenceExceeded,
                AppError::AllocationExceedsFree(_) => Code::AllocationExceedsFree,
                AppError::ServiceRestricted(_) => Code::ServiceRestricted,
                AppError::SnapshotDeleted(_) => Code::SnapshotDeleted,
                AppError::SnapshotHeld(_) => Code::SnapshotHeld,
                AppError::ClockJumped(_) => Code::ClockJumped,
                AppError::Missing(_) => Code::MissingObjects,
                AppError::IncarnationChanged => Code::IncarnationChanged,
                AppError::IdMismatch(_) => Code::IdMismatch,
                AppError::BadCompression(_) => Code::BadCompression,
                AppError::BadNode(_) => Code::BadNode,
                AppError::DiskFull(_) => Code::ServerDiskFull,
                AppError::QuotaExceeded(_) => Code::QuotaExceeded,
                AppError::Damaged(_) => Code::Damaged,
                AppError::Retry(_) => Code::Retry,
                AppError::VaultDeleted => Code::VaultDeleted,
                AppError::VaultUnavailable(_) => Code::VaultUnavailable,
                AppError::Internal(_) => Code::Internal,
            },
            Refusal::BadRequest(_) => Code::BadRequest,
            Refusal::TruncatedBody(_) => Code::TruncatedBody,
            Refusal::TooLarge(_) => Code::TooLarge,
            Refusal::UnsupportedMediaType(_) => Code::UnsupportedMediaType,
            Refusal::NoSuchPath => Code::NotFound,
            Refusal::MethodNotAllowed => Code::MethodNotAllowed,
            Refusal::UpgradeRequired { .. } => Code::UpgradeRequired,
            Refusal::RangeNotSatisfiable(_) => Code::RangeNotSatisfiable,
        }
    }
}

/// Status and title of a code.
const fn status_and_title(code: Code) -> (StatusCode, &'static str) {
    match code {
        Code::BadRequest => (StatusCode::BAD_REQUEST, "The request does not follow the protocol"),
        Code::TruncatedBody => (StatusCode::BAD_REQUEST, "The body is cut short"),
        Code::Unauthorized => (StatusCode::UNAUTHORIZED, "No valid token"),
        Code::TokenExpired => (StatusCode::UNAUTHORIZED, "The token has expired"),
        Code::Forbidden => (StatusCode::FORBIDDEN, "The token lacks a right"),
        Code::StepUpNeeded => (StatusCode::FORBIDDEN, "A fresh log-in factor is needed"),
        Code::ServiceRestricted => (StatusCode::FORBIDDEN, "The service is not open for this"),
        Code::WrongCredentials => (StatusCode::UNAUTHORIZED, "Wrong log-in name, password or code"),
        Code::SecondFactorNeeded => (StatusCode::UNAUTHORIZED, "A second factor is needed"),
        Code::SecondFactorMissing => (StatusCode::FORBIDDEN, "A second factor must be set up"),
        Code::LoginEnded => (StatusCode::UNAUTHORIZED, "The login session has ended"),
        Code::UntrustedNetwork => (StatusCode::FORBIDDEN, "This address is not trusted"),
        Code::TooManyAttempts => (StatusCode::TOO_MANY_REQUESTS, "Too many attempts"),
        Code::NotFound => (StatusCode::NOT_FOUND, "Not found"),
        Code::MethodNotAllowed => (StatusCode::METHOD_NOT_ALLOWED, "Method not allowed"),
        Code::VaultDeleted => (StatusCode::GONE, "The vault has been deleted"),
        Code::MissingObjects => (StatusCode::CONFLICT, "Objects are missing"),
        Code::IncarnationChanged => (StatusCode::CONFLICT, "What was received is forgotten"),
        Code::Conflict => (StatusCode::CONFLICT, "Conflict"),
        Code::WrongState => (StatusCode::CONFLICT, "The state does not allow this"),
        Code::TooEarly => (StatusCode::CONFLICT, "Too early"),
        Code::LicenceExceeded => (StatusCode::CONFLICT, "The licence does not allow this"),
        Code::AllocationExceedsFree => (StatusCode::CONFLICT, "More than is free"),
        Code::SnapshotDeleted => (StatusCode::CONFLICT, "The snapshot is deleted"),
        Code::SnapshotHeld => (StatusCode::CONFLICT, "The snapshot is held"),
        Code::ClockJumped => (StatusCode::CONFLICT, "The server's clock has jumped"),
        Code::TooLarge => (StatusCode::PAYLOAD_TOO_LARGE, "Too large"),
        Code::QuotaExceeded => (StatusCode::PAYLOAD_TOO_LARGE, "Quota exceeded"),
        Code::UnsupportedMediaType => (StatusCode::UNSUPPORTED_MEDIA_TYPE, "Wrong media type"),
        Code::RangeNotSatisfiable => (StatusCode::RANGE_NOT_SATISFIABLE, "Range not satisfiable"),
        Code::IdMismatch => (StatusCode::UNPROCESSABLE_ENTITY, "Content does not match its id"),
        Code::BadCompression => (StatusCode::UNPROCESSABLE_ENTITY, "Compressed data is wrong"),
        Code::BadNode => (StatusCode::UNPROCESSABLE_ENTITY, "A node breaks a rule"),
        Code::UpgradeRequired => (StatusCode::UPGRADE_REQUIRED, "Protocol versions differ"),
        Code::Internal => (StatusCode::INTERNAL_SERVER_ERROR, "A defect of the server"),
        Code::Retry => (StatusCode::SERVICE_UNAVAILABLE, "Try again"),
        Code::VaultUnavailable => (StatusCode::SERVICE_UNAVAILABLE, "The vault cannot be used now"),
        Code::ServerDiskFull => (StatusCode::INSUFFICIENT_STORAGE, "The server's disk is full"),
        Code::Damaged => (StatusCode::INTERNAL_SERVER_ERROR, "A stored object is damaged"),
    }
}

/// A refusal on its way out; [`Draft::finish`] adds the request id.
#[derive(Clone, Debug)]
pub(crate) struct Draft {
    code: Code,
    detail: String,
    missing: Vec<String>,
    content_bytes: Option<u64>,
    quota: Option<Box<QuotaFigures>>,
    allocation: Option<Box<AllocationRefusal>>,
    retry_after_s: Option<u64>,
    next_allowed_ns: Option<i64>,
}

impl Draft {
    /// For an answer that some layer made without a problem document.
    pub(crate) fn of_status(status: StatusCode) -> Self {
        let code = match status {
            StatusCode::NOT_FOUND => Code::NotFound,
            StatusCode::METHOD_NOT_ALLOWED => Code::MethodNotAllowed,
            StatusCode::PAYLOAD_TOO_LARGE => Code::TooLarge,
            StatusCode::UNSUPPORTED_MEDIA_TYPE => Code::UnsupportedMediaType,
            status if status.is_client_error() => Code::BadRequest,
            _ => Code::Internal,
        };
        let detail = status.canonical_reason().unwrap_or("refused").to_owned();
        Draft {
            code,
            detail,
            missing: Vec::new(),
            content_bytes: None,
            quota: None,
            allocation: None,
            retry_after_s: None,
            next_allowed_ns: None,
        }
    }

    /// For a handler that panicked.
    pub(crate) fn of_panic(message: String) -> Self {
        Draft {
            code: Code::Internal,
            detail: format!("panic: {message}"),
            missing: Vec::new(),
            content_bytes: None,
            quota: None,
            allocation: None,
            retry_after_s: None,
            next_allowed_ns: None,
        }
    }

    /// The whole answer. A defect's own text goes to the log, the caller gets the id that finds it there.
    pub(crate) fn finish(self, id: &RequestId) -> Response {
        let (status, title) = status_and_title(self.code);
        let detail = if self.code == Code::Internal {
            tracing::error!(request = %id, detail = %self.detail, "request failed by a defect of the server");
            format!("the server failed; its log has the reason under request {id}")
        } else {
            self.detail
        };
        let code = serde_json::to_value(self.code).ok();
        let code_name = code.as_ref().and_then(serde_json::Value::as_str).unwrap_or("internal");
        let problem = Problem {
            kind: format!("urn:holdfast:problem:{code_name}"),
            title: title.to_owned(),
            status: status.as_u16(),
            detail,
            code: self.code,
            instance: Some(id.to_string()),
            missing: self.missing,
            next_allowed_ns: self.next_allowed_ns,
            quota: self.quota.map(|figures| *figures),
            allocation: self.allocation.map(|figures| *figures),
        };
        let body = serde_json::to_vec(&problem).unwrap_or_default();
        let mut response = (status, [(header::CONTENT_TYPE, api::PROBLEM)], body).into_response();
        let headers = response.headers_mut();
        match self.code {
            Code::Unauthorized | Code::TokenExpired | Code::LoginEnded => {
                headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            }
            Code::TooManyAttempts => {
                headers.insert(header::RETRY_AFTER, HeaderValue::from(self.retry_after_s.unwrap_or(1)));
            }
            Code::Retry | Code::VaultUnavailable => {
                headers.insert(header::RETRY_AFTER, HeaderValue::from_static("2"));
            }
            Code::ServerDiskFull => {
                headers.insert(header::RETRY_AFTER, HeaderValue::from_static("10"));
            }
            Code::RangeNotSatisfiable => {
                let range = format!("bytes */{}", self.content_bytes.unwrap_or_default());
                headers.extend(HeaderValue::from_str(&range).ok().map(|range| (header::CONTENT_RANGE, range)));
            }
            _ => {}
        }
        response
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let code = self.code();
        let missing = match &self {
            Refusal::App(AppError::Missing(ids)) => ids.iter().map(ToString::to_string).collect(),
            _ => Vec::new(),
        };
        let content_bytes = match &self {
            Refusal::RangeNotSatisfiable(bytes) => Some(*bytes),
            _ => None,
        };
        let retry_after_s = match &self {
            Refusal::App(AppError::TooManyAttempts { retry_after_s }) => Some(*retry_after_s),
            _ => None,
        };
        let next_allowed_ns = match &self {
            Refusal::App(AppError::TooEarly { next_allowed_ns, .. }) => Some(*next_allowed_ns),
            _ => None,
        };
        let quota = match &self {
            Refusal::App(AppError::QuotaExceeded(refusal)) => Some(Box::new(figures(refusal))),
            _ => None,
        };
        let allocation = match &self {
            Refusal::App(AppError::AllocationExceedsFree(refusal)) => Some(Box::new(refused_allocation(refusal))),
            _ => None,
        };
        let mut response = status_and_title(code).0.into_response();
        response.extensions_mut().insert(Draft {
            code,
            detail: self.to_string(),
            missing,
            content_bytes,
            quota,
            allocation,
            retry_after_s,
            next_allowed_ns,
        });
        response
    }
}
