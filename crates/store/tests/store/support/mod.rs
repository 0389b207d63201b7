//! A store on a DynamoDB of its own, with a clock that stands still and a wire that can be
//! watched and cut.

pub(crate) mod wire;

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use aws_sdk_dynamodb::{
    Client, Config,
    config::{BehaviorVersion, Credentials, Region, retry::RetryConfig},
    types::AttributeValue,
};
use chrono::{DateTime, TimeDelta, Utc};
use stepwes_core::{
    Clock, IdGenerator as _, RandomIds, TraceParent,
    resources::Resources,
    run::{RequestSummary, Run, RunId},
    run_state::{Position, RunEvent, RunState, Step},
};
use stepwes_store::{Change, Created, Idempotency, NewRun, RunEventItem, RunStore, Transition};

use wire::Wire;

pub(crate) const TABLE: &str = "runs";

/// A clock that moves when it is told to.
pub(crate) struct TestClock(AtomicI64);

impl TestClock {
    pub(crate) fn advance(&self, by: TimeDelta) {
        self.0.fetch_add(by.num_milliseconds(), Ordering::SeqCst);
    }
}

impl Clock for TestClock {
    fn now(&self) -> DateTime<Utc> {
        DateTime::from_timestamp_millis(self.0.load(Ordering::SeqCst)).expect("in range")
    }
}

/// A store, its table and what lies under it.
#[derive(Clone)]
pub(crate) struct World {
    pub(crate) store: RunStore,
    pub(crate) client: Client,
    pub(crate) clock: Arc<TestClock>,
    pub(crate) wire: Wire,
}

impl World {
    /// With a table, and an SDK that does not retry: what retries then is the store.
    pub(crate) async fn new() -> Self {
        let world = Self::without_table(RetryConfig::disabled()).await;
        world.store.create_table().await.expect("a new table");
        world
    }

    /// Gives those that wait their slots; gives who got one.
    pub(crate) async fn admit(&self, limit: Option<u32>, newest: Option<RunId>) -> Vec<RunId> {
        let mut admission = self.store.admission(limit, newest);
        let mut given = Vec::new();
        while let Some(run_id) = admission.next().await.expect("an answer") {
            given.push(run_id);
        }
        given
    }

    /// With a table, and an SDK that retries at once.
    pub(crate) async fn retrying() -> Self {
        let retries = RetryConfig::standard().with_initial_backoff(Duration::from_millis(1));
        let world = Self::without_table(retries).await;
        world.store.create_table().await.expect("a new table");
        world
    }

    pub(crate) async fn without_table(retries: RetryConfig) -> Self {
        let database = dynoxide::Database::memory().expect("a database in memory");
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("bound");
        tokio::spawn(dynoxide::server::serve_on(listener, database));
        let wire = Wire::default();
        let config = Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .region(Region::new("eu-central-1"))
            .endpoint_url(format!("http://{address}"))
            .credentials_provider(Credentials::new("nobody", "nothing", None, None, "test"))
            .retry_config(retries)
            .http_client(wire.clone())
            .build();
        let client = Client::from_conf(config);
        let clock = Arc::new(TestClock(AtomicI64::new(1_700_000_000_000)));
        let store = RunStore::new(client.clone(), TABLE, clock.clone());
        Self { store, client, clock, wire }
    }

    /// A new id, later than all before it.
    pub(crate) fn id(&self) -> RunId {
        self.clock.advance(TimeDelta::milliseconds(1));
        RandomIds.run_id(self.clock.now())
    }

    /// A submission by `owner`.
    pub(crate) fn submission(&self, owner: &str) -> NewRun {
        NewRun {
            run_id: self.id(),
            owner: owner.to_owned(),
            summary: summary("x"),
            resources: Resources::default(),
            destination: None,
            idempotency: None,
            trace: Some(TraceParent::generate()),
            waits: false,
        }
    }

    /// A submission by `owner` under an idempotency key that lasts an hour.
    pub(crate) fn keyed(&self, owner: &str, key: &str, fingerprint: &str) -> NewRun {
        let idempotency = Idempotency {
            key: key.to_owned(),
            fingerprint: fingerprint.to_owned(),
            expires_at: self.clock.now() + TimeDelta::hours(1),
        };
        NewRun { idempotency: Some(idempotency), ..self.submission(owner) }
    }

    /// A queued run of `ann`.
    pub(crate) async fn queued(&self) -> Run {
        match self.store.create(self.submission("ann")).await {
            Ok(Created::New(run)) => run,
            other => panic!("not created: {other:?}"),
        }
    }

