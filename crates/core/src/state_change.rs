//! A committed state change of a run, as it is published: what `template.yaml`'s pipe makes of an
//! event item, and `stepwes serve` of the same item.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use uuid::Builder;

/// `source` of the events.
pub const SOURCE: &str = "stepwes";
/// `detail-type` of the events.
pub const DETAIL_TYPE: &str = "WES Run State Change";

/// `detail` of an event. The pipe cannot compute: numbers are strings, tags are JSON in a string,
/// and what there is not is an empty string. Its fields are the pipe's, in the pipe's order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StateChange {
    /// The run.
    pub run_id: String,
    /// A number that grows with each change of the run: by it and `run_id` repetitions and order
    /// are told.
    pub version: String,
    /// The attempt after the change; 0 before the first.
    pub attempt: String,
    /// The run's owner.
    pub owner: String,
    /// What happened, such as `enqueue` or `complete`.
    pub event: String,
    /// The state before; empty for a new run.
    pub from: String,
    /// The state after.
    pub to: String,
    /// When it happened: RFC 3339, UTC, milliseconds.
    pub time: String,
    /// When the engine started; empty before.
    pub start_time: String,
    /// When the run ended; empty before.
    pub end_time: String,
    /// The caller's tags, a JSON object.
    pub tags: String,
    /// Whether `outputs` is there.
    pub has_outputs: bool,
    /// Where the outputs object is, or is going to be.
    pub outputs: String,
    /// The trace that the run belongs to, as W3C's `traceparent`; empty for a run without one.
    pub traceparent: String,
}

impl StateChange {
    /// The whole event, as EventBridge hands it to a target. Its id is the same each time that the
    /// same change is told.
    /// <https://docs.aws.amazon.com/eventbridge/latest/userguide/eb-events-structure.html>
    #[must_use]
    pub fn event(&self, account: &str, region: &str) -> Value {
        let digest = Sha256::digest(format!("{}#{}", self.run_id, self.version));
        let mut bytes = [0; 16];
        bytes.copy_from_slice(&digest[..16]);
        // EventBridge's times have whole seconds.
        let time = match self.time.split_once('.') {
            Some((seconds, _)) => format!("{seconds}Z"),
            None => self.time.clone(),
        };
        json!({
            "version": "0",
            "id": Builder::from_custom_bytes(bytes).into_uuid().to_string(),
            "detail-type": DETAIL_TYPE,
            "source": SOURCE,
            "account": account,
            "time": time,
            "region": region,
            "resources": [],
            "detail": self,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(version: &str) -> StateChange {
        StateChange {
            run_id: "01a2033d-2b81-7418-bdf5-2d6241489c15".to_owned(),
            version: version.to_owned(),
            attempt: "1".to_owned(),
            owner: "ada".to_owned(),
            event: "complete".to_owned(),
            from: "RUNNING".to_owned(),
            to: "COMPLETE".to_owned(),
            time: "2026-11-25T01:00:00.123Z".to_owned(),
            start_time: "2026-11-25T00:50:00.000Z".to_owned(),
            end_time: "2026-11-25T01:00:00.000Z".to_owned(),
            tags: r#"{"project":"genes"}"#.to_owned(),
            has_outputs: true,
            outputs: "s3://runs/results/01a2033d-2b81-7418-bdf5-2d6241489c15/outputs.json"
                .to_owned(),
            traceparent: "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01".to_owned(),
        }
    }

    #[test]
    fn an_event_has_eventbridges_form_and_one_id_however_often_it_is_told() {
        let event = change("4").event("000000000000", "local");
        insta::assert_json_snapshot!("event", event);
        assert_eq!(event, change("4").event("000000000000", "local"));
        assert_ne!(event["id"], change("5").event("000000000000", "local")["id"]);
    }
}
