//! An ECS task: what is asked for, what is known of it, and how ECS tells it.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use stepwes_core::task::env;

use super::process::ProcessId;
use crate::arn;

/// `lastStatus`, of the statuses that a task of ours can have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub(crate) enum Status {
    /// Waits for an engine slot.
    Provisioning,
    /// Is being started; whether its process is there is told by its `alive` file.
    Pending,
    /// Its process is known.
    Running,
    /// Nothing of it is left.
    Stopped,
}

impl Status {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Provisioning => "PROVISIONING",
            Self::Pending => "PENDING",
            Self::Running => "RUNNING",
            Self::Stopped => "STOPPED",
        }
    }
}

/// A name and a value, as in `environment`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct NameValue {
    pub(crate) name: String,
    pub(crate) value: String,
}

/// A tag.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Tag {
    pub(crate) key: String,
    pub(crate) value: String,
}

/// Why a task stopped.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Stop {
    /// ECS's `stopCode`.
    pub(crate) code: String,
    /// ECS's `stoppedReason`.
    pub(crate) reason: String,
}

/// A task, as it is kept.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Task {
    /// 32 hexadecimal digits, random.
    pub(crate) id: String,
    /// What its metadata endpoint is reached by; nobody but the task knows it.
    pub(crate) metadata_id: String,
    /// Two requests with one token are one task.
    pub(crate) client_token: Option<String>,
    pub(crate) started_by: Option<String>,
    /// The environment that the caller adds to the task definition's.
    pub(crate) environment: Vec<NameValue>,
    /// The CPU units that are kept for it.
    #[serde(default)]
    pub(crate) cpu: Option<u32>,
    /// The MiB of memory that are kept for it.
    #[serde(default)]
    pub(crate) memory: Option<u32>,
    pub(crate) tags: Vec<Tag>,
    pub(crate) status: Status,
    pub(crate) created_at: DateTime<Utc>,
    pub(crate) started_at: Option<DateTime<Utc>>,
    /// When it was told to stop, or ended by itself.
    pub(crate) stopping_at: Option<DateTime<Utc>>,
    pub(crate) stopped_at: Option<DateTime<Utc>>,
    /// The boot in which it was started.
    pub(crate) boot_id: Option<String>,
    pub(crate) process: Option<ProcessId>,
    /// The engine process' exit code; 128 + n when signal n ended it.
    pub(crate) exit_code: Option<i32>,
    pub(crate) stop: Option<Stop>,
}

impl Task {
    /// Its ARN.
    pub(crate) fn arn(&self) -> String {
        format!("{}{}", arn::TASK_PREFIX, self.id)
    }

    /// The run that it is for, as the state machine says it.
    pub(crate) fn run_id(&self) -> Option<&str> {
        let variable = self.environment.iter().find(|variable| variable.name == env::RUN_ID)?;
        Some(&variable.value)
    }

    /// Whether another request is the one that this task was made for.
    pub(crate) fn is_of(&self, other: &Self) -> bool {
        self.environment == other.environment
            && (self.cpu, self.memory) == (other.cpu, other.memory)
            && self.tags == other.tags
            && self.started_by == other.started_by
    }

    fn desired_status(&self) -> &'static str {
        if self.stopping_at.is_some() { "STOPPED" } else { "RUNNING" }
    }

    /// The task as the ECS API tells it.
    /// <https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_Task.html>
    pub(crate) fn describe(&self, with_tags: bool) -> Value {
        let seconds = |time: DateTime<Utc>| json!(time.timestamp_millis() as f64 / 1000.0);
        let mut container = json!({
            "containerArn": format!("{}{}/{}", arn::CONTAINER_PREFIX, self.id, self.id),
            "taskArn": self.arn(),
            "name": CONTAINER,
            "lastStatus": self.status.as_str(),
            "networkInterfaces": [],
        });
        if let Some(code) = self.exit_code {
            container["exitCode"] = json!(code);
        }
        let mut task = json!({
            "taskArn": self.arn(),
            "clusterArn": arn::CLUSTER,
            "taskDefinitionArn": arn::TASK_DEFINITION,
            "group": format!("family:{}", arn::TASK_FAMILY),
            "capacityProviderName": arn::CAPACITY_PROVIDER,
            "launchType": "EXTERNAL",
            "lastStatus": self.status.as_str(),
            "desiredStatus": self.desired_status(),
            "createdAt": seconds(self.created_at),
            "containers": [container],
            "attachments": [],
            "overrides": {
                "containerOverrides": [{ "name": CONTAINER, "environment": self.environment }],
            },
        });
        for (name, size) in [("cpu", self.cpu), ("memory", self.memory)] {
            if let Some(size) = size {
                task[name] = json!(size.to_string());
                task["overrides"][name] = json!(size.to_string());
            }
        }
        let times = [
            ("startedAt", self.started_at),
            ("stoppingAt", self.stopping_at),
            ("stoppedAt", self.stopped_at),
        ];
        for (name, time) in times {
            if let Some(time) = time {
                task[name] = seconds(time);
            }
        }
        if let Some(started_by) = &self.started_by {
            task["startedBy"] = json!(started_by);
        }
        if let Some(stop) = &self.stop {
            task["stopCode"] = json!(stop.code);
            task["stoppedReason"] = json!(stop.reason);
        }
        if with_tags {
            task["tags"] = json!(self.tags);
        }
        task
    }
}

/// The one container of a task.
pub(crate) const CONTAINER: &str = "engine";

/// ECS's stop codes, as far as they can happen here.
pub(crate) mod stop_code {
    pub(crate) const ESSENTIAL_CONTAINER_EXITED: &str = "EssentialContainerExited";
    pub(crate) const TASK_FAILED_TO_START: &str = "TaskFailedToStart";
    pub(crate) const USER_INITIATED: &str = "UserInitiated";
}
