//! report against an AWS in memory.

#[path = "../../collect/tests/support/mod.rs"]
mod support;

use serde_json::json;
use stepwes_core::{
    RunEvent, RunState,
    step::error_type,
    task::{RefusedReason, ReportAction, ReportRequest, ReportResponse},
    token::AttemptToken,
    trigger::TRIGGERED_BY,
};
use stepwes_report::{Settings, State, handle};
use support::{
    BUCKET, ROLE, SAMPLE_RUN, SAMPLE_TASK, TABLE, World, event, event_json, new_run, sample_run,
};

const OTHER_TASK: &str = "arn:aws:ecs:eu-central-1:123456789012:task/stepwes/other";

fn function(world: &World) -> State {
    let settings = Settings {
        table: TABLE.to_owned(),
        bucket: BUCKET.to_owned(),
        data_role_arn: ROLE.to_owned(),
        input_buckets: vec!["reference-data".to_owned()],
        output_buckets: vec!["lab-results".to_owned()],
        trigger_buckets: vec!["incoming".to_owned(), BUCKET.to_owned()],
    };
    State::new(settings, &world.aws).expect("safe settings")
}

/// A sample event with the token of the run's present attempt.
async fn sample(world: &World, name: &str) -> ReportRequest {
    let run = world.run().await;
    ReportRequest {
        attempt: run.attempt,
        token: run.token.expect("an attempt has a token"),
        ..event("report", name)
    }
}

async fn ask(world: &World, request: &ReportRequest) -> ReportResponse {
    handle(&function(world), request.clone()).await.expect("an answer")
}

async fn refused(world: &World, request: &ReportRequest) -> RefusedReason {
    let assumed = world.fake().assumed.len();
    let answer = ask(world, request).await;
    assert_eq!(world.fake().assumed.len(), assumed, "a refused task gets no credentials");
    match answer {
        ReportResponse::Refused { reason } => reason,
        ReportResponse::Accepted { .. } => panic!("it was accepted"),
    }
}

/// The access key that came with an accepted report, if one did.
fn accepted(answer: ReportResponse) -> Option<String> {
    match answer {
        ReportResponse::Accepted { credentials, .. } => {
            credentials.map(|given| given.access_key_id)
        }
        ReportResponse::Refused { reason } => panic!("refused: {}", reason.as_str()),
    }
}

#[tokio::test]
async fn the_first_task_gets_the_attempt_and_credentials_for_its_run_alone() {
    let world = World::new().await;
    world.initializing(1).await;
    let answer = ask(&world, &sample(&world, "claim").await).await;
    assert_eq!(accepted(answer).as_deref(), Some("KEY1"));
    assert_eq!(world.run().await.task_arn.as_deref(), Some(SAMPLE_TASK));

    let asked = world.fake().assumed.remove(0);
    assert_eq!(asked["RoleArn"], ROLE);
    assert_eq!(asked["RoleSessionName"], format!("stepwes-{SAMPLE_RUN}"));
    assert_eq!(asked["DurationSeconds"], "3600");
    assert!(asked["Policy"].contains(&format!("arn:aws:s3:::{BUCKET}/work/{SAMPLE_RUN}/1/*")));
}

#[tokio::test]
async fn a_claim_is_told_the_runs_trace_and_nothing_else_is() {
    let world = World::new().await;
    let trace = world.initializing(1).await.trace;
    assert!(trace.is_some());
    let told = async |action| match ask(&world, &sample(&world, action).await).await {
        ReportResponse::Accepted { trace, .. } => trace,
        ReportResponse::Refused { reason } => panic!("refused: {}", reason.as_str()),
    };
    assert_eq!(told("claim").await, trace);
    assert_eq!(told("run").await, None);
    assert_eq!(told("credentials").await, None);
}

#[tokio::test]
async fn said_again_a_claim_renews_the_credentials_and_changes_nothing() {
    let world = World::new().await;
    world.initializing(1).await;
    let request = sample(&world, "claim").await;
    accepted(ask(&world, &request).await);
    let before = world.run().await;
    assert_eq!(accepted(ask(&world, &request).await).as_deref(), Some("KEY2"));
    assert_eq!(world.run().await, before);
}

