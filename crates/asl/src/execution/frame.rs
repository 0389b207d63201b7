//! One running flow: the machine's own, a branch of a Parallel, or an iteration of a Map.

use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::run::{data_limit_exceeded, is_too_large};
use super::{Begun, Children, Here, Item, Leaving, Run, RunningTask, TaskId};
use crate::MAX_EVENTS;
use crate::failure::{Failure, QUERY_EVALUATION_ERROR, RUNTIME, Trouble};
use crate::history::{EventKind, History, Payload};
use crate::machine::Flow;
use crate::states::{Kind, State, StateType};

/// A flow and where it is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Frame {
    /// The variables of this scope; outer ones are in the frames around it.
    variables: Map<String, Value>,
    /// The Map item that it runs for.
    item: Option<Item>,
    pub(super) visit: Visit,
    pub(super) activity: Activity,
    /// The newest event of this flow.
    pub(super) last_event: u64,
}

/// The stay in one state, from entering it until leaving it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Visit {
    pub(crate) state: String,
    state_type: StateType,
    pub(crate) input: Value,
    /// The event that it was entered with.
    event: u64,
    pub(super) entered_at: DateTime<Utc>,
    /// Retries so far, by whichever retrier.
    pub(super) retries: u32,
    /// Retries so far by each retrier.
    retries_by: Vec<u32>,
}

impl Visit {
    pub(super) fn cause(&self, what: &str) -> String {
        format!(
            "An error occurred while executing the state '{}' (entered at the event id #{}). {what}",
            self.state, self.event
        )
    }
}

/// What a flow does in its state.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) enum Activity {
    /// The state is to be begun, for the first time or again.
    Ready,
    /// A Wait.
    Waiting {
        until: DateTime<Utc>,
    },
    /// Before a retry.
    BackingOff {
        until: DateTime<Utc>,
    },
    Task(TaskRun),
    /// The outcome of a task, not looked at yet.
    TaskEnded {
        outcome: Result<Value, Failure>,
    },
    /// Branches or iterations.
    Children(Children),
}

/// One attempt of a task.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct TaskRun {
    pub(crate) id: TaskId,
    pub(crate) resource: String,
    pub(crate) arguments: Value,
    pub(crate) started_at: DateTime<Utc>,
    pub(crate) timeout_seconds: Option<u32>,
    pub(crate) heartbeat_seconds: Option<u32>,
    pub(crate) deadline: Option<DateTime<Utc>>,
    pub(crate) heartbeat_deadline: Option<DateTime<Utc>>,
}

impl TaskRun {
    pub(super) fn beat(&mut self, now: DateTime<Utc>) {
        let seconds = self.heartbeat_seconds.map(|s| TimeDelta::seconds(i64::from(s)));
        self.heartbeat_deadline = seconds.map(|seconds| now + seconds);
    }

    /// Starts its time-out over.
    pub(super) fn begin(&mut self, at: DateTime<Utc>) {
        let seconds = self.timeout_seconds.map(|s| TimeDelta::seconds(i64::from(s)));
        self.deadline = seconds.map(|seconds| at + seconds);
    }

    pub(super) fn running(&self, state: &str) -> RunningTask {
        RunningTask {
            id: self.id,
            state: state.to_owned(),
            resource: self.resource.clone(),
            arguments: self.arguments.clone(),
            started_at: self.started_at,
            timeout_seconds: self.timeout_seconds,
            heartbeat_seconds: self.heartbeat_seconds,
        }
    }

    /// What it failed with when its time is over; of two time-outs, the one that came first.
    fn timed_out(&self, now: DateTime<Utc>) -> Option<Failure> {
        let due = |at: Option<DateTime<Utc>>| at.filter(|at| *at <= now);
        match (due(self.deadline), due(self.heartbeat_deadline)) {
            (Some(deadline), Some(beat)) if beat < deadline => Some(Failure::heartbeat_timeout()),
            (None, Some(_)) => Some(Failure::heartbeat_timeout()),
            (Some(_), _) => Some(Failure::timeout()),
            (None, None) => None,
        }
    }
}

/// How far a flow got.
pub(crate) enum Step {
    Blocked,
    Done(Value),
    Failed(Failure),
}

impl Frame {
    /// A new flow that enters its first state.
    pub(super) fn enter(
        run: &mut Run<'_>,
        flow: &Flow,
        state: &str,
        input: Value,
        item: Option<Item>,
        mut last_event: u64,
    ) -> Self {
        let visit = visit(run, flow, state, input, &mut last_event);
        Self { variables: Map::new(), item, visit, activity: Activity::Ready, last_event }
    }

