//! Each function is killed at each of its calls, before and after their effects, is not answered, is
//! answered wrongly, is told late, and is invoked twice, over the machine that is deployed: the run
//! ends as it would have, by a whole history, its engine is not started again, and the counts know.

mod common;

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    fs,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures::{StreamExt as _, stream};
use stepwes_core::{RunId, RunState, keys};
use stepwes_local::{
    Server, arn,
    faults::{Fault, FaultPlan, FaultyCall, When},
};

/// How many runs are played at once. Each has a slot: how runs wait is none of this.
const AT_ONCE: usize = 24;

/// Not a test: the engine task of the others.
#[tokio::test]
#[ignore = "is run by the server"]
async fn stub_engine() {
    common::stub::run().await;
}

/// One call of a run.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Point {
    /// The function that makes it; empty for the state machine, engine tasks and callers.
    function: String,
    service: String,
    operation: String,
    nth: u64,
}

/// Lets one call go wrong in each run, by the run's key; and others in all runs.
#[derive(Debug)]
struct Script {
    always: fn(&FaultyCall<'_>) -> Option<Fault>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    cases: HashMap<String, (Point, Fault)>,
    /// How many calls there were of each run, function, service and operation.
    counts: HashMap<(String, String, String, String), u64>,
    points: HashMap<String, BTreeSet<Point>>,
    met: HashSet<String>,
}

impl FaultPlan for Script {
    fn fault(&self, call: &FaultyCall<'_>) -> Option<Fault> {
        let function = call.function.unwrap_or_default().to_owned();
        let (service, operation) = (call.service.to_owned(), call.operation.to_owned());
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let alike = (call.run.to_owned(), function.clone(), service.clone(), operation.clone());
        let count = state.counts.entry(alike).or_default();
        let nth = *count;
        *count += 1;
        let point = Point { function, service, operation, nth };
        let fault = state.cases.get(call.run).filter(|(at, _)| *at == point).map(|case| case.1);
        if fault.is_some() {
            state.met.insert(call.run.to_owned());
        } else {
            state.points.entry(call.run.to_owned()).or_default().insert(point);
        }
        fault.or_else(|| (self.always)(call))
    }
}

/// What becomes of a run, but for the faults.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Story {
    Completes,
    IsCancelled,
    /// Its first task ends without a result.
    LosesItsTask,
    /// submit cannot start its execution, so that reconcile does.
    IsNotStarted,
    /// Its execution is stopped while its engine is at work.
    LosesItsExecution,
}

impl Story {
    const fn end(self) -> RunState {
        match self {
            Self::Completes | Self::LosesItsTask | Self::IsNotStarted => RunState::Complete,
            Self::IsCancelled => RunState::Canceled,
            Self::LosesItsExecution => RunState::SystemError,
        }
    }

    /// The engine task.
    fn script(self, folder: &Path) -> String {
        let path = |name: &str| folder.join(name).display().to_string();
        let log = path("starts");
        let mut exports = vec![("STUB_LOG", log.clone())];
        if matches!(self, Self::IsCancelled | Self::LosesItsExecution) {
            common::hold(folder, "hold");
            exports.push(("STUB_HOLD_RUNNING", path("hold")));
        }
        let exports: Vec<_> = exports.iter().map(|(name, value)| (*name, &**value)).collect();
        let stub = common::stub_engine(&exports);
        if self == Self::LosesItsTask {
            let gone = format!("echo $STEPWES_RUN_ID 1 $$ >> '{log}'; exit 1");
            return format!("[ $STEPWES_ATTEMPT = 1 ] && {{ {gone}; }}\n{stub}");
        }
        stub
    }

    /// What goes wrong in every run.
    fn always(self) -> fn(&FaultyCall<'_>) -> Option<Fault> {
        match self {
            Self::IsNotStarted => |call| {
                (call.operation == "StartExecution" && call.function == Some("stepwes-submit"))
                    .then_some(Fault::Failed(When::Before))
            },
            _ => |_| None,
        }
    }

    /// Whether the story is about this call: what the others do is played in theirs.
    fn is_about(self, point: &Point) -> bool {
        let Point { function, service, operation, .. } = point;
        let functions: &[&str] = match self {
            Self::Completes => {
                &["stepwes-submit", "stepwes-advance", "stepwes-report", "stepwes-collect"]
            }
            Self::IsCancelled => &["stepwes-cancel", "stepwes-collect"],
            Self::LosesItsTask => &["stepwes-advance", "stepwes-collect"],
            Self::IsNotStarted | Self::LosesItsExecution => &["stepwes-reconcile"],
        };
        let by_function = functions.contains(&&**function);
        let invocation = service == "lambda" && functions.contains(&&**operation);
        let api = service == "apigateway"
            && (self == Self::Completes || operation.ends_with("/cancel"))
            && operation.starts_with("POST");
        let task = service == "ecs" && operation == "RunTask" && self == Self::Completes;
        by_function || (function.is_empty() && (invocation || api || task))
    }

