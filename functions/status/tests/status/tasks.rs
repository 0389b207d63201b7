//! The tasks of a run.

use serde_json::{Value, json};
use stepwes_core::{Run, keys};

use crate::{
    path, routes, routes_with, settings,
    support::{World, get},
};

/// A claimed run with these tasks.
async fn run_with(world: &World, ids: &[&str]) -> Run {
    let run = world.claimed("ada").await;
    let tasks: Vec<_> =
        ids.iter().map(|id| json!({"id": id, "name": format!("step {id}")})).collect();
    world.put(&keys::tasks(run.run_id, 1), json!({"tasks": tasks}).to_string());
    run
}

fn ids(page: &Value) -> Vec<&str> {
    let tasks = page["task_logs"].as_array().expect("tasks").iter();
    tasks.map(|task| task["id"].as_str().expect("an id")).collect()
}

#[tokio::test]
async fn tasks_are_paged_in_their_order() {
    let world = World::new().await;
    let run = run_with(&world, &["d", "b", "c", "a"]).await;
    let router = routes(&world);
    let first = get(&router, "ada", &path(&run, "/tasks")).await.json();
    assert_eq!((ids(&first), &first["next_page_token"]), (vec!["d", "b", "c"], &json!("3")));
    let last = get(&router, "ada", &path(&run, "/tasks?page_token=3")).await.json();
    assert_eq!((ids(&last), &last["next_page_token"]), (vec!["a"], &json!("")));
    let beyond = get(&router, "ada", &path(&run, "/tasks?page_token=9")).await.json();
    assert_eq!(beyond, json!({"task_logs": [], "next_page_token": ""}));
}

#[tokio::test]
async fn a_page_of_large_tasks_ends_early() {
    let world = World::new().await;
    let run = run_with(&world, &["a", "b"]).await;
    let mut settings = settings();
    settings.limits.max_page_bytes = 1;
    let page = get(&routes_with(&world, settings), "ada", &path(&run, "/tasks")).await.json();
    assert_eq!((ids(&page), &page["next_page_token"]), (vec!["a"], &json!("1")));
}

#[tokio::test]
async fn a_run_has_no_tasks_before_its_engine_tells_of_them() {
    let world = World::new().await;
    for run in [world.queued("ada").await, world.claimed("ada").await] {
        let page = get(&routes(&world), "ada", &path(&run, "/tasks")).await.json();
        assert_eq!(page, json!({"task_logs": [], "next_page_token": ""}));
    }
}

#[tokio::test]
async fn a_task_may_have_any_id() {
    let world = World::new().await;
    let names = ["a", "a/b", "a b", "50%", "ü#1?x", "..", "a//b"];
    let run = run_with(&world, &names).await;
    let router = routes(&world);
    for (id, escaped) in
        names.into_iter().zip(["a", "a%2Fb", "a%20b", "50%25", "%C3%BC%231%3Fx", "..", "a//b"])
    {
        let answer = get(&router, "ada", &path(&run, &format!("/tasks/{escaped}"))).await;
        assert_eq!(answer.status, 200, "{id}");
        assert_eq!(answer.json()["id"], id);
    }
    for unknown in ["c", "%FF", "a%2Fc"] {
        let answer = get(&router, "ada", &path(&run, &format!("/tasks/{unknown}"))).await;
        assert_eq!(answer.status, 404, "{unknown}");
    }
}

#[tokio::test]
async fn a_task_shows_what_the_engine_told() {
    let world = World::new().await;
    let run = world.claimed("ada").await;
    let task = json!({
        "id": "1", "name": "sort", "cmd": ["sort", "-k", "1"], "exit_code": 1,
        "start_time": "2026-01-02T03:04:05.678Z", "end_time": "2026-01-02T03:05:05Z",
        "system_logs": ["out of memory"],
    });
    world.put(&keys::tasks(run.run_id, 1), json!({"tasks": [task]}).to_string());
    let answer = get(&routes(&world), "ada", &path(&run, "/tasks/1")).await;
    insta::assert_json_snapshot!("task", answer.json());
}
