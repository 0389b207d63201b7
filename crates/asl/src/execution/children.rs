//! The branches of a Parallel and the iterations of a Map.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::frame::{Frame, Step};
use super::{Here, Run};
use crate::failure::{EXCEED_TOLERATED_FAILURE_THRESHOLD, Failure, Trouble};
use crate::history::EventKind;
use crate::states::{Kind, State};

/// The item that an iteration of a Map is about.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Item {
    pub(crate) index: usize,
    pub(crate) value: Value,
}

/// How many iterations of a Map may fail before it does.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Tolerance {
    pub(crate) count: Option<u32>,
    pub(crate) percentage: Option<f64>,
}

impl Tolerance {
    /// Either threshold is enough: the Map fails when one that is set is exceeded.
    fn is_exceeded(&self, failed: usize, of: usize) -> bool {
        #[expect(clippy::cast_precision_loss, reason = "counts of items, far below 2^53")]
        let share = 100.0 * failed as f64 / of.max(1) as f64;
        self.count.is_some_and(|count| failed > count as usize)
            || self.percentage.is_some_and(|percentage| share > percentage)
    }
}

/// Flows that run side by side inside a state.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Children {
    children: Vec<Child>,
    /// How many may run at once; set for a Map, and only for one.
    limit: Option<u32>,
    tolerance: Option<Tolerance>,
    /// The event that the first event of each follows from.
    started_event: u64,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
enum Child {
    /// Not started; its input, or the item that its input is made from.
    Waiting(Value),
    Running(Box<Frame>),
    Succeeded(Value),
    /// Failed, and tolerated.
    Failed,
}

impl Children {
    pub(crate) fn new(inputs: Vec<Value>, started_event: u64) -> Self {
        let children = inputs.into_iter().map(Child::Waiting).collect();
        Self { children, limit: None, tolerance: None, started_event }
    }

    pub(crate) fn limited(self, limit: u32, tolerance: Option<Tolerance>) -> Self {
        Self { limit: Some(limit), tolerance, ..self }
    }

    /// Goes on with all of them; gives their outputs in order when they are done. A tolerated
    /// failure has no output.
    pub(super) fn advance(
        &mut self,
        run: &mut Run<'_>,
        state: &State,
        here: &Here<'_>,
        last: &mut u64,
    ) -> Result<Option<Value>, Trouble> {
        loop {
            let started = self.start(run, state, here)?;
            let ended = self.step(run, state, here, last)?;
            if !started && !ended {
                break;
            }
        }
        if self.frames().next().is_some() {
            return Ok(None);
        }
        run.event(
            last,
            match state.kind {
                Kind::Map(_) => EventKind::MapStateSucceeded,
                _ => EventKind::ParallelStateSucceeded,
            },
        );
        let outputs = self.children.iter().filter_map(|child| match child {
            Child::Succeeded(output) => Some(output.clone()),
            _ => None,
        });
        Ok(Some(Value::Array(outputs.collect())))
    }

    /// Starts those that may run; whether there was one.
    fn start(
        &mut self,
        run: &mut Run<'_>,
        state: &State,
        here: &Here<'_>,
    ) -> Result<bool, Trouble> {
        let limit = self.limit.map_or(usize::MAX, |limit| limit as usize);
        let mut running = self.frames().count();
        let mut started = false;
        let flows = state.flows();
        for (index, child) in self.children.iter_mut().enumerate() {
            if running >= limit {
                break;
            }
            let Child::Waiting(value) = child else { continue };
            let mut last = self.started_event;
            let (flow, input, item) = match &state.kind {
                Kind::Map(map) => {
                    let name = here.visit.state.clone();
                    run.event(&mut last, EventKind::MapIterationStarted { name, index });
                    let item = Item { index, value: value.take() };
                    (&map.processor, map.input(run, here, &item)?, Some(item))
                }
                _ => match flows.get(index) {
                    Some(flow) => (flow, value.take(), here.item.cloned()),
                    None => continue,
                },
            };
            let frame = Frame::enter(run, flow, &flow.start_at, input, item, last);
            *child = Child::Running(Box::new(frame));
            running += 1;
            started = true;
        }
        Ok(started)
    }

    /// Goes on with those that run; whether one ended.
    fn step(
        &mut self,
        run: &mut Run<'_>,
        state: &State,
        here: &Here<'_>,
        last: &mut u64,
    ) -> Result<bool, Trouble> {
        let is_map = matches!(state.kind, Kind::Map(_));
        let flows = state.flows();
        let mut ended = false;
        for index in 0..self.children.len() {
            let Some(Child::Running(frame)) = self.children.get_mut(index) else { continue };
            let Some(flow) = flows.get(if is_map { 0 } else { index }) else { continue };
            let step = frame.advance(run, flow, here.variables);
            let mut event = frame.last_event;
            *last = event.max(*last);
            let name = || here.visit.state.clone();
            let outcome = match step {
                Step::Blocked => continue,
                Step::Done(output) => {
                    if is_map {
                        let kind = EventKind::MapIterationSucceeded { name: name(), index };
                        run.event(&mut event, kind);
                    }
                    Child::Succeeded(output)
                }
                Step::Failed(failure) => {
                    if is_map {
                        let kind = EventKind::MapIterationFailed { name: name(), index };
                        run.event(&mut event, kind);
                    }
                    self.children[index] = Child::Failed;
                    *last = event;
                    self.check_tolerance(failure)?;
                    ended = true;
                    continue;
                }
            };
            *last = event;
            self.children[index] = outcome;
            ended = true;
        }
        Ok(ended)
    }

    fn check_tolerance(&self, failure: Failure) -> Result<(), Failure> {
        let Some(tolerance) = &self.tolerance else { return Err(failure) };
        // An error that always fails the execution is not for a Map to tolerate.
        if failure.is_fatal() {
            return Err(failure);
        }
        let failed = self.children.iter().filter(|child| matches!(child, Child::Failed)).count();
        if tolerance.is_exceeded(failed, self.children.len()) {
            return Err(Failure::named(
                EXCEED_TOLERATED_FAILURE_THRESHOLD,
                "The specified tolerated failure threshold was exceeded",
            ));
        }
        Ok(())
    }

    /// Stops those that run; `state` is the one they run in.
    pub(super) fn cancel(&mut self, run: &mut Run<'_>, state: &str) {
        let is_map = self.limit.is_some();
        for (index, child) in self.children.iter_mut().enumerate() {
            let Child::Running(frame) = child else { continue };
            let mut last = frame.cancel(run);
            if is_map {
                let name = state.to_owned();
                run.event(&mut last, EventKind::MapIterationAborted { name, index });
            }
            *child = Child::Failed;
        }
    }

    /// The flows that run.
    pub(super) fn frames(&self) -> impl Iterator<Item = &Frame> {
        self.children.iter().filter_map(|child| match child {
            Child::Running(frame) => Some(frame.as_ref()),
            _ => None,
        })
    }

    pub(super) fn frames_mut(&mut self) -> impl Iterator<Item = &mut Frame> {
        self.children.iter_mut().filter_map(|child| match child {
            Child::Running(frame) => Some(frame.as_mut()),
            _ => None,
        })
    }
}
