//! Invocations, one call of AWS's at a time, and what the calls do.

use stepwes_core::run_state::{EventKind, RunEvent, RunState};
use stepwes_store::rules;

use super::{At, Doing, Exec, Laws, Then, World, place};
use crate::{
    bounds::Bug,
    call::{Answer, Call, Created, Ctx, Execution, Input, Op, Output, RunIx, Seen, Stop, Told},
    table::{self, Decided, DecidedClaim, Item, Who},
    task::{Phase, StopReason, TaskIx},
};

impl World {
    pub(super) fn output(laws: &Laws, call: &Call) -> Result<Output, Stop> {
        let mut ctx = Ctx::new(call, laws.bounds.attempts, &laws.losses, laws.bug);
        call.run(&mut ctx)
    }

    pub(super) fn next_op(&self, laws: &Laws, call: &Call) -> Option<(RunIx, Op)> {
        match Self::output(laws, call) {
            Err(Stop::Ask(run, op)) => Some((run, op)),
            Ok(_) | Err(Stop::Failed(_)) => None,
        }
    }

    /// Whether the invocation answers after its next call of AWS's.
    pub(super) fn is_last(&self, laws: &Laws, ix: usize) -> bool {
        let mut then = self.clone();
        then.perform(laws, ix);
        !matches!(Self::output(laws, &then.calls[ix]), Err(Stop::Ask(..)))
    }

    pub(super) fn go_on(&mut self, laws: &Laws, ix: usize) {
        self.perform(laws, ix);
        match Self::output(laws, &self.calls[ix]) {
            Err(Stop::Ask(..)) => {}
            Ok(output) => {
                let call = self.calls.remove(ix);
                self.answer(laws, &call, output);
            }
            Err(Stop::Failed(failure)) => {
                let call = self.calls.remove(ix);
                self.failed(laws, &call, failure, Then::Retry);
            }
        }
    }

    /// Carries out an invocation's next call of AWS's.
    pub(super) fn perform(&mut self, laws: &Laws, ix: usize) {
        let Some((run, op)) = self.next_op(laws, &self.calls[ix]) else { return };
        let answer = match op {
            Op::Transition { event, holder, read: Some(read) } => {
                self.calls[ix].answers.pop();
                self.write(laws, run, event, holder, read)
            }
            Op::TransitionAgain { event, holder } => {
                self.calls[ix].answers.pop();
                // The event item shows that the write was ours.
                match self.read(laws, run, event, holder) {
                    Answer::Told(Told::Repeated(item) | Told::Refused(item) | Told::Held(item)) => {
                        Answer::Told(Told::Moved(item))
                    }
                    other => other,
                }
            }
            Op::Claim { attempt, task, read: Some(_) } => {
                self.calls[ix].answers.pop();
                self.bind(laws, run, attempt, task)
            }
            op => self.ask(laws, run, op),
        };
        self.calls[ix].answers.push(answer);
    }

    fn ask(&mut self, laws: &Laws, run: RunIx, op: Op) -> Answer {
        match op {
            Op::Get => Answer::Item(self.run(run).item),
            Op::Transition { event, holder, .. } | Op::TransitionAgain { event, holder } => {
                self.read(laws, run, event, holder)
            }
            Op::Claim { attempt, task, .. } => self.claim(laws, run, attempt, task),
            Op::Key => Answer::Key(self.key),
            Op::Create { unanswered } => Answer::Created(self.create(laws, run, unanswered)),
            Op::Start => {
                self.start(laws, run);
                Answer::Done
            }
            Op::Execution => Answer::Execution(match self.run(run).execution {
                Exec::Missing => Execution::Missing,
                Exec::At(_) => Execution::Alive,
                Exec::Ended => Execution::Ended,
            }),
            Op::Find { attempt } => Answer::Found(self.run(run).results[usize::from(attempt) - 1]),
            Op::Describe(task) => {
                Answer::Task(match self.run(run).tasks[usize::from(task)].phase {
                    Phase::Stopped(gone) => Seen::Stopped(gone),
                    _ => Seen::Live,
                })
            }
            Op::List { asked_to_stop } => {
                let mut found = 0;
                for (ix, task) in self.run(run).tasks.iter().enumerate() {
                    if task.is_live() && task.told_to_stop.is_some() == asked_to_stop {
                        found |= 1 << ix;
                    }
                }
                Answer::Tasks(found)
            }
            Op::Stop { task, overdue } => {
                let task = &mut self.run(run).tasks[usize::from(task)];
                if task.is_live() && task.told_to_stop.is_none() {
                    task.told_to_stop =
                        Some(if overdue { StopReason::Overdue } else { StopReason::Over });
                }
                Answer::Done
            }
            Op::Remove(item) => {
                self.remove(run, item);
                Answer::Done
            }
        }
    }

    fn start(&mut self, laws: &Laws, run: RunIx) {
        let execution = &mut self.run(run).execution;
        // A name that was used is refused, which is success.
        if *execution == Exec::Missing {
            *execution = Exec::At(At {
                place: laws.machine.start,
                attempt: 0,
                input: Input::NotStarted,
                holder: None,
                doing: Doing::Nothing,
            });
        }
    }

