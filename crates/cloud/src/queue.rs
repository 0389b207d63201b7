//! Starting the runs that wait, where a service limits how many are at work.

use stepwes_core::RunId;
use stepwes_store::{Admission, RunStore, StoreError};

use crate::{OnUse, executions, sdk::whole};

/// Where runs wait, and where they are started.
#[derive(Clone, Debug)]
pub struct Queue {
    executions: OnUse<aws_sdk_sfn::Client>,
    state_machine_arn: String,
    /// How many runs may be at work at once; `None` for as many as there are.
    limit: Option<u32>,
}

impl Queue {
    /// For a state machine, and a limit on how many of its runs are at work at once.
    #[must_use]
    pub fn new(
        executions: OnUse<aws_sdk_sfn::Client>,
        state_machine_arn: &str,
        limit: Option<u32>,
    ) -> Self {
        Self { executions, state_machine_arn: state_machine_arn.to_owned(), limit }
    }

    /// Whether a new run has to wait for a slot.
    #[must_use]
    pub const fn waits(&self) -> bool {
        self.limit.is_some()
    }

    /// Starts the runs that wait, in their order, as far as there are slots, and `most` of them; gives
    /// those. `newest` has just been enqueued. An execution that is not started is reconcile's to
    /// start: its run has its slot.
    ///
    /// # Errors
    /// [`StoreError`] when no slot could be given.
    pub async fn start_waiting(
        &self,
        store: &RunStore,
        newest: Option<RunId>,
        most: usize,
    ) -> Result<Vec<RunId>, StoreError> {
        let mut admission: Admission<'_> = store.admission(self.limit, newest);
        let mut started = Vec::new();
        while started.len() < most {
            let run_id = match admission.next().await {
                Ok(Some(run_id)) => run_id,
                Ok(None) => break,
                Err(error) if started.is_empty() => return Err(error),
                Err(error) => {
                    tracing::warn!(%error, "not every waiting run was given its slot; the next look does it");
                    break;
                }
            };
            tracing::info!(%run_id, "the run has a slot");
            let asked = executions::start(&self.executions, &self.state_machine_arn, run_id).await;
            if let Err(error) = asked {
                tracing::error!(%run_id, error = whole(&error), "the run waits for reconcile to start it");
            }
            started.push(run_id);
        }
        Ok(started)
    }
}
