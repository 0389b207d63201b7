//! Runs whose execution is gone.

use futures::{StreamExt as _, stream};
use stepwes_cloud::step::StepFailure;
use stepwes_collect::finish::{Found, Settled};
use stepwes_core::{
    RunEvent, RunId, RunState,
    run::{Place, Run},
    task::TaskResult,
};
use stepwes_store::Change;

use crate::{
    State, Summary,
    executions::Execution,
    summary::{Action, Repair},
    tasks,
};

/// The states that a run can be stuck in.
pub(crate) const UNFINISHED: [RunState; 4] =
    [RunState::Queued, RunState::Initializing, RunState::Running, RunState::Canceling];

/// How many unfinished runs of a state are listed in a pass.
pub(crate) const LISTED: u32 = 5000;

/// How many of them are looked at: `DescribeExecution` is good for 15 a second
/// (<https://docs.aws.amazon.com/step-functions/latest/dg/service-quotas.html>).
const LOOKED_AT: usize = 200;

/// How many are looked at at once.
pub(crate) const AT_ONCE: usize = 8;

type Done = Result<Vec<Repair>, StepFailure>;

/// Looks at the run whose execution is said to have ended badly, however fresh the run is.
pub(crate) async fn told(state: &State, run_id: RunId) -> Result<Summary, StepFailure> {
    let mut summary = Summary { checked: 1, ..Summary::default() };
    for repair in look(state, run_id).await? {
        summary.repaired(repair);
    }
    Ok(summary)
}

/// Looks at the runs that have stood still for longer than the grace.
pub(crate) async fn stalled(state: &State) -> Result<Summary, StepFailure> {
    let now = state.clock.now();
    let mut summary = Summary::default();
    for stuck in UNFINISHED {
        let listed = state.store.unfinished(stuck, now - state.grace, LISTED).await?;
        let turn = turn_of(listed, now.timestamp());
        let mut looks = stream::iter(turn)
            .map(|run_id| async move { (run_id, look(state, run_id).await) })
            .buffer_unordered(AT_ONCE);
        while let Some((run_id, done)) = looks.next().await {
            summary.checked += 1;
            match done {
                Ok(repairs) => repairs.into_iter().for_each(|repair| summary.repaired(repair)),
                Err(failure) => summary.failed(Some(run_id), &failure),
            }
        }
    }
    Ok(summary)
}

/// Starts the runs that wait, as far as there are slots.
pub(crate) async fn waiting(state: &State) -> Result<(), StepFailure> {
    state.queue.start_waiting(&state.store, None, usize::MAX).await?;
    Ok(())
}

/// Where runs wait, frees the slots that no run has, and starts as many as there is room for.
pub(crate) async fn queued(state: &State, summary: &mut Summary) -> Result<(), StepFailure> {
    if state.store.waiting(1).await?.is_empty() {
        return Ok(());
    }
    for run_id in state.store.free_lost_slots().await? {
        let reason = "the run has ended, or never had the slot".to_owned();
        summary.repaired(Repair { run_id, action: Action::FreeSlot, reason });
    }
    waiting(state).await
}

/// As many of the runs as a pass looks at. Long runs stand still for days in good health: were it
/// always the oldest, a stuck one behind them would never have its turn. So each pass begins
/// elsewhere: at a place that hops about with the seconds, whatever the schedule's step is.
fn turn_of(mut listed: Vec<RunId>, seconds: i64) -> Vec<RunId> {
    if listed.len() > LOOKED_AT {
        // Fibonacci hashing: the high bits of the product spread evenly.
        let hash = seconds.cast_unsigned().wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32;
        let place = usize::try_from(hash).unwrap_or_default() % listed.len();
        listed.rotate_left(place);
        listed.truncate(LOOKED_AT);
    }
    listed
}

