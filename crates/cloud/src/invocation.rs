//! What every invocation of a function goes through that is not the API's: a span with what its
//! lines have in common, and one line that tells it.

use std::time::Instant;

use serde_json::Value;
use stepwes_core::{Run, RunId, TraceParent};
use tracing::{Instrument as _, Span, field};

/// The target of the lines.
const INVOCATION: &str = "stepwes::invocation";

/// Who is invoked, and what for.
#[derive(Clone, Debug)]
pub struct Invocation {
    function: String,
    request_id: String,
    trace: Option<TraceParent>,
    run_id: Option<RunId>,
    attempt: Option<u64>,
}

impl Invocation {
    /// Of a function, by Lambda's name for the invocation, with X-Ray's trace where Lambda tells
    /// one. Of the event, run and attempt are logged and nothing else; and these only where they
    /// are of our form, since whoever invokes report may send anything.
    #[must_use]
    pub fn new(
        function: &str,
        request_id: &str,
        trace: Option<TraceParent>,
        event: &Value,
    ) -> Self {
        Self {
            function: function.to_owned(),
            request_id: request_id.to_owned(),
            trace,
            run_id: event.get("run_id").and_then(Value::as_str).and_then(|id| id.parse().ok()),
            attempt: event.get("attempt").and_then(Value::as_u64),
        }
    }

    /// Does `work` in the invocation's span, and logs how it came out; `tell` gives a failure's
    /// type and message, as Lambda tells them.
    pub async fn logged<O, X>(
        self,
        tell: impl FnOnce(&X) -> (String, String),
        work: impl Future<Output = Result<O, X>>,
    ) -> Result<O, X> {
        let started = Instant::now();
        // As an error, so that what is logged has its ids whatever the filter leaves out.
        let span = tracing::error_span!(
            "invocation",
            function = self.function,
            request_id = self.request_id,
            trace_id = field::Empty,
            run_id = self.run_id.map(field::display),
            attempt = self.attempt,
        );
        if let Some(trace) = self.trace {
            span.record("trace_id", trace.trace_id());
        }
        async {
            let done = work.await;
            let ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
            match &done {
                Ok(_) => tracing::info!(target: INVOCATION, ms, "invoked"),
                Err(failure) => {
                    let (error_type, error) = tell(failure);
                    tracing::warn!(target: INVOCATION, ms, error_type, error, "invoked");
                }
            }
            done
        }
        .instrument(span)
        .await
    }
}

/// Says that the present invocation is about that run: its lines have the run's trace from now on.
pub fn is_about(run: &Run) {
    if let Some(trace) = run.trace {
        Span::current().record("trace_id", trace.trace_id());
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use stepwes_log::captured::Captured;

    use super::*;

    async fn invoked(event: &Value, fails: bool) -> (Vec<Value>, String) {
        let log = Captured::default();
        let _guard = tracing::subscriber::set_default(log.subscriber(None));
        let xray = TraceParent::from_xray("Root=1-5759e988-bd862e3fe1be46a994272793");
        let work = async {
            tracing::info!("at work");
            if fails { Err("no") } else { Ok(()) }
        };
        let tell = |failure: &&str| ("Stepwes.Internal".to_owned(), (*failure).to_owned());
        let done = Invocation::new("report", "r1", xray, event).logged(tell, work).await;
        assert_eq!(done.is_err(), fails);
        let text = log.take_text();
        (text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect(), text)
    }

    #[tokio::test]
    async fn an_invocation_has_one_line_and_all_its_lines_say_what_it_is_about() {
        let run = "019b7d2e-8f88-7000-8000-000000000001";
        let event = json!({"run_id": run, "attempt": 2, "token": "s3cret", "task_arn": "arn:x"});
        for fails in [false, true] {
            let (lines, text) = invoked(&event, fails).await;
            assert!(!text.contains("s3cret"), "{text}");
            let told: Vec<_> = lines.iter().filter(|line| line["target"] == INVOCATION).collect();
            let [told] = told.as_slice() else { panic!("one line: {text}") };
            assert_eq!((&told["message"], told["ms"].is_u64()), (&json!("invoked"), true));
            assert_eq!(told["level"], if fails { "WARN" } else { "INFO" });
            let failure = (told.get("error_type"), told.get("error"));
            let (error_type, error) = (json!("Stepwes.Internal"), json!("no"));
            let expected = if fails { (Some(&error_type), Some(&error)) } else { (None, None) };
            assert_eq!(failure, expected);
            assert_eq!(lines.len(), 2);
            for line in lines {
                assert_eq!(line["function"], "report");
                assert_eq!(line["request_id"], "r1");
                assert_eq!((&line["run_id"], &line["attempt"]), (&json!(run), &json!(2)));
                assert_eq!(line["trace_id"], "5759e988bd862e3fe1be46a994272793");
            }
        }
    }

    #[tokio::test]
    async fn what_is_no_run_or_attempt_does_not_get_into_the_log() {
        for event in
            [json!({"run_id": "s3cret", "attempt": "s3cret"}), json!(["s3cret"]), json!(null)]
        {
            let (lines, text) = invoked(&event, false).await;
            assert!(!text.contains("s3cret"), "{text}");
            assert!(lines.iter().all(|line| line.get("run_id").is_none()), "{text}");
        }
    }
}
