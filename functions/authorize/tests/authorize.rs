//! authorize, by the events that API Gateway sends (payload format 2.0).

use std::sync::{
    Arc,
    atomic::{AtomicI64, Ordering},
};

use aws_smithy_http_client::Builder as HttpClient;
use chrono::{DateTime, TimeDelta, Utc};
use serde_json::{Value, json};
use stepwes_authorize::{State, handle};
use stepwes_core::{
    Clock,
    caller_token::{CallerToken, SecretDigest},
};
use stepwes_store::{RunStore, StoredToken};

/// The token of `events/authorize`.
const TOKEN: &str = "ada-laptop.c2FtcGxlLXNlY3JldC1mb3ItdGVzdHMtb25seS0wMDA";

/// A clock that moves when it is told to.
struct TestClock(AtomicI64);

impl Clock for TestClock {
    fn now(&self) -> DateTime<Utc> {
        DateTime::from_timestamp(self.0.load(Ordering::SeqCst), 0).expect("a time")
    }
}

struct World {
    state: State,
    clock: Arc<TestClock>,
}

impl World {
    async fn new() -> Self {
        let database = dynoxide::Database::memory().expect("a database in memory");
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("bound");
        tokio::spawn(dynoxide::server::serve_on(listener, database));
        let world = Self::at(&format!("http://{address}"));
        world.state.store.create_table().await.expect("a new table");
        world
    }

    fn at(url: &str) -> Self {
        let client = aws_sdk_dynamodb::Client::from_conf(
            aws_sdk_dynamodb::Config::builder()
                .behavior_version(aws_sdk_dynamodb::config::BehaviorVersion::latest())
                .region(aws_sdk_dynamodb::config::Region::new("eu-central-1"))
                .endpoint_url(url)
                .credentials_provider(aws_sdk_dynamodb::config::Credentials::new(
                    "nobody", "nothing", None, None, "test",
                ))
                .retry_config(aws_sdk_dynamodb::config::retry::RetryConfig::disabled())
                .http_client(HttpClient::new().build_http())
                .build(),
        );
        let clock = Arc::new(TestClock(AtomicI64::new(1_767_323_045)));
        let store = RunStore::new(client, "runs", clock.clone());
        Self { state: State { store, clock: clock.clone() }, clock }
    }

    /// Keeps the token of the sample events.
    async fn keep(&self, groups: &[&str], expires_at: Option<DateTime<Utc>>) {
        let token = CallerToken::parse(TOKEN).expect("a token");
        let stored = StoredToken {
            name: token.name().clone(),
            owner: "ada".to_owned(),
            groups: groups.iter().map(|group| (*group).to_owned()).collect(),
            digest: SecretDigest::of(&token).expect("randomness"),
            created_at: self.clock.now(),
            expires_at,
            description: None,
        };
        assert!(self.state.store.create_token(&stored).await.expect("kept"));
    }

    async fn decide(&self, event: &str) -> Value {
        let event = serde_json::from_str(event).expect("an event");
        let decision = handle(&self.state, event).await.expect("a decision");
        serde_json::to_value(decision).expect("JSON")
    }
}

macro_rules! event {
    ($name:literal) => {
        include_str!(concat!("../../../events/authorize/", $name, ".json"))
    };
}

fn refused() -> Value {
    json!({"isAuthorized": false})
}

#[tokio::test]
async fn a_token_says_whose_the_request_is_as_bearer_and_as_basic() {
    let world = World::new().await;
    world.keep(&["lab", "admins"], None).await;
    for event in [event!("bearer"), event!("basic")] {
        assert_eq!(
            world.decide(event).await,
            json!({"isAuthorized": true, "context": {"owner": "ada", "groups": "lab,admins"}})
        );
    }
}

#[tokio::test]
async fn an_owner_without_groups_has_none_in_the_context() {
    let world = World::new().await;
    world.keep(&[], None).await;
    let expected = json!({"isAuthorized": true, "context": {"owner": "ada"}});
    assert_eq!(world.decide(event!("bearer")).await, expected);
    let shouted = event!("bearer").replace("\"authorization\"", "\"Authorization\"");
    assert_eq!(world.decide(&shouted).await, expected);
}

#[tokio::test]
async fn whoever_has_no_token_that_counts_is_refused() {
    let world = World::new().await;
    world.keep(&[], None).await;
    for event in [event!("unknown"), event!("malformed"), event!("missing"), "{}"] {
        assert_eq!(world.decide(event).await, refused(), "{event}");
    }
    let wrong = event!("bearer").replace("ada-laptop.c2Ft", "ada-laptop.C2Ft");
    assert_ne!(wrong, event!("bearer"));
    assert_eq!(world.decide(&wrong).await, refused());
}

#[tokio::test]
async fn a_token_that_has_expired_is_refused_though_it_is_still_there() {
    let world = World::new().await;
    let end = world.clock.now() + TimeDelta::hours(1);
    world.keep(&[], Some(end)).await;
    world.clock.0.fetch_add(3599, Ordering::SeqCst);
    assert_eq!(world.decide(event!("bearer")).await["isAuthorized"], true);
    world.clock.0.fetch_add(1, Ordering::SeqCst);
    assert_eq!(world.decide(event!("bearer")).await, refused());
    assert_eq!(world.state.store.tokens().await.expect("listed").len(), 1);
}

#[tokio::test]
async fn a_revoked_token_is_refused() {
    let world = World::new().await;
    world.keep(&[], None).await;
    let name = "ada-laptop".parse().expect("a name");
    assert!(world.state.store.revoke_token(&name).await.expect("revoked"));
    assert_eq!(world.decide(event!("bearer")).await, refused());
}

#[tokio::test]
async fn when_the_table_cannot_be_read_nobody_is_let_in_and_no_table_is_asked_about_garbage() {
    let taken = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = taken.local_addr().expect("bound");
    drop(taken);
    let world = World::at(&format!("http://{address}"));
    let event = serde_json::from_str(event!("bearer")).expect("an event");
    let failure = handle(&world.state, event).await.expect_err("no table");
    assert_eq!(failure.error_type(), "Stepwes.Unavailable");
    assert!(!failure.to_string().contains("ada"), "{failure}");
    assert_eq!(world.decide(event!("malformed")).await, refused());
    assert_eq!(world.decide(event!("missing")).await, refused());
}
