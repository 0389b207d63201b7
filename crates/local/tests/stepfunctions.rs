//! Step Functions, driven by the SDK's client.

mod common;

use std::{collections::BTreeMap, num::NonZeroUsize};

use aws_sdk_sfn::{
    Client, error::ProvideErrorMetadata as _,
    operation::describe_execution::DescribeExecutionOutput, types::ExecutionStatus,
};
use stepwes_local::{Server, arn};

use common::{hold, serve, serve_with, submit, until, until_state};

const NAME: &str = "01890000-0000-7000-8000-000000000000";

fn input(run: &str) -> String {
    serde_json::json!({ "run_id": run }).to_string()
}

async fn start(
    client: &Client,
    name: &str,
    input: &str,
) -> Result<f64, aws_sdk_sfn::error::ErrorMetadata> {
    let answer = client
        .start_execution()
        .state_machine_arn(arn::STATE_MACHINE)
        .name(name)
        .input(input)
        .send()
        .await
        .map_err(|error| error.meta().clone())?;
    assert_eq!(answer.execution_arn(), format!("{}{name}", arn::EXECUTION_PREFIX));
    Ok(answer.start_date().as_secs_f64())
}

async fn describe(client: &Client, name: &str) -> DescribeExecutionOutput {
    let execution = format!("{}{name}", arn::EXECUTION_PREFIX);
    client.describe_execution().execution_arn(execution).send().await.expect("described")
}

#[tokio::test]
async fn starting_an_execution_again_is_harmless_while_it_runs_and_refused_otherwise() {
    let folder = tempfile::tempdir().expect("a folder");
    let begun = folder.path().join("begun");
    let script = format!(": > '{}'; {}", begun.display(), hold(folder.path(), "pipe"));
    let rig = serve(&script).await;
    let client = rig.server.aws().sfn();
    // Its execution runs for as long as its engine is held.
    let run = submit(rig.server.url()).await;
    until("the start of its task", || async { begun.exists() }).await;
    let first = start(&client, &run, &input(&run)).await.expect("started before");
    let again = start(&client, &run, &input(&run)).await.expect("started before");
    assert!((first - again).abs() < f64::EPSILON);
    let other = start(&client, &run, &input(NAME)).await.expect_err("refused");
    assert_eq!(other.code(), Some("ExecutionAlreadyExists"));

    let told = describe(&client, &run).await;
    assert_eq!(told.status(), &ExecutionStatus::Running);
    assert_eq!(told.input(), Some(input(&run).as_str()));
    assert_eq!(told.state_machine_arn(), arn::STATE_MACHINE);
    assert!((told.start_date().as_secs_f64() - first).abs() < f64::EPSILON);
    assert!(told.stop_date().is_none());

    let execution = format!("{}{run}", arn::EXECUTION_PREFIX);
    let stop =
        || client.stop_execution().execution_arn(&execution).error("Enough").cause("said the test");
    let stopped = stop().send().await.expect("stopped").stop_date;
    let again = stop().send().await.expect("stopped before").stop_date;
    assert!((again.as_secs_f64() - stopped.as_secs_f64()).abs() < 0.01);
    let told = describe(&client, &run).await;
    assert_eq!(told.status(), &ExecutionStatus::Aborted);
    assert_eq!((told.error(), told.cause()), (Some("Enough"), Some("said the test")));
    assert!(told.stop_date().is_some());
    let closed = start(&client, &run, &input(&run)).await.expect_err("refused");
    assert_eq!(closed.code(), Some("ExecutionAlreadyExists"));
    // Its task is stopped with it, and reconcile, told of its end, ends the run.
    until_state(rig.server.url(), &run, "SYSTEM_ERROR").await;
    assert_eq!(rig.server.shutdown().await, stepwes_local::LeftRunning::default());
}

#[tokio::test]
async fn asked_for_many_times_at_once_an_execution_starts_once() {
    let rig = serve("exit 0").await;
    let client = rig.server.aws().sfn();
    let input = input(NAME);
    let asked = (0..20).map(|_| start(&client, NAME, &input));
    for answer in futures::future::join_all(asked).await {
        if let Err(error) = answer {
            // It may have ended meanwhile, as there is no such run.
            assert_eq!(error.code(), Some("ExecutionAlreadyExists"));
        }
    }
    until("the execution ends", || async {
        describe(&client, NAME).await.status() == &ExecutionStatus::Failed
    })
    .await;
    let counted = rig.server.calls();
    assert_eq!(counted["states:StartExecution"], 20);
    assert_eq!(counted["states:StateTransition"], transitions_of_one(&rig.server).await);
}

