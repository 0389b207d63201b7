//! What came with a request.

use serde_json::json;
use stepwes_core::keys;

use crate::{
    path, put_request, routes,
    support::{World, get},
};

#[tokio::test]
async fn attachments_are_listed_by_name_and_each_url_leads_to_its_file() {
    let world = World::new().await;
    let run = world.claimed("ada").await;
    put_request(&world, &run);
    let router = routes(&world);
    let list = get(&router, "ada", &path(&run, "/attachments?page_size=1")).await.json();
    let first = &list["attachments"][0];
    assert_eq!((&first["name"], &first["size"]), (&json!("main.cwl"), &json!(3)));
    let rest =
        format!("/attachments?page_token={}", list["next_page_token"].as_str().expect("one"));
    let list = get(&router, "ada", &path(&run, &rest)).await.json();
    assert_eq!(list["next_page_token"], "");
    let url = list["attachments"][0]["url"].as_str().expect("a URL");
    let on_us = url.strip_prefix("http://wes.example.org").expect("our URL");
    let answer = get(&router, "ada", on_us).await;
    let location = answer.header("location");
    let key = format!("/bucket/requests/{}/attachments/tools/50%25%20of%20%231.cwl?", run.run_id);
    assert_eq!(answer.status, 307);
    assert!(location.contains(&key), "{location}");
}

#[tokio::test]
async fn what_is_no_attachment_or_somebody_else_s_is_not_found() {
    let world = World::new().await;
    let run = world.claimed("ada").await;
    put_request(&world, &run);
    world.put(&keys::attachment(run.run_id, "beside"), "x");
    let router = routes(&world);
    for other in ["beside", "tools", "../request.json", "tools/../main.cwl"] {
        let answer = get(&router, "ada", &path(&run, &format!("/attachments/{other}"))).await;
        assert_eq!(answer.status, 404, "{other}");
    }
    for rest in ["/attachments", "/attachments/main.cwl", "/ro-crate"] {
        assert_eq!(get(&router, "eve", &path(&run, rest)).await.status, 404, "{rest}");
    }
}

#[tokio::test]
async fn a_request_that_has_expired_leaves_none() {
    let world = World::new().await;
    let run = world.claimed("ada").await;
    let list = get(&routes(&world), "ada", &path(&run, "/attachments")).await.json();
    assert_eq!(list, json!({"attachments": [], "next_page_token": ""}));
}
