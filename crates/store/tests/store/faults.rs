//! Lost requests, lost answers, conflicts and throttling.

use stepwes_core::run_state::{RunEvent as E, RunState};
use stepwes_store::{Change, Claim, Created, StoreError, Transition};

use crate::support::{World, wire::Fault};

const WRITE: &str = "TransactWriteItems";

#[tokio::test]
async fn a_state_change_whose_answer_was_lost_happened_once_and_is_told_as_ours() {
    for world in [World::new().await, World::retrying().await] {
        let run = world.initializing().await;
        world.wire.next(WRITE, Fault::LostAnswer);
        let run = world.step(run.run_id, E::Run { attempt: 1 }).await;
        assert_eq!((run.state, run.version), (RunState::Running, 3));
        assert_eq!(run, world.read(run.run_id).await);
        assert_eq!(world.counts().await, [(RunState::Running, 1)].into());
        assert_eq!(world.history(run.run_id).await.len(), 3);
        assert_eq!(world.wire.unmet(), 0);
    }
}

#[tokio::test]
async fn a_new_attempt_whose_answer_was_lost_is_told_with_the_token_that_was_written() {
    let world = World::new().await;
    let run = world.queued().await;
    world.wire.next(WRITE, Fault::LostAnswer);
    let run = world.step(run.run_id, E::Initialize).await;
    assert_eq!(run, world.read(run.run_id).await);
}

#[tokio::test]
async fn our_change_is_told_as_ours_though_others_went_on_before_we_knew() {
    let world = World::new().await;
    let run = world.initializing().await;
    world.wire.next(WRITE, Fault::LostAnswer);
    let (other, run_id) = (world.clone(), run.run_id);
    let meanwhile = async move {
        other.step(run_id, E::Cancel).await;
    };
    // The read after the lost answer: the first one is the call's own beginning.
    world.wire.next("GetItem", Fault::Meanwhile(Box::pin(async {})));
    world.wire.next("GetItem", Fault::Meanwhile(Box::pin(meanwhile)));
    let run = world.step(run_id, E::Run { attempt: 1 }).await;
    assert_eq!((run.state, run.version), (RunState::Canceling, 4));
    let events = world.history(run_id).await;
    assert_eq!(events.iter().map(|e| e.event.as_str()).collect::<Vec<_>>()[2..], ["run", "cancel"]);
}

#[tokio::test]
async fn a_change_of_others_is_not_told_as_ours_after_a_lost_request() {
    let world = World::new().await;
    let run = world.initializing().await;
    world.wire.next(WRITE, Fault::LostRequest);
    let (other, run_id) = (world.clone(), run.run_id);
    let meanwhile = async move {
        other.step(run_id, E::Run { attempt: 1 }).await;
    };
    world.wire.next("GetItem", Fault::Meanwhile(Box::pin(async {})));
    world.wire.next("GetItem", Fault::Meanwhile(Box::pin(meanwhile)));
    let told = world.tell(run_id, E::Run { attempt: 1 }).await;
    assert!(matches!(told, Transition::Repeated(run) if run.version == 3));
}

#[tokio::test]
async fn conflicts_throttling_and_passing_failures_are_tried_again() {
    let world = World::new().await;
    let run = world.initializing().await;
    for fault in [
        Fault::cancelled(&["None", "None", "TransactionConflict"]),
        Fault::cancelled(&["ThrottlingError", "None", "None"]),
        Fault::LostRequest,
        Fault::error(500, "InternalServerError"),
    ] {
        world.wire.next(WRITE, fault);
    }
    let run = world.step(run.run_id, E::Run { attempt: 1 }).await;
    assert_eq!((run.version, world.wire.unmet()), (3, 0));
    assert_eq!(world.counts().await, [(RunState::Running, 1)].into());

    let run = world.initializing().await;
    let token = run.token.expect("a token");
    world.wire.next("UpdateItem", Fault::error(400, "TransactionConflictException"));
    world.wire.next("UpdateItem", Fault::LostAnswer);
    let claimed = world.store.claim(run.run_id, 1, &token, "arn:1").await;
    assert!(matches!(claimed, Ok(Claim::Claimed(_))), "{claimed:?}");
    assert_eq!(world.wire.unmet(), 0);
}

