//! What can go wrong between the store and its table.

use std::error::Error;

use aws_sdk_dynamodb::error::{BuildError, ProvideErrorMetadata, SdkError};
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use stepwes_core::RunId;
use thiserror::Error;

/// A failed call. The message is for logs: it names the operation, and the source chain holds what
/// the SDK said.
#[derive(Debug, Error)]
pub enum StoreError {
    /// DynamoDB throttled, failed or did not answer, for as long as we tried.
    #[error("{operation}: DynamoDB does not answer at present; try again")]
    Unavailable {
        /// The operation, as DynamoDB names it.
        operation: &'static str,
        /// What the SDK said.
        source: BoxError,
    },
    /// Other writers were in the way for as long as we tried.
    #[error("{operation}: gave way to other writers {tries} times; try again")]
    Contended {
        /// The operation, as DynamoDB names it.
        operation: &'static str,
        /// How often it was tried.
        tries: u32,
    },
    /// DynamoDB refused for a reason that stays: access, a missing table, a malformed request.
    #[error("{operation}: DynamoDB refused the request; check the table's name and our rights")]
    Rejected {
        /// The operation, as DynamoDB names it.
        operation: &'static str,
        /// What the SDK said.
        source: BoxError,
    },
    /// An item of the table cannot be read.
    #[error("item {item}, field {field}: {problem}")]
    Codec {
        /// The item's key, `<PK>/<SK>`.
        item: String,
        /// The attribute.
        field: &'static str,
        /// What is wrong with it.
        problem: String,
    },
    /// Another request has this run id already.
    #[error("the run id {0} is taken by another request; generate a new one")]
    RunIdTaken(RunId),
    /// There is a table of that name that is not the store's.
    #[error("the table {table} is not a run table: {problem}; use another name, or delete it")]
    OtherTable {
        /// The table.
        table: String,
        /// What differs.
        problem: String,
    },
    /// The operating system has no randomness to give.
    #[error("no attempt token can be made")]
    Randomness(#[source] BoxError),
}

/// The cause of a [`StoreError`].
pub type BoxError = Box<dyn Error + Send + Sync + 'static>;

/// Codes of errors that pass (DynamoDB Developer Guide, "Error handling with DynamoDB").
const PASSING: [&str; 8] = [
    "InternalServerError",
    "LimitExceededException",
    "ProvisionedThroughputExceededException",
    "RequestLimitExceeded",
    "ServiceUnavailable",
    "ThrottlingException",
    "TransactionConflictException",
    "TransactionInProgressException",
];

/// Whether a signature was refused for the time that it was made at, as when the host's clock has
/// not been set yet; that of a wrong key is refused under the same codes. The SDK does not try again.
/// <https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-troubleshooting.html>
pub fn tells_wrong_time(error: &impl ProvideErrorMetadata) -> bool {
    matches!(error.code(), Some("InvalidSignatureException" | "SignatureDoesNotMatch"))
        && error.message().is_some_and(|message| {
            message.starts_with("Signature expired") || message.starts_with("Signature not yet")
        })
}

impl StoreError {
    /// Whether the same call may succeed later: throttling, time-outs and conflicts that outlasted
    /// our own retries.
    #[must_use]
    pub const fn is_retryable(&self) -> bool {
        match self {
            Self::Unavailable { .. } | Self::Contended { .. } => true,
            Self::Rejected { .. }
            | Self::Codec { .. }
            | Self::RunIdTaken(_)
            | Self::OtherTable { .. }
            | Self::Randomness(_) => false,
        }
    }

    /// Sorts what the SDK said, after its own retries, into what passes and what stays.
    pub(crate) fn from_sdk<E>(operation: &'static str, error: SdkError<E, HttpResponse>) -> Self
    where
        E: Error + ProvideErrorMetadata + Send + Sync + 'static,
    {
        let passes = match &error {
            SdkError::TimeoutError(_) | SdkError::ResponseError(_) => true,
            SdkError::DispatchFailure(failure) => !failure.is_user(),
            SdkError::ServiceError(answer) => {
                answer.raw().status().is_server_error()
                    || answer.err().code().is_some_and(|code| PASSING.contains(&code))
                    || tells_wrong_time(answer.err())
            }
            _ => false,
        };
        let source = error.into();
        if passes {
            Self::Unavailable { operation, source }
        } else {
            Self::Rejected { operation, source }
        }
    }

    /// A request that the SDK would not build.
    pub(crate) fn from_build(operation: &'static str) -> impl FnOnce(BuildError) -> Self {
        move |error| Self::Rejected { operation, source: error.into() }
    }
}
