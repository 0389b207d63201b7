//! What may go wrong, and what comes of it.

use super::{Action, Doing, Exec, Fault, Laws, Then, World};
use crate::{
    call::{Answer, Caller, Failure, Function, Input, Op, RunIx, Told},
    machine::Kind,
    task::{How, StopReason, TaskIx},
};

impl World {
    pub(super) fn faults(&self, laws: &Laws, actions: &mut Vec<Action>) {
        let mut fault = |fault| actions.push(Action::Fault(fault));
        for (ix, call) in self.calls.iter().enumerate() {
            let thens: &[Then] = match call.caller {
                Caller::Machine | Caller::Task(_) => &[Then::Retry, Then::GiveUp],
                Caller::Post(_) | Caller::Nobody => &[Then::Retry],
            };
            let Some((_, op)) = self.next_op(laws, call) else { continue };
            for then in thens {
                fault(Fault::Die(ix, *then));
                if self.is_last(laws, ix) {
                    fault(Fault::DieDone(ix, *then));
                }
                if call.caller != Caller::Nobody {
                    fault(Fault::TimeOut(ix, *then));
                }
            }
            match op {
                Op::Transition { read: Some(_), .. } | Op::Create { unanswered: false } => {
                    fault(Fault::Unanswered(ix));
                }
                Op::Start | Op::Stop { .. }
                    if matches!(call.function, Function::Submit | Function::Cancel) =>
                {
                    fault(Fault::Unheard(ix));
                }
                _ => {}
            }
        }
        for (ix, run) in self.runs.iter().enumerate() {
            let ix = u8::try_from(ix).expect("the model is small");
            if let Exec::At(at) = run.execution {
                fault(Fault::Abort(ix));
                match (at.doing, &laws.machine.state(at.place).kind) {
                    (Doing::Nothing, Kind::RunTask) => {
                        fault(Fault::TaskUnheard(ix, Then::Retry));
                        fault(Fault::TaskUnheard(ix, Then::GiveUp));
                        fault(Fault::TaskNotStarted(ix));
                        fault(Fault::TaskRefused(ix));
                    }
                    (Doing::Running(_), _) => fault(Fault::TaskTimedOut(ix)),
                    _ => {}
                }
            }
            for (task_ix, task) in run.tasks.iter().enumerate() {
                let task_ix = u8::try_from(task_ix).expect("the model is small");
                if task.is_live() {
                    fault(Fault::Spot(ix, task_ix));
                    fault(Fault::Kill(ix, task_ix));
                    fault(Fault::OutOfMemory(ix, task_ix));
                    if task.told_to_stop.is_none() {
                        fault(Fault::StopTask(ix, task_ix));
                    }
                }
            }
        }
    }

    pub(super) fn fault(&mut self, laws: &Laws, fault: &Fault) {
        const CRASHED: Failure = Failure("Runtime.ExitError");
        const TIMED_OUT: Failure = Failure("States.Timeout");
        match *fault {
            Fault::Die(ix, then) => {
                let call = self.calls.remove(ix);
                self.failed(laws, &call, CRASHED, then);
            }
            Fault::DieDone(ix, then) => {
                self.perform(laws, ix);
                let call = self.calls.remove(ix);
                self.failed(laws, &call, CRASHED, then);
            }
            Fault::TimeOut(ix, then) => {
                let call = self.calls[ix].clone();
                self.calls[ix].caller = Caller::Nobody;
                self.failed(laws, &call, TIMED_OUT, then);
            }
            Fault::Unanswered(ix) => {
                let created =
                    matches!(self.next_op(laws, &self.calls[ix]), Some((_, Op::Create { .. })));
                self.perform(laws, ix);
                let answers = &mut self.calls[ix].answers;
                match answers.last_mut() {
                    Some(last @ Answer::Told(Told::Moved(_))) => *last = Answer::Unanswered,
                    Some(last @ Answer::Created(_)) if created => *last = Answer::CreateUnanswered,
                    // Its condition did not hold: the answer is not lost, which is no fault.
                    _ => {}
                }
            }
            Fault::Unheard(ix) => {
                self.calls[ix].answers.push(Answer::Done);
                if let Ok(output) = Self::output(laws, &self.calls[ix]) {
                    let call = self.calls.remove(ix);
                    self.answer(laws, &call, output);
                }
            }
            Fault::TaskUnheard(run, then) => {
                let Exec::At(mut at) = self.run(run).execution else { return };
                self.run_task(run, at.attempt);
                if then == Then::GiveUp {
                    at.input = Input::NotStarted;
                    self.caught(laws, run, at);
                }
            }
            Fault::TaskNotStarted(run) => self.not_started(laws, run, Input::NotStarted),
            Fault::TaskRefused(run) => self.not_started(laws, run, Input::Refused),
            Fault::TaskTimedOut(run) => self.not_started(laws, run, Input::TimedOut),
            Fault::Abort(run) => {
                self.run(run).execution = Exec::Ended;
                for call in &mut self.calls {
                    if call.run == run && call.caller == Caller::Machine {
                        call.caller = Caller::Nobody;
                    }
                }
            }
            Fault::Spot(run, task) => self.end_task(run, task, How::Spot),
            Fault::Kill(run, task) => self.end_task(run, task, How::Killed),
            Fault::OutOfMemory(run, task) => self.end_task(run, task, How::OutOfMemory),
            Fault::StopTask(run, task) => {
                self.run(run).tasks[usize::from(task)].told_to_stop = Some(StopReason::Over);
            }
        }
    }

    fn not_started(&mut self, laws: &Laws, run: RunIx, input: Input) {
        let Exec::At(mut at) = self.run(run).execution else { return };
        at.input = input;
        at.doing = Doing::Nothing;
        self.caught(laws, run, at);
    }

    fn end_task(&mut self, run: RunIx, task: TaskIx, how: How) {
        self.run(run).tasks[usize::from(task)].end(how);
        self.hang_up(run, task);
    }
}
