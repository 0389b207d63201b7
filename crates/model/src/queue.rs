//! The queue: runs that wait for a slot, and whoever gives the slots away.
//!
//! More than one run at a time is too much for the model of the whole service, and what a run does
//! once it is started plays no part here. So this is a model of its own: several runs, each with an
//! execution that starts it and ends it; invocations of submit and reconcile that look for those
//! that wait, call by call as the store's `Admission` makes them; clients that cancel. What an event comes
//! to, the conditions, and what becomes of a run's place are the store's own
//! ([`stepwes_store::rules`]). The index of those that wait may lag behind the table.

use std::collections::{HashMap, VecDeque};

use chrono::DateTime;
use stateright::{Model, Property};
use stepwes_core::{
    run::{Place, Run},
    run_state::{RunEvent, RunState},
    token::AttemptToken,
};
use stepwes_store::{
    Change,
    rules::{self, Decision, Unchanged},
};

use crate::table::{run, small};

/// How much may happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueBounds {
    /// How many runs are submitted, one after the other.
    pub runs: u8,
    /// How many may be at work at once.
    pub limit: u8,
    /// How many invocations look for those that wait at once.
    pub looks: u8,
    /// How many of these die.
    pub faults: u8,
    /// How many runs a caller asks to cancel.
    pub cancels: u8,
    /// Whether the index lags behind the table.
    pub lag: bool,
}

/// One rule that is broken, to show that breaking it is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QueueBug {
    /// A slot is taken without looking whether it is free.
    SlotTakenTwice,
    /// A run that ends keeps its slot.
    SlotKept,
    /// A state change does not look whether a slot was given meanwhile.
    PlaceForgotten,
    /// reconcile starts a QUEUED run without an execution though it waits.
    StartedWaiting,
    /// Those that wait are looked for when a run is submitted alone.
    EndsUnheard,
    /// Those that wait have their turn in no order.
    OutOfOrder,
}

/// The queue within bounds, with a bug or none.
#[derive(Clone, Copy, Debug)]
pub struct Queue {
    bounds: QueueBounds,
    bug: Option<QueueBug>,
}

/// A run's item, as far as anybody goes by it here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct Item {
    state: RunState,
    version: u8,
    attempt: u8,
    place: Option<Place>,
}

impl Item {
    const NEW: Self =
        Self { state: RunState::Queued, version: 1, attempt: 0, place: Some(Place::Waiting) };

    fn run(self) -> Run {
        Run { place: self.place, ..run(self.state, self.version, self.attempt) }
    }

    fn of(run: &Run) -> Self {
        Self {
            state: run.state,
            version: small(run.version),
            attempt: small(run.attempt.into()),
            place: run.place,
        }
    }

    fn waits(self) -> bool {
        rules::waits(Some(&self.run()))
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Execution {
    Missing,
    Running,
    Ended,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct RunWorld {
    item: Option<Item>,
    /// Whether the index has it among those that wait.
    indexed: bool,
    execution: Execution,
    /// Whether the execution's end has yet to be told.
    untold: bool,
}

/// An invocation that looks for runs that wait.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct Look {
    newest: Option<u8>,
    /// Bits of runs that it has given a slot or cannot.
    seen: u8,
    at: At,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum At {
    /// It is about to read the slots.
    Slots,
    /// It is about to read who waits, with what was free.
    Waiting(Vec<u8>),
    /// It is about to give the first slot to the first run.
    Give(Vec<u8>, Vec<u8>),
    /// It is about to start the run that it gave a slot; then it goes on with the rest.
    Start(u8, Vec<u8>, Vec<u8>),
}

/// A cancel that has read the run, and has not written it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct Cancel {
    run: u8,
    read: Item,
}

/// A moment.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct QueueWorld {
    runs: Vec<RunWorld>,
    slots: Vec<Option<u8>>,
    /// Sorted: which came first plays no part.
    looks: Vec<Look>,
    cancels: Vec<Cancel>,
    faults_left: u8,
    cancels_left: u8,
    overtaken: bool,
}

/// Something that happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QueueAction {
    /// The next run is submitted.
    Submit,
    /// The index follows the table.
    Index(u8),
    /// An invocation goes on by one call of AWS's.
    GoOn(usize),
    /// An invocation dies.
    Die(usize),
    /// The execution takes a step.
    Execution(u8),
    /// The execution's end is told.
    Tell(u8),
    /// The schedule ticks: those that wait are looked for.
    Tick,
    /// The schedule ticks: reconcile looks at the run.
    Reconcile(u8),
    /// A caller asks to cancel the run, which is read.
    Cancel(u8),
    /// A cancel is written.
    WriteCancel(usize),
}

