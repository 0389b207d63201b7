//! collect against an AWS in memory.

mod support;

use chrono::TimeDelta;
use serde_json::json;
use stepwes_cloud::objects::Objects;
use stepwes_collect::{
    Settings, State,
    finish::{Finisher, Settled},
    handle,
    loss::STOPPED_OVERDUE,
};
use stepwes_core::{
    RunEvent, RunState, keys,
    step::{CollectInput, CollectOutput, Next, error_type},
    task::{EngineOutputs, OutputFile, TaskOutcome},
};
use support::{
    BUCKET, CLUSTER, FakeTask, SAMPLE_RUN, SAMPLE_TASK, TABLE, World, event, result, sample_run,
};

const OTHER_TASK: &str = "arn:aws:ecs:eu-central-1:123456789012:task/stepwes/other";

fn function(world: &World) -> State {
    let settings = Settings {
        table: TABLE.to_owned(),
        bucket: BUCKET.to_owned(),
        cluster: CLUSTER.to_owned(),
        max_attempts: 3,
        run_timeout_seconds: 7200,
    };
    State::with_clock(settings, &world.aws, world.clock.clone())
}

fn sample(name: &str, attempt: u32) -> CollectInput {
    CollectInput { attempt, ..event("collect", name) }
}

/// Asks twice, as Step Functions may, and sees that the second time changes nothing.
async fn ask(world: &World, input: CollectInput) -> CollectOutput {
    let function = function(world);
    let first = handle(&function, input.clone()).await.expect("an answer");
    let history = world.history().await;
    let second = handle(&function, input).await.expect("the same answer");
    assert_eq!((first.next, first.attempt), (second.next, second.attempt), "asked again");
    assert_eq!(world.history().await, history, "asked again");
    first
}

fn put_sample_output(world: &World, attempt: u32) {
    world.put(keys::output(sample_run(), attempt, "a b.txt"), "abc");
}

#[tokio::test]
async fn a_finished_task_makes_its_run_complete_with_mapped_outputs() {
    let world = World::new().await;
    world.running(1, SAMPLE_TASK).await;
    put_sample_output(&world, 1);
    world.put_result(&result(1, TaskOutcome::Complete));

    let answer = ask(&world, sample("task-ended", 1)).await;

    assert_eq!((answer.next, answer.attempt), (Next::Complete, 1));
    let run = world.run().await;
    assert_eq!((run.state, run.exit_code, run.has_outputs), (RunState::Complete, Some(0), true));
    assert_eq!(run.end_time, result(1, TaskOutcome::Complete).end_time);
    let location = format!("s3://{BUCKET}/outputs/{SAMPLE_RUN}/1/a b.txt");
    assert_eq!(
        world.object(&keys::outputs_json(sample_run())).expect("outputs.json"),
        json!({
            "run_id": SAMPLE_RUN,
            "attempt": 1,
            "outputs": {"out": {
                "class": "File",
                "location": location,
                "size": 3,
                "checksum": "sha1$a9993e364706816aba3e25717850c26c9cd0d89d",
            }},
            "files": [{"path": "a b.txt", "size": 3, "sha1": "a9993e364706816aba3e25717850c26c9cd0d89d"}],
        })
    );
}

#[tokio::test]
async fn a_run_whose_start_was_never_heard_of_is_running_before_it_is_complete() {
    let world = World::new().await;
    world.claimed(1, SAMPLE_TASK).await;
    put_sample_output(&world, 1);
    world.put_result(&result(1, TaskOutcome::Complete));
    assert_eq!(ask(&world, sample("task-ended", 1)).await.next, Next::Complete);
    assert_eq!(
        world.history().await,
        [RunState::Queued, RunState::Initializing, RunState::Running, RunState::Complete]
    );
}

#[tokio::test]
async fn finished_work_counts_however_the_task_is_said_to_have_ended() {
    for name in support::event_names("collect") {
        let world = World::new().await;
        world.running(1, SAMPLE_TASK).await;
        put_sample_output(&world, 1);
        world.put_result(&result(1, TaskOutcome::Complete));
        assert_eq!(ask(&world, sample(&name, 1)).await.next, Next::Complete, "{name}");
    }
}

