//! Map: runs its item processor once an item, and goes on with what each run gave.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{Kind, State, fields};
use crate::execution::{Activity, Begun, Children, Here, Item, Run, Tolerance};
use crate::expression::{Available, Count, EvaluationError, Template};
use crate::failure::{Failure, RUNTIME, Trouble};
use crate::history::EventKind;
use crate::load::{Fields, LoadError, Place};
use crate::machine::Flow;

/// How many iterations run at once when `MaxConcurrency` does not say less: what Step Functions
/// allows an inline Map.
const MAX_CONCURRENCY: u32 = 40;

#[derive(Debug)]
pub(crate) struct Map {
    items: Option<Template>,
    item_selector: Option<Template>,
    pub(crate) processor: Flow,
    max_concurrency: Option<Count>,
    tolerated_count: Option<Count>,
    tolerated_percentage: Option<Template>,
}

pub(super) fn load(
    place: Place,
    value: &Value,
    names: &mut BTreeSet<String>,
) -> Result<State, LoadError> {
    let fields = fields(
        place,
        value,
        &[
            "Items",
            "ItemSelector",
            "ItemProcessor",
            "MaxConcurrency",
            "ToleratedFailureCount",
            "ToleratedFailurePercentage",
            "Retry",
            "Catch",
            "Next",
            "End",
            "Output",
            "Assign",
        ],
    )?;
    let processor = Fields::of(
        fields.at("ItemProcessor"),
        fields.required("ItemProcessor")?,
        &["ProcessorConfig", "StartAt", "States", "Comment"],
    )?;
    processor.string("Comment")?;
    load_config(&processor)?;
    let template = |name: &str| {
        fields
            .get(name)
            .map(|value| Template::load(&fields.at(name), value, Available::Entry))
            .transpose()
    };
    let count = |name: &str| {
        fields.get(name).map(|value| Count::load(&fields.at(name), value, 0..=u32::MAX)).transpose()
    };
    let items = template("Items")?;
    if matches!(items, Some(Template::Literal(_) | Template::Object(_))) {
        return Err(fields.at("Items").refuse("must be an array, or an expression that gives one"));
    }
    let tolerated_percentage = template("ToleratedFailurePercentage")?;
    match &tolerated_percentage {
        None | Some(Template::Expression(_)) => {}
        Some(Template::Literal(value)) if percentage(value).is_some() => {}
        Some(_) => {
            return Err(fields
                .at("ToleratedFailurePercentage")
                .refuse("must be a number from 0 to 100, or an expression that gives one"));
        }
    }
    let map = Map {
        items,
        item_selector: template("ItemSelector")?,
        processor: Flow::load(&processor, names)?,
        max_concurrency: count("MaxConcurrency")?,
        tolerated_count: count("ToleratedFailureCount")?,
        tolerated_percentage,
    };
    State::retried(Kind::Map(Box::new(map)), &fields)
}

fn load_config(processor: &Fields<'_>) -> Result<(), LoadError> {
    let Some(config) = processor.get("ProcessorConfig") else { return Ok(()) };
    let fields = Fields::of(processor.at("ProcessorConfig"), config, &["Mode"])?;
    match fields.string("Mode")? {
        None | Some("INLINE") => Ok(()),
        Some(other) => Err(fields
            .at("Mode")
            .refuse(format!("must be \"INLINE\", the only one implemented, but is {other:?}"))),
    }
}

fn percentage(value: &Value) -> Option<f64> {
    value.as_f64().filter(|number| (0.0..=100.0).contains(number))
}

impl Map {
    pub(super) fn begin(
        &self,
        run: &mut Run<'_>,
        here: &Here<'_>,
        last: &mut u64,
    ) -> Result<Begun<'static>, Trouble> {
        let (items, limit) = run.evaluate(here, None, |scope| {
            let items = match &self.items {
                Some(template) => scope.typed(template, "array")?,
                None => here.visit.input.clone(),
            };
            let Value::Array(items) = items else {
                return Err(EvaluationError {
                    location: None,
                    message: format!("Map state input must be an array but was: {items}"),
                });
            };
            let limit = self.max_concurrency.as_ref().map(|c| scope.count(c)).transpose()?;
            Ok((items, limit))
        })?;
        run.event(last, EventKind::MapStateStarted { length: items.len() });
        let tolerance = self.tolerance(run, here)?;
        let limit = match limit {
            None | Some(0) => MAX_CONCURRENCY,
            Some(limit) => limit.min(MAX_CONCURRENCY),
        };
        let children = Children::new(items, *last).limited(limit, tolerance);
        Ok(Begun::Blocked(Activity::Children(children)))
    }

    fn tolerance(&self, run: &mut Run<'_>, here: &Here<'_>) -> Result<Option<Tolerance>, Trouble> {
        if self.tolerated_count.is_none() && self.tolerated_percentage.is_none() {
            return Ok(None);
        }
        let (count, share) = run.evaluate(here, None, |scope| {
            let count = self.tolerated_count.as_ref().map(|c| scope.count(c)).transpose()?;
            let share = match &self.tolerated_percentage {
                Some(template) => Some(scope.typed(template, "number")?),
                None => None,
            };
            Ok((count, share))
        })?;
        let percentage = match share {
            None => None,
            Some(value) => Some(percentage(&value).ok_or_else(|| {
                Failure::named(
                    RUNTIME,
                    here.cause("ToleratedFailurePercentage must be between 0 and 100."),
                )
            })?),
        };
        Ok(Some(Tolerance { count, percentage }))
    }

    /// The input of the iteration over `item`.
    pub(crate) fn input(
        &self,
        run: &mut Run<'_>,
        here: &Here<'_>,
        item: &Item,
    ) -> Result<Value, Trouble> {
        let Some(selector) = &self.item_selector else { return Ok(item.value.clone()) };
        let here = Here { item: Some(item), ..here.clone() };
        let input = run.evaluate(&here, None, |scope| scope.value(selector))?;
        here.check_size(&input)?;
        Ok(input)
    }
}
