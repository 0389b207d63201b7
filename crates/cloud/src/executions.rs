//! Starting a run's execution, as often as it takes.

use aws_sdk_sfn::{error::SdkError, operation::start_execution::StartExecutionError};
use stepwes_core::{RunId, step::ExecutionInput};
use thiserror::Error;

use crate::sdk::{BoxError, passes};

/// Step Functions did not start an execution.
#[derive(Debug, Error)]
pub enum ExecutionError {
    /// It did not answer, or answered with a passing error.
    #[error("StartExecution of run {run_id}: Step Functions does not answer at present; try again")]
    Unavailable {
        /// The run.
        run_id: RunId,
        /// What the SDK said.
        source: BoxError,
    },
    /// It refused for a reason that stays: access, a missing state machine.
    #[error(
        "StartExecution of run {run_id}: Step Functions refused; check the state machine's ARN and our rights"
    )]
    Rejected {
        /// The run.
        run_id: RunId,
        /// What the SDK said.
        source: BoxError,
    },
}

impl ExecutionError {
    /// Whether the same call may succeed later.
    #[must_use]
    pub const fn is_retryable(&self) -> bool {
        match self {
            Self::Unavailable { .. } => true,
            Self::Rejected { .. } => false,
        }
    }
}

/// Starts the execution of a run: named by the run's id, its input exactly `{"run_id"}`. To start
/// it again is harmless: Step Functions keeps names for 90 days, answers a running execution of
/// the same name and input as the first time, and refuses an ended one with
/// `ExecutionAlreadyExists`, which is success here.
///
/// # Errors
/// [`ExecutionError`] when there may be no execution of that name.
pub async fn start(
    client: &aws_sdk_sfn::Client,
    state_machine_arn: &str,
    run_id: RunId,
) -> Result<(), ExecutionError> {
    let input = serde_json::to_string(&ExecutionInput { run_id })
        .map_err(|error| ExecutionError::Rejected { run_id, source: error.into() })?;
    let answer = client
        .start_execution()
        .state_machine_arn(state_machine_arn)
        .name(run_id.to_string())
        .input(input)
        .send()
        .await;
    match answer {
        Ok(_) => Ok(()),
        Err(SdkError::ServiceError(answer))
            if matches!(answer.err(), StartExecutionError::ExecutionAlreadyExists(_)) =>
        {
            Ok(())
        }
        Err(error) if passes(&error) => {
            Err(ExecutionError::Unavailable { run_id, source: error.into() })
        }
        Err(error) => Err(ExecutionError::Rejected { run_id, source: error.into() }),
    }
}
