//! advance against an AWS in memory.

#[path = "../../collect/tests/support/mod.rs"]
mod support;

use stepwes_advance::{Settings, State, handle};
use stepwes_core::{
    RunEvent, RunState,
    resources::{Bound, EphemeralStorage, ResourceBounds, Resources, TaskSize},
    step::{AdvanceEvent, AdvanceInput, AdvanceOutput, Next, error_type},
};
use support::{SAMPLE_TASK, TABLE, World, event, sample_run};

fn function(world: &World) -> State {
    function_within(world, ResourceBounds { time: 7200, ..ResourceBounds::default() })
}

fn function_within(world: &World, resources: ResourceBounds) -> State {
    let settings = Settings { table: TABLE.to_owned(), max_attempts: 3, resources };
    State::new(settings, &world.aws)
}

fn initialize() -> AdvanceInput {
    event("advance", "initialize")
}

fn preempt(attempt: u32) -> AdvanceInput {
    preempt_of(attempt, Some(SAMPLE_TASK))
}

fn preempt_of(attempt: u32, task: Option<&str>) -> AdvanceInput {
    let event = AdvanceEvent::Preempt {
        attempt,
        reason: "Spot took\nit back".to_owned(),
        task_arn: task.map(str::to_owned),
    };
    AdvanceInput { run_id: sample_run(), event }
}

fn system_error(attempt: u32) -> AdvanceInput {
    let sample: AdvanceInput = event("advance", "system-error");
    let AdvanceEvent::SystemError { error, cause, .. } = sample.event else {
        panic!("another event")
    };
    AdvanceInput { event: AdvanceEvent::SystemError { attempt, error, cause }, ..sample }
}

/// Asks twice, as Step Functions may, and sees that the second answer is the first.
async fn ask(world: &World, input: AdvanceInput) -> AdvanceOutput {
    let function = function(world);
    let first = handle(&function, input.clone()).await.expect("an answer");
    let history = world.history().await;
    let second = handle(&function, input).await.expect("the same answer");
    assert_eq!(first, second, "asked again");
    assert_eq!(world.history().await, history, "asked again");
    first
}

async fn fails(world: &World, input: AdvanceInput) -> &'static str {
    handle(&function(world), input).await.expect_err("a failure").error_type()
}

fn way(answer: &AdvanceOutput) -> (Next, u32) {
    (answer.next, answer.attempt)
}

#[tokio::test]
async fn every_sample_event_has_a_way() {
    let world = World::new().await;
    world.queued().await;
    for (name, expected) in [
        ("initialize", (Next::RunTask, 1)),
        ("preempt", (Next::RunTask, 2)),
        ("system-error", (Next::SystemError, 2)),
        ("system-error-before-the-first-attempt", (Next::SystemError, 2)),
    ] {
        if name == "preempt" {
            world.claim(1, SAMPLE_TASK).await;
        }
        let mut input: AdvanceInput = event("advance", name);
        if let AdvanceEvent::SystemError { attempt, .. } = &mut input.event {
            *attempt = 2;
        }
        assert_eq!(way(&ask(&world, input).await), expected, "{name}");
    }
    assert_eq!(support::event_names("advance").len(), 4);
}

#[tokio::test]
async fn the_first_attempt_begins_once_with_one_token() {
    let world = World::new().await;
    world.queued().await;
    let answer = ask(&world, initialize()).await;
    assert_eq!(way(&answer), (Next::RunTask, 1));
    assert_eq!(answer.timeout_seconds, 7200);
    assert_eq!(Some(answer.token), world.run().await.token);
    assert_eq!(world.history().await, [RunState::Queued, RunState::Initializing]);
}

#[tokio::test]
async fn a_run_gets_the_size_and_the_time_that_it_asked_for_in_every_attempt() {
    let world = World::new().await;
    let asked = Resources { cpu: Some(2000), memory: Some(5000), disk: Some(100), time: Some(600) };
    world.queued_asking(sample_run(), asked).await;
    let size = TaskSize {
        cpu: Some("2048".to_owned()),
        memory: Some("5120".to_owned()),
        ephemeral_storage: Some(EphemeralStorage { size_in_gib: 100 }),
    };
    let first = ask(&world, initialize()).await;
    assert_eq!((first.timeout_seconds, &first.size), (600, &size));
    world.claim(1, SAMPLE_TASK).await;
    let second = ask(&world, preempt(1)).await;
    assert_eq!((way(&second), second.timeout_seconds), ((Next::RunTask, 2), 600));
    assert_eq!(second.size, size);
}

#[tokio::test]
async fn a_run_that_asked_for_nothing_gets_what_the_task_definition_says() {
    let world = World::new().await;
    world.queued().await;
    assert_eq!(ask(&world, initialize()).await.size, TaskSize::default());
}

