//! SDK errors, sorted: what passes and what stays.

use aws_smithy_runtime_api::client::{orchestrator::HttpResponse, result::SdkError};
use aws_smithy_types::error::metadata::ProvideErrorMetadata;
use stepwes_store::error::tells_wrong_time;

/// Codes of errors that pass although their status is not 5xx.
const PASSING: [&str; 9] = [
    "RequestLimitExceeded",
    "RequestTimeout",
    "RequestTimeTooSkewed",
    "ServiceUnavailable",
    "SlowDown",
    "Throttling",
    "ThrottlingException",
    "ThrottledException",
    "TooManyRequestsException",
];

/// Whether the same call may succeed later: no answer, throttling, or a failure of the service
/// itself that outlasted the SDK's retries.
pub(crate) fn passes<E: ProvideErrorMetadata>(error: &SdkError<E, HttpResponse>) -> bool {
    match error {
        SdkError::TimeoutError(_) | SdkError::ResponseError(_) => true,
        SdkError::DispatchFailure(failure) => !failure.is_user(),
        SdkError::ServiceError(answer) => {
            answer.raw().status().is_server_error()
                || answer.err().code().is_some_and(|code| PASSING.contains(&code))
                || tells_wrong_time(answer.err())
        }
        _ => false,
    }
}

/// The cause of an error, as the SDK gave it.
pub type BoxError = Box<dyn std::error::Error + Send + Sync + 'static>;

/// An error with its whole chain of causes, for the log: JSON log lines would show its head alone.
#[must_use]
pub fn whole(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use aws_smithy_types::error::ErrorMetadata;

    use super::*;
    use crate::objects::ObjectError;

    #[test]
    fn a_signature_of_the_wrong_time_passes_and_that_of_a_wrong_key_does_not() {
        let error = |code, message| ErrorMetadata::builder().code(code).message(message).build();
        for (code, message, passes) in [
            ("InvalidSignatureException", "Signature expired: 20261125T1 is now earlier", true),
            ("InvalidSignatureException", "Signature not yet current: 20261125T1 is", true),
            ("SignatureDoesNotMatch", "Signature expired: 20261125T1 is now earlier", true),
            ("InvalidSignatureException", "The request signature we calculated does", false),
            ("ValidationException", "Signature expired", false),
        ] {
            assert_eq!(tells_wrong_time(&error(code, message)), passes, "{code}: {message}");
        }
    }

    #[test]
    fn the_log_has_every_cause() {
        let error = ObjectError::Rejected {
            operation: "PutObject",
            key: "a".to_owned(),
            source: std::io::Error::other("no such bucket").into(),
        };
        let text = whole(&error);
        assert!(text.starts_with("PutObject") && text.ends_with(": no such bucket"), "{text}");
    }
}
