//! report: what an engine task may tell of its attempt, and the credentials that it gets for it.
//!
//! The task runs other people's code, so this is all that its role may invoke, and it is believed
//! only as far as its attempt's token goes. The token is compared in constant time and never
//! logged; a run that does not exist and a wrong token get the same answer.

pub mod credentials;
pub mod policy;

use stepwes_cloud::{
    Aws, OnUse,
    env::{self, SettingError},
    invocation::is_about,
    step::StepFailure,
};
use stepwes_core::{
    RunEvent, RunState,
    run::Run,
    saved::resumed_from,
    task::{RefusedReason, ReportAction, ReportRequest, ReportResponse},
    trigger::triggered_by,
};
use stepwes_store::{Change, Claim, RunStore, Transition};
use thiserror::Error;

use crate::{
    credentials::Holder,
    policy::{Policy, PolicyError},
};

/// How long a task's ARN may be (IAM's longest ARN), so that nobody fills the table with one.
const MAX_ARN: usize = 2048;

/// What the function is configured with.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The run table (`STEPWES_TABLE`).
    pub table: String,
    /// The runs bucket (`STEPWES_BUCKET`).
    pub bucket: String,
    /// The role whose rights, narrowed to one run, a task gets (`STEPWES_DATA_ROLE_ARN`).
    pub data_role_arn: String,
    /// The buckets that every run may read its inputs from (`STEPWES_INPUT_BUCKETS`, names
    /// separated by commas; none).
    pub input_buckets: Vec<String>,
    /// The buckets that a run's outputs may go to (`STEPWES_OUTPUT_BUCKETS`, names separated by
    /// commas; none).
    pub output_buckets: Vec<String>,
    /// The buckets whose objects start runs, which may read those that they were started by
    /// (`STEPWES_TRIGGER_BUCKETS`, names separated by commas; none).
    pub trigger_buckets: Vec<String>,
}

impl Settings {
    /// From the environment.
    ///
    /// # Errors
    /// [`SettingError`] naming the variable that is missing.
    pub fn from_env() -> Result<Self, SettingError> {
        Ok(Self {
            table: env::required("STEPWES_TABLE")?,
            bucket: env::required("STEPWES_BUCKET")?,
            data_role_arn: env::required("STEPWES_DATA_ROLE_ARN")?,
            input_buckets: env::list("STEPWES_INPUT_BUCKETS"),
            output_buckets: env::list("STEPWES_OUTPUT_BUCKETS"),
            trigger_buckets: env::list("STEPWES_TRIGGER_BUCKETS"),
        })
    }
}

