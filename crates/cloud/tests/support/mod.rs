//! AWS for the API functions' tests, behind one URL: DynamoDB is dynoxide, S3, Step Functions and
//! ECS are maps in memory, and any operation can be made to fail.

#![allow(dead_code, reason = "every suite uses its own part")]

mod forward;
mod s3;

use std::{
    collections::{BTreeMap, HashMap},
    net::SocketAddr,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use aws_smithy_http_client::Builder as HttpClient;
use axum::{
    Router,
    body::{Body, to_bytes},
    extract::{Request, State},
    response::{IntoResponse as _, Response},
};
use bytes::Bytes;
use chrono::{DateTime, Utc};
use http::{HeaderMap, StatusCode, header};
use serde_json::{Value, json};
use stepwes_cloud::{OnUse, ecs::Tasks, http::frame, lambda::restore_path, objects::Objects};
use stepwes_core::{
    Clock, IdGenerator, Run, RunEvent, RunId, RunState, resources::Resources, run::RequestSummary,
    token::AttemptToken,
};
use stepwes_store::{Change, Claim, Created, NewRun, RunStore, Transition};
use tower::ServiceExt as _;

pub(crate) const TABLE: &str = "runs";
pub(crate) const BUCKET: &str = "bucket";
pub(crate) const MACHINE: &str = "arn:aws:states:eu-central-1:123456789012:stateMachine:runs";
pub(crate) const CLUSTER: &str = "runs";
pub(crate) const TASK_ARN: &str = "arn:aws:ecs:eu-central-1:123456789012:task/runs/1";

/// How an operation fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Refused for good, nothing done.
    Denied,
    /// Throttled for as long as it is tried, nothing done.
    Busy,
    /// Done, but the answer is an error.
    Unanswered,
}

#[derive(Default)]
struct Inner {
    /// By their keys; those of other buckets than [`BUCKET`] by `/<bucket>/<key>`.
    objects: BTreeMap<String, (Bytes, String)>,
    /// How often each was put.
    versions: BTreeMap<String, u32>,
    starts: Vec<(String, Value)>,
    ended_executions: Vec<String>,
    stops: Vec<String>,
    faults: HashMap<String, (usize, Fault)>,
    vanishing: Vec<String>,
}

impl Inner {
    fn put(&mut self, key: &str, content: Bytes, content_type: String) {
        *self.versions.entry(key.to_owned()).or_default() += 1;
        self.objects.insert(key.to_owned(), (content, content_type));
    }
}

/// One AWS, and the clients of it.
#[derive(Clone)]
pub(crate) struct World {
    inner: Arc<Mutex<Inner>>,
    dynamo: SocketAddr,
    pub(crate) dynamodb: aws_sdk_dynamodb::Client,
    pub(crate) store: RunStore,
    pub(crate) objects: Objects,
    pub(crate) executions: OnUse<aws_sdk_sfn::Client>,
    pub(crate) tasks: Tasks,
    pub(crate) clock: Arc<TestClock>,
    pub(crate) ids: Arc<TestIds>,
}

/// A clock that stands still.
pub(crate) struct TestClock;

impl Clock for TestClock {
    fn now(&self) -> DateTime<Utc> {
        "2026-01-02T03:04:05Z".parse().expect("a time")
    }
}

/// Ids that count up from 1.
#[derive(Default)]
pub(crate) struct TestIds(AtomicU64);

impl IdGenerator for TestIds {
    fn run_id(&self, _: DateTime<Utc>) -> RunId {
        run_id(self.0.fetch_add(1, Ordering::SeqCst) + 1)
    }
}

/// The id that [`TestIds`] makes as its `n`th.
pub(crate) fn run_id(n: u64) -> RunId {
    format!("019b7d2e-8f88-7000-8000-{n:012x}").parse().expect("a run id")
}