impl Queue {
    /// The queue as it is.
    #[must_use]
    pub const fn new(bounds: QueueBounds) -> Self {
        Self { bounds, bug: None }
    }

    /// The queue with a bug.
    #[must_use]
    pub const fn with(self, bug: QueueBug) -> Self {
        Self { bug: Some(bug), ..self }
    }

    fn is(&self, bug: QueueBug) -> bool {
        self.bug == Some(bug)
    }

    /// The first moment from which not every run can end any more, though nothing else goes wrong.
    #[must_use]
    pub fn stuck(&self) -> Option<QueueWorld> {
        let mut places = HashMap::new();
        let mut moments = Vec::new();
        let mut before: Vec<Vec<usize>> = Vec::new();
        let mut left = VecDeque::new();
        let mut place_of = |world: QueueWorld, left: &mut VecDeque<usize>, moments: &mut Vec<_>| {
            *places.entry(world.clone()).or_insert_with(|| {
                left.push_back(moments.len());
                moments.push(world);
                moments.len() - 1
            })
        };
        for world in self.init_states() {
            place_of(world, &mut left, &mut moments);
        }
        while let Some(from) = left.pop_front() {
            let world = moments[from].clone();
            let mut actions = Vec::new();
            self.actions(&world, &mut actions);
            for action in actions {
                let Some(next) = self.next_state(&world, action) else { continue };
                let to = place_of(next, &mut left, &mut moments);
                // Nobody may count on a cancel, and nothing on a death.
                let helps = !matches!(action, QueueAction::Die(_) | QueueAction::Cancel(_));
                before.resize(moments.len(), Vec::new());
                if helps {
                    before[to].push(from);
                }
            }
        }
        before.resize(moments.len(), Vec::new());
        let mut ends = vec![false; moments.len()];
        let mut left: Vec<_> = (0..moments.len()).filter(|at| moments[*at].is_settled()).collect();
        while let Some(at) = left.pop() {
            if !std::mem::replace(&mut ends[at], true) {
                left.extend(&before[at]);
            }
        }
        ends.iter().position(|ends| !ends).map(|at| moments[at].clone())
    }
}

impl QueueWorld {
    fn is_settled(&self) -> bool {
        self.looks.is_empty()
            && self.cancels.is_empty()
            && self.runs.iter().all(|run| run.item.is_some_and(|item| item.state.is_terminal()))
    }

    fn run(&mut self, run: u8) -> &mut RunWorld {
        &mut self.runs[usize::from(run)]
    }

    fn item(&self, run: u8) -> Item {
        self.runs[usize::from(run)].item.expect("a run that there is")
    }

    fn waiting(&self) -> impl Iterator<Item = u8> {
        (0..).zip(&self.runs).filter(|(_, run)| run.item.is_some_and(Item::waits)).map(|(ix, _)| ix)
    }

    /// A transition of a run that was read as `read`; whether it was written, or nothing was to be.
    fn transition(&mut self, queue: &Queue, run: u8, read: Item, event: RunEvent) -> bool {
        let token = || Ok(AttemptToken::from_secret(String::new()));
        let decided =
            rules::decide(&read.run(), event, &Change::default(), DateTime::UNIX_EPOCH, token);
        let Ok(Decision::Write(change)) = decided else { return true };
        let now = self.item(run);
        let condition = if queue.is(QueueBug::PlaceForgotten) {
            Unchanged { place: now.place, ..change.condition }
        } else {
            change.condition
        };
        if !condition.holds(Some(&now.run())) {
            return false;
        }
        let to = Item::of(&change.run);
        if let (Some(Place::Slot(slot)), None) = (read.place, to.place)
            && !queue.is(QueueBug::SlotKept)
        {
            self.slots[slot as usize] = None;
        }
        self.run(run).item = Some(to);
        true
    }

