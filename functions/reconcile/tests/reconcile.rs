//! reconcile against an AWS in memory.

#[path = "../../collect/tests/support/mod.rs"]
mod support;

use std::sync::Arc;

use chrono::{DateTime, TimeDelta, Utc};
use stepwes_core::{
    Clock, IdGenerator as _, RandomIds, RunEvent, RunId, RunState, keys, saved, task::TaskOutcome,
};
use stepwes_reconcile::{
    Event, ExpiredFiles, Settings, State, Summary, handle,
    summary::{Action, Repair},
};
use stepwes_store::{Change, NewRun};
use support::{
    BUCKET, CLUSTER, FakeExecution, FakeTask, SAMPLE_RUN, SAMPLE_TASK, STATE_MACHINE, TABLE, World,
    event, new_run, result, sample_run,
};

const OTHER_TASK: &str = "arn:aws:ecs:eu-central-1:123456789012:task/stepwes/other";

fn settings() -> Settings {
    Settings {
        table: TABLE.to_owned(),
        bucket: BUCKET.to_owned(),
        cluster: CLUSTER.to_owned(),
        state_machine_arn: STATE_MACHINE.to_owned(),
        grace_seconds: 60,
        retention_days: 0,
        retention_files: ExpiredFiles::Keep,
        max_runs: None,
    }
}

async fn pass(world: &World, event: Event) -> Summary {
    let state =
        State::with_clock(settings(), &world.aws, world.clock.clone()).expect("a state machine");
    handle(&state, event).await.expect("an answer")
}

/// A pass of the schedule, a second after the grace of whatever has happened.
async fn tick(world: &World) -> Summary {
    world.clock.advance(TimeDelta::seconds(61));
    pass(world, event("reconcile", "tick")).await
}

fn execution(world: &World, status: &'static str) {
    let execution = FakeExecution { status, ..FakeExecution::default() };
    world.fake().executions.insert(SAMPLE_RUN.to_owned(), execution);
}

fn actions(summary: &Summary) -> Vec<Action> {
    assert_eq!(summary.failures, []);
    summary.repairs.iter().map(|repair| repair.action.clone()).collect()
}

fn end(state: RunState) -> Action {
    Action::End { state }
}

fn stop(task_arn: &str) -> Action {
    Action::StopTask { task_arn: task_arn.to_owned() }
}

#[tokio::test]
async fn a_queued_run_without_an_execution_gets_one_once_the_grace_is_over() {
    let world = World::new().await;
    world.queued().await;
    assert_eq!(actions(&pass(&world, Event::tick()).await), []);
    assert_eq!(actions(&tick(&world).await), [Action::Start]);
    assert_eq!(actions(&tick(&world).await), [], "its execution is alive");
    assert_eq!(world.fake().executions[SAMPLE_RUN].status, "RUNNING");
    assert_eq!(world.run().await.state, RunState::Queued);
}

async fn pass_with(world: &World, max_runs: Option<u32>, event: Event) -> Summary {
    let settings = Settings { max_runs, ..settings() };
    let state =
        State::with_clock(settings, &world.aws, world.clock.clone()).expect("a state machine");
    handle(&state, event).await.expect("an answer")
}

