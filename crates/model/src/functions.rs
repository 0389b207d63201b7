//! The functions' logic, each as its own crate has it: read them side by side. What is left out
//! (staging, outputs, credentials, words for people) touches no state.

use stepwes_collect::loss::Loss;
use stepwes_core::{
    RunEvent, RunState,
    step::{Next, error_type},
};

use crate::{
    bounds::Bug,
    call::{
        Created, Ctx, Execution, Failure, Found, Input, Outcome, Output, RunIx, Seen, Step, Stop,
        Told, end,
    },
    table::{Item, Who, may_speak},
    task::{How, TaskIx},
};

/// As collect's.
const ROUNDS: usize = 4;

const RUN_NOT_FOUND: Stop = Stop::Failed(Failure(error_type::RUN_NOT_FOUND));
const STALE_ATTEMPT: Stop = Stop::Failed(Failure(error_type::STALE_ATTEMPT));
const INTERNAL: Stop = Stop::Failed(Failure(error_type::INTERNAL));
const UNAVAILABLE: Stop = Stop::Failed(Failure(error_type::UNAVAILABLE));

// functions/submit

pub(crate) fn submit(ctx: &mut Ctx<'_>, own: RunIx) -> Step<RunIx> {
    if let Some(before) = ctx.key()? {
        restart(ctx, before)?;
        return Ok(before);
    }
    match ctx.create()? {
        Created::New => {
            ctx.start()?;
            Ok(own)
        }
        Created::Existing(existing) if existing == own => {
            ctx.start()?;
            Ok(own)
        }
        Created::Existing(existing) => {
            restart(ctx, existing)?;
            Ok(existing)
        }
    }
}

fn restart(ctx: &mut Ctx<'_>, run: RunIx) -> Step<()> {
    ctx.of(run);
    if ctx.get()?.is_some_and(|run| run.state == RunState::Queued) {
        ctx.start()?;
    }
    Ok(())
}

// functions/cancel

pub(crate) fn cancel(ctx: &mut Ctx<'_>) -> Step<()> {
    let run = match ctx.transition(RunEvent::Cancel, Who::Any)? {
        Told::Moved(run) | Told::Repeated(run) | Told::Refused(run) | Told::Held(run) => run,
        Told::NotFound => return Ok(()),
    };
    if run.state == RunState::Canceling {
        if run.attempt == 0 {
            ctx.start()?;
        } else if let Some(task) = run.holder {
            ctx.stop(task, false)?;
        }
    }
    Ok(())
}

// functions/advance

pub(crate) fn initialize(ctx: &mut Ctx<'_>) -> Step<Output> {
    match ctx.transition(RunEvent::Initialize, Who::Any)? {
        Told::Moved(run) | Told::Repeated(run) => Ok(attempt_of(run)),
        Told::Refused(run) | Told::Held(run) => match run.state {
            RunState::Canceling if run.attempt == 0 => canceled(ctx, run),
            RunState::Canceling if run.attempt == 1 => Ok(attempt_of(run)),
            _ => end_or_stale(run),
        },
        Told::NotFound => Err(RUN_NOT_FOUND),
    }
}

pub(crate) fn preempt(ctx: &mut Ctx<'_>, attempt: u8, held_by: Option<TaskIx>) -> Step<Output> {
    let event = RunEvent::Preempt { attempt: attempt.into(), max_attempts: ctx.attempts.into() };
    let holder = match ctx.bug {
        Some(Bug::HolderForgotten) => Who::Any,
        _ => Who::of(held_by),
    };
    match ctx.transition(event, holder)? {
        Told::Moved(run) | Told::Repeated(run) => match end(run.state) {
            Some(next) => Ok(answer(next, run)),
            None => Ok(attempt_of(run)),
        },
        Told::Refused(run) | Told::Held(run) if run.attempt == attempt && !holder.is_of(run) => {
            Ok(answer(end(run.state).unwrap_or(Next::Wait), run))
        }
        Told::Refused(run) | Told::Held(run) => match run.state {
            RunState::Canceling if run.attempt == attempt => canceled(ctx, run),
            RunState::Canceling if run.attempt == attempt + 1 => Ok(attempt_of(run)),
            _ => end_or_stale(run),
        },
        Told::NotFound => Err(RUN_NOT_FOUND),
    }
}

pub(crate) fn system_error(ctx: &mut Ctx<'_>, attempt: u8) -> Step<Output> {
    let event = |attempt: u8| RunEvent::SystemError { attempt: attempt.into() };
    let nobody = match ctx.bug {
        Some(Bug::FailedStepUnseen) => Who::Any,
        _ => Who::Nobody,
    };
    let mut told = ctx.transition(event(attempt), nobody)?;
    if let Told::Refused(run) = told
        && run.attempt == attempt + 1
        && run.state == RunState::Initializing
        && run.holder.is_none()
    {
        told = ctx.transition(event(attempt + 1), nobody)?;
    }
    match told {
        Told::Moved(run) | Told::Repeated(run) => Ok(answer(Next::SystemError, run)),
        Told::Held(_) => Err(INTERNAL),
        Told::Refused(run) => match run.state {
            RunState::Canceling if attempt == 0 => canceled(ctx, run),
            RunState::Canceling => Err(INTERNAL),
            _ => end_or_stale(run),
        },
        Told::NotFound => Err(RUN_NOT_FOUND),
    }
}

