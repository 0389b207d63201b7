//! Tasks as ECS tells of them: describe, stop, list.

use aws_sdk_ecs::{
    Client,
    error::{ProvideErrorMetadata as _, SdkError},
    operation::stop_task::StopTaskError,
    types::{DesiredStatus, Task},
};
use chrono::{DateTime, Utc};
use stepwes_core::{
    RunId,
    task::{EcsContainer, EcsTask, env},
};

use crate::{OnUse, step::StepFailure};

/// How many tasks one `ListTasks` or `DescribeTasks` speaks of at most (ECS API reference).
const PAGE: usize = 100;

/// How long a `StopTask` reason may be (ECS API reference: 1,024; the console shows 255).
const MAX_REASON: usize = 255;

/// The tasks of one cluster.
#[derive(Clone, Debug)]
pub struct Tasks {
    client: OnUse<Client>,
    cluster: String,
}

/// A task, as `DescribeTasks` has it.
#[derive(Clone, Debug, PartialEq)]
pub struct TaskInfo {
    /// Its ARN.
    pub task_arn: String,
    /// `PROVISIONING`, `RUNNING`, `STOPPING`, `STOPPED`, …
    pub last_status: String,
    /// The run in its overrides; none for a task that is not an engine task of ours.
    pub run_id: Option<RunId>,
    /// The attempt in its overrides.
    pub attempt: Option<u32>,
    /// When it was asked for.
    pub created_at: Option<DateTime<Utc>>,
    /// Why and how it stopped, as far as it has.
    pub ended: EcsTask,
}

impl TaskInfo {
    /// Whether anything of the task may still be alive: only `STOPPED` (and `DELETED`) say that
    /// nothing is.
    #[must_use]
    pub fn is_live(&self) -> bool {
        !matches!(self.last_status.as_str(), "STOPPED" | "DELETED")
    }
}

impl Tasks {
    /// The tasks of `cluster` (name or ARN).
    #[must_use]
    pub fn new(client: impl Into<OnUse<Client>>, cluster: impl Into<String>) -> Self {
        Self { client: client.into(), cluster: cluster.into() }
    }

    /// The task of that ARN; `None` when ECS does not know it, or does not any more (it forgets a
    /// stopped task after about an hour).
    ///
    /// # Errors
    /// [`StepFailure`] when ECS does not answer or refuses.
    pub async fn describe(&self, task_arn: &str) -> Result<Option<TaskInfo>, StepFailure> {
        Ok(self.describe_all(&[task_arn.to_owned()]).await?.pop())
    }

    /// The tasks of those ARNs that ECS knows, in any order.
    ///
    /// # Errors
    /// [`StepFailure`] when ECS does not answer or refuses.
    pub async fn describe_all(&self, task_arns: &[String]) -> Result<Vec<TaskInfo>, StepFailure> {
        let mut found = Vec::with_capacity(task_arns.len());
        for page in task_arns.chunks(PAGE) {
            let answer = self
                .client
                .describe_tasks()
                .cluster(&self.cluster)
                .set_tasks(Some(page.to_vec()))
                .send()
                .await
                .map_err(|error| StepFailure::from_sdk("ecs:DescribeTasks", error))?;
            found.extend(answer.tasks().iter().filter_map(info));
        }
        Ok(found)
    }

    /// Asks a task to stop: SIGTERM, and SIGKILL after its stop timeout. A task that has stopped
    /// or is not known needs no stopping.
    ///
    /// # Errors
    /// [`StepFailure`] when ECS does not answer or refuses.
    pub async fn stop(&self, task_arn: &str, reason: &str) -> Result<(), StepFailure> {
        let reason: String = reason.chars().take(MAX_REASON).collect();
        let answer = self
            .client
            .stop_task()
            .cluster(&self.cluster)
            .task(task_arn)
            .reason(reason)
            .send()
            .await;
        match answer {
            Ok(_) => Ok(()),
            Err(error) if is_unknown_task(&error) => Ok(()),
            Err(error) => Err(StepFailure::from_sdk("ecs:StopTask", error)),
        }
    }

    /// One page of the cluster's tasks, and where the next page goes on: of those that nobody has
    /// asked to stop, or else of those that somebody has, whether they have stopped or not (ECS
    /// forgets these after about an hour).
    ///
    /// # Errors
    /// [`StepFailure`] when ECS does not answer or refuses.
    pub async fn page(
        &self,
        asked_to_stop: bool,
        next: Option<String>,
    ) -> Result<(Vec<TaskInfo>, Option<String>), StepFailure> {
        let answer = self
            .client
            .list_tasks()
            .cluster(&self.cluster)
            .desired_status(if asked_to_stop {
                DesiredStatus::Stopped
            } else {
                DesiredStatus::Running
            })
            .set_next_token(next)
            .send()
            .await
            .map_err(|error| StepFailure::from_sdk("ecs:ListTasks", error))?;
        let tasks = self.describe_all(&answer.task_arns.unwrap_or_default()).await?;
        Ok((tasks, answer.next_token.filter(|token| !token.is_empty())))
    }
}

/// ECS has no error of its own for a task that it does not know: it is an
/// `InvalidParameterException` whose message says so.
fn is_unknown_task<R>(error: &SdkError<StopTaskError, R>) -> bool {
    error.as_service_error().is_some_and(|error| {
        error.is_invalid_parameter_exception()
            && error.message().is_some_and(|message| message.contains("task was not found"))
    })
}

fn info(task: &Task) -> Option<TaskInfo> {
    let overridden = |name: &str| {
        task.overrides()?
            .container_overrides()
            .iter()
            .flat_map(aws_sdk_ecs::types::ContainerOverride::environment)
            .find(|variable| variable.name() == Some(name))?
            .value()
    };
    Some(TaskInfo {
        task_arn: task.task_arn()?.to_owned(),
        last_status: task.last_status().unwrap_or_default().to_owned(),
        run_id: overridden(env::RUN_ID).and_then(|id| id.parse().ok()),
        attempt: overridden(env::ATTEMPT).and_then(|attempt| attempt.parse().ok()),
        created_at: task
            .created_at()
            .and_then(|at| DateTime::from_timestamp(at.secs(), at.subsec_nanos())),
        ended: EcsTask {
            task_arn: task.task_arn().map(str::to_owned),
            stop_code: task.stop_code().map(|code| code.as_str().to_owned()),
            stopped_reason: task.stopped_reason().map(str::to_owned),
            containers: task
                .containers()
                .iter()
                .map(|container| EcsContainer {
                    exit_code: container.exit_code(),
                    reason: container.reason().map(str::to_owned),
                })
                .collect(),
            other: std::collections::BTreeMap::new(),
        },
    })
}
