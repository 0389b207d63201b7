//! Parallel: runs its branches at once and goes on with what each gave.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{Kind, State, fields};
use crate::execution::{Activity, Begun, Children, Here, Run};
use crate::expression::{Available, Template};
use crate::failure::Trouble;
use crate::history::EventKind;
use crate::load::{Fields, LoadError, Place};
use crate::machine::Flow;

#[derive(Debug)]
pub(crate) struct Parallel {
    arguments: Option<Template>,
    pub(crate) branches: Vec<Flow>,
}

pub(super) fn load(
    place: Place,
    value: &Value,
    names: &mut BTreeSet<String>,
) -> Result<State, LoadError> {
    let fields = fields(
        place,
        value,
        &["Branches", "Arguments", "Retry", "Catch", "Next", "End", "Output", "Assign"],
    )?;
    let place = fields.at("Branches");
    let branches = fields
        .array("Branches")?
        .ok_or_else(|| place.refuse("is required"))?
        .iter()
        .enumerate()
        .map(|(index, branch)| {
            let fields = Fields::of(place.item(index), branch, &["StartAt", "States", "Comment"])?;
            fields.string("Comment")?;
            Flow::load(&fields, names)
        })
        .collect::<Result<Vec<_>, _>>()?;
    if branches.is_empty() {
        return Err(place.refuse("must have at least one branch"));
    }
    let arguments = fields
        .get("Arguments")
        .map(|value| Template::load(&fields.at("Arguments"), value, Available::Entry))
        .transpose()?;
    State::retried(Kind::Parallel(Parallel { arguments, branches }), &fields)
}

impl Parallel {
    pub(super) fn begin(
        &self,
        run: &mut Run<'_>,
        here: &Here<'_>,
        last: &mut u64,
    ) -> Result<Begun<'static>, Trouble> {
        let input = match &self.arguments {
            Some(template) => run.evaluate(here, None, |scope| scope.value(template))?,
            None => here.visit.input.clone(),
        };
        here.check_size(&input)?;
        run.event(last, EventKind::ParallelStateStarted);
        let inputs = vec![input; self.branches.len()];
        Ok(Begun::Blocked(Activity::Children(Children::new(inputs, *last))))
    }
}
