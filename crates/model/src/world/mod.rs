//! What there is at one moment: clients, the table, executions, tasks, invocations.

mod faults;
mod invocations;

use stepwes_core::run_state::RunState;

use crate::{
    bounds::{Bounds, Bug},
    call::{Call, Caller, Failure, Found, Function, Input, Outcome, Output, RunIx},
    losses::Losses,
    machine::{Kind, Machine, Place},
    table::{self, DecidedClaim, Item},
    task::{Exit, How, Phase, Task, TaskIx},
};

/// The most attempts that a model's run has.
pub(crate) const MOST_ATTEMPTS: usize = 3;

/// A moment.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct World {
    pub(crate) posts: Vec<Post>,
    /// The idempotency item: the run that the key was used for.
    pub(crate) key: Option<RunIx>,
    pub(crate) runs: Vec<RunWorld>,
    /// The invocations under way, sorted: which came first plays no part.
    pub(crate) calls: Vec<Call>,
    pub(crate) counts: [i8; 9],
    pub(crate) faults_left: u8,
    pub(crate) cancels_left: u8,
}

/// A client's POST.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Post {
    Unsent,
    Waiting,
    Answered(RunIx),
    Failed,
}

/// A run and what belongs to it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct RunWorld {
    pub(crate) item: Option<Item>,
    /// One bit for each version that has an event item.
    pub(crate) events: u16,
    /// The state that the latest event item tells of.
    pub(crate) last_event: Option<RunState>,
    pub(crate) execution: Exec,
    pub(crate) tasks: Vec<Task>,
    /// `result.json` of each attempt.
    pub(crate) results: [Found; MOST_ATTEMPTS],
    pub(crate) history: History,
}

/// What cannot be seen of a moment, but was seen on the way to it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct History {
    pub(crate) created: bool,
    pub(crate) removed: bool,
    /// How many writes have changed the run.
    pub(crate) changes: u8,
    /// The task whose engine has worked for each attempt.
    pub(crate) engines: [Option<TaskIx>; MOST_ATTEMPTS],
    pub(crate) broken: Broken,
}

/// Rules that a step broke.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Broken {
    pub(crate) terminal_changed: bool,
    pub(crate) canceling_left: bool,
    pub(crate) second_engine: bool,
    pub(crate) given_up_at_work: bool,
    pub(crate) work_thrown_away: bool,
}

/// A run's execution.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Exec {
    Missing,
    At(At),
    Ended,
}

/// Where an execution is, and its variables.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct At {
    pub(crate) place: Place,
    pub(crate) attempt: u8,
    /// What collect is told; meaningless before a task was started.
    pub(crate) input: Input,
    /// What preempt is told.
    pub(crate) holder: Option<TaskIx>,
    pub(crate) doing: Doing,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Doing {
    /// It is about to begin its step.
    Nothing,
    /// It waits for a function.
    Calling,
    /// It waits for a task.
    Running(TaskIx),
}

/// What the one who waited does about a fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Then {
    /// It tries again.
    Retry,
    /// It has tried often enough.
    GiveUp,
}

/// Something that happens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// A client sends its POST.
    Post(u8),
    /// A client asks to cancel the run.
    Cancel(u8),
    /// The invocation goes on by one call of AWS's; it answers when that was the last.
    GoOn(usize),
    /// The execution begins its step, or hears that its task has ended.
    Execution(u8),
    /// A task does the next thing that it has to do.
    Task(u8, u8, Doable),
    /// reconcile looks at the run: its schedule ticks, or an execution has failed.
    Reconcile(u8),
    /// reconcile looks whether a task has a run to work for.
    Orphan(u8, u8),
    /// reconcile removes the run, which has been kept for as long as runs are.
    Remove(u8),
    /// Something goes wrong.
    Fault(Fault),
}

