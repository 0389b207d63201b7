//! What must hold of a definition, whoever wrote it.

use chrono::{DateTime, TimeDelta, Utc};
use serde_json::json;

use crate::{Command, Execution, Input, Machine};

/// Panics when something does not hold for an input.
pub type Property = fn(&[u8]);

/// The properties by their names.
pub const TARGETS: &[(&str, Property)] = &[("asl", definition)];

/// How often the host looks at an execution.
const LOOKS: usize = 24;

/// One byte that says how tasks end, and a definition: it is refused or runs, the same whether the
/// execution is stored between any two steps or not.
pub fn definition(input: &[u8]) {
    let Some((ends, text)) = input.split_first() else { return };
    let Ok(machine) = Machine::load(&String::from_utf8_lossy(text)) else { return };
    let stored = run(&machine, *ends, true);
    assert_eq!(run(&machine, *ends, false), stored);
}

fn run(machine: &Machine, mut ends: u8, store: bool) -> Execution {
    let mut now = DateTime::<Utc>::from_timestamp(1_735_689_600, 0).expect("a time");
    let mut execution = Execution::start(machine, Input::new("any", json!({"a": [1, "b"]})), now);
    for _ in 0..LOOKS {
        if store {
            let text = serde_json::to_string(&execution).expect("plain data");
            execution = serde_json::from_str(&text).expect("what was just written");
        }
        for command in execution.poll(machine, now) {
            ends = ends.rotate_left(1);
            if let Command::StartTask { id, .. } = command {
                match ends & 3 {
                    0 => drop(execution.task_failed(id, "E", "a cause", now)),
                    1 => {}
                    _ => drop(execution.task_succeeded(id, json!({"ok": [ends]}), now)),
                }
            }
        }
        match execution.next_wake() {
            None if execution.is_ended() => break,
            Some(wake) if wake - now < TimeDelta::days(366) => now = wake.max(now),
            _ => {}
        }
    }
    execution
}

#[cfg(test)]
mod tests {
    #[test]
    fn every_property_holds_on_its_corpus_and_on_changes_of_it() {
        stepwes_fuzz::check_all(super::TARGETS);
    }
}
