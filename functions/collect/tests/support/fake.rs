//! S3, ECS, Step Functions and STS in memory, as far as the functions call them.

use std::{
    collections::{BTreeMap, VecDeque},
    fmt::Write as _,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
};

use axum::{
    Router,
    body::{Body, to_bytes},
    http::{HeaderMap, Method, Request, Response, StatusCode, Uri},
};
use bytes::Bytes;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

#[derive(Default)]
pub struct Fake {
    /// The bucket's objects by key.
    pub objects: BTreeMap<String, Vec<u8>>,
    /// ECS's tasks by ARN.
    pub tasks: BTreeMap<String, FakeTask>,
    /// Step Functions' executions by name.
    pub executions: BTreeMap<String, FakeExecution>,
    /// The forms of the AssumeRole calls.
    pub assumed: Vec<BTreeMap<String, String>>,
    /// Every call, such as `ecs:StopTask`.
    pub calls: Vec<String>,
    /// The code with which the next call of an operation fails, for good.
    pub failing: VecDeque<(&'static str, &'static str)>,
}

impl Fake {
    /// How often an operation was called.
    pub fn called(&self, operation: &str) -> usize {
        self.calls.iter().filter(|call| *call == operation).count()
    }

    /// Lets the next call of an operation fail with AWS's code for a refusal.
    pub fn refuse(&mut self, operation: &'static str) {
        self.failing.push_back((operation, "AccessDeniedException"));
    }

    pub fn add_task(&mut self, arn: &str, task: FakeTask) {
        self.tasks.insert(arn.to_owned(), task);
    }
}

#[derive(Clone, Default)]
pub struct FakeTask {
    pub last_status: String,
    pub run_id: Option<String>,
    pub attempt: u32,
    pub stop_code: Option<&'static str>,
    pub stopped_reason: Option<String>,
    pub exit_code: Option<i32>,
    /// Objects, by key, that the task writes in the very moment in which it is asked after.
    pub last_words: BTreeMap<String, Vec<u8>>,
    /// The reasons of the StopTask calls.
    pub stops: Vec<String>,
    /// When it was created, in seconds since 1970.
    pub created_at: i64,
}

impl FakeTask {
    pub fn running(run_id: &str, attempt: u32) -> Self {
        Self {
            last_status: "RUNNING".to_owned(),
            run_id: Some(run_id.to_owned()),
            attempt,
            ..Self::default()
        }
    }

    /// The task stops, as it does some time after StopTask.
    pub fn stop(&mut self, code: &'static str, reason: &str, exit_code: Option<i32>) {
        self.last_status = "STOPPED".to_owned();
        self.stop_code = Some(code);
        self.stopped_reason = Some(reason.to_owned());
        self.exit_code = exit_code;
    }

    fn json(&self, arn: &str) -> Value {
        let mut environment = Vec::new();
        if let Some(run_id) = &self.run_id {
            environment.push(json!({"name": "STEPWES_RUN_ID", "value": run_id}));
            environment.push(json!({"name": "STEPWES_ATTEMPT", "value": self.attempt.to_string()}));
        }
        json!({
            "taskArn": arn,
            "lastStatus": self.last_status,
            "createdAt": self.created_at,
            "stopCode": self.stop_code,
            "stoppedReason": self.stopped_reason,
            "containers": [{"name": "engine", "exitCode": self.exit_code}],
            "overrides": {"containerOverrides": [{"name": "engine", "environment": environment}]},
        })
    }
}

#[derive(Clone, Default)]
pub struct FakeExecution {
    pub status: &'static str,
    pub error: &'static str,
    pub cause: &'static str,
}

type Shared = Arc<Mutex<Fake>>;

pub fn router(fake: Shared, dynamodb: SocketAddr) -> Router {
    Router::new().fallback(move |request: Request<Body>| {
        let fake = fake.clone();
        async move { serve(&fake, dynamodb, request).await }
    })
}

async fn serve(fake: &Shared, dynamodb: SocketAddr, request: Request<Body>) -> Response<Body> {
    let (parts, body) = request.into_parts();
    let body = to_bytes(body, usize::MAX).await.expect("a whole body");
    let operation = operation(&parts.method, &parts.uri, &parts.headers, &body);
    {
        let mut fake = fake.lock().unwrap_or_else(PoisonError::into_inner);
        fake.calls.push(operation.clone());
        let failing = fake.failing.iter().position(|(failing, _)| *failing == operation);
        if let Some((_, code)) = failing.and_then(|at| fake.failing.remove(at)) {
            return failure(&operation, code, "not authorized");
        }
        if !operation.starts_with("dynamodb:") {
            return answer(&mut fake, &operation, &parts.uri, &body);
        }
    }
    forward(dynamodb, &parts.headers, &body).await
}

