//! What does not exist, and what is somebody else's: the two look the same.

use axum::body::Body;
use stepwes_core::keys;

use crate::{
    BASE, complete, path, put_request, routes,
    support::{World, get, request, run_id, send},
};

const RESTS: [&str; 10] = [
    "",
    "/status",
    "/tasks",
    "/tasks/1",
    "/logs/stdout",
    "/logs/stderr",
    "/logs/nothing",
    "/outputs",
    "/outputs/x",
    "/outputs.json",
];

#[tokio::test]
async fn a_foreign_run_looks_like_an_unknown_one_on_every_route() {
    let world = World::new().await;
    let router = routes(&world);
    let run = world.claimed("ada").await;
    put_request(&world, &run);
    world.put(&keys::tasks(run.run_id, 1), r#"{"tasks": [{"id": "1", "name": "x"}]}"#);
    world.put(&format!("work/{}/1/logs/stdout", run.run_id), "x");
    complete(&world, &run, serde_json::json!({}), &["x"]).await;
    let unknown = run_id(99).to_string();
    let known = run.run_id.to_string();
    let routes = RESTS.map(|rest| path(&run, rest));
    let toil = [format!("/toil/wes/v1/logs/{known}/stdout")];
    for path in routes.iter().chain(&toil) {
        let foreign = get(&router, "eve", path).await;
        let missing = get(&router, "ada", &path.replace(&known, &unknown)).await;
        assert_eq!((foreign.status, missing.status), (404, 404), "{path}");
        let told = foreign.json().to_string().replace(&known, &unknown);
        assert_eq!(told, missing.json().to_string(), "{path}");
        let names = |answer: &crate::support::Answer| {
            answer.headers.keys().map(ToString::to_string).collect::<Vec<_>>()
        };
        assert_eq!(names(&foreign), names(&missing), "{path}");
    }
}

#[tokio::test]
async fn a_malformed_run_id_is_an_unknown_one() {
    let world = World::new().await;
    let known = world.queued("ada").await.run_id.to_string();
    let router = routes(&world);
    for id in ["x", "%00", "%FF", &known.to_uppercase(), &known.replace('-', ""), &"x".repeat(5000)]
    {
        for rest in RESTS {
            let answer = get(&router, "ada", &format!("{BASE}/runs/{id}{rest}")).await;
            assert_eq!(answer.status, 404, "{id}{rest}");
        }
    }
    insta::assert_json_snapshot!(
        "not_found",
        get(&router, "ada", &format!("{BASE}/runs/x")).await.json()
    );
}

#[tokio::test]
async fn a_path_that_is_not_ours_is_not_found_whatever_the_method() {
    let world = World::new().await;
    for path in ["/nothing", "/ga4gh/wes/v1", "/ga4gh/wes/v1/runs/", "/ga4gh/wes/v2/runs", "//"] {
        for method in ["GET", "POST", "DELETE", "OPTIONS"] {
            let request = request("ada", method, path).body(Body::empty()).expect("a request");
            assert_eq!(send(&routes(&world), request).await.status, 404, "{method} {path}");
        }
    }
    insta::assert_json_snapshot!(
        "no_such_path",
        get(&routes(&world), "ada", "/nothing").await.json()
    );
}

#[tokio::test]
async fn another_functions_method_is_named_in_allow() {
    let world = World::new().await;
    let run = world.queued("ada").await;
    for (method, path, allow) in [
        ("PUT", format!("{BASE}/runs"), "GET, HEAD, POST"),
        ("GET", path(&run, "/cancel"), "POST"),
        ("POST", path(&run, "/status"), "GET, HEAD"),
    ] {
        let request = request("ada", method, &path).body(Body::empty()).expect("a request");
        let answer = send(&routes(&world), request).await;
        assert_eq!((answer.status, answer.header("allow")), (405, allow), "{method} {path}");
    }
}
