//! `infra/run.asl.json` as the model follows it: which step comes after which, what is tried again,
//! and where what is caught goes. Read from the file itself, so that a step that is added, or an
//! error that is no longer caught, changes what is checked.

use std::collections::BTreeMap;

use serde_json::Value;
use stepwes_core::step::Next;

const SOURCE: &str = include_str!("../../../infra/run.asl.json");

/// A state's place in the machine.
pub(crate) type Place = u8;

/// What a state of the machine does.
#[derive(Clone, Debug)]
pub(crate) enum Kind {
    /// Asks advance for the first attempt.
    Initialize,
    /// Starts the engine task and waits for its end.
    RunTask,
    /// Asks collect.
    Collect,
    /// Tells advance that the attempt was lost.
    Preempt,
    /// Tells advance that a step failed.
    SystemError,
    /// Goes by the answer of the step before.
    Choice {
        /// Where each answer leads.
        ways: Vec<(Next, Place)>,
        /// Where the others do.
        otherwise: Place,
    },
    /// Waits, however long.
    Wait,
    /// The end. Whether it is a failure plays no part: reconcile looks at any time.
    End,
}

/// One state.
#[derive(Clone, Debug)]
pub(crate) struct State {
    pub(crate) kind: Kind,
    /// Where it goes on; its own place for an end and a choice.
    pub(crate) next: Place,
    /// The errors that are tried again.
    pub(crate) retried: Vec<String>,
    /// Where whatever else fails goes; none: the execution fails.
    pub(crate) caught: Option<Place>,
}

/// The machine.
#[derive(Clone, Debug)]
pub(crate) struct Machine {
    pub(crate) states: Vec<State>,
    pub(crate) start: Place,
}

/// Every answer that a step may give.
const ANSWERS: [Next; 8] = [
    Next::RunTask,
    Next::Retry,
    Next::Wait,
    Next::Complete,
    Next::ExecutorError,
    Next::SystemError,
    Next::Canceled,
    Next::Preempted,
];

impl Machine {
    /// The machine that is deployed.
    ///
    /// # Panics
    /// When it has something that this model does not know: the model is to be taught it then.
    pub(crate) fn deployed() -> Self {
        let source: Value = serde_json::from_str(SOURCE).expect("the machine is JSON");
        let states = source["States"].as_object().expect("States");
        let places: BTreeMap<&str, Place> =
            states.keys().map(String::as_str).zip(0..Place::MAX).collect();
        let place = |name: &Value| places[name.as_str().expect("a state's name")];
        let states = states
            .iter()
            .map(|(name, state)| {
                let kind = kind(name, state, &place);
                let own = places[name.as_str()];
                let next = state.get("Next").map_or(own, place);
                let entries = |field: &str| state[field].as_array().cloned().unwrap_or_default();
                let retried = entries("Retry").iter().flat_map(errors).collect();
                let caught = entries("Catch");
                assert!(
                    caught.iter().all(|entry| errors(entry) == ["States.ALL"]),
                    "{name}: the model knows no Catch but that of everything"
                );
                let caught = caught.first().map(|entry| place(&entry["Next"]));
                State { kind, next, retried, caught }
            })
            .collect();
        Self { states, start: place(&source["StartAt"]) }
    }

    pub(crate) fn state(&self, place: Place) -> &State {
        &self.states[usize::from(place)]
    }

    /// Where an execution comes to that goes on at `place` with that answer: through choices and
    /// waits to the next step or end.
    pub(crate) fn follow(&self, mut place: Place, answer: Option<Next>) -> Place {
        loop {
            let state = self.state(place);
            place = match &state.kind {
                Kind::Choice { ways, otherwise } => ways
                    .iter()
                    .find(|(way, _)| Some(*way) == answer)
                    .map_or(*otherwise, |(_, to)| *to),
                Kind::Wait => state.next,
                _ => return place,
            };
        }
    }
}

fn errors(entry: &Value) -> Vec<String> {
    let names = entry["ErrorEquals"].as_array().expect("ErrorEquals");
    names.iter().map(|name| name.as_str().expect("a name").to_owned()).collect()
}

fn kind(name: &str, state: &Value, place: &impl Fn(&Value) -> Place) -> Kind {
    let event = state["Arguments"]["Payload"]["event"].as_str();
    let function = state["Arguments"]["FunctionName"].as_str();
    let resource = state["Resource"].as_str().unwrap_or_default();
    match (state["Type"].as_str().expect("a type"), event, function) {
        ("Task", None, None) if resource.ends_with(":ecs:runTask.sync") => Kind::RunTask,
        ("Task", Some("initialize"), Some("${AdvanceFunctionArn}")) => Kind::Initialize,
        ("Task", Some("preempt"), Some("${AdvanceFunctionArn}")) => Kind::Preempt,
        ("Task", Some("system_error"), Some("${AdvanceFunctionArn}")) => Kind::SystemError,
        ("Task", None, Some("${CollectFunctionArn}")) => Kind::Collect,
        ("Wait", ..) => Kind::Wait,
        ("Succeed" | "Fail", ..) => Kind::End,
        ("Choice", ..) => {
            let choices = state["Choices"].as_array().expect("Choices");
            let ways = choices.iter().map(|choice| {
                let condition = choice["Condition"].as_str().expect("a condition");
                let way = ANSWERS.into_iter().find(|next| {
                    let answer = serde_json::to_value(next).expect("a name");
                    let answer = answer.as_str().expect("a name");
                    condition == format!("{{% $states.input.next = '{answer}' %}}")
                });
                (way.unwrap_or_else(|| panic!("{name}: {condition}")), place(&choice["Next"]))
            });
            Kind::Choice { ways: ways.collect(), otherwise: place(&state["Default"]) }
        }
        _ => panic!("the model does not know what the state {name:?} does"),
    }
}
