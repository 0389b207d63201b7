//! State changes told to a receiver: in order, at least once, whatever ends when.

mod common;

use std::{
    fs,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use axum::{Json, Router, extract::State as FromState, http::StatusCode, routing::post};
use chrono::Utc;
use serde_json::Value;
use stepwes_local::{DEAD_LETTERS, Delivery, ServeOptions, Server};
use tempfile::TempDir;

use common::{options, stub_engine as stub, submit, until, until_state};

/// Not a test: the engine task of the others.
#[tokio::test]
#[ignore = "is run by the server"]
async fn stub_engine() {
    common::stub::run().await;
}

/// What a receiver has got, and how many more posts it refuses.
#[derive(Default)]
struct Got {
    refuses: usize,
    refused: usize,
    events: Vec<Value>,
}

#[derive(Clone, Default)]
struct Receiver(Arc<Mutex<Got>>);

impl Receiver {
    async fn start(refuses: usize) -> (Self, String) {
        let receiver = Self(Arc::new(Mutex::new(Got { refuses, ..Got::default() })));
        let router = Router::new().route("/hook", post(take)).with_state(receiver.clone());
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let url = format!("http://{}/hook", listener.local_addr().expect("bound"));
        tokio::spawn(async move { axum::serve(listener, router).await });
        (receiver, url)
    }

    fn with<T>(&self, look: impl FnOnce(&mut Got) -> T) -> T {
        look(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The versions of a run's changes, as they came.
    fn versions(&self, run: &str) -> Vec<String> {
        self.with(|got| {
            let of_run = got.events.iter().filter(|event| event["detail"]["run_id"] == run);
            let version =
                |event: &Value| event["detail"]["version"].as_str().unwrap_or("").to_owned();
            of_run.map(version).collect()
        })
    }

    async fn until_versions(&self, run: &str, expected: &[&str]) {
        until(&format!("{run} is told of {expected:?}"), || async {
            self.versions(run) == expected
        })
        .await;
    }
}

async fn take(FromState(receiver): FromState<Receiver>, Json(event): Json<Value>) -> StatusCode {
    receiver.with(|got| {
        if got.refuses > 0 {
            got.refuses -= 1;
            got.refused += 1;
            return StatusCode::SERVICE_UNAVAILABLE;
        }
        got.events.push(event);
        StatusCode::OK
    })
}

const QUICK: Delivery = Delivery {
    first_pause: Duration::from_millis(5),
    longest_pause: Duration::from_millis(20),
    give_up_after: Duration::from_secs(24 * 3600),
    url_timeout: Duration::from_secs(5),
    command_timeout: Duration::from_secs(60),
};

fn telling(folder: &TempDir, told: &str, delivery: Delivery) -> ServeOptions {
    let on_state_change = Some(told.parse().expect("a receiver"));
    ServeOptions { on_state_change, delivery, ..options(folder.path(), &stub(&[])) }
}

async fn start(options: &ServeOptions) -> Server {
    stepwes_local::start(options.clone()).await.expect("started")
}

fn outbox(folder: &TempDir) -> rusqlite::Connection {
    let file = folder.path().join("stepwes/state-changes.sqlite");
    let outbox = rusqlite::Connection::open(file).expect("opened");
    outbox.busy_timeout(Duration::from_secs(5)).expect("set");
    outbox
}

fn noted(folder: &TempDir) -> i64 {
    let count = "SELECT count(*) FROM changes";
    outbox(folder).query_row(count, [], |row| row.get(0)).expect("counted")
}

/// Notes a change as a server does that is killed right afterwards.
fn note(folder: &TempDir, run: &str, version: u32) {
    let now = Utc::now().timestamp_millis();
    outbox(folder)
        .execute("INSERT INTO changes VALUES (?1, ?2, ?3)", (run, version, now))
        .expect("noted");
}

const WHOLE: [&str; 4] = ["1", "2", "3", "4"];

#[tokio::test]
async fn each_runs_changes_are_told_in_order_though_the_receiver_fails_now_and_then() {
    let folder = tempfile::tempdir().expect("a folder");
    let (receiver, url) = Receiver::start(7).await;
    let server = start(&telling(&folder, &url, QUICK)).await;
    let mut runs = Vec::new();
    for _ in 0..3 {
        runs.push(submit(server.url()).await);
    }
    for run in &runs {
        receiver.until_versions(run, &WHOLE).await;
        assert_eq!(common::state(server.url(), run).await, "COMPLETE");
    }
    assert_eq!(receiver.with(|got| got.refused), 7);
    until("all is forgotten", || async { noted(&folder) == 0 }).await;
    server.shutdown().await;
}

#[tokio::test]
async fn a_receiver_that_is_away_holds_no_run_up_and_the_next_server_tells_it_everything() {
    let folder = tempfile::tempdir().expect("a folder");
    let (receiver, url) = Receiver::start(usize::MAX).await;
    let options = telling(&folder, &url, QUICK);
    let server = start(&options).await;
    let run = submit(server.url()).await;
    until_state(server.url(), &run, "COMPLETE").await;
    assert_eq!(noted(&folder), 4);
    server.shutdown().await;
    assert!(receiver.versions(&run).is_empty());

    receiver.with(|got| got.refuses = 0);
    let server = start(&options).await;
    receiver.until_versions(&run, &WHOLE).await;
    let states = receiver.with(|got| {
        let to = |event: &Value| event["detail"]["to"].as_str().unwrap_or("").to_owned();
        got.events.iter().map(to).collect::<Vec<_>>()
    });
    assert_eq!(states, ["QUEUED", "INITIALIZING", "RUNNING", "COMPLETE"]);
    server.shutdown().await;
}

#[tokio::test]
async fn what_a_killed_server_has_noted_and_not_committed_is_not_told() {
    let folder = tempfile::tempdir().expect("a folder");
    let (receiver, url) = Receiver::start(0).await;
    let options = telling(&folder, &url, QUICK);
    let server = start(&options).await;
    let run = submit(server.url()).await;
    receiver.until_versions(&run, &WHOLE).await;
    until("all is forgotten", || async { noted(&folder) == 0 }).await;
    server.shutdown().await;

    note(&folder, &run, 5);
    note(&folder, "01890a5d-ac96-774b-bcce-b302099a8057", 1);
    // Delivered, and killed before that was recorded.
    note(&folder, &run, 2);
    let server = start(&options).await;
    receiver.until_versions(&run, &["1", "2", "3", "4", "2"]).await;
    until("all is forgotten", || async { noted(&folder) == 0 }).await;
    let ids = receiver.with(|got| {
        assert_eq!(got.events.len(), 5);
        [got.events[1]["id"].clone(), got.events[4]["id"].clone()]
    });
    assert_eq!(ids[0], ids[1], "the same event is told again");
    server.shutdown().await;
}

#[tokio::test]
async fn what_cannot_be_told_for_too_long_is_written_down_and_the_next_change_is_tried() {
    let folder = tempfile::tempdir().expect("a folder");
    // Five tries are the least: the first two changes are given up.
    let (receiver, url) = Receiver::start(10).await;
    let impatient = Delivery { give_up_after: Duration::ZERO, ..QUICK };
    let server = start(&telling(&folder, &url, impatient)).await;
    let run = submit(server.url()).await;
    receiver.until_versions(&run, &["3", "4"]).await;
    let letters = fs::read_to_string(server.dir().join(DEAD_LETTERS)).expect("written");
    let letters: Vec<Value> =
        letters.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let versions: Vec<_> = letters.iter().map(|each| &each["event"]["detail"]["version"]).collect();
    assert_eq!(versions, ["1", "2"]);
    assert_eq!(letters[0]["error"], "the URL answered 503");
    assert_eq!(letters[0]["tries"], 5);
    until("all is forgotten", || async { noted(&folder) == 0 }).await;
    server.shutdown().await;
}

#[tokio::test]
async fn without_a_receiver_nothing_is_noted() {
    let folder = tempfile::tempdir().expect("a folder");
    let server = start(&options(folder.path(), &stub(&[]))).await;
    let run = submit(server.url()).await;
    until_state(server.url(), &run, "COMPLETE").await;
    assert!(!server.dir().join("state-changes.sqlite").exists());
    server.shutdown().await;
}
