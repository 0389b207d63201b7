//! Invocations of functions, cut where they call AWS.
//!
//! A function is written down in [`crate::functions`] as it is in its own crate, over [`Ctx`] in
//! place of the AWS clients. An invocation is its input and what AWS has answered so far; to go on,
//! the function is run again over these answers and stops at the first call without one. That call
//! is the invocation's next step, and between two steps anything else may happen.

use stepwes_core::{RunEvent, RunState, step::Next, task::RefusedReason, task::TaskOutcome};

use crate::{
    bounds::Bug,
    functions,
    losses::Losses,
    table::{Item, Who},
    task::{Gone, TaskIx},
};

/// A run's place in the world; its id.
pub(crate) type RunIx = u8;

/// A function and what it was invoked with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Function {
    Submit,
    Cancel,
    Initialize,
    Preempt { attempt: u8, holder: Option<TaskIx> },
    SystemError { attempt: u8 },
    Collect { attempt: u8, input: Input },
    Claim { attempt: u8, task: TaskIx },
    ReportRun { attempt: u8, task: TaskIx },
    Reconcile,
    StopOrphan { attempt: u8, task: TaskIx },
    Remove,
}

/// What `ecs:runTask.sync` came to, as collect is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Input {
    /// This task ended: the step's result, or `States.TaskFailed`.
    Ended(TaskIx, Gone),
    /// The step took too long: `States.Timeout`.
    TimedOut,
    /// RunTask failed, or its answer was lost, for as long as it was tried.
    NotStarted,
    /// RunTask was refused for good.
    Refused,
}

/// Who waits for an invocation's answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Caller {
    /// A client's POST of that number.
    Post(u8),
    /// The run's execution.
    Machine,
    /// An engine task.
    Task(TaskIx),
    /// Nobody, or somebody who does nothing with it.
    Nobody,
}

/// An invocation under way.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Call {
    pub(crate) run: RunIx,
    pub(crate) caller: Caller,
    pub(crate) function: Function,
    /// What AWS has answered so far.
    pub(crate) answers: Vec<Answer>,
}

/// A call of AWS's.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Op {
    Get,
    /// `read` is the run as the transition has read it, once it has.
    Transition {
        event: RunEvent,
        holder: Who,
        read: Option<Item>,
    },
    /// As [`Op::Transition`], whose write was heard but not answered.
    TransitionAgain {
        event: RunEvent,
        holder: Who,
    },
    Claim {
        attempt: u8,
        task: TaskIx,
        read: Option<Item>,
    },
    Key,
    Create {
        unanswered: bool,
    },
    Start,
    Execution,
    Find {
        attempt: u8,
    },
    Describe(TaskIx),
    List {
        asked_to_stop: bool,
    },
    Stop {
        task: TaskIx,
        overdue: bool,
    },
    Remove(Item),
}

/// What AWS answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Answer {
    Item(Option<Item>),
    /// Of a conditional write: what it was made out for.
    Read(Item),
    /// Of a conditional write: nothing, though it took effect.
    Unanswered,
    Told(Told),
    Claimed(Result<Item, Refusal>),
    Key(Option<RunIx>),
    Created(Created),
    /// Of the create that comes next: an earlier one was not answered.
    CreateUnanswered,
    Execution(Execution),
    Found(Found),
    Task(Seen),
    /// One bit a task.
    Tasks(u8),
    Done,
}

/// As `stepwes_store::Transition`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Told {
    Moved(Item),
    Repeated(Item),
    Refused(Item),
    /// Refused, since another task holds the attempt.
    Held(Item),
    NotFound,
}

/// [`RefusedReason`], as far as somebody goes by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Refusal;

impl From<RefusedReason> for Refusal {
    fn from(_: RefusedReason) -> Self {
        Self
    }
}

/// As `stepwes_store::Created`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Created {
    New,
    Existing(RunIx),
}

/// As reconcile's `Execution`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Execution {
    Alive,
    Missing,
    Ended,
}

/// As collect's `Found`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Found {
    Missing,
    Stopped,
    Finished(Outcome),
}

impl Found {
    pub(crate) fn finished(self) -> Option<Outcome> {
        match self {
            Self::Finished(outcome) => Some(outcome),
            Self::Missing | Self::Stopped => None,
        }
    }
}

/// [`TaskOutcome`], of work that came to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Outcome {
    Complete,
    ExecutorError,
}

impl From<Outcome> for TaskOutcome {
    fn from(outcome: Outcome) -> Self {
        match outcome {
            Outcome::Complete => Self::Complete,
            Outcome::ExecutorError => Self::ExecutorError,
        }
    }
}

/// A task as `DescribeTasks` has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Seen {
    Live,
    Stopped(Gone),
}

/// A function's failure, by the name that the machine knows it by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Failure(pub(crate) &'static str);

/// A function's answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Output {
    /// Of advance and collect: where the machine goes, the attempt, and, with `RETRY`, who held it.
    Next { next: Next, attempt: u8, holder: Option<TaskIx> },
    /// Of report.
    Verdict { accepted: bool },
    /// Of submit.
    Submitted(RunIx),
    /// Of the others.
    Done,
}

/// Why a function does not go on.
pub(crate) enum Stop {
    /// It waits for AWS.
    Ask(RunIx, Op),
    /// It has failed.
    Failed(Failure),
}

pub(crate) type Step<T> = Result<T, Stop>;

