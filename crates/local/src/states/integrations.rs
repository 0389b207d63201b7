//! The services that a Task state can call, with the results and errors that Step Functions makes
//! of their answers.

use std::{sync::Arc, time::Duration};

use chrono::{DateTime, Utc};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::{
    States,
    machine::{ECS_RUN_TASK_SYNC, LAMBDA_INVOKE},
};
use crate::{
    aws_error::AwsError,
    calls::Service,
    ecs::{self, Task},
    faults::{Fault, INJECTED, When},
    ledger::LedgerError,
};

/// `startedBy` of the tasks that an execution starts.
pub(super) const STARTED_BY: &str = "AWS Step Functions";
/// Why an execution stops a task.
pub(super) const STOP_REASON: &str = "The execution no longer waits for the task.";

/// How long to wait before a task is told again to stop, when the disk is full.
const STOP_AGAIN_AFTER: Duration = Duration::from_secs(1);

/// An error as `ErrorEquals` and a Catch see it.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) error: String,
    pub(super) cause: String,
}

impl Failure {
    fn new(error: impl Into<String>, cause: impl Into<String>) -> Self {
        Self { error: error.into(), cause: cause.into() }
    }
}

/// What a Task state calls.
pub(super) struct Call<'a> {
    pub(super) resource: &'a str,
    pub(super) arguments: &'a Value,
    /// By which a task is started once, however often it is called for.
    pub(super) client_token: String,
}

/// Calls the resource and waits for its end. `begun` is told when an ECS task has got its slot, and
/// its process. When the call is cancelled, an ECS task is told to stop and not waited for; a
/// function runs on (as in AWS).
pub(super) async fn run(
    states: &States,
    call: Call<'_>,
    begun: impl Fn(DateTime<Utc>),
    canceled: &CancellationToken,
) -> Result<Value, Failure> {
    match call.resource {
        LAMBDA_INVOKE => invoke(states, call.arguments).await,
        ECS_RUN_TASK_SYNC => run_task(states, call, begun, canceled).await,
        other => Err(Failure::new(
            "States.Runtime",
            format!("the embedded AWS does not implement the resource {other}"),
        )),
    }
}

async fn invoke(states: &States, arguments: &Value) -> Result<Value, Failure> {
    let wrong = |what: String| Failure::new("Lambda.InvalidParameterValueException", what);
    let mut payload = &Value::Null;
    let mut function = None;
    for (name, value) in arguments.as_object().into_iter().flatten() {
        match (name.as_str(), value) {
            ("FunctionName", Value::String(name)) => function = Some(name),
            ("Payload", value) => payload = value,
            (other, _) => {
                return Err(wrong(format!(
                    "lambda:invoke: the embedded AWS does not implement the argument {other}"
                )));
            }
        }
    }
    let function = function.ok_or_else(|| wrong("FunctionName is required".to_owned()))?;
    let Some(name) = states.functions.find(function) else {
        return Err(Failure::new(
            "Lambda.ResourceNotFoundException",
            format!("Function not found: {function}"),
        ));
    };
    let fault = states.functions.faults().and_then(|faults| {
        faults.decide("lambda", name, &faults.run_in(&[payload.to_string().as_bytes()]))
    });
    if let Some(failure) = fault.and_then(|fault| before_invoke(states, name, payload, fault)) {
        return Err(failure);
    }
    if let Some(Fault::Slow(by)) = fault {
        tokio::time::sleep(by).await;
    }
    if fault == Some(Fault::Twice) {
        let (functions, payload) = (Arc::clone(&states.functions), payload.clone());
        states.calls.enter(Service::Lambda, "Invoke");
        // Beside the one that is waited for.
        states.life.spawn(async move { drop(functions.invoke(name, payload).await) });
    }
    states.calls.enter(Service::Lambda, "Invoke");
    let outcome = states.functions.invoke(name, payload.clone()).await;
    if let Some(error) = fault.and_then(after_invoke) {
        return Err(Failure::new(error, INJECTED));
    }
    match outcome {
        Ok(output) => {
            Ok(json!({ "ExecutedVersion": "$LATEST", "Payload": output, "StatusCode": 200 }))
        }
        Err(error) => {
            let cause = json!(error).to_string();
            Err(Failure::new(error.error_type, cause))
        }
    }
}

