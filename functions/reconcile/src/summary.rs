//! What one pass did.

use serde::{Deserialize, Serialize};
use stepwes_cloud::step::StepFailure;
use stepwes_core::{RunId, RunState};
use stepwes_log::metrics::{RECONCILE_FAILURE, REPAIR};

/// What one pass did: the function's answer. Each repair and each failure is a log line too.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Summary {
    /// How many runs and tasks were looked at.
    pub checked: u32,
    /// What was repaired.
    pub repairs: Vec<Repair>,
    /// What could not be looked at or repaired this time.
    pub failures: Vec<Failure>,
}

/// One repair.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Repair {
    /// The run.
    pub run_id: RunId,
    /// What was done for it.
    #[serde(flatten)]
    pub action: Action,
    /// Why.
    pub reason: String,
}

/// What reconcile can do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "action", rename_all = "snake_case")]
pub enum Action {
    /// The execution was started.
    Start,
    /// A task was asked to stop.
    StopTask {
        /// The task.
        task_arn: String,
    },
    /// A slot that stood in the run's name was freed.
    FreeSlot,
    /// The run was removed.
    Remove,
    /// The run has ended.
    End {
        /// How.
        state: RunState,
    },
}

/// One thing that failed. The next pass tries again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// The run; none when it was the list of live tasks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run_id: Option<RunId>,
    /// What went wrong.
    pub error: String,
}

impl Summary {
    pub(crate) fn repaired(&mut self, repair: Repair) {
        macro_rules! log {
            ($($target:tt)*) => {
                tracing::warn!(
                    $($target)*
                    run_id = %repair.run_id,
                    action = ?repair.action,
                    reason = repair.reason,
                    "repaired a run"
                )
            };
        }
        // What is counted: runs whose execution was gone, and slots of theirs. Tasks that are told
        // to stop again are in order, and runs that were kept long enough are no repair at all.
        match repair.action {
            Action::Start | Action::End { .. } | Action::FreeSlot => log!(target: REPAIR,),
            Action::StopTask { .. } => log!(),
            Action::Remove => {
                tracing::info!(run_id = %repair.run_id, reason = repair.reason, "removed a run");
            }
        }
        self.repairs.push(repair);
    }

    pub(crate) fn failed(&mut self, run_id: Option<RunId>, failure: &StepFailure) {
        let error = failure.to_string();
        tracing::error!(
            target: RECONCILE_FAILURE,
            run_id = run_id.map(tracing::field::display),
            error,
            "could not reconcile; the next pass tries again"
        );
        self.failures.push(Failure { run_id, error });
    }
}