#[tokio::test]
async fn a_failed_workflow_is_an_executor_error_with_its_reason_and_exit_code() {
    let world = World::new().await;
    world.running(1, SAMPLE_TASK).await;
    let mut failed = result(1, TaskOutcome::ExecutorError);
    failed.exit_code = Some(33);
    failed.reason = Some("cwltool ended with exit code 33".to_owned());
    world.put_result(&failed);
    assert_eq!(ask(&world, sample("task-ended", 1)).await.next, Next::ExecutorError);
    let run = world.run().await;
    assert_eq!((run.state, run.exit_code), (RunState::ExecutorError, Some(33)));
    assert_eq!(run.cmd, failed.cmd);
    assert_eq!(run.system_logs, ["cwltool ended with exit code 33"]);
}

#[tokio::test]
async fn a_workflow_that_cannot_be_staged_is_an_executor_error_from_initializing() {
    let world = World::new().await;
    world.claimed(1, SAMPLE_TASK).await;
    world.put_result(&result(1, TaskOutcome::ExecutorError));
    assert_eq!(ask(&world, sample("task-ended", 1)).await.next, Next::ExecutorError);
    assert!(!world.said().await.is_empty(), "a failure has a reason");
}

#[tokio::test]
async fn a_task_that_says_trying_again_is_no_use_is_not_tried_again() {
    let world = World::new().await;
    world.claimed(1, SAMPLE_TASK).await;
    let mut failed = result(1, TaskOutcome::SystemError);
    failed.reason = Some("cwltool is not installed; pip install cwltool".to_owned());
    world.put_result(&failed);
    assert_eq!(ask(&world, sample("task-ended", 1)).await.next, Next::SystemError);
    assert_eq!(world.said().await, "cwltool is not installed; pip install cwltool");
}

#[tokio::test]
async fn an_output_that_is_not_in_s3_or_differs_is_named() {
    for (content, said) in [
        (None, "the output file \"a b.txt\" is not in S3"),
        (Some("four"), "the output file \"a b.txt\" has 4 bytes in S3, but 3 were uploaded"),
    ] {
        let world = World::new().await;
        world.running(1, SAMPLE_TASK).await;
        if let Some(content) = content {
            world.put(keys::output(sample_run(), 1, "a b.txt"), content);
        }
        world.put_result(&result(1, TaskOutcome::Complete));
        assert_eq!(ask(&world, sample("task-ended", 1)).await.next, Next::SystemError);
        assert_eq!(world.said().await, said);
        assert!(world.object(&keys::outputs_json(sample_run())).is_none());
    }
}

#[tokio::test]
async fn many_outputs_are_looked_for_on_every_page() {
    let world = World::new().await;
    world.running(1, SAMPLE_TASK).await;
    let mut complete = result(1, TaskOutcome::Complete);
    complete.outputs = EngineOutputs::Listing;
    complete.files = (0..7)
        .map(|n| OutputFile { path: format!("d/{n}"), size: n, sha1: "0".repeat(40) })
        .collect();
    for file in &complete.files {
        let size = usize::try_from(file.size).expect("small");
        world.put(keys::output(sample_run(), 1, &file.path), "x".repeat(size));
    }
    world.put_result(&complete);
    assert_eq!(ask(&world, sample("task-ended", 1)).await.next, Next::Complete);
    let outputs = world.object(&keys::outputs_json(sample_run())).expect("outputs.json");
    assert_eq!(outputs["outputs"]["files"].as_array().map(Vec::len), Some(7));
}

#[tokio::test]
async fn outputs_that_name_what_was_never_made_are_a_system_error() {
    let world = World::new().await;
    world.running(1, SAMPLE_TASK).await;
    put_sample_output(&world, 1);
    let mut wrong = result(1, TaskOutcome::Complete);
    let object = json!({"out": {"class": "File", "location": "outdir:ghost.txt"}});
    wrong.outputs = EngineOutputs::Cwl { object };
    world.put_result(&wrong);
    assert_eq!(ask(&world, sample("task-ended", 1)).await.next, Next::SystemError);
    assert!(world.said().await.contains("ghost.txt"));
}

#[tokio::test]
async fn a_result_that_cannot_be_read_is_a_system_error_that_says_so() {
    let of_another = serde_json::to_vec(&result(2, TaskOutcome::Complete)).expect("JSON");
    for content in [b"{".to_vec(), of_another] {
        let world = World::new().await;
        world.running(1, SAMPLE_TASK).await;
        world.put(keys::result(sample_run(), 1), content);
        assert_eq!(ask(&world, sample("task-ended", 1)).await.next, Next::SystemError);
        assert!(world.said().await.starts_with("the result of attempt 1 cannot be used: "));
    }
}

