//! submit through its routes, with the SDK's real clients.

mod accepted;
mod events;
mod failures;
mod garbage;
mod idempotency;
mod landed;
mod rejected;
mod resuming;
#[path = "../../../../crates/cloud/tests/support/mod.rs"]
mod support;
mod waiting;

use std::sync::Arc;

use axum::{Router, body::Body};
use chrono::TimeDelta;
use stepwes_cloud::http::Callers;
use stepwes_core::{
    RunId,
    destination::Destinations,
    engines::{Engine, Engines},
    resources::ResourceBounds,
};
use stepwes_submit::{Limits, Settings, State, router};

use support::{Answer, BUCKET, MACHINE, TABLE, World, request, send};

const RUNS: &str = "/ga4gh/wes/v1/runs";

fn settings() -> Settings {
    Settings {
        table: TABLE.to_owned(),
        bucket: BUCKET.to_owned(),
        state_machine_arn: MACHINE.to_owned(),
        engines: Engines::new(vec![Engine::cwltool(vec!["3.1".to_owned()])]),
        schemes: Settings::SCHEMES.map(str::to_owned).to_vec(),
        resources: ResourceBounds::default(),
        destinations: Destinations { buckets: vec!["lab-results".to_owned()], default: None },
        limits: Limits::default(),
        idempotency: TimeDelta::days(7),
        max_runs: None,
        callers: Callers::by_jwt(),
        trigger_buckets: vec!["lab-data".to_owned(), BUCKET.to_owned()],
    }
}

/// The routes over a world, under tight limits.
fn routes(world: &World) -> Router {
    let limits = Limits {
        max_request_bytes: 4000,
        max_field_bytes: 2000,
        max_attachments: 4,
        max_tags: 3,
        max_tag_bytes: 100,
        max_url_bytes: 200,
    };
    routes_with(world, limits)
}

fn routes_with(world: &World, limits: Limits) -> Router {
    router(state(world, Settings { limits, ..settings() }))
}

fn state(world: &World, settings: Settings) -> State {
    State {
        store: world.store.clone(),
        objects: world.objects.clone(),
        executions: world.executions.clone(),
        settings: Arc::new(settings),
        clock: world.clock.clone(),
        ids: world.ids.clone(),
        triggers: Arc::default(),
    }
}

/// A multipart body under the boundary `x`.
#[derive(Clone, Default)]
struct Form(Vec<u8>);

impl Form {
    /// The three fields that a run needs, and the attachment that they name.
    fn good() -> Self {
        Self::fields("main.cwl").attach("main.cwl", "cwlVersion: v1.2")
    }

    /// The three fields that a run needs.
    fn fields(url: &str) -> Self {
        Self::default()
            .field("workflow_type", "CWL")
            .field("workflow_type_version", "v1.2")
            .field("workflow_url", url)
    }

    fn field(self, name: &str, value: &str) -> Self {
        self.part(&format!("name=\"{name}\""), value.as_bytes())
    }

    fn attach(self, filename: &str, content: &str) -> Self {
        let disposition = format!("name=\"workflow_attachment\"; filename=\"{filename}\"");
        self.part(&disposition, content.as_bytes())
    }

    fn part(mut self, disposition: &str, content: &[u8]) -> Self {
        let head = format!("--x\r\nContent-Disposition: form-data; {disposition}\r\n\r\n");
        self.0.extend_from_slice(head.as_bytes());
        self.0.extend_from_slice(content);
        self.0.extend_from_slice(b"\r\n");
        self
    }

    fn end(mut self) -> Vec<u8> {
        self.0.extend_from_slice(b"--x--\r\n");
        self.0
    }
}

const MULTIPART: &str = "multipart/form-data; boundary=x";
const JSON: &str = "application/json";

/// POSTs a body by `ada`.
async fn post(router: &Router, content_type: &str, body: impl Into<Body>) -> Answer {
    let request = request("ada", "POST", RUNS).header("content-type", content_type);
    send(router, request.body(body.into()).expect("a request")).await
}

/// POSTs a form under an idempotency key.
async fn post_keyed(router: &Router, owner: &str, key: &str, form: Form) -> Answer {
    let request = request(owner, "POST", RUNS)
        .header("content-type", MULTIPART)
        .header("idempotency-key", key);
    send(router, request.body(Body::from(form.end())).expect("a request")).await
}

/// The run id of a good answer.
fn submitted(answer: &Answer) -> RunId {
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json()["run_id"].as_str().and_then(|id| id.parse().ok()).expect("a run id")
}

/// That a request has left nothing anywhere.
async fn assert_untouched(world: &World, what: &str) {
    assert_eq!(world.keys(), Vec::<String>::new(), "{what}");
    assert_eq!(world.items().await, 0, "{what}");
    assert!(world.starts().is_empty(), "{what}");
}
