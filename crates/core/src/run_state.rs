//! The one table that says which state a run may go to (WES 1.1, `State`).
//!
//! Nothing in stepwes changes a run's state but by an event that this table allows; whatever it
//! does not name is illegal. It knows nothing of where a run is kept.

use std::fmt;

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// The states a stepwes run can be in: WES's, less `UNKNOWN` and `PAUSED`, which no run here has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum RunState {
    /// Accepted; its execution has not begun.
    Queued,
    /// An attempt is being set up: the task starts, inputs are staged.
    Initializing,
    /// The workflow engine is at work.
    Running,
    /// The engine ended well and every output is uploaded.
    Complete,
    /// The request's own fault: the engine failed, or its workflow cannot be fetched or read.
    ExecutorError,
    /// Our fault or the cloud's.
    SystemError,
    /// A cancel was asked for; its task has not been seen stopped.
    Canceling,
    /// Cancelled, and its task is gone.
    Canceled,
    /// Interrupted by the cloud as often as there were attempts.
    Preempted,
}

impl RunState {
    /// Every state, in the order in which WES lists them.
    pub const ALL: [Self; 9] = [
        Self::Queued,
        Self::Initializing,
        Self::Running,
        Self::Complete,
        Self::ExecutorError,
        Self::SystemError,
        Self::Canceled,
        Self::Canceling,
        Self::Preempted,
    ];

    /// The state's name in WES and in the table.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "QUEUED",
            Self::Initializing => "INITIALIZING",
            Self::Running => "RUNNING",
            Self::Complete => "COMPLETE",
            Self::ExecutorError => "EXECUTOR_ERROR",
            Self::SystemError => "SYSTEM_ERROR",
            Self::Canceling => "CANCELING",
            Self::Canceled => "CANCELED",
            Self::Preempted => "PREEMPTED",
        }
    }

    /// Reads a state's name; `None` when there is no such state.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == name)
    }

    /// Whether the run has ended: no event leads out of such a state.
    #[must_use]
    pub const fn is_terminal(self) -> bool {
        match self {
            Self::Complete
            | Self::ExecutorError
            | Self::SystemError
            | Self::Canceled
            | Self::Preempted => true,
            Self::Queued | Self::Initializing | Self::Running | Self::Canceling => false,
        }
    }

    /// The state that `event` leads to from this one.
    ///
    /// # Errors
    /// [`Illegal`] when the table has no such row. A repeated event is illegal here: whether it
    /// is a repetition depends on the attempt, which [`Position::apply`] looks at.
    pub fn next(self, event: EventKind) -> Result<Self, Illegal> {
        use EventKind as E;
        use RunState as S;
        match (self, event) {
            (S::Queued, E::Initialize) => Ok(S::Initializing),
            (S::Initializing, E::Run) => Ok(S::Running),
            (S::Running, E::Complete) => Ok(S::Complete),
            (S::Initializing | S::Running, E::ExecutorError) => Ok(S::ExecutorError),
            (S::Initializing | S::Running, E::Preempt { last: false }) => Ok(S::Initializing),
            (S::Initializing | S::Running, E::Preempt { last: true }) => Ok(S::Preempted),
            (S::Queued | S::Initializing | S::Running, E::SystemError) => Ok(S::SystemError),
            (S::Queued | S::Initializing | S::Running, E::Cancel) => Ok(S::Canceling),
            (S::Canceling, E::Canceled) => Ok(S::Canceled),
            (state, event) => Err(Illegal { state, event }),
        }
    }
}

impl fmt::Display for RunState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What can happen to a run that exists, without the attempt that it speaks of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EventKind {
    /// The execution began: the first attempt.
    Initialize,
    /// The task has staged its inputs and starts the engine.
    Run,
    /// The engine ended well, the outputs are there.
    Complete,
    /// The request is at fault.
    ExecutorError,
    /// The task was lost through no fault of the run.
    Preempt {
        /// Whether that was the last attempt there is.
        last: bool,
    },
    /// We or the cloud are at fault.
    SystemError,
    /// A caller asked to cancel.
    Cancel,
    /// The task of a cancelled run has been seen stopped.
    Canceled,
}

impl EventKind {
    /// The event's name in logs, event items and step inputs.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Initialize => "initialize",
            Self::Run => "run",
            Self::Complete => "complete",
            Self::ExecutorError => "executor_error",
            Self::Preempt { .. } => "preempt",
            Self::SystemError => "system_error",
            Self::Cancel => "cancel",
            Self::Canceled => "canceled",
        }
    }
}

