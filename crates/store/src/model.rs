//! What the store takes and gives.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use stepwes_core::{
    caller_token::{SecretDigest, TokenName},
    destination::Destination,
    keys::outputs_json,
    resources::Resources,
    run::{RequestSummary, Run, RunId},
    run_state::{Refusal, RunState},
    state_change::StateChange,
    task::RefusedReason,
    trace::TraceParent,
};

use crate::codec::{instant, tags_json};

/// A run that is to be enqueued.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewRun {
    /// Its id, from [`stepwes_core::IdGenerator`].
    pub run_id: RunId,
    /// Who submitted it.
    pub owner: String,
    /// What was asked for, in short.
    pub summary: RequestSummary,
    /// What it asks for of CPU, memory, disk and time.
    pub resources: Resources,
    /// Where its outputs go, when that is not the runs bucket.
    pub destination: Option<Destination>,
    /// The caller's idempotency key, when there was one.
    pub idempotency: Option<Idempotency>,
    /// The trace that it belongs to.
    pub trace: Option<TraceParent>,
    /// Whether it waits for a slot ([`crate::RunStore::admission`]), as runs do where their number is
    /// limited. Its execution is not to be started before.
    pub waits: bool,
}

/// What makes a submission repeatable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Idempotency {
    /// The caller's key; it counts within its owner alone.
    pub key: String,
    /// What tells this request from others under the same key, such as a digest.
    pub fingerprint: String,
    /// From when on the key may be used for another request.
    pub expires_at: DateTime<Utc>,
}

/// What an idempotency key was used for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdempotentRun {
    /// The run that was created under the key.
    pub run_id: RunId,
    /// The request's fingerprint.
    pub fingerprint: String,
}

/// What became of a [`NewRun`].
#[derive(Clone, Debug, PartialEq)]
#[expect(
    clippy::large_enum_variant,
    reason = "one such value a call; a box would only be in the way"
)]
pub enum Created {
    /// It was enqueued.
    New(Run),
    /// The same request has been enqueued before, as this run.
    Existing(RunId),
    /// The idempotency key belongs to a different request.
    KeyReused,
}

/// Which task an event speaks of. One that was made out for a task, or for an attempt that no task
/// had claimed, must not touch what another task has begun since.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Holder {
    /// Whichever it is.
    #[default]
    Any,
    /// No task had claimed the attempt.
    Nobody,
    /// The task of this ARN.
    Task(String),
}

impl Holder {
    /// The holder that a run has; [`Holder::Nobody`] for none.
    #[must_use]
    pub fn of(task_arn: Option<String>) -> Self {
        task_arn.map_or(Self::Nobody, Self::Task)
    }

    /// Whether that is who holds the run's attempt.
    #[must_use]
    pub fn is_of(&self, run: &Run) -> bool {
        match self {
            Self::Any => true,
            Self::Nobody => run.task_arn.is_none(),
            Self::Task(arn) => run.task_arn.as_ref() == Some(arn),
        }
    }
}

/// What a state change writes beside the state, and on what condition.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Change {
    /// The task that the event speaks of: when another one holds the attempt, nothing is written.
    pub holder: Holder,
    /// Why, for the run's history (its event item). Cut to [`crate::limits::MAX_TEXT_BYTES`].
    pub cause: String,
    /// Appended to [`Run::system_logs`]. Cut to [`crate::limits::MAX_TEXT_BYTES`].
    pub system_log: Option<String>,
    /// The engine's exit code.
    pub exit_code: Option<i32>,
    /// The engine's command line. Cut to [`crate::limits::MAX_CMD_BYTES`] in all.
    pub cmd: Option<Vec<String>>,
    /// When the engine started.
    pub start_time: Option<DateTime<Utc>>,
    /// When the engine ended; the store's present time when the new state is terminal and this is
    /// none.
    pub end_time: Option<DateTime<Utc>>,
    /// Whether `outputs.json` has been written.
    pub has_outputs: bool,
}

/// What an event did to a run. The run is as it is after the call.
#[derive(Clone, Debug, PartialEq)]
pub enum Transition {
    /// The run moved.
    Moved(Run),
    /// The event has had its effect before; nothing was written.
    Repeated(Run),
    /// The event is not this attempt's, or the state table does not allow it; nothing was written.
    Refused {
        /// The run.
        run: Run,
        /// Why.
        refusal: Refusal,
    },
    /// There is no such run.
    NotFound,
}

