//! An AWS for the tests of the functions that are not the API: DynamoDB is dynoxide, the rest is in
//! memory, everything is spoken to by the real SDKs at one endpoint.

#![allow(
    dead_code,
    unused_imports,
    unreachable_pub,
    reason = "each of the four functions' tests uses its part"
)]

mod fake;

use std::{
    path::PathBuf,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicI64, Ordering},
    },
};

use aws_credential_types::Credentials;
use chrono::{DateTime, TimeDelta, Utc};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use stepwes_cloud::{Aws, aws::Endpoint};
use stepwes_core::{
    Clock, Run, RunEvent, RunId, RunState, TraceParent, keys,
    resources::Resources,
    run::RequestSummary,
    task::{OutputFile, TaskOutcome, TaskResult},
};
use stepwes_store::{Change, Claim, Created, NewRun, RunStore, Transition};

pub use fake::{Fake, FakeExecution, FakeTask};

pub const TABLE: &str = "runs";
pub const BUCKET: &str = "runs-bucket";
pub const CLUSTER: &str = "stepwes";
pub const STATE_MACHINE: &str = "arn:aws:states:eu-central-1:123456789012:stateMachine:stepwes";
pub const ROLE: &str = "arn:aws:iam::123456789012:role/stepwes-data";
/// The run that the sample events speak of.
pub const SAMPLE_RUN: &str = "01890a5d-ac96-774b-bcce-b302099a8057";
/// The task that the sample events speak of.
pub const SAMPLE_TASK: &str =
    "arn:aws:ecs:eu-central-1:123456789012:task/stepwes/0123456789abcdef0123456789abcdef";

/// A clock that moves when it is told to.
pub struct TestClock(AtomicI64);

impl TestClock {
    pub fn advance(&self, by: TimeDelta) {
        self.0.fetch_add(by.num_milliseconds(), Ordering::SeqCst);
    }
}

impl Clock for TestClock {
    fn now(&self) -> DateTime<Utc> {
        DateTime::from_timestamp_millis(self.0.load(Ordering::SeqCst)).expect("in range")
    }
}

pub struct World {
    pub aws: Aws,
    pub store: RunStore,
    pub clock: Arc<TestClock>,
    fake: Arc<Mutex<Fake>>,
}

impl World {
    pub async fn new() -> Self {
        let database = dynoxide::Database::memory().expect("a database in memory");
        let dynamodb = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let dynamodb_at = dynamodb.local_addr().expect("bound");
        tokio::spawn(dynoxide::server::serve_on(dynamodb, database));

        let fake = Arc::new(Mutex::new(Fake::default()));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let url = format!("http://{}", listener.local_addr().expect("bound"));
        let router = fake::router(fake.clone(), dynamodb_at);
        tokio::spawn(async move { axum::serve(listener, router).await });

        let aws = Aws::at(Endpoint {
            url,
            region: "eu-central-1".to_owned(),
            credentials: Credentials::new("nobody", "nothing", None, None, "test"),
        });
        let clock = Arc::new(TestClock(AtomicI64::new(1_800_000_000_000)));
        let store = aws.store_with_clock(TABLE, clock.clone());
        store.create_table().await.expect("a new table");
        Self { aws, store, clock, fake }
    }

    pub fn fake(&self) -> MutexGuard<'_, Fake> {
        self.fake.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The sample run, QUEUED.
    pub async fn queued(&self) -> Run {
        self.queued_as(sample_run()).await
    }

    pub async fn queued_as(&self, run_id: RunId) -> Run {
        self.queued_asking(run_id, Resources::default()).await
    }

    /// A run that waits for a slot, QUEUED; the grace has passed since.
    pub async fn waiting(&self, run_id: RunId) {
        self.store
            .create(NewRun { waits: true, ..new_run(run_id) })
            .await
            .expect("the table answers");
        self.clock.advance(TimeDelta::seconds(61));
    }

    /// A run that asked for this, QUEUED.
    pub async fn queued_asking(&self, run_id: RunId, resources: Resources) -> Run {
        let new = NewRun { resources, ..new_run(run_id) };
        match self.store.create(new).await.expect("the table answers") {
            Created::New(run) => run,
            other => panic!("not created: {other:?}"),
        }
    }

    /// The sample run in that attempt, INITIALIZING, claimed by nobody.
    pub async fn initializing(&self, attempt: u32) -> Run {
        self.queued().await;
        let mut run = self.step(RunEvent::Initialize).await;
        while run.attempt < attempt {
            let lost = run.attempt;
            run = self.step(RunEvent::Preempt { attempt: lost, max_attempts: attempt }).await;
        }
        run
    }

