//! Runs are kept for as long as the server is told, and then go with everything of theirs.

mod common;

use std::{
    fs::{self, File},
    path::Path,
    sync::Arc,
    time::SystemTime,
};

use chrono::{TimeDelta, Utc};
use stepwes_core::{RunId, resources::Resources, run::RequestSummary};
use stepwes_local::{
    ServeOptions, arn,
    faults::{Fault, FaultPlan, FaultyCall},
    start,
};
use stepwes_store::{Created, NewRun};
use uuid::Uuid;

use common::{http, options, stub_engine as stub, submit, until, until_state};

/// Not a test: the engine task of the others.
#[tokio::test]
#[ignore = "is run by the server"]
async fn stub_engine() {
    common::stub::run().await;
}

/// Nothing goes wrong, but reconcile's clock is ahead.
#[derive(Debug)]
struct Ahead(TimeDelta);

impl FaultPlan for Ahead {
    fn fault(&self, _: &FaultyCall<'_>) -> Option<Fault> {
        None
    }

    fn skew(&self, function: &str) -> TimeDelta {
        if function == "stepwes-reconcile" { self.0 } else { TimeDelta::zero() }
    }
}

/// The folders of the runs bucket that have files of a run's.
fn classes_of(dir: &Path, run: &str) -> Vec<String> {
    let entries = fs::read_dir(dir.join("s3/runs")).expect("a bucket").flatten();
    let mut classes: Vec<_> = entries
        .filter(|entry| entry.path().join(run).exists())
        .map(|entry| entry.file_name().into_string().expect("UTF-8"))
        .collect();
    classes.sort();
    classes
}

#[tokio::test]
async fn a_run_goes_with_its_files_when_its_days_are_over() {
    let folder = tempfile::tempdir().expect("a folder");
    let engine = stub(&[("STUB_OUTPUT", "an output")]);
    let serve = |days, ahead| ServeOptions {
        retention_days: days,
        faults: Some(Arc::new(Ahead(TimeDelta::days(ahead)))),
        ..options(folder.path(), &engine)
    };
    let server = start(serve(30, 0)).await.expect("started");
    let run = submit(server.url()).await;
    until_state(server.url(), &run, "COMPLETE").await;
    server.shutdown().await;
    let all = ["outputs", "requests", "results", "work"];
    assert_eq!(classes_of(&serve(0, 0).dir, &run), all);

    // Not before its time, and not where runs are kept for ever.
    for (days, ahead, queries) in [(30, 29, 9), (0, 31, 5)] {
        let server = start(serve(days, ahead)).await.expect("started");
        // Four states, those that wait, and where runs expire the four partitions of the ended.
        until("reconcile has looked", || async {
            server.calls().get("dynamodb:Query").is_some_and(|count| *count >= queries)
        })
        .await;
        server.shutdown().await;
        assert_eq!(classes_of(&serve(0, 0).dir, &run), all, "{days} days, after {ahead}");
    }

    let server = start(serve(30, 31)).await.expect("started");
    let url = format!("{}/ga4gh/wes/v1/runs/{run}", server.url());
    until("the run is removed", || async {
        http().get(&url).send().await.is_ok_and(|answer| answer.status() == 404)
    })
    .await;
    assert_eq!(classes_of(server.dir(), &run), [""; 0]);
    server.shutdown().await;
}

/// A run's id as it was made so many days ago.
fn days_ago(days: u64) -> RunId {
    let seconds = u64::try_from(Utc::now().timestamp()).expect("after 1970") - days * 24 * 3600;
    let time = uuid::Timestamp::from_unix(uuid::NoContext, seconds, 0);
    RunId::from_uuid(Uuid::new_v7(time))
}

#[tokio::test]
async fn files_of_runs_that_are_gone_go_too_and_those_of_others_stay() {
    let folder = tempfile::tempdir().expect("a folder");
    let serve = |days| ServeOptions { retention_days: days, ..options(folder.path(), &stub(&[])) };
    let server = start(serve(0)).await.expect("started");
    // It has not ended, however old it is.
    let waiting = days_ago(400);
    let new = NewRun {
        run_id: waiting,
        owner: "anonymous".to_owned(),
        summary: RequestSummary::default(),
        resources: Resources::default(),
        destination: None,
        idempotency: None,
        trace: None,
        waits: false,
    };
    let created = server.aws().store(arn::TABLE).create(new).await.expect("an answer");
    assert!(matches!(created, Created::New(_)));
    // What is done once at every start, for ever or not.
    let looked = serve(0).dir.join("strays-removed");
    until("requests of no run are looked for", || async { looked.exists() }).await;
    server.shutdown().await;

    let bucket = serve(0).dir.join("s3/runs");
    let put = |key: String| {
        let path = bucket.join(key);
        fs::create_dir_all(path.parent().expect("a folder")).expect("made");
        fs::write(&path, "x").expect("written");
        path
    };
    let (old, fresh) = (days_ago(31), days_ago(29));
    let gone = [
        put(format!("outputs/{old}/1/x")),
        put(format!("work/{old}/1/logs/stderr")),
        put(format!("results/{old}/outputs.json")),
        put(format!("requests/{old}/request.json")),
        put("rejected/submit/x.json".to_owned()),
    ];
    let kept = [
        put(format!("requests/{waiting}/request.json")),
        put(format!("outputs/{fresh}/1/x")),
        put("outputs/mine/x".to_owned()),
        put(format!("submit/{old}/x.cwl")),
        put("rejected/submit/y.json".to_owned()),
    ];
    let month_ago = SystemTime::now() - std::time::Duration::from_secs(31 * 24 * 3600);
    for path in [&gone[4], &kept[2], &kept[3]] {
        let file = File::options().write(true).open(path).expect("there");
        file.set_modified(month_ago).expect("set");
    }
    // For ever.
    let server = start(serve(0)).await.expect("started");
    until("reconcile has looked", || async { server.calls().contains_key("ecs:ListTasks") }).await;
    server.shutdown().await;
    assert!(gone.iter().all(|path| path.exists()));

    let server = start(serve(30)).await.expect("started");
    // The oldest is looked at first, and `requests` goes last.
    until("what is left is removed", || async { !gone[3].exists() }).await;
    for path in &gone {
        assert!(!path.exists(), "{}", path.display());
    }
    for path in &kept {
        assert!(path.exists(), "{}", path.display());
    }
    server.shutdown().await;
}
