//! Output files: the list, and each of them. An extension to WES.

use axum::{
    Json,
    extract::{RawQuery, State as FromState},
    response::Redirect,
};
use percent_encoding::utf8_percent_encode;
use stepwes_cloud::{
    http::{BaseUrl, Caller, HttpError, Params, routes},
    objects::{Download, ObjectError, Objects},
};
use stepwes_core::{
    ApiError, Run, RunId, keys,
    run::CollectedOutputs,
    task::OutputFile,
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
    let Some(collected) = collected(&state, &run).await? else {
        return Ok(Json(OutputListResponse {
            outputs: Vec::new(),
            next_page_token: String::new(),
        }));
    };
    let all = entries(&state, &base, &run, collected.files);
    let total = all.len();
    let mut outputs: Vec<_> = all.into_iter().skip(offset).take(page.size as usize).collect();
    fit(&mut outputs, limits.max_page_bytes);
    let next_page_token = next_offset(offset, outputs.len(), total);
    Ok(Json(OutputListResponse { outputs, next_page_token }))
}

/// A complete run's output files as the API lists them. The attempt that counts is its last.
pub(crate) fn entries(
    state: &State,
    base: &BaseUrl,
    run: &Run,
    mut files: Vec<OutputFile>,
) -> Vec<OutputEntry> {
    files.sort_by(|a, b| a.path.cmp(&b.path));
    let place = run.outputs_place();
    let objects = state.objects.at(&place);
    files
        .into_iter()
        .map(|file| OutputEntry {
            location: objects.url(&place.key(&file.path)),
            url: base.join(&output_path(run.run_id, &file.path)),
            size: file.size,
            checksum: format!("sha1${}", file.sha1),
            path: file.path,
        })
        .collect()
}

/// `GET /runs/{id}/outputs/{path}`: redirects to the file in S3. Everything below the prefix of the
/// attempt that counts is an output, so S3 is asked and the list, which may be long, is not read.
pub(crate) async fn download(
    FromState(state): FromState<State>,
    caller: Caller,
    Params((run_id, path)): Params<(String, String)>,
) -> Result<Redirect, HttpError> {
    let run = caller.run(&state.store, &run_id).await?;
    let place = run.outputs_place();
    let objects = state.objects.at(&place);
    let key = place.key(&path);
    let found = run.has_outputs
        && is_plain(&path)
        && key.len() <= keys::MAX_KEY_BYTES
        && objects.head(&key).await?.is_some();
    if !found {
        let shown: String = path.chars().take(200).collect();
        return Err(ApiError::NotFound(format!(
            "run {} has no output file {shown:?}; GET {} lists them",
            run.run_id,
            run_path(routes::OUTPUTS, run.run_id)
        ))
        .into());
    }
    let name = path.rsplit('/').next().unwrap_or(&path);
    redirect(&state, &objects, &key, name).await
}

/// Whether a path can be that of an output: no empty, `.` or `..` part.
fn is_plain(path: &str) -> bool {
    path.split('/').all(|part| !matches!(part, "" | "." | ".."))
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
    redirect(&state, &state.objects, &keys::outputs_json(run.run_id), "outputs.json").await
}

pub(crate) async fn redirect(
    state: &State,
    objects: &Objects,
    key: &str,
    name: &str,
) -> Result<Redirect, HttpError> {
    let name = utf8_percent_encode(name, ESCAPED);
    let download = Download {
        content_type: None,
        disposition: Some(format!("attachment; filename*=UTF-8''{name}")),
    };
    let url = objects.presign_get(key, state.settings.presign_expiry, download).await?;
    Ok(Redirect::temporary(&url))
}

pub(crate) async fn collected(
    state: &State,
    run: &Run,
) -> Result<Option<CollectedOutputs>, ObjectError> {
    if !run.has_outputs {
        return Ok(None);
    }
    state.objects.get_json(&keys::outputs_json(run.run_id)).await
}

/// The path of a file on this API.
fn output_path(run_id: RunId, path: &str) -> String {
    run_path(routes::OUTPUT, run_id).replace("{*path}", &escaped(path))
}

/// A file's path with each part of it escaped.
pub(crate) fn escaped(path: &str) -> String {
    let parts: Vec<_> =
        path.split('/').map(|part| utf8_percent_encode(part, ESCAPED).to_string()).collect();
    parts.join("/")
}
