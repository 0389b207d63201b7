//! The operations of ECS that stepwes uses.

use std::sync::Arc;

use chrono::Utc;
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::{
    Asked, Ecs,
    model::{CONTAINER, NameValue, Status, Tag, Task},
};
use crate::{arn, aws_error::AwsError, calls::Service, credentials::random, ledger::LedgerError};

/// The operations.
pub(crate) const OPERATIONS: [&str; 4] = ["DescribeTasks", "ListTasks", "RunTask", "StopTask"];
/// The most tasks that one DescribeTasks tells, and one ListTasks lists (as ECS).
const PAGE: usize = 100;
/// How many stopped tasks can be listed.
const LISTED_STOPPED: usize = 1000;

/// The operation of that name, if it is one of ours.
pub(crate) fn operation(name: &str) -> Option<&'static str> {
    OPERATIONS.into_iter().find(|known| *known == name)
}

/// Answers one request.
pub(crate) async fn call(
    ecs: &Arc<Ecs>,
    operation: &'static str,
    body: &[u8],
) -> Result<Value, AwsError> {
    match operation {
        "DescribeTasks" => describe_tasks(ecs, read(operation, body)?).await,
        "ListTasks" => list_tasks(ecs, read(operation, body)?).await,
        "RunTask" => run_task(ecs, read(operation, body)?).await,
        "StopTask" => stop_task(ecs, read(operation, body)?).await,
        other => Err(AwsError::unknown_operation(Service::Ecs, other)),
    }
}

fn read<T: DeserializeOwned>(operation: &str, body: &[u8]) -> Result<T, AwsError> {
    serde_json::from_slice(body)
        .map_err(|error| invalid(format!("ecs:{operation} as the embedded AWS has it: {error}")))
}

fn invalid(message: impl Into<String>) -> AwsError {
    AwsError::client("InvalidParameterException", message)
}

fn failed(error: &LedgerError) -> AwsError {
    AwsError::internal(Service::Ecs, error)
}

fn check_cluster(cluster: Option<&str>) -> Result<(), AwsError> {
    match cluster {
        Some(arn::CLUSTER | arn::CLUSTER_NAME) => Ok(()),
        _ => Err(AwsError::client("ClusterNotFoundException", "Cluster not found.")),
    }
}

/// The id in a task's ARN, or the id itself.
fn task_id(task: &str) -> &str {
    task.strip_prefix(arn::TASK_PREFIX).unwrap_or(task)
}

