//! A run that goes on from what another one has saved.

use axum::{Router, body::Body};
use serde_json::{Value, json};
use stepwes_core::{
    Run, RunEvent, RunState, keys,
    request::{Attachment, RunRequest, StoredRequest},
    saved::{RESUMED_FROM, ResumedFrom},
    trigger::TRIGGERED_BY,
};
use stepwes_store::{Change, Created, NewRun};

use crate::{
    Form, post_keyed, routes, submitted,
    support::{Answer, Fault, World, request, run_id, send},
};

const ATTACHED: &str = "tools/a & b.wdl";

async fn resume(router: &Router, owner: &str, run_id: &str, key: Option<&str>) -> Answer {
    let mut asked = request(owner, "POST", &format!("/ga4gh/wes/v1/runs/{run_id}/resume"));
    if let Some(key) = key {
        asked = asked.header("idempotency-key", key);
    }
    send(router, asked.body(Body::empty()).expect("a request")).await
}

/// A run by that engine, its request and attachment stored.
async fn queued(world: &World, engine: (&str, &str)) -> Run {
    let (workflow_type, name) = engine;
    let asked = json!({
        "workflow_type": workflow_type, "workflow_type_version": "1.0",
        "workflow_url": "tools/a%20&%20b.wdl", "workflow_params": {"n": 1},
        "workflow_engine_parameters": {"stepwes.memory": "2 GiB"}, "tags": {"project": "x"},
    });
    let asked = RunRequest::from_json(asked.to_string().as_bytes()).expect("good");
    let id = run_id(1000);
    let stored = StoredRequest {
        run_id: id,
        request: asked.clone(),
        engine: name.to_owned(),
        default_parameters: serde_json::Map::new(),
        attachments: vec![Attachment { name: ATTACHED.to_owned(), size: 7 }],
        resumed_from: None,
        destination: None,
    };
    world.put(&keys::request(id), serde_json::to_vec(&stored).expect("JSON"));
    world.put(&keys::attachment(id, ATTACHED), "content");
    let new = NewRun {
        run_id: id,
        owner: "ada".to_owned(),
        summary: asked.summary(name),
        resources: stepwes_core::resources::Resources::default(),
        idempotency: None,
        destination: None,
        trace: None,
        waits: false,
    };
    match world.store.create(new).await {
        Ok(Created::New(run)) => run,
        other => panic!("not created: {other:?}"),
    }
}

/// The same, failed in its second attempt, of which nothing was saved, but of the first.
async fn failed(world: &World) -> Run {
    let run = queued(world, ("WDL", "miniwdl")).await;
    for event in [
        RunEvent::Initialize,
        RunEvent::Preempt { attempt: 1, max_attempts: 3 },
        RunEvent::ExecutorError { attempt: 2 },
    ] {
        world.step(run.run_id, event, Change::default()).await;
    }
    world.put(&keys::state_manifest(run.run_id, 1), "{}");
    world.store.get(run.run_id).await.expect("a table").expect("the run")
}

#[tokio::test]
async fn a_failed_run_is_gone_on_from_by_a_run_of_its_own() {
    let world = World::new().await;
    let router = routes(&world);
    let from = failed(&world).await;
    let before = from.clone();
    let id = submitted(&resume(&router, "ada", &from.run_id.to_string(), None).await);
    assert_ne!(id, from.run_id);
    let run = world.store.get(id).await.expect("a table").expect("the run");
    assert_eq!((run.state, run.owner.as_str()), (RunState::Queued, "ada"));
    assert_eq!(run.summary.tags[RESUMED_FROM], from.run_id.to_string());
    assert_eq!(run.summary.tags["project"], "x");
    assert_eq!(run.resources.memory, Some(2048), "it asks for what the other asked for");
    assert_eq!(world.starts().len(), 1);
    let stored: StoredRequest =
        serde_json::from_slice(&world.object(&keys::request(id))).expect("a request");
    assert_eq!(stored.run_id, id);
    assert_eq!(stored.engine, "miniwdl");
    assert_eq!(stored.resumed_from, Some(ResumedFrom { run_id: from.run_id, attempt: 1 }));
    assert_eq!(stored.request.workflow_params["n"], 1);
    assert_eq!(world.object(&keys::attachment(id, ATTACHED)), "content");
    let after = world.store.get(from.run_id).await.expect("a table").expect("the run");
    assert_eq!(after, before, "a run that has ended does not change");
}

