//! The end of a run whose task has left a result. Shared with reconcile, so that finished work
//! counts even when its execution is gone.

use std::collections::HashMap;

use stepwes_cloud::{
    objects::{Limited, ObjectError, Objects},
    step::{StepFailure, quote},
};
use stepwes_core::{
    RunEvent, RunId, RunState, keys,
    run::{CollectedOutputs, Run},
    task::{MAX_RESULT_BYTES, TaskOutcome, TaskResult},
};
use stepwes_store::{Change, Holder, RunStore, Transition};

use crate::outputs;

/// Ends runs.
#[derive(Clone)]
pub struct Finisher {
    store: RunStore,
    objects: Objects,
}

/// What an attempt has left.
#[derive(Clone, Debug, PartialEq)]
pub enum Found {
    /// Nothing: the task did not get to its end.
    Missing,
    /// Something that is not this attempt's result.
    Unreadable(String),
    /// Its result.
    Result(Box<TaskResult>),
}

impl Found {
    /// The result of a task that came to its own end, which ends the run; none of one that was
    /// stopped before.
    #[must_use]
    pub fn finished(&self) -> Option<&TaskResult> {
        match self {
            Self::Result(result) if result.outcome != TaskOutcome::Stopped => Some(result),
            Self::Result(_) | Self::Missing | Self::Unreadable(_) => None,
        }
    }

    /// What it tells of the engine, for the run's log.
    #[must_use]
    pub fn of_engine(&self) -> Change {
        match self {
            Self::Result(result) => of_engine(result),
            Self::Missing | Self::Unreadable(_) => Change::default(),
        }
    }
}

/// What became of a run that was to end.
#[derive(Clone, Debug, PartialEq)]
pub enum Settled {
    /// It has ended, now or before.
    Ended(Box<Run>),
    /// It has not: somebody changed it meanwhile.
    Changed(Box<Run>),
}

impl Finisher {
    /// A finisher of the runs in that table, their files in that bucket.
    #[must_use]
    pub const fn new(store: RunStore, objects: Objects) -> Self {
        Self { store, objects }
    }

    /// Looks for an attempt's result.
    ///
    /// # Errors
    /// [`StepFailure`] when S3 does not answer or refuses.
    pub async fn find(&self, run_id: RunId, attempt: u32) -> Result<Found, StepFailure> {
        let key = keys::result(run_id, attempt);
        Ok(match self.objects.get_json_limited::<TaskResult>(&key, MAX_RESULT_BYTES as u64).await {
            Ok(Limited::Missing) => Found::Missing,
            Ok(Limited::TooLarge { size }) => Found::Unreadable(format!(
                "result.json has {size} bytes, more than {MAX_RESULT_BYTES}; the workflow must make \
                 fewer output files"
            )),
            Ok(Limited::Found(result)) if (result.run_id, result.attempt) == (run_id, attempt) => {
                Found::Result(Box::new(result))
            }
            Ok(Limited::Found(_)) => Found::Unreadable("it is another attempt's".to_owned()),
            Err(ObjectError::Codec { source, .. }) => {
                Found::Unreadable(format!("result.json cannot be read: {source}"))
            }
            Err(error) => return Err(error.into()),
        })
    }

    /// Ends a run as its task's result says. Outputs are checked and written first; only then is
    /// the run COMPLETE. A result of [`TaskOutcome::Stopped`] ends nothing: the attempt was lost.
    ///
    /// # Errors
    /// [`StepFailure`] when a service does not answer or refuses.
    pub async fn finish(&self, run: &Run, result: &TaskResult) -> Result<Settled, StepFailure> {
        let attempt = run.attempt;
        let reason = |otherwise: &str| {
            Some(result.reason.as_deref().map_or_else(|| otherwise.to_owned(), quote))
        };
        match result.outcome {
            TaskOutcome::Complete => self.complete(run, result).await,
            TaskOutcome::ExecutorError => {
                let change = Change {
                    cause: "the workflow failed".to_owned(),
                    system_log: reason("the workflow failed; its stderr says why"),
                    ..of_engine(result)
                };
                self.settle(run, RunEvent::ExecutorError { attempt }, change).await
            }
            TaskOutcome::SystemError => {
                let change = Change {
                    cause: "the engine task failed".to_owned(),
                    system_log: reason("the engine task failed without a reason"),
                    ..of_engine(result)
                };
                self.settle(run, RunEvent::SystemError { attempt }, change).await
            }
            TaskOutcome::Stopped => Ok(Settled::Changed(Box::new(run.clone()))),
        }
    }

