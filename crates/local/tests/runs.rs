//! Runs through the whole service, with a stub for the engine task.

mod common;

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    fs,
    num::NonZeroUsize,
    time::Duration,
};

use aws_sdk_sfn::types::ExecutionStatus;
use futures::{StreamExt as _, TryStreamExt as _, future::join_all, stream};
use stepwes_core::task::env;
use stepwes_local::{Server, arn};

use common::{
    get_json, hold, release, serve, serve_with, state, stub_engine as stub, submit, this_binary,
    try_submit, until, until_state,
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
        options.reconcile_interval = Duration::from_millis(200);
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
    let runs = join_all((0..24).map(|_| submit(url))).await;
    for run in &runs {
        until_state(url, run, "COMPLETE").await;
    }
}

/// How many runs are in each state, as service-info tells it.
async fn counts(http: &reqwest::Client, url: &str) -> BTreeMap<String, usize> {
    let url = format!("{url}/ga4gh/wes/v1/service-info");
    let answer = http.get(url).send().await.expect("answered").error_for_status().expect("well");
    let info: serde_json::Value = answer.json().await.expect("JSON");
    let counts: BTreeMap<String, usize> =
        serde_json::from_value(info["system_state_counts"].clone()).expect("numbers");
    counts.into_iter().filter(|(_, runs)| *runs > 0).collect()
}

/// Waits until there are so many runs in these states and none in others.
async fn until_counts(http: &reqwest::Client, url: &str, expected: &[(&str, usize)]) {
    let expected = expected.iter().map(|(state, runs)| ((*state).to_owned(), *runs)).collect();
    let mut seen = BTreeMap::new();
    for _ in 0..1000 {
        seen = counts(http, url).await;
        if seen == expected {
            return;
        }
        tokio::time::sleep(Duration::from_millis(30)).await;
    }
    assert_eq!(seen, expected);
}

/// The memory that this process, and so the server, has taken, in bytes.
fn memory() -> usize {
    let status = fs::read_to_string("/proc/self/status").expect("readable");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a line");
    line.trim().trim_end_matches(" kB").parse::<usize>().expect("a number") << 10
}

