//! An AWS of a few hundred bytes: what a task asks of Lambda, S3 and its metadata endpoint, held in
//! memory, with a record of every call.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard},
};

use axum::{
    Json, Router,
    body::{Body, Bytes, to_bytes},
    extract::{Path, Query, Request, State},
    http::{HeaderMap, Method, StatusCode},
    response::{IntoResponse as _, Response},
    routing::{any, get, post},
};
use serde_json::{Value, json};
use sha1::{Digest as _, Sha1};
use tokio::{net::TcpListener, sync::watch};

/// The trace of the run that a claim is answered.
pub(crate) const TRACE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

/// The one bucket.
pub(crate) const BUCKET: &str = "runs";

/// What the fake has seen and what it answers.
#[derive(Clone)]
pub(crate) struct Aws {
    inner: Arc<Inner>,
    pub(crate) address: SocketAddr,
}

struct Inner {
    state: Mutex<Held>,
    /// Counts every change, so that a test can wait for one.
    changes: watch::Sender<u64>,
}

#[derive(Default)]
struct Held {
    objects: BTreeMap<String, Vec<u8>>,
    /// `PUT key` and the like, in order.
    s3_calls: Vec<String>,
    /// The access key of each S3 call.
    s3_keys: Vec<String>,
    uploads: BTreeMap<String, Upload>,
    reports: Vec<Value>,
    /// Answers for the next reports; when there is none, they are accepted.
    verdicts: Vec<Verdict>,
    /// How long credentials live, in seconds.
    lifetime: i64,
    /// Keys whose next write fails so many times.
    stumbles: BTreeMap<String, u32>,
    /// Keys whose writes get no answer.
    silent: Vec<String>,
    /// Keys whose uploads are completed, but said not to be.
    unsaid: Vec<String>,
    /// The checksums that uploads were completed with.
    checksums: BTreeMap<String, String>,
}

/// A multipart upload: the checksum that it was begun with, and its parts.
struct Upload {
    checksum: Option<String>,
    parts: BTreeMap<u32, Vec<u8>>,
}

/// What the report function does.
#[derive(Clone)]
pub(crate) enum Verdict {
    Refused(&'static str),
    /// Refuses only this action; others are accepted and the verdict stays.
    RefusedAction(&'static str, &'static str),
    FunctionError,
}

impl Aws {
    /// Starts on a free port.
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        Self::on(listener)
    }

