//! What has become of a run's execution.

use aws_sdk_sfn::{
    Client, error::SdkError, operation::describe_execution::DescribeExecutionError,
    types::ExecutionStatus,
};
use stepwes_cloud::{
    OnUse,
    step::{StepFailure, quote},
};
use stepwes_core::RunId;
use thiserror::Error;

/// The executions of one state machine.
#[derive(Clone, Debug)]
pub struct Executions {
    client: OnUse<Client>,
    state_machine_arn: String,
    /// The executions' ARNs without their names.
    prefix: String,
}

/// The setting is not the ARN of a state machine.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error(
    "STEPWES_STATE_MACHINE_ARN {0:?} is no state machine's ARN \
     (arn:aws:states:eu-central-1:123456789012:stateMachine:name)"
)]
pub struct NotAStateMachine(String);

/// How an execution is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Execution {
    /// It is under way: the run is in its hands.
    Alive,
    /// There is none of that name.
    Missing,
    /// It has ended; how, in words for a run's log.
    Ended(String),
}

impl Executions {
    /// The executions of the state machine with that ARN.
    ///
    /// # Errors
    /// [`NotAStateMachine`].
    pub fn new(client: OnUse<Client>, state_machine_arn: String) -> Result<Self, NotAStateMachine> {
        let mut parts: Vec<_> = state_machine_arn.split(':').collect();
        if parts.len() != 7 || parts[0] != "arn" || parts[5] != "stateMachine" {
            return Err(NotAStateMachine(state_machine_arn));
        }
        parts[5] = "execution";
        let prefix = parts.join(":");
        Ok(Self { client, state_machine_arn, prefix })
    }

    /// The state machine.
    #[must_use]
    pub fn state_machine_arn(&self) -> &str {
        &self.state_machine_arn
    }

    /// How a run's execution is.
    ///
    /// # Errors
    /// [`StepFailure`] when Step Functions does not answer or refuses.
    pub async fn of(&self, run_id: RunId) -> Result<Execution, StepFailure> {
        let answer = self
            .client
            .describe_execution()
            .execution_arn(format!("{}:{run_id}", self.prefix))
            .send()
            .await;
        let execution = match answer {
            Ok(execution) => execution,
            Err(SdkError::ServiceError(error))
                if matches!(error.err(), DescribeExecutionError::ExecutionDoesNotExist(_)) =>
            {
                return Ok(Execution::Missing);
            }
            Err(error) => return Err(StepFailure::from_sdk("states:DescribeExecution", error)),
        };
        let how = match execution.status() {
            ExecutionStatus::Running | ExecutionStatus::PendingRedrive => {
                return Ok(Execution::Alive);
            }
            ExecutionStatus::Aborted => "was stopped by hand",
            ExecutionStatus::TimedOut => "reached its time limit",
            ExecutionStatus::Failed => "failed",
            ExecutionStatus::Succeeded => "ended without recording the run's end",
            _ => "ended",
        };
        let told: Vec<_> = [execution.error(), execution.cause()]
            .into_iter()
            .flatten()
            .filter(|text| !text.is_empty())
            .map(quote)
            .collect();
        let told = if told.is_empty() { String::new() } else { format!(" ({})", told.join(": ")) };
        Ok(Execution::Ended(format!("the run's execution {how}{told}")))
    }

    /// Starts the execution of a run; harmless when there is one.
    ///
    /// # Errors
    /// [`StepFailure`] when Step Functions does not answer or refuses.
    pub async fn start(&self, run_id: RunId) -> Result<(), StepFailure> {
        Ok(stepwes_cloud::executions::start(&self.client, &self.state_machine_arn, run_id).await?)
    }
}
