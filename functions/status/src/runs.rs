//! Runs: the list, one run's whole log, one run's state.

use axum::{
    Json,
    extract::{RawQuery, State as FromState},
};
use percent_encoding::percent_decode_str;
use serde_json::{Map, Value, json};
use stepwes_cloud::{
    http::{BaseUrl, Caller, HttpError, Params, routes},
    objects::{Limited, ObjectError},
};
use stepwes_core::{
    ApiError, Run, RunId,
    caller_token::check_owner,
    clock::wes_time,
    keys::{self, LogStream},
    request::StoredRequest,
    run::CollectedOutputs,
    saved::RESUMED_FROM,
    wes::{Log, RunListResponse, RunLog, RunRequestView, RunStatus, RunSummary},
};
use url::form_urlencoded;

use crate::{
    State, filter,
    paging::{PageRequest, fit},
};

/// How much larger than the outputs object `outputs.json`, which lists the files besides, may be
/// to be read at all.
const READ_FACTOR: u64 = 16;

/// WES `ListRuns`: the caller's own runs, newest first; for one who sees all, those of `owner`
/// when that is given, and those that the filters hold of. A page token is the last id of the page
/// before, so that new runs shift nothing.
pub(crate) async fn list_runs(
    FromState(state): FromState<State>,
    caller: Caller,
    RawQuery(query): RawQuery,
) -> Result<Json<RunListResponse>, HttpError> {
    let limits = &state.settings.limits;
    let page = PageRequest::read(query.as_deref(), limits)?;
    let filter = filter::read(query.as_deref())?;
    let owner = match owner_asked_for(query.as_deref())? {
        Some(owner) if owner == caller.owner || caller.sees_all => owner,
        // The same whether there is such an owner or not.
        Some(_) => {
            return Err(ApiError::Forbidden(
                "only the service's administrators list the runs of other owners; leave owner out to list yours".to_owned(),
            )
            .into());
        }
        None => caller.owner,
    };
    let after = match &page.token {
        Some(token) => Some(filter::after(token, &filter, &owner)?),
        None => None,
    };
    let found = if filter.is_empty() {
        state.store.list(&owner, page.size, after).await?
    } else {
        state.store.list_where(&owner, &filter, page.size, after).await?
    };
    let ids: Vec<_> = found.runs.iter().map(|run| run.run_id).collect();
    let mut runs: Vec<_> = found
        .runs
        .into_iter()
        .map(|run| RunSummary {
            run_id: run.run_id.to_string(),
            state: run.state,
            start_time: run.start_time.map(wes_time),
            end_time: run.end_time.map(wes_time),
            tags: run.tags,
        })
        .collect();
    let cut = fit(&mut runs, limits.max_page_bytes);
    let next = if cut { ids.get(runs.len() - 1).copied() } else { found.next };
    let next_page_token = next.map(|run_id| filter::token(run_id, &filter, &owner));
    Ok(Json(RunListResponse { runs, next_page_token: next_page_token.unwrap_or_default() }))
}

/// The `owner` of a query string; none when it is empty.
fn owner_asked_for(query: Option<&str>) -> Result<Option<String>, ApiError> {
    let mut owners = form_urlencoded::parse(query.unwrap_or_default().as_bytes())
        .filter(|(name, _)| name == "owner")
        .map(|(_, value)| value.into_owned());
    let owner = owners.next().filter(|owner| !owner.is_empty());
    if owners.next().is_some() {
        return Err(ApiError::BadRequest("owner may be given once".to_owned()));
    }
    if let Some(owner) = &owner {
        check_owner(owner).map_err(|error| ApiError::BadRequest(error.to_string()))?;
    }
    Ok(owner)
}

/// WES `GetRunStatus`.
pub(crate) async fn get_run_status(
    FromState(state): FromState<State>,
    caller: Caller,
    Params(run_id): Params<String>,
) -> Result<Json<RunStatus>, HttpError> {
    let (run_id, state) = caller.run_state(&state.store, &run_id).await?;
    Ok(Json(RunStatus { run_id: run_id.to_string(), state }))
}

