//! One submission, whatever front end it came by.
//!
//! The order is: validate, generate the id, stage attachments and `request.json` in S3,
//! create the run, start its execution. Nothing is written before all of the request is known to
//! be good, and what was staged is removed again when the run is not created. What is left when
//! the process dies in between:
//!
//! - while staging, or before the run is created: objects below `requests/<run_id>/` of a run that
//!   does not exist. Nothing refers to them, no list shows them, and the bucket's lifecycle rule
//!   for `requests/` removes them. The caller saw no answer; to send the request again makes a new
//!   run, and only one.
//! - after the run is created, before its execution is started: the run is QUEUED. Reconcile starts
//!   executions of runs that stay QUEUED, or gives them their turn, and so does the caller's repetition under the same
//!   idempotency key.
//! - after the execution is started: only the answer is lost. A repetition under the same
//!   idempotency key answers the same run id; without a key it makes a second run.
//!
//! When `create` itself gets no answer, the run may or may not exist, and may come to exist: what is
//! under way arrives when it likes. A run that is there goes on; of one that is not there nothing is
//! removed, so that it has its request should it come after all.

use bytes::Bytes;
use futures::{StreamExt as _, TryStreamExt as _, future::try_join, stream};
use stepwes_cloud::{executions, http::api_error, objects::ObjectError, queue::Queue, sdk::whole};
use stepwes_core::{
    ApiError, RunId, RunState, TraceParent,
    attachment::AttachmentName,
    keys,
    request::{Attachment, RunRequest, StoredRequest},
    resources::Resources,
    run::Place,
    trigger::TRIGGERED_BY,
};
use stepwes_store::{
    Created, Idempotency, IdempotentRun, NewRun, StoreError, log_state_change, schema::ENQUEUE,
};

use crate::{Limits, State};

/// How many attachments are on their way to S3 at once.
pub(crate) const UPLOADS_AT_ONCE: usize = 8;

/// How the keys of events begin.
const EVENT: &str = "event ";

/// How many runs that wait one submission starts, in some tens of milliseconds each.
const MOST_STARTED: usize = 10;

/// The longest idempotency key.
const MAX_KEY_BYTES: usize = 255;

/// What a caller calls a submission, so that sending it twice makes one run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdempotencyKey(pub(crate) String);

impl IdempotencyKey {
    /// The key of what an event tells, by a digest that identifies it. No caller can send it: it
    /// has a blank.
    #[must_use]
    pub fn of_event(digest: &str) -> Self {
        Self(format!("{EVENT}{digest}"))
    }

    /// Reads the `Idempotency-Key` header.
    ///
    /// # Errors
    /// 400 unless it is 1 to 255 visible ASCII characters.
    pub fn parse(value: &[u8]) -> Result<Self, ApiError> {
        let good =
            (1..=MAX_KEY_BYTES).contains(&value.len()) && value.iter().all(u8::is_ascii_graphic);
        match std::str::from_utf8(value) {
            Ok(key) if good => Ok(Self(key.to_owned())),
            _ => Err(ApiError::BadRequest(format!(
                "the Idempotency-Key header must be 1 to {MAX_KEY_BYTES} visible ASCII characters"
            ))),
        }
    }
}

/// An attachment as it came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReceivedAttachment {
    /// Its path below the execution folder.
    pub name: AttachmentName,
    /// Its content.
    pub content: Bytes,
}