#[tokio::test]
async fn a_collect_that_dies_before_its_last_step_ends_the_same_when_asked_again() {
    for dies_at in ["s3:ListObjectsV2", "s3:PutObject", "dynamodb:TransactWriteItems"] {
        let world = World::new().await;
        world.claimed(1, SAMPLE_TASK).await;
        put_sample_output(&world, 1);
        world.put_result(&result(1, TaskOutcome::Complete));
        world.fake().refuse(dies_at);
        let function = function(&world);
        let failure = handle(&function, sample("task-ended", 1)).await.expect_err("it dies");
        assert_eq!(failure.error_type(), error_type::INTERNAL, "{dies_at}");
        assert!(!world.run().await.state.is_terminal(), "{dies_at}");
        assert_eq!(ask(&world, sample("task-ended", 1)).await.next, Next::Complete, "{dies_at}");
        assert_eq!(world.history().await.len(), 4, "{dies_at}");
    }
}

#[tokio::test]
async fn a_collect_that_died_between_running_and_complete_goes_on_there() {
    let world = World::new().await;
    world.running(1, SAMPLE_TASK).await;
    put_sample_output(&world, 1);
    world.put_result(&result(1, TaskOutcome::Complete));
    world.put(keys::outputs_json(sample_run()), "cut off");
    assert_eq!(ask(&world, sample("task-ended", 1)).await.next, Next::Complete);
    assert!(world.object(&keys::outputs_json(sample_run())).is_some());
}

/// What the machine does after each loss, in the first and in the last attempt.
#[tokio::test]
async fn every_loss_has_its_way() {
    use Next::{Retry, SystemError};
    let cases = [
        ("task-ended", Retry, SystemError, "left no result"),
        ("spot-interruption", Retry, Retry, "Your Spot Task was interrupted."),
        ("host-retired", Retry, Retry, "maintenance"),
        ("network-unreachable", Retry, SystemError, "ResourceInitializationError"),
        ("image-missing", Retry, SystemError, "CannotPullContainerError"),
        ("out-of-memory", SystemError, SystemError, "ask for more (stepwes.memory)"),
        ("stopped-by-hand", Retry, SystemError, "Task stopped by an operator"),
        ("over-its-limit", SystemError, SystemError, "longer than its limit of 2 hours"),
        ("refused", Retry, SystemError, "refused the attempt"),
        ("engine-task-failed", Retry, SystemError, "exit code 70"),
        ("told-to-stop", Retry, SystemError, "told to stop"),
        ("killed", Retry, SystemError, "was killed (exit code 137"),
        ("timed-out", SystemError, SystemError, "longer than its limit of 2 hours"),
        ("no-capacity", Retry, SystemError, "RESOURCE:MEMORY"),
        ("capacity-unavailable", Retry, SystemError, "Capacity is unavailable at this time"),
        ("access-denied", SystemError, SystemError, "not authorized to perform: iam:PassRole"),
        ("subnet-wrong", SystemError, SystemError, "The subnet ID 'subnet-0' does not exist"),
        ("cluster-missing", SystemError, SystemError, "Cluster not found."),
        ("task-definition-missing", SystemError, SystemError, "TaskDefinition is inactive"),
        ("server-error", Retry, SystemError, "Service Unavailable"),
    ];
    let mut covered: Vec<_> = cases.iter().map(|case| case.0).collect();
    covered.sort_unstable();
    assert_eq!(support::event_names("collect"), covered, "every sample event has a row");

    for (name, first, last, words) in cases {
        for (attempt, next) in [(1, first), (3, last)] {
            let world = World::new().await;
            // A task that never started has claimed nothing.
            let started =
                !sample(name, attempt).error.is_some_and(|error| error.error.contains("ECS"));
            let run = if started {
                world.claimed(attempt, SAMPLE_TASK).await
            } else {
                world.initializing(attempt).await
            };
            let answer = ask(&world, sample(name, attempt)).await;
            assert_eq!((answer.next, answer.attempt), (next, attempt), "{name}");
            let said = if next == Retry {
                assert!(!world.run().await.state.is_terminal(), "{name}");
                answer.reason
            } else {
                assert_eq!(world.run().await.state, RunState::SystemError, "{name}");
                world.said().await
            };
            assert!(said.contains(words), "{name}: {said}");
            assert!(said.chars().count() < 1000, "{name}: {said}");
            let token = run.token.expect("an attempt has a token");
            assert!(!said.contains(token.secret()), "{name}");
            if first == Retry && next == SystemError {
                assert!(said.starts_with("attempt 3 of 3 was lost: "), "{name}: {said}");
            }
        }
    }
}

