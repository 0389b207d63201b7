//! Runs through the whole service, with a stub for the engine task.

mod common;

use std::{fs, num::NonZeroUsize};

use aws_sdk_sfn::types::ExecutionStatus;
use stepwes_local::{Server, arn};

use common::{
    get_json, hold, release, serve, serve_with, state, stub_engine as stub, submit, until,
    until_state,
};

/// Not a test: the engine task of the others.
#[tokio::test]
#[ignore = "is run by the server"]
async fn stub_engine() {
    common::stub::run().await;
}

async fn cancel(url: &str, run: &str) {
    let url = format!("{url}/ga4gh/wes/v1/runs/{run}/cancel");
    let answer = common::http().post(url).send().await.expect("answered");
    assert_eq!(answer.status(), 200);
}

/// Waits for a run's execution to end, without a call to anything but Step Functions.
async fn execution_ended(server: &Server, run: &str) {
    let arn = format!("{}:{run}", arn::STATE_MACHINE.replace(":stateMachine:", ":execution:"));
    let sfn = server.aws().sfn();
    until("the execution ends", || async {
        let answer = sfn.describe_execution().execution_arn(&arn).send().await;
        answer.is_ok_and(|execution| *execution.status() != ExecutionStatus::Running)
    })
    .await;
}

/// What a run costs: every call from the POST to the end of its execution. A figure that grows
/// here grows for every run there is.
#[tokio::test]
async fn a_run_makes_these_calls_and_no_others() {
    let rig = serve(&stub(&[("STUB_OUTPUT", "an output")])).await;
    // The first look after unfinished runs ends with this call.
    until("reconcile has looked", || async { rig.server.calls().contains_key("ecs:ListTasks") })
        .await;
    let before = rig.server.calls();
    let run = submit(rig.server.url()).await;
    execution_ended(&rig.server, &run).await;
    // Those that wait are looked for when the run is submitted, and when it has ended.
    let queries = before.get("dynamodb:Query").unwrap_or(&0) + 6;
    until("reconcile has looked who waits", || async {
        rig.server.calls()["dynamodb:Query"] >= queries
    })
    .await;
    let mut calls = rig.server.calls();
    for (name, count) in &mut calls {
        *count -= before.get(name).unwrap_or(&0);
    }
    calls.retain(|name, count| *count > 0 && name != "states:DescribeExecution");
    let shown: Vec<_> = calls.iter().map(|(name, count)| format!("{name} {count}")).collect();
    insta::assert_snapshot!(shown.join("\n"), @r"
    dynamodb:GetItem 6
    dynamodb:Query 6
    dynamodb:TransactWriteItems 5
    dynamodb:UpdateItem 1
    ecs:RunTask 1
    lambda:Invoke 5
    s3:GetObject 1
    s3:ListObjectsV2 1
    s3:PutObject 5
    states:StartExecution 1
    states:StateTransition 5
    sts:AssumeRole 1
    ");
    assert_eq!(state(rig.server.url(), &run).await, "COMPLETE");
    assert_eq!(rig.server.shutdown().await, stepwes_local::LeftRunning::default());
}

/// The functions reach S3 without a connection, which would take the body off an answer to HEAD.
#[tokio::test]
async fn what_is_no_output_of_a_run_is_not_found() {
    let rig = serve(&stub(&[("STUB_OUTPUT", "an output")])).await;
    let run = submit(rig.server.url()).await;
    until_state(rig.server.url(), &run, "COMPLETE").await;
    for name in ["none".to_owned(), "%00".to_owned(), "a".repeat(300), "a/".repeat(512)] {
        let url = format!("{}/ga4gh/wes/v1/runs/{run}/outputs/{name}b", rig.server.url());
        let answer = common::http().get(url).send().await.expect("answered");
        assert_eq!(answer.status(), 404, "{name}");
    }
    rig.server.shutdown().await;
}

#[tokio::test]
async fn an_attempt_whose_task_fails_is_tried_again_until_none_is_left() {
    let folder = tempfile::tempdir().expect("a folder");
    let log = folder.path().join("log");
    let rig = serve(&format!("echo $STEPWES_ATTEMPT >> '{}'; exit 70", log.display())).await;
    let run = submit(rig.server.url()).await;
    until_state(rig.server.url(), &run, "SYSTEM_ERROR").await;
    assert_eq!(fs::read_to_string(log).expect("a log"), "1\n2\n3\n");
    let told = get_json(&format!("{}/ga4gh/wes/v1/runs/{run}", rig.server.url())).await;
    let logs = told["run_log"]["system_logs"].to_string();
    assert!(logs.contains("70"), "{logs}");
}

#[tokio::test]
async fn a_cancelled_run_is_canceled_when_its_engine_is_gone() {
    let folder = tempfile::tempdir().expect("a folder");
    hold(folder.path(), "pipe");
    let pipe = folder.path().join("pipe").display().to_string();
    let rig = serve(&stub(&[("STUB_HOLD_RUNNING", &pipe)])).await;
    let run = submit(rig.server.url()).await;
    until_state(rig.server.url(), &run, "RUNNING").await;
    cancel(rig.server.url(), &run).await;
    until_state(rig.server.url(), &run, "CANCELED").await;
    assert_eq!(rig.server.shutdown().await, stepwes_local::LeftRunning::default());
}

#[tokio::test]
async fn a_run_that_waits_for_a_slot_is_canceled_at_once_and_never_started() {
    let folder = tempfile::tempdir().expect("a folder");
    hold(folder.path(), "pipe");
    let path = |name: &str| folder.path().join(name).display().to_string();
    let script = stub(&[("STUB_HOLD_RUNNING", &path("pipe")), ("STUB_LOG", &path("starts"))]);
    let rig = serve_with(&script, |options| options.max_engines = NonZeroUsize::new(1)).await;
    let url = rig.server.url();
    let first = submit(url).await;
    until_state(url, &first, "RUNNING").await;
    let second = submit(url).await;
    assert_eq!(state(url, &second).await, "QUEUED");
    cancel(url, &second).await;
    until_state(url, &second, "CANCELED").await;
    assert_eq!(state(url, &first).await, "RUNNING");
    release(folder.path(), "pipe").await;
    until_state(url, &first, "COMPLETE").await;
    let starts = fs::read_to_string(path("starts")).expect("a log");
    assert_eq!(starts.lines().count(), 1, "{starts}");
    assert_eq!(rig.server.calls().get("ecs:RunTask"), Some(&1), "no task was asked for");
}

#[tokio::test]
async fn a_run_cancelled_right_after_it_was_submitted_is_canceled() {
    let rig = serve_with(&stub(&[]), |options| {
        options.reconcile_interval = std::time::Duration::from_millis(200);
    })
    .await;
    let url = rig.server.url();
    for _ in 0..5 {
        let run = submit(url).await;
        cancel(url, &run).await;
        until("the run ends", || async {
            ["CANCELED", "COMPLETE"].contains(&state(url, &run).await.as_str())
        })
        .await;
    }
}

#[tokio::test]
async fn more_runs_than_there_are_slots_all_come_to_their_end() {
    let rig = serve_with(&stub(&[]), |options| options.max_engines = NonZeroUsize::new(4)).await;
    let url = rig.server.url();
    let runs = futures::future::join_all((0..24).map(|_| submit(url))).await;
    for run in &runs {
        until_state(url, run, "COMPLETE").await;
    }
}
