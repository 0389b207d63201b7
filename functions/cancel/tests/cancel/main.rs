//! cancel through its route, with the SDK's real clients.

mod deleting;
#[path = "../../../../crates/cloud/tests/support/mod.rs"]
mod support;

use std::sync::Arc;

use axum::{Router, body::Body};
use serde_json::json;
use stepwes_cancel::{Settings, State, router};
use stepwes_cloud::http::{Caller, Callers};
use stepwes_core::{Run, RunEvent, RunState};
use stepwes_store::Change;

use support::{
    Answer, BUCKET, CLUSTER, Fault, MACHINE, TABLE, TASK_ARN, World, request, run_id, send,
    send_event,
};

fn routes(world: &World) -> Router {
    router(State {
        store: world.store.clone(),
        objects: world.objects.clone(),
        executions: world.executions.clone(),
        tasks: world.tasks.clone(),
        settings: Arc::new(Settings {
            table: TABLE.to_owned(),
            bucket: BUCKET.to_owned(),
            state_machine_arn: MACHINE.to_owned(),
            cluster: CLUSTER.to_owned(),
            callers: Callers::by_jwt(),
        }),
    })
}

async fn cancel(world: &World, owner: &str, run_id: &str) -> Answer {
    let path = format!("/ga4gh/wes/v1/runs/{run_id}/cancel");
    send(&routes(world), request(owner, "POST", &path).body(Body::empty()).expect("good")).await
}

async fn state_of(world: &World, run: &Run) -> RunState {
    world.store.get(run.run_id).await.expect("a table").expect("the run").state
}

#[tokio::test]
async fn every_state_answers_as_wes_and_toil_have_it() {
    for (state, status, after) in [
        (RunState::Queued, 200, RunState::Canceling),
        (RunState::Initializing, 200, RunState::Canceling),
        (RunState::Running, 200, RunState::Canceling),
        (RunState::Canceling, 200, RunState::Canceling),
        (RunState::Canceled, 200, RunState::Canceled),
        (RunState::Complete, 200, RunState::Complete),
        (RunState::ExecutorError, 403, RunState::ExecutorError),
        (RunState::SystemError, 403, RunState::SystemError),
        (RunState::Preempted, 403, RunState::Preempted),
    ] {
        let world = World::new().await;
        let run = world.in_state("ada", state).await;
        let version = run.version;
        let answer = cancel(&world, "ada", &run.run_id.to_string()).await;
        assert_eq!(answer.status, status, "{state}");
        if status == 200 {
            assert_eq!(answer.json(), json!({"run_id": run.run_id.to_string()}), "{state}");
        } else {
            assert!(answer.json()["msg"].to_string().contains(state.as_str()), "{state}");
        }
        let run = world.store.get(run.run_id).await.expect("a table").expect("the run");
        assert_eq!(run.state, after, "{state}");
        assert_eq!(run.version - version, u64::from(state != after), "{state}");
        let stops =
            if after == RunState::Canceling && run.attempt > 0 { vec![TASK_ARN] } else { vec![] };
        assert_eq!(world.stops(), stops, "{state}");
        let starts = usize::from(state == RunState::Queued);
        assert_eq!(world.starts().len(), starts, "{state}");
    }
}

#[tokio::test]
async fn a_run_that_has_not_begun_gets_its_execution_started_once_more() {
    let world = World::new().await;
    let run = world.queued("ada").await;
    let id = run.run_id.to_string();
    cancel(&world, "ada", &id).await;
    assert_eq!(world.starts(), [(id.clone(), json!({"run_id": id}))]);
    assert!(world.stops().is_empty());
}

#[tokio::test]
async fn a_run_without_a_claimed_task_has_nothing_to_stop() {
    let world = World::new().await;
    let run = world.queued("ada").await;
    world.step(run.run_id, RunEvent::Initialize, Change::default()).await;
    assert_eq!(cancel(&world, "ada", &run.run_id.to_string()).await.status, 200);
    assert_eq!(state_of(&world, &run).await, RunState::Canceling);
    assert!(world.stops().is_empty() && world.starts().is_empty());
}

#[tokio::test]
async fn asked_again_it_does_again_what_may_not_have_been_done() {
    let world = World::new().await;
    let claimed = world.claimed("ada").await;
    let queued = world.queued("ada").await;
    for _ in 0..2 {
        for run in [&claimed, &queued] {
            assert_eq!(cancel(&world, "ada", &run.run_id.to_string()).await.status, 200);
        }
    }
    assert_eq!(world.stops(), [TASK_ARN, TASK_ARN]);
    assert_eq!(world.starts().len(), 2);
}

