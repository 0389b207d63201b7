//! What the store decides, apart from how it asks DynamoDB: what an event, a claim or a submission
//! comes to, what is then written, and on which condition. No IO.
//!
//! The store turns the conditions into DynamoDB's language; `crates/model` holds them against a
//! table of its own, in every order in which things can happen.

use chrono::{DateTime, SubsecRound as _, Utc};
use stepwes_core::{
    run::{Place, Run},
    run_state::{Position, Refusal, RunEvent, RunState, Step},
    task::RefusedReason,
    token::AttemptToken,
};

use crate::{
    error::StoreError,
    limits::{append, cut_cmd},
    model::{Change, Created, IdempotentRun, NewRun},
};

/// What an event comes to, by the run as it was read.
#[derive(Clone, Debug, PartialEq)]
#[expect(
    clippy::large_enum_variant,
    reason = "one such value a call; a box would only be in the way"
)]
pub enum Decision {
    /// The run moves, if it still is as it was read.
    Write(StateChange),
    /// The event has had its effect before.
    Repeated,
    /// It has none.
    Refused(Refusal),
}

/// A state change as one transaction writes it: the run, an event item of its version where there
/// must be none yet, and the counts.
#[derive(Clone, Debug, PartialEq)]
pub struct StateChange {
    /// What must hold of the run's item.
    pub condition: Unchanged,
    /// The run after it.
    pub run: Run,
    /// From which state to which the counts move; `None` when it is the same.
    pub counts: Option<(RunState, RunState)>,
}

/// That a run is as it was read: no state change in between, and no claim either, since who cancels
/// must learn of the task to stop.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unchanged {
    /// The version that was read.
    pub version: u64,
    /// The holder that was read.
    pub task_arn: Option<String>,
    /// The place that was read: a slot that is given meanwhile is to be freed.
    pub place: Option<Place>,
}

impl Unchanged {
    /// That a run is as it is now.
    #[must_use]
    pub fn since(run: &Run) -> Self {
        Self { version: run.version, task_arn: run.task_arn.clone(), place: run.place }
    }

    /// Whether it holds of a run's item; never where there is none.
    #[must_use]
    pub fn holds(&self, item: Option<&Run>) -> bool {
        item.is_some_and(|run| Self::since(run) == *self)
    }
}

/// What `event` comes to for a run that was read as `run`. `now` is the time of the change, and
/// `token` makes the secret of a new attempt.
///
/// # Errors
/// As `token` fails.
pub fn decide(
    run: &Run,
    event: RunEvent,
    change: &Change,
    now: DateTime<Utc>,
    token: impl FnOnce() -> Result<AttemptToken, StoreError>,
) -> Result<Decision, StoreError> {
    let to = match run.position().apply(event) {
        Ok(Step::Move(to)) => to,
        Ok(Step::Repeated) => return Ok(Decision::Repeated),
        Err(refusal) => return Ok(Decision::Refused(refusal)),
    };
    if !change.holder.is_of(run) {
        return Ok(Decision::Refused(Refusal::Task { event: event.kind() }));
    }
    let moved = moved(run, to, change, now, token)?;
    let counts = (run.state != moved.state).then_some((run.state, moved.state));
    Ok(Decision::Write(StateChange { condition: Unchanged::since(run), run: moved, counts }))
}

/// The run after it moved `to` there.
fn moved(
    run: &Run,
    to: Position,
    change: &Change,
    now: DateTime<Utc>,
    token: impl FnOnce() -> Result<AttemptToken, StoreError>,
) -> Result<Run, StoreError> {
    let now = now.trunc_subsecs(3);
    let mut new = run.clone();
    new.state = to.state;
    new.place = place_after(run.place, to.state);
    new.version += 1;
    new.updated_at = now;
    if let Some(line) = &change.system_log {
        append(&mut new.system_logs, line.clone());
    }
    if to.attempt == run.attempt {
        let given = |time: Option<DateTime<Utc>>| time.map(|time| time.trunc_subsecs(3));
        new.start_time = given(change.start_time).or(run.start_time);
        new.end_time = given(change.end_time)
            .or(run.end_time)
            .or_else(|| to.state.is_terminal().then_some(now));
        new.exit_code = change.exit_code.or(run.exit_code);
        if let Some(cmd) = &change.cmd {
            new.cmd = cut_cmd(cmd.clone());
        }
        new.has_outputs |= change.has_outputs;
    } else {
        new.attempt = to.attempt;
        new.token = Some(token()?);
        new.task_arn = None;
        new.start_time = None;
        new.end_time = None;
        new.exit_code = None;
        new.cmd = Vec::new();
    }
    Ok(new)
}

