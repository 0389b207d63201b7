//! Each row of the state table, and everything that is none.

use chrono::{DateTime, TimeDelta, Utc};
use stepwes_core::{
    Clock as _,
    run_state::{Refusal, RunEvent as E, RunState as S, Step},
};
use stepwes_store::{
    Change, Created, Transition,
    limits::{CUT, MAX_CMD_BYTES, MAX_SYSTEM_LOGS, MAX_TEXT_BYTES},
};

use crate::support::{World, summary};

const LOST: E = E::Preempt { attempt: 1, max_attempts: 3 };

/// How to come to each position that a run can be in, second attempts among them.
const WAYS: [&[E]; 13] = [
    &[],
    &[E::Initialize],
    &[E::Initialize, E::Run { attempt: 1 }],
    &[E::Initialize, E::Run { attempt: 1 }, E::Complete { attempt: 1 }],
    &[E::Initialize, E::ExecutorError { attempt: 1 }],
    &[E::SystemError { attempt: 0 }],
    &[E::Initialize, E::SystemError { attempt: 1 }],
    &[E::Cancel],
    &[E::Cancel, E::Canceled { attempt: 0 }],
    &[E::Initialize, LOST],
    &[E::Initialize, LOST, E::Run { attempt: 2 }],
    &[E::Initialize, LOST, E::Cancel],
    &[E::Initialize, E::Preempt { attempt: 1, max_attempts: 1 }],
];

/// Every event, of the attempts 0 to 2.
fn events() -> Vec<E> {
    let mut events = vec![E::Initialize, E::Cancel];
    for attempt in 0..3 {
        events.extend([
            E::Run { attempt },
            E::Complete { attempt },
            E::ExecutorError { attempt },
            E::Preempt { attempt, max_attempts: 3 },
            E::Preempt { attempt, max_attempts: attempt },
            E::SystemError { attempt },
            E::Canceled { attempt },
        ]);
    }
    events
}

#[tokio::test]
async fn in_every_position_every_event_does_what_the_state_table_says() {
    let world = World::new().await;
    for way in WAYS {
        let mut before = world.after(way).await;
        for event in events() {
            let counts = world.counts().await;
            let expected = before.position().apply(event);
            let told = world.tell(before.run_id, event).await;
            let now = world.read(before.run_id).await;
            match (expected, told) {
                (Ok(Step::Move(to)), Transition::Moved(run)) => {
                    assert_eq!(run.position(), to, "{event:?} after {way:?}");
                    assert_eq!(run.version, before.version + 1);
                    assert_eq!(run, now, "the answer is what was written");
                    let mut moved = counts;
                    *moved.entry(before.state).or_default() -= 1;
                    *moved.entry(to.state).or_default() += 1;
                    moved.retain(|_, count| *count != 0);
                    assert_eq!(world.counts().await, moved);
                    world.history(run.run_id).await;
                    before = world.after(way).await;
                }
                (Ok(Step::Repeated), Transition::Repeated(run)) => {
                    assert_eq!((&run, &now), (&before, &before), "{event:?} after {way:?}");
                }
                (Err(refusal), Transition::Refused { run, refusal: told }) => {
                    assert_eq!(told, refusal, "{event:?} after {way:?}");
                    assert_eq!((&run, &now), (&before, &before));
                }
                (expected, told) => panic!("{event:?} after {way:?}: {told:?}, not {expected:?}"),
            }
        }
    }
}

#[tokio::test]
async fn a_repeated_initialize_or_preempt_answers_the_same_token() {
    let world = World::new().await;
    let first = world.initializing().await;
    let token = first.token.clone().expect("an attempt has a token");
    let Transition::Repeated(again) = world.tell(first.run_id, E::Initialize).await else {
        panic!("not a repetition")
    };
    assert_eq!(again.token, Some(token.clone()));

    let second = world.step(first.run_id, LOST).await;
    assert!(second.token.is_some() && second.token != Some(token), "a new attempt, a new token");
    let Transition::Repeated(again) = world.tell(first.run_id, LOST).await else {
        panic!("not a repetition")
    };
    assert_eq!(again, second);
}

