//! That the checks see something: with one rule broken, the checks that depend on it fail, and no
//! others.

use std::collections::BTreeSet;

use stateright::{Checker as _, Model as _};
use stepwes_model::{Bounds, Bug, Graph, Rule, Service};

const NOTHING: Bounds =
    Bounds { posts: 1, cancels: 0, attempts: 1, faults: 0, reconciles: 0, removal: false };

/// The rules that are broken; shows a way to break each, and how long it is.
fn broken(bug: Bug, bounds: Bounds) -> BTreeSet<Rule> {
    let checker = Service::new(bounds).with(bug).checker().spawn_bfs().join();
    let found = Rule::ALL.into_iter().filter(|rule| {
        let Some(path) = checker.discovery(rule.as_str()) else { return false };
        let actions = path.into_actions();
        eprintln!("{bug:?} breaks \"{}\" in {} actions: {actions:?}", rule.as_str(), actions.len());
        true
    });
    found.collect()
}

fn breaks<const N: usize>(bug: Bug, bounds: Bounds, rules: [Rule; N]) {
    assert_eq!(broken(bug, bounds), rules.into(), "{bug:?} within {bounds:?}");
}

#[test]
fn a_terminal_state_that_changes() {
    let bounds = Bounds { cancels: 1, faults: 1, ..NOTHING };
    breaks(Bug::TerminalChanges, bounds, [Rule::TerminalStays]);
}

#[test]
fn canceling_that_becomes_complete() {
    let bounds = Bounds { cancels: 1, ..NOTHING };
    breaks(Bug::CancelingCompletes, bounds, [Rule::CancelingOnlyCanceled]);
}

#[test]
fn a_write_on_the_condition_of_no_version() {
    let bounds = Bounds { cancels: 1, ..NOTHING };
    breaks(
        Bug::VersionForgotten,
        bounds,
        [
            Rule::TerminalStays,
            Rule::CancelingOnlyCanceled,
            Rule::CountsExact,
            Rule::ChangesPublished,
        ],
    );
}

#[test]
fn a_queued_run_that_nobody_starts() {
    let bounds = Bounds { faults: 1, reconciles: 1, ..NOTHING };
    let graph = Graph::of(Service::new(bounds).with(Bug::QueuedForgotten));
    let stuck = graph.stuck().expect("the run is stuck");
    eprintln!("stuck after {} actions: {:?}", stuck.actions.len(), stuck.actions);
    assert!(Graph::of(Service::new(bounds)).stuck().is_none(), "without the bug it is not");
    breaks(Bug::QueuedForgotten, bounds, []);
}

#[test]
fn a_twin_that_gets_the_attempt_too() {
    let bounds = Bounds { faults: 1, ..NOTHING };
    breaks(Bug::TwinAccepted, bounds, [Rule::OneEngineAnAttempt]);
}

#[test]
fn an_attempt_that_is_lost_to_a_task_which_has_just_claimed_it() {
    let bounds = Bounds { attempts: 2, faults: 1, ..NOTHING };
    breaks(Bug::HolderForgotten, bounds, [Rule::OneEngineAtOnce, Rule::FinishedStaysFinished]);
}

#[test]
fn a_run_that_is_given_up_under_a_task_which_has_just_claimed_it() {
    let bounds = Bounds { faults: 1, ..NOTHING };
    breaks(Bug::GivenUpUnseen, bounds, [Rule::NotGivenUpAtWork, Rule::ResultCounts]);
}

#[test]
fn a_run_that_a_failed_step_gives_up_under_its_task() {
    let bounds = Bounds { attempts: 2, faults: 2, ..NOTHING };
    breaks(Bug::FailedStepUnseen, bounds, [Rule::NotGivenUpAtWork, Rule::ResultCounts]);
}

#[test]
fn canceled_before_the_task_is_gone() {
    let bounds = Bounds { cancels: 1, faults: 1, ..NOTHING };
    breaks(Bug::CanceledAtOnce, bounds, [Rule::CanceledAfterTask]);
}

#[test]
fn a_result_that_nobody_looks_for() {
    let bounds = Bounds { attempts: 2, faults: 1, ..NOTHING };
    breaks(Bug::ResultIgnored, bounds, [Rule::FinishedStaysFinished]);
}

#[test]
fn a_result_that_is_written_while_its_task_is_looked_for() {
    let bounds = Bounds { attempts: 2, faults: 1, ..NOTHING };
    breaks(Bug::ResultNotLookedForAgain, bounds, [Rule::FinishedStaysFinished, Rule::ResultCounts]);
}

#[test]
fn counts_that_do_not_move() {
    breaks(Bug::CountForgotten, NOTHING, [Rule::CountsExact]);
}

#[test]
fn a_key_that_makes_two_runs() {
    breaks(Bug::KeyForgotten, Bounds { posts: 2, ..NOTHING }, [Rule::OneRunAKey]);
}

#[test]
fn a_change_without_its_event() {
    breaks(Bug::EventForgotten, Bounds { cancels: 1, ..NOTHING }, [Rule::ChangesPublished]);
}