/// Where a run stands after it moved to a state. One that does not wait for its beginning any more
/// is out of the queue, and one that has ended has no slot; a run whose execution was started by
/// hand while it waited counts as none of those at work.
#[must_use]
pub fn place_after(place: Option<Place>, state: RunState) -> Option<Place> {
    match place {
        Some(Place::Waiting) => place.filter(|_| state == RunState::Queued),
        Some(Place::Slot(_)) => place.filter(|_| !state.is_terminal()),
        None => None,
    }
}

/// Whether a run can be given a slot: the condition on its item; never where there is none.
#[must_use]
pub fn waits(item: Option<&Run>) -> bool {
    item.is_some_and(|run| run.place == Some(Place::Waiting))
}

/// What a claim comes to, by the run as it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClaimDecision {
    /// The attempt is free: it is bound, if it still is.
    Bind(Free),
    /// The attempt is this task's already.
    Bound,
    /// It cannot be had.
    Refuse(RefusedReason),
}

/// That an attempt is the present one, not over, and nobody else's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Free {
    /// The attempt.
    pub attempt: u32,
    /// The task that claims it.
    pub task_arn: String,
}

impl Free {
    /// The states in which an attempt can be bound.
    pub(crate) const STATES: [RunState; 2] = [RunState::Initializing, RunState::Running];

    /// Whether it holds of a run's item; never where there is none.
    #[must_use]
    pub fn holds(&self, item: Option<&Run>) -> bool {
        item.is_some_and(|run| {
            run.attempt == self.attempt
                && Self::STATES.contains(&run.state)
                && run.task_arn.as_ref().is_none_or(|bound| *bound == self.task_arn)
        })
    }
}

/// Whether a task may have an attempt. That the token is wrong is found out before anything else
/// is said, and in constant time ([`AttemptToken`]'s `eq`).
#[must_use]
pub fn decide_claim(
    run: &Run,
    attempt: u32,
    token: &AttemptToken,
    task_arn: &str,
) -> ClaimDecision {
    if attempt == 0 || attempt > run.attempt {
        return ClaimDecision::Refuse(RefusedReason::Unknown);
    }
    if attempt < run.attempt {
        return ClaimDecision::Refuse(RefusedReason::Over);
    }
    if run.token.as_ref() != Some(token) {
        return ClaimDecision::Refuse(RefusedReason::Unknown);
    }
    match run.state {
        RunState::Initializing | RunState::Running => match run.task_arn.as_deref() {
            None => ClaimDecision::Bind(Free { attempt, task_arn: task_arn.to_owned() }),
            Some(bound) if bound == task_arn => ClaimDecision::Bound,
            Some(_) => ClaimDecision::Refuse(RefusedReason::Twin),
        },
        // Who holds the attempt has logs to upload when it is stopped.
        RunState::Canceling if run.task_arn.as_deref() == Some(task_arn) => ClaimDecision::Bound,
        RunState::Canceling | RunState::Canceled => ClaimDecision::Refuse(RefusedReason::Canceling),
        RunState::Complete
        | RunState::ExecutorError
        | RunState::SystemError
        | RunState::Preempted => ClaimDecision::Refuse(RefusedReason::Over),
        RunState::Queued => ClaimDecision::Refuse(RefusedReason::Unknown),
    }
}

/// Whether an idempotency key that expires at `expires_at` (none: it was never used), in seconds
/// since 1970, may be used for a new run at `now`.
#[must_use]
pub fn key_is_free(expires_at: Option<i64>, now: i64) -> bool {
    expires_at.is_none_or(|expires_at| expires_at <= now)
}

/// What a submission comes to whose transaction was refused: by the run of its id and by what its
/// key was used for, as far as these were in the way. `unanswered` says that an earlier try of the
/// same call may have been the one that created it.
///
/// # Errors
/// [`StoreError::RunIdTaken`]; `None` when nothing was in the way.
pub fn existing(
    new: &NewRun,
    run: Option<Run>,
    used: Option<&IdempotentRun>,
    unanswered: bool,
) -> Result<Option<Created>, StoreError> {
    if let (Some(idempotency), Some(used)) = (&new.idempotency, used) {
        if used.fingerprint != idempotency.fingerprint {
            return Ok(Some(Created::KeyReused));
        }
        return Ok(Some(match run {
            Some(run) if unanswered && used.run_id == run.run_id => Created::New(run),
            _ => Created::Existing(used.run_id),
        }));
    }
    match run {
        Some(run) if run.owner != new.owner || run.summary != new.summary => {
            Err(StoreError::RunIdTaken(new.run_id))
        }
        Some(run) if unanswered => Ok(Some(Created::New(run))),
        Some(run) => Ok(Some(Created::Existing(run.run_id))),
        None => Ok(None),
    }
}
