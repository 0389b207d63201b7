//! What a caller of the WES API is told when something is wrong.

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// An answer that is not a success. The message is for the caller: it says what is wrong and what
/// to change, and never what went on inside.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ApiError {
    /// 400: the request is malformed or asks for what is not supported.
    #[error("{0}")]
    BadRequest(String),
    /// 401: no valid credentials came with the request.
    #[error("{0}")]
    Unauthorized(String),
    /// 403: the caller, or the state of the run, does not allow it.
    #[error("{0}")]
    Forbidden(String),
    /// 404: there is no such thing, or it is somebody else's.
    #[error("{0}")]
    NotFound(String),
    /// 405: the path exists, the method does not.
    #[error("{0}")]
    MethodNotAllowed(String),
    /// 409: an idempotency key was used for another request.
    #[error("{0}")]
    Conflict(String),
    /// 413: the request is larger than the service takes.
    #[error("{0}")]
    PayloadTooLarge(String),
    /// 415: a body of a type that the endpoint does not read.
    #[error("{0}")]
    UnsupportedMediaType(String),
    /// 416: a byte range beyond the end of a log.
    #[error("{0}")]
    RangeNotSatisfiable(String),
    /// 500: our fault; the cause is in the log under the request id.
    #[error("{0}")]
    Internal(String),
    /// 503: a service behind us does not answer at present; the same request may be sent again.
    #[error("{0}")]
    Unavailable(String),
}

impl ApiError {
    /// The 404 of a run that does not exist or is somebody else's: the two look the same.
    #[must_use]
    pub fn run_not_found(run_id: &str) -> Self {
        let shown: String = run_id.chars().take(64).collect();
        Self::NotFound(format!("run {shown:?} does not exist"))
    }

    /// The HTTP status.
    #[must_use]
    pub const fn status(&self) -> u16 {
        match self {
            Self::BadRequest(_) => 400,
            Self::Unauthorized(_) => 401,
            Self::Forbidden(_) => 403,
            Self::NotFound(_) => 404,
            Self::MethodNotAllowed(_) => 405,
            Self::Conflict(_) => 409,
            Self::PayloadTooLarge(_) => 413,
            Self::UnsupportedMediaType(_) => 415,
            Self::RangeNotSatisfiable(_) => 416,
            Self::Internal(_) => 500,
            Self::Unavailable(_) => 503,
        }
    }

    /// The body: WES's `ErrorResponse`.
    #[must_use]
    pub fn body(&self) -> ErrorResponse {
        ErrorResponse { msg: self.to_string(), status_code: self.status() }
    }
}

/// WES 1.1 `ErrorResponse`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorResponse {
    /// What is wrong and what to change.
    pub msg: String,
    /// The HTTP status again.
    pub status_code: u16,
}
