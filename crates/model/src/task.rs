//! An engine task, from RunTask to its end.

use stepwes_core::task::{EcsContainer, EcsTask, exit};

use crate::call::Outcome;

/// A task's place among its run's; its ARN.
pub(crate) type TaskIx = u8;

/// The ARN of a task.
pub(crate) fn arn(task: TaskIx) -> String {
    format!("arn:aws:ecs:eu-central-1:111122223333:task/stepwes/{task}")
}

/// A task.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Task {
    /// The attempt in its environment.
    pub(crate) attempt: u8,
    pub(crate) phase: Phase,
    /// Whether it was told to stop, and why.
    pub(crate) told_to_stop: Option<StopReason>,
}

/// How far a task is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Phase {
    /// ECS is starting it.
    Starting,
    /// It claims its attempt.
    Claiming,
    /// It stages the inputs.
    Staging,
    /// It says that the engine starts.
    Reporting,
    /// The engine is at work.
    AtWork,
    /// The engine has ended; the outputs are on their way.
    Uploading(Outcome),
    /// `result.json` is written; it is about to exit.
    Leaving(Exit),
    /// It has stopped.
    Stopped(Gone),
}

/// How a task exits by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Exit {
    Done,
    Refused,
    Failed,
    Stopped,
}

/// How a task came to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Gone {
    pub(crate) how: How,
    pub(crate) told_to_stop: Option<StopReason>,
}

/// The same, but for whether it was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum How {
    /// It exited, or was stopped before it began.
    Exit(Exit),
    /// The cloud took its host.
    Spot,
    /// It was killed, or broke down.
    Killed,
    /// It ran out of memory, which another attempt would too.
    OutOfMemory,
}

/// Why StopTask was called.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum StopReason {
    /// The run is cancelled, has ended, or has gone on.
    Over,
    /// It took longer than it may.
    Overdue,
}

impl Task {
    pub(crate) fn new(attempt: u8) -> Self {
        Self { attempt, phase: Phase::Starting, told_to_stop: None }
    }

    pub(crate) fn is_live(self) -> bool {
        !matches!(self.phase, Phase::Stopped(_))
    }

    /// Whether it has been told that its attempt is its own, so that it has credentials, and an
    /// engine, or had one.
    pub(crate) fn is_bound(self) -> bool {
        match self.phase {
            Phase::Starting | Phase::Claiming | Phase::Stopped(_) => false,
            Phase::Staging
            | Phase::Reporting
            | Phase::AtWork
            | Phase::Uploading(_)
            | Phase::Leaving(_) => true,
        }
    }

    /// Whether its engine computes, or has something to show for it.
    pub(crate) fn is_at_work(self) -> bool {
        matches!(self.phase, Phase::AtWork | Phase::Uploading(_))
    }

    pub(crate) fn end(&mut self, how: How) {
        self.phase = Phase::Stopped(Gone { how, told_to_stop: self.told_to_stop });
    }
}

impl Gone {
    /// Whether `ecs:runTask.sync` takes it for a success.
    pub(crate) fn is_success(self) -> bool {
        self.how == How::Exit(Exit::Done)
    }

    /// The task as ECS tells of it.
    pub(crate) fn as_ecs(self, task: TaskIx) -> EcsTask {
        let (code, exit_code, reason) = match self.how {
            How::Exit(Exit::Done) => ("EssentialContainerExited", exit::DONE, None),
            How::Exit(Exit::Refused) => ("EssentialContainerExited", exit::REFUSED, None),
            How::Exit(Exit::Failed) => ("EssentialContainerExited", exit::FAILED, None),
            How::Exit(Exit::Stopped) => ("EssentialContainerExited", exit::STOPPED, None),
            How::Spot => ("SpotInterruption", exit::STOPPED, None),
            How::Killed => ("EssentialContainerExited", 137, None),
            How::OutOfMemory => (
                "EssentialContainerExited",
                137,
                Some("OutOfMemoryError: Container killed due to memory usage"),
            ),
        };
        let (code, words) = match self.told_to_stop {
            None => (code, "Essential container in task exited"),
            Some(StopReason::Over) => ("UserInitiated", "stepwes: the run has ended"),
            Some(StopReason::Overdue) => ("UserInitiated", stepwes_collect::loss::STOPPED_OVERDUE),
        };
        EcsTask {
            task_arn: Some(arn(task)),
            stop_code: Some(code.to_owned()),
            stopped_reason: Some(words.to_owned()),
            containers: vec![EcsContainer {
                exit_code: Some(exit_code),
                reason: reason.map(str::to_owned),
            }],
            ..EcsTask::default()
        }
    }
}
