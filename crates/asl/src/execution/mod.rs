//! One execution of a machine: its whole state, the events it is told and the commands it gives.

mod children;
mod frame;
mod run;

use std::collections::BTreeMap;
use std::fmt;

use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};

pub(crate) use self::children::{Children, Item, Tolerance};
pub(crate) use self::frame::{Activity, TaskRun};
pub(crate) use self::run::{Begun, Here, Leaving, Run};

use self::frame::{Frame, Step};
use self::run::{data_limit_exceeded, is_too_large};
use crate::failure::Failure;
use crate::history::{Event, EventKind, History, Payload};
use crate::machine::Machine;
use crate::random::Random;

/// The name of one attempt of a task, unique within its execution. Numbers are never used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct TaskId(u64);

impl fmt::Display for TaskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What an execution is started with. Everything but `input` and `seed` is there to be read by
/// expressions, in `$states.context`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Input {
    /// The input of the first state, at most [`crate::MAX_PAYLOAD_BYTES`].
    pub input: Value,
    /// `Execution.Id`: the ARN of the execution.
    pub execution_arn: String,
    /// `Execution.Name`.
    pub name: String,
    /// `Execution.RoleArn`.
    pub role_arn: String,
    /// `StateMachine.Id`: the ARN of the machine.
    pub state_machine_arn: String,
    /// `StateMachine.Name`.
    pub state_machine_name: String,
    /// Where all randomness of the execution comes from: jitter, `$random()`, `$uuid()`,
    /// `$shuffle()`.
    pub seed: u64,
}

impl Input {
    /// An input with names as a local service would give them, and a seed made from `name`.
    pub fn new(name: &str, input: Value) -> Self {
        let prefix = "arn:aws:states:us-east-1:000000000000";
        let mut seed = [0; 8];
        seed.copy_from_slice(&Sha256::digest(name)[..8]);
        Self {
            input,
            execution_arn: format!("{prefix}:execution:machine:{name}"),
            name: name.to_owned(),
            role_arn: "arn:aws:iam::000000000000:role/machine".to_owned(),
            state_machine_arn: format!("{prefix}:stateMachine:machine"),
            state_machine_name: "machine".to_owned(),
            seed: u64::from_le_bytes(seed),
        }
    }
}

/// What the host has to do. Commands are given out once; a host that stopped before it carried
/// them out finds the tasks to start in [`Execution::running_tasks`], and stops those it still runs
/// that are not among them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Command {
    /// Start a task, and tell its outcome by [`Execution::task_succeeded`] or
    /// [`Execution::task_failed`].
    StartTask {
        /// What to name it by.
        id: TaskId,
        /// The Task state.
        state: String,
        /// Its `Resource`: an ARN.
        resource: String,
        /// What to call the resource with: `Arguments`, or else the input of the state.
        arguments: Value,
        /// After how many seconds it will be cancelled, with `States.Timeout`.
        timeout_seconds: Option<u32>,
        /// After how many seconds without [`Execution::task_heartbeat`] it will be cancelled.
        heartbeat_seconds: Option<u32>,
    },
    /// Stop a task; its outcome does not count any more.
    CancelTask {
        /// The task, as [`Command::StartTask`] named it.
        id: TaskId,
    },
}

/// A task that the execution waits for.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RunningTask {
    /// What it is named by.
    pub id: TaskId,
    /// The Task state.
    pub state: String,
    /// Its `Resource`: an ARN.
    pub resource: String,
    /// What the resource was called with.
    pub arguments: Value,
    /// When it was started.
    pub started_at: DateTime<Utc>,
    /// After how many seconds it will be cancelled.
    pub timeout_seconds: Option<u32>,
    /// After how many seconds without a heartbeat it will be cancelled.
    pub heartbeat_seconds: Option<u32>,
}

/// Whether an event about a task was of use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Receipt {
    /// It counts; call [`Execution::poll`] to go on.
    Accepted,
    /// The task is unknown, has ended already, or was cancelled: nothing changed.
    Ignored,
}

/// How far an execution is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "status", rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Status {
    /// It goes on.
    Running,
    /// It ended well.
    Succeeded {
        /// What the last state gave.
        output: Value,
    },
    /// A state failed and nothing caught it, or a Fail state was entered.
    Failed {
        /// The name of the error; a Fail state may give none.
        error: Option<String>,
        /// What went wrong.
        cause: Option<String>,
    },
    /// It took longer than `TimeoutSeconds` of the machine.
    TimedOut,
    /// It was stopped by [`Execution::abort`].
    Aborted {
        /// What the one who stopped it gave as the error.
        error: Option<String>,
        /// What the one who stopped it gave as the cause.
        cause: Option<String>,
    },
}