    /// The sample run in that attempt, INITIALIZING, claimed by that task.
    pub async fn claimed(&self, attempt: u32, task_arn: &str) -> Run {
        self.initializing(attempt).await;
        self.claim(attempt, task_arn).await
    }

    /// That task claims that attempt of the sample run.
    pub async fn claim(&self, attempt: u32, task_arn: &str) -> Run {
        let token = self.run().await.token.expect("an attempt has a token");
        let claim = self.store.claim(sample_run(), attempt, &token, task_arn).await;
        match claim.expect("the table answers") {
            Claim::Claimed(run) => run,
            other => panic!("not claimed: {other:?}"),
        }
    }

    /// The sample run in that attempt, RUNNING in that task.
    pub async fn running(&self, attempt: u32, task_arn: &str) -> Run {
        self.claimed(attempt, task_arn).await;
        self.step(RunEvent::Run { attempt }).await
    }

    /// Tells the sample run of an event that has to move it.
    pub async fn step(&self, event: RunEvent) -> Run {
        match self.store.transition(sample_run(), event, Change::default()).await {
            Ok(Transition::Moved(run)) => run,
            other => panic!("{event:?} did not move the run: {other:?}"),
        }
    }

    /// The sample run as it is.
    pub async fn run(&self) -> Run {
        self.store.get(sample_run()).await.expect("the table answers").expect("the run exists")
    }

    /// Through which states the sample run has gone.
    pub async fn history(&self) -> Vec<RunState> {
        let events = self.store.events(sample_run()).await.expect("the table answers");
        events.into_iter().map(|event| event.to).collect()
    }

    /// The last thing that the sample run's log says.
    pub async fn said(&self) -> String {
        self.run().await.system_logs.pop().unwrap_or_default()
    }

    pub fn put(&self, key: String, content: impl Into<Vec<u8>>) {
        self.fake().objects.insert(key, content.into());
    }

    pub fn put_result(&self, result: &TaskResult) {
        let text = serde_json::to_vec(result).expect("a result is JSON");
        self.put(keys::result(result.run_id, result.attempt), text);
    }

    /// A JSON object of the bucket.
    pub fn object(&self, key: &str) -> Option<Value> {
        let fake = self.fake();
        let content = fake.objects.get(key)?;
        Some(serde_json::from_slice(content).expect("the object is JSON"))
    }
}

/// A run of Ann's that is submitted, with nothing asked for.
pub fn new_run(run_id: RunId) -> NewRun {
    NewRun {
        run_id,
        owner: "ann".to_owned(),
        summary: RequestSummary::default(),
        resources: Resources::default(),
        destination: None,
        idempotency: None,
        trace: Some(TraceParent::generate()),
        waits: false,
    }
}

/// The run of the events in `events`.
pub fn sample_run() -> RunId {
    SAMPLE_RUN.parse().expect("a run id")
}

/// A result of the sample run with one output file.
pub fn result(attempt: u32, outcome: TaskOutcome) -> TaskResult {
    let at = |seconds: i64| DateTime::from_timestamp(1_800_000_000 + seconds, 0);
    TaskResult {
        run_id: sample_run(),
        attempt,
        outcome,
        reason: None,
        exit_code: Some(0),
        cmd: vec!["cwltool".to_owned(), "main.cwl".to_owned()],
        start_time: at(5),
        end_time: at(65),
        outputs: stepwes_core::task::EngineOutputs::Cwl {
            object: json!({"out": {"class": "File", "location": "outdir:a%20b.txt"}}),
        },
        files: vec![OutputFile {
            path: "a b.txt".to_owned(),
            size: 3,
            sha1: "a9993e364706816aba3e25717850c26c9cd0d89d".to_owned(),
        }],
    }
}

/// A sample event.
pub fn event<T: DeserializeOwned>(function: &str, name: &str) -> T {
    serde_json::from_value(event_json(function, name))
        .unwrap_or_else(|error| panic!("events/{function}/{name}.json: {error}"))
}

/// A sample event as JSON.
pub fn event_json(function: &str, name: &str) -> Value {
    let path = events(function).join(format!("{name}.json"));
    let text = std::fs::read_to_string(&path)
        .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The names of a function's sample events.
pub fn event_names(function: &str) -> Vec<String> {
    let mut names: Vec<_> = std::fs::read_dir(events(function))
        .expect("the folder of sample events")
        .map(|entry| entry.expect("readable").path())
        .map(|path| path.file_stem().expect("a name").to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

fn events(function: &str) -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "..", "..", "events", function].iter().collect()
}
