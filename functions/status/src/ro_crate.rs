//! A run's provenance. An extension to WES.

use axum::{
    extract::State as FromState,
    response::{IntoResponse as _, Response},
};
use http::{HeaderValue, header};
use stepwes_cloud::http::{BaseUrl, Caller, HttpError, Params};
use stepwes_core::{
    ApiError, keys,
    request::StoredRequest,
    ro_crate::{self, Detail, Files, MEDIA_TYPE, Provenance},
};

use crate::{State, attachments, outputs, runs, tasks};

/// `GET /runs/{id}/ro-crate`: the metadata of an RO-Crate, for a run that has ended. One that would be
/// larger than an answer names the list of output files instead of each of them.
pub(crate) async fn get_ro_crate(
    FromState(state): FromState<State>,
    caller: Caller,
    base: BaseUrl,
    Params(run_id): Params<String>,
) -> Result<Response, HttpError> {
    let run = caller.run(&state.store, &run_id).await?;
    if !run.state.is_terminal() {
        return Err(ApiError::NotFound(format!(
            "run {} is {}; its provenance is known when it has ended",
            run.run_id, run.state
        ))
        .into());
    }
    let request_key = keys::request(run.run_id);
    let (stored, collected, tasks) = futures::future::try_join3(
        state.objects.get_json::<StoredRequest>(&request_key),
        outputs::collected(&state, &run),
        tasks::task_logs(&state, &run),
    )
    .await?;
    let (object, files) = match collected {
        Some(collected) => {
            let files = outputs::entries(&state, &base, &run, collected.files);
            (collected.outputs, files)
        }
        None => (serde_json::Value::Object(serde_json::Map::new()), Vec::new()),
    };
    let (attachments, request) = match stored {
        Some(StoredRequest { request, attachments, engine, .. }) => {
            let mut view = request.view();
            // Which engine it was, also where nobody asked for one.
            view.workflow_engine = Some(engine);
            (attachments::entries(&base, run.run_id, attachments), view)
        }
        None => (Vec::new(), runs::summary_view(&run)),
    };
    let log = runs::run_log(&run, request, object, &base);
    let provenance =
        Provenance { log: &log, tasks: &tasks, outputs: &files, attachments: &attachments };
    let mut text = String::new();
    for detail in [Detail::Full, Detail::Short] {
        text = ro_crate::metadata(provenance, Files::Remote, detail).to_string();
        if text.len() <= state.settings.limits.max_page_bytes {
            break;
        }
    }
    let mut response = text.into_response();
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(MEDIA_TYPE));
    Ok(response)
}