/// WES `GetRunLog`.
pub(crate) async fn get_run_log(
    FromState(state): FromState<State>,
    caller: Caller,
    base: BaseUrl,
    Params(run_id): Params<String>,
) -> Result<Json<RunLog>, HttpError> {
    let run = caller.run(&state.store, &run_id).await?;
    let request_key = keys::request(run.run_id);
    let (request, outputs) = futures::future::try_join(
        state.objects.get_json::<StoredRequest>(&request_key),
        outputs(&state, &run, &base),
    )
    .await?;
    // The request may have expired before the run's item has.
    let request = request.map_or_else(|| summary_view(&run), |stored| stored.request.view());
    Ok(Json(run_log(&run, request, outputs, &base)))
}

/// A run as the API tells of it.
pub(crate) fn run_log(
    run: &Run,
    request: RunRequestView,
    outputs: Value,
    base: &BaseUrl,
) -> RunLog {
    let log_url = |stream: LogStream| {
        base.join(&run_path(routes::LOG, run.run_id).replace("{stream}", stream.as_str()))
    };
    RunLog {
        run_id: run.run_id.to_string(),
        request,
        state: run.state,
        run_log: Log {
            name: workflow_name(&run.summary.workflow_url),
            cmd: (!run.cmd.is_empty()).then(|| run.cmd.clone()),
            start_time: run.start_time.map(wes_time),
            end_time: run.end_time.map(wes_time),
            stdout: Some(log_url(LogStream::Stdout)),
            stderr: Some(log_url(LogStream::Stderr)),
            exit_code: run.exit_code,
            system_logs: run.system_logs.clone(),
        },
        task_logs_url: base.join(&run_path(routes::TASKS, run.run_id)),
        task_logs: None,
        outputs,
        resumed_from: run.summary.tags.get(RESUMED_FROM).cloned(),
    }
}

/// A route's path for a run.
pub(crate) fn run_path(route: &str, run_id: RunId) -> String {
    route.replace("{run_id}", &run_id.to_string())
}

/// The engine's output object; `{}` before there is one, and a pointer to `outputs.json` when it
/// is too large for one answer.
async fn outputs(state: &State, run: &Run, base: &BaseUrl) -> Result<Value, ObjectError> {
    if !run.has_outputs {
        return Ok(Value::Object(Map::new()));
    }
    let limit = state.settings.limits.max_outputs_bytes;
    let key = keys::outputs_json(run.run_id);
    let found = state
        .objects
        .get_json_limited::<CollectedOutputs>(&key, limit.saturating_mul(READ_FACTOR))
        .await?;
    let size = match found {
        Limited::Missing => return Ok(Value::Object(Map::new())),
        Limited::TooLarge { size } => size,
        Limited::Found(collected) => {
            let size = serde_json::to_vec(&collected.outputs).map_or(0, |text| text.len() as u64);
            if size <= limit {
                return Ok(collected.outputs);
            }
            size
        }
    };
    Ok(json!({
        "outputs.json": {
            "class": "File",
            "location": state.objects.url(&key),
            "url": base.join(&run_path(routes::OUTPUTS_JSON, run.run_id)),
            "size": size,
        }
    }))
}

/// What the run's item still knows of its request.
pub(crate) fn summary_view(run: &Run) -> RunRequestView {
    let summary = &run.summary;
    RunRequestView {
        workflow_params: Map::new(),
        workflow_type: summary.workflow_type.clone(),
        workflow_type_version: summary.workflow_type_version.clone(),
        tags: summary.tags.clone(),
        workflow_engine_parameters: std::collections::BTreeMap::new(),
        workflow_engine: Some(summary.workflow_engine.clone()),
        workflow_engine_version: None,
        workflow_url: summary.workflow_url.clone(),
    }
}

/// The last part of a workflow's URL, without query and fragment.
fn workflow_name(url: &str) -> Option<String> {
    let path = url.split(['?', '#']).next()?;
    let name = path.rsplit('/').find(|part| !part.is_empty())?;
    Some(percent_decode_str(name).decode_utf8_lossy().into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_workflow_is_named_after_its_file() {
        for (url, name) in [
            ("a.cwl#main", Some("a.cwl")),
            ("https://example.org/x/b%20c.cwl?raw=1", Some("b c.cwl")),
            ("s3://bucket/d/", Some("d")),
            ("", None),
        ] {
            assert_eq!(workflow_name(url).as_deref(), name, "{url}");
        }
    }
}
