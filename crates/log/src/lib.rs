//! How stepwes logs: one JSON object a line, the fields of the event and of the spans around it all
//! at its top, and in lines that count something CloudWatch's metrics
//! (docs/observability.md has the fields and the metrics).
//!
//! A metric is made of the line that tells what it counts, so there is one of it whenever there is
//! one line, and no line of its own to pay for.

pub mod captured;
mod fields;
pub mod metrics;

use std::io::Write as _;

use chrono::{SecondsFormat, Utc};
use serde_json::{Map, Value};
use tracing::{
    Event, Level, Subscriber,
    span::{Attributes, Id, Record},
};
use tracing_subscriber::{
    Layer,
    fmt::MakeWriter,
    layer::Context,
    registry::{LookupSpan, Scope},
};

pub use metrics::Metrics;

use crate::fields::Fields;

/// What the targets of our own lines begin with.
const OURS: &str = "stepwes";

/// A layer that writes lines.
#[derive(Debug)]
pub struct Lines<W> {
    writer: W,
    metrics: Option<Metrics>,
}

impl<W> Lines<W> {
    /// Lines for that writer, without metrics.
    pub const fn new(writer: W) -> Self {
        Self { writer, metrics: None }
    }

    /// The same, with these metrics.
    #[must_use]
    pub fn with_metrics(self, metrics: Option<Metrics>) -> Self {
        Self { metrics, ..self }
    }
}

impl<S, W> Layer<S> for Lines<W>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    W: for<'a> MakeWriter<'a> + 'static,
{
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let Some(span) = context.span(id) else { return };
        let mut fields = Fields::default();
        attributes.record(&mut fields);
        span.extensions_mut().insert(fields);
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, context: Context<'_, S>) {
        let Some(span) = context.span(id) else { return };
        if let Some(fields) = span.extensions_mut().get_mut::<Fields>() {
            values.record(fields);
        }
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let metadata = event.metadata();
        // AWS's SDK traces whole requests and answers, with what is secret in them.
        if *metadata.level() == Level::TRACE && !metadata.target().starts_with(OURS) {
            return;
        }
        let now = Utc::now();
        let mut line = Map::new();
        line.insert("timestamp".into(), now.to_rfc3339_opts(SecondsFormat::Micros, true).into());
        line.insert("level".into(), metadata.level().as_str().into());
        let mut fields = Fields::default();
        event.record(&mut fields);
        let mut fields = fields.0;
        if let Some(message) = fields.shift_remove("message") {
            line.insert("message".into(), message);
        }
        line.insert("target".into(), metadata.target().into());
        // What is nearer to the event says it better.
        for span in context.event_scope(event).into_iter().flat_map(Scope::from_root) {
            if let Some(fields) = span.extensions().get::<Fields>() {
                line.extend(fields.0.clone());
            }
        }
        line.extend(fields);
        if let Some(metrics) = &self.metrics {
            metrics.add(metadata.target(), now, &mut line);
        }
        let mut text = Value::Object(line).to_string();
        text.push('\n');
        // At once, so that no other line gets into it. What cannot be logged cannot be reported.
        let _ = self.writer.make_writer_for(metadata).write_all(text.as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use std::{error::Error, fmt, io};

    use serde_json::json;
    use tracing_subscriber::layer::SubscriberExt as _;

    use super::*;
    use crate::captured::Captured;

    /// The lines that `log` makes, without their times.
    fn logged(metrics: Option<Metrics>, log: impl FnOnce()) -> Vec<Value> {
        let captured = Captured::default();
        tracing::subscriber::with_default(captured.subscriber(metrics), log);
        let mut lines = captured.take();
        for line in &mut lines {
            let line = line.as_object_mut().expect("a line of JSON");
            let time = line.shift_remove("timestamp").expect("a time");
            let time = chrono::DateTime::parse_from_rfc3339(time.as_str().expect("text"));
            assert!(time.is_ok_and(|time| (Utc::now() - time.to_utc()).num_seconds() < 60));
        }
        lines
    }

    #[test]
    fn what_others_trace_is_left_out_however_much_is_asked_for() {
        let captured = Captured::default();
        let writer = captured.clone();
        let subscriber = tracing_subscriber::registry().with(Lines::new(move || writer.clone()));
        tracing::subscriber::with_default(subscriber, || {
            tracing::trace!(target: "aws_smithy_runtime", body = "s3cret", "transmitting");
            tracing::trace!(target: "stepwes_store", "ours");
            tracing::debug!(target: "aws_smithy_runtime", "retrying");
        });
        let messages: Vec<_> =
            captured.take().into_iter().map(|line| line["message"].clone()).collect();
        assert_eq!(messages, ["ours", "retrying"]);
    }

    #[derive(Debug)]
    struct Outer(io::Error);

    impl fmt::Display for Outer {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("outer")
        }
    }

    impl Error for Outer {
        fn source(&self) -> Option<&(dyn Error + 'static)> {
            Some(&self.0)
        }
    }