/// Far more than may be at work: what waits costs nothing but its item, each has its turn, and the
/// server answers all the while.
#[tokio::test]
async fn a_thousand_runs_wait_in_their_order_and_all_come_to_their_end() {
    const RUNS: usize = 1000;
    const SLOTS: usize = 4;
    /// How many are submitted at once.
    const AT_ONCE: usize = 100;

    let folder = tempfile::tempdir().expect("a folder");
    let path = |name: &str| folder.path().join(name);
    fs::create_dir(path("at-work")).expect("made");
    let (program, arguments) = this_binary("stub_engine");
    // Says which run it is for and how many engines are at work, and waits until the gate is there.
    let script = format!(
        "cd '{}'; mkdir at-work/$$; set -- at-work/*; echo ${} $# >> starts
        until [ -e gate ]; do sleep 0.05; done
        '{}' {}; code=$?; rmdir at-work/$$; exit $code",
        folder.path().display(),
        env::RUN_ID,
        program.display(),
        arguments.join(" "),
    );
    let rig = serve_with(&script, |options| options.max_engines = NonZeroUsize::new(SLOTS)).await;
    let (url, http) = (rig.server.url(), common::http());
    let memory_before = memory();

    let mut runs = Vec::new();
    while runs.len() < RUNS {
        let accepted = join_all((0..AT_ONCE).map(|_| try_submit(&http, url))).await;
        runs.extend(accepted.into_iter().map(|run| run.expect("accepted")));
    }
    assert_eq!(runs.iter().collect::<HashSet<_>>().len(), RUNS);
    let waiting = RUNS - SLOTS;
    until_counts(&http, url, &[("INITIALIZING", SLOTS), ("QUEUED", waiting)]).await;
    let grown = memory().saturating_sub(memory_before);
    assert!(grown < RUNS * 64 * 1024, "{grown} bytes");
    let calls = rig.server.calls();
    assert_eq!(calls["states:StartExecution"], SLOTS as u64, "what waits has no execution");
    let store = rig.server.aws().store(arn::TABLE);
    let queue = store.waiting(RUNS).await.expect("read");
    let mut queue: Vec<_> = queue.iter().map(ToString::to_string).collect();
    let batches: HashMap<_, _> =
        runs.iter().enumerate().map(|(number, run)| (run.as_str(), number / AT_ONCE)).collect();
    assert_eq!(queue.len(), waiting);
    assert!(queue.is_sorted_by_key(|run| batches[run.as_str()]), "who came first is first");

    // Out of the queue, from all of its parts.
    let leaves = |at: &usize| !at.is_multiple_of(3);
    let cancelled: HashSet<_> = (0..waiting).filter(leaves).map(|at| queue[at].clone()).collect();
    stream::iter(&cancelled).for_each_concurrent(16, |run| cancel(url, run)).await;
    let waiting = waiting - cancelled.len();
    let held = [("CANCELED", cancelled.len()), ("INITIALIZING", SLOTS), ("QUEUED", waiting)];
    until_counts(&http, url, &held).await;
    assert_eq!(rig.server.calls()["ecs:RunTask"], SLOTS as u64, "none of them had a task");
    queue.retain(|run| !cancelled.contains(run));

    fs::write(path("gate"), "").expect("opened");
    let page = format!("{url}/ga4gh/wes/v1/runs?page_size=100");
    let mut looks = 0;
    loop {
        let now = counts(&http, url).await;
        let at_work = ["INITIALIZING", "RUNNING"].map(|state| now.get(state).unwrap_or(&0));
        assert!(at_work.into_iter().sum::<usize>() <= SLOTS, "{now:?}");
        assert_eq!(get_json(&page).await["runs"].as_array().map(Vec::len), Some(100));
        if !now.contains_key("QUEUED") {
            break;
        }
        looks += 1;
        assert!(looks < 6000, "{now:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let ended = [("CANCELED", cancelled.len()), ("COMPLETE", RUNS - cancelled.len())];
    until_counts(&http, url, &ended).await;

    let starts = fs::read_to_string(path("starts")).expect("a log");
    let starts: Vec<_> = starts.lines().filter_map(|line| line.split_once(' ')).collect();
    let engines: HashSet<_> = starts.iter().map(|(run, _)| *run).collect();
    assert_eq!((starts.len(), engines.len()), (RUNS - cancelled.len(), RUNS - cancelled.len()));
    assert!(engines.iter().all(|run| !cancelled.contains(*run)));
    let most = starts.iter().filter_map(|(_, at_work)| at_work.parse().ok()).max();
    assert_eq!(most, Some(SLOTS), "engines at once");

    // Those that are given a slot at the same time may overtake one another on their way.
    let sfn = rig.server.aws().sfn();
    let started = stream::iter(&queue).map(|run| {
        let arn = format!("{}:{run}", arn::STATE_MACHINE.replace(":stateMachine:", ":execution:"));
        let asked = sfn.describe_execution().execution_arn(arn).send();
        async move { asked.await.map(|execution| (execution.start_date, run)) }
    });
    let mut started: Vec<_> = started.buffered(16).try_collect().await.expect("described");
    started.sort_by_key(|(start, _)| start.as_nanos());
    let places: HashMap<_, _> = queue.iter().zip(0..).collect();
    let overtaken = started.iter().zip(0_usize..).map(|((_, run), at)| at.abs_diff(places[run]));
    assert!(overtaken.max() <= Some(5 * SLOTS));

    // Twice what one run takes by itself: with slots that are just taken by another, some is in vain.
    let calls = rig.server.calls();
    for (call, of_one) in
        [("dynamodb:Query", 6), ("dynamodb:TransactWriteItems", 5), ("lambda:Invoke", 5)]
    {
        assert!(calls[call] <= 2 * of_one * RUNS as u64, "{call}: {}", calls[call]);
    }
    assert_eq!(calls["states:StartExecution"], RUNS as u64);
    assert_eq!(calls["ecs:RunTask"], starts.len() as u64);
    assert!(store.slots().await.expect("read").is_empty());
    assert_eq!(rig.server.shutdown().await, stepwes_local::LeftRunning::default());
}