/// What Step Functions is told of an invocation that has no effect, or has it later.
/// <https://docs.aws.amazon.com/step-functions/latest/dg/sfn-best-practices.html#bp-lambda-serviceexception>
fn before_invoke(
    states: &States,
    function: &'static str,
    payload: &Value,
    fault: Fault,
) -> Option<Failure> {
    let error = match fault {
        Fault::Throttled => "Lambda.TooManyRequestsException",
        Fault::Failed(When::Before) => "Lambda.ServiceException",
        Fault::Unanswered(When::Before) | Fault::TornRequest => "Lambda.SdkClientException",
        Fault::Dies(When::Before) => "Lambda.Unknown",
        Fault::Late(by) => {
            let (functions, payload) = (Arc::clone(&states.functions), payload.clone());
            states.life.spawn(async move {
                tokio::time::sleep(by).await;
                drop(functions.invoke(function, payload).await);
            });
            "Lambda.ClientExecutionTimeoutException"
        }
        _ => return None,
    };
    Some(Failure::new(error, INJECTED))
}

/// The error in whose place an invocation's answer is lost.
const fn after_invoke(fault: Fault) -> Option<&'static str> {
    Some(match fault {
        Fault::Failed(When::After) => "Lambda.AWSLambdaException",
        Fault::Unanswered(When::After) => "States.Timeout",
        Fault::TornAnswer => "Lambda.SdkClientException",
        Fault::Dies(When::After) => "Sandbox.Timedout",
        _ => return None,
    })
}

/// The error that Step Functions makes of a call of RunTask that goes wrong, and whether a task is
/// there all the same.
const fn run_task_error(fault: Fault) -> Option<(When, &'static str)> {
    Some(match fault {
        Fault::Throttled => (When::Before, "ECS.ThrottlingException"),
        Fault::Failed(when) => (when, "ECS.ServerException"),
        Fault::Unanswered(when) | Fault::Dies(when) => (when, "ECS.SdkClientException"),
        Fault::TornAnswer | Fault::Late(_) => (When::After, "ECS.SdkClientException"),
        Fault::TornRequest => (When::Before, "ECS.SdkClientException"),
        Fault::Skewed => (When::Before, "ECS.AmazonECSException"),
        Fault::Slow(_) | Fault::Twice => return None,
    })
}

async fn run_task(
    states: &States,
    call: Call<'_>,
    begun: impl Fn(DateTime<Utc>),
    canceled: &CancellationToken,
) -> Result<Value, Failure> {
    let refused = |error: AwsError| Failure::new(format!("ECS.{}", error.code), error.message);
    let failed = |error: LedgerError| Failure::new("ECS.ServerException", error.to_string());
    let request =
        ecs::run_task_request(call.arguments, STARTED_BY, call.client_token).map_err(refused)?;
    let fault = states.functions.faults().and_then(|faults| {
        faults.decide("ecs", "RunTask", &faults.run_in(&[call.arguments.to_string().as_bytes()]))
    });
    let goes_wrong = fault.and_then(run_task_error);
    if let Some((when, error)) = goes_wrong {
        if when == When::After {
            states.calls.enter(Service::Ecs, "RunTask");
            request.unknown().run(&states.ecs).await.map_err(refused)?;
        }
        return Err(Failure::new(error, INJECTED));
    }
    states.calls.enter(Service::Ecs, "RunTask");
    let task = request.run(&states.ecs).await.map_err(refused)?;
    let stopped = async {
        if let Some(at) = states.ecs.started(&task.id).await {
            begun(at);
        }
        states.ecs.stopped(&task.id).await
    };
    let stopped = tokio::select! {
        stopped = stopped => stopped.map_err(failed)?,
        () = canceled.cancelled() => stop(states, &task.id).await,
    };
    let stopped = stopped
        .ok_or_else(|| Failure::new("ECS.ServerException", "the task is not known any more"))?;
    outcome(&stopped)
}

/// Tells a task to stop until it has been told: nobody else does before the server starts again.
async fn stop(states: &States, task: &str) -> Option<Task> {
    loop {
        match states.ecs.stop(task, STOP_REASON).await {
            Ok(stopped) => return stopped,
            Err(error) => {
                tracing::error!(
                    error = &error as &dyn std::error::Error,
                    task,
                    "a task was not told to stop; trying again"
                );
                tokio::time::sleep(STOP_AGAIN_AFTER).await;
            }
        }
    }
}

/// What `.sync` makes of a task that stopped.
fn outcome(task: &Task) -> Result<Value, Failure> {
    let mut told = ecs::pascal_case(&task.describe(true));
    if let Some(fields) = told.as_object_mut() {
        // They hold the attempt's token, and what is told here is kept with the execution.
        fields.remove("Overrides");
    }
    if task.exit_code == Some(0) {
        Ok(told)
    } else {
        Err(Failure::new("States.TaskFailed", told.to_string()))
    }
}
