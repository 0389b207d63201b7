//! What invokes reconcile: a tick of the schedule, or the end of an execution.

use serde::{Deserialize, Serialize};
use stepwes_core::RunId;

use crate::Executions;

/// An EventBridge event, as far as it is read. Whatever is not the end of one of our executions is
/// a tick: looking once too often is harmless.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Event {
    /// `Scheduled Event`, or `Step Functions Execution Status Change`.
    #[serde(rename = "detail-type")]
    pub detail_type: String,
    /// The execution, when it is about one.
    pub detail: Detail,
}

/// The part of an execution's event that is read
/// (<https://docs.aws.amazon.com/step-functions/latest/dg/eventbridge-integration.html>).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Detail {
    /// The state machine.
    pub state_machine_arn: String,
    /// The execution's name: the run's id.
    pub name: String,
    /// `FAILED`, `TIMED_OUT`, `ABORTED`, …
    pub status: String,
}

/// What an event asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// Look at everything.
    Tick,
    /// Look at the run whose execution ended badly.
    Ended(RunId),
    /// Start those that waited for a run to end.
    Succeeded,
}

impl Event {
    /// A tick of the schedule.
    #[must_use]
    pub fn tick() -> Self {
        Self { detail_type: "Scheduled Event".to_owned(), detail: Detail::default() }
    }

    /// What it asks for.
    #[must_use]
    pub fn what(&self, executions: &Executions) -> What {
        let ours = self.detail_type == "Step Functions Execution Status Change"
            && self.detail.state_machine_arn == executions.state_machine_arn();
        match (self.detail.status.as_str(), self.detail.name.parse()) {
            ("FAILED" | "TIMED_OUT" | "ABORTED", Ok(run_id)) if ours => What::Ended(run_id),
            ("SUCCEEDED", Ok(_)) if ours => What::Succeeded,
            _ => What::Tick,
        }
    }
}
