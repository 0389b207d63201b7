//! What an operation costs does not depend on how many runs there are.

use std::collections::BTreeMap;

use chrono::TimeDelta;
use stepwes_core::{
    Clock as _,
    run_state::{RunEvent as E, RunState as S},
};
use stepwes_store::{NewRun, RunFilter, schema::COUNT_SHARDS};

use crate::support::World;

/// Calls of each operation, and items read or written.
type Cost = (BTreeMap<String, usize>, usize);

/// What each operation costs with that many more runs of one owner.
async fn costs(world: &World, more: usize) -> BTreeMap<&'static str, Cost> {
    let many: Vec<_> = (0..more).map(|_| world.submission("ann")).collect();
    world.store.seed(&many, &[E::SystemError { attempt: 0 }]).await.expect("written");
    let running = world.initializing().await;
    let store = &world.store;
    let failed = RunFilter { states: [S::SystemError].into(), ..RunFilter::default() };
    let live = RunFilter { states: [S::Initializing].into(), ..RunFilter::default() };
    let newest = RunFilter {
        created_after: Some(running.created_at),
        workflow_type: Some("CWL".to_owned()),
        ..RunFilter::default()
    };
    let mut costs = BTreeMap::new();
    let mut note = |name| {
        costs.insert(name, (world.wire.sent(), world.wire.items()));
    };
    note("seeding");
    store.list("ann", 20, None).await.expect("a page");
    note("list");
    let middle = many[more / 2].run_id;
    store.list("ann", 20, Some(middle)).await.expect("a page");
    note("list, a page in the middle");
    let page = store.list_where("ann", &live, 20, None).await.expect("a page");
    assert_eq!(page.runs.len(), 1);
    note("list by a state of those that go on");
    let page = store.list_where("ann", &newest, 20, None).await.expect("a page");
    assert_eq!(page.runs.len(), 1);
    note("list by time and type");
    let page = store.list_where("ann", &failed, 20, None).await.expect("a page");
    assert_eq!(page.runs.len(), 20);
    note("list by a state of those that have ended");
    store.state(running.run_id).await.expect("an answer");
    note("status");
    store.counts().await.expect("counts");
    // As many as there are shards that were written to, which are taken at random.
    note("service-info");
    let new = world.keyed("ann", &format!("key {more}"), "print");
    store.idempotent("ann", "key").await.expect("an answer");
    store.create(new).await.expect("created");
    note("submit");
    let waiting = NewRun { waits: true, ..world.submission("ann") };
    store.create(waiting).await.expect("created");
    assert_eq!(world.admit(Some(1), None).await.len(), 1);
    note("submit, with a slot");
    world.step(running.run_id, E::Run { attempt: 1 }).await;
    note("a state change");
    let looked = store.unfinished(S::Running, world.clock.now() + TimeDelta::hours(1), 10).await;
    assert_eq!(looked.expect("an answer"), [running.run_id]);
    note("reconcile's look");
    costs.remove("seeding");
    let counts = costs.get_mut("service-info").expect("noted");
    assert!(counts.1 <= usize::from(COUNT_SHARDS));
    counts.1 = COUNT_SHARDS.into();
    // As it was, for the next time.
    world.step(running.run_id, E::Complete { attempt: 1 }).await;
    for run_id in store.slots().await.expect("slots").into_values() {
        world.step(run_id, E::SystemError { attempt: 0 }).await;
    }
    costs
}

#[tokio::test]
async fn every_operation_costs_the_same_with_few_runs_and_with_many() {
    // Enough that no page of the smaller table has all runs in it.
    let world = World::new().await;
    // The slot is there from then on.
    world.store.create(NewRun { waits: true, ..world.submission("ann") }).await.expect("created");
    for run_id in world.admit(Some(1), None).await {
        world.step(run_id, E::SystemError { attempt: 0 }).await;
    }
    let few = costs(&world, 1_200).await;
    let many = costs(&world, 3_800).await;
    assert_eq!(few, many);
    insta::assert_snapshot!(
        many.iter()
            .map(|(name, (calls, items))| {
                let calls: Vec<_> = calls.iter().map(|(name, n)| format!("{n} {name}")).collect();
                format!("{name}: {}, {items} items", calls.join(", "))
            })
            .collect::<Vec<_>>()
            .join("\n"),
        @r"
        a state change: 1 GetItem, 1 TransactWriteItems, 4 items
        list: 4 Query, 84 items
        list by a state of those that go on: 1 BatchGetItem, 1 Query, 2 items
        list by a state of those that have ended: 4 Query, 1000 items
        list by time and type: 1 BatchGetItem, 4 Query, 2 items
        list, a page in the middle: 4 Query, 84 items
        reconcile's look: 1 Query, 1 items
        service-info: 1 Query, 16 items
        status: 1 GetItem, 1 items
        submit: 1 GetItem, 1 TransactWriteItems, 4 items
        submit, with a slot: 3 Query, 2 TransactWriteItems, 8 items
        "
    );
}
