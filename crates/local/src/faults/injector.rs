//! The place that every call passes where faults are injected.

use std::{
    borrow::Cow,
    collections::{BTreeMap, HashMap},
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use axum::body::Body;
use bytes::Bytes;
use chrono::{DateTime, TimeDelta, Utc};
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Limited};
use serde_json::{Value, json};
use stepwes_core::Clock;
use tokio_util::sync::CancellationToken;

use super::{
    Fault, FaultPlan, FaultyCall, When,
    answers::{error, torn, torn_body, unanswered},
};
use crate::{aws_error::answer, lambda::name};

/// The most of a request that is kept, to be carried out later or twice, in bytes.
const MOST_KEPT: usize = 64 << 20;

tokio::task_local! {
    /// The invocation that calls are made by.
    static INVOCATION: Invocation;
}

#[derive(Clone)]
struct Invocation {
    function: &'static str,
    /// The run that it is about, or nothing.
    run: Arc<str>,
    /// Cancelled when the function is killed.
    killed: CancellationToken,
}

/// Asks the plan about each call, and does what it says.
pub(crate) struct Injector {
    plan: Arc<dyn FaultPlan>,
    seen: Mutex<Seen>,
}

#[derive(Default)]
struct Seen {
    /// How runs are called, by their ids.
    runs: HashMap<String, Arc<str>>,
    /// How many calls there were of each service, operation and run.
    calls: HashMap<(String, String, Arc<str>), u64>,
    /// How many faults there were of each service and kind.
    faults: BTreeMap<String, u64>,
}

impl fmt::Debug for Injector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Injector").field("plan", &self.plan).finish_non_exhaustive()
    }
}

impl Injector {
    pub(crate) fn new(plan: Arc<dyn FaultPlan>) -> Arc<Self> {
        Arc::new(Self { plan, seen: Mutex::default() })
    }