/// Submits a request for `owner`, as part of that trace: gives the id of the run that is QUEUED now, or of the one that
/// the same request has made before under the same idempotency key.
///
/// # Errors
/// 400 for a request that the service does not take, 409 for an idempotency key of another
/// request, 413 for too many tags or attachments; 500 and 503 when no run was created.
pub async fn submit(
    state: &State,
    owner: &str,
    idempotency: Option<IdempotencyKey>,
    request: RunRequest,
    attachments: Vec<ReceivedAttachment>,
    trace: TraceParent,
) -> Result<RunId, ApiError> {
    check_limits(&request, attachments.len(), &state.settings.limits)?;
    let names: Vec<_> = attachments.iter().map(|attachment| attachment.name.clone()).collect();
    let engine = request.validate(&state.settings.engines, &state.settings.schemes, &names)?;
    let resources = Resources::of_parameters(&request.workflow_engine_parameters)?;
    state.settings.resources.size(&resources).map_err(|refusal| {
        ApiError::BadRequest(format!("workflow_engine_parameters: {refusal}"))
    })?;
    let parameters = &request.workflow_engine_parameters;
    let destination = state.settings.destinations.of_parameters(parameters)?;

    let now = state.clock.now();
    let idempotency = idempotency.map(|key| Idempotency {
        key: key.0,
        fingerprint: request.fingerprint(
            attachments.iter().map(|attachment| (&attachment.name, attachment.content.as_ref())),
        ),
        expires_at: now + state.settings.idempotency,
    });
    if let Some(before) = before(state, owner, idempotency.as_ref()).await? {
        return Ok(before);
    }

    let run_id = state.ids.run_id(now);
    let summary = request.summary(&engine.name);
    let stored = StoredRequest {
        run_id,
        request,
        engine: engine.name.clone(),
        default_parameters: engine.parameters(),
        destination: destination.clone(),
        attachments: attachments
            .iter()
            .map(|attachment| Attachment {
                name: attachment.name.as_str().to_owned(),
                size: attachment.content.len() as u64,
            })
            .collect(),
        resumed_from: None,
    };
    if let Err(error) = stage(state, &stored, attachments).await {
        discard(state, run_id).await;
        return Err(api_error(error));
    }
    let (trace, waits) = (Some(trace), queue(state).waits());
    let owner = owner.to_owned();
    let new = NewRun { run_id, owner, summary, resources, destination, idempotency, trace, waits };
    enqueue(state, new).await
}

/// What would not fit where it is kept. The sizes of fields and attachments have been looked at
/// while they came in.
pub(crate) fn check_limits(
    request: &RunRequest,
    attachments: usize,
    limits: &Limits,
) -> Result<(), ApiError> {
    if attachments > limits.max_attachments {
        return Err(too_many_attachments(limits));
    }
    if request.workflow_url.len() > limits.max_url_bytes {
        return Err(ApiError::BadRequest(format!(
            "workflow_url is over {} bytes",
            limits.max_url_bytes
        )));
    }
    let tags = request.tags.iter().filter(|(name, _)| *name != TRIGGERED_BY);
    let tag_bytes: usize = tags.clone().map(|(name, value)| name.len() + value.len()).sum();
    if tags.count() > limits.max_tags || tag_bytes > limits.max_tag_bytes {
        return Err(ApiError::PayloadTooLarge(format!(
            "tags: at most {} tags with {} bytes in all; put more into workflow_params",
            limits.max_tags, limits.max_tag_bytes
        )));
    }
    Ok(())
}

pub(crate) fn too_many_attachments(limits: &Limits) -> ApiError {
    ApiError::PayloadTooLarge(format!(
        "more than {} attachments; send fewer, or put files where the engine can fetch them and name them by URL in workflow_params",
        limits.max_attachments
    ))
}

fn key_reused() -> ApiError {
    ApiError::Conflict(
        "this Idempotency-Key was used for a different request; use a new key, or send the same request"
            .to_owned(),
    )
}

/// The run that the same request has made before, under the same key.
///
/// # Errors
/// 409 when the key is another request's.
pub(crate) async fn before(
    state: &State,
    owner: &str,
    given: Option<&Idempotency>,
) -> Result<Option<RunId>, ApiError> {
    let Some(given) = given else { return Ok(None) };
    let before = state.store.idempotent(owner, &given.key).await.map_err(api_error)?;
    let Some(IdempotentRun { run_id, fingerprint }) = before else { return Ok(None) };
    if fingerprint != given.fingerprint {
        return Err(key_reused());
    }
    // What has landed once has been dealt with, whatever became of the run.
    restart(state, run_id, given.key.starts_with(EVENT)).await?;
    Ok(Some(run_id))
}

/// All at once: nobody looks for any of it before the run exists.
async fn stage(
    state: &State,
    stored: &StoredRequest,
    attachments: Vec<ReceivedAttachment>,
) -> Result<(), ObjectError> {
    let attachments = stream::iter(attachments)
        .map(|attachment| async move {
            let key = keys::attachment(stored.run_id, attachment.name.as_str());
            state.objects.put_bytes(&key, attachment.content, "application/octet-stream").await
        })
        .buffer_unordered(UPLOADS_AT_ONCE)
        .try_collect::<()>();
    let key = keys::request(stored.run_id);
    try_join(attachments, state.objects.put_json(&key, stored)).await.map(drop)
}

/// Removes what was staged. When that fails the bucket's lifecycle rule does it.
pub(crate) async fn discard(state: &State, run_id: RunId) {
    if let Err(error) = state.objects.delete_prefix(&keys::request_prefix(run_id)).await {
        tracing::warn!(%run_id, error = whole(&error), "staged objects were left behind");
    }
}

