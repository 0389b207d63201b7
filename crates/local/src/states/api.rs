//! The operations of Step Functions that stepwes uses.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Value, json};
use stepwes_asl::MAX_PAYLOAD_BYTES;
use uuid::Uuid;

use super::{Started, States};
use crate::{arn, aws_error::AwsError, calls::Service, ledger::LedgerError};

/// The operations.
pub(crate) const OPERATIONS: [&str; 3] = ["DescribeExecution", "StartExecution", "StopExecution"];

/// The operation of that name, if it is one of ours.
pub(crate) fn operation(name: &str) -> Option<&'static str> {
    OPERATIONS.into_iter().find(|known| *known == name)
}

/// Answers one request.
pub(crate) async fn call(
    states: &Arc<States>,
    operation: &'static str,
    body: &[u8],
) -> Result<Value, AwsError> {
    match operation {
        "DescribeExecution" => describe(states, read(operation, body)?).await,
        "StartExecution" => start(states, read(operation, body)?).await,
        "StopExecution" => stop(states, read(operation, body)?).await,
        other => Err(AwsError::unknown_operation(Service::States, other)),
    }
}

fn read<T: DeserializeOwned>(operation: &str, body: &[u8]) -> Result<T, AwsError> {
    serde_json::from_slice(body).map_err(|error| {
        AwsError::client(
            "ValidationException",
            format!("states:{operation} as the embedded AWS has it: {error}"),
        )
    })
}

fn failed(error: &LedgerError) -> AwsError {
    AwsError::internal(Service::States, error)
}

/// A time as the JSON protocol has it: seconds since 1970.
fn seconds(time: DateTime<Utc>) -> Value {
    json!(time.timestamp_millis() as f64 / 1000.0)
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct StartExecution {
    state_machine_arn: String,
    #[serde(default)]
    name: Option<String>,
    #[serde(default)]
    input: Option<String>,
}

async fn start(states: &Arc<States>, request: StartExecution) -> Result<Value, AwsError> {
    if request.state_machine_arn != arn::STATE_MACHINE {
        return Err(AwsError::client(
            "StateMachineDoesNotExist",
            format!("State Machine Does Not Exist: '{}'", request.state_machine_arn),
        ));
    }
    let name = request.name.unwrap_or_else(|| Uuid::new_v4().to_string());
    if !is_name(&name) {
        return Err(AwsError::client("InvalidName", format!("Invalid Name: '{name}'")));
    }
    let input = request.input.unwrap_or_else(|| "{}".to_owned());
    let invalid = |message: String| AwsError::client("InvalidExecutionInput", message);
    if input.len() > MAX_PAYLOAD_BYTES {
        return Err(invalid(format!(
            "the input has {} bytes; the most is {MAX_PAYLOAD_BYTES}",
            input.len()
        )));
    }
    let value = serde_json::from_str(&input)
        .map_err(|error| invalid(format!("Invalid State Machine Execution Input: '{error}'")))?;
    let execution = format!("{}{name}", arn::EXECUTION_PREFIX);
    match states.start(name, input, value).await.map_err(|error| failed(&error))? {
        Started::At(at) => Ok(json!({ "executionArn": execution, "startDate": seconds(at) })),
        Started::Exists => Err(AwsError::client(
            "ExecutionAlreadyExists",
            format!("Execution Already Exists: '{execution}'"),
        )),
    }
}

/// Step Functions' rule for the names of executions.
fn is_name(name: &str) -> bool {
    (1..=80).contains(&name.chars().count())
        && !name
            .chars()
            .any(|c| c.is_whitespace() || c.is_control() || "<>{}[]?*\"#%\\^|~`$&,;:/".contains(c))
}

/// The name in an execution's ARN.
fn execution_name(arn: &str) -> Result<&str, AwsError> {
    if !arn.starts_with("arn:") {
        return Err(AwsError::client("InvalidArn", format!("Invalid Arn: '{arn}'")));
    }
    arn.strip_prefix(arn::EXECUTION_PREFIX).ok_or_else(|| does_not_exist(arn))
}

fn does_not_exist(arn: &str) -> AwsError {
    AwsError::client("ExecutionDoesNotExist", format!("Execution Does Not Exist: '{arn}'"))
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct DescribeExecution {
    execution_arn: String,
}

async fn describe(states: &Arc<States>, request: DescribeExecution) -> Result<Value, AwsError> {
    let arn = &request.execution_arn;
    let row = states
        .describe(execution_name(arn)?)
        .await
        .map_err(|error| failed(&error))?
        .ok_or_else(|| does_not_exist(arn))?;
    let mut answer = json!({
        "executionArn": arn,
        "stateMachineArn": arn::STATE_MACHINE,
        "name": row.name,
        "status": row.status,
        "startDate": seconds(row.started_at),
        "input": row.input,
        "inputDetails": { "included": true },
    });
    if let Some(at) = row.stopped_at {
        answer["stopDate"] = seconds(at);
    }
    if let Some(output) = row.output {
        answer["output"] = json!(output);
        answer["outputDetails"] = json!({ "included": true });
    }
    for (name, value) in [("error", row.error), ("cause", row.cause)] {
        if let Some(value) = value {
            answer[name] = json!(value);
        }
    }
    Ok(answer)
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct StopExecution {
    execution_arn: String,
    #[serde(default)]
    error: Option<String>,
    #[serde(default)]
    cause: Option<String>,
}

async fn stop(states: &Arc<States>, request: StopExecution) -> Result<Value, AwsError> {
    let arn = &request.execution_arn;
    let stopped = states
        .stop(execution_name(arn)?, request.error, request.cause)
        .await
        .map_err(|error| failed(&error))?
        .ok_or_else(|| does_not_exist(arn))?;
    Ok(json!({ "stopDate": seconds(stopped) }))
}
