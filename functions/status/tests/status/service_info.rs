//! What the service says of itself.

use serde_json::Value;
use stepwes_core::{RunState, wes::DefaultWorkflowEngineParameter};
use stepwes_status::{ServiceSettings, Settings};

use crate::{
    BASE, routes, routes_with, settings,
    support::{Answer, World, get},
};

/// The answer with its version, which every release changes, taken out.
fn without_version(answer: &Answer) -> Value {
    let mut info = answer.json();
    assert_eq!(info["version"].take(), env!("CARGO_PKG_VERSION"));
    info
}

#[tokio::test]
async fn service_info_has_every_field_and_exact_counts_of_everybodys_runs() {
    let world = World::new().await;
    for (owner, state) in [
        ("ada", RunState::Queued),
        ("bob", RunState::Queued),
        ("ada", RunState::Running),
        ("ada", RunState::Canceled),
    ] {
        world.in_state(owner, state).await;
    }
    let answer = get(&routes(&world), "ada", &format!("{BASE}/service-info")).await;
    assert_eq!(answer.status, 200);
    insta::assert_json_snapshot!("service_info", without_version(&answer));
    let home = get(&routes(&world), "ada", "/").await;
    assert_eq!(home.json(), answer.json());
}

#[tokio::test]
async fn the_operator_may_say_more() {
    let world = World::new().await;
    let service: ServiceSettings = serde_json::from_str(
        r#"{
            "id": "org.example.wes", "name": "Lab", "description": "Ours",
            "organization": {"name": "Lab", "url": "https://lab.example"},
            "contactUrl": "mailto:wes@lab.example", "documentationUrl": "https://lab.example/wes",
            "environment": "test", "auth_instructions_url": "https://lab.example/login",
            "tags": {"region": "eu-central-1"}
        }"#,
    )
    .expect("settings");
    let mut engine = stepwes_core::engines::Engine::cwltool(vec![]);
    engine.default_parameters.push(DefaultWorkflowEngineParameter {
        name: "--no-container".to_owned(),
        parameter_type: "flag".to_owned(),
        default_value: String::new(),
    });
    let settings = Settings {
        service,
        engines: stepwes_core::engines::Engines::new(vec![engine]),
        schemes: vec!["s3".to_owned(), "file".to_owned()],
        ..settings()
    };
    let answer = get(&routes_with(&world, settings), "ada", &format!("{BASE}/service-info")).await;
    insta::assert_json_snapshot!("service_info_of_an_operator", without_version(&answer));
}

#[test]
fn a_setting_that_is_not_known_is_refused() {
    let error = serde_json::from_str::<ServiceSettings>(r#"{"contact_url": "x"}"#);
    assert!(error.expect_err("unknown").to_string().contains("contact_url"));
}

#[tokio::test]
async fn health_is_plain_text() {
    let world = World::new().await;
    let answer = get(&routes(&world), "ada", "/engine/v1/status").await;
    assert_eq!((answer.status, &answer.body[..]), (200, &b"OK"[..]));
}

#[tokio::test]
async fn a_table_that_does_not_answer_is_unavailable_and_not_shown() {
    let world = World::new().await;
    world.fail("Query", crate::support::Fault::Busy);
    let answer = get(&routes(&world), "ada", &format!("{BASE}/service-info")).await;
    assert_eq!((answer.status, answer.header("retry-after")), (503, "1"));
    insta::assert_json_snapshot!("unavailable", answer.json());
}
