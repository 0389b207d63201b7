//! S3's `Object Created` events as EventBridge hands them over, and how their handling fails.

use lambda_runtime::Diagnostic;
use serde::Deserialize;
use serde_json::Value;
use stepwes_cloud::step::StepFailure;
use stepwes_core::ApiError;
use thiserror::Error;

/// The name under which an invocation fails whose event asks for what is refused (Lambda's
/// `errorType`).
pub const REJECTED: &str = "Stepwes.Rejected";

/// An object that has landed. Which version of it the event speaks of does not matter: whatever is
/// there now is looked at, and has an event of its own.
/// <https://docs.aws.amazon.com/AmazonS3/latest/userguide/ev-events.html>
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Landed {
    /// The event's own id: another one for a repetition of S3's.
    pub(crate) event_id: String,
    pub(crate) bucket: String,
    /// As it is: EventBridge's events do not encode it.
    pub(crate) key: String,
}

#[derive(Deserialize)]
struct Event {
    id: String,
    source: String,
    #[serde(rename = "detail-type")]
    detail_type: String,
    detail: Detail,
}

#[derive(Deserialize)]
struct Detail {
    bucket: Bucket,
    object: Object,
}

#[derive(Deserialize)]
struct Bucket {
    name: String,
}

#[derive(Deserialize)]
struct Object {
    key: String,
}

impl Landed {
    /// Reads an event.
    ///
    /// # Errors
    /// [`StepFailure::Internal`] when it is another one.
    pub(crate) fn read(event: Value) -> Result<Self, StepFailure> {
        let other = |what: &str| {
            StepFailure::Internal(format!(
                "the event is neither a request of API Gateway nor an Object Created event of S3 \
                 by EventBridge: {what}"
            ))
        };
        let Event { id, source, detail_type, detail } =
            serde_json::from_value(event).map_err(|error| other(&error.to_string()))?;
        if (source.as_str(), detail_type.as_str()) != ("aws.s3", "Object Created") {
            return Err(other(&format!("it is {detail_type:?} of {source:?}")));
        }
        let Detail { bucket, object } = detail;
        Ok(Self { event_id: id, bucket: bucket.name, key: object.key })
    }
}

/// Why an event came to nothing. Lambda invokes again, twice, and then puts the event into the
/// queue of what nobody dealt with.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum EventFailure {
    /// What it asks for is refused; there is a report that says why. It may still be taken when it
    /// is tried again: files that it names may only be on their way.
    #[error("{0}")]
    Rejected(String),
    /// A service failed, or the event is none of ours.
    #[error(transparent)]
    Failed(#[from] StepFailure),
}

impl EventFailure {
    /// The name that Lambda shows.
    #[must_use]
    pub const fn error_type(&self) -> &'static str {
        match self {
            Self::Rejected(_) => REJECTED,
            Self::Failed(failure) => failure.error_type(),
        }
    }
}

impl From<ApiError> for EventFailure {
    fn from(error: ApiError) -> Self {
        match error {
            ApiError::Internal(what) => Self::Failed(StepFailure::Internal(what)),
            ApiError::Unavailable(what) => Self::Failed(StepFailure::Unavailable(what)),
            ApiError::BadRequest(_)
            | ApiError::Unauthorized(_)
            | ApiError::Forbidden(_)
            | ApiError::NotFound(_)
            | ApiError::MethodNotAllowed(_)
            | ApiError::Conflict(_)
            | ApiError::PayloadTooLarge(_)
            | ApiError::UnsupportedMediaType(_)
            | ApiError::RangeNotSatisfiable(_) => Self::Rejected(error.to_string()),
        }
    }
}

impl From<EventFailure> for Diagnostic {
    fn from(failure: EventFailure) -> Self {
        Self { error_type: failure.error_type().to_owned(), error_message: failure.to_string() }
    }
}
