//! Random small machines and random hosts: nothing panics, every execution ends, storing it between
//! any two steps changes nothing, and a task is started and ended at most once.

use std::collections::BTreeSet;

use chrono::{DateTime, TimeDelta, TimeZone, Utc};
use proptest::prelude::*;
use serde_json::{Value, json};
use stepwes_asl::{Command, Execution, Input, Machine, Receipt, TaskId};

const RESOURCE: &str = "arn:aws:states:::lambda:invoke";

/// The states of one flow in a row, named after `prefix`, each going on to the next.
fn flow(prefix: String, depth: u32) -> BoxedStrategy<Value> {
    prop::collection::vec(any::<prop::sample::Index>(), 1..4)
        .prop_flat_map(move |kinds| {
            let last = kinds.len() - 1;
            let states: Vec<_> = kinds
                .iter()
                .enumerate()
                .map(|(index, kind)| {
                    let name = format!("{prefix}{index}");
                    let next = (index < last).then(|| format!("{prefix}{}", index + 1));
                    state(&name, next, kind.index(if depth == 0 { 5 } else { 7 }), depth)
                })
                .collect();
            let prefix = prefix.clone();
            states.prop_map(move |states| {
                let named: serde_json::Map<_, _> = states
                    .into_iter()
                    .enumerate()
                    .map(|(index, state)| (format!("{prefix}{index}"), state))
                    .collect();
                json!({"StartAt": format!("{prefix}0"), "States": named})
            })
        })
        .boxed()
}

fn state(name: &str, next: Option<String>, kind: usize, depth: u32) -> BoxedStrategy<Value> {
    let leave = move |mut state: Value| {
        match &next {
            Some(next) => state["Next"] = json!(next),
            None => state["End"] = json!(true),
        }
        state
    };
    let errors = prop::sample::select(vec!["States.ALL", "States.TaskFailed", "E", "F"]);
    let retried = (errors, 0u32..3, any::<bool>());
    match kind {
        0 => Just(leave(
            json!({"Type": "Pass", "Output": {"at": "{% $states.context.State.Name %}"}}),
        ))
        .boxed(),
        1 => (0u32..9).prop_map(move |s| leave(json!({"Type": "Wait", "Seconds": s}))).boxed(),
        2 | 3 => (retried, 1u32..9)
            .prop_map(move |((error, attempts, jitter), timeout)| {
                leave(json!({
                    "Type": "Task", "Resource": RESOURCE, "TimeoutSeconds": timeout,
                    "Retry": [{
                        "ErrorEquals": [error], "MaxAttempts": attempts,
                        "JitterStrategy": if jitter { "FULL" } else { "NONE" },
                    }],
                }))
            })
            .boxed(),
        4 => Just(leave(json!({
            "Type": "Pass", "Assign": {"v": "{% $random() %}"}, "Output": "{% $states.input %}",
        })))
        .boxed(),
        5 => (flow(format!("{name}a"), depth - 1), flow(format!("{name}b"), depth - 1), retried)
            .prop_map(move |(a, b, (error, attempts, _))| {
                leave(json!({
                    "Type": "Parallel", "Branches": [a, b],
                    "Retry": [{"ErrorEquals": [error], "MaxAttempts": attempts}],
                }))
            })
            .boxed(),
        _ => (flow(format!("{name}m"), depth - 1), 0u32..3, 0u32..4)
            .prop_map(move |(processor, limit, tolerated)| {
                leave(json!({
                    "Type": "Map", "Items": [1, 2, 3], "ItemProcessor": processor,
                    "MaxConcurrency": limit, "ToleratedFailureCount": tolerated,
                }))
            })
            .boxed(),
    }
}

/// Variables would clash between scopes: each state that assigns has one of its own.
fn rename(value: &mut Value, count: &mut u32) {
    match value {
        Value::Object(fields) => {
            if let Some(Value::Object(assign)) = fields.get_mut("Assign")
                && let Some(value) = assign.remove("v")
            {
                *count += 1;
                assign.insert(format!("v{count}"), value);
            }
            fields.values_mut().for_each(|field| rename(field, count));
        }
        Value::Array(items) => items.iter_mut().for_each(|item| rename(item, count)),
        _ => {}
    }
}

fn machines() -> impl Strategy<Value = Value> {
    flow("s".to_owned(), 2).prop_map(|mut machine| {
        machine["QueryLanguage"] = json!("JSONata");
        machine["TimeoutSeconds"] = json!(300);
        rename(&mut machine, &mut 0);
        machine
    })
}

