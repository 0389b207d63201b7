//! advance: one transition of one run, for the state machine.
//!
//! Step Functions invokes a function at least once, and a first invocation may still be under way
//! when its repetition has been answered. So each event is held against the run as it is, and its
//! answer is what the event has led to, whether it was this invocation that did it or not.

pub mod reason;

use stepwes_cloud::{
    Aws,
    env::{self, SettingError},
    invocation::is_about,
    step::{StepFailure, quote},
};
use stepwes_core::{
    RunEvent, RunId, RunState,
    resources::{ResourceBounds, TaskSize},
    run::Run,
    run_state::Refusal,
    step::{AdvanceEvent, AdvanceInput, AdvanceOutput, Next},
    token::AttemptToken,
};
use stepwes_store::{Change, Holder, RunStore, Transition};

/// What the function is configured with.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The run table (`STEPWES_TABLE`).
    pub table: String,
    /// How many attempts a run has (`STEPWES_MAX_ATTEMPTS`, 1 to 10; 3).
    pub max_attempts: u32,
    /// What a run gets of CPU, memory, disk and time ([`env::resources`]).
    pub resources: ResourceBounds,
}

impl Settings {
    /// From the environment.
    ///
    /// # Errors
    /// [`SettingError`] naming the variable that is missing or out of its range.
    pub fn from_env() -> Result<Self, SettingError> {
        Ok(Self {
            table: env::required("STEPWES_TABLE")?,
            max_attempts: env::bounded("STEPWES_MAX_ATTEMPTS", 3, 1..=10)?,
            resources: env::resources()?,
        })
    }
}

/// What the function keeps between invocations.
#[derive(Clone)]
pub struct State {
    store: RunStore,
    settings: Settings,
}

impl State {
    /// The function over one AWS account.
    #[must_use]
    pub fn new(settings: Settings, aws: &Aws) -> Self {
        Self { store: aws.store(&settings.table), settings }
    }
}

/// Takes one transition and says where the machine goes.
///
/// # Errors
/// [`StepFailure`], by the names that the machine's `Retry` knows: `Unavailable` when the table
/// does not answer, `RunNotFound`, `StaleAttempt` when the run has gone on without this execution,
/// `Internal` when only reconcile can settle the run.
pub async fn handle(state: &State, input: AdvanceInput) -> Result<AdvanceOutput, StepFailure> {
    match input.event {
        AdvanceEvent::Initialize => initialize(state, input.run_id).await,
        AdvanceEvent::Preempt { attempt, reason, task_arn } => {
            preempt(state, input.run_id, attempt, &reason, Holder::of(task_arn)).await
        }
        AdvanceEvent::SystemError { attempt, error, cause } => {
            system_error(state, input.run_id, attempt, &reason::of_step(&error, &cause)).await
        }
    }
}

/// Tells the run of an event.
async fn transition(
    state: &State,
    run_id: RunId,
    event: RunEvent,
    change: Change,
) -> Result<Transition, StepFailure> {
    let transition = state.store.transition(run_id, event, change).await?;
    transition.run().into_iter().for_each(is_about);
    Ok(transition)
}

async fn initialize(state: &State, run_id: RunId) -> Result<AdvanceOutput, StepFailure> {
    let change = Change { cause: "the execution began".to_owned(), ..Change::default() };
    match transition(state, run_id, RunEvent::Initialize, change).await? {
        Transition::Moved(run) | Transition::Repeated(run) => attempt_of(state, &run).await,
        Transition::Refused { run, .. } => match run.state {
            // The machine asks for the first attempt before it starts any task: none can be alive.
            RunState::Canceling if run.attempt == 0 => canceled(state, &run).await,
            // Asked before, and cancelled since. Whether the first invocation's answer arrived, and
            // a task was started, is not known here; a task that is started now is refused by
            // report and ends at once, and collect sees it gone.
            RunState::Canceling if run.attempt == 1 => attempt_of(state, &run).await,
            _ => end_or_stale(&run, 1),
        },
        Transition::NotFound => Err(StepFailure::RunNotFound(run_id)),
    }
}

async fn preempt(
    state: &State,
    run_id: RunId,
    attempt: u32,
    reason: &str,
    holder: Holder,
) -> Result<AdvanceOutput, StepFailure> {
    let max_attempts = state.settings.max_attempts;
    let reason = quote(reason);
    let change = Change {
        holder: holder.clone(),
        cause: reason.clone(),
        system_log: Some(reason::of_lost_attempt(attempt, max_attempts, &reason)),
        ..Change::default()
    };
    match transition(state, run_id, RunEvent::Preempt { attempt, max_attempts }, change).await? {
        Transition::Moved(run) | Transition::Repeated(run) => match Next::end(run.state) {
            Some(next) => Ok(answer(next, &run)),
            None => attempt_of(state, &run).await,
        },
        // A task claimed the attempt after collect found it lost: a RunTask whose answer never came
        // had started it all the same. The attempt lives, and is collected when that task has ended.
        Transition::Refused { run, .. } if run.attempt == attempt && !holder.is_of(&run) => {
            match Next::end(run.state) {
                Some(next) => Ok(answer(next, &run)),
                None => Ok(answer(Next::Wait, &run)),
            }
        }
        Transition::Refused { run, .. } => match run.state {
            // collect saw the attempt's task gone before it called the attempt lost.
            RunState::Canceling if run.attempt == attempt => canceled(state, &run).await,
            // Asked before, and cancelled since: as for the first attempt.
            RunState::Canceling if run.attempt == attempt + 1 => attempt_of(state, &run).await,
            _ => end_or_stale(&run, attempt),
        },
        Transition::NotFound => Err(StepFailure::RunNotFound(run_id)),
    }
}