    // The table

    fn decide(laws: &Laws, item: Item, event: RunEvent, holder: Who) -> Decided {
        let broken = |state| Decided::Write {
            item: Item { state, version: item.version + 1, ..item },
            counts: Some((item.state, state)),
        };
        match (laws.bug, event.kind()) {
            (Some(Bug::TerminalChanges), EventKind::SystemError)
                if item.state.is_terminal() && item.state != RunState::SystemError =>
            {
                broken(RunState::SystemError)
            }
            (Some(Bug::CancelingCompletes), EventKind::Complete)
                if item.state == RunState::Canceling =>
            {
                broken(RunState::Complete)
            }
            _ => table::decide(item, event, holder),
        }
    }

    /// The read of a transition, and what it decides.
    fn read(&mut self, laws: &Laws, run: RunIx, event: RunEvent, holder: Who) -> Answer {
        let Some(item) = self.run(run).item else { return Answer::Told(Told::NotFound) };
        match Self::decide(laws, item, event, holder) {
            Decided::Write { .. } => Answer::Read(item),
            Decided::Repeated => Answer::Told(Told::Repeated(item)),
            Decided::Refused => Answer::Told(Told::Refused(item)),
            Decided::Held => Answer::Told(Told::Held(item)),
        }
    }

    /// The write of a transition; when its condition does not hold, the decision by what is there.
    fn write(
        &mut self,
        laws: &Laws,
        run: RunIx,
        event: RunEvent,
        holder: Who,
        read: Item,
    ) -> Answer {
        let Decided::Write { item, counts } = Self::decide(laws, read, event, holder) else {
            unreachable!("a write is made out for what is to be written")
        };
        let of = self.run(run);
        let Some(now) = of.item else { return Answer::Told(Told::NotFound) };
        let forgotten = laws.bug == Some(Bug::VersionForgotten);
        let event_is_new = of.events & 1 << item.version == 0;
        let holds = table::is_unchanged(read, now) && event_is_new;
        if !(holds || forgotten) {
            return self.read(laws, run, event, holder);
        }
        of.note(now, item);
        of.item = Some(item);
        if laws.bug != Some(Bug::EventForgotten) || item.state != RunState::Canceling {
            of.events |= 1 << item.version;
            of.last_event = Some(item.state);
        }
        let counted = laws.bug != Some(Bug::CountForgotten) || item.state != RunState::Running;
        if let Some((from, to)) = counts.filter(|_| counted) {
            self.counts[place(from)] -= 1;
            self.counts[place(to)] += 1;
        }
        Answer::Told(Told::Moved(item))
    }

    fn claim(&mut self, laws: &Laws, run: RunIx, attempt: u8, task: TaskIx) -> Answer {
        let Some(item) = self.run(run).item else {
            return Answer::Claimed(Err(stepwes_core::task::RefusedReason::Unknown.into()));
        };
        match table::decide_claim(item, attempt, task) {
            DecidedClaim::Bind => Answer::Read(item),
            DecidedClaim::Bound => Answer::Claimed(Ok(item)),
            DecidedClaim::Refused
                if laws.bug == Some(Bug::TwinAccepted)
                    && item.attempt == attempt
                    && matches!(item.state, RunState::Initializing | RunState::Running) =>
            {
                let run = self.run(run);
                run.item = Some(Item { holder: Some(task), ..item });
                Answer::Claimed(Ok(item))
            }
            DecidedClaim::Refused => {
                Answer::Claimed(Err(stepwes_core::task::RefusedReason::Over.into()))
            }
        }
    }

    /// The write of a claim.
    fn bind(&mut self, laws: &Laws, run: RunIx, attempt: u8, task: TaskIx) -> Answer {
        match self.run(run).item {
            Some(now) if table::is_free(attempt, task, now) => {
                let bound = Item { holder: Some(task), ..now };
                self.run(run).item = Some(bound);
                Answer::Claimed(Ok(bound))
            }
            _ => self.claim(laws, run, attempt, task),
        }
    }

    fn create(&mut self, laws: &Laws, run: RunIx, unanswered: bool) -> Created {
        // The key is good for longer than the model lives.
        let expires_at = self.key.map(|_| 1);
        let free = rules::key_is_free(expires_at, 0) || laws.bug == Some(Bug::KeyForgotten);
        let of = self.run(run);
        if free && of.item.is_none() {
            of.item = Some(Item::NEW);
            of.events = 1 << Item::NEW.version;
            of.last_event = Some(Item::NEW.state);
            of.history.created = true;
            of.history.changes = 1;
            self.key = Some(run);
            self.counts[place(Item::NEW.state)] += 1;
            return Created::New;
        }
        table::existing(run, of.item, self.key, unanswered)
    }

    fn remove(&mut self, run: RunIx, item: Item) {
        let of = self.run(run);
        if of.item.is_some_and(|now| now.version == item.version) {
            of.item = None;
            of.events = 0;
            of.last_event = None;
            of.history.removed = true;
            self.counts[place(item.state)] -= 1;
        }
    }
}