#[tokio::test]
async fn runs_that_wait_are_started_when_there_is_room_and_not_before() {
    let world = World::new().await;
    let ids: Vec<RunId> = (0..3)
        .map(|n| format!("01890a5d-ac96-774b-bcce-b302099a805{n}").parse().expect("an id"))
        .collect();
    for run_id in &ids {
        world.waiting(*run_id).await;
    }
    let started = || {
        let executions = &world.fake().executions;
        ids.iter().map(|id| executions.contains_key(&id.to_string())).collect::<Vec<_>>()
    };
    assert_eq!(actions(&pass_with(&world, Some(1), Event::tick()).await), []);
    assert_eq!(started(), [true, false, false]);
    for name in ["tick", "execution-succeeded", "execution-failed"] {
        pass_with(&world, Some(1), event("reconcile", name)).await;
        assert_eq!(started(), [true, false, false], "{name}");
    }

    let end = RunEvent::SystemError { attempt: 0 };
    world.store.transition(ids[0], end, Change::default()).await.expect("an answer");
    pass_with(&world, Some(1), event("reconcile", "execution-succeeded")).await;
    assert_eq!(started(), [true, true, false]);

    // One that has its slot, but whose execution nobody started, is repaired.
    world.fake().executions.remove(&ids[1].to_string());
    world.clock.advance(TimeDelta::seconds(61));
    assert_eq!(actions(&pass_with(&world, Some(1), Event::tick()).await), [Action::Start]);

    // A slot in the name of a run that does not have it.
    let end = RunEvent::SystemError { attempt: 0 };
    world.store.transition(ids[1], end, Change::default()).await.expect("an answer");
    let stranger: RunId = SAMPLE_RUN.parse().expect("an id");
    world.waiting(stranger).await;
    let given = world.store.admission(Some(1), None).next().await;
    assert_eq!(given.expect("an answer"), Some(ids[2]));
    // Its item is written anew, as from a backup of before.
    let before = NewRun { waits: true, ..new_run(ids[2]) };
    world.store.seed(&[before], &[]).await.expect("written");
    assert_eq!(actions(&pass_with(&world, Some(1), Event::tick()).await)[..1], [Action::FreeSlot]);
    assert!(world.fake().executions.contains_key(SAMPLE_RUN));
}

#[tokio::test]
async fn a_limit_that_is_gone_lets_all_that_wait_begin() {
    let world = World::new().await;
    world.waiting(SAMPLE_RUN.parse().expect("an id")).await;
    assert_eq!(actions(&pass_with(&world, None, Event::tick()).await), []);
    assert_eq!(world.fake().executions[SAMPLE_RUN].status, "RUNNING");
}

#[tokio::test]
async fn a_queued_run_whose_execution_has_ended_is_a_system_error() {
    let world = World::new().await;
    world.queued().await;
    execution(&world, "FAILED");
    assert_eq!(actions(&tick(&world).await), [end(RunState::SystemError)]);
    assert_eq!(
        world.said().await,
        "the run's execution failed before the run did; submit the run again"
    );
}

#[tokio::test]
async fn runs_in_the_hands_of_their_executions_are_left_alone() {
    for state in [RunState::Initializing, RunState::Running, RunState::Canceling] {
        let world = World::new().await;
        execution(&world, "RUNNING");
        world.claimed(1, SAMPLE_TASK).await;
        match state {
            RunState::Running => drop(world.step(RunEvent::Run { attempt: 1 }).await),
            RunState::Canceling => drop(world.step(RunEvent::Cancel).await),
            _ => {}
        }
        assert_eq!(actions(&tick(&world).await), [], "{state}");
        assert_eq!(world.run().await.state, state);
    }
}

#[tokio::test]
async fn a_run_whose_execution_is_gone_ends_with_a_reason_that_names_what_happened() {
    for (status, words) in [
        (None, "the run's execution does not exist"),
        (Some("FAILED"), "the run's execution failed (States.Runtime: no such path)"),
        (Some("TIMED_OUT"), "reached its time limit"),
        (Some("ABORTED"), "was stopped by hand"),
        (Some("SUCCEEDED"), "ended without recording the run's end"),
    ] {
        let world = World::new().await;
        world.running(1, SAMPLE_TASK).await;
        if let Some(status) = status {
            let (error, cause) = ("States.Runtime", "no such path");
            let execution = FakeExecution { status, error, cause };
            world.fake().executions.insert(SAMPLE_RUN.to_owned(), execution);
        }
        assert_eq!(actions(&tick(&world).await), [end(RunState::SystemError)]);
        assert!(world.said().await.contains(words), "{}", world.said().await);
        assert_eq!(actions(&tick(&world).await), [], "once");
    }
}

#[tokio::test]
async fn told_of_an_execution_that_ended_badly_it_acts_at_once() {
    for name in ["execution-failed", "execution-timed-out", "execution-aborted"] {
        let world = World::new().await;
        world.running(1, SAMPLE_TASK).await;
        execution(&world, "FAILED");
        let told: Event = event("reconcile", name);
        assert_eq!(actions(&pass(&world, told.clone()).await), [end(RunState::SystemError)]);
        assert_eq!(actions(&pass(&world, told).await), [], "told again");
    }
    assert_eq!(support::event_names("reconcile").len(), 5, "every sample event is used");
}

