//! How a function starts: tracing, then the Lambda runtime.

use std::{fmt::Debug, future::Future};

use axum::{Router, response::Response};
use http::{HeaderValue, Uri, header};
use lambda_http::{Request, RequestExt as _, request::RequestContext};
use lambda_runtime::{Context, Error, LambdaEvent};
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;
use stepwes_core::TraceParent;
use stepwes_log::{Lines, Metrics};
use tower::ServiceExt as _;
use tracing_subscriber::{
    filter::{LevelFilter, Targets},
    layer::SubscriberExt as _,
    util::SubscriberInitExt as _,
};

use crate::{
    env::{self, SettingError},
    http::{StagePrefix, frame},
    invocation::Invocation,
    step::StepFailure,
};

/// The variable that sets what is logged: a level (`debug`), or targets with levels
/// (`stepwes_store=trace,info`). `RUST_LOG` is read when it is not set.
pub const LOG: &str = "STEPWES_LOG";

/// The variable that says which metrics are made: `none`, `runs`, or `all`, which has requests by
/// route, too.
pub const METRICS: &str = "STEPWES_METRICS";
/// The variable that names CloudWatch's namespace for them.
pub const METRICS_NAMESPACE: &str = "STEPWES_METRICS_NAMESPACE";

/// What is logged unless the environment says otherwise.
const DEFAULT_LOG: &str = "warn,stepwes=info";

/// Sends log lines to standard output ([`stepwes_log`]), with the metrics that are asked for.
///
/// # Errors
/// [`SettingError`] when `STEPWES_LOG`, `RUST_LOG` or `STEPWES_METRICS` cannot be read, or there
/// is no namespace for metrics.
pub fn init_tracing() -> Result<(), SettingError> {
    let layer = Lines::new(std::io::stdout).with_metrics(metrics()?);
    // A second call, as in tests, changes nothing.
    let _already_there = tracing_subscriber::registry().with(layer).with(log_targets()?).try_init();
    Ok(())
}

/// The metrics that `STEPWES_METRICS` asks for; none when it is not set.
fn metrics() -> Result<Option<Metrics>, SettingError> {
    match env::optional(METRICS).as_deref() {
        None | Some("none") => Ok(None),
        Some(name) => Metrics::named(name, env::required(METRICS_NAMESPACE)?)
            .map_err(|why| SettingError::Unreadable { name: METRICS, why }),
    }
}

/// What `STEPWES_LOG`, else `RUST_LOG`, says is logged.
///
/// # Errors
/// [`SettingError`] when it cannot be read.
pub fn log_targets() -> Result<Targets, SettingError> {
    let (name, value) = match (env::optional(LOG), env::optional("RUST_LOG")) {
        (Some(value), _) => (LOG, value),
        (None, Some(value)) => ("RUST_LOG", value),
        (None, None) => (LOG, DEFAULT_LOG.to_owned()),
    };
    targets(&value).map_err(|why| SettingError::Unreadable { name, why })
}

/// Reads a level, or targets with levels. `stepwes` stands for all our crates.
fn targets(text: &str) -> Result<Targets, String> {
    match text.parse::<LevelFilter>() {
        Ok(level) => Ok(Targets::new().with_default(level)),
        Err(_) => text.parse::<Targets>().map_err(|error| error.to_string()),
    }
}

/// Serves the routes of one API function, in their frame, to API Gateway.
///
/// # Errors
/// When the Lambda runtime cannot be reached.
pub async fn run_api(router: Router) -> Result<(), Error> {
    let service = frame(router).map_request(restore_path).map_response(keep_bytes);
    lambda_http::run(service).await
}

/// The trace that the present invocation belongs to: X-Ray's, which Lambda's runtime tells in
/// `_X_AMZN_TRACE_ID`; a new one where it tells none.
/// <https://docs.aws.amazon.com/lambda/latest/dg/configuration-envvars.html#configuration-envvars-runtime>
#[must_use]
pub fn invocation_trace() -> TraceParent {
    env::optional("_X_AMZN_TRACE_ID")
        .and_then(|header| TraceParent::from_xray(&header))
        .unwrap_or_else(TraceParent::generate)
}

/// What a URL's path holds as it is; the rest is percent-encoded. `%` is among it: see below.
const NOT_IN_PATHS: &AsciiSet = &CONTROLS
    .add(b' ')
    .add(b'"')
    .add(b'#')
    .add(b'<')
    .add(b'>')
    .add(b'?')
    .add(b'`')
    .add(b'{')
    .add(b'}');

