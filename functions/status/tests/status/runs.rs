//! The list of runs, and one run's log and state.

use http::header;
use serde_json::{Value, json};
use stepwes_cloud::http::Caller;
use stepwes_core::{RunEvent, RunState, keys};
use stepwes_store::Change;

use crate::{
    BASE, complete, path, put_request, routes, routes_with, settings,
    support::{Answer, World, get, request, run_id, send},
};
use axum::body::Body;

async fn list(world: &World, query: &str) -> Value {
    let answer = get(&routes(world), "ada", &format!("{BASE}/runs?{query}")).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json()
}

fn ids(page: &Value) -> Vec<String> {
    let runs = page["runs"].as_array().expect("runs").iter();
    runs.map(|run| run["run_id"].as_str().expect("an id").to_owned()).collect()
}

#[tokio::test]
async fn pages_go_from_the_newest_to_the_oldest_and_end_with_an_empty_token() {
    let world = World::new().await;
    for _ in 0..7 {
        world.queued("ada").await;
        world.queued("bob").await;
    }
    let mine: Vec<_> = (0..7).rev().map(|n| run_id(2 * n + 1).to_string()).collect();
    let mut seen = Vec::new();
    let mut token = String::new();
    let mut pages = 0;
    loop {
        let page = list(&world, &format!("page_token={token}")).await;
        seen.extend(ids(&page));
        pages += 1;
        if pages == 1 {
            // A run that is submitted now shifts nothing.
            world.queued("ada").await;
        }
        token = page["next_page_token"].as_str().expect("a token").to_owned();
        if token.is_empty() {
            break;
        }
    }
    assert_eq!((seen, pages), (mine, 3));
    assert_eq!(ids(&list(&world, "page_size=10").await).len(), 8);
}

#[tokio::test]
async fn filters_choose_and_a_token_goes_on_under_its_own_alone() {
    let world = World::new().await;
    for _ in 0..4 {
        world.queued("ada").await;
        world.claimed("ada").await;
        world.claimed("bob").await;
    }
    let initializing = [11, 8, 5, 2].map(|n| run_id(n).to_string());
    let first = list(&world, "state=INITIALIZING&tags=project:x").await;
    assert_eq!(ids(&first), initializing[..3]);
    let token = first["next_page_token"].as_str().expect("a token");
    let rest = list(&world, &format!("state=INITIALIZING&tags=project:x&page_token={token}")).await;
    assert_eq!(ids(&rest), initializing[3..]);
    assert_eq!(rest["next_page_token"], "");
    for other in ["", "state=INITIALIZING", "state=QUEUED&tags=project:x"] {
        let query = format!("{BASE}/runs?{other}&page_token={token}");
        let answer = get(&routes(&world), "ada", &query).await;
        assert_eq!(answer.status, 400, "{other}");
        assert!(answer.json()["msg"].as_str().expect("words").contains("other filters"));
    }
    let unfiltered = list(&world, "").await;
    let plain = unfiltered["next_page_token"].as_str().expect("a token");
    let query = format!("{BASE}/runs?state=QUEUED&page_token={plain}");
    assert_eq!(get(&routes(&world), "ada", &query).await.status, 400);
    for (query, number) in [
        ("state=QUEUED", 4),
        ("state=QUEUED&state=INITIALIZING", 8),
        ("state=COMPLETE", 0),
        ("workflow_type=cwl", 8),
        ("workflow_type=WDL", 0),
        ("workflow_engine=cwltool", 8),
        ("tags=project:y", 0),
        ("created_after=2026-01-01T00:00:00Z", 8),
        ("created_before=2026-01-01T00:00:00Z", 0),
    ] {
        assert_eq!(
            ids(&list(&world, &format!("page_size=10&{query}")).await).len(),
            number,
            "{query}"
        );
    }
}

/// The runs of so many pages, where a page has no room for a second one; there are no more pages.
async fn pages_of_one_run(world: &World, filter: &str, pages: usize) -> Vec<String> {
    let mut settings = settings();
    settings.limits.max_page_bytes = 1;
    let router = routes_with(world, settings);
    let mut seen = Vec::new();
    let mut token = String::new();
    for _ in 0..pages {
        let query = format!("{BASE}/runs?{filter}page_token={token}");
        let page = get(&router, "ada", &query).await.json();
        seen.extend(ids(&page));
        token = page["next_page_token"].as_str().expect("a token").to_owned();
    }
    assert_eq!(token, "");
    seen
}

