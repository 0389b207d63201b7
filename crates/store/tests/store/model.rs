//! Random sequences of events, held against the state table in memory.

use proptest::{
    prelude::*,
    test_runner::{Config, TestRunner},
};
use stepwes_core::run_state::{Position, RunEvent as E, Step};
use stepwes_store::Transition;

use crate::support::World;

fn event() -> impl Strategy<Value = E> {
    let attempt = 0..4u32;
    prop_oneof![
        2 => Just(E::Initialize),
        1 => Just(E::Cancel),
        4 => attempt.clone().prop_map(|attempt| E::Run { attempt }),
        1 => attempt.clone().prop_map(|attempt| E::Complete { attempt }),
        1 => attempt.clone().prop_map(|attempt| E::ExecutorError { attempt }),
        4 => attempt.clone().prop_map(|attempt| E::Preempt { attempt, max_attempts: 3 }),
        1 => attempt.clone().prop_map(|attempt| E::SystemError { attempt }),
        1 => attempt.prop_map(|attempt| E::Canceled { attempt }),
    ]
}

#[test]
fn the_store_does_what_the_state_table_does() {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let world = runtime.block_on(World::new());
    let cases = Config { cases: 32, failure_persistence: None, ..Config::default() };
    let held = TestRunner::new(cases).run(&proptest::collection::vec(event(), 0..25), |events| {
        runtime.block_on(async {
            let mut counts = world.counts().await;
            let run_id = world.queued().await.run_id;
            let (mut model, mut version) = (Position::NEW, 1);
            for event in events {
                let told = world.tell(run_id, event).await;
                let run = match (model.apply(event), told) {
                    (Ok(Step::Move(to)), Transition::Moved(run)) => {
                        (model, version) = (to, version + 1);
                        run
                    }
                    (Ok(Step::Repeated), Transition::Repeated(run)) => run,
                    (Err(expected), Transition::Refused { run, refusal }) => {
                        prop_assert_eq!(refusal, expected);
                        run
                    }
                    (expected, told) => {
                        return Err(TestCaseError::fail(format!(
                            "{event:?}: {told:?} where the table says {expected:?}"
                        )));
                    }
                };
                prop_assert_eq!((run.position(), run.version), (model, version));
            }
            world.history(run_id).await;
            *counts.entry(model.state).or_default() += 1;
            prop_assert_eq!(world.counts().await, counts);
            Ok(())
        })
    });
    held.expect("the store and the table agree");
}