/// Gives a request the path that the caller asked for.
///
/// An HTTP API decodes the path once before it hands it over (`rawPath`), so that a `#` or a blank
/// in an output's name would end or spoil it; what cannot stand in a path is encoded again. A `%`
/// that begins no escape is encoded too; one that does is left, since Lambda function URLs and
/// emulators do not decode. The stage's name before the path, present unless the stage is
/// `$default`, is taken off and kept as [`StagePrefix`].
#[must_use]
pub fn restore_path(mut request: Request) -> Request {
    let mut raw = request.raw_http_path().to_owned();
    if let Some(RequestContext::ApiGatewayV2(context)) = request.request_context_ref()
        && let Some(stage) = context.stage.as_deref().filter(|stage| *stage != "$default")
        && let Some(rest) = raw.strip_prefix(&format!("/{stage}"))
        && (rest.is_empty() || rest.starts_with('/'))
    {
        let prefix = StagePrefix(format!("/{stage}"));
        raw = if rest.is_empty() { "/".to_owned() } else { rest.to_owned() };
        request.extensions_mut().insert(prefix);
    }
    if !raw.starts_with('/') {
        raw.insert(0, '/');
    }
    let mut path = String::with_capacity(raw.len());
    for (at, part) in raw.split('%').enumerate() {
        if at > 0 {
            let escape = part.as_bytes().get(..2);
            let is_escape = escape.is_some_and(|hex| hex.iter().all(u8::is_ascii_hexdigit));
            path.push_str(if is_escape { "%" } else { "%25" });
        }
        path.extend(utf8_percent_encode(part, NOT_IN_PATHS));
    }
    // A `#` in the path made a fragment of the query; the parameters are kept apart as well.
    let query = match request.uri().query() {
        Some(query) => query.to_owned(),
        None => request.query_string_parameters().to_query_string(),
    };
    if !query.is_empty() {
        path.push('?');
        path.push_str(&query);
    }
    if let Ok(uri) = path.parse::<Uri>() {
        *request.uri_mut() = uri;
    }
    request
}

/// Keeps plain text byte for byte. lambda_http would decode it as UTF-8, and a log, or a piece of
/// one that was cut by a range, need not be that; it sends as Base64 what names an encoding.
pub(crate) fn keep_bytes(mut response: Response) -> Response {
    let is_text = response
        .headers()
        .get(header::CONTENT_TYPE)
        .is_some_and(|value| value.as_bytes().starts_with(b"text/"));
    if is_text {
        response
            .headers_mut()
            .entry(header::CONTENT_ENCODING)
            .or_insert(HeaderValue::from_static("identity"));
    }
    response
}

/// Serves a function that the state machine, the engine task or the schedule invokes: the event
/// as JSON in, the answer as JSON out, a [`StepFailure`] as an error with its stable type.
///
/// # Errors
/// When the Lambda runtime cannot be reached.
pub async fn run_step<E, O, F, A>(handler: F) -> Result<(), Error>
where
    E: DeserializeOwned,
    O: Serialize + Debug,
    F: Fn(E) -> A,
    A: Future<Output = Result<O, StepFailure>>,
{
    let handler = &handler;
    lambda_runtime::run(lambda_runtime::service_fn(move |event: LambdaEvent<Value>| async move {
        let LambdaEvent { payload, context } = event;
        let tell = |failure: &StepFailure| (failure.error_type().to_owned(), failure.to_string());
        invocation(&context, &payload).logged(tell, step(payload, handler)).await
    }))
    .await
}

/// What is logged of an invocation.
pub(crate) fn invocation(context: &Context, event: &Value) -> Invocation {
    let trace = context.xray_trace_id.as_deref().and_then(TraceParent::from_xray);
    Invocation::new(&context.env_config.function_name, &context.request_id, trace, event)
}

