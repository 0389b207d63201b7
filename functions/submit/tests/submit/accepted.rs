//! Requests that are taken, and what they leave where.

use axum::body::Body;
use serde_json::{Value, json};
use stepwes_core::{RunState, keys, resources::Resources};
use stepwes_submit::Limits;

use crate::{
    Form, JSON, MULTIPART, RUNS, post, routes, routes_with, submitted,
    support::{World, request, run_id, send},
};

#[tokio::test]
async fn a_form_becomes_a_queued_run_with_its_files_and_its_execution() {
    let world = World::new().await;
    let form = Form::default()
        .field("workflow_type", " cwl ")
        .field("workflow_type_version", "v1.0")
        .field("workflow_url", "d%20e/main.cwl#tool")
        .field("workflow_params", r#"{"b": {"class": "File", "location": "in.txt"}, "a": 1}"#)
        .field("workflow_engine_parameters", r#"{"--quiet": null, "--outdir": "x", "--n": 2}"#)
        .field("tags", r#"{"project": "x", "n": 7}"#)
        .field("unknown", "ignored")
        .attach("d e/main.cwl", "cwlVersion: v1.0")
        .attach("./d e//in.txt", "\r\n--y")
        .part("name=\"workflow_attachment\"; filename*=UTF-8''%C3%BC.txt", b"\xff\x00");
    let answer = post(&routes(&world), MULTIPART, form.end()).await;
    let id = submitted(&answer);
    assert_eq!(answer.json(), json!({"run_id": run_id(1).to_string()}));
    assert_eq!(answer.header("x-request-id"), "request-1");

    let prefix = format!("requests/{id}/");
    assert_eq!(
        world.keys(),
        [
            format!("{prefix}attachments/d e/in.txt"),
            format!("{prefix}attachments/d e/main.cwl"),
            format!("{prefix}attachments/ü.txt"),
            format!("{prefix}request.json"),
        ]
    );
    assert_eq!(world.object(&keys::attachment(id, "d e/in.txt")), "\r\n--y");
    assert_eq!(world.object(&keys::attachment(id, "ü.txt")), &b"\xff\x00"[..]);
    let stored: Value = serde_json::from_slice(&world.object(&keys::request(id))).expect("JSON");
    insta::assert_json_snapshot!("request.json", stored);

    let run = world.store.get(id).await.expect("a table").expect("the run");
    assert_eq!((run.state, run.owner.as_str(), run.attempt), (RunState::Queued, "ada", 0));
    insta::assert_debug_snapshot!("summary", run.summary);
    assert_eq!(world.starts(), [(id.to_string(), json!({"run_id": id.to_string()}))]);
}

#[tokio::test]
async fn a_run_belongs_to_its_callers_trace_or_to_one_of_its_own() {
    let world = World::new().await;
    let router = routes(&world);
    let given = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let mut traces = Vec::new();
    for header in [Some(given), Some("00-<script>"), None] {
        let mut request = request("ada", "POST", RUNS).header("content-type", MULTIPART);
        if let Some(value) = header {
            request = request.header("traceparent", value);
        }
        let body = Body::from(Form::good().end());
        let id = submitted(&send(&router, request.body(body).expect("a request")).await);
        let run = world.store.get(id).await.expect("a table").expect("the run");
        let events = world.store.events(id).await.expect("a table");
        assert_eq!(events[0].trace, run.trace, "who is told of the change is told its trace");
        traces.push(run.trace.expect("a trace").to_string());
    }
    assert_eq!(traces[0], given);
    assert!(traces[1] != traces[2] && traces[1..].iter().all(|trace| trace != given));
}

#[tokio::test]
async fn json_becomes_a_queued_run() {
    let world = World::new().await;
    let body = json!({
        "workflow_type": "CWL", "workflow_type_version": "v1.2",
        "workflow_url": "s3://bucket/main.cwl", "workflow_params": {"a": [1, 2]},
        "tags": null, "unknown": {"x": 1},
    });
    let id = submitted(
        &post(&routes(&world), "Application/JSON; charset=utf-8", body.to_string()).await,
    );
    assert_eq!(world.keys(), [keys::request(id)]);
    assert_eq!(world.starts().len(), 1);
}

#[tokio::test]
async fn what_clients_send_for_nothing_is_nothing() {
    let world = World::new().await;
    let form = Form::good()
        .field("workflow_params", "")
        .field("tags", "")
        .field("workflow_engine_parameters", " ")
        .field("workflow_engine", "");
    submitted(&post(&routes(&world), MULTIPART, form.end()).await);
}

#[tokio::test]
async fn a_run_keeps_what_it_asks_for_of_the_service_and_shows_it_as_it_was_sent() {
    let world = World::new().await;
    let asked =
        r#"{"stepwes.cpu": 2, "stepwes.memory": "5 GiB", "stepwes.time": "2h", "--debug": null}"#;
    let form = Form::good().field("workflow_engine_parameters", asked);
    let id = submitted(&post(&routes(&world), MULTIPART, form.end()).await);
    let run = world.store.get(id).await.expect("a table").expect("the run");
    let expected = Resources { cpu: Some(2048), memory: Some(5120), disk: None, time: Some(7200) };
    assert_eq!(run.resources, expected);
    let stored: Value = serde_json::from_slice(&world.object(&keys::request(id))).expect("JSON");
    let sent: Value = serde_json::from_str(asked).expect("JSON");
    assert_eq!(stored["request"]["workflow_engine_parameters"], sent);
}

/// Python's requests, as wes-client uses it, gives text fields a filename.
#[tokio::test]
async fn a_text_field_may_have_a_filename() {
    let world = World::new().await;
    let form = Form::fields("https://example.org/a.cwl")
        .part("name=\"workflow_params\"; filename=\"workflow_params\"", br#"{"a": 1}"#);
    submitted(&post(&routes(&world), MULTIPART, form.end()).await);
}

#[tokio::test]
async fn without_the_limits_of_lambda_large_attachments_are_taken() {
    let world = World::new().await;
    let limits = Limits { max_request_bytes: 100_000_000, ..Limits::default() };
    let form = Form::good().attach("reads.bam", &"x".repeat(50_000_000));
    let answer = post(&routes_with(&world, limits), MULTIPART, form.end()).await;
    let id = submitted(&answer);
    assert_eq!(world.object(&keys::attachment(id, "reads.bam")).len(), 50_000_000);
}

#[tokio::test]
async fn what_is_just_within_the_limits_is_taken() {
    let world = World::new().await;
    let form = Form::good()
        .attach("a", &"x".repeat(1900))
        .attach("b", &"x".repeat(1900))
        .attach("c", "")
        .field("tags", r#"{"a": "1", "b": "2", "c": "3"}"#);
    submitted(&post(&routes(&world), MULTIPART, form.end()).await);
    let tags = json!({"a": "x".repeat(99)});
    let body = json!({
        "workflow_type": "CWL", "workflow_type_version": "v1.2",
        "workflow_url": "s3://bucket/main.cwl", "tags": tags,
    });
    submitted(&post(&routes(&world), JSON, body.to_string()).await);
}
