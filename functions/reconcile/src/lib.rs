//! reconcile: repairs what was cut off.
//!
//! A run's state moves by its execution and its task. When one of them is gone before its work is
//! done, nobody else will move the run: reconcile does. On every tick of its schedule it looks at
//! the runs that have not changed for a while, at the live tasks, and at ended runs that were kept
//! for as long as they are to be; told of an execution that ended badly, it looks at that run at once.
//! It acts only on what it has just read.
//!
//! Where the number of runs at work is limited, it is also told of executions that ended well, and
//! whenever it is invoked it starts those that wait, as far as there is room.

pub mod event;
pub mod executions;
pub mod expiry;
pub mod summary;

mod runs;
mod tasks;

use std::sync::Arc;

use chrono::TimeDelta;
use stepwes_cloud::{
    Aws,
    ecs::Tasks,
    env::{self, SettingError},
    objects::Objects,
    queue::Queue,
    step::StepFailure,
};
use stepwes_collect::finish::Finisher;
use stepwes_core::{Clock, SystemClock};
use stepwes_store::RunStore;

use expiry::Retention;

pub use event::{Event, What};
pub use executions::{Executions, NotAStateMachine};
pub use expiry::ExpiredFiles;
pub use summary::Summary;

/// What the function is configured with.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The run table (`STEPWES_TABLE`).
    pub table: String,
    /// The runs bucket (`STEPWES_BUCKET`).
    pub bucket: String,
    /// The cluster of the engine tasks, name or ARN (`STEPWES_CLUSTER`).
    pub cluster: String,
    /// The state machine (`STEPWES_STATE_MACHINE_ARN`).
    pub state_machine_arn: String,
    /// How long a run must have stood still before a tick looks at it, in seconds
    /// (`STEPWES_RECONCILE_GRACE_SECONDS`, 1 to 86,400; 60). Time enough for every step that is
    /// under way.
    pub grace_seconds: u32,
    /// How many days an ended run is kept; 0 for ever (`STEPWES_RETENTION_DAYS`, 0 to 36,500; 0).
    pub retention_days: u32,
    /// What becomes of its files then (`STEPWES_RETENTION_FILES`, `keep` or `remove`; `keep`).
    pub retention_files: ExpiredFiles,
    /// How many runs may be at work at once; further ones wait ([`env::max_runs`]).
    pub max_runs: Option<u32>,
}

impl Settings {
    /// From the environment.
    ///
    /// # Errors
    /// [`SettingError`] naming the variable that is missing or out of its range.
    pub fn from_env() -> Result<Self, SettingError> {
        Ok(Self {
            table: env::required("STEPWES_TABLE")?,
            bucket: env::required("STEPWES_BUCKET")?,
            cluster: env::required("STEPWES_CLUSTER")?,
            state_machine_arn: env::required("STEPWES_STATE_MACHINE_ARN")?,
            grace_seconds: env::bounded("STEPWES_RECONCILE_GRACE_SECONDS", 60, 1..=86_400)?,
            retention_days: env::bounded("STEPWES_RETENTION_DAYS", 0, 0..=36_500)?,
            retention_files: env::parsed("STEPWES_RETENTION_FILES", ExpiredFiles::Keep)?,
            max_runs: env::max_runs()?,
        })
    }
}

/// What the function keeps between invocations.
#[derive(Clone)]
pub struct State {
    store: RunStore,
    objects: Objects,
    finisher: Finisher,
    tasks: Tasks,
    executions: Executions,
    queue: Queue,
    clock: Arc<dyn Clock>,
    grace: TimeDelta,
    /// `None`: ended runs are kept for ever.
    retention: Option<Retention>,
}

impl State {
    /// The function over one AWS account.
    ///
    /// # Errors
    /// [`NotAStateMachine`] when the setting is no state machine's ARN.
    pub fn new(settings: Settings, aws: &Aws) -> Result<Self, NotAStateMachine> {
        Self::with_clock(settings, aws, Arc::new(SystemClock))
    }

    /// The function over one AWS account, by a clock of the caller's.
    ///
    /// # Errors
    /// [`NotAStateMachine`] when the setting is no state machine's ARN.
    pub fn with_clock(
        settings: Settings,
        aws: &Aws,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, NotAStateMachine> {
        let store = aws.store_with_clock(&settings.table, clock.clone());
        let objects = Objects::new(aws.s3(), settings.bucket);
        let sfn = aws.sfn();
        Ok(Self {
            finisher: Finisher::new(store.clone(), objects.clone()),
            store,
            objects,
            tasks: Tasks::new(aws.ecs(), settings.cluster),
            queue: Queue::new(sfn.clone(), &settings.state_machine_arn, settings.max_runs),
            executions: Executions::new(sfn, settings.state_machine_arn)?,
            clock,
            grace: TimeDelta::seconds(i64::from(settings.grace_seconds)),
            retention: (settings.retention_days > 0).then(|| Retention {
                kept: TimeDelta::days(i64::from(settings.retention_days)),
                files: settings.retention_files,
            }),
        })
    }
}

/// Looks and repairs. Gives what was repaired, and what could not be: one run's trouble does not
/// keep the others from being looked at.
///
/// # Errors
/// [`StepFailure`] when the unfinished runs cannot be read, or, for an event about one execution,
/// when that run could not be settled: Lambda invokes again then.
pub async fn handle(state: &State, event: Event) -> Result<Summary, StepFailure> {
    let summary = match event.what(&state.executions) {
        What::Ended(run_id) => {
            let told = runs::told(state, run_id).await;
            // Its slot is free, most often, whether it could be settled or not.
            runs::waiting(state).await?;
            told?
        }
        What::Succeeded => {
            runs::waiting(state).await?;
            Summary::default()
        }
        What::Tick => {
            let mut summary = runs::stalled(state).await?;
            if let Err(failure) = runs::queued(state, &mut summary).await {
                summary.failed(None, &failure);
            }
            tasks::orphans(state, &mut summary).await;
            expiry::expired(state, &mut summary).await;
            summary
        }
    };
    tracing::info!(
        checked = summary.checked,
        repairs = summary.repairs.len(),
        failures = summary.failures.len(),
        "reconciled"
    );
    Ok(summary)
}
