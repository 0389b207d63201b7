//! How the functions that the state machine, the engine task and the schedule invoke fail: by
//! names that the state machine's `Retry` and `Catch` know.

use std::error::Error;

use aws_smithy_runtime_api::client::{orchestrator::HttpResponse, result::SdkError};
use aws_smithy_types::error::metadata::ProvideErrorMetadata;
use lambda_runtime::Diagnostic;
use stepwes_core::{RunId, step::error_type};
use stepwes_store::StoreError;
use thiserror::Error;

use crate::{
    executions::ExecutionError,
    objects::ObjectError,
    sdk::{BoxError, passes},
};

/// Why a step failed. Its cause has been logged whole; the message is what Step Functions shows.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum StepFailure {
    /// Try again: a service behind us did not answer, or answered with a passing error.
    #[error("{0}")]
    Unavailable(String),
    /// There is no such run.
    #[error("run {0} does not exist")]
    RunNotFound(RunId),
    /// The step speaks of an attempt that is over.
    #[error("{0}")]
    StaleAttempt(String),
    /// A bug, or data that cannot be read.
    #[error("{0}")]
    Internal(String),
}

impl StepFailure {
    /// The name that `Retry` and `Catch` match.
    #[must_use]
    pub const fn error_type(&self) -> &'static str {
        match self {
            Self::Unavailable(_) => error_type::UNAVAILABLE,
            Self::RunNotFound(_) => error_type::RUN_NOT_FOUND,
            Self::StaleAttempt(_) => error_type::STALE_ATTEMPT,
            Self::Internal(_) => error_type::INTERNAL,
        }
    }

    /// Sorts what an AWS SDK said of `operation` (such as `ecs:StopTask`), after its own retries,
    /// into what passes and what stays. The error is logged whole; the failure names the operation
    /// and the service's error code alone.
    pub fn from_sdk<E>(operation: &'static str, error: SdkError<E, HttpResponse>) -> Self
    where
        E: Error + ProvideErrorMetadata + Send + Sync + 'static,
    {
        let code = error.as_service_error().and_then(ProvideErrorMetadata::code).map(str::to_owned);
        let passes = passes(&error);
        let error: BoxError = error.into();
        tracing::error!(error = &*error as &dyn Error, operation, passes, "an AWS call failed");
        let code = code.map(|code| format!(" ({code})")).unwrap_or_default();
        if passes {
            Self::Unavailable(format!("{operation} does not answer at present{code}"))
        } else {
            Self::Internal(format!("{operation} failed{code}; the function's log says why"))
        }
    }
}

/// How many characters of somebody else's text go into a reason of ours.
const MAX_QUOTE: usize = 600;

/// Somebody else's text (AWS's, an engine's) as a reason can quote it: in one line, cut when long.
#[must_use]
pub fn quote(text: &str) -> String {
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    match line.char_indices().nth(MAX_QUOTE) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line,
    }
}

impl From<StepFailure> for Diagnostic {
    fn from(failure: StepFailure) -> Self {
        Self { error_type: failure.error_type().to_owned(), error_message: failure.to_string() }
    }
}

impl From<StoreError> for StepFailure {
    fn from(error: StoreError) -> Self {
        let retryable = error.is_retryable();
        tracing::error!(error = &error as &dyn Error, retryable, "the run table failed");
        if retryable {
            Self::Unavailable("the run table does not answer".to_owned())
        } else {
            Self::Internal(
                "the run table refused a request; the function's log says why".to_owned(),
            )
        }
    }
}

impl From<ObjectError> for StepFailure {
    fn from(error: ObjectError) -> Self {
        let retryable = error.is_retryable();
        tracing::error!(error = &error as &dyn Error, retryable, "the runs bucket failed");
        if retryable {
            Self::Unavailable("the runs bucket does not answer".to_owned())
        } else {
            Self::Internal(
                "the runs bucket refused a request; the function's log says why".to_owned(),
            )
        }
    }
}

impl From<ExecutionError> for StepFailure {
    fn from(error: ExecutionError) -> Self {
        let retryable = error.is_retryable();
        tracing::error!(error = &error as &dyn Error, retryable, "Step Functions failed");
        if retryable {
            Self::Unavailable("Step Functions does not answer".to_owned())
        } else {
            Self::Internal(
                "Step Functions refused a request; the function's log says why".to_owned(),
            )
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quote_is_one_line_and_cut_between_characters() {
        assert_eq!(quote("  no\n capacity "), "no capacity");
        let long = quote(&"\u{1F9EC}".repeat(5000));
        assert_eq!(long.chars().count(), MAX_QUOTE + 1);
        assert!(long.ends_with('…'));
    }
}