#[tokio::test]
async fn a_running_task_renews_its_credentials_by_its_claim() {
    let world = World::new().await;
    world.running(1, SAMPLE_TASK).await;
    accepted(ask(&world, &sample(&world, "claim").await).await);
    assert_eq!(world.run().await.state, RunState::Running);
}

#[tokio::test]
async fn the_engine_gets_credentials_that_only_read() {
    let world = World::new().await;
    world.running(1, SAMPLE_TASK).await;
    let before = world.run().await;
    let answer = ask(&world, &sample(&world, "credentials").await).await;
    assert_eq!(accepted(answer).as_deref(), Some("KEY1"));
    assert_eq!(world.run().await, before);

    let asked = world.fake().assumed.remove(0);
    assert_eq!(asked["RoleArn"], ROLE);
    assert_eq!(asked["RoleSessionName"], format!("stepwes-{SAMPLE_RUN}-engine"));
    let policy = &asked["Policy"];
    assert!(policy.contains(&format!("arn:aws:s3:::{BUCKET}/requests/{SAMPLE_RUN}/*")));
    assert!(policy.contains("arn:aws:s3:::reference-data/*"));
    assert!(!policy.contains("Put") && !policy.contains("/work/") && !policy.contains("/outputs/"));
}

#[tokio::test]
async fn task_and_engine_read_the_objects_that_started_their_run() {
    let world = World::new().await;
    let mut new = new_run(sample_run());
    let objects = json!(["s3://incoming/a.gz", format!("s3://{BUCKET}/b.gz"), "s3://other/c.gz"]);
    new.summary.tags.insert(TRIGGERED_BY.to_owned(), objects.to_string());
    world.store.create(new).await.expect("the table answers");
    world.step(RunEvent::Initialize).await;
    for action in ["claim", "credentials"] {
        accepted(ask(&world, &sample(&world, action).await).await);
        let policy = world.fake().assumed.remove(0).remove("Policy").expect("a policy");
        for arn in ["incoming/a.gz".to_owned(), format!("{BUCKET}/b.gz")] {
            assert!(policy.contains(&format!("\"arn:aws:s3:::{arn}\"")), "{action}: {policy}");
        }
        assert!(!policy.contains("c.gz"), "{action}: {policy}");
    }
}

#[tokio::test]
async fn the_engines_start_makes_the_run_running_once() {
    let world = World::new().await;
    world.claimed(1, SAMPLE_TASK).await;
    let request = sample(&world, "run").await;
    let with = accepted(ask(&world, &request).await);
    assert_eq!((with, world.fake().assumed.len()), (None, 0), "those of the claim serve on");
    let run = world.run().await;
    let ReportAction::Run { cmd, start_time } = &request.action else { panic!("another action") };
    assert_eq!((run.state, &run.cmd, run.start_time), (RunState::Running, cmd, Some(*start_time)));
    accepted(ask(&world, &request).await);
    assert_eq!(world.run().await, run, "said again");
    assert_eq!(
        world.history().await,
        [RunState::Queued, RunState::Initializing, RunState::Running]
    );
}

#[tokio::test]
async fn a_twin_is_refused_whatever_it_says() {
    let world = World::new().await;
    world.claimed(1, OTHER_TASK).await;
    for name in ["claim", "run", "credentials"] {
        let request = sample(&world, name).await;
        assert_eq!(refused(&world, &request).await, RefusedReason::Twin);
    }
    assert_eq!(world.run().await.state, RunState::Initializing);
}

#[tokio::test]
async fn without_a_claim_no_engine_may_start_and_none_gets_credentials() {
    let world = World::new().await;
    world.initializing(1).await;
    for name in ["run", "credentials"] {
        let request = sample(&world, name).await;
        assert_eq!(refused(&world, &request).await, RefusedReason::Unknown);
    }
    assert_eq!(world.run().await.state, RunState::Initializing);
}

