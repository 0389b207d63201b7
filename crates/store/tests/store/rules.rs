//! The conditions as DynamoDB reads them are those of `stepwes_store::rules`: a write that meets a
//! change takes effect when they hold of the item by then, and only then.

use futures::future::BoxFuture;
use stepwes_core::{
    Run,
    run_state::{RunEvent as E, RunState},
};
use stepwes_store::{
    Change, Claim, Transition,
    rules::{Free, Unchanged},
};

use crate::support::{World, wire::Fault};

/// What happens between somebody's read and their write.
#[derive(Clone, Copy, Debug)]
enum Meanwhile {
    Nothing,
    Claimed(&'static str),
    Told(E),
    ClaimedAndTold(&'static str, E),
}

const LOST: E = E::Preempt { attempt: 1, max_attempts: 3 };

const CHANGES: [Meanwhile; 9] = [
    Meanwhile::Nothing,
    Meanwhile::Claimed("arn:own"),
    Meanwhile::Claimed("arn:other"),
    Meanwhile::Told(E::Run { attempt: 1 }),
    Meanwhile::Told(E::Cancel),
    Meanwhile::Told(E::SystemError { attempt: 1 }),
    Meanwhile::Told(LOST),
    Meanwhile::ClaimedAndTold("arn:own", E::Run { attempt: 1 }),
    Meanwhile::ClaimedAndTold("arn:other", E::Cancel),
];

impl Meanwhile {
    fn happens(self, world: &World, run: &Run) -> BoxFuture<'static, ()> {
        let (world, run) = (world.clone(), run.clone());
        Box::pin(async move {
            let token = run.token.expect("a token");
            let (arn, event) = match self {
                Self::Nothing => (None, None),
                Self::Claimed(arn) => (Some(arn), None),
                Self::Told(event) => (None, Some(event)),
                Self::ClaimedAndTold(arn, event) => (Some(arn), Some(event)),
            };
            if let Some(arn) = arn {
                let claimed = world.store.claim(run.run_id, 1, &token, arn).await;
                assert!(matches!(claimed, Ok(Claim::Claimed(_))), "{claimed:?}");
            }
            if let Some(event) = event {
                world.step(run.run_id, event).await;
            }
        })
    }

    /// The run as it is by then.
    async fn leads_to(self) -> (World, Run, Run) {
        let world = World::new().await;
        let read = world.initializing().await;
        self.happens(&world, &read).await;
        let now = world.read(read.run_id).await;
        (world, read, now)
    }
}

#[tokio::test]
async fn a_state_change_is_written_when_the_run_is_unchanged() {
    for meanwhile in CHANGES {
        let (_, read, now) = meanwhile.leads_to().await;
        let holds = Unchanged::since(&read).holds(Some(&now));

        let world = World::new().await;
        let run = world.initializing().await;
        // The first to arrive is the one that is made out for what was read.
        let happens = meanwhile.happens(&world, &run);
        world.wire.next("TransactWriteItems", Fault::Meanwhile(happens));
        let cause = "the first try".to_owned();
        let change = Change { system_log: Some(cause), ..Change::default() };
        let event = E::SystemError { attempt: 1 };
        let told = world.store.transition(run.run_id, event, change).await.expect("an answer");

        let by_first_try = match &told {
            Transition::Moved(moved) => {
                moved.version == run.version + 1 && {
                    let sent = world.wire.sent()["TransactWriteItems"];
                    let of_others = 2 + usize::from(matches!(
                        meanwhile,
                        Meanwhile::Told(_) | Meanwhile::ClaimedAndTold(..)
                    ));
                    sent == of_others + 1
                }
            }
            _ => false,
        };
        assert_eq!(by_first_try, holds, "{meanwhile:?}: {told:?}");
    }
    assert!(!Unchanged { version: 1, task_arn: None, place: None }.holds(None));
}

#[tokio::test]
async fn an_attempt_is_bound_when_it_is_free() {
    let free = || Free { attempt: 1, task_arn: "arn:own".to_owned() };
    for meanwhile in CHANGES {
        let (_, _, now) = meanwhile.leads_to().await;
        let holds = free().holds(Some(&now));

        let world = World::new().await;
        let run = world.initializing().await;
        let token = run.token.clone().expect("a token");
        let happens = meanwhile.happens(&world, &run);
        world.wire.next("UpdateItem", Fault::Meanwhile(happens));
        let claim = world.store.claim(run.run_id, 1, &token, "arn:own").await.expect("an answer");

        assert_eq!(matches!(claim, Claim::Claimed(_)), holds, "{meanwhile:?}: {claim:?}");
        let held = world.read(run.run_id).await;
        let is_own = held.task_arn.as_deref() == Some("arn:own");
        assert_eq!(is_own && held.state != RunState::Canceling, holds, "{meanwhile:?}");
    }
    assert!(!free().holds(None));
}