/// What a task may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Doable {
    /// Claim its attempt.
    Claim,
    /// Say that its engine starts.
    Report,
    /// Find that the request is at fault, and write so.
    Reject,
    /// Its engine ends well.
    Succeed,
    /// Its engine ends badly.
    Fail,
    /// Write its result.
    Write,
    /// Ask for new credentials, be refused, and exit.
    BeRefused,
    /// Stop as it was told to.
    Stop,
    /// Exit.
    Exit,
}

/// What may go wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The invocation dies before its next call of AWS's takes effect.
    Die(usize, Then),
    /// The invocation dies after its last call of AWS's: all is done, and nobody is told.
    DieDone(usize, Then),
    /// Nobody waits for the invocation any longer; it goes on.
    TimeOut(usize, Then),
    /// A write takes effect, and its answer is lost.
    Unanswered(usize),
    /// A call of AWS's fails which the function can do without.
    Unheard(usize),
    /// RunTask starts a task, and fails to say so.
    TaskUnheard(u8, Then),
    /// RunTask starts no task for as long as it is tried.
    TaskNotStarted(u8),
    /// RunTask is refused.
    TaskRefused(u8),
    /// The step that waits for the task takes longer than it may.
    TaskTimedOut(u8),
    /// The execution is stopped by hand, or reaches its time limit.
    Abort(u8),
    /// The cloud takes a task's host.
    Spot(u8, u8),
    /// A task is killed, or breaks down.
    Kill(u8, u8),
    /// A task runs out of memory.
    OutOfMemory(u8, u8),
    /// A task is told to stop, by hand or by an execution that waits for it no longer.
    StopTask(u8, u8),
}

/// What a world is moved by.
#[derive(Clone, Debug)]
pub(crate) struct Laws {
    pub(crate) bounds: Bounds,
    pub(crate) bug: Option<Bug>,
    pub(crate) machine: Machine,
    pub(crate) losses: Losses,
}

impl World {
    pub(crate) fn new(bounds: Bounds) -> Self {
        let run = RunWorld {
            item: None,
            events: 0,
            last_event: None,
            execution: Exec::Missing,
            tasks: Vec::new(),
            results: [Found::Missing; MOST_ATTEMPTS],
            history: History::default(),
        };
        Self {
            posts: vec![Post::Unsent; bounds.posts.into()],
            key: None,
            runs: vec![run; bounds.posts.into()],
            calls: Vec::new(),
            counts: [0; 9],
            faults_left: bounds.faults,
            cancels_left: bounds.cancels,
        }
    }

    fn run(&mut self, run: RunIx) -> &mut RunWorld {
        &mut self.runs[usize::from(run)]
    }

    /// Whether every run that there is has ended, with all that belongs to it.
    pub(crate) fn is_settled(&self) -> bool {
        self.calls.is_empty()
            && self.runs.iter().all(|run| {
                run.item.is_none_or(|item| item.state.is_terminal())
                    && !matches!(run.execution, Exec::At(_))
                    && run.tasks.iter().all(|task| !task.is_live())
            })
    }

    /// What can happen next.
    pub(crate) fn actions(&self, laws: &Laws, actions: &mut Vec<Action>) {
        let small = |place: usize| u8::try_from(place).expect("the model is small");
        for (ix, post) in self.posts.iter().enumerate() {
            if *post == Post::Unsent {
                actions.push(Action::Post(small(ix)));
            }
        }
        for ix in 0..self.calls.len() {
            actions.push(Action::GoOn(ix));
        }
        let looks = self.calls.iter().filter(|call| {
            matches!(
                call.function,
                Function::Reconcile | Function::StopOrphan { .. } | Function::Remove
            )
        });
        let may_look = looks.count() < laws.bounds.reconciles.into();
        for (run_ix, run) in self.runs.iter().enumerate() {
            let ix = small(run_ix);
            if self.cancels_left > 0 && run.item.is_some_and(|item| !item.state.is_terminal()) {
                actions.push(Action::Cancel(ix));
            }
            let ended = run.item.is_some_and(|item| item.state.is_terminal());
            if may_look && run.item.is_some() && !ended {
                actions.push(Action::Reconcile(ix));
            }
            if may_look && ended && laws.bounds.removal {
                actions.push(Action::Remove(ix));
            }
            if let Exec::At(at) = run.execution {
                match at.doing {
                    Doing::Nothing => actions.push(Action::Execution(ix)),
                    Doing::Calling => {}
                    Doing::Running(task) => {
                        if !run.tasks[usize::from(task)].is_live() {
                            actions.push(Action::Execution(ix));
                        }
                    }
                }
            }
            for (task_ix, task) in run.tasks.iter().enumerate() {
                let task_ix = small(task_ix);
                if may_look && task.is_live() && task.told_to_stop.is_none() {
                    actions.push(Action::Orphan(ix, task_ix));
                }
                self.doable(run, *task, task_ix, |doable| {
                    actions.push(Action::Task(ix, task_ix, doable));
                });
            }
        }
        if self.faults_left > 0 {
            self.faults(laws, actions);
        }
    }