/// There is no way from `state` by `event`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("a run in state {state} cannot take the event {}", event.as_str())]
pub struct Illegal {
    /// The state that the run was in.
    pub state: RunState,
    /// The event that was refused.
    pub event: EventKind,
}

/// An event and the attempt that it speaks of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RunEvent {
    /// Begin the first attempt.
    Initialize,
    /// The engine of `attempt` starts.
    Run {
        /// The attempt, from 1.
        attempt: u32,
    },
    /// `attempt` ended well.
    Complete {
        /// The attempt, from 1.
        attempt: u32,
    },
    /// `attempt` failed by the request's fault.
    ExecutorError {
        /// The attempt, from 1.
        attempt: u32,
    },
    /// `attempt` was lost; it was the last one when `max_attempts` is reached.
    Preempt {
        /// The attempt, from 1.
        attempt: u32,
        /// How many attempts a run has.
        max_attempts: u32,
    },
    /// The service or the cloud failed in `attempt` (0 before the first).
    SystemError {
        /// The attempt; 0 for a run that has had none.
        attempt: u32,
    },
    /// Cancel, whatever the attempt.
    Cancel,
    /// The task of `attempt` is gone (0 when there never was one).
    Canceled {
        /// The attempt; 0 for a run that has had none.
        attempt: u32,
    },
}

impl RunEvent {
    /// The event without its attempt.
    #[must_use]
    pub const fn kind(self) -> EventKind {
        match self {
            Self::Initialize => EventKind::Initialize,
            Self::Run { .. } => EventKind::Run,
            Self::Complete { .. } => EventKind::Complete,
            Self::ExecutorError { .. } => EventKind::ExecutorError,
            Self::Preempt { attempt, max_attempts } => {
                EventKind::Preempt { last: attempt >= max_attempts }
            }
            Self::SystemError { .. } => EventKind::SystemError,
            Self::Cancel => EventKind::Cancel,
            Self::Canceled { .. } => EventKind::Canceled,
        }
    }

    /// The attempt that the event speaks of; `None` for the two that speak of none.
    #[must_use]
    pub const fn attempt(self) -> Option<u32> {
        match self {
            Self::Initialize | Self::Cancel => None,
            Self::Run { attempt }
            | Self::Complete { attempt }
            | Self::ExecutorError { attempt }
            | Self::Preempt { attempt, .. }
            | Self::SystemError { attempt }
            | Self::Canceled { attempt } => Some(attempt),
        }
    }
}

/// Where a run stands: its state and its attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Position {
    /// The state.
    pub state: RunState,
    /// The attempt, from 1; 0 before the first.
    pub attempt: u32,
}

/// What an event does to a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// The run moves there.
    Move(Position),
    /// The event has had its effect before; the run stays as it is.
    Repeated,
}

/// Why an event has no effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Refusal {
    /// The table has no such row.
    #[error(transparent)]
    Illegal(#[from] Illegal),
    /// The event speaks of an attempt that is over, or of one that has not begun.
    #[error("the event {} speaks of attempt {spoken}, but the run is in attempt {current}", event.as_str())]
    Attempt {
        /// The event.
        event: EventKind,
        /// The attempt that it speaks of.
        spoken: u32,
        /// The attempt that the run is in.
        current: u32,
    },
    /// The event speaks of a task, and another one has claimed the attempt since.
    #[error("another task holds the attempt than the one that the event {} speaks of", event.as_str())]
    Task {
        /// The event.
        event: EventKind,
    },
}

impl Position {
    /// A run that has just been enqueued.
    pub const NEW: Self = Self { state: RunState::Queued, attempt: 0 };

    /// What `event` does to a run that stands here.
    ///
    /// # Errors
    /// [`Refusal`] when the event is not this attempt's or the table does not allow it.
    pub fn apply(self, event: RunEvent) -> Result<Step, Refusal> {
        if self.has_taken(event) {
            return Ok(Step::Repeated);
        }
        let kind = event.kind();
        if let Some(spoken) = event.attempt()
            && spoken != self.attempt
        {
            return Err(Refusal::Attempt { event: kind, spoken, current: self.attempt });
        }
        let state = self.state.next(kind)?;
        let attempt = match kind {
            EventKind::Initialize | EventKind::Preempt { last: false } => self.attempt + 1,
            _ => self.attempt,
        };
        Ok(Step::Move(Self { state, attempt }))
    }