/// What our state machine sends, and nothing else.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct RunTask {
    cluster: Option<String>,
    task_definition: String,
    #[serde(default)]
    capacity_provider_strategy: Vec<CapacityProvider>,
    #[serde(rename = "networkConfiguration", default)]
    _network: Option<NetworkConfiguration>,
    #[serde(default)]
    overrides: Overrides,
    #[serde(default, rename = "enableECSManagedTags")]
    enable_ecs_managed_tags: bool,
    #[serde(default)]
    tags: Vec<Tag>,
    #[serde(default)]
    started_by: Option<String>,
    #[serde(default)]
    client_token: Option<String>,
    #[serde(default)]
    count: Option<u32>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct CapacityProvider {
    capacity_provider: String,
    /// Of no consequence with one provider.
    #[serde(rename = "weight", default)]
    _weight: u32,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct NetworkConfiguration {
    /// A child process is on the host's network, whatever subnets are asked for.
    #[serde(rename = "awsvpcConfiguration")]
    _awsvpc: AwsVpc,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct AwsVpc {
    #[serde(rename = "subnets")]
    _subnets: Vec<String>,
    #[serde(rename = "securityGroups", default)]
    _security_groups: Vec<String>,
    #[serde(rename = "assignPublicIp", default)]
    _assign_public_ip: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Overrides {
    /// CPU units. Kept for the task while it runs; its process is not held to them, nor to its
    /// memory.
    #[serde(default)]
    cpu: Option<String>,
    /// MiB.
    #[serde(default)]
    memory: Option<String>,
    #[serde(default)]
    container_overrides: Vec<ContainerOverride>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct ContainerOverride {
    name: String,
    #[serde(default)]
    environment: Vec<NameValue>,
}

/// Reads what Step Functions sends for `ecs:runTask.sync`: the API's fields in Pascal case.
///
/// # Errors
/// As RunTask itself.
pub(crate) fn run_task_request(
    arguments: &Value,
    started_by: &str,
    client_token: String,
) -> Result<RunTask, AwsError> {
    let mut request: RunTask = serde_json::from_value(camel_case(arguments))
        .map_err(|error| invalid(format!("ecs:runTask as the embedded AWS has it: {error}")))?;
    request.started_by = Some(started_by.to_owned());
    request.client_token = Some(client_token);
    Ok(request)
}

/// The value with the first letter of every field's name in lower case.
fn camel_case(value: &Value) -> Value {
    map_keys(value, |first| first.to_ascii_lowercase())
}

/// The value with the first letter of every field's name in upper case.
pub(crate) fn pascal_case(value: &Value) -> Value {
    map_keys(value, |first| first.to_ascii_uppercase())
}

fn map_keys(value: &Value, change: fn(char) -> char) -> Value {
    match value {
        Value::Object(fields) => fields
            .iter()
            .map(|(key, value)| {
                let mut letters = key.chars();
                let first = letters.next().map(change);
                (first.into_iter().chain(letters).collect(), map_keys(value, change))
            })
            .collect::<Map<_, _>>()
            .into(),
        Value::Array(values) => values.iter().map(|value| map_keys(value, change)).collect(),
        other => other.clone(),
    }
}

impl RunTask {
    /// The same, of a task that no execution knows of: one that is resumed neither stops it nor finds
    /// it when it asks again.
    pub(crate) fn unknown(self) -> Self {
        Self { started_by: None, client_token: None, ..self }
    }

    /// Makes the task that is asked for, or finds the one that the same request made before.
    pub(crate) async fn run(self, ecs: &Arc<Ecs>) -> Result<Task, AwsError> {
        check_cluster(self.cluster.as_deref())?;
        if ![arn::TASK_DEFINITION, arn::TASK_FAMILY].contains(&self.task_definition.as_str()) {
            return Err(AwsError::client("ClientException", "TaskDefinition not found."));
        }
        if self.count.is_some_and(|count| count != 1) {
            return Err(invalid("count: the embedded AWS starts one task at a time"));
        }
        let foreign = self
            .capacity_provider_strategy
            .iter()
            .find(|item| item.capacity_provider != arn::CAPACITY_PROVIDER);
        if let Some(item) = foreign {
            return Err(invalid(format!(
                "The specified capacity provider '{}' is not associated with the cluster.",
                item.capacity_provider
            )));
        }
        let size = |name: &str, text: Option<String>| match text.map(|text| text.parse()) {
            None => Ok(None),
            Some(Ok(number)) => Ok(Some(number)),
            Some(Err(_)) => Err(invalid(format!("Invalid '{name}' setting for task."))),
        };
        let cpu = size("cpu", self.overrides.cpu)?;
        let memory = size("memory", self.overrides.memory)?;
        let mut environment = Vec::new();
        for container in self.overrides.container_overrides {
            if container.name != CONTAINER {
                return Err(invalid(format!(
                    "Override for container named {} is not a container in the TaskDefinition.",
                    container.name
                )));
            }
            environment.extend(container.environment);
        }
        let unusable = |name: &NameValue| {
            name.name.is_empty() || name.name.contains(['=', '\0']) || name.value.contains('\0')
        };
        if let Some(variable) = environment.iter().find(|variable| unusable(variable)) {
            return Err(invalid(format!("environment: {:?} cannot be a variable", variable.name)));
        }
        let mut tags = self.tags;
        if self.enable_ecs_managed_tags {
            let managed = |key: &str, value: &str| Tag { key: key.into(), value: value.into() };
            tags.push(managed("aws:ecs:clusterName", arn::CLUSTER_NAME));
        }
        let task = Task {
            id: Uuid::new_v4().simple().to_string(),
            metadata_id: random::<32>()
                .map_err(|error| AwsError::internal(Service::Ecs, &error))?,
            client_token: self.client_token,
            started_by: self.started_by,
            environment,
            cpu,
            memory,
            tags,
            status: Status::Provisioning,
            created_at: Utc::now(),
            started_at: None,
            stopping_at: None,
            stopped_at: None,
            boot_id: None,
            process: None,
            exit_code: None,
            stop: None,
        };
        match ecs.run(task).await.map_err(|error| failed(&error))? {
            Asked::New(task) | Asked::Existing(task) => Ok(task),
            Asked::Conflict => Err(AwsError::client(
                "ConflictException",
                "The provided clientToken is already in use with a different RunTask request.",
            )),
        }
    }
}

async fn run_task(ecs: &Arc<Ecs>, request: RunTask) -> Result<Value, AwsError> {
    let task = request.run(ecs).await?;
    Ok(json!({ "tasks": [task.describe(true)], "failures": [] }))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct StopTask {
    cluster: Option<String>,
    task: String,
    #[serde(default)]
    reason: Option<String>,
}

async fn stop_task(ecs: &Arc<Ecs>, request: StopTask) -> Result<Value, AwsError> {
    check_cluster(request.cluster.as_deref())?;
    let reason = request.reason.as_deref().unwrap_or("Task stopped by user");
    let task = ecs
        .stop(task_id(&request.task), reason)
        .await
        .map_err(|error| failed(&error))?
        .ok_or_else(|| invalid("The referenced task was not found."))?;
    Ok(json!({ "task": task.describe(false) }))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct DescribeTasks {
    cluster: Option<String>,
    tasks: Vec<String>,
    #[serde(default)]
    include: Vec<String>,
}

async fn describe_tasks(ecs: &Arc<Ecs>, request: DescribeTasks) -> Result<Value, AwsError> {
    check_cluster(request.cluster.as_deref())?;
    if request.tasks.is_empty() || request.tasks.len() > PAGE {
        return Err(invalid("Tasks must have 1 to 100 items."));
    }
    if let Some(other) = request.include.iter().find(|item| *item != "TAGS") {
        return Err(invalid(format!("include: {other:?} is not TAGS")));
    }
    let with_tags = !request.include.is_empty();
    let (mut tasks, mut failures) = (Vec::new(), Vec::new());
    for asked in &request.tasks {
        let id = task_id(asked);
        match ecs.get(id).await.map_err(|error| failed(&error))? {
            Some(task) => tasks.push(task.describe(with_tags)),
            None => failures
                .push(json!({ "arn": format!("{}{id}", arn::TASK_PREFIX), "reason": "MISSING" })),
        }
    }
    Ok(json!({ "tasks": tasks, "failures": failures }))
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct ListTasks {
    cluster: Option<String>,
    #[serde(default)]
    desired_status: Option<String>,
    #[serde(default)]
    family: Option<String>,
    #[serde(default)]
    max_results: Option<usize>,
    #[serde(default)]
    next_token: Option<String>,
}

async fn list_tasks(ecs: &Arc<Ecs>, request: ListTasks) -> Result<Value, AwsError> {
    check_cluster(request.cluster.as_deref())?;
    let stopped = match request.desired_status.as_deref() {
        None | Some("RUNNING") => false,
        Some("STOPPED") => true,
        Some(other) => {
            return Err(invalid(format!("desiredStatus: {other:?} is not RUNNING or STOPPED")));
        }
    };
    let size = request.max_results.unwrap_or(PAGE);
    if !(1..=PAGE).contains(&size) {
        return Err(invalid("maxResults must be from 1 to 100"));
    }
    let mut ids = if request.family.is_none_or(|family| family == arn::TASK_FAMILY) {
        let limit = if stopped { LISTED_STOPPED } else { usize::MAX };
        ecs.list(stopped, limit).await.map_err(|error| failed(&error))?
    } else {
        Vec::new()
    };
    ids.sort_unstable();
    let after = request.next_token.unwrap_or_default();
    let mut page: Vec<_> = ids.into_iter().filter(|id| *id > after).take(size + 1).collect();
    let has_more = page.len() > size;
    page.truncate(size);
    let arns: Vec<_> = page.iter().map(|id| format!("{}{id}", arn::TASK_PREFIX)).collect();
    let mut answer = json!({ "taskArns": arns });
    if has_more && let Some(last) = page.last() {
        answer["nextToken"] = json!(last);
    }
    Ok(answer)
}