    fn doable(&self, run: &RunWorld, task: Task, ix: TaskIx, mut can: impl FnMut(Doable)) {
        let told = task.told_to_stop.is_some();
        match task.phase {
            Phase::Starting if told => can(Doable::Stop),
            Phase::Starting => can(Doable::Claim),
            Phase::Claiming | Phase::Reporting => {
                if told {
                    can(Doable::Stop);
                }
            }
            Phase::Staging => {
                if told {
                    can(Doable::Stop);
                } else {
                    can(Doable::Report);
                    can(Doable::Reject);
                }
            }
            Phase::AtWork => {
                can(Doable::Succeed);
                can(Doable::Fail);
                if told {
                    can(Doable::Stop);
                }
            }
            Phase::Uploading(_) => {
                can(Doable::Write);
                if told {
                    can(Doable::Stop);
                }
            }
            Phase::Leaving(_) => can(Doable::Exit),
            Phase::Stopped(_) => {}
        }
        if task.is_at_work() {
            let refused = run.item.is_none_or(|item| {
                table::decide_claim(item, task.attempt, ix) == DecidedClaim::Refused
            });
            if refused {
                can(Doable::BeRefused);
            }
        }
    }

    /// What happens by an action.
    pub(crate) fn after(mut self, laws: &Laws, action: &Action) -> Self {
        match *action {
            Action::Post(ix) => {
                self.posts[usize::from(ix)] = Post::Waiting;
                self.calls.push(Call::new(ix, Caller::Post(ix), Function::Submit));
            }
            Action::Cancel(run) => {
                self.cancels_left -= 1;
                self.calls.push(Call::new(run, Caller::Nobody, Function::Cancel));
            }
            Action::GoOn(ix) => self.go_on(laws, ix),
            Action::Execution(run) => self.execution_step(laws, run),
            Action::Task(run, task, doable) => self.task_step(run, task, doable),
            Action::Reconcile(run) => {
                self.calls.push(Call::new(run, Caller::Nobody, Function::Reconcile));
            }
            Action::Orphan(run, task) => {
                let attempt = self.run(run).tasks[usize::from(task)].attempt;
                let function = Function::StopOrphan { attempt, task };
                self.calls.push(Call::new(run, Caller::Nobody, function));
            }
            Action::Remove(run) => {
                self.calls.push(Call::new(run, Caller::Nobody, Function::Remove));
            }
            Action::Fault(ref fault) => {
                self.faults_left -= 1;
                self.fault(laws, fault);
            }
        }
        self.calls.sort_unstable();
        self
    }

    // Whoever waits for an invocation