#[tokio::test]
async fn an_event_of_an_attempt_that_is_over_touches_nothing() {
    let world = World::new().await;
    let run = world.after(&[E::Initialize, LOST, E::Run { attempt: 2 }]).await;
    for late in [
        E::Run { attempt: 1 },
        E::Complete { attempt: 1 },
        E::ExecutorError { attempt: 1 },
        E::SystemError { attempt: 1 },
        E::Preempt { attempt: 1, max_attempts: 1 },
    ] {
        let told = world.tell(run.run_id, late).await;
        let Transition::Refused { run: shown, refusal } = told else { panic!("{told:?}") };
        assert!(matches!(refusal, Refusal::Attempt { spoken: 1, current: 2, .. }));
        assert_eq!(shown, run);
    }
    assert_eq!(world.read(run.run_id).await, run);
}

#[tokio::test]
async fn a_new_attempt_forgets_the_lost_one_but_not_what_was_said_of_it() {
    let world = World::new().await;
    let run = world.initializing().await;
    let token = run.token.clone().expect("an attempt has a token");
    world.store.claim(run.run_id, 1, &token, "arn:1").await.expect("an answer");
    let started = Change {
        cmd: Some(vec!["cwltool".into(), String::new()]),
        start_time: Some(world.clock.now()),
        exit_code: Some(3),
        ..Change::default()
    };
    let run = moved(world.store.transition(run.run_id, E::Run { attempt: 1 }, started).await);
    assert_eq!(run.task_arn.as_deref(), Some("arn:1"));
    assert_eq!((run.cmd.len(), run.exit_code), (2, Some(3)));
    assert_eq!(run.start_time, Some(world.clock.now()));

    let lost = Change { system_log: Some("spot took it".into()), ..Change::default() };
    let run = moved(world.store.transition(run.run_id, LOST, lost).await);
    assert_eq!(run, world.read(run.run_id).await);
    assert_eq!((run.state, run.attempt), (S::Initializing, 2));
    assert_eq!((run.start_time, run.exit_code, run.task_arn.as_deref()), (None, None, None));
    assert!(run.cmd.is_empty());
    assert_eq!(run.system_logs, ["spot took it"]);
}

#[tokio::test]
async fn the_last_lost_attempt_keeps_what_it_left() {
    let world = World::new().await;
    let run = world.initializing().await;
    let started = Change { start_time: Some(world.clock.now()), ..Change::default() };
    world.store.transition(run.run_id, E::Run { attempt: 1 }, started).await.expect("an answer");
    let run = world.step(run.run_id, E::Preempt { attempt: 1, max_attempts: 1 }).await;
    assert_eq!((run.state, run.attempt), (S::Preempted, 1));
    assert!(run.start_time.is_some() && run.end_time.is_some());
}

#[tokio::test]
async fn a_run_ends_when_it_is_said_to_or_else_now() {
    let world = World::new().await;
    let run = world.initializing().await;
    assert_eq!(run.end_time, None);
    world.clock.advance(TimeDelta::seconds(5));
    let run = world.step(run.run_id, E::SystemError { attempt: 1 }).await;
    assert_eq!(run.end_time, Some(world.clock.now()));

    let run = world.initializing().await;
    let said: DateTime<Utc> = "2024-05-06T07:08:09.123456Z".parse().expect("a time");
    let change = Change {
        end_time: Some(said),
        exit_code: Some(-9),
        has_outputs: true,
        ..Change::default()
    };
    let event = E::ExecutorError { attempt: 1 };
    let run = moved(world.store.transition(run.run_id, event, change).await);
    assert_eq!(
        run.end_time.map(|at| at.to_rfc3339()).as_deref(),
        Some("2024-05-06T07:08:09.123+00:00")
    );
    assert_eq!((run.exit_code, run.has_outputs), (Some(-9), true));
    assert_eq!(world.read(run.run_id).await, run);
}