#[tokio::test]
async fn told_of_another_state_machine_it_looks_as_on_a_tick() {
    let world = World::new().await;
    world.running(1, SAMPLE_TASK).await;
    let mut told: Event = event("reconcile", "execution-failed");
    told.detail.state_machine_arn.push('x');
    assert_eq!(actions(&pass(&world, told).await), [], "the run is fresh");
}

#[tokio::test]
async fn finished_work_counts_though_its_execution_is_gone() {
    let world = World::new().await;
    world.claimed(1, SAMPLE_TASK).await;
    world.put(keys::output(sample_run(), 1, "a b.txt"), "abc");
    world.put_result(&result(1, TaskOutcome::Complete));
    assert_eq!(actions(&tick(&world).await), [end(RunState::Complete)]);
    assert!(world.run().await.has_outputs);
    assert_eq!(
        world.history().await,
        [RunState::Queued, RunState::Initializing, RunState::Running, RunState::Complete]
    );
}

#[tokio::test]
async fn work_that_is_finished_while_its_task_is_asked_after_counts() {
    let world = World::new().await;
    world.running(1, SAMPLE_TASK).await;
    world.put(keys::output(sample_run(), 1, "a b.txt"), "abc");
    let mut task = FakeTask::running(SAMPLE_RUN, 1);
    task.stop("EssentialContainerExited", "Essential container in task exited", Some(0));
    let result = serde_json::to_vec(&result(1, TaskOutcome::Complete)).expect("JSON");
    task.last_words.insert(keys::result(sample_run(), 1), result);
    world.fake().add_task(SAMPLE_TASK, task);
    assert_eq!(actions(&tick(&world).await), [end(RunState::Complete)]);
}

#[tokio::test]
async fn a_result_that_says_stopped_or_nothing_readable_is_no_finished_work() {
    for readable in [true, false] {
        let world = World::new().await;
        world.running(1, SAMPLE_TASK).await;
        if readable {
            world.put_result(&result(1, TaskOutcome::Stopped));
        } else {
            world.put(keys::result(sample_run(), 1), "{");
        }
        assert_eq!(actions(&tick(&world).await), [end(RunState::SystemError)]);
        assert_eq!(world.said().await.contains("cannot be used"), !readable);
    }
}

#[tokio::test]
async fn a_run_whose_task_lives_ends_only_after_the_task_is_gone() {
    for (canceling, end_state) in [(false, RunState::SystemError), (true, RunState::Canceled)] {
        let world = World::new().await;
        world.running(1, SAMPLE_TASK).await;
        world.fake().add_task(SAMPLE_TASK, FakeTask::running(SAMPLE_RUN, 1));
        if canceling {
            world.step(RunEvent::Cancel).await;
        }
        let before = world.run().await.state;
        let first = tick(&world).await;
        assert!(actions(&first).contains(&stop(SAMPLE_TASK)));
        assert_eq!(world.run().await.state, before, "the task is still stopping");
        assert_eq!(actions(&tick(&world).await)[0], stop(SAMPLE_TASK), "asked again");

        world.fake().tasks.get_mut(SAMPLE_TASK).expect("the task").stop(
            "UserInitiated",
            "stepwes",
            Some(75),
        );
        assert_eq!(actions(&tick(&world).await), [end(end_state)]);
    }
}

#[tokio::test]
async fn a_live_task_that_never_claimed_its_run_is_stopped_before_the_run_ends() {
    let world = World::new().await;
    world.initializing(1).await;
    world.fake().add_task(OTHER_TASK, FakeTask::running(SAMPLE_RUN, 1));
    assert_eq!(actions(&tick(&world).await)[0], stop(OTHER_TASK));
    assert_eq!(actions(&tick(&world).await)[0], stop(OTHER_TASK), "it is stopping, not gone");
    assert_eq!(world.run().await.state, RunState::Initializing);
    world.fake().tasks.clear();
    assert_eq!(actions(&tick(&world).await), [end(RunState::SystemError)]);
}