    /// Whether `event` is what brought the run here, so that hearing it again changes nothing.
    fn has_taken(self, event: RunEvent) -> bool {
        use RunState as S;
        match event {
            RunEvent::Initialize => {
                self.attempt == 1 && matches!(self.state, S::Initializing | S::Running)
            }
            RunEvent::Run { attempt } => self.attempt == attempt && self.state == S::Running,
            RunEvent::Complete { attempt } => self.attempt == attempt && self.state == S::Complete,
            RunEvent::ExecutorError { attempt } => {
                self.attempt == attempt && self.state == S::ExecutorError
            }
            RunEvent::Preempt { attempt, max_attempts } if attempt >= max_attempts => {
                self.attempt == attempt && self.state == S::Preempted
            }
            RunEvent::Preempt { attempt, .. } => {
                self.attempt == attempt + 1 && matches!(self.state, S::Initializing | S::Running)
            }
            RunEvent::SystemError { attempt } => {
                self.attempt == attempt && self.state == S::SystemError
            }
            RunEvent::Cancel => matches!(self.state, S::Canceling | S::Canceled),
            RunEvent::Canceled { attempt } => self.attempt == attempt && self.state == S::Canceled,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const KINDS: [EventKind; 9] = [
        EventKind::Initialize,
        EventKind::Run,
        EventKind::Complete,
        EventKind::ExecutorError,
        EventKind::Preempt { last: false },
        EventKind::Preempt { last: true },
        EventKind::SystemError,
        EventKind::Cancel,
        EventKind::Canceled,
    ];

    #[test]
    fn the_table_has_these_rows_and_no_others() {
        let mut rows = Vec::new();
        for state in RunState::ALL {
            for event in KINDS {
                if let Ok(to) = state.next(event) {
                    rows.push(format!("{state} --{}--> {to}", event.as_str()));
                }
            }
        }
        insta::assert_snapshot!(rows.join("\n"), @r"
        QUEUED --initialize--> INITIALIZING
        QUEUED --system_error--> SYSTEM_ERROR
        QUEUED --cancel--> CANCELING
        INITIALIZING --run--> RUNNING
        INITIALIZING --executor_error--> EXECUTOR_ERROR
        INITIALIZING --preempt--> INITIALIZING
        INITIALIZING --preempt--> PREEMPTED
        INITIALIZING --system_error--> SYSTEM_ERROR
        INITIALIZING --cancel--> CANCELING
        RUNNING --complete--> COMPLETE
        RUNNING --executor_error--> EXECUTOR_ERROR
        RUNNING --preempt--> INITIALIZING
        RUNNING --preempt--> PREEMPTED
        RUNNING --system_error--> SYSTEM_ERROR
        RUNNING --cancel--> CANCELING
        CANCELING --canceled--> CANCELED
        ");
    }

    #[test]
    fn a_late_preempt_of_the_first_attempt_leaves_the_third_alone() {
        let third = Position { state: RunState::Running, attempt: 3 };
        let late = RunEvent::Preempt { attempt: 1, max_attempts: 3 };
        assert!(matches!(third.apply(late), Err(Refusal::Attempt { spoken: 1, current: 3, .. })));
    }

    fn event() -> impl Strategy<Value = RunEvent> {
        let attempt = 0..5u32;
        prop_oneof![
            Just(RunEvent::Initialize),
            Just(RunEvent::Cancel),
            attempt.clone().prop_map(|attempt| RunEvent::Run { attempt }),
            attempt.clone().prop_map(|attempt| RunEvent::Complete { attempt }),
            attempt.clone().prop_map(|attempt| RunEvent::ExecutorError { attempt }),
            attempt.clone().prop_map(|attempt| RunEvent::Preempt { attempt, max_attempts: 3 }),
            attempt.clone().prop_map(|attempt| RunEvent::SystemError { attempt }),
            attempt.prop_map(|attempt| RunEvent::Canceled { attempt }),
        ]
    }

    proptest! {
        #[test]
        fn whatever_happens_in_whatever_order_the_promises_hold(
            events in proptest::collection::vec(event(), 0..60),
        ) {
            let mut at = Position::NEW;
            for event in events {
                let before = at;
                match at.apply(event) {
                    Ok(Step::Move(to)) => {
                        prop_assert!(!before.state.is_terminal(), "a terminal state changed");
                        if before.state == RunState::Canceling {
                            prop_assert_eq!(to.state, RunState::Canceled);
                        }
                        prop_assert!(to.attempt >= before.attempt && to.attempt <= 3);
                        at = to;
                        prop_assert_eq!(at.apply(event), Ok(Step::Repeated), "{:?} again", event);
                    }
                    Ok(Step::Repeated) | Err(_) => {}
                }
            }
        }
    }
}
