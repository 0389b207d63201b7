//! A state machine as it was defined: read, checked as a whole, and ready to run.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::load::{Fields, LoadError, Place};
use crate::states::{self, State};
use crate::strict_json;

/// The most seconds any time-out may say.
pub(crate) const MAX_SECONDS: u32 = 99_999_999;
const MAX_NAME: usize = 80;

/// A state machine in JSONata mode, its expressions parsed. It can be shared between threads.
#[derive(Debug)]
pub struct Machine {
    comment: Option<String>,
    timeout_seconds: Option<u32>,
    flow: Flow,
}

impl Machine {
    /// Reads a definition in the Amazon States Language.
    ///
    /// # Errors
    /// [`LoadError`] for whatever is wrong or not implemented: another query language than JSONata
    /// (at the top or in a state), fields and state types that are unknown or belong to JSONPath
    /// mode, `Next` of a state that is not there, states that cannot be reached, a flow without an
    /// end, invalid JSONata, a variable that an inner scope would shadow, distributed Map,
    /// `.waitForTaskToken`, activities, `Credentials`.
    pub fn load(definition: &str) -> Result<Self, LoadError> {
        let value =
            strict_json::parse(definition).map_err(|error| LoadError::Json(error.to_string()))?;
        let fields = Fields::of(
            Place::machine(),
            &value,
            &["Comment", "QueryLanguage", "StartAt", "States", "TimeoutSeconds", "Version"],
        )?;
        query_language(&fields, true)?;
        if let Some(version) = fields.string("Version")?
            && version != "1.0"
        {
            return Err(fields
                .at("Version")
                .refuse(format!("must be \"1.0\", but is {version:?}")));
        }
        let comment = fields.string("Comment")?.map(str::to_owned);
        let timeout_seconds = fields.integer("TimeoutSeconds", 1..=MAX_SECONDS)?;
        let flow = Flow::load(&fields, &mut BTreeSet::new())?;
        flow.check_variables(&BTreeSet::new())?;
        Ok(Self { comment, timeout_seconds, flow })
    }

    /// The `Comment` at the top of the definition.
    pub fn comment(&self) -> Option<&str> {
        self.comment.as_deref()
    }

    /// The name of the state that an execution enters first.
    pub fn start_at(&self) -> &str {
        &self.flow.start_at
    }

    /// How many seconds an execution may take as a whole.
    pub fn timeout_seconds(&self) -> Option<u32> {
        self.timeout_seconds
    }

    pub(crate) fn flow(&self) -> &Flow {
        &self.flow
    }
}

/// `QueryLanguage` must be JSONata, and be said at the top, where the default is JSONPath.
pub(crate) fn query_language(fields: &Fields<'_>, required: bool) -> Result<(), LoadError> {
    match fields.string("QueryLanguage")? {
        Some("JSONata") => Ok(()),
        None if !required => Ok(()),
        Some(other) => Err(fields
            .at("QueryLanguage")
            .refuse(format!("must be \"JSONata\", the only one implemented, but is {other:?}"))),
        None => Err(fields
            .at("QueryLanguage")
            .refuse("must be \"JSONata\", the only one implemented; without it, it is JSONPath")),
    }
}

/// States that lead to each other: the machine's own, a branch's, or an item processor's.
#[derive(Debug)]
pub(crate) struct Flow {
    pub(crate) start_at: String,
    pub(crate) states: BTreeMap<String, State>,
}

impl Flow {
    /// `names` are the state names of the whole machine so far: they must not repeat.
    pub(crate) fn load(
        fields: &Fields<'_>,
        names: &mut BTreeSet<String>,
    ) -> Result<Self, LoadError> {
        let start_at = fields.required_string("StartAt")?.to_owned();
        let Value::Object(definitions) = fields.required("States")? else {
            return Err(fields.at("States").refuse("must be an object of states"));
        };
        let mut states = BTreeMap::new();
        for (name, definition) in definitions {
            let place = Place::state(name);
            if name.is_empty() || name.chars().count() > MAX_NAME {
                return Err(place.refuse("the name of a state has 1 to 80 characters"));
            }
            if !names.insert(name.clone()) {
                return Err(place.refuse("another state of the machine has the same name"));
            }
            states.insert(name.clone(), states::load(place, definition, names)?);
        }
        let flow = Self { start_at, states };
        flow.check_targets(&fields.at("StartAt"))?;
        Ok(flow)
    }

    /// Every target is there, every state can be reached, and some state ends the flow.
    fn check_targets(&self, start: &Place) -> Result<(), LoadError> {
        if !self.states.contains_key(&self.start_at) {
            return Err(start.refuse(format!("there is no state {:?}", self.start_at)));
        }
        let mut reached = BTreeSet::from([self.start_at.as_str()]);
        let mut pending = vec![self.start_at.as_str()];
        while let Some(name) = pending.pop() {
            for (field, target) in self.states.get(name).map(State::targets).unwrap_or_default() {
                if !self.states.contains_key(target) {
                    return Err(Place::state(name).field(&field).refuse(format!(
                        "there is no state {target:?} beside it; a state goes on to states of its \
                         own flow only"
                    )));
                }
                if reached.insert(target) {
                    pending.push(target);
                }
            }
        }
        if let Some(lost) = self.states.keys().find(|name| !reached.contains(name.as_str())) {
            return Err(Place::state(lost).refuse("no state leads here; remove it or refer to it"));
        }
        if !self.states.values().any(State::is_terminal) {
            return Err(
                start.refuse("no state of this flow ends it; set End, or add a Succeed or Fail")
            );
        }
        Ok(())
    }

    /// A variable of an outer scope can be read in an inner one, and not assigned there
    /// (Step Functions developer guide, "Passing data between states with variables").
    fn check_variables(&self, outer: &BTreeSet<&str>) -> Result<(), LoadError> {
        let mut own = outer.clone();
        for (name, state) in &self.states {
            for (field, variable) in state.assigned() {
                if outer.contains(variable) {
                    return Err(Place::state(name).field(&field).refuse(format!(
                        "${variable} is assigned in an outer scope too; an inner scope can read \
                         it, and needs another name to assign"
                    )));
                }
                own.insert(variable);
            }
        }
        self.states
            .values()
            .flat_map(State::flows)
            .try_for_each(|inner| inner.check_variables(&own))
    }
}