#[tokio::test]
async fn a_wrong_token_and_an_unknown_run_look_the_same() {
    let world = World::new().await;
    world.claimed(1, SAMPLE_TASK).await;
    for name in ["claim", "run", "credentials"] {
        let forged = ReportRequest {
            token: AttemptToken::from_secret("0".repeat(64)),
            ..sample(&world, name).await
        };
        let unknown = ReportRequest {
            run_id: "01890a5d-ac96-774b-bcce-000000000000".parse().expect("a run id"),
            ..sample(&world, name).await
        };
        let wire = |answer| serde_json::to_string(&answer).expect("JSON");
        assert_eq!(wire(ask(&world, &forged).await), wire(ask(&world, &unknown).await));
        assert_eq!(refused(&world, &forged).await, RefusedReason::Unknown);
    }
}

#[tokio::test]
async fn no_attempt_but_the_present_one_may_speak() {
    let world = World::new().await;
    world.claimed(2, SAMPLE_TASK).await;
    for name in ["claim", "run", "credentials"] {
        let request = sample(&world, name).await;
        for (attempt, reason) in
            [(0, RefusedReason::Unknown), (1, RefusedReason::Over), (3, RefusedReason::Unknown)]
        {
            let request = ReportRequest { attempt, ..request.clone() };
            assert_eq!(refused(&world, &request).await, reason, "{name} {attempt}");
        }
    }
}

#[tokio::test]
async fn a_cancel_wins_before_the_task_is_known_and_after() {
    for claimed in [false, true] {
        let world = World::new().await;
        if claimed {
            world.claimed(1, SAMPLE_TASK).await;
        } else {
            world.initializing(1).await;
        }
        world.step(RunEvent::Cancel).await;
        for name in ["run", "credentials"] {
            let request = sample(&world, name).await;
            assert_eq!(refused(&world, &request).await, RefusedReason::Canceling);
        }
        let claim = sample(&world, "claim").await;
        if claimed {
            // For its logs. Whoever else comes is refused.
            accepted(ask(&world, &claim).await);
            let twin = ReportRequest { task_arn: format!("{SAMPLE_TASK}0"), ..claim };
            assert_eq!(refused(&world, &twin).await, RefusedReason::Canceling);
        } else {
            assert_eq!(refused(&world, &claim).await, RefusedReason::Canceling);
        }
        assert_eq!(world.run().await.state, RunState::Canceling);
    }
}

#[tokio::test]
async fn a_task_of_an_ended_run_is_refused() {
    let world = World::new().await;
    world.running(1, SAMPLE_TASK).await;
    world.step(RunEvent::Complete { attempt: 1 }).await;
    for name in ["claim", "run", "credentials"] {
        let request = sample(&world, name).await;
        assert_eq!(refused(&world, &request).await, RefusedReason::Over);
    }
}

#[tokio::test]
async fn what_is_no_arn_is_not_kept() {
    let world = World::new().await;
    world.initializing(1).await;
    let request = sample(&world, "claim").await;
    for task_arn in
        [String::new(), "task".into(), format!("arn:{}", "x".repeat(5000)), "arn:\n".into()]
    {
        let request = ReportRequest { task_arn, ..request.clone() };
        assert_eq!(refused(&world, &request).await, RefusedReason::Unknown);
    }
    assert_eq!(world.run().await.task_arn, None);
}

#[tokio::test]
async fn a_claim_outlives_sts_failing_and_is_made_good_the_next_time() {
    let world = World::new().await;
    world.initializing(1).await;
    let request = sample(&world, "claim").await;
    world.fake().refuse("sts:AssumeRole");
    let failure = handle(&function(&world), request.clone()).await.expect_err("STS refuses");
    assert_eq!(failure.error_type(), error_type::INTERNAL);
    assert!(!failure.to_string().contains(request.token.secret()));
    accepted(ask(&world, &request).await);
}

#[test]
fn every_sample_event_is_read() {
    for name in support::event_names("report") {
        let request: ReportRequest = event("report", &name);
        let written = serde_json::to_value(&request).expect("JSON");
        assert_eq!(written, event_json("report", &name), "{name}");
    }
}
