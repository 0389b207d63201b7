//! What the tests of the server share: a server in a folder of its own, stub engines, clients.

#![allow(dead_code, reason = "each test file uses its own part")]

pub(crate) mod stub;

use std::{
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    time::Duration,
};

use aws_credential_types::Credentials;
use aws_smithy_http_client::Builder as HttpClientBuilder;
use chrono::{TimeDelta, Utc};
use serde_json::Value;
use stepwes_core::caller_token::{CallerToken, SecretDigest};
use stepwes_local::{FolderTokens, ServeOptions, Server, arn};
use stepwes_store::StoredToken;
use tempfile::TempDir;

/// A server in a folder that goes away with it.
pub(crate) struct Rig {
    pub(crate) server: Server,
    pub(crate) folder: TempDir,
}

/// Starts a server whose engine task is this shell script.
pub(crate) async fn serve(script: &str) -> Rig {
    serve_with(script, |_| {}).await
}

/// The same, with other options.
pub(crate) async fn serve_with(script: &str, change: impl FnOnce(&mut ServeOptions)) -> Rig {
    let folder = tempfile::tempdir().expect("a folder");
    let mut options = options(folder.path(), script);
    change(&mut options);
    let server = stepwes_local::start(options).await.expect("started");
    Rig { server, folder }
}

/// Options for a server below `folder`, on any port, quick to act.
pub(crate) fn options(folder: &Path, script: &str) -> ServeOptions {
    ServeOptions {
        dir: folder.join("stepwes"),
        port: 0,
        engine_path: Some(engine(folder, script)),
        stop_timeout: Duration::from_secs(5),
        reconcile_interval: Duration::from_secs(3600),
        reconcile_grace: Duration::from_secs(1),
        ..ServeOptions::default()
    }
}

/// An engine task that is a shell script.
pub(crate) fn engine(folder: &Path, script: &str) -> PathBuf {
    let path = folder.join("engine");
    fs::write(&path, format!("#!/bin/sh\n{script}\n")).expect("written");
    fs::set_permissions(&path, Permissions::from_mode(0o755)).expect("executable");
    path
}

/// A shell line that waits until the named pipe `name` in `folder` is written to; see [`release`].
pub(crate) fn hold(folder: &Path, name: &str) -> String {
    let path = folder.join(name);
    if !path.exists() {
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).expect("made");
    }
    format!("read -r line < '{}'", path.display())
}

/// Lets one script go on that waits at [`hold`].
pub(crate) async fn release(folder: &Path, name: &str) {
    let path = folder.join(name);
    tokio::task::spawn_blocking(move || fs::write(path, "go\n").expect("written"))
        .await
        .expect("done");
}

/// Makes a token in a server's folder, whether one runs there or not; gives it as a caller has it.
pub(crate) async fn token(
    dir: &Path,
    name: &str,
    owner: &str,
    groups: &[&str],
    lasts: Option<TimeDelta>,
) -> String {
    let token = CallerToken::generate(name.parse().expect("a name")).expect("randomness");
    let stored = StoredToken {
        name: token.name().clone(),
        owner: owner.to_owned(),
        groups: groups.iter().map(|group| (*group).to_owned()).collect(),
        digest: SecretDigest::of(&token).expect("randomness"),
        created_at: Utc::now(),
        expires_at: lasts.map(|lasts| Utc::now() + lasts),
        description: None,
    };
    let tokens = FolderTokens::open(dir).await.expect("opened");
    assert!(tokens.store.create_token(&stored).await.expect("kept"));
    token.reveal()
}

/// The server's ledger, opened beside it.
pub(crate) fn ledger(dir: &Path) -> rusqlite::Connection {
    let ledger = rusqlite::Connection::open(dir.join("aws.sqlite")).expect("opened");
    ledger.busy_timeout(Duration::from_secs(5)).expect("set");
    ledger
}