fn operation(method: &Method, uri: &Uri, headers: &HeaderMap, body: &Bytes) -> String {
    let target = headers.get("x-amz-target").and_then(|target| target.to_str().ok());
    if let Some((service, operation)) = target.and_then(|target| target.split_once('.')) {
        let service = match service {
            "DynamoDB_20120810" => "dynamodb",
            "AmazonEC2ContainerServiceV20141113" => "ecs",
            "AWSStepFunctions" => "states",
            other => panic!("no service {other}"),
        };
        return format!("{service}:{operation}");
    }
    if body.starts_with(b"Action=AssumeRole&") {
        return "sts:AssumeRole".to_owned();
    }
    let listing = uri.query().is_some_and(|query| query.contains("list-type=2"));
    match *method {
        Method::GET if listing => "s3:ListObjectsV2",
        Method::GET => "s3:GetObject",
        Method::PUT => "s3:PutObject",
        Method::POST if uri.query() == Some("delete") => "s3:DeleteObjects",
        _ => panic!("no operation {method} {uri}"),
    }
    .to_owned()
}

fn answer(fake: &mut Fake, operation: &str, uri: &Uri, body: &Bytes) -> Response<Body> {
    let input = || serde_json::from_slice::<Value>(body).expect("a JSON request");
    match operation {
        "s3:GetObject" => match fake.objects.get(&key(uri)) {
            Some(content) => Response::new(Body::from(content.clone())),
            None => xml(StatusCode::NOT_FOUND, "<Error><Code>NoSuchKey</Code></Error>".to_owned()),
        },
        "s3:PutObject" => {
            fake.objects.insert(key(uri), body.to_vec());
            Response::new(Body::empty())
        }
        "s3:ListObjectsV2" => list(fake, uri),
        "s3:DeleteObjects" => {
            let body = String::from_utf8(body.to_vec()).expect("XML");
            for part in body.split("<Key>").skip(1) {
                fake.objects.remove(part.split("</Key>").next().expect("closed"));
            }
            xml(StatusCode::OK, "<DeleteResult></DeleteResult>".to_owned())
        }
        "ecs:DescribeTasks" => describe_tasks(fake, &input()),
        "ecs:StopTask" => stop_task(fake, &input()),
        "ecs:ListTasks" => list_tasks(fake, &input()),
        "states:DescribeExecution" => describe_execution(fake, &input()),
        "states:StartExecution" => start_execution(fake, &input()),
        "sts:AssumeRole" => assume_role(fake, body),
        other => panic!("{other} is not played"),
    }
}

/// One page holds two objects, so that every listing of more needs a second.
fn list(fake: &Fake, uri: &Uri) -> Response<Body> {
    const PAGE: usize = 2;
    let query = form(uri.query().unwrap_or_default());
    let prefix = query.get("prefix").map(String::as_str).unwrap_or_default();
    let after = query.get("continuation-token");
    let rest: Vec<_> = fake
        .objects
        .iter()
        .filter(|(key, _)| key.starts_with(prefix) && after.is_none_or(|after| *key > after))
        .collect();
    let mut text = String::from("<ListBucketResult>");
    for (key, content) in rest.iter().take(PAGE) {
        let size = content.len();
        write!(text, "<Contents><Key>{key}</Key><Size>{size}</Size></Contents>").expect("a String");
    }
    let more = rest.len() > PAGE;
    write!(text, "<IsTruncated>{more}</IsTruncated>").expect("a String");
    if more {
        write!(text, "<NextContinuationToken>{}</NextContinuationToken>", rest[PAGE - 1].0)
            .expect("a String");
    }
    text.push_str("</ListBucketResult>");
    xml(StatusCode::OK, text)
}

fn describe_tasks(fake: &mut Fake, input: &Value) -> Response<Body> {
    let (mut tasks, mut failures) = (Vec::new(), Vec::new());
    for arn in input["tasks"].as_array().expect("a list").iter().filter_map(Value::as_str) {
        match fake.tasks.get_mut(arn) {
            Some(task) => {
                fake.objects.append(&mut task.last_words);
                tasks.push(task.json(arn));
            }
            None => failures.push(json!({"arn": arn, "reason": "MISSING"})),
        }
    }
    ok(&json!({"tasks": tasks, "failures": failures}))
}

fn stop_task(fake: &mut Fake, input: &Value) -> Response<Body> {
    let arn = input["task"].as_str().expect("an ARN");
    let Some(task) = fake.tasks.get_mut(arn) else {
        let message = "The referenced task was not found.";
        return failure("ecs:StopTask", "InvalidParameterException", message);
    };
    task.stops.push(input["reason"].as_str().unwrap_or_default().to_owned());
    if task.last_status == "RUNNING" {
        task.last_status = "STOPPING".to_owned();
    }
    ok(&json!({"task": task.json(arn)}))
}

/// One page holds one task: of those that run, or of those that were asked to stop.
fn list_tasks(fake: &Fake, input: &Value) -> Response<Body> {
    let after = input["nextToken"].as_str().unwrap_or_default();
    let running = input["desiredStatus"] == "RUNNING";
    let mut live = fake
        .tasks
        .iter()
        .filter(|(arn, task)| (task.last_status == "RUNNING") == running && arn.as_str() > after)
        .map(|(arn, _)| arn);
    let page: Vec<_> = live.next().into_iter().collect();
    let next = live.next().and(page.first());
    ok(&json!({"taskArns": page, "nextToken": next}))
}

