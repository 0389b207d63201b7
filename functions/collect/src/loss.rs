//! Why a task ended without a result: Step Functions' error and ECS's words, sorted into what is
//! worth another attempt and what is not, with a reason that a person can act on.
//!
//! The words are those of "Stopped tasks error codes" and "API failure reasons" in the ECS
//! developer guide, and of the Step Functions integration
//! (<https://docs.aws.amazon.com/step-functions/latest/dg/connect-ecs.html>).

use serde::{Deserialize, de::DeserializeOwned};
use stepwes_cloud::step::quote;
use stepwes_core::{
    step::{CollectInput, StepError},
    task::{EcsContainer, EcsTask, exit},
};

/// The reason that our `StopTask` of a task over its time limit gives, by which it is known again.
pub const STOPPED_OVERDUE: &str = "stepwes: the run took longer than its limit";

/// Why an attempt is lost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Loss {
    /// The cloud took the machine away: worth another attempt, and PREEMPTED when none is left.
    Interrupted(String),
    /// Anything else that may go better the next time: SYSTEM_ERROR when no attempt is left.
    Lost(String),
    /// The task was stopped because it took longer than a run may.
    TimedOut,
    /// It would go the same way again.
    Final(String),
}

/// The codes by which RunTask refuses for good.
const REFUSALS: [&str; 10] = [
    "AccessDenied",
    "AccessDeniedException",
    "BlockedException",
    "ClusterNotFoundException",
    "InvalidParameterException",
    "PlatformTaskDefinitionIncompatibilityException",
    "PlatformUnknownException",
    "Permissions",
    "QueryEvaluationError",
    "UnsupportedFeatureException",
];

/// The task that the state machine's step waited for, when it ended: the step's result, or the
/// cause of its failure.
#[must_use]
pub fn ended_task(input: &CollectInput) -> Option<EcsTask> {
    if let Some(task) = &input.task {
        return Some(task.clone());
    }
    let error = input.error.as_ref().filter(|error| error.error == "States.TaskFailed")?;
    let task = serde_json::from_str(&error.cause).unwrap_or_else(|_| salvage(&error.cause));
    let tells =
        task.task_arn.is_some() || task.stop_code.is_some() || task.stopped_reason.is_some();
    tells.then_some(task)
}

/// Sorts the loss of a task that is gone and has left no result. `task` is what is known of its
/// end, `error` how the step that waited for it failed.
#[must_use]
pub fn classify(error: Option<&StepError>, task: Option<&EcsTask>) -> Loss {
    if error.is_some_and(|error| error.error == "States.Timeout") {
        return Loss::TimedOut;
    }
    match (task, error) {
        (Some(task), _) => of_task(task),
        (None, Some(error)) => of_error(error),
        (None, None) => Loss::Lost("the task is gone, and ECS does not tell why".to_owned()),
    }
}

fn of_task(task: &EcsTask) -> Loss {
    let words = task.stopped_reason.as_deref().map(quote).unwrap_or_default();
    let container = telling(&task.containers);
    let container_words = container.and_then(|container| container.reason.as_deref());
    let said = match container_words.map(quote) {
        Some(more) if words.is_empty() => more,
        Some(more) => format!("{words}; {more}"),
        None => words.clone(),
    };
    let said = if said.is_empty() { "without a reason".to_owned() } else { said };

    let out_of_memory =
        task.containers.iter().filter_map(|container| container.reason.as_deref()).any(is_memory)
            || is_memory(&words);
    if out_of_memory {
        return Loss::Final(format!(
            "the engine task ran out of memory ({said}); ask for more (stepwes.memory), \
             give engine tasks more memory, or let the workflow use less at a time"
        ));
    }
    match task.stop_code.as_deref() {
        Some("SpotInterruption") => {
            Loss::Interrupted(format!("the cloud took its Spot capacity back ({said})"))
        }
        Some("TerminationNotice" | "InfrastructureHealth") => {
            Loss::Interrupted(format!("the cloud took the task's host away ({said})"))
        }
        _ if words.starts_with("Host EC2") => {
            Loss::Interrupted(format!("the task's host was terminated ({said})"))
        }
        Some("TaskFailedToStart") => Loss::Lost(format!("the task did not start: {said}")),
        Some("UserInitiated") if words.starts_with(STOPPED_OVERDUE) => Loss::TimedOut,
        Some("UserInitiated") => Loss::Lost(format!("somebody stopped the task: {said}")),
        _ => Loss::Lost(of_exit(container.and_then(|container| container.exit_code), &said)),
    }
}

