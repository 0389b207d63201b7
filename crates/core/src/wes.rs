//! The answers of the WES 1.1 API, as its OpenAPI file declares them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::run_state::RunState;

/// The base path of every WES endpoint.
pub const BASE_PATH: &str = "/ga4gh/wes/v1";

/// WES `RunId`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunIdResponse {
    /// The run's id.
    pub run_id: String,
}

/// WES `RunStatus`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunStatus {
    /// The run's id.
    pub run_id: String,
    /// Its state.
    pub state: RunState,
}

/// WES `RunSummary`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunSummary {
    /// The run's id.
    pub run_id: String,
    /// Its state.
    pub state: RunState,
    /// When the engine started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_time: Option<String>,
    /// When the run ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end_time: Option<String>,
    /// The caller's tags.
    pub tags: BTreeMap<String, String>,
}

/// WES `RunListResponse`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunListResponse {
    /// One page of runs, newest first.
    pub runs: Vec<RunSummary>,
    /// The next page's token; `""` at the end.
    pub next_page_token: String,
}

/// WES `RunRequest` as it is shown: every value of tags and engine parameters a string.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RunRequestView {
    /// The workflow's parameters.
    pub workflow_params: Map<String, Value>,
    /// The workflow's type.
    pub workflow_type: String,
    /// Its version.
    pub workflow_type_version: String,
    /// The caller's tags.
    pub tags: BTreeMap<String, String>,
    /// Options for the engine.
    pub workflow_engine_parameters: BTreeMap<String, String>,
    /// The engine that was chosen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workflow_engine: Option<String>,
    /// Its version, when the caller named one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workflow_engine_version: Option<String>,
    /// The workflow's URL.
    pub workflow_url: String,
}

/// WES `RunLog`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RunLog {
    /// The run's id.
    pub run_id: String,
    /// What was asked for.
    pub request: RunRequestView,
    /// The run's state.
    pub state: RunState,
    /// The engine's log.
    pub run_log: Log,
    /// Where the tasks are listed; absolute.
    pub task_logs_url: String,
    /// Deprecated by WES 1.1 in favour of `task_logs_url`: always null.
    pub task_logs: Option<Vec<TaskLog>>,
    /// The engine's output object; `{}` before there is one.
    pub outputs: Value,
    /// The run that this one goes on from; no part of WES.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resumed_from: Option<String>,
}

/// WES `Log`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Log {
    /// The workflow's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The engine's command line.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cmd: Option<Vec<String>>,
    /// When it started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_time: Option<String>,
    /// When it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end_time: Option<String>,
    /// The URL of its standard output; absolute.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stdout: Option<String>,
    /// The URL of its standard error; absolute.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stderr: Option<String>,
    /// Its exit code.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
    /// Reasons and repairs.
    #[serde(default)]
    pub system_logs: Vec<String>,
}

/// WES `TaskLog`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskLog {
    /// The task's id, unique in its run.
    pub id: String,
    /// The task's name.
    pub name: String,
    /// Its command line.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cmd: Option<Vec<String>>,
    /// When it started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_time: Option<String>,
    /// When it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end_time: Option<String>,
    /// The URL of its standard output, when the engine keeps it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stdout: Option<String>,
    /// The URL of its standard error, when the engine keeps it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stderr: Option<String>,
    /// Its exit code.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
    /// What the engine said of it.
    #[serde(default)]
    pub system_logs: Vec<String>,
}

/// WES `TaskListResponse`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskListResponse {
    /// One page of tasks, in the order in which they started.
    pub task_logs: Vec<TaskLog>,
    /// The next page's token; `""` at the end.
    pub next_page_token: String,
}

/// WES `ServiceInfo`, with what it takes from the GA4GH service-info 1.0 schema.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceInfo {
    /// The service's id, in reverse domain name notation.
    pub id: String,
    /// The service's name.
    pub name: String,
    /// What kind of service this is.
    #[serde(rename = "type")]
    pub service_type: ServiceType,
    /// What the service is for.
    pub description: String,
    /// Who provides it.
    pub organization: Organization,
    /// Whom to ask.
    #[serde(rename = "contactUrl", default, skip_serializing_if = "Option::is_none")]
    pub contact_url: Option<String>,
    /// Where its documentation is.
    #[serde(rename = "documentationUrl", default, skip_serializing_if = "Option::is_none")]
    pub documentation_url: Option<String>,
    /// `prod`, `test`, …
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub environment: Option<String>,
    /// The version of stepwes.
    pub version: String,
    /// Workflow types and their versions.
    pub workflow_type_versions: BTreeMap<String, WorkflowTypeVersion>,
    /// The versions of WES that are served.
    pub supported_wes_versions: Vec<String>,
    /// The URL schemes that inputs may have.
    pub supported_filesystem_protocols: Vec<String>,
    /// Engines and their versions.
    pub workflow_engine_versions: BTreeMap<String, WorkflowEngineVersion>,
    /// What the operator passes to engines unless a request says otherwise.
    pub default_workflow_engine_parameters: Vec<DefaultWorkflowEngineParameter>,
    /// How many runs are in each state.
    pub system_state_counts: BTreeMap<String, i64>,
    /// Where to learn how to get credentials.
    pub auth_instructions_url: String,
    /// Whatever else the operator says.
    pub tags: BTreeMap<String, String>,
}

/// GA4GH service-info `ServiceType`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceType {
    /// `org.ga4gh`.
    pub group: String,
    /// `wes`.
    pub artifact: String,
    /// The version of WES.
    pub version: String,
}

/// GA4GH service-info `organization`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Organization {
    /// Its name.
    pub name: String,
    /// Its web page.
    pub url: String,
}

/// WES `WorkflowTypeVersion`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkflowTypeVersion {
    /// The versions of a workflow type.
    pub workflow_type_version: Vec<String>,
}

/// WES `WorkflowEngineVersion`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkflowEngineVersion {
    /// The versions of an engine.
    pub workflow_engine_version: Vec<String>,
}

/// WES `DefaultWorkflowEngineParameter`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DefaultWorkflowEngineParameter {
    /// The parameter's name.
    pub name: String,
    /// Its type.
    #[serde(rename = "type")]
    pub parameter_type: String,
    /// Its default.
    pub default_value: String,
}

/// One file in `GET /runs/{id}/outputs`, an extension to WES.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutputEntry {
    /// The path below the output directory: what `/runs/{id}/outputs/{path}` takes.
    pub path: String,
    /// Where it lies, `s3://…`.
    pub location: String,
    /// Where it can be downloaded, absolute, on this API.
    pub url: String,
    /// Its size in bytes.
    pub size: u64,
    /// `sha1$…`, as CWL writes it.
    pub checksum: String,
}

/// `GET /runs/{id}/outputs`, an extension to WES.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutputListResponse {
    /// One page of files, sorted by path.
    pub outputs: Vec<OutputEntry>,
    /// The next page's token; `""` at the end.
    pub next_page_token: String,
}

/// One file in `GET /runs/{id}/attachments`, an extension to WES.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttachmentEntry {
    /// Its path below the run's folder: what `/runs/{id}/attachments/{name}` takes.
    pub name: String,
    /// Where it can be downloaded, absolute, on this API.
    pub url: String,
    /// Its size in bytes.
    pub size: u64,
}

/// `GET /runs/{id}/attachments`, an extension to WES.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttachmentListResponse {
    /// One page of files, sorted by name.
    pub attachments: Vec<AttachmentEntry>,
    /// The next page's token; `""` at the end.
    pub next_page_token: String,
}