#[tokio::test]
async fn when_the_task_cannot_be_stopped_the_run_is_canceling_all_the_same() {
    for fault in [Fault::Denied, Fault::Busy] {
        let world = World::new().await;
        world.fail("StopTask", fault);
        world.fail("StartExecution", fault);
        for run in [world.claimed("ada").await, world.queued("ada").await] {
            assert_eq!(cancel(&world, "ada", &run.run_id.to_string()).await.status, 200);
            assert_eq!(state_of(&world, &run).await, RunState::Canceling, "{fault:?}");
        }
        world.mend();
        let canceling = run_id(1).to_string();
        assert_eq!(cancel(&world, "ada", &canceling).await.status, 200);
        assert_eq!(world.stops(), [TASK_ARN]);
    }
}

#[tokio::test]
async fn when_nothing_can_be_recorded_nothing_is_stopped() {
    for (fault, status) in [(Fault::Denied, 500), (Fault::Busy, 503)] {
        let world = World::new().await;
        let run = world.claimed("ada").await;
        world.fail("TransactWriteItems", fault);
        assert_eq!(cancel(&world, "ada", &run.run_id.to_string()).await.status, status);
        assert_eq!(state_of(&world, &run).await, RunState::Initializing);
        assert!(world.stops().is_empty());
    }
}

#[tokio::test]
async fn a_foreign_run_looks_like_an_unknown_one_and_is_left_alone() {
    let world = World::new().await;
    let run = world.claimed("ada").await;
    let (known, unknown) = (run.run_id.to_string(), run_id(99).to_string());
    let foreign = cancel(&world, "eve", &known).await;
    let missing = cancel(&world, "ada", &unknown).await;
    assert_eq!((foreign.status, missing.status), (404, 404));
    assert_eq!(foreign.json().to_string().replace(&known, &unknown), missing.json().to_string());
    for malformed in ["x", "%FF", &known.to_uppercase()] {
        assert_eq!(cancel(&world, "ada", malformed).await.status, 404, "{malformed}");
    }
    assert_eq!(state_of(&world, &run).await, RunState::Initializing);
    assert!(world.stops().is_empty());
}

#[tokio::test]
async fn a_run_that_ends_while_it_is_cancelled_ends_once() {
    let world = World::new().await;
    let run = world.in_state("ada", RunState::Running).await;
    let id = run.run_id.to_string();
    let complete =
        world.store.transition(run.run_id, RunEvent::Complete { attempt: 1 }, Change::default());
    let (answer, completed) = futures::future::join(cancel(&world, "ada", &id), complete).await;
    assert_eq!(answer.status, 200);
    let won = matches!(completed.expect("an answer"), stepwes_store::Transition::Moved(_));
    let expected = if won { RunState::Complete } else { RunState::Canceling };
    assert_eq!(state_of(&world, &run).await, expected);
}

#[tokio::test]
async fn the_sample_events_of_api_gateway_are_answered() {
    let world = World::new().await;
    let run = world.claimed("ada").await;
    assert_eq!(run.run_id, run_id(1));
    let event = include_str!("../../../../events/cancel/cancel-run.json");
    assert_eq!(send_event(&routes(&world), event).await.status, 200);
    assert_eq!(state_of(&world, &run).await, RunState::Canceling);
    let event = include_str!("../../../../events/cancel/cancel-run-unknown.json");
    assert_eq!(send_event(&routes(&world), event).await.status, 404);
}

#[tokio::test]
async fn an_administrator_cancels_anybodys_run_and_nobody_none() {
    let world = World::new().await;
    let run = world.claimed("ada").await;
    let path = format!("/ga4gh/wes/v1/runs/{}/cancel", run.run_id);
    let nobody = http::Request::post(&path).body(Body::empty()).expect("a request");
    assert_eq!(send(&routes(&world), nobody).await.status, 401);
    assert_eq!(state_of(&world, &run).await, RunState::Initializing);
    let admin = Caller { owner: "root".to_owned(), sees_all: true };
    let request = http::Request::post(&path).extension(admin).body(Body::empty());
    assert_eq!(send(&routes(&world), request.expect("a request")).await.status, 200);
    assert_eq!(state_of(&world, &run).await, RunState::Canceling);
}