#[tokio::test]
async fn a_cancelled_run_that_never_had_an_execution_is_canceled() {
    let world = World::new().await;
    world.queued().await;
    world.step(RunEvent::Cancel).await;
    assert_eq!(actions(&tick(&world).await), [end(RunState::Canceled)]);
    assert_eq!(actions(&tick(&world).await), []);
}

#[tokio::test]
async fn the_task_of_a_cancelled_run_is_stopped_again_while_its_execution_waits() {
    let world = World::new().await;
    world.running(1, SAMPLE_TASK).await;
    execution(&world, "RUNNING");
    world.fake().add_task(SAMPLE_TASK, FakeTask::running(SAMPLE_RUN, 1));
    world.step(RunEvent::Cancel).await;
    assert_eq!(actions(&tick(&world).await), [stop(SAMPLE_TASK)]);
    assert_eq!(world.run().await.state, RunState::Canceling);
}

#[tokio::test]
async fn live_tasks_without_a_run_to_work_for_are_stopped() {
    let world = World::new().await;
    world.running(2, SAMPLE_TASK).await;
    execution(&world, "RUNNING");
    let ended = RandomIds.run_id(world.clock.now());
    world.queued_as(ended).await;
    world
        .store
        .transition(ended, RunEvent::SystemError { attempt: 0 }, Change::default())
        .await
        .expect("the table answers");
    let foreign = RandomIds.run_id(world.clock.now());
    {
        let mut fake = world.fake();
        fake.add_task(SAMPLE_TASK, FakeTask::running(SAMPLE_RUN, 2));
        fake.add_task("arn:late", FakeTask::running(SAMPLE_RUN, 1));
        fake.add_task("arn:ended", FakeTask::running(&ended.to_string(), 1));
        fake.add_task("arn:foreign", FakeTask::running(&foreign.to_string(), 1));
        let service = FakeTask { last_status: "RUNNING".to_owned(), ..FakeTask::default() };
        fake.add_task("arn:service", service);
        let mut fresh = FakeTask::running(&ended.to_string(), 1);
        fresh.created_at = world.clock.now().timestamp() + 61;
        fake.add_task("arn:fresh", fresh);
    }
    let summary = tick(&world).await;
    assert_eq!(actions(&summary), [stop("arn:ended"), stop("arn:late")]);
    let stopped = |arn: &str| !world.fake().tasks[arn].stops.is_empty();
    assert!(stopped("arn:ended") && stopped("arn:late"));
    for arn in [SAMPLE_TASK, "arn:foreign", "arn:service", "arn:fresh"] {
        assert!(!stopped(arn), "{arn}");
    }
    assert_eq!(actions(&tick(&world).await), [stop("arn:fresh")], "when its grace is over");
}

/// A pass of the schedule where ended runs are kept for `days`.
async fn tick_keeping(world: &World, days: u32, files: ExpiredFiles) -> Summary {
    tick_by(world, days, files, world.clock.clone()).await
}

async fn tick_by(world: &World, days: u32, files: ExpiredFiles, clock: Arc<dyn Clock>) -> Summary {
    let settings = Settings { retention_days: days, retention_files: files, ..settings() };
    let state = State::with_clock(settings, &world.aws, clock).expect("good settings");
    handle(&state, Event::tick()).await.expect("a summary")
}

/// Puts files of every class of a run's, and gives their keys.
fn files_of(world: &World, run_id: RunId) -> Vec<String> {
    let mut all = vec![
        keys::request(run_id),
        keys::attachment(run_id, "a.cwl"),
        keys::attachment(run_id, "b.cwl"),
        keys::result(run_id, 1),
        keys::output(run_id, 1, "x/y.txt"),
        keys::outputs_json(run_id),
    ];
    all.sort();
    world.fake().objects.extend(all.iter().map(|key| (key.clone(), b"x".to_vec())));
    all
}

fn files_left(world: &World) -> Vec<String> {
    world.fake().objects.keys().cloned().collect()
}

