//! The state machine held against the code that it calls: what it catches, what it sends, and that
//! there is a way for every answer.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};
use stepwes_core::{
    RunState,
    run_state::EventKind,
    step::{AdvanceInput, CollectInput, ExecutionInput, Next, error_type},
    task::{EcsTask, env},
};

const MACHINE: &str = include_str!("../../../infra/run.asl.json");
const RUN: &str = "01890a5d-ac96-774b-bcce-b302099a8057";

/// What the template fills in.
const SUBSTITUTIONS: [&str; 9] = [
    "AdvanceFunctionArn",
    "AssignPublicIp",
    "CapacityProvider",
    "ClusterArn",
    "CollectFunctionArn",
    "Partition",
    "SecurityGroup",
    "Subnets",
    "TaskDefinitionArn",
];

/// The errors of AWS's that are worth trying again. Step Functions developer guide: "Handle
/// transient Lambda service exceptions", "Handling errors in Step Functions workflows", "Run Amazon
/// ECS or Fargate tasks with Step Functions"; `Runtime.ExitError` is a function that crashed.
const AWS_ERRORS: [&str; 14] = [
    "AmazonECS.Unknown",
    "ECS.AmazonECSException",
    "ECS.SdkClientException",
    "ECS.ServerException",
    "ECS.ThrottlingException",
    "Lambda.AWSLambdaException",
    "Lambda.ClientExecutionTimeoutException",
    "Lambda.SdkClientException",
    "Lambda.ServiceException",
    "Lambda.TooManyRequestsException",
    "Lambda.Unknown",
    "Runtime.ExitError",
    "Sandbox.Timedout",
    "States.Timeout",
];

const OUR_ERRORS: [&str; 4] = [
    error_type::UNAVAILABLE,
    error_type::RUN_NOT_FOUND,
    error_type::STALE_ATTEMPT,
    error_type::INTERNAL,
];

const ENDS: [Next; 5] =
    [Next::Complete, Next::ExecutorError, Next::SystemError, Next::Canceled, Next::Preempted];

fn machine() -> Value {
    serde_json::from_str(MACHINE).expect("the machine is JSON")
}

fn states() -> BTreeMap<String, Map<String, Value>> {
    let Value::Object(states) = machine()["States"].take() else { panic!("no states") };
    states
        .into_iter()
        .map(|(name, state)| match state {
            Value::Object(fields) => (name, fields),
            other => panic!("{name} is {other}"),
        })
        .collect()
}

fn tasks() -> impl Iterator<Item = (String, Map<String, Value>)> {
    states().into_iter().filter(|(_, state)| state["Type"] == "Task")
}

fn list(state: &Map<String, Value>, field: &str) -> Vec<Value> {
    state.get(field).and_then(Value::as_array).cloned().unwrap_or_default()
}

fn errors(entry: &Value) -> Vec<String> {
    let names = entry["ErrorEquals"].as_array().expect("ErrorEquals");
    names.iter().map(|name| name.as_str().expect("a name").to_owned()).collect()
}

fn name_of(next: Next) -> String {
    serde_json::to_value(next).expect("a name").as_str().expect("a name").to_owned()
}

/// Where a Choice goes for an answer; its conditions are all of one form.
fn choose(state: &Map<String, Value>, next: Next) -> String {
    let wanted = format!("{{% $states.input.next = '{}' %}}", name_of(next));
    let to = list(state, "Choices")
        .iter()
        .find(|choice| choice["Condition"] == json!(wanted))
        .map_or_else(|| state["Default"].clone(), |choice| choice["Next"].clone());
    to.as_str().expect("a state").to_owned()
}

#[test]
fn it_is_jsonata_and_starts_where_a_run_does() {
    let machine = machine();
    assert_eq!(machine["QueryLanguage"], "JSONata");
    assert_eq!(machine["StartAt"], RunState::Queued.as_str());
    let (seconds, attempts, longest) =
        (machine["TimeoutSeconds"].as_u64().expect("a number"), 3, 864_000);
    assert!(seconds > attempts * longest, "there is time for every attempt of the longest run");
}

