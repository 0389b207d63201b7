//! Each state change has one log line, and one of each of its metrics, written by whoever made it.

use chrono::TimeDelta;
use serde_json::{Value, json};
use stepwes_core::run_state::{RunEvent as E, RunState};
use stepwes_log::{Metrics, captured::Captured, metrics::STATE_CHANGE};
use stepwes_store::{Change, Created, Holder, Transition};
use tracing::subscriber::set_default;

use crate::support::{World, wire::Fault};

const WRITE: &str = "TransactWriteItems";

fn metrics() -> Option<Metrics> {
    Metrics::named("runs", "stepwes/test".to_owned()).expect("a name")
}

/// What happened, to what, and what it counts.
fn short(lines: &[Value]) -> Vec<(&str, &str, u64)> {
    let text = |value: &'static str| move |line: &&'_ Value| line[value].as_str().is_some();
    assert!(lines.iter().all(|line| text("event")(&line) && text("to")(&line)), "{lines:?}");
    lines
        .iter()
        .map(|line| {
            let counted = line["StateChanges"].as_u64().unwrap_or_default();
            (
                line["event"].as_str().unwrap_or_default(),
                line["to"].as_str().unwrap_or_default(),
                counted,
            )
        })
        .collect()
}

#[tokio::test]
async fn a_runs_whole_way_is_told_once_with_its_times_and_without_its_secrets() {
    let log = Captured::default();
    let _guard = set_default(log.subscriber(metrics()));
    let world = World::new().await;
    let run = world.queued().await;
    let mut tokens = Vec::new();
    for event in [E::Initialize, E::Preempt { attempt: 1, max_attempts: 3 }, E::Run { attempt: 2 }]
    {
        world.clock.advance(TimeDelta::milliseconds(1500));
        let cause = format!("why, and {}", tokens.last().unwrap_or(&String::new()));
        let change = Change { cause, ..Change::default() };
        let told = world.store.transition(run.run_id, event, change).await.expect("an answer");
        let Transition::Moved(run) = told else { panic!("not moved: {told:?}") };
        tokens.push(run.token.expect("a token").secret().to_owned());
    }
    let cancel = Change { cause: String::new(), ..Change::default() };
    world.store.transition(run.run_id, E::Cancel, cancel).await.expect("an answer");

    let text = log.take_text();
    assert!(tokens.iter().all(|token| !text.contains(token)), "{text}");
    assert!(!text.contains("\"ann\""), "an owner may be an e-mail address: {text}");
    let lines: Vec<Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .filter(|line: &Value| line["target"] == STATE_CHANGE)
        .collect();
    assert_eq!(
        short(&lines),
        [
            ("enqueue", "QUEUED", 1),
            ("initialize", "INITIALIZING", 1),
            ("preempt", "INITIALIZING", 1),
            ("run", "RUNNING", 1),
            ("cancel", "CANCELING", 1),
        ]
    );
    let trace_id = run.trace.expect("a trace").trace_id();
    for (line, version) in lines.iter().zip(1..) {
        assert_eq!(line["run_id"], run.run_id.to_string());
        assert_eq!((&line["version"], &line["trace_id"]), (&json!(version), &json!(trace_id)));
        assert_eq!(line["message"], "state changed");
    }
    let preempted = &lines[2];
    assert_eq!((&preempted["from"], &preempted["attempt"]), (&json!("INITIALIZING"), &json!(2)));
    assert_eq!((&preempted["TimeInState"], &preempted["Retries"]), (&json!(1500), &json!(1)));
    assert!(preempted["cause"].as_str().is_some_and(|cause| cause == "why, and …"));
    assert!(lines[0].get("from").is_none() && lines[0].get("TimeInState").is_none());
    let others = lines.iter().enumerate().filter(|(at, _)| *at != 2);
    assert!(others.map(|(_, line)| line).all(|line| line.get("Retries").is_none()));
}

#[tokio::test]
async fn what_changes_nothing_has_no_line() {
    let world = World::new().await;
    let run = world.initializing().await;
    let new = world.keyed("ann", "k", "f");
    world.store.create(new.clone()).await.expect("created");
    let log = Captured::default();
    let _guard = set_default(log.subscriber(metrics()));
    world.tell(run.run_id, E::Initialize).await;
    world.tell(run.run_id, E::Complete { attempt: 1 }).await;
    let change = Change { holder: Holder::Task("another".into()), ..Change::default() };
    let event = E::SystemError { attempt: 1 };
    world.store.transition(run.run_id, event, change).await.expect("an answer");
    assert!(matches!(world.store.create(new).await, Ok(Created::Existing(_))));
    world.tell(world.id(), E::Cancel).await;
    assert_eq!(log.take_of(STATE_CHANGE), [] as [Value; 0]);
}

#[tokio::test]
async fn a_change_whose_answer_was_lost_is_told_once_as_it_was_made() {
    for world in [World::new().await, World::retrying().await] {
        let log = Captured::default();
        let _guard = set_default(log.subscriber(metrics()));
        world.wire.next(WRITE, Fault::LostAnswer);
        let run = world.queued().await;
        world.wire.next(WRITE, Fault::LostAnswer);
        world.step(run.run_id, E::Initialize).await;
        let lines = log.take_of(STATE_CHANGE);
        let expected = [("enqueue", "QUEUED", 1), ("initialize", "INITIALIZING", 1)];
        assert_eq!(short(&lines), expected);
        assert_eq!((&lines[1]["from"], &lines[1]["version"]), (&json!("QUEUED"), &json!(2)));
    }
}

#[tokio::test]
async fn ours_is_told_as_ours_though_others_went_on_before_we_knew() {
    let world = World::new().await;
    let run = world.initializing().await;
    let log = Captured::default();
    let _guard = set_default(log.subscriber(metrics()));
    world.wire.next(WRITE, Fault::LostAnswer);
    let (other, run_id) = (world.clone(), run.run_id);
    let meanwhile = async move {
        other.step(run_id, E::Cancel).await;
    };
    world.wire.next("GetItem", Fault::Meanwhile(Box::pin(async {})));
    world.wire.next("GetItem", Fault::Meanwhile(Box::pin(meanwhile)));
    let run = world.step(run_id, E::Run { attempt: 1 }).await;
    assert_eq!(run.state, RunState::Canceling);
    let mut lines = log.take_of(STATE_CHANGE);
    lines.sort_by_key(|line| line["version"].as_u64());
    assert_eq!(short(&lines), [("run", "RUNNING", 1), ("cancel", "CANCELING", 1)]);
}

#[tokio::test]
async fn a_run_that_fails_by_our_fault_is_an_error_in_the_log() {
    let world = World::new().await;
    let run = world.initializing().await;
    let log = Captured::default();
    let _guard = set_default(log.subscriber(None));
    world.step(run.run_id, E::SystemError { attempt: 1 }).await;
    let lines = log.take_of(STATE_CHANGE);
    assert_eq!((&lines[0]["level"], &lines[0]["to"]), (&json!("ERROR"), &json!("SYSTEM_ERROR")));
    assert!(lines[0].get("_aws").is_none(), "nobody asked for metrics");
}
