//! A model of the whole service, checked exhaustively within bounds.
//!
//! Its actors are clients, executions of the state machine, engine tasks, and invocations of submit,
//! cancel, advance, report, collect and reconcile; its moments are what can be between two calls of
//! AWS's. The table's decisions and conditions are the store's own ([`stepwes_store::rules`]), the
//! machine is the file that is deployed, what a lost task becomes is asked of collect, and who may
//! report of report. The functions are written down again, call by call (`functions.rs`).
//!
//! What can never be is checked by [stateright](https://www.stateright.rs) ([`Service`] is its
//! model). That every run ends is checked by [`Graph`]: stateright's `eventually` is documented not
//! to tell cycles from joins, and a service that may retry is full of both.
//!
//! Left out: time (whatever may come later may come at any time), what is in requests and results, a
//! result that blames the service (it goes the way of one that blames the request), and collisions of
//! the 64-bit hashes by which moments are told apart.

mod bounds;
mod call;
mod functions;
mod graph;
mod losses;
mod machine;
mod properties;
mod queue;
mod table;
mod task;
mod world;

use stateright::{Model, Property};

pub use bounds::{Bounds, Bug};
pub use graph::{Graph, Stuck};
pub use properties::Rule;
pub use queue::{Queue, QueueAction, QueueBounds, QueueBug, QueueWorld};
pub use world::{Action, Doable, Fault, Then, World};

use losses::Losses;
use machine::Machine;
use world::{Laws, MOST_ATTEMPTS};

/// The service within bounds, with a bug or none.
#[derive(Clone, Debug)]
pub struct Service {
    laws: Laws,
}

impl Service {
    /// The service as it is.
    ///
    /// # Panics
    /// When the bounds are larger than the model.
    #[must_use]
    pub fn new(bounds: Bounds) -> Self {
        assert!(usize::from(bounds.attempts) <= MOST_ATTEMPTS, "at most {MOST_ATTEMPTS} attempts");
        let laws = Laws { bounds, bug: None, machine: Machine::deployed(), losses: Losses::new() };
        Self { laws }
    }

    /// The service with a bug.
    #[must_use]
    pub fn with(mut self, bug: Bug) -> Self {
        self.laws.bug = Some(bug);
        self
    }
}

impl Model for Service {
    type State = World;
    type Action = Action;

    fn init_states(&self) -> Vec<World> {
        vec![World::new(self.laws.bounds)]
    }

    fn actions(&self, state: &World, actions: &mut Vec<Action>) {
        state.actions(&self.laws, actions);
    }

    fn next_state(&self, last: &World, action: Action) -> Option<World> {
        let next = last.clone().after(&self.laws, &action);
        (next != *last).then_some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        properties::all()
    }
}
