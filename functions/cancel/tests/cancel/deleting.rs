//! Deleting a run that has ended.

use axum::body::Body;
use stepwes_core::{Run, RunState, keys};

use super::{
    routes,
    support::{Answer, Fault, World, request, run_id, send},
};

async fn delete(world: &World, owner: &str, run_id: &str) -> Answer {
    let path = format!("/ga4gh/wes/v1/runs/{run_id}");
    send(&routes(world), request(owner, "DELETE", &path).body(Body::empty()).expect("good")).await
}

/// Puts files of every class, more than a page of a listing has. Gives their keys.
fn files(world: &World, run: &Run) -> Vec<String> {
    let id = run.run_id;
    let mut files = vec![
        keys::request(id),
        keys::attachment(id, "tools/a & b.cwl"),
        keys::result(id, 1),
        keys::state_manifest(id, 1),
        keys::state_piece(id, 2, 0),
        keys::outputs_json(id),
    ];
    files.extend((0..5).map(|n| keys::output(id, 1, &format!("{n}.txt"))));
    for key in &files {
        world.put(key, "x");
    }
    files
}

#[tokio::test]
async fn an_ended_run_goes_with_its_files_and_is_then_like_one_that_never_was() {
    for state in [
        RunState::Complete,
        RunState::ExecutorError,
        RunState::SystemError,
        RunState::Canceled,
        RunState::Preempted,
    ] {
        let world = World::new().await;
        let other = world.in_state("ada", state).await;
        let kept = files(&world, &other);
        let run = world.in_state("ada", state).await;
        files(&world, &run);
        let id = run.run_id.to_string();
        let answer = delete(&world, "ada", &id).await;
        assert_eq!((answer.status, answer.body.len()), (204, 0), "{state}");
        assert_eq!(world.store.get(run.run_id).await.expect("a table"), None);
        assert_eq!(world.store.events(run.run_id).await.expect("a table"), []);
        assert_eq!(world.keys().len(), kept.len(), "and only its files");
        assert!(kept.iter().all(|key| world.keys().contains(key)));
        assert_eq!(world.store.counts().await.expect("counts")[&state], 1);
        let again = delete(&world, "ada", &id).await;
        let never = delete(&world, "ada", &run_id(99).to_string()).await;
        assert_eq!((again.status, never.status), (404, 404));
        let told = again.json()["msg"].to_string().replace(&id, "");
        assert_eq!(told, never.json()["msg"].to_string().replace(&run_id(99).to_string(), ""));
    }
}

#[tokio::test]
async fn a_run_that_has_not_ended_stays_with_its_files() {
    for state in [RunState::Queued, RunState::Initializing, RunState::Running, RunState::Canceling]
    {
        let world = World::new().await;
        let run = world.in_state("ada", state).await;
        let kept = files(&world, &run);
        let answer = delete(&world, "ada", &run.run_id.to_string()).await;
        assert_eq!(answer.status, 409, "{state}");
        let told = answer.json()["msg"].to_string();
        assert!(told.contains(state.as_str()) && told.contains("cancel it"), "{told}");
        assert_eq!(world.keys().len(), kept.len());
        assert_eq!(world.store.get(run.run_id).await.expect("a table"), Some(run));
    }
}

#[tokio::test]
async fn another_owner_is_told_what_an_unknown_id_is_told() {
    let world = World::new().await;
    let run = world.in_state("ada", RunState::Complete).await;
    let kept = files(&world, &run);
    let id = run.run_id.to_string();
    for (owner, asked) in [("bob", id.as_str()), ("bob", "nonsense")] {
        let answer = delete(&world, owner, asked).await;
        assert_eq!(answer.status, 404, "{asked}");
        assert!(answer.json()["msg"].to_string().contains("does not exist"));
    }
    assert_eq!(world.keys().len(), kept.len());
}

#[tokio::test]
async fn a_deletion_that_fails_anywhere_is_finished_by_the_next() {
    let steps = [
        ("ListObjectsV2", 0, 403),
        ("ListObjectsV2", 1, 503),
        ("DeleteObjects", 0, 503),
        ("DeleteObjects", 2, 403),
        ("TransactWriteItems", 0, 403),
    ];
    for (operation, well, told) in steps {
        for lost in [false, true] {
            let world = World::new().await;
            let run = world.in_state("ada", RunState::Canceled).await;
            files(&world, &run);
            let fault = match (lost, told) {
                (true, _) => Fault::Unanswered,
                (false, 503) => Fault::Busy,
                (false, _) => Fault::Denied,
            };
            world.fail_after(well, operation, fault);
            let id = run.run_id.to_string();
            let answer = delete(&world, "ada", &id).await;
            assert!(answer.status == 500 || answer.status == 503, "{operation}: {}", answer.status);
            world.mend();
            let gone = world.store.get(run.run_id).await.expect("a table").is_none();
            assert!(!gone || operation == "TransactWriteItems", "the item goes last");
            let next = delete(&world, "ada", &id).await.status;
            assert_eq!(next, if gone { 404 } else { 204 }, "{operation} {well} {lost}");
            assert_eq!(world.keys(), [] as [String; 0]);
            assert_eq!(world.store.counts().await.expect("counts")[&RunState::Canceled], 0);
        }
    }
}