#[tokio::test]
async fn the_token_in_a_cause_never_gets_into_a_reason() {
    let world = World::new().await;
    let run = world.claimed(1, SAMPLE_TASK).await;
    let secret = run.token.expect("an attempt has a token").secret().to_owned();
    let mut input = sample("stopped-by-hand", 1);
    let error = input.error.as_mut().expect("an error");
    error.cause = error.cause.replace("Task stopped by an operator", &format!("because {secret}"));
    let answer = ask(&world, input).await;
    assert_eq!(answer.next, Next::Retry);
    assert!(answer.reason.contains("because …"), "{}", answer.reason);
    assert!(!answer.reason.contains(&secret));
}

#[tokio::test]
async fn a_task_that_stopped_by_itself_before_its_work_was_done_is_a_lost_attempt() {
    let world = World::new().await;
    world.running(1, SAMPLE_TASK).await;
    world.put_result(&result(1, TaskOutcome::Stopped));
    let answer = ask(&world, sample("spot-interruption", 1)).await;
    assert_eq!(answer.next, Next::Retry);
}

#[tokio::test]
async fn the_twin_that_was_refused_does_not_end_the_attempt_of_the_task_that_lives() {
    let world = World::new().await;
    world.running(1, OTHER_TASK).await;
    world.fake().add_task(OTHER_TASK, FakeTask::running(SAMPLE_RUN, 1));

    let waiting = ask(&world, sample("refused", 1)).await;
    assert_eq!(waiting.next, Next::Wait);
    assert!(world.fake().tasks[OTHER_TASK].stops.is_empty(), "nobody stops a healthy task");

    put_sample_output(&world, 1);
    world.put_result(&result(1, TaskOutcome::Complete));
    assert_eq!(ask(&world, sample("refused", 1)).await.next, Next::Complete);
}

#[tokio::test]
async fn the_loss_of_the_task_that_counts_is_told_not_that_of_its_twin() {
    let world = World::new().await;
    world.running(1, OTHER_TASK).await;
    let mut lost = FakeTask::running(SAMPLE_RUN, 1);
    lost.stop("SpotInterruption", "Your Spot Task was interrupted.", Some(143));
    world.fake().add_task(OTHER_TASK, lost);
    let answer = ask(&world, sample("refused", 1)).await;
    assert_eq!(answer.next, Next::Retry);
    assert!(answer.reason.contains("Spot"), "{}", answer.reason);
}

#[tokio::test]
async fn work_that_is_finished_while_its_task_is_asked_after_counts() {
    let world = World::new().await;
    world.running(1, OTHER_TASK).await;
    put_sample_output(&world, 1);
    let mut task = FakeTask::running(SAMPLE_RUN, 1);
    task.stop("EssentialContainerExited", "Essential container in task exited", Some(0));
    let result = serde_json::to_vec(&result(1, TaskOutcome::Complete)).expect("JSON");
    task.last_words.insert(keys::result(sample_run(), 1), result);
    world.fake().add_task(OTHER_TASK, task);
    assert_eq!(ask(&world, sample("refused", 1)).await.next, Next::Complete);
}

#[tokio::test]
async fn a_run_that_a_task_has_claimed_since_it_was_looked_at_is_not_given_up() {
    let world = World::new().await;
    let seen = world.initializing(1).await;
    world.claim(1, SAMPLE_TASK).await;
    let objects = Objects::new(world.aws.s3(), BUCKET);
    let finisher = Finisher::new(world.store.clone(), objects);
    let settled = finisher.system_error(&seen, "no task was started".to_owned()).await;
    let now = world.run().await;
    assert_eq!(now.state, RunState::Initializing);
    assert_eq!(settled, Ok(Settled::Changed(Box::new(now.clone()))));

    let settled = finisher.system_error(&now, "its task is gone".to_owned()).await;
    assert!(matches!(settled, Ok(Settled::Ended(_))), "{settled:?}");
    assert_eq!(world.run().await.state, RunState::SystemError);
}

#[tokio::test]
async fn a_lost_attempt_is_told_with_the_task_that_held_it() {
    for (claimed, expected) in [(true, Some(SAMPLE_TASK.to_owned())), (false, None)] {
        let world = World::new().await;
        if claimed {
            world.running(1, SAMPLE_TASK).await;
        } else {
            world.initializing(1).await;
        }
        let answer = ask(&world, sample("spot-interruption", 1)).await;
        assert_eq!((answer.next, answer.task_arn), (Next::Retry, expected));
    }
}

