//! submit: takes a RunRequest, creates the run exactly once and starts its execution. RunRequests
//! come through the API, as files that are dropped into the runs bucket, and from triggers.

mod body;
mod event;
pub mod events;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
mod rejection;
mod resume;
mod settings;
mod submission;
mod triggers;

use std::sync::Arc;

use axum::{
    Json, Router,
    extract::{Request, State as FromState},
    response::{IntoResponse as _, Response},
    routing::post,
};
use http::{Extensions, HeaderMap};
use stepwes_cloud::{
    Aws, OnUse,
    http::{Caller, Callers, HasCallers, HttpError, LoggedRun, Params, routes},
    objects::Objects,
};
use stepwes_core::{
    ApiError, Clock, IdGenerator, RandomIds, RunId, SystemClock, TraceParent, wes::RunIdResponse,
};
use stepwes_store::RunStore;

pub use body::{Submission, read};
pub use event::{EventFailure, REJECTED};
pub use resume::resume;
pub use settings::{Limits, Settings};
pub use submission::{IdempotencyKey, ReceivedAttachment, submit};
pub use triggers::Triggers;

/// What the function works with.
#[derive(Clone)]
pub struct State {
    /// The run table.
    pub store: RunStore,
    /// The runs bucket.
    pub objects: Objects,
    /// Step Functions.
    pub executions: OnUse<aws_sdk_sfn::Client>,
    /// The settings.
    pub settings: Arc<Settings>,
    /// Tells the time.
    pub clock: Arc<dyn Clock>,
    /// Makes run ids.
    pub ids: Arc<dyn IdGenerator>,
    /// The triggers as they were last read.
    pub triggers: Arc<Triggers>,
}

impl State {
    /// With the clients of `aws`, the system's clock and random ids.
    #[must_use]
    pub fn new(aws: &Aws, settings: Settings) -> Self {
        Self {
            store: aws.store(&settings.table),
            objects: Objects::new(aws.s3().now(), &settings.bucket),
            executions: aws.sfn().now(),
            settings: Arc::new(settings),
            clock: Arc::new(SystemClock),
            ids: Arc::new(RandomIds),
            triggers: Arc::default(),
        }
    }
}

impl HasCallers for State {
    fn callers(&self) -> &Callers {
        &self.settings.callers
    }
}

/// The routes: `POST /runs` and `POST /runs/{id}/resume`. Without
/// [`stepwes_cloud::http::frame`], which is put once around the routes of all functions that one
/// server has.
pub fn router(state: State) -> Router {
    Router::new()
        .route(routes::RUNS, post(run_workflow))
        .route(routes::RUN_RESUME, post(resume_run))
        .with_state(state)
}

/// `POST /runs/{id}/resume`, which WES does not have. A body is ignored.
async fn resume_run(
    FromState(state): FromState<State>,
    caller: Caller,
    Params(run_id): Params<String>,
    request: Request,
) -> Result<Response, HttpError> {
    let key = idempotency_key(request.headers())?;
    let trace = trace(request.extensions());
    let from = caller.run(&state.store, &run_id).await?;
    Ok(answer(resume(&state, &from, key, trace).await?))
}

/// WES `RunWorkflow`.
async fn run_workflow(
    FromState(state): FromState<State>,
    caller: Caller,
    request: Request,
) -> Result<Response, HttpError> {
    let key = idempotency_key(request.headers())?;
    let (parts, body) = request.into_parts();
    let trace = trace(&parts.extensions);
    let submission = read(&parts.headers, body, &state.settings.limits).await?;
    let Submission { request, attachments } = submission;
    Ok(answer(submit(&state, &caller.owner, key, request, attachments, trace).await?))
}

/// Answers the id of a run that was made.
fn answer(run_id: RunId) -> Response {
    let mut response = Json(RunIdResponse { run_id: run_id.to_string() }).into_response();
    response.extensions_mut().insert(LoggedRun(run_id));
    response
}

/// The trace that the request belongs to, or a new one.
fn trace(request: &Extensions) -> TraceParent {
    request.get().copied().unwrap_or_else(TraceParent::generate)
}

fn idempotency_key(headers: &HeaderMap) -> Result<Option<IdempotencyKey>, ApiError> {
    let mut values = headers.get_all("idempotency-key").iter();
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(ApiError::BadRequest("two Idempotency-Key headers; send one".to_owned()));
    }
    IdempotencyKey::parse(value.as_bytes()).map(Some)
}