async fn system_error(
    state: &State,
    run_id: RunId,
    attempt: u32,
    reason: &str,
) -> Result<AdvanceOutput, StepFailure> {
    let fail = |attempt| {
        let change = Change {
            holder: Holder::Nobody,
            cause: reason.to_owned(),
            system_log: Some(reason.to_owned()),
            ..Change::default()
        };
        transition(state, run_id, RunEvent::SystemError { attempt }, change)
    };
    let mut told = fail(attempt).await?;
    if let Transition::Refused { run, .. } = &told
        && run.attempt == attempt + 1
        && run.state == RunState::Initializing
        && run.task_arn.is_none()
    {
        // The step that failed is the one that began this attempt: it took its effect, but its
        // answer never reached the machine, which knows the attempt before.
        told = fail(attempt + 1).await?;
    }
    match told {
        Transition::Moved(run) | Transition::Repeated(run) => Ok(answer(Next::SystemError, &run)),
        // A task has claimed the attempt: it may be at work, or its work may be finished, and this
        // function sees neither tasks nor results. The machine ends by this failure, and reconcile,
        // told so, looks for both before it ends the run.
        Transition::Refused { run, refusal: Refusal::Task { .. } } => {
            Err(StepFailure::Internal(format!(
                "a task has claimed attempt {} of run {run_id}, and a step failed ({reason}); \
                 reconcile settles it",
                run.attempt
            )))
        }
        Transition::Refused { run, .. } => match run.state {
            // The machine has no attempt yet, so it has started no task.
            RunState::Canceling if attempt == 0 => canceled(state, &run).await,
            // A task may be alive: as above.
            RunState::Canceling => Err(StepFailure::Internal(format!(
                "run {run_id} is being cancelled, and a step failed ({reason}); reconcile settles it"
            ))),
            _ => end_or_stale(&run, attempt),
        },
        Transition::NotFound => Err(StepFailure::RunNotFound(run_id)),
    }
}

/// CANCELING to CANCELED, for a run of which no task can be alive.
async fn canceled(state: &State, run: &Run) -> Result<AdvanceOutput, StepFailure> {
    let change = Change { cause: "no task is alive".to_owned(), ..Change::default() };
    let event = RunEvent::Canceled { attempt: run.attempt };
    match transition(state, run.run_id, event, change).await? {
        Transition::Moved(run) | Transition::Repeated(run) => Ok(answer(Next::Canceled, &run)),
        Transition::Refused { run, .. } => end_or_stale(&run, run.attempt),
        Transition::NotFound => Err(StepFailure::RunNotFound(run.run_id)),
    }
}

/// The answer that starts the task of the run's present attempt; or the end of a run that asked
/// for more than the service gives by now: with less it might well fail after hours.
async fn attempt_of(state: &State, run: &Run) -> Result<AdvanceOutput, StepFailure> {
    let bounds = &state.settings.resources;
    let size = match bounds.size(&run.resources) {
        Ok(size) => size,
        Err(refusal) => {
            let reason = reason::of_smaller_service(&refusal);
            return system_error(state, run.run_id, run.attempt, &reason).await;
        }
    };
    let Some(token) = run.token.clone() else {
        return Err(StepFailure::Internal(format!(
            "attempt {} of run {} has no token",
            run.attempt, run.run_id
        )));
    };
    Ok(AdvanceOutput {
        next: Next::RunTask,
        attempt: run.attempt,
        token,
        timeout_seconds: bounds.time_of(&run.resources),
        size,
    })
}

/// The answer for a run that has ended, or the failure for one that lives on elsewhere.
fn end_or_stale(run: &Run, spoken: u32) -> Result<AdvanceOutput, StepFailure> {
    match Next::end(run.state) {
        Some(next) => Ok(answer(next, run)),
        None => Err(StepFailure::StaleAttempt(format!(
            "run {} is {} in attempt {}; this step speaks of attempt {spoken}",
            run.run_id, run.state, run.attempt
        ))),
    }
}

/// An answer that starts no task.
fn answer(next: Next, run: &Run) -> AdvanceOutput {
    AdvanceOutput {
        next,
        attempt: run.attempt,
        token: AttemptToken::from_secret(String::new()),
        // The machine reads no time-out then, but the field is a positive number.
        timeout_seconds: 1,
        size: TaskSize::default(),
    }
}
