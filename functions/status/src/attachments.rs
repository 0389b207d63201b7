//! What came with a run's request. An extension to WES.

use axum::{
    Json,
    extract::{RawQuery, State as FromState},
    response::Redirect,
};
use stepwes_cloud::http::{BaseUrl, Caller, HttpError, Params, routes};
use stepwes_core::{
    ApiError, RunId, keys,
    request::{Attachment, StoredRequest},
    wes::{AttachmentEntry, AttachmentListResponse},
};

use crate::{
    State,
    outputs::{escaped, redirect},
    paging::{PageRequest, fit, next_offset},
    runs::run_path,
};

/// `GET /runs/{id}/attachments`: every file, sorted by name; none once the request has expired. What
/// is listed never changes, so a page token is the number of files before the page.
pub(crate) async fn list_attachments(
    FromState(state): FromState<State>,
    caller: Caller,
    base: BaseUrl,
    Params(run_id): Params<String>,
    RawQuery(query): RawQuery,
) -> Result<Json<AttachmentListResponse>, HttpError> {
    let run = caller.run(&state.store, &run_id).await?;
    let limits = &state.settings.limits;
    let page = PageRequest::read(query.as_deref(), limits)?;
    let offset = page.offset()?;
    let stored = state.objects.get_json::<StoredRequest>(&keys::request(run.run_id)).await?;
    let all = stored.map(|stored| entries(&base, run.run_id, stored.attachments));
    let all = all.unwrap_or_default();
    let total = all.len();
    let mut attachments: Vec<_> = all.into_iter().skip(offset).take(page.size as usize).collect();
    fit(&mut attachments, limits.max_page_bytes);
    let next_page_token = next_offset(offset, attachments.len(), total);
    Ok(Json(AttachmentListResponse { attachments, next_page_token }))
}

/// A run's attachments as the API lists them.
pub(crate) fn entries(
    base: &BaseUrl,
    run_id: RunId,
    mut attachments: Vec<Attachment>,
) -> Vec<AttachmentEntry> {
    attachments.sort_by(|a, b| a.name.cmp(&b.name));
    attachments
        .into_iter()
        .map(|Attachment { name, size }| {
            let path = run_path(routes::ATTACHMENT, run_id).replace("{*name}", &escaped(&name));
            AttachmentEntry { url: base.join(&path), name, size }
        })
        .collect()
}

/// `GET /runs/{id}/attachments/{name}`: redirects to the file in S3.
pub(crate) async fn download(
    FromState(state): FromState<State>,
    caller: Caller,
    Params((run_id, name)): Params<(String, String)>,
) -> Result<Redirect, HttpError> {
    let run = caller.run(&state.store, &run_id).await?;
    let stored = state.objects.get_json::<StoredRequest>(&keys::request(run.run_id)).await?;
    let is_there = stored
        .is_some_and(|stored| stored.attachments.iter().any(|attachment| attachment.name == name));
    if !is_there {
        let shown: String = name.chars().take(200).collect();
        return Err(ApiError::NotFound(format!(
            "run {} has no attachment {shown:?}; GET {} lists them",
            run.run_id,
            run_path(routes::ATTACHMENTS, run.run_id)
        ))
        .into());
    }
    let file = name.rsplit('/').next().unwrap_or(&name);
    redirect(&state, &state.objects, &keys::attachment(run.run_id, &name), file).await
}
