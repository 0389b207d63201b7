//! Tasks that have no run to work for.

use stepwes_cloud::{ecs::TaskInfo, step::StepFailure};
use stepwes_core::{RunState, run::Run};

use crate::{
    State, Summary,
    summary::{Action, Repair},
};

/// How many pages of a hundred live tasks a pass looks at.
const PAGES: usize = 20;

/// Stops the task that claimed the run's attempt, when it may be alive. Asked again, it is stopped
/// again: the first request may never have arrived.
pub(crate) async fn stop_claimed(
    state: &State,
    run: &Run,
    why: &str,
) -> Result<Vec<Repair>, StepFailure> {
    let Some(task_arn) = &run.task_arn else { return Ok(Vec::new()) };
    match state.tasks.describe(task_arn).await? {
        Some(task) if task.is_live() => Ok(vec![stop(state, run, &task, why).await?]),
        _ => Ok(Vec::new()),
    }
}

/// Stops live tasks that were started for the run but have not claimed it; those that are stopping
/// already are told again, as they are not gone yet.
pub(crate) async fn stop_unclaimed(
    state: &State,
    run: &Run,
    why: &str,
) -> Result<Vec<Repair>, StepFailure> {
    let mut stopped = Vec::new();
    let mut live = listed(state, false).await?;
    live.extend(listed(state, true).await?);
    for task in live {
        let claimed = run.task_arn.as_ref() == Some(&task.task_arn);
        if task.run_id == Some(run.run_id) && !claimed {
            stopped.push(stop(state, run, &task, why).await?);
        }
    }
    Ok(stopped)
}

/// Stops every live task whose run has ended, is being cancelled, or has gone on to another
/// attempt.
pub(crate) async fn orphans(state: &State, summary: &mut Summary) {
    let live = match listed(state, false).await {
        Ok(live) => live,
        Err(failure) => return summary.failed(None, &failure),
    };
    let now = state.clock.now();
    for task in live {
        let Some(run_id) = task.run_id else { continue };
        if task.created_at.is_some_and(|created| created > now - state.grace) {
            continue;
        }
        summary.checked += 1;
        match orphan(state, &task).await {
            Ok(Some(repair)) => summary.repaired(repair),
            Ok(None) => {}
            Err(failure) => summary.failed(Some(run_id), &failure),
        }
    }
}

async fn orphan(state: &State, task: &TaskInfo) -> Result<Option<Repair>, StepFailure> {
    let Some(run_id) = task.run_id else { return Ok(None) };
    let Some(run) = state.store.get(run_id).await? else {
        // Another deployment's, in the same cluster: not ours to stop.
        tracing::warn!(%run_id, task_arn = task.task_arn, "a live task's run is not known");
        return Ok(None);
    };
    let why = if run.state.is_terminal() {
        "the run has ended"
    } else if run.state == RunState::Canceling {
        "the run is being cancelled"
    } else if task.attempt.is_some_and(|attempt| attempt < run.attempt) {
        "its attempt is over"
    } else {
        return Ok(None);
    };
    stop(state, &run, task, why).await.map(Some)
}

/// The live tasks that nobody has asked to stop, or those that somebody has; as many as a pass
/// looks at.
async fn listed(state: &State, asked_to_stop: bool) -> Result<Vec<TaskInfo>, StepFailure> {
    let mut found = Vec::new();
    let mut next = None;
    for _ in 0..PAGES {
        let (tasks, more) = state.tasks.page(asked_to_stop, next).await?;
        found.extend(tasks.into_iter().filter(TaskInfo::is_live));
        if more.is_none() {
            return Ok(found);
        }
        next = more;
    }
    tracing::warn!(looked_at = found.len(), "there are more live tasks than one pass looks at");
    Ok(found)
}

async fn stop(state: &State, run: &Run, task: &TaskInfo, why: &str) -> Result<Repair, StepFailure> {
    state.tasks.stop(&task.task_arn, &format!("stepwes: {why}")).await?;
    let action = Action::StopTask { task_arn: task.task_arn.clone() };
    Ok(Repair { run_id: run.run_id, action, reason: why.to_owned() })
}
