//! What an engine task and the service say to each other: the report function's requests and
//! answers, and the files that a task leaves in S3.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{run::RunId, token::AttemptToken, trace::TraceParent};

/// Environment variables that the state machine sets on the task (RunTask overrides).
pub mod env {
    /// The run's id.
    pub const RUN_ID: &str = "STEPWES_RUN_ID";
    /// The attempt's number.
    pub const ATTEMPT: &str = "STEPWES_ATTEMPT";
    /// The attempt's secret.
    pub const TOKEN: &str = "STEPWES_TOKEN";
    /// The runs bucket (task definition).
    pub const BUCKET: &str = "STEPWES_BUCKET";
    /// The name or ARN of the report function (task definition).
    pub const REPORT_FUNCTION: &str = "STEPWES_REPORT_FUNCTION";
    /// Where the task may make its working folder (task definition); the system's temporary
    /// folder when it is not set.
    pub const WORK_DIR: &str = "STEPWES_WORK_DIR";
    /// Where the task puts a symbolic link to its working folder (task definition), whose name is the
    /// run's and not the task's: for hosts that clean up after tasks that were killed.
    pub const WORK_LINK: &str = "STEPWES_WORK_LINK";
    /// How many GiB of its engine's state an attempt may store in all, for another one to go on from
    /// (task definition); 64 when it is not set, none at 0.
    pub const STATE_GIB: &str = "STEPWES_STATE_GIB";
    /// A file into which the task writes, atomically, how it ended (task definition); for hosts
    /// that can outlive the one who started the task.
    pub const EXIT_FILE: &str = "STEPWES_EXIT_FILE";
    /// How the engine gets containers: `auto`, `docker`, `singularity`, `podman` or `none` (task
    /// definition).
    pub const CONTAINER: &str = "STEPWES_CONTAINER";
    /// Whether the engine runs in a sandbox: `auto`, `bwrap` or `none` (task definition); `none`
    /// when it is not set.
    pub const SANDBOX: &str = "STEPWES_SANDBOX";
    /// A folder whose files, and the folders of other tasks in it, no engine in a sandbox sees (task
    /// definition).
    pub const SANDBOX_HIDES: &str = "STEPWES_SANDBOX_HIDES";
    /// How many seconds a stopped engine has to end by itself before it is killed (task
    /// definition); 20 when it is not set. The upload of its logs may take as long again, and so
    /// may the result's; work that was finished before has three times as long for its upload, but
    /// at most 80 s: the container's `stopTimeout` must be six times as long.
    pub const STOP_GRACE: &str = "STEPWES_STOP_GRACE_SECONDS";
    /// How many seconds the task goes on asking a service that does not answer before it gives
    /// up and is lost (task definition); 600 when it is not set.
    pub const PATIENCE: &str = "STEPWES_PATIENCE_SECONDS";
    /// Hosts that are not the internet's and that requests may name all the same (task definition):
    /// names, `*.` and a name, addresses and networks, one a comma; none when it is not set.
    pub const ALLOWED_HOSTS: &str = "STEPWES_ALLOWED_HOSTS";
    /// Folders, one a colon, below which a `file://` workflow may lie; none when it is not set. For
    /// hosts whose files are the callers' own.
    pub const FILE_ROOTS: &str = "STEPWES_FILE_ROOTS";
    /// How much the task fetches of a run's inputs, in MiB (task definition); 102400 when it is not
    /// set.
    pub const MAX_INPUT_MIB: &str = "STEPWES_MAX_INPUT_MIB";
    /// The bearer tokens of DRS servers (task definition), as [`crate::drs_tokens::DrsTokens`] reads
    /// them; none when it is not set.
    pub const DRS_TOKENS: &str = "STEPWES_DRS_TOKENS";
    /// Whether S3 is addressed by path: for endpoints that are not AWS's.
    pub const S3_PATH_STYLE: &str = "STEPWES_S3_PATH_STYLE";
}

/// How `stepwes-engine` ends, as the container's exit code.
pub mod exit {
    /// `result.json` is written, whatever it says.
    pub const DONE: i32 = 0;
    /// The report function refused the claim: another task has it, or the attempt is over.
    pub const REFUSED: i32 = 64;
    /// Something of ours failed: a bug, a full disk, S3 out of reach.
    pub const FAILED: i32 = 70;
    /// Told to stop before the result was written.
    pub const STOPPED: i32 = 75;
}

/// What the task asks of the report function.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ReportRequest {
    /// The run.
    pub run_id: RunId,
    /// The attempt.
    pub attempt: u32,
    /// The attempt's secret.
    pub token: AttemptToken,
    /// The task that speaks, from its metadata endpoint.
    pub task_arn: String,
    /// What it has to say.
    #[serde(flatten)]
    pub action: ReportAction,
}

/// What a task may say.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "action", rename_all = "lowercase")]
pub enum ReportAction {
    /// "This attempt is mine": binds it to the task. Said again, it renews the credentials.
    Claim,
    /// "The engine starts": INITIALIZING to RUNNING.
    Run {
        /// The engine's command line.
        cmd: Vec<String>,
        /// When it starts.
        start_time: DateTime<Utc>,
    },
    /// "The engine, or a tool, asks for credentials": those that only read.
    Credentials,
}

