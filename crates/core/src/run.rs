//! A run as the service knows it.

use std::{collections::BTreeMap, fmt, str::FromStr};

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use thiserror::Error;
use uuid::Uuid;

use crate::{
    destination::Destination,
    resources::Resources,
    run_state::{Position, RunState},
    task::OutputFile,
    token::AttemptToken,
    trace::TraceParent,
};

/// A run's id: a UUID version 7, so that ids sort by the time of creation.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RunId(Uuid);

impl RunId {
    /// The run id of a UUID.
    #[must_use]
    pub const fn from_uuid(uuid: Uuid) -> Self {
        Self(uuid)
    }

    /// When a run with this id was made, to the millisecond; `None` when the id is not a UUID of
    /// version 7.
    #[must_use]
    pub fn created_at(self) -> Option<DateTime<Utc>> {
        let (seconds, nanoseconds) = self.0.get_timestamp()?.to_unix();
        DateTime::from_timestamp(seconds.try_into().ok()?, nanoseconds)
    }

    /// No id is less.
    pub const MIN: Self = Self(Uuid::nil());

    /// No id is greater.
    pub const MAX: Self = Self(Uuid::max());

    /// What no id is less than that was made at `time` or later; `None` when that is later than an
    /// id can be made (RFC 9562: 48 bits of milliseconds).
    #[must_use]
    pub fn first_since(time: DateTime<Utc>) -> Option<Self> {
        let mut ms = time.timestamp_millis();
        if !time.timestamp_subsec_nanos().is_multiple_of(1_000_000) {
            ms += 1;
        }
        let ms = u128::try_from(ms.max(0)).ok()?;
        (ms < 1 << 48).then(|| Self(Uuid::from_u128(ms << 80)))
    }

    /// The greatest that is less than this one.
    #[must_use]
    pub fn before(self) -> Option<Self> {
        self.0.as_u128().checked_sub(1).map(|less| Self(Uuid::from_u128(less)))
    }
}

impl fmt::Display for RunId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.hyphenated().fmt(f)
    }
}

impl fmt::Debug for RunId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The text is no run id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("not a run id")]
pub struct NotARunId;

impl FromStr for RunId {
    type Err = NotARunId;

    /// Reads the one way of writing that we give out (lower case, hyphenated), so that a run has
    /// one name.
    fn from_str(text: &str) -> Result<Self, NotARunId> {
        let uuid = Uuid::try_parse(text).map_err(|_| NotARunId)?;
        let id = Self(uuid);
        if id.to_string() == text { Ok(id) } else { Err(NotARunId) }
    }
}

/// Where a run stands while it has not ended, in a service that limits how many runs are at work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Place {
    /// It waits, QUEUED, for a slot.
    Waiting,
    /// It has this one of the slots, from 0, until it ends.
    Slot(u32),
}

/// A run's item in the table, without the request, parameters and outputs, which lie in S3.
#[derive(Clone, Debug, PartialEq)]
pub struct Run {
    /// The run's id.
    pub run_id: RunId,
    /// Who submitted it.
    pub owner: String,
    /// Its state.
    pub state: RunState,
    /// How many state changes it has had; 1 when enqueued.
    pub version: u64,
    /// The present attempt, from 1; 0 before the first.
    pub attempt: u32,
    /// Whether it waits, or has a slot; `None` where the number of runs at work has no limit, and
    /// for a run that has ended.
    pub place: Option<Place>,
    /// The secret that the present attempt's task shows.
    pub token: Option<AttemptToken>,
    /// The ECS task that claimed the present attempt.
    pub task_arn: Option<String>,
    /// What was asked for, in short.
    pub summary: RequestSummary,
    /// What it asked for of CPU, memory, disk and time.
    pub resources: Resources,
    /// Where its outputs go, when that is not the runs bucket.
    pub destination: Option<Destination>,
    /// When it was submitted.
    pub created_at: DateTime<Utc>,
    /// When it last changed state.
    pub updated_at: DateTime<Utc>,
    /// When the engine started (the present attempt's).
    pub start_time: Option<DateTime<Utc>>,
    /// When it ended.
    pub end_time: Option<DateTime<Utc>>,
    /// The engine's exit code.
    pub exit_code: Option<i32>,
    /// The engine's command line.
    pub cmd: Vec<String>,
    /// What a person should know: why it failed, what was tried again (WES `system_logs`).
    pub system_logs: Vec<String>,
    /// Whether `outputs.json` has been written.
    pub has_outputs: bool,
    /// The trace that it belongs to; none for a run from before there were any.
    pub trace: Option<TraceParent>,
}

impl Run {
    /// A run that is enqueued at `now`, of which no more is known.
    #[must_use]
    pub fn queued(run_id: RunId, owner: String, now: DateTime<Utc>) -> Self {
        let Position { state, attempt } = Position::NEW;
        Self {
            run_id,
            owner,
            state,
            version: 1,
            attempt,
            place: None,
            token: None,
            task_arn: None,
            summary: RequestSummary::default(),
            resources: Resources::default(),
            destination: None,
            created_at: now,
            updated_at: now,
            start_time: None,
            end_time: None,
            exit_code: None,
            cmd: Vec::new(),
            system_logs: Vec::new(),
            has_outputs: false,
            trace: None,
        }
    }

    /// Where the run stands in the state table.
    #[must_use]
    pub const fn position(&self) -> Position {
        Position { state: self.state, attempt: self.attempt }
    }
}

/// The part of a request that lists and events show.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RequestSummary {
    /// `CWL`, `WDL`, …
    pub workflow_type: String,
    /// Its version, as in the request.
    pub workflow_type_version: String,
    /// The engine chosen.
    pub workflow_engine: String,
    /// The workflow's URL, as in the request.
    pub workflow_url: String,
    /// The caller's tags.
    pub tags: BTreeMap<String, String>,
}

/// The outputs of a run: `results/<run_id>/outputs.json`, written by collect.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CollectedOutputs {
    /// The run.
    pub run_id: RunId,
    /// The attempt that counts.
    pub attempt: u32,
    /// The engine's own output object, every location an `s3://` URL (WES `RunLog.outputs`).
    pub outputs: Value,
    /// Every file that was uploaded.
    pub files: Vec<OutputFile>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::{IdGenerator, RandomIds};
    use chrono::TimeDelta;

    #[test]
    fn ids_sort_by_the_time_of_creation() {
        let start = Utc::now();
        let ids: Vec<_> =
            (0..50).map(|ms| RandomIds.run_id(start + TimeDelta::milliseconds(ms))).collect();
        assert!(
            ids.windows(2)
                .all(|pair| pair[0] < pair[1] && pair[0].to_string() < pair[1].to_string())
        );
    }

    #[test]
    fn an_id_tells_when_it_was_made() {
        let now = Utc::now();
        let told = RandomIds.run_id(now).created_at().expect("a time");
        assert_eq!(told.timestamp_millis(), now.timestamp_millis());
        assert_eq!(RunId::from_uuid(Uuid::new_v4()).created_at(), None);
    }

    #[test]
    fn an_id_has_one_way_of_writing() {
        let id = RandomIds.run_id(Utc::now());
        assert_eq!(id.to_string().parse(), Ok(id));
        for other in [id.to_string().to_uppercase(), id.to_string().replace('-', ""), "x".into()] {
            assert_eq!(other.parse::<RunId>(), Err(NotARunId));
        }
    }
}