#[tokio::test]
async fn a_run_that_asked_for_more_than_the_service_gives_by_now_fails_before_it_costs_anything() {
    let asked = Resources { memory: Some(30_720), ..Resources::default() };
    let smaller = ResourceBounds {
        memory: Bound { default: Some(4096), max: 8192 },
        ..ResourceBounds::default()
    };
    let said = "the service's bounds were changed since the run was submitted: stepwes.memory is \
                30 GiB, more than the 8 GiB that this service gives a run";
    for attempt in [1, 2] {
        let world = World::new().await;
        world.queued_asking(sample_run(), asked).await;
        let mut input = initialize();
        if attempt == 2 {
            ask(&world, input).await;
            world.claim(1, SAMPLE_TASK).await;
            input = preempt(1);
        }
        let answer = handle(&function_within(&world, smaller), input).await.expect("an answer");
        assert_eq!(way(&answer), (Next::SystemError, attempt));
        assert!(world.said().await.contains(said), "{}", world.said().await);
    }
}

#[tokio::test]
async fn a_cancelled_run_that_asked_for_more_than_the_service_gives_is_left_to_reconcile() {
    let world = World::new().await;
    let asked = Resources { memory: Some(30_720), ..Resources::default() };
    world.queued_asking(sample_run(), asked).await;
    ask(&world, initialize()).await;
    world.step(RunEvent::Cancel).await;
    let smaller = ResourceBounds {
        memory: Bound { default: Some(4096), max: 8192 },
        ..ResourceBounds::default()
    };
    let failed = handle(&function_within(&world, smaller), initialize()).await;
    assert_eq!(failed.expect_err("no task may be alive").error_type(), error_type::INTERNAL);
    assert_eq!(world.run().await.state, RunState::Canceling);
}

#[tokio::test]
async fn a_repeated_initialize_answers_the_same_while_the_engine_runs() {
    let world = World::new().await;
    let token = world.running(1, SAMPLE_TASK).await.token;
    let answer = ask(&world, initialize()).await;
    assert_eq!((way(&answer), Some(answer.token)), ((Next::RunTask, 1), token));
}

#[tokio::test]
async fn a_run_cancelled_before_its_execution_began_is_canceled_and_starts_no_task() {
    let world = World::new().await;
    world.queued().await;
    world.step(RunEvent::Cancel).await;
    let answer = ask(&world, initialize()).await;
    assert_eq!(way(&answer), (Next::Canceled, 0));
    assert_eq!(answer.token.secret(), "");
    assert_eq!(world.history().await, [RunState::Queued, RunState::Canceling, RunState::Canceled]);
}

#[tokio::test]
async fn a_run_cancelled_after_a_lost_answer_starts_the_task_that_report_will_refuse() {
    let world = World::new().await;
    world.initializing(1).await;
    world.step(RunEvent::Cancel).await;
    assert_eq!(way(&ask(&world, initialize()).await), (Next::RunTask, 1));
    assert_eq!(world.run().await.state, RunState::Canceling, "no task has been seen stopped");
}

#[tokio::test]
async fn an_ended_run_gets_no_attempt() {
    let world = World::new().await;
    world.queued().await;
    world.step(RunEvent::SystemError { attempt: 0 }).await;
    assert_eq!(way(&ask(&world, initialize()).await), (Next::SystemError, 0));
}

#[tokio::test]
async fn a_lost_attempt_is_followed_by_the_next_with_another_token() {
    let world = World::new().await;
    let first = world.running(1, SAMPLE_TASK).await;
    let answer = ask(&world, preempt(1)).await;
    assert_eq!(way(&answer), (Next::RunTask, 2));
    assert_ne!(Some(&answer.token), first.token.as_ref());
    assert_eq!(world.said().await, "attempt 1 of 3 was lost: Spot took it back; trying again");
    assert_eq!(world.run().await.task_arn, None);
}

#[tokio::test]
async fn when_the_last_attempt_is_lost_the_run_is_preempted() {
    let world = World::new().await;
    world.running(3, SAMPLE_TASK).await;
    assert_eq!(way(&ask(&world, preempt(3)).await), (Next::Preempted, 3));
    assert_eq!(world.run().await.state, RunState::Preempted);
    assert!(world.said().await.ends_with("no attempt is left"));
}

#[tokio::test]
async fn an_attempt_that_a_task_has_claimed_since_it_was_found_lost_is_not_lost() {
    for cancel in [false, true] {
        for found in [None, Some("arn:aws:ecs:eu-central-1:123456789012:task/stepwes/other")] {
            let world = World::new().await;
            world.running(1, SAMPLE_TASK).await;
            if cancel {
                world.step(RunEvent::Cancel).await;
            }
            let before = world.run().await;
            assert_eq!(way(&ask(&world, preempt_of(1, found)).await), (Next::Wait, 1));
            assert_eq!(world.run().await, before, "its task may be alive");
        }
    }
}