/// The report function's answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "verdict", rename_all = "lowercase")]
pub enum ReportResponse {
    /// Go on.
    Accepted {
        /// To a claim: credentials for the run's own prefixes and the inputs that the operator
        /// allows. To [`ReportAction::Credentials`]: the same, but for reading alone.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        credentials: Option<TaskCredentials>,
        /// To a claim: the trace that the run belongs to, for the engine.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        trace: Option<TraceParent>,
    },
    /// Stop at once: this task is not, or no longer, the one that counts.
    Refused {
        /// Why, for the task's log.
        reason: RefusedReason,
    },
}

/// Why the report function refuses a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RefusedReason {
    /// No such run, or not the attempt's token: which of the two is not said.
    Unknown,
    /// Another task has claimed the attempt.
    Twin,
    /// The attempt, or the run, is over.
    Over,
    /// The run is being cancelled.
    Canceling,
}

impl RefusedReason {
    /// The reason in words.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unknown => "the run, the attempt or its token is not known",
            Self::Twin => "another task has claimed the attempt",
            Self::Over => "the attempt is over",
            Self::Canceling => "the run is being cancelled",
        }
    }
}

/// Temporary AWS credentials.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskCredentials {
    /// Access key id.
    pub access_key_id: String,
    /// Secret access key.
    pub secret_access_key: String,
    /// Session token.
    pub session_token: String,
    /// When they end.
    pub expiration: DateTime<Utc>,
}

impl std::fmt::Debug for TaskCredentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TaskCredentials")
            .field("expiration", &self.expiration)
            .finish_non_exhaustive()
    }
}

/// How an attempt ended, as its task sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum TaskOutcome {
    /// The engine ended well and everything is uploaded.
    Complete,
    /// The request's fault.
    ExecutorError,
    /// Our fault, or the cloud's; trying again would not help.
    SystemError,
    /// The task was told to stop and stopped.
    Stopped,
}

/// The most files that a run may have as outputs.
pub const MAX_OUTPUT_FILES: usize = 100_000;

/// How deep an output object may be nested, a value in an array or an object being one deeper: JSON
/// readers give up at 128, and a result has it inside of other objects.
pub const MAX_OUTPUT_DEPTH: usize = 100;

/// The largest `result.json`, in bytes.
pub const MAX_RESULT_BYTES: usize = 64 * 1024 * 1024;

/// `work/<run_id>/<attempt>/result.json`: the last thing that a task writes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TaskResult {
    /// The run.
    pub run_id: RunId,
    /// The attempt.
    pub attempt: u32,
    /// How it ended.
    pub outcome: TaskOutcome,
    /// Why, when it did not end well: one sentence for a person.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The engine's exit code, when it ran; 128 + n when signal n ended it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
    /// The engine's command line, when it ran.
    #[serde(default)]
    pub cmd: Vec<String>,
    /// When the engine started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_time: Option<DateTime<Utc>>,
    /// When the engine ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end_time: Option<DateTime<Utc>>,
    /// What the engine's outputs are.
    #[serde(default)]
    pub outputs: EngineOutputs,
    /// Every output file that was uploaded.
    #[serde(default)]
    pub files: Vec<OutputFile>,
}

/// The engine's own output object, before its locations are mapped.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum EngineOutputs {
    /// There is none: the engine failed, or it says nothing; the files are the outputs.
    #[default]
    Listing,
    /// An output object whose files are CWL's File and Directory objects, whatever the workflow's
    /// language. Their locations are paths below the output directory,
    /// percent-encoded behind `outdir:`, such as `outdir:a%20b/c.txt`; file literals and anything
    /// that is not in the output directory stay as they are.
    Cwl {
        /// The object.
        object: Value,
    },
}

/// The scheme of locations in [`EngineOutputs`] that are below the output directory.
pub const OUTDIR_SCHEME: &str = "outdir:";

/// One uploaded output file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutputFile {
    /// The path below the output directory, `/` between its parts.
    pub path: String,
    /// Its size in bytes.
    pub size: u64,
    /// The SHA-1 of its content, 40 hexadecimal digits.
    pub sha1: String,
}

/// `work/<run_id>/<attempt>/tasks.json`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tasks {
    /// The engine's jobs, in the order in which they started.
    pub tasks: Vec<Task>,
}

/// One job of the engine.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Task {
    /// Unique in the run.
    pub id: String,
    /// The job's name in the workflow.
    pub name: String,
    /// Its command line, where the engine tells it.
    #[serde(default)]
    pub cmd: Vec<String>,
    /// When it started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_time: Option<DateTime<Utc>>,
    /// When it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end_time: Option<DateTime<Utc>>,
    /// Its exit code, once it has ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
    /// What the engine said of it.
    #[serde(default)]
    pub system_logs: Vec<String>,
}

/// What ECS tells of a task in `.sync` results and error causes: the fields we read.
/// <https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_Task.html>
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct EcsTask {
    /// The task's ARN.
    pub task_arn: Option<String>,
    /// `SpotInterruption`, `TaskFailedToStart`, `EssentialContainerExited`, `UserInitiated`, …
    pub stop_code: Option<String>,
    /// AWS's own words.
    pub stopped_reason: Option<String>,
    /// Its containers.
    pub containers: Vec<EcsContainer>,
    /// Whatever else came with it.
    #[serde(flatten)]
    pub other: BTreeMap<String, Value>,
}

/// A container of an [`EcsTask`].
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct EcsContainer {
    /// Its exit code, when it ran.
    pub exit_code: Option<i32>,
    /// Such as `OutOfMemoryError: Container killed due to memory usage`.
    pub reason: Option<String>,
}