#[test]
fn its_states_show_the_states_of_a_run() {
    let names: Vec<_> = states().into_keys().collect();
    for state in RunState::ALL.iter().filter(|state| **state != RunState::Canceling) {
        let shown = |name: &String| name.split(", ").any(|part| part == state.as_str());
        assert!(names.iter().any(shown), "{state} is not to be seen");
    }
    assert!(
        names.iter().all(|name| name.chars().count() <= 80),
        "names have 80 characters at most"
    );
}

#[test]
fn every_task_has_a_timeout_and_catches_everything_but_the_last_resort() {
    for (name, state) in tasks() {
        assert!(state.contains_key("TimeoutSeconds"), "{name}");
        let caught = list(&state, "Catch").iter().any(|entry| errors(entry) == ["States.ALL"]);
        assert_eq!(caught, name != "A step failed", "{name}");
        assert!(!list(&state, "Retry").is_empty(), "{name}");
    }
}

#[test]
fn a_collect_that_is_given_up_records_nothing_and_lets_reconcile_look_again() {
    let states = states();
    let caught = list(&states["Collect"], "Catch");
    assert_eq!(caught, [json!({"ErrorEquals": ["States.ALL"], "Next": "Not collected"})]);
    assert_eq!(states["Not collected"]["Type"], "Fail");
}

#[test]
fn every_error_it_names_exists_and_named_ones_come_first() {
    for (name, state) in tasks() {
        for field in ["Retry", "Catch"] {
            let entries = list(&state, field);
            for (at, entry) in entries.iter().enumerate() {
                for error in errors(entry) {
                    if error == "States.ALL" {
                        assert_eq!(at + 1, entries.len(), "{name}: {error} is not last");
                        assert_eq!(errors(entry).len(), 1, "{name}: {error} is not alone");
                    } else if error.starts_with("Stepwes.") {
                        assert!(OUR_ERRORS.contains(&error.as_str()), "{name}: {error}");
                    } else {
                        assert!(AWS_ERRORS.contains(&error.as_str()), "{name}: {error}");
                    }
                }
            }
        }
    }
}

#[test]
fn it_tries_again_what_passes_and_nothing_that_stays() {
    for (name, state) in tasks().filter(|(_, state)| is_lambda(state)) {
        let retried: BTreeSet<_> = list(&state, "Retry").iter().flat_map(errors).collect();
        assert!(retried.contains(error_type::UNAVAILABLE), "{name}");
        for stays in [error_type::RUN_NOT_FOUND, error_type::STALE_ATTEMPT] {
            assert!(!retried.contains(stays), "{name}: {stays}");
        }
        // Work that is finished is worth more patience than work that has not begun.
        assert_eq!(retried.contains(error_type::INTERNAL), name == "Collect", "{name}");
        for entry in list(&state, "Retry") {
            assert!(entry["MaxAttempts"].is_u64() && entry["BackoffRate"] == 2, "{name}");
        }
    }
}

fn is_lambda(state: &Map<String, Value>) -> bool {
    state["Resource"] == "arn:${Partition}:states:::lambda:invoke"
}

#[test]
fn every_substitution_is_known_and_used() {
    let used: BTreeSet<_> =
        MACHINE.split("${").skip(1).map(|rest| rest.split('}').next().expect("a name")).collect();
    assert_eq!(used, SUBSTITUTIONS.into());
}

#[test]
fn every_state_is_there_and_can_be_reached() {
    let states = states();
    let mut seen = BTreeSet::new();
    let mut left = vec![machine()["StartAt"].as_str().expect("a state").to_owned()];
    while let Some(name) = left.pop() {
        let state = states.get(&name).unwrap_or_else(|| panic!("no state {name:?}"));
        if !seen.insert(name) {
            continue;
        }
        let mut to = vec![state.get("Next").cloned(), state.get("Default").cloned()];
        for field in ["Choices", "Catch"] {
            to.extend(list(state, field).iter().map(|entry| Some(entry["Next"].clone())));
        }
        left.extend(to.into_iter().flatten().map(|to| to.as_str().expect("a state").to_owned()));
    }
    assert_eq!(seen, states.into_keys().collect());
}