/// The settings do not make a safe policy; deploying again with other ones mends it.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error(transparent)]
pub struct ReportError(#[from] PolicyError);

/// What the function keeps between invocations.
#[derive(Clone)]
pub struct State {
    store: RunStore,
    sts: OnUse<aws_sdk_sts::Client>,
    data_role_arn: String,
    policy: Policy,
}

impl State {
    /// The function over one AWS account.
    ///
    /// # Errors
    /// [`ReportError`] when the buckets cannot be written into a session policy, or must not be.
    pub fn new(settings: Settings, aws: &Aws) -> Result<Self, ReportError> {
        let policy = Policy::new(
            &settings.data_role_arn,
            &settings.bucket,
            &settings.input_buckets,
            &settings.output_buckets,
            &settings.trigger_buckets,
        )?;
        Ok(Self {
            store: aws.store(&settings.table),
            sts: aws.sts(),
            data_role_arn: settings.data_role_arn,
            policy,
        })
    }
}

/// Hears what a task has to say. Said again, it is answered again: a claim with fresh credentials.
///
/// # Errors
/// [`StepFailure`] when the table or STS does not answer or refuses. That a task is not to go on is
/// no error but [`ReportResponse::Refused`].
pub async fn handle(state: &State, request: ReportRequest) -> Result<ReportResponse, StepFailure> {
    let (run_id, attempt) = (request.run_id, request.attempt);
    let heard = if is_arn(&request.task_arn) {
        match &request.action {
            ReportAction::Claim => claim(state, &request).await?,
            ReportAction::Run { cmd, start_time } => {
                let change = Change {
                    cause: "the engine starts".to_owned(),
                    cmd: Some(cmd.clone()),
                    start_time: Some(*start_time),
                    ..Change::default()
                };
                run(state, &request, change).await?
            }
            ReportAction::Credentials => {
                let run = state.store.get(request.run_id).await?;
                run.ok_or(RefusedReason::Unknown)
                    .and_then(|run| may_speak(&run, &request).map(|()| run))
            }
        }
    } else {
        Err(RefusedReason::Unknown)
    };
    match heard {
        Ok(run) => {
            is_about(&run);
            let policy = &state.policy;
            let given = match request.action {
                ReportAction::Claim => {
                    let (from, destination) = (resumed_from(&run), run.destination.as_ref());
                    let objects = triggered_by(&run);
                    let text =
                        policy.of_attempt(run.run_id, run.attempt, from, destination, &objects);
                    Some((Holder::Task, text))
                }
                ReportAction::Credentials => {
                    let text = policy.of_engine(run.run_id, &triggered_by(&run));
                    Some((Holder::Engine, text))
                }
                // Those of its claim serve on, and it claims again when it needs others.
                ReportAction::Run { .. } => None,
            };
            let credentials = match given {
                Some((holder, policy)) => {
                    let (sts, role) = (&state.sts, &state.data_role_arn);
                    Some(credentials::assume(sts, role, policy, run.run_id, holder).await?)
                }
                None => None,
            };
            tracing::info!(%run_id, attempt, task_arn = request.task_arn, "a report was accepted");
            let trace = run.trace.filter(|_| request.action == ReportAction::Claim);
            Ok(ReportResponse::Accepted { credentials, trace })
        }
        Err(reason) => {
            tracing::warn!(%run_id, attempt, reason = reason.as_str(), "a report was refused");
            Ok(ReportResponse::Refused { reason })
        }
    }
}

type Heard = Result<Run, RefusedReason>;

async fn claim(state: &State, request: &ReportRequest) -> Result<Heard, StepFailure> {
    let claim = state
        .store
        .claim(request.run_id, request.attempt, &request.token, &request.task_arn)
        .await?;
    Ok(match claim {
        Claim::Claimed(run) => Ok(run),
        Claim::Refused(reason) => Err(reason),
    })
}

async fn run(state: &State, request: &ReportRequest, change: Change) -> Result<Heard, StepFailure> {
    let Some(run) = state.store.get(request.run_id).await? else {
        return Ok(Err(RefusedReason::Unknown));
    };
    if let Err(reason) = may_speak(&run, request) {
        return Ok(Err(reason));
    }
    let event = RunEvent::Run { attempt: request.attempt };
    Ok(match state.store.transition(request.run_id, event, change).await? {
        Transition::Moved(run) | Transition::Repeated(run) => Ok(run),
        Transition::Refused { run, .. } => Err(why_not(run.state)),
        Transition::NotFound => Err(RefusedReason::Unknown),
    })
}

/// Whether the task that speaks is the one that holds the run's present attempt. The tokens of
/// earlier attempts are not kept: whoever names one is late, whatever the token.
///
/// # Errors
/// Why it may not.
pub fn may_speak(run: &Run, request: &ReportRequest) -> Result<(), RefusedReason> {
    if request.attempt == 0 || request.attempt > run.attempt {
        return Err(RefusedReason::Unknown);
    }
    if request.attempt < run.attempt {
        return Err(RefusedReason::Over);
    }
    if run.token.as_ref() != Some(&request.token) {
        return Err(RefusedReason::Unknown);
    }
    if !matches!(run.state, RunState::Initializing | RunState::Running) {
        return Err(why_not(run.state));
    }
    match run.task_arn.as_deref() {
        Some(holder) if holder == request.task_arn => Ok(()),
        Some(_) => Err(RefusedReason::Twin),
        None => Err(RefusedReason::Unknown),
    }
}

/// Why a run in that state hears of no engine that starts.
const fn why_not(state: RunState) -> RefusedReason {
    match state {
        RunState::Canceling | RunState::Canceled => RefusedReason::Canceling,
        RunState::Initializing
        | RunState::Running
        | RunState::Complete
        | RunState::ExecutorError
        | RunState::SystemError
        | RunState::Preempted => RefusedReason::Over,
        RunState::Queued => RefusedReason::Unknown,
    }
}

fn is_arn(text: &str) -> bool {
    text.len() <= MAX_ARN && text.starts_with("arn:") && !text.chars().any(char::is_control)
}