macro_rules! client {
    ($sdk:ident, $url:expr $(, $option:ident($value:expr))*) => {
        $sdk::Client::from_conf(
            $sdk::Config::builder()
                .behavior_version($sdk::config::BehaviorVersion::latest())
                .region($sdk::config::Region::new("eu-central-1"))
                .endpoint_url($url)
                .credentials_provider($sdk::config::Credentials::new("nobody", "nothing", None, None, "test"))
                .retry_config(
                    $sdk::config::retry::RetryConfig::standard()
                        .with_initial_backoff(Duration::from_millis(1)),
                )
                .http_client(HttpClient::new().build_http())
                $(.$option($value))*
                .build(),
        )
    };
}

impl World {
    /// With an empty table and an empty bucket.
    pub(crate) async fn new() -> Self {
        let database = dynoxide::Database::memory().expect("a database in memory");
        let listener = bind().await;
        let dynamo = listener.local_addr().expect("bound");
        tokio::spawn(dynoxide::server::serve_on(listener, database));

        let listener = bind().await;
        let url = format!("http://{}", listener.local_addr().expect("bound"));
        let s3 = client!(aws_sdk_s3, &url, force_path_style(true));
        let dynamodb = client!(aws_sdk_dynamodb, &url);
        let clock = Arc::new(TestClock);
        let world = Self {
            inner: Arc::default(),
            dynamo,
            store: RunStore::new(dynamodb.clone(), TABLE, clock.clone()),
            dynamodb,
            objects: Objects::new(s3, BUCKET),
            executions: client!(aws_sdk_sfn, &url).into(),
            tasks: Tasks::new(client!(aws_sdk_ecs, &url), CLUSTER),
            clock,
            ids: Arc::default(),
        };
        let router = Router::new().fallback(serve).with_state(world.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        world.store.create_table().await.expect("a new table");
        world
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().expect("no test panicked in here")
    }

    /// Makes an operation (`PutObject`, `StartExecution`, …) fail, after `well` calls that do not.
    pub(crate) fn fail_after(&self, well: usize, operation: &str, fault: Fault) {
        self.lock().faults.insert(operation.to_owned(), (well, fault));
    }

    /// Makes an operation fail from now on.
    pub(crate) fn fail(&self, operation: &str, fault: Fault) {
        self.fail_after(0, operation, fault);
    }

    /// Makes everything work again.
    pub(crate) fn mend(&self) {
        self.lock().faults.clear();
    }

    /// Puts the whole log in a segment's stead as soon as the segment has been listed once.
    pub(crate) fn vanish(&self, key: &str) {
        self.lock().vanishing.push(key.to_owned());
    }

    /// The keys in the bucket.
    pub(crate) fn keys(&self) -> Vec<String> {
        self.lock().objects.keys().cloned().collect()
    }

    /// An object's content.
    pub(crate) fn object(&self, key: &str) -> Bytes {
        self.lock().objects.get(key).unwrap_or_else(|| panic!("no object {key}")).0.clone()
    }

    /// Puts an object.
    pub(crate) fn put(&self, key: &str, content: impl Into<Bytes>) {
        self.lock().put(key, content.into(), "x/y".to_owned());
    }

    /// Takes an object away.
    pub(crate) fn take(&self, key: &str) {
        self.lock().objects.remove(key);
    }

    /// The executions that were asked for: name and input.
    pub(crate) fn starts(&self) -> Vec<(String, Value)> {
        self.lock().starts.clone()
    }

    /// Says that the execution of a run has ended.
    pub(crate) fn end_execution(&self, run_id: RunId) {
        self.lock().ended_executions.push(run_id.to_string());
    }

    /// The tasks that were told to stop.
    pub(crate) fn stops(&self) -> Vec<String> {
        self.lock().stops.clone()
    }

    /// How many items the table has.
    pub(crate) async fn items(&self) -> usize {
        let scan = self.dynamodb.scan().table_name(TABLE).send().await.expect("a scan");
        scan.items().len()
    }

    /// A queued run.
    pub(crate) async fn queued(&self, owner: &str) -> Run {
        let new = NewRun {
            run_id: self.ids.run_id(self.clock.now()),
            owner: owner.to_owned(),
            summary: RequestSummary {
                workflow_type: "CWL".into(),
                workflow_type_version: "v1.2".into(),
                workflow_engine: "cwltool".into(),
                workflow_url: "main.cwl".into(),
                tags: BTreeMap::from([("project".into(), "x".into())]),
            },
            resources: Resources::default(),
            destination: None,
            idempotency: None,
            trace: None,
            waits: false,
        };
        match self.store.create(new).await {
            Ok(Created::New(run)) => run,
            other => panic!("not created: {other:?}"),
        }
    }

    /// Tells a run of an event that has to move it.
    pub(crate) async fn step(&self, run_id: RunId, event: RunEvent, change: Change) -> Run {
        match self.store.transition(run_id, event, change).await {
            Ok(Transition::Moved(run)) => run,
            other => panic!("{event:?} did not move the run: {other:?}"),
        }
    }

    /// A run whose first attempt a task has claimed.
    pub(crate) async fn claimed(&self, owner: &str) -> Run {
        let run_id = self.queued(owner).await.run_id;
        let run = self.step(run_id, RunEvent::Initialize, Change::default()).await;
        let token: AttemptToken = run.token.expect("an attempt has a token");
        match self.store.claim(run_id, 1, &token, TASK_ARN).await {
            Ok(Claim::Claimed(run)) => run,
            other => panic!("not claimed: {other:?}"),
        }
    }

    /// A run in `state`, in its first attempt when it has had one.
    pub(crate) async fn in_state(&self, owner: &str, state: RunState) -> Run {
        let events: &[RunEvent] = match state {
            RunState::Queued => return self.queued(owner).await,
            RunState::Initializing => &[],
            RunState::Running => &[RunEvent::Run { attempt: 1 }],
            RunState::Complete => {
                &[RunEvent::Run { attempt: 1 }, RunEvent::Complete { attempt: 1 }]
            }
            RunState::ExecutorError => &[RunEvent::ExecutorError { attempt: 1 }],
            RunState::SystemError => &[RunEvent::SystemError { attempt: 1 }],
            RunState::Canceling => &[RunEvent::Cancel],
            RunState::Canceled => &[RunEvent::Cancel, RunEvent::Canceled { attempt: 1 }],
            RunState::Preempted => &[RunEvent::Preempt { attempt: 1, max_attempts: 1 }],
        };
        let mut run = self.claimed(owner).await;
        for event in events {
            run = self.step(run.run_id, *event, Change::default()).await;
        }
        run
    }

    async fn answer(&self, operation: &str, target: &str, request: Request) -> Response {
        let (parts, body) = request.into_parts();
        let body = to_bytes(body, usize::MAX).await.expect("a whole body");
        let fault = match self.lock().faults.get_mut(operation) {
            Some((0, fault)) => Some(*fault),
            Some((well, _)) => {
                *well -= 1;
                None
            }
            None => None,
        };
        match fault {
            Some(Fault::Denied) => return error(StatusCode::FORBIDDEN, "AccessDenied"),
            Some(Fault::Busy) => return error(StatusCode::SERVICE_UNAVAILABLE, "SlowDown"),
            Some(Fault::Unanswered) | None => {}
        }
        let response = if target.starts_with("DynamoDB_") {
            forward::forward(self.dynamo, &parts.headers, &body).await
        } else {
            match operation {
                "StartExecution" => self.start_execution(&body),
                "StopTask" => self.stop_task(&body),
                _ => s3::serve(&mut self.lock(), operation, &parts, body),
            }
        };
        if fault == Some(Fault::Unanswered) {
            return error(StatusCode::INTERNAL_SERVER_ERROR, "InternalError");
        }
        response
    }

    fn start_execution(&self, body: &[u8]) -> Response {
        let request: Value = serde_json::from_slice(body).expect("JSON");
        assert_eq!(request["stateMachineArn"], MACHINE);
        let name = request["name"].as_str().expect("a name").to_owned();
        let input = request["input"].as_str().expect("an input");
        let input = serde_json::from_str(input).expect("JSON");
        let mut inner = self.lock();
        if inner.ended_executions.contains(&name) {
            return error(StatusCode::BAD_REQUEST, "ExecutionAlreadyExists");
        }
        let arn = format!("{MACHINE}:{name}");
        inner.starts.push((name, input));
        amz_json(&json!({"executionArn": arn, "startDate": 1.0}))
    }

    fn stop_task(&self, body: &[u8]) -> Response {
        let request: Value = serde_json::from_slice(body).expect("JSON");
        assert_eq!(request["cluster"], CLUSTER);
        self.lock().stops.push(request["task"].as_str().expect("a task").to_owned());
        amz_json(&json!({"task": {}}))
    }
}

async fn bind() -> tokio::net::TcpListener {
    tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port")
}

async fn serve(State(world): State<World>, request: Request) -> Response {
    let target = request
        .headers()
        .get("x-amz-target")
        .and_then(|target| target.to_str().ok())
        .unwrap_or_default()
        .to_owned();
    let operation = match target.split_once('.') {
        Some((_, operation)) => operation.to_owned(),
        None => s3::operation(request.method(), request.uri()).to_owned(),
    };
    world.answer(&operation, &target, request).await
}

fn amz_json(value: &Value) -> Response {
    ([(header::CONTENT_TYPE, "application/x-amz-json-1.1")], value.to_string()).into_response()
}

/// An error in the shapes of S3 and of the JSON services at once.
fn error(status: StatusCode, code: &str) -> Response {
    let body = json!({"__type": code, "message": "made up"}).to_string();
    (status, [("x-amzn-errortype", code)], body).into_response()
}

/// An answer of the API, read.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Answer {
    /// The body as JSON.
    pub(crate) fn json(&self) -> Value {
        assert_eq!(self.headers[header::CONTENT_TYPE], "application/json", "{self:?}");
        serde_json::from_slice(&self.body).expect("JSON")
    }