#[tokio::test]
async fn what_cannot_be_gone_on_from_is_a_conflict_that_says_why() {
    let told = async |world: &World, run: &Run| {
        let before = (world.keys(), world.items().await);
        let answer = resume(&routes(world), "ada", &run.run_id.to_string(), None).await;
        assert_eq!(answer.status, 409);
        assert_eq!((world.keys(), world.items().await), before, "nothing is left");
        answer.json()["msg"].as_str().expect("a message").to_owned()
    };
    let world = World::new().await;
    let run = queued(&world, ("WDL", "miniwdl")).await;
    assert!(told(&world, &run).await.contains("is QUEUED; it can be resumed when it has ended"));

    let world = World::new().await;
    let run = queued(&world, ("WDL", "miniwdl")).await;
    for event in
        [RunEvent::Initialize, RunEvent::Run { attempt: 1 }, RunEvent::Complete { attempt: 1 }]
    {
        world.step(run.run_id, event, Change::default()).await;
    }
    assert!(told(&world, &run).await.contains("is COMPLETE"));

    let world = World::new().await;
    let run = queued(&world, ("CWL", "cwltool")).await;
    world.step(run.run_id, RunEvent::SystemError { attempt: 0 }, Change::default()).await;
    assert!(told(&world, &run).await.contains("cwltool, which cannot go on"));

    let world = World::new().await;
    let run = failed(&world).await;
    world.take(&keys::state_manifest(run.run_id, 1));
    assert!(told(&world, &run).await.contains("has no saved state"));

    for gone in [keys::request(run.run_id), keys::attachment(run.run_id, ATTACHED)] {
        let world = World::new().await;
        let run = failed(&world).await;
        world.take(&gone);
        assert!(told(&world, &run).await.contains("is not kept any more"));
    }
}

#[tokio::test]
async fn another_owner_is_told_what_an_unknown_id_is_told() {
    let world = World::new().await;
    let router = routes(&world);
    let run = failed(&world).await;
    let answer = resume(&router, "bob", &run.run_id.to_string(), None).await;
    assert_eq!(answer.status, 404);
    assert!(answer.json()["msg"].to_string().contains("does not exist"));
}

#[tokio::test]
async fn under_one_key_it_is_one_run_and_no_other_request_has_that_key() {
    let world = World::new().await;
    let router = routes(&world);
    let from = failed(&world).await.run_id.to_string();
    let first = submitted(&resume(&router, "ada", &from, Some("k")).await);
    let (keys, items) = (world.keys(), world.items().await);
    assert_eq!(submitted(&resume(&router, "ada", &from, Some("k")).await), first);
    assert_eq!(post_keyed(&router, "ada", "k", Form::good()).await.status, 409);
    assert_eq!((world.keys(), world.items().await), (keys, items));
    assert_ne!(submitted(&resume(&router, "ada", &from, None).await), first);
}

#[tokio::test]
async fn what_fails_on_the_way_leaves_nothing_but_the_run_that_was_there() {
    for (operation, fault) in [
        ("HeadObject", Fault::Busy),
        ("GetObject", Fault::Denied),
        ("PutObject", Fault::Denied),
        ("TransactWriteItems", Fault::Denied),
    ] {
        let world = World::new().await;
        let router = routes(&world);
        let from = failed(&world).await.run_id.to_string();
        let before = (world.keys(), world.items().await);
        world.fail(operation, fault);
        let answer = resume(&router, "ada", &from, None).await;
        assert!(answer.status >= 500, "{operation}: {}", answer.status);
        assert_eq!((world.keys(), world.items().await), before, "{operation}");
        world.mend();
        submitted(&resume(&router, "ada", &from, None).await);
    }
}

#[tokio::test]
async fn tags_that_give_rights_are_the_services_own() {
    let world = World::new().await;
    for (tag, value, says) in [
        (RESUMED_FROM, run_id(1).to_string(), "resume"),
        (TRIGGERED_BY, json!(["s3://bucket/x"]).to_string(), "a trigger starts"),
    ] {
        let form = Form::good().field("tags", &json!({tag: value}).to_string());
        let answer = crate::post(&routes(&world), crate::MULTIPART, form.end()).await;
        assert_eq!(answer.status, 400);
        let told: Value = answer.json();
        assert!(told["msg"].to_string().contains(says), "{told}");
        assert!(world.keys().is_empty());
    }
}

#[tokio::test]
async fn a_key_whose_run_was_deleted_says_so_and_makes_no_second_run() {
    let world = World::new().await;
    let router = routes(&world);
    let id = submitted(&post_keyed(&router, "ada", "k", Form::good()).await);
    let ended = world.step(id, RunEvent::SystemError { attempt: 0 }, Change::default()).await;
    assert!(world.store.remove(&ended).await.expect("removed"));
    let items = world.items().await;
    let answer = post_keyed(&router, "ada", "k", Form::good()).await;
    assert_eq!(answer.status, 409);
    assert!(answer.json()["msg"].to_string().contains("deleted since"));
    assert_eq!(world.items().await, items);
}
