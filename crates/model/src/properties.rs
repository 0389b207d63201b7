//! What must hold at every moment.

use stateright::Property;
use stepwes_core::run_state::RunState;

use crate::{
    Service,
    call::RunIx,
    world::{Post, RunWorld, World, place},
};

/// A rule of the service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Rule {
    /// A terminal state never changes.
    TerminalStays,
    /// CANCELING only becomes CANCELED.
    CancelingOnlyCanceled,
    /// At most one task's engine ever works for an attempt.
    OneEngineAnAttempt,
    /// At most one engine of a run is at work at once, whichever attempt's.
    OneEngineAtOnce,
    /// CANCELED is only said once no task of the run has, or had, the attempt.
    CanceledAfterTask,
    /// Work whose result is written is never run again.
    FinishedStaysFinished,
    /// The counts are those of the runs that there are.
    CountsExact,
    /// One idempotency key makes one run, and all its POSTs are told of that one.
    OneRunAKey,
    /// Each state change has its event item, and the last one tells the present state.
    ChangesPublished,
    /// A run is not given up while the task that holds it is at work.
    NotGivenUpAtWork,
    /// A run is not given up when its present attempt's result is written.
    ResultCounts,
}

impl Rule {
    /// Every rule.
    pub const ALL: [Self; 11] = [
        Self::TerminalStays,
        Self::CancelingOnlyCanceled,
        Self::OneEngineAnAttempt,
        Self::OneEngineAtOnce,
        Self::CanceledAfterTask,
        Self::FinishedStaysFinished,
        Self::CountsExact,
        Self::OneRunAKey,
        Self::ChangesPublished,
        Self::NotGivenUpAtWork,
        Self::ResultCounts,
    ];

    /// The rule in words; its name for the checker.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::TerminalStays => "a terminal state never changes",
            Self::CancelingOnlyCanceled => "CANCELING only becomes CANCELED",
            Self::OneEngineAnAttempt => "at most one engine works for an attempt",
            Self::OneEngineAtOnce => "at most one engine of a run is at work at once",
            Self::CanceledAfterTask => "CANCELED only after the task is gone",
            Self::FinishedStaysFinished => "finished work is never run again",
            Self::CountsExact => "the counts are those of the runs there are",
            Self::OneRunAKey => "an idempotency key makes one run",
            Self::ChangesPublished => "every state change is published",
            Self::NotGivenUpAtWork => "no run is given up while its engine is at work",
            Self::ResultCounts => "no run is given up when its result is written",
        }
    }
}

/// The rules as stateright checks them. Its conditions are plain functions, hence one a rule.
pub(crate) fn all() -> Vec<Property<Service>> {
    Rule::ALL.map(|rule| Property::always(rule.as_str(), condition(rule))).into()
}

fn condition(rule: Rule) -> fn(&Service, &World) -> bool {
    match rule {
        Rule::TerminalStays => |_, world| every(world, |run| !run.history.broken.terminal_changed),
        Rule::CancelingOnlyCanceled => {
            |_, world| every(world, |run| !run.history.broken.canceling_left)
        }
        Rule::OneEngineAnAttempt => {
            |_, world| every(world, |run| !run.history.broken.second_engine)
        }
        Rule::OneEngineAtOnce => |_, world| every(world, one_engine_at_once),
        Rule::CanceledAfterTask => |_, world| every(world, canceled_after_task),
        Rule::FinishedStaysFinished => |_, world| every(world, finished_stays_finished),
        Rule::CountsExact => |_, world| counts_exact(world),
        Rule::OneRunAKey => |_, world| one_run_a_key(world),
        Rule::ChangesPublished => |_, world| every(world, changes_published),
        Rule::NotGivenUpAtWork => {
            |_, world| every(world, |run| !run.history.broken.given_up_at_work)
        }
        Rule::ResultCounts => |_, world| every(world, |run| !run.history.broken.work_thrown_away),
    }
}

fn every(world: &World, holds: impl Fn(&RunWorld) -> bool) -> bool {
    world.runs.iter().all(holds)
}

/// Of one attempt, [`Rule::OneEngineAnAttempt`] tells; here, those of different ones are compared.
fn one_engine_at_once(run: &RunWorld) -> bool {
    let mut at_work = run.tasks.iter().filter(|task| task.is_at_work());
    let first = at_work.next();
    at_work.all(|task| first.is_some_and(|first| first.attempt == task.attempt))
}

fn canceled_after_task(run: &RunWorld) -> bool {
    let canceled = run.item.filter(|item| item.state == RunState::Canceled);
    canceled.is_none_or(|item| {
        run.tasks
            .iter()
            .zip(0..)
            .all(|(task, ix)| !(task.is_bound() || task.is_live() && item.holder == Some(ix)))
    })
}

fn finished_stays_finished(run: &RunWorld) -> bool {
    run.item.is_none_or(|item| {
        (1..)
            .zip(run.results)
            .all(|(attempt, result)| result.finished().is_none() || item.attempt <= attempt)
    })
}

fn counts_exact(world: &World) -> bool {
    let mut counts = [0; 9];
    for item in world.runs.iter().filter_map(|run| run.item) {
        counts[place(item.state)] += 1;
    }
    counts == world.counts
}

fn one_run_a_key(world: &World) -> bool {
    let created: Vec<RunIx> =
        (0..).zip(&world.runs).filter(|(_, run)| run.history.created).map(|(ix, _)| ix).collect();
    let told = world.posts.iter().all(|post| match post {
        Post::Answered(run) => created == [*run],
        Post::Unsent | Post::Waiting | Post::Failed => true,
    });
    created.len() <= 1 && told
}

fn changes_published(run: &RunWorld) -> bool {
    run.item.is_none_or(|item| {
        let all = (1 << (item.version + 1)) - 2;
        run.events == all
            && run.last_event == Some(item.state)
            && run.history.changes == item.version
    })
}