fn canceled(ctx: &mut Ctx<'_>, run: Item) -> Step<Output> {
    match ctx.transition(RunEvent::Canceled { attempt: run.attempt.into() }, Who::Any)? {
        Told::Moved(run) | Told::Repeated(run) => Ok(answer(Next::Canceled, run)),
        Told::Refused(run) | Told::Held(run) => end_or_stale(run),
        Told::NotFound => Err(RUN_NOT_FOUND),
    }
}

fn attempt_of(run: Item) -> Output {
    answer(Next::RunTask, run)
}

fn end_or_stale(run: Item) -> Step<Output> {
    match end(run.state) {
        Some(next) => Ok(answer(next, run)),
        None => Err(STALE_ATTEMPT),
    }
}

fn answer(next: Next, run: Item) -> Output {
    Output::Next { next, attempt: run.attempt, holder: None }
}

// functions/report

pub(crate) fn claim(ctx: &mut Ctx<'_>, attempt: u8, task: TaskIx) -> Step<Output> {
    let accepted = ctx.claim(attempt, task)?.is_ok();
    Ok(Output::Verdict { accepted })
}

pub(crate) fn report_run(ctx: &mut Ctx<'_>, attempt: u8, task: TaskIx) -> Step<Output> {
    let may = ctx.get()?.is_some_and(|run| may_speak(run, attempt, task));
    if !may {
        return Ok(Output::Verdict { accepted: false });
    }
    let told = ctx.transition(RunEvent::Run { attempt: attempt.into() }, Who::Any)?;
    Ok(Output::Verdict { accepted: matches!(told, Told::Moved(_) | Told::Repeated(_)) })
}

// functions/collect

pub(crate) fn collect(ctx: &mut Ctx<'_>, attempt: u8, input: Input) -> Step<Output> {
    let mut run = ctx.get()?.ok_or(RUN_NOT_FOUND)?;
    for _ in 0..ROUNDS {
        if let Some(next) = end(run.state) {
            return Ok(answer(next, run));
        }
        if run.attempt != attempt || run.state == RunState::Queued {
            return Err(STALE_ATTEMPT);
        }
        match look(ctx, run, input)? {
            Round::Answer(next) => {
                let holder = run.holder.filter(|_| next == Next::Retry);
                return Ok(Output::Next { next, attempt: run.attempt, holder });
            }
            Round::Changed(now) => run = now,
        }
    }
    Err(UNAVAILABLE)
}

enum Round {
    Answer(Next),
    Changed(Item),
}

fn look(ctx: &mut Ctx<'_>, run: Item, input: Input) -> Step<Round> {
    let canceling = run.state == RunState::Canceling;
    let blind = ctx.bug == Some(Bug::ResultIgnored)
        && matches!(input, Input::Ended(_, gone) if gone.how == How::Spot);
    let found = if blind { Found::Missing } else { ctx.find(run.attempt)? };
    if !canceling && let Some(outcome) = found.finished() {
        return Ok(Round::Changed(finish(ctx, run, outcome)?));
    }

    let told = match input {
        Input::Ended(task, gone) => Some((task, gone)),
        Input::TimedOut | Input::NotStarted | Input::Refused => None,
    };
    let (gone, seen) = match run.holder {
        None => (told, false),
        Some(holder) if told.is_some_and(|(task, _)| task == holder) => (told, false),
        Some(_) if canceling && ctx.bug == Some(Bug::CanceledAtOnce) => (None, true),
        Some(holder) => match ctx.describe(holder)? {
            Seen::Live => {
                if canceling {
                    ctx.stop(holder, false)?;
                } else if input == Input::TimedOut {
                    ctx.stop(holder, true)?;
                }
                return Ok(Round::Answer(Next::Wait));
            }
            Seen::Stopped(gone) => (Some((holder, gone)), true),
        },
    };
    if canceling {
        let event = RunEvent::Canceled { attempt: run.attempt.into() };
        return Ok(Round::Changed(settle(ctx, event, Who::Any)?));
    }
    if seen && !blind && ctx.bug != Some(Bug::ResultNotLookedForAgain) {
        let found = ctx.find(run.attempt)?;
        if let Some(outcome) = found.finished() {
            return Ok(Round::Changed(finish(ctx, run, outcome)?));
        }
    }
    match ctx.losses.classify(input, gone.map(|(_, gone)| gone)) {
        Loss::Interrupted(_) => return Ok(Round::Answer(Next::Retry)),
        Loss::Lost(_) if run.attempt < ctx.attempts => return Ok(Round::Answer(Next::Retry)),
        Loss::Lost(_) | Loss::TimedOut | Loss::Final(_) => {}
    }
    let event = RunEvent::SystemError { attempt: run.attempt.into() };
    let holder = match ctx.bug {
        Some(Bug::GivenUpUnseen) => Who::Any,
        _ => Who::of(run.holder),
    };
    Ok(Round::Changed(settle(ctx, event, holder)?))
}