/// The complete state of one execution, to be stored as a whole (with serde) after each call.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Execution {
    input: Input,
    started_at: DateTime<Utc>,
    stopped_at: Option<DateTime<Utc>>,
    deadline: Option<DateTime<Utc>>,
    status: Status,
    /// What is running; gone when the execution has ended.
    root: Option<Frame>,
    transitions: u64,
    last_task: u64,
    random: Random,
    history: History,
    /// Commands that are not given out yet.
    commands: Vec<Command>,
}

impl Execution {
    /// A new execution, which enters its first state now and does nothing before it is polled.
    pub fn start(machine: &Machine, input: Input, now: DateTime<Utc>) -> Self {
        let seconds = machine.timeout_seconds().map(|s| TimeDelta::seconds(i64::from(s)));
        let mut execution = Self {
            started_at: now,
            stopped_at: None,
            deadline: seconds.map(|seconds| now + seconds),
            status: Status::Running,
            root: None,
            transitions: 0,
            last_task: 0,
            random: Random::new(input.seed),
            history: History::default(),
            commands: Vec::new(),
            input,
        };
        execution.history.add(
            &mut 0,
            now,
            EventKind::ExecutionStarted {
                input: Payload::of(&execution.input.input),
                role_arn: Some(execution.input.role_arn.clone()),
            },
        );
        if is_too_large(&execution.input.input) {
            execution.fail(data_limit_exceeded(&execution.input.name), now);
            return execution;
        }
        let first = execution.input.input.clone();
        let flow = machine.flow();
        let root = Frame::enter(&mut execution.run(now), flow, &flow.start_at, first, None, 0);
        execution.root = Some(root);
        execution
    }

