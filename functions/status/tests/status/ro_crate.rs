//! A run's provenance.

use serde_json::{Value, json};
use stepwes_core::{RunState, keys};
use stepwes_status::Limits;

use crate::{
    complete, path, put_request, routes, routes_with, settings,
    support::{Answer, World, get},
};

fn entity<'a>(metadata: &'a Value, id: &str) -> &'a Value {
    let entities = metadata["@graph"].as_array().expect("a graph");
    entities.iter().find(|entity| entity["@id"] == id).unwrap_or_else(|| panic!("no {id}"))
}

fn metadata(answer: &Answer) -> Value {
    assert_eq!(answer.header("content-type"), "application/ld+json");
    serde_json::from_slice(&answer.body).expect("JSON")
}

fn roomy() -> stepwes_status::Settings {
    let limits = Limits { max_page_bytes: 100_000, ..settings().limits };
    stepwes_status::Settings { limits, ..settings() }
}

#[tokio::test]
async fn a_finished_run_has_one_with_its_files_by_url() {
    let world = World::new().await;
    let run = world.claimed("ada").await;
    put_request(&world, &run);
    let tasks = r#"{"tasks": [{"id": "1", "name": "step", "exit_code": 0}]}"#;
    world.put(&keys::tasks(run.run_id, 1), tasks);
    let location = format!("s3://bucket/outputs/{}/1/a b.txt", run.run_id);
    let outputs = json!({"said": {"class": "File", "location": location}});
    complete(&world, &run, outputs, &["a b.txt"]).await;
    let answer = get(&routes_with(&world, roomy()), "ada", &path(&run, "/ro-crate")).await;
    let metadata = metadata(&answer);
    let base = format!("http://wes.example.org{}", path(&run, ""));
    let root = entity(&metadata, "./");
    assert_eq!(root["mainEntity"]["@id"], format!("{base}/attachments/main.cwl"));
    let file = format!("{base}/outputs/a%20b.txt");
    assert_eq!(entity(&metadata, "#output/said")["workExample"], json!([{"@id": file}]));
    assert_eq!(entity(&metadata, &file)["contentUrl"], location);
    assert_eq!(entity(&metadata, "#engine")["name"], "cwltool");
    assert_eq!(entity(&metadata, "#task/1")["name"], "step");
}

#[tokio::test]
async fn a_run_whose_files_are_gone_has_one_all_the_same() {
    let world = World::new().await;
    let run = world.in_state("ada", RunState::ExecutorError).await;
    let answer = get(&routes_with(&world, roomy()), "ada", &path(&run, "/ro-crate")).await;
    assert_eq!(answer.status, 200);
    let action = entity(&metadata(&answer), "#run").clone();
    assert_eq!(action["actionStatus"]["@id"], "http://schema.org/FailedActionStatus");
}

#[tokio::test]
async fn a_run_that_goes_on_has_none() {
    let world = World::new().await;
    let run = world.in_state("ada", RunState::Running).await;
    let answer = get(&routes(&world), "ada", &path(&run, "/ro-crate")).await;
    assert_eq!(answer.status, 404);
    assert!(answer.json()["msg"].as_str().expect("a message").contains("is RUNNING"));
}

#[tokio::test]
async fn one_that_would_not_fit_into_an_answer_names_the_list_of_files() {
    let world = World::new().await;
    let run = world.claimed("ada").await;
    put_request(&world, &run);
    complete(&world, &run, json!({}), &["a", "b", "c"]).await;
    let metadata = metadata(&get(&routes(&world), "ada", &path(&run, "/ro-crate")).await);
    let list = format!("http://wes.example.org{}", path(&run, "/outputs"));
    assert!(entity(&metadata, &list)["description"].as_str().expect("text").starts_with("3 files"));
}