fn describe_execution(fake: &Fake, input: &Value) -> Response<Body> {
    let arn = input["executionArn"].as_str().expect("an ARN");
    let name = arn.rsplit(':').next().unwrap_or_default();
    match fake.executions.get(name) {
        Some(execution) => ok(&json!({
            "executionArn": arn,
            "stateMachineArn": super::STATE_MACHINE,
            "name": name,
            "status": execution.status,
            "startDate": 1_800_000_000,
            "error": execution.error,
            "cause": execution.cause,
        })),
        None => failure("states:DescribeExecution", "ExecutionDoesNotExist", "does not exist"),
    }
}

fn start_execution(fake: &mut Fake, input: &Value) -> Response<Body> {
    let name = input["name"].as_str().expect("a name");
    assert_eq!(input["input"], json!({"run_id": name}).to_string(), "the execution's input");
    if fake.executions.contains_key(name) {
        return failure("states:StartExecution", "ExecutionAlreadyExists", "exists");
    }
    let execution = FakeExecution { status: "RUNNING", ..FakeExecution::default() };
    fake.executions.insert(name.to_owned(), execution);
    ok(&json!({"executionArn": "arn:aws:states:x", "startDate": 1_800_000_000}))
}

fn assume_role(fake: &mut Fake, body: &Bytes) -> Response<Body> {
    fake.assumed.push(form(std::str::from_utf8(body).expect("a form")));
    let number = fake.assumed.len();
    xml(
        StatusCode::OK,
        format!(
            "<AssumeRoleResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\">\
             <AssumeRoleResult><Credentials><AccessKeyId>KEY{number}</AccessKeyId>\
             <SecretAccessKey>secret</SecretAccessKey><SessionToken>session</SessionToken>\
             <Expiration>2027-01-15T09:00:00Z</Expiration></Credentials></AssumeRoleResult>\
             </AssumeRoleResponse>"
        ),
    )
}

/// Hands a DynamoDB request on.
async fn forward(to: SocketAddr, headers: &HeaderMap, body: &Bytes) -> Response<Body> {
    let mut request = format!("POST / HTTP/1.1\r\nhost: {to}\r\nconnection: close\r\n");
    for name in ["x-amz-target", "content-type", "authorization", "x-amz-date"] {
        if let Some(value) = headers.get(name) {
            write!(request, "{name}: {}\r\n", value.to_str().expect("plain")).expect("a String");
        }
    }
    write!(request, "content-length: {}\r\n\r\n", body.len()).expect("a String");
    let mut stream = TcpStream::connect(to).await.expect("dynoxide listens");
    stream.write_all(request.as_bytes()).await.expect("dynoxide reads");
    stream.write_all(body).await.expect("dynoxide reads");
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.expect("dynoxide answers");
    let end = answer.windows(4).position(|four| four == b"\r\n\r\n").expect("a head") + 4;
    let head = String::from_utf8_lossy(&answer[..end]).into_owned();
    let status: u16 =
        head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
    Response::builder()
        .status(status)
        .header("content-type", "application/x-amz-json-1.0")
        .body(Body::from(answer.split_off(end)))
        .expect("a response")
}

/// The key in a path of the form `/bucket/key`.
fn key(uri: &Uri) -> String {
    let path = decoded(uri.path());
    path.strip_prefix(&format!("/{}/", super::BUCKET)).expect("our bucket").to_owned()
}

fn form(text: &str) -> BTreeMap<String, String> {
    text.split('&')
        .filter_map(|pair| pair.split_once('='))
        .map(|(name, value)| (decoded(name), decoded(&value.replace('+', " "))))
        .collect()
}

fn decoded(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((byte, more)) = rest.split_first() {
        rest = more;
        if *byte == b'%' {
            let hex = std::str::from_utf8(&rest[..2]).expect("an escape");
            bytes.push(u8::from_str_radix(hex, 16).expect("an escape"));
            rest = &rest[2..];
        } else {
            bytes.push(*byte);
        }
    }
    String::from_utf8(bytes).expect("UTF-8")
}

fn ok(value: &Value) -> Response<Body> {
    json_response(StatusCode::OK, value)
}

fn failure(operation: &str, code: &str, message: &str) -> Response<Body> {
    if operation.starts_with("s3:") {
        return xml(StatusCode::FORBIDDEN, format!("<Error><Code>{code}</Code></Error>"));
    }
    if operation.starts_with("sts:") {
        let text = format!("<ErrorResponse><Error><Code>{code}</Code></Error></ErrorResponse>");
        return xml(StatusCode::FORBIDDEN, text);
    }
    json_response(StatusCode::BAD_REQUEST, &json!({"__type": code, "message": message}))
}

fn json_response(status: StatusCode, value: &Value) -> Response<Body> {
    Response::builder()
        .status(status)
        .header("content-type", "application/x-amz-json-1.1")
        .body(Body::from(value.to_string()))
        .expect("a response")
}

fn xml(status: StatusCode, text: String) -> Response<Body> {
    Response::builder()
        .status(status)
        .header("content-type", "application/xml")
        .body(Body::from(text))
        .expect("a response")
}
