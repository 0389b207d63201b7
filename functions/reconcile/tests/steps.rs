//! The state machine that is deployed, over the real functions: each of its steps fails before its
//! effect, after it, or for good, or takes its effect twice, and the run is cancelled before each of
//! them. Whatever happens, the run ends as it should, once, and the counts know it.

#[path = "../../collect/tests/support/mod.rs"]
mod support;

use std::collections::VecDeque;

use chrono::TimeDelta;
use serde_json::{Value, json};
use stepwes_asl::{Command, Execution, Input, Machine, Receipt, Status, TaskId};
use stepwes_core::{
    Clock as _, RunEvent, RunState, keys, resources::ResourceBounds, task::TaskOutcome,
};
use stepwes_reconcile::{Event, ExpiredFiles};
use stepwes_store::{Change, Claim, Transition};
use support::{
    BUCKET, CLUSTER, FakeExecution, FakeTask, SAMPLE_RUN, STATE_MACHINE, TABLE, World, result,
    sample_run,
};

/// What goes wrong with one step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    /// It fails in passing, without an effect.
    Before,
    /// It fails in passing, after its effect.
    After,
    /// It is carried out twice.
    Twice,
    /// It fails in passing as often as it is tried.
    Always,
    /// It is refused.
    Refused,
    /// It takes longer than it may, and has no effect.
    TimeOutBefore,
    /// It takes longer than it may, and has its effect.
    TimeOutAfter,
    /// The caller cancels before it begins.
    Cancel,
}

impl Fault {
    const ALL: [Self; 8] = [
        Self::Before,
        Self::After,
        Self::Twice,
        Self::Always,
        Self::Refused,
        Self::TimeOutBefore,
        Self::TimeOutAfter,
        Self::Cancel,
    ];

    /// Whether each further step of the same state meets it too.
    fn is_for_good(self) -> bool {
        matches!(self, Self::Always | Self::Refused)
    }
}

/// How the engine tasks of a run end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Tasks {
    /// Their work is done.
    Finish,
    /// The cloud takes every one of them away.
    AreInterrupted,
}

/// What came of a run.
struct Played {
    state: RunState,
    /// The states of the machine that were started, in their order.
    steps: Vec<String>,
}

type Outcome = Result<Value, (String, String)>;

struct Player {
    world: World,
    tasks: Tasks,
    advance: stepwes_advance::State,
    collect: stepwes_collect::State,
    reconcile: stepwes_reconcile::State,
    started: usize,
}

impl Player {
    async fn new(tasks: Tasks) -> Self {
        let world = World::new().await;
        let (table, bucket) = (TABLE.to_owned(), BUCKET.to_owned());
        let (cluster, state_machine_arn) = (CLUSTER.to_owned(), STATE_MACHINE.to_owned());
        let advance = stepwes_advance::Settings {
            table: table.clone(),
            max_attempts: 3,
            resources: ResourceBounds { time: 7200, ..ResourceBounds::default() },
        };
        let collect = stepwes_collect::Settings {
            table: table.clone(),
            bucket: bucket.clone(),
            cluster: cluster.clone(),
            max_attempts: 3,
            run_timeout_seconds: 7200,
        };
        let reconcile = stepwes_reconcile::Settings {
            table,
            bucket,
            cluster,
            state_machine_arn,
            grace_seconds: 60,
            retention_days: 0,
            retention_files: ExpiredFiles::Keep,
            max_runs: None,
        };
        let clock = world.clock.clone();
        Self {
            advance: stepwes_advance::State::new(advance, &world.aws),
            collect: stepwes_collect::State::with_clock(collect, &world.aws, clock.clone()),
            reconcile: stepwes_reconcile::State::with_clock(reconcile, &world.aws, clock)
                .expect("good settings"),
            world,
            tasks,
            started: 0,
        }
    }