#[tokio::test]
async fn a_run_is_removed_when_it_has_been_kept_for_as_long_as_runs_are() {
    let world = World::new().await;
    world.queued().await;
    world.step(RunEvent::SystemError { attempt: 0 }).await;
    let files = files_of(&world, sample_run());
    let tick = async |days| tick_keeping(&world, days, ExpiredFiles::Keep).await;
    world.clock.advance(TimeDelta::days(30));
    assert_eq!(actions(&tick(0).await), [], "0 is for ever");
    assert_eq!(actions(&tick(31).await), []);
    assert_eq!(actions(&tick(29).await), [Action::Remove]);
    assert_eq!(actions(&tick(29).await), [], "once");
    assert_eq!(world.store.get(sample_run()).await.expect("the table answers"), None);
    let counts = world.store.counts().await.expect("the table answers");
    assert!(counts.values().all(|count| *count == 0), "{counts:?}");
    assert_eq!(files_left(&world), files, "the bucket's rules are for these");
}

#[tokio::test]
async fn the_files_go_with_the_run_where_that_is_asked_for_and_nobody_elses() {
    let world = World::new().await;
    world.queued().await;
    world.step(RunEvent::SystemError { attempt: 0 }).await;
    files_of(&world, sample_run());
    world.clock.advance(TimeDelta::days(30));
    // One that has just ended, one that is under way, and what belongs to no run.
    let mut others = vec!["submit/ann/x.run.json".to_owned()];
    world.fake().objects.insert(others[0].clone(), Vec::new());
    for n in [1, 2] {
        let run_id: RunId =
            format!("01890a5d-ac96-774b-bcce-b302099a900{n}").parse().expect("an id");
        world.queued_as(run_id).await;
        others.extend(files_of(&world, run_id));
        if n == 1 {
            let end = RunEvent::SystemError { attempt: 0 };
            world.store.transition(run_id, end, Change::default()).await.expect("an answer");
        }
    }
    others.sort();
    let tick = async |days| tick_keeping(&world, days, ExpiredFiles::Remove).await;
    assert_eq!(actions(&tick(0).await), [], "0 is for ever");

    // Cut off before the run's item: the next pass does the rest.
    world.fake().refuse("dynamodb:TransactWriteItems");
    assert_eq!(tick(29).await.failures.len(), 1);
    assert!(world.store.get(sample_run()).await.expect("the table answers").is_some());
    // Cut off among the files.
    files_of(&world, sample_run());
    world.fake().refuse("s3:DeleteObjects");
    assert_eq!(tick(29).await.failures.len(), 1);
    assert!(world.store.get(sample_run()).await.expect("the table answers").is_some());
    assert_eq!(actions(&tick(29).await), [Action::Remove]);
    assert_eq!(world.store.get(sample_run()).await.expect("the table answers"), None);
    assert_eq!(files_left(&world), others);
    assert_eq!(actions(&tick(29).await), []);
}

#[tokio::test]
async fn a_run_is_kept_as_long_as_another_goes_on_from_it() {
    let world = World::new().await;
    world.queued().await;
    world.step(RunEvent::SystemError { attempt: 0 }).await;
    world.clock.advance(TimeDelta::days(30));
    let [other, child] = [1, 2].map(|n| -> RunId {
        format!("01890a5d-ac96-774b-bcce-b302099a900{n}").parse().expect("an id")
    });
    world.store.create(NewRun { waits: true, ..new_run(other) }).await.expect("an answer");
    let mut new = NewRun { waits: true, ..new_run(child) };
    new.summary.tags.insert(saved::RESUMED_FROM.to_owned(), SAMPLE_RUN.to_owned());
    world.store.create(new).await.expect("an answer");
    let tick = async || {
        let (max_runs, retention_files) = (Some(1), ExpiredFiles::Remove);
        let settings = Settings { max_runs, retention_days: 29, retention_files, ..settings() };
        let state = State::with_clock(settings, &world.aws, world.clock.clone());
        handle(&state.expect("good settings"), Event::tick()).await.expect("a summary")
    };
    assert_eq!(actions(&tick().await), []);
    assert_eq!(world.store.waiting(9).await.expect("an answer"), [child], "it waits for a slot");
    for event in [RunEvent::Cancel, RunEvent::Canceled { attempt: 0 }] {
        assert_eq!(actions(&tick().await), [], "before {event:?}");
        world.store.transition(child, event, Change::default()).await.expect("an answer");
    }
    assert_eq!(actions(&tick().await), [Action::Remove]);
}