#[tokio::test]
async fn a_run_cancelled_while_its_attempt_was_lost_is_canceled() {
    let world = World::new().await;
    world.running(1, SAMPLE_TASK).await;
    world.step(RunEvent::Cancel).await;
    assert_eq!(way(&ask(&world, preempt(1)).await), (Next::Canceled, 1));
}

#[tokio::test]
async fn a_run_cancelled_after_the_lost_answer_of_its_next_attempt_starts_that_task() {
    let world = World::new().await;
    world.initializing(2).await;
    world.step(RunEvent::Cancel).await;
    assert_eq!(way(&ask(&world, preempt(1)).await), (Next::RunTask, 2));
    assert_eq!(world.run().await.state, RunState::Canceling);
}

#[tokio::test]
async fn a_late_step_of_an_attempt_long_over_touches_nothing() {
    let world = World::new().await;
    world.running(3, SAMPLE_TASK).await;
    for input in [initialize(), preempt(1), system_error(1), system_error(0)] {
        assert_eq!(fails(&world, input).await, error_type::STALE_ATTEMPT);
    }
    assert_eq!(world.run().await.state, RunState::Running);
}

#[tokio::test]
async fn a_failed_step_ends_the_run_with_what_went_wrong() {
    let world = World::new().await;
    world.initializing(1).await;
    assert_eq!(way(&ask(&world, system_error(1)).await), (Next::SystemError, 1));
    assert_eq!(
        world.said().await,
        "a step of the service failed (Stepwes.Internal): the runs bucket refused a request; \
         the function's log says why. Submit the run again; if it fails again, tell the operator."
    );
}

#[tokio::test]
async fn a_failed_step_never_gives_up_what_a_task_has_claimed() {
    for state in [RunState::Initializing, RunState::Running] {
        let world = World::new().await;
        world.claimed(1, SAMPLE_TASK).await;
        if state == RunState::Running {
            world.step(RunEvent::Run { attempt: 1 }).await;
        }
        let failure = handle(&function(&world), system_error(1)).await.expect_err("a failure");
        assert_eq!(failure.error_type(), error_type::INTERNAL);
        let said = failure.to_string();
        assert!(said.contains("the runs bucket refused a request"), "{said}");
        assert_eq!(world.run().await.state, state, "its work may be finished");
    }
}

#[tokio::test]
async fn a_step_that_failed_after_it_began_an_attempt_ends_that_attempt() {
    for attempt in [1, 2] {
        let world = World::new().await;
        world.initializing(attempt).await;
        let answer = handle(&function(&world), system_error(attempt - 1)).await.expect("an answer");
        assert_eq!(way(&answer), (Next::SystemError, attempt));
    }
}

#[tokio::test]
async fn a_failed_first_step_of_a_queued_run_ends_it() {
    let world = World::new().await;
    world.queued().await;
    assert_eq!(way(&ask(&world, system_error(0)).await), (Next::SystemError, 0));
}

#[tokio::test]
async fn a_failed_step_of_a_cancelled_run_never_claims_that_its_task_is_gone() {
    let world = World::new().await;
    world.running(1, SAMPLE_TASK).await;
    world.step(RunEvent::Cancel).await;
    assert_eq!(fails(&world, system_error(1)).await, error_type::INTERNAL);
    assert_eq!(world.run().await.state, RunState::Canceling);
}

#[tokio::test]
async fn a_failed_first_step_of_a_cancelled_run_cancels_it() {
    for attempt in [0, 1] {
        let world = World::new().await;
        if attempt == 0 {
            world.queued().await;
        } else {
            world.initializing(1).await;
        }
        world.step(RunEvent::Cancel).await;
        let answer = ask(&world, system_error(0)).await;
        assert_eq!(way(&answer), (Next::Canceled, attempt));
    }
}

#[tokio::test]
async fn a_run_that_does_not_exist_is_not_found() {
    let world = World::new().await;
    for input in [initialize(), preempt(1), system_error(0)] {
        assert_eq!(fails(&world, input).await, error_type::RUN_NOT_FOUND);
    }
}

#[tokio::test]
async fn a_table_that_refuses_is_an_internal_failure_and_the_next_try_succeeds() {
    let world = World::new().await;
    world.queued().await;
    world.fake().refuse("dynamodb:TransactWriteItems");
    assert_eq!(fails(&world, initialize()).await, error_type::INTERNAL);
    assert_eq!(way(&ask(&world, initialize()).await), (Next::RunTask, 1));
}