#[tokio::test]
async fn the_history_says_who_what_when_and_why() {
    let world = World::new().await;
    let run = world.queued().await;
    world.clock.advance(TimeDelta::seconds(1));
    let change = Change { cause: "the operator said so".into(), ..Change::default() };
    let run = moved(world.store.transition(run.run_id, E::Cancel, change).await);
    let run = world.step(run.run_id, E::Canceled { attempt: 0 }).await;
    let events = world.history(run.run_id).await;

    assert_eq!(
        events.iter().map(|e| e.event.as_str()).collect::<Vec<_>>(),
        ["enqueue", "cancel", "canceled"]
    );
    assert_eq!(
        events.iter().map(|e| e.from).collect::<Vec<_>>(),
        [None, Some(S::Queued), Some(S::Canceling)]
    );
    assert_eq!(
        events.iter().map(|e| e.to).collect::<Vec<_>>(),
        [S::Queued, S::Canceling, S::Canceled]
    );
    assert_eq!(
        events.iter().map(|e| e.cause.as_str()).collect::<Vec<_>>(),
        ["", "the operator said so", ""]
    );
    assert!(events.iter().all(|e| e.owner == "ann" && e.tags == summary("x").tags));
    assert_eq!(events[0].time, run.created_at);
    assert_eq!(events[2].end_time, run.end_time);
    assert!(events.iter().all(|e| !e.has_outputs && e.attempt == 0));
}

#[tokio::test]
async fn no_text_makes_an_item_that_dynamodb_would_refuse() {
    let world = World::new().await;
    let mut run = world.initializing().await;
    let long = "\u{1F9EC}".repeat(20_000);
    for attempt in 1..53 {
        let change = Change {
            cause: long.clone(),
            system_log: Some(format!("{attempt} {long}")),
            cmd: Some(vec![long.clone(), long.clone()]),
            ..Change::default()
        };
        let event = E::Preempt { attempt, max_attempts: 100 };
        run = moved(world.store.transition(run.run_id, event, change).await);
    }
    assert_eq!(run.system_logs.len(), MAX_SYSTEM_LOGS);
    assert!(run.system_logs.iter().all(|line| line.len() <= MAX_TEXT_BYTES));
    assert!(run.system_logs[MAX_SYSTEM_LOGS - 1].starts_with("52 "), "the newest line is there");

    let change = Change { cmd: Some(vec![long.clone(), long]), ..Change::default() };
    let run = moved(world.store.transition(run.run_id, E::Run { attempt: 53 }, change).await);
    assert!(run.cmd.iter().map(String::len).sum::<usize>() <= MAX_CMD_BYTES);
    assert!(run.cmd.last().is_some_and(|last| last.ends_with(CUT)));
    assert_eq!(world.read(run.run_id).await, run);
    let events = world.history(run.run_id).await;
    assert!(events.iter().all(|event| event.cause.len() <= MAX_TEXT_BYTES));
}

#[tokio::test]
async fn a_run_that_does_not_exist_is_said_not_to() {
    let world = World::new().await;
    assert_eq!(world.tell(world.id(), E::Cancel).await, Transition::NotFound);
    assert_eq!(world.store.get(world.id()).await.expect("an answer"), None);
    assert!(world.store.events(world.id()).await.expect("an answer").is_empty());
}

#[tokio::test]
async fn a_new_run_is_queued_and_reads_back_as_it_was_answered() {
    let world = World::new().await;
    let new = world.submission("ann");
    let Ok(Created::New(run)) = world.store.create(new.clone()).await else {
        panic!("not created")
    };
    assert_eq!((run.state, run.version, run.attempt), (S::Queued, 1, 0));
    assert_eq!((run.owner.as_str(), &run.summary), ("ann", &new.summary));
    assert_eq!(world.read(new.run_id).await, run);
    assert_eq!(world.counts().await, [(S::Queued, 1)].into());
    assert_eq!(world.history(new.run_id).await.len(), 1);
}

fn moved(told: Result<Transition, stepwes_store::StoreError>) -> stepwes_core::Run {
    match told {
        Ok(Transition::Moved(run)) => run,
        other => panic!("the run did not move: {other:?}"),
    }
}
