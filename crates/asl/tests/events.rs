//! What a host may tell an execution, and when: late and repeated outcomes, stops, restarts.

use chrono::{DateTime, TimeDelta, TimeZone, Utc};
use serde_json::{Value, json};
use stepwes_asl::{
    Command, Event, EventKind, Execution, Input, LoadError, MAX_PAYLOAD_BYTES, Machine, Payload,
    Receipt, Status, TaskId,
};

fn now() -> DateTime<Utc> {
    Utc.with_ymd_and_hms(2025, 1, 31, 12, 0, 0).single().expect("a valid time")
}

fn after(seconds: i64) -> DateTime<Utc> {
    now() + TimeDelta::seconds(seconds)
}

fn machine(start: &str, states: &Value) -> Machine {
    let definition = json!({"QueryLanguage": "JSONata", "StartAt": start, "States": states});
    Machine::load(&definition.to_string()).expect("a valid machine")
}

fn task() -> Value {
    json!({"Type": "Task", "Resource": "arn:aws:states:::lambda:invoke", "End": true})
}

fn with(mut state: Value, field: &str, value: Value) -> Value {
    state[field] = value;
    state
}

fn start(machine: &Machine) -> Execution {
    Execution::start(machine, Input::new("e", json!({})), now())
}

fn started(commands: &[Command]) -> Vec<TaskId> {
    commands
        .iter()
        .filter_map(|command| match command {
            Command::StartTask { id, .. } => Some(*id),
            Command::CancelTask { .. } => None,
        })
        .collect()
}

fn only(commands: &[Command]) -> TaskId {
    let [id] = started(commands)[..] else { panic!("one task: {commands:?}") };
    id
}

fn types(execution: &Execution) -> Vec<String> {
    execution.history().map(Event::event_type).collect()
}

#[test]
fn a_machine_is_shared_between_threads_and_tells_its_head() {
    fn shared<T: Send + Sync>(_: &T) {}
    let machine = Machine::load(
        r#"{"QueryLanguage": "JSONata", "Comment": "runs", "StartAt": "A", "TimeoutSeconds": 9,
            "States": {"A": {"Type": "Succeed"}}}"#,
    )
    .expect("a valid machine");
    shared(&machine);
    assert_eq!(machine.comment(), Some("runs"));
    assert_eq!(machine.start_at(), "A");
    assert_eq!(machine.timeout_seconds(), Some(9));
}

#[test]
fn a_refusal_names_state_and_field_apart() {
    let error = Machine::load(
        r#"{"QueryLanguage": "JSONata", "StartAt": "A", "States": {"A": {"Type": "Wait"}}}"#,
    )
    .expect_err("a Wait for nothing");
    let LoadError::Refused { state, field, .. } = error else { panic!("{error}") };
    assert_eq!((state.as_deref(), field.as_str()), (Some("A"), "Seconds"));
}

#[test]
fn a_second_outcome_of_a_task_is_ignored_before_and_after_the_poll() {
    let machine = machine(
        "T",
        &json!({
            "T": {"Type": "Task", "Resource": "arn:aws:states:::lambda:invoke", "Next": "U"},
            "U": task(),
        }),
    );
    let mut execution = start(&machine);
    let first = only(&execution.poll(&machine, now()));
    assert_eq!(execution.task_succeeded(first, json!(1), now()), Receipt::Accepted);
    assert_eq!(execution.task_failed(first, "Late", "", now()), Receipt::Ignored);
    assert_eq!(execution.task_heartbeat(first, now()), Receipt::Ignored);
    let second = only(&execution.poll(&machine, now()));
    assert_ne!(first, second);
    let before = execution.clone();
    assert_eq!(execution.task_succeeded(first, json!(2), now()), Receipt::Ignored);
    assert_eq!(execution, before);
    assert_eq!(execution.task_succeeded(second, json!(3), now()), Receipt::Accepted);
    execution.poll(&machine, now());
    assert_eq!(execution.status(), &Status::Succeeded { output: json!(3) });
    assert_eq!(execution.task_succeeded(second, json!(4), now()), Receipt::Ignored);
}

