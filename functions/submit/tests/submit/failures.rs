//! What is left when something behind us fails at each step.

use stepwes_core::{RunState, keys};

use crate::{
    Form, MULTIPART, assert_untouched, post, post_keyed, routes, submitted,
    support::{Answer, Fault, World},
};

async fn submit(world: &World) -> Answer {
    let form = Form::good().attach("b", "b").attach("c", "c");
    post(&routes(world), MULTIPART, form.end()).await
}

fn assert_tells_nothing(answer: &Answer) {
    let msg = answer.json()["msg"].to_string();
    for inside in ["Object", "DynamoDB", "bucket", "Denied", "SlowDown", "made up"] {
        assert!(!msg.contains(inside), "{msg}");
    }
}

#[tokio::test]
async fn when_staging_fails_nothing_is_left() {
    for well in 0..4 {
        for (fault, status) in [(Fault::Denied, 500), (Fault::Busy, 503), (Fault::Unanswered, 503)]
        {
            let world = World::new().await;
            world.fail_after(well, "PutObject", fault);
            let answer = submit(&world).await;
            assert_eq!(answer.status, status, "{fault:?} after {well}");
            assert_eq!(answer.header("retry-after"), if status == 503 { "1" } else { "" });
            assert_tells_nothing(&answer);
            assert_untouched(&world, "after a failure").await;
        }
    }
}

#[tokio::test]
async fn when_the_run_cannot_be_created_nothing_is_left() {
    let world = World::new().await;
    world.fail("TransactWriteItems", Fault::Denied);
    let answer = submit(&world).await;
    assert_eq!(answer.status, 500);
    assert_tells_nothing(&answer);
    assert_untouched(&world, "after a failure").await;
}

#[tokio::test]
async fn a_run_that_may_still_come_keeps_its_request() {
    let world = World::new().await;
    world.fail("TransactWriteItems", Fault::Busy);
    let answer = submit(&world).await;
    assert_eq!(answer.status, 503);
    assert_tells_nothing(&answer);
    assert_eq!((world.items().await, world.keys().len()), (0, 4));
}

#[tokio::test]
async fn a_run_that_was_created_without_an_answer_goes_on() {
    let world = World::new().await;
    world.fail("TransactWriteItems", Fault::Unanswered);
    let id = submitted(&submit(&world).await);
    assert_eq!(world.keys().len(), 4);
    let run = world.store.get(id).await.expect("a table").expect("the run");
    assert_eq!(run.state, RunState::Queued);
    assert_eq!(world.starts().len(), 1);
}

#[tokio::test]
async fn when_it_cannot_be_known_whether_the_run_exists_its_request_is_kept() {
    let world = World::new().await;
    world.fail("TransactWriteItems", Fault::Unanswered);
    world.fail("GetItem", Fault::Busy);
    assert_eq!(submit(&world).await.status, 503);
    world.mend();
    let page = world.store.list("ada", 1, None).await.expect("a list");
    assert!(world.keys().contains(&keys::request(page.runs[0].run_id)));
}

#[tokio::test]
async fn when_the_execution_cannot_be_started_the_run_waits_for_reconcile() {
    for fault in [Fault::Denied, Fault::Busy, Fault::Unanswered] {
        let world = World::new().await;
        world.fail("StartExecution", fault);
        let id = submitted(&submit(&world).await);
        let run = world.store.get(id).await.expect("a table").expect("the run");
        assert_eq!(run.state, RunState::Queued, "{fault:?}");
        assert!(world.keys().contains(&keys::request(id)));
    }
}

#[tokio::test]
async fn an_execution_that_has_ended_already_is_no_failure() {
    let world = World::new().await;
    world.end_execution(crate::support::run_id(1));
    submitted(&submit(&world).await);
}

#[tokio::test]
async fn when_keys_cannot_be_looked_up_nothing_is_written() {
    let world = World::new().await;
    world.fail("GetItem", Fault::Busy);
    let answer = post_keyed(&routes(&world), "ada", "k", Form::good()).await;
    assert_eq!(answer.status, 503);
    assert_untouched(&world, "after a failed look").await;
}

#[tokio::test]
async fn what_cannot_be_removed_again_does_not_hide_the_failure() {
    let world = World::new().await;
    world.fail_after(1, "PutObject", Fault::Denied);
    world.fail("DeleteObject", Fault::Denied);
    assert_eq!(submit(&world).await.status, 500);
    assert_eq!(world.items().await, 0);
}
