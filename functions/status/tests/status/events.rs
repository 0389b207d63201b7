//! The sample events of API Gateway, as Lambda hands them over: one for every route.

use stepwes_core::keys::{self, LogStream};

use crate::{
    complete, put_request, routes,
    support::{Answer, World, run_id, send_event},
};

/// A complete run of `ada`, the first, with everything that the events ask for.
async fn world() -> World {
    let world = World::new().await;
    let run = world.claimed("ada").await;
    assert_eq!(run.run_id, run_id(1));
    put_request(&world, &run);
    world.put(
        &keys::tasks(run.run_id, 1),
        r#"{"tasks": [{"id": "scatter/step #1", "name": "step"}, {"id": "2", "name": "step"}, {"id": "3", "name": "step"}]}"#,
    );
    for stream in [LogStream::Stdout, LogStream::Stderr] {
        world.put(&keys::log(run.run_id, 1, stream), "x");
    }
    complete(&world, &run, serde_json::json!({"x": 1}), &["deep/50% of #1.txt"]).await;
    world
}

macro_rules! event {
    ($world:expr, $name:literal) => {
        send_event(
            &routes($world),
            include_str!(concat!("../../../../events/status/", $name, ".json")),
        )
        .await
    };
}

#[tokio::test]
async fn every_route_answers_its_event() {
    let world = world().await;
    for (answer, status) in [
        (event!(&world, "home"), 200),
        (event!(&world, "health"), 200),
        (event!(&world, "service-info"), 200),
        (event!(&world, "list-runs"), 200),
        (event!(&world, "get-run-log"), 200),
        (event!(&world, "get-run-status"), 200),
        (event!(&world, "list-tasks"), 200),
        (event!(&world, "get-task"), 200),
        (event!(&world, "get-log"), 307),
        (event!(&world, "get-log-toil"), 307),
        (event!(&world, "list-outputs"), 200),
        (event!(&world, "get-output"), 307),
        (event!(&world, "get-outputs-json"), 307),
        (event!(&world, "list-attachments"), 200),
        (event!(&world, "get-attachment"), 307),
        (event!(&world, "get-ro-crate"), 200),
        (event!(&world, "unknown-path"), 404),
    ] {
        assert_eq!(answer.status, status, "{answer:?}");
        assert_eq!(answer.header("x-request-id"), "JKJaXmPLvHcESHA=");
    }
}

#[tokio::test]
async fn the_tokens_subject_is_the_owner_and_urls_are_api_gateways() {
    let world = world().await;
    let list = event!(&world, "list-runs").json();
    assert_eq!(list["runs"][0]["run_id"], run_id(1).to_string());
    let log = event!(&world, "get-run-log").json();
    assert_eq!(
        log["task_logs_url"],
        format!(
            "https://abc123.execute-api.eu-central-1.amazonaws.com/ga4gh/wes/v1/runs/{}/tasks",
            run_id(1)
        )
    );
    let page = event!(&world, "list-tasks").json();
    assert_eq!(page["next_page_token"], "2");
}

#[tokio::test]
async fn names_that_api_gateway_has_decoded_are_found() {
    let world = world().await;
    assert_eq!(event!(&world, "get-task").json()["id"], "scatter/step #1");
    let answer: Answer = event!(&world, "get-output");
    assert!(answer.header("location").contains("50%25%20of%20%231.txt"), "{answer:?}");
}

#[tokio::test]
async fn an_event_without_an_identity_is_refused_unless_it_asks_for_no_caller() {
    let world = world().await;
    for (event, status) in [
        (include_str!("../../../../events/status/home.json"), 200),
        (include_str!("../../../../events/status/health.json"), 200),
        (include_str!("../../../../events/status/service-info.json"), 200),
        (include_str!("../../../../events/status/list-runs.json"), 401),
        (include_str!("../../../../events/status/get-run-log.json"), 401),
        (include_str!("../../../../events/status/unknown-path.json"), 404),
    ] {
        let mut event: serde_json::Value = serde_json::from_str(event).expect("JSON");
        let context = event["requestContext"].as_object_mut().expect("a context");
        context.remove("authorizer");
        let answer = send_event(&routes(&world), &event.to_string()).await;
        assert_eq!(answer.status, status, "{answer:?}");
        let challenge = if status == 401 { "Bearer" } else { "" };
        assert_eq!(answer.header("www-authenticate"), challenge);
    }
}
