//! Metrics, in CloudWatch's embedded metric format
//! (<https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/CloudWatch_Embedded_Metric_Format_Specification.html>):
//! a line names the metrics in it under `_aws`, and CloudWatch Logs makes them. Each combination of
//! a name and its dimensions' values is one that is paid for, in the hours in which it has a value.

use chrono::{DateTime, Utc};
use serde_json::{Map, Value, json};

/// The target of lines that tell a state change of a run.
pub const STATE_CHANGE: &str = "stepwes::state_change";
/// The target of lines that tell a request to the API.
pub const REQUEST: &str = "stepwes::request";
/// The target of lines that tell that reconcile started or ended a run.
pub const REPAIR: &str = "stepwes::repair";
/// The target of lines that tell what reconcile could not do.
pub const RECONCILE_FAILURE: &str = "stepwes::reconcile_failure";
/// The target of lines that tell that a file which was to start a run was refused.
pub const REJECTION: &str = "stepwes::rejection";

/// The longest name of a namespace
/// (<https://docs.aws.amazon.com/AmazonCloudWatch/latest/APIReference/API_PutMetricData.html>).
const MAX_NAMESPACE: usize = 255;

/// A metric of a kind of line; lines that lack its value or a dimension have none of it.
struct Metric {
    target: &'static str,
    name: &'static str,
    unit: &'static str,
    /// The field that is its value; each line counts one when none.
    value: Option<&'static str>,
    /// The fields that are its dimensions.
    dimensions: &'static [&'static str],
}

const COUNT: &str = "Count";
const MILLISECONDS: &str = "Milliseconds";

/// Every metric. One a line, for scripts/template/contract.py.
#[rustfmt::skip]
const METRICS: [Metric; 8] = [
    Metric { target: STATE_CHANGE, name: "StateChanges", unit: COUNT, value: None, dimensions: &["to"] },
    Metric { target: STATE_CHANGE, name: "TimeInState", unit: MILLISECONDS, value: Some("ms_in_state"), dimensions: &["from"] },
    Metric { target: STATE_CHANGE, name: "Retries", unit: COUNT, value: Some("retries"), dimensions: &[] },
    Metric { target: REPAIR, name: "Repairs", unit: COUNT, value: None, dimensions: &[] },
    Metric { target: RECONCILE_FAILURE, name: "ReconcileFailures", unit: COUNT, value: None, dimensions: &[] },
    Metric { target: REJECTION, name: "Rejections", unit: COUNT, value: None, dimensions: &[] },
    Metric { target: REQUEST, name: "Requests", unit: COUNT, value: None, dimensions: &["route", "outcome"] },
    Metric { target: REQUEST, name: "RequestTime", unit: MILLISECONDS, value: Some("ms"), dimensions: &["route"] },
];

/// Which metrics lines have, and under which namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Metrics {
    namespace: String,
    requests: bool,
}

impl Metrics {
    /// The metrics that go by a name: `none`, `runs`, or `all`, which has requests by route, too.
    ///
    /// # Errors
    /// Which names there are, or what is wrong with the namespace.
    pub fn named(name: &str, namespace: String) -> Result<Option<Self>, String> {
        let requests = match name {
            "none" => return Ok(None),
            "runs" => false,
            "all" => true,
            other => return Err(format!("there are no metrics {other:?}; say none, runs or all")),
        };
        let good = |byte: u8| byte.is_ascii_alphanumeric() || b".-_/#:".contains(&byte);
        if namespace.is_empty()
            || namespace.len() > MAX_NAMESPACE
            || namespace.starts_with("AWS/")
            || !namespace.bytes().all(good)
        {
            return Err(format!(
                "{namespace:?} is no namespace of CloudWatch's for metrics of ours"
            ));
        }
        Ok(Some(Self { namespace, requests }))
    }

    /// Adds the metrics of a line of that target.
    pub(crate) fn add(&self, target: &str, now: DateTime<Utc>, line: &mut Map<String, Value>) {
        if target == REQUEST && !self.requests {
            return;
        }
        let mut directives = Vec::new();
        for metric in METRICS.iter().filter(|metric| metric.target == target) {
            let value = match metric.value {
                None => Some(Value::from(1)),
                Some(field) => line.get(field).filter(|value| value.is_number()).cloned(),
            };
            let Some(value) = value else { continue };
            if !metric.dimensions.iter().all(|field| line.get(*field).is_some_and(Value::is_string))
            {
                continue;
            }
            directives.push(json!({
                "Namespace": self.namespace,
                "Dimensions": [metric.dimensions],
                "Metrics": [{"Name": metric.name, "Unit": metric.unit}],
            }));
            line.insert(metric.name.to_owned(), value);
        }
        if !directives.is_empty() {
            let metadata = json!({
                "Timestamp": now.timestamp_millis(),
                "CloudWatchMetrics": directives,
            });
            line.insert("_aws".to_owned(), metadata);
        }
    }
}
