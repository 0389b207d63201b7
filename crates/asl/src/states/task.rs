//! Task: has the host do something, and goes on with its result.

use chrono::TimeDelta;
use serde_json::Value;

use super::{Kind, State, fields};
use crate::execution::{Activity, Begun, Here, Run, TaskRun};
use crate::expression::{Available, Count, Template};
use crate::failure::{Failure, RUNTIME, Trouble};
use crate::history::{EventKind, Payload};
use crate::load::{Fields, LoadError, Place};
use crate::machine::MAX_SECONDS;

#[derive(Debug)]
pub(crate) struct Task {
    resource: String,
    arguments: Option<Template>,
    timeout_seconds: Option<Count>,
    heartbeat_seconds: Option<Count>,
}

pub(super) fn load(place: Place, value: &Value) -> Result<State, LoadError> {
    let fields = fields(
        place,
        value,
        &[
            "Resource",
            "Arguments",
            "TimeoutSeconds",
            "HeartbeatSeconds",
            "Retry",
            "Catch",
            "Next",
            "End",
            "Output",
            "Assign",
        ],
    )?;
    let seconds = |name: &str| {
        fields
            .get(name)
            .map(|value| Count::load(&fields.at(name), value, 1..=MAX_SECONDS))
            .transpose()
    };
    let task = Task {
        resource: load_resource(&fields)?,
        arguments: fields
            .get("Arguments")
            .map(|value| Template::load(&fields.at("Arguments"), value, Available::Entry))
            .transpose()?,
        timeout_seconds: seconds("TimeoutSeconds")?,
        heartbeat_seconds: seconds("HeartbeatSeconds")?,
    };
    let literal = |count: &Option<Count>| count.as_ref().and_then(Count::literal);
    let timeout = literal(&task.timeout_seconds).unwrap_or(MAX_SECONDS);
    if literal(&task.heartbeat_seconds).is_some_and(|heartbeat| heartbeat >= timeout) {
        return Err(fields
            .at("HeartbeatSeconds")
            .refuse(format!("must be less than TimeoutSeconds, which is {timeout}")));
    }
    State::retried(Kind::Task(Box::new(task)), &fields)
}

fn load_resource(fields: &Fields<'_>) -> Result<String, LoadError> {
    let resource = fields.required_string("Resource")?;
    let place = fields.at("Resource");
    if resource.contains("${") {
        return Err(place.refuse(format!("has a substitution that was not filled in: {resource}")));
    }
    if !resource.starts_with("arn:") || resource.split(':').count() < 6 {
        return Err(place.refuse(format!("must be an ARN, but is {resource:?}")));
    }
    if resource.contains(".waitForTaskToken") {
        return Err(place
            .refuse("task tokens are not implemented; use a request-response or .sync resource"));
    }
    if resource.split(':').nth(5) == Some("activity") {
        return Err(place.refuse("activities are not implemented"));
    }
    Ok(resource.to_owned())
}

impl Task {
    pub(super) fn begin(
        &self,
        run: &mut Run<'_>,
        here: &Here<'_>,
        last: &mut u64,
    ) -> Result<Begun<'static>, Trouble> {
        let (arguments, timeout_seconds, heartbeat_seconds) =
            run.evaluate(here, None, |scope| {
                let arguments = match &self.arguments {
                    Some(template) => scope.value(template)?,
                    None => here.visit.input.clone(),
                };
                let mut seconds =
                    |count: &Option<Count>| count.as_ref().map(|c| scope.count(c)).transpose();
                Ok((arguments, seconds(&self.timeout_seconds)?, seconds(&self.heartbeat_seconds)?))
            })?;
        here.check_size(&arguments)?;
        if heartbeat_seconds >= Some(timeout_seconds.unwrap_or(MAX_SECONDS)) {
            return Err(Failure::named(
                RUNTIME,
                here.cause("HeartbeatSeconds must be less than TimeoutSeconds."),
            )
            .into());
        }
        run.event(
            last,
            EventKind::TaskScheduled {
                resource: self.resource.clone(),
                parameters: Payload::of(&arguments),
                timeout_seconds,
                heartbeat_seconds,
            },
        );
        run.event(last, EventKind::TaskStarted { resource: self.resource.clone() });
        let now = run.now;
        let after = |seconds: u32| now + TimeDelta::seconds(i64::from(seconds));
        let task = TaskRun {
            id: run.next_task(),
            resource: self.resource.clone(),
            arguments,
            started_at: now,
            timeout_seconds,
            heartbeat_seconds,
            deadline: timeout_seconds.map(after),
            heartbeat_deadline: heartbeat_seconds.map(after),
        };
        run.start(&here.visit.state, &task);
        Ok(Begun::Blocked(Activity::Task(task)))
    }
}
