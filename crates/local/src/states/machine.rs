//! The state machine that runs here: the one that is deployed, with its substitutions filled in.

use std::{collections::BTreeMap, sync::Arc};

use serde_json::Value;
use stepwes_asl::{LoadError, Machine};
use thiserror::Error;

use crate::{arn, lambda::name};

/// The definition that the template deploys.
const DEFINITION: &str =
    include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../../infra/run.asl.json"));

/// The integrations that are embedded.
pub(super) const LAMBDA_INVOKE: &str = "arn:aws:states:::lambda:invoke";
pub(super) const ECS_RUN_TASK_SYNC: &str = "arn:aws:states:::ecs:runTask.sync";

/// Why a state machine cannot run here.
#[derive(Debug, Error)]
pub(crate) enum MachineError {
    #[error("the state machine's definition: {0}")]
    Load(#[from] LoadError),
    #[error("the state machine's definition is not JSON: {0}")]
    Json(#[from] serde_json::Error),
    #[error("the state machine's definition has a substitution ${{{0}}} that nobody fills in")]
    Substitution(String),
    #[error("state {state:?}: the embedded AWS does not implement the resource {resource}")]
    Resource { state: String, resource: String },
    #[error("state {state:?}: the embedded AWS does not implement {field}")]
    Field { state: String, field: String },
}

/// A machine, with the text that it was read from.
#[derive(Clone, Debug)]
pub(crate) struct Definition {
    pub(crate) text: Arc<str>,
    pub(crate) machine: Arc<Machine>,
}

/// The machine of the runs.
pub(crate) fn run_machine() -> Result<Definition, MachineError> {
    let function = |name: &str| format!("{}{name}", arn::FUNCTION_PREFIX);
    let values = BTreeMap::from([
        ("Partition", arn::PARTITION.to_owned()),
        ("AdvanceFunctionArn", function(name::ADVANCE)),
        ("CollectFunctionArn", function(name::COLLECT)),
        ("ClusterArn", arn::CLUSTER.to_owned()),
        ("TaskDefinitionArn", arn::TASK_DEFINITION.to_owned()),
        ("CapacityProvider", arn::CAPACITY_PROVIDER.to_owned()),
        ("Subnets", "subnet-local".to_owned()),
        ("SecurityGroup", "sg-local".to_owned()),
        ("AssignPublicIp", "DISABLED".to_owned()),
    ]);
    load(substitute(DEFINITION, &values)?.into())
}

/// Reads a definition without substitutions, and refuses what does not run here.
pub(super) fn load(text: Arc<str>) -> Result<Definition, MachineError> {
    check_resources(&serde_json::from_str(&text)?)?;
    let machine = Arc::new(Machine::load(&text)?);
    Ok(Definition { text, machine })
}

/// Fills in `${Name}`, as CloudFormation's `DefinitionSubstitutions` do.
fn substitute(definition: &str, values: &BTreeMap<&str, String>) -> Result<String, MachineError> {
    let mut text = String::with_capacity(definition.len());
    let mut rest = definition;
    while let Some((before, after)) = rest.split_once("${") {
        let (name, after) = after.split_once('}').unwrap_or((after, ""));
        let value = values.get(name).ok_or_else(|| MachineError::Substitution(name.to_owned()))?;
        text.push_str(before);
        text.push_str(value);
        rest = after;
    }
    text.push_str(rest);
    Ok(text)
}

/// The arguments of `lambda:invoke` that are embedded.
const LAMBDA_ARGUMENTS: &[&str] = &["FunctionName", "Payload"];
/// The arguments of `ecs:runTask.sync` that are embedded; `/` leads into an object, or into each of
/// a list.
const ECS_ARGUMENTS: &[&str] = &[
    "CapacityProviderStrategy",
    "CapacityProviderStrategy/CapacityProvider",
    "CapacityProviderStrategy/Weight",
    "Cluster",
    "Count",
    "EnableECSManagedTags",
    "NetworkConfiguration",
    "NetworkConfiguration/AwsvpcConfiguration",
    "NetworkConfiguration/AwsvpcConfiguration/AssignPublicIp",
    "NetworkConfiguration/AwsvpcConfiguration/SecurityGroups",
    "NetworkConfiguration/AwsvpcConfiguration/Subnets",
    "Overrides",
    "Overrides/ContainerOverrides",
    "Overrides/ContainerOverrides/Environment",
    "Overrides/ContainerOverrides/Environment/Name",
    "Overrides/ContainerOverrides/Environment/Value",
    "Overrides/ContainerOverrides/Name",
    "Tags",
    "Tags/Key",
    "Tags/Value",
    "TaskDefinition",
];

fn check_resources(machine: &Value) -> Result<(), MachineError> {
    let Some(states) = machine.get("States").and_then(Value::as_object) else { return Ok(()) };
    for (name, state) in states {
        if let Some(resource) = state.get("Resource").and_then(Value::as_str) {
            let field = |field: String| MachineError::Field { state: name.clone(), field };
            let (known, is_function) = match resource {
                LAMBDA_INVOKE => (LAMBDA_ARGUMENTS, true),
                ECS_RUN_TASK_SYNC => (ECS_ARGUMENTS, false),
                other => {
                    let (state, resource) = (name.clone(), other.to_owned());
                    return Err(MachineError::Resource { state, resource });
                }
            };
            if state.get("HeartbeatSeconds").is_some() {
                // Nothing here sends any, so that each would only end its task.
                return Err(field("HeartbeatSeconds".to_owned()));
            }
            if let Some(unknown) =
                state.get("Arguments").and_then(|a| unknown_argument(a, "", known, is_function))
            {
                return Err(field(format!("Arguments/{unknown}")));
            }
        }
        let branches = state.get("Branches").and_then(Value::as_array).into_iter().flatten();
        for inner in branches.chain(state.get("ItemProcessor")) {
            check_resources(inner)?;
        }
    }
    Ok(())
}

/// The path of the first argument that is not among those that are known. What a function is given
/// is the function's affair.
fn unknown_argument(
    arguments: &Value,
    below: &str,
    known: &[&str],
    is_function: bool,
) -> Option<String> {
    match arguments {
        Value::Object(fields) => fields.iter().find_map(|(name, value)| {
            let path = if below.is_empty() { name.clone() } else { format!("{below}/{name}") };
            if !known.contains(&path.as_str()) {
                return Some(path);
            }
            if is_function { None } else { unknown_argument(value, &path, known, false) }
        }),
        Value::Array(items) => {
            items.iter().find_map(|item| unknown_argument(item, below, known, is_function))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_machine_that_is_deployed_runs_here() {
        let definition = run_machine().expect("loaded");
        assert_eq!(definition.machine.start_at(), "QUEUED");
    }

    #[test]
    fn what_is_not_filled_in_or_not_embedded_is_refused_by_name() {
        let nobody = substitute(r#"{"Comment": "${Nobody}"}"#, &BTreeMap::new());
        assert!(nobody.expect_err("refused").to_string().contains("${Nobody}"));
        let told = |definition: &str| load(definition.into()).expect_err("refused").to_string();
        let inner = r#"{"States": {"A": {"Type": "Map", "ItemProcessor": {"States": {
            "B": {"Type": "Task", "Resource": "arn:aws:states:::sqs:sendMessage"}}}}}}"#;
        let told = told(inner);
        assert!(told.contains("\"B\"") && told.contains("sqs:sendMessage"), "{told}");
    }

