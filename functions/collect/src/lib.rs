//! collect: output collection, and the run's terminal state.
//!
//! Asked by the state machine whenever an attempt's task has ended, or seems to have. It looks for
//! the attempt's `result.json` first, so that finished work is never run again; else it finds out
//! why the task was lost. Everything that it does can be done again: asked twice, or cut off in the
//! middle, it ends the same.

pub mod finish;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
pub mod loss;
pub mod outputs;

use std::sync::Arc;

use chrono::TimeDelta;
use stepwes_cloud::{
    Aws,
    ecs::Tasks,
    env::{self, SettingError},
    invocation::is_about,
    objects::Objects,
    sdk::whole,
    step::StepFailure,
};
use stepwes_core::{
    Clock, RunEvent, RunState, SystemClock, engines, keys,
    run::Run,
    step::{CollectInput, CollectOutput, Next},
    task::EcsTask,
};
use stepwes_store::{Change, RunStore};

use crate::{
    finish::{Finisher, Found, Settled},
    loss::{Loss, STOPPED_OVERDUE},
};

/// How often a run may change under one invocation before it gives up for now. Every change is a
/// step towards an end, so this is never reached.
const ROUNDS: usize = 4;

/// What the function is configured with.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The run table (`STEPWES_TABLE`).
    pub table: String,
    /// The runs bucket (`STEPWES_BUCKET`).
    pub bucket: String,
    /// The cluster of the engine tasks, name or ARN (`STEPWES_CLUSTER`).
    pub cluster: String,
    /// How many attempts a run has (`STEPWES_MAX_ATTEMPTS`, 1 to 10; 3).
    pub max_attempts: u32,
    /// How long one attempt's task may take, in seconds (`STEPWES_RUN_TIMEOUT_SECONDS`, 1 to
    /// 864,000; 86,400).
    pub run_timeout_seconds: u32,
}

impl Settings {
    /// From the environment.
    ///
    /// # Errors
    /// [`SettingError`] naming the variable that is missing or out of its range.
    pub fn from_env() -> Result<Self, SettingError> {
        Ok(Self {
            table: env::required("STEPWES_TABLE")?,
            bucket: env::required("STEPWES_BUCKET")?,
            cluster: env::required("STEPWES_CLUSTER")?,
            max_attempts: env::bounded("STEPWES_MAX_ATTEMPTS", 3, 1..=10)?,
            run_timeout_seconds: env::bounded("STEPWES_RUN_TIMEOUT_SECONDS", 86_400, 1..=864_000)?,
        })
    }
}

/// What the function keeps between invocations.
#[derive(Clone)]
pub struct State {
    store: RunStore,
    objects: Objects,
    finisher: Finisher,
    tasks: Tasks,
    clock: Arc<dyn Clock>,
    max_attempts: u32,
    run_timeout_seconds: u32,
}

impl State {
    /// The function over one AWS account.
    #[must_use]
    pub fn new(settings: Settings, aws: &Aws) -> Self {
        Self::with_clock(settings, aws, Arc::new(SystemClock))
    }

    /// The function over one AWS account, by a clock of the caller's.
    #[must_use]
    pub fn with_clock(settings: Settings, aws: &Aws, clock: Arc<dyn Clock>) -> Self {
        let store = aws.store_with_clock(&settings.table, clock.clone());
        let objects = Objects::new(aws.s3().now(), settings.bucket);
        Self {
            finisher: Finisher::new(store.clone(), objects.clone()),
            store,
            objects,
            tasks: Tasks::new(aws.ecs(), settings.cluster),
            clock,
            max_attempts: settings.max_attempts,
            run_timeout_seconds: settings.run_timeout_seconds,
        }
    }
}

/// Says where the machine goes after an attempt's task, and records the run's end when that is
/// where.
///
/// # Errors
/// [`StepFailure`], by the names that the machine's `Retry` knows: `Unavailable` when a service
/// does not answer, `RunNotFound`, `StaleAttempt` when the run has gone on without this execution,
/// `Internal` when a service refuses.
pub async fn handle(state: &State, input: CollectInput) -> Result<CollectOutput, StepFailure> {
    let Some(mut run) = state.store.get(input.run_id).await? else {
        return Err(StepFailure::RunNotFound(input.run_id));
    };
    is_about(&run);
    for _ in 0..ROUNDS {
        if let Some(next) = Next::end(run.state) {
            if run.state == RunState::Complete {
                forget_state(state, &run).await;
            }
            return Ok(CollectOutput {
                next,
                attempt: run.attempt,
                reason: String::new(),
                task_arn: None,
            });
        }
        if run.attempt != input.attempt || run.state == RunState::Queued {
            return Err(StepFailure::StaleAttempt(format!(
                "run {} is {} in attempt {}; this step speaks of attempt {}",
                run.run_id, run.state, run.attempt, input.attempt
            )));
        }
        match collect(state, &run, &input).await? {
            Round::Answer(next, reason) => {
                tracing::info!(run_id = %run.run_id, attempt = run.attempt, ?next, reason, "collected");
                let task_arn = run.task_arn.filter(|_| next == Next::Retry);
                return Ok(CollectOutput { next, attempt: run.attempt, reason, task_arn });
            }
            Round::Changed(now) => run = *now,
        }
    }
    Err(StepFailure::Unavailable(format!("run {} keeps changing", input.run_id)))
}