/// Looks at one run, as it is now, and repairs it when its execution is gone.
async fn look(state: &State, run_id: RunId) -> Done {
    let Some(run) = state.store.get(run_id).await? else { return Ok(Vec::new()) };
    if run.state.is_terminal() {
        return Ok(Vec::new());
    }
    match (state.executions.of(run_id).await?, run.state) {
        // It has its turn when there is room.
        (Execution::Missing, RunState::Queued) if run.place == Some(Place::Waiting) => {
            Ok(Vec::new())
        }
        (Execution::Missing, RunState::Queued) => {
            state.executions.start(run_id).await?;
            let reason = "the run had no execution".to_owned();
            Ok(vec![Repair { run_id, action: Action::Start, reason }])
        }
        (Execution::Alive, RunState::Canceling) => {
            tasks::stop_claimed(state, &run, "the run is being cancelled").await
        }
        (Execution::Alive, _) => Ok(Vec::new()),
        (Execution::Missing, _) => settle(state, &run, "the run's execution does not exist").await,
        (Execution::Ended(how), _) => settle(state, &run, &how).await,
    }
}

/// Ends a run whose execution is gone, once no task of it is alive.
async fn settle(state: &State, run: &Run, how: &str) -> Done {
    let attempt = run.attempt;
    let canceling = run.state == RunState::Canceling;
    let found = if attempt == 0 {
        Found::Missing
    } else {
        state.finisher.find(run.run_id, attempt).await?
    };
    // A result is the last thing that a task writes: with one, a run that is not being cancelled
    // has ended, whether the task is quite gone or not.
    if !canceling && let Some(result) = found.finished() {
        return finish(state, run, result, how).await;
    }

    let mut stopped = tasks::stop_claimed(state, run, how).await?;
    stopped.extend(tasks::stop_unclaimed(state, run, how).await?);
    if !stopped.is_empty() {
        return Ok(stopped);
    }
    if !canceling
        && let Found::Missing = &found
        && attempt > 0
    {
        // The task may have left its result, and ended, after the result was looked for.
        let found = state.finisher.find(run.run_id, attempt).await?;
        if let Some(result) = found.finished() {
            return finish(state, run, result, how).await;
        }
    }
    let settled = if canceling {
        let cause = format!("no task is alive, and {how}");
        let change = Change { cause, ..found.of_engine() };
        state.finisher.settle(run, RunEvent::Canceled { attempt }, change).await?
    } else {
        let reason = match &found {
            Found::Unreadable(why) => {
                format!("{how}, and the result of attempt {attempt} cannot be used: {why}")
            }
            Found::Missing | Found::Result(_) => {
                format!("{how} before the run did; submit the run again")
            }
        };
        state.finisher.system_error(run, reason).await?
    };
    Ok(ended(settled, how))
}

/// Ends a run as its finished work says, though its execution is gone.
async fn finish(state: &State, run: &Run, result: &TaskResult, how: &str) -> Done {
    let settled = state.finisher.finish(run, result).await?;
    Ok(ended(settled, &format!("{how}, but its work was finished")))
}

/// The repair that ended a run; none when somebody else moved it meanwhile.
fn ended(settled: Settled, why: &str) -> Vec<Repair> {
    match settled {
        Settled::Ended(run) => vec![Repair {
            run_id: run.run_id,
            action: Action::End { state: run.state },
            reason: why.to_owned(),
        }],
        Settled::Changed(_) => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use stepwes_core::{Clock as _, IdGenerator as _, RandomIds, SystemClock};

    #[test]
    fn every_listed_run_has_its_turn_and_no_pass_looks_at_more_than_it_can() {
        let listed: Vec<_> =
            (0..LOOKED_AT * 5).map(|_| RandomIds.run_id(SystemClock.now())).collect();
        for step in [60, 300, 900, 3600] {
            let passes: Vec<_> =
                (0..100).map(|pass| turn_of(listed.clone(), 1_800_000_000 + pass * step)).collect();
            assert!(passes.iter().all(|pass| pass.len() == LOOKED_AT));
            let seen: std::collections::BTreeSet<_> = passes.into_iter().flatten().collect();
            assert_eq!(seen.len(), listed.len(), "a tick every {step} s");
        }
        assert_eq!(turn_of(listed[..3].to_vec(), 99), listed[..3]);
    }
}
