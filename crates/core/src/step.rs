//! What the state machine and its Lambda steps say to each other.

use serde::{Deserialize, Serialize};

use crate::{
    resources::TaskSize, run::RunId, run_state::RunState, task::EcsTask, token::AttemptToken,
};

/// The execution's whole input.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExecutionInput {
    /// The run; the execution's name too.
    pub run_id: RunId,
}

/// The input of advance: one transition of one run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AdvanceInput {
    /// The run.
    pub run_id: RunId,
    /// The transition.
    #[serde(flatten)]
    pub event: AdvanceEvent,
}

/// The transitions that the state machine itself asks for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum AdvanceEvent {
    /// Begin the first attempt.
    Initialize,
    /// The attempt was lost: begin the next, or say PREEMPTED when there is none.
    Preempt {
        /// The lost attempt.
        attempt: u32,
        /// Why, for `system_logs`.
        reason: String,
        /// The task that had claimed it when it was found lost; null when none had.
        #[serde(default)]
        task_arn: Option<String>,
    },
    /// A step of the machine failed for good.
    SystemError {
        /// The attempt it was; 0 before the first.
        attempt: u32,
        /// The error's name, as Step Functions tells it.
        error: String,
        /// The error's cause, as Step Functions tells it.
        cause: String,
    },
}

/// The answer of advance.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AdvanceOutput {
    /// Where the machine goes.
    pub next: Next,
    /// The attempt to run; the last one when there is none to run.
    pub attempt: u32,
    /// The attempt's secret, for the task's environment; empty unless `next` is `RUN_TASK`.
    pub token: AttemptToken,
    /// How long the task may take, in seconds.
    pub timeout_seconds: u32,
    /// The task's size, as RunTask's overrides.
    #[serde(default)]
    pub size: TaskSize,
}

/// The input of collect.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CollectInput {
    /// The run.
    pub run_id: RunId,
    /// The attempt whose task ended.
    pub attempt: u32,
    /// The task as `ecs:runTask.sync` returned it; null when that failed.
    #[serde(default)]
    pub task: Option<EcsTask>,
    /// The error by which `ecs:runTask.sync` failed; null when it did not.
    #[serde(default)]
    pub error: Option<StepError>,
}

/// An error as Step Functions hands it to a Catch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct StepError {
    /// The error's name.
    pub error: String,
    /// Its cause: the whole task as JSON for `States.TaskFailed` of `ecs:runTask.sync`.
    #[serde(default)]
    pub cause: String,
}

/// The answer of collect.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CollectOutput {
    /// Where the machine goes.
    pub next: Next,
    /// The attempt that was collected.
    pub attempt: u32,
    /// Why, when `next` is `RETRY`: what `preempt` is told.
    #[serde(default)]
    pub reason: String,
    /// The task that had claimed the lost attempt, when `next` is `RETRY`: what `preempt` is told.
    #[serde(default)]
    pub task_arn: Option<String>,
}

/// Where the machine goes after a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Next {
    /// Start the attempt's task.
    RunTask,
    /// The attempt was lost: `preempt`.
    Retry,
    /// The attempt's task is still alive: wait, then collect again.
    Wait,
    /// The run has ended.
    Complete,
    /// The run has ended.
    ExecutorError,
    /// The run has ended.
    SystemError,
    /// The run has ended.
    Canceled,
    /// The run has ended.
    Preempted,
}

impl Next {
    /// The end that the machine takes for a run in a terminal state; `None` for a live one.
    #[must_use]
    pub const fn end(state: RunState) -> Option<Self> {
        match state {
            RunState::Complete => Some(Self::Complete),
            RunState::ExecutorError => Some(Self::ExecutorError),
            RunState::SystemError => Some(Self::SystemError),
            RunState::Canceled => Some(Self::Canceled),
            RunState::Preempted => Some(Self::Preempted),
            RunState::Queued | RunState::Initializing | RunState::Running | RunState::Canceling => {
                None
            }
        }
    }
}

/// The names under which our functions fail, that the state machine's `Retry` and `Catch` know
/// (Lambda's `errorType`).
pub mod error_type {
    /// A service behind us did not answer, or answered with a passing error: try again.
    pub const UNAVAILABLE: &str = "Stepwes.Unavailable";
    /// There is no such run.
    pub const RUN_NOT_FOUND: &str = "Stepwes.RunNotFound";
    /// The step speaks of an attempt that is over.
    pub const STALE_ATTEMPT: &str = "Stepwes.StaleAttempt";
    /// A bug, or data that cannot be read: trying again does not help.
    pub const INTERNAL: &str = "Stepwes.Internal";
}