impl Transition {
    /// The run, if there is one.
    #[must_use]
    pub const fn run(&self) -> Option<&Run> {
        match self {
            Self::Moved(run) | Self::Repeated(run) | Self::Refused { run, .. } => Some(run),
            Self::NotFound => None,
        }
    }
}

/// What became of a task's claim to an attempt.
#[derive(Clone, Debug, PartialEq)]
#[expect(
    clippy::large_enum_variant,
    reason = "one such value a call; a box would only be in the way"
)]
pub enum Claim {
    /// The attempt is this task's.
    Claimed(Run),
    /// It is not.
    Refused(RefusedReason),
}

/// One page of an owner's runs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RunPage {
    /// The runs, newest first.
    pub runs: Vec<ListedRun>,
    /// Where the next page goes on: the last id of this one. `None` at the end.
    pub next: Option<RunId>,
}

/// A run as a list shows it (WES 1.1 `RunSummary`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListedRun {
    /// The run's id.
    pub run_id: RunId,
    /// Its state.
    pub state: RunState,
    /// When the engine started.
    pub start_time: Option<DateTime<Utc>>,
    /// When the run ended.
    pub end_time: Option<DateTime<Utc>>,
    /// The caller's tags.
    pub tags: BTreeMap<String, String>,
}

/// One state change in a run's history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunEventItem {
    /// The run.
    pub run_id: RunId,
    /// The run's version after the change, from 1.
    pub version: u64,
    /// The state before; `None` for the run's creation.
    pub from: Option<RunState>,
    /// The state after.
    pub to: RunState,
    /// The event's name: `enqueue`, or one of [`stepwes_core::run_state::EventKind::as_str`].
    pub event: String,
    /// The attempt after the change; 0 before the first.
    pub attempt: u32,
    /// When it happened.
    pub time: DateTime<Utc>,
    /// Why; empty when there is nothing to say.
    pub cause: String,
    /// The run's owner.
    pub owner: String,
    /// The caller's tags.
    pub tags: BTreeMap<String, String>,
    /// When the engine started, as known after the change.
    pub start_time: Option<DateTime<Utc>>,
    /// When the run ended, as known after the change.
    pub end_time: Option<DateTime<Utc>>,
    /// Whether `outputs.json` had been written ([`stepwes_core::keys::outputs_json`]).
    pub has_outputs: bool,
    /// The trace that the run belongs to.
    pub trace: Option<TraceParent>,
}

impl RunEventItem {
    /// The change as it is published, where `bucket` is the runs bucket: what the pipe in
    /// `template.yaml` makes of this item.
    #[must_use]
    pub fn state_change(&self, bucket: &str) -> StateChange {
        let time = |time: Option<DateTime<Utc>>| time.map(instant).unwrap_or_default();
        StateChange {
            run_id: self.run_id.to_string(),
            version: self.version.to_string(),
            attempt: self.attempt.to_string(),
            owner: self.owner.clone(),
            event: self.event.clone(),
            from: self.from.map(|state| state.as_str().to_owned()).unwrap_or_default(),
            to: self.to.as_str().to_owned(),
            time: instant(self.time),
            start_time: time(self.start_time),
            end_time: time(self.end_time),
            tags: tags_json(&self.tags),
            has_outputs: self.has_outputs,
            outputs: format!("s3://{bucket}/{}", outputs_json(self.run_id)),
            traceparent: self.trace.map(|trace| trace.to_string()).unwrap_or_default(),
        }
    }
}

/// A caller's token as the table keeps it: everything but its secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredToken {
    /// Its name.
    pub name: TokenName,
    /// Whom it speaks for.
    pub owner: String,
    /// The groups that its owner is in.
    pub groups: Vec<String>,
    /// By which its secret is known again.
    pub digest: SecretDigest,
    /// When it was made.
    pub created_at: DateTime<Utc>,
    /// From when on it counts no more, in whole seconds; never when none.
    pub expires_at: Option<DateTime<Utc>>,
    /// What it is for.
    pub description: Option<String>,
}

impl StoredToken {
    /// Whether it counts no more at that time. DynamoDB removes expired items within days, not at
    /// once.
    #[must_use]
    pub fn has_expired(&self, now: DateTime<Utc>) -> bool {
        self.expires_at.is_some_and(|end| end <= now)
    }
}