    /// Plays a run to its end, the `nth` step (from 0) with that fault; each further step of the same
    /// state too, when it is for good.
    async fn play(self, nth: usize, fault: Option<Fault>) -> Played {
        let mut faulty = None;
        self.play_by(|step, state| {
            if step == nth {
                faulty = Some(state.to_owned());
            }
            fault.filter(|fault| {
                step == nth || fault.is_for_good() && faulty.as_deref() == Some(state)
            })
        })
        .await
    }

    /// Plays a run to its end. `fault` tells, by its number (from 0) and state, what goes wrong with a
    /// step.
    async fn play_by(mut self, mut fault: impl FnMut(usize, &str) -> Option<Fault>) -> Played {
        self.world.queued().await;
        let machine = machine();
        let now = self.world.clock.now();
        let input = Input::new(SAMPLE_RUN, json!({"run_id": SAMPLE_RUN}));
        let mut execution = Execution::start(&machine, input, now);
        self.execution("RUNNING");
        let mut steps: Vec<String> = Vec::new();
        let mut waiting: VecDeque<(TaskId, Outcome)> = VecDeque::new();
        while !execution.is_ended() {
            for command in execution.poll(&machine, self.world.clock.now()) {
                let Command::StartTask { id, state, arguments, .. } = command else { continue };
                let here = fault(steps.len(), &state);
                steps.push(state);
                waiting.push_back((id, self.step(&arguments, here).await));
                self.check().await;
            }
            let now = self.world.clock.now();
            match waiting.pop_front() {
                Some((id, Ok(output))) => {
                    assert_eq!(execution.task_succeeded(id, output, now), Receipt::Accepted);
                }
                Some((id, Err((error, cause)))) => {
                    assert_eq!(execution.task_failed(id, &error, &cause, now), Receipt::Accepted);
                }
                None => match execution.next_wake() {
                    Some(at) => {
                        self.world.clock.advance(at - now);
                        self.work_goes_on().await;
                    }
                    None => assert!(execution.is_ended(), "it waits for nothing: {steps:?}"),
                },
            }
        }
        self.execution(match execution.status() {
            Status::Succeeded { .. } => "SUCCEEDED",
            _ => "FAILED",
        });
        for _ in 0..10 {
            if self.world.run().await.state.is_terminal() {
                break;
            }
            self.world.clock.advance(TimeDelta::seconds(61));
            stepwes_reconcile::handle(&self.reconcile, Event::tick()).await.expect("a summary");
            self.work_goes_on().await;
            self.check().await;
        }
        Played { state: self.ended().await, steps }
    }

    fn execution(&self, status: &'static str) {
        let execution = FakeExecution { status, ..FakeExecution::default() };
        self.world.fake().executions.insert(SAMPLE_RUN.to_owned(), execution);
    }

    async fn step(&mut self, arguments: &Value, fault: Option<Fault>) -> Outcome {
        if fault == Some(Fault::Cancel) {
            self.cancel().await;
        }
        let is_task = arguments.get("TaskDefinition").is_some();
        let passing = || {
            let error = if is_task { "ECS.ServerException" } else { "Lambda.ServiceException" };
            Err((error.to_owned(), "the answer was lost".to_owned()))
        };
        let timed_out = || Err(("States.Timeout".to_owned(), String::new()));
        match fault {
            Some(Fault::Before | Fault::Always) => return passing(),
            Some(Fault::TimeOutBefore) => return timed_out(),
            Some(Fault::TimeOutAfter) if is_task => {
                self.claim(arguments).await;
                return timed_out();
            }
            Some(Fault::TimeOutAfter) => {
                let _unheard = self.carry_out(arguments).await;
                return timed_out();
            }
            Some(Fault::Refused) => {
                let error = if is_task { "ECS.AccessDeniedException" } else { "Stepwes.Internal" };
                return Err((error.to_owned(), "no".to_owned()));
            }
            Some(Fault::After) if is_task => {
                // The task runs, though nobody waits for it.
                self.claim(arguments).await;
                return passing();
            }
            // The first of two tasks claims the attempt; the one that is waited for is refused.
            Some(Fault::Twice) if is_task => drop(self.claim(arguments).await),
            Some(Fault::After | Fault::Twice) => {
                let first = self.carry_out(arguments).await;
                if fault == Some(Fault::After) {
                    return passing();
                }
                let second = self.carry_out(arguments).await;
                assert_eq!(first, second, "done twice");
                return second;
            }
            Some(Fault::Cancel) | None => {}
        }
        self.carry_out(arguments).await
    }