/// Removes what the engine of a run that is COMPLETE would have gone on from: nobody does any more.
/// What stays, since S3 does not answer, goes by the bucket's lifecycle rule or with the run.
async fn forget_state(state: &State, run: &Run) {
    let summary = &run.summary;
    if !engines::resumes(&summary.workflow_engine, &summary.workflow_type) {
        return;
    }
    for attempt in 1..=run.attempt {
        let prefix = keys::state_prefix(run.run_id, attempt);
        if let Err(error) = state.objects.delete_all(&prefix).await {
            tracing::warn!(run_id = %run.run_id, error = whole(&error), "saved state was left behind");
            return;
        }
    }
}

/// What one look at a run comes to.
enum Round {
    /// The machine's way, with the reason of a lost attempt.
    Answer(Next, String),
    /// The run has ended, or somebody changed it meanwhile: look again.
    Changed(Box<Run>),
}

impl From<Settled> for Round {
    fn from(settled: Settled) -> Self {
        match settled {
            Settled::Ended(run) | Settled::Changed(run) => Self::Changed(run),
        }
    }
}

async fn collect(state: &State, run: &Run, input: &CollectInput) -> Result<Round, StepFailure> {
    let canceling = run.state == RunState::Canceling;
    let found = state.finisher.find(run.run_id, run.attempt).await?;
    if !canceling {
        if let Some(result) = found.finished() {
            return Ok(state.finisher.finish(run, result).await?.into());
        }
        if let Found::Unreadable(why) = &found {
            let reason = format!("the result of attempt {} cannot be used: {why}", run.attempt);
            return Ok(state.finisher.system_error(run, reason).await?.into());
        }
    }

    let timed_out = input.error.as_ref().is_some_and(|error| error.error == "States.Timeout");
    let (task, seen) = match claimed_task(state, run, loss::ended_task(input)).await? {
        Claimed::Gone(task) => (task, false),
        Claimed::SeenGone(task) => (task, true),
        Claimed::Live(task_arn) => {
            let limit = TimeDelta::seconds(i64::from(time_limit(state, run)));
            let overdue = run.updated_at + limit < state.clock.now();
            if canceling {
                state.tasks.stop(&task_arn, "stepwes: the run is being cancelled").await?;
            } else if timed_out || overdue {
                state.tasks.stop(&task_arn, STOPPED_OVERDUE).await?;
            }
            return Ok(Round::Answer(Next::Wait, String::new()));
        }
    };
    if canceling {
        let change = Change { cause: "the task is gone".to_owned(), ..found.of_engine() };
        let event = RunEvent::Canceled { attempt: run.attempt };
        return Ok(state.finisher.settle(run, event, change).await?.into());
    }
    if seen {
        // It may have ended, and left its result, after the result was looked for above.
        let found = state.finisher.find(run.run_id, run.attempt).await?;
        if let Some(result) = found.finished() {
            return Ok(state.finisher.finish(run, result).await?.into());
        }
    }
    give_up_or_retry(state, run, loss::classify(input.error.as_ref(), task.as_ref())).await
}

/// How long one attempt of the run may take, in seconds.
fn time_limit(state: &State, run: &Run) -> u32 {
    let most = state.run_timeout_seconds;
    run.resources.time.map_or(most, |asked| asked.min(most))
}

/// The task that holds the attempt.
enum Claimed {
    /// It may still be alive.
    Live(String),
    /// It is not, as the step was told, or there never was one; with what is known of its end.
    Gone(Option<EcsTask>),
    /// It is not, as ECS has just told.
    SeenGone(Option<EcsTask>),
}

/// Whether the task that claimed the attempt is gone. It is, when it is the one that has just
/// `ended`; but a retried RunTask may have started two, and the one that ended may be the twin that
/// was refused. A task that has claimed nothing has no credentials and no engine, and is refused
/// when it tries.
async fn claimed_task(
    state: &State,
    run: &Run,
    ended: Option<EcsTask>,
) -> Result<Claimed, StepFailure> {
    let Some(claimed) = &run.task_arn else { return Ok(Claimed::Gone(ended)) };
    if ended.as_ref().and_then(|task| task.task_arn.as_ref()) == Some(claimed) {
        return Ok(Claimed::Gone(ended));
    }
    Ok(match state.tasks.describe(claimed).await? {
        Some(task) if task.is_live() => Claimed::Live(task.task_arn),
        Some(task) => Claimed::SeenGone(Some(task.ended)),
        None => Claimed::SeenGone(None),
    })
}

async fn give_up_or_retry(state: &State, run: &Run, loss: Loss) -> Result<Round, StepFailure> {
    let (attempt, max) = (run.attempt, state.max_attempts);
    // AWS's words have no reason to hold the token. They must not be the way in which it gets out.
    let safe = |reason: String| match &run.token {
        Some(token) => reason.replace(token.secret(), "…"),
        None => reason,
    };
    let reason = match loss {
        Loss::Interrupted(reason) => return Ok(Round::Answer(Next::Retry, safe(reason))),
        Loss::Lost(reason) if attempt < max => {
            return Ok(Round::Answer(Next::Retry, safe(reason)));
        }
        Loss::Lost(reason) => format!("attempt {attempt} of {max} was lost: {reason}"),
        Loss::TimedOut => format!(
            "the run took longer than its limit of {}; ask for more time (stepwes.time), let the \
             operator give runs more, or make it shorter",
            loss::duration(time_limit(state, run))
        ),
        Loss::Final(reason) => reason,
    };
    Ok(state.finisher.system_error(run, safe(reason)).await?.into())
}