    fn run(&mut self, now: DateTime<Utc>) -> Run<'_> {
        Run {
            now,
            input: &self.input,
            started_at: self.started_at,
            transitions: &mut self.transitions,
            last_task: &mut self.last_task,
            random: &mut self.random,
            history: &mut self.history,
            commands: &mut self.commands,
        }
    }

    /// Goes as far as possible without the outcome of a task or more time: fires the timers that
    /// are due at `now` (Wait, back-off, time-outs, heartbeats), enters and leaves states, and gives
    /// back what the host has to do. `machine` must be the one it was started with.
    ///
    /// Call it after `start`, after each event, and at [`Self::next_wake`]; calling it at any other
    /// time does no harm.
    pub fn poll(&mut self, machine: &Machine, now: DateTime<Utc>) -> Vec<Command> {
        if let Some(mut root) = self.root.take() {
            if self.deadline.is_some_and(|deadline| deadline <= now) {
                let mut last = root.cancel(&mut self.run(now));
                self.history.add(&mut last, now, EventKind::ExecutionTimedOut);
                self.stop(Status::TimedOut, now);
            } else {
                let step = root.advance(&mut self.run(now), machine.flow(), &[]);
                let mut last = root.last_event;
                match step {
                    Step::Blocked => self.root = Some(root),
                    Step::Done(output) => {
                        let event = EventKind::ExecutionSucceeded { output: Payload::of(&output) };
                        self.history.add(&mut last, now, event);
                        self.stop(Status::Succeeded { output }, now);
                    }
                    Step::Failed(failure) => self.fail(failure, now),
                }
            }
        }
        std::mem::take(&mut self.commands)
    }

    fn fail(&mut self, failure: Failure, now: DateTime<Utc>) {
        let Failure { error, cause, .. } = failure;
        let mut last = self.history.last_id();
        let event = EventKind::ExecutionFailed { error: error.clone(), cause: cause.clone() };
        self.history.add(&mut last, now, event);
        self.stop(Status::Failed { error, cause }, now);
    }

    fn stop(&mut self, status: Status, now: DateTime<Utc>) {
        self.status = status;
        self.stopped_at = Some(now);
        self.root = None;
    }

    /// A task ended well and gave `output`. An output over the payload quota is a failure with
    /// `States.DataLimitExceeded`.
    pub fn task_succeeded(&mut self, id: TaskId, output: Value, now: DateTime<Utc>) -> Receipt {
        self.end_task(id, Ok(output), now)
    }

    /// A task failed; `error` is what `ErrorEquals` is compared with.
    pub fn task_failed(
        &mut self,
        id: TaskId,
        error: &str,
        cause: &str,
        now: DateTime<Utc>,
    ) -> Receipt {
        self.end_task(id, Err(Failure::named(error, cause)), now)
    }

    fn end_task(
        &mut self,
        id: TaskId,
        outcome: Result<Value, Failure>,
        now: DateTime<Utc>,
    ) -> Receipt {
        let Some(frame) = self.root.as_mut().and_then(|root| root.find(id)) else {
            return Receipt::Ignored;
        };
        frame.end_task(&mut self.history, outcome, now);
        Receipt::Accepted
    }

    /// A task is alive: its heartbeat time-out starts over.
    pub fn task_heartbeat(&mut self, id: TaskId, now: DateTime<Utc>) -> Receipt {
        self.with_task(id, |task| task.beat(now))
    }

    /// A task waits until the host has room for it: its time-out does not run before
    /// [`Self::task_begun`].
    pub fn task_queued(&mut self, id: TaskId) -> Receipt {
        self.with_task(id, |task| task.deadline = None)
    }

    /// A task that waited has begun at `at`: its time-out runs from then on.
    pub fn task_begun(&mut self, id: TaskId, at: DateTime<Utc>) -> Receipt {
        self.with_task(id, |task| task.begin(at))
    }

    fn with_task(&mut self, id: TaskId, change: impl FnOnce(&mut TaskRun)) -> Receipt {
        let task = self.root.as_mut().and_then(|root| root.find(id)).and_then(Frame::task_mut);
        match task {
            Some(task) => {
                change(task);
                Receipt::Accepted
            }
            None => Receipt::Ignored,
        }
    }

    /// Stops the execution; the tasks to cancel come with the next [`Self::poll`]. Does nothing
    /// when it has ended.
    pub fn abort(&mut self, error: Option<String>, cause: Option<String>, now: DateTime<Utc>) {
        let Some(mut root) = self.root.take() else { return };
        let mut last = root.cancel(&mut self.run(now));
        let event = EventKind::ExecutionAborted { error: error.clone(), cause: cause.clone() };
        self.history.add(&mut last, now, event);
        self.stop(Status::Aborted { error, cause }, now);
    }

    /// When to poll next if no task ends before: the earliest timer. A time in the past says that
    /// something can be done at once; `None`, that only a task's outcome can bring it on.
    pub fn next_wake(&self) -> Option<DateTime<Utc>> {
        let root = self.root.as_ref()?;
        root.next_wake().into_iter().chain(self.deadline).min()
    }

    /// How far it is.
    pub fn status(&self) -> &Status {
        &self.status
    }

    /// Whether it has ended, in whatever way.
    pub fn is_ended(&self) -> bool {
        self.status != Status::Running
    }

    /// What it was started with.
    pub fn input(&self) -> &Input {
        &self.input
    }

    /// When it was started.
    pub fn started_at(&self) -> DateTime<Utc> {
        self.started_at
    }

    /// When it ended.
    pub fn stopped_at(&self) -> Option<DateTime<Utc>> {
        self.stopped_at
    }

    /// How many state transitions Step Functions would bill so far: each state entered, and each
    /// retry.
    pub fn transitions(&self) -> u64 {
        self.transitions
    }

    /// The tasks it waits for, with all that is needed to find or to start them again after the
    /// host stopped.
    pub fn running_tasks(&self) -> Vec<RunningTask> {
        let mut tasks = BTreeMap::new();
        if let Some(root) = &self.root {
            root.each(&mut |frame| {
                if let Activity::Task(task) = &frame.activity {
                    tasks.insert(task.id, task.running(&frame.visit.state));
                }
            });
        }
        tasks.into_values().collect()
    }

    /// The states it is in, outer ones (a Parallel or a Map) before the ones inside them.
    pub fn current_states(&self) -> Vec<&str> {
        let mut states = Vec::new();
        if let Some(root) = &self.root {
            root.each(&mut |frame| states.push(frame.visit.state.as_str()));
        }
        states
    }

    /// What happened, oldest first; the newest 1,000 events.
    pub fn history(&self) -> impl DoubleEndedIterator<Item = &Event> + ExactSizeIterator {
        self.history.events()
    }
}
