//! The queue, within bounds, and that the checks of it see something.

use std::collections::BTreeSet;

use stateright::{Checker as _, Model as _};
use stepwes_model::{Queue, QueueBounds, QueueBug};

const BOUNDS: QueueBounds =
    QueueBounds { runs: 2, limit: 1, looks: 2, faults: 1, cancels: 1, lag: false };

const AGREE: &str = "a slot and its run agree";
const LIMIT: &str = "no more runs are at work than may be";
const ORDER: &str = "none overtakes another";

fn broken(queue: Queue) -> BTreeSet<&'static str> {
    let checker = queue.checker().spawn_bfs().join();
    eprintln!("{} moments", checker.unique_state_count());
    [AGREE, LIMIT, ORDER].into_iter().filter(|rule| checker.discovery(rule).is_some()).collect()
}

#[test]
fn all_holds_and_every_run_has_its_turn() {
    for bounds in [
        BOUNDS,
        QueueBounds { runs: 3, looks: 1, ..BOUNDS },
        QueueBounds { faults: 0, cancels: 0, lag: true, ..BOUNDS },
    ] {
        assert_eq!(broken(Queue::new(bounds)), [].into(), "{bounds:?}");
        assert_eq!(Queue::new(bounds).stuck(), None, "{bounds:?}");
    }
}

#[test]
fn each_bug_is_seen() {
    let well = QueueBounds { faults: 0, cancels: 0, ..BOUNDS };
    for (bug, bounds, rules) in [
        (QueueBug::SlotTakenTwice, well, vec![AGREE, LIMIT]),
        (QueueBug::SlotKept, well, vec![AGREE]),
        (QueueBug::PlaceForgotten, QueueBounds { cancels: 1, ..well }, vec![AGREE]),
        (QueueBug::StartedWaiting, well, vec![LIMIT]),
        (QueueBug::OutOfOrder, QueueBounds { faults: 1, ..well }, vec![ORDER]),
    ] {
        let found = broken(Queue::new(bounds).with(bug));
        assert_eq!(found, rules.into_iter().collect(), "{bug:?}");
    }
    assert!(Queue::new(well).with(QueueBug::EndsUnheard).stuck().is_some());
    assert!(Queue::new(well).with(QueueBug::SlotKept).stuck().is_some());
}