#[tokio::test]
async fn a_refusal_that_comes_without_the_item_is_looked_up() {
    let world = World::new().await;
    let run = world.initializing().await;
    world.step(run.run_id, E::Cancel).await;
    let queued = world.queued().await;
    let (other, run_id) = (world.clone(), queued.run_id);
    let meanwhile = async move {
        other.step(run_id, E::Cancel).await;
    };
    world.wire.next("GetItem", Fault::Meanwhile(Box::pin(async {})));
    world.wire.next("GetItem", Fault::Meanwhile(Box::pin(meanwhile)));
    world.wire.next(WRITE, Fault::cancelled(&["ConditionalCheckFailed", "None", "None"]));
    let told = world.tell(run_id, E::Initialize).await;
    assert!(matches!(told, Transition::Refused { run, .. } if run.state == RunState::Canceling));
}

#[tokio::test]
async fn a_creation_whose_answer_was_lost_is_new_and_counted_once() {
    for world in [World::new().await, World::retrying().await] {
        for new in [world.submission("ann"), world.keyed("ann", "k", "f")] {
            world.wire.next(WRITE, Fault::LostAnswer);
            let made = world.store.create(new.clone()).await.expect("an answer");
            let Created::New(run) = made else { panic!("{made:?}") };
            assert_eq!(run, world.read(new.run_id).await);
            world.history(new.run_id).await;
        }
        assert_eq!(world.counts().await, [(RunState::Queued, 2)].into());
    }
}

#[tokio::test]
async fn what_does_not_pass_ends_the_call_at_once() {
    let world = World::new().await;
    let run = world.initializing().await;
    for fault in [
        Fault::error(400, "AccessDeniedException"),
        Fault::error(400, "ValidationException"),
        Fault::cancelled(&["ValidationError"]),
    ] {
        world.wire.sent();
        world.wire.next(WRITE, fault);
        let told = world.store.transition(run.run_id, E::Cancel, Change::default()).await;
        let error = told.expect_err("refused");
        assert!(matches!(&error, StoreError::Rejected { operation: WRITE, .. }), "{error:?}");
        assert!(!error.is_retryable());
        assert_eq!(world.wire.sent().get(WRITE), Some(&1));
    }
    assert_eq!(world.read(run.run_id).await, run);
}

#[tokio::test]
async fn what_outlasts_our_patience_is_told_as_worth_another_try() {
    let world = World::new().await;
    let run = world.initializing().await;
    for _ in 0..3 {
        world.wire.next(WRITE, Fault::LostRequest);
    }
    let told = world.store.transition(run.run_id, E::Cancel, Change::default()).await;
    let error = told.expect_err("no answer");
    assert!(
        matches!(&error, StoreError::Unavailable { operation: WRITE, .. }) && error.is_retryable()
    );
    assert_eq!(world.read(run.run_id).await, run);
    for (status, name) in [
        (400, "ProvisionedThroughputExceededException"),
        (400, "ThrottlingException"),
        (500, "InternalServerError"),
    ] {
        world.wire.next("GetItem", Fault::error(status, name));
        assert!(world.store.get(run.run_id).await.expect_err(name).is_retryable(), "{name}");
    }
}

#[tokio::test]
async fn a_signature_of_the_wrong_time_is_worth_another_try_and_that_of_a_wrong_key_is_not() {
    let world = World::new().await;
    let run = world.initializing().await;
    for (message, retryable) in [
        ("Signature expired: 20261125T100000Z is now earlier than 20261125T101000Z", true),
        ("Signature not yet current: 20261125T102000Z is still later than", true),
        ("The request signature we calculated does not match the signature you provided.", false),
    ] {
        world.wire.next("GetItem", Fault::error_saying(403, "InvalidSignatureException", message));
        let error = world.store.get(run.run_id).await.expect_err(message);
        assert_eq!(error.is_retryable(), retryable, "{message}");
    }
}