    fn start(&mut self, run: u8) {
        let run = self.run(run);
        if run.execution == Execution::Missing {
            run.execution = Execution::Running;
        }
    }

    fn look(&mut self, newest: Option<u8>) {
        self.looks.push(Look { newest, seen: 0, at: At::Slots });
    }

    fn execution_step(&mut self, queue: &Queue, run: u8) {
        let item = self.item(run);
        let attempt = item.attempt.into();
        let event = match item.state {
            RunState::Queued => RunEvent::Initialize,
            RunState::Initializing => RunEvent::ExecutorError { attempt },
            RunState::Canceling => RunEvent::Canceled { attempt },
            _ => {
                let run = self.run(run);
                run.execution = Execution::Ended;
                run.untold = true;
                return;
            }
        };
        self.transition(queue, run, item, event);
    }

    /// One call of [`stepwes_store::Admission`]'s, or one execution that is started.
    fn go_on(&mut self, queue: &Queue, ix: usize) {
        let Look { newest, mut seen, at } = self.looks.remove(ix);
        let at = match at {
            At::Slots => {
                let free: Vec<u8> = (0..)
                    .zip(&self.slots)
                    .filter(|(_, of)| of.is_none())
                    .map(|(ix, _)| ix)
                    .collect();
                if free.is_empty() {
                    return;
                }
                At::Waiting(free)
            }
            At::Waiting(free) => {
                let mut waiting: Vec<u8> = if queue.bounds.lag {
                    (0..).zip(&self.runs).filter(|(_, run)| run.indexed).map(|(ix, _)| ix).collect()
                } else {
                    self.waiting().collect()
                };
                if queue.is(QueueBug::OutOfOrder) {
                    waiting.reverse();
                }
                waiting.extend(newest.filter(|newest| !waiting.contains(newest)));
                waiting.retain(|run| seen & 1 << run == 0);
                if waiting.is_empty() {
                    return;
                }
                At::Give(free, waiting)
            }
            At::Give(free, waiting) => match (free.split_first(), waiting.split_first()) {
                (Some((slot, free)), Some((run, waiting))) => {
                    let item = self.item(*run);
                    let place = &mut self.slots[usize::from(*slot)];
                    if !item.waits() {
                        seen |= 1 << run;
                        At::Give(free.to_vec(), waiting.to_vec())
                    } else if place.is_some() && !queue.is(QueueBug::SlotTakenTwice) {
                        At::Slots
                    } else {
                        *place = Some(*run);
                        let overtaken = self.waiting().any(|earlier| earlier < *run);
                        self.overtaken |= overtaken;
                        let slot = Place::Slot((*slot).into());
                        self.run(*run).item = Some(Item { place: Some(slot), ..item });
                        seen |= 1 << run;
                        At::Start(*run, free.to_vec(), waiting.to_vec())
                    }
                }
                _ => At::Slots,
            },
            At::Start(run, free, waiting) => {
                self.start(run);
                At::Give(free, waiting)
            }
        };
        self.looks.push(Look { newest, seen, at });
    }
}

impl Model for Queue {
    type State = QueueWorld;
    type Action = QueueAction;

    fn init_states(&self) -> Vec<QueueWorld> {
        let run =
            RunWorld { item: None, indexed: false, execution: Execution::Missing, untold: false };
        vec![QueueWorld {
            runs: vec![run; self.bounds.runs.into()],
            slots: vec![None; self.bounds.limit.into()],
            looks: Vec::new(),
            cancels: Vec::new(),
            faults_left: self.bounds.faults,
            cancels_left: self.bounds.cancels,
            overtaken: false,
        }]
    }