#[tokio::test]
async fn a_filtered_page_that_would_be_too_large_goes_on_under_its_filter() {
    let world = World::new().await;
    for _ in 0..2 {
        world.queued("ada").await;
    }
    let seen = pages_of_one_run(&world, "tags=project:x&", 2).await;
    assert_eq!(seen, [2, 1].map(|n| run_id(n).to_string()));
}

#[tokio::test]
async fn a_list_shows_summaries() {
    let world = World::new().await;
    world.queued("ada").await;
    let run = world.claimed("ada").await;
    complete(&world, &run, json!({}), &[]).await;
    insta::assert_json_snapshot!("list", list(&world, "").await);
    let nobodys = get(&routes(&world), "eve", &format!("{BASE}/runs")).await;
    assert_eq!(nobodys.json(), json!({"runs": [], "next_page_token": ""}));
}

#[tokio::test]
async fn a_page_that_would_be_too_large_ends_early_and_goes_on() {
    let world = World::new().await;
    for _ in 0..3 {
        world.queued("ada").await;
    }
    let seen = pages_of_one_run(&world, "", 3).await;
    assert_eq!(seen, [3, 2, 1].map(|n| run_id(n).to_string()));
}

#[tokio::test]
async fn bad_paging_is_refused_on_every_list() {
    let world = World::new().await;
    let run = world.queued("ada").await;
    let router = routes(&world);
    for list in [format!("{BASE}/runs"), path(&run, "/tasks"), path(&run, "/outputs")] {
        for query in [
            "page_size=0",
            "page_size=11",
            "page_size=x",
            "page_token=x",
            "page_size=1&page_size=2",
        ] {
            let answer = get(&router, "ada", &format!("{list}?{query}")).await;
            assert_eq!(answer.status, 400, "{list}?{query}");
        }
    }
}

#[tokio::test]
async fn a_run_log_shows_everything_of_a_run() {
    let world = World::new().await;
    let run = world.claimed("ada").await;
    put_request(&world, &run);
    let outputs = json!({"out": {"class": "File", "location": "s3://bucket/x", "size": 5}});
    complete(&world, &run, outputs, &["x"]).await;
    let answer = get(&routes(&world), "ada", &path(&run, "")).await;
    assert_eq!(answer.status, 200);
    insta::assert_json_snapshot!("run_log", answer.json());
    insta::assert_json_snapshot!(
        "run_status",
        get(&routes(&world), "ada", &path(&run, "/status")).await.json()
    );
}

#[tokio::test]
async fn a_run_log_of_a_queued_run_has_no_times_and_no_outputs() {
    let world = World::new().await;
    let run = world.queued("ada").await;
    put_request(&world, &run);
    let log = get(&routes(&world), "ada", &path(&run, "")).await.json();
    assert_eq!(log["outputs"], json!({}));
    assert_eq!(log["task_logs"], Value::Null);
    insta::assert_json_snapshot!("run_log_queued", log["run_log"]);
}

#[tokio::test]
async fn a_failed_run_says_why() {
    let world = World::new().await;
    let run = world.claimed("ada").await;
    put_request(&world, &run);
    let change = Change {
        system_log: Some("cwltool ended with exit code 1".to_owned()),
        exit_code: Some(1),
        ..Change::default()
    };
    world.step(run.run_id, RunEvent::ExecutorError { attempt: 1 }, change).await;
    let log = get(&routes(&world), "ada", &path(&run, "")).await.json();
    assert_eq!(log["state"], "EXECUTOR_ERROR");
    assert_eq!(log["run_log"]["exit_code"], 1);
    assert_eq!(log["run_log"]["system_logs"], json!(["cwltool ended with exit code 1"]));
}

#[tokio::test]
async fn outputs_that_are_too_large_are_pointed_to() {
    let world = World::new().await;
    for (outputs, files) in [
        (json!({"out": "x".repeat(300)}), 1),
        // Not even read: the list of files makes it larger still.
        (json!({"out": "x"}), 100),
    ] {
        let run = world.claimed("ada").await;
        put_request(&world, &run);
        let names: Vec<_> = (0..files).map(|n| n.to_string()).collect();
        let names: Vec<_> = names.iter().map(String::as_str).collect();
        complete(&world, &run, outputs, &names).await;
        let log = get(&routes(&world), "ada", &path(&run, "")).await.json();
        let pointer = &log["outputs"]["outputs.json"];
        let key = keys::outputs_json(run.run_id);
        assert_eq!(pointer["location"], format!("s3://bucket/{key}"));
        assert_eq!(
            pointer["url"],
            format!("http://wes.example.org{}", path(&run, "/outputs.json"))
        );
        assert!(pointer["size"].as_u64() > Some(200), "{pointer}");
        let answer = get(&routes(&world), "ada", &path(&run, "/outputs.json")).await;
        assert_eq!(answer.status, 307);
        assert!(answer.header("location").contains(&format!("/bucket/{key}?")));
    }
}