fn finish(ctx: &mut Ctx<'_>, run: Item, outcome: Outcome) -> Step<Item> {
    let attempt = run.attempt.into();
    match outcome {
        Outcome::Complete => {
            if run.state == RunState::Initializing {
                match ctx.transition(RunEvent::Run { attempt }, Who::Any)? {
                    Told::Moved(_) | Told::Repeated(_) => {}
                    Told::Refused(run) | Told::Held(run) => return Ok(run),
                    Told::NotFound => return Err(RUN_NOT_FOUND),
                }
            }
            settle(ctx, RunEvent::Complete { attempt }, Who::Any)
        }
        Outcome::ExecutorError => settle(ctx, RunEvent::ExecutorError { attempt }, Who::Any),
    }
}

fn settle(ctx: &mut Ctx<'_>, event: RunEvent, holder: Who) -> Step<Item> {
    match ctx.transition(event, holder)? {
        Told::Moved(run) | Told::Repeated(run) | Told::Refused(run) | Told::Held(run) => Ok(run),
        Told::NotFound => Err(RUN_NOT_FOUND),
    }
}

// functions/reconcile

pub(crate) fn reconcile(ctx: &mut Ctx<'_>) -> Step<()> {
    let Some(run) = ctx.get()? else { return Ok(()) };
    if run.state.is_terminal() {
        return Ok(());
    }
    match (ctx.execution()?, run.state) {
        (Execution::Missing, RunState::Queued) => {
            if ctx.bug != Some(Bug::QueuedForgotten) {
                ctx.start()?;
            }
        }
        (Execution::Alive, RunState::Canceling) => {
            stop_claimed(ctx, run)?;
        }
        (Execution::Alive, _) => {}
        (Execution::Missing | Execution::Ended, _) => settle_lost(ctx, run)?,
    }
    Ok(())
}

fn settle_lost(ctx: &mut Ctx<'_>, run: Item) -> Step<()> {
    let canceling = run.state == RunState::Canceling;
    let found = if run.attempt == 0 { Found::Missing } else { ctx.find(run.attempt)? };
    if !canceling && let Some(outcome) = found.finished() {
        finish(ctx, run, outcome)?;
        return Ok(());
    }
    let claimed = stop_claimed(ctx, run)?;
    let unclaimed = stop_unclaimed(ctx, run)?;
    if claimed || unclaimed {
        return Ok(());
    }
    if !canceling && found == Found::Missing && run.attempt > 0 {
        let found = ctx.find(run.attempt)?;
        if let Some(outcome) = found.finished() {
            finish(ctx, run, outcome)?;
            return Ok(());
        }
    }
    let attempt = run.attempt.into();
    let event =
        if canceling { RunEvent::Canceled { attempt } } else { RunEvent::SystemError { attempt } };
    let holder = if canceling { Who::Any } else { Who::of(run.holder) };
    settle(ctx, event, holder)?;
    Ok(())
}

/// Whether there was something to stop.
fn stop_claimed(ctx: &mut Ctx<'_>, run: Item) -> Step<bool> {
    let Some(task) = run.holder else { return Ok(false) };
    if ctx.describe(task)? != Seen::Live {
        return Ok(false);
    }
    ctx.stop(task, false)?;
    Ok(true)
}

/// Whether there was something to stop.
fn stop_unclaimed(ctx: &mut Ctx<'_>, run: Item) -> Step<bool> {
    let mut live = ctx.list(false)?;
    live |= ctx.list(true)?;
    let mut stopped = false;
    for task in (0..8).filter(|task| live & 1 << task != 0 && run.holder != Some(*task)) {
        ctx.stop(task, false)?;
        stopped = true;
    }
    Ok(stopped)
}

pub(crate) fn orphan(ctx: &mut Ctx<'_>, attempt: u8, task: TaskIx) -> Step<()> {
    let Some(run) = ctx.get()? else { return Ok(()) };
    let over = attempt < run.attempt;
    if run.state.is_terminal() || run.state == RunState::Canceling || over {
        ctx.stop(task, false)?;
    }
    Ok(())
}

pub(crate) fn remove(ctx: &mut Ctx<'_>) -> Step<()> {
    if let Some(run) = ctx.get()?
        && run.state.is_terminal()
    {
        ctx.remove(run)?;
    }
    Ok(())
}