    /// Starts on a listener that is already there.
    pub(crate) fn on(listener: TcpListener) -> Self {
        let address = listener.local_addr().expect("an address");
        let held = Held { lifetime: 3600, ..Held::default() };
        let inner = Arc::new(Inner { state: Mutex::new(held), changes: watch::Sender::new(0) });
        let aws = Self { inner, address };
        let router = Router::new()
            .route("/metadata/task", get(|| async { Json(json!({"TaskARN": "arn:task/1"})) }))
            .route("/2015-03-31/functions/{name}/invocations", post(invoke))
            .route("/{bucket}/{*key}", any(s3))
            .with_state(aws.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        aws
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.inner.state.lock().expect("no panic in the fake")
    }

    fn changed(&self) {
        self.inner.changes.send_modify(|count| *count += 1);
    }

    /// Puts an object.
    pub(crate) fn put(&self, key: &str, content: impl Into<Vec<u8>>) {
        self.held().objects.insert(key.to_owned(), content.into());
    }

    /// An object's content.
    pub(crate) fn object(&self, key: &str) -> Option<Vec<u8>> {
        self.held().objects.get(key).cloned()
    }

    /// The keys of all objects that start with `prefix`.
    pub(crate) fn keys(&self, prefix: &str) -> Vec<String> {
        self.held().objects.keys().filter(|key| key.starts_with(prefix)).cloned().collect()
    }

    /// Every S3 call, such as `PUT work/…`.
    pub(crate) fn s3_calls(&self) -> Vec<String> {
        self.held().s3_calls.clone()
    }

    /// The distinct access keys of S3 calls, in the order of their first use.
    pub(crate) fn access_keys(&self) -> Vec<String> {
        let mut keys = self.held().s3_keys.clone();
        keys.dedup();
        keys
    }

    /// What the report function was told.
    pub(crate) fn reports(&self) -> Vec<Value> {
        self.held().reports.clone()
    }

    /// Answers the next report so, instead of accepting it.
    pub(crate) fn answer(&self, verdict: Verdict) {
        self.held().verdicts.push(verdict);
    }

    /// Hands out credentials that live so many seconds.
    pub(crate) fn credentials_live(&self, seconds: i64) {
        self.held().lifetime = seconds;
    }

    /// Completes the uploads of that key, and says that it did not.
    pub(crate) fn leave_unsaid(&self, key: &str) {
        self.held().unsaid.push(key.to_owned());
    }

    /// Fails the next writes of a key.
    pub(crate) fn stumble(&self, key: &str, times: u32) {
        self.held().stumbles.insert(key.to_owned(), times);
    }

    /// Answers no writes of a key until [`Self::speak`].
    pub(crate) fn go_silent(&self, key: &str) {
        self.held().silent.push(key.to_owned());
    }

    /// Answers all that was left without an answer, and whatever comes.
    pub(crate) fn speak(&self) {
        self.held().silent.clear();
        self.changed();
    }

    /// Returns once `condition` holds; tests run under the runner's time-out.
    pub(crate) async fn wait_until(&self, condition: impl Fn(&Self) -> bool) {
        let mut changes = self.inner.changes.subscribe();
        while !condition(self) {
            changes.changed().await.expect("the fake lives");
        }
    }
}

async fn invoke(State(aws): State<Aws>, body: Bytes) -> Response {
    let request: Value = serde_json::from_slice(&body).expect("JSON");
    let action = request["action"].clone();
    let response = {
        let mut held = aws.held();
        held.reports.push(request);
        let verdict = match held.verdicts.first().cloned() {
            Some(Verdict::RefusedAction(only, _)) if action != only => None,
            Some(verdict) => {
                held.verdicts.remove(0);
                Some(verdict)
            }
            None => None,
        };
        match verdict {
            Some(Verdict::FunctionError) => (
                [("x-amz-function-error", "Unhandled")],
                Json(json!({"errorMessage": "the table is away"})),
            )
                .into_response(),
            Some(Verdict::Refused(reason) | Verdict::RefusedAction(_, reason)) => {
                Json(json!({"verdict": "refused", "reason": reason})).into_response()
            }
            None => {
                let count = held.reports.len();
                let end = chrono::Utc::now() + chrono::TimeDelta::seconds(held.lifetime);
                Json(json!({"verdict": "accepted", "trace": TRACE, "credentials": {
                    "access_key_id": format!("SCOPED{count}"),
                    "secret_access_key": "scoped-secret",
                    "session_token": "scoped-session",
                    "expiration": end,
                }}))
                .into_response()
            }
        }
    };
    aws.changed();
    response
}

fn failure(status: StatusCode, code: &str) -> Response {
    (status, format!("<Error><Code>{code}</Code><Message>no</Message></Error>")).into_response()
}

async fn s3(
    State(aws): State<Aws>,
    Path((bucket, key)): Path<(String, String)>,
    Query(query): Query<BTreeMap<String, String>>,
    method: Method,
    headers: HeaderMap,
    request: Request,
) -> Response {
    if bucket != BUCKET && bucket != "elsewhere" {
        return failure(StatusCode::NOT_FOUND, "NoSuchBucket");
    }
    let authorization = headers["authorization"].to_str().expect("ASCII");
    let access_key = authorization
        .split_once("Credential=")
        .and_then(|(_, rest)| rest.split_once('/'))
        .map(|(key, _)| key.to_owned())
        .expect("a signature");
    let is_silent = |aws: &Aws| aws.held().silent.contains(&key);
    if is_silent(&aws) && method == Method::PUT {
        aws.held().s3_calls.push(format!("{method} {key}"));
        aws.changed();
        aws.wait_until(|aws| !is_silent(aws)).await;
    }
    let body = read_body(&headers, request.into_body()).await;
    let text =
        |name: &str| headers.get(name).map(|value| value.to_str().expect("ASCII").to_owned());
    let response = {
        let mut held = aws.held();
        held.s3_calls.push(format!("{method} {key}"));
        held.s3_keys.push(access_key);
        if method != Method::GET
            && let Some(left) = held.stumbles.get_mut(&key).filter(|left| **left > 0)
        {
            *left -= 1;
            aws.changed();
            return failure(StatusCode::SERVICE_UNAVAILABLE, "SlowDown");
        }
        match (method, query.get("uploadId")) {
            (Method::HEAD, _) => match (held.objects.get(&key), held.checksums.get(&key)) {
                (Some(content), Some(checksum)) => {
                    let headers = [("x-amz-checksum-crc64nvme", checksum.clone())];
                    (headers, Body::from(content.clone())).into_response()
                }
                _ => StatusCode::NOT_FOUND.into_response(),
            },
            (Method::GET, _) => match held.objects.get(&key) {
                Some(content) => Body::from(content.clone()).into_response(),
                None => failure(StatusCode::NOT_FOUND, "NoSuchKey"),
            },
            (Method::PUT, None) => {
                held.objects.insert(key, body);
                StatusCode::OK.into_response()
            }
            (Method::POST, None) => {
                let checksum = text("x-amz-checksum-algorithm");
                held.uploads.insert(key.clone(), Upload { checksum, parts: BTreeMap::new() });
                format!("<InitiateMultipartUploadResult><UploadId>{key}</UploadId></InitiateMultipartUploadResult>")
                    .into_response()
            }
            (Method::PUT, Some(upload)) => {
                let number = query["partNumber"].parse().expect("a number");
                let tag = hex::encode(Sha1::digest(&body));
                let upload = held.uploads.get_mut(upload).expect("begun");
                // S3 refuses parts with another checksum than the upload was begun with.
                if upload.checksum.as_deref() != Some("CRC64NVME")
                    || text("x-amz-checksum-crc64nvme").is_none()
                {
                    return failure(StatusCode::BAD_REQUEST, "InvalidRequest");
                }
                upload.parts.insert(number, body);
                [("etag", tag)].into_response()
            }
            (Method::POST, Some(upload)) => {
                let Some(upload) = held.uploads.remove(upload) else {
                    return failure(StatusCode::NOT_FOUND, "NoSuchUpload");
                };
                let checksum = text("x-amz-checksum-crc64nvme").expect("the whole one");
                held.checksums.insert(key.clone(), checksum);
                held.objects.insert(key.clone(), upload.parts.into_values().flatten().collect());
                if held.unsaid.contains(&key) {
                    aws.changed();
                    return failure(StatusCode::SERVICE_UNAVAILABLE, "SlowDown");
                }
                "<CompleteMultipartUploadResult></CompleteMultipartUploadResult>".into_response()
            }
            _ => failure(StatusCode::METHOD_NOT_ALLOWED, "MethodNotAllowed"),
        }
    };
    aws.changed();
    response
}

/// The body without the chunk headers and trailers that the SDK puts around what it streams.
async fn read_body(headers: &HeaderMap, body: Body) -> Vec<u8> {
    let raw = to_bytes(body, usize::MAX).await.expect("a whole body").to_vec();
    if headers.get("content-encoding").is_none_or(|value| value != "aws-chunked") {
        return raw;
    }
    let mut content = Vec::new();
    let mut rest = &raw[..];
    loop {
        let end = rest.windows(2).position(|two| two == b"\r\n").expect("a chunk header");
        let header = std::str::from_utf8(&rest[..end]).expect("ASCII");
        // A signature may follow the size.
        let size = header.split(';').next().unwrap_or_default();
        let size = usize::from_str_radix(size, 16).expect("a size");
        if size == 0 {
            return content;
        }
        content.extend_from_slice(&rest[end + 2..end + 2 + size]);
        rest = &rest[end + 2 + size + 2..];
    }
}