/// A clock that goes on by a minute each time that it is looked at.
struct Hasty(Arc<support::TestClock>);

impl Clock for Hasty {
    fn now(&self) -> DateTime<Utc> {
        self.0.advance(TimeDelta::minutes(1));
        self.0.now()
    }
}

#[tokio::test]
async fn a_pass_ends_in_time_and_the_next_goes_on() {
    let world = World::new().await;
    for _ in 0..20 {
        let run_id = RandomIds.run_id(world.clock.now());
        world.queued_as(run_id).await;
        let end = RunEvent::SystemError { attempt: 0 };
        world.store.transition(run_id, end, Change::default()).await.expect("an answer");
    }
    world.clock.advance(TimeDelta::days(30));
    let hasty = Arc::new(Hasty(world.clock.clone()));
    let first = tick_by(&world, 29, ExpiredFiles::Remove, hasty).await;
    assert_eq!(actions(&first), [Action::Remove], "two minutes, one look each");
    let rest = tick_keeping(&world, 29, ExpiredFiles::Remove).await;
    assert_eq!(actions(&rest).len(), 19);
}

#[test]
fn what_becomes_of_files_is_one_of_two() {
    assert_eq!("keep".parse(), Ok(ExpiredFiles::Keep));
    assert_eq!("remove".parse(), Ok(ExpiredFiles::Remove));
    let error = "delete".parse::<ExpiredFiles>().expect_err("neither");
    assert_eq!(error.to_string(), "\"delete\" is neither keep nor remove");
}

#[tokio::test]
async fn one_runs_trouble_does_not_keep_the_others_from_being_looked_at() {
    let world = World::new().await;
    world.queued().await;
    world.queued_as(RandomIds.run_id(world.clock.now())).await;
    world.fake().refuse("states:DescribeExecution");
    world.clock.advance(TimeDelta::seconds(61));
    let summary = pass(&world, Event::tick()).await;
    assert_eq!((summary.checked, summary.repairs.len(), summary.failures.len()), (2, 1, 1));
    assert!(summary.failures[0].error.contains("states:DescribeExecution"));
    assert_eq!(actions(&tick(&world).await), [Action::Start], "the next pass makes it good");
}

#[tokio::test]
async fn a_pass_that_dies_after_it_stopped_a_task_ends_the_run_the_next_time() {
    let world = World::new().await;
    world.running(1, SAMPLE_TASK).await;
    world.fake().refuse("dynamodb:TransactWriteItems");
    assert_eq!(tick(&world).await.failures.len(), 1);
    assert_eq!(actions(&tick(&world).await), [end(RunState::SystemError)]);
}

#[tokio::test]
async fn an_idle_service_costs_a_handful_of_calls() {
    let world = World::new().await;
    let before = world.fake().calls.len();
    assert_eq!(actions(&tick(&world).await), []);
    // Four states, and those that wait.
    let queries = ["dynamodb:Query"; 5];
    assert_eq!(world.fake().calls[before..], [&queries[..], &["ecs:ListTasks"]].concat());
}

#[test]
fn the_summary_is_plain_json() {
    let summary = Summary {
        checked: 1,
        repairs: vec![Repair {
            run_id: sample_run(),
            action: end(RunState::Canceled),
            reason: "why".to_owned(),
        }],
        failures: Vec::new(),
    };
    assert_eq!(
        serde_json::to_value(&summary).expect("JSON"),
        serde_json::json!({
            "checked": 1,
            "repairs": [{"run_id": SAMPLE_RUN, "action": "end", "state": "CANCELED", "reason": "why"}],
            "failures": [],
        })
    );
}

#[tokio::test]
async fn what_is_no_state_machine_is_refused_at_the_start() {
    let world = World::new().await;
    for arn in ["", "stepwes", "arn:aws:states:eu-central-1:1:execution:stepwes:x"] {
        let settings = Settings { state_machine_arn: arn.to_owned(), ..settings() };
        assert!(State::new(settings, &world.aws).is_err(), "{arn}");
    }
}
