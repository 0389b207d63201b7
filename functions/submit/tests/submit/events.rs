//! The sample events of API Gateway, as Lambda hands them over.

use serde_json::Value;
use stepwes_core::keys;

use crate::{
    routes, submitted,
    support::{World, send_event},
};

#[tokio::test]
async fn a_form_in_base64_makes_a_run_of_the_tokens_subject() {
    let world = World::new().await;
    let event = include_str!("../../../../events/submit/run-workflow-multipart.json");
    let answer = send_event(&routes(&world), event).await;
    let id = submitted(&answer);
    assert_eq!(answer.header("x-request-id"), "JKJaXmPLvHcESHA=");
    let run = world.store.get(id).await.expect("a table").expect("the run");
    assert_eq!(run.owner, "ada");
    let workflow = world.object(&keys::attachment(id, "main.cwl"));
    assert!(workflow.starts_with(b"cwlVersion: v1.2\n"));
}

#[tokio::test]
async fn json_makes_a_run_once_for_its_key() {
    let world = World::new().await;
    let router = routes(&world);
    let event = include_str!("../../../../events/submit/run-workflow-json.json");
    let id = submitted(&send_event(&router, event).await);
    assert_eq!(submitted(&send_event(&router, event).await), id);
    let stored: Value = serde_json::from_slice(&world.object(&keys::request(id))).expect("JSON");
    assert_eq!(stored["request"]["workflow_params"]["message"], "hello");
}

#[tokio::test]
async fn another_content_type_is_refused() {
    let world = World::new().await;
    let event = include_str!("../../../../events/submit/run-workflow-unsupported.json");
    assert_eq!(send_event(&routes(&world), event).await.status, 415);
}

#[tokio::test]
async fn an_event_without_an_identity_is_refused_and_leaves_nothing() {
    let world = World::new().await;
    let event = include_str!("../../../../events/submit/run-workflow-json.json");
    let mut event: Value = serde_json::from_str(event).expect("JSON");
    event["requestContext"].as_object_mut().expect("a context").remove("authorizer");
    assert_eq!(send_event(&routes(&world), &event.to_string()).await.status, 401);
    assert_eq!((world.items().await, world.keys().len()), (0, 0));
}