    /// How many faults there were so far, by `<service>: <kind>`.
    pub(crate) fn counts(&self) -> BTreeMap<String, u64> {
        self.seen().faults.clone()
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How the run is called whose id is the first in one of these texts, else the one that the
    /// calling function is about; empty when there is neither. A run that was not seen before is
    /// called as what is asked for it, else by its number.
    pub(crate) fn run_in(&self, texts: &[&[u8]]) -> Arc<str> {
        let of_function = INVOCATION.try_with(|invocation| Arc::clone(&invocation.run)).ok();
        let of_function = of_function.filter(|run| !run.is_empty());
        let Some(id) = texts.iter().find_map(|text| run_id(text)) else {
            return of_function.unwrap_or_default();
        };
        let mut seen = self.seen();
        let number = seen.runs.len();
        let run = seen.runs.entry(id.to_owned());
        let run =
            run.or_insert_with(|| of_function.unwrap_or_else(|| format!("run {number}").into()));
        Arc::clone(run)
    }

    /// What goes wrong with a call about that run.
    pub(crate) fn decide(&self, service: &str, operation: &str, run: &Arc<str>) -> Option<Fault> {
        let function = INVOCATION.try_with(|invocation| invocation.function).ok();
        let nth = {
            let mut seen = self.seen();
            let key = (service.to_owned(), operation.to_owned(), Arc::clone(run));
            let count = seen.calls.entry(key).or_default();
            *count += 1;
            *count - 1
        };
        let call = FaultyCall { service, operation, function, run, nth };
        let fault = self.plan.fault(&call)?;
        let name = fault.name();
        tracing::info!(
            service,
            operation,
            run = &**run,
            nth,
            function,
            fault = name,
            "a fault is injected"
        );
        *self.seen().faults.entry(format!("{service}: {name}")).or_default() += 1;
        Some(fault)
    }

    /// Answers one request of a service, or lets it go wrong. `carry_out` does what it asks for.
    pub(crate) async fn around<C, A>(
        &self,
        service: &str,
        operation: &str,
        request: Request<Body>,
        carry_out: C,
    ) -> Response<Body>
    where
        C: Fn(Request<Body>) -> A + Send + 'static,
        A: Future<Output = Response<Body>> + Send + 'static,
    {
        // Files are not kept in memory, nor is a run's id looked for in them.
        let (request, body) = if service == "s3" {
            (request, None)
        } else {
            let Some((request, body)) = keep(request).await else { return unanswered() };
            (request, Some(body))
        };
        let texts = [request.uri().path().as_bytes(), body.as_deref().unwrap_or_default()];
        let run = self.run_in(&texts);
        match self.decide(service, operation, &run) {
            None => carry_out(request).await,
            Some(fault) => act(fault, (service, operation), request, body, carry_out).await,
        }
    }

    /// Answers a caller of the API through its gateway, or lets that go wrong.
    pub(crate) async fn api<C, A>(&self, request: Request<Body>, carry_out: C) -> Response<Body>
    where
        C: Fn(Request<Body>) -> A + Send + 'static,
        A: Future<Output = Response<Body>> + Send + 'static,
    {
        let path = request.uri().path();
        let id = run_id(path.as_bytes());
        let route = id.map_or(Cow::from(path), |id| path.replace(id, "{run_id}").into());
        let operation = format!("{} {route}", request.method());
        let key = request.headers().get("idempotency-key").and_then(|key| key.to_str().ok());
        let run = key.map_or_else(|| self.run_in(&[path.as_bytes()]), Arc::from);
        let of_function = Arc::clone(&run);
        let function = match *request.method() {
            Method::DELETE => "stepwes-cancel",
            Method::POST if path.ends_with("/cancel") => "stepwes-cancel",
            Method::POST => name::SUBMIT,
            _ => "stepwes-status",
        };
        let carry_out = move |request| {
            let invoked = invocation(function, Arc::clone(&of_function), carry_out(request));
            async move {
                invoked.await.unwrap_or_else(|| {
                    // What API Gateway answers for a function that ends without an answer.
                    let message = json!({"message": "Internal Server Error"}).to_string();
                    answer(StatusCode::INTERNAL_SERVER_ERROR, "application/json", message)
                })
            }
        };
        match self.decide("apigateway", &operation, &run) {
            None => carry_out(request).await,
            Some(fault) => act(fault, ("apigateway", &operation), request, None, carry_out).await,
        }
    }

    /// Runs one invocation of a function; `None` when it was killed at one of its calls.
    pub(crate) async fn invoke<T>(
        &self,
        function: &'static str,
        event: &[u8],
        work: impl Future<Output = T>,
    ) -> Option<T> {
        invocation(function, self.run_in(&[event]), work).await
    }

    /// How often an event for that function is delivered that nobody waits for: it may be lost, or
    /// come twice.
    pub(crate) fn deliveries(&self, function: &str, event: &Value) -> usize {
        let run = self.run_in(&[event.to_string().as_bytes()]);
        match self.decide("lambda", function, &run) {
            None
            | Some(
                Fault::Slow(_)
                | Fault::Failed(When::After)
                | Fault::Unanswered(When::After)
                | Fault::TornAnswer
                | Fault::Dies(When::After),
            ) => 1,
            Some(Fault::Twice | Fault::Late(_)) => 2,
            Some(_) => 0,
        }
    }
}

/// A clock that is wrong by this much.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SkewedClock(pub(crate) TimeDelta);

impl Clock for SkewedClock {
    fn now(&self) -> DateTime<Utc> {
        Utc::now() + self.0
    }
}

/// Lets a request go wrong. `body` is its body, where that is known.
async fn act<C, A>(
    fault: Fault,
    (service, operation): (&str, &str),
    request: Request<Body>,
    body: Option<Bytes>,
    carry_out: C,
) -> Response<Body>
where
    C: Fn(Request<Body>) -> A + Send + 'static,
    A: Future<Output = Response<Body>> + Send + 'static,
{
    let refused = || {
        error(service, operation, fault, body.as_deref().unwrap_or_default())
            .unwrap_or_else(unanswered)
    };
    match fault {
        Fault::Throttled | Fault::Skewed | Fault::Failed(When::Before) => refused(),
        Fault::Failed(When::After) => {
            drop(carry_out(request).await);
            refused()
        }
        Fault::Unanswered(When::Before) => unanswered(),
        Fault::Unanswered(When::After) => {
            drop(carry_out(request).await);
            unanswered()
        }
        Fault::Late(by) => {
            if let Some((request, _)) = keep(request).await {
                tokio::spawn(async move {
                    tokio::time::sleep(by).await;
                    drop(carry_out(request).await);
                });
            }
            unanswered()
        }
        Fault::Slow(by) => {
            tokio::time::sleep(by).await;
            carry_out(request).await
        }
        Fault::TornAnswer => torn(carry_out(request).await),
        Fault::TornRequest => {
            let length = request.headers().get(header::CONTENT_LENGTH);
            let length = length.and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
            let half = length.unwrap_or_default() / 2;
            // One that has been read is whole, and one without a body cannot be torn.
            if body.is_none() && half > 0 {
                drop(carry_out(request.map(|body| torn_body(body, half))).await);
            }
            unanswered()
        }
        Fault::Dies(when) => {
            if when == When::After {
                drop(carry_out(request).await);
            }
            let Ok(killed) = INVOCATION.try_with(|invocation| invocation.killed.clone()) else {
                return unanswered();
            };
            killed.cancel();
            std::future::pending().await
        }
        Fault::Twice if service == "lambda" => {
            match body.as_ref().and_then(|body| again(&request, body.clone())) {
                Some(second) => tokio::join!(carry_out(request), carry_out(second)).1,
                None => carry_out(request).await,
            }
        }
        Fault::Twice => carry_out(request).await,
    }
}

async fn invocation<T>(
    function: &'static str,
    run: Arc<str>,
    work: impl Future<Output = T>,
) -> Option<T> {
    let killed = CancellationToken::new();
    let invocation = Invocation { function, run, killed: killed.clone() };
    tokio::select! {
        biased;
        () = killed.cancelled() => None,
        done = INVOCATION.scope(invocation, work) => Some(done),
    }
}

/// The request with its whole body in memory, and the body; `None` when it cannot be read.
async fn keep(request: Request<Body>) -> Option<(Request<Body>, Bytes)> {
    let (parts, body) = request.into_parts();
    let body = Limited::new(body, MOST_KEPT).collect().await.ok()?.to_bytes();
    Some((Request::from_parts(parts, Body::from(body.clone())), body))
}

/// The same request once more.
fn again(request: &Request<Body>, body: Bytes) -> Option<Request<Body>> {
    let mut second = Request::builder()
        .method(request.method())
        .uri(request.uri())
        .version(request.version())
        .body(Body::from(body))
        .ok()?;
    second.headers_mut().clone_from(request.headers());
    Some(second)
}

/// The first id of a run in a text: a UUID of version 7.
fn run_id(text: &[u8]) -> Option<&str> {
    const LENGTH: usize = 36;
    let is_id = |id: &[u8]| {
        id[14] == b'7'
            && id.iter().enumerate().all(|(at, byte)| match at {
                8 | 13 | 18 | 23 => *byte == b'-',
                _ => byte.is_ascii_hexdigit(),
            })
    };
    let id = text.windows(LENGTH).find(|id| is_id(id))?;
    std::str::from_utf8(id).ok()
}

/// The S3 operation that a request asks for.
pub(crate) fn s3_operation<B>(request: &Request<B>) -> &'static str {
    let query = request.uri().query().unwrap_or_default();
    let has = |name: &str| {
        query.split('&').any(|part| part.split('=').next().unwrap_or_default() == name)
    };
    let is_object = request
        .uri()
        .path()
        .trim_start_matches('/')
        .split_once('/')
        .is_some_and(|(_, key)| !key.is_empty());
    match request.method().as_str() {
        "GET" if is_object => "GetObject",
        "GET" => "ListObjectsV2",
        "HEAD" if is_object => "HeadObject",
        "HEAD" => "HeadBucket",
        "PUT" if has("uploadId") => "UploadPart",
        "PUT" if request.headers().contains_key("x-amz-copy-source") => "CopyObject",
        "PUT" => "PutObject",
        "POST" if has("uploads") => "CreateMultipartUpload",
        "POST" if has("uploadId") => "CompleteMultipartUpload",
        "POST" => "DeleteObjects",
        "DELETE" if has("uploadId") => "AbortMultipartUpload",
        "DELETE" => "DeleteObject",
        _ => "Unknown",
    }
}