    async fn complete(&self, run: &Run, result: &TaskResult) -> Result<Settled, StepFailure> {
        let attempt = run.attempt;
        if let Some(problem) = self.missing(run, result).await? {
            return self.system_error_of(run, problem, of_engine(result)).await;
        }
        let place = run.outputs_place();
        let objects = self.objects.at(&place);
        let url = |key: &str| objects.url(key);
        let outputs = match outputs::collected(&place.prefix, result, url) {
            Ok(outputs) => outputs,
            Err(problem) => {
                return self.system_error_of(run, problem.to_string(), of_engine(result)).await;
            }
        };
        let collected =
            CollectedOutputs { run_id: run.run_id, attempt, outputs, files: result.files.clone() };
        self.objects.put_json(&keys::outputs_json(run.run_id), &collected).await?;

        if run.state == RunState::Initializing {
            // The task's report that the engine starts was lost, or it went on without an answer.
            // A run that was never RUNNING cannot be COMPLETE, and its history should say so.
            let change = Change {
                cause: "the engine had started, as its result shows".to_owned(),
                end_time: None,
                ..of_engine(result)
            };
            match self.store.transition(run.run_id, RunEvent::Run { attempt }, change).await? {
                Transition::Moved(_) | Transition::Repeated(_) => {}
                Transition::Refused { run, .. } => return Ok(settled(run)),
                Transition::NotFound => return Err(StepFailure::RunNotFound(run.run_id)),
            }
        }
        let change = Change {
            cause: "every output is uploaded".to_owned(),
            has_outputs: true,
            ..of_engine(result)
        };
        self.settle(run, RunEvent::Complete { attempt }, change).await
    }

    /// Holds what the task says that it has uploaded against what is there.
    async fn missing(&self, run: &Run, result: &TaskResult) -> Result<Option<String>, StepFailure> {
        if result.files.is_empty() {
            return Ok(None);
        }
        let place = run.outputs_place();
        let listed = self.objects.at(&place).list(&place.prefix).await?;
        let there: HashMap<&str, u64> = listed
            .iter()
            .filter_map(|object| Some((object.key.strip_prefix(&place.prefix)?, object.size)))
            .collect();
        Ok(result.files.iter().find_map(|file| match there.get(file.path.as_str()) {
            Some(size) if *size == file.size => None,
            Some(size) => Some(format!(
                "the output file {:?} has {size} bytes in S3, but {} were uploaded",
                file.path, file.size
            )),
            None => Some(format!("the output file {:?} is not in S3", file.path)),
        }))
    }

    /// SYSTEM_ERROR for that reason, unless another task holds the attempt by now than when `run` was
    /// read: what that one does has not been looked at.
    ///
    /// # Errors
    /// [`StepFailure`] when the table does not answer or refuses.
    pub async fn system_error(&self, run: &Run, reason: String) -> Result<Settled, StepFailure> {
        self.system_error_of(run, reason, Change::default()).await
    }

    async fn system_error_of(
        &self,
        run: &Run,
        reason: String,
        change: Change,
    ) -> Result<Settled, StepFailure> {
        let change = Change {
            holder: Holder::of(run.task_arn.clone()),
            cause: reason.clone(),
            system_log: Some(reason),
            ..change
        };
        self.settle(run, RunEvent::SystemError { attempt: run.attempt }, change).await
    }

    /// Records an event that ends the run.
    ///
    /// # Errors
    /// [`StepFailure`] when the table does not answer or refuses.
    pub async fn settle(
        &self,
        run: &Run,
        event: RunEvent,
        change: Change,
    ) -> Result<Settled, StepFailure> {
        match self.store.transition(run.run_id, event, change).await? {
            Transition::Moved(run)
            | Transition::Repeated(run)
            | Transition::Refused { run, .. } => Ok(settled(run)),
            Transition::NotFound => Err(StepFailure::RunNotFound(run.run_id)),
        }
    }
}

fn settled(run: Run) -> Settled {
    if run.state.is_terminal() {
        Settled::Ended(Box::new(run))
    } else {
        Settled::Changed(Box::new(run))
    }
}

/// What a result tells of the engine, for the run's log.
fn of_engine(result: &TaskResult) -> Change {
    Change {
        exit_code: result.exit_code,
        cmd: (!result.cmd.is_empty()).then(|| result.cmd.clone()),
        start_time: result.start_time,
        end_time: result.end_time,
        ..Change::default()
    }
}
