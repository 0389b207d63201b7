//! Runs every case of `tests/cases`, straight through and stored between all steps, and every
//! definition of `tests/refusals`, which must not load.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use stepwes_asl::Machine;

mod support;

use support::{Case, check, play};

fn read<T: DeserializeOwned>(folder: &str) -> Vec<T> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests").join(folder);
    let mut paths: Vec<_> = fs::read_dir(&folder)
        .expect("the folder of cases")
        .map(|entry| entry.expect("an entry of the folder").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "json"))
        .collect();
    paths.sort();
    let mut cases = Vec::new();
    for path in paths {
        let text = fs::read_to_string(&path).expect("a readable file");
        let more: Vec<T> = serde_json::from_str(&text)
            .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        cases.extend(more);
    }
    cases
}

fn load(case: &Case) -> Machine {
    Machine::load(&case.definition.to_string())
        .unwrap_or_else(|error| panic!("{}: {error}", case.name))
}

#[test]
fn every_case_ends_as_expected() {
    let cases: Vec<Case> = read("cases");
    assert!(cases.len() >= 60, "the cases are there");
    for case in &cases {
        check(case, &play(case, &load(case), false));
    }
}

#[test]
fn every_case_ends_the_same_when_it_is_stored_and_read_between_all_steps() {
    for case in read::<Case>("cases") {
        let machine = load(&case);
        let stored = play(&case, &machine, true);
        check(&case, &stored);
        assert_eq!(stored, play(&case, &machine, false), "{}", case.name);
    }
}

#[test]
fn the_same_case_gives_the_same_commands_events_and_numbers_again() {
    for case in read::<Case>("cases") {
        assert_eq!(
            play(&case, &load(&case), false),
            play(&case, &load(&case), false),
            "{}",
            case.name
        );
    }
}

#[test]
fn the_names_of_cases_are_unique() {
    let mut names = BTreeSet::new();
    for case in read::<Case>("cases") {
        assert!(names.insert(case.name.clone()), "{} is there twice", case.name);
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Refusal {
    name: String,
    definition: Value,
    message: String,
}

#[test]
fn every_refused_definition_is_refused_naming_state_and_field() {
    let refusals: Vec<Refusal> = read("refusals");
    assert!(refusals.len() >= 40, "the refusals are there");
    let mut wrong = Vec::new();
    for Refusal { name, definition, message } in refusals {
        // A string stands for a text that no JSON value can hold: a broken one, or a repeated key.
        let text = match definition {
            Value::String(text) => text,
            other => other.to_string(),
        };
        match Machine::load(&text) {
            Err(error) if error.to_string() == message => {}
            Err(error) => wrong.push(format!("{name}: {error}\n  instead of: {message}")),
            Ok(_) => wrong.push(format!("{name}: was loaded")),
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
