//! The state types, one file each: how a definition of it is read and what entering it does.

mod choice;
mod fail;
mod map;
mod parallel;
mod pass;
mod succeed;
mod task;
mod wait;

use std::collections::BTreeSet;
use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::Value;

pub(crate) use self::map::Map;
pub(crate) use self::parallel::Parallel;

use self::choice::Choice;
use self::fail::Fail;
use self::task::Task;
use self::wait::Wait;
use crate::assign::{Assign, load_output};
use crate::execution::{Begun, Here, Leaving, Run};
use crate::expression::{Available, Template};
use crate::failure::Trouble;
use crate::load::{Fields, LoadError, Place};
use crate::machine::{Flow, query_language};
use crate::retry::{Catcher, Retrier, load_catchers, load_retriers};

/// The `Type` of a state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the names of the Amazon States Language")]
pub enum StateType {
    Task,
    Choice,
    Wait,
    Pass,
    Succeed,
    Fail,
    Parallel,
    Map,
}

impl fmt::Display for StateType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// How a state is left: where to, with what, setting which variables.
#[derive(Debug, Default)]
pub(crate) struct Exit {
    /// The next state; `None` ends the flow.
    pub(crate) next: Option<String>,
    pub(crate) output: Option<Template>,
    pub(crate) assign: Assign,
}

/// What is particular to the type of a state.
#[derive(Debug)]
pub(crate) enum Kind {
    Task(Box<Task>),
    Choice(Choice),
    Wait(Wait),
    Pass,
    Succeed,
    Fail(Fail),
    Parallel(Parallel),
    Map(Box<Map>),
}

/// One state of a machine.
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) kind: Kind,
    /// How it is left when nothing fails; for a Choice, when no rule matches.
    pub(crate) exit: Exit,
    pub(crate) retriers: Vec<Retrier>,
    pub(crate) catchers: Vec<Catcher>,
}

impl State {
    fn plain(kind: Kind, exit: Exit) -> Self {
        Self { kind, exit, retriers: Vec::new(), catchers: Vec::new() }
    }

    /// A state that can fail and be retried: Task, Parallel, Map.
    fn retried(kind: Kind, fields: &Fields<'_>) -> Result<Self, LoadError> {
        Ok(Self {
            kind,
            exit: load_exit(fields, Available::Result)?,
            retriers: load_retriers(fields)?,
            catchers: load_catchers(fields)?,
        })
    }

    pub(crate) fn state_type(&self) -> StateType {
        match self.kind {
            Kind::Task(_) => StateType::Task,
            Kind::Choice(_) => StateType::Choice,
            Kind::Wait(_) => StateType::Wait,
            Kind::Pass => StateType::Pass,
            Kind::Succeed => StateType::Succeed,
            Kind::Fail(_) => StateType::Fail,
            Kind::Parallel(_) => StateType::Parallel,
            Kind::Map(_) => StateType::Map,
        }
    }

    /// The states it leads to, each with the field that says so.
    pub(crate) fn targets(&self) -> Vec<(String, &str)> {
        let mut targets = Vec::new();
        let own = if matches!(self.kind, Kind::Choice(_)) { "Default" } else { "Next" };
        targets.extend(self.exit.next.as_deref().map(|next| (own.to_owned(), next)));
        if let Kind::Choice(choice) = &self.kind {
            for (index, rule) in choice.rules.iter().enumerate() {
                let next = rule.exit.next.as_deref();
                targets.extend(next.map(|next| (format!("Choices[{index}]/Next"), next)));
            }
        }
        for (index, catcher) in self.catchers.iter().enumerate() {
            let next = catcher.exit.next.as_deref();
            targets.extend(next.map(|next| (format!("Catch[{index}]/Next"), next)));
        }
        targets
    }

    pub(crate) fn is_terminal(&self) -> bool {
        self.exit.next.is_none() && !matches!(self.kind, Kind::Choice(_))
    }

