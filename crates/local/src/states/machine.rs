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

fn check_resources(machine: &Value) -> Result<(), MachineError> {
    let Some(states) = machine.get("States").and_then(Value::as_object) else { return Ok(()) };
    for (name, state) in states {
        if let Some(resource) = state.get("Resource").and_then(Value::as_str)
            && ![LAMBDA_INVOKE, ECS_RUN_TASK_SYNC].contains(&resource)
        {
            return Err(MachineError::Resource {
                state: name.clone(),
                resource: resource.to_owned(),
            });
        }
        let branches = state.get("Branches").and_then(Value::as_array).into_iter().flatten();
        for inner in branches.chain(state.get("ItemProcessor")) {
            check_resources(inner)?;
        }
    }
    Ok(())
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
}