#[tokio::test]
async fn an_expired_request_is_shown_as_far_as_the_table_knows_it() {
    let world = World::new().await;
    let run = world.queued("ada").await;
    let log = get(&routes(&world), "ada", &path(&run, "")).await.json();
    assert_eq!(log["request"]["workflow_url"], "main.cwl");
    assert_eq!(log["request"]["workflow_params"], json!({}));
}

#[tokio::test]
async fn the_public_url_is_what_absolute_urls_begin_with() {
    let world = World::new().await;
    let run = world.queued("ada").await;
    let mut settings = settings();
    settings.public_url = Some("https://lab.example/wes/".to_owned());
    let log = get(&routes_with(&world, settings), "ada", &path(&run, "")).await.json();
    assert_eq!(
        log["run_log"]["stdout"],
        format!("https://lab.example/wes{}", path(&run, "/logs/stdout"))
    );
}

#[tokio::test]
async fn every_state_is_told_as_it_is() {
    let world = World::new().await;
    for state in RunState::ALL {
        let run = world.in_state("ada", state).await;
        let status = get(&routes(&world), "ada", &path(&run, "/status")).await.json();
        assert_eq!(status, json!({"run_id": run.run_id.to_string(), "state": state.as_str()}));
    }
}

#[tokio::test]
async fn head_has_the_headers_alone_and_answers_are_not_kept() {
    let world = World::new().await;
    let run = world.queued("ada").await;
    let head = request("ada", "HEAD", &path(&run, "/status")).body(Body::empty()).expect("good");
    let answer = send(&routes(&world), head).await;
    assert_eq!((answer.status, answer.body.len()), (200, 0));
    assert_eq!(answer.headers[header::CONTENT_TYPE], "application/json");
    assert_eq!(answer.headers[header::CACHE_CONTROL], "no-store");
}

#[tokio::test]
async fn a_bucket_that_fails_is_not_shown() {
    let world = World::new().await;
    let run = world.queued("ada").await;
    world.fail("GetObject", crate::support::Fault::Denied);
    let answer = get(&routes(&world), "ada", &path(&run, "")).await;
    assert_eq!(answer.status, 500);
    insta::assert_json_snapshot!("internal", answer.json());
}

/// Who sees everybody's runs.
fn admin() -> Caller {
    Caller { owner: "root".to_owned(), sees_all: true }
}

async fn list_as(world: &World, caller: Caller, query: &str) -> Answer {
    let path = format!("{BASE}/runs?{query}");
    let request = request("", "GET", &path).extension(caller).body(Body::empty());
    send(&routes(world), request.expect("a request")).await
}

#[tokio::test]
async fn an_administrator_lists_any_owners_runs_and_reads_them() {
    let world = World::new().await;
    let ada = world.queued("ada").await;
    let odd = world.queued("a&b #1|ä").await;
    let root = world.queued("root").await;
    for (query, expected) in [
        ("owner=ada", vec![&ada]),
        ("owner=a%26b+%231%7C%C3%A4", vec![&odd]),
        ("owner=nobody", vec![]),
        ("owner=", vec![&root]),
        ("", vec![&root]),
    ] {
        let page = list_as(&world, admin(), query).await.json();
        let expected: Vec<_> = expected.iter().map(|run| run.run_id.to_string()).collect();
        assert_eq!(ids(&page), expected, "{query}");
    }
    let request = request("", "GET", &path(&ada, "")).extension(admin()).body(Body::empty());
    assert_eq!(send(&routes(&world), request.expect("a request")).await.status, 200);
}

#[tokio::test]
async fn others_list_their_own_runs_and_learn_nothing_of_other_owners() {
    let world = World::new().await;
    let run = world.queued("ada").await;
    let mine = list_as(&world, Caller::named("ada"), "owner=ada").await.json();
    assert_eq!(ids(&mine), [run.run_id.to_string()]);
    let known = list_as(&world, Caller::named("eve"), "owner=ada").await;
    let unknown = list_as(&world, Caller::named("eve"), "owner=nobody").await;
    assert_eq!((known.status, unknown.status), (403, 403));
    assert_eq!(known.body, unknown.body);
}

#[tokio::test]
async fn an_owner_that_could_be_none_is_a_bad_request() {
    let world = World::new().await;
    let long = format!("owner={}", "x".repeat(1025));
    for query in ["owner=a&owner=a", "owner=a%00", long.as_str()] {
        assert_eq!(list_as(&world, admin(), query).await.status, 400, "{query}");
    }
}
