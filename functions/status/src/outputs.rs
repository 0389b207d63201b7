//! Output files: the list, and each of them. An extension to WES.

use axum::{
    Json,
    extract::{RawQuery, State as FromState},
    response::Redirect,
};
use percent_encoding::utf8_percent_encode;
use stepwes_cloud::{
    http::{BaseUrl, Caller, HttpError, Params, routes},
    objects::{Download, ObjectError},
};
use stepwes_core::{
    ApiError, Run, RunId, keys,
    run::CollectedOutputs,
    wes::{OutputEntry, OutputListResponse},
};

use crate::{
    ESCAPED, State,
    paging::{PageRequest, fit, next_offset},
    runs::run_path,
};

/// `GET /runs/{id}/outputs`: every file, sorted by path; none before the run is COMPLETE. What is
/// listed never changes, so a page token is the number of files before the page.
pub(crate) async fn list_outputs(
    FromState(state): FromState<State>,
    caller: Caller,
    base: BaseUrl,
    Params(run_id): Params<String>,
    RawQuery(query): RawQuery,
) -> Result<Json<OutputListResponse>, HttpError> {
    let run = caller.run(&state.store, &run_id).await?;
    let limits = &state.settings.limits;
    let page = PageRequest::read(query.as_deref(), limits)?;
    let offset = page.offset()?;
    let Some(mut collected) = collected(&state, &run).await? else {
        return Ok(Json(OutputListResponse {
            outputs: Vec::new(),
            next_page_token: String::new(),
        }));
    };
    collected.files.sort_by(|a, b| a.path.cmp(&b.path));
    let total = collected.files.len();
    let mut outputs: Vec<_> = collected
        .files
        .into_iter()
        .skip(offset)
        .take(page.size as usize)
        .map(|file| OutputEntry {
            location: state.objects.url(&keys::output(run.run_id, collected.attempt, &file.path)),
            url: base.join(&output_path(run.run_id, &file.path)),
            size: file.size,
            checksum: format!("sha1${}", file.sha1),
            path: file.path,
        })
        .collect();
    fit(&mut outputs, limits.max_page_bytes);
    let next_page_token = next_offset(offset, outputs.len(), total);
    Ok(Json(OutputListResponse { outputs, next_page_token }))
}

/// `GET /runs/{id}/outputs/{path}`: redirects to the file in S3.
pub(crate) async fn download(
    FromState(state): FromState<State>,
    caller: Caller,
    Params((run_id, path)): Params<(String, String)>,
) -> Result<Redirect, HttpError> {
    let run = caller.run(&state.store, &run_id).await?;
    let attempt = collected(&state, &run)
        .await?
        .filter(|collected| collected.files.iter().any(|file| file.path == path))
        .map(|collected| collected.attempt);
    let Some(attempt) = attempt else {
        let shown: String = path.chars().take(200).collect();
        return Err(ApiError::NotFound(format!(
            "run {} has no output file {shown:?}; GET {} lists them",
            run.run_id,
            run_path(routes::OUTPUTS, run.run_id)
        ))
        .into());
    };
    let name = path.rsplit('/').next().unwrap_or(&path);
    redirect(&state, &keys::output(run.run_id, attempt, &path), name).await
}

/// `GET /runs/{id}/outputs.json`: redirects to the object that collect wrote, for those that are
/// too large for a RunLog.
pub(crate) async fn download_object(
    FromState(state): FromState<State>,
    caller: Caller,
    Params(run_id): Params<String>,
) -> Result<Redirect, HttpError> {
    let run = caller.run(&state.store, &run_id).await?;
    if !run.has_outputs {
        return Err(ApiError::NotFound(format!(
            "run {} has no outputs; it is {}",
            run.run_id, run.state
        ))
        .into());
    }
    redirect(&state, &keys::outputs_json(run.run_id), "outputs.json").await
}

async fn redirect(state: &State, key: &str, name: &str) -> Result<Redirect, HttpError> {
    let name = utf8_percent_encode(name, ESCAPED);
    let download = Download {
        content_type: None,
        disposition: Some(format!("attachment; filename*=UTF-8''{name}")),
    };
    let url = state.objects.presign_get(key, state.settings.presign_expiry, download).await?;
    Ok(Redirect::temporary(&url))
}

async fn collected(state: &State, run: &Run) -> Result<Option<CollectedOutputs>, ObjectError> {
    if !run.has_outputs {
        return Ok(None);
    }
    state.objects.get_json(&keys::outputs_json(run.run_id)).await
}

/// The path of a file on this API, each part of its name escaped.
fn output_path(run_id: RunId, path: &str) -> String {
    let escaped: Vec<_> =
        path.split('/').map(|part| utf8_percent_encode(part, ESCAPED).to_string()).collect();
    run_path(routes::OUTPUT, run_id).replace("{*path}", &escaped.join("/"))
}