    /// Goes on until it ends or has to wait. `outer` are the variables around it, outermost first.
    pub(super) fn advance(
        &mut self,
        run: &mut Run<'_>,
        flow: &Flow,
        outer: &[&Map<String, Value>],
    ) -> Step {
        loop {
            let Some(state) = flow.states.get(&self.visit.state) else {
                let what = "The machine has no such state; it is not the one of this execution.";
                let failure = Failure::named(RUNTIME, self.visit.cause(what));
                self.cancel(run);
                return Step::Failed(failure);
            };
            let moved = match self.work(run, state, outer) {
                Ok(Some(leaving)) => self.leave(run, flow, leaving, outer),
                Ok(None) => return Step::Blocked,
                Err(trouble) => Err(trouble),
            };
            let moved = match moved {
                Err(trouble) => {
                    let failure = self.failure(run, trouble);
                    self.recover(run, flow, state, failure, outer)
                }
                Ok(None) => Step::Blocked,
                Ok(Some(output)) => Step::Done(output),
            };
            match moved {
                Step::Blocked => {}
                ended => return ended,
            }
        }
    }

    /// Does what can be done in the state now: gives how it is left, or nothing while it waits.
    fn work<'m>(
        &mut self,
        run: &mut Run<'_>,
        state: &'m State,
        outer: &[&Map<String, Value>],
    ) -> Result<Option<Leaving<'m>>, Trouble> {
        let Self { variables, item, visit, activity, last_event } = self;
        let mut chain = outer.to_vec();
        chain.push(variables);
        let here = Here { visit, item: item.as_ref(), variables: &chain };
        loop {
            if run.history.is_full() {
                return Err(Failure::named(
                    RUNTIME,
                    format!(
                        "The execution reached the maximum number of history events ({MAX_EVENTS})."
                    ),
                )
                .into());
            }
            match activity {
                Activity::Ready => match state.begin(run, &here, last_event)? {
                    Begun::Leaving(leaving) => return Ok(Some(leaving)),
                    Begun::Blocked(blocked) => *activity = blocked,
                },
                Activity::Waiting { until } if *until <= run.now => {
                    return Ok(Some(Leaving::unchanged(&state.exit)));
                }
                Activity::BackingOff { until } if *until <= run.now => {
                    *run.transitions += 1;
                    *activity = Activity::Ready;
                }
                Activity::Waiting { .. } | Activity::BackingOff { .. } => return Ok(None),
                Activity::Task(task) => {
                    let Some(failure) = task.timed_out(run.now) else { return Ok(None) };
                    run.cancel(task.id);
                    run.event(
                        last_event,
                        EventKind::TaskTimedOut {
                            resource: task.resource.clone(),
                            error: failure.error.clone(),
                            cause: failure.cause.clone(),
                        },
                    );
                    return Err(failure.into());
                }
                Activity::TaskEnded { outcome } => {
                    let value = Some(("result", outcome.clone()?));
                    return Ok(Some(Leaving { exit: &state.exit, value }));
                }
                Activity::Children(children) => {
                    let result = children.advance(run, state, &here, last_event)?;
                    let Some(result) = result else { return Ok(None) };
                    here.check_size(&result)?;
                    let value = Some(("result", result));
                    return Ok(Some(Leaving { exit: &state.exit, value }));
                }
            }
        }
    }

    /// Leaves the state: gives the output when that ends the flow, else enters the next state.
    fn leave(
        &mut self,
        run: &mut Run<'_>,
        flow: &Flow,
        leaving: Leaving<'_>,
        outer: &[&Map<String, Value>],
    ) -> Result<Option<Value>, Trouble> {
        let Leaving { exit, value } = leaving;
        let mut chain = outer.to_vec();
        chain.push(&self.variables);
        let here = Here { visit: &self.visit, item: self.item.as_ref(), variables: &chain };
        let (output, assigned) = if exit.output.is_none() && exit.assign.0.is_empty() {
            (None, Vec::new())
        } else {
            let part = value.as_ref().map(|(part, value)| (*part, value));
            run.evaluate(&here, part, |scope| {
                let output = exit.output.as_ref().map(|t| scope.value(t)).transpose()?;
                let assigned = exit
                    .assign
                    .0
                    .iter()
                    .map(|(name, template)| Ok((name.clone(), scope.value(template)?)))
                    .collect::<Result<Vec<_>, _>>()?;
                Ok((output, assigned))
            })?
        };
        let output = output
            .or_else(|| value.map(|(_, value)| value))
            .unwrap_or_else(|| self.visit.input.clone());
        here.check_size(&output)?;
        here.check_size(&Value::Object(assigned.iter().cloned().collect()))?;
        run.event(
            &mut self.last_event,
            EventKind::StateExited {
                state_type: self.visit.state_type,
                name: self.visit.state.clone(),
                output: Payload::of(&output),
            },
        );
        self.variables.extend(assigned);
        let Some(next) = &exit.next else { return Ok(Some(output)) };
        self.visit = visit(run, flow, next, output, &mut self.last_event);
        self.activity = Activity::Ready;
        Ok(None)
    }

    /// `trouble` as the error it is reported as.
    fn failure(&mut self, run: &mut Run<'_>, trouble: Trouble) -> Failure {
        let error = match trouble {
            Trouble::Failed(failure) => return failure,
            Trouble::Evaluation(error) => error,
        };
        let cause = self.visit.cause(&error.message);
        run.event(
            &mut self.last_event,
            EventKind::EvaluationFailed {
                state: self.visit.state.clone(),
                location: error.location,
                error: QUERY_EVALUATION_ERROR.to_owned(),
                cause: cause.clone(),
            },
        );
        Failure::named(QUERY_EVALUATION_ERROR, cause)
    }

    /// Retries or catches; the first retrier that matches decides, then the first catcher.
    fn recover(
        &mut self,
        run: &mut Run<'_>,
        flow: &Flow,
        state: &State,
        failure: Failure,
        outer: &[&Map<String, Value>],
    ) -> Step {
        if let Activity::Children(children) = &mut self.activity {
            children.cancel(run, &self.visit.state);
        }
        let retrier = state.retriers.iter().enumerate().find(|(_, r)| r.matches(&failure));
        if let Some((index, retrier)) = retrier {
            self.visit.retries_by.resize(state.retriers.len(), 0);
            let done = &mut self.visit.retries_by[index];
            if *done < retrier.max_attempts {
                let until = run.now + retrier.delay(*done, run.random);
                *done += 1;
                self.visit.retries += 1;
                self.activity = Activity::BackingOff { until };
                return Step::Blocked;
            }
        }
        match state.kind {
            Kind::Parallel(_) => run.event(&mut self.last_event, EventKind::ParallelStateFailed),
            Kind::Map(_) => run.event(&mut self.last_event, EventKind::MapStateFailed),
            _ => {}
        }
        let Some(catcher) = state.catchers.iter().find(|c| c.matches(&failure)) else {
            return Step::Failed(failure);
        };
        let value = Some(("errorOutput", failure.output()));
        match self.leave(run, flow, Leaving { exit: &catcher.exit, value }, outer) {
            Ok(None) => Step::Blocked,
            Ok(Some(output)) => Step::Done(output),
            Err(trouble) => Step::Failed(self.failure(run, trouble)),
        }
    }

    /// The flow that waits for task `id`: this one, or one inside it.
    pub(super) fn find(&mut self, id: TaskId) -> Option<&mut Self> {
        match &self.activity {
            Activity::Task(task) => (task.id == id).then_some(self),
            Activity::Children(_) => match &mut self.activity {
                Activity::Children(children) => children.frames_mut().find_map(|f| f.find(id)),
                _ => None,
            },
            _ => None,
        }
    }

    pub(super) fn task_mut(&mut self) -> Option<&mut TaskRun> {
        match &mut self.activity {
            Activity::Task(task) => Some(task),
            _ => None,
        }
    }

    /// Notes the outcome of its task, for the next poll to look at.
    pub(super) fn end_task(
        &mut self,
        history: &mut History,
        outcome: Result<Value, Failure>,
        now: DateTime<Utc>,
    ) {
        let Some(task) = self.task_mut() else { return };
        let resource = task.resource.clone();
        let outcome = match outcome {
            Ok(output) if is_too_large(&output) => Err(data_limit_exceeded(&resource)),
            other => other,
        };
        let event = match &outcome {
            Ok(output) => EventKind::TaskSucceeded { resource, output: Payload::of(output) },
            Err(Failure { error, cause, .. }) => {
                EventKind::TaskFailed { resource, error: error.clone(), cause: cause.clone() }
            }
        };
        history.add(&mut self.last_event, now, event);
        self.activity = Activity::TaskEnded { outcome };
    }

    /// Stops it and everything inside it; gives its newest event.
    pub(super) fn cancel(&mut self, run: &mut Run<'_>) -> u64 {
        match &mut self.activity {
            Activity::Task(task) => run.cancel(task.id),
            Activity::Children(children) => children.cancel(run, &self.visit.state),
            _ => {}
        }
        run.event(
            &mut self.last_event,
            EventKind::StateAborted {
                state_type: self.visit.state_type,
                name: self.visit.state.clone(),
            },
        );
        self.last_event
    }

    pub(super) fn next_wake(&self) -> Option<DateTime<Utc>> {
        match &self.activity {
            Activity::Ready | Activity::TaskEnded { .. } => Some(DateTime::<Utc>::MIN_UTC),
            Activity::Waiting { until } | Activity::BackingOff { until } => Some(*until),
            Activity::Task(task) => task.deadline.into_iter().chain(task.heartbeat_deadline).min(),
            Activity::Children(children) => children.frames().filter_map(Self::next_wake).min(),
        }
    }

    /// Shows `look` this flow, then the ones inside it.
    pub(super) fn each<'f>(&'f self, look: &mut impl FnMut(&'f Self)) {
        look(self);
        if let Activity::Children(children) = &self.activity {
            for frame in children.frames() {
                frame.each(look);
            }
        }
    }
}

/// Enters a state.
fn visit(run: &mut Run<'_>, flow: &Flow, state: &str, input: Value, last: &mut u64) -> Visit {
    // A state that is not there is reported when it is worked on.
    let state_type = flow.states.get(state).map_or(StateType::Pass, State::state_type);
    *run.transitions += 1;
    run.event(
        last,
        EventKind::StateEntered { state_type, name: state.to_owned(), input: Payload::of(&input) },
    );
    Visit {
        state: state.to_owned(),
        state_type,
        input,
        event: *last,
        entered_at: run.now,
        retries: 0,
        retries_by: Vec::new(),
    }
}
