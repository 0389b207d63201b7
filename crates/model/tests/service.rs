//! The service as it is, within bounds: what must hold at every moment does, and from every moment
//! every run ends.

use stateright::{Checker as _, Model as _};
use stepwes_core::RunState::{self, Canceled, Complete, ExecutorError, Preempted, SystemError};
use stepwes_model::{Bounds, Graph, Service};

const ONE: Bounds =
    Bounds { posts: 1, cancels: 0, attempts: 1, faults: 0, reconciles: 1, removal: false };

/// A run that is cancelled or not, in two attempts, one thing going wrong.
const CANCELED: Bounds = Bounds { cancels: 1, attempts: 2, faults: 1, ..ONE };

/// Two POSTs under one key, one thing going wrong.
const TWO_POSTS: Bounds = Bounds { posts: 2, faults: 1, ..ONE };

/// Two things going wrong with one attempt.
const TWO_FAULTS: Bounds = Bounds { faults: 2, ..ONE };

/// Two looks of reconcile at once, one thing going wrong.
const TWO_LOOKS: Bounds = Bounds { faults: 1, reconciles: 2, ..ONE };

/// A run that is removed once it has ended.
const REMOVED: Bounds = Bounds { cancels: 1, faults: 1, removal: true, ..ONE };

/// Two things going wrong with two attempts and a cancel, while reconcile looks away: it does not
/// move what has an execution.
const UNWATCHED: Bounds = Bounds { cancels: 1, attempts: 2, faults: 2, reconciles: 0, ..ONE };

fn holds(bounds: Bounds) {
    let checker = Service::new(bounds).checker().spawn_bfs().join();
    eprintln!("{bounds:?}: {} moments", checker.unique_state_count());
    checker.assert_properties();
}

/// `ends`: all that can become of a run within these bounds, so that nothing is checked which cannot
/// happen.
fn ends<const N: usize>(bounds: Bounds, ends: [RunState; N]) {
    let graph = Graph::of(Service::new(bounds));
    eprintln!("{bounds:?}: {} moments", graph.moments());
    if let Some(stuck) = graph.stuck() {
        panic!("no run ends after {:#?}, which lead to {:#?}", stuck.actions, stuck.world);
    }
    assert_eq!(graph.ends(), ends.into(), "{bounds:?}");
}

#[test]
fn all_holds_when_a_run_is_cancelled() {
    holds(CANCELED);
}

#[test]
fn all_holds_when_a_run_is_posted_twice() {
    holds(TWO_POSTS);
}

#[test]
fn all_holds_when_two_things_go_wrong() {
    holds(TWO_FAULTS);
}

#[test]
fn all_holds_when_two_look_at_once() {
    holds(TWO_LOOKS);
}

#[test]
fn all_holds_when_runs_are_removed() {
    holds(REMOVED);
}

#[test]
fn all_holds_when_two_things_go_wrong_and_nobody_repairs() {
    holds(UNWATCHED);
}

#[test]
fn every_run_ends_when_it_is_cancelled_or_not() {
    ends(CANCELED, [Complete, ExecutorError, SystemError, Canceled]);
}

#[test]
fn every_run_ends_when_it_is_posted_twice() {
    ends(TWO_POSTS, [Complete, ExecutorError, SystemError, Preempted]);
}

#[test]
fn every_run_ends_when_two_things_go_wrong() {
    ends(TWO_FAULTS, [Complete, ExecutorError, SystemError, Preempted]);
}

#[test]
fn every_run_ends_when_two_look_at_once() {
    ends(TWO_LOOKS, [Complete, ExecutorError, SystemError, Preempted]);
}

#[test]
fn every_run_ends_before_it_is_removed() {
    ends(REMOVED, [Complete, ExecutorError, SystemError, Canceled, Preempted]);
}