    fn actions(&self, world: &QueueWorld, actions: &mut Vec<QueueAction>) {
        let may_look = world.looks.len() < self.bounds.looks.into();
        if may_look && world.runs.iter().any(|run| run.item.is_none()) {
            actions.push(QueueAction::Submit);
        }
        if may_look && world.waiting().next().is_some() && !self.is(QueueBug::EndsUnheard) {
            actions.push(QueueAction::Tick);
        }
        for (ix, run) in (0..).zip(&world.runs) {
            let Some(item) = run.item else { continue };
            if run.indexed != item.waits() && self.bounds.lag {
                actions.push(QueueAction::Index(ix));
            }
            if run.execution == Execution::Running {
                actions.push(QueueAction::Execution(ix));
            }
            if run.untold && may_look && !self.is(QueueBug::EndsUnheard) {
                actions.push(QueueAction::Tell(ix));
            }
            if run.execution == Execution::Missing
                && !item.state.is_terminal()
                && (!item.waits() || self.is(QueueBug::StartedWaiting))
            {
                actions.push(QueueAction::Reconcile(ix));
            }
            if world.cancels_left > 0 && !item.state.is_terminal() {
                actions.push(QueueAction::Cancel(ix));
            }
        }
        for ix in 0..world.looks.len() {
            actions.push(QueueAction::GoOn(ix));
            if world.faults_left > 0 {
                actions.push(QueueAction::Die(ix));
            }
        }
        actions.extend((0..world.cancels.len()).map(QueueAction::WriteCancel));
    }

    fn next_state(&self, last: &QueueWorld, action: QueueAction) -> Option<QueueWorld> {
        let mut world = last.clone();
        match action {
            QueueAction::Submit => {
                let next = world.runs.iter().position(|run| run.item.is_none())?;
                world.runs[next].item = Some(Item::NEW);
                world.look(u8::try_from(next).ok());
            }
            QueueAction::Index(run) => {
                let waits = world.item(run).waits();
                world.run(run).indexed = waits;
            }
            QueueAction::GoOn(ix) => world.go_on(self, ix),
            QueueAction::Die(ix) => {
                world.looks.remove(ix);
                world.faults_left -= 1;
            }
            QueueAction::Execution(run) => world.execution_step(self, run),
            QueueAction::Tell(run) => {
                world.run(run).untold = false;
                world.look(None);
            }
            QueueAction::Tick => world.look(None),
            QueueAction::Reconcile(run) => {
                let item = world.item(run);
                if item.state == RunState::Queued {
                    world.start(run);
                } else {
                    let attempt = item.attempt.into();
                    world.transition(self, run, item, RunEvent::Canceled { attempt });
                }
            }
            QueueAction::Cancel(run) => {
                let read = world.item(run);
                world.cancels.push(Cancel { run, read });
                world.cancels_left -= 1;
            }
            QueueAction::WriteCancel(ix) => {
                let Cancel { run, read } = world.cancels.remove(ix);
                if !world.transition(self, run, read, RunEvent::Cancel) {
                    let read = world.item(run);
                    world.cancels.push(Cancel { run, read });
                } else if world.item(run).state == RunState::Canceling
                    && world.item(run).attempt == 0
                {
                    world.start(run);
                }
            }
        }
        world.looks.sort_unstable();
        world.cancels.sort_unstable();
        (world != *last).then_some(world)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("a slot and its run agree", |_, world: &QueueWorld| {
                let has = |run: u8, slot: usize| {
                    let place = world.runs[usize::from(run)].item.and_then(|item| item.place);
                    place == u32::try_from(slot).ok().map(Place::Slot)
                };
                let with_slot = world.runs.iter().filter_map(|run| run.item?.place);
                let with_slot = with_slot.filter(|place| *place != Place::Waiting).count();
                let taken = world.slots.iter().filter(|of| of.is_some()).count();
                let agree =
                    (0..).zip(&world.slots).all(|(slot, of)| of.is_none_or(|run| has(run, slot)));
                agree && taken == with_slot
            }),
            Property::always(
                "no more runs are at work than may be",
                |queue: &Self, world: &QueueWorld| {
                    let at_work = world.runs.iter().filter(|run| {
                        let state = run.item.map(|item| item.state);
                        run.execution == Execution::Running
                            && matches!(state, Some(RunState::Queued | RunState::Initializing))
                    });
                    at_work.count() <= queue.bounds.limit.into()
                },
            ),
            Property::always("none overtakes another", |queue: &Self, world: &QueueWorld| {
                queue.bounds.lag || !world.overtaken
            }),
        ]
    }
}
