//! The embedded S3, driven by the real SDK and by a plain HTTP client.

mod access;
mod conditions;
mod folder;
mod lifecycle;
mod listing;
mod multipart;
mod objects;
mod presigned;
mod refused;

use aws_credential_types::Credentials as SdkCredentials;
use aws_sdk_s3::Client;
use aws_sdk_s3::config::retry::RetryConfig;
use aws_sdk_s3::config::{BehaviorVersion, Region};
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_s3::primitives::ByteStream;
use axum::Router;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use stepwes_local::s3::{Credentials, Hooks, ObjectCreated, S3Endpoint};
use tempfile::TempDir;

const BUCKET: &str = "stepwes-test";
const OTHER: &str = "stepwes-other";
const ACCESS_KEY: &str = "AKIALONGLIVED";
const SECRET_KEY: &str = "a-long-lived-secret";

/// A served folder, and what it told its hooks.
struct Served {
    folder: Arc<TempDir>,
    endpoint: S3Endpoint,
    credentials: Arc<Credentials>,
    url: String,
    calls: Arc<Mutex<Vec<String>>>,
    created: Arc<Mutex<Vec<ObjectCreated>>>,
    server: tokio::task::JoinHandle<()>,
}

impl Drop for Served {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl Served {
    async fn new() -> Self {
        Self::over(Arc::new(TempDir::new().expect("a folder"))).await
    }

    async fn over(folder: Arc<TempDir>) -> Self {
        let credentials = Arc::new(Credentials::new());
        credentials.add(ACCESS_KEY, SECRET_KEY);
        let calls = Arc::new(Mutex::new(Vec::new()));
        let created = Arc::new(Mutex::new(Vec::new()));
        let (on_call, on_created) = (Arc::clone(&calls), Arc::clone(&created));
        let hooks = Hooks {
            on_call: Some(Arc::new(move |name: &str| {
                on_call.lock().expect("the calls").push(name.to_owned());
            })),
            on_created: Some(Arc::new(move |object: &ObjectCreated| {
                on_created.lock().expect("the objects").push(object.clone());
            })),
        };
        let endpoint =
            S3Endpoint::open(folder.path(), &[BUCKET, OTHER], Arc::clone(&credentials), hooks)
                .expect("the folder opens");
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let router = Router::new().fallback_service(endpoint.clone());
        let server = tokio::spawn(async move {
            axum::serve(listener, router).await.expect("it serves");
        });
        Self { folder, endpoint, credentials, url, calls, created, server }
    }

    fn client(&self) -> Client {
        self.client_with(SdkCredentials::new(ACCESS_KEY, SECRET_KEY, None, None, "test"))
    }

    fn client_with(&self, credentials: SdkCredentials) -> Client {
        let config = aws_sdk_s3::Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .region(Region::new("eu-central-1"))
            .endpoint_url(&self.url)
            .force_path_style(true)
            .credentials_provider(credentials)
            .retry_config(RetryConfig::disabled())
            .http_client(aws_smithy_http_client::Builder::new().build_http())
            .build();
        Client::from_conf(config)
    }

    /// Where a file of the bucket lies.
    fn file(&self, path: &str) -> PathBuf {
        self.folder.path().join(BUCKET).join(path)
    }

    fn root(&self) -> &Path {
        self.folder.path()
    }
}

async fn put(client: &Client, key: &str, body: impl Into<Vec<u8>>) {
    client
        .put_object()
        .bucket(BUCKET)
        .key(key)
        .body(ByteStream::from(body.into()))
        .send()
        .await
        .unwrap_or_else(|error| panic!("put {key:?}: {error:?}"));
}

async fn get(client: &Client, key: &str) -> Option<Vec<u8>> {
    let answer = client.get_object().bucket(BUCKET).key(key).send().await;
    match answer {
        Ok(answer) => Some(answer.body.collect().await.expect("the body").to_vec()),
        Err(error) if code(&error) == "NoSuchKey" => None,
        Err(error) => panic!("get {key:?}: {error:?}"),
    }
}

async fn delete(client: &Client, key: &str) {
    client
        .delete_object()
        .bucket(BUCKET)
        .key(key)
        .send()
        .await
        .unwrap_or_else(|error| panic!("delete {key:?}: {error:?}"));
}

/// A client that knows nothing of AWS.
fn browser() -> reqwest::Client {
    // It wants one even though nothing here is encrypted; another test may have set it.
    let _ = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::builder().no_proxy().build().expect("a client")
}

/// The S3 error code of a failure.
fn code<E: ProvideErrorMetadata, R>(error: &SdkError<E, R>) -> String {
    error.code().unwrap_or("none").to_owned()
}

/// The HTTP status of a failure.
fn status<E>(error: &SdkError<E, aws_sdk_s3::config::http::HttpResponse>) -> u16 {
    error.raw_response().map_or(0, |response| response.status().as_u16())
}

/// Every file under a folder, relative to it, sorted; without the journal.
fn files_under(folder: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        for entry in std::fs::read_dir(&next).expect("a folder") {
            let entry = entry.expect("an entry");
            if entry.path().ends_with(".tmp/journal") {
                continue;
            }
            if entry.file_type().expect("a type").is_dir() {
                folders.push(entry.path());
            } else {
                let path = entry.path();
                let relative = path.strip_prefix(folder).expect("inside");
                found.push(relative.to_string_lossy().into_owned());
            }
        }
    }
    found.sort();
    found
}

/// Bytes that are not all the same, so that a piece in the wrong place is noticed.
fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    (0..length)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.to_le_bytes()[0]
        })
        .collect()
}
