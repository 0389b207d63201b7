//! Plays a case: a host with a clock of its own, whose tasks do what the case says.

use std::collections::BTreeMap;

use chrono::{DateTime, TimeDelta, TimeZone, Utc};
use serde::{Deserialize, Deserializer};
use serde_json::Value;
use stepwes_asl::{Command, EventKind, Execution, Input, Machine, Receipt, Status, TaskId};

/// One case; `tests/cases/README.md` says what the fields mean.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Case {
    pub(crate) name: String,
    pub(crate) definition: Value,
    #[serde(default = "empty")]
    pub(crate) input: Value,
    #[serde(default)]
    pub(crate) tasks: Vec<Task>,
    pub(crate) expect: Expect,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Task {
    pub(crate) state: String,
    pub(crate) arguments: Option<Value>,
    #[serde(default)]
    pub(crate) after: f64,
    #[serde(default)]
    pub(crate) heartbeats: Vec<f64>,
    pub(crate) succeed: Option<Value>,
    pub(crate) succeed_bytes: Option<usize>,
    pub(crate) fail: Option<Failure>,
    #[serde(default)]
    pub(crate) never: bool,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Failure {
    pub(crate) error: String,
    pub(crate) cause: String,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Expect {
    pub(crate) status: String,
    #[serde(default, deserialize_with = "present")]
    pub(crate) output: Option<Value>,
    #[serde(default, deserialize_with = "present")]
    pub(crate) error: Option<Option<String>>,
    #[serde(default, deserialize_with = "present")]
    pub(crate) cause: Option<Option<String>>,
    pub(crate) states: Option<Vec<String>>,
    #[serde(default)]
    #[expect(dead_code, reason = "for interpreters that enter states in another order")]
    pub(crate) concurrent: bool,
    pub(crate) seconds: Option<f64>,
    pub(crate) transitions: Option<u64>,
    pub(crate) cancelled: Option<Vec<String>>,
}

fn empty() -> Value {
    Value::Object(serde_json::Map::new())
}

/// A field that is there, be it null.
fn present<'de, D, T>(value: D) -> Result<Option<T>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    T::deserialize(value).map(Some)
}

/// When every execution of a case starts.
pub(crate) fn start_time() -> DateTime<Utc> {
    Utc.with_ymd_and_hms(2025, 1, 31, 12, 0, 0).single().expect("a valid time")
}

enum Happening {
    Heartbeat(TaskId),
    Succeeded(TaskId, Value),
    Failed(TaskId, Failure),
}

/// What came of a case.
#[derive(Debug, PartialEq)]
pub(crate) struct Played {
    pub(crate) execution: Execution,
    pub(crate) cancelled: Vec<String>,
    pub(crate) commands: Vec<Command>,
    pub(crate) states: Vec<String>,
}

/// Plays `case` to its end; with `store`, the execution is written and read again at every step.
pub(crate) fn play(case: &Case, machine: &Machine, store: bool) -> Played {
    let mut now = start_time();
    let mut execution = Execution::start(machine, Input::new(&case.name, case.input.clone()), now);
    let mut script = case.tasks.clone();
    let mut happenings = BTreeMap::new();
    let mut started: BTreeMap<TaskId, String> = BTreeMap::new();
    let (mut commands, mut cancelled, mut states) = (Vec::new(), Vec::new(), Vec::new());
    let mut seen = 0;
    loop {
        if store {
            let text = serde_json::to_string(&execution).expect("an execution is plain data");
            execution = serde_json::from_str(&text).expect("what was just written");
        }
        for command in execution.poll(machine, now) {
            match &command {
                Command::StartTask { id, state, arguments, .. } => {
                    let found = script.iter().position(|task| task.state == *state);
                    let at = found.unwrap_or_else(|| {
                        panic!("{}: {state} was started once too often", case.name)
                    });
                    let task = script.remove(at);
                    if let Some(expected) = &task.arguments {
                        assert_eq!(arguments, expected, "{}: arguments of {state}", case.name);
                    }
                    for beat in &task.heartbeats {
                        happenings
                            .insert((now + seconds(*beat), *id, 0), Happening::Heartbeat(*id));
                    }
                    let end = (now + seconds(task.after), *id, 1);
                    match (task.succeed, task.succeed_bytes, task.fail, task.never) {
                        (Some(output), None, None, false) => {
                            happenings.insert(end, Happening::Succeeded(*id, output));
                        }
                        (None, Some(bytes), None, false) => {
                            let output = Value::from("x".repeat(bytes));
                            happenings.insert(end, Happening::Succeeded(*id, output));
                        }
                        (None, None, Some(failure), false) => {
                            happenings.insert(end, Happening::Failed(*id, failure));
                        }
                        (None, None, None, true) => {}
                        _ => panic!("{}: {state} must do exactly one thing", case.name),
                    }
                    started.insert(*id, state.clone());
                }
                Command::CancelTask { id } => {
                    cancelled.push(started[id].clone());
                    happenings.retain(|(_, task, _), _| task != id);
                }
            }
            commands.push(command);
        }
        for event in execution.history().filter(|event| event.id > seen) {
            if let EventKind::StateEntered { name, .. } = &event.kind {
                states.push(name.clone());
            }
        }
        seen = execution.history().last().map_or(seen, |event| event.id);
        if execution.is_ended() {
            assert!(execution.running_tasks().is_empty() && execution.next_wake().is_none());
            return Played { execution, cancelled, commands, states };
        }
        let happening = happenings.first_key_value().map(|((at, ..), _)| *at);
        let wake = execution.next_wake();
        let next = happening.into_iter().chain(wake).min();
        now = next.unwrap_or_else(|| panic!("{}: waits for ever", case.name)).max(now);
        if happening == Some(now)
            && let Some((_, happening)) = happenings.pop_first()
        {
            let receipt = match happening {
                Happening::Heartbeat(id) => execution.task_heartbeat(id, now),
                Happening::Succeeded(id, output) => execution.task_succeeded(id, output, now),
                Happening::Failed(id, Failure { error, cause }) => {
                    execution.task_failed(id, &error, &cause, now)
                }
            };
            assert_eq!(receipt, Receipt::Accepted, "{}: of a task that runs", case.name);
        }
    }
}

/// Compares what came of `case` with what it expects.
pub(crate) fn check(case: &Case, played: &Played) {
    let name = &case.name;
    let expect = &case.expect;
    let execution = &played.execution;
    let status = execution.status();
    let (word, output, error, cause) = match status.clone() {
        Status::Succeeded { output } => ("SUCCEEDED", Some(output), None, None),
        Status::Failed { error, cause } => ("FAILED", None, error, cause),
        Status::TimedOut => ("TIMED_OUT", None, None, None),
        other => panic!("{name}: ended as {other:?}"),
    };
    assert_eq!(word, expect.status, "{name}: {status:?}");
    if let Some(expected) = &expect.output {
        assert_eq!(output.as_ref(), Some(expected), "{name}: output");
    }
    if let Some(expected) = &expect.error {
        assert_eq!(&error, expected, "{name}: error, with cause {cause:?}");
    }
    if let Some(expected) = &expect.cause {
        assert_eq!(&cause, expected, "{name}: cause");
    }
    if let Some(expected) = &expect.states {
        assert_eq!(&played.states, expected, "{name}: states");
    }
    if let Some(expected) = expect.seconds {
        let stopped = execution.stopped_at().expect("it has ended");
        assert_eq!(stopped - execution.started_at(), seconds(expected), "{name}: seconds");
    }
    if let Some(expected) = expect.transitions {
        assert_eq!(execution.transitions(), expected, "{name}: transitions");
    }
    if let Some(expected) = &expect.cancelled {
        assert_eq!(&played.cancelled, expected, "{name}: cancelled");
    }
}

fn seconds(seconds: f64) -> TimeDelta {
    #[expect(clippy::cast_possible_truncation, reason = "small numbers")]
    TimeDelta::milliseconds((seconds * 1000.0).round() as i64)
}
