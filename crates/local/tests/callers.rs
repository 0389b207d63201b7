//! Callers with tokens: who is let in, and that owners do not see one another.

mod common;

use std::time::Duration;

use aws_sdk_s3::presigning::PresigningConfig;
use chrono::TimeDelta;
use reqwest::{Method, Response, StatusCode, header, redirect::Policy};
use serde_json::Value;
use stepwes_cloud::http::routes;
use stepwes_core::keys::{self, LogStream};
use stepwes_local::{Auth, FolderTokens, ServeError, ServeOptions, arn, start};

use common::{Rig, form, options, serve_with, token};

const RUNS: &str = routes::RUNS;
/// An id that no run has.
const UNKNOWN: &str = "01890a5d-ac96-774b-bcce-b302099a8057";

/// A server that asks for tokens.
async fn serve(script: &str) -> Rig {
    serve_with(script, |options| {
        options.auth = Some(Auth::Token);
        options.admin_group = Some("admins".to_owned());
    })
    .await
}

async fn ask(rig: &Rig, method: &str, path: &str, token: Option<&str>) -> Response {
    let method = Method::from_bytes(method.as_bytes()).expect("a method");
    let client = common::http_builder().redirect(Policy::none()).build().expect("a client");
    let mut request = client.request(method, format!("{}{path}", rig.server.url()));
    if let Some(token) = token {
        request = request.bearer_auth(token);
    }
    request.send().await.expect("answered")
}

async fn status(rig: &Rig, path: &str, token: Option<&str>) -> StatusCode {
    ask(rig, "GET", path, token).await.status()
}

/// Submits as the token's owner; gives the run's id.
async fn submit(rig: &Rig, token: &str, key: &str) -> String {
    let answer = common::http()
        .post(format!("{}{RUNS}", rig.server.url()))
        .bearer_auth(token)
        .header("Idempotency-Key", key)
        .multipart(form())
        .send()
        .await
        .expect("answered");
    assert_eq!(answer.status(), StatusCode::OK);
    let answer: Value = answer.json().await.expect("JSON");
    answer["run_id"].as_str().expect("an id").to_owned()
}

/// The ids in a list.
async fn listed(rig: &Rig, query: &str, token: &str) -> Vec<String> {
    let answer = ask(rig, "GET", &format!("{RUNS}{query}"), Some(token)).await;
    let page: Value = answer.json().await.expect("JSON");
    let runs = page["runs"].as_array().expect("runs").iter();
    runs.map(|run| run["run_id"].as_str().expect("an id").to_owned()).collect()
}

#[tokio::test]
async fn a_token_lets_in_as_bearer_and_as_basic() {
    let rig = serve("exit 0").await;
    let ada = token(rig.server.dir(), "ada-1", "ada", &[], None).await;
    let secret = ada.strip_prefix("ada-1.").expect("the name comes first");
    let runs = format!("{}{RUNS}", rig.server.url());
    let get = || common::http().get(&runs);
    for request in [
        get().bearer_auth(&ada),
        get().basic_auth("ada-1", Some(&ada)),
        get().basic_auth("ada-1", Some(secret)),
    ] {
        assert_eq!(request.send().await.expect("answered").status(), StatusCode::OK);
    }
    for request in [
        get(),
        get().bearer_auth(secret),
        get().bearer_auth(ada.replace("ada-1", "eve")),
        get().bearer_auth(format!("{}x", &ada[..ada.len() - 1])),
        get().basic_auth("ada", Some(secret)),
        get().basic_auth("ada-1", None::<&str>),
        get().bearer_auth(&ada).header(header::AUTHORIZATION, "Bearer x"),
        get().header("x-owner", "ada"),
    ] {
        let answer = request.send().await.expect("answered");
        assert_eq!(answer.status(), StatusCode::UNAUTHORIZED);
        let challenge = &answer.headers()[header::WWW_AUTHENTICATE];
        assert_eq!(challenge, "Bearer, Basic realm=\"stepwes\"");
        assert!(answer.headers().contains_key("x-request-id"));
        let told: Value = answer.json().await.expect("JSON");
        assert_eq!(told["status_code"], 401);
        let msg = told["msg"].as_str().expect("a message");
        assert!(msg.contains("stepwes token create") && !msg.contains(secret), "{msg}");
    }
}