/// One invocation: the event read, the handler run.
async fn step<E, O, F, A>(event: Value, handler: &F) -> Result<O, StepFailure>
where
    E: DeserializeOwned,
    F: Fn(E) -> A,
    A: Future<Output = Result<O, StepFailure>>,
{
    let event = serde_json::from_value(event).map_err(|error| {
        StepFailure::Internal(format!(
            "the event is not of the form that this function takes: {error}"
        ))
    })?;
    handler(event).await
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use axum::extract::Query;
    use http::StatusCode;
    use serde_json::json;
    use tracing::Level;

    fn restored(raw_path: &str, query: &str, stage: &str) -> Request {
        let event = json!({
            "version": "2.0", "routeKey": "$default", "rawPath": raw_path, "rawQueryString": query,
            "headers": {"host": "example.org"}, "isBase64Encoded": false,
            "requestContext": {
                "http": {"method": "GET", "path": raw_path}, "stage": stage, "timeEpoch": 0,
            },
        });
        let request = lambda_http::request::from_str(&event.to_string()).expect("an event");
        restore_path(request)
    }

    #[test]
    fn a_path_that_api_gateway_has_decoded_is_encoded_again() {
        for (raw, expected) in [
            ("/a/b", "/a/b"),
            ("/a b/c#d", "/a%20b/c%23d"),
            ("/ü", "/%C3%BC"),
            ("/50%", "/50%25"),
            ("/50% of", "/50%25%20of"),
            ("/100%ag", "/100%25ag"),
            ("/a%20b", "/a%20b"),
            ("/a\"<b>{c}", "/a%22%3Cb%3E%7Bc%7D"),
            ("/../x", "/../x"),
            ("", "/"),
        ] {
            let request = restored(raw, "x=%20&y=1", "$default");
            assert_eq!(request.uri().path(), expected, "{raw}");
            let query: Query<BTreeMap<String, String>> =
                Query::try_from_uri(request.uri()).expect("a query");
            let read: Vec<_> = query.iter().map(|(name, value)| (&**name, &**value)).collect();
            assert_eq!(read, [("x", " "), ("y", "1")], "{raw}");
        }
    }

    #[test]
    fn a_stage_before_the_path_is_taken_off_and_kept_for_urls() {
        for (raw, stage, path, prefix) in [
            ("/prod/ga4gh", "prod", "/ga4gh", Some("/prod")),
            ("/prod", "prod", "/", Some("/prod")),
            ("/production/x", "prod", "/production/x", None),
            ("/ga4gh", "prod", "/ga4gh", None),
            ("/ga4gh", "$default", "/ga4gh", None),
        ] {
            let request = restored(raw, "", stage);
            assert_eq!(request.uri().path(), path, "{raw}");
            let kept = request.extensions().get::<StagePrefix>().map(|prefix| prefix.0.as_str());
            assert_eq!(kept, prefix, "{raw}");
        }
    }

    #[test]
    fn text_is_sent_byte_for_byte_and_json_as_it_is() {
        let keep = |content_type: &str| {
            let response = http::Response::builder()
                .status(StatusCode::OK)
                .header(header::CONTENT_TYPE, content_type)
                .body(axum::body::Body::empty())
                .expect("a response");
            keep_bytes(response).headers().get(header::CONTENT_ENCODING).cloned()
        };
        assert_eq!(keep("text/plain; charset=utf-8").expect("an encoding"), "identity");
        assert_eq!(keep("application/json"), None);
    }

    #[test]
    fn a_log_level_stands_alone_or_with_its_targets() {
        let debug = targets("debug").expect("a level");
        assert!(debug.would_enable("anything", &Level::DEBUG));
        let default = targets(DEFAULT_LOG).expect("targets");
        assert!(default.would_enable("stepwes_cloud::http", &Level::INFO));
        assert!(!default.would_enable("hyper", &Level::INFO));
        let some = targets("stepwes_store=trace,off").expect("targets");
        assert!(some.would_enable("stepwes_store", &Level::TRACE));
        assert!(!some.would_enable("hyper", &Level::ERROR));
        assert!(targets("stepwes=loud").is_err());
    }

    #[tokio::test]
    async fn a_step_fails_by_its_name_also_when_its_event_cannot_be_read() {
        let double = |n: u32| async move {
            n.checked_mul(2).ok_or_else(|| StepFailure::StaleAttempt("too much".to_owned()))
        };
        assert_eq!(step(json!(2), &double).await, Ok(4));
        let failed = step(json!(u32::MAX), &double).await.expect_err("too much");
        assert_eq!(failed.error_type(), "Stepwes.StaleAttempt");
        let unread = step::<u32, _, _, _>(json!("x"), &double).await.expect_err("no number");
        assert_eq!(unread.error_type(), "Stepwes.Internal");
    }
}
