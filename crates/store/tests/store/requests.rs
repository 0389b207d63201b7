//! What each operation costs: how many requests it sends.

use std::collections::BTreeMap;

use stepwes_core::{
    Clock as _,
    run_state::{RunEvent as E, RunState},
};

use crate::support::World;

fn requests(of: &[(&str, usize)]) -> BTreeMap<String, usize> {
    of.iter().map(|(operation, count)| ((*operation).to_owned(), *count)).collect()
}

#[tokio::test]
async fn each_operation_sends_so_many_requests_and_no_more() {
    let world = World::new().await;
    let wire = &world.wire;
    wire.sent();

    let new = world.keyed("ann", "k", "f");
    let run_id = new.run_id;
    world.store.create(new).await.expect("created");
    assert_eq!(wire.sent(), requests(&[("TransactWriteItems", 1)]), "create");
    world.store.create(world.keyed("ann", "k", "f")).await.expect("an answer");
    assert_eq!(wire.sent(), requests(&[("TransactWriteItems", 1)]), "create again");

    let run = world.step(run_id, E::Initialize).await;
    let change = requests(&[("GetItem", 1), ("TransactWriteItems", 1)]);
    assert_eq!(wire.sent(), change, "transition");
    world.tell(run_id, E::Initialize).await;
    assert_eq!(wire.sent(), requests(&[("GetItem", 1)]), "repeated transition");
    world.tell(run_id, E::Complete { attempt: 1 }).await;
    assert_eq!(wire.sent(), requests(&[("GetItem", 1)]), "refused transition");

    let token = run.token.expect("a token");
    world.store.claim(run_id, 1, &token, "arn:1").await.expect("an answer");
    assert_eq!(wire.sent(), requests(&[("GetItem", 1), ("UpdateItem", 1)]), "claim");
    world.store.claim(run_id, 1, &token, "arn:1").await.expect("an answer");
    assert_eq!(wire.sent(), requests(&[("GetItem", 1)]), "repeated claim");
    world.store.claim(run_id, 1, &token, "arn:2").await.expect("an answer");
    assert_eq!(wire.sent(), requests(&[("GetItem", 1)]), "refused claim");

    world.store.get(run_id).await.expect("an answer");
    assert_eq!(wire.sent(), requests(&[("GetItem", 1)]), "get");
    let state = world.store.state(run_id).await.expect("an answer");
    assert_eq!(state, Some(("ann".to_owned(), RunState::Initializing)));
    assert_eq!(wire.sent(), requests(&[("GetItem", 1)]), "state");
    assert_eq!(world.store.state(world.id()).await.expect("an answer"), None);
    wire.sent();
    world.store.idempotent("ann", "k").await.expect("an answer");
    assert_eq!(wire.sent(), requests(&[("GetItem", 1)]), "idempotent");
    world.store.events(run_id).await.expect("an answer");
    assert_eq!(wire.sent(), requests(&[("Query", 1)]), "events");
}

#[tokio::test]
async fn listing_and_counting_cost_the_same_however_many_runs_there_are() {
    let world = World::new().await;
    for _ in 0..3 {
        for _ in 0..60 {
            world.queued().await;
        }
        world.wire.sent();
        world.store.list("ann", 100, None).await.expect("a page");
        assert_eq!(world.wire.sent(), requests(&[("Query", 4)]), "list");
        world.store.counts().await.expect("an answer");
        assert_eq!(world.wire.sent(), requests(&[("Query", 1)]), "counts");
        world.store.unfinished(RunState::Queued, world.clock.now(), 20).await.expect("an answer");
        assert_eq!(world.wire.sent(), requests(&[("Query", 1)]), "unfinished");
    }
}