    async fn carry_out(&mut self, arguments: &Value) -> Outcome {
        let payload = &arguments["Payload"];
        let answer = match arguments["FunctionName"].as_str() {
            Some("AdvanceFunctionArn") => {
                let input = serde_json::from_value(payload.clone()).expect("advance's input");
                stepwes_advance::handle(&self.advance, input).await.map(|output| json!(output))
            }
            Some("CollectFunctionArn") => {
                let input = serde_json::from_value(payload.clone()).expect("collect's input");
                stepwes_collect::handle(&self.collect, input).await.map(|output| json!(output))
            }
            Some(other) => panic!("no function {other}"),
            None => return self.run_task(arguments).await,
        };
        match answer {
            Ok(output) => Ok(json!({"Payload": output, "StatusCode": 200})),
            Err(failure) => {
                let name = failure.error_type();
                let cause = json!({"errorType": name, "errorMessage": failure.to_string()});
                Err((name.to_owned(), cause.to_string()))
            }
        }
    }

    /// Starts a task, which claims its attempt, if it can, and says that its engine starts.
    async fn claim(&mut self, arguments: &Value) -> (String, bool) {
        self.started += 1;
        let arn = format!("arn:aws:ecs:eu-central-1:123456789012:task/stepwes/{}", self.started);
        let variables = arguments["Overrides"]["ContainerOverrides"][0]["Environment"].clone();
        let value = |name: &str| {
            let list = variables.as_array().expect("a list");
            let found = list.iter().find(|variable| variable["Name"] == name).expect(name);
            found["Value"].as_str().expect("text").to_owned()
        };
        let attempt: u32 = value("STEPWES_ATTEMPT").parse().expect("a number");
        let token = stepwes_core::token::AttemptToken::from_secret(value("STEPWES_TOKEN"));
        let claim = self.world.store.claim(sample_run(), attempt, &token, &arn).await;
        let claimed = matches!(claim.expect("the table answers"), Claim::Claimed(_));
        let mut task = FakeTask::running(SAMPLE_RUN, attempt);
        if claimed {
            let event = RunEvent::Run { attempt };
            let run = self.world.store.transition(sample_run(), event, Change::default()).await;
            assert!(matches!(run, Ok(Transition::Moved(_))), "{run:?}");
        } else {
            task.stop("EssentialContainerExited", "Essential container in task exited", Some(64));
        }
        self.world.fake().add_task(&arn, task);
        (arn, claimed)
    }

    async fn run_task(&mut self, arguments: &Value) -> Outcome {
        let (arn, claimed) = self.claim(arguments).await;
        if claimed {
            self.end_task(&arn).await;
        }
        let fake = self.world.fake();
        let task = &fake.tasks[&arn];
        let told = json!({
            "TaskArn": arn, "StopCode": task.stop_code, "StoppedReason": task.stopped_reason,
            "Containers": [{"ExitCode": task.exit_code}],
        });
        if task.exit_code == Some(0) {
            Ok(told)
        } else {
            Err(("States.TaskFailed".to_owned(), told.to_string()))
        }
    }

    /// A live task comes to its end.
    async fn end_task(&self, arn: &str) {
        let run = self.world.run().await;
        let mut fake = self.world.fake();
        let task = fake.tasks.get_mut(arn).expect("the task");
        if run.state == RunState::Canceling {
            task.stop("UserInitiated", "stepwes: the run is being cancelled", Some(75));
        } else if self.tasks == Tasks::AreInterrupted {
            task.stop("SpotInterruption", "Your Spot Task was interrupted.", Some(143));
        } else {
            let attempt = task.attempt;
            task.stop("EssentialContainerExited", "Essential container in task exited", Some(0));
            fake.objects.insert(keys::output(sample_run(), attempt, "a b.txt"), b"abc".to_vec());
            let result = result(attempt, TaskOutcome::Complete);
            let text = serde_json::to_vec(&result).expect("JSON");
            fake.objects.insert(keys::result(sample_run(), attempt), text);
        }
    }

