//! An attempt belongs to the first task that shows its token.

use futures::future::join_all;
use stepwes_core::{
    run_state::{RunEvent as E, RunState},
    task::RefusedReason as R,
    token::AttemptToken,
};
use stepwes_store::Claim;

use crate::support::{World, wire::Fault};

const LOST: E = E::Preempt { attempt: 1, max_attempts: 3 };

async fn claim(
    world: &World,
    run: &stepwes_core::Run,
    attempt: u32,
    token: &AttemptToken,
    arn: &str,
) -> Claim {
    world.store.claim(run.run_id, attempt, token, arn).await.expect("an answer")
}

#[tokio::test]
async fn the_first_task_has_the_attempt_and_may_say_so_again() {
    let world = World::new().await;
    let run = world.initializing().await;
    let token = run.token.clone().expect("a token");
    let Claim::Claimed(claimed) = claim(&world, &run, 1, &token, "arn:1").await else {
        panic!("not claimed")
    };
    assert_eq!(claimed, world.read(run.run_id).await);
    assert_eq!(claimed.task_arn.as_deref(), Some("arn:1"));
    assert_eq!((claimed.state, claimed.version), (RunState::Initializing, run.version));
    assert_eq!(claim(&world, &run, 1, &token, "arn:1").await, Claim::Claimed(claimed));
    assert_eq!(claim(&world, &run, 1, &token, "arn:2").await, Claim::Refused(R::Twin));

    world.step(run.run_id, E::Run { attempt: 1 }).await;
    assert!(matches!(claim(&world, &run, 1, &token, "arn:1").await, Claim::Claimed(_)));
    assert_eq!(claim(&world, &run, 1, &token, "arn:2").await, Claim::Refused(R::Twin));
    assert_eq!(world.history(run.run_id).await.len(), 3, "a claim is no state change");
}

#[tokio::test]
async fn a_claim_without_the_attempts_token_is_refused_and_binds_nothing() {
    let world = World::new().await;
    let run = world.initializing().await;
    let token = run.token.clone().expect("a token");
    let wrong = AttemptToken::generate().expect("randomness");
    let cut = AttemptToken::from_secret(token.secret()[..63].to_owned());
    for wrong in [wrong, cut, AttemptToken::from_secret(String::new())] {
        assert_eq!(claim(&world, &run, 1, &wrong, "arn:1").await, Claim::Refused(R::Unknown));
    }
    for attempt in [0, 2, u32::MAX] {
        assert_eq!(claim(&world, &run, attempt, &token, "arn:1").await, Claim::Refused(R::Unknown));
    }
    let nowhere = world.store.claim(world.id(), 1, &token, "arn:1").await.expect("an answer");
    assert_eq!(nowhere, Claim::Refused(R::Unknown));
    let queued = world.queued().await;
    assert_eq!(claim(&world, &queued, 0, &token, "arn:1").await, Claim::Refused(R::Unknown));
    assert_eq!(world.read(run.run_id).await.task_arn, None);
}

#[tokio::test]
async fn a_claim_after_a_cancel_is_refused() {
    let world = World::new().await;
    let run = world.initializing().await;
    let token = run.token.clone().expect("a token");
    world.step(run.run_id, E::Cancel).await;
    assert_eq!(claim(&world, &run, 1, &token, "arn:1").await, Claim::Refused(R::Canceling));
    world.step(run.run_id, E::Canceled { attempt: 1 }).await;
    assert_eq!(claim(&world, &run, 1, &token, "arn:1").await, Claim::Refused(R::Canceling));
    assert_eq!(world.read(run.run_id).await.task_arn, None);
}

#[tokio::test]
async fn a_claim_to_what_is_over_is_refused() {
    let world = World::new().await;
    let run = world.initializing().await;
    let first = run.token.clone().expect("a token");
    let second = world.step(run.run_id, LOST).await.token.expect("a token");
    assert_eq!(claim(&world, &run, 1, &first, "arn:1").await, Claim::Refused(R::Over));
    assert_eq!(claim(&world, &run, 2, &first, "arn:1").await, Claim::Refused(R::Unknown));
    assert!(matches!(claim(&world, &run, 2, &second, "arn:2").await, Claim::Claimed(_)));
    let ended = world.step(run.run_id, E::ExecutorError { attempt: 2 }).await;
    assert_eq!(claim(&world, &run, 2, &second, "arn:2").await, Claim::Refused(R::Over));
    assert_eq!(ended.task_arn.as_deref(), Some("arn:2"), "who looks for its task must find it");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_many_tasks_at_once_one_has_the_attempt() {
    let world = World::new().await;
    for _ in 0..5 {
        let run = world.initializing().await;
        let token = run.token.clone().expect("a token");
        let tries = (0..20).map(|i| {
            let (store, token) = (world.store.clone(), token.clone());
            let arn = format!("arn:{}", i % 2);
            tokio::spawn(async move {
                (store.claim(run.run_id, 1, &token, &arn).await.expect("an answer"), arn)
            })
        });
        let mut winners = Vec::new();
        for answer in join_all(tries).await {
            match answer.expect("no panic") {
                (Claim::Claimed(run), arn) => {
                    assert_eq!(run.task_arn.as_deref(), Some(arn.as_str()));
                    winners.push(arn);
                }
                (Claim::Refused(reason), _) => assert_eq!(reason, R::Twin),
            }
        }
        winners.dedup();
        assert_eq!((winners.len(), world.read(run.run_id).await.task_arn), (1, winners.pop()));
    }
}

#[tokio::test]
async fn a_claim_between_a_cancels_read_and_write_shows_it_the_task() {
    let world = World::new().await;
    let run = world.initializing().await;
    let token = run.token.clone().expect("a token");
    let store = world.store.clone();
    let meanwhile = async move {
        let claimed = store.claim(run.run_id, 1, &token, "arn:1").await;
        assert!(matches!(claimed, Ok(Claim::Claimed(_))), "{claimed:?}");
    };
    world.wire.next("TransactWriteItems", Fault::Meanwhile(Box::pin(meanwhile)));
    let canceling = world.step(run.run_id, E::Cancel).await;
    assert_eq!(canceling.task_arn.as_deref(), Some("arn:1"), "this is what has to be stopped");
    assert_eq!(canceling, world.read(run.run_id).await);
}

#[tokio::test]
async fn a_cancel_between_a_claims_read_and_write_wins() {
    let world = World::new().await;
    let run = world.initializing().await;
    let token = run.token.clone().expect("a token");
    let (other, run_id) = (world.clone(), run.run_id);
    let meanwhile = async move {
        other.step(run_id, E::Cancel).await;
    };
    world.wire.sent();
    world.wire.next("UpdateItem", Fault::Meanwhile(Box::pin(meanwhile)));
    assert_eq!(claim(&world, &run, 1, &token, "arn:1").await, Claim::Refused(R::Canceling));
    let read = world.wire.sent().get("GetItem").copied();
    assert_eq!(read, Some(2), "one read each: the refusal brings the run with it");
    assert_eq!(world.read(run.run_id).await.task_arn, None);
}