#[test]
fn the_outcome_of_a_timed_out_task_is_ignored_while_its_retry_runs() {
    let state = with(
        with(task(), "TimeoutSeconds", json!(5)),
        "Retry",
        json!([{"ErrorEquals": ["States.Timeout"], "IntervalSeconds": 2}]),
    );
    let machine = machine("T", &json!({"T": state}));
    let mut execution = start(&machine);
    let first = only(&execution.poll(&machine, now()));
    assert_eq!(execution.next_wake(), Some(after(5)));
    assert_eq!(execution.poll(&machine, after(5)), [Command::CancelTask { id: first }]);
    assert_eq!(execution.next_wake(), Some(after(7)));
    assert_eq!(execution.task_succeeded(first, json!("late"), after(6)), Receipt::Ignored);
    let second = only(&execution.poll(&machine, after(7)));
    assert_eq!(execution.task_succeeded(first, json!("later"), after(8)), Receipt::Ignored);
    assert_eq!(execution.task_succeeded(second, json!("fine"), after(8)), Receipt::Accepted);
    execution.poll(&machine, after(8));
    assert_eq!(execution.status(), &Status::Succeeded { output: json!("fine") });
}

#[test]
fn the_time_out_of_a_task_that_waits_for_its_host_runs_from_when_it_begins() {
    let machine = machine("T", &json!({"T": with(task(), "TimeoutSeconds", json!(5))}));
    let mut execution = start(&machine);
    let id = only(&execution.poll(&machine, now()));
    assert_eq!(execution.task_queued(id), Receipt::Accepted);
    assert_eq!(execution.next_wake(), None);
    assert_eq!(execution.poll(&machine, after(1000)), []);
    assert_eq!(execution.task_begun(id, after(1000)), Receipt::Accepted);
    assert_eq!(execution.next_wake(), Some(after(1005)));
    assert_eq!(execution.poll(&machine, after(1004)), []);
    assert_eq!(execution.poll(&machine, after(1005)), [Command::CancelTask { id }]);
    assert_eq!(execution.task_begun(id, after(1006)), Receipt::Ignored);
    assert_eq!(execution.task_queued(id), Receipt::Ignored);
}

#[test]
fn an_outcome_told_before_the_time_out_was_noticed_counts() {
    let machine = machine("T", &json!({"T": with(task(), "TimeoutSeconds", json!(5))}));
    let mut execution = start(&machine);
    let id = only(&execution.poll(&machine, now()));
    assert_eq!(execution.task_succeeded(id, json!(1), after(6)), Receipt::Accepted);
    assert_eq!(execution.poll(&machine, after(6)), []);
    assert_eq!(execution.status(), &Status::Succeeded { output: json!(1) });
}

#[test]
fn an_abort_cancels_every_task_and_is_final() {
    let machine = machine(
        "P",
        &json!({"P": {"Type": "Parallel", "End": true, "Branches": [
            {"StartAt": "A", "States": {"A": task()}},
            {"StartAt": "B", "States": {"B": task()}},
        ]}}),
    );
    let mut execution = start(&machine);
    let ids = started(&execution.poll(&machine, now()));
    execution.abort(Some("Stopped".into()), Some("by hand".into()), after(1));
    let aborted = Status::Aborted { error: Some("Stopped".into()), cause: Some("by hand".into()) };
    assert_eq!(execution.status(), &aborted);
    let cancels: Vec<_> = ids.iter().map(|id| Command::CancelTask { id: *id }).collect();
    assert_eq!(execution.poll(&machine, after(1)), cancels);
    assert_eq!(execution.poll(&machine, after(1)), []);
    execution.abort(None, None, after(2));
    assert_eq!(execution.task_succeeded(ids[0], json!(1), after(2)), Receipt::Ignored);
    assert_eq!(execution.status(), &aborted);
    assert_eq!(execution.stopped_at(), Some(after(1)));
    assert_eq!(
        types(&execution)[7..],
        [
            "TaskScheduled",
            "TaskStarted",
            "TaskStateAborted",
            "TaskStateAborted",
            "ParallelStateAborted",
            "ExecutionAborted"
        ]
    );
}

#[test]
fn an_abort_that_was_stored_before_the_poll_still_cancels() {
    let machine = machine("T", &json!({"T": task()}));
    let mut execution = start(&machine);
    let id = only(&execution.poll(&machine, now()));
    execution.abort(None, None, after(1));
    let text = serde_json::to_string(&execution).expect("plain data");
    let mut read: Execution = serde_json::from_str(&text).expect("what was just written");
    assert_eq!(read.poll(&machine, after(2)), [Command::CancelTask { id }]);
}

