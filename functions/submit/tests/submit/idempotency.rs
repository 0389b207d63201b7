//! The same submission twice.

use std::collections::BTreeSet;

use futures::future::join_all;
use stepwes_core::{RunEvent, RunId, keys};
use stepwes_store::Change;

use crate::{
    Form, post_keyed, routes, submitted,
    support::{Fault, World, run_id},
};

#[tokio::test]
async fn the_same_key_and_request_answer_the_same_run() {
    let world = World::new().await;
    let router = routes(&world);
    let first = submitted(&post_keyed(&router, "ada", "k", Form::good()).await);
    let keys = world.keys();
    let items = world.items().await;
    let again = submitted(&post_keyed(&router, "ada", "k", Form::good()).await);
    assert_eq!(first, again);
    assert_eq!((world.keys(), world.items().await), (keys, items));
}

#[tokio::test]
async fn the_same_key_with_another_request_is_a_conflict() {
    let world = World::new().await;
    let router = routes(&world);
    submitted(&post_keyed(&router, "ada", "k", Form::good()).await);
    let (keys, items) = (world.keys(), world.items().await);
    for other in [
        Form::good().field("tags", r#"{"a": "b"}"#),
        Form::fields("main.cwl").attach("main.cwl", "another content"),
        Form::good().attach("another", ""),
    ] {
        let answer = post_keyed(&router, "ada", "k", other).await;
        assert_eq!(answer.status, 409);
    }
    assert_eq!((world.keys(), world.items().await), (keys, items));
}

#[tokio::test]
async fn a_key_counts_for_its_owner_alone_and_no_key_makes_two_runs() {
    let world = World::new().await;
    let router = routes(&world);
    let mut ids = BTreeSet::new();
    for (owner, key) in [("ada", "k"), ("bob", "k"), ("ada", "l")] {
        ids.insert(submitted(&post_keyed(&router, owner, key, Form::good()).await));
    }
    for _ in 0..2 {
        ids.insert(submitted(&crate::post(&router, crate::MULTIPART, Form::good().end()).await));
    }
    assert_eq!(ids.len(), 5);
}

#[tokio::test]
async fn of_many_at_once_one_makes_the_run_and_the_others_leave_nothing() {
    let world = World::new().await;
    let router = routes(&world);
    let posts = (0..16).map(|_| post_keyed(&router, "ada", "k", Form::good()));
    let ids: BTreeSet<RunId> = join_all(posts).await.iter().map(submitted).collect();
    assert_eq!(ids.len(), 1);
    let id = *ids.first().expect("one");
    assert_eq!(world.keys(), [keys::attachment(id, "main.cwl"), keys::request(id)]);
    let page = world.store.list("ada", 100, None).await.expect("a list");
    assert_eq!(page.runs.len(), 1);
    assert!(world.starts().iter().all(|(name, _)| *name == id.to_string()));
}

#[tokio::test]
async fn of_two_requests_that_race_for_a_key_one_is_refused_and_leaves_nothing() {
    let world = World::new().await;
    let router = routes(&world);
    let posts = (0..8).map(|n| {
        let form = Form::good().field("workflow_params", &format!("{{\"n\": {n}}}"));
        post_keyed(&router, "ada", "k", form)
    });
    let answers = join_all(posts).await;
    let (won, lost): (Vec<_>, Vec<_>) = answers.iter().partition(|answer| answer.status == 200);
    assert_eq!(won.len(), 1, "{answers:?}");
    assert!(lost.iter().all(|answer| answer.status == 409), "{answers:?}");
    let id = submitted(won[0]);
    assert_eq!(world.keys(), [keys::attachment(id, "main.cwl"), keys::request(id)]);
}

#[tokio::test]
async fn a_repetition_starts_the_execution_that_the_first_could_not() {
    let world = World::new().await;
    let router = routes(&world);
    world.fail("StartExecution", Fault::Denied);
    let id = submitted(&post_keyed(&router, "ada", "k", Form::good()).await);
    assert!(world.starts().is_empty());
    world.mend();
    assert_eq!(submitted(&post_keyed(&router, "ada", "k", Form::good()).await), id);
    assert_eq!(world.starts().len(), 1);
}

#[tokio::test]
async fn a_repetition_leaves_a_run_that_has_begun_alone() {
    let world = World::new().await;
    let router = routes(&world);
    let id = submitted(&post_keyed(&router, "ada", "k", Form::good()).await);
    assert_eq!(id, run_id(1));
    world.step(id, RunEvent::Initialize, Change::default()).await;
    submitted(&post_keyed(&router, "ada", "k", Form::good()).await);
    assert_eq!(world.starts().len(), 1);
}
