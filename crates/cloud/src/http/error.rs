//! Errors as answers: what the caller is told, and what is logged for us alone.

use axum::{
    Json,
    response::{IntoResponse, Response},
};
use http::{HeaderName, HeaderValue, StatusCode, header};
use stepwes_core::ApiError;
use stepwes_store::StoreError;
use thiserror::Error;

use crate::{executions::ExecutionError, objects::ObjectError, sdk::whole};

/// An error answer: WES's `ErrorResponse` as JSON, perhaps with a header of its own.
#[derive(Clone, Debug)]
pub struct HttpError {
    error: ApiError,
    header: Option<(HeaderName, HeaderValue)>,
}

impl HttpError {
    /// The same answer with one more header.
    #[must_use]
    pub fn with_header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.header = Some((name, value));
        self
    }

    /// What the caller is told.
    #[must_use]
    pub const fn api_error(&self) -> &ApiError {
        &self.error
    }
}

impl From<ApiError> for HttpError {
    fn from(error: ApiError) -> Self {
        // A service that is out of breath is back within moments, or not for long.
        let header = matches!(error, ApiError::Unavailable(_))
            .then(|| (header::RETRY_AFTER, HeaderValue::from_static("1")));
        Self { error, header }
    }
}

impl<E: Into<Behind>> From<E> for HttpError {
    fn from(cause: E) -> Self {
        api_error(cause).into()
    }
}

/// Marks an answer that is in our shape already, for [`super::frame`].
#[derive(Clone, Copy)]
pub(super) struct Ours;

impl IntoResponse for HttpError {
    fn into_response(self) -> Response {
        let body = self.error.body();
        let status =
            StatusCode::from_u16(body.status_code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = (status, Json(body)).into_response();
        response.extensions_mut().insert(Ours);
        if let Some((name, value)) = self.header {
            response.headers_mut().insert(name, value);
        }
        response
    }
}

/// What can fail behind the API.
#[derive(Debug, Error)]
pub enum Behind {
    /// The run table.
    #[error("the run table failed")]
    Store(#[from] StoreError),
    /// The runs bucket.
    #[error("the runs bucket failed")]
    Objects(#[from] ObjectError),
    /// Step Functions.
    #[error("Step Functions failed")]
    Executions(#[from] ExecutionError),
}

/// Logs a failure whole, with its chain of causes, and gives what the caller is told: that the
/// same request may be sent again (503), or that it is our fault (500), and nothing of the inside.
/// The request id in the answer's headers and in the log line ties the two together.
#[must_use]
pub fn api_error(cause: impl Into<Behind>) -> ApiError {
    let cause = cause.into();
    let passes = match &cause {
        Behind::Store(error) => error.is_retryable(),
        Behind::Objects(error) => error.is_retryable(),
        Behind::Executions(error) => error.is_retryable(),
    };
    tracing::error!(error = whole(&cause), retryable = passes, "a request failed");
    if passes {
        ApiError::Unavailable(
            "a service behind this one does not answer at present; send the request again"
                .to_owned(),
        )
    } else {
        ApiError::Internal(
            "an error of this service; its operator finds the cause in the log, under the request id in the x-request-id header"
                .to_owned(),
        )
    }
}