#[test]
fn an_abort_before_the_first_poll_starts_nothing() {
    let machine = machine("T", &json!({"T": task()}));
    let mut execution = start(&machine);
    execution.abort(None, None, now());
    assert_eq!(execution.poll(&machine, now()), []);
}

#[test]
fn after_a_restart_the_running_tasks_are_told_with_all_that_starts_them_again() {
    let machine = machine(
        "T",
        &json!({"T": {
            "Type": "Task",
            "Resource": "arn:aws:states:::ecs:runTask.sync",
            "Arguments": {"Cluster": "c"},
            "TimeoutSeconds": 60,
            "HeartbeatSeconds": 7,
            "End": true,
        }}),
    );
    let mut execution = start(&machine);
    let id = only(&execution.poll(&machine, now()));
    let text = serde_json::to_string(&execution).expect("plain data");
    let mut read: Execution = serde_json::from_str(&text).expect("what was just written");
    assert_eq!(read.poll(&machine, after(1)), [], "commands are given once");
    let [task] = &read.running_tasks()[..] else { panic!("one task") };
    assert_eq!(task.id, id);
    assert_eq!(task.state, "T");
    assert_eq!(task.resource, "arn:aws:states:::ecs:runTask.sync");
    assert_eq!(task.arguments, json!({"Cluster": "c"}));
    assert_eq!(task.started_at, now());
    assert_eq!((task.timeout_seconds, task.heartbeat_seconds), (Some(60), Some(7)));
    assert_eq!(read.task_succeeded(id, json!("found again"), after(2)), Receipt::Accepted);
    read.poll(&machine, after(2));
    assert_eq!(read.status(), &Status::Succeeded { output: json!("found again") });
}

#[test]
fn polling_again_changes_nothing() {
    let machine = machine("T", &json!({"T": with(task(), "TimeoutSeconds", json!(5))}));
    let mut execution = start(&machine);
    execution.poll(&machine, now());
    let before = execution.clone();
    assert_eq!(execution.poll(&machine, now()), []);
    assert_eq!(execution.poll(&machine, after(4)), []);
    assert_eq!(execution, before);
}

#[test]
fn there_is_something_to_do_at_once_before_the_first_poll_and_after_an_outcome() {
    let machine = machine("T", &json!({"T": task()}));
    let mut execution = start(&machine);
    assert!(execution.next_wake().is_some_and(|wake| wake <= now()));
    let id = only(&execution.poll(&machine, now()));
    assert_eq!(execution.next_wake(), None);
    assert_eq!(execution.task_failed(id, "E", "c", after(1)), Receipt::Accepted);
    assert!(execution.next_wake().is_some_and(|wake| wake <= after(1)));
}

#[test]
fn the_current_states_are_told_from_outside_in() {
    let machine = machine(
        "P",
        &json!({"P": {"Type": "Parallel", "End": true, "Branches": [
            {"StartAt": "A", "States": {"A": task()}},
            {"StartAt": "W", "States": {"W": {"Type": "Wait", "Seconds": 9, "End": true}}},
        ]}}),
    );
    let mut execution = start(&machine);
    execution.poll(&machine, now());
    assert_eq!(execution.current_states(), ["P", "A", "W"]);
    assert_eq!(execution.next_wake(), Some(after(9)));
}

#[test]
fn the_history_is_numbered_and_named_as_step_functions_does() {
    let machine = machine(
        "T",
        &json!({
            "T": {
                "Type": "Task", "Resource": "arn:aws:states:::lambda:invoke", "Next": "S",
                "Retry": [{"ErrorEquals": ["E"]}],
                "Catch": [{"ErrorEquals": ["States.ALL"], "Next": "S"}],
            },
            "S": {"Type": "Pass", "End": true},
        }),
    );
    let mut execution = start(&machine);
    let first = only(&execution.poll(&machine, now()));
    let _ = execution.task_failed(first, "E", "c", now());
    execution.poll(&machine, now());
    let second = only(&execution.poll(&machine, after(1)));
    let _ = execution.task_failed(second, "F", "c", after(1));
    execution.poll(&machine, after(1));
    let events: Vec<_> = execution
        .history()
        .map(|event| (event.id, event.previous_id, event.event_type()))
        .collect();
    let expected = [
        (1, 0, "ExecutionStarted"),
        (2, 0, "TaskStateEntered"),
        (3, 2, "TaskScheduled"),
        (4, 3, "TaskStarted"),
        (5, 4, "TaskFailed"),
        (6, 5, "TaskScheduled"),
        (7, 6, "TaskStarted"),
        (8, 7, "TaskFailed"),
        (9, 8, "TaskStateExited"),
        (10, 9, "PassStateEntered"),
        (11, 10, "PassStateExited"),
        (12, 11, "ExecutionSucceeded"),
    ];
    assert_eq!(events, expected.map(|(id, previous, name)| (id, previous, name.to_owned())));
}