    /// A header's value; `""` when there is none.
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }
}

/// Sends a request to a function's routes in their frame.
pub(crate) async fn send(router: &Router, request: http::Request<Body>) -> Answer {
    let response = frame(router.clone()).oneshot(request).await.expect("infallible");
    let (parts, body) = response.into_parts();
    let body = to_bytes(body, usize::MAX).await.expect("a whole body");
    let answer = Answer { status: parts.status.as_u16(), headers: parts.headers, body };
    if answer.status >= 400 {
        let error = answer.json();
        assert_eq!(error["status_code"], answer.status, "{error}");
        assert_eq!(error.as_object().map(serde_json::Map::len), Some(2), "{error}");
    }
    answer
}

/// A request by `owner`, at `wes.example.org`.
pub(crate) fn request(owner: &str, method: &str, path: &str) -> http::request::Builder {
    http::Request::builder()
        .method(method)
        .uri(path)
        .header("host", "wes.example.org")
        .header("x-request-id", "request-1")
        .extension(stepwes_cloud::http::Caller::named(owner))
}

/// Sends a GET.
pub(crate) async fn get(router: &Router, owner: &str, path: &str) -> Answer {
    send(router, request(owner, "GET", path).body(Body::empty()).expect("a request")).await
}

/// Sends an API Gateway event (payload format 2.0) the way that Lambda does.
pub(crate) async fn send_event(router: &Router, event: &str) -> Answer {
    let request = lambda_http::request::from_str(event).expect("an API Gateway event");
    let (parts, body) = restore_path(request).into_parts();
    let body = match body {
        lambda_http::Body::Text(text) => Body::from(text),
        lambda_http::Body::Binary(bytes) => Body::from(bytes),
        _ => Body::empty(),
    };
    send(router, http::Request::from_parts(parts, body)).await
}
