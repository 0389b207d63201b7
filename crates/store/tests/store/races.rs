//! Many at once at the same few runs: each change has one winner, and nothing is lost or counted
//! twice.

use std::collections::{BTreeMap, BTreeSet};

use futures::future::join_all;
use stepwes_core::{
    run::RunId,
    run_state::{RunEvent as E, RunState},
};
use stepwes_store::{Change, Claim, Transition};
use uuid::Uuid;

use crate::support::World;

/// An event of any kind and any attempt, so that most are late, early or doubled.
fn event(random: u64) -> E {
    let attempt = u32::try_from(random >> 8 & 3).expect("below 4");
    match random & 15 {
        0 => E::Initialize,
        1..=3 => E::Run { attempt },
        4 => E::Complete { attempt },
        5 => E::ExecutorError { attempt },
        6..=10 => E::Preempt { attempt, max_attempts: 4 },
        11 => E::SystemError { attempt },
        12 if random >> 16 & 3 == 0 => E::Cancel,
        13 => E::Canceled { attempt },
        _ => E::Initialize,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hundreds_of_tasks_at_the_same_runs_leave_one_winner_for_each_version() {
    let world = World::new().await;
    let mut runs = Vec::new();
    for _ in 0..4 {
        runs.push(world.queued().await.run_id);
    }
    let tasks = (0..300).map(|i| {
        let (store, run_id) = (world.store.clone(), runs[i % runs.len()]);
        tokio::spawn(async move {
            let mut won: Vec<(RunId, u64)> = Vec::new();
            for _ in 0..3 {
                let (random, _) = Uuid::new_v4().as_u64_pair();
                let told = store.transition(run_id, event(random), Change::default()).await;
                match told.expect("an answer") {
                    Transition::Moved(run) => won.push((run_id, run.version)),
                    Transition::Repeated(_) | Transition::Refused { .. } => {}
                    Transition::NotFound => panic!("the run is there"),
                }
                if random >> 20 & 3 == 0
                    && let Ok(Some(run)) = store.get(run_id).await
                    && let Some(token) = run.token
                {
                    let arn = format!("arn:{i}");
                    store.claim(run_id, run.attempt, &token, &arn).await.expect("an answer");
                }
            }
            won
        })
    });
    let mut winners = BTreeMap::<RunId, Vec<u64>>::new();
    for won in join_all(tasks).await {
        for (run_id, version) in won.expect("no panic") {
            winners.entry(run_id).or_default().push(version);
        }
    }
    let mut states = BTreeMap::<RunState, i64>::new();
    for run_id in runs {
        let history = world.history(run_id).await;
        let mut won = winners.remove(&run_id).unwrap_or_default();
        won.sort_unstable();
        let made: Vec<_> = history.iter().skip(1).map(|event| event.version).collect();
        assert_eq!(won, made, "each version has one caller who was told that it moved the run");
        *states.entry(world.read(run_id).await.state).or_default() += 1;
    }
    assert_eq!(world.counts().await, states);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sixty_lives_at_once_end_with_exact_counts() {
    let world = World::new().await;
    let lives = (0..60).map(|i| {
        let world = world.clone();
        tokio::spawn(async move {
            let run = world.initializing().await;
            let cancel = world.store.transition(run.run_id, E::Cancel, Change::default());
            let work = async {
                let token = run.token.clone().expect("a token");
                let claimed = world.store.claim(run.run_id, 1, &token, "arn").await;
                if matches!(claimed, Ok(Claim::Claimed(_))) {
                    world.tell(run.run_id, E::Run { attempt: 1 }).await;
                    world.tell(run.run_id, E::Complete { attempt: 1 }).await;
                }
            };
            if i % 2 == 0 {
                let (cancelled, ()) = futures::join!(cancel, work);
                cancelled.expect("an answer");
            } else {
                work.await;
            }
            world.tell(run.run_id, E::Canceled { attempt: 1 }).await;
            run.run_id
        })
    });
    let mut states = BTreeMap::<RunState, i64>::new();
    let mut seen = BTreeSet::new();
    for run_id in join_all(lives).await {
        let run_id = run_id.expect("no panic");
        world.history(run_id).await;
        let state = world.read(run_id).await.state;
        assert!(matches!(state, RunState::Complete | RunState::Canceled), "{state}");
        *states.entry(state).or_default() += 1;
        seen.insert(run_id);
    }
    assert_eq!(world.counts().await, states);
    assert_eq!(seen.len(), 60);
}