    fn answer(&mut self, laws: &Laws, call: &Call, output: Output) {
        match (call.caller, output) {
            (Caller::Nobody, _) => {}
            (Caller::Post(ix), Output::Submitted(run)) => {
                self.posts[usize::from(ix)] = Post::Answered(run);
            }
            (Caller::Machine, Output::Next { next, attempt, holder }) => {
                let Exec::At(mut at) = self.run(call.run).execution else { return };
                at.attempt = attempt;
                at.holder = holder;
                at.doing = Doing::Nothing;
                let onward = laws.machine.state(at.place).next;
                self.go_to(laws, call.run, at, laws.machine.follow(onward, Some(next)));
            }
            (Caller::Task(ix), Output::Verdict { accepted }) => {
                let run = self.run(call.run);
                let task = &mut run.tasks[usize::from(ix)];
                match (task.phase, accepted) {
                    (Phase::Claiming, true) => task.phase = Phase::Staging,
                    (Phase::Reporting, true) => {
                        task.phase = Phase::AtWork;
                        let engine = &mut run.history.engines[usize::from(task.attempt) - 1];
                        if engine.is_some_and(|other| other != ix) {
                            run.history.broken.second_engine = true;
                        }
                        *engine = Some(ix);
                    }
                    (_, _) => task.end(How::Exit(Exit::Refused)),
                }
            }
            (caller, output) => unreachable!("{caller:?} was answered {output:?}"),
        }
    }

    fn failed(&mut self, laws: &Laws, call: &Call, failure: Failure, then: Then) {
        match call.caller {
            Caller::Nobody => {}
            Caller::Post(ix) => self.posts[usize::from(ix)] = Post::Failed,
            Caller::Machine => {
                let Exec::At(mut at) = self.run(call.run).execution else { return };
                at.doing = Doing::Nothing;
                let state = laws.machine.state(at.place);
                let retried = state.retried.iter().any(|name| name == failure.0);
                if retried && then == Then::Retry {
                    self.run(call.run).execution = Exec::At(at);
                } else {
                    self.caught(laws, call.run, at);
                }
            }
            Caller::Task(ix) => {
                let task = &mut self.run(call.run).tasks[usize::from(ix)];
                match (then, task.phase) {
                    (Then::Retry, Phase::Claiming) => task.phase = Phase::Starting,
                    (Then::Retry, Phase::Reporting) => task.phase = Phase::Staging,
                    _ => task.end(How::Exit(Exit::Failed)),
                }
            }
        }
    }

    fn caught(&mut self, laws: &Laws, run: RunIx, at: At) {
        match laws.machine.state(at.place).caught {
            Some(to) => self.go_to(laws, run, at, laws.machine.follow(to, None)),
            None => self.run(run).execution = Exec::Ended,
        }
    }

    fn go_to(&mut self, laws: &Laws, run: RunIx, mut at: At, place: Place) {
        at.place = place;
        self.run(run).execution = match laws.machine.state(place).kind {
            Kind::End => Exec::Ended,
            Kind::RunTask => Exec::At(At { input: Input::NotStarted, holder: None, ..at }),
            _ => Exec::At(at),
        };
    }

    // Executions and tasks

    fn execution_step(&mut self, laws: &Laws, run: RunIx) {
        let Exec::At(mut at) = self.run(run).execution else { return };
        let function = match (at.doing, &laws.machine.state(at.place).kind) {
            (Doing::Running(task), _) => {
                let Phase::Stopped(gone) = self.run(run).tasks[usize::from(task)].phase else {
                    return;
                };
                at.input = Input::Ended(task, gone);
                at.doing = Doing::Nothing;
                let onward = if gone.is_success() {
                    laws.machine.state(at.place).next
                } else {
                    laws.machine.state(at.place).caught.expect("what RunTask fails by is caught")
                };
                return self.go_to(laws, run, at, laws.machine.follow(onward, None));
            }
            (Doing::Calling, _) => return,
            (Doing::Nothing, Kind::RunTask) => {
                at.doing = Doing::Running(self.run_task(run, at.attempt));
                self.run(run).execution = Exec::At(at);
                return;
            }
            (Doing::Nothing, Kind::Initialize) => Function::Initialize,
            (Doing::Nothing, Kind::Collect) => {
                Function::Collect { attempt: at.attempt, input: at.input }
            }
            (Doing::Nothing, Kind::Preempt) => {
                Function::Preempt { attempt: at.attempt, holder: at.holder }
            }
            (Doing::Nothing, Kind::SystemError) => Function::SystemError { attempt: at.attempt },
            (Doing::Nothing, Kind::Choice { .. } | Kind::Wait | Kind::End) => {
                unreachable!("an execution does not stay there")
            }
        };
        at.doing = Doing::Calling;
        self.run(run).execution = Exec::At(at);
        self.calls.push(Call::new(run, Caller::Machine, function));
    }

