//! Runs that wait for a slot, and the slots.

use futures::future::join_all;
use stepwes_core::{
    run::{Place, RunId},
    run_state::{RunEvent as E, RunState as S},
};
use stepwes_store::{NewRun, Transition};

use crate::support::{World, wire::Fault};

async fn waiting(world: &World) -> RunId {
    let new = NewRun { waits: true, ..world.submission("ann") };
    let run_id = new.run_id;
    world.store.create(new).await.expect("created");
    run_id
}

async fn several(world: &World, n: usize) -> Vec<RunId> {
    let mut runs = Vec::new();
    for _ in 0..n {
        runs.push(waiting(world).await);
    }
    runs
}

async fn admit(world: &World, limit: u32) -> Vec<RunId> {
    world.admit(Some(limit), None).await
}

/// The runs that have a slot, by the slots and by the runs themselves, which have to agree.
async fn at_work(world: &World, all: &[RunId]) -> Vec<RunId> {
    let slots = world.store.slots().await.expect("slots");
    for (slot, run_id) in &slots {
        assert_eq!(world.read(*run_id).await.place, Some(Place::Slot(*slot)));
    }
    let mut with_slot = Vec::new();
    for run_id in all {
        if let Some(Place::Slot(slot)) = world.read(*run_id).await.place {
            assert_eq!(slots.get(&slot), Some(run_id));
            with_slot.push(*run_id);
        }
    }
    assert_eq!(with_slot.len(), slots.len());
    with_slot
}

#[tokio::test]
async fn slots_are_given_in_the_order_of_submission_and_again_when_a_run_ends() {
    let world = World::new().await;
    let runs = several(&world, 5).await;
    assert_eq!(world.store.waiting(10).await.expect("an answer"), runs);
    assert_eq!(admit(&world, 2).await, runs[..2]);
    assert_eq!(admit(&world, 2).await, []);
    assert_eq!(at_work(&world, &runs).await, runs[..2]);
    let first = world.read(runs[0]).await;
    assert_eq!(
        (first.state, first.version),
        (S::Queued, 1),
        "to wait no longer is no state change"
    );

    for event in [E::Initialize, E::Run { attempt: 1 }] {
        world.step(runs[1], event).await;
        assert_eq!(admit(&world, 2).await, [], "it has its slot until it ends");
    }
    world.step(runs[1], E::Complete { attempt: 1 }).await;
    assert_eq!(world.read(runs[1]).await.place, None);
    assert_eq!(admit(&world, 2).await, [runs[2]]);
    assert_eq!(at_work(&world, &runs).await, [runs[0], runs[2]]);

    // A larger limit, and none.
    assert_eq!(admit(&world, 3).await, [runs[3]]);
    assert_eq!(admit(&world, 1).await, [], "nobody loses a slot that he has");
    assert_eq!(world.admit(None, None).await, [runs[4]]);
    assert_eq!(world.read(runs[4]).await.place, None);
    assert_eq!(world.store.waiting(10).await.expect("an answer"), []);
}

#[tokio::test]
async fn every_end_frees_the_slot_and_none_is_held_by_a_run_that_left_the_queue() {
    for ends in [
        vec![E::Initialize, E::Run { attempt: 1 }, E::Complete { attempt: 1 }],
        vec![E::Initialize, E::ExecutorError { attempt: 1 }],
        vec![E::SystemError { attempt: 0 }],
        vec![
            E::Initialize,
            E::Preempt { attempt: 1, max_attempts: 2 },
            E::Preempt { attempt: 2, max_attempts: 2 },
        ],
        vec![E::Cancel, E::Canceled { attempt: 0 }],
        vec![E::Initialize, E::Cancel, E::Canceled { attempt: 1 }],
    ] {
        let world = World::new().await;
        let run_id = waiting(&world).await;
        assert_eq!(admit(&world, 1).await, [run_id]);
        for event in &ends {
            assert_eq!(world.store.slots().await.expect("slots").len(), 1, "{ends:?}");
            world.step(run_id, *event).await;
        }
        assert_eq!(world.store.slots().await.expect("slots").len(), 0, "{ends:?}");
    }
    for leaves in [E::Cancel, E::SystemError { attempt: 0 }, E::Initialize] {
        let world = World::new().await;
        let (leaving, next) = (waiting(&world).await, waiting(&world).await);
        world.step(leaving, leaves).await;
        assert_eq!(world.store.waiting(10).await.expect("an answer"), [next]);
        assert_eq!(admit(&world, 1).await, [next], "{leaves:?}");
        assert_eq!(at_work(&world, &[leaving, next]).await, [next]);
    }
}

