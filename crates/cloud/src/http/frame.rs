//! What every request goes through: a request id, one log line, and errors in one shape.

use std::time::Instant;

use axum::{
    Router,
    body::{Body, to_bytes},
    extract::{MatchedPath, Request},
    middleware::{Next, from_fn},
    response::{IntoResponse as _, Response},
};
use http::{Extensions, HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use lambda_http::request::RequestContext;
use stepwes_core::{ApiError, RunId, TraceParent};
use stepwes_log::metrics::REQUEST;
use tracing::{Instrument as _, field};
use uuid::Uuid;

use super::{
    error::{HttpError, Ours},
    routes,
};

/// The answer's header that names the request.
pub const REQUEST_ID_HEADER: HeaderName = HeaderName::from_static("x-request-id");

/// The longest request id that is taken over from a caller.
const MAX_REQUEST_ID: usize = 128;

/// The longest message of the framework's that is passed on, in bytes.
const MAX_MESSAGE: usize = 4096;

/// What names the request in the log and in the answer; a request extension.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestId(pub String);

/// The run that a request was about, for the log line: an answer's extension, set by handlers
/// whose path does not name it.
#[derive(Clone, Copy, Debug)]
pub struct LoggedRun(pub RunId);

/// Puts the frame around the routes of one function, or of all of them. To be applied once, last.
pub fn frame(router: Router) -> Router {
    router.layer(from_fn(framed))
}

async fn framed(mut request: Request, next: Next) -> Response {
    let started = Instant::now();
    let id = request_id(request.extensions(), request.headers());
    let method = request.method().clone();
    let path = request.uri().path().to_owned();
    let matched =
        request.extensions().get::<MatchedPath>().map_or("none", MatchedPath::as_str).to_owned();
    request.extensions_mut().insert(RequestId(id.clone()));
    let trace = trace_of(request.headers());
    request.extensions_mut().insert(trace);

    // As an error, so that what is logged has its ids whatever the filter leaves out.
    let span = tracing::error_span!(
        "request",
        request_id = %id,
        trace_id = trace.trace_id(),
        run_id = run_in(&path).map(field::display),
    );
    let mut response = async {
        let response = in_our_shape(next.run(request).await, &method, &path).await;
        let status = response.status();
        tracing::info!(
            target: REQUEST,
            method = %method,
            route = matched,
            status = status.as_u16(),
            outcome = outcome(status),
            ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX),
            run_id = response.extensions().get::<LoggedRun>().map(|run| field::display(run.0)),
            "answered"
        );
        response
    }
    .instrument(span)
    .await;

    if let Ok(value) = HeaderValue::from_str(&id) {
        response.headers_mut().insert(REQUEST_ID_HEADER, value);
    }
    let headers = response.headers_mut();
    // Answers are about one caller's runs, and run states change: nobody may keep them.
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    // A log is what a workflow wrote: no browser may take it for a page.
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

/// The hundred that a status belongs to: a metric for each status would cost more than it tells.
fn outcome(status: StatusCode) -> &'static str {
    match status.as_u16() / 100 {
        2 => "2xx",
        3 => "3xx",
        4 => "4xx",
        _ => "5xx",
    }
}

/// API Gateway's name for the request, else the caller's, else the trace's, else a new one.
fn request_id(extensions: &Extensions, headers: &HeaderMap) -> String {
    let gateway = extensions.get::<RequestContext>().and_then(|context| match context {
        RequestContext::ApiGatewayV2(context) => context.request_id.clone(),
        _ => None,
    });
    let given = |name: &str| {
        headers
            .get(name)
            .and_then(|value| value.to_str().ok())
            .filter(|id| {
                !id.is_empty()
                    && id.len() <= MAX_REQUEST_ID
                    && id.bytes().all(|byte| byte.is_ascii_graphic())
            })
            .map(str::to_owned)
    };
    gateway
        .or_else(|| given("x-request-id"))
        .or_else(|| given("x-amzn-trace-id"))
        .unwrap_or_else(|| Uuid::new_v4().to_string())
}

/// The trace that the caller names by W3C's header; else X-Ray's, which Lambda sets; else a new one.
fn trace_of(headers: &HeaderMap) -> TraceParent {
    // W3C: more than one header, or one that cannot be read, is none.
    let mut given = headers.get_all("traceparent").iter();
    let given = given.next().filter(|_| given.next().is_none());
    let xray = || TraceParent::from_xray(headers.get("x-amzn-trace-id")?.to_str().ok()?);
    given
        .and_then(|value| value.to_str().ok()?.parse().ok())
        .or_else(xray)
        .unwrap_or_else(TraceParent::generate)
}