    /// The variables it assigns, each with its field.
    pub(crate) fn assigned(&self) -> impl Iterator<Item = (String, &str)> {
        let rules = match &self.kind {
            Kind::Choice(choice) => choice.rules.as_slice(),
            _ => &[],
        };
        let rules = rules
            .iter()
            .enumerate()
            .map(|(index, rule)| (format!("Choices[{index}]/"), &rule.exit.assign));
        let catchers = self
            .catchers
            .iter()
            .enumerate()
            .map(|(index, catcher)| (format!("Catch[{index}]/"), &catcher.exit.assign));
        std::iter::once((String::new(), &self.exit.assign)).chain(rules).chain(catchers).flat_map(
            |(prefix, assign)| {
                assign
                    .0
                    .iter()
                    .map(move |(name, _)| (format!("{prefix}Assign/{name}"), name.as_str()))
            },
        )
    }

    /// The flows inside it.
    pub(crate) fn flows(&self) -> &[Flow] {
        match &self.kind {
            Kind::Parallel(parallel) => &parallel.branches,
            Kind::Map(map) => std::slice::from_ref(&map.processor),
            _ => &[],
        }
    }

    /// Does what entering (or retrying) the state does, up to where it has to wait.
    pub(crate) fn begin<'m>(
        &'m self,
        run: &mut Run<'_>,
        here: &Here<'_>,
        last: &mut u64,
    ) -> Result<Begun<'m>, Trouble> {
        match &self.kind {
            Kind::Task(task) => task.begin(run, here, last),
            Kind::Choice(choice) => choice.begin(run, here, &self.exit),
            Kind::Wait(wait) => wait.begin(run, here),
            Kind::Pass | Kind::Succeed => Ok(Begun::Leaving(Leaving::unchanged(&self.exit))),
            Kind::Fail(fail) => fail.begin(run, here),
            Kind::Parallel(parallel) => parallel.begin(run, here, last),
            Kind::Map(map) => map.begin(run, here, last),
        }
    }
}

/// Reads one state; `names` are the state names of the whole machine so far.
pub(crate) fn load(
    place: Place,
    value: &Value,
    names: &mut BTreeSet<String>,
) -> Result<State, LoadError> {
    let Some(kind) = value.get("Type") else {
        return Err(place.field("Type").refuse("is required"));
    };
    match kind.as_str() {
        Some("Task") => task::load(place, value),
        Some("Choice") => choice::load(place, value),
        Some("Wait") => wait::load(place, value),
        Some("Pass") => pass::load(place, value),
        Some("Succeed") => succeed::load(place, value),
        Some("Fail") => fail::load(place, value),
        Some("Parallel") => parallel::load(place, value, names),
        Some("Map") => map::load(place, value, names),
        _ => Err(place.field("Type").refuse(format!(
            "must be Task, Choice, Wait, Pass, Succeed, Fail, Parallel or Map, but is {kind}"
        ))),
    }
}

/// The fields of a state of a type that has `own` ones besides those that every state has.
fn fields<'a>(place: Place, value: &'a Value, own: &[&str]) -> Result<Fields<'a>, LoadError> {
    let known: Vec<_> =
        ["Type", "Comment", "QueryLanguage"].into_iter().chain(own.iter().copied()).collect();
    let fields = Fields::of(place, value, &known)?;
    fields.string("Comment")?;
    query_language(&fields, false)?;
    Ok(fields)
}

/// `Next` or `End`, `Output`, `Assign`.
fn load_exit(fields: &Fields<'_>, available: Available) -> Result<Exit, LoadError> {
    let end = match fields.get("End") {
        None => false,
        Some(Value::Bool(end)) => *end,
        Some(other) => {
            return Err(fields.at("End").refuse(format!("must be true or false, but is {other}")));
        }
    };
    let next = fields.string("Next")?.map(str::to_owned);
    match (&next, end) {
        (Some(_), true) => {
            return Err(fields.at("End").refuse("cannot be there together with Next"));
        }
        (None, false) => return Err(fields.at("Next").refuse("is required, or End")),
        _ => {}
    }
    Ok(Exit {
        next,
        output: load_output(fields, available)?,
        assign: Assign::load(fields, available)?,
    })
}