#[tokio::test]
async fn a_run_that_is_given_a_slot_while_it_is_cancelled_gives_it_back() {
    let world = World::new().await;
    let run_id = waiting(&world).await;
    let admitting = world.clone();
    let meanwhile = Box::pin(async move {
        assert_eq!(admit(&admitting, 1).await, [run_id]);
    });
    world.wire.next("TransactWriteItems", Fault::Meanwhile(meanwhile));
    assert!(matches!(world.tell(run_id, E::Cancel).await, Transition::Moved(_)));
    assert_eq!(at_work(&world, &[run_id]).await, [run_id], "it has it until it has ended");
    world.step(run_id, E::Canceled { attempt: 0 }).await;
    assert_eq!(at_work(&world, &[run_id]).await, []);
}

#[tokio::test]
async fn whoever_looks_at_once_no_run_and_no_slot_is_given_twice() {
    let world = World::new().await;
    let runs = several(&world, 12).await;
    let looks = join_all((0..8).map(|_| admit(&world, 5))).await;
    let mut given = looks.concat();
    given.sort_unstable();
    assert_eq!(given, runs[..5]);
    assert_eq!(at_work(&world, &runs).await, runs[..5]);
}

#[tokio::test]
async fn the_newest_has_its_turn_though_the_index_does_not_know_it_yet() {
    let world = World::new().await;
    let old = waiting(&world).await;
    let new = waiting(&world).await;
    let nobody = serde_json::json!({"Items": [], "Count": 0, "ScannedCount": 0}).to_string();
    let slots = || Fault::Answer(200, nobody.clone());
    // The slots, then those that wait.
    world.wire.next("Query", slots());
    world.wire.next("Query", slots());
    assert_eq!(world.admit(Some(1), Some(new)).await, [new]);
    assert_eq!(world.admit(Some(2), Some(new)).await, [old]);
}

#[tokio::test]
async fn each_has_its_slot_before_the_next_so_that_little_is_left_by_who_dies() {
    let world = World::new().await;
    let runs = several(&world, 3).await;
    let mut admission = world.store.admission(Some(3), None);
    assert_eq!(admission.next().await.expect("an answer"), Some(runs[0]));
    assert_eq!(at_work(&world, &runs).await, runs[..1]);
    // Of another one, meanwhile.
    assert_eq!(admit(&world, 2).await, runs[1..2]);
    assert_eq!(admission.next().await.expect("an answer"), Some(runs[2]));
    assert_eq!(admission.next().await.expect("an answer"), None);
}

#[tokio::test]
async fn however_many_wait_each_is_read_once_and_the_newest_has_its_turn_last() {
    let world = World::new().await;
    let runs = several(&world, 120).await;
    let newest = *runs.last().expect("some");
    world.wire.sent();
    world.wire.items();
    assert_eq!(world.admit(Some(60), Some(newest)).await, runs[..60]);
    assert_eq!(world.admit(None, Some(newest)).await, runs[60..]);
    assert!(world.wire.sent()["Query"] <= 10);
    // The run and its slot are two; of those that wait some are read again behind the last slot.
    let items = world.wire.items();
    assert!(items <= 4 * runs.len(), "{items}");
}

#[tokio::test]
async fn an_answer_that_is_lost_costs_neither_the_run_nor_the_slot() {
    for fault in [Fault::LostAnswer, Fault::LostRequest, Fault::cancelled(&["TransactionConflict"])]
    {
        let world = World::new().await;
        let runs = several(&world, 2).await;
        world.wire.next("TransactWriteItems", fault);
        assert_eq!(admit(&world, 1).await, runs[..1]);
        assert_eq!(at_work(&world, &runs).await, runs[..1]);
    }
    let world = World::new().await;
    let runs = several(&world, 3).await;
    // The second is given up; the first is known all the same.
    world.wire.next("TransactWriteItems", Fault::Meanwhile(Box::pin(async {})));
    world.wire.next("TransactWriteItems", Fault::error(400, "AccessDeniedException"));
    let mut admission = world.store.admission(Some(3), None);
    assert_eq!(admission.next().await.expect("an answer"), Some(runs[0]));
    admission.next().await.expect_err("denied");
    assert_eq!(admit(&world, 3).await, runs[1..]);
}

#[tokio::test]
async fn slots_of_runs_that_do_not_have_them_are_freed() {
    let world = World::new().await;
    let runs = several(&world, 2).await;
    assert_eq!(admit(&world, 1).await, runs[..1]);
    assert_eq!(world.store.free_lost_slots().await.expect("an answer"), []);
    // Its item is of another backup than the slots.
    world.spoil(runs[0], "place", aws_sdk_dynamodb::types::AttributeValue::S("7".into())).await;
    assert_eq!(admit(&world, 1).await, []);
    assert_eq!(world.store.free_lost_slots().await.expect("an answer"), runs[..1]);
    assert_eq!(admit(&world, 1).await, runs[1..]);
}
