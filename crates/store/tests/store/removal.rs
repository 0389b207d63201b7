//! An ended run is removed with its history, and the counts know it.

use std::collections::BTreeSet;

use chrono::TimeDelta;
use stepwes_core::{Clock as _, RunEvent, run_state::RunState};

use crate::support::World;

#[tokio::test]
async fn an_ended_run_goes_with_its_history_and_out_of_counts_and_lists() {
    let world = World::new().await;
    let stays = world.queued().await;
    let run = world.queued().await;
    let ended = world.step(run.run_id, RunEvent::SystemError { attempt: 0 }).await;
    assert!(world.store.remove(&ended).await.expect("removed"));
    assert_eq!(world.store.get(run.run_id).await.expect("an answer"), None);
    assert_eq!(world.store.events(run.run_id).await.expect("an answer"), []);
    assert_eq!(world.counts().await, [(RunState::Queued, 1)].into());
    let page = world.store.list(&stays.owner, 10, None).await.expect("a page");
    assert_eq!(page.runs.iter().map(|run| run.run_id).collect::<Vec<_>>(), [stays.run_id]);
    assert!(!world.store.remove(&ended).await.expect("an answer"), "removed before");
    assert_eq!(world.counts().await, [(RunState::Queued, 1)].into(), "counted once");
}

#[tokio::test]
async fn a_run_that_has_not_ended_stays() {
    let world = World::new().await;
    let run = world.queued().await;
    assert!(!world.store.remove(&run).await.expect_err("refused").is_retryable());
    assert_eq!(world.read(run.run_id).await, run);
}

#[tokio::test]
async fn ended_runs_are_found_by_when_they_ended_and_live_ones_are_not() {
    let world = World::new().await;
    world.queued().await;
    let mut old = BTreeSet::new();
    for _ in 0..12 {
        let run = world.queued().await;
        old.insert(world.step(run.run_id, RunEvent::SystemError { attempt: 0 }).await.run_id);
    }
    world.clock.advance(TimeDelta::days(1));
    let before = world.clock.now();
    let run = world.queued().await;
    world.step(run.run_id, RunEvent::SystemError { attempt: 0 }).await;
    let found = world.store.ended(before, 100).await.expect("an answer");
    assert_eq!(found.into_iter().collect::<BTreeSet<_>>(), old);
    assert!(world.store.ended(before, 1).await.expect("an answer").len() <= 4, "one a partition");
}