#[test]
fn every_answer_of_advance_has_a_way() {
    let states = states();
    for asker in ["QUEUED", "Attempt lost", "A step failed"] {
        for next in ENDS.into_iter().chain([Next::RunTask]) {
            if asker == "A step failed" && next == Next::RunTask {
                continue;
            }
            let mut at = states[asker]["Next"].as_str().expect("a state").to_owned();
            while states[&at]["Type"] == "Choice" {
                at = choose(&states[&at], next);
            }
            let wanted = if next == Next::RunTask {
                "INITIALIZING, RUNNING".to_owned()
            } else {
                name_of(next)
            };
            assert_eq!(at, wanted, "{next:?} of {asker}");
        }
    }
}

#[test]
fn every_answer_of_collect_has_a_way() {
    let states = states();
    for next in ENDS.into_iter().chain([Next::Retry, Next::Wait]) {
        let to = choose(&states["Ended?"], next);
        let wanted = match next {
            Next::Retry => "Attempt lost".to_owned(),
            Next::Wait => "Task still alive".to_owned(),
            end => name_of(end),
        };
        assert_eq!((states["Collect"]["Next"].as_str(), to), (Some("Ended?"), wanted), "{next:?}");
    }
}

#[test]
fn ends_are_successes_when_the_run_did_what_was_asked() {
    for next in ENDS {
        let kind = &states()[&name_of(next)]["Type"];
        let well = matches!(next, Next::Complete | Next::Canceled);
        assert_eq!(kind, if well { "Succeed" } else { "Fail" }, "{next:?}");
    }
}

#[test]
fn a_run_that_goes_well_takes_at_most_ten_transitions() {
    let states = states();
    let (mut at, mut transitions) = ("QUEUED".to_owned(), 1);
    while let Some(next) = match states[&at]["Type"].as_str() {
        Some("Choice") => {
            let answer = if at == "Attempt?" { Next::RunTask } else { Next::Complete };
            Some(choose(&states[&at], answer))
        }
        _ => states[&at].get("Next").and_then(Value::as_str).map(str::to_owned),
    } {
        at = next;
        transitions += 1;
    }
    assert_eq!((at.as_str(), transitions), ("COMPLETE", 6));
}

/// A value for each expression that stands in a payload.
fn sample(expression: &str) -> Value {
    let task = EcsTask { task_arn: Some("arn:aws:ecs:x".to_owned()), ..EcsTask::default() };
    match expression {
        "$states.input.run_id" | "$run_id" => json!(RUN),
        "$attempt" => json!(1),
        "$states.input.reason" => json!("the cloud took it back"),
        "$states.input.task_arn" => json!("arn:aws:ecs:x"),
        "$states.input.Error" => json!("States.Timeout"),
        "$exists($states.input.Cause) ? $states.input.Cause : ''" => json!(""),
        "$states.input.task" => json!(task),
        "$states.input.error" => Value::Null,
        other => panic!("the machine sends {other}, of which the code knows nothing"),
    }
}

fn filled(value: &Value) -> Value {
    match value {
        Value::String(text) => {
            match text.strip_prefix("{% ").and_then(|rest| rest.strip_suffix(" %}")) {
                Some(expression) => sample(expression),
                None => value.clone(),
            }
        }
        Value::Object(fields) => Value::Object(
            fields.iter().map(|(name, field)| (name.clone(), filled(field))).collect(),
        ),
        other => other.clone(),
    }
}