    /// Time goes by, and live tasks come to their ends.
    async fn work_goes_on(&self) {
        let live: Vec<_> = {
            let fake = self.world.fake();
            let live = fake.tasks.iter().filter(|(_, task)| task.last_status != "STOPPED");
            live.map(|(arn, _)| arn.clone()).collect()
        };
        for arn in live {
            self.end_task(&arn).await;
        }
    }

    async fn cancel(&self) {
        let event = RunEvent::Cancel;
        let told = self.world.store.transition(sample_run(), event, Change::default()).await;
        assert!(told.is_ok(), "{told:?}");
    }

    /// What must hold at any time.
    async fn check(&self) {
        let run = self.world.run().await;
        let live = self.world.fake().tasks.values().any(|task| task.last_status != "STOPPED");
        assert!(!(live && run.state == RunState::Canceled), "CANCELED while its task is alive");
    }

    async fn ended(&self) -> RunState {
        let run = self.world.run().await;
        assert!(run.state.is_terminal(), "the run is {} for ever", run.state);
        let history = self.world.history().await;
        let ends = history.iter().filter(|state| state.is_terminal()).count();
        assert_eq!((ends, history.last()), (1, Some(&run.state)), "{history:?}");
        let counts = self.world.store.counts().await.expect("the table answers");
        for (state, count) in counts {
            assert_eq!(count, i64::from(state == run.state), "{state}");
        }
        if !matches!(run.state, RunState::Complete | RunState::Canceled) {
            assert!(!run.system_logs.is_empty(), "{} without a reason", run.state);
        }
        run.state
    }
}

/// The machine, its functions called by the names of their substitutions.
fn machine() -> Machine {
    let definition = include_str!("../../../infra/run.asl.json").replace("${Partition}", "aws");
    let mut parts = definition.split("${");
    let mut text = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        text.push_str(&part.replacen('}', "", 1));
    }
    Machine::load(&text).expect("it loads")
}

async fn play(tasks: Tasks, nth: usize, fault: Option<Fault>) -> Played {
    Player::new(tasks).await.play(nth, fault).await
}

#[tokio::test]
async fn without_a_fault_a_run_is_complete_in_three_steps() {
    let played = play(Tasks::Finish, usize::MAX, None).await;
    assert_eq!(played.state, RunState::Complete);
    assert_eq!(played.steps, ["QUEUED", "INITIALIZING, RUNNING", "Collect"]);
}

#[tokio::test]
async fn work_is_done_once_and_counts_whatever_passes_at_whichever_step() {
    for nth in 0..3 {
        for fault in [Fault::Before, Fault::After, Fault::Twice] {
            if fault == Fault::Twice && nth == 1 {
                // Two tasks, one of which is refused: as when the first one's answer is lost.
                continue;
            }
            let played = play(Tasks::Finish, nth, Some(fault)).await;
            assert_eq!(played.state, RunState::Complete, "{fault:?} at {nth}: {:?}", played.steps);
            assert!(!played.steps.contains(&"Attempt lost".to_owned()), "{fault:?} at {nth}");
        }
    }
}

#[tokio::test]
async fn a_step_that_fails_for_good_ends_the_run_but_never_loses_finished_work() {
    for fault in [Fault::Always, Fault::Refused] {
        for (nth, expected) in
            [(0, RunState::SystemError), (1, RunState::SystemError), (2, RunState::Complete)]
        {
            let played = play(Tasks::Finish, nth, Some(fault)).await;
            assert_eq!(played.state, expected, "{fault:?} at {nth}: {:?}", played.steps);
        }
    }
}

