//! status through its routes, with the SDK's real clients.

mod attachments;
mod events;
mod logs;
mod outputs;
mod ro_crate;
mod runs;
mod service_info;
#[path = "../../../../crates/cloud/tests/support/mod.rs"]
mod support;
mod tasks;
mod unknown;

use std::sync::Arc;

use axum::Router;
use serde_json::Value;
use stepwes_cloud::http::Callers;
use stepwes_core::{
    Run, RunEvent,
    engines::{Engine, Engines},
    keys,
    request::{Attachment, RunRequest, StoredRequest},
};
use stepwes_status::{Limits, Settings, State, router};
use stepwes_store::Change;

use support::{BUCKET, TABLE, World};

const BASE: &str = "/ga4gh/wes/v1";

fn settings() -> Settings {
    let engines = Engines::new(vec![Engine::cwltool(vec!["3.1".to_owned()])]);
    Settings {
        callers: Callers::by_jwt(),
        limits: Limits {
            default_page_size: 3,
            max_page_size: 10,
            max_log_bytes: 10,
            max_page_bytes: 2000,
            max_outputs_bytes: 200,
        },
        ..Settings::new(TABLE.to_owned(), BUCKET.to_owned(), engines)
    }
}

fn routes(world: &World) -> Router {
    routes_with(world, settings())
}

fn routes_with(world: &World, settings: Settings) -> Router {
    router(State {
        store: world.store.clone(),
        objects: world.objects.clone(),
        settings: Arc::new(settings),
    })
}

/// The path of a run's resource.
fn path(run: &Run, rest: &str) -> String {
    format!("{BASE}/runs/{}{rest}", run.run_id)
}

/// Puts the request of a run.
fn put_request(world: &World, run: &Run) {
    let request = RunRequest::from_json(
        br#"{
            "workflow_type": "CWL", "workflow_type_version": "v1.2", "workflow_url": "main.cwl#x",
            "workflow_params": {"n": [1]}, "tags": {"project": "x"},
            "workflow_engine_parameters": {"--quiet": null, "--n": 2}
        }"#,
    )
    .expect("a request");
    let stored = StoredRequest {
        run_id: run.run_id,
        request,
        engine: "cwltool".to_owned(),
        default_parameters: serde_json::Map::new(),
        destination: None,
        attachments: ["main.cwl", "tools/50% of #1.cwl"]
            .map(|name| Attachment { name: name.to_owned(), size: 3 })
            .to_vec(),
        resumed_from: None,
    };
    world.put(&keys::request(run.run_id), serde_json::to_vec(&stored).expect("JSON"));
}

/// Ends a claimed run well, with these outputs and files.
async fn complete(world: &World, run: &Run, outputs: Value, files: &[&str]) -> Run {
    for path in files {
        world.put(&keys::output(run.run_id, 1, path), "12345");
    }
    let files: Vec<_> = files
        .iter()
        .map(|path| serde_json::json!({"path": path, "size": 5, "sha1": "ab".repeat(20)}))
        .collect();
    let collected = serde_json::json!({
        "run_id": run.run_id, "attempt": 1, "outputs": outputs, "files": files,
    });
    world.put(&keys::outputs_json(run.run_id), collected.to_string());
    let time = |text: &str| Some(text.parse().expect("a time"));
    let change = Change {
        cmd: Some(vec!["cwltool".to_owned(), "main.cwl".to_owned()]),
        start_time: time("2026-01-02T03:04:10.999Z"),
        ..Change::default()
    };
    world.step(run.run_id, RunEvent::Run { attempt: 1 }, change).await;
    let change = Change {
        exit_code: Some(0),
        end_time: time("2026-01-02T04:05:06Z"),
        has_outputs: true,
        ..Change::default()
    };
    world.step(run.run_id, RunEvent::Complete { attempt: 1 }, change).await
}