fn of_exit(code: Option<i32>, said: &str) -> String {
    let what = match code {
        Some(exit::DONE) => "the task ended well, but left no result".to_owned(),
        Some(exit::REFUSED) => "the task was refused the attempt".to_owned(),
        Some(exit::FAILED) => "the engine task itself failed; its log says why".to_owned(),
        Some(exit::STOPPED | 143) => "the task was told to stop".to_owned(),
        Some(137) => "the task was killed".to_owned(),
        Some(code @ 129..=159) => format!("the task was ended by signal {}", code - 128),
        Some(_) => "the engine task broke down".to_owned(),
        None => return format!("the task ended: {said}"),
    };
    let code = code.unwrap_or_default();
    format!("{what} (exit code {code}: {said})")
}

/// The container that says most: one with words, else one that failed, else any.
fn telling(containers: &[EcsContainer]) -> Option<&EcsContainer> {
    let failed = |container: &&EcsContainer| container.exit_code.is_some_and(|code| code != 0);
    containers
        .iter()
        .find(|container| container.reason.is_some())
        .or_else(|| containers.iter().find(failed))
        .or_else(|| containers.first())
}

fn is_memory(words: &str) -> bool {
    words.contains("OutOfMemory")
}

/// What RunTask answers when it starts nothing but does not fail either.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct NotStarted {
    failures: Vec<Failure>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Failure {
    #[serde(default)]
    reason: String,
    #[serde(default)]
    detail: String,
}

fn of_error(error: &StepError) -> Loss {
    let name = quote(&error.error);
    if let Ok(answer) = serde_json::from_str::<NotStarted>(&error.cause) {
        let told: Vec<_> = answer
            .failures
            .iter()
            .map(|failure| quote(&format!("{} {}", failure.reason, failure.detail)))
            .collect();
        return Loss::Lost(format!("ECS has no room for the task: {}", told.join(", ")));
    }
    let words = match quote(&error.cause) {
        words if words.is_empty() => name.clone(),
        words => format!("{name}: {words}"),
    };
    let code = error_code(error);
    let missing_definition = code == "ClientException" && error.cause.contains("TaskDefinition");
    let no_room = error.cause.contains("Capacity is unavailable");
    if !no_room && (REFUSALS.contains(&code) || missing_definition) {
        return Loss::Final(format!(
            "AWS refuses to start the engine task ({words}); check the deployment's cluster, task \
             definition, capacity provider, subnets, security group and roles"
        ));
    }
    Loss::Lost(format!("ECS did not start the task ({words})"))
}

/// The service's own code: Step Functions names errors that it does not model
/// `ECS.AmazonECSException`, and has the code in the cause.
fn error_code(error: &StepError) -> &str {
    let told = error.cause.split("Error Code: ").nth(1).and_then(|rest| {
        rest.split(|c: char| !c.is_ascii_alphanumeric()).next().filter(|code| !code.is_empty())
    });
    told.unwrap_or_else(|| error.error.rsplit('.').next().unwrap_or_default())
}

/// What can be read of a task whose JSON is broken: Step Functions cuts causes after 32,768
/// characters.
fn salvage(cause: &str) -> EcsTask {
    EcsTask {
        task_arn: field(cause, "TaskArn"),
        stop_code: field(cause, "StopCode"),
        stopped_reason: field(cause, "StoppedReason"),
        containers: vec![EcsContainer {
            exit_code: field(cause, "ExitCode"),
            reason: field(cause, "Reason"),
        }],
        other: std::collections::BTreeMap::new(),
    }
}

/// The first value of that name in a piece of JSON, if it is whole.
fn field<T: DeserializeOwned>(text: &str, name: &str) -> Option<T> {
    let (_, rest) = text.split_once(&format!("\"{name}\""))?;
    let value = rest.trim_start().strip_prefix(':')?;
    serde_json::Deserializer::from_str(value).into_iter::<T>().next()?.ok()
}

/// A time limit in words.
#[must_use]
pub fn duration(seconds: u32) -> String {
    let (number, unit) = match seconds {
        s if s % 3600 == 0 => (s / 3600, "hour"),
        s if s % 60 == 0 => (s / 60, "minute"),
        s => (s, "second"),
    };
    format!("{number} {unit}{}", if number == 1 { "" } else { "s" })
}