/// The access key and secret of a principal.
pub(crate) fn key(server: &Server, principal: &str) -> Credentials {
    let text = fs::read(server.dir().join("credentials.json")).expect("readable");
    let keys: Value = serde_json::from_slice(&text).expect("JSON");
    let field = |name: &str| keys[principal][name].as_str().expect("a string").to_owned();
    Credentials::new(field("access_key_id"), field("secret_access_key"), None, None, "test")
}

/// A configuration for any SDK client.
pub(crate) fn sdk(server: &Server, credentials: Credentials) -> aws_config::SdkConfig {
    aws_config::SdkConfig::builder()
        .behavior_version(aws_config::BehaviorVersion::latest())
        .http_client(HttpClientBuilder::new().build_http())
        .retry_config(aws_config::retry::RetryConfig::disabled())
        .region(aws_config::Region::from_static(arn::REGION))
        .endpoint_url(server.internal_url())
        .credentials_provider(aws_credential_types::provider::SharedCredentialsProvider::new(
            credentials,
        ))
        .build()
}

/// Returns when `condition` holds; looks again and again, as a person would.
pub(crate) async fn until<F: Future<Output = bool>>(what: &str, mut condition: impl FnMut() -> F) {
    for _ in 0..3000 {
        if condition().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("{what} did not happen");
}

/// The options by which the tests' own programs are started: an ignored test of the running test
/// binary that is a whole process for another one.
pub(crate) fn this_binary(test: &str) -> (PathBuf, [String; 4]) {
    let program = std::env::current_exe().expect("a program");
    (program, [test, "--exact", "--ignored", "--nocapture"].map(str::to_owned))
}

/// The script of an engine task that is [`stub::run`], in this test binary's ignored test
/// `stub_engine`, after `exports`.
pub(crate) fn stub_engine(exports: &[(&str, &str)]) -> String {
    let (program, arguments) = this_binary("stub_engine");
    let exports: Vec<_> =
        exports.iter().map(|(name, value)| format!("export {name}='{value}'\n")).collect();
    format!("{}exec '{}' {}", exports.concat(), program.display(), arguments.join(" "))
}

/// A run's state, as the API tells it.
pub(crate) async fn state(url: &str, run: &str) -> String {
    let url = format!("{url}/ga4gh/wes/v1/runs/{run}/status");
    let answer: Value = get_json(&url).await;
    answer["state"].as_str().unwrap_or_default().to_owned()
}

/// A JSON answer of the API, whatever its status.
pub(crate) async fn get_json(url: &str) -> Value {
    match http().get(url).send().await {
        Ok(answer) => answer.json().await.unwrap_or_default(),
        Err(_) => Value::Null,
    }
}

/// Submits a run with one attachment; gives its id.
pub(crate) async fn submit(url: &str) -> String {
    try_submit(&http(), url).await.expect("accepted")
}

/// The same by a client that is there already, where the server may be gone.
pub(crate) async fn try_submit(http: &reqwest::Client, url: &str) -> Option<String> {
    let url = format!("{url}/ga4gh/wes/v1/runs");
    let answer = http.post(url).multipart(form()).send().await.ok()?;
    let answer: Value = answer.error_for_status().ok()?.json().await.ok()?;
    answer["run_id"].as_str().map(str::to_owned)
}

/// A submission with one attachment.
pub(crate) fn form() -> reqwest::multipart::Form {
    let part = reqwest::multipart::Part::text("cwlVersion: v1.2").file_name("main.cwl");
    reqwest::multipart::Form::new()
        .text("workflow_type", "CWL")
        .text("workflow_type_version", "v1.2")
        .text("workflow_url", "main.cwl")
        .part("workflow_attachment", part)
}

/// Returns when the run is in that state.
pub(crate) async fn until_state(url: &str, run: &str, expected: &str) {
    let mut seen = String::new();
    for _ in 0..3000 {
        seen = state(url, run).await;
        if seen == expected {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("run {run} is {seen}, not {expected}");
}

/// An HTTP client.
pub(crate) fn http() -> reqwest::Client {
    http_builder().build().expect("a client")
}

/// An HTTP client, to be set up further.
pub(crate) fn http_builder() -> reqwest::ClientBuilder {
    // A second call finds the first one's provider in place.
    let _ = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::builder()
}
