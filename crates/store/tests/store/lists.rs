//! Pages of runs, newest first, and the runs that have not ended.

use std::collections::BTreeMap;

use chrono::TimeDelta;
use stepwes_core::{
    Clock as _,
    run::{RequestSummary, RunId},
    run_state::{RunEvent as E, RunState as S},
};
use stepwes_store::{Change, NewRun, Transition};

use crate::support::{World, summary};

async fn submit(world: &World, owner: &str) -> RunId {
    let new = world.submission(owner);
    let run_id = new.run_id;
    world.store.create(new).await.expect("created");
    run_id
}

#[tokio::test]
async fn pages_have_every_run_once_while_new_runs_arrive() {
    let world = World::new().await;
    let mut expected = Vec::new();
    for i in 0..250 {
        expected.push(submit(&world, "ann").await);
        if i % 25 == 0 {
            submit(&world, "bob").await;
            submit(&world, "ann#1").await;
        }
    }
    expected.reverse();
    for page_size in [1000, 249, 37] {
        let mut seen = Vec::new();
        let mut after = None;
        let mut newer = 0;
        loop {
            let page = world.store.list("ann", page_size, after).await.expect("a page");
            assert!(page.runs.len() <= page_size as usize);
            seen.extend(page.runs.iter().map(|run| run.run_id));
            if page.next.is_some() {
                assert_eq!(page.next, page.runs.last().map(|run| run.run_id));
                expected.insert(0, submit(&world, "ann").await);
                newer += 1;
            }
            after = page.next;
            if after.is_none() {
                break;
            }
        }
        assert_eq!(seen, expected[newer..], "in pages of {page_size}");
    }
}

#[tokio::test]
async fn no_page_ends_early_though_all_runs_are_in_one_shard() {
    let world = World::new().await;
    let mut expected = Vec::new();
    while expected.len() < 5 {
        let new = world.submission("ann");
        // The last digit of an id is what spreads runs over the shards.
        if new.run_id.to_string().ends_with(['0', '4', '8', 'c']) {
            expected.insert(0, new.run_id);
            world.store.create(new).await.expect("created");
        }
    }
    for page_size in 1..7 {
        let mut seen = Vec::new();
        let mut after = None;
        loop {
            let page = world.store.list("ann", page_size, after).await.expect("a page");
            assert!(!page.runs.is_empty(), "a page that was promised has something");
            seen.extend(page.runs.iter().map(|run| run.run_id));
            after = page.next;
            if after.is_none() {
                break;
            }
        }
        assert_eq!(seen, expected, "in pages of {page_size}");
    }
}

#[tokio::test]
async fn a_listed_run_shows_state_times_and_tags() {
    let world = World::new().await;
    let run = world.initializing().await;
    let change = Change { start_time: Some(world.clock.now()), ..Change::default() };
    world.store.transition(run.run_id, E::Run { attempt: 1 }, change).await.expect("an answer");
    world.clock.advance(TimeDelta::seconds(9));
    let Transition::Moved(run) = world.tell(run.run_id, E::Complete { attempt: 1 }).await else {
        panic!("it did not move")
    };
    let page = world.store.list("ann", 10, None).await.expect("a page");
    let [listed] = page.runs.as_slice() else { panic!("one run: {page:?}") };
    assert_eq!((listed.run_id, listed.state), (run.run_id, S::Complete));
    assert_eq!((listed.start_time, listed.end_time), (run.start_time, run.end_time));
    assert!(listed.end_time > listed.start_time);
    assert_eq!(listed.tags, summary("x").tags);
    assert_eq!(page.next, None);
}

#[tokio::test]
async fn an_owner_with_no_runs_has_an_empty_page() {
    let world = World::new().await;
    submit(&world, "ann").await;
    for stranger in ["bob", "", "ann#", "ann#0", "an"] {
        let page = world.store.list(stranger, 10, None).await.expect("a page");
        assert!(page.runs.is_empty() && page.next.is_none(), "{stranger:?}");
    }
}

#[tokio::test]
async fn a_page_is_full_though_one_answer_cannot_hold_its_tags() {
    let world = World::new().await;
    // Of thirteen runs, one of the four shards has four at least: more than the 1 MB of an answer.
    let tags: BTreeMap<_, _> = [("big".to_owned(), "x".repeat(300_000))].into();
    let mut expected = Vec::new();
    for _ in 0..13 {
        let new = NewRun {
            summary: RequestSummary { tags: tags.clone(), ..summary("x") },
            ..world.submission("ann")
        };
        expected.insert(0, new.run_id);
        world.store.create(new).await.expect("created");
    }
    world.wire.sent();
    let page = world.store.list("ann", 13, None).await.expect("a page");
    assert!(world.wire.sent().get("Query") > Some(&4), "it took more than one answer a shard");
    assert_eq!(page.runs.iter().map(|run| run.run_id).collect::<Vec<_>>(), expected);
    assert!(page.runs.iter().all(|run| run.tags == tags));
}

#[tokio::test]
async fn the_unfinished_of_a_state_come_oldest_first_and_the_ended_never() {
    let world = World::new().await;
    let mut queued = Vec::new();
    for _ in 0..5 {
        queued.push(submit(&world, "ann").await);
        submit(&world, "bob").await;
        world.clock.advance(TimeDelta::minutes(1));
    }
    let canceling = world.after(&[E::Cancel]).await;
    world.after(&[E::SystemError { attempt: 0 }]).await;
    world.clock.advance(TimeDelta::minutes(1));
    let later = world.clock.now();
    let unfinished = async |state, before, limit| {
        world.store.unfinished(state, before, limit).await.expect("an answer")
    };

    let all = unfinished(S::Queued, later, 100).await;
    assert_eq!(all.len(), 10);
    assert_eq!(all.iter().filter(|id| queued.contains(id)).copied().collect::<Vec<_>>(), queued);
    assert_eq!(unfinished(S::Queued, later, 3).await, all[..3]);
    assert_eq!(unfinished(S::Queued, later, 0).await, []);
    let third = world.read(all[2]).await.updated_at;
    assert_eq!(
        unfinished(S::Queued, third, 100).await,
        all[..2],
        "what changed just then is not before"
    );
    assert_eq!(unfinished(S::Canceling, later, 100).await, [canceling.run_id]);
    for state in S::ALL.into_iter().filter(|state| state.is_terminal()) {
        assert_eq!(unfinished(state, later, 100).await, [], "{state}");
    }
    assert_eq!(unfinished(S::Running, later, 100).await, []);

    world.step(canceling.run_id, E::Canceled { attempt: 0 }).await;
    assert_eq!(unfinished(S::Canceling, later, 100).await, []);
}