#[tokio::test]
async fn a_revoked_token_and_one_that_has_expired_let_nobody_in() {
    let rig = serve("exit 0").await;
    let ada = token(rig.server.dir(), "ada", "ada", &[], None).await;
    let late = token(rig.server.dir(), "late", "ada", &[], Some(TimeDelta::zero())).await;
    assert_eq!(status(&rig, RUNS, Some(&ada)).await, StatusCode::OK);
    assert_eq!(status(&rig, RUNS, Some(&late)).await, StatusCode::UNAUTHORIZED);
    let tokens = FolderTokens::open_existing(rig.server.dir()).await.expect("opened");
    assert!(tokens.store.revoke_token(&"ada".parse().expect("a name")).await.expect("revoked"));
    assert_eq!(status(&rig, RUNS, Some(&ada)).await, StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn tokens_are_kept_whether_a_server_runs_or_not() {
    let folder = tempfile::tempdir().expect("a folder");
    let serving = ServeOptions { auth: Some(Auth::Token), ..options(folder.path(), "exit 0") };
    let dir = serving.dir.clone();
    let missing = FolderTokens::open_existing(&dir).await.expect_err("no folder");
    assert!(matches!(missing, ServeError::NoFolder { .. }), "{missing}");
    assert!(!dir.exists(), "looking makes no folder");
    let before = token(&dir, "before", "ada", &[], None).await;
    let server = start(serving.clone()).await.expect("started");
    let rig = Rig { server, folder };
    let while_running = token(&dir, "while", "ada", &[], None).await;
    for token in [&before, &while_running] {
        assert_eq!(status(&rig, RUNS, Some(token)).await, StatusCode::OK);
    }
    let Rig { server, folder } = rig;
    server.shutdown().await;
    let tokens = FolderTokens::open_existing(&dir).await.expect("opened");
    let names: Vec<_> = tokens.store.tokens().await.expect("listed");
    let names: Vec<_> = names.iter().map(|token| token.name.as_str()).collect();
    assert_eq!(names, ["before", "while"]);
    let error = start(serving).await.expect_err("the folder is in use");
    assert!(matches!(error, ServeError::InUse { .. }), "{error}");
    drop((tokens, folder));
}

#[tokio::test]
async fn files_at_presigned_urls_need_no_token_and_nothing_else_passes_by_looking_like_one() {
    let rig = serve("exit 0").await;
    let s3 = rig.server.aws().s3_presigner(Some(rig.server.url()));
    let expiry = PresigningConfig::expires_in(Duration::from_secs(60)).expect("a time");
    let object = s3.put_object().bucket(arn::BUCKET).key("work/x");
    let put = object.presigned(expiry.clone()).await.expect("signed");
    let get = s3.get_object().bucket(arn::BUCKET).key("work/x").presigned(expiry).await;
    let client = common::http();
    let sent = client.put(put.uri()).body("hello").send().await.expect("answered");
    assert_eq!(sent.status(), StatusCode::OK);
    let got = client.get(get.expect("signed").uri()).send().await.expect("answered");
    assert_eq!(got.text().await.expect("text"), "hello");
    let disguised = format!("{RUNS}?X-Amz-Signature=x");
    assert!(status(&rig, &disguised, None).await.is_client_error());
}

#[tokio::test]
async fn runs_of_every_owner_are_stopped_from_the_machine() {
    let rig = serve("sleep 1000").await;
    let ada = token(rig.server.dir(), "ada", "ada", &[], None).await;
    let eve = token(rig.server.dir(), "eve", "eve", &[], None).await;
    let runs = [(submit(&rig, &ada, "k").await, &ada), (submit(&rig, &eve, "k").await, &eve)];
    assert_eq!(rig.server.stop_runs(|_| {}).await.expect("stopped"), 2);
    for (run, token) in &runs {
        let path = routes::RUN_STATUS.replace("{run_id}", run);
        let state: Value = ask(&rig, "GET", &path, Some(token)).await.json().await.expect("JSON");
        assert_eq!(state["state"], "CANCELED");
    }
}

/// Not a test: the engine task of the next one.
#[tokio::test]
#[ignore = "is run by the server"]
async fn stub_engine() {
    common::stub::run().await;
}

/// Every placeholder of a route, with what a complete run of the next test has there.
fn filled(path: &str, run: &str) -> String {
    let path = path
        .replace("{run_id}", run)
        .replace("{stream}", "stdout")
        .replace("{*name}", "main.cwl")
        .replace("{*task_id}", "1")
        .replace("{*path}", common::stub::OUTPUT);
    assert!(!path.contains('{'), "{path}: say here what a run has at this route");
    path
}

#[tokio::test]
async fn no_route_shows_an_owners_run_to_another() {
    let rig = serve(&common::stub_engine(&[("STUB_OUTPUT", "an output")])).await;
    let dir = rig.server.dir();
    let ada = token(dir, "ada", "ada", &["lab"], None).await;
    let other_ada = token(dir, "ada-ci", "ada", &[], None).await;
    let eve = token(dir, "eve", "eve", &["lab"], None).await;
    let admin = token(dir, "root", "root", &["lab", "admins"], None).await;
    let run = submit(&rig, &ada, "k").await;
    let state = routes::RUN_STATUS.replace("{run_id}", &run);
    common::until("the run is complete", || async {
        let answer: Value = ask(&rig, "GET", &state, Some(&ada)).await.json().await.expect("JSON");
        answer["state"] == "COMPLETE"
    })
    .await;
    let id = run.parse().expect("an id");
    for (key, content) in [
        (keys::tasks(id, 1), r#"{"tasks": [{"id": "1", "name": "x"}]}"#),
        (keys::log(id, 1, LogStream::Stdout), "x"),
    ] {
        let put = rig.server.aws().s3().put_object().bucket(arn::BUCKET).key(key);
        put.body(content.as_bytes().to_vec().into()).send().await.expect("put");
    }

    let mut looked_at = 0;
    for (route, methods) in routes::TABLE {
        for method in methods.split(", ") {
            let (path, unknown) = (filled(route, &run), filled(route, UNKNOWN));
            let called = format!("{method} {route}");
            if routes::OPEN.contains(&route) {
                let answer = ask(&rig, method, &path, None).await;
                assert_eq!(answer.status(), StatusCode::OK, "{called} asks for no caller");
                continue;
            }
            let nobody = ask(&rig, method, &path, None).await;
            assert_eq!(nobody.status(), StatusCode::UNAUTHORIZED, "{called} by nobody");
            if route == RUNS {
                // What it lists and makes: below.
                continue;
            }
            assert!(route.contains("{run_id}"), "{route}: say here how it keeps owners apart");
            // Deleted by its owner below: it is gone then.
            for token in [&ada, &other_ada, &admin].into_iter().filter(|_| method != "DELETE") {
                let own = ask(&rig, method, &path, Some(token)).await.status();
                // There is nothing to resume of a run that is complete.
                let conflict = own == StatusCode::CONFLICT && route == routes::RUN_RESUME;
                let seen = own.is_success() || own.is_redirection() || conflict;
                assert!(seen, "{called} shows nothing to compare with: {own}");
            }
            let foreign = ask(&rig, method, &path, Some(&eve)).await;
            let missing = ask(&rig, method, &unknown, Some(&ada)).await;
            assert_eq!(foreign.status(), StatusCode::NOT_FOUND, "{called} of another's run");
            assert_eq!(missing.status(), StatusCode::NOT_FOUND, "{called} of no run");
            let told = foreign.text().await.expect("text").replace(&run, UNKNOWN);
            assert_eq!(told, missing.text().await.expect("text"), "{called}");
            looked_at += 1;
        }
    }
    assert!(looked_at > 0, "no route was looked at");

    for token in [&ada, &other_ada] {
        assert_eq!(listed(&rig, "", token).await, [run.as_str()]);
    }
    for token in [&eve, &admin] {
        assert!(listed(&rig, "", token).await.is_empty());
    }
    assert_eq!(listed(&rig, "?owner=ada", &admin).await, [run.as_str()]);
    let asked = status(&rig, &format!("{RUNS}?owner=ada"), Some(&eve)).await;
    assert_eq!(asked, StatusCode::FORBIDDEN);

    assert_eq!(submit(&rig, &other_ada, "k").await, run, "one owner, one key, one run");
    for token in [&eve, &admin] {
        assert_ne!(submit(&rig, token, "k").await, run, "another owner's key is another key");
    }
}

#[tokio::test]
async fn an_open_server_asks_nobody_and_shows_no_owners_runs() {
    let folder = tempfile::tempdir().expect("a folder");
    let asking = ServeOptions { auth: Some(Auth::Token), ..options(folder.path(), "exit 0") };
    let ada = token(&asking.dir, "ada", "ada", &[], None).await;
    let rig = Rig { server: start(asking.clone()).await.expect("started"), folder };
    let run = submit(&rig, &ada, "k").await;
    let Rig { server, folder } = rig;
    server.shutdown().await;
    let open = ServeOptions { auth: None, ..asking };
    let rig = Rig { server: start(open).await.expect("started"), folder };
    assert_eq!(rig.server.auth(), Auth::None);
    for token in [None, Some(ada.as_str()), Some("nonsense")] {
        let answer = ask(&rig, "GET", RUNS, token).await;
        assert_eq!(answer.status(), StatusCode::OK);
        let page: Value = answer.json().await.expect("JSON");
        assert_eq!(page["runs"].as_array().map(Vec::len), Some(0));
        let path = routes::RUN.replace("{run_id}", &run);
        assert_eq!(status(&rig, &path, token).await, StatusCode::NOT_FOUND);
    }
}