/// The run id in a path, for the log.
fn run_in(path: &str) -> Option<RunId> {
    path.split('/').find_map(|part| part.parse().ok())
}

/// Turns an error of the framework (an unknown path, a wrong method, an extractor's refusal) into
/// WES's `ErrorResponse`.
async fn in_our_shape(response: Response, method: &Method, path: &str) -> Response {
    let status = response.status();
    if !(status.is_client_error() || status.is_server_error())
        || response.extensions().get::<Ours>().is_some()
    {
        return response;
    }
    let allowed = routes::allowed(path);
    let shown: String = path.chars().take(200).collect();
    let error = match (status, allowed) {
        (StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED, Some(methods)) => {
            ApiError::MethodNotAllowed(format!(
                "{shown:?} does not take {method}; it takes {methods}"
            ))
        }
        (StatusCode::NOT_FOUND, None) => ApiError::NotFound(format!(
            "there is nothing at {shown:?}; the API is below {}",
            stepwes_core::wes::BASE_PATH
        )),
        _ => {
            let text = to_bytes(response.into_body(), MAX_MESSAGE).await.unwrap_or_default();
            let text = String::from_utf8_lossy(&text).into_owned();
            match status {
                StatusCode::METHOD_NOT_ALLOWED => {
                    ApiError::MethodNotAllowed(format!("{shown:?} does not take {method}"))
                }
                StatusCode::PAYLOAD_TOO_LARGE => ApiError::PayloadTooLarge(text),
                StatusCode::UNSUPPORTED_MEDIA_TYPE => ApiError::UnsupportedMediaType(text),
                _ if status.is_client_error() => ApiError::BadRequest(text),
                _ => {
                    tracing::error!(status = status.as_u16(), text, "the framework failed");
                    ApiError::Internal("an error of this service; its log has the cause".to_owned())
                }
            }
        }
    };
    let is_405 = matches!(error, ApiError::MethodNotAllowed(_));
    let mut framed = HttpError::from(error);
    if let (true, Some(methods)) = (is_405, allowed) {
        framed = framed.with_header(header::ALLOW, HeaderValue::from_static(methods));
    }
    let mut response = framed.into_response();
    if method == Method::HEAD {
        *response.body_mut() = Body::empty();
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::{Json, routing::get};
    use serde_json::{Value, json};
    use stepwes_log::{Metrics, captured::Captured};
    use tower::ServiceExt as _;

    async fn ask(method: &str, path: &str, body: &str) -> (Response, Value) {
        let router = Router::new()
            .route(
                routes::RUNS,
                get(|| async { "runs" }).post(|Json(body): Json<Value>| async { Json(body) }),
            )
            .route("/fails", get(|| async { (StatusCode::BAD_GATEWAY, "an inside secret") }));
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("x-request-id", "mine")
            .header("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")
            .header("authorization", "Bearer name.s3cret")
            .body(Body::from(body.to_owned()))
            .expect("a request");
        let response = frame(router).oneshot(request).await.expect("infallible");
        let (parts, body) = response.into_parts();
        let body = to_bytes(body, usize::MAX).await.expect("a body");
        let value = serde_json::from_slice(&body).unwrap_or(Value::Null);
        (Response::from_parts(parts, Body::empty()), value)
    }

    #[tokio::test]
    async fn every_error_of_the_framework_has_our_shape() {
        let long = format!("/{}", "x".repeat(5000));
        for (method, path, status, part) in [
            ("GET", "/nothing", 404, "there is nothing at"),
            ("GET", long.as_str(), 404, "there is nothing at"),
            ("PUT", "/ga4gh/wes/v1/runs", 405, "it takes GET, HEAD, POST"),
            ("GET", "/ga4gh/wes/v1/runs/x/cancel", 405, "it takes POST"),
            ("POST", "/fails", 405, "does not take POST"),
            ("POST", "/ga4gh/wes/v1/runs", 415, "Content-Type"),
            ("GET", "/fails", 500, "its log has the cause"),
        ] {
            let (response, body) = ask(method, path, "").await;
            assert_eq!(response.status(), status, "{method} {path}");
            assert_eq!(body["status_code"], status, "{method} {path}");
            let msg = body["msg"].as_str().expect("a message");
            assert!(msg.contains(part) && !msg.contains("secret") && msg.len() < 400, "{msg}");
            assert_eq!(response.headers()[header::CONTENT_TYPE], "application/json");
            assert_eq!(response.headers()["x-request-id"], "mine");
            assert_eq!(response.headers()["x-content-type-options"], "nosniff");
        }
    }

    #[tokio::test]
    async fn a_wrong_method_is_told_the_right_ones() {
        let (response, _) = ask("DELETE", "/ga4gh/wes/v1/runs", "").await;
        assert_eq!(response.headers()[header::ALLOW], "GET, HEAD, POST");
        let (response, _) = ask("GET", "/ga4gh/wes/v1/runs/x/cancel", "").await;
        assert_eq!(response.headers()[header::ALLOW], "POST");
    }

    #[tokio::test]
    async fn head_is_answered_where_get_is_and_without_a_body() {
        let (response, body) = ask("HEAD", "/ga4gh/wes/v1/runs", "").await;
        assert_eq!((response.status(), body), (StatusCode::OK, json!(null)));
        let (response, body) = ask("HEAD", "/nothing", "").await;
        assert_eq!((response.status(), body), (StatusCode::NOT_FOUND, json!(null)));
    }

    #[tokio::test]
    async fn every_request_has_one_line_with_its_ids_and_none_of_its_secrets() {
        let run = "019b7d2e-8f88-7000-8000-000000000001";
        let log = Captured::default();
        let all = Metrics::named("all", "stepwes/test".to_owned()).expect("a name");
        let _guard = tracing::subscriber::set_default(log.subscriber(all));
        for (method, path, route, status) in [
            ("GET", "/ga4gh/wes/v1/runs", routes::RUNS, 200),
            ("POST", "/ga4gh/wes/v1/runs", routes::RUNS, 415),
            ("GET", "/fails", "/fails", 500),
            ("GET", &format!("/ga4gh/wes/v1/runs/{run}"), "none", 405),
        ] {
            ask(method, &format!("{path}?token=s3cret"), "s3cret").await;
            let text = log.take_text();
            assert!(!text.contains("s3cret"), "{text}");
            let lines: Vec<Value> =
                text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
            let told: Vec<_> = lines.iter().filter(|line| line["target"] == REQUEST).collect();
            let [told] = told.as_slice() else { panic!("one line a request: {text}") };
            let expected =
                json!({"message": "answered", "method": method, "route": route, "status": status});
            for (name, value) in expected.as_object().expect("an object") {
                assert_eq!(&told[name], value, "{path}");
            }
            let outcome = format!("{}xx", status / 100);
            assert_eq!((&told["outcome"], &told["Requests"]), (&json!(outcome), &json!(1)));
            assert!(told["ms"].is_u64() && told["RequestTime"].is_u64());
            for line in &lines {
                assert_eq!(line["request_id"], "mine", "{line}");
                assert_eq!(line["trace_id"], "4bf92f3577b34da6a3ce929d0e0e4736", "{line}");
                assert_eq!(line["run_id"] == run, path.ends_with(run), "{line}");
            }
        }
    }

    #[test]
    fn the_callers_trace_goes_before_x_rays_and_a_bad_one_is_none() {
        let w3c = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let xray = "Root=1-5759e988-bd862e3fe1be46a994272793;Parent=53995c3f42cd8ad8;Sampled=1";
        let of = |given: &[(&'static str, &str)]| {
            let mut headers = HeaderMap::new();
            for (name, value) in given {
                headers.append(*name, HeaderValue::from_str(value).expect("a header"));
            }
            trace_of(&headers).trace_id()
        };
        let (parent, amazon) = (("traceparent", w3c), ("x-amzn-trace-id", xray));
        let by_xray = "5759e988bd862e3fe1be46a994272793";
        assert_eq!(of(&[parent, amazon]), "4bf92f3577b34da6a3ce929d0e0e4736");
        assert_eq!(of(&[amazon]), by_xray);
        assert_eq!(of(&[("traceparent", "00-x"), amazon]), by_xray);
        assert_eq!(of(&[parent, parent, amazon]), by_xray, "two are none");
        assert_ne!(of(&[]), of(&[]), "each has a new one");
    }

    #[test]
    fn a_request_id_is_taken_over_only_when_it_can_stand_in_a_log() {
        let id = |name: &'static str, value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(name, HeaderValue::from_str(value).expect("a header"));
            request_id(&Extensions::new(), &headers)
        };
        assert_eq!(id("x-request-id", "abc-1"), "abc-1");
        assert_eq!(id("x-amzn-trace-id", "Root=1-2"), "Root=1-2");
        for bad in ["", "a b", "\u{e9}", &"x".repeat(200)] {
            assert_eq!(id("x-request-id", bad).len(), 36, "{bad:?}");
        }
    }
}
