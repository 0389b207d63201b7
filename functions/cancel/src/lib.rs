//! cancel: what a caller does to a run that exists: cancels it, or deletes it.
//!
//! To cancel is to record CANCELING, then to stop the task.
//! CANCELING is recorded first, in the one place where states change: from then on no task can
//! claim the attempt, no result counts, and the run becomes nothing but CANCELED. What is done
//! after that only makes it happen sooner, and is done again whenever somebody asks again:
//!
//! - no attempt has begun: the execution is started once more, under the same name, so that the
//!   state machine walks the run to CANCELED even when submit died before it started one;
//! - a task has claimed the attempt: it is stopped;
//! - an attempt has begun and no task has claimed it: nothing is to be done, since its task is
//!   refused when it claims, and exits.
//!
//! Should this function die between the two steps, or ECS not answer, the run stays CANCELING;
//! asking again repairs it, and so does reconcile.

use std::sync::Arc;

use axum::{
    Json, Router,
    extract::State as FromState,
    routing::{delete, post},
};
use http::StatusCode;
use stepwes_cloud::{
    Aws, OnUse,
    ecs::Tasks,
    env::{self, SettingError},
    erase::{EraseError, erase},
    executions,
    http::{Caller, Callers, HasCallers, HttpError, Params, api_error, routes},
    objects::Objects,
    sdk::whole,
};
use stepwes_core::{ApiError, Run, RunEvent, RunId, RunState, wes::RunIdResponse};
use stepwes_store::{Change, RunStore, Transition};

/// The settings of cancel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The run table's name (`STEPWES_TABLE`).
    pub table: String,
    /// The runs bucket's name (`STEPWES_BUCKET`).
    pub bucket: String,
    /// The state machine that runs are started in (`STEPWES_STATE_MACHINE_ARN`).
    pub state_machine_arn: String,
    /// The ECS cluster that tasks run in (`STEPWES_CLUSTER`).
    pub cluster: String,
    /// How callers are known ([`Callers::from_env`]).
    pub callers: Callers,
}

impl Settings {
    /// From the environment variables named at the fields.
    ///
    /// # Errors
    /// [`SettingError`] naming the variable that is missing or cannot be read.
    pub fn from_env() -> Result<Self, SettingError> {
        Ok(Self {
            table: env::required("STEPWES_TABLE")?,
            bucket: env::required("STEPWES_BUCKET")?,
            state_machine_arn: env::required("STEPWES_STATE_MACHINE_ARN")?,
            cluster: env::required("STEPWES_CLUSTER")?,
            callers: Callers::from_env()?,
        })
    }
}

/// What the function works with.
#[derive(Clone)]
pub struct State {
    /// The run table.
    pub store: RunStore,
    /// The runs bucket.
    pub objects: Objects,
    /// Step Functions.
    pub executions: OnUse<aws_sdk_sfn::Client>,
    /// The tasks of the cluster.
    pub tasks: Tasks,
    /// The settings.
    pub settings: Arc<Settings>,
}

impl State {
    /// With the clients of `aws`.
    #[must_use]
    pub fn new(aws: &Aws, settings: Settings) -> Self {
        Self {
            store: aws.store(&settings.table),
            objects: Objects::new(aws.s3(), &settings.bucket),
            executions: aws.sfn(),
            tasks: Tasks::new(aws.ecs(), &settings.cluster),
            settings: Arc::new(settings),
        }
    }
}

impl HasCallers for State {
    fn callers(&self) -> &Callers {
        &self.settings.callers
    }
}

/// The routes: `POST /runs/{id}/cancel` and `DELETE /runs/{id}`. Without
/// [`stepwes_cloud::http::frame`], which is put once around the routes of all functions that one
/// server has.
pub fn router(state: State) -> Router {
    Router::new()
        .route(routes::RUN_CANCEL, post(cancel_run))
        .route(routes::RUN, delete(delete_run))
        .with_state(state)
}

/// `DELETE /runs/{id}`, which WES does not have. Files go first, then the run: a deletion that is
/// cut off is finished by the next one, and only the last step makes the id unknown.
async fn delete_run(
    FromState(state): FromState<State>,
    caller: Caller,
    Params(run_id): Params<String>,
) -> Result<StatusCode, HttpError> {
    let run = caller.run(&state.store, &run_id).await?;
    if !run.state.is_terminal() {
        return Err(ApiError::Conflict(format!(
            "run {run_id} is {}; cancel it and wait for its end before you delete it",
            run.state
        ))
        .into());
    }
    match erase(&state.store, &state.objects, &run).await {
        // That somebody else was faster is as good.
        Ok(_) => Ok(StatusCode::NO_CONTENT),
        Err(EraseError::Objects(error)) => Err(error.into()),
        Err(EraseError::Store(error)) => Err(error.into()),
    }
}

/// WES `CancelRun`. A body, which WES does not have here, is ignored.
async fn cancel_run(
    FromState(state): FromState<State>,
    caller: Caller,
    Params(run_id): Params<String>,
) -> Result<Json<RunIdResponse>, HttpError> {
    let run = caller.run(&state.store, &run_id).await?;
    cancel(&state, run.run_id).await?;
    Ok(Json(RunIdResponse { run_id: run.run_id.to_string() }))
}

/// Cancels a run, whoever owns it. It is well when the run is being cancelled, was cancelled, or
/// had completed before.
///
/// # Errors
/// 403 for a run that has failed or was preempted for good, as Toil answers; 404 when there is no
/// such run; 500 and 503 when nothing was recorded.
pub async fn cancel(state: &State, run_id: RunId) -> Result<(), ApiError> {
    let change = Change { cause: "the caller asked to cancel".to_owned(), ..Change::default() };
    let transition =
        state.store.transition(run_id, RunEvent::Cancel, change).await.map_err(api_error)?;
    let run = match transition {
        Transition::Moved(run) | Transition::Repeated(run) => run,
        Transition::Refused { run, .. } => run,
        Transition::NotFound => return Err(ApiError::run_not_found(&run_id.to_string())),
    };
    match run.state {
        RunState::Canceling => {
            hasten(state, &run).await;
            Ok(())
        }
        RunState::Canceled | RunState::Complete => Ok(()),
        ended @ (RunState::ExecutorError | RunState::SystemError | RunState::Preempted) => {
            Err(ApiError::Forbidden(format!(
                "run {run_id} has ended as {ended}; it cannot be cancelled any more"
            )))
        }
        // The table lets every live run be cancelled; one that was not has met another writer.
        RunState::Queued | RunState::Initializing | RunState::Running => {
            Err(ApiError::Unavailable(format!(
                "run {run_id} could not be cancelled at present; send the request again"
            )))
        }
    }
}

/// Makes a CANCELING run end sooner. What fails here is logged, and done by the next who asks, or
/// by reconcile.
async fn hasten(state: &State, run: &Run) {
    let run_id = run.run_id;
    if run.attempt == 0 {
        let arn = &state.settings.state_machine_arn;
        if let Err(error) = executions::start(&state.executions, arn, run_id).await {
            tracing::error!(%run_id, error = whole(&error), "the run waits for reconcile to end it");
        }
    } else if let Some(task_arn) = &run.task_arn {
        let stopped = state.tasks.stop(task_arn, "the run was cancelled").await;
        if let Err(error) = stopped {
            tracing::error!(%run_id, task_arn, %error, "the task waits for reconcile to stop it");
        }
    }
}