    /// Tells a run of an event that has to move it.
    pub(crate) async fn step(&self, run_id: RunId, event: RunEvent) -> Run {
        match self.tell(run_id, event).await {
            Transition::Moved(run) => run,
            other => panic!("{event:?} did not move the run: {other:?}"),
        }
    }

    /// Tells a run of an event.
    pub(crate) async fn tell(&self, run_id: RunId, event: RunEvent) -> Transition {
        self.store.transition(run_id, event, Change::default()).await.expect("an answer")
    }

    /// A run in its first attempt, INITIALIZING.
    pub(crate) async fn initializing(&self) -> Run {
        let run = self.queued().await;
        self.step(run.run_id, RunEvent::Initialize).await
    }

    /// A run that took these events.
    pub(crate) async fn after(&self, events: &[RunEvent]) -> Run {
        let mut run = self.queued().await;
        for event in events {
            run = self.step(run.run_id, *event).await;
        }
        run
    }

    /// A run that must be there.
    pub(crate) async fn read(&self, run_id: RunId) -> Run {
        self.store.get(run_id).await.expect("an answer").expect("a run")
    }

    /// The states that have runs, and how many.
    pub(crate) async fn counts(&self) -> BTreeMap<RunState, i64> {
        let counts = self.store.counts().await.expect("an answer");
        assert_eq!(counts.len(), RunState::ALL.len(), "every state is named");
        counts.into_iter().filter(|(_, count)| *count != 0).collect()
    }

    /// The run's history, after checking that it has no gap and ends where the run is.
    pub(crate) async fn history(&self, run_id: RunId) -> Vec<RunEventItem> {
        let run = self.read(run_id).await;
        let events = self.store.events(run_id).await.expect("an answer");
        assert_history(&run, &events);
        events
    }

    /// Replaces one attribute of a run's item behind the store's back.
    pub(crate) async fn spoil(&self, run_id: RunId, field: &str, value: AttributeValue) {
        self.client
            .update_item()
            .table_name(TABLE)
            .key("PK", AttributeValue::S(format!("RUN#{run_id}")))
            .key("SK", AttributeValue::S("RUN".into()))
            .update_expression("SET #field = :value")
            .expression_attribute_names("#field", field)
            .expression_attribute_values(":value", value)
            .send()
            .await
            .expect("written");
    }
}

/// A request's summary, told from others by its tag.
pub(crate) fn summary(tag: &str) -> RequestSummary {
    RequestSummary {
        workflow_type: "CWL".into(),
        workflow_type_version: "v1.2".into(),
        workflow_engine: "cwltool".into(),
        workflow_url: "main.cwl".into(),
        tags: [("which".to_owned(), tag.to_owned()), (String::new(), "\u{1F9EC} \"#".to_owned())]
            .into(),
    }
}

/// Checks a whole history: versions from 1 without a gap, each change beginning where the last
/// ended, allowed by the state table, and the last one leading to the run as it is.
pub(crate) fn assert_history(run: &Run, events: &[RunEventItem]) {
    let versions: Vec<_> = events.iter().map(|event| event.version).collect();
    assert_eq!(versions, (1..=run.version).collect::<Vec<_>>(), "a gap in {events:#?}");
    let mut at: Option<Position> = None;
    for event in events {
        assert_eq!(event.run_id, run.run_id);
        assert_eq!(event.from, at.map(|at| at.state), "a broken chain in {events:#?}");
        let to = Position { state: event.to, attempt: event.attempt };
        match at {
            None => assert_eq!((to, event.event.as_str()), (Position::NEW, "enqueue")),
            Some(from) => assert_eq!(
                from.apply(spoken(&event.event, from, event.to)),
                Ok(Step::Move(to)),
                "the table does not allow {event:#?}"
            ),
        }
        at = Some(to);
    }
    assert_eq!(at, Some(run.position()));
    assert_eq!(events.last().map(|event| event.time), Some(run.updated_at));
}

/// The event of that name, of the attempt that the run was in.
fn spoken(name: &str, Position { attempt, .. }: Position, to: RunState) -> RunEvent {
    match name {
        "initialize" => RunEvent::Initialize,
        "run" => RunEvent::Run { attempt },
        "complete" => RunEvent::Complete { attempt },
        "executor_error" => RunEvent::ExecutorError { attempt },
        "preempt" => {
            let max_attempts = if to == RunState::Preempted { attempt } else { attempt + 1 };
            RunEvent::Preempt { attempt, max_attempts }
        }
        "system_error" => RunEvent::SystemError { attempt },
        "cancel" => RunEvent::Cancel,
        "canceled" => RunEvent::Canceled { attempt },
        other => panic!("there is no event {other:?}"),
    }
}