    #[test]
    fn a_field_that_is_not_embedded_is_refused_with_its_state() {
        let told = |fields: Value| {
            let mut state = serde_json::json!({ "Type": "Task", "End": true });
            for (name, value) in fields.as_object().expect("an object") {
                state[name] = value.clone();
            }
            let definition = serde_json::json!({
                "QueryLanguage": "JSONata", "StartAt": "A", "States": { "A": state }
            });
            load(definition.to_string().into()).expect_err("refused").to_string()
        };
        let (lambda, ecs) = (LAMBDA_INVOKE, ECS_RUN_TASK_SYNC);
        for (fields, expected) in [
            (serde_json::json!({ "Resource": lambda, "HeartbeatSeconds": 5 }), "HeartbeatSeconds"),
            (
                serde_json::json!({ "Resource": lambda, "Arguments": { "Qualifier": "1" } }),
                "Arguments/Qualifier",
            ),
            (
                serde_json::json!({ "Resource": ecs, "Arguments": { "LaunchType": "FARGATE" } }),
                "Arguments/LaunchType",
            ),
            (
                serde_json::json!({ "Resource": ecs, "Arguments": {
                    "Overrides": { "ContainerOverrides": [{ "Name": "engine", "Command": [] }] }
                } }),
                "Arguments/Overrides/ContainerOverrides/Command",
            ),
        ] {
            let told = told(fields);
            assert!(told.contains("\"A\"") && told.ends_with(expected), "{told}");
        }
        let whatever = serde_json::json!({
            "QueryLanguage": "JSONata", "StartAt": "A", "States": { "A": {
                "Type": "Task", "End": true, "Resource": lambda,
                "Arguments": { "FunctionName": "f", "Payload": { "what": ["ever"] } }
            } }
        });
        assert!(load(whatever.to_string().into()).is_ok());
    }
}
