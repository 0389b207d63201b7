//! Whether every run reaches its end once failures stop.
//!
//! The moments that can be reached, faults included, are the nodes; what happens without a fault and
//! without a client is an edge. From each node some way must lead along such edges to a moment where
//! every run has ended, its execution and its tasks too. As there are finitely many nodes, a service
//! in which whatever remains possible happens in the end cannot stay away from such a moment for
//! ever: it would have to stay in nodes from which none leads on. That is sound with cycles and
//! joins, as nothing is asked of single paths.

use std::{
    collections::{BTreeSet, HashMap, VecDeque, hash_map::Entry},
    hash::{BuildHasher, BuildHasherDefault, DefaultHasher},
};

use stateright::Model as _;
use stepwes_core::RunState;

use crate::{
    Service,
    world::{Action, World},
};

/// Where a node came from: nowhere.
const NOWHERE: u32 = u32::MAX;

/// The moments of a service, and what leads from one to another without a fault.
pub struct Graph {
    service: Service,
    /// The node by which each was first reached, and which of its actions it was.
    came_from: Vec<(u32, u16)>,
    settled: Vec<bool>,
    /// The terminal states that runs come to.
    ends: BTreeSet<RunState>,
    /// Edges without faults and clients, by where they lead to.
    back: Vec<(u32, u32)>,
}

/// A moment from which no run ends any more.
pub struct Stuck {
    /// What led there.
    pub actions: Vec<Action>,
    /// The moment.
    pub world: World,
}

impl Graph {
    /// Walks through all that can be reached.
    ///
    /// # Panics
    /// When there are more moments than fit into memory.
    #[must_use]
    pub fn of(service: Service) -> Self {
        let hasher = BuildHasherDefault::<DefaultHasher>::default();
        let mut places: HashMap<u64, u32> = HashMap::new();
        let mut graph = Self {
            service,
            came_from: Vec::new(),
            settled: Vec::new(),
            ends: BTreeSet::new(),
            back: Vec::new(),
        };
        let mut pending = VecDeque::new();
        for world in graph.service.init_states() {
            places.insert(hasher.hash_one(&world), graph.add(&world, (NOWHERE, 0)));
            pending.push_back((0, world));
        }
        let mut actions = Vec::new();
        while let Some((from, world)) = pending.pop_front() {
            graph.service.actions(&world, &mut actions);
            for (at, action) in actions.drain(..).enumerate() {
                let helps = helps(&action);
                let Some(next) = graph.service.next_state(&world, action) else { continue };
                let to = match places.entry(hasher.hash_one(&next)) {
                    Entry::Occupied(known) => *known.get(),
                    Entry::Vacant(new) => {
                        let at = u16::try_from(at).expect("few things can happen at once");
                        let place = graph.add(&next, (from, at));
                        new.insert(place);
                        pending.push_back((place, next));
                        place
                    }
                };
                if helps {
                    graph.back.push((to, from));
                }
            }
        }
        graph.back.sort_unstable();
        graph
    }

    fn add(&mut self, world: &World, came_from: (u32, u16)) -> u32 {
        self.came_from.push(came_from);
        self.settled.push(world.is_settled());
        let states = world.runs.iter().filter_map(|run| run.item).map(|item| item.state);
        self.ends.extend(states.filter(|state| state.is_terminal()));
        u32::try_from(self.settled.len() - 1).expect("moments fit into memory")
    }

    /// How many moments there are.
    #[must_use]
    pub fn moments(&self) -> usize {
        self.settled.len()
    }

    /// The terminal states that runs come to.
    #[must_use]
    pub fn ends(&self) -> BTreeSet<RunState> {
        self.ends.clone()
    }

    /// The moment that is reached soonest of those from which no run ends any more; none when there
    /// is no such moment.
    #[must_use]
    pub fn stuck(&self) -> Option<Stuck> {
        let mut ends = self.settled.clone();
        let mut pending: Vec<_> =
            (0..).zip(&ends).filter(|(_, ends)| **ends).map(|(node, _)| node).collect();
        while let Some(node) = pending.pop() {
            let first = self.back.partition_point(|(to, _)| *to < node);
            for (_, from) in self.back[first..].iter().take_while(|(to, _)| *to == node) {
                if !std::mem::replace(&mut ends[*from as usize], true) {
                    pending.push(*from);
                }
            }
        }
        let stuck = ends.iter().position(|ends| !ends)?;
        Some(self.way_to(u32::try_from(stuck).ok()?))
    }

    fn way_to(&self, mut node: u32) -> Stuck {
        let mut choices = Vec::new();
        while let (from, at) = self.came_from[node as usize]
            && from != NOWHERE
        {
            choices.push(at);
            node = from;
        }
        let mut world = self.service.init_states().remove(0);
        let mut actions = Vec::new();
        for at in choices.into_iter().rev() {
            let mut possible = Vec::new();
            self.service.actions(&world, &mut possible);
            let action = possible.swap_remove(at.into());
            world = self.service.next_state(&world, action.clone()).expect("it led on before");
            actions.push(action);
        }
        Stuck { actions, world }
    }
}

/// Whether an action may be counted on: no fault, and nothing that a client may leave undone.
fn helps(action: &Action) -> bool {
    match action {
        Action::GoOn(_)
        | Action::Execution(_)
        | Action::Task(..)
        | Action::Reconcile(_)
        | Action::Orphan(..) => true,
        Action::Post(_) | Action::Cancel(_) | Action::Remove(_) | Action::Fault(_) => false,
    }
}