/// What a function has in place of its clients.
pub(crate) struct Ctx<'a> {
    run: RunIx,
    answers: &'a [Answer],
    pub(crate) attempts: u8,
    pub(crate) losses: &'a Losses,
    pub(crate) bug: Option<Bug>,
}

impl<'a> Ctx<'a> {
    pub(crate) fn new(call: &'a Call, attempts: u8, losses: &'a Losses, bug: Option<Bug>) -> Self {
        Self { run: call.run, answers: &call.answers, attempts, losses, bug }
    }

    fn answered(&mut self, op: Op) -> Step<Answer> {
        let Some((first, rest)) = self.answers.split_first() else {
            return Err(Stop::Ask(self.run, op));
        };
        self.answers = rest;
        Ok(*first)
    }

    /// Speaks of another run from now on.
    pub(crate) fn of(&mut self, run: RunIx) -> &mut Self {
        self.run = run;
        self
    }

    pub(crate) fn get(&mut self) -> Step<Option<Item>> {
        match self.answered(Op::Get)? {
            Answer::Item(item) => Ok(item),
            other => mixed_up(other),
        }
    }

    pub(crate) fn transition(&mut self, event: RunEvent, holder: Who) -> Step<Told> {
        match self.answered(Op::Transition { event, holder, read: None })? {
            Answer::Told(told) => Ok(told),
            Answer::Read(read) => {
                Err(Stop::Ask(self.run, Op::Transition { event, holder, read: Some(read) }))
            }
            Answer::Unanswered => Err(Stop::Ask(self.run, Op::TransitionAgain { event, holder })),
            other => mixed_up(other),
        }
    }

    pub(crate) fn claim(&mut self, attempt: u8, task: TaskIx) -> Step<Result<Item, Refusal>> {
        match self.answered(Op::Claim { attempt, task, read: None })? {
            Answer::Claimed(claimed) => Ok(claimed),
            Answer::Read(read) => {
                Err(Stop::Ask(self.run, Op::Claim { attempt, task, read: Some(read) }))
            }
            other => mixed_up(other),
        }
    }

    pub(crate) fn key(&mut self) -> Step<Option<RunIx>> {
        match self.answered(Op::Key)? {
            Answer::Key(key) => Ok(key),
            other => mixed_up(other),
        }
    }

    pub(crate) fn create(&mut self) -> Step<Created> {
        let mut unanswered = false;
        loop {
            match self.answered(Op::Create { unanswered })? {
                Answer::Created(created) => return Ok(created),
                Answer::CreateUnanswered => unanswered = true,
                other => return mixed_up(other),
            }
        }
    }

    pub(crate) fn start(&mut self) -> Step<()> {
        self.answered(Op::Start).map(drop)
    }

    pub(crate) fn execution(&mut self) -> Step<Execution> {
        match self.answered(Op::Execution)? {
            Answer::Execution(execution) => Ok(execution),
            other => mixed_up(other),
        }
    }

    pub(crate) fn find(&mut self, attempt: u8) -> Step<Found> {
        match self.answered(Op::Find { attempt })? {
            Answer::Found(found) => Ok(found),
            other => mixed_up(other),
        }
    }

    pub(crate) fn describe(&mut self, task: TaskIx) -> Step<Seen> {
        match self.answered(Op::Describe(task))? {
            Answer::Task(seen) => Ok(seen),
            other => mixed_up(other),
        }
    }

    /// The live tasks of the run, one bit each.
    pub(crate) fn list(&mut self, asked_to_stop: bool) -> Step<u8> {
        match self.answered(Op::List { asked_to_stop })? {
            Answer::Tasks(tasks) => Ok(tasks),
            other => mixed_up(other),
        }
    }

    pub(crate) fn stop(&mut self, task: TaskIx, overdue: bool) -> Step<()> {
        self.answered(Op::Stop { task, overdue }).map(drop)
    }

    pub(crate) fn remove(&mut self, item: Item) -> Step<()> {
        self.answered(Op::Remove(item)).map(drop)
    }
}

fn mixed_up<T>(answer: Answer) -> Step<T> {
    unreachable!("a function ran another way over the same answers, and met {answer:?}")
}

impl Call {
    pub(crate) fn new(run: RunIx, caller: Caller, function: Function) -> Self {
        Self { run, caller, function, answers: Vec::new() }
    }

    /// Runs the function over the answers that there are.
    pub(crate) fn run(&self, ctx: &mut Ctx<'_>) -> Step<Output> {
        match self.function {
            Function::Submit => functions::submit(ctx, self.run).map(Output::Submitted),
            Function::Cancel => functions::cancel(ctx).map(|()| Output::Done),
            Function::Initialize => functions::initialize(ctx),
            Function::Preempt { attempt, holder } => functions::preempt(ctx, attempt, holder),
            Function::SystemError { attempt } => functions::system_error(ctx, attempt),
            Function::Collect { attempt, input } => functions::collect(ctx, attempt, input),
            Function::Claim { attempt, task } => functions::claim(ctx, attempt, task),
            Function::ReportRun { attempt, task } => functions::report_run(ctx, attempt, task),
            Function::Reconcile => functions::reconcile(ctx).map(|()| Output::Done),
            Function::StopOrphan { attempt, task } => {
                functions::orphan(ctx, attempt, task).map(|()| Output::Done)
            }
            Function::Remove => functions::remove(ctx).map(|()| Output::Done),
        }
    }
}

/// The end that the machine takes for a state, as [`Next::end`].
pub(crate) fn end(state: RunState) -> Option<Next> {
    Next::end(state)
}