/// What the host does next.
#[derive(Clone, Debug)]
enum Act {
    Wait(u32),
    Succeed(usize),
    Fail(usize, bool),
    /// Tells of a task that may have ended long ago.
    Stale(u64),
    Abort,
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let act = prop_oneof![
        3 => (0u32..12).prop_map(Act::Wait),
        6 => (0usize..8).prop_map(Act::Succeed),
        3 => (0usize..8, any::<bool>()).prop_map(|(task, e)| Act::Fail(task, e)),
        1 => (0u64..20).prop_map(Act::Stale),
        1 => prop::bool::weighted(0.1).prop_map(|yes| if yes { Act::Abort } else { Act::Wait(1) }),
    ];
    prop::collection::vec(act, 0..60)
}

fn start_time() -> DateTime<Utc> {
    Utc.with_ymd_and_hms(2025, 1, 1, 0, 0, 0).single().expect("a valid time")
}

fn play(machine: &Machine, acts: &[Act], store: bool) -> Execution {
    let mut now = start_time();
    let mut execution = Execution::start(machine, Input::new("random", json!({})), now);
    let (mut started, mut cancelled) = (BTreeSet::new(), BTreeSet::new());
    let ending = std::iter::repeat_n(&Act::Wait(12), 40);
    for act in acts.iter().chain(ending) {
        if store {
            let text = serde_json::to_string(&execution).expect("plain data");
            execution = serde_json::from_str(&text).expect("what was just written");
        }
        for command in execution.poll(machine, now) {
            match command {
                Command::StartTask { id, .. } => assert!(started.insert(id), "{id} starts twice"),
                Command::CancelTask { id } => {
                    assert!(started.contains(&id), "{id} was never started");
                    assert!(cancelled.insert(id), "{id} is cancelled twice");
                }
            }
        }
        let running = execution.running_tasks();
        assert!(
            running.iter().all(|task| started.contains(&task.id) && !cancelled.contains(&task.id))
        );
        assert_eq!(
            execution.is_ended(),
            execution.next_wake().is_none(),
            "every wait has an end here"
        );
        if let Some(wake) = execution.next_wake() {
            assert!(wake > now, "after a poll nothing is due");
        }
        let chosen = |index: usize| running.get(index % running.len().max(1)).map(|task| task.id);
        match act {
            Act::Wait(seconds) => now += TimeDelta::seconds(i64::from(*seconds)),
            Act::Succeed(index) => {
                if let Some(id) = chosen(*index) {
                    assert_eq!(
                        execution.task_succeeded(id, json!({"ok": id}), now),
                        Receipt::Accepted
                    );
                    assert_eq!(execution.task_failed(id, "E", "twice", now), Receipt::Ignored);
                }
            }
            Act::Fail(index, e) => {
                if let Some(id) = chosen(*index) {
                    let error = if *e { "E" } else { "F" };
                    assert_eq!(execution.task_failed(id, error, "c", now), Receipt::Accepted);
                }
            }
            Act::Stale(number) => {
                let id: TaskId = serde_json::from_value(json!(number)).expect("a number");
                if !running.iter().any(|task| task.id == id) {
                    assert_eq!(execution.task_succeeded(id, json!(0), now), Receipt::Ignored);
                }
            }
            Act::Abort => execution.abort(None, None, now),
        }
    }
    assert!(execution.is_ended(), "the machine has a time-out: {:?}", execution.status());
    assert_eq!(execution.poll(machine, now), []);
    execution
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, ..ProptestConfig::default() })]

    #[test]
    fn random_machines_with_random_hosts_end_and_can_be_stored_at_every_step(
        definition in machines(),
        acts in acts(),
    ) {
        let machine = Machine::load(&definition.to_string()).expect("a valid machine");
        let stored = play(&machine, &acts, true);
        prop_assert_eq!(play(&machine, &acts, false), stored);
    }

    #[test]
    fn no_text_makes_loading_panic(text in ".{0,200}") {
        let _ = Machine::load(&text);
    }

    #[test]
    fn a_definition_with_anything_in_a_field_loads_or_is_refused(
        field in prop::sample::select(vec![
            "Type", "Next", "End", "Output", "Assign", "Retry", "Catch", "Resource", "Arguments",
            "TimeoutSeconds", "Items", "Branches", "ItemProcessor", "Choices", "Seconds",
        ]),
        kind in prop::sample::select(vec![
            "Task", "Choice", "Wait", "Pass", "Succeed", "Fail", "Parallel", "Map",
        ]),
        value in prop::sample::select(vec![
            json!(null), json!(true), json!(-1), json!(1.5), json!(1e300), json!(""), json!("{%%}"),
            json!("{%"), json!("{% $ %}"), json!([]), json!([null]), json!([{}]), json!({}),
            json!({"a": {"b": []}}),
        ]),
    ) {
        let mut state = json!({"Type": kind});
        state[field] = value;
        let machine = json!({"QueryLanguage": "JSONata", "StartAt": "A", "States": {"A": state}});
        if let Ok(machine) = Machine::load(&machine.to_string()) {
            let mut execution =
                Execution::start(&machine, Input::new("any", json!([1])), start_time());
            execution.poll(&machine, start_time());
        }
    }
}
