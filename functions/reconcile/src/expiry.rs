//! Runs that were kept for as long as runs are.

use std::{collections::BTreeSet, str::FromStr};

use chrono::{DateTime, TimeDelta, Utc};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use stepwes_cloud::{erase::erase, step::StepFailure};
use stepwes_core::{RunId, RunState, saved};
use thiserror::Error;

use crate::{
    State, Summary,
    runs::{AT_ONCE, LISTED, UNFINISHED},
    summary::{Action, Repair},
};

/// How many expired runs of each of the table's partitions a pass removes.
const REMOVED_OF_A_PARTITION: u32 = 250;

/// For how long a pass begins to remove runs, so that it ends within its function's time limit. A
/// run with very many files may take longer: what is gone by then stays gone.
const BEGINS_FOR: TimeDelta = TimeDelta::seconds(120);

/// What becomes of an expired run's files.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ExpiredFiles {
    /// They stay, as far as the bucket's lifecycle rules let them.
    #[default]
    Keep,
    /// They go with the run, as by `DELETE /runs/{id}`.
    Remove,
}

/// Neither `keep` nor `remove`.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{0:?} is neither keep nor remove")]
pub struct NoExpiredFiles(String);

impl FromStr for ExpiredFiles {
    type Err = NoExpiredFiles;

    fn from_str(text: &str) -> Result<Self, NoExpiredFiles> {
        match text {
            "keep" => Ok(Self::Keep),
            "remove" => Ok(Self::Remove),
            other => Err(NoExpiredFiles(other.to_owned())),
        }
    }
}

/// How long ended runs are kept, and what goes with them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Retention {
    pub(crate) kept: TimeDelta,
    pub(crate) files: ExpiredFiles,
}

/// Removes runs that ended longer ago than they are kept.
pub(crate) async fn expired(state: &State, summary: &mut Summary) {
    let Some(Retention { kept, files }) = state.retention else { return };
    let now = state.clock.now();
    let (before, until) = (now - kept, now + BEGINS_FOR);
    let listed = match state.store.ended(before, REMOVED_OF_A_PARTITION).await {
        Ok(listed) if listed.is_empty() => return,
        Ok(listed) => listed,
        Err(error) => return summary.failed(None, &error.into()),
    };
    let needed = match files {
        ExpiredFiles::Keep => Needed::These(BTreeSet::new()),
        ExpiredFiles::Remove => match Needed::find(state, now).await {
            Ok(needed) => needed,
            Err(failure) => return summary.failed(None, &failure),
        },
    };
    let needed = &needed;
    let mut removals = stream::iter(listed)
        .map(|run_id| async move {
            let done = if state.clock.now() < until {
                remove(state, run_id, before, files, needed).await
            } else {
                Ok(None)
            };
            (run_id, done)
        })
        .buffer_unordered(AT_ONCE);
    while let Some((run_id, done)) = removals.next().await {
        match done {
            Ok(Some(repair)) => summary.repaired(repair),
            Ok(None) => {}
            Err(failure) => summary.failed(Some(run_id), &failure),
        }
    }
}

/// Removes one run, if it is as it was listed. Done by two at once, or cut off and done again, it
/// comes to the same.
async fn remove(
    state: &State,
    run_id: RunId,
    before: DateTime<Utc>,
    files: ExpiredFiles,
    needed: &Needed,
) -> Result<Option<Repair>, StepFailure> {
    let Some(run) = state.store.get(run_id).await? else { return Ok(None) };
    if !run.state.is_terminal() || run.updated_at >= before {
        return Ok(None);
    }
    let removed = match files {
        ExpiredFiles::Keep => state.store.remove(&run).await?,
        ExpiredFiles::Remove if needed.may_have(run_id, run.state) => return Ok(None),
        ExpiredFiles::Remove => erase(&state.store, &state.objects, &run).await?,
    };
    let reason = "it was kept for as long as runs are".to_owned();
    Ok(removed.then_some(Repair { run_id, action: Action::Remove, reason }))
}

/// The runs whose saved state others read that have not ended.
enum Needed {
    These(BTreeSet<RunId>),
    /// There are more that have not ended than a pass looks at.
    Unknown,
}

impl Needed {
    async fn find(state: &State, now: DateTime<Utc>) -> Result<Self, StepFailure> {
        // Those that somebody writes now by a clock that is ahead, too.
        let until = now + TimeDelta::minutes(1);
        let most = LISTED as usize;
        let mut unfinished = state.store.waiting(most).await?;
        let mut are_all = unfinished.len() < most;
        for phase in UNFINISHED {
            let listed = state.store.unfinished(phase, until, LISTED).await?;
            are_all &= listed.len() < most;
            unfinished.extend(listed);
        }
        if !are_all {
            tracing::warn!("too many runs are under way to tell which ended ones they go on from");
            return Ok(Self::Unknown);
        }
        let parents = stream::iter(unfinished)
            .map(|run_id| async move {
                let run = state.store.get(run_id).await?;
                Ok::<_, StepFailure>(run.as_ref().and_then(saved::resumed_from))
            })
            .buffer_unordered(AT_ONCE)
            .try_filter_map(async |parent| Ok(parent));
        Ok(Self::These(parents.try_collect().await?))
    }

    fn may_have(&self, run_id: RunId, state: RunState) -> bool {
        match self {
            Self::These(runs) => runs.contains(&run_id),
            // Nobody goes on from a run that is COMPLETE.
            Self::Unknown => state != RunState::Complete,
        }
    }
}
