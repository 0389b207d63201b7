//! What happened in an execution, event by event, as `GetExecutionHistory` tells it.

use std::collections::VecDeque;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::MAX_EVENTS;
use crate::states::StateType;

/// How many events are kept; the oldest go first. Numbers go on counting.
const KEPT_EVENTS: usize = 1000;
/// A value longer than this many bytes as JSON is left out of its event.
const KEPT_BYTES: usize = 4096;

/// An input or output in an event.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Payload {
    /// The value; null when it was left out.
    pub value: Value,
    /// Whether it was left out because it is longer than 4 KiB.
    pub truncated: bool,
}

impl Payload {
    pub(crate) fn of(value: &Value) -> Self {
        let truncated = json_bytes(value) > KEPT_BYTES;
        Self { value: if truncated { Value::Null } else { value.clone() }, truncated }
    }
}

/// The length of `value` as JSON in bytes, which is what the quotas of Step Functions count.
pub(crate) fn json_bytes(value: &Value) -> usize {
    struct Counter(usize);
    impl std::io::Write for Counter {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0 += bytes.len();
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let mut counter = Counter(0);
    match serde_json::to_writer(&mut counter, value) {
        Ok(()) => counter.0,
        Err(_) => usize::MAX,
    }
}

/// One event (Step Functions API reference, `HistoryEvent`).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// Its number; the first event is 1.
    pub id: u64,
    /// The event that led to it; 0 for the first of an execution, and for the state entered first.
    pub previous_id: u64,
    /// When it happened.
    pub time: DateTime<Utc>,
    /// What happened.
    #[serde(flatten)]
    pub kind: EventKind,
}

impl Event {
    /// The name of its type in the Step Functions API, such as `TaskStateEntered`.
    pub fn event_type(&self) -> String {
        self.kind.event_type()
    }
}

/// What an [`Event`] says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
#[expect(missing_docs, reason = "fields are those of the Step Functions event of the same name")]
pub enum EventKind {
    ExecutionStarted {
        input: Payload,
        role_arn: Option<String>,
    },
    ExecutionSucceeded {
        output: Payload,
    },
    ExecutionFailed {
        error: Option<String>,
        cause: Option<String>,
    },
    ExecutionTimedOut,
    ExecutionAborted {
        error: Option<String>,
        cause: Option<String>,
    },
    StateEntered {
        state_type: StateType,
        name: String,
        input: Payload,
    },
    StateExited {
        state_type: StateType,
        name: String,
        output: Payload,
    },
    StateAborted {
        state_type: StateType,
        name: String,
    },
    EvaluationFailed {
        state: String,
        location: Option<String>,
        error: String,
        cause: String,
    },
    TaskScheduled {
        resource: String,
        parameters: Payload,
        timeout_seconds: Option<u32>,
        heartbeat_seconds: Option<u32>,
    },
    TaskStarted {
        resource: String,
    },
    TaskSucceeded {
        resource: String,
        output: Payload,
    },
    TaskFailed {
        resource: String,
        error: Option<String>,
        cause: Option<String>,
    },
    TaskTimedOut {
        resource: String,
        error: Option<String>,
        cause: Option<String>,
    },
    ParallelStateStarted,
    ParallelStateSucceeded,
    ParallelStateFailed,
    MapStateStarted {
        length: usize,
    },
    MapStateSucceeded,
    MapStateFailed,
    MapIterationStarted {
        name: String,
        index: usize,
    },
    MapIterationSucceeded {
        name: String,
        index: usize,
    },
    MapIterationFailed {
        name: String,
        index: usize,
    },
    MapIterationAborted {
        name: String,
        index: usize,
    },
}

impl EventKind {
    fn event_type(&self) -> String {
        let plain = match self {
            Self::StateEntered { state_type, .. } => return format!("{state_type}StateEntered"),
            Self::StateExited { state_type, .. } => return format!("{state_type}StateExited"),
            Self::StateAborted { state_type, .. } => return format!("{state_type}StateAborted"),
            Self::ExecutionStarted { .. } => "ExecutionStarted",
            Self::ExecutionSucceeded { .. } => "ExecutionSucceeded",
            Self::ExecutionFailed { .. } => "ExecutionFailed",
            Self::ExecutionTimedOut => "ExecutionTimedOut",
            Self::ExecutionAborted { .. } => "ExecutionAborted",
            Self::EvaluationFailed { .. } => "EvaluationFailed",
            Self::TaskScheduled { .. } => "TaskScheduled",
            Self::TaskStarted { .. } => "TaskStarted",
            Self::TaskSucceeded { .. } => "TaskSucceeded",
            Self::TaskFailed { .. } => "TaskFailed",
            Self::TaskTimedOut { .. } => "TaskTimedOut",
            Self::ParallelStateStarted => "ParallelStateStarted",
            Self::ParallelStateSucceeded => "ParallelStateSucceeded",
            Self::ParallelStateFailed => "ParallelStateFailed",
            Self::MapStateStarted { .. } => "MapStateStarted",
            Self::MapStateSucceeded => "MapStateSucceeded",
            Self::MapStateFailed => "MapStateFailed",
            Self::MapIterationStarted { .. } => "MapIterationStarted",
            Self::MapIterationSucceeded { .. } => "MapIterationSucceeded",
            Self::MapIterationFailed { .. } => "MapIterationFailed",
            Self::MapIterationAborted { .. } => "MapIterationAborted",
        };
        plain.to_owned()
    }
}

/// The events of an execution, numbered, the newest of them kept.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct History {
    last_id: u64,
    events: VecDeque<Event>,
}

impl History {
    /// Adds an event that followed from `last`, which then is the new one.
    pub(crate) fn add(&mut self, last: &mut u64, time: DateTime<Utc>, kind: EventKind) {
        self.last_id += 1;
        self.events.push_back(Event { id: self.last_id, previous_id: *last, time, kind });
        *last = self.last_id;
        if self.events.len() > KEPT_EVENTS {
            self.events.pop_front();
        }
    }

    pub(crate) fn events(&self) -> impl DoubleEndedIterator<Item = &Event> + ExactSizeIterator {
        self.events.iter()
    }

    /// The number of the newest event, which is how many there have been.
    pub(crate) fn last_id(&self) -> u64 {
        self.last_id
    }

    /// Whether the quota of events is used up.
    pub(crate) fn is_full(&self) -> bool {
        self.last_id >= MAX_EVENTS
    }
}
