//! Errors as the Amazon States Language has them: a name, a cause, and rules for matching names.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::expression::EvaluationError;

pub(crate) const ALL: &str = "States.ALL";
pub(crate) const DATA_LIMIT_EXCEEDED: &str = "States.DataLimitExceeded";
pub(crate) const EXCEED_TOLERATED_FAILURE_THRESHOLD: &str =
    "States.ExceedToleratedFailureThreshold";
pub(crate) const HEARTBEAT_TIMEOUT: &str = "States.HeartbeatTimeout";
pub(crate) const NO_CHOICE_MATCHED: &str = "States.NoChoiceMatched";
pub(crate) const QUERY_EVALUATION_ERROR: &str = "States.QueryEvaluationError";
pub(crate) const RUNTIME: &str = "States.Runtime";
pub(crate) const TASK_FAILED: &str = "States.TaskFailed";
pub(crate) const TIMEOUT: &str = "States.Timeout";

/// What a state failed with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Failure {
    /// Its name; absent when a Fail state gives none.
    pub(crate) error: Option<String>,
    pub(crate) cause: Option<String>,
    /// Set on the time-out that a missing heartbeat made: Step Functions reports it as
    /// `States.Timeout`, and still lets a retrier tell it apart as `States.HeartbeatTimeout`.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    heartbeat: bool,
}

impl Failure {
    pub(crate) fn new(error: Option<String>, cause: Option<String>) -> Self {
        Self { error, cause, heartbeat: false }
    }

    pub(crate) fn named(error: &str, cause: impl Into<String>) -> Self {
        Self::new(Some(error.to_owned()), Some(cause.into()))
    }

    pub(crate) fn timeout() -> Self {
        Self::new(Some(TIMEOUT.to_owned()), None)
    }

    pub(crate) fn heartbeat_timeout() -> Self {
        Self { heartbeat: true, ..Self::timeout() }
    }

    /// Whether it always fails the execution.
    pub(crate) fn is_fatal(&self) -> bool {
        self.error.as_deref() == Some(RUNTIME)
    }

    /// What `$states.errorOutput` is in a catcher.
    pub(crate) fn output(&self) -> Value {
        json!({
            "Error": self.error.as_deref().unwrap_or_default(),
            "Cause": self.cause.as_deref().unwrap_or_default(),
        })
    }

    /// Whether a name in `ErrorEquals` stands for this error (Step Functions developer guide,
    /// "Handling errors in Step Functions workflows").
    ///
    /// `States.Runtime` always fails the execution. `States.ALL` does not match
    /// `States.DataLimitExceeded`, which has to be named. `States.TaskFailed` matches every other
    /// error but a time-out.
    pub(crate) fn matches(&self, pattern: &str) -> bool {
        if self.is_fatal() {
            return false;
        }
        let error = self.error.as_deref().unwrap_or_default();
        match pattern {
            ALL => error != DATA_LIMIT_EXCEEDED,
            TASK_FAILED => error == TASK_FAILED || ![TIMEOUT, DATA_LIMIT_EXCEEDED].contains(&error),
            HEARTBEAT_TIMEOUT => self.heartbeat || error == HEARTBEAT_TIMEOUT,
            name => error == name,
        }
    }
}

/// Why a step of a state did not work out.
#[derive(Debug)]
pub(crate) enum Trouble {
    /// An expression failed; becomes `States.QueryEvaluationError` naming the state.
    Evaluation(EvaluationError),
    Failed(Failure),
}

impl From<EvaluationError> for Trouble {
    fn from(error: EvaluationError) -> Self {
        Self::Evaluation(error)
    }
}

impl From<Failure> for Trouble {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(error: &str) -> Failure {
        Failure::named(error, "because")
    }

    #[test]
    fn states_all_matches_everything_but_data_limit_and_runtime() {
        for error in [TIMEOUT, TASK_FAILED, QUERY_EVALUATION_ERROR, NO_CHOICE_MATCHED, "Mine"] {
            assert!(named(error).matches(ALL), "{error}");
        }
        assert!(Failure::new(None, None).matches(ALL));
        assert!(!named(DATA_LIMIT_EXCEEDED).matches(ALL));
        assert!(!named(RUNTIME).matches(ALL));
    }

    #[test]
    fn states_task_failed_matches_any_error_but_a_timeout() {
        for error in [TASK_FAILED, "Lambda.Unknown", QUERY_EVALUATION_ERROR] {
            assert!(named(error).matches(TASK_FAILED), "{error}");
        }
        assert!(!Failure::timeout().matches(TASK_FAILED));
        assert!(!Failure::heartbeat_timeout().matches(TASK_FAILED));
        assert!(!named(DATA_LIMIT_EXCEEDED).matches(TASK_FAILED));
    }

    #[test]
    fn a_missing_heartbeat_is_a_timeout_that_can_be_told_apart() {
        assert!(Failure::heartbeat_timeout().matches(TIMEOUT));
        assert!(Failure::heartbeat_timeout().matches(HEARTBEAT_TIMEOUT));
        assert!(!Failure::timeout().matches(HEARTBEAT_TIMEOUT));
    }

    #[test]
    fn data_limit_can_be_named_and_runtime_can_not() {
        assert!(named(DATA_LIMIT_EXCEEDED).matches(DATA_LIMIT_EXCEEDED));
        assert!(!named(RUNTIME).matches(RUNTIME));
    }
}