#[test]
fn the_history_keeps_the_newest_thousand_events() {
    let machine = machine(
        "A",
        &json!({
            "A": {"Type": "Pass", "Next": "B"},
            "B": {"Type": "Choice", "Choices": [{"Condition": true, "Next": "A"}], "Default": "C"},
            "C": {"Type": "Succeed"},
        }),
    );
    let mut execution = start(&machine);
    execution.poll(&machine, now());
    assert_eq!(execution.history().len(), 1000);
    assert_eq!(execution.history().last().map(|event| event.id), Some(25_001));
}

#[test]
fn the_history_leaves_out_long_payloads_and_says_so() {
    let machine = machine("A", &json!({"A": {"Type": "Succeed", "Output": "short"}}));
    let input = Input::new("e", json!("x".repeat(5000)));
    let mut execution = Execution::start(&machine, input, now());
    execution.poll(&machine, now());
    let payloads: Vec<_> = execution
        .history()
        .filter_map(|event| match &event.kind {
            EventKind::StateEntered { input, .. } => Some(input.clone()),
            EventKind::StateExited { output, .. } => Some(output.clone()),
            _ => None,
        })
        .collect();
    let expected = [
        Payload { value: Value::Null, truncated: true },
        Payload { value: json!("short"), truncated: false },
    ];
    assert_eq!(payloads, expected);
}

#[test]
fn an_input_over_the_quota_fails_the_execution() {
    let machine = machine("T", &json!({"T": task()}));
    let input = json!("x".repeat(MAX_PAYLOAD_BYTES));
    let mut execution = Execution::start(&machine, Input::new("e", input), now());
    assert!(matches!(
        execution.status(),
        Status::Failed { error: Some(error), .. } if error == "States.DataLimitExceeded"
    ));
    assert_eq!(execution.poll(&machine, now()), []);
}

#[test]
fn another_machine_than_the_one_it_was_started_with_fails_it_and_cancels_its_tasks() {
    let machine = machine("T", &json!({"T": task()}));
    let mut execution = start(&machine);
    let id = only(&execution.poll(&machine, now()));
    let other = self::machine("U", &json!({"U": task()}));
    assert_eq!(execution.poll(&other, after(1)), [Command::CancelTask { id }]);
    assert!(matches!(
        execution.status(),
        Status::Failed { error: Some(error), .. } if error == "States.Runtime"
    ));
}

#[test]
fn the_seed_decides_what_is_random() {
    let machine = machine(
        "A",
        &json!({"A": {"Type": "Pass", "Output": "{% [$uuid(), $random()] %}", "End": true}}),
    );
    let run = |seed| {
        let input = Input { seed, ..Input::new("e", json!({})) };
        let mut execution = Execution::start(&machine, input, now());
        execution.poll(&machine, now());
        execution.status().clone()
    };
    assert_eq!(run(1), run(1));
    assert_ne!(run(1), run(2));
}

#[test]
fn a_deeply_nested_expression_loads_or_is_refused() {
    for (open, close) in [("(", ")"), ("[", "]"), ("-", ""), ("$f(", ")"), ("{'a':", "}")] {
        for depth in [100, 900, 20_000] {
            let expression = format!("{}1{}", open.repeat(depth), close.repeat(depth));
            let definition = json!({"QueryLanguage": "JSONata", "StartAt": "A", "States": {
                "A": {"Type": "Succeed", "Output": format!("{{% {expression} %}}")},
            }});
            let loaded = Machine::load(&definition.to_string());
            assert!(loaded.is_ok() || depth > 100, "{open} {depth}: {loaded:?}");
        }
    }
}