#[tokio::test]
async fn an_execution_runs_though_the_one_who_started_it_hung_up() {
    let rig = serve("exit 0").await;
    let client = rig.server.aws().sfn();
    let ledger = common::ledger(rig.server.dir());
    ledger.execute_batch("BEGIN IMMEDIATE").expect("locked");
    let request = client
        .start_execution()
        .state_machine_arn(arn::STATE_MACHINE)
        .name(NAME)
        .input(input(NAME));
    let asking = tokio::spawn(request.send());
    until("the server is about to record it", || async {
        rig.server.calls().contains_key("states:StartExecution")
    })
    .await;
    asking.abort();
    assert!(asking.await.expect_err("aborted").is_cancelled());
    ledger.execute_batch("COMMIT").expect("unlocked");
    let execution = format!("{}{NAME}", arn::EXECUTION_PREFIX);
    until("the execution ends", || async {
        let told = client.describe_execution().execution_arn(&execution).send().await;
        told.is_ok_and(|told| told.status() == &ExecutionStatus::Failed)
    })
    .await;
}

#[tokio::test]
async fn the_time_of_a_run_runs_from_when_its_engine_has_its_slot() {
    let folder = tempfile::tempdir().expect("a folder");
    let rig = serve_with(&hold(folder.path(), "pipe"), |options| {
        options.max_engines = NonZeroUsize::new(1);
    })
    .await;
    let ledger = common::ledger(rig.server.dir());
    // Of each execution whose task has been asked for, whether it has a deadline.
    let deadlines = || -> BTreeMap<String, bool> {
        let mut query = ledger
            .prepare(
                "SELECT name, state ->> '$.root.activity.Task.deadline' IS NOT NULL FROM executions
                 WHERE status = 'RUNNING' AND state ->> '$.root.activity.Task.resource' LIKE '%ecs%'",
            )
            .expect("valid");
        let rows = query.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).expect("read");
        rows.collect::<Result<_, _>>().expect("read")
    };
    let runs = [submit(rig.server.url()).await, submit(rig.server.url()).await];
    // Started by hand, the second does not wait for a slot of the service's, but for one of ECS's.
    let client = rig.server.aws().sfn();
    start(&client, &runs[1], &input(&runs[1])).await.expect("started");
    let (mut running, mut waiting) = (String::new(), String::new());
    until("one runs and one waits", || {
        let found = deadlines();
        let of = |has: bool| found.iter().find(|(_, there)| **there == has).map(|(name, _)| name);
        if let (Some(one), Some(other)) = (of(true), of(false)) {
            (running, waiting) = (one.clone(), other.clone());
        }
        let done = !running.is_empty();
        async move { done }
    })
    .await;
    assert!(runs.contains(&running) && runs.contains(&waiting));
    let execution = format!("{}{running}", arn::EXECUTION_PREFIX);
    client.stop_execution().execution_arn(execution).send().await.expect("stopped");
    until("the other runs", || async { deadlines().get(&waiting) == Some(&true) }).await;
}

/// How many transitions one execution of a run that does not exist has.
async fn transitions_of_one(server: &Server) -> u64 {
    let client = server.aws().sfn();
    let before = server.calls()["states:StateTransition"];
    let other = NAME.replace("01890000", "01890001");
    start(&client, &other, &input(&other)).await.expect("started");
    until("the execution ends", || async {
        describe(&client, &other).await.status() == &ExecutionStatus::Failed
    })
    .await;
    server.calls()["states:StateTransition"] - before
}

#[tokio::test]
async fn what_is_not_embedded_or_wrong_is_refused_by_name() {
    let rig = serve("exit 0").await;
    let client = rig.server.aws().sfn();
    let start = || client.start_execution().state_machine_arn(arn::STATE_MACHINE);
    for (request, expected) in [
        (start().state_machine_arn("arn:x"), "StateMachineDoesNotExist"),
        (start().name("a b"), "InvalidName"),
        (start().name("x".repeat(81)), "InvalidName"),
        (start().input("{"), "InvalidExecutionInput"),
        (start().input("x".repeat(262_145)), "InvalidExecutionInput"),
        (start().trace_header("x"), "ValidationException"),
    ] {
        let error = request.send().await.expect_err(expected);
        assert_eq!(error.code(), Some(expected), "{error:?}");
    }
    let error = start().trace_header("x").send().await.expect_err("refused");
    assert!(error.message().is_some_and(|told| told.contains("traceHeader")), "{error:?}");
    let missing = format!("{}{NAME}", arn::EXECUTION_PREFIX);
    for (execution, expected) in [(missing.as_str(), "ExecutionDoesNotExist"), ("x", "InvalidArn")]
    {
        let error = client.describe_execution().execution_arn(execution).send().await;
        assert_eq!(error.expect_err(expected).code(), Some(expected));
        let error = client.stop_execution().execution_arn(execution).send().await;
        assert_eq!(error.expect_err(expected).code(), Some(expected));
    }
    let error = client.list_state_machines().send().await.expect_err("refused");
    assert_eq!(error.code(), Some("UnknownOperationException"));
    assert!(error.message().is_some_and(|told| told.contains("ListStateMachines")), "{error:?}");
}