#[tokio::test]
async fn interrupted_attempts_are_three_whatever_passes_at_whichever_step() {
    let steps = play(Tasks::AreInterrupted, usize::MAX, None).await.steps;
    assert_eq!(steps.len(), 10, "{steps:?}");
    for (nth, step) in steps.iter().enumerate() {
        for fault in [Fault::Before, Fault::After, Fault::Twice] {
            if fault == Fault::Twice && step.starts_with("INITIALIZING") {
                continue;
            }
            let played = play(Tasks::AreInterrupted, nth, Some(fault)).await;
            assert_eq!(played.state, RunState::Preempted, "{fault:?} at {nth}");
        }
        let played = play(Tasks::AreInterrupted, nth, Some(Fault::Always)).await;
        assert!(
            matches!(played.state, RunState::SystemError | RunState::Preempted),
            "for good at {nth}: {}",
            played.state
        );
    }
}

#[tokio::test]
async fn a_run_cancelled_before_any_step_is_canceled_once_its_task_is_gone() {
    for tasks in [Tasks::Finish, Tasks::AreInterrupted] {
        let steps = play(tasks, usize::MAX, None).await.steps;
        for (nth, step) in steps.iter().enumerate() {
            let played = play(tasks, nth, Some(Fault::Cancel)).await;
            assert_eq!(played.state, RunState::Canceled, "{tasks:?} at {nth}: {step}");
        }
    }
}

/// What a run may come to when a step of that state meets that fault: the way there (how its tasks
/// end, and what goes wrong before), and the ends.
///
/// # Panics
/// For a state that is not known: a new step needs its row.
fn row(state: &str, fault: Fault) -> (Tasks, Option<(&'static str, Fault)>, &'static [RunState]) {
    use RunState::{Canceled, Complete, Preempted, SystemError};
    let (tasks, before) = match state {
        "QUEUED" | "INITIALIZING, RUNNING" | "Collect" => (Tasks::Finish, None),
        "Attempt lost" => (Tasks::AreInterrupted, None),
        "A step failed" => (Tasks::Finish, Some(("QUEUED", Fault::Refused))),
        other => panic!("the state {other:?} has no row: say what its failures lead to"),
    };
    let ends: &[RunState] = match (state, fault) {
        (_, Fault::Cancel) => &[Canceled],
        // What can be tried again is, and changes nothing.
        ("QUEUED", Fault::Always | Fault::Refused) => &[SystemError],
        ("QUEUED" | "Collect", _) => &[Complete],
        ("INITIALIZING, RUNNING", Fault::Always | Fault::Refused | Fault::TimeOutBefore) => {
            &[SystemError]
        }
        // Two tasks, one of which is refused.
        ("INITIALIZING, RUNNING", _) => &[Complete],
        ("Attempt lost", Fault::Always | Fault::Refused) => &[SystemError],
        ("Attempt lost", _) => &[Preempted],
        (_, _) => &[SystemError],
    };
    (tasks, before, ends)
}

#[tokio::test]
async fn every_task_of_the_machine_is_repeated_and_fails_in_every_way() {
    let definition: Value =
        serde_json::from_str(include_str!("../../../infra/run.asl.json")).expect("JSON");
    let states = definition["States"].as_object().expect("States");
    let tasks = states.iter().filter(|(_, state)| state["Type"] == "Task");
    for state in tasks.map(|(name, _)| name.as_str()) {
        for fault in Fault::ALL {
            let (tasks, before, ends) = row(state, fault);
            let mut met = 0;
            let player = Player::new(tasks).await;
            let played = player
                .play_by(|_, step| match before {
                    Some((earlier, fault)) if earlier == step => Some(fault),
                    _ if step == state && (met == 0 || fault.is_for_good()) => {
                        met += 1;
                        Some(fault)
                    }
                    _ => None,
                })
                .await;
            assert!(met > 0, "{state} was never reached: {:?}", played.steps);
            assert!(
                ends.contains(&played.state),
                "{fault:?} at {state}: {} by {:?}",
                played.state,
                played.steps
            );
        }
    }
}