#[test]
fn every_payload_is_what_its_function_takes() {
    let events = [
        EventKind::Initialize.as_str(),
        EventKind::Preempt { last: false }.as_str(),
        EventKind::SystemError.as_str(),
    ];
    let mut sent = BTreeSet::new();
    for (name, state) in tasks().filter(|(_, state)| is_lambda(state)) {
        let arguments = &state["Arguments"];
        let payload = filled(&arguments["Payload"]);
        if arguments["FunctionName"] == "${AdvanceFunctionArn}" {
            let event = payload["event"].as_str().expect("an event").to_owned();
            assert!(events.contains(&event.as_str()), "{name}: {event}");
            sent.insert(event);
            let read: AdvanceInput = serde_json::from_value(payload.clone())
                .unwrap_or_else(|error| panic!("{name}: {error}"));
            assert_eq!(serde_json::to_value(read).expect("JSON"), payload, "{name}");
        } else {
            assert_eq!(arguments["FunctionName"], "${CollectFunctionArn}", "{name}");
            let read: CollectInput =
                serde_json::from_value(payload).unwrap_or_else(|error| panic!("{name}: {error}"));
            assert!(read.task.is_some() && read.error.is_none(), "{name}");
        }
    }
    assert_eq!(sent, events.map(str::to_owned).into(), "every event of advance is sent");
}

#[test]
fn the_failed_step_reaches_collect_as_it_reads_errors() {
    let run_task = states().remove("INITIALIZING, RUNNING").expect("the state");
    let caught = &list(&run_task, "Catch")[0];
    assert_eq!(caught["Output"], json!({"task": null, "error": "{% $states.errorOutput %}"}));
    let without_cause =
        json!({"run_id": RUN, "attempt": 1, "task": null, "error": {"Error": "States.Timeout"}});
    let read: CollectInput = serde_json::from_value(without_cause).expect("an input");
    assert_eq!(read.error.map(|error| error.cause), Some(String::new()));
}

#[test]
fn its_input_is_the_run_id_alone() {
    let input: ExecutionInput = serde_json::from_value(json!({"run_id": RUN})).expect("an input");
    assert_eq!(serde_json::to_value(input).expect("JSON"), json!({"run_id": RUN}));
    let used: BTreeSet<_> = MACHINE
        .split("$states.input.")
        .skip(1)
        .filter_map(|rest| rest.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').next())
        .collect();
    let fields = [
        "Cause",
        "Error",
        "attempt",
        "error",
        "next",
        "reason",
        "run_id",
        "size",
        "task",
        "task_arn",
        "timeout_seconds",
        "token",
    ];
    assert_eq!(used, fields.into());
}

#[test]
fn the_task_is_told_who_it_is() {
    let run_task = states().remove("INITIALIZING, RUNNING").expect("the state");
    // The size is what advance answers: fields that a task has or has not.
    let overrides = run_task["Arguments"]["Overrides"].as_str().expect("an expression");
    let names: Vec<_> = overrides
        .split("'Name': '")
        .skip(1)
        .map(|rest| rest.split('\'').next().expect("a name"))
        .collect();
    assert_eq!(names, ["engine", env::RUN_ID, env::ATTEMPT, env::TOKEN]);
    assert!(overrides.starts_with("{% $merge([$states.input.size, {'ContainerOverrides': "));
    assert_eq!(run_task["TimeoutSeconds"], "{% $states.input.timeout_seconds %}");
}

#[test]
fn waits_grow_so_that_the_longest_run_fits_into_a_history() {
    let states = states();
    let wait = &states["Task still alive"];
    assert_eq!(wait["Seconds"], "{% $wait %}");
    assert_eq!(wait["Assign"], json!({"wait": "{% $min([$wait * 2, 600]) %}"}));
    for begins in ["QUEUED", "Attempt lost"] {
        assert_eq!(states[begins]["Assign"]["wait"], 1, "{begins}");
    }
    // A wait and the collect after it write 9 events (entered and exited thrice; scheduled, started
    // and succeeded once); a history holds 25,000.
    let rounds = 864_000 / 600 + 10;
    assert!(rounds * 9 < 25_000);
}