    #[test]
    fn fields_of_spans_are_at_the_top_and_the_nearest_counts() {
        let lines = logged(None, || {
            let outer = tracing::info_span!(
                "outer",
                request_id = "r",
                run_id = "a",
                trace_id = tracing::field::Empty
            );
            let _outer = outer.enter();
            let _inner = tracing::info_span!("inner", attempt = 2).entered();
            tracing::info!(target: "t", run_id = "b", "said");
            outer.record("trace_id", "x");
            outer.record("run_id", "c");
            tracing::warn!(target: "t", nothing = None::<u32>, "again");
        });
        assert_eq!(
            lines,
            [
                json!({"level": "INFO", "message": "said", "target": "t", "request_id": "r",
                       "run_id": "b", "attempt": 2}),
                json!({"level": "WARN", "message": "again", "target": "t", "request_id": "r",
                       "run_id": "c", "trace_id": "x", "attempt": 2}),
            ]
        );
    }

    #[test]
    fn an_error_is_told_with_its_causes_and_nothing_breaks_a_line() {
        let lines = logged(None, || {
            let error = Outer(io::Error::other("inner"));
            let error: &dyn Error = &error;
            tracing::error!(target: "t", error, text = "a\nb\u{1b}\"", debug = ?[1], flag = true, part = 0.5, "x\ny");
        });
        assert_eq!(
            lines,
            [json!({"level": "ERROR", "message": "x\ny", "target": "t", "error": "outer: inner",
                    "text": "a\nb\u{1b}\"", "debug": "[1]", "flag": true, "part": 0.5})]
        );
    }

    fn runs() -> Option<Metrics> {
        Metrics::named("runs", "stepwes/x".to_owned()).expect("a name")
    }

    /// The metrics of a line as CloudWatch would read them: name, dimensions, unit and value.
    fn read(line: &Value) -> Vec<(String, Vec<String>, String, Value)> {
        let mut found = Vec::new();
        let Some(metadata) = line.get("_aws") else { return found };
        assert!(metadata["Timestamp"].as_i64().is_some_and(|time| time > 1_700_000_000_000));
        for directive in metadata["CloudWatchMetrics"].as_array().expect("directives") {
            assert_eq!(directive["Namespace"], "stepwes/x");
            let sets = directive["Dimensions"].as_array().expect("sets");
            for metric in directive["Metrics"].as_array().expect("metrics") {
                let [set] = sets.as_slice() else { panic!("one set of dimensions: {sets:?}") };
                let dimensions = set.as_array().expect("names").iter().map(|name| {
                    let name = name.as_str().expect("a name");
                    format!("{name}={}", line[name].as_str().expect("a dimension is a string"))
                });
                let name = metric["Name"].as_str().expect("a name").to_owned();
                let value = line[&name].clone();
                assert!(value.is_number(), "{name}: {value}");
                let unit = metric["Unit"].as_str().expect("a unit").to_owned();
                found.push((name, dimensions.collect(), unit, value));
            }
        }
        found
    }

    fn of(
        name: &str,
        dimensions: &[&str],
        unit: &str,
        value: u64,
    ) -> (String, Vec<String>, String, Value) {
        let dimensions = dimensions.iter().map(|each| (*each).to_owned()).collect();
        (name.to_owned(), dimensions, unit.to_owned(), value.into())
    }

    #[test]
    fn a_line_that_counts_something_has_its_metrics_in_it_and_others_have_none() {
        let lines = logged(runs(), || {
            tracing::info!(target: metrics::STATE_CHANGE, to = "QUEUED", "state changed");
            tracing::info!(target: metrics::STATE_CHANGE, to = "INITIALIZING", from = "RUNNING", ms_in_state = 1500_u64, retries = 1_u64, "state changed");
            tracing::warn!(target: metrics::REPAIR, "repaired");
            tracing::error!(target: metrics::RECONCILE_FAILURE, "failed");
            tracing::warn!(target: metrics::REJECTION, "refused");
            tracing::info!(target: metrics::REQUEST, route = "/runs", outcome = "2xx", ms = 3_u64, "answered");
            tracing::info!(target: "other", to = "QUEUED", "said");
        });
        let found: Vec<_> = lines.iter().map(read).collect();
        assert_eq!(
            found,
            [
                vec![of("StateChanges", &["to=QUEUED"], "Count", 1)],
                vec![
                    of("StateChanges", &["to=INITIALIZING"], "Count", 1),
                    of("TimeInState", &["from=RUNNING"], "Milliseconds", 1500),
                    of("Retries", &[], "Count", 1),
                ],
                vec![of("Repairs", &[], "Count", 1)],
                vec![of("ReconcileFailures", &[], "Count", 1)],
                vec![of("Rejections", &[], "Count", 1)],
                vec![],
                vec![],
            ]
        );
    }

    #[test]
    fn requests_are_counted_only_where_that_is_asked_for_and_nothing_where_nothing_is() {
        let request = || {
            tracing::info!(target: metrics::REQUEST, route = "/runs", outcome = "5xx", ms = 3_u64, "answered");
        };
        let all = Metrics::named("all", "stepwes/x".to_owned()).expect("a name");
        assert_eq!(
            read(&logged(all, request)[0]),
            [
                of("Requests", &["route=/runs", "outcome=5xx"], "Count", 1),
                of("RequestTime", &["route=/runs"], "Milliseconds", 3),
            ]
        );
        assert_eq!(Metrics::named("none", "stepwes/x".to_owned()), Ok(None));
        assert!(Metrics::named("some", "stepwes/x".to_owned()).is_err());
        for name in ["", "AWS/x", "a b\n", &"x".repeat(256)] {
            assert!(Metrics::named("runs", name.to_owned()).is_err(), "{name:?}");
        }
    }
}