enum Enqueued {
    New,
    Before(RunId),
    KeyReused,
}

/// Creates a run whose files have been staged, and starts its execution, or lets it
/// wait for its turn. When it is not created,
/// what was staged is removed again.
pub(crate) async fn enqueue(state: &State, new: NewRun) -> Result<RunId, ApiError> {
    let (run_id, waits) = (new.run_id, new.waits);
    match create(state, new).await? {
        Enqueued::New => {
            if waits {
                start_waiting(state, &queue(state), run_id).await;
            } else {
                start(state, run_id).await;
            }
            Ok(run_id)
        }
        Enqueued::Before(existing) => {
            discard(state, run_id).await;
            restart(state, existing, false).await?;
            Ok(existing)
        }
        Enqueued::KeyReused => {
            discard(state, run_id).await;
            Err(key_reused())
        }
    }
}

async fn create(state: &State, new: NewRun) -> Result<Enqueued, ApiError> {
    let run_id = new.run_id;
    match state.store.create(new).await {
        Ok(Created::New(_)) => Ok(Enqueued::New),
        // Our own transaction, met again by a retry of the SDK's.
        Ok(Created::Existing(existing)) if existing == run_id => Ok(Enqueued::New),
        Ok(Created::Existing(existing)) => Ok(Enqueued::Before(existing)),
        Ok(Created::KeyReused) => Ok(Enqueued::KeyReused),
        // The id is another run's, and so are the objects below it.
        Err(error @ StoreError::RunIdTaken(_)) => Err(api_error(error)),
        Err(error) => match state.store.get(run_id).await {
            Ok(Some(run)) => {
                log_state_change(&run, None, ENQUEUE, "");
                tracing::warn!(%run_id, error = whole(&error), "created, though no answer came");
                Ok(Enqueued::New)
            }
            Ok(None) if !error.is_retryable() => {
                discard(state, run_id).await;
                Err(api_error(error))
            }
            Ok(None) | Err(_) => Err(api_error(error)),
        },
    }
}

/// Starts the execution. The run exists: when this fails it waits for reconcile, and the caller
/// has its id.
async fn start(state: &State, run_id: RunId) {
    let started =
        executions::start(&state.executions, &state.settings.state_machine_arn, run_id).await;
    if let Err(error) = started {
        tracing::error!(%run_id, error = whole(&error), "the run waits for reconcile to start it");
    }
}

pub(crate) fn queue(state: &State) -> Queue {
    let settings = &state.settings;
    Queue::new(state.executions.clone(), &settings.state_machine_arn, settings.max_runs)
}

/// Starts the runs that wait, this one among them, as far as there are slots, but not so many that
/// the caller has to wait for them: where the limit has just been raised, the rest is reconcile's. It
/// exists: when this fails, the end of another run or reconcile's next look starts it.
async fn start_waiting(state: &State, queue: &Queue, run_id: RunId) {
    if let Err(error) = queue.start_waiting(&state.store, Some(run_id), MOST_STARTED).await {
        tracing::error!(%run_id, error = whole(&error), "the run waits for reconcile to give it a slot");
    }
}

/// Starts the execution of a run that an earlier submission may have left without one.
///
/// # Errors
/// 409 when the run has been deleted, unless it `may_be_gone`: a second run would be no answer to
/// who only asks again.
async fn restart(state: &State, run_id: RunId, may_be_gone: bool) -> Result<(), ApiError> {
    match state.store.get(run_id).await.map_err(api_error)? {
        Some(run) if run.place == Some(Place::Waiting) => {
            start_waiting(state, &queue(state), run_id).await;
        }
        Some(run) if run.state == RunState::Queued => start(state, run_id).await,
        None if !may_be_gone => {
            return Err(ApiError::Conflict(format!(
                "this Idempotency-Key made run {run_id}, which has been deleted since; use a new key"
            )));
        }
        Some(_) | None => {}
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_visible_ascii_of_a_bounded_length() {
        for good in ["a", "3f0c-~!", &"k".repeat(255)] {
            assert!(IdempotencyKey::parse(good.as_bytes()).is_ok(), "{good}");
        }
        for bad in ["", "a b", "\u{e9}", "a\tb", &"k".repeat(256)] {
            assert_eq!(IdempotencyKey::parse(bad.as_bytes()).expect_err(bad).status(), 400);
        }
    }
}
