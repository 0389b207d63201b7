//! An engine task that does nothing but what the service sees of one: it claims its attempt, says
//! that the engine starts, writes `result.json` and its exit record. Only ever run in a process of
//! its own.

use std::{
    fs::{self, OpenOptions},
    io::Write as _,
    path::Path,
    time::Duration,
};

use aws_sdk_lambda::primitives::Blob;
use aws_smithy_http_client::Builder as HttpClientBuilder;
use serde_json::{Value, json};
use sha1::Digest as _;
use stepwes_core::{
    keys,
    task::{self, OutputFile, ReportResponse, TaskOutcome, TaskResult},
};

fn variable(name: &str) -> String {
    std::env::var(name).unwrap_or_default()
}

/// The one output of a task with `STUB_OUTPUT`.
pub(crate) const OUTPUT: &str = "out.txt";

/// The whole task. `STUB_LOG`: a file to which a line `<run> <attempt> <pid>` is added at the
/// start. `STUB_HOLD_RUNNING`, `STUB_HOLD_DONE`: named pipes to wait at, while RUNNING and after
/// the result is written; in the first attempt only. `STUB_OUTPUT`: the content of [`OUTPUT`].
pub(crate) async fn run() {
    let run = variable(task::env::RUN_ID);
    let attempt = variable(task::env::ATTEMPT);
    let log = variable("STUB_LOG");
    if !log.is_empty() {
        let mut log = OpenOptions::new().create(true).append(true).open(log).expect("a log");
        log.write_all(format!("{run} {attempt} {}\n", std::process::id()).as_bytes())
            .expect("logged");
    }
    let metadata = format!("{}/task", variable("ECS_CONTAINER_METADATA_URI_V4"));
    let arn = patiently(|| async {
        let answer: Value = super::http().get(&metadata).send().await.ok()?.json().await.ok()?;
        answer["TaskARN"].as_str().map(str::to_owned)
    })
    .await;
    let sdk = aws_config::defaults(aws_config::BehaviorVersion::latest())
        .http_client(HttpClientBuilder::new().build_http())
        .load()
        .await;
    let report = |action: Value| {
        let mut request = json!({
            "run_id": run,
            "attempt": attempt.parse::<u32>().expect("a number"),
            "token": variable(task::env::TOKEN),
            "task_arn": arn,
        });
        for (name, value) in action.as_object().expect("an object") {
            request[name] = value.clone();
        }
        let client = aws_sdk_lambda::Client::new(&sdk);
        async move {
            patiently(|| async {
                let answer = client
                    .invoke()
                    .function_name(variable(task::env::REPORT_FUNCTION))
                    .payload(Blob::new(request.to_string()))
                    .send()
                    .await
                    .ok()?;
                if answer.function_error().is_some() {
                    return None;
                }
                let payload = answer.payload.expect("a payload").into_inner();
                Some(serde_json::from_slice::<ReportResponse>(&payload).expect("an answer"))
            })
            .await
        }
    };
    let credentials = match report(json!({ "action": "claim" })).await {
        ReportResponse::Accepted { credentials, .. } => credentials.expect("a claim's credentials"),
        ReportResponse::Refused { .. } => end(task::exit::REFUSED),
    };
    let now = chrono::Utc::now();
    let said = report(json!({ "action": "run", "cmd": ["stub"], "start_time": now })).await;
    if matches!(said, ReportResponse::Refused { .. }) {
        end(task::exit::REFUSED);
    }
    hold(&attempt, "STUB_HOLD_RUNNING").await;
    let (run_id, number) = (run.parse().expect("a run id"), attempt.parse().expect("a number"));
    let output = variable("STUB_OUTPUT");
    let result = TaskResult {
        run_id,
        attempt: number,
        outcome: TaskOutcome::Complete,
        reason: None,
        exit_code: Some(0),
        cmd: vec!["stub".to_owned()],
        start_time: Some(now),
        end_time: Some(chrono::Utc::now()),
        outputs: task::EngineOutputs::Listing,
        files: (!output.is_empty())
            .then(|| OutputFile {
                path: OUTPUT.to_owned(),
                size: u64::try_from(output.len()).expect("a length"),
                sha1: hex::encode(sha1::Sha1::digest(&output)),
            })
            .into_iter()
            .collect(),
    };
    let temporary = aws_credential_types::Credentials::new(
        credentials.access_key_id,
        credentials.secret_access_key,
        Some(credentials.session_token),
        None,
        "report",
    );
    let s3 = aws_sdk_s3::Client::from_conf(
        aws_sdk_s3::config::Builder::from(&sdk)
            .credentials_provider(temporary)
            .force_path_style(true)
            .build(),
    );
    let put = |key: String, body: Vec<u8>| {
        let s3 = &s3;
        async move {
            patiently(|| async {
                let request = s3.put_object().bucket(variable(task::env::BUCKET)).key(&key);
                request.body(body.clone().into()).send().await.ok()
            })
            .await
        }
    };
    if !output.is_empty() {
        put(keys::output(run_id, number, OUTPUT), output.into_bytes()).await;
    }
    put(keys::result(run_id, number), serde_json::to_vec(&result).expect("JSON")).await;
    hold(&attempt, "STUB_HOLD_DONE").await;
    end(task::exit::DONE)
}

async fn hold(attempt: &str, name: &str) {
    let pipe = variable(name);
    if attempt == "1" && !pipe.is_empty() {
        // Blocks until a test writes to the pipe.
        tokio::task::spawn_blocking(|| fs::read(pipe).expect("a pipe")).await.expect("read");
    }
}

fn end(code: i32) -> ! {
    let file = variable(task::env::EXIT_FILE);
    let file = Path::new(&file);
    let temporary = file.with_extension("tmp");
    fs::write(&temporary, json!({ "exit_code": code }).to_string()).expect("written");
    fs::rename(temporary, file).expect("renamed");
    std::process::exit(code)
}

/// Again and again until there is an answer: the server may be restarting.
async fn patiently<T, F: Future<Output = Option<T>>>(mut ask: impl FnMut() -> F) -> T {
    for _ in 0..600 {
        if let Some(answer) = ask().await {
            return answer;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    end(task::exit::FAILED)
}
