//! Output files.

use serde_json::json;
use stepwes_core::{RunState, keys};

use crate::{
    complete, path, routes,
    support::{World, get},
};

const NAMES: [&str; 5] = ["b.txt", "a b/c#1.txt", "ü", "50%", "x/y/z?.bam"];

#[tokio::test]
async fn files_are_listed_by_path_and_each_url_leads_to_its_file() {
    let world = World::new().await;
    let run = world.claimed("ada").await;
    complete(&world, &run, json!({}), &NAMES).await;
    let router = routes(&world);
    let first = get(&router, "ada", &path(&run, "/outputs")).await.json();
    insta::assert_json_snapshot!("outputs", first);
    let last = get(&router, "ada", &path(&run, "/outputs?page_token=3")).await.json();
    assert_eq!(last["next_page_token"], "");

    let entries =
        [&first, &last].into_iter().flat_map(|page| page["outputs"].as_array().expect("a list"));
    let mut seen = 0;
    for entry in entries {
        let url = entry["url"].as_str().expect("a URL");
        let on_us = url.strip_prefix("http://wes.example.org").expect("our URL");
        let answer = get(&router, "ada", on_us).await;
        assert_eq!(answer.status, 307, "{url}");
        let location = answer.header("location");
        assert!(location.contains(&format!("/bucket/outputs/{}/1/", run.run_id)), "{location}");
        assert!(location.contains("X-Amz-Signature=") && location.contains("X-Amz-Expires=900"));
        assert!(location.contains("response-content-disposition=attachment"), "{location}");
        seen += 1;
    }
    assert_eq!(seen, NAMES.len());
}

#[tokio::test]
async fn what_is_no_output_is_not_found() {
    let world = World::new().await;
    let run = world.claimed("ada").await;
    complete(&world, &run, json!({}), &["a/b.txt"]).await;
    let too_long_for_a_key = "a/".repeat(500) + "b";
    for other in [
        "a",
        "b.txt",
        "a/b.txt/",
        "a//b.txt",
        "a/../a/b.txt",
        "../../../requests",
        "%FF",
        &too_long_for_a_key,
    ] {
        let answer = get(&routes(&world), "ada", &path(&run, &format!("/outputs/{other}"))).await;
        assert_eq!(answer.status, 404, "{other}");
    }
}

#[tokio::test]
async fn a_run_has_no_outputs_before_it_is_complete() {
    let world = World::new().await;
    let run = world.in_state("ada", RunState::Running).await;
    let router = routes(&world);
    let list = get(&router, "ada", &path(&run, "/outputs")).await.json();
    assert_eq!(list, json!({"outputs": [], "next_page_token": ""}));
    for rest in ["/outputs/a", "/outputs.json"] {
        assert_eq!(get(&router, "ada", &path(&run, rest)).await.status, 404, "{rest}");
    }
}

#[tokio::test]
async fn the_list_of_outputs_is_not_read_for_one_of_them() {
    let world = World::new().await;
    let run = world.claimed("ada").await;
    complete(&world, &run, json!({}), &["a/b.txt"]).await;
    world.put(&keys::outputs_json(run.run_id), "not JSON");
    let answer = get(&routes(&world), "ada", &path(&run, "/outputs/a/b.txt")).await;
    assert_eq!(answer.status, 307);
}
