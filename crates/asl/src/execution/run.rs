//! What every part of an execution works with while it is polled.

use chrono::{DateTime, SecondsFormat, Utc};
use serde_json::{Map, Value, json};

use super::frame::{Activity, TaskRun, Visit};
use super::{Command, Input, Item, TaskId};
use crate::MAX_PAYLOAD_BYTES;
use crate::expression::{EvaluationError, Scope};
use crate::failure::{DATA_LIMIT_EXCEEDED, Failure, Trouble};
use crate::history::{EventKind, History, json_bytes};
use crate::random::Random;
use crate::states::Exit;

/// The parts of an execution that are the same for all its frames, and the time.
pub(crate) struct Run<'a> {
    pub(crate) now: DateTime<Utc>,
    pub(super) input: &'a Input,
    pub(super) started_at: DateTime<Utc>,
    pub(super) transitions: &'a mut u64,
    pub(super) last_task: &'a mut u64,
    pub(super) random: &'a mut Random,
    pub(super) history: &'a mut History,
    pub(super) commands: &'a mut Vec<Command>,
}

/// Where in an execution something is evaluated.
#[derive(Clone)]
pub(crate) struct Here<'a> {
    pub(crate) visit: &'a Visit,
    /// The Map item that this is about.
    pub(crate) item: Option<&'a Item>,
    /// Outermost scope first.
    pub(crate) variables: &'a [&'a Map<String, Value>],
}

/// How a state began.
pub(crate) enum Begun<'m> {
    /// It waits for something.
    Blocked(Activity),
    /// It is done already.
    Leaving(Leaving<'m>),
}

/// A state that is about to be left.
pub(crate) struct Leaving<'m> {
    pub(crate) exit: &'m Exit,
    /// What it gave, and as what part of `$states`; without, it hands on its input.
    pub(crate) value: Option<(&'static str, Value)>,
}

impl<'m> Leaving<'m> {
    pub(crate) fn unchanged(exit: &'m Exit) -> Self {
        Self { exit, value: None }
    }
}

impl Here<'_> {
    /// `what` as Step Functions words it in a cause.
    pub(crate) fn cause(&self, what: &str) -> String {
        self.visit.cause(what)
    }

    pub(crate) fn check_size(&self, value: &Value) -> Result<(), Failure> {
        if is_too_large(value) { Err(data_limit_exceeded(&self.visit.state)) } else { Ok(()) }
    }
}

pub(super) fn is_too_large(value: &Value) -> bool {
    json_bytes(value) > MAX_PAYLOAD_BYTES
}

/// `whose` is the state or the resource of the task that gave too much.
pub(super) fn data_limit_exceeded(whose: &str) -> Failure {
    Failure::named(
        DATA_LIMIT_EXCEEDED,
        format!(
            "The state/task '{whose}' returned a result with a size exceeding the maximum number \
             of bytes service limit."
        ),
    )
}

impl Run<'_> {
    /// Evaluates expressions; `value` is what `$states` holds besides input and context.
    pub(crate) fn evaluate<T>(
        &mut self,
        here: &Here<'_>,
        value: Option<(&str, &Value)>,
        work: impl FnOnce(&mut Scope<'_>) -> Result<T, EvaluationError>,
    ) -> Result<T, Trouble> {
        let states = || {
            let mut states = json!({"input": here.visit.input, "context": self.context(here)});
            if let Some((part, value)) = value {
                states[part] = value.clone();
            }
            states
        };
        let mut scope = Scope::new(states, here.variables, self.now, self.random.clone());
        let worked = work(&mut scope);
        let random = scope.into_random();
        *self.random = random;
        Ok(worked?)
    }

    /// The context object (Step Functions developer guide, "Accessing execution data from the
    /// Context object").
    fn context(&self, here: &Here<'_>) -> Value {
        let Input {
            input,
            execution_arn,
            name,
            role_arn,
            state_machine_arn,
            state_machine_name,
            ..
        } = self.input;
        let mut context = json!({
            "Execution": {
                "Id": execution_arn,
                "Input": input,
                "Name": name,
                "RoleArn": role_arn,
                "StartTime": time(self.started_at),
                "RedriveCount": 0,
            },
            "State": {
                "EnteredTime": time(here.visit.entered_at),
                "Name": here.visit.state,
                "RetryCount": here.visit.retries,
            },
            "StateMachine": {"Id": state_machine_arn, "Name": state_machine_name},
        });
        if let Some(item) = here.item {
            context["Map"] = json!({"Item": {"Index": item.index, "Value": item.value}});
        }
        context
    }

    pub(crate) fn event(&mut self, last: &mut u64, kind: EventKind) {
        self.history.add(last, self.now, kind);
    }

    pub(crate) fn next_task(&mut self) -> TaskId {
        *self.last_task += 1;
        TaskId(*self.last_task)
    }

    pub(crate) fn start(&mut self, state: &str, task: &TaskRun) {
        self.commands.push(Command::StartTask {
            id: task.id,
            state: state.to_owned(),
            resource: task.resource.clone(),
            arguments: task.arguments.clone(),
            timeout_seconds: task.timeout_seconds,
            heartbeat_seconds: task.heartbeat_seconds,
        });
    }

    /// Has the host stop a task; one that it was not told to start yet is simply not started.
    pub(super) fn cancel(&mut self, task: TaskId) {
        let before = self.commands.len();
        self.commands
            .retain(|command| !matches!(command, Command::StartTask { id, .. } if *id == task));
        if self.commands.len() == before {
            self.commands.push(Command::CancelTask { id: task });
        }
    }
}

fn time(time: DateTime<Utc>) -> String {
    time.to_rfc3339_opts(SecondsFormat::Millis, true)
}