#[tokio::test]
async fn a_twin_that_outlives_the_limit_is_stopped_and_the_run_is_told_why() {
    let world = World::new().await;
    world.running(1, OTHER_TASK).await;
    world.fake().add_task(OTHER_TASK, FakeTask::running(SAMPLE_RUN, 1));
    world.clock.advance(TimeDelta::seconds(7201));
    assert_eq!(ask(&world, sample("refused", 1)).await.next, Next::Wait);
    assert_eq!(world.fake().tasks[OTHER_TASK].stops[0], STOPPED_OVERDUE);

    let stops = STOPPED_OVERDUE;
    world.fake().tasks.get_mut(OTHER_TASK).expect("the task").stop(
        "UserInitiated",
        stops,
        Some(75),
    );
    assert_eq!(ask(&world, sample("refused", 1)).await.next, Next::SystemError);
    assert!(world.said().await.contains("longer than its limit of 2 hours"));
}

#[tokio::test]
async fn a_timed_out_task_is_stopped_before_its_run_ends() {
    let world = World::new().await;
    world.running(1, SAMPLE_TASK).await;
    world.fake().add_task(SAMPLE_TASK, FakeTask::running(SAMPLE_RUN, 1));
    assert_eq!(ask(&world, sample("timed-out", 1)).await.next, Next::Wait);
    assert_eq!(world.run().await.state, RunState::Running);
    assert!(!world.fake().tasks[SAMPLE_TASK].stops.is_empty());

    world.fake().tasks.clear();
    assert_eq!(ask(&world, sample("timed-out", 1)).await.next, Next::SystemError);
}

#[tokio::test]
async fn a_cancelled_run_is_canceled_once_its_task_is_gone_and_whatever_it_left() {
    for outcome in [None, Some(TaskOutcome::Stopped), Some(TaskOutcome::Complete)] {
        let world = World::new().await;
        world.running(1, SAMPLE_TASK).await;
        world.step(RunEvent::Cancel).await;
        if let Some(outcome) = outcome {
            put_sample_output(&world, 1);
            world.put_result(&result(1, outcome));
        }
        assert_eq!(ask(&world, sample("stopped-by-hand", 1)).await.next, Next::Canceled);
        let run = world.run().await;
        assert_eq!((run.state, run.has_outputs), (RunState::Canceled, false));
        assert!(world.object(&keys::outputs_json(sample_run())).is_none());
        assert_eq!(run.exit_code, outcome.map(|_| 0));
    }
}

#[tokio::test]
async fn a_cancelled_run_whose_task_lives_is_not_canceled_and_its_task_is_stopped() {
    let world = World::new().await;
    world.running(1, OTHER_TASK).await;
    world.fake().add_task(OTHER_TASK, FakeTask::running(SAMPLE_RUN, 1));
    world.step(RunEvent::Cancel).await;
    assert_eq!(ask(&world, sample("refused", 1)).await.next, Next::Wait);
    assert_eq!(world.run().await.state, RunState::Canceling);
    assert!(!world.fake().tasks[OTHER_TASK].stops.is_empty());
    world.fake().tasks.clear();
    assert_eq!(ask(&world, sample("refused", 1)).await.next, Next::Canceled);
}

#[tokio::test]
async fn a_run_cancelled_before_its_task_could_claim_it_is_canceled() {
    let world = World::new().await;
    world.initializing(1).await;
    world.step(RunEvent::Cancel).await;
    assert_eq!(ask(&world, sample("refused", 1)).await.next, Next::Canceled);
}

#[tokio::test]
async fn a_late_collect_of_an_earlier_attempt_is_stale_and_changes_nothing() {
    let world = World::new().await;
    world.running(2, OTHER_TASK).await;
    put_sample_output(&world, 1);
    world.put_result(&result(1, TaskOutcome::Complete));
    let failure = handle(&function(&world), sample("task-ended", 1)).await.expect_err("stale");
    assert_eq!(failure.error_type(), error_type::STALE_ATTEMPT);
    assert_eq!(world.run().await.state, RunState::Running);
}

#[tokio::test]
async fn a_run_that_does_not_exist_is_not_found() {
    let world = World::new().await;
    let failure = handle(&function(&world), sample("task-ended", 1)).await.expect_err("no run");
    assert_eq!(failure.error_type(), error_type::RUN_NOT_FOUND);
}

#[tokio::test]
async fn an_ended_run_answers_its_end() {
    let world = World::new().await;
    world.running(1, SAMPLE_TASK).await;
    world.step(RunEvent::SystemError { attempt: 1 }).await;
    put_sample_output(&world, 1);
    world.put_result(&result(1, TaskOutcome::Complete));
    assert_eq!(ask(&world, sample("task-ended", 1)).await.next, Next::SystemError);
}
