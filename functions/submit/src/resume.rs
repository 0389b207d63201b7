//! A run that goes on from what another one has saved. It is a run of its own: a terminal state
//! never changes, and the name of an execution cannot be used again.
//!
//! The order, and what is left when the process dies in between, are those of a submission: the
//! request and its attachments are copied before the run is created.

use futures::{StreamExt as _, TryStreamExt as _, stream};
use stepwes_cloud::http::api_error;
use stepwes_core::{
    ApiError, Run, RunId, RunState, TraceParent, engines, keys,
    request::{Attachment, StoredRequest},
    resources::Resources,
    saved::{RESUMED_FROM, ResumedFrom},
};
use stepwes_store::{Idempotency, NewRun};

use crate::{
    State,
    submission::{IdempotencyKey, UPLOADS_AT_ONCE, before, discard, enqueue, queue},
};

/// Makes a run of the same owner that goes on from the state that `from` has saved; or gives the
/// one that was made before under the same key.
///
/// # Errors
/// 409 when there is nothing to go on from, or for an idempotency key of another request; 400 when
/// the service does not have what the run asks for any more; 500 and 503 when no run was created.
pub async fn resume(
    state: &State,
    from: &Run,
    idempotency: Option<IdempotencyKey>,
    trace: TraceParent,
) -> Result<RunId, ApiError> {
    let now = state.clock.now();
    let idempotency = idempotency.map(|key| Idempotency {
        key: key.0,
        // No request's fingerprint: those are digests.
        fingerprint: format!("resume {}", from.run_id),
        expires_at: now + state.settings.idempotency,
    });
    if let Some(before) = before(state, &from.owner, idempotency.as_ref()).await? {
        return Ok(before);
    }
    let attempt = resumable(state, from).await?;
    let stored = state.objects.get_json::<StoredRequest>(&keys::request(from.run_id)).await;
    let Some(stored) = stored.map_err(api_error)? else { return Err(not_kept(from)) };
    let resources = Resources::of_parameters(&stored.request.workflow_engine_parameters)?;
    state.settings.resources.size(&resources).map_err(|refusal| {
        ApiError::BadRequest(format!("workflow_engine_parameters: {refusal}"))
    })?;

    let run_id = state.ids.run_id(now);
    let mut stored = StoredRequest {
        run_id,
        resumed_from: Some(ResumedFrom { run_id: from.run_id, attempt }),
        ..stored
    };
    stored.request.tags.insert(RESUMED_FROM.to_owned(), from.run_id.to_string());
    match stage(state, from.run_id, &stored).await {
        Ok(true) => {}
        staged => {
            discard(state, run_id).await;
            staged?;
            return Err(not_kept(from));
        }
    }
    let summary = stored.request.summary(&stored.engine);
    let (trace, waits) = (Some(trace), queue(state).waits());
    let owner = from.owner.clone();
    let destination = stored.destination.clone();
    let new = NewRun { run_id, owner, summary, resources, destination, idempotency, trace, waits };
    enqueue(state, new).await
}

/// The latest attempt of the run that has saved its engine's state.
async fn resumable(state: &State, run: &Run) -> Result<u32, ApiError> {
    let run_id = run.run_id;
    let conflict = |why: String| Err(ApiError::Conflict(format!("run {run_id} {why}")));
    match run.state {
        RunState::Complete => {
            return conflict(
                "is COMPLETE, and nothing of it is left to do; submit it again to run it anew"
                    .to_owned(),
            );
        }
        RunState::ExecutorError
        | RunState::SystemError
        | RunState::Canceled
        | RunState::Preempted => {}
        going_on @ (RunState::Queued
        | RunState::Initializing
        | RunState::Running
        | RunState::Canceling) => {
            return conflict(format!("is {going_on}; it can be resumed when it has ended"));
        }
    }
    let summary = &run.summary;
    if !engines::resumes(&summary.workflow_engine, &summary.workflow_type) {
        return conflict(format!(
            "was run by {}, which cannot go on where it ended; submit it again (for workflows in CWL, workflow_engine toil can)",
            summary.workflow_engine
        ));
    }
    for attempt in (1..=run.attempt).rev() {
        let manifest = keys::state_manifest(run_id, attempt);
        if state.objects.head(&manifest).await.map_err(api_error)?.is_some() {
            return Ok(attempt);
        }
    }
    let instead = summary.tags.get(RESUMED_FROM).map_or_else(
        || "submit it again".to_owned(),
        |parent| format!("resume run {parent}, from which it went on"),
    );
    conflict(format!(
        "has no saved state: it ended before anything was saved, or what was saved has been removed since; {instead}"
    ))
}

/// Copies the attachments and writes the request; `false` when an attachment is gone.
async fn stage(state: &State, from: RunId, stored: &StoredRequest) -> Result<bool, ApiError> {
    let copied = stream::iter(stored.attachments.clone())
        .map(|Attachment { name, .. }| async move {
            let (from, to) =
                (keys::attachment(from, &name), keys::attachment(stored.run_id, &name));
            state.objects.copy(&from, &to).await
        })
        .buffer_unordered(UPLOADS_AT_ONCE)
        .try_fold(true, |all, copied| async move { Ok(all && copied) })
        .await
        .map_err(api_error)?;
    if copied {
        state.objects.put_json(&keys::request(stored.run_id), stored).await.map_err(api_error)?;
    }
    Ok(copied)
}

fn not_kept(run: &Run) -> ApiError {
    ApiError::Conflict(format!(
        "the request of run {} is not kept any more; submit the run again",
        run.run_id
    ))
}
