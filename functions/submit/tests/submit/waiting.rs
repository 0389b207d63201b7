//! Where the number of runs at work is limited, the others wait.

use stepwes_core::{RunEvent, run::Place};
use stepwes_store::Change;
use stepwes_submit::{Settings, router};

use crate::{
    Form, MULTIPART, post, post_keyed, settings, state, submitted,
    support::{Fault, World},
};

#[tokio::test]
async fn a_run_beyond_the_limit_waits_and_the_next_submission_finds_room_for_it() {
    let world = World::new().await;
    let router = router(state(&world, Settings { max_runs: Some(1), ..settings() }));
    let place = async |id| world.store.get(id).await.expect("a table").expect("the run").place;
    let first = submitted(&post(&router, MULTIPART, Form::good().end()).await);
    let second = submitted(&post_keyed(&router, "ada", "key", Form::good()).await);
    assert_eq!(place(first).await, Some(Place::Slot(0)));
    assert_eq!(place(second).await, Some(Place::Waiting));
    let starts = || world.starts().into_iter().map(|(name, _)| name).collect::<Vec<_>>();
    assert_eq!(starts(), [first.to_string()]);
    // Sent again, it waits all the same.
    assert_eq!(submitted(&post_keyed(&router, "ada", "key", Form::good()).await), second);
    assert_eq!(starts(), [first.to_string()]);

    let end = RunEvent::SystemError { attempt: 0 };
    world.store.transition(first, end, Change::default()).await.expect("an answer");
    let third = submitted(&post(&router, MULTIPART, Form::good().end()).await);
    assert_eq!(starts(), [first, second].map(|id| id.to_string()));
    assert_eq!(place(third).await, Some(Place::Waiting));
}

#[tokio::test]
async fn a_run_for_which_no_slot_can_be_looked_is_taken_all_the_same() {
    let world = World::new().await;
    let router = router(state(&world, Settings { max_runs: Some(1), ..settings() }));
    world.fail("Query", Fault::Denied);
    let id = submitted(&post(&router, MULTIPART, Form::good().end()).await);
    assert!(world.starts().is_empty());
    world.mend();
    let mut admission = world.store.admission(Some(1), None);
    assert_eq!(admission.next().await.expect("an answer"), Some(id));
}

#[tokio::test]
async fn a_submission_starts_some_of_many_that_wait_and_leaves_the_rest() {
    let world = World::new().await;
    let limited = |limit| router(state(&world, Settings { max_runs: Some(limit), ..settings() }));
    let router = limited(1);
    for _ in 0..15 {
        submitted(&post(&router, MULTIPART, Form::good().end()).await);
    }
    assert_eq!(world.starts().len(), 1);
    submitted(&post(&limited(100), MULTIPART, Form::good().end()).await);
    assert_eq!(world.starts().len(), 11, "the one at work, and ten");
}
