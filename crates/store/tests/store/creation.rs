//! A submission creates one run, however often it is sent.

use std::collections::BTreeSet;

use chrono::TimeDelta;
use futures::future::join_all;
use stepwes_core::run_state::RunState;
use stepwes_store::{Created, IdempotentRun, NewRun, StoreError};

use crate::support::{World, summary};

#[tokio::test]
async fn the_same_key_and_request_answer_the_same_run() {
    let world = World::new().await;
    let new = world.keyed("ann", "k", "f");
    let Ok(Created::New(run)) = world.store.create(new.clone()).await else { panic!("not new") };
    let again = world.keyed("ann", "k", "f");
    assert_eq!(
        world.store.create(again.clone()).await.expect("an answer"),
        Created::Existing(run.run_id)
    );
    assert_eq!(world.store.create(new).await.expect("an answer"), Created::Existing(run.run_id));
    assert_eq!(world.store.get(again.run_id).await.expect("an answer"), None, "nothing is left");
    assert_eq!(world.counts().await, [(RunState::Queued, 1)].into());
    assert_eq!(
        world.store.idempotent("ann", "k").await.expect("an answer"),
        Some(IdempotentRun { run_id: run.run_id, fingerprint: "f".into() })
    );
}

#[tokio::test]
async fn a_key_used_for_another_request_creates_nothing() {
    let world = World::new().await;
    world.store.create(world.keyed("ann", "k", "f")).await.expect("created");
    let other = world.keyed("ann", "k", "g");
    assert_eq!(world.store.create(other.clone()).await.expect("an answer"), Created::KeyReused);
    assert_eq!(world.store.get(other.run_id).await.expect("an answer"), None);
    assert!(world.store.events(other.run_id).await.expect("an answer").is_empty());
    assert_eq!(world.counts().await, [(RunState::Queued, 1)].into());
}

#[tokio::test]
async fn an_expired_key_is_free_though_its_item_is_still_there() {
    let world = World::new().await;
    world.store.create(world.keyed("ann", "k", "f")).await.expect("created");
    world.clock.advance(TimeDelta::hours(2));
    assert_eq!(world.store.idempotent("ann", "k").await.expect("an answer"), None);
    let new = world.keyed("ann", "k", "g");
    assert!(matches!(world.store.create(new.clone()).await, Ok(Created::New(_))));
    let known = world.store.idempotent("ann", "k").await.expect("an answer").expect("a run");
    assert_eq!(known.run_id, new.run_id);
}

#[tokio::test]
async fn keys_count_within_their_owner_whatever_characters_they_have() {
    let world = World::new().await;
    let long = "k#".repeat(4000);
    let pairs = [
        ("a", "b#c"),
        ("a#b", "c"),
        ("a#b#c", ""),
        ("", "a#b#c"),
        ("\u{1F9EC}", "%23"),
        ("a", &long),
    ];
    for (owner, key) in pairs {
        let made = world.store.create(world.keyed(owner, key, "f")).await;
        assert!(matches!(made, Ok(Created::New(_))), "{owner:?} {key:?}: {made:?}");
    }
    assert_eq!(world.counts().await, [(RunState::Queued, 6)].into());
    assert_eq!(world.store.idempotent("a", "c").await.expect("an answer"), None);
}

#[tokio::test]
async fn an_id_sent_again_is_the_same_run_and_anothers_id_is_refused() {
    let world = World::new().await;
    let new = world.submission("ann");
    world.store.create(new.clone()).await.expect("created");
    assert_eq!(
        world.store.create(new.clone()).await.expect("an answer"),
        Created::Existing(new.run_id)
    );
    for other in [
        NewRun { owner: "bob".into(), ..new.clone() },
        NewRun { summary: summary("another"), ..new.clone() },
    ] {
        let error = world.store.create(other).await.expect_err("taken");
        assert!(matches!(error, StoreError::RunIdTaken(id) if id == new.run_id));
        assert!(!error.is_retryable());
    }
    assert_eq!(world.counts().await, [(RunState::Queued, 1)].into());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifty_at_once_with_the_same_key_make_one_run() {
    let world = World::new().await;
    let tries = (0..50).map(|_| {
        let (store, new) = (world.store.clone(), world.keyed("ann", "k", "f"));
        tokio::spawn(async move { store.create(new).await.expect("an answer") })
    });
    let mut created = Vec::new();
    let mut named = BTreeSet::new();
    for answer in join_all(tries).await {
        match answer.expect("no panic") {
            Created::New(run) => created.push(run.run_id),
            Created::Existing(run_id) => drop(named.insert(run_id)),
            Created::KeyReused => panic!("it is the same request"),
        }
    }
    assert_eq!(created.len(), 1);
    assert_eq!(named, created.into_iter().collect());
    assert_eq!(world.counts().await, [(RunState::Queued, 1)].into());
    assert_eq!(world.store.list("ann", 100, None).await.expect("an answer").runs.len(), 1);
}