    fn run_task(&mut self, run: RunIx, attempt: u8) -> TaskIx {
        let tasks = &mut self.run(run).tasks;
        tasks.push(Task::new(attempt));
        TaskIx::try_from(tasks.len() - 1).expect("the model is small")
    }

    fn task_step(&mut self, run_ix: RunIx, ix: TaskIx, doable: Doable) {
        let run = self.run(run_ix);
        let task = &mut run.tasks[usize::from(ix)];
        let attempt = task.attempt;
        let result = &mut run.results[usize::from(attempt) - 1];
        match doable {
            Doable::Claim => {
                task.phase = Phase::Claiming;
                let function = Function::Claim { attempt, task: ix };
                self.calls.push(Call::new(run_ix, Caller::Task(ix), function));
            }
            Doable::Report => {
                task.phase = Phase::Reporting;
                let function = Function::ReportRun { attempt, task: ix };
                self.calls.push(Call::new(run_ix, Caller::Task(ix), function));
            }
            Doable::Reject => {
                *result = Found::Finished(Outcome::ExecutorError);
                task.phase = Phase::Leaving(Exit::Done);
            }
            Doable::Succeed => task.phase = Phase::Uploading(Outcome::Complete),
            Doable::Fail => task.phase = Phase::Uploading(Outcome::ExecutorError),
            Doable::Write => {
                if let Phase::Uploading(outcome) = task.phase {
                    *result = Found::Finished(outcome);
                    task.phase = Phase::Leaving(Exit::Done);
                }
            }
            Doable::BeRefused => task.end(How::Exit(Exit::Refused)),
            Doable::Stop => {
                // A task without credentials writes nothing.
                if task.is_bound() {
                    *result = Found::Stopped;
                }
                task.end(How::Exit(Exit::Stopped));
                self.hang_up(run_ix, ix);
            }
            Doable::Exit => {
                if let Phase::Leaving(exit) = task.phase {
                    task.end(How::Exit(exit));
                }
            }
        }
    }

    /// Nobody waits for what the task has asked.
    fn hang_up(&mut self, run: RunIx, task: TaskIx) {
        for call in &mut self.calls {
            if call.run == run && call.caller == Caller::Task(task) {
                call.caller = Caller::Nobody;
            }
        }
    }
}

impl RunWorld {
    /// Remembers what a write did.
    fn note(&mut self, from: Item, to: Item) {
        self.history.changes += 1;
        let broken = &mut self.history.broken;
        if from.state.is_terminal() && to.state != from.state {
            broken.terminal_changed = true;
        }
        if from.state == RunState::Canceling && to.state != RunState::Canceled {
            broken.canceling_left = true;
        }
        let given_up = !from.state.is_terminal()
            && matches!(to.state, RunState::SystemError | RunState::Preempted);
        let holder = from.holder.map(|holder| self.tasks[usize::from(holder)]);
        if given_up && holder.is_some_and(Task::is_at_work) {
            broken.given_up_at_work = true;
        }
        if given_up && from.attempt > 0 {
            let result = self.results[usize::from(from.attempt) - 1];
            if result.finished().is_some() {
                broken.work_thrown_away = true;
            }
        }
    }
}

/// A state's place in the counts.
pub(crate) fn place(state: RunState) -> usize {
    RunState::ALL.iter().position(|other| *other == state).expect("it is one of all")
}