    /// Submits a run and lets the story happen; gives the run at its end.
    async fn play(self, server: &Server, key: &str) -> RunId {
        let url = format!("{}/ga4gh/wes/v1/runs", server.url());
        let answer = persist(|| {
            common::http().post(&url).header("Idempotency-Key", key).multipart(common::form())
        });
        let run: RunId =
            answer.await["run_id"].as_str().expect("a run id").parse().expect("a run id");
        if matches!(self, Self::IsCancelled | Self::LosesItsExecution) {
            until(server, run, |state| state == RunState::Running).await;
        }
        match self {
            Self::IsCancelled => {
                persist(|| common::http().post(format!("{url}/{run}/cancel"))).await;
            }
            Self::LosesItsExecution => {
                let execution = format!("{}{run}", arn::EXECUTION_PREFIX);
                let stop = server.aws().sfn().stop_execution().execution_arn(execution);
                stop.send().await.expect("stopped");
            }
            Self::Completes | Self::LosesItsTask | Self::IsNotStarted => {}
        }
        until(server, run, RunState::is_terminal).await;
        run
    }
}

/// Sends a request until it is answered with 200, as a client should after no answer, 429 and 5xx.
async fn persist(request: impl Fn() -> reqwest::RequestBuilder) -> serde_json::Value {
    for _ in 0..1000 {
        if let Ok(answer) = request().send().await {
            let status = answer.status().as_u16();
            if status == 200
                && let Ok(answer) = answer.json().await
            {
                return answer;
            }
            assert!(matches!(status, 200 | 429 | 500..), "{status}");
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("it is not answered");
}

async fn until(server: &Server, run: RunId, holds: impl Fn(RunState) -> bool) {
    let store = server.aws().store(arn::TABLE);
    for _ in 0..2000 {
        let found = store.get(run).await.expect("the table answers").expect("the run");
        if holds(found.state) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("run {run} goes nowhere");
}

/// What goes wrong with a call.
fn faults(point: &Point) -> Vec<Fault> {
    use Fault::{Dies, Failed, Late, Throttled, TornAnswer, TornRequest, Twice, Unanswered};
    use When::{After, Before};
    let late = Late(Duration::from_millis(150));
    match &*point.service {
        "lambda" => vec![
            Throttled,
            Failed(Before),
            Failed(After),
            Unanswered(Before),
            Unanswered(After),
            late,
            TornAnswer,
            Dies(Before),
            Dies(After),
            Twice,
        ],
        "apigateway" => vec![
            Throttled,
            Failed(Before),
            Failed(After),
            Unanswered(Before),
            Unanswered(After),
            late,
            TornAnswer,
            TornRequest,
        ],
        "ecs" if point.function.is_empty() => {
            vec![Throttled, Failed(Before), Failed(After), Unanswered(After)]
        }
        _ => {
            vec![Failed(Before), Failed(After), Unanswered(After), late, Dies(Before), Dies(After)]
        }
    }
}

/// The key of a case that is played again without others beside it.
fn alone(key: &str) -> String {
    format!("{key}-alone")
}

async fn every_call_goes_wrong_in_every_way(story: Story, expected: &[&str]) {
    let script = Arc::new(Script { always: story.always(), state: Mutex::default() });
    let plan = Arc::clone(&script);
    let folder = tempfile::tempdir().expect("a folder");
    let engine = story.script(folder.path());
    let options = stepwes_local::ServeOptions {
        faults: Some(plan),
        max_engines: std::num::NonZeroUsize::new(AT_ONCE),
        reconcile_interval: Duration::from_secs(1),
        ..common::options(folder.path(), &engine)
    };
    let server = stepwes_local::start(options).await.expect("started");
    let state = || script.state.lock().unwrap_or_else(PoisonError::into_inner);

    let probes = ["probe-1", "probe-2", "probe-3"];
    let mut runs = Vec::new();
    let mut points: Vec<BTreeSet<Point>> = Vec::new();
    for probe in probes {
        runs.push((story.play(&server, probe).await, None));
        // What is still under way for the run, such as the execution's end, is none of the story.
        points.push(state().points[probe].clone());
    }
    // Those that are made each time: reconcile may look at a run by chance.
    let (first, others) = points.split_first().expect("probes");
    let each_time = |point: &&Point| others.iter().all(|points| points.contains(point));
    let points: Vec<_> =
        first.iter().filter(each_time).filter(|point| story.is_about(point)).cloned().collect();
    let operations: BTreeSet<_> =
        points.iter().map(|point| format!("{} {}", point.function, point.operation)).collect();
    for one in expected {
        assert!(operations.contains(*one), "{one} is not called: {operations:?}");
    }
    let cases: Vec<_> = points
        .iter()
        .flat_map(|point| faults(point).into_iter().map(|fault| (point.clone(), fault)))
        .enumerate()
        .map(|(number, case)| (format!("case-{number}"), case))
        .collect();
    state().cases.extend(cases.clone());
    let played: Vec<_> = stream::iter(&cases)
        .map(|(key, case)| {
            let server = &server;
            async move { (story.play(server, key).await, Some((key.clone(), case.clone()))) }
        })
        .buffer_unordered(AT_ONCE)
        .collect()
        .await;
    runs.extend(played);
    // A run may be given its slot by what is done for another one. The calls that it needed nobody
    // to make are made when it is alone.
    let unmet = |key: &String| !state().met.contains(key);
    let unmet: Vec<_> = cases.iter().filter(|(key, _)| unmet(key)).cloned().collect();
    for (key, case) in unmet {
        let alone = alone(&key);
        state().cases.insert(alone.clone(), case.clone());
        runs.push((story.play(&server, &alone).await, Some((alone, case))));
    }

    let store = server.aws().store(arn::TABLE);
    for (run, case) in &runs {
        let history = store.events(*run).await.expect("the table answers");
        let states: Vec<_> = history.iter().map(|event| event.to).collect();
        assert_eq!(states.last(), Some(&story.end()), "{case:?}: {states:?}");
        let ends = states.iter().filter(|state| state.is_terminal()).count();
        assert_eq!(ends, 1, "{case:?}: {states:?}");
        if let Some((key, case)) = case {
            let met = |key: &String| state().met.contains(key);
            assert!(met(key) || met(&alone(key)), "{case:?} was not met");
        }
    }
    for (there, count) in store.counts().await.expect("the table answers") {
        let expected = if there == story.end() { runs.len() } else { 0 };
        assert_eq!(count, i64::try_from(expected).expect("a number"), "{there}");
    }
    let text = fs::read_to_string(folder.path().join("starts")).expect("engines were started");
    let starts: Vec<_> = text.lines().filter_map(|line| line.rsplit_once(' ')).collect();
    let attempts = if story == Story::LosesItsTask { 2 } else { 1 };
    for (run, case) in &runs {
        // A task that was started though RunTask said otherwise exits when it is refused.
        if case.as_ref().is_some_and(|(_, (point, _))| point.operation == "RunTask") {
            continue;
        }
        let of_run = starts.iter().filter(|(start, _)| start.starts_with(&run.to_string()));
        assert_eq!(of_run.count(), attempts, "{case:?}");
    }
    common::until("every task ends", || async {
        let tasks = server.aws().ecs().list_tasks().cluster(arn::CLUSTER).send().await;
        tasks.expect("listed").task_arns().is_empty()
    })
    .await;
    let left = server.shutdown().await;
    assert_eq!((left.tasks.len(), left.waiting), (0, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_that_completes() {
    let expected = [
        " POST /ga4gh/wes/v1/runs",
        " RunTask",
        " stepwes-advance",
        " stepwes-collect",
        " stepwes-report",
        "stepwes-submit GetItem",
        "stepwes-submit PutObject",
        "stepwes-submit TransactWriteItems",
        "stepwes-submit StartExecution",
        "stepwes-advance TransactWriteItems",
        "stepwes-report UpdateItem",
        "stepwes-report AssumeRole",
        "stepwes-report TransactWriteItems",
        "stepwes-collect GetObject",
        "stepwes-collect PutObject",
        "stepwes-collect TransactWriteItems",
    ];
    every_call_goes_wrong_in_every_way(Story::Completes, &expected).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_that_is_cancelled() {
    let expected = [
        " POST /ga4gh/wes/v1/runs/{run_id}/cancel",
        " stepwes-collect",
        "stepwes-cancel TransactWriteItems",
        "stepwes-cancel StopTask",
        "stepwes-collect TransactWriteItems",
    ];
    every_call_goes_wrong_in_every_way(Story::IsCancelled, &expected).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_that_loses_its_task() {
    let expected = [" stepwes-advance", " stepwes-collect", "stepwes-advance TransactWriteItems"];
    every_call_goes_wrong_in_every_way(Story::LosesItsTask, &expected).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_that_reconcile_starts() {
    let expected = [
        "stepwes-reconcile GetItem",
        "stepwes-reconcile DescribeExecution",
        "stepwes-reconcile StartExecution",
    ];
    every_call_goes_wrong_in_every_way(Story::IsNotStarted, &expected).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_that_loses_its_execution() {
    let expected = [
        " stepwes-reconcile",
        "stepwes-reconcile GetItem",
        "stepwes-reconcile DescribeExecution",
        "stepwes-reconcile TransactWriteItems",
    ];
    every_call_goes_wrong_in_every_way(Story::LosesItsExecution, &expected).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_that_is_made_after_its_caller_was_told_that_it_was_not_has_its_request() {
    // Refused at once and for the whole patience, so that the first comes after the last.
    let always = |call: &FaultyCall<'_>| {
        let creates =
            call.operation == "TransactWriteItems" && call.function == Some("stepwes-submit");
        let first = Fault::Late(Duration::from_secs(10));
        creates.then_some(if call.nth == 0 { first } else { Fault::Skewed })
    };
    let plan = Arc::new(Script { always, state: Mutex::default() });
    let engine = common::stub_engine(&[]);
    let rig = common::serve_with(&engine, |options| {
        options.faults = Some(plan);
        // Nobody else gives it its slot: those who ask for it are refused as long.
        options.reconcile_interval = Duration::from_secs(1);
    })
    .await;
    let post = || {
        let url = format!("{}/ga4gh/wes/v1/runs", rig.server.url());
        common::http().post(url).header("Idempotency-Key", "late").multipart(common::form()).send()
    };
    assert_eq!(post().await.expect("answered").status(), 503);
    let store = rig.server.aws().store(arn::TABLE);
    let counts = || async { store.counts().await.expect("the table answers") };
    assert!(counts().await.values().all(|count| *count == 0), "it comes later");
    common::until("the run is made", || async { counts().await.values().any(|n| *n > 0) }).await;
    let answer: serde_json::Value = post().await.expect("answered").json().await.expect("JSON");
    let run: RunId = answer["run_id"].as_str().expect("the run").parse().expect("a run id");
    let request = rig.server.dir().join("s3").join(arn::BUCKET).join(keys::request(run));
    assert!(request.exists());
    until(&rig.server, run, |state| state == RunState::Complete).await;
}

#[tokio::test]
async fn a_caller_who_hangs_up_does_not_cut_a_submission_short() {
    let always = |call: &FaultyCall<'_>| {
        let staging = call.operation == "PutObject" && call.function == Some("stepwes-submit");
        staging.then_some(Fault::Slow(Duration::from_millis(300)))
    };
    let script = Arc::new(Script { always, state: Mutex::default() });
    let plan = Arc::clone(&script);
    let engine = common::stub_engine(&[]);
    let rig = common::serve_with(&engine, |options| options.faults = Some(plan)).await;
    let url = format!("{}/ga4gh/wes/v1/runs", rig.server.url());
    let request = common::http().post(url).header("Idempotency-Key", "gone");
    let asking = tokio::spawn(request.multipart(common::form()).send());
    common::until("it is staged", || async {
        let state = script.state.lock().unwrap_or_else(PoisonError::into_inner);
        let points = state.points.get("gone");
        points.is_some_and(|points| points.iter().any(|point| point.operation == "PutObject"))
    })
    .await;
    asking.abort();
    assert!(asking.await.is_err_and(|error| error.is_cancelled()), "it was answered before");
    let store = rig.server.aws().store(arn::TABLE);
    common::until("the run completes", || async {
        let counts = store.counts().await.expect("the table answers");
        counts[&RunState::Complete] == 1
    })
    .await;
}

#[tokio::test]
async fn a_caller_who_hangs_up_does_not_cut_a_deletion_short() {
    let always = |call: &FaultyCall<'_>| {
        let lists = call.operation == "ListObjectsV2" && call.function == Some("stepwes-cancel");
        lists.then_some(Fault::Slow(Duration::from_millis(300)))
    };
    let script = Arc::new(Script { always, state: Mutex::default() });
    let plan = Arc::clone(&script);
    let engine = common::stub_engine(&[]);
    let rig = common::serve_with(&engine, |options| options.faults = Some(plan)).await;
    let run = common::submit(rig.server.url()).await;
    common::until_state(rig.server.url(), &run, "COMPLETE").await;
    let url = format!("{}/ga4gh/wes/v1/runs/{run}", rig.server.url());
    let asking = tokio::spawn(common::http().delete(url).send());
    common::until("its files are looked for", || async {
        let state = script.state.lock().unwrap_or_else(PoisonError::into_inner);
        let mut points = state.points.values().flatten();
        points.any(|at| at.operation == "ListObjectsV2" && at.function == "stepwes-cancel")
    })
    .await;
    asking.abort();
    assert!(asking.await.is_err_and(|error| error.is_cancelled()), "it was answered before");
    let store = rig.server.aws().store(arn::TABLE);
    let id: RunId = run.parse().expect("a run id");
    common::until("the run is gone", || async {
        store.get(id).await.expect("the table answers").is_none()
    })
    .await;
}
